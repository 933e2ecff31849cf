//! The body of a request on its way to Metrica: streamed piece by piece, at the pace of the slower side.
//!
//! 1. A piece is passed on unchanged, and the next one is read only after the first was taken: memory use is constant.
//! 2. An HTTP/2 body whose stream is reset with `NO_ERROR` or `CANCEL`, which hyper treats as its end, is an error.
//! 3. A body that must be read before it is forwarded is read ahead (`ahead`), and charged to the budgets of the worker and
//!    of the connection ([`budget`]).
//!
//! The module is independent of the exchange that a body belongs to, except that it reports progress ([`RequestProgress`]).

use std::error::Error as _;
use std::io::ErrorKind;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::Version;
use http_body::{Body, Frame, SizeHint};
use strict_http::number;

mod ahead;
pub mod budget;
pub mod caller_body;
pub mod fields;
pub mod held;

use ahead::{Ahead, Watch};
use budget::Charge;
use caller_body::CallerBody;
use fields::clean_trailers;
use held::{ContinueDecision, Held};

use crate::policy::decide::Shadowed;
use crate::policy::rules::{Breach, Parts};

/// Receives the progress of a request's body.
pub trait RequestProgress {
    /// The caller sent a piece of this many bytes.
    fn request_bytes(&self, bytes: usize);
    /// The body is complete.
    fn request_completed(&self);
    /// Whether a piece of the caller is awaited from now on.
    fn await_body(&self, awaited: bool);
    /// The body breaks a rule of its caller, and is forwarded nevertheless.
    fn would_refuse(&self, shadowed: Shadowed);
    /// A charge to the budgets for bytes that are read ahead.
    fn charge(&self) -> Charge;
}

/// The reason why a body ends early.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// The caller's connection failed.
    #[error("the caller's body ended prematurely")]
    Caller(#[source] hyper::Error),
    /// The HTTP/2 stream was reset with `NO_ERROR` or `CANCEL` (rule 2).
    #[error("the stream was reset before the body's end")]
    Reset,
    /// The upstream responded without asking for the body.
    #[error("the body was not requested")]
    NotAskedFor,
    /// The body breaks a rule of its caller.
    #[error("{0}")]
    Breach(Breach),
    /// The body must be read ahead, and the memory for that is used up.
    #[error("the memory for bodies that are checked before forwarding is exhausted")]
    NoMemory,
}

impl BodyError {
    /// Whether the caller disconnected; otherwise it sent an invalid body, or the gate gave up on the body.
    #[must_use]
    pub fn is_caller_disconnect(&self) -> bool {
        let error = match self {
            Self::Caller(error) => error,
            Self::Reset => return true,
            Self::NotAskedFor | Self::Breach(_) | Self::NoMemory => return false,
        };
        let cause = error.source().and_then(|source| source.downcast_ref::<std::io::Error>()).map(std::io::Error::kind);
        let left =
            [ErrorKind::UnexpectedEof, ErrorKind::ConnectionReset, ErrorKind::ConnectionAborted, ErrorKind::BrokenPipe];
        error.is_incomplete_message()
            || error.is_closed()
            || error.is_canceled()
            || cause.is_some_and(|kind| left.contains(&kind))
    }
}

/// The body of a request on its way to Metrica.
pub struct RequestBody {
    incoming: Option<CallerBody>,
    http2: bool,
    progress: Rc<dyn RequestProgress>,
    held: Option<Held>,
    /// Boxed: few bodies are read ahead.
    ahead: Option<Box<Ahead>>,
    /// Checks the bytes behind those that were read ahead.
    watch: Option<Box<Watch>>,
}

impl RequestBody {
    /// The body of a request that arrived over this HTTP version, held back while `held` requires it.
    pub fn new(incoming: CallerBody, version: Version, progress: Rc<dyn RequestProgress>, held: Option<Held>) -> Self {
        let http2 = version == Version::HTTP_2;
        // On HTTP/1.1, a forwarded request with an unread rest ends the connection.
        let incoming = if http2 { incoming } else { incoming.left_with_nobody() };
        Self { incoming: Some(incoming), http2, progress, held, ahead: None, watch: None }
    }

    /// The body of a request without one.
    pub const fn empty(progress: Rc<dyn RequestProgress>) -> Self {
        Self { incoming: None, http2: false, progress, held: None, ahead: None, watch: None }
    }

    /// Stops holding the body back: on HTTP/2 the gate requests the body itself.
    pub fn release(&mut self) {
        self.held = None;
    }

    /// Checks the names of the parts from now on, including those read ahead.
    ///
    /// # Errors
    /// The broken rule, if the rules of the caller are enforced.
    pub fn watch(&mut self, parts: Parts, enforce: bool) -> Result<(), Breach> {
        let mut watch = Box::new(Watch::new(parts, enforce));
        let read = self.ahead.iter().flat_map(|ahead| [Some(&*ahead.data), ahead.unfit.as_deref()]);
        let mut is_due = true;
        for piece in read.flatten() {
            is_due = is_due && watch.feed(piece, &*self.progress)?;
        }
        self.watch = is_due.then_some(watch);
        Ok(())
    }

    /// Stops checking the parts.
    pub fn watch_no_more(&mut self) {
        self.watch = None;
    }

    /// Reads the body ahead, up to more than `limit` bytes. Returns whether that was the whole body. Reserves the memory
    /// before it polls the caller.
    pub fn poll_ahead(&mut self, context: &mut Context<'_>, limit: usize) -> Poll<Result<bool, BodyError>> {
        let mut ahead = self.ahead.take().unwrap_or_else(|| Box::new(Ahead::new(self.progress.charge())));
        let whole = loop {
            // Received bytes are never lost: some bodies are forwarded even when memory is used up.
            if let Some(unfit) = ahead.unfit.take()
                && !ahead.take(unfit)
            {
                break Poll::Ready(Err(BodyError::NoMemory));
            }
            if ahead.over || ahead.data.len() > limit {
                break Poll::Ready(Ok(ahead.over));
            }
            // The end of a body takes no memory.
            if self.left() != Some(0) && !ahead.make_room(1, self.left().map_or(0, |left| left.min(limit))) {
                break Poll::Ready(Err(BodyError::NoMemory));
            }
            match self.poll_incoming(context) {
                Poll::Pending => break Poll::Pending,
                Poll::Ready(None) => ahead.over = true,
                Poll::Ready(Some(Err(error))) => break Poll::Ready(Err(error)),
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => {
                        if !ahead.take(data) {
                            break Poll::Ready(Err(BodyError::NoMemory));
                        }
                    }
                    Err(frame) => {
                        ahead.trailers = frame.into_trailers().ok();
                        ahead.over = true;
                    }
                },
            }
        };
        self.ahead = Some(ahead);
        whole
    }

    /// The number of bytes still to come, if known.
    fn left(&self) -> Option<usize> {
        self.incoming.as_ref()?.size_hint().exact().map(number::length)
    }

    /// The memory that the bytes read ahead are charged with.
    #[must_use]
    pub fn charged(&self) -> usize {
        self.ahead.as_ref().map_or(0, |ahead| ahead.charged())
    }

    /// The bytes that were read ahead and not yet forwarded.
    #[must_use]
    pub fn ahead(&self) -> &[u8] {
        self.ahead.as_ref().map_or(&[], |ahead| &ahead.data)
    }

    fn poll_incoming(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Some(incoming) = &mut self.incoming else { return Poll::Ready(None) };
        let polled = Pin::new(&mut *incoming).poll_frame(context);
        self.progress.await_body(polled.is_pending());
        let Some(frame) = ready!(polled) else {
            if self.http2 && !incoming.is_end_stream() {
                return Poll::Ready(Some(Err(BodyError::Reset)));
            }
            self.progress.request_completed();
            return Poll::Ready(None);
        };
        let mut frame = frame.map_err(BodyError::Caller)?;
        if let Some(data) = frame.data_ref() {
            self.progress.request_bytes(data.len());
        }
        // Trailers end the body: hyper is not polled after them.
        if frame.trailers_mut().map(clean_trailers).is_some() || incoming.is_end_stream() {
            self.progress.request_completed();
        }
        Poll::Ready(Some(Ok(frame)))
    }

    fn watched(&mut self, frame: Frame<Bytes>) -> Result<Frame<Bytes>, BodyError> {
        if let (Some(watch), Some(data)) = (&mut self.watch, frame.data_ref())
            && !watch.feed(data, &*self.progress).map_err(BodyError::Breach)?
        {
            self.watch = None;
        }
        Ok(frame)
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        if let Some(held) = &mut this.held {
            match ready!(held.poll_decision(context)) {
                ContinueDecision::Wanted => this.held = None,
                ContinueDecision::NotWanted | ContinueDecision::Over => {
                    return Poll::Ready(Some(Err(BodyError::NotAskedFor)));
                }
            }
        }
        match &mut this.ahead {
            Some(ahead) if !ahead.has_gone() => Poll::Ready(ahead.next().map(Ok)),
            Some(ahead) if ahead.over => Poll::Ready(None),
            // Frees the memory of the bytes read ahead, which are forwarded.
            Some(_) | None => {
                this.ahead = None;
                let polled = ready!(this.poll_incoming(context));
                Poll::Ready(polled.map(|frame| this.watched(frame?)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        let all_was_read = || self.incoming.as_ref().is_none_or(CallerBody::is_end_stream);
        self.ahead.as_ref().map_or_else(all_was_read, |ahead| ahead.has_gone() && (ahead.over || all_was_read()))
    }

    fn size_hint(&self) -> SizeHint {
        let to_come = self.incoming.as_ref().map_or_else(|| SizeHint::with_exact(0), CallerBody::size_hint);
        let read = number::count(self.ahead.as_ref().map_or(0, |ahead| ahead.len()));
        // Without a declared length the total stays unknown, so chunks stay chunks.
        to_come.exact().map_or(to_come, |exact| SizeHint::with_exact(exact + read))
    }
}

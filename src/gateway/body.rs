//! Bodies: both directions stream, piece by piece, at the pace of the slower side.
//!
//! 1. A piece is passed on as it came, and no second one is read before the first was taken: memory is flat.
//! 2. An answer that breaks off never looks complete: its error closes the caller's connection. It waits until everything
//!    before it has gone to the socket: a caller that sees nothing of an answer may take its request for one that was never
//!    sent, and send it again.
//! 3. Nor does a body of HTTP/2 whose stream was reset with `NO_ERROR` or `CANCEL`, which hyper takes for its end.
//!
//! What is done to the upstream's body on its way is in `streaming`.

use std::error::Error as _;
use std::io::ErrorKind;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::Version;
use http_body::{Body, Frame, SizeHint};
use metrica::operation::Verb;

use super::ahead::{Ahead, Watch};
use super::caller_body::CallerBody;
use super::exchange::Exchange;
use super::filtered::Filtered;
use super::headers::clean_trailers;
use super::held::{Held, Say};
use super::list_filter::NotAList;
use super::streaming::Streaming;
use crate::metrics::UpstreamError;
use crate::policy::rules::{Breach, Parts};
use crate::upstream::broken::Broken;

/// Why a body ends before its end.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// The caller's connection failed.
    #[error("the caller's body broke off")]
    Caller(#[source] hyper::Error),
    /// The upstream's connection failed.
    #[error("the upstream's body broke off")]
    Upstream(#[source] Broken),
    /// The upstream sent nothing for `upstream.timeouts.body_idle`.
    #[error("the upstream's body stalled")]
    Stalled,
    /// A stream of HTTP/2 was reset without saying why.
    #[error("the stream was reset before the body's end")]
    Reset,
    /// The upstream answered without asking for the body.
    #[error("the body was not asked for")]
    NotAskedFor,
    /// It breaks a rule of its caller.
    #[error("{0}")]
    Breach(Breach),
    /// It is to be read before it goes on, and there is no memory for that.
    #[error("the memory for bodies that are read before they go on is used up")]
    NoMemory,
    /// The token that went out came back, where it cannot be overwritten.
    #[error("the upstream's body holds the token")]
    Reflected,
    /// It should be filtered, and is nothing that can be.
    #[error("the upstream's body cannot be filtered: {0}")]
    NotAList(#[source] NotAList),
    /// Whether the token comes back cannot be seen.
    #[error("the upstream's body cannot be looked through")]
    Unreadable,
}

impl BodyError {
    /// Whether it is a caller's that went away, and not one's that sent what is no body.
    #[must_use]
    pub fn is_of_a_caller_that_left(&self) -> bool {
        let error = match self {
            Self::Caller(error) => error,
            Self::Reset => return true,
            Self::Upstream(_)
            | Self::Stalled
            | Self::NotAskedFor
            | Self::Breach(_)
            | Self::NoMemory
            | Self::Reflected
            | Self::NotAList(_)
            | Self::Unreadable => return false,
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

/// The body of a request, on its way to Metrica.
pub struct RequestBody {
    incoming: Option<CallerBody>,
    http2: bool,
    exchange: Rc<Exchange>,
    held: Option<Held>,
    /// Boxed: few bodies are read before they go on.
    ahead: Option<Box<Ahead>>,
    /// Looks through what comes behind that.
    watch: Option<Box<Watch>>,
}

impl RequestBody {
    /// The body of an exchange's request, which came in this version of HTTP, held back while `held` says so.
    pub fn new(incoming: CallerBody, version: Version, exchange: Rc<Exchange>, held: Option<Held>) -> Self {
        let http2 = version == Version::HTTP_2;
        // On HTTP/1.1 what a forwarded request leaves unread ends the connection.
        let incoming = if http2 { incoming } else { incoming.left_with_nobody() };
        Self { incoming: Some(incoming), http2, exchange, held, ahead: None, watch: None }
    }

    /// The body of a request that has none.
    pub const fn empty(exchange: Rc<Exchange>) -> Self {
        Self { incoming: None, http2: false, exchange, held: None, ahead: None, watch: None }
    }

    /// Nothing holds the body back: on HTTP/2 the gate asks for the body itself.
    pub fn release(&mut self) {
        self.held = None;
    }

    /// From now on, the names of its parts are looked through; what was read ahead is now.
    ///
    /// # Errors
    /// The rule that a part breaks, where the rules of the caller are enforced.
    pub fn watch(&mut self, parts: Parts, enforce: bool) -> Result<(), Breach> {
        let mut watch = Box::new(Watch::new(parts, enforce));
        let read =
            self.ahead.as_ref().map_or([&[][..]; 2], |ahead| [&ahead.data, ahead.unfit.as_deref().unwrap_or_default()]);
        let mut is_due = true;
        for piece in read {
            is_due = is_due && watch.feed(piece, &self.exchange)?;
        }
        self.watch = is_due.then_some(watch);
        Ok(())
    }

    /// Nothing of it is looked through.
    pub fn watch_no_more(&mut self) {
        self.watch = None;
    }

    /// Reads it before it goes on, until there are more than `limit` bytes. Ready with whether that was all of it. Nothing is
    /// asked of the caller that there is no memory for.
    pub fn poll_ahead(&mut self, context: &mut Context<'_>, limit: usize) -> Poll<Result<bool, BodyError>> {
        let mut ahead = self.ahead.take().unwrap_or_else(|| Box::new(Ahead::new(&self.exchange)));
        let whole = loop {
            // What came is never lost: for some bodies a want of memory is no reason to refuse them.
            if let Some(unfit) = ahead.unfit.take()
                && !ahead.take(unfit)
            {
                break Poll::Ready(Err(BodyError::NoMemory));
            }
            if ahead.over || ahead.data.len() > limit {
                break Poll::Ready(Ok(ahead.over));
            }
            if !ahead.make_room(1, self.expected(limit)) {
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

    /// How much is to come, where that is known, and as far as it is read ahead.
    fn expected(&self, limit: usize) -> usize {
        let length = self.incoming.as_ref().and_then(|incoming| incoming.size_hint().exact()).unwrap_or(0);
        usize::try_from(length).map_or(limit, |length| length.min(limit))
    }

    /// What was read and has not gone on.
    #[must_use]
    pub fn ahead(&self) -> &[u8] {
        self.ahead.as_ref().map_or(&[], |ahead| &ahead.data)
    }

    fn poll_incoming(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let connection = &self.exchange.connection;
        let Some(incoming) = &mut self.incoming else { return Poll::Ready(None) };
        let polled = Pin::new(&mut *incoming).poll_frame(context);
        connection.await_body(polled.is_pending());
        let Some(frame) = ready!(polled) else {
            if self.http2 && !incoming.is_end_stream() {
                return Poll::Ready(Some(Err(BodyError::Reset)));
            }
            self.exchange.request_completed();
            return Poll::Ready(None);
        };
        let mut frame = frame.map_err(BodyError::Caller)?;
        if let Some(data) = frame.data_ref() {
            self.exchange.add_request_bytes(data.len());
        }
        // Nobody asks for more after trailers, so they are the end.
        if frame.trailers_mut().map(clean_trailers).is_some() || incoming.is_end_stream() {
            self.exchange.request_completed();
        }
        Poll::Ready(Some(Ok(frame)))
    }

    fn watched(&mut self, frame: Frame<Bytes>) -> Result<Frame<Bytes>, BodyError> {
        if let (Some(watch), Some(data)) = (&mut self.watch, frame.data_ref())
            && !watch.feed(data, &self.exchange).map_err(BodyError::Breach)?
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
            match ready!(held.poll_say(context)) {
                Say::Wanted => this.held = None,
                Say::NotWanted | Say::Over => return Poll::Ready(Some(Err(BodyError::NotAskedFor))),
            }
        }
        match &mut this.ahead {
            Some(ahead) if !ahead.has_gone() => Poll::Ready(ahead.next().map(Ok)),
            Some(ahead) if ahead.over => Poll::Ready(None),
            // What was read is gone, and its memory with it: others may have that.
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
        let read = u64::try_from(self.ahead.as_ref().map_or(0, |ahead| ahead.len())).unwrap_or(0);
        // Of a length that was not said nothing is said now, so that chunks stay chunks.
        to_come.exact().map_or(to_come, |exact| SizeHint::with_exact(exact + read))
    }
}

/// The body of an answer, on its way to the caller.
pub struct ResponseBody {
    exchange: Rc<Exchange>,
    source: Source,
}

#[expect(clippy::large_enum_variant, reason = "a box would be an allocation for every request")]
enum Source {
    Own(Option<Bytes>),
    Upstream(Streaming),
    Filtered(Box<Filtered>),
    Broken(Box<BrokenOff>),
}

/// An answer that broke off, and is about to say so (rule 2).
struct BrokenOff {
    error: Option<BodyError>,
    since: Option<u64>,
}

impl ResponseBody {
    /// A body of the gate's own.
    pub const fn own(body: Bytes, exchange: Rc<Exchange>) -> Self {
        Self { exchange, source: Source::Own(Some(body)) }
    }

    /// The upstream's list of counters, which is filtered.
    pub fn filtered(filtered: Filtered, exchange: Rc<Exchange>) -> Self {
        Self { exchange, source: Source::Filtered(Box::new(filtered)) }
    }

    /// The upstream's body.
    pub const fn upstream(streaming: Streaming, exchange: Rc<Exchange>) -> Self {
        Self { exchange, source: Source::Upstream(streaming) }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Self { exchange, source } = self.get_mut();
        loop {
            let polled = match source {
                Source::Own(body) => body.take().map(|body| Ok(Frame::data(body))),
                Source::Upstream(streaming) => ready!(streaming.poll_frame(context)),
                Source::Filtered(filtered) => ready!(filtered.poll_frame(context)),
                Source::Broken(broken) => {
                    ready!(exchange.connection.transport.poll_flushed(&mut broken.since, context));
                    return Poll::Ready(broken.error.take().map(Err));
                }
            };
            let error = match polled {
                Some(Ok(frame)) => {
                    exchange.add_response_bytes(frame.data_ref().map_or(0, Bytes::len));
                    return Poll::Ready(Some(Ok(frame)));
                }
                Some(Err(error)) => error,
                None => return Poll::Ready(None),
            };
            if matches!(error, BodyError::NotAList(_)) {
                exchange.upstream_error(UpstreamError::Protocol);
            }
            exchange.cut();
            *source = Source::Broken(Box::new(BrokenOff { error: Some(error), since: None }));
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::Own(body) => body.is_none(),
            Source::Upstream(streaming) => streaming.is_end_stream(),
            Source::Filtered(filtered) => filtered.is_end_stream(),
            Source::Broken(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Own(body) => {
                SizeHint::with_exact(body.as_ref().map_or(0, |body| u64::try_from(body.len()).unwrap_or(0)))
            }
            Source::Upstream(streaming) => streaming.size_hint(),
            Source::Filtered(_) | Source::Broken(_) => SizeHint::default(),
        }
    }
}

impl Drop for ResponseBody {
    fn drop(&mut self) {
        let complete = match &mut self.source {
            // Of the answer to a HEAD, the body is not asked for.
            Source::Own(body) => body.is_none() || self.exchange.verb == Some(Verb::Head),
            Source::Upstream(streaming) => streaming.stop(),
            Source::Filtered(filtered) => filtered.stop(),
            Source::Broken(_) => false,
        };
        self.exchange.finish(complete);
    }
}

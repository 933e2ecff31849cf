//! Bodies: both directions stream, piece by piece, at the pace of the slower side.
//!
//! 1. A piece is passed on as it came, and no second one is read before the first was taken: memory is flat.
//! 2. An answer that breaks off never looks complete: its error closes the caller's connection.
//! 3. Of the body of a 401, 403, 420 or 429 a bounded copy is kept to learn the reason; the body itself is not changed.

use std::error::Error as _;
use std::io::ErrorKind;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep, sleep};

use super::exchange::Exchange;
use super::headers::clean_trailers;
use super::refusal::Refusal;
use crate::metrics::UpstreamError;
use crate::operation::Verb;
use crate::upstream::{Lease, Watchdog};

/// Why a body ends before its end.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// The caller's connection failed.
    #[error("the caller's body broke off")]
    Caller(#[source] hyper::Error),
    /// The upstream's connection failed.
    #[error("the upstream's body broke off")]
    Upstream(#[source] hyper::Error),
    /// The upstream sent nothing for `upstream.timeouts.body_idle`.
    #[error("the upstream's body stalled")]
    Stalled,
    /// The upstream answered without asking for the body.
    #[error("the body was not asked for")]
    NotAskedFor,
}

impl BodyError {
    /// Whether it is a caller's that went away, and not one's that sent what is no body.
    #[must_use]
    pub fn is_of_a_caller_that_left(&self) -> bool {
        let Self::Caller(error) = self else { return false };
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
    incoming: Option<Incoming>,
    exchange: Rc<Exchange>,
    held: Option<Held>,
}

impl RequestBody {
    /// The body of an exchange's request, held back while `held` says so.
    pub fn new(incoming: Incoming, exchange: Rc<Exchange>, held: Option<Held>) -> Self {
        Self { incoming: Some(incoming), exchange, held }
    }

    /// The body of a request that has none.
    pub const fn empty(exchange: Rc<Exchange>) -> Self {
        Self { incoming: None, exchange, held: None }
    }

    /// Nothing holds the body back: on HTTP/2 the gate asks for the body itself.
    pub fn release(&mut self) {
        self.held = None;
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
        let connection = &this.exchange.connection;
        let Some(incoming) = &mut this.incoming else { return Poll::Ready(None) };
        let polled = Pin::new(&mut *incoming).poll_frame(context);
        connection.await_body(polled.is_pending());
        let Some(frame) = ready!(polled) else {
            this.exchange.request_completed();
            return Poll::Ready(None);
        };
        let mut frame = frame.map_err(BodyError::Caller)?;
        if let Some(data) = frame.data_ref() {
            this.exchange.add_request_bytes(data.len());
        }
        // Nobody asks for more after trailers, so they are the end.
        if frame.trailers_mut().map(clean_trailers).is_some() || incoming.is_end_stream() {
            this.exchange.request_completed();
        }
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.as_ref().is_none_or(Incoming::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.as_ref().map_or_else(|| SizeHint::with_exact(0), Incoming::size_hint)
    }
}

/// How long a body waits to be asked for, before it is sent unasked: an upstream need not know of `Expect`, and a
/// client must not wait for ever (RFC 9110, section 10.1.1).
const PATIENCE: Duration = Duration::from_secs(1);

/// Holds a body back until the upstream asks for it with 100 (Continue).
pub struct Held {
    asked: Asked,
    patience: Pin<Box<Sleep>>,
}

/// The upstream's say on a body that is held back. `Send`, because the client's callback has to be.
#[derive(Clone, Default)]
pub struct Asked(Arc<Mutex<(Option<Say>, Option<Waker>)>>);

/// What the upstream said of a body that is held back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Say {
    /// It asked for it.
    Wanted,
    /// It answers without it. The body still waits: to end it now would end the connection, and the answer with it.
    NotWanted,
    /// Its answer is over.
    Over,
}

impl Held {
    /// Held until `asked` says something.
    #[must_use]
    pub fn new(asked: Asked) -> Self {
        Self { asked, patience: Box::pin(sleep(PATIENCE)) }
    }

    fn poll_say(&mut self, context: &mut Context<'_>) -> Poll<Say> {
        let said = {
            let mut state = self.asked.0.lock().unwrap_or_else(PoisonError::into_inner);
            state.1 = Some(context.waker().clone());
            state.0
        };
        match said {
            Some(Say::NotWanted) => Poll::Pending,
            Some(said) => Poll::Ready(said),
            None => self.patience.as_mut().poll(context).map(|()| Say::Wanted),
        }
    }
}

impl Asked {
    /// The upstream said something. What it asked for, it cannot refuse any more.
    pub fn decide(&self, say: Say) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.0 != Some(Say::Wanted) {
            state.0 = Some(say);
        }
        if let Some(waker) = state.1.take() {
            waker.wake();
        }
    }
}

/// The body of an answer, on its way to the caller.
pub struct ResponseBody {
    exchange: Rc<Exchange>,
    source: Source,
}

enum Source {
    Own(Option<Bytes>),
    Upstream(Streaming),
}

/// The answer of the upstream, and the connection it comes on.
pub struct Streaming {
    incoming: Incoming,
    lease: Option<Lease<RequestBody>>,
    watchdog: Option<Watchdog>,
    idle_limit: Duration,
    last_piece: Instant,
    refusal: Option<Refusal>,
    asked: Option<Asked>,
    /// It came to its end.
    whole: bool,
}

impl ResponseBody {
    /// A body of the gate's own.
    pub const fn own(body: Bytes, exchange: Rc<Exchange>) -> Self {
        Self { exchange, source: Source::Own(Some(body)) }
    }

    /// The upstream's body.
    pub fn upstream(streaming: Streaming, exchange: Rc<Exchange>) -> Self {
        let mut body = Self { exchange, source: Source::Upstream(streaming) };
        body.finish_if_ended();
        body
    }

    /// An answer without a body is over before it is polled; its connection is free at once.
    fn finish_if_ended(&mut self) {
        if let Source::Upstream(streaming) = &mut self.source
            && streaming.incoming.is_end_stream()
        {
            streaming.end(&self.exchange, true);
        }
    }
}

impl Streaming {
    /// The body `incoming`, which arrives on `lease` and began at `now`; `refusal` looks at it
    /// when it may say why Metrica refused.
    pub fn new(
        incoming: Incoming,
        lease: Lease<RequestBody>,
        watchdog: Watchdog,
        idle_limit: Duration,
        now: Instant,
        refusal: Option<Refusal>,
        asked: Option<Asked>,
    ) -> Self {
        Self {
            incoming,
            lease: Some(lease),
            watchdog: Some(watchdog),
            idle_limit,
            last_piece: now,
            refusal,
            asked,
            whole: false,
        }
    }

    /// The answer is over, `whole` or not: the connection is free, or closed.
    fn end(&mut self, exchange: &Exchange, whole: bool) {
        if let Some(watchdog) = self.watchdog.take() {
            exchange.worker().watchdogs.give_back(watchdog);
        }
        if let Some(refusal) = self.refusal.take() {
            exchange.refused_by_upstream(refusal.error_type());
        }
        if let Some(lease) = self.lease.take() {
            self.whole = whole;
            lease.finish(whole && exchange.request_is_complete());
        }
        if let Some(asked) = self.asked.take() {
            asked.decide(Say::Over);
        }
    }

    fn poll(
        &mut self,
        exchange: &Exchange,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match Pin::new(&mut self.incoming).poll_frame(context) {
            Poll::Ready(Some(Ok(mut frame))) => {
                if let Some(data) = frame.data_ref() {
                    exchange.add_response_bytes(data.len());
                    self.last_piece = Instant::now();
                    if let Some(refusal) = &mut self.refusal {
                        refusal.look_at(data);
                    }
                }
                // Nobody asks for more after trailers, so they are the end.
                if frame.trailers_mut().map(clean_trailers).is_some() || self.incoming.is_end_stream() {
                    self.end(exchange, true);
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => {
                exchange.upstream_error(UpstreamError::BodyCut);
                self.end(exchange, false);
                Poll::Ready(Some(Err(BodyError::Upstream(error))))
            }
            Poll::Ready(None) => {
                self.end(exchange, true);
                Poll::Ready(None)
            }
            Poll::Pending => {
                let deadline = self.last_piece + self.idle_limit;
                let stalled = self.watchdog.as_mut().is_some_and(|dog| dog.poll_passed(context, deadline).is_ready());
                if !stalled {
                    return Poll::Pending;
                }
                exchange.upstream_error(UpstreamError::BodyTimeout);
                self.end(exchange, false);
                Poll::Ready(Some(Err(BodyError::Stalled)))
            }
        }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Self { exchange, source } = self.get_mut();
        match source {
            Source::Own(body) => Poll::Ready(body.take().map(|body| {
                exchange.add_response_bytes(body.len());
                Ok(Frame::data(body))
            })),
            Source::Upstream(streaming) => streaming.poll(exchange, context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::Own(body) => body.is_none(),
            Source::Upstream(streaming) => streaming.incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Own(body) => {
                SizeHint::with_exact(body.as_ref().map_or(0, |body| u64::try_from(body.len()).unwrap_or(0)))
            }
            Source::Upstream(streaming) => streaming.incoming.size_hint(),
        }
    }
}

impl Drop for ResponseBody {
    fn drop(&mut self) {
        let complete = match &mut self.source {
            // Of the answer to a HEAD, the body is not asked for.
            Source::Own(body) => body.is_none() || self.exchange.verb == Some(Verb::Head),
            Source::Upstream(streaming) => {
                // Where it ended before, this changes nothing.
                streaming.end(&self.exchange, streaming.incoming.is_end_stream());
                streaming.whole
            }
        };
        self.exchange.finish(complete);
    }
}

//! The upstream's body, on its way to the caller, and the connection it comes on.
//!
//! 1. Every piece is looked through for the token before it goes on; see [`super::reflection`] and [`super::packed`].
//! 2. Of an error's body, the first [`LOOKED_AT`] bytes are read before its head goes out: so one that stalls, breaks
//!    off or holds the token in a packed body becomes a whole answer of the gate's. Length and framing stay as they were.
//! 3. Of any other body, what is there with the head is read before that goes out: one that has broken off by then becomes
//!    such an answer too.
//! 4. Of what was read ahead of a 401, 403, 420 or 429 a copy is kept to learn the reason.
//! 5. A stream of HTTP/2 that is reset with `NO_ERROR` or `CANCEL` breaks off too, which hyper takes for an end.
//! 6. The connection is free as soon as the body's end was read, and is closed when it breaks off.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use metrica::error_type::{ErrorType, LOOKED_AT};
use tokio::time::Instant;

use super::body::{BodyError, RequestBody};
use super::coding::Coding;
use super::exchange::Exchange;
use super::headers::clean_trailers;
use super::held::{Say, UpstreamSay};
use super::packed::{Packed, Step};
use super::reflection::{Scrubbed, Scrubber, Secret};
use super::refusal::Refusal;
use crate::metrics::UpstreamError;
use crate::upstream::received::Received;
use crate::upstream::{Lease, Watchdog};

/// What an answer's head says of its body.
pub struct Heading {
    /// When it came.
    pub at: Instant,
    /// How the body is packed.
    pub coding: Coding,
    /// What looks at the body, when that may say why Metrica refused (rule 4).
    pub refusal: Option<Refusal>,
    /// What looks at the body, when that may show whose the token is.
    pub shown: Option<Refusal>,
    /// Whether another answer may come on the connection.
    pub reusable: bool,
}

/// What carried the request, and is needed until the answer is over.
pub struct Carrier {
    /// The connection.
    pub lease: Lease<RequestBody>,
    /// For the wait for each piece.
    pub watchdog: Watchdog,
    /// How long that may be.
    pub idle_limit: Duration,
    /// A request body that waits to be asked for.
    pub asked: Option<UpstreamSay>,
}

/// See the module.
pub struct Streaming {
    exchange: Rc<Exchange>,
    incoming: Received,
    http2: bool,
    lease: Option<Lease<RequestBody>>,
    watchdog: Option<Watchdog>,
    idle_limit: Duration,
    asked: Option<UpstreamSay>,
    last_piece: Instant,
    refusal: Option<Refusal>,
    shown: Option<Refusal>,
    reusable: bool,
    secret: Secret,
    search: Search,
    reflected: bool,
    /// Read before the head went out: of an error.
    ahead: VecDeque<Frame<Bytes>>,
    /// And of any other body.
    beginning: Bytes,
    /// Looked through, and about to go on.
    scrubbed: Scrubbed,
    trailers: Option<Box<HeaderMap>>,
    /// Bytes that were read and did not go on yet.
    unsent: usize,
    /// Nothing more is read.
    over: bool,
    /// It came to its end.
    whole: bool,
}

/// How the upstream failed, for the count and for the body.
type Failure = (UpstreamError, BodyError);

enum Search {
    Plain(Scrubber),
    Packed(Box<Packed>),
}

impl Streaming {
    /// The body `incoming`, under a head that says `heading`, for the request that went out with `secret`.
    pub fn new(incoming: Received, heading: Heading, carrier: Carrier, secret: Secret, exchange: Rc<Exchange>) -> Self {
        let Carrier { lease, watchdog, idle_limit, asked } = carrier;
        let search = if heading.coding == Coding::Gzip && !incoming.is_end_stream() {
            Search::Packed(Box::new(Packed::new(secret.clone())))
        } else {
            Search::Plain(Scrubber::new(secret.clone()))
        };
        let mut streaming = Self {
            exchange,
            incoming,
            http2: lease.is_http2(),
            lease: Some(lease),
            watchdog: Some(watchdog),
            idle_limit,
            asked,
            last_piece: heading.at,
            refusal: heading.refusal,
            shown: heading.shown,
            reusable: heading.reusable,
            secret,
            search,
            reflected: false,
            ahead: VecDeque::new(),
            beginning: Bytes::new(),
            scrubbed: Scrubbed::default(),
            trailers: None,
            unsent: 0,
            over: false,
            whole: false,
        };
        // An answer without a body is over before it is polled; its connection is free at once.
        if streaming.incoming.is_end_stream() {
            streaming.end(true);
        }
        streaming
    }

    /// Reads what fits of an error's body (rule 2).
    ///
    /// # Errors
    /// When it breaks off, stalls or cannot be passed on.
    pub async fn read_ahead(&mut self) -> Result<(), BodyError> {
        let mut read = 0;
        while read < LOOKED_AT && !self.is_end_stream_beyond_what_was_read() {
            let Some(frame) = poll_fn(|context| self.poll_further(context)).await.transpose()? else { break };
            read += frame.data_ref().map_or(0, Bytes::len);
            self.ahead.push_back(frame);
        }
        Ok(())
    }

    /// Reads what is there of a body, and waits for nothing (rule 3). It is always ready.
    ///
    /// # Errors
    /// When it has broken off, or cannot be passed on.
    pub fn poll_beginning(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BodyError>> {
        if self.is_end_stream_beyond_what_was_read() {
            return Poll::Ready(Ok(()));
        }
        match self.poll_further(context) {
            Poll::Pending | Poll::Ready(None) => {}
            Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(error)),
            Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                Ok(data) => self.beginning = data,
                Err(frame) => self.trailers = frame.into_trailers().ok().map(Box::new),
            },
        }
        Poll::Ready(Ok(()))
    }

    /// What the beginning of a refusal's body says; it is looked at no longer.
    pub fn take_error_type(&mut self) -> Option<ErrorType> {
        self.refusal.take().map(|refusal| refusal.error_type())
    }

    /// The next piece.
    pub fn poll_frame(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let polled = if !self.beginning.is_empty() {
            Some(Ok(Frame::data(std::mem::take(&mut self.beginning))))
        } else {
            match self.ahead.pop_front() {
                Some(frame) => Some(Ok(frame)),
                None => ready!(self.poll_further(context)),
            }
        };
        if let Some(Ok(frame)) = &polled {
            self.unsent = self.unsent.saturating_sub(frame.data_ref().map_or(0, Bytes::len));
        }
        Poll::Ready(polled)
    }

    /// Whether nothing more goes on.
    pub fn is_end_stream(&self) -> bool {
        self.ahead.is_empty() && self.unsent == 0 && self.is_end_stream_beyond_what_was_read()
    }

    fn is_end_stream_beyond_what_was_read(&self) -> bool {
        let read = self.over || self.incoming.is_end_stream();
        let in_hand: usize = self.ahead.iter().filter_map(Frame::data_ref).map(Bytes::len).sum();
        read && self.trailers.is_none() && self.unsent == in_hand + self.beginning.len()
    }

    /// How much is to come, where that was known from the start.
    pub fn size_hint(&self) -> SizeHint {
        let unsent = u64::try_from(self.unsent).unwrap_or(0);
        self.incoming.size_hint().exact().map_or_else(SizeHint::new, |rest| SizeHint::with_exact(rest + unsent))
    }

    /// Nobody asks for more; whether all of it went on.
    pub fn stop(&mut self) -> bool {
        self.end(self.incoming.is_end_stream());
        self.whole && self.unsent == 0
    }

    /// The answer is over, `whole` or not: the connection is free, or closed.
    fn end(&mut self, whole: bool) {
        self.over = true;
        if let Some(watchdog) = self.watchdog.take() {
            self.exchange.worker().watchdogs.give_back(watchdog);
        }
        if let Some(lease) = self.lease.take() {
            self.whole = whole;
            lease.finish(whole && self.reusable && self.exchange.request_is_complete());
        }
        if let Some(asked) = self.asked.take() {
            asked.decide(Say::Over);
        }
        if let Some(owner) = self.shown.take().filter(|_| whole).and_then(|shown| shown.owner()) {
            self.exchange.shows_the_owner(owner);
        }
    }

    /// It cannot go on: nothing of what is in hand does.
    fn fail(&mut self, kind: UpstreamError, error: BodyError) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.exchange.upstream_error(kind);
        self.end(false);
        self.whole = false;
        Poll::Ready(Some(Err(error)))
    }

    /// The next piece beyond those that were read ahead.
    fn poll_further(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        loop {
            for piece in [&mut self.scrubbed.before, &mut self.scrubbed.piece] {
                if !piece.is_empty() {
                    return Poll::Ready(Some(Ok(Frame::data(std::mem::take(piece)))));
                }
            }
            if let Search::Packed(packed) = &mut self.search {
                match packed.step() {
                    Step::Piece(piece) => return Poll::Ready(Some(Ok(Frame::data(piece)))),
                    Step::Found => return self.fail(UpstreamError::Reflected, BodyError::Reflected),
                    Step::Unreadable => return self.fail(UpstreamError::Encoding, BodyError::Unreadable),
                    Step::Busy => {
                        context.waker().wake_by_ref();
                        return Poll::Pending;
                    }
                    Step::Hungry => {}
                }
            }
            if self.over {
                return Poll::Ready(self.trailers.take().map(|trailers| Ok(Frame::trailers(*trailers))));
            }
            match ready!(self.poll_incoming(context)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.take_piece(data),
                    Err(frame) => self.take_end(frame.into_trailers().ok()),
                },
                Some(Err((kind, error))) => return self.fail(kind, error),
                None if self.http2 && !self.incoming.is_end_stream() => {
                    return self.fail(UpstreamError::BodyCut, BodyError::Reset);
                }
                None => self.take_end(None),
            }
        }
    }

    /// What the upstream sends next, or how it failed.
    fn poll_incoming(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
        if let Poll::Ready(polled) = Pin::new(&mut self.incoming).poll_frame(context) {
            return Poll::Ready(
                polled.map(|read| read.map_err(|error| (UpstreamError::BodyCut, BodyError::Upstream(error)))),
            );
        }
        let deadline = self.last_piece + self.idle_limit;
        let watchdog = self.watchdog.as_mut();
        if watchdog.is_some_and(|watchdog| watchdog.poll_passed(context, deadline).is_ready()) {
            return Poll::Ready(Some(Err((UpstreamError::BodyTimeout, BodyError::Stalled))));
        }
        Poll::Pending
    }

    /// A piece came.
    fn take_piece(&mut self, data: Bytes) {
        self.last_piece = Instant::now();
        self.unsent += data.len();
        let last = self.incoming.is_end_stream();
        match &mut self.search {
            Search::Packed(packed) => {
                look_at(&mut self.refusal, &data);
                look_at(&mut self.shown, &data);
                packed.push(data);
                if last {
                    packed.finish();
                }
            }
            Search::Plain(scrubber) => {
                self.scrubbed = scrubber.scrub(data, last);
                for piece in [&self.scrubbed.before, &self.scrubbed.piece] {
                    look_at(&mut self.refusal, piece);
                    look_at(&mut self.shown, piece);
                }
                if self.scrubbed.hit {
                    self.saw_reflection();
                }
            }
        }
        if last {
            self.end(true);
        }
    }

    /// The body is over, with or without trailers.
    fn take_end(&mut self, trailers: Option<HeaderMap>) {
        match &mut self.search {
            Search::Packed(packed) => packed.finish(),
            Search::Plain(scrubber) => {
                self.scrubbed.before = scrubber.finish();
                look_at(&mut self.refusal, &self.scrubbed.before);
                look_at(&mut self.shown, &self.scrubbed.before);
            }
        }
        self.trailers = trailers.map(|mut trailers| {
            clean_trailers(&mut trailers);
            if self.secret.take_from(&mut trailers) {
                self.saw_reflection();
            }
            Box::new(trailers)
        });
        self.end(true);
    }

    /// The token was in the answer: counted once.
    fn saw_reflection(&mut self) {
        if !std::mem::replace(&mut self.reflected, true) {
            self.exchange.upstream_error(UpstreamError::Reflected);
        }
    }
}

fn look_at(refusal: &mut Option<Refusal>, piece: &[u8]) {
    if let Some(refusal) = refusal {
        refusal.look_at(piece);
    }
}

impl Drop for Streaming {
    fn drop(&mut self) {
        // Where it ended before, this changes nothing.
        self.stop();
    }
}

//! Step 7, streaming: the upstream's body, on its way to the caller.
//!
//! 1. Every piece is searched for the token before it is passed on; see [`super::redaction`] and [`super::compressed`].
//! 2. The first [`LOOKED_AT`] bytes of an error's body are read before its head is sent: an error body that stalls,
//!    breaks off or holds the token in compressed form there is replaced by a complete response of the gate's. Length and
//!    framing are unchanged.
//! 3. For any other body, the bytes that arrived with the head are read before the head is sent: a body that has broken
//!    off by then is replaced likewise.
//! 4. A copy of the bytes read ahead of a 401, 403, 420 or 429 is kept to determine the reason.
//! 5. A copy of the response to a counter change is kept where it may reveal the owner of the token, which nothing else
//!    reveals for a token without read access, or shows a new counter. No other body is copied.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Frame, SizeHint};
use metrica::error_type::{ErrorType, LOOKED_AT};
use strict_http::number;
use tokio::time::Instant;

use super::coding::Coding;
use super::compressed::Step;
use super::error_body::ErrorBody;
use super::framing::Framed;
use super::list_head::Limited;
use super::scan::Scan;
use super::source::{Carrier, Source};
use super::{ResponseError, ResponseProgress};
use crate::body::fields::clean_trailers;
use crate::metrics::UpstreamError;
use crate::token::secret::Secret;
use crate::upstream::received::Received;
use crate::worker::{AfterRefusal, Turn};

/// A head, and its readable body.
pub struct Opened {
    head: Limited,
    streaming: Box<Streaming>,
    at: Instant,
}

impl Opened {
    /// Splits into the head, its body, and the time at which the head arrived.
    pub(super) fn into_parts(self) -> (Limited, Box<Streaming>, Instant) {
        (self.head, self.streaming, self.at)
    }
}

/// Runs the step for the body `incoming` of the response to a request that was sent with `secret`.
pub fn open(
    head: Limited,
    incoming: Received,
    (carrier, turn): (Carrier, Turn),
    secret: Secret,
    at: Instant,
    progress: Rc<dyn ResponseProgress>,
) -> Opened {
    let streaming =
        Streaming::new(head.framed(), secret, turn, |reusable| Source::new(incoming, carrier, at, reusable, progress));
    Opened { head, streaming: Box::new(streaming), at }
}

/// The body of the upstream, searched for the token. It is boxed: 560 bytes that the rest of the path, and hyper, would copy a
/// dozen times.
pub struct Streaming {
    /// The turn of the request, until the response has ended.
    turn: Option<Turn>,
    /// Whether the response is a refusal by a quota.
    is_of_quota: bool,
    source: Source,
    scan: Scan,
    secret: Secret,
    /// The copy of a body that may contain the reason of a refusal (rule 4).
    error_body: Option<ErrorBody>,
    /// The copy of a body that shows a counter (rule 5).
    counter: Option<ErrorBody>,
    ahead: Ahead,
    trailers: Option<Box<HeaderMap>>,
    /// The number of bytes that were read and not passed on yet.
    unsent: usize,
    /// Whether the token was found and counted.
    reflected: bool,
}

/// The part of the body that was read before the head was sent.
enum Ahead {
    Nothing,
    /// The beginning of a body.
    Piece(Bytes),
    /// The beginning of an error's body.
    Frames(VecDeque<Frame<Bytes>>),
}

impl Ahead {
    /// Takes the next frame.
    fn next(&mut self) -> Option<Frame<Bytes>> {
        match self {
            Self::Nothing => None,
            Self::Piece(piece) => {
                let piece = std::mem::take(piece);
                *self = Self::Nothing;
                Some(Frame::data(piece))
            }
            Self::Frames(frames) => frames.pop_front(),
        }
    }

    fn is_empty(&self) -> bool {
        match self {
            Self::Nothing => true,
            Self::Piece(_) => false,
            Self::Frames(frames) => frames.is_empty(),
        }
    }
}

impl Streaming {
    fn new(head: &Framed, secret: Secret, turn: Turn, source: impl FnOnce(bool) -> Source) -> Self {
        let body = head.body();
        let may_tell = matches!(head.status().as_u16(), 401 | 403 | 420 | 429);
        let source = source(head.is_reusable());
        let may_show = head.status().is_success() && source.progress().may_show_a_counter();
        let copy = || ErrorBody::new(body.unwrap_or(Coding::Plain));
        let is_of_quota = matches!(head.status().as_u16(), 420 | 429);
        let mut streaming = Self {
            turn: Some(turn),
            is_of_quota,
            source,
            scan: Scan::new(body, &secret),
            secret,
            error_body: may_tell.then(copy),
            counter: may_show.then(copy),
            ahead: Ahead::Nothing,
            trailers: None,
            unsent: 0,
            reflected: false,
        };
        // A response without a body has ended already.
        if streaming.source.is_over() {
            streaming.end_turn(true);
        }
        streaming
    }

    /// Ends the turn of the request with its response; a refusal by a quota ends it elsewhere.
    fn end_turn(&mut self, whole: bool) {
        if !self.is_of_quota {
            let turn = self.turn.take();
            if whole {
                turn.into_iter().for_each(|turn| turn.done(self.source.last_arrival().into_std()));
            }
        }
    }

    /// Ends the turn of a request that Metrica refused because of a quota.
    pub fn refused_by_quota(&mut self, error_type: ErrorType, can_repeat: bool) -> Option<AfterRefusal> {
        self.turn.take()?.refused(error_type, can_repeat)
    }

    /// Returns the receiver of events.
    pub(super) const fn progress(&self) -> &Rc<dyn ResponseProgress> {
        self.source.progress()
    }

    /// Reads the beginning of an error's body (rule 2).
    ///
    /// # Errors
    /// An error if the body breaks off, stalls or cannot be passed on.
    pub async fn read_ahead(&mut self) -> Result<(), ResponseError> {
        let (mut read, mut frames) = (0, VecDeque::new());
        while read < LOOKED_AT && !self.has_nothing_beyond(read) {
            let Some(frame) = poll_fn(|context| self.poll_further(context)).await.transpose()? else { break };
            read += frame.data_ref().map_or(0, Bytes::len);
            frames.push_back(frame);
        }
        self.ahead = Ahead::Frames(frames);
        Ok(())
    }

    /// Reads the bytes of a body that have arrived, without waiting (rule 3). It is always ready.
    ///
    /// # Errors
    /// An error if the body has broken off, or cannot be passed on.
    pub fn poll_beginning(&mut self, context: &mut Context<'_>) -> Poll<Result<(), ResponseError>> {
        if self.has_nothing_beyond(0) {
            return Poll::Ready(Ok(()));
        }
        match self.poll_further(context) {
            Poll::Pending | Poll::Ready(None) => {}
            Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(error)),
            Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                Ok(data) => self.ahead = Ahead::Piece(data),
                Err(frame) => self.trailers = frame.into_trailers().ok().map(Box::new),
            },
        }
        Poll::Ready(Ok(()))
    }

    /// Returns the error type in the beginning of an error's body, and drops the copy.
    pub fn take_error_type(&mut self) -> Option<ErrorType> {
        self.error_body.take().map(|body| body.error_type())
    }

    /// Returns the next piece.
    pub fn poll_frame(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ResponseError>>> {
        let polled = match self.ahead.next() {
            Some(frame) => Some(Ok(frame)),
            None => ready!(self.poll_further(context)),
        };
        if let Some(Ok(frame)) = &polled {
            self.unsent = self.unsent.saturating_sub(frame.data_ref().map_or(0, Bytes::len));
        }
        Poll::Ready(polled)
    }

    /// Whether no more is passed on.
    pub fn is_end_stream(&self) -> bool {
        self.ahead.is_empty() && self.unsent == 0 && self.has_nothing_beyond(0)
    }

    /// Whether the body ends with the part that was read ahead, which is `in_hand` bytes.
    fn has_nothing_beyond(&self, in_hand: usize) -> bool {
        self.source.is_end_stream() && self.trailers.is_none() && self.unsent == in_hand
    }

    /// Returns the number of bytes to come, if it was known from the start.
    pub fn size_hint(&self) -> SizeHint {
        let unsent = number::count(self.unsent);
        self.source.size_hint().exact().map_or_else(SizeHint::new, |rest| SizeHint::with_exact(rest + unsent))
    }

    /// Stops reading; returns whether the whole body was passed on.
    pub fn stop(&mut self) -> bool {
        self.end(self.source.has_sent_all()) && self.unsent == 0
    }

    /// Ends reading; returns whether the body is complete. The first call decides.
    fn end(&mut self, whole: bool) -> bool {
        let whole = self.source.end(whole);
        self.end_turn(whole);
        if let Some(shown) = self.counter.take().filter(|_| whole).and_then(|counter| counter.counter()) {
            self.progress().shows_a_counter(&shown);
        }
        whole
    }

    /// Aborts the body: the pieces in hand are not passed on either.
    fn fail(&mut self, error: ResponseError) -> Poll<Option<Result<Frame<Bytes>, ResponseError>>> {
        self.source.fail();
        Poll::Ready(Some(Err(error)))
    }

    /// Returns the next piece after those that were read ahead.
    fn poll_further(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ResponseError>>> {
        loop {
            match self.scan.step() {
                Step::Piece(piece) => return Poll::Ready(Some(Ok(Frame::data(piece)))),
                Step::Found => return self.fail(ResponseError::Reflected),
                Step::Unreadable => return self.fail(ResponseError::Unreadable),
                Step::Yield => {
                    context.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Step::NeedInput => {}
            }
            if self.source.is_over() {
                return Poll::Ready(self.trailers.take().map(|trailers| Ok(Frame::trailers(*trailers))));
            }
            match ready!(self.source.poll_frame(context)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.take_piece(data),
                    Err(frame) => self.take_end(frame.into_trailers().ok()),
                },
                Some(Err(error)) => return self.fail(error),
                None => self.take_end(None),
            }
        }
    }

    /// Handles a piece.
    fn take_piece(&mut self, data: Bytes) {
        self.unsent += data.len();
        let last = self.source.has_sent_all();
        if self.scan.push(data, last, look_at(&mut self.error_body, &mut self.counter)) {
            self.record_reflection();
        }
        if last {
            self.end(true);
        }
    }

    /// Handles the end of the body, with or without trailers.
    fn take_end(&mut self, trailers: Option<HeaderMap>) {
        self.scan.finish(look_at(&mut self.error_body, &mut self.counter));
        self.trailers = trailers.map(|mut trailers| {
            clean_trailers(&mut trailers);
            if self.secret.take_from(&mut trailers) {
                self.record_reflection();
            }
            Box::new(trailers)
        });
        self.end(true);
    }

    /// Counts a token in the response, once.
    fn record_reflection(&mut self) {
        if !std::mem::replace(&mut self.reflected, true) {
            self.progress().upstream_error(UpstreamError::Reflected);
        }
    }
}

/// Appends the bytes of a body to its copies.
fn look_at(error: &mut Option<ErrorBody>, counter: &mut Option<ErrorBody>) -> impl FnMut(&[u8]) {
    move |piece| [&mut *error, &mut *counter].into_iter().flatten().for_each(|body| body.look_at(piece))
}

impl Drop for Streaming {
    fn drop(&mut self) {
        // A body that has already ended is unaffected.
        self.stop();
    }
}

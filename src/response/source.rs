//! The source of a body: the upstream, on a connection that is released or closed as soon as the body ends.
//!
//! 1. An HTTP/2 stream that is reset with `NO_ERROR` or `CANCEL` counts as broken off; hyper reports it as an end.
//! 2. A body without a new piece for `upstream.timeouts.body_idle` has stalled.
//! 3. The connection is released as soon as the end of the body was read, and closed if the body breaks off.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::time::Instant;

use super::{ResponseError, ResponseProgress};
use crate::body::RequestBody;
use crate::body::held::{ContinueDecision, ContinueSignal};
use crate::upstream::received::Received;
use crate::upstream::{Lease, Watchdog};

/// The connection that carried the request, and the state that is needed until the response ends.
pub struct Carrier {
    /// The connection.
    pub lease: Lease<RequestBody>,
    /// The watchdog for the wait for each piece.
    pub watchdog: Watchdog,
    /// The maximum wait for a piece.
    pub idle_limit: Duration,
    /// The handle of a request body that waits for a 100, if there is one.
    pub asked: Option<ContinueSignal>,
}

impl Carrier {
    /// Returns the authority of the upstream.
    pub(super) fn authority(&self) -> &str {
        &self.lease.upstream().settings.authority
    }
}

/// The body as it arrives from the upstream.
pub struct Source {
    incoming: Received,
    phase: Phase,
    /// The arrival of the latest piece, of the end, or of the head.
    last_arrival: Instant,
    reusable: bool,
    progress: Rc<dyn ResponseProgress>,
}

/// The progress of the body.
enum Phase {
    /// More may arrive.
    Open(Carrier),
    /// Reading has ended.
    Over {
        /// Whether the body is complete.
        whole: bool,
    },
}

impl Source {
    /// Creates the source of the body `incoming`, whose head arrived at `at`; `reusable`: the connection may carry
    /// another response.
    pub fn new(
        incoming: Received,
        carrier: Carrier,
        at: Instant,
        reusable: bool,
        progress: Rc<dyn ResponseProgress>,
    ) -> Self {
        let mut source = Self { incoming, phase: Phase::Open(carrier), last_arrival: at, reusable, progress };
        // A response without a body has ended before it is polled; its connection is released at once.
        if source.incoming.is_end_stream() {
            source.end(true);
        }
        source
    }

    /// Returns the receiver of events.
    pub const fn progress(&self) -> &Rc<dyn ResponseProgress> {
        &self.progress
    }

    /// Returns the time at which something arrived last.
    pub const fn last_arrival(&self) -> Instant {
        self.last_arrival
    }

    /// Returns the next piece.
    pub fn poll_frame(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ResponseError>>> {
        let Phase::Open(carrier) = &mut self.phase else { return Poll::Ready(None) };
        let Poll::Ready(polled) = Pin::new(&mut self.incoming).poll_frame(context) else {
            ready!(carrier.watchdog.poll_passed(context, self.last_arrival + carrier.idle_limit));
            return Poll::Ready(Some(Err(ResponseError::Stalled)));
        };
        if polled.is_none() && carrier.lease.is_http2() && !self.incoming.is_end_stream() {
            return Poll::Ready(Some(Err(ResponseError::Reset)));
        }
        self.last_arrival = Instant::now();
        Poll::Ready(polled.map(|read| read.map_err(ResponseError::Upstream)))
    }

    /// Whether reading has ended.
    pub fn is_over(&self) -> bool {
        matches!(self.phase, Phase::Over { .. })
    }

    /// Whether the whole body was read, or reading has ended.
    pub fn is_end_stream(&self) -> bool {
        self.is_over() || self.incoming.is_end_stream()
    }

    /// Whether the upstream sent the whole body.
    pub fn has_sent_all(&self) -> bool {
        self.incoming.is_end_stream()
    }

    /// Returns the number of bytes to come, as far as known.
    pub fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }

    /// Ends reading; returns whether the body is complete. The first call decides.
    pub fn end(&mut self, whole: bool) -> bool {
        if let Phase::Over { whole } = self.phase {
            return whole;
        }
        if let Phase::Open(Carrier { lease, watchdog, asked, .. }) =
            std::mem::replace(&mut self.phase, Phase::Over { whole })
        {
            self.progress.give_back(watchdog);
            lease.finish(whole && self.reusable && self.progress.request_is_complete());
            if let Some(asked) = asked {
                asked.decide(ContinueDecision::Over);
            }
        }
        whole
    }

    /// Ends reading and marks the body as incomplete, even if it had ended.
    pub fn fail(&mut self) {
        self.end(false);
        self.phase = Phase::Over { whole: false };
    }
}

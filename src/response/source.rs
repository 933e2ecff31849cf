//! Where a body comes from: the upstream, on a connection that is free or closed as soon as the body is over.
//!
//! 1. A stream of HTTP/2 that is reset with `NO_ERROR` or `CANCEL` breaks off, which hyper takes for an end.
//! 2. A body of which nothing comes for `upstream.timeouts.body_idle` has stalled.
//! 3. The connection is free as soon as the body's end was read, and is closed when it breaks off.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::time::Instant;

use super::{ResponseError, ResponseProgress};
use crate::body::RequestBody;
use crate::body::held::{Say, UpstreamSay};
use crate::upstream::received::Received;
use crate::upstream::{Lease, Watchdog};

/// What carried the request, and is needed until the response is over.
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

impl Carrier {
    /// The authority of the upstream.
    pub(super) fn authority(&self) -> &str {
        &self.lease.upstream().settings.authority
    }
}

/// The body, as it comes.
pub struct Source {
    incoming: Received,
    phase: Phase,
    /// When the last piece came, or the head.
    last_piece: Instant,
    reusable: bool,
    progress: Rc<dyn ResponseProgress>,
}

/// How far it is.
enum Phase {
    /// More may come.
    Open(Carrier),
    /// Nothing more is read.
    Over {
        /// It came to its end.
        whole: bool,
    },
}

impl Source {
    /// The body `incoming`, whose head came `at` this time; `reusable`: another response may come on its connection.
    pub fn new(
        incoming: Received,
        carrier: Carrier,
        at: Instant,
        reusable: bool,
        progress: Rc<dyn ResponseProgress>,
    ) -> Self {
        let mut source = Self { incoming, phase: Phase::Open(carrier), last_piece: at, reusable, progress };
        // A response without a body is over before it is polled; its connection is free at once.
        if source.incoming.is_end_stream() {
            source.end(true);
        }
        source
    }

    /// Who is told.
    pub const fn progress(&self) -> &Rc<dyn ResponseProgress> {
        &self.progress
    }

    /// The next piece.
    pub fn poll_frame(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ResponseError>>> {
        let Phase::Open(carrier) = &mut self.phase else { return Poll::Ready(None) };
        let Poll::Ready(polled) = Pin::new(&mut self.incoming).poll_frame(context) else {
            ready!(carrier.watchdog.poll_passed(context, self.last_piece + carrier.idle_limit));
            return Poll::Ready(Some(Err(ResponseError::Stalled)));
        };
        if polled.is_none() && carrier.lease.is_http2() && !self.incoming.is_end_stream() {
            return Poll::Ready(Some(Err(ResponseError::Reset)));
        }
        if polled.is_some() {
            self.last_piece = Instant::now();
        }
        Poll::Ready(polled.map(|read| read.map_err(ResponseError::Upstream)))
    }

    /// Whether nothing more is read.
    pub fn is_over(&self) -> bool {
        matches!(self.phase, Phase::Over { .. })
    }

    /// Whether what was read is all.
    pub fn is_end_stream(&self) -> bool {
        self.is_over() || self.incoming.is_end_stream()
    }

    /// Whether the upstream sent all.
    pub fn has_sent_all(&self) -> bool {
        self.incoming.is_end_stream()
    }

    /// How much is to come.
    pub fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }

    /// Nothing more is read; whether it came to its end, if this was not decided before.
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
                asked.decide(Say::Over);
            }
        }
        whole
    }

    /// What came is of no use, to whatever end it came.
    pub fn fail(&mut self) {
        self.end(false);
        self.phase = Phase::Over { whole: false };
    }
}

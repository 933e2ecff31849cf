//! A caller that kept the gate waiting for too long, and the limit that it exceeded.

use std::time::Duration;

use crate::metrics::Stall;
use crate::policy::names::CallerId;
use crate::worker::{RequestId, Worker};

/// The record of a caller that kept the gate waiting for too long.
#[derive(Debug, Clone, Copy)]
pub struct Stalled {
    /// The part of the exchange that the gate waited for.
    pub waited_for: Stall,
    /// The exceeded limit.
    pub bound: Bound,
}

impl Stalled {
    /// Counts and logs the stall.
    pub fn report(self, request_id: &RequestId, caller: Option<CallerId>, worker: &Worker) {
        let Self { waited_for, bound } = self;
        worker.count(|shard| shard.caller_stalled(caller, waited_for));
        let (key, limit, what) = match bound {
            Bound::BodyIdle => {
                let limit = worker.snapshot().generation.timeouts.body_idle;
                (Some("timeouts.body_idle"), Some(limit), "increase the limit if the caller is slow on purpose")
            }
            Bound::ReadAhead(limit) => {
                (None, Some(limit), "a body that is checked against rules must arrive within this limit")
            }
            Bound::Upstream => (None, None, "the upstream stopped waiting for the body"),
        };
        tracing::warn!(
            request_id = request_id.as_str(),
            caller = caller.map_or("unknown", |caller| caller.as_str()),
            waited_for = waited_for.as_str(),
            key,
            limit = limit.map(|limit| tracing::field::display(humantime::format_duration(limit))),
            "the caller stalled, so the gate aborted its request; {what}"
        );
    }
}

/// The limit on the wait for a caller.
#[derive(Debug, Clone, Copy)]
pub enum Bound {
    /// `timeouts.body_idle`.
    BodyIdle,
    /// The time limit for a body that is read before it is forwarded.
    ReadAhead(Duration),
    /// The upstream's own limit: it gave up.
    Upstream,
}

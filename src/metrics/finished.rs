//! The result of an exchange, as it is counted.

use std::time::{Duration, Instant};

use metrica::operation::{OperationId, Verb};
use metrica::scope::Scope;

use super::{CALLER_GONE, Mark, Origin, Refusal, usage};
use crate::policy::names::{CallerId, TokenAlias};
use crate::policy::rejection::Reason;

/// The result of an exchange.
#[derive(Debug, Clone, Copy)]
pub struct Finished {
    /// The caller.
    pub caller: Option<CallerId>,
    /// The operation.
    pub operation: Option<OperationId>,
    /// The marks of the operation.
    pub marks: [Option<Mark>; 2],
    /// The token.
    pub token: Option<TokenAlias>,
    /// The scope of the token that the operation needed, if the request was sent.
    pub needed: Option<Scope>,
    /// The method; `None` if operations do not have it.
    pub verb: Option<Verb>,
    /// The status of the response, or [`CALLER_GONE`].
    pub code: u16,
    /// The refusal, if any.
    pub refusal: Option<Refusal>,
    /// The end of the exchange.
    pub ended: Instant,
    /// The reason that would have refused the request, if the caller's rules were enforced.
    pub would_refuse: Option<Reason>,
    /// The time that the request waited for its turn, if a quota counts it.
    pub quota_wait: Option<Duration>,
    /// From the head of the request to the end of the response.
    pub duration: Duration,
    /// From the start of sending to the head of the response.
    pub upstream_duration: Option<Duration>,
    /// The size of the request's body in bytes.
    pub request_bytes: u64,
    /// The size of the response's body in bytes.
    pub response_bytes: u64,
    /// The group of the counters that the request names.
    pub group: usage::Group,
}

impl Finished {
    /// Returns the origin of the response.
    pub(super) fn origin(&self) -> Origin {
        let passed_on = self.upstream_duration.is_some() && self.code != CALLER_GONE;
        self.refusal.map_or(if passed_on { Origin::Upstream } else { Origin::Gate }, Refusal::origin)
    }
}

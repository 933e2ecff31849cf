//! Metrics: the counts of workers, and their labels.
//!
//! 1. Each worker counts in its own [`Shard`] of plain numbers: a request needs neither a lock nor a shared cache
//!    line. A scrape asks every worker for a copy and adds them up.
//! 2. Label values are ids of the configuration, ids of the catalogue and closed enums, never parts of a request.
//! 3. A 401 or 403 of the gate and one of Metrica never share a series: `origin` tells them apart.
//!
//! [`page`] renders the sum as text; `docs/metrics.md` is generated from it.

use std::time::{Duration, Instant};

use metrica::cause::Cause;
use metrica::operation::{OperationId, Verb};
use metrica::scope::Scope;
use rustc_hash::FxHashMap;

pub use finished::Finished;

use crate::config::certificates::ClientCertificateFault;
use crate::policy::Policy;
use crate::policy::caller::ConditionKind;
use crate::policy::names::{CallerId, ListenerName, TokenAlias};
use crate::policy::rejection::Reason;
use crate::policy::service_account::TokenFault;

mod connections;
mod families;
mod finished;
mod histogram;
mod key_set;
mod kinds;
pub mod overview;
pub mod page;
pub mod process;
mod quota;
mod sum;
mod token_state;
pub mod usage;

use connections::PoolCounts;
pub use connections::{ConnectStep, ListenerConnections, PoolMeters};
pub use histogram::{BUCKETS, Histogram};
pub use kinds::{Credential, Handshake, Mark, Resent, Stall, TunnelContent, UpstreamError};

/// The status for a caller that disconnected before the response; it is never sent.
pub const CALLER_GONE: u16 = 499;

/// The origin of a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Origin {
    /// The gate: a refusal, an error on the way to Metrica, or no response at all.
    Gate,
    /// Metrica, whose response was passed on.
    Upstream,
}

impl Origin {
    /// Returns the label `origin`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Gate => "gate",
            Self::Upstream => "upstream",
        }
    }
}

/// A refusal: its origin and its reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Refusal {
    /// By the gate; nothing was sent.
    Gate(Reason),
    /// By Metrica.
    Upstream(Cause),
}

impl Refusal {
    /// Returns the label `origin`.
    #[must_use]
    pub const fn origin(self) -> Origin {
        match self {
            Self::Gate(_) => Origin::Gate,
            Self::Upstream(_) => Origin::Upstream,
        }
    }

    /// Returns advice for the operator, if Metrica refused.
    #[must_use]
    pub const fn advice(self) -> Option<&'static str> {
        match self {
            Self::Gate(_) => None,
            Self::Upstream(cause) => Some(cause.advice()),
        }
    }

    /// Returns the label `reason`.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Gate(reason) => reason.as_str(),
            Self::Upstream(cause) => cause.as_str(),
        }
    }
}

/// The labels of one series of `metrika_gate_auth_failures_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AuthFailure {
    /// The refused caller; `None` if unknown.
    pub caller: Option<CallerId>,
    /// The token; `None` if none was chosen.
    pub token: Option<TokenAlias>,
    /// The operation; `None` if unknown.
    pub operation: Option<OperationId>,
    /// 401 or 403.
    pub code: u16,
    /// The origin and the reason.
    pub refusal: Refusal,
}

/// The counts of one caller.
#[derive(Debug, Clone, Default)]
pub struct CallerMeters {
    requests: FxHashMap<(Option<OperationId>, Option<Verb>, u16, Origin), u64>,
    duration: Histogram,
    in_flight: i64,
    quota_wait: Histogram,
    request_bytes: u64,
    response_bytes: u64,
    usage: usage::Usage,
    /// The end of its latest request.
    last: Option<Instant>,
}

/// All counts of a worker.
#[derive(Debug, Clone)]
pub struct Shard {
    /// The time since which it counts.
    since: Instant,
    callers: FxHashMap<Option<CallerId>, CallerMeters>,
    upstream_durations: FxHashMap<OperationId, Histogram>,
    auth_failures: FxHashMap<AuthFailure, u64>,
    /// The failures without callers, operations and codes; every series starts at zero.
    refusals: FxHashMap<(Option<TokenAlias>, Refusal), u64>,
    quota_rejections: FxHashMap<(TokenAlias, Cause), u64>,
    scope_drift: FxHashMap<(TokenAlias, Option<OperationId>), u64>,
    /// The time at which a token last needed a scope; `None` if it never did.
    scopes_needed: FxHashMap<(TokenAlias, Scope), Option<Instant>>,
    denied: FxHashMap<(Option<CallerId>, Reason), u64>,
    would_refuse: FxHashMap<(Option<CallerId>, Option<OperationId>, Reason), u64>,
    credentials_dropped: FxHashMap<(Option<CallerId>, Credential), u64>,
    upstream_errors: FxHashMap<UpstreamError, u64>,
    caller_stalls: FxHashMap<(Option<CallerId>, Stall), u64>,
    floods: u64,
    handshakes: FxHashMap<Handshake, u64>,
    client_certificates_refused: FxHashMap<ClientCertificateFault, u64>,
    service_account_tokens_refused: FxHashMap<TokenFault, u64>,
    tunnels: FxHashMap<TunnelContent, u64>,
    condition_failures: FxHashMap<(ListenerName, ConditionKind), u64>,
    likely_cut: usize,
    /// The reads that were sent once more with another account's token, by the first token; every series starts at zero.
    account_retries: FxHashMap<TokenAlias, u64>,
    quota_refused: FxHashMap<(Option<CallerId>, &'static str), u64>,
    /// The number of counters on which a permission of the token's owner is known.
    token_counters: FxHashMap<TokenAlias, usize>,
    /// Whether a token is known to belong to another account than its `owner`.
    other_owners: FxHashMap<TokenAlias, bool>,
    connections: FxHashMap<ListenerName, ListenerConnections>,
    pool: PoolCounts,
    resent: FxHashMap<Resent, u64>,
    /// The fulfilled requests for marked operations.
    marked: FxHashMap<(CallerId, OperationId, Mark), u64>,
    /// The time until the worker handled a command of the process.
    loop_lag: Histogram,
}

impl Default for Shard {
    fn default() -> Self {
        Self {
            since: Instant::now(),
            callers: FxHashMap::default(),
            upstream_durations: FxHashMap::default(),
            auth_failures: FxHashMap::default(),
            refusals: FxHashMap::default(),
            quota_rejections: FxHashMap::default(),
            scope_drift: FxHashMap::default(),
            scopes_needed: FxHashMap::default(),
            denied: FxHashMap::default(),
            would_refuse: FxHashMap::default(),
            credentials_dropped: FxHashMap::default(),
            upstream_errors: FxHashMap::default(),
            caller_stalls: FxHashMap::default(),
            floods: 0,
            handshakes: FxHashMap::default(),
            client_certificates_refused: FxHashMap::default(),
            service_account_tokens_refused: FxHashMap::default(),
            tunnels: FxHashMap::default(),
            condition_failures: FxHashMap::default(),
            likely_cut: 0,
            account_retries: FxHashMap::default(),
            quota_refused: FxHashMap::default(),
            token_counters: FxHashMap::default(),
            other_owners: FxHashMap::default(),
            connections: FxHashMap::default(),
            pool: PoolCounts::default(),
            resent: FxHashMap::default(),
            marked: FxHashMap::default(),
            loop_lag: Histogram::default(),
        }
    }
}

impl Shard {
    /// Records that the caller of a request is identified and the request in progress.
    pub fn begin(&mut self, caller: Option<CallerId>) {
        self.callers.entry(caller).or_default().in_flight += 1;
    }

    /// Reassigns a request in progress to another caller.
    pub fn move_on(&mut self, from: Option<CallerId>, to: CallerId) {
        self.callers.entry(from).or_default().in_flight -= 1;
        self.begin(Some(to));
    }

    /// Records the end of a request.
    pub fn finish(&mut self, finished: &Finished) {
        let Finished { caller, operation, token, verb, code, .. } = *finished;
        let meters = self.callers.entry(caller).or_default();
        meters.in_flight -= 1;
        *meters.requests.entry((operation, verb, code, finished.origin())).or_default() += 1;
        meters.duration.observe(finished.duration);
        if let Some(wait) = finished.quota_wait {
            meters.quota_wait.observe(wait);
        }
        meters.request_bytes += finished.request_bytes;
        meters.response_bytes += finished.response_bytes;
        meters.usage.count(finished);
        meters.last = Some(finished.ended);
        if let (Some(operation), Some(duration)) = (operation, finished.upstream_duration) {
            self.upstream_durations.entry(operation).or_default().observe(duration);
        }
        if let (Some(token), Some(scope)) = (token, finished.needed) {
            self.scopes_needed.insert((token, scope), Some(finished.ended));
        }
        if let Some(reason) = finished.would_refuse {
            *self.would_refuse.entry((caller, operation, reason)).or_default() += 1;
        }
        if let (Some(caller), Some(operation), Origin::Upstream, 200..=299) =
            (caller, operation, finished.origin(), code)
        {
            for mark in finished.marks.into_iter().flatten() {
                *self.marked.entry((caller, operation, mark)).or_default() += 1;
            }
        }
        let Some(refusal) = finished.refusal else { return };
        if matches!(code, 401 | 403) {
            *self.auth_failures.entry(AuthFailure { caller, token, operation, code, refusal }).or_default() += 1;
            let token = token.filter(|_| matches!(refusal, Refusal::Upstream(_)));
            *self.refusals.entry((token, refusal)).or_default() += 1;
        }
        match (refusal, token) {
            (Refusal::Gate(reason), _) => *self.denied.entry((caller, reason)).or_default() += 1,
            (Refusal::Upstream(cause), Some(token)) if matches!(code, 420 | 429) => {
                *self.quota_rejections.entry((token, cause)).or_default() += 1;
            }
            // The declared scopes suffice according to the catalogue; otherwise the request would not have been sent.
            (Refusal::Upstream(Cause::ScopeMissing), Some(token)) => {
                *self.scope_drift.entry((token, operation)).or_default() += 1;
            }
            (Refusal::Upstream(_), _) => {}
        }
    }

    /// Records a credential of the caller that was removed.
    pub fn credential_dropped(&mut self, caller: Option<CallerId>, kind: Credential) {
        *self.credentials_dropped.entry((caller, kind)).or_default() += 1;
    }

    /// Records a request whose proof names a caller that has a condition of this kind, which does not hold.
    pub fn condition_failed(&mut self, listener: ListenerName, kind: ConditionKind) {
        *self.condition_failures.entry((listener, kind)).or_default() += 1;
    }

    /// Records an error towards Metrica.
    pub fn upstream_error(&mut self, kind: UpstreamError) {
        *self.upstream_errors.entry(kind).or_default() += 1;
    }

    /// Records a caller that exceeded `timeouts.body_idle`.
    pub fn caller_stalled(&mut self, caller: Option<CallerId>, stall: Stall) {
        *self.caller_stalls.entry((caller, stall)).or_default() += 1;
    }

    /// Sets the number of requests that are likely to be cut.
    pub const fn likely_to_be_cut(&mut self, requests: usize) {
        self.likely_cut = requests;
    }

    /// Records a connection that was closed because of a flood.
    pub const fn flood(&mut self) {
        self.floods += 1;
    }

    /// Records the end of a TLS handshake with a caller.
    pub fn handshake(&mut self, result: Handshake) {
        *self.handshakes.entry(result).or_default() += 1;
    }

    /// Records a tunnel that a caller opened.
    pub fn tunnel(&mut self, content: TunnelContent) {
        *self.tunnels.entry(content).or_default() += 1;
    }

    /// Records a read that is sent with another account's token after Metrica denied it with `token`.
    pub fn tried_next_account(&mut self, token: TokenAlias) {
        *self.account_retries.entry(token).or_default() += 1;
    }

    /// Records a request that is sent again.
    pub fn resent(&mut self, reason: Resent) {
        *self.resent.entry(reason).or_default() += 1;
    }

    /// Records the time until the worker handled a command of the process.
    pub fn lag(&mut self, lag: Duration) {
        self.loop_lag.observe(lag);
    }

    /// Records a request that a quota refused.
    pub fn refused_by_quota(&mut self, caller: Option<CallerId>, limit: &'static str) {
        *self.quota_refused.entry((caller, limit)).or_default() += 1;
    }

    /// Sets the number of counters on which a permission of the token's owner is known.
    pub fn token_counters(&mut self, token: TokenAlias, counters: usize) {
        self.token_counters.insert(token, counters);
    }

    /// Records whether a token belongs to another account than its `owner`.
    pub fn token_is_of_another(&mut self, token: TokenAlias, it_is: bool) {
        self.other_owners.insert(token, it_is);
    }

    /// Returns the usage of each caller.
    fn usage(&self) -> impl Iterator<Item = (Option<CallerId>, &usage::Usage)> {
        self.callers.iter().map(|(caller, meters)| (*caller, &meters.usage))
    }

    /// Creates the series that must exist before their first failure, so that `increase()` sees it: one for every
    /// token and reason, and one for every reason of the gate. Those of callers, of which there can be thousands,
    /// start with their first use.
    pub fn prepare(&mut self, policy: &Policy) {
        for token in policy.tokens() {
            self.scope_drift.entry((token.alias, None)).or_default();
            self.account_retries.entry(token.alias).or_default();
            // A standby has scopes that only a takeover needs.
            for scope in token.scopes.iter().filter(|_| !token.is_standby) {
                self.scopes_needed.entry((token.alias, scope)).or_default();
            }
            for cause in Cause::ALL {
                if cause.is_of_quota() {
                    self.quota_rejections.entry((token.alias, *cause)).or_default();
                } else {
                    self.refusals.entry((Some(token.alias), Refusal::Upstream(*cause))).or_default();
                }
            }
        }
        let is_counted = |reason: &&Reason| matches!(reason.answer().status.as_u16(), 401 | 403);
        for reason in Reason::ALL.iter().filter(is_counted) {
            self.refusals.entry((None, Refusal::Gate(*reason))).or_default();
        }
        for listener in policy.callers.listeners() {
            self.connections.entry(listener).or_default();
        }
        self.pool.prepare();
        for reason in Resent::ALL {
            self.resent.entry(reason).or_default();
        }
        for result in Handshake::ALL {
            self.handshakes.entry(result).or_default();
        }
        for fault in ClientCertificateFault::ALL {
            self.client_certificates_refused.entry(fault).or_default();
        }
        for fault in TokenFault::ALL {
            self.service_account_tokens_refused.entry(fault).or_default();
        }
        for content in TunnelContent::ALL {
            self.tunnels.entry(content).or_default();
        }
        for kind in UpstreamError::ALL {
            self.upstream_errors.entry(kind).or_default();
        }
    }
}

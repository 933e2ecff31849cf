//! Metrics: what is counted, by whom, and under which labels.
//!
//! 1. Each worker counts in a [`Shard`] of its own, with plain numbers: no lock and no shared cache line on the way of
//!    a request. A scrape asks every worker for a copy and adds them up.
//! 2. Label values are ids of the configuration, ids of the catalogue and closed enums; nothing that a request says.
//! 3. A 401 or 403 of the gate and one of Metrica never share a series: `origin` tells them apart.
//!
//! [`page`] turns the sum into text; `docs/metrics.md` is written from it.

use std::time::{Duration, Instant};

use rustc_hash::FxHashMap;

use crate::diagnosis::Cause;
use crate::operation::{OperationId, Verb};
use crate::policy::Policy;
use crate::rejection::Reason;
use crate::scope::Scope;
use crate::symbol::{CallerId, TokenAlias};

mod kinds;
pub mod page;
pub mod process;
pub mod usage;

pub use kinds::{Credential, Stall, UpstreamError};

/// Upper bounds of the duration histograms, in seconds: Metrica's reports take from milliseconds to two minutes.
pub const BUCKETS: [f64; 14] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0];

/// The status that stands for a caller that went away before it was answered; it is never sent.
pub const CALLER_GONE: u16 = 499;

/// How long things took.
#[derive(Debug, Clone, Default)]
pub struct Histogram {
    /// By bucket, not cumulative; the last one is for everything longer.
    counts: [u64; BUCKETS.len() + 1],
    sum: f64,
}

impl Histogram {
    fn observe(&mut self, duration: Duration) {
        let seconds = duration.as_secs_f64();
        let bucket = BUCKETS.iter().position(|bound| seconds <= *bound).unwrap_or(BUCKETS.len());
        if let Some(count) = self.counts.get_mut(bucket) {
            *count += 1;
        }
        self.sum += seconds;
    }

    fn add(&mut self, other: &Self) {
        self.counts.iter_mut().zip(&other.counts).for_each(|(count, more)| *count += more);
        self.sum += other.sum;
    }
}

/// Whose answer it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Origin {
    /// The gate's: a refusal, an error on the way to Metrica, or none at all.
    Gate,
    /// Metrica's, as it was passed on.
    Upstream,
}

impl Origin {
    /// The label `origin`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Gate => "gate",
            Self::Upstream => "upstream",
        }
    }
}

/// Who said no, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Refusal {
    /// The gate; nothing was sent.
    Gate(Reason),
    /// Metrica.
    Upstream(Cause),
}

impl Refusal {
    /// The label `origin`.
    #[must_use]
    pub const fn origin(self) -> Origin {
        match self {
            Self::Gate(_) => Origin::Gate,
            Self::Upstream(_) => Origin::Upstream,
        }
    }

    /// What the operator can do, where Metrica refused.
    #[must_use]
    pub const fn advice(self) -> Option<&'static str> {
        match self {
            Self::Gate(_) => None,
            Self::Upstream(cause) => Some(cause.advice()),
        }
    }

    /// The label `reason`.
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
    /// Who was refused; `None` is an unknown caller.
    pub caller: Option<CallerId>,
    /// With which token; `None` when it did not come so far.
    pub token: Option<TokenAlias>,
    /// What was asked; `None` when it is not known.
    pub operation: Option<OperationId>,
    /// 401 or 403.
    pub code: u16,
    /// By whom and why.
    pub refusal: Refusal,
}

/// What one caller did.
#[derive(Debug, Clone, Default)]
pub struct CallerMeters {
    requests: FxHashMap<(Option<OperationId>, Option<Verb>, u16, Origin), u64>,
    duration: Histogram,
    in_flight: i64,
    request_bytes: u64,
    response_bytes: u64,
    usage: usage::Usage,
}

/// Everything that a worker counts.
#[derive(Debug, Clone)]
pub struct Shard {
    /// When it began to count.
    since: Instant,
    callers: FxHashMap<Option<CallerId>, CallerMeters>,
    upstream_durations: FxHashMap<OperationId, Histogram>,
    auth_failures: FxHashMap<AuthFailure, u64>,
    /// The same without callers, operations and codes, and with a zero for each.
    refusals: FxHashMap<(Option<TokenAlias>, Refusal), u64>,
    quota_rejections: FxHashMap<(TokenAlias, Cause), u64>,
    scope_drift: FxHashMap<(TokenAlias, Option<OperationId>), u64>,
    /// When a token last needed a scope; `None` when it never did.
    scopes_needed: FxHashMap<(TokenAlias, Scope), Option<Instant>>,
    denied: FxHashMap<(Option<CallerId>, Reason), u64>,
    would_refuse: FxHashMap<(Option<CallerId>, Option<OperationId>, Reason), u64>,
    credentials_dropped: FxHashMap<(Option<CallerId>, Credential), u64>,
    upstream_errors: FxHashMap<UpstreamError, u64>,
    caller_stalls: FxHashMap<(Option<CallerId>, Stall), u64>,
    floods: u64,
    likely_cut: usize,
    /// Whether a token is known to be of another account than its `owner`.
    other_owners: FxHashMap<TokenAlias, bool>,
}

/// What is known of an exchange when it ends.
#[derive(Debug, Clone, Copy)]
pub struct Finished {
    /// Who asked.
    pub caller: Option<CallerId>,
    /// What for.
    pub operation: Option<OperationId>,
    /// With which token.
    pub token: Option<TokenAlias>,
    /// The scope of that token that was needed, when it was sent.
    pub needed: Option<Scope>,
    /// How; `None` is a method that operations do not have.
    pub verb: Option<Verb>,
    /// What was answered, or [`CALLER_GONE`].
    pub code: u16,
    /// Who said no, if somebody did.
    pub refusal: Option<Refusal>,
    /// When.
    pub ended: Instant,
    /// Why it would have been refused, where the caller's rules are not enforced.
    pub would_refuse: Option<Reason>,
    /// From the head of the request to the end of the answer.
    pub duration: Duration,
    /// From the start of sending to the head of the answer.
    pub upstream_duration: Option<Duration>,
    /// The request's body.
    pub request_bytes: u64,
    /// The answer's body.
    pub response_bytes: u64,
    /// The group of the counters that it names.
    pub group: usage::Group,
}

impl Finished {
    /// Whose answer it was.
    fn origin(&self) -> Origin {
        let passed_on = self.upstream_duration.is_some() && self.code != CALLER_GONE;
        self.refusal.map_or(if passed_on { Origin::Upstream } else { Origin::Gate }, Refusal::origin)
    }
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
            likely_cut: 0,
            other_owners: FxHashMap::default(),
        }
    }
}

impl Shard {
    /// A caller is known and its request is under way.
    pub fn begin(&mut self, caller: Option<CallerId>) {
        self.callers.entry(caller).or_default().in_flight += 1;
    }

    /// A request that is under way is another caller's now.
    pub fn move_on(&mut self, from: Option<CallerId>, to: CallerId) {
        self.callers.entry(from).or_default().in_flight -= 1;
        self.begin(Some(to));
    }

    /// A request that was begun is over.
    pub fn finish(&mut self, finished: &Finished) {
        let Finished { caller, operation, token, verb, code, .. } = *finished;
        let meters = self.callers.entry(caller).or_default();
        meters.in_flight -= 1;
        *meters.requests.entry((operation, verb, code, finished.origin())).or_default() += 1;
        meters.duration.observe(finished.duration);
        meters.request_bytes += finished.request_bytes;
        meters.response_bytes += finished.response_bytes;
        meters.usage.count(finished);
        if let (Some(operation), Some(duration)) = (operation, finished.upstream_duration) {
            self.upstream_durations.entry(operation).or_default().observe(duration);
        }
        if let (Some(token), Some(scope)) = (token, finished.needed) {
            self.scopes_needed.insert((token, scope), Some(finished.ended));
        }
        if let Some(reason) = finished.would_refuse {
            *self.would_refuse.entry((caller, operation, reason)).or_default() += 1;
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
            // The declared scopes are enough for the catalogue, or nothing would have been sent.
            (Refusal::Upstream(Cause::ScopeMissing), Some(token)) => {
                *self.scope_drift.entry((token, operation)).or_default() += 1;
            }
            (Refusal::Upstream(_), _) => {}
        }
    }

    /// A credential of the caller's did not leave.
    pub fn credential_dropped(&mut self, caller: Option<CallerId>, kind: Credential) {
        *self.credentials_dropped.entry((caller, kind)).or_default() += 1;
    }

    /// Something went wrong towards Metrica.
    pub fn upstream_error(&mut self, kind: UpstreamError) {
        *self.upstream_errors.entry(kind).or_default() += 1;
    }

    /// A caller let the gate wait for too long.
    pub fn caller_stalled(&mut self, caller: Option<CallerId>, stall: Stall) {
        *self.caller_stalls.entry((caller, stall)).or_default() += 1;
    }

    /// So many requests are likely to be cut.
    pub const fn likely_to_be_cut(&mut self, requests: usize) {
        self.likely_cut = requests;
    }

    /// A flood ended its connection.
    pub const fn flood(&mut self) {
        self.floods += 1;
    }

    /// Whether a token is of another account than its `owner`.
    pub fn token_is_of_another(&mut self, token: TokenAlias, it_is: bool) {
        self.other_owners.insert(token, it_is);
    }

    /// Adds another shard's counts.
    pub fn add(&mut self, other: &Self) {
        self.since = self.since.min(other.since);
        for (caller, more) in &other.callers {
            let meters = self.callers.entry(*caller).or_default();
            add_counts(&mut meters.requests, &more.requests);
            meters.duration.add(&more.duration);
            meters.in_flight += more.in_flight;
            meters.request_bytes += more.request_bytes;
            meters.response_bytes += more.response_bytes;
            meters.usage.add(&more.usage);
        }
        for (operation, more) in &other.upstream_durations {
            self.upstream_durations.entry(*operation).or_default().add(more);
        }
        add_counts(&mut self.auth_failures, &other.auth_failures);
        add_counts(&mut self.refusals, &other.refusals);
        add_counts(&mut self.quota_rejections, &other.quota_rejections);
        add_counts(&mut self.scope_drift, &other.scope_drift);
        for (key, needed) in &other.scopes_needed {
            let known = self.scopes_needed.entry(*key).or_default();
            *known = (*known).max(*needed);
        }
        add_counts(&mut self.denied, &other.denied);
        add_counts(&mut self.would_refuse, &other.would_refuse);
        add_counts(&mut self.credentials_dropped, &other.credentials_dropped);
        add_counts(&mut self.upstream_errors, &other.upstream_errors);
        add_counts(&mut self.caller_stalls, &other.caller_stalls);
        self.floods += other.floods;
        self.likely_cut += other.likely_cut;
        for (token, it_is) in &other.other_owners {
            *self.other_owners.entry(*token).or_default() |= it_is;
        }
    }

    /// The ledger of each caller.
    fn usage(&self) -> impl Iterator<Item = (Option<CallerId>, &usage::Usage)> {
        self.callers.iter().map(|(caller, meters)| (*caller, &meters.usage))
    }

    /// Makes the series that have to exist before the first failure, so that `increase()` sees it: one for every token and
    /// reason, and for every reason of the gate. Those of callers begin with their first use: there can be thousands.
    pub fn prepare(&mut self, policy: &Policy) {
        for token in policy.tokens() {
            self.scope_drift.entry((token.alias, None)).or_default();
            // A standby has scopes for the day on which it is needed.
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
        for kind in UpstreamError::ALL {
            self.upstream_errors.entry(kind).or_default();
        }
    }
}

fn add_counts<K: std::hash::Hash + Eq + Copy>(counts: &mut FxHashMap<K, u64>, more: &FxHashMap<K, u64>) {
    for (key, count) in more {
        *counts.entry(*key).or_default() += count;
    }
}

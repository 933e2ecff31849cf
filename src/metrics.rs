//! Metrics: what is counted, by whom, and under which labels.
//!
//! 1. Each worker counts in a [`Shard`] of its own, with plain numbers: no lock and no shared cache line on the way of
//!    a request. A scrape asks every worker for a copy and adds them up.
//! 2. Label values are ids of the configuration, ids of the catalogue and closed enums; nothing that a request says.
//! 3. A 401 or 403 of the gate and one of Metrica never share a series: `origin` tells them apart.
//!
//! [`page`] turns the sum into text; `docs/metrics.md` is written from it.

use std::collections::hash_map::Entry;
use std::time::Duration;

use rustc_hash::FxHashMap;

use crate::operation::{OperationId, Verb};
use crate::rejection::Reason;
use crate::symbol::{CallerId, TokenAlias};
use crate::verdict::ErrorType;

pub mod page;
pub mod process;

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

/// A kind of credential that a caller sent and that was dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Credential {
    /// `Authorization`, of any scheme.
    Authorization,
    /// `Proxy-Authorization`.
    ProxyAuthorization,
    /// `Cookie`.
    Cookie,
    /// `oauth_token=` or `access_token=` in the query.
    QueryParameter,
    /// `X-API-Key`, `X-Authorization` and their like.
    OtherHeader,
}

impl Credential {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Authorization, Self::ProxyAuthorization, Self::Cookie, Self::QueryParameter, Self::OtherHeader];

    /// Its label value.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Authorization => "authorization",
            Self::ProxyAuthorization => "proxy_authorization",
            Self::Cookie => "cookie",
            Self::QueryParameter => "query_parameter",
            Self::OtherHeader => "other_header",
        }
    }
}

/// What went wrong between the gate and Metrica.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum UpstreamError {
    /// The name was not found.
    Resolve,
    /// No address accepted the connection.
    Connect,
    /// Connecting took too long.
    ConnectTimeout,
    /// The certificate was not accepted, or TLS failed otherwise.
    Tls,
    /// Too many requests at once were waiting for a connection.
    Saturated,
    /// Closed before the head of the answer.
    Closed,
    /// The answer is not HTTP.
    Protocol,
    /// No head of the answer in time.
    ResponseTimeout,
    /// The body of the answer broke off.
    BodyCut,
    /// The body of the answer stalled.
    BodyTimeout,
    /// A redirect away from Metrica.
    Redirect,
    /// The answer is packed so that it cannot be looked into.
    Encoding,
    /// The answer held the token that went out with its request.
    Reflected,
}

impl UpstreamError {
    /// All of them.
    pub const ALL: [Self; 13] = [
        Self::Resolve,
        Self::Connect,
        Self::ConnectTimeout,
        Self::Tls,
        Self::Saturated,
        Self::Closed,
        Self::Protocol,
        Self::ResponseTimeout,
        Self::BodyCut,
        Self::BodyTimeout,
        Self::Redirect,
        Self::Encoding,
        Self::Reflected,
    ];

    /// Its label value.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Resolve => "resolve",
            Self::Connect => "connect",
            Self::ConnectTimeout => "connect_timeout",
            Self::Tls => "tls",
            Self::Saturated => "saturated",
            Self::Closed => "closed",
            Self::Protocol => "protocol",
            Self::ResponseTimeout => "response_timeout",
            Self::BodyCut => "body_cut",
            Self::BodyTimeout => "body_timeout",
            Self::Redirect => "redirect",
            Self::Encoding => "encoding",
            Self::Reflected => "reflected",
        }
    }
}

/// Who said no, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Refusal {
    /// The gate; nothing was sent.
    Gate(Reason),
    /// Metrica.
    Upstream(ErrorType),
}

impl Refusal {
    /// The label `origin`.
    #[must_use]
    pub const fn origin(self) -> &'static str {
        match self {
            Self::Gate(_) => "gate",
            Self::Upstream(_) => "upstream",
        }
    }

    /// The label `reason`.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Gate(reason) => reason.as_str(),
            Self::Upstream(error_type) => error_type.as_str(),
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
    requests: FxHashMap<(Option<OperationId>, Option<Verb>, u16), u64>,
    duration: Histogram,
    in_flight: i64,
    request_bytes: u64,
    response_bytes: u64,
}

/// Everything that a worker counts.
#[derive(Debug, Clone, Default)]
pub struct Shard {
    callers: FxHashMap<Option<CallerId>, CallerMeters>,
    upstream_durations: FxHashMap<OperationId, Histogram>,
    auth_failures: FxHashMap<AuthFailure, u64>,
    quota_rejections: FxHashMap<(TokenAlias, ErrorType), u64>,
    denied: FxHashMap<(Option<CallerId>, Reason), u64>,
    credentials_dropped: FxHashMap<(Option<CallerId>, Credential), u64>,
    upstream_errors: FxHashMap<UpstreamError, u64>,
    floods: u64,
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
    /// How; `None` is a method that operations do not have.
    pub verb: Option<Verb>,
    /// What was answered, or [`CALLER_GONE`].
    pub code: u16,
    /// Who said no, if somebody did.
    pub refusal: Option<Refusal>,
    /// From the head of the request to the end of the answer.
    pub duration: Duration,
    /// From the start of sending to the head of the answer.
    pub upstream_duration: Option<Duration>,
    /// The request's body.
    pub request_bytes: u64,
    /// The answer's body.
    pub response_bytes: u64,
}

impl Shard {
    /// A caller is known and its request is under way.
    pub fn begin(&mut self, caller: Option<CallerId>) {
        self.callers.entry(caller).or_default().in_flight += 1;
    }

    /// A request that was begun is over.
    pub fn finish(&mut self, finished: &Finished) {
        let Finished { caller, operation, token, verb, code, .. } = *finished;
        let meters = self.callers.entry(caller).or_default();
        meters.in_flight -= 1;
        *meters.requests.entry((operation, verb, code)).or_default() += 1;
        meters.duration.observe(finished.duration);
        meters.request_bytes += finished.request_bytes;
        meters.response_bytes += finished.response_bytes;
        if let (Some(operation), Some(duration)) = (operation, finished.upstream_duration) {
            self.upstream_durations.entry(operation).or_default().observe(duration);
        }
        let Some(refusal) = finished.refusal else { return };
        if matches!(code, 401 | 403) {
            *self.auth_failures.entry(AuthFailure { caller, token, operation, code, refusal }).or_default() += 1;
        }
        match (refusal, token) {
            (Refusal::Gate(reason), _) => *self.denied.entry((caller, reason)).or_default() += 1,
            (Refusal::Upstream(error_type), Some(token)) if matches!(code, 420 | 429) => {
                *self.quota_rejections.entry((token, error_type)).or_default() += 1;
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

    /// A flood ended its connection.
    pub const fn flood(&mut self) {
        self.floods += 1;
    }

    /// Adds another shard's counts.
    pub fn add(&mut self, other: &Self) {
        for (caller, more) in &other.callers {
            let meters = self.callers.entry(*caller).or_default();
            add_counts(&mut meters.requests, &more.requests);
            meters.duration.add(&more.duration);
            meters.in_flight += more.in_flight;
            meters.request_bytes += more.request_bytes;
            meters.response_bytes += more.response_bytes;
        }
        for (operation, more) in &other.upstream_durations {
            self.upstream_durations.entry(*operation).or_default().add(more);
        }
        add_counts(&mut self.auth_failures, &other.auth_failures);
        add_counts(&mut self.quota_rejections, &other.quota_rejections);
        add_counts(&mut self.denied, &other.denied);
        add_counts(&mut self.credentials_dropped, &other.credentials_dropped);
        add_counts(&mut self.upstream_errors, &other.upstream_errors);
        self.floods += other.floods;
    }

    /// Makes the series that have to exist before the first failure, so that `increase()` sees it: for every caller,
    /// and for every token that it may use, one of each kind, without an operation.
    pub fn prepare(&mut self, callers: &[crate::caller::Caller]) {
        let gate = |caller, code, reason| AuthFailure {
            caller,
            token: None,
            operation: None,
            code,
            refusal: Refusal::Gate(reason),
        };
        let upstream = |caller, token, code, error_type| AuthFailure {
            caller: Some(caller),
            token: Some(token),
            operation: None,
            code,
            refusal: Refusal::Upstream(error_type),
        };
        let mut failures = vec![gate(None, 401, Reason::UnknownCaller)];
        for caller in callers {
            failures.push(gate(Some(caller.id), 403, Reason::ScopeDenied));
            for token in &caller.tokens {
                self.quota_rejections.entry((*token, ErrorType::QuotaRequestsByUid)).or_default();
                failures.push(upstream(caller.id, *token, 401, ErrorType::Unauthorized));
                failures.push(upstream(caller.id, *token, 403, ErrorType::AccessDenied));
                failures.push(upstream(caller.id, *token, 403, ErrorType::InvalidToken));
            }
        }
        for failure in failures {
            if let Entry::Vacant(entry) = self.auth_failures.entry(failure) {
                entry.insert(0);
            }
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

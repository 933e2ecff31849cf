//! Counters and states of the process outside of the request path: tokens, reloads, files, connections and workers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::files;
use crate::policy::names::{CallerId, ListenerName, TokenAlias};

pub use super::key_set::KeySetState;
pub use super::token_state::{TokenNow, TokenState};

/// The result of a reload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// The new content is in use.
    Success,
    /// The old content stays in use.
    Failure,
}

impl Outcome {
    /// All outcomes.
    pub const ALL: [Self; 2] = [Self::Success, Self::Failure];

    /// Returns the label value.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Failure => "failure",
        }
    }
}

/// A limit for caller connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectionLimit {
    /// `limits.connections`, for all callers together.
    All,
    /// `limits.connections_per_peer`, for each peer.
    Peer,
}

impl ConnectionLimit {
    /// All limits.
    pub const ALL: [Self; 2] = [Self::All, Self::Peer];

    /// Returns the label value, which is the name of the key.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::All => "connections",
            Self::Peer => "connections_per_peer",
        }
    }
}

/// Counts of the reloads of one kind.
#[derive(Debug, Default, Clone, Copy)]
pub struct Reloads {
    /// The number of successful reloads.
    pub succeeded: u64,
    /// The number of failed reloads.
    pub failed: u64,
    /// Whether the last reload succeeded.
    pub last_succeeded: bool,
    /// The time of the last successful reload, in seconds since 1970.
    pub last_success: u64,
}

impl Reloads {
    pub(super) fn note(&mut self, outcome: Outcome) {
        self.last_succeeded = outcome == Outcome::Success;
        match outcome {
            Outcome::Success => {
                self.succeeded += 1;
                self.last_success = now();
            }
            Outcome::Failure => self.failed += 1,
        }
    }
}

/// The purpose of a request that the gate sends on its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Purpose {
    /// To find out whether Metrica accepts a token.
    TokenProbe,
    /// To find out why Metrica refused a request.
    FollowUp,
    /// To find out who issued a token.
    Identity,
    /// To list the counters of an account (`counters: auto`).
    Counters,
    /// To receive the public keys of service account tokens.
    ServiceAccountKeys,
}

impl Purpose {
    /// All purposes.
    pub const ALL: [Self; 5] =
        [Self::TokenProbe, Self::FollowUp, Self::Identity, Self::Counters, Self::ServiceAccountKeys];

    /// Returns the label value.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TokenProbe => "token_probe",
            Self::FollowUp => "follow_up",
            Self::Identity => "identity",
            Self::Counters => "counters",
            Self::ServiceAccountKeys => "service_account_keys",
        }
    }
}

/// The degree to which the process is confined by the sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Confinement {
    /// Files, network and other processes are restricted.
    Full,
    /// Some of them are restricted: the kernel supports no more.
    Partial,
    /// Nothing is restricted: the kernel does not support it.
    None,
    /// The configuration disables the sandbox.
    Off,
}

impl Confinement {
    /// All degrees.
    pub const ALL: [Self; 4] = [Self::Full, Self::Partial, Self::None, Self::Off];

    /// Returns the label value.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Partial => "partial",
            Self::None => "none",
            Self::Off => "off",
        }
    }
}

/// The callers that have the tokens that they use.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Served {
    /// Whether at least one caller has a token, or there are no callers.
    pub some: bool,
    /// The missing tokens of each caller.
    pub callers: BTreeMap<CallerId, BTreeSet<TokenAlias>>,
    /// The missing tokens of the callers of each listener.
    pub listeners: BTreeMap<ListenerName, BTreeSet<TokenAlias>>,
}

/// The counters and states of the process.
#[derive(Debug, Default)]
pub struct ProcessMeters {
    state: Mutex<State>,
    log_lines_dropped: AtomicU64,
    connections_refused: AtomicU64,
    connections_of_a_peer_refused: AtomicU64,
    address_only_callers: AtomicUsize,
    workers_stalled: AtomicUsize,
    worker_stalls: AtomicU64,
    sockets_bound_again: AtomicU64,
    own_requests: [AtomicU64; Purpose::ALL.len()],
    confinement: OnceLock<Confinement>,
}

/// A copy of the states in [`ProcessMeters`].
#[derive(Debug, Default, Clone)]
pub struct State {
    /// Reloads of the configuration.
    pub config: Reloads,
    /// The reason why the configuration file is not in use, if it is not.
    pub config_refusal: Option<String>,
    /// The files that the process reads and cannot use now, with the reason.
    pub files: BTreeMap<files::Purpose, String>,
    /// The sockets that the process cannot bind now, with the reason.
    pub sockets: BTreeMap<files::Purpose, String>,
    /// Reloads of token files.
    pub tokens: Reloads,
    /// The state of each token.
    pub token_states: BTreeMap<TokenAlias, TokenState>,
    /// The callers that have the tokens that they use.
    pub served: Arc<Served>,
    /// The end of the certificate of each listener with TLS, in seconds since 1970.
    pub certificates: BTreeMap<ListenerName, u64>,
    /// The public keys of service account tokens, if configured.
    pub key_set: Option<KeySetState>,
    /// The end of the authority that renews the certificate of each listener, in seconds since 1970.
    pub authorities: BTreeMap<ListenerName, u64>,
    /// The first end among the certificates of each file of authorities, by its key of the configuration, in seconds since 1970.
    pub ca_files: BTreeMap<String, u64>,
    /// The first 48 bits of the SHA-256 of the configuration file in use.
    pub config_hash: u64,
}

/// The ends of certificates, for [`ProcessMeters::certificates_now`].
#[derive(Debug, Default)]
pub struct CertificateEnds {
    /// The certificates of listeners.
    pub listeners: Vec<(ListenerName, SystemTime)>,
    /// The authorities that renew them.
    pub authorities: Vec<(ListenerName, SystemTime)>,
    /// The first end in each file of authorities, by its key of the configuration.
    pub ca_files: Vec<(String, SystemTime)>,
}

impl ProcessMeters {
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a reload of the configuration.
    pub fn config_reloaded(&self, outcome: Outcome) {
        self.lock().config.note(outcome);
    }

    /// Sets the reason why the configuration file is not in use; `None` if it is.
    pub fn config_refused(&self, why: Option<String>) {
        let mut state = self.lock();
        state.config.last_succeeded = why.is_none();
        state.config_refusal = why;
    }

    /// Sets the files that the process reads and cannot use now, with the reason.
    pub fn files_now(&self, files: BTreeMap<files::Purpose, String>) {
        self.lock().files = files;
    }

    /// Sets the reason why no new connection to a listener is possible; `None` if it is possible.
    pub fn socket_now(&self, listener: ListenerName, why: Option<String>) {
        let (mut state, purpose) = (self.lock(), files::Purpose::Listener(listener));
        match why {
            Some(why) => drop(state.sockets.insert(purpose, why)),
            None => drop(state.sockets.remove(&purpose)),
        }
    }

    /// Counts a reload of a token file.
    pub fn tokens_reloaded(&self, outcome: Outcome) {
        self.lock().tokens.note(outcome);
    }

    /// Sets the states of all tokens; tokens that are not listed are removed. The tokens in `changed` were read just now.
    pub fn tokens_now(&self, tokens: &[TokenNow], changed: &[TokenAlias]) {
        let mut state = self.lock();
        let at = now();
        let state_of = |token: &TokenNow| {
            let (known, is_new) = (state.token_states.get(&token.alias), changed.contains(&token.alias));
            (token.alias, TokenState::after(known, *token, is_new, at))
        };
        state.token_states = tokens.iter().map(state_of).collect();
    }

    /// Records that Metrica has just fulfilled a request with a token.
    pub fn token_worked(&self, alias: TokenAlias) {
        if let Some(token) = self.lock().token_states.get_mut(&alias) {
            token.worked_at = Some(now());
        }
    }

    /// Sets the callers that have the tokens that they use.
    pub fn served_now(&self, served: Served) {
        self.lock().served = Arc::new(served);
    }

    /// Sets the ends of certificates.
    pub fn certificates_now(&self, ends: &CertificateEnds) {
        let of_listener =
            |ends: &[(ListenerName, SystemTime)]| ends.iter().map(|(name, end)| (*name, seconds(*end))).collect();
        let mut state = self.lock();
        state.certificates = of_listener(&ends.listeners);
        state.authorities = of_listener(&ends.authorities);
        state.ca_files = ends.ca_files.iter().map(|(key, end)| (key.clone(), seconds(*end))).collect();
    }

    /// Sets the hash of the configuration in use.
    pub fn config_in_use(&self, hash: u64) {
        self.lock().config_hash = hash;
    }

    /// Counts lost log lines.
    pub fn log_lines_dropped(&self, lines: u64) {
        self.log_lines_dropped.fetch_add(lines, Ordering::Relaxed);
    }

    /// Returns the number of lost log lines.
    #[must_use]
    pub fn lines_dropped(&self) -> u64 {
        self.log_lines_dropped.load(Ordering::Relaxed)
    }

    fn refused(&self, limit: ConnectionLimit) -> &AtomicU64 {
        match limit {
            ConnectionLimit::All => &self.connections_refused,
            ConnectionLimit::Peer => &self.connections_of_a_peer_refused,
        }
    }

    /// Sets the degree of confinement, once for the lifetime of the process.
    pub fn confined(&self, confinement: Confinement) {
        self.confinement.get_or_init(|| confinement);
    }

    /// Returns the degree of confinement; `None` before it is known.
    #[must_use]
    pub fn confinement(&self) -> Option<Confinement> {
        self.confinement.get().copied()
    }

    /// Counts a connection that was refused because of a limit.
    pub fn connection_refused(&self, limit: ConnectionLimit) {
        self.refused(limit).fetch_add(1, Ordering::Relaxed);
    }

    /// Returns the number of connections that were refused because of a limit.
    #[must_use]
    pub fn connections_refused(&self, limit: ConnectionLimit) -> u64 {
        self.refused(limit).load(Ordering::Relaxed)
    }

    /// Sets the number of callers that are identified only by a network address.
    pub fn address_only_callers_now(&self, callers: usize) {
        self.address_only_callers.store(callers, Ordering::Relaxed);
    }

    /// Returns the number of callers that are identified only by a network address.
    #[must_use]
    pub fn address_only_callers(&self) -> usize {
        self.address_only_callers.load(Ordering::Relaxed)
    }

    /// Counts requests that the gate sent on its own.
    pub fn own_requests(&self, purpose: Purpose, requests: u64) {
        for (counted, count) in Purpose::ALL.iter().zip(&self.own_requests) {
            if *counted == purpose {
                count.fetch_add(requests, Ordering::Relaxed);
            }
        }
    }

    /// Returns the number of requests that the gate sent on its own, by purpose.
    pub fn own_requests_now(&self) -> impl Iterator<Item = (Purpose, u64)> {
        let counts = self.own_requests.iter().map(|count| count.load(Ordering::Relaxed));
        Purpose::ALL.into_iter().zip(counts)
    }

    /// Sets the number of currently stalled workers.
    pub fn workers_stalled_now(&self, workers: usize) {
        self.workers_stalled.store(workers, Ordering::Relaxed);
    }

    /// Counts a stall of a worker.
    pub fn worker_stalled(&self) {
        self.worker_stalls.fetch_add(1, Ordering::Relaxed);
    }

    /// Returns the number of currently stalled workers, and the number of stalls since the start.
    #[must_use]
    pub fn worker_stalls(&self) -> (usize, u64) {
        (self.workers_stalled.load(Ordering::Relaxed), self.worker_stalls.load(Ordering::Relaxed))
    }

    /// Counts the rebinding of a unix socket whose file was removed.
    pub fn socket_bound_again(&self) {
        self.sockets_bound_again.fetch_add(1, Ordering::Relaxed);
    }

    /// Returns the number of rebindings of unix sockets.
    #[must_use]
    pub fn sockets_bound_again(&self) -> u64 {
        self.sockets_bound_again.load(Ordering::Relaxed)
    }

    /// Returns a copy of the states.
    #[must_use]
    pub fn read(&self) -> State {
        self.lock().clone()
    }
}

fn now() -> u64 {
    seconds(SystemTime::now())
}

/// Returns a time in seconds since 1970.
pub(super) fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

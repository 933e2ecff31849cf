//! What is counted once for the process, away from the requests: tokens and reloads.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::external;
use crate::symbol::{CallerId, ListenerName, TokenAlias};
use crate::token::Standing;

/// How a reload ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// The new one is in use.
    Success,
    /// The old one stays in use.
    Failure,
}

impl Outcome {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Success, Self::Failure];

    /// Its label value.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Failure => "failure",
        }
    }
}

/// A limit of connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectionLimit {
    /// `limits.connections`.
    All,
    /// `limits.connections_per_peer`.
    Peer,
}

impl ConnectionLimit {
    /// Both.
    pub const ALL: [Self; 2] = [Self::All, Self::Peer];

    /// Its label value: its key.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::All => "connections",
            Self::Peer => "connections_per_peer",
        }
    }
}

/// One thing that is reloaded.
#[derive(Debug, Default, Clone, Copy)]
pub struct Reloads {
    /// How many ended well.
    pub succeeded: u64,
    /// How many did not.
    pub failed: u64,
    /// Whether the last one ended well.
    pub last_succeeded: bool,
    /// When one last ended well, in seconds since 1970.
    pub last_success: u64,
}

impl Reloads {
    fn note(&mut self, outcome: Outcome) {
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

/// What the gate sends a request of its own for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Purpose {
    /// Whether Metrica accepts a token.
    TokenProbe,
    /// Why Metrica refused a request.
    FollowUp,
    /// Who issued a token.
    Identity,
}

impl Purpose {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::TokenProbe, Self::FollowUp, Self::Identity];

    /// Its label value.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TokenProbe => "token_probe",
            Self::FollowUp => "follow_up",
            Self::Identity => "identity",
        }
    }
}

/// How far the process is confined to what it needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Confinement {
    /// In files, network and neighbours.
    Full,
    /// In some of them: the kernel has no more.
    Partial,
    /// The kernel confines nothing.
    None,
    /// The configuration does not want it.
    Off,
}

impl Confinement {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Full, Self::Partial, Self::None, Self::Off];

    /// Its label value.
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

/// The state of one token.
#[derive(Debug, Clone, Copy)]
pub struct TokenState {
    /// It can be used now.
    pub loaded: bool,
    /// When the one in use was read, in seconds since 1970.
    pub loaded_at: u64,
    /// Whether Metrica accepts it.
    pub standing: Standing,
    /// When it ends, in seconds since 1970, where that is known.
    pub expires: Option<u64>,
    /// Its file may be readable by others, on a read-only mount.
    pub allow_mode: bool,
}

impl TokenState {
    /// Every state by its label value, and whether it is that.
    #[must_use]
    pub fn states(self) -> [(&'static str, bool); 5] {
        let [usable, suspect, parked, outage] =
            Standing::ALL.map(|one| (one.as_str(), self.loaded && self.standing == one));
        [usable, suspect, parked, outage, ("missing", !self.loaded)]
    }
}

/// What is told of a token.
#[derive(Debug, Clone, Copy)]
pub struct TokenNow {
    /// Its name.
    pub alias: TokenAlias,
    /// It was read and can be used, unless Metrica rejects it.
    pub loaded: bool,
    /// Whether Metrica accepts it.
    pub standing: Standing,
    /// When it ends, where that is known.
    pub expires: Option<SystemTime>,
    /// Its file may be readable by others, on a read-only mount.
    pub allow_mode: bool,
}

/// Who can be served, as far as tokens are there.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Served {
    /// Some caller can.
    pub some: bool,
    /// By caller, the tokens that it lacks.
    pub callers: BTreeMap<CallerId, BTreeSet<TokenAlias>>,
    /// By listener, those that callers lack who come there.
    pub listeners: BTreeMap<ListenerName, BTreeSet<TokenAlias>>,
}

/// The counts of the process.
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

/// What [`ProcessMeters`] hold at a moment.
#[derive(Debug, Default, Clone)]
pub struct State {
    /// Reloads of the configuration.
    pub config: Reloads,
    /// Why the configuration's file is not in use, where it is not.
    pub config_refusal: Option<String>,
    /// Files that are read and cannot be used as they are now, and why.
    pub files: BTreeMap<external::Purpose, String>,
    /// The same of those that are made.
    pub sockets: BTreeMap<external::Purpose, String>,
    /// Reloads of token files.
    pub tokens: Reloads,
    /// By token.
    pub token_states: BTreeMap<TokenAlias, TokenState>,
    /// Who has the tokens that they use.
    pub served: Arc<Served>,
}

impl ProcessMeters {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A reload of the configuration ended.
    pub fn config_reloaded(&self, outcome: Outcome) {
        self.lock().config.note(outcome);
    }

    /// Why the configuration's file is not in use now; `None` where it is.
    pub fn config_refused(&self, why: Option<String>) {
        let mut state = self.lock();
        state.config.last_succeeded = why.is_none();
        state.config_refusal = why;
    }

    /// The files that are read and cannot be used as they are now, and why.
    pub fn files_now(&self, files: BTreeMap<external::Purpose, String>) {
        self.lock().files = files;
    }

    /// Why nobody new can connect to this listener now; `None` where they can.
    pub fn socket_now(&self, listener: ListenerName, why: Option<String>) {
        let (mut state, purpose) = (self.lock(), external::Purpose::Listener(listener));
        match why {
            Some(why) => drop(state.sockets.insert(purpose, why)),
            None => drop(state.sockets.remove(&purpose)),
        }
    }

    /// A reload of token files ended.
    pub fn tokens_reloaded(&self, outcome: Outcome) {
        self.lock().tokens.note(outcome);
    }

    /// Which tokens can be used now; `changed` were read just now. Tokens that are not named are forgotten.
    pub fn tokens_now(&self, tokens: &[TokenNow], changed: &[TokenAlias]) {
        let mut state = self.lock();
        let state_of = |token: &TokenNow| {
            let TokenNow { alias, loaded, standing, expires, allow_mode } = *token;
            let known = state.token_states.get(&alias).map_or(0, |known| known.loaded_at);
            let loaded_at = if changed.contains(&alias) { now() } else { known };
            (alias, TokenState { loaded, loaded_at, standing, expires: expires.map(seconds), allow_mode })
        };
        state.token_states = tokens.iter().map(state_of).collect();
    }

    /// Who has the tokens that they use now.
    pub fn served_now(&self, served: Served) {
        self.lock().served = Arc::new(served);
    }

    /// So many log lines more are lost.
    pub fn log_lines_dropped(&self, lines: u64) {
        self.log_lines_dropped.fetch_add(lines, Ordering::Relaxed);
    }

    /// How many are.
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

    /// The process was confined so far, once for its life.
    pub fn confined(&self, confinement: Confinement) {
        self.confinement.get_or_init(|| confinement);
    }

    /// How far the process is confined; `None` before that is known.
    #[must_use]
    pub fn confinement(&self) -> Option<Confinement> {
        self.confinement.get().copied()
    }

    /// A connection beyond a limit was turned away.
    pub fn connection_refused(&self, limit: ConnectionLimit) {
        self.refused(limit).fetch_add(1, Ordering::Relaxed);
    }

    /// How many were, for one limit.
    #[must_use]
    pub fn connections_refused(&self, limit: ConnectionLimit) -> u64 {
        self.refused(limit).load(Ordering::Relaxed)
    }

    /// So many callers are known by nothing but an address on a network.
    pub fn address_only_callers_now(&self, callers: usize) {
        self.address_only_callers.store(callers, Ordering::Relaxed);
    }

    /// How many are.
    #[must_use]
    pub fn address_only_callers(&self) -> usize {
        self.address_only_callers.load(Ordering::Relaxed)
    }

    /// So many requests of the gate's own were sent.
    pub fn own_requests(&self, purpose: Purpose, requests: u64) {
        for (counted, count) in Purpose::ALL.iter().zip(&self.own_requests) {
            if *counted == purpose {
                count.fetch_add(requests, Ordering::Relaxed);
            }
        }
    }

    /// How many were, by purpose.
    pub fn own_requests_now(&self) -> impl Iterator<Item = (Purpose, u64)> {
        let counts = self.own_requests.iter().map(|count| count.load(Ordering::Relaxed));
        Purpose::ALL.into_iter().zip(counts)
    }

    /// So many workers do not come back to their loop.
    pub fn workers_stalled_now(&self, workers: usize) {
        self.workers_stalled.store(workers, Ordering::Relaxed);
    }

    /// One more worker does not.
    pub fn worker_stalled(&self) {
        self.worker_stalls.fetch_add(1, Ordering::Relaxed);
    }

    /// How many do not now, and how often one did not.
    #[must_use]
    pub fn worker_stalls(&self) -> (usize, u64) {
        (self.workers_stalled.load(Ordering::Relaxed), self.worker_stalls.load(Ordering::Relaxed))
    }

    /// A unix socket whose file was removed was bound again.
    pub fn socket_bound_again(&self) {
        self.sockets_bound_again.fetch_add(1, Ordering::Relaxed);
    }

    /// How often one was.
    #[must_use]
    pub fn sockets_bound_again(&self) -> u64 {
        self.sockets_bound_again.load(Ordering::Relaxed)
    }

    /// A copy of what is known of reloads and tokens.
    #[must_use]
    pub fn read(&self) -> State {
        self.lock().clone()
    }
}

fn now() -> u64 {
    seconds(SystemTime::now())
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

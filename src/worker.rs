//! A worker: one thread that accepts, decides and forwards, with all its state.
//!
//! 1. Workers share no state that a request changes: each has its own connections, counts and log lines.
//! 2. A reload gives every worker a new [`Snapshot`]. A request that was sent keeps its own; any other is decided again.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use metrica::scope::ScopeSet;
use strict_http::number;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::body::RequestBody;
use crate::body::budget::Budget;
use crate::config::certificates::Handshakes;
use crate::config::{CallerTimeouts, Limits, TokenCounters};
use crate::metrics::usage::Groups;
use crate::metrics::{Finished, PoolMeters, Shard};
use crate::policy::Policy;
use crate::policy::admission::Admissions;
use crate::policy::decide::{Candidates, KnownState};
use crate::policy::names::TokenAlias;
use crate::policy::rejection::Reason;
use crate::telemetry::access::{Context, Lines};
use crate::telemetry::{Form, Sink};
use crate::token::{Standing, Token};
use crate::upstream::{CarriedToken, Pool, Upstream, Watchdogs};

mod accounts;
mod learning;
mod quota_numbers;
mod request_id;
mod service_accounts;
mod turns;
mod under_way;

pub use crate::token::secret::Secret;
pub use accounts::WorkerAccounts;
pub use learning::{Diagnosed, Learning, Refused, Report, Suspicion};
pub use request_id::{RequestId, new_request_id};
pub use service_accounts::{AccountCheck, VerifiedTokens};
pub use turns::{AfterRefusal, Asked, CallerNumbers, QuotaNumbers, Turn, Turns, Waiting, micros};
pub use under_way::{Ending, Progress, UnderWay, Underway};

/// A configured token and its state.
#[derive(Debug, Clone)]
pub struct Slot {
    /// The name of the token.
    pub alias: TokenAlias,
    /// The scopes that the configuration declares.
    pub scopes: ScopeSet,
    /// The token; `None` if its file is missing or was never valid.
    pub token: Option<Token>,
    /// The epoch: a number that is never reused, new for each token that is read from the file.
    pub epoch: u64,
    /// Whether Metrica accepts it.
    pub standing: Standing,
    /// While the token is refused: when that began.
    pub refused_since: Option<Instant>,
    /// While the token is refused: when it is probed next; `None` while a probe is under way.
    pub next_look: Option<Instant>,
    /// The position of the token that replaces this one while it cannot be used.
    pub standby: Option<usize>,
    /// The owner that the configuration names.
    pub owner: Option<Box<str>>,
    /// The counters of the owner, as the configuration knows them.
    pub counters: TokenCounters,
}

impl Slot {
    /// Checks whether the token can be sent now.
    ///
    /// # Errors
    /// The reason why not.
    pub const fn can_be_sent(&self) -> Result<(), Reason> {
        match (&self.token, self.standing) {
            (None, _) => Err(Reason::TokenUnavailable),
            (Some(_), Standing::Suspended) => Err(Reason::TokenSuspended),
            (Some(_), Standing::Outage) => Err(Reason::Outage),
            (Some(_), Standing::Healthy | Standing::Suspect) => Ok(()),
        }
    }

    /// The identity of the token.
    #[must_use]
    pub const fn token_use(&self) -> TokenUse {
        TokenUse { alias: self.alias, scopes: self.scopes, epoch: self.epoch }
    }
}

/// The identity of a token that was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenUse {
    /// The name of the token.
    pub alias: TokenAlias,
    /// The scopes that the configuration declares.
    pub scopes: ScopeSet,
    /// The epoch of the token, as in [`Slot::epoch`].
    pub epoch: u64,
}

impl TokenUse {
    /// The token that an upstream connection carries for this sender.
    #[must_use]
    pub const fn carried(self) -> CarriedToken {
        CarriedToken(self.epoch)
    }
}

/// A token that can be sent now.
#[derive(Clone)]
pub struct Ready {
    /// The identity of the token.
    pub token_use: TokenUse,
    /// The value of `Authorization`.
    pub authorization: HeaderValue,
    /// The token in it, which must not reach the caller.
    pub secret: Secret,
}

/// A state of configuration and tokens, shared by all workers.
#[derive(Debug, Clone)]
pub struct Generation {
    /// The policy: which caller may do what.
    pub policy: Arc<Policy>,
    /// The admission rules of each listener.
    pub admissions: Arc<Admissions>,
    /// The tokens, by their position in the policy.
    pub tokens: Vec<Slot>,
    /// The turns of requests; all generations share them.
    pub turns: Arc<Turns>,
    /// The numbers for asking for a turn; `None` if the configuration has no quota.
    pub quota: Option<QuotaNumbers>,
    /// The upstream.
    pub upstream: Arc<Upstream>,
    /// The settings of TLS handshakes with callers.
    pub handshakes: Handshakes,
    /// The verification of service account tokens, if configured.
    pub service_accounts: Option<AccountCheck>,
    /// The timeouts towards callers.
    pub timeouts: CallerTimeouts,
    /// The limits.
    pub limits: Limits,
    /// Whether access lines are written.
    pub access_log: bool,
    /// The groups of counters that metrics count together.
    pub groups: Arc<Groups>,
}

impl Generation {
    /// The state of a refused token: its duration, and when the token or its standby is probed next.
    #[must_use]
    pub fn refused(&self, alias: TokenAlias, now: Instant) -> Option<RefusedToken> {
        let own = self.tokens.iter().find(|slot| slot.alias == alias)?;
        let standby = own.standby.and_then(|position| self.tokens.get(position));
        let refused = [Some(own), standby].into_iter().flatten().filter(|slot| slot.standing.is_refused());
        let left = |slot: &Slot| slot.next_look.map_or(Duration::ZERO, |next| next.saturating_duration_since(now));
        let next = refused.map(left).min()?;
        Some(RefusedToken {
            duration: now.saturating_duration_since(own.refused_since.unwrap_or(now)),
            seconds_to_next_look: number::saturated(next.as_millis().div_ceil(1000).max(1)),
        })
    }
}

/// A token that is not sent.
#[derive(Debug, Clone, Copy)]
pub struct RefusedToken {
    /// The time that the token has been refused.
    pub duration: Duration,
    /// The whole seconds, at least one, until the token or its standby is probed next.
    pub seconds_to_next_look: u64,
}

/// A [`Generation`] as one worker uses it.
pub struct Snapshot {
    /// The generation that it was made from.
    pub generation: Arc<Generation>,
    /// The token to send at each position, if it can be sent. The `Authorization` values are this worker's own copies,
    /// because a shared reference count would be a shared cache line.
    ready: Vec<Option<Ready>>,
    candidates: Vec<Result<Candidates, Reason>>,
    /// The connections to the upstream.
    pub pool: Rc<Pool<RequestBody>>,
    /// The `Keep-Alive` value of responses; `None` if the timeout is too short to announce.
    pub keep_alive: Option<HeaderValue>,
}

/// The announced keep-alive is shorter by this margin, because a request sent at the last moment is still on its way.
const KEEP_ALIVE_MARGIN: Duration = Duration::from_secs(2);

/// The value of `Keep-Alive` for a connection that is kept for `timeout`.
fn keep_alive(timeout: Duration) -> Option<HeaderValue> {
    let seconds = timeout.checked_sub(KEEP_ALIVE_MARGIN)?.as_secs();
    if seconds == 0 { None } else { HeaderValue::try_from(format!("timeout={seconds}")).ok() }
}

impl Snapshot {
    /// The inputs of a decision. `accounts`: [`Worker::accounts`] of this snapshot.
    #[must_use]
    pub fn known<'a>(&'a self, accounts: &'a WorkerAccounts<'a>) -> KnownState<'a> {
        let Generation { policy, admissions, limits, .. } = &*self.generation;
        KnownState { policy, admissions, limits, tokens: &self.candidates, accounts }
    }

    /// The token to send at a position of a decision.
    ///
    /// # Errors
    /// The token cannot be sent now; current decisions list no such token.
    pub fn ready(&self, position: usize) -> Result<&Ready, Reason> {
        self.ready.get(position).and_then(Option::as_ref).ok_or(Reason::TokenUnavailable)
    }
}

/// The state of one worker.
pub struct Worker {
    snapshot: RefCell<Rc<Snapshot>>,
    shard: RefCell<Shard>,
    /// The counts of connections to the upstream, of all pools.
    pool_meters: Rc<PoolMeters>,
    /// The facts known about tokens.
    pub learning: Learning,
    /// The requests that a shutdown may cut.
    pub under_way: UnderWay,
    /// The idle watchdogs, for request deadlines.
    pub watchdogs: Watchdogs,
    /// The budget of bytes that are read ahead.
    pub ahead: Rc<Budget>,
    /// The budget of HTTP/2 window bytes beyond those that the protocol gives each stream.
    pub windows: Rc<Budget>,
    /// The bytes that requests hold while they wait for their turn.
    waiting_bytes: Cell<usize>,
    lines: RefCell<Lines>,
    verified_tokens: RefCell<VerifiedTokens>,
    sink: Sink,
    form: Form,
    ending: Cell<Ending>,
    left: Notify,
    drained: Notify,
    workers: usize,
}

/// The maximum bytes that one worker reads ahead, over all callers.
pub const AHEAD_OF_A_WORKER: usize = 16 * 1024 * 1024;

/// The maximum bytes of the HTTP/2 windows of one worker, over all connections.
const WINDOWS_OF_A_WORKER: usize = 16 * 1024 * 1024;

/// The number of bytes at which access lines are handed over; an idle worker hands over fewer.
const LINES_AT_ONCE: usize = 16 * 1024;

impl Worker {
    /// Creates one of `workers` workers, with `generation`.
    #[must_use]
    pub fn new(generation: Arc<Generation>, sink: Sink, form: Form, workers: usize, learning: Learning) -> Self {
        let pool_meters = Rc::<PoolMeters>::default();
        let snapshot = snapshot(generation, None, workers, &pool_meters);
        Self {
            snapshot: RefCell::new(Rc::new(snapshot)),
            shard: RefCell::default(),
            pool_meters,
            learning,
            under_way: UnderWay::default(),
            watchdogs: Watchdogs::default(),
            ahead: Rc::new(Budget::new(AHEAD_OF_A_WORKER)),
            windows: Rc::new(Budget::new(WINDOWS_OF_A_WORKER)),
            waiting_bytes: Cell::new(0),
            lines: RefCell::default(),
            verified_tokens: RefCell::default(),
            sink,
            form,
            ending: Cell::new(Ending::Serving),
            left: Notify::new(),
            drained: Notify::new(),
            workers,
        }
    }

    /// The snapshot for a new request.
    #[must_use]
    pub fn snapshot(&self) -> Rc<Snapshot> {
        self.snapshot.borrow().clone()
    }

    /// Replaces the generation in use. Upstream connections are kept unless the upstream changed.
    pub fn install(&self, generation: Arc<Generation>) {
        let old = self.snapshot();
        let new = snapshot(generation, Some(&old), self.workers, &self.pool_meters);
        new.pool.retain(|carried| new.generation.tokens.iter().any(|slot| slot.token_use().carried() == carried));
        *self.snapshot.borrow_mut() = Rc::new(new);
    }

    /// Updates the counts.
    pub fn count(&self, count: impl FnOnce(&mut Shard)) {
        count(&mut self.shard.borrow_mut());
    }

    /// A copy of the counts.
    #[must_use]
    pub fn counts(&self) -> Shard {
        let mut counts = self.shard.borrow().clone();
        counts.likely_to_be_cut(self.under_way.likely());
        let snapshot = self.snapshot();
        let (idle, shared) = snapshot.pool.open_connections();
        counts.set_pool(&self.pool_meters, idle, shared);
        for (token, it_is) in self.learning.other_owners(&snapshot.generation.tokens) {
            counts.token_is_of_another(token, it_is);
        }
        for (token, counters) in self.learning.known_counters(&snapshot.generation.tokens) {
            counts.token_counters(token, counters);
        }
        counts
    }

    /// Writes the access line of a finished exchange.
    pub fn log(&self, finished: &Finished, context: &Context<'_>) {
        let mut lines = self.lines.borrow_mut();
        lines.write(self.form, finished, context);
        if lines.bytes.len() >= LINES_AT_ONCE {
            self.sink.push(&lines.bytes);
            lines.bytes.clear();
        }
    }

    /// Hands over the pending access lines.
    pub fn flush_lines(&self) {
        let lines = &mut self.lines.borrow_mut().bytes;
        if !lines.is_empty() {
            self.sink.push(lines);
            lines.clear();
        }
    }

    /// The stage of the shutdown.
    #[must_use]
    pub fn ending(&self) -> Ending {
        self.ending.get()
    }

    /// Begins the shutdown, which cuts requests at `cuts`.
    pub fn leave(&self, cuts: Instant) {
        self.under_way.ends(cuts);
        self.under_way.name();
        self.move_on(Ending::Leaving);
        self.left.notify_waiters();
    }

    /// Stops accepting connections.
    pub fn drain(&self) {
        self.move_on(Ending::Draining);
        self.left.notify_waiters();
        self.drained.notify_waiters();
    }

    /// Cuts the requests that are still under way.
    pub fn cut(&self) {
        self.move_on(Ending::Cutting);
    }

    fn move_on(&self, to: Ending) {
        self.ending.set(to.max(self.ending.get()));
    }

    /// Waits until the shutdown begins. Only events after the first poll wake it.
    pub async fn until_leaving(&self) {
        if self.ending.get() < Ending::Leaving {
            self.left.notified().await;
        }
    }

    /// Waits until the worker stops accepting. Only events after the first poll wake it.
    pub async fn until_draining(&self) {
        if self.ending.get() < Ending::Draining {
            self.drained.notified().await;
        }
    }
}

fn snapshot(generation: Arc<Generation>, old: Option<&Snapshot>, workers: usize, meters: &Rc<PoolMeters>) -> Snapshot {
    let upstream = &generation.upstream;
    let kept = old.filter(|old| Arc::ptr_eq(&old.generation.upstream, upstream)).map(|old| old.pool.clone());
    let permits = upstream.settings.connections.div_ceil(workers.max(1));
    let pool = kept.unwrap_or_else(|| Rc::new(Pool::new(upstream.clone(), permits, meters.clone())));
    let ready = generation.tokens.iter().map(ready).collect();
    let can_be_sent: Vec<_> = generation.tokens.iter().map(Slot::can_be_sent).collect();
    let standby = |position: usize| generation.tokens.get(position).and_then(|slot| slot.standby);
    let candidates = Candidates::of(&can_be_sent, standby);
    let keep_alive = keep_alive(generation.timeouts.keep_alive);
    Snapshot { generation, ready, candidates, pool, keep_alive }
}

fn ready(slot: &Slot) -> Option<Ready> {
    slot.can_be_sent().ok()?;
    let authorization = slot.token.as_ref()?.authorization();
    Some(Ready { token_use: slot.token_use(), secret: Secret::of(&authorization)?, authorization })
}

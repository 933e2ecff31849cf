//! A worker: one thread that accepts, decides and forwards, with everything it needs for itself.
//!
//! 1. Workers share nothing that a request changes: each has its own connections, its own counts, its own log lines.
//! 2. What a request reads is a [`Snapshot`]; a reload hands every worker a new one between two requests. One that has not
//!    left yet is decided again with it; one that has, goes on with the one it left with.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderValue;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::config::{CallerTimeouts, Limits};
use crate::decide::admission::Admissions;
use crate::decide::{Candidates, Known};
use crate::gateway::body::RequestBody;
use crate::gateway::budget::Budget;
use crate::metrics::usage::Groups;
use crate::metrics::{Finished, Shard};
use crate::policy::Policy;
use crate::rejection::Reason;
use crate::scope::ScopeSet;
use crate::symbol::TokenAlias;
use crate::telemetry::access::{self, Context};
use crate::telemetry::{Form, Sink};
use crate::token::{Standing, Token};
use crate::upstream::{Carried, Pool, Upstream, Watchdogs};

mod learning;
mod under_way;

pub use learning::{Diagnosed, Doubt, Learning, Refused, Report};
pub use under_way::{Progress, UnderWay};

/// A token of the configuration, and what became of it.
#[derive(Debug, Clone)]
pub struct Slot {
    /// Its name.
    pub alias: TokenAlias,
    /// What it is declared to have.
    pub scopes: ScopeSet,
    /// The token; `None` when its file is missing or was never valid.
    pub token: Option<Token>,
    /// Counts the tokens that were in its file.
    pub epoch: u64,
    /// Whether Metrica accepts it.
    pub standing: Standing,
    /// While it is refused: since when.
    pub refused_since: Option<Instant>,
    /// While it is refused: when Metrica is asked next whether it accepts it; `None` while it is being asked.
    pub next_look: Option<Instant>,
    /// The position of the one that takes over while this one cannot be used.
    pub standby: Option<usize>,
    /// Whom the configuration names as its owner.
    pub owner: Option<Box<str>>,
}

impl Slot {
    /// Whether it can be sent now.
    ///
    /// # Errors
    /// Why not.
    pub const fn can_be_sent(&self) -> Result<(), Reason> {
        match (&self.token, self.standing) {
            (None, _) => Err(Reason::TokenUnavailable),
            (Some(_), Standing::Parked) => Err(Reason::TokenParked),
            (Some(_), Standing::Outage) => Err(Reason::Outage),
            (Some(_), Standing::Healthy | Standing::Suspect) => Ok(()),
        }
    }

    /// Who sends it.
    #[must_use]
    pub const fn sender(&self) -> Sender {
        Sender { alias: self.alias, scopes: self.scopes, epoch: self.epoch }
    }
}

/// Which token was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sender {
    /// Its name.
    pub alias: TokenAlias,
    /// What it is declared to have.
    pub scopes: ScopeSet,
    /// Of the tokens that were in its file, which.
    pub epoch: u64,
}

impl Sender {
    /// What a connection carries that it is sent on.
    #[must_use]
    pub const fn carried(self) -> Carried {
        Carried(self.epoch)
    }
}

/// A token that can be sent now.
#[derive(Debug, Clone)]
pub struct Ready {
    /// Which.
    pub sender: Sender,
    /// The field value that carries it.
    pub authorization: HeaderValue,
}

/// One state of configuration and tokens, shared by all workers.
#[derive(Debug)]
pub struct Generation {
    /// Who may do what.
    pub policy: Arc<Policy>,
    /// What each listener lets in.
    pub admissions: Arc<Admissions>,
    /// By the position in the policy.
    pub tokens: Vec<Slot>,
    /// Where to.
    pub upstream: Arc<Upstream>,
    /// Towards callers.
    pub timeouts: CallerTimeouts,
    /// Bounds.
    pub limits: Limits,
    /// Whether access lines are written.
    pub access_log: bool,
    /// Which counters are counted together.
    pub groups: Arc<Groups>,
}

impl Generation {
    /// For a token that is refused: since when, and when Metrica is asked next about it or its standby.
    #[must_use]
    pub fn refused(&self, alias: TokenAlias, now: Instant) -> Option<RefusedToken> {
        let own = self.tokens.iter().find(|slot| slot.alias == alias)?;
        let standby = own.standby.and_then(|position| self.tokens.get(position));
        let refused = [Some(own), standby].into_iter().flatten().filter(|slot| slot.standing.is_refused());
        let left = |slot: &Slot| slot.next_look.map_or(Duration::ZERO, |next| next.saturating_duration_since(now));
        let next = refused.map(left).min()?;
        Some(RefusedToken {
            duration: now.saturating_duration_since(own.refused_since.unwrap_or(now)),
            seconds_to_next_look: next.as_millis().div_ceil(1000).max(1).try_into().unwrap_or(u64::MAX),
        })
    }
}

/// A token with which nothing is sent.
#[derive(Debug, Clone, Copy)]
pub struct RefusedToken {
    /// For how long that has been so.
    pub duration: Duration,
    /// The whole seconds, at least one, until Metrica is asked next whether it accepts it, or its standby.
    pub seconds_to_next_look: u64,
}

/// A [`Generation`] as one worker uses it.
pub struct Snapshot {
    /// What it was made from.
    pub generation: Arc<Generation>,
    /// What is sent for the token at a position, where it can be, with `Authorization` values that are copies of this
    /// worker's own: a shared reference count would be a shared cache line.
    ready: Vec<Option<Ready>>,
    candidates: Vec<Result<Candidates, Reason>>,
    /// The connections to the upstream.
    pub pool: Rc<Pool<RequestBody>>,
    /// What an answer says of how long its connection is kept (`Keep-Alive`); `None` where that is too short to say.
    pub keep_alive: Option<HeaderValue>,
}

/// What a caller is told is so much shorter than what holds: a request that it sends at the last moment is still on its way.
const KEEP_ALIVE_MARGIN: Duration = Duration::from_secs(2);

/// The value of `Keep-Alive` for connections that are kept for `timeout`.
fn keep_alive(timeout: Duration) -> Option<HeaderValue> {
    let seconds = timeout.checked_sub(KEEP_ALIVE_MARGIN)?.as_secs();
    if seconds == 0 { None } else { HeaderValue::try_from(format!("timeout={seconds}")).ok() }
}

impl Snapshot {
    /// What decisions are made with.
    #[must_use]
    pub fn known(&self) -> Known<'_> {
        let Generation { policy, admissions, limits, .. } = &*self.generation;
        Known { policy, admissions, limits, tokens: &self.candidates }
    }

    /// What is sent for the token at a position of a decision.
    ///
    /// # Errors
    /// When it cannot be sent now, which no decision of now lists.
    pub fn ready(&self, position: usize) -> Result<&Ready, Reason> {
        self.ready.get(position).and_then(Option::as_ref).ok_or(Reason::TokenUnavailable)
    }
}

/// What one worker has.
pub struct Worker {
    snapshot: RefCell<Rc<Snapshot>>,
    shard: RefCell<Shard>,
    /// What it knows of tokens.
    pub learning: Learning,
    /// What a shutdown may cut.
    pub under_way: UnderWay,
    /// For deadlines of requests.
    pub watchdogs: Watchdogs,
    /// Bytes of bodies that are read before they go on.
    pub ahead: Rc<Budget>,
    /// Bytes of bodies that callers of HTTP/2 may send before they are passed on, beyond what the protocol gives each.
    pub windows: Rc<Budget>,
    lines: RefCell<Vec<u8>>,
    sink: Sink,
    form: Form,
    ending: Cell<Ending>,
    left: Notify,
    drained: Notify,
    workers: usize,
}

/// How far the process is on its way out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ending {
    /// It is not.
    Serving,
    /// It accepts and serves, and says with every answer that the connection ends with it.
    Leaving,
    /// It accepts no more, and connections end after their request.
    Draining,
    /// What is under way is cut.
    Cutting,
}

/// So many bytes of bodies are read ahead in a worker, of all callers together.
const AHEAD_OF_A_WORKER: usize = 16 * 1024 * 1024;

/// So many bytes of windows the connections of HTTP/2 in a worker have together.
const WINDOWS_OF_A_WORKER: usize = 16 * 1024 * 1024;

/// Lines are handed over when so many bytes wait, or when the worker has nothing else to do.
const LINES_AT_ONCE: usize = 16 * 1024;

impl Worker {
    /// A worker, one of `workers`, that begins with `generation`.
    #[must_use]
    pub fn new(generation: Arc<Generation>, sink: Sink, form: Form, workers: usize, learning: Learning) -> Self {
        let snapshot = snapshot(generation, None, workers);
        Self {
            snapshot: RefCell::new(Rc::new(snapshot)),
            shard: RefCell::default(),
            learning,
            under_way: UnderWay::default(),
            watchdogs: Watchdogs::default(),
            ahead: Rc::new(Budget::new(AHEAD_OF_A_WORKER)),
            windows: Rc::new(Budget::new(WINDOWS_OF_A_WORKER)),
            lines: RefCell::default(),
            sink,
            form,
            ending: Cell::new(Ending::Serving),
            left: Notify::new(),
            drained: Notify::new(),
            workers,
        }
    }

    /// What a new request reads.
    #[must_use]
    pub fn snapshot(&self) -> Rc<Snapshot> {
        self.snapshot.borrow().clone()
    }

    /// Puts `generation` in the place of the one in use. Connections to the upstream stay unless the upstream changed.
    pub fn install(&self, generation: Arc<Generation>) {
        let old = self.snapshot();
        let new = snapshot(generation, Some(&old), self.workers);
        new.pool.retain(|carried| new.generation.tokens.iter().any(|slot| slot.sender().carried() == carried));
        *self.snapshot.borrow_mut() = Rc::new(new);
    }

    /// Counts something.
    pub fn count(&self, count: impl FnOnce(&mut Shard)) {
        count(&mut self.shard.borrow_mut());
    }

    /// A copy of the counts.
    #[must_use]
    pub fn counts(&self) -> Shard {
        let mut counts = self.shard.borrow().clone();
        counts.likely_to_be_cut(self.under_way.likely());
        for (token, it_is) in self.learning.other_owners(&self.snapshot().generation.tokens) {
            counts.token_is_of_another(token, it_is);
        }
        counts
    }

    /// Writes the access line of an exchange that ended.
    pub fn log(&self, finished: &Finished, context: &Context<'_>) {
        let mut lines = self.lines.borrow_mut();
        access::write(&mut lines, self.form, finished, context);
        if lines.len() >= LINES_AT_ONCE {
            self.sink.push(&lines);
            lines.clear();
        }
    }

    /// Hands over the lines that wait.
    pub fn flush_lines(&self) {
        let mut lines = self.lines.borrow_mut();
        if !lines.is_empty() {
            self.sink.push(&lines);
            lines.clear();
        }
    }

    /// How far the process is on its way out.
    #[must_use]
    pub fn ending(&self) -> Ending {
        self.ending.get()
    }

    /// The process is on its way out, and cuts then what is under way.
    pub fn leave(&self, cuts: Instant) {
        self.under_way.ends(cuts);
        self.under_way.name();
        self.move_on(Ending::Leaving);
        self.left.notify_waiters();
    }

    /// Nothing more is accepted.
    pub fn drain(&self) {
        self.move_on(Ending::Draining);
        self.left.notify_waiters();
        self.drained.notify_waiters();
    }

    /// What is still under way is cut now.
    pub fn cut(&self) {
        self.move_on(Ending::Cutting);
    }

    fn move_on(&self, to: Ending) {
        self.ending.set(to.max(self.ending.get()));
    }

    /// Waits until the process is on its way out. It is woken only by what happens after it was first polled.
    pub async fn until_leaving(&self) {
        if self.ending.get() < Ending::Leaving {
            self.left.notified().await;
        }
    }

    /// Waits until nothing more is accepted; the same holds.
    pub async fn until_draining(&self) {
        if self.ending.get() < Ending::Draining {
            self.drained.notified().await;
        }
    }
}

fn snapshot(generation: Arc<Generation>, old: Option<&Snapshot>, workers: usize) -> Snapshot {
    let upstream = &generation.upstream;
    let kept = old.filter(|old| Arc::ptr_eq(&old.generation.upstream, upstream)).map(|old| old.pool.clone());
    let permits = upstream.settings.connections.div_ceil(workers.max(1));
    let pool = kept.unwrap_or_else(|| Rc::new(Pool::new(upstream.clone(), permits)));
    let ready = generation.tokens.iter().map(ready).collect();
    let can_be_sent: Vec<_> = generation.tokens.iter().map(Slot::can_be_sent).collect();
    let standby = |position: usize| generation.tokens.get(position).and_then(|slot| slot.standby);
    let candidates = Candidates::of(&can_be_sent, standby);
    let keep_alive = keep_alive(generation.timeouts.keep_alive);
    Snapshot { generation, ready, candidates, pool, keep_alive }
}

fn ready(slot: &Slot) -> Option<Ready> {
    slot.can_be_sent().ok()?;
    Some(Ready { sender: slot.sender(), authorization: slot.token.as_ref()?.authorization() })
}

/// A new id for a request that brought none: 128 random bits in hexadecimal.
#[must_use]
pub fn new_request_id() -> HeaderValue {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let random = fastrand::u128(..).to_be_bytes();
    let digit = |nibble: u8| DIGITS.get(usize::from(nibble)).copied().unwrap_or(b'0');
    let text: Vec<u8> = random.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect();
    HeaderValue::from_maybe_shared(Bytes::from(text)).unwrap_or_else(|_| HeaderValue::from_static("0"))
}

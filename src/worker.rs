//! A worker: one thread that accepts, decides and forwards, with everything it needs for itself.
//!
//! 1. Workers share nothing that a request changes: each has its own connections, its own counts, its own log lines.
//! 2. What a request reads is a [`Snapshot`]; a reload hands every worker a new one between two requests, and requests
//!    under way go on with the one they began with.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use http::HeaderValue;
use tokio::sync::Notify;

use crate::config::{CallerTimeouts, Limits};
use crate::gateway::admit::Admissions;
use crate::gateway::body::RequestBody;
use crate::metrics::usage::Groups;
use crate::metrics::{Finished, Shard};
use crate::policy::Policy;
use crate::rejection::Reason;
use crate::scope::ScopeSet;
use crate::symbol::TokenAlias;
use crate::telemetry::access::{self, Context};
use crate::telemetry::{Form, Sink};
use crate::token::Token;
use crate::upstream::{Pool, Upstream, Watchdogs};

mod learning;

pub use learning::{Doubt, Learning, Refused, Report};

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
    /// Metrica takes it for invalid.
    pub parked: bool,
    /// The position of the one that takes over while this one cannot be used.
    pub standby: Option<usize>,
    /// Whom the configuration names as its owner.
    pub owner: Option<Box<str>>,
}

impl Slot {
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

/// A [`Generation`] as one worker uses it.
pub struct Snapshot {
    /// What it was made from.
    pub generation: Arc<Generation>,
    /// What is sent for the token at a position, with `Authorization` values that are copies of this worker's own: a
    /// shared reference count would be a shared cache line.
    ready: Vec<Result<Ready, Reason>>,
    /// The connections to the upstream.
    pub pool: Rc<Pool<RequestBody>>,
}

impl Snapshot {
    /// What is sent for the token at a position: it, or its standby.
    ///
    /// # Errors
    /// Why neither can be used now.
    pub fn ready(&self, token_position: usize) -> Result<&Ready, Reason> {
        self.ready.get(token_position).ok_or(Reason::TokenUnavailable)?.as_ref().map_err(|reason| *reason)
    }
}

/// What one worker has.
pub struct Worker {
    snapshot: RefCell<Rc<Snapshot>>,
    shard: RefCell<Shard>,
    /// What it knows of tokens.
    pub learning: Learning,
    /// For deadlines of requests.
    pub watchdogs: Watchdogs,
    lines: RefCell<Vec<u8>>,
    sink: Sink,
    form: Form,
    draining: Cell<bool>,
    ending: Cell<bool>,
    drained: Notify,
    workers: usize,
}

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
            watchdogs: Watchdogs::default(),
            lines: RefCell::default(),
            sink,
            form,
            draining: Cell::new(false),
            ending: Cell::new(false),
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
        *self.snapshot.borrow_mut() = Rc::new(snapshot(generation, Some(&old), self.workers));
    }

    /// Counts something.
    pub fn count(&self, count: impl FnOnce(&mut Shard)) {
        count(&mut self.shard.borrow_mut());
    }

    /// A copy of the counts.
    #[must_use]
    pub fn counts(&self) -> Shard {
        self.shard.borrow().clone()
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

    /// Whether the process is on its way out: connections end after their request.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.draining.get()
    }

    /// The process is on its way out.
    pub fn drain(&self) {
        self.draining.set(true);
        self.drained.notify_waiters();
    }

    /// What is still under way is cut now.
    pub fn end(&self) {
        self.ending.set(true);
    }

    /// Whether what ends now is cut by the gate.
    #[must_use]
    pub fn is_ending(&self) -> bool {
        self.ending.get()
    }

    /// Waits until [`Self::drain`] was called. It is woken only by calls after it was first polled.
    pub async fn until_draining(&self) {
        if !self.draining.get() {
            self.drained.notified().await;
        }
    }
}

fn snapshot(generation: Arc<Generation>, old: Option<&Snapshot>, workers: usize) -> Snapshot {
    let upstream = &generation.upstream;
    let kept = old.filter(|old| Arc::ptr_eq(&old.generation.upstream, upstream)).map(|old| old.pool.clone());
    let permits = upstream.settings.connections.div_ceil(workers.max(1));
    let pool = kept.unwrap_or_else(|| Rc::new(Pool::new(upstream.clone(), permits)));
    let ready = generation.tokens.iter().map(|slot| ready(slot, &generation.tokens)).collect();
    Snapshot { generation, ready, pool }
}

/// The token of `slot`, or that of its standby.
fn ready(slot: &Slot, all: &[Slot]) -> Result<Ready, Reason> {
    let now = |slot: &Slot| {
        let token = slot.token.as_ref().filter(|_| !slot.parked)?;
        Some(Ready { sender: slot.sender(), authorization: token.authorization() })
    };
    let standby = || slot.standby.and_then(|position| all.get(position)).and_then(now);
    let reason = if slot.token.is_some() { Reason::TokenParked } else { Reason::TokenUnavailable };
    now(slot).or_else(standby).ok_or(reason)
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

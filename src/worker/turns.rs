//! The turns of requests: the quota broker, shared by all threads ([`crate::quota`]).
//!
//! 1. A request that is sent to Metrica holds a [`Turn`] from before its first byte is sent until the last byte of its response
//!    was read. A turn that is dropped after its request was sent keeps its slot for a moment, because Metrica may still
//!    compute the response.
//! 2. A lock is held for one call of the broker, which does no I/O. Without a `quota` in the configuration there is no broker
//!    and no lock.
//! 3. A waiting request is woken when its turn comes, or when it is refused. One task watches the clock ([`Turns::run`]).

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use metrica::error_type::ErrorType;
use rustc_hash::FxHashMap;
use tokio::sync::Notify;

use super::Worker;
pub use super::quota_numbers::{CallerNumbers, QuotaNumbers};
use crate::quota::{
    After, Answer, BadCounts, Broker, Lease, Micros, Next, Now, Outcome, QuotaSnapshot, Reason, Refusal, Request,
    SavedCounts, Settings, Taken, Ticket,
};
use crate::upstream::Pass;

/// The longest sleep of [`Turns::run`] while requests wait, so that a restart of the day or the hour is seen.
const LONGEST_SLEEP: Duration = Duration::from_secs(30);

/// A reading of the wall clock is used for this long: it only tells the day and the hour, so a call reads one clock.
const WALL_CLOCK: Micros = 100_000;

/// The quota broker, shared by all threads.
#[derive(Debug)]
pub struct Turns {
    inner: Mutex<Inner>,
    start: Instant,
    /// The next time of [`Turns::run`] is earlier than it knows.
    changed: Notify,
    /// There is something to tell the store of the fleet.
    orders: Notify,
}

#[derive(Debug)]
struct Inner {
    broker: Broker,
    wakers: FxHashMap<Ticket, Waker>,
    /// The time for which [`Turns::run`] sleeps.
    armed: Option<Micros>,
    /// The latest reading of both clocks.
    read: Now,
}

impl Inner {
    /// The time of both clocks, where the monotonic one shows `at`.
    fn now(&mut self, at: Micros) -> Now {
        if at.saturating_sub(self.read.at) >= WALL_CLOCK {
            self.read = Now { at, unix: unix() };
        }
        Now { at, unix: self.read.unix }
    }
}

impl Default for Turns {
    fn default() -> Self {
        Self::new(&Settings::default())
    }
}

impl Turns {
    /// A broker that has counted nothing yet.
    #[must_use]
    pub fn new(settings: &Settings) -> Self {
        let start = Instant::now();
        let read = Now { at: 0, unix: unix() };
        let broker = Broker::new(settings, read);
        let inner = Inner { broker, wakers: FxHashMap::default(), armed: None, read };
        Self { inner: Mutex::new(inner), start, changed: Notify::new(), orders: Notify::new() }
    }

    /// Calls `then` with the broker, and wakes the requests whose turn came (rule 3).
    fn with<T>(&self, then: impl FnOnce(&mut Broker, Now) -> T) -> T {
        self.with_at(self.at(), then)
    }

    fn with_at<T>(&self, at: Micros, then: impl FnOnce(&mut Broker, Now) -> T) -> T {
        let mut inner = self.lock();
        let now = inner.now(at);
        let result = then(&mut inner.broker, now);
        if !inner.broker.is_quiet() {
            self.settle(&mut inner);
        }
        result
    }

    /// The monotonic clock.
    fn at(&self) -> Micros {
        self.at_of(Instant::now())
    }

    fn at_of(&self, now: Instant) -> Micros {
        micros(now.saturating_duration_since(self.start))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A panic while the lock is held ends the process (`panic = "abort"`), or a test.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn settle(&self, inner: &mut Inner) {
        let Inner { broker, wakers, armed, .. } = inner;
        for ticket in broker.woken() {
            wakers.remove(&ticket).into_iter().for_each(Waker::wake);
        }
        if broker.has_orders() {
            self.orders.notify_one();
        }
        let next = broker.next();
        if next.is_some_and(|next| armed.is_none_or(|armed| next < armed)) {
            *armed = next;
            self.changed.notify_one();
        }
    }

    /// Changes the configuration, and returns the numbers of its names.
    pub fn configure<T>(&self, settings: &Settings, numbers: impl FnOnce(&Broker) -> T) -> T {
        self.with(|broker, now| {
            broker.configure(settings, now);
            numbers(broker)
        })
    }

    /// Asks for a turn, at `now`: granted at once, or after a wait.
    ///
    /// # Errors
    /// The refusal.
    pub fn ask(self: &Arc<Self>, request: Request, now: Instant) -> Result<Asked, Refusal> {
        let answer = {
            let at = self.at_of(now);
            let mut inner = self.lock();
            let now = inner.now(at);
            let answer = inner.broker.ask(now, request);
            if !inner.broker.is_quiet() {
                self.settle(&mut inner);
            }
            answer
        };
        match answer {
            Answer::Granted(lease) => Ok(Asked::Granted(Turn::new(self.clone(), lease))),
            Answer::Wait(ticket) => Ok(Asked::Waits(Waiting { turns: self.clone(), ticket: Some(ticket) })),
            Answer::Refused(refusal) => Err(refusal),
        }
    }

    #[cold]
    fn give_up(&self, lease: Lease, was_sent: bool) {
        self.with(|broker, now| {
            if was_sent {
                broker.abandon(lease, now);
            } else {
                // Only a refusal has a sequel.
                let _ = broker.finish(lease, now, Outcome::NotSent);
            }
        });
    }

    /// Watches the clock: grants and refuses what is due.
    pub async fn run(&self) {
        loop {
            let next = {
                let at = self.at();
                let mut inner = self.lock();
                let now = inner.now(at);
                let next = inner.broker.due(now);
                inner.armed = next;
                self.settle(&mut inner);
                next.map(|next| self.start + Duration::from_micros(next))
            };
            match next {
                Some(at) => {
                    let sleep = at.saturating_duration_since(Instant::now()).min(LONGEST_SLEEP);
                    // Whether time passed or something changed, the broker is asked.
                    let _ = tokio::time::timeout(sleep, self.changed.notified()).await;
                }
                None => self.changed.notified().await,
            }
        }
    }

    /// Acts on the broker, for the store of the fleet ([`Broker::join_fleet`]).
    pub fn of_fleet<T>(&self, act: impl FnOnce(&mut Broker, Now) -> T) -> T {
        self.with(act)
    }

    /// Waits until there is something to tell the store.
    pub async fn orders(&self) {
        self.orders.notified().await;
    }

    /// The time of the next call of the store, if one is due without an order.
    #[must_use]
    pub fn next_store_call(&self) -> Option<Instant> {
        self.lock().broker.next_call().map(|next| self.start + Duration::from_micros(next))
    }

    /// Refuses every waiting request: the gate stops.
    pub fn drain(&self) {
        self.with(Broker::drain);
    }

    /// The state, for the admin listener and the metrics.
    #[must_use]
    pub fn snapshot(&self) -> QuotaSnapshot {
        self.with(|broker, now| {
            let _ = broker.due(now);
            broker.snapshot()
        })
    }

    /// The counts of the day, for the next process.
    #[must_use]
    pub fn save(&self) -> SavedCounts {
        self.with(Broker::save)
    }

    /// Adopts the counts of an earlier process.
    ///
    /// # Errors
    /// [`BadCounts`] if they are not of today, or not valid.
    pub fn restore(&self, saved: &SavedCounts) -> Result<(), BadCounts> {
        self.with(|broker, now| broker.restore(saved, now))
    }
}

/// The time as the broker counts it, in 64 bits, which hold half a million years.
#[must_use]
pub fn micros(time: Duration) -> Micros {
    time.as_secs().saturating_mul(1_000_000).saturating_add(u64::from(time.subsec_micros()))
}

/// The wall clock, in seconds since 1970.
fn unix() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// The result of [`Turns::ask`].
#[derive(Debug)]
pub enum Asked {
    /// The request may be sent.
    Granted(Turn),
    /// The request waits.
    Waits(Waiting),
}

/// A request that waits for its turn. Dropping it gives the wait up.
#[derive(Debug)]
pub struct Waiting {
    turns: Arc<Turns>,
    ticket: Option<Ticket>,
}

impl Future for Waiting {
    type Output = Result<Turn, Refusal>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(ticket) = self.ticket else { return Poll::Ready(Err(OVER)) };
        let taken = {
            let mut inner = self.turns.lock();
            let taken = inner.broker.take(ticket);
            if taken == Taken::Waiting {
                inner.wakers.insert(ticket, context.waker().clone());
                return Poll::Pending;
            }
            inner.wakers.remove(&ticket);
            taken
        };
        self.ticket = None;
        Poll::Ready(match taken {
            Taken::Granted(lease) => Ok(Turn::new(self.turns.clone(), lease)),
            Taken::Refused(refusal) => Err(refusal),
            Taken::Waiting | Taken::Over => Err(OVER),
        })
    }
}

/// The refusal of a wait that is over already.
const OVER: Refusal =
    Refusal { limit: crate::quota::LimitName::Parallel, reason: Reason::Draining, after: After(1_000_000) };

impl Drop for Waiting {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket.take() {
            self.turns.lock().wakers.remove(&ticket);
            self.turns.with(|broker, now| broker.cancel(ticket, now));
        }
    }
}

/// The permission to send one request now (rule 1).
#[derive(Debug)]
#[must_use]
pub struct Turn {
    held: Option<(Arc<Turns>, Lease)>,
    was_sent: bool,
}

/// What follows a refusal by Metrica.
#[derive(Debug)]
pub enum AfterRefusal {
    /// The request is sent once more when its turn comes.
    Again(Waiting),
    /// The response goes to the caller, with this `Retry-After`.
    Pass(After),
}

impl Turn {
    const fn new(turns: Arc<Turns>, lease: Lease) -> Self {
        Self { held: Some((turns, lease)), was_sent: false }
    }

    /// The turn of a request that no quota limits, because the configuration has none.
    pub const fn unlimited() -> Self {
        Self { held: None, was_sent: false }
    }

    /// Whether a quota counts the request.
    #[must_use]
    pub const fn is_counted(&self) -> bool {
        self.held.is_some()
    }

    /// Records that the request is sent.
    pub const fn sent(&mut self) {
        self.was_sent = true;
    }

    /// Ends the turn: Metrica's response has ended, at `now`.
    pub fn done(mut self, now: Instant) {
        if let Some((turns, lease)) = self.held.take() {
            turns.with_at(turns.at_of(now), |broker, now| broker.done(lease, now));
        }
    }

    /// Ends the turn: Metrica refused the request because of a quota. `may_repeat` tells whether it can be sent again.
    #[must_use]
    pub fn refused(mut self, error_type: ErrorType, may_repeat: bool) -> Option<AfterRefusal> {
        let (turns, lease) = self.held.take()?;
        let outcome = Outcome::Refused { error_type, may_repeat };
        Some(match turns.with(|broker, now| broker.finish(lease, now, outcome)) {
            Next::Again(ticket) => AfterRefusal::Again(Waiting { turns, ticket: Some(ticket) }),
            Next::Pass(after) => AfterRefusal::Pass(after),
            Next::Over => return None,
        })
    }
}

impl Pass for Turn {}

impl Drop for Turn {
    #[inline]
    fn drop(&mut self) {
        if let Some((turns, lease)) = self.held.take() {
            turns.give_up(lease, self.was_sent);
        }
    }
}

impl Worker {
    /// Changes the number of bytes that requests hold while they wait for their turn, and returns it.
    pub fn waiting_bytes(&self, change: impl FnOnce(usize) -> usize) -> usize {
        self.waiting_bytes.set(change(self.waiting_bytes.get()));
        self.waiting_bytes.get()
    }
}

//! The requests that a worker has under way, for a shutdown that may cut them.
//!
//! 1. A request is likely to be cut when it is older than the remaining time: its remaining duration is estimated as its
//!    age. For a lengthy operation or an upload, a quarter of the remaining time is enough.
//! 2. Each such request is logged once, when it becomes likely; the current number is counted on demand.

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};
use std::time::Duration;

use metrica::operation::OperationId;
use tokio::time::Instant;

use super::RequestId;
use crate::policy::names::CallerId;

/// A request that is under way, as its worker sees it.
pub trait Underway {
    /// The state of the request.
    fn progress(&self, now: Instant) -> Progress;
    /// The id of the request, for logs.
    fn request_id(&self) -> &RequestId;
}

/// The state of a request.
#[derive(Debug, Clone, Copy)]
pub struct Progress {
    /// The caller, if known.
    pub caller: Option<CallerId>,
    /// The operation, if known.
    pub operation: Option<OperationId>,
    /// The time since the request began.
    pub age: Duration,
    /// Whether the response has begun.
    pub is_answered: bool,
    /// Whether the request was received completely.
    pub is_complete: bool,
    /// Whether the response can take minutes, or the body can be large.
    pub is_lengthy: bool,
}

impl Progress {
    /// Whether the request is likely to outlive the remaining time (rule 1).
    const fn will_outlive(&self, left: Duration) -> bool {
        let weight = if self.is_lengthy { 4 } else { 1 };
        self.age.saturating_mul(weight).as_nanos() >= left.as_nanos()
    }

    /// The part that the request waits for: its own rest, Metrica, or the rest of the response.
    const fn waits_for(&self) -> &'static str {
        match (self.is_answered, self.is_complete) {
            (true, _) => "answer",
            (false, true) => "metrica",
            (false, false) => "request",
        }
    }
}

/// The requests of one worker.
#[derive(Default)]
pub struct UnderWay {
    places: RefCell<Places>,
    ends: Cell<Option<Instant>>,
}

#[derive(Default)]
struct Places {
    taken: Vec<Option<Under>>,
    free: Vec<usize>,
}

struct Under {
    exchange: Weak<dyn Underway>,
    is_named: bool,
}

/// The maximum number of requests logged at once; the others are counted.
const NAMED: usize = 20;

impl UnderWay {
    /// Registers a request, and returns its place.
    pub fn enter(&self, exchange: Weak<dyn Underway>) -> usize {
        let Places { taken, free } = &mut *self.places.borrow_mut();
        let under = Some(Under { exchange, is_named: false });
        if let Some(place) = free.pop()
            && let Some(empty) = taken.get_mut(place)
        {
            *empty = under;
            return place;
        }
        taken.push(under);
        taken.len() - 1
    }

    /// Removes the request at this place.
    pub fn leave(&self, place: usize) {
        let Places { taken, free } = &mut *self.places.borrow_mut();
        if let Some(under) = taken.get_mut(place) {
            *under = None;
            free.push(place);
        }
    }

    /// Sets when requests under way are cut.
    pub fn ends(&self, at: Instant) {
        self.ends.set(Some(at));
    }

    /// The number of requests that are likely to be cut.
    #[must_use]
    pub fn likely(&self) -> usize {
        self.select(|_| true).len()
    }

    /// Logs the requests that have become likely to be cut.
    pub fn name(&self) {
        let new = self.select(|under| !std::mem::replace(&mut under.is_named, true));
        let now = Instant::now();
        for exchange in new.iter().take(NAMED) {
            let progress = exchange.progress(now);
            let Progress { caller, operation, age, .. } = progress;
            tracing::warn!(
                request_id = exchange.request_id().as_str(),
                caller = caller.map_or("unknown", |caller| caller.as_str()),
                operation = operation.map_or("none", |operation| operation.as_str()),
                age = %humantime::format_duration(Duration::from_secs(age.as_secs())),
                waits_for = progress.waits_for(),
                "the request is likely to be cut at shutdown"
            );
        }
        if new.len() > NAMED {
            let requests = new.len() - NAMED;
            tracing::warn!(requests, "more requests are likely to be cut at shutdown");
        }
    }

    /// The requests that are likely to be cut now and that `wanted` accepts.
    fn select(&self, mut wanted: impl FnMut(&mut Under) -> bool) -> Vec<Rc<dyn Underway>> {
        let Some(ends) = self.ends.get() else { return Vec::new() };
        let now = Instant::now();
        // Dropping an exchange here would call `leave` during the borrow.
        let mut places = self.places.borrow_mut();
        let under = places.taken.iter_mut().flatten();
        let likely = under.filter_map(|under| {
            let exchange = under.exchange.upgrade()?;
            Some((exchange, under)).filter(|(exchange, _)| exchange.progress(now).will_outlive(ends - now))
        });
        likely.filter_map(|(exchange, under)| wanted(under).then_some(exchange)).collect()
    }
}

/// The stage of a shutdown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ending {
    /// No shutdown is under way.
    Serving,
    /// The worker accepts and serves, and announces with every response that its connection ends.
    Leaving,
    /// The worker accepts no more connections, and open ones end after their request.
    Draining,
    /// Requests under way are cut.
    Cutting,
}

//! What a worker has under way, for a shutdown that may cut it.
//!
//! 1. A request is likely to outlive the end of the process when it is older than the time that is left: what has taken so long
//!    takes as long again. Where its answer can take minutes, or its body is an upload, a quarter of that is enough.
//! 2. Each is logged once, when it becomes likely; those that are likely now are counted whenever somebody asks.

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};
use std::time::Duration;

use metrica::operation::OperationId;
use tokio::time::Instant;

use super::RequestId;
use crate::names::CallerId;

/// A request that is under way, as its worker sees it.
pub trait Underway {
    /// Where it stands.
    fn progress(&self, now: Instant) -> Progress;
    /// Its name in logs.
    fn request_id(&self) -> &RequestId;
}

/// Where a request stands.
#[derive(Debug, Clone, Copy)]
pub struct Progress {
    /// Whose it is.
    pub caller: Option<CallerId>,
    /// What is asked.
    pub operation: Option<OperationId>,
    /// How long it has been under way.
    pub age: Duration,
    /// Its answer has begun.
    pub is_answered: bool,
    /// All of it has come.
    pub is_complete: bool,
    /// Its answer can take minutes, or its body can be large.
    pub is_lengthy: bool,
}

impl Progress {
    /// Rule 1.
    const fn will_outlive(&self, left: Duration) -> bool {
        let weight = if self.is_lengthy { 4 } else { 1 };
        self.age.saturating_mul(weight).as_nanos() >= left.as_nanos()
    }

    /// What it waits for: the rest of itself, Metrica, or the rest of the answer.
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

/// So many are named at once; the others are counted.
const NAMED: usize = 20;

impl UnderWay {
    /// One begins; its place.
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

    /// The one at this place is over.
    pub fn leave(&self, place: usize) {
        let Places { taken, free } = &mut *self.places.borrow_mut();
        if let Some(under) = taken.get_mut(place) {
            *under = None;
            free.push(place);
        }
    }

    /// What is under way then is cut.
    pub fn ends(&self, at: Instant) {
        self.ends.set(Some(at));
    }

    /// How many are likely to be cut.
    #[must_use]
    pub fn likely(&self) -> usize {
        self.select(|_| true).len()
    }

    /// Logs those that are likely to be cut and were not before.
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
                "the request is likely to be cut when the process ends"
            );
        }
        if new.len() > NAMED {
            let requests = new.len() - NAMED;
            tracing::warn!(requests, "more requests are likely to be cut when the process ends");
        }
    }

    /// Of those that are likely to be cut now, those that `wanted` wants.
    fn select(&self, mut wanted: impl FnMut(&mut Under) -> bool) -> Vec<Rc<dyn Underway>> {
        let Some(ends) = self.ends.get() else { return Vec::new() };
        let now = Instant::now();
        // Nothing is dropped here, which would leave its place.
        let mut places = self.places.borrow_mut();
        let under = places.taken.iter_mut().flatten();
        let likely = under.filter_map(|under| {
            let exchange = under.exchange.upgrade()?;
            Some((exchange, under)).filter(|(exchange, _)| exchange.progress(now).will_outlive(ends - now))
        });
        likely.filter_map(|(exchange, under)| wanted(under).then_some(exchange)).collect()
    }
}

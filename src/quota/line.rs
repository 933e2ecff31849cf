//! The waiting line of one owner: start-time fair queuing over callers (rules 5 and 6 of the module).

use std::collections::VecDeque;

use super::clock::{Clock, Micros, SECOND};
use super::entry::{Entries, Entry, Index};
use super::setup::{Caller, Class};
use strict_http::number;

/// A waiting request competes with the next better class after each of these.
const AGE: Micros = 10 * SECOND;
/// The last slot is kept from batch for this long after another class was served.
pub(super) const KEPT: Micros = 60 * SECOND;
/// The assumed seconds on a slot of a caller that was not measured yet.
const FIRST_MEAN: Micros = SECOND;
/// The window of a caller's budget of reports.
pub(super) const FIVE_MINUTES: Micros = 300 * SECOND;

/// One caller of one owner.
#[derive(Debug)]
pub(super) struct Flow {
    pub(super) caller: Caller,
    pub(super) waiting: VecDeque<Index>,
    /// The finish tag of its last request.
    finish: u64,
    /// Its measured mean time on a slot.
    pub(super) mean: Micros,
    pub(super) in_flight: u32,
    /// Requests of the day of this epoch.
    spent: u32,
    epoch: u32,
    /// What was spent when the gate began to use its part of a budget.
    pub(super) base: u32,
    /// The times of its requests in the last 5 minutes, if it has a budget of them.
    recent: VecDeque<Micros>,
    /// Requests since the start.
    pub(super) total: u64,
}

impl Flow {
    fn new(caller: Caller, mean: Micros) -> Self {
        Self {
            caller,
            waiting: VecDeque::new(),
            finish: 0,
            mean,
            in_flight: 0,
            spent: 0,
            epoch: 0,
            base: 0,
            recent: VecDeque::new(),
            total: 0,
        }
    }

    /// The requests of today.
    pub(super) const fn spent_today(&self, clock: &Clock) -> u32 {
        if self.epoch == clock.epoch(false) { self.spent } else { 0 }
    }

    /// Raises the requests of today to a number that was kept.
    pub(super) fn restore(&mut self, spent: u32, clock: &Clock) {
        self.spent = spent.max(self.spent_today(clock));
        self.epoch = clock.epoch(false);
    }

    /// Sets the requests of today.
    pub(super) fn set_spent(&mut self, spent: u32, clock: &Clock) {
        self.spent = spent;
        self.epoch = clock.epoch(false);
    }

    /// The time at which fewer than `most` requests were sent in the last 5 minutes.
    pub(super) fn recent_room(&mut self, most: u32, at: Micros) -> Micros {
        self.settle(at);
        let most = number::saturated::<usize>(most.max(1));
        let first = self.recent.len().checked_sub(most).and_then(|position| self.recent.get(position));
        first.map_or(0, |stamp| stamp.saturating_add(FIVE_MINUTES))
    }

    pub(super) fn recent(&mut self, at: Micros) -> usize {
        self.settle(at);
        self.recent.len()
    }

    fn settle(&mut self, at: Micros) {
        while self.recent.front().is_some_and(|stamp| stamp.saturating_add(FIVE_MINUTES) <= at) {
            self.recent.pop_front();
        }
    }

    fn charge(&mut self, clock: &Clock, per_5m: Option<u32>) {
        self.spent = self.spent_today(clock).saturating_add(1);
        self.epoch = clock.epoch(false);
        self.total = self.total.saturating_add(1);
        let Some(most) = per_5m else { return };
        self.settle(clock.at());
        // Budgets that are only observed may be exceeded; their count stops at twice the budget.
        if self.recent.len() >= number::saturated::<usize>(most).saturating_mul(2) {
            self.recent.pop_front();
        }
        self.recent.push_back(clock.at());
    }

    /// Gives back a request that was charged at `taken` in the day of `epoch` and never sent.
    fn give_back(&mut self, taken: Micros, epoch: u32) {
        if self.epoch == epoch {
            self.spent = self.spent.saturating_sub(1);
        }
        self.total = self.total.saturating_sub(1);
        if let Ok(position) = self.recent.binary_search(&taken) {
            self.recent.remove(position);
        }
    }
}

/// The line of one owner.
#[derive(Debug)]
pub(super) struct Line {
    /// Indexed by caller.
    flows: Vec<Option<Box<Flow>>>,
    /// The callers that wait.
    active: Vec<Caller>,
    pub(super) waiting: u32,
    /// The start tag of the request that was granted last.
    virtual_time: u64,
    pub(super) mean: Micros,
    /// The last time at which a request of another class than batch was served.
    served: Option<Micros>,
    /// The time at which the line has to be looked at again.
    pub(super) next: Option<Micros>,
}

impl Default for Line {
    fn default() -> Self {
        Self {
            flows: Vec::new(),
            active: Vec::new(),
            waiting: 0,
            virtual_time: 0,
            mean: FIRST_MEAN,
            served: None,
            next: None,
        }
    }
}

/// The order of service within a class: start tag, arrival. The smallest is served first.
pub(super) type Turn = (u64, u64);

impl Line {
    /// The flow of a caller, which may be new.
    #[inline]
    pub(super) fn flow(&mut self, caller: Caller) -> Option<&mut Flow> {
        let index = caller.index();
        if !matches!(self.flows.get(index), Some(Some(_))) {
            self.add(caller);
        }
        self.flows.get_mut(index)?.as_deref_mut()
    }

    #[cold]
    fn add(&mut self, caller: Caller) {
        let index = caller.index();
        if self.flows.len() <= index {
            self.flows.resize_with(index + 1, || None);
        }
        if let Some(place) = self.flows.get_mut(index) {
            *place = Some(Box::new(Flow::new(caller, self.mean)));
        }
    }

    pub(super) fn known(&self, caller: Caller) -> Option<&Flow> {
        self.flows.get(caller.index())?.as_deref()
    }

    pub(super) fn flows(&mut self) -> impl Iterator<Item = &mut Flow> {
        self.flows.iter_mut().flatten().map(|flow| &mut **flow)
    }

    /// The callers that wait, each with its requests in the order of arrival.
    pub(super) fn queues(&self) -> impl Iterator<Item = &Flow> {
        self.active.iter().filter_map(|caller| self.known(*caller))
    }

    /// Every waiting request.
    pub(super) fn waiting_entries(&self) -> Vec<Index> {
        self.queues().flat_map(|flow| flow.waiting.iter().copied()).collect()
    }

    /// A request joins the queue of its caller, behind those that came before it.
    pub(super) fn enqueue(&mut self, caller: Caller, index: Index, entries: &Entries) {
        let Some(flow) = self.flow(caller) else { return };
        let was_idle = flow.waiting.is_empty();
        let order = |index: &Index| entries.get(*index).map(|entry| entry.order);
        // Nearly always the last; one that is sent again comes before all others.
        let position = flow.waiting.iter().rposition(|other| order(other) < order(&index));
        flow.waiting.insert(position.map_or(0, |position| position + 1), index);
        self.waiting = self.waiting.saturating_add(1);
        if was_idle {
            self.active.push(caller);
        }
    }

    /// Removes a request that waits; whether it did.
    pub(super) fn dequeue(&mut self, caller: Caller, index: Index) -> bool {
        let Some(flow) = self.flow(caller) else { return false };
        let Some(position) = flow.waiting.iter().position(|one| *one == index) else { return false };
        flow.waiting.remove(position);
        let is_idle = flow.waiting.is_empty();
        self.waiting = self.waiting.saturating_sub(1);
        if is_idle {
            self.active.retain(|one| *one != caller);
        }
        true
    }

    /// The start tag of the request at this position of a caller's queue.
    pub(super) fn tag(&self, flow: &Flow, position: usize, weight: u32) -> u64 {
        let ahead = number::saturated::<u64>(position).saturating_mul(step(flow.mean, weight));
        self.virtual_time.max(flow.finish).saturating_add(ahead)
    }

    /// Charges a request that begins.
    #[inline(always)]
    pub(super) fn begin(&mut self, caller: Caller, class: Class, weight: u32, per_5m: Option<u32>, clock: &Clock) {
        let virtual_time = self.virtual_time;
        let Some(flow) = self.flow(caller) else { return };
        let start = virtual_time.max(flow.finish);
        flow.finish = start.saturating_add(step(flow.mean, weight));
        flow.in_flight = flow.in_flight.saturating_add(1);
        flow.charge(clock, per_5m);
        self.virtual_time = start;
        self.serve(class, clock.at());
    }

    /// A request ended. `measured` is its time on a slot, unless that tells nothing.
    pub(super) fn end(&mut self, caller: Caller, class: Class, measured: Option<Micros>, at: Micros) {
        let Some(Some(flow)) = self.flows.get_mut(caller.index()) else { return };
        flow.in_flight = flow.in_flight.saturating_sub(1);
        if let Some(measured) = measured {
            flow.mean = average(flow.mean, measured);
            self.mean = average(self.mean, measured);
        }
        self.serve(class, at);
    }

    /// A request took no time on a slot. One that was never sent is not charged either; `charged` is when and in which day it
    /// was.
    pub(super) fn give_back(&mut self, caller: Caller, weight: u32, charged: Option<(Micros, u32)>) {
        let Some(flow) = self.flow(caller) else { return };
        flow.finish = flow.finish.saturating_sub(step(flow.mean, weight));
        if let Some((taken, epoch)) = charged {
            flow.give_back(taken, epoch);
        }
    }

    const fn serve(&mut self, class: Class, at: Micros) {
        if !matches!(class, Class::Batch) {
            self.served = Some(at);
        }
    }

    /// The time until which the last slot is kept from batch.
    pub(super) fn kept_until(&self) -> Micros {
        self.served.map_or(0, |served| served.saturating_add(KEPT))
    }
}

/// The turn of a waiting request within its class.
pub(super) fn turn(line: &Line, flow: &Flow, position: usize, entry: &Entry, weight: u32) -> Turn {
    (line.tag(flow, position, weight), entry.order)
}

/// Whether a request has waited so long that it competes with a better class on equal terms.
pub(super) fn is_aged(entry: &Entry, better: Class, at: Micros) -> bool {
    at.saturating_sub(entry.since) >= ageing(entry.class, better)
}

/// The wait after which one class competes with a better one.
pub(super) const fn ageing(class: Class, better: Class) -> Micros {
    AGE * class.rank().saturating_sub(better.rank())
}

/// The position of a request in its caller's queue.
pub(super) fn position(flow: &Flow, index: Index) -> usize {
    flow.waiting.iter().position(|one| *one == index).unwrap_or(flow.waiting.len())
}

/// The earliest deadline of a line.
pub(super) fn earliest_deadline(line: &Line, entries: &Entries) -> Option<Micros> {
    let deadlines = line.queues().flat_map(|flow| &flow.waiting).filter_map(|index| entries.get(*index));
    deadlines.map(|entry| entry.deadline).min()
}

pub(super) fn step(mean: Micros, weight: u32) -> u64 {
    (mean / u64::from(weight.max(1))).max(1)
}

const fn average(mean: Micros, measured: Micros) -> Micros {
    mean.saturating_mul(7).saturating_add(measured) / 8
}

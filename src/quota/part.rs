//! The part of one gate of a fleet that goes on without its store ([`super::fleet`], rule 2).

use super::budget::Callers;
use super::clock::{Clock, Micros};
use super::ledger::Ledger;
use super::limit::{Limit, LimitName, Limits, Shape};
use super::line::Line;
use super::meter::{Calendar, Meter};
use super::setup::Owner;

impl Limits {
    /// The part of one of `replicas` gates: of slots, rates and windows, at least one. Days and hours are divided by what is
    /// left of them ([`Ledger::cap`]).
    pub(super) fn with_part_of(mut self, replicas: u32) -> Self {
        if replicas > 1 {
            for limit in self.all_mut() {
                if matches!(limit.shape, Shape::Slots | Shape::PerSecond | Shape::Window(_)) {
                    limit.divide(replicas);
                }
            }
        }
        self
    }
}

impl Ledger {
    /// Lets this gate use its part of what is left of each day and hour; with one replica, all of it.
    pub(super) fn cap(&mut self, replicas: u32, callers: &mut Callers, lines: &mut [Line]) {
        let Self { clock, limits, owners, counters, .. } = self;
        counters.parts = replicas;
        let counters =
            counters.all().map(|counter| &mut counter.meters).flat_map(|meters| meters.iter_mut().zip(&limits.counter));
        for (meter, limit) in owners.iter_mut().flat_map(|meters| meters.iter_mut().zip(&limits.owner)).chain(counters)
        {
            meter.cap(limit, clock, replicas);
        }
        callers.divisor = replicas.max(1);
        for flow in lines.iter_mut().flat_map(Line::flows) {
            flow.base = flow.spent_today(clock);
        }
    }

    /// What is spent of an owner's day, as far as the gate knows.
    pub(super) fn spent_today(&mut self, owner: Owner) -> Option<u32> {
        let mut spent = None;
        self.day(owner, |limit, meter, clock| spent = Some(meter.used(limit, clock)));
        spent
    }

    pub(super) fn day(&mut self, owner: Owner, act: impl FnOnce(&Limit, &mut Meter, &Clock)) {
        let Some(meters) = self.owners.get_mut(owner.index()) else { return };
        let mut pairs = meters.iter_mut().zip(&self.limits.owner);
        if let Some((meter, limit)) = pairs.find(|(_, limit)| limit.name == LimitName::Day) {
            act(limit, meter, &self.clock);
        }
    }

    /// Sets what is spent of an owner's day to what the store knows.
    pub(super) fn set_today(&mut self, owner: Owner, spent: u32) {
        self.day(owner, |limit, meter, clock| {
            meter.set_spent(limit, clock, spent);
        });
    }
}

impl Calendar {
    /// The number that this gate may use.
    pub(super) const fn most(&self, limit: u32) -> u32 {
        match self.cap {
            // The part of a period that began later is a part of all of it.
            Some((_, replicas)) if self.capped_in != self.epoch => limit.div_ceil(replicas),
            Some((cap, _)) if cap < limit => cap,
            Some(_) | None => limit,
        }
    }
}

impl Meter {
    /// Lets this gate use one of so many parts of what is left of a day or an hour; of one part, all of it.
    pub(super) fn cap(&mut self, limit: &Limit, clock: &Clock, replicas: u32) {
        if let Self::Calendar(count) = self {
            count.settle(clock.epoch(limit.shape == Shape::PerHour));
            let left = limit.limit.saturating_sub(count.spent).div_ceil(replicas.max(1));
            count.cap = (replicas > 1).then(|| (count.spent.saturating_add(left), replicas));
            count.capped_in = count.epoch;
        }
    }

    /// Sets the count of a day or an hour.
    pub(super) fn set_spent(&mut self, limit: &Limit, clock: &Clock, spent: u32) {
        if let Self::Calendar(count) = self {
            count.settle(clock.epoch(limit.shape == Shape::PerHour));
            count.spent = spent;
        }
    }

    /// The time for which a refusal used the limit up, if it surely is.
    pub(super) const fn full_for(&self, limit: &Limit, clock: &Clock) -> Option<Micros> {
        match self {
            Self::Window(window) if window.full_until > clock.at() => Some(window.full_until - clock.at()),
            Self::Calendar(count) if count.is_full => {
                Some(clock.end(matches!(limit.shape, Shape::PerHour)).saturating_sub(clock.at()))
            }
            Self::Slots(_) | Self::Rate(_) | Self::Window(_) | Self::Calendar(_) => None,
        }
    }
}

//! One limit's count for one object, and what was learned about it (rules 1, 3 and 9 of the module).

use std::collections::VecDeque;

use super::clock::{Clock, Micros, SECOND};
use super::limit::{Limit, Shape};
use super::pause::Pause;
use strict_http::number;

/// A refusal of the last free slot, or of one more request than the gate counted, pauses for this long at first.
const PAUSE: Micros = SECOND;
/// One slot comes back after this long without a refusal.
const QUIET: Micros = 30 * SECOND;
/// The first pause before a probing request.
const PROBE: Micros = 30 * SECOND;
/// The longest pause before a probing request.
const LONGEST_PROBE: Micros = 960 * SECOND;
/// A rate that was slowed down rises once in this time.
const RISE: Micros = 60 * SECOND;

/// The count.
#[derive(Debug)]
pub(super) enum Meter {
    Slots(Slots),
    Rate(Rate),
    Window(Window),
    Calendar(Calendar),
}

/// Whether a count has room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Room {
    /// At this time; a time that has passed means now.
    At(Micros),
    /// When a slot is released.
    OnRelease,
}

#[derive(Debug, Default)]
pub(super) struct Slots {
    pub(super) in_use: u32,
    /// The ends of cancelled requests that Metrica may still compute, in order.
    leaving: VecDeque<Micros>,
    /// So many slots fewer than the limit.
    fewer: u32,
    changed: Micros,
    paused: Pause,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Rate {
    /// The theoretical arrival time of the next request.
    next: Micros,
    /// The learned speed, in percent.
    percent: u32,
    changed: Micros,
    paused_until: Micros,
}

#[derive(Debug)]
pub(super) struct Window {
    stamps: VecDeque<Micros>,
    pub(super) full_until: Micros,
    probe: Pause,
}

#[derive(Debug, Default)]
pub(super) struct Calendar {
    pub(super) epoch: u32,
    pub(super) spent: u32,
    pub(super) is_full: bool,
    /// Whether the count begins with the period.
    pub(super) is_known: bool,
    /// The part of one of several gates: where it ends, and the number of gates.
    pub(super) cap: Option<(u32, u32)>,
    /// The epoch of that end.
    pub(super) capped_in: u32,
    probe: Pause,
}

impl Slots {
    /// Releases and recovers what is due.
    fn settle(&mut self, at: Micros) {
        if self.fewer == 0 && self.leaving.is_empty() {
            return;
        }
        while self.leaving.front().is_some_and(|end| *end <= at) {
            self.leaving.pop_front();
            self.in_use = self.in_use.saturating_sub(1);
        }
        while self.fewer > 0 && at >= self.changed.saturating_add(QUIET) {
            self.fewer -= 1;
            self.changed = self.changed.saturating_add(QUIET);
        }
    }

    const fn effective(&self, limit: u32) -> u32 {
        let left = limit.saturating_sub(self.fewer);
        if left == 0 { 1 } else { left }
    }

    fn room(&mut self, limit: u32, reserve: u32, at: Micros) -> Room {
        self.settle(at);
        if self.in_use.saturating_add(reserve) < self.effective(limit) {
            return Room::At(self.paused.until);
        }
        let recovers = (self.fewer > 0).then(|| self.changed.saturating_add(QUIET));
        let next = self.leaving.front().copied().into_iter().chain(recovers).min();
        next.map_or(Room::OnRelease, Room::At)
    }

    /// Whether there surely is room for one more now, and nothing is to be settled.
    pub(super) fn is_free(&self, limit: u32) -> bool {
        self.in_use < limit && self.fewer == 0 && self.leaving.is_empty() && !self.paused.is_on()
    }

    fn refuse(&mut self, limit: u32, at: Micros) {
        self.settle(at);
        if self.effective(limit) > 1 {
            self.fewer += 1;
        } else {
            self.paused.refuse(at, PAUSE, QUIET);
        }
        self.changed = at;
    }
}

impl Rate {
    const fn new() -> Self {
        Self { next: 0, percent: 100, changed: 0, paused_until: 0 }
    }

    fn interval(&self, limit: u32) -> Micros {
        SECOND * 100 / (u64::from(limit.max(1)) * u64::from(self.percent))
    }

    fn settle(&mut self, at: Micros) {
        while self.percent < 100 && at >= self.changed.saturating_add(RISE) {
            self.percent = (self.percent + 10).min(100);
            self.changed = self.changed.saturating_add(RISE);
        }
    }

    fn room(&mut self, limit: &Limit, at: Micros, ahead: u32) -> Micros {
        if self.next <= at && self.percent == 100 && ahead == 0 {
            return self.paused_until;
        }
        self.settle(at);
        let interval = self.interval(limit.limit);
        // A second holds `burst - 1` requests more than the rate, so the documented number is never exceeded.
        let burst = if self.percent < 100 { 1 } else { limit.documented.saturating_sub(limit.limit).max(1) };
        let earlier = u64::from(burst - 1) * interval;
        let later = u64::from(ahead).saturating_mul(interval);
        self.next.saturating_sub(earlier).saturating_add(later).max(self.paused_until)
    }

    /// Whether there surely is room for one more now. A pause is over long before the full speed returns.
    pub(super) const fn is_free(&self, at: Micros) -> bool {
        self.next <= at && self.percent == 100
    }

    /// Takes one place where there [is](Self::is_free) one.
    pub(super) fn take_free(&mut self, limit: u32, at: Micros) {
        self.next = at + SECOND / u64::from(limit.max(1));
    }

    fn refuse(&mut self, at: Micros) {
        self.settle(at);
        if at >= self.paused_until {
            self.percent = (self.percent * 7 / 10).max(30);
            self.paused_until = at.saturating_add(PAUSE);
        }
        self.changed = at;
    }
}

impl Window {
    fn settle(&mut self, length: Micros, at: Micros) {
        while self.stamps.front().is_some_and(|stamp| stamp.saturating_add(length) <= at) {
            self.stamps.pop_front();
        }
    }

    /// The time at which the request after `ahead` others has room.
    fn room(&mut self, limit: u32, length: Micros, at: Micros, ahead: u32) -> Micros {
        self.settle(length, at);
        let own = self.full_until.max(self.probe.until);
        let limit = number::saturated::<usize>(limit.max(1));
        let before = self.stamps.len().saturating_add(number::saturated::<usize>(ahead));
        let Some(position) = before.checked_sub(limit) else { return own };
        let windows = number::saturated::<u64>(position / limit).saturating_add(1);
        // An observed limit may have more stamps than it allows; those are released first.
        let stamp = self.stamps.get(position % limit).copied().unwrap_or(at);
        stamp.saturating_add(length.saturating_mul(windows)).max(own)
    }

    /// Whether there surely is room for one more now.
    pub(super) fn is_free(&self, limit: u32, at: Micros) -> bool {
        let has_room = number::saturated::<u32>(self.stamps.len()) < limit;
        has_room && self.full_until <= at && !self.probe.is_on()
    }

    /// Takes one place where there [is](Self::is_free) one.
    pub(super) fn take_free(&mut self, at: Micros) {
        self.stamps.push_back(at);
    }

    fn take(&mut self, limit: u32, at: Micros) {
        // An observed limit is not kept; its count stops at twice the limit.
        if self.stamps.len() >= number::saturated::<usize>(limit).saturating_mul(2) {
            self.stamps.pop_front();
        }
        self.stamps.push_back(at);
    }
}

impl Calendar {
    /// Whether there surely is room for one more now, in this period.
    #[inline(always)]
    pub(super) const fn is_free(&self, limit: u32, epoch: u32) -> bool {
        self.epoch == epoch && self.spent < self.most(limit) && !self.is_full && !self.probe.is_on()
    }

    pub(super) const fn settle(&mut self, epoch: u32) {
        if self.epoch != epoch {
            // The first epoch that is seen begins in the middle of its period.
            let is_known = self.epoch != 0;
            *self = Self {
                epoch,
                spent: 0,
                is_full: false,
                is_known,
                cap: self.cap,
                capped_in: self.capped_in,
                probe: Pause::NONE,
            };
        }
    }
}

impl Meter {
    pub(super) fn new(limit: &Limit) -> Self {
        match limit.shape {
            Shape::Slots => Self::Slots(Slots::default()),
            Shape::PerSecond => Self::Rate(Rate::new()),
            Shape::Window(_) => {
                Self::Window(Window { stamps: VecDeque::new(), full_until: 0, probe: Pause::default() })
            }
            Shape::PerDay | Shape::PerHour => Self::Calendar(Calendar::default()),
        }
    }

    /// Whether there is room for one more, after `ahead` others and with `reserve` slots left free.
    pub(super) fn room(&mut self, limit: &Limit, clock: &Clock, ahead: u32, reserve: u32) -> Room {
        match (self, limit.shape) {
            (Self::Slots(slots), _) => slots.room(limit.limit, reserve, clock.at()),
            (Self::Rate(rate), _) => Room::At(rate.room(limit, clock.at(), ahead)),
            (Self::Window(window), Shape::Window(length)) => {
                Room::At(window.room(limit.limit, length, clock.at(), ahead))
            }
            (Self::Calendar(count), shape) => {
                let by_hour = shape == Shape::PerHour;
                count.settle(clock.epoch(by_hour));
                let is_full = count.is_full || count.spent >= count.most(limit.limit);
                Room::At(if is_full { clock.end(by_hour) } else { count.probe.until })
            }
            (Self::Window(_), _) => Room::At(0),
        }
    }

    /// Takes one place.
    pub(super) fn take(&mut self, limit: &Limit, clock: &Clock) {
        let at = clock.at();
        match self {
            Self::Slots(slots) => {
                slots.in_use = slots.in_use.saturating_add(1);
                slots.paused.begin(at);
            }
            Self::Rate(rate) => rate.next = rate.next.max(at).saturating_add(rate.interval(limit.limit)),
            Self::Window(window) => {
                window.take(limit.limit, at);
                window.probe.begin(at);
            }
            Self::Calendar(count) => {
                count.settle(clock.epoch(limit.shape == Shape::PerHour));
                count.spent = count.spent.saturating_add(1);
                count.probe.begin(at);
            }
        }
    }

    /// Gives back the place of a request that was taken at `taken` and never sent.
    pub(super) fn give_back(&mut self, limit: &Limit, clock: &Clock, taken: Micros, epoch: u32) {
        match self {
            Self::Slots(_) | Self::Rate(_) => {}
            Self::Window(window) => {
                if let Ok(position) = window.stamps.binary_search(&taken) {
                    window.stamps.remove(position);
                }
            }
            Self::Calendar(count) => {
                count.settle(clock.epoch(limit.shape == Shape::PerHour));
                if count.epoch == epoch {
                    count.spent = count.spent.saturating_sub(1);
                }
            }
        }
    }

    /// Releases a slot, at once or at a later time.
    pub(super) fn release(&mut self, later: Option<Micros>) {
        if let Self::Slots(slots) = self {
            match later {
                Some(end) => slots.leaving.push_back(end),
                None => slots.in_use = slots.in_use.saturating_sub(1),
            }
        }
    }

    /// Whether the gate itself has spent four fifths of the limit.
    pub(super) fn is_high(&mut self, limit: &Limit, clock: &Clock) -> bool {
        u64::from(self.used(limit, clock)) * 5 >= u64::from(limit.limit) * 4
    }

    /// Metrica refused a request because of this limit. `is_certain` means that the limit is used up, and not only perhaps.
    pub(super) fn refuse(&mut self, limit: &Limit, clock: &Clock, is_certain: bool) {
        let at = clock.at();
        match self {
            Self::Slots(slots) => slots.refuse(limit.limit, at),
            Self::Rate(rate) => rate.refuse(at),
            Self::Window(window) if is_certain => {
                if let Shape::Window(length) = limit.shape {
                    window.full_until = at.saturating_add(length);
                }
            }
            Self::Window(window) => window.probe.refuse(at, PROBE, LONGEST_PROBE),
            Self::Calendar(count) => {
                count.settle(clock.epoch(limit.shape == Shape::PerHour));
                if is_certain {
                    count.is_full = true;
                } else {
                    count.probe.refuse(at, PROBE, LONGEST_PROBE);
                }
            }
        }
    }

    /// Metrica did not refuse a request that began at `started`. Returns whether that ends a pause.
    pub(super) const fn fine(&mut self, started: Micros) -> bool {
        match self {
            Self::Slots(slots) => slots.paused.fine(started),
            Self::Rate(_) => false,
            Self::Window(window) => window.probe.fine(started),
            Self::Calendar(count) => count.probe.fine(started),
        }
    }

    /// The number that is used now; for a rate, the number of requests ahead of its pace.
    pub(super) fn used(&mut self, limit: &Limit, clock: &Clock) -> u32 {
        match (self, limit.shape) {
            (Self::Slots(slots), _) => {
                slots.settle(clock.at());
                slots.in_use
            }
            (Self::Rate(rate), _) => {
                let ahead = rate.next.saturating_sub(clock.at()) / rate.interval(limit.limit).max(1);
                number::saturated::<u32>(ahead)
            }
            (Self::Window(window), Shape::Window(length)) => {
                window.settle(length, clock.at());
                number::saturated::<u32>(window.stamps.len())
            }
            (Self::Calendar(count), shape) => {
                count.settle(clock.epoch(shape == Shape::PerHour));
                count.spent
            }
            (Self::Window(_), _) => 0,
        }
    }

    /// The number that is allowed now, and whether that was learned.
    pub(super) fn effective(&mut self, limit: &Limit, clock: &Clock) -> (u32, bool) {
        let used = self.used(limit, clock);
        let at = clock.at();
        match self {
            Self::Slots(slots) => (slots.effective(limit.limit), slots.fewer > 0 || slots.paused.is_on()),
            Self::Rate(rate) => {
                rate.settle(at);
                ((limit.limit.saturating_mul(rate.percent) / 100).max(1), rate.percent < 100)
            }
            Self::Window(window) if at < window.full_until => (used.min(limit.limit), true),
            Self::Window(window) => (limit.limit, window.probe.is_on()),
            Self::Calendar(count) if count.is_full => (used.min(limit.limit), true),
            Self::Calendar(count) => (limit.limit, count.probe.is_on()),
        }
    }
}

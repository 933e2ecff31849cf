//! The ledger: every count, checked together and taken together (rule 1 of the module).

use super::clock::{Clock, Micros, Now};
use super::counters::{Counter, CounterTable, Counters};
use super::limit::{Groups, Limit, LimitName, Limits, Mode, Shape};
use super::meter::{Meter, Room};
use super::setup::{Egress, Owner};

/// Few requests are of these kinds, whose limits are small: they never take the [short way](Ledger::take_free).
const RARE: Groups = Groups::LOGS.with(Groups::GRANTS).with(Groups::DELEGATES);

/// What one request takes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Charge<'a> {
    pub(super) owner: Owner,
    pub(super) egress: Egress,
    pub(super) groups: Groups,
    pub(super) counters: &'a Counters,
}

/// The limit that a request waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Block {
    pub(super) limit: LimitName,
    pub(super) room: Room,
    /// Whether it is the caller's budget and not the limit itself.
    pub(super) is_budget: bool,
}

impl Block {
    /// The time at which the limit has room, unless that depends on a release.
    pub(super) const fn until(&self) -> Option<Micros> {
        match self.room {
            Room::At(at) => Some(at),
            Room::OnRelease => None,
        }
    }

    /// Whether a time is known and the limit does not count slots, which may be released earlier.
    pub(super) fn is_certain(&self) -> bool {
        self.limit != LimitName::Parallel && self.until().is_some()
    }

    /// The one of two that ends later; a time is known better than a release.
    fn later(self, other: Option<Self>) -> Self {
        match other {
            Some(other) if other.is_certain() && (!self.is_certain() || other.until() > self.until()) => other,
            Some(_) | None => self,
        }
    }
}

/// The later of two blocks.
pub(super) fn later(one: Option<Block>, other: Option<Block>) -> Option<Block> {
    one.map_or(other, |one| Some(one.later(other)))
}

#[derive(Debug)]
pub(super) struct Ledger {
    pub(super) clock: Clock,
    pub(super) limits: Limits,
    pub(super) owners: Vec<[Meter; 4]>,
    pub(super) egresses: Vec<[Meter; 2]>,
    pub(super) counters: CounterTable,
    /// Requests that an observed limit would have made wait, in the order of [`LimitName::ALL`].
    pub(super) observed: [u64; LimitName::ALL.len()],
    /// Whether anything was ever learned: before that, no request can end a pause.
    pub(super) has_learned: bool,
    /// Refusals by Metrica from which something was learned, in the same order.
    pub(super) learned: [u64; LimitName::ALL.len()],
}

/// The places of one limit's name in an array of all.
pub(super) fn count(counts: &mut [u64; LimitName::ALL.len()], name: LimitName) {
    if let Some((count, _)) = counts.iter_mut().zip(LimitName::ALL).find(|(_, other)| **other == name) {
        *count = count.saturating_add(1);
    }
}

impl Ledger {
    pub(super) fn new(limits: Limits, now: Now) -> Self {
        Self {
            clock: Clock::new(now),
            limits,
            owners: Vec::new(),
            egresses: Vec::new(),
            counters: CounterTable::default(),
            observed: [0; LimitName::ALL.len()],
            has_learned: false,
            learned: [0; LimitName::ALL.len()],
        }
    }

    /// Adds what the configuration names: `owners` and `egresses` in all.
    pub(super) fn grow(&mut self, owners: usize, egresses: usize) {
        let Limits { owner, egress, .. } = &self.limits;
        self.owners.resize_with(owners.max(self.owners.len()), || owner.each_ref().map(Meter::new));
        self.egresses.resize_with(egresses.max(self.egresses.len()), || egress.each_ref().map(Meter::new));
    }

    /// The limit that makes a request wait now, if any. Takes nothing.
    pub(super) fn blocked(&mut self, charge: &Charge<'_>, reserve: u32) -> Option<Block> {
        let Self { clock, limits, owners, egresses, counters, .. } = self;
        let mut found = None;
        if let Some(meters) = owners.get_mut(charge.owner.index()) {
            add_blocks(&mut found, &limits.owner, meters, charge.groups, clock, reserve);
        }
        if let Some(meters) = egresses.get_mut(charge.egress.index()) {
            add_blocks(&mut found, &limits.egress, meters, charge.groups, clock, 0);
        }
        for id in charge.counters.ids() {
            if let Some(counter) = counters.get_mut(*id) {
                add_blocks(&mut found, &limits.counter, &mut counter.meters, charge.groups, clock, 0);
            }
        }
        found
    }

    /// The time at which one limit has room after `ahead` other requests.
    pub(super) fn room_after(&mut self, charge: &Charge<'_>, name: LimitName, ahead: u32) -> Option<Micros> {
        let Self { clock, limits, owners, egresses, .. } = self;
        let owner = owners.get_mut(charge.owner.index()).map(|meters| (&limits.owner[..], &mut meters[..]));
        let egress = egresses.get_mut(charge.egress.index()).map(|meters| (&limits.egress[..], &mut meters[..]));
        let pairs = owner.into_iter().chain(egress).flat_map(|(limits, meters)| limits.iter().zip(meters));
        let (limit, meter) = pairs.into_iter().find(|(limit, _)| limit.name == name && limit.holds(charge.groups))?;
        match meter.room(limit, clock, ahead, 0) {
            Room::At(at) => Some(at),
            Room::OnRelease => None,
        }
    }

    /// Takes a place of every limit, if each surely has one: of the five that count nearly all requests. `false`, and nothing
    /// taken, where it takes more to find out, so that [`blocked`](Self::blocked) does: after a refusal by Metrica, in a burst,
    /// at the end of a period, for a kind of request with a limit of its own.
    #[inline(always)]
    pub(super) fn take_free(&mut self, charge: &Charge<'_>) -> bool {
        let Self { clock, limits, owners, egresses, counters, .. } = self;
        let Charge { owner, egress, groups, counters: named } = *charge;
        let ([parallel, reports_5m, day, _], [by_ip, _], [counter_day, _]) =
            (&limits.owner, &limits.egress, &limits.counter);
        let Some([Meter::Slots(slots), Meter::Window(reports), Meter::Calendar(of_owner), _]) =
            owners.get_mut(owner.index())
        else {
            return false;
        };
        let Some([Meter::Rate(rate), _]) = egresses.get_mut(egress.index()) else { return false };
        let counter = match named.ids() {
            [] => None,
            [id] => match counters.get_mut(*id) {
                Some(Counter { meters: [Meter::Calendar(of_counter), _], touched }) => Some((of_counter, touched)),
                Some(_) | None => return false,
            },
            _ => return false,
        };
        let (at, today) = (clock.at(), clock.epoch(false));
        let (is_slot, is_report, is_of_day) = (parallel.counts(groups), reports_5m.counts(groups), day.counts(groups));
        let (is_of_ip, is_of_counter) = (by_ip.counts(groups), counter_day.counts(groups));
        let is_free = !groups.meets(RARE)
            && (!is_slot || slots.is_free(parallel.limit))
            && (!is_report || reports.is_free(reports_5m.limit, at))
            && (!is_of_day || of_owner.is_free(day.limit, today))
            && (!is_of_ip || rate.is_free(at))
            && counter.as_ref().is_none_or(|(count, _)| !is_of_counter || count.is_free(counter_day.limit, today));
        if !is_free {
            return false;
        }
        if is_slot {
            slots.in_use += 1;
        }
        if is_report {
            reports.take_free(at);
        }
        if is_of_day {
            of_owner.spent += 1;
        }
        if is_of_ip {
            rate.take_free(by_ip.limit, at);
        }
        if let Some((count, touched)) = counter {
            *touched = at;
            if is_of_counter {
                count.spent += 1;
            }
        }
        true
    }

    /// Takes a place of every limit.
    pub(super) fn take(&mut self, charge: &Charge<'_>) {
        let Self { clock, limits, owners, egresses, counters, observed, .. } = self;
        if let Some(meters) = owners.get_mut(charge.owner.index()) {
            take_all(&limits.owner, meters, charge.groups, clock, observed);
        }
        if let Some(meters) = egresses.get_mut(charge.egress.index()) {
            take_all(&limits.egress, meters, charge.groups, clock, observed);
        }
        for id in charge.counters.ids() {
            let counter = counters.touch(*id, &limits.counter, clock);
            take_all(&limits.counter, &mut counter.meters, charge.groups, clock, observed);
        }
    }

    /// Gives back what a request took that was never sent.
    pub(super) fn give_back(&mut self, charge: &Charge<'_>, taken: Micros, epochs: Epochs) {
        self.each(charge, |limit, meter, clock| {
            let epoch = if limit.shape == Shape::PerHour { epochs.hour } else { epochs.day };
            meter.give_back(limit, clock, taken, epoch);
        });
    }

    /// Metrica did not refuse a request that began at `started`. Returns whether that ends a pause, of which there is none
    /// before anything was learned.
    pub(super) fn fine(&mut self, charge: &Charge<'_>, started: Micros) -> bool {
        let mut ends = false;
        self.each(charge, |_, meter, _| ends |= meter.fine(started));
        ends
    }

    fn each(&mut self, charge: &Charge<'_>, mut act: impl FnMut(&Limit, &mut Meter, &Clock)) {
        let Self { clock, limits, owners, egresses, counters, .. } = self;
        let mut all = |limits: &[Limit], meters: &mut [Meter]| {
            for (limit, meter) in limits.iter().zip(meters).filter(|(limit, _)| limit.counts(charge.groups)) {
                act(limit, meter, clock);
            }
        };
        if let Some(meters) = owners.get_mut(charge.owner.index()) {
            all(&limits.owner, meters);
        }
        if let Some(meters) = egresses.get_mut(charge.egress.index()) {
            all(&limits.egress, meters);
        }
        for id in charge.counters.ids() {
            all(&limits.counter, &mut counters.touch(*id, &limits.counter, clock).meters);
        }
    }

    /// The slots of an owner that are allowed now.
    pub(super) fn slots(&mut self, owner: Owner) -> u32 {
        let pair = self.owners.get_mut(owner.index()).into_iter().flatten().zip(&self.limits.owner);
        let mut slots = pair.into_iter().filter(|(_, limit)| limit.name == LimitName::Parallel);
        slots.next().map_or(u32::MAX, |(meter, limit)| match limit.mode {
            Mode::Enforce => meter.effective(limit, &self.clock).0,
            Mode::Observe | Mode::Off => u32::MAX,
        })
    }

    /// The slots of an owner that are used now.
    pub(super) fn in_use(&mut self, owner: Owner) -> u32 {
        let pairs = self.owners.get_mut(owner.index()).into_iter().flatten().zip(&self.limits.owner);
        let mut slots = pairs.into_iter().filter(|(_, limit)| limit.name == LimitName::Parallel);
        slots.next().map_or(0, |(meter, limit)| meter.used(limit, &self.clock))
    }

    /// Releases the slot of a request, at once or at a later time.
    pub(super) fn release(&mut self, owner: Owner, groups: Groups, later: Option<Micros>) {
        let ([parallel, ..], Some([slots, ..])) = (&self.limits.owner, self.owners.get_mut(owner.index())) else {
            return;
        };
        if parallel.counts(groups) {
            slots.release(later);
        }
    }

    pub(super) const fn epochs(&self) -> Epochs {
        Epochs { day: self.clock.epoch(false), hour: self.clock.epoch(true) }
    }
}

/// The day and the hour in which something was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Epochs {
    pub(super) day: u32,
    pub(super) hour: u32,
}

const fn has_room(room: Room, clock: &Clock) -> bool {
    match room {
        Room::At(at) => at <= clock.at(),
        Room::OnRelease => false,
    }
}

fn add_blocks<const COUNT: usize>(
    found: &mut Option<Block>,
    limits: &[Limit; COUNT],
    meters: &mut [Meter; COUNT],
    groups: Groups,
    clock: &Clock,
    reserve: u32,
) {
    for (limit, meter) in limits.iter().zip(meters) {
        if !limit.holds(groups) {
            continue;
        }
        let room = meter.room(limit, clock, 0, reserve);
        if !has_room(room, clock) {
            *found = later(*found, Some(Block { limit: limit.name, room, is_budget: false }));
        }
    }
}

fn take_all<const COUNT: usize>(
    limits: &[Limit; COUNT],
    meters: &mut [Meter; COUNT],
    groups: Groups,
    clock: &Clock,
    observed: &mut [u64; LimitName::ALL.len()],
) {
    for (limit, meter) in limits.iter().zip(meters) {
        if !limit.counts(groups) {
            continue;
        }
        if limit.mode == Mode::Observe && !has_room(meter.room(limit, clock, 0, 0), clock) {
            count(observed, limit.name);
        }
        meter.take(limit, clock);
    }
}

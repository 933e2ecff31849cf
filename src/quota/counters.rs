//! The counters that requests name: a bounded table (rule 4 of the module).

use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::clock::{Clock, Micros};
use super::limit::Limit;
use super::meter::Meter;

/// The maximum number of counters that the table remembers.
pub(super) const MOST: usize = 4096;
/// One in this many is forgotten when the table is full.
const FORGOTTEN: usize = 4;

/// The counters that one request names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counters(Ids);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Ids {
    None,
    One(u64),
    Few(u8, [u64; 3]),
    Many(Arc<[u64]>),
}

impl Default for Counters {
    fn default() -> Self {
        Self::NONE
    }
}

impl Counters {
    /// No counter.
    pub const NONE: Self = Self(Ids::None);

    /// Copies the ids. Up to three need no allocation.
    #[must_use]
    #[inline]
    pub fn of(ids: &[u64]) -> Self {
        Self(match *ids {
            [] => Ids::None,
            [id] => Ids::One(id),
            [first, second] => Ids::Few(2, [first, second, 0]),
            [first, second, third] => Ids::Few(3, [first, second, third]),
            _ => Ids::Many(ids.into()),
        })
    }

    /// The ids.
    #[must_use]
    pub fn ids(&self) -> &[u64] {
        match &self.0 {
            Ids::None => &[],
            Ids::One(id) => std::slice::from_ref(id),
            Ids::Few(count, ids) => ids.get(..usize::from(*count)).unwrap_or(ids),
            Ids::Many(ids) => ids,
        }
    }
}

/// The counts of one counter.
#[derive(Debug)]
pub(super) struct Counter {
    pub(super) meters: [Meter; 2],
    pub(super) touched: Micros,
}

/// The counts of every counter that was named lately.
#[derive(Debug, Default)]
pub(super) struct CounterTable {
    known: FxHashMap<u64, Counter>,
    /// A new counter may use one part of so many; 0 and 1 mean all of it.
    pub(super) parts: u32,
    pub(super) forgotten: u64,
}

impl CounterTable {
    pub(super) fn len(&self) -> usize {
        self.known.len()
    }

    /// Every counter.
    pub(super) fn all(&mut self) -> impl Iterator<Item = &mut Counter> {
        self.known.values_mut()
    }

    /// Every counter with its id.
    pub(super) fn numbered(&mut self) -> impl Iterator<Item = (u64, &mut Counter)> {
        self.known.iter_mut().map(|(id, counter)| (*id, counter))
    }

    pub(super) fn get_mut(&mut self, id: u64) -> Option<&mut Counter> {
        self.known.get_mut(&id)
    }

    /// The counts of a counter, which may be new.
    pub(super) fn touch(&mut self, id: u64, limits: &[Limit; 2], clock: &Clock) -> &mut Counter {
        if self.known.len() >= MOST && !self.known.contains_key(&id) {
            self.forget(limits, clock);
        }
        let parts = self.parts;
        let meter = |limit: &Limit| {
            let mut meter = Meter::new(limit);
            if parts > 1 {
                meter.cap(limit, clock, parts);
            }
            meter
        };
        let new = || Counter { meters: limits.each_ref().map(meter), touched: 0 };
        let counter = self.known.entry(id).or_insert_with(new);
        counter.touch(clock);
        counter
    }

    /// Forgets those that matter least: nothing learned, little spent, not named for long.
    fn forget(&mut self, limits: &[Limit; 2], clock: &Clock) {
        let weighed = self.known.iter_mut().map(|(id, counter)| {
            let (learned, spent) = counter.weight(limits, clock);
            (learned, spent, counter.touched, *id)
        });
        let mut order: Vec<_> = weighed.collect();
        order.sort_unstable();
        for (.., id) in order.iter().take(MOST / FORGOTTEN) {
            self.known.remove(id);
            self.forgotten = self.forgotten.saturating_add(1);
        }
    }

    /// The spent counts of today, in the order of ids.
    pub(super) fn spent(&mut self, limits: &[Limit; 2], clock: &Clock) -> Vec<(u64, u32)> {
        let day = |counter: &mut Counter| {
            counter.meters.iter_mut().zip(limits).next().map(|(meter, limit)| meter.used(limit, clock))
        };
        let mut all: Vec<_> = self.known.iter_mut().filter_map(|(id, counter)| Some((*id, day(counter)?))).collect();
        all.retain(|(_, spent)| *spent > 0);
        all.sort_unstable();
        all
    }

    /// The counters that wait because Metrica refused a request.
    pub(super) fn learned(&mut self, limits: &[Limit; 2], clock: &Clock) -> usize {
        self.known.values_mut().filter_map(|counter| counter.weight(limits, clock).0.then_some(())).count()
    }
}

impl Counter {
    /// Notes that a request named it.
    pub(super) const fn touch(&mut self, clock: &Clock) {
        self.touched = clock.at();
    }

    fn weight(&mut self, limits: &[Limit; 2], clock: &Clock) -> (bool, u32) {
        let mut weight = (false, 0);
        for (meter, limit) in self.meters.iter_mut().zip(limits) {
            weight.0 |= meter.effective(limit, clock).1;
            weight.1 = weight.1.max(meter.used(limit, clock));
        }
        weight
    }
}

#[cfg(test)]
mod tests {
    use super::super::clock::{Now, SECOND};
    use super::super::limit::Limits;
    use super::*;

    #[test]
    fn counters_keep_their_ids() {
        for ids in [&[][..], &[1], &[1, 2, 3], &[1, 2, 3, 4]] {
            assert_eq!(Counters::of(ids).ids(), ids);
        }
    }

    #[test]
    fn rule_4_the_table_is_bounded_and_keeps_relevant_counters() {
        let limits = Limits::default().counter;
        let mut table = CounterTable::default();
        let mut clock = Clock::new(Now::default());
        for (meter, limit) in table.touch(1, &limits, &clock).meters.iter_mut().zip(&limits) {
            (0..9).for_each(|_| meter.take(limit, &clock));
        }
        for (meter, limit) in table.touch(2, &limits, &clock).meters.iter_mut().zip(&limits).take(1) {
            meter.refuse(limit, &clock, false);
        }
        for id in 10..50_000 {
            clock.advance(Now { at: id * SECOND / 100, unix: id / 100 });
            table.touch(id, &limits, &clock);
            assert!(table.len() <= MOST);
        }
        assert_eq!(table.spent(&limits, &clock), [(1, 9)]);
        assert_eq!(table.learned(&limits, &clock), 1);
        assert!(table.get_mut(49_999).is_some() && table.get_mut(10).is_none());
        assert!(table.forgotten > 45_000);
    }
}

//! The counts of a day, for the next process (rule 11 of the module): ids and numbers, never a secret.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Broker;
use super::clock::Now;
use super::limit::{Limit, LimitName};
use super::meter::Meter;
use super::setup::{Caller, Owner, OwnerName};
use crate::policy::names::CallerId;

/// The form of [`SavedCounts`].
const VERSION: u32 = 1;
/// The maximum number of counters that are restored.
const MOST_COUNTERS: usize = super::counters::MOST;

/// The counts of one day.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SavedCounts {
    version: u32,
    /// The day, in days since 1970.
    day: u64,
    owners: BTreeMap<String, SavedOwner>,
    counters: BTreeMap<u64, u32>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SavedOwner {
    spent: u32,
    callers: BTreeMap<String, u32>,
}

/// The reason why counts are not restored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadCounts {
    /// Another version wrote them.
    #[error("the counts have version {0}, expected {VERSION}")]
    Version(u32),
    /// They are of another day, and over.
    #[error("the counts are of another day")]
    OtherDay,
    /// The callers of an owner spent more than the owner, or there are too many counters.
    #[error("the counts contradict each other")]
    Inconsistent,
}

impl Broker {
    /// The counts of today.
    #[must_use]
    pub fn save(&mut self, now: Now) -> SavedCounts {
        self.ledger.clock.advance(now);
        let Self { names, ledger, lines, .. } = self;
        let mut owners = BTreeMap::new();
        for ((name, line), meters) in names.owners.names.iter().zip(lines).zip(&mut ledger.owners) {
            let days = ledger.limits.owner.iter().zip(meters).filter(|(limit, _)| limit.name == LimitName::Day);
            let spent = days.map(|(limit, meter)| meter.used(limit, &ledger.clock)).sum();
            let callers = line.flows().filter_map(|flow| {
                let spent = flow.spent_today(&ledger.clock);
                let name = names.callers.names.get(flow.caller.index())?;
                (spent > 0).then(|| (name.as_str().to_owned(), spent))
            });
            owners.insert(name.as_str().to_owned(), SavedOwner { spent, callers: callers.collect() });
        }
        let counters = ledger.counters.spent(&ledger.limits.counter, &ledger.clock).into_iter().collect();
        SavedCounts { version: VERSION, day: ledger.clock.day_index(), owners, counters }
    }

    /// Continues with counts of today: of each, the higher one holds. Names that are not configured are left out.
    ///
    /// # Errors
    /// [`BadCounts`] if they are not of today or not valid; then nothing is restored.
    pub fn restore(&mut self, saved: &SavedCounts, now: Now) -> Result<(), BadCounts> {
        self.ledger.clock.advance(now);
        if saved.version != VERSION {
            return Err(BadCounts::Version(saved.version));
        }
        if saved.day != self.ledger.clock.day_index() {
            return Err(BadCounts::OtherDay);
        }
        let sum = |owner: &SavedOwner| owner.callers.values().map(|spent| u64::from(*spent)).sum::<u64>();
        let fits = saved.owners.values().all(|owner| sum(owner) <= u64::from(owner.spent));
        if !fits || saved.counters.len() > MOST_COUNTERS {
            return Err(BadCounts::Inconsistent);
        }
        for (name, counts) in &saved.owners {
            let names = &self.names.owners;
            let known = names.names.iter().find(|known| known.as_str() == name);
            if let Some(owner) = known.and_then(|known: &OwnerName| names.get(*known)).map(Owner) {
                self.restore_owner(owner, counts);
            }
        }
        let ledger = &mut self.ledger;
        for (id, spent) in &saved.counters {
            let counter = ledger.counters.touch(*id, &ledger.limits.counter, &ledger.clock);
            raise(&ledger.limits.counter, &mut counter.meters, LimitName::CounterDay, *spent, &ledger.clock);
        }
        Ok(())
    }

    fn restore_owner(&mut self, owner: Owner, counts: &SavedOwner) {
        let Self { names, ledger, lines, .. } = self;
        if let Some(meters) = ledger.owners.get_mut(owner.index()) {
            raise(&ledger.limits.owner, meters, LimitName::Day, counts.spent, &ledger.clock);
        }
        let Some(line) = lines.get_mut(owner.index()) else { return };
        for (name, spent) in &counts.callers {
            let known = names.callers.names.iter().find(|known| known.as_str() == name);
            let number = known.and_then(|known: &CallerId| names.callers.get(*known));
            if let Some(flow) = number.and_then(|number| line.flow(Caller(number))) {
                flow.restore(*spent, &ledger.clock);
            }
        }
    }
}

fn raise(limits: &[Limit], meters: &mut [Meter], name: LimitName, spent: u32, clock: &super::clock::Clock) {
    for (limit, meter) in limits.iter().zip(meters).filter(|(limit, _)| limit.name == name) {
        let spent = spent.max(meter.used(limit, clock));
        if let Meter::Calendar(count) = meter {
            count.spent = spent;
            count.is_known = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::bench::*;
    use super::super::*;

    #[test]
    fn rule_11_draining_refuses_all_at_once() {
        let mut bench = Bench::with(only(LimitName::Parallel, 1));
        let lease = granted(bench.ask("one"));
        let tickets: Vec<_> = (0..5).map(|_| waits(bench.ask("two"))).collect();
        bench.broker.drain(bench.now);
        assert_eq!(bench.broker.woken().count(), 5);
        for ticket in tickets {
            let Taken::Refused(refusal) = bench.broker.take(ticket) else { panic!("it still waits") };
            assert_eq!((refusal.status(), refusal.reason), (503, Reason::Draining));
        }
        assert_eq!(is_refused(bench.ask("one")).reason, Reason::Draining);
        bench.done(lease);
        assert_eq!((bench.row(LimitName::Parallel).used, bench.broker.next()), (0, None));
    }

    #[test]
    fn rule_11_the_next_process_continues_the_day() {
        let mut bench = Bench::new(|_| {});
        for caller in ["one", "one", "two"] {
            bench.later(1000);
            bench.spend(bench.request(caller));
        }
        let text = serde_json::to_string(&bench.broker.save(bench.now)).unwrap();
        assert_eq!(
            text,
            r#"{"version":1,"day":20000,"owners":{"a":{"spent":3,"callers":{"one":2,"two":1}},"b":{"spent":0,"callers":{}}},"counters":{"7":3}}"#
        );
        let saved: SavedCounts = serde_json::from_str(&text).unwrap();
        let mut next = Bench::new(|_| {});
        (0..2).for_each(|_| next.spend(next.request("two")));
        assert_eq!(next.broker.restore(&saved, next.now), Ok(()));
        let row = next.row(LimitName::Day);
        assert_eq!((row.used, row.is_known), (3, true), "the higher count holds");
        let callers = next.broker.snapshot().owners[0]
            .callers
            .iter()
            .map(|row| (row.caller, row.spent_today))
            .collect::<Vec<_>>();
        assert_eq!(callers, [("one", 2), ("two", 2)]);
        for (from, to, expected) in [
            (r#""version":1"#, r#""version":2"#, BadCounts::Version(2)),
            (r#""day":20000"#, r#""day":19999"#, BadCounts::OtherDay),
            (r#""spent":3"#, r#""spent":2"#, BadCounts::Inconsistent),
        ] {
            let saved: SavedCounts = serde_json::from_str(&text.replace(from, to)).unwrap();
            let mut other = Bench::new(|_| {});
            assert_eq!(other.broker.restore(&saved, other.now), Err(expected));
            assert_eq!(other.row(LimitName::Day).used, 0);
        }
    }

    #[test]
    fn rule_11_a_change_of_the_configuration_keeps_counts_and_waiting_requests() {
        let mut bench = Bench::with(only(LimitName::Parallel, 1));
        let lease = granted(bench.ask("one"));
        let ticket = waits(bench.ask("two"));
        let mut changed = settings();
        changed.owners.remove(0);
        changed.callers.reverse();
        changed.limits = only(LimitName::Parallel, 2);
        bench.broker.configure(&changed, bench.now);
        let second = taken(bench.broker.take(ticket));
        bench.done(lease);
        bench.done(second);
        assert_eq!(bench.row(LimitName::Parallel).used, 0);
        assert_eq!(bench.broker.snapshot().owners[0].callers.len(), 2);
        let applies: Vec<_> = bench.broker.limits(Groups::LOGS).map(|(name, ..)| name).collect();
        assert_eq!(applies, ["parallel", "day", "by_ip", "logs_by_ip", "counter_day"]);
    }
}

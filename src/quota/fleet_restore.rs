//! The past, for a store that may have lost it ([`super::fleet`]).
//!
//! 1. The store takes the larger count of days and hours: its own, or that of a gate. Each gate knows the day of accounts and
//!    callers over all gates, since each grant tells it; it knows its own requests for counters, and its own of the hour.
//! 2. Reports of the last 5 minutes have the ids of their requests: the store has those of all gates, and each once. Those that
//!    a gate granted without the store are among them.
//! 3. A gate tells the counters of its table and the newest [`MOST_REPORTS`] reports: a call stays small enough for its
//!    time-out.

use super::clock::Micros;
use super::counters::CounterTable;
use super::entry::{Entry, EntryKey};
use super::fleet::{Fleet, MILLISECOND};
use super::ledger::Ledger;
use super::limit::{Groups, Limit, LimitName};
use super::line::{FIVE_MINUTES, Flow, Line};
use super::setup::{Caller, Names, Owner};
use super::{call::CounterSpent, call::Spent, clock::Clock};

/// The maximum number of reports that a gate tells again.
const MOST_REPORTS: usize = 4096;

/// A report of the last 5 minutes.
#[derive(Debug)]
pub(super) struct Report {
    key: EntryKey,
    attempt: u8,
    owner: Owner,
    caller: Caller,
    at: Micros,
}

impl Fleet {
    /// A request was granted, by the store or without it.
    pub(super) fn note_granted(&mut self, key: EntryKey, entry: &Entry) {
        if !entry.groups.meets(Groups::REPORT_READ) {
            return;
        }
        let Entry { owner, caller, started: at, attempts: attempt, .. } = *entry;
        self.reports.push_back(Report { key, attempt, owner, caller, at });
        self.forget_reports(at);
    }

    /// A request was granted and not sent.
    pub(super) fn note_unsent(&mut self, key: EntryKey, attempt: u8) {
        if let Some(position) = self.reports.iter().rposition(|one| (one.key, one.attempt) == (key, attempt)) {
            self.reports.remove(position);
        }
    }

    fn forget_reports(&mut self, at: Micros) {
        let is_over = |first: &Report| first.at.saturating_add(FIVE_MINUTES) <= at;
        while self.reports.len() > MOST_REPORTS || self.reports.front().is_some_and(is_over) {
            self.reports.pop_front();
        }
    }

    /// The counts of every owner (rules 1 and 2).
    pub(super) fn spent(&mut self, names: &Names, ledger: &mut Ledger, lines: &mut [Line]) -> Vec<Spent> {
        let at = ledger.clock.at();
        self.forget_reports(at);
        let mut all = Vec::new();
        for ((number, name), line) in (0..).zip(&names.owners.names).zip(lines) {
            let owner = Owner(number);
            let Some(day) = ledger.spent_today(owner) else { continue };
            let of_flow = |flow: &mut Flow| {
                let spent = flow.spent_today(&ledger.clock);
                let caller = names.callers.names.get(flow.caller.index()).filter(|_| spent > 0)?;
                Some((caller.as_str(), spent))
            };
            let callers = line.flows().filter_map(of_flow).collect();
            let mut spent =
                Spent { o: name.as_str(), d: day, c: callers, h: ledger.delegates(owner), ..Spent::default() };
            for report in self.reports.iter().filter(|report| report.owner == owner) {
                let Some(caller) = names.callers.names.get(report.caller.index()) else { continue };
                let age = at.saturating_sub(report.at) / MILLISECOND;
                spent.r.entry(caller.as_str()).or_default().insert(self.id(report.key, report.attempt), age);
            }
            all.push(spent);
        }
        all
    }
}

impl Ledger {
    /// The delegates of this hour.
    fn delegates(&mut self, owner: Owner) -> Option<u32> {
        let mut pairs = self.owners.get_mut(owner.index())?.iter_mut().zip(&self.limits.owner);
        let (meter, limit) = pairs.find(|(_, limit)| limit.name == LimitName::Delegates)?;
        Some(meter.used(limit, &self.clock)).filter(|spent| *spent > 0)
    }
}

impl CounterTable {
    /// The counts of every counter of which any is spent (rule 1).
    pub(super) fn known_spent(&mut self, limits: &[Limit; 2], clock: &Clock) -> Vec<CounterSpent> {
        let mut all = Vec::new();
        for (id, counter) in self.numbered() {
            let mut spent = CounterSpent { id: id.to_string(), ..CounterSpent::default() };
            for (meter, limit) in counter.meters.iter_mut().zip(limits) {
                let used = Some(meter.used(limit, clock)).filter(|used| *used > 0);
                if limit.name == LimitName::Grants { spent.h = used } else { spent.d = used }
            }
            if (spent.d, spent.h) != (None, None) {
                all.push(spent);
            }
        }
        all
    }
}

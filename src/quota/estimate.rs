//! The expected wait of a request (rule 8 of the module).

use super::Broker;
use super::budget::{judge, reserve};
use super::clock::{Micros, SECOND};
use super::entry::{Entry, Index};
use super::limit::{Groups, LimitName};
use super::line::{ageing, is_aged, position, turn};
use super::refusal::{After, Reason, Refusal};
use strict_http::number;

/// The expected wait of a request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Expected {
    pub(super) wait: Micros,
    pub(super) limit: LimitName,
    is_budget: bool,
}

/// The requests that are served before another.
#[derive(Debug, Default)]
struct Ahead {
    /// Their seconds on a slot.
    work: Micros,
    /// The seconds on a slot of better classes, until this request competes with them.
    before: Micros,
    groups: Vec<Groups>,
}

impl Broker {
    /// The expected wait of a request: one that waits at `index`, or one that would come next.
    pub(super) fn expect(&mut self, entry: &Entry, index: Option<Index>) -> Expected {
        let at = self.ledger.clock.at();
        let ahead = self.ahead(entry, index);
        let Self { ledger, lines, callers, .. } = self;
        let Some(line) = lines.get_mut(entry.owner.index()) else {
            return Expected { wait: 0, limit: LimitName::Parallel, is_budget: false };
        };
        let block = judge(entry, line, ledger, callers);
        let slots = ledger.slots(entry.owner).saturating_sub(reserve(entry.class, line, ledger, entry)).max(1);
        let mut expected = Expected { wait: 0, limit: LimitName::Parallel, is_budget: false };
        // Each request in flight needs half of its time, on average.
        let in_use = ledger.in_use(entry.owner).min(slots);
        let in_line = number::saturated::<u64>(ahead.groups.len());
        if u64::from(in_use).saturating_add(in_line) >= u64::from(slots) {
            let begun = u64::from(in_use).saturating_mul(line.mean / 2);
            expected.wait = begun.saturating_add(ahead.work) / u64::from(slots);
            expected.wait = expected.wait.saturating_add(ahead.before / u64::from(slots));
        }
        for name in [LimitName::ByIp, LimitName::LogsByIp, LimitName::Reports5m] {
            let applies = ledger.limits.all().find(|limit| limit.name == name).map(|limit| limit.applies);
            let before = ahead.groups.iter().filter(|groups| applies.is_some_and(|applies| applies.meets(**groups)));
            let before = number::saturated::<u32>(before.count());
            if let Some(room) = ledger.room_after(&entry.charge(), name, before) {
                expected = expected.or(room.saturating_sub(at), name, false);
            }
        }
        // A slot that comes back later says nothing while others may be released earlier; a pause of free slots does.
        let has_slots = ledger.in_use(entry.owner) < slots;
        let holds = block.filter(|block| block.is_certain() || has_slots);
        if let Some((block, until)) = holds.and_then(|block| Some((block, block.until()?))) {
            expected = expected.or(until.saturating_sub(at), block.limit, block.is_budget);
        }
        expected
    }

    /// The waiting requests whose turn comes first.
    fn ahead(&mut self, entry: &Entry, index: Option<Index>) -> Ahead {
        let mut ahead = Ahead::default();
        let at = self.ledger.clock.at();
        let slots = u64::from(self.ledger.slots(entry.owner));
        let Some(line) = self.lines.get(entry.owner.index()) else { return ahead };
        let weight = |caller| self.callers.weight(caller);
        let own = line.known(entry.caller);
        let own_turn = own.map(|flow| {
            let position = index.map_or(flow.waiting.len(), |index| position(flow, index));
            turn(line, flow, position, entry, weight(entry.caller))
        });
        for flow in line.queues() {
            for (position, other) in flow.waiting.iter().enumerate().filter(|(_, other)| Some(**other) != index) {
                let Some(other) = self.entries.get(*other) else { continue };
                let other_turn = turn(line, flow, position, other, weight(flow.caller));
                let is_first = own_turn.is_none_or(|own| other_turn < own);
                if is_first && is_aged(other, entry.class, at) {
                    ahead.work = ahead.work.saturating_add(flow.mean);
                    ahead.groups.push(other.groups);
                } else if other.class < entry.class {
                    let competes = ageing(entry.class, other.class).saturating_mul(slots);
                    ahead.before = ahead.before.saturating_add(flow.mean).min(competes);
                }
            }
        }
        ahead
    }
}

impl Expected {
    fn or(self, wait: Micros, limit: LimitName, is_budget: bool) -> Self {
        if wait > self.wait { Self { wait, limit, is_budget } } else { self }
    }

    /// The refusal of a request that may wait for `allowed`.
    pub(super) fn refusal(self, reason: Reason, allowed: Micros) -> Refusal {
        // A line that is half as long as the request may wait is short enough; another limit needs its time.
        let shorter = if self.limit == LimitName::Parallel { self.wait.saturating_sub(allowed / 2) } else { self.wait };
        let after = match reason {
            Reason::Full => self.wait,
            Reason::Wait | Reason::Budget | Reason::Draining | Reason::StoreUnavailable => shorter,
        };
        let reason = if self.is_budget { Reason::Budget } else { reason };
        Refusal { limit: self.limit, reason, after: After(after.max(SECOND)) }
    }
}

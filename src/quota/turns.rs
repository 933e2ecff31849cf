//! Turns: who is granted next, and who is refused because its time is over (rules 5, 6 and 8 of the module).

use super::Broker;
use super::budget::{judge, observe};
use super::clock::{Micros, SECOND};
use super::entry::{Entries, Entry, Index, State, Ticket};
use super::ledger::Block;
use super::limit::LimitName;
use super::line::{Turn, earliest_deadline, is_aged, turn};
use super::meter::Room;
use super::refusal::{After, Reason, Refusal};
use super::setup::{Class, Owner};

/// Waiting requests, of each class the last first.
#[derive(Default)]
struct Turns {
    interactive: Vec<(Turn, Index)>,
    normal: Vec<(Turn, Index)>,
    batch: Vec<(Turn, Index)>,
}

impl Turns {
    const fn of(&mut self, class: Class) -> &mut Vec<(Turn, Index)> {
        match class {
            Class::Interactive => &mut self.interactive,
            Class::Normal => &mut self.normal,
            Class::Batch => &mut self.batch,
        }
    }

    fn add(&mut self, class: Class, turn: Turn, index: Index) {
        self.of(class).push((turn, index));
    }

    fn sort(&mut self) {
        for turns in [&mut self.interactive, &mut self.normal, &mut self.batch] {
            turns.sort_unstable_by(|one, other| other.cmp(one));
        }
    }

    /// Takes the request whose turn is first: of the best class, or of another that has waited long enough to compete.
    fn first(&mut self, entries: &Entries, at: Micros) -> Option<Index> {
        let mut first: Option<(Class, Turn, Index)> = None;
        for class in [Class::Interactive, Class::Normal, Class::Batch] {
            let Some((turn, index)) = self.of(class).last().copied() else { continue };
            let wins = first.is_none_or(|(better, other, _)| {
                turn < other && entries.get(index).is_some_and(|entry| is_aged(entry, better, at))
            });
            if wins {
                first = Some((class, turn, index));
            }
        }
        let (class, _, index) = first?;
        self.of(class).pop();
        Some(index)
    }
}

impl Broker {
    /// Grants what can be granted after something changed for one owner.
    pub(super) fn look(&mut self, owner: Owner) {
        // An egress that several owners wait for is given to them in turn.
        if self.waiting == 0 {
            return;
        }
        if self.contended.contains(&true) {
            self.look_at_all();
        } else {
            self.look_at(owner);
        }
    }

    fn look_at(&mut self, owner: Owner) {
        self.expire(owner);
        if self.store_decides() {
            self.enter_heads(owner);
            if let Some(line) = self.lines.get_mut(owner.index()) {
                line.next = None;
            }
        } else {
            while self.grant_one(owner) {}
        }
        self.plan(owner);
    }

    /// Grants what can be granted, one request of each owner after the other.
    pub(super) fn look_at_all(&mut self) {
        self.contended.fill(false);
        let count = self.lines.len();
        let first = self.cursor;
        let owners = (0..count).map(|position| (first + position) % count.max(1));
        let mut owners: Vec<_> = owners.filter_map(|index| u16::try_from(index).ok()).map(Owner).collect();
        if self.store_decides() {
            return owners.iter().for_each(|owner| self.look_at(*owner));
        }
        owners.retain(|owner| self.lines.get(owner.index()).is_some_and(|line| line.waiting > 0));
        owners.iter().for_each(|owner| self.expire(*owner));
        loop {
            let mut granted = false;
            for owner in &owners {
                if self.grant_one(*owner) {
                    granted = true;
                    self.cursor = owner.index() + 1;
                }
            }
            if !granted {
                break;
            }
        }
        owners.iter().for_each(|owner| self.plan(*owner));
    }

    /// Grants the first request of an owner that may be sent.
    fn grant_one(&mut self, owner: Owner) -> bool {
        let Some(index) = self.pick(owner) else { return false };
        let Some(entry) = self.entries.get(index).cloned() else { return false };
        self.leave(&entry, index);
        self.grant(index, State::Granted);
        self.wake(index);
        true
    }

    /// The request whose turn is first among those that no limit holds. Refuses those that a limit holds for too long.
    fn pick(&mut self, owner: Owner) -> Option<Index> {
        let mut turns = self.turns(owner);
        let at = self.ledger.clock.at();
        let mut next: Option<Micros> = None;
        let mut found = None;
        let mut late = Vec::new();
        while let Some(index) = turns.first(&self.entries, at) {
            let Self { ledger, lines, entries, callers, contended, .. } = self;
            let (Some(line), Some(entry)) = (lines.get_mut(owner.index()), entries.get_mut(index)) else { continue };
            let Some(block) = judge(entry, line, ledger, callers) else {
                found = Some(index);
                break;
            };
            entry.waits_for = block.limit;
            if matches!(block.limit, LimitName::ByIp | LimitName::LogsByIp)
                && let Some(flag) = contended.get_mut(entry.egress.index())
            {
                *flag = true;
            }
            if block.is_certain() && block.until() > Some(entry.deadline) {
                late.push((index, block));
                continue;
            }
            let kept = (entry.class == Class::Batch && line.kept_until() > at).then(|| line.kept_until());
            next = next.into_iter().chain(block.until()).chain(kept).min();
            // Nobody has a slot before one is released.
            if block.limit == LimitName::Parallel && entry.class != Class::Batch {
                break;
            }
        }
        for (index, block) in late {
            let refusal = self.refusal_of(&block);
            self.refuse(index, refusal);
        }
        if let Some(line) = self.lines.get_mut(owner.index()) {
            line.next = next;
        }
        found
    }

    /// The waiting requests of an owner in the order of service.
    fn turns(&self, owner: Owner) -> Turns {
        let mut turns = Turns::default();
        let Some(line) = self.lines.get(owner.index()) else { return turns };
        for flow in line.queues() {
            let weight = self.callers.weight(flow.caller);
            for (position, index) in flow.waiting.iter().enumerate() {
                if let Some(entry) = self.entries.get(*index) {
                    turns.add(entry.class, turn(line, flow, position, entry, weight), *index);
                }
            }
        }
        turns.sort();
        turns
    }

    /// Takes what a request needs, and notes that it may be sent.
    pub(super) fn grant(&mut self, index: Index, state: State) {
        let Self { ledger, lines, entries, callers, fleet, .. } = self;
        let (key, at) = (entries.key(index), ledger.clock.at());
        let Some(entry) = entries.get_mut(index) else { return };
        let Some(line) = lines.get_mut(entry.owner.index()) else { return };
        observe(entry, line, ledger, callers);
        ledger.take(&entry.charge());
        let per_5m = callers.per_5m(entry.caller, entry.groups);
        line.begin(entry.caller, entry.class, callers.weight(entry.caller), per_5m, &ledger.clock);
        entry.begin(state, at, ledger.epochs());
        if let (Some(fleet), Some(key)) = (fleet, key) {
            fleet.note_granted(key, entry);
        }
    }

    /// Refuses the requests whose deadline has passed.
    fn expire(&mut self, owner: Owner) {
        let at = self.ledger.clock.at();
        let Some(line) = self.lines.get(owner.index()) else { return };
        if earliest_deadline(line, &self.entries).is_none_or(|deadline| deadline > at) {
            return;
        }
        let mut late = Vec::new();
        for index in line.waiting_entries() {
            late.extend(
                self.entries.get(index).filter(|entry| entry.deadline <= at).cloned().map(|entry| (index, entry)),
            );
        }
        for (index, entry) in &late {
            self.leave(entry, *index);
        }
        for (index, entry) in late {
            let expected = self.expect(&entry, None);
            let mut refusal = expected.refusal(Reason::Wait, entry.deadline.saturating_sub(entry.since));
            if expected.wait == 0 {
                refusal.limit = entry.waits_for;
            }
            self.settle(index, refusal);
        }
    }

    /// Takes a waiting request out of its line. The store forgets it.
    pub(super) fn leave(&mut self, entry: &Entry, index: Index) {
        if let Some(key) = self.entries.key(index).filter(|_| self.fleet.is_some()) {
            self.withdraw(entry, key);
        }
        self.take_out(entry, index);
    }

    /// Takes a waiting request out of its line.
    pub(super) fn take_out(&mut self, entry: &Entry, index: Index) {
        let Some(line) = self.lines.get_mut(entry.owner.index()) else { return };
        if line.dequeue(entry.caller, index) {
            self.waiting = self.waiting.saturating_sub(1);
        }
        if line.waiting == 0 {
            line.next = None;
        }
    }

    /// Refuses a request that waits.
    pub(super) fn refuse(&mut self, index: Index, refusal: Refusal) {
        let Some(entry) = self.entries.get(index).cloned() else { return };
        self.leave(&entry, index);
        self.settle(index, refusal);
    }

    fn settle(&mut self, index: Index, refusal: Refusal) {
        if let Some(entry) = self.entries.get_mut(index) {
            entry.state = State::Refused(refusal);
        }
        self.wake(index);
    }

    pub(super) fn wake(&mut self, index: Index) {
        self.woken.extend(self.entries.key(index).map(Ticket));
    }

    /// The refusal by a limit that has no room before the deadline.
    pub(super) fn refusal_of(&self, block: &Block) -> Refusal {
        let at = self.ledger.clock.at();
        let until = match block.room {
            Room::At(until) => until,
            Room::OnRelease => at.saturating_add(SECOND),
        };
        let reason = if block.is_budget { Reason::Budget } else { Reason::Wait };
        Refusal { limit: block.limit, reason, after: After(until.saturating_sub(at).max(SECOND)) }
    }

    /// Notes when the line of an owner has to be looked at again.
    fn plan(&mut self, owner: Owner) {
        let Some(line) = self.lines.get_mut(owner.index()) else { return };
        let deadline = earliest_deadline(line, &self.entries);
        line.next = if line.waiting == 0 { None } else { line.next.into_iter().chain(deadline).min() };
    }
}

//! The responses and messages of the store of a fleet.

use super::Broker;
use super::call::{Granted, LimitedUntil, Reply, Told};
use super::clock::{Now, SECOND};
use super::entry::{Entry, EntryKey, State};
use super::fleet::MILLISECOND;
use super::limit::LimitName;
use super::refusal::{After, Reason, Refusal};
use super::setup::Owner;

impl Broker {
    /// Applies a response of the store, which came over a connection that is new or not.
    pub fn reply(&mut self, reply: &Reply, is_new: bool, now: Now) {
        self.ledger.clock.advance(now);
        let Some(fleet) = &mut self.fleet else { return };
        fleet.saw(reply.replicas.max(1), self.ledger.clock.at());
        // The store has what the call told, and not what was added since.
        fleet.told.retain(|told| !told.is_sent);
        if fleet.is_connected {
            fleet.lost = fleet.lost.saturating_add(reply.lost);
        }
        if reply.is_emptied && fleet.is_connected {
            fleet.introduces = true;
            fleet.enter.clear();
            self.forget_entered();
            self.look_at_all();
        }
        self.follow_store(reply.learning, is_new);
        for granted in &reply.granted {
            self.store_granted(granted);
        }
        for refused in &reply.refused {
            self.store_refused(refused);
        }
        for held in &reply.held {
            self.store_holds(held);
        }
        for seen in &reply.owners {
            let Some(owner) = self.names.owners.find(|name| name.as_str() == seen.owner).map(Owner) else { continue };
            // A store that lost its counts is told them first.
            if seen.today == self.ledger.clock.day_index() && !reply.is_emptied {
                self.ledger.set_today(owner, seen.day);
            }
            if let Some(wake) = seen.wake {
                self.wake_at(owner, wake);
            }
        }
    }

    /// Applies a message of the store.
    pub fn told(&mut self, told: &Told, now: Now) {
        self.ledger.clock.advance(now);
        if let Some(fleet) = self.fleet.as_mut().filter(|_| told.call) {
            fleet.introduces = true;
            fleet.enter.clear();
            self.forget_entered();
            self.look_at_all();
        }
        if told.look {
            (0..self.lines.len())
                .filter_map(|number| u16::try_from(number).ok())
                .for_each(|number| self.wake_at(Owner(number), 0));
        }
        if let Some(granted) = &told.granted {
            self.store_granted(granted);
        }
        if let Some(refused) = &told.refused {
            self.store_refused(refused);
        }
        let owner =
            told.owner.as_deref().and_then(|owner| self.names.owners.find(|name| name.as_str() == owner)).map(Owner);
        if let (Some(owner), Some(wake)) = (owner, told.wake) {
            self.wake_at(owner, wake);
        }
    }

    fn wake_at(&mut self, owner: Owner, after: u64) {
        let at = self.ledger.clock.at();
        if let Some(fleet) = &mut self.fleet {
            let after = fleet.spread(after.saturating_mul(MILLISECOND));
            fleet.wake_at(owner, at.saturating_add(after));
        }
    }

    /// The store granted a request. One that is over by now was or will be withdrawn.
    fn store_granted(&mut self, granted: &Granted) {
        let Some((key, entry)) = self.entered(&granted.id) else { return };
        if let Some(known) = self.entries.get_mut(key.index) {
            known.is_entered = false;
        }
        self.take_out(&entry, key.index);
        // The store has counted it, and perhaps told so before.
        let (day, mine) = self.spent(&entry);
        self.grant(key.index, State::Granted);
        if granted.today == self.ledger.clock.day_index() {
            self.set_spent(&entry, day.max(granted.day), mine.max(granted.mine));
        }
        self.wake(key.index);
        self.look(entry.owner);
    }

    /// A limit holds a request, perhaps because of other gates: one that it holds beyond its deadline is refused at once.
    fn store_holds(&mut self, held: &LimitedUntil) {
        let Some((key, entry)) = self.entered(&held.id) else { return };
        let Some(limit) = LimitName::ALL.iter().copied().find(|limit| limit.as_str() == held.limit) else { return };
        if let Some(known) = self.entries.get_mut(key.index) {
            known.waits_for = limit;
        }
        let after = held.ms.saturating_mul(MILLISECOND);
        if limit != LimitName::Parallel && self.ledger.clock.at().saturating_add(after) > entry.deadline {
            self.refuse(key.index, Refusal { limit, reason: Reason::Wait, after: After(after.max(SECOND)) });
            self.look(entry.owner);
        }
    }

    /// The requests of the day, of the owner and of the caller of a request.
    fn spent(&mut self, entry: &Entry) -> (u32, u32) {
        let Self { ledger, lines, .. } = self;
        let flow = lines.get_mut(entry.owner.index()).and_then(|line| line.flow(entry.caller));
        let mine = flow.map_or(0, |flow| flow.spent_today(&ledger.clock));
        (ledger.spent_today(entry.owner).map_or(0, |day| day), mine)
    }

    fn set_spent(&mut self, entry: &Entry, day: u32, mine: u32) {
        let Self { ledger, lines, .. } = self;
        ledger.day(entry.owner, |limit, meter, clock| meter.set_spent(limit, clock, day));
        if let Some(flow) = lines.get_mut(entry.owner.index()).and_then(|line| line.flow(entry.caller)) {
            flow.set_spent(mine, &ledger.clock);
        }
    }

    fn store_refused(&mut self, refused: &LimitedUntil) {
        let Some((key, entry)) = self.entered(&refused.id) else { return };
        let Some(limit) = LimitName::ALL.iter().copied().find(|limit| limit.as_str() == refused.limit) else { return };
        if let Some(known) = self.entries.get_mut(key.index) {
            known.is_entered = false;
        }
        let after = After(refused.ms.saturating_mul(MILLISECOND).max(SECOND));
        self.refuse(key.index, Refusal { limit, reason: Reason::Budget, after });
        self.look(entry.owner);
    }

    /// The waiting request with this id, while the store decides.
    fn entered(&self, id: &str) -> Option<(EntryKey, Entry)> {
        let fleet = self.fleet.as_deref().filter(|fleet| fleet.is_connected)?;
        let (key, attempt) = fleet.key(id)?;
        let entry = self.entries.find(key)?;
        let is_meant = entry.state == State::Waiting && entry.attempts.saturating_add(1) == attempt;
        is_meant.then(|| (key, entry.clone()))
    }
}

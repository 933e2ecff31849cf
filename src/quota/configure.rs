//! A new configuration: names keep their numbers (rule 11 of the module).

use super::Broker;
use super::clock::Now;
use super::line::Line;
use super::setup::{Caller, CallerSettings, Egress, EgressName, Owner, OwnerName, Settings};
use crate::policy::names::CallerId;

impl Broker {
    /// Changes the configuration. Counts, learned states and waiting requests remain.
    pub fn configure(&mut self, settings: &Settings, now: Now) {
        self.ledger.clock.advance(now);
        self.set_limits(settings.limits.clone());
        self.bounds = settings.bounds;
        for owner in &settings.owners {
            let _ = self.names.owners.add(*owner);
        }
        for egress in &settings.egresses {
            let _ = self.names.egresses.add(*egress);
        }
        // A caller that is no longer configured has no share; its requests in flight still count.
        self.callers.settings.iter_mut().for_each(|known| known.share = None);
        for caller in &settings.callers {
            let Some(number) = self.names.callers.add(caller.id) else { continue };
            match self.callers.settings.get_mut(usize::from(number)) {
                Some(known) => *known = *caller,
                None => self.callers.settings.push(*caller),
            }
        }
        self.callers.mode = settings.budgets;
        let shares = self.callers.settings.iter().filter_map(|one: &CallerSettings| one.share).map(u32::from);
        self.callers.shares = shares.sum();
        let has_budget = |one: &CallerSettings| one.per_day.is_some() || one.per_5m.is_some() || one.share.is_some();
        self.callers.has_budgets = self.callers.settings.iter().any(has_budget);
        let (owners, egresses) = (self.names.owners.names.len(), self.names.egresses.names.len());
        self.ledger.grow(owners, egresses);
        self.lines.resize_with(owners, Line::default);
        self.contended.resize(egresses, false);
        // An account that is new has a part, too.
        self.apply_limits();
        self.look_at_all();
    }

    /// The number of an owner.
    #[must_use]
    pub fn owner(&self, name: OwnerName) -> Option<Owner> {
        self.names.owners.get(name).map(Owner)
    }

    /// The number of an egress.
    #[must_use]
    pub fn egress(&self, name: EgressName) -> Option<Egress> {
        self.names.egresses.get(name).map(Egress)
    }

    /// The number of a caller.
    #[must_use]
    pub fn caller(&self, id: CallerId) -> Option<Caller> {
        self.names.callers.get(id).map(Caller)
    }
}

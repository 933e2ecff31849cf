//! The knowledge about the owners of tokens, as decisions of one worker use it.
//!
//! 1. Facts that responses have shown take precedence over the configuration.
//! 2. Facts about a token that was replaced since do not count.

use metrica::observed_rights::{Access, Knowledge};
use metrica::scope::ScopeSet;

use super::{Learning, Slot, Snapshot, Worker};
use crate::policy::choice::Accounts;

/// The knowledge about the owners of the tokens of one snapshot.
pub struct WorkerAccounts<'a> {
    pub(super) learning: &'a Learning,
    pub(super) slots: &'a [Slot],
}

impl WorkerAccounts<'_> {
    /// Calls `then` with the token at a position, and the facts about it.
    fn at<T>(&self, position: usize, then: impl FnOnce(&Slot, &Knowledge) -> Option<T>) -> Option<T> {
        let slot = self.slots.get(position)?;
        self.learning.knowledge(slot.token_use(), |knowledge| then(slot, knowledge))
    }
}

/// Whether the owner of a token has an access to a counter, by the facts and the configuration (rule 1); `None` if that is
/// unknown or contradicted.
pub(super) fn access(slot: &Slot, knowledge: &Knowledge, counter: u64, needed: Access) -> Option<bool> {
    if knowledge.is_contradicted(counter, needed) {
        return None;
    }
    let configured = || Some(slot.counters.listed()?.get(counter).is_some());
    knowledge.access(counter, needed).or_else(configured)
}

impl Accounts for WorkerAccounts<'_> {
    fn access(&self, position: usize, counter: u64, needed: Access) -> Option<bool> {
        self.at(position, |slot, knowledge| access(slot, knowledge, counter, needed))
    }

    fn is_granted(&self, position: usize, counter: u64) -> bool {
        let is_granted = |slot: &Slot, knowledge: &Knowledge| {
            let is_listed = slot.counters.listed().is_some_and(|list| list.get(counter).is_some());
            Some(knowledge.is_granted(counter) || is_listed && knowledge.permission(None, counter).is_none())
        };
        self.at(position, is_granted) == Some(true)
    }

    fn represents(&self, position: usize, login: &str) -> Option<bool> {
        self.at(position, |_, knowledge| knowledge.represents(login))
    }

    fn owner(&self, position: usize, then: &mut dyn FnMut(&str)) {
        self.at(position, |slot, knowledge| knowledge.owner().or(slot.owner.as_deref()).map(then));
    }

    fn lacks(&self, position: usize, needs: ScopeSet) -> bool {
        self.at(position, |_, knowledge| Some(knowledge.lacks(needs))) == Some(true)
    }

    fn can_be_sent(&self, position: usize) -> bool {
        let can = |slot: &Slot| slot.can_be_sent().is_ok();
        let standby = |slot: &Slot| slot.standby.and_then(|standby| self.slots.get(standby)).is_some_and(can);
        self.slots.get(position).is_some_and(|slot| can(slot) || standby(slot))
    }
}

impl Worker {
    /// The knowledge about the owners of the tokens of a snapshot.
    #[must_use]
    pub fn accounts<'a>(&'a self, snapshot: &'a Snapshot) -> WorkerAccounts<'a> {
        WorkerAccounts { learning: &self.learning, slots: &snapshot.generation.tokens }
    }
}

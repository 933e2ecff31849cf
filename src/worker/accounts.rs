//! The knowledge about the owners of tokens, as decisions of one worker use it.
//!
//! 1. Facts that responses have shown take precedence over the configuration.
//! 2. Facts about a token that was replaced since do not count.

use metrica::observed_rights::{Access, Knowledge};

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

impl Accounts for WorkerAccounts<'_> {
    fn access(&self, position: usize, counter: u64, needed: Access) -> Option<bool> {
        self.at(position, |slot, knowledge| {
            if knowledge.is_contradicted(counter) {
                return None;
            }
            let configured = || Some(slot.counters.listed()?.get(counter).is_some());
            knowledge.access(counter, needed).or_else(configured)
        })
    }

    fn represents(&self, position: usize, login: &str) -> Option<bool> {
        self.at(position, |_, knowledge| knowledge.represents(login))
    }

    fn owner(&self, position: usize, then: &mut dyn FnMut(&str)) {
        self.at(position, |slot, knowledge| knowledge.owner().or(slot.owner.as_deref()).map(then));
    }
}

impl Worker {
    /// The knowledge about the owners of the tokens of a snapshot.
    #[must_use]
    pub fn accounts<'a>(&'a self, snapshot: &'a Snapshot) -> WorkerAccounts<'a> {
        WorkerAccounts { learning: &self.learning, slots: &snapshot.generation.tokens }
    }
}

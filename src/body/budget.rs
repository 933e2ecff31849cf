//! Budgets: memory that requests may hold beyond the bytes that stream through. An exhausted budget refuses at once.

use std::cell::Cell;
use std::rc::Rc;

/// A number of bytes that may be held at once.
#[derive(Debug)]
pub struct Budget {
    left: Cell<usize>,
}

impl Budget {
    /// A budget of this many bytes.
    #[must_use]
    pub const fn new(bytes: usize) -> Self {
        Self { left: Cell::new(bytes) }
    }

    /// Takes bytes for as long as the returned share is held; `None` if the budget has too few.
    #[must_use]
    pub fn share(self: &Rc<Self>, bytes: usize) -> Option<Share> {
        self.take(bytes).then(|| Share { budget: self.clone(), bytes })
    }

    fn take(&self, bytes: usize) -> bool {
        let left = self.left.get().checked_sub(bytes);
        left.is_some_and(|left| {
            self.left.set(left);
            true
        })
    }

    fn give_back(&self, bytes: usize) {
        self.left.set(self.left.get().saturating_add(bytes));
    }
}

/// Bytes of a budget, given back on drop.
#[derive(Debug)]
pub struct Share {
    budget: Rc<Budget>,
    bytes: usize,
}

impl Drop for Share {
    fn drop(&mut self) {
        self.budget.give_back(self.bytes);
    }
}

/// Bytes that one body holds of its worker's and its connection's budget, given back on drop.
#[derive(Debug)]
pub struct Charge {
    worker: Rc<Budget>,
    connection: Rc<Budget>,
    bytes: usize,
}

impl Charge {
    /// A charge of no bytes.
    #[must_use]
    pub const fn new(worker: Rc<Budget>, connection: Rc<Budget>) -> Self {
        Self { worker, connection, bytes: 0 }
    }

    /// The number of bytes.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Grows the charge to `bytes` if both budgets allow it. Returns whether they do.
    #[must_use]
    pub fn grow_to(&mut self, bytes: usize) -> bool {
        let more = bytes.saturating_sub(self.bytes);
        if !self.worker.take(more) {
            return false;
        }
        if !self.connection.take(more) {
            self.worker.give_back(more);
            return false;
        }
        self.bytes += more;
        true
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.worker.give_back(self.bytes);
        self.connection.give_back(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AHEAD: usize = 2 * 1024 * 1024;

    #[test]
    fn a_charge_refused_by_one_budget_is_taken_from_neither() {
        let worker = Rc::new(Budget::new(4_000_000));
        let budget = || Rc::new(Budget::new(AHEAD));
        let (one, other) = (budget(), budget());
        let mut first = Charge::new(worker.clone(), one.clone());
        assert!(first.grow_to(1_500_000) && first.grow_to(1_000_000));
        let mut second = Charge::new(worker.clone(), one.clone());
        assert!(!second.grow_to(1_000_000), "the connection has no more");
        let mut third = Charge::new(worker.clone(), other.clone());
        assert!(third.grow_to(2_000_000) && !third.grow_to(2_100_000));
        let mut fourth = Charge::new(worker.clone(), budget());
        assert!(!fourth.grow_to(600_000) && fourth.grow_to(500_000), "the worker has no more");
        drop((first, second, third, fourth));
        assert_eq!((worker.left.get(), one.left.get(), other.left.get()), (4_000_000, AHEAD, AHEAD));
    }
}

//! The counters that an account may work with, as one list.
//!
//! 1. A list holds at most [`MOST_LISTED`] counters, nine bytes each. A longer one is cut, and is then not complete.
//! 2. A counter that a complete list lacks is one on which the account has no permission of its own; it can still be public.
//!
//! Source: <https://yandex.com/dev/metrika/en/management/openapi/counter/counters>.

use crate::observed_rights::Permission;

/// The maximum number of counters of a list.
pub const MOST_LISTED: usize = 100_000;

/// A list of counters with the permission of one account on each.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct CounterList {
    /// In ascending order.
    counters: Box<[u64]>,
    /// By position in `counters`.
    permissions: Box<[Permission]>,
    is_complete: bool,
}

impl CounterList {
    /// Makes a list of `rows` in any order; of several rows about one counter the last one counts. `is_complete` tells
    /// whether the account has no other counters.
    #[must_use]
    pub fn new(mut rows: Vec<(u64, Permission)>, is_complete: bool) -> Self {
        rows.reverse();
        rows.sort_by_key(|(counter, _)| *counter);
        rows.dedup_by_key(|(counter, _)| *counter);
        let is_complete = is_complete && rows.len() <= MOST_LISTED;
        rows.truncate(MOST_LISTED);
        let (counters, permissions): (Vec<_>, Vec<_>) = rows.into_iter().unzip();
        Self { counters: counters.into(), permissions: permissions.into(), is_complete }
    }

    /// The permission on a counter, if the list has it.
    #[must_use]
    pub fn get(&self, counter: u64) -> Option<Permission> {
        let position = self.counters.binary_search(&counter).ok()?;
        self.permissions.get(position).copied()
    }

    /// Whether the account is known to have no permission of its own on the counter (rule 2).
    #[must_use]
    pub fn lacks(&self, counter: u64) -> bool {
        self.is_complete && self.get(counter).is_none()
    }

    /// Whether the account has no other counters.
    #[must_use]
    pub const fn is_complete(&self) -> bool {
        self.is_complete
    }

    /// The number of counters.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.counters.len()
    }

    /// Whether the list has no counters.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.counters.is_empty()
    }
}

impl std::fmt::Debug for CounterList {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let end = if self.is_complete { "" } else { " or more" };
        write!(f, "{} counters{end}", self.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rule_1_a_list_that_is_too_long_is_cut_and_incomplete() {
        let rows = |count: u64| (0..count).map(|counter| (counter, Permission::View)).collect();
        let whole = CounterList::new(rows(100_000), true);
        assert_eq!((whole.len(), whole.is_complete(), whole.lacks(100_000)), (MOST_LISTED, true, true));
        let cut = CounterList::new(rows(100_001), true);
        assert_eq!((cut.len(), cut.is_complete(), cut.lacks(100_000)), (MOST_LISTED, false, false));
        assert_eq!(size_of_val(&*cut.counters) + size_of_val(&*cut.permissions), 900_000);
    }

    #[test]
    fn rule_2_only_a_complete_list_proves_that_a_counter_is_missing() {
        let rows = vec![(7, Permission::View), (5, Permission::Own), (7, Permission::Edit)];
        let list = CounterList::new(rows.clone(), true);
        assert_eq!((list.get(5), list.get(7), list.len()), (Some(Permission::Own), Some(Permission::Edit), 2));
        assert!(list.lacks(6) && !list.lacks(5) && !CounterList::new(rows, false).lacks(6));
    }
}

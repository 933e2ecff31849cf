//! The times at which the counters of accounts are listed, for tokens with `counters: auto`.
//!
//! 1. A token is asked for the list once it is in use, and every [`PERIOD`] after that. A list that takes many requests is
//!    asked for less often, so that it takes at most [`REQUESTS_A_DAY`] requests a day.
//! 2. The list is asked for sooner when a response contradicts it or a caller changed access, but not within
//!    [`AFTER_CHANGE`] of the last time. A denial that agrees with it makes it sooner too, after [`AFTER_DENIAL`], and after
//!    twice the time with each list that is unchanged, so that a caller that is denied all day does not use up the quota.
//! 3. A list that could not be read is asked for again after [`AFTER_FAILURE`]; the old one remains.

use std::collections::BTreeMap;
use std::time::Duration;

use strict_http::number;
use tokio::time::Instant;

use crate::policy::names::TokenAlias;
use crate::worker::TokenUse;

/// The time after which a list is asked for again (rule 1).
pub const PERIOD: Duration = Duration::from_secs(3600);

/// The requests that the lists of one token take per day (rule 1), without those of rule 2.
pub const REQUESTS_A_DAY: u32 = 240;

/// The minimum time after which a denial that agrees with the list makes the gate ask again (rule 2).
pub const AFTER_DENIAL: Duration = Duration::from_secs(50);

/// The minimum time after which a contradiction or a change of access makes the gate ask again (rule 2).
pub const AFTER_CHANGE: Duration = Duration::from_secs(10);

/// The time after which the gate asks again for a list that it could not read (rule 3).
pub const AFTER_FAILURE: Duration = Duration::from_secs(60);

const DAY: Duration = Duration::from_secs(24 * 3600);

/// The state of one token's list.
#[derive(Debug, Clone, Copy)]
struct Listing {
    epoch: u64,
    /// When the list was last asked for.
    begun: Option<Instant>,
    due: Instant,
    /// The number of requests that the list took.
    requests: u32,
    /// The minimum time between two lists after a denial.
    patience: Duration,
}

/// The reason to ask for a list again (rule 2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Again {
    /// A response contradicts it, a caller changed access, or the operator wants to know.
    Changed,
    /// Metrica denied a request.
    Denied,
}

/// The lists of all tokens; see the module.
#[derive(Debug, Default)]
pub struct Lists {
    tokens: BTreeMap<TokenAlias, Listing>,
}

impl Lists {
    /// Adopts the tokens whose lists are wanted now.
    pub fn follow(&mut self, wanted: impl Iterator<Item = TokenUse> + Clone, now: Instant) {
        let is_wanted =
            |alias: TokenAlias, epoch: u64| wanted.clone().any(|one| (one.alias, one.epoch) == (alias, epoch));
        self.tokens.retain(|alias, listing| is_wanted(*alias, listing.epoch));
        for one in wanted.clone() {
            let new = Listing { epoch: one.epoch, begun: None, due: now, requests: 1, patience: AFTER_DENIAL };
            self.tokens.entry(one.alias).or_insert(new);
        }
    }

    /// When the list of a token is due, if it is wanted.
    #[must_use]
    pub fn due(&self, alias: TokenAlias) -> Option<Instant> {
        self.tokens.get(&alias).map(|listing| listing.due)
    }

    /// Records that the list of a token is asked for.
    pub fn begin(&mut self, alias: TokenAlias, now: Instant) {
        if let Some(listing) = self.tokens.get_mut(&alias) {
            (listing.begun, listing.due) = (Some(now), now + period(listing.requests));
        }
    }

    /// Records the result of a question that took `requests`: whether the list is another than before; `None` if it could not
    /// be read.
    pub fn finish(&mut self, alias: TokenAlias, changed: Option<bool>, requests: usize, now: Instant) {
        if let Some(listing) = self.tokens.get_mut(&alias) {
            let longer = (listing.patience * 2).min(PERIOD);
            listing.patience = if changed == Some(true) { AFTER_DENIAL } else { longer };
            listing.requests = number::saturated::<u32>(requests).max(1);
            listing.due = now + if changed.is_some() { period(listing.requests) } else { AFTER_FAILURE };
        }
    }

    /// Asks for all lists again, each not too soon after the last time (rule 2).
    pub fn ask_again(&mut self, why: Again, now: Instant) {
        for listing in self.tokens.values_mut() {
            let least = if why == Again::Changed { AFTER_CHANGE } else { listing.patience };
            let earliest = listing.begun.map_or(now, |begun| (begun + least).max(now));
            listing.due = listing.due.min(earliest);
        }
    }
}

/// The time until a list that takes this number of requests is asked for again (rule 1).
fn period(requests: u32) -> Duration {
    PERIOD.max(DAY / REQUESTS_A_DAY * requests)
}

#[cfg(test)]
mod tests {
    use metrica::scope::ScopeSet;

    use super::*;

    fn one(epoch: u64) -> TokenUse {
        TokenUse { alias: TokenAlias::new("t"), scopes: ScopeSet::EMPTY, epoch }
    }

    fn due(lists: &Lists, start: Instant) -> u64 {
        lists.due(one(1).alias).unwrap().duration_since(start).as_secs()
    }

    #[test]
    fn rule_1_a_long_list_is_asked_for_less_often() {
        let (mut lists, start) = (Lists::default(), Instant::now());
        lists.follow([one(1)].into_iter(), start);
        assert_eq!(due(&lists, start), 0);
        for (requests, seconds) in [(1, 3600), (10, 3600), (11, 3960), (100, 36_000)] {
            lists.begin(one(1).alias, start);
            lists.finish(one(1).alias, Some(true), requests, start);
            assert_eq!(due(&lists, start), seconds, "{requests}");
        }
        lists.follow([one(2)].into_iter(), start);
        assert_eq!(due(&lists, start), 0, "another token in the same file");
        lists.follow([].into_iter(), start);
        assert_eq!(lists.due(one(1).alias), None);
    }

    #[test]
    fn rule_2_a_contradiction_makes_it_sooner_and_not_at_once() {
        let (mut lists, start) = (Lists::default(), Instant::now());
        lists.follow([one(1)].into_iter(), start);
        lists.begin(one(1).alias, start);
        lists.finish(one(1).alias, Some(true), 1, start);
        let now = start + Duration::from_secs(5);
        lists.ask_again(Again::Denied, now);
        assert_eq!(due(&lists, start), 50);
        lists.ask_again(Again::Changed, now);
        assert_eq!(due(&lists, start), 10);
        lists.ask_again(Again::Denied, start + Duration::from_secs(9));
        assert_eq!(due(&lists, start), 10, "it stays as soon as it was");
        let mut after_a_denial = |changed| {
            lists.begin(one(1).alias, start);
            lists.finish(one(1).alias, Some(changed), 1, start);
            lists.ask_again(Again::Denied, now);
            due(&lists, start)
        };
        let unchanged: Vec<_> = (0..8).map(|_| after_a_denial(false)).collect();
        assert_eq!(unchanged, [100, 200, 400, 800, 1600, 3200, 3600, 3600]);
        assert_eq!(after_a_denial(true), 50);
    }

    #[test]
    fn rule_3_a_list_that_was_not_read_is_asked_for_again() {
        let (mut lists, start) = (Lists::default(), Instant::now());
        lists.follow([one(1)].into_iter(), start);
        lists.begin(one(1).alias, start);
        lists.finish(one(1).alias, None, 3, start);
        assert_eq!(due(&lists, start), 60);
    }
}

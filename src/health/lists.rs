//! The times at which the counters of accounts are listed, for tokens with `counters: auto`.
//!
//! 1. An account is asked for its list once a token of it is in use, and every [`PERIOD`] after that. A list that takes many
//!    requests is asked for less often, so that it takes at most [`SCHEDULED_A_DAY`] requests a day.
//! 2. The list is asked for sooner when a caller changed access, a denial contradicts it, or a denial agrees with it, but
//!    not within [`AFTER_CHANGE`], [`AFTER_CONTRADICTION`] or [`AFTER_DENIAL`] of the last time, for each request that the
//!    list takes. The latter two times double with each list that a denial caused and that is unchanged.
//! 3. A page that could not be read is asked for again after [`AFTER_FAILURE`], and after twice the time with each failure;
//!    the old list remains meanwhile.
//! 4. All requests of an account's lists, whatever causes them, share one budget: half of [`REQUESTS_A_DAY`] at once, and the
//!    other half over a day. A list begins when the budget has room for as many requests as the last one took.
//! 5. The account is the proven owner, or the token while its owner is unknown. What is known of the token's lists goes over to
//!    the owner.
//! 6. A reason to ask again that comes while a list is read holds for the next one.

use std::collections::BTreeMap;
use std::time::Duration;

use metrica::counter_list::CounterList;
use metrica::response::Listed;
use strict_http::number;
use tokio::time::Instant;

use super::counters::Pages;
use crate::policy::names::TokenAlias;
use crate::worker::TokenUse;

/// The time after which a list is asked for again (rule 1).
pub const PERIOD: Duration = Duration::from_secs(3600);

/// The requests that the lists of one account take per day (rule 4).
pub const REQUESTS_A_DAY: u32 = 240;

/// The requests that the lists of one account take per day without a reason to ask sooner (rule 1).
pub const SCHEDULED_A_DAY: u32 = 80;

/// The minimum time after which a denial that agrees with the list makes the gate ask again (rule 2).
pub const AFTER_DENIAL: Duration = Duration::from_secs(50);

/// The minimum time after which a denial that contradicts the list makes the gate ask again (rule 2).
pub const AFTER_CONTRADICTION: Duration = Duration::from_secs(10);

/// The minimum time after which a change of access makes the gate ask again (rule 2).
pub const AFTER_CHANGE: Duration = Duration::from_secs(10);

/// The time after which the gate asks again for a page that it could not read (rule 3).
pub const AFTER_FAILURE: Duration = Duration::from_secs(60);

/// The pause between two pages, in which other questions with the token are asked.
pub const BETWEEN_PAGES: Duration = Duration::from_millis(100);

const DAY: Duration = Duration::from_secs(24 * 3600);

/// The time in which the budget grows by one request (rule 4).
const SHARE: Duration = match DAY.checked_div(REQUESTS_A_DAY / 2) {
    Some(share) => share,
    None => DAY,
};

/// The account of a list (rule 5).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Account {
    /// The proven owner, by its canonical login.
    Owner(Box<str>),
    /// The unknown owner of this token.
    Token(TokenAlias),
}

/// The reason to ask for a list again (rule 2), the most urgent last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Again {
    /// Metrica denied a request.
    Denied,
    /// A denial contradicts the list.
    Contradicted,
    /// A caller changed access, or the operator wants to know.
    Changed,
}

/// The state of one account's list.
#[derive(Debug)]
struct Listing {
    /// The token to ask with; `None` if no token wants the list now.
    asker: Option<TokenUse>,
    /// The tokens that the list is for.
    of: Vec<TokenAlias>,
    /// When the list was last begun.
    begun: Option<Instant>,
    /// When the next page is due.
    due: Instant,
    /// The number of requests that the last list took.
    requests: u32,
    /// Each unchanged list that a denial caused doubles the times of rule 2.
    patience: u32,
    /// The number of pages in succession that could not be read.
    failures: u32,
    /// The time when the budget is whole again (rule 4).
    whole: Instant,
    /// The reason why the list is due.
    cause: Option<Again>,
    /// The reason to ask again after the list under way (rule 6).
    again: Option<Again>,
    /// The pages of the list under way.
    pages: Option<Pages>,
}

impl Listing {
    const fn new(now: Instant) -> Self {
        Self {
            asker: None,
            of: Vec::new(),
            begun: None,
            due: now,
            requests: 1,
            patience: 1,
            failures: 0,
            whole: now,
            cause: None,
            again: None,
            pages: None,
        }
    }

    fn charge(&mut self, requests: u32, now: Instant) {
        self.whole = self.whole.max(now) + SHARE * requests;
    }

    /// When the next page is due and the budget has room for it, and for the others if it is the first.
    fn due(&self) -> Instant {
        let requests = if self.pages.is_some() { 1 } else { self.requests };
        let ahead = DAY.saturating_sub(SHARE * requests);
        self.whole.checked_sub(ahead).map_or(self.due, |room| room.max(self.due))
    }

    /// Makes the list due sooner (rule 2).
    fn ask_again(&mut self, why: Again, now: Instant) {
        let least = match why {
            Again::Changed => AFTER_CHANGE,
            Again::Contradicted => (AFTER_CONTRADICTION * self.patience).min(PERIOD),
            Again::Denied => (AFTER_DENIAL * self.patience).min(PERIOD),
        };
        let earliest = self.begun.map_or(now, |begun| (begun + least * self.requests).max(now));
        if earliest < self.due {
            (self.due, self.cause) = (earliest, Some(why));
        }
    }

    /// Adopts the token to ask with, and the tokens that the list is for.
    fn follow(&mut self, asker: TokenUse, of: Vec<TokenAlias>, now: Instant) {
        let is_new = |before: TokenUse| before.alias == asker.alias && before.epoch != asker.epoch;
        if self.asker.is_none_or(is_new) && self.begun.is_some() {
            // Nothing is known of a token that replaces another, or of one that comes back.
            (self.pages, self.due) = (None, now + PERIOD);
            self.ask_again(Again::Changed, now);
        }
        (self.asker, self.of) = (Some(asker), of);
    }

    /// Takes over what is known of the lists of the same account under another key (rule 5).
    fn join(&mut self, other: &Self, now: Instant) {
        self.whole = self.whole.max(now) + other.whole.saturating_duration_since(now);
        self.begun = self.begun.max(other.begun);
        self.requests = self.requests.max(other.requests);
    }
}

/// The lists of all accounts; see the module.
#[derive(Debug, Default)]
pub struct Lists {
    accounts: BTreeMap<Account, Listing>,
    /// The account of each token that is asked.
    askers: BTreeMap<TokenAlias, Account>,
}

impl Lists {
    /// Adopts the accounts whose lists are wanted now, each with the token to ask with and the tokens that the list is for.
    pub fn follow(&mut self, wanted: BTreeMap<Account, (TokenUse, Vec<TokenAlias>)>, now: Instant) {
        for (account, listing) in &mut self.accounts {
            if !wanted.contains_key(account) {
                listing.asker = None;
            }
        }
        self.askers.clear();
        for (account, (asker, of)) in wanted {
            if matches!(account, Account::Owner(_)) {
                let of_tokens = of.iter().chain([&asker.alias]);
                let before: Vec<_> =
                    of_tokens.filter_map(|alias| self.accounts.remove(&Account::Token(*alias))).collect();
                for mut other in before {
                    match self.accounts.get_mut(&account) {
                        Some(listing) => listing.join(&other, now),
                        None => {
                            other.asker = Some(asker);
                            self.accounts.insert(account.clone(), other);
                        }
                    }
                }
            }
            self.askers.insert(asker.alias, account.clone());
            self.accounts.entry(account).or_insert_with(|| Listing::new(now)).follow(asker, of, now);
        }
        // What an owner has spent counts while it lasts.
        let is_kept = |account: &Account, listing: &mut Listing| {
            listing.asker.is_some() || matches!(account, Account::Owner(_)) && listing.whole > now
        };
        self.accounts.retain(is_kept);
    }

    fn of(&mut self, asker: TokenAlias) -> Option<&mut Listing> {
        self.accounts.get_mut(self.askers.get(&asker)?)
    }

    /// The token with which the list of an account is read.
    #[must_use]
    pub fn asker(&self, account: &Account) -> Option<TokenUse> {
        self.accounts.get(account)?.asker
    }

    /// When a list is due that is read with this token.
    #[must_use]
    pub fn due(&self, asker: TokenAlias) -> Option<Instant> {
        self.accounts.get(self.askers.get(&asker)?).map(Listing::due)
    }

    /// Records that the next page is asked for. Returns its place, and whether it begins a list.
    pub fn begin(&mut self, asker: TokenAlias, now: Instant) -> Option<(usize, bool)> {
        let listing = self.of(asker)?;
        listing.charge(1, now);
        let is_old = listing.begun.is_some_and(|begun| now.duration_since(begun) >= PERIOD);
        let begins = listing.pages.is_none() || is_old;
        if begins {
            (listing.begun, listing.pages) = (Some(now), None);
        }
        let offset = listing.pages.get_or_insert_default().offset();
        listing.due = now + AFTER_FAILURE;
        Some((offset, begins))
    }

    /// Records a page, which took `requests`; `None` if it could not be read. Returns the owner and the list once it is read.
    pub fn page(
        &mut self,
        asker: TokenAlias,
        page: Option<Listed>,
        requests: usize,
        now: Instant,
    ) -> Option<(Option<Box<str>>, CounterList)> {
        let listing = self.of(asker)?;
        listing.charge(saturated(requests).saturating_sub(1), now);
        let Some(page) = page else {
            let wait = AFTER_FAILURE.max(DAY / REQUESTS_A_DAY * listing.requests);
            listing.due = now + (wait * (1 << listing.failures.min(10))).min(PERIOD.max(wait));
            listing.failures += 1;
            return None;
        };
        listing.failures = 0;
        if !listing.pages.as_mut()?.add(page) {
            listing.due = now + BETWEEN_PAGES;
            return None;
        }
        let pages = listing.pages.take()?;
        listing.requests = saturated(pages.count()).max(1);
        Some(pages.into_list())
    }

    /// Records whether the list that was read is another than before.
    pub fn finish(&mut self, asker: TokenAlias, changed: bool, now: Instant) {
        let Some(listing) = self.of(asker) else { return };
        listing.due = now + period(listing.requests);
        listing.patience = match listing.cause.take() {
            _ if changed => 1,
            Some(Again::Denied | Again::Contradicted) => listing.patience.saturating_mul(2).min(1024),
            Some(Again::Changed) | None => listing.patience,
        };
        if let Some(why) = listing.again.take() {
            listing.ask_again(why, now);
        }
    }

    /// Asks for the lists of concerned tokens again, each not too soon after the last time (rule 2).
    pub fn ask_again(&mut self, why: Again, now: Instant, is_concerned: impl Fn(TokenAlias) -> bool) {
        let wanted = self.accounts.values_mut().filter(|listing| listing.asker.is_some());
        for listing in wanted.filter(|listing| listing.of.iter().any(|alias| is_concerned(*alias))) {
            if listing.pages.is_some() {
                listing.again = listing.again.max(Some(why));
            } else {
                listing.ask_again(why, now);
            }
        }
    }
}

fn saturated(requests: usize) -> u32 {
    number::saturated(requests)
}

/// The time until a list that takes this number of requests is asked for again (rule 1).
fn period(requests: u32) -> Duration {
    PERIOD.max(DAY / SCHEDULED_A_DAY * requests)
}

#[cfg(test)]
mod tests;

//! Knowledge: what Metrica's answers have shown of one token, so that a later refusal can be told from another.
//!
//! 1. An answer of success proves that the token has one of the scopes that the operation needs; rights are fixed when a
//!    token is issued, so it has it for ever. A report or a read of a counter proves `metrika:read` only where the counter is none of the documentation's demo
//!    counters and not known to be public, as those are shown to every token.
//! 2. It also proves that the token's owner may look at the counter of its path, or of its `ids`, or change it where the
//!    operation changes it; or, in its place, that the owner represents the login in `ulogin`. A dictionary proves nothing.
//! 3. A question about one counter tells exactly what the owner may do with it, the list of accounts whom the owner represents,
//!    and a list of counters that is refused that the token has no `metrika:read`.
//! 4. It is of one token: another one in the same file begins without it. At most [`LARGEST`] counters and [`MOST_LOGINS`]
//!    logins are kept; beyond that nothing new is.
//!
//! Sources: <https://yandex.com/dev/metrika/en/intro/authorization> (troubleshooting);
//! <https://yandex.com/dev/metrika/en/management/openapi/counter/counter> (`permission`).

use rustc_hash::{FxHashMap, FxHashSet};

use crate::login;
use crate::operation::Reach;
use crate::scope::{Scope, ScopeSet};
use crate::subject::{Counters, Subject};

/// Rule 4.
pub const LARGEST: usize = 10_000;

/// Rule 4.
pub const MOST_LOGINS: usize = 500;

/// Counters that the documentation shows to everybody.
pub const DEMO_COUNTERS: [u64; 2] = [44_147_844, 2_215_573];

/// What the owner of a token may do with a counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Permission {
    /// Nothing (rule 3).
    Nothing,
    /// Look at it because everybody may (rule 3).
    Public,
    /// Look at it, and perhaps more (rule 2).
    Seen,
    /// Look at it and no more (rule 3).
    View,
    /// Change it.
    Edit,
}

impl Permission {
    /// What the API's word for it means.
    #[must_use]
    pub fn of(word: &str) -> Option<Self> {
        Some(match word {
            "own" | "edit" => Self::Edit,
            "view" | "analyst" | "analyst_access_filter" => Self::View,
            "public_stat" => Self::Public,
            _ => return None,
        })
    }
}

/// One thing that was learnt.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Fact {
    /// The token has one of these scopes.
    Proven(ScopeSet),
    /// The token has none of these scopes.
    Lacks(ScopeSet),
    /// The owner may do this with that counter.
    Permission(u64, Permission),
    /// The owner represents this login.
    Represents(Box<str>),
    /// Every login that the owner represents was told.
    AllLogins,
    /// The owner's login is this.
    Owner(Box<str>),
}

/// Everything that was learnt of one token.
#[derive(Debug, Clone, Default)]
pub struct Knowledge {
    /// Sets of scopes of which the token has one: a bit for the [`ScopeSet::index`] of each.
    proven: u32,
    /// Sets of scopes of which it has none, the same way.
    lacks: u32,
    counters: FxHashMap<u64, Permission>,
    logins: FxHashSet<Box<str>>,
    all_logins: bool,
    owner: Option<Box<str>>,
}

impl Knowledge {
    /// Takes a fact; whether it was news.
    pub fn learn(&mut self, fact: &Fact) -> bool {
        match fact {
            Fact::Proven(needs) => {
                let before = self.proven;
                self.proven |= needs.bit();
                self.lacks &= !needs.bit();
                before != self.proven
            }
            Fact::Lacks(needs) => {
                let before = self.lacks;
                self.lacks |= needs.bit();
                before != self.lacks
            }
            Fact::AllLogins => !std::mem::replace(&mut self.all_logins, true),
            Fact::Permission(counter, new) => self.learn_permission(*counter, *new),
            Fact::Represents(login) => {
                self.logins.len() < MOST_LOGINS && !self.logins.contains(login) && self.logins.insert(login.clone())
            }
            Fact::Owner(login) => self.owner.replace(login.clone()).as_ref() != Some(login),
        }
    }

    fn learn_permission(&mut self, counter: u64, new: Permission) -> bool {
        let room = self.counters.len() < LARGEST;
        match self.counters.get_mut(&counter) {
            Some(known) => {
                // What is only seen says nothing new of what was told, or of what may be changed.
                let stays = *known == new || (new == Permission::Seen && *known != Permission::Nothing);
                if !stays {
                    *known = new;
                }
                !stays
            }
            None if room => {
                self.counters.insert(counter, new);
                true
            }
            None => false,
        }
    }

    /// What an answer of success to a request that needs any of `needs` and reaches so far shows and is news (rules 1 and 2).
    pub fn learn_from_success(&mut self, needs: ScopeSet, reach: Reach, subject: &Subject) -> Vec<Fact> {
        let mut news = Vec::new();
        let mut learn = |knowledge: &mut Self, fact: Fact| {
            if knowledge.learn(&fact) {
                news.push(fact);
            }
        };
        if reach == Reach::Nobody {
            return news;
        }
        let reads = needs.contains(Scope::Read);
        if self.proven & needs.bit() == 0 && !(reads && self.is_for_all(subject)) {
            learn(self, Fact::Proven(needs));
        }
        match (&subject.login, reach, &subject.counters) {
            // In another's name, it says nothing of what the owner may do.
            (Some(login), ..) if login::is_one(login) && !self.logins.contains(login) => {
                learn(self, Fact::Represents(login.clone()));
            }
            (None, Reach::Counter(_) | Reach::Reports, Counters::One(counter)) => {
                learn(self, Fact::Permission(*counter, if reads { Permission::Seen } else { Permission::Edit }));
            }
            // What an operation takes no notice of shows nothing.
            _ => {}
        }
        news
    }

    /// The counter that a request works on by its path, where the owner is known to be allowed to look at it and no more.
    #[must_use]
    pub fn restricted(&self, reach: Reach, subject: &Subject) -> Option<u64> {
        let (Reach::Counter(_), None, Counters::One(counter)) = (reach, &subject.login, &subject.counters) else {
            return None;
        };
        let known = self.counters.get(counter)?;
        matches!(known, Permission::Public | Permission::View).then_some(*counter)
    }

    /// Whether an answer of success proves that Metrica accepts the token. What may be shown to everybody proves nothing: a
    /// dictionary, a read of a counter of which it is not known what the owner may do with it.
    #[must_use]
    pub fn is_proof_of_the_token(&self, needs: ScopeSet, reach: Reach, subject: &Subject) -> bool {
        let is_granted = |counter: &u64| self.counters.get(counter).is_some_and(|known| *known >= Permission::View);
        match reach {
            Reach::Nobody => false,
            _ if !needs.contains(Scope::Read) => true,
            Reach::Account | Reach::Counters => true,
            Reach::Counter(_) | Reach::Reports => {
                let counters = subject.counters.as_slice();
                !counters.is_empty() && counters.iter().all(is_granted)
            }
        }
    }

    /// Whether it names a counter that is shown to every token.
    fn is_for_all(&self, subject: &Subject) -> bool {
        subject
            .counters
            .as_slice()
            .iter()
            .any(|counter| DEMO_COUNTERS.contains(counter) || self.counters.get(counter) == Some(&Permission::Public))
    }

    /// Whether the token was seen to have none of `needs`.
    #[must_use]
    pub const fn lacks(&self, needs: ScopeSet) -> bool {
        self.lacks & needs.bit() != 0
    }

    /// Whether all logins that the owner represents are known.
    #[must_use]
    pub const fn knows_all_logins(&self) -> bool {
        self.all_logins
    }

    /// Whether the token was seen to have a scope that is enough for what needs any of `needs`.
    #[must_use]
    pub fn has_proven(&self, needs: ScopeSet) -> bool {
        (0..ScopeSet::COUNT).any(|index| {
            self.proven & ScopeSet::from_index(index).bit() != 0 && needs.contains_all(ScopeSet::from_index(index))
        })
    }

    /// What is known of a counter.
    #[must_use]
    pub fn permission(&self, counter: u64) -> Option<Permission> {
        self.counters.get(&counter).copied()
    }

    /// Whether the owner was seen to represent a login.
    #[must_use]
    pub fn represents(&self, login: &str) -> bool {
        self.logins.contains(login)
    }

    /// The owner's login, where it was told.
    #[must_use]
    pub fn owner(&self) -> Option<&str> {
        self.owner.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATH: Reach = Reach::Counter(3);

    fn set(scopes: &[Scope]) -> ScopeSet {
        scopes.iter().copied().collect()
    }

    fn of_counter(counter: u64) -> Subject {
        Subject { counters: Counters::One(counter), ..Subject::default() }
    }

    #[test]
    fn rule_1_success_proves_one_of_the_scopes() {
        let mut knowledge = Knowledge::default();
        let (expenses, write) = (set(&[Scope::Expenses, Scope::Write]), set(&[Scope::Write]));
        let offline = set(&[Scope::OfflineData, Scope::Write]);
        assert_eq!(
            knowledge.learn_from_success(expenses, PATH, &of_counter(5)),
            [Fact::Proven(expenses), Fact::Permission(5, Permission::Edit)]
        );
        assert!(knowledge.has_proven(expenses) && !knowledge.has_proven(offline) && !knowledge.has_proven(write));
        assert!(knowledge.learn_from_success(expenses, PATH, &of_counter(5)).is_empty(), "it is no news twice");
        knowledge.learn_from_success(write, PATH, &of_counter(5));
        assert!(knowledge.has_proven(offline), "write is enough for it");
    }

    #[test]
    fn rule_1_what_everybody_sees_proves_nothing() {
        let read = set(&[Scope::Read]);
        let mut knowledge = Knowledge::default();
        knowledge.learn_from_success(read, Reach::Reports, &of_counter(DEMO_COUNTERS[0]));
        knowledge.learn(&Fact::Permission(9, Permission::Public));
        knowledge.learn_from_success(read, PATH, &of_counter(9));
        assert!(!knowledge.has_proven(read));
        knowledge.learn_from_success(read, Reach::Counters, &Subject::default());
        assert!(knowledge.has_proven(read), "the list of counters is nobody else's");
    }

    #[test]
    fn what_may_be_shown_to_every_token_proves_none() {
        let (read, write) = (set(&[Scope::Read]), set(&[Scope::Write]));
        let mut knowledge = Knowledge::default();
        knowledge.learn(&Fact::Permission(1, Permission::View));
        knowledge.learn(&Fact::Permission(2, Permission::Public));
        knowledge.learn(&Fact::Permission(3, Permission::Seen));
        let proves = |needs, reach, subject: &Subject| knowledge.is_proof_of_the_token(needs, reach, subject);
        assert!(
            proves(read, Reach::Counters, &Subject::default()) && proves(read, Reach::Account, &Subject::default())
        );
        assert!(!proves(read, Reach::Nobody, &Subject::default()), "a dictionary");
        assert!(proves(read, Reach::Reports, &of_counter(1)) && proves(write, PATH, &of_counter(4)));
        for counter in [2, 3, 4, DEMO_COUNTERS[0]] {
            assert!(!proves(read, Reach::Reports, &of_counter(counter)), "{counter}");
            assert!(!proves(read, PATH, &of_counter(counter)), "{counter}");
        }
        assert!(!proves(read, Reach::Reports, &Subject::default()));
    }

    #[test]
    fn a_counter_that_is_shown_may_be_known_by_an_older_permission() {
        let mut knowledge = Knowledge::default();
        knowledge.learn(&Fact::Permission(1, Permission::View));
        knowledge.learn(&Fact::Permission(2, Permission::Edit));
        let restricted = |reach, subject: &Subject| knowledge.restricted(reach, subject);
        assert_eq!(restricted(PATH, &of_counter(1)), Some(1));
        assert_eq!((restricted(PATH, &of_counter(2)), restricted(PATH, &of_counter(3))), (None, None));
        assert_eq!(restricted(Reach::Reports, &of_counter(1)), None, "a report shows no permission");
        let for_another = Subject { login: Some("partner".into()), ..of_counter(1) };
        assert_eq!(restricted(PATH, &for_another), None);
    }

    #[test]
    fn rules_2_and_3_what_is_told_stays_beside_what_is_seen() {
        let read = set(&[Scope::Read]);
        let mut knowledge = Knowledge::default();
        knowledge.learn_from_success(read, PATH, &of_counter(1));
        assert_eq!(knowledge.permission(1), Some(Permission::Seen));
        assert!(knowledge.learn(&Fact::Permission(1, Permission::View)));
        assert!(!knowledge.learn(&Fact::Permission(1, Permission::Seen)), "it was told");
        assert!(knowledge.learn(&Fact::Permission(1, Permission::Edit)), "a grant was added");
        knowledge.learn(&Fact::Permission(2, Permission::Nothing));
        assert!(knowledge.learn(&Fact::Permission(2, Permission::Seen)), "it can be seen now");
        let of_login = Subject { login: Some("partner".into()), ..Subject::default() };
        assert_eq!(
            knowledge.learn_from_success(read, Reach::Counters, &of_login).last(),
            Some(&Fact::Represents("partner".into()))
        );
        assert!(knowledge.represents("partner") && !knowledge.represents("other"));
    }

    #[test]
    fn rule_2_what_an_operation_takes_no_notice_of_shows_nothing() {
        let read = set(&[Scope::Read]);
        let mut knowledge = Knowledge::default();
        assert_eq!(knowledge.learn_from_success(read, Reach::Nobody, &of_counter(1)), [], "a dictionary");
        assert_eq!(knowledge.learn_from_success(read, Reach::Account, &of_counter(1)), [Fact::Proven(read)]);
        let for_another = Subject { login: Some("partner".into()), ..of_counter(1) };
        let learnt = knowledge.learn_from_success(read, Reach::Reports, &for_another);
        assert_eq!(learnt, [Fact::Represents("partner".into())], "of the owner's own grant it says nothing");
        let no_login = Subject { login: Some("x".repeat(200).into()), ..Subject::default() };
        assert_eq!(knowledge.learn_from_success(read, Reach::Counters, &no_login), []);
    }

    #[test]
    fn rule_3_what_is_lacking_is_told_and_proof_takes_it_back() {
        let read = set(&[Scope::Read]);
        let mut knowledge = Knowledge::default();
        assert!(knowledge.learn(&Fact::Lacks(read)) && knowledge.lacks(read));
        assert!(knowledge.learn(&Fact::Proven(read)) && !knowledge.lacks(read));
        assert!(
            knowledge.learn(&Fact::AllLogins) && knowledge.knows_all_logins() && !knowledge.learn(&Fact::AllLogins)
        );
    }

    #[test]
    fn rule_4_it_is_bounded() {
        let mut knowledge = Knowledge::default();
        for counter in 1..=LARGEST + 10 {
            knowledge.learn(&Fact::Permission(u64::try_from(counter).unwrap(), Permission::Seen));
        }
        assert_eq!(knowledge.counters.len(), LARGEST);
        assert!(knowledge.learn(&Fact::Permission(1, Permission::View)), "what is kept can still change");
    }
}

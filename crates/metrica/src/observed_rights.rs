//! Observed rights: the facts that Metrica's responses have shown about one token and its owner, which distinguish the
//! causes of later refusals.
//!
//! 1. A success proves that the token has one of the scopes that the operation needs; the proof lasts as long as the token,
//!    because its rights are fixed when it is issued. Of reads, only the list of the owner's counters proves a scope: a public
//!    counter is shown to every token, whatever else its owner may do with it, and an operation that is not in the catalogue
//!    may be a dictionary, which proves nothing.
//! 2. A success also proves that the token's owner may view the counter of its path or its `ids`, or edit it if the
//!    operation changes it. With `ulogin` it proves instead that the owner represents that login.
//! 3. A question about counters shows exactly what the owner, or a login that it represents, may do with them; the list of
//!    accounts shows whom the owner represents; a refused list of counters shows that the token lacks `metrika:read`.
//! 4. Scopes belong to the token, and another token in the same file begins without them. Permissions and represented
//!    logins belong to the owner ([`Fact::is_of_owner`]): they hold for each token that is proven to be of that owner. At
//!    most [`LARGEST`] counters and [`MOST_LOGINS`] logins are kept; further ones are ignored.
//! 5. A list of the owner's counters ([`Fact::List`]) replaces everything known of single counters, except facts that were
//!    learnt since the gate began to read it ([`Fact::ListBegins`]). Later facts about one counter take precedence over the
//!    list, unless they tell less than the list.
//! 6. A denial contradicts the known access to its counter: [`Knowledge::access`] then treats that access, and more, as
//!    unknown until a fact proves it or tells the permission exactly.
//!
//! Sources: <https://yandex.com/dev/metrika/en/intro/authorization> (troubleshooting);
//! <https://yandex.com/dev/metrika/en/management/openapi/counter/counter> (`permission`).

use std::sync::Arc;

use rustc_hash::{FxHashMap, FxHashSet};

mod permission;

pub use permission::{Access, Permission};
use permission::{learn_permission, stays};

use crate::counter_list::CounterList;
use crate::login;
use crate::operation::Reach;
use crate::scope::{Scope, ScopeSet};
use crate::subject::{Counters, Subject};

/// The maximum number of known counters (rule 4).
pub const LARGEST: usize = 10_000;

/// The maximum number of known logins (rule 4).
pub const MOST_LOGINS: usize = 500;

/// Counters of the documentation, which everybody may view.
pub const DEMO_COUNTERS: [u64; 2] = [44_147_844, 2_215_573];

/// A fact learnt about a token or its owner.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Fact {
    /// The token has one of these scopes.
    Proven(ScopeSet),
    /// The token has none of these scopes.
    Lacks(ScopeSet),
    /// The owner has this permission on the counter.
    Permission(u64, Permission),
    /// The gate begins to read the list of the owner's counters (rule 5).
    ListBegins,
    /// The counters of the owner (rule 5).
    List(Arc<CounterList>),
    /// This login, which the owner represents, has this permission on the counter.
    PermissionOf(Box<str>, u64, Permission),
    /// The owner represents this login.
    Represents(Box<str>),
    /// The complete list of logins that the owner represents.
    Logins(Box<[Box<str>]>),
    /// The owner does not represent this login.
    NotRepresented(Box<str>),
    /// The login of the owner.
    Owner(Box<str>),
    /// Metrica refuses the token even data that it shows to everybody.
    Excluded,
}

impl Fact {
    /// Whether the fact holds for every token of the same owner (rule 4).
    #[must_use]
    pub const fn is_of_owner(&self) -> bool {
        match self {
            Self::Permission(..)
            | Self::ListBegins
            | Self::List(_)
            | Self::PermissionOf(..)
            | Self::Represents(_)
            | Self::Logins(_)
            | Self::NotRepresented(_) => true,
            Self::Proven(_) | Self::Lacks(_) | Self::Owner(_) | Self::Excluded => false,
        }
    }
}

/// All facts about one token.
#[derive(Debug, Clone, Default)]
pub struct Knowledge {
    /// Sets of scopes of which the token has at least one, as bits by [`ScopeSet::index`].
    proven: u32,
    /// Sets of scopes of which the token has none, in the same form.
    lacks: u32,
    counters: FxHashMap<u64, Permission>,
    list: Option<Arc<CounterList>>,
    /// The least access to each counter that a denial contradicts (rule 6).
    contradicted: FxHashMap<u64, Access>,
    /// The counters about which facts were learnt since the gate began to read the list (rule 5).
    since_list: Option<FxHashSet<u64>>,
    /// Keyed by the canonical login.
    of_logins: FxHashMap<(Box<str>, u64), Permission>,
    /// The value is whether the list of accounts contained the login, rather than only a request with it.
    logins: FxHashMap<Box<str>, bool>,
    all_logins: bool,
    owner: Option<Box<str>>,
    excluded: bool,
}

impl Knowledge {
    /// Records a fact. Returns whether it was new.
    pub fn learn(&mut self, fact: &Fact) -> bool {
        match fact {
            Fact::Proven(needs) => {
                let before = (self.proven, self.excluded);
                self.proven |= needs.bit();
                self.lacks &= !needs.bit();
                self.excluded = false;
                before != (self.proven, false)
            }
            Fact::Lacks(needs) => {
                let before = self.lacks;
                self.lacks |= needs.bit();
                before != self.lacks
            }
            Fact::Permission(counter, new) => self.learn_counter(*counter, *new),
            Fact::ListBegins => {
                self.since_list = Some(FxHashSet::default());
                true
            }
            Fact::List(list) => {
                let newer = self.since_list.take();
                let is_newer = |counter: &u64| newer.as_ref().is_some_and(|newer| newer.contains(counter));
                self.counters.retain(|counter, _| is_newer(counter));
                self.contradicted.retain(|counter, _| is_newer(counter));
                self.list.replace(list.clone()).as_ref() != Some(list)
            }
            Fact::PermissionOf(login, counter, new) => {
                learn_permission(&mut self.of_logins, (login::canonical(login), *counter), *new)
            }
            Fact::Represents(login) => {
                let is_news = self.logins.len() < MOST_LOGINS && self.represented(login).is_none();
                is_news && self.logins.insert(login.clone(), false).is_none()
            }
            Fact::Logins(logins) => self.learn_logins(logins),
            Fact::NotRepresented(login) => self.forget(|known| login::is_same(known, login)),
            Fact::Owner(login) => self.owner.replace(login.clone()).as_ref() != Some(login),
            Fact::Excluded => !std::mem::replace(&mut self.excluded, true),
        }
    }

    fn learn_counter(&mut self, counter: u64, new: Permission) -> bool {
        if let Some(newer) = self.since_list.as_mut().filter(|newer| newer.len() < LARGEST) {
            newer.insert(counter);
        }
        let is_settled = |denied: &Access| new.is_exact() || new.allows(*denied) == Some(true);
        let was_contradicted = self.contradicted.get(&counter).is_some_and(is_settled);
        if was_contradicted {
            self.contradicted.remove(&counter);
        }
        let listed = || self.list.as_ref().and_then(|list| list.get(counter));
        let is_listed = !self.counters.contains_key(&counter) && listed().is_some_and(|listed| stays(listed, new));
        was_contradicted | (!is_listed && learn_permission(&mut self.counters, counter, new))
    }

    fn learn_logins(&mut self, listed: &[Box<str>]) -> bool {
        let listed: Vec<_> = listed.iter().take(MOST_LOGINS).collect();
        let mut is_news = !std::mem::replace(&mut self.all_logins, true);
        let is_listed = |login: &str| listed.iter().any(|listed| login::is_same(listed, login));
        let before = self.logins.iter().filter(|(login, was_listed)| **was_listed && !is_listed(login));
        let gone: Vec<_> = before.map(|(login, _)| login.clone()).collect();
        is_news |= self.forget(|known| gone.iter().any(|gone| **gone == *known));
        for login in listed {
            is_news |= self.logins.insert(login.clone(), true) != Some(true);
        }
        is_news
    }

    /// Removes the logins that `is_gone`, which the owner does not represent, and their permissions. Returns whether there
    /// were any.
    fn forget(&mut self, is_gone: impl Fn(&str) -> bool) -> bool {
        let before = self.logins.len();
        self.logins.retain(|login, _| !is_gone(login));
        let logins = &self.logins;
        self.of_logins.retain(|(login, _), _| logins.keys().any(|kept| login::is_same(kept, login)));
        before != self.logins.len()
    }

    /// The facts that hold for every token of the same owner.
    #[must_use]
    pub fn of_owner(&self) -> Vec<Fact> {
        let with = |wanted: bool| self.logins.iter().filter(move |(_, listed)| **listed == wanted);
        let listed = with(true).map(|(login, _)| login.clone()).collect();
        let listed = self.all_logins.then_some(Fact::Logins(listed));
        let seen = with(false).map(|(login, _)| Fact::Represents(login.clone()));
        let list = self.list.iter().map(|list| Fact::List(list.clone()));
        let counters = self.counters.iter().map(|(counter, permission)| Fact::Permission(*counter, *permission));
        let of_logins = self.of_logins.iter();
        let of_logins =
            of_logins.map(|((login, counter), permission)| Fact::PermissionOf(login.clone(), *counter, *permission));
        listed.into_iter().chain(seen).chain(list).chain(counters).chain(of_logins).collect()
    }

    /// Records the facts that a successful request shows, and returns the new ones (rules 1 and 2). The request needed one
    /// of `needs`.
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
        // Of reads, only the list of the owner's counters surely needs the scope: a counter may be public, and an operation
        // that is not in the catalogue may be a dictionary.
        let may_be_public = reads && reach != Reach::Counters;
        if self.proven & needs.bit() == 0 && !may_be_public {
            learn(self, Fact::Proven(needs));
        }
        match (&subject.login, reach, &subject.counters) {
            // With `ulogin`, a success shows nothing of the owner's own permissions.
            (Some(login), ..) if login::is_one(login) && self.represented(login).is_none() => {
                learn(self, Fact::Represents(login.clone()));
            }
            (None, Reach::Counter(_) | Reach::Reports, Counters::One(counter)) => {
                learn(self, Fact::Permission(*counter, if reads { Permission::Seen } else { Permission::Changed }));
            }
            // Parameters that an operation ignores show nothing.
            _ => {}
        }
        news
    }

    /// The counter in the path of a request, if the owner is known to have view access only.
    #[must_use]
    pub fn restricted(&self, reach: Reach, subject: &Subject) -> Option<u64> {
        let (Reach::Counter(_), None, Counters::One(counter)) = (reach, &subject.login, &subject.counters) else {
            return None;
        };
        let known = self.known(*counter)?;
        matches!(known, Permission::Public | Permission::View).then_some(*counter)
    }

    /// Whether a success proves that Metrica accepts the token. Data that may be public proves nothing: a dictionary, or a
    /// counter on which the owner's permission is unknown.
    #[must_use]
    pub fn is_proof_of_the_token(&self, needs: ScopeSet, reach: Reach, subject: &Subject) -> bool {
        let is_granted = |counter: &u64| self.is_granted(*counter);
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

    /// Whether the token is known to have none of `needs`.
    #[must_use]
    pub const fn lacks(&self, needs: ScopeSet) -> bool {
        self.lacks & needs.bit() != 0
    }

    /// Whether all logins that the owner represents are known.
    #[must_use]
    pub const fn knows_all_logins(&self) -> bool {
        self.all_logins
    }

    /// Whether the token is known to have a scope that suffices for an operation that needs one of `needs`.
    #[must_use]
    pub fn has_proven(&self, needs: ScopeSet) -> bool {
        (0..ScopeSet::COUNT).any(|index| {
            self.proven & ScopeSet::from_index(index).bit() != 0 && needs.contains_all(ScopeSet::from_index(index))
        })
    }

    /// Whether the token is known to have any scope.
    #[must_use]
    pub const fn has_proven_anything(&self) -> bool {
        self.proven != 0
    }

    /// Whether Metrica refuses the token even data that it shows to everybody.
    #[must_use]
    pub const fn is_excluded(&self) -> bool {
        self.excluded
    }

    /// The known permission of the owner on a counter.
    fn known(&self, counter: u64) -> Option<Permission> {
        self.counters.get(&counter).copied().or_else(|| self.list.as_ref()?.get(counter))
    }

    /// Records that Metrica denied this access to a counter (rule 6). Returns whether there was room for it.
    pub fn contradict(&mut self, counter: u64, denied: Access) -> bool {
        let room = self.contradicted.len() < LARGEST;
        if let Some(newer) = self.since_list.as_mut().filter(|newer| newer.len() < LARGEST) {
            newer.insert(counter);
        }
        match self.contradicted.get_mut(&counter) {
            Some(least) => *least = denied.min(*least),
            None if room => {
                self.contradicted.insert(counter, denied);
            }
            None => return false,
        }
        true
    }

    /// Whether a denial contradicts this access to a counter (rule 6).
    #[must_use]
    pub fn is_contradicted(&self, counter: u64, needed: Access) -> bool {
        self.contradicted.get(&counter).is_some_and(|denied| *denied <= needed)
    }

    /// Whether the owner has the access that an operation needs on a counter; `None` if that is unknown.
    #[must_use]
    pub fn access(&self, counter: u64, needed: Access) -> Option<bool> {
        if self.is_contradicted(counter, needed) {
            return None;
        }
        match self.permission(None, counter) {
            Some(permission) => permission.allows(needed),
            None => self.list.as_ref().is_some_and(|list| list.lacks(counter)).then_some(false),
        }
    }

    /// Whether the owner is known to have a permission of its own on a counter. A public counter can be viewed without one.
    #[must_use]
    pub fn is_granted(&self, counter: u64) -> bool {
        self.known(counter).is_some_and(|known| known >= Permission::View)
    }

    /// Whether the owner may act on behalf of a login; `None` if that is unknown.
    #[must_use]
    pub fn represents(&self, login: &str) -> Option<bool> {
        let is_own = self.owner().is_some_and(|owner| login::is_same(owner, login));
        if is_own || self.represented(login).is_some() {
            return Some(true);
        }
        self.all_logins.then_some(false)
    }

    /// The number of counters on which a permission of the owner is known.
    #[must_use]
    pub fn known_counters(&self) -> usize {
        let list = self.list.as_deref();
        let further = self.counters.keys().filter(|counter| list.is_none_or(|list| list.get(**counter).is_none()));
        further.count() + list.map_or(0, CounterList::len)
    }

    /// The known permission of the owner, or of a `login` that it represents, on a counter.
    #[must_use]
    pub fn permission(&self, login: Option<&str>, counter: u64) -> Option<Permission> {
        match login {
            None => {
                let open = DEMO_COUNTERS.contains(&counter).then_some(Permission::Public);
                self.known(counter).or(open)
            }
            Some(login) => self.of_logins.get(&(login::canonical(login), counter)).copied(),
        }
    }

    /// Whether the list of accounts contained the login.
    #[must_use]
    pub fn lists(&self, login: &str) -> bool {
        self.logins.iter().any(|(known, listed)| *listed && login::is_same(known, login))
    }

    /// The represented login of which `login` is a spelling.
    #[must_use]
    pub fn represented(&self, login: &str) -> Option<&str> {
        let same = || self.logins.keys().find(|known| login::is_same(known, login));
        self.logins.get_key_value(login).map(|(known, _)| known).or_else(same).map(|known| &**known)
    }

    /// The owner's login, if known.
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
            [Fact::Proven(expenses), Fact::Permission(5, Permission::Changed)]
        );
        assert!(knowledge.has_proven(expenses) && !knowledge.has_proven(offline) && !knowledge.has_proven(write));
        assert!(knowledge.learn_from_success(expenses, PATH, &of_counter(5)).is_empty(), "it is no news twice");
        knowledge.learn_from_success(write, PATH, &of_counter(5));
        assert!(knowledge.has_proven(offline), "write is enough for it");
    }

    #[test]
    fn rule_1_access_to_public_data_proves_no_scope() {
        let read = set(&[Scope::Read]);
        let mut knowledge = Knowledge::default();
        // Whatever else the owner may do with it.
        for permission in [None, Some(Permission::Public), Some(Permission::Edit)] {
            permission.map(|permission| knowledge.learn(&Fact::Permission(9, permission)));
            knowledge.learn_from_success(read, PATH, &of_counter(9));
            knowledge.learn_from_success(read, Reach::Reports, &of_counter(9));
            knowledge.learn_from_success(read, Reach::Account, &Subject::default());
            assert!(!knowledge.has_proven(read), "{permission:?}");
        }
        knowledge.learn_from_success(read, Reach::Counters, &Subject::default());
        assert!(knowledge.has_proven(read), "the list of counters is nobody else's");
    }

    #[test]
    fn data_open_to_every_token_proves_no_token() {
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
    fn rules_2_and_3_a_reported_permission_outweighs_an_observed_one() {
        let read = set(&[Scope::Read]);
        let mut knowledge = Knowledge::default();
        knowledge.learn_from_success(read, PATH, &of_counter(1));
        assert_eq!(knowledge.permission(None, 1), Some(Permission::Seen));
        assert!(knowledge.learn(&Fact::Permission(1, Permission::View)));
        assert!(!knowledge.learn(&Fact::Permission(1, Permission::Seen)), "it was told");
        assert!(knowledge.learn(&Fact::Permission(1, Permission::Changed)), "a grant was added");
        assert!(!knowledge.learn(&Fact::Permission(1, Permission::Seen)), "that says more");
        assert!(knowledge.learn(&Fact::Permission(1, Permission::Own)));
        assert!(!knowledge.learn(&Fact::Permission(1, Permission::Changed)), "and that even more");
        assert_eq!(knowledge.permission(None, DEMO_COUNTERS[0]), Some(Permission::Public), "as is documented");
        knowledge.learn(&Fact::Permission(2, Permission::Nothing));
        assert!(knowledge.learn(&Fact::Permission(2, Permission::Seen)), "it can be seen now");
        let of_login = Subject { login: Some("partner".into()), ..Subject::default() };
        assert_eq!(
            knowledge.learn_from_success(read, Reach::Counters, &of_login).last(),
            Some(&Fact::Represents("partner".into()))
        );
        assert_eq!((knowledge.represented("Partner"), knowledge.represented("other")), (Some("partner"), None));
    }

    #[test]
    fn rule_2_parameters_that_an_operation_ignores_prove_nothing() {
        let read = set(&[Scope::Read]);
        let mut knowledge = Knowledge::default();
        assert_eq!(knowledge.learn_from_success(read, Reach::Nobody, &of_counter(1)), [], "a dictionary");
        assert_eq!(knowledge.learn_from_success(read, Reach::Account, &of_counter(1)), []);
        let for_another = Subject { login: Some("partner".into()), ..of_counter(1) };
        let learnt = knowledge.learn_from_success(read, Reach::Reports, &for_another);
        assert_eq!(learnt, [Fact::Represents("partner".into())], "of the owner's own grant it says nothing");
        let no_login = Subject { login: Some("x".repeat(200).into()), ..Subject::default() };
        let learnt = knowledge.learn_from_success(read, Reach::Counters, &no_login);
        assert_eq!(learnt, [Fact::Proven(read)], "it is no login");
    }

    #[test]
    fn rule_3_a_missing_scope_is_recorded_until_a_success_disproves_it() {
        let read = set(&[Scope::Read]);
        let mut knowledge = Knowledge::default();
        assert!(knowledge.learn(&Fact::Lacks(read)) && knowledge.lacks(read));
        assert!(knowledge.learn(&Fact::Proven(read)) && !knowledge.lacks(read));
        let logins = Fact::Logins(["partner".into()].into());
        assert!(knowledge.learn(&logins) && knowledge.knows_all_logins() && !knowledge.learn(&logins));
    }

    #[test]
    fn rule_3_permissions_of_a_login_last_while_it_is_represented() {
        let mut knowledge = Knowledge::default();
        let logins = |logins: &[&str]| Fact::Logins(logins.iter().copied().map(Box::from).collect());
        knowledge.learn(&logins(&["Partner.A", "b"]));
        for login in ["partner-a", "b"] {
            assert!(knowledge.learn(&Fact::PermissionOf(login.into(), 5, Permission::View)));
        }
        assert_eq!(knowledge.permission(Some("PARTNER.A"), 5), Some(Permission::View));
        assert_eq!((knowledge.permission(None, 5), knowledge.permission(Some("c"), 5)), (None, None));
        assert!(knowledge.learn(&logins(&["partner-a"])));
        let of = |login| knowledge.permission(Some(login), 5);
        assert_eq!((of("partner-a"), of("b")), (Some(Permission::View), None));
        assert!(
            knowledge.learn(&Fact::NotRepresented("PARTNER-A".into())) && knowledge.represented("partner.a").is_none()
        );
    }

    #[test]
    fn rule_3_a_login_that_was_never_listed_is_not_removed_by_a_list() {
        let mut knowledge = Knowledge::default();
        let none = Fact::Logins(Box::default());
        knowledge.learn(&Fact::Represents("client".into()));
        knowledge.learn(&none);
        assert_eq!(knowledge.represented("client"), Some("client"), "as an agency's client is seen to be");
        knowledge.learn(&Fact::Logins(["client".into()].into()));
        assert!(knowledge.learn(&none) && knowledge.represented("client").is_none(), "the list had it");
    }

    #[test]
    fn rule_4_facts_about_the_owner_are_listed_for_its_other_tokens() {
        let read = set(&[Scope::Read]);
        let mut knowledge = Knowledge::default();
        let facts = [
            Fact::Represents("partner".into()),
            Fact::Permission(1, Permission::View),
            Fact::PermissionOf("partner".into(), 2, Permission::Edit),
        ];
        let of_token = [Fact::Proven(read), Fact::Owner("shop".into()), Fact::Excluded, Fact::Lacks(read)];
        facts.iter().chain(&of_token).for_each(|fact| _ = knowledge.learn(fact));
        assert_eq!(knowledge.of_owner(), facts);
        assert!(facts.iter().all(Fact::is_of_owner) && !of_token.iter().any(Fact::is_of_owner));
        let all = Fact::Logins(["partner".into()].into());
        knowledge.learn(&all);
        assert_eq!(knowledge.of_owner()[0], all);
    }

    #[test]
    fn rule_4_the_number_of_counters_is_bounded() {
        let mut knowledge = Knowledge::default();
        for counter in 1..=LARGEST + 10 {
            knowledge.learn(&Fact::Permission(u64::try_from(counter).unwrap(), Permission::Seen));
        }
        assert_eq!(knowledge.counters.len(), LARGEST);
        assert!(knowledge.learn(&Fact::Permission(1, Permission::View)), "what is kept can still change");
    }

    #[test]
    fn rule_4_a_spelling_of_a_known_login_takes_no_place() {
        let mut knowledge = Knowledge::default();
        for spelling in ["shop-x", "Shop-X", "shop.x", "SHOP-x"] {
            knowledge.learn(&Fact::Represents(spelling.into()));
        }
        assert_eq!((knowledge.logins.len(), knowledge.represented("SHOP.X")), (1, Some("shop-x")));
    }

    fn list(rows: &[(u64, Permission)]) -> Fact {
        Fact::List(Arc::new(CounterList::new(rows.to_vec(), true)))
    }

    #[test]
    fn rule_5_a_success_takes_nothing_from_what_a_list_told() {
        let (read, write) = (set(&[Scope::Read]), set(&[Scope::Write]));
        let mut knowledge = Knowledge::default();
        knowledge.learn(&list(&[(5, Permission::Own), (6, Permission::View)]));
        assert_eq!(knowledge.learn_from_success(read, PATH, &of_counter(5)), []);
        assert_eq!(knowledge.access(5, Access::Own), Some(true), "a read says less");
        knowledge.learn_from_success(write, PATH, &of_counter(6));
        assert_eq!(knowledge.access(6, Access::Edit), Some(true), "a change says more");
        knowledge.learn_from_success(read, PATH, &of_counter(7));
        assert_eq!(knowledge.access(7, Access::View), Some(true), "the list lacks it");
    }

    #[test]
    fn rule_5_a_list_replaces_only_what_is_older_than_its_beginning() {
        let mut knowledge = Knowledge::default();
        knowledge.learn(&Fact::Permission(5, Permission::View));
        knowledge.learn(&Fact::ListBegins);
        knowledge.learn(&Fact::Permission(6, Permission::Own));
        knowledge.contradict(7, Access::View);
        knowledge.learn(&list(&[(7, Permission::Own)]));
        let of = |counter| knowledge.access(counter, Access::View);
        assert_eq!((of(5), of(6), of(7)), (Some(false), Some(true), None));
        knowledge.learn(&Fact::ListBegins);
        knowledge.learn(&list(&[(7, Permission::Own)]));
        assert_eq!(knowledge.access(7, Access::View), Some(true));
        assert_eq!(knowledge.access(6, Access::View), Some(false));
    }

    #[test]
    fn rule_6_a_denial_contradicts_the_access_it_was_for_and_more() {
        let mut knowledge = Knowledge::default();
        knowledge.learn(&list(&[(5, Permission::Own)]));
        assert!(knowledge.contradict(5, Access::Edit));
        let of =
            |knowledge: &Knowledge| [Access::View, Access::Edit, Access::Own].map(|needed| knowledge.access(5, needed));
        assert_eq!(of(&knowledge), [Some(true), None, None]);
        knowledge.learn(&Fact::Permission(5, Permission::Seen));
        assert_eq!(of(&knowledge), [Some(true), None, None], "a read does not prove that it can be changed");
        knowledge.contradict(5, Access::View);
        assert_eq!(of(&knowledge), [None; 3]);
        knowledge.learn(&Fact::Permission(5, Permission::Seen));
        assert_eq!(of(&knowledge), [Some(true); 3], "only the request was refused");
        knowledge.contradict(5, Access::Edit);
        knowledge.learn(&Fact::Permission(5, Permission::View));
        assert_eq!(of(&knowledge), [Some(true), Some(false), Some(false)]);
        (6..).take(LARGEST).for_each(|counter| _ = knowledge.contradict(counter, Access::View));
        assert!(!knowledge.contradict(1, Access::View), "it is bounded, and says so");
    }

    #[test]
    fn rule_5_the_tokens_of_an_owner_share_one_list() {
        let rows = (0..100_000).map(|counter| (counter, Permission::View)).collect();
        let list = Arc::new(CounterList::new(rows, true));
        let mut tokens = vec![Knowledge::default(); 20];
        tokens.iter_mut().for_each(|knowledge| _ = knowledge.learn(&Fact::List(list.clone())));
        assert_eq!(Arc::strong_count(&list), 21);
        let own: usize =
            tokens.iter().map(|knowledge| size_of_val(knowledge) + knowledge.counters.capacity() * 16).sum();
        assert!(own + 900_000 < 10_000_000, "{own}");
        assert!(own < 20 * 1024, "{own}");
    }
}

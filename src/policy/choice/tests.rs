//! Tests of the numbered rules of the module.

use std::collections::BTreeMap;

use metrica::operation::{Catalogue, Lookup, Verb};
use metrica::scope::{Scope, ScopeSet};
use proptest::prelude::*;

use super::*;

/// The facts known of each position: the owner, and the access to counters.
#[derive(Debug, Clone, Default)]
struct World {
    owners: Vec<Option<&'static str>>,
    access: BTreeMap<(usize, u64), bool>,
    logins: BTreeMap<(usize, String), bool>,
    /// The positions of tokens that are known to lack the scope.
    without_scope: Vec<usize>,
    /// The positions of tokens that cannot be sent.
    blocked: Vec<usize>,
    /// The counters that were only seen, by position.
    seen: Vec<(usize, u64)>,
}

impl Accounts for World {
    fn access(&self, position: usize, counter: u64, _: Access) -> Option<bool> {
        self.access.get(&(position, counter)).copied()
    }

    fn represents(&self, position: usize, login: &str) -> Option<bool> {
        self.logins.get(&(position, login.to_owned())).copied()
    }

    fn owner(&self, position: usize, then: &mut dyn FnMut(&str)) {
        self.owners.get(position).copied().flatten().into_iter().for_each(then);
    }

    fn is_granted(&self, position: usize, counter: u64) -> bool {
        self.access.get(&(position, counter)) == Some(&true) && !self.seen.contains(&(position, counter))
    }

    fn lacks(&self, position: usize, _: ScopeSet) -> bool {
        self.without_scope.contains(&position)
    }

    fn can_be_sent(&self, position: usize) -> bool {
        !self.blocked.contains(&position)
    }
}

fn with<T>(world: &World, verb: Verb, target: &str, then: impl FnOnce(Request<'_>) -> T) -> T {
    let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
    let names = strict_http::target::check(path, query, 10_000).unwrap();
    let catalogue = Catalogue::built_in();
    let Lookup::Known(operation) = catalogue.find(verb, path) else { panic!("{target} is no operation") };
    let subject = Subject::of(operation, path, query, names);
    then(Request::new(operation, &subject, world))
}

/// Candidates at these positions, listed in this order; the narrowest come first.
fn candidates(listed: &[u16]) -> Vec<Candidate> {
    (0..).zip(listed).map(|(position, listed)| Candidate { position, listed: *listed }).collect()
}

fn choose(world: &World, target: &str, listed: &[u16]) -> (u16, Option<u16>) {
    let chosen = with(world, Verb::Get, target, |request| request.choose(&candidates(listed))).unwrap();
    (chosen.first, chosen.next)
}

const GOALS: &str = "/management/v1/counter/5/goals";

fn world(owners: &[Option<&'static str>], access: &[(usize, u64, bool)]) -> World {
    let access = access.iter().map(|(position, counter, has)| ((*position, *counter), *has)).collect();
    World { owners: owners.to_vec(), access, ..World::default() }
}

#[test]
fn rule_2_candidates_are_ordered_granted_then_unknown_then_lacking() {
    let owners = [Some("one"), Some("two"), Some("three")];
    for (access, expected) in [
        (&[][..], (0, Some(1))),
        (&[(0, 5, false)], (1, Some(2))),
        (&[(2, 5, true)], (2, None)),
        (&[(0, 5, false), (1, 5, false)], (2, None)),
        (&[(0, 5, false), (1, 5, false), (2, 5, false)], (0, None)),
        (&[(0, 5, true), (2, 5, true)], (0, None)),
        (&[(0, 6, false)], (0, Some(1))),
    ] {
        assert_eq!(choose(&world(&owners, access), GOALS, &[0, 1, 2]), expected, "{access:?}");
    }
    let mut of_logins = world(&owners, &[(0, 5, true)]);
    of_logins.logins.insert((1, "partner".to_owned()), true);
    assert_eq!(choose(&of_logins, "/management/v1/counter/5/goals?ulogin=partner", &[0, 1, 2]), (1, None));
}

#[test]
fn rule_2_every_counter_of_a_request_counts() {
    let reports = "/stat/v1/data?metrics=ym:s:visits&ids=5,6";
    let owners = [Some("one"), Some("two")];
    let both = world(&owners, &[(0, 5, true), (0, 6, false), (1, 5, true), (1, 6, true)]);
    assert_eq!(choose(&both, reports, &[0, 1]), (1, None));
    let half = world(&owners, &[(0, 5, true), (1, 5, false)]);
    assert_eq!(choose(&half, reports, &[0, 1]), (0, None), "the other is known to lack one of them");
    // A counter that nobody has is in no list: it may be public.
    let public = world(&owners, &[(0, 5, false), (0, 6, false), (1, 5, false), (1, 6, true)]);
    assert_eq!(choose(&public, reports, &[0, 1]), (1, None), "who lacks fewer comes first");
}

#[test]
fn rule_3_the_narrowest_of_those_that_may_and_else_the_first_account() {
    // Position 0 is the narrowest, and listed last.
    let granted = world(&[Some("b"), Some("a"), Some("a")], &[(0, 5, true), (1, 5, true)]);
    assert_eq!(choose(&granted, GOALS, &[2, 0, 1]).0, 0);
    let unknown = world(&[Some("b"), Some("a"), Some("A")], &[]);
    assert_eq!(choose(&unknown, GOALS, &[2, 1, 0]), (1, Some(0)), "the narrowest of the account listed first");
    let nobody = world(&[None, None], &[]);
    assert_eq!(choose(&nobody, GOALS, &[1, 0]), (1, Some(0)), "of accounts that are not known, the first listed");
}

/// The owners become known one by one, as responses show them.
#[test]
fn rule_3_an_owner_that_becomes_known_moves_no_request_to_another_account() {
    let chosen = |owners: &[Option<&'static str>], target: &str| {
        let position = with(&world(owners, &[]), Verb::Post, target, |request| request.choose(&candidates(&[1, 0])));
        position.unwrap().first
    };
    for target in ["/management/v1/counters", "/management/v1/counter/5/undelete"] {
        for owners in [[None, None], [None, Some("a")], [Some("b"), None], [Some("b"), Some("a")]] {
            assert_eq!(chosen(&owners, target), 1, "{owners:?} {target}");
        }
        assert_eq!(chosen(&[Some("a"), Some("A")], target), 0, "the narrowest of one account");
    }
}

#[test]
fn rule_1_a_token_that_is_known_to_lack_the_scope_comes_last() {
    let mut world = world(&[Some("one"), Some("two")], &[(0, 5, true), (1, 5, false)]);
    assert_eq!(choose(&world, GOALS, &[0, 1]).0, 0);
    world.without_scope = vec![0];
    assert_eq!(choose(&world, GOALS, &[0, 1]), (1, None), "nor is it tried next");
}

#[test]
fn rule_8_a_token_that_can_be_sent_comes_before_one_that_cannot() {
    let owners = [Some("one"), Some("two"), Some("two")];
    let suspended = |access: &[(usize, u64, bool)], blocked: &[usize], verb: Verb, target: &str| {
        let world = World { blocked: blocked.to_vec(), ..world(&owners, access) };
        let chosen = with(&world, verb, target, |request| request.choose(&candidates(&[0, 1, 2]))).unwrap();
        (chosen.first, chosen.next)
    };
    let undelete = "/management/v1/counter/5/undelete";
    for (verb, target) in [(Verb::Get, GOALS), (Verb::Post, undelete)] {
        let granted = suspended(&[(0, 5, true), (1, 5, true)], &[0], verb, target);
        assert_eq!(granted, (1, None), "both have the access: {target}");
        let better = suspended(&[(0, 5, true)], &[0], verb, target);
        assert_eq!(better, (0, None), "knowledge comes first: {target}");
    }
    assert_eq!(suspended(&[], &[0], Verb::Get, GOALS), (1, None), "a read may look elsewhere");
    assert_eq!(suspended(&[], &[0], Verb::Post, undelete).0, 0, "what acts may not");
    assert_eq!(suspended(&[], &[0], Verb::Get, "/management/v1/counters").0, 0, "nor what is of the account alone");
    assert_eq!(suspended(&[(0, 5, false)], &[1], Verb::Post, undelete).0, 2, "of one account the other token");
    assert_eq!(suspended(&[], &[1], Verb::Get, GOALS), (0, Some(2)), "the next can be sent too");
}

#[test]
fn rule_9_the_next_is_of_another_account_if_that_is_known() {
    let chosen = |owners: &[Option<&'static str>]| choose(&world(owners, &[]), GOALS, &[0, 1, 2]);
    assert_eq!(chosen(&[Some("one"), None, Some("two")]), (0, Some(2)), "the second may be of the same account");
    assert_eq!(chosen(&[Some("one"), Some("One"), None]), (0, Some(2)));
    assert_eq!(chosen(&[None, None, None]), (0, Some(1)));
    assert_eq!(chosen(&[Some("one"), Some("one"), Some("one")]), (0, None));
}

#[test]
fn rule_5_counters_of_several_accounts_are_separated() {
    let split = |world: &World, target: &str| {
        with(world, Verb::Get, target, |request| request.rank(&candidates(&[0, 1])).split())
            .map(|split| split.iter().map(|(counter, candidate)| (*counter, candidate.position)).collect::<Vec<_>>())
    };
    let owners = [Some("one"), Some("two")];
    let apart = world(&owners, &[(0, 5, true), (0, 6, false), (1, 5, false), (1, 6, true)]);
    let reports = "/stat/v1/data?ids=5,6,5";
    assert_eq!(split(&apart, reports), Some(vec![(5, 0), (6, 1), (5, 0)]));
    assert_eq!(split(&apart, "/stat/v1/data?ids=5"), None);
    assert_eq!(split(&apart, "/stat/v1/data?ids=5,7"), None, "counter 7 may be anybody's");
    let nobody = world(&owners, &[(0, 5, true), (0, 6, false), (1, 5, false), (1, 6, false)]);
    assert_eq!(split(&nobody, reports), None, "Metrica says why");
    let seen = World { seen: vec![(0, 5)], ..apart.clone() };
    assert_eq!(split(&seen, reports), None, "counter 5 may be public");
    let token = |alias: &str| TokenRights { alias: TokenAlias::new(alias), scopes: ScopeSet::EMPTY, is_standby: false };
    let tokens = [token("one"), token("two")];
    let message = with(&apart, Verb::Get, reports, |request| {
        SeveralAccounts::new(&request.rank(&candidates(&[0, 1])).split().unwrap(), &tokens).to_string()
    });
    assert!(message.contains("5 with token one; 6 with token two"), "{message}");
    let many: Vec<_> = (0..50).map(|index| (u64::from(index), Candidate { position: index, listed: index })).collect();
    let tokens: Vec<_> = (0..50).map(|index| token(&format!("token{index}"))).collect();
    let message = SeveralAccounts::new(&many, &tokens).to_string();
    assert!(message.contains("; the others with 40 more tokens; send") && message.len() < 500, "{message}");
    let lacking: Vec<_> = SeveralAccounts::new(&many, &tokens).lacking().collect();
    assert!(lacking.len() == 50 && lacking[0].1.len() == 49 && !lacking[0].1.contains(&0));
}

#[test]
fn rule_6_an_operation_without_a_counter_uses_the_first_account() {
    let world = world(&[Some("b"), Some("a")], &[(0, 5, true)]);
    for target in ["/management/v1/counters", "/management/v1/labels", "/management/v1/accounts"] {
        assert_eq!(choose(&world, target, &[1, 0]), (1, None), "{target}");
    }
}

proptest! {
    /// Rules 2, 3 and 5 against their plain statement, for any knowledge of three tokens and two counters.
    #[test]
    fn no_token_is_chosen_whose_owner_is_known_to_lack_the_access(
        known in proptest::collection::vec(proptest::option::of(any::<bool>()), 6),
        owners in proptest::collection::vec(proptest::sample::select(vec![None, Some("a"), Some("b")]), 3),
        listed in Just(vec![0u16, 1, 2]).prop_shuffle(),
        both in any::<bool>(),
    ) {
        let access = known.iter().enumerate().filter_map(|(index, has)| Some(((index % 3, 5 + u64::from(index >= 3)), (*has)?)));
        let world = World { owners, access: access.collect(), ..World::default() };
        let counters: &[u64] = if both { &[5, 6] } else { &[5] };
        let target = if both { "/stat/v1/data?ids=5,6" } else { "/stat/v1/data?ids=5" };
        let fit = |position: u16| {
            let of = counters.iter().map(|counter| world.access(position.into(), *counter, Access::View));
            let of: Vec<_> = of.collect();
            if of.contains(&Some(false)) { 2 } else { usize::from(of.contains(&None)) }
        };
        let all = candidates(&listed);
        let (chosen, split, order) = with(&world, Verb::Get, target, |request| {
            let ranking = request.rank(&all);
            (request.choose(&all).unwrap(), ranking.split(), ranking.order().collect::<Vec<_>>())
        });
        let best = (0..3).map(fit).min().unwrap();
        prop_assert_eq!(fit(chosen.first), best);
        prop_assert_eq!(order[0].0.position, chosen.first);
        if let Some(next) = chosen.next {
            prop_assert!(best > 0, "nobody is tried after one that may");
            prop_assert!(fit(next) < 2, "nor one that is known to lack the access");
            let owner = |position: u16| world.owners[usize::from(position)];
            prop_assert!(next != chosen.first && (owner(next) != owner(chosen.first) || owner(next).is_none()));
        }
        let each = |counter: u64| (0..3).any(|position| world.access(position, counter, Access::View) == Some(true));
        prop_assert_eq!(split.is_some(), both && best == 2 && each(5) && each(6));
    }
}

#[test]
fn rule_4_a_request_chooses_among_the_candidates_alone() {
    use crate::policy::caller::{Caller, Callers, Conditions};
    use crate::policy::names::{CallerId, ListenerName};
    use crate::policy::rules::{Call, Rules};
    use crate::policy::{Denial, Policy, Wish};

    let rights = |alias: &str, scopes: &[Scope]| TokenRights {
        alias: TokenAlias::new(alias),
        scopes: scopes.iter().copied().collect(),
        is_standby: false,
    };
    let tokens = vec![
        rights("one", &[Scope::Read]),
        rights("two", &[Scope::Read]),
        rights("writes", &[Scope::Write]),
        rights("foreign", &[Scope::Read]),
    ];
    let caller = Caller {
        id: CallerId::new("a"),
        conditions: Conditions::ANYONE,
        scopes: [Scope::Read].into_iter().collect(),
        tokens: ["one", "two", "writes"].map(TokenAlias::new).to_vec(),
        rules: Rules::default(),
        strict: false,
    };
    let callers = Callers::new(vec![caller], &[ListenerName::new("app")]);
    let policy = Policy::new(callers, Catalogue::built_in(), tokens);
    let operation = policy.operation(Verb::Get, GOALS).unwrap();
    let names = strict_http::target::check(GOALS, None, 1000).unwrap();
    let subject = Subject::of(operation, GOALS, None, names);
    let call = Call { operation, path: GOALS, query: None, names, subject: &subject };
    // Whatever is known, the request decides among its candidates.
    let world = world(&[Some("x"), Some("y")], &[(0, 5, true), (1, 5, false)]);
    let chosen = |wanted: &str| policy.permit(0, &call, &world, Wish { account: Some(wanted.as_bytes()), tried: None });
    assert_eq!(chosen("two").unwrap().grant.token(), TokenAlias::new("two"));
    assert_eq!(chosen("two").unwrap().next, None);
    for wanted in ["foreign", "nobody", "writes", "", "One"] {
        assert_eq!(chosen(wanted), Err(Denial::BadAccount(operation.id)), "{wanted}");
    }
    // A token with which Metrica denied the request is not used again, nor is one of its account.
    let tried = |world: &World, tried: &str| {
        let wish = Wish { account: None, tried: Some(TokenAlias::new(tried)) };
        policy.permit(0, &call, world, wish).map(|permission| permission.grant.token().as_str())
    };
    assert_eq!((tried(&world, "one"), tried(&world, "two")), (Ok("two"), Ok("one")));
    let of_one = World { owners: vec![Some("x"), Some("X")], ..world };
    assert!(matches!(tried(&of_one, "one"), Err(Denial::TokenScopeMissing(..))), "there is no other account");
}

#[test]
fn rule_5_is_only_said_to_a_caller_whose_rules_are_not_enforced() {
    use crate::policy::caller::{Caller, Callers, Conditions};
    use crate::policy::names::{CallerId, ListenerName};
    use crate::policy::rules::{Call, Rules};
    use crate::policy::{Denial, Policy, Wish};

    let read: ScopeSet = [Scope::Read].into_iter().collect();
    let rights = |alias: &str| TokenRights { alias: TokenAlias::new(alias), scopes: read, is_standby: false };
    let caller = |id: &str, enforce: bool| Caller {
        id: CallerId::new(id),
        conditions: Conditions::ANYONE,
        scopes: read,
        tokens: ["one", "two"].map(TokenAlias::new).to_vec(),
        rules: Rules { enforce, ..Rules::default() },
        strict: false,
    };
    let callers = Callers::new(vec![caller("a", true), caller("b", false)], &[ListenerName::new("app")]);
    let policy = Policy::new(callers, Catalogue::built_in(), vec![rights("one"), rights("two")]);
    let (path, query) = ("/stat/v1/data", Some("ids=5,6"));
    let operation = policy.operation(Verb::Get, path).unwrap();
    let names = strict_http::target::check(path, query, 1000).unwrap();
    let subject = Subject::of(operation, path, query, names);
    let call = Call { operation, path, query, names, subject: &subject };
    let apart = world(&[Some("x"), Some("y")], &[(0, 5, true), (0, 6, false), (1, 5, false), (1, 6, true)]);
    let permitted = |caller| policy.permit(caller, &call, &apart, Wish::default());
    let several = Denial::SeveralAccounts(operation.id);
    assert_eq!(permitted(0), Err(several));
    assert_eq!(permitted(1).unwrap().shadowed, Some(several));
}

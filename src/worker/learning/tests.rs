//! Tests of what a worker learns from denials, and of its choices over any course of events.

use std::path::Path;

use http::{HeaderMap, HeaderValue, Method, Uri, Version, header::HOST};
use metrica::observed_rights::Access;
use metrica::operation::{Catalogue, Lookup, Operation};
use metrica::scope::Scope;
use proptest::prelude::*;

use super::*;
use crate::config::{Config, TokenCounters};
use crate::policy::caller::Callers;
use crate::policy::choice::{Accounts, Fit};
use crate::policy::decide::{self, Candidates, Decision, Identified, KnownState, RequestHead};
use crate::policy::names::ListenerName;
use crate::policy::rejection::{Reason, Rejection};
use crate::policy::{Policy, TokenRights};
use crate::token::{Standing, Token};
use crate::worker::WorkerAccounts;

fn scopes(list: &[Scope]) -> ScopeSet {
    list.iter().copied().collect()
}

fn slot(alias: &str, scope_list: &[Scope], counters: TokenCounters) -> Slot {
    Slot {
        alias: TokenAlias::new(alias),
        scopes: scopes(scope_list),
        token: Some(Token::parse(b"y0_canary-of-a-worker-in-a-test-000").unwrap()),
        epoch: 1,
        standing: Standing::Healthy,
        refused_since: None,
        next_look: None,
        standby: None,
        owner: None,
        counters,
    }
}

/// An operation, and its subject.
fn read(catalogue: &Catalogue, verb: Verb, target: &str) -> (Operation, Subject) {
    let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
    let names = strict_http::target::check(path, query, 1000).unwrap();
    let Lookup::Known(operation) = catalogue.find(verb, path) else { panic!("{target} is no operation") };
    (operation.clone(), Subject::of(operation, path, query, names))
}

/// A refusal of a request that Metrica answers as it answers a denial.
fn denied<'a>(token_use: TokenUse, operation: &Operation, subject: &'a Subject) -> Refused<'a> {
    Refused {
        token_use,
        status: 403,
        error_type: ErrorType::AccessDenied,
        verb: Some(operation.verb),
        operation: operation.id,
        needs: operation.scopes,
        reach: operation.reach,
        subject,
    }
}

fn listed(counters: &[u64]) -> Arc<CounterList> {
    Arc::new(CounterList::new(counters.iter().map(|counter| (*counter, Permission::Own)).collect(), true))
}

/// The reports of a kind that came.
fn contradictions(reports: &mut mpsc::UnboundedReceiver<Report>) -> usize {
    std::iter::from_fn(|| reports.try_recv().ok()).filter(|report| matches!(report, Report::Contradicted(_))).count()
}

const GOALS: &str = "/management/v1/counter/5/goals";

#[test]
fn a_denial_contradicts_a_known_access_whatever_its_cause() {
    let catalogue = Catalogue::built_in();
    let (goals, subject) = read(&catalogue, Verb::Get, GOALS);
    let with = |prepare: &dyn Fn(&Learning, TokenUse), counters: TokenCounters, change: &dyn Fn(&mut Refused<'_>)| {
        let (reports, mut received) = mpsc::unbounded_channel();
        let (learning, slots) = (Learning::new(reports), [slot("t", &[Scope::Read], counters)]);
        prepare(&learning, slots[0].token_use());
        let mut refused = denied(slots[0].token_use(), &goals, &subject);
        change(&mut refused);
        let before = learning.revision();
        let cause = learning.refused(&slots, &refused).0.cause;
        let accounts = WorkerAccounts { learning: &learning, slots: &slots };
        let known = accounts.access(0, 5, Access::View);
        assert_eq!(learning.revision() > before, known.is_none(), "a decision in between is made again");
        (cause, known, contradictions(&mut received))
    };
    let lists = |learning: &Learning, token_use: TokenUse| {
        learning.take(token_use, &[Fact::Proven(scopes(&[Scope::Read])), Fact::List(listed(&[5]))]);
    };
    let (cause, known, reports) = with(&lists, TokenCounters::Auto, &|_| {});
    assert_eq!((cause, known, reports), (Cause::RequestRefused, None, 1), "as a counter that moved looks");
    let configured = TokenCounters::Listed(listed(&[5]));
    let (_, known, reports) = with(&|_, _| {}, configured, &|_| {});
    assert_eq!((known, reports), (None, 1), "the configuration can be wrong too");
    let (_, known, reports) =
        with(&lists, TokenCounters::Auto, &|refused| refused.error_type = ErrorType::CounterInConnect);
    assert_eq!((known, reports), (None, 1));
    let silent = |refused: &mut Refused<'_>| (refused.verb, refused.error_type) = (Some(Verb::Head), ErrorType::Other);
    let (_, known, reports) = with(&lists, TokenCounters::Auto, &silent);
    assert_eq!((known, reports), (None, 1), "a HEAD has no body");
    let (_, known, reports) =
        with(&lists, TokenCounters::Auto, &|refused| refused.error_type = ErrorType::BackendError);
    assert_eq!((known, reports), (Some(true), 0), "that is no denial");
}

#[test]
fn a_contradiction_that_finds_no_room_is_not_reported() {
    let catalogue = Catalogue::built_in();
    let (goals, subject) = read(&catalogue, Verb::Get, GOALS);
    let (reports, mut received) = mpsc::unbounded_channel();
    let (learning, slots) = (Learning::new(reports), [slot("t", &[Scope::Read], TokenCounters::Auto)]);
    let token_use = slots[0].token_use();
    learning.take(token_use, &[Fact::List(listed(&[5]))]);
    learning.with(token_use, |known| {
        (100..)
            .take(metrica::observed_rights::LARGEST)
            .for_each(|counter| _ = known.knowledge.contradict(counter, Access::View));
    });
    learning.refused(&slots, &denied(token_use, &goals, &subject));
    assert_eq!(contradictions(&mut received), 0);
}

#[test]
fn counters_of_several_accounts_are_reported_once_a_second() {
    let (reports, mut received) = mpsc::unbounded_channel();
    let (learning, token_use) = (Learning::new(reports), slot("t", &[Scope::Read], TokenCounters::Auto).token_use());
    let start = Instant::now();
    for millis in [0, 10, 999, 1000, 1500] {
        learning.split(token_use, &[5, 6], start + Duration::from_millis(millis));
    }
    let received: Vec<_> = std::iter::from_fn(|| received.try_recv().ok()).collect();
    assert_eq!(received.len(), 2);
    assert!(matches!(&received[0], Report::Denied(_, Suspicion::Counters(None, counters)) if **counters == [5, 6]));
}

/// Three callers and two accounts, with tokens of different scopes.
const CONFIG: &str = "
listeners: [{name: app, address: '127.0.0.1:0'}]
tokens:
  one: {file: /nowhere/one, scopes: [metrika:read]}
  one_writes: {file: /nowhere/one_writes, scopes: [metrika:write]}
  two: {file: /nowhere/two, scopes: [metrika:read, metrika:write]}
  two_reads: {file: /nowhere/two_reads, scopes: [metrika:read]}
callers:
  - {id: agency, match: {listener: app, source: [127.0.0.1]}, scopes: [metrika:read, metrika:write], tokens: [one, one_writes, two, two_reads]}
  - {id: reports, match: {listener: app, source: [127.0.0.2]}, scopes: [metrika:read], tokens: [two, one]}
  - {id: client, match: {listener: app, source: [127.0.0.3]}, scopes: [metrika:read, metrika:write], tokens: [one_writes, two], counters: [1, 2]}
";

/// The account of each token of [`CONFIG`].
const ACCOUNTS: [usize; 4] = [0, 0, 1, 1];
const LOGINS: [&str; 2] = ["one", "two"];
const COUNTERS: u64 = 4;

/// A gate with one worker, and Metrica with two accounts.
struct World {
    config: Config,
    policy: Policy,
    slots: Vec<Slot>,
    learning: Learning,
    /// What each account may do with each counter.
    permissions: [[Permission; 4]; 2],
    /// The list of each account that is being read, as it was when its reading began.
    lists: [Option<Arc<CounterList>>; 2],
    now: Instant,
    _reports: mpsc::UnboundedReceiver<Report>,
}

const PERMISSIONS: [Permission; 4] = [Permission::Nothing, Permission::View, Permission::Edit, Permission::Own];

impl World {
    fn new() -> Self {
        let config = Config::parse(CONFIG, Path::new("gate.yaml")).unwrap_or_else(|error| panic!("{error}"));
        let rights = config.tokens.iter().map(|source| TokenRights {
            alias: source.alias,
            scopes: source.scopes,
            is_standby: false,
        });
        let callers = Callers::new(config.callers.clone(), &[ListenerName::new("app")]);
        let policy = Policy::new(callers, config.catalogue.clone(), rights.collect());
        let of = |source: &crate::config::TokenSource| {
            let held: Vec<_> = source.scopes.iter().collect();
            slot(source.alias.as_str(), &held, TokenCounters::Auto)
        };
        let slots = policy
            .tokens()
            .iter()
            .map(|token| of(config.tokens.iter().find(|source| source.alias == token.alias).unwrap()));
        let slots: Vec<_> = slots.collect();
        assert_eq!(
            slots.iter().map(|slot| slot.alias.as_str()).collect::<Vec<_>>(),
            ["one", "one_writes", "two", "two_reads"]
        );
        let (reports, received) = mpsc::unbounded_channel();
        Self {
            config,
            policy,
            slots,
            learning: Learning::new(reports),
            permissions: [[Permission::Nothing; 4]; 2],
            lists: [None, None],
            now: Instant::now(),
            _reports: received,
        }
    }

    fn of_account(&self, account: usize) -> impl Iterator<Item = TokenUse> {
        self.slots.iter().zip(ACCOUNTS).filter(move |(_, of)| *of == account).map(|(slot, _)| slot.token_use())
    }

    fn list_begins(&mut self, account: usize) {
        let rows = (1..).zip(self.permissions[account]).filter(|(_, permission)| *permission != Permission::Nothing);
        self.lists[account] = Some(Arc::new(CounterList::new(rows.collect(), true)));
        self.of_account(account).for_each(|token_use| self.learning.take(token_use, &[Fact::ListBegins]));
    }

    fn list_ends(&mut self, account: usize) {
        let Some(list) = self.lists[account].take() else { return };
        let facts = [Fact::Owner(LOGINS[account].into()), Fact::List(list)];
        self.of_account(account).for_each(|token_use| self.learning.take(token_use, &facts));
    }

    /// Replaces a token, or changes its standing.
    fn reload(&mut self, token: usize, kind: u8) {
        let slot = &mut self.slots[token];
        match kind % 3 {
            0 => slot.epoch += 1,
            1 => slot.standing = Standing::Suspended,
            _ => slot.standing = Standing::Healthy,
        }
        slot.owner = kind.is_multiple_of(2).then(|| LOGINS[ACCOUNTS[token]].into());
    }

    fn decide(&self, caller: usize, method: &Method, target: &str) -> Result<Decision, Rejection> {
        let fields = HeaderMap::from_iter([(HOST, HeaderValue::from_static("localhost"))]);
        let uri: Uri = target.parse().unwrap();
        let head = RequestHead {
            method,
            version: Version::HTTP_11,
            uri: &uri,
            fields: &fields,
            body: None,
            encoded: None,
            opened_for: [None; 2],
        };
        let can_be_sent: Vec<_> = self.slots.iter().map(Slot::can_be_sent).collect();
        let tokens = Candidates::of(&can_be_sent, |_| None);
        let admissions = self.config.admissions();
        let accounts = self.accounts();
        let (policy, limits) = (&self.policy, &self.config.limits);
        let known = KnownState { policy, admissions: &admissions, limits, tokens: &tokens, accounts: &accounts };
        decide::decide_for(Identified::supposed(caller), &head, ListenerName::new("app"), &known)
    }

    fn accounts(&self) -> WorkerAccounts<'_> {
        WorkerAccounts { learning: &self.learning, slots: &self.slots }
    }

    /// Sends a request with a token: whether Metrica fulfils it. The worker learns from the response.
    fn send(&mut self, position: usize, operation: &Operation, subject: &Subject) -> bool {
        let needed = Demands::of(operation.id).access(operation.scopes);
        let permissions = &self.permissions[ACCOUNTS[position]];
        let may = |counter: &u64| permissions[usize::try_from(*counter - 1).unwrap()].allows(needed) == Some(true);
        let fulfils = subject.counters.as_slice().iter().all(may);
        let token_use = self.slots[position].token_use();
        self.now += Duration::from_millis(100);
        if fulfils {
            self.learning.succeeded(token_use, operation.scopes, operation.reach, subject, self.now);
        } else {
            self.learning.refused(&self.slots, &denied(token_use, operation, subject));
        }
        fulfils
    }

    /// What is known of a token for a request.
    fn fit(&self, position: usize, operation: &Operation, subject: &Subject) -> Fit {
        let needed = Demands::of(operation.id).access(operation.scopes);
        let of = |counter: &u64| Fit::from(self.accounts().access(position, *counter, needed));
        subject.counters.as_slice().iter().map(of).max().unwrap_or(Fit::Unknown)
    }

    /// A request from its arrival to the last response; `None` if it was refused, else whether it was fulfilled and how
    /// often it was sent.
    fn request(&mut self, caller: usize, kind: u8, counter: u64, other: u64) -> Option<(bool, usize)> {
        let (method, verb, target) = match kind % 5 {
            0 => (Method::GET, Verb::Get, format!("/management/v1/counter/{counter}/goals")),
            1 => (Method::DELETE, Verb::Delete, format!("/management/v1/counter/{counter}/goal/5")),
            2 => (Method::GET, Verb::Get, format!("/stat/v1/data?metrics=ym:s:visits&ids={counter},{other}")),
            3 => (Method::POST, Verb::Post, format!("/management/v1/counter/{counter}/undelete")),
            _ => (Method::GET, Verb::Get, format!("/stat/v1/data?metrics=ym:s:visits&ids={counter}")),
        };
        let (operation, subject) = read(&self.policy.catalogue, verb, &target);
        let listed = self.policy.callers.get(caller).unwrap().tokens.clone();
        let covers = |position: &usize| {
            let slot = &self.slots[*position];
            listed.contains(&slot.alias) && slot.scopes.covers(operation.scopes)
        };
        let covering: Vec<_> = (0..self.slots.len()).filter(covers).collect();
        let decision = match self.decide(caller, &method, &target) {
            Ok(decision) => decision,
            Err(Rejection { reason, .. }) => {
                let is_of_accounts = reason == Reason::SeveralAccounts;
                assert!(
                    !is_of_accounts
                        || covering.iter().all(|position| self.fit(*position, &operation, &subject) == Fit::Lacking)
                );
                let expected =
                    [Reason::CounterDenied, Reason::ScopeDenied, Reason::SeveralAccounts, Reason::TokenSuspended];
                assert!(expected.contains(&reason), "{reason:?}");
                return None;
            }
        };
        let first = decision.tokens().first();
        assert!(covering.contains(&first), "one of the caller's tokens that cover the operation");
        let best = covering.iter().map(|position| self.fit(*position, &operation, &subject)).min().unwrap();
        assert_eq!(self.fit(first, &operation, &subject), best, "never one whose owner may not, if another may");
        let next = decision.next().map(Candidates::first);
        if let Some(next) = next {
            assert!(!operation.acts, "what acts is sent once");
            assert!(covering.contains(&next) && next != first);
            assert_ne!(self.fit(next, &operation, &subject), Fit::Lacking);
            assert_ne!(best, Fit::Granted);
        }
        if self.send(first, &operation, &subject) {
            return Some((true, 1));
        }
        Some(next.map_or((false, 1), |next| (self.send(next, &operation, &subject), 2)))
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// Over any course of permissions, responses, lists and reloads, no token is sent whose owner is known to lack the access
    /// while another has it, none outside of the caller's list, and nothing that acts is sent twice. A counter that moved is
    /// found again once the lists are read.
    #[test]
    fn any_course_of_events_uses_only_tokens_that_may(
        events in proptest::collection::vec((0u8..10, 0u8..15, 1..=COUNTERS, 1..=COUNTERS, 0usize..4), 1..120),
    ) {
        let mut world = World::new();
        for (event, kind, counter, other, index) in events {
            match event {
                0 => {
                    let account = index % 2;
                    world.permissions[account][usize::try_from(counter - 1).unwrap()] = PERMISSIONS[usize::from(kind) % 4];
                }
                1 => world.list_begins(index % 2),
                2 => world.list_ends(index % 2),
                3 => world.reload(index, kind),
                _ => _ = world.request(index % 3, kind, counter, other),
            }
        }
        for token in 0..4 {
            world.reload(token, 2);
        }
        for account in 0..2 {
            world.list_begins(account);
            world.list_begins(account);
            world.list_ends(account);
        }
        for counter in 1..=COUNTERS {
            let index = usize::try_from(counter - 1).unwrap();
            let anybody = (0..2).any(|account| world.permissions[account][index] >= Permission::View);
            prop_assert_eq!(world.request(0, 0, counter, counter), Some((anybody, 1)), "counter {}", counter);
        }
    }
}

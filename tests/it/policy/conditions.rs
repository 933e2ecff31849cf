//! Conditions: the tables find the caller that trying one after the other finds, and a caller that is covered is never
//! reached. Tried on every evidence of a small world, where networks of both families overlap, with proofs at random.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, LazyLock};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use metrica::scope::ScopeSet;
use metrika_gate::policy::caller::{
    Caller, CallerId, Callers, Condition, ConditionKind, Conditions, Evidence, KeyHash, ListenerName, NoCaller, Peer,
    Proofs, ServiceAccount, SubjectName,
};
use metrika_gate::policy::rules::Rules;
use proptest::prelude::*;

static LISTENERS: LazyLock<[ListenerName; 2]> = LazyLock::new(|| ["one", "two"].map(ListenerName::new));

/// Numbers below this are those of users, of groups and of the parts of addresses.
const NUMBERS: u8 = 3;

fn four(a: u8, b: u8) -> Ipv4Addr {
    [10, 0, a, b].into()
}

fn six(a: u8, b: u8) -> Ipv6Addr {
    [0x2001, 0xdb8, 0, 0, 0, 0, a.into(), b.into()].into()
}

/// Every evidence of the world.
static EVIDENCE: LazyLock<Vec<Evidence>> = LazyLock::new(|| {
    let pairs = (0..NUMBERS).flat_map(|a| (0..NUMBERS).map(move |b| (a, b)));
    let peers = pairs.flat_map(|(a, b)| {
        let addresses = [IpAddr::V4(four(a, b)), IpAddr::V6(four(a, b).to_ipv6_mapped()), IpAddr::V6(six(a, b))];
        let process = Peer::Process { uid: a.into(), gid: b.into() };
        addresses.map(Peer::Address).into_iter().chain([process])
    });
    let peers: Vec<_> = peers.collect();
    LISTENERS.iter().flat_map(|listener| peers.iter().map(|peer| Evidence::new(*listener, *peer))).collect()
});

fn key(number: u8) -> KeyHash {
    KeyHash::of(&[number])
}

fn subject(number: u8) -> SubjectName {
    SubjectName::parse(&format!("dns:client{number}")).unwrap()
}

fn account(number: u8) -> ServiceAccount {
    ServiceAccount::parse(&format!("ns/account{number}")).unwrap()
}

/// What a client and its request prove: the names of a certificate, a key, a service account. Some are of no caller.
fn proofs() -> impl Strategy<Value = (Option<Arc<[SubjectName]>>, Proofs)> {
    let names = prop::option::of(prop::collection::vec((0..=NUMBERS).prop_map(subject), 0..3).prop_map(Arc::from));
    let key = prop::option::of((0..=NUMBERS).prop_map(key));
    let service_account = prop::option::weighted(0.3, (0..=NUMBERS).prop_map(account));
    (names, key, service_account).prop_map(|(names, key, service_account)| (names, Proofs { key, service_account }))
}

/// Networks that cover all addresses, a part of them or one. Bits beyond the prefix may be set.
fn networks() -> impl Strategy<Value = IpNet> {
    let parts = (0..NUMBERS, 0..NUMBERS);
    let four_bits = prop_oneof![1 => 0..=32_u8, 3 => 22..=32_u8];
    let six_bits = prop_oneof![1 => 0..=128_u8, 3 => 108..=128_u8];
    prop_oneof![
        (parts.clone(), four_bits).prop_map(|((a, b), bits)| Ipv4Net::new(four(a, b), bits).unwrap().into()),
        (parts, six_bits, any::<bool>()).prop_map(|((a, b), bits, mapped)| {
            let address = if mapped { four(a, b).to_ipv6_mapped() } else { six(a, b) };
            Ipv6Net::new(address, bits).unwrap().into()
        }),
    ]
}

/// A list of one condition or none, so that lists of kinds can be put together.
fn maybe(condition: impl Strategy<Value = Condition> + 'static) -> impl Strategy<Value = Vec<Condition>> {
    prop::collection::vec(condition, 0..=1)
}

/// Conditions of any kinds. Some have no value, so that nothing meets them.
fn conditions() -> impl Strategy<Value = Conditions> {
    let ids = || prop::collection::vec(0..u32::from(NUMBERS), 0..3);
    let listener = (0..2_usize).prop_map(|index| Condition::Listener(LISTENERS[index]));
    let source = prop::collection::vec(networks(), 0..3).prop_map(|networks| Condition::Source(networks.into()));
    let uid = ids().prop_map(|uids| Condition::Uid(uids.into()));
    let gid = ids().prop_map(|gids| Condition::Gid(gids.into()));
    let numbers = || prop::collection::vec(0..NUMBERS, 0..3);
    let keys = numbers().prop_map(|keys| Condition::Key(keys.into_iter().map(key).collect()));
    let san = numbers().prop_map(|names| Condition::San(names.into_iter().map(subject).collect()));
    let accounts = numbers().prop_map(|names| Condition::ServiceAccount(names.into_iter().map(account).collect()));
    let of_peer = (maybe(listener), maybe(source), maybe(uid), maybe(gid));
    // Most callers state one of both kinds, so that many requests have a caller.
    let of_peer = prop_oneof![2 => of_peer, 1 => Just((vec![], vec![], vec![], vec![]))];
    let of_proofs = prop_oneof![
        1 => (maybe(keys.clone()), maybe(san.clone()), maybe(accounts.clone())),
        1 => (maybe(keys), Just(vec![]), Just(vec![])),
        1 => Just((vec![], vec![], vec![])),
        1 => (Just(vec![]), maybe(san), Just(vec![])),
        1 => (Just(vec![]), Just(vec![]), maybe(accounts)),
    ];
    (of_peer, of_proofs).prop_map(|((listener, source, uid, gid), (keys, san, accounts))| {
        Conditions::new([accounts, gid, uid, keys, san, source, listener].concat()).unwrap()
    })
}

/// The conditions with fewer values, and one more condition that is no proof of the request: one would name the caller.
fn narrower(conditions: &Conditions, more: Option<Condition>) -> Conditions {
    let more = more.filter(|more| !matches!(more.kind(), ConditionKind::Key | ConditionKind::ServiceAccount));
    let fewer = conditions.iter().map(|condition| match condition {
        Condition::Listener(name) => Condition::Listener(*name),
        Condition::Source(networks) => Condition::Source(networks.iter().skip(1).copied().collect()),
        Condition::Uid(uids) => Condition::Uid(uids.iter().skip(1).copied().collect()),
        Condition::Gid(gids) => Condition::Gid(gids.iter().take(1).copied().collect()),
        Condition::Key(hashes) => Condition::Key(hashes.iter().skip(1).copied().collect()),
        Condition::San(names) => Condition::San(names.iter().skip(1).cloned().collect()),
        Condition::ServiceAccount(accounts) => Condition::ServiceAccount(accounts.iter().take(1).cloned().collect()),
    });
    let is_new = |more: &Condition| conditions.iter().all(|own| own.kind() != more.kind());
    Conditions::new(fewer.chain(more.filter(is_new))).unwrap()
}

fn caller(position: usize, conditions: Conditions) -> Caller {
    let id = CallerId::new(&format!("c{position}"));
    Caller { id, conditions, scopes: ScopeSet::EMPTY, tokens: Vec::new(), rules: Rules::default(), strict: false }
}

/// Every evidence of the world, with these names and proofs.
fn with(names: Option<Arc<[SubjectName]>>, proofs: Proofs) -> impl Iterator<Item = (Evidence, Proofs)> {
    EVIDENCE.iter().map(move |evidence| (Evidence { names: names.clone(), ..evidence.clone() }, proofs.clone()))
}

/// Checks the reason why a request has no caller: a key that nobody has, or a caller that a proof names and whose condition of
/// that kind does not hold.
fn check_nobody(nobody: NoCaller, list: &[Caller], evidence: &Evidence, proofs: &Proofs) -> Result<(), TestCaseError> {
    let states_key = |caller: &Caller, key: &KeyHash| {
        caller.conditions.iter().any(|own| matches!(own, Condition::Key(hashes) if hashes.contains(key)))
    };
    match nobody {
        NoCaller::UnknownKey(key) => {
            prop_assert_eq!(Some(key), proofs.key);
            prop_assert!(!list.iter().any(|caller| states_key(caller, &key)));
        }
        NoCaller::Failed { caller, condition } => {
            let caller = list.iter().find(|one| one.id == caller).unwrap();
            prop_assert_eq!(caller.conditions.first_failing(evidence, proofs, None), Some(condition));
            prop_assert!(proofs.key.is_none_or(|key| states_key(caller, &key)), "the key names another caller");
            prop_assert!(evidence.names.is_some() || *proofs != Proofs::NONE, "nothing names the caller");
        }
        NoCaller::Unknown => {
            prop_assert!(!list.iter().any(|caller| proofs.key.is_some_and(|key| states_key(caller, &key))));
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_tables_find_the_first_caller_whose_conditions_hold(
        list in prop::collection::vec(conditions(), 0..8), given in prop::collection::vec(proofs(), 3)
    ) {
        let list: Vec<_> = list.into_iter().enumerate().map(|(position, one)| caller(position, one)).collect();
        let callers = Callers::new(list.clone(), &*LISTENERS);
        let given = given.into_iter().chain([(None, Proofs::NONE)]);
        for (evidence, proofs) in given.flat_map(|(names, proofs)| with(names, proofs)) {
            let expected = list.iter().position(|caller| caller.conditions.hold(&evidence, &proofs));
            let found = callers.identify(&evidence, &proofs);
            prop_assert_eq!(found.ok(), expected, "{:?} {:?}", evidence, proofs);
            if let Err(nobody) = found {
                check_nobody(nobody, &list, &evidence, &proofs)?;
            }
        }
    }

    #[test]
    fn conditions_that_are_covered_hold_for_nobody_else(
        wider in conditions(), independent in conditions(), position in 0..7_usize,
        given in prop::collection::vec(proofs(), 3)
    ) {
        let narrower = narrower(&wider, independent.iter().nth(position).cloned());
        prop_assert!(wider.cover(&narrower), "{:?} {:?}", wider, narrower);
        let given: Vec<_> = given.into_iter().chain([(None, Proofs::NONE)]).collect();
        for other in [&narrower, &independent] {
            if wider.cover(other) {
                let mut all = given.iter().flat_map(|(names, proofs)| with(names.clone(), proofs.clone()));
                let is_beyond = |evidence: &Evidence, proofs: &Proofs| {
                    other.hold(evidence, proofs) && !wider.hold(evidence, proofs)
                };
                let beyond = all.find(|(evidence, proofs)| is_beyond(evidence, proofs));
                prop_assert!(beyond.is_none(), "{:?} {:?}: {:?}", wider, other, beyond);
            }
        }
    }
}

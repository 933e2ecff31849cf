//! Conditions: the tables find the caller that trying one after the other finds, and a caller that is covered is never
//! reached. Tried on every evidence of a small world, where networks of both families overlap.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::LazyLock;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use metrica::scope::ScopeSet;
use metrika_gate::policy::caller::{Caller, CallerId, Callers, Condition, Conditions, Evidence, ListenerName, Peer};
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
    LISTENERS
        .iter()
        .flat_map(|listener| peers.iter().map(|peer| Evidence { listener: *listener, peer: *peer }))
        .collect()
});

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
    (maybe(listener), maybe(source), maybe(uid), maybe(gid))
        .prop_map(|(listener, source, uid, gid)| Conditions::new([gid, uid, source, listener].concat()).unwrap())
}

/// The conditions with fewer values, and one more condition.
fn narrower(conditions: &Conditions, more: Option<Condition>) -> Conditions {
    let fewer = conditions.iter().map(|condition| match condition {
        Condition::Listener(name) => Condition::Listener(*name),
        Condition::Source(networks) => Condition::Source(networks.iter().skip(1).copied().collect()),
        Condition::Uid(uids) => Condition::Uid(uids.iter().skip(1).copied().collect()),
        Condition::Gid(gids) => Condition::Gid(gids.iter().take(1).copied().collect()),
    });
    let is_new = |more: &Condition| conditions.iter().all(|own| own.kind() != more.kind());
    Conditions::new(fewer.chain(more.filter(is_new))).unwrap()
}

fn caller(position: usize, conditions: Conditions) -> Caller {
    let id = CallerId::new(&format!("c{position}"));
    Caller { id, conditions, scopes: ScopeSet::EMPTY, tokens: Vec::new(), rules: Rules::default(), strict: false }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_tables_find_the_first_caller_whose_conditions_hold(list in prop::collection::vec(conditions(), 0..8)) {
        let list: Vec<_> = list.into_iter().enumerate().map(|(position, one)| caller(position, one)).collect();
        let callers = Callers::new(list.clone(), &*LISTENERS);
        for evidence in &*EVIDENCE {
            let expected = list.iter().position(|caller| caller.conditions.hold(*evidence));
            prop_assert_eq!(callers.identify(*evidence), expected, "{:?}", evidence);
        }
    }

    #[test]
    fn conditions_that_are_covered_hold_for_nobody_else(
        wider in conditions(), independent in conditions(), position in 0..4_usize
    ) {
        let narrower = narrower(&wider, independent.iter().nth(position).cloned());
        prop_assert!(wider.cover(&narrower), "{:?} {:?}", wider, narrower);
        for other in [&narrower, &independent] {
            if wider.cover(other) {
                let beyond = EVIDENCE.iter().find(|evidence| other.hold(**evidence) && !wider.hold(**evidence));
                prop_assert!(beyond.is_none(), "{:?} {:?}: {:?}", wider, other, beyond);
            }
        }
    }
}

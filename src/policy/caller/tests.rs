//! Tests of the numbered rules of `caller`.

use super::*;

fn caller(id: &str, conditions: Conditions) -> Caller {
    Caller {
        id: CallerId::new(id),
        conditions,
        scopes: ScopeSet::EMPTY,
        tokens: Vec::new(),
        rules: Rules::default(),
        strict: false,
    }
}

fn all_of<const COUNT: usize>(list: [Condition; COUNT]) -> Conditions {
    Conditions::new(list).unwrap()
}

fn listener(name: &str) -> Condition {
    Condition::Listener(ListenerName::new(name))
}

fn source(networks: &[&str]) -> Condition {
    Condition::Source(networks.iter().map(|network| network.parse().unwrap()).collect())
}

fn uid(uids: &[u32]) -> Condition {
    Condition::Uid(uids.into())
}

fn gid(gids: &[u32]) -> Condition {
    Condition::Gid(gids.into())
}

fn on(name: &str) -> Conditions {
    all_of([listener(name)])
}

fn from(networks: &[&str]) -> Conditions {
    all_of([source(networks)])
}

fn who(callers: &Callers, listener: &str, peer: Peer) -> &'static str {
    let evidence = Evidence { listener: ListenerName::new(listener), peer };
    callers.identify(evidence).and_then(|position| callers.get(position)).map_or("-", |caller| caller.id.as_str())
}

fn address(text: &str) -> Peer {
    Peer::Address(text.parse().unwrap())
}

fn callers(list: Vec<Caller>) -> Callers {
    Callers::new(list, &["app", "crm"].map(ListenerName::new))
}

#[test]
fn rule_1_every_stated_condition_must_hold() {
    let callers = callers(vec![
        caller("both", all_of([listener("app"), source(&["10.0.0.0/8", "192.168.7.7/32"])])),
        caller("process", all_of([gid(&[8, 9]), uid(&[7]), listener("crm")])),
    ]);
    assert_eq!(who(&callers, "app", address("10.1.2.3")), "both");
    assert_eq!(who(&callers, "app", address("192.168.7.7")), "both");
    assert_eq!(who(&callers, "app", address("192.168.7.8")), "-");
    assert_eq!(who(&callers, "crm", address("10.1.2.3")), "-");
    assert_eq!(who(&callers, "crm", Peer::Process { uid: 7, gid: 9 }), "process");
    assert_eq!(who(&callers, "crm", Peer::Process { uid: 7, gid: 7 }), "-");
    assert_eq!(who(&callers, "crm", Peer::Process { uid: 8, gid: 8 }), "-");
}

#[test]
fn rule_1_a_kind_is_stated_once_and_the_order_is_that_of_the_kinds() {
    assert_eq!(Conditions::new([uid(&[1]), listener("app"), uid(&[2])]), Err(Repeated(ConditionKind::Uid)));
    let sorted = all_of([gid(&[1]), uid(&[2]), source(&["::/0"]), listener("app")]);
    assert!(sorted.iter().map(Condition::kind).eq(ConditionKind::ALL));
    assert_eq!(sorted, all_of([listener("app"), source(&["::/0"]), uid(&[2]), gid(&[1])]));
}

#[test]
fn rule_1_only_an_empty_list_is_anyone() {
    let nothing = callers(vec![
        caller("source", all_of([source(&[])])),
        caller("uid", all_of([uid(&[])])),
        caller("pair", all_of([uid(&[1]), gid(&[])])),
    ]);
    let anyone = callers(vec![caller("anyone", Conditions::ANYONE)]);
    for peer in [address("10.1.2.3"), Peer::Process { uid: 1, gid: 1 }] {
        assert_eq!((who(&nothing, "app", peer), who(&anyone, "app", peer)), ("-", "anyone"), "{peer}");
    }
}

#[test]
fn rule_2_the_first_match_wins() {
    let callers = callers(vec![
        caller("host", from(&["10.0.0.1/32"])),
        caller("wide", from(&["10.0.0.0/8"])),
        caller("narrow", from(&["10.0.0.0/24"])),
        caller("rest", on("app")),
        caller("late", from(&["0.0.0.0/0"])),
    ]);
    assert_eq!(who(&callers, "app", address("10.0.0.1")), "host");
    assert_eq!(who(&callers, "app", address("10.0.0.2")), "wide");
    assert_eq!(who(&callers, "app", address("11.0.0.2")), "rest");
    assert_eq!(who(&callers, "crm", address("11.0.0.2")), "late");
}

#[test]
fn rule_2_an_unreachable_caller_is_detected() {
    let both = all_of([listener("app"), source(&["10.1.0.0/16"])]);
    for (earlier, later, expected) in [
        (on("app"), both.clone(), true),
        (from(&["10.0.0.0/8"]), both.clone(), true),
        (both.clone(), on("app"), false),
        (on("crm"), both.clone(), false),
        (from(&["10.1.0.0/24"]), both.clone(), false),
        (from(&["::ffff:10.0.0.0/104"]), both.clone(), true),
        (from(&["10.1.0.0/17", "10.1.128.0/17"]), both.clone(), true),
        (from(&["::/8"]), from(&["10.1.0.0/16", "::1/128"]), true),
        (all_of([listener("crm"), uid(&[1, 2])]), all_of([listener("crm"), uid(&[2])]), true),
        (all_of([listener("crm"), uid(&[1])]), all_of([listener("crm"), gid(&[1])]), false),
        (Conditions::ANYONE, both.clone(), true),
        (both.clone(), Conditions::ANYONE, false),
    ] {
        assert_eq!(earlier.cover(&later), expected, "{earlier:?} {later:?}");
    }
}

#[test]
fn rule_3_no_match_is_nobody() {
    let callers = callers(vec![caller("host", from(&["10.0.0.1/32"]))]);
    assert_eq!(who(&callers, "app", address("10.0.0.2")), "-");
    assert_eq!(who(&callers, "elsewhere", address("10.0.0.1")), "-");
}

#[test]
fn rule_4_conditions_about_the_other_kind_of_socket_do_not_hold() {
    let callers = callers(vec![
        caller("user", all_of([uid(&[0])])),
        caller("group", all_of([gid(&[5])])),
        caller("network", from(&["0.0.0.0/0", "::/0"])),
        caller("never", all_of([uid(&[1]), source(&["::/0"])])),
    ]);
    assert_eq!(who(&callers, "app", address("1.2.3.4")), "network");
    assert_eq!(who(&callers, "app", Peer::Process { uid: 0, gid: 0 }), "user");
    assert_eq!(who(&callers, "app", Peer::Process { uid: 1, gid: 5 }), "group");
    assert_eq!(who(&callers, "app", Peer::Process { uid: 1, gid: 1 }), "-");
}

#[test]
fn rule_5_mapped_addresses_are_ipv4() {
    let callers = callers(vec![caller("four", from(&["10.0.0.0/8"])), caller("six", from(&["2001:db8::/32"]))]);
    assert_eq!(who(&callers, "app", address("::ffff:10.9.9.9")), "four");
    assert_eq!(who(&callers, "app", address("2001:db8::7")), "six");
    assert_eq!(who(&callers, "app", address("2001:db9::7")), "-");
}

#[test]
fn ten_thousand_callers_are_one_look_up() {
    let many = (0..10_000_u32)
        .map(|n| caller(&format!("c{n}"), from(&[&format!("10.{}.{}.{}/32", n >> 16, (n >> 8) & 255, n & 255)])));
    let callers = callers(many.collect());
    let table = callers.of_listener.get(&ListenerName::new("app")).unwrap();
    assert_eq!(table.networks.len(), 1, "one prefix length, one probe");
    assert_eq!(who(&callers, "app", address("10.0.39.15")), "c9999");
}

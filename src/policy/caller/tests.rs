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

fn key(keys: &[&[u8]]) -> Condition {
    Condition::Key(keys.iter().map(|key| KeyHash::of(key)).collect())
}

fn san(name: &str) -> Condition {
    Condition::San([SubjectName::parse(name).unwrap()].into())
}

fn account(name: &str) -> Condition {
    Condition::ServiceAccount([ServiceAccount::parse(name).unwrap()].into())
}

/// Evidence of a connection to `app` from 10.0.0.1, with a client certificate that has these names.
fn named(names: &[&str]) -> Evidence {
    let names = names.iter().map(|name| SubjectName::parse(name).unwrap()).collect();
    Evidence { names: Some(names), ..Evidence::new(ListenerName::new("app"), address("10.0.0.1")) }
}

fn offers(key: &[u8]) -> Proofs {
    Proofs { key: Some(KeyHash::of(key)), ..Proofs::NONE }
}

fn on(name: &str) -> Conditions {
    all_of([listener(name)])
}

fn from(networks: &[&str]) -> Conditions {
    all_of([source(networks)])
}

fn who(callers: &Callers, listener: &str, peer: Peer) -> &'static str {
    who_proves(callers, &Evidence::new(ListenerName::new(listener), peer), &Proofs::NONE)
}

/// Returns the caller, or the reason why there is none.
fn who_proves(callers: &Callers, evidence: &Evidence, proofs: &Proofs) -> &'static str {
    match callers.identify(evidence, proofs) {
        Ok(position) => callers.get(position).unwrap().id.as_str(),
        Err(NoCaller::Unknown) => "-",
        Err(NoCaller::UnknownKey(_)) => "unknown key",
        Err(NoCaller::Failed { caller: _, condition }) => condition.key(),
    }
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
    let proofs = || [account("a/b"), san("dns:a"), key(&[b"k"])];
    let [account, san, key] = proofs();
    let sorted = all_of([account, san, gid(&[1]), key, uid(&[2]), source(&["::/0"]), listener("app")]);
    assert!(sorted.iter().map(Condition::kind).eq(ConditionKind::ALL));
    let [account, san, key] = proofs();
    assert_eq!(sorted, all_of([listener("app"), source(&["::/0"]), uid(&[2]), gid(&[1]), key, san, account]));
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
fn rule_6_an_offered_key_names_its_caller() {
    let callers = callers(vec![
        caller("rest", on("app")),
        caller("etl", all_of([key(&[b"one", b"next"]), source(&["10.0.0.0/8"])])),
        caller("crm", all_of([key(&[b"two"]), listener("crm")])),
        caller("late", all_of([key(&[b"two"]), source(&["11.0.0.0/8"])])),
    ]);
    let who = |key, listener, peer| {
        who_proves(&callers, &Evidence::new(ListenerName::new(listener), address(peer)), &offers(key))
    };
    assert_eq!(who(b"one", "app", "10.0.0.1"), "etl");
    assert_eq!(who(b"next", "crm", "10.0.0.1"), "etl");
    assert_eq!(who(b"one", "app", "11.0.0.1"), "source", "the caller of the listener is not considered");
    assert_eq!(who(b"other", "app", "10.0.0.1"), "unknown key");
    assert_eq!(who(b"two", "crm", "11.0.0.1"), "crm");
    assert_eq!(who(b"two", "app", "11.0.0.1"), "late");
    assert_eq!(who(b"two", "app", "10.0.0.1"), "source", "the one that fails later");
    let without = Evidence::new(ListenerName::new("app"), address("10.0.0.1"));
    assert_eq!(who_proves(&callers, &without, &Proofs::NONE), "rest");
}

#[test]
fn rule_6_a_service_account_names_its_caller() {
    let callers = callers(vec![
        caller("rest", on("app")),
        caller("etl", all_of([account("metrika/etl"), listener("app")])),
        caller("both", all_of([account("metrika/both"), key(&[b"one"])])),
    ]);
    let of = |account: &str, key: Option<&[u8]>| Proofs {
        key: key.map(KeyHash::of),
        service_account: Some(ServiceAccount::parse(account).unwrap()),
    };
    let who = |proofs| who_proves(&callers, &Evidence::new(ListenerName::new("app"), address("::1")), &proofs);
    assert_eq!(who(of("metrika/etl", None)), "etl");
    assert_eq!(who(of("metrika/other", None)), "-");
    assert_eq!(who(of("metrika/both", None)), "key_sha256");
    assert_eq!(who(of("metrika/both", Some(b"one"))), "both");
    assert_eq!(who(of("metrika/etl", Some(b"one"))), "service_account");
    assert_eq!(who(of("metrika/etl", Some(b"two"))), "unknown key");
    assert_eq!(who(offers(b"one")), "service_account");
}

#[test]
fn rule_2_a_certificate_is_one_condition_among_others() {
    let callers = callers(vec![
        caller("early", from(&["10.0.0.2/32"])),
        caller("etl", all_of([san("dns:etl"), source(&["10.0.0.1/32"])])),
        caller("signed", all_of([san("dns:signed"), key(&[b"one"])])),
        caller("rest", on("app")),
        caller("late", all_of([san("dns:late")])),
    ]);
    let who = |names: &[&str], proofs: &Proofs| who_proves(&callers, &named(names), proofs);
    assert_eq!(who(&["dns:other", "dns:etl"], &Proofs::NONE), "etl");
    assert_eq!(who(&["dns:signed"], &Proofs::NONE), "rest");
    assert_eq!(who(&["dns:signed"], &offers(b"one")), "signed");
    assert_eq!(who(&["dns:etl"], &offers(b"one")), "san");
    assert_eq!(who(&["dns:late"], &Proofs::NONE), "rest", "an earlier caller has the connection");
    let far =
        |names: &[&str], source| Evidence { peer: address(source), listener: ListenerName::new("crm"), ..named(names) };
    assert_eq!(who_proves(&callers, &far(&["dns:late"], "::1"), &Proofs::NONE), "late");
    assert_eq!(who_proves(&callers, &far(&["dns:etl"], "::1"), &Proofs::NONE), "source");
    assert_eq!(who_proves(&callers, &far(&["dns:etl"], "10.0.0.2"), &Proofs::NONE), "early");
    assert_eq!(who_proves(&callers, &far(&[], "::1"), &Proofs::NONE), "-");
}

#[test]
fn rule_6_only_a_caller_that_states_the_proof_covers_another() {
    let keyed = || all_of([listener("app"), key(&[b"one"])]);
    for (earlier, later, expected) in [
        (on("app"), keyed(), false),
        (all_of([key(&[b"one", b"two"])]), keyed(), true),
        (all_of([key(&[b"two"])]), keyed(), false),
        (keyed(), on("app"), false),
        (on("app"), all_of([listener("app"), account("a/b")]), false),
        (all_of([account("a/b")]), all_of([listener("app"), account("a/b")]), true),
        (on("app"), all_of([listener("app"), san("dns:a")]), true),
        (all_of([san("dns:a")]), all_of([san("dns:b")]), false),
    ] {
        assert_eq!(earlier.cover(&later), expected, "{earlier:?} {later:?}");
    }
}

#[test]
fn ten_thousand_keys_are_one_look_up() {
    let keys: Vec<_> = (0..10_000_u32).map(|number| number.to_be_bytes()).collect();
    let of_one =
        callers(vec![caller("all", all_of([Condition::Key(keys.iter().map(|key| KeyHash::of(key)).collect())]))]);
    let many = keys.iter().enumerate().map(|(n, bytes)| caller(&format!("k{n}"), all_of([key(&[bytes])])));
    let many = callers(many.collect());
    let evidence = Evidence::new(ListenerName::new("app"), address("::1"));
    for (number, bytes) in keys.iter().enumerate().step_by(999) {
        let hash = KeyHash::of(bytes);
        assert_eq!((of_one.of_proof.of_key(&hash), many.of_proof.of_key(&hash)), (Some(&[0][..]), Some(&[number][..])));
        assert_eq!(who_proves(&of_one, &evidence, &offers(bytes)), "all");
        assert_eq!(who_proves(&many, &evidence, &offers(bytes)), format!("k{number}"));
    }
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

//! Tests of the numbered rules of callers.

use metrica::operation::{Catalogue, Destructive, Lookup, Verb};
use strict_http::target;

use super::*;

/// Decides a request that the catalogue knows.
pub fn decide(rules: &Rules, verb: Verb, target: &str) -> Result<Duties, Breach> {
    let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
    let names = target::check(path, query, 10_000).unwrap_or_else(|bad| panic!("{target}: {bad:?}"));
    let catalogue = Catalogue::built_in();
    let Lookup::Known(operation) = catalogue.find(verb, path) else { panic!("{target} is no operation") };
    let subject = Subject::of(operation, path, query, names);
    rules.check(&Call { operation, path, query, names, subject: &subject })
}

pub fn get(rules: &Rules, target: &str) -> Result<Duties, Breach> {
    decide(rules, Verb::Get, target)
}

/// Returns the rules of a caller with the counters 1 and 3.
fn limited() -> Rules {
    Rules { counters: Some([1, 3].into()), ..Rules::default() }
}

pub const NOTHING_OWED: Result<Duties, Breach> = Ok(Duties { body: NOTHING, list: false });
const BODY_OWED: Result<Duties, Breach> = Ok(Duties { body: COUNTERS, list: false });
pub const NOTHING: Look = Look { counters: false, is_data: false, grantees: Grantees::Free, setting: None };
const COUNTERS: Look = Look { counters: true, ..NOTHING };
const DATA_OWED: Result<Duties, Breach> = Ok(Duties { body: Look { is_data: true, ..COUNTERS }, list: false });

#[test]
fn a_caller_without_rules_loses_no_ordinary_request() {
    let free = Rules::default();
    for target in [
        "/management/v1/counters?field=goals,mirrors&per_page=10",
        "/management/v1/counters.csv",
        "/management/v1/counter/5?field=goals&field=grants",
        "/management/v1/clients?counters=4,5",
        "/stat/v1/data?ids[]=1&ids[]=2",
        "/stat/v1/data?IDS=1&counterId=2&id=x&metrics=ym:s:visits",
        "/stat/v1/data?ulogin=a&direct_client_logins=b,c",
        "/stat/v1/data?fields=measurement_tokens&filters=callback",
        "/stat/v1/data?field[]=goals&a=callback",
        "/management/v1/messengers",
    ] {
        assert_eq!(get(&free, target), NOTHING_OWED, "{target}");
    }
    assert_eq!(decide(&free, Verb::Delete, "/management/v1/counter/5"), NOTHING_OWED);
    assert_eq!(decide(&free, Verb::Post, "/management/v1/counters"), NOTHING_OWED);
}

#[test]
fn rule_1_destructive_operations_can_be_denied() {
    let careful = Rules { destructive: false, ..Rules::default() };
    for (verb, target) in [
        (Verb::Delete, "/management/v1/counter/1"),
        (Verb::Delete, "/management/v1/counter/1.json"),
        (Verb::Put, "/management/v1/accounts"),
        (Verb::Post, "/management/v1/counter/1/logrequest/2/clean"),
        (Verb::Post, "/management/v1/counter/1/expense/delete"),
    ] {
        assert_eq!(decide(&careful, verb, target), Err(Breach::Destructive), "{target}");
    }
    for (verb, target) in
        [(Verb::Post, "/management/v1/counter/1/undelete"), (Verb::Delete, "/management/v1/counter/1/label/2")]
    {
        assert_eq!(decide(&careful, verb, target), NOTHING_OWED, "{target}");
    }
    // An unknown write operation may be impossible to undo.
    let unknown = Catalogue::built_in().with_unknown(metrica::operation::UnknownOperations::ByMethod);
    let destructive = |verb| match unknown.find(verb, "/management/v2/counters") {
        Lookup::Known(operation) => operation.destructive,
        Lookup::OtherMethod | Lookup::Unknown => panic!("it is taken by its method"),
    };
    assert_eq!(
        [Verb::Get, Verb::Post, Verb::Delete].map(destructive),
        [Destructive::Never, Destructive::Always, Destructive::Always]
    );
}

#[test]
fn rule_2_scripts_need_to_be_allowed() {
    let allowed = Rules { callback: true, ..Rules::default() };
    for name in [
        "callback",
        "CallBack",
        "call_back",
        "callback[]",
        "callback%5B%5D",
        "%20callback",
        "callbac%E2%84%AA",
        ".callback",
    ] {
        for target in ["/management/v1/counters", "/stat/v1/data"] {
            let target = format!("{target}?ids=1&{name}=f");
            assert_eq!(get(&Rules::default(), &target), Err(Breach::Callback), "{target}");
            assert_eq!(get(&allowed, &target), NOTHING_OWED, "{target}");
        }
    }
    assert_eq!(get(&Rules::default(), "/stat/v1/data?ids=1&callback"), Err(Breach::Callback));
}

#[test]
fn rule_3_measurement_tokens_need_to_be_allowed() {
    let allowed = Rules { measurement_tokens: true, ..Rules::default() };
    for query in [
        "field=measurement_tokens",
        "field=goals,measurement_tokens,mirrors",
        "field=goals&field=measurement_tokens",
        "field=Measurement_Tokens",
        "field=measurement%5Ftokens",
        "field=%6deasurement_tokens",
        "field=%256deasurement_tokens",
        "field=goals%2Cmeasurement_tokens",
        "field=goals;measurement_tokens",
        "field=+measurement_tokens",
        "field=measurement_token%C5%BF",
        "field[]=measurement_tokens",
        "field%5B0%5D=measurementTokens",
        "FIELD=measurement_tokens",
    ] {
        for path in ["/management/v1/counters", "/management/v1/counter/1"] {
            let target = format!("{path}?{query}");
            assert_eq!(get(&Rules::default(), &target), Err(Breach::Secret), "{target}");
            assert_eq!(get(&allowed, &target), NOTHING_OWED, "{target}");
        }
    }
}

#[test]
fn rule_4_every_counter_that_is_named_is_listed() {
    for (target, expected) in [
        ("/management/v1/counter/1", BODY_OWED),
        ("/management/v1/counter/3/goals.json", BODY_OWED),
        ("/stat/v1/data?ids=1,3&id=3", BODY_OWED),
        ("/analytics/v3/data/ga?ids=ga:1", BODY_OWED),
        ("/management/v1/counter/2", Err(Breach::Counter(2, "the path"))),
        ("/management/v1/counter/2.json", Err(Breach::Counter(2, "the path"))),
        ("/export/v1/cloud/counter/13", Err(Breach::Counter(13, "the path"))),
        ("/management/v1/counter/1/goals?ids=2", Err(Breach::Counter(2, "ids"))),
        ("/management/v1/counter/1?counter_id=2", Err(Breach::Counter(2, "counter_id"))),
        ("/stat/v1/data?ids=1,2", Err(Breach::Counter(2, "ids"))),
        ("/stat/v1/data?ids=1&id=2", Err(Breach::Counter(2, "id"))),
        ("/stat/v1/data?ids=1%2C2", Err(Breach::Counter(2, "ids"))),
        ("/stat/v1/data?ids=%31%33", Err(Breach::Counter(13, "ids"))),
    ] {
        assert_eq!(get(&limited(), target), expected, "{target}");
    }
}

#[test]
fn rule_4_unreadable_counters_are_refused() {
    for query in [
        "ids=1,",
        "ids=01",
        "ids=+1",
        "ids=1%20",
        "ids=1;3",
        "ids=%2531",
        "ids=%EF%BC%91",
        "ids=",
        "ids",
        "ids=1&IDS=1",
        "ids=1&ids[]=1",
        "ids=1&ids%5B%5D=1",
        "ids=1&counterId=1",
        "ids=1&Counter-Ids=1",
        "ids=1&.id=1",
        "ids=1&id%C5%BF=1",
        "ids=1&%EF%BD%89ds=1",
    ] {
        let target = format!("/stat/v1/data?{query}");
        assert!(matches!(get(&limited(), &target), Err(Breach::Unreadable(_))), "{target}");
    }
    for path in ["/management/v1/counter/01", "/management/v1/counter/1,3/goals", "/management/v1/counter/1%2C2"] {
        assert!(matches!(get(&limited(), path), Err(Breach::Unreadable(_))), "{path}");
    }
}

#[test]
fn rule_4_a_request_without_a_counter_is_refused_unless_public() {
    assert_eq!(get(&limited(), "/stat/v1/data?metrics=ym:s:visits"), Err(Breach::NoCounter));
    assert_eq!(get(&limited(), "/management/v1/clients"), Err(Breach::NoCounter));
    assert_eq!(get(&limited(), "/management/v1/clients?counters=1,2"), Err(Breach::Counter(2, "counters")));
    assert_eq!(get(&limited(), "/management/v1/clients?counters=1,3"), BODY_OWED);
    for (verb, target) in [
        (Verb::Post, "/management/v1/counters"),
        (Verb::Get, "/management/v1/accounts"),
        (Verb::Get, "/management/v1/label/7"),
        (Verb::Get, "/management/v1/delegates"),
    ] {
        assert_eq!(decide(&limited(), verb, target), Err(Breach::Account), "{target}");
    }
    assert_eq!(get(&limited(), "/management/v1/messengers?lang=ru"), BODY_OWED);
}

#[test]
fn rule_5_the_list_of_all_counters_is_refused_or_owed_to_be_filtered() {
    let filtering = Rules { list: List::Filter, ..limited() };
    let scripting = Rules { callback: true, ..filtering.clone() };
    let list = "/management/v1/counters";
    assert_eq!(get(&limited(), list), Err(Breach::List));
    let own = "/management/v1/counters?counter_ids=1,3&sort=Visits";
    assert_eq!(get(&limited(), own), Ok(Duties { body: COUNTERS, list: true }), "it names its own");
    assert_eq!(get(&limited(), "/management/v1/counters?counter_ids=1,2"), Err(Breach::Counter(2, "counter_ids")));
    assert_eq!(get(&limited(), "/management/v1/counters?counter_ids="), Err(Breach::Unreadable("counter_ids")));
    for target in [list, "/management/v1/counters.json?per_page=5", "/management/v1/counters?counter_ids=1,3"] {
        assert_eq!(get(&filtering, target), Ok(Duties { body: COUNTERS, list: true }), "{target}");
    }
    assert_eq!(get(&filtering, "/management/v1/counters.csv"), Err(Breach::List));
    assert_eq!(get(&scripting, "/management/v1/counters?callback=f"), Err(Breach::List));
    assert_eq!(get(&scripting, "/management/v1/counters?CallBack=f"), Err(Breach::List));
    assert_eq!(get(&filtering, "/management/v1/counters?counters=2"), Err(Breach::Counter(2, "counters")));
    assert_eq!(get(&filtering, "/management/v1/counters?counter_ids=1,2"), Err(Breach::Counter(2, "counter_ids")));
    assert_eq!(get(&filtering, "/management/v1/counters?search_string=1"), Err(Breach::Search));
}

#[test]
fn rule_6_only_listed_logins_are_named() {
    let logins = |rules| Rules { logins: Some(["a-b".into(), "c".into()].into()), ..rules };
    let (known, both) = (logins(Rules::default()), logins(limited()));
    for (query, by_login, by_both) in [
        ("ids=1&ulogin=a-b", NOTHING_OWED, BODY_OWED),
        ("ids=1&ulogin=a%2Db", NOTHING_OWED, BODY_OWED),
        ("ids=1&direct_client_logins=a-b,c", NOTHING_OWED, BODY_OWED),
        ("direct_client_logins=c", NOTHING_OWED, Err(Breach::NoCounter)),
        ("ids=2", NOTHING_OWED, Err(Breach::Counter(2, "ids"))),
        ("ids=1&ulogin=d", Err(Breach::Login("ulogin")), Err(Breach::Login("ulogin"))),
        ("ids=1&ulogin=", Err(Breach::Login("ulogin")), Err(Breach::Login("ulogin"))),
        ("ids=1&ulogin=A.b", NOTHING_OWED, BODY_OWED),
        ("ids=1&ulogin=a_b", Err(Breach::Login("ulogin")), Err(Breach::Login("ulogin"))),
        ("ids=1&ulogin=a%252Db", Err(Breach::Login("ulogin")), Err(Breach::Login("ulogin"))),
        (
            "ids=1&direct_client_logins=c,d",
            Err(Breach::Login("direct_client_logins")),
            Err(Breach::Login("direct_client_logins")),
        ),
        (
            "ids=1&uLogin=a-b",
            Err(Breach::Login("a parameter with a name similar to ulogin or direct_client_logins")),
            Err(Breach::Login("a parameter with a name similar to ulogin or direct_client_logins")),
        ),
        (
            "ids=1&ulogin[]=c",
            Err(Breach::Login("a parameter with a name similar to ulogin or direct_client_logins")),
            Err(Breach::Login("a parameter with a name similar to ulogin or direct_client_logins")),
        ),
        (
            "ids=1&directClientLogins=c",
            Err(Breach::Login("a parameter with a name similar to ulogin or direct_client_logins")),
            Err(Breach::Login("a parameter with a name similar to ulogin or direct_client_logins")),
        ),
    ] {
        let target = format!("/stat/v1/data?{query}");
        assert_eq!(get(&known, &target), by_login, "{target}");
        assert_eq!(get(&both, &target), by_both, "{target}");
    }
    assert_eq!(get(&limited(), "/stat/v1/data?ids=1&ulogin=c"), Err(Breach::Login("ulogin")));
    assert_eq!(
        get(&limited(), "/management/v1/counter/1?direct_client_logins=c"),
        Err(Breach::Login("direct_client_logins"))
    );
}

#[test]
fn rule_7_bodies_are_read_where_they_are_not_data_of_the_path() {
    for (verb, target, body_policy) in [
        (Verb::Put, "/management/v1/counter/1", true),
        (Verb::Post, "/management/v1/counter/1/goals", true),
        (Verb::Post, "/management/v1/counter/1/expense/delete_single", true),
        (Verb::Post, "/management/v1/counter/1/offline_conversions/upload", false),
        (Verb::Post, "/management/v1/counter/1/expense/delete", false),
        (Verb::Post, "/cdp/api/v1/counter/1/data/contacts/csv", false),
        (Verb::Post, "/cdp/api/v1/counter/1/data/contacts/json", true),
        (Verb::Post, "/cdp/api/v1/counter/1/schema/attributes", true),
    ] {
        assert_eq!(decide(&limited(), verb, target), if body_policy { BODY_OWED } else { DATA_OWED }, "{target}");
    }
    for (body, expected) in [
        ("", Ok(())),
        (r#"{"goal":{"id":7}}"#, Ok(())),
        (r#"{"counter":{"id":3}}"#, Ok(())),
        (r#"{"counter":{"id":2}}"#, Err(Breach::Counter(2, "the body"))),
        (r#"{"a":[{"counterIds":["1","2"]}]}"#, Err(Breach::Counter(2, "the body"))),
        (r#"{"counter_id":1,"counter_id":2}"#, Err(Breach::Body)),
        ("counter_id=2", Err(Breach::Body)),
    ] {
        assert_eq!(check_body(&[1, 3], body.as_bytes()), expected, "{body}");
    }
}

#[test]
fn rule_3_making_a_measurement_token_needs_to_be_allowed() {
    let allowed = Rules { measurement_tokens: true, ..Rules::default() };
    let target = "/management/v1/counter/1/measurement/generate";
    assert_eq!(get(&Rules::default(), target), Err(Breach::SecretAnswer));
    assert_eq!(get(&allowed, target), NOTHING_OWED);
    assert_eq!(get(&Rules { sharing: false, ..allowed }, target), Err(Breach::Sharing));
}

#[test]
fn rule_6_a_request_without_a_login_is_about_the_whole_account() {
    let logins = Rules { logins: Some(["a".into()].into()), ulogin_absent: false, ..Rules::default() };
    let any = Rules { logins: None, ..logins.clone() };
    for target in [
        "/management/v1/counters",
        "/stat/v1/data?ids=1",
        "/stat/v1/data?ids=1&direct_client_logins=a",
        "/management/v1/counter/1",
        "/management/v1/accounts",
    ] {
        assert_eq!(get(&logins, target), Err(Breach::NoLogin), "{target}");
        let named = format!("{target}{}ulogin=a", if target.contains('?') { '&' } else { '?' });
        assert_eq!(get(&logins, &named), NOTHING_OWED, "{named}");
    }
    assert_eq!(get(&logins, "/management/v1/messengers"), NOTHING_OWED, "a dictionary is nobody's");
    assert_eq!(get(&any, "/management/v1/counters"), Err(Breach::NoLogin));
    assert_eq!(get(&any, "/management/v1/counters?ulogin=x"), NOTHING_OWED);
}

#[test]
fn rule_8_operations_that_give_access_can_be_denied() {
    let closed = Rules { sharing: false, ..Rules::default() };
    for (verb, target, denied) in [
        (Verb::Post, "/management/v1/counter/1/grants", true),
        (Verb::Put, "/management/v1/counter/1/grant?user_login=a", true),
        (Verb::Put, "/management/v1/counter/1/grant/a", true),
        (Verb::Post, "/management/v1/counter/1/public_grant", true),
        (Verb::Post, "/management/v1/delegates", true),
        (Verb::Put, "/management/v1/delegates", true),
        (Verb::Get, "/management/v1/counter/1/measurement/generate", true),
        (Verb::Get, "/management/v1/counter/1/grants", false),
        (Verb::Delete, "/management/v1/counter/1/grant?user_login=a", false),
        (Verb::Post, "/management/v1/counter/1/goals", false),
    ] {
        assert_eq!(decide(&closed, verb, target) == Err(Breach::Sharing), denied, "{target}");
    }
    let unknown = Catalogue::built_in().with_unknown(metrica::operation::UnknownOperations::ByMethod);
    let Lookup::Known(operation) = unknown.find(Verb::Post, "/management/v2/shares") else { panic!("by its method") };
    assert_eq!(operation.shares, metrica::operation::Shares::Anyone, "nobody knows");
}

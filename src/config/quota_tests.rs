//! Tests of the quotas of a configuration: each mistake has its place and its remedy.

use std::path::Path;

use super::*;
use crate::quota::{Limit, LimitName, Mode};

const CALLERS: &str = "
listeners: [{name: app, address: '127.0.0.1:8080'}, {name: crm, address: '127.0.0.1:8081'}]
tokens: {t: {file: /t, scopes: [metrika:read]}}
callers:
  - {id: etl, match: {listener: app}, scopes: [metrika:read], tokens: [t]ETL}
  - {id: dash, match: {listener: crm}, scopes: [metrika:read], tokens: [t]DASH}
";

/// A configuration with the key `quota`, and with more keys of its two callers.
fn with(quota: &str, etl: &str, dash: &str) -> Result<Config, String> {
    let text = format!("{}{quota}\n", CALLERS.replace("ETL", etl).replace("DASH", dash));
    Config::parse(&text, Path::new("gate.yaml")).map_err(|error| error.to_string())
}

fn limit(config: &Config, name: LimitName) -> Limit {
    *config.quota.as_ref().unwrap().limits.all().find(|limit| limit.name == name).unwrap()
}

#[test]
fn each_mistake_in_the_limits_has_its_place_and_remedy() {
    for (quota, expected) in [
        ("quota: 3", "gate.yaml:7:8 quota: is 3; expected a mapping"),
        ("quota: {mode: enforced}", "gate.yaml:7:15 quota.mode: is 'enforced'; expected enforce, observe or off"),
        ("quota: {egress: 'a b'}", "gate.yaml:7:17 quota.egress: is 'a b'; expected"),
        ("quota: {replicas: 0}", "gate.yaml:7:19 quota.replicas: is 0; expected a number from 1 to 1000"),
        (
            "quota: {limits: {parallel: 0}}",
            "gate.yaml:7:28 quota.limits.parallel: is 0; expected a number from 1 to 1000000",
        ),
        (
            "quota: {limits: {day: {limit: 0}}}",
            "gate.yaml:7:31 quota.limits.day.limit: is 0; expected a number from 1 to 1000000",
        ),
        (
            "quota: {limits: {parallel: 4}}",
            "gate.yaml:7:28 quota.limits.parallel: exceeds the 3 that Metrica documents; if Metrica has raised it for you, write {limit: 4, raised: true}",
        ),
        (
            "quota: {limits: {day: {limit: 5001, raised: false}}}",
            "gate.yaml:7:31 quota.limits.day.limit: exceeds the 5000 that Metrica documents",
        ),
        ("quota: {limits: {day: {raised: perhaps}}}", "quota.limits.day.raised: is 'perhaps'; expected true or false"),
        ("quota: {limits: {day: {mode: on}}}", "quota.limits.day.mode: is"),
        ("quota: {limits: {paralel: 3}}", "gate.yaml:7:18 quota.limits.paralel: unknown key; did you mean 'parallel'?"),
        ("quota: {limits: {parallel: three}}", "gate.yaml:7:28 quota.limits.parallel:"),
        ("quota: {queue: {total: 0}}", "gate.yaml:7:24 quota.queue.total: is 0; expected a number from 1 to 100000"),
        ("quota: {queue: {per_login: 1}}", "quota.queue.per_login: unknown key"),
        ("quota: {limit: {parallel: 3}}", "gate.yaml:7:9 quota.limit: unknown key; did you mean 'limits'?"),
    ] {
        let said = with(quota, "", "").unwrap_err();
        assert!(said.contains(expected) && said.lines().count() == 2, "{quota}\n{said}");
    }
}

#[test]
fn each_mistake_in_the_part_of_a_caller_has_its_place_and_remedy() {
    for (etl, expected) in [
        ("{class: urgent}", "callers[0].quota.class: is 'urgent'; expected interactive, normal or batch"),
        ("{wait: 0s}", "callers[0].quota.wait: is zero; expected a longer duration"),
        ("{wait: 30}", "callers[0].quota.wait: is 30; expected a duration as in 10s, 250ms or 1m 30s"),
        ("{weight: 0}", "callers[0].quota.weight: is 0; expected a number from 1 to 1000"),
        ("{per_day: 0}", "callers[0].quota.per_day: is 0; expected a number from 1 to 1000000"),
        ("{per_5m: -1}", "callers[0].quota.per_5m: is -1; expected a number from 1 to 1000000"),
        ("{share: 50}", "callers[0].quota.share: is 50; expected a percentage as in 50%, from 1% to 100%"),
        ("{share: 0%}", "callers[0].quota.share: is '0%'; expected a percentage as in 50%, from 1% to 100%"),
        ("{share: 101%}", "callers[0].quota.share: is '101%'; expected"),
        ("{shares: 10%}", "callers[0].quota.shares: unknown key; did you mean 'share'?"),
    ] {
        let said = with("quota: {}", &format!(", quota: {etl}"), "").unwrap_err();
        let place = said.lines().next().unwrap();
        assert!(place.starts_with("gate.yaml:5:") && place.contains(expected) && said.lines().count() == 2, "{said}");
    }
}

#[test]
fn shares_beyond_the_whole_and_a_part_without_quota_are_mistakes() {
    let (half, more) = (", quota: {share: 50%}", ", quota: {share: 51%}");
    assert!(with("quota: {}", half, half).is_ok());
    let said = with("quota: {}", half, more).unwrap_err();
    let expected = "callers[1].quota.share: the shares of all callers add up to 101 %; reduce them to 100 % at most";
    assert!(said.starts_with("gate.yaml:6:") && said.contains(expected), "{said}");
    let said = with("", "", ", quota: {weight: 2}").unwrap_err();
    let expected = "callers[1].quota: has no effect without the key 'quota' of the configuration; add `quota: {}`";
    assert!(said.starts_with("gate.yaml:6:") && said.contains(expected), "{said}");
}

#[test]
fn limits_have_the_stated_number_and_mode_or_the_default() {
    let config = with(
        "quota: {mode: observe, limits: {parallel: {mode: enforce}, day: {limit: 20000, raised: true}, by_ip: 10}}",
        "",
        "",
    )
    .unwrap();
    for (name, number, mode) in [
        (LimitName::Parallel, 3, Mode::Enforce),
        (LimitName::Day, 20_000, Mode::Observe),
        (LimitName::ByIp, 10, Mode::Observe),
        (LimitName::Reports5m, 190, Mode::Observe),
    ] {
        let limit = limit(&config, name);
        assert_eq!((limit.limit, limit.mode), (number, mode), "{}", name.as_str());
    }
    assert_eq!(config.quota.unwrap().mode, Mode::Observe, "budgets have the mode of all");
    assert_eq!(with("", "", "").unwrap().quota, None);
}

#[test]
fn the_smallest_configuration_enforces_what_only_delays() {
    let config = Config::parse(include_str!("../../config/gate.yaml"), Path::new("gate.yaml")).unwrap();
    for name in LimitName::ALL {
        let only_delays = [LimitName::Parallel, LimitName::ByIp].contains(name);
        let mode = if only_delays { Mode::Enforce } else { Mode::Observe };
        assert_eq!(limit(&config, *name).mode, mode, "{}", name.as_str());
    }
}

#[test]
fn replicas_divide_the_limits() {
    let config = with("quota: {replicas: 3}", "", "").unwrap();
    assert_eq!(limit(&config, LimitName::Parallel).limit, 1);
    assert_eq!(limit(&config, LimitName::Day).limit, 1633);
}

#[test]
fn a_store_has_its_defaults_and_divides_nothing() {
    let config = with("quota: {replicas: 3, store: {redis: 'rediss://gate@redis.internal/2'}}", "", "").unwrap();
    assert_eq!(limit(&config, LimitName::Parallel).limit, 3);
    let store = config.store().unwrap();
    assert_eq!((store.host.as_str(), store.port, store.tls, store.database), ("redis.internal", 6379, true, 2));
    assert_eq!((store.user.as_deref(), store.prefix.as_str()), (Some("gate"), "metrika-gate"));
    assert_eq!((store.lease.as_secs(), store.timeout.as_millis()), (5, 100));
    assert!(!store.is_open());
    for (url, is_open) in [
        ("redis://redis.internal", true),
        ("redis://localhost", false),
        ("redis://127.0.0.1:1", false),
        ("redis://[::1]", false),
    ] {
        let config = with(&format!("quota: {{store: {{redis: '{url}'}}}}"), "", "").unwrap();
        assert_eq!(config.store().unwrap().is_open(), is_open, "{url}");
    }
}

#[test]
fn mistakes_in_a_store_have_their_place_and_remedy() {
    for (store, place, message) in [
        ("{}", "quota.store", "redis"),
        ("{redis: 'http://h'}", "quota.store.redis", "rediss://"),
        ("{redis: 'redis://user:secret@h'}", "quota.store.redis", "password_file"),
        ("{redis: 'redis://h:0'}", "quota.store.redis", "rediss://"),
        ("{redis: 'redis://h/x'}", "quota.store.redis", "rediss://"),
        ("{redis: 'redis://h', ca_file: /nowhere}", "quota.store.ca_file", "rediss://"),
        ("{redis: 'redis://h', lease: 500ms, timeout: 10ms}", "quota.store.lease", "1s to 60s"),
        ("{redis: 'redis://h', timeout: 1s}", "quota.store.timeout", "a sixth of lease"),
        ("{redis: 'redis://h', prefix: 'a{b}'}", "quota.store.prefix", "letters"),
        ("{redis: 'redis://h', on_loss: open}", "quota.store.on_loss", "share or refuse"),
        ("{redis: 'redis://h', cluster: true}", "quota.store", "cluster"),
    ] {
        let said = with(&format!("quota: {{store: {store}}}"), "", "").unwrap_err().to_string();
        assert!(said.contains(place) && said.contains(message), "{store}: {said}");
        assert!(!said.contains("secret"), "{said}");
    }
}

//! Tokens that Metrica rejects: suspended, probed, accepted again; and the observed rights to counters.

use std::time::Duration;

use fake_metrica::{Fake, FakeToken, Permission, Settings};
use metrica::scope::Scope;

use crate::harness::gate::{Plan, until};
use crate::harness::{Gate, READ_TOKEN, TWO_CALLERS, Upstream, WRITE_TOKEN};

const COUNTERS: &str = "/management/v1/counters";
const OTHER_TOKEN: &str = "y0_canaryOTHERcanary0123456789abcde";

const INVALID: &str = r#"{"errors":[{"error_type":"invalid_token","message":"m"}],"code":403,"message":"m"}"#;
const LIST: &str = r#"{"rows":0,"counters":[]}"#;

fn token(secret: &str, scopes: &[Scope]) -> FakeToken {
    crate::harness::metrica::token(secret, "owner", scopes, &[(1, Permission::Own), (2, Permission::View)])
}

fn metrica(tokens: Vec<FakeToken>) -> Fake {
    Fake::start(Settings { tokens, ..Settings::default() }).unwrap()
}

fn plan(fake: &Fake, more: &str) -> Plan {
    Gate::plan_for(&fake.address().to_string(), fake.ca_pem(), &format!("{TWO_CALLERS}\n{more}\n"))
}

fn reason(gate: &Gate, listener: &str, request: &str) -> String {
    let answer = gate.send(listener, format!("{request} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n"));
    answer
        .field("x-gate-reason")
        .map_or_else(|| answer.status.to_string(), |reason| format!("{} {reason}", answer.status))
}

/// There is one series for an alert, and no more upstream than the question whether the token is accepted again.
#[test]
fn a_revoked_token_is_suspended() {
    let fake = metrica(vec![token(READ_TOKEN, &[Scope::Read]), token(WRITE_TOKEN, &[Scope::Write])]);
    let gate = plan(&fake, "token_health: {probe_after: 400ms, probe_at_most: 800ms}").start();
    fake.revoke(READ_TOKEN);
    assert_eq!(reason(&gate, "app", &format!("GET {COUNTERS}")), "403 token_invalid");
    // The refused caller has waited for the result of a probe, so that the next request is decided with it.
    assert_eq!(reason(&gate, "app", &format!("GET {COUNTERS}")), "503 token_suspended");
    assert!(gate.metric(&["token_state{token=\"analytics\",state=\"suspended\"}"]) > 0.0);
    let before = fake.requests();
    let start = std::time::Instant::now();
    // Long enough for questions to be asked, each after a longer time.
    while start.elapsed() < Duration::from_millis(1300) {
        assert_eq!(reason(&gate, "app", &format!("GET {COUNTERS}")), "503 token_suspended");
    }
    let answer = gate.get("app", COUNTERS);
    assert_eq!((answer.field("retry-after"), answer.summary().as_str()), (Some("1"), "503 token_suspended"));
    let most = 1 + u64::try_from(start.elapsed().as_millis() / 400).unwrap();
    assert!(fake.requests() - before <= most, "{} requests went up in {:?}", fake.requests() - before, start.elapsed());
    // The other token is unaffected.
    assert_eq!(reason(&gate, "crm", "POST /management/v1/counter/1/undelete"), "200");
    let alarming: Vec<_> = gate
        .metrics(&["auth_failures_total", "token_invalid"])
        .into_iter()
        .filter(|line| !line.ends_with(" 0"))
        .collect();
    assert_eq!(alarming.len(), 1, "{alarming:?}");
    assert!(alarming[0].contains("caller=\"reports\",token=\"analytics\",operation=\"counters.list\",code=\"403\""));
    fake.restore(READ_TOKEN);
    gate.until_metric(&["token_state{token=\"analytics\",state=\"healthy\"}"], 1.0);
    assert_eq!(gate.get("app", COUNTERS).status, 200);
    assert!(!gate.log().iter().any(|line| line.contains("canary")));
}

#[test]
fn another_token_in_the_file_ends_it_at_once() {
    let fake = metrica(vec![token(READ_TOKEN, &[Scope::Read]), token(OTHER_TOKEN, &[Scope::Read])]);
    let gate = plan(&fake, "token_health: {probe_after: 1h, probe_at_most: 1h}").start();
    fake.revoke(READ_TOKEN);
    gate.get("app", COUNTERS);
    gate.until_metric(&["token_state{token=\"analytics\",state=\"suspended\"}"], 1.0);
    gate.replace_token("analytics", OTHER_TOKEN);
    until("it is used", || gate.get("app", COUNTERS).status == 200);
    gate.until_metric(&["token_state{token=\"analytics\",state=\"suspended\"}"], 0.0);
    // The one before is known to be invalid, and its return is not held against the file.
    fake.restore(READ_TOKEN);
    gate.replace_token("analytics", READ_TOKEN);
    until("it is used again", || gate.metric(&["token_reloads_total{outcome=\"success\"}"]) >= 2.0);
    assert_eq!(gate.get("app", COUNTERS).status, 200);
}

#[test]
fn a_standby_takes_over() {
    let fake = metrica(vec![token(READ_TOKEN, &[Scope::Read]), token(OTHER_TOKEN, &[Scope::Read])]);
    let tokens = "
tokens:
  analytics: {file: '{folder}/analytics', scopes: [metrika:read], owner: owner, standby: second}
  second: {file: '{folder}/second', scopes: [metrika:read], owner: owner}
  crm: {file: '{folder}/crm', scopes: [metrika:write]}
token_health: {probe_after: 1h, probe_at_most: 1h}";
    let gate = plan(&fake, tokens).token("second", OTHER_TOKEN).start();
    let standby = |family: &str| gate.metrics(&[family]);
    assert_eq!(standby("standby_in_use"), ["metrika_gate_token_standby_in_use{token=\"analytics\"} 0"]);
    assert_eq!(standby("standby_switches"), ["metrika_gate_standby_switches_total{token=\"analytics\"} 0"]);
    fake.revoke(READ_TOKEN);
    assert_eq!(reason(&gate, "app", &format!("GET {COUNTERS}")), "403 token_invalid");
    gate.until_metric(&["token_state{token=\"analytics\",state=\"suspended\"}"], 1.0);
    assert_eq!(gate.get("app", COUNTERS).status, 200);
    assert_eq!(standby("standby_in_use"), ["metrika_gate_token_standby_in_use{token=\"analytics\"} 1"]);
    assert_eq!(standby("standby_switches"), ["metrika_gate_standby_switches_total{token=\"analytics\"} 1"]);
    let line = gate.until_log(&["\"access\"", "\"token\":\"second\"", "\"status\":200"]);
    assert!(line.contains("counters.list"));
    fake.revoke(OTHER_TOKEN);
    // It was accepted just now, so that is believed later.
    until("it is refused", || reason(&gate, "app", &format!("GET {COUNTERS}")) != "403 token_invalid");
    gate.until_metric(&["token_state{token=\"second\",state=\"suspended\"}"], 1.0);
    assert_eq!(gate.get("app", COUNTERS).summary(), "503 token_suspended");
}

/// A refused counter proves nothing about the token; the owner's rights to it are asked once.
#[test]
fn a_counter_never_suspends_and_is_asked_about_once() {
    let fake = metrica(vec![token(READ_TOKEN, &[Scope::Read]), token(WRITE_TOKEN, &[Scope::Read, Scope::Write])]);
    let gate = plan(&fake, "").start();
    let write = |counter| format!("POST /management/v1/counter/{counter}/goals");
    assert_eq!(reason(&gate, "crm", &write(2)), "403 ambiguous");
    until("what the owner may do is known", || reason(&gate, "crm", &write(2)) == "403 counter_view_only");
    assert_eq!(reason(&gate, "crm", &write(3)), "403 ambiguous");
    until("it is known", || reason(&gate, "crm", &write(3)) == "403 counter_not_granted");
    let before = fake.requests();
    for _ in 0..20 {
        reason(&gate, "crm", &write(3));
    }
    assert_eq!(fake.requests() - before, 20, "nothing more is asked");
    assert!(gate.metrics(&["token_state", "state=\"suspended\""]).iter().all(|line| line.ends_with(" 0")));
}

/// A 401 without an error type is examined at once, and does not suspend a valid token.
#[test]
fn a_status_alone_is_looked_into_before_it_is_believed() {
    let upstream = Upstream::run(|conversation| {
        while let Some(head) = conversation.request_head() {
            match head.contains("/stat/") {
                true => conversation.answer("401 Unauthorized", "text/html", "<html>"),
                false => conversation.answer("200 OK", "application/json", r#"{"rows":0,"counters":[]}"#),
            }
        }
    });
    let gate =
        Gate::start(&upstream, &format!("{TWO_CALLERS}\ntoken_health: {{probe_after: 1h, probe_at_most: 1h}}\n"));
    let questions = || upstream.requests().iter().filter(|head| head.contains("per_page=1")).count();
    for _ in 0..20 {
        assert_eq!(reason(&gate, "app", "GET /stat/v1/data?ids=1"), "401 other", "the token is accepted");
        assert_eq!(gate.get("app", COUNTERS).status, 200);
    }
    std::thread::sleep(Duration::from_millis(100));
    assert!(!gate.log().iter().any(|line| line.contains("rejected the token as invalid")));
    assert_eq!(questions(), 1, "it is calm for ten seconds");
}

#[test]
fn a_status_alone_suspends_a_token_that_is_invalid() {
    let fake = metrica(vec![token(READ_TOKEN, &[Scope::Read])]);
    fake.turn("invalid?status=401").unwrap();
    fake.turn("wording?error_type=unauthorized").unwrap();
    let gate = plan(&fake, "token_health: {probe_after: 1h, probe_at_most: 1h}").start();
    fake.revoke(READ_TOKEN);
    assert_eq!(reason(&gate, "app", &format!("GET {COUNTERS}")), "401 token_invalid");
    gate.until_metric(&["token_state{token=\"analytics\",state=\"suspended\"}"], 1.0);
    assert_eq!(gate.get("app", COUNTERS).summary(), "503 token_suspended");
}

/// A caller whose request is answered as if the token were invalid cannot have the token suspended.
#[test]
fn a_false_alarm_suspends_nothing() {
    let upstream = Upstream::run(move |conversation| {
        while let Some(head) = conversation.request_head() {
            match head.contains("/counter/105") {
                true => conversation.answer("403 Forbidden", "application/json", INVALID),
                false => conversation.answer("200 OK", "application/json", LIST),
            }
        }
    });
    let gate = Gate::start(&upstream, &format!("{TWO_CALLERS}\ntoken_health: {{probe_after: 200ms}}\n"));
    let start = std::time::Instant::now();
    while start.elapsed() < Duration::from_millis(1500) {
        assert_eq!(reason(&gate, "app", "GET /management/v1/counter/105"), "403 other");
        assert_eq!(gate.get("app", COUNTERS).status, 200);
    }
    assert!(!gate.log().iter().any(|line| line.contains("rejected the token as invalid")));
    let questions = upstream.requests().iter().filter(|head| head.contains("per_page=1")).count();
    assert_eq!(questions, 1, "what a probe disproved is believed for ten seconds");
}

/// A token that was suspended, taken out of the configuration and put back is another one.
#[test]
fn a_token_returned_to_the_configuration_starts_without_its_suspension() {
    let fake = metrica(vec![token(READ_TOKEN, &[Scope::Read]), token(OTHER_TOKEN, &[Scope::Read])]);
    let gate = plan(&fake, "token_health: {probe_after: 1h, probe_at_most: 1h}").start();
    fake.revoke(READ_TOKEN);
    gate.get("app", COUNTERS);
    gate.until_metric(&["token_state{token=\"analytics\",state=\"suspended\"}"], 1.0);
    let with = gate.config();
    let without: String =
        with.lines().filter(|line| !line.starts_with("  analytics:")).map(|line| format!("{line}\n")).collect();
    gate.replace_config(
        &without.replace("tokens: [analytics]", "tokens: [crm]").replace("tokens: [analytics, crm]", "tokens: [crm]"),
    );
    gate.signal("HUP");
    until("it is out", || gate.metrics(&["token_state{token=\"analytics\""]).is_empty());
    gate.replace_token("analytics", OTHER_TOKEN);
    gate.replace_config(&with);
    gate.signal("HUP");
    until("it is used", || gate.get("app", COUNTERS).status == 200);
}

/// A token without metrika:read cannot look at a counter: that proves nothing about the owner's grant.
#[test]
fn a_token_without_the_read_scope_has_scope_missing_and_no_lost_grant() {
    let fake = metrica(vec![token(READ_TOKEN, &[Scope::Expenses])]);
    let gate = plan(&fake, "").start();
    let ask = || reason(&gate, "app", "GET /management/v1/counter/1/goals");
    assert_eq!(ask(), "403 ambiguous");
    until("it is known", || ask() == "403 scope_missing");
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(ask(), "403 scope_missing", "and it stays so");
    assert_eq!(reason(&gate, "app", "GET /stat/v1/data?ids=1&metrics=ym:s:visits"), "403 scope_missing");
    assert!(gate.metric(&["scope_drift_total"]) >= 2.0);
}

/// A name that somebody sends back is no login when it holds a token.
#[test]
fn an_owner_that_is_a_token_reaches_no_log() {
    let fake = metrica(vec![token(READ_TOKEN, &[Scope::Read])]);
    fake.turn(&format!("account?token={READ_TOKEN}&login={READ_TOKEN}")).unwrap();
    let more = "
tokens:
  analytics: {file: '{folder}/analytics', scopes: [metrika:read], owner: owner}
  crm: {file: '{folder}/crm', scopes: [metrika:write]}
identity: {url: 'https://login.yandex.ru/info', ca_file: '{ca}', connect_to: '{upstream}'}";
    let gate = plan(&fake, more).start();
    until("it was asked", || fake.heard().iter().any(|request| request.contains("/info")));
    assert_eq!(gate.get("app", COUNTERS).status, 200);
    std::thread::sleep(Duration::from_millis(300));
    assert!(!gate.log().iter().any(|line| line.contains("canary") || line.contains("another account")));
}

/// However many counters are refused, one question is pending at a time.
#[test]
fn questions_wait_for_each_other() {
    let most = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let (now, seen) = (std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0)), most.clone());
    let denied = r#"{"errors":[{"error_type":"access_denied","message":"m"}],"code":403,"message":"m"}"#;
    let upstream = Upstream::run(move |conversation| {
        while let Some(head) = conversation.request_head() {
            // The gate's own have no id.
            if head.to_lowercase().contains("x-request-id") {
                conversation.answer("403 Forbidden", "application/json", denied);
                continue;
            }
            seen.fetch_max(
                now.fetch_add(1, std::sync::atomic::Ordering::SeqCst) + 1,
                std::sync::atomic::Ordering::SeqCst,
            );
            std::thread::sleep(Duration::from_millis(30));
            now.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
            conversation.answer("200 OK", "application/json", r#"{"counters":[],"counter":{"permission":"view"}}"#);
        }
    });
    let gate = Gate::start(&upstream, TWO_CALLERS);
    for counter in 1..=10 {
        gate.get("app", &format!("/management/v1/counter/{counter}"));
    }
    let asked = || upstream.requests().iter().filter(|head| !head.to_lowercase().contains("x-request-id")).count();
    until("all were asked", || asked() >= 11);
    assert_eq!(most.load(std::sync::atomic::Ordering::SeqCst), 1);
}

/// A scope that nobody needs makes a token too wide; how long nobody did is reported for each.
#[test]
fn scopes_that_nobody_needs_are_counted() {
    let gate = Gate::start(&Upstream::plain(), TWO_CALLERS);
    gate.get("app", COUNTERS);
    let unused = gate.metrics(&["token_scope_unused_seconds"]);
    assert_eq!(unused.len(), 2, "{unused:?}");
    assert!(unused.iter().any(|line| line.contains("token=\"crm\",scope=\"metrika:write\"}")), "{unused:?}");
}

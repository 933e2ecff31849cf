//! Tokens that Metrica does not take: parked, asked about, taken back; and what is learnt of counters.

use std::time::Duration;

use metrika_gate::fake::{Fake, FakeToken, Permission, Settings};
use metrika_gate::scope::Scope;

use crate::harness::gate::{Plan, until};
use crate::harness::{Gate, READ_TOKEN, TWO_CALLERS, Upstream, WRITE_TOKEN};

const COUNTERS: &str = "/management/v1/counters";
const OTHER_TOKEN: &str = "y0_canaryOTHERcanary0123456789abcde";

fn token(secret: &str, scopes: &[Scope]) -> FakeToken {
    FakeToken {
        secret: secret.to_owned(),
        owner: "owner".to_owned(),
        scopes: scopes.iter().copied().collect(),
        counters: vec![(1, Permission::Own), (2, Permission::View)],
        ..FakeToken::default()
    }
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

/// One series to be alarmed by, and no more upstream than the question whether the token is taken again.
#[test]
fn a_revoked_token_is_parked() {
    let fake = metrica(vec![token(READ_TOKEN, &[Scope::Read]), token(WRITE_TOKEN, &[Scope::Write])]);
    let gate = plan(&fake, "token_health: {probe_after: 400ms, probe_at_most: 800ms}").start();
    assert_eq!(gate.get("app", COUNTERS).status, 200);
    fake.revoke(READ_TOKEN);
    assert_eq!(reason(&gate, "app", &format!("GET {COUNTERS}")), "403 token_invalid");
    gate.until_metric(&["token_state{token=\"analytics\",state=\"parked\"}"], 1.0);
    let before = fake.requests();
    let start = std::time::Instant::now();
    // Long enough for questions to be asked, each after a longer time.
    while start.elapsed() < Duration::from_millis(1300) {
        assert_eq!(reason(&gate, "app", &format!("GET {COUNTERS}")), "503 token_parked");
    }
    let answer = gate.get("app", COUNTERS);
    assert_eq!((answer.field("retry-after"), answer.summary().as_str()), (Some("30"), "503 token_parked"));
    let most = 1 + u64::try_from(start.elapsed().as_millis() / 400).unwrap();
    assert!(fake.requests() - before <= most, "{} requests went up in {:?}", fake.requests() - before, start.elapsed());
    // The other token is none of its business.
    assert_eq!(reason(&gate, "crm", "POST /management/v1/counter/1/undelete"), "200");
    let alarming: Vec<_> = gate.metrics(&["token_invalid"]).into_iter().filter(|line| !line.ends_with(" 0")).collect();
    assert_eq!(alarming.len(), 1, "{alarming:?}");
    assert!(alarming[0].contains("caller=\"reports\",token=\"analytics\",operation=\"counters.list\",code=\"403\""));
    fake.restore(READ_TOKEN);
    gate.until_metric(&["token_state{token=\"analytics\",state=\"usable\"}"], 1.0);
    assert_eq!(gate.get("app", COUNTERS).status, 200);
    assert!(!gate.log().iter().any(|line| line.contains("canary")));
}

#[test]
fn another_token_in_the_file_ends_it_at_once() {
    let fake = metrica(vec![token(READ_TOKEN, &[Scope::Read]), token(OTHER_TOKEN, &[Scope::Read])]);
    let gate = plan(&fake, "token_health: {probe_after: 1h, probe_at_most: 1h}").start();
    fake.revoke(READ_TOKEN);
    gate.get("app", COUNTERS);
    gate.until_metric(&["token_state{token=\"analytics\",state=\"parked\"}"], 1.0);
    gate.replace_token("analytics", OTHER_TOKEN);
    until("it is used", || gate.get("app", COUNTERS).status == 200);
    gate.until_metric(&["token_state{token=\"analytics\",state=\"parked\"}"], 0.0);
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
    assert_eq!(gate.get("app", COUNTERS).status, 200);
    fake.revoke(READ_TOKEN);
    assert_eq!(reason(&gate, "app", &format!("GET {COUNTERS}")), "403 token_invalid");
    gate.until_metric(&["token_state{token=\"analytics\",state=\"parked\"}"], 1.0);
    assert_eq!(gate.get("app", COUNTERS).status, 200);
    let line = gate.until_log(&["\"access\"", "\"token\":\"second\"", "\"status\":200"]);
    assert!(line.contains("counters.list"));
    fake.revoke(OTHER_TOKEN);
    assert_eq!(reason(&gate, "app", &format!("GET {COUNTERS}")), "403 token_invalid");
    gate.until_metric(&["token_state{token=\"second\",state=\"parked\"}"], 1.0);
    assert_eq!(gate.get("app", COUNTERS).summary(), "503 token_parked");
}

/// A counter that is refused says nothing of the token; what its owner may do there is asked once.
#[test]
fn a_counter_never_parks_and_is_asked_about_once() {
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
    assert!(gate.metrics(&["token_state", "state=\"parked\""]).iter().all(|line| line.ends_with(" 0")));
}

/// A 401 that does not say what it is of is looked into at once, and does not stop a token that is valid again and again.
#[test]
fn a_status_alone_is_not_believed_for_long() {
    let upstream = Upstream::run(|conversation| {
        while let Some(head) = conversation.request_head() {
            match head.contains("/counters?per_page") || !head.contains("/stat/") {
                true => conversation.answer("200 OK", "application/json", "{}"),
                false => conversation.answer("401 Unauthorized", "text/html", "<html>"),
            }
        }
    });
    let gate =
        Gate::start(&upstream, &format!("{TWO_CALLERS}\ntoken_health: {{probe_after: 1h, probe_at_most: 1h}}\n"));
    assert_eq!(reason(&gate, "app", "GET /stat/v1/data?ids=1"), "401 token_invalid");
    let parked = gate.until_log(&["Metrica takes the token for invalid"]);
    assert!(parked.contains("\"token\":\"analytics\""));
    gate.until_log(&["Metrica takes the token again"]);
    for _ in 0..20 {
        assert_eq!(reason(&gate, "app", "GET /stat/v1/data?ids=1"), "401 token_invalid");
        assert_eq!(gate.get("app", COUNTERS).status, 200);
    }
    std::thread::sleep(Duration::from_millis(50));
    let lines = gate.log().iter().filter(|line| line.contains("takes the token for invalid")).count();
    assert_eq!(lines, 1);
    assert_eq!(upstream.requests().iter().filter(|head| head.contains("per_page=1")).count(), 1);
}

/// A scope that nobody needs makes a token too wide; how long nobody did is said for each.
#[test]
fn scopes_that_nobody_needs_are_counted() {
    let gate = Gate::start(&Upstream::plain(), TWO_CALLERS);
    gate.get("app", COUNTERS);
    let unused = gate.metrics(&["token_scope_unused_seconds"]);
    assert_eq!(unused.len(), 2, "{unused:?}");
    assert!(unused.iter().any(|line| line.contains("token=\"crm\",scope=\"metrika:write\"}")), "{unused:?}");
}

//! Several accounts behind one caller: each request goes with a token whose owner may do it.

use std::time::Duration;

use fake_metrica::{Fake, Permission, Settings};
use metrica::scope::Scope;

use crate::cli::doctor::Practice;
use crate::harness::gate::{Plan, until};
use crate::harness::metrica::token;
use crate::harness::{Answer, Gate};

const ONE: &str = "y0_canary-of-the-first-account-000";
const ONE_WRITES: &str = "y0_canary-of-the-first-account-001";
const TWO: &str = "y0_canary-of-the-second-account-00";

/// The order of tokens in the state of the stand-in.
const OF_ONE: usize = 0;
const WRITES_OF_ONE: usize = 1;
const OF_TWO: usize = 2;

const BOTH: &[Scope] = &[Scope::Read, Scope::Write];

/// Account `one` owns 101 and may view 103; account `two` owns 202 and 203.
fn metrica() -> Fake {
    let of_one = [(101, Permission::Own), (103, Permission::View)];
    let of_two = [(202, Permission::Own), (203, Permission::Own), (103, Permission::Own)];
    let tokens = vec![
        token(ONE, "one", &[Scope::Read], &of_one),
        token(ONE_WRITES, "one", &[Scope::Write], &of_one),
        token(TWO, "two", BOTH, &of_two),
    ];
    Fake::start(Settings { tokens, ..Settings::default() }).unwrap()
}

/// The configuration of an agency; `{one}`, `{writes}` and `{two}` are further keys of the tokens.
fn plan(fake: &Fake, keys: [&str; 3], more: &str) -> Plan {
    let [one, writes, two] = keys;
    let config = format!(
        "
listeners:
  - {{name: app, address: '127.0.0.1:0'}}
  - {{name: first, address: '127.0.0.1:0'}}
tokens:
  one: {{file: '{{folder}}/one', scopes: [metrika:read]{one}}}
  one_writes: {{file: '{{folder}}/one_writes', scopes: [metrika:write]{writes}}}
  two: {{file: '{{folder}}/two', scopes: [metrika:read, metrika:write]{two}}}
callers:
  - {{id: agency, match: {{listener: app}}, scopes: [metrika:read, metrika:write], tokens: [one, one_writes, two], measurement_tokens: allow}}
  - {{id: client, match: {{listener: first}}, scopes: [metrika:read, metrika:write], tokens: [one, one_writes, two], counters: [101]}}
{more}
"
    );
    let plan = Gate::plan_for(&fake.address().to_string(), fake.ca_pem(), &config);
    plan.token("one", ONE).token("one_writes", ONE_WRITES).token("two", TWO)
}

const LISTED: [&str; 3] =
    [", owner: one, counters: [101, 103]", ", owner: one", ", owner: two, counters: [202, 203, 103]"];
const AUTO: [&str; 3] =
    [", owner: one, counters: auto", ", owner: one, counters: auto", ", owner: two, counters: auto"];
const NOTHING: [&str; 3] = ["", "", ""];

fn send(gate: &Gate, request: &str, fields: &str) -> Answer {
    let mut caller = gate.connect("app");
    caller.send(format!("{request} HTTP/1.1\r\nHost: localhost\r\n{fields}Content-Length: 0\r\n\r\n"));
    caller.try_answer(request.starts_with("HEAD ")).unwrap()
}

fn get(gate: &Gate, target: &str) -> u16 {
    send(gate, &format!("GET {target}"), "").status
}

fn goals(counter: u64) -> String {
    format!("/management/v1/counter/{counter}/goals")
}

fn report(ids: &str) -> String {
    format!("/stat/v1/data?metrics=ym:s:visits&ids={ids}")
}

/// The number of requests that the stand-in had with a token.
fn sent(fake: &Fake, token: usize) -> u64 {
    fake.turn("state").unwrap()["tokens"][token]["requests"].as_u64().unwrap()
}

fn known(gate: &Gate, token: &str) -> f64 {
    gate.metric(&["metrika_gate_token_counters", &format!("token=\"{token}\"")])
}

fn retries(gate: &Gate) -> f64 {
    let retries = gate.metric(&["metrika_gate_account_retries_total"]);
    assert_eq!(gate.metric(&["metrika_gate_resent_total", "reason=\"account\""]), retries);
    retries
}

fn started(fake: &Fake, keys: [&str; 3]) -> Gate {
    let gate = plan(fake, keys, "").start();
    if keys == AUTO {
        until("the counters are listed", || known(&gate, "one") >= 2.0 && known(&gate, "two") >= 3.0);
    }
    gate
}

#[test]
fn each_counter_is_read_with_the_token_of_its_account() {
    for keys in [LISTED, AUTO] {
        let fake = metrica();
        let gate = started(&fake, keys);
        let before = (sent(&fake, OF_ONE), sent(&fake, OF_TWO));
        for target in [goals(101), report("101"), goals(202), goals(203), report("202,203")] {
            assert_eq!(get(&gate, &target), 200, "{target}: {keys:?}");
        }
        let after = (sent(&fake, OF_ONE), sent(&fake, OF_TWO));
        assert_eq!((after.0 - before.0, after.1 - before.1, retries(&gate)), (2, 3, 0.0), "{keys:?}");
    }
}

/// Both accounts may read 103, and one of them may change it: a read goes with the narrower token.
#[test]
fn a_write_goes_with_the_token_whose_owner_may_change_the_counter() {
    let fake = metrica();
    let gate = started(&fake, AUTO);
    let goal = r#"{"goal":{"name":"a","type":"action","conditions":[{"type":"exact","url":"a"}]}}"#;
    let post = |counter: u64| {
        let (path, length) = (goals(counter), goal.len());
        let head = format!("POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n");
        gate.send("app", format!("{head}Content-Length: {length}\r\n\r\n{goal}")).status
    };
    let before = (sent(&fake, OF_ONE), sent(&fake, WRITES_OF_ONE), sent(&fake, OF_TWO));
    assert_eq!((post(103), post(101), get(&gate, &goals(103))), (200, 200, 200));
    let after = (sent(&fake, OF_ONE), sent(&fake, WRITES_OF_ONE), sent(&fake, OF_TWO));
    assert_eq!((after.0 - before.0, after.1 - before.1, after.2 - before.2), (1, 1, 1));
}

#[test]
fn counters_of_two_accounts_in_one_request_are_refused_by_account() {
    for keys in [LISTED, AUTO] {
        let fake = metrica();
        let gate = started(&fake, keys);
        let reports = || fake.heard().iter().filter(|line| line.contains("ids=101,202")).count();
        let answer = send(&gate, &format!("GET {}", report("101,202")), "");
        assert_eq!((answer.status, answer.field("x-gate-error")), (400, Some("several_accounts")));
        assert!(answer.text().contains("101 with token one; 202 with token two"), "{}", answer.text());
        assert_eq!(reports(), 0, "it is not sent");
    }
}

/// Without any knowledge, a read that is denied goes to the other account, once; what acts does not.
#[test]
fn a_denied_read_is_sent_to_the_other_account_once() {
    let fake = metrica();
    let gate = started(&fake, NOTHING);
    assert_eq!(get(&gate, &goals(202)), 200);
    assert_eq!(retries(&gate), 1.0);
    assert_eq!(gate.metric(&["metrika_gate_auth_failures_total"]), 0.0, "no caller saw it");
    // It is known from then on.
    until("the second account is known", || {
        let before = retries(&gate);
        get(&gate, &goals(202)) == 200 && retries(&gate) == before
    });
    let head = send(&gate, &format!("HEAD {}", goals(203)), "");
    assert_eq!(head.status, 200);
    let before = (sent(&fake, OF_TWO), retries(&gate));
    assert_eq!(send(&gate, "DELETE /management/v1/counter/204/goal/5", "").status, 403);
    // A GET that makes something.
    let made = send(&gate, "GET /management/v1/counter/204/measurement/generate", "");
    assert_eq!((made.status, made.field("x-gate-error")), (403, None), "{}", made.text());
    assert_eq!((sent(&fake, OF_TWO), retries(&gate)), before, "what acts is never sent to a second account");
}

/// A counter that no account has is denied by both, and the caller gets the last response.
#[test]
fn a_counter_of_nobody_is_denied_after_two_requests() {
    let fake = metrica();
    let gate = started(&fake, NOTHING);
    let before = fake.requests();
    let answer = send(&gate, &format!("GET {}", goals(999)), "");
    assert_eq!((answer.status, answer.field("x-gate-error")), (403, None));
    let requests = fake.heard().iter().filter(|line| line.contains("/counter/999/goals")).count();
    assert_eq!(requests, 2, "of {}", fake.requests() - before);
    assert_eq!(gate.metric(&["metrika_gate_auth_failures_total", "code=\"403\""]), 1.0);
}

#[test]
fn a_request_chooses_the_account_by_a_field_that_stays_here() {
    let fake = metrica();
    let gate = started(&fake, AUTO);
    let list = |fields: &str| send(&gate, "GET /management/v1/counters?field=goals", fields);
    assert!(list("").text().contains("101"), "the first listed");
    assert!(list("X-Gate-Account: two\r\n").text().contains("202"));
    let refused = |value: &str| {
        let answer = list(&format!("X-Gate-Account: {value}\r\n"));
        (answer.status, answer.field("x-gate-error").map(str::to_owned), answer.text())
    };
    let foreign = refused("one_writes");
    assert_eq!((foreign.0, foreign.1.as_deref()), (400, Some("bad_account")));
    assert_eq!((refused("nobody"), refused("TWO"), refused("")), (foreign.clone(), foreign.clone(), foreign));
    let twice = list("X-Gate-Account: two\r\nX-Gate-Account: two\r\n");
    assert_eq!((twice.status, twice.field("x-gate-error")), (400, Some("bad_account")), "one is chosen, or none");
    let line = gate.log().into_iter().rfind(|line| line.contains("bad_account") && line.contains("counters.list"));
    assert!(line.is_some_and(|line| line.contains("\"account\":true")));
    let usage = gate.admin("/usage").text();
    assert!(usage.contains("\"tokens\":[{\"quota_answers\":0,") && usage.contains("\"token\":\"two\""), "{usage}");
}

/// The list in the configuration is wrong: a denial corrects it.
#[test]
fn a_counter_that_moves_is_followed_although_it_is_configured() {
    let fake = metrica();
    let gate = started(&fake, LISTED);
    assert_eq!(get(&gate, &goals(202)), 200);
    fake.turn("grant?owner=two&counter=202&permission=none").unwrap();
    fake.turn("grant?owner=one&counter=202&permission=own").unwrap();
    assert_eq!(get(&gate, &goals(202)), 403, "what was known is wrong once");
    until("the counter is found", || get(&gate, &goals(202)) == 200);
    let line = gate.log().into_iter().rfind(|line| line.contains("denied_token"));
    assert!(line.is_none_or(|line| line.contains("\"denied_token\":\"two\"")));
}

/// What one caller does makes the gate read no list of an account that is another caller's.
#[test]
fn a_change_makes_only_lists_of_the_same_caller_be_read_again() {
    let tokens =
        vec![token(ONE, "one", BOTH, &[(101, Permission::Own)]), token(TWO, "two", BOTH, &[(202, Permission::Own)])];
    let fake = Fake::start(Settings { tokens, ..Settings::default() }).unwrap();
    let config = "
listeners:
  - {name: app, address: '127.0.0.1:0'}
  - {name: other, address: '127.0.0.1:0'}
tokens:
  one: {file: '{folder}/one', scopes: [metrika:read, metrika:write], counters: auto}
  two: {file: '{folder}/two', scopes: [metrika:read, metrika:write], counters: auto}
callers:
  - {id: a, match: {listener: app}, scopes: [metrika:write], tokens: [one]}
  - {id: b, match: {listener: other}, scopes: [metrika:write], tokens: [two]}
";
    let plan = Gate::plan_for(&fake.address().to_string(), fake.ca_pem(), config);
    let gate = plan.token("one", ONE).token("two", TWO).start();
    until("the counters are listed", || known(&gate, "one") >= 1.0 && known(&gate, "two") >= 1.0);
    let before = (sent(&fake, 0), sent(&fake, 1));
    let body = r#"{"counter":{"name":"new","site":"new.example"}}"#;
    let head = "POST /management/v1/counters HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n";
    let answer = gate.send("app", format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()));
    assert_eq!(answer.status, 200, "{}", answer.text());
    until("its list is read again", || sent(&fake, 0) >= before.0 + 2);
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(sent(&fake, 1), before.1);
}

/// The caller's rules come first, whatever the tokens could do.
#[test]
fn knowledge_allows_nothing_that_rules_refuse() {
    let fake = metrica();
    let gate = started(&fake, AUTO);
    let before = fake.requests();
    for fields in ["", "X-Gate-Account: two\r\n"] {
        let request = format!("GET {} HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n", goals(202));
        let answer = gate.send("first", request);
        assert_eq!((answer.status, answer.field("x-gate-error")), (403, Some("counter_denied")), "{fields}");
    }
    assert_eq!(fake.requests(), before);
}

/// A counter that moves from one account to the other is followed, for reads at once and for writes after the lists were
/// read again.
#[test]
fn a_counter_that_moves_is_followed() {
    let fake = metrica();
    let gate = started(&fake, AUTO);
    assert_eq!(get(&gate, &goals(202)), 200);
    fake.turn("grant?owner=two&counter=202&permission=none").unwrap();
    fake.turn("grant?owner=one&counter=202&permission=own").unwrap();
    let first = get(&gate, &goals(202));
    assert!(first == 200 || first == 403, "what was known is wrong once");
    until("the counter is found", || get(&gate, &goals(202)) == 200);
    let before = sent(&fake, OF_ONE);
    until("it goes there at once", || {
        let retried = retries(&gate);
        get(&gate, &goals(202)) == 200 && retries(&gate) == retried
    });
    assert!(sent(&fake, OF_ONE) > before);
}

/// A write is never sent to a second account; its denial makes the lists be read again.
#[test]
fn a_counter_that_moves_is_found_for_writes() {
    let fake = metrica();
    let gate = started(&fake, AUTO);
    let undelete = || send(&gate, "POST /management/v1/counter/202/undelete", "").status;
    assert_eq!(undelete(), 200);
    fake.turn("grant?owner=two&counter=202&permission=none").unwrap();
    fake.turn("grant?owner=one&counter=202&permission=own").unwrap();
    assert_eq!((undelete(), retries(&gate)), (403, 0.0));
    until("the lists are read again", || undelete() == 200);
    assert_eq!(retries(&gate), 0.0);
}

/// A counter that a caller creates belongs to the account of the token at once.
#[test]
fn a_new_counter_is_known_at_once() {
    let fake = metrica();
    let gate = started(&fake, AUTO);
    let body = r#"{"counter":{"name":"new","site":"new.example"}}"#;
    let head = "POST /management/v1/counters HTTP/1.1\r\nHost: localhost\r\nX-Gate-Account: two\r\n";
    let length = body.len();
    let typed = format!("{head}Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}");
    let answer = gate.send("app", typed);
    assert_eq!(answer.status, 200, "{}", answer.text());
    let created: serde_json::Value = serde_json::from_str(&answer.text()).unwrap();
    let id = created["counter"]["id"].as_u64().unwrap();
    assert_eq!(send(&gate, &format!("DELETE {}", goals(id).replace("/goals", "/goal/7")), "").status, 404);
    assert_eq!(retries(&gate), 0.0);
    until("the lists are read again", || known(&gate, "two") >= 4.0);
}

/// The write-only token of an account learns from its sibling, once the owner of both is proven.
#[test]
fn lists_are_read_with_a_token_that_reads() {
    let fake = metrica();
    let identity = "identity: {url: 'https://login.yandex.ru/info', ca_file: '{ca}', connect_to: '{upstream}'}";
    let keys = [", owner: one", ", owner: one, counters: auto", ", owner: two, counters: auto"];
    let gate = plan(&fake, keys, identity).start();
    until("the sibling's list is known", || known(&gate, "one_writes") >= 2.0 && known(&gate, "one") >= 2.0);
    let own = |purpose: &str| gate.metric(&["metrika_gate_own_requests_total", &format!("purpose=\"{purpose}\"")]);
    assert_eq!(own("counters"), 2.0, "one request per account");
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(own("counters"), 2.0);
}

fn practice(fake: &Fake, callers: &str) -> Practice {
    let of = |owner: &str, counters: &str| format!("scopes: [metrika:read], owner: {owner}, counters: [{counters}]");
    let (one, two) = (of("one", "101, 103"), of("two", "202, 203, 103"));
    let tokens = [("one", ONE, one.as_str()), ("two", TWO, two.as_str()), ("spare", ONE, one.as_str())];
    Practice::new(&fake.address().to_string(), fake.ca_pem(), &tokens, callers, false)
}

const AGENCY: &str =
    "{id: agency, match: {listener: app}, scopes: [metrika:read], tokens: [one, two], counters: [101, 103, 202]}";

#[test]
fn explain_shows_the_candidates_in_order_and_why() {
    let fake = metrica();
    let practice = practice(&fake, AGENCY);
    let explain = |target: &str, more: &[&str]| practice.run(&[&["explain", "GET", target], more].concat());
    let (code, text, _) = explain(&goals(202), &[]);
    let expected = "candidates two (its account has access), one (its account lacks access)";
    assert!(code == 0 && text.contains("token two") && text.contains(expected), "{text}");
    let (_, text, _) = explain("/management/v1/labels", &["--format", "json"]);
    assert!(text.contains("counter_denied"), "its rules come first: {text}");
    let (_, text, _) = explain(&goals(103), &["--format", "json"]);
    let said: serde_json::Value = serde_json::from_str(&text).unwrap();
    let expected = serde_json::json!([{"token": "one", "access": "granted"}, {"token": "two", "access": "granted"}]);
    assert_eq!(said["verdicts"][0]["candidates"], expected);
    let (code, text, _) = explain(&report("101,202"), &[]);
    assert!(code == 1 && text.contains("several_accounts") && text.contains("202 with token two"), "{text}");
    let (code, text, _) = explain(&goals(103), &["-H", "X-Gate-Account: two"]);
    assert!(code == 0 && text.contains("token two"), "{text}");
}

#[test]
fn the_doctor_is_content_when_each_counter_is_served_by_one_token() {
    let fake = metrica();
    let practice = practice(&fake, AGENCY);
    let (code, said) = practice.json(&["--token", "one", "--token", "two"]);
    let lines: Vec<_> = said["findings"].as_array().unwrap().iter().filter(|one| !one["counter"].is_null()).collect();
    let of = |token: &str, counter: u64| {
        let line = lines.iter().find(|one| one["token"] == token && one["counter"] == counter);
        line.unwrap()["finding"].as_str().unwrap().to_owned()
    };
    assert_eq!((of("one", 202), of("two", 101)), ("counter_elsewhere".to_owned(), "counter_elsewhere".to_owned()));
    assert_eq!((of("one", 101), of("two", 202)), ("counter".to_owned(), "counter".to_owned()));
    assert_eq!(code, 0, "{said}");
    // A counter that no token serves is wrong as before.
    fake.turn("grant?owner=two&counter=202&permission=none").unwrap();
    let (code, said) = practice.json(&["--token", "one", "--token", "two"]);
    assert!(code == 1 && said.to_string().contains("counter_not_granted"), "{said}");
}

#[test]
fn check_names_a_token_that_is_never_used_and_a_list_that_nobody_can_read() {
    let fake = metrica();
    let practice =
        practice(&fake, "{id: a, match: {listener: app}, scopes: [metrika:read], tokens: [one, two, spare]}");
    let (code, out, error) = practice.run(&["check"]);
    assert_eq!(code, 0, "{out}{error}");
    assert!(format!("{out}{error}").contains("caller 'a' never uses token 'spare': 'one' is of the same account"));
    let callers = "{id: a, match: {listener: app}, scopes: [metrika:write], tokens: [t]}";
    let keys = [("t", ONE_WRITES, "scopes: [metrika:write], owner: one, counters: auto")];
    let practice = Practice::new(&fake.address().to_string(), fake.ca_pem(), &keys, callers, false);
    let (code, out, error) = practice.run(&["check"]);
    let said = format!("{out}{error}");
    assert!(
        code == 78 && said.contains("tokens.t.counters: needs a token of the same account that can read"),
        "{said}"
    );
}

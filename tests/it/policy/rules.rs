//! Rules of callers over the wire: a refused request never reaches Metrica, an allowed one goes out unchanged.

use std::sync::{Arc, Mutex};

use crate::harness::gate::{count, program};
use crate::harness::{Answer, Gate, Upstream};
use crate::policy::rejections::assert_is;

/// A caller with counter 1 alone, one in the shadow, one with a login, one whose list is filtered, and one without rules.
pub const CALLERS: &str = "
listeners:
  - {name: one, address: '127.0.0.1:0', http2: true}
  - {name: shadow, address: '127.0.0.1:0'}
  - {name: login, address: '127.0.0.1:0'}
  - {name: filter, address: '127.0.0.1:0'}
  - {name: free, address: '127.0.0.1:0'}
callers:
  - {id: one, match: {listener: one}, scopes: [metrika:read, metrika:write], tokens: [analytics, crm], counters: [1], destructive: deny}
  - {id: shadow, match: {listener: shadow}, scopes: [metrika:read], tokens: [analytics, crm], counters: [1], destructive: deny, enforce: false}
  - {id: login, match: {listener: login}, scopes: [metrika:read], tokens: [analytics], ulogin: [partner]}
  - {id: filter, match: {listener: filter}, scopes: [metrika:read], tokens: [analytics], counters: [1], list: filter}
  - {id: free, match: {listener: free}, scopes: [metrika:read, metrika:write], tokens: [analytics, crm]}
";

/// The target for bodies that are read.
pub const GOALS: &str = "/management/v1/counter/1/goals";
/// The field that declares JSON.
pub const JSON: &str = "Content-Type: application/json";

/// The requests that an upstream received: each head with its body.
pub type Seen = Arc<Mutex<Vec<(String, Vec<u8>)>>>;

/// An upstream that keeps the bodies too.
pub fn keeping() -> (Upstream, Seen) {
    let seen = Seen::default();
    let kept = seen.clone();
    let upstream = Upstream::run(move |conversation| {
        while let Some(head) = conversation.request_head() {
            if head.contains("expect: 100-continue") {
                conversation.write("HTTP/1.1 100 Continue\r\n\r\n");
            }
            let body = conversation.request_body(&head);
            kept.lock().unwrap().push((head, body));
            conversation.answer("200 OK", "application/json", "{}");
        }
    });
    (upstream, seen)
}

/// The request that was received last.
pub fn last(seen: &Seen) -> (String, Vec<u8>) {
    seen.lock().unwrap().pop().expect("a request")
}

/// A request without a body.
pub fn ask(gate: &Gate, listener: &str, method: &str, target: &str) -> Answer {
    gate.send(listener, format!("{method} {target} HTTP/1.1\r\nHost: localhost\r\n\r\n"))
}

/// A request with a body of this length.
pub fn post(target: &str, fields: &str, body: &str) -> String {
    let length = body.len();
    format!("POST {target} HTTP/1.1\r\nHost: localhost\r\n{fields}\r\nContent-Length: {length}\r\n\r\n{body}")
}

const REFUSED: [(&str, &str, &str, &str); 35] = [
    ("one", "GET", "/management/v1/counter/2", "403 counter_denied"),
    ("one", "HEAD", "/management/v1/counter/2", "403 counter_denied"),
    ("one", "GET", "/management/v1/counter/2.json", "403 counter_denied"),
    ("one", "GET", "/management/v1/counter/01", "403 counter_denied"),
    ("one", "GET", "http://localhost/management/v1/counter/2/goals", "403 counter_denied"),
    ("one", "GET", "/management/v1/counter/1/goals?ids=2", "403 counter_denied"),
    ("one", "GET", "/stat/v1/data?ids=1,2", "403 counter_denied"),
    ("one", "GET", "/stat/v1/data?ids=1%2C2", "403 counter_denied"),
    ("one", "GET", "/stat/v1/data?ids=%2531", "403 counter_denied"),
    ("one", "GET", "/stat/v1/data?ids=1&ids[]=2", "403 counter_denied"),
    ("one", "GET", "/stat/v1/data?ids=1&ids%5B%5D=2", "403 counter_denied"),
    ("one", "GET", "/stat/v1/data?ids=1&IDS=2", "403 counter_denied"),
    ("one", "GET", "/stat/v1/data?id=1&id=2", "400 bad_target"),
    ("one", "GET", "/stat/v1/data?metrics=ym:s:visits", "403 counter_denied"),
    ("one", "GET", "/analytics/v3/data/ga?ids=ga:2", "403 counter_denied"),
    ("one", "GET", "/management/v1/clients?counters=1,2", "403 counter_denied"),
    ("one", "GET", "/management/v1/clients", "403 counter_denied"),
    ("one", "POST", "/management/v1/counters", "403 counter_denied"),
    ("one", "GET", "/stat/v1/data?ids=1&ulogin=partner", "403 login_denied"),
    ("one", "GET", "/stat/v1/data?ids=1&direct_client_logins=x", "403 login_denied"),
    ("one", "GET", "/management/v1/counters", "403 list_denied"),
    ("one", "DELETE", "/management/v1/counter/1", "403 destructive_denied"),
    ("one", "POST", "/management/v1/counter/1/logrequest/7/clean", "403 destructive_denied"),
    ("one", "GET", "/stat/v1/data?ids=1&callback=f", "403 callback_denied"),
    ("login", "GET", "/stat/v1/data?ids=7&ulogin=other", "403 login_denied"),
    ("login", "GET", "/management/v1/counters", "403 login_denied"),
    ("login", "GET", "/stat/v1/data?direct_client_logins=partner", "403 login_denied"),
    ("free", "GET", "/management/v1/counter/1/measurement/generate", "403 secret_denied"),
    ("login", "GET", "/stat/v1/data?ids=7&direct_client_logins=partner,other", "403 login_denied"),
    ("filter", "GET", "/management/v1/counters.csv", "403 list_denied"),
    ("filter", "GET", "/management/v1/counters?callback=f", "403 callback_denied"),
    ("free", "GET", "/stat/v1/data?ids=1&CallBack=f", "403 callback_denied"),
    ("free", "GET", "/management/v1/counters?callback%5B%5D=f", "403 callback_denied"),
    ("free", "GET", "/management/v1/counters?field=goals,measurement_tokens", "403 secret_denied"),
    ("free", "GET", "/management/v1/counter/1?field=goals&field=%6Deasurement%5Ftokens", "403 secret_denied"),
];

/// The request and the rule are the caller's own: both are reported.
#[test]
fn the_response_names_the_rule_the_parameter_and_the_remedy() {
    let upstream = Upstream::plain();
    let gate = Gate::start(&upstream, CALLERS);
    for (listener, target, expected) in [
        ("one", "/stat/v1/data?ids=1,2", "Counter 2 in ids is not listed under counters of the caller."),
        ("one", "/stat/v1/data?ids=1&id=2", "Counter 2 in id is not listed under counters of the caller."),
        ("one", "/management/v1/counter/2/goals", "Counter 2 in the path is not listed under counters of the caller."),
        (
            "one",
            "/stat/v1/data?ids=1&counter_id=x",
            "The counter in counter_id is unreadable; write counters as in ids=1,2 or /counter/1.",
        ),
        ("one", "/stat/v1/data?metrics=a", "The request names no counter; name counters of the caller, as in ids=1,2."),
        ("login", "/stat/v1/data?ids=7&ulogin=other", "A login in ulogin is not listed under ulogin of the caller."),
        (
            "login",
            "/stat/v1/data?ids=7&ulogin=partner&direct_client_logins=other",
            "A login in direct_client_logins is not listed under ulogin of the caller.",
        ),
    ] {
        let answer = gate.get(listener, target);
        assert_eq!(answer.field("x-gate-hint"), Some(expected), "{target}");
        let body: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!((&body["message"], &body["errors"][0]["message"]), (&expected.into(), &expected.into()), "{target}");
    }
    let long = format!("{{\"a\":\"{}\"}}", "x".repeat(1024 * 1024));
    for (fields, body, expected) in [
        (JSON, r#"{"counter_id":2}"#, "Counter 2 in the body is not listed under counters of the caller."),
        (JSON, r#"{"counter_id":1,"counter_id":1}"#, "without repeated keys"),
        ("Content-Type: application/xml", "<a/>", "Content-Type: application/json"),
        (JSON, &long, "as multipart/form-data"),
    ] {
        let answer = gate.send("one", post(GOALS, fields, body));
        assert!(answer.field("x-gate-hint").unwrap().contains(expected), "{fields}: {answer:?}");
        assert!(answer.text().contains(expected), "{fields}: {answer:?}");
    }
    let form = gate.send("free", post(GOALS, "Content-Type: application/x-www-form-urlencoded", "a=1")).text();
    for client in ["PHP", "axios", "wget", "Go", "HttpURLConnection", "requests", "curl"] {
        assert!(form.contains(client), "{client}: {form}");
    }
    let space = gate.get("free", "/stat/v1/data?filters=a b").text();
    assert!(space.contains("%20"), "{space}");
    assert_eq!(upstream.connections(), 0, "nothing was sent upstream");
}

/// Messages to a caller are about its own request and its own rules.
#[test]
fn no_answer_has_anything_of_another_callers_configuration() {
    let upstream = Upstream::plain();
    let others = "
listeners:
  - {name: mine, address: '127.0.0.1:0'}
  - {name: otherplace, address: '127.0.0.1:0', hosts: [otherhost], require_header: 'X-Other-Field: othervalue'}
operations: [{method: POST, path: '/management/v1/counter/{counter_id}/otherthing', scope: [metrika:write]}]
callers:
  - {id: othercaller, match: {listener: otherplace}, scopes: [metrika:read], tokens: [analytics], counters: [7654321, 7654322], ulogin: [otherlogin], grantees: [othergrantee]}
  - {id: me, match: {listener: mine}, scopes: [metrika:read, metrika:write], tokens: [crm, analytics], counters: [1], ulogin: [mylogin], grantees: [mygrantee], destructive: deny}
";
    let gate = Gate::start(&upstream, others);
    let get = |target: &str| format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let goals = |body: &str| post(GOALS, JSON, body);
    let mut seen = std::collections::BTreeSet::new();
    for request in [
        get("/stat/v1/data?ids=1,2"),
        get("/stat/v1/data?ids=x"),
        get("/stat/v1/data"),
        get("/stat/v1/data?ids=1&ulogin=x"),
        get("/stat/v1/data?ids=1&callback=f"),
        get("/stat/v1/data?id=1&id=1"),
        get("/stat/v1/data?filters=a b"),
        get("/management/v1/counters"),
        get("/management/v1/accounts"),
        get("/management/v1/nothing"),
        get("/management/v1/counter/1/measurement/generate"),
        get("/management/v1/counters").replace("localhost", "elsewhere"),
        get("/management/v1/counters").replace("GET", "PUT"),
        get("/management/v1/counter/1").replace("GET", "DELETE"),
        get("/management/v1/counter/1").replace("GET", "BREW"),
        post("/management/v1/counter/1/grants", JSON, r#"{"grant":{"user_login":"x"}}"#),
        goals(r#"{"counter_id":2}"#),
        goals("{"),
        goals(&"x".repeat(1024 * 1024 + 1)),
        post(GOALS, "Content-Type: application/x-www-form-urlencoded", "a=1"),
    ] {
        let answer = gate.send("mine", &request);
        let reason = answer.field("x-gate-error").map(str::to_owned);
        seen.insert(reason.unwrap_or_else(|| panic!("{request} is answered {answer:?}")));
        let told = format!("{:?} {}", answer.fields, answer.text()).to_lowercase();
        for word in [
            "otherplace",
            "otherhost",
            "x-other",
            "othervalue",
            "otherthing",
            "othercaller",
            "765432",
            "otherlogin",
            "othergrantee",
            "analytics",
            "crm",
        ] {
            assert!(!told.contains(word), "{word} is in the answer to {request}: {told}");
        }
    }
    assert_eq!(upstream.connections(), 0, "nothing was sent upstream");
    assert!(seen.len() >= 15, "{seen:?}");
}

#[test]
fn refused_requests_never_reach_metrica() {
    let upstream = Upstream::plain();
    let gate = Gate::start(&upstream, CALLERS);
    for (listener, method, target, expected) in REFUSED {
        if method == "HEAD" {
            let mut caller = gate.connect(listener);
            caller.send(format!("HEAD {target} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
            assert_eq!(caller.answer_to_head().summary(), expected, "{target}");
        } else {
            assert_eq!(ask(&gate, listener, method, target).summary(), expected, "{method} {target}");
        }
    }
    assert_eq!(upstream.connections(), 0, "nothing was sent upstream");
    for reason in
        ["counter_denied", "login_denied", "list_denied", "destructive_denied", "callback_denied", "secret_denied"]
    {
        let expected = count(REFUSED.iter().filter(|row| row.3.ends_with(reason)).count());
        gate.until_metric(&["denied_total", reason], expected);
        gate.until_metric(&["auth_failures_total", "origin=\"gate\"", "code=\"403\"", reason], expected);
    }
    gate.until_log(&["request failed", "counter_denied", "is not listed under counters of the caller"]);
}

#[test]
fn allowed_requests_are_forwarded_unchanged() {
    let upstream = Upstream::plain();
    let gate = Gate::start(&upstream, CALLERS);
    for (listener, method, target) in [
        ("one", "GET", "/management/v1/counter/1?field=goals,mirrors"),
        ("one", "GET", "/management/v1/counter/1/goals.json"),
        ("one", "GET", "/stat/v1/data?ids=1&metrics=ym:s:visits&filters=ym:s:counterID==2%20AND%20x"),
        ("one", "GET", "/stat/v1/data.csv?id=1"),
        ("one", "GET", "/analytics/v3/data/ga?ids=ga%3A1"),
        ("one", "GET", "/management/v1/clients?counters=1"),
        ("one", "GET", "/management/v1/social_networks"),
        ("one", "POST", "/management/v1/counter/1/undelete"),
        ("one", "POST", "/management/v1/counter/1/logrequests?fields=ym:s:counterID&source=visits"),
        ("login", "GET", "/stat/v1/data?ids=7,8&ulogin=partner"),
        ("login", "GET", "/stat/v1/data?ulogin=Partner&direct_client_logins=PARTNER"),
        ("login", "GET", "/management/v1/counters?ulogin=partner"),
        ("login", "GET", "/management/v1/messengers"),
        ("free", "GET", "/management/v1/counters?field=goals&ids%5B%5D=5&counterId=6"),
        ("free", "DELETE", "/management/v1/counter/1"),
    ] {
        assert_eq!(ask(&gate, listener, method, target).summary(), "200", "{method} {target}");
        let head = upstream.requests().pop().unwrap();
        assert_eq!(head.lines().next(), Some(format!("{method} {target} HTTP/1.1").as_str()));
    }
}

#[test]
fn in_shadow_mode_refusals_are_logged_and_counted_and_requests_pass() {
    let (upstream, seen) = keeping();
    let gate = Gate::start(&upstream, CALLERS);
    let large = format!("[\"{}\"]", "y".repeat(3 * 1024 * 1024));
    let cases = [
        ("GET", "/management/v1/counter/2/goals", "", "", "goals.list", Some("counter_denied")),
        ("GET", "/management/v1/counters", "", "", "counters.list", Some("list_denied")),
        ("GET", "/stat/v1/data?ids=1&ulogin=x", "", "", "report.table", Some("login_denied")),
        ("GET", "/stat/v1/data?ids=1&callback=f", "", "", "report.table", Some("callback_denied")),
        (
            "POST",
            "/management/v1/counter/1/logrequest/7/clean",
            "",
            "",
            "log_request.clean",
            Some("destructive_denied"),
        ),
        ("GET", "/management/v1/counter/1?field=measurement_tokens", "", "", "counter.get", Some("secret_denied")),
        ("POST", "/management/v1/counter/1/goals", JSON, "{}", "goals.create", Some("scope_denied")),
        (
            "POST",
            "/management/v1/counter/1/logrequests",
            JSON,
            "{\"ids\":2}",
            "log_requests.create",
            Some("counter_denied"),
        ),
        ("POST", "/management/v1/counter/1/logrequests", JSON, "{", "log_requests.create", Some("body_unreadable")),
        ("POST", "/management/v1/counter/1/logrequests", "A: b", "{", "log_requests.create", Some("body_unreadable")),
        ("POST", "/management/v1/counter/1/logrequests", JSON, &large, "log_requests.create", Some("body_too_large")),
        ("POST", "/management/v1/counter/1/logrequests", JSON, "{}", "log_requests.create", None),
        ("GET", "/management/v1/counter/1/goals", "", "", "goals.list", None),
    ];
    for (number, (method, target, fields, body, operation, reason)) in cases.into_iter().enumerate() {
        let id = format!("shadow-{number}.");
        let fields =
            if body.is_empty() { String::new() } else { format!("{fields}\r\nContent-Length: {}\r\n", body.len()) };
        let head = format!("{method} {target} HTTP/1.1\r\nHost: localhost\r\nX-Request-ID: {id}\r\n{fields}\r\n");
        assert_eq!(gate.send("shadow", head + body).summary(), "200", "{target}");
        let (head, received) = last(&seen);
        assert!(head.starts_with(&format!("{method} {target} HTTP/1.1\r\n")), "{head}");
        assert!(received == body.as_bytes(), "the body of {target} is another");
        let line: serde_json::Value = serde_json::from_str(&gate.until_log(&["\"access\"", &id])).unwrap();
        assert_eq!((line["would_refuse"].as_str(), line["reason"].as_str()), (reason, None), "{target}");
        if let Some(reason) = reason {
            let series = format!("{{caller=\"shadow\",operation=\"{operation}\",reason=\"{reason}\"}}");
            assert!(gate.metric(&["would_refuse_total", &series]) >= 1.0, "{series}");
        }
    }
    // The excess is discovered while the body arrives: the part that was read is passed on, and the rest behind it.
    let head = format!("POST {GOALS} HTTP/1.1\r\nHost: localhost\r\n{JSON}\r\nTransfer-Encoding: chunked\r\n\r\n");
    let head = head.replace("/goals", "/logrequests");
    let piece = format!("{:x}\r\n{large}\r\n", large.len());
    assert_eq!(gate.send("shadow", format!("{head}{piece}{piece}0\r\n\r\n")).summary(), "200");
    assert!(last(&seen).1 == large.repeat(2).as_bytes());
    gate.until_metric(&["would_refuse_total"], 12.0);
    gate.until_log(&[
        "request would be refused if enforced",
        "counter_denied",
        "is not listed under counters of the caller",
    ]);
    assert_eq!(gate.metric(&["denied_total", "shadow"]), 0.0);
    // With no token that covers it there is nothing to send it with.
    let config = CALLERS
        .replace("tokens: [analytics, crm], counters: [1], destructive: deny, enforce", "tokens: [analytics], enforce");
    let gate = Gate::start(&upstream, &config);
    assert_is(&ask(&gate, "shadow", "DELETE", "/management/v1/counter/1"), "403 token_scope_missing");
}

#[test]
fn explain_names_the_rule_and_the_remedy() {
    let upstream = Upstream::plain();
    let plan = Gate::plan(&upstream, CALLERS);
    let config = plan.file();
    let run = |arguments: &[&str]| {
        let output = program().args(arguments).arg("--config").arg(&config).output().unwrap();
        (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap())
    };
    let explain = |method: &str, target: &str, caller: &str| run(&["explain", method, target, "--as", caller]);
    let (code, said) = explain("GET", "/stat/v1/data?ids=1,2&ulogin=a%1Bb", "one");
    assert_eq!(code, 1);
    insta::assert_snapshot!(said, @r#"
    request    GET /stat/v1/data
    operation  report.table (/stat/v1/data)
    needs      metrika:read
    kind       quota group report_read, slow or large response
    counters   1, 2
    ulogin     a\u{1b}b
    
    caller     one (listener one)
    has        metrika:read, metrika:write
    decision   refused: 403 login_denied (This caller may not use this login in ulogin, leave ulogin out, or give this login access: ulogin and grantees of the caller in the gate's configuration list the allowed logins.)
    because    a login in ulogin is not listed under ulogin of the caller
    "#);
    let (code, said) = explain("POST", GOALS, "one");
    assert_eq!(code, 0);
    insta::assert_snapshot!(said, @r#"
    request    POST /management/v1/counter/1/goals
    operation  goals.create (/management/v1/counter/{counter_id}/goals)
    needs      metrika:write
    kind       quota group client_write
    counters   1
    
    caller     one (listener one)
    has        metrika:read, metrika:write
    decision   allowed, using token crm
    body       checked before forwarding: JSON of at most 1 MiB, with only the caller's counters
    "#);
    let (code, said) = explain("GET", "/management/v1/counters", "shadow");
    assert_eq!(code, 0);
    insta::assert_snapshot!(said, @r#"
    request    GET /management/v1/counters
    operation  counters.list (/management/v1/counters)
    needs      metrika:read
    kind       quota group client_read
    
    caller     shadow (listener shadow)
    has        metrika:read
    decision   allowed, using token analytics
    would be   refused if enforced (enforce: false): 403 list_denied (This caller may not list all counters. With list: filter in its entry in the gate's configuration it gets its own counters, as JSON and without callback.)
    because    the request lists all counters of the account; name counters of the caller in counter_ids, or set list: filter for the caller, which works for JSON without callback
    "#);
    let (code, said) = run(&["explain", "GET", "/management/v1/counter/01", "--as", "shadow", "--format", "json"]);
    let said: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!((code, &said["counters"], &said["counters_are_readable"]), (0, &serde_json::json!([]), &false.into()));
    assert_eq!(said["verdicts"][0]["would_refuse"], "counter_denied");
    let (_, said) = run(&["explain", "GET", "/management/v1/counters", "--as", "filter", "--format", "json"]);
    let said: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!(said["verdicts"][0]["list_is_filtered"], true);
    let (code, said) = run(&["check"]);
    let warning = "caller 'shadow' has enforce: false: requests that its scopes or rules refuse are forwarded, logged and counted";
    assert!(code == 0 && said.contains(warning) && said.matches("enforce").count() == 1, "{said}");
}

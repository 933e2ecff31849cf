//! Every answer that the gate itself gives: its status, its body, and that nothing was sent.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::net::TcpListener;
use std::time::{Duration, SystemTime};

use metrika_gate::policy::rejection::Reason;
use strict_http::Malformed;

use crate::harness::client_certificates::{self, Authority, Wanted};
use crate::harness::files::same_as_file;
use crate::harness::gate::{count, until};
use crate::harness::service_accounts::{AUDIENCE, ISSUER, Signer, key_set};
use crate::harness::upstream::certificate;
use crate::harness::{Answer, Caller, Gate, Proxy, READ_TOKEN, TWO_CALLERS, Upstream};

const COUNTERS: &str = "/management/v1/counters";

/// The reasons whose message has the details of the request: the rule, the scopes, since when.
const DETAILED: [Reason; 20] = [
    Reason::ServiceAccountInvalid,
    Reason::ScopeDenied,
    Reason::TokenScopeMissing,
    Reason::TokenSuspended,
    Reason::Outage,
    Reason::CounterDenied,
    Reason::LoginDenied,
    Reason::ListDenied,
    Reason::DestructiveDenied,
    Reason::SharingDenied,
    Reason::CallbackDenied,
    Reason::SecretDenied,
    Reason::BodyUnreadable,
    Reason::BodyTooLarge,
    Reason::SeveralAccounts,
    Reason::QuotaWait,
    Reason::QuotaFull,
    Reason::QuotaBudget,
    Reason::QuotaDraining,
    Reason::QuotaStoreUnavailable,
];

/// The reasons that no request can meet: they are faults of the gate itself, and their response is held where it is made.
const UNMET: [Reason; 1] = [Reason::Internal];

/// A message without the place in the target that it names.
pub fn without_place(message: &str) -> String {
    let Some((before, behind)) = message.split_once(", at byte ") else { return message.to_owned() };
    format!("{before}{}", behind.trim_start_matches(|letter: char| letter.is_ascii_digit()))
}

/// Compares a response with everything that the table contains for its reason.
#[track_caller]
pub fn assert_is(answer: &Answer, expected: &str) {
    assert_eq!(answer.summary(), expected, "{}", answer.text());
    let reason = Reason::ALL.iter().find(|reason| expected.ends_with(&format!(" {}", reason.as_str()))).unwrap();
    let said = reason.answer();
    assert_eq!(answer.status, said.status.as_u16());
    // The message is that of the kind, if there is a kind.
    let of_kinds = Malformed::all().filter(|kind| Reason::from(*kind) == *reason).map(Malformed::message);
    let hint = answer.field("x-gate-hint").unwrap();
    // The same holds for a rule of the caller, missing scopes, and a token that is refused.
    let is_detailed = DETAILED.contains(reason) && hint.ends_with('.');
    let is_fixed = of_kinds.chain([said.message]).any(|message| without_place(hint) == message);
    assert!(is_fixed || is_detailed, "{hint}");
    // The type and the time are those of the limit that refused.
    let is_of_quota = reason.as_str().starts_with("quota_");
    let given: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
    let error_type =
        if is_of_quota { given["errors"][0]["error_type"].as_str().unwrap() } else { said.error_type.as_str() };
    assert!(!is_of_quota || error_type.starts_with("quota_") || error_type == "backend_error", "{error_type}");
    let body = serde_json::json!({
        "errors": [{"error_type": error_type, "message": hint}],
        "code": answer.status,
        "message": hint,
    });
    assert_eq!(given, body);
    assert_eq!(answer.field("content-type"), Some("application/json; charset=utf-8"));
    assert_eq!(answer.field("content-length"), Some(answer.body.len().to_string().as_str()));
    let retry = answer.field("retry-after");
    if matches!(reason, Reason::TokenSuspended | Reason::Outage) {
        // The time to the next look, which is after thirty seconds.
        let seconds = retry.and_then(|seconds| seconds.parse().ok());
        assert!(seconds.is_some_and(|seconds| (20..=30).contains(&seconds)), "{retry:?}");
    } else if is_of_quota {
        let seconds: Option<u64> = retry.and_then(|seconds| seconds.parse().ok());
        assert!(seconds.is_some_and(|seconds| seconds >= 1), "{retry:?}");
    } else {
        assert_eq!(retry, said.retry_after.map(|seconds| seconds.to_string()).as_deref());
    }
    let allow = (*reason == Reason::MethodNotAllowed).then_some("GET, HEAD, POST, PUT, PATCH, DELETE");
    assert_eq!(answer.field("allow"), allow);
    for name in ["set-cookie", "server", "access-control-allow-origin", "www-authenticate"] {
        assert_eq!(answer.field(name), None, "{name}");
    }
}

/// Meets the refusals of quotas.
fn quotas(meet: &mut impl FnMut(&Answer, &'static str)) {
    let upstream = Upstream::plain();
    // Nobody listens there.
    let quota = "quota: {store: {redis: 'redis://127.0.0.1:1', on_loss: refuse}}";
    let gate = Gate::start(&upstream, &format!("{TWO_CALLERS}{quota}\n"));
    meet(&gate.get("app", COUNTERS), "503 quota_store_unavailable");

    let slow = Upstream::run(|conversation| {
        while conversation.request_head().is_some() {
            std::thread::sleep(std::time::Duration::from_millis(1500));
            conversation.answer("200 OK", "application/json", "{}");
        }
    });
    let config = "
listeners:
  - {name: app, address: '127.0.0.1:0'}
  - {name: hasty, address: '127.0.0.1:0'}
  - {name: poor, address: '127.0.0.1:0'}
callers:
  - {id: app, match: {listener: app}, scopes: [metrika:read], tokens: [analytics]}
  - {id: hasty, match: {listener: hasty}, scopes: [metrika:read], tokens: [analytics], quota: {wait: 10ms}}
  - {id: poor, match: {listener: poor}, scopes: [metrika:read], tokens: [crm], quota: {per_day: 1}}
tokens:
  analytics: {file: '{folder}/analytics', scopes: [metrika:read]}
  crm: {file: '{folder}/crm', scopes: [metrika:read]}
quota: {limits: {parallel: 1}, queue: {per_caller: 1}}
";
    let gate = Gate::start(&slow, config);
    std::thread::scope(|scope| {
        let first = scope.spawn(|| gate.get("app", COUNTERS).summary());
        gate.until_metric(&["quota_in_use"], 1.0);
        meet(&gate.get("hasty", COUNTERS), "429 quota_wait");
        let second = scope.spawn(|| gate.get("app", COUNTERS));
        gate.until_metric(&["quota_waiting", "caller=\"app\""], 1.0);
        meet(&gate.get("app", COUNTERS), "429 quota_full");
        assert_eq!(gate.get("poor", COUNTERS).summary(), "200");
        meet(&gate.get("poor", COUNTERS), "429 quota_budget");
        assert_eq!(first.join().unwrap(), "200");
        assert_eq!(second.join().unwrap().summary(), "200");
        let third = scope.spawn(|| gate.get("app", COUNTERS).summary());
        gate.until_metric(&["quota_in_use", "owner=\"analytics\""], 1.0);
        let fourth = scope.spawn(|| gate.get("app", COUNTERS));
        gate.until_metric(&["quota_waiting", "caller=\"app\""], 1.0);
        gate.signal("TERM");
        meet(&fourth.join().unwrap(), "503 quota_draining");
        assert_eq!(third.join().unwrap(), "200");
    });
}

/// Meets the refusals of a proxy.
fn proxies(upstream: &Upstream, meet: &mut impl FnMut(&Answer, &'static str)) {
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut through = |proxy: &str, expected| {
        let config = format!("{TWO_CALLERS}\nupstream: {{ca_file: '{{ca}}', proxy: 'http://{proxy}'}}\n");
        meet(&Gate::start(upstream, &config).get("app", COUNTERS), expected);
    };
    through(&closed.to_string(), "503 proxy_unreachable");
    for (answer, expected) in [
        ("HTTP/1.1 403 Forbidden\r\n\r\n", "502 proxy_denied"),
        ("HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", "502 proxy_credentials"),
        ("HTTP/1.1 503 Service Unavailable\r\n\r\n", "503 proxy_failed"),
        ("what?\r\n\r\n", "502 proxy_protocol"),
    ] {
        through(&Proxy::says(answer).address().to_string(), expected);
    }
}

/// Meets the refusals of connections whose certificate is not accepted any more.
fn certificates(upstream: &Upstream, meet: &mut impl FnMut(&Answer, &'static str)) {
    let config = "
listeners: [{name: app, address: '127.0.0.1:0', proxy: true, tls: {authority: '{folder}/ca', client_ca: '{folder}/clients.pem'}}]
callers: [{id: reports, match: {listener: app}, scopes: [metrika:read], tokens: [analytics]}]
";
    let plan = Gate::plan(upstream, config);
    let (one, other) = (Authority::new("one"), Authority::new("other"));
    std::fs::write(plan.folder().join("clients.pem"), format!("{}{}", one.pem, other.pem)).unwrap();
    let gate = plan.start();
    let host = "api-metrika.yandex.net";
    let get = format!("GET {COUNTERS} HTTP/1.1\r\nHost: {host}\r\n\r\n");
    let open = |authority: &Authority, until| {
        let issued = authority.issue("etl", &Wanted { until, ..Wanted::default() });
        let settings = client_certificates::settings(&gate.file("ca"), Some(&issued), &[], &[&rustls::version::TLS13]);
        let mut socket = std::net::TcpStream::connect(gate.place("app")).unwrap();
        crate::harness::over::connect(&mut socket, &format!("{host}:443"));
        let mut caller = Caller::on(client_certificates::session(&settings, host, socket));
        caller.send(&get);
        assert_eq!(caller.answer().summary(), "200");
        caller
    };
    meet(&gate.send("app", &get), "401 certificate_required");
    let end = SystemTime::now() + Duration::from_secs(5);
    let (mut expires, mut removed) = (open(&one, end), open(&other, end + Duration::from_secs(3600)));
    until("it has expired", || SystemTime::now() > end);
    expires.send(&get);
    meet(&expires.answer(), "401 certificate_expired");
    std::fs::write(gate.file("clients.pem"), &one.pem).unwrap();
    gate.until_log(&["configuration reloaded"]);
    removed.send(&get);
    meet(&removed.answer(), "401 certificate_rejected");
}

/// Meets the refusals of service account tokens.
fn service_accounts(upstream: &Upstream, meet: &mut impl FnMut(&Answer, &'static str)) {
    let signer = Signer::new("one");
    let ask = |gate: &Gate, token: &str| {
        gate.send(
            "app",
            format!("GET {COUNTERS} HTTP/1.1\r\nHost: localhost\r\nX-Gate-Service-Account: {token}\r\n\r\n"),
        )
    };
    let config = |source: &str| {
        format!("{TWO_CALLERS}service_accounts: {{{source}, issuer: '{ISSUER}', audience: {AUDIENCE}}}\n")
    };
    let plan = Gate::plan(upstream, &config("jwks_file: '{folder}/jwks.json'"));
    std::fs::write(plan.folder().join("jwks.json"), key_set(&[&signer])).unwrap();
    let gate = plan.start();
    let with = |claims: serde_json::Value| signer.token("shop/etl", &claims);
    meet(&ask(&gate, "a.b.c"), "401 service_account_invalid");
    meet(&ask(&gate, &with(serde_json::json!({"aud": "other"}))), "401 service_account_audience");
    meet(&ask(&gate, &with(serde_json::json!({"exp": 1}))), "401 service_account_expired");
    meet(&ask(&gate, &Signer::new("two").token("shop/etl", &serde_json::json!({}))), "401 service_account_key");
    // Nobody listens there.
    let gate = Gate::start(upstream, &config("jwks_url: 'https://127.0.0.1:1/keys'"));
    meet(&ask(&gate, &with(serde_json::json!({}))), "503 service_account_keys");
}

#[test]
fn every_reason_can_occur_and_answers_as_in_the_table() {
    let mut met = BTreeSet::new();
    let mut meet = |answer: &Answer, expected: &'static str| {
        assert_is(answer, expected);
        met.insert(expected.split(' ').next_back().unwrap());
    };
    let upstream = Upstream::plain();
    let config = "
listeners:
  - {name: app, address: '127.0.0.1:0'}
  - {name: poor, address: '127.0.0.1:0'}
  - {name: nobody, address: '127.0.0.1:0'}
  - {name: strict, address: '127.0.0.1:0', require_header: 'X-Gate: 1'}
  - {name: one, address: '127.0.0.1:0'}
  - {name: both, address: '127.0.0.1:0'}
  - {name: proxy, address: '127.0.0.1:0', proxy: true, tls: {authority: '{folder}/ca'}}
tokens:
  analytics: {file: '{folder}/analytics', scopes: [metrika:read], owner: one, counters: [1]}
  crm: {file: '{folder}/crm', scopes: [metrika:write]}
  other: {file: '{folder}/crm', scopes: [metrika:read], owner: two, counters: [2]}
callers:
  - {id: proxy, match: {listener: proxy}, scopes: [metrika:read], tokens: [analytics]}
  - {id: both, match: {listener: both}, scopes: [metrika:read], tokens: [analytics, other]}
  - {id: reports, match: {listener: app}, scopes: [metrika:read], tokens: [analytics]}
  - {id: strict, match: {listener: strict}, scopes: [metrika:read], tokens: [analytics]}
  - {id: one, match: {listener: one}, scopes: [metrika:read, metrika:write], tokens: [analytics, crm], counters: [1], destructive: deny, sharing: deny}
  - {id: poor, match: {listener: poor}, scopes: [metrika:read, metrika:write], tokens: [crm]}
limits: {target_bytes: 1KiB, header_bytes: 8KiB}
token_health: {learn: false}
";
    let gate = Gate::plan(&upstream, config).without("crm").start();
    meet(&gate.send("app", "hello\r\n\r\n"), "400 malformed_request");
    meet(&gate.send("app", "GET / HTTP/1.1\r\n\r\n"), "400 bad_host");
    let twice = "Content-Length: 1\r\nContent-Length: 1";
    meet(&gate.send("app", format!("GET / HTTP/1.1\r\nHost: localhost\r\n{twice}\r\n\r\na")), "400 bad_framing");
    meet(&gate.get("app", "/management/../v1"), "400 bad_target");
    meet(&gate.get("app", &format!("/stat/v1/data?ids={}", "1".repeat(2000))), "414 target_too_long");
    let many = format!("GET / HTTP/1.1\r\nHost: localhost\r\nA: {}\r\n\r\n", "x".repeat(9000));
    meet(&gate.send("app", many), "431 headers_too_large");
    meet(&gate.send("app", "OPTIONS /stat/v1/data HTTP/1.1\r\nHost: localhost\r\n\r\n"), "405 method_not_allowed");
    let form = "Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 5";
    let form = format!("GET {COUNTERS} HTTP/1.1\r\nHost: localhost\r\n{form}\r\n\r\nids=1");
    meet(&gate.send("app", form), "415 form_body");
    meet(&gate.get("nobody", COUNTERS), "401 unknown_caller");
    let field = |field: &str| format!("GET {COUNTERS} HTTP/1.1\r\nHost: localhost\r\n{field}\r\n\r\n");
    let [key, other] =
        ["1", "2"].map(|digit| metrika_gate::policy::key::of_random(digit.repeat(43).as_bytes()).unwrap());
    meet(&gate.send("app", field(&format!("Authorization: OAuth {}", *key))), "401 key_unknown");
    let two = format!("Authorization: OAuth {}\r\nProxy-Authorization: {}", *key, *other);
    meet(&gate.send("app", field(&two)), "401 keys_differ");
    meet(&gate.send("app", field("A: b").replace("localhost", "evil.example")), "403 host_denied");
    meet(&gate.send("proxy", "CONNECT evil.example:443 HTTP/1.1\r\n\r\n"), "403 destination_denied");
    let mut tunnel = gate.connect("proxy");
    tunnel.send(format!("CONNECT api-metrika.yandex.net:80 HTTP/1.1\r\n\r\n{}", field("A: b")));
    assert_eq!(tunnel.head().unwrap().0, 200);
    meet(&tunnel.answer(), "421 misdirected");
    meet(&gate.send("app", field("Origin: null")), "403 browser_denied");
    meet(&gate.send("strict", field("X-Gate: 2")), "403 header_required");
    meet(&gate.send("app", field("Via: 1.1 metrika-gate")), "508 loop_detected");
    meet(&gate.get("app", "/management/v2/counters"), "404 unknown_operation");
    let with = |method: &str, path: &str| format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    meet(&gate.send("app", with("PATCH", COUNTERS)), "403 method_denied");
    meet(&gate.send("app", with("DELETE", "/management/v1/counter/1")), "403 scope_denied");
    meet(&gate.get("one", "/management/v1/counter/2"), "403 counter_denied");
    meet(&gate.get("one", "/management/v1/counter/1?ulogin=other"), "403 login_denied");
    meet(&gate.get("one", COUNTERS), "403 list_denied");
    meet(&gate.send("one", with("DELETE", "/management/v1/counter/1")), "403 destructive_denied");
    meet(&gate.send("one", with("POST", "/management/v1/counter/1/public_grant")), "403 sharing_denied");
    meet(&gate.get("app", &format!("{COUNTERS}?callback=f")), "403 callback_denied");
    meet(&gate.get("app", &format!("{COUNTERS}?field=measurement_tokens")), "403 secret_denied");
    let goals =
        |fields: &str| format!("POST /management/v1/counter/1/goals HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n\r\n");
    meet(&gate.send("one", goals("Content-Type: text/xml\r\nContent-Length: 2") + "{}"), "415 body_unreadable");
    meet(&gate.send("one", goals("Content-Type: application/json\r\nContent-Length: 1048577")), "413 body_too_large");
    meet(&gate.send("app", field("X-Gate-Account: crm")), "400 bad_account");
    meet(&gate.get("both", "/stat/v1/data?ids=1,2&metrics=m"), "400 several_accounts");
    meet(&gate.get("poor", COUNTERS), "403 token_scope_missing");
    meet(&gate.send("poor", with("DELETE", "/management/v1/counter/1")), "503 token_unavailable");
    let invalid = r#"{"errors":[{"error_type":"invalid_token","message":"m"}],"code":403,"message":"m"}"#;
    let revoked = Upstream::run(move |conversation| {
        while conversation.request_head().is_some() {
            conversation.answer("403 Forbidden", "application/json", invalid);
        }
    });
    let suspending = Gate::start(&revoked, TWO_CALLERS);
    assert_eq!(suspending.get("app", COUNTERS).summary(), "403");
    suspending.until_metric(&["token_state", "state=\"suspended\""], 1.0);
    meet(&suspending.get("app", COUNTERS), "503 token_suspended");
    let owners = "
tokens:
  analytics: {file: '{folder}/analytics', scopes: [metrika:read], owner: shop}
  crm: {file: '{folder}/crm', scopes: [metrika:write], owner: other}
token_health: {probe_after: 30s}
";
    let outage = Gate::start(&revoked, &format!("{TWO_CALLERS}{owners}"));
    assert_eq!(outage.get("app", COUNTERS).summary(), "403");
    let undelete =
        with("POST", "/management/v1/counter/1/undelete").replace("localhost", "localhost\r\nContent-Length: 0");
    assert_eq!(outage.send("crm", undelete).summary(), "403");
    outage.until_metric(&["token_state", "state=\"outage\""], 2.0);
    meet(&outage.get("app", COUNTERS), "503 outage");
    assert_eq!(upstream.connections(), 0, "nothing was sent upstream");

    let config = format!("{TWO_CALLERS}limits: {{connections: 1}}\n");
    let gate = Gate::start(&upstream, &config);
    let mut first = gate.connect("app");
    first.send(with("GET", COUNTERS));
    assert_eq!(first.answer().summary(), "200");
    meet(&gate.connect("app").answer(), "503 overloaded");
    drop(first);

    quotas(&mut meet);

    let gate = Gate::start(&upstream, &format!("{TWO_CALLERS}timeouts: {{body_idle: 200ms}}\n"));
    let mut slow = gate.connect("crm");
    slow.send(format!("POST {COUNTERS} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{{"));
    meet(&slow.answer(), "408 body_too_slow");

    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let gate = Gate::plan_for(&closed.to_string(), upstream.ca_pem(), TWO_CALLERS).start();
    meet(&gate.get("app", COUNTERS), "503 upstream_unreachable");

    proxies(&upstream, &mut meet);
    certificates(&upstream, &mut meet);
    service_accounts(&upstream, &mut meet);

    let (_, another_ca) = certificate("api-metrika.yandex.net");
    let gate = Gate::plan_for(&upstream.address().to_string(), &another_ca, TWO_CALLERS).start();
    meet(&gate.get("app", COUNTERS), "502 upstream_tls");

    let upstream = Upstream::run(|conversation| {
        let head = conversation.request_head().unwrap_or_default();
        if head.starts_with("GET /stat/v1/data ") {
            conversation.is_closed();
        } else if head.starts_with("GET /stat/v1/data/bytime ") {
            conversation.write("what?\r\n\r\n");
        } else if head.starts_with("GET /stat/v1/data/pivot ") {
            conversation.write("HTTP/1.1 302 Found\r\nLocation: //h/\r\nContent-Length: 0\r\n\r\n");
        } else if head.starts_with("GET /stat/v1/data/drilldown ") {
            conversation.write("HTTP/1.1 200 OK\r\nContent-Encoding: br\r\nContent-Length: 1\r\n\r\nx");
        } else if head.starts_with("GET /stat/v1/data/comparison ") {
            let body = crate::response::reflection::gzip(READ_TOKEN.as_bytes());
            let head = "HTTP/1.1 400 Bad Request\r\nContent-Encoding: gzip\r\nContent-Length:";
            conversation.write([format!("{head} {}\r\n\r\n", body.len()).as_bytes(), &body].concat());
        }
    });
    let config = format!(
        "{TWO_CALLERS}\nupstream: {{ca_file: '{{ca}}', connect_to: '{{upstream}}', timeouts: {{response_headers: 200ms}}}}\n"
    );
    let gate = Gate::start(&upstream, &config);
    meet(&gate.get("app", COUNTERS), "502 upstream_closed");
    meet(&gate.get("app", "/stat/v1/data/bytime"), "502 upstream_protocol");
    meet(&gate.get("app", "/stat/v1/data"), "504 upstream_timeout");
    meet(&gate.get("app", "/stat/v1/data/pivot"), "502 upstream_redirect");
    meet(&gate.get("app", "/stat/v1/data/drilldown"), "502 upstream_encoding");
    meet(&gate.get("app", "/stat/v1/data/comparison"), "502 upstream_reflection");

    let late =
        format!("{config}timeouts: {{request: 200ms}}\n").replace("response_headers: 200ms", "response_headers: 20s");
    meet(&Gate::start(&upstream, &late).get("app", "/stat/v1/data"), "504 request_timeout");

    let can_be_met = Reason::ALL.iter().filter(|reason| !UNMET.contains(reason));
    let all: BTreeSet<_> = can_be_met.map(|reason| reason.as_str()).collect();
    assert_eq!(met, all, "every reason of the table was met");
}

/// R-6: what could mean two things is refused, never repaired.
#[test]
fn a_target_that_could_mean_two_things_is_refused() {
    let upstream = Upstream::plain();
    let gate = Gate::start(&upstream, TWO_CALLERS);
    let bad = [
        "/management/v1/../v1/counters",
        "/management/./v1/counters",
        "/management/v1/counters/.",
        "/management/v1/counters/..",
        "/management/v1/%2e%2e/counters",
        "/management/v1/%2E%2e/counters",
        "/management/v1/.%2e/counters",
        "/management/v1/%252e%252e/counters",
        "/management/v1%2fcounters",
        "/management/v1%2Fcounters",
        "/management/v1%5ccounters",
        "/management\\v1\\counters",
        "/management//v1/counters",
        "///management/v1/counters",
        "//localhost/management/v1/counters",
        "/management/v1/counters//",
        "/management/v1/nothing/",
        "/management/v1/counters;a=b",
        "/management/v1/..;/counters",
        "/management/v1/counters%3Bx",
        "/management/v1/counters%23x",
        "/management/v1/counters%3Fids=1",
        "/management/v1/counters%00",
        "/management/v1/counters%0a",
        "/management/v1/counters%0d%0aX:1",
        "/management/v1/counters%7f",
        "/management/v1/counters%",
        "/management/v1/counters%4",
        "/management/v1/counters%zz",
        "/m%61nagement/v1/counters",
        "/management/v1/counters?a=%",
        "/management/v1/counters?a=%4",
        "/management/v1/counters?a=%zz",
        "http://localhost/management/v1/../v1/counters",
        "*",
    ];
    let mut caller = gate.connect("app");
    for target in bad {
        caller.send(format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
        assert_is(&caller.answer(), "400 bad_target");
    }
    gate.until_metric(&["denied_total", "caller=\"reports\"", "bad_target"], count(bad.len()));
    // Targets that hyper's parser of URIs would refuse or cut are refused before it, and the connection ends.
    let none = ["/a#b", "/a?b#c", "/a<b>", "/a`b", "/\u{430}", "/a?b=\u{7f}", "a:1", "?a", "management/v1"];
    for target in none {
        let mut caller = gate.connect("app");
        caller.send(format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
        assert_is(&caller.answer(), "400 bad_target");
        assert!(caller.is_closed(), "{target}");
    }
    for target in ["/a\"b", "/a^b", "/a|b", "/{a}", "/a?%69ds=1", "/a?oauth%5ftoken=x", "/a?OAuth_Token=x", "/a/%C0%AE"]
    {
        assert_is(&gate.get("app", target), "400 bad_target");
    }
    assert_eq!(upstream.connections(), 0, "nothing was sent upstream");
}

/// R-9.
#[test]
fn methods_that_the_api_does_not_have_are_refused() {
    let upstream = Upstream::plain();
    let gate = Gate::start(&upstream, TWO_CALLERS);
    for method in ["OPTIONS", "TRACE", "get", "Get", "PROPFIND", "PURGE", "M-SEARCH"] {
        let request = format!("{method} {COUNTERS} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        assert_is(&gate.send("crm", request), "405 method_not_allowed");
    }
    assert_is(&gate.send("crm", "OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n"), "405 method_not_allowed");
    let connect = "CONNECT api-metrika.yandex.net:443 HTTP/1.1\r\nHost: api-metrika.yandex.net:443\r\n\r\n";
    assert_is(&gate.send("crm", connect), "405 method_not_allowed");
    assert_eq!(upstream.connections(), 0, "nothing was sent upstream");
    let other = gate.metrics(&["requests_total", "method=\"other\""]);
    assert_eq!(other.len(), 1, "a method of the caller's is no label: {other:?}");
}

/// R-11: the body of a refused request is not read as a request.
#[test]
fn the_body_of_a_refused_request_is_not_a_request() {
    let upstream = Upstream::plain();
    let gate = Gate::start(&upstream, TWO_CALLERS);
    let hidden = "GET /management/v1/clients HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let length = hidden.len();
    for request in [
        format!("POST {COUNTERS} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n{hidden}"),
        format!(
            "POST {COUNTERS} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n{length:x}\r\n{hidden}\r\n0\r\n\r\n"
        ),
        format!("GET /a//b HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n{hidden}"),
    ] {
        let mut caller = gate.connect("app");
        caller.send(&request);
        assert!(caller.answer().field("x-gate-error").is_some(), "{request}");
        // The connection goes on behind the body, or it ends.
        if caller.try_send(format!("GET {COUNTERS} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")) {
            let _ = caller.try_answer(false);
        }
        let heads = upstream.requests();
        assert!(!heads.iter().any(|head| head.contains("/clients")), "{heads:?}");
    }
}

#[test]
fn headers_have_their_limits() {
    let upstream = Upstream::plain();
    let gate = Gate::start(&upstream, TWO_CALLERS);
    let with = |fields: &str| format!("GET {COUNTERS} HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n");
    assert_eq!(gate.send("app", with(&format!("A: {}\r\n", "x".repeat(60_000)))).summary(), "200");
    assert_eq!(gate.send("app", with(&"A: b\r\n".repeat(90))).summary(), "200");
    for too_much in ["A: b\r\n".repeat(200), format!("A: {}\r\n", "x".repeat(70_000)), "Accept: x\r\n".repeat(6_000)] {
        let mut caller = gate.connect("app");
        let _ = caller.try_send(with(&too_much));
        assert_is(&caller.answer(), "431 headers_too_large");
    }
    let long = format!("{COUNTERS}?a={}", "1".repeat(48 * 1024));
    assert_is(&gate.get("app", &long), "414 target_too_long");
    assert_eq!(upstream.requests().len(), 2);
}

#[test]
fn targets_can_be_as_long_as_the_largest_limit() {
    let upstream = Upstream::plain();
    let limits = |target: &str| format!("{TWO_CALLERS}limits: {{header_bytes: 256KiB, target_bytes: {target}}}\n");
    let gate = Gate::start(&upstream, &limits("65534B"));
    let target = |bytes: usize| format!("{COUNTERS}?a={}", "1".repeat(bytes - COUNTERS.len() - 3));
    assert_eq!(gate.get("app", &target(65_534)).summary(), "200");
    for beyond in [65_535, 200_000] {
        assert_is(&gate.get("app", &target(beyond)), "414 target_too_long");
    }
    let (code, said) = Gate::plan(&upstream, &limits("64KiB")).fails();
    assert!(code == 78 && said.contains("expected a size from 1KiB to 65534B"), "{code} {said}");
}

#[test]
fn a_head_request_gets_the_refusal_without_its_body() {
    let upstream = Upstream::plain();
    let gate = Gate::start(&upstream, TWO_CALLERS);
    let mut caller = gate.connect("app");
    caller.send("HEAD /management/v2/counters HTTP/1.1\r\nHost: localhost\r\nX-Request-ID: refused\r\n\r\n");
    assert_eq!(caller.answer_to_head().summary(), "404 unknown_operation");
    gate.until_log(&["\"request_id\":\"refused\"", "\"status\":404", "\"outcome\":\"complete\""]);
    caller.send(format!("HEAD {COUNTERS} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"));
    assert_eq!(caller.head().unwrap().0, 200, "no byte of a body stood before this answer");
}

#[test]
fn a_response_has_the_id_of_its_request() {
    let upstream = Upstream::plain();
    let gate = Gate::start(&upstream, TWO_CALLERS);
    let with =
        |id: &str| gate.send("app", format!("GET /no HTTP/1.1\r\nHost: localhost\r\nX-Request-ID: {id}\r\n\r\n"));
    assert_eq!(with("abc-123").field("x-request-id"), Some("abc-123"));
    gate.until_log(&["\"request_id\":\"abc-123\"", "\"reason\":\"unknown_operation\"", "\"status\":404"]);
    for bad in ["", "two words", "x".repeat(129).as_str(), "\u{430}"] {
        let made = with(bad).field("x-request-id").unwrap().to_owned();
        assert!(made.len() == 32 && made.bytes().all(|byte| byte.is_ascii_hexdigit()), "{made}");
    }
}

#[test]
fn the_response_to_malformed_http_has_an_id_and_the_date() {
    let upstream = Upstream::plain();
    let gate = Gate::start(&upstream, TWO_CALLERS);
    let too_large = format!("GET {COUNTERS} HTTP/1.1\r\nHost: localhost\r\nX-Much: {}\r\n\r\n", "x".repeat(300_000));
    for (request, expected) in [("hello\r\n\r\n", "400 malformed_request"), (&too_large, "431 headers_too_large")] {
        let mut caller = gate.connect("app");
        caller.try_send(request);
        let answer = caller.answer();
        assert_is(&answer, expected);
        let id = answer.field("x-request-id").expect("an id");
        assert!(id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()), "{id}");
        let line = gate.until_log(&["\"access\"", &format!("\"request_id\":\"{id}\"")]);
        assert!(line.contains(expected.split(' ').next_back().unwrap()), "{line}");
        let date = httpdate::parse_http_date(answer.field("date").expect("a date")).unwrap();
        assert!(date.elapsed().unwrap_or_default().as_secs() < 60, "{date:?}");
    }
}

#[test]
fn the_table_is_in_the_documentation() {
    let mut text = "# Refusals by the gate\n\n\
        Every response that the gate itself gives instead of Metrica's. The body has Metrica's form, `{\"errors\":[{\"error_type\":..,\"message\":..}],\"code\":..,\"message\":..}`, and the field `X-Gate-Error` has the reason. A 401 or 403 with `X-Gate-Reason` alone is Metrica's; with neither field, it is from something in front of the gate. `Retry-After` means that nothing was sent. Metrica's own refusals are in [reasons.md](reasons.md).\n\n\
        Where the gate knows more, the message is more precise than the one below:\n\n\
        - a malformed request: the broken rule ([every kind](malformed.md)), and for a target the place in it;\n\
        - a rule of the caller: the rule, the parameter and what would be right ([refusals of rules](policy.md#refusals-of-rules));\n\
        - missing scopes: those that are needed and those that the caller has;\n\
        - a suspended token: since when, and when the gate asks Metrica again.\n\n\
        ## Who acts\n\n\
        `X-Gate-Reason` repeats the reason, and `X-Gate-Hint` the message. The log lines of the request have the same `request_id` as `X-Request-ID` of the response: the access line names the `caller`, and the line `request failed`, if there is one, has the `cause`. `metrika-gate explain METHOD 'PATH?QUERY' --as CALLER` repeats the decision without sending anything.\n\n\
        | the response | who acts | what to do |\n|---|---|---|\n\
        | 400, 404, 405, 413, 414, 415, 421, 431 | the author of the client | correct the request as the message says; the same request is refused again ([requests refused with 400 or 415](policy.md#requests-refused-with-400-or-415)) |\n\
        | `unknown_caller` | the operator | compare `listener` and `peer` of the access line with `match` of the caller that it should be |\n\
        | other 401 | both | the client sends the proof that it was given, or the operator gives it another: [keys](keys.md#what-is-refused), [client certificates](mtls.md), [service accounts](service_accounts.md#what-is-accepted) |\n\
        | `host_denied`, `destination_denied`, `browser_denied`, `header_required` | both | the request is not for this listener ([hosts, browsers and loops](policy.md#hosts-browsers-and-loops)) |\n\
        | `token_scope_missing` | the operator | give the caller a token with that scope |\n\
        | other 403 | both | the rules of the caller refuse it: fix the client, or widen its entry under `callers` ([refusals of rules](policy.md#refusals-of-rules)) |\n\
        | 429, and 503 with `Retry-After` | the client | repeat the request after that time; nothing was sent |\n\
        | `quota_budget`, `quota_full`, `quota_wait` | the operator, if they last | [quotas](operations.md#quota) |\n\
        | `token_unavailable`, `token_suspended` | the operator | restore or replace the file of the token ([tokens](operations.md#tokens)) |\n\
        | `outage` | nobody | the gate probes by itself ([the alert](operations.md#metrikagatetokenoutage)) |\n\
        | `overloaded` | the operator, if it lasts | [limits of connections](operations.md#limits-of-connections) |\n\
        | other 502 and 503, 508 | the operator | the path to Metrica is broken ([upstream errors](operations.md#upstream-errors)) |\n\
        | `request_timeout`, `upstream_timeout`, `upstream_closed`, `internal` | the client | Metrica may have processed the request: repeat a read; look before you repeat a write |\n\
        | `upstream_protocol`, `upstream_redirect`, `upstream_encoding`, `upstream_reflection` | both | Metrica has responded, and probably processed the request: look before you repeat a write |\n\
        | `body_too_slow` | the client | send the body without long pauses |\n\n\
        ## All refusals\n\n\
        A test writes this page from `src/policy/rejection.rs`; `UPDATE=1 cargo test --test it` regenerates it.\n\n\
        | X-Gate-Error | status | error_type | Retry-After | message |\n|---|---|---|---|---|\n"
        .to_owned();
    for reason in Reason::ALL {
        let answer = reason.answer();
        let is_of_a_token = matches!(reason, Reason::TokenSuspended | Reason::Outage);
        let is_of_a_quota = matches!(reason, Reason::QuotaWait | Reason::QuotaFull | Reason::QuotaBudget);
        let seconds = answer.retry_after.map_or_else(String::new, |seconds| seconds.to_string());
        let by_state =
            is_of_a_token.then_some("until the next probe").or(is_of_a_quota.then_some("until there is room"));
        let is_spread = matches!(reason, Reason::QuotaDraining | Reason::QuotaStoreUnavailable);
        let by_state = by_state.or(is_spread.then_some("1 to 3, at random"));
        let retry = by_state.map_or(seconds, str::to_owned);
        let (status, error_type) = (answer.status.as_u16(), answer.error_type.as_str());
        writeln!(text, "| `{}` | {status} | `{error_type}` | {retry} | {} |", reason.as_str(), answer.message).unwrap();
    }
    same_as_file("docs/rejections.md", &text);
}

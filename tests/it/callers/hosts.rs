//! Access to the gate by host, by program and by header field; and the name by which a request addresses the gate
//! does not change its destination.

use std::sync::{Arc, Mutex};

use crate::harness::gate::until;
use crate::harness::{Answer, Gate, READ_TOKEN, TWO_CALLERS, Upstream};

const COUNTERS: &str = "/management/v1/counters";

const LISTENERS: &str = "
listeners:
  - {name: app, address: '127.0.0.1:0'}
  - {name: wide, address: '0.0.0.0:0', allow_remote: true, hosts: [metrika-gate.metrika.svc, Gate, 10.7.7.7, '[2001:db8::7]']}
  - {name: socket, unix: {path: '{folder}/gate.sock'}}
  - {name: strict, address: '127.0.0.1:0', require_header: 'X-Metrika-Gate: yes please'}
callers:
  - {id: wide, match: {listener: wide, source: [127.0.0.0/8]}, scopes: [metrika:read], tokens: [analytics]}
  - {id: app, match: {listener: app}, scopes: [metrika:read], tokens: [analytics]}
  - {id: socket, match: {listener: socket}, scopes: [metrika:read], tokens: [analytics]}
  - {id: strict, match: {listener: strict}, scopes: [metrika:read], tokens: [analytics]}
";

fn on_loopback(gate: &Gate, listener: &str) -> String {
    gate.place(listener).replace("0.0.0.0", "127.0.0.1")
}

fn send(gate: &Gate, listener: &str, request: &str) -> Answer {
    let mut caller = crate::harness::Caller::connect(&on_loopback(gate, listener));
    caller.send(request);
    caller.answer()
}

fn called(gate: &Gate, listener: &str, host: &str) -> String {
    send(gate, listener, &format!("GET {COUNTERS} HTTP/1.1\r\nHost: {host}\r\n\r\n")).summary()
}

fn with(gate: &Gate, listener: &str, fields: &str) -> String {
    send(gate, listener, &format!("GET {COUNTERS} HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n\r\n")).summary()
}

/// a listener on TCP answers to the hosts that it knows, whatever the port and the case.
#[test]
fn a_host_is_known_or_refused() {
    let upstream = Upstream::plain();
    let gate = Gate::start(&upstream, LISTENERS);
    let port = gate.place("app").rsplit(':').next().unwrap().to_owned();
    for known in [
        "localhost",
        "LocalHost:1",
        "localhost.",
        "127.0.0.1",
        &format!("127.0.0.1:{port}"),
        "127.9.9.9",
        "[::1]:8080",
        "api-metrika.yandex.net",
        "api-metrika.yandex.ru:443",
        "API-METRICA.yandex.com",
    ] {
        assert_eq!(called(&gate, "app", known), "200", "{known}");
    }
    let served = upstream.requests().len();
    for stranger in [
        "evil.example",
        "localhost.evil.example",
        "evil.localhost",
        "xlocalhost",
        "127.0.0.1.evil.example",
        "api-metrika.yandex.net.evil.example",
        "127.1",
        "2130706433",
        "10.0.0.1",
        "0.0.0.0",
        "[::]",
        "metrika-gate.metrika.svc",
        "",
    ] {
        assert_eq!(called(&gate, "app", stranger), "403 host_denied", "{stranger}");
    }
    for no_host in ["user@localhost", "localhost:80@evil.example", "localhost:x", "localhost/", "[::1", "a b"] {
        assert_eq!(called(&gate, "app", no_host), "400 bad_host", "{no_host}");
    }
    assert_eq!(upstream.requests().len(), served, "nothing was sent upstream");
    gate.until_metric(&["denied_total", "caller=\"app\"", "host_denied"], 13.0);
    gate.until_log(&["request failed", "does not accept the host 'localhost.evil.example'", "host_denied"]);
}

/// the other names of a listener are listed under `hosts`; a unix socket has no name.
#[test]
fn hosts_are_listed_for_a_listener() {
    let upstream = Upstream::plain();
    let gate = Gate::start(&upstream, LISTENERS);
    for known in [
        "metrika-gate.metrika.svc",
        "METRIKA-GATE.metrika.svc.:8080",
        "gate",
        "10.7.7.7",
        "[2001:db8::7]:80",
        "localhost",
    ] {
        assert_eq!(called(&gate, "wide", known), "200", "{known}");
    }
    for stranger in ["metrika-gate.metrika", "x.metrika-gate.metrika.svc", "metrika-gate.metrika.svc.evil", "0.0.0.0"] {
        assert_eq!(called(&gate, "wide", stranger), "403 host_denied", "{stranger}");
    }
    for any in ["evil.example", "docker", "10.0.0.1", "localhost", ""] {
        assert_eq!(called(&gate, "socket", any), "200", "{any}");
    }
    assert_eq!(called(&gate, "socket", "user@evil"), "400 bad_host");
}

/// the authority of a target in absolute form counts, and a different `Host` is rejected.
#[test]
fn two_different_hosts_are_refused() {
    let upstream = Upstream::plain();
    let gate = Gate::start(&upstream, LISTENERS);
    let ask = |listener: &str, target: &str, hosts: &str| {
        send(&gate, listener, &format!("GET {target} HTTP/1.1\r\n{hosts}\r\n")).summary()
    };
    for listener in ["app", "socket"] {
        assert_eq!(ask(listener, &format!("http://localhost{COUNTERS}"), "Host: LOCALHOST\r\n"), "200");
        // The port of the scheme can be omitted in either.
        assert_eq!(ask(listener, &format!("http://localhost:80{COUNTERS}"), "Host: localhost\r\n"), "200");
        assert_eq!(ask(listener, &format!("http://localhost{COUNTERS}"), "Host: localhost:80\r\n"), "200");
        for (target, hosts) in [
            ("http://evil.example", "Host: localhost\r\n"),
            ("http://localhost", "Host: evil.example\r\n"),
            ("http://localhost:81", "Host: localhost\r\n"),
            ("http://localhost", "Host: localhost:443\r\n"),
            ("", "Host: localhost\r\nHost: evil.example\r\n"),
            ("", "Host: localhost\r\nHost: localhost\r\n"),
        ] {
            let summary = ask(listener, &format!("{target}{COUNTERS}"), hosts);
            assert_eq!(summary, "400 bad_host", "{listener} {target} {hosts}");
        }
    }
    assert_eq!(ask("app", &format!("http://evil.example{COUNTERS}"), "Host: evil.example\r\n"), "403 host_denied");
    assert_eq!(ask("app", COUNTERS, ""), "400 bad_host");
    assert_eq!(upstream.requests().len(), 6);
}

/// `hosts` and `require_header` change without a restart; where a listener is, does not.
#[test]
fn hosts_change_without_a_restart() {
    let upstream = Upstream::plain();
    let gate = Gate::start(&upstream, LISTENERS);
    assert_eq!(called(&gate, "wide", "new.example"), "403 host_denied");
    gate.replace_config(&gate.config().replace("[metrika-gate.metrika.svc, Gate,", "[new.example,"));
    until("the new host is known", || called(&gate, "wide", "new.example") == "200");
    assert_eq!(called(&gate, "wide", "gate"), "403 host_denied");
    gate.replace_config(&gate.config().replace("yes please", "no"));
    until("the new field is asked for", || with(&gate, "strict", "X-Metrika-Gate: no") == "200");
    gate.replace_config(
        &gate.config().replace("name: strict, address: '127.0.0.1:0'", "name: strict, address: '127.0.0.2:0'"),
    );
    gate.until_log(&["listeners changed (strict); restart the gate to apply it"]);
}

/// what only browsers send is refused on every listener, also a CORS preflight and a unix socket's.
#[test]
fn browsers_are_refused() {
    let upstream = Upstream::plain();
    let gate = Gate::start(&upstream, LISTENERS);
    for listener in ["app", "socket"] {
        for fields in [
            "Origin: http://evil.example",
            "Origin: null",
            "origin: http://localhost:8080",
            "Origin:",
            "Sec-Fetch-Site: cross-site",
            "Sec-Fetch-Site: same-site",
            "Sec-Fetch-Site: same-origin",
            "Sec-Fetch-Site: none\r\nSec-Fetch-Mode: navigate\r\nSec-Fetch-User: ?1",
            "Sec-Fetch-Dest: document",
            "SEC-FETCH-DEST: image\r\nSec-Fetch-Mode: no-cors",
            "Access-Control-Request-Method: POST",
            "Connection: origin\r\nOrigin: http://evil.example",
        ] {
            assert_eq!(with(&gate, listener, fields), "403 browser_denied", "{listener} {fields}");
        }
        let preflight = format!(
            "OPTIONS {COUNTERS} HTTP/1.1\r\nHost: localhost\r\nOrigin: https://evil.example\r\n\
             Access-Control-Request-Method: POST\r\nAccess-Control-Request-Private-Network: true\r\n\r\n"
        );
        assert_eq!(send(&gate, listener, &preflight).summary(), "403 browser_denied");
    }
    assert_eq!(upstream.connections(), 0, "nothing was sent upstream");
    // Node's own `fetch`, whose programs are no browsers.
    let node = "accept-language: *\r\nsec-fetch-mode: cors\r\nuser-agent: node";
    assert_eq!(with(&gate, "app", node), "200");
}

/// no response has a CORS field, whether the gate or Metrica produced it.
#[test]
fn no_answer_speaks_to_a_browser() {
    let upstream = Upstream::run(|conversation| {
        while conversation.request_head().is_some() {
            conversation.write(
                "HTTP/1.1 200 OK\r\nAccess-Control-Allow-Origin: *\r\nACCESS-CONTROL-ALLOW-CREDENTIALS: true\r\n\
                 Access-Control-Allow-Private-Network: true\r\nContent-Length: 2\r\n\r\n{}",
            );
        }
    });
    let gate = Gate::start(&upstream, LISTENERS);
    for request in [
        format!("GET {COUNTERS} HTTP/1.1\r\nHost: localhost\r\n\r\n"),
        format!("GET {COUNTERS} HTTP/1.1\r\nHost: localhost\r\nOrigin: http://localhost\r\n\r\n"),
        format!("OPTIONS {COUNTERS} HTTP/1.1\r\nHost: localhost\r\nOrigin: null\r\n\r\n"),
        format!("OPTIONS {COUNTERS} HTTP/1.1\r\nHost: localhost\r\n\r\n"),
        "GET /nothing HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(),
        "what is this\r\n\r\n".to_owned(),
    ] {
        let answer = send(&gate, "app", &request);
        assert!(!answer.fields.iter().any(|(name, _)| name.starts_with("access-control-")), "{:?}", answer.fields);
    }
}

/// a field that a page cannot send. It is read before `Connection` can name it away, and it stays here.
#[test]
fn a_listener_can_require_a_field() {
    let upstream = Upstream::plain();
    let gate = Gate::start(&upstream, LISTENERS);
    for lacking in [
        "A: b",
        "X-Metrika-Gate: yes",
        "X-Metrika-Gate: Yes please",
        "X-Metrika-Gate:",
        "X-Metrika-Gate: yes please\r\nX-Metrika-Gate: yes please",
        "X-Metrika-Gate: no\r\nX-Metrika-Gate: yes please",
    ] {
        assert_eq!(with(&gate, "strict", lacking), "403 header_required", "{lacking}");
    }
    for fine in [
        "X-Metrika-Gate: yes please",
        "x-METRIKA-gate:yes please",
        "Connection: x-metrika-gate\r\nX-Metrika-Gate: yes please",
    ] {
        assert_eq!(with(&gate, "strict", fine), "200", "{fine}");
    }
    assert_eq!(with(&gate, "app", "A: b"), "200", "others do not ask for it");
    let heads = upstream.requests();
    assert_eq!(heads.len(), 4);
    assert!(heads.iter().all(|head| !head.contains("metrika-gate: ")), "{heads:?}");
}

/// a request that was here before is not sent again (RFC 9110, section 7.6.3).
#[test]
fn a_loop_ends_at_its_second_gate() {
    let upstream = Upstream::plain();
    let gate = Gate::start(&upstream, TWO_CALLERS);
    for looped in [
        "Via: 1.1 metrika-gate",
        "via: 1.0 fred, 1.1 METRIKA-GATE (here)",
        "Via: 1.1 other\r\nA: b\r\nVia: 2.0 metrika-gate:8080",
        "Connection: via\r\nVia: HTTP/1.1 metrika-gate",
    ] {
        assert_eq!(with(&gate, "app", looped), "508 loop_detected", "{looped}");
    }
    assert_eq!(upstream.connections(), 0, "nothing was sent upstream");
    assert_eq!(with(&gate, "app", "Via: 1.1 metrika-gate.example, 1.1 other (metrika-gate)\r\nVia: 1.0 fred"), "200");
    let head = upstream.requests().pop().unwrap();
    let via: Vec<_> = head.lines().filter(|line| line.to_ascii_lowercase().starts_with("via")).collect();
    assert_eq!(via, ["via: 1.1 metrika-gate"]);
}

/// a gate that leads to itself answers instead of going round.
#[test]
fn a_gate_in_front_of_a_gate_is_a_loop() {
    let inner = Upstream::plain();
    let behind = Gate::start(&inner, TWO_CALLERS);
    let place = behind.place("app").to_owned();
    // TLS is taken off between them, as a balancer does.
    let between = Upstream::run(move |conversation| {
        while let Some(head) = conversation.request_head() {
            let mut next = crate::harness::Caller::connect(&place);
            next.send(head);
            let answer = next.answer();
            conversation.answer("508 Loop Detected", "application/json", &answer.summary());
        }
    });
    let gate = Gate::start(&between, TWO_CALLERS);
    let answer = gate.get("app", COUNTERS);
    assert_eq!((answer.status, answer.text().as_str()), (508, "508 loop_detected"));
    assert_eq!(inner.connections(), 0);
}

/// whatever a request calls the gate, the name in TLS, the verified name and `Host` are the configuration's; and
/// no proxy of the environment is asked.
#[test]
fn the_upstream_is_a_constant() {
    let names = Arc::new(Mutex::new(Vec::new()));
    let seen = names.clone();
    let upstream = Upstream::run(move |conversation| {
        while conversation.request_head().is_some() {
            seen.lock().unwrap().push(conversation.server_name());
            conversation.write("HTTP/1.1 200 OK\r\nAlt-Svc: h2=\"evil.example:443\"\r\nContent-Length: 2\r\n\r\n{}");
        }
    });
    let trap = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    trap.set_nonblocking(true).unwrap();
    let proxy = format!("http://{}", trap.local_addr().unwrap());
    let plan = ["HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"]
        .into_iter()
        .fold(Gate::plan(&upstream, LISTENERS), |plan, name| plan.environment(name, &proxy));
    let gate = plan.start();
    let requests = [
        ("socket", COUNTERS, "evil.example"),
        ("socket", COUNTERS, "127.0.0.1:22"),
        ("socket", "http://evil.example:8443/management/v1/counters", "evil.example:8443"),
        ("app", "https://api-metrica.yandex.com/management/v1/counters", "api-metrica.yandex.com"),
        ("app", COUNTERS, "localhost"),
    ];
    for (listener, target, host) in requests {
        let fields = "X-Forwarded-Host: evil.example\r\nForwarded: host=evil.example\r\nX-Host: evil.example\r\n\
                      X-Original-Host: evil.example\r\nAlt-Used: evil.example\r\nConnection: close";
        let request = format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n{fields}\r\n\r\n");
        let answer = send(&gate, listener, &request);
        assert_eq!((answer.summary().as_str(), answer.field("alt-svc")), ("200", None), "{target} {host}");
    }
    let heads = upstream.requests();
    assert_eq!(heads.len(), requests.len());
    for head in heads {
        let mut lines: Vec<_> = head.trim_end().lines().filter(|line| !line.starts_with("x-request-id")).collect();
        lines.sort_unstable();
        let token = format!("authorization: OAuth {READ_TOKEN}");
        let expected = [
            "GET /management/v1/counters HTTP/1.1",
            "accept-encoding: identity",
            token.as_str(),
            "host: api-metrika.yandex.net",
            "via: 1.1 metrika-gate",
        ];
        assert_eq!(lines, expected);
    }
    let names = names.lock().unwrap();
    assert!(names.iter().all(|name| name.as_deref() == Some("api-metrika.yandex.net")), "{names:?}");
    assert!(trap.accept().is_err(), "no proxy was asked");
}

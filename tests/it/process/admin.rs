//! The admin listener: its paths, its refusals, and that nobody holds it up.

use std::time::{Duration, Instant};

use crate::harness::gate::until;
use crate::harness::{Answer, Caller, Gate, TWO_CALLERS, Upstream};

const PAGES: [&str; 7] = ["/", "/livez", "/healthz", "/readyz?verbose", "/startupz", "/metrics", "/usage"];

fn ask(gate: &Gate, request: &str) -> Answer {
    let mut caller = Caller::connect(gate.admin_place());
    caller.send(request);
    caller.try_answer(request.starts_with("HEAD ")).unwrap()
}

/// the admin listener changes nothing, so nothing but GET and HEAD is answered.
#[test]
fn only_reading_is_answered() {
    let upstream = Upstream::plain();
    let gate = Gate::start(&upstream, TWO_CALLERS);
    for page in PAGES {
        let answer = ask(&gate, &format!("GET {page} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
        assert_eq!(answer.status, 200, "{page}");
        assert_eq!(answer.field("x-content-type-options"), Some("nosniff"), "{page}");
        assert_eq!(answer.field("cache-control"), Some("no-store"), "{page}");
        let kind = match page {
            "/usage" => "application/json",
            "/" => "text/html",
            _ => "text/plain",
        };
        assert!(answer.field("content-type").unwrap().starts_with(kind), "{page}");
        let head = ask(&gate, &format!("HEAD {page} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
        assert_eq!((head.status, head.body.len()), (200, 0), "{page}");
        for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "get", "QUIT"] {
            let request = format!("{method} {page} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n");
            let answer = ask(&gate, &request);
            assert_eq!((answer.status, answer.field("allow")), (405, Some("GET, HEAD")), "{method} {page}");
        }
    }
    for path in ["/quit", "/-/reload", "/-/quit", "/config", "/debug/pprof", "/tokens", "/management/v1/counters"] {
        assert_eq!(gate.admin(path).status, 404, "{path}");
    }
    assert_eq!((upstream.connections(), gate.metric(&["config_reloads_total"])), (0, 1.0), "nothing happened");
}

/// a connection carries one request, so that none can be kept.
#[test]
fn a_connection_carries_one_request() {
    let upstream = Upstream::plain();
    let gate = Gate::start(&upstream, TWO_CALLERS);
    let mut caller = Caller::connect(gate.admin_place());
    let start = Instant::now();
    caller.send("GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(2));
    let all = String::from_utf8(caller.rest()).unwrap();
    assert_eq!(all.matches("HTTP/1.1 200").count(), 1, "{all}");
    assert!(all.contains("connection: close") && start.elapsed() < Duration::from_secs(4), "{all}");
}

/// requests that a page in a browser could make its user send.
#[test]
fn a_page_of_a_browser_reads_nothing() {
    let upstream = Upstream::plain();
    let gate = Gate::start(&upstream, TWO_CALLERS);
    let with = |fields: &str| ask(&gate, &format!("GET /metrics HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n"));
    for fields in [
        "Origin: https://evil.example\r\n",
        "Origin: null\r\n",
        "Sec-Fetch-Site: cross-site\r\n",
        "Sec-Fetch-Site: same-site\r\n",
    ] {
        let answer = with(fields);
        assert_eq!((answer.status, answer.text().contains("metrika_gate")), (403, false), "{fields}");
        assert!(!answer.fields.iter().any(|(name, _)| name.starts_with("access-control-")), "{fields}");
    }
    // Typed into a browser, and Prometheus.
    for fields in ["", "Sec-Fetch-Site: none\r\n", "User-Agent: Prometheus/3.0\r\n"] {
        assert_eq!(with(fields).status, 200, "{fields}");
    }
}

/// the listeners of callers have no pages of their own.
#[test]
fn callers_listeners_show_nothing_of_it() {
    let upstream = Upstream::plain();
    let gate = Gate::start(&upstream, TWO_CALLERS);
    for page in PAGES.iter().chain(&["/favicon.ico", "/.well-known/security.txt", "/-/healthy"]) {
        for listener in ["app", "crm"] {
            let answer = gate.get(listener, page);
            assert!(
                matches!(answer.summary().as_str(), "404 unknown_operation" | "400 bad_target"),
                "{page}: {}",
                answer.summary()
            );
            assert!(!answer.text().contains("metrika_gate_"), "{page}");
        }
    }
    assert_eq!(upstream.connections(), 0);
}

/// a client whose header has no end or no bound is disconnected.
#[test]
fn a_header_has_bounds() {
    let upstream = Upstream::plain();
    let gate = Gate::start(&upstream, TWO_CALLERS);
    let mut slow = Caller::connect(gate.admin_place());
    let start = Instant::now();
    slow.send("GET /livez HTTP/1.1\r\nHost: loc");
    let mut large = Caller::connect(gate.admin_place());
    large.try_send(format!("GET /livez HTTP/1.1\r\nHost: localhost\r\nA: {}\r\n\r\n", "x".repeat(20_000)));
    assert!(large.try_answer(false).map_or(431, |answer| answer.status) == 431);
    let mut many = Caller::connect(gate.admin_place());
    many.try_send(format!("GET /livez HTTP/1.1\r\nHost: localhost\r\n{}\r\n", "A: b\r\n".repeat(500)));
    assert!(many.try_answer(false).map_or(431, |answer| answer.status) == 431);
    slow.rest();
    let taken = start.elapsed();
    assert!((Duration::from_secs(4)..Duration::from_secs(10)).contains(&taken), "{taken:?}");
}

/// A gate whose page of metrics does not fit the buffers of a socket.
fn gate_with_a_long_page(upstream: &Upstream) -> Gate {
    // Each token has a series for every reason.
    let token = |number: usize| format!("  t{number:-<60}: {{file: '{{folder}}/analytics', scopes: [metrika:read]}}\n");
    let tokens: String = (0..1500).map(token).collect();
    let app = "{id: app, match: {listener: app}, scopes: [metrika:read], tokens: [analytics]}";
    let first = "  analytics: {file: '{folder}/analytics', scopes: [metrika:read]}\n";
    Gate::start(
        upstream,
        &format!("\nlisteners: [{{name: app, address: '127.0.0.1:0'}}]\ncallers: [{app}]\ntokens:\n{first}{tokens}"),
    )
}

/// a client that asks and reads nothing cannot keep the probes out, nor hold a connection for long.
#[test]
fn a_client_that_reads_nothing_holds_no_connection() {
    let upstream = Upstream::plain();
    let gate = gate_with_a_long_page(&upstream);
    let page = gate.admin("/metrics").body.len();
    assert!(page > 4_000_000, "{page} bytes may fit into the kernel's buffers");
    let descriptors = || std::fs::read_dir(format!("/proc/{}/fd", gate.pid())).unwrap().count();
    let before = descriptors();
    let start = Instant::now();
    let held: Vec<_> = (0..3)
        .map(|_| {
            let mut caller = Caller::connect(gate.admin_place());
            // A second request on the same connection is not answered: there would be no end.
            caller.send("GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(100));
            caller
        })
        .collect();
    until("the connections are there", || descriptors() >= before + 3);
    assert_eq!(gate.admin("/livez").status, 200);
    until("the connections are given up", || descriptors() <= before);
    assert!(start.elapsed() < Duration::from_secs(19), "{:?}", start.elapsed());
    drop(held);
}

/// connections beyond the bound wait, and silent ones are closed.
#[test]
fn connections_are_bounded() {
    let upstream = Upstream::plain();
    let gate = Gate::start(&upstream, TWO_CALLERS);
    let before = gate.resident_bytes();
    let idle: Vec<_> = (0..400).map(|_| Caller::connect(gate.admin_place())).collect();
    let start = Instant::now();
    assert_eq!(gate.get("app", "/management/v1/counters").summary(), "200", "callers do not notice");
    assert_eq!(gate.admin("/livez").status, 200);
    assert!(start.elapsed() < Duration::from_secs(15), "{:?}", start.elapsed());
    let grown = gate.resident_bytes().saturating_sub(before);
    assert!(grown < 16 * 1024 * 1024, "{grown} bytes");
    drop(idle);
}

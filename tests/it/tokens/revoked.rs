//! Requests that wait while the configuration or a token changes: they leave with what holds then, or not at all.

use std::time::Duration;

use crate::harness::gate::until;
use crate::harness::{Caller, Gate, READ_TOKEN, Signal, Upstream, WRITE_TOKEN};

const CALLERS: &str = "
listeners:
  - {name: app, address: '127.0.0.1:0'}
callers:
  - {id: one, match: {listener: app}, scopes: [metrika:read, metrika:write], tokens: [analytics, crm], counters: [1, 2]}
  - {id: other, match: {source: [192.0.2.0/24]}, scopes: [metrika:read], tokens: [analytics]}
";

const NEW_TOKEN: &str = "y0_replacedREPLACEDreplaced0123456789ab";

/// A write whose body is read before it goes on, without its last byte.
const HALF: &str = "POST /management/v1/counter/1/goals HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
                    Content-Length: 17\r\n\r\n{\"counter_id\": 2";

/// Callers in the middle of a body that the gate reads before it sends anything.
fn waiting(gate: &Gate, number: usize) -> Vec<Caller> {
    let mut callers: Vec<_> = (0..number).map(|_| gate.connect("app")).collect();
    callers.iter_mut().for_each(|caller| caller.send(HALF));
    gate.until_metric(&["in_flight_requests", "caller=\"one\""], f64::from(u32::try_from(number).unwrap()));
    callers
}

/// Puts another configuration into use.
fn reload(gate: &Gate, from: &str, to: &str) {
    let config = gate.config();
    assert!(config.contains(from), "{config}");
    gate.replace_config(&config.replace(from, to));
    gate.signal("HUP");
    gate.until_log(&["configuration reloaded"]);
}

fn finish(callers: &mut [Caller]) -> Vec<String> {
    let finish = |caller: &mut Caller| {
        caller.send("}");
        caller.answer().summary()
    };
    callers.iter_mut().map(finish).collect()
}

#[test]
fn a_caller_that_is_gone_sends_nothing_more() {
    let upstream = Upstream::plain();
    let gate = Gate::start(&upstream, CALLERS);
    let mut callers = waiting(&gate, 20);
    reload(&gate, "id: one, match: {listener: app}", "id: one, match: {source: [192.0.2.7]}");
    gate.replace_token("crm", NEW_TOKEN);
    gate.until_log(&["token reloaded"]);
    assert_eq!(finish(&mut callers), ["401 unknown_caller"; 20]);
    assert_eq!(upstream.connections(), 0, "nothing was sent, with whatever token");
    gate.until_metric(&["in_flight_requests"], 0.0);
    gate.until_metric(&["auth_failures_total", "caller=\"one\"", "unknown_caller", "code=\"401\""], 20.0);
}

#[test]
fn a_request_that_a_caller_may_no_longer_make_is_refused() {
    for (from, to, expected) in [
        (
            "scopes: [metrika:read, metrika:write], tokens: [analytics, crm]",
            "scopes: [metrika:read], tokens: [analytics]",
            "403 scope_denied",
        ),
        ("counters: [1, 2]", "counters: [1]", "403 counter_denied"),
        ("counters: [1, 2]", "counters: [2]", "403 counter_denied"),
        ("{name: app, ", "{name: app, require_header: 'X-Here: 1', ", "403 header_required"),
    ] {
        let upstream = Upstream::plain();
        let gate = Gate::start(&upstream, CALLERS);
        let mut callers = waiting(&gate, 2);
        reload(&gate, from, to);
        assert_eq!(finish(&mut callers), [expected; 2], "{to}");
        assert_eq!(upstream.connections(), 0, "{to}");
    }
}

#[test]
fn a_new_rule_applies_to_requests_not_yet_sent_upstream() {
    let upstream = Upstream::plain();
    let gate = Gate::start(&upstream, &CALLERS.replace(", counters: [1, 2]", ""));
    let slow = "POST /management/v1/counter/1/goals HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
                Expect: 100-continue\r\nContent-Length: 17\r\n\r\n";
    let mut caller = gate.connect("app");
    // Without rules its body streams, so that nothing waits.
    caller.send(slow.replace("Expect: 100-continue\r\n", ""));
    until("it is at Metrica", || upstream.requests().len() == 1);
    reload(&gate, "tokens: [analytics, crm]", "tokens: [analytics, crm], counters: [1]");
    caller.send("{\"counter_id\": 1}");
    assert_eq!(caller.answer().summary(), "200", "what has left has left");
    caller.send(slow.replace("Expect: 100-continue\r\n", ""));
    caller.send("{\"counter_id\": 2}");
    assert_eq!(caller.answer().summary(), "403 counter_denied");
}

#[test]
fn a_token_that_was_replaced_is_sent_no_more() {
    let upstream = Upstream::plain();
    let gate = Gate::start(&upstream, CALLERS);
    let mut callers = waiting(&gate, 20);
    gate.replace_token("crm", NEW_TOKEN);
    gate.until_log(&["token reloaded"]);
    assert_eq!(finish(&mut callers), ["200"; 20]);
    let requests = upstream.requests();
    assert_eq!(requests.iter().filter(|head| head.contains(NEW_TOKEN)).count(), 20);
    assert!(!requests.iter().any(|head| head.contains(WRITE_TOKEN) || head.contains(READ_TOKEN)), "{requests:?}");
}

#[test]
fn a_token_that_is_gone_is_not_sent() {
    let upstream = Upstream::plain();
    let gate = Gate::start(&upstream, CALLERS);
    let mut callers = waiting(&gate, 3);
    std::fs::remove_file(gate.file("crm")).unwrap();
    gate.until_log(&["the token file was removed"]);
    assert_eq!(finish(&mut callers), ["503 token_unavailable"; 3]);
    assert_eq!(upstream.requests(), Vec::<String>::new());
}

/// The wait for a connection is one too.
#[test]
fn a_request_that_waits_for_a_connection_is_decided_again() {
    let go = Signal::default();
    let release = go.clone();
    let upstream = Upstream::run(move |conversation| {
        while let Some(head) = conversation.request_head() {
            if head.contains("?slow") {
                release.wait("the test lets the answer go");
            }
            conversation.answer("200 OK", "application/json", "{}");
        }
    });
    let upstream_of =
        "\nupstream: {ca_file: '{ca}', connect_to: '{upstream}', connections: 1, timeouts: {connect: 15s}}\n";
    let config = format!("{CALLERS}{upstream_of}").replace(", counters: [1, 2]", "");
    let gate = Gate::plan(&upstream, &config).workers(1).start();
    let get = |query: &str| format!("GET /management/v1/counters{query} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let mut first = gate.connect("app");
    first.send(get("?slow"));
    until("the first is at Metrica", || upstream.requests().len() == 1);
    let mut second = gate.connect("app");
    second.send(get("?second"));
    gate.until_metric(&["in_flight_requests", "caller=\"one\""], 2.0);
    std::thread::sleep(Duration::from_millis(50));
    gate.replace_token("analytics", NEW_TOKEN);
    gate.until_log(&["token reloaded"]);
    let mut third = gate.connect("app");
    third.send(get("?third"));
    gate.until_metric(&["in_flight_requests", "caller=\"one\""], 3.0);
    reload(&gate, "id: one, match: {listener: app}", "id: renamed, match: {listener: app}");
    go.give();
    assert_eq!(first.answer().summary(), "200");
    assert_eq!((second.answer().summary().as_str(), third.answer().summary().as_str()), ("200", "200"));
    let requests = upstream.requests();
    let with = |query: &str| requests.iter().find(|head| head.contains(query)).unwrap();
    assert!(with("?slow").contains(READ_TOKEN), "what has left has left");
    assert!(with("?second").contains(NEW_TOKEN) && with("?third").contains(NEW_TOKEN));
    // The line and the counts are those of the caller that it is now.
    gate.until_metric(&["requests_total", "caller=\"renamed\"", "code=\"200\""], 2.0);
    gate.until_metric(&["in_flight_requests"], 0.0);
}

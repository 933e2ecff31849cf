//! Limits: a request beyond one is refused with its reason, and everything else goes on.

use std::time::{Duration, Instant};

use crate::harness::gate::until;
use crate::harness::{Caller, Gate, Signal, TWO_CALLERS, Upstream};

const GET: &str = "GET /management/v1/counters HTTP/1.1\r\nHost: localhost\r\n\r\n";

fn ask(caller: &mut Caller) -> String {
    caller.send(GET);
    caller.answer().summary()
}

/// An upstream that holds every answer back until `go`.
fn holding(go: &Signal) -> Upstream {
    let go = go.clone();
    Upstream::run(move |conversation| {
        while conversation.request_head().is_some() {
            go.wait("the test lets the upstream answer");
            conversation.answer("200 OK", "application/json", "{}");
        }
    })
}

#[test]
fn a_connection_beyond_the_limit_is_refused_with_a_response() {
    let upstream = Upstream::plain();
    let gate = Gate::start(&upstream, &format!("{TWO_CALLERS}\nlimits: {{connections: 3}}\n"));
    // The limit is over all listeners and workers.
    let mut callers: Vec<_> = ["app", "crm", "app"].map(|listener| gate.connect(listener)).into();
    for caller in &mut callers {
        assert_eq!(ask(caller), "200");
    }
    for _ in 0..5 {
        let mut refused = gate.connect("app");
        refused.try_send(GET);
        let answer = refused.answer();
        assert_eq!((answer.summary().as_str(), answer.field("retry-after")), ("503 overloaded", Some("1")));
        assert_eq!(answer.field("connection"), Some("close"));
        assert!(answer.text().starts_with(r#"{"errors":[{"error_type":"backend_error","#), "{}", answer.text());
        assert!(refused.is_closed());
    }
    gate.until_metric(&["connections_refused_total", "limit=\"connections\""], 5.0);
    assert_eq!(gate.metric(&["connections_refused_total", "limit=\"connections_per_peer\""]), 0.0);
    assert_eq!(upstream.requests().len(), 3);
    for caller in &mut callers {
        assert_eq!(ask(caller), "200", "those within the limit notice nothing");
    }
    drop(callers.pop());
    until("a place is free", || ask(&mut gate.connect("app")) == "200");
}

/// R-13: a peer cannot take all places, on any listener and worker; `server/connection_limits.rs` defines a peer.
#[test]
fn a_connection_beyond_the_limit_of_its_peer_is_refused_with_a_response() {
    let upstream = Upstream::plain();
    let config = "
listeners:
  - {name: app, address: '127.0.0.1:0'}
  - {name: other, address: '127.0.0.1:0'}
  - {name: socket, unix: {path: '{folder}/gate.sock'}}
callers:
  - {id: app, match: {source: [127.0.0.0/8]}, scopes: [metrika:read], tokens: [analytics]}
  - {id: socket, match: {listener: socket}, scopes: [metrika:read], tokens: [analytics]}
limits: {connections_per_peer: 3}
";
    let gate = Gate::plan(&upstream, config).workers(2).start();
    let mut callers: Vec<_> = ["app", "other", "app"].map(|listener| gate.connect(listener)).into();
    callers.extend((0..3).map(|_| Caller::connect_from("127.0.0.2", gate.place("app"))));
    callers.extend((0..3).map(|_| gate.connect("socket")));
    for caller in &mut callers {
        assert_eq!(ask(caller), "200");
    }
    for listener in ["app", "other", "socket", "app"] {
        let mut refused = gate.connect(listener);
        refused.try_send(GET);
        assert_eq!(refused.answer().summary(), "503 overloaded", "{listener}");
    }
    assert_eq!(Caller::connect_from("127.0.0.2", gate.place("other")).answer().summary(), "503 overloaded");
    gate.until_metric(&["connections_refused_total", "limit=\"connections_per_peer\""], 5.0);
    assert_eq!(
        ask(&mut Caller::connect_from("127.0.0.3", gate.place("app"))),
        "200",
        "another peer has its own places"
    );
    callers.remove(0);
    until("a place of the peer is free", || ask(&mut gate.connect("other")) == "200");
    assert!(callers.iter_mut().all(|caller| ask(caller) == "200"), "those within the limit notice nothing");
}

/// R-13: the number of fields has a limit of its own, up and down.
#[test]
fn a_request_has_so_many_fields() {
    let upstream = Upstream::plain();
    let with = |fields: usize| {
        // `Host` is one of them.
        let rest: String = (1..fields).map(|number| format!("A{number}: b\r\n")).collect();
        format!("GET /management/v1/counters HTTP/1.1\r\nHost: localhost\r\n{rest}\r\n")
    };
    for (limits, most) in
        [("{}", 100), ("{header_fields: 1}", 1), ("{header_fields: 7}", 7), ("{header_fields: 1000}", 1000)]
    {
        let gate = Gate::start(&upstream, &format!("{TWO_CALLERS}\nlimits: {limits}\n"));
        assert_eq!(gate.send("app", with(most)).summary(), "200", "{limits}");
        assert_eq!(gate.send("app", with(most + 1)).summary(), "431 headers_too_large", "{limits}");
        assert_eq!(gate.send("app", with(most * 3)).summary(), "431 headers_too_large", "{limits}");
    }
    assert_eq!(upstream.requests().len(), 4);
}

#[test]
fn requests_beyond_the_upstreams_connections_wait_for_their_turn() {
    let go = Signal::default();
    let upstream = holding(&go);
    let config = format!(
        "{TWO_CALLERS}\nupstream: {{ca_file: '{{ca}}', connect_to: '{{upstream}}', connections: 2, timeouts: {{connect: 20s}}}}\n"
    );
    let gate = Gate::plan(&upstream, &config).workers(1).start();
    let mut callers: Vec<_> = (0..6).map(|_| gate.connect("app")).collect();
    callers.iter_mut().for_each(|caller| caller.send(GET));
    gate.until_metric(&["in_flight", "reports"], 6.0);
    until("as many as may are sent", || upstream.requests().len() == 2);
    go.give();
    for caller in &mut callers {
        assert_eq!(caller.answer().summary(), "200");
    }
    assert_eq!((upstream.requests().len(), upstream.connections()), (6, 2));
}

#[test]
fn a_request_that_waits_too_long_for_its_turn_is_refused() {
    let go = Signal::default();
    let upstream = holding(&go);
    let config = format!(
        "{TWO_CALLERS}\nupstream: {{ca_file: '{{ca}}', connect_to: '{{upstream}}', connections: 1, timeouts: {{connect: 300ms}}}}\n"
    );
    let gate = Gate::plan(&upstream, &config).workers(1).start();
    let mut first = gate.connect("app");
    first.send(GET);
    until("the first is sent", || upstream.requests().len() == 1);
    let start = Instant::now();
    let answer = gate.get("app", "/management/v1/counters");
    assert_eq!((answer.summary().as_str(), answer.field("retry-after")), ("503 overloaded", Some("1")));
    assert!(start.elapsed() >= Duration::from_millis(290));
    gate.until_metric(&["upstream_errors_total", "kind=\"saturated\""], 1.0);
    // A caller that leaves while it waits loses its turn.
    let mut leaving = gate.connect("app");
    leaving.send(GET);
    gate.until_metric(&["in_flight", "reports"], 2.0);
    drop(leaving);
    gate.until_metric(&["in_flight", "reports"], 1.0);
    go.give();
    assert_eq!(first.answer().summary(), "200");
    assert_eq!(ask(&mut first), "200");
    assert_eq!(gate.get("app", "/management/v1/counters").summary(), "200");
    assert_eq!((upstream.requests().len(), upstream.connections()), (3, 1));
}

#[test]
fn a_request_that_fails_gives_its_turn_back() {
    let upstream = Upstream::run(|conversation| {
        conversation.request_head();
        if conversation.number < 5 {
            return conversation.close();
        }
        conversation.answer("200 OK", "application/json", "{}");
    });
    let config = format!(
        "{TWO_CALLERS}\nupstream: {{ca_file: '{{ca}}', connect_to: '{{upstream}}', connections: 1, timeouts: {{connect: 1s}}}}\n"
    );
    let gate = Gate::plan(&upstream, &config).workers(1).start();
    let summaries: Vec<_> = (0..6).map(|_| gate.get("app", "/management/v1/counters").summary()).collect();
    assert_eq!(summaries, [vec!["502 upstream_closed"; 5], vec!["200"]].concat());
}

/// R-13.
#[test]
fn idle_connections_are_cheap() {
    let upstream = Upstream::plain();
    let gate = Gate::start(&upstream, TWO_CALLERS);
    assert_eq!(gate.get("app", "/management/v1/counters").summary(), "200");
    let before = gate.resident_bytes();
    let mut callers: Vec<_> = (0..500).map(|_| gate.connect("app")).collect();
    for caller in &mut callers {
        assert_eq!(ask(caller), "200");
    }
    let each = gate.resident_bytes().saturating_sub(before) / 500;
    assert!(each < 10 * 1024, "{each} bytes each");
    let (used, start) = (gate.processor_time(), Instant::now());
    until("two seconds have passed", || start.elapsed() > Duration::from_secs(2));
    let used = gate.processor_time() - used;
    assert!(used <= Duration::from_millis(50), "idle, it used {used:?}");
    assert!(callers.iter_mut().all(|caller| ask(caller) == "200"));
}

/// R-13: at the limit of descriptors the gate waits, without spinning and on every kind of listener, and recovers.
#[test]
fn a_gate_without_descriptors_waits_and_recovers() {
    let upstream = Upstream::plain();
    let config = TWO_CALLERS.replace(
        "callers:",
        "  - {name: socket, unix: {path: '{folder}/gate.sock'}}\ncallers:\n  \
         - {id: socket, match: {listener: socket}, scopes: [metrika:read], tokens: [analytics]}",
    );
    let gate = Gate::start(&upstream, &config);
    gate.allow_descriptors(64);
    let mut working = gate.connect("app");
    assert_eq!(ask(&mut working), "200");
    // More than there are descriptors; the kernel's queue takes the rest.
    let idle: Vec<_> = (0..100).map(|_| gate.connect("app")).collect();
    gate.until_log(&["accept failed"]);
    let (used, start) = (gate.processor_time(), Instant::now());
    until("two seconds have passed", || start.elapsed() > Duration::from_secs(2));
    let used = gate.processor_time() - used;
    assert!(used < Duration::from_millis(500), "while it waits for descriptors, it used {used:?}");
    let mut waiting = gate.connect("socket");
    waiting.send(GET);
    let said = gate.log().iter().filter(|line| line.contains("accept failed")).count();
    assert!(said < 200, "{said} log lines");
    assert_eq!(ask(&mut working), "200", "who is connected, is served");
    drop(idle);
    assert_eq!(waiting.answer().summary(), "200", "who waited in the kernel's queue is served now");
    until("it accepts again", || {
        let mut caller = gate.connect("app");
        caller.try_send(GET) && caller.try_answer(false).is_ok_and(|answer| answer.summary() == "200")
    });
    assert_eq!(gate.admin("/livez").status, 200);
}

#[test]
fn a_lack_of_descriptors_makes_the_upstream_unreachable_for_a_while() {
    let upstream = Upstream::plain();
    let gate = Gate::plan(&upstream, TWO_CALLERS).workers(1).start();
    gate.allow_descriptors(64);
    let mut first = gate.connect("app");
    let idle: Vec<_> = (0..100).map(|_| gate.connect("app")).collect();
    gate.until_log(&["accept failed"]);
    assert_eq!(ask(&mut first), "503 upstream_unreachable");
    drop(idle);
    until("it connects again", || ask(&mut first) == "200");
}

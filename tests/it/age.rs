//! The age of connections to the upstream is bounded, however busy they are, and costs no request.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::harness::gate::until;
use crate::harness::{Caller, Gate, Signal, TWO_CALLERS, Upstream};
use crate::http2::{fake, plan, relay};

const GET: &str = "GET /management/v1/counters HTTP/1.1\r\nHost: localhost\r\n\r\n";

fn with_age(upstream: &Upstream, max_age: &str) -> Gate {
    let config =
        format!("{TWO_CALLERS}\nupstream: {{ca_file: '{{ca}}', connect_to: '{{upstream}}', max_age: {max_age}}}\n");
    Gate::plan(upstream, &config).workers(1).start()
}

/// Asks without a pause until there were so many connections; how long that took.
fn busy_until(caller: &mut Caller, wanted: usize, connections: impl Fn() -> usize) -> Duration {
    let start = Instant::now();
    until("another connection is opened", || {
        caller.send(GET);
        assert_eq!(caller.answer().summary(), "200");
        connections() >= wanted
    });
    start.elapsed()
}

#[test]
fn a_busy_connection_is_left_in_time() {
    let upstream = Upstream::plain();
    let gate = with_age(&upstream, "1s");
    let took = busy_until(&mut gate.connect("app"), 4, || upstream.connections());
    assert!(took >= Duration::from_millis(2400), "each is used for four fifths of its age at least: {took:?}");
}

#[test]
fn a_busy_connection_of_http2_is_left_in_time() {
    let fake = fake(true);
    let (place, connections) = relay(fake.address().to_string());
    let gate = plan(&place, fake.ca_pem(), ", max_age: 1s").start();
    let took = busy_until(&mut gate.connect("app"), 4, || connections.load(Ordering::SeqCst));
    assert!(took >= Duration::from_millis(2400), "{took:?}");
}

#[test]
fn what_is_under_way_on_an_old_connection_comes_to_its_end() {
    let release = Signal::default();
    let released = release.clone();
    let upstream = Upstream::run(move |conversation| {
        while conversation.request_head().is_some() {
            if conversation.number > 0 {
                conversation.answer("200 OK", "application/json", "{}");
                continue;
            }
            conversation.write("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nabc");
            released.wait("the connection is old");
            conversation.write("def");
        }
    });
    let gate = with_age(&upstream, "200ms");
    let mut caller = gate.connect("app");
    let start = Instant::now();
    caller.send(GET);
    assert_eq!(caller.head().unwrap().0, 200);
    until("the connection is old", || start.elapsed() > Duration::from_secs(1));
    release.give();
    gate.until_log(&["\"access\"", "\"response_bytes\":6", "\"outcome\":\"complete\""]);
    assert_eq!(gate.get("app", "/management/v1/counters").text(), "{}");
    assert_eq!(upstream.connections(), 2);
}

#[test]
fn a_name_that_is_not_found_says_that_the_hosts_file_is_not_used() {
    let upstream = Upstream::plain();
    let config = format!("{TWO_CALLERS}\nupstream: {{url: 'https://metrica.invalid'}}\n");
    let gate = Gate::start(&upstream, &config);
    let answer = gate.get("app", "/management/v1/counters");
    assert_eq!(answer.summary(), "503 upstream_unreachable");
    let line = gate.until_log(&["request failed", "upstream_unreachable"]);
    // Where a resolver says nothing, the time is over first.
    let said = "the hosts file is used for the name of upstream.connect_to only";
    assert!(line.contains(said) || line.contains("took longer"), "{line}");
}

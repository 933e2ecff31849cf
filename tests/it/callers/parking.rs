//! A connection whose caller is idle is parked: it costs little, and everything else is as before.

use std::sync::mpsc;
use std::time::{Duration, Instant};

use crate::harness::gate::until;
use crate::harness::{Caller, Gate, TWO_CALLERS, Upstream};

const GET: &str = "GET /management/v1/counters HTTP/1.1\r\nHost: localhost\r\n\r\n";
const UPLOAD: &str = "POST /management/v1/counter/1/offline_conversions/upload HTTP/1.1\r\nHost: localhost\r\n\
    Content-Type: multipart/form-data; boundary=b\r\nContent-Length: 5\r\n\r\n";

/// A connection whose caller is idle after `requests` requests; after the first one, a long pause is expected.
fn idle(gate: &Gate, listener: &str, requests: usize) -> Caller {
    let mut caller = gate.connect(listener);
    for _ in 0..requests {
        caller.send(GET);
        assert_eq!(caller.answer().summary(), "200");
    }
    caller
}

#[test]
fn a_parked_connection_serves_every_kind_of_request() {
    let (bodies, kept) = mpsc::channel();
    let upstream = Upstream::run(move |conversation| {
        while let Some(head) = conversation.request_head() {
            bodies.send(conversation.request_body(&head)).unwrap();
            conversation.answer("200 OK", "application/json", "{}");
        }
    });
    let gate = Gate::start(&upstream, TWO_CALLERS);
    let mut caller = idle(&gate, "crm", 1);
    for byte in GET.as_bytes() {
        caller.send([*byte]);
        std::thread::yield_now();
    }
    assert_eq!(caller.answer().summary(), "200", "in pieces");
    let mut caller = idle(&gate, "crm", 1);
    caller.send(GET.repeat(3));
    assert!((0..3).all(|_| caller.answer().summary() == "200"), "pipelined");
    let mut caller = idle(&gate, "crm", 1);
    caller.send(UPLOAD);
    caller.send("he");
    caller.send("llo");
    assert_eq!(caller.answer().summary(), "200", "with a body");
    assert_eq!(kept.try_iter().last().unwrap(), b"hello");
    let mut caller = idle(&gate, "crm", 1);
    let long =
        format!("GET /management/v1/counters?search_string={} HTTP/1.1\r\nHost: localhost\r\n\r\n", "a".repeat(9000));
    caller.send(long);
    assert_eq!(caller.answer().summary(), "200", "longer than what is read first");
    let mut caller = idle(&gate, "crm", 1);
    caller.send("GET / HTTP/1.1\nHost: localhost\n\n");
    assert_eq!(caller.answer().status, 400, "malformed");
    assert!(caller.is_closed());
}

/// A request may arrive at any time after the response, also when the connection is being parked.
#[test]
fn a_request_at_any_time_after_the_response_is_served() {
    let upstream = Upstream::plain();
    let gate = Gate::start(&upstream, TWO_CALLERS);
    for round in 0..400 {
        let mut caller = gate.connect("app");
        caller.send(GET);
        let begun = Instant::now();
        // At any time around that of the first response.
        until("the time has come", || begun.elapsed() > Duration::from_micros(round * 5));
        caller.send(GET);
        assert_eq!([caller.answer().summary(), caller.answer().summary()], ["200", "200"], "{round}");
    }
}

#[test]
fn a_parked_connection_ends_as_any_other() {
    let upstream = Upstream::plain();
    let mut gate = Gate::start(&upstream, &format!("{TWO_CALLERS}timeouts: {{keep_alive: 1s}}\n"));
    let open = &["connections_open{", "\"app\""];
    let before = gate.metric(open);
    let caller = idle(&gate, "app", 1);
    gate.until_metric(open, before + 1.0);
    drop(caller);
    gate.until_metric(open, before);
    let mut caller = idle(&gate, "app", 1);
    let start = Instant::now();
    assert!(caller.is_closed(), "by its timeout");
    assert!(start.elapsed() >= Duration::from_millis(900), "{:?}", start.elapsed());
    let mut caller = idle(&gate, "app", 1);
    let start = Instant::now();
    gate.signal("TERM");
    assert!(caller.is_closed(), "by a drain");
    assert_eq!(gate.wait().code(), Some(0));
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
}

/// what callers that pause for long gave back is used by others. After a short pause, another one is expected.
#[test]
fn the_memory_of_idle_callers_is_used_by_others() {
    let upstream = Upstream::plain();
    let gate = Gate::plan(&upstream, TWO_CALLERS).workers(1).start();
    drop(idle(&gate, "app", 2));
    let start = gate.resident_bytes();
    let first: Vec<_> = (0..400).map(|_| idle(&gate, "app", 2)).collect();
    let before = gate.resident_bytes();
    let now = Instant::now();
    until("six seconds have passed", || now.elapsed() > Duration::from_secs(6));
    let second: Vec<_> = (0..400).map(|_| idle(&gate, "app", 2)).collect();
    let (busy, idle) = ((before - start) / 400, gate.resident_bytes().saturating_sub(before) / 400);
    assert!(idle < busy / 2, "{busy} bytes each that sent just now, {idle} each that followed idle ones");
    drop((first, second));
}

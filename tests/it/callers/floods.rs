//! Floods of a caller's: memory stays bounded, nobody else notices, and afterwards everything is as before.

use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::harness::gate::{count, until};
use crate::harness::{Caller, Gate, TWO_CALLERS, Upstream};

const GET: &str = "GET /management/v1/counters HTTP/1.1\r\nHost: localhost\r\n\r\n";
const KIBIBYTE: u64 = 1024;
const MEBIBYTE: u64 = 1024 * KIBIBYTE;

fn is_served(gate: &Gate) {
    assert_eq!(gate.get("crm", "/management/v1/counters").summary(), "200");
}

/// The gate is at rest: in a second it uses next to no processor.
fn is_at_rest(gate: &Gate) {
    let (used, start) = (gate.processor_time(), Instant::now());
    until("a second has passed", || start.elapsed() > Duration::from_secs(1));
    let used = gate.processor_time() - used;
    assert!(used <= Duration::from_millis(150), "at rest, it used {used:?}");
}

/// many headers that never end hold no more than the limit of a header, and not for longer than its time.
#[test]
fn half_headers_are_bounded_in_memory_and_time() {
    const CALLERS: usize = 200;
    let upstream = Upstream::plain();
    let gate = Gate::start(&upstream, &format!("{TWO_CALLERS}\ntimeouts: {{request_headers: 2s}}\n"));
    is_served(&gate);
    let before = gate.resident_bytes();
    let half = format!("{}A: {}\r\n", GET.trim_end(), "x".repeat(60_000)).replacen("localhost", "localhost\r\n", 1);
    for round in 0..2 {
        let mut callers: Vec<_> = (0..CALLERS).map(|_| gate.connect("app")).collect();
        callers.iter_mut().for_each(|caller| caller.send(&half));
        is_served(&gate);
        let start = Instant::now();
        for caller in &mut callers {
            assert!(caller.is_closed(), "it ends without an answer");
            assert!(start.elapsed() < Duration::from_secs(10), "it ends in its time");
        }
        let each = gate.peak_resident_bytes().saturating_sub(before) / u64::try_from(CALLERS).unwrap();
        assert!(each < 200 * KIBIBYTE, "round {round}: {each} bytes each");
    }
    is_served(&gate);
    assert_eq!(upstream.requests().len(), 4);
}

/// fields without end are answered at the limit, and leave nothing behind.
#[test]
fn a_flood_of_fields_is_answered_at_its_limit() {
    let upstream = Upstream::plain();
    let gate = Gate::start(&upstream, TWO_CALLERS);
    is_served(&gate);
    let before = gate.resident_bytes();
    let fields = format!("A: {}\r\n", "x".repeat(1000)).repeat(1000);
    for _ in 0..30 {
        let mut caller = gate.connect("app");
        caller.try_send(format!("{}\r\n", GET.trim_end()));
        caller.try_send(&fields);
        assert_eq!(caller.answer().summary(), "431 headers_too_large");
    }
    let many = format!("{}\r\n{}\r\n", GET.trim_end(), "A:\r\n".repeat(10_000));
    for _ in 0..30 {
        assert_eq!(gate.send("app", &many).summary(), "431 headers_too_large");
    }
    let grown = gate.peak_resident_bytes().saturating_sub(before);
    assert!(grown < 16 * MEBIBYTE, "it grew by {grown}");
    gate.until_metric(&["denied_total", "headers_too_large"], 60.0);
    is_served(&gate);
}

/// requests without end from a caller that reads no answer: the gate stops reading, too.
#[test]
fn requests_are_not_read_while_their_answers_are_not_read() {
    let upstream = Upstream::run(|conversation| {
        let body = "x".repeat(256 * 1024);
        while conversation.request_head().is_some() {
            conversation.answer("200 OK", "text/plain", &body);
        }
    });
    let gate = Gate::start(&upstream, TWO_CALLERS);
    is_served(&gate);
    let before = gate.resident_bytes();
    let mut caller = TcpStream::connect(gate.place("app")).unwrap();
    caller.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
    let piece = GET.repeat(500);
    let mut sent = 0;
    let start = Instant::now();
    while let Ok(()) = caller.write_all(piece.as_bytes()) {
        sent += piece.len();
        assert!(sent < 64 << 20 && start.elapsed() < Duration::from_secs(20), "{sent} bytes were taken");
    }
    let grown = gate.peak_resident_bytes().saturating_sub(before);
    assert!(grown < 16 * MEBIBYTE, "it grew by {grown}");
    assert!(upstream.requests().len() < 100, "{} were sent on", upstream.requests().len());
    is_at_rest(&gate);
    is_served(&gate);
    drop(caller);
    gate.until_metric(&["in_flight_requests"], 0.0);
}

/// the same with refusals, for which nobody is asked.
#[test]
fn refusals_that_are_not_read_are_not_made_without_end() {
    let upstream = Upstream::plain();
    let gate = Gate::start(&upstream, TWO_CALLERS);
    is_served(&gate);
    let before = gate.resident_bytes();
    let mut caller = TcpStream::connect(gate.place("app")).unwrap();
    socket2::SockRef::from(&caller).set_recv_buffer_size(4096).unwrap();
    caller.set_write_timeout(Some(Duration::from_secs(1))).unwrap();
    let piece = "GET /a HTTP/1.1\r\nHost: evil.example\r\n\r\n".repeat(1000);
    let start = Instant::now();
    let mut sent = 0;
    while start.elapsed() < Duration::from_secs(5) && caller.write_all(piece.as_bytes()).is_ok() {
        sent += piece.len();
    }
    let grown = gate.peak_resident_bytes().saturating_sub(before);
    assert!(grown < 16 * MEBIBYTE, "it grew by {grown} after {sent} bytes");
    is_served(&gate);
    drop(caller);
    gate.until_metric(&["in_flight_requests"], 0.0);
    assert_eq!(upstream.requests().len(), 2);
}

/// connections that come and go leave nothing behind, and their places are free again.
#[test]
fn connections_that_come_and_go_leave_nothing() {
    let upstream = Upstream::plain();
    let gate = Gate::start(&upstream, &format!("{TWO_CALLERS}\nlimits: {{connections_per_peer: 50}}\n"));
    is_served(&gate);
    let churn = || {
        for round in 0..40 {
            let callers: Vec<_> = (0..40).map(|_| TcpStream::connect(gate.place("app")).unwrap()).collect();
            for (number, mut caller) in callers.into_iter().enumerate() {
                // Some send nothing, some half a header, and some leave with a reset before their response.
                match (round + number) % 3 {
                    0 => {}
                    1 => drop(caller.write_all(b"GET / HTTP/1.1\r\nHo")),
                    _ => {
                        let _ = caller.write_all(GET.as_bytes());
                        let _ = socket2::SockRef::from(&caller).set_linger(Some(Duration::ZERO));
                    }
                }
            }
        }
    };
    churn();
    let before = gate.resident_bytes();
    churn();
    let grown = gate.resident_bytes().saturating_sub(before);
    assert!(grown < 8 * MEBIBYTE, "it grew by {grown}");
    gate.until_metric(&["in_flight_requests"], 0.0);
    until("every place is free again", || {
        let mut callers: Vec<_> = (0..50).map(|_| gate.connect("app")).collect();
        let served = |caller: &mut Caller| {
            caller.try_send(GET) && caller.try_answer(false).is_ok_and(|answer| answer.summary() == "200")
        };
        callers.iter_mut().filter_map(|caller| served(caller).then_some(())).count() == 50
    });
    assert!(count(upstream.requests().len()) >= 50.0);
}

//! `timeouts.request`: a request as a whole, however busily it goes on.

use std::time::{Duration, Instant};

use crate::harness::gate::until;
use crate::harness::{Gate, Signal, TWO_CALLERS, Upstream};

const GET: &str = "GET /management/v1/counters HTTP/1.1\r\nHost: localhost\r\n\r\n";
const UPLOAD: &str = "POST /management/v1/counter/1/offline_conversions/upload HTTP/1.1\r\nHost: localhost\r\n";
const LIMIT: Duration = Duration::from_millis(500);

fn with(timeouts: &str) -> String {
    format!("{TWO_CALLERS}\ntimeouts: {{request: 500ms{timeouts}}}\n")
}

fn took_the_limit(start: Instant) {
    let took = start.elapsed();
    assert!(took >= LIMIT - Duration::from_millis(10) && took < LIMIT + Duration::from_secs(5), "{took:?}");
}

/// the upstream does not respond in time; the caller gets an error, and the request is cancelled.
#[test]
fn a_deadline_before_the_response_is_reported_to_the_caller() {
    let ended = Signal::default();
    let noticed = ended.clone();
    let upstream = Upstream::run(move |conversation| {
        while let Some(head) = conversation.request_head() {
            if head.contains("?slow") {
                while conversation.discard() > 0 {}
                return noticed.give();
            }
            conversation.answer("200 OK", "application/json", "{}");
        }
    });
    let gate = Gate::start(&upstream, &with(""));
    let mut caller = gate.connect("app");
    caller.send(GET);
    assert_eq!(caller.answer().summary(), "200");
    let start = Instant::now();
    caller.send(GET.replace("counters", "counters?slow"));
    let answer = caller.answer();
    assert_eq!((answer.summary().as_str(), answer.field("retry-after")), ("504 request_timeout", None));
    took_the_limit(start);
    ended.wait("the request is given up");
    // The time restarts with each request.
    for _ in 0..4 {
        std::thread::sleep(LIMIT / 4);
        caller.send(GET);
        assert_eq!(caller.answer().summary(), "200");
    }
    gate.until_metric(&["denied_total", "request_timeout"], 1.0);
    gate.until_metric(&["in_flight_requests"], 0.0);
}

/// An error's body is read ahead of its head and never completes: the gate's own response is the one that is logged
/// and counted.
#[test]
fn while_an_error_is_read_the_answer_is_the_gates() {
    let upstream = Upstream::run(|conversation| {
        conversation.request_head();
        conversation.write("HTTP/1.1 403 Forbidden\r\nContent-Length: 100\r\n\r\n{\"errors\"");
        while conversation.discard() > 0 {}
    });
    let gate = Gate::start(&upstream, &with(""));
    assert_eq!(gate.get("app", "/management/v1/counters").summary(), "504 request_timeout");
    let line: serde_json::Value = serde_json::from_str(&gate.until_log(&["\"access\""])).unwrap();
    assert_eq!((&line["status"], &line["upstream_status"]), (&504.into(), &403.into()), "{line}");
    assert_eq!((&line["origin"], &line["reason"]), (&"gate".into(), &"request_timeout".into()), "{line}");
    gate.until_metric(&["denied_total", "request_timeout"], 1.0);
    assert_eq!(gate.metric(&["auth_failures_total", "origin=\"upstream\""]), 0.0);
}

/// a body that never stalls and never ends.
#[test]
fn a_body_that_drips_ends() {
    let upstream = Upstream::run(|conversation| {
        if conversation.request_head().is_some() {
            while conversation.discard() > 0 {}
        }
    });
    let gate = Gate::start(&upstream, &with(""));
    for framing in ["Content-Length: 100000", "Transfer-Encoding: chunked"] {
        let start = Instant::now();
        let mut caller = gate.connect("crm");
        caller.send(format!("{UPLOAD}{framing}\r\n\r\n"));
        let piece = if framing.starts_with('T') { "1\r\na\r\n" } else { "a" };
        while start.elapsed() < LIMIT - Duration::from_millis(100) {
            std::thread::sleep(Duration::from_millis(50));
            caller.send(piece);
        }
        assert_eq!(caller.answer().summary(), "504 request_timeout", "{framing}");
        took_the_limit(start);
        until("the connection ends", || {
            std::thread::sleep(Duration::from_millis(20));
            !caller.try_send(piece)
        });
    }
    gate.until_metric(&["in_flight_requests"], 0.0);
}

/// a response that has begun cannot be replaced; it is cut, and does not look complete.
#[test]
fn a_deadline_after_the_head_cuts_the_response() {
    let upstream = Upstream::run(|conversation| {
        conversation.request_head();
        conversation.write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
        while conversation.write("1\r\na\r\n") {
            std::thread::sleep(Duration::from_millis(20));
        }
    });
    let gate = Gate::start(&upstream, &with(""));
    let mut caller = gate.connect("app");
    let start = Instant::now();
    caller.send(GET);
    let answer = caller.try_answer(false);
    assert!(answer.as_ref().is_err_and(|error| !error.contains("unavailable")), "{answer:?}");
    took_the_limit(start);
    gate.until_metric(&["in_flight_requests"], 0.0);
}

/// the header counts, however it comes; and a caller that never reads the answer gains nothing.
#[test]
fn the_header_and_the_reading_count() {
    let upstream = Upstream::run(|conversation| {
        conversation.request_head();
        conversation.write("HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n");
        let piece = vec![b'x'; 1 << 20];
        while conversation.write(&piece) {}
    });
    let gate = Gate::start(&upstream, &with(", request_headers: 20s, body_idle: 20s"));
    let start = Instant::now();
    let mut slow = gate.connect("app");
    until("the gate closes the connection", || {
        std::thread::sleep(Duration::from_millis(50));
        !slow.try_send("G")
    });
    took_the_limit(start);
    let start = Instant::now();
    let mut deaf = gate.connect("app");
    deaf.send(GET);
    gate.until_log(&["\"access\"", "\"outcome\":\"caller_gone\""]);
    took_the_limit(start);
}

/// A slow request within the limit is left alone, and idleness is no part of a request.
#[test]
fn within_the_limit_nothing_happens() {
    let upstream = Upstream::run(|conversation| {
        while let Some(head) = conversation.request_head() {
            conversation.request_body(&head);
            std::thread::sleep(LIMIT / 3);
            conversation.answer("200 OK", "application/json", "{}");
        }
    });
    let gate = Gate::start(&upstream, &with(""));
    let mut caller = gate.connect("crm");
    for _ in 0..3 {
        caller.send(format!("{GET}{UPLOAD}Content-Length: 2\r\n\r\n"));
        caller.send("{}");
        assert_eq!([caller.answer().summary(), caller.answer().summary()], ["200", "200"]);
        std::thread::sleep(LIMIT + LIMIT / 4);
    }
}

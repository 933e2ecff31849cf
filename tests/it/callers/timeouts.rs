//! Deadlines: each ends the right thing at the right time, and nothing else.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::harness::gate::{PATIENCE, until};
use crate::harness::{Caller, Conversation, Gate, Signal, TWO_CALLERS, Upstream};

const GET: &str = "GET /management/v1/counters HTTP/1.1\r\nHost: localhost\r\n\r\n";
const UPLOAD: &str = "POST /management/v1/counter/1/offline_conversions/upload HTTP/1.1\r\nHost: localhost\r\n";
const SHORT: Duration = Duration::from_millis(300);

fn towards_upstream(timeouts: &str) -> String {
    format!("{TWO_CALLERS}\nupstream: {{ca_file: '{{ca}}', connect_to: '{{upstream}}', timeouts: {{{timeouts}}}}}\n")
}

fn towards_callers(timeouts: &str) -> String {
    format!("{TWO_CALLERS}\ntimeouts: {{{timeouts}}}\n")
}

/// Not before its time, and not long after. The machine may be busy.
fn took(what: Duration, since: Instant) {
    let waited = since.elapsed();
    assert!(waited >= what - Duration::from_millis(10), "too early: {waited:?}");
    assert!(waited < what + Duration::from_secs(5), "too late: {waited:?}");
}

fn until_closed(conversation: &mut Conversation, signal: &Signal) {
    while conversation.discard() > 0 {}
    signal.give();
}

#[test]
fn an_upstream_that_does_not_answer_is_waited_for_so_long() {
    let ended = Signal::default();
    let noticed = ended.clone();
    let upstream = Upstream::run(move |conversation| {
        while let Some(head) = conversation.request_head() {
            if head.contains("?slow") {
                return until_closed(conversation, &noticed);
            }
            conversation.answer("200 OK", "application/json", "{}");
        }
    });
    let gate = Gate::start(&upstream, &towards_upstream("response_headers: 300ms"));
    let mut caller = gate.connect("app");
    caller.send(GET);
    assert_eq!(caller.answer().summary(), "200");
    let start = Instant::now();
    caller.send(GET.replace("counters", "counters?slow"));
    let answer = caller.answer();
    assert_eq!((answer.summary().as_str(), answer.field("retry-after")), ("504 upstream_timeout", None));
    took(SHORT, start);
    ended.wait("the connection is given up: its answer may still come");
    caller.send(GET);
    assert_eq!(caller.answer().summary(), "200");
    assert_eq!((upstream.connections(), upstream.requests().len()), (2, 3), "it was not sent again");
    gate.until_metric(&["upstream_errors_total", "kind=\"response_timeout\""], 1.0);
}

#[test]
fn interim_responses_are_no_answer() {
    let upstream = Upstream::run(|conversation| {
        conversation.request_head();
        while conversation.write("HTTP/1.1 102 Processing\r\n\r\n") {
            std::thread::sleep(Duration::from_millis(20));
        }
    });
    let gate = Gate::start(&upstream, &towards_upstream("response_headers: 300ms"));
    let start = Instant::now();
    assert_eq!(gate.get("app", "/management/v1/counters").summary(), "504 upstream_timeout");
    took(SHORT, start);
}

#[test]
fn an_answer_that_stalls_is_cut() {
    let ended = Signal::default();
    let noticed = ended.clone();
    let upstream = Upstream::run(move |conversation| {
        conversation.request_head();
        conversation.write("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc");
        until_closed(conversation, &noticed);
    });
    let gate = Gate::start(&upstream, &towards_upstream("body_idle: 300ms"));
    let mut caller = gate.connect("app");
    let start = Instant::now();
    caller.send(GET);
    let answer = caller.try_answer(false);
    assert!(answer.as_ref().is_err_and(|error| !error.contains("unavailable")), "{answer:?}");
    took(SHORT, start);
    ended.wait("the upstream connection is given up");
    gate.until_metric(&["upstream_errors_total", "kind=\"body_timeout\""], 1.0);
    gate.until_log(&["\"access\"", "\"outcome\":\"upstream_cut\""]);
}

#[test]
fn an_answer_that_goes_on_is_not_cut_however_long_it_takes() {
    let upstream = Upstream::run(|conversation| {
        conversation.request_head();
        conversation.write("HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n");
        for _ in 0..20 {
            std::thread::sleep(Duration::from_millis(60));
            conversation.write("a");
        }
    });
    let gate = Gate::start(&upstream, &towards_upstream("response_headers: 600ms, body_idle: 600ms"));
    assert_eq!(gate.get("app", "/management/v1/counters").body.len(), 20);
    assert_eq!(gate.metric(&["upstream_errors_total"]), 0.0);
}

#[test]
fn a_body_that_goes_on_is_not_cut_by_the_time_for_the_answer() {
    let upstream = Upstream::run(|conversation| {
        while let Some(head) = conversation.request_head() {
            let body = conversation.request_body(&head);
            conversation.answer("200 OK", "text/plain", &body.len().to_string());
        }
    });
    let gate = Gate::start(&upstream, &towards_upstream("response_headers: 300ms, body_idle: 300ms"));
    for framing in ["Content-Length: 20", "Transfer-Encoding: chunked"] {
        let mut caller = gate.connect("crm");
        let is_chunked = framing.contains("chunked");
        caller.send(format!("{UPLOAD}{framing}\r\n\r\n"));
        for _ in 0..20 {
            // The pace of the caller, which the upstream's deadlines do not concern.
            std::thread::sleep(Duration::from_millis(50));
            caller.send(if is_chunked { "1\r\na\r\n" } else { "a" });
        }
        if is_chunked {
            std::thread::sleep(Duration::from_millis(400));
            caller.send("0\r\n\r\n");
        }
        assert_eq!(caller.answer().text(), "20", "{framing}");
    }
}

#[test]
fn the_time_for_the_answer_begins_when_the_body_has_ended() {
    let upstream = Upstream::run(|conversation| {
        if let Some(head) = conversation.request_head() {
            conversation.request_body(&head);
            while conversation.discard() > 0 {}
        }
    });
    let gate = Gate::start(&upstream, &towards_upstream("response_headers: 300ms, body_idle: 20s"));
    let mut caller = gate.connect("crm");
    caller.send(format!("{UPLOAD}Content-Length: 2\r\n\r\na"));
    std::thread::sleep(Duration::from_millis(500));
    let start = Instant::now();
    caller.send("b");
    assert_eq!(caller.answer().summary(), "504 upstream_timeout");
    took(SHORT, start);
}

#[test]
fn an_upstream_that_stops_reading_a_body_is_given_up() {
    let done = Signal::default();
    let wait = done.clone();
    let upstream = Upstream::run(move |conversation| {
        conversation.request_head();
        wait.wait("the gate answers");
    });
    let gate = Gate::start(&upstream, &towards_upstream("body_idle: 500ms"));
    let mut caller = TcpStream::connect(gate.place("crm")).unwrap();
    caller.set_read_timeout(Some(PATIENCE)).unwrap();
    caller.set_write_timeout(Some(Duration::from_millis(100))).unwrap();
    caller.write_all(format!("{UPLOAD}Content-Length: 1000000000\r\n\r\n").as_bytes()).unwrap();
    let piece = vec![b'x'; 1 << 20];
    let mut answer = [0; 1024];
    // Writes until the gate accepts no more, and on until it answers.
    caller.set_nonblocking(true).unwrap();
    let mut read = 0;
    until("the gate answers", || {
        let _ = caller.write(&piece);
        read = caller.read(&mut answer).unwrap_or(0);
        read > 0
    });
    let head = String::from_utf8_lossy(&answer[..read]).into_owned();
    assert!(head.starts_with("HTTP/1.1 504 "), "{head}");
    assert!(head.contains("upstream_timeout"), "{head}");
    done.give();
}

#[test]
fn an_unused_upstream_connection_is_closed() {
    let ended = Signal::default();
    let noticed = ended.clone();
    let upstream = Upstream::run(move |conversation| {
        while conversation.request_head().is_some() {
            conversation.answer("200 OK", "application/json", "{}");
        }
        noticed.give();
    });
    let gate = Gate::start(&upstream, &towards_upstream("keep_alive: 300ms"));
    let mut caller = gate.connect("app");
    caller.send(GET);
    assert_eq!(caller.answer().summary(), "200");
    let start = Instant::now();
    ended.wait("the idle connection is closed");
    took(SHORT, start);
    caller.send(GET);
    assert_eq!(caller.answer().summary(), "200");
    assert_eq!(upstream.connections(), 2);
}

/// Waits for the end of a connection that gets no answer.
fn closes_silently(mut caller: Caller, start: Instant, after: Duration) {
    assert!(caller.is_closed(), "{:?}", String::from_utf8_lossy(caller.received()));
    took(after, start);
}

#[test]
fn half_a_header_is_waited_for_so_long() {
    let upstream = Upstream::plain();
    let gate = Gate::start(&upstream, &towards_callers("request_headers: 300ms"));
    for half in [
        "",
        "GE",
        "GET /management/v1/counters HTTP/1.1\r\n",
        "GET /management/v1/counters HTTP/1.1\r\nHost: localhost\r\n",
    ] {
        let start = Instant::now();
        let mut caller = gate.connect("app");
        caller.send(half);
        closes_silently(caller, start, SHORT);
    }
    assert_eq!(upstream.connections(), 0);
}

///
#[test]
fn a_header_that_comes_byte_by_byte_gains_no_time() {
    let upstream = Upstream::plain();
    let gate = Gate::start(&upstream, &towards_callers("request_headers: 300ms"));
    let start = Instant::now();
    let mut caller = gate.connect("app");
    let mut sent = 0;
    until("the gate closes the connection", || {
        std::thread::sleep(Duration::from_millis(20));
        sent += 1;
        !caller.try_send("G")
    });
    took(SHORT, start);
    assert!(sent < 100);
}

#[test]
fn the_header_of_a_second_request_is_waited_for_no_longer() {
    let upstream = Upstream::plain();
    let gate = Gate::start(&upstream, &towards_callers("request_headers: 300ms, keep_alive: 30s"));
    let mut caller = gate.connect("app");
    caller.send(GET);
    assert_eq!(caller.answer().summary(), "200");
    let start = Instant::now();
    caller.send("GET /man");
    closes_silently(caller, start, SHORT);
}

#[test]
fn half_a_header_that_came_with_the_request_before_is_waited_for_as_for_an_idle_caller() {
    let upstream = Upstream::plain();
    let gate = Gate::start(&upstream, &towards_callers("request_headers: 10s, keep_alive: 300ms"));
    let mut caller = gate.connect("app");
    let start = Instant::now();
    caller.send(format!("{GET}GET /man"));
    assert_eq!(caller.answer().summary(), "200");
    closes_silently(caller, start, SHORT);
}

///
#[test]
fn an_idle_caller_is_closed() {
    let upstream = Upstream::plain();
    let gate = Gate::start(&upstream, &towards_callers("keep_alive: 300ms"));
    let mut caller = gate.connect("app");
    for _ in 0..3 {
        caller.send(GET);
        assert_eq!(caller.answer().summary(), "200");
    }
    closes_silently(caller, Instant::now(), SHORT - Duration::from_millis(50));
}

#[test]
fn a_slow_answer_is_no_idleness_of_the_caller() {
    let upstream = Upstream::run(|conversation| {
        while conversation.request_head().is_some() {
            std::thread::sleep(Duration::from_millis(900));
            conversation.answer("200 OK", "application/json", "{}");
        }
    });
    let config = towards_callers("request_headers: 300ms, body_idle: 300ms, keep_alive: 300ms");
    let gate = Gate::start(&upstream, &config);
    let mut caller = gate.connect("crm");
    for request in [GET.to_owned(), format!("{UPLOAD}Content-Length: 0\r\n\r\n")] {
        caller.send(request);
        assert_eq!(caller.answer().summary(), "200");
    }
}

///
#[test]
fn a_body_that_stalls_ends_the_request_everywhere() {
    let ended = Signal::default();
    let noticed = ended.clone();
    let upstream = Upstream::run(move |conversation| {
        if conversation.request_head().is_some() {
            until_closed(conversation, &noticed);
        }
    });
    let gate = Gate::start(&upstream, &towards_callers("body_idle: 300ms"));
    let start = Instant::now();
    let mut caller = gate.connect("crm");
    caller.send(format!("{UPLOAD}Content-Length: 10\r\n\r\nabc"));
    assert_eq!(caller.answer().summary(), "408 body_too_slow");
    took(SHORT, start);
    assert!(caller.is_closed());
    ended.wait("the request is cancelled");
    gate.until_metric(&["requests_total", "caller=\"crm\"", "code=\"408\""], 1.0);
    gate.until_metric(&["in_flight", "crm"], 0.0);
}

///
#[test]
fn a_caller_that_does_not_read_is_closed() {
    let ended = Signal::default();
    let noticed = ended.clone();
    let upstream = Upstream::run(move |conversation| {
        conversation.request_head();
        conversation.write("HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n");
        let piece = vec![b'x'; 1 << 20];
        while conversation.write(&piece) {}
        noticed.give();
    });
    let gate = Gate::start(&upstream, &towards_callers("body_idle: 500ms"));
    let start = Instant::now();
    let mut caller = gate.connect("app");
    caller.send(GET);
    ended.wait("the upstream connection is given up");
    took(SHORT, start);
    gate.until_log(&["\"access\"", "\"outcome\":\"caller_stalled\""]);
    let answer = caller.try_answer(false);
    assert!(
        answer.as_ref().is_err_and(|error| !error.contains("unavailable")),
        "{:?}",
        answer.map(|answer| answer.status)
    );
}

//! HTTP/2 towards callers: who lets the gate wait, how long, and what ends then; large bodies; and the gate's own end.

use std::time::{Duration, Instant};

use crate::harness::gate::until;
use crate::harness::h2::*;
use crate::harness::{Gate, Signal, TWO_CALLERS_HTTP2, Upstream};

const SHORT: Duration = Duration::from_millis(400);
/// The limit in tests that must act within it.
const LONGER: Duration = Duration::from_millis(1200);

fn with(more: &str) -> String {
    format!("{TWO_CALLERS_HTTP2}\n{more}\n")
}

/// Not before its time, and not long after. The machine may be busy.
#[track_caller]
fn took(what: Duration, since: Instant) {
    let waited = since.elapsed();
    assert!(waited >= what - Duration::from_millis(10), "too early: {waited:?}");
    assert!(waited < what + Duration::from_secs(5), "too late: {waited:?}");
}

/// the preface, SETTINGS and a header block have the time of a request's header.
#[test]
fn an_unfinished_preface_or_header_block_ends_the_connection_in_time() {
    let upstream = Upstream::plain();
    let gate = Gate::start(&upstream, &with("timeouts: {request_headers: 400ms}"));
    let connected = [PREFACE, &frame(SETTINGS, 0, 0, [])].concat();
    let cases = [
        ("nothing", Vec::new(), None),
        ("half of the preface", PREFACE[..12].to_vec(), None),
        ("the preface alone", PREFACE.to_vec(), Some(NO_ERROR)),
        ("half of a frame's header", [&connected[..], &[0, 0]].concat(), Some(NO_ERROR)),
        ("half of HEADERS", [&connected[..], &frame(HEADERS, WHOLE, 1, get())[..20]].concat(), Some(NO_ERROR)),
        (
            "a header block without its end",
            [&connected[..], &frame(HEADERS, END_STREAM, 1, get())].concat(),
            Some(NO_ERROR),
        ),
    ];
    for (case, bytes, code) in cases {
        let start = Instant::now();
        let mut caller = H2::mute(gate.place("app"));
        caller.send(bytes);
        assert_eq!(caller.ends(), code, "{case}");
        took(SHORT, start);
    }
    // A slow header block is as incomplete as a stalled one.
    let start = Instant::now();
    let mut caller = H2::connect(gate.place("app"));
    caller.frame(HEADERS, END_STREAM, 1, get());
    while start.elapsed() < SHORT + Duration::from_secs(2) && caller.frame(CONTINUATION, 0, 1, block([("a", "b")])) {
        std::thread::sleep(Duration::from_millis(150));
    }
    assert!(start.elapsed() < SHORT + Duration::from_secs(2));
    // An idle connection has its own time, which is longer.
    let mut idle = H2::connect(gate.place("app"));
    std::thread::sleep(2 * SHORT);
    assert!(idle.is_alive());
    assert_eq!(upstream.requests().len(), 0);
}

/// an idle connection has `keep_alive`; PING does not change that.
#[test]
fn an_idle_connection_ends() {
    let upstream = Upstream::plain();
    let gate = Gate::start(&upstream, &with("timeouts: {keep_alive: 1200ms}"));
    let mut caller = H2::connect(gate.place("app"));
    caller.frame(HEADERS, WHOLE, 1, get());
    assert_eq!(caller.fate(1), Fate::Answered(200));
    let start = Instant::now();
    while start.elapsed() < LONGER / 2 {
        assert!(caller.is_alive());
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(caller.ends(), Some(NO_ERROR));
    took(LONGER, start);
}

/// a body that does not go on ends its request, and no other.
#[test]
fn a_body_that_stalls_is_refused_alone() {
    let go = Signal::default();
    let release = go.clone();
    let upstream = Upstream::run(move |conversation| {
        while let Some(head) = conversation.request_head() {
            if head.starts_with("POST") {
                while conversation.discard() > 0 {}
                return;
            }
            release.wait("the test lets the answer go");
            conversation.answer("200 OK", "application/json", "{}");
        }
    });
    let gate = Gate::start(&upstream, &with("timeouts: {body_idle: 1200ms}"));
    let mut caller = H2::connect(gate.place("crm"));
    caller.frame(HEADERS, WHOLE, 1, get());
    caller.frame(HEADERS, END_HEADERS, 3, upload());
    for _ in 0..6 {
        // A body that goes on, however slowly, is not ended.
        caller.frame(DATA, 0, 3, "x");
        std::thread::sleep(LONGER / 3);
    }
    let start = Instant::now();
    caller.frame(DATA, 0, 3, "x");
    assert_eq!(caller.fate(3), Fate::Answered(408));
    took(LONGER, start);
    go.give();
    assert_eq!(caller.fate(1), Fate::Answered(200));
}

/// a response that the caller's window holds back ends its own request alone; data that hyper still holds
/// when the request is over ends the connection.
#[test]
fn a_response_that_is_not_read_is_given_up() {
    let upstream = Upstream::run(|conversation| {
        while let Some(head) = conversation.request_head() {
            let large = head.contains("?large");
            conversation.answer("200 OK", "text/plain", &"x".repeat(if large { 1 << 20 } else { 10 }));
        }
    });
    let gate = Gate::plan(&upstream, &with("timeouts: {body_idle: 1200ms}")).workers(1).start();
    let large = || block(request("GET", "/management/v1/counters?large"));
    let mut caller = H2::with_settings(gate.place("app"), &[(4, 1000)]);
    let start = Instant::now();
    caller.frame(HEADERS, WHOLE, 1, large());
    let (fate, body) = caller.answer(1);
    assert_eq!((fate, body.len()), (Fate::Reset(CANCEL), 1000));
    took(LONGER, start);
    caller.frame(HEADERS, WHOLE, 3, get());
    assert_eq!(caller.fate(3), Fate::Answered(200));
    gate.until_log(&["\"access\"", "\"outcome\":\"caller_stalled\""]);
    // The response fits hyper's buffers, so that it is over for everybody but hyper.
    let mut caller = H2::with_settings(gate.place("app"), &[(4, 1)]);
    let start = Instant::now();
    caller.frame(HEADERS, WHOLE, 1, get());
    assert_eq!(caller.fate(1), Fate::Closed);
    took(LONGER, start);
    // A caller that accepts it, a byte each time, is left alone.
    let mut caller = H2::with_settings(gate.place("app"), &[(4, 1)]);
    caller.frame(HEADERS, WHOLE, 1, get());
    for _ in 0..9 {
        std::thread::sleep(LONGER / 4);
        caller.frame(WINDOW_UPDATE, 0, 1, 1u32.to_be_bytes());
    }
    let (fate, body) = caller.answer(1);
    assert_eq!((fate, body.len()), (Fate::Answered(200), 10));
}

/// and so does a caller that stops reading its socket.
#[test]
fn a_socket_that_is_not_read_is_closed() {
    let upstream = Upstream::run(|conversation| {
        while conversation.request_head().is_some() {
            conversation.write("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n");
            while conversation.write([b'x'; 64 * 1024]) {}
        }
    });
    let gate = Gate::plan(&upstream, &with("timeouts: {body_idle: 400ms}")).workers(1).start();
    let window = 0x7fff_ffffu32;
    let mut caller = H2::with_settings(gate.place("app"), &[(4, window)]);
    caller.frame(WINDOW_UPDATE, 0, 0, (window - 65_535).to_be_bytes());
    for stream in [1, 3, 5] {
        caller.frame(HEADERS, WHOLE, stream, get());
    }
    gate.until_metric(&["requests_total", "code=\"200\""], 3.0);
    gate.until_metric(&["in_flight_requests"], 0.0);
    assert!(gate.peak_resident_bytes() < 40 * 1024 * 1024, "{}", gate.peak_resident_bytes());
    // Not only its requests: to read now is too late.
    std::thread::sleep(LONGER);
    assert!(!caller.is_alive());
}

/// A body streams at the pace of who reads it, in flat memory; the window updates that it needs are no flood.
#[test]
fn a_large_answer_streams() {
    const PIECES: usize = 4096;
    let upstream = Upstream::run(|conversation| {
        while conversation.request_head().is_some() {
            conversation.write(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", PIECES * 64 * 1024));
            (0..PIECES).all(|_| conversation.write([b'x'; 64 * 1024]));
        }
    });
    let gate = Gate::start(&upstream, TWO_CALLERS_HTTP2);
    let mut caller = H2::connect(gate.place("app"));
    caller.frame(HEADERS, WHOLE, 1, get());
    let mut read = 0;
    loop {
        let sent = caller.next().expect("the rest of the answer");
        assert!(!matches!(sent.kind, GOAWAY | RST_STREAM), "{sent:?}");
        if sent.kind == DATA && sent.stream == 1 {
            read += sent.payload.len();
            if sent.flags & END_STREAM != 0 {
                break;
            }
            // The busiest that clients are.
            let more = u32::try_from(sent.payload.len()).unwrap().to_be_bytes();
            caller.send([frame(WINDOW_UPDATE, 0, 0, more), frame(WINDOW_UPDATE, 0, 1, more)].concat());
        }
    }
    assert_eq!(read, PIECES * 64 * 1024);
    assert!(gate.peak_resident_bytes() < 40 * 1024 * 1024, "{}", gate.peak_resident_bytes());
    assert!(caller.is_alive());
}

/// An upload that nobody takes is held back by its window, and costs no more memory than that.
#[test]
fn an_upload_that_is_not_read_is_held_back() {
    let go = Signal::default();
    let release = go.clone();
    let upstream = Upstream::run(move |conversation| {
        while let Some(head) = conversation.request_head() {
            release.wait("the test lets the upload go");
            let body = conversation.request_body(&head);
            conversation.answer("200 OK", "text/plain", &body.len().to_string());
        }
    });
    let gate = Gate::start(&upstream, TWO_CALLERS_HTTP2);
    let mut caller = H2::connect(gate.place("crm"));
    let memory = gate.resident_bytes();
    let streams: Vec<u32> = (0..50).map(|n| 2 * n + 1).collect();
    streams.iter().for_each(|stream| assert!(caller.frame(HEADERS, END_HEADERS, *stream, upload())));
    // The windows allow 65 535 bytes for the connection at first, and half a megabyte in the end.
    let first = caller.next().unwrap();
    assert_eq!(first.kind, SETTINGS);
    let update = loop {
        let sent = caller.next().unwrap();
        if sent.kind == WINDOW_UPDATE {
            break sent;
        }
    };
    assert_eq!((update.stream, update.number(0)), (0, 512 * 1024 - 65_535));
    let each = 512 * 1024 / 50 - 1;
    for stream in &streams {
        caller.frame(DATA, 0, *stream, vec![b'x'; each]);
    }
    until("all requests have begun", || upstream.requests().len() == 50);
    assert!(caller.is_alive());
    let memory = gate.resident_bytes().saturating_sub(memory);
    assert!(memory < 32 * 1024 * 1024, "{memory} bytes");
    go.give();
    for stream in &streams {
        caller.frame(DATA, END_STREAM, *stream, []);
    }
    let mut ended = 0;
    while ended < 50 {
        let sent = caller.next().unwrap();
        assert!(!matches!(sent.kind, GOAWAY | RST_STREAM), "{sent:?}");
        ended += usize::from(sent.kind == DATA && sent.flags & END_STREAM != 0);
    }
}

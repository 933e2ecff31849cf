//! HTTP/2 towards callers: each flood ends its connection, and costs neither memory nor the other callers anything.

use std::time::Duration;

use crate::harness::h2::*;
use crate::harness::{Gate, Signal, TWO_CALLERS_HTTP2, Upstream};

/// More than a connection's budget can ever pay.
const MANY: u32 = 200_000;

/// A gate that is flooded, and the upstream that its requests wait at.
struct Flooded {
    gate: Gate,
    _upstream: Upstream,
}

fn gate() -> Flooded {
    let upstream = Upstream::run(|conversation| {
        while let Some(head) = conversation.request_head() {
            if !head.contains("counters?held") && head.starts_with("GET") {
                conversation.answer("200 OK", "application/json", "{}");
            }
        }
    });
    let gate = Gate::plan(&upstream, TWO_CALLERS_HTTP2).workers(1).start();
    assert_eq!(gate.get("app", "/management/v1/counters").summary(), "200");
    Flooded { gate, _upstream: upstream }
}

/// A request that stays unanswered.
fn held() -> Vec<u8> {
    block(request("GET", "/management/v1/counters?held"))
}

impl Flooded {
    /// Sends `frames(n)` for n from 0 until the connection ends, as it must; its last GOAWAY has the cause.
    #[track_caller]
    fn ends(&self, what: &str, mut caller: H2, frames: impl Fn(u32) -> Vec<u8>) {
        let before = (self.gate.metric(&["floods_total"]), self.gate.processor_time());
        let memory = self.gate.resident_bytes();
        let mut beside = self.gate.connect("app");
        let sent = (0..MANY / 100).take_while(|hundred| {
            let batch: Vec<u8> = (hundred * 100..hundred * 100 + 100).flat_map(&frames).collect();
            caller.send(batch)
        });
        let sent = sent.count();
        assert!(sent < 2000, "{what}: it was not ended");
        // A reset can take the GOAWAY away.
        let code = caller.ends();
        assert!(matches!(code, Some(ENHANCE_YOUR_CALM) | None), "{what}: {code:?}");
        self.gate.until_metric(&["floods_total"], before.0 + 1.0);
        let used = self.gate.processor_time() - before.1;
        assert!(used < Duration::from_secs(2), "{what} took {used:?}");
        let memory = self.gate.resident_bytes().saturating_sub(memory);
        assert!(memory < 16 * 1024 * 1024, "{what} took {memory} bytes");
        beside.send("GET /management/v1/counters HTTP/1.1\r\nHost: localhost\r\n\r\n");
        assert_eq!(beside.answer().summary(), "200", "{what}: the others notice nothing");
        self.gate.until_metric(&["in_flight_requests"], 0.0);
    }

    fn connect(&self) -> H2 {
        H2::connect(self.gate.place("crm"))
    }
}

/// frames that bring nothing.
#[test]
fn frames_that_bring_nothing_end_their_connection() {
    let flooded = gate();
    flooded.ends("PING", flooded.connect(), |_| frame(PING, 0, 0, [0; 8]));
    flooded.ends("PING acknowledgements", flooded.connect(), |_| frame(PING, ACK, 0, [0; 8]));
    flooded.ends("SETTINGS", flooded.connect(), |_| frame(SETTINGS, 0, 0, []));
    flooded.ends("SETTINGS that move windows", flooded.connect(), |n| {
        frame(SETTINGS, 0, 0, settings(&[(4, n % 2 * 1000)]))
    });
    flooded.ends("PRIORITY", flooded.connect(), |n| frame(PRIORITY, 0, 2 * n + 1, [0, 0, 0, 0, 16]));
    flooded.ends("unknown frames", flooded.connect(), |_| frame(0xee, 0, 0, []));
    flooded.ends("WINDOW_UPDATE", flooded.connect(), |_| frame(WINDOW_UPDATE, 0, 0, 1u32.to_be_bytes()));
    let mut caller = flooded.connect();
    caller.frame(HEADERS, END_HEADERS, 1, upload());
    flooded.ends("WINDOW_UPDATE of a stream", caller, |_| frame(WINDOW_UPDATE, 0, 1, 1u32.to_be_bytes()));
    let mut caller = flooded.connect();
    caller.frame(HEADERS, END_HEADERS, 1, upload());
    flooded.ends("empty DATA", caller, |_| frame(DATA, 0, 1, []));
    let mut caller = flooded.connect();
    caller.frame(HEADERS, END_HEADERS, 1, upload());
    flooded.ends("DATA that is only padding", caller, |_| frame(DATA, PADDED, 1, [255; 256]));
    let mut caller = flooded.connect();
    caller.frame(HEADERS, WHOLE, 1, get());
    assert_eq!(caller.fate(1), Fate::Answered(200));
    flooded.ends("RST_STREAM of what has ended", caller, |_| frame(RST_STREAM, 0, 1, [0; 4]));
}

/// header blocks that do not end, or that unpack to much.
#[test]
fn header_blocks_without_end_end_their_connection() {
    let flooded = gate();
    for (what, piece) in [("empty CONTINUATION", Vec::new()), ("CONTINUATION", block([("accept", "*/*")]))] {
        let mut caller = flooded.connect();
        caller.frame(HEADERS, END_STREAM, 1, get());
        flooded.ends(what, caller, |_| frame(CONTINUATION, 0, 1, &piece));
    }
    // A field of 4 kB goes into the table once, and is named by a byte each time.
    let value = "x".repeat(4000);
    let mut bomb = get();
    bomb.extend([0x40, 1, b'a', 0x7f, 0xa1, 0x1e]);
    bomb.extend(value.as_bytes());
    bomb.extend([0xbe; 10_000]);
    flooded.ends("an HPACK bomb", flooded.connect(), |n| frame(HEADERS, WHOLE, 2 * n + 1, &bomb));
    // The smallest fields, which cost memory: not over any limit of one block that ends the connection.
    let mut small = get();
    small.extend([0x40, 1, b'a', 0]);
    small.extend([0xbe; 3500]);
    let mut caller = flooded.connect();
    let memory = flooded.gate.resident_bytes();
    let many: Vec<u8> = (0..100).flat_map(|n| frame(HEADERS, WHOLE, 2 * n + 1, &small)).collect();
    caller.send(many);
    assert_eq!(caller.fate(199), Fate::Answered(431));
    let memory = flooded.gate.resident_bytes().saturating_sub(memory);
    assert!(memory < 24 * 1024 * 1024, "{memory} bytes");
}

/// RUSTSEC-2024-0003 and similar attacks: requests that are cancelled, by either side.
#[test]
fn requests_that_are_given_up_end_their_connection() {
    let flooded = gate();
    let cancel = |n: u32| frame(RST_STREAM, 0, 2 * n + 1, CANCEL.to_be_bytes());
    flooded.ends("rapid reset", flooded.connect(), |n| [frame(HEADERS, WHOLE, 2 * n + 1, get()), cancel(n)].concat());
    flooded.ends("rapid reset of uploads", flooded.connect(), |n| {
        [frame(HEADERS, END_HEADERS, 2 * n + 1, upload()), cancel(n)].concat()
    });
    flooded.ends("resets that the gate is made to send", flooded.connect(), |n| {
        let over = frame(WINDOW_UPDATE, 0, 2 * n + 1, 0x7fff_ffffu32.to_be_bytes());
        [frame(HEADERS, WHOLE, 2 * n + 1, held()), over].concat()
    });
    flooded.ends("requests that are malformed", flooded.connect(), |n| {
        frame(HEADERS, WHOLE, 2 * n + 1, block([(":method", "GET")]))
    });
    flooded.ends("requests beyond the limit", flooded.connect(), |n| frame(HEADERS, WHOLE, 2 * n + 1, held()));
}

/// the same, slowly: each request has begun before it is cancelled.
#[test]
fn requests_that_are_given_up_one_after_the_other_end_their_connection() {
    let flooded = gate();
    let mut caller = flooded.connect();
    let mut given_up = 0;
    while given_up < 5000 {
        let stream = 2 * given_up + 1;
        caller.frame(HEADERS, WHOLE, stream, held());
        if !caller.is_alive() {
            break;
        }
        caller.frame(RST_STREAM, 0, stream, CANCEL.to_be_bytes());
        given_up += 1;
    }
    assert!((100..2000).contains(&given_up), "{given_up}");
    flooded.gate.until_metric(&["floods_total"], 1.0);
    flooded.gate.until_metric(&["in_flight_requests"], 0.0);
}

/// a caller that makes the gate respond and reads none of the responses.
#[test]
fn a_caller_that_reads_nothing_is_not_waited_for() {
    let upstream = Upstream::plain();
    let config = format!("{TWO_CALLERS_HTTP2}\ntimeouts: {{body_idle: 500ms, keep_alive: 500ms}}\n");
    let gate = Gate::start(&upstream, &config);
    let mut caller = H2::connect(gate.place("app"));
    let mut stream = 1;
    // Answers fill the socket, however small.
    while caller.frame(HEADERS, WHOLE, stream, block(request("GET", "/nowhere"))) && stream < 400_000 {
        stream += 2;
    }
    gate.until_log(&["\"unknown_operation\""]);
    gate.until_metric(&["in_flight_requests"], 0.0);
    assert!(gate.peak_resident_bytes() < 60 * 1024 * 1024, "{}", gate.peak_resident_bytes());
    assert_eq!(gate.get("app", "/management/v1/counters").summary(), "200");
}

/// a hundred requests at once, and the next is refused, alone.
#[test]
fn streams_are_limited() {
    let go = Signal::default();
    let release = go.clone();
    let upstream = Upstream::run(move |conversation| {
        while conversation.request_head().is_some() {
            release.wait("the test lets the upstream answer");
            conversation.answer("200 OK", "application/json", "{}");
        }
    });
    let gate = Gate::start(&upstream, TWO_CALLERS_HTTP2);
    let mut caller = H2::connect(gate.place("app"));
    let first = caller.next().unwrap();
    assert_eq!(first.kind, SETTINGS);
    let said: Vec<(u16, u32)> = first
        .payload
        .chunks(6)
        .map(|pair| (u16::from_be_bytes([pair[0], pair[1]]), u32::from_be_bytes(pair[2..6].try_into().unwrap())))
        .collect();
    assert!(said.contains(&(3, 100)), "MAX_CONCURRENT_STREAMS: {said:?}");
    assert!(said.contains(&(4, 128 * 1024)), "INITIAL_WINDOW_SIZE: {said:?}");
    assert!(said.iter().all(|(name, _)| *name != 8), "no extended CONNECT: {said:?}");
    for n in 0..101 {
        caller.frame(HEADERS, WHOLE, 2 * n + 1, get());
    }
    assert_eq!(caller.fate(201), Fate::Reset(REFUSED_STREAM));
    gate.until_metric(&["in_flight", "reports"], 100.0);
    go.give();
    // In the order that the upstream answers in; the last to be awaited here may have been the first.
    let mut ended = 0;
    while ended < 100 {
        let sent = caller.next().unwrap();
        ended += usize::from(matches!(sent.kind, DATA | HEADERS) && sent.flags & END_STREAM != 0);
        assert_ne!(sent.kind, RST_STREAM);
    }
    assert_eq!(upstream.requests().len(), 100);
    assert!(caller.is_alive());
}

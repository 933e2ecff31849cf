//! Bodies that are read because their caller is limited to counters: a refused one is not sent, an allowed one keeps its
//! bytes (rule 7 of `metrika_gate::policy::rules`).

use crate::harness::h2::*;
use crate::harness::{Caller, Gate, Upstream};
use crate::policy::rejections::assert_is;
use crate::policy::rules::{CALLERS, GOALS, JSON, ask, keeping, last, post};

const BODIES: [&str; 5] = [
    r#"{"goal":{"name":"Заказ","id":7,"conditions":[{"type":"exact","url":"2"}]}}"#,
    "{ \"counter\" : {\r\n\t\"id\": 1, \"name\": \"\\u0041\"}}",
    r#"{"counter_ids":[1,"1"],"big":123456789012345678901234567890.10}"#,
    "[]",
    "null",
];

#[test]
fn a_body_that_is_read_goes_out_as_it_came() {
    let (upstream, seen) = keeping();
    let gate = Gate::start(&upstream, CALLERS);
    let mut caller = gate.connect("one");
    for body in BODIES {
        caller.send(post(GOALS, JSON, body));
        assert_eq!(caller.answer().summary(), "200", "{body}");
        let (head, received) = last(&seen);
        assert_eq!(received, body.as_bytes());
        assert!(head.contains(&format!("\r\ncontent-length: {}\r\n", body.len())), "{head}");
        assert!(!head.to_lowercase().contains("transfer-encoding"), "{head}");
        // In chunks, which come one by one.
        let chunked = "Content-Type: application/x-yametrika+json; charset=UTF-8\r\nTransfer-Encoding: chunked";
        caller.send(format!("PUT /management/v1/counter/1 HTTP/1.1\r\nHost: localhost\r\n{chunked}\r\n\r\n"));
        for piece in body.as_bytes().chunks(7) {
            caller.send([format!("{:x}\r\n", piece.len()).as_bytes(), piece, b"\r\n"].concat());
        }
        caller.send("0\r\nDigest: sha\r\n\r\n");
        assert_eq!(caller.answer().summary(), "200", "{body}");
        let (head, received) = last(&seen);
        assert_eq!(received, body.as_bytes());
        assert!(head.contains("\r\ntransfer-encoding: chunked\r\n"), "{head}");
    }
    // A megabyte, and one that is asked for.
    let large = format!("{{\"name\":\"{}\"}}", "x".repeat(1024 * 1024 - 11));
    assert_eq!(large.len(), 1024 * 1024);
    assert_eq!(gate.send("one", post(GOALS, JSON, &large)).summary(), "200");
    assert_eq!(last(&seen).1, large.as_bytes());
    let mut caller = gate.connect("one");
    caller.send(format!(
        "POST {GOALS} HTTP/1.1\r\nHost: localhost\r\n{JSON}\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n"
    ));
    assert_eq!(caller.head().unwrap().0, 100);
    caller.send("{}");
    assert_eq!(caller.answer().summary(), "200");
    assert_eq!(last(&seen).1, b"{}");
}

#[test]
fn trailers_of_a_body_that_is_read_go_on() {
    let (upstream, lines) = Upstream::of_chunked_bodies();
    let gate = Gate::start(&upstream, CALLERS);
    let head = format!("POST {GOALS} HTTP/1.1\r\nHost: localhost\r\n{JSON}\r\nTransfer-Encoding: chunked\r\n\r\n");
    let answer = gate.send("one", head + "1\r\n{\r\n1\r\n}\r\n0\r\nX-Checksum: 7\r\nX-Api-Key: k\r\n\r\n");
    assert_eq!(answer.summary(), "200");
    assert_eq!(*lines.lock().unwrap(), ["2", "{}", "0", "x-checksum: 7"]);
}

#[test]
fn a_body_with_another_counter_is_refused_before_anything_is_sent() {
    let upstream = Upstream::plain();
    let gate = Gate::start(&upstream, CALLERS);
    let mut caller = gate.connect("one");
    for (fields, body, expected) in [
        (JSON, r#"{"counter":{"id":2}}"#, "403 counter_denied"),
        (JSON, r#"{"a":{"b":[{"counterIds":[1,"2"]}]}}"#, "403 counter_denied"),
        (JSON, r#"{"counter\u005fid":2}"#, "403 counter_denied"),
        (JSON, r#"{"counter_id":1,"counter_id":2}"#, "415 body_unreadable"),
        (JSON, r#"{"counter_id":"1 "}"#, "415 body_unreadable"),
        (JSON, "counter_id=1", "415 body_unreadable"),
        ("Content-Type: text/plain", r#"{"counter_id":2}"#, "403 counter_denied"),
        ("Content-Type: text/plain", "counter_id=1", "415 body_unreadable"),
        ("Content-Type: application/x-www-form-urlencoded", r#"{"counter_id":2}"#, "403 counter_denied"),
        ("Content-Type: multipart/form-data; boundary=x", "--x--", "415 body_unreadable"),
        ("Content-Type: application/x-www-form-urlencoded", "ids=1", "415 form_body"),
        ("Content-Type: application/json; charset=utf-16", "{}", "415 body_unreadable"),
        ("Content-Type: application/json\r\nContent-Encoding: gzip", "{}", "415 body_unreadable"),
        ("Content-Type: application/json\r\nContent-Encoding: br", "{}", "415 body_unreadable"),
        ("Accept: */*", r#"{"counter_id":2}"#, "403 counter_denied"),
        ("Accept: */*", "counter_id", "415 body_unreadable"),
        (JSON, r#"{"counter_id":{"value":2}}"#, "415 body_unreadable"),
        (JSON, r#"{"counters":{"2":{}}}"#, "403 counter_denied"),
        (JSON, r#"{"counter":{"id":{"$numberLong":"2"}}}"#, "415 body_unreadable"),
        (JSON, "{\"\u{ff43}ounter_id\":2}", "403 counter_denied"),
        (JSON, r#"{"counter_id[0]":2}"#, "403 counter_denied"),
        (JSON, "\u{feff}{\"counter_id\":2}", "403 counter_denied"),
    ] {
        caller.send(post(GOALS, fields, body));
        assert_is(&caller.answer(), expected);
        let chunked =
            format!("POST {GOALS} HTTP/1.1\r\nHost: localhost\r\n{fields}\r\nTransfer-Encoding: chunked\r\n\r\n");
        caller.send(format!("{chunked}{:x}\r\n{body}\r\n0\r\n\r\n", body.len()));
        assert_is(&caller.answer(), expected);
    }
    // Chunks that hold nothing are no body.
    caller.send(format!("POST {GOALS} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"));
    assert_eq!(caller.answer().summary(), "200");
    gate.until_metric(&["denied_total", "body_unreadable"], 22.0);
    gate.until_log(&["\"access\"", "counter_denied", "\"operation\":\"goals.create\"", "\"outcome\":\"complete\""]);
    assert_eq!(upstream.requests().len(), 1, "nothing else was sent upstream");
}

#[test]
fn a_body_that_is_too_long_to_be_read_is_refused() {
    let upstream = Upstream::plain();
    let gate = Gate::start(&upstream, CALLERS);
    let head = format!("POST {GOALS} HTTP/1.1\r\nHost: localhost\r\n{JSON}\r\n");
    let too_long = 1024 * 1024 + 1;
    assert_is(&gate.send("one", format!("{head}Content-Length: {too_long}\r\n\r\n")), "413 body_too_large");
    let mut caller = gate.connect("one");
    caller.send(format!("{head}Transfer-Encoding: chunked\r\n\r\n{too_long:x}\r\n{}", " ".repeat(too_long)));
    let answer = caller.answer();
    assert_is(&answer, "413 body_too_large");
    assert_eq!(answer.field("connection"), Some("close"), "the rest may never come");
    assert_eq!(upstream.connections(), 0, "nothing was sent upstream");
}

#[test]
fn a_caller_that_leaves_while_its_body_is_read_sends_nothing() {
    let upstream = Upstream::plain();
    let gate = Gate::start(&upstream, CALLERS);
    let mut caller = gate.connect("one");
    caller.send(format!("POST {GOALS} HTTP/1.1\r\nHost: localhost\r\n{JSON}\r\nContent-Length: 20\r\n\r\n{{"));
    gate.until_metric(&["in_flight_requests", "caller=\"one\""], 1.0);
    drop(caller);
    gate.until_metric(&["in_flight_requests", "caller=\"one\""], 0.0);
    gate.until_metric(&["requests_total", "code=\"499\""], 1.0);
    assert_is(
        &gate.send(
            "one",
            format!("POST {GOALS} HTTP/1.1\r\nHost: localhost\r\n{JSON}\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"),
        ),
        "400 bad_framing",
    );
    assert_eq!(upstream.connections(), 0, "nothing was sent upstream");
}

#[test]
fn a_body_that_does_not_come_is_not_waited_for_longer_than_another() {
    let upstream = Upstream::plain();
    let partly = format!("POST {GOALS} HTTP/1.1\r\nHost: localhost\r\n{JSON}\r\nContent-Length: 20\r\n\r\n{{");
    let gate = Gate::start(&upstream, &format!("{CALLERS}timeouts: {{body_idle: 300ms}}\n"));
    let mut caller = gate.connect("one");
    caller.send(&partly);
    gate.until_metric(&["requests_total", "operation=\"goals.create\""], 1.0);
    gate.until_metric(&["in_flight_requests"], 0.0);
    let gate = Gate::start(&upstream, &format!("{CALLERS}timeouts: {{request: 300ms}}\n"));
    assert_is(&gate.send("one", &partly), "504 request_timeout");
    assert_eq!(upstream.connections(), 0, "nothing was sent upstream");
}

#[test]
fn only_files_of_uploads_and_customer_data_are_not_read() {
    let (upstream, seen) = keeping();
    let gate = Gate::start(&upstream, CALLERS);
    let file = "--x\r\nContent-Disposition: form-data; name=\"file\"\r\n\r\ncounter_id\r\n2\r\n--x--\r\n";
    let (upload, contacts) =
        ("/management/v1/counter/1/offline_conversions/upload", "/cdp/api/v1/counter/1/data/contacts/csv");
    let own = r#"{"contacts":[{"counter_id":1,"id":2}]}"#;
    for (target, fields, body) in [
        (upload, "Content-Type: multipart/form-data; boundary=x", file),
        (upload, "Content-Type: text/csv; charset=windows-1251", "counter_id\r\n2\r\n"),
        (contacts, "Content-Type: text/csv\r\nContent-Encoding: br", "counter_id\r\n2\r\n"),
        (contacts, JSON, own),
        (contacts, "Accept: */*", own),
    ] {
        assert_eq!(gate.send("one", post(target, fields, body)).summary(), "200", "{target} {fields}");
        assert_eq!(last(&seen).1, body.as_bytes());
        let other = target.replace("/1/", "/2/");
        assert_is(&gate.send("one", post(&other, fields, body)), "403 counter_denied");
    }
    for (fields, body, expected) in [
        (JSON, r#"{"contacts":[{"counter_id":2}]}"#, "403 counter_denied"),
        ("Accept: */*", r#"{"contacts":[{"counter_id":2}]}"#, "403 counter_denied"),
        ("Accept: */*", "counter_id\r\n2\r\n", "415 body_unreadable"),
        ("Content-Type: application/octet-stream", "counter_id\r\n2\r\n", "415 body_unreadable"),
    ] {
        for target in [upload, contacts] {
            assert_is(&gate.send("one", post(target, fields, body)), expected);
        }
    }
    assert!(seen.lock().unwrap().is_empty());
}

fn gzip(body: &[u8]) -> Vec<u8> {
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    std::io::Write::write_all(&mut packer, body).unwrap();
    packer.finish().unwrap()
}

#[test]
fn a_compressed_body_is_read_as_its_content() {
    let (upstream, seen) = keeping();
    let gate = Gate::start(&upstream, CALLERS);
    let ask = |body: &[u8]| {
        let length = body.len();
        let head = format!("POST {GOALS} HTTP/1.1\r\nHost: localhost\r\n{JSON}\r\nContent-Encoding: gzip\r\n");
        gate.send("one", [format!("{head}Content-Length: {length}\r\n\r\n").as_bytes(), body].concat())
    };
    let own = gzip(br#"{"counter_id":1}"#);
    assert_eq!(ask(&own).summary(), "200");
    assert_eq!(last(&seen).1, own);
    assert_is(&ask(&gzip(br#"{"counter_id":2}"#)), "403 counter_denied");
    assert_is(&ask(&[own.clone(), gzip(b",")].concat()), "415 body_unreadable");
    assert_is(&ask(&own[..own.len() - 1]), "415 body_unreadable");
    assert_is(&ask(&gzip(&[b' '; 1024 * 1024 + 1])), "413 body_too_large");
    let memory = gate.resident_bytes();
    assert_is(&ask(&gzip(&vec![b' '; 64 * 1024 * 1024])), "413 body_too_large");
    assert!(gate.peak_resident_bytes().saturating_sub(memory) < 16 * 1024 * 1024);
    assert!(seen.lock().unwrap().is_empty());
}

/// The same on HTTP/2, where a body comes in frames.
#[test]
fn bodies_of_http_2_are_read_too() {
    let (upstream, seen) = keeping();
    let gate = Gate::start(&upstream, CALLERS);
    let mut caller = H2::connect(gate.place("one"));
    let fields = |kind| block(request("POST", GOALS).into_iter().chain([("content-type", kind)]));
    for (number, (kind, pieces, fate)) in [
        ("application/json", &[r#"{"counter""#, r#":{"id":1}}"#][..], Fate::Answered(200)),
        ("application/json", &[r#"{"counter""#, r#":{"id":2}}"#], Fate::Answered(403)),
        ("application/json", &["{}", "", ""], Fate::Answered(200)),
        ("application/json", &["{", "}}"], Fate::Answered(415)),
        ("text/plain", &["{}"], Fate::Answered(200)),
        ("text/plain", &["a"], Fate::Answered(415)),
    ]
    .into_iter()
    .enumerate()
    {
        let stream = u32::try_from(number).unwrap() * 2 + 1;
        caller.frame(HEADERS, END_HEADERS, stream, fields(kind));
        for (at, piece) in pieces.iter().enumerate() {
            caller.frame(DATA, if at + 1 == pieces.len() { END_STREAM } else { 0 }, stream, piece);
        }
        assert_eq!(caller.fate(stream), fate, "{kind} {pieces:?}");
        let received = seen.lock().unwrap().pop().map(|(_, body)| body);
        assert_eq!(received, (fate == Fate::Answered(200)).then(|| pieces.concat().into_bytes()));
    }
    assert!(caller.is_alive());
}

/// Reading a body does not delay other tasks of the same worker.
#[test]
fn while_a_body_is_read_others_are_served() {
    let upstream = Upstream::plain();
    let gate = Gate::plan(&upstream, CALLERS).workers(1).start();
    let mut slow: Vec<Caller> = (0..5).map(|_| gate.connect("one")).collect();
    for caller in &mut slow {
        caller.send(format!("POST {GOALS} HTTP/1.1\r\nHost: localhost\r\n{JSON}\r\nContent-Length: 2\r\n\r\n{{"));
    }
    gate.until_metric(&["in_flight_requests", "caller=\"one\""], 5.0);
    assert_eq!(ask(&gate, "one", "GET", GOALS).summary(), "200");
    for caller in &mut slow {
        caller.send("}");
        assert_eq!(caller.answer().summary(), "200");
    }
}

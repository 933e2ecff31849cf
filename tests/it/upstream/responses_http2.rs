//! Misbehaving answers on HTTP/2, frame for frame: the same promises as on HTTP/1.1.

use crate::harness::upstream::certificate;
use crate::harness::{Answer, Conversation, Gate, READ_TOKEN, Signal, TWO_CALLERS, Upstream, breaks_off};
use crate::response::reflection::gzip;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const ACK: u8 = 1;

/// A frame without its stream.
type Frame = (u8, u8, Vec<u8>);

/// A header or trailers; fields as literals that are never indexed (RFC 7541, section 6.2.2).
fn fields(fields: &[(&str, &str)], flags: u8) -> Frame {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            assert!(text.len() < 127);
            block.push(u8::try_from(text.len()).unwrap());
            block.extend_from_slice(text.as_bytes());
        }
    }
    (HEADERS, END_HEADERS | flags, block)
}

fn data(bytes: &[u8], flags: u8) -> Frame {
    (DATA, flags, bytes.to_vec())
}

fn write(conversation: &mut Conversation, (kind, flags, payload): &Frame, stream: u32) {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let head = [&length[1..], &[*kind, *flags], &stream.to_be_bytes()].concat();
    conversation.write([head, payload.clone()].concat());
}

/// Speaks HTTP/2: what answers the request on each stream, by the number of its connection and its own.
fn upstream(answer: impl Fn(usize, u32) -> Vec<Frame> + Send + Sync + 'static) -> Upstream {
    upstream_with(&[], answer)
}

/// The same, with these settings.
fn upstream_with(
    settings: &'static [u8],
    answer: impl Fn(usize, u32) -> Vec<Frame> + Send + Sync + 'static,
) -> Upstream {
    let (mut config, ca_pem) = certificate("api-metrika.yandex.net");
    config.alpn_protocols = vec![b"h2".to_vec()];
    Upstream::run_with(config, ca_pem, move |conversation| {
        conversation.exactly(24);
        write(conversation, &(SETTINGS, 0, settings.to_vec()), 0);
        while let Some(head) = conversation.frame_head() {
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
            let stream = u32::from_be_bytes(head[5..].try_into().unwrap());
            let payload = conversation.exactly(usize::try_from(length).unwrap());
            match (head[3], head[4] & ACK) {
                (SETTINGS, 0) => write(conversation, &(SETTINGS, ACK, Vec::new()), 0),
                (PING, 0) => write(conversation, &(PING, ACK, payload), 0),
                (HEADERS, _) => {
                    for frame in answer(conversation.number, stream) {
                        write(conversation, &frame, stream);
                    }
                }
                _ => {}
            }
        }
    })
}

fn gate(upstream: &Upstream) -> Gate {
    let keys = "upstream: {ca_file: '{ca}', connect_to: '{upstream}', http2: true}";
    Gate::plan(upstream, &format!("{TWO_CALLERS}\n{keys}\n")).workers(1).start()
}

fn ask(gate: &Gate) -> Result<Answer, String> {
    let mut caller = gate.connect("app");
    caller.send(
        "GET /management/v1/counters HTTP/1.1\r\nHost: localhost\r\nAccept-Encoding: gzip\r\nTE: trailers\r\n\
         Connection: TE\r\n\r\n",
    );
    caller.try_answer(false)
}

/// The caller's view of a response in these frames; the next request has to succeed.
#[track_caller]
fn seen(frames: Vec<Frame>) -> (Result<Answer, String>, Gate) {
    let good = vec![fields(&[(":status", "200")], 0), data(b"second", END_STREAM)];
    let upstream =
        upstream(move |connection, stream| if (connection, stream) == (0, 1) { frames.clone() } else { good.clone() });
    let gate = gate(&upstream);
    let answer = ask(&gate);
    let second = ask(&gate).unwrap();
    assert_eq!((second.status, second.text().as_str()), (200, "second"), "after {answer:?}");
    (answer, gate)
}

#[track_caller]
fn refused(frames: Vec<Frame>, expected: &str) -> Gate {
    let (answer, gate) = seen(frames.clone());
    assert_eq!(answer.unwrap().summary(), expected, "{frames:?}");
    gate
}

#[track_caller]
fn cut(frames: Vec<Frame>) -> Gate {
    let (answer, gate) = seen(frames.clone());
    assert!(breaks_off(&answer), "{frames:?} {answer:?}");
    gate
}

#[test]
fn a_body_of_another_length_never_looks_whole() {
    let head = |length: &str| fields(&[(":status", "200"), ("content-length", length)], 0);
    cut(vec![head("9"), data(b"first", END_STREAM)]);
    cut(vec![head("9"), data(b"first", 0), fields(&[("digest", "x")], END_STREAM)]);
    cut(vec![head("9"), data(b"first", 0), (RST_STREAM, 0, vec![0, 0, 0, 8])]);
    // NO_ERROR and CANCEL are no end either.
    for code in [0, 2, 7, 8] {
        cut(vec![fields(&[(":status", "200")], 0), data(b"first", 0), (RST_STREAM, 0, vec![0, 0, 0, code])]);
    }
    let (answer, _) = seen(vec![head("3"), data(b"first", END_STREAM)]);
    let summary = answer.as_ref().map(Answer::summary);
    assert!(answer.is_err() || summary.as_deref() == Ok("502 upstream_protocol"), "{answer:?}");
}

#[test]
fn a_head_with_two_meanings_is_no_answer() {
    for head in [
        &[(":status", "200"), ("content-length", "5"), ("content-length", "5")][..],
        &[(":status", "200"), ("content-length", "+5")],
        &[(":status", "204"), ("content-length", "5")],
        &[(":status", "206")],
        &[(":status", "101")],
        &[(":status", "600")],
        &[(":status", "200"), ("transfer-encoding", "chunked")],
        &[(":status", "200"), ("connection", "close")],
        &[(":status", "200"), ("Upper", "case")],
        &[("age", "1"), (":status", "200")],
        &[("age", "1")],
    ] {
        refused(vec![fields(head, 0), data(b"first", END_STREAM)], "502 upstream_protocol");
    }
    refused(vec![fields(&[(":status", "101")], END_STREAM)], "502 upstream_protocol");
    refused(vec![data(b"first", END_STREAM)], "502 upstream_protocol");
    refused(vec![(RST_STREAM, 0, vec![0, 0, 0, 2])], "502 upstream_closed");
}

#[test]
fn an_error_that_breaks_off_is_a_refusal_of_the_gate() {
    let head = fields(&[(":status", "403")], 0);
    refused(vec![head, data(b"{\"err", 0), (RST_STREAM, 0, vec![0, 0, 0, 2])], "502 upstream_closed");
}

/// R-14
#[test]
fn a_redirect_that_leaves_is_refused() {
    let head = fields(&[(":status", "302"), ("location", "//evil.example/")], END_STREAM);
    refused(vec![head], "502 upstream_redirect");
}

/// R-15: in fields, trailers and DATA, byte by byte, with and without a length, plain and compressed.
#[test]
fn the_token_does_not_come_back() {
    let body = format!("[\"{READ_TOKEN}\",\"y0_can");
    let clean = body.replace(READ_TOKEN, &"*".repeat(READ_TOKEN.len()));
    let length = body.len().to_string();
    for status in ["200", "403"] {
        for with_length in [false, true] {
            let mut head = vec![(":status", status), ("etag", READ_TOKEN), ("vary", "x")];
            if with_length {
                head.push(("content-length", &length));
            }
            let mut frames = vec![fields(&head, 0)];
            frames.extend(body.bytes().map(|byte| data(&[byte], 0)));
            frames.push(fields(&[("digest", READ_TOKEN), ("x-checksum", "7")], END_STREAM));
            let (answer, gate) = seen(frames);
            let answer = answer.unwrap();
            assert_eq!((answer.text(), answer.field("etag"), answer.field("vary")), (clean.clone(), None, Some("x")));
            assert!(answer.trailers.iter().all(|(_, value)| value == "7"), "{:?}", answer.trailers);
            assert!(gate.metric(&["upstream_errors_total", "kind=\"reflected\""]) > 0.0);
        }
    }
    let packed = gzip(body.as_bytes());
    let frames = |status| {
        let mut frames = vec![fields(&[(":status", status), ("content-encoding", "gzip")], 0)];
        frames.extend(packed.iter().map(|byte| data(&[*byte], 0)));
        frames.push(data(b"", END_STREAM));
        frames
    };
    let gate = cut(frames("200"));
    gate.until_metric(&["upstream_errors_total", "kind=\"reflected\""], 1.0);
    refused(frames("403"), "502 upstream_reflection");
    let brotli = fields(&[(":status", "200"), ("content-encoding", "br")], 0);
    refused(vec![brotli, data(b"x", END_STREAM)], "502 upstream_encoding");
}

/// Requests beyond the streams of a connection go on another one: inside the first, nothing would call them back.
#[test]
fn no_request_waits_inside_a_connection() {
    const ONE_STREAM: &[u8] = &[0, 3, 0, 0, 0, 1];
    let good = vec![fields(&[(":status", "200")], 0), data(b"{}", END_STREAM)];
    let arrived = Signal::default();
    let says = arrived.clone();
    let upstream = upstream_with(ONE_STREAM, move |connection, stream| {
        if (connection, stream) == (0, 3) {
            says.give();
            return Vec::new();
        }
        good.clone()
    });
    let gate = gate(&upstream);
    assert_eq!(ask(&gate).unwrap().summary(), "200");
    let mut waits = gate.connect("app");
    waits.send("GET /management/v1/counters HTTP/1.1\r\nHost: localhost\r\n\r\n");
    arrived.wait("the connection has no stream left");
    assert_eq!(ask(&gate).unwrap().summary(), "200");
    assert_eq!(upstream.connections(), 2);
}

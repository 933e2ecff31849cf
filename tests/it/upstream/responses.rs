//! Misbehaving responses, byte for byte: the caller's view, and that the next request has a connection of its own.

use std::net::TcpListener;

use crate::harness::upstream::certificate;
use crate::harness::{Answer, Conversation, Gate, Signal, TWO_CALLERS, Upstream, breaks_off};

const GET: &str = "GET /management/v1/counters HTTP/1.1\r\nHost: localhost\r\n\r\n";

/// The way in which an upstream ends its output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// Closes as TLS requires.
    Close,
    /// Closes the TCP connection without a TLS alert.
    Vanish,
    /// With a reset.
    Reset,
    /// Not at all: the gate has to.
    Wait,
}
use End::{Close, Reset, Vanish, Wait};

fn perform(conversation: &mut Conversation, bytes: &[u8], end: End) {
    conversation.write(bytes);
    match end {
        Close => conversation.close(),
        Vanish => {}
        Reset => conversation.reset(),
        Wait => while conversation.discard() > 0 {},
    }
}

/// The caller's view of this response. The next request has to succeed on another connection, with
/// nothing of the first response in it.
#[track_caller]
fn seen(bytes: impl AsRef<[u8]>, end: End, timeouts: &str) -> Result<Answer, String> {
    let (bytes, ended) = (bytes.as_ref().to_vec(), Signal::default());
    let ends = ended.clone();
    let upstream = Upstream::run(move |conversation| {
        while conversation.request_head().is_some() {
            if conversation.number == 0 {
                perform(conversation, &bytes, end);
                return ends.give();
            }
            conversation.answer("200 OK", "text/plain", "second");
        }
    });
    let upstream_keys =
        format!("upstream: {{ca_file: '{{ca}}', connect_to: '{{upstream}}', timeouts: {{{timeouts}}}}}");
    let gate = Gate::plan(&upstream, &format!("{TWO_CALLERS}\n{upstream_keys}\n")).workers(1).start();
    let mut caller = gate.connect("app");
    caller.send(GET);
    let answer = caller.try_answer(false);
    ended.wait("the connection is given up");
    let mut next = if answer.is_ok() { caller } else { gate.connect("app") };
    next.send(GET);
    let second = next.answer();
    assert_eq!((second.status, second.text().as_str()), (200, "second"), "after {answer:?}");
    assert_eq!(upstream.connections(), 2);
    answer
}

#[track_caller]
fn refused(bytes: impl AsRef<[u8]>, end: End, timeouts: &str, expected: &str) {
    let shown = String::from_utf8_lossy(&bytes.as_ref()[..bytes.as_ref().len().min(300)]).into_owned();
    let answer = seen(bytes, end, timeouts).unwrap_or_else(|error| panic!("{shown:?} {end:?}: {error}"));
    assert_eq!(answer.summary(), expected, "{shown:?} {end:?}");
    assert!(!answer.text().contains("first"), "{shown:?} {end:?}");
}

#[track_caller]
fn cut(bytes: &str, end: End, timeouts: &str) {
    let answer = seen(bytes, end, timeouts);
    assert!(breaks_off(&answer), "{bytes:?} {end:?} {answer:?}");
}

fn with(fields: &str) -> String {
    format!("HTTP/1.1 200 OK\r\n{fields}\r\n\r\n5\r\nfirst\r\n0\r\n\r\n")
}

#[test]
fn a_response_with_an_ambiguous_end_is_rejected() {
    for fields in [
        "Content-Length: 5\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 15",
        "Transfer-Encoding: gzip, chunked",
        "Transfer-Encoding: chunked, gzip",
        "Transfer-Encoding: chunked, chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: identity",
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding: chunked;q=1",
        "Transfer-Encoding:",
        "Transfer-Encoding: \x0bchunked",
        "Content-Length: 15\r\nContent-Length: 15",
        "Content-Length: 15\r\nContent-Length: 5",
        "Content-Length: 15, 15",
        "Content-Length: +15",
        "Content-Length: -15",
        "Content-Length:",
        "Content-Length: 1 5",
        "Content-Length: 0xf",
        "Content-Length: 99999999999999999999999999",
    ] {
        refused(with(fields), Wait, "", "502 upstream_protocol");
    }
    refused(with("Transfer-Encoding: chunked").replace("HTTP/1.1", "HTTP/1.0"), Wait, "", "502 upstream_protocol");
}

/// R-12 too: what nobody asked for is no answer.
#[test]
fn a_response_with_an_unexpected_status_is_rejected() {
    for head in [
        "HTTP/1.1 204 No Content\r\nContent-Length: 5",
        "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked",
        "HTTP/1.1 304 Not Modified\r\nContent-Length: 5, 5",
        "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 0-4/9\r\nContent-Length: 5",
        "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: h2c",
        "HTTP/1.1 600 What\r\nContent-Length: 5",
        "HTTP/1.1 999 What\r\nContent-Length: 5",
        "HTTP/1.1 099 What\r\nContent-Length: 5",
        "HTTP/1.1 20 OK\r\nContent-Length: 5",
        "HTTP/1.1 2000 OK\r\nContent-Length: 5",
        "HTTP/1.1 -200 OK\r\nContent-Length: 5",
        "HTTP/9.9 200 OK\r\nContent-Length: 5",
        "HTTP/2.0 200 OK\r\nContent-Length: 5",
        "HTTP 200 OK\r\nContent-Length: 5",
        "http/1.1 200 OK\r\nContent-Length: 5",
        "what?",
        "\0\0\0",
        "220 ready\r\n",
        "first\r\nHTTP/1.1 200 OK\r\nContent-Length: 5",
    ] {
        refused(format!("{head}\r\n\r\nfirst"), Wait, "", "502 upstream_protocol");
    }
}

#[test]
fn a_response_with_invalid_or_too_many_fields_is_rejected() {
    for fields in ["no colon", "A : b", "A: b\r\n c: d", ": x", "A: \0", "A\0: b", "A: b\rc", "\u{e9}: x"] {
        refused(with(&format!("Content-Length: 15\r\n{fields}")), Wait, "", "502 upstream_protocol");
    }
    refused(with(&"A: b\r\n".repeat(200)), Wait, "", "502 upstream_protocol");
    refused(with(&format!("A: {}", "x".repeat(1_000_000))), Wait, "", "502 upstream_protocol");
    refused(format!("HTTP/1.1 200 {}", "x".repeat(1_000_000)), Wait, "", "502 upstream_protocol");
}

#[test]
fn interim_responses_without_an_end_are_no_answer() {
    for interim in
        ["HTTP/1.1 103 Early Hints\r\nVary: x\r\n\r\n", "HTTP/1.1 100 Continue\r\n\r\n", "HTTP/1.1 199 X\r\n\r\n"]
    {
        refused(interim.repeat(2_000_000 / interim.len()), Wait, "", "502 upstream_protocol");
    }
    // An invalid interim response ends it as well.
    refused("HTTP/1.1 103 Early Hints\r\nno colon\r\n\r\n", Wait, "", "502 upstream_protocol");
}

#[test]
fn a_head_that_does_not_come_to_its_end_is_no_answer() {
    let head = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-Field: first\r\n\r\n";
    let parts = ["", "HTT", "HTTP/1.1 20", "HTTP/1.1 200 OK\r\n", "HTTP/1.1 200 OK\r\nConte", &head[..head.len() - 1]];
    for part in parts {
        for end in [Close, Vanish, Reset] {
            refused(part, end, "", "502 upstream_closed");
        }
        refused(part, Wait, "response_headers: 300ms", "504 upstream_timeout");
    }
    let interim = "HTTP/1.1 102 Processing\r\n\r\n";
    refused(interim, Close, "", "502 upstream_closed");
    refused(interim, Wait, "response_headers: 300ms", "504 upstream_timeout");
}

/// Bodies that do not come to their end, without the head.
const UNFINISHED: [(&str, &str); 8] = [
    ("Content-Length: 100", "first"),
    ("Transfer-Encoding: chunked", "5\r\nfirst\r\n"),
    ("Transfer-Encoding: chunked", "9\r\nfirst"),
    ("Transfer-Encoding: chunked", "5\r\nfirst"),
    ("Transfer-Encoding: chunked", "5\r\nfirst\r\n1"),
    ("Transfer-Encoding: chunked", "5\r\nfirst\r\n0\r\n"),
    ("Transfer-Encoding: chunked", "5\r\nfirst\r\n0\r\nX-Check"),
    ("Content-Length: 100", ""),
];

/// Invalid bodies.
const BROKEN: [&str; 7] = [
    "5\r\nfirst\r\nzz\r\n",
    "5\r\nfirst\r\n-1\r\n",
    "5\r\nfirst\r\n\r\n",
    "5\r\nfirst\r\n11111111111111111\r\nx",
    "5\r\nfirstX\r\n0\r\n\r\n",
    "5\r\nfirst\r\n0\r\nno colon\r\n\r\n",
    "5 5\r\nfirst\r\n0\r\n\r\n",
];

#[test]
fn a_body_that_does_not_come_to_its_end_is_cut() {
    for (framing, body) in UNFINISHED {
        let bytes = format!("HTTP/1.1 200 OK\r\n{framing}\r\n\r\n{body}");
        for end in [Close, Vanish, Reset] {
            cut(&bytes, end, "");
        }
        cut(&bytes, Wait, "body_idle: 300ms");
    }
    for end in [Vanish, Reset] {
        // Its end is the connection's, which TLS has to confirm (RFC 9112, section 9.8).
        cut("HTTP/1.1 200 OK\r\n\r\nfirst", end, "");
    }
    cut("HTTP/1.1 200 OK\r\n\r\nfirst", Wait, "body_idle: 300ms");
}

#[test]
fn an_invalid_body_is_cut() {
    for body in BROKEN {
        cut(&format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{body}"), Wait, "");
    }
}

#[test]
fn the_body_of_an_error_that_does_not_come_to_its_end_is_a_refusal_of_the_gate() {
    for (framing, body) in UNFINISHED {
        let bytes = format!("HTTP/1.1 403 Forbidden\r\n{framing}\r\n\r\n{body}");
        refused(&bytes, Close, "", "502 upstream_closed");
        refused(&bytes, Reset, "", "502 upstream_closed");
        refused(&bytes, Wait, "body_idle: 300ms", "504 upstream_timeout");
    }
    for body in BROKEN {
        let bytes = format!("HTTP/1.1 500 Oops\r\nTransfer-Encoding: chunked\r\n\r\n{body}");
        refused(bytes, Wait, "", "502 upstream_protocol");
    }
    // An error longer than the part that is read ahead is passed on, and cut.
    let long = format!("HTTP/1.1 403 Forbidden\r\nContent-Length: 20000\r\n\r\n{}", "x".repeat(15_000));
    cut(&long, Close, "");
    cut(&long, Wait, "body_idle: 300ms");
}

#[test]
fn an_upstream_that_never_finishes_its_handshake_is_given_up() {
    for bytes in [&b""[..], b"\x16", b"\x16\x03\x03\x00\x40\x02"] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let place = listener.local_addr().unwrap().to_string();
        std::thread::spawn(move || {
            let mut open = Vec::new();
            for mut socket in listener.incoming().map_while(Result::ok) {
                std::io::Write::write_all(&mut socket, bytes).unwrap();
                open.push(socket);
            }
        });
        let (_, ca_pem) = certificate("api-metrika.yandex.net");
        let keys = "upstream: {ca_file: '{ca}', connect_to: '{upstream}', timeouts: {connect: 300ms}}";
        let gate = Gate::plan_for(&place, &ca_pem, &format!("{TWO_CALLERS}\n{keys}\n")).start();
        assert_eq!(gate.get("app", "/management/v1/counters").summary(), "503 upstream_unreachable", "{bytes:?}");
    }
}

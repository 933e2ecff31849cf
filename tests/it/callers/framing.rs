//! R-11: where one request ends and the next begins. Whatever a caller sends, Metrica receives exactly the requests that
//! it answers, and an ambiguous message is refused and ends the connection.

use crate::harness::gate::count;
use crate::harness::{Caller, Gate, TWO_CALLERS, Upstream};
use crate::policy::rejections::assert_is;

const GET: &str = "GET /management/v1/counters HTTP/1.1\r\nHost: localhost\r\n\r\n";

/// A second request, which a lenient reader would find in the body of the first.
const HIDDEN: &str = "GET /management/v1/clients HTTP/1.1\r\nHost: localhost\r\n\r\n";

/// A header that is wrong in one way, and why it is refused. `§` is replaced by the rest of a good header.
const HEADERS: [(&str, &str); 77] = [
    // Lines (RFC 9112, section 2.2).
    ("\0\0\0\0\r\n\r\n", "malformed_request"),
    ("\x16\x03\x01\x02\0\x01\0\x01\u{7f}\x03\x03", "malformed_request"),
    ("GET /a HTTP/1.1\nHost: localhost\n\n", "malformed_request"),
    ("GET /a HTTP/1.1\r\nHost: localhost\n\r\n", "malformed_request"),
    ("GET /a HTTP/1.1\r\nHost: localhost\r\n\n", "malformed_request"),
    ("GET /a HTTP/1.1\nHost: localhost\r\n\r\n", "malformed_request"),
    ("GET /a HTTP/1.1\rHost: localhost\r\r", "malformed_request"),
    ("GET /a HTTP/1.1\r\nA: b\rc\r\nHost: localhost\r\n\r\n", "malformed_request"),
    ("GET /a HTTP/1.1\r\r\nHost: localhost\r\n\r\n", "malformed_request"),
    ("GET /a HTTP/1.1\r\nHost: localhost\r\r\n\r\n", "malformed_request"),
    ("\nGET /a HTTP/1.1\r\nHost: localhost\r\n\r\n", "malformed_request"),
    ("\r\r\nGET /a HTTP/1.1\r\nHost: localhost\r\n\r\n", "malformed_request"),
    // The request line (section 3).
    ("hello\r\n\r\n", "malformed_request"),
    ("GET\r\n\r\n", "malformed_request"),
    ("GET /a\r\n\r\n", "malformed_request"),
    ("GET  /a HTTP/1.1\r\n§", "malformed_request"),
    ("GET /a  HTTP/1.1\r\n§", "malformed_request"),
    ("GET /a HTTP/1.1 \r\n§", "malformed_request"),
    (" GET /a HTTP/1.1\r\n§", "malformed_request"),
    ("\tGET /a HTTP/1.1\r\n§", "malformed_request"),
    ("GET\t/a\tHTTP/1.1\r\n§", "malformed_request"),
    ("GET /a b HTTP/1.1\r\n§", "malformed_request"),
    ("GET /a HTTP/1.2\r\n§", "malformed_request"),
    ("GET /a HTTP/9.9\r\n§", "malformed_request"),
    ("GET /a HTTP/0.9\r\n§", "malformed_request"),
    ("GET /a HTTP/1.10\r\n§", "malformed_request"),
    ("GET /a HTTP/1\r\n§", "malformed_request"),
    ("GET /a http/1.1\r\n§", "malformed_request"),
    ("GET /a HTTPS/1.1\r\n§", "malformed_request"),
    ("G(T /a HTTP/1.1\r\n§", "malformed_request"),
    ("G\u{415}T /a HTTP/1.1\r\n§", "malformed_request"),
    ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "malformed_request"),
    // Fields (section 5).
    ("GET /a HTTP/1.1\r\n A: b\r\n§", "malformed_request"),
    ("GET /a HTTP/1.1\r\nA: b\r\n c\r\n§", "malformed_request"),
    ("GET /a HTTP/1.1\r\nA: b\r\n\tc\r\n§", "malformed_request"),
    ("GET /a HTTP/1.1\r\nA: b\r\n \r\n§", "malformed_request"),
    ("GET /a HTTP/1.1\r\nA\r\n§", "malformed_request"),
    ("GET /a HTTP/1.1\r\nA : b\r\n§", "malformed_request"),
    ("GET /a HTTP/1.1\r\nTransfer-Encoding : chunked\r\n§", "malformed_request"),
    ("GET /a HTTP/1.1\r\nContent-Length\t: 5\r\n§", "malformed_request"),
    ("GET /a HTTP/1.1\r\n: b\r\n§", "malformed_request"),
    ("GET /a HTTP/1.1\r\nA B: c\r\n§", "malformed_request"),
    ("GET /a HTTP/1.1\r\n\u{410}: b\r\n§", "malformed_request"),
    ("GET /a HTTP/1.1\r\nA(b): c\r\n§", "malformed_request"),
    ("GET /a HTTP/1.1\r\n\0A: c\r\n§", "malformed_request"),
    ("GET /a HTTP/1.1\r\nA: \0\r\n§", "malformed_request"),
    ("GET /a HTTP/1.1\r\nA: \x0b\r\n§", "malformed_request"),
    ("GET /a HTTP/1.1\r\nA: \x1b[31m\r\n§", "malformed_request"),
    ("GET /a HTTP/1.1\r\nA: \x7f\r\n§", "malformed_request"),
    ("GET /a HTTP/1.1\r\nTransfer-Encoding: \x0bchunked\r\n§", "malformed_request"),
    // Host (section 3.2).
    ("GET /a HTTP/1.1\r\n\r\n", "bad_host"),
    ("GET /a HTTP/1.0\r\n\r\n", "bad_host"),
    ("GET /a HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n", "bad_host"),
    ("GET /a HTTP/1.1\r\nHost: localhost\r\nhOST: evil\r\n\r\n", "bad_host"),
    ("GET /a HTTP/1.1\r\nHost: localhost, evil\r\n\r\n", "bad_host"),
    ("GET /a HTTP/1.1\r\nHost: user@localhost\r\n\r\n", "bad_host"),
    ("GET /a HTTP/1.1\r\nHost: localhost/a\r\n\r\n", "bad_host"),
    ("GET /a HTTP/1.1\r\nHost: localhost:80x\r\n\r\n", "bad_host"),
    ("GET http://localhost/a HTTP/1.1\r\nHost: evil\r\n\r\n", "bad_host"),
    ("GET http://evil/a HTTP/1.1\r\nHost: localhost\r\n\r\n", "bad_host"),
    ("GET http://localhost:81/a HTTP/1.1\r\nHost: localhost\r\n\r\n", "bad_host"),
    ("GET http://u:p@localhost/a HTTP/1.1\r\nHost: localhost\r\n\r\n", "bad_target"),
    ("GET ftp://localhost/a HTTP/1.1\r\nHost: localhost\r\n\r\n", "bad_target"),
    ("GET localhost:80 HTTP/1.1\r\nHost: localhost:80\r\n\r\n", "bad_target"),
    // Lengths (section 6).
    ("POST /a HTTP/1.1\r\nContent-Length: +5\r\n§", "bad_framing"),
    ("POST /a HTTP/1.1\r\nContent-Length: 5, 5\r\n§", "bad_framing"),
    ("POST /a HTTP/1.1\r\nContent-Length: 0x5\r\n§", "bad_framing"),
    ("POST /a HTTP/1.1\r\nContent-Length: \r\n§", "bad_framing"),
    ("POST /a HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n§", "bad_framing"),
    ("POST /a HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 5\r\n§", "bad_framing"),
    ("POST /a HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n§", "bad_framing"),
    ("POST /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n§", "bad_framing"),
    ("POST /a HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n§", "bad_framing"),
    ("POST /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n§", "bad_framing"),
    ("POST /a HTTP/1.1\r\nTransfer-Encoding: chunked, identity\r\n§", "bad_framing"),
    ("POST /a HTTP/1.1\r\nTransfer-Encoding: \"chunked\"\r\n§", "bad_framing"),
    ("POST /a HTTP/1.0\r\nTransfer-Encoding: chunked\r\n§", "bad_framing"),
];

fn whole(header: &str) -> String {
    header.replace("/a", "/management/v1/counters").replace('§', "Host: localhost\r\n\r\n")
}

#[track_caller]
fn is_refused_and_closed(caller: &mut Caller, reason: &str, bytes: &str) {
    let answer = caller.try_answer(false).unwrap_or_else(|error| panic!("{bytes:?}: {error}"));
    assert_eq!(answer.summary(), format!("400 {reason}"), "{bytes:?}");
    assert_is(&answer, &format!("400 {reason}"));
    assert_eq!(answer.field("connection"), Some("close"), "{bytes:?}");
    assert!(caller.is_closed(), "nothing follows, and the connection ends: {bytes:?}");
}

/// R-11.
#[test]
fn a_header_that_could_be_read_in_two_ways_is_refused() {
    let upstream = Upstream::plain();
    let gate = Gate::start(&upstream, TWO_CALLERS);
    for (header, reason) in HEADERS {
        let header = whole(header);
        // The following bytes are a body to one reader, a request to another.
        for behind in ["", "0\r\n\r\n", "hello"].map(|body| format!("{body}{HIDDEN}")) {
            let mut caller = gate.connect("crm");
            caller.send(format!("{header}{behind}"));
            is_refused_and_closed(&mut caller, reason, &header);
        }
    }
    assert_eq!(upstream.connections(), 0, "nothing was sent upstream");
    let counted = ["requests_total", "caller=\"crm\"", "operation=\"none\"", "method=\"other\"", "code=\"400\""];
    gate.until_metric(&counted, count(3 * HEADERS.len()));
    gate.until_metric(&["in_flight_requests"], 0.0);
}

/// R-11: it makes no difference how the bytes arrive.
#[test]
fn a_header_is_refused_byte_by_byte_too() {
    let upstream = Upstream::plain();
    let gate = Gate::start(&upstream, TWO_CALLERS);
    for (header, reason) in HEADERS {
        let header = whole(header);
        let mut caller = gate.connect("crm");
        for byte in header.as_bytes() {
            if !caller.try_send([*byte]) {
                break;
            }
        }
        is_refused_and_closed(&mut caller, reason, &header);
    }
    assert_eq!(upstream.connections(), 0, "nothing was sent upstream");
}

/// R-11: requests before it are answered, and it is answered after them.
#[test]
fn an_invalid_request_is_answered_after_those_before_it() {
    let upstream = Upstream::plain();
    let gate = Gate::start(&upstream, TWO_CALLERS);
    let post = "POST /management/v1/counters HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}";
    for (number, (header, reason)) in HEADERS.into_iter().enumerate() {
        let header = whole(header);
        let mut caller = gate.connect("crm");
        if number % 2 == 0 {
            caller.send(format!("{GET}{post}{header}{HIDDEN}"));
            assert_eq!(caller.answer().summary(), "200", "{header:?}");
            assert_eq!(caller.answer().summary(), "200", "{header:?}");
        } else {
            caller.send(post);
            assert_eq!(caller.answer().summary(), "200", "{header:?}");
            caller.send(format!("{GET}{header}"));
            assert_eq!(caller.answer().summary(), "200", "{header:?}");
        }
        is_refused_and_closed(&mut caller, reason, &header);
    }
    assert_eq!(upstream.requests().len(), 2 * HEADERS.len());
    assert!(!upstream.requests().iter().any(|head| head.contains("/clients")));
}

/// R-11: behind a request that ends the connection, nothing is read, and nothing answered.
#[test]
fn nothing_is_answered_behind_the_last_request_of_a_connection() {
    let upstream = Upstream::plain();
    let gate = Gate::start(&upstream, TWO_CALLERS);
    let last = [
        "GET /management/v1/counters HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
        "GET /management/v1/counters HTTP/1.0\r\nHost: localhost\r\n\r\n",
    ];
    for (number, last) in last.into_iter().enumerate() {
        for behind in [HIDDEN, "\0\0\r\n\r\n", "GET / HTTP/9.9\r\n\r\n"] {
            let mut caller = gate.connect("app");
            caller.send(format!("{last}{behind}"));
            assert_eq!(caller.answer().summary(), "200");
            assert_eq!(caller.rest(), b"", "{number} {behind:?}");
        }
    }
    assert_eq!(upstream.requests().len(), 6);
}

/// Real clients send an empty line after a body, odd but valid spacing, and offers to change the protocol.
#[test]
fn unusual_and_valid_requests_are_served() {
    let upstream = Upstream::plain();
    let gate = Gate::start(&upstream, TWO_CALLERS);
    let mut caller = gate.connect("app");
    for header in [
        "\r\nGET /a HTTP/1.1\r\n§",
        "\r\n\r\n\r\nGET /a HTTP/1.1\r\n§",
        "GET /a HTTP/1.1\r\nhost:localhost\r\n\r\n",
        "GET /a HTTP/1.1\r\nHOST: \t LOCALHOST:8080 \t\r\n\r\n",
        "GET /a HTTP/1.1\r\nHost: [::1]:80\r\n\r\n",
        "GET /a HTTP/1.1\r\nA:\r\nB: \r\nC: \u{442}\u{435}\u{43a}\u{441}\u{442}\tx\r\n§",
        "GET /a HTTP/1.1\r\n!#$%&'*+-.^_`|~0: x\r\n§",
        "GET http://LocalHost/a HTTP/1.1\r\n§",
        "GET https://localhost:1/a HTTP/1.1\r\nHost: localhost:1\r\n\r\n",
        "GET /a HTTP/1.1\r\nContent-Length: 0\r\n§",
        "GET /a HTTP/1.1\r\nContent-Length: 0002\r\n§{}",
        "GET /a HTTP/1.1\r\nTransfer-Encoding: \tCHUNKED \r\n§0\r\n\r\n",
        "GET /a HTTP/1.1\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n§",
        "GET /a HTTP/1.1\r\nConnection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n§",
    ] {
        caller.send(whole(header));
        let answer = caller.answer();
        assert_eq!((answer.summary().as_str(), answer.text().as_str()), ("200", "{}"), "{header:?}");
    }
    let heads = upstream.requests();
    assert!(heads.iter().all(|head| head.matches("authorization: OAuth ").count() == 1), "{heads:?}");
    assert!(!heads.iter().any(|head| head.contains("upgrade") || head.contains("http2")), "R-12: {heads:?}");
}

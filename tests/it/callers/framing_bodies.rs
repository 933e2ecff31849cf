//! where a body ends. A malformed chunk never looks like the end of a request to Metrica.

use std::sync::{Arc, Mutex};

use crate::harness::gate::count;
use crate::harness::{Gate, TWO_CALLERS, Upstream};

const HEAD: &str = "POST /management/v1/counters HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n";
const HIDDEN: &str = "GET /management/v1/clients HTTP/1.1\r\nHost: localhost\r\n\r\n";

/// Bodies that are wrong in one way, and why.
const BROKEN: [(&str, &str); 34] = [
    ("\r\n", "bad_framing"),
    ("\n", "bad_framing"),
    ("zz\r\n", "bad_framing"),
    ("-1\r\n", "bad_framing"),
    ("+1\r\na\r\n0\r\n\r\n", "bad_framing"),
    ("0x1\r\na\r\n0\r\n\r\n", "bad_framing"),
    (" 1\r\na\r\n0\r\n\r\n", "bad_framing"),
    ("1 \r\na\r\n0\r\n\r\n", "bad_framing"),
    ("1\t\r\na\r\n0\r\n\r\n", "bad_framing"),
    ("1\na\r\n0\r\n\r\n", "bad_framing"),
    ("1\r\na\n0\r\n\r\n", "bad_framing"),
    ("1\ra\r\n0\r\n\r\n", "bad_framing"),
    ("1\r\na0\r\n\r\n", "bad_framing"),
    ("1\r\nab\r\n0\r\n\r\n", "bad_framing"),
    ("1\r\na\r0\r\n\r\n", "bad_framing"),
    ("1\r\na\r\n0\n\r\n", "bad_framing"),
    ("1\r\na\r\n0\n\n", "bad_framing"),
    ("1;a\nb\r\na\r\n0\r\n\r\n", "bad_framing"),
    ("1;\na\r\n0\r\n\r\n", "bad_framing"),
    ("1;a\rb\r\na\r\n0\r\n\r\n", "bad_framing"),
    ("1;\0\r\na\r\n0\r\n\r\n", "bad_framing"),
    ("1 ;a=b\r\na\r\n0\r\n\r\n", "bad_framing"),
    ("1,1\r\na\r\n0\r\n\r\n", "bad_framing"),
    ("10000000000000001\r\na\r\n0\r\n\r\n", "bad_framing"),
    ("FFFFFFFFFFFFFFFF\r\na\r\n0\r\n\r\n", "bad_framing"),
    ("1\r\na\r\n\r\n0\r\n\r\n", "bad_framing"),
    ("1\r\na\r\n0\r\nA: b\n\r\n", "malformed_request"),
    ("1\r\na\r\n0\r\n\n", "malformed_request"),
    ("1\r\na\r\n0\r\nA: b\r\n c\r\n\r\n", "malformed_request"),
    ("1\r\na\r\n0\r\nA : b\r\n\r\n", "malformed_request"),
    ("1\r\na\r\n0\r\nGET / HTTP/1.1\r\n\r\n", "malformed_request"),
    ("1\r\na\r\n0\r\nContent-Length: 5\r\n\r\n", "malformed_request"),
    ("1\r\na\r\n0\r\nTransfer-encoding: chunked\r\n\r\n", "malformed_request"),
    ("1\r\na\r\n0\r\nAUTHORIZATION: OAuth mine\r\n\r\n", "malformed_request"),
];

/// Records every byte behind a request's header, and never answers one whose body does not end.
fn upstream(bodies: &Arc<Mutex<Vec<String>>>) -> Upstream {
    let bodies = bodies.clone();
    Upstream::run(move |conversation| {
        while conversation.request_head().is_some() {
            let mut body = String::new();
            loop {
                let Some(line) = conversation.try_line() else { return };
                body.push_str(&line);
                body.push('|');
                if line.is_empty() && (body.ends_with("|0||") || body == "0||") {
                    break;
                }
            }
            bodies.lock().unwrap().push(body);
            conversation.answer("200 OK", "application/json", "{}");
        }
    })
}

///
#[test]
fn a_body_that_could_end_in_two_places_never_ends_upstream() {
    let bodies = Arc::default();
    let upstream = upstream(&bodies);
    let gate = Gate::start(&upstream, TWO_CALLERS);
    for (broken, reason) in BROKEN {
        for split in [false, true] {
            let mut caller = gate.connect("crm");
            caller.send(HEAD);
            if split {
                for byte in broken.as_bytes() {
                    if !caller.try_send([*byte]) {
                        break;
                    }
                }
            } else {
                caller.send(format!("{broken}{HIDDEN}"));
            }
            let answer = caller.try_answer(false).unwrap_or_else(|error| panic!("{broken:?}: {error}"));
            assert_eq!(answer.summary(), format!("400 {reason}"), "{broken:?}");
            assert!(caller.is_closed(), "{broken:?}");
        }
    }
    assert_eq!(*bodies.lock().unwrap(), Vec::<String>::new(), "no body came to an end");
    assert!(!upstream.requests().iter().any(|head| head.contains("/clients")));
    gate.until_metric(&["requests_total", "code=\"400\""], count(2 * BROKEN.len()));
    assert_eq!(gate.metric(&["requests_total", "code=\"200\""]), 0.0);
}

/// Valid chunks pass without their extensions, which are hop-by-hop (RFC 9112, section 7.1.1).
#[test]
fn chunks_to_the_letter_pass() {
    let bodies = Arc::default();
    let upstream = upstream(&bodies);
    let gate = Gate::start(&upstream, TWO_CALLERS);
    let mut caller = gate.connect("crm");
    let long = format!("1;{}\r\na\r\n0\r\n\r\n", "x".repeat(200));
    for (sent, expected) in [
        ("0\r\n\r\n", "0||"),
        ("000;last\r\n\r\n", "0||"),
        ("1\r\na\r\n0\r\n\r\n", "1|a|0||"),
        ("00a\r\n0123456789\r\n0\r\n\r\n", "A|0123456789|0||"),
        ("1;name=\"va lue\";other\r\na\r\n0\r\n\r\n", "1|a|0||"),
        (&long, "1|a|0||"),
    ] {
        caller.send(format!("{HEAD}{sent}"));
        assert_eq!(caller.answer().summary(), "200", "{sent:?}");
        assert_eq!(bodies.lock().unwrap().pop().as_deref(), Some(expected), "{sent:?}");
    }
}

/// extensions that add up are refused, however small each one is.
#[test]
fn extensions_are_bounded() {
    let bodies = Arc::default();
    let upstream = upstream(&bodies);
    let gate = Gate::start(&upstream, TWO_CALLERS);
    let one = format!("1;{}\r\na\r\n0\r\n\r\n", "x".repeat(300));
    let many = "1;xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\r\na\r\n".repeat(100);
    for body in [one, many] {
        let mut caller = gate.connect("crm");
        caller.try_send(format!("{HEAD}{body}"));
        assert_eq!(caller.answer().summary(), "400 bad_framing");
        assert!(caller.is_closed());
    }
    assert_eq!(*bodies.lock().unwrap(), Vec::<String>::new(), "no body came to an end");
}

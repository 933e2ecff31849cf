//! Interim responses: `Expect: 100-continue` from end to end, 103, and a 101 that nobody asked for (R-12).

use std::time::{Duration, Instant};

use crate::harness::gate::until;
use crate::harness::{Gate, READ_TOKEN, Signal, TWO_CALLERS, Upstream};

const UPLOAD: &str = "/management/v1/counter/1/offline_conversions/upload";

fn expecting(framing: &str) -> String {
    format!("POST {UPLOAD} HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\n{framing}\r\n\r\n")
}

#[test]
fn the_body_is_asked_for_when_the_upstream_asks_for_it() {
    for (framing, body) in [("Content-Length: 4", "body"), ("Transfer-Encoding: chunked", "4\r\nbody\r\n0\r\n\r\n")] {
        let (arrived, asked) = (Signal::default(), Signal::default());
        let (arrives, asks) = (arrived.clone(), asked.clone());
        let upstream = Upstream::run(move |conversation| {
            let Some(head) = conversation.request_head() else { return };
            arrives.give();
            asks.wait("the test lets the upstream ask");
            conversation.write("HTTP/1.1 100 Continue\r\n\r\n");
            let body = conversation.request_body(&head);
            conversation.answer("200 OK", "text/plain", &String::from_utf8_lossy(&body));
            conversation.request_head();
        });
        let gate = Gate::start(&upstream, TWO_CALLERS);
        let mut caller = gate.connect("crm");
        caller.send(expecting(framing));
        arrived.wait("the head arrived");
        assert_eq!(caller.received(), b"", "nothing is said before the upstream said something");
        asked.give();
        assert_eq!(caller.head().unwrap().0, 100);
        caller.send(body);
        let answer = caller.answer();
        assert_eq!((answer.status, answer.text().as_str(), answer.interim), (200, "body", vec![]));
        let head = upstream.requests().remove(0);
        assert!(head.contains("\r\nexpect: 100-continue\r\n"), "{head}");
    }
}

#[test]
fn a_refusal_of_the_upstream_comes_before_the_body_and_in_its_place() {
    let ended = Signal::default();
    let noticed = ended.clone();
    let upstream = Upstream::run(move |conversation| {
        if conversation.request_head().is_some() && conversation.number == 0 {
            conversation.answer("403 Forbidden", "application/json", r#"{"errors":[{"error_type":"access_denied"}]}"#);
            // No byte of the body is sent: the connection, which has half a request on it, is closed.
            assert!(conversation.is_closed());
            noticed.give();
        } else {
            conversation.answer("200 OK", "application/json", "{}");
        }
    });
    let gate = Gate::start(&upstream, TWO_CALLERS);
    let mut caller = gate.connect("crm");
    caller.send(expecting("Content-Length: 1000000"));
    let answer = caller.answer();
    assert_eq!((answer.summary().as_str(), answer.interim), ("403", vec![]));
    ended.wait("the connection is given up");
    gate.until_metric(
        &["auth_failures_total", "origin=\"upstream\"", "caller=\"crm\"", "code=\"403\"", "reason=\"ambiguous\""],
        1.0,
    );
    assert_eq!(gate.metric(&["upstream_errors_total"]), 0.0, "nothing went wrong");
    assert_eq!(gate.metric(&["request_bytes_total"]), 0.0);
    assert_eq!(gate.get("crm", "/management/v1/counters").summary(), "200");
}

#[test]
fn the_next_request_of_a_caller_that_was_refused_before_its_body_is_understood() {
    // A refused caller that withholds its body either sends its next request or has to reconnect.
    let upstream = Upstream::run(|conversation| {
        while let Some(head) = conversation.request_head() {
            if head.starts_with("POST") {
                conversation.answer("403 Forbidden", "application/json", "{}");
                return;
            }
            conversation.answer("200 OK", "application/json", "{}");
        }
    });
    let gate = Gate::start(&upstream, TWO_CALLERS);
    let mut caller = gate.connect("crm");
    caller.send(expecting("Content-Length: 1000000"));
    let answer = caller.answer();
    assert_eq!(answer.summary(), "403");
    let sent = caller.try_send("GET /management/v1/counters?next HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let next = caller.try_answer(false);
    let arrived = upstream.requests().iter().any(|head| head.contains("?next"));
    // Whether the body comes is not known, so the connection can only be closed (RFC 9110, section 10.1.1).
    assert!(sent && !arrived && next.as_ref().is_err_and(|error| !error.contains("unavailable")), "{next:?}");
    assert_eq!(answer.field("connection"), Some("close"), "and the caller is told");
}

#[test]
fn an_upstream_that_does_not_know_expect_gets_the_body_after_a_moment() {
    let upstream = Upstream::run(|conversation| {
        while let Some(head) = conversation.request_head() {
            let body = conversation.request_body(&head);
            conversation.answer("200 OK", "text/plain", &String::from_utf8_lossy(&body));
        }
    });
    let gate = Gate::start(&upstream, TWO_CALLERS);
    let mut caller = gate.connect("crm");
    let start = Instant::now();
    caller.send(expecting("Content-Length: 4"));
    assert_eq!(caller.head().unwrap().0, 100);
    let waited = start.elapsed();
    assert!((Duration::from_millis(900)..Duration::from_secs(5)).contains(&waited), "{waited:?}");
    caller.send("body");
    assert_eq!(caller.answer().text(), "body");
}

#[test]
fn a_caller_that_does_not_wait_for_its_100_is_served_too() {
    let upstream = Upstream::run(|conversation| {
        while let Some(head) = conversation.request_head() {
            conversation.write("HTTP/1.1 100 Continue\r\n\r\n");
            let body = conversation.request_body(&head);
            conversation.answer("200 OK", "text/plain", &String::from_utf8_lossy(&body));
        }
    });
    let gate = Gate::start(&upstream, TWO_CALLERS);
    let mut caller = gate.connect("crm");
    for _ in 0..2 {
        caller.send(expecting("Content-Length: 4") + "body");
        let answer = caller.answer();
        assert_eq!((answer.status, answer.text().as_str()), (200, "body"));
    }
    assert_eq!(upstream.connections(), 1);
}

#[test]
fn the_gates_own_refusal_asks_for_no_body() {
    let upstream = Upstream::plain();
    let gate = Gate::start(&upstream, TWO_CALLERS);
    let mut caller = gate.connect("app");
    let start = Instant::now();
    caller.send(expecting("Content-Length: 1000000"));
    let answer = caller.answer();
    assert_eq!((answer.summary().as_str(), answer.interim), ("403 scope_denied", vec![]));
    assert!(start.elapsed() < Duration::from_millis(900), "no wait for the upstream");
    assert_eq!(upstream.connections(), 0);
    assert!(caller.is_closed(), "half a request is on the connection");
}

#[test]
fn expect_without_a_body_expects_nothing() {
    let upstream = Upstream::plain();
    let gate = Gate::start(&upstream, TWO_CALLERS);
    let mut caller = gate.connect("app");
    let start = Instant::now();
    caller.send("GET /management/v1/counters HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\n\r\n");
    let answer = caller.answer();
    assert_eq!((answer.summary().as_str(), answer.interim), ("200", vec![]));
    assert!(start.elapsed() < Duration::from_millis(900));
    assert!(!upstream.requests()[0].contains("expect"), "{:?}", upstream.requests());
}

#[test]
fn a_caller_of_http_1_0_is_not_told_to_continue() {
    let upstream = Upstream::plain();
    let gate = Gate::start(&upstream, TWO_CALLERS);
    let mut caller = gate.connect("crm");
    caller.send(expecting("Content-Length: 4").replace("HTTP/1.1", "HTTP/1.0") + "body");
    let answer = caller.answer();
    assert_eq!((answer.summary().as_str(), answer.interim), ("200", vec![]));
    assert!(!upstream.requests()[0].contains("expect"), "{:?}", upstream.requests());
}

#[test]
fn a_103_reaches_a_caller_of_http_1_1_before_the_answer() {
    let goes = Signal::default();
    let go = goes.clone();
    let upstream = Upstream::run(move |conversation| {
        while conversation.request_head().is_some() {
            conversation.write(
                "HTTP/1.1 103 Early Hints\r\nVary: a\r\nLink: </a>; rel=preload\r\nSet-Cookie: a=b\r\nX-Gate-Error: x\r\n\r\n\
                 HTTP/1.1 103 Early Hints\r\nContent-Length: 5\r\nVary: b\r\n\r\n",
            );
            go.wait("the caller has the interim responses");
            conversation.answer("200 OK", "application/json", "{}");
        }
    });
    let gate = Gate::start(&upstream, TWO_CALLERS);
    let mut caller = gate.connect("app");
    caller.send("GET /management/v1/counters HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let vary = |value: &str| (103, vec![("vary".to_owned(), value.to_owned())]);
    assert_eq!(caller.head().unwrap(), vary("a"));
    assert_eq!(caller.head().unwrap(), vary("b"));
    goes.give();
    assert_eq!(caller.answer().summary(), "200");
    caller.send("GET /management/v1/counters HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let answer = caller.answer();
    assert_eq!((answer.summary().as_str(), answer.interim), ("200", vec![103, 103]));
    assert_eq!(upstream.connections(), 1);
    // RFC 9110, section 15.2: a client of HTTP/1.0 does not know them.
    let mut caller = gate.connect("app");
    caller.send("GET /management/v1/counters HTTP/1.0\r\nHost: localhost\r\n\r\n");
    let answer = caller.answer();
    assert_eq!((answer.summary().as_str(), answer.interim), ("200", vec![]));
}

#[test]
fn an_interim_response_is_never_inside_another_response() {
    // The caller pipelines two requests and does not read, so the end of the first response waits in the gate while the
    // second one's interim response arrives. The sizes of the buffers between are unknown, so several sizes are tried.
    let config =
        TWO_CALLERS.replace("{name: app, address: '127.0.0.1:0'}", "{name: app, unix: {path: '{folder}/app.sock'}}");
    let upstream = Upstream::run(|conversation| {
        while let Some(head) = conversation.request_head() {
            if let Some(size) = head.split("?size=").nth(1) {
                let size = size.split(' ').next().unwrap().parse().unwrap();
                conversation.answer("200 OK", "text/plain", &"a".repeat(size));
            } else {
                conversation.write("HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n");
                conversation.answer("200 OK", "text/plain", "second");
            }
        }
    });
    let gate = Gate::start(&upstream, &config);
    let mut waited = 0;
    for size in (200_000..260_000).step_by(10_000) {
        let mut caller = gate.connect("app");
        let before = upstream.requests().len();
        let both = format!(
            "GET /management/v1/counters?size={size} HTTP/1.1\r\nHost: localhost\r\n\r\n\
             GET /management/v1/counters HTTP/1.1\r\nHost: localhost\r\n\r\n"
        );
        caller.send(both);
        // Either the second request goes up while the caller reads nothing, or it waits for the caller to read.
        let start = Instant::now();
        while upstream.requests().len() < before + 2 && start.elapsed() < Duration::from_millis(200) {
            std::thread::yield_now();
        }
        waited += usize::from(upstream.requests().len() < before + 2);
        let first = caller.answer();
        assert_eq!((first.status, first.body.len()), (200, size));
        assert!(first.body.iter().all(|byte| *byte == b'a'), "{size}");
        assert_eq!(caller.answer().text(), "second");
    }
    assert!(waited > 0, "the largest did not fit into the buffers, so some size was at their edge");
}

/// R-13: a caller that reads no interim responses is disconnected, whether the response has come or not.
#[test]
fn a_caller_that_takes_no_interim_response_is_given_up() {
    let config =
        TWO_CALLERS.replace("{name: app, address: '127.0.0.1:0'}", "{name: app, unix: {path: '{folder}/app.sock'}}");
    let upstream = Upstream::run(|conversation| {
        // Together more than a unix socket holds.
        conversation.request_head();
        conversation.answer("200 OK", "text/plain", &"a".repeat(100_000));
        let head = conversation.request_head().unwrap_or_default();
        for _ in 0..8 {
            conversation.write(format!("HTTP/1.1 103 Early Hints\r\nVary: {}\r\n\r\n", "v".repeat(29_000)));
        }
        if head.contains("?answered") {
            // More than the gate's buffers hold beside that, so that it does not look delivered.
            conversation.answer("200 OK", "text/plain", &"a".repeat(4_000_000));
        }
        while conversation.discard() > 0 {}
    });
    let gate = Gate::start(&upstream, &format!("{config}\ntimeouts: {{body_idle: 500ms}}\n"));
    for (target, id) in [("counters?answered", "first."), ("counters", "second.")] {
        let start = Instant::now();
        let mut caller = gate.connect("app");
        let get = "GET /management/v1/counters HTTP/1.1\r\nHost: localhost\r\n\r\n";
        let last = get.replace("counters", target).replace("\r\n\r\n", &format!("\r\nX-Request-ID: {id}\r\n\r\n"));
        caller.send(format!("{get}{last}"));
        gate.until_log(&["\"access\"", id, "caller_stalled"]);
        assert!(start.elapsed() >= Duration::from_millis(500), "{id} {:?}", start.elapsed());
    }
}

/// R-15: a token in an interim response is counted for its own request, even if no final response follows.
#[test]
fn a_token_in_an_interim_response_is_counted_for_its_own_request() {
    let upstream = Upstream::run(|conversation| {
        while let Some(head) = conversation.request_head() {
            if head.contains("?slow") {
                conversation.write(format!("HTTP/1.1 103 Early Hints\r\nVary: {READ_TOKEN}\r\n\r\n"));
                while conversation.discard() > 0 {}
                return;
            }
            conversation.answer("200 OK", "application/json", "{}");
        }
    });
    let gate = Gate::start(&upstream, &format!("{TWO_CALLERS}\ntimeouts: {{request: 500ms}}\n"));
    let mut caller = gate.connect("app");
    for (target, id, expected) in [("counters?slow", "first.", "504 request_timeout"), ("counters", "second.", "200")] {
        caller.send(format!("GET /management/v1/{target} HTTP/1.1\r\nHost: localhost\r\nX-Request-ID: {id}\r\n\r\n"));
        assert_eq!(caller.answer().summary(), expected);
        gate.until_metric(&["upstream_errors_total", "kind=\"reflected\""], 1.0);
    }
    let said = gate.until_log(&["contained the token"]);
    assert!(said.contains("first."), "{said}");
}

#[test]
fn a_101_that_nobody_asked_for_is_no_answer() {
    let ended = Signal::default();
    let noticed = ended.clone();
    let upstream = Upstream::run(move |conversation| {
        conversation.request_head();
        conversation
            .write("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nraw bytes");
        assert!(conversation.is_closed());
        noticed.give();
    });
    let gate = Gate::start(&upstream, TWO_CALLERS);
    let mut caller = gate.connect("app");
    caller.send(
        "GET /management/v1/counters HTTP/1.1\r\nHost: localhost\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
    );
    let answer = caller.answer();
    assert_eq!(answer.summary(), "502 upstream_protocol");
    assert!(!answer.text().contains("raw bytes"));
    ended.wait("the connection is given up");
    assert!(!upstream.requests()[0].to_ascii_lowercase().contains("upgrade"), "{:?}", upstream.requests());
    gate.until_metric(&["upstream_errors_total", "kind=\"protocol\""], 1.0);
    caller.send("GET /management/v1/counters HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(caller.answer().summary(), "502 upstream_protocol", "the caller's connection is still HTTP");
    until("both were tried", || upstream.connections() == 2);
}

//! Forward: requests arrive as they were sent, and responses come back as they were answered.

use std::collections::VecDeque;
use std::sync::Mutex;

use crate::harness::gate::until;
use crate::harness::{Answer, Gate, Signal, TWO_CALLERS, Upstream};

const COUNTERS: &str = "/management/v1/counters";

/// An upstream that answers with these bytes, one after the other, whatever is asked.
fn answering(answers: &[&'static str]) -> Upstream {
    let answers = Mutex::new(answers.iter().copied().collect::<VecDeque<_>>());
    Upstream::run(move |conversation| {
        while let Some(head) = conversation.request_head() {
            conversation.request_body(&head);
            let answer = answers.lock().unwrap().pop_front().unwrap();
            conversation.write(answer);
        }
    })
}

/// The caller's view of one response of the upstream.
fn passed_on(answer: &'static str) -> Answer {
    let upstream = answering(&[answer]);
    Gate::start(&upstream, TWO_CALLERS).get("app", COUNTERS)
}

fn fields_of(head: &str, names: &[&str]) -> Vec<String> {
    let wanted = |line: &&str| names.iter().any(|name| line.starts_with(&format!("{name}: ")));
    head.lines().filter(wanted).map(str::to_owned).collect()
}

/// Sends a request as the writer; the head and the body that arrive.
fn arrives(request: &str) -> (String, Vec<u8>, Answer) {
    let bodies = std::sync::Arc::new(Mutex::new(Vec::new()));
    let seen = bodies.clone();
    let upstream = Upstream::run(move |conversation| {
        while let Some(head) = conversation.request_head() {
            let body = conversation.request_body(&head);
            seen.lock().unwrap().push(body);
            let length =
                if head.starts_with("HEAD") { "Content-Length: 7\r\n\r\n" } else { "Content-Length: 2\r\n\r\n{}" };
            conversation.write(format!("HTTP/1.1 200 OK\r\n{length}"));
        }
    });
    let gate = Gate::start(&upstream, TWO_CALLERS);
    let mut caller = gate.connect("crm");
    caller.send(request);
    let answer = if request.starts_with("HEAD") { caller.answer_to_head() } else { caller.answer() };
    let [head] = upstream.requests().try_into().unwrap();
    let [body] = bodies.lock().unwrap().clone().try_into().unwrap();
    (head, body, answer)
}

const FRAMING: &[&str] = &["content-length", "transfer-encoding"];

#[test]
fn a_body_arrives_as_it_was_sent_with_any_method() {
    let chunked = "Transfer-Encoding: chunked\r\n\r\n3\r\na\0b\r\n4;x=y\r\n\r\n\r\n\r\n0\r\n\r\n";
    let cases = [
        ("GET /management/v1/counters", chunked, &b"a\0b\r\n\r\n"[..], "transfer-encoding: chunked"),
        ("POST /management/v1/counters", chunked, b"a\0b\r\n\r\n", "transfer-encoding: chunked"),
        ("PUT /management/v1/counter/1", chunked, b"a\0b\r\n\r\n", "transfer-encoding: chunked"),
        ("DELETE /management/v1/counter/1", "Content-Length: 4\r\n\r\nbody", b"body", "content-length: 4"),
        ("GET /management/v1/counters", "Content-Length: 4\r\n\r\nbody", b"body", "content-length: 4"),
        ("PUT /management/v1/counter/1", "Content-Length: 4\r\n\r\nbody", b"body", "content-length: 4"),
        ("POST /management/v1/counters", "Content-Length: 0\r\n\r\n", b"", "content-length: 0"),
    ];
    for (line, rest, expected, framing) in cases {
        let (head, body, answer) = arrives(&format!("{line} HTTP/1.1\r\nHost: localhost\r\n{rest}"));
        assert_eq!(answer.summary(), "200", "{line}");
        assert!(head.starts_with(&format!("{line} HTTP/1.1\r\n")), "{head}");
        assert_eq!(body, expected, "{line} {rest:?}");
        assert_eq!(fields_of(&head, FRAMING), [framing], "{line} {rest:?}");
    }
}

#[test]
fn a_request_without_a_body_arrives_without_one() {
    for line in ["GET /management/v1/counters", "HEAD /management/v1/counters", "DELETE /management/v1/counter/1"] {
        let (head, body, answer) = arrives(&format!("{line} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
        assert_eq!(answer.summary(), "200", "{line}");
        assert!(head.starts_with(&format!("{line} HTTP/1.1\r\n")), "{head}");
        assert_eq!(fields_of(&head, FRAMING), [""; 0], "{line}");
        assert_eq!(body, b"", "{line}");
    }
    // RFC 9110, section 8.6: a POST without a body declares its length.
    let (head, _, answer) = arrives("POST /management/v1/counters HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(answer.summary(), "200");
    assert!(fields_of(&head, FRAMING).is_empty() || fields_of(&head, FRAMING) == ["content-length: 0"], "{head}");
}

#[test]
fn an_answer_with_a_length_keeps_it() {
    let answer = passed_on("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 3\r\n\r\nabc");
    assert_eq!((answer.status, answer.text().as_str()), (200, "abc"));
    assert_eq!(answer.field("content-length"), Some("3"));
    assert_eq!(answer.field("content-type"), Some("text/plain"));
    assert_eq!(answer.field("transfer-encoding"), None);
}

#[test]
fn a_chunked_answer_stays_chunked() {
    let answer =
        passed_on("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;a=b\r\nabc\r\n2\r\n\r\n\r\n0\r\n\r\n");
    assert_eq!((answer.status, answer.text().as_str()), (200, "abc\r\n"));
    assert_eq!(answer.field("content-length"), None);
    assert_eq!(answer.field("transfer-encoding"), Some("chunked"));
}

#[test]
fn an_answer_that_ends_with_its_connection_is_passed_on_with_an_end_of_its_own() {
    let upstream = Upstream::run(|conversation| {
        conversation.request_head();
        conversation.write("HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\nold");
        conversation.close();
    });
    let gate = Gate::start(&upstream, TWO_CALLERS);
    let mut caller = gate.connect("app");
    for _ in 0..2 {
        caller.send(format!("GET {COUNTERS} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
        let answer = caller.answer();
        assert_eq!((answer.status, answer.text().as_str()), (200, "old"));
        assert_eq!(answer.field("transfer-encoding"), Some("chunked"));
    }
    assert_eq!(upstream.connections(), 2);
    assert_eq!(gate.metric(&["upstream_errors_total"]), 0.0);
}

#[test]
fn a_caller_of_http_1_0_gets_an_answer_that_it_understands() {
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
    let upstream = answering(&[chunked, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nde"]);
    let gate = Gate::start(&upstream, TWO_CALLERS);
    let mut caller = gate.connect("app");
    caller.send(format!("GET {COUNTERS} HTTP/1.0\r\nHost: localhost\r\n\r\n"));
    let answer = caller.answer();
    assert_eq!((answer.status, answer.text().as_str()), (200, "abc"));
    assert_eq!(answer.field("transfer-encoding"), None);
    assert!(caller.is_closed());
    assert!(upstream.requests()[0].starts_with(&format!("GET {COUNTERS} HTTP/1.1\r\n")));
    let mut caller = gate.connect("app");
    caller.send(format!("GET {COUNTERS} HTTP/1.0\r\nHost: localhost\r\n\r\n"));
    assert_eq!(caller.answer().text(), "de");
    assert!(caller.is_closed());
}

#[test]
fn answers_without_a_body_have_none_and_leave_the_callers_connection_open() {
    let upstream = answering(&[
        "HTTP/1.1 204 No Content\r\n\r\n",
        "HTTP/1.1 304 Not Modified\r\nETag: \"a\"\r\nContent-Length: 77\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 123456\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    ]);
    let gate = Gate::start(&upstream, TWO_CALLERS);
    let mut caller = gate.connect("app");
    let ask = |method: &str| format!("{method} {COUNTERS} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    caller.send(ask("GET"));
    let answer = caller.answer();
    assert_eq!((answer.status, answer.field("content-length")), (204, None));
    assert_eq!(answer.field("transfer-encoding"), None);
    caller.send(ask("GET"));
    let answer = caller.answer();
    assert_eq!((answer.status, answer.field("etag")), (304, Some("\"a\"")));
    caller.send(ask("HEAD"));
    let answer = caller.answer_to_head();
    assert_eq!((answer.status, answer.field("content-length")), (200, Some("123456")));
    caller.send(ask("HEAD"));
    assert_eq!(caller.answer_to_head().status, 200);
    caller.send(ask("GET"));
    let answer = caller.answer();
    assert_eq!((answer.status, answer.text().as_str(), answer.field("content-length")), (200, "", Some("0")));
    caller.send(ask("GET"));
    assert_eq!(caller.answer().text(), "ok");
    // A forbidden body that was announced may still arrive: such a connection is not used again.
    assert_eq!(upstream.connections(), 4, "1 and 2, 3, 4, 5 and 6");
}

#[test]
fn a_redirect_is_passed_on_and_never_followed() {
    for (status, location) in
        [("301 Moved Permanently", "/x"), ("302 Found", "/x?y=z"), ("307 Temporary Redirect", "/stat/v1/data")]
    {
        let answer = format!("HTTP/1.1 {status}\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n").leak();
        let upstream = answering(&[answer]);
        let gate = Gate::start(&upstream, TWO_CALLERS);
        let answer = gate.get("app", COUNTERS);
        assert_eq!(answer.status.to_string(), status[..3]);
        assert_eq!(answer.field("location"), Some(location));
        assert_eq!((upstream.connections(), upstream.requests().len()), (1, 1));
    }
}

#[test]
fn fields_of_the_hop_and_cookies_do_not_come_back() {
    let answer = passed_on(
        "HTTP/1.1 200 OK\r\nConnection: keep-alive, X-Named\r\nX-Named: 1\r\nKeep-Alive: timeout=5\r\nUpgrade: h2c\r\n\
         Proxy-Authenticate: Basic\r\nProxy-Connection: x\r\nSet-Cookie: a=b\r\nSet-Cookie: c=d\r\nSet-Cookie2: e=f\r\n\
         Alt-Svc: h3=\":443\"\r\nX-Gate-Error: scope_denied\r\nX-Gate-Other: 1\r\nX-Request-ID: theirs\r\nTE: trailers\r\n\
         X-Unknown: yes\r\nVary: Accept\r\nETag: W/\"1\"\r\nContent-Length: 2\r\n\r\n{}",
    );
    let mut names: Vec<_> = answer.fields.iter().map(|(name, _)| name.as_str()).collect();
    names.sort_unstable();
    assert!(names.iter().filter(|name| **name == "x-request-id").count() == 1, "{names:?}");
    assert_ne!(answer.field("x-request-id"), Some("theirs"));
    names.retain(|name| *name != "date");
    let own = ["connection", "content-length", "etag", "keep-alive", "vary", "x-content-type-options", "x-request-id"];
    assert_eq!(names, own);
    // These fields belong to this hop, not to the upstream's.
    assert_eq!((answer.field("connection"), answer.field("keep-alive")), (Some("keep-alive"), Some("timeout=73")));
}

const TRAILERS: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Checksum, Set-Cookie, Content-Length\r\n\r\n\
                        3\r\nabc\r\n0\r\nX-Checksum: 7\r\nSet-Cookie: a=b\r\nContent-Length: 3\r\n\r\n";

#[test]
fn trailers_of_an_answer_reach_a_caller_that_takes_them() {
    let upstream = answering(&[TRAILERS, TRAILERS, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"]);
    let gate = Gate::start(&upstream, TWO_CALLERS);
    let mut caller = gate.connect("app");
    caller.send(format!("GET {COUNTERS} HTTP/1.1\r\nHost: localhost\r\nTE: trailers\r\nConnection: TE\r\n\r\n"));
    let answer = caller.answer();
    assert_eq!(answer.text(), "abc");
    assert_eq!(answer.trailers, [("x-checksum".to_owned(), "7".to_owned())]);
    assert_eq!(fields_of(&upstream.requests()[0], &["te", "connection"]), ["te: trailers", "connection: te"]);
    // RFC 9110, section 6.5.1: not to one that does not.
    caller.send(format!("GET {COUNTERS} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
    let answer = caller.answer();
    assert_eq!(answer.text(), "abc");
    assert_eq!(answer.trailers, []);
    assert_eq!(fields_of(&upstream.requests()[1], &["te", "connection"]), [""; 0]);
    caller.send(format!("GET {COUNTERS} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
    assert_eq!(caller.answer().text(), "ok");
    assert_eq!(upstream.connections(), 1, "trailers are the end of an answer");
    until("all are said", || gate.log().iter().filter(|line| line.contains("\"access\"")).count() == 3);
    assert!(gate.log().iter().all(|line| !line.contains("caller_gone")));
}

#[test]
fn trailers_of_a_request_arrive_without_those_that_may_not_be_trailers() {
    let (upstream, lines) = Upstream::of_chunked_bodies();
    let gate = Gate::start(&upstream, TWO_CALLERS);
    let request = "POST /management/v1/counters HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\
                   Trailer: X-Checksum, Date, X-Api-Key, X-Forwarded-For\r\n\r\n\
                   2\r\n{}\r\n0\r\nX-Checksum: 7\r\nX-Any: 8\r\nDate: now\r\nX-Api-Key: k\r\nX-Forwarded-For: me\r\n\r\n";
    let mut caller = gate.connect("crm");
    for _ in 0..2 {
        caller.send(request);
        assert_eq!(caller.answer().summary(), "200");
        assert_eq!(std::mem::take(&mut *lines.lock().unwrap()), ["2", "{}", "0", "x-checksum: 7"]);
    }
    assert_eq!(upstream.connections(), 1, "trailers are the end of a request");
}

#[test]
fn requests_with_one_token_share_an_upstream_connection() {
    let upstream = Upstream::plain();
    let gate = Gate::start(&upstream, TWO_CALLERS);
    let mut caller = gate.connect("crm");
    for _ in 0..3 {
        caller.send(format!("GET {COUNTERS} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
        assert_eq!(caller.answer().summary(), "200");
        caller.send(format!("POST {COUNTERS} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{{}}"));
        assert_eq!(caller.answer().summary(), "200");
    }
    assert_eq!((upstream.requests().len(), upstream.connections()), (6, 2), "reads and writes go with two tokens");
}

#[test]
fn pipelined_requests_are_answered_in_their_order() {
    let upstream = Upstream::run(|conversation| {
        while let Some(head) = conversation.request_head() {
            let target = head.split(' ').nth(1).unwrap().to_owned();
            conversation.answer("200 OK", "text/plain", &target);
        }
    });
    let gate = Gate::start(&upstream, TWO_CALLERS);
    let mut caller = gate.connect("app");
    let targets: Vec<_> = (0..20).map(|number| format!("{COUNTERS}?offset={number}")).collect();
    let all: String =
        targets.iter().map(|target| format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n")).collect();
    caller.send(all);
    let answers: Vec<_> = targets.iter().map(|_| caller.answer().text()).collect();
    assert_eq!(answers, targets);
    let arrived: Vec<_> = upstream.requests().iter().map(|head| head.split(' ').nth(1).unwrap().to_owned()).collect();
    assert_eq!(arrived, targets, "each is sent when the one before it was answered");
}

#[test]
fn a_request_behind_a_refused_one_is_still_a_request_of_its_own() {
    let upstream = Upstream::plain();
    let gate = Gate::start(&upstream, TWO_CALLERS);
    let mut caller = gate.connect("app");
    // The body of the refused request looks like a request.
    let smuggled = format!("GET {COUNTERS}?smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n");
    caller.send(format!(
        "POST {COUNTERS} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{smuggled}",
        smuggled.len()
    ));
    caller.try_send(format!("GET {COUNTERS}?second HTTP/1.1\r\nHost: localhost\r\n\r\n"));
    assert_eq!(caller.answer().summary(), "403 scope_denied");
    let rest = caller.try_answer(false);
    let heads = upstream.requests();
    assert!(heads.iter().all(|head| !head.contains("smuggled")), "{heads:?}");
    assert!(rest.is_err() || heads.len() == 1 && heads[0].contains("?second"), "{rest:?} {heads:?}");
}

#[test]
fn a_connection_that_the_upstream_announces_to_close_is_not_reused() {
    let held = Signal::default();
    let ended = held.clone();
    let upstream = Upstream::run(move |conversation| {
        // It sends `close` and does not close: only the field counts.
        conversation.request_head();
        conversation.write("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}");
        assert!(conversation.is_closed());
        ended.give();
    });
    let gate = Gate::start(&upstream, TWO_CALLERS);
    let mut caller = gate.connect("app");
    for number in 1..=3 {
        caller.send(format!("GET {COUNTERS} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
        let answer = caller.answer();
        assert_eq!((answer.summary().as_str(), answer.field("connection")), ("200", Some("keep-alive")));
        assert_eq!((upstream.connections(), upstream.requests().len()), (number, number));
    }
    held.wait("the gate closes such a connection itself");
}

#[test]
fn connection_close_closes_the_caller_and_keeps_the_upstream_connection() {
    let upstream = Upstream::plain();
    let gate = Gate::plan(&upstream, TWO_CALLERS).workers(1).start();
    for _ in 0..3 {
        let mut caller = gate.connect("app");
        caller.send(format!("GET {COUNTERS} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"));
        assert_eq!(caller.answer().summary(), "200");
        assert!(caller.is_closed());
    }
    assert_eq!(upstream.connections(), 1);
    assert!(upstream.requests().iter().all(|head| !head.contains("\r\nconnection:")));
}

/// An absolute form without a path has the path `/` (RFC 9110, section 4.2.3), where the API has nothing.
#[test]
fn a_target_without_a_path_goes_nowhere() {
    let upstream = Upstream::plain();
    let gate = Gate::start(&upstream, &format!("{TWO_CALLERS}unknown_operations: by_method\n"));
    for target in ["http://localhost?x=1", "http://localhost", "http://localhost?oauth_token=a", "/", "/metrics"] {
        let answer = gate.send("app", format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
        assert_eq!(answer.summary(), "404 unknown_operation", "{target}");
    }
    assert_eq!(upstream.connections(), 0, "nothing was sent upstream");
    assert_eq!(gate.get("app", "/management/v9/new").summary(), "200");
}

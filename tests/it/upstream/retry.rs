//! Retries, and above all requests that are never sent again.

use crate::harness::{Caller, Gate, ONE_TOKEN_EACH, Signal, Upstream};

pub const GET: &str = "GET /management/v1/counters HTTP/1.1\r\nHost: localhost\r\n\r\n";
pub const HEAD: &str = "HEAD /management/v1/counters HTTP/1.1\r\nHost: localhost\r\n\r\n";
pub const GET_WITH_BODY: &str =
    "GET /management/v1/counters HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}";
pub const POST: &str = "POST /management/v1/counters HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}";
pub const EMPTY_POST: &str = "POST /management/v1/counters HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n";
pub const PUT: &str = "PUT /management/v1/counter/1 HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}";
pub const DELETE: &str = "DELETE /management/v1/counter/1 HTTP/1.1\r\nHost: localhost\r\n\r\n";

/// A read by its method, which makes a token each time.
const GET_THAT_ACTS: &str = "GET /management/v1/counter/1/measurement/generate HTTP/1.1\r\nHost: localhost\r\n\r\n";

/// The reaction of the first connection to its second request, which it reads whole.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Then {
    Closes,
    Resets,
    WritesAByteAndCloses,
    WritesAnInterimResponseAndCloses,
}

/// An upstream whose first connection answers one request and then does something else with the next.
fn upstream_that(then: Then) -> Upstream {
    Upstream::run(move |conversation| {
        while let Some(head) = conversation.request_head() {
            conversation.request_body(&head);
            if conversation.number == 0 && !head.contains("?first") {
                match then {
                    Then::Closes => conversation.close(),
                    Then::Resets => conversation.reset(),
                    Then::WritesAByteAndCloses => {
                        conversation.write("H");
                        conversation.close();
                    }
                    Then::WritesAnInterimResponseAndCloses => {
                        conversation.write("HTTP/1.1 103 Early Hints\r\n\r\n");
                        conversation.close();
                    }
                }
                return;
            }
            if head.starts_with("HEAD") {
                conversation.write("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n");
            } else {
                conversation.answer("200 OK", "application/json", "{}");
            }
        }
    })
}

/// Sends a request on an upstream connection that was used before; returns the response, and how often the request arrived.
fn on_a_reused_connection(request: &str, then: Then) -> (String, usize) {
    let upstream = upstream_that(then);
    let gate = Gate::start(&upstream, ONE_TOKEN_EACH);
    let mut caller = gate.connect("crm");
    caller.send("GET /management/v1/counters?first HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(caller.answer().summary(), "200");
    caller.send(request);
    let answer = caller.try_answer(request.starts_with("HEAD")).unwrap();
    let arrived = upstream.requests().iter().filter(|head| !head.contains("?first")).count();
    assert_eq!(upstream.connections(), arrived, "the first arrived on the first connection, the second on a new one");
    let failed = f64::from(u8::from(answer.status != 200));
    assert!((gate.metric(&["upstream_errors_total", "closed"]) - failed).abs() < 0.5);
    let line = gate.until_log(&["\"access\"", if answer.status == 200 { "\"resent\":1" } else { "\"status\":502" }]);
    assert_eq!(line.contains("resent"), answer.status == 200, "{line}");
    (answer.summary(), arrived)
}

#[test]
fn a_get_on_a_connection_that_closes_without_a_byte_is_sent_once_more() {
    for request in [GET, HEAD] {
        for then in [Then::Closes, Then::Resets] {
            assert_eq!(on_a_reused_connection(request, then), ("200".to_owned(), 2), "{request} {then:?}");
        }
    }
}

#[test]
fn a_request_other_than_a_plain_get_is_never_sent_again() {
    for request in [POST, EMPTY_POST, PUT, DELETE, GET_WITH_BODY, GET_THAT_ACTS] {
        for then in [Then::Closes, Then::Resets] {
            let expected = ("502 upstream_closed".to_owned(), 1);
            assert_eq!(on_a_reused_connection(request, then), expected, "{request} {then:?}");
        }
    }
}

/// An operation of the configuration can declare that it acts; an unknown operation may.
#[test]
fn a_get_of_the_configuration_that_may_act_is_never_sent_again() {
    let operations = "\noperations: [{method: GET, path: '/management/v1/run', scope: [metrika:read], acts: true}, \
         {method: GET, path: '/management/v1/look', scope: [metrika:read]}]\nunknown_operations: by_method\n";
    for (path, times) in [("run", 1), ("look", 2), ("unknown", 1)] {
        let upstream = upstream_that(Then::Closes);
        let gate = Gate::start(&upstream, &format!("{ONE_TOKEN_EACH}{operations}"));
        let mut caller = gate.connect("crm");
        caller.send("GET /management/v1/counters?first HTTP/1.1\r\nHost: localhost\r\n\r\n");
        assert_eq!(caller.answer().summary(), "200");
        caller.send(GET.replace("counters", path));
        let expected = if times == 1 { "502 upstream_closed" } else { "200" };
        assert_eq!(caller.answer().summary(), expected, "{path}");
        assert_eq!(upstream.requests().len(), 1 + times, "{path}");
    }
}

#[test]
fn a_get_whose_answer_has_begun_is_not_sent_again() {
    for then in [Then::WritesAByteAndCloses, Then::WritesAnInterimResponseAndCloses] {
        let expected = ("502 upstream_closed".to_owned(), 1);
        assert_eq!(on_a_reused_connection(GET, then), expected, "{then:?}");
    }
}

#[test]
fn a_get_is_sent_again_only_once() {
    let upstream = Upstream::run(|conversation| {
        let first = conversation.request_head();
        if conversation.number == 0 && first.is_some() {
            conversation.answer("200 OK", "application/json", "{}");
            conversation.request_head();
        }
        conversation.close();
    });
    let gate = Gate::start(&upstream, ONE_TOKEN_EACH);
    let mut caller = gate.connect("app");
    caller.send(GET);
    assert_eq!(caller.answer().summary(), "200");
    caller.send(GET);
    assert_eq!(caller.answer().summary(), "502 upstream_closed");
    assert_eq!((upstream.requests().len(), upstream.connections()), (3, 2));
}

#[test]
fn a_get_on_a_new_connection_is_not_sent_again() {
    let upstream = Upstream::run(|conversation| {
        conversation.request_head();
        conversation.close();
    });
    let gate = Gate::start(&upstream, ONE_TOKEN_EACH);
    let answer = gate.get("app", "/management/v1/counters");
    assert_eq!(answer.summary(), "502 upstream_closed");
    assert_eq!(answer.field("retry-after"), None, "it may have been processed");
    assert_eq!((upstream.requests().len(), upstream.connections()), (1, 1));
    gate.until_metric(&["upstream_errors_total", "kind=\"closed\""], 1.0);
}

/// An upstream that closes its first connection while it is idle, and signals when the gate has noticed.
fn upstream_that_closes_while_idle() -> (Upstream, Signal) {
    let closed = Signal::default();
    let taken = closed.clone();
    let upstream = Upstream::run(move |conversation| {
        let is_first = conversation.number == 0;
        while let Some(head) = conversation.request_head() {
            conversation.request_body(&head);
            conversation.answer("200 OK", "application/json", "{}");
            if is_first {
                conversation.close();
                // The gate closes its side when it has seen that this one is closed.
                assert!(conversation.is_closed());
                taken.give();
                return;
            }
        }
    });
    (upstream, closed)
}

#[test]
fn nothing_is_sent_on_an_idle_connection_that_the_upstream_closed() {
    for request in [GET, POST, DELETE] {
        let (upstream, closed) = upstream_that_closes_while_idle();
        let gate = Gate::start(&upstream, ONE_TOKEN_EACH);
        let mut caller = gate.connect("crm");
        caller.send(GET);
        assert_eq!(caller.answer().summary(), "200");
        closed.wait("the gate sees that the idle connection is closed");
        caller.send(request);
        assert_eq!(caller.answer().summary(), "200", "{request}");
        assert_eq!((upstream.requests().len(), upstream.connections()), (2, 2));
        assert!(gate.metric(&["upstream_errors_total"]) < 0.5);
    }
}

fn sequence(gate: &Gate, request: &str, times: usize) -> Vec<String> {
    let mut caller = gate.connect("crm");
    let one = |caller: &mut Caller| {
        caller.send(request);
        caller.answer().summary()
    };
    (0..times).map(|_| one(&mut caller)).collect()
}

#[test]
fn an_upstream_that_closes_whenever_it_likes_fails_no_get() {
    // Each connection is closed right after its third answer, while the next request may be on its way.
    let upstream = Upstream::run(|conversation| {
        for _ in 0..3 {
            if conversation.request_head().is_none() {
                return;
            }
            conversation.answer("200 OK", "application/json", "{}");
        }
        if conversation.number % 2 == 0 {
            conversation.close();
        }
    });
    let gate = Gate::start(&upstream, ONE_TOKEN_EACH);
    let summaries = sequence(&gate, GET, 500);
    assert_eq!(summaries.iter().filter(|summary| *summary != "200").count(), 0, "{summaries:?}");
    assert!(upstream.connections() >= 500 / 3);
    assert_eq!(upstream.requests().len(), 500, "a connection is closed without reading, so none arrived twice");
}

#[test]
fn in_a_race_with_the_end_of_a_connection_a_post_arrives_once_or_is_refused() {
    let upstream = Upstream::run(|conversation| {
        for _ in 0..2 {
            let Some(head) = conversation.request_head() else { return };
            conversation.request_body(&head);
            conversation.answer("200 OK", "application/json", "{}");
        }
        conversation.close();
    });
    let gate = Gate::start(&upstream, ONE_TOKEN_EACH);
    let summaries = sequence(&gate, POST, 200);
    let delivered = summaries.iter().filter(|summary| *summary == "200").count();
    let refused = summaries.iter().filter(|summary| *summary == "502 upstream_closed").count();
    assert_eq!(delivered + refused, 200, "{summaries:?}");
    assert_eq!(upstream.requests().len(), delivered, "each arrived exactly once");
    assert!(refused <= 20, "closed connections are seen before a request is spent on them: {refused} were not");
}

//! Retries on HTTP/2, and above all requests that are never sent again.

use std::sync::{Arc, Mutex};

use super::retry::{DELETE, EMPTY_POST, GET, GET_WITH_BODY, HEAD, POST, PUT};
use crate::harness::gate::Plan;
use crate::harness::h2::{
    CANCEL, DATA, END_STREAM, GOAWAY, HEADERS, NO_ERROR, PING, REFUSED_STREAM, RST_STREAM, SETTINGS, WHOLE, block,
    frame,
};
use crate::harness::upstream::certificate;
use crate::harness::{Conversation, Gate, ONE_TOKEN_EACH, Upstream};

const ACK: u8 = 1;
const INTERNAL_ERROR: u32 = 2;

/// The reaction to a request that arrived whole.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Then {
    Answers,
    Waits,
    Resets(u32),
    Closes,
    /// GOAWAY with this last stream, and the end of the connection.
    GoesAway(u32),
}

/// The requests that arrived whole: the numbers of their connections and streams.
type Arrived = Arc<Mutex<Vec<(usize, u32)>>>;

/// Speaks HTTP/2 and does with each request what `then` returns for its connection and stream.
fn upstream(then: impl Fn(usize, u32) -> Then + Send + Sync + 'static) -> (Upstream, Arrived) {
    let (mut config, ca_pem) = certificate("api-metrika.yandex.net");
    config.alpn_protocols = vec![b"h2".to_vec()];
    let arrived = Arrived::default();
    let arrives = arrived.clone();
    let upstream = Upstream::run_with(config, ca_pem, move |conversation| {
        conversation.exactly(24);
        conversation.write(frame(SETTINGS, 0, 0, []));
        while let Some((kind, flags, stream, payload)) = conversation.frame() {
            let stream = u32::from_be_bytes(stream);
            match kind {
                SETTINGS | PING if flags & ACK == 0 => {
                    let payload = if kind == PING { payload } else { Vec::new() };
                    conversation.write(frame(kind, ACK, 0, payload));
                }
                HEADERS | DATA if flags & END_STREAM != 0 => {
                    arrives.lock().unwrap().push((conversation.number, stream));
                    if !act(conversation, then(conversation.number, stream), stream) {
                        return conversation.close();
                    }
                }
                _ => {}
            }
        }
    });
    (upstream, arrived)
}

/// Whether the connection goes on.
fn act(conversation: &mut Conversation, then: Then, stream: u32) -> bool {
    match then {
        Then::Answers => conversation.write(frame(HEADERS, WHOLE, stream, block([(":status", "200")]))),
        Then::Waits => true,
        Then::Resets(code) => conversation.write(frame(RST_STREAM, 0, stream, code.to_be_bytes())),
        Then::Closes => false,
        Then::GoesAway(last) => {
            conversation.write(frame(GOAWAY, 0, 0, [last.to_be_bytes(), NO_ERROR.to_be_bytes()].concat()));
            false
        }
    }
}

fn plan(upstream: &Upstream) -> Plan {
    let keys = "upstream: {ca_file: '{ca}', connect_to: '{upstream}', http2: true}";
    Gate::plan(upstream, &format!("{ONE_TOKEN_EACH}\n{keys}\n")).workers(1)
}

fn ask(gate: &Gate, request: &str) -> String {
    let mut caller = gate.connect("crm");
    caller.send(request);
    caller.try_answer(request.starts_with("HEAD")).unwrap().summary()
}

/// The answer to the second request of a connection, with which `then` is done, and how often it arrived.
fn on_a_used_connection(request: &str, then: Then) -> (String, usize) {
    let (upstream, arrived) =
        upstream(move |number, stream| if (number, stream) == (0, 3) { then } else { Then::Answers });
    let gate = plan(&upstream).start();
    assert_eq!(ask(&gate, GET), "200");
    let summary = ask(&gate, request);
    let arrived = arrived.lock().unwrap().clone();
    assert_eq!(arrived, [(0, 1), (0, 3), (1, 1)][..arrived.len()], "again on a new connection");
    let failed = f64::from(u8::from(summary != "200"));
    assert!((gate.metric(&["upstream_errors_total", "closed"]) - failed).abs() < 0.5);
    (summary, arrived.len() - 1)
}

/// a refused stream, and one above the last of a GOAWAY, were not processed (RFC 9113, section 8.7).
#[test]
fn an_unprocessed_request_without_a_body_is_sent_once_more() {
    for request in [GET, HEAD, EMPTY_POST, DELETE] {
        for then in [Then::Resets(REFUSED_STREAM), Then::GoesAway(1)] {
            assert_eq!(on_a_used_connection(request, then), ("200".to_owned(), 2), "{request} {then:?}");
        }
    }
}

#[test]
fn a_get_on_a_connection_that_closes_is_sent_once_more() {
    for request in [GET, HEAD] {
        for then in [Then::Closes, Then::GoesAway(3)] {
            assert_eq!(on_a_used_connection(request, then), ("200".to_owned(), 2), "{request} {then:?}");
        }
    }
}

/// what may have been processed, and is no plain GET, is not sent again.
#[test]
fn a_request_that_may_have_been_processed_is_never_sent_again() {
    let expected = ("502 upstream_closed".to_owned(), 1);
    for request in [POST, EMPTY_POST, PUT, DELETE, GET_WITH_BODY] {
        for then in [Then::Closes, Then::GoesAway(3), Then::Resets(CANCEL), Then::Resets(INTERNAL_ERROR)] {
            assert_eq!(on_a_used_connection(request, then), expected, "{request} {then:?}");
        }
    }
}

/// a body that was sent is gone, whatever the upstream reports about it.
#[test]
fn a_write_whose_body_was_read_is_not_sent_again() {
    for request in [POST, PUT, GET_WITH_BODY] {
        for then in [Then::Resets(REFUSED_STREAM), Then::GoesAway(1)] {
            let expected = ("502 upstream_closed".to_owned(), 1);
            assert_eq!(on_a_used_connection(request, then), expected, "{request} {then:?}");
        }
    }
}

#[test]
fn a_get_whose_stream_alone_is_reset_is_not_sent_again() {
    for code in [NO_ERROR, CANCEL, INTERNAL_ERROR] {
        let expected = ("502 upstream_closed".to_owned(), 1);
        assert_eq!(on_a_used_connection(GET, Then::Resets(code)), expected, "{code}");
    }
}

/// under a lasting refusal each request fails after one repeat at most, and no refused connection is used again.
#[test]
fn a_lasting_refusal_ends_after_one_repeat_and_leaves_no_connection() {
    for request in [GET, EMPTY_POST] {
        let refuses = |number, stream| match (number, stream) {
            (0, 1) | (3.., _) => Then::Answers,
            _ => Then::Resets(REFUSED_STREAM),
        };
        let (upstream, arrived) = upstream(refuses);
        let gate = plan(&upstream).start();
        let summaries: Vec<_> = [GET, request, request, request, request].map(|request| ask(&gate, request)).into();
        assert_eq!(summaries, ["200", "502 upstream_closed", "502 upstream_closed", "200", "200"]);
        assert_eq!(*arrived.lock().unwrap(), [(0, 1), (0, 3), (1, 1), (2, 1), (3, 1), (3, 3)]);
    }
}

#[test]
fn a_get_is_sent_again_only_once() {
    let (upstream, arrived) =
        upstream(|number, stream| if (number, stream) == (0, 1) { Then::Answers } else { Then::Closes });
    let gate = plan(&upstream).start();
    assert_eq!(ask(&gate, GET), "200");
    assert_eq!(ask(&gate, GET), "502 upstream_closed");
    assert_eq!(*arrived.lock().unwrap(), [(0, 1), (0, 3), (1, 1)]);
}

#[test]
fn unprocessed_requests_of_one_connection_share_another() {
    const LAST: u32 = 2 * 40 + 1;
    let (upstream, arrived) = upstream(|number, stream| match (number, stream) {
        (0, LAST) => Then::GoesAway(1),
        (0, 3..) => Then::Waits,
        _ => Then::Answers,
    });
    let gate = plan(&upstream).start();
    assert_eq!(ask(&gate, GET), "200");
    let mut callers: Vec<_> = (0..40).map(|_| gate.connect("crm")).collect();
    callers.iter_mut().for_each(|caller| caller.send(EMPTY_POST));
    assert!(callers.iter_mut().all(|caller| caller.answer().summary() == "200"));
    assert_eq!((arrived.lock().unwrap().len(), upstream.connections()), (81, 2));
}

#[test]
fn a_request_repeated_on_a_shared_connection_is_not_repeated_again() {
    let (upstream, arrived) = upstream(|number, stream| match (number, stream) {
        (0, 81) => Then::GoesAway(1),
        (1, 79) => Then::Closes,
        (0, 3..) | (1, _) => Then::Waits,
        _ => Then::Answers,
    });
    let gate = plan(&upstream).start();
    assert_eq!(ask(&gate, GET), "200");
    let mut callers: Vec<_> = (0..40).map(|_| gate.connect("crm")).collect();
    callers.iter_mut().for_each(|caller| caller.send(GET));
    assert!(callers.iter_mut().all(|caller| caller.answer().summary() == "502 upstream_closed"));
    assert_eq!((arrived.lock().unwrap().len(), upstream.connections()), (81, 2));
}

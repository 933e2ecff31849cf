//! HTTP/2 towards callers: answers that come before the end of an upload, and the gate's own end.

use std::time::Instant;

use crate::harness::gate::until;
use crate::harness::h2::*;
use crate::harness::{Gate, Signal, TWO_CALLERS_HTTP2, Upstream};

/// RFC 9113, section 8.1: an answer that does not wait for the upload is whole, and the upload is not wanted any more.
#[test]
fn an_answer_that_comes_before_the_end_of_an_upload_is_whole() {
    let upstream = Upstream::run(|conversation| {
        conversation.request_head();
        conversation.answer("403 Forbidden", "application/json", r#"{"code":403}"#);
        while conversation.discard() > 0 {}
    });
    let gate = Gate::start(&upstream, TWO_CALLERS_HTTP2);
    // Refused by the gate, and by Metrica.
    for listener in ["app", "crm"] {
        let mut caller = H2::connect(gate.place(listener));
        caller.frame(HEADERS, END_HEADERS, 1, upload());
        caller.frame(DATA, 0, 1, vec![b'x'; 10_000]);
        assert_eq!(caller.fate(1), Fate::Answered(403), "{listener}");
        // The rest is read and thrown away, so that a client that goes on first sees no failure.
        for _ in 0..10 {
            caller.frame(DATA, 0, 1, vec![b'x'; 10_000]);
        }
        caller.frame(DATA, END_STREAM, 1, []);
        caller.frame(HEADERS, WHOLE, 3, block(request("GET", "/nowhere")));
        loop {
            let sent = caller.next().unwrap();
            assert_ne!(sent.kind, RST_STREAM, "{listener}");
            if sent.stream == 3 && sent.flags & END_STREAM != 0 {
                break;
            }
        }
        assert!(caller.is_alive());
    }
    // But not indefinitely.
    let mut caller = H2::connect(gate.place("app"));
    caller.frame(HEADERS, END_HEADERS, 1, upload());
    assert_eq!(caller.fate(1), Fate::Answered(403));
    assert_eq!(caller.fate(1), Fate::Reset(NO_ERROR));
    assert!(caller.is_alive());
    gate.until_metric(&["in_flight_requests"], 0.0);
}

/// An upstream that answers when it is told to.
fn waiting(go: &Signal) -> Upstream {
    let go = go.clone();
    Upstream::run(move |conversation| {
        while conversation.request_head().is_some() {
            go.wait("the test lets the upstream answer");
            conversation.answer("200 OK", "application/json", "{}");
        }
    })
}

/// The gate announces its shutdown, answers the requests that it has, and ends; an idle connection does not delay it.
#[test]
fn requests_in_progress_end_before_the_gate() {
    let go = Signal::default();
    let upstream = waiting(&go);
    let mut gate = Gate::start(&upstream, &format!("{TWO_CALLERS_HTTP2}\nshutdown: {{timeout: 60s}}\n"));
    let mut busy = H2::connect(gate.place("app"));
    busy.frame(HEADERS, WHOLE, 1, get());
    until("the request is at Metrica", || upstream.requests().len() == 1);
    // Like some clients, this one does not answer the PING that comes with the GOAWAY.
    let mut idle = H2::connect(gate.place("app"));
    assert!(idle.is_alive());
    let start = Instant::now();
    gate.signal("TERM");
    let goes = |caller: &mut H2| loop {
        let sent = caller.next().expect("a GOAWAY");
        if sent.kind == GOAWAY {
            break sent;
        }
    };
    assert_eq!(goes(&mut busy).number(4), NO_ERROR);
    assert_eq!(goes(&mut idle).number(4), NO_ERROR);
    idle.ends();
    assert!(start.elapsed().as_secs() < 10);
    // The GOAWAY comes before the gate stops accepting, so requests already sent are served (RFC 9113, section 6.8).
    go.give();
    assert_eq!(busy.fate(1), Fate::Answered(200));
    assert_eq!(busy.ends().unwrap_or(NO_ERROR), NO_ERROR);
    assert_eq!(gate.wait().code(), Some(0));
    assert!(start.elapsed().as_secs() < 20);
}

#[test]
fn a_request_beyond_the_shutdown_timeout_is_cut_and_the_code_is_69() {
    let go = Signal::default();
    let upstream = waiting(&go);
    let mut gate = Gate::start(&upstream, &format!("{TWO_CALLERS_HTTP2}\nshutdown: {{timeout: 200ms}}\n"));
    let mut caller = H2::connect(gate.place("app"));
    for stream in [1, 3] {
        caller.frame(HEADERS, WHOLE, stream, get());
    }
    until("the requests are at Metrica", || upstream.requests().len() == 2);
    gate.signal("TERM");
    assert_eq!(gate.wait().code(), Some(69));
    assert_eq!(caller.fate(1), Fate::Closed);
    let cut = gate.log().iter().filter(|line| line.contains("\"outcome\":\"gate_ended\"")).count();
    assert_eq!(cut, 2, "each has its line");
    go.give();
}

/// A request keeps the policy that it began with; the next has the new one, on the same connection (R-22).
#[test]
fn a_reload_cuts_nothing() {
    let go = Signal::default();
    let upstream = waiting(&go);
    let gate = Gate::start(&upstream, TWO_CALLERS_HTTP2);
    let mut caller = H2::connect(gate.place("app"));
    caller.frame(HEADERS, WHOLE, 1, get());
    until("the request is at Metrica", || upstream.requests().len() == 1);
    let denied = gate.config().replace(
        "scopes: [metrika:read], tokens: [analytics]}\n  - {id: crm",
        "scopes: [metrika:write], tokens: [crm]}\n  - {id: crm",
    );
    assert_ne!(denied, gate.config());
    gate.replace_config(&denied);
    gate.signal("HUP");
    gate.until_log(&["configuration reloaded"]);
    caller.frame(HEADERS, WHOLE, 3, get());
    assert_eq!(caller.fate(3), Fate::Answered(403));
    go.give();
    assert_eq!(caller.fate(1), Fate::Answered(200));
}

//! Callers that stall: response, log line and metric blame the same side for an end.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use crate::harness::gate::PATIENCE;
use crate::harness::h2::{DATA, END_HEADERS, Fate, H2, HEADERS, WHOLE, block, get, request, upload};
use crate::harness::{Gate, TWO_CALLERS, TWO_CALLERS_HTTP2, Upstream};

const UPLOAD: &str = "POST /management/v1/counter/1/offline_conversions/upload HTTP/1.1\r\nHost: localhost\r\n";

/// The access line of a request.
fn access_line(gate: &Gate, id: &str) -> serde_json::Value {
    serde_json::from_str(&gate.until_log(&["\"access\"", &format!("\"request_id\":\"{id}\"")])).unwrap()
}

/// An upstream that reads and never answers.
fn silent() -> Upstream {
    Upstream::run(|conversation| {
        conversation.request_head();
        while conversation.discard() > 0 {}
    })
}

/// An upstream whose answers are endless.
fn endless() -> Upstream {
    Upstream::run(|conversation| {
        conversation.request_head();
        conversation.write("HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n");
        while conversation.write([b'x'; 64 * 1024]) {}
    })
}

#[test]
fn a_caller_that_takes_no_more_of_its_answer_has_stalled() {
    let upstream = endless();
    let config = format!("{TWO_CALLERS_HTTP2}timeouts: {{body_idle: 500ms}}\n");
    let gate = Gate::start(&upstream, &config);
    let mut caller = gate.connect("app");
    caller.send("GET /management/v1/counters HTTP/1.1\r\nHost: localhost\r\nX-Request-ID: slow-1\r\n\r\n");
    let line = access_line(&gate, "slow-1");
    assert_eq!((&line["status"], &line["outcome"]), (&200.into(), &"caller_stalled".into()), "{line}");
    gate.until_log(&[
        "the caller stalled",
        "timeouts.body_idle",
        "\"request_id\":\"slow-1\"",
        "\"waited_for\":\"answer\"",
    ]);
    // The same on HTTP/2, where a window of nothing holds it back, and where the socket does.
    for (id, window) in [("slow-2", 100), ("slow-3", 0x7fff_ffff)] {
        let mut caller = H2::with_settings(gate.place("app"), &[(4, window)]);
        if window > 100 {
            caller.frame(8, 0, 0, (window - 65_535).to_be_bytes());
        }
        let fields = request("GET", "/management/v1/counters").into_iter().chain([("x-request-id", id)]);
        caller.frame(HEADERS, WHOLE, 1, block(fields));
        let line = access_line(&gate, id);
        assert_eq!((&line["status"], &line["outcome"]), (&200.into(), &"caller_stalled".into()), "{line}");
    }
    gate.until_metric(&["caller_stalls_total", "caller=\"reports\"", "waited_for=\"answer\""], 3.0);
    assert!(gate.metric(&["upstream_errors_total"]) < 0.5, "Metrica did nothing wrong");
}

#[test]
fn a_caller_that_goes_away_has_not_stalled() {
    let upstream = endless();
    let gate = Gate::start(&upstream, &format!("{TWO_CALLERS}timeouts: {{body_idle: 20s}}\n"));
    let mut caller = TcpStream::connect(gate.place("app")).unwrap();
    caller.set_read_timeout(Some(PATIENCE)).unwrap();
    caller.write_all(b"GET /management/v1/counters HTTP/1.1\r\nHost: localhost\r\nX-Request-ID: gone\r\n\r\n").unwrap();
    let mut some = [0; 1000];
    assert!(caller.read(&mut some).unwrap() > 0);
    drop(caller);
    let line = access_line(&gate, "gone");
    assert_eq!(line["outcome"], "caller_gone", "{line}");
    assert!(gate.metric(&["caller_stalls_total"]) < 0.5);
}

#[test]
fn a_caller_that_does_not_finish_its_body_gets_a_408() {
    let upstream = silent();
    let config = format!("{TWO_CALLERS_HTTP2}timeouts: {{body_idle: 500ms}}\n");
    let gate = Gate::start(&upstream, &config);
    let mut caller = gate.connect("crm");
    caller.send(format!("{UPLOAD}X-Request-ID: half\r\nContent-Length: 10\r\n\r\nabc"));
    let answer = caller.answer();
    assert_eq!((answer.summary().as_str(), answer.field("connection")), ("408 body_too_slow", Some("close")));
    assert!(caller.is_closed());
    let line = access_line(&gate, "half");
    let expected = (&408.into(), &"body_too_slow".into(), &"caller_stalled".into());
    assert_eq!((&line["status"], &line["reason"], &line["outcome"]), expected, "{line}");
    let mut caller = H2::connect(gate.place("crm"));
    caller.frame(HEADERS, END_HEADERS, 1, upload());
    caller.frame(DATA, 0, 1, "abc");
    assert_eq!(caller.fate(1), Fate::Answered(408));
    assert!(caller.is_alive());
    caller.frame(HEADERS, WHOLE, 3, get());
    gate.until_metric(&["caller_stalls_total", "caller=\"crm\"", "waited_for=\"request\""], 2.0);
    gate.until_metric(&["denied_total", "caller=\"crm\"", "body_too_slow"], 2.0);
    assert!(gate.metric(&["upstream_errors_total"]) < 0.5, "Metrica did nothing wrong");
}

/// Metrica drops a request whose caller stalls: that is no failure of Metrica's.
#[test]
fn an_upstream_that_gives_up_on_a_stalled_body_is_not_to_blame() {
    let upstream = Upstream::run(|conversation| {
        conversation.request_head();
        std::thread::sleep(Duration::from_millis(1500));
        conversation.close();
    });
    let gate = Gate::start(&upstream, TWO_CALLERS);
    let mut caller = gate.connect("crm");
    caller.send(format!("{UPLOAD}X-Request-ID: given-up\r\nContent-Length: 10\r\n\r\nabc"));
    assert_eq!(caller.answer().summary(), "408 body_too_slow");
    let line = access_line(&gate, "given-up");
    assert_eq!((&line["status"], &line["outcome"]), (&408.into(), &"caller_stalled".into()), "{line}");
    assert!(gate.metric(&["upstream_errors_total"]) < 0.5, "Metrica did nothing wrong");
    // Malformed HTTP is never the caller's fault.
    let upstream = Upstream::run(|conversation| {
        conversation.request_head();
        std::thread::sleep(Duration::from_millis(1500));
        conversation.write("nonsense\r\n\r\n");
    });
    let gate = Gate::start(&upstream, TWO_CALLERS);
    let mut caller = gate.connect("crm");
    caller.send(format!("{UPLOAD}Content-Length: 10\r\n\r\nabc"));
    assert_eq!(caller.answer().summary(), "502 upstream_protocol");
    gate.until_metric(&["upstream_errors_total", "kind=\"protocol\""], 1.0);
    // An upstream that closes while the body still arrives has failed, whatever was still to come.
    let upstream = Upstream::run(|conversation| {
        conversation.request_head();
        conversation.close();
    });
    let gate = Gate::start(&upstream, TWO_CALLERS);
    let mut caller = gate.connect("crm");
    caller.send(format!("{UPLOAD}Content-Length: 10\r\n\r\nabc"));
    assert_eq!(caller.answer().summary(), "502 upstream_closed");
    gate.until_metric(&["upstream_errors_total", "kind=\"closed\""], 1.0);
}

/// A client that half-closes in the middle of its body is treated as disconnected: it gets no response, as the log shows.
#[test]
fn a_half_close_in_a_body_is_the_callers_end_everywhere() {
    let upstream = silent();
    let gate = Gate::start(&upstream, TWO_CALLERS);
    for (framing, body, id) in
        [("Content-Length: 10", "abc", "length"), ("Transfer-Encoding: chunked", "3\r\nabc\r\n", "chunked")]
    {
        let mut caller = TcpStream::connect(gate.place("crm")).unwrap();
        caller.set_read_timeout(Some(PATIENCE)).unwrap();
        caller.write_all(format!("{UPLOAD}X-Request-ID: {id}\r\n{framing}\r\n\r\n{body}").as_bytes()).unwrap();
        caller.shutdown(Shutdown::Write).unwrap();
        let mut received = String::new();
        let _ = caller.read_to_string(&mut received);
        let line = access_line(&gate, id);
        assert_eq!((&line["status"], &line["outcome"]), (&499.into(), &"caller_gone".into()), "{line}");
        assert_eq!(received, "", "{id}");
    }
    assert!(gate.metric(&["upstream_errors_total"]) < 0.5, "Metrica did nothing wrong");
    assert!(gate.metric(&["denied_total"]) < 0.5, "and the gate refused nothing");
}

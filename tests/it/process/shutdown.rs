//! Shutdown: unready at once, no request lost, and an end in any case.

use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::harness::gate::until;
use crate::harness::h2::{Fate, H2, HEADERS, NO_ERROR, WHOLE, get};
use crate::harness::{Caller, Gate, Signal, TWO_CALLERS, TWO_CALLERS_HTTP2, Upstream};

const COUNTERS: &str = "/management/v1/counters";
const READ: &str = "GET /management/v1/counters HTTP/1.1\r\nHost: localhost\r\n\r\n";
const REPORT: &str = "GET /stat/v1/data HTTP/1.1\r\nHost: localhost\r\n\r\n";

/// An upstream that answers a report only when it is released, the rest at once; the first signal tells that a report
/// has arrived.
fn slow_upstream() -> (Upstream, Signal, Signal) {
    let (arrived, release) = (Signal::default(), Signal::default());
    let (is_there, released) = (arrived.clone(), release.clone());
    let upstream = Upstream::run(move |conversation| {
        while let Some(head) = conversation.request_head() {
            if head.contains("/stat/") {
                is_there.give();
                released.wait("the test lets the answer go");
            }
            conversation.answer("200 OK", "application/json", "{}");
        }
    });
    (upstream, arrived, release)
}

fn with(shutdown: &str) -> String {
    format!("{TWO_CALLERS}shutdown: {{{shutdown}}}\n")
}

#[test]
fn requests_in_progress_end_before_the_gate() {
    let (upstream, arrived, release) = slow_upstream();
    let mut gate = Gate::start(&upstream, &with("delay: 1s, timeout: 60s"));
    let mut idle = gate.connect("app");
    idle.send(READ);
    assert_eq!(idle.answer().summary(), "200");
    let mut slow = gate.connect("app");
    slow.send(REPORT);
    arrived.wait("the report is at Metrica");
    gate.signal("TERM");
    until("the gate is not ready", || gate.admin("/readyz").status == 503);
    assert!(gate.admin("/readyz?verbose").text().contains("[-] not shutting down"));
    assert_eq!(gate.admin("/livez").status, 200);
    assert_eq!(gate.get("app", COUNTERS).summary(), "200", "callers that do not know yet are served");
    let place = gate.place("app").to_owned();
    until("no more connections are accepted", || TcpStream::connect(&place).is_err());
    assert!(idle.is_closed(), "a connection without a request is closed");
    assert!(gate.admin("/metrics").status == 200, "it can be watched while it ends");
    release.give();
    let answer = slow.answer();
    assert_eq!((answer.summary().as_str(), answer.text().as_str()), ("200", "{}"));
    assert!(slow.is_closed());
    assert_eq!(gate.wait().code(), Some(0));
    assert!(!gate.log().iter().any(|line| line.contains("likely to be cut")), "nothing was");
    let last = gate.log().pop().unwrap();
    assert!(last.contains("\"ended\"") && last.contains("\"code\":0"), "{last}");
}

#[test]
fn a_gate_without_work_ends_at_once() {
    let upstream = Upstream::plain();
    for signal in ["TERM", "INT"] {
        let mut gate = Gate::start(&upstream, TWO_CALLERS);
        let mut idle = gate.connect("app");
        idle.send(READ);
        assert_eq!(idle.answer().summary(), "200");
        let fresh = gate.connect("app");
        let start = Instant::now();
        gate.signal(signal);
        assert_eq!(gate.wait().code(), Some(0), "{signal}");
        assert!(start.elapsed().as_secs() < 5, "{signal}: it did not wait for the timeout");
        drop(fresh);
    }
}

#[test]
fn a_request_beyond_the_shutdown_timeout_is_cut_and_the_code_is_69() {
    let (upstream, arrived, release) = slow_upstream();
    let mut gate = Gate::start(&upstream, &with("timeout: 200ms"));
    let mut slow = gate.connect("app");
    slow.send("GET /stat/v1/data HTTP/1.1\r\nHost: localhost\r\nX-Request-ID: cut\r\n\r\n");
    arrived.wait("the report is at Metrica");
    gate.signal("TERM");
    assert_eq!(gate.wait().code(), Some(69));
    assert!(slow.is_closed());
    gate.until_log(&["closed connections that were still open", "\"connections\":1"]);
    release.give();
}

#[test]
fn a_cut_request_has_its_access_line() {
    let (began, arrived) = (Signal::default(), Signal::default());
    let (begins, arrives) = (began.clone(), arrived.clone());
    let upstream = Upstream::run(move |conversation| {
        let Some(head) = conversation.request_head() else { return };
        if head.contains("/stat/") {
            conversation.write("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc");
            begins.give();
        } else if head.starts_with("GET") {
            arrives.give();
        }
        while conversation.discard() > 0 {}
    });
    let mut gate = Gate::start(&upstream, &with("timeout: 200ms"));
    let ask = |listener: &str, request: &str, id: &str| {
        let mut caller = gate.connect(listener);
        caller.send(request.replace("Host: localhost\r\n", &format!("Host: localhost\r\nX-Request-ID: {id}\r\n")));
        caller
    };
    let mut streaming = ask("app", REPORT, "streaming");
    assert_eq!(streaming.head().unwrap().0, 200);
    began.wait("an answer is under way");
    let waiting = ask("app", READ, "waiting");
    arrived.wait("a request is at Metrica");
    let upload = "POST /management/v1/counters HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 6\r\n\r\n{\"a";
    let uploading = ask("crm", upload, "uploading");
    until("an upload is under way", || upstream.requests().len() == 3);
    gate.signal("TERM");
    assert_eq!(gate.wait().code(), Some(69));
    for (id, status) in [("streaming", 200), ("waiting", 499), ("uploading", 499)] {
        let line = gate.until_log(&["\"access\"", &format!("\"request_id\":\"{id}\"")]);
        let line: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!((&line["status"], &line["outcome"]), (&status.into(), &"gate_ended".into()), "{line}");
    }
    drop((streaming, waiting, uploading));
}

/// Requests that a shutdown will probably cut are logged while they can still be seen to: the sooner, the longer they take.
#[test]
fn a_request_likely_to_be_cut_is_logged() {
    let (arrived, release) = (Signal::default(), Signal::default());
    let (arrives, released) = (arrived.clone(), release.clone());
    let upstream = Upstream::run(move |conversation| {
        while let Some(head) = conversation.request_head() {
            if head.contains("/stat/") {
                arrives.give();
                released.wait("the test is over");
            } else if head.contains("/goals") {
                conversation.write("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc");
                released.wait("the test is over");
            } else {
                conversation.answer("200 OK", "application/json", "{}");
            }
        }
    });
    let mut gate = Gate::start(&upstream, &with("delay: 1s, timeout: 3s"));
    assert_eq!(gate.metric(&["metrika_gate_requests_likely_cut"]), 0.0);
    let mut report = gate.connect("app");
    report.send(REPORT.replace("Host:", "X-Request-ID: a-report\r\nHost:"));
    arrived.wait("the report is at Metrica");
    let mut goals = gate.connect("crm");
    goals.send("GET /management/v1/counter/1/goals HTTP/1.1\r\nHost: localhost\r\nX-Request-ID: some-goals\r\n\r\n");
    assert_eq!(goals.head().unwrap().0, 200);
    gate.signal("TERM");
    assert_eq!(gate.get("app", COUNTERS).summary(), "200");
    gate.until_metric(&["metrika_gate_requests_likely_cut"], 2.0);
    assert_eq!(gate.wait().code(), Some(69));
    release.give();
    let named = |line: &String| line.contains("the request is likely to be cut at shutdown");
    let named: Vec<serde_json::Value> =
        gate.log().iter().filter(|line| named(line)).map(|line| serde_json::from_str(line).unwrap()).collect();
    let said = |line: &serde_json::Value| {
        ["request_id", "caller", "operation", "waits_for"].map(|field| line[field].as_str().unwrap().to_owned())
    };
    assert_eq!(
        named.iter().map(said).collect::<Vec<_>>(),
        [["a-report", "reports", "report.table", "metrica"], ["some-goals", "crm", "goals.list", "answer"],]
    );
    assert!(named.iter().all(|line| line["age"].as_str().unwrap().ends_with('s')), "{named:?}");
    for id in ["a-report", "some-goals"] {
        gate.until_log(&["\"access\"", id, "\"outcome\":\"gate_ended\""]);
    }
}

#[test]
fn a_shutdown_uses_the_timeouts_of_the_reloaded_configuration() {
    let (upstream, arrived, release) = slow_upstream();
    let mut gate = Gate::start(&upstream, &with("delay: 300s, timeout: 300s"));
    gate.replace_config(&gate.config().replace("delay: 300s, timeout: 300s", "timeout: 200ms"));
    gate.signal("HUP");
    gate.until_log(&["configuration reloaded"]);
    let mut slow = gate.connect("app");
    slow.send(REPORT);
    arrived.wait("the report is at Metrica");
    gate.signal("TERM");
    assert_eq!(gate.wait().code(), Some(69), "the report was cut after the new time");
    gate.until_log(&["\"ending\"", "200ms"]);
    release.give();
}

#[test]
fn a_second_signal_ends_at_once() {
    let (upstream, arrived, release) = slow_upstream();
    for (number, config) in [with("timeout: 300s"), with("delay: 300s, timeout: 300s")].into_iter().enumerate() {
        let mut gate = Gate::start(&upstream, &config);
        let mut slow = gate.connect("app");
        slow.send(REPORT);
        arrived.wait("the report is at Metrica");
        until("it is there", || upstream.requests().len() > number);
        gate.signal("TERM");
        gate.until_log(&["\"ending\""]);
        gate.signal("TERM");
        assert_eq!(gate.wait().code(), Some(69), "a request was cut");
        gate.until_log(&["second signal received; exiting immediately"]);
    }
    let mut gate = Gate::start(&upstream, &with("delay: 300s"));
    gate.signal("TERM");
    gate.until_log(&["\"ending\""]);
    gate.signal("INT");
    assert_eq!(gate.wait().code(), Some(0), "nothing was cut");
    release.give();
}

#[test]
fn an_upload_under_way_is_finished() {
    let upstream = Upstream::plain();
    let mut gate = Gate::start(&upstream, &with("timeout: 60s"));
    let mut caller = gate.connect("crm");
    caller.send("POST /management/v1/counters HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 6\r\n\r\n{\"a");
    until("the upload has begun", || upstream.requests().len() == 1);
    gate.signal("TERM");
    let place = gate.place("crm").to_owned();
    until("no more connections are accepted", || TcpStream::connect(&place).is_err());
    caller.send("\":1");
    assert_eq!(caller.answer().summary(), "200");
    assert_eq!(gate.wait().code(), Some(0));
}

#[test]
fn a_hangup_while_ending_is_ignored() {
    let (upstream, arrived, release) = slow_upstream();
    let mut gate = Gate::start(&upstream, &with("timeout: 60s"));
    let mut slow = gate.connect("app");
    slow.send(REPORT);
    arrived.wait("the report is at Metrica");
    gate.signal("TERM");
    gate.until_log(&["\"ending\""]);
    gate.signal("HUP");
    release.give();
    assert_eq!(slow.answer().summary(), "200");
    assert_eq!(gate.wait().code(), Some(0));
}

/// Sends reads on a connection that is kept for as long as the gate keeps it, and twice more on a new one; returns the
/// number of successful responses, and the first failure.
fn asks_while_it_is_kept(place: &str) -> (usize, Option<String>) {
    let mut answered = 0;
    for _ in 0..3 {
        let mut caller = Caller::connect(place);
        loop {
            if !caller.try_send(READ) {
                return (answered, Some("the request was not taken".to_owned()));
            }
            let answer = match caller.try_answer(false) {
                Ok(answer) if answer.summary() == "200" => answer,
                Ok(answer) => return (answered, Some(answer.summary())),
                Err(error) => return (answered, Some(error)),
            };
            answered += 1;
            if answer.field("connection") == Some("close") {
                break;
            }
        }
    }
    (answered, None)
}

#[test]
fn busy_callers_lose_nothing() {
    let upstream = Upstream::plain();
    let mut gate = Gate::start(&upstream, &with("delay: 1s, timeout: 30s"));
    let place = gate.place("app").to_owned();
    let callers: Vec<_> = (0..16)
        .map(|_| {
            let place = place.clone();
            std::thread::spawn(move || asks_while_it_is_kept(&place))
        })
        .collect();
    gate.until_log(&["\"access\""]);
    std::thread::sleep(Duration::from_millis(300));
    gate.signal("TERM");
    for caller in callers {
        let (answered, lost) = caller.join().unwrap();
        assert!(answered > 10 && lost.is_none(), "{answered} were answered, then: {lost:?}");
    }
    assert_eq!(gate.wait().code(), Some(0));
}

#[test]
fn after_the_signal_every_response_announces_the_end_of_its_connection() {
    let upstream = Upstream::plain();
    for signal in ["TERM", "INT", "QUIT"] {
        let config = format!("{TWO_CALLERS_HTTP2}shutdown: {{delay: 2s}}\n");
        let mut gate = Gate::start(&upstream, &config);
        let mut kept = gate.connect("app");
        kept.send(READ);
        let before = kept.answer();
        assert_eq!((before.field("connection"), before.field("keep-alive")), (Some("keep-alive"), Some("timeout=73")));
        let mut http2 = H2::connect(gate.place("app"));
        http2.frame(HEADERS, WHOLE, 1, get());
        assert_eq!(http2.fate(1), Fate::Answered(200));
        gate.signal(signal);
        gate.until_log(&["\"ending\""]);
        kept.send(READ);
        let answer = kept.answer();
        assert_eq!((answer.summary().as_str(), answer.field("connection")), ("200", Some("close")), "{signal}");
        assert_eq!(answer.field("keep-alive"), None);
        assert!(kept.is_closed());
        let refused = gate.get("app", "/nowhere");
        assert_eq!((refused.status, refused.field("connection")), (404, Some("close")), "the gate's own too");
        assert_eq!(http2.ends(), Some(NO_ERROR), "GOAWAY");
        let mut late = H2::connect(gate.place("app"));
        late.frame(HEADERS, WHOLE, 1, get());
        assert_eq!(late.fate(1), Fate::Answered(200), "a new connection is still taken");
        assert_eq!(gate.wait().code(), Some(0));
    }
}

#[test]
fn the_keep_alive_field_is_sent_on_connections_that_are_kept() {
    let upstream = Upstream::plain();
    for (keep_alive, expected) in [("75s", Some("timeout=73")), ("3500ms", Some("timeout=1")), ("2900ms", None)] {
        let gate = Gate::start(&upstream, &format!("{TWO_CALLERS}timeouts: {{keep_alive: {keep_alive}}}\n"));
        let mut caller = gate.connect("app");
        caller.send(READ);
        assert_eq!(caller.answer().field("keep-alive"), expected, "{keep_alive}");
        caller.send(READ.replace("Host:", "Connection: close\r\nHost:"));
        let last = caller.answer();
        assert_eq!((last.field("connection"), last.field("keep-alive")), (Some("close"), None));
        let old = gate.send("app", READ.replace("HTTP/1.1", "HTTP/1.0"));
        assert_eq!(old.field("keep-alive"), None);
    }
}

#[test]
fn signals_of_no_meaning_do_not_end_the_process() {
    let upstream = Upstream::plain();
    let gate = Gate::start(&upstream, TWO_CALLERS);
    for signal in ["USR1", "USR2", "PIPE"] {
        gate.signal(signal);
        assert_eq!(gate.get("app", COUNTERS).summary(), "200", "{signal}");
    }
}

/// A request that a caller has begun to send when the gate stops accepting is read to its end.
#[test]
fn a_request_that_had_begun_is_answered() {
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let (upstream, arrived, release) = slow_upstream();
    let mut gate = Gate::start(&upstream, TWO_CALLERS_HTTP2);
    let mut holds = gate.connect("crm");
    holds.send(REPORT);
    arrived.wait("a report keeps the gate");
    let mut caller = gate.connect("app");
    caller.send(READ);
    assert_eq!(caller.answer().summary(), "200");
    caller.send(&READ[..30]);
    let mut http2 = H2::silent(gate.place("app"));
    http2.send(&PREFACE[..10]);
    let place = gate.place("app").to_owned();
    gate.signal("TERM");
    until("no more connections are accepted", || TcpStream::connect(&place).is_err());
    std::thread::sleep(Duration::from_millis(100));
    http2.send([&PREFACE[10..], &[0, 0, 0, 4, 0, 0, 0, 0, 0]].concat());
    http2.frame(HEADERS, WHOLE, 1, get());
    assert_eq!(http2.fate(1), Fate::Answered(200));
    caller.send(&READ[30..]);
    assert_eq!(caller.answer().summary(), "200");
    assert!(caller.is_closed());
    release.give();
    assert_eq!(holds.answer().summary(), "200");
    assert_eq!(gate.wait().code(), Some(0));
}

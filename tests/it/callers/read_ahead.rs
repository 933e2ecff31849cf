//! Bodies that are read before they go on, for callers with rules: memory and time have a bound, for all callers together.

use std::time::{Duration, Instant};

use crate::harness::gate::until;
use crate::harness::h2::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, Fate, H2, HEADERS, WINDOW_UPDATE, block, request,
};
use crate::harness::{Caller, Gate, Upstream};
use crate::policy::rules::{keeping, last};

const CALLERS: &str = "
listeners:
  - {name: app, address: '127.0.0.1:0', http2: true}
callers:
  - {id: one, match: {listener: app}, scopes: [metrika:read, metrika:write], tokens: [analytics, crm], counters: [1]}
limits: {connections: 1000, connections_per_peer: 1000}
";

const MIB: usize = 1024 * 1024;
const GOALS: &str = "/management/v1/counter/1/goals";

fn head(fields: &str) -> String {
    format!("POST {GOALS} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n{fields}\r\n\r\n")
}

/// A body of nearly a megabyte without its last byte.
fn unfinished() -> Vec<u8> {
    [b"{\"name\":\"", vec![b'x'; MIB - 1000].as_slice(), b"\""].concat()
}

/// Memory that a worker may hold beyond its budget: buffers of connections.
const SLACK: u64 = 16 * 1024 * 1024;

#[test]
fn many_callers_share_a_budget() {
    let upstream = Upstream::plain();
    let gate = Gate::plan(&upstream, CALLERS).workers(1).start();
    let idle = gate.resident_bytes();
    let body = unfinished();
    let mut callers: Vec<Caller> = (0..60).map(|_| gate.connect("app")).collect();
    for caller in &mut callers {
        caller.send(head(&format!("Content-Length: {}", body.len() + 1)));
        // A refused caller's connection may be closed before all is sent.
        caller.try_send(&body);
    }
    gate.until_metric(&["denied_total", "overloaded"], 44.0);
    let peak = gate.peak_resident_bytes();
    assert!(peak < idle + 16 * 1024 * 1024 * 2 + SLACK, "{} MiB", peak / (1024 * 1024));
    assert_eq!(upstream.requests().len(), 0, "nothing was sent");
    // The requests inside the budget are completed and proceed, and then others get the memory.
    let mut answers = Vec::new();
    for caller in &mut callers {
        caller.try_send("}");
        answers.push(caller.try_answer(false).map_or_else(|error| error, |answer| answer.summary()));
    }
    assert_eq!(answers.iter().filter(|summary| *summary == "200").count(), 16, "{answers:?}");
    let mut again = gate.connect("app");
    again.send(head(&format!("Content-Length: {}", body.len() + 1)));
    again.send(&body);
    again.send("}");
    assert_eq!(again.answer().summary(), "200");
}

/// Files are examined as far as memory allows, and pass whole.
#[test]
fn a_file_loses_nothing_for_want_of_memory() {
    let (upstream, seen) = keeping();
    let free = "  - {id: two, match: {listener: free}, scopes: [metrika:write], tokens: [crm]}\nlimits:";
    let callers =
        CALLERS.replace("callers:", "  - {name: free, address: '127.0.0.1:0'}\ncallers:").replace("limits:", free);
    let gate = Gate::plan(&upstream, &callers).workers(1).start();
    // All but some kilobytes are taken.
    let body = unfinished();
    let mut holding: Vec<Caller> = (0..17).map(|_| gate.connect("app")).collect();
    for caller in &mut holding {
        caller.send(head(&format!("Content-Length: {}", body.len() + 1)));
        caller.try_send(&body);
    }
    gate.until_metric(&["denied_total", "overloaded"], 1.0);
    let upload = "/management/v1/counter/1/user_params/uploadings/upload";
    let lines = "1,2\r\n".repeat(40_000);
    let parts = format!("--x\r\nContent-Disposition: form-data; name=\"file\"\r\n\r\n{lines}--x--\r\n");
    let wrong = parts.replace("\r\n--x--", "\r\n--x\r\nContent-Disposition: form-data; name=ids\r\n\r\n2\r\n--x--");
    let ask = |listener: &str, kind: &str, body: &str, chunked: bool| {
        let fields = format!("POST {upload} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\n");
        gate.send(
            listener,
            match chunked {
                false => format!("{fields}Content-Length: {}\r\n\r\n{body}", body.len()),
                true => format!("{fields}Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n", body.len()),
            },
        )
    };
    for chunked in [false, true] {
        for (listener, kind, body) in
            [("app", "multipart/form-data; boundary=x", &parts), ("free", "text/plain", &lines)]
        {
            assert_eq!(ask(listener, kind, body, chunked).summary(), "200", "{kind}");
            assert!(last(&seen).1 == body.as_bytes(), "{kind} {chunked}");
        }
        assert_eq!(ask("app", "multipart/form-data; boundary=x", &wrong, chunked).summary(), "415 body_unreadable");
    }
}

#[test]
fn a_connection_has_a_budget_of_its_own() {
    let upstream = Upstream::plain();
    let gate = Gate::plan(&upstream, CALLERS).workers(1).start();
    let idle = gate.resident_bytes();
    let body = unfinished();
    let mut caller = H2::connect(gate.place("app"));
    let fields = || block(request("POST", GOALS).into_iter().chain([("content-type", "application/json")]));
    let streams: Vec<u32> = (0..50).map(|n| 2 * n + 1).collect();
    for stream in &streams {
        caller.frame(HEADERS, END_HEADERS, *stream, fields());
    }
    // Sends as much as the windows allow, on all streams in turn.
    let mut left = vec![body.len(); streams.len()];
    let mut windows = vec![65_535i64; streams.len()];
    let mut connection = 65_535i64;
    let mut fates: Vec<Option<Fate>> = vec![None; streams.len()];
    let start = Instant::now();
    let mut initial = 65_535i64;
    while fates.iter().filter(|fate| fate.is_some()).count() < 48 && start.elapsed() < Duration::from_secs(20) {
        let mut sent_any = false;
        for (at, stream) in streams.iter().enumerate() {
            let most = i64::try_from(left[at]).unwrap().min(windows[at]).min(connection).min(16_384);
            if fates[at].is_none() && most > 0 {
                let piece = vec![b' '; usize::try_from(most).unwrap()];
                caller.frame(DATA, 0, *stream, piece);
                left[at] -= usize::try_from(most).unwrap();
                windows[at] -= most;
                connection -= most;
                sent_any = true;
            }
        }
        if sent_any {
            continue;
        }
        let Some(sent) = caller.next() else { break };
        let at = |stream: u32| usize::try_from(stream / 2).unwrap();
        match sent.kind {
            WINDOW_UPDATE if sent.stream == 0 => connection += i64::from(sent.number(0)),
            WINDOW_UPDATE => windows[at(sent.stream)] += i64::from(sent.number(0)),
            4 if sent.flags & 1 == 0 => {
                for setting in sent.payload.chunks(6).filter(|setting| setting[1] == 4) {
                    let value = i64::from(u32::from_be_bytes(setting[2..6].try_into().unwrap()));
                    windows.iter_mut().for_each(|window| *window += value - initial);
                    initial = value;
                }
            }
            HEADERS | DATA | CONTINUATION if sent.flags & END_STREAM != 0 => {
                fates[at(sent.stream)] = Some(Fate::Answered(503));
            }
            3 => fates[at(sent.stream)] = Some(Fate::Reset(sent.number(0))),
            _ => {}
        }
    }
    until("most are refused", || gate.metric(&["denied_total", "overloaded"]) >= 48.0);
    let peak = gate.peak_resident_bytes();
    assert!(peak < idle + SLACK, "{} MiB beyond what it had", (peak - idle) / (1024 * 1024));
    assert_eq!(upstream.requests().len(), 0, "nothing was sent");
}

/// A slow body does not hold memory indefinitely.
#[test]
fn a_body_has_so_long_to_be_read() {
    let upstream = Upstream::plain();
    let gate = Gate::start(&upstream, CALLERS);
    let mut caller = gate.connect("app");
    // Rules that are not enforced refuse nobody for that.
    let upstream_of_trial = Upstream::plain();
    let trial = Gate::start(&upstream_of_trial, &CALLERS.replace("counters: [1]", "counters: [1], enforce: false"));
    let mut tries = trial.connect("app");
    tries.send(head("Content-Length: 1000"));
    let start = Instant::now();
    caller.send(head("X-Request-ID: trickle\r\nContent-Length: 1000"));
    let mut answered = false;
    while !answered && start.elapsed() < Duration::from_secs(45) {
        std::thread::sleep(Duration::from_millis(500));
        answered = !caller.try_send(" ") || gate.log().iter().any(|line| line.contains("\"trickle\""));
    }
    assert_eq!(caller.answer().summary(), "408 body_too_slow");
    let waited = start.elapsed();
    assert!(waited >= Duration::from_secs(29) && waited < Duration::from_secs(40), "{waited:?}");
    let line = gate.until_log(&["\"access\"", "\"trickle\""]);
    assert!(line.contains("\"outcome\":\"caller_stalled\""), "{line}");
    let line = gate.until_log(&["the caller stalled", "\"limit\":\"30s\""]);
    assert!(!line.contains("body_idle"), "no key bounds it: {line}");
    assert_eq!(upstream.connections(), 0, "nothing was sent");
    until("what was read in a trial goes on", || upstream_of_trial.requests().len() == 1);
    tries.send(" ".repeat(1000));
    assert_eq!(tries.answer().summary(), "200");
}

/// The window of a connection of HTTP/2 is memory too: a worker grants no more than its budget.
#[test]
fn the_windows_of_connections_have_a_budget() {
    let upstream = Upstream::plain();
    let gate = Gate::plan(&upstream, CALLERS).workers(1).start();
    let is_wide = |caller: &mut H2| {
        let mut wide = false;
        // The answer to the second PING comes behind everything that the connection begins with.
        for word in [[7; 8], [8; 8]] {
            caller.frame(6, 0, 0, word);
            loop {
                let sent = caller.next().unwrap();
                wide |= sent.kind == WINDOW_UPDATE && sent.stream == 0;
                if sent.kind == 6 && sent.payload == word {
                    break;
                }
            }
        }
        wide
    };
    let mut callers: Vec<H2> = (0..40).map(|_| H2::connect(gate.place("app"))).collect();
    let wide = callers.iter_mut().map(is_wide).filter(|wide| *wide).count();
    assert_eq!(wide, 36, "16 MiB of 448 KiB each");
    // Memory of a closed connection becomes available to others.
    drop(callers);
    until("they have ended", || is_wide(&mut H2::connect(gate.place("app"))));
}

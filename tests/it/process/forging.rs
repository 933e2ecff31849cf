//! Forging: no byte of a caller ends a line, begins one, moves a cursor, turns the direction of a text, or makes a
//! series of its own.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Stdio};

use crate::harness::gate::{program, until};
use crate::harness::{Caller, Gate, TWO_CALLERS, Upstream};

/// Bytes that terminals, readers of lines and readers of JSON interpret: an escape sequence, the same in eight bits, a
/// line break in ASCII and in Unicode, a turn of the direction, invalid UTF-8, the end of a value.
const PIECES: [&[u8]; 12] = [
    b"\x1b[2J\x1b[31mforged",
    b"\x9b31mforged",
    b"\xc2\x9b31mforged",
    b"\xe2\x80\xa8forged",
    b"\xe2\x80\xaeforged",
    b"\xff\xfe\xf0\x80forged",
    b"\x07\x08forged",
    b"\",\"level\":\"ERROR\",\"message\":\"forged",
    b"\\n\\u001b[0mforged",
    b"%0d%0a2026-01-01T00:00:00Z ERROR forged",
    b"%1b%5b31m%e2%80%aeforged",
    b"<script>alert(1)</script>forged",
];

/// Each piece in each place that a caller has.
fn requests() -> Vec<Vec<u8>> {
    let mut requests = Vec::new();
    for piece in PIECES {
        let (target, field): (&[u8], &[u8]) = (b"GET /no/such/", b"GET /no/such/path");
        requests.push([target, piece, b" HTTP/1.1\r\nHost: localhost\r\n\r\n"].concat());
        requests.push([target, b"a?b=", piece, b" HTTP/1.1\r\nHost: localhost\r\n\r\n"].concat());
        requests.push([piece, b" /no/such/path HTTP/1.1\r\nHost: localhost\r\n\r\n"].concat());
        for name in [b"X-Request-ID: ".as_slice(), b"User-Agent: ", b"Referer: ", b"X-Forwarded-For: ", b"Origin: "] {
            requests.push([field, b" HTTP/1.1\r\nHost: localhost\r\n".as_slice(), name, piece, b"\r\n\r\n"].concat());
        }
        requests.push([field, b" HTTP/1.1\r\nHost: ".as_slice(), piece, b"\r\n\r\n"].concat());
        requests.push([field, b" HTTP/1.1\r\nHost: localhost\r\nX-".as_slice(), piece, b": a\r\n\r\n"].concat());
    }
    requests
}

/// Sends them all; how many were answered.
fn send_all(place: &str) -> usize {
    let answered = |request: &Vec<u8>| {
        let mut caller = Caller::connect(place);
        caller.try_send(request) && caller.try_answer(false).is_ok()
    };
    requests().iter().filter(|request| answered(request)).count()
}

#[track_caller]
fn assert_plain(line: &str) {
    let plain = line.chars().all(|letter| (' '..='~').contains(&letter) || letter == '…');
    assert!(plain, "{line:?}");
}

/// R-17, in JSON, with everything that the log can contain.
#[test]
fn lines_of_json_cannot_be_forged() {
    let upstream = Upstream::plain();
    let gate = Gate::plan(&upstream, TWO_CALLERS).argument("--log-level").argument("trace").start();
    let series = |gate: &Gate| gate.metrics(&["metrika_gate_"]).len();
    send_all(gate.place("app"));
    let after_one = series(&gate);
    let answered = send_all(gate.place("app"));
    assert!(answered > 60, "only {answered} were answered");
    let access = || gate.log().iter().filter(|line| line.contains("\"target\":\"access\"")).count();
    until("every answer has its line", || access() >= 2 * answered);
    for line in gate.log() {
        assert_plain(&line);
        let parsed: serde_json::Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert_ne!(parsed["level"], "ERROR", "{line}");
        assert_ne!(parsed["message"], "forged", "{line}");
    }
    assert_eq!(series(&gate), after_one, "what callers send makes no series");
    let page = gate.admin("/metrics").text();
    assert!(!page.contains("forged") && !page.contains("/no/such"), "{page}");
    assert!(page.is_ascii());
    let methods: BTreeSet<_> = page.split("method=\"").skip(1).map(|rest| rest.split('"').next().unwrap()).collect();
    let known = ["DELETE", "GET", "PATCH", "POST", "PUT", "other", "HEAD"];
    assert!(methods.iter().all(|method| known.contains(method)), "{methods:?}");
}

/// A gate whose log is for people; its lines come with its end.
struct Human {
    child: Child,
    lines: BufReader<std::process::ChildStderr>,
}

impl Drop for Human {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// R-17, for people: one line for one event, and nothing that a terminal would obey.
#[test]
fn lines_for_people_stay_lines() {
    let upstream = Upstream::plain();
    let plan = Gate::plan(&upstream, TWO_CALLERS);
    let mut command = program();
    command.args(["run", "--workers", "1", "--log-format", "human", "--log-level", "trace", "--config"]);
    let mut child = command.arg(plan.file()).stderr(Stdio::piped()).stdin(Stdio::null()).spawn().unwrap();
    let lines = BufReader::new(child.stderr.take().unwrap());
    let mut gate = Human { child, lines };
    let mut place = None;
    let mut all = Vec::new();
    let mut line = String::new();
    while gate.lines.read_line(&mut line).unwrap() > 0 {
        let started = line.contains("started ");
        if line.contains("listener=\"app\"") {
            place = line.trim().split("place=http://").nth(1).map(str::to_owned);
        }
        all.push(std::mem::take(&mut line));
        if started {
            break;
        }
    }
    let answered = send_all(&place.unwrap_or_else(|| panic!("no place in {all:?}")));
    let ended = std::process::Command::new("kill").arg(gate.child.id().to_string()).status().unwrap();
    assert!(ended.success());
    let rest: Vec<String> = gate.lines.by_ref().lines().map(|line| line.expect("a line of UTF-8")).collect();
    all.extend(rest);
    let mut access = 0;
    for line in &all {
        let line = line.trim_end_matches('\n');
        assert_plain(line);
        let date = line.get(..11).unwrap_or_default();
        assert!(date.len() == 11 && date.starts_with("20") && date.ends_with('T'), "it begins no line: {line:?}");
        access += usize::from(line.contains(" ACCESS "));
    }
    assert!(answered > 60 && access >= answered, "{access} lines for {answered} answers");
}

//! Log lines that are not written are counted, and their number is logged when the log can be written again.

use std::io::{BufRead, BufReader, Read};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Stdio};

use crate::harness::gate::{count, program, until};
use crate::harness::{Caller, Gate, Upstream};

const READ: &str = "GET /management/v1/counters HTTP/1.1\r\nHost: localhost\r\n\r\n";
const LOST: &str = "metrika_gate_log_lines_dropped_total ";

/// A gate whose log goes where a test wants it; its places are known without it.
struct Unlogged {
    child: Child,
    admin: String,
    socket: String,
    _folder: tempfile::TempDir,
}

impl Unlogged {
    fn start(upstream: &Upstream, log: impl Into<Stdio>) -> Self {
        let admin = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let config = format!(
            "
listeners: [{{name: app, unix: {{path: '{{folder}}/app.sock'}}}}]
admin: {{address: '{admin}'}}
callers: [{{id: app, match: {{listener: app}}, scopes: [metrika:read], tokens: [analytics]}}]
"
        );
        let plan = Gate::plan(upstream, &config);
        let mut command = program();
        command.args(["run", "--workers", "2", "--log-format", "json", "--config"]).arg(plan.file());
        let child = command.stdin(Stdio::null()).stderr(log).spawn().unwrap();
        let socket = plan.folder().join("app.sock").display().to_string();
        let gate = Self { child, admin, socket, _folder: plan.into_folder() };
        // The admin listener is the last that is opened.
        until("it listens", || TcpStream::connect(&gate.admin).is_ok());
        gate
    }

    fn ask(&self, requests: usize) {
        let mut caller = Caller::connect(&self.socket);
        for _ in 0..requests {
            caller.send(READ);
            assert_eq!(caller.answer().summary(), "200");
        }
    }

    fn lost(&self) -> f64 {
        let mut caller = Caller::connect(&self.admin);
        caller.send("GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n");
        let page = caller.answer().text();
        page.lines().find_map(|line| line.strip_prefix(LOST)).unwrap().parse().unwrap()
    }
}

impl Drop for Unlogged {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn lines_that_the_log_does_not_take_are_counted() {
    let upstream = Upstream::plain();
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let unwritable = std::fs::File::open("/dev/null").unwrap();
    for (log, file) in [("a full disk", full), ("what cannot be written", unwritable)] {
        let gate = Unlogged::start(&upstream, file);
        let at_the_start = gate.lost();
        assert!(at_the_start >= 2.0, "{log}: {at_the_start} lines of the start");
        gate.ask(200);
        until(log, || gate.lost() >= at_the_start + 200.0);
    }
}

#[test]
fn lines_for_a_reader_that_is_gone_are_counted() {
    let upstream = Upstream::plain();
    let (reader, writer) = std::io::pipe().unwrap();
    let gate = Unlogged::start(&upstream, writer);
    let mut lines = BufReader::new(reader).lines();
    assert!(lines.any(|line| line.unwrap().contains("\"started\"")));
    assert_eq!(gate.lost(), 0.0);
    drop(lines);
    gate.ask(200);
    until("all are counted", || (gate.lost() - count(200)).abs() < 0.001);
}

/// The pipe of a parent that polls, as Node.js makes it, does not block its writer.
#[test]
fn a_pipe_that_does_not_block_is_waited_for() {
    let upstream = Upstream::plain();
    let (mut reader, writer) = std::io::pipe().unwrap();
    rustix::fs::fcntl_setfl(&writer, rustix::fs::OFlags::NONBLOCK).unwrap();
    let gate = Unlogged::start(&upstream, writer);
    gate.ask(1000);
    assert_eq!(gate.lost(), 0.0);
    let (mut log, mut buffer) = (String::new(), vec![0; 4096]);
    while log.matches("\"target\":\"access\"").count() < 1000 {
        let read = reader.read(&mut buffer).unwrap();
        log.push_str(std::str::from_utf8(&buffer[..read]).unwrap());
    }
    assert!(log.lines().all(|line| line.starts_with('{')), "no line is torn");
}

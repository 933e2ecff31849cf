//! A unix socket whose file was removed is bound again.

use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use crate::harness::gate::until;
use crate::harness::{Caller, Gate, Signal, Upstream};

const CONFIG: &str = "
listeners:
  - {name: app, unix: {path: '{folder}/sockets/app.sock', mode: '0606'}}
  - {name: crm, address: '127.0.0.1:0'}
callers:
  - {id: reports, match: {listener: app}, scopes: [metrika:read], tokens: [analytics]}
  - {id: crm, match: {listener: crm}, scopes: [metrika:read], tokens: [analytics]}
";
const GET: &str = "GET /management/v1/counters HTTP/1.1\r\nHost: localhost\r\n\r\n";
const COUNTERS: &str = "/management/v1/counters";
const AGAIN: &str = "metrika_gate_sockets_bound_again_total";

fn start(upstream: &Upstream) -> Gate {
    let plan = Gate::plan(upstream, CONFIG);
    std::fs::create_dir(plan.folder().join("sockets")).unwrap();
    plan.start()
}

fn ask(caller: &mut Caller) -> String {
    caller.send(GET);
    caller.answer().summary()
}

#[test]
fn a_socket_whose_file_was_removed_is_bound_again() {
    let upstream = Upstream::plain();
    let mut gate = start(&upstream);
    let file = gate.file("sockets/app.sock");
    let mut kept = gate.connect("app");
    assert_eq!(ask(&mut kept), "200");
    let pid = gate.pid();
    let descriptors = || std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
    let mut before = 0;
    for times in [1.0, 2.0, 3.0] {
        std::fs::remove_file(&file).unwrap();
        until("it is there again", || UnixStream::connect(&file).is_ok());
        let metadata = file.metadata().unwrap();
        assert!(metadata.file_type().is_socket() && metadata.mode() & 0o777 == 0o606, "{:o}", metadata.mode());
        for _ in 0..8 {
            assert_eq!(gate.get("app", COUNTERS).summary(), "200", "on each worker");
        }
        assert_eq!(ask(&mut kept), "200", "what was connected goes on");
        gate.until_metric(&[AGAIN], times);
        if before == 0 {
            before = descriptors();
        }
    }
    until("the old sockets are closed", || descriptors() <= before);
    assert_eq!(gate.log().iter().filter(|line| line.contains("the gate bound the socket again")).count(), 3);
    gate.signal("TERM");
    assert_eq!(gate.wait().code(), Some(0));
    assert!(!file.exists(), "the file is removed at the end");
}

#[test]
fn a_file_in_place_of_the_socket_is_left_alone() {
    let upstream = Upstream::plain();
    let mut gate = start(&upstream);
    let file = gate.file("sockets/app.sock");
    let beside = gate.file("sockets/other");
    std::fs::write(&beside, "another's").unwrap();
    std::fs::rename(&beside, &file).unwrap();
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "another's");
    assert_eq!(gate.metric(&[AGAIN]), 0.0);
    gate.until_log(&["new callers cannot connect", "another file has its name now"]);
    gate.signal("TERM");
    assert_eq!(gate.wait().code(), Some(0));
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "another's", "it is not the gate's to remove");
}

#[test]
fn a_socket_that_cannot_be_bound_again_is_reported_once() {
    let upstream = Upstream::plain();
    let gate = start(&upstream);
    std::fs::remove_dir_all(gate.file("sockets")).unwrap();
    gate.until_log(&["binding again failed", "\"listener\":\"app\"", "does not exist"]);
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(gate.log().iter().filter(|line| line.contains("binding again failed")).count(), 1);
    assert_eq!(gate.get("crm", COUNTERS).summary(), "200", "other listeners go on");
    assert_eq!(gate.metric(&[AGAIN]), 0.0);
}

/// A request in progress on an earlier connection is answered.
#[test]
fn a_request_in_progress_is_answered() {
    let (arrived, release) = (Signal::default(), Signal::default());
    let (arrives, released) = (arrived.clone(), release.clone());
    let upstream = Upstream::run(move |conversation| {
        while conversation.request_head().is_some() {
            arrives.give();
            released.wait("the socket is bound again");
            conversation.answer("200 OK", "application/json", "{}");
        }
    });
    let gate = start(&upstream);
    let mut caller = gate.connect("app");
    caller.send(GET);
    arrived.wait("the request is at Metrica");
    std::fs::remove_file(gate.file("sockets/app.sock")).unwrap();
    gate.until_log(&["the gate bound the socket again"]);
    release.give();
    assert_eq!(caller.answer().summary(), "200");
}

//! The first bytes of a connection on a listener that speaks both versions of HTTP: a partial, ended or broken preface of
//! HTTP/2 costs nobody else anything.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use socket2::SockRef;

use crate::harness::gate::{PATIENCE, until};
use crate::harness::h2::{Fate, H2, HEADERS, PREFACE, WHOLE, get};
use crate::harness::{Gate, Upstream};

const BOTH: &str = "
listeners:
  - {name: app, address: '127.0.0.1:0', http2: true}
  - {name: sock, unix: {path: '{folder}/gate.sock', mode: '0600'}, http2: true}
callers:
  - {id: reports, match: {listener: app}, scopes: [metrika:read], tokens: [analytics]}
  - {id: local, match: {listener: sock}, scopes: [metrika:read], tokens: [analytics]}
";

/// The fate of a connection after its first bytes.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Then {
    Holds,
    Ends,
    Resets,
}

trait Socket: Read + Write {
    fn end(&self);
}

impl Socket for TcpStream {
    fn end(&self) {
        self.shutdown(Shutdown::Write).unwrap();
    }
}

impl Socket for UnixStream {
    fn end(&self) {
        self.shutdown(Shutdown::Write).unwrap();
    }
}

/// Whether another connection to each listener is served, in both versions of HTTP.
#[track_caller]
fn others_are_served(gate: &Gate, case: &str) {
    for listener in ["app", "sock"] {
        assert_eq!(gate.get(listener, "/management/v1/counters").summary(), "200", "{listener} after {case}");
        let mut caller = H2::connect(gate.place(listener));
        caller.frame(HEADERS, WHOLE, 1, get());
        assert_eq!(caller.fate(1), Fate::Answered(200), "{listener} after {case}");
    }
}

#[test]
fn a_beginning_of_the_preface_stops_nobody() {
    let upstream = Upstream::plain();
    let mut gate = Gate::plan(&upstream, BOTH).workers(1).start();
    let mut held: Vec<Box<dyn Socket>> = Vec::new();
    for length in 0..=PREFACE.len() {
        for then in [Then::Holds, Then::Ends, Then::Resets] {
            let case = format!("{length} bytes of the preface, {then:?}");
            let mut tcp = TcpStream::connect(gate.place("app")).unwrap();
            let mut unix = UnixStream::connect(gate.place("sock")).unwrap();
            tcp.write_all(&PREFACE[..length]).unwrap();
            unix.write_all(&PREFACE[..length]).unwrap();
            match then {
                Then::Holds => {}
                Then::Ends => {
                    tcp.end();
                    unix.end();
                }
                Then::Resets => {
                    SockRef::from(&tcp).set_linger(Some(Duration::ZERO)).unwrap();
                    // A unix socket that is closed with something unread is reset for its peer.
                    drop((tcp, unix));
                    continue;
                }
            }
            held.push(Box::new(tcp));
            held.push(Box::new(unix));
            if length % 6 == 1 {
                others_are_served(&gate, &case);
            }
        }
    }
    others_are_served(&gate, "all of them");
    let busy = gate.processor_time();
    std::thread::sleep(Duration::from_millis(500));
    assert!(gate.processor_time() - busy < Duration::from_millis(250), "a wait costs nothing");
    gate.signal("TERM");
    drop(held);
    assert_eq!(gate.wait().code(), Some(0), "and it ends");
}

#[test]
fn a_preface_in_pieces_is_one() {
    let upstream = Upstream::plain();
    let gate = Gate::plan(&upstream, BOTH).workers(1).start();
    for length in 1..PREFACE.len() {
        let mut caller = H2::silent(gate.place("app"));
        caller.send(&PREFACE[..length]);
        std::thread::sleep(Duration::from_millis(2));
        caller.send([&PREFACE[length..], &[0, 0, 0, 4, 0, 0, 0, 0, 0]].concat());
        caller.frame(HEADERS, WHOLE, 1, get());
        assert_eq!(caller.fate(1), Fate::Answered(200), "{length}");
    }
}

/// A connection that only begins like the preface is HTTP/1.1, from its first byte on.
#[test]
fn a_request_that_begins_like_a_preface_is_read_from_its_first_byte() {
    let upstream = Upstream::plain();
    let gate = Gate::plan(&upstream, &format!("{BOTH}unknown_operations: by_method\n")).workers(1).start();
    for (begins, goes_on, expected) in [
        (
            "P",
            "OST /management/v1/counters HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n",
            "403 scope_denied",
        ),
        ("P", "UT /management/v2/new HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n", "403 scope_denied"),
        ("PRI", " * HTTP/2.0\r\n\r\nSM\r\n\r\r", "400 malformed_request"),
        ("PRI ", "/ HTTP/1.1\r\nHost: localhost\r\n\r\n", "405 method_not_allowed"),
    ] {
        let mut caller = gate.connect("app");
        caller.send(begins);
        std::thread::sleep(Duration::from_millis(20));
        caller.send(goes_on);
        assert_eq!(caller.answer().summary(), expected, "{begins:?} {goes_on:?}");
    }
}

/// A caller that sends no more is seen to be gone, also in the middle of the preface.
#[test]
fn an_end_in_the_preface_ends_the_connection() {
    let upstream = Upstream::plain();
    let gate = Gate::plan(&upstream, BOTH).workers(1).start();
    for length in 0..PREFACE.len() {
        let mut caller = TcpStream::connect(gate.place("app")).unwrap();
        caller.set_read_timeout(Some(PATIENCE)).unwrap();
        caller.write_all(&PREFACE[..length]).unwrap();
        caller.shutdown(Shutdown::Write).unwrap();
        let mut rest = Vec::new();
        until("the connection ends", || caller.read_to_end(&mut rest).is_ok());
    }
}

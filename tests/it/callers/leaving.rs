//! Callers that leave in the middle of their request: it ends, it is theirs, and the gate refused nothing.

use std::io::Write;
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use socket2::SockRef;

use crate::harness::gate::until;
use crate::harness::{Gate, Signal, TWO_CALLERS, Upstream};

const UPLOAD: &str = "/management/v1/counter/1/offline_conversions/upload";

fn upload_head(framing: &str, id: &str) -> String {
    format!(
        "POST {UPLOAD} HTTP/1.1\r\nHost: localhost\r\nX-Request-ID: {id}\r\nContent-Type: text/csv\r\n{framing}\r\n\r\n"
    )
}

/// The access line of a request.
fn access_line(gate: &Gate, id: &str) -> serde_json::Value {
    serde_json::from_str(&gate.until_log(&["\"access\"", &format!("\"request_id\":\"{id}\"")])).unwrap()
}

#[test]
fn a_caller_that_leaves_in_its_body_was_not_refused() {
    let (length, chunked) = ("Content-Length: 10", "Transfer-Encoding: chunked");
    let bodies = [
        (length, "", "length-0"),
        (length, "abc", "length-3"),
        (chunked, "", "chunk-0"),
        (chunked, "3\r\nabc\r\n", "chunk-whole"),
        (chunked, "a\r\nabc", "chunk-part"),
        (chunked, "3\r\nabc\r\n1", "chunk-size"),
        (chunked, "3\r\nabc\r\n0\r\n", "chunk-end"),
    ];
    let upstream = Upstream::run(|conversation| {
        conversation.request_head();
        while conversation.discard() > 0 {}
    });
    let gate = Gate::start(&upstream, TWO_CALLERS);
    let mut left = 0.0;
    for resets in [false, true] {
        for (framing, body, name) in bodies {
            let id = format!("{name}-{resets}");
            let mut socket = TcpStream::connect(gate.place("crm")).unwrap();
            socket.write_all((upload_head(framing, &id) + body).as_bytes()).unwrap();
            until("the request is at Metrica", || arrived(&upstream, &id));
            if resets {
                SockRef::from(&socket).set_linger(Some(Duration::ZERO)).unwrap();
            }
            drop(socket);
            let line = access_line(&gate, &id);
            assert_eq!((&line["status"], &line["outcome"]), (&499.into(), &"caller_gone".into()), "{line}");
            assert_eq!(
                (&line["reason"], &line["origin"]),
                (&serde_json::Value::Null, &serde_json::Value::Null),
                "{line}"
            );
            left += 1.0;
        }
    }
    gate.until_metric(&["requests_total", "caller=\"crm\"", "code=\"499\""], left);
    gate.until_metric(&["in_flight_requests"], 0.0);
    assert_eq!(gate.metric(&["denied_total"]), 0.0, "the gate refused nothing");
    assert_eq!(gate.metric(&["upstream_errors_total"]), 0.0, "the upstream did nothing wrong");
    let said: Vec<_> = gate.log().into_iter().filter(|line| line.contains("\"WARN\"")).collect();
    assert!(said.is_empty(), "{said:#?}");
}

fn arrived(upstream: &Upstream, id: &str) -> bool {
    upstream.requests().iter().any(|head| head.contains(id))
}

#[test]
fn a_caller_that_sends_bad_chunks_and_stays_is_refused() {
    let upstream = Upstream::run(|conversation| {
        conversation.request_head();
        while conversation.discard() > 0 {}
    });
    let gate = Gate::start(&upstream, TWO_CALLERS);
    for (number, broken) in ["3\r\nabcX\r\n", "zz\r\n", "-1\r\n"].into_iter().enumerate() {
        let mut caller = gate.connect("crm");
        let id = format!("broken-{number}");
        caller.send(upload_head("Transfer-Encoding: chunked", &id) + "1\r\na\r\n" + broken);
        assert_eq!(caller.answer().summary(), "400 bad_framing", "{broken:?}");
        let line = access_line(&gate, &id);
        assert_eq!((&line["status"], &line["reason"]), (&400.into(), &"bad_framing".into()), "{line}");
    }
    gate.until_metric(&["denied_total", "bad_framing"], 3.0);
    assert_eq!(gate.metric(&["requests_total", "code=\"499\""]), 0.0);
}

/// Writes until the socket accepts no more for a while.
fn fill(socket: &mut impl Write) {
    let piece = vec![b'x'; 64 * 1024];
    let mut last = Instant::now();
    until("nothing more is taken", || {
        match socket.write(&piece) {
            Ok(_) => last = Instant::now(),
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock),
        }
        last.elapsed() > Duration::from_millis(500)
    });
}

/// The slow one: the gate looks for such callers every ten seconds.
#[test]
fn a_caller_that_leaves_while_the_upstream_stalls_is_noticed() {
    let done = Signal::default();
    let hold = done.clone();
    let upstream = Upstream::run(move |conversation| {
        conversation.request_head();
        hold.wait("the test is over");
    });
    let config = "
listeners:
  - {name: crm, address: '127.0.0.1:0'}
  - {name: local, unix: {path: '{folder}/socket'}}
callers:
  - {id: crm, match: {listener: crm}, scopes: [metrika:read, metrika:write], tokens: [analytics, crm]}
  - {id: local, match: {listener: local}, scopes: [metrika:read, metrika:write], tokens: [analytics, crm]}
";
    let gate = Gate::start(&upstream, config);
    let mut tcp = TcpStream::connect(gate.place("crm")).unwrap();
    let mut unix = UnixStream::connect(gate.place("local")).unwrap();
    tcp.write_all(upload_head("Content-Length: 1000000000", "tcp").as_bytes()).unwrap();
    unix.write_all(upload_head("Content-Length: 1000000000", "unix").as_bytes()).unwrap();
    tcp.set_nonblocking(true).unwrap();
    unix.set_nonblocking(true).unwrap();
    fill(&mut tcp);
    fill(&mut unix);
    gate.until_metric(&["in_flight_requests"], 2.0);
    let start = Instant::now();
    // Unread data precedes a FIN; a reset needs no buffer space. A unix socket closes at once.
    SockRef::from(&tcp).set_linger(Some(Duration::ZERO)).unwrap();
    drop((tcp, unix));
    gate.until_metric(&["in_flight_requests"], 0.0);
    assert!(start.elapsed() < Duration::from_secs(15), "it took {:?}", start.elapsed());
    for id in ["tcp", "unix"] {
        let line = access_line(&gate, id);
        assert_eq!((&line["status"], &line["outcome"]), (&499.into(), &"caller_gone".into()), "{line}");
    }
    assert_eq!(gate.metric(&["requests_total", "code=\"499\""]), 2.0);
    assert_eq!(gate.metric(&["upstream_errors_total"]), 0.0);
    done.give();
}

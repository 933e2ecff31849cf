//! An upstream that reads no more: its request is cancelled, with the connection, and nobody else waits for it.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::harness::gate::{PATIENCE, count, until};
use crate::harness::{Gate, Signal, TWO_CALLERS, Upstream};

const GET: &str = "GET /management/v1/counters HTTP/1.1\r\nHost: localhost\r\n\r\n";
const UPLOAD: &str = "POST /management/v1/counter/1/offline_conversions/upload HTTP/1.1\r\nHost: localhost\r\n";
/// More than any buffers between.
const UNREAD: usize = 64 * 1024 * 1024;
const KIBIBYTE: usize = 1024;

fn with(timeouts: &str) -> String {
    format!("{TWO_CALLERS}\nupstream: {{ca_file: '{{ca}}', connect_to: '{{upstream}}', timeouts: {{{timeouts}}}}}\n")
}

/// A caller that writes a body as fast as it is taken.
struct Upload {
    socket: TcpStream,
    taken: Arc<AtomicU64>,
}

impl Upload {
    fn of(length: usize, gate: &Gate, id: &str) -> Self {
        let mut socket = TcpStream::connect(gate.place("crm")).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let head = format!("{UPLOAD}X-Request-ID: {id}\r\nContent-Length: {length}\r\n\r\n");
        socket.write_all(head.as_bytes()).unwrap();
        let taken = Arc::new(AtomicU64::new(0));
        let (counter, mut writer) = (taken.clone(), socket.try_clone().unwrap());
        std::thread::spawn(move || {
            let piece = vec![b'x'; 16 * KIBIBYTE];
            let mut left = length;
            while left > 0 && writer.write_all(&piece[..left.min(piece.len())]).is_ok() {
                left -= left.min(piece.len());
                counter.fetch_add(1, Ordering::SeqCst);
            }
        });
        Self { socket, taken }
    }

    /// Waits until no more of the body has been accepted for a while.
    fn until_stuck(&self) {
        let mut last = (0, Instant::now());
        until("the upload is stuck", || {
            let now = self.taken.load(Ordering::SeqCst);
            if now != last.0 {
                last = (now, Instant::now());
            }
            now > 0 && last.1.elapsed() > Duration::from_millis(500)
        });
    }

    /// The first line of the answer.
    fn answer(mut self) -> String {
        let (mut read, mut buffer) = (Vec::new(), [0; 1024]);
        while !read.contains(&b'\n') {
            match self.socket.read(&mut buffer) {
                Ok(more @ 1..) => read.extend_from_slice(&buffer[..more]),
                ended => panic!("no answer: {ended:?}"),
            }
        }
        String::from_utf8_lossy(&read).lines().next().unwrap().to_owned()
    }
}

/// The number of established connections to `address`, as the side that opened them sees it (proc(5), `/proc/net/tcp`).
fn established(address: SocketAddr) -> usize {
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let to = format!(":{:04X}", address.port());
    let is_to = |line: &&str| {
        let fields: Vec<_> = line.split_whitespace().collect();
        fields[2].ends_with(&to) && fields[3] == "01"
    };
    table.lines().skip(1).filter(is_to).count()
}

#[test]
fn connections_of_uploads_that_were_given_up_are_closed() {
    const UPLOADS: usize = 8;
    let done = Signal::default();
    let hold = done.clone();
    let upstream = Upstream::run(move |conversation| {
        conversation.request_head();
        hold.wait("the test is over");
    });
    let gate = Gate::start(&upstream, &with("body_idle: 400ms"));
    let uploads: Vec<_> = (0..UPLOADS).map(|number| Upload::of(UNREAD, &gate, &format!("up-{number}."))).collect();
    for upload in uploads {
        assert_eq!(upload.answer(), "HTTP/1.1 504 Gateway Timeout");
    }
    gate.until_metric(&["requests_total", "caller=\"crm\"", "code=\"504\""], count(UPLOADS));
    gate.until_metric(&["in_flight_requests"], 0.0);
    let start = Instant::now();
    until("no connection is left", || established(upstream.address()) == 0);
    assert!(start.elapsed() < Duration::from_secs(3), "it took {:?}", start.elapsed());
    gate.until_metric(&["upstream_errors_total", "kind=\"response_timeout\""], count(UPLOADS));
    for number in 0..UPLOADS {
        gate.until_log(&["\"access\"", &format!("up-{number}.")]);
    }
    done.give();
}

/// An upstream that reads only the head of an upload, answers 413 whole when it is let, and reads no more; it answers
/// everything else.
fn upstream_that_refuses_unread() -> (Upstream, Signal, Signal) {
    let (answer, done) = (Signal::default(), Signal::default());
    let (let_answer, hold) = (answer.clone(), done.clone());
    let upstream = Upstream::run(move |conversation| {
        while let Some(head) = conversation.request_head() {
            if head.starts_with("POST") {
                let_answer.wait("the test lets it answer");
                conversation.answer("413 Payload Too Large", "application/json", "{}");
                return hold.wait("the test is over");
            }
            conversation.answer("200 OK", "application/json", "{}");
        }
    });
    (upstream, answer, done)
}

/// Sends an upload of `length` bytes to an upstream that refuses it unread, and then asks on the same worker. Returns the
/// time that the second response took.
fn sent_to_a_stuck_upstream(length: usize) -> Duration {
    let (upstream, answer, done) = upstream_that_refuses_unread();
    let gate = Gate::plan(&upstream, &with("connect: 500ms")).workers(1).start();
    let upload = Upload::of(length, &gate, "unread");
    upload.until_stuck();
    answer.give();
    assert_eq!(upload.answer(), "HTTP/1.1 413 Payload Too Large");
    let start = Instant::now();
    let mut caller = gate.connect("app");
    caller.send(GET);
    assert_eq!(caller.try_answer(false).map(|answer| answer.summary()), Ok("200".to_owned()));
    let took = start.elapsed();
    assert_eq!(upstream.connections(), 2, "the first is stuck, so the second request had another");
    assert_eq!(upstream.requests().len(), 2, "nothing was sent twice");
    done.give();
    took
}

#[test]
fn a_used_connection_that_is_stuck_is_not_waited_for() {
    let took = sent_to_a_stuck_upstream(UNREAD);
    assert!(took < Duration::from_secs(3), "{took:?}");
}

/// An upstream that answers before the end of a request may never read the rest, and the next one would wait behind it.
#[test]
fn a_connection_that_answered_before_the_end_of_a_request_is_not_used_again() {
    const HALF: usize = 500;
    let upstream = Upstream::run(|conversation| {
        let Some(head) = conversation.request_head() else { return };
        if conversation.number > 0 {
            return conversation.answer("200 OK", "application/json", "another");
        }
        conversation.write("HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\nearly");
        conversation.request_body(&head);
        conversation.write(", late");
        if conversation.request_head().is_some() {
            conversation.answer("200 OK", "application/json", "the same");
        }
    });
    let gate = Gate::plan(&upstream, TWO_CALLERS).workers(1).start();
    let mut caller = gate.connect("crm");
    let length = 2 * HALF;
    let head = format!("POST /management/v1/counters HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n");
    caller.send(head + &"x".repeat(HALF));
    assert_eq!(caller.head().unwrap().0, 200);
    caller.send("x".repeat(HALF));
    gate.until_log(&["\"access\"", "\"request_bytes\":1000", "\"outcome\":\"complete\""]);
    caller = gate.connect("app");
    caller.send(GET);
    assert_eq!(caller.answer().text(), "another");
    assert_eq!(upstream.connections(), 2);
}

//! Bodies stream at the pace of the slower side, memory stays flat, and a cut body never looks complete.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::harness::gate::{PATIENCE, until};
use crate::harness::{Gate, Signal, TWO_CALLERS, Upstream};

const MEBIBYTE: usize = 1024 * 1024;
/// A tests' build encrypts slowly; the whole gigabyte is the release build's to carry.
const LARGE: usize = 1024 * MEBIBYTE;
/// More than any buffers between.
const UNREAD: usize = 64 * MEBIBYTE;
const MOST_RESIDENT: u64 = 40 * 1024 * 1024;
/// The bytes that the buffers of two sockets and the gate may hold of a body that nobody reads.
const BUFFERED: u64 = 24 * 1024 * 1024;
const GET: &str = "GET /management/v1/counters HTTP/1.1\r\nHost: localhost\r\n\r\n";
const UPLOAD: &str = "/management/v1/counter/1/offline_conversions/upload";

fn upload_head(framing: &str) -> String {
    format!("POST {UPLOAD} HTTP/1.1\r\nHost: localhost\r\n{framing}\r\n\r\n")
}

fn tcp(gate: &Gate, listener: &str) -> TcpStream {
    let socket = TcpStream::connect(gate.place(listener)).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

/// Waits until a count has not changed for a while, and returns it.
fn settled(count: &AtomicU64) -> u64 {
    let mut last = (count.load(Ordering::SeqCst), Instant::now());
    until("a count stands still", || {
        let now = count.load(Ordering::SeqCst);
        if now != last.0 {
            last = (now, Instant::now());
        }
        now > 0 && last.1.elapsed() > Duration::from_millis(700)
    });
    last.0
}

/// Reads an answer to its end and counts; the bytes of its body.
fn count_body(caller: &mut TcpStream, length: usize) -> usize {
    let mut buffer = vec![0; 256 * 1024];
    let (mut head, mut read) = (Vec::new(), 0);
    while read < length {
        let more = caller.read(&mut buffer).unwrap();
        assert!(more > 0, "closed after {read} of {length} bytes");
        if read == 0 {
            head.extend_from_slice(&buffer[..more]);
            if let Some(end) = head.windows(4).position(|four| four == b"\r\n\r\n") {
                assert!(head.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&head[..end]));
                read = head.len() - end - 4;
            }
        } else {
            read += more;
        }
    }
    read
}

#[test]
fn a_large_download_needs_little_memory() {
    let upstream = Upstream::run(|conversation| {
        conversation.request_head();
        conversation.write(format!("HTTP/1.1 200 OK\r\nContent-Length: {LARGE}\r\n\r\n"));
        let piece = vec![b'x'; MEBIBYTE];
        for _ in 0..LARGE / MEBIBYTE {
            assert!(conversation.write(&piece));
        }
    });
    let gate = Gate::start(&upstream, TWO_CALLERS);
    let mut caller = tcp(&gate, "app");
    caller.write_all(GET.as_bytes()).unwrap();
    assert_eq!(count_body(&mut caller, LARGE), LARGE);
    let resident = gate.peak_resident_bytes();
    assert!(resident < MOST_RESIDENT, "{resident} bytes are resident");
    gate.until_metric(&["response_bytes_total", "caller=\"reports\""], f64::from(u32::try_from(LARGE).unwrap()));
}

#[test]
fn a_large_upload_needs_little_memory() {
    for framing in [format!("Content-Length: {LARGE}"), "Transfer-Encoding: chunked".to_owned()] {
        let upstream = Upstream::run(|conversation| {
            conversation.request_head();
            let mut read = 0;
            // Chunked framing adds something; its end is seen by the last bytes.
            while read < LARGE {
                let more = conversation.discard();
                assert!(more > 0);
                read += more;
            }
            conversation.answer("200 OK", "text/plain", "ok");
            while conversation.discard() > 0 {}
        });
        let gate = Gate::start(&upstream, TWO_CALLERS);
        let mut caller = tcp(&gate, "crm");
        caller.write_all(upload_head(&framing).as_bytes()).unwrap();
        let piece = vec![b'x'; MEBIBYTE];
        let is_chunked = framing.contains("chunked");
        for _ in 0..LARGE / MEBIBYTE {
            if is_chunked {
                caller.write_all(format!("{MEBIBYTE:x}\r\n").as_bytes()).unwrap();
            }
            caller.write_all(&piece).unwrap();
            if is_chunked {
                caller.write_all(b"\r\n").unwrap();
            }
        }
        if is_chunked {
            caller.write_all(b"0\r\n\r\n").unwrap();
        }
        assert_eq!(count_body(&mut caller, 2), 2);
        let resident = gate.peak_resident_bytes();
        assert!(resident < MOST_RESIDENT, "{resident} bytes are resident");
        gate.until_metric(&["request_bytes_total", "caller=\"crm\""], f64::from(u32::try_from(LARGE).unwrap()));
    }
}

#[test]
fn an_upstream_that_does_not_read_stops_the_caller() {
    let read_on = Signal::default();
    let reading = read_on.clone();
    let upstream = Upstream::run(move |conversation| {
        let Some(head) = conversation.request_head() else { return };
        reading.wait("the test lets the upstream read");
        assert_eq!(conversation.request_body(&head).len(), UNREAD);
        conversation.answer("200 OK", "text/plain", "ok");
    });
    let gate = Gate::start(&upstream, TWO_CALLERS);
    let mut caller = tcp(&gate, "crm");
    caller.write_all(upload_head(&format!("Content-Length: {}", UNREAD)).as_bytes()).unwrap();
    let taken = Arc::new(AtomicU64::new(0));
    let (counter, mut writer) = (taken.clone(), caller.try_clone().unwrap());
    let writing = std::thread::spawn(move || {
        let piece = vec![b'x'; 64 * 1024];
        for _ in 0..UNREAD / piece.len() {
            writer.write_all(&piece).unwrap();
            counter.fetch_add(64 * 1024, Ordering::SeqCst);
        }
    });
    let blocked_at = settled(&taken);
    assert!(blocked_at < BUFFERED, "{blocked_at} bytes were taken");
    read_on.give();
    writing.join().unwrap();
    assert_eq!(count_body(&mut caller, 2), 2);
}

#[test]
fn a_caller_that_does_not_read_stops_the_upstream() {
    let written = Arc::new(AtomicU64::new(0));
    let counter = written.clone();
    let upstream = Upstream::run(move |conversation| {
        conversation.request_head();
        conversation.write(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", UNREAD));
        let piece = vec![b'x'; 64 * 1024];
        for _ in 0..UNREAD / piece.len() {
            assert!(conversation.write(&piece));
            counter.fetch_add(64 * 1024, Ordering::SeqCst);
        }
    });
    let gate = Gate::start(&upstream, TWO_CALLERS);
    let mut caller = tcp(&gate, "app");
    caller.write_all(GET.as_bytes()).unwrap();
    let blocked_at = settled(&written);
    assert!(blocked_at < BUFFERED, "{blocked_at} bytes were taken");
    assert_eq!(count_body(&mut caller, UNREAD), UNREAD);
}

#[test]
fn each_piece_of_a_body_is_passed_on_when_it_comes() {
    let upstream = Upstream::run(|conversation| {
        let Some(_) = conversation.request_head() else { return };
        // It answers piece for piece, so nobody may wait for more than there is.
        conversation.write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
        for _ in 0..5 {
            assert_eq!(conversation.line(), "1");
            let piece = conversation.line();
            conversation.write(format!("1\r\n{piece}\r\n"));
        }
        assert_eq!((conversation.line().as_str(), conversation.line().as_str()), ("0", ""));
        conversation.write("0\r\n\r\n");
    });
    let gate = Gate::start(&upstream, TWO_CALLERS);
    let mut caller = gate.connect("crm");
    caller.send(upload_head("Transfer-Encoding: chunked"));
    assert_eq!(caller.head().unwrap().0, 200);
    for letter in ["a", "b", "c", "d", "e"] {
        caller.send(format!("1\r\n{letter}\r\n"));
        let echoed = format!("1\r\n{letter}\r\n");
        until("the piece comes back", || caller.received().ends_with(echoed.as_bytes()) || caller.receive() == 0);
    }
    caller.send("0\r\n\r\n");
    until("the end comes back", || caller.received().ends_with(b"0\r\n\r\n") || caller.receive() == 0);
    assert!(caller.received().ends_with(b"0\r\n\r\n"));
}

#[test]
fn a_caller_that_leaves_in_the_middle_of_an_answer_ends_it_upstream() {
    let ended = Signal::default();
    let noticed = ended.clone();
    let upstream = Upstream::run(move |conversation| {
        conversation.request_head();
        conversation.write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n");
        // Nothing more is written, so only the gate can see that the caller is gone.
        assert!(conversation.is_closed());
        noticed.give();
    });
    let gate = Gate::start(&upstream, TWO_CALLERS);
    let mut caller = gate.connect("app");
    caller.send(GET);
    assert_eq!(caller.head().unwrap().0, 200);
    drop(caller);
    ended.wait("the upstream connection is closed");
    gate.until_metric(&["requests_total", "caller=\"reports\"", "code=\"200\""], 1.0);
    gate.until_metric(&["in_flight", "reports"], 0.0);
    gate.until_log(&["\"access\"", "\"outcome\":\"caller_gone\""]);
}

#[test]
fn a_caller_that_leaves_in_the_middle_of_a_fast_answer_ends_it_upstream() {
    let ended = Signal::default();
    let noticed = ended.clone();
    let upstream = Upstream::run(move |conversation| {
        conversation.request_head();
        conversation.write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
        let piece = format!("10000\r\n{}\r\n", "x".repeat(65536));
        while conversation.write(&piece) {}
        noticed.give();
    });
    let gate = Gate::start(&upstream, TWO_CALLERS);
    let mut caller = gate.connect("app");
    caller.send(GET);
    assert_eq!(caller.head().unwrap().0, 200);
    drop(caller);
    ended.wait("the upstream connection is closed");
    gate.until_metric(&["requests_total", "caller=\"reports\"", "code=\"200\""], 1.0);
    gate.until_log(&["\"access\"", "\"outcome\":\"caller_gone\""]);
}

#[test]
fn a_caller_that_leaves_before_the_answer_cancels_the_request() {
    for request in [GET.to_owned(), upload_head("Content-Length: 2") + "ab"] {
        let (arrived, ended) = (Signal::default(), Signal::default());
        let (arrives, noticed) = (arrived.clone(), ended.clone());
        let upstream = Upstream::run(move |conversation| {
            let Some(head) = conversation.request_head() else { return };
            conversation.request_body(&head);
            arrives.give();
            assert!(conversation.is_closed());
            noticed.give();
        });
        let gate = Gate::start(&upstream, TWO_CALLERS);
        let mut caller = gate.connect("crm");
        caller.send(request);
        arrived.wait("the request arrived");
        drop(caller);
        ended.wait("the request is cancelled");
        gate.until_metric(&["requests_total", "caller=\"crm\"", "code=\"499\""], 1.0);
        gate.until_log(&["\"access\"", "\"outcome\":\"caller_gone\""]);
        gate.until_metric(&["in_flight", "crm"], 0.0);
        assert_eq!(gate.metric(&["upstream_errors_total"]), 0.0, "the upstream did nothing wrong");
    }
}

#[test]
fn a_caller_that_sends_and_leaves_at_once_is_seen_too() {
    for request in [GET.to_owned(), upload_head("Content-Length: 2") + "ab"] {
        let upstream = Upstream::run(|conversation| {
            conversation.request_head();
            conversation.discard();
        });
        let gate = Gate::start(&upstream, TWO_CALLERS);
        let mut caller = gate.connect("crm");
        caller.send(request);
        drop(caller);
        gate.until_metric(&["requests_total", "caller=\"crm\"", "code=\"499\""], 1.0);
        gate.until_metric(&["in_flight", "crm"], 0.0);
    }
}

#[test]
fn a_caller_that_leaves_in_the_middle_of_its_body_cancels_the_request() {
    let (arrived, ended) = (Signal::default(), Signal::default());
    let (arrives, noticed) = (arrived.clone(), ended.clone());
    let upstream = Upstream::run(move |conversation| {
        if conversation.request_head().is_some() {
            assert_eq!(conversation.exactly(3), b"abc");
            arrives.give();
            assert!(conversation.is_closed(), "nothing that looks like the end of the body");
            noticed.give();
        }
    });
    let gate = Gate::start(&upstream, TWO_CALLERS);
    let mut caller = gate.connect("crm");
    caller.send(upload_head("Content-Length: 10") + "abc");
    arrived.wait("the begin of the body arrived");
    drop(caller);
    ended.wait("the request is cancelled");
    gate.until_metric(&["requests_total", "caller=\"crm\"", "code=\"499\""], 1.0);
    assert_eq!(gate.metric(&["denied_total"]), 0.0, "the gate refused nothing");
    assert_eq!(gate.metric(&["upstream_errors_total"]), 0.0, "the upstream did nothing wrong");
}

#[test]
fn chunks_that_break_off_never_look_whole_to_the_upstream() {
    let upstream = Upstream::run(|conversation| {
        while let Some(head) = conversation.request_head() {
            // It panics when the body ends before its last chunk, and then gives no answer.
            conversation.request_body(&head);
            conversation.answer("200 OK", "application/json", "{}");
        }
    });
    let gate = Gate::start(&upstream, TWO_CALLERS);
    for broken in ["3\r\nabcX\r\n", "zz\r\n", "-1\r\n"] {
        let mut caller = gate.connect("crm");
        caller.send(upload_head("Transfer-Encoding: chunked") + "1\r\na\r\n" + broken);
        let answer = caller.try_answer(false);
        assert!(answer.as_ref().is_ok_and(|answer| answer.summary() == "400 bad_framing"), "{broken:?} {answer:?}");
        assert!(caller.is_closed());
    }
    gate.until_metric(&["requests_total", "code=\"400\""], 3.0);
    assert_eq!(gate.metric(&["requests_total", "code=\"200\""]), 0.0);
    assert_eq!(gate.get("crm", "/management/v1/counters").summary(), "200");
}

#[test]
fn an_answer_before_the_end_of_the_body_reaches_the_caller() {
    let upstream = Upstream::run(|conversation| {
        conversation.request_head();
        conversation.answer("413 Payload Too Large", "application/json", "{}");
        while conversation.discard() > 0 {}
    });
    let gate = Gate::start(&upstream, TWO_CALLERS);
    let mut caller = gate.connect("crm");
    caller.send(upload_head("Content-Length: 100000") + "begin");
    let answer = caller.answer();
    assert_eq!((answer.status, answer.text().as_str()), (413, "{}"));
    // The rest of the body is not read as a request.
    caller.try_send("x".repeat(10_000));
    let mut caller = gate.connect("crm");
    caller.send(GET);
    assert_eq!(caller.answer().status, 413);
    assert_eq!(upstream.connections(), 2, "a connection with half a request on it is not used again");
}

//! An answer that breaks off never looks whole to the caller.

use std::io::{Read, Write};
use std::net::TcpStream;

use crate::harness::gate::{PATIENCE, until};
use crate::harness::{Answer, Gate, Signal, TWO_CALLERS, Upstream};

const GET: &str = "GET /management/v1/counters HTTP/1.1\r\nHost: localhost\r\n\r\n";

/// The caller's view of an answer that begins with `beginning` and then breaks off.
fn cut(beginning: &'static str, reset: bool) -> Result<Answer, String> {
    let goes = Signal::default();
    let go = goes.clone();
    let upstream = Upstream::run(move |conversation| {
        conversation.request_head();
        conversation.write(beginning);
        go.wait("the caller has the beginning");
        if reset {
            conversation.reset();
        } else {
            conversation.close();
        }
    });
    let gate = Gate::start(&upstream, TWO_CALLERS);
    let mut caller = gate.connect("app");
    caller.send(GET);
    until("the beginning arrives", || {
        let arrived = caller.received().windows(3).any(|three| three == b"abc");
        arrived || caller.receive() == 0
    });
    goes.give();
    let answer = caller.try_answer(false);
    gate.until_metric(&["upstream_errors_total", "kind=\"body_cut\""], 1.0);
    gate.until_metric(&["requests_total", "caller=\"reports\"", "code=\"200\""], 1.0);
    gate.until_log(&["\"access\"", "\"outcome\":\"upstream_cut\""]);
    answer
}

fn is_closed_early(answer: &Result<Answer, String>) -> bool {
    matches!(answer, Err(error) if error.starts_with("closed") || error.contains("reset"))
}

#[test]
fn an_answer_that_breaks_off_never_looks_whole() {
    let with_length = "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc";
    let in_chunks = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n";
    for beginning in [with_length, in_chunks] {
        for reset in [false, true] {
            let answer = cut(beginning, reset);
            assert!(is_closed_early(&answer), "{beginning:?} {answer:?}");
        }
    }
    for in_a_chunk in ["10\r\nabc", "3\r\nabcX\r\n"] {
        let answer = cut(format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{in_a_chunk}").leak(), false);
        assert!(is_closed_early(&answer), "{in_a_chunk:?} {answer:?}");
    }
    // Without a length only the end of TLS tells the end from a break (RFC 9112, section 9.8).
    let answer = cut("HTTP/1.1 200 OK\r\n\r\nabc", true);
    assert!(is_closed_early(&answer), "{answer:?}");
}

#[test]
fn an_answer_that_breaks_off_does_not_look_whole_to_a_caller_of_http_1_0() {
    let in_chunks = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n";
    let goes = Signal::default();
    let go = goes.clone();
    let upstream = Upstream::run(move |conversation| {
        conversation.request_head();
        conversation.write(in_chunks);
        go.wait("the caller has the beginning");
        conversation.close();
    });
    let gate = Gate::start(&upstream, TWO_CALLERS);
    let mut caller = TcpStream::connect(gate.place("app")).unwrap();
    caller.set_read_timeout(Some(PATIENCE)).unwrap();
    caller.write_all(b"GET /management/v1/counters HTTP/1.0\r\nHost: localhost\r\n\r\n").unwrap();
    let mut read = Vec::new();
    let mut buffer = [0; 4096];
    while !read.ends_with(b"abc") {
        let more = caller.read(&mut buffer).unwrap();
        assert!(more > 0);
        read.extend_from_slice(&buffer[..more]);
    }
    goes.give();
    // Its end of the connection is the end of the answer, so the connection has to be reset.
    let end = caller.read(&mut buffer);
    assert!(end.is_err(), "{end:?}");
}

/// A caller that asks on one connection, with a buffer that holds little, and has read nothing yet.
fn small_buffer(gate: &Gate, requests: &str) -> TcpStream {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.connect(&gate.place("app").parse::<std::net::SocketAddr>().unwrap().into()).unwrap();
    let mut caller = TcpStream::from(socket);
    caller.set_read_timeout(Some(PATIENCE)).unwrap();
    caller.write_all(requests.as_bytes()).unwrap();
    caller
}

#[test]
fn an_answer_that_breaks_off_leaves_the_whole_answers_before_it() {
    let upstream = Upstream::run(|conversation| {
        conversation.request_head();
        conversation.answer("200 OK", "text/plain", &"a".repeat(100_000));
        conversation.request_head();
        conversation.write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nbbb\r\n");
        conversation.close();
    });
    let gate = Gate::start(&upstream, TWO_CALLERS);
    let mut caller = small_buffer(&gate, &GET.repeat(2));
    gate.until_log(&["\"access\"", "\"outcome\":\"upstream_cut\""]);
    // A caller that goes on sending loses nothing either.
    let _ = caller.write_all(GET.as_bytes());
    let mut read = Vec::new();
    let end = caller.read_to_end(&mut read);
    let text = String::from_utf8_lossy(&read);
    assert!(end.is_ok() && text.matches('a').count() > 100_000, "{} bytes, {end:?}", read.len());
    assert!(!text.ends_with("0\r\n\r\n"), "the second does not look whole");
}

/// A caller of HTTP/1.0 that says in the middle of an answer without a length that it sends no more.
#[test]
fn an_answer_without_a_length_that_is_given_up_does_not_look_whole() {
    let done = Signal::default();
    let hold = done.clone();
    let upstream = Upstream::run(move |conversation| {
        conversation.request_head();
        conversation.write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n");
        hold.wait("the test is over");
    });
    let gate = Gate::start(&upstream, TWO_CALLERS);
    let mut caller = small_buffer(&gate, &GET.replace("HTTP/1.1", "HTTP/1.0"));
    let (mut read, mut buffer) = (Vec::new(), [0; 4096]);
    while !read.ends_with(b"abc") {
        let more = caller.read(&mut buffer).unwrap();
        assert!(more > 0);
        read.extend_from_slice(&buffer[..more]);
    }
    caller.shutdown(std::net::Shutdown::Write).unwrap();
    let end = caller.read(&mut buffer);
    assert!(end.is_err(), "{end:?}");
    done.give();
}

#[test]
fn the_next_request_after_a_broken_answer_works() {
    let upstream = Upstream::run(|conversation| {
        conversation.request_head();
        if conversation.number == 0 {
            conversation.write("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc");
            return conversation.close();
        }
        conversation.answer("200 OK", "application/json", "{}");
    });
    let gate = Gate::start(&upstream, TWO_CALLERS);
    let mut caller = gate.connect("app");
    caller.send(GET);
    assert!(caller.try_answer(false).is_err());
    assert_eq!(gate.get("app", "/management/v1/counters").summary(), "200");
}

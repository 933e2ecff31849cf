//! A response that is cut never looks complete to the caller.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;

use crate::harness::gate::{PATIENCE, until};
use crate::harness::h2::{END_STREAM, H2, HEADERS, RST_STREAM, WHOLE, get};
use crate::harness::{Answer, Gate, Signal, TWO_CALLERS, TWO_CALLERS_HTTP2, Upstream};

const GET: &str = "GET /management/v1/counters HTTP/1.1\r\nHost: localhost\r\n\r\n";
const POST: &str =
    "POST /management/v1/counters HTTP/1.1\r\nHost: localhost\r\nX-Request-ID: {id}\r\nContent-Length: 2\r\n\r\n{}";

/// The caller's view of a response that begins with `beginning` and is then cut.
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

/// A caller of HTTP/1.0 that half-closes in the middle of a response without a length.
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

/// The time that the upstream waits between its first bytes and the break.
#[derive(Clone, Copy, Debug)]
enum Break {
    AtOnce,
    Later,
}

/// Responses that are cut after `beginning`, or `head` alone.
const BREAKS: [(&str, &[u8]); 7] = [
    ("a length, the head alone", b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n"),
    ("a length, the first bytes", b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc"),
    ("chunks, the head alone", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
    ("chunks, the first one", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"),
    ("chunks, and what is none", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nX\r\n"),
    ("what is no chunk at once", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nX\r\n"),
    ("gzip that is none", b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 100\r\n\r\nabc"),
];

/// An upstream that cuts its responses this way, one a connection; it counts the requests that arrive.
fn breaking(beginning: &'static [u8], when: Break) -> Upstream {
    Upstream::run(move |conversation| {
        let Some(head) = conversation.request_head() else { return };
        conversation.request_body(&head);
        conversation.write(beginning);
        if let Break::Later = when {
            std::thread::sleep(Duration::from_millis(300));
        }
        conversation.close();
    })
}

/// The access line of a request.
fn access_line(gate: &Gate, id: &str) -> serde_json::Value {
    serde_json::from_str(&gate.until_log(&["\"access\"", &format!("\"request_id\":\"{id}\"")])).unwrap()
}

fn json(text: &str) -> serde_json::Value {
    text.into()
}

/// Whenever a response is cut, its caller sees a status: the upstream's, or that of a whole refusal. A caller without one
/// could conclude that its request was not sent, and send it again (RFC 9112, section 9.3.1).
#[test]
fn an_answer_that_breaks_off_has_a_status_for_its_caller() {
    for (case, beginning) in BREAKS {
        for when in [Break::AtOnce, Break::Later] {
            let upstream = breaking(beginning, when);
            let gate = Gate::start(&upstream, TWO_CALLERS);
            for (number, version) in ["1.1", "1.0"].into_iter().enumerate() {
                let case = format!("{case}, {when:?}, HTTP/{version}");
                let id = format!("cut-{number}");
                let mut caller = gate.connect("crm");
                let version = format!("HTTP/{version}");
                caller.send(POST.replace("HTTP/1.1", &version).replace("{id}", &id));
                let (status, fields) = caller.head().unwrap_or_else(|error| panic!("{case}: {error}"));
                let line = access_line(&gate, &id);
                assert_eq!(line["status"], status, "{case}: {line}");
                // A response that is visibly invalid with its head is refused as a whole.
                let is_none = case.contains("no chunk at once, AtOnce") || case.contains("gzip that is none, AtOnce");
                assert!(!is_none || status == 502, "{case}: {status}");
                if status == 502 {
                    let field = |wanted: &str| &fields.iter().find(|(name, _)| name == wanted).unwrap().1;
                    assert_eq!(
                        (&line["reason"], &line["outcome"]),
                        (&json(field("x-gate-error")), &json("complete")),
                        "{case}"
                    );
                    let length: usize = field("content-length").parse().unwrap();
                    until("the whole refusal", || caller.received().len() == length || caller.receive() == 0);
                    assert!(caller.received().starts_with(b"{\"errors\""), "{case}");
                    assert_eq!(line["response_bytes"], length, "{case}");
                } else {
                    assert_eq!((status, &line["outcome"]), (200, &"upstream_cut".into()), "{case}: {line}");
                    let received = caller.rest();
                    let whole = received.ends_with(b"0\r\n\r\n");
                    assert!(!whole, "{case}: it does not look whole");
                    let letters = received.iter().filter(|byte| b"abc".contains(byte)).count();
                    assert_eq!(line["response_bytes"], letters, "{case}: {line}");
                }
            }
            assert_eq!(upstream.requests().len(), 2, "{case}");
        }
    }
}

#[test]
fn an_answer_that_breaks_off_has_a_status_on_http2() {
    for (case, beginning) in BREAKS {
        for when in [Break::AtOnce, Break::Later] {
            let upstream = breaking(beginning, when);
            let gate = Gate::start(&upstream, TWO_CALLERS_HTTP2);
            let mut caller = H2::connect(gate.place("app"));
            caller.frame(HEADERS, WHOLE, 1, get());
            let mut frames = Vec::new();
            while let Some(sent) = caller.next() {
                let is_last = sent.kind == RST_STREAM || sent.flags & END_STREAM != 0;
                if sent.stream == 1 {
                    frames.push(sent.kind);
                }
                if is_last && sent.stream == 1 {
                    break;
                }
            }
            assert_eq!(frames.first(), Some(&HEADERS), "{case}, {when:?}: {frames:?}");
            gate.until_log(&["\"access\""]);
        }
    }
}

/// The client that most people have: it repeats a POST when the connection it was sent on ends without a byte.
#[test]
fn curl_does_not_repeat_a_post_whose_answer_broke_off() {
    if Command::new("curl").arg("--version").output().is_err() {
        return;
    }
    let upstream = Upstream::run(|conversation| {
        while let Some(head) = conversation.request_head() {
            conversation.request_body(&head);
            if head.contains("?breaks") {
                conversation.write("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc");
                return conversation.close();
            }
            conversation.answer("200 OK", "application/json", "{}");
        }
    });
    let gate = Gate::start(&upstream, TWO_CALLERS);
    let url = format!("http://{}/management/v1/counters", gate.place("crm"));
    let breaks = format!("{url}?breaks");
    // The second goes on the connection of the first.
    let args = ["-s", "-m", "10", "-d", "{}", "-H", "Content-Type: application/json", &url, &breaks];
    Command::new("curl").args(args).output().unwrap();
    let sent = upstream.requests().iter().filter(|head| head.contains("?breaks")).count();
    assert_eq!(sent, 1);
}

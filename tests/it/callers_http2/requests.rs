//! HTTP/2 towards callers: what HTTP/1.1 promises holds for every request of a connection.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::BodyExt;
use hyper::body::{Body, Frame};
use hyper_util::rt::{TokioExecutor, TokioIo};

use crate::harness::gate::until;
use crate::harness::h2::*;
use crate::harness::{Conversation, Gate, READ_TOKEN, Signal, TWO_CALLERS_HTTP2, Upstream, WRITE_TOKEN};

const COUNTERS: &str = "/management/v1/counters";
const UPLOAD: &str = "/management/v1/counter/1/offline_conversions/upload";

/// A body in pieces, of undeclared length.
#[derive(Default)]
struct Pieces(VecDeque<Frame<Bytes>>);

impl Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.pop_front().map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_empty()
    }
}

/// A whole response.
struct Answer {
    head: Response<()>,
    body: Vec<u8>,
    trailers: Option<HeaderMap>,
}

impl Answer {
    fn field(&self, name: &str) -> Option<&str> {
        self.head.headers().get(name).map(|value| value.to_str().unwrap())
    }
}

fn ask(method: &str, path: &str) -> http::request::Builder {
    Request::builder().method(method).uri(format!("http://localhost{path}"))
}

/// Sends requests at once on one connection of a client that others use too; what each was answered.
fn exchange(place: &str, requests: Vec<Request<Pieces>>) -> Vec<Answer> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let socket = TokioIo::new(tokio::net::TcpStream::connect(place).await.unwrap());
        let builder = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
        let (mut sender, connection) = builder.handshake(socket).await.unwrap();
        tokio::spawn(connection);
        sender.ready().await.unwrap();
        let sent: Vec<_> = requests.into_iter().map(|request| sender.send_request(request)).collect();
        let mut answers = Vec::new();
        for answer in sent {
            let (head, body) = answer.await.unwrap().into_parts();
            let body = body.collect().await.unwrap();
            let trailers = body.trailers().cloned();
            let head = Response::from_parts(head, ());
            answers.push(Answer { head, body: body.to_bytes().to_vec(), trailers });
        }
        answers
    })
}

fn one(gate: &Gate, listener: &str, request: http::request::Builder) -> Answer {
    exchange(gate.place(listener), vec![request.body(Pieces::default()).unwrap()]).pop().unwrap()
}

/// one Authorization, the gate's, and one Host, whatever a caller sends; each response to its request.
#[test]
fn requests_at_once_are_each_their_own() {
    let upstream = Upstream::run(|conversation| {
        while let Some(head) = conversation.request_head() {
            let path = head.split(' ').nth(1).unwrap().to_owned();
            conversation.answer("200 OK", "text/plain", &path);
        }
    });
    let gate = Gate::start(&upstream, TWO_CALLERS_HTTP2);
    let target = |n: usize| format!("{COUNTERS}?offset={n}&filters=a%2Cb,c:d+e%20f");
    let request = |n| {
        let request = ask("GET", &target(n)).header("x-request-id", format!("id-{n}"));
        let request = request.header("authorization", "OAuth mine").header("proxy-authorization", "x");
        let request = request.header("cookie", "a=b").header("cookie", "c=d").header("x-forwarded-for", "10.0.0.1");
        request.header("te", "trailers").body(Pieces::default()).unwrap()
    };
    let answers = exchange(gate.place("app"), (0..90).map(request).collect());
    for (n, answer) in answers.iter().enumerate() {
        assert_eq!((answer.head.status().as_u16(), answer.body.as_slice()), (200, target(n).as_bytes()));
        assert_eq!(answer.field("x-request-id"), Some(format!("id-{n}").as_str()));
        assert_eq!(answer.field("connection"), None);
    }
    let mut heads = upstream.requests();
    heads.iter().for_each(|head| {
        let lower = head.to_ascii_lowercase();
        assert_eq!(lower.matches("authorization: ").count(), 1, "{head}");
        assert!(head.contains(&format!("authorization: OAuth {READ_TOKEN}\r\n")), "{head}");
        assert!(head.contains("\r\nhost: api-metrika.yandex.net\r\n"), "{head}");
        assert!(!lower.contains("cookie") && !lower.contains("forwarded"), "{head}");
    });
    heads.sort();
    heads.dedup_by_key(|head| head.lines().next().unwrap().to_owned());
    assert_eq!(heads.len(), 90, "each was sent once");
    gate.until_metric(&["requests_total", "caller=\"reports\"", "code=\"200\""], 90.0);
    gate.until_log(&["\"access\"", "\"request_id\":\"id-7\"", "\"outcome\":\"complete\""]);
    gate.until_metric(&["credentials_dropped_total", "kind=\"cookie\""], 90.0);
}

/// the policy and the target's rules are the same.
#[test]
fn refusals_are_the_same() {
    let upstream = Upstream::plain();
    let config =
        TWO_CALLERS_HTTP2.replace("callers:", "  - {name: nobody, address: '127.0.0.1:0', http2: true}\ncallers:");
    let gate = Gate::start(&upstream, &config);
    let long = format!("{COUNTERS}?a={}", "x".repeat(50_000));
    let cases = [
        ("nobody", ask("GET", COUNTERS), 401, "unknown_caller"),
        ("app", ask("GET", "/management/v1/..;/counters"), 400, "bad_target"),
        ("app", ask("GET", "/management/v1/%2e%2e/counters"), 400, "bad_target"),
        ("app", ask("GET", "/nowhere"), 404, "unknown_operation"),
        ("app", ask("DELETE", "/management/v1/counter/1"), 403, "scope_denied"),
        ("app", ask("OPTIONS", COUNTERS), 405, "method_not_allowed"),
        ("app", ask("GET", &long), 414, "target_too_long"),
        ("app", ask("GET", COUNTERS).header("accept", "x".repeat(70_000)), 431, "headers_too_large"),
        (
            "app",
            (0..101).fold(ask("GET", COUNTERS), |request, n| request.header(format!("a{n}"), "b")),
            431,
            "headers_too_large",
        ),
    ];
    for (listener, request, status, reason) in cases {
        let answer = one(&gate, listener, request);
        assert_eq!((answer.head.status().as_u16(), answer.field("x-gate-error")), (status, Some(reason)));
        let body: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!(body["code"], status, "{body}");
        assert_eq!(answer.field("content-length"), Some(answer.body.len().to_string().as_str()));
    }
    gate.until_metric(&["denied_total"], 9.0);
    assert_eq!(upstream.connections(), 0, "nothing was sent upstream");
    let largest = format!("{COUNTERS}?a={}", "x".repeat(48 * 1024 - COUNTERS.len() - 3));
    assert_eq!(one(&gate, "app", ask("GET", &largest)).head.status(), 200);
    assert!(upstream.requests()[0].starts_with(&format!("GET {largest} HTTP/1.1\r\n")));
}

#[test]
fn the_answer_to_a_head_has_no_content() {
    let upstream = Upstream::run(|conversation| {
        while conversation.request_head().is_some() {
            conversation.write("HTTP/1.1 200 OK\r\nContent-Length: 1234\r\n\r\n");
        }
    });
    let gate = Gate::start(&upstream, TWO_CALLERS_HTTP2);
    for (path, status, length) in [(COUNTERS, 200, Some("1234")), ("/nowhere", 404, None)] {
        let answer = one(&gate, "app", ask("HEAD", path));
        assert_eq!((answer.head.status().as_u16(), answer.body.len()), (status, 0), "{path}");
        let said = answer.field("content-length").unwrap();
        assert!(length.is_none_or(|length| length == said) && said != "0", "{path}: {said}");
    }
    let line = gate.until_log(&["\"access\"", "\"status\":404"]);
    assert!(line.contains("\"outcome\":\"complete\""), "{line}");
}

#[test]
fn bodies_and_trailers_pass_in_both_directions() {
    let upstream = Upstream::run(|conversation| {
        while let Some(head) = conversation.request_head() {
            let body =
                if head.contains("chunked") { with_trailers(conversation) } else { conversation.request_body(&head) };
            conversation.write(format!(
                "HTTP/1.1 200 OK\r\nTrailer: x-checksum\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{}\r\n0\r\nx-checksum: 7\r\nconnection: close\r\nset-cookie: a\r\n\r\n",
                body.len(),
                String::from_utf8(body).unwrap()
            ));
        }
    });
    let gate = Gate::start(&upstream, TWO_CALLERS_HTTP2);
    let mut trailers = HeaderMap::new();
    trailers.insert("x-checksum", "1".parse().unwrap());
    trailers.insert("authorization", "OAuth mine".parse().unwrap());
    let data = |text: &'static str| Frame::data(Bytes::from_static(text.as_bytes()));
    let body = Pieces([data("ab"), data("cd"), Frame::trailers(trailers)].into());
    let request = ask("POST", UPLOAD).header("trailer", "x-checksum").header("te", "trailers").body(body).unwrap();
    let sized =
        ask("POST", UPLOAD).header("content-length", "4").body(Pieces([data("ef"), data("gh")].into())).unwrap();
    let answers = exchange(gate.place("crm"), vec![request, sized]);
    assert_eq!(answers[0].body, b"ab|cd|x-checksum: 1");
    assert_eq!(answers[1].body, b"efgh");
    for answer in &answers {
        let trailers = answer.trailers.as_ref().expect("trailers");
        assert_eq!((trailers.len(), trailers["x-checksum"].to_str().unwrap()), (1, "7"));
    }
    assert!(upstream.requests().iter().all(|head| head.contains(WRITE_TOKEN)));
    let sized = upstream.requests().into_iter().filter(|head| head.contains("content-length: 4\r\n")).count();
    assert_eq!(sized, 1);
}

/// Reads a body of chunks: their content and the trailers, with a bar between.
fn with_trailers(conversation: &mut Conversation) -> Vec<u8> {
    let mut parts = Vec::new();
    loop {
        let size = usize::from_str_radix(&conversation.line(), 16).unwrap();
        if size == 0 {
            break;
        }
        parts.push(String::from_utf8(conversation.exactly(size)).unwrap());
        conversation.line();
    }
    loop {
        let line = conversation.line();
        if line.is_empty() {
            return parts.join("|").into_bytes();
        }
        parts.push(line);
    }
}

/// A response that is cut is reset and never looks complete; the others on the connection go on.
#[test]
fn an_answer_that_is_cut_is_reset_alone() {
    let upstream = Upstream::run(|conversation| {
        while let Some(head) = conversation.request_head() {
            if head.contains("?cut") {
                conversation.write("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc");
                return conversation.close();
            }
            conversation.answer("200 OK", "application/json", "{}");
        }
    });
    let gate = Gate::start(&upstream, TWO_CALLERS_HTTP2);
    let mut caller = H2::connect(gate.place("app"));
    caller.frame(HEADERS, WHOLE, 1, block(request("GET", "/management/v1/counters?cut")));
    let (fate, body) = caller.answer(1);
    assert!(matches!(fate, Fate::Reset(code) if code != NO_ERROR) && body.len() <= 3, "{fate:?}");
    caller.frame(HEADERS, WHOLE, 3, get());
    assert_eq!(caller.fate(3), Fate::Answered(200));
    gate.until_log(&["\"access\"", "\"outcome\":\"upstream_cut\""]);
}

/// A request that its caller cancels is cut at Metrica, and nothing else.
#[test]
fn a_request_that_is_given_up_is_cut_alone() {
    let (left, go) = (Signal::default(), Signal::default());
    let (leaves, goes) = (left.clone(), go.clone());
    let upstream = Upstream::run(move |conversation| {
        while let Some(head) = conversation.request_head() {
            if head.contains("?held") {
                while conversation.discard() > 0 {}
                return leaves.give();
            }
            goes.wait("the test lets the other answer go");
            conversation.answer("200 OK", "application/json", "{}");
        }
    });
    let gate = Gate::start(&upstream, TWO_CALLERS_HTTP2);
    let mut caller = H2::connect(gate.place("app"));
    caller.frame(HEADERS, WHOLE, 1, block(request("GET", "/management/v1/counters?held")));
    caller.frame(HEADERS, WHOLE, 3, get());
    until("both are at Metrica", || upstream.requests().len() == 2);
    caller.frame(RST_STREAM, 0, 1, CANCEL.to_be_bytes());
    left.wait("the request that was given up is cut");
    gate.until_metric(&["requests_total", "code=\"499\""], 1.0);
    go.give();
    assert_eq!(caller.fate(3), Fate::Answered(200));
    // The end of the connection ends every request on it.
    let left = upstream.requests().len();
    for stream in [5, 7, 9] {
        caller.frame(HEADERS, WHOLE, stream, block(request("GET", "/management/v1/counters?held")));
    }
    until("all are at Metrica", || upstream.requests().len() == left + 3);
    drop(caller);
    gate.until_metric(&["requests_total", "code=\"499\""], 4.0);
    gate.until_metric(&["in_flight_requests"], 0.0);
}

/// HTTP/2 on both sides: many streams of a caller share one connection to Metrica.
#[test]
fn http2_in_and_out() {
    let fake = crate::upstream::http2::fake(true);
    let gate = crate::upstream::http2::plan(&fake.address().to_string(), fake.ca_pem(), "");
    let gate = gate.with_http2().start();
    let request = |_| ask("GET", COUNTERS).body(Pieces::default()).unwrap();
    let answers = exchange(gate.place("app"), (0..60).map(request).collect());
    assert!(answers.iter().all(|answer| answer.head.status() == 200 && answer.body.starts_with(b"{")));
    let line = "UserId,Target,DateTime\n1,goal,1481718166\n";
    let pieces = (0..1000).map(|_| Frame::data(Bytes::from_static(line.as_bytes()))).collect();
    let path = format!("/management/v1/counter/{}/offline_conversions/upload", fake_metrica::DEMO_COUNTER);
    let sent = ask("POST", &path).header("content-type", "text/csv").body(Pieces(pieces)).unwrap();
    let answer = exchange(gate.place("crm"), vec![sent]).pop().unwrap();
    assert_eq!(answer.head.status(), 200, "{}", String::from_utf8_lossy(&answer.body));
}

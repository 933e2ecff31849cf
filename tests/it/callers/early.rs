//! Answers that come before the end of a body: the caller gets them, whatever it still sends, and however slowly.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};

use crate::harness::gate::until;
use crate::harness::upstream::certificate;
use crate::harness::{Caller, Gate, TWO_CALLERS, Upstream};

const UPLOAD: &str = "POST /management/v1/counter/1/offline_conversions/upload HTTP/1.1\r\nHost: localhost\r\n";
const PIECES: usize = 10;
/// Much longer than a header may take.
const PAUSE: Duration = Duration::from_millis(100);
const SHORT_HEADERS: &str = "timeouts: {request_headers: 300ms}";

/// Sends the pieces of a body at the pace of a caller that looks at the answer only then; how many were taken.
fn send_slowly(caller: &mut Caller) -> usize {
    let one = |_: &usize| {
        std::thread::sleep(PAUSE);
        caller.try_send("x")
    };
    (0..PIECES).filter(one).count()
}

#[test]
fn an_answer_is_there_after_a_slow_upload_that_it_did_not_wait_for() {
    let upstream = Upstream::run(|conversation| {
        conversation.request_head();
        conversation.answer("403 Forbidden", "application/json", "{}");
        while conversation.discard() > 0 {}
    });
    let gate = Gate::start(&upstream, &format!("{TWO_CALLERS}\n{SHORT_HEADERS}\n"));
    // Refused by the upstream, and by the gate.
    for (listener, summary) in [("crm", "403"), ("app", "403 scope_denied")] {
        let mut caller = gate.connect(listener);
        caller.send(format!("{UPLOAD}Content-Length: 1000\r\n\r\n"));
        assert_eq!(send_slowly(&mut caller), PIECES, "the connection was not ended under the upload");
        assert_eq!(caller.try_answer(false).map(|answer| answer.summary()), Ok(summary.to_owned()));
    }
    gate.until_metric(&["requests_total", "code=\"403\""], 2.0);
    gate.until_metric(&["in_flight_requests"], 0.0);
}

/// Answers 403 on HTTP/2 at once and reads each body to its end; counts its bytes.
fn refusing_on_http2(read: Arc<AtomicUsize>) -> (SocketAddr, String) {
    let (mut config, ca_pem) = certificate("api-metrika.yandex.net");
    config.alpn_protocols = vec![b"h2".to_vec()];
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    listener.set_nonblocking(true).unwrap();
    let refuse = move |request: http::Request<Incoming>| {
        let read = read.clone();
        tokio::spawn(async move {
            let mut body = request.into_body();
            while let Some(Ok(frame)) = body.frame().await {
                read.fetch_add(frame.into_data().map_or(0, |data| data.len()), Ordering::SeqCst);
            }
        });
        let answer = http::Response::builder().status(403).body(Full::new(Bytes::from_static(b"{}")));
        std::future::ready(answer)
    };
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
            while let Ok((socket, _)) = listener.accept().await {
                let (acceptor, refuse) = (acceptor.clone(), refuse.clone());
                tokio::spawn(async move {
                    let stream = TokioIo::new(acceptor.accept(socket).await.unwrap());
                    let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                    let _ = builder.serve_connection(stream, service_fn(refuse)).await;
                });
            }
        });
    });
    (address, ca_pem)
}

#[test]
fn the_rest_of_a_body_is_no_header() {
    // On HTTP/2 the rest is passed on to an upstream that goes on reading.
    let read = Arc::new(AtomicUsize::new(0));
    let (address, ca_pem) = refusing_on_http2(read.clone());
    let upstream = "upstream: {ca_file: '{ca}', connect_to: '{upstream}', http2: true}";
    let config = format!("{TWO_CALLERS}\n{SHORT_HEADERS}\n\n{upstream}\n");
    let gate = Gate::plan_for(&address.to_string(), &ca_pem, &config).start();
    let mut caller = gate.connect("crm");
    caller.send(format!("{UPLOAD}Content-Length: {PIECES}\r\n\r\n"));
    assert_eq!(send_slowly(&mut caller), PIECES, "the connection was not ended under the upload");
    until("all of it is at Metrica", || read.load(Ordering::SeqCst) == PIECES);
    assert_eq!(caller.answer().summary(), "403");
    assert!(caller.is_closed(), "the answer said so");
}

/// a refusal either reads its request to the end, or announces that the connection closes.
#[test]
fn a_refused_write_keeps_its_connection_or_announces_its_end() {
    let upstream = Upstream::plain();
    let gate = Gate::start(&upstream, TWO_CALLERS);
    let head = |fields: &str| format!("POST /management/v1/counters HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n\r\n");
    let chunks = head("Transfer-Encoding: chunked") + "2\r\n{}\r\n0\r\nX-Checksum: 1\r\n\r\n";
    let small = head("Content-Length: 2") + "{}";
    let mut caller = gate.connect("app");
    for whole in [&small, &chunks, &small] {
        caller.send(whole);
        let answer = caller.answer();
        assert_eq!((answer.summary().as_str(), answer.field("connection")), ("403 scope_denied", Some("keep-alive")));
    }
    caller.send("GET /management/v1/counters HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(caller.answer().summary(), "200");
    let large = head("Content-Length: 100000") + &"x".repeat(100_000);
    for unread in [head("Content-Length: 3") + "{}", head("Content-Length: 2\r\nExpect: 100-continue"), large] {
        let mut caller = gate.connect("app");
        caller.try_send(unread);
        let answer = caller.answer();
        assert_eq!((answer.summary().as_str(), answer.field("connection")), ("403 scope_denied", Some("close")));
        assert_eq!(answer.interim, Vec::<u16>::new());
        assert!(caller.is_closed());
    }
    assert_eq!(upstream.requests().len(), 1);
}

//! hyper on a connection of HTTP/1.1, while it is needed.
//!
//! 1. hyper keeps a buffer for reading and one for writing, which have no smaller size than 8 KB. A connection whose caller is
//!    idle ([`crate::gateway::pauses`]) is *parked*: hyper is given back, and the strict reader stays.
//! 2. The next bytes are read and checked by the same reader, and then given to a new hyper. So none is lost, whenever it
//!    arrives. A caller that closes its connection needs no hyper.
//! 3. Parking is decided after each poll of hyper, and has no timer or task of its own: deadlines, a drain and the limits
//!    concern the connection, whether hyper is there or not.

use std::error::Error;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use hyper::body::{Body, Incoming};
use hyper::server::conn::http1;
use hyper::service::HttpService;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::caller_io::CallerIo;
use crate::config::Limits;

/// The room for the first bytes of the request that ends a pause. hyper reads the rest.
const FIRST_BYTES: usize = 2048;

/// A connection of HTTP/1.1 with its service. One of the two is there.
pub struct Http1<S>
where
    S: HttpService<Incoming>,
{
    limits: Limits,
    running: Option<Box<http1::Connection<TokioIo<CallerIo>, S>>>,
    parked: Option<Box<(CallerIo, S)>>,
}

impl<S> Http1<S>
where
    S: HttpService<Incoming>,
    S::Error: Into<Box<dyn Error + Send + Sync>>,
    S::ResBody: 'static,
    <S::ResBody as Body>::Error: Into<Box<dyn Error + Send + Sync>>,
{
    /// Starts without hyper: the first request may take its time.
    pub fn new(io: CallerIo, service: S, limits: Limits) -> Self {
        Self { limits, running: None, parked: Some(Box::new((io, service))) }
    }

    fn run(&mut self, io: CallerIo, service: S) {
        self.running = Some(Box::new(protocol(self.limits).serve_connection(TokioIo::new(io), service)));
    }

    /// Whether hyper is there.
    pub const fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// Gives hyper back. The caller is idle ([`crate::gateway::connection::Connection::parking`]).
    pub fn park(&mut self) {
        let Some(running) = self.running.take() else { return };
        let http1::Parts { io, read_buf, service, .. } = running.into_parts();
        let mut io = io.into_inner();
        // Empty, as the caller is idle. If it were not, nothing would be lost.
        io.put_ahead(&read_buf);
        self.parked = Some(Box::new((io, service)));
    }

    /// Announces the end of the connection in the response that is in progress.
    pub fn graceful_shutdown(&mut self) {
        if let Some(running) = self.running.as_deref_mut() {
            Pin::new(running).graceful_shutdown();
        }
    }

    /// Serves the connection; ready when it has ended.
    pub fn poll(&mut self, context: &mut Context<'_>) -> Poll<hyper::Result<()>> {
        if let Some(parked) = self.parked.as_deref_mut() {
            let is_over = ready!(poll_first_bytes(&mut parked.0, context));
            let Some(parked) = self.parked.take().filter(|_| !is_over) else { return Poll::Ready(Ok(())) };
            let (io, service) = *parked;
            self.run(io, service);
        }
        match self.running.as_deref_mut() {
            Some(running) => Pin::new(running).poll(context),
            None => Poll::Ready(Ok(())),
        }
    }
}

/// Waits for the next bytes of an idle caller. Returns whether there are none, because the connection has ended or what
/// arrived is malformed (rule 2).
fn poll_first_bytes(io: &mut CallerIo, context: &mut Context<'_>) -> Poll<bool> {
    let mut room = [0; FIRST_BYTES];
    let mut buffer = ReadBuf::new(&mut room);
    let read = ready!(Pin::new(&mut *io).poll_read(context, &mut buffer));
    if read.is_ok() && !buffer.filled().is_empty() {
        io.put_ahead(buffer.filled());
        return Poll::Ready(false);
    }
    if read.is_ok() {
        // TLS says that nothing follows. On an error, the connection has ended anyway.
        let _ = ready!(Pin::new(io).poll_shutdown(context));
    }
    Poll::Ready(true)
}

/// The number of header fields that hyper reads without an allocation.
const HEADER_FIELDS: usize = 100;

fn protocol(limits: Limits) -> http1::Builder {
    let mut builder = http1::Builder::new();
    // hyper's own timer would also close idle connections, which have a longer deadline; see `ConnectionDeadlines`.
    builder.header_read_timeout(None);
    // Larger than `framing` lets through, so that hyper never responds by itself; bodies are read in pieces of this
    // size.
    builder.max_header_size(limits.header_bytes + 1).max_buf_size(limits.header_bytes.max(64 * 1024) + 1);
    if limits.header_fields > HEADER_FIELDS {
        builder.max_headers(limits.header_fields);
    }
    builder
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::convert::Infallible;
    use std::net::Ipv4Addr;
    use std::rc::Rc;
    use std::task::Waker;

    use http_body_util::BodyExt;
    use hyper::service::service_fn;
    use hyper::{Request, Response};
    use strict_http::request_reader::Bounds;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::UnixStream;
    use tokio::time::Instant;

    use super::super::begun::Begun;
    use super::super::socket::Socket;
    use super::*;
    use crate::gateway::connection::{Connection, Phase};
    use crate::gateway::pauses::Parking;
    use crate::policy::caller::{Evidence, Peer};
    use crate::policy::names::ListenerName;

    const LIMITS: Limits =
        Limits { header_bytes: 8192, target_bytes: 1024, header_fields: 10, connections: 1, connections_per_peer: 1 };
    const REQUESTS: &str = "GET /1 HTTP/1.1\r\nHost: a\r\n\r\nPOST /2 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc\
        POST /3 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nde\r\n0\r\n\r\nGET /4?\u{e9} HTTP/1.1\r\nHost: a\r\n\r\n";
    /// How often a long response repeats a short one: more than a socket holds.
    const LONG: usize = 500_000;
    const SERVED: &str = "/1= /2=abc /3=de /4?%C3%A9= ";

    trait Answering: HttpService<Incoming, ResBody = String, Error = Infallible> {}
    impl<S: HttpService<Incoming, ResBody = String, Error = Infallible>> Answering for S {}

    /// A connection that keeps what it was asked, and its caller.
    fn connection() -> (Rc<Connection>, Rc<Cell<String>>, UnixStream, Http1<impl Answering>) {
        let (caller, gate) = UnixStream::pair().unwrap();
        let peer = Peer::Address(Ipv4Addr::LOCALHOST.into());
        let connection = Rc::new(Connection::new(Evidence::new(ListenerName::new("app"), peer)));
        let bounds = Bounds { header_bytes: LIMITS.header_bytes, header_fields: LIMITS.header_fields };
        let io = CallerIo::new((Socket::Unix(gate), Begun::default()), connection.clone(), bounds);
        let served = Rc::new(Cell::new(String::new()));
        let (state, log) = (connection.clone(), served.clone());
        let service = service_fn(move |request: Request<Incoming>| {
            let (state, log) = (state.clone(), log.clone());
            Box::pin(async move {
                state.next_request();
                state.begin(Instant::now());
                let target = request.uri().to_string();
                let body = request.into_body().collect().await.map(|body| body.to_bytes());
                let body = String::from_utf8(body.unwrap().to_vec()).unwrap();
                state.request_completed();
                log.set(format!("{}{target}={body} ", log.take()));
                state.end(Instant::now());
                let answer = String::from("answer");
                Ok::<_, Infallible>(Response::new(if target == "/long" { answer.repeat(LONG) } else { answer }))
            })
        });
        (connection, served, caller, Http1::new(io, service, LIMITS))
    }

    /// When the rest is sent.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    enum Moment {
        WithThePoll,
        BeforeParking,
        AfterParking,
        Parked,
    }

    /// Sends all in two parts, the second one at `moment`, and parks whenever that is allowed. Returns how often it was.
    async fn exchange(split: usize, moment: Moment) -> (String, String, usize) {
        let (connection, served, mut caller, mut http) = connection();
        let (first, second) = REQUESTS.as_bytes().split_at(split);
        let (mut parked, mut rest) = (0, Some(second));
        caller.write_all(first).await.unwrap();
        for round in 0..12 {
            tokio::task::yield_now().await;
            let mut now = |at: Moment, wanted: bool| {
                if wanted
                    && at == moment
                    && let Some(rest) = rest.take()
                {
                    assert_eq!(caller.try_write(rest).unwrap(), rest.len());
                }
            };
            now(Moment::WithThePoll, true);
            assert!(http.poll(&mut Context::from_waker(Waker::noop())).is_pending());
            let parks = http.is_running() && connection.parking().is_some();
            now(Moment::BeforeParking, parks || round == 6);
            if parks {
                http.park();
                parked += 1;
            }
            now(Moment::AfterParking, parks || round == 6);
            now(Moment::Parked, !http.is_running() || round == 6);
        }
        drop(http);
        let mut answers = String::new();
        caller.read_to_string(&mut answers).await.unwrap();
        (served.take(), answers, parked)
    }

    #[tokio::test]
    async fn rule_2_no_byte_is_lost_wherever_and_whenever_it_arrives() {
        let mut most = 0;
        for split in 1..REQUESTS.len() {
            for moment in [Moment::WithThePoll, Moment::BeforeParking, Moment::AfterParking, Moment::Parked] {
                let (served, answers, parked) = exchange(split, moment).await;
                assert_eq!(served, SERVED, "{split} {moment:?}");
                assert_eq!(answers.matches("answer").count(), 4, "{split} {moment:?}");
                assert!(parked >= 1, "{split} {moment:?}: it was idle at the end");
                most = most.max(parked);
            }
        }
        assert!(most >= 2, "it was never parked between two requests");
    }

    async fn polled(http: &mut Http1<impl Answering>) -> Poll<bool> {
        let mut polled = Poll::Pending;
        for _ in 0..3 {
            tokio::task::yield_now().await;
            polled = http.poll(&mut Context::from_waker(Waker::noop())).map(|ended| ended.is_ok());
        }
        polled
    }

    #[tokio::test]
    async fn rule_1_hyper_stays_during_a_request_and_while_the_next_one_has_begun() {
        let (connection, _served, mut caller, mut http) = connection();
        assert_eq!(
            (polled(&mut http).await, connection.parking()),
            (Poll::Pending, None),
            "the first request is expected"
        );
        for (bytes, is_idle) in [
            ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n", false),
            ("a", false),
            ("b", true),
            ("GET / HTTP/1.1\r\nHost: a\r\n\r\nGE", false),
            ("T / HTTP/1.1\r\nHost: a\r\n\r\n\r\n", false),
            ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", true),
        ] {
            caller.write_all(bytes.as_bytes()).await.unwrap();
            assert!(polled(&mut http).await.is_pending());
            assert_eq!(connection.parking().is_some(), is_idle, "{bytes}");
        }
        assert!(matches!(connection.parking(), Some(Parking::At(_))), "it sent soon");
    }

    #[tokio::test]
    async fn rule_1_hyper_stays_while_a_response_is_to_be_written() {
        let (connection, _served, mut caller, mut http) = connection();
        caller.write_all(b"GET /long HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        assert!(polled(&mut http).await.is_pending());
        assert_eq!((connection.phase(), connection.parking()), (Phase::Idle, None));
        let (mut room, mut read) = (vec![0; 64 * 1024], Vec::new());
        while connection.parking().is_none() {
            let bytes = caller.read(&mut room).await.unwrap();
            read.extend_from_slice(&room[..bytes]);
            assert!(polled(&mut http).await.is_pending());
        }
        http.park();
        drop(http);
        caller.read_to_end(&mut read).await.unwrap();
        assert_eq!(String::from_utf8(read).unwrap().matches("answer").count(), LONG);
    }

    #[tokio::test]
    async fn rule_2_the_end_of_an_idle_connection_needs_no_hyper() {
        for last in ["", "GET / HTTP/1.1\nHost: a\n\n"] {
            let (connection, _served, mut caller, mut http) = connection();
            caller.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
            assert!(polled(&mut http).await.is_pending());
            http.park();
            caller.write_all(last.as_bytes()).await.unwrap();
            caller.shutdown().await.unwrap();
            assert_eq!(polled(&mut http).await, Poll::Ready(true));
            assert_eq!(connection.refused().is_some(), !last.is_empty(), "malformed bytes are refused as before");
            assert!(!last.is_empty() || !http.is_running());
        }
    }
}

//! The requests of one HTTP/2 connection. Each runs as a task of its own, beside the connection's task.
//!
//! 1. A request whose caller exceeds a timeout is abandoned: hyper resets its stream, and its upstream exchange is
//!    cut. Its [`Connection`] knows the deadlines, as for HTTP/1.1. A request that exceeds its total time gets a 504
//!    while one can still be sent.
//! 2. A piece of a response that flow control holds back counts as a write that the caller does not read.
//! 3. The response to a HEAD has no content (RFC 9110, section 9.3.2).
//! 4. A response can precede the end of an upload. The remaining upload is read and discarded for a while, because
//!    some clients treat a reset as a failure; then the stream is reset without an error (RFC 9113, section 8.1).
//! 5. Futures that are not requests do not run here, such as those of hyper's tunnels.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_LENGTH;
use http::{HeaderValue, Response};
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Instant, timeout};

use crate::config::CallerTimeouts;
use crate::gateway::connection::Connection;
use crate::gateway::transport::Transport;
use crate::policy::rejection::Reason;
use crate::response::{ResponseBody, ResponseError};
use crate::worker::Worker;

/// The longest interval between two checks of a waiting request.
const LOOK: Duration = Duration::from_secs(10);

/// Returns the interval between two checks of a waiting request: a wait for the caller can begin without waking its
/// task.
#[must_use]
pub fn look_every(timeouts: &CallerTimeouts) -> Duration {
    (timeouts.body_idle / 4).min(LOOK)
}

/// The requests of a connection, as hyper's executor.
#[derive(Clone)]
pub struct Streams(Rc<Shared>);

struct Shared {
    worker: Rc<Worker>,
    transport: Rc<Transport>,
    /// The latest request given to hyper; the next future that hyper spawns belongs to it.
    latest: RefCell<Option<Rc<Connection>>>,
    /// The number of requests that run.
    live: Cell<usize>,
    /// The number of requests whose response has begun.
    answering: Cell<usize>,
    idle_since: Cell<Instant>,
    waker: RefCell<Option<Waker>>,
}

impl Streams {
    /// Returns the executor of a new connection with this shared state.
    #[must_use]
    pub fn new(worker: Rc<Worker>, transport: Rc<Transport>) -> Self {
        Self(Rc::new(Shared {
            worker,
            transport,
            latest: RefCell::default(),
            live: Cell::new(0),
            answering: Cell::new(0),
            idle_since: Cell::new(Instant::now()),
            waker: RefCell::default(),
        }))
    }

    /// Returns the state that the requests share.
    #[must_use]
    pub fn transport(&self) -> &Rc<Transport> {
        &self.0.transport
    }

    /// Registers the waker to call when the last request ends, and when a request waits for a flush.
    pub fn wake(&self, waker: &Waker) {
        self.0.transport.flushes_with(waker);
        *self.0.waker.borrow_mut() = Some(waker.clone());
    }

    /// Registers the state of a request that begins.
    pub fn begin(&self, connection: Rc<Connection>) {
        *self.0.latest.borrow_mut() = Some(connection);
    }

    /// Returns the time since which no request runs.
    #[must_use]
    pub fn idle_since(&self) -> Option<Instant> {
        (self.0.live.get() == 0).then(|| self.0.idle_since.get())
    }

    /// Returns the number of running requests whose response has begun.
    #[must_use]
    pub fn answering(&self) -> usize {
        self.0.answering.get()
    }

    /// Prepares a response of the gateway for hyper.
    #[must_use]
    pub fn answer(
        &self,
        to_head: bool,
        mut answer: Response<ResponseBody>,
        connection: Rc<Connection>,
    ) -> Response<Content> {
        if to_head && !answer.body().is_end_stream() {
            // hyper would send the content.
            if let Some(length) = answer.body().size_hint().exact() {
                answer.headers_mut().entry(CONTENT_LENGTH).or_insert_with(|| HeaderValue::from(length));
            }
        }
        self.0.answering.set(self.0.answering.get() + 1);
        answer.map(|body| Content { body: (!to_head).then_some(body), connection, streams: self.clone() })
    }
}

impl<F: Future<Output = ()> + 'static> hyper::rt::Executor<F> for Streams {
    fn execute(&self, future: F) {
        // Rule 5.
        let Some(connection) = self.0.latest.take() else { return };
        self.0.live.set(self.0.live.get() + 1);
        let running = Running(self.0.clone());
        tokio::task::spawn_local(async move {
            if run(&running.0.worker, &connection, future).await && connection.request_is_open() {
                // Boxed, because few requests end this way.
                let _ = timeout(READ_ON, Box::pin(read_on(&connection))).await;
            }
            drop(running);
        });
    }
}

/// A running request, counted until dropped.
struct Running(Rc<Shared>);

impl Drop for Running {
    fn drop(&mut self) {
        let live = self.0.live.get().saturating_sub(1);
        self.0.live.set(live);
        if live == 0 {
            self.0.idle_since.set(Instant::now());
            self.0.waker.borrow().iter().for_each(Waker::wake_by_ref);
        }
    }
}

/// Runs a request until it ends or its caller exceeds a timeout (rule 1). Returns whether it ended.
async fn run(worker: &Worker, connection: &Connection, request: impl Future<Output = ()>) -> bool {
    let mut request = pin!(request);
    let timeouts = || worker.snapshot().generation.timeouts;
    let mut watchdog = worker.watchdogs.take(look_every(&timeouts()));
    let mut next_look = Instant::now() + look_every(&timeouts());
    let ended = poll_fn(|context| {
        if request.as_mut().poll(context).is_ready() {
            return Poll::Ready(true);
        }
        loop {
            let timeouts = timeouts();
            let (of_step, of_request) = (connection.deadline(&timeouts), connection.request_deadline(&timeouts));
            let next = of_step.unwrap_or(next_look);
            ready!(watchdog.poll_passed(context, of_request.map_or(next, |deadline| deadline.min(next))));
            let now = Instant::now();
            let passed = |deadline: Option<Instant>| deadline.is_some_and(|deadline| deadline <= now);
            let can_be_told = match passed(of_step) {
                true => connection.stall(),
                false => passed(of_request) && connection.expire(Reason::RequestTimeout),
            };
            if !can_be_told && (passed(of_step) || passed(of_request)) {
                tracing::debug!("the caller exceeded a timeout; aborting its request");
                return Poll::Ready(false);
            }
            // The request is notified of its timeout, and responds.
            if can_be_told && request.as_mut().poll(context).is_ready() {
                return Poll::Ready(true);
            }
            next_look = now + look_every(&timeouts);
        }
    })
    .await;
    worker.watchdogs.give_back(watchdog);
    ended
}

/// The bounds of reading the remaining upload (rule 4).
const READ_ON: Duration = Duration::from_secs(5);
const READ_ON_BYTES: usize = 16 * 1024 * 1024;

async fn read_on(connection: &Connection) {
    let mut body = poll_fn(|context| connection.poll_unread(context)).await;
    let mut left = READ_ON_BYTES;
    while let Some(Ok(frame)) = poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
        let length = frame.data_ref().map_or(0, Bytes::len);
        if length > left {
            return;
        }
        left -= length;
    }
}

/// The content of a response, on its way to hyper.
pub struct Content {
    body: Option<ResponseBody>,
    connection: Rc<Connection>,
    streams: Streams,
}

impl Body for Content {
    type Data = Bytes;
    type Error = ResponseError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ResponseError>>> {
        let Self { body, connection, .. } = self.get_mut();
        let Some(body) = body else { return Poll::Ready(None) };
        let polled = Pin::new(body).poll_frame(context);
        // Rule 2: hyper asks for the next piece once this one is sent.
        connection.block_write(matches!(polled, Poll::Ready(Some(Ok(_)))));
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(ResponseBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), ResponseBody::size_hint)
    }
}

impl Drop for Content {
    fn drop(&mut self) {
        self.streams.0.answering.set(self.streams.0.answering.get().saturating_sub(1));
    }
}

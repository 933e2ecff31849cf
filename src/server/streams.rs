//! The requests of one connection of HTTP/2: each runs as a task of its own, beside the connection's.
//!
//! 1. A request whose caller lets the gate wait too long is given up: hyper resets its stream, and what it has at the
//!    upstream is cut. How long is too long, its [`Connection`] knows, as for HTTP/1.1. One that takes too long as a whole
//!    is answered with 504 while it can be.
//! 2. A piece of an answer that flow control holds back is a write that the caller does not take.
//! 3. The answer to a HEAD has no content (RFC 9110, section 9.3.2).
//! 4. An answer can come before the end of an upload. What of that is still on its way is read and thrown away, for a
//!    while, as some clients take a reset for a failure; then the stream is reset without an error (RFC 9113, section
//!    8.1).
//! 5. Nothing runs here that was no request: hyper's tunnels would.

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
use crate::gateway::body::{BodyError, ResponseBody};
use crate::gateway::connection::Connection;
use crate::gateway::transport::Transport;
use crate::policy::rejection::Reason;
use crate::worker::Worker;

/// The longest time after which what waits is looked at again.
const LOOK: Duration = Duration::from_secs(10);

/// After what time what waits is looked at again: what it waits for can begin without a word to its task.
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
    /// The request that hyper was just given the future of; what it runs next is that.
    latest: RefCell<Option<Rc<Connection>>>,
    /// How many run.
    live: Cell<usize>,
    /// Of how many the answer has begun.
    answering: Cell<usize>,
    idle_since: Cell<Instant>,
    waker: RefCell<Option<Waker>>,
}

impl Streams {
    /// Of a connection that has just begun.
    #[must_use]
    pub fn new(worker: Rc<Worker>) -> Self {
        Self(Rc::new(Shared {
            worker,
            transport: Rc::default(),
            latest: RefCell::default(),
            live: Cell::new(0),
            answering: Cell::new(0),
            idle_since: Cell::new(Instant::now()),
            waker: RefCell::default(),
        }))
    }

    /// What the requests share.
    #[must_use]
    pub fn transport(&self) -> &Rc<Transport> {
        &self.0.transport
    }

    /// Who is woken when no request runs any more, and when one waits for a flush.
    pub fn wake(&self, waker: &Waker) {
        self.0.transport.flushes_with(waker);
        *self.0.waker.borrow_mut() = Some(waker.clone());
    }

    /// A request begins, with this as its state.
    pub fn begin(&self, connection: Rc<Connection>) {
        *self.0.latest.borrow_mut() = Some(connection);
    }

    /// Since when no request runs.
    #[must_use]
    pub fn idle_since(&self) -> Option<Instant> {
        (self.0.live.get() == 0).then(|| self.0.idle_since.get())
    }

    /// Of how many requests that run the answer has begun.
    #[must_use]
    pub fn answering(&self) -> usize {
        self.0.answering.get()
    }

    /// An answer of the gateway as it goes to hyper.
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
                // Boxed: few requests end so.
                let _ = timeout(READ_ON, Box::pin(read_on(&connection))).await;
            }
            drop(running);
        });
    }
}

/// A request that runs.
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

/// Runs a request to its end, or for as long as there is patience with its caller (rule 1); whether it came to its end.
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
                tracing::debug!("the caller took too long; its request is given up");
                return Poll::Ready(false);
            }
            // The request sees that its time is over, and answers.
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

/// Rule 4: so long, and so many bytes.
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

/// The content of an answer, on its way to hyper.
pub struct Content {
    body: Option<ResponseBody>,
    connection: Rc<Connection>,
    streams: Streams,
}

impl Body for Content {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Self { body, connection, .. } = self.get_mut();
        let Some(body) = body else { return Poll::Ready(None) };
        let polled = Pin::new(body).poll_frame(context);
        // Rule 2: hyper asks for the next piece when this one has gone.
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

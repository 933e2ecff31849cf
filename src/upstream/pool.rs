//! The connections of one worker to the upstream.
//!
//! 1. An idle HTTP/1.1 connection is used again, the last one used first; it is dropped when it was idle longer than
//!    `upstream.timeouts.keep_alive`, or when the upstream closed it.
//! 2. Where HTTP/2 was asked for and agreed on, requests share a connection, up to [`STREAMS`] at once. One that refused a
//!    request takes no new ones.
//! 3. At most `upstream.connections` requests are under way, an equal share of them for each worker; others wait for
//!    `connect` at most.
//! 4. A connection is used again only when both the request and the answer came to their end on it; otherwise it is
//!    closed at once.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http1, http2};
use hyper::rt::Executor;
use hyper_util::rt::TokioIo;
use tokio::sync::Semaphore;
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout};

use super::Upstream;
use super::dial::{DialError, Dialled, Traffic, dial};
use super::lookup::LookUps;

/// Requests at once on one HTTP/2 connection. RFC 9113, section 6.5.2, advises servers to allow no fewer.
pub const STREAMS: usize = 100;

/// The connections of one worker.
pub struct Pool<B> {
    upstream: Arc<Upstream>,
    permits: Semaphore,
    idle: RefCell<Vec<Idle<B>>>,
    shared: RefCell<Vec<Shared<B>>>,
    look_ups: LookUps,
    /// Held while an HTTP/2 connection is opened, so that a burst of requests opens one.
    opening: tokio::sync::Mutex<()>,
    /// The upstream did not take HTTP/2 the last time; then waiting for one another gains nothing.
    only_http1: Cell<bool>,
    reaping: Cell<bool>,
}

/// An HTTP/1.1 connection and the task that drives it.
struct Http1<B> {
    sender: http1::SendRequest<B>,
    traffic: Rc<Traffic>,
    task: AbortHandle,
}

struct Idle<B> {
    connection: Http1<B>,
    since: Instant,
}

struct Shared<B> {
    sender: http2::SendRequest<B>,
    active: Rc<Cell<usize>>,
    opened: Instant,
    since: Instant,
}

enum Sender<B> {
    Http1 { connection: Http1<B>, read_before: u64 },
    Http2 { sender: http2::SendRequest<B>, active: Rc<Cell<usize>> },
}

/// The use of a connection for one request.
pub struct Lease<B: 'static> {
    pool: Rc<Pool<B>>,
    sender: Option<Sender<B>>,
    reused: bool,
}

#[derive(Clone, Copy)]
struct OnThisThread;

impl<F: Future<Output = ()> + 'static> Executor<F> for OnThisThread {
    fn execute(&self, future: F) {
        tokio::task::spawn_local(future);
    }
}

impl<B: Body + Unpin + 'static> Pool<B>
where
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    /// An empty pool that allows `permits` requests at once.
    #[must_use]
    pub fn new(upstream: Arc<Upstream>, permits: usize) -> Self {
        Self {
            upstream,
            permits: Semaphore::new(permits),
            idle: RefCell::default(),
            shared: RefCell::default(),
            look_ups: LookUps::default(),
            opening: tokio::sync::Mutex::new(()),
            only_http1: Cell::new(false),
            reaping: Cell::new(false),
        }
    }

    /// Where the connections go.
    #[must_use]
    pub fn upstream(&self) -> &Arc<Upstream> {
        &self.upstream
    }

    /// A connection for one request: an idle one unless `fresh` asks for a new one, of this request or of another that asked
    /// for the same since.
    ///
    /// # Errors
    /// [`DialError`] when there is none to be had.
    pub async fn lease(self: &Rc<Self>, fresh: bool) -> Result<Lease<B>, DialError> {
        let after = fresh.then(Instant::now);
        self.permit().await?;
        // From here the permit belongs to the lease, which returns it when dropped.
        let mut lease = Lease { pool: self.clone(), sender: None, reused: true };
        lease.sender = self.take_shared(after);
        if lease.sender.is_none() && !fresh {
            lease.sender = self.take_idle();
        }
        if lease.sender.is_none() {
            // Boxed: the states of dialling would otherwise be a part of every request's future.
            let (sender, reused) = Box::pin(self.open(after)).await?;
            (lease.sender, lease.reused) = (Some(sender), reused);
        }
        Ok(lease)
    }

    async fn permit(&self) -> Result<(), DialError> {
        if let Ok(permit) = self.permits.try_acquire() {
            permit.forget();
            return Ok(());
        }
        let limit = self.upstream.settings.timeouts.connect;
        match timeout(limit, self.permits.acquire()).await {
            Ok(Ok(permit)) => {
                permit.forget();
                Ok(())
            }
            Ok(Err(_)) | Err(_) => Err(DialError::Saturated(limit)),
        }
    }

    fn take_idle(&self) -> Option<Sender<B>> {
        let keep_alive = self.upstream.settings.timeouts.keep_alive;
        let mut idle = self.idle.borrow_mut();
        while let Some(Idle { connection, since }) = idle.pop() {
            if since.elapsed() >= keep_alive {
                // What lies below was idle even longer.
                idle.clear();
                return None;
            }
            if !connection.sender.is_closed() {
                return Some(Sender::http1(connection));
            }
        }
        None
    }

    /// A shared connection with a free stream; one opened after `after`, where that is given.
    fn take_shared(&self, after: Option<Instant>) -> Option<Sender<B>> {
        let mut shared = self.shared.borrow_mut();
        if shared.is_empty() {
            return None;
        }
        shared.retain(|connection| !connection.sender.is_closed());
        let is_new = |connection: &Shared<B>| after.is_none_or(|after| connection.opened >= after);
        let free = shared.iter_mut().find(|connection| connection.active.get() < STREAMS && is_new(connection))?;
        free.active.set(free.active.get() + 1);
        free.since = Instant::now();
        Some(Sender::Http2 { sender: free.sender.clone(), active: free.active.clone() })
    }

    /// A connection, and whether somebody else has just opened it.
    async fn open(self: &Rc<Self>, after: Option<Instant>) -> Result<(Sender<B>, bool), DialError> {
        let together = self.upstream.settings.http2 && !self.only_http1.get();
        let limit = self.upstream.settings.timeouts.connect;
        let turn = if together {
            // Who waits for another's connection waits no longer than that one may take.
            Some(timeout(limit, self.opening.lock()).await.map_err(|_| DialError::Timeout(limit))?)
        } else {
            None
        };
        if together && let Some(sender) = self.take_shared(after) {
            return Ok((sender, true));
        }
        let dialled = dial(&self.upstream, &self.look_ups).await?;
        self.only_http1.set(!dialled.http2);
        let sender = if dialled.http2 { self.start_http2(dialled).await } else { start_http1(dialled).await };
        drop(turn);
        Ok((sender?, false))
    }

    async fn start_http2(self: &Rc<Self>, dialled: Dialled) -> Result<Sender<B>, DialError> {
        let mut builder = http2::Builder::new(OnThisThread);
        builder
            .timer(hyper_util::rt::TokioTimer::new())
            // A connection whose other end is silently gone would take every request until its deadline.
            .keep_alive_interval(self.upstream.settings.timeouts.connect)
            .keep_alive_timeout(self.upstream.settings.timeouts.connect)
            .initial_stream_window_size(1 << 20)
            .initial_connection_window_size(1 << 24)
            .max_frame_size(1 << 16)
            .max_header_list_size(1 << 18);
        let started = builder.handshake(TokioIo::new(dialled.stream)).await;
        let (sender, connection) = started.map_err(|error| DialError::Connect(std::io::Error::other(error)))?;
        tokio::task::spawn_local(async move {
            // Its error reaches each request on it.
            let _ = connection.await;
        });
        let active = Rc::new(Cell::new(1));
        let now = Instant::now();
        let shared = Shared { sender: sender.clone(), active: active.clone(), opened: now, since: now };
        self.shared.borrow_mut().push(shared);
        self.reap_later();
        Ok(Sender::Http2 { sender, active })
    }

    fn keep(self: &Rc<Self>, connection: Http1<B>) {
        if !connection.sender.is_closed() {
            self.idle.borrow_mut().push(Idle { connection, since: Instant::now() });
            self.reap_later();
        }
    }

    /// One task closes what was idle too long; it ends when nothing is idle, so an unused gate is not woken.
    fn reap_later(self: &Rc<Self>) {
        if self.reaping.replace(true) {
            return;
        }
        let pool = Rc::downgrade(self);
        let keep_alive = self.upstream.settings.timeouts.keep_alive;
        tokio::task::spawn_local(async move {
            loop {
                tokio::time::sleep(keep_alive / 2 + Duration::from_millis(1)).await;
                let Some(pool) = pool.upgrade() else { return };
                if pool.reap(keep_alive) {
                    pool.reaping.set(false);
                    return;
                }
            }
        });
    }

    /// Closes what was idle too long; whether nothing is left.
    fn reap(&self, keep_alive: Duration) -> bool {
        let mut idle = self.idle.borrow_mut();
        idle.retain(|idle| idle.since.elapsed() < keep_alive && !idle.connection.sender.is_closed());
        let mut shared = self.shared.borrow_mut();
        shared.retain(|connection| {
            let used = connection.active.get() > 0 || connection.since.elapsed() < keep_alive;
            used && !connection.sender.is_closed()
        });
        idle.is_empty() && shared.is_empty()
    }
}

async fn start_http1<B>(dialled: Dialled) -> Result<Sender<B>, DialError>
where
    B: Body + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let broken = |error| DialError::Connect(std::io::Error::other(error));
    let Dialled { stream, traffic, .. } = dialled;
    let (mut sender, connection) = http1::Builder::new().handshake(TokioIo::new(stream)).await.map_err(broken)?;
    let task = tokio::task::spawn_local(async move {
        // Its error reaches the request on it.
        let _ = connection.await;
    });
    let task = task.abort_handle();
    sender.ready().await.map_err(broken)?;
    Ok(Sender::http1(Http1 { sender, traffic, task }))
}

impl<B> Sender<B> {
    fn http1(connection: Http1<B>) -> Self {
        let read_before = connection.traffic.read();
        Self::Http1 { connection, read_before }
    }
}

impl<B: Body + Unpin + 'static> Lease<B>
where
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    /// Whether the connection has carried a request before.
    #[must_use]
    pub const fn is_reused(&self) -> bool {
        self.reused
    }

    /// Whether it is an HTTP/2 connection.
    #[must_use]
    pub const fn is_http2(&self) -> bool {
        matches!(self.sender, Some(Sender::Http2 { .. }))
    }

    /// Whether the upstream sent nothing since the lease began. Unknown on a shared connection, so no.
    #[must_use]
    pub fn nothing_was_read(&self) -> bool {
        match &self.sender {
            Some(Sender::Http1 { connection, read_before }) => connection.traffic.read() == *read_before,
            Some(Sender::Http2 { .. }) | None => false,
        }
    }

    /// Waits until the connection can take the request; false when it closed instead, or is stuck with what is left of
    /// the request before.
    pub async fn ready(&mut self) -> bool {
        let limit = self.pool.upstream.settings.timeouts.connect;
        match &mut self.sender {
            Some(Sender::Http1 { connection, .. }) if connection.sender.is_ready() => true,
            Some(Sender::Http1 { connection, .. }) => {
                timeout(limit, connection.sender.ready()).await.is_ok_and(|ready| ready.is_ok())
            }
            Some(Sender::Http2 { sender, .. }) => timeout(limit, sender.ready()).await.is_ok_and(|ready| ready.is_ok()),
            None => false,
        }
    }

    /// Sends the request; the head of the answer.
    ///
    /// # Errors
    /// The request comes back when nothing of it was written.
    pub async fn send(&mut self, request: Request<B>) -> Result<Response<Incoming>, TrySendError<Request<B>>> {
        match &mut self.sender {
            Some(Sender::Http2 { sender, .. }) => sender.try_send_request(request).await,
            Some(Sender::Http1 { connection, .. }) => {
                connection.traffic.await_head(true);
                let answer = connection.sender.try_send_request(request).await;
                connection.traffic.await_head(false);
                answer
            }
            None => std::future::pending().await,
        }
    }

    /// The upstream refuses what is sent on this shared connection: no other request is.
    pub fn retire(&self) {
        if let Some(Sender::Http2 { active, .. }) = &self.sender {
            self.pool.shared.borrow_mut().retain(|connection| !Rc::ptr_eq(&connection.active, active));
        }
    }

    /// The answer came to its end; `clean` when the request did too (rule 4).
    pub fn finish(mut self, clean: bool) {
        match self.sender.take() {
            Some(Sender::Http1 { connection, .. }) if clean => self.pool.keep(connection),
            other => self.sender = other,
        }
    }
}

impl<B> Drop for Lease<B> {
    fn drop(&mut self) {
        match &self.sender {
            Some(Sender::Http2 { active, .. }) => active.set(active.get().saturating_sub(1)),
            // It was not given back: what it carried is over. Left alone it would wait until the upstream takes the rest.
            Some(Sender::Http1 { connection, .. }) => connection.task.abort(),
            None => {}
        }
        self.pool.permits.add_permits(1);
    }
}

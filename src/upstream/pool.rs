//! The connections of one worker to the upstream.
//!
//! 1. A connection carries one token and never another, so a late response of an upstream can only reach that token's
//!    requests (`docs/decisions/0021`).
//! 2. Idle HTTP/1.1 connections are reused, the most recently used first. A connection is dropped when it was idle longer
//!    than `upstream.timeouts.keep_alive`, when the upstream closed it, or when its token is gone.
//! 3. If HTTP/2 is configured and negotiated, requests share a connection, up to [`STREAMS`] at once or the upstream's
//!    limit. A connection that refused a request accepts no new ones.
//! 4. At most `upstream.connections` requests are under way, divided equally among the workers; others wait at most
//!    `connect`. That is also the maximum number of HTTP/1.1 connections, including idle ones: a new connection for one
//!    token closes the connection that was idle longest.
//! 5. A connection accepts no new request beyond an age of `upstream.max_age`, so DNS changes are followed under any load.
//!    Each lives for a random share between four fifths and all of that time, so they do not end together.
//! 6. A connection is reused only if both request and response completed on it; otherwise it is closed at once.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::Body;
use hyper::client::conn::http2;
use hyper::rt::Executor;
use hyper_util::rt::TokioIo;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, timeout};

use super::Upstream;
use super::dial::{DialError, Dialled, dial, place};
use super::http1::Http1;
use super::lookup::LookUps;
use super::sender::{Active, Sender};
use crate::metrics::PoolMeters;

/// The maximum number of parallel requests on one HTTP/2 connection. RFC 9113, section 6.5.2, recommends at least 100 to
/// servers.
pub const STREAMS: usize = 100;

/// An age that is practically unlimited, and still representable as an instant.
const FAR: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);

/// The token that a connection carries, as its epoch, which is never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CarriedToken(pub u64);

/// The connections of one worker.
pub struct Pool<B> {
    upstream: Arc<Upstream>,
    meters: Rc<PoolMeters>,
    permits: Semaphore,
    most: usize,
    /// Idle connections, the longest idle first.
    idle: RefCell<Vec<Idle>>,
    shared: RefCell<Vec<Shared<B>>>,
    look_ups: LookUps,
    /// Per token, a lock held while an HTTP/2 connection is opened, so that a burst of requests opens one.
    opening: RefCell<Vec<(CarriedToken, Weak<tokio::sync::Mutex<()>>)>>,
    /// Whether the upstream last declined HTTP/2; then waiting for another's connection gains nothing.
    only_http1: Cell<bool>,
    reaping: Cell<bool>,
    /// The task that watches idle connections.
    reaper: RefCell<Waker>,
}

/// The place of one request in a pool, released on drop.
pub(super) struct Permit<B> {
    pool: Rc<Pool<B>>,
    /// Whether the request has a connection for itself, which is counted.
    has_connection: bool,
}

impl<B> Permit<B> {
    /// The pool of the place.
    pub(super) const fn pool(&self) -> &Rc<Pool<B>> {
        &self.pool
    }

    /// Records that the request got `sender`; `reused` if the connection existed before.
    pub(super) fn got(&mut self, sender: &Sender<B>, reused: bool) {
        if reused {
            self.pool.meters.reused();
        }
        match sender {
            Sender::Http1(_) => {
                self.pool.meters.begins();
                self.has_connection = true;
            }
            Sender::Http2 { .. } => {}
        }
    }
}

impl<B> Drop for Permit<B> {
    fn drop(&mut self) {
        if self.has_connection {
            self.pool.meters.ends();
        }
        self.pool.permits.add_permits(1);
    }
}

struct Idle {
    carried: CarriedToken,
    connection: Http1,
    since: Instant,
}

struct Shared<B> {
    carried: CarriedToken,
    sender: http2::SendRequest<B>,
    active: Rc<Cell<usize>>,
    /// The peer's limit of parallel requests. A request beyond it would wait inside hyper without being woken.
    most: Rc<Cell<usize>>,
    opened: Instant,
    until: Instant,
    since: Instant,
}

#[derive(Clone, Copy)]
struct OnThisThread;

impl<F: Future<Output = ()> + 'static> Executor<F> for OnThisThread {
    fn execute(&self, future: F) {
        tokio::task::spawn_local(future);
    }
}

impl<B> Pool<B> {
    /// The upstream of the connections.
    #[must_use]
    pub fn upstream(&self) -> &Arc<Upstream> {
        &self.upstream
    }
}

impl<B: Body<Data = Bytes> + Unpin + 'static> Pool<B>
where
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    /// An empty pool that allows `permits` requests at once, and counts in `meters`.
    #[must_use]
    pub fn new(upstream: Arc<Upstream>, permits: usize, meters: Rc<PoolMeters>) -> Self {
        Self {
            upstream,
            meters,
            permits: Semaphore::new(permits),
            most: permits,
            idle: RefCell::default(),
            shared: RefCell::default(),
            look_ups: LookUps::default(),
            opening: RefCell::default(),
            only_http1: Cell::new(false),
            reaping: Cell::new(false),
            reaper: RefCell::new(Waker::noop().clone()),
        }
    }

    /// Waits for a place for one request (rule 4).
    pub(super) async fn permit(self: &Rc<Self>) -> Result<Permit<B>, DialError> {
        if let Ok(permit) = self.permits.try_acquire() {
            permit.forget();
            return Ok(Permit { pool: self.clone(), has_connection: false });
        }
        let limit = self.upstream.settings.timeouts.connect;
        let start = Instant::now();
        let acquired = timeout(limit, self.permits.acquire()).await;
        self.meters.waited(start.elapsed());
        match acquired {
            Ok(Ok(permit)) => {
                permit.forget();
                Ok(Permit { pool: self.clone(), has_connection: false })
            }
            Ok(Err(_)) | Err(_) => Err(DialError::Saturated(limit)),
        }
    }

    /// Takes an idle connection that carries the token.
    pub(super) fn take_idle(&self, carried: CarriedToken) -> Option<Sender<B>> {
        let mut idle = self.idle.borrow_mut();
        let now = Instant::now();
        let position = idle.iter().rposition(|idle| idle.carried == carried && idle.connection.until > now)?;
        if now - idle.get(position)?.since >= self.upstream.settings.timeouts.keep_alive {
            // The connections before it were idle even longer.
            idle.drain(..=position);
            return None;
        }
        Some(Sender::Http1(idle.remove(position).connection))
    }

    /// Closes idle connections to make room for a new one (rule 4). The caller already has a permit.
    fn make_room(&self) {
        let in_use = self.most.saturating_sub(self.permits.available_permits());
        let mut idle = self.idle.borrow_mut();
        let too_many = (idle.len() + in_use).saturating_sub(self.most).min(idle.len());
        idle.drain(..too_many);
    }

    /// The number of idle connections, and of shared connections that carry requests.
    #[must_use]
    pub fn open_connections(&self) -> (usize, usize) {
        let shared = self.shared.borrow();
        let active = shared.iter().filter(|connection| connection.active.get() > 0).count();
        (self.idle.borrow().len() + shared.len() - active, active)
    }

    /// Stops further requests on this shared connection.
    pub(super) fn retire(&self, active: &Active) {
        self.shared.borrow_mut().retain(|connection| !active.is_on(&connection.active));
    }

    /// Drops the connections whose tokens are not in use.
    pub fn retain(&self, is_in_use: impl Fn(CarriedToken) -> bool) {
        self.idle.borrow_mut().retain(|idle| is_in_use(idle.carried));
        self.shared.borrow_mut().retain(|shared| is_in_use(shared.carried));
    }

    /// Takes a shared connection with a free stream; with `after`, only one opened since.
    pub(super) fn take_shared(&self, carried: CarriedToken, after: Option<Instant>) -> Option<Sender<B>> {
        let mut shared = self.shared.borrow_mut();
        if shared.is_empty() {
            return None;
        }
        shared.retain(|connection| !connection.sender.is_closed());
        let is_new = |connection: &Shared<B>| after.is_none_or(|after| connection.opened >= after);
        let now = Instant::now();
        let is_free = |connection: &Shared<B>| {
            connection.carried == carried
                && connection.until > now
                && connection.active.get() < STREAMS.min(connection.most.get())
        };
        let free = shared.iter_mut().find(|connection| is_free(connection) && is_new(connection))?;
        free.since = now;
        Some(Sender::Http2 { sender: free.sender.clone(), active: Active::on(&free.active) })
    }

    /// Opens a connection. Returns it, and whether another request has just opened it.
    pub(super) async fn open(
        self: &Rc<Self>,
        carried: CarriedToken,
        after: Option<Instant>,
    ) -> Result<(Sender<B>, bool), DialError> {
        let together = self.upstream.settings.http2 && !self.only_http1.get();
        let limit = self.upstream.settings.timeouts.connect;
        let turn = if together {
            // A request waits for another's connection no longer than opening one may take.
            let turn = self.turn(carried).lock_owned();
            Some(timeout(limit, turn).await.map_err(|_| DialError::Timeout(limit))?)
        } else {
            None
        };
        if together && let Some(sender) = self.take_shared(carried, after) {
            return Ok((sender, true));
        }
        self.make_room();
        let dialled = dial(&self.upstream, &self.look_ups).await?;
        self.meters.opened(dialled.address, dialled.steps.iter().copied());
        self.only_http1.set(!dialled.http2);
        let sender = if dialled.http2 {
            self.start_http2(carried, dialled).await?
        } else {
            Sender::Http1(Http1::new(dialled.stream, self.until()))
        };
        drop(turn);
        Ok((sender, false))
    }

    /// When a connection opened now stops accepting requests (rule 5).
    fn until(&self) -> Instant {
        let whole = self.upstream.settings.max_age;
        Instant::now() + whole.saturating_sub((whole / 5).mul_f32(fastrand::f32())).min(FAR)
    }

    /// The lock for opening a connection that carries this token.
    fn turn(&self, carried: CarriedToken) -> Arc<tokio::sync::Mutex<()>> {
        let mut opening = self.opening.borrow_mut();
        opening.retain(|(_, turn)| turn.strong_count() > 0);
        let known = opening.iter().find(|(of, _)| *of == carried).and_then(|(_, turn)| turn.upgrade());
        known.unwrap_or_else(|| {
            let turn = Arc::default();
            opening.push((carried, Arc::downgrade(&turn)));
            turn
        })
    }

    async fn start_http2(self: &Rc<Self>, carried: CarriedToken, dialled: Dialled) -> Result<Sender<B>, DialError> {
        let mut builder = http2::Builder::new(OnThisThread);
        builder
            .timer(hyper_util::rt::TokioTimer::new())
            // Without pings, a connection whose peer silently vanished would hold every request until its deadline.
            .keep_alive_interval(self.upstream.settings.timeouts.connect)
            .keep_alive_timeout(self.upstream.settings.timeouts.connect)
            .initial_stream_window_size(1 << 20)
            .initial_connection_window_size(1 << 24)
            .max_frame_size(1 << 16)
            .max_header_list_size(1 << 18);
        let started = builder.handshake(TokioIo::new(dialled.stream)).await;
        let (sender, mut connection) = started.map_err(|error| DialError::Connect {
            place: place(&self.upstream),
            source: std::io::Error::other(error),
        })?;
        let most = Rc::new(Cell::new(STREAMS));
        let says = most.clone();
        tokio::task::spawn_local(poll_fn(move |context| {
            // Each request on the connection receives its error.
            let ended = Pin::new(&mut connection).poll(context).map(drop);
            says.set(connection.current_max_send_streams());
            ended
        }));
        let count = Rc::default();
        let active = Active::on(&count);
        let now = Instant::now();
        let until = self.until();
        let shared = Shared { carried, sender: sender.clone(), active: count, most, opened: now, until, since: now };
        self.shared.borrow_mut().push(shared);
        self.reap_later();
        Ok(Sender::Http2 { sender, active })
    }

    pub(super) fn keep(self: &Rc<Self>, carried: CarriedToken, connection: Http1) {
        // Watched from now on, so a close by the upstream is noticed while the connection is idle.
        let now = Instant::now();
        let is_young = connection.until > now;
        if is_young && connection.is_free() && connection.is_quiet(&mut Context::from_waker(&self.reaper.borrow())) {
            self.idle.borrow_mut().push(Idle { carried, connection, since: now });
            self.reap_later();
        }
    }

    /// Starts the task that closes connections that were idle too long or that the upstream closed. It ends when none is
    /// idle, so an unused gate does not wake.
    fn reap_later(self: &Rc<Self>) {
        if self.reaping.replace(true) {
            return;
        }
        let pool = Rc::downgrade(self);
        let interval = self.upstream.settings.timeouts.keep_alive / 2 + Duration::from_millis(1);
        tokio::task::spawn_local(async move {
            let mut tick = pin!(sleep(interval));
            poll_fn(|context| {
                let Some(pool) = pool.upgrade() else { return Poll::Ready(()) };
                loop {
                    if pool.reap(context) {
                        pool.reaping.set(false);
                        pool.reaper.replace(Waker::noop().clone());
                        return Poll::Ready(());
                    }
                    ready!(tick.as_mut().poll(context));
                    tick.as_mut().reset(Instant::now() + interval);
                }
            })
            .await;
        });
    }

    /// Closes connections that were idle too long or are closed. Returns whether none is left. The task is woken when one
    /// closes.
    fn reap(&self, context: &mut Context<'_>) -> bool {
        let keep_alive = self.upstream.settings.timeouts.keep_alive;
        if !self.reaper.borrow().will_wake(context.waker()) {
            self.reaper.replace(context.waker().clone());
        }
        let now = Instant::now();
        let mut idle = self.idle.borrow_mut();
        idle.retain(|idle| {
            let is_kept = now - idle.since < keep_alive && idle.connection.until > now;
            is_kept && idle.connection.is_quiet(context)
        });
        let mut shared = self.shared.borrow_mut();
        shared.retain(|connection| {
            let is_kept = now - connection.since < keep_alive && connection.until > now;
            let used = connection.active.get() > 0 || is_kept;
            used && !connection.sender.is_closed()
        });
        idle.is_empty() && shared.is_empty()
    }
}

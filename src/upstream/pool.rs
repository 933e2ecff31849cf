//! The connections of one worker to the upstream.
//!
//! 1. A connection carries one token, and no other ever: what an upstream sends late for one is nobody's answer but that
//!    token's (`docs/decisions/0021`).
//! 2. An idle HTTP/1.1 connection is used again, the last one used first; it is dropped when it was idle longer than
//!    `upstream.timeouts.keep_alive`, when the upstream closed it, or when its token is gone.
//! 3. Where HTTP/2 was asked for and agreed on, requests share a connection, up to [`STREAMS`] at once or as many as
//!    the upstream takes. One that refused a request takes no new ones.
//! 4. At most `upstream.connections` requests are under way, an equal share of them for each worker; others wait for
//!    `connect` at most. There are no more connections of HTTP/1.1 than that, idle ones included: a new one for one token ends
//!    the one of another that was idle longest.
//! 5. A connection takes no new request when it is older than `upstream.max_age`, so that a name that leads elsewhere is
//!    followed however busy it is. Each has a share of four fifths to the whole of it, so that they do not end together.
//! 6. A connection is used again only when both the request and the answer came to their end on it; otherwise it is
//!    closed at once.

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

/// Requests at once on one HTTP/2 connection. RFC 9113, section 6.5.2, advises servers to allow no fewer.
pub const STREAMS: usize = 100;

/// As good as without a bound, and still a moment that can be written.
const FAR: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);

/// Which token a connection carries: the number of its reading, which no other one has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Carried(pub u64);

/// The connections of one worker.
pub struct Pool<B> {
    upstream: Arc<Upstream>,
    permits: Semaphore,
    most: usize,
    /// The one that was idle longest is first.
    idle: RefCell<Vec<Idle>>,
    shared: RefCell<Vec<Shared<B>>>,
    look_ups: LookUps,
    /// By the token that it is to carry: held while an HTTP/2 connection is opened, so that a burst of requests opens one.
    opening: RefCell<Vec<(Carried, Weak<tokio::sync::Mutex<()>>)>>,
    /// The upstream did not take HTTP/2 the last time; then waiting for one another gains nothing.
    only_http1: Cell<bool>,
    reaping: Cell<bool>,
    /// Who sees to idle connections.
    reaper: RefCell<Waker>,
}

/// The place of one request in a pool, which is free when this is dropped.
pub(super) struct Permit<B>(Rc<Pool<B>>);

impl<B> Permit<B> {
    /// The pool.
    pub(super) const fn pool(&self) -> &Rc<Pool<B>> {
        &self.0
    }
}

impl<B> Drop for Permit<B> {
    fn drop(&mut self) {
        self.0.permits.add_permits(1);
    }
}

struct Idle {
    carried: Carried,
    connection: Http1,
    since: Instant,
}

struct Shared<B> {
    carried: Carried,
    sender: http2::SendRequest<B>,
    active: Rc<Cell<usize>>,
    /// How many requests at once the other end takes. What is beyond would wait inside hyper, where nothing calls it back.
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
    /// Where the connections go.
    #[must_use]
    pub fn upstream(&self) -> &Arc<Upstream> {
        &self.upstream
    }
}

impl<B: Body<Data = Bytes> + Unpin + 'static> Pool<B>
where
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    /// An empty pool that allows `permits` requests at once.
    #[must_use]
    pub fn new(upstream: Arc<Upstream>, permits: usize) -> Self {
        Self {
            upstream,
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

    /// Waits for the place of one request (rule 4).
    pub(super) async fn permit(self: &Rc<Self>) -> Result<Permit<B>, DialError> {
        if let Ok(permit) = self.permits.try_acquire() {
            permit.forget();
            return Ok(Permit(self.clone()));
        }
        let limit = self.upstream.settings.timeouts.connect;
        match timeout(limit, self.permits.acquire()).await {
            Ok(Ok(permit)) => {
                permit.forget();
                Ok(Permit(self.clone()))
            }
            Ok(Err(_)) | Err(_) => Err(DialError::Saturated(limit)),
        }
    }

    /// An idle connection that carries the token.
    pub(super) fn take_idle(&self, carried: Carried) -> Option<Sender<B>> {
        let mut idle = self.idle.borrow_mut();
        let now = Instant::now();
        let position = idle.iter().rposition(|idle| idle.carried == carried && idle.connection.until > now)?;
        if now - idle.get(position)?.since >= self.upstream.settings.timeouts.keep_alive {
            // Those before it were idle even longer.
            idle.drain(..=position);
            return None;
        }
        Some(Sender::Http1(idle.remove(position).connection))
    }

    /// Makes room for a new connection (rule 4). Who opens one has a permit already.
    fn make_room(&self) {
        let in_use = self.most.saturating_sub(self.permits.available_permits());
        let mut idle = self.idle.borrow_mut();
        let too_many = (idle.len() + in_use).saturating_sub(self.most).min(idle.len());
        idle.drain(..too_many);
    }

    /// No other request is sent on this shared connection.
    pub(super) fn retire(&self, active: &Active) {
        self.shared.borrow_mut().retain(|connection| !active.is_on(&connection.active));
    }

    /// Only connections that carry one of these tokens are used again.
    pub fn retain(&self, is_in_use: impl Fn(Carried) -> bool) {
        self.idle.borrow_mut().retain(|idle| is_in_use(idle.carried));
        self.shared.borrow_mut().retain(|shared| is_in_use(shared.carried));
    }

    /// A shared connection with a free stream; one opened after `after`, where that is given.
    pub(super) fn take_shared(&self, carried: Carried, after: Option<Instant>) -> Option<Sender<B>> {
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

    /// A connection, and whether somebody else has just opened it.
    pub(super) async fn open(
        self: &Rc<Self>,
        carried: Carried,
        after: Option<Instant>,
    ) -> Result<(Sender<B>, bool), DialError> {
        let together = self.upstream.settings.http2 && !self.only_http1.get();
        let limit = self.upstream.settings.timeouts.connect;
        let turn = if together {
            // Who waits for another's connection waits no longer than that one may take.
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
        self.only_http1.set(!dialled.http2);
        let sender = if dialled.http2 {
            self.start_http2(carried, dialled).await?
        } else {
            Sender::Http1(Http1::new(dialled.stream, self.until()))
        };
        drop(turn);
        Ok((sender, false))
    }

    /// Until when a connection that is opened now takes requests (rule 5).
    fn until(&self) -> Instant {
        let whole = self.upstream.settings.max_age;
        Instant::now() + whole.saturating_sub((whole / 5).mul_f32(fastrand::f32())).min(FAR)
    }

    /// Whose turn it is to open a connection that carries this token.
    fn turn(&self, carried: Carried) -> Arc<tokio::sync::Mutex<()>> {
        let mut opening = self.opening.borrow_mut();
        opening.retain(|(_, turn)| turn.strong_count() > 0);
        let known = opening.iter().find(|(of, _)| *of == carried).and_then(|(_, turn)| turn.upgrade());
        known.unwrap_or_else(|| {
            let turn = Arc::default();
            opening.push((carried, Arc::downgrade(&turn)));
            turn
        })
    }

    async fn start_http2(self: &Rc<Self>, carried: Carried, dialled: Dialled) -> Result<Sender<B>, DialError> {
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
        let (sender, mut connection) = started.map_err(|error| DialError::Connect {
            place: place(&self.upstream),
            source: std::io::Error::other(error),
        })?;
        let most = Rc::new(Cell::new(STREAMS));
        let says = most.clone();
        tokio::task::spawn_local(poll_fn(move |context| {
            // Its error reaches each request on it.
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

    pub(super) fn keep(self: &Rc<Self>, carried: Carried, connection: Http1) {
        // Seen to from now on: what the upstream closes while it is idle does not wait to be found out.
        let is_young = connection.until > Instant::now();
        if is_young && connection.is_free() && connection.is_quiet(&mut Context::from_waker(&self.reaper.borrow())) {
            self.idle.borrow_mut().push(Idle { carried, connection, since: Instant::now() });
            self.reap_later();
        }
    }

    /// One task closes what was idle too long, or was closed by the upstream; it ends when nothing is idle, so an unused
    /// gate is not woken.
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

    /// Closes what was idle too long, or is closed; whether nothing is left. Who asks is woken when one is closed.
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

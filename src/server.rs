//! Server: accepts callers' connections and serves HTTP/1.1 on them.
//!
//! 1. Each worker has its own accept on every listener.
//! 2. Evidence is taken once, at accept.
//! 3. At the limit of connections a new one is told so and closed; when the process is out of descriptors, accepting
//!    pauses instead of spinning.
//! 4. One timer a connection watches every wait for the caller: its header, its body, its reading, its next request.

use std::cell::RefCell;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;
use tower::Service;

use crate::caller::Evidence;
use crate::config::Limits;
use crate::gateway::connection::{Connection, Phase};
use crate::gateway::{refuse_unparsed, whole_answer};
use crate::metrics::process::ProcessMeters;
use crate::rejection::Reason;
use crate::symbol::ListenerName;
use crate::upstream::Watchdog;
use crate::worker::{Worker, new_request_id};

pub mod caller_io;
pub mod framing;
mod line;
pub mod listen;

use caller_io::{CallerIo, Socket};
use framing::Bounds;
use listen::Accepting;

/// What all workers count together: once for a connection, never for a request.
#[derive(Debug, Default)]
pub struct Connections {
    open: Arc<AtomicUsize>,
    turned_away: Arc<AtomicUsize>,
}

impl Connections {
    /// How many are open.
    #[must_use]
    pub fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }
}

/// One place among those that are counted.
struct Place(Arc<AtomicUsize>);

impl Place {
    /// A place, unless `limit` are taken.
    fn take(places: &Arc<AtomicUsize>, limit: usize) -> Option<Self> {
        let place = Self(places.clone());
        (places.fetch_add(1, Ordering::Relaxed) < limit).then_some(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// So many are told at once that they are too many; the others are closed without a word.
const TURNED_AWAY: usize = 128;

/// How long accepting pauses when the process has no descriptor left.
const PAUSE: Duration = Duration::from_millis(50);

/// That accepting fails is said so often while it lasts.
const SAID_AGAIN: Duration = Duration::from_secs(10);

/// Accepts connections on one listener until the worker drains.
pub async fn accept(
    worker: Rc<Worker>,
    name: ListenerName,
    listener: Accepting,
    connections: Arc<Connections>,
    meters: Arc<ProcessMeters>,
) {
    let mut draining = pin!(worker.until_draining());
    let mut said = None;
    loop {
        let accepted = tokio::select! {
            biased;
            () = &mut draining => return,
            accepted = listener.accept() => accepted,
        };
        let (socket, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                if caller_io::is_of_one_connection(&error) {
                    continue;
                }
                if said.is_none_or(|said: Instant| said.elapsed() > SAID_AGAIN) {
                    said = Some(Instant::now());
                    tracing::warn!(listener = name.as_str(), %error, "accepting fails; it is tried again and again");
                }
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let limits = worker.snapshot().generation.limits;
        match Place::take(&connections.open, limits.connections) {
            Some(place) => {
                let connection = Rc::new(Connection::new(Evidence { listener: name, peer }));
                let worker = worker.clone();
                tokio::task::spawn_local(async move {
                    serve(worker, connection, socket, limits).await;
                    drop(place);
                });
            }
            None => {
                meters.connection_refused();
                if let Some(place) = Place::take(&connections.turned_away, TURNED_AWAY) {
                    tokio::task::spawn_local(turn_away(socket, place));
                }
            }
        }
    }
}

/// Tells a connection beyond the limit that it is one.
async fn turn_away(mut socket: Socket, place: Place) {
    let answer = whole_answer(Reason::Overloaded, &new_request_id());
    let _ = tokio::time::timeout(Duration::from_secs(1), socket.say_and_close(&answer)).await;
    drop(place);
}

/// How often a request that waits for nobody in particular is looked at.
const LOOK: Duration = Duration::from_secs(10);

async fn serve(worker: Rc<Worker>, connection: Rc<Connection>, socket: Socket, limits: Limits) {
    let bounds = Bounds { header_bytes: limits.header_bytes, header_fields: HEADER_FIELDS };
    let io = CallerIo::new(socket, connection.clone(), bounds);
    let socket = io.socket();
    let stack = crate::gateway::stack(worker.clone(), connection.clone());
    // Called at once, not when its future is first polled: the request of a caller that has gone by then counts too.
    let service = service_fn(move |request| stack.clone().call(request));
    let mut http = pin!(protocol(limits).serve_connection(TokioIo::new(io), service));
    let mut draining = pin!(worker.until_draining());
    let mut patience = Patience::new(&worker);
    let mut begun = false;
    let mut ending = false;
    let ended = poll_fn(|context| {
        if !begun {
            begun = true;
            connection.interim.wake(context.waker());
            // Registered once: when the worker drains, this task is woken and looks at the flag.
            let _ = draining.as_mut().poll(context);
        }
        if worker.is_draining() && !ending {
            ending = true;
            http.as_mut().graceful_shutdown();
        }
        socket.borrow_mut().deliver_interim(&connection, context);
        if let Poll::Ready(ended) = http.as_mut().poll(context) {
            return Poll::Ready(match connection.refused() {
                Some(reason) => End::Refused(reason),
                None if ended.is_err_and(|error| error.is_user()) => End::Cut,
                None => End::Answered,
            });
        }
        let ended = patience.poll_end(&worker, &connection, &socket, context);
        ended.map(|()| if connection.phase() == Phase::Exchange { End::Cut } else { End::Late })
    })
    .await;
    match ended {
        End::Cut => socket.borrow().break_off(),
        End::Refused(reason) => {
            let answer = refuse_unparsed(&worker, &connection, reason);
            Box::pin(refuse(&socket, &answer)).await;
        }
        // Boxed: few connections end so, and all would have room for it.
        End::Answered if connection.request_is_open() => Box::pin(linger(&socket)).await,
        End::Answered | End::Late => {}
    }
}

/// How a connection ends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    /// Its last answer is whole.
    Answered,
    /// After its last answer came what is no request.
    Refused(Reason),
    /// In the middle of an answer, which must not look whole.
    Cut,
    /// The caller let the gate wait.
    Late,
}

/// Says why what came is no request, then reads on.
async fn refuse(socket: &RefCell<Socket>, answer: &[u8]) {
    let mut unwritten = answer;
    let written = poll_fn(|context| {
        while !unwritten.is_empty() {
            match ready!(Pin::new(&mut *socket.borrow_mut()).poll_write(context, unwritten)) {
                Ok(written) if written > 0 => unwritten = unwritten.get(written..).unwrap_or_default(),
                Ok(_) | Err(_) => return Poll::Ready(false),
            }
        }
        let shut = ready!(Pin::new(&mut *socket.borrow_mut()).poll_shutdown(context));
        Poll::Ready(shut.is_ok())
    });
    if tokio::time::timeout(LINGER, written).await == Ok(true) {
        linger(socket).await;
    }
}

/// A caller that still sends gets so long to see its answer.
const LINGER: Duration = Duration::from_secs(5);

/// Reads on after an answer that came before the end of its request: to close at once would be a reset, which can take
/// the answer from a caller that has not read it yet (RFC 9112, section 9.6).
async fn linger(socket: &RefCell<Socket>) {
    let mut thrown_away = vec![0; 16 * 1024];
    let until_closed = poll_fn(|context| {
        loop {
            let mut buffer = ReadBuf::new(&mut thrown_away);
            let read = ready!(Pin::new(&mut *socket.borrow_mut()).poll_read(context, &mut buffer));
            if read.is_err() || buffer.filled().is_empty() {
                return Poll::Ready(());
            }
        }
    });
    // A caller that goes on sending after that has had its time.
    let _ = tokio::time::timeout(LINGER, until_closed).await;
}

/// The patience with one caller, for everything that it can let the gate wait for.
struct Patience {
    watchdog: Watchdog,
    next_look: Instant,
}

impl Patience {
    /// With a caller that has just connected: its header is awaited.
    fn new(worker: &Worker) -> Self {
        let now = Instant::now();
        let watchdog = Watchdog::new(now + worker.snapshot().generation.timeouts.request_headers);
        Self { watchdog, next_look: now + LOOK }
    }

    /// Ready when it is at its end, or the caller went away unseen; then the connection ends, and what it carried.
    fn poll_end(
        &mut self,
        worker: &Worker,
        connection: &Connection,
        socket: &RefCell<Socket>,
        context: &mut Context<'_>,
    ) -> Poll<()> {
        loop {
            let deadline = connection.deadline(&worker.snapshot().generation.timeouts);
            match (self.watchdog.poll_passed(context, deadline.unwrap_or(self.next_look)), deadline) {
                (Poll::Pending, _) => return Poll::Pending,
                // While the upstream takes nothing, hyper reads nothing, and does not see that the caller went away.
                (Poll::Ready(()), None) if socket.borrow().is_closed_by_caller() => return Poll::Ready(()),
                (Poll::Ready(()), None) => self.next_look = Instant::now() + LOOK,
                (Poll::Ready(()), Some(_)) => {
                    tracing::debug!(phase = ?connection.phase(), "the caller took too long; its connection is closed");
                    return Poll::Ready(());
                }
            }
        }
    }
}

/// hyper's own bound, for which it needs no memory but the stack's.
const HEADER_FIELDS: usize = 100;

fn protocol(limits: Limits) -> http1::Builder {
    let mut builder = http1::Builder::new();
    // hyper's own timer would also end idle connections, which have a longer one; see `Patience`.
    builder.header_read_timeout(None);
    // More than `framing` lets through, so that hyper never answers by itself; bodies are read in pieces of it.
    builder.max_header_size(limits.header_bytes + 1).max_buf_size(limits.header_bytes.max(64 * 1024) + 1);
    builder
}

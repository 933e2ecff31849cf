//! Server: accepts callers' connections and serves HTTP/1.1 on them, and HTTP/2 where a listener says so.
//!
//! 1. Each worker has its own accept on every listener.
//! 2. Evidence is taken once, at accept.
//! 3. At a limit of connections, of all or of one peer, a new one is told so and closed; when the process is out of descriptors, accepting
//!    pauses instead of spinning.
//! 4. One timer a connection watches every wait for the caller: its header, its body, its reading, its next request.

use std::cell::RefCell;
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use strict_http::Malformed;
use strict_http::request_reader::Bounds;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tower::Service;

use crate::config::Limits;
use crate::files::descriptors::Need;
use crate::gateway::connection::{Connection, Phase};
use crate::gateway::{refuse_unparsed, whole_answer};
use crate::metrics::process::ProcessMeters;
use crate::names::ListenerName;
use crate::policy::caller::{Evidence, Peer};
use crate::policy::rejection::Reason;
use crate::upstream::Watchdog;
use crate::worker::{Ending, Worker, new_request_id};

mod blocks;
pub mod caller_io;
mod http2;

pub mod listen;
pub mod places;
mod streams;

use caller_io::{CallerIo, Socket};
use http2::Begun;
use listen::Accepting;
pub use places::Connections;
use places::One;

/// How long accepting pauses when the process has no descriptor left.
const PAUSE: Duration = Duration::from_millis(50);

/// That accepting fails is said so often while it lasts.
const SAID_AGAIN: Duration = Duration::from_secs(10);

/// Accepts connections on one listener until the worker drains or another socket has its place, and those that wait then.
pub async fn accept(
    worker: Rc<Worker>,
    listener: (ListenerName, bool),
    accepting: Accepting,
    connections: Arc<Connections>,
    meters: Arc<ProcessMeters>,
    replaced: oneshot::Receiver<()>,
) {
    let mut ends = pin!(async {
        tokio::select! {
            () = worker.until_draining() => {}
            _ = replaced => {}
        }
    });
    let mut said = None;
    let take = |accepted| take(&worker, listener, accepted, &connections, &meters);
    loop {
        let accepted = tokio::select! {
            biased;
            () = &mut ends => break,
            accepted = accepting.accept() => accepted,
        };
        match accepted {
            Ok(accepted) => take(accepted),
            Err(error) if caller_io::is_of_one_connection(&error) => {}
            Err(error) => {
                let _ = Need::Caller.found_none(&error);
                if said.is_none_or(|said: Instant| said.elapsed() > SAID_AGAIN) {
                    said = Some(Instant::now());
                    let name = listener.0.as_str();
                    tracing::warn!(listener = name, %error, "accepting fails; it is tried again and again");
                }
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
    // Who is connected and not accepted yet may have sent its request: closing the listener would reset it.
    while let Some(accepted) = tokio::task::unconstrained(accepting.accept_now()).await {
        match accepted {
            Ok(accepted) => take(accepted),
            Err(error) if caller_io::is_of_one_connection(&error) => {}
            Err(_) => break,
        }
    }
}

/// Serves a connection that was accepted, where the limits let it.
fn take(
    worker: &Rc<Worker>,
    (name, speaks_http2): (ListenerName, bool),
    (mut socket, peer): (Socket, Peer),
    connections: &Connections,
    meters: &ProcessMeters,
) {
    let limits = worker.snapshot().generation.limits;
    match connections.take(peer, &limits) {
        Ok(place) => {
            let connection = Rc::new(Connection::new(Evidence { listener: name, peer }));
            let worker = worker.clone();
            tokio::task::spawn_local(async move {
                let begun = if speaks_http2 { http2::begin(&worker, &mut socket).await } else { Begun::default() };
                if begun.is_preface() {
                    // Boxed: a connection of HTTP/1.1 has no room for it.
                    Box::pin(http2::serve(worker, connection.evidence, (socket, begun), limits)).await;
                } else {
                    serve(worker, connection, (socket, begun), limits).await;
                }
                drop(place);
            });
        }
        Err(limit) => {
            meters.connection_refused(limit);
            if let Some(place) = connections.take_turned_away(&limits) {
                tokio::task::spawn_local(turn_away(socket, place));
            }
        }
    }
}

/// Tells a connection beyond the limit that it is one.
async fn turn_away(socket: Socket, place: One) {
    let answer = whole_answer(Reason::Overloaded, &new_request_id());
    socket.say_and_close(&answer, Duration::from_secs(1), u64::MAX).await;
    drop(place);
}

/// When the gate accepts no more, a connection without a request still has so long since its last one: the caller may have
/// sent the next already. So those that are used least end first, and those in use with an answer that says so.
const LAST_CALL: Duration = Duration::from_secs(1);

/// How often a request that waits for nobody in particular is looked at.
const LOOK: Duration = Duration::from_secs(10);

async fn serve(worker: Rc<Worker>, connection: Rc<Connection>, socket: (Socket, Begun), limits: Limits) {
    let bounds = Bounds { header_bytes: limits.header_bytes, header_fields: limits.header_fields };
    let io = CallerIo::new(socket, connection.clone(), bounds);
    let socket = io.socket();
    // When this returns, hyper's side is gone, and with it the request that was under way.
    let ended = drive(&worker, &connection, io, &socket, limits).await;
    let Some(socket) = Rc::into_inner(socket).map(RefCell::into_inner) else { return };
    // Boxed where few connections end so, and all would have room for it.
    match ended {
        End::Cut if connection.answer_ends_with_it() => {
            // A reset takes away what has not arrived yet, and the caller has to see that an answer began.
            tokio::time::sleep(ARRIVAL).await;
            socket.break_off();
        }
        End::Cut => Box::pin(socket.say_and_close(&[], LINGER, u64::MAX)).await,
        End::Deaf => socket.break_off(),
        End::Refused(kind) => {
            let answer = refuse_unparsed(&worker, &connection, kind);
            Box::pin(socket.say_and_close(&answer, LINGER, u64::MAX)).await;
        }
        End::Answered if connection.request_is_open() => {
            Box::pin(socket.say_and_close(&[], LINGER, u64::MAX)).await;
        }
        End::Answered | End::Late => {}
    }
}

async fn drive(
    worker: &Rc<Worker>,
    connection: &Rc<Connection>,
    io: CallerIo,
    socket: &RefCell<Socket>,
    limits: Limits,
) -> End {
    let stack = crate::gateway::stack(worker.clone(), connection.clone());
    // Called at once, not when its future is first polled: the request of a caller that has gone by then counts too.
    // Boxed: hyper keeps the place of a request for as long as the connection, and most of those are idle.
    let service = service_fn(move |request| Box::pin(stack.clone().call(request)));
    let mut http = pin!(protocol(limits).serve_connection(TokioIo::new(io), service));
    let mut draining = pin!(worker.until_draining());
    let mut patience = Patience::new(worker);
    let mut begun = false;
    poll_fn(|context| {
        if !begun {
            begun = true;
            connection.interim.wake(context.waker());
            // Registered once: when the worker drains, this task is woken and looks at the flag.
            let _ = draining.as_mut().poll(context);
        }
        // Whoever has sent nothing yet may be about to, and has a moment for that (`Patience`). In the middle of a head,
        // hyper would close the connection without an answer.
        if worker.ending() >= Ending::Draining && connection.phase() == Phase::Exchange {
            http.as_mut().graceful_shutdown();
        }
        socket.borrow_mut().deliver_interim(connection, context);
        loop {
            if let Poll::Ready(ended) = http.as_mut().poll(context) {
                return Poll::Ready(match connection.refused() {
                    Some(kind) => End::Refused(kind),
                    // Its body failed; or the caller said in the middle of it that it sends no more.
                    None if connection.phase() == Phase::Exchange || ended.is_err_and(|error| error.is_user()) => {
                        End::Cut
                    }
                    None => End::Answered,
                });
            }
            match ready!(patience.poll_end(worker, connection, socket, context)) {
                // The request under way sees that its time is over, and answers.
                Patient::ForTheRequest if connection.expire(Reason::RequestTimeout) => {}
                Patient::ForTheCaller if connection.phase() == Phase::Exchange && connection.stall() => {}
                _ if connection.is_write_blocked() => return Poll::Ready(End::Deaf),
                _ if connection.phase() == Phase::Exchange => return Poll::Ready(End::Cut),
                Patient::ForTheRequest | Patient::ForTheCaller | Patient::WithNobody => return Poll::Ready(End::Late),
            }
        }
    })
    .await
}

/// How a connection ends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    /// Its last answer is whole.
    Answered,
    /// After its last answer came what is no request.
    Refused(Malformed),
    /// In the middle of an answer, which must not look whole. Answers before it stay.
    Cut,
    /// The caller takes nothing, so nothing can be said.
    Deaf,
    /// The caller let the gate wait.
    Late,
}

/// What was sent has so long to arrive before a reset.
const ARRIVAL: Duration = Duration::from_millis(100);

/// A caller that still sends gets so long to see its answer.
const LINGER: Duration = Duration::from_secs(5);

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

    /// Ready when it is at its end, or the caller went away unseen.
    fn poll_end(
        &mut self,
        worker: &Worker,
        connection: &Connection,
        socket: &RefCell<Socket>,
        context: &mut Context<'_>,
    ) -> Poll<Patient> {
        loop {
            let timeouts = &worker.snapshot().generation.timeouts;
            let (of_step, of_request) = (connection.deadline(timeouts), connection.request_deadline(timeouts));
            let last_call = if worker.ending() >= Ending::Draining { connection.unused_since() } else { None };
            let of_step = of_step.into_iter().chain(last_call.map(|since| since + LAST_CALL)).min();
            let next = of_step.unwrap_or(self.next_look);
            ready!(self.watchdog.poll_passed(context, of_request.map_or(next, |deadline| deadline.min(next))));
            let now = Instant::now();
            if of_step.is_some_and(|deadline| deadline <= now) {
                tracing::debug!(phase = ?connection.phase(), "the caller took too long; its connection is closed");
                return Poll::Ready(Patient::ForTheCaller);
            }
            if of_request.is_some_and(|deadline| deadline <= now) {
                return Poll::Ready(Patient::ForTheRequest);
            }
            // While the upstream takes nothing, hyper reads nothing, and does not see that the caller went away.
            if of_step.is_none() && socket.borrow().is_closed_by_caller() {
                return Poll::Ready(Patient::WithNobody);
            }
            self.next_look = now + LOOK;
        }
    }
}

/// Whose time is over.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Patient {
    /// The caller's: its connection ends, and what it carried.
    ForTheCaller,
    /// The request's as a whole (`timeouts.request`).
    ForTheRequest,
    /// Nobody's: the caller is gone.
    WithNobody,
}

/// So many fields hyper reads without an allocation.
const HEADER_FIELDS: usize = 100;

fn protocol(limits: Limits) -> http1::Builder {
    let mut builder = http1::Builder::new();
    // hyper's own timer would also end idle connections, which have a longer one; see `Patience`.
    builder.header_read_timeout(None);
    // More than `framing` lets through, so that hyper never answers by itself; bodies are read in pieces of it.
    builder.max_header_size(limits.header_bytes + 1).max_buf_size(limits.header_bytes.max(64 * 1024) + 1);
    if limits.header_fields > HEADER_FIELDS {
        builder.max_headers(limits.header_fields);
    }
    builder
}

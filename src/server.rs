//! Server: accepts connections of callers and serves HTTP/1.1 on them, and HTTP/2 where the listener has it enabled.
//!
//! 1. Each worker accepts on every listener by itself.
//! 2. The evidence of a connection is recorded once, at accept.
//! 3. A connection beyond the limit in total, or of its peer, is sent a refusal and closed. Accepting pauses while
//!    the process is out of descriptors.
//!    A connection to a listener with TLS, or to a forward proxy, counts like any other from its accept
//!    (`server/entrance.rs`).
//! 4. One timer per connection covers every wait for the caller: for a header, a body, the reading of a response, and
//!    the next request.
//! 5. A connection whose caller is idle is parked (`server/http1.rs`).

use std::cell::RefCell;
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::service::service_fn;
use strict_http::Malformed;
use strict_http::request_reader::Bounds;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tower::Service;

use crate::config::Limits;
use crate::files::descriptors::DescriptorNeed;
use crate::gateway::connection::{Connection, Phase};
use crate::gateway::pauses::Parking;
use crate::gateway::{refuse_unparsed, whole_answer};
use crate::metrics::process::ProcessMeters;
use crate::policy::caller::{Evidence, Peer};
use crate::policy::names::ListenerName;
use crate::policy::rejection::Reason;
use crate::upstream::Watchdog;
use crate::worker::{Ending, Worker, new_request_id};

mod begun;
mod blocks;
pub mod caller_io;
mod entrance;
mod handshake_error;
mod http1;
mod http2;

pub mod connection_limits;
pub mod listen;
pub mod passed;
pub mod socket;
mod streams;

use begun::Begun;
use caller_io::CallerIo;
pub use connection_limits::Connections;
use connection_limits::CountedPlace;
use http1::Http1;
use listen::{Accepting, Kind};
use socket::Socket;

/// The pause of accepting while no descriptor is available.
const PAUSE: Duration = Duration::from_millis(50);

/// The shortest time between two log lines about failing accepts.
const SAID_AGAIN: Duration = Duration::from_secs(10);

/// Accepts connections on one listener until the worker drains or another socket replaces this one. Connections that
/// are pending then are still accepted.
pub async fn accept(
    worker: Rc<Worker>,
    listener: Kind,
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
            Err(error) if socket::concerns_one_connection(&error) => {}
            Err(error) => {
                DescriptorNeed::Caller.found_none(&error);
                if said.is_none_or(|said: Instant| said.elapsed() > SAID_AGAIN) {
                    said = Some(Instant::now());
                    let name = listener.name.as_str();
                    tracing::warn!(listener = name, %error, "accept failed; retrying");
                }
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
    // A connection that would be served now and has not sent its request in time could wait for the next process instead.
    if listener.is_kept {
        return;
    }
    // A pending connection may have sent its request; closing the listener would reset it.
    while let Some(accepted) = tokio::task::unconstrained(accepting.accept_now()).await {
        match accepted {
            Ok(accepted) => take(accepted),
            Err(error) if socket::concerns_one_connection(&error) => {}
            Err(_) => break,
        }
    }
}

/// Serves an accepted connection, if the limits allow it.
fn take(
    worker: &Rc<Worker>,
    kind: Kind,
    (mut socket, peer): (Socket, Peer),
    connections: &Connections,
    meters: &ProcessMeters,
) {
    let limits = worker.snapshot().generation.limits;
    match connections.take(peer, &limits) {
        Ok(place) => {
            let evidence = Evidence::new(kind.name, peer);
            let place = (place, OpenConnection::new(worker.clone(), kind.name));
            let worker = worker.clone();
            if !kind.is_plain() {
                tokio::task::spawn_local(async move {
                    entrance::enter(worker, kind, evidence, socket, limits).await;
                    drop(place);
                });
                return;
            }
            let connection = Rc::new(Connection::new(evidence));
            tokio::task::spawn_local(async move {
                let begun = if kind.http2 { http2::begin(&worker, &mut socket).await } else { Begun::default() };
                if begun.is_preface() {
                    // Boxed, so that HTTP/1.1 connections need no room for it.
                    let transport = connection.transport.clone();
                    let evidence = connection.evidence.clone();
                    Box::pin(http2::serve(worker, (evidence, transport), (socket, begun), limits)).await;
                } else {
                    serve(worker, connection, (socket, begun), limits).await;
                }
                drop(place);
            });
        }
        Err(limit) => {
            meters.connection_refused(limit);
            if let Some(place) = connections.take_rejection_place(&limits) {
                tokio::task::spawn_local(turn_away(kind, socket, place));
            }
        }
    }
}

/// The count of an open connection, until it is dropped.
struct OpenConnection {
    worker: Rc<Worker>,
    listener: ListenerName,
}

impl OpenConnection {
    fn new(worker: Rc<Worker>, listener: ListenerName) -> Self {
        worker.count(|shard| shard.connection_opened(listener));
        Self { worker, listener }
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.worker.count(|shard| shard.connection_closed(self.listener));
    }
}

/// Sends a refusal on a connection beyond the limit, and closes it.
async fn turn_away(kind: Kind, socket: Socket, place: CountedPlace) {
    let answer = match kind {
        // No response can be read before a handshake, which would cost more than a refusal may.
        Kind { tls: true, proxy: false, .. } => ALERT.to_vec(),
        Kind { .. } => whole_answer(Reason::Overloaded, &new_request_id()),
    };
    socket.write_and_close(&answer, Duration::from_secs(1), u64::MAX).await;
    drop(place);
}

/// A fatal TLS alert, `internal_error` (RFC 8446, section 6).
const ALERT: [u8; 7] = [0x15, 3, 3, 0, 2, 2, 80];

/// The time after its last request in which a draining worker keeps an idle connection open: the next request may be
/// under way already. Connections that are rarely used therefore close first, and busy ones with a response that
/// announces it.
const LAST_CALL: Duration = Duration::from_secs(1);

/// The interval of the checks during an exchange that has no deadline of its own.
const LOOK: Duration = Duration::from_secs(10);

async fn serve(worker: Rc<Worker>, connection: Rc<Connection>, socket: (Socket, Begun), limits: Limits) {
    let bounds = Bounds { header_bytes: limits.header_bytes, header_fields: limits.header_fields };
    let io = CallerIo::new(socket, connection.clone(), bounds);
    let socket = io.socket();
    // This drops hyper's side and the request in progress.
    let ended = drive(&worker, &connection, io, &socket, limits).await;
    let Some(socket) = Rc::into_inner(socket).map(RefCell::into_inner) else { return };
    // Rare ends are boxed, so that not every connection needs room for them.
    match ended {
        End::Cut if connection.answer_ends_with_it() => {
            // A reset discards data in flight, and the caller has to see that a response began.
            tokio::time::sleep(ARRIVAL).await;
            socket.break_off();
        }
        End::Cut => Box::pin(socket.write_and_close(&[], LINGER, u64::MAX)).await,
        End::Deaf => socket.break_off(),
        End::Refused(kind) => {
            let answer = refuse_unparsed(&worker, &connection, kind);
            Box::pin(socket.write_and_close(&answer, LINGER, u64::MAX)).await;
        }
        End::Answered if connection.request_is_open() => {
            Box::pin(socket.write_and_close(&[], LINGER, u64::MAX)).await;
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
    // The stack is called at once, not at the first poll, so that a request is counted even if its caller has
    // disconnected. The future is boxed because hyper reserves room for it while the connection is idle, too.
    let service = service_fn(move |request| Box::pin(stack.clone().call(request)));
    let mut http = Http1::new(io, service, limits);
    let mut draining = pin!(worker.until_draining());
    let mut patience = ConnectionDeadlines::new(worker);
    let mut begun = false;
    poll_fn(|context| {
        if !begun {
            begun = true;
            connection.interim.wake(context.waker());
            // Polled once to register the waker: draining wakes this task, which then checks the flag.
            let _ = draining.as_mut().poll(context);
        }
        // An idle connection is not shut down at once, because its next request may be under way (`ConnectionDeadlines`). hyper
        // would close it in the middle of a header without a response.
        if worker.ending() >= Ending::Draining && connection.phase() == Phase::Exchange {
            http.graceful_shutdown();
        }
        socket.borrow_mut().deliver_interim(connection, context);
        loop {
            if let Poll::Ready(ended) = http.poll(context) {
                return Poll::Ready(match connection.refused() {
                    Some(kind) => End::Refused(kind),
                    // The body failed, or the caller half-closed in the middle of it.
                    None if connection.phase() == Phase::Exchange || ended.is_err_and(|error| error.is_user()) => {
                        End::Cut
                    }
                    None => End::Answered,
                });
            }
            let parking = if http.is_running() { connection.parking() } else { None };
            let parks_at = match parking {
                Some(Parking::Now) => {
                    http.park();
                    // Its reader registers the task.
                    continue;
                }
                Some(Parking::At(time)) => Some(time),
                None => None,
            };
            match ready!(patience.poll_end(worker, connection, (socket, parks_at), context)) {
                PassedDeadline::OfPause => http.park(),
                // The request in progress is notified of its timeout, and responds.
                PassedDeadline::ForTheRequest if connection.expire(Reason::RequestTimeout) => {}
                PassedDeadline::ForTheCaller if connection.phase() == Phase::Exchange && connection.stall() => {}
                _ if connection.is_write_blocked() => return Poll::Ready(End::Deaf),
                _ if connection.phase() == Phase::Exchange => return Poll::Ready(End::Cut),
                PassedDeadline::ForTheRequest | PassedDeadline::ForTheCaller | PassedDeadline::WithNobody => {
                    return Poll::Ready(End::Late);
                }
            }
        }
    })
    .await
}

/// The end of a connection.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    /// The last response is complete.
    Answered,
    /// Malformed bytes followed the last response.
    Refused(Malformed),
    /// The exchange was cut: an incomplete response must not look complete. Earlier responses stay valid.
    Cut,
    /// The caller reads nothing, so no response can be sent.
    Deaf,
    /// The caller exceeded a timeout.
    Late,
}

/// The time for sent data to arrive before a reset.
const ARRIVAL: Duration = Duration::from_millis(100);

/// The time for a caller that still sends to read its response.
const LINGER: Duration = Duration::from_secs(5);

/// The deadlines of one connection, for every wait for its caller.
struct ConnectionDeadlines {
    watchdog: Watchdog,
    next_look: Instant,
}

impl ConnectionDeadlines {
    /// Starts with the deadline of the first request's header.
    fn new(worker: &Worker) -> Self {
        let now = Instant::now();
        let watchdog = Watchdog::new(now + worker.snapshot().generation.timeouts.request_headers);
        Self { watchdog, next_look: now + LOOK }
    }

    /// Ready when a deadline has passed, or the caller has disconnected unnoticed.
    fn poll_end(
        &mut self,
        worker: &Worker,
        connection: &Connection,
        (socket, parks_at): (&RefCell<Socket>, Option<Instant>),
        context: &mut Context<'_>,
    ) -> Poll<PassedDeadline> {
        loop {
            let timeouts = &worker.snapshot().generation.timeouts;
            let (of_step, of_request) = (connection.deadline(timeouts), connection.request_deadline(timeouts));
            let last_call = if worker.ending() >= Ending::Draining { connection.unused_since() } else { None };
            let of_step = of_step.into_iter().chain(last_call.map(|since| since + LAST_CALL)).min();
            let next = of_step.unwrap_or(self.next_look);
            let next = of_request.into_iter().chain(parks_at).fold(next, Instant::min);
            ready!(self.watchdog.poll_passed(context, next));
            let now = Instant::now();
            if of_step.is_some_and(|deadline| deadline <= now) {
                tracing::debug!(phase = ?connection.phase(), "the caller exceeded a timeout; closing its connection");
                return Poll::Ready(PassedDeadline::ForTheCaller);
            }
            if of_request.is_some_and(|deadline| deadline <= now) {
                return Poll::Ready(PassedDeadline::ForTheRequest);
            }
            if parks_at.is_some_and(|time| time <= now) {
                return Poll::Ready(PassedDeadline::OfPause);
            }
            // While the upstream reads nothing, hyper does not read either, and misses a disconnect of the caller.
            if of_step.is_none() && socket.borrow().is_closed_by_caller() {
                return Poll::Ready(PassedDeadline::WithNobody);
            }
            self.next_look = now + LOOK;
        }
    }
}

/// The deadline that passed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum PassedDeadline {
    /// The caller's: the connection is closed, and its exchange with it.
    ForTheCaller,
    /// The total time of the request (`timeouts.request`).
    ForTheRequest,
    /// No deadline: the caller has disconnected.
    WithNobody,
    /// That of a pause: the caller is not expected to send soon.
    OfPause,
}

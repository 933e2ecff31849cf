//! HTTP/2 with callers on listeners that enable it: with prior knowledge in clear text (RFC 9113, section 3.3), negotiated in
//! TLS.
//!
//! 1. The first bytes decide: the preface selects HTTP/2; any other bytes are passed to HTTP/1.1. They have the
//!    timeout of a request's header.
//! 2. Each request is an exchange of its own, with the evidence of its connection. A request that exceeds a timeout
//!    is reset; the others on its connection continue.
//! 3. Limits: 100 concurrent requests; 512 KiB of request bodies not yet forwarded, while the worker has memory for
//!    it (otherwise the 64 KiB of RFC 9113, section 6.9.2); 64 KiB of each response not yet read; no push, no
//!    tunnels. A flood ends the connection (see [`strict_http::flood_guard`]), and so does a header block of more
//!    than twice `limits.header_bytes` (see [`super::blocks`]).
//! 4. The connection itself ends when it is idle for too long, when a header block or the preface is not completed in
//!    time, and when the caller does not read data that is ready for it.
//! 5. It ends with a GOAWAY, if one can still be sent. Input is then read for a moment, so that the caller receives
//!    it.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::Method;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use strict_http::flood_guard::{Account, Fault};
use strict_http::{cut, frame::PREFACE, number};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::time::{Instant, sleep, timeout};
use tower::Service;

use super::begun::Begun;
use super::blocks::Blocks;
use super::socket::Socket;
use super::streams::{Streams, look_every};
use crate::config::Limits;
use crate::gateway::connection::Connection;
use crate::gateway::transport::Transport;
use crate::metrics::Shard;
use crate::policy::caller::Evidence;
use crate::upstream::Watchdog;
use crate::worker::{Ending, Worker};

/// Reads as much of the connection as shows its HTTP version (rule 1). Every iteration consumes bytes, an end or an
/// error from the socket, so the loop cannot spin.
pub async fn begin(worker: &Worker, socket: &mut Socket) -> Begun {
    let patience = worker.snapshot().generation.timeouts.request_headers;
    let mut begun = Begun::default();
    let read = async {
        while let Some(room) = begun.room() {
            match socket.read(room).await {
                // An early end or error is left to HTTP/1.1.
                Ok(0) | Err(_) => return,
                Ok(read) => begun.was_read(read),
            }
        }
    };
    let last_call = async {
        worker.until_draining().await;
        sleep(super::LAST_CALL).await;
    };
    tokio::select! {
        // A connection without input is left to HTTP/1.1 in either case.
        () = last_call => {}
        _ = timeout(patience, read) => {}
    }
    begun
}

/// The end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// hyper wrote everything, or the caller has disconnected.
    Over,
    /// The caller broke a rule of [`strict_http::flood_guard`].
    Fault(Fault),
    /// The caller exceeded the timeout for a request.
    Late,
    /// The caller reads nothing, so nothing can be sent.
    Deaf,
}

/// The bytes of a connection, as hyper reads and writes them.
struct Wire {
    socket: Rc<RefCell<Socket>>,
    begun: Begun,
    blocks: Blocks,
    state: Rc<State>,
}

/// The observed state of the bytes.
struct State {
    account: RefCell<Account>,
    /// The time since which the socket accepts no writes.
    blocked_since: Cell<Option<Instant>>,
    /// The unfinished block or preface, and its beginning.
    unfinished: Cell<Option<(u64, Instant)>>,
}

/// Serves a connection that begins with the preface.
pub async fn serve(
    worker: Rc<Worker>,
    (evidence, transport): (Evidence, Rc<Transport>),
    (socket, begun): (Socket, Begun),
    limits: Limits,
) {
    let now = Instant::now();
    let state = Rc::new(State {
        account: RefCell::new(Account::new(now.into_std())),
        blocked_since: Cell::new(None),
        unfinished: Cell::new(Some((0, now))),
    });
    let socket = Rc::new(RefCell::new(socket));
    let blocks = Blocks::new(PREFACE.len(), header_list(limits));
    let wire = Wire { socket: socket.clone(), begun, blocks, state: state.clone() };
    // This drops hyper's side and all requests in progress.
    let end = drive(&worker, (&evidence, transport), wire, &state, limits).await;
    let Some(socket) = Rc::into_inner(socket).map(RefCell::into_inner) else { return };
    if state.account.borrow().is_flooded() {
        worker.count(Shard::flood);
        tracing::warn!(listener = evidence.listener.as_str(), peer = %evidence.peer, "connection closed because of a flood of frames or resets");
    } else if let End::Fault(fault) = end {
        let (listener, peer, kind) = (evidence.listener.as_str(), evidence.peer, fault.name());
        tracing::info!(listener, %peer, kind, "connection closed because of an HTTP/2 protocol error of the caller");
    }
    let farewell = match end {
        End::Over => Some(Vec::new()),
        End::Fault(fault) => state.account.borrow().farewell(fault.code()),
        End::Late => state.account.borrow().farewell(NO_ERROR),
        End::Deaf => None,
    };
    match farewell {
        Some(farewell) => socket.write_and_close(&farewell, READ_ON, READ_ON_BYTES).await,
        // A truncated response without a length must not look complete.
        None => socket.break_off(),
    }
}

/// `NO_ERROR` (RFC 9113, section 7).
const NO_ERROR: u32 = 0;

/// The bounds of reading after the GOAWAY (rule 5).
const READ_ON: Duration = Duration::from_secs(1);
const READ_ON_BYTES: u64 = 256 * 1024;

async fn drive(
    worker: &Rc<Worker>,
    (evidence, transport): (&Evidence, Rc<Transport>),
    wire: Wire,
    state: &State,
    limits: Limits,
) -> End {
    let streams = Streams::new(worker.clone(), transport);
    let service = {
        let (worker, streams) = (worker.clone(), streams.clone());
        service_fn(move |request| {
            let connection = Rc::new(Connection::on(streams.transport().clone(), evidence.clone()));
            streams.begin(connection.clone());
            let is_head = request.method() == Method::HEAD;
            let (streams, taken_by) = (streams.clone(), connection.clone());
            // Called at once, as for HTTP/1.1, so that a request is counted even if its caller has disconnected.
            let answer = crate::gateway::stack(worker.clone(), connection).call(request);
            async move { answer.await.map(|answer| streams.answer(is_head, answer, taken_by)) }
        })
    };
    let window = worker.windows.share(MORE_WINDOW);
    let mut protocol = protocol(limits, streams.clone());
    if window.is_some() {
        protocol.initial_connection_window_size(CONNECTION_WINDOW);
    }
    let mut http = pin!(protocol.serve_connection(TokioIo::new(wire), service));
    let mut leaving = pin!(worker.until_leaving());
    let mut patience = ConnectionDeadlines::new(worker);
    let mut begun = false;
    poll_fn(|context| {
        if !begun {
            begun = true;
            streams.wake(context.waker());
            // Polled once to register the waker: the announced end wakes this task, which then checks the flag.
            let _ = leaving.as_mut().poll(context);
        }
        let ends = worker.ending() >= Ending::Leaving || streams.transport().is_ending();
        if ends && patience.leaving_since.is_none() {
            patience.leaving_since = Some(Instant::now());
            http.as_mut().graceful_shutdown();
        }
        state.account.borrow_mut().begin_turn();
        if http.as_mut().poll(context).is_ready() {
            return Poll::Ready(state.account.borrow().fault().map_or(End::Over, End::Fault));
        }
        // hyper has written everything that the caller's windows allow, unless the socket accepts no more.
        if state.blocked_since.get().is_none() {
            streams.transport().flushed();
        }
        patience.poll_end(worker, &streams, state, context)
    })
    .await
}

/// The deadlines of a connection itself. [`Streams`] has those of its requests.
struct ConnectionDeadlines {
    watchdog: Watchdog,
    next_look: Instant,
    leaving_since: Option<Instant>,
}

/// The time in which a request that the caller sent before it received the GOAWAY may arrive (RFC 9113, section 6.8).
const ROUND_TRIP: Duration = Duration::from_secs(1);

impl ConnectionDeadlines {
    fn new(worker: &Worker) -> Self {
        let next_look = Instant::now() + look_every(&worker.snapshot().generation.timeouts);
        Self { watchdog: Watchdog::new(next_look), next_look, leaving_since: None }
    }

    /// Ready when a deadline has passed (rule 4).
    fn poll_end(&mut self, worker: &Worker, streams: &Streams, state: &State, context: &mut Context<'_>) -> Poll<End> {
        let timeouts = worker.snapshot().generation.timeouts;
        loop {
            let account = state.account.borrow();
            let idle_since = streams.idle_since().filter(|_| account.answers() == 0);
            let idle = idle_since.map(|since| match self.leaving_since {
                Some(leaving) => since.max(leaving) + ROUND_TRIP,
                None => since + timeouts.keep_alive,
            });
            let unfinished = state.unfinished.get().map(|(_, since)| since + timeouts.request_headers);
            let late = idle.into_iter().chain(unfinished).min().map(|deadline| (deadline, End::Late));
            let deaf = state.blocked_since.get().map(|since| (since + timeouts.body_idle, End::Deaf));
            let first = late.into_iter().chain(deaf).min_by_key(|(deadline, _)| *deadline);
            let deadline = first.map_or(self.next_look, |(deadline, _)| deadline.min(self.next_look));
            ready!(self.watchdog.poll_passed(context, deadline));
            let now = Instant::now();
            if let Some((deadline, end)) = first
                && now >= deadline
            {
                tracing::debug!(?end, "the caller exceeded a timeout; closing its connection");
                if end == End::Deaf {
                    streams.transport().stall();
                }
                return Poll::Ready(end);
            }
            // Unread data that hyper holds for more responses than are in progress belongs to finished requests.
            let cut_off = now.checked_sub(timeouts.body_idle);
            if cut_off.is_some_and(|cut_off| account.answers_quiet_since(cut_off.into_std()) > streams.answering()) {
                tracing::debug!("the caller does not read its responses; closing its connection");
                streams.transport().stall();
                return Poll::Ready(End::Deaf);
            }
            self.next_look = now + look_every(&timeouts);
        }
    }
}

/// The maximum number of concurrent requests on a connection: the minimum that RFC 9113, section 6.5.2, recommends,
/// and that clients expect.
const STREAMS: u32 = 100;
/// The maximum size of request bodies not yet forwarded, of a connection and (`STREAM_WINDOW`) of a request.
const CONNECTION_WINDOW: u32 = 512 * 1024;
/// The initial window of every connection (RFC 9113, section 6.9.2).
const LEAST_WINDOW: u32 = 65_535;
/// The extension of that window.
const MORE_WINDOW: usize = 448 * 1024;
const STREAM_WINDOW: u32 = 128 * 1024;
/// The maximum size of unread response data of a request.
const SEND_BUFFER: usize = 64 * 1024;

fn protocol(limits: Limits, streams: Streams) -> http2::Builder<Streams> {
    let mut builder = http2::Builder::new(streams);
    // The second limit concerns requests that are reset before they are accepted; later ones count against the budget
    // of their connection.
    builder.max_concurrent_streams(STREAMS).max_pending_accept_reset_streams(100);
    builder.initial_connection_window_size(LEAST_WINDOW).initial_stream_window_size(STREAM_WINDOW);
    builder.max_send_buf_size(SEND_BUFFER);
    // A decoded header of four times this size ends the connection.
    let header_list = number::saturated::<u32>(header_list(limits));
    builder.max_header_list_size(header_list).max_frame_size(header_list.clamp(LEAST_FRAME, MOST_FRAME));
    builder
}

/// The maximum size of a decoded header and of a header block. It exceeds the limit of `decide::http2`, so that the
/// gate refuses a large header instead of hyper, which does so without a body.
const fn header_list(limits: Limits) -> usize {
    limits.header_bytes.saturating_mul(2)
}

/// The bounds of a frame's size (RFC 9113, section 4.2).
const LEAST_FRAME: u32 = 1 << 14;
const MOST_FRAME: u32 = (1 << 24) - 1;

impl AsyncRead for Wire {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Self { socket, begun, blocks, state } = self.get_mut();
        let mut account = state.account.borrow_mut();
        let before = buffer.filled().len();
        // Loops until hyper has something to read: a block of several frames is held until it is complete.
        loop {
            if account.turn_is_over() {
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
            if blocks.give(buffer) {
                return Poll::Ready(Ok(()));
            }
            if !begun.give(buffer) {
                ready!(Pin::new(&mut *socket.borrow_mut()).poll_read(context, buffer))?;
            }
            let (_, arrived) = cut::at_most(buffer.filled(), before);
            if arrived.is_empty() {
                return Poll::Ready(Ok(()));
            }
            let now = Instant::now();
            let taken = account.received(arrived, now.into_std()).and_then(|()| blocks.take(arrived));
            buffer.set_filled(before);
            let passed = taken.map_err(|fault| account.fail(fault)).map_err(|()| io::ErrorKind::InvalidData)?;
            buffer.set_filled(before + passed);
            let known = state.unfinished.get();
            let unfinished = account.unfinished().map(|what| match known {
                Some((known, since)) if known == what => (what, since),
                Some(_) | None => (what, now),
            });
            state.unfinished.set(unfinished);
            if passed > 0 {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl Wire {
    /// Records a write: the number of bytes of `pieces` that were written.
    fn note(&self, written: &Poll<io::Result<usize>>, pieces: &[io::IoSlice<'_>]) {
        match (written, self.state.blocked_since.get()) {
            (Poll::Pending, None) => self.state.blocked_since.set(Some(Instant::now())),
            (Poll::Pending, Some(_)) | (Poll::Ready(Err(_)), _) => {}
            (Poll::Ready(Ok(written)), _) => {
                self.state.blocked_since.set(None);
                let (mut left, now) = (*written, Instant::now());
                let mut account = self.state.account.borrow_mut();
                for piece in pieces {
                    let (gone, _) = cut::at_most(piece, left);
                    account.sent(gone, now.into_std());
                    left -= gone.len();
                }
            }
        }
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut *self.socket.borrow_mut()).poll_write(context, bytes);
        self.note(&written, &[io::IoSlice::new(bytes)]);
        written
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut *self.socket.borrow_mut()).poll_write_vectored(context, pieces);
        self.note(&written, pieces);
        written
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut *self.socket.borrow_mut()).poll_flush(context);
        // TLS holds bytes that the socket does not accept.
        match (&flushed, self.state.blocked_since.get()) {
            (Poll::Pending, None) => self.state.blocked_since.set(Some(Instant::now())),
            (Poll::Ready(Ok(())), Some(_)) if self.socket.borrow().is_tls() => self.state.blocked_since.set(None),
            (Poll::Pending | Poll::Ready(_), _) => {}
        }
        flushed
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.socket.borrow_mut()).poll_shutdown(context)
    }
}

//! A caller's connection, shared by the gateway and the server: the evidence of its peer, and its current wait.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use hyper::body::Incoming;
use strict_http::Malformed;
use strict_http::target::Broken;
use tokio::time::Instant;

use super::interim::Interim;
use super::pauses::{Parking, Pauses};
pub use super::phase::Phase;
use super::phase::{Fault, Reply, Request, State};
use super::raw_queries::RawQueries;
use super::stalled::{Bound, Stalled};
use super::transport::Transport;
use crate::body::caller_body::Unread;
use crate::config::CallerTimeouts;
use crate::metrics::Stall;
use crate::policy::caller::Evidence;
use crate::policy::rejection::Reason;

/// The time without a piece of the body after which the caller is blamed for an upstream that gives up.
const SLOW: Duration = Duration::from_secs(1);

/// A connection's evidence and state.
#[derive(Debug)]
pub struct Connection {
    /// The evidence about the peer.
    pub evidence: Evidence,
    /// The state that all requests of the connection share.
    pub transport: Rc<Transport>,
    state: Cell<State>,
    request: Cell<Request>,
    write_blocked_since: Cell<Option<Instant>>,
    fault: Cell<Option<Fault>>,
    raw_queries: RawQueries,
    pauses: Pauses,
    /// Interim responses of the upstream, on their way to the caller.
    pub interim: Interim,
    /// The unread rest of a request's body, and the waker of the task that drains it.
    unread: RefCell<(Option<Incoming>, Option<Waker>)>,
}

impl Connection {
    /// Creates the state of a newly accepted connection.
    #[must_use]
    pub fn new(evidence: Evidence) -> Self {
        Self::on(Rc::default(), evidence)
    }

    /// Creates the state of one HTTP/2 request on `transport`.
    #[must_use]
    pub fn on(transport: Rc<Transport>, evidence: Evidence) -> Self {
        Self {
            evidence,
            transport,
            state: Cell::new(State::New(Instant::now())),
            request: Cell::new(Request::NONE),
            write_blocked_since: Cell::new(None),
            fault: Cell::new(None),
            raw_queries: RawQueries::default(),
            pauses: Pauses::default(),
            interim: Interim::default(),
            unread: RefCell::default(),
        }
    }

    /// Returns the current phase.
    #[must_use]
    pub fn phase(&self) -> Phase {
        self.state.get().phase()
    }

    fn change_request(&self, change: impl FnOnce(&mut Request)) {
        let mut request = self.request.get();
        change(&mut request);
        self.request.set(request);
    }

    /// Records the start of a request.
    pub fn begin(&self, now: Instant) {
        let since = match self.state.get() {
            State::New(since) | State::Header(since) => since,
            // A pipelined request has no header phase.
            State::Idle(since) => {
                self.pauses.end(since, now);
                now
            }
            State::Exchange { .. } => now,
        };
        self.state.set(State::Exchange { since, body_awaited_since: None });
        self.request.set(Request { is_open: true, flush_owed: true, ..Request::NONE });
    }

    /// Records the end of the request.
    pub fn end(&self, now: Instant) {
        self.state.set(State::Idle(now));
    }

    /// Records the end of the request body.
    pub fn request_completed(&self) {
        self.change_request(|request| request.is_open = false);
    }

    /// Whether the body of the latest request has not ended.
    #[must_use]
    pub fn request_is_open(&self) -> bool {
        self.request.get().is_open
    }

    /// Takes the abandoned rest of a body, if there is one.
    pub fn take_unread(&self) -> Option<Incoming> {
        self.unread.borrow_mut().0.take()
    }

    /// Waits for the abandoned rest of a body.
    pub fn poll_unread(&self, context: &Context<'_>) -> Poll<Incoming> {
        let mut unread = self.unread.borrow_mut();
        match unread.0.take() {
            Some(body) => Poll::Ready(body),
            None => {
                unread.1 = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }

    /// Records arriving bytes: of a new header, or of a body whose request has already been answered.
    pub fn received(&self) {
        self.pauses.interrupt();
        match self.state.get() {
            // The time of the first header counts from the accept.
            State::New(since) => self.state.set(State::Header(since)),
            State::Idle(_) if self.request_is_open() => self.state.set(State::Idle(Instant::now())),
            State::Idle(since) => {
                let now = Instant::now();
                self.pauses.end(since, now);
                self.state.set(State::Header(now));
            }
            State::Header(_) | State::Exchange { .. } => {}
        }
    }

    /// Records that no byte is there to be read; `read`: the number of requests so far, between two of them.
    pub fn wait_for_bytes(&self, read: Option<u64>) {
        self.pauses.wait(read);
    }

    /// Returns when hyper can be given back: `None` before the first request, during one, or while anything is to be written.
    #[must_use]
    pub fn parking(&self) -> Option<Parking> {
        let State::Idle(since) = self.state.get() else { return None };
        let Request { is_open, flush_owed, .. } = self.request.get();
        let is_done = !is_open && !flush_owed && !self.is_write_blocked() && self.interim.is_delivered();
        self.pauses.parking(since, self.raw_queries.requests()).filter(|_| is_done)
    }

    /// Returns the start of the time without a byte of a request, if no request is in progress.
    #[must_use]
    pub fn unused_since(&self) -> Option<Instant> {
        match self.state.get() {
            State::New(since) | State::Idle(since) => Some(since),
            State::Header(_) | State::Exchange { .. } => None,
        }
    }

    /// Whether an exchange is in progress, or its response is not completely written.
    #[must_use]
    pub fn is_answering(&self) -> bool {
        self.request.get().flush_owed
    }

    /// Records a malformed request head; hyper sees the end of the stream in its place.
    pub fn refuse(&self, kind: Malformed) {
        self.fault.set(Some(Fault::Head(kind)));
    }

    /// Returns the fault of a malformed request head.
    #[must_use]
    pub fn refused(&self) -> Option<Malformed> {
        match self.fault.get() {
            Some(Fault::Head(kind)) => Some(kind),
            Some(Fault::Body(_)) | None => None,
        }
    }

    /// Records a malformed body of the request in progress; hyper sees the end of the stream in its place.
    pub fn break_body(&self, kind: Malformed) {
        self.fault.set(Some(Fault::Body(kind)));
    }

    /// Returns the fault of a malformed body.
    #[must_use]
    pub fn body_fault(&self) -> Option<Malformed> {
        match self.fault.get() {
            Some(Fault::Body(kind)) => Some(kind),
            Some(Fault::Head(_)) | None => None,
        }
    }

    /// Records that the request with this number, counted from 0, arrived with raw characters in its query; hyper
    /// receives the encoded form.
    pub fn note_encoded(&self, request: u64, broken: Broken) {
        self.raw_queries.note(request, broken);
    }

    /// Advances to the next request; returns the rule that the raw characters in its query broke.
    pub fn next_request(&self) -> Option<Broken> {
        self.raw_queries.next_request()
    }

    /// Records that all written bytes have reached the socket.
    pub fn flushed(&self) {
        self.transport.flushed();
        if self.phase() != Phase::Exchange {
            self.change_request(|request| request.flush_owed = false);
        }
    }

    /// Records whether the gate waits for a piece of the request's body.
    pub fn await_body(&self, awaited: bool) {
        if let State::Exchange { since, body_awaited_since } = self.state.get()
            && body_awaited_since.is_some() != awaited
        {
            let body_awaited_since = awaited.then(Instant::now);
            self.state.set(State::Exchange { since, body_awaited_since });
        }
    }

    /// Whether the gate waits for a piece of the request's body.
    #[must_use]
    pub fn body_is_awaited(&self) -> bool {
        self.state.get().body_awaited_since().is_some()
    }

    /// Whether that wait has lasted so long that the upstream may have given up because of it.
    #[must_use]
    pub fn delays_others(&self) -> bool {
        self.state.get().body_awaited_since().is_some_and(|since| since.elapsed() >= SLOW)
    }

    /// Records whether the caller blocks the response by not reading it.
    pub fn block_write(&self, blocked: bool) {
        if self.write_blocked_since.get().is_some() != blocked {
            self.write_blocked_since.set(blocked.then(Instant::now));
        }
    }

    /// Whether the caller does not read the bytes that are ready for it.
    #[must_use]
    pub fn is_write_blocked(&self) -> bool {
        self.write_blocked_since.get().is_some()
    }

    /// Records that the head of a response is sent. Without a length or chunks, the end of the connection ends the
    /// response.
    pub fn answer_begins(&self, ends_with_connection: bool) {
        self.change_request(|request| {
            let is_expired = request.reply.is_expired();
            request.reply = Reply::Begun { ends_with_connection, is_expired };
        });
    }

    /// Whether the end of the connection marks the end of the latest response.
    #[must_use]
    pub fn answer_ends_with_it(&self) -> bool {
        matches!(self.request.get().reply, Reply::Begun { ends_with_connection: true, .. })
    }

    /// Records that the request exceeded its deadline and is refused for `reason`. Returns whether a response can still
    /// be sent: not after another has begun, nor a second time.
    pub fn expire(&self, reason: Reason) -> bool {
        let can_be_told = self.phase() == Phase::Exchange && matches!(self.request.get().reply, Reply::Awaited);
        if can_be_told {
            self.change_request(|request| request.reply = Reply::Expired(reason));
            self.await_body(false);
        }
        can_be_told
    }

    /// Returns the reason of the refusal if the deadline has passed and no response has begun.
    #[must_use]
    pub fn expired(&self) -> Option<Reason> {
        match self.request.get().reply {
            Reply::Expired(reason) => Some(reason),
            Reply::Awaited | Reply::Begun { .. } => None,
        }
    }

    /// Records that the caller exceeded `timeouts.body_idle`. Returns whether a response can still be sent.
    pub fn stall(&self) -> bool {
        let waited_for = if self.is_write_blocked() { Stall::Answer } else { Stall::Request };
        self.note_stall(Stalled { waited_for, bound: Bound::BodyIdle });
        waited_for == Stall::Request && self.expire(Reason::BodyTooSlow)
    }

    /// Records that the caller kept the gate waiting for too long during the request in progress.
    pub fn note_stall(&self, stall: Stalled) {
        self.change_request(|request| request.stalled = Some(stall));
    }

    /// Returns the stall of the request in progress, if there was one.
    #[must_use]
    pub fn stalled(&self) -> Option<Stalled> {
        let Request { stalled, reply, .. } = self.request.get();
        let takes_none = self.transport.has_stalled() && matches!(reply, Reply::Begun { .. });
        let stall = Stalled { waited_for: Stall::Answer, bound: Bound::BodyIdle };
        stalled.or_else(|| takes_none.then_some(stall))
    }

    /// Returns the deadline of the request in progress, from its first byte to the last of its response. A request past
    /// it gets the time of one more step for the error response.
    #[must_use]
    pub fn request_deadline(&self, timeouts: &CallerTimeouts) -> Option<Instant> {
        match self.state.get() {
            State::Idle(_) => None,
            State::New(since) | State::Header(since) => Some(since + timeouts.request),
            State::Exchange { since, .. } => {
                let is_expired = self.request.get().reply.is_expired();
                let to_say_so = if is_expired { timeouts.body_idle } else { Duration::ZERO };
                Some(since + timeouts.request + to_say_so)
            }
        }
    }

    /// Returns the deadline of the caller's next step; `None` if the next step is not the caller's.
    #[must_use]
    pub fn deadline(&self, timeouts: &CallerTimeouts) -> Option<Instant> {
        let of_phase = match self.state.get() {
            State::Idle(since) => Some(since + timeouts.keep_alive),
            State::New(since) | State::Header(since) => Some(since + timeouts.request_headers),
            State::Exchange { body_awaited_since, .. } => body_awaited_since.map(|since| since + timeouts.body_idle),
        };
        let of_writing = self.write_blocked_since.get().map(|since| since + timeouts.body_idle);
        of_phase.into_iter().chain(of_writing).min()
    }
}

impl Unread for Connection {
    fn leave_unread(&self, rest: Incoming) {
        let mut unread = self.unread.borrow_mut();
        unread.0 = Some(rest);
        if let Some(waker) = unread.1.take() {
            waker.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::policy::caller::Peer;
    use crate::policy::names::ListenerName;

    fn connection() -> Connection {
        let peer = Peer::Address(Ipv4Addr::LOCALHOST.into());
        Connection::new(Evidence::new(ListenerName::new("app"), peer))
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_is_refused_once_and_only_before_its_response() {
        let connection = connection();
        assert!(!connection.expire(Reason::RequestTimeout), "no request is under way");
        connection.begin(Instant::now());
        assert!(connection.expire(Reason::RequestTimeout) && !connection.expire(Reason::BodyTooSlow));
        assert_eq!(connection.expired(), Some(Reason::RequestTimeout));
        connection.answer_begins(false);
        assert!(!connection.expire(Reason::BodyTooSlow));
        connection.end(Instant::now());
        connection.begin(Instant::now());
        connection.answer_begins(true);
        assert!(!connection.expire(Reason::RequestTimeout) && connection.answer_ends_with_it());
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_is_awaited_only_while_its_request_is_under_way() {
        let connection = connection();
        connection.await_body(true);
        assert!(!connection.body_is_awaited());
        connection.begin(Instant::now());
        connection.await_body(true);
        tokio::time::advance(SLOW).await;
        assert!(connection.delays_others());
        connection.end(Instant::now());
        assert!(!connection.body_is_awaited() && connection.request_is_open());
    }
}

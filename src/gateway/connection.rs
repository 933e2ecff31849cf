//! A caller's connection, as the gateway and the server share it: what it proves, and what it is waiting for.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use hyper::body::Incoming;
use strict_http::Malformed;
use strict_http::target::Broken;
use tokio::time::Instant;

use super::interim::Interim;
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

/// A caller that sends nothing of its body for so long is the cause when the upstream gives up meanwhile.
const SLOW: Duration = Duration::from_secs(1);

/// A connection's evidence and state.
#[derive(Debug)]
pub struct Connection {
    /// What it proves about its peer.
    pub evidence: Evidence,
    /// What its requests share.
    pub transport: Rc<Transport>,
    state: Cell<State>,
    request: Cell<Request>,
    write_blocked_since: Cell<Option<Instant>>,
    fault: Cell<Option<Fault>>,
    raw_queries: RawQueries,
    /// Interim responses of the upstream, on their way to the caller.
    pub interim: Interim,
    /// What nobody read of a request's body.
    unread: RefCell<(Option<Incoming>, Option<Waker>)>,
}

impl Connection {
    /// A connection that was just accepted.
    #[must_use]
    pub fn new(evidence: Evidence) -> Self {
        Self::on(Rc::default(), evidence)
    }

    /// The state of one request of HTTP/2 on `transport`.
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
            interim: Interim::default(),
            unread: RefCell::default(),
        }
    }

    /// What it is doing.
    #[must_use]
    pub fn phase(&self) -> Phase {
        self.state.get().phase()
    }

    fn change_request(&self, change: impl FnOnce(&mut Request)) {
        let mut request = self.request.get();
        change(&mut request);
        self.request.set(request);
    }

    /// A request is under way from now on.
    pub fn begin(&self, now: Instant) {
        let since = match self.state.get() {
            State::New(since) | State::Header(since) => since,
            // One that came together with the one before has no header phase.
            State::Idle(_) | State::Exchange { .. } => now,
        };
        self.state.set(State::Exchange { since, body_awaited_since: None });
        self.request.set(Request { is_open: true, flush_owed: true, ..Request::NONE });
    }

    /// The request is no longer under way.
    pub fn end(&self, now: Instant) {
        self.state.set(State::Idle(now));
    }

    /// The body of the request under way has come to its end.
    pub fn request_completed(&self) {
        self.change_request(|request| request.is_open = false);
    }

    /// Whether the last request's body has not come to its end.
    #[must_use]
    pub fn request_is_open(&self) -> bool {
        self.request.get().is_open
    }

    /// The body that nobody reads any more, if there is one.
    pub fn take_unread(&self) -> Option<Incoming> {
        self.unread.borrow_mut().0.take()
    }

    /// The body that nobody reads any more, as soon as there is one.
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

    /// Bytes arrived: of a new header, or of a body whose request was answered before its end.
    pub fn received(&self) {
        match self.state.get() {
            // The first header has its time from the accept on.
            State::New(since) => self.state.set(State::Header(since)),
            State::Idle(_) if self.request_is_open() => self.state.set(State::Idle(Instant::now())),
            State::Idle(_) => self.state.set(State::Header(Instant::now())),
            State::Header(_) | State::Exchange { .. } => {}
        }
    }

    /// Since when no byte of a request has come, where none is under way.
    #[must_use]
    pub fn unused_since(&self) -> Option<Instant> {
        match self.state.get() {
            State::New(since) | State::Idle(since) => Some(since),
            State::Header(_) | State::Exchange { .. } => None,
        }
    }

    /// Whether an exchange is under way, or its response not all written yet.
    #[must_use]
    pub fn is_answering(&self) -> bool {
        self.request.get().flush_owed
    }

    /// What came next is no request, and hyper was told that nothing comes.
    pub fn refuse(&self, kind: Malformed) {
        self.fault.set(Some(Fault::Head(kind)));
    }

    /// Why what came last is no request.
    #[must_use]
    pub fn refused(&self) -> Option<Malformed> {
        match self.fault.get() {
            Some(Fault::Head(kind)) => Some(kind),
            Some(Fault::Body(_)) | None => None,
        }
    }

    /// The body of the request under way breaks a rule, and hyper was told that nothing more comes.
    pub fn break_body(&self, kind: Malformed) {
        self.fault.set(Some(Fault::Body(kind)));
    }

    /// Which rule the body of the request under way breaks.
    #[must_use]
    pub fn body_fault(&self) -> Option<Malformed> {
        match self.fault.get() {
            Some(Fault::Body(kind)) => Some(kind),
            Some(Fault::Head(_)) | None => None,
        }
    }

    /// The request with this number, counted from 0, came with something raw in its query, which reaches hyper encoded.
    pub fn note_encoded(&self, request: u64, broken: Broken) {
        self.raw_queries.note(request, broken);
    }

    /// The next request begins; what the raw characters in its query broke.
    pub fn next_request(&self) -> Option<Broken> {
        self.raw_queries.next_request()
    }

    /// Everything that was written has gone.
    pub fn flushed(&self) {
        self.transport.flushed();
        if self.phase() != Phase::Exchange {
            self.change_request(|request| request.flush_owed = false);
        }
    }

    /// A piece of the request's body is awaited from now on, or no more.
    pub fn await_body(&self, awaited: bool) {
        if let State::Exchange { since, body_awaited_since } = self.state.get()
            && body_awaited_since.is_some() != awaited
        {
            let body_awaited_since = awaited.then(Instant::now);
            self.state.set(State::Exchange { since, body_awaited_since });
        }
    }

    /// Whether the caller is what a request waits for.
    #[must_use]
    pub fn body_is_awaited(&self) -> bool {
        self.state.get().body_awaited_since().is_some()
    }

    /// Whether it has been for so long that others may have lost their patience with it.
    #[must_use]
    pub fn lets_others_wait(&self) -> bool {
        self.state.get().body_awaited_since().is_some_and(|since| since.elapsed() >= SLOW)
    }

    /// The caller takes no more of the response for now, or does again.
    pub fn block_write(&self, blocked: bool) {
        if self.write_blocked_since.get().is_some() != blocked {
            self.write_blocked_since.set(blocked.then(Instant::now));
        }
    }

    /// Whether the caller takes nothing of what is ready for it.
    #[must_use]
    pub fn is_write_blocked(&self) -> bool {
        self.write_blocked_since.get().is_some()
    }

    /// The head of a response goes to the caller. Without a length or chunks, its end is that of the connection.
    pub fn answer_begins(&self, ends_with_connection: bool) {
        self.change_request(|request| {
            let is_expired = request.reply.is_expired();
            request.reply = Reply::Begun { ends_with_connection, is_expired };
        });
    }

    /// Whether the end of the connection would look like the end of the last response.
    #[must_use]
    pub fn answer_ends_with_it(&self) -> bool {
        matches!(self.request.get().reply, Reply::Begun { ends_with_connection: true, .. })
    }

    /// The request under way has had its time, and is refused for `reason`. Whether it can still be told so: not when its
    /// response has begun, nor when it was told before.
    pub fn expire(&self, reason: Reason) -> bool {
        let can_be_told = self.phase() == Phase::Exchange && matches!(self.request.get().reply, Reply::Awaited);
        if can_be_told {
            self.change_request(|request| request.reply = Reply::Expired(reason));
            self.await_body(false);
        }
        can_be_told
    }

    /// Why it is refused, when it has had its time and was not told so yet.
    #[must_use]
    pub fn expired(&self) -> Option<Reason> {
        match self.request.get().reply {
            Reply::Expired(reason) => Some(reason),
            Reply::Awaited | Reply::Begun { .. } => None,
        }
    }

    /// The caller lets the gate wait for longer than `timeouts.body_idle`. Whether it can still be told so.
    pub fn stall(&self) -> bool {
        let waited_for = if self.is_write_blocked() { Stall::Answer } else { Stall::Request };
        self.note_stall(Stalled { waited_for, bound: Bound::BodyIdle });
        waited_for == Stall::Request && self.expire(Reason::BodyTooSlow)
    }

    /// The caller of the request under way let the gate wait for too long.
    pub fn note_stall(&self, stall: Stalled) {
        self.change_request(|request| request.stalled = Some(stall));
    }

    /// What the caller of the request under way let the gate wait for, if it did for too long.
    #[must_use]
    pub fn stalled(&self) -> Option<Stalled> {
        let Request { stalled, reply, .. } = self.request.get();
        let takes_none = self.transport.has_stalled() && matches!(reply, Reply::Begun { .. });
        let stall = Stalled { waited_for: Stall::Answer, bound: Bound::BodyIdle };
        stalled.or_else(|| takes_none.then_some(stall))
    }

    /// When the request under way, from its first byte to the last of its response, has taken too long. To say so to the
    /// caller, there is the time for one more step.
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

    /// When the caller has waited too long; `None` when the next step is not the caller's.
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
    use crate::names::ListenerName;
    use crate::policy::caller::Peer;

    fn connection() -> Connection {
        let peer = Peer::Address(Ipv4Addr::LOCALHOST.into());
        Connection::new(Evidence { listener: ListenerName::new("app"), peer })
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
        assert!(connection.lets_others_wait());
        connection.end(Instant::now());
        assert!(!connection.body_is_awaited() && connection.request_is_open());
    }
}

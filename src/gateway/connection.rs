//! A caller's connection, as the gateway and the server share it: what it proves, and what it is waiting for.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use http::HeaderValue;
use hyper::body::Incoming;
use tokio::time::Instant;

use super::interim::Interim;
use super::transport::Transport;
use crate::caller::Evidence;
use crate::config::CallerTimeouts;
use crate::line::Malformed;
use crate::metrics::Stall;
use crate::rejection::Reason;
use crate::symbol::CallerId;
use crate::target::Broken;
use crate::worker::Worker;

/// A caller that sends nothing of its body for so long is the cause when the upstream gives up meanwhile.
const SLOW: Duration = Duration::from_secs(1);

/// That a caller let the gate wait for too long.
#[derive(Debug, Clone, Copy)]
pub struct Stalled {
    /// For what.
    pub waited_for: Stall,
    /// What had an end.
    pub bound: Bound,
}

impl Stalled {
    /// Counts and logs that a caller let the gate wait for too long.
    pub fn say(self, request_id: &HeaderValue, caller: Option<CallerId>, worker: &Worker) {
        let Self { waited_for, bound } = self;
        worker.count(|shard| shard.caller_stalled(caller, waited_for));
        let (key, limit, what) = match bound {
            Bound::BodyIdle => {
                let limit = worker.snapshot().generation.timeouts.body_idle;
                (Some("timeouts.body_idle"), Some(limit), "raise the key for one that is slow on purpose")
            }
            Bound::ReadAhead(limit) => {
                (None, Some(limit), "a body that is checked against rules has to come in this time")
            }
            Bound::Upstream => (None, None, "the upstream waited no longer for its body"),
        };
        tracing::warn!(
            request_id = request_id.to_str().unwrap_or_default(),
            caller = caller.map_or("unknown", |caller| caller.as_str()),
            waited_for = waited_for.as_str(),
            key,
            limit = limit.map(|limit| tracing::field::display(humantime::format_duration(limit))),
            "the caller stalled, so its request was given up; {what}"
        );
    }
}

/// What bounds the wait for a caller.
#[derive(Debug, Clone, Copy)]
pub enum Bound {
    /// `timeouts.body_idle`.
    BodyIdle,
    /// The time that a body has which is read before it goes on.
    ReadAhead(Duration),
    /// The upstream, which waited no longer.
    Upstream,
}

/// What a connection is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// It was accepted, and no byte has come.
    New,
    /// Nothing, behind a request: no byte of another one yet.
    Idle,
    /// The header of a request has begun.
    Header,
    /// A request is under way.
    Exchange,
}

/// A connection's evidence and state.
#[derive(Debug)]
pub struct Connection {
    /// What it proves about its peer.
    pub evidence: Evidence,
    /// What its requests share.
    pub transport: Rc<Transport>,
    phase: Cell<Phase>,
    since: Cell<Instant>,
    request_since: Cell<Instant>,
    answer_has_begun: Cell<bool>,
    answer_ends_with_it: Cell<bool>,
    expired: Cell<Option<Reason>>,
    stalled: Cell<Option<Stalled>>,
    body_awaited_since: Cell<Option<Instant>>,
    write_blocked_since: Cell<Option<Instant>>,
    flush_owed: Cell<bool>,
    request_is_open: Cell<bool>,
    refused: Cell<Option<Malformed>>,
    body_fault: Cell<Option<Malformed>>,
    /// How many requests of HTTP/1.1 it had.
    requests: Cell<u64>,
    /// Which requests, counted from 0, came with something raw in their query, and what that broke.
    encoded: RefCell<VecDeque<(u64, Broken)>>,
    /// Interim responses of the upstream, on their way to the caller.
    pub interim: Interim,
    /// What of them the socket has not taken yet.
    pub interim_rest: RefCell<Vec<u8>>,
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
        let now = Instant::now();
        Self {
            evidence,
            transport,
            phase: Cell::new(Phase::New),
            since: Cell::new(now),
            request_since: Cell::new(now),
            answer_has_begun: Cell::new(false),
            answer_ends_with_it: Cell::new(false),
            expired: Cell::new(None),
            stalled: Cell::new(None),
            body_awaited_since: Cell::new(None),
            write_blocked_since: Cell::new(None),
            flush_owed: Cell::new(false),
            request_is_open: Cell::new(false),
            refused: Cell::new(None),
            body_fault: Cell::new(None),
            requests: Cell::new(0),
            encoded: RefCell::default(),
            interim: Interim::default(),
            interim_rest: RefCell::default(),
            unread: RefCell::default(),
        }
    }

    /// What it is doing.
    #[must_use]
    pub fn phase(&self) -> Phase {
        self.phase.get()
    }

    /// It begins to do something else.
    pub fn enter(&self, phase: Phase, now: Instant) {
        // A request that came together with the one before has no header phase.
        if !matches!(self.phase.replace(phase), Phase::New | Phase::Header) {
            self.request_since.set(now);
        }
        self.since.set(now);
        self.body_awaited_since.set(None);
        if phase == Phase::Exchange {
            self.flush_owed.set(true);
            self.request_is_open.set(true);
            self.answer_has_begun.set(false);
            self.answer_ends_with_it.set(false);
            self.expired.set(None);
            self.stalled.set(None);
        }
    }

    /// The body of the request under way has come to its end.
    pub fn request_completed(&self) {
        self.request_is_open.set(false);
    }

    /// Whether the last request's body has not come to its end.
    #[must_use]
    pub fn request_is_open(&self) -> bool {
        self.request_is_open.get()
    }

    /// Nobody reads this body any more.
    pub fn leave_unread(&self, body: Incoming) {
        let mut unread = self.unread.borrow_mut();
        unread.0 = Some(body);
        if let Some(waker) = unread.1.take() {
            waker.wake();
        }
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
        match self.phase.get() {
            // The first header has its time from the accept on.
            Phase::New => self.phase.set(Phase::Header),
            Phase::Idle if self.request_is_open.get() => self.enter(Phase::Idle, Instant::now()),
            Phase::Idle => self.enter(Phase::Header, Instant::now()),
            Phase::Header | Phase::Exchange => {}
        }
    }

    /// Since when no byte of a request has come, where none is under way.
    #[must_use]
    pub fn unused_since(&self) -> Option<Instant> {
        match self.phase.get() {
            Phase::New | Phase::Idle => Some(self.since.get()),
            Phase::Header | Phase::Exchange => None,
        }
    }

    /// Whether an exchange is under way, or its answer not all written yet.
    #[must_use]
    pub fn is_answering(&self) -> bool {
        self.flush_owed.get()
    }

    /// What came next is no request, and hyper was told that nothing comes.
    pub fn refuse(&self, kind: Malformed) {
        self.refused.set(Some(kind));
    }

    /// Why what came last is no request.
    #[must_use]
    pub fn refused(&self) -> Option<Malformed> {
        self.refused.get()
    }

    /// The body of the request under way breaks a rule, and hyper was told that nothing more comes.
    pub fn break_body(&self, kind: Malformed) {
        self.body_fault.set(Some(kind));
    }

    /// Which rule the body of the request under way breaks.
    #[must_use]
    pub fn body_fault(&self) -> Option<Malformed> {
        self.body_fault.get()
    }

    /// The request with this number, counted from 0, came with something raw in its query, which reaches hyper encoded.
    pub fn note_encoded(&self, request: u64, broken: Broken) {
        self.encoded.borrow_mut().push_back((request, broken));
    }

    /// The next request begins; what the raw characters in its query broke. hyper hands over the requests in their order.
    pub fn next_request(&self) -> Option<Broken> {
        let request = self.requests.get();
        self.requests.set(request + 1);
        let mut encoded = self.encoded.borrow_mut();
        let (_, broken) = encoded.front().copied().filter(|(number, _)| *number == request)?;
        encoded.pop_front();
        Some(broken)
    }

    /// Everything that was written has gone.
    pub fn flushed(&self) {
        self.transport.flushed();
        if self.phase.get() != Phase::Exchange {
            self.flush_owed.set(false);
        }
    }

    /// A piece of the request's body is awaited from now on, or no more.
    pub fn await_body(&self, awaited: bool) {
        match (awaited, self.body_awaited_since.get()) {
            (true, None) => self.body_awaited_since.set(Some(Instant::now())),
            (false, Some(_)) => self.body_awaited_since.set(None),
            (true, Some(_)) | (false, None) => {}
        }
    }

    /// Whether the caller is what a request waits for.
    #[must_use]
    pub fn body_is_awaited(&self) -> bool {
        self.body_awaited_since.get().is_some()
    }

    /// Whether it has been for so long that others may have lost their patience with it.
    #[must_use]
    pub fn lets_others_wait(&self) -> bool {
        self.body_awaited_since.get().is_some_and(|since| since.elapsed() >= SLOW)
    }

    /// The caller takes no more of the answer for now, or does again.
    pub fn block_write(&self, blocked: bool) {
        match (blocked, self.write_blocked_since.get()) {
            (true, None) => self.write_blocked_since.set(Some(Instant::now())),
            (false, Some(_)) => self.write_blocked_since.set(None),
            (true, Some(_)) | (false, None) => {}
        }
    }

    /// The head of an answer goes to the caller. Without a length or chunks, its end is that of the connection.
    pub fn answer_begins(&self, ends_with_connection: bool) {
        self.answer_has_begun.set(true);
        self.answer_ends_with_it.set(ends_with_connection);
    }

    /// Whether the end of the connection would look like the end of the last answer.
    #[must_use]
    pub fn answer_ends_with_it(&self) -> bool {
        self.answer_ends_with_it.get()
    }

    /// Whether the caller takes nothing of what is ready for it.
    #[must_use]
    pub fn is_write_blocked(&self) -> bool {
        self.write_blocked_since.get().is_some()
    }

    /// The request under way has had its time, and is refused for `reason`. Whether it can still be told so: not when its
    /// answer has begun, nor when it was told before.
    pub fn expire(&self, reason: Reason) -> bool {
        let can_be_told =
            self.phase.get() == Phase::Exchange && !self.answer_has_begun.get() && self.expired.get().is_none();
        if can_be_told {
            self.expired.set(Some(reason));
            self.await_body(false);
        }
        can_be_told
    }

    /// Why it is refused, when it has had its time.
    #[must_use]
    pub fn expired(&self) -> Option<Reason> {
        self.expired.get()
    }

    /// The caller lets the gate wait for longer than `timeouts.body_idle`. Whether it can still be told so.
    pub fn stall(&self) -> bool {
        let waited_for = if self.is_write_blocked() { Stall::Answer } else { Stall::Request };
        self.note_stall(Stalled { waited_for, bound: Bound::BodyIdle });
        waited_for == Stall::Request && self.expire(Reason::BodyTooSlow)
    }

    /// The caller of the request under way let the gate wait for too long.
    pub fn note_stall(&self, stall: Stalled) {
        self.stalled.set(Some(stall));
    }

    /// What the caller of the request under way let the gate wait for, if it did for too long.
    #[must_use]
    pub fn stalled(&self) -> Option<Stalled> {
        let takes_none = self.transport.has_stalled() && self.answer_has_begun.get();
        let stall = Stalled { waited_for: Stall::Answer, bound: Bound::BodyIdle };
        self.stalled.get().or_else(|| takes_none.then_some(stall))
    }

    /// When the request under way, from its first byte to the last of its answer, has taken too long. To say so to the
    /// caller, there is the time for one more step.
    #[must_use]
    pub fn request_deadline(&self, timeouts: &CallerTimeouts) -> Option<Instant> {
        let to_say_so = if self.expired.get().is_some() { timeouts.body_idle } else { Duration::ZERO };
        let under_way = self.phase.get() != Phase::Idle;
        under_way.then(|| self.request_since.get() + timeouts.request + to_say_so)
    }

    /// When the caller has waited too long; `None` when the next step is not the caller's.
    #[must_use]
    pub fn deadline(&self, timeouts: &CallerTimeouts) -> Option<Instant> {
        let of_phase = match self.phase.get() {
            Phase::Idle => Some(self.since.get() + timeouts.keep_alive),
            Phase::New | Phase::Header => Some(self.since.get() + timeouts.request_headers),
            Phase::Exchange => self.body_awaited_since.get().map(|since| since + timeouts.body_idle),
        };
        let of_writing = self.write_blocked_since.get().map(|since| since + timeouts.body_idle);
        of_phase.into_iter().chain(of_writing).min()
    }
}

//! An exchange: one request and its response, from the first line to the last byte, and the record that is logged and
//! counted.
//!
//! Stages report their findings to it. Forward reads from it whether the operation acts, to know whether it may be sent
//! again, and the progress of the request body, for deadlines; Record reads whether it has ended. An exchange is logged
//! and counted once, when it finishes or is dropped, so a disconnected caller is recorded too.

use std::cell::{Cell, OnceCell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use metrica::cause::Diagnosis;
use metrica::error_type::ErrorType;
use metrica::operation::Verb;
use metrica::scope::{Lacking, ScopeSet};
use strict_http::number;
use tokio::time::Instant;

use super::connection::Connection;
use super::exchange_state::{CallerState, ExchangeProgress, Pieces, Read, Request, Token, UpstreamProgress};
use crate::metrics::{CALLER_GONE, Credential, Finished, Refusal, UpstreamError};
use crate::policy::caller::Proofs;
use crate::policy::decide::{Decided, Decision, Shadowed};
use crate::policy::names::{CallerId, TokenAlias};
use crate::policy::rejection::{Reason, Rejection};
use crate::policy::service_account::VerifiedAccount;
use crate::telemetry::TraceId;
use crate::telemetry::access::{Context, Outcome};
use crate::worker::{Diagnosed, Ending, Refused, RequestId, TokenUse, Worker};

/// One request and its response.
pub struct Exchange {
    pub(super) worker: Rc<Worker>,
    /// The connection that the request arrived on.
    pub connection: Rc<Connection>,
    /// The verified proofs of the request.
    pub(super) proofs: OnceCell<Proofs>,
    /// The service account among them, with the validity of its token.
    pub(super) verified_account: OnceCell<VerifiedAccount>,
    /// The id of the request in logs, here and elsewhere.
    pub request_id: RequestId,
    /// The trace that the request belongs to.
    trace: Option<TraceId>,
    /// The method, if operations use it.
    pub verb: Option<Verb>,
    pub(super) started: Instant,
    caller_state: Cell<CallerState>,
    pub(super) request: RefCell<Request>,
    pub(super) upward: Cell<UpstreamProgress>,
    /// The refusal, by the gate or by the upstream.
    pub(super) refusal: Cell<Option<Refusal>>,
    would_refuse: Cell<Option<Reason>>,
    lacking: Cell<Option<Lacking>>,
    /// The request's choice of an account, and the token with which Metrica denied it first.
    pub(super) account: Cell<(bool, Option<TokenAlias>)>,
    /// The time that the request waited for its turn, if a quota counts it.
    pub(super) quota_wait: Cell<Option<Duration>>,
    pieces: Cell<Option<Pieces>>,
    pub(super) request_is_complete: Cell<bool>,
    response_bytes: Cell<u64>,
    course: Cell<ExchangeProgress>,
    /// The index among the exchanges in progress, until this one ends.
    pub place: Cell<Option<usize>>,
}

impl Exchange {
    /// Creates the record of a request that has just arrived.
    #[must_use]
    pub fn new(
        worker: Rc<Worker>,
        connection: Rc<Connection>,
        verb: Option<Verb>,
        (request_id, trace): (RequestId, Option<TraceId>),
    ) -> Self {
        let started = Instant::now();
        connection.begin(started);
        Self {
            worker,
            connection,
            proofs: OnceCell::new(),
            verified_account: OnceCell::new(),
            request_id,
            trace,
            verb,
            started,
            caller_state: Cell::new(CallerState::Undecided),
            request: RefCell::new(Request::Unread),
            upward: Cell::new(UpstreamProgress::Unsent),
            refusal: Cell::new(None),
            would_refuse: Cell::new(None),
            lacking: Cell::new(None),
            account: Cell::default(),
            quota_wait: Cell::new(None),
            pieces: Cell::new(None),
            request_is_complete: Cell::new(false),
            response_bytes: Cell::new(0),
            course: Cell::new(ExchangeProgress::UnderWay),
            place: Cell::new(None),
        }
    }

    /// Returns the worker that serves it.
    #[must_use]
    pub fn worker(&self) -> &Worker {
        &self.worker
    }

    /// Records the result of identification and counts the exchange as in progress. `None` is an unknown caller.
    pub fn begin(&self, caller: Option<CallerId>) {
        self.caller_state.set(CallerState::identified(caller));
        self.worker.count(|shard| shard.begin(caller));
    }

    /// Records that the caller has another id in a newer configuration.
    pub fn change_caller(&self, caller: CallerId) {
        let before = self.caller_state.replace(CallerState::Known(caller)).caller();
        if before != Some(caller) {
            self.worker.count(|shard| shard.move_on(before, caller));
        }
    }

    /// Records a decision, the first or a repeated one.
    ///
    /// # Errors
    /// The reason of the refusal.
    pub fn decided(&self, Decided { read, token, decision }: Decided<'_>) -> Result<Decision, Rejection> {
        if let Some((operation, subject)) = read {
            self.request.borrow_mut().read(operation, subject, token);
        }
        let decision = decision.inspect_err(|rejection| self.doubt_split(rejection))?;
        if let Some(shadowed) = decision.shadowed() {
            self.would_refuse(shadowed);
        }
        Ok(decision)
    }

    /// Whether the operation changes something and must not be processed twice. An unknown operation counts as one that
    /// does.
    #[must_use]
    pub fn acts(&self) -> bool {
        self.request.borrow().as_read().is_none_or(|read| read.acts)
    }

    /// Records that the path matches no operation.
    pub fn set_unknown_path(&self, path: &str) {
        *self.request.borrow_mut() = Request::UnknownPath(path.into());
    }

    /// Records the token that is sent: the chosen one, or its standby.
    ///
    /// # Errors
    /// An internal error if no operation was read.
    pub fn set_token_use(&self, token_use: TokenUse) -> Result<(), Rejection> {
        let mut request = self.request.borrow_mut();
        let Request::Read(read) = &mut *request else {
            return Err(Rejection::internal("a token is sent for the request that was read"));
        };
        read.token = Token::Sent(token_use);
        Ok(())
    }

    /// Counts a credential of the caller that was removed.
    pub fn credential_dropped(&self, kind: Credential) {
        self.worker.count(|shard| shard.credential_dropped(self.caller(), kind));
    }

    /// Counts an upstream error.
    pub fn upstream_error(&self, kind: UpstreamError) {
        if kind == UpstreamError::Reflected {
            let request_id = self.request_id.as_str();
            tracing::warn!(
                request_id,
                "the upstream's response contained the token that was sent; the gate removed it or ended the response"
            );
        }
        self.worker.count(|shard| shard.upstream_error(kind));
    }

    /// Records that the upstream's response broke off.
    pub fn cut(&self) {
        if self.course.get() == ExchangeProgress::UnderWay {
            self.course.set(ExchangeProgress::Cut);
        }
    }

    /// Records an attempt to send the request, the first or a repeat.
    pub fn sending(&self) {
        self.upward.set(self.upward.get().send(Instant::now()));
    }

    /// Records that the head of the upstream's response has arrived; returns the time.
    pub fn answered(&self, status: u16) -> Instant {
        let now = Instant::now();
        self.upward.set(self.upward.get().answer(now, status));
        now
    }

    /// Records a refusal by the gate; `lacking`: the missing scopes, if that is the reason.
    pub fn rejected(&self, reason: Reason, lacking: Option<Lacking>) {
        self.lacking.set(lacking);
        self.refusal.set(Some(Refusal::Gate(reason)));
    }

    pub(super) fn caller(&self) -> Option<CallerId> {
        self.caller_state.get().caller()
    }

    /// Returns the status of the response: the gate's own, or the upstream's.
    fn status(&self) -> Option<u16> {
        match self.refusal.get() {
            Some(Refusal::Gate(reason)) => Some(reason.answer().status.as_u16()),
            Some(Refusal::Upstream(_)) | None => self.upward.get().status(),
        }
    }

    /// Records that enforced rules would refuse this request. The first reason is kept.
    pub fn would_refuse(&self, Shadowed { reason, breach }: Shadowed) {
        if self.would_refuse.get().is_some() {
            return;
        }
        self.would_refuse.set(Some(reason));
        if let Some(cause) = breach {
            let request_id = self.request_id.as_str();
            tracing::warn!(reason = reason.as_str(), request_id, %cause, "request would be refused if enforced");
        }
    }

    /// Returns the needed and the declared scopes if the request was refused for missing rights.
    fn rights_in_question(&self, read: Option<&Read>) -> Option<(ScopeSet, ScopeSet)> {
        match self.refusal.get()? {
            Refusal::Gate(_) => self.lacking.get().map(|Lacking { needed, held, .. }| (needed, held)),
            Refusal::Upstream(cause) if cause.is_of_rights() => {
                read.and_then(|read| Some((read.needs, read.token_use()?.scopes)))
            }
            Refusal::Upstream(_) => None,
        }
    }

    /// Returns the token that is or would be sent.
    #[must_use]
    pub fn token(&self) -> Option<TokenAlias> {
        self.request.borrow().as_read()?.token()
    }

    /// Records that the operation succeeded; its response arrived at `now`.
    pub fn succeeded(&self, now: Instant) {
        if let Some(read) = self.request.borrow().as_read()
            && let Some(token_use) = read.token_use()
        {
            self.worker.learning.succeeded(token_use, read.needs, read.reach, &read.subject, now);
            if read.operation.changes_access() {
                self.worker.learning.access_changed(token_use);
            }
        }
    }

    /// Records a refusal by the upstream whose body has the type `error_type`; returns the diagnosis.
    pub fn refused_by_upstream(&self, status: u16, error_type: ErrorType) -> Option<Diagnosed> {
        let request = self.request.borrow();
        let read = request.as_read()?;
        let (token_use, verb, subject) = (read.token_use()?, self.verb, &read.subject);
        let (operation, needs, reach) = (read.operation, read.needs, read.reach);
        let refused = Refused { token_use, status, error_type, verb, operation, needs, reach, subject };
        let diagnosed = self.worker.learning.refused(&self.worker.snapshot().generation.tokens, &refused);
        self.diagnosed(diagnosed.0);
        Some(diagnosed)
    }

    /// Records the diagnosis of an upstream refusal, or a better one.
    pub fn diagnosed(&self, diagnosis: Diagnosis) {
        self.refusal.set(Some(Refusal::Upstream(diagnosis.cause)));
    }

    /// Records a piece of the request body.
    pub fn add_request_bytes(&self, bytes: usize) {
        let before = self.pieces.get().map_or(0, |pieces| pieces.bytes);
        let bytes = before + number::count(bytes);
        self.pieces.set(Some(Pieces { bytes, last: Instant::now() }));
    }

    /// Records a piece of the response body that was sent.
    pub fn add_response_bytes(&self, bytes: usize) {
        self.response_bytes.set(self.response_bytes.get() + number::count(bytes));
    }

    /// Records the end of the request body.
    pub fn request_completed(&self) {
        self.request_is_complete.set(true);
        self.connection.request_completed();
        if let Some(pieces) = self.pieces.get() {
            self.pieces.set(Some(Pieces { last: Instant::now(), ..pieces }));
        }
    }

    /// Whether the request body has ended.
    #[must_use]
    pub fn request_is_complete(&self) -> bool {
        self.request_is_complete.get()
    }

    /// Returns the time of the latest progress of the request: a piece of its body, otherwise its head.
    #[must_use]
    pub fn last_progress(&self) -> Instant {
        let last = self.pieces.get().map(|pieces| pieces.last);
        last.or_else(|| Some(self.upward.get().sending()?.at)).unwrap_or(self.started)
    }

    /// Whether the exchange has ended.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.course.get() == ExchangeProgress::Over
    }

    /// Ends the exchange; later calls have no effect. `complete`: the response was sent whole.
    pub fn finish(&self, complete: bool) {
        let course = self.course.replace(ExchangeProgress::Over);
        if course == ExchangeProgress::Over {
            return;
        }
        self.place.take().into_iter().for_each(|place| self.worker.under_way.leave(place));
        let now = Instant::now();
        // Nothing else reads this flag if the upstream did not respond; it must not carry over to the next exchange.
        if self.connection.interim.take_reflected() {
            self.upstream_error(UpstreamError::Reflected);
        }
        let stalled = self.connection.stalled();
        if let Some(stall) = stalled {
            stall.report(&self.request_id, self.caller(), &self.worker);
        }
        self.connection.end(now);
        if self.caller_state.get() == CallerState::Undecided {
            self.worker.count(|shard| shard.begin(None));
        }
        self.report(now, stalled.is_some(), course, complete);
    }

    /// Counts and logs the exchange.
    fn report(&self, now: Instant, stalled: bool, course: ExchangeProgress, complete: bool) {
        let snapshot = self.worker.snapshot();
        let (request, upward) = (self.request.borrow(), self.upward.get());
        let read = request.as_read();
        let subject = read.map(|read| &read.subject);
        let finished = Finished {
            caller: self.caller(),
            operation: read.map(|read| read.operation),
            marks: read.map_or([None; 2], |read| read.marks),
            token: read.and_then(Read::token),
            needed: read.and_then(Read::needed),
            verb: self.verb,
            code: self.status().unwrap_or(CALLER_GONE),
            refusal: self.refusal.get(),
            ended: now.into_std(),
            would_refuse: self.would_refuse.get(),
            quota_wait: self.quota_wait.get(),
            duration: now - self.started,
            upstream_duration: upward.duration(),
            request_bytes: self.pieces.get().map_or(0, |pieces| pieces.bytes),
            response_bytes: self.response_bytes.get(),
            group: snapshot.generation.groups.of(subject),
        };
        self.worker.count(|shard| shard.finish(&finished));
        if snapshot.generation.access_log {
            let outcome = match (course, complete) {
                (ExchangeProgress::Cut, _) => Outcome::UpstreamCut,
                (ExchangeProgress::UnderWay | ExchangeProgress::Over, _) if stalled => Outcome::CallerStalled,
                (ExchangeProgress::UnderWay | ExchangeProgress::Over, true) => Outcome::Complete,
                (ExchangeProgress::UnderWay | ExchangeProgress::Over, false)
                    if self.worker.ending() == Ending::Cutting =>
                {
                    Outcome::GateEnded
                }
                (ExchangeProgress::UnderWay | ExchangeProgress::Over, false) => Outcome::CallerGone,
            };
            let context = Context {
                request_id: self.request_id.as_str().as_bytes(),
                trace: self.trace,
                upstream_status: upward.status(),
                outcome,
                resent: upward.sending().map_or(0, |sending| sending.again),
                account: self.account.get(),
                path: request.unknown_path(),
                subject,
                rights: self.rights_in_question(read),
                evidence: self.caller().is_none().then_some(&self.connection.evidence),
            };
            self.worker.log(&finished, &context);
        }
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.finish(false);
    }
}

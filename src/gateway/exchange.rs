//! An exchange: one request and its answer, from its first line to its last byte, and what will be said about it.
//!
//! Stages write to it, nothing reads it to decide. It is said and counted once, when it finishes or is dropped: a
//! caller that went away is seen too.

use std::cell::{Cell, OnceCell, RefCell};
use std::rc::Rc;

use http::HeaderValue;
use metrica::cause::Diagnosis;
use metrica::error_type::ErrorType;
use metrica::operation::{Operation, OperationId, Reach, Verb};
use metrica::scope::{Lacking, Scope, ScopeSet};
use metrica::subject::Subject;
use tokio::time::Instant;

use super::connection::{Connection, Phase};
use crate::metrics::{CALLER_GONE, Credential, Finished, Refusal, UpstreamError};
use crate::names::{CallerId, TokenAlias};
use crate::policy::decide::{Decided, Decision, Shadowed};
use crate::policy::rejection::{Reason, Rejection};
use crate::telemetry::access::{Context, Outcome};
use crate::worker::{Diagnosed, Ending, Progress, Refused, Sender, Worker};

/// One request and its answer.
pub struct Exchange {
    worker: Rc<Worker>,
    /// The connection it came on.
    pub connection: Rc<Connection>,
    /// How it is called in logs, here and elsewhere.
    pub request_id: HeaderValue,
    /// The method, if it is one that operations have.
    pub verb: Option<Verb>,
    started: Instant,
    caller: Cell<Option<CallerId>>,
    operation: Cell<Option<OperationId>>,
    token: Cell<Option<TokenAlias>>,
    sender: Cell<Option<Sender>>,
    needs: Cell<(ScopeSet, Reach)>,
    acts: Cell<bool>,
    is_lengthy: Cell<bool>,
    subject: OnceCell<Subject>,
    status: Cell<Option<u16>>,
    refusal: Cell<Option<Refusal>>,
    would_refuse: Cell<Option<Reason>>,
    lacking: Cell<Option<Lacking>>,
    outcome: Cell<Option<Outcome>>,
    sent: Cell<Option<Instant>>,
    answered: Cell<Option<(Instant, u16)>>,
    resent: Cell<u32>,
    request_bytes: Cell<u64>,
    response_bytes: Cell<u64>,
    request_is_complete: Cell<bool>,
    request_progress: Cell<Option<Instant>>,
    unknown_path: RefCell<Option<Box<str>>>,
    began: Cell<bool>,
    finished: Cell<bool>,
    /// Its place among those under way, until it is over.
    pub place: Cell<Option<usize>>,
}

impl Exchange {
    /// A request arrived.
    #[must_use]
    pub fn new(worker: Rc<Worker>, connection: Rc<Connection>, verb: Option<Verb>, request_id: HeaderValue) -> Self {
        let started = Instant::now();
        connection.enter(Phase::Exchange, started);
        Self {
            worker,
            connection,
            request_id,
            verb,
            started,
            caller: Cell::new(None),
            operation: Cell::new(None),
            token: Cell::new(None),
            sender: Cell::new(None),
            needs: Cell::new((ScopeSet::EMPTY, Reach::Nobody)),
            acts: Cell::new(true),
            is_lengthy: Cell::new(false),
            subject: OnceCell::new(),
            status: Cell::new(None),
            refusal: Cell::new(None),
            would_refuse: Cell::new(None),
            lacking: Cell::new(None),
            outcome: Cell::new(None),
            sent: Cell::new(None),
            answered: Cell::new(None),
            resent: Cell::new(0),
            request_bytes: Cell::new(0),
            response_bytes: Cell::new(0),
            request_is_complete: Cell::new(false),
            request_progress: Cell::new(None),
            unknown_path: RefCell::new(None),
            began: Cell::new(false),
            finished: Cell::new(false),
            place: Cell::new(None),
        }
    }

    /// The worker that serves it.
    #[must_use]
    pub fn worker(&self) -> &Worker {
        &self.worker
    }

    /// Where it stands.
    #[must_use]
    pub fn progress(&self, now: Instant) -> Progress {
        let (caller, operation, is_lengthy) = (self.caller.get(), self.operation.get(), self.is_lengthy.get());
        let (is_answered, is_complete) = (self.answered.get().is_some(), self.request_is_complete.get());
        Progress { caller, operation, age: now - self.started, is_answered, is_complete, is_lengthy }
    }

    /// Who asks is decided: it is under way. `None` is an unknown caller.
    pub fn begin(&self, caller: Option<CallerId>) {
        self.caller.set(caller);
        self.began.set(true);
        self.worker.count(|shard| shard.begin(caller));
    }

    /// Its caller has become another, in another configuration.
    pub fn change_caller(&self, caller: CallerId) {
        let before = self.caller.replace(Some(caller));
        if before != Some(caller) {
            self.worker.count(|shard| shard.move_on(before, caller));
        }
    }

    /// What is asked is read.
    fn set_operation(&self, operation: &Operation) {
        self.operation.set(Some(operation.id));
        self.needs.set((operation.scopes, operation.reach));
        self.acts.set(operation.acts);
        self.is_lengthy.set(operation.long || operation.upload);
    }

    /// What was decided of it, at first or again.
    ///
    /// # Errors
    /// Why it is refused.
    pub fn decided(&self, Decided { read, token, decision }: Decided<'_>) -> Result<Decision, Rejection> {
        if let Some((operation, subject)) = read {
            self.set_operation(operation);
            // A request that is decided again works on the same data.
            let _ = self.subject.set(subject);
        }
        if let Some(token) = token {
            self.token.set(Some(token));
        }
        let decision = decision?;
        if let Some(shadowed) = decision.shadowed() {
            self.would_refuse(shadowed);
        }
        Ok(decision)
    }

    /// Whether it changes something, so that it must not be processed twice; so it does until it is known not to.
    #[must_use]
    pub fn acts(&self) -> bool {
        self.acts.get()
    }

    /// On whose data it works, when that was read.
    #[must_use]
    pub fn subject(&self) -> Option<&Subject> {
        self.subject.get()
    }

    /// The path is no operation's.
    pub fn set_unknown_path(&self, path: &str) {
        *self.unknown_path.borrow_mut() = Some(path.into());
    }

    /// Which token goes out: that one, or its standby.
    pub fn set_sender(&self, sender: Sender) {
        self.token.set(Some(sender.alias));
        self.sender.set(Some(sender));
    }

    /// A credential of the caller's did not leave.
    pub fn credential_dropped(&self, kind: Credential) {
        self.worker.count(|shard| shard.credential_dropped(self.caller.get(), kind));
    }

    /// Something went wrong towards the upstream.
    pub fn upstream_error(&self, kind: UpstreamError) {
        if kind == UpstreamError::Reflected {
            let request_id = self.request_id.to_str().unwrap_or_default();
            tracing::warn!(
                request_id,
                "the upstream's answer held the token that was sent; it does not reach the caller"
            );
        }
        self.worker.count(|shard| shard.upstream_error(kind));
    }

    /// The upstream's answer ends before its end.
    pub fn cut(&self) {
        self.outcome.set(Some(Outcome::UpstreamCut));
    }

    /// It is being sent, for the first time or again.
    pub fn sending(&self) {
        if self.sent.replace(Some(Instant::now())).is_some() {
            self.resent.set(self.resent.get() + 1);
        }
    }

    /// The head of the upstream's answer is here.
    pub fn answered(&self, status: u16) -> Instant {
        let now = Instant::now();
        self.answered.set(Some((now, status)));
        self.status.set(Some(status));
        now
    }

    /// The gate answers itself, where scopes lack for the want of those.
    pub fn rejected(&self, reason: Reason, lacking: Option<Lacking>) {
        self.lacking.set(lacking);
        self.status.set(Some(reason.answer().status.as_u16()));
        self.refusal.set(Some(Refusal::Gate(reason)));
    }

    /// It goes on, and would not if the caller's rules were enforced. The first reason stands.
    pub fn would_refuse(&self, Shadowed { reason, breach }: Shadowed) {
        if self.would_refuse.get().is_some() {
            return;
        }
        self.would_refuse.set(Some(reason));
        if let Some(cause) = breach {
            let request_id = self.request_id.to_str().unwrap_or_default();
            tracing::warn!(reason = reason.as_str(), request_id, %cause, "request would be refused");
        }
    }

    /// The scopes that are needed and those that are declared, where it was refused on account of that.
    fn rights_in_question(&self) -> Option<(ScopeSet, ScopeSet)> {
        match self.refusal.get()? {
            Refusal::Gate(_) => self.lacking.get().map(|Lacking { needed, held, .. }| (needed, held)),
            Refusal::Upstream(cause) if cause.is_of_rights() => Some((self.needs.get().0, self.sender.get()?.scopes)),
            Refusal::Upstream(_) => None,
        }
    }

    /// The scope of the token that is needed: of several, the narrowest that it is declared to have.
    fn needed(&self) -> Option<Scope> {
        let declared = self.sender.get()?.scopes;
        // The narrow ones come last.
        self.needs.get().0.iter().filter(|scope| declared.contains(*scope)).last()
    }

    /// With which token it is sent, or would be.
    #[must_use]
    pub const fn token(&self) -> Option<TokenAlias> {
        self.token.get()
    }

    /// The upstream did what was asked; its answer came at this time.
    pub fn succeeded(&self, now: Instant) {
        if let (Some(sender), Some(subject), (needs, reach)) = (self.sender.get(), self.subject.get(), self.needs.get())
        {
            self.worker.learning.succeeded(sender, needs, reach, subject, now);
        }
    }

    /// Whether the answer to a change may show whose the token is, which is not known.
    pub fn may_show_the_owner(&self) -> bool {
        let is_change = !self.needs.get().0.contains(Scope::Read);
        let is_own = || self.subject.get().is_some_and(|subject| subject.login.is_none());
        let shows = |operation: OperationId| matches!(operation.as_str(), "counter.update" | "counters.create");
        is_change
            && self.operation.get().is_some_and(shows)
            && is_own()
            && self.sender.get().is_some_and(|sender| self.worker.learning.lacks_the_owner(sender))
    }

    /// The answer to a change showed whose the token is.
    pub fn shows_the_owner(&self, login: Box<str>) {
        self.sender.get().into_iter().for_each(|sender| self.worker.learning.owner_was_shown(sender, login.clone()));
    }

    /// The upstream refused, and its body says `error_type`; why.
    pub fn refused_by_upstream(&self, status: u16, error_type: ErrorType) -> Option<Diagnosed> {
        let (sender, operation, subject) = (self.sender.get()?, self.operation.get()?, self.subject.get()?);
        let (verb, (needs, _)) = (self.verb, self.needs.get());
        let refused = Refused { sender, status, error_type, verb, operation, needs, subject };
        let diagnosed = self.worker.learning.refused(&self.worker.snapshot().generation, &refused);
        self.diagnosed(diagnosed.0);
        Some(diagnosed)
    }

    /// Why the upstream refused is known, or known better.
    pub fn diagnosed(&self, diagnosis: Diagnosis) {
        self.refusal.set(Some(Refusal::Upstream(diagnosis.cause)));
    }

    /// A piece of the request's body went on.
    pub fn add_request_bytes(&self, bytes: usize) {
        self.request_bytes.set(self.request_bytes.get() + u64::try_from(bytes).unwrap_or(0));
        self.request_progress.set(Some(Instant::now()));
    }

    /// A piece of the answer's body went on.
    pub fn add_response_bytes(&self, bytes: usize) {
        self.response_bytes.set(self.response_bytes.get() + u64::try_from(bytes).unwrap_or(0));
    }

    /// The request's body came to its end.
    pub fn request_completed(&self) {
        self.request_is_complete.set(true);
        self.connection.request_completed();
        if self.request_progress.get().is_some() {
            self.request_progress.set(Some(Instant::now()));
        }
    }

    /// Whether it did.
    #[must_use]
    pub fn request_is_complete(&self) -> bool {
        self.request_is_complete.get()
    }

    /// When the request last went on: a piece of its body, or else its head.
    #[must_use]
    pub fn last_progress(&self) -> Instant {
        self.request_progress.get().or(self.sent.get()).unwrap_or(self.started)
    }

    /// Whether it is over.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.finished.get()
    }

    /// It is over.
    pub fn finish(&self, complete: bool) {
        if self.finished.replace(true) {
            return;
        }
        self.place.take().into_iter().for_each(|place| self.worker.under_way.leave(place));
        let now = Instant::now();
        // Of an exchange without an answer of the upstream's, nobody asked; the next is not to be told.
        if self.connection.interim.take_reflected() {
            self.upstream_error(UpstreamError::Reflected);
        }
        let stalled = self.connection.stalled();
        if let Some(stall) = stalled {
            stall.say(&self.request_id, self.caller.get(), &self.worker);
        }
        self.connection.enter(Phase::Idle, now);
        if !self.began.get() {
            self.worker.count(|shard| shard.begin(None));
        }
        let snapshot = self.worker.snapshot();
        let finished = Finished {
            caller: self.caller.get(),
            operation: self.operation.get(),
            token: self.token.get(),
            needed: self.needed(),
            verb: self.verb,
            code: self.status.get().unwrap_or(CALLER_GONE),
            refusal: self.refusal.get(),
            ended: now.into_std(),
            would_refuse: self.would_refuse.get(),
            duration: now - self.started,
            upstream_duration: self.sent.get().and_then(|sent| Some(self.answered.get()?.0 - sent)),
            request_bytes: self.request_bytes.get(),
            response_bytes: self.response_bytes.get(),
            group: snapshot.generation.groups.of(self.subject()),
        };
        self.worker.count(|shard| shard.finish(&finished));
        if snapshot.generation.access_log {
            let path = self.unknown_path.borrow();
            let ended = match complete {
                _ if stalled.is_some() => Outcome::CallerStalled,
                true => Outcome::Complete,
                false if self.worker.ending() == Ending::Cutting => Outcome::GateEnded,
                false => Outcome::CallerGone,
            };
            let context = Context {
                request_id: self.request_id.as_bytes(),
                upstream_status: self.answered.get().map(|(_, status)| status),
                outcome: self.outcome.get().unwrap_or(ended),
                resent: self.resent.get(),
                path: path.as_deref(),
                subject: self.subject(),
                rights: self.rights_in_question(),
                evidence: self.caller.get().is_none().then_some(self.connection.evidence),
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

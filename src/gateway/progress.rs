//! The events that bodies and the response path report to an exchange.

use std::task::{Context, Poll};

use metrica::cause::Diagnosis;
use metrica::error_type::ErrorType;
use metrica::observed_rights::Permission;
use metrica::operation::Verb;
use metrica::response::Shown;
use tokio::time::Instant;

use super::exchange::Exchange;
use super::exchange_state::Read;
use crate::body::RequestProgress;
use crate::body::budget::Charge;
use crate::metrics::UpstreamError;
use crate::policy::choice::SeveralAccounts;
use crate::policy::decide::Shadowed;
use crate::policy::rejection::Rejection;
use crate::response::ResponseProgress;
use crate::upstream::Watchdog;
use crate::worker::{Diagnosed, Progress, RequestId, TokenUse, Underway};

impl Exchange {
    /// Records that the request is sent with a token of another account, because Metrica denied it with the first.
    ///
    /// # Errors
    /// An internal error if no operation was read.
    pub fn tried_next_account(&self, token_use: TokenUse) -> Result<(), Rejection> {
        self.refusal.set(None);
        // The response of the first is not the caller's.
        self.upward.set(self.upward.get().without_answer());
        if let Some(before) = self.token() {
            self.account.set((false, Some(before)));
            self.worker.count(|shard| shard.tried_next_account(before));
        }
        self.set_token_use(token_use)
    }

    /// Reports a refusal because of several accounts, so that the gate asks whether it is true.
    pub(super) fn doubt_split(&self, rejection: &Rejection) {
        let cause = rejection.cause.as_ref().and_then(|cause| cause.downcast_ref::<SeveralAccounts>());
        for (alias, counters) in cause.into_iter().flat_map(SeveralAccounts::lacking) {
            let snapshot = self.worker.snapshot();
            let slot = snapshot.generation.tokens.iter().find(|slot| slot.alias == alias);
            if let Some(slot) = slot {
                self.worker.learning.split(slot.token_use(), &counters, Instant::now());
            }
        }
    }
}

impl RequestProgress for Exchange {
    fn request_bytes(&self, bytes: usize) {
        self.add_request_bytes(bytes);
    }

    fn request_completed(&self) {
        Self::request_completed(self);
    }

    fn await_body(&self, awaited: bool) {
        self.connection.await_body(awaited);
    }

    fn would_refuse(&self, shadowed: Shadowed) {
        Self::would_refuse(self, shadowed);
    }

    fn charge(&self) -> Charge {
        Charge::new(self.worker().ahead.clone(), self.connection.transport.ahead.clone())
    }
}

impl ResponseProgress for Exchange {
    fn upstream_error(&self, kind: UpstreamError) {
        Self::upstream_error(self, kind);
    }

    fn succeeded(&self, at: Instant) {
        Self::succeeded(self, at);
    }

    fn refused(&self, status: u16, error_type: ErrorType) -> Option<Diagnosed> {
        self.refused_by_upstream(status, error_type)
    }

    fn jitter(&self) -> u16 {
        Self::jitter(self)
    }

    fn diagnosed(&self, diagnosis: Diagnosis) {
        Self::diagnosed(self, diagnosis);
    }

    fn may_show_a_counter(&self) -> bool {
        let request = self.request.borrow();
        let Some((read, token_use)) = request.as_read().and_then(|read| Some((read, read.token_use()?))) else {
            return false;
        };
        let is_new = read.operation.as_str() == "counters.create";
        let is_shown = read.changes_a_counter() && read.subject.login.is_none();
        is_shown && (is_new || self.worker.learning.lacks_the_owner(token_use))
    }

    fn shows_a_counter(&self, shown: &Shown) {
        let Some(token_use) = self.request.borrow().as_read().and_then(Read::token_use) else { return };
        let learning = &self.worker.learning;
        if let Some(owner) = shown.owner().filter(|_| learning.lacks_the_owner(token_use)) {
            learning.owner_was_shown(token_use, owner.into());
        }
        if let Some(permission) = Permission::of(&shown.permission).filter(|_| shown.id != 0) {
            learning.counter_was_shown(token_use, shown.id, permission);
        }
    }

    fn response_bytes(&self, bytes: usize) {
        self.add_response_bytes(bytes);
    }

    fn cut(&self) {
        Self::cut(self);
    }

    fn finish(&self, complete: bool) {
        Self::finish(self, complete);
    }

    fn request_is_complete(&self) -> bool {
        Self::request_is_complete(self)
    }

    fn is_head(&self) -> bool {
        self.verb == Some(Verb::Head)
    }

    fn poll_flushed(&self, since: &mut Option<u64>, context: &Context<'_>) -> Poll<()> {
        self.connection.transport.poll_flushed(since, context)
    }

    fn give_back(&self, watchdog: Watchdog) {
        self.worker().watchdogs.give_back(watchdog);
    }
}

impl Underway for Exchange {
    fn progress(&self, now: Instant) -> Progress {
        let request = self.request.borrow();
        let (operation, is_lengthy) = request.as_read().map(|read| (read.operation, read.is_lengthy)).unzip();
        Progress {
            caller: self.caller(),
            operation,
            age: now - self.started,
            is_answered: self.upward.get().status().is_some(),
            is_complete: self.request_is_complete.get(),
            is_lengthy: is_lengthy == Some(true),
        }
    }

    fn request_id(&self) -> &RequestId {
        &self.request_id
    }
}

//! The events that bodies and the response path report to an exchange.

use std::task::{Context, Poll};

use metrica::cause::Diagnosis;
use metrica::error_type::ErrorType;
use metrica::operation::Verb;
use tokio::time::Instant;

use super::exchange::Exchange;
use crate::body::RequestProgress;
use crate::body::budget::Charge;
use crate::metrics::UpstreamError;
use crate::policy::decide::Shadowed;
use crate::response::ResponseProgress;
use crate::upstream::Watchdog;
use crate::worker::Diagnosed;

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

    fn diagnosed(&self, diagnosis: Diagnosis) {
        Self::diagnosed(self, diagnosis);
    }

    fn may_show_the_owner(&self) -> bool {
        Self::may_show_the_owner(self)
    }

    fn shows_the_owner(&self, login: Box<str>) {
        Self::shows_the_owner(self, login);
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

//! The receiver of events about a response: its exchange, of which the steps know nothing else.

use std::task::{Context, Poll};

use metrica::cause::Diagnosis;
use metrica::error_type::ErrorType;
use metrica::response::Shown;
use tokio::time::Instant;

use crate::metrics::UpstreamError;
use crate::upstream::Watchdog;
use crate::worker::Diagnosed;

/// The receiver of events about a response.
pub trait ResponseProgress {
    /// Counts an error of the response.
    fn upstream_error(&self, kind: UpstreamError);
    /// Records that the operation succeeded; the head of its response arrived at `at`.
    fn succeeded(&self, at: Instant);
    /// Records that Metrica refused with this status and error type; returns the diagnosis.
    fn refused(&self, status: u16, error_type: ErrorType) -> Option<Diagnosed>;
    /// A number that spreads the times at which refused requests come again.
    fn jitter(&self) -> u16;
    /// Records a better diagnosis of the refusal.
    fn diagnosed(&self, diagnosis: Diagnosis);
    /// Whether a success shows a counter that teaches something about the owner of the token.
    fn may_show_a_counter(&self) -> bool;
    /// Records a counter that a success showed.
    fn shows_a_counter(&self, shown: &Shown);
    /// Counts a piece of the body that is passed on.
    fn response_bytes(&self, bytes: usize);
    /// Records that the response breaks off.
    fn cut(&self);
    /// Ends the response; `complete`: it was passed on whole.
    fn finish(&self, complete: bool);
    /// Whether the body of the request has ended.
    fn request_is_complete(&self) -> bool;
    /// Whether the request is a HEAD, whose response has no body.
    fn is_head(&self) -> bool;
    /// Ready when all bytes that were handed over before the first call have reached the socket. `since` is `None` at
    /// that call.
    fn poll_flushed(&self, since: &mut Option<u64>, context: &Context<'_>) -> Poll<()>;
    /// Returns the watchdog of the response for reuse.
    fn give_back(&self, watchdog: Watchdog);
}

#[cfg(test)]
pub mod tests {
    use std::cell::{Cell, RefCell};

    use super::*;

    /// Records the events for tests.
    #[derive(Default)]
    pub struct RecordedProgress {
        /// The errors, in their order.
        pub errors: RefCell<Vec<UpstreamError>>,
        /// The number of bytes of the body.
        pub bytes: Cell<usize>,
        /// Whether the response broke off.
        pub was_cut: Cell<bool>,
        /// The argument of `finish`.
        pub finished: Cell<Option<bool>>,
    }

    impl ResponseProgress for RecordedProgress {
        fn upstream_error(&self, kind: UpstreamError) {
            self.errors.borrow_mut().push(kind);
        }

        fn succeeded(&self, _: Instant) {}

        fn refused(&self, _: u16, _: ErrorType) -> Option<Diagnosed> {
            None
        }

        fn jitter(&self) -> u16 {
            0
        }

        fn diagnosed(&self, _: Diagnosis) {}

        fn may_show_a_counter(&self) -> bool {
            false
        }

        fn shows_a_counter(&self, _: &Shown) {}

        fn response_bytes(&self, bytes: usize) {
            self.bytes.set(self.bytes.get() + bytes);
        }

        fn cut(&self) {
            self.was_cut.set(true);
        }

        fn finish(&self, complete: bool) {
            self.finished.set(Some(complete));
        }

        fn request_is_complete(&self) -> bool {
            true
        }

        fn is_head(&self) -> bool {
            false
        }

        fn poll_flushed(&self, _: &mut Option<u64>, _: &Context<'_>) -> Poll<()> {
            Poll::Ready(())
        }

        fn give_back(&self, _: Watchdog) {}
    }
}

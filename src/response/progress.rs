//! Who is told what becomes of a response: its exchange, of which the steps know nothing else.

use std::task::{Context, Poll};

use metrica::cause::Diagnosis;
use metrica::error_type::ErrorType;
use tokio::time::Instant;

use crate::metrics::UpstreamError;
use crate::upstream::Watchdog;
use crate::worker::Diagnosed;

/// Who is told what becomes of a response.
pub trait ResponseProgress {
    /// Something was wrong with it.
    fn upstream_error(&self, kind: UpstreamError);
    /// Metrica did what was asked; the head of its response came at this time.
    fn succeeded(&self, at: Instant);
    /// Metrica refused with this status, and the body has this type; why.
    fn refused(&self, status: u16, error_type: ErrorType) -> Option<Diagnosed>;
    /// Why Metrica refused is known better.
    fn diagnosed(&self, diagnosis: Diagnosis);
    /// Whether a success may show whose the token is, which is not known.
    fn may_show_the_owner(&self) -> bool;
    /// A success showed whose the token is.
    fn shows_the_owner(&self, login: Box<str>);
    /// A piece of the body goes on.
    fn response_bytes(&self, bytes: usize);
    /// It ends before its end.
    fn cut(&self);
    /// It is over, and went on whole or not.
    fn finish(&self, complete: bool);
    /// Whether the body of the request came to its end.
    fn request_is_complete(&self) -> bool;
    /// Whether the request is a HEAD, to which no body is sent.
    fn is_head(&self) -> bool;
    /// Ready when everything has gone to the socket that was handed over when this was first called, with `since` as `None`.
    fn poll_flushed(&self, since: &mut Option<u64>, context: &Context<'_>) -> Poll<()>;
    /// The watchdog of the response is free for another one.
    fn give_back(&self, watchdog: Watchdog);
}

#[cfg(test)]
pub mod tests {
    use std::cell::{Cell, RefCell};

    use super::*;

    /// Remembers what it was told.
    #[derive(Default)]
    pub struct Told {
        /// The errors, in their order.
        pub errors: RefCell<Vec<UpstreamError>>,
        /// The bytes of the body.
        pub bytes: Cell<usize>,
        /// It was cut.
        pub was_cut: Cell<bool>,
        /// How it finished.
        pub finished: Cell<Option<bool>>,
    }

    impl ResponseProgress for Told {
        fn upstream_error(&self, kind: UpstreamError) {
            self.errors.borrow_mut().push(kind);
        }

        fn succeeded(&self, _: Instant) {}

        fn refused(&self, _: u16, _: ErrorType) -> Option<Diagnosed> {
            None
        }

        fn diagnosed(&self, _: Diagnosis) {}

        fn may_show_the_owner(&self) -> bool {
            false
        }

        fn shows_the_owner(&self, _: Box<str>) {}

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

//! Interim responses on their way to the caller.

use std::cell::{Cell, RefCell};
use std::task::Waker;

/// A queue of interim responses (1xx) between the upstream connection and the caller's.
#[derive(Debug, Default)]
pub struct Interim {
    arrived: RefCell<Vec<u8>>,
    reflected: Cell<bool>,
    server: RefCell<Option<Waker>>,
    /// The bytes that the socket has not accepted yet.
    pub rest: RefCell<Vec<u8>>,
}

impl Interim {
    /// Takes the bytes that arrived since the last call.
    #[must_use]
    pub fn take(&self) -> Vec<u8> {
        self.arrived.take()
    }

    /// Whether bytes arrived since the last call of [`Self::take`].
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        !self.arrived.borrow().is_empty()
    }

    /// Whether no byte waits for the socket.
    #[must_use]
    pub fn is_delivered(&self) -> bool {
        !self.is_waiting() && self.rest.borrow().is_empty()
    }

    /// Registers the waker to call when an interim response arrives.
    pub fn wake(&self, waker: &Waker) {
        self.server.replace(Some(waker.clone()));
    }

    /// Whether an interim response contained the token since the last call.
    #[must_use]
    pub fn take_reflected(&self) -> bool {
        self.reflected.take()
    }

    /// Queues the bytes of an interim response; `reflected`: the token was removed from it.
    pub fn push(&self, bytes: &[u8], reflected: bool) {
        self.reflected.set(self.reflected.get() || reflected);
        self.arrived.borrow_mut().extend_from_slice(bytes);
        if let Some(waker) = &*self.server.borrow() {
            waker.wake_by_ref();
        }
    }
}

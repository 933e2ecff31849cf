//! Interim responses on their way to the caller.

use std::cell::{Cell, RefCell};
use std::task::Waker;

/// Interim responses (1xx) between the connection to the upstream and the caller's.
#[derive(Debug, Default)]
pub struct Interim {
    arrived: RefCell<Vec<u8>>,
    reflected: Cell<bool>,
    server: RefCell<Option<Waker>>,
    /// What the socket has not taken yet.
    pub rest: RefCell<Vec<u8>>,
}

impl Interim {
    /// Takes what arrived since the last call.
    #[must_use]
    pub fn take(&self) -> Vec<u8> {
        self.arrived.take()
    }

    /// Whether something arrived since the last call of [`Self::take`].
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        !self.arrived.borrow().is_empty()
    }

    /// Who is woken when something arrives.
    pub fn wake(&self, waker: &Waker) {
        self.server.replace(Some(waker.clone()));
    }

    /// Whether one held the token since the last call.
    #[must_use]
    pub fn take_reflected(&self) -> bool {
        self.reflected.take()
    }

    /// An interim response arrived, as it goes on; `reflected` when the token was taken out of it.
    pub fn push(&self, bytes: &[u8], reflected: bool) {
        self.reflected.set(self.reflected.get() || reflected);
        self.arrived.borrow_mut().extend_from_slice(bytes);
        if let Some(waker) = &*self.server.borrow() {
            waker.wake_by_ref();
        }
    }
}

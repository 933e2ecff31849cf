//! What all requests of a connection share: one of HTTP/2 has many at once.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use crate::body::budget::Budget;

/// So many bytes of bodies are read ahead on a connection, of all its requests together.
const AHEAD: usize = 2 * 1024 * 1024;

/// What all requests of a connection share.
#[derive(Debug)]
pub struct Transport {
    flushes: Cell<u64>,
    waiting: RefCell<Vec<Waker>>,
    /// The task that flushes, where that is another than that of a request.
    flusher: RefCell<Option<Waker>>,
    /// The caller takes nothing of what is ready for it.
    stalled: Cell<bool>,
    /// Bytes of bodies that are read before they go on.
    pub ahead: Rc<Budget>,
}

impl Default for Transport {
    fn default() -> Self {
        Self {
            flushes: Cell::default(),
            waiting: RefCell::default(),
            flusher: RefCell::default(),
            stalled: Cell::default(),
            ahead: Rc::new(Budget::new(AHEAD)),
        }
    }
}

impl Transport {
    /// Who is woken for a flush that is waited for.
    pub fn flushes_with(&self, waker: &Waker) {
        *self.flusher.borrow_mut() = Some(waker.clone());
    }

    /// Everything that was handed over has gone to the socket.
    pub fn flushed(&self) {
        self.flushes.set(self.flushes.get().wrapping_add(1));
        self.waiting.take().into_iter().for_each(Waker::wake);
    }

    /// Ready when everything has gone to the socket that was handed over when this was first called, with `since` as `None`.
    pub fn poll_flushed(&self, since: &mut Option<u64>, context: &Context<'_>) -> Poll<()> {
        let now = self.flushes.get();
        if *since.get_or_insert(now) != now {
            return Poll::Ready(());
        }
        let mut waiting = self.waiting.borrow_mut();
        if !waiting.iter().any(|waker| waker.will_wake(context.waker())) {
            waiting.push(context.waker().clone());
        }
        drop(waiting);
        self.flusher.borrow().iter().for_each(Waker::wake_by_ref);
        Poll::Pending
    }

    /// The caller has taken nothing for `timeouts.body_idle`.
    pub fn stall(&self) {
        self.stalled.set(true);
    }

    /// Whether it has not.
    #[must_use]
    pub fn has_stalled(&self) -> bool {
        self.stalled.get()
    }
}

//! The state that all requests of a connection share; an HTTP/2 connection has many at once.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use crate::body::budget::Budget;
use crate::config::certificates::ClientCertificate;
use crate::policy::offered::Offered;

/// The maximum number of body bytes that are read ahead on a connection, for all its requests together.
const AHEAD: usize = 2 * 1024 * 1024;

/// The state that all requests of a connection share.
#[derive(Debug)]
pub struct Transport {
    flushes: Cell<u64>,
    waiting: RefCell<Vec<Waker>>,
    /// The task that flushes, if a separate task does.
    flusher: RefCell<Option<Waker>>,
    /// The caller does not read the bytes that are ready for it.
    stalled: Cell<bool>,
    /// The budget of body bytes that are read ahead.
    pub ahead: Rc<Budget>,
    /// The names that the connection was opened for.
    opened_for: OpenedFor,
    /// The client of a listener with TLS or of a forward proxy; `None` on other listeners.
    client: Option<Client>,
    /// The connection ends after the responses to the requests in progress.
    ends: Cell<bool>,
    /// The key of the CONNECT request of the tunnel.
    key: Offered,
}

/// The names that a connection was opened for: with CONNECT, and in TLS.
pub type OpenedFor = [Option<Box<str>>; 2];

/// The client of a connection that can begin with a TLS handshake.
#[derive(Debug)]
pub struct Client {
    /// The certificate that it presented.
    pub certificate: Option<ClientCertificate>,
}

impl Default for Transport {
    fn default() -> Self {
        Self {
            flushes: Cell::default(),
            waiting: RefCell::default(),
            flusher: RefCell::default(),
            stalled: Cell::default(),
            ahead: Rc::new(Budget::new(AHEAD)),
            opened_for: OpenedFor::default(),
            client: None,
            ends: Cell::new(false),
            key: Offered::default(),
        }
    }
}

impl Transport {
    /// Creates the state of a connection that was opened for these names, with this certificate of the client and this key of
    /// the CONNECT request.
    #[must_use]
    pub fn opened_as(opened_for: OpenedFor, certificate: Option<ClientCertificate>, key: Offered) -> Self {
        Self { opened_for, client: Some(Client { certificate }), key, ..Self::default() }
    }

    /// Returns the key that the CONNECT request of the tunnel offered, which holds for every request in it.
    #[must_use]
    pub const fn key(&self) -> Offered {
        self.key
    }

    /// Returns the client, if the connection can have begun with a TLS handshake.
    #[must_use]
    pub const fn client(&self) -> Option<&Client> {
        self.client.as_ref()
    }

    /// Ends the connection after the responses to the requests in progress.
    pub fn end(&self) {
        self.ends.set(true);
    }

    /// Whether the connection ends after the responses to the requests in progress.
    #[must_use]
    pub const fn is_ending(&self) -> bool {
        self.ends.get()
    }

    /// Returns the names that the connection was opened for, with CONNECT and in TLS.
    #[must_use]
    pub fn opened_for(&self) -> [Option<&str>; 2] {
        self.opened_for.each_ref().map(Option::as_deref)
    }

    /// Registers the waker of the task that flushes.
    pub fn flushes_with(&self, waker: &Waker) {
        *self.flusher.borrow_mut() = Some(waker.clone());
    }

    /// Records that all bytes handed over have reached the socket.
    pub fn flushed(&self) {
        self.flushes.set(self.flushes.get().wrapping_add(1));
        self.waiting.take().into_iter().for_each(Waker::wake);
    }

    /// Ready when all bytes that were handed over before the first call have reached the socket. `since` is `None` at
    /// that call.
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

    /// Records that the caller has read nothing for `timeouts.body_idle`.
    pub fn stall(&self) {
        self.stalled.set(true);
    }

    /// Whether the caller has read nothing for `timeouts.body_idle`.
    #[must_use]
    pub fn has_stalled(&self) -> bool {
        self.stalled.get()
    }
}

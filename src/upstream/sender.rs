//! What sends on a connection, whichever version of HTTP that speaks.

use std::cell::Cell;
use std::rc::Rc;

use hyper::client::conn::http2;

use super::http1::Http1;

/// What sends on a connection.
pub enum Sender<B> {
    /// A connection of HTTP/1.1, for one request at a time.
    Http1(Http1),
    /// A shared connection of HTTP/2.
    Http2 {
        /// What sends on it.
        sender: http2::SendRequest<B>,
        /// The place of one request on it.
        active: Active,
    },
}

/// The place of one request on a shared connection, which is free when this is dropped.
#[derive(Debug)]
pub struct Active(Rc<Cell<usize>>);

impl Active {
    /// One more on a connection with so many.
    pub fn on(count: &Rc<Cell<usize>>) -> Self {
        count.set(count.get() + 1);
        Self(count.clone())
    }

    /// Whether it is on the connection with this count.
    pub fn is_on(&self, count: &Rc<Cell<usize>>) -> bool {
        Rc::ptr_eq(&self.0, count)
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        self.0.set(self.0.get().saturating_sub(1));
    }
}

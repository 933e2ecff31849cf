//! The sending side of a connection, over either version of HTTP.

use std::cell::Cell;
use std::rc::Rc;

use hyper::client::conn::http2;

use super::http1::Http1;

/// The sending side of a connection.
pub enum Sender<B> {
    /// An HTTP/1.1 connection, for one request at a time.
    Http1(Http1),
    /// A shared HTTP/2 connection.
    Http2 {
        /// The handle that sends requests.
        sender: http2::SendRequest<B>,
        /// The place of one request on the connection.
        active: Active,
    },
}

/// The place of one request on a shared connection, released on drop.
#[derive(Debug)]
pub struct Active(Rc<Cell<usize>>);

impl Active {
    /// Adds a request to the connection with this count.
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

//! What sends on a connection, whichever version of HTTP that speaks.

use std::cell::Cell;
use std::rc::Rc;

use hyper::client::conn::http2;

use super::http1::Http1;

/// What sends on a connection.
pub enum Sender<B> {
    /// A connection of HTTP/1.1, for one request at a time.
    Http1(Http1),
    /// A place on a shared connection of HTTP/2.
    Http2 {
        /// What sends on it.
        sender: http2::SendRequest<B>,
        /// How many requests are on it.
        active: Rc<Cell<usize>>,
    },
}

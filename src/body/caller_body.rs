//! The body of a request, as the caller sends it. What nobody reads of it is left with its connection: to drop it would
//! reset the stream of HTTP/2, which some clients take for a failure of an answer that is there; and end the connection of
//! HTTP/1.1, even when the rest is small.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

/// Who takes the rest of a body that nobody reads any more.
pub trait Unread {
    /// Nobody reads `rest` any more.
    fn leave_unread(&self, rest: Incoming);
}

/// The body of a request, as the caller sends it.
pub struct CallerBody {
    incoming: Option<Incoming>,
    left_with: Option<Rc<dyn Unread>>,
}

impl CallerBody {
    /// The body `incoming`; its unread rest is `left_with` its connection, where that is given.
    #[must_use]
    pub const fn new(incoming: Incoming, left_with: Option<Rc<dyn Unread>>) -> Self {
        Self { incoming: Some(incoming), left_with }
    }
}

impl CallerBody {
    /// What nobody reads of it is not left with anyone.
    #[must_use]
    pub fn left_with_nobody(mut self) -> Self {
        self.left_with = None;
        self
    }
}

impl Body for CallerBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let Some(incoming) = &mut self.get_mut().incoming else { return Poll::Ready(None) };
        Pin::new(incoming).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.as_ref().is_none_or(Incoming::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.as_ref().map_or_else(|| SizeHint::with_exact(0), Incoming::size_hint)
    }
}

impl Drop for CallerBody {
    fn drop(&mut self) {
        if let (Some(incoming), Some(unread)) = (self.incoming.take(), &self.left_with)
            && !incoming.is_end_stream()
        {
            unread.leave_unread(incoming);
        }
    }
}

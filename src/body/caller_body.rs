//! The body of a request, as the caller sends it. Its unread rest is handed to the connection. Dropping it would reset an
//! HTTP/2 stream, which some clients treat as a failure of a complete response, and would end an HTTP/1.1 connection even
//! for a small rest.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

/// Receives the unread rest of a body.
pub trait Unread {
    /// Called when `rest` will not be read any more.
    fn leave_unread(&self, rest: Incoming);
}

/// The body of a request, as the caller sends it.
pub struct CallerBody {
    incoming: Option<Incoming>,
    left_with: Option<Rc<dyn Unread>>,
}

impl CallerBody {
    /// The body `incoming`, whose unread rest goes to `left_with`, if given.
    #[must_use]
    pub const fn new(incoming: Incoming, left_with: Option<Rc<dyn Unread>>) -> Self {
        Self { incoming: Some(incoming), left_with }
    }
}

impl CallerBody {
    /// Drops the unread rest instead of handing it over.
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

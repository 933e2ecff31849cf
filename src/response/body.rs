//! Step 10, body: the body that the caller receives, counted piece by piece.
//!
//! 1. A piece is passed on as it arrived, and the next is read only after it was taken: memory use is constant.
//! 2. A response that breaks off never looks complete: its error closes the caller's connection. The error waits until
//!    everything before it has reached the socket: a caller that receives no part of a response could assume that its
//!    request was never processed, and send it again.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::Response;
use http_body::{Body, Frame, SizeHint};
use strict_http::number;

use super::list_body::{Filtered, Limit, Passed};
use super::streaming::Streaming;
use super::{ResponseError, ResponseProgress};

/// Runs the step.
pub fn count(passed: Passed) -> Response<ResponseBody> {
    let (head, body) = passed.into_parts();
    let (progress, content) = match body {
        Limit::None(streaming) => (streaming.progress().clone(), Content::Upstream(streaming)),
        Limit::Counters(filtered) => (filtered.streaming().progress().clone(), Content::Filtered(Box::new(filtered))),
    };
    Response::from_parts(head, ResponseBody { progress, content })
}

/// The body of a response, on its way to the caller.
pub struct ResponseBody {
    progress: Rc<dyn ResponseProgress>,
    content: Content,
}

enum Content {
    /// The gate's own body, until it is taken.
    Own(Option<Bytes>),
    Upstream(Box<Streaming>),
    Filtered(Box<Filtered>),
    Broken(Box<BrokenOff>),
}

/// A response that broke off; its error waits for the flush (rule 2).
struct BrokenOff {
    error: Option<ResponseError>,
    since: Option<u64>,
}

impl ResponseBody {
    /// Creates a body of the gate's own.
    pub fn own(body: Bytes, progress: Rc<dyn ResponseProgress>) -> Self {
        Self { progress, content: Content::Own(Some(body)) }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = ResponseError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ResponseError>>> {
        let Self { progress, content } = self.get_mut();
        loop {
            let polled = match content {
                Content::Own(body) => body.take().map(|body| Ok(Frame::data(body))),
                Content::Upstream(streaming) => ready!(streaming.poll_frame(context)),
                Content::Filtered(filtered) => ready!(filtered.poll_frame(context)),
                Content::Broken(broken) => {
                    ready!(progress.poll_flushed(&mut broken.since, context));
                    return Poll::Ready(broken.error.take().map(Err));
                }
            };
            let error = match polled {
                Some(Ok(frame)) => {
                    progress.response_bytes(frame.data_ref().map_or(0, Bytes::len));
                    return Poll::Ready(Some(Ok(frame)));
                }
                Some(Err(error)) => error,
                None => return Poll::Ready(None),
            };
            progress.upstream_error(error.kind());
            progress.cut();
            *content = Content::Broken(Box::new(BrokenOff { error: Some(error), since: None }));
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            Content::Own(body) => body.is_none(),
            Content::Upstream(streaming) => streaming.is_end_stream(),
            Content::Filtered(filtered) => filtered.is_end_stream(),
            Content::Broken(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Own(body) => SizeHint::with_exact(body.as_ref().map_or(0, |body| number::count(body.len()))),
            Content::Upstream(streaming) => streaming.size_hint(),
            Content::Filtered(_) | Content::Broken(_) => SizeHint::default(),
        }
    }
}

impl Drop for ResponseBody {
    fn drop(&mut self) {
        let complete = match &mut self.content {
            // The body of a response to a HEAD is never read.
            Content::Own(body) => body.is_none() || self.progress.is_head(),
            Content::Upstream(streaming) => streaming.stop(),
            Content::Filtered(filtered) => filtered.stop(),
            Content::Broken(_) => false,
        };
        self.progress.finish(complete);
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;
    use crate::metrics::UpstreamError;
    use crate::response::progress::tests::RecordedProgress;

    fn next(body: &mut ResponseBody) -> Poll<Option<Result<Frame<Bytes>, ResponseError>>> {
        Pin::new(body).poll_frame(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn forwarded_bytes_are_counted_and_the_end_is_recorded_once() {
        let told = Rc::new(RecordedProgress::default());
        let mut body = ResponseBody::own(Bytes::from_static(b"12345"), told.clone());
        assert!(matches!(next(&mut body), Poll::Ready(Some(Ok(_)))));
        assert!(matches!(next(&mut body), Poll::Ready(None)));
        drop(body);
        assert_eq!((told.bytes.get(), told.finished.get(), told.was_cut.get()), (5, Some(true), false));
        drop(ResponseBody::own(Bytes::from_static(b"12345"), told.clone()));
        assert_eq!(told.finished.get(), Some(false), "nobody asked for it");
    }

    #[test]
    fn rule_2_a_broken_body_is_never_complete() {
        let told = Rc::new(RecordedProgress::default());
        let broken = BrokenOff { error: Some(ResponseError::Stalled), since: None };
        let mut body = ResponseBody { progress: told.clone(), content: Content::Broken(Box::new(broken)) };
        assert!(!body.is_end_stream());
        assert!(matches!(next(&mut body), Poll::Ready(Some(Err(ResponseError::Stalled)))));
        assert!(!body.is_end_stream());
        drop(body);
        assert_eq!(told.finished.get(), Some(false));
        assert_eq!(*told.errors.borrow(), [UpstreamError::BodyTimeout; 0]);
    }
}

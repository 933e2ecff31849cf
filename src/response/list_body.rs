//! Step 9, the body of a list of counters for a caller that may see some of them (rule 5 of [`crate::policy::rules`]).
//!
//! The beginning is filtered before the head is sent: a body that is not a list there is replaced by a complete response
//! of the gate's. A body that proves not to be a list later breaks off, and with it the caller's connection.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::response::Parts;
use http_body::Frame;

use super::ResponseError;
use super::classification::Begun;
use super::list_filter::{ListFilter, NotAList};
use super::streaming::Streaming;

/// A response that is ready to be sent; only the rest of its body is still to come.
pub struct Passed {
    head: Parts,
    body: Limit,
}

impl Passed {
    /// Splits into the head and the body.
    pub(super) fn into_parts(self) -> (Parts, Limit) {
        (self.head, self.body)
    }
}

/// The body of such a response.
pub(super) enum Limit {
    /// Unfiltered.
    None(Box<Streaming>),
    /// Filtered to the listed counters.
    Counters(Filtered),
}

/// Runs the step.
///
/// # Errors
/// An error if the beginning of the body breaks off, stalls or is not a list.
pub async fn limit(begun: Begun) -> Result<Passed, ResponseError> {
    let (head, streaming) = begun.into_parts();
    let (framed, counters) = head.into_parts();
    let body = match counters {
        // Boxed to keep the future small: few responses are filtered.
        Some(counters) => Limit::Counters(Box::pin(Filtered::begin(streaming, counters)).await?),
        None => Limit::None(streaming),
    };
    Ok(Passed { head: framed.into_head(), body })
}

/// A list of counters, filtered.
pub struct Filtered {
    streaming: Box<Streaming>,
    /// The filter; `None` after the end of the list.
    filter: Option<ListFilter>,
    /// The bytes that were filtered before the head was sent.
    ahead: Bytes,
}

impl Filtered {
    /// Filters `streaming` to `counters`, and reads and filters its beginning.
    async fn begin(streaming: Box<Streaming>, counters: Arc<[u64]>) -> Result<Self, ResponseError> {
        let mut filtered = Self { streaming, filter: Some(ListFilter::new(counters)), ahead: Bytes::new() };
        if let Some(piece) = poll_fn(|context| filtered.poll_piece(context)).await {
            filtered.ahead = piece?;
        }
        Ok(filtered)
    }

    /// Returns the unfiltered body.
    pub(super) fn streaming(&self) -> &Streaming {
        &self.streaming
    }

    /// Returns the next piece.
    pub fn poll_frame(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ResponseError>>> {
        self.poll_piece(context).map(|piece| piece.map(|piece| piece.map(Frame::data)))
    }

    fn poll_piece(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, ResponseError>>> {
        if !self.ahead.is_empty() {
            return Poll::Ready(Some(Ok(std::mem::take(&mut self.ahead))));
        }
        loop {
            let Some(filter) = &mut self.filter else { return Poll::Ready(None) };
            let read = match ready!(self.streaming.poll_frame(context)) {
                Some(Ok(frame)) => frame.into_data().ok(),
                Some(Err(error)) => {
                    self.filter = None;
                    return Poll::Ready(Some(Err(error)));
                }
                None => None,
            };
            let passed = match read {
                Some(piece) => filter.push(&piece),
                // Trailers are dropped: they describe the unfiltered body.
                None => self.filter.take().map_or(Err(NotAList), ListFilter::finish),
            };
            match passed {
                Ok(piece) if piece.is_empty() => {}
                Ok(piece) => return Poll::Ready(Some(Ok(piece))),
                Err(not) => {
                    self.filter = None;
                    self.streaming.stop();
                    return Poll::Ready(Some(Err(ResponseError::NotAList(not))));
                }
            }
        }
    }

    /// Whether no more is passed on.
    pub fn is_end_stream(&self) -> bool {
        self.filter.is_none() && self.ahead.is_empty()
    }

    /// Stops reading; returns whether the whole body was passed on.
    pub fn stop(&mut self) -> bool {
        self.streaming.stop() && self.is_end_stream()
    }
}

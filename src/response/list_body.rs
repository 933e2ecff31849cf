//! Step 9, the body of a list of counters on its way to a caller that may see some of them (rule 5 of [`crate::policy::rules`]).
//!
//! The beginning is filtered before the head goes out: what shows itself to be no list there becomes a whole response of the
//! gate's. One that turns out to be none later breaks off, and so does the caller's connection.

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

/// A response of which everything is decided, but what is still to come of its body.
pub struct Passed {
    head: Parts,
    body: Limit,
}

impl Passed {
    /// The head and the body.
    pub(super) fn into_parts(self) -> (Parts, Limit) {
        (self.head, self.body)
    }
}

/// The body of such a response.
pub(super) enum Limit {
    /// As it comes.
    None(Streaming),
    /// Only what names no other counters.
    Counters(Filtered),
}

/// The step for the body.
///
/// # Errors
/// When its beginning breaks off, stalls or is no list.
pub async fn limit(begun: Begun) -> Result<Passed, ResponseError> {
    let (head, streaming) = begun.into_parts();
    let (framed, counters) = head.into_parts();
    let body = match counters {
        // Boxed: few responses are filtered, and all would have room for it.
        Some(counters) => Limit::Counters(Box::pin(Filtered::begin(streaming, counters)).await?),
        None => Limit::None(streaming),
    };
    Ok(Passed { head: framed.into_head(), body })
}

/// A list of counters, filtered.
pub struct Filtered {
    streaming: Streaming,
    /// `None` when the list is over.
    filter: Option<ListFilter>,
    /// Filtered before the head went out.
    ahead: Bytes,
}

impl Filtered {
    /// What of `streaming` names none but `counters`, with its beginning filtered.
    async fn begin(streaming: Streaming, counters: Arc<[u64]>) -> Result<Self, ResponseError> {
        let mut filtered = Self { streaming, filter: Some(ListFilter::new(counters)), ahead: Bytes::new() };
        if let Some(piece) = poll_fn(|context| filtered.poll_piece(context)).await {
            filtered.ahead = piece?;
        }
        Ok(filtered)
    }

    /// Who is told.
    pub(super) fn streaming(&self) -> &Streaming {
        &self.streaming
    }

    /// The next piece.
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
                // Trailers speak of the body as it came.
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

    /// Whether nothing more goes on.
    pub fn is_end_stream(&self) -> bool {
        self.filter.is_none() && self.ahead.is_empty()
    }

    /// Nobody asks for more; whether all of it went on.
    pub fn stop(&mut self) -> bool {
        self.streaming.stop() && self.is_end_stream()
    }
}

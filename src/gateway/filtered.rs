//! A list of counters on its way to a caller that may see some of them (rule 5 of [`crate::policy::rules`]).
//!
//! 1. Metrica is asked for a list that is not packed. An answer of success that is packed or no JSON is none to look into, and
//!    is refused; any other answer goes on as it is.
//! 2. What goes on has another length than what came, so the fields that speak of the body as it came stay here, also in the
//!    answer to a HEAD.
//! 3. The beginning is filtered before the head goes out: what shows itself to be no list there becomes a whole answer of the
//!    gate's. One that turns out to be none later breaks off, and so does the caller's connection.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderMap;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, ETAG};
use http_body::Frame;

use super::body::BodyError;
use super::coding::Coding;
use super::list_filter::{ListFilter, NotAList};
use super::streaming::Streaming;
use crate::metrics::UpstreamError;
use crate::policy::rejection::{Reason, Rejection};

/// The body of such an answer.
pub struct Filtered {
    streaming: Streaming,
    /// `None` when the list is over.
    filter: Option<ListFilter>,
    /// Filtered before the head went out.
    ahead: Bytes,
}

impl Filtered {
    /// What of `streaming` names none but `counters`.
    pub fn new(streaming: Streaming, counters: Arc<[u64]>) -> Self {
        Self { streaming, filter: Some(ListFilter::new(counters)), ahead: Bytes::new() }
    }

    /// Filters the beginning (rule 3).
    ///
    /// # Errors
    /// When it breaks off, stalls or is no list.
    pub async fn read_ahead(&mut self) -> Result<(), BodyError> {
        if let Some(frame) = poll_fn(|context| self.poll_frame(context)).await {
            self.ahead = frame?.into_data().unwrap_or_default();
        }
        Ok(())
    }

    /// The next piece.
    pub fn poll_frame(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if !self.ahead.is_empty() {
            return Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut self.ahead)))));
        }
        loop {
            if self.filter.is_none() {
                return Poll::Ready(None);
            }
            let passed = match ready!(self.streaming.poll_frame(context)) {
                Some(Err(error)) => {
                    self.filter = None;
                    return Poll::Ready(Some(Err(error)));
                }
                Some(Ok(frame)) if frame.is_data() => {
                    let piece = frame.into_data().unwrap_or_default();
                    self.filter.as_mut().map_or_else(|| Ok(Bytes::new()), |filter| filter.push(&piece))
                }
                // Trailers speak of the body as it came.
                Some(Ok(_)) | None => self.filter.take().map_or_else(|| Ok(Bytes::new()), ListFilter::finish),
            };
            match passed {
                Ok(piece) if piece.is_empty() => {}
                Ok(piece) => return Poll::Ready(Some(Ok(Frame::data(piece)))),
                Err(not) => {
                    self.filter = None;
                    self.streaming.stop();
                    return Poll::Ready(Some(Err(BodyError::NotAList(not))));
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

/// Makes a head of an answer of success that of a list that is filtered (rules 1 and 2); `has_body`: it is not to a HEAD.
///
/// # Errors
/// When the body cannot be looked into.
pub fn take_head(fields: &mut HeaderMap, has_body: bool, coding: Coding) -> Result<(), (UpstreamError, Rejection)> {
    let kind = fields.get(CONTENT_TYPE).map(|value| value.as_bytes()).unwrap_or_default();
    let kind = kind.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
    let is_json = [&b"application/json"[..], b"application/x-yametrika+json"]
        .iter()
        .any(|known| kind.eq_ignore_ascii_case(known));
    if has_body && (coding != Coding::Plain || !is_json) {
        return Err((UpstreamError::Encoding, Rejection::because(Reason::UpstreamEncoding, NotAList)));
    }
    for name in [CONTENT_LENGTH, ETAG] {
        fields.remove(name);
    }
    for name in ["content-digest", "content-md5", "digest", "repr-digest"] {
        fields.remove(name);
    }
    Ok(())
}

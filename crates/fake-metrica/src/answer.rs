//! Responses and their bodies: whole or streamed, and optionally cut off.

use std::io::Write as _;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, LOCATION};
use http::{HeaderValue, Response, StatusCode};
use hyper::body::{Body, Frame, SizeHint};
use serde::Serialize;
use strict_http::number;

use super::part::Part;
use super::quota::lease::{Lease, Leaving};
use super::refusal::{ErrorType, Refusal};

const JSON: &str = "application/json; charset=utf-8";
const CSV: &str = "text/csv; charset=utf-8";
const TSV: &str = "text/tab-separated-values; charset=utf-8";
const HTML: &str = "text/html; charset=utf-8";

/// The status, type and body of a response.
pub struct Answer {
    status: StatusCode,
    content_type: &'static str,
    /// The value of `Allow`: the methods that the path supports.
    allow: Option<String>,
    /// The value of `Location`.
    location: Option<String>,
    is_packed: bool,
    content: Content,
}

impl Answer {
    /// A value as JSON; one that cannot be written is an error, not an empty body.
    pub fn json(value: &impl Serialize, pretty: bool) -> Self {
        let text = if pretty { serde_json::to_vec_pretty(value) } else { serde_json::to_vec(value) };
        let ended = |_| Self::from(&Refusal::from(ErrorType::BackendError));
        text.map_or_else(ended, |text| Self::ok(JSON, Content::whole(text)))
    }

    pub fn csv(text: String) -> Self {
        Self::ok(CSV, Content::whole(text))
    }

    /// A page for a person.
    pub fn html(text: String) -> Self {
        Self::ok(HTML, Content::whole(text))
    }

    /// Leads a browser elsewhere.
    pub fn redirect(location: &str) -> Self {
        let answer = Self::html(String::new()).with_status(302);
        Self { location: Some(location.to_owned()), ..answer }
    }

    /// The same response with another status; one that is no status is 500.
    pub fn with_status(self, status: u16) -> Self {
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Self { status, ..self }
    }

    pub fn part(part: Part) -> Self {
        Self::ok(TSV, Content::of(Source::Part(Box::new(part))))
    }

    /// An error as an HTML page of the server behind the application, instead of JSON.
    pub fn page(refusal: &Refusal) -> Self {
        Self { status: refusal.status, ..Self::ok(HTML, Content::whole(refusal.page())) }
    }

    /// An error cut off in the middle, with a matching length.
    pub fn half(refusal: &Refusal) -> Self {
        let mut body = refusal.body();
        body.truncate(body.len() / 2);
        Self { status: refusal.status, ..Self::ok(JSON, Content::whole(body)) }
    }

    /// Compresses the body with gzip.
    pub fn packed(mut self) -> Self {
        if let Source::Whole(bytes) = &self.content.source {
            let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
            if let Ok(packed) = packer.write_all(bytes).and_then(|()| packer.finish()) {
                self.content = Content::whole(packed);
                self.is_packed = true;
            }
        }
        self
    }

    const fn ok(content_type: &'static str, content: Content) -> Self {
        Self { status: StatusCode::OK, content_type, allow: None, location: None, is_packed: false, content }
    }

    pub const fn status(&self) -> StatusCode {
        self.status
    }

    pub fn allowing(self, methods: Option<String>) -> Self {
        Self { allow: methods, ..self }
    }

    /// Counts the request as running until the body has been sent.
    pub fn holding(mut self, lease: Option<Lease>, leaving: Leaving) -> Self {
        self.content.lease = lease.map(|lease| Box::new((lease, leaving)));
        self
    }

    /// Breaks the connection after this many bytes of the body.
    pub const fn cut_after(mut self, bytes: Option<u64>) -> Self {
        self.content.cut = bytes;
        self
    }

    /// The response to HEAD: the same fields without a body.
    pub fn without_body(self) -> Response<Content> {
        let length = self.content.left();
        let mut response = Response::from(self);
        response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(length));
        let lease = response.body_mut().lease.take();
        *response.body_mut() = Content::whole(Bytes::new());
        response.body_mut().lease = lease;
        response
    }
}

impl From<&Refusal> for Answer {
    fn from(refusal: &Refusal) -> Self {
        Self { status: refusal.status, ..Self::ok(JSON, Content::whole(refusal.body())) }
    }
}

impl From<Answer> for Response<Content> {
    fn from(answer: Answer) -> Self {
        let mut response = Self::new(answer.content);
        *response.status_mut() = answer.status;
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(answer.content_type));
        if answer.is_packed {
            response.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        if let Some(methods) = answer.allow.and_then(|methods| HeaderValue::from_str(&methods).ok()) {
            response.headers_mut().insert(ALLOW, methods);
        }
        if let Some(location) = answer.location.and_then(|location| HeaderValue::from_str(&location).ok()) {
            response.headers_mut().insert(LOCATION, location);
        }
        response
    }
}

/// A response body.
pub struct Content {
    source: Source,
    /// The number of bytes to send before the connection breaks.
    cut: Option<u64>,
    /// Whether the bytes before the cut have been handed to hyper.
    is_sent: bool,
    lease: Option<Box<(Lease, Leaving)>>,
}

/// The size of the pieces of a whole body, in bytes: hyper takes the next one when it has sent most of the others, so that
/// the end of the body shows when the response has ended.
const PIECE: usize = 16 * 1024;

enum Source {
    Whole(Bytes),
    Part(Box<Part>),
}

/// The connection ends because the control panel requested it.
#[derive(Debug, thiserror::Error)]
#[error("a knob of the stand-in breaks this connection")]
pub struct Broken;

impl Content {
    const fn of(source: Source) -> Self {
        Self { source, cut: None, is_sent: false, lease: None }
    }

    fn whole(bytes: impl Into<Bytes>) -> Self {
        Self::of(Source::Whole(bytes.into()))
    }

    fn left(&self) -> u64 {
        match &self.source {
            Source::Whole(bytes) => number::count(bytes.len()),
            Source::Part(part) => part.left(),
        }
    }

    fn next(&mut self) -> Option<Bytes> {
        match &mut self.source {
            Source::Whole(bytes) => Some(bytes.split_to(bytes.len().min(PIECE))).filter(|piece| !piece.is_empty()),
            Source::Part(part) => part.next(),
        }
    }
}

impl Drop for Content {
    fn drop(&mut self) {
        // hyper drops a body before its last bytes are flushed, or when the client has left.
        if self.left() == 0
            && let Some(held) = self.lease.take()
        {
            let (lease, leaving) = *held;
            leaving.push(lease);
        }
    }
}

impl Body for Content {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        if self.cut == Some(0) {
            // An error discards unsent data, so let hyper send it first.
            if self.is_sent {
                drop(self.lease.take().map(|held| held.0.completed()));
                return Poll::Ready(Some(Err(Broken)));
            }
            self.is_sent = true;
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        let Some(mut chunk) = self.next() else { return Poll::Ready(None) };
        if let Some(allowed) = self.cut {
            chunk.truncate(number::length(allowed));
            self.cut = Some(allowed.saturating_sub(number::count(chunk.len())));
        }
        Poll::Ready(Some(Ok(Frame::data(chunk))))
    }

    fn is_end_stream(&self) -> bool {
        self.cut != Some(0) && self.left() == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left())
    }
}

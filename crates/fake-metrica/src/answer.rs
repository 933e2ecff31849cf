//! Answers, and their bodies: whole or streamed, and on request cut off in the middle.

use std::io::Write as _;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderValue, Response, StatusCode};
use hyper::body::{Body, Frame, SizeHint};
use serde::Serialize;

use super::part::Part;
use super::quota::InFlight;
use super::refusal::Refusal;

const JSON: &str = "application/json; charset=utf-8";
const CSV: &str = "text/csv; charset=utf-8";
const TSV: &str = "text/tab-separated-values; charset=utf-8";
const HTML: &str = "text/html; charset=utf-8";

/// Status, type and body.
pub struct Answer {
    status: StatusCode,
    content_type: &'static str,
    /// The methods that the path has.
    allow: Option<String>,
    is_packed: bool,
    content: Content,
}

impl Answer {
    pub fn json(value: &impl Serialize, pretty: bool) -> Self {
        let text = if pretty { serde_json::to_vec_pretty(value) } else { serde_json::to_vec(value) };
        Self::ok(JSON, Content::whole(text.unwrap_or_default()))
    }

    pub fn csv(text: String) -> Self {
        Self::ok(CSV, Content::whole(text))
    }

    pub fn part(part: Part) -> Self {
        Self::ok(TSV, Content::of(Source::Part(Box::new(part))))
    }

    /// The refusal in place of JSON as a page of the server behind the application.
    pub fn page(refusal: &Refusal) -> Self {
        Self { status: refusal.status, ..Self::ok(HTML, Content::whole(refusal.page())) }
    }

    /// The refusal cut off in the middle, though its length says that it is whole.
    pub fn half(refusal: &Refusal) -> Self {
        let mut body = refusal.body();
        body.truncate(body.len() / 2);
        Self { status: refusal.status, ..Self::ok(JSON, Content::whole(body)) }
    }

    /// The same, with gzip.
    pub fn packed(mut self) -> Self {
        if let Source::Whole(bytes) = &self.content.source {
            let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
            // Into memory, which takes everything.
            let _ = packer.write_all(bytes);
            self.content = Content::whole(packer.finish().unwrap_or_default());
            self.is_packed = true;
        }
        self
    }

    const fn ok(content_type: &'static str, content: Content) -> Self {
        Self { status: StatusCode::OK, content_type, allow: None, is_packed: false, content }
    }

    pub const fn status(&self) -> StatusCode {
        self.status
    }

    pub fn allowing(self, methods: Option<String>) -> Self {
        Self { allow: methods, ..self }
    }

    /// Keeps the place of this request among the parallel ones until the body is sent.
    pub fn holding(mut self, in_flight: Option<InFlight>) -> Self {
        self.content.in_flight = in_flight;
        self
    }

    /// Breaks the connection after that many bytes of the body.
    pub const fn cut_after(mut self, bytes: Option<u64>) -> Self {
        self.content.cut = bytes;
        self
    }

    /// What HEAD is answered: the same fields and no body.
    pub fn without_body(self) -> Response<Content> {
        let length = self.content.left();
        let mut response = Response::from(self);
        response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(length));
        *response.body_mut() = Content::whole(Bytes::new());
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
        response
    }
}

/// The body.
pub struct Content {
    source: Source,
    /// How many bytes may still go before the connection breaks.
    cut: Option<u64>,
    /// What goes before the cut was given away.
    is_sent: bool,
    in_flight: Option<InFlight>,
}

enum Source {
    Whole(Bytes),
    Part(Box<Part>),
}

/// The connection ends here because the control panel was told so.
#[derive(Debug, thiserror::Error)]
#[error("the fake was told to break this connection")]
pub struct Broken;

impl Content {
    const fn of(source: Source) -> Self {
        Self { source, cut: None, is_sent: false, in_flight: None }
    }

    fn whole(bytes: impl Into<Bytes>) -> Self {
        Self::of(Source::Whole(bytes.into()))
    }

    fn left(&self) -> u64 {
        match &self.source {
            Source::Whole(bytes) => u64::try_from(bytes.len()).unwrap_or(u64::MAX),
            Source::Part(part) => part.left(),
        }
    }

    fn next(&mut self) -> Option<Bytes> {
        match &mut self.source {
            Source::Whole(bytes) => Some(std::mem::take(bytes)).filter(|bytes| !bytes.is_empty()),
            Source::Part(part) => part.next(),
        }
    }
}

impl Body for Content {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        if self.cut == Some(0) {
            // An error throws away what is not sent yet, so let hyper send it first.
            if self.is_sent {
                return Poll::Ready(Some(Err(Broken)));
            }
            self.is_sent = true;
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        let Some(mut chunk) = self.next() else {
            self.in_flight = None;
            return Poll::Ready(None);
        };
        if let Some(allowed) = self.cut {
            chunk.truncate(usize::try_from(allowed).unwrap_or(usize::MAX));
            self.cut = Some(allowed.saturating_sub(u64::try_from(chunk.len()).unwrap_or(u64::MAX)));
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

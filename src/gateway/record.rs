//! Record: every exchange has one response, one access line and one count, however it ends. Stages and the response path only
//! tell the exchange what they found; beside that they count single events (a credential that was dropped, an error of the
//! upstream), and why a request was refused is logged here.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::SystemTime;

use http::header::{ALLOW, CONNECTION, CONTENT_TYPE, EXPECT, RETRY_AFTER, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, Version};
use hyper::body::{Body, Incoming};
use metrica::operation::Verb;
use pin_project_lite::pin_project;
use strict_http::Malformed;
use strict_http::list_field::elements;
use tokio::time::Instant;
use tower::{Layer, Service};

use super::connection::Connection;
use super::exchange::Exchange;
use super::identify::Received;
use super::rest::Rest;
use crate::body::caller_body::{CallerBody, Unread};
use crate::policy::caller::Evidence;
use crate::policy::rejection::{Answer, Reason, Rejection, sentence};
use crate::policy::rules::Breach;
use crate::response::ResponseBody;
use crate::response::fields::{GATE_ERROR, set_reason};
use crate::worker::{Ending, RefusedToken, RequestId, Underway, Worker, new_request_id};

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");

/// The caller left in the middle of its request, and the exchange ended with that: it gets no answer, as the line has none.
#[derive(Debug, thiserror::Error)]
#[error("the caller left in the middle of its request")]
pub struct CallerLeft;

/// Makes [`Record`]s for one connection.
#[derive(Clone)]
pub struct RecordLayer {
    worker: Rc<Worker>,
    connection: Rc<Connection>,
}

impl RecordLayer {
    /// For the requests of `connection`, served by `worker`.
    pub const fn new(worker: Rc<Worker>, connection: Rc<Connection>) -> Self {
        Self { worker, connection }
    }
}

impl<S> Layer<S> for RecordLayer {
    type Service = Record<S>;

    fn layer(&self, inner: S) -> Record<S> {
        Record { worker: self.worker.clone(), connection: self.connection.clone(), inner }
    }
}

/// See the module.
#[derive(Clone)]
pub struct Record<S> {
    worker: Rc<Worker>,
    connection: Rc<Connection>,
    inner: S,
}

impl<S> Service<Request<Incoming>> for Record<S>
where
    S: Service<Received, Response = Response<ResponseBody>, Error = Rejection>,
{
    type Response = Response<ResponseBody>;
    type Error = CallerLeft;
    type Future = Recorded<S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), CallerLeft>> {
        // The stages have no state and Forward waits in its future, so the stack is always ready.
        self.inner.poll_ready(context).map(|_| Ok(()))
    }

    fn call(&mut self, request: Request<Incoming>) -> Self::Future {
        let (head, body) = request.into_parts();
        let verb = Verb::of(&head.method);
        let id = request_id(&head.headers);
        let exchange = Rc::new(Exchange::new(self.worker.clone(), self.connection.clone(), verb, id));
        let underway: Rc<dyn Underway> = exchange.clone();
        exchange.place.set(Some(self.worker.under_way.enter(Rc::downgrade(&underway))));
        if body.is_end_stream() {
            exchange.request_completed();
        }
        let version = head.version;
        let keeps = version == Version::HTTP_11 && !elements(&head.headers, &CONNECTION).any(is_close);
        // Rule 3 of `rest`.
        let left = !body.is_end_stream() && (version == Version::HTTP_2 || !head.headers.contains_key(EXPECT));
        let unread = || -> Rc<dyn Unread> { self.connection.clone() };
        let body = CallerBody::new(body, left.then(unread));
        let (snapshot, encoded) = (self.worker.snapshot(), self.connection.next_request());
        let received = Received { exchange: exchange.clone(), snapshot, head, encoded, body };
        Recorded {
            inner: self.inner.call(received),
            exchange: Unanswered { exchange, is_answered: false },
            version,
            keeps,
            rest: None,
        }
    }
}

fn is_close(option: &[u8]) -> bool {
    option.eq_ignore_ascii_case(b"close")
}

/// Says of an answer of HTTP/1.1 what becomes of its connection: a caller that knows does not send its next request into one
/// that is about to close (RFC 9112, section 9.3 and 9.6). `keeps`: the caller wants to keep it.
fn say_what_becomes_of_the_connection(fields: &mut HeaderMap, keeps: bool, worker: &Worker) {
    if worker.ending() >= Ending::Leaving {
        fields.insert(CONNECTION, HeaderValue::from_static("close"));
    } else if keeps
        && !fields.contains_key(CONNECTION)
        && let Some(keep_alive) = &worker.snapshot().keep_alive
    {
        fields.insert(CONNECTION, HeaderValue::from_static("keep-alive"));
        fields.insert(KEEP_ALIVE, keep_alive.clone());
    }
}

pin_project! {
    /// An exchange on its way to an answer.
    pub struct Recorded<F> {
        #[pin]
        inner: F,
        exchange: Unanswered,
        version: Version,
        // The caller wants to keep the connection.
        keeps: bool,
        // Boxed: few requests are refused with a body, and all would have room for it.
        rest: Option<Box<Rest>>,
    }
}

/// An exchange that is over when this is dropped: others may hold it for longer.
struct Unanswered {
    exchange: Rc<Exchange>,
    /// From then on the body of its response says when it is over.
    is_answered: bool,
}

impl Drop for Unanswered {
    fn drop(&mut self) {
        if !self.is_answered {
            self.exchange.finish(false);
        }
    }
}

impl<F> Future for Recorded<F>
where
    F: Future<Output = Result<Response<ResponseBody>, Rejection>>,
{
    type Output = Result<Response<ResponseBody>, CallerLeft>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let exchange = &this.exchange.exchange;
        let ended = match (exchange.connection.expired(), this.rest.take()) {
            (Some(reason), _) => Err(reason.into()),
            (None, Some(rest)) => ready!(poll_rest(rest, this.rest, exchange, context)),
            (None, None) => match ready!(this.inner.poll(context)) {
                Err(rejection) if *this.version != Version::HTTP_2 => match exchange.connection.take_unread() {
                    Some(body) => {
                        ready!(poll_rest(Box::new(Rest::new(rejection, body)), this.rest, exchange, context))
                    }
                    None => Err(rejection),
                },
                ended => ended,
            },
        };
        this.exchange.is_answered = true;
        let exchange = &this.exchange.exchange;
        if ended.is_err() && exchange.is_finished() {
            return Poll::Ready(Err(CallerLeft));
        }
        let mut response = ended.unwrap_or_else(|rejection| answer(rejection, exchange));
        // There are no chunks in HTTP/1.0 (RFC 9112, section 6.3, rule 8).
        let without_end = *this.version == Version::HTTP_10 && response.body().size_hint().exact().is_none();
        exchange.connection.answer_begins(without_end);
        if *this.version != Version::HTTP_2 {
            say_what_becomes_of_the_connection(response.headers_mut(), *this.keeps, exchange.worker());
        }
        response.headers_mut().insert(REQUEST_ID, exchange.request_id.value().clone());
        // no answer is what a browser guesses it to be.
        response.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        Poll::Ready(Ok(response))
    }
}

/// Goes on with the rest of a refused request, and keeps it in `place` until it has ended.
fn poll_rest<T>(
    mut rest: Box<Rest>,
    place: &mut Option<Box<Rest>>,
    exchange: &Exchange,
    context: &mut Context<'_>,
) -> Poll<Result<T, Rejection>> {
    if rest.poll_end(exchange, context).is_ready() {
        return Poll::Ready(Err(rest.into_rejection()));
    }
    *place = Some(rest);
    Poll::Pending
}

/// As many fields as an answer of the gate's own has, at most.
const FIELDS: usize = 12;

/// The gate's own answer. What it says is in the table of [`crate::policy::rejection`]; the cause goes to the log only.
fn answer(rejection: Rejection, exchange: &Rc<Exchange>) -> Response<ResponseBody> {
    let Rejection { reason, lacking, cause } = rejection;
    let malformed = cause.as_ref().and_then(|cause| cause.downcast_ref::<Malformed>()).copied();
    let breach = cause.as_ref().and_then(|cause| cause.downcast_ref::<Breach>());
    let token = refused_token(reason, exchange);
    let told = breach.map(|breach| breach.message()).or_else(|| lacking.map(sentence));
    let told = told.or_else(|| token.map(|token| format!("{} {}", reason.answer().message, since_and_until(token))));
    if let Some(cause) = cause {
        log_cause(exchange, reason, malformed, &format!("{cause:#}"));
    }
    exchange.rejected(reason, lacking);
    let answer = malformed.map_or(reason.answer(), of_malformed);
    let message = told.as_deref().unwrap_or(answer.message);
    let hint = told.as_deref().map(HeaderValue::from_str).transpose();
    debug_assert!(hint.is_ok(), "what a caller is told makes a field: {told:?}");
    let hint = hint.ok().flatten().unwrap_or(HeaderValue::from_static(answer.message));
    let mut response = Response::new(ResponseBody::own(answer.body_with(message), exchange.clone()));
    *response.status_mut() = answer.status;
    *response.headers_mut() = HeaderMap::with_capacity(FIELDS);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json; charset=utf-8"));
    headers.insert(GATE_ERROR, reason.field());
    set_reason(headers, reason.as_str(), hint);
    let next_look = token.map(|token| token.seconds_to_next_look);
    if let Some(seconds) = next_look.or(answer.retry_after.map(u64::from)) {
        headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    if !exchange.request_is_complete() {
        // Rule 2 of `rest`.
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    if reason == Reason::MethodNotAllowed {
        headers.insert(ALLOW, HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE"));
    }
    response
}

/// The one line of a refusal that says why.
fn log_cause(exchange: &Exchange, reason: Reason, malformed: Option<Malformed>, cause: &str) {
    let Evidence { listener, peer } = exchange.connection.evidence;
    tracing::warn!(
        reason = reason.as_str(),
        kind = malformed.map(Malformed::word),
        request_id = exchange.request_id.as_str(),
        listener = listener.as_str(),
        %peer,
        cause,
        "request failed"
    );
}

/// The field that carries the id of a request, in both directions.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The id that a request brought, or a new one.
fn request_id(headers: &HeaderMap) -> RequestId {
    headers.get(&REQUEST_ID).and_then(RequestId::brought).unwrap_or_else(new_request_id)
}

/// The answer of the reason, with the message of the kind.
fn of_malformed(kind: Malformed) -> Answer {
    Answer { message: kind.message(), ..Reason::from(kind).answer() }
}

/// Says and counts a request that could not be read as HTTP; the bytes that answer it.
pub fn refuse_unparsed(worker: &Rc<Worker>, connection: &Rc<Connection>, kind: Malformed) -> Vec<u8> {
    let exchange = Exchange::new(worker.clone(), connection.clone(), None, new_request_id());
    let snapshot = worker.snapshot();
    let callers = &snapshot.generation.policy.callers;
    let caller = callers.identify(connection.evidence).and_then(|position| callers.get(position));
    exchange.begin(caller.map(|caller| caller.id));
    let (reason, answer) = (Reason::from(kind), of_malformed(kind));
    log_cause(&exchange, reason, Some(kind), &kind.to_string());
    exchange.rejected(reason, None);
    exchange.add_response_bytes(answer.body().len());
    exchange.finish(true);
    as_bytes(reason, answer, &exchange.request_id)
}

/// The token of a request that is refused on account of it.
fn refused_token(reason: Reason, exchange: &Exchange) -> Option<RefusedToken> {
    let token = exchange.token().filter(|_| matches!(reason, Reason::TokenParked | Reason::Outage))?;
    exchange.worker().snapshot().generation.refused(token, Instant::now())
}

/// A sentence for the caller of such a request.
fn since_and_until(RefusedToken { duration, seconds_to_next_look }: RefusedToken) -> String {
    let since = SystemTime::now().checked_sub(duration).map(humantime::format_rfc3339_seconds);
    let since = since.map_or_else(String::new, |since| format!("since {since}, "));
    format!("This has been so {since}and the gate asks Metrica again in {seconds_to_next_look} s.")
}

/// An answer of the gate as bytes, for where there is no HTTP to write it. The connection is closed after it.
#[must_use]
pub fn whole_answer(reason: Reason, request_id: &RequestId) -> Vec<u8> {
    as_bytes(reason, reason.answer(), request_id)
}

fn as_bytes(reason: Reason, answer: Answer, request_id: &RequestId) -> Vec<u8> {
    let body = answer.body();
    let reason = reason.as_str();
    let retry = answer.retry_after.map_or_else(String::new, |seconds| format!("retry-after: {seconds}\r\n"));
    let head = format!(
        "HTTP/1.1 {} {}\r\ncontent-type: application/json; charset=utf-8\r\nx-gate-error: {reason}\r\nx-gate-reason: {reason}\r\nx-gate-hint: {}\r\nx-request-id: {}\r\n\
         x-content-type-options: nosniff\r\ndate: {}\r\n{retry}content-length: {}\r\nconnection: close\r\n\r\n",
        answer.status.as_u16(),
        answer.status.canonical_reason().unwrap_or_default(),
        answer.message,
        request_id.as_str(),
        httpdate::fmt_http_date(SystemTime::now()),
        body.len(),
    );
    [head.as_bytes(), &body].concat()
}

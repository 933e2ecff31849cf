//! Record: every exchange has one response, one access-log line and one count, however it ends. Stages and the response
//! path report their findings to the exchange. They also count single events (a dropped credential, an upstream error).
//! The cause of a refusal is logged here.

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
use super::drain::Drain;
use super::exchange::Exchange;
use super::identify::Received;
use crate::body::caller_body::{CallerBody, Unread};
use crate::policy::caller::{Evidence, NoCaller, Proofs};
use crate::policy::choice::SeveralAccounts;
use crate::policy::rejection::{Reason, Rejection, RejectionResponse, sentence};
use crate::policy::rules::Breach;
use crate::policy::service_account::TokenFault;
use crate::response::ResponseBody;
use crate::response::fields::{GATE_ERROR, set_reason};
use crate::telemetry::TraceId;
use crate::worker::{Ending, RefusedToken, RequestId, Underway, Worker, new_request_id};

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");

/// The caller left during its request, which ended the exchange: no response is sent, and the log line has no status.
#[derive(Debug, thiserror::Error)]
#[error("the caller disconnected before the request was complete")]
pub struct CallerLeft;

/// A layer that makes the [`Record`]s of one connection.
#[derive(Clone)]
pub struct RecordLayer {
    worker: Rc<Worker>,
    connection: Rc<Connection>,
}

impl RecordLayer {
    /// Creates the layer for requests of `connection`, which `worker` serves.
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

/// The outermost service: it logs and counts each exchange.
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
        let id = (request_id(&head.headers), TraceId::of(&head.headers));
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

/// Announces in an HTTP/1.1 response whether the connection persists, so that a caller does not send its next request
/// into a closing connection (RFC 9112, sections 9.3 and 9.6). `keeps`: the caller asked to keep it open.
fn set_connection_field(fields: &mut HeaderMap, keeps: bool, worker: &Worker) {
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
    /// The future of an exchange that has no response yet.
    pub struct Recorded<F> {
        #[pin]
        inner: F,
        exchange: Unanswered,
        version: Version,
        // The caller asked to keep the connection open.
        keeps: bool,
        // Boxed to keep the future small: few requests are refused with a body.
        rest: Option<Box<Drain>>,
    }
}

/// Finishes the exchange on drop if it has no response, even if others hold the exchange for longer.
struct Unanswered {
    exchange: Rc<Exchange>,
    /// Once set, the body of the response finishes the exchange.
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
                        ready!(poll_rest(Box::new(Drain::new(rejection, body)), this.rest, exchange, context))
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
        // HTTP/1.0 has no chunks (RFC 9112, section 6.3, rule 8).
        let without_end = *this.version == Version::HTTP_10 && response.body().size_hint().exact().is_none();
        exchange.connection.answer_begins(without_end);
        if *this.version != Version::HTTP_2 {
            set_connection_field(response.headers_mut(), *this.keeps, exchange.worker());
        }
        response.headers_mut().insert(REQUEST_ID, exchange.request_id.value().clone());
        // browsers must not guess the type of any response.
        response.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        Poll::Ready(Ok(response))
    }
}

/// Reads the rest of a refused request, and keeps it in `place` until that has ended.
fn poll_rest<T>(
    mut rest: Box<Drain>,
    place: &mut Option<Box<Drain>>,
    exchange: &Exchange,
    context: &mut Context<'_>,
) -> Poll<Result<T, Rejection>> {
    if rest.poll_end(exchange, context).is_ready() {
        return Poll::Ready(Err(rest.into_rejection()));
    }
    *place = Some(rest);
    Poll::Pending
}

/// The maximum number of fields in a response of the gate's own.
const FIELDS: usize = 12;

/// Builds the gate's own response from the table of [`crate::policy::rejection`]; the cause goes only to the log.
fn answer(rejection: Rejection, exchange: &Rc<Exchange>) -> Response<ResponseBody> {
    let Rejection { reason, lacking, quota, cause } = rejection;
    let malformed = cause.as_ref().and_then(|cause| cause.downcast_ref::<Malformed>()).copied();
    let breach = cause.as_ref().and_then(|cause| cause.downcast_ref::<Breach>());
    let token = refused_token(reason, exchange);
    let accounts = cause.as_ref().and_then(|cause| cause.downcast_ref::<SeveralAccounts>());
    let told = breach.map(|breach| breach.message()).or_else(|| lacking.map(sentence));
    let fault = cause.as_ref().and_then(|cause| cause.downcast_ref::<TokenFault>());
    let told = told.or_else(|| fault.filter(|_| reason == Reason::ServiceAccountInvalid).map(sentence));
    let told = told.or_else(|| accounts.map(sentence)).or_else(|| malformed.and_then(position_told));
    let told = told.or_else(|| quota.map(|quota| format!("{} The limit is {}.", reason.answer().message, quota.limit)));
    let told = told.or_else(|| token.map(|token| format!("{} {}", reason.answer().message, since_and_until(token))));
    if let Some(NoCaller::Failed { caller: _, condition }) = cause.as_ref().and_then(|cause| cause.downcast_ref()) {
        exchange.worker().count(|shard| shard.condition_failed(exchange.connection.evidence.listener, *condition));
    }
    if let Some(cause) = cause {
        log_cause(exchange, reason, malformed, &format!("{cause:#}"));
    }
    exchange.rejected(reason, lacking);
    let mut answer = malformed.map_or(reason.answer(), of_malformed);
    if let Some(quota) = quota {
        answer.error_type = quota.error_type;
    }
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
    if let Some(seconds) = next_look.or(quota.map(|quota| quota.seconds)).or(answer.retry_after.map(u64::from)) {
        headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    if !exchange.request_is_complete() || exchange.connection.transport.is_ending() {
        // Rule 2 of `rest`.
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    if reason == Reason::MethodNotAllowed {
        headers.insert(ALLOW, HeaderValue::from_static(METHODS));
    }
    response
}

/// Logs the cause of a refusal, in one line.
fn log_cause(exchange: &Exchange, reason: Reason, malformed: Option<Malformed>, cause: &str) {
    let Evidence { listener, peer, names: _ } = &exchange.connection.evidence;
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

/// The header field that carries the request id, in both directions.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Returns the id in the request's headers if it is valid, otherwise a new one.
fn request_id(headers: &HeaderMap) -> RequestId {
    headers.get(&REQUEST_ID).and_then(RequestId::brought).unwrap_or_else(new_request_id)
}

/// Returns the response of the reason, with the message for this kind of malformed input.
fn of_malformed(kind: Malformed) -> RejectionResponse {
    RejectionResponse { message: kind.message(), ..Reason::from(kind).answer() }
}

/// Returns the message for a target that breaks a rule, with the position: it tells which parameter is wrong.
fn position_told(kind: Malformed) -> Option<String> {
    if let Malformed::Target(broken) = kind { Some(broken.message()) } else { None }
}

/// Logs and counts a request that could not be parsed as HTTP; returns the bytes of the response.
pub fn refuse_unparsed(worker: &Rc<Worker>, connection: &Rc<Connection>, kind: Malformed) -> Vec<u8> {
    refuse_early(worker, connection, kind.into())
}

/// Logs and counts a connection that is refused before a request could be read; returns the bytes of the response.
pub fn refuse_early(worker: &Rc<Worker>, connection: &Rc<Connection>, rejection: Rejection) -> Vec<u8> {
    let Rejection { reason, cause, .. } = rejection;
    let kind = cause.as_ref().and_then(|cause| cause.downcast_ref::<Malformed>()).copied();
    let exchange = Exchange::new(worker.clone(), connection.clone(), None, (new_request_id(), None));
    let snapshot = worker.snapshot();
    let callers = &snapshot.generation.policy.callers;
    let proofs = Proofs { key: connection.transport.key().key(), ..Proofs::NONE };
    let caller = callers.identify(&connection.evidence, &proofs).ok().and_then(|position| callers.get(position));
    // An invalid key is nobody's, also where the address is somebody's.
    let caller = caller.filter(|_| !matches!(reason, Reason::KeyUnknown | Reason::KeysDiffer));
    exchange.begin(caller.map(|caller| caller.id));
    let answer = kind.map_or(reason.answer(), of_malformed);
    let cause = cause.map_or_else(|| answer.message.to_owned(), |cause| format!("{cause:#}"));
    log_cause(&exchange, reason, kind, &cause);
    exchange.rejected(reason, None);
    let told = kind.and_then(position_told);
    let message = told.as_deref().unwrap_or(answer.message);
    exchange.add_response_bytes(answer.body_with(message).len());
    exchange.finish(true);
    as_bytes(reason, answer, message, &exchange.request_id)
}

/// Returns the state of the token if the request is refused because of it.
fn refused_token(reason: Reason, exchange: &Exchange) -> Option<RefusedToken> {
    let token = exchange.token().filter(|_| matches!(reason, Reason::TokenSuspended | Reason::Outage))?;
    exchange.worker().snapshot().generation.refused(token, Instant::now())
}

/// Describes the suspension to the caller: its start, and the time to the next probe.
fn since_and_until(RefusedToken { duration, seconds_to_next_look }: RefusedToken) -> String {
    let since = SystemTime::now().checked_sub(duration).map(humantime::format_rfc3339_seconds);
    let since = since.map_or_else(String::new, |since| format!("since {since}, "));
    format!("It has been suspended {since}and the gate probes again in {seconds_to_next_look} s.")
}

/// The methods that the API has, for `Allow` (RFC 9110, section 15.5.6).
const METHODS: &str = "GET, HEAD, POST, PUT, PATCH, DELETE";

/// Returns a complete response of the gate's own as bytes, for use where hyper writes none. The connection must be closed
/// after it.
#[must_use]
pub fn whole_answer(reason: Reason, request_id: &RequestId) -> Vec<u8> {
    let answer = reason.answer();
    as_bytes(reason, answer, answer.message, request_id)
}

fn as_bytes(reason: Reason, answer: RejectionResponse, message: &str, request_id: &RequestId) -> Vec<u8> {
    let body = answer.body_with(message);
    let retry = answer.retry_after.map_or_else(String::new, |seconds| format!("retry-after: {seconds}\r\n"));
    let is_method = reason == Reason::MethodNotAllowed;
    let allow = if is_method { format!("allow: {METHODS}\r\n") } else { String::new() };
    let reason = reason.as_str();
    let head = format!(
        "HTTP/1.1 {} {}\r\ncontent-type: application/json; charset=utf-8\r\nx-gate-error: {reason}\r\nx-gate-reason: {reason}\r\nx-gate-hint: {}\r\nx-request-id: {}\r\n\
         x-content-type-options: nosniff\r\ndate: {}\r\n{retry}{allow}content-length: {}\r\nconnection: close\r\n\r\n",
        answer.status.as_u16(),
        answer.status.canonical_reason().unwrap_or_default(),
        message,
        request_id.as_str(),
        httpdate::fmt_http_date(SystemTime::now()),
        body.len(),
    );
    [head.as_bytes(), &body].concat()
}

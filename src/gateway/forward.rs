//! Forward: send the request, stream the answer back.
//!
//! 1. A request is sent again only on account of a connection that was used before, and only if that failed before the
//!    request was written; or if it has no body and the upstream says on HTTP/2 that it did not process it (RFC 9113,
//!    section 8.7); or if its operation changes nothing (`acts`) and it has no body, and the upstream closed the connection
//!    before a byte of an answer (RFC 9112, section 9.3.1), on HTTP/2 before its head. So nothing that acts is ever
//!    processed twice.
//! 2. It is sent again on a new connection, once.
//! 3. A 3xx is passed on where it leads back through the gate, and never followed ([`super::redirect`]). An answer that
//!    could be read in two ways is none, nor is a 101 that nobody asked for ([`framing`]).
//! 4. When the caller goes away, this future is dropped, and with it the connection that carries the request.
//! 5. A request that has waited is decided again before it leaves ([`Permit::renew`]).
//! 6. Interim responses go to callers of HTTP/1.1 (RFC 9110, section 15.2).
//! 7. The token that went out does not come back ([`super::reflection`], [`super::streaming`]). What is packed so that
//!    it could not be seen is refused (`upstream_encoding`, 502).

use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;

use http::header::{ACCEPT_ENCODING, CONNECTION, CONTENT_TYPE};
use http::response::Parts;
use http::{HeaderValue, Response, Version};
use http_body::Body;
use strict_http::length;
use tokio::time::Instant;

use super::body::{BodyError, RequestBody, ResponseBody};
use super::coding::Coding;
use super::connection::{Bound, Stalled};
use super::exchange::Exchange;
use super::filtered::{self, Filtered};
use super::headers::clean_response;
use super::inject::{Outbound, Permit};
use super::owed;
use super::record::REQUEST_ID;
use super::redirect;
use super::reflection::Secret;
use super::refusal::Refusal;
use super::streaming::{Carrier, Heading, Streaming};
use super::why::{counter_that_was_changed, hear_refusal};
use crate::metrics::{Stall, UpstreamError};
use crate::policy::rejection::{Reason, Rejection};
use crate::upstream::broken::{Broken, Unanswered};
use crate::upstream::dial::DialError;
use crate::upstream::received::Received;
use crate::upstream::{Lease, Outgoing, Upstream, Watchdog};

/// What a request's own connection could not do.
enum Failed {
    /// No head of an answer in time.
    Timeout,
    /// The connection failed.
    Sending(Box<Unanswered<RequestBody>>),
}

/// See the module.
pub async fn forward(outbound: Outbound) -> Result<Response<ResponseBody>, Rejection> {
    let (mut request, mut permit) = outbound.into_parts();
    let mut lease = ready_to_leave(&mut permit, &mut request, false).await?;
    let mut is_repeat = false;
    let (answer, watchdog) = loop {
        let exchange = &permit.exchange;
        if let Some(owed) = permit.owed.as_ref().filter(|owed| owed.list.is_some()) {
            debug_assert!(owed.enforce, "what is not enforced filters nothing");
            request.fields.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        }
        if lease.is_http2() {
            adapt_to_http2(&mut request);
        }
        // HTTP/2 keeps what it was given, so a copy is made where rule 1 could need it.
        let copied = !is_repeat && lease.is_http2() && lease.is_reused() && request.body.is_end_stream();
        let copy = copied.then(|| request.with_body(RequestBody::empty(exchange.clone())));
        exchange.sending();
        let pool = permit.pool();
        let upstream = pool.upstream();
        let mut watchdog = exchange.worker().watchdogs.take(upstream.settings.timeouts.response_headers);
        match send(&mut lease, request, &permit, &mut watchdog, upstream).await {
            Ok(answer) => break (answer, watchdog),
            Err(Failed::Timeout) => {
                exchange.upstream_error(UpstreamError::ResponseTimeout);
                return Err(Reason::UpstreamTimeout.into());
            }
            Err(Failed::Sending(failed)) => {
                let Unanswered { error, request: same, written } = *failed;
                if error.is_of_nothing_processed() {
                    lease.retire();
                }
                let again = !written || is_lost(&lease, exchange, &error);
                match same.or(copy).filter(|_| again) {
                    Some(repeat) if lease.is_reused() && !is_repeat => request = repeat,
                    Some(_) if !written => return Err(closed_before(exchange, error)),
                    Some(_) | None => return Err(broken(exchange, error)),
                }
                is_repeat = true;
                drop(lease);
                lease = ready_to_leave(&mut permit, &mut request, true).await?;
            }
        }
    };
    respond(answer, permit, lease, watchdog).await
}

/// A connection for the request, behind everything that it waits for: what it owes is done, the connection is ready, and the
/// latest decision lets it go with the token that it has.
async fn ready_to_leave(
    permit: &mut Permit,
    request: &mut Outgoing<RequestBody>,
    fresh: bool,
) -> Result<Lease<RequestBody>, Rejection> {
    loop {
        if let Some(owed) = &permit.owed {
            // Boxed: few requests owe anything, and all would have room for it.
            Box::pin(owed::settle(owed, request, &permit.exchange)).await?;
            if permit.renew(request)? {
                continue;
            }
        } else {
            // An earlier decision may have wanted that.
            request.body.watch_no_more();
        }
        let lease = ready_lease(permit, request, fresh).await?;
        if !permit.renew(request)? {
            return Ok(lease);
        }
    }
}

/// A connection that can take the request. One that closed while it was idle is passed over.
async fn ready_lease(
    permit: &Permit,
    request: &Outgoing<RequestBody>,
    fresh: bool,
) -> Result<Lease<RequestBody>, Rejection> {
    let (exchange, pool, carried) = (&permit.exchange, permit.pool(), permit.sender().carried());
    loop {
        let mut lease = pool.lease(carried, fresh).await.map_err(|error| not_sent(exchange, error))?;
        if lease.is_reused() && !is_repeatable(exchange, request) {
            // Lets the runtime see whether the upstream has just closed the connection: this request has one try.
            tokio::task::yield_now().await;
        }
        if lease.ready().await {
            return Ok(lease);
        }
        if !lease.is_reused() {
            exchange.upstream_error(UpstreamError::Closed);
            return Err(Reason::UpstreamUnreachable.into());
        }
    }
}

/// Whether the request may be sent twice at all: it changes nothing, and has no body.
fn is_repeatable(exchange: &Exchange, request: &Outgoing<RequestBody>) -> bool {
    !exchange.acts() && request.body.is_end_stream()
}

/// Rule 1, after it failed: whether a request without a body may be sent again.
fn is_lost(lease: &Lease<RequestBody>, exchange: &Exchange, error: &Broken) -> bool {
    if lease.is_http2() {
        error.is_of_nothing_processed() || !exchange.acts() && error.is_of_a_shared_connection()
    } else {
        !exchange.acts() && lease.nothing_was_read()
    }
}

/// Puts what of a request is different on HTTP/2 into its form.
fn adapt_to_http2(request: &mut Outgoing<RequestBody>) {
    // No id comes twice: indexed, each would push another field out of the table that headers are packed with.
    if let Some(id) = request.fields.get_mut(&REQUEST_ID) {
        id.set_sensitive(true);
    }
    request.body.release();
}

async fn send(
    lease: &mut Lease<RequestBody>,
    request: Outgoing<RequestBody>,
    permit: &Permit,
    watchdog: &mut Watchdog,
    upstream: &Upstream,
) -> Result<Response<Received>, Failed> {
    let exchange = &permit.exchange;
    let mut answer = pin!(lease.send(request, &permit.wishes));
    poll_fn(|context| {
        if let Poll::Ready(answer) = answer.as_mut().poll(context) {
            return Poll::Ready(answer.map_err(|failed| Failed::Sending(Box::new(failed))));
        }
        watchdog.poll_passed(context, deadline(exchange, upstream)).map(|()| Err(Failed::Timeout))
    })
    .await
}

/// When the upstream has had its time: for the head of its answer, or to take the next piece of the request.
fn deadline(exchange: &Exchange, upstream: &Upstream) -> Instant {
    let timeouts = &upstream.settings.timeouts;
    if exchange.request_is_complete() {
        exchange.last_progress() + timeouts.response_headers
    } else if exchange.connection.body_is_awaited() {
        // The caller's turn, for which the server has its own clock.
        Instant::now() + timeouts.body_idle
    } else {
        exchange.last_progress() + timeouts.body_idle
    }
}

/// There is no connection; nothing was sent.
fn not_sent(exchange: &Exchange, error: DialError) -> Rejection {
    exchange.upstream_error(error.kind());
    let reason = match error {
        DialError::Tls { .. } => Reason::UpstreamTls,
        DialError::Saturated(_) => Reason::Overloaded,
        DialError::Resolve { .. } | DialError::Connect { .. } | DialError::Timeout(_) => Reason::UpstreamUnreachable,
    };
    Rejection::because(reason, error)
}

/// A new connection was closed before anything was written to it.
fn closed_before(exchange: &Exchange, error: Broken) -> Rejection {
    exchange.upstream_error(UpstreamError::Closed);
    Rejection::because(Reason::UpstreamUnreachable, error)
}

/// The connection failed with the request on it.
fn broken(exchange: &Exchange, error: Broken) -> Rejection {
    if let Some(failed) = error.of_the_request_body::<BodyError>() {
        let rejection = of_the_caller(exchange, failed);
        return rejection.unwrap_or_else(|| Rejection::because(Reason::MalformedRequest, error));
    }
    let (kind, reason) = if error.is_of_the_protocol() {
        (UpstreamError::Protocol, Reason::UpstreamProtocol)
    } else if exchange.connection.lets_others_wait() {
        exchange.connection.note_stall(Stalled { waited_for: Stall::Request, bound: Bound::Upstream });
        return Rejection::because(Reason::BodyTooSlow, error);
    } else {
        (UpstreamError::Closed, Reason::UpstreamClosed)
    };
    exchange.upstream_error(kind);
    Rejection::because(reason, error)
}

/// The request's own body failed before anything was sent.
pub fn not_read(exchange: &Exchange, failed: BodyError) -> Rejection {
    let rejection = of_the_caller(exchange, &failed);
    rejection.unwrap_or_else(|| Rejection::because(Reason::MalformedRequest, failed))
}

/// The request's own body failed: the caller sent chunks that are none, or went away. `None` where that is to be said.
fn of_the_caller(exchange: &Exchange, failed: &BodyError) -> Option<Rejection> {
    let left = || {
        failed.is_of_a_caller_that_left().then(|| {
            exchange.finish(false);
            Reason::MalformedRequest.into()
        })
    };
    let of_rules = || {
        let BodyError::Breach(breach) = failed else { return None };
        Some(Rejection::because(breach.reason(), *breach))
    };
    exchange.connection.body_fault().map(Rejection::from).or_else(left).or_else(of_rules)
}

async fn respond(
    answer: Response<Received>,
    permit: Permit,
    lease: Lease<RequestBody>,
    watchdog: Watchdog,
) -> Result<Response<ResponseBody>, Rejection> {
    let pool = permit.pool();
    let upstream = pool.upstream();
    let Permit { exchange, owed, wishes, .. } = permit;
    let only = owed.and_then(|owed| owed.list);
    let (mut head, incoming) = answer.into_parts();
    let status = head.status.as_u16();
    let now = exchange.answered(status);
    if exchange.connection.interim.is_waiting() {
        // The server writes what came before the answer, then it gets the answer.
        tokio::task::yield_now().await;
    }
    if wishes.answered() {
        exchange.upstream_error(UpstreamError::Reflected);
    }
    let secret = wishes.secret().clone();
    let has_body = !incoming.is_end_stream();
    let coding = Coding::of(&head.headers);
    let reusable = has_body || !length::announces_a_body(&head.headers);
    take_head(&mut head, has_body.then_some(coding), &secret, upstream, &exchange).map_err(|(kind, reason)| {
        exchange.upstream_error(kind);
        reason
    })?;
    let only = only.filter(|_| head.status.is_success());
    if only.is_some() {
        filtered::take_head(&mut head.headers, has_body, coding).map_err(|(kind, rejection)| {
            exchange.upstream_error(kind);
            rejection
        })?;
    }
    let refusal = matches!(status, 401 | 403 | 420 | 429).then(|| Refusal::new(coding));
    let shown = counter_that_was_changed(&head, coding, &exchange);
    let heading = Heading { at: now, coding, refusal, shown, reusable };
    let idle_limit = upstream.settings.timeouts.body_idle;
    let carrier = Carrier { lease, watchdog, idle_limit, asked: wishes.into_asked() };
    let mut streaming = Streaming::new(incoming, heading, carrier, secret, exchange.clone());
    if status >= 400 {
        hear_refusal(&mut streaming, &mut head, &exchange).await?;
    } else {
        // What is in between and answers in Metrica's place, a captive portal, has a page for people.
        let kind = head.headers.get(CONTENT_TYPE).and_then(|kind| kind.as_bytes().get(..b"text/html".len()));
        let is_page = kind.is_some_and(|kind| kind.eq_ignore_ascii_case(b"text/html"));
        if head.status.is_success() && !is_page {
            exchange.succeeded(now);
        }
        poll_fn(|context| streaming.poll_beginning(context)).await.map_err(not_passed_on)?;
    }
    let body = match only.filter(|_| has_body) {
        Some(counters) => Box::pin(filtered_body(streaming, counters, exchange)).await?,
        None => ResponseBody::upstream(streaming, exchange),
    };
    Ok(Response::from_parts(head, body))
}

/// A list of counters of which none but these go on; its beginning is filtered.
async fn filtered_body(
    streaming: Streaming,
    counters: Arc<[u64]>,
    exchange: Rc<Exchange>,
) -> Result<ResponseBody, Rejection> {
    let mut filtered = Filtered::new(streaming, counters);
    filtered.read_ahead().await.map_err(|error| {
        // What failed below it was counted there.
        if matches!(error, BodyError::NotAList(_)) {
            exchange.upstream_error(UpstreamError::Protocol);
        }
        not_passed_on(error)
    })?;
    Ok(ResponseBody::filtered(filtered, exchange))
}

/// Turns the upstream's head into the one that the caller gets; `coding` is that of the body, if it has one.
fn take_head(
    head: &mut Parts,
    coding: Option<Coding>,
    secret: &Secret,
    upstream: &Upstream,
    exchange: &Exchange,
) -> Result<(), (UpstreamError, Reason)> {
    if !length::is_sound(head.status, &head.headers) {
        return Err((UpstreamError::Protocol, Reason::UpstreamProtocol));
    }
    if coding == Some(Coding::Other) {
        return Err((UpstreamError::Encoding, Reason::UpstreamEncoding));
    }
    clean_response(&mut head.headers);
    if secret.take_from(&mut head.headers) {
        exchange.upstream_error(UpstreamError::Reflected);
    }
    let limit = || exchange.worker().snapshot().generation.limits.target_bytes;
    if !redirect::keep_here(head.status, &mut head.headers, &upstream.settings.authority, limit) {
        return Err((UpstreamError::Redirect, Reason::UpstreamRedirect));
    }
    if !exchange.request_is_complete() {
        // The rest of the request may never come, so the caller's connection ends with this answer (RFC 9112, 9.6).
        head.headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    // The phrase of the status line is among them: it is the upstream's text.
    head.extensions.clear();
    head.version = Version::HTTP_11;
    Ok(())
}

/// A body whose beginning could not be read, before anything of the answer went out.
pub fn not_passed_on(error: BodyError) -> Rejection {
    let reason = match &error {
        BodyError::Upstream(broken) if broken.is_of_the_protocol() => Reason::UpstreamProtocol,
        BodyError::Stalled => Reason::UpstreamTimeout,
        BodyError::Reflected => Reason::UpstreamReflection,
        BodyError::Unreadable => Reason::UpstreamEncoding,
        BodyError::NotAList(_) => Reason::UpstreamProtocol,
        BodyError::Caller(_)
        | BodyError::Upstream(_)
        | BodyError::Reset
        | BodyError::NotAskedFor
        | BodyError::Breach(_)
        | BodyError::NoMemory => Reason::UpstreamClosed,
    };
    Rejection::because(reason, error)
}

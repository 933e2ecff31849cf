//! Forward: send the request, and hand its response to the response path ([`crate::response`]).
//!
//! 1. A request is sent again only on account of a connection that was used before, and only if that failed before the
//!    request was written; or if it has no body and the upstream says on HTTP/2 that it did not process it (RFC 9113,
//!    section 8.7); or if its operation changes nothing (`acts`) and it has no body, and the upstream closed the connection
//!    before a byte of an answer (RFC 9112, section 9.3.1), on HTTP/2 before its head. So nothing that acts is ever
//!    processed twice.
//! 2. It is sent again on a new connection, once.
//! 3. When the caller goes away, this future is dropped, and with it the connection that carries the request.
//! 4. A request that has waited is decided again before it leaves ([`Permit::renew`]).
//! 5. Interim responses go to callers of HTTP/1.1 (RFC 9110, section 15.2).

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;

use http::header::ACCEPT_ENCODING;
use http::{HeaderValue, Response};
use http_body::Body;
use tokio::time::Instant;

use super::exchange::Exchange;
use super::failure::{broken, closed_before, not_sent};
use super::inject::{Outbound, Permit};
use super::owed;
use super::record::REQUEST_ID;
use crate::body::RequestBody;
use crate::metrics::UpstreamError;
use crate::policy::rejection::{Reason, Rejection};
use crate::response::{Carrier, ResponseBody, Terms, respond};
use crate::upstream::broken::{Broken, Unanswered};
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
    let at = permit.exchange.answered(answer.status().as_u16());
    if permit.exchange.connection.interim.is_waiting() {
        // The server writes what came before the response, then it gets the response.
        tokio::task::yield_now().await;
    }
    respond(answer, terms(at, permit, lease, watchdog)).await
}

/// What the response is held to, whose head came `at` this time.
fn terms(at: Instant, permit: Permit, lease: Lease<RequestBody>, watchdog: Watchdog) -> Terms {
    let Permit { exchange, owed, wishes, .. } = permit;
    if wishes.answered() {
        exchange.upstream_error(UpstreamError::Reflected);
    }
    let idle_limit = lease.upstream().settings.timeouts.body_idle;
    let target_bytes = exchange.worker().snapshot().generation.limits.target_bytes;
    let secret = wishes.secret().clone();
    let carrier = Carrier { lease, watchdog, idle_limit, asked: wishes.into_asked() };
    let counters = owed.and_then(|owed| owed.list);
    Terms { at, secret, counters, target_bytes, carrier, progress: exchange }
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

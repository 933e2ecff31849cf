//! Forward: sends the request, and hands its response to the response path ([`crate::response`]).
//!
//! 1. A request is sent again only if a reused connection failed, and only in one of three cases: the connection failed
//!    before the request was written; or the request has no body and the upstream declares on HTTP/2 that it did not
//!    process it (RFC 9113, section 8.7); or its operation changes nothing (`acts`), it has no body, and the upstream
//!    closed the connection before a byte of a response (RFC 9112, section 9.3.1), on HTTP/2 before the response head. An
//!    operation that acts is thus never processed twice.
//! 2. It is sent again on a new connection, once.
//! 3. When the caller disconnects, this future is dropped, and with it the connection that carries the request.
//! 4. A request that has waited is decided again before it leaves ([`Permit::renew`]).
//! 5. Interim responses go to callers of HTTP/1.1 (RFC 9110, section 15.2).
//! 6. A read without a body that Metrica denies for lack of access is sent once more, with a token of another account, if the
//!    decision lists one: where it is not known which of the caller's accounts has access ([`crate::policy::choice`]). The
//!    caller gets the second response, whatever it is, and no interim response of the first.
//! 7. A request waits for its turn before it takes a connection ([`super::turn`]). A read without a body that Metrica refuses
//!    because of a quota is sent again when its turn comes, as the broker decides ([`crate::quota`]).

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;

use http::header::ACCEPT_ENCODING;
use http::{HeaderValue, Response};
use http_body::Body;
use tokio::time::Instant;

use super::body_policy;
use super::exchange::Exchange;
use super::failure::{broken, closed_before, not_sent};
use super::inject::{Outbound, Permit};
use super::record::REQUEST_ID;
use super::turn;
use crate::body::RequestBody;
use crate::metrics::{Resent, UpstreamError};
use crate::policy::rejection::{Reason, Rejection};
use crate::response::{Again, Carrier, Passed, ResponseBody, Terms, respond};
use crate::upstream::broken::{Broken, Unanswered};
use crate::upstream::received::Received;
use crate::upstream::{Lease, Outgoing, Upstream, Watchdog};
use crate::worker::Asked;

/// A failure of the request's own connection.
enum Failed {
    /// The response head did not arrive in time.
    Timeout,
    /// The request has no turn.
    NoTurn,
    /// The connection failed.
    Sending(Unanswered<RequestBody>),
}

/// A response whose head has arrived.
struct Answered {
    response: Response<Received>,
    /// The request, if it has no body and can be sent once more.
    request: Option<Box<Outgoing<RequestBody>>>,
    at: Instant,
    lease: Lease<RequestBody>,
    watchdog: Watchdog,
}

/// Sends the request and returns the checked response.
///
/// # Errors
/// The rejection that the caller receives.
pub async fn forward(outbound: Outbound) -> Result<Response<ResponseBody>, Rejection> {
    let (mut request, mut permit) = outbound.into_parts();
    loop {
        let lease = ready_to_leave(&mut permit, &mut request, false).await?;
        let answered = attempt(&mut permit, request, lease).await?;
        let Answered { response, request: repeat, at, lease, watchdog } = answered;
        if permit.exchange.connection.interim.is_waiting() {
            // The server writes the interim responses before it gets the final one.
            tokio::task::yield_now().await;
        }
        let can_repeat = repeat.is_some() && !permit.exchange.acts();
        let again = match respond(response, terms(at, &mut permit, can_repeat, lease, watchdog)?).await? {
            Passed::Response(response) => return Ok(response),
            Passed::Again(again) => again,
        };
        request = repeat.ok_or_else(|| Rejection::internal("only a request that was kept is sent again"))?;
        permit.has_waited();
        match again {
            Again::OtherAccount => {
                permit.try_next(&mut request)?;
                permit.exchange.worker().count(|shard| shard.resent(Resent::Account));
            }
            Again::Quota(waiting) => {
                // Boxed to keep the future small: few requests are refused.
                permit.turn = Some(Box::pin(turn::wait(waiting, &permit.exchange, 0)).await?);
                permit.exchange.worker().count(|shard| shard.resent(Resent::Quota));
            }
        }
    }
}

/// Sends the request until a response arrives (rules 1 and 2).
///
/// # Errors
/// The rejection that the caller receives.
async fn attempt(
    permit: &mut Permit,
    mut request: Box<Outgoing<RequestBody>>,
    mut lease: Lease<RequestBody>,
) -> Result<Answered, Rejection> {
    let mut is_repeat = false;
    loop {
        let exchange = &permit.exchange.clone();
        if let Some(body_policy) = permit.body_policy.as_ref().filter(|body_policy| body_policy.list.is_some()) {
            debug_assert!(body_policy.enforce, "unenforced rules filter nothing");
            request.fields.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        }
        if lease.is_http2() {
            adapt_to_http2(&mut request);
        }
        // HTTP/2 keeps the request it was given, so a copy is made where it could be sent again.
        let is_needed = !is_repeat && lease.is_reused() || permit.may_be_refused();
        let copied = is_needed && lease.is_http2() && request.body.is_end_stream();
        let copy = copied.then(|| Box::new(request.with_body(RequestBody::empty(exchange.clone()))));
        exchange.sending();
        let pool = permit.pool();
        let upstream = pool.upstream();
        let mut watchdog = exchange.worker().watchdogs.take(upstream.settings.timeouts.response_headers);
        match send(&mut lease, request, permit, &mut watchdog, upstream).await {
            Ok((response, kept)) => {
                let at = exchange.answered(response.status().as_u16());
                return Ok(Answered { response, request: kept.or(copy), at, lease, watchdog });
            }
            Err(Failed::NoTurn) => return Err(Rejection::internal("a request is sent in its turn")),
            Err(Failed::Timeout) => {
                exchange.upstream_error(UpstreamError::ResponseTimeout);
                return Err(Reason::UpstreamTimeout.into());
            }
            Err(Failed::Sending(failed)) => {
                let Unanswered { error, request: same, written } = failed;
                if error.is_unprocessed() {
                    lease.retire();
                }
                let again = !written || is_lost(&lease, exchange, &error);
                match same.or(copy).filter(|_| again) {
                    Some(repeat) if lease.is_reused() && !is_repeat => request = repeat,
                    Some(_) if !written => return Err(closed_before(exchange, error)),
                    Some(_) | None => return Err(broken(exchange, error)),
                }
                is_repeat = true;
                exchange.worker().count(|shard| shard.resent(Resent::Connection));
                drop(lease);
                lease = ready_to_leave(permit, &mut request, true).await?;
            }
        }
    }
}

/// Collects the terms of a response whose head arrived at `at`.
///
/// # Errors
/// An internal error if the request was sent without a turn.
fn terms(
    at: Instant,
    permit: &mut Permit,
    can_repeat: bool,
    lease: Lease<RequestBody>,
    watchdog: Watchdog,
) -> Result<Terms, Rejection> {
    let exchange = permit.exchange.clone();
    if permit.wishes.answered() {
        exchange.upstream_error(UpstreamError::Reflected);
    }
    let idle_limit = lease.upstream().settings.timeouts.body_idle;
    let target_bytes = exchange.worker().snapshot().generation.limits.target_bytes;
    let secret = permit.wishes.secret().clone();
    let carrier = Carrier { lease, watchdog, idle_limit, asked: permit.wishes.take_asked() };
    let counters = permit.body_policy.as_ref().and_then(|body_policy| body_policy.list.clone());
    let turn = permit.turn.take().ok_or_else(|| Rejection::internal("a request is sent in its turn"))?;
    let has_next = permit.has_next() && can_repeat;
    Ok(Terms { at, secret, counters, has_next, can_repeat, turn, target_bytes, carrier, progress: exchange })
}

/// Returns a connection for the request after every wait: the body rules are applied, the connection is ready, and the
/// latest decision lets the request go with its current token.
async fn ready_to_leave(
    permit: &mut Permit,
    request: &mut Outgoing<RequestBody>,
    fresh: bool,
) -> Result<Lease<RequestBody>, Rejection> {
    loop {
        if let Some(body_policy) = &permit.body_policy {
            // Boxed to keep the future small: few requests have body rules.
            let original = Box::pin(body_policy::settle(body_policy, request, &permit.exchange)).await?;
            permit.has_waited();
            permit.content_type_changed(original);
            if permit.renew(request)? {
                continue;
            }
        } else {
            // An earlier decision may have required it.
            request.body.watch_no_more();
        }
        if permit.turn.is_none() {
            permit.turn = Some(match turn::ask(permit)? {
                Asked::Granted(turn) => turn,
                // Boxed to keep the future small: few requests wait.
                Asked::Waits(waiting) => {
                    Box::pin(turn::wait(waiting, &permit.exchange, request.body.charged())).await?
                }
            });
            if permit.renew(request)? {
                continue;
            }
        }
        let lease = ready_lease(permit, request, fresh).await?;
        if !permit.renew(request)? {
            return Ok(lease);
        }
        permit.has_waited();
    }
}

/// Returns a connection that can take the request. A connection that closed while idle is skipped.
async fn ready_lease(
    permit: &Permit,
    request: &Outgoing<RequestBody>,
    fresh: bool,
) -> Result<Lease<RequestBody>, Rejection> {
    let (exchange, pool, carried) = (&permit.exchange, permit.pool(), permit.token_use().carried());
    loop {
        let mut lease = pool.lease(carried, fresh).await.map_err(|error| not_sent(exchange, error))?;
        if lease.is_reused() && !is_repeatable(exchange, request) {
            // Lets the runtime notice a connection that the upstream has just closed: this request has only one attempt.
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

/// Rule 1 after a failure: whether a request without a body may be sent again.
fn is_lost(lease: &Lease<RequestBody>, exchange: &Exchange, error: &Broken) -> bool {
    if lease.is_http2() {
        error.is_unprocessed() || !exchange.acts() && error.is_shared_connection()
    } else {
        !exchange.acts() && lease.nothing_was_read()
    }
}

/// Adapts a request to HTTP/2.
fn adapt_to_http2(request: &mut Outgoing<RequestBody>) {
    // Request ids are unique: indexing one would evict another field from the HPACK table.
    if let Some(id) = request.fields.get_mut(&REQUEST_ID) {
        id.set_sensitive(true);
    }
    request.body.release();
}

async fn send(
    lease: &mut Lease<RequestBody>,
    request: Box<Outgoing<RequestBody>>,
    permit: &mut Permit,
    watchdog: &mut Watchdog,
    upstream: &Upstream,
) -> Result<(Response<Received>, Option<Box<Outgoing<RequestBody>>>), Failed> {
    let Permit { exchange, wishes, turn: Some(turn), .. } = permit else { return Err(Failed::NoTurn) };
    turn.sent();
    let mut answer = pin!(lease.send(request, &*wishes, &*turn));
    poll_fn(|context| {
        if let Poll::Ready(answer) = answer.as_mut().poll(context) {
            return Poll::Ready(answer.map_err(Failed::Sending));
        }
        watchdog.poll_passed(context, deadline(exchange, upstream)).map(|()| Err(Failed::Timeout))
    })
    .await
}

/// Returns the upstream's deadline: for the response head, or to accept the next piece of the request.
fn deadline(exchange: &Exchange, upstream: &Upstream) -> Instant {
    let timeouts = &upstream.settings.timeouts;
    if exchange.request_is_complete() {
        exchange.last_progress() + timeouts.response_headers
    } else if exchange.connection.body_is_awaited() {
        // The caller's turn; the server has a separate deadline for it.
        Instant::now() + timeouts.body_idle
    } else {
        exchange.last_progress() + timeouts.body_idle
    }
}

//! The handling of one request: arrival, configured delay, request body, response.

use std::net::IpAddr;
use std::sync::Arc;

use http::request::Parts;
use http::{Method, Request, Response, header};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::{Body as _, Incoming};
use serde_json::{Map, Value};

use super::access::{Call, text};
use super::answer::{Answer, Broken, Content};
use super::control;
use super::oauth;
use super::quota::lease::{Lease, Leaving};
use super::refusal::{ErrorType, Refusal};
use super::tally::Tally;
use super::world::{Decision, Shared};

/// The maximum size of an object in a request body, in bytes; far more than any object of the management API.
const OBJECT_BYTES: usize = 1024 * 1024;

/// Bodies up to this size, in bytes, are read even if the response is already known, so that the connection stays usable.
const UNREAD_BYTES: u64 = 64 * 1024;

/// Answers one request.
///
/// # Errors
/// [`Broken`] ends the connection without a response.
pub async fn answer(
    shared: Arc<Shared>,
    peer: IpAddr,
    leaving: Leaving,
    request: Request<Incoming>,
) -> Result<Response<Content>, Broken> {
    let (head, body) = request.into_parts();
    let answer = match head.uri.path().strip_prefix("/_fake/") {
        Some(knob) => control::answer(&shared, knob, &head),
        None => exchange(&shared, peer, leaving, &head, body).await?,
    };
    Ok(if head.method == Method::HEAD { answer.without_body() } else { answer.into() })
}

async fn exchange(
    shared: &Shared,
    peer: IpAddr,
    leaving: Leaving,
    head: &Parts,
    body: Incoming,
) -> Result<Answer, Broken> {
    let arrival = shared.world().arrive(shared, peer, head);
    if !arrival.delay.is_zero() {
        tokio::time::sleep(arrival.delay).await;
    }
    if arrival.cut == Some(None) {
        drop(arrival.lease.map(Lease::completed));
        return Err(Broken);
    }
    let answer = match arrival.decision {
        Decision::Api(call) => perform(shared, &call, body).await?,
        Decision::OAuth => {
            let form = Limited::new(body, oauth::FORM_BYTES).collect().await.map_err(|_| Broken)?.to_bytes();
            let now = shared.quotas.now();
            let world = &mut *shared.world();
            oauth::answer(&mut world.authority, &mut world.keyring, head, &form, now)
        }
        Decision::Answered(refused) => {
            skip(head, body).await;
            refused
        }
    };
    Ok(answer.holding(arrival.lease, leaving).cut_after(arrival.cut.flatten()))
}

async fn perform(shared: &Shared, call: &Call<'_>, body: Incoming) -> Result<Answer, Broken> {
    let outcome = if call.is_upload() {
        // After an incomplete upload, there is no client to answer.
        let tally = Tally::new(&call.content_type).count(body).await.map_err(|_| Broken)?;
        shared.world().uploads.receive(call, &tally)
    } else {
        match object(body).await {
            Ok(object) => shared.world().answer(call, &object),
            Err(refusal) => Err(refusal),
        }
    };
    Ok(outcome.unwrap_or_else(|refusal| Answer::from(&shared.world().knobs.said(&refusal))))
}

/// Reads the object in a body; an empty body is an empty object.
async fn object(body: Incoming) -> Result<Map<String, Value>, Refusal> {
    let body = Limited::new(body, OBJECT_BYTES).collect().await.map_err(|_| ErrorType::InvalidJson)?.to_bytes();
    if body.is_empty() {
        return Ok(Map::new());
    }
    // The documentation does not state whether the API accepts a byte order mark, which files written by PowerShell have.
    let text = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&body);
    Ok(serde_json::from_slice(text).map_err(|_| ErrorType::InvalidJson)?)
}

/// Reads and discards a small body, unless the client waits for `100 Continue`.
async fn skip(head: &Parts, body: Incoming) {
    let is_small = body.size_hint().upper().is_some_and(|length| length <= UNREAD_BYTES);
    if is_small && text(&head.headers, header::EXPECT).is_empty() {
        // If the client disconnects meanwhile, sending the response reports it.
        let _ = body.collect().await;
    }
}

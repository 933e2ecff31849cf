//! The path of a response: what happens to an answer of Metrica before its caller gets it.
//!
//! ```text
//! Response<Received>
//!  1 framing          -> Framed      | 502   one meaning, a body that can be looked into
//!  2 fields           -> Listed      |       only fields of the list
//!  3 redaction        -> Redacted    |       no field with the token
//!  4 redirect         -> Local       | 502   no way past the gate
//!  5 hop              -> OurHop      |       what the gate itself says on this hop
//!  6 list_head        -> Limited     | 502   where a list of counters is filtered: it can be
//!  7 streaming        -> Opened      |       the body, looked through for the token as it passes
//!  8 classification   -> Begun       | 502 504   why Metrica refused, and the beginning of the body
//!  9 list_body        -> Passed      | 502   only the caller's own counters
//! 10 body             -> Response    |       counted, and never whole when it broke off
//! ```
//!
//! Each step takes the type of the one before and is the only one that makes its own, so a step that is left out or misplaced
//! does not compile. The steps know neither the exchange nor the connection: they tell [`ResponseProgress`].

use std::rc::Rc;
use std::sync::Arc;

use http::Response;
use http_body::Body;
use tokio::time::Instant;

pub mod body;
mod classification;
pub mod coding;
mod compressed;
mod error;
pub mod error_body;
pub mod fields;
mod framing;
mod hop;
mod list_body;
pub mod list_filter;
mod list_head;
mod progress;
mod redaction;
mod redirect;
mod scan;
pub mod secret;
mod source;
mod streaming;

pub use body::ResponseBody;
pub use error::ResponseError;
pub use progress::ResponseProgress;
use secret::Secret;
pub use source::Carrier;

use crate::policy::rejection::Rejection;
use crate::upstream::received::Received;

/// What a response is held to.
pub struct Terms {
    /// When its head came.
    pub at: Instant,
    /// The token that went out with its request.
    pub secret: Secret,
    /// Of a list of counters, only these may pass; they are in ascending order.
    pub counters: Option<Arc<[u64]>>,
    /// The longest target that the gate accepts.
    pub target_bytes: usize,
    /// What carried the request.
    pub carrier: Carrier,
    /// Who is told.
    pub progress: Rc<dyn ResponseProgress>,
}

/// Passes a response on. What went wrong in a step is counted here, and nowhere else.
///
/// # Errors
/// What the caller gets in its place.
pub async fn respond(response: Response<Received>, terms: Terms) -> Result<Response<ResponseBody>, Rejection> {
    let progress = terms.progress.clone();
    pass(response, terms).await.map_err(|error| {
        progress.upstream_error(error.kind());
        error.into_rejection()
    })
}

/// The steps, in their order.
async fn pass(response: Response<Received>, terms: Terms) -> Result<Response<ResponseBody>, ResponseError> {
    let Terms { at, secret, counters, target_bytes, carrier, progress } = terms;
    let (head, incoming) = response.into_parts();
    let framed = framing::check(head, !incoming.is_end_stream())?;
    let listed = fields::keep_listed(framed);
    let redacted = redaction::redact(listed, &secret, &*progress);
    let local = redirect::keep_local(redacted, carrier.authority(), target_bytes)?;
    let hop = hop::of_the_gate(local, progress.request_is_complete());
    let limited = list_head::check(hop, counters)?;
    let opened = streaming::open(limited, incoming, carrier, secret, at, progress);
    let begun = classification::begin(opened).await?;
    let passed = list_body::limit(begun).await?;
    Ok(body::count(passed))
}

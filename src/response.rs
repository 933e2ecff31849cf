//! The path of a response: the steps that a response of Metrica passes before its caller gets it.
//!
//! ```text
//! Response<Received>
//!  1 framing          -> Framed      | 502   an unambiguous head, a body that can be inspected
//!  2 fields           -> Listed      |       only allow-listed fields
//!  3 redaction        -> Redacted    |       no field with the token
//!  4 redirect         -> Local       | 502   no redirect past the gate
//!  5 hop              -> OurHop      |       the fields of the gate's own hop
//!  6 list_head        -> Limited     | 502   a list of counters to be filtered has a filterable head
//!  7 streaming        -> Opened      |       the body, searched for the token as it passes
//!  8 classification   -> Begun       | 502 504   the reason of a refusal, and the beginning of the body
//!  9 list_body        -> Passed      | 502   only the caller's own counters
//! 10 body             -> Response    |       counted, and never complete if it broke off
//! ```
//!
//! Each step takes the type of the one before and is the only maker of its own, so a missing or misplaced step does not
//! compile. The steps know neither the exchange nor the connection: they report to [`ResponseProgress`].

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
mod source;
mod streaming;

pub use body::ResponseBody;
use classification::Begin;
pub use error::ResponseError;
pub use progress::ResponseProgress;
pub use source::Carrier;

use crate::policy::rejection::Rejection;
use crate::token::secret::Secret;
use crate::upstream::received::Received;
use crate::worker::{Turn, Waiting};

/// The terms that a response has to meet.
pub struct Terms {
    /// The arrival of its head.
    pub at: Instant,
    /// The token that was sent with its request.
    pub secret: Secret,
    /// The counters that may pass in a list of counters, in ascending order; `None`: the response is not filtered.
    pub counters: Option<Arc<[u64]>>,
    /// Whether a denial for lack of access is answered by trying another account.
    pub has_next: bool,
    /// Whether the request can be sent again after a refusal by a quota.
    pub can_repeat: bool,
    /// The turn of the request, which ends with the response.
    pub turn: Turn,
    /// The longest target that the gate accepts, in bytes.
    pub target_bytes: usize,
    /// The connection that carried the request.
    pub carrier: Carrier,
    /// The receiver of events.
    pub progress: Rc<dyn ResponseProgress>,
}

/// The result of the steps.
pub enum Passed {
    /// The response that the caller gets.
    Response(Response<ResponseBody>),
    /// The request is sent again.
    Again(Again),
}

/// The reason to send a request again.
pub enum Again {
    /// A token of another account may be allowed what was denied.
    OtherAccount,
    /// The turn of the request comes once more.
    Quota(Waiting),
}

/// Passes a response through the steps. This is the only place that counts the error of a step.
///
/// # Errors
/// The rejection that the caller gets in its place.
pub async fn respond(response: Response<Received>, terms: Terms) -> Result<Passed, Rejection> {
    let progress = terms.progress.clone();
    pass(response, terms).await.map_err(|error| {
        progress.upstream_error(error.kind());
        error.into_rejection()
    })
}

/// Runs the steps in their order.
async fn pass(response: Response<Received>, terms: Terms) -> Result<Passed, ResponseError> {
    let Terms { at, secret, counters, has_next, can_repeat, turn, target_bytes, carrier, progress } = terms;
    let (head, incoming) = response.into_parts();
    let framed = framing::check(head, !incoming.is_end_stream())?;
    let listed = fields::keep_listed(framed);
    let redacted = redaction::redact(listed, &secret, &*progress);
    let local = redirect::keep_local(redacted, carrier.authority(), target_bytes)?;
    let hop = hop::of_the_gate(local, progress.request_is_complete());
    let limited = list_head::check(hop, counters)?;
    let opened = streaming::open(limited, incoming, (carrier, turn), secret, at, progress);
    let begun = match classification::begin(opened, has_next, can_repeat).await? {
        Begin::Pass(begun) => begun,
        Begin::Again(again) => return Ok(Passed::Again(again)),
    };
    let passed = list_body::limit(begun).await?;
    Ok(Passed::Response(body::count(passed)))
}

//! Body policy: the rules of a caller that concern the body, applied just before the request leaves (rules 5 and 7 of
//! [`crate::policy::rules`]).
//!
//! 1. A body that rules apply to is read whole, up to [`BODY_BYTES`], before a connection is taken; a refused request
//!    sends nothing. A caller that waits for permission to send it (`Expect: 100-continue`) receives the 100.
//! 2. The body is forwarded unchanged: the same bytes, with a length or in chunks as before, and the same trailers.
//! 3. The response to a list of counters has to be filtered: the response path does that ([`crate::response`]).
//! 4. Nothing is refused where rules are not enforced: the part that was read is forwarded, and the rest streams after
//!    it.
//! 5. A gzip body is decompressed for the check, up to the same number of bytes.
//! 6. JSON that is not declared as JSON is forwarded with the right content type ([`Retype`]). The caller's own type is
//!    kept, because a later decision can forbid the change ([`OriginalContentType`]).
//! 7. The names of multipart parts are checked as they pass: those in the first piece before anything is sent, later ones
//!    before their piece is sent. A refusal then aborts the request, so that the upstream never receives it whole.
//! 8. Reading takes at most [`TIME`] (`body_too_slow`, 408), and at most the memory that the budgets of the worker and of
//!    the connection allow (`overloaded`, 503).

use std::borrow::Cow;
use std::future::poll_fn;
use std::io::Read;
use std::rc::Rc;
use std::time::Duration;

use flate2::read::MultiGzDecoder;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue};
use metrica::subject::json;
use strict_http::number;
use tokio::time::timeout;

use super::exchange::Exchange;
use super::failure::not_read;
use super::stalled::{Bound, Stalled};
use crate::body::{BodyError, RequestBody};
use crate::metrics::Stall;
use crate::policy::decide::{BodyPolicy, Retype, Shadowed};
use crate::policy::rejection::{Reason, Rejection};
use crate::policy::rules::{BODY_BYTES, Breach};
use crate::upstream::Outgoing;

/// The maximum time for reading a body whole (rule 8).
const TIME: Duration = Duration::from_secs(30);

/// The content type that the caller sent, if any, of a request that now has another one (rule 6).
#[derive(Debug)]
pub struct OriginalContentType(Option<HeaderValue>);

impl OriginalContentType {
    /// Puts it back into `fields`.
    pub fn restore(self, fields: &mut HeaderMap) {
        fields.remove(CONTENT_TYPE);
        fields.extend(self.0.map(|original| (CONTENT_TYPE, original)));
    }
}

/// Applies the remaining rules to a request before it leaves. Returns the content type that the request had, if it was
/// changed.
///
/// # Errors
/// The rule that the body breaks, or the reason why the body could not be read.
pub async fn settle(
    body_policy: &BodyPolicy,
    request: &mut Outgoing<RequestBody>,
    exchange: &Rc<Exchange>,
) -> Result<Option<OriginalContentType>, Rejection> {
    let (body, fields) = (&mut request.body, &mut request.fields);
    body.watch_no_more();
    if let Some(parts) = &body_policy.parts {
        // Most violations are in the first piece, and nothing has been sent at this point.
        read(body_policy, body, 0, exchange).await?;
        body.watch(parts.clone(), body_policy.enforce).map_err(|breach| Rejection::because(breach.reason(), breach))?;
    }
    if !body_policy.body {
        let Some(retype) = body_policy.retype else { return Ok(None) };
        // Most bodies without a declared type are files.
        if retype == Retype::Untyped
            && (read(body_policy, body, 0, exchange).await?.is_none() || !json::begins(body.ahead()))
        {
            return Ok(None);
        }
    }
    let Some(whole) = read(body_policy, body, BODY_BYTES, exchange).await? else { return Ok(None) };
    let plain = match body_policy.kind.filter(|_| !body.ahead().is_empty()) {
        Some(breach) => Err(breach),
        None if !whole => Err(Breach::BodyLength),
        None if body_policy.is_packed => unpacked(body.ahead()).map(Cow::Owned),
        None => Ok(Cow::Borrowed(body.ahead())),
    };
    let mut original = None;
    if body_policy.retype.is_some() && plain.as_ref().is_ok_and(|plain| json::is_document(plain)) {
        let replaced = fields.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        original = Some(OriginalContentType(replaced));
    } else if body_policy.retype == Some(Retype::Form) {
        return Err(Reason::FormBody.into());
    }
    if !body_policy.body {
        return Ok(original);
    }
    let kept = plain.and_then(|plain| body_policy.reading.check(&plain));
    match kept {
        Err(breach) if body_policy.enforce => Err(Rejection::because(breach.reason(), breach)),
        Err(breach) => {
            exchange.would_refuse(Shadowed { reason: breach.reason(), breach: Some(breach) });
            Ok(original)
        }
        Ok(()) => Ok(original),
    }
}

/// Reads `body` ahead until it has ended or exceeds `limit` bytes; returns whether it has ended. Returns `None` if an
/// optional read fails or takes too long.
async fn read(
    body_policy: &BodyPolicy,
    body: &mut RequestBody,
    limit: usize,
    exchange: &Rc<Exchange>,
) -> Result<Option<bool>, Rejection> {
    let need_not = !(body_policy.body && body_policy.enforce) && body_policy.retype != Some(Retype::Form);
    match timeout(TIME, poll_fn(|context| body.poll_ahead(context, limit))).await {
        Ok(Ok(whole)) => Ok(Some(whole)),
        Ok(Err(BodyError::NoMemory)) | Err(_) if need_not => Ok(None),
        Ok(Err(error @ BodyError::NoMemory)) => Err(Rejection::because(Reason::Overloaded, error)),
        Ok(Err(error)) => Err(not_read(exchange, error)),
        Err(_) => {
            exchange.connection.note_stall(Stalled { waited_for: Stall::Request, bound: Bound::ReadAhead(TIME) });
            Err(Reason::BodyTooSlow.into())
        }
    }
}

/// Decompresses a gzip body, up to [`BODY_BYTES`]. The result lives only during the check.
fn unpacked(packed: &[u8]) -> Result<Vec<u8>, Breach> {
    let mut plain = Vec::new();
    let most = number::count(BODY_BYTES);
    let read = MultiGzDecoder::new(packed).take(most + 1).read_to_end(&mut plain);
    match read {
        Ok(_) if plain.len() > BODY_BYTES => Err(Breach::BodyLength),
        Ok(_) => Ok(plain),
        Err(_) => Err(Breach::Body),
    }
}

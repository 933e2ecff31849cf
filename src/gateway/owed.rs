//! Owed: what is left of a caller's rules to hold a request to when it is about to leave (rules 5 and 7 of
//! [`crate::policy::rules`]).
//!
//! 1. A body that rules are about is read whole, up to [`BODY_BYTES`], before a connection is taken; what is refused sends
//!    nothing. A caller that waits to be asked for it (`Expect: 100-continue`) is asked.
//! 2. What was read goes on as it came: the same bytes, with a length or in chunks as before, and the same trailers.
//! 3. The answer of a list of counters has to be filtered ([`super::filtered`]).
//! 4. Where rules are not enforced nothing is refused: what was read goes on, and the rest streams behind it.
//! 5. A body that is packed with gzip is unpacked to be looked through, up to as many bytes.
//! 6. JSON that is not said to be that leaves as what it is ([`Retype`]).
//! 7. The names of parts are looked through as they go by: of the first piece before anything is sent, of those behind it
//!    before they are. What is refused then breaks the request off, so that it reaches nobody whole.
//! 8. Reading takes [`TIME`] at most (`body_too_slow`, 408), and no more memory than the budgets of the worker and of the
//!    connection have (`overloaded`, 503).

use std::borrow::Cow;
use std::future::poll_fn;
use std::io::Read;
use std::rc::Rc;
use std::time::Duration;

use flate2::read::MultiGzDecoder;
use http::HeaderValue;
use http::header::CONTENT_TYPE;
use metrica::subject::json;
use tokio::time::timeout;

use super::body::{BodyError, RequestBody};
use super::connection::{Bound, Stalled};
use super::exchange::Exchange;
use super::forward::not_read;
use crate::metrics::Stall;
use crate::policy::decide::{Owed, Retype, Shadowed};
use crate::policy::rejection::{Reason, Rejection};
use crate::policy::rules::{BODY_BYTES, Breach};
use crate::upstream::Outgoing;

/// So long a body may take to be read whole (rule 8).
const TIME: Duration = Duration::from_secs(30);

/// Holds a request to what it owes before it leaves.
///
/// # Errors
/// The rule that its body breaks, or what kept it from being read.
pub async fn settle(
    owed: &Owed,
    request: &mut Outgoing<RequestBody>,
    exchange: &Rc<Exchange>,
) -> Result<(), Rejection> {
    let (body, fields) = (&mut request.body, &mut request.fields);
    body.watch_no_more();
    if let Some(parts) = &owed.parts {
        // Most that is wrong is in the first piece, and then nothing was sent.
        read(owed, body, 0, exchange).await?;
        body.watch(parts.clone(), owed.enforce).map_err(|breach| Rejection::because(breach.reason(), breach))?;
    }
    if !owed.body {
        let Some(retype) = owed.retype else { return Ok(()) };
        // Most bodies that are not said to be anything are files.
        if retype == Retype::Untyped && (read(owed, body, 0, exchange).await?.is_none() || !json::begins(body.ahead()))
        {
            return Ok(());
        }
    }
    let Some(whole) = read(owed, body, BODY_BYTES, exchange).await? else { return Ok(()) };
    let plain = match owed.kind.filter(|_| !body.ahead().is_empty()) {
        Some(breach) => Err(breach),
        None if !whole => Err(Breach::BodyLength),
        None if owed.is_packed => unpacked(body.ahead()).map(Cow::Owned),
        None => Ok(Cow::Borrowed(body.ahead())),
    };
    if owed.retype.is_some() && plain.as_ref().is_ok_and(|plain| json::is_document(plain)) {
        fields.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    } else if owed.retype == Some(Retype::Form) {
        return Err(Reason::FormBody.into());
    }
    if !owed.body {
        return Ok(());
    }
    let kept = plain.and_then(|plain| owed.reading.check(&plain));
    match kept {
        Err(breach) if owed.enforce => Err(Rejection::because(breach.reason(), breach)),
        Err(breach) => {
            exchange.would_refuse(Shadowed { reason: breach.reason(), breach: Some(breach) });
            Ok(())
        }
        Ok(()) => Ok(()),
    }
}

/// Reads `body` ahead, until there are more than `limit` bytes: whether that was all of it. `None` where it cannot be, and need
/// not.
async fn read(
    owed: &Owed,
    body: &mut RequestBody,
    limit: usize,
    exchange: &Rc<Exchange>,
) -> Result<Option<bool>, Rejection> {
    let need_not = !(owed.body && owed.enforce) && owed.retype != Some(Retype::Form);
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

/// What a body that is packed with gzip holds, up to [`BODY_BYTES`]. It is there only while it is looked through.
fn unpacked(packed: &[u8]) -> Result<Vec<u8>, Breach> {
    let mut plain = Vec::new();
    let most = u64::try_from(BODY_BYTES).unwrap_or(u64::MAX);
    let read = MultiGzDecoder::new(packed).take(most + 1).read_to_end(&mut plain);
    match read {
        Ok(_) if plain.len() > BODY_BYTES => Err(Breach::BodyLength),
        Ok(_) => Ok(plain),
        Err(_) => Err(Breach::Body),
    }
}

//! Owed: what is left of a caller's rules to hold a request to when it is about to leave (rules 5 and 7 of
//! [`crate::rules`]).
//!
//! 1. A body whose counters matter is read whole, up to [`BODY_BYTES`], before a connection is taken; what is refused sends
//!    nothing. A caller that waits to be asked for it (`Expect: 100-continue`) is asked.
//! 2. What was read goes on as it came: the same bytes, with a length or in chunks as before, and the same trailers.
//! 3. The answer of a list of counters has to be filtered ([`super::filtered`]).
//! 4. Where rules are not enforced nothing is refused: what was read goes on, and the rest streams behind it.
//! 5. Reading takes [`TIME`] at most (`body_too_slow`, 408), and no more memory than the budgets of the worker and of the
//!    connection have (`overloaded`, 503).

use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http_body::Body;
use tokio::time::timeout;

use super::body::{BodyError, RequestBody};
use super::exchange::Exchange;
use super::forward::not_read;
use crate::metrics::Stall;
use crate::operation::OperationId;
use crate::rejection::{Reason, Rejection};
use crate::rules::{BODY_BYTES, Breach, check_body};

/// What a request still owes. Most owe nothing.
#[derive(Debug)]
pub struct Owed {
    /// What was asked.
    pub operation: OperationId,
    /// The caller's counters, in ascending order.
    pub counters: Arc<[u64]>,
    /// The body has to be read.
    pub body: bool,
    /// What its head already shows to be wrong with a body, if there is one.
    pub kind: Option<Breach>,
    /// Of the answer, only these counters may go on.
    pub list: bool,
    /// Whether a breach refuses.
    pub enforce: bool,
}

/// So long a body may take to be read whole (rule 5).
const TIME: Duration = Duration::from_secs(30);

impl Owed {
    /// Holds a request to it before it leaves.
    ///
    /// # Errors
    /// The rule that its body breaks, or what kept it from being read.
    pub async fn settle(&self, body: &mut RequestBody, exchange: &Rc<Exchange>) -> Result<(), Rejection> {
        if !self.body {
            return Ok(());
        }
        let read = timeout(TIME, poll_fn(|context| body.poll_ahead(context, BODY_BYTES))).await;
        let whole = match read {
            Ok(Ok(whole)) => whole,
            Ok(Err(BodyError::NoMemory)) if !self.enforce => return Ok(()),
            Ok(Err(error @ BodyError::NoMemory)) => return Err(Rejection::because(Reason::Overloaded, error)),
            Ok(Err(error)) => return Err(not_read(exchange, error)),
            Err(_) => {
                exchange.connection.note_stall(Stall::Request);
                return Err(Reason::BodyTooSlow.into());
            }
        };
        if let Some(breach) = self.kind.filter(|_| !body.ahead().is_empty()) {
            return self.broken(breach, exchange);
        }
        let kept = if whole { check_body(&self.counters, body.ahead()) } else { Err(Breach::BodyLength) };
        kept.or_else(|breach| self.broken(breach, exchange))
    }

    /// The body breaks a rule.
    ///
    /// # Errors
    /// The refusal, where rules are enforced.
    pub fn broken(&self, breach: Breach, exchange: &Exchange) -> Result<(), Rejection> {
        if self.enforce {
            return Err(Rejection { operation: Some(self.operation), ..Rejection::because(breach.reason(), breach) });
        }
        exchange.would_refuse(breach.reason(), Some(breach));
        Ok(())
    }
}

/// Whether a body can be read for its counters, before any of it is.
///
/// # Errors
/// [`Breach::BodyKind`] and [`Breach::BodyLength`].
pub fn check_kind(fields: &HeaderMap, body: &impl Body) -> Result<(), Breach> {
    let mut types = fields.get_all(CONTENT_TYPE).iter();
    let is_json = types.next().is_some_and(|value| is_json(value.as_bytes())) && types.next().is_none();
    if !is_json || fields.contains_key(CONTENT_ENCODING) {
        return Err(Breach::BodyKind);
    }
    let shortest = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    if shortest > BODY_BYTES { Err(Breach::BodyLength) } else { Ok(()) }
}

/// The types that the API has for JSON, in the only encoding that all readers of JSON agree on (RFC 8259, section 8.1).
fn is_json(value: &[u8]) -> bool {
    let mut parts = value.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
    let kind = parts.next().unwrap_or_default();
    let known: [&[u8]; 2] = [b"application/json", b"application/x-yametrika+json"];
    let is_utf8 =
        |part: &[u8]| [&b"charset=utf-8"[..], b"charset=\"utf-8\""].iter().any(|one| part.eq_ignore_ascii_case(one));
    known.iter().any(|one| kind.eq_ignore_ascii_case(one)) && parts.all(is_utf8)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::HeaderValue;
    use http_body_util::Full;

    use super::*;

    fn kind(types: &[&'static str]) -> Result<(), Breach> {
        let fields = types.iter().map(|value| (CONTENT_TYPE, HeaderValue::from_static(value))).collect();
        check_kind(&fields, &Full::new(Bytes::from_static(b"{}")))
    }

    #[test]
    fn json_is_what_is_said_to_be_json_in_utf_8_once() {
        for known in [
            "application/json",
            "Application/JSON ; Charset=UTF-8",
            "application/x-yametrika+json",
            "application/json;charset=\"utf-8\"",
        ] {
            assert_eq!(kind(&[known]), Ok(()), "{known}");
        }
        for other in [
            "",
            "text/plain",
            "application/jsonp",
            "application/json, text/plain",
            "application/json; charset=utf-16",
            "application/json; charset=utf-8; charset=ibm037",
            "application/json; boundary=x",
            "multipart/form-data; boundary=x",
        ] {
            assert_eq!(kind(&[other]), Err(Breach::BodyKind), "{other}");
        }
        assert_eq!(kind(&[]), Err(Breach::BodyKind));
        assert_eq!(kind(&["application/json", "application/json"]), Err(Breach::BodyKind));
    }

    #[test]
    fn what_is_packed_or_too_long_is_not_read() {
        let json = (CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let packed = HeaderMap::from_iter([json.clone(), (CONTENT_ENCODING, HeaderValue::from_static("gzip"))]);
        assert_eq!(check_kind(&packed, &Full::new(Bytes::from_static(b"{}"))), Err(Breach::BodyKind));
        let fields = HeaderMap::from_iter([json]);
        let long = |bytes| check_kind(&fields, &Full::new(Bytes::from(vec![b' '; bytes])));
        assert_eq!((long(BODY_BYTES), long(BODY_BYTES + 1)), (Ok(()), Err(Breach::BodyLength)));
    }
}

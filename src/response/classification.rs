//! Step 8, classification: determines whether Metrica performed the operation. The reason of a refusal is read from the
//! beginning of the error's body, and added to its head.
//!
//! 1. If the error suggests an invalid token, or refuses an operation that succeeded with this token before, this request
//!    alone waits up to [`CONCLUSION`] for the result of a probe.
//! 2. An HTML page in place of a success proves nothing: an intermediary that responds in Metrica's place, such as a
//!    captive portal, sends a page for people.
//! 3. If another account can be tried, a denial that may be for lack of the account's access is not passed on. Its body is
//!    read to the end, within the bound of an error's beginning, so that its connection can be used again.
//! 4. A refusal by a quota is not passed on if the broker sends the request again; else it gets a `Retry-After`, which Metrica
//!    does not send.

use std::borrow::Cow;
use std::future::poll_fn;
use std::time::Duration;

use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderValue};
use metrica::cause::Diagnosis;

use super::fields::set_reason;
use super::list_head::Limited;
use super::streaming::{Opened, Streaming};
use super::{Again, ResponseError};
use crate::worker::AfterRefusal;

/// The maximum time that a request waits for the result of a probe if its refusal raises doubts about its token.
const CONCLUSION: Duration = Duration::from_secs(1);

/// A classified response, whose beginning was read.
pub struct Begun {
    head: Limited,
    streaming: Box<Streaming>,
}

impl Begun {
    /// Splits into its head and its body.
    pub(super) fn into_parts(self) -> (Limited, Box<Streaming>) {
        (self.head, self.streaming)
    }
}

/// The result of the step.
pub enum Begin {
    /// The response is passed on.
    Pass(Begun),
    /// The request is sent again.
    Again(Again),
}

/// Runs the step. `has_next` allows to try another account (rule 3), `can_repeat` to wait for another turn (rule 4).
///
/// # Errors
/// An error if the beginning of the body cannot be passed on.
pub async fn begin(opened: Opened, has_next: bool, can_repeat: bool) -> Result<Begin, ResponseError> {
    let (mut head, mut streaming, at) = opened.into_parts();
    let status = head.framed().status();
    if status.as_u16() >= 400 {
        let fields = head.framed_mut().fields_mut();
        if let Some(again) = classify(&mut streaming, fields, status.as_u16(), (has_next, can_repeat)).await? {
            return Ok(Begin::Again(again));
        }
    } else {
        if status.is_success() && !is_page(head.framed().fields()) {
            streaming.progress().succeeded(at);
        }
        poll_fn(|context| streaming.poll_beginning(context)).await?;
    }
    Ok(Begin::Pass(Begun { head, streaming }))
}

/// Whether the response is an HTML page (rule 2).
fn is_page(fields: &HeaderMap) -> bool {
    let kind = fields.get(CONTENT_TYPE).and_then(|kind| kind.as_bytes().get(..b"text/html".len()));
    kind.is_some_and(|kind| kind.eq_ignore_ascii_case(b"text/html"))
}

/// Reads the beginning of an error's body, and adds the reason of the refusal to its head. Returns how the request is sent
/// again instead.
async fn classify(
    streaming: &mut Streaming,
    fields: &mut HeaderMap,
    status: u16,
    (has_next, can_repeat): (bool, bool),
) -> Result<Option<Again>, ResponseError> {
    let read = streaming.read_ahead().await;
    // The part before a break counts too.
    let error_type = streaming.take_error_type();
    let progress = streaming.progress().clone();
    let refused = error_type.and_then(|error_type| progress.refused(status, error_type));
    if let (420 | 429, Some(error_type)) = (status, error_type) {
        match streaming.refused_by_quota(error_type, can_repeat) {
            Some(AfterRefusal::Again(waiting)) => return Ok(Some(Again::Quota(waiting))),
            Some(AfterRefusal::Pass(after)) if !fields.contains_key(RETRY_AFTER) => {
                fields.insert(RETRY_AFTER, HeaderValue::from(after.seconds(streaming.progress().jitter())));
            }
            Some(AfterRefusal::Pass(_)) | None => {}
        }
    }
    read?;
    if let Some((mut diagnosis, conclusion)) = refused {
        if has_next && diagnosis.cause.may_be_of_the_account() {
            return Ok(Some(Again::OtherAccount));
        }
        if let Some(conclusion) = conclusion {
            // Boxed to keep the future small: few requests wait.
            let concluded = Box::pin(tokio::time::timeout(CONCLUSION, conclusion)).await;
            if let Ok(Ok(conclusion)) = concluded {
                diagnosis = diagnosis.concluded(conclusion);
                progress.diagnosed(diagnosis);
            }
        }
        set_reason(fields, diagnosis.cause.as_str(), hint(diagnosis));
    }
    Ok(None)
}

fn hint(diagnosis: Diagnosis) -> HeaderValue {
    match diagnosis.hint() {
        Cow::Borrowed(hint) => HeaderValue::from_static(hint),
        Cow::Owned(hint) => HeaderValue::try_from(hint).unwrap_or(HeaderValue::from_static(diagnosis.cause.hint())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rule_2_a_page_is_recognised_by_its_type() {
        for (kind, expected) in [
            (Some("text/html"), true),
            (Some("TEXT/HTML; charset=utf-8"), true),
            (Some("application/json"), false),
            (Some("text"), false),
            (None, false),
        ] {
            let fields = kind.map(|kind| (CONTENT_TYPE, HeaderValue::from_static(kind))).into_iter().collect();
            assert_eq!(is_page(&fields), expected, "{kind:?}");
        }
    }
}

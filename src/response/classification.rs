//! Step 8, classification: whether Metrica did what was asked, and if not, why: read from the beginning of an error's body,
//! and added to its head.
//!
//! 1. Where it reads as if the token were invalid, or refuses what the token did before, this request, and no other, waits up to
//!    [`CONCLUSION`] for what a probe finds.
//! 2. A page in the place of a success proves nothing: what is in between and answers in Metrica's place, a captive portal,
//!    has a page for people.

use std::borrow::Cow;
use std::future::poll_fn;
use std::time::Duration;

use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue};
use metrica::cause::Diagnosis;

use super::ResponseError;
use super::fields::set_reason;
use super::list_head::Limited;
use super::streaming::{Opened, Streaming};

/// A request whose refusal raises doubts about its token waits so long to hear whether Metrica accepts it.
const CONCLUSION: Duration = Duration::from_secs(1);

/// A response whose beginning was read, and that is known for what it is.
pub struct Begun {
    head: Limited,
    streaming: Streaming,
}

impl Begun {
    /// Its head and its body.
    pub(super) fn into_parts(self) -> (Limited, Streaming) {
        (self.head, self.streaming)
    }
}

/// The step.
///
/// # Errors
/// When the beginning of the body cannot be passed on.
pub async fn begin(opened: Opened) -> Result<Begun, ResponseError> {
    let (mut head, mut streaming, at) = opened.into_parts();
    let status = head.framed().status();
    if status.as_u16() >= 400 {
        classify(&mut streaming, head.framed_mut().fields_mut(), status.as_u16()).await?;
    } else {
        if status.is_success() && !is_page(head.framed().fields()) {
            streaming.progress().succeeded(at);
        }
        poll_fn(|context| streaming.poll_beginning(context)).await?;
    }
    Ok(Begun { head, streaming })
}

/// Rule 2.
fn is_page(fields: &HeaderMap) -> bool {
    let kind = fields.get(CONTENT_TYPE).and_then(|kind| kind.as_bytes().get(..b"text/html".len()));
    kind.is_some_and(|kind| kind.eq_ignore_ascii_case(b"text/html"))
}

/// Reads the beginning of an error's body, and adds to its head why Metrica refused.
async fn classify(streaming: &mut Streaming, fields: &mut HeaderMap, status: u16) -> Result<(), ResponseError> {
    let read = streaming.read_ahead().await;
    // What came before it broke off counts all the same.
    let error_type = streaming.take_error_type();
    let progress = streaming.progress();
    let refused = error_type.and_then(|error_type| progress.refused(status, error_type));
    read?;
    if let Some((mut diagnosis, conclusion)) = refused {
        if let Some(conclusion) = conclusion {
            // Boxed: few requests wait, and all would have room for it.
            let concluded = Box::pin(tokio::time::timeout(CONCLUSION, conclusion)).await;
            if let Ok(Ok(conclusion)) = concluded {
                diagnosis = diagnosis.concluded(conclusion);
                progress.diagnosed(diagnosis);
            }
        }
        set_reason(fields, diagnosis.cause.as_str(), hint(diagnosis));
    }
    Ok(())
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
    fn rule_2_a_page_is_told_by_its_type() {
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

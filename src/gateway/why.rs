//! Why Metrica refused: read from the beginning of an error's body, and said in its head.
//!
//! Where it reads as if the token were invalid, or refuses what the token did before, this request, and no other, waits up to
//! [`CONCLUSION`] for what a probe finds.

use std::borrow::Cow;
use std::time::Duration;

use http::HeaderValue;
use http::response::Parts;

use super::coding::Coding;
use super::exchange::Exchange;
use super::forward::not_passed_on;
use super::record;
use super::refusal::Refusal;
use super::streaming::Streaming;
use crate::policy::rejection::Rejection;

/// A request whose refusal raises doubts about its token waits so long to hear whether Metrica accepts it.
const CONCLUSION: Duration = Duration::from_secs(1);

/// What looks at the body of a success, where that may show whose the token is: a counter that was changed. Nothing else shows it of
/// a token that does not read, and nothing else is looked at.
pub fn counter_that_was_changed(head: &Parts, coding: Coding, exchange: &Exchange) -> Option<Refusal> {
    (head.status.is_success() && exchange.may_show_the_owner()).then(|| Refusal::new(coding))
}

/// Reads the beginning of an error's body, and says in its head why Metrica refused.
pub async fn hear_refusal(streaming: &mut Streaming, head: &mut Parts, exchange: &Exchange) -> Result<(), Rejection> {
    let read = streaming.read_ahead().await;
    // What it said before it broke off is heard all the same.
    let said = streaming.take_error_type();
    let refused = said.and_then(|error_type| exchange.refused_by_upstream(head.status.as_u16(), error_type));
    read.map_err(not_passed_on)?;
    if let Some((mut diagnosis, conclusion)) = refused {
        if let Some(conclusion) = conclusion {
            // Boxed: few requests wait, and all would have room for it.
            let concluded = Box::pin(tokio::time::timeout(CONCLUSION, conclusion)).await;
            if let Ok(Ok(conclusion)) = concluded {
                diagnosis = diagnosis.concluded(conclusion);
                exchange.diagnosed(diagnosis);
            }
        }
        let hint = match diagnosis.hint() {
            Cow::Borrowed(hint) => HeaderValue::from_static(hint),
            Cow::Owned(hint) => HeaderValue::try_from(hint).unwrap_or(HeaderValue::from_static(diagnosis.cause.hint())),
        };
        record::say_why(&mut head.headers, diagnosis.cause.as_str(), hint);
    }
    Ok(())
}

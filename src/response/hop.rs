//! Step 5, hop: sets the properties of the gate's own hop.
//!
//! 1. The version is HTTP/1.1, and the upstream's reason phrase is dropped.
//! 2. If the request has not ended, the caller's connection ends with this response, because the rest may never arrive
//!    (RFC 9112, section 9.6).

use http::header::CONNECTION;
use http::{HeaderValue, Version};

use super::framing::Framed;
use super::redirect::Local;

/// A head with the properties of this hop.
pub struct OurHop(Framed);

impl OurHop {
    /// Returns the head for the next step.
    pub(super) fn into_inner(self) -> Framed {
        self.0
    }
}

/// Runs the step.
pub fn of_the_gate(local: Local, request_is_complete: bool) -> OurHop {
    let mut framed = local.into_inner();
    let head = framed.head_mut();
    if !request_is_complete {
        head.headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    // The reason phrase is among the extensions.
    head.extensions.clear();
    head.version = Version::HTTP_11;
    OurHop(framed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::response::redirect::tests::local;

    #[test]
    fn rule_2_the_connection_ends_with_a_response_before_the_end_of_its_request() {
        for (is_complete, expected) in [(true, None), (false, Some("close"))] {
            let head = of_the_gate(local(200, &[("age", "1")]), is_complete).into_inner();
            let said = head.fields().get(CONNECTION).map(|value| value.to_str().unwrap());
            assert_eq!(said, expected);
        }
    }
}

//! Step 5, hop: what the gate itself says of this hop.
//!
//! 1. The version is HTTP/1.1, and the phrase of the status line is not the upstream's text.
//! 2. Where the request has not come to its end, the caller's connection ends with this response, as the rest may never come
//!    (RFC 9112, section 9.6).

use http::header::CONNECTION;
use http::{HeaderValue, Version};

use super::framing::Framed;
use super::redirect::Local;

/// A head as it goes out on this hop.
pub struct OurHop(Framed);

impl OurHop {
    /// What the next step works on.
    pub(super) fn into_inner(self) -> Framed {
        self.0
    }
}

/// The step.
pub fn of_the_gate(local: Local, request_is_complete: bool) -> OurHop {
    let mut framed = local.into_inner();
    let head = framed.head_mut();
    if !request_is_complete {
        head.headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    // The phrase of the status line is among them.
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

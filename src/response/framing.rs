//! Step 1, framing: ensures that a response is unambiguous, and that its body can be inspected.
//!
//! 1. An ambiguous head is refused, and so is an unsolicited 101 ([`length::is_sound`]).
//! 2. A body in a coding that cannot be inspected is refused ([`Coding::Other`]).

use http::response::Parts;
use http::{HeaderMap, StatusCode};
use strict_http::length;

use super::ResponseError;
use super::coding::Coding;

/// A head that is unambiguous.
pub struct Framed {
    head: Parts,
    body: Option<Coding>,
    reusable: bool,
}

impl Framed {
    /// Returns the status.
    pub(super) const fn status(&self) -> StatusCode {
        self.head.status
    }

    /// Returns the header fields.
    pub(super) const fn fields(&self) -> &HeaderMap {
        &self.head.headers
    }

    /// Returns the header fields, mutably.
    pub(super) const fn fields_mut(&mut self) -> &mut HeaderMap {
        &mut self.head.headers
    }

    /// Returns the coding of the body, if there is one.
    pub(super) const fn body(&self) -> Option<Coding> {
        self.body
    }

    /// Whether the connection may carry another response.
    pub(super) const fn is_reusable(&self) -> bool {
        self.reusable
    }

    /// Returns the head, mutably.
    pub(super) const fn head_mut(&mut self) -> &mut Parts {
        &mut self.head
    }

    /// Returns the finished head.
    pub(super) fn into_head(self) -> Parts {
        self.head
    }
}

/// Runs the step; `has_body`: the response has a body.
///
/// # Errors
/// An error if a rule is broken.
pub fn check(head: Parts, has_body: bool) -> Result<Framed, ResponseError> {
    let reusable = has_body || !length::announces_a_body(&head.headers);
    if !length::is_sound(head.status, &head.headers) {
        return Err(ResponseError::Ambiguous);
    }
    let body = has_body.then(|| Coding::of(&head.headers));
    if body == Some(Coding::Other) {
        return Err(ResponseError::Encoding);
    }
    Ok(Framed { head, body, reusable })
}

#[cfg(test)]
pub mod tests {
    use http::Response;

    use super::*;

    /// Returns a head with these fields.
    pub fn head(status: u16, fields: &[(&str, &str)]) -> Parts {
        let mut response = Response::builder().status(status);
        for (name, value) in fields {
            response = response.header(*name, *value);
        }
        response.body(()).unwrap().into_parts().0
    }

    /// Returns a head that has passed this step.
    pub fn framed(status: u16, fields: &[(&str, &str)]) -> Framed {
        check(head(status, fields), true).ok().unwrap()
    }

    fn checked(status: u16, fields: &[(&str, &str)], has_body: bool) -> Result<(Option<Coding>, bool), String> {
        let checked = check(head(status, fields), has_body);
        checked.map(|framed| (framed.body(), framed.is_reusable())).map_err(|error| error.to_string())
    }

    #[test]
    fn rule_1_a_head_has_one_meaning() {
        assert_eq!(checked(200, &[("content-length", "5")], true), Ok((Some(Coding::Plain), true)));
        for (status, fields) in [
            (101, &[("upgrade", "h2c")][..]),
            (200, &[("content-length", "5"), ("content-length", "6")]),
            (200, &[("content-length", "5"), ("transfer-encoding", "chunked")]),
        ] {
            assert_eq!(checked(status, fields, true), Err(ResponseError::Ambiguous.to_string()), "{fields:?}");
        }
    }

    #[test]
    fn rule_2_a_body_can_be_looked_into() {
        assert_eq!(checked(200, &[("content-encoding", "gzip")], true), Ok((Some(Coding::Gzip), true)));
        assert_eq!(checked(200, &[("content-encoding", "br")], true), Err(ResponseError::Encoding.to_string()));
        assert_eq!(checked(200, &[("content-encoding", "br")], false), Ok((None, true)));
        // An announced body may still arrive.
        assert_eq!(checked(304, &[("content-length", "5")], false), Ok((None, false)));
    }
}

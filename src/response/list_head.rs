//! Step 6, the head of a list of counters for a caller that may see some of them (rule 5 of [`crate::policy::rules`]).
//!
//! 1. The gate requests an uncompressed list. A successful response that is compressed or not JSON cannot be inspected,
//!    and is refused; any other response passes.
//! 2. The filtered body has another length, so the fields that describe the original body are removed, also in the
//!    response to a HEAD.

use std::sync::Arc;

use http::HeaderMap;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, ETAG};

use super::ResponseError;
use super::coding::Coding;
use super::framing::Framed;
use super::hop::OurHop;
use super::list_filter::NotAList;

/// A head whose body can be filtered, if it has to be.
pub struct Limited {
    framed: Framed,
    counters: Option<Arc<[u64]>>,
}

impl Limited {
    /// Returns the head.
    pub(super) const fn framed(&self) -> &Framed {
        &self.framed
    }

    /// Returns the head, mutably.
    pub(super) const fn framed_mut(&mut self) -> &mut Framed {
        &mut self.framed
    }

    /// Splits into the head, and the counters that may pass if its body is filtered.
    pub(super) fn into_parts(self) -> (Framed, Option<Arc<[u64]>>) {
        let has_body = self.framed.body().is_some();
        (self.framed, self.counters.filter(|_| has_body))
    }
}

/// Runs the step; `counters`: the only ones that may pass in a list, if given.
///
/// # Errors
/// An error if the body cannot be inspected (rule 1).
pub fn check(hop: OurHop, counters: Option<Arc<[u64]>>) -> Result<Limited, ResponseError> {
    let mut framed = hop.into_inner();
    let counters = counters.filter(|_| framed.status().is_success());
    if counters.is_some() {
        let body = framed.body();
        take_head(framed.fields_mut(), body)?;
    }
    Ok(Limited { framed, counters })
}

/// Applies rules 1 and 2; `body`: the coding of the body, `None` for a HEAD.
fn take_head(fields: &mut HeaderMap, body: Option<Coding>) -> Result<(), ResponseError> {
    let is_plain_json = || {
        let kind = fields.get(CONTENT_TYPE).and_then(|value| value.as_bytes().split(|byte| *byte == b';').next());
        let known = [&b"application/json"[..], b"application/x-yametrika+json"];
        kind.is_some_and(|kind| known.iter().any(|known| kind.trim_ascii().eq_ignore_ascii_case(known)))
    };
    if body.is_some_and(|coding| coding != Coding::Plain || !is_plain_json()) {
        return Err(ResponseError::NotFilterable(NotAList));
    }
    for name in [CONTENT_LENGTH, ETAG] {
        fields.remove(name);
    }
    for name in ["content-digest", "content-md5", "digest", "repr-digest"] {
        fields.remove(name);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::response::hop::of_the_gate;
    use crate::response::redirect::tests::local;

    fn checked(status: u16, fields: &[(&str, &str)]) -> Result<(bool, Vec<String>), ResponseError> {
        let limited = check(of_the_gate(local(status, fields), true), Some([5].into()))?;
        let names = limited.framed.fields().keys().map(ToString::to_string).collect();
        Ok((limited.counters.is_some(), names))
    }

    #[test]
    fn rule_1_only_a_plain_list_of_a_success_is_filtered() {
        for kind in ["application/json; charset=utf-8", "APPLICATION/x-yametrika+JSON"] {
            assert_eq!(checked(200, &[("content-type", kind)]).ok(), Some((true, vec!["content-type".to_owned()])));
        }
        for fields in [
            &[("content-type", "text/csv")][..],
            &[],
            &[("content-type", "application/json"), ("content-encoding", "gzip")],
        ] {
            assert!(matches!(checked(200, fields), Err(ResponseError::NotFilterable(_))), "{fields:?}");
            assert!(checked(403, fields).is_ok_and(|(is_filtered, _)| !is_filtered), "{fields:?}");
        }
    }

    #[test]
    fn rule_2_fields_of_the_whole_list_stay_here() {
        let fields = [("content-type", "application/json"), ("content-length", "5"), ("etag", "x"), ("age", "1")];
        assert_eq!(checked(200, &fields).ok().unwrap().1, ["content-type", "age"]);
        assert_eq!(checked(404, &fields).ok().unwrap().1.len(), 4);
    }
}

//! The id of a distributed trace, which a caller sends in `traceparent` (W3C Trace Context, level 1).

use http::{HeaderMap, HeaderName};

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// The trace id: 32 lower-case hexadecimal digits, not all zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceId([u8; 32]);

impl TraceId {
    /// Returns the trace id that a request names; `None` without a single valid `traceparent`.
    #[must_use]
    pub fn of(fields: &HeaderMap) -> Option<Self> {
        let mut values = fields.get_all(&TRACEPARENT).iter();
        let (Some(value), None) = (values.next(), values.next()) else { return None };
        let (version, rest) = value.as_bytes().split_first_chunk::<2>()?;
        let (id, rest) = rest.strip_prefix(b"-")?.split_first_chunk::<32>()?;
        let (parent, rest) = rest.strip_prefix(b"-")?.split_first_chunk::<16>()?;
        let (flags, rest) = rest.strip_prefix(b"-")?.split_first_chunk::<2>()?;
        // Later versions may append fields.
        let ends = rest.is_empty() || (version != b"00" && rest.starts_with(b"-"));
        let is_hex = |bytes: &[u8]| bytes.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        let is_valid = ends && version != b"ff" && [version.as_slice(), id, parent, flags].into_iter().all(is_hex);
        let is_zero = |bytes: &[u8]| bytes.iter().all(|byte| *byte == b'0');
        (is_valid && !is_zero(id) && !is_zero(parent)).then_some(Self(*id))
    }

    /// The digits.
    #[must_use]
    pub const fn digits(&self) -> &[u8] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn id(values: &[&str]) -> Option<String> {
        let mut fields = HeaderMap::new();
        values.iter().for_each(|value| _ = fields.append("traceparent", HeaderValue::from_str(value).unwrap()));
        TraceId::of(&fields).map(|id| String::from_utf8(id.digits().to_vec()).unwrap())
    }

    #[test]
    fn the_examples_of_the_standard_are_read() {
        let expected = Some("4bf92f3577b34da6a3ce929d0e0e4736".to_owned());
        assert_eq!(id(&[PARENT]), expected);
        assert_eq!(id(&[&PARENT.replace("00-4", "cc-4")]), expected, "a later version");
        assert_eq!(id(&[&format!("{}-what-the-future-will-be-like", PARENT.replace("00-4", "cc-4"))]), expected);
    }

    #[test]
    fn anything_else_is_no_trace_id() {
        for wrong in [
            "",
            "00-1-2-01",
            &PARENT.to_uppercase(),
            &PARENT.replace("00-4", "ff-4"),
            &PARENT.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32)),
            &PARENT.replace("00f067aa0ba902b7", &"0".repeat(16)),
            &PARENT.replace('4', "g"),
            &PARENT.replace("-0", "_0"),
            &format!("{PARENT}-more"),
            &format!("{PARENT}0"),
            &PARENT[..54],
        ] {
            assert_eq!(id(&[wrong]), None, "{wrong}");
        }
        assert_eq!(id(&[PARENT, PARENT]), None, "two name none");
        assert_eq!(id(&[]), None);
    }
}

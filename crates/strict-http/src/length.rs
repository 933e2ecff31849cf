//! Framing of responses: a response whose end is ambiguous is rejected (`upstream_protocol`, 502).
//!
//! hyper rejects an invalid status line, version or field, lengths that differ, and `Transfer-Encoding` in HTTP/1.0
//! (RFC 9112, sections 4 and 6). This module rejects the ambiguous responses that hyper accepts:
//!
//! 1. `Transfer-Encoding` that is not exactly one `chunked`, or that is combined with `Content-Length`.
//! 2. `Content-Length` in several lines, as a list, or with anything but digits, also in a response without a body.
//! 3. 204 with a length other than 0, or with `Transfer-Encoding` (RFC 9110, section 8.6).
//! 4. An unrequested status (101, 206: no upgrade or range is ever requested) or an invalid one (above 599).
//!
//! 5. A response without a body (to HEAD, or 304) can announce the length that a body would have. Some servers send that
//!    body anyway, so the connection is not reused.

use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderMap, StatusCode};

/// Whether a response is unambiguous (rules 1 to 4).
#[must_use]
pub fn is_sound(status: StatusCode, fields: &HeaderMap) -> bool {
    let status_fits = match status {
        StatusCode::PARTIAL_CONTENT => false,
        StatusCode::NO_CONTENT => !announces_a_body(fields),
        other => (200..600).contains(&other.as_u16()),
    };
    status_fits && length_is_plain(fields) && coding_is_plain(fields)
}

/// Whether the fields announce a non-empty body (rule 5).
#[must_use]
pub fn announces_a_body(fields: &HeaderMap) -> bool {
    fields.contains_key(TRANSFER_ENCODING) || fields.get(CONTENT_LENGTH).is_some_and(|length| length != "0")
}

/// Parses a `Content-Length` of a response or a request: digits only (RFC 9110, section 8.6), and at most 18 of them, more
/// than any body needs.
#[must_use]
pub fn length(value: &[u8]) -> Option<u64> {
    let plain = (1..=18).contains(&value.len()) && value.iter().all(u8::is_ascii_digit);
    str::from_utf8(value).ok().filter(|_| plain)?.parse().ok()
}

fn length_is_plain(fields: &HeaderMap) -> bool {
    let mut lengths = fields.get_all(CONTENT_LENGTH).iter();
    lengths.next().is_none_or(|value| length(value.as_bytes()).is_some()) && lengths.next().is_none()
}

fn coding_is_plain(fields: &HeaderMap) -> bool {
    let mut codings = fields.get_all(TRANSFER_ENCODING).iter();
    let Some(first) = codings.next() else { return true };
    first.as_bytes().eq_ignore_ascii_case(b"chunked")
        && codings.next().is_none()
        && !fields.contains_key(CONTENT_LENGTH)
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    fn sound(status: u16, fields: &[(&'static str, &'static str)]) -> bool {
        let field = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        is_sound(StatusCode::from_u16(status).unwrap(), &fields.iter().map(field).collect())
    }

    const LENGTH: &str = "content-length";
    const CODING: &str = "transfer-encoding";

    #[test]
    fn rule_1_chunked_is_the_only_coding_and_occurs_once() {
        assert!(sound(200, &[(CODING, "Chunked")]));
        for coding in ["gzip, chunked", "chunked, chunked", "chunked,", "identity", "xchunked", "", "chunked;a=b"] {
            assert!(!sound(200, &[(CODING, coding)]), "{coding}");
        }
        assert!(!sound(200, &[(CODING, "chunked"), (CODING, "chunked")]));
        assert!(!sound(200, &[(CODING, "chunked"), (LENGTH, "1")]));
        assert!(!sound(304, &[(CODING, "gzip")]));
    }

    #[test]
    fn rule_2_content_length_occurs_once() {
        assert!(sound(200, &[(LENGTH, "10")]) && sound(304, &[(LENGTH, "10")]) && sound(200, &[]));
        for length in ["5, 5", "+5", "-5", "", "5 5", "0x5", "5,"] {
            assert!(!sound(200, &[(LENGTH, length)]), "{length}");
            assert!(!sound(304, &[(LENGTH, length)]), "{length}");
        }
        assert!(!sound(200, &[(LENGTH, "5"), (LENGTH, "5")]));
    }

    #[test]
    fn rule_2_a_length_is_digits() {
        for (value, expected) in [("0", 0), ("007", 7), ("1234567890", 1_234_567_890)] {
            assert_eq!(length(value.as_bytes()), Some(expected));
        }
        for value in ["", " ", "+1", "-1", "1,1", "1 1", "0x1", "1e3", "1234567890123456789", "\u{661}"] {
            assert_eq!(length(value.as_bytes()), None, "{value:?}");
        }
    }

    #[test]
    fn rule_3_no_content_has_none() {
        assert!(sound(204, &[]) && sound(204, &[(LENGTH, "0")]));
        assert!(!sound(204, &[(LENGTH, "1")]) && !sound(204, &[(CODING, "chunked")]));
    }

    #[test]
    fn rule_4_only_expected_statuses_are_valid() {
        assert!([200, 299, 304, 420, 599].iter().all(|status| sound(*status, &[])));
        assert!([101, 103, 206, 600, 999].iter().all(|status| !sound(*status, &[])));
    }
}

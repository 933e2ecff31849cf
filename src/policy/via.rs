//! `Via`: marks forwarded requests, so that a request that returns is not forwarded again (RFC 9110, section 7.6.3).
//!
//! 1. A forwarded request has exactly one `Via`: the HTTP version of the client, and the gate's name. The client's own
//!    `Via` is dropped.
//! 2. A request whose `Via` names a gate, in any line, at any position, in any case, with any version or port, is a loop
//!    (`loop_detected`, 508). All gates have the same name, so a loop over several of them is detected too.

use http::header::VIA;
use http::{HeaderMap, HeaderValue, Version};
use strict_http::list_field::elements;

/// The name of every gate in `Via`.
const NAME: &[u8] = b"metrika-gate";

/// The value for a request received in `version` (rule 1).
#[must_use]
pub const fn value(version: Version) -> HeaderValue {
    match version {
        Version::HTTP_10 => HeaderValue::from_static("1.0 metrika-gate"),
        Version::HTTP_2 => HeaderValue::from_static("2.0 metrika-gate"),
        _ => HeaderValue::from_static("1.1 metrika-gate"),
    }
}

/// Whether a gate has forwarded the request before (rule 2).
#[must_use]
pub fn is_loop(headers: &HeaderMap) -> bool {
    elements(headers, &VIA).any(names_a_gate)
}

fn names_a_gate(element: &[u8]) -> bool {
    let mut words = element.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
    let Some(protocol) = words.next() else { return false };
    let received_by = words.next().unwrap_or(protocol);
    let mut parts = received_by.split(|byte| matches!(byte, b':' | b'('));
    parts.next().is_some_and(|host| host.strip_suffix(b".").unwrap_or(host).eq_ignore_ascii_case(NAME))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn looped(lines: &[&str]) -> bool {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(VIA, HeaderValue::from_str(line).unwrap());
        }
        is_loop(&headers)
    }

    #[test]
    fn rule_1_the_value_has_the_version_and_is_recognised() {
        for (version, expected) in [
            (Version::HTTP_10, "1.0 metrika-gate"),
            (Version::HTTP_11, "1.1 metrika-gate"),
            (Version::HTTP_2, "2.0 metrika-gate"),
        ] {
            assert_eq!(value(version), expected);
            assert!(looped(&[expected]));
        }
    }

    #[test]
    fn rule_2_a_gate_is_found_at_every_position() {
        for lines in [
            &["1.1 metrika-gate"][..],
            &["1.1 METRIKA-Gate"],
            &["HTTP/1.1 metrika-gate:8080 (a comment)"],
            &["2 metrika-gate.", "1.1 other"],
            &["1.0 fred, 1.1 p.example.net", "1.1 other", "1.1 last,1.1\tmetrika-gate"],
            &["1.1 other (a, b) ,,  1.1   metrika-gate(x)"],
            &["metrika-gate"],
            &["", " , 9.9 metrika-gate , "],
        ] {
            assert!(looped(lines), "{lines:?}");
        }
        for lines in [
            &[][..],
            &["1.1 other"],
            &["1.1 my-metrika-gate"],
            &["1.1 metrika-gate.example"],
            &["1.1 other (metrika-gate)"],
            &["metrika-gate other"],
        ] {
            assert!(!looped(lines), "{lines:?}");
        }
    }
}

//! Content codings: the codings that the gate requests, and the coding of a response body.
//!
//! 1. The gate requests gzip from Metrica if the caller accepts it (RFC 9110, section 12.5.3), and no other coding: it
//!    can inspect only gzip and uncompressed bodies.
//! 2. A body in any other coding, or in more than one, cannot be inspected.

use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING};
use http::{HeaderMap, HeaderValue};
use strict_http::cut;
use strict_http::list_field::elements;

/// The coding of a body (`Content-Encoding`, RFC 9110, section 8.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coding {
    /// Uncompressed.
    Plain,
    /// gzip.
    Gzip,
    /// A coding that the gate cannot read (rule 2).
    Other,
}

impl Coding {
    /// Returns the coding that a response's header fields name, over all their lines.
    #[must_use]
    pub fn of(fields: &HeaderMap) -> Self {
        let mut names = elements(fields, &CONTENT_ENCODING).filter(|name| !is(name, b"identity"));
        match (names.next(), names.next()) {
            (None, _) => Self::Plain,
            (Some(name), None) if is_gzip(name) => Self::Gzip,
            (Some(_), _) => Self::Other,
        }
    }
}

/// Returns the `Accept-Encoding` for Metrica on behalf of a caller with these fields (rule 1).
#[must_use]
pub fn asked_for(fields: &HeaderMap) -> HeaderValue {
    let weighed = || elements(fields, &ACCEPT_ENCODING).map(weighed);
    let named = weighed().find(|(name, _)| is_gzip(name));
    let taken = named.or_else(|| weighed().find(|(name, _)| *name == b"*"));
    HeaderValue::from_static(if taken.is_some_and(|(_, wanted)| wanted) { "gzip" } else { "identity" })
}

fn is(name: &[u8], known: &[u8]) -> bool {
    name.eq_ignore_ascii_case(known)
}

fn is_gzip(name: &[u8]) -> bool {
    is(name, b"gzip") || is(name, b"x-gzip")
}

/// Returns a coding's name, and whether its weight is above zero (RFC 9110, section 12.4.2). An invalid weight counts as
/// zero.
fn weighed(element: &[u8]) -> (&[u8], bool) {
    let name = cut::before(element, b';').trim_ascii();
    let mut parameters = element.split(|byte| *byte == b';').skip(1).map(<[u8]>::trim_ascii);
    let wanted = parameters.all(|part| match part.split_first_chunk::<2>() {
        Some((b"q=" | b"Q=", weight)) => {
            let digits = weight.iter().all(|byte| byte.is_ascii_digit() || *byte == b'.');
            digits && weight.iter().any(|byte| (b'1'..=b'9').contains(byte))
        }
        Some(_) | None => true,
    });
    (name, wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(name: http::HeaderName, lines: &[&'static str]) -> HeaderMap {
        lines.iter().map(|line| (name.clone(), HeaderValue::from_static(line))).collect()
    }

    #[test]
    fn rule_1_gzip_where_the_caller_takes_it() {
        for (lines, expected) in [
            (&[][..], "identity"),
            (&[""], "identity"),
            (&["identity"], "identity"),
            (&["gzip"], "gzip"),
            (&["GZip;q=1.0, br"], "gzip"),
            (&["br", "deflate, x-gzip ; q=0.001"], "gzip"),
            (&["br, zstd, deflate"], "identity"),
            (&["gzip;q=0"], "identity"),
            (&["gzip; Q=0.000, *"], "identity"),
            (&["gzip;q=-1"], "identity"),
            (&["gzip;q=x"], "identity"),
            (&["*"], "gzip"),
            (&["*;q=0"], "identity"),
            (&["*;q=0, gzip"], "gzip"),
            (&["gzipped"], "identity"),
        ] {
            assert_eq!(asked_for(&fields(ACCEPT_ENCODING, lines)), expected, "{lines:?}");
        }
    }

    #[test]
    fn rule_2_only_plain_and_gzip_bodies_can_be_inspected() {
        for (lines, expected) in [
            (&[][..], Coding::Plain),
            (&[""], Coding::Plain),
            (&["identity"], Coding::Plain),
            (&["gzip"], Coding::Gzip),
            (&[" X-GZIP "], Coding::Gzip),
            (&["identity, gzip"], Coding::Gzip),
            (&["br"], Coding::Other),
            (&["gzip, gzip"], Coding::Other),
            (&["gzip", "gzip"], Coding::Other),
            (&["gzip", "br"], Coding::Other),
        ] {
            assert_eq!(Coding::of(&fields(CONTENT_ENCODING, lines)), expected, "{lines:?}");
        }
    }
}

//! The body of a request, as far as its head tells.

use http::HeaderMap;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};

use crate::rules::{BODY_BYTES, Breach};

/// What the head of a request says of its body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BodyHead {
    /// It is no shorter.
    pub shortest: u64,
    /// It is a form, which some servers read as more parameters of the target: policy would not have seen them. The API takes
    /// JSON and files.
    pub is_form: bool,
    is_json: bool,
}

impl BodyHead {
    /// What `fields` say of a body that is no shorter than `shortest`.
    #[must_use]
    pub fn of(fields: &HeaderMap, shortest: u64) -> Self {
        let types = || fields.get_all(CONTENT_TYPE).iter().map(|value| value.as_bytes());
        let (is_form, mut types) = (types().any(is_form), types());
        let is_json = types.next().is_some_and(is_json) && types.next().is_none();
        Self { shortest, is_form, is_json: is_json && !fields.contains_key(CONTENT_ENCODING) }
    }

    /// Whether the body can be read for its counters, before any of it is.
    ///
    /// # Errors
    /// [`Breach::BodyKind`] and [`Breach::BodyLength`].
    pub fn check_kind(self) -> Result<(), Breach> {
        if !self.is_json {
            return Err(Breach::BodyKind);
        }
        let shortest = usize::try_from(self.shortest).unwrap_or(usize::MAX);
        if shortest > BODY_BYTES { Err(Breach::BodyLength) } else { Ok(()) }
    }
}

/// Whether some reader takes it for a form: one of several types, and in quotes, too.
fn is_form(value: &[u8]) -> bool {
    let mut types = value.split(|byte| matches!(byte, b';' | b',')).map(|kind| {
        let is_around = |byte: &u8| !matches!(byte, b'"' | b'\'' | b' ' | b'\t');
        let begins = kind.iter().position(is_around).unwrap_or(kind.len());
        let ends = kind.iter().rposition(is_around).map_or(begins, |last| last + 1);
        kind.get(begins..ends).unwrap_or_default()
    });
    types.any(|kind| kind.eq_ignore_ascii_case(b"application/x-www-form-urlencoded"))
}

/// The types that the API has for JSON, in the only encoding that all readers of JSON agree on (RFC 8259, section 8.1).
fn is_json(value: &[u8]) -> bool {
    let mut parts = value.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
    let kind = parts.next().unwrap_or_default();
    let known: [&[u8]; 2] = [b"application/json", b"application/x-yametrika+json"];
    let is_utf8 =
        |part: &[u8]| [&b"charset=utf-8"[..], b"charset=\"utf-8\""].iter().any(|one| part.eq_ignore_ascii_case(one));
    known.iter().any(|one| kind.eq_ignore_ascii_case(one)) && parts.all(is_utf8)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn kind(types: &[&'static str]) -> Result<(), Breach> {
        let fields = types.iter().map(|value| (CONTENT_TYPE, HeaderValue::from_static(value))).collect();
        BodyHead::of(&fields, 2).check_kind()
    }

    #[test]
    fn json_is_what_is_said_to_be_json_in_utf_8_once() {
        for known in [
            "application/json",
            "Application/JSON ; Charset=UTF-8",
            "application/x-yametrika+json",
            "application/json;charset=\"utf-8\"",
        ] {
            assert_eq!(kind(&[known]), Ok(()), "{known}");
        }
        for other in [
            "",
            "text/plain",
            "application/jsonp",
            "application/json, text/plain",
            "application/json; charset=utf-16",
            "application/json; charset=utf-8; charset=ibm037",
            "application/json; boundary=x",
            "multipart/form-data; boundary=x",
        ] {
            assert_eq!(kind(&[other]), Err(Breach::BodyKind), "{other}");
        }
        assert_eq!(kind(&[]), Err(Breach::BodyKind));
        assert_eq!(kind(&["application/json", "application/json"]), Err(Breach::BodyKind));
    }

    #[test]
    fn a_form_is_known_among_others_and_in_quotes() {
        for form in [
            "application/x-www-form-urlencoded",
            "Application/X-WWW-Form-Urlencoded; charset=utf-8",
            "text/plain, application/x-www-form-urlencoded",
            "\"application/x-www-form-urlencoded\"",
            " 'application/x-www-form-urlencoded' ;a=b",
            "text/plain; application/x-www-form-urlencoded",
        ] {
            assert!(is_form(form.as_bytes()), "{form}");
        }
        for other in ["", "application/json", "application/x-www-form-urlencoded2", "multipart/form-data; boundary=x"] {
            assert!(!is_form(other.as_bytes()), "{other}");
        }
    }

    #[test]
    fn what_is_packed_or_too_long_is_not_read() {
        let json = (CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let packed = HeaderMap::from_iter([json.clone(), (CONTENT_ENCODING, HeaderValue::from_static("gzip"))]);
        assert_eq!(BodyHead::of(&packed, 2).check_kind(), Err(Breach::BodyKind));
        let fields = HeaderMap::from_iter([json]);
        let most = u64::try_from(BODY_BYTES).unwrap();
        let long = |bytes| BodyHead::of(&fields, bytes).check_kind();
        assert_eq!((long(most), long(most + 1)), (Ok(()), Err(Breach::BodyLength)));
    }
}

//! The properties of a request body that its header declares.

use http::header::{CONTENT_ENCODING, CONTENT_TYPE, EXPECT, ORIGIN};
use http::{HeaderMap, HeaderName, HeaderValue};

use strict_http::cut;

use super::decide::Retype;
use crate::policy::rules::{BODY_BYTES, Breach};

/// The properties of a body, as its header declares them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BodyHead {
    /// The minimum length in bytes.
    pub shortest: u64,
    kind: Kind,
    packing: Compression,
    /// Whether a web page may have sent it: browsers send text and forms without a CORS preflight.
    may_be_of_a_page: bool,
    is_in_parts: bool,
    /// Whether the client waits for `100 Continue`.
    waits: bool,
}

/// The declared type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Json,
    /// A form, which some servers read as additional parameters that policy would not have seen. The API accepts JSON and
    /// files, but many clients declare their JSON as a form.
    Form,
    /// No type, text, or a misspelled JSON type.
    Untyped,
    /// A multipart or CSV file.
    File,
    Other,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Compression {
    Plain,
    Gzip,
    Other,
}

impl BodyHead {
    /// Reads the properties of a body of at least `shortest` bytes from `fields`.
    #[must_use]
    pub fn of(fields: &HeaderMap, shortest: u64) -> Self {
        let codings: Vec<_> = fields.get_all(CONTENT_ENCODING).iter().collect();
        let packing = match codings[..] {
            [] => Compression::Plain,
            [one] if one.as_bytes().eq_ignore_ascii_case(b"gzip") => Compression::Gzip,
            _ => Compression::Other,
        };
        let is_of_pages = |name: &HeaderName| *name == ORIGIN || name.as_str().starts_with("sec-fetch-");
        Self {
            shortest,
            kind: Kind::of(fields),
            packing,
            may_be_of_a_page: fields.keys().any(is_of_pages),
            is_in_parts: fields.get_all(CONTENT_TYPE).iter().any(|value| is_in_parts(value.as_bytes())),
            waits: fields.contains_key(EXPECT),
        }
    }

    /// The properties for strict callers: an untyped body is not inspected for JSON.
    #[must_use]
    pub const fn as_declared(self) -> Self {
        match self.kind {
            Kind::Untyped => Self { kind: Kind::Other, ..self },
            Kind::Json | Kind::Form | Kind::File | Kind::Other => self,
        }
    }

    /// Whether it is declared as a form.
    #[must_use]
    pub const fn is_form(self) -> bool {
        matches!(self.kind, Kind::Form)
    }

    /// Whether it is a multipart or CSV file, compressed or not.
    #[must_use]
    pub const fn is_file(self) -> bool {
        matches!(self.kind, Kind::File)
    }

    /// Whether some reader could treat it as a multipart body.
    #[must_use]
    pub const fn is_in_parts(self) -> bool {
        self.is_in_parts
    }

    /// Whether it is compressed in any way.
    #[must_use]
    pub const fn is_coded(self) -> bool {
        !matches!(self.packing, Compression::Plain)
    }

    /// Whether it is compressed with gzip.
    #[must_use]
    pub const fn is_packed(self) -> bool {
        matches!(self.packing, Compression::Gzip)
    }

    /// Whether it has no declared type, or is text.
    #[must_use]
    pub const fn is_untyped(self) -> bool {
        matches!(self.kind, Kind::Untyped)
    }

    /// The treatment of the declared type, if the body may be JSON that is not declared as JSON.
    #[must_use]
    pub fn retype(self) -> Option<Retype> {
        let could_be = self.packing == Compression::Plain && !self.may_be_of_a_page && self.is_short();
        match self.kind {
            Kind::Form if could_be => Some(Retype::Form),
            // Bodies that are streamed, or that wait for `100 Continue`, are not delayed.
            Kind::Untyped if could_be && self.shortest > 0 && !self.waits => Some(Retype::Untyped),
            Kind::Json | Kind::Form | Kind::Untyped | Kind::File | Kind::Other => None,
        }
    }

    fn is_short(self) -> bool {
        usize::try_from(self.shortest).is_ok_and(|shortest| shortest <= BODY_BYTES)
    }

    /// Checks whether rules can be applied to the body, before any of it is read.
    ///
    /// # Errors
    /// [`Breach::BodyKind`] and [`Breach::BodyLength`].
    pub fn check_kind(self) -> Result<(), Breach> {
        let is_readable = match self.kind {
            Kind::Json => true,
            Kind::Untyped | Kind::Form => !self.may_be_of_a_page,
            Kind::File | Kind::Other => false,
        };
        if !is_readable || self.packing == Compression::Other {
            return Err(Breach::BodyKind);
        }
        if self.is_short() { Ok(()) } else { Err(Breach::BodyLength) }
    }
}

impl Kind {
    fn of(fields: &HeaderMap) -> Self {
        let types = || fields.get_all(CONTENT_TYPE).iter().map(HeaderValue::as_bytes);
        if types().any(is_form) {
            return Self::Form;
        }
        let mut types = types();
        match (types.next(), types.next()) {
            (None, _) => Self::Untyped,
            (Some(one), None) if is_json(one) => Self::Json,
            (Some(one), None) if is_declared_as(one, &[b"text/plain", b"application/x-ymetrika+json"]) => Self::Untyped,
            (Some(one), None) if is_file(one) => Self::File,
            (Some(_), _) => Self::Other,
        }
    }
}

/// Whether some reader could treat the type as a form: also one of several types, or in quotes.
fn is_form(value: &[u8]) -> bool {
    let mut types = value.split(|byte| matches!(byte, b';' | b',')).map(bare);
    types.any(|kind| kind.eq_ignore_ascii_case(b"application/x-www-form-urlencoded"))
}

/// A type without the quotes and spaces around it.
fn bare(mut kind: &[u8]) -> &[u8] {
    while let [b'"' | b'\'' | b' ' | b'\t', rest @ ..] | [rest @ .., b'"' | b'\'' | b' ' | b'\t'] = kind {
        kind = rest;
    }
    kind
}

/// Whether it contains a multipart type, at any position.
fn is_in_parts(value: &[u8]) -> bool {
    value.windows(b"multipart/".len()).any(|some| some.eq_ignore_ascii_case(b"multipart/"))
}

/// Whether it is a JSON type of the API.
fn is_json(value: &[u8]) -> bool {
    is_declared_as(value, &[b"application/json", b"application/x-yametrika+json"])
}

/// Whether it is one of `types`, in UTF-8, the only encoding that all JSON readers support (RFC 8259, section 8.1).
fn is_declared_as(value: &[u8], types: &[&[u8]]) -> bool {
    let mut parts = value.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
    let is_one = |kind: &[u8]| types.iter().any(|one| kind.eq_ignore_ascii_case(one));
    let is_utf8 =
        |part: &[u8]| [&b"charset=utf-8"[..], b"charset=\"utf-8\""].iter().any(|one| part.eq_ignore_ascii_case(one));
    parts.next().is_some_and(is_one) && parts.all(is_utf8)
}

/// Whether it is a type of uploaded data, with any parameters.
fn is_file(value: &[u8]) -> bool {
    let kind = cut::before(value, b';').trim_ascii();
    [&b"multipart/form-data"[..], b"text/csv"].iter().any(|one| kind.eq_ignore_ascii_case(one))
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
    fn json_needs_one_content_type_with_utf_8() {
        for known in [
            "application/json",
            "Application/JSON ; Charset=UTF-8",
            "application/x-yametrika+json",
            "application/json;charset=\"utf-8\"",
        ] {
            assert_eq!(kind(&[known]), Ok(()), "{known}");
        }
        for untyped in ["text/plain", "Text/Plain; charset=utf-8", "application/x-ymetrika+json"] {
            assert_eq!(kind(&[untyped]), Ok(()), "{untyped}");
        }
        for other in [
            "",
            "application/jsonp",
            "application/json, text/plain",
            "application/json; charset=utf-16",
            "application/json; charset=utf-8; charset=ibm037",
            "application/json; boundary=x",
            "multipart/form-data; boundary=x",
        ] {
            assert_eq!(kind(&[other]), Err(Breach::BodyKind), "{other}");
        }
        assert_eq!(kind(&[]), Ok(()));
        assert_eq!(kind(&["application/json", "application/json"]), Err(Breach::BodyKind));
    }

    #[test]
    fn a_body_not_declared_as_json_may_become_json() {
        let retype = |fields: &[(HeaderName, &'static str)], shortest| {
            let fields = fields.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value)));
            BodyHead::of(&fields.collect(), shortest).retype()
        };
        let form = || (CONTENT_TYPE, "application/x-www-form-urlencoded");
        let text = || (CONTENT_TYPE, "text/plain");
        let most = u64::try_from(BODY_BYTES).unwrap();
        assert_eq!(retype(&[form()], most), Some(Retype::Form));
        assert_eq!((retype(&[text()], 1), retype(&[], 1)), (Some(Retype::Untyped), Some(Retype::Untyped)));
        assert_eq!((retype(&[form()], 0), retype(&[text()], 0)), (Some(Retype::Form), None));
        assert_eq!(retype(&[text(), (EXPECT, "100-continue")], 2), None);
        assert_eq!((retype(&[form()], most + 1), retype(&[text()], most + 1)), (None, None));
        assert_eq!(retype(&[(CONTENT_TYPE, "application/json")], 2), None);
        // Fields of requests that a page can send without a preflight.
        for name in ["origin", "sec-fetch-mode", "sec-fetch-user"] {
            let name = HeaderName::from_static(name);
            assert_eq!(retype(&[form(), (name.clone(), "null")], 2), None, "{name}");
            assert_eq!(retype(&[text(), (name.clone(), "cors")], 2), None, "{name}");
        }
        assert_eq!(retype(&[text(), (CONTENT_ENCODING, "gzip")], 2), None);
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
    fn a_body_with_an_unsupported_coding_or_length_is_not_read() {
        let json = (CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let packed = |coding: &'static str| {
            let coding = (CONTENT_ENCODING, HeaderValue::from_static(coding));
            BodyHead::of(&HeaderMap::from_iter([json.clone(), coding]), 2)
        };
        assert_eq!(packed("br").check_kind(), Err(Breach::BodyKind));
        assert_eq!(packed("gzip, gzip").check_kind(), Err(Breach::BodyKind));
        assert!(packed("GZIP").check_kind().is_ok() && packed("gzip").is_packed());
        let fields = HeaderMap::from_iter([json]);
        let most = u64::try_from(BODY_BYTES).unwrap();
        let long = |bytes| BodyHead::of(&fields, bytes).check_kind();
        assert_eq!((long(most), long(most + 1)), (Ok(()), Err(Breach::BodyLength)));
    }
}

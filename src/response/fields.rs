//! Step 2, fields: only allow-listed response headers are passed back to the caller; `docs/decisions/0003` has the
//! reasons.
//!
//! 1. The list: the description of the body, caching, `Allow`, `Location`, `Retry-After`, rate limits, and the request
//!    ids of Yandex. It excludes cookies, instructions to browsers (CORS, `Clear-Site-Data`, `Refresh`, `Link`),
//!    alternative routes to the host (`Alt-Svc`), hop-by-hop fields and fields of the gate's own.
//! 2. HTML, or any other content that a browser could run, is sandboxed (`Content-Security-Policy`).
//! 3. An interim response has none of the fields that describe a body or a location.

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};

use super::framing::Framed;
use crate::body::fields::{keep, remove_named_by_connection};
use crate::token::secret::Secret;

/// The header field that marks the gate's own error responses, as opposed to Metrica's.
pub const GATE_ERROR: HeaderName = HeaderName::from_static("x-gate-error");

/// The header field with the reason of a refusal by the gate or Metrica: the same word as in metrics and logs.
pub const GATE_REASON: HeaderName = HeaderName::from_static("x-gate-reason");

/// The header field with the remedy, in one line.
pub const GATE_HINT: HeaderName = HeaderName::from_static("x-gate-hint");

/// Adds the reason of a refusal, and the remedy.
pub fn set_reason(fields: &mut HeaderMap, reason: &'static str, hint: HeaderValue) {
    fields.insert(GATE_REASON, HeaderValue::from_static(reason));
    fields.insert(GATE_HINT, hint);
}

/// A head with only allow-listed fields.
pub struct Listed(Framed);

impl Listed {
    /// Returns the head for the next step.
    pub(super) fn into_inner(self) -> Framed {
        self.0
    }
}

/// Runs the step.
pub fn keep_listed(mut framed: Framed) -> Listed {
    clean_response(framed.fields_mut());
    Listed(framed)
}

/// Whether a field of this name, in lower case, is passed back (rule 1). Every name is matched whole: a part chosen by
/// the upstream could be the token.
fn is_returned(name: &[u8]) -> bool {
    matches!(
        name,
        b"age"
            | b"allow"
            | b"cache-control"
            | b"content-disposition"
            | b"content-encoding"
            | b"content-language"
            | b"content-length"
            | b"content-type"
            | b"date"
            | b"deprecation"
            | b"etag"
            | b"expires"
            | b"last-modified"
            | b"location"
            | b"pragma"
            | b"ratelimit"
            | b"ratelimit-limit"
            | b"ratelimit-policy"
            | b"ratelimit-remaining"
            | b"ratelimit-reset"
            | b"retry-after"
            | b"sunset"
            | b"trailer"
            | b"vary"
            | b"warning"
            | b"x-ratelimit-limit"
            | b"x-ratelimit-remaining"
            | b"x-ratelimit-reset"
            | b"x-yandex-req-id"
            | b"x-yandex-request-id"
    )
}

/// The buffer size for the longest name on the list.
const LONGEST: usize = 24;

/// Whether a field of this name, in any case, is passed back (rule 1).
#[must_use]
pub fn is_to_come_back(name: &[u8]) -> bool {
    let mut room = [0; LONGEST];
    room.get_mut(..name.len()).is_some_and(|lower| {
        lower.copy_from_slice(name);
        lower.make_ascii_lowercase();
        is_returned(lower)
    })
}

/// Removes the fields that are not passed back, and sandboxes the rest if needed (rules 1 and 2).
pub fn clean_response(headers: &mut HeaderMap) {
    remove_named_by_connection(headers);
    keep(headers, |name| is_returned(name.as_str().as_bytes()));
    if headers.get_all(header::CONTENT_TYPE).iter().any(may_run) {
        headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static("sandbox; default-src 'none'"));
    }
}

/// Whether a browser could run content of this type: HTML, and XML with styles or scripts.
fn may_run(content_type: &HeaderValue) -> bool {
    let bytes = content_type.as_bytes();
    let ends_so = |text: &[u8], word: &[u8]| {
        text.len()
            .checked_sub(word.len())
            .and_then(|at| text.get(at..))
            .is_some_and(|end| end.eq_ignore_ascii_case(word))
    };
    // Both end in an l, which most types contain once or twice.
    memchr::memchr2_iter(b'l', b'L', bytes)
        .filter_map(|at| bytes.get(..=at))
        .any(|text| ends_so(text, b"html") || ends_so(text, b"xml"))
}

/// Returns an interim response in HTTP/1.1 form (rule 3), and whether it contained the token.
#[must_use]
pub fn interim_response(status: StatusCode, fields: &HeaderMap, secret: &Secret) -> (Vec<u8>, bool) {
    let mut fields = fields.clone();
    clean_response(&mut fields);
    let of_an_answer =
        |name: &HeaderName| name.as_str().starts_with("content-") || [header::LOCATION, header::TRAILER].contains(name);
    keep(&mut fields, |name| !of_an_answer(name));
    let reflected = secret.take_from(&mut fields);
    let reason = status.canonical_reason().unwrap_or("Interim");
    let mut bytes = format!("HTTP/1.1 {} {reason}\r\n", status.as_u16()).into_bytes();
    for (name, value) in &fields {
        bytes.extend_from_slice(name.as_str().as_bytes());
        bytes.extend_from_slice(b": ");
        bytes.extend_from_slice(value.as_bytes());
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(b"\r\n");
    (bytes, reflected)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub fn map(fields: &[(&str, &str)]) -> HeaderMap {
        let field = |(name, value): &(&str, &str)| {
            (HeaderName::try_from(*name).unwrap(), HeaderValue::try_from(*value).unwrap())
        };
        let mut headers = HeaderMap::new();
        for (name, value) in fields.iter().map(field) {
            headers.append(name, value);
        }
        headers
    }

    pub fn left(headers: &HeaderMap) -> Vec<&str> {
        let mut names: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn rule_1_only_the_list_comes_back() {
        let listed = [
            "age",
            "allow",
            "cache-control",
            "content-disposition",
            "content-encoding",
            "content-language",
            "content-length",
            "content-type",
            "date",
            "deprecation",
            "etag",
            "expires",
            "last-modified",
            "location",
            "pragma",
            "ratelimit",
            "ratelimit-limit",
            "ratelimit-policy",
            "ratelimit-remaining",
            "ratelimit-reset",
            "retry-after",
            "sunset",
            "trailer",
            "vary",
            "warning",
            "x-ratelimit-limit",
            "x-ratelimit-remaining",
            "x-ratelimit-reset",
            "x-yandex-req-id",
            "x-yandex-request-id",
        ];
        let others = [
            "www-authenticate",
            "accept-ranges",
            "access-control-allow-credentials",
            "access-control-allow-origin",
            "alt-svc",
            "authorization",
            "clear-site-data",
            "connection",
            "content-location",
            "content-range",
            "keep-alive",
            "link",
            "nel",
            "proxy-authenticate",
            "proxy-connection",
            "refresh",
            "report-to",
            "server",
            "server-timing",
            "set-cookie",
            "set-cookie2",
            "strict-transport-security",
            "te",
            "transfer-encoding",
            "upgrade",
            "via",
            "x-forwarded-for",
            "x-gate-error",
            "x-gate-other",
            "x-powered-by",
            "x-ratelimit-token",
            "x-request-id",
        ];
        let fields: Vec<_> = listed.iter().chain(&others).map(|name| (*name, "1")).collect();
        let mut headers = map(&fields);
        clean_response(&mut headers);
        assert_eq!(left(&headers), listed);
        let mut headers = map(&[("connection", "ETag"), ("connection", "x, AGE"), ("etag", "1"), ("age", "1")]);
        clean_response(&mut headers);
        assert_eq!(left(&headers), [""; 0]);
    }

    #[test]
    fn rule_1_in_any_case() {
        for (name, expected) in [
            ("Content-Type", true),
            ("X-RATELIMIT-Remaining", true),
            ("Set-Cookie", false),
            ("", false),
            ("content-security-policy-report-only", false),
        ] {
            assert_eq!(is_to_come_back(name.as_bytes()), expected, "{name}");
        }
    }

    #[test]
    fn rule_2_pages_are_put_into_a_sandbox() {
        for (content_type, runs) in [
            ("text/html", true),
            ("TEXT/HTML; charset=utf-8", true),
            ("application/xhtml+xml", true),
            ("image/svg+xml", true),
            ("text/xml", true),
            ("application/json; charset=utf-8", false),
            ("text/csv", false),
        ] {
            let mut headers = map(&[("content-type", content_type), ("content-security-policy", "default-src *")]);
            clean_response(&mut headers);
            let policy = headers.get("content-security-policy").map(|policy| policy.to_str().unwrap());
            assert_eq!(policy, runs.then_some("sandbox; default-src 'none'"), "{content_type}");
        }
    }

    #[test]
    fn rule_3_an_interim_response_describes_no_body() {
        let fields = map(&[("retry-after", "1"), ("content-length", "5"), ("location", "/x"), ("trailer", "x")]);
        let secret = Secret::of(&HeaderValue::from_static("OAuth secret")).unwrap();
        let (bytes, reflected) = interim_response(StatusCode::PROCESSING, &fields, &secret);
        assert_eq!(String::from_utf8(bytes).unwrap(), "HTTP/1.1 102 Processing\r\nretry-after: 1\r\n\r\n");
        assert!(!reflected);
    }

    /// a byte beyond ASCII in the `Connection` line does not hide the other names in it.
    #[test]
    fn rule_1_a_byte_beyond_ascii_hides_no_name() {
        let mut headers = map(&[("connection", "etag, \u{e9}"), ("etag", "1"), ("age", "1")]);
        clean_response(&mut headers);
        assert_eq!(left(&headers), ["age"]);
    }
}

//! Header fields: which go to Metrica, and which come back. Both by an allow-list; `docs/decisions/0003` says why.
//!
//! Towards Metrica:
//! 1. Only fields of an allow-list go: content negotiation, conditions, caching, the description of the body,
//!    `User-Agent`, `X-Request-ID` and trace context. So no credential, cookie, forwarding or identity field can leave,
//!    whatever it is called. `Range` does not go: a token that comes back in parts could not be seen.
//! 2. Fields that `Connection` names go nowhere (RFC 9110, section 7.6.1), before ours are added.
//! 3. `Host`, `Authorization`, `Accept-Encoding`, `Via` and, for this hop, `Connection` and `TE` are the gate's own.
//!
//! Towards the caller:
//! 4. Only fields of an allow-list come back: the description of the body, caching, `Allow`, `Location`, `Retry-After`,
//!    rate limits, and the ids that Yandex gives to requests. So no cookie, no word to browsers
//!    (CORS, `Clear-Site-Data`, `Refresh`, `Link`), no other way to the host (`Alt-Svc`), no field of the hop and
//!    none in the gate's name does.
//! 5. A page or anything else that a browser could run is put into a sandbox (`Content-Security-Policy`).
//! 6. An interim response has none of the fields that describe a body or a place.
//! 7. Trailers, in both directions: only what says that a body is whole.

use http::header::{self, HeaderName};
use http::{HeaderMap, HeaderValue, StatusCode};
use strict_http::list_field::elements;

use super::coding;
use super::reflection::Secret;
use crate::metrics::Credential;

/// What a caller's fields asked for, beside what they say to Metrica.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// `Expect: 100-continue`.
    pub interim: bool,
    /// `TE: trailers`.
    pub trailers: bool,
    /// What becomes of `Accept-Encoding`.
    pub coding: HeaderValue,
}

/// Whether a field goes to Metrica (rule 1).
fn goes_up(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "accept"
            | "accept-charset"
            | "accept-language"
            | "cache-control"
            | "content-disposition"
            | "content-encoding"
            | "content-language"
            | "content-length"
            | "content-type"
            | "date"
            | "if-match"
            | "if-modified-since"
            | "if-none-match"
            | "if-unmodified-since"
            | "pragma"
            | "traceparent"
            | "tracestate"
            | "trailer"
            | "user-agent"
            | "x-request-id"
    )
}

/// The kind of credential that a field carries, for the count.
fn credential(name: &HeaderName) -> Option<Credential> {
    Some(match name.as_str() {
        "authorization" => Credential::Authorization,
        "proxy-authorization" => Credential::ProxyAuthorization,
        "cookie" | "cookie2" => Credential::Cookie,
        "authorization_"
        | "x-authorization"
        | "x-api-key"
        | "x-auth-token"
        | "x-access-token"
        | "x-oauth-token"
        | "oauth-token"
        | "oauth_token"
        | "access-token"
        | "access_token"
        | "x-ya-service-ticket"
        | "x-ya-user-ticket" => Credential::OtherHeader,
        _ => return None,
    })
}

/// Takes away everything that does not go to Metrica, and tells `dropped` of each credential (rules 1 and 2).
pub fn clean_request(headers: &mut HeaderMap, mut dropped: impl FnMut(Credential)) -> Asked {
    let interim = has_token(headers, &header::EXPECT, "100-continue");
    let trailers = has_token(headers, &header::TE, "trailers");
    // Counted before the fields that Connection names go, so that naming one does not hide it.
    headers.keys().filter_map(credential).for_each(&mut dropped);
    remove_named_by_connection(headers);
    let coding = coding::asked_for(headers);
    headers.remove(header::HOST);
    keep(headers, goes_up);
    Asked { interim, trailers, coding }
}

/// Whether a field of this name, in lower case, comes back (rule 4). No name has a part that the upstream chooses: it could
/// be the token.
fn comes_back(name: &[u8]) -> bool {
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

/// Room for the longest name that comes back.
const LONGEST: usize = 24;

/// The same for a name in any case, as it stands in the answer.
#[must_use]
pub fn is_to_come_back(name: &[u8]) -> bool {
    let mut room = [0; LONGEST];
    room.get_mut(..name.len()).is_some_and(|lower| {
        lower.copy_from_slice(name);
        lower.make_ascii_lowercase();
        comes_back(lower)
    })
}

/// Takes away what does not come back to the caller (rules 4 and 5).
pub fn clean_response(headers: &mut HeaderMap) {
    remove_named_by_connection(headers);
    keep(headers, |name| comes_back(name.as_str().as_bytes()));
    if headers.get_all(header::CONTENT_TYPE).iter().any(may_run) {
        headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static("sandbox; default-src 'none'"));
    }
}

/// Whether a browser could run what has this type: HTML, and XML with styles or scripts.
fn may_run(content_type: &HeaderValue) -> bool {
    let bytes = content_type.as_bytes();
    let ends_so = |text: &[u8], word: &[u8]| {
        text.len()
            .checked_sub(word.len())
            .and_then(|at| text.get(at..))
            .is_some_and(|end| end.eq_ignore_ascii_case(word))
    };
    // Both end in an l, which most types have once or twice.
    memchr::memchr2_iter(b'l', b'L', bytes)
        .filter_map(|at| bytes.get(..=at))
        .any(|text| ends_so(text, b"html") || ends_so(text, b"xml"))
}

/// Takes away what may not stand in trailers, in either direction (rule 7; RFC 9110, section 6.5.1).
pub fn clean_trailers(trailers: &mut HeaderMap) {
    let may_stand = |name: &HeaderName| {
        matches!(name.as_str(), "content-digest" | "content-md5" | "digest" | "etag" | "repr-digest" | "x-checksum")
    };
    keep(trailers, may_stand);
}

/// Takes away every field but those that are `wanted`.
fn keep(headers: &mut HeaderMap, wanted: impl Fn(&HeaderName) -> bool) {
    let unwanted: Vec<HeaderName> = headers.keys().filter(|name| !wanted(name)).cloned().collect();
    for name in unwanted {
        headers.remove(name);
    }
}

/// An interim response as it goes to a caller of HTTP/1.1 (rule 6), and whether it held the token.
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

fn remove_named_by_connection(headers: &mut HeaderMap) {
    if !headers.contains_key(header::CONNECTION) {
        return;
    }
    let named = elements(headers, &header::CONNECTION).filter_map(|name| HeaderName::from_bytes(name).ok());
    let named: Vec<HeaderName> = named.collect();
    headers.remove(header::CONNECTION);
    for name in named {
        headers.remove(name);
    }
}

fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    elements(headers, name).any(|one| one.eq_ignore_ascii_case(token.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(fields: &[(&str, &str)]) -> HeaderMap {
        let field = |(name, value): &(&str, &str)| {
            (HeaderName::try_from(*name).unwrap(), HeaderValue::try_from(*value).unwrap())
        };
        let mut headers = HeaderMap::new();
        for (name, value) in fields.iter().map(field) {
            headers.append(name, value);
        }
        headers
    }

    fn left(headers: &HeaderMap) -> Vec<&str> {
        let mut names: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn rule_1_only_the_list_goes_up_and_credentials_are_counted() {
        let mut headers = map(&[
            ("accept", "*/*"),
            ("content-type", "application/json"),
            ("user-agent", "x"),
            ("traceparent", "00-1-2-01"),
            ("authorization", "Bearer a"),
            ("authorization", "OAuth b"),
            ("proxy-authorization", "Basic c"),
            ("cookie", "d=e"),
            ("x-api-key", "f"),
            ("authorization_", "g"),
            ("x-forwarded-for", "1.2.3.4"),
            ("forwarded", "for=1"),
            ("x-http-method-override", "DELETE"),
            ("x-anything", "h"),
            ("host", "evil"),
            ("upgrade", "h2c"),
            ("http2-settings", "AA"),
            ("te", "trailers"),
        ]);
        let mut dropped = Vec::new();
        clean_request(&mut headers, |kind| dropped.push(kind));
        assert_eq!(left(&headers), ["accept", "content-type", "traceparent", "user-agent"]);
        dropped.sort_unstable();
        dropped.dedup();
        let expected =
            [Credential::Authorization, Credential::ProxyAuthorization, Credential::Cookie, Credential::OtherHeader];
        assert_eq!(dropped, expected);
    }

    #[test]
    fn rule_2_named_fields_go_in_any_case_and_over_several_lines() {
        let mut headers = map(&[
            ("connection", ""),
            ("connection", "close, Accept"),
            ("connection", "USER-AGENT,authorization"),
            ("accept", "*/*"),
            ("user-agent", "x"),
            ("range", "bytes=0-1"),
            ("pragma", "x"),
        ]);
        clean_request(&mut headers, |_| {});
        assert_eq!(left(&headers), ["pragma"]);
    }

    /// R-1: a byte beyond ASCII in the line of `Connection` does not hide what else it names, in either direction.
    #[test]
    fn rule_2_a_byte_beyond_ascii_hides_no_name() {
        for connection in ["user-agent, \u{e9}", "\u{e9},User-Agent", "x\u{e9}, etag ,user-agent"] {
            let fields = [("connection", connection), ("user-agent", "x"), ("pragma", "x")];
            let mut headers = map(&fields);
            clean_request(&mut headers, |_| {});
            assert_eq!(left(&headers), ["pragma"], "{connection}");
        }
        let mut headers = map(&[("connection", "etag, \u{e9}"), ("etag", "1"), ("age", "1")]);
        clean_response(&mut headers);
        assert_eq!(left(&headers), ["age"]);
        let asked = clean_request(&mut map(&[("te", "\u{e9}, trailers"), ("expect", "100-continue, \u{e9}")]), |_| {});
        assert!(asked.trailers && asked.interim);
    }

    #[test]
    fn rule_4_only_the_list_comes_back() {
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
    fn rule_4_in_any_case() {
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
    fn rule_5_pages_are_put_into_a_sandbox() {
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
    fn rule_6_an_interim_response_describes_no_body() {
        let fields = map(&[("retry-after", "1"), ("content-length", "5"), ("location", "/x"), ("trailer", "x")]);
        let secret = Secret::of(&HeaderValue::from_static("OAuth secret"));
        let (bytes, reflected) = interim_response(StatusCode::PROCESSING, &fields, &secret);
        assert_eq!(String::from_utf8(bytes).unwrap(), "HTTP/1.1 102 Processing\r\nretry-after: 1\r\n\r\n");
        assert!(!reflected);
    }

    #[test]
    fn rule_7_trailers_say_that_a_body_is_whole() {
        let mut trailers =
            map(&[("x-checksum", "1"), ("digest", "2"), ("set-cookie", "3"), ("x-any", "4"), ("host", "5")]);
        clean_trailers(&mut trailers);
        assert_eq!(left(&trailers), ["digest", "x-checksum"]);
    }

    #[test]
    fn what_is_asked_is_seen() {
        let fields = [("expect", "100-Continue"), ("te", "gzip, trailers"), ("accept-encoding", "gzip, br")];
        let asked = clean_request(&mut map(&fields), |_| {});
        assert_eq!(asked, Asked { interim: true, trailers: true, coding: HeaderValue::from_static("gzip") });
    }
}

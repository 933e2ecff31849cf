//! Header fields: which go to Metrica, and which come back.
//!
//! Towards Metrica:
//! 1. Only fields of an allow-list go: content negotiation, conditions, ranges, caching, the description of the body,
//!    `User-Agent`, `X-Request-ID` and trace context. So no credential, cookie, forwarding or identity field can leave,
//!    whatever it is called.
//! 2. Fields that `Connection` names go nowhere (RFC 9110, section 7.6.1), before ours are added.
//! 3. `Host`, `Authorization`, `Via` and, for this hop, `Connection` and `TE` are the gate's own.
//!
//! Towards the caller:
//! 4. Everything goes but fields of the hop, fields that `Connection` names, cookies, other ways to the host
//!    (`Alt-Svc`), words to browsers (`Access-Control-*`), and fields that only the gate sets (`X-Gate-*`).

use http::header::{self, HeaderName};
use http::{HeaderMap, HeaderValue, StatusCode};

use crate::metrics::Credential;

/// What a caller's fields asked for, beside what they say to Metrica.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Asked {
    /// `Expect: 100-continue`.
    pub interim: bool,
    /// `TE: trailers`.
    pub trailers: bool,
}

/// Whether a field goes to Metrica (rule 1).
fn goes_up(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "accept"
            | "accept-charset"
            | "accept-encoding"
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
            | "if-range"
            | "if-unmodified-since"
            | "pragma"
            | "range"
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
        | "x-ya-service-ticket"
        | "x-ya-user-ticket" => Credential::OtherHeader,
        _ => return None,
    })
}

/// Takes away everything that does not go to Metrica, and tells `dropped` of each credential (rules 1 and 2).
pub fn clean_request(headers: &mut HeaderMap, mut dropped: impl FnMut(Credential)) -> Asked {
    let asked = Asked {
        interim: has_token(headers, &header::EXPECT, "100-continue"),
        trailers: has_token(headers, &header::TE, "trailers"),
    };
    // Counted before the fields that Connection names go, so that naming one does not hide it.
    headers.keys().filter_map(credential).for_each(&mut dropped);
    remove_named_by_connection(headers);
    headers.remove(header::HOST);
    let unwanted: Vec<HeaderName> = headers.keys().filter(|name| !goes_up(name)).cloned().collect();
    for name in unwanted {
        headers.remove(name);
    }
    asked
}

/// Takes away what does not come back to the caller (rule 4).
pub fn clean_response(headers: &mut HeaderMap) {
    remove_named_by_connection(headers);
    let unwanted: Vec<HeaderName> = headers.keys().filter(|name| stays_here(name)).cloned().collect();
    for name in unwanted {
        headers.remove(name);
    }
}

fn stays_here(name: &HeaderName) -> bool {
    let name = name.as_str();
    name.starts_with("x-gate-")
        || name.starts_with("access-control-")
        || matches!(
            name,
            "alt-svc"
                | "authorization"
                | "keep-alive"
                | "proxy-authenticate"
                | "proxy-authentication-info"
                | "proxy-connection"
                | "set-cookie"
                | "set-cookie2"
                | "te"
                | "transfer-encoding"
                | "upgrade"
        )
}

/// Takes away what may not stand in trailers, in either direction: framing, routing, credentials, controls
/// (RFC 9110, section 6.5.1), and what the header's rules take away.
pub fn clean_trailers(trailers: &mut HeaderMap) {
    let forbidden = |name: &HeaderName| {
        stays_here(name)
            || credential(name).is_some()
            || matches!(
                name.as_str(),
                "connection"
                    | "content-encoding"
                    | "content-length"
                    | "content-range"
                    | "content-type"
                    | "expect"
                    | "host"
                    | "location"
                    | "trailer"
                    | "vary"
                    | "via"
                    | "cache-control"
                    | "max-forwards"
                    | "range"
                    | "date"
                    | "expires"
                    | "retry-after"
                    | "x-request-id"
                    | "forwarded"
            )
            || name.as_str().starts_with("x-forwarded-")
    };
    let unwanted: Vec<HeaderName> = trailers.keys().filter(|name| forbidden(name)).cloned().collect();
    for name in unwanted {
        trailers.remove(name);
    }
}

/// An interim response as it goes to a caller of HTTP/1.1.
#[must_use]
pub fn interim_response(status: StatusCode, fields: &HeaderMap) -> Vec<u8> {
    let mut fields = fields.clone();
    clean_response(&mut fields);
    let reason = status.canonical_reason().unwrap_or("Interim");
    let mut bytes = format!("HTTP/1.1 {} {reason}\r\n", status.as_u16()).into_bytes();
    for (name, value) in &fields {
        bytes.extend_from_slice(name.as_str().as_bytes());
        bytes.extend_from_slice(b": ");
        bytes.extend_from_slice(value.as_bytes());
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(b"\r\n");
    bytes
}

fn remove_named_by_connection(headers: &mut HeaderMap) {
    if !headers.contains_key(header::CONNECTION) {
        return;
    }
    let named: Vec<HeaderName> = (headers.get_all(header::CONNECTION).iter())
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| HeaderName::try_from(name.trim()).ok())
        .collect();
    headers.remove(header::CONNECTION);
    for name in named {
        headers.remove(name);
    }
}

fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    let has = |value: &HeaderValue| {
        let text = value.to_str().unwrap_or_default();
        text.split(',').any(|one| one.trim().eq_ignore_ascii_case(token))
    };
    headers.get_all(name).iter().any(has)
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
        ]);
        clean_request(&mut headers, |_| {});
        assert_eq!(left(&headers), ["range"]);
    }

    #[test]
    fn rule_4_what_comes_back() {
        let mut headers = map(&[
            ("content-type", "application/json"),
            ("connection", "x-hop"),
            ("x-hop", "1"),
            ("keep-alive", "timeout=5"),
            ("set-cookie", "a=b"),
            ("x-gate-error", "scope_denied"),
            ("alt-svc", "h3"),
            ("retry-after", "1"),
            ("x-other", "2"),
        ]);
        clean_response(&mut headers);
        assert_eq!(left(&headers), ["content-type", "retry-after", "x-other"]);
    }

    #[test]
    fn what_is_asked_is_seen() {
        let asked = clean_request(&mut map(&[("expect", "100-Continue"), ("te", "gzip, trailers")]), |_| {});
        assert_eq!(asked, Asked { interim: true, trailers: true });
    }
}

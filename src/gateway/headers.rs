//! The header fields of a request: an allow-list selects those that go to Metrica; `docs/decisions/0003` has the reasons.
//! Response fields have a list of their own ([`crate::response::fields`]).
//!
//! 1. Only fields of an allow-list are forwarded: content negotiation, conditions, caching, the description of the body,
//!    `User-Agent`, `X-Request-ID` and trace context. No credential, cookie, forwarding or identity field can leave,
//!    whatever its name. `Range` is not forwarded: a token that is split over partial responses could not be detected.
//! 2. Fields that `Connection` names are removed (RFC 9110, section 7.6.1), before the gate's own are added.
//! 3. `Host`, `Authorization`, `Accept-Encoding`, `Via` and, for this hop, `Connection` and `TE` are the gate's own.

use http::header::{self, HeaderName};
use http::{HeaderMap, HeaderValue};
use strict_http::list_field::elements;

use super::service_account::bearer;
use crate::body::fields::{keep, remove_named_by_connection};
use crate::metrics::Credential;
use crate::policy::offered::is_key;
use crate::response::coding;

/// The caller's requests to the gate itself, read from its header fields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GateFields {
    /// `Expect: 100-continue`.
    pub interim: bool,
    /// `TE: trailers`.
    pub trailers: bool,
    /// The value of the forwarded `Accept-Encoding`.
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

/// Returns the kind of credential that a field carries, for the count. A proof has identified the caller and does not count:
/// a key, and with `has_account` the token of a service account.
fn credential(headers: &HeaderMap, name: &HeaderName, has_account: bool) -> Option<Credential> {
    let is_account = |value: &HeaderValue| has_account && name == header::AUTHORIZATION && bearer(value).is_some();
    let is_proof = |value: &HeaderValue| is_key(value.as_bytes()) || is_account(value);
    let is_other = |kind| headers.get_all(name).iter().any(|value| !is_proof(value)).then_some(kind);
    Some(match name.as_str() {
        "authorization" => return is_other(Credential::Authorization),
        "proxy-authorization" => return is_other(Credential::ProxyAuthorization),
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

/// Removes every field that does not go to Metrica, and calls `dropped` for each credential (rules 1 and 2). `has_account`: the
/// request has proven a service account.
pub fn clean_request(headers: &mut HeaderMap, has_account: bool, mut dropped: impl FnMut(Credential)) -> GateFields {
    let interim = has_token(headers, &header::EXPECT, "100-continue");
    let trailers = has_token(headers, &header::TE, "trailers");
    // Counted before the fields that `Connection` names are removed, so that naming a credential does not hide it.
    headers.keys().filter_map(|name| credential(headers, name, has_account)).for_each(&mut dropped);
    remove_named_by_connection(headers);
    let coding = coding::asked_for(headers);
    headers.remove(header::HOST);
    keep(headers, goes_up);
    GateFields { interim, trailers, coding }
}

fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    elements(headers, name).any(|one| one.eq_ignore_ascii_case(token.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::response::fields::tests::{left, map};

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
        clean_request(&mut headers, false, |kind| dropped.push(kind));
        assert_eq!(left(&headers), ["accept", "content-type", "traceparent", "user-agent"]);
        dropped.sort_unstable();
        dropped.dedup();
        let expected =
            [Credential::Authorization, Credential::ProxyAuthorization, Credential::Cookie, Credential::OtherHeader];
        assert_eq!(dropped, expected);
    }

    #[test]
    fn rule_1_a_key_goes_and_is_not_counted() {
        let key = crate::policy::key::of_random(&[1; 43]).unwrap();
        let (bearer, basic) = (format!("Bearer {}", *key), format!("OAuth {}", *key));
        let mut headers = map(&[("authorization", &bearer), ("proxy-authorization", &basic), ("accept", "*/*")]);
        clean_request(&mut headers, false, |kind| panic!("{kind:?}"));
        assert_eq!(left(&headers), ["accept"]);
        let mut both = map(&[("authorization", &bearer), ("authorization", "OAuth y0_of-the-caller")]);
        let mut dropped = Vec::new();
        clean_request(&mut both, false, |kind| dropped.push(kind));
        assert_eq!((left(&both), dropped), (vec![], vec![Credential::Authorization]));
    }

    #[test]
    fn rule_1_the_token_of_a_service_account_goes_and_is_not_counted() {
        let fields = [("authorization", "Bearer eyJhIjoxfQ.e30.x")];
        let count = |fields: &[(&str, &str)], has_account| {
            let (mut headers, mut dropped) = (map(fields), 0);
            clean_request(&mut headers, has_account, |_| dropped += 1);
            assert!(headers.is_empty());
            dropped
        };
        assert_eq!((count(&fields, true), count(&fields, false)), (0, 1));
        // The token was in the field of its own.
        let both = [("x-gate-service-account", "eyJhIjoxfQ.e30.x"), ("authorization", "OAuth y0_of-the-caller")];
        assert_eq!(count(&both, true), 1);
        let elsewhere =
            [("x-gate-service-account", "eyJhIjoxfQ.e30.x"), ("proxy-authorization", "Bearer eyJhIjoxfQ.e30.x")];
        assert_eq!(count(&elsewhere, true), 1, "it is not read there");
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
        clean_request(&mut headers, false, |_| {});
        assert_eq!(left(&headers), ["pragma"]);
    }

    /// R-1: a byte beyond ASCII in the `Connection` line does not hide the other names in it.
    #[test]
    fn rule_2_a_byte_beyond_ascii_hides_no_name() {
        for connection in ["user-agent, \u{e9}", "\u{e9},User-Agent", "x\u{e9}, etag ,user-agent"] {
            let fields = [("connection", connection), ("user-agent", "x"), ("pragma", "x")];
            let mut headers = map(&fields);
            clean_request(&mut headers, false, |_| {});
            assert_eq!(left(&headers), ["pragma"], "{connection}");
        }
        let asked =
            clean_request(&mut map(&[("te", "\u{e9}, trailers"), ("expect", "100-continue, \u{e9}")]), false, |_| {});
        assert!(asked.trailers && asked.interim);
    }

    #[test]
    fn the_fields_that_the_gate_handles_are_recognised() {
        let fields = [("expect", "100-Continue"), ("te", "gzip, trailers"), ("accept-encoding", "gzip, br")];
        let asked = clean_request(&mut map(&fields), false, |_| {});
        assert_eq!(asked, GateFields { interim: true, trailers: true, coding: HeaderValue::from_static("gzip") });
    }
}

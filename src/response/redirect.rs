//! Step 4, redirect: a response may send its caller only to the gate. The gate itself never follows a redirect.
//!
//! 1. `Location` is passed on as path and query, so that following it leads to the gate. It must be a path, or exactly
//!    `https://` with the upstream's authority and then a path, a query, a fragment or nothing.
//! 2. The path and query must be acceptable to the gate as a target, so nothing passes that another parser could read as
//!    another host (`//x`, `/\x`, white space, user information, another port). The fragment is removed.
//! 3. Credential pairs are removed from the query, as on the way to Metrica.
//! 4. Any other `Location` on a 3xx is refused (`upstream_redirect`, 502); on another status the field is dropped.

use http::header::LOCATION;
use http::{HeaderMap, HeaderValue, StatusCode};
use strict_http::target;

use super::ResponseError;
use super::framing::Framed;
use super::redaction::Redacted;

/// A head that redirects only to the gate.
pub struct Local(Framed);

impl Local {
    /// Returns the head for the next step.
    pub(super) fn into_inner(self) -> Framed {
        self.0
    }
}

/// Runs the step for a response of `authority`; `limit` is the longest target that the gate accepts, in bytes.
///
/// # Errors
/// An error if the response redirects away from the gate (rule 4).
pub fn keep_local(redacted: Redacted, authority: &str, limit: usize) -> Result<Local, ResponseError> {
    let mut framed = redacted.into_inner();
    if keep_here(framed.status(), framed.fields_mut(), authority, limit) {
        Ok(Local(framed))
    } else {
        Err(ResponseError::Redirect)
    }
}

/// Rewrites `Location` so that it stays on the gate, or removes it; returns `false` if the response cannot be passed on.
fn keep_here(status: StatusCode, fields: &mut HeaderMap, authority: &str, limit: usize) -> bool {
    let mut places = fields.get_all(LOCATION).iter();
    let Some(first) = places.next() else { return true };
    let only = places.next().is_none();
    let here = first.to_str().ok().filter(|_| only).and_then(|place| origin_form(place, authority, limit));
    match here {
        Some(here) => {
            fields.insert(LOCATION, here);
            true
        }
        None => {
            fields.remove(LOCATION);
            !status.is_redirection()
        }
    }
}

/// Rules 1 to 3.
fn origin_form(place: &str, authority: &str, limit: usize) -> Option<HeaderValue> {
    let rest = match place.strip_prefix("https://") {
        Some(rest) => rest.strip_prefix(authority)?,
        None => place.starts_with('/').then_some(place)?,
    };
    let target = rest.split_once('#').map_or(rest, |(target, _)| target);
    let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
    let path = if path.is_empty() { "/" } else { path };
    target::check(path, query, limit).ok()?;
    let cleaned = query.and_then(|query| target::without_credentials(path, query));
    let whole = cleaned.unwrap_or_else(|| match query {
        Some(query) => format!("{path}?{query}").into(),
        None => path.to_owned().into(),
    });
    HeaderValue::from_maybe_shared(whole).ok()
}

#[cfg(test)]
pub mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::response::fields::keep_listed;
    use crate::response::framing::tests::framed;
    use crate::response::progress::tests::RecordedProgress;
    use crate::response::redaction::redact;
    use crate::token::secret::Secret;

    /// Returns a head that has passed this step.
    pub fn local(status: u16, fields: &[(&str, &str)]) -> Local {
        let secret = Secret::of(&HeaderValue::from_static("OAuth secretsecret")).unwrap();
        let redacted = redact(keep_listed(framed(status, fields)), &secret, &RecordedProgress::default());
        keep_local(redacted, AUTHORITY, 1000).ok().unwrap()
    }

    const AUTHORITY: &str = "api-metrika.yandex.net";

    fn kept(status: u16, places: &[&str]) -> Option<Option<String>> {
        let mut fields: HeaderMap =
            places.iter().map(|place| (LOCATION, HeaderValue::from_bytes(place.as_bytes()).unwrap())).collect();
        let passed = keep_here(StatusCode::from_u16(status).unwrap(), &mut fields, AUTHORITY, 1000);
        passed.then(|| fields.get(LOCATION).map(|place| place.to_str().unwrap().to_owned()))
    }

    #[test]
    fn rule_1_a_redirect_to_the_upstream_becomes_a_path() {
        for (place, expected) in [
            ("/", "/"),
            ("/stat/v1/data?ids=1&metrics=ym:s:visits", "/stat/v1/data?ids=1&metrics=ym:s:visits"),
            ("https://api-metrika.yandex.net", "/"),
            ("https://api-metrika.yandex.net/", "/"),
            ("https://api-metrika.yandex.net/a?b=c", "/a?b=c"),
            ("https://api-metrika.yandex.net?b=c", "/?b=c"),
            ("https://api-metrika.yandex.net#f", "/"),
            ("/a?b#c?d//e", "/a?b"),
        ] {
            for status in [201, 301, 302, 303, 307, 308] {
                assert_eq!(kept(status, &[place]), Some(Some(expected.to_owned())), "{place}");
            }
        }
    }

    #[test]
    fn rules_2_and_4_a_location_elsewhere_is_refused_on_a_3xx_or_dropped() {
        let long = format!("/{}", "a".repeat(1000));
        for place in [
            "",
            "//evil.example/",
            "/\\evil.example/",
            "\\\\evil.example",
            "///evil.example",
            "/a//b",
            "/a/../b",
            "/%2e%2e//evil.example",
            "/\t/evil.example",
            "/ /evil.example",
            "https:evil.example",
            "https:/evil.example",
            "https:///evil.example",
            "https://evil.example/",
            "HTTPS://api-metrika.yandex.net@evil.example/",
            "https://api-metrika.yandex.net@evil.example/",
            "https://api-metrika.yandex.net:pass@evil.example/",
            "https://api-metrika.yandex.net.evil.example/",
            "https://api-metrika.yandex.net\\.evil.example/",
            "https://api-metrika.yandex.net\\@evil.example/",
            "https://api-metrika.yandex.net:8443/",
            "https://api-metrika.yandex.net:443/",
            "https://user@api-metrika.yandex.net/",
            "https://api-metrika.yandex.net//evil.example",
            "http://api-metrika.yandex.net/",
            "HTTPS://api-metrika.yandex.net/",
            "javascript:alert(1)",
            "data:text/html,x",
            "relative",
            "?query",
            "#fragment",
            "/caf\u{e9}",
            &long,
        ] {
            assert_eq!(kept(302, &[place]), None, "{place}");
            assert_eq!(kept(201, &[place]), Some(None), "{place}");
        }
        assert_eq!(kept(302, &["/a", "/b"]), None);
        assert_eq!(kept(200, &["/a", "/a"]), Some(None));
        assert_eq!(kept(304, &[]), Some(None));
    }

    #[test]
    fn rule_3_a_query_has_no_credential() {
        let with = "https://api-metrika.yandex.net/a?b=c&oauth_token=x&access_token=y&d";
        assert_eq!(kept(302, &[with]), Some(Some("/a?b=c&d".to_owned())));
        let hidden = "https://api-metrika.yandex.net/a?b=c&%61ccess_token=y&d";
        assert_eq!(kept(302, &[hidden]), None);
    }

    /// Parts of a place that have confused those who follow it.
    fn places() -> impl Strategy<Value = String> {
        let parts = vec![
            AUTHORITY,
            "https://",
            "http://",
            "HTTPS://",
            "evil.example",
            "[::1]",
            "127.0.0.1",
            "user@",
            "@",
            "%40",
            ":443",
            ":8443",
            ":",
            ".",
            "..",
            "%2e%2e",
            "/",
            "//",
            "\\",
            "%2f",
            "%5c",
            "?",
            "#",
            "a",
            "a=b",
            " ",
            "\t",
        ];
        prop::collection::vec(prop::sample::select(parts), 0..7).prop_map(|parts| parts.concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20_000))]
        #[test]
        fn rules_1_and_2_no_redirect_leads_elsewhere(place in places()) {
            let Some(Some(here)) = kept(302, &[&place]) else { return Ok(()) };
            // As browsers read it: without tabs, and with / for \.
            let read = here.replace('\t', "").replace('\\', "/");
            prop_assert!(read.starts_with('/') && !read.starts_with("//"), "{} {}", place, here);
            let path = read.split('?').next().unwrap().to_lowercase().replace("%2e", ".").replace("%2f", "/").replace("%5c", "/");
            prop_assert!(path.split('/').all(|segment| segment != ".." && segment != "."), "{} {}", place, here);
            let named = place.strip_prefix("https://").map(|rest| rest.split(['/', '?', '#']).next().unwrap());
            prop_assert!(place.starts_with('/') || named == Some(AUTHORITY), "{} {}", place, here);
        }
    }
}

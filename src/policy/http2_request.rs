//! Checks of HTTP/2 requests that the HTTP/1.1 reader makes for HTTP/1.1 and that hyper does not make.
//!
//! hyper resets the streams of requests with an upper-case name, a hop-by-hop field, missing, repeated, unknown or late
//! pseudo-header fields, or a body of another length than declared (RFC 9113, sections 8.1.1 to 8.3). This module adds:
//!
//! 1. The header is at most `limits.header_bytes` long, counted as HTTP/1.1 would encode it (`headers_too_large`, 431).
//! 2. `:authority` or `Host` is present (RFC 9113, section 8.3.1; `bad_host`, 400).
//! 3. `:path` begins with a slash, because readers differ in whether they add a missing one (`bad_target`, 400).

use http::header::HOST;
use strict_http::Malformed;
use strict_http::target::Rule;

use super::decide::RequestHead;

/// Checks an HTTP/2 request against these rules.
///
/// # Errors
/// The kind of the refusal.
pub fn check(head: &RequestHead<'_>, header_bytes: usize) -> Result<(), Malformed> {
    if length(head) > header_bytes {
        return Err(Malformed::HeaderTooLarge);
    }
    if head.uri.authority().is_none() && !head.fields.contains_key(HOST) {
        return Err(Malformed::NoHost);
    }
    let target = head.uri.path_and_query().map_or("", |target| target.as_str());
    if !target.starts_with('/') && target != "*" {
        return Err(Rule::Beginning.at(0).into());
    }
    Ok(())
}

/// The length in HTTP/1.1: `method target HTTP/1.1` and `name: value`, each with a line end (rule 1).
fn length(head: &RequestHead<'_>) -> usize {
    let target = head.uri.path_and_query().map_or(0, |target| target.as_str().len());
    let host = head.uri.authority().map_or(0, |authority| "host: \r\n".len() + authority.as_str().len());
    let fields = head.fields.iter().map(|(name, value)| name.as_str().len() + value.len() + ": \r\n".len());
    head.method.as_str().len() + target + "  HTTP/1.1\r\n\r\n".len() + host + fields.sum::<usize>()
}

#[cfg(test)]
mod tests {
    use http::request::Parts;
    use http::{Request, Version};

    use super::*;

    fn head(uri: &str, hosts: &[&str]) -> Parts {
        let request = Request::builder().version(Version::HTTP_2).uri(uri);
        hosts.iter().fold(request, |request, host| request.header(HOST, *host)).body(()).unwrap().into_parts().0
    }

    fn length(parts: &Parts) -> usize {
        super::length(&RequestHead::of(parts, None))
    }

    fn check(parts: &Parts, header_bytes: usize) -> Result<(), Malformed> {
        super::check(&RequestHead::of(parts, None), header_bytes)
    }

    #[test]
    fn rule_1_length_and_number() {
        let one = head("http://localhost/path?query", &[]);
        let same = "GET /path?query HTTP/1.1\r\nhost: localhost\r\n\r\n";
        assert_eq!(length(&one), same.len());
        assert_eq!(check(&one, same.len()), Ok(()));
        assert_eq!(check(&one, same.len() - 1), Err(Malformed::HeaderTooLarge));
    }

    #[test]
    fn rule_2_a_host() {
        assert_eq!(check(&head("http://a/", &[]), 1000), Ok(()));
        assert_eq!(check(&head("/", &["a"]), 1000), Ok(()));
        assert_eq!(check(&head("/", &[]), 1000), Err(Malformed::NoHost));
    }

    #[test]
    fn rule_3_a_slash() {
        let mut odd = head("/", &["a"]);
        odd.uri = http::Uri::from(http::uri::PathAndQuery::from_static("?ids=1"));
        assert_eq!(check(&odd, 1000), Err(Rule::Beginning.at(0).into()));
    }
}

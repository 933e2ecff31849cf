//! Header fields in either direction: removal of hop-by-hop fields, and the fields allowed in trailers.
//!
//! 1. `Connection` and the fields that it names are dropped (RFC 9110, section 7.6.1).
//! 2. Trailers keep only fields that verify the integrity of the body (RFC 9110, section 6.5.1).

use http::{HeaderMap, HeaderName, header};
use strict_http::list_field::elements;

/// Removes fields that are not allowed in trailers, in either direction (rule 2).
pub fn clean_trailers(trailers: &mut HeaderMap) {
    let may_stand = |name: &HeaderName| {
        matches!(name.as_str(), "content-digest" | "content-md5" | "digest" | "etag" | "repr-digest" | "x-checksum")
    };
    keep(trailers, may_stand);
}

/// Removes all fields except `wanted` ones.
pub fn keep(headers: &mut HeaderMap, wanted: impl Fn(&HeaderName) -> bool) {
    let unwanted: Vec<HeaderName> = headers.keys().filter(|name| !wanted(name)).cloned().collect();
    for name in unwanted {
        headers.remove(name);
    }
}

/// Removes `Connection` and the fields that it names (rule 1). [`keep`] follows, with a list.
pub fn remove_named_by_connection(headers: &mut HeaderMap) {
    let mut options = headers.get_all(header::CONNECTION).iter();
    match (options.next(), options.next()) {
        (None, _) => return,
        // The usual case names one field, which no list of the callers has.
        (Some(option), None) if option == "keep-alive" || option == "close" => {
            headers.remove(header::CONNECTION);
            return;
        }
        (Some(_), _) => {}
    }
    let named = elements(headers, &header::CONNECTION).filter_map(|name| HeaderName::from_bytes(name).ok());
    let named: Vec<HeaderName> = named.collect();
    headers.remove(header::CONNECTION);
    for name in named {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn map(names: &[&'static str]) -> HeaderMap {
        names.iter().map(|name| (HeaderName::from_static(name), HeaderValue::from_static("1"))).collect()
    }

    fn left(fields: &HeaderMap) -> Vec<&str> {
        let mut names: Vec<_> = fields.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn rule_1_connection_and_the_fields_it_names_are_removed() {
        let mut fields = map(&["etag", "age", "te"]);
        fields.append(header::CONNECTION, HeaderValue::from_static("close, ETag"));
        fields.append(header::CONNECTION, HeaderValue::from_static("te"));
        remove_named_by_connection(&mut fields);
        assert_eq!(left(&fields), ["age"]);
    }

    #[test]
    fn rule_2_only_checksums_remain_of_the_trailers() {
        let mut trailers = map(&["x-checksum", "digest", "set-cookie", "x-any", "host"]);
        clean_trailers(&mut trailers);
        assert_eq!(left(&trailers), ["digest", "x-checksum"]);
    }
}

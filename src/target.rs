//! The request target: the bytes that policy reads are the bytes that go on the wire.
//!
//! A target is accepted when its path can mean only one thing to whoever reads it, and is otherwise refused, never
//! repaired (`bad_target`, 400):
//!
//! 1. The path starts with `/` and has only the characters of RFC 3986, section 3.3 (`pchar`), less `;`.
//! 2. A percent sign is followed by two hexadecimal digits, and what they say is not a character that may stand for
//!    itself or that separates: no encoded slash, backslash, dot, percent sign, semicolon, control or letter; beyond
//!    ASCII it is UTF-8.
//! 3. No segment is empty, `.` or `..`.
//! 4. The query has no control, no raw non-ASCII byte, no `#`, and no percent sign without two hexadecimal digits.
//! 5. A parameter's name has one spelling: no letter, digit, percent sign or control in it is percent-encoded, and none but
//!    `oauth_token` and `access_token` themselves can be taken for one of these, in another case, with other marks between
//!    the words, behind a semicolon, or decoded twice. None is `_method`, in any case: where frameworks read it, it says
//!    another method than the request. `ids`, `id`, `ulogin` and `direct_client_logins`, which say on whose data a request
//!    works, stand at most once.
//! 6. The whole is at most `limits.target_bytes` long, which is at most [`MAXIMUM_BYTES`] (`target_too_long`, 414).
//!
//! Of the query, only whole pairs named `oauth_token` or `access_token` are taken away, because a credential of the
//! caller never leaves; every other byte stays as it was.

use bytes::{Bytes, BytesMut};

/// The longest target that can be: `http::Uri` takes no longer one.
pub const MAXIMUM_BYTES: usize = 65_534;

/// Why a target is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadTarget {
    /// Breaks one of the rules 1 to 5.
    Ambiguous,
    /// Rule 6.
    TooLong,
}

/// Checks the rules of this module for a path and, where there is one, a query.
///
/// # Errors
/// [`BadTarget`] names the kind of rule that was broken.
pub fn check(path: &str, query: Option<&str>, limit: usize) -> Result<(), BadTarget> {
    let length = path.len() + query.map_or(0, |query| query.len() + 1);
    if length > limit {
        return Err(BadTarget::TooLong);
    }
    if path_is_canonical(path.as_bytes()) && query.is_none_or(|query| query_is_plain(query.as_bytes())) {
        Ok(())
    } else {
        Err(BadTarget::Ambiguous)
    }
}

fn path_is_canonical(path: &[u8]) -> bool {
    let Some((b'/', rest)) = path.split_first() else { return false };
    if rest.is_empty() {
        return true;
    }
    rest.split(|byte| *byte == b'/').all(segment_is_canonical)
}

fn segment_is_canonical(segment: &[u8]) -> bool {
    if matches!(segment, b"" | b"." | b"..") {
        return false;
    }
    let mut bytes = segment.iter();
    let mut beyond_ascii = false;
    while let Some(byte) = bytes.next() {
        let fine = match byte {
            b'%' => decoded(&mut bytes).is_some_and(|byte| {
                beyond_ascii |= !byte.is_ascii();
                must_be_encoded(byte)
            }),
            other => stands_for_itself(*other),
        };
        if !fine {
            return false;
        }
    }
    // An overlong form of a slash or a dot is no UTF-8 (RFC 3629, section 10).
    !beyond_ascii || String::from_utf8(plain(segment)).is_ok_and(|text| !text.contains(char::is_control))
}

/// With every percent-encoding taken off, once.
fn plain(text: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(text.len());
    let mut bytes = text.iter();
    while let Some(byte) = bytes.next() {
        let tried = bytes.clone();
        plain.push(match (byte, decoded(&mut bytes)) {
            (b'%', Some(said)) => said,
            (other, _) => {
                bytes = tried;
                *other
            }
        });
    }
    plain
}

/// The byte that the two hexadecimal digits after a percent sign say.
fn decoded(digits: &mut std::slice::Iter<'_, u8>) -> Option<u8> {
    let (high, low) = (digits.next()?, digits.next()?);
    Some((hex(*high)? << 4) | hex(*low)?)
}

const fn hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

/// What a path segment may hold as it is: `pchar` of RFC 3986 without `;`, which some readers cut at.
const fn stands_for_itself(byte: u8) -> bool {
    matches!(byte, b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~')
        || matches!(byte, b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b'=' | b':' | b'@')
}

/// What may be percent-encoded in a path: commas and colons as clients write them, spaces, and text beyond ASCII.
const fn must_be_encoded(byte: u8) -> bool {
    let separates = matches!(byte, b'/' | b'\\' | b'.' | b'%' | b';' | b'?' | b'#' | 0..=0x1f | 0x7f);
    let stands_for_itself = byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'~');
    !separates && !stands_for_itself
}

fn query_is_plain(query: &[u8]) -> bool {
    let mut bytes = query.iter();
    while let Some(byte) = bytes.next() {
        let fine = match byte {
            b'%' => decoded(&mut bytes).is_some(),
            b'#' | 0..=0x20 | 0x7f.. => false,
            _ => true,
        };
        if !fine {
            return false;
        }
    }
    let mut seen = 0;
    query.split(|byte| *byte == b'&').all(|pair| pair_is_plain(pair) && stands_once(name_of(pair), &mut seen))
}

/// The bit of a name that says on whose data a request works; 0 for any other.
const fn bit_of(name: &[u8]) -> u8 {
    match name {
        b"ids" => 1,
        b"id" => 2,
        b"ulogin" => 4,
        b"direct_client_logins" => 8,
        _ => 0,
    }
}

fn stands_once(name: &[u8], seen: &mut u8) -> bool {
    let (bit, before) = (bit_of(name), *seen);
    *seen |= bit;
    before & bit == 0
}

/// Rule 5. Some readers take a semicolon for an ampersand, so what follows one is looked at as a pair too.
fn pair_is_plain(pair: &[u8]) -> bool {
    let (first, behind) = match memchr::memchr(b';', pair) {
        Some(at) => (pair.get(..at).unwrap_or_default(), pair.get(at + 1..).unwrap_or_default()),
        None => (pair, &[][..]),
    };
    let name = name_of(first);
    let of_one_reading = is_credential(name_of(pair)) || !(looks_like_credential(name) || is_method(name));
    let behind_is_fine = || behind.split(|byte| *byte == b';').all(may_stand_behind_a_semicolon);
    of_one_reading && has_one_spelling(name) && (behind.is_empty() || behind_is_fine())
}

fn may_stand_behind_a_semicolon(pair: &[u8]) -> bool {
    let name = name_of(pair);
    let is_a_name = name.len() < pair.len();
    !looks_like_credential(name) && !(is_a_name && (is_method(name) || bit_of(name) != 0 || !has_one_spelling(name)))
}

fn is_method(name: &[u8]) -> bool {
    name.eq_ignore_ascii_case(b"_method")
}

fn name_of(pair: &[u8]) -> &[u8] {
    pair.get(..memchr::memchr(b'=', pair).unwrap_or(pair.len())).unwrap_or_default()
}

fn has_one_spelling(name: &[u8]) -> bool {
    if memchr::memchr(b'%', name).is_none() {
        return true;
    }
    let mut bytes = name.iter();
    while let Some(byte) = bytes.next() {
        let said = if *byte == b'%' { decoded(&mut bytes) } else { None };
        let in_disguise =
            |said: u8| said.is_ascii_alphanumeric() || said.is_ascii_control() || matches!(said, b'%' | b'_');
        if said.is_some_and(in_disguise) {
            return false;
        }
    }
    true
}

/// Whether a reader who is not strict could take a name for one of ours: PHP reads `oauth.token[]` as `oauth_token`.
fn looks_like_credential(name: &[u8]) -> bool {
    // Nothing shorter can be one, however it is spelled; most names are.
    if name.len() < b"oauthtoken".len() {
        return false;
    }
    let spells = |name: &[u8], word: &[u8]| {
        let letters = name.iter().take_while(|byte| **byte != b'[').filter(|byte| byte.is_ascii_alphanumeric());
        letters.map(u8::to_ascii_lowercase).eq(word.iter().copied())
    };
    let is_one = |name: &[u8]| spells(name, b"oauthtoken") || spells(name, b"accesstoken");
    if memchr::memchr(b'%', name).is_some() { is_one(&plain(&plain(name))) } else { is_one(name) }
}

/// The query without its credential pairs, or `None` where it has none and can go as it is. An empty query that
/// remains loses its question mark.
#[must_use]
pub fn without_credentials(path: &str, query: &str) -> Option<Bytes> {
    let is_credential = |pair: &str| is_credential(name_of(pair.as_bytes()));
    if !query.split('&').any(is_credential) {
        return None;
    }
    let mut target = BytesMut::with_capacity(path.len() + query.len() + 1);
    target.extend_from_slice(path.as_bytes());
    let mut separator = b"?";
    for pair in query.split('&').filter(|pair| !is_credential(pair)) {
        target.extend_from_slice(separator);
        target.extend_from_slice(pair.as_bytes());
        separator = b"&";
    }
    Some(target.freeze())
}

fn is_credential(name: &[u8]) -> bool {
    matches!(name, b"oauth_token" | b"access_token")
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: usize = 48 * 1024;

    #[test]
    fn what_the_api_uses_passes() {
        let filter = "%D0%9C".repeat(5_000);
        let long = format!("ids=1&filters=ym:s:regionCity=='{filter}'");
        for (path, query) in [
            ("/", None),
            ("/management/v1/counters", None),
            ("/stat/v1/data.csv", Some("ids=44147844&metrics=ym:s:visits,ym:s:users&dimensions=ym%3As%3Adate")),
            ("/stat/v1/data", Some("filters=ym:s:a=='b+c%20d'&sort=-ym:s:visits")),
            ("/management/v1/counter/1%2C2/goals", None),
            ("/stat/v1/data", Some(long.as_str())),
            ("/stat/v1/data", Some("")),
        ] {
            assert_eq!(check(path, query, LIMIT), Ok(()), "{path}");
        }
    }

    #[test]
    fn rule_1_only_path_characters() {
        for path in
            ["", "management", "*", "/a;b", "/a\\b", "/a b", "/\u{430}", "/a\"b", "/a<b>", "/a|b", "/a^b", "/{a}"]
        {
            assert_eq!(check(path, None, LIMIT), Err(BadTarget::Ambiguous), "{path:?}");
        }
    }

    #[test]
    fn rule_2_percent_signs() {
        for path in [
            "/a%",
            "/a%2",
            "/a%zz",
            "/a%2fb",
            "/a%2Fb",
            "/a%5cb",
            "/%2e%2e/b",
            "/a%252e",
            "/a%3bb",
            "/a%00b",
            "/a%0ab",
            "/%61",
            "/a%7Eb",
            "/a%23b",
            "/a%3Fb",
            "/a%C0%AFb",
            "/a%C0%AE%C0%AE",
            "/a%E0%80%AF",
            "/a%FF",
            "/a%D0",
            "/a%C2%80b",
        ] {
            assert_eq!(check(path, None, LIMIT), Err(BadTarget::Ambiguous), "{path:?}");
        }
    }

    #[test]
    fn rule_3_no_empty_or_dot_segments() {
        for path in ["//", "//a", "/a//b", "/a/", "/.", "/..", "/a/./b", "/a/../b", "/a/.."] {
            assert_eq!(check(path, None, LIMIT), Err(BadTarget::Ambiguous), "{path:?}");
        }
    }

    #[test]
    fn rule_4_the_query() {
        for query in ["a=%", "a=%4", "a=%zz", "a b", "a=\u{430}", "a#b", "a=\u{7f}", "a=\n"] {
            assert_eq!(check("/a", Some(query), LIMIT), Err(BadTarget::Ambiguous), "{query:?}");
        }
    }

    #[test]
    fn rule_5_names_have_one_spelling() {
        for query in [
            "%69ds=1",
            "i%64s=1",
            "ids%00=1",
            "OAuth_Token=x",
            "oauth%5ftoken=x",
            "%6fauth_token",
            "oauth-token=x",
            "oauth.token=x",
            "oauth+token=x",
            "+oauth_token=x",
            "%20oauth_token=x",
            "oauth_token%20=x",
            "oauth_token[]=x",
            "oauth_token%5B%5D=x",
            "oauth%255ftoken=x",
            "a=1&access%5Ftoken=x",
            "ACCESS_TOKEN",
            "accessToken=x",
            "a=1;oauth_token=x",
            "a=1;b=2;ACCESS_TOKEN=x",
            ";oauth_token=x",
            "oauth_token;a=1&oauthtoken=x",
            "_method=DELETE",
            "a=1&_Method=put",
            "%5fmethod=x",
            "_me%74hod",
            "a;_method=x",
            "ids=1&ids=2",
            "ids=1&a=2&ids=1",
            "ids&ids",
            "ulogin=a&ulogin=b",
            "id=1&ids=2&id=3",
            "a=1;ids=2",
        ] {
            assert_eq!(check("/a", Some(query), LIMIT), Err(BadTarget::Ambiguous), "{query:?}");
        }
        for query in [
            "oauth_token=x",
            "access_token",
            "a[]=1",
            "a%5B%5D=1",
            "%D1%84=1",
            "filters=ga:a==1;ga:b==2",
            "a=oauth%5ftoken",
            "my_access_token=x",
            "oauth_tokens=x",
            "direct_client_logins=a,b",
            "a=1;b=2",
            "a=%252e",
            "method=x",
            "a=_method",
            "_methods=1",
            "ids=1,2&id=3&ulogin=a&direct_client_logins=b",
            "a=ids;b",
        ] {
            assert_eq!(check("/a", Some(query), LIMIT), Ok(()), "{query:?}");
        }
    }

    #[test]
    fn rule_6_the_length() {
        let query = "q".repeat(97);
        assert_eq!(check("/a", Some(&query), 100), Ok(()));
        assert_eq!(check("/ab", Some(&query), 100), Err(BadTarget::TooLong));
    }

    #[test]
    fn credential_pairs_go_and_nothing_else_changes() {
        let cases = [
            ("ids=1&oauth_token=x&metrics=a,b", Some("/p?ids=1&metrics=a,b")),
            ("oauth_token=x", Some("/p")),
            ("oauth_token=x&&a=%2c", Some("/p?&a=%2c")),
            ("access_token", Some("/p")),
            ("oauth_token=x&a=1&oauth_token=y", Some("/p?a=1")),
            ("oauth_tokens=x&my_access_token=y&q=oauth_token", None),
        ];
        for (query, expected) in cases {
            assert_eq!(without_credentials("/p", query).as_deref(), expected.map(str::as_bytes), "{query}");
        }
    }
}

//! The request target: the bytes that policy reads are the bytes that go on the wire.
//!
//! A target is accepted when it can mean only one thing to whoever reads it, and is otherwise refused (`bad_target`, 400). What
//! published clients write in another form, and has one meaning, is read and sent in its [`canonical`] form:
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
//!    works, stand at most once; of `ids` the values are joined.
//! 6. The whole is at most `limits.target_bytes` long, which is at most [`MAXIMUM_BYTES`] (`target_too_long`, 414).
//!
//! Of the canonical query, only whole pairs named `oauth_token` or `access_token` are taken away, because a credential of the
//! caller never leaves.

use bytes::{Bytes, BytesMut};

pub mod canonical;
mod names;
mod origin;
mod rule;

use names::spells;
pub use names::{Names, letters, spelled};
pub use origin::{OriginForm, Target};
pub use rule::{Broken, Rule, unfit};

/// The longest target that can be: `http::Uri` takes no longer one.
pub const MAXIMUM_BYTES: usize = 65_534;

/// Why a target is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadTarget {
    /// Breaks one of the rules 1 to 5; which, is for the log.
    Ambiguous(Broken),
    /// Rule 6.
    TooLong,
}

/// Checks the rules of this module for a path and, where there is one, a query. Which of the [`Names`] stand in it.
///
/// # Errors
/// [`BadTarget`] names the kind of rule that was broken.
pub fn check(path: &str, query: Option<&str>, limit: usize) -> Result<Names, BadTarget> {
    let length = path.len() + query.map_or(0, |query| query.len() + 1);
    if length > limit {
        return Err(BadTarget::TooLong);
    }
    let mut names = Names::default();
    let is_fine =
        path_is_canonical(path.as_bytes()) && query.is_none_or(|query| query_is_plain(query.as_bytes(), &mut names));
    if is_fine { Ok(names) } else { Err(BadTarget::Ambiguous(rule::broken(path.as_bytes(), query.map(str::as_bytes)))) }
}

/// What may stand in a request line at all. What `http::Uri` refuses or, with a fragment, drops is left out, as is
/// everything beyond ASCII.
#[must_use]
pub const fn may_stand(byte: u8) -> bool {
    byte.is_ascii_graphic() && !matches!(byte, b'"' | b'#' | b'<' | b'>')
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
#[must_use]
pub fn plain(text: &[u8]) -> Vec<u8> {
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

fn query_is_plain(query: &[u8], names: &mut Names) -> bool {
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
    query.split(|byte| *byte == b'&').all(|pair| pair_is_plain(pair) && names.add_pair(pair))
}

/// Rule 5. Some readers take a semicolon for an ampersand, so what follows one is looked at as a pair too.
fn pair_is_plain(pair: &[u8]) -> bool {
    let (first, behind) = match memchr::memchr(b';', pair) {
        Some(at) => (pair.get(..at).unwrap_or_default(), pair.get(at + 1..).unwrap_or_default()),
        None => (pair, &[][..]),
    };
    let name = name_of(first);
    let of_one_reading = is_credential(name_of(pair)) || !(looks_like_credential(name) || is_method(name));
    // `ids;a=b` is another name to some readers, and `ids` without a value to others.
    let is_cut_in_its_name = name.len() == first.len() && !behind.is_empty() && !Names::of(name).is_empty();
    let behind_is_fine = || behind.split(|byte| *byte == b';').all(may_stand_behind_a_semicolon);
    of_one_reading && !is_cut_in_its_name && has_one_spelling(name) && (behind.is_empty() || behind_is_fine())
}

/// A name without a value counts too: to some readers it is one of no value, and the last of two.
fn may_stand_behind_a_semicolon(pair: &[u8]) -> bool {
    let name = name_of(pair);
    let is_a_name = name.len() < pair.len();
    let is_plain = || !is_method(name) && has_one_spelling(name);
    !looks_like_credential(name) && Names::of(name).is_empty() && (!is_a_name || is_plain())
}

fn is_method(name: &[u8]) -> bool {
    let begins_otherwise = name.first().is_some_and(|first| !first.is_ascii_alphanumeric());
    let in_disguise = || memchr::memchr(b'%', name).is_some() && spelled(name) == "method";
    name.eq_ignore_ascii_case(b"_method") || (begins_otherwise && in_disguise())
}

/// The name of a pair: what stands before its first `=`.
#[must_use]
pub fn name_of(pair: &[u8]) -> &[u8] {
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
pub fn looks_like_credential(name: &[u8]) -> bool {
    // Nothing shorter can be one, however it is spelled; most names are.
    if name.len() < b"oauthtoken".len() {
        return false;
    }
    if memchr::memchr(b'%', name).is_some() {
        matches!(spelled(name).as_str(), "oauthtoken" | "accesstoken")
    } else {
        spells(name, b"oauthtoken") || spells(name, b"accesstoken")
    }
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
mod tests;

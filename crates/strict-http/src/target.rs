//! The request target: the bytes that policy reads are the bytes that are sent upstream.
//!
//! A target is accepted if every reader must interpret it the same way, and is otherwise rejected (`bad_target`, 400). Some
//! published clients write an unambiguous target in another form; it is read and sent in its [`canonical`] form:
//!
//! 1. The path starts with `/` and contains only the characters of RFC 3986, section 3.3 (`pchar`), except `;`.
//! 2. A percent sign is followed by two hexadecimal digits, and the encoded character is neither unreserved nor a
//!    separator: no encoded slash, backslash, dot, percent sign, semicolon, control character or letter. Non-ASCII
//!    text is UTF-8.
//! 3. No segment is empty, `.` or `..`.
//! 4. The query has no control character, no raw non-ASCII byte, no `#`, and no percent sign without two hexadecimal digits.
//! 5. A parameter name has one spelling: no letter, digit, percent sign or control character in it is percent-encoded. No
//!    name except `oauth_token` and `access_token` themselves can be mistaken for one of these, in another case, with other
//!    punctuation between the words, after a semicolon, or decoded twice. No name is `_method`, in any case: frameworks that
//!    read it use it instead of the request's method. The parameters that select the data of a request, `ids`, `id`,
//!    `ulogin` and `direct_client_logins`, occur at most once; the values of several `ids` are joined.
//! 6. The target is at most `limits.target_bytes` long, which is at most [`MAXIMUM_BYTES`] (`target_too_long`, 414).
//!
//! Whole pairs named `oauth_token` or `access_token` are removed from the canonical query, because a client's credential
//! is never sent upstream.

use std::sync::LazyLock;

use bytes::{Bytes, BytesMut};
use memchr::memmem;

pub mod canonical;
mod names;
mod origin;
mod rule;

use names::spells;
pub use names::{Names, letters, spelled};
pub use origin::{OriginForm, Target};
pub use rule::{Broken, Rule, unfit};

use crate::cut;

/// The maximum length of a target, in bytes; `http::Uri` accepts no longer one.
pub const MAXIMUM_BYTES: usize = 65_534;

/// The reason to reject a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadTarget {
    /// Breaks one of the rules 1 to 5; the log names which.
    Ambiguous(Broken),
    /// Longer than rule 6 allows.
    TooLong,
}

/// Checks the rules of this module for a path and an optional query, and returns which of the [`Names`] the query contains.
///
/// # Errors
/// [`BadTarget`] names the broken rule.
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

/// Whether a byte is allowed in a request line. Excluded are the bytes that `http::Uri` rejects or, with a fragment,
/// drops, and all non-ASCII bytes.
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
    // An overlong form of a slash or a dot is not valid UTF-8 (RFC 3629, section 10).
    !beyond_ascii || String::from_utf8(plain(segment)).is_ok_and(|text| !text.contains(char::is_control))
}

/// Decodes every percent-encoding, once.
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

/// The byte encoded by the two hexadecimal digits after a percent sign.
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

/// Whether a path segment may contain the byte unencoded: `pchar` of RFC 3986 without `;`, where some readers cut.
const fn stands_for_itself(byte: u8) -> bool {
    matches!(byte, b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~')
        || matches!(byte, b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b'=' | b':' | b'@')
}

/// Whether the byte may be percent-encoded in a path: commas and colons as some clients write them, spaces, non-ASCII text.
const fn must_be_encoded(byte: u8) -> bool {
    let separates = matches!(byte, b'/' | b'\\' | b'.' | b'%' | b';' | b'?' | b'#' | 0..=0x1f | 0x7f);
    let stands_for_itself = byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'~');
    !separates && !stands_for_itself
}

fn query_is_plain(query: &[u8], names: &mut Names) -> bool {
    // Without an early end, the compiler reads many bytes at once.
    let may_stand = query.iter().fold(true, |fine, byte| fine & matches!(byte, 0x21..=0x7e) & (*byte != b'#'));
    if !may_stand {
        return false;
    }
    let mut bytes = query.iter();
    while let Some(byte) = bytes.next() {
        if *byte == b'%' && decoded(&mut bytes).is_none() {
            return false;
        }
    }
    let is_plain =
        if memchr::memchr(b';', query).is_some() { pair_is_plain } else { |pair: &_| name_is_plain(name_of(pair)) };
    cut::parts(query, b'&').all(|pair| is_plain(pair) && names.add_pair(pair))
}

/// Rule 5. Some readers treat a semicolon as an ampersand, so the text after it is checked as a pair too.
fn pair_is_plain(pair: &[u8]) -> bool {
    let (first, behind) = cut::around(pair, b';');
    let name = name_of(first);
    let of_one_reading = is_credential(name_of(pair)) || !(looks_like_credential(name) || is_method(name));
    // Some readers see `ids;a=b` as another name, others as `ids` without a value.
    let is_cut_in_its_name = name.len() == first.len() && !behind.is_empty() && !Names::of(name).is_empty();
    let behind_is_fine = || behind.split(|byte| *byte == b';').all(may_stand_behind_a_semicolon);
    of_one_reading && !is_cut_in_its_name && has_one_spelling(name) && (behind.is_empty() || behind_is_fine())
}

/// Rule 5 for the name of a pair without a semicolon, which most queries do not have.
fn name_is_plain(name: &[u8]) -> bool {
    (is_credential(name) || !(looks_like_credential(name) || is_method(name))) && has_one_spelling(name)
}

/// A name without a value counts too: some readers treat it as an empty parameter that overrides an earlier one.
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

/// The name of a pair: the text before its first `=`.
#[must_use]
pub fn name_of(pair: &[u8]) -> &[u8] {
    // Names are so short that a loop is faster than a search that reads many bytes at once.
    cut::at_most(pair, pair.iter().position(|byte| *byte == b'=').unwrap_or(pair.len())).0
}

/// The name of a pair and its value; a pair without `=` has an empty value.
#[must_use]
pub fn name_and_value(pair: &str) -> (&str, &str) {
    pair.split_once('=').unwrap_or((pair, ""))
}

fn has_one_spelling(name: &[u8]) -> bool {
    if !name.contains(&b'%') {
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

/// Whether a lenient reader could take a name for a credential's: PHP reads `oauth.token[]` as `oauth_token`.
pub fn looks_like_credential(name: &[u8]) -> bool {
    // Most names are shorter than any spelling of a credential's name.
    if name.len() < b"oauthtoken".len() {
        return false;
    }
    if memchr::memchr(b'%', name).is_some() {
        matches!(spelled(name).as_str(), "oauthtoken" | "accesstoken")
    } else {
        spells(name, b"oauthtoken") || spells(name, b"accesstoken")
    }
}

/// Returns path and query without the credential pairs, or `None` if there are none and the target is sent unchanged. If
/// no pair remains, the question mark is removed too.
#[must_use]
pub fn without_credentials(path: &str, query: &str) -> Option<Bytes> {
    // Most queries have none.
    SEARCH.find(query.as_bytes())?;
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

/// The search for the names of credentials, prepared once.
static SEARCH: LazyLock<memmem::Finder<'static>> = LazyLock::new(|| memmem::Finder::new(b"_token"));

/// Returns the values of the credential pairs of a query, percent-encoded as received. A semicolon separates pairs too,
/// because [`Target::canonical`] makes such a name begin a pair of its own.
pub fn credentials(query: &str) -> impl Iterator<Item = &str> {
    // Most queries have none.
    let may_have_some = SEARCH.find(query.as_bytes());
    let pairs = may_have_some.map(|_| query.split(['&', ';'])).into_iter().flatten();
    pairs.map(name_and_value).filter(|(name, _)| is_credential(name.as_bytes())).map(|(_, value)| value)
}

/// Returns the pairs of a query that [`credentials`] leaves out.
pub fn others(query: &str) -> impl Iterator<Item = &str> {
    query.split(['&', ';']).filter(|pair| !is_credential(name_of(pair.as_bytes())))
}

fn is_credential(name: &[u8]) -> bool {
    matches!(name, b"oauth_token" | b"access_token")
}

#[cfg(test)]
mod tests;

//! The lines of HTTP/1.1, parsed strictly (RFC 9112). See the rules of [`crate::request_reader`].
//!
//! Lines are passed without their CR LF. If `whole` is false, the end has not arrived: `None` means valid so far.

use crate::Malformed;
use crate::cut;
use crate::target::canonical::{is_raw, push_encoded};
use crate::target::{self, Broken, Rule};

pub mod diagnosis;

/// A parsed request line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestLine<'a> {
    /// The method.
    pub method: &'a [u8],
    /// The target.
    pub target: &'a [u8],
    /// Whether the version is HTTP/1.0, not HTTP/1.1.
    pub http10: bool,
}

/// A field's name and value.
pub type Field<'a> = (&'a [u8], &'a [u8]);

/// Parses a request line: a token, a space, a target, a space, a version (RFC 9112, section 3).
///
/// # Errors
/// The reason to reject the line.
pub fn request(line: &[u8], whole: bool) -> Result<Option<RequestLine<'_>>, Malformed> {
    let refused = || Err(diagnosis::of_request(line, whole));
    let (method, rest) = until(line, b' ');
    if !method.iter().all(|byte| is_token(*byte)) || (method.is_empty() && (rest.is_some() || whole)) {
        return refused();
    }
    let Some(rest) = rest else { return if whole { refused() } else { Ok(None) } };
    let (target, rest) = until(rest, b' ');
    if !all(target, target::may_stand) {
        return refused();
    }
    let Some(version) = rest else { return if whole { refused() } else { Ok(None) } };
    if target.is_empty() {
        return refused();
    }
    let http10 = match version {
        b"HTTP/1.1" => false,
        b"HTTP/1.0" => true,
        begun if !whole && is_begun(begun, &[b"HTTP/1.1\r", b"HTTP/1.0\r"]) => return Ok(None),
        _ => return refused(),
    };
    Ok(Some(RequestLine { method, target, http10 }))
}

/// Percent-encodes the raw characters in the query of a request line (rule 2 of [`target::canonical`]). `begun` is the part
/// of the line that arrived earlier, `piece` the part that is encoded; a line that is not `whole` continues after `piece`.
/// Returns the encoded piece and the rule that the target broke, or `None` if there is nothing to encode, or if a raw
/// character occurs where it is not allowed.
#[cold]
#[must_use]
pub fn encoded(begun: &[u8], piece: &[u8], whole: bool) -> Option<(Vec<u8>, Broken)> {
    let line = [begun, piece].concat();
    let (method, rest) = cut::once(&line, b' ')?;
    let (target, version) = cut::around(rest, b' ');
    let (path, query) = cut::once(target, b'?')?;
    let raw = |part: &[u8]| part.iter().position(|byte| is_raw(*byte));
    let at = path.len() + 1 + raw(query)?;
    // The last character may be split between two pieces.
    let is_text = !whole || str::from_utf8(query).is_ok();
    if [method, path, version].into_iter().any(|part| raw(part).is_some()) || !is_text {
        return None;
    }
    let mut encoded = Vec::with_capacity(piece.len() * 2);
    for byte in piece {
        push_encoded(&mut encoded, *byte);
    }
    Some((encoded, Rule::QueryCharacter.at(at)))
}

/// Parses a field line: a token, directly a colon, a value; spaces around the value are removed (section 5).
///
/// # Errors
/// The reason to reject the line.
pub fn field(line: &[u8], whole: bool) -> Result<Option<Field<'_>>, Malformed> {
    let refused = || Err(diagnosis::of_field(line, whole));
    let (name, value) = until(line, b':');
    let Some(value) = value else {
        let begun = line.strip_suffix(b"\r").filter(|begun| begun.is_empty()).unwrap_or(line);
        return if whole || !begun.iter().all(|byte| is_token(*byte)) { refused() } else { Ok(None) };
    };
    let value = if whole { value } else { value.strip_suffix(b"\r").unwrap_or(value) };
    if name.is_empty() || !name.iter().all(|byte| is_token(*byte)) || !all(value, is_value) {
        return refused();
    }
    Ok(whole.then(|| (name, value.trim_ascii())))
}

/// The maximum digits of a chunk size: more than any body needs, and within `u64`.
const SIZE_DIGITS: usize = 15;

/// Parses a chunk-size line: returns the size and the number of bytes of its extensions (section 7.1).
#[must_use]
pub fn chunk(line: &[u8]) -> Option<(u64, usize)> {
    let (digits, extension) = cut::around(line, b';');
    let plain = (1..=SIZE_DIGITS).contains(&digits.len()) && digits.iter().all(u8::is_ascii_hexdigit);
    if !plain || !all(extension, is_value) {
        return None;
    }
    let size = u64::from_str_radix(str::from_utf8(digits).ok()?, 16).ok()?;
    Some((size, extension.len()))
}

/// Whether a chunk-size line can begin with `begun`.
#[must_use]
pub fn is_begun_chunk(begun: &[u8]) -> bool {
    let line = begun.strip_suffix(b"\r");
    let (digits, extension) = until(line.unwrap_or(begun), b';');
    let is_complete = line.is_some() || extension.is_some();
    digits.len() <= SIZE_DIGITS
        && digits.iter().all(u8::is_ascii_hexdigit)
        && !(is_complete && digits.is_empty())
        && extension.is_none_or(|extension| all(extension, is_value))
}

/// Whether a request line that began with `begun` can be continued with `piece`.
///
/// What arrived before is not parsed again in the middle of a method or target: pieces of one byte would cost the square of
/// the line.
#[must_use]
pub fn is_continued_request(begun: &[u8], piece: &[u8]) -> bool {
    let is_within = goes_on(begun) && !piece.iter().any(|byte| matches!(byte, b' ' | b'\r'));
    match memchr::memchr_iter(b' ', begun).take(2).count() {
        0 if is_within => all(piece, is_token),
        1 if is_within => all(piece, target::may_stand),
        _ => {
            let line = [begun, piece].concat();
            line == b"\r" || request(&line, false).is_ok()
        }
    }
}

/// Whether a field line that began with `begun` can be continued with `piece`; as [`is_continued_request`].
#[must_use]
pub fn is_continued_field(begun: &[u8], piece: &[u8]) -> bool {
    let is_within = goes_on(begun);
    if is_within && memchr::memchr(b':', begun).is_some() {
        return all(piece.strip_suffix(b"\r").unwrap_or(piece), is_value);
    }
    if is_within && !piece.iter().any(|byte| matches!(byte, b':' | b'\r')) {
        return all(piece, is_token);
    }
    field(&[begun, piece].concat(), false).is_ok()
}

/// Whether a line has begun and its end has not.
fn goes_on(begun: &[u8]) -> bool {
    begun.last().is_some_and(|last| *last != b'\r')
}

/// Whether a field of this name affects how the header or body is interpreted, and so is not allowed in a trailer (RFC
/// 9110, section 6.5.1): framing, routing, conditions, credentials, content format.
#[must_use]
pub fn is_forbidden_in_trailers(name: &[u8]) -> bool {
    const FORBIDDEN: [&[u8]; 20] = [
        b"authorization",
        b"cache-control",
        b"connection",
        b"content-encoding",
        b"content-length",
        b"content-range",
        b"content-type",
        b"cookie",
        b"expect",
        b"host",
        b"keep-alive",
        b"max-forwards",
        b"proxy-authorization",
        b"range",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
        b"via",
        b"x-request-id",
    ];
    FORBIDDEN.iter().any(|forbidden| forbidden.eq_ignore_ascii_case(name))
}

/// Splits a line at the first `end`; the second part is `None` if there is no `end`.
fn until(line: &[u8], end: u8) -> (&[u8], Option<&[u8]>) {
    cut::once(line, end).map_or((line, None), |(before, behind)| (before, Some(behind)))
}

fn is_begun(begun: &[u8], known: &[&[u8]]) -> bool {
    known.iter().any(|known| known.starts_with(begun))
}

/// Whether all bytes satisfy `kind`. Checks every byte without stopping early, so that the compiler can vectorise the loop.
fn all(bytes: &[u8], kind: impl Fn(u8) -> bool) -> bool {
    bytes.iter().fold(true, |fine, byte| fine & kind(*byte))
}

/// `tchar` (RFC 9110, section 5.6.2).
fn is_token(byte: u8) -> bool {
    // Looked up: names are short, and to compare a byte takes five times as long.
    TOKEN.get(usize::from(byte)).is_some_and(|is_token| *is_token)
}

#[expect(clippy::as_conversions, clippy::indexing_slicing, reason = "evaluated by the compiler")]
const TOKEN: [bool; 256] = {
    let mut table = [false; 256];
    let of_token = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789!#$%&'*+-.^_`|~";
    let mut at = 0;
    while at < of_token.len() {
        table[of_token[at] as usize] = true;
        at += 1;
    }
    table
};

/// Visible and non-ASCII bytes, space and tab (RFC 9110, section 5.5).
const fn is_value(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_lines() {
        let read = request(b"GET /a?b=c HTTP/1.0", true).unwrap().unwrap();
        assert_eq!(read, RequestLine { method: b"GET", target: b"/a?b=c", http10: true });
        for line in [
            "",
            " ",
            "GET",
            "GET ",
            "GET /",
            "GET / ",
            "GET  HTTP/1.1",
            "GET  / HTTP/1.1",
            "GET /  HTTP/1.1",
            "GET / HTTP/1.1 ",
            " GET / HTTP/1.1",
            "GET / HTTP/1.2",
            "GET / HTTP/2.0",
            "GET / http/1.1",
            "GET /\tHTTP/1.1",
            "G@T / HTTP/1.1",
            "G\u{e9}T / HTTP/1.1",
            "GET / HTTP/1.1\r",
            "GET / x HTTP/1.1",
            "PRI * HTTP/2.0",
        ] {
            assert!(request(line.as_bytes(), true).is_err(), "{line:?}");
        }
        for target in ["/#a", "/\"", "/<", "/>", "/\u{430}", "/\u{7f}", "/\0", "/a\tb"] {
            let line = format!("GET {target} HTTP/1.1");
            assert!(matches!(request(line.as_bytes(), true), Err(Malformed::Target(_))), "{target:?}");
        }
    }

    #[test]
    fn a_partial_line_is_valid_up_to_its_last_byte() {
        let line = "DELETE /a/b?c=%20 HTTP/1.1\r";
        for end in 0..=line.len() {
            let begun = line.get(..end).unwrap();
            let read = request(begun.as_bytes(), false);
            assert!(read.is_ok_and(|read| read.is_none() || begun.ends_with("1.1")), "{begun:?}");
        }
        let line = "X-Name: a b\tc\u{430}\r";
        for end in 0..=line.len() {
            assert_eq!(field(line.as_bytes().get(..end).unwrap(), false), Ok(None), "{end}");
        }
        for begun in ["\x16\x03", "G@", " ", "GET / X", "GET  ", "GET /# ", "GET / HTTP/1.1\rx"] {
            assert!(request(begun.as_bytes(), false).is_err(), "{begun:?}");
        }
        for begun in [" folded", "\tfolded", "na me", ": x", "a: \0", "a: b\rc", "a\r", "a: \x7f"] {
            assert!(field(begun.as_bytes(), false).is_err(), "{begun:?}");
        }
        assert_eq!(field(b"\r", false), Ok(None));
    }

    #[test]
    fn field_lines() {
        assert_eq!(field(b"A:b", true), Ok(Some((&b"A"[..], &b"b"[..]))));
        assert_eq!(field(b"a: \t b c\t ", true), Ok(Some((&b"a"[..], &b"b c"[..]))));
        assert_eq!(field(b"a:", true), Ok(Some((&b"a"[..], &b""[..]))));
        for line in
            ["", "a", ":", ": b", "a : b", " a: b", "\ta: b", "a b: c", "a: \0", "a: b\rc", "a\u{e9}: b", "a: \x1b"]
        {
            assert!(field(line.as_bytes(), true).is_err(), "{line:?}");
        }
    }

    #[test]
    fn chunk_lines() {
        for (line, expected) in [("0", (0, 0)), ("1aF", (0x1af, 0)), ("5;a=\"b c\"", (5, 7)), ("00005", (5, 0))] {
            assert_eq!(chunk(line.as_bytes()), Some(expected), "{line}");
        }
        for line in ["", ";", "g", "0x5", "-1", "+1", "5 ", " 5", "5 ;a", "1 2", "5;\0", "5;a\rb", "1234567890123456"] {
            assert_eq!(chunk(line.as_bytes()), None, "{line:?}");
        }
    }
}

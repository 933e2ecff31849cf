//! The kind of malformed request that a rejected line is. Nothing is decided here: only a line that [`super`] has rejected
//! is examined again, so accepted lines cost nothing extra.

use super::{all, is_begun_chunk, is_token, is_value, until};
use crate::Malformed;
use crate::target::canonical::is_raw;
use crate::target::{self, Rule};

/// Diagnoses a rejected request line, without its CR LF; if it is not `whole`, `line` is the part that has arrived.
#[cold]
#[must_use]
pub fn of_request(line: &[u8], whole: bool) -> Malformed {
    if let Some(protocol) = of_another_protocol(line) {
        return protocol;
    }
    let (method, rest) = until(without_cr(line, whole), b' ');
    if method.is_empty() {
        return Malformed::Spacing;
    }
    if !all(method, is_token) {
        return of_method(method);
    }
    let Some((target, version)) = rest.map(|rest| until(rest, b' ')) else { return Malformed::NotARequestLine };
    if let Some(broken) = target::unfit(target) {
        return broken.into();
    }
    match version {
        // The query has a raw character that should have been encoded, and was not.
        Some(b"HTTP/1.1" | b"HTTP/1.0") if let Some(at) = target.iter().position(|byte| is_raw(*byte)) => {
            Rule::QueryCharacter.at(at).into()
        }
        Some(_) if target.is_empty() => Malformed::Spacing,
        None if target.is_empty() => Malformed::NotARequestLine,
        Some(version) => of_version(version),
        None => Malformed::NoVersion,
    }
}

/// Recognises the first bytes of other protocols.
#[cold]
#[must_use]
pub fn of_another_protocol(line: &[u8]) -> Option<Malformed> {
    let begins = |with: &[&[u8]]| with.iter().any(|with| line.starts_with(with));
    match line {
        // The TLS record types (RFC 8446, section 5.1), and the first byte of their version.
        [0x16] | [0x16, 3, ..] => Some(Malformed::TlsHandshake),
        [0x14 | 0x15 | 0x17] | [0x14 | 0x15 | 0x17, 3, ..] => Some(Malformed::TlsRecord),
        [4] | [4, 1 | 2, ..] => Some(Malformed::Socks4),
        [5, ..] => Some(Malformed::Socks5),
        _ if begins(&[b"PRI * HTTP/2"]) => Some(Malformed::Http2Preface),
        _ if begins(&[b"PROXY TCP4 ", b"PROXY TCP6 ", b"PROXY UNKNOWN"]) => Some(Malformed::ProxyProtocolV1),
        _ if begins(&[b"HTTP/"]) => Some(Malformed::HttpResponse),
        _ => None,
    }
}

fn of_method(method: &[u8]) -> Malformed {
    match method.iter().find(|byte| byte.is_ascii_control()) {
        Some(b'\r') => Malformed::BareCarriageReturn,
        Some(b'\t') => Malformed::Spacing,
        Some(_) => Malformed::BinaryData,
        None => Malformed::InvalidMethod,
    }
}

fn of_version(version: &[u8]) -> Malformed {
    let (first, more) = until(version, b' ');
    let (name, number) = until(first, b'/');
    match version.iter().find(|byte| byte.is_ascii_control()) {
        Some(b'\r') => return Malformed::BareCarriageReturn,
        Some(b'\t') | None => {}
        Some(_) => return Malformed::BinaryData,
    }
    if version.is_empty() {
        Malformed::NoVersion
    } else if first.is_empty() || (name == b"HTTP" && (more.is_some() || first.contains(&b'\t'))) {
        Malformed::Spacing
    } else if name.eq_ignore_ascii_case(b"HTTP") && name != b"HTTP" && number.is_some() {
        Malformed::VersionInLowerCase
    } else if b"HTTP".starts_with(name)
        || (number.is_some() && more.is_none() && name.iter().all(u8::is_ascii_uppercase))
    {
        Malformed::UnsupportedVersion
    } else {
        Malformed::RawSpace
    }
}

/// Diagnoses a rejected field line; arguments as for [`of_request`].
#[cold]
#[must_use]
pub fn of_field(line: &[u8], whole: bool) -> Malformed {
    let line = without_cr(line, whole);
    if let [b' ' | b'\t', ..] = line {
        return Malformed::FoldedField;
    }
    let (name, value) = until(line, b':');
    let has_control = |text: &[u8]| !all(text, is_value);
    if line.contains(&b'\r') {
        Malformed::BareCarriageReturn
    } else if has_control(name) || value.is_some_and(has_control) {
        Malformed::ControlInField
    } else if value.is_some() && name.is_empty() {
        Malformed::EmptyFieldName
    } else if value.is_none() && (whole || all(name, is_token)) {
        Malformed::FieldWithoutColon
    } else if !name.trim_ascii_end().is_empty() && all(name.trim_ascii_end(), is_token) {
        Malformed::SpaceBeforeColon
    } else {
        Malformed::InvalidFieldName
    }
}

/// Diagnoses a rejected chunk-size line; arguments as for [`of_request`].
#[cold]
#[must_use]
pub fn of_chunk(line: &[u8], whole: bool) -> Malformed {
    let line = without_cr(line, whole);
    let (size, extension) = until(line, b';');
    if line.contains(&b'\r') {
        Malformed::ChunkLineEnd
    } else if !size.is_empty() && is_begun_chunk(size) && extension.is_some() {
        Malformed::ControlInChunkExtension
    } else {
        Malformed::InvalidChunkSize
    }
}

/// Diagnoses a target that is neither a path nor a URL of this gate.
#[cold]
#[must_use]
pub fn of_form(target: &[u8]) -> Malformed {
    let is_scheme = |scheme: &[u8]| scheme.iter().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(byte));
    let is_of_web = |scheme: &[u8]| scheme.eq_ignore_ascii_case(b"http") || scheme.eq_ignore_ascii_case(b"https");
    let (scheme, rest) = until(target, b':');
    let authority = rest.and_then(|rest| rest.strip_prefix(b"//")).filter(|_| is_scheme(scheme));
    let authority = authority.and_then(|rest| rest.split(|byte| matches!(byte, b'/' | b'?')).next());
    let rule = match authority {
        Some(_) if !is_of_web(scheme) => Rule::Scheme,
        Some(authority) if authority.contains(&b'@') => Rule::UserInformation,
        Some(_) | None => Rule::Form,
    };
    rule.at(0).into()
}

/// Removes the CR at the end of an incomplete line, as it may be half of the line end.
fn without_cr(line: &[u8], whole: bool) -> &[u8] {
    if whole { line } else { line.strip_suffix(b"\r").unwrap_or(line) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words<const N: usize>(of: fn(&[u8], bool) -> Malformed, lines: [&str; N]) -> [&'static str; N] {
        lines.map(|line| of(line.as_bytes(), true).word())
    }

    #[test]
    fn request_lines() {
        let lines = ["GET /a b HTTP/1.1", "GET /a  HTTP/1.1", "GET /a HTTP/1.1 ", "GET  /a HTTP/1.1", "", "G\tT"];
        let spacing = "request_line_spacing";
        assert_eq!(words(of_request, lines), ["raw_space", spacing, spacing, spacing, spacing, spacing]);
        let lines =
            ["GET / HTTP/1.2", "GET / HTTP", "GET / RTSP/1.0", "GET / http/1.1", "GET /", "GET / ", "GET ", "GET"];
        let (unsupported, none) = ("unsupported_version", "not_a_request_line");
        let expected =
            [unsupported, unsupported, unsupported, "version_in_lower_case", "no_version", "no_version", none, none];
        assert_eq!(words(of_request, lines), expected);
        let lines = ["\0", "GET / HTTP/1.1\0", "GET / HTTP/1.1\r", "\r", "G\rT", "G\u{415}T /"];
        let (binary, bare) = ("binary_data", "bare_carriage_return");
        assert_eq!(words(of_request, lines), [binary, binary, bare, bare, bare, "invalid_method"]);
        let lines = ["GET /\0 HTTP/1.1", "GET /a?b=\" HTTP/1.1"];
        assert_eq!(words(of_request, lines), ["path_character", "query_character"]);
        assert_eq!(of_request(b"GET /a?b=\" HTTP/1.1", true), Rule::QueryCharacter.at(5).into());
    }

    #[test]
    fn another_protocol_is_recognised_by_its_first_bytes() {
        for (lines, expected) in [
            (&[&b"\x16"[..], b"\x16\x03\x01\x02\x00\x01"][..], "tls_handshake"),
            (&[b"\x15\x03\x03\x00\x02", b"\x17\x03\x03\x0a", b"\x14"], "tls_record"),
            (&[b"PRI * HTTP/2", b"PRI * HTTP/2.0"], "http2_preface"),
            (&[b"PROXY TCP4 1", b"PROXY TCP6 ::1 ::1 1 2", b"PROXY UNKNOWN"], "proxy_protocol_v1"),
            (&[b"\x04", b"\x04\x01\x00\x50"], "socks4"),
            (&[b"\x05", b"\x05\x01\x00"], "socks5"),
            (&[b"HTTP/", b"HTTP/1.1 200 OK"], "http_response"),
            (&[b"\x16\x16", b"\x04\x04"], "binary_data"),
            (&[b"SSH-2.0-OpenSSH_9.2"], "not_a_request_line"),
            (&[b"PROXY /a HTTP/2.0"], "unsupported_version"),
        ] {
            for line in lines {
                assert_eq!(of_request(line, false).word(), expected, "{line:?}");
            }
        }
    }

    #[test]
    fn targets_that_are_no_path() {
        for (target, rule) in [
            ("ftp://a/b", Rule::Scheme),
            ("http://u:p@a/b", Rule::UserInformation),
            ("http://a/b@c", Rule::Form),
            ("a:80", Rule::Form),
            ("a?b=ftp://c", Rule::Form),
        ] {
            assert_eq!(of_form(target.as_bytes()), rule.at(0).into(), "{target}");
        }
    }

    #[test]
    fn field_lines() {
        let lines = [" a: b", "\t", "a", ": b", ":", "a : b", "a b: c", " ", "\u{e9}: b", "a: \0", "\0: b", "a: b\rc"];
        let (folded, control) = ("folded_field", "control_in_field");
        let (empty, name) = ("empty_field_name", "invalid_field_name");
        let expected = [
            folded,
            folded,
            "field_without_colon",
            empty,
            empty,
            "space_before_colon",
            name,
            folded,
            name,
            control,
            control,
            "bare_carriage_return",
        ];
        assert_eq!(words(of_field, lines), expected);
        assert_eq!(of_field(b"a\r", false), Malformed::FieldWithoutColon);
        assert_eq!(of_field(b"a ", false), Malformed::SpaceBeforeColon);
    }

    #[test]
    fn chunk_lines() {
        let lines = ["", "g", "5 ", "1234567890123456", "5;\0", "5\r", "5;\r"];
        let (size, end) = ("invalid_chunk_size", "chunk_line_end");
        assert_eq!(words(of_chunk, lines), [size, size, size, size, "control_in_chunk_extension", end, end]);
    }
}

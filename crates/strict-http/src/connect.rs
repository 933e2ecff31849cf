//! The header of a CONNECT request, which opens a tunnel (RFC 9110, section 9.3.6).
//!
//! 1. The target is a host and a port, nothing else. Lines are read as strictly as those of any other request
//!    ([`crate::grammar`]).
//! 2. `Host` may be absent, also in HTTP/1.1, because clients of HTTP/1.0 send none. If present, it occurs once and names
//!    the host of the target; its port is not compared, because clients omit it or send that of another scheme.
//! 3. The request has no body: the bytes after its header are those of the tunnel.
//! 4. The reader consumes the header and nothing behind it.

use crate::Malformed;
use crate::cut;
use crate::grammar::{self, diagnosis};
use crate::host::Host;
use crate::request_reader::Bounds;

/// The beginning of every CONNECT request.
pub const CONNECT: &[u8] = b"CONNECT ";

/// A reader of the header of a CONNECT request.
#[derive(Debug)]
pub struct ConnectReader {
    bounds: Bounds,
    /// The beginning of an unfinished line.
    begun: Vec<u8>,
    bytes: usize,
    fields: usize,
    target: Option<Box<[u8]>>,
    has_host: bool,
    credentials: Vec<Vec<u8>>,
}

/// The target of a CONNECT request: a host and a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    authority: Box<[u8]>,
    port: u16,
}

impl Target {
    /// Reads an authority with a port (rule 1).
    #[must_use]
    pub fn of(authority: &[u8]) -> Option<Self> {
        Host::of(authority)?;
        let colon = authority.iter().rposition(|byte| *byte == b':')?;
        let (_, digits) = cut::at_most(authority, colon + 1);
        // A leading zero or a plus sign has no place in a port.
        let is_plain = digits.first().is_some_and(|digit| *digit != b'0') && digits.iter().all(u8::is_ascii_digit);
        let port = str::from_utf8(digits).ok()?.parse().ok()?;
        is_plain.then(|| Self { authority: authority.into(), port })
    }

    /// Returns the host.
    #[must_use]
    pub fn host(&self) -> Option<Host<'_>> {
        Host::of(&self.authority)
    }

    /// Returns the port.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Returns the authority as received.
    #[must_use]
    pub fn authority(&self) -> &[u8] {
        &self.authority
    }
}

impl ConnectReader {
    /// Creates a reader for a header within `bounds`.
    #[must_use]
    pub const fn new(bounds: Bounds) -> Self {
        Self { bounds, begun: Vec::new(), bytes: 0, fields: 0, target: None, has_host: false, credentials: Vec::new() }
    }

    /// Takes the values of `Proxy-Authorization`.
    #[must_use]
    pub fn take_credentials(&mut self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.credentials)
    }

    /// Reads the next bytes. Once the header is complete, returns its target and the number of `bytes` that belong to it
    /// (rule 4).
    ///
    /// # Errors
    /// The first broken rule.
    pub fn look_at(&mut self, bytes: &[u8]) -> Result<Option<(Target, usize)>, Malformed> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let (piece, behind) = cut::line(rest);
            self.bytes = self.bytes.saturating_add(piece.len());
            if self.bytes > self.bounds.header_bytes {
                return Err(Malformed::HeaderTooLarge);
            }
            self.begun.extend_from_slice(piece);
            if !piece.ends_with(b"\n") {
                break;
            }
            rest = behind;
            let line = std::mem::take(&mut self.begun);
            let Some(line) = line.strip_suffix(b"\r\n") else { return Err(Malformed::BareLineFeed) };
            match &self.target {
                None => self.target = Some(target(line)?),
                Some(target) if line.is_empty() => {
                    let target = Target::of(target).ok_or(Malformed::ConnectTarget)?;
                    return Ok(Some((target, bytes.len() - rest.len())));
                }
                Some(_) => self.field(line)?,
            }
        }
        Ok(None)
    }

    fn field(&mut self, line: &[u8]) -> Result<(), Malformed> {
        let Some((name, value)) = grammar::field(line, true)? else { return Err(diagnosis::of_field(line, true)) };
        self.fields += 1;
        if self.fields > self.bounds.header_fields {
            return Err(Malformed::TooManyFields);
        }
        if name.eq_ignore_ascii_case(b"host") {
            if std::mem::replace(&mut self.has_host, true) {
                return Err(Malformed::TwoHosts);
            }
            let host = Host::of(value).ok_or(Malformed::InvalidHost)?;
            let same = self.target.as_deref().and_then(Host::of).is_some_and(|target| target.is(host));
            return if same { Ok(()) } else { Err(Malformed::HostUnlikeTarget) };
        }
        if name.eq_ignore_ascii_case(b"proxy-authorization") || name.eq_ignore_ascii_case(b"authorization") {
            self.credentials.push(value.to_vec());
        }
        let is_length = name.eq_ignore_ascii_case(b"content-length");
        let has_body = name.eq_ignore_ascii_case(b"transfer-encoding") || is_length && value != b"0";
        if has_body { Err(Malformed::ConnectWithBody) } else { Ok(()) }
    }
}

/// Returns the target of a request line, whose port is checked at the end of the header.
fn target(line: &[u8]) -> Result<Box<[u8]>, Malformed> {
    let Some(request) = grammar::request(line, true)? else { return Err(diagnosis::of_request(line, true)) };
    let fits = request.method == b"CONNECT" && Host::of(request.target).is_some();
    if fits { Ok(request.target.into()) } else { Err(Malformed::ConnectTarget) }
}

/// Whether two authorities name the same host and port; `default` is the port of an authority without one.
#[must_use]
pub fn agree(one: &[u8], other: &[u8], default: u16) -> bool {
    let read = |authority: &[u8]| {
        let (_, behind) = match authority.iter().rposition(|byte| *byte == b']') {
            Some(end) => cut::at_most(authority, end + 1),
            None => cut::at_most(authority, 0),
        };
        let digits = cut::once(behind, b':').map_or(&b""[..], |(_, digits)| digits);
        let port: Option<u32> = str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok());
        if digits.is_empty() { Some(u32::from(default)) } else { port }
    };
    let same_host = matches!((Host::of(one), Host::of(other)), (Some(one), Some(other)) if one.is(other));
    same_host && read(one).is_some() && read(one) == read(other)
}

/// Whether a connection begins with a CONNECT request; `None` while its first bytes do not show it.
#[must_use]
pub fn is_connect(begun: &[u8]) -> Option<bool> {
    if begun.starts_with(CONNECT) {
        return Some(true);
    }
    (!CONNECT.starts_with(begun)).then_some(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds { header_bytes: 8192, header_fields: 20 };

    fn read(text: &str) -> Result<Option<(String, u16, usize)>, Malformed> {
        let whole = ConnectReader::new(BOUNDS).look_at(text.as_bytes());
        // Byte by byte, the result is the same.
        let mut reader = ConnectReader::new(BOUNDS);
        let mut stepwise = Ok(None);
        for (at, byte) in text.bytes().enumerate() {
            stepwise = reader.look_at(&[byte]);
            match &mut stepwise {
                Ok(None) => {}
                Ok(Some((_, used))) => {
                    *used += at;
                    break;
                }
                Err(_) => break,
            }
        }
        assert_eq!(whole, stepwise, "{text:?}");
        let shown = |(target, used): (Target, usize)| {
            (String::from_utf8_lossy(target.authority()).into_owned(), target.port(), used)
        };
        whole.map(|read| read.map(shown))
    }

    #[test]
    fn rule_1_a_target_is_a_host_and_a_port() {
        for (target, port) in
            [("a.b:443", 443), ("A.b.:80", 80), ("[::1]:443", 443), ("10.0.0.1:1", 1), ("a:65535", 65535)]
        {
            let text = format!("CONNECT {target} HTTP/1.1\r\n\r\n");
            assert_eq!(read(&text), Ok(Some((target.to_owned(), port, text.len()))));
        }
        for target in [
            "a",
            "a:",
            "a:0",
            "a:65536",
            "a:0443",
            "a:+443",
            "a:443:443",
            "u@a:443",
            "u:p@a:443",
            "http://a:443",
            "a:443/",
            "/",
            "*",
            ":443",
            "a:443?b",
            "[::1]",
            "::1:443",
            "a%2e:443",
            "a:44 3",
        ] {
            let said = read(&format!("CONNECT {target} HTTP/1.1\r\n\r\n"));
            assert!(said.is_err(), "{target}: {said:?}");
        }
    }

    #[test]
    fn rule_2_host_is_optional_and_names_the_target() {
        let with = |field: &str| read(&format!("CONNECT a.b:443 HTTP/1.0\r\n{field}\r\n")).map(|read| read.is_some());
        for fine in [
            "",
            "Host: a.b\r\n",
            "Host: a.b:443\r\n",
            "Host: A.B.:80\r\n",
            "X: y\r\nProxy-Authorization: Basic eA==\r\n",
        ] {
            assert_eq!(with(fine), Ok(true), "{fine}");
        }
        for (wrong, kind) in [
            ("Host: b\r\n", Malformed::HostUnlikeTarget),
            ("Host: a.b\r\nHost: a.b\r\n", Malformed::TwoHosts),
            ("Host: a@b\r\n", Malformed::InvalidHost),
            ("Host:\r\n", Malformed::InvalidHost),
        ] {
            assert_eq!(with(wrong), Err(kind), "{wrong}");
        }
    }

    #[test]
    fn rule_3_a_body_is_refused() {
        let with =
            |field: &str| read(&format!("CONNECT a.b:443 HTTP/1.1\r\n{field}\r\n\r\n")).map(|read| read.is_some());
        assert_eq!(with("Content-Length: 0"), Ok(true));
        for field in ["Content-Length: 1", "Content-Length: 00", "Transfer-Encoding: chunked"] {
            assert_eq!(with(field), Err(Malformed::ConnectWithBody), "{field}");
        }
    }

    #[test]
    fn rule_4_bytes_behind_the_header_are_left() {
        let head = "CONNECT a.b:443 HTTP/1.1\r\nHost: a.b\r\n\r\n";
        let read = read(&format!("{head}\u{16}\u{3}\u{1}")).unwrap().unwrap();
        assert_eq!(read.2, head.len());
    }

    #[test]
    fn broken_lines_and_long_headers_are_refused() {
        for (text, kind) in [
            ("CONNECT a:443 HTTP/1.1\n\n", Malformed::BareLineFeed),
            ("CONNECT a:443 HTTP/1.1\r\nA b\r\n\r\n", Malformed::FieldWithoutColon),
            ("CONNECT a:443 HTTP/1.1\r\n b: c\r\n\r\n", Malformed::FoldedField),
            ("GET a:443 HTTP/1.1\r\n\r\n", Malformed::ConnectTarget),
        ] {
            assert_eq!(read(text), Err(kind), "{text:?}");
        }
        let fields = "A: b\r\n".repeat(21);
        assert_eq!(read(&format!("CONNECT a:443 HTTP/1.1\r\n{fields}\r\n")), Err(Malformed::TooManyFields));
        let long = format!("CONNECT a:443 HTTP/1.1\r\nA: {}\r\n\r\n", "b".repeat(8192));
        assert_eq!(read(&long), Err(Malformed::HeaderTooLarge));
        assert_eq!(read("CONNECT a:443 HTTP/1.1\r\nA: b\r\n"), Ok(None));
    }

    #[test]
    fn authorities_agree_by_host_and_port() {
        let agree = |one: &str, other: &str| super::agree(one.as_bytes(), other.as_bytes(), 80);
        for (one, other) in [
            ("a", "a"),
            ("a", "A.:80"),
            ("a:", "a:80"),
            ("a:81", "a:81"),
            ("[::1]", "[::1]:80"),
            ("[::1]:8", "[::1]:8"),
            ("a", "a:080"),
        ] {
            assert!(agree(one, other) && agree(other, one), "{one} {other}");
        }
        for (one, other) in
            [("a", "b"), ("a", "a:443"), ("a:81", "a"), ("[::1]", "[::2]"), ("a", ""), ("", ""), ("a@b", "a@b")]
        {
            assert!(!agree(one, other) && !agree(other, one), "{one} {other}");
        }
    }

    #[test]
    fn the_first_bytes_decide() {
        for (begun, expected) in
            [("", None), ("C", None), ("CONNECT", None), ("CONNECT ", Some(true)), ("COPY", Some(false))]
        {
            assert_eq!(is_connect(begun.as_bytes()), expected, "{begun}");
        }
    }
}

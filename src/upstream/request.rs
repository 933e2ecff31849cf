//! Requests to the upstream, and their form in HTTP/1.1 (RFC 9112, section 3).
//!
//! 1. The body determines its own framing: its length if known, otherwise chunks. Framing fields of the request are
//!    ignored.
//! 2. `Host` or `:authority` names the upstream; the target has been checked.
//! 3. A body longer or shorter than its declared length fails, because the upstream could not parse later bytes.

use std::io::Write as _;

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, EXPECT, HOST, TRANSFER_ENCODING};
use http::uri::{Authority, Scheme};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, Version, uri};
use http_body::Body;
use strict_http::target::OriginForm;

/// A request to the upstream, over either version of HTTP.
#[derive(Debug)]
pub struct Outgoing<B> {
    /// The method.
    pub method: Method,
    /// The path and query.
    pub target: OriginForm,
    /// All fields but `Host`.
    pub fields: HeaderMap,
    /// The body.
    pub body: B,
}

impl<B> Outgoing<B> {
    /// A copy with another body.
    pub fn with_body<C>(&self, body: C) -> Outgoing<C> {
        let (method, target, fields) = (self.method.clone(), self.target.clone(), self.fields.clone());
        Outgoing { method, target, fields, body }
    }

    /// Converts to an HTTP/2 request to `authority`, without connection-specific fields (RFC 9113, section 8.2.2).
    ///
    /// # Errors
    /// The parts form no valid URI; those of an upstream always do.
    pub fn into_http2(mut self, scheme: Scheme, authority: Authority) -> Result<Request<B>, http::Error> {
        let mut parts = uri::Parts::default();
        parts.scheme = Some(scheme);
        parts.authority = Some(authority);
        parts.path_and_query = Some(self.target.into());
        for name in [CONNECTION, EXPECT, TRANSFER_ENCODING] {
            self.fields.remove(name);
        }
        let mut request = Request::new(self.body);
        *request.version_mut() = Version::HTTP_2;
        *request.method_mut() = self.method;
        *request.uri_mut() = Uri::from_parts(parts)?;
        *request.headers_mut() = self.fields;
        Ok(request)
    }
}

/// The framing of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// Content-Length, with this many bytes still to come.
    Length(u64),
    /// Chunked transfer coding.
    Chunked,
}

/// The body differs from its declared length (rule 3).
#[derive(Debug, thiserror::Error)]
#[error("the body does not have its declared length")]
pub struct WrongLength;

impl Framing {
    /// The framing of `body`.
    pub fn of(body: &impl Body) -> Self {
        if body.is_end_stream() {
            return Self::Length(0);
        }
        body.size_hint().exact().map_or(Self::Chunked, Self::Length)
    }

    /// Writes the bytes that precede a piece to `out`, and returns those that follow it.
    ///
    /// # Errors
    /// [`WrongLength`] if the piece is too long.
    pub fn around(&mut self, piece: &Bytes, out: &mut Vec<u8>) -> Result<&'static [u8], WrongLength> {
        match self {
            Self::Length(left) => {
                let length = u64::try_from(piece.len()).map_err(|_| WrongLength)?;
                *left = left.checked_sub(length).ok_or(WrongLength)?;
                Ok(b"")
            }
            // A chunk of size 0 would end the body.
            Self::Chunked if piece.is_empty() => Ok(b""),
            Self::Chunked => {
                // Writing to memory cannot fail.
                let _ = write!(out, "{:X}\r\n", piece.len());
                Ok(b"\r\n")
            }
        }
    }

    /// Writes the end of the body.
    ///
    /// # Errors
    /// [`WrongLength`] if part of the body is missing.
    pub fn end(self, trailers: Option<&HeaderMap>, out: &mut Vec<u8>) -> Result<(), WrongLength> {
        match self {
            Self::Length(0) => {}
            Self::Length(_) => return Err(WrongLength),
            Self::Chunked => {
                out.extend_from_slice(b"0\r\n");
                trailers.into_iter().flatten().for_each(|(name, value)| write_field(out, name, value));
                out.extend_from_slice(b"\r\n");
            }
        }
        Ok(())
    }
}

/// Writes the head of a request to `host` with this framing.
pub fn write_head<B>(out: &mut Vec<u8>, request: &Outgoing<B>, host: &HeaderValue, framing: Framing) {
    for part in [request.method.as_str(), " ", request.target.as_str(), " HTTP/1.1\r\n"] {
        out.extend_from_slice(part.as_bytes());
    }
    write_field(out, &HOST, host);
    for (name, value) in &request.fields {
        if name != CONTENT_LENGTH && name != TRANSFER_ENCODING {
            write_field(out, name, value);
        }
    }
    match framing {
        // Written only if the caller sent one: most GETs do not.
        Framing::Length(0) if !request.fields.contains_key(CONTENT_LENGTH) => {}
        Framing::Length(length) => {
            let mut digits = itoa::Buffer::new();
            write_field_bytes(out, CONTENT_LENGTH.as_str().as_bytes(), digits.format(length).as_bytes());
        }
        Framing::Chunked => write_field_bytes(out, TRANSFER_ENCODING.as_str().as_bytes(), b"chunked"),
    }
    out.extend_from_slice(b"\r\n");
}

fn write_field(out: &mut Vec<u8>, name: &HeaderName, value: &HeaderValue) {
    write_field_bytes(out, name.as_str().as_bytes(), value.as_bytes());
}

fn write_field_bytes(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    for part in [name, b": ", value, b"\r\n"] {
        out.extend_from_slice(part);
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::{Empty, Full};

    use super::*;

    fn outgoing<B>(fields: &[(&'static str, &'static str)], body: B) -> Outgoing<B> {
        let target =
            strict_http::target::Target::check(&"/path?query=1".parse().unwrap(), 100).unwrap().into_origin_form();
        let field = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        let mut map = HeaderMap::new();
        fields.iter().map(field).for_each(|(name, value)| _ = map.append(name, value));
        Outgoing { method: Method::POST, target, fields: map, body }
    }

    fn written<B: Body>(fields: &[(&'static str, &'static str)], body: B) -> String {
        let request = outgoing(fields, body);
        let mut out = Vec::new();
        write_head(&mut out, &request, &HeaderValue::from_static("host"), Framing::of(&request.body));
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn rule_1_the_body_determines_the_length_fields() {
        let odd = [("content-length", "99"), ("x", "1"), ("transfer-encoding", "gzip"), ("x", "2")];
        let full = Full::new(Bytes::from_static(b"abc"));
        let head = "POST /path?query=1 HTTP/1.1\r\nhost: host\r\nx: 1\r\nx: 2\r\n";
        assert_eq!(written(&odd, full), format!("{head}content-length: 3\r\n\r\n"));
        let none = Empty::<Bytes>::new();
        assert_eq!(written(&odd[1..], none), format!("{head}\r\n"));
        assert!(written(&[("content-length", "0")], none).ends_with("content-length: 0\r\n\r\n"));
    }

    #[test]
    fn rule_2_http2_has_the_upstreams_authority_and_no_field_of_the_hop() {
        let fields =
            [("connection", "te"), ("te", "trailers"), ("expect", "100-continue"), ("transfer-encoding", "chunked")];
        let request = outgoing(&fields, ()).into_http2(Scheme::HTTPS, Authority::from_static("host:444")).unwrap();
        assert_eq!(
            (request.uri().to_string().as_str(), request.version()),
            ("https://host:444/path?query=1", Version::HTTP_2)
        );
        assert_eq!(request.headers().keys().collect::<Vec<_>>(), ["te"]);
    }

    #[test]
    fn rule_3_the_length_is_the_bodys() {
        let (mut out, piece) = (Vec::new(), Bytes::from_static(b"abc"));
        assert!(Framing::Length(2).around(&piece, &mut out).is_err());
        let mut framing = Framing::Length(5);
        assert_eq!(framing.around(&piece, &mut out).unwrap(), b"");
        assert!(framing.end(None, &mut out).is_err());
        assert!(Framing::Length(0).end(None, &mut out).is_ok() && out.is_empty());
    }

    #[test]
    fn chunks_are_written_as_they_are_read() {
        let (mut out, mut framing) = (Vec::new(), Framing::Chunked);
        assert_eq!(framing.around(&Bytes::from(vec![b'a'; 26]), &mut out).unwrap(), b"\r\n");
        assert_eq!(framing.around(&Bytes::new(), &mut out).unwrap(), b"");
        framing.end(Some(&HeaderMap::from_iter([(CONTENT_LENGTH, HeaderValue::from(1))])), &mut out).unwrap();
        assert_eq!(out, b"1A\r\n0\r\ncontent-length: 1\r\n\r\n");
    }
}

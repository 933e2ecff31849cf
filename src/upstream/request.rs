//! Requests as they are written on HTTP/1.1 (RFC 9112, section 3).
//!
//! 1. What frames the body is written here, from the body itself: its length where that is known, chunks otherwise.
//!    Whatever the fields say of it is left out.
//! 2. A body that turns out longer or shorter than its length fails; nothing behind it could be understood.

use std::io::Write as _;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, HeaderValue, Request};
use http_body::Body;

/// How a body is framed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// So many bytes of it are still to come.
    Length(u64),
    /// In chunks.
    Chunked,
}

/// The body has another length than it said (rule 2).
#[derive(Debug, thiserror::Error)]
#[error("the body has another length than it said")]
pub struct WrongLength;

impl Framing {
    /// That of a body.
    pub fn of(body: &impl Body) -> Self {
        if body.is_end_stream() {
            return Self::Length(0);
        }
        body.size_hint().exact().map_or(Self::Chunked, Self::Length)
    }

    /// What stands before a piece, written to `out`, and what stands behind it.
    ///
    /// # Errors
    /// [`WrongLength`] where the piece is too long.
    pub fn around(&mut self, piece: &Bytes, out: &mut Vec<u8>) -> Result<&'static [u8], WrongLength> {
        match self {
            Self::Length(left) => {
                let length = u64::try_from(piece.len()).map_err(|_| WrongLength)?;
                *left = left.checked_sub(length).ok_or(WrongLength)?;
                Ok(b"")
            }
            // A chunk of size 0 would be the last.
            Self::Chunked if piece.is_empty() => Ok(b""),
            Self::Chunked => {
                // Writing to memory does not fail.
                let _ = write!(out, "{:X}\r\n", piece.len());
                Ok(b"\r\n")
            }
        }
    }

    /// Writes what ends the body.
    ///
    /// # Errors
    /// [`WrongLength`] where something of it is missing.
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

/// Writes the head of a request whose body is framed so.
pub fn write_head<B>(out: &mut Vec<u8>, request: &Request<B>, framing: Framing) {
    let target = request.uri().path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    for part in [request.method().as_str(), " ", target, " HTTP/1.1\r\n"] {
        out.extend_from_slice(part.as_bytes());
    }
    for (name, value) in request.headers() {
        if name != CONTENT_LENGTH && name != TRANSFER_ENCODING {
            write_field(out, name, value);
        }
    }
    match framing {
        // Said only where the caller said so: most GETs do not.
        Framing::Length(0) if !request.headers().contains_key(CONTENT_LENGTH) => {}
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

    fn written<B: Body>(fields: &[(&str, &str)], body: B) -> String {
        let mut request = Request::post("https://host/path?query=1");
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let request = request.body(body).unwrap();
        let mut out = Vec::new();
        write_head(&mut out, &request, Framing::of(request.body()));
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn rule_1_the_body_says_how_it_is_framed() {
        let odd = [("content-length", "99"), ("x", "1"), ("transfer-encoding", "gzip"), ("x", "2")];
        let full = Full::new(Bytes::from_static(b"abc"));
        assert_eq!(written(&odd, full), "POST /path?query=1 HTTP/1.1\r\nx: 1\r\nx: 2\r\ncontent-length: 3\r\n\r\n");
        let none = Empty::<Bytes>::new();
        assert_eq!(written(&odd[1..], none), "POST /path?query=1 HTTP/1.1\r\nx: 1\r\nx: 2\r\n\r\n");
        assert!(written(&[("content-length", "0")], none).ends_with("content-length: 0\r\n\r\n"));
    }

    #[test]
    fn rule_2_the_length_is_the_bodys() {
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

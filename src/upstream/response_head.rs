//! The head of an HTTP/1.1 response, and the length of its body (RFC 9112).
//!
//! 1. A head is parsed once it is complete. A head that httparse rejects, or with more than [`FIELDS`] fields, is invalid.
//! 2. Only wanted fields and the fields that frame the response are kept.
//! 3. A body ends as RFC 9112, section 6.3, specifies. [`strict_http::length`] rejects an ambiguous length before the body
//!    is read.
//! 4. The connection can carry another response only after an HTTP/1.1 response without `Connection: close`.

use std::mem::MaybeUninit;

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use http_body::Frame;
use httparse::{ParserConfig, Status};
use strict_http::chunks::{Chunks, Next, NoChunks};
use strict_http::length::length;
use strict_http::number;

/// The maximum number of fields in a response.
pub const FIELDS: usize = 100;
/// The number of kept fields that need no second allocation.
const USUAL: usize = 8;

/// The head of a response.
#[derive(Debug)]
pub struct ResponseHead {
    /// The status.
    pub status: StatusCode,
    /// The wanted fields, and those of the framing (rule 2).
    pub fields: HeaderMap,
    /// Whether the connection can carry another response after this one (rule 4).
    pub keep_alive: bool,
    /// The length of the head in bytes.
    pub bytes: usize,
}

/// The part of a body that is still to come.
#[derive(Debug)]
pub enum Remaining {
    /// This many bytes.
    Length(u64),
    /// Chunks.
    Chunks(Chunks),
    /// Everything until the connection ends.
    UntilClose {
        /// Whether the connection has ended.
        closed: bool,
    },
}

/// What becomes of a field.
#[derive(Debug, Clone)]
enum Use {
    /// It is dropped.
    None,
    /// `Connection`.
    Connection,
    /// It is kept under this name.
    Kept(HeaderName),
}

impl Use {
    fn of(name: &[u8], wants: impl Fn(&[u8]) -> bool) -> Result<Self, httparse::Error> {
        Ok(match framed_by(name) {
            Some(CONNECTION) => Self::Connection,
            Some(known) => Self::Kept(known),
            None if wants(name) => Self::Kept(HeaderName::from_bytes(name).map_err(|_| httparse::Error::HeaderName)?),
            None => Self::None,
        })
    }
}

/// The longest name that is remembered, which bounds the memory of a connection.
const REMEMBERED: usize = 48;

/// The names of the fields of earlier heads on a connection, as they were written, by their position in the head. A server sends
/// the same names in the same order, and to read a name takes 250 instructions, to compare it 30.
#[derive(Debug, Default)]
pub struct KnownNames(Vec<(Box<[u8]>, Use)>);

impl KnownNames {
    /// Returns the use of the field `name` at this position of a head. `wants` is the same for all heads of a connection.
    fn of(&mut self, position: usize, name: &[u8], wants: impl Fn(&[u8]) -> bool) -> Result<Use, httparse::Error> {
        if let Some((known, its_use)) = self.0.get(position)
            && **known == *name
        {
            return Ok(its_use.clone());
        }
        let its_use = Use::of(name, wants)?;
        if name.len() <= REMEMBERED {
            let new = (name.into(), its_use.clone());
            if let Some(place) = self.0.get_mut(position) {
                *place = new;
            } else if self.0.len() == position {
                self.0.push(new);
            }
        }
        Ok(its_use)
    }
}

/// Parses the head at the beginning of `bytes`; `None` if it is incomplete.
///
/// # Errors
/// The head is invalid.
pub fn read(
    bytes: &Bytes,
    names: &mut KnownNames,
    wants: impl Fn(&[u8]) -> bool,
) -> Result<Option<ResponseHead>, httparse::Error> {
    let mut fields = [const { MaybeUninit::uninit() }; FIELDS];
    let mut answer = httparse::Response::new(&mut []);
    let parsed = ParserConfig::default().parse_response_with_uninit_headers(&mut answer, bytes, &mut fields)?;
    let (Status::Complete(read), Some(code), Some(version)) = (parsed, answer.code, answer.version) else {
        return Ok(None);
    };
    let status = StatusCode::from_u16(code).map_err(|_| httparse::Error::Status)?;
    let mut head =
        ResponseHead { status, fields: HeaderMap::with_capacity(USUAL), keep_alive: version == 1, bytes: read };
    for (position, field) in answer.headers.iter().enumerate() {
        let name = match names.of(position, field.name.as_bytes(), &wants)? {
            Use::Connection if !is_plain_connection(field.value, &mut head.keep_alive) => CONNECTION,
            Use::Kept(name) => name,
            Use::None | Use::Connection => continue,
        };
        let value = HeaderValue::from_maybe_shared(bytes.slice_ref(field.value));
        head.fields.append(name, value.map_err(|_| httparse::Error::HeaderValue)?);
    }
    // The field has no meaning in HTTP/1.0, so the message framing is faulty (RFC 9112, section 6.1).
    if version == 0 && head.fields.contains_key(TRANSFER_ENCODING) {
        return Err(httparse::Error::Version);
    }
    Ok(Some(head))
}

/// The framing field with this name, in any case.
fn framed_by(name: &[u8]) -> Option<HeaderName> {
    [CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING]
        .into_iter()
        .find(|known| known.as_str().as_bytes().eq_ignore_ascii_case(name))
}

/// Whether a `Connection` value lists no field names, only `close` and `keep-alive`.
fn is_plain_connection(value: &[u8], keep_alive: &mut bool) -> bool {
    let mut plain = true;
    for option in value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
        if option.eq_ignore_ascii_case(b"close") {
            *keep_alive = false;
        } else if !option.eq_ignore_ascii_case(b"keep-alive") && !option.is_empty() {
            plain = false;
        }
    }
    plain
}

impl ResponseHead {
    /// The body that follows this head, in a response to HEAD or to another method (rule 3).
    #[must_use]
    pub fn rest(&self, to_head: bool) -> Remaining {
        let bodiless = to_head
            || self.status.is_informational()
            || matches!(self.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        if bodiless {
            return Remaining::Length(0);
        }
        if self.fields.contains_key(TRANSFER_ENCODING) {
            return Remaining::Chunks(Chunks::default());
        }
        match self.fields.get(CONTENT_LENGTH).map(|value| length(value.as_bytes())) {
            Some(Some(length)) => Remaining::Length(length),
            Some(None) | None => Remaining::UntilClose { closed: false },
        }
    }
}

impl Remaining {
    /// Whether the body is complete.
    #[must_use]
    pub const fn is_over(&self) -> bool {
        match self {
            Self::Length(left) => *left == 0,
            Self::Chunks(chunks) => chunks.is_over(),
            Self::UntilClose { closed } => *closed,
        }
    }

    /// Takes the next frame from the front of `arrived`; `None` if more bytes are needed or the body is complete.
    ///
    /// # Errors
    /// [`NoChunks`] if the bytes are not valid chunks.
    pub fn next(&mut self, arrived: &mut Bytes) -> Result<Option<Frame<Bytes>>, NoChunks> {
        Ok(match self {
            Self::Chunks(chunks) => match chunks.next(arrived)? {
                Next::Data(data) => Some(Frame::data(data)),
                Next::End(trailers) => trailers.map(Frame::trailers),
                Next::Hungry => None,
            },
            Self::Length(left) => {
                let taken = number::length(*left).min(arrived.len());
                *left -= number::count(taken);
                (taken > 0).then(|| Frame::data(arrived.split_to(taken)))
            }
            Self::UntilClose { .. } => (!arrived.is_empty()).then(|| Frame::data(std::mem::take(arrived))),
        })
    }

    /// Handles the end of the connection. Returns `Some` if that ends the body.
    #[must_use]
    pub fn close(&mut self) -> Option<()> {
        match self {
            Self::UntilClose { closed } => {
                *closed = true;
                Some(())
            }
            Self::Length(_) | Self::Chunks(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(text: &'static str) -> Result<Option<ResponseHead>, httparse::Error> {
        head_after(&mut KnownNames::default(), text)
    }

    fn head_after(names: &mut KnownNames, text: &'static str) -> Result<Option<ResponseHead>, httparse::Error> {
        read(&Bytes::from_static(text.as_bytes()), names, |name| name.to_ascii_lowercase().starts_with(b"wanted"))
    }

    fn whole(text: &'static str) -> ResponseHead {
        head(text).unwrap().unwrap()
    }

    #[test]
    fn rule_1_a_head_is_whole_or_not_there() {
        let text = "HTTP/1.1 200 OK\r\nwanted: a\r\n\r\nbody";
        for end in 0..text.len() - 4 {
            assert!(head(&text[..end]).unwrap().is_none(), "{end}");
        }
        let head = whole(text);
        assert_eq!((head.status, head.bytes), (StatusCode::OK, text.len() - 4));
    }

    #[test]
    fn rule_1_an_invalid_head_is_refused() {
        for text in [
            "HTTP/2.0 200 OK\r\n\r\n",
            "HTTP/1.2 200 OK\r\n\r\n",
            "HTTP/1.1 20 OK\r\n\r\n",
            "HTTP/1.1 000 OK\r\n\r\n",
            "HTTP/1.1 200 OK\r\n folded: a\r\n\r\n",
            "HTTP/1.1 200 OK\r\na : b\r\n\r\n",
            "HTTP/1.1 200 OK\r\na: b\0\r\n\r\n",
            "HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
            "SSH-2.0-OpenSSH\r\n\r\n",
        ] {
            assert!(head(text).is_err(), "{text}");
        }
        let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "a: b\r\n".repeat(FIELDS + 1));
        assert!(read(&Bytes::from(many), &mut KnownNames::default(), |_| true).is_err());
    }

    #[test]
    fn rule_2_only_wanted_fields_are_kept() {
        let head = whole("HTTP/1.1 200 OK\r\nWanted-A: 1\r\nother: 2\r\nContent-Length: 3\r\nwanted-a: 4\r\n\r\n");
        let kept: Vec<_> = head.fields.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
        assert_eq!(kept, [("wanted-a", "1"), ("wanted-a", "4"), ("content-length", "3")]);
    }

    #[test]
    fn rule_2_earlier_heads_change_nothing() {
        let mut names = KnownNames::default();
        for text in [
            "HTTP/1.1 200 OK\r\nwanted-a: 1\r\nother: 2\r\nconnection: close\r\n\r\n",
            "HTTP/1.1 200 OK\r\nwanted-a: 2\r\nother: 3\r\nconnection: x\r\n\r\n",
            "HTTP/1.1 200 OK\r\nother: 2\r\nWanted-a: 3\r\ncontent-length: 3\r\n\r\n",
            "HTTP/1.1 200 OK\r\nwanted-a: 1\r\n\r\n",
            "HTTP/1.1 200 OK\r\nunwanted: 1\r\n\r\n",
            "HTTP/1.1 200 OK\r\nwanted-a: 1\r\nwanted-a: 2\r\nTransfer-Encoding: chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\n\r\n",
        ] {
            let (alone, after) = (whole(text), head_after(&mut names, text).unwrap().unwrap());
            assert_eq!((alone.fields, alone.keep_alive), (after.fields, after.keep_alive), "{text}");
        }
    }

    #[test]
    fn rule_3_a_body_ends_as_its_head_declares() {
        let rest = |text| format!("{:?}", whole(text).rest(false));
        assert_eq!(rest("HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\n"), "Length(7)");
        assert_eq!(rest("HTTP/1.1 204 No Content\r\ncontent-length: 7\r\n\r\n"), "Length(0)");
        assert_eq!(rest("HTTP/1.1 304 Not Modified\r\ntransfer-encoding: chunked\r\n\r\n"), "Length(0)");
        assert_eq!(rest("HTTP/1.1 200 OK\r\n\r\n"), "UntilClose { closed: false }");
        assert!(rest("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").starts_with("Chunks"));
        let to_head = whole("HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\n").rest(true);
        assert!(matches!(to_head, Remaining::Length(0)));
    }

    #[test]
    fn rule_4_connection_close_ends_keep_alive() {
        for (text, expected) in [
            ("HTTP/1.1 200 OK\r\n\r\n", true),
            ("HTTP/1.1 200 OK\r\nconnection: keep-alive\r\n\r\n", true),
            ("HTTP/1.1 200 OK\r\nconnection: Close\r\n\r\n", false),
            ("HTTP/1.1 200 OK\r\nconnection: x, close\r\nconnection: keep-alive\r\n\r\n", false),
            ("HTTP/1.0 200 OK\r\nconnection: keep-alive\r\n\r\n", false),
        ] {
            assert_eq!(whole(text).keep_alive, expected, "{text}");
        }
    }

    #[test]
    fn a_field_that_connection_names_is_still_named() {
        let head = whole("HTTP/1.1 200 OK\r\nconnection: keep-alive, wanted-a\r\nwanted-a: 1\r\n\r\n");
        assert_eq!(head.fields.get(CONNECTION).unwrap(), "keep-alive, wanted-a");
        assert!(!whole("HTTP/1.1 200 OK\r\nconnection: keep-alive,\r\n\r\n").fields.contains_key(CONNECTION));
    }
}

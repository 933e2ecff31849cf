//! The requests of an HTTP/1.1 connection, read strictly and before hyper: where each one ends and the next begins.
//!
//! hyper parses the requests, but it is lenient and hides its repairs. This module checks every byte first. An ambiguous
//! request never reaches hyper: it is rejected and its connection is closed.
//!
//! 1. A line ends with CR LF. CR, LF and other control characters occur nowhere else, except a tab in a value (RFC 9112,
//!    section 2.2). Empty lines before a request are skipped.
//! 2. A request line is a token, one space, a target, one space, `HTTP/1.1` or `HTTP/1.0` (section 3). A target has no
//!    fragment and no character that the URI parser rejects. Raw characters that a query may contain
//!    ([`target::canonical::is_raw`]) are percent-encoded before hyper reads them ([`Stop::Raw`]).
//! 3. A field line is a token, directly a colon, and a value on the same line (section 5).
//! 4. There is exactly one `Host`; it is valid and names the host and port of an absolute target (section 3.2). The port
//!    of the scheme can be omitted in either.
//! 5. There is at most one `Content-Length` or `Transfer-Encoding`, never both: a number, or `chunked` in HTTP/1.1
//!    (section 6).
//! 6. A chunk is its size in hexadecimal digits, a limited number of bytes of extensions, and its data, each ended by CR LF
//!    (section 7.1). Trailers are fields that are allowed as trailers (RFC 9110, section 6.5.1).
//! 7. A header has at most `header_bytes` bytes and `header_fields` fields.
//!
//! Every rejection has a kind ([`Malformed`]), which the log and the response name without any part of the request.

mod fault;
mod head;

pub use fault::{Fault, Stop};
use head::{Head, authority, wrong_host};

use crate::Malformed;
use crate::cut;
use crate::grammar::{self, diagnosis};
use crate::host::Host;
use crate::length::length;
use crate::number;
use crate::target::{self, Broken};

/// The maximum length in bytes of all chunk extensions of a body together.
const EXTENSION_BYTES: usize = 4096;

/// The maximum length in bytes of a chunk-size line.
const CHUNK_LINE_BYTES: usize = 256;

/// The maximum size in bytes of all trailers of a body.
const TRAILER_BYTES: usize = 8 * 1024;

/// The maximum length in bytes of a field name; hyper cannot store names beyond 65,535.
const NAME_BYTES: usize = 1024;

/// The limits of a header.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// The maximum size in bytes of the request line and all fields.
    pub header_bytes: usize,
    /// The maximum number of fields.
    pub header_fields: usize,
}

/// A reader of the bytes of one connection.
#[derive(Debug)]
pub struct Framing {
    bounds: Bounds,
    state: State,
    head: Head,
    /// The beginning of an unfinished line.
    begun: Vec<u8>,
    /// The number of request lines read.
    requests: u64,
    /// Bytes of the current header, chunk-size line or trailers.
    bytes: usize,
    fields: usize,
    extensions: usize,
    /// The last valid `Host`, because most clients repeat it in every request.
    known_host: Box<[u8]>,
}

/// The longest `Host` that is remembered; longer ones are checked each time.
const KNOWN_HOST: usize = 64;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    RequestLine,
    Fields,
    Body(u64),
    ChunkSize,
    ChunkData(u64),
    /// The end of a chunk, and whether its CR has arrived.
    ChunkEnd(bool),
    Trailers,
}

impl Framing {
    /// Creates the reader of a new connection.
    #[must_use]
    pub fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            state: State::RequestLine,
            head: Head::default(),
            begun: Vec::new(),
            requests: 0,
            bytes: 0,
            fields: 0,
            extensions: 0,
            known_host: Box::default(),
        }
    }

    /// Checks the next bytes of the connection.
    ///
    /// # Errors
    /// The first broken rule, after which the connection's bytes have no meaning, or a request line to be passed to
    /// [`Self::encode`].
    pub fn look_at(&mut self, bytes: &[u8]) -> Result<(), Stop> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let in_body = !matches!(self.state, State::RequestLine | State::Fields);
            let counted = self.bytes;
            let looked = match self.state {
                State::Body(left) => Ok(self.pass(rest, left, State::Body, State::RequestLine)),
                State::ChunkData(left) => Ok(self.pass(rest, left, State::ChunkData, State::ChunkEnd(false))),
                State::ChunkEnd(cr) => self.chunk_end(rest, cr),
                State::RequestLine | State::Fields | State::ChunkSize | State::Trailers => self.next_line(rest),
            };
            match looked {
                Ok(behind) => rest = behind,
                Err(kind) => {
                    let sound = bytes.len() - rest.len();
                    if self.state == State::RequestLine && self.could_encode(rest) {
                        self.bytes = counted;
                        return Err(Stop::Raw { sound });
                    }
                    let kind = if self.is_proxy_protocol(rest) { Malformed::ProxyProtocolV2 } else { kind };
                    return Err(Stop::Fault(Fault { sound, kind, in_body }));
                }
            }
        }
        Ok(())
    }

    /// Whether `rest` begins with the rest of a request line that [`Self::encode`] changes, or could once it is complete.
    #[cold]
    fn could_encode(&self, rest: &[u8]) -> bool {
        let (line, _) = cut::line(rest);
        let (piece, whole) = line.strip_suffix(b"\n").map_or((line, false), |line| (line, true));
        let fits = self.bytes <= self.bounds.header_bytes;
        fits && grammar::encoded(&self.begun, piece, whole).is_some()
    }

    /// Percent-encodes the raw characters in the query of a request line. `bytes` begins with the line, or with the rest of
    /// it, and contains its end. Returns the rule that the line broke, and where.
    ///
    /// # Errors
    /// The kind of another fault in the line.
    pub fn encode(&self, bytes: &mut Vec<u8>) -> Result<Broken, Malformed> {
        let line = cut::before(bytes, b'\n');
        let Some((encoded, broken)) = grammar::encoded(&self.begun, line, true) else {
            let whole = [&self.begun, line.strip_suffix(b"\r").unwrap_or(line)].concat();
            return Err(diagnosis::of_request(&whole, true));
        };
        let end = line.len();
        bytes.splice(..end, encoded);
        Ok(broken)
    }

    /// Whether no byte follows the last request.
    #[must_use]
    pub fn is_between_requests(&self) -> bool {
        self.state == State::RequestLine && self.bytes == 0
    }

    /// The number of request lines read.
    #[must_use]
    pub const fn requests(&self) -> u64 {
        self.requests
    }

    /// Whether a request line would be too long with `more` bytes.
    #[must_use]
    pub const fn is_too_long(&self, more: usize) -> bool {
        self.bytes.saturating_add(more) > self.bounds.header_bytes
    }

    /// Skips body data of any content, and returns the bytes behind it.
    fn pass<'a>(&mut self, rest: &'a [u8], left: u64, same: fn(u64) -> State, then: State) -> &'a [u8] {
        let (here, behind) = cut::at_most(rest, number::length(left));
        let left = left - number::count(here.len());
        self.state = if left == 0 { then } else { same(left) };
        behind
    }

    fn chunk_end<'a>(&mut self, rest: &'a [u8], cr: bool) -> Result<&'a [u8], Malformed> {
        let (state, behind) = match (rest, cr) {
            ([b'\r', behind @ ..], false) => (State::ChunkEnd(true), behind),
            ([b'\n', behind @ ..], true) => (State::ChunkSize, behind),
            (_, _) => return Err(Malformed::ChunkEnd),
        };
        self.state = state;
        Ok(behind)
    }

    /// Reads the line that `rest` begins with or continues, and returns the bytes behind it.
    fn next_line<'a>(&mut self, rest: &'a [u8]) -> Result<&'a [u8], Malformed> {
        let (piece, behind) = cut::line(rest);
        self.count(piece.len())?;
        match (piece.ends_with(b"\n"), self.begun.is_empty()) {
            (true, true) => self.take_line(piece)?,
            (true, false) => {
                let whole = [&self.begun, piece].concat();
                self.take_line(&whole)?;
                self.begun.clear();
            }
            (false, _) => {
                self.check_beginning(piece)?;
                self.begun.extend_from_slice(piece);
            }
        }
        Ok(behind)
    }

    /// Counts the bytes of a line, or of a part of one (rules 6 and 7).
    fn count(&mut self, bytes: usize) -> Result<(), Malformed> {
        self.bytes += bytes;
        match self.state {
            State::RequestLine if self.bytes > self.bounds.header_bytes => Err(Malformed::TargetTooLong),
            State::Fields if self.bytes > self.bounds.header_bytes => Err(Malformed::HeaderTooLarge),
            State::ChunkSize if self.bytes > CHUNK_LINE_BYTES => Err(Malformed::ChunkLineTooLong),
            State::Trailers if self.bytes > TRAILER_BYTES => Err(Malformed::TrailersTooLarge),
            State::RequestLine | State::Fields | State::ChunkSize | State::Trailers => Ok(()),
            State::Body(_) | State::ChunkData(_) | State::ChunkEnd(_) => Ok(()),
        }
    }

    /// Checks an unfinished line, because hyper parses what has arrived and would respond on its own.
    fn check_beginning(&self, piece: &[u8]) -> Result<(), Malformed> {
        if self.state == State::ChunkSize {
            let begun = [&self.begun, piece].concat();
            return if grammar::is_begun_chunk(&begun) { Ok(()) } else { Err(diagnosis::of_chunk(&begun, false)) };
        }
        let can_go_on = if self.state == State::RequestLine {
            grammar::is_continued_request(&self.begun, piece)
        } else {
            grammar::is_continued_field(&self.begun, piece)
        };
        if can_go_on { Ok(()) } else { Err(self.cannot_go_on(piece)) }
    }

    #[cold]
    fn cannot_go_on(&self, piece: &[u8]) -> Malformed {
        let line = [&self.begun, piece].concat();
        if self.state == State::RequestLine {
            diagnosis::of_request(&line, false)
        } else {
            diagnosis::of_field(&line, false)
        }
    }

    /// Diagnoses a line that ends with a line feed alone.
    #[cold]
    fn without_cr(&self, line: &[u8]) -> Malformed {
        match self.state {
            State::ChunkSize => Malformed::ChunkLineEnd,
            State::RequestLine => diagnosis::of_another_protocol(line).unwrap_or(Malformed::BareLineFeed),
            State::Fields | State::Trailers | State::Body(_) | State::ChunkData(_) | State::ChunkEnd(_) => {
                Malformed::BareLineFeed
            }
        }
    }

    fn take_line(&mut self, line: &[u8]) -> Result<(), Malformed> {
        let Some(line) = line.strip_suffix(b"\r\n") else { return Err(self.without_cr(line)) };
        match self.state {
            State::RequestLine if line.is_empty() => Ok(()),
            State::RequestLine => self.request_line(line),
            State::Fields if line.is_empty() => self.end_of_header(),
            State::Fields => self.field(line),
            State::ChunkSize => self.chunk_size(line),
            State::Trailers if line.is_empty() => {
                self.next_request();
                Ok(())
            }
            State::Trailers => self.trailer(line),
            State::Body(_) | State::ChunkData(_) | State::ChunkEnd(_) => Ok(()),
        }
    }

    /// Reads a request line (rules 2 and 4).
    fn request_line(&mut self, text: &[u8]) -> Result<(), Malformed> {
        let Some(request) = grammar::request(text, true)? else { return Err(diagnosis::of_request(text, true)) };
        if request.target.len() > target::MAXIMUM_BYTES {
            return Err(Malformed::TargetTooLong);
        }
        let plain = matches!(request.target, [b'/', ..] | b"*");
        let authority = if plain { None } else { Some(authority(&request)?) };
        // hyper's URI parser accepts a grave accent in a query, but not in a path.
        if request.target.split(|byte| *byte == b'?').next().is_some_and(|path| path.contains(&b'`')) {
            return Err(diagnosis::of_request(text, true));
        }
        let is_connect = authority.is_some() && request.method == b"CONNECT";
        self.head = Head { http10: request.http10, is_connect, authority, ..Head::default() };
        self.state = State::Fields;
        self.fields = 0;
        self.requests += 1;
        Ok(())
    }

    /// Reads a field line (rules 3, 4, 5 and 7).
    fn field(&mut self, text: &[u8]) -> Result<(), Malformed> {
        let (name, value) = self.counted_field(text)?;
        if name.eq_ignore_ascii_case(b"host") {
            // Host may be empty (RFC 9110, section 7.2); `policy/admission.rs` checks whether the listener accepts it.
            let is_host = value.is_empty() || *value == *self.known_host || Host::of(value).is_some();
            let same = self.head.is_for(value);
            let again = std::mem::replace(&mut self.head.host, true);
            if again || !same || !is_host {
                return Err(wrong_host(again, is_host));
            }
            if value.len() <= KNOWN_HOST && *value != *self.known_host {
                self.known_host = value.into();
            }
        } else if name.eq_ignore_ascii_case(b"content-length") {
            let length = length(value).ok_or(Malformed::InvalidContentLength)?;
            if self.head.chunked {
                return Err(Malformed::LengthAndEncoding);
            }
            if self.head.length.replace(length).is_some() {
                return Err(Malformed::TwoContentLengths);
            }
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            let again = std::mem::replace(&mut self.head.chunked, true);
            let chunked = value.eq_ignore_ascii_case(b"chunked");
            if again || !chunked || self.head.http10 || self.head.length.is_some() {
                return Err(self.head.wrong_encoding(again));
            }
        }
        Ok(())
    }

    fn counted_field<'a>(&mut self, text: &'a [u8]) -> Result<grammar::Field<'a>, Malformed> {
        let Some((name, value)) = grammar::field(text, true)? else { return Err(diagnosis::of_field(text, true)) };
        self.fields += 1;
        if self.fields > self.bounds.header_fields {
            return Err(Malformed::TooManyFields);
        }
        if name.len() > NAME_BYTES {
            return Err(Malformed::FieldNameTooLong);
        }
        Ok((name, value))
    }

    fn end_of_header(&mut self) -> Result<(), Malformed> {
        if !self.head.host {
            // Python sends CONNECT in HTTP/1.0, which has no Host: what is wrong is the method.
            return Err(if self.head.is_connect { Malformed::Connect } else { Malformed::NoHost });
        }
        self.next_request();
        match self.head.length {
            _ if self.head.chunked => {
                self.state = State::ChunkSize;
                self.extensions = 0;
            }
            None | Some(0) => {}
            Some(length) => self.state = State::Body(length),
        }
        Ok(())
    }

    fn next_request(&mut self) {
        self.state = State::RequestLine;
        self.bytes = 0;
    }

    /// Reads a chunk-size line (rule 6).
    fn chunk_size(&mut self, text: &[u8]) -> Result<(), Malformed> {
        let (size, extension) = grammar::chunk(text).ok_or_else(|| diagnosis::of_chunk(text, true))?;
        self.extensions += extension;
        if self.extensions > EXTENSION_BYTES {
            return Err(Malformed::ChunkExtensionsTooLong);
        }
        self.bytes = 0;
        self.fields = 0;
        self.state = if size == 0 { State::Trailers } else { State::ChunkData(size) };
        Ok(())
    }

    fn trailer(&mut self, text: &[u8]) -> Result<(), Malformed> {
        let (name, _) = self.counted_field(text)?;
        if grammar::is_forbidden_in_trailers(name) { Err(Malformed::ForbiddenTrailer) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests;

//! Where one request ends and the next begins: HTTP/1.1 read strictly, beside hyper and before it.
//!
//! hyper parses requests; it is lenient, and hides what it repairs. So every byte is looked at here first. What two
//! readers could understand differently never reaches hyper: the request is refused and its connection closed.
//!
//! 1. A line ends with CR and LF; neither stands anywhere else, nor does another control character but a tab in a value
//!    (RFC 9112, section 2.2). Empty lines before a request are passed over.
//! 2. A request line is a token, one space, a target, one space, `HTTP/1.1` or `HTTP/1.0` (section 3). A target has no
//!    fragment and no character that the parser of URIs would refuse.
//! 3. A field line is a token, a colon at once, and a value on the same line (section 5).
//! 4. There is exactly one `Host`, a valid one, and the same as the authority of an absolute target (section 3.2).
//! 5. At most one of `Content-Length` and `Transfer-Encoding`, once: a number, or `chunked` in HTTP/1.1 (section 6).
//! 6. A chunk is its size in hexadecimal digits, a little of extensions, and its data, each ended by CR LF
//!    (section 7.1). Trailers are fields that may stand there (RFC 9110, section 6.5.1).
//! 7. A header has at most `header_bytes` bytes and `header_fields` fields.
//!
//! Where it is plain what a refused request line was meant to be, the log says so, and nothing of what it holds.

use http::{Method, Uri};

use crate::host::Host;
use crate::line::{self, Cause};
use crate::rejection::Reason;
use crate::target;
use crate::upstream::framing::length;

/// All extensions of one body's chunks together, and the line of one chunk.
const EXTENSION_BYTES: usize = 4096;

/// The line of one chunk.
const CHUNK_LINE_BYTES: usize = 256;

/// All trailers of a body.
const TRAILER_BYTES: usize = 8 * 1024;

/// The name of a field; hyper has no room for those beyond 65,535.
const NAME_BYTES: usize = 1024;

/// How large a header may be.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// The request line and all fields.
    pub header_bytes: usize,
    /// How many fields.
    pub header_fields: usize,
}

/// What breaks a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    /// How many of the bytes that were looked at are sound, and part of nothing that breaks a rule.
    pub sound: usize,
    /// Which rule.
    pub reason: Reason,
    /// It is in the body of a request whose header was sound.
    pub in_body: bool,
    /// What it is taken for.
    pub cause: Option<Cause>,
}

/// The place in a connection's bytes.
#[derive(Debug)]
pub struct Framing {
    bounds: Bounds,
    state: State,
    head: Head,
    /// The beginning of a line whose end has not arrived.
    begun: Vec<u8>,
    /// Of this header or these trailers.
    bytes: usize,
    fields: usize,
    extensions: usize,
    /// What the last `Host` was: most callers say the same each time.
    known_host: Box<[u8]>,
    cause: Option<Cause>,
}

/// A longer host is looked at each time.
const KNOWN_HOST: usize = 64;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    RequestLine,
    Fields,
    Body(u64),
    ChunkSize,
    ChunkData(u64),
    /// The end of a chunk: whether its CR is here.
    ChunkEnd(bool),
    Trailers,
}

/// What a header says about where its request ends, and where it goes.
#[derive(Debug, Default)]
struct Head {
    http10: bool,
    /// Of an absolute target.
    authority: Option<Box<str>>,
    host: bool,
    length: Option<u64>,
    chunked: bool,
}

impl Framing {
    /// Of a new connection.
    #[must_use]
    pub fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            state: State::RequestLine,
            head: Head::default(),
            begun: Vec::new(),
            bytes: 0,
            fields: 0,
            extensions: 0,
            known_host: Box::default(),
            cause: None,
        }
    }

    /// Looks at the next bytes of the connection.
    ///
    /// # Errors
    /// The first thing that breaks a rule. The connection's other bytes have no meaning then.
    pub fn look_at(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let in_body = !matches!(self.state, State::RequestLine | State::Fields);
            let looked = match self.state {
                State::Body(left) => Ok(self.pass(rest, left, State::Body, State::RequestLine)),
                State::ChunkData(left) => Ok(self.pass(rest, left, State::ChunkData, State::ChunkEnd(false))),
                State::ChunkEnd(cr) => self.chunk_end(rest, cr),
                State::RequestLine | State::Fields | State::ChunkSize | State::Trailers => self.next_line(rest),
            };
            match looked {
                Ok(passed) => rest = rest.get(passed..).unwrap_or_default(),
                Err(reason) => {
                    let cause = self.cause;
                    if let Some(cause) = cause {
                        tracing::warn!(reason = reason.as_str(), %cause, "request failed");
                    }
                    return Err(Fault { sound: bytes.len() - rest.len(), reason, in_body, cause });
                }
            }
        }
        Ok(())
    }

    /// Passes over data, whatever it is.
    fn pass(&mut self, rest: &[u8], left: u64, same: fn(u64) -> State, then: State) -> usize {
        let here = u64::try_from(rest.len()).unwrap_or(u64::MAX).min(left);
        self.state = if here == left { then } else { same(left - here) };
        // No more than `rest` has.
        usize::try_from(here).unwrap_or(rest.len())
    }

    fn chunk_end(&mut self, rest: &[u8], cr: bool) -> Result<usize, Reason> {
        match (rest.first(), cr) {
            (Some(b'\r'), false) => self.state = State::ChunkEnd(true),
            (Some(b'\n'), true) => self.state = State::ChunkSize,
            (_, _) => return Err(Reason::BadFraming),
        }
        Ok(1)
    }

    /// Takes the line that `rest` begins with or goes on with.
    fn next_line(&mut self, rest: &[u8]) -> Result<usize, Reason> {
        let end = memchr::memchr(b'\n', rest).map(|at| at + 1);
        let piece = rest.get(..end.unwrap_or(rest.len())).unwrap_or_default();
        self.count(piece.len())?;
        match (end, self.begun.is_empty()) {
            (Some(_), true) => self.take_line(piece).map_err(|reason| self.because(piece, reason))?,
            (Some(_), false) => {
                let mut whole = std::mem::take(&mut self.begun);
                whole.extend_from_slice(piece);
                self.take_line(&whole).map_err(|reason| self.because(&whole, reason))?;
            }
            (None, _) => {
                let checked = self.check_beginning(piece);
                checked.map_err(|reason| self.because(&[&self.begun, piece].concat(), reason))?;
                self.begun.extend_from_slice(piece);
            }
        }
        Ok(piece.len())
    }

    fn because(&mut self, line: &[u8], reason: Reason) -> Reason {
        if self.state == State::RequestLine {
            self.cause = Cause::of(line, reason);
        }
        reason
    }

    /// Counts the bytes of a line, or of a part of it (rules 6 and 7).
    fn count(&mut self, bytes: usize) -> Result<(), Reason> {
        self.bytes += bytes;
        match self.state {
            State::RequestLine if self.bytes > self.bounds.header_bytes => Err(Reason::TargetTooLong),
            State::Fields if self.bytes > self.bounds.header_bytes => Err(Reason::HeadersTooLarge),
            State::ChunkSize if self.bytes > CHUNK_LINE_BYTES => Err(Reason::BadFraming),
            State::Trailers if self.bytes > TRAILER_BYTES => Err(Reason::HeadersTooLarge),
            State::RequestLine | State::Fields | State::ChunkSize | State::Trailers => Ok(()),
            State::Body(_) | State::ChunkData(_) | State::ChunkEnd(_) => Ok(()),
        }
    }

    /// Checks a line as far as it has arrived: hyper parses what arrives first, and would answer by itself.
    fn check_beginning(&self, piece: &[u8]) -> Result<(), Reason> {
        if self.state == State::ChunkSize {
            let begun = [&self.begun, piece].concat();
            return if line::is_begun_chunk(&begun) { Ok(()) } else { Err(Reason::BadFraming) };
        }
        if !self.begun.is_empty() {
            return if line::goes_on(&self.begun, piece) { Ok(()) } else { Err(Reason::MalformedRequest) };
        }
        match self.state {
            State::RequestLine if piece != b"\r" => line::request(piece, false).map(|_| ()),
            State::Fields | State::Trailers => line::field(piece, false).map(|_| ()),
            State::RequestLine | State::ChunkSize | State::Body(_) | State::ChunkData(_) | State::ChunkEnd(_) => Ok(()),
        }
    }

    fn take_line(&mut self, line: &[u8]) -> Result<(), Reason> {
        let Some(line) = line.strip_suffix(b"\r\n") else {
            let in_chunks = self.state == State::ChunkSize;
            return Err(if in_chunks { Reason::BadFraming } else { Reason::MalformedRequest });
        };
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

    /// Rules 2 and 4.
    fn request_line(&mut self, text: &[u8]) -> Result<(), Reason> {
        let Some(request) = line::request(text, true)? else { return Err(Reason::MalformedRequest) };
        if request.target.len() > target::MAXIMUM_BYTES {
            return Err(Reason::TargetTooLong);
        }
        let plain = matches!(request.target, [b'/', ..] | b"*");
        let authority = if plain { None } else { Some(authority(&request)?) };
        // hyper's parser of URIs takes a grave accent in a query, but not in a path.
        if request.target.split(|byte| *byte == b'?').next().is_some_and(|path| path.contains(&b'`')) {
            return Err(Reason::BadTarget);
        }
        self.head = Head { http10: request.http10, authority, ..Head::default() };
        self.state = State::Fields;
        self.fields = 0;
        Ok(())
    }

    /// Rules 3, 4, 5 and 7.
    fn field(&mut self, text: &[u8]) -> Result<(), Reason> {
        let (name, value) = self.counted_field(text)?;
        if name.eq_ignore_ascii_case(b"host") {
            // It may be empty (RFC 9110, section 7.2); whether it does for a listener is for `gateway/admit.rs` to say.
            let is_host = value.is_empty() || *value == *self.known_host || Host::of(value).is_some();
            let same = self.head.authority.as_deref().is_none_or(|known| value.eq_ignore_ascii_case(known.as_bytes()));
            if std::mem::replace(&mut self.head.host, true) || !same || !is_host {
                return Err(Reason::BadHost);
            }
            if value.len() <= KNOWN_HOST && *value != *self.known_host {
                self.known_host = value.into();
            }
        } else if name.eq_ignore_ascii_case(b"content-length") {
            let length = length(value).ok_or(Reason::BadFraming)?;
            if self.head.chunked || self.head.length.replace(length).is_some() {
                return Err(Reason::BadFraming);
            }
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            let again = std::mem::replace(&mut self.head.chunked, true);
            let chunked = value.eq_ignore_ascii_case(b"chunked");
            if again || !chunked || self.head.http10 || self.head.length.is_some() {
                return Err(Reason::BadFraming);
            }
        }
        Ok(())
    }

    fn counted_field<'a>(&mut self, text: &'a [u8]) -> Result<line::Field<'a>, Reason> {
        let Some((name, value)) = line::field(text, true)? else { return Err(Reason::MalformedRequest) };
        self.fields += 1;
        if self.fields > self.bounds.header_fields || name.len() > NAME_BYTES {
            return Err(Reason::HeadersTooLarge);
        }
        Ok((name, value))
    }

    fn end_of_header(&mut self) -> Result<(), Reason> {
        if !self.head.host {
            return Err(Reason::BadHost);
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

    /// Rule 6.
    fn chunk_size(&mut self, text: &[u8]) -> Result<(), Reason> {
        let (size, extension) = line::chunk(text).ok_or(Reason::BadFraming)?;
        self.extensions += extension;
        if self.extensions > EXTENSION_BYTES {
            return Err(Reason::BadFraming);
        }
        self.bytes = 0;
        self.fields = 0;
        self.state = if size == 0 { State::Trailers } else { State::ChunkData(size) };
        Ok(())
    }

    fn trailer(&mut self, text: &[u8]) -> Result<(), Reason> {
        let (name, _) = self.counted_field(text)?;
        if line::is_forbidden_in_trailers(name) { Err(Reason::MalformedRequest) } else { Ok(()) }
    }
}

/// The authority of a target that is not only a path. Such targets are rare, so they may cost to be parsed twice.
fn authority(request: &line::RequestLine<'_>) -> Result<Box<str>, Reason> {
    let uri = Uri::try_from(request.target).map_err(|_| Reason::BadTarget)?;
    let of_web = uri.scheme_str().is_some_and(|scheme| matches!(scheme, "http" | "https"));
    let of_connect = uri.scheme().is_none() && request.method == Method::CONNECT.as_str().as_bytes();
    let authority = uri.authority().filter(|authority| (of_web || of_connect) && !authority.as_str().contains('@'));
    authority.map(|authority| authority.as_str().into()).ok_or(Reason::BadTarget)
}

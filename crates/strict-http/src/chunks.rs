//! Chunked response bodies (RFC 9112, section 7.1).
//!
//! 1. A size is hexadecimal digits, and extensions are skipped. A size line and the data of a chunk each end with CR LF.
//! 2. A line has at most [`LINE_BYTES`] bytes, and so have all extensions of a body together.
//! 3. The chunk of size 0 ends the body; trailers may follow, at most [`TRAILER_BYTES`] and [`TRAILERS`].
//! 4. Other bytes make the body invalid and incomplete.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::{cut, grammar, number};

/// The maximum length in bytes of a line, and of all extensions of a body together.
pub const LINE_BYTES: usize = 16 * 1024;
/// The maximum size of all trailers, in bytes.
pub const TRAILER_BYTES: usize = 16 * 1024;
/// The maximum number of trailers.
pub const TRAILERS: usize = 100;

/// A reader of a chunked body.
#[derive(Debug, Default)]
pub struct Chunks {
    place: Place,
    /// Bytes of extensions read so far.
    extensions: usize,
    trailers: Trailers,
}

/// The trailers read so far.
#[derive(Debug, Default)]
struct Trailers {
    fields: HeaderMap,
    bytes: usize,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Place {
    #[default]
    Size,
    Data(u64),
    /// The CR LF after the data.
    End,
    Trailers,
    Over,
}

/// The next part of a body.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// Data, never empty.
    Data(Bytes),
    /// The end of the body, with its trailers if there are any.
    End(Option<HeaderMap>),
    /// More bytes are needed.
    Hungry,
}

/// The bytes are not a valid chunked body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the body is not chunked as RFC 9112 requires")]
pub struct NoChunks;

impl Chunks {
    /// Whether the body has ended.
    #[must_use]
    pub const fn is_over(&self) -> bool {
        matches!(self.place, Place::Over)
    }

    /// Reads the next part from the front of `arrived`, and removes it there. An incomplete line is left in place.
    ///
    /// # Errors
    /// [`NoChunks`] (rule 4).
    pub fn next(&mut self, arrived: &mut Bytes) -> Result<Next, NoChunks> {
        loop {
            match self.place {
                Place::Size => {
                    let Some(line) = take_line(arrived)? else { return Ok(Next::Hungry) };
                    let (size, extension) = grammar::chunk(&line).ok_or(NoChunks)?;
                    self.extensions += extension;
                    if self.extensions > LINE_BYTES {
                        return Err(NoChunks);
                    }
                    self.place = if size == 0 { Place::Trailers } else { Place::Data(size) };
                }
                Place::Data(_) if arrived.is_empty() => return Ok(Next::Hungry),
                Place::Data(left) => {
                    let taken = number::length(left).min(arrived.len());
                    let left = left - number::count(taken);
                    self.place = if left == 0 { Place::End } else { Place::Data(left) };
                    return Ok(Next::Data(arrived.split_to(taken)));
                }
                Place::End => match arrived.get(..2) {
                    Some(b"\r\n") => {
                        drop(arrived.split_to(2));
                        self.place = Place::Size;
                    }
                    None if b"\r".starts_with(arrived) => return Ok(Next::Hungry),
                    Some(_) | None => return Err(NoChunks),
                },
                Place::Trailers => {
                    let Some(line) = take_line(arrived)? else { return Ok(Next::Hungry) };
                    if self.trailers.take(&line)? {
                        self.place = Place::Over;
                        let trailers = std::mem::take(&mut self.trailers.fields);
                        return Ok(Next::End(Some(trailers).filter(|trailers| !trailers.is_empty())));
                    }
                }
                Place::Over => return Ok(Next::End(None)),
            }
        }
    }
}

/// Removes a line from the front and returns it without its line end; `None` if it is incomplete.
fn take_line(arrived: &mut Bytes) -> Result<Option<Bytes>, NoChunks> {
    let (window, _) = cut::at_most(arrived, LINE_BYTES);
    let Some(end) = memchr::memchr(b'\n', window) else {
        return if window.len() < LINE_BYTES { Ok(None) } else { Err(NoChunks) };
    };
    let mut line = arrived.split_to(end + 1);
    line.truncate(end);
    match line.split_off(end.saturating_sub(1)).as_ref() {
        b"\r" => Ok(Some(line)),
        _ => Err(NoChunks),
    }
}

impl Trailers {
    /// Reads the next line; returns true at the end of the trailers.
    fn take(&mut self, line: &Bytes) -> Result<bool, NoChunks> {
        if line.is_empty() {
            return Ok(true);
        }
        self.bytes += line.len();
        if self.bytes > TRAILER_BYTES || self.fields.len() == TRAILERS {
            return Err(NoChunks);
        }
        let (name, value) = grammar::field(line, true).ok().flatten().ok_or(NoChunks)?;
        let name = HeaderName::from_bytes(name).map_err(|_| NoChunks)?;
        self.fields.append(name, HeaderValue::from_bytes(value).map_err(|_| NoChunks)?);
        Ok(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Whole = (Vec<u8>, Option<HeaderMap>);

    /// Reads a body that arrives in `pieces`: its data and its trailers, or `None` if it has no end.
    fn read(pieces: &[&[u8]]) -> Result<Option<Whole>, NoChunks> {
        let (mut chunks, mut arrived, mut data) = (Chunks::default(), Bytes::new(), Vec::new());
        for piece in pieces {
            arrived = Bytes::from([&arrived, *piece].concat());
            loop {
                match chunks.next(&mut arrived)? {
                    Next::Data(piece) => data.extend_from_slice(&piece),
                    Next::End(trailers) => {
                        assert!(chunks.is_over());
                        return Ok(Some((data, trailers)));
                    }
                    Next::Hungry => break,
                }
            }
        }
        Ok(None)
    }

    #[test]
    fn rule_1_in_whatever_pieces() {
        let body = b"3\r\nabc\r\n00A;name=value\r\n0123456789\r\n0\r\ndigest: x\r\n\r\n";
        for size in 1..body.len() {
            let pieces: Vec<&[u8]> = body.chunks(size).collect();
            let (data, trailers) = read(&pieces).unwrap().unwrap();
            assert_eq!(data, b"abc0123456789", "{size}");
            assert_eq!(trailers.unwrap().get("digest").unwrap(), "x");
        }
        assert_eq!(read(&[b"0\r\n\r\n"]).unwrap().unwrap(), (Vec::new(), None));
        for end in 0..body.len() {
            assert_eq!(read(&[&body[..end]]), Ok(None), "{end}");
        }
    }

    #[test]
    fn rule_2_lines_have_a_bound() {
        let long = format!("1;{}\r\na\r\n0\r\n\r\n", "e".repeat(LINE_BYTES));
        assert_eq!(read(&[long.as_bytes()]), Err(NoChunks));
        let many = format!("1;{}\r\na\r\n", "e".repeat(1000)).repeat(20);
        assert_eq!(read(&[many.as_bytes()]), Err(NoChunks));
        let unfinished = vec![b'1'; LINE_BYTES];
        assert_eq!(read(&[&unfinished]), Err(NoChunks));
    }

    #[test]
    fn rule_3_trailers_have_a_bound() {
        let trailers = |count: usize| format!("0\r\n{}\r\n", "a: b\r\n".repeat(count));
        assert!(read(&[trailers(TRAILERS).as_bytes()]).unwrap().is_some());
        assert_eq!(read(&[trailers(TRAILERS + 1).as_bytes()]), Err(NoChunks));
        let long = format!("0\r\na: {}", "b".repeat(TRAILER_BYTES));
        assert_eq!(read(&[long.as_bytes()]), Err(NoChunks));
    }

    #[test]
    fn rule_4_invalid_chunks_are_rejected() {
        for body in [
            &b"x\r\n"[..],
            b"\r\n",
            b"-1\r\n",
            b"1\na\n0\n\n",
            b"1\r\nab\r\n",
            b"1\r\na\n0\r\n\r\n",
            b"11111111111111111\r\n",
            b"0\r\nno field\r\n\r\n",
        ] {
            assert_eq!(read(&[body]), Err(NoChunks), "{:?}", String::from_utf8_lossy(body));
        }
    }
}

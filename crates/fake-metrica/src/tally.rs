//! Counts the contents of an upload while it streams: bytes, lines of a file, elements of a JSON list. Only the last few
//! hundred bytes are kept, to find the end of a multipart body.

use std::ops::ControlFlow;

use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use strict_http::{cut, number};

/// The maximum length of the end of a multipart body: line break, dashes, 70 characters of boundary, dashes, line break.
const TAIL_BYTES: usize = 256;

/// A multipart body whose part header is longer than this is counted as a plain file.
const HEAD_BYTES: usize = 8 * 1024;

/// The counts of a body.
#[derive(Debug, Default)]
pub struct Tally {
    /// All bytes, including the multipart framing.
    pub bytes: u64,
    line_breaks: u64,
    head: Vec<u8>,
    tail: Vec<u8>,
    in_frame: bool,
    is_multipart: bool,
    json: Json,
}

#[derive(Debug, Default)]
struct Json {
    depth: u32,
    in_string: bool,
    is_escaped: bool,
    elements: u64,
}

impl Tally {
    /// Creates the counters for a body with this `Content-Type`.
    pub fn new(content_type: &str) -> Self {
        let is_multipart = content_type.trim_start().to_ascii_lowercase().starts_with("multipart/");
        Self { in_frame: is_multipart, is_multipart, ..Self::default() }
    }

    /// Counts a whole body.
    pub async fn count(mut self, mut body: Incoming) -> Result<Self, hyper::Error> {
        while let Some(frame) = body.frame().await {
            if let Some(chunk) = frame?.data_ref() {
                self.add(chunk);
            }
        }
        Ok(self)
    }

    /// Counts the next piece.
    pub fn add(&mut self, chunk: &[u8]) {
        self.bytes += number::count(chunk.len());
        if self.in_frame {
            self.head.extend_from_slice(chunk);
            let end = self.head.windows(4).position(|window| window == b"\r\n\r\n");
            if end.is_none() && self.head.len() < HEAD_BYTES {
                return;
            }
            self.in_frame = false;
            let head = std::mem::take(&mut self.head);
            self.add_content(cut::at_most(&head, end.map_or(0, |end| end + 4)).1);
        } else {
            self.add_content(chunk);
        }
    }

    fn add_content(&mut self, content: &[u8]) {
        for byte in content {
            self.line_breaks += u64::from(*byte == b'\n');
            self.json.add(*byte);
        }
        self.tail.extend_from_slice(cut::last(content, TAIL_BYTES));
        self.tail.drain(..self.tail.len().saturating_sub(TAIL_BYTES));
    }

    /// The number of lines of the file, including its header line, excluding multipart framing.
    pub fn lines(&self) -> u64 {
        let is_boundary = |window: &[u8]| window == b"\r\n--";
        let end = self.tail.windows(4).rposition(is_boundary).filter(|_| self.is_multipart);
        let (content, frame) = end.map_or((&*self.tail, &[][..]), |end| cut::at_most(&self.tail, end));
        let framing = frame.iter().filter(|byte| **byte == b'\n').count();
        let unfinished = content.last().is_some_and(|byte| *byte != b'\n');
        self.line_breaks.saturating_sub(number::count(framing)) + u64::from(unfinished)
    }

    /// The number of objects in the list of a body such as `{"contacts": [{…}, {…}]}`.
    pub const fn elements(&self) -> u64 {
        self.json.elements
    }
}

impl Json {
    fn add(&mut self, byte: u8) {
        if let ControlFlow::Continue(()) = self.add_to_string(byte) {
            match byte {
                b'"' => self.in_string = true,
                b'{' | b'[' => {
                    // Depth 1 is the body and depth 2 its list, so an object that opens at depth 2 is an element.
                    self.elements += u64::from(byte == b'{' && self.depth == 2);
                    self.depth = self.depth.saturating_add(1);
                }
                b'}' | b']' => self.depth = self.depth.saturating_sub(1),
                _ => {}
            }
        }
    }

    const fn add_to_string(&mut self, byte: u8) -> ControlFlow<()> {
        if !self.in_string {
            return ControlFlow::Continue(());
        }
        match byte {
            _ if self.is_escaped => self.is_escaped = false,
            b'\\' => self.is_escaped = true,
            b'"' => self.in_string = false,
            _ => {}
        }
        ControlFlow::Break(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(content_type: &str, body: &str, piece: usize) -> Tally {
        let mut tally = Tally::new(content_type);
        body.as_bytes().chunks(piece).for_each(|chunk| tally.add(chunk));
        tally
    }

    #[test]
    fn a_multipart_file_is_counted_without_its_frame() {
        let frame =
            |file: &str| format!("--xx\r\nContent-Disposition: form-data; name=\"file\"\r\n\r\n{file}\r\n--xx--\r\n");
        for (file, lines) in [("", 0), ("a", 1), ("a\n", 1), ("a\nb", 2), ("a\r\nb\r\n", 2)] {
            for piece in [1, 3, 1000] {
                let body = frame(file);
                let tally = tally("multipart/form-data; boundary=xx", &body, piece);
                assert_eq!(
                    (tally.lines(), tally.bytes),
                    (lines, u64::try_from(body.len()).unwrap()),
                    "{file:?} by {piece}"
                );
            }
        }
    }

    #[test]
    fn a_plain_file_and_json_are_counted() {
        assert_eq!(tally("text/csv", "a\r\n--b\nc", 2).lines(), 3);
        let body = r#"{"contacts":[{"name":"a\"{[","x":[{}]},{"name":"b"}]}"#;
        assert_eq!(tally("application/json", body, 5).elements(), 2);
        assert_eq!(tally("", "", 1).lines(), 0);
    }
}

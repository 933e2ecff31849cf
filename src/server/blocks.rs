//! Joins the frames of an HTTP/2 header block: hyper gets every block in a single HEADERS frame.
//!
//! A caller may split a header block into a HEADERS frame and CONTINUATION frames at any byte (RFC 9113, section
//! 4.3). If a frame ends inside a field, h2 0.4.20 forgets a malformed field that it has read before (`connection`, a
//! second `:path`, a field without a name), and accepts the remainder as a request. RFC 9113, section 8.1.1, forbids
//! forwarding such a request.
//!
//! 1. The frames of a block become one HEADERS frame without padding. All other bytes pass unchanged.
//! 2. A block larger than [`Blocks::new`] allows ends the connection ([`Fault::LargeBlock`]).
//! 3. A malformed block passes unchanged, or as the beginning of a block that never ends; hyper closes the connection
//!    for it.

use bytes::{Buf, BufMut, BytesMut};
use strict_http::flood_guard::Fault;
use strict_http::frame::{END_HEADERS, Frame, HEADER, PADDED, kind};
use strict_http::{cut, number};
use tokio::io::ReadBuf;

/// The flag of a HEADERS frame that begins with priority fields (RFC 9113, section 6.2).
const PRIORITY: u8 = 0x20;
const PRIORITY_BYTES: usize = 5;

/// A block that is not complete yet.
#[derive(Debug)]
struct Block {
    /// The header of the HEADERS frame.
    first: [u8; HEADER],
    stream: u32,
    fragment: BytesMut,
}

/// The filter between the bytes of a caller and hyper.
#[derive(Debug)]
pub struct Blocks {
    /// The maximum size of a block in bytes.
    most: usize,
    /// The remaining payload bytes of a frame that passes unchanged.
    left: usize,
    /// Held bytes, from the header of a frame that cannot be judged yet.
    held: BytesMut,
    block: Option<Block>,
    /// Bytes that hyper reads next.
    ready: BytesMut,
}

impl Blocks {
    /// Returns the filter of a connection that begins with `prelude` bytes outside of frames, and may send blocks of
    /// up to `most` bytes.
    #[must_use]
    pub fn new(prelude: usize, most: usize) -> Self {
        Self { most, left: prelude, held: BytesMut::new(), block: None, ready: BytesMut::new() }
    }

    /// Moves bytes that are ready into `buffer`. Returns whether there were any.
    pub fn give(&mut self, buffer: &mut ReadBuf<'_>) -> bool {
        let (now, _) = cut::at_most(&self.ready, buffer.remaining());
        if now.is_empty() {
            return false;
        }
        buffer.put_slice(now);
        let now = now.len();
        self.ready.advance(now);
        if self.ready.is_empty() {
            self.ready = BytesMut::new();
        }
        true
    }

    /// Accepts bytes that arrived. Returns how many of them pass directly to hyper; the others are held, and some may
    /// be ready now.
    ///
    /// # Errors
    /// [`Fault::LargeBlock`] (rule 2).
    pub fn take(&mut self, bytes: &[u8]) -> Result<usize, Fault> {
        if self.block.is_none() && self.held.is_empty() {
            let rest = self.pass(bytes);
            if !rest.is_empty() {
                self.held.extend_from_slice(rest);
                self.inspect_next()?;
            }
            return Ok(bytes.len() - rest.len());
        }
        self.held.extend_from_slice(bytes);
        self.inspect_next()?;
        Ok(0)
    }

    /// Returns the bytes that do not pass unchanged: from the first frame header that is incomplete or begins a block of
    /// several frames.
    fn pass<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let mut rest = bytes;
        loop {
            let (passed, behind) = cut::at_most(rest, self.left);
            rest = behind;
            self.left -= passed.len();
            let Some((header, behind)) = rest.split_first_chunk() else { return rest };
            let frame = Frame::read(*header);
            if frame.kind == kind::HEADERS && !frame.has(END_HEADERS) {
                return rest;
            }
            rest = behind;
            self.left = frame.length;
        }
    }

    /// Processes the held bytes as far as they can be judged.
    fn inspect_next(&mut self) -> Result<(), Fault> {
        loop {
            if self.block.is_none() {
                let held = std::mem::take(&mut self.held);
                let passed = held.len() - self.pass(&held).len();
                self.held = held;
                self.ready.unsplit(self.held.split_to(passed));
            }
            let Some(header) = self.held.first_chunk().copied() else { break };
            let frame = Frame::read(header);
            let before = self.block.as_ref().map_or(0, |block| block.fragment.len());
            if before.saturating_add(frame.length) > self.most {
                return Err(Fault::LargeBlock);
            }
            if self.block.as_ref().is_some_and(|block| frame.kind != kind::CONTINUATION || frame.stream != block.stream)
            {
                self.finish(0);
                continue;
            }
            if self.held.len() < HEADER + frame.length {
                break;
            }
            let mut whole = self.held.split_to(HEADER + frame.length);
            match &mut self.block {
                Some(block) => {
                    whole.advance(HEADER);
                    block.fragment.unsplit(whole);
                    if frame.has(END_HEADERS) {
                        self.finish(END_HEADERS);
                    }
                }
                None => match without_padding(&whole, frame) {
                    Some(content) => {
                        let fragment = BytesMut::from(content);
                        self.block = Some(Block { first: header, stream: frame.stream, fragment });
                    }
                    None => self.ready.unsplit(whole),
                },
            }
        }
        if self.held.is_empty() {
            self.held = BytesMut::new();
        }
        Ok(())
    }

    /// Turns the block into one frame, adding `flag` to its flags.
    fn finish(&mut self, flag: u8) {
        let Some(Block { first, fragment, .. }) = self.block.take() else { return };
        let [.., kind, flags, a, b, c, d] = first;
        // A block has at most `most` bytes, so its length fits into the 24 bits of a frame.
        let [_, length @ ..] = number::saturated::<u32>(fragment.len()).to_be_bytes();
        self.ready.put_slice(&length);
        self.ready.put_slice(&[kind, flags & !PADDED | flag, a, b, c, d]);
        self.ready.unsplit(fragment);
    }
}

/// Returns the payload of a HEADERS frame without its padding (RFC 9113, section 6.2); `None` if the padding exceeds
/// the payload.
fn without_padding(whole: &[u8], frame: Frame) -> Option<&[u8]> {
    let payload = whole.get(HEADER..)?;
    if !frame.has(PADDED) {
        return Some(payload);
    }
    let (padding, content) = payload.split_first()?;
    let content = content.get(..content.len().checked_sub(usize::from(*padding))?)?;
    // The priority fields are not padding.
    (!frame.has(PRIORITY) || content.len() >= PRIORITY_BYTES).then_some(content)
}

#[cfg(test)]
mod tests {
    use super::*;

    const END_STREAM: u8 = 1;

    fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
    }

    /// Returns the bytes that hyper reads when `bytes` arrive in pieces of `size` bytes, into a buffer of that size.
    fn read(bytes: &[u8], size: usize) -> Result<Vec<u8>, Fault> {
        let mut blocks = Blocks::new(3, 100);
        let mut read = Vec::new();
        for piece in bytes.chunks(size) {
            let passed = blocks.take(piece)?;
            read.extend_from_slice(&piece[..passed]);
            let mut room = vec![0; size];
            let mut buffer = ReadBuf::new(&mut room);
            while blocks.give(&mut buffer) {
                read.extend_from_slice(buffer.filled());
                buffer.clear();
            }
        }
        Ok(read)
    }

    #[track_caller]
    fn holds(bytes: &[Vec<u8>], expected: &[Vec<u8>]) {
        let (bytes, expected) = (bytes.concat(), expected.concat());
        for size in 1..=bytes.len() {
            assert_eq!(read(&bytes, size).as_ref(), Ok(&expected), "in pieces of {size}");
        }
    }

    fn whole() -> Vec<u8> {
        frame(kind::HEADERS, END_STREAM | END_HEADERS, 1, b"block")
    }

    fn beginning(block: &[u8]) -> Vec<u8> {
        frame(kind::HEADERS, END_STREAM, 1, block)
    }

    fn rest(flags: u8, block: &[u8]) -> Vec<u8> {
        frame(kind::CONTINUATION, flags, 1, block)
    }

    #[test]
    fn rule_1_a_block_becomes_one_frame() {
        let pri = || b"PRI".to_vec();
        let data = || frame(kind::DATA, 0, 3, b"data");
        holds(&[pri(), data(), whole(), data()], &[pri(), data(), whole(), data()]);
        let pieces = [pri(), data(), beginning(b"bl"), rest(0, b""), rest(0, b"o"), rest(END_HEADERS, b"ck"), data()];
        holds(&pieces, &[pri(), data(), whole(), data()]);
        let twice = [pri(), beginning(b"block"), rest(END_HEADERS, b""), beginning(b""), rest(END_HEADERS, b"block")];
        holds(&twice, &[pri(), whole(), whole()]);
    }

    #[test]
    fn rule_1_padding_goes_and_priority_stays() {
        let flags = PADDED | 0x20;
        let padded = frame(kind::HEADERS, flags, 1, &[&[2][..], b"prior", b"bl", &[0, 0]].concat());
        let whole = frame(kind::HEADERS, 0x20 | END_HEADERS, 1, b"priorblock");
        holds(&[b"PRI".to_vec(), padded, rest(END_HEADERS, b"ock")], &[b"PRI".to_vec(), whole]);
    }

    #[test]
    fn rule_2_a_block_has_a_bound() {
        let most = [beginning(&[0; 60]), rest(END_HEADERS, &[0; 40])].concat();
        let more = [beginning(&[0; 60]), rest(END_HEADERS, &[0; 41])].concat();
        let one = beginning(&[0; 101]);
        for size in 1..most.len() {
            assert!(read(&[b"PRI", &most[..]].concat(), size).is_ok());
            assert_eq!(read(&[b"PRI", &more[..]].concat(), size), Err(Fault::LargeBlock));
            assert_eq!(read(&[b"PRI", &one[..]].concat(), size), Err(Fault::LargeBlock));
        }
        // The size of a block in a single frame is left to hyper.
        let large = frame(kind::HEADERS, END_HEADERS, 1, &[0; 1000]);
        holds(&[b"PRI".to_vec(), large.clone()], &[b"PRI".to_vec(), large]);
    }

    #[test]
    fn rule_3_invalid_blocks_are_passed_to_hyper() {
        let pri = || b"PRI".to_vec();
        let other = || frame(kind::CONTINUATION, END_HEADERS, 3, b"ock");
        holds(&[pri(), beginning(b"b"), rest(0, b"l"), other()], &[pri(), beginning(b"bl"), other()]);
        let ping = || frame(6, 0, 0, &[0; 8]);
        holds(&[pri(), beginning(b"bl"), ping(), whole()], &[pri(), beginning(b"bl"), ping(), whole()]);
        let padded = || frame(kind::HEADERS, PADDED, 1, &[9, 1]);
        holds(&[pri(), padded(), ping()], &[pri(), padded(), ping()]);
        let priority = || frame(kind::HEADERS, PADDED | PRIORITY, 1, &[5, 0, 0, 0, 0, 1]);
        holds(&[pri(), priority(), rest(END_HEADERS, b"b")], &[pri(), priority(), rest(END_HEADERS, b"b")]);
        let empty = || frame(kind::HEADERS, PADDED, 1, &[]);
        holds(&[pri(), empty(), rest(0, b"")], &[pri(), empty(), rest(0, b"")]);
    }
}

//! Header blocks of HTTP/2 reach hyper whole, in one frame each.
//!
//! A caller may cut a header block into a HEADERS frame and CONTINUATION frames at any byte (RFC 9113, section 4.3). Where a
//! frame ends inside a field, h2 0.4.20 forgets that it has read a malformed field before (`connection`, a second `:path`, one
//! without a name), and takes the rest for a request. Section 8.1.1 forbids to pass such a request on.
//!
//! 1. The frames of a block become one HEADERS frame, without the padding. All other bytes pass as they are.
//! 2. A block larger than [`Blocks::new`] allows ends the connection ([`Fault::LargeBlock`]).
//! 3. What is no block after all passes as it is, or as the beginning of a block that does not end: hyper ends the connection for it.

use bytes::{Buf, BufMut, BytesMut};
use strict_http::flood_guard::Fault;
use strict_http::frame::{END_HEADERS, Frame, HEADER, PADDED, kind};
use tokio::io::ReadBuf;

/// HEADERS may begin with this (RFC 9113, section 6.2).
const PRIORITY: u8 = 0x20;
const PRIORITY_BYTES: usize = 5;

/// A block whose end has not arrived.
#[derive(Debug)]
struct Block {
    /// The header of its HEADERS frame.
    first: [u8; HEADER],
    stream: u32,
    fragment: BytesMut,
}

/// What stands between the bytes of a caller and hyper.
#[derive(Debug)]
pub struct Blocks {
    /// A block has at most so many bytes.
    most: usize,
    /// Of the payload of a frame that passes, not here yet.
    left: usize,
    /// From the header of a frame on: what can not be judged yet.
    held: BytesMut,
    block: Option<Block>,
    /// What hyper is to read next.
    ready: BytesMut,
}

impl Blocks {
    /// Of a connection that begins with `prelude` bytes that are no frame, and may send blocks of at most `most` bytes.
    #[must_use]
    pub fn new(prelude: usize, most: usize) -> Self {
        Self { most, left: prelude, held: BytesMut::new(), block: None, ready: BytesMut::new() }
    }

    /// Puts what is ready into `buffer`; whether there was anything.
    pub fn give(&mut self, buffer: &mut ReadBuf<'_>) -> bool {
        let now = self.ready.len().min(buffer.remaining());
        if now == 0 {
            return false;
        }
        buffer.put_slice(self.ready.get(..now).unwrap_or_default());
        self.ready.advance(now);
        if self.ready.is_empty() {
            self.ready = BytesMut::new();
        }
        true
    }

    /// Takes bytes that arrived: so many of them are for hyper at once. Of the others, some may be ready now.
    ///
    /// # Errors
    /// Rule 2.
    pub fn take(&mut self, bytes: &[u8]) -> Result<usize, Fault> {
        if self.block.is_none() && self.held.is_empty() {
            let passed = self.pass(bytes);
            let rest = bytes.get(passed..).unwrap_or_default();
            if !rest.is_empty() {
                self.held.extend_from_slice(rest);
                self.look_on()?;
            }
            return Ok(passed);
        }
        self.held.extend_from_slice(bytes);
        self.look_on()?;
        Ok(0)
    }

    /// How many of `bytes` pass as they are: up to the header of a frame that is not here whole, or that begins a block of
    /// several frames.
    fn pass(&mut self, bytes: &[u8]) -> usize {
        let mut at = 0;
        loop {
            let passed = self.left.min(bytes.len() - at);
            at += passed;
            self.left -= passed;
            let Some(frame) = bytes.get(at..).and_then(<[u8]>::first_chunk).map(|header| Frame::read(*header)) else {
                return at;
            };
            if frame.kind == kind::HEADERS && !frame.has(END_HEADERS) {
                return at;
            }
            at += HEADER;
            self.left = frame.length;
        }
    }

    /// Looks at what is held, as far as it can be judged.
    fn look_on(&mut self) -> Result<(), Fault> {
        loop {
            if self.block.is_none() {
                let held = std::mem::take(&mut self.held);
                let passed = self.pass(&held);
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

    /// The block becomes a frame, with `flag` beside its own.
    fn finish(&mut self, flag: u8) {
        let Some(Block { first, fragment, .. }) = self.block.take() else { return };
        let [.., kind, flags, a, b, c, d] = first;
        let [_, length @ ..] = u32::try_from(fragment.len()).unwrap_or(u32::MAX).to_be_bytes();
        self.ready.put_slice(&length);
        self.ready.put_slice(&[kind, flags & !PADDED | flag, a, b, c, d]);
        self.ready.unsplit(fragment);
    }
}

/// The payload of a HEADERS frame without its padding (RFC 9113, section 6.2); `None` where it says more of it than there is.
fn without_padding(whole: &[u8], frame: Frame) -> Option<&[u8]> {
    let payload = whole.get(HEADER..)?;
    if !frame.has(PADDED) {
        return Some(payload);
    }
    let (padding, content) = payload.split_first()?;
    let content = content.get(..content.len().checked_sub(usize::from(*padding))?)?;
    // What says who has priority is no padding.
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

    /// What hyper reads when `bytes` arrive in pieces of this size, into a buffer of as many bytes.
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
        // Of a whole one, hyper judges the size.
        let large = frame(kind::HEADERS, END_HEADERS, 1, &[0; 1000]);
        holds(&[b"PRI".to_vec(), large.clone()], &[b"PRI".to_vec(), large]);
    }

    #[test]
    fn rule_3_what_is_no_block_is_for_hyper_to_refuse() {
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

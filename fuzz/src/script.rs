//! What a caller of HTTP/2 does, as bytes in which a change of one is a change of one thing.
//!
//! A script is steps. A step is a byte that says what it does and how, a byte that says where, and text up to the next NUL:
//!
//! | low half of the first byte | step |
//! |---|---|
//! | 0 | HEADERS with the fields of the text, one a line; what a request lacks is added, unless it is to be bare |
//! | 1, 2 | DATA of the text, or of so many times 64 bytes |
//! | 3, 4 | RST_STREAM, WINDOW_UPDATE |
//! | 5, 6, 7, 8 | SETTINGS of pairs of bytes, PING, GOAWAY, PRIORITY |
//! | 9 | a frame of any kind |
//! | 10, 11 | bytes as they are, and a header block as it is: so many as the second byte says, in the place of a text |
//! | 12 | the step before once more, sixteen times as often as the second byte says |
//! | 13 | waits until everything that was asked is answered, or does what the second byte says |
//! | 14 | the text is the upstream's first answer |
//! | 15 | HEADERS of a stream that is there: trailers |
//!
//! The high half has the flags of `END`, `BARE`, `PADDED` and `PRIORITIZED`. The second byte's low half is a stream, see
//! `Script::stream`; its high half says how a header block is written. In a text, a byte 1 makes a control of the next one.
//!
//! The second byte of step 13 says with its lowest three bits what the caller does, see `connection.rs`, unless the low
//! half is zero; of the bytes before, so many as the square of its high half are sent only after that, or, where nothing
//! can be sent after it, never: so a connection can end in the middle of anything.

use crate::connection::{Act, Acts};
use crate::frames::{self, frame};
use crate::hpack::write_literal;

const END: u8 = 0x10;
const BARE: u8 = 0x20;
const PADDED: u8 = 0x40;
const PRIORITIZED: u8 = 0x80;

/// Of the second byte, in steps with fields.
const PIECES: u8 = 0x30;
const INDEXED: u8 = 0x40;
const UNFINISHED: u8 = 0x80;

/// Bounds of a script.
const STEPS: usize = 64;
const BYTES: usize = 192 * 1024;
const TIMES: usize = 1;
const WAITS: usize = 4;

/// What a complete request has.
const COMPLETE: [(&[u8], &[u8]); 4] = [
    (b":method", b"GET"),
    (b":scheme", b"http"),
    (b":path", b"/management/v1/counters"),
    (b":authority", b"localhost"),
];

/// What a caller does.
#[derive(Debug, Default)]
pub struct Script {
    /// What it does.
    pub acts: Acts,
    /// The upstream's first answer.
    pub answer: Option<Vec<u8>>,
    latest: u32,
    next: u32,
}

/// A step.
#[derive(Clone, Copy)]
struct Step<'a> {
    does: u8,
    place: u8,
    text: &'a [u8],
}

impl Script {
    /// Reads a script behind bytes that were sent.
    pub fn read(before: &[u8], bytes: &[u8]) -> Self {
        let mut script = Self { next: 1, latest: 1, ..Self::default() };
        script.acts.send(before);
        let mut rest = bytes;
        let mut last = None;
        let mut times = 0;
        let mut waits = 0;
        for _ in 0..STEPS {
            let [does, place, behind @ ..] = rest else { break };
            let (text, behind) = match does & 0xf {
                10 | 11 => behind.split_at(behind.len().min(usize::from(*place))),
                _ => behind.split_at(behind.iter().position(|byte| *byte == 0).unwrap_or(behind.len())),
            };
            let is_text = !matches!(does & 0xf, 10 | 11);
            rest = if is_text { behind.get(1..).unwrap_or_default() } else { behind };
            let step = Step { does: *does, place: *place, text };
            match (does & 0xf, last) {
                (12, Some(last)) if times < TIMES => {
                    times += 1;
                    for _ in 0..usize::from(*place) * 16 {
                        script.take(last);
                    }
                }
                (12, _) => {}
                (13, _) if place & 0xf == 0 => {
                    waits += 1;
                    if waits <= WAITS {
                        script.acts.act(Act::Wait);
                    }
                }
                (13, _) => {
                    let held_back = script.acts.take_back(usize::from(place >> 4).pow(2));
                    script.acts.act(Act::of(*place));
                    script.acts.send(&held_back);
                }
                (14, _) => script.answer = Some(unescaped(text)),
                _ => {
                    script.take(step);
                    last = Some(step);
                }
            }
        }
        script
    }

    fn send(&mut self, bytes: &[u8]) {
        if self.acts.length() + bytes.len() <= BYTES {
            self.acts.send(bytes);
        }
    }

    /// The stream that the second byte of a step says.
    fn stream(&mut self, place: u8, begins: bool) -> u32 {
        match place & 0xf {
            0 if begins => {
                self.latest = self.next;
                self.next += 2;
                self.latest
            }
            0 => self.latest,
            13 => 0,
            14 => 2,
            15 => frames::LAST_STREAM,
            number => {
                let stream = u32::from(number) * 2 - 1;
                if begins {
                    (self.latest, self.next) = (stream, self.next.max(stream + 2));
                }
                stream
            }
        }
    }

    fn take(&mut self, step: Step<'_>) {
        let Step { does, place, text } = step;
        let kind = does & 0xf;
        let stream = self.stream(place, matches!(kind, 0 | 11));
        let end = if does & END != 0 { frames::END_STREAM } else { 0 };
        let bytes = match kind {
            0 | 15 => headers(step, stream, &block(step)),
            1 => data(does, stream, &unescaped(text)),
            2 => data(does, stream, &vec![b'x'; usize::from(place) * 64]),
            3 => frame(frames::RST_STREAM, 0, stream, &u32::from(place >> 4).to_be_bytes()),
            4 => {
                let increments = [1_u32, 0, 1000, 0xffff, 0x7fff_ffff, 0x8000_0001, 10, 100];
                let increment = increments[usize::from(place >> 5)];
                frame(frames::WINDOW_UPDATE, 0, stream, &increment.to_be_bytes())
            }
            5 => frame(frames::SETTINGS, end, if place & 0xf == 15 { stream } else { 0 }, &settings(text)),
            6 => {
                let mut content = unescaped(text);
                content.resize(if does & BARE == 0 { 8 } else { content.len() }, place);
                frame(frames::PING, end, 0, &content)
            }
            7 => frame(frames::GOAWAY, 0, 0, &[stream.to_be_bytes(), u32::from(place >> 4).to_be_bytes()].concat()),
            8 => frame(frames::PRIORITY, 0, stream, &[0, 0, 0, place >> 4, 1]),
            9 => frame(place, does >> 4, 0, &unescaped(text)),
            10 => text.to_vec(),
            // The second byte says how long it is, so it stands on a stream of its own.
            _ => {
                let stream = self.stream(0, true);
                headers(Step { place: 0, ..step }, stream, text)
            }
        };
        self.send(&bytes);
    }
}

fn data(does: u8, stream: u32, content: &[u8]) -> Vec<u8> {
    let end = if does & END != 0 { frames::END_STREAM } else { 0 };
    let content = &content[..content.len().min(frames::MOST - 8)];
    if does & PADDED == 0 {
        return frame(frames::DATA, end, stream, content);
    }
    // One that is bare says more padding than there is.
    let padding = if does & BARE == 0 { 3 } else { 0xff };
    frame(frames::DATA, end | frames::PADDED, stream, &[&[padding], content, &[0; 3]].concat())
}

/// Pairs of bytes: an identifier, and the power of two that is its value, or one less, or nothing.
fn settings(text: &[u8]) -> Vec<u8> {
    let setting = |pair: &[u8]| {
        let power = 1_u32 << (pair[1] & 0x1f);
        let value = if pair[1] == 0x80 { 0 } else { power - u32::from(pair[1] >> 7) };
        [&[0, pair[0]][..], &value.to_be_bytes()].concat()
    };
    text.chunks_exact(2).flat_map(setting).collect()
}

/// A header block of the fields of a text.
fn block(step: Step<'_>) -> Vec<u8> {
    let mut fields: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
    for line in step.text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        let colon = line.iter().skip(1).position(|byte| *byte == b':').map_or(line.len(), |at| at + 1);
        let value = line.get(colon + 1..).unwrap_or_default();
        fields.push((unescaped(&line[..colon]), unescaped(value.strip_prefix(b" ").unwrap_or(value))));
    }
    let mut block = Vec::new();
    let indexed = step.place & INDEXED != 0;
    if step.does & 0xf == 0 && step.does & BARE == 0 {
        let lacks = COMPLETE.iter().filter(|(name, _)| !fields.iter().any(|(known, _)| known == name));
        lacks.for_each(|(name, value)| write_literal(&mut block, name, value, indexed));
    }
    fields.iter().for_each(|(name, value)| write_literal(&mut block, name, value, indexed));
    block
}

/// The frames of a header block.
fn headers(step: Step<'_>, stream: u32, block: &[u8]) -> Vec<u8> {
    let Step { does, place, .. } = step;
    let piece = [frames::MOST - 32, 1, 9, 60][usize::from((place & PIECES) >> 4)];
    let mut pieces: Vec<&[u8]> = block.chunks(piece).take(600).collect();
    if pieces.is_empty() {
        pieces.push(b"");
    }
    let mut bytes = Vec::new();
    for (position, piece) in pieces.iter().enumerate() {
        let is_last = position + 1 == pieces.len() && place & UNFINISHED == 0;
        let mut flags = if is_last { frames::END_HEADERS } else { 0 };
        if position > 0 {
            bytes.extend(frame(frames::CONTINUATION, flags, stream, piece));
            continue;
        }
        let mut content = Vec::new();
        if does & END != 0 {
            flags |= frames::END_STREAM;
        }
        if does & PADDED != 0 {
            flags |= frames::PADDED;
            content.push(2);
        }
        if does & PRIORITIZED != 0 {
            flags |= frames::PRIORITIZED;
            content.extend([0, 0, 0, 0, 15]);
        }
        content.extend_from_slice(piece);
        if does & PADDED != 0 {
            content.extend([0, 0]);
        }
        bytes.extend(frame(frames::HEADERS, flags, stream, &content));
    }
    bytes
}

/// A byte 1 makes a control of the next one, so that a text can hold NULs and line ends.
fn unescaped(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            1 => out.extend(bytes.next().map(|next| next & 0x1f)),
            other => out.push(*other),
        }
    }
    out
}

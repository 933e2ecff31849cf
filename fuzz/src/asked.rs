//! A reader of what a caller sends over HTTP/2; written apart from the gate's. Where a connection should end, it may read
//! on: what it finds is everything that can have been asked.

use std::collections::{BTreeMap, BTreeSet};

use crate::frames::{self, Frame};
use crate::hpack::{Decoder, Field};
use crate::requests::{Request, is_token};

/// A request on a stream.
#[derive(Debug, Default, Clone)]
pub struct Asked {
    pub fields: Vec<Field>,
    pub body: Vec<u8>,
    /// The caller said that it is whole.
    pub ended: bool,
    /// The caller reset it.
    pub given_up: bool,
    /// Its trailers are none.
    broken: bool,
}

/// Where the bytes end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    Between,
    /// In a frame, of which at least so many bytes lack.
    Frame(usize),
    /// In the header block of a stream.
    Block(u32),
    /// Behind something after which nothing counts.
    Over,
}

/// What a connection's bytes hold.
#[derive(Debug)]
pub struct Sent {
    pub streams: BTreeMap<u32, Asked>,
    /// All that a frame was for.
    pub named: BTreeSet<u32>,
    pub place: Place,
    /// There is nothing that a stream or the connection may end for.
    pub calm: bool,
    pub settings: usize,
    pub pings: Vec<Vec<u8>>,
    /// The largest table that the caller allows for header blocks, and the largest payload.
    pub most: (u64, usize),
    decoder: Decoder,
    frames: usize,
    data: usize,
    empty_data: usize,
}

/// So many frames, streams and bytes of bodies are far from every limit.
const FEW: (usize, usize, usize) = (300, 50, 50_000);

/// So are so many frames of bodies that bring nothing, and so much that the fields of one request take when they are
/// unpacked.
const FEW_EMPTY: usize = 50;
const SMALL: usize = 64 * 1024;

/// Reads everything that a caller sent, the preface first.
pub fn read(bytes: &[u8]) -> Sent {
    let mut sent = Sent {
        streams: BTreeMap::new(),
        named: BTreeSet::new(),
        place: Place::Over,
        calm: true,
        settings: 0,
        pings: Vec::new(),
        most: (0, frames::MOST),
        decoder: Decoder::default(),
        frames: 0,
        data: 0,
        empty_data: 0,
    };
    let Some(mut rest) = bytes.strip_prefix(frames::PREFACE) else { return sent };
    let mut continuations = 0;
    // The first frame of a header block, and what it has of the block so far.
    let mut block: Option<(Frame<'_>, Vec<u8>)> = None;
    sent.place = loop {
        if rest.is_empty() {
            break block.map_or(Place::Between, |(first, _)| Place::Block(first.stream));
        }
        let (frame, behind) = match Frame::read(rest) {
            Ok(read) => read,
            Err(lacks) => break Place::Frame(lacks),
        };
        rest = behind;
        sent.frames += 1;
        sent.named.insert(frame.stream);
        let fine = match (frame.kind, block.take()) {
            _ if frame.payload.len() > frames::MOST || (sent.frames == 1 && frame.kind != frames::SETTINGS) => None,
            (frames::HEADERS, before) => {
                sent.calm &= before.is_none();
                frame.content().map(|content| block = Some((frame, content.to_vec())))
            }
            (frames::CONTINUATION, Some((first, fragment))) if first.stream == frame.stream => {
                block = Some((first, [&fragment, frame.payload].concat()));
                continuations += 1;
                Some(())
            }
            (frames::CONTINUATION, Some(_)) => None,
            // A block whose beginning it refuses, h2 forgets, and reads on.
            (_, before) => {
                sent.calm &= before.is_none();
                sent.take(&frame)
            }
        };
        let ends_block = frame.has(frames::END_HEADERS) && block.is_some();
        let fine = fine.and_then(|()| match block.take_if(|_| ends_block) {
            Some((first, block)) => sent.take_block(&first, &block),
            None => Some(()),
        });
        if fine.is_none() {
            break Place::Over;
        }
    };
    sent.calm &= sent.place == Place::Between
        && sent.settings > 0
        && sent.frames < FEW.0
        && continuations < 5
        && sent.streams.len() < FEW.1
        && sent.data < FEW.2
        && sent.empty_data < FEW_EMPTY;
    sent
}

impl Sent {
    /// `None` where nothing behind it counts.
    fn take(&mut self, frame: &Frame<'_>) -> Option<()> {
        match frame.kind {
            frames::DATA => {
                let content = frame.content()?;
                self.data += frame.payload.len();
                self.empty_data += usize::from(content.is_empty());
                self.calm &= self.streams.get(&frame.stream).is_some_and(|asked| !asked.ended);
                let open = self.streams.get_mut(&frame.stream).filter(|asked| !asked.ended && !asked.given_up);
                if let Some(asked) = open {
                    asked.body.extend_from_slice(content);
                    asked.ended = frame.has(frames::END_STREAM);
                }
            }
            frames::RST_STREAM => {
                self.calm = false;
                self.streams.entry(frame.stream).and_modify(|asked| asked.given_up = true);
            }
            frames::SETTINGS => {
                self.calm &= frame.payload.is_empty() && frame.stream == 0 && !frame.has(frames::ACK);
                self.settings += 1;
                for setting in frame.payload.chunks_exact(6) {
                    let value = u32::from_be_bytes([setting[2], setting[3], setting[4], setting[5]]);
                    match setting[1] {
                        1 => self.most.0 = self.most.0.max(u64::from(value)),
                        5 => self.most.1 = self.most.1.max(value as usize),
                        _ => {}
                    }
                }
            }
            frames::PING => {
                self.calm &= frame.payload.len() == 8 && frame.stream == 0 && !frame.has(frames::ACK);
                self.pings.push(frame.payload.to_vec());
            }
            kind => self.calm &= kind > frames::CONTINUATION,
        }
        Some(())
    }

    fn take_block(&mut self, first: &Frame<'_>, bytes: &[u8]) -> Option<()> {
        let block = self.decoder.decode(bytes)?;
        let ends = first.has(frames::END_STREAM);
        self.calm &= !first.has(frames::PRIORITIZED) && bytes.len() < frames::MOST;
        self.calm &= block.sound && block.size <= SMALL;
        let fields = block.fields;
        if let Some(asked) = self.streams.get_mut(&first.stream) {
            self.calm = false;
            if !asked.ended && !asked.given_up {
                asked.ended = ends;
                // Pseudo-header fields go no further than h2, which takes them in trailers.
                asked.broken |= !ends || fields.iter().any(|field| is_no_field(field) && !field.0.starts_with(b":"));
            }
            return Some(());
        }
        self.calm &= self.streams.last_key_value().is_none_or(|(last, _)| *last < first.stream);
        if first.stream.is_multiple_of(2) {
            // For a request that is malformed, h2 resets such a stream, and reads on; for any other it ends the connection.
            self.calm = false;
            return Some(());
        }
        self.calm &= fields.iter().all(is_readable);
        self.streams.insert(first.stream, Asked { fields, ended: ends, ..Asked::default() });
        Some(())
    }
}

/// What a request has beside its fields.
const PSEUDO: [&[u8]; 4] = [b":method", b":scheme", b":path", b":authority"];

/// For what is not, h2 ends the connection.
fn is_readable((name, value): &Field) -> bool {
    let is_text = value.iter().all(|byte| (b' '..0x7f).contains(byte));
    let is_name = is_token(name) && !name.iter().any(u8::is_ascii_uppercase);
    is_text && (is_name || PSEUDO.contains(&&name[..])) && (name != b":method" || is_token(value))
}

/// What no field may be, and of pseudo-header fields all (RFC 9113, sections 8.2.1 and 8.2.2).
fn is_no_field((name, value): &Field) -> bool {
    name.is_empty()
        || name.iter().any(|byte| !byte.is_ascii_graphic() || byte.is_ascii_uppercase() || *byte == b':')
        || value.iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0))
        || matches!(&name[..], b"connection" | b"keep-alive" | b"proxy-connection" | b"transfer-encoding" | b"upgrade")
        || (name == b"te" && !value.eq_ignore_ascii_case(b"trailers"))
}

impl Asked {
    fn values<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        self.fields.iter().filter(move |(known, _)| known == name.as_bytes()).map(|(_, value)| value.as_slice())
    }

    fn only(&self, name: &str) -> Option<&[u8]> {
        let mut values = self.values(name);
        values.next().filter(|_| values.next().is_none())
    }

    /// Answers to it have no content.
    pub fn is_head(&self) -> bool {
        self.only(":method") == Some(b"HEAD")
    }

    /// It may mean two things, or nothing (RFC 9113, sections 8.2 and 8.3), and goes to nobody.
    pub fn is_malformed(&self) -> bool {
        let is_pseudo = |(name, _): &Field| name.starts_with(b":");
        let (pseudo, fields) = self.fields.split_at(self.fields.iter().take_while(|field| is_pseudo(field)).count());
        let unknown = |(name, _): &Field| !PSEUDO.contains(&&name[..]);
        let lacks = [":method", ":scheme", ":path"].iter().any(|name| self.values(name).count() != 1);
        let authority = self.values(":authority").count() > 1;
        let hosts: Vec<_> = self.values("host").collect();
        let host = hosts.len() > 1
            || self.only(":authority").is_some_and(|one| hosts.iter().any(|other| !one.eq_ignore_ascii_case(other)));
        self.broken
            || pseudo.iter().any(unknown)
            || fields.iter().any(is_no_field)
            || lacks
            || authority
            || host
            || self.values("content-length").count() > 1
            // An empty one is none to h2, and goes no further.
            || self.values("content-length").any(|length| !length.iter().all(u8::is_ascii_digit))
    }

    /// There is no doubt that it is one, and it is neither large nor whole in another sense than it says.
    pub fn is_plain(&self) -> bool {
        let plain = |name: &str, more: &[u8]| {
            let value = self.only(name).unwrap_or_default();
            !value.is_empty() && value.iter().all(|byte| byte.is_ascii_alphanumeric() || more.contains(byte))
        };
        let length = self.only("content-length").map(|length| String::from_utf8_lossy(length).parse::<usize>());
        !self.is_malformed()
            && self
                .only(":method")
                .is_some_and(|method| method.iter().all(u8::is_ascii_uppercase) && method != b"CONNECT")
            && matches!(self.only(":scheme"), Some(b"http" | b"https"))
            && plain(":authority", b".-")
            && plain(":path", b"/-._~%?&=+,!$*")
            && self.only(":path").is_some_and(|path| path.starts_with(b"/"))
            && self.fields.len() < 40
            && self.size() < 8000
            && self.fields.iter().all(is_readable)
            && length.is_none_or(|length| length == Ok(self.body.len()))
    }

    /// The bytes of all fields.
    pub fn size(&self) -> usize {
        self.fields.iter().map(|(name, value)| name.len() + value.len()).sum()
    }

    /// As HTTP/1.1 has it, with as much of the body as a request with this length has.
    pub fn request(&self, length: Option<usize>) -> Request {
        // What is behind a `#` is taken away where policy has not read it yet.
        let target = self.only(":path").and_then(|path| path.split(|byte| *byte == b'#').next()).unwrap_or_default();
        let text = |name: &str| String::from_utf8_lossy(self.only(name).unwrap_or_default()).into_owned();
        let body = &self.body[..self.body.len().min(length.unwrap_or(usize::MAX))];
        let fields =
            self.fields.iter().map(|(name, value)| (String::from_utf8_lossy(name).into_owned(), value.clone()));
        Request {
            method: text(":method"),
            target: String::from_utf8_lossy(target).into_owned(),
            fields: fields.collect(),
            body: body.to_vec(),
            head_bytes: 0,
            http10: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frames::frame;
    use crate::hpack::write_literal;

    /// The header block of a request, with more fields.
    fn block(more: &[(&str, &str)]) -> Vec<u8> {
        let request = [(":method", "POST"), (":scheme", "http"), (":path", "/a"), (":authority", "localhost")];
        let mut block = Vec::new();
        for (name, value) in request.iter().chain(more) {
            write_literal(&mut block, name.as_bytes(), value.as_bytes(), false);
        }
        block
    }

    /// Reads frames behind the preface and SETTINGS.
    fn read_frames(frames: &[Vec<u8>]) -> Sent {
        read(&[frames::PREFACE, &frame(frames::SETTINGS, 0, 0, b""), &frames.concat()].concat())
    }

    fn whole(block: &[u8]) -> Vec<u8> {
        frame(frames::HEADERS, frames::END_STREAM | frames::END_HEADERS, 1, block)
    }

    fn in_two(block: &[u8], at: usize) -> [Vec<u8>; 2] {
        let (first, second) = block.split_at(at);
        [
            frame(frames::HEADERS, frames::END_STREAM, 1, first),
            frame(frames::CONTINUATION, frames::END_HEADERS, 1, second),
        ]
    }

    #[test]
    fn a_plain_request_is_calm() {
        let block = block(&[("accept", "*/*")]);
        for sent in [read_frames(&[whole(&block)]), read_frames(&in_two(&block, 20))] {
            assert!(sent.calm && sent.streams[&1].is_plain(), "{sent:?}");
        }
    }

    #[test]
    fn a_block_that_a_reader_may_refuse_is_not_calm() {
        let update_late = [&block(&[])[..], &[0x20]].concat();
        let integer_of_six_octets = [&[0x3f, 0x80, 0x80, 0x80, 0x80, 0][..], &block(&[])].concat();
        let mut large = block(&[]);
        write_literal(&mut large, b"x", &[b'y'; 4000], true);
        large.extend([0xbe; 20]);
        for block in [update_late, integer_of_six_octets, large] {
            let sent = read_frames(&[whole(&block)]);
            assert!(!sent.calm && sent.place == Place::Between && sent.streams.contains_key(&1), "{sent:?}");
        }
        // Nothing counts behind what every reader refuses.
        for wrong in [&[0x80][..], &[0xbe], &[0x3f, 0xe2, 0x1f], &[0, 0x81, 0xfe]] {
            let sent = read_frames(&[whole(&[&block(&[])[..], wrong].concat())]);
            assert!(!sent.calm && sent.place == Place::Over && sent.streams.is_empty(), "{sent:?}");
        }
    }

    #[test]
    fn a_malformed_request_is_calm_in_pieces_too() {
        for more in [("connection", "close"), (":path", "/b"), ("te", "gzip")] {
            let block = block(&[more, ("accept", "*/*")]);
            for frames in [vec![whole(&block)], in_two(&block, block.len() - 2).to_vec()] {
                let sent = read_frames(&frames);
                assert!(sent.calm && sent.streams[&1].is_malformed(), "{sent:?}");
            }
        }
    }

    #[test]
    fn many_frames_without_content_are_not_calm() {
        let begin = frame(frames::HEADERS, frames::END_HEADERS, 1, &block(&[]));
        let end = frame(frames::DATA, frames::END_STREAM, 1, b"x");
        for (padding, kind) in [(&b""[..], 0), (&[1, 0], frames::PADDED)] {
            let empty = |times| vec![frame(frames::DATA, kind, 1, padding); times];
            let sent = |times| read_frames(&[&[begin.clone()][..], &empty(times), &[end.clone()]].concat());
            assert!(sent(49).calm && sent(49).streams[&1].is_plain());
            assert!(!sent(50).calm && sent(50).streams[&1].ended);
        }
    }
}

//! A reader of what a caller receives over HTTP/2, to the letter.

use std::collections::BTreeMap;

use crate::answers::Answer;
use crate::asked::Sent;
use crate::frames::{self, Frame};
use crate::hpack::{Decoder, Field};

/// An error code (RFC 9113, section 7).
const STREAM_CLOSED: u32 = 5;

/// What was answered on a stream.
#[derive(Debug, Default)]
pub struct Stream {
    /// `whole` when the answer's end was said.
    pub answer: Option<Answer>,
    /// The error code of a reset.
    pub reset: Option<u32>,
}

impl Stream {
    /// Nothing more comes.
    pub fn is_over(&self) -> bool {
        self.reset.is_some() || self.answer.as_ref().is_some_and(|answer| answer.whole)
    }
}

/// What a caller received.
#[derive(Debug, Default)]
pub struct Received {
    pub streams: BTreeMap<u32, Stream>,
    /// The last GOAWAY: its last stream and its code.
    pub farewell: Option<(u32, u32)>,
    pub settings_taken: usize,
    pub pings: Vec<Vec<u8>>,
    /// All fields, trailers too.
    pub said: Vec<u8>,
    unread: Vec<u8>,
    block: Option<(u32, u8, Vec<u8>)>,
    decoder: Decoder,
    frames: usize,
}

impl Received {
    /// Reads on.
    ///
    /// # Panics
    /// When it is not what a server may send to one who sent `sent`.
    pub fn feed(&mut self, bytes: &[u8], sent: &Sent) {
        self.decoder.allow(sent.most.0);
        self.unread.extend_from_slice(bytes);
        let unread = std::mem::take(&mut self.unread);
        let mut rest = &unread[..];
        while let Ok((frame, behind)) = Frame::read(rest) {
            self.take(&frame, sent);
            rest = behind;
        }
        self.unread = rest.to_vec();
    }

    fn take(&mut self, frame: &Frame<'_>, sent: &Sent) {
        let Frame { kind, flags, stream, payload } = *frame;
        let is_first = self.frames == 0;
        self.frames += 1;
        assert!(payload.len() <= sent.most.1, "a frame larger than the caller allows: {frame:?}");
        assert!(!is_first || (kind == frames::SETTINGS && flags == 0) || kind == frames::GOAWAY, "first: {frame:?}");
        assert!(self.block.is_none() || kind == frames::CONTINUATION, "in a header block: {frame:?}");
        let word = |at: usize| u32::from_be_bytes(*payload[at..].first_chunk().expect("four bytes"));
        match kind {
            frames::HEADERS => self.block = Some((stream, flags, frame.content().expect("a content").to_vec())),
            frames::CONTINUATION => {
                let (first, _, block) = self.block.as_mut().expect("a header block");
                assert_eq!(*first, stream);
                block.extend_from_slice(payload);
            }
            frames::DATA => {
                let answer = self.open_answer(stream, sent);
                answer.body.extend_from_slice(frame.content().expect("a content"));
                answer.whole = frame.has(frames::END_STREAM);
            }
            frames::RST_STREAM => {
                assert!(sent.named.contains(&stream), "a reset of a stream that nobody named: {frame:?}");
                // One on what is closed already is for what the caller sent since.
                let known = self.streams.entry(stream).or_default().reset.replace(word(0));
                assert!(known.is_none() || word(0) == STREAM_CLOSED, "{frame:?} after {known:?}");
            }
            frames::SETTINGS if frame.has(frames::ACK) => {
                self.settings_taken += 1;
                assert!(payload.is_empty() && self.settings_taken <= sent.settings, "{frame:?}");
            }
            frames::SETTINGS => assert!(stream == 0 && payload.len() % 6 == 0, "{frame:?}"),
            frames::PING if frame.has(frames::ACK) => self.pings.push(payload.to_vec()),
            frames::PING => assert!(stream == 0 && payload.len() == 8, "{frame:?}"),
            frames::GOAWAY => {
                let (last, code) = (word(0), word(4));
                assert!(self.farewell.is_none_or(|(before, _)| before >= last), "{frame:?} after {:?}", self.farewell);
                self.farewell = Some((last, code));
            }
            frames::WINDOW_UPDATE => assert!(word(0) > 0 && payload.len() == 4, "{frame:?}"),
            _ => panic!("what no server sends: {frame:?}"),
        }
        if matches!(kind, frames::HEADERS | frames::CONTINUATION)
            && frame.has(frames::END_HEADERS)
            && let Some((stream, flags, block)) = self.block.take()
        {
            self.take_block(stream, flags & frames::END_STREAM != 0, &block, sent);
        }
    }

    /// The answer on a stream, which has begun and not ended.
    fn open_answer(&mut self, stream: u32, sent: &Sent) -> &mut Answer {
        assert!(sent.streams.contains_key(&stream), "an answer on the stream {stream}, which nobody opened");
        let known = self.streams.entry(stream).or_default();
        assert!(!known.is_over(), "more on the stream {stream}, which is over: {known:?}");
        known.answer.as_mut().expect("a header before a body")
    }

    fn take_block(&mut self, stream: u32, ends: bool, block: &[u8], sent: &Sent) {
        let block = self.decoder.decode(block).expect("a header block");
        assert!(block.sound, "it is not right to the letter: {block:?}");
        let fields = block.fields;
        assert!(fields.iter().all(is_fine), "{fields:?}");
        fields.iter().for_each(|(name, value)| self.said.extend([name, &b": "[..], value, b"\n"].concat()));
        if self.streams.get(&stream).is_some_and(|known| known.answer.is_some()) {
            let answer = self.open_answer(stream, sent);
            assert!(ends && !fields.iter().any(|(name, _)| name.starts_with(b":")), "trailers: {fields:?}");
            answer.whole = true;
            return;
        }
        assert!(sent.streams.contains_key(&stream), "an answer on the stream {stream}, which nobody opened");
        let (status, fields) = fields.split_first().expect("fields");
        assert!(
            status.0 == b":status" && !fields.iter().any(|(name, _)| name.starts_with(b":")),
            "{status:?} {fields:?}"
        );
        let status = String::from_utf8_lossy(&status.1).parse().expect("a status");
        assert!((200..600).contains(&status), "{status}");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let fields = fields.iter().map(|(name, value)| (text(name), text(value))).collect();
        let known = self.streams.entry(stream).or_default();
        assert!(!known.is_over(), "an answer on the stream {stream}, which is over: {known:?}");
        known.answer = Some(Answer { status, fields, body: Vec::new(), whole: ends });
    }

    /// Holds each answer to its own length.
    ///
    /// # Panics
    /// When one is not so long as it says.
    pub fn check_lengths(&self, sent: &Sent) {
        let answers = self.streams.iter().filter_map(|(stream, known)| Some((stream, known.answer.as_ref()?)));
        for (stream, answer) in answers.filter(|(_, answer)| answer.whole) {
            let length = answer.field("content-length").map(|length| length.parse::<usize>().expect("a length"));
            let bare = sent.streams[stream].is_head() || matches!(answer.status, 204 | 304);
            let length = if bare { Some(0) } else { length };
            assert!(length.is_none_or(|length| length == answer.body.len()), "on the stream {stream}: {answer:?}");
        }
        assert!(self.pings.iter().all(|ping| sent.pings.contains(ping)), "answers to pings that nobody sent");
    }
}

/// RFC 9113, sections 8.2.1 and 8.2.2.
fn is_fine((name, value): &Field) -> bool {
    !name.is_empty()
        && name.iter().all(|byte| byte.is_ascii_graphic() && !byte.is_ascii_uppercase())
        && !value.iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0))
        && !matches!(
            &name[..],
            b"connection" | b"keep-alive" | b"proxy-connection" | b"transfer-encoding" | b"upgrade" | b"te"
        )
}

//! Frames of HTTP/2 (RFC 9113, sections 4.1 and 6), written and found.

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PUSH_PROMISE: u8 = 5;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

pub const ACK: u8 = 1;
pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;
pub const PADDED: u8 = 8;
pub const PRIORITIZED: u8 = 0x20;

/// What a caller sends first.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The size of a frame's header.
pub const HEADER: usize = 9;

/// The largest payload that the gate allows: twice its `limits.header_bytes`.
pub const MOST: usize = 32 * 1024;

/// The last identifier of a stream.
pub const LAST_STREAM: u32 = 0x7fff_ffff;

/// A frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: &'a [u8],
}

impl<'a> Frame<'a> {
    /// The first of `bytes`, and what is behind it; `Err` says how many bytes it lacks as far as is known.
    pub fn read(bytes: &'a [u8]) -> Result<(Self, &'a [u8]), usize> {
        let [a, b, c, kind, flags, stream @ ..] =
            *bytes.first_chunk::<HEADER>().ok_or(HEADER - bytes.len().min(HEADER))?;
        let length = u32::from_be_bytes([0, a, b, c]) as usize;
        let rest = &bytes[HEADER..];
        let payload = rest.get(..length).ok_or(length - rest.len().min(length))?;
        let stream = u32::from_be_bytes(stream) & LAST_STREAM;
        Ok((Self { kind, flags, stream, payload }, &rest[length..]))
    }

    pub fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// The content of DATA or HEADERS, without padding and priority; `None` when it is too short for them.
    pub fn content(&self) -> Option<&'a [u8]> {
        let mut content = self.payload;
        let mut padding = 0;
        if self.has(PADDED) {
            let (length, rest) = content.split_first()?;
            (padding, content) = (usize::from(*length), rest);
        }
        if self.kind == HEADERS && self.has(PRIORITIZED) {
            content = content.get(5..)?;
        }
        content.get(..content.len().checked_sub(padding)?)
    }
}

/// The bytes of a frame.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a payload that fits").to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

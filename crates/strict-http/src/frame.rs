//! The frames of HTTP/2 (RFC 9113, sections 4 and 6), as far as their headers tell.

/// What a frame is (RFC 9113, section 6), as far as it matters here.
pub mod kind {
    /// A piece of a body.
    pub const DATA: u8 = 0;
    /// The beginning of a header block.
    pub const HEADERS: u8 = 1;
    /// The end of a stream before its end.
    pub const RST_STREAM: u8 = 3;
    /// Settings of the connection.
    pub const SETTINGS: u8 = 4;
    /// The end of the connection.
    pub const GOAWAY: u8 = 7;
    /// More of a header block.
    pub const CONTINUATION: u8 = 9;
}

/// The flag of a frame that ends its stream.
pub const END_STREAM: u8 = 1;
/// The flag of SETTINGS that acknowledges those of the other side.
pub const ACK: u8 = 1;
/// The flag of a frame that ends its header block.
pub const END_HEADERS: u8 = 4;
/// The flag of a frame that has padding.
pub const PADDED: u8 = 8;

/// The size of a frame's header.
pub const HEADER: usize = 9;

/// What a caller sends first (RFC 9113, section 3.4).
pub const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A GOAWAY frame: no stream above `last_stream` was looked at.
#[must_use]
pub fn go_away(last_stream: u32, code: u32) -> [u8; 17] {
    let mut frame = [0, 0, 8, kind::GOAWAY, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let fields = last_stream.to_be_bytes().into_iter().chain(code.to_be_bytes());
    frame.iter_mut().skip(HEADER).zip(fields).for_each(|(at, byte)| *at = byte);
    frame
}

/// The header of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame {
    /// The length of what follows it, in bytes.
    pub length: usize,
    /// Its type ([`kind`]).
    pub kind: u8,
    /// Its flags, whose meaning depends on the type.
    pub flags: u8,
    /// Its stream; 0 is the connection.
    pub stream: u32,
}

impl Frame {
    /// The header of a frame (RFC 9113, section 4.1).
    #[must_use]
    pub fn read(header: [u8; HEADER]) -> Self {
        let [a, b, c, kind, flags, stream @ ..] = header;
        let length = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
        Self { length, kind, flags, stream: u32::from_be_bytes(stream) & 0x7fff_ffff }
    }

    /// Whether `flag` is set.
    #[must_use]
    pub const fn has(self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    pub(crate) const fn is_of_a_block(self) -> bool {
        matches!(self.kind, kind::HEADERS | kind::CONTINUATION)
    }
}

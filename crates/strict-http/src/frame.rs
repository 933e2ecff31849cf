//! HTTP/2 frame headers (RFC 9113, sections 4 and 6).

/// The frame types that the crate uses (RFC 9113, section 6).
pub mod kind {
    /// A piece of a body.
    pub const DATA: u8 = 0;
    /// The first frame of a header block.
    pub const HEADERS: u8 = 1;
    /// The abnormal end of a stream.
    pub const RST_STREAM: u8 = 3;
    /// Settings of the connection.
    pub const SETTINGS: u8 = 4;
    /// The end of the connection.
    pub const GOAWAY: u8 = 7;
    /// A continuation of a header block.
    pub const CONTINUATION: u8 = 9;
}

/// The flag that ends a stream.
pub const END_STREAM: u8 = 1;
/// The flag of SETTINGS that acknowledges the peer's settings.
pub const ACK: u8 = 1;
/// The flag that ends a header block.
pub const END_HEADERS: u8 = 4;
/// The flag of a padded frame.
pub const PADDED: u8 = 8;

/// The size of a frame header, in bytes.
pub const HEADER: usize = 9;

/// The connection preface, the first bytes from a client (RFC 9113, section 3.4).
pub const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Builds a GOAWAY frame; no stream above `last_stream` was processed.
#[must_use]
pub fn go_away(last_stream: u32, code: u32) -> [u8; 17] {
    let mut frame = [0, 0, 8, kind::GOAWAY, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let fields = last_stream.to_be_bytes().into_iter().chain(code.to_be_bytes());
    frame.iter_mut().skip(HEADER).zip(fields).for_each(|(at, byte)| *at = byte);
    frame
}

/// A frame header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame {
    /// The length of the payload, in bytes.
    pub length: usize,
    /// The frame type ([`kind`]).
    pub kind: u8,
    /// The flags, whose meaning depends on the type.
    pub flags: u8,
    /// The stream identifier; 0 is the connection.
    pub stream: u32,
}

impl Frame {
    /// Parses a frame header (RFC 9113, section 4.1).
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

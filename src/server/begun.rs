//! The first bytes of a connection.

use strict_http::cut;
use strict_http::frame::PREFACE;
use tokio::io::ReadBuf;

/// The first bytes of a connection, read to detect the HTTP version. The protocol that serves it reads them first.
#[derive(Debug, Default)]
pub struct Begun {
    bytes: [u8; PREFACE.len()],
    read: usize,
    given: usize,
}

impl Begun {
    /// Whether the bytes are the preface of HTTP/2.
    #[must_use]
    pub fn is_preface(&self) -> bool {
        self.bytes == *PREFACE
    }

    /// Returns the buffer for the next bytes; `None` once the version is known.
    pub fn room(&mut self) -> Option<&mut [u8]> {
        let (read, rest) = self.bytes.split_at_mut_checked(self.read)?;
        (!rest.is_empty() && PREFACE.starts_with(read)).then_some(rest)
    }

    /// Records that so many bytes were read into the buffer.
    pub const fn was_read(&mut self, bytes: usize) {
        self.read += bytes;
    }

    /// Moves bytes that were not given yet into `buffer`. Returns whether there were any.
    pub fn give(&mut self, buffer: &mut ReadBuf<'_>) -> bool {
        let (read, _) = cut::at_most(&self.bytes, self.read);
        let (_, rest) = cut::at_most(read, self.given);
        if rest.is_empty() {
            return false;
        }
        let (now, _) = cut::at_most(rest, buffer.remaining());
        buffer.put_slice(now);
        self.given += now.len();
        true
    }
}

//! The reasons to stop reading a connection.

use super::{Framing, State};
use crate::{Malformed, cut};

/// A broken rule, and its position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    /// The number of bytes in this call that are valid and not part of the element that breaks a rule.
    pub sound: usize,
    /// The broken rule.
    pub kind: Malformed,
    /// Whether the fault is in the body of a request whose header was valid.
    pub in_body: bool,
}

/// The reason to stop reading.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stop {
    /// A rule is broken.
    Fault(Fault),
    /// The next bytes are a request line, or the rest of one, whose query has raw characters to encode.
    Raw {
        /// The number of bytes in this call that come before the request line.
        sound: usize,
    },
}

/// The line after two empty lines in a PROXY protocol version 2 header.
const PROXY_PROTOCOL_V2: &[u8] = b"\0\r\nQUIT\n";

impl Framing {
    /// Whether `rest`, whose first line was rejected, begins with the third line of a PROXY protocol version 2 header.
    #[cold]
    pub(super) fn is_proxy_protocol(&self, rest: &[u8]) -> bool {
        let line = memchr::memchr(b'\n', rest).map_or(rest.len(), |at| at + 1);
        let (begun, _) = cut::at_most(rest, PROXY_PROTOCOL_V2.len());
        self.state == State::RequestLine
            && self.begun.is_empty()
            && self.bytes == b"\r\n\r\n".len() + line
            && PROXY_PROTOCOL_V2.starts_with(begun)
    }
}

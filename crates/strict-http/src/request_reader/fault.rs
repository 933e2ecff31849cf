//! The reasons to stop reading a connection.

use crate::Malformed;

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

//! Why no more bytes of a connection are looked at.

use crate::Malformed;

/// What breaks a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    /// How many of the bytes that were looked at are sound, and part of nothing that breaks a rule.
    pub sound: usize,
    /// Which rule, and how.
    pub kind: Malformed,
    /// It is in the body of a request whose header was sound.
    pub in_body: bool,
}

/// Why no more bytes are looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stop {
    /// A rule is broken.
    Fault(Fault),
    /// What comes next is a request line, or the rest of one, with something raw in its query.
    Raw {
        /// How many of the bytes that were looked at come before it.
        sound: usize,
    },
}

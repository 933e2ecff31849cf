//! The phases of a connection, and the data that is known in each.

use strict_http::Malformed;
use tokio::time::Instant;

use super::stalled::Stalled;
use crate::policy::rejection::Reason;

/// The phase of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Accepted; no byte has arrived.
    New,
    /// Idle after a request; no byte of another one has arrived.
    Idle,
    /// The header of a request has begun.
    Header,
    /// A request is in progress.
    Exchange,
}

/// A [`Phase`] with the data that is known in it.
#[derive(Debug, Clone, Copy)]
pub enum State {
    /// Accepted at this time.
    New(Instant),
    /// Without a request since this time.
    Idle(Instant),
    /// The start of the header. The time of the first header counts from the accept.
    Header(Instant),
    /// A request is in progress.
    Exchange {
        /// The arrival of its first byte.
        since: Instant,
        /// The start of the current wait for a piece of its body, if there is one.
        body_awaited_since: Option<Instant>,
    },
}

/// The request in progress, or the latest one.
#[derive(Debug, Clone, Copy)]
pub struct Request {
    /// The state of the response to the caller.
    pub reply: Reply,
    /// The end of the request body has not arrived.
    pub is_open: bool,
    /// The response may not be completely written to the socket.
    pub flush_owed: bool,
    /// Set if the caller kept the gate waiting for too long.
    pub stalled: Option<Stalled>,
}

/// The state of the response to the caller.
#[derive(Debug, Clone, Copy)]
pub enum Reply {
    /// No response has begun.
    Awaited,
    /// No response has begun; the request exceeded its deadline and is refused for this reason.
    Expired(Reason),
    /// The head of a response was sent.
    Begun {
        /// The end of the connection marks the end of the response: it has neither a length nor chunks.
        ends_with_connection: bool,
        /// The response reports that the request exceeded its deadline.
        is_expired: bool,
    },
}

/// Malformed input from a caller; hyper sees the end of the stream in its place.
#[derive(Debug, Clone, Copy)]
pub enum Fault {
    /// A malformed request head.
    Head(Malformed),
    /// A malformed body of the request in progress.
    Body(Malformed),
}

impl State {
    /// Returns the phase without its data.
    pub const fn phase(self) -> Phase {
        match self {
            Self::New(_) => Phase::New,
            Self::Idle(_) => Phase::Idle,
            Self::Header(_) => Phase::Header,
            Self::Exchange { .. } => Phase::Exchange,
        }
    }

    /// Returns the start of the current wait for a piece of the body, if there is one.
    pub const fn body_awaited_since(self) -> Option<Instant> {
        match self {
            Self::Exchange { body_awaited_since, .. } => body_awaited_since,
            Self::New(_) | Self::Idle(_) | Self::Header(_) => None,
        }
    }
}

impl Request {
    /// The state before the first request.
    pub const NONE: Self = Self { reply: Reply::Awaited, is_open: false, flush_owed: false, stalled: None };
}

impl Reply {
    /// Whether the request exceeded its deadline.
    pub const fn is_expired(self) -> bool {
        matches!(self, Self::Expired(_) | Self::Begun { is_expired: true, .. })
    }
}

//! What a connection is doing, and what is known of it meanwhile.

use strict_http::Malformed;
use tokio::time::Instant;

use super::stalled::Stalled;
use crate::policy::rejection::Reason;

/// What a connection is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// It was accepted, and no byte has come.
    New,
    /// Nothing, behind a request: no byte of another one yet.
    Idle,
    /// The header of a request has begun.
    Header,
    /// A request is under way.
    Exchange,
}

/// The same, with what is known in each.
#[derive(Debug, Clone, Copy)]
pub enum State {
    /// Accepted then.
    New(Instant),
    /// Without a request since then.
    Idle(Instant),
    /// The header began then; the first one has its time from the accept on.
    Header(Instant),
    /// A request is under way.
    Exchange {
        /// When its first byte came.
        since: Instant,
        /// Since when a piece of its body is awaited, where one is.
        body_awaited_since: Option<Instant>,
    },
}

/// The request under way, or else the last one.
#[derive(Debug, Clone, Copy)]
pub struct Request {
    /// What its caller has been told.
    pub reply: Reply,
    /// Its body has not come to its end.
    pub is_open: bool,
    /// Not all was written for it, as far as is known.
    pub flush_owed: bool,
    /// Its caller let the gate wait for too long.
    pub stalled: Option<Stalled>,
}

/// What its caller has been told.
#[derive(Debug, Clone, Copy)]
pub enum Reply {
    /// Nothing yet.
    Awaited,
    /// Nothing yet, but the request has had its time, and is refused for this.
    Expired(Reason),
    /// The head of a response.
    Begun {
        /// The end of the connection would look like the end of the response.
        ends_with_connection: bool,
        /// It says that the request has had its time.
        is_expired: bool,
    },
}

/// What a caller sent that is no HTTP, behind which hyper was told that nothing comes.
#[derive(Debug, Clone, Copy)]
pub enum Fault {
    /// In the place of a request.
    Head(Malformed),
    /// In the body of the request under way.
    Body(Malformed),
}

impl State {
    /// Without what is known in it.
    pub const fn phase(self) -> Phase {
        match self {
            Self::New(_) => Phase::New,
            Self::Idle(_) => Phase::Idle,
            Self::Header(_) => Phase::Header,
            Self::Exchange { .. } => Phase::Exchange,
        }
    }

    /// Since when a piece of a body is awaited, where one is.
    pub const fn body_awaited_since(self) -> Option<Instant> {
        match self {
            Self::Exchange { body_awaited_since, .. } => body_awaited_since,
            Self::New(_) | Self::Idle(_) | Self::Header(_) => None,
        }
    }
}

impl Request {
    /// None has come yet.
    pub const NONE: Self = Self { reply: Reply::Awaited, is_open: false, flush_owed: false, stalled: None };
}

impl Reply {
    /// Whether the request has had its time.
    pub const fn is_expired(self) -> bool {
        matches!(self, Self::Expired(_) | Self::Begun { is_expired: true, .. })
    }
}

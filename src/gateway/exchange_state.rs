//! The state of a request: each enum variant holds exactly the data that is known at that stage.

use std::time::Duration;

use metrica::operation::{Operation, OperationId, Reach};
use metrica::scope::{Scope, ScopeSet};
use metrica::subject::Subject;
use tokio::time::Instant;

use crate::metrics::Mark;
use crate::policy::names::{CallerId, TokenAlias};
use crate::quota::Groups;
use crate::worker::TokenUse;

/// The caller of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallerState {
    /// Identification has not run yet.
    Undecided,
    /// The connection's evidence matches no configured caller.
    Unknown,
    /// A configured caller.
    Known(CallerId),
}

impl CallerState {
    /// Returns the state after identification; `None` is an unknown caller.
    pub const fn identified(caller: Option<CallerId>) -> Self {
        match caller {
            Some(caller) => Self::Known(caller),
            None => Self::Unknown,
        }
    }

    /// Returns the configured caller, if there is one.
    pub const fn caller(self) -> Option<CallerId> {
        match self {
            Self::Known(caller) => Some(caller),
            Self::Undecided | Self::Unknown => None,
        }
    }
}

/// The operation of a request.
pub enum Request {
    /// The request was not parsed, or was refused before parsing.
    Unread,
    /// The path matches no operation.
    UnknownPath(Box<str>),
    /// The request matches an operation.
    Read(Read),
}

/// A request whose operation is known.
pub struct Read {
    /// The operation.
    pub operation: OperationId,
    /// The scopes that permit the operation; any one of them suffices.
    pub needs: ScopeSet,
    /// The counters and accounts that the operation can reach.
    pub reach: Reach,
    /// Whether the operation changes something.
    pub acts: bool,
    /// Whether the response can take minutes, or the body can be large.
    pub is_lengthy: bool,
    /// The kinds of the operation that quotas count.
    pub groups: Groups,
    /// Whether the operation transfers much data.
    pub is_bulk: bool,
    /// The marks of the operation.
    pub marks: [Option<Mark>; 2],
    /// The counter, account or other object that the operation works on.
    pub subject: Subject,
    /// The state of the token.
    pub token: Token,
}

/// The token of a request.
#[derive(Debug, Clone, Copy)]
pub enum Token {
    /// The decision allows no token.
    None,
    /// The decision chose this token; it may be unavailable.
    Chosen(TokenAlias),
    /// This token is sent: the chosen one, or its standby.
    Sent(TokenUse),
}

impl Request {
    /// Records that the request calls `operation` on `subject`, and that `token` was chosen. A repeated decision keeps
    /// the first subject.
    pub fn read(&mut self, operation: &Operation, subject: Subject, token: Option<TokenAlias>) {
        let (subject, before) = match std::mem::replace(self, Self::Unread) {
            Self::Read(read) => (read.subject, read.token),
            Self::Unread | Self::UnknownPath(_) => (subject, Token::None),
        };
        *self = Self::Read(Read {
            operation: operation.id,
            needs: operation.scopes,
            reach: operation.reach,
            acts: operation.acts,
            is_lengthy: operation.long || operation.upload,
            groups: Groups::of(operation),
            is_bulk: operation.bulk,
            marks: Mark::of(operation),
            subject,
            token: token.map_or(before, Token::Chosen),
        });
    }

    /// Returns the parsed request, if there is one.
    pub const fn as_read(&self) -> Option<&Read> {
        match self {
            Self::Read(read) => Some(read),
            Self::Unread | Self::UnknownPath(_) => None,
        }
    }

    /// Returns the path if it matches no operation.
    pub const fn unknown_path(&self) -> Option<&str> {
        match self {
            Self::UnknownPath(path) => Some(path),
            Self::Unread | Self::Read(_) => None,
        }
    }
}

impl Read {
    /// Returns the alias of the token, if one was chosen.
    pub const fn token(&self) -> Option<TokenAlias> {
        match self.token {
            Token::None => None,
            Token::Chosen(alias) => Some(alias),
            Token::Sent(token_use) => Some(token_use.alias),
        }
    }

    /// Returns the token that is sent, if there is one.
    pub const fn token_use(&self) -> Option<TokenUse> {
        match self.token {
            Token::Sent(token_use) => Some(token_use),
            Token::None | Token::Chosen(_) => None,
        }
    }

    /// Whether the operation creates or updates a counter; Metrica's response then contains that counter.
    pub fn changes_a_counter(&self) -> bool {
        !self.needs.contains(Scope::Read) && matches!(self.operation.as_str(), "counter.update" | "counters.create")
    }

    /// Returns the scope that the request uses: the narrowest sufficient scope that the token is declared to have.
    pub fn needed(&self) -> Option<Scope> {
        let declared = self.token_use()?.scopes;
        // The narrow scopes come last.
        self.needs.iter().filter(|scope| declared.contains(*scope)).last()
    }
}

/// The progress of a request towards the upstream.
#[derive(Debug, Clone, Copy)]
pub enum UpstreamProgress {
    /// The request was not sent.
    Unsent,
    /// The request was sent.
    Sent(Sending),
    /// The response head has arrived.
    Answered {
        /// The request that this responds to.
        sending: Sending,
        /// The time of arrival.
        at: Instant,
        /// The status code.
        status: u16,
    },
}

/// A request that was sent.
#[derive(Debug, Clone, Copy)]
pub struct Sending {
    /// The time of the latest attempt.
    pub at: Instant,
    /// The number of repeats.
    pub again: u32,
}

impl UpstreamProgress {
    /// Records an attempt at `now`, the first or a repeat.
    pub const fn send(self, now: Instant) -> Self {
        let again = match self.sending() {
            Some(before) => before.again + 1,
            None => 0,
        };
        Self::Sent(Sending { at: now, again })
    }

    /// Records a response head that arrived at `now`.
    pub fn answer(self, now: Instant, status: u16) -> Self {
        debug_assert!(matches!(self, Self::Sent(_)), "a response belongs to a sent request");
        let sending = self.sending().unwrap_or(Sending { at: now, again: 0 });
        Self::Answered { sending, at: now, status }
    }

    /// Returns the progress without a response that is not passed on.
    pub const fn without_answer(self) -> Self {
        match self {
            Self::Answered { sending, .. } => Self::Sent(sending),
            Self::Unsent | Self::Sent(_) => self,
        }
    }

    /// Returns the latest attempt, if the request was sent.
    pub const fn sending(self) -> Option<Sending> {
        match self {
            Self::Unsent => None,
            Self::Sent(sending) | Self::Answered { sending, .. } => Some(sending),
        }
    }

    /// Returns the time from the latest attempt to the response head, if that has arrived.
    pub fn duration(self) -> Option<Duration> {
        match self {
            Self::Answered { sending, at, .. } => Some(at - sending.at),
            Self::Unsent | Self::Sent(_) => None,
        }
    }

    /// Returns the status of the response, if its head has arrived.
    pub const fn status(self) -> Option<u16> {
        match self {
            Self::Answered { status, .. } => Some(status),
            Self::Unsent | Self::Sent(_) => None,
        }
    }
}

/// The progress of an exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExchangeProgress {
    /// The exchange is in progress.
    UnderWay,
    /// The exchange is in progress, and the upstream's response broke off.
    Cut,
    /// The exchange has ended and was counted.
    Over,
}

/// The received part of a request's body.
#[derive(Debug, Clone, Copy)]
pub struct Pieces {
    /// The total number of bytes.
    pub bytes: u64,
    /// The time at which the latest piece, or the end of the body, arrived.
    pub last: Instant,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repeated_request_is_counted_and_has_one_response() {
        let now = Instant::now();
        let sent = UpstreamProgress::Unsent.send(now).send(now);
        assert_eq!((sent.sending().map(|sending| sending.again), sent.status()), (Some(1), None));
        let answered = sent.answer(now, 200);
        assert_eq!((answered.sending().map(|sending| sending.again), answered.status()), (Some(1), Some(200)));
    }

    #[test]
    fn a_response_that_is_not_passed_on_leaves_no_status() {
        let now = Instant::now();
        let answered = UpstreamProgress::Unsent.send(now).answer(now, 403);
        assert_eq!((answered.status(), answered.without_answer().status()), (Some(403), None));
        let again = answered.without_answer().send(now).sending();
        assert_eq!(again.map(|sending| sending.again), Some(1), "the first attempt still counts");
    }
}

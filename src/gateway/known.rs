//! What is known of a request, and how far it is: each state holds what is known in it, and nothing else.

use std::time::Duration;

use metrica::operation::{Operation, OperationId, Reach};
use metrica::scope::{Scope, ScopeSet};
use metrica::subject::Subject;
use tokio::time::Instant;

use crate::names::{CallerId, TokenAlias};
use crate::worker::Sender;

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asker {
    /// Not decided yet.
    Undecided,
    /// No caller of the configuration.
    Unknown,
    /// This one.
    Known(CallerId),
}

impl Asker {
    /// The caller that was identified, if one was.
    pub const fn identified(caller: Option<CallerId>) -> Self {
        match caller {
            Some(caller) => Self::Known(caller),
            None => Self::Unknown,
        }
    }

    /// The caller, if it is one.
    pub const fn caller(self) -> Option<CallerId> {
        match self {
            Self::Known(caller) => Some(caller),
            Self::Undecided | Self::Unknown => None,
        }
    }
}

/// What is asked.
pub enum Request {
    /// Not read, or not to be read.
    Unread,
    /// Something at this path, which is no operation's.
    UnknownPath(Box<str>),
    /// An operation.
    Read(Read),
}

/// A request whose operation is known.
pub struct Read {
    /// What is asked.
    pub operation: OperationId,
    /// Any one of these is needed.
    pub needs: ScopeSet,
    /// Whose data the operation can reach.
    pub reach: Reach,
    /// It changes something.
    pub acts: bool,
    /// Its response can take minutes, or its body can be large.
    pub is_lengthy: bool,
    /// On whose data it works.
    pub subject: Subject,
    /// With which token.
    pub token: Token,
}

/// The token of a request.
#[derive(Debug, Clone, Copy)]
pub enum Token {
    /// None may be used.
    None,
    /// This one was chosen, whether it can be sent or not.
    Chosen(TokenAlias),
    /// This one goes out: the one that was chosen, or its standby.
    Sent(Sender),
}

impl Request {
    /// It asks for `operation` on `subject`, and `token` was chosen for it. A request that is read again works on the same data.
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
            subject,
            token: token.map_or(before, Token::Chosen),
        });
    }

    /// What was read, if anything was.
    pub const fn as_read(&self) -> Option<&Read> {
        match self {
            Self::Read(read) => Some(read),
            Self::Unread | Self::UnknownPath(_) => None,
        }
    }

    /// The path, where it is no operation's.
    pub const fn unknown_path(&self) -> Option<&str> {
        match self {
            Self::UnknownPath(path) => Some(path),
            Self::Unread | Self::Read(_) => None,
        }
    }
}

impl Read {
    /// Which token it is, if one was chosen.
    pub const fn token(&self) -> Option<TokenAlias> {
        match self.token {
            Token::None => None,
            Token::Chosen(alias) => Some(alias),
            Token::Sent(sender) => Some(sender.alias),
        }
    }

    /// Which token goes out, if one does.
    pub const fn sender(&self) -> Option<Sender> {
        match self.token {
            Token::Sent(sender) => Some(sender),
            Token::None | Token::Chosen(_) => None,
        }
    }

    /// Whether it changes a counter and is answered with that.
    pub fn changes_a_counter(&self) -> bool {
        !self.needs.contains(Scope::Read) && matches!(self.operation.as_str(), "counter.update" | "counters.create")
    }

    /// The scope of the token that is needed: of several, the narrowest that it is declared to have.
    pub fn needed(&self) -> Option<Scope> {
        let declared = self.sender()?.scopes;
        // The narrow ones come last.
        self.needs.iter().filter(|scope| declared.contains(*scope)).last()
    }
}

/// How far a request is on its way to the upstream.
#[derive(Debug, Clone, Copy)]
pub enum Upward {
    /// It was not sent.
    Unsent,
    /// It was sent.
    Sent(Sending),
    /// The head of its response came.
    Answered {
        /// What it came for.
        sending: Sending,
        /// When.
        at: Instant,
        /// The status.
        status: u16,
    },
}

/// A request that was sent.
#[derive(Debug, Clone, Copy)]
pub struct Sending {
    /// When, the last time.
    pub at: Instant,
    /// How often again.
    pub again: u32,
}

impl Upward {
    /// It is sent now, for the first time or again.
    pub const fn send(self, now: Instant) -> Self {
        let again = match self.sending() {
            Some(before) => before.again + 1,
            None => 0,
        };
        Self::Sent(Sending { at: now, again })
    }

    /// The head of its response comes now.
    pub fn answer(self, now: Instant, status: u16) -> Self {
        debug_assert!(matches!(self, Self::Sent(_)), "what is answered was sent");
        let sending = self.sending().unwrap_or(Sending { at: now, again: 0 });
        Self::Answered { sending, at: now, status }
    }

    /// How it was sent, if it was.
    pub const fn sending(self) -> Option<Sending> {
        match self {
            Self::Unsent => None,
            Self::Sent(sending) | Self::Answered { sending, .. } => Some(sending),
        }
    }

    /// From the start of sending to the head of its response, if that came.
    pub fn duration(self) -> Option<Duration> {
        match self {
            Self::Answered { sending, at, .. } => Some(at - sending.at),
            Self::Unsent | Self::Sent(_) => None,
        }
    }

    /// The status of its response, if that came.
    pub const fn status(self) -> Option<u16> {
        match self {
            Self::Answered { status, .. } => Some(status),
            Self::Unsent | Self::Sent(_) => None,
        }
    }
}

/// How far an exchange is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Course {
    /// It is under way.
    UnderWay,
    /// So it is, and the upstream's response broke off.
    Cut,
    /// It is over, and was counted.
    Over,
}

/// The pieces of a request's body that have come.
#[derive(Debug, Clone, Copy)]
pub struct Pieces {
    /// Their bytes.
    pub bytes: u64,
    /// When the last one came, or the end behind it.
    pub last: Instant,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sent_again_counts_and_is_answered_once() {
        let now = Instant::now();
        let sent = Upward::Unsent.send(now).send(now);
        assert_eq!((sent.sending().map(|sending| sending.again), sent.status()), (Some(1), None));
        let answered = sent.answer(now, 200);
        assert_eq!((answered.sending().map(|sending| sending.again), answered.status()), (Some(1), Some(200)));
    }
}

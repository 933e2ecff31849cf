//! What the broker is asked, and what it answers.

use metrica::error_type::ErrorType;

use super::clock::Micros;
use super::counters::Counters;
use super::entry::{Lease, Ticket};
use super::limit::Groups;
use super::refusal::{After, Refusal};
use super::setup::{Caller, Class, Egress, Owner};

/// A request that asks for its turn.
#[derive(Debug, Clone)]
pub struct Request {
    /// The owner of the token.
    pub owner: Owner,
    /// The caller.
    pub caller: Caller,
    /// The egress through which it is sent.
    pub egress: Egress,
    /// Its kinds.
    pub groups: Groups,
    /// Its class.
    pub class: Class,
    /// The counters that it names.
    pub counters: Counters,
    /// The rest of its own time.
    pub rest: Micros,
}

/// What a request gets.
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub enum Answer {
    /// It may be sent.
    Granted(Lease),
    /// It waits.
    Wait(Ticket),
    /// It is refused.
    Refused(Refusal),
}

/// The state of a request that waited.
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub enum Taken {
    /// It still waits.
    Waiting,
    /// It may be sent; the ticket is over.
    Granted(Lease),
    /// It is refused; the ticket is over.
    Refused(Refusal),
    /// The ticket was over already.
    Over,
}

/// The end of a request that was granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Metrica responded, and not with a quota.
    Done,
    /// It was never sent.
    NotSent,
    /// Metrica refused it because of a quota: 420 or 429.
    Refused {
        /// The type in the body.
        error_type: ErrorType,
        /// Whether the request can be sent once more: GET and HEAD, and others where the operator allows it.
        may_repeat: bool,
    },
}

/// What follows the end of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Next {
    /// Nothing.
    Over,
    /// It is sent once more, when this ticket is granted.
    Again(Ticket),
    /// Metrica's refusal goes to the caller, with this `Retry-After`.
    Pass(After),
}

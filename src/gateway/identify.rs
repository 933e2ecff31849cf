//! Identify: who is calling? From the connection's evidence alone; no field of a request is read.

use std::rc::Rc;

use http::request::Parts;

use super::caller_body::CallerBody;
use super::exchange::Exchange;
use super::stage::Stage;
use crate::rejection::{Reason, Rejection};
use crate::worker::Snapshot;

/// A request as it came.
pub struct Received {
    /// What is said about it.
    pub exchange: Rc<Exchange>,
    /// What it is decided by.
    pub snapshot: Rc<Snapshot>,
    /// Its head.
    pub head: Parts,
    /// Its body.
    pub body: CallerBody,
}

/// A request of a caller.
pub struct Identified {
    /// The request.
    pub received: Received,
    caller: usize,
}

impl Identified {
    /// The caller's position in the policy.
    pub const fn caller(&self) -> usize {
        self.caller
    }
}

/// See the module.
#[derive(Debug, Clone, Copy)]
pub struct Identify;

impl Stage<Received> for Identify {
    type Out = Identified;

    fn run(&self, received: Received) -> Result<Identified, Rejection> {
        let callers = &received.snapshot.generation.policy.callers;
        let position = callers.identify(received.exchange.connection.evidence);
        let caller = position.and_then(|position| callers.get(position));
        received.exchange.begin(caller.map(|caller| caller.id));
        match position {
            Some(caller) => Ok(Identified { received, caller }),
            None => Err(Reason::UnknownCaller.into()),
        }
    }
}

//! Identify: who is calling? See [`crate::policy::decide::identify`].

use std::rc::Rc;

use http::request::Parts;
use strict_http::target::Broken;

use super::caller_body::CallerBody;
use super::exchange::Exchange;
use super::stage::Stage;
use crate::policy::decide::{self, Identified};
use crate::policy::rejection::Rejection;
use crate::worker::Snapshot;

/// A request as it came.
pub struct Received {
    /// What is said about it.
    pub exchange: Rc<Exchange>,
    /// What it is decided by.
    pub snapshot: Rc<Snapshot>,
    /// Its head.
    pub head: Parts,
    /// What its query broke before it was percent-encoded.
    pub encoded: Option<Broken>,
    /// Its body.
    pub body: CallerBody,
}

/// A request of a caller.
pub struct Known {
    /// The request.
    pub received: Received,
    /// Who asks.
    pub caller: Identified,
}

/// See the module.
#[derive(Debug, Clone, Copy)]
pub struct Identify;

impl Stage<Received> for Identify {
    type Out = Known;

    fn run(&self, received: Received) -> Result<Known, Rejection> {
        let Received { exchange, snapshot, .. } = &received;
        let caller = decide::identify(exchange.connection.evidence, &snapshot.known());
        let known = caller.as_ref().ok().and_then(|caller| snapshot.generation.policy.callers.get(caller.position()));
        exchange.begin(known.map(|caller| caller.id));
        Ok(Known { caller: caller?, received })
    }
}

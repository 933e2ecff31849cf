//! Identify: determines the caller. See [`crate::policy::decide::identify`].

use std::rc::Rc;

use http::request::Parts;
use strict_http::target::Broken;

use super::exchange::Exchange;
use super::stage::Stage;
use crate::body::caller_body::CallerBody;
use crate::policy::decide::{self, Identified};
use crate::policy::rejection::Rejection;
use crate::worker::Snapshot;

/// A request as it arrived.
pub struct Received {
    /// The record of the request.
    pub exchange: Rc<Exchange>,
    /// The snapshot that decides the request.
    pub snapshot: Rc<Snapshot>,
    /// The request head.
    pub head: Parts,
    /// The rule that the query broke before it was percent-encoded.
    pub encoded: Option<Broken>,
    /// The request body.
    pub body: CallerBody,
}

/// A request of a configured caller.
pub struct WithCaller {
    /// The request.
    pub received: Received,
    /// The caller.
    pub caller: Identified,
}

/// The stage that identifies the caller.
#[derive(Debug, Clone, Copy)]
pub struct Identify;

impl Stage<Received> for Identify {
    type Out = WithCaller;

    fn run(&self, received: Received) -> Result<WithCaller, Rejection> {
        let Received { exchange, snapshot, .. } = &received;
        let accounts = exchange.worker().accounts(snapshot);
        let caller = decide::identify(exchange.connection.evidence, &snapshot.known(&accounts));
        let known = caller.as_ref().ok().and_then(|caller| snapshot.generation.policy.callers.get(caller.position()));
        exchange.begin(known.map(|caller| caller.id));
        Ok(WithCaller { caller: caller?, received })
    }
}

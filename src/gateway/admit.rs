//! Admit: rejects requests that no caller may send. See [`crate::policy::admission`].

use http_body::Body;

use super::identify::{Received, WithCaller};
use super::stage::Stage;
use crate::policy::decide::{self, AdmittedRequest, Identified, RequestHead};
use crate::policy::rejection::Rejection;

/// A request that passed admission.
pub struct Admitted {
    /// The request.
    pub received: Received,
    /// The caller.
    pub caller: Identified,
    /// The parsed request.
    pub asked: AdmittedRequest,
}

/// The stage that applies admission.
#[derive(Debug, Clone, Copy)]
pub struct Admit;

impl Stage<WithCaller> for Admit {
    type Out = Admitted;

    fn run(&self, WithCaller { received, caller }: WithCaller) -> Result<Admitted, Rejection> {
        let Received { exchange, snapshot, head, encoded, body } = &received;
        let shortest = (!body.is_end_stream()).then(|| body.size_hint().lower());
        let listener = exchange.connection.evidence.listener;
        let opened_for = exchange.connection.transport.opened_for();
        let head = RequestHead { encoded: *encoded, opened_for, ..RequestHead::of(head, shortest) };
        let accounts = exchange.worker().accounts(snapshot);
        let asked = decide::admit(&head, listener, &snapshot.known(&accounts))?;
        Ok(Admitted { received, caller, asked })
    }
}

//! Admit: rejects requests that no caller may send. See [`crate::policy::admission`].

use http_body::Body;

use super::identify::{Known, Received};
use super::stage::Stage;
use crate::policy::decide::{self, Asked, Head, Identified};
use crate::policy::rejection::Rejection;

/// A request that passed admission.
pub struct Admitted {
    /// The request.
    pub received: Received,
    /// The caller.
    pub caller: Identified,
    /// The parsed request.
    pub asked: Asked,
}

/// The stage that applies admission.
#[derive(Debug, Clone, Copy)]
pub struct Admit;

impl Stage<Known> for Admit {
    type Out = Admitted;

    fn run(&self, Known { received, caller }: Known) -> Result<Admitted, Rejection> {
        let Received { exchange, snapshot, head, encoded, body } = &received;
        let shortest = (!body.is_end_stream()).then(|| body.size_hint().lower());
        let listener = exchange.connection.evidence.listener;
        let head = Head { encoded: *encoded, ..Head::of(head, shortest) };
        let asked = decide::admit(&head, listener, &snapshot.known())?;
        Ok(Admitted { received, caller, asked })
    }
}

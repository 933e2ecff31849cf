//! Authorize: checks the caller's rights. See [`crate::policy::decide::permit`].

use super::admit::Admitted;
use super::identify::Received;
use super::stage::Stage;
use crate::policy::decide::{self, AdmittedRequest, Decision};
use crate::policy::rejection::{Reason, Rejection};

/// A request that may be sent.
pub struct Permitted {
    /// The request.
    pub received: Received,
    /// The parsed request.
    pub asked: AdmittedRequest,
    /// The decision, with its terms.
    pub decision: Decision,
}

/// The stage that authorizes the request.
#[derive(Debug, Clone, Copy)]
pub struct Authorize;

impl Stage<Admitted> for Authorize {
    type Out = Permitted;

    fn run(&self, Admitted { received, caller, asked }: Admitted) -> Result<Permitted, Rejection> {
        let Received { exchange, snapshot, .. } = &received;
        exchange.account.set((asked.chooses_account(), None));
        let accounts = exchange.worker().accounts(snapshot);
        match exchange.decided(decide::permit(caller, &asked, &snapshot.known(&accounts))) {
            Ok(decision) => Ok(Permitted { received, asked, decision }),
            Err(rejection) => {
                if matches!(rejection.reason, Reason::UnknownOperation | Reason::MethodDenied) {
                    exchange.set_unknown_path(asked.path());
                }
                Err(rejection)
            }
        }
    }
}

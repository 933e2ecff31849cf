//! Distinguishes a missing scope, a missing grant and a refused request (rule 7): the table of the parent module.

use super::{Case, Cause, Diagnosis, Doubts};
use crate::observed_rights::{Access, Permission};

/// Whether the token has a sufficient scope.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Right {
    Proven,
    Lacking,
    Unknown,
}

const LOGIN_NOT_GRANTED: &str = "The login in ulogin has no access to this counter. Check the counter number, or ask the counter's owner to grant that login access.";

const LOGIN_VIEW_ONLY: &str = "The login in ulogin may view this counter but not edit it. Ask the counter's owner to grant that login edit access.";

const ONLY_PUBLIC: &str =
    "The gate's account has only public access to this counter. Ask the counter's owner to grant the account access.";

const ACCESS_NOT_KNOWN: &str = "The gate's token has the scope, but its account lacks access to the counter, or Metrica denies this particular request; Metrica does not report which. Check the counter number and read the response body, or ask the gate's operator.";

const ONLY_FOR_OWNERS: &str = "Only a counter's owner may do this, and the gate does not know yet whether its account owns this one. Read the response body, or send the request again.";

impl Case<'_> {
    /// The diagnosis for these counters, of which there is at least one.
    pub(super) fn by_grant(&self, counters: &[u64]) -> Diagnosis {
        let login = self.subject.login.as_deref();
        let known: Vec<_> = counters.iter().map(|counter| self.knowledge.permission(login, *counter)).collect();
        let any = |permissions: &[Permission]| known.iter().flatten().any(|known| permissions.contains(known));
        let (access, right) = (self.demands.access(self.needs), self.right());
        let least = match access {
            _ if any(&[Permission::Nothing]) => Some(Permission::Nothing),
            Access::Edit | Access::Own if any(&[Permission::View, Permission::Public]) => Some(Permission::View),
            Access::View | Access::Edit | Access::Own => known.into_iter().min().flatten(),
        };
        let cause = cause(least, access, right);
        let was_done = match least {
            Some(Permission::Seen) => access == Access::View,
            Some(Permission::Changed) => access == Access::View || right == Right::Proven,
            _ => cause == Cause::RequestRefused && !(access == Access::Own && least == Some(Permission::Edit)),
        };
        let doubts = if was_done && right != Right::Lacking { Doubts::Denied } else { Doubts::None };
        let hint = match (cause, login) {
            (Cause::CounterNotGranted, Some(_)) => LOGIN_NOT_GRANTED,
            (Cause::CounterViewOnly, Some(_)) => LOGIN_VIEW_ONLY,
            (Cause::CounterNotGranted, None) if least == Some(Permission::Public) => ONLY_PUBLIC,
            (Cause::Ambiguous, _) if access == Access::Own => ONLY_FOR_OWNERS,
            (Cause::Ambiguous, _) if right == Right::Proven => ACCESS_NOT_KNOWN,
            (cause, _) => cause.hint(),
        };
        let has_scope = right == Right::Proven || hint == ONLY_FOR_OWNERS;
        Diagnosis { hint, doubts, has_scope, ..cause.into() }
    }

    fn right(&self) -> Right {
        if self.knowledge.has_proven(self.needs) {
            Right::Proven
        } else if self.knowledge.lacks(self.needs) {
            Right::Lacking
        } else {
            Right::Unknown
        }
    }
}

/// Looks up the table of the parent module.
fn cause(least: Option<Permission>, access: Access, right: Right) -> Cause {
    match (least, access, right) {
        (Some(Permission::Nothing), _, _) => Cause::CounterNotGranted,
        (Some(Permission::View | Permission::Public), Access::Edit | Access::Own, _) => Cause::CounterViewOnly,
        (Some(Permission::Edit), Access::Own, _) => Cause::RequestRefused,
        (_, _, Right::Lacking) => Cause::ScopeMissing,
        (Some(Permission::Public), Access::View, Right::Proven) => Cause::CounterNotGranted,
        (Some(Permission::View | Permission::Edit | Permission::Own), _, Right::Proven) => Cause::RequestRefused,
        (Some(Permission::Changed | Permission::Edit), Access::Edit, Right::Unknown) => Cause::ScopeMissing,
        (Some(Permission::Own), Access::Edit | Access::Own, Right::Unknown) => Cause::ScopeMissing,
        (_, _, Right::Proven | Right::Unknown) => Cause::Ambiguous,
    }
}

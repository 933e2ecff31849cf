//! A cause with its remedy, and the effect of a later conclusion about the token.

use std::borrow::Cow;

use super::Cause;
use crate::scope::{AnyOf, ScopeSet};

/// The hint for a report without `ids`.
pub(super) const WITHOUT_IDS: &str =
    "The request names no counter. Add ids=: Metrica refuses a report without it, whatever the token's rights.";

/// The hint for a report that names its counters in another parameter.
pub(super) const COUNTERS_FOR_IDS: &str = "The report names its counters in another parameter than ids=, such as counters=. Use ids=: Metrica refuses a report without it, whatever the token's rights.";

/// The hint if it is unknown whether the owner represents the login.
pub(super) const LOGIN_NOT_KNOWN: &str = "The gate's account does not represent the login in ulogin, or lacks access or a scope; Metrica does not report which. Check ulogin and the counter number, or ask the gate's operator.";

/// The conclusion about a token, from a probe or from earlier knowledge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Conclusion {
    /// Metrica accepts the token.
    Accepted,
    /// Metrica rejects the token.
    Rejected,
    /// It is unknown whether Metrica accepts the token.
    Unknown,
}

/// The suspicion that a refusal casts on the token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Doubts {
    /// No suspicion.
    None,
    /// The response reads as if the token were invalid.
    Refused,
    /// The response denies an operation that succeeded before.
    Denied,
}

/// A cause, and the remedy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Diagnosis {
    /// The cause.
    pub cause: Cause,
    pub(super) hint: &'static str,
    pub(super) rights: Option<Rights>,
    /// Whether the token has the needed scope, so the rights are not reported.
    pub(super) has_scope: bool,
    pub(super) doubts: Doubts,
}

/// The scopes of which an operation needs one, and the declared scopes of its token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rights {
    needed: ScopeSet,
    held: ScopeSet,
}

impl Diagnosis {
    /// The response reads as if the token were invalid, but Metrica accepted the token shortly before or after it.
    const TOKEN_ACCEPTED: Self = Self {
        hint: "The response indicates an invalid token, but Metrica accepts the token in other requests. Send the request again, and read the response body if it is refused again.",
        ..Self::of(Cause::Other)
    };

    /// A 401 without a reason, which an intermediary may have sent.
    pub(super) const IN_BETWEEN: Self = Self {
        hint: "The response is a 401 without a reason from Metrica. Read the body and send the request again; if it fails again, ask the gate's operator to check proxies between the gate and Metrica.",
        doubts: Doubts::Refused,
        ..Self::of(Cause::Other)
    };

    const fn of(cause: Cause) -> Self {
        let doubts = if matches!(cause, Cause::TokenInvalid) { Doubts::Refused } else { Doubts::None };
        Self { cause, hint: cause.hint(), rights: None, has_scope: false, doubts }
    }

    /// A denial of an operation that succeeded before; `cause` applies if Metrica still accepts the token.
    pub(super) const fn doubtful(cause: Cause) -> Self {
        Self { doubts: Doubts::Denied, ..Self::of(cause) }
    }

    /// Adds the rights: the operation needs one of `needed`, and the token is declared to have `held`.
    #[must_use]
    pub fn with_rights(self, needed: ScopeSet, held: ScopeSet) -> Self {
        let is_about_them = self.cause.is_of_rights() && !self.has_scope;
        Self { rights: is_about_them.then_some(Rights { needed, held }), ..self }
    }

    /// Whether the response reads as if the token were invalid, so that a probe has to tell.
    #[must_use]
    pub fn reads_as_invalid(&self) -> bool {
        self.doubts == Doubts::Refused
    }

    /// Whether an operation that succeeded before is denied, so that a probe has to tell whether Metrica still accepts the
    /// token.
    #[must_use]
    pub fn doubts_token(&self) -> bool {
        self.doubts == Doubts::Denied
    }

    /// The diagnosis after the conclusion about the token.
    #[must_use]
    pub fn concluded(self, conclusion: Conclusion) -> Self {
        match (conclusion, self.doubts) {
            (Conclusion::Accepted, Doubts::Refused) => Self::TOKEN_ACCEPTED,
            (Conclusion::Rejected, Doubts::Refused | Doubts::Denied) => Cause::TokenInvalid.into(),
            (Conclusion::Accepted | Conclusion::Rejected | Conclusion::Unknown, _) => self,
        }
    }

    /// The hint for the caller, in one line.
    #[must_use]
    pub fn hint(&self) -> Cow<'static, str> {
        let Some(Rights { needed, held }) = self.rights else { return Cow::Borrowed(self.hint) };
        Cow::Owned(format!("{} The operation needs {}; the token is configured with {held}.", self.hint, AnyOf(needed)))
    }
}

impl From<Cause> for Diagnosis {
    fn from(cause: Cause) -> Self {
        Self::of(cause)
    }
}

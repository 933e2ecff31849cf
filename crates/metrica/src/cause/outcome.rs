//! A reason with what to do, and what it becomes when it is known whether Metrica accepts the token.

use std::borrow::Cow;

use super::Cause;
use crate::scope::{AnyOf, ScopeSet};

/// A report without `ids` is answered so, whatever the token may.
pub(super) const WITHOUT_IDS: &str =
    "The request names no counter: a report needs ids=, and one without it is refused whatever the token may.";

/// The same, where a counter stands elsewhere.
pub(super) const COUNTERS_FOR_IDS: &str = "A report names its counters in ids=, and this one names them in another parameter, as counters=: without ids= it is refused whatever the token may.";

/// Whether a login is represented is not known.
pub(super) const LOGIN_NOT_KNOWN: &str = "The account of the gate does not represent the login in ulogin, or lacks access or a right, and Metrica does not say which: check ulogin and the counter's number, or ask the gate's operator.";

/// The conclusion about a token, from a probe or from earlier knowledge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Conclusion {
    /// Metrica accepts the token.
    Accepted,
    /// Metrica rejects the token.
    Rejected,
    /// The question is open.
    Unknown,
}

/// How far a refusal casts doubt on the token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Doubts {
    /// Not at all.
    None,
    /// It reads as if the token were invalid.
    Refused,
    /// It denies what the token did before.
    Denied,
}

/// A reason, and what to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Diagnosis {
    /// The reason.
    pub cause: Cause,
    pub(super) hint: &'static str,
    pub(super) rights: Option<Rights>,
    /// It is not about a scope.
    pub(super) has_scope: bool,
    pub(super) doubts: Doubts,
}

/// What an operation needs, any one of which is enough, and what its token is declared to have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rights {
    needed: ScopeSet,
    held: ScopeSet,
}

impl Diagnosis {
    /// It reads as if the token were invalid, and Metrica accepted the token a moment ago or at once after it.
    const TOKEN_ACCEPTED: Self = Self {
        hint: "The response reads as if the token were invalid, but Metrica accepts the token in other requests: send this one again, and read the body if it is refused again.",
        ..Self::of(Cause::Other)
    };

    /// A 401 that does not say what it is about, which something in between may have sent.
    pub(super) const IN_BETWEEN: Self = Self {
        hint: "The response is a 401 without a reason of Metrica's: read the body, send the request again, and ask the gate's operator what stands between the gate and Metrica if it stays so.",
        doubts: Doubts::Refused,
        ..Self::of(Cause::Other)
    };

    const fn of(cause: Cause) -> Self {
        let doubts = if matches!(cause, Cause::TokenInvalid) { Doubts::Refused } else { Doubts::None };
        Self { cause, hint: cause.hint(), rights: None, has_scope: false, doubts }
    }

    /// A denial of what the token did before, of which this is the reason if Metrica still accepts the token.
    pub(super) const fn doubtful(cause: Cause) -> Self {
        Self { doubts: Doubts::Denied, ..Self::of(cause) }
    }

    /// The same for an operation that needs one of these rights, with a token that is declared to have those.
    #[must_use]
    pub fn with_rights(self, needed: ScopeSet, held: ScopeSet) -> Self {
        let is_about_them = self.cause.is_of_rights() && !self.has_scope;
        Self { rights: is_about_them.then_some(Rights { needed, held }), ..self }
    }

    /// Whether it reads as if the token were invalid, so that Metrica has to be asked.
    #[must_use]
    pub fn reads_as_invalid(&self) -> bool {
        self.doubts == Doubts::Refused
    }

    /// Whether the token did before what is denied, so that Metrica has to be asked whether it still accepts the token.
    #[must_use]
    pub fn doubts_token(&self) -> bool {
        self.doubts == Doubts::Denied
    }

    /// What it becomes when it is known whether Metrica accepts the token.
    #[must_use]
    pub fn concluded(self, conclusion: Conclusion) -> Self {
        match (conclusion, self.doubts) {
            (Conclusion::Accepted, Doubts::Refused) => Self::TOKEN_ACCEPTED,
            (Conclusion::Rejected, Doubts::Refused | Doubts::Denied) => Cause::TokenInvalid.into(),
            (Conclusion::Accepted | Conclusion::Rejected | Conclusion::Unknown, _) => self,
        }
    }

    /// One line for whoever sent the request.
    #[must_use]
    pub fn hint(&self) -> Cow<'static, str> {
        let Some(Rights { needed, held }) = self.rights else { return Cow::Borrowed(self.hint) };
        Cow::Owned(format!("{} It needs {}; the token should have {held}.", self.hint, AnyOf(needed)))
    }
}

impl From<Cause> for Diagnosis {
    fn from(cause: Cause) -> Self {
        Self::of(cause)
    }
}

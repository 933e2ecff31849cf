//! Diagnosis: maps a refusal by Metrica to a cause from a closed list.
//!
//! Metrica describes a missing scope and a missing grant with the same words. They are told apart by other knowledge: the
//! declared scopes of the token, and the facts that earlier responses have shown ([`crate::observed_rights`]).
//!
//! 1. The `error_type` of the body decides first: an invalid token, a counter of an organisation, a quota.
//! 2. Without a known `error_type` the status decides: 420 and 429 are a quota; a 401 may come from an intermediary, so it
//!    is no evidence about the token unless a probe confirms it. The gate's own header is never malformed, unless its token
//!    has no form that Yandex issues.
//! 3. `access_denied` with an owner other than the configured one: the token was issued while signed in elsewhere or, if
//!    the configured owner is an organisation (`porg-`), it was issued personally. The latter also holds if such a token is
//!    refused even data that Metrica shows to everybody.
//! 4. `access_denied` to a report without a counter in `ids` is about the report, whatever the token may do.
//! 5. `access_denied` with `ulogin` of a login that the owner is known not to represent. If that is unknown, only a scope
//!    that is known to be missing is conclusive. If the owner represents the login, the permissions of that login count.
//! 6. `access_denied` to an operation without a counter: no grant can be missing, so the scope is; for a read, a question
//!    verifies that. If the token has the scope, either the token is no longer accepted, which a probe verifies, or the
//!    request asks for something that is refused. With a `ulogin`, the owner may also no longer represent the login.
//! 7. `access_denied` on a counter: the table below, with the scopes and permissions that the token and its owner have
//!    shown. Among several counters, one without access decides, or else the one of which the least is known.
//!
//! ```text
//!  the owner may do            a read                    a change, or a read of grants
//!  with the counter            scope: yes no  unknown    scope: yes no  unknown
//!  nothing                            G   G   G                 G   G   G
//!  what is public                     G   S   A                 V   V   V
//!  look, as was seen                  A?  S   A?                A   S   A
//!  look                               R?  S   A                 V   V   V
//!  change it, as was seen             A?  S   A?                A?  S   S
//!  change it                          R?  S   A                 R?  S   S
//!  anything                           R?  S   A                 R?  S   S
//!  not known                          A   S   A                 A   S   A
//!
//!  G counter_not_granted   V counter_view_only   S scope_missing   R request_refused   A ambiguous
//!  ? the token did this before: unless Metrica says that it still accepts the token, it is token_invalid
//! ```
//!
//! Requests are refused for reasons other than scope and grant too (a restricted metric, a foreign segment, an operation
//! for the owner only), so no cause is concluded by elimination except a missing scope for changes, which no question could
//! prove. An operation for the owner of a counter only is refused to accounts with edit access.
//!
//! Source: <https://yandex.com/dev/metrika/en/intro/authorization>, troubleshooting.

use crate::error_type::ErrorType;
use crate::login;
use crate::observed_rights::Knowledge;
use crate::operation::Reach;
use crate::scope::{Scope, ScopeSet};
use crate::subject::{Counters, Subject};

mod demands;
mod grant;
mod outcome;

pub use demands::Demands;
use outcome::{COUNTERS_FOR_IDS, Doubts, LOGIN_NOT_KNOWN, WITHOUT_IDS};
pub use outcome::{Conclusion, Diagnosis};

macro_rules! causes {
    ($($(#[doc = $doc:literal])+ $variant:ident = $name:literal, $hint:literal, $advice:literal;)*) => {
        /// The cause of a refusal: the metric label, the log field and `X-Gate-Reason`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Cause {
            $($(#[doc = $doc])+ $variant,)*
        }

        impl Cause {
            /// All causes.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// The name of the cause.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// The remedy for the caller, in one line (`X-Gate-Hint`). It contains no token and depends on no
            /// configuration.
            #[must_use]
            pub const fn hint(self) -> &'static str {
                match self { $(Self::$variant => $hint,)* }
            }

            /// The remedy for the operator, in one line, for documentation and log.
            #[must_use]
            pub const fn advice(self) -> &'static str {
                match self { $(Self::$variant => $advice,)* }
            }
        }
    };
}

causes! {
    /// The token has no form that Yandex issues.
    HeaderMalformed = "header_malformed",
        "The gate's token is malformed; this request is not at fault. Ask the gate's operator to replace the token.",
        "Metrica rejected the Authorization field: the token file does not contain a token in a form that Yandex issues. Replace the token.";
    /// The token is expired or revoked, the password was changed, or the application was edited.
    TokenInvalid = "token_invalid",
        "The gate's token is expired or revoked; this request is not at fault. Ask the gate's operator to replace the token.",
        "The token is expired or revoked, its owner changed the password, or the application was edited. Issue a new token and write it to the token file.";
    /// The token lacks a required scope.
    ScopeMissing = "scope_missing",
        "The gate's token lacks a scope that this operation needs. Ask the gate's operator for it.",
        "The token lacks a scope that this operation needs, although the configuration may declare it. Check the application's rights at oauth.yandex.com and issue a new token.";
    /// The owner has no grant on the counter.
    CounterNotGranted = "counter_not_granted",
        "The gate's account has no access to this counter. Check the counter number, or ask the counter's owner to grant the account access.",
        "The token's owner has no access to this counter. Grant access in the counter's settings, or check the counter number.";
    /// The owner may only view the counter.
    CounterViewOnly = "counter_view_only",
        "The gate's account may view this counter but not edit it. Ask the counter's owner to grant edit access.",
        "The token's owner may view this counter but not edit it. Grant edit access in the counter's settings.";
    /// The counter belongs to an organisation.
    CounterInOrganization = "counter_in_organization",
        "The counter belongs to an organisation. Ask its administrator for access, which only the web interface can grant.",
        "The counter belongs to an organisation. Grant access in the organisation's web interface; the API cannot.";
    /// The token belongs to another account than configured.
    OwnerMismatch = "owner_mismatch",
        "The gate's token was issued by another account; this request is not at fault. Ask the gate's operator to replace the token.",
        "The token was issued by another account than its configured owner. Issue a new token while signed in as that owner.";
    /// The owner does not represent the login in `ulogin`.
    NotRepresentative = "not_representative",
        "The gate's account does not represent the login in ulogin. Leave ulogin out, or have that login add the account as a representative.",
        "The token's owner does not represent the login in ulogin. Leave ulogin out, or have that login add the owner as a representative.";
    /// A personal token is used for an organisation's account.
    OrganizationTokenRequired = "organization_token_required",
        "The account belongs to an organisation, and the gate's token was not issued on its behalf. Ask the gate's operator to issue a new token.",
        "The account belongs to an organisation (porg-). Add passport:business to the application, and issue the token on behalf of the organisation.";
    /// The quota per login: 5000 requests a day, or 200 reports in five minutes.
    QuotaUid = "quota_uid",
        "The quota of the gate's account, shared by all its callers, is exhausted: 200 reports in five minutes, or 5000 requests a day until 00:00 GMT. Send fewer requests, and retry later.",
        "The quota of the token's login is exhausted: 200 reports in five minutes, or 5000 requests a day until 00:00 GMT. /usage lists the requests of each caller.";
    /// The quota per address: 30 requests a second.
    QuotaIp = "quota_ip",
        "The gate's address, shared by all its callers, sent too many requests in this second. Retry after a second, with fewer requests at once.",
        "The gate's address sent too many requests in this second; the limits are 30 in all and 10 of the Logs API.";
    /// The quota per counter: 5000 requests a day.
    QuotaCounter = "quota_counter",
        "The counter's quota of 5000 requests a day, shared with other clients, is exhausted. Retry after 00:00 GMT.",
        "The counter's quota of 5000 requests a day, shared with other clients, is exhausted until 00:00 GMT.";
    /// The quota per login: 3 parallel requests.
    QuotaParallel = "quota_parallel",
        "The gate's account has more than 3 requests in progress, over all its callers. Retry when one has completed.",
        "The token's login has more than 3 requests in progress at once, over all callers and gates that use its tokens.";
    /// The quota for adding delegates.
    QuotaDelegates = "quota_delegates",
        "Metrica allows adding delegates 3 times an hour. Retry at the start of the next hour.",
        "Metrica allows adding delegates 3 times an hour. Retry at the start of the next hour.";
    /// The quota for granting access.
    QuotaGrants = "quota_grants",
        "Metrica allows granting access to a counter 3 times an hour. Retry at the start of the next hour.",
        "Metrica allows granting access to a counter 3 times an hour. Retry at the start of the next hour.";
    /// Any other quota.
    QuotaOther = "quota_other",
        "A quota of Metrica is exhausted; the response body names it.",
        "A quota of Metrica is exhausted; the response body names it.";
    /// Neither the scope nor the access is missing.
    RequestRefused = "request_refused",
        "The gate's token and account are sufficient, but Metrica denies this particular request, for example a restricted metric, a segment of another account or an operation reserved for the owner. Read the response body.",
        "The token has the scope and its owner has access, but Metrica denies this particular request, for example a restricted metric or dimension, a segment of another account or an operation reserved for the counter's owner. The response body, which the caller received, has details.";
    /// A missing scope and a missing grant cannot be told apart.
    Ambiguous = "ambiguous",
        "The gate's account has no access to the counter, or its token lacks a scope; Metrica does not report which. Check the counter number, or ask the gate's operator.",
        "The token lacks a scope, or its owner lacks access to the counter; Metrica does not report which, except possibly in the response body, which the caller received. Run metrika-gate doctor --counter N. If the token cannot read, configure `identity`, so that the gate can ask with another token of the same owner.";
    /// Any other reason.
    Other = "other",
        "Metrica refused the request for a reason that the gate does not know. Read the response body.",
        "Metrica refused the request for a reason that the gate does not know. The response body, which the caller received, may have details.";
}

impl Cause {
    /// Whether scopes are in question: the response and the access line then name the needed and the declared scopes.
    #[must_use]
    pub const fn is_of_rights(self) -> bool {
        match self.kind() {
            Kind::Rights => true,
            Kind::Account | Kind::Quota | Kind::Neither => false,
        }
    }

    /// Whether a token of another account may be allowed what was refused.
    #[must_use]
    pub const fn may_be_of_the_account(self) -> bool {
        match self.kind() {
            Kind::Rights | Kind::Account => true,
            Kind::Quota | Kind::Neither => false,
        }
    }

    /// Whether a quota is exhausted: a response of 420 or 429.
    #[must_use]
    pub const fn is_of_quota(self) -> bool {
        match self.kind() {
            Kind::Quota => true,
            Kind::Rights | Kind::Account | Kind::Neither => false,
        }
    }

    const fn kind(self) -> Kind {
        match self {
            Self::ScopeMissing | Self::Ambiguous => Kind::Rights,
            Self::CounterNotGranted
            | Self::CounterViewOnly
            | Self::CounterInOrganization
            | Self::NotRepresentative
            | Self::OwnerMismatch
            | Self::OrganizationTokenRequired => Kind::Account,
            Self::QuotaUid
            | Self::QuotaIp
            | Self::QuotaCounter
            | Self::QuotaParallel
            | Self::QuotaDelegates
            | Self::QuotaGrants
            | Self::QuotaOther => Kind::Quota,
            Self::HeaderMalformed | Self::TokenInvalid | Self::RequestRefused | Self::Other => Kind::Neither,
        }
    }
}

/// What a cause is about.
#[derive(Debug, Clone, Copy)]
enum Kind {
    /// The scopes of the token, and perhaps the access of the account.
    Rights,
    /// The account of the token.
    Account,
    /// A quota.
    Quota,
    /// Something else.
    Neither,
}

/// A refusal, and the knowledge at that time.
#[derive(Debug, Clone, Copy)]
pub struct Case<'a> {
    /// 401, 403, 420 or 429.
    pub status: u16,
    /// The error type in the body.
    pub error_type: ErrorType,
    /// Whether the response has no body that could contain a reason: to a HEAD.
    pub is_silent: bool,
    /// The scopes that allow the operation; any one of them is enough.
    pub needs: ScopeSet,
    /// The data that the operation works on.
    pub reach: Reach,
    /// The permission that the operation needs on the counter, beyond its scopes.
    pub demands: Demands,
    /// The counters and the login of the request.
    pub subject: &'a Subject,
    /// Whether the token has a form that Yandex issues.
    pub well_formed: bool,
    /// The configured owner of the token.
    pub expected_owner: Option<&'a str>,
    /// The facts that responses have shown about the token.
    pub knowledge: &'a Knowledge,
}

impl Case<'_> {
    /// Determines the cause.
    #[must_use]
    pub fn diagnose(&self) -> Diagnosis {
        match self.error_type {
            ErrorType::InvalidToken => Cause::TokenInvalid.into(),
            ErrorType::CounterInConnect => Cause::CounterInOrganization.into(),
            ErrorType::QuotaRequestsByUid => Cause::QuotaUid.into(),
            ErrorType::QuotaRequestsByIp => Cause::QuotaIp.into(),
            ErrorType::QuotaRequestsByCounterId => Cause::QuotaCounter.into(),
            ErrorType::QuotaParallelRequests | ErrorType::QuotaParallelRequestsByUid => Cause::QuotaParallel.into(),
            ErrorType::QuotaDelegateRequests => Cause::QuotaDelegates.into(),
            ErrorType::QuotaGrantsRequests => Cause::QuotaGrants.into(),
            ErrorType::QuotaOther => Cause::QuotaOther.into(),
            ErrorType::Unauthorized => self.not_taken().into(),
            ErrorType::AccessDenied => self.denied(),
            ErrorType::InvalidParameter
            | ErrorType::NotFound
            | ErrorType::BackendError
            | ErrorType::Timeout
            | ErrorType::Other => self.by_status(),
        }
    }

    /// The diagnosis without a known `error_type` (rule 2).
    fn by_status(&self) -> Diagnosis {
        match self.status {
            401 if self.well_formed => Diagnosis::IN_BETWEEN,
            401 => Cause::HeaderMalformed.into(),
            420 | 429 => Cause::QuotaOther.into(),
            _ if self.is_silent => self.denied(),
            _ => Cause::Other.into(),
        }
    }

    const fn not_taken(&self) -> Cause {
        if self.well_formed { Cause::TokenInvalid } else { Cause::HeaderMalformed }
    }

    fn denied(&self) -> Diagnosis {
        let told = self.by_owner().map(Diagnosis::from).or_else(|| self.by_report()).or_else(|| self.by_login());
        if let Some(told) = told {
            return told;
        }
        match (self.reach, &self.subject.counters) {
            (Reach::Reports | Reach::Counter(_), Counters::None | Counters::Unreadable) => Cause::Ambiguous.into(),
            (Reach::Reports | Reach::Counter(_), counters) => self.by_grant(counters.as_slice()),
            (Reach::Counters | Reach::Account | Reach::Nobody, _) => self.without_counter(),
        }
    }

    /// The diagnosis of a denial without a counter (rule 6).
    fn without_counter(&self) -> Diagnosis {
        let is_listed = |login: &str| self.knowledge.lists(login);
        let is_asked = self.reach != Reach::Counters && self.needs.contains(Scope::Read);
        if self.knowledge.has_proven(self.needs) {
            let holds = self.subject.login.as_deref().is_none_or(is_listed);
            let cause = if holds { Cause::RequestRefused } else { Cause::Ambiguous };
            return Diagnosis {
                hint: if holds { cause.hint() } else { LOGIN_NOT_KNOWN },
                ..Diagnosis::doubtful(cause)
            };
        }
        let is_open = (is_asked || self.may_be_personal()) && !self.knowledge.lacks(self.needs);
        if is_open { Cause::Ambiguous.into() } else { Cause::ScopeMissing.into() }
    }

    /// The cause if the token has another owner than configured (rule 3).
    fn by_owner(&self) -> Option<Cause> {
        let expected = self.expected_owner?;
        let Some(actual) = self.knowledge.owner() else {
            let is_personal = login::is_organisation(expected) && self.knowledge.is_excluded();
            return is_personal.then_some(Cause::OrganizationTokenRequired);
        };
        let is_other = !login::is_same(expected, actual);
        let organization = login::is_organisation(expected) && !login::is_organisation(actual);
        is_other.then_some(if organization { Cause::OrganizationTokenRequired } else { Cause::OwnerMismatch })
    }

    /// Whether a token for an organisation may be a personal one, as far as is known. A question can tell.
    fn may_be_personal(&self) -> bool {
        let read = [Scope::Read].into_iter().collect();
        self.expected_owner.is_some_and(login::is_organisation)
            && self.knowledge.owner().is_none()
            && !self.knowledge.has_proven_anything()
            && !self.knowledge.lacks(read)
    }

    /// The diagnosis of a report without `ids` (rule 4).
    fn by_report(&self) -> Option<Diagnosis> {
        if self.reach != Reach::Reports || !self.subject.clients.is_empty() {
            return None;
        }
        let hint = match &self.subject.counters {
            _ if self.subject.misnamed => COUNTERS_FOR_IDS,
            Counters::None => WITHOUT_IDS,
            Counters::One(_) | Counters::Several(_) | Counters::Unreadable => return None,
        };
        Some(Diagnosis { hint, ..Cause::Other.into() })
    }

    /// The diagnosis of a denial with `ulogin`, unless the owner represents the login (rule 5).
    fn by_login(&self) -> Option<Diagnosis> {
        let named = self.subject.login.as_deref()?;
        if self.knowledge.represented(named).is_some() {
            return None;
        }
        if !self.knowledge.knows_all_logins() {
            let lacks = self.knowledge.lacks(self.needs);
            let unknown = Diagnosis { hint: LOGIN_NOT_KNOWN, ..Cause::Ambiguous.into() };
            return Some(if lacks { Cause::ScopeMissing.into() } else { unknown });
        }
        let personal = !self.knowledge.owner().or(self.expected_owner).is_some_and(login::is_organisation);
        let organization = login::is_organisation(named) && personal;
        let cause = if organization { Cause::OrganizationTokenRequired } else { Cause::NotRepresentative };
        Some(cause.into())
    }
}

#[cfg(test)]
mod tests;

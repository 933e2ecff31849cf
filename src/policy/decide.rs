//! Decisions: whether a request may be sent, for which caller, and with which tokens. Only this module decides.
//!
//! 1. The steps are [`identify`], [`admit`] and [`permit`]; each needs the result of the previous one. The stages of the
//!    gateway are these steps; [`decide`] runs all of them, for code that needs only the result.
//! 2. A decision is a pure function of a request, the evidence of its connection, its verified proofs, and the current state
//!    ([`KnownState`]).
//! 3. The state can change while a request waits. The parts of the request that decisions read are therefore kept
//!    ([`AdmittedRequest`]), and it is decided again after every wait, with the state of that time ([`AdmittedRequest::again`]). A request is
//!    never sent with a token that the latest decision does not list.
//! 4. A decision lists at least one token, and only tokens that can be used now.

use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, Version};
use metrica::operation::{Operation, Verb};
use metrica::subject::Subject;
use strict_http::Malformed;
use strict_http::target::{BadTarget, Broken, Target};

use super::admission::Limits;
use super::admission::{Admissions, Admitted};
use super::body_head::BodyHead;
pub use super::body_policy::{BodyPolicy, Retype};
pub use super::sendable::Candidates;
use crate::policy::caller::{Evidence, Proofs};
use crate::policy::choice::Accounts;
use crate::policy::names::{CallerId, ListenerName, TokenAlias};
use crate::policy::rejection::{Reason, Rejection};
use crate::policy::rules::{Breach, Call, Duties};
use crate::policy::{Denial, Grant, Permission, Policy, Wish};

/// The field by which a request chooses among the tokens of its caller ([`super::choice`], rule 4). It is not forwarded.
pub const ACCOUNT: HeaderName = HeaderName::from_static("x-gate-account");

/// The current state, on which decisions depend.
#[derive(Clone, Copy)]
pub struct KnownState<'a> {
    /// The rules for callers.
    pub policy: &'a Policy,
    /// The admission rules of each listener.
    pub admissions: &'a Admissions,
    /// The limits of a request.
    pub limits: &'a Limits,
    /// By position of a token in the policy: the tokens to use when it is chosen, or the reason why there is none.
    pub tokens: &'a [Result<Candidates, Reason>],
    /// The knowledge about the owners of the tokens.
    pub accounts: &'a dyn Accounts,
}

/// The header of a request.
#[derive(Debug, Clone, Copy)]
pub struct RequestHead<'a> {
    /// The method.
    pub method: &'a Method,
    /// The HTTP version.
    pub version: Version,
    /// The target.
    pub uri: &'a Uri,
    /// The fields as received.
    pub fields: &'a HeaderMap,
    /// The minimum length of the body in bytes; `None` if there is no body.
    pub body: Option<u64>,
    /// The rule that the target broke before it was percent-encoded.
    pub encoded: Option<Broken>,
    /// The names that the connection was opened for, with CONNECT and in TLS.
    pub opened_for: [Option<&'a str>; 2],
}

impl<'a> RequestHead<'a> {
    /// The header `parts` of a request with a body of this minimum length.
    #[must_use]
    pub const fn of(parts: &'a Parts, body: Option<u64>) -> Self {
        Self {
            method: &parts.method,
            version: parts.version,
            uri: &parts.uri,
            fields: &parts.headers,
            body,
            encoded: None,
            opened_for: [None; 2],
        }
    }
}

/// The caller of a request, as its position in the policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identified(usize);

impl Identified {
    /// Assumes the caller at this position, to find out how its requests would be treated.
    #[must_use]
    pub const fn supposed(position: usize) -> Self {
        Self(position)
    }

    /// The position.
    #[must_use]
    pub const fn position(self) -> usize {
        self.0
    }
}

/// The parts of a request that decisions read.
#[derive(Debug, Clone)]
pub struct AdmittedRequest {
    verb: Option<Verb>,
    uri: Uri,
    encoded: Option<Broken>,
    admitted: Admitted,
    /// The value of [`ACCOUNT`].
    wanted: Option<HeaderValue>,
    /// The token with which Metrica denied the request.
    tried: Option<TokenAlias>,
    pub(super) body: Option<BodyHead>,
}

/// The result of a decision, and the parts of the request that it read.
pub struct Decided<'a> {
    /// The requested operation and the data that it affects, if they could be read.
    pub read: Option<(&'a Operation, Subject)>,
    /// The chosen token, whether it can be used or not.
    pub token: Option<TokenAlias>,
    /// The decision.
    pub decision: Result<Decision, Rejection>,
}

/// The permission to send a request.
#[derive(Debug, Clone)]
pub struct Decision {
    caller: CallerId,
    grant: Grant,
    target: Target,
    tokens: Candidates,
    next: Option<Candidates>,
    is_choice: bool,
    duties: Duties,
    body_policy: Option<Box<BodyPolicy>>,
    shadowed: Option<Shadowed>,
}

/// The reason why a request would be refused if the caller's rules were enforced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shadowed {
    /// The reason.
    pub reason: Reason,
    /// The broken rule, if there is one.
    pub breach: Option<Breach>,
}

/// Identifies the caller from the evidence of the connection and the verified proofs of the request; nothing else of the
/// request is read.
///
/// # Errors
/// `unknown_caller` or `key_unknown`.
pub fn identify(evidence: &Evidence, proofs: &Proofs, known: &KnownState<'_>) -> Result<Identified, Rejection> {
    known.policy.callers.identify(evidence, proofs).map(Identified).map_err(Rejection::from)
}

/// Decides whether a request is accepted on this listener, for any caller.
///
/// # Errors
/// The rule of [`super::admission`] that the request breaks.
pub fn admit(
    head: &RequestHead<'_>,
    listener: ListenerName,
    known: &KnownState<'_>,
) -> Result<AdmittedRequest, Rejection> {
    let admitted = known.admissions.of(listener)?.admit(head, known.limits)?;
    Ok(AdmittedRequest {
        verb: Verb::of(head.method),
        uri: head.uri.clone(),
        encoded: head.encoded,
        admitted,
        wanted: wanted(head.fields),
        tried: None,
        body: head.body.map(|shortest| BodyHead::of(head.fields, shortest)),
    })
}

/// Decides whether the caller may send the request, with which duties and which tokens. The target is checked first, so
/// that policy reads the target that is sent upstream.
#[must_use]
pub fn permit<'a>(caller: Identified, asked: &AdmittedRequest, known: &KnownState<'a>) -> Decided<'a> {
    let (target, operation) = match asked.read(caller, known) {
        Ok(read) => read,
        Err(rejection) => return Decided { read: None, token: None, decision: Err(rejection) },
    };
    let (path, query, names) = (target.path(), target.query(), target.names());
    let subject = Subject::of(operation, path, query, names);
    let call = Call { operation, path, query, names, subject: &subject };
    let wish = Wish { account: asked.wanted.as_ref().map(HeaderValue::as_bytes), tried: asked.tried };
    let permission = known.policy.permit(caller.0, &call, known.accounts, wish);
    let token = permission.as_ref().ok().map(|permission| permission.grant.token());
    let several = || known.policy.several_accounts(caller.0, &call, known.accounts);
    let refused = |denial| {
        if matches!(denial, Denial::SeveralAccounts(_))
            && let Some(accounts) = several()
        {
            return Rejection::because(denial.reason(), accounts);
        }
        if matches!(denial, Denial::TokenScopeMissing(..)) && asked.tried.is_some() {
            return Reason::TokenUnavailable.into();
        }
        rejection(denial)
    };
    let permission = permission.map_err(refused);
    let decision = permission.and_then(|permission| asked.terms(caller, operation, permission, target, known));
    Decided { read: Some((operation, subject)), token, decision }
}

/// Runs all steps.
///
/// # Errors
/// The refusal.
pub fn decide(
    head: &RequestHead<'_>,
    (evidence, proofs): (&Evidence, &Proofs),
    known: &KnownState<'_>,
) -> Result<Decision, Rejection> {
    decide_for(identify(evidence, proofs, known)?, head, evidence.listener, known)
}

/// Runs all steps except the identification of the caller.
///
/// # Errors
/// The refusal.
pub fn decide_for(
    caller: Identified,
    head: &RequestHead<'_>,
    listener: ListenerName,
    known: &KnownState<'_>,
) -> Result<Decision, Rejection> {
    permit(caller, &admit(head, listener, known)?, known).decision
}

impl AdmittedRequest {
    /// Decides again after a wait.
    ///
    /// # Errors
    /// The refusal that applies now.
    pub fn again<'a>(
        &self,
        (evidence, proofs): (&Evidence, &Proofs),
        known: &KnownState<'a>,
    ) -> Result<Decided<'a>, Rejection> {
        let caller = identify(evidence, proofs, known)?;
        known.admissions.of(evidence.listener)?.admit_again(&self.admitted, &self.uri)?;
        Ok(permit(caller, self, known))
    }

    /// Records that Metrica denied the request with this token: later decisions choose another account, and no third one.
    pub const fn was_tried_with(&mut self, token: TokenAlias) {
        self.tried = Some(token);
    }

    /// Whether the request chooses the account.
    #[must_use]
    pub const fn chooses_account(&self) -> bool {
        self.wanted.is_some()
    }

    /// The requested path.
    #[must_use]
    pub fn path(&self) -> &str {
        self.uri.path()
    }

    /// Reads the target and its operation. The host of an absolute form (RFC 9112, section 3.2.2) is ignored, because the
    /// upstream is fixed.
    fn read<'a>(&self, caller: Identified, known: &KnownState<'a>) -> Result<(Target, &'a Operation), Rejection> {
        let verb = self.verb.ok_or(Reason::MethodNotAllowed)?;
        let (policy, limit) = (known.policy, known.limits.target_bytes);
        let target = Target::canonical(&self.uri, limit, |path| policy.knows(path)).map_err(|bad| match bad {
            BadTarget::Ambiguous(broken) => Malformed::Target(broken),
            BadTarget::TooLong => Malformed::TargetTooLong,
        })?;
        let strict = policy.callers.get(caller.0).is_some_and(|caller| caller.strict);
        if let Some(broken) = self.encoded.or(target.was_changed())
            && strict
        {
            return Err(Malformed::Target(broken).into());
        }
        if self.body.is_some_and(|body| body.is_form() && (strict || body.retype().is_none())) {
            return Err(Reason::FormBody.into());
        }
        let operation = policy.operation(verb, target.path()).map_err(rejection)?;
        Ok((target, operation))
    }

    fn terms(
        &self,
        caller: Identified,
        operation: &Operation,
        permission: Permission,
        target: Target,
        known: &KnownState<'_>,
    ) -> Result<Decision, Rejection> {
        let Permission { grant, next, is_choice, duties, shadowed } = permission;
        let of_denial = |denial: Denial| Shadowed { reason: denial.reason(), breach: denial.breach() };
        let mut shadowed = shadowed.map(of_denial);
        let body_policy = self.body_policy(caller, operation, &permission, known, &mut shadowed)?;
        let tokens = *known
            .tokens
            .get(grant.token_position())
            .ok_or(Reason::TokenUnavailable)?
            .as_ref()
            .map_err(|reason| *reason)?;
        // Only a read without a body can be sent to a second account (`docs/decisions/0029`).
        let is_read = !operation.acts && self.body.is_none() && self.verb.is_some_and(Verb::is_safe);
        let next =
            next.filter(|_| is_read && self.tried.is_none()).and_then(|next| known.tokens.get(usize::from(next))?.ok());
        Ok(Decision { caller: grant.caller(), grant, target, tokens, next, is_choice, duties, body_policy, shadowed })
    }
}

impl Decision {
    /// The caller.
    #[must_use]
    pub const fn caller(&self) -> CallerId {
        self.caller
    }

    /// The operation, and the token to use if all can be used.
    #[must_use]
    pub const fn grant(&self) -> Grant {
        self.grant
    }

    /// The target that is sent upstream.
    #[must_use]
    pub const fn target(&self) -> &Target {
        &self.target
    }

    /// The tokens to use, in order of preference.
    #[must_use]
    pub const fn tokens(&self) -> Candidates {
        self.tokens
    }

    /// The tokens of another account to try once if Metrica denies this read for lack of access.
    #[must_use]
    pub const fn next(&self) -> Option<Candidates> {
        self.next
    }

    /// Whether knowledge about accounts chose the token.
    #[must_use]
    pub const fn is_choice(&self) -> bool {
        self.is_choice
    }

    /// The duties that the caller's rules impose on such requests.
    #[must_use]
    pub const fn duties(&self) -> Duties {
        self.duties
    }

    /// Takes the remaining duties for this request; a second call returns `None`.
    pub const fn take_body_policy(&mut self) -> Option<Box<BodyPolicy>> {
        self.body_policy.take()
    }

    /// The refusal that would apply if the caller's rules were enforced.
    #[must_use]
    pub const fn shadowed(&self) -> Option<Shadowed> {
        self.shadowed
    }
}

/// The value of [`ACCOUNT`]. Several values choose nothing that exists, so they are refused.
#[must_use]
pub fn wanted(fields: &HeaderMap) -> Option<HeaderValue> {
    let mut values = fields.get_all(&ACCOUNT).iter();
    let first = values.next()?;
    Some(if values.next().is_some() { HeaderValue::from_static("") } else { first.clone() })
}

fn rejection(denial: Denial) -> Rejection {
    Rejection {
        reason: denial.reason(),
        lacking: denial.lacking(),
        quota: None,
        cause: denial.breach().map(Into::into),
    }
}

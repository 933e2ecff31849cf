//! Decide: may this request be sent, for whom, and with which tokens? One decision, made here and nowhere else.
//!
//! 1. [`identify`], [`admit`] and [`permit`] are its steps, and each takes what the one before made. The stages of the gateway
//!    are these steps; [`decide`] is all of them, for who only wants to know.
//! 2. It is pure: it reads a request, the evidence of its connection, and what is [`Known`] now.
//! 3. While a request waits, what is known can change. So what it asks is kept ([`Asked`]), and it is decided again after
//!    every wait, with what is known then ([`Asked::again`]): a request is never sent with a token that the latest decision
//!    does not list.
//! 4. A decision lists at least one token, and only those that can be sent now.

use std::num::NonZero;

use http::request::Parts;
use http::{HeaderMap, Method, Uri, Version};

use crate::caller::Evidence;
use crate::config::Limits;
use crate::line::Malformed;
use crate::operation::{Operation, Verb};
use crate::policy::{Denial, Grant, Permission, Policy};
use crate::rejection::{Reason, Rejection};
use crate::rules::{Breach, Call, Duties};
use crate::subject::Subject;
use crate::symbol::{CallerId, ListenerName, TokenAlias};
use crate::target::{BadTarget, Broken, Target};

pub mod admission;
pub mod body;
mod http2;
mod owed;
pub mod via;

use admission::{Admissions, Admitted};
use body::BodyHead;
pub use owed::{Owed, Retype};

/// What decisions are made with: the state of now.
#[derive(Clone, Copy)]
pub struct Known<'a> {
    /// Who may do what.
    pub policy: &'a Policy,
    /// What each listener lets in.
    pub admissions: &'a Admissions,
    /// Bounds of a request.
    pub limits: &'a Limits,
    /// By the position of a token in the policy: which can be sent where it is chosen, or why none can.
    pub tokens: &'a [Result<Candidates, Reason>],
}

/// The head of a request.
#[derive(Debug, Clone, Copy)]
pub struct Head<'a> {
    /// The method.
    pub method: &'a Method,
    /// The version of HTTP.
    pub version: Version,
    /// The target.
    pub uri: &'a Uri,
    /// The fields, as they came.
    pub fields: &'a HeaderMap,
    /// The shortest that its body can be; `None` where it has none.
    pub body: Option<u64>,
    /// The rule that its target broke before it was percent-encoded.
    pub encoded: Option<Broken>,
}

impl<'a> Head<'a> {
    /// The head `parts`, of a request with such a body.
    #[must_use]
    pub const fn of(parts: &'a Parts, body: Option<u64>) -> Self {
        Self {
            method: &parts.method,
            version: parts.version,
            uri: &parts.uri,
            fields: &parts.headers,
            body,
            encoded: None,
        }
    }
}

/// The caller of a request: its position in the policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identified(usize);

impl Identified {
    /// As if it were the caller at this position: for who wants to know what would become of its requests.
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

/// What a request asks, as far as decisions read it.
#[derive(Debug, Clone)]
pub struct Asked {
    verb: Option<Verb>,
    is_connect: bool,
    uri: Uri,
    encoded: Option<Broken>,
    admitted: Admitted,
    body: Option<BodyHead>,
}

/// What was decided of a request, and what was read of it for that.
pub struct Decided<'a> {
    /// What was asked for, and on whose data, where that could be read.
    pub read: Option<(&'a Operation, Subject)>,
    /// The token that was chosen, whether it can be sent or not.
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
    duties: Duties,
    owed: Option<Box<Owed>>,
    shadowed: Option<Shadowed>,
}

/// The tokens that can be sent, the first one first. There is at least one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidates {
    first: u16,
    /// One more than the position of the second, where there is one.
    second: Option<NonZero<u32>>,
}

/// Why a request would be refused if the rules of its caller were enforced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shadowed {
    /// The reason.
    pub reason: Reason,
    /// The rule, where it is one.
    pub breach: Option<Breach>,
}

/// Who asks. From the evidence of the connection alone; no field of a request is read.
///
/// # Errors
/// `unknown_caller`.
pub fn identify(evidence: Evidence, known: &Known<'_>) -> Result<Identified, Rejection> {
    known.policy.callers.identify(evidence).map(Identified).ok_or_else(|| Reason::UnknownCaller.into())
}

/// Whether a request may reach the gate at all, on this listener.
///
/// # Errors
/// The rule of [`admission`] that it breaks.
pub fn admit(head: &Head<'_>, listener: ListenerName, known: &Known<'_>) -> Result<Asked, Rejection> {
    let admitted = known.admissions.of(listener)?.admit(head, known.limits)?;
    Ok(Asked {
        verb: Verb::of(head.method),
        is_connect: *head.method == Method::CONNECT,
        uri: head.uri.clone(),
        encoded: head.encoded,
        admitted,
        body: head.body.map(|shortest| BodyHead::of(head.fields, shortest)),
    })
}

/// Whether the caller may do what it asks, on what terms, and with which tokens. The target is checked first, so that what
/// policy reads is what goes out.
#[must_use]
pub fn permit<'a>(caller: Identified, asked: &Asked, known: &Known<'a>) -> Decided<'a> {
    let (target, operation) = match asked.read(caller, known) {
        Ok(read) => read,
        Err(rejection) => return Decided { read: None, token: None, decision: Err(rejection) },
    };
    let (path, query, names) = (target.path(), target.query(), target.names());
    let subject = Subject::of(operation, path, query, names);
    let permission = known.policy.permit(caller.0, &Call { operation, path, query, names, subject: &subject });
    let token = permission.as_ref().ok().map(|permission| permission.grant.token());
    let decision =
        permission.map_err(rejection).and_then(|permission| asked.terms(caller, operation, permission, target, known));
    Decided { read: Some((operation, subject)), token, decision }
}

/// All of it.
///
/// # Errors
/// The refusal.
pub fn decide(head: &Head<'_>, evidence: Evidence, known: &Known<'_>) -> Result<Decision, Rejection> {
    decide_for(identify(evidence, known)?, head, evidence.listener, known)
}

/// All of it but who asks.
///
/// # Errors
/// The refusal.
pub fn decide_for(
    caller: Identified,
    head: &Head<'_>,
    listener: ListenerName,
    known: &Known<'_>,
) -> Result<Decision, Rejection> {
    permit(caller, &admit(head, listener, known)?, known).decision
}

impl Asked {
    /// Decides it again, after a wait.
    ///
    /// # Errors
    /// Why it is refused now.
    pub fn again<'a>(&self, evidence: Evidence, known: &Known<'a>) -> Result<Decided<'a>, Rejection> {
        let caller = identify(evidence, known)?;
        known.admissions.of(evidence.listener)?.admit_again(&self.admitted, &self.uri)?;
        Ok(permit(caller, self, known))
    }

    /// The path that is asked for.
    #[must_use]
    pub fn path(&self) -> &str {
        self.uri.path()
    }

    /// Of an absolute-form target (RFC 9112, section 3.2.2) only the path and query are read; the upstream is a constant.
    fn read<'a>(&self, caller: Identified, known: &Known<'a>) -> Result<(Target, &'a Operation), Rejection> {
        let verb = self.verb.ok_or_else(|| self.without_verb())?;
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

    /// Of a method that no operation has.
    #[cold]
    fn without_verb(&self) -> Rejection {
        if self.is_connect { Malformed::Connect.into() } else { Reason::MethodNotAllowed.into() }
    }

    fn terms(
        &self,
        caller: Identified,
        operation: &Operation,
        permission: Permission,
        target: Target,
        known: &Known<'_>,
    ) -> Result<Decision, Rejection> {
        let Permission { grant, duties, shadowed } = permission;
        let of_denial = |denial: Denial| Shadowed { reason: denial.reason(), breach: denial.breach() };
        let mut shadowed = shadowed.map(of_denial);
        let owed = self.owed(caller, operation, &permission, known, &mut shadowed)?;
        let tokens = *known
            .tokens
            .get(grant.token_position())
            .ok_or(Reason::TokenUnavailable)?
            .as_ref()
            .map_err(|reason| *reason)?;
        Ok(Decision { caller: grant.caller(), grant, target, tokens, duties, owed, shadowed })
    }
}

impl Decision {
    /// For whom.
    #[must_use]
    pub const fn caller(&self) -> CallerId {
        self.caller
    }

    /// For what, and with which token where all can be sent.
    #[must_use]
    pub const fn grant(&self) -> Grant {
        self.grant
    }

    /// What goes out of its target.
    #[must_use]
    pub const fn target(&self) -> &Target {
        &self.target
    }

    /// With which tokens.
    #[must_use]
    pub const fn tokens(&self) -> Candidates {
        self.tokens
    }

    /// What the rules of its caller demand of any such request.
    #[must_use]
    pub const fn duties(&self) -> Duties {
        self.duties
    }

    /// What is left of that to do for this one; once.
    pub const fn take_owed(&mut self) -> Option<Box<Owed>> {
        self.owed.take()
    }

    /// Why it would be refused if the rules of its caller were enforced.
    #[must_use]
    pub const fn shadowed(&self) -> Option<Shadowed> {
        self.shadowed
    }
}

impl Candidates {
    /// The candidates of each token, where `can_be_sent` says which can, or why not, and `standby` has the position of what
    /// stands by.
    #[must_use]
    pub fn of(
        can_be_sent: &[Result<(), Reason>],
        standby: impl Fn(usize) -> Option<usize>,
    ) -> Vec<Result<Self, Reason>> {
        let can = |position: usize| can_be_sent.get(position).is_some_and(Result::is_ok);
        let one = |(position, own): (usize, &Result<(), Reason>)| {
            let standby = standby(position).filter(|standby| can(*standby));
            let (first, second) = match (own, standby) {
                (Ok(()), standby) => (position, standby),
                (Err(_), Some(standby)) => (standby, None),
                (Err(reason), None) => return Err(*reason),
            };
            let first = u16::try_from(first).map_err(|_| Reason::TokenUnavailable)?;
            let second = second.and_then(|second| NonZero::new(u32::try_from(second).ok()? + 1));
            Ok(Self { first, second })
        };
        can_be_sent.iter().enumerate().map(one).collect()
    }

    /// The position of the first.
    #[must_use]
    pub fn first(self) -> usize {
        self.first.into()
    }

    /// The positions of all, in their order.
    pub fn iter(self) -> impl Iterator<Item = usize> {
        let second = self.second.and_then(|second| usize::try_from(second.get() - 1).ok());
        [Some(self.first()), second].into_iter().flatten()
    }
}

fn rejection(denial: Denial) -> Rejection {
    let breach = denial.breach().map(anyhow::Error::from);
    let cause = breach.or_else(|| denial.lacking().map(Into::into));
    Rejection { reason: denial.reason(), cause }
}

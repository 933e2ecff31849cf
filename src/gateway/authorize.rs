//! Authorize: may this caller do this? The target is checked first, so that what policy reads is what goes out.

use http::header::CONTENT_TYPE;
use http::{HeaderMap, Method};
use http_body::Body;

use super::admit::Admitted;
use super::identify::Received;
use super::owed::{Owed, check_kind};
use super::stage::Stage;
use crate::line::Malformed;
use crate::policy::{Denial, Grant, Permission};
use crate::rejection::{Reason, Rejection};
use crate::rules::Call;
use crate::subject::Subject;
use crate::target::{BadTarget, Target};

/// A request that may be sent.
pub struct Permitted {
    /// The request.
    pub received: Received,
    /// What of its target policy read, and goes out.
    pub target: Target,
    grant: Grant,
    owed: Option<Box<Owed>>,
}

impl Permitted {
    /// The permission.
    pub const fn grant(&self) -> Grant {
        self.grant
    }

    /// What it owes to the caller's rules when it leaves.
    pub fn owed(&mut self) -> Option<Box<Owed>> {
        self.owed.take()
    }
}

/// See the module.
#[derive(Debug, Clone, Copy)]
pub struct Authorize;

impl Stage<Admitted> for Authorize {
    type Out = Permitted;

    fn run(&self, admitted: Admitted) -> Result<Permitted, Rejection> {
        let caller = admitted.caller();
        let Received { exchange, snapshot, head, .. } = &admitted.received;
        let generation = &snapshot.generation;
        let verb = exchange.verb.ok_or_else(|| without_verb(&head.method))?;
        // Of an absolute-form target (RFC 9112, section 3.2.2) only the path and query go on; the upstream is a constant.
        let target = Target::check(&head.uri, generation.limits.target_bytes).map_err(|bad| match bad {
            BadTarget::Ambiguous(broken) => Malformed::Target(broken),
            BadTarget::TooLong => Malformed::TargetTooLong,
        })?;
        let (path, query, names) = (target.path(), target.query(), target.names());
        if !admitted.received.body.is_end_stream() && is_form(&head.headers) {
            return Err(Reason::FormBody.into());
        }
        let decided = generation.policy.operation(verb, path).and_then(|operation| {
            exchange.set_operation(operation.id);
            exchange.set_terms(operation);
            let subject = Subject::of(operation, path, query, names);
            let decided = generation.policy.decide(caller, &Call { operation, path, query, names, subject: &subject });
            exchange.set_subject(subject);
            decided
        });
        match decided {
            Ok(permission) => {
                let Permission { grant, shadowed, .. } = permission;
                exchange.set_token(grant.token());
                if let Some(denial) = shadowed {
                    exchange.would_refuse(denial.reason(), denial.breach());
                }
                let owed = owed(&admitted, &permission)?;
                Ok(Permitted { received: admitted.received, target, grant, owed })
            }
            Err(denial) => {
                if matches!(denial, Denial::UnknownOperation | Denial::MethodDenied) {
                    exchange.set_unknown_path(path);
                }
                Err(rejection(denial))
            }
        }
    }
}

/// Of a method that no operation has.
#[cold]
fn without_verb(method: &Method) -> Rejection {
    if *method == Method::CONNECT { Malformed::Connect.into() } else { Reason::MethodNotAllowed.into() }
}

/// What is left to do when the request leaves; what can be said of its body by its head is said here.
fn owed(admitted: &Admitted, permission: &Permission) -> Result<Option<Box<Owed>>, Rejection> {
    let Received { exchange, snapshot, head, body } = &admitted.received;
    let has_body = permission.duties.body && !body.is_end_stream();
    if !has_body && !permission.duties.list {
        return Ok(None);
    }
    let rules = snapshot.generation.policy.callers.get(admitted.caller()).map(|caller| &caller.rules);
    let Some((rules, counters)) = rules.and_then(|rules| Some((rules, rules.counters.clone()?))) else {
        return Ok(None);
    };
    let (operation, enforce) = (permission.grant.operation(), rules.enforce);
    let mut owed = Owed { operation, counters, body: has_body, kind: None, list: permission.duties.list, enforce };
    if has_body && let Err(breach) = check_kind(&head.headers, body) {
        if body.size_hint().lower() > 0 {
            owed.broken(breach, exchange)?;
            owed.body = false;
        } else {
            // In chunks, or in frames of HTTP/2, there may be nothing.
            owed.kind = Some(breach);
        }
    }
    Ok(Some(Box::new(owed)))
}

/// Whether a body is read by some servers as more parameters of the target, which policy would not have seen. The API
/// takes JSON and files.
fn is_form(fields: &HeaderMap) -> bool {
    fields.get_all(CONTENT_TYPE).iter().any(|value| {
        let kind = value.as_bytes().split(|byte| matches!(byte, b';' | b',')).next().unwrap_or_default();
        kind.trim_ascii().eq_ignore_ascii_case(b"application/x-www-form-urlencoded")
    })
}

fn rejection(denial: Denial) -> Rejection {
    let cause = denial.breach().map(Into::into);
    Rejection { reason: denial.reason(), operation: denial.operation(), cause }
}

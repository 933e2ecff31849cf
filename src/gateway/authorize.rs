//! Authorize: may this caller do this? The target is checked first, so that what policy reads is what goes out.

use http::HeaderMap;
use http::header::CONTENT_TYPE;
use http_body::Body;

use super::admit::Admitted;
use super::identify::Received;
use super::stage::Stage;
use crate::policy::{Denial, Grant};
use crate::rejection::{Reason, Rejection};
use crate::subject::Subject;
use crate::target::{self, BadTarget};

/// A request that may be sent.
pub struct Permitted {
    /// The request.
    pub received: Received,
    grant: Grant,
}

impl Permitted {
    /// The permission.
    pub const fn grant(&self) -> Grant {
        self.grant
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
        let verb = exchange.verb.ok_or(Reason::MethodNotAllowed)?;
        // Of an absolute-form target (RFC 9112, section 3.2.2) only the path and query go on; the upstream is a constant.
        let (path, query) = (head.uri.path(), head.uri.query());
        let names = target::check(path, query, generation.limits.target_bytes).map_err(|bad| match bad {
            BadTarget::Ambiguous(broken) => Rejection::because(Reason::BadTarget, broken),
            BadTarget::TooLong => Reason::TargetTooLong.into(),
        })?;
        if !admitted.received.body.is_end_stream() && is_form(&head.headers) {
            return Err(Reason::FormBody.into());
        }
        let granted = generation.policy.operation(verb, path).and_then(|operation| {
            exchange.set_operation(operation.id);
            exchange.set_needs(operation.scopes);
            exchange.set_subject(Subject::of(operation, path, query, names));
            generation.policy.authorize(caller, operation)
        });
        match granted {
            Ok(grant) => {
                exchange.set_token(grant.token());
                Ok(Permitted { received: admitted.received, grant })
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

/// Whether a body is read by some servers as more parameters of the target, which policy would not have seen. The API
/// takes JSON and files.
fn is_form(fields: &HeaderMap) -> bool {
    fields.get_all(CONTENT_TYPE).iter().any(|value| {
        let kind = value.as_bytes().split(|byte| matches!(byte, b';' | b',')).next().unwrap_or_default();
        kind.trim_ascii().eq_ignore_ascii_case(b"application/x-www-form-urlencoded")
    })
}

fn rejection(denial: Denial) -> Rejection {
    let (reason, operation) = match denial {
        Denial::UnknownOperation => (Reason::UnknownOperation, None),
        Denial::MethodDenied => (Reason::MethodDenied, None),
        Denial::ScopeDenied(operation) => (Reason::ScopeDenied, Some(operation)),
        Denial::TokenScopeMissing(operation) => (Reason::TokenScopeMissing, Some(operation)),
    };
    Rejection { reason, operation, cause: None }
}

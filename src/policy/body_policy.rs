//! The remaining duties of a request when it is sent: rules on its body and response, and the correction of its type.

use std::sync::Arc;

use metrica::operation::Operation;

use super::body_head::BodyHead;
use super::decide::{AdmittedRequest, Identified, KnownState, Shadowed};
use crate::policy::Permission;
use crate::policy::rejection::Rejection;
use crate::policy::rules::{Breach, Look, Parts, Reading};

/// The duties that remain when a request is sent. Most requests have none.
#[derive(Debug, Clone)]
pub struct BodyPolicy {
    /// The inspection of the body.
    pub reading: Reading,
    /// Whether the body must be read for the caller's rules.
    pub body: bool,
    /// The treatment of the body's type, if the body may be JSON that is not declared as JSON.
    pub retype: Option<Retype>,
    /// Whether the body is compressed with gzip.
    pub is_packed: bool,
    /// The breach that the header shows, if the body turns out not to be empty.
    pub kind: Option<Breach>,
    /// The checker of part names, which runs while the body is streamed.
    pub parts: Option<Parts>,
    /// The counters to which the response is filtered, in ascending order.
    pub list: Option<Arc<[u64]>>,
    /// Whether a breach refuses the request.
    pub enforce: bool,
}

/// The treatment of a body whose declared type is not JSON. A body that as a whole is a JSON object or array is sent with a
/// JSON type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retype {
    /// Declared as a form: any other content is refused.
    Form,
    /// Without a type, or declared as text: any other content is sent unchanged.
    Untyped,
}

impl AdmittedRequest {
    /// Returns the remaining duties. Breaches that the header of the body shows are reported here.
    pub(super) fn body_policy(
        &self,
        caller: Identified,
        operation: &Operation,
        permission: &Permission,
        known: &KnownState<'_>,
        shadowed: &mut Option<Shadowed>,
    ) -> Result<Option<Box<BodyPolicy>>, Rejection> {
        let duties = permission.duties;
        if self.body.is_none() && !duties.list {
            return Ok(None);
        }
        let Some(caller) = known.policy.callers.get(caller.position()) else { return Ok(None) };
        let rules = &caller.rules;
        let body = self.body.map(|body| if caller.strict { body.as_declared() } else { body });
        let look = body.map_or(Look::default(), |body| look_at(body, duties.body));
        // A body that is read for the rules anyway can be checked for JSON without further delay.
        let is_read = body.is_some_and(|body| look.is_due() && body.is_untyped());
        let retype = body.and_then(BodyHead::retype).or(is_read.then_some(Retype::Untyped));
        let parts = body.filter(|body| body.is_in_parts()).and_then(|_| rules.parts(operation));
        if !look.is_due() && retype.is_none() && parts.is_none() && !duties.list {
            return Ok(None);
        }
        let enforce = rules.enforce;
        let mut body_policy = BodyPolicy {
            reading: rules.reading(look),
            body: look.is_due(),
            retype,
            is_packed: body.is_some_and(BodyHead::is_packed),
            kind: None,
            parts,
            list: rules.counters.clone().filter(|_| duties.list),
            enforce,
        };
        if let Some(body) = body
            && let Err(breach) = body_policy.check_kind(body)
        {
            if body.shortest == 0 && body_policy.parts.is_none() {
                // A body in chunks or HTTP/2 frames may be empty.
                body_policy.kind = Some(breach);
            } else if enforce {
                return Err(Rejection::because(breach.reason(), breach));
            } else {
                shadowed.get_or_insert(Shadowed { reason: breach.reason(), breach: Some(breach) });
                (body_policy.body, body_policy.parts) = (false, None);
            }
        }
        Ok(Some(Box::new(body_policy)))
    }
}

impl BodyPolicy {
    /// Checks whether the header of `body` permits the required inspection.
    fn check_kind(&self, body: BodyHead) -> Result<(), Breach> {
        if self.parts.is_some() && body.is_coded() {
            return Err(Breach::BodyKind);
        }
        if self.body { body.check_kind() } else { Ok(()) }
    }
}

/// The things to look for in a body. A file of data belongs to the counter of its path, so counters are not.
fn look_at(body: BodyHead, due: Look) -> Look {
    if due.is_data && body.is_file() { Look { counters: false, ..due } } else { due }
}

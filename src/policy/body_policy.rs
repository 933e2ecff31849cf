//! What a request owes when it leaves: what is left of its caller's rules, and the type of its body where that lies.

use std::sync::Arc;

use metrica::operation::Operation;

use super::body_head::BodyHead;
use super::decide::{Asked, Identified, Known, Shadowed};
use crate::policy::Permission;
use crate::policy::rejection::Rejection;
use crate::policy::rules::{Breach, Look, Parts, Reading};

/// What is left to do when the request leaves. Most requests owe nothing.
#[derive(Debug, Clone)]
pub struct Owed {
    /// What the body is read for.
    pub reading: Reading,
    /// The body has to be read for the rules of the caller.
    pub body: bool,
    /// What becomes of the type of the body, where the head does not say JSON and the body may be that.
    pub retype: Option<Retype>,
    /// The body is packed with gzip.
    pub is_packed: bool,
    /// What its head already shows to be wrong with a body, if there is one.
    pub kind: Option<Breach>,
    /// The names of its parts are looked through as it goes by.
    pub parts: Option<Parts>,
    /// Of the answer, only these counters may go on; they are in ascending order.
    pub list: Option<Arc<[u64]>>,
    /// Whether a breach refuses.
    pub enforce: bool,
}

/// What becomes of a body whose type is not that of JSON. One that as a whole is an object or an array in JSON is said to be
/// JSON when it leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retype {
    /// Said to be a form: anything else is refused.
    Form,
    /// Said to be nothing, or text: anything else goes on as it is.
    Untyped,
}

impl Asked {
    /// What is left to do when the request leaves; what can be said of its body by its head is said here.
    pub(super) fn owed(
        &self,
        caller: Identified,
        operation: &Operation,
        permission: &Permission,
        known: &Known<'_>,
        shadowed: &mut Option<Shadowed>,
    ) -> Result<Option<Box<Owed>>, Rejection> {
        let duties = permission.duties;
        if self.body.is_none() && !duties.list {
            return Ok(None);
        }
        let Some(caller) = known.policy.callers.get(caller.position()) else { return Ok(None) };
        let rules = &caller.rules;
        let body = self.body.map(|body| if caller.strict { body.as_it_is_said() } else { body });
        let look = body.map_or(Look::default(), |body| look_at(body, duties.body));
        // What is read in any case is not held up by being looked at.
        let is_read = body.is_some_and(|body| look.is_due() && body.is_untyped());
        let retype = body.and_then(BodyHead::retype).or(is_read.then_some(Retype::Untyped));
        let parts = body.filter(|body| body.is_in_parts()).and_then(|_| rules.parts(operation));
        if !look.is_due() && retype.is_none() && parts.is_none() && !duties.list {
            return Ok(None);
        }
        let enforce = rules.enforce;
        let mut owed = Owed {
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
            && let Err(breach) = owed.check_kind(body)
        {
            if body.shortest == 0 && owed.parts.is_none() {
                // In chunks, or in frames of HTTP/2, there may be nothing.
                owed.kind = Some(breach);
            } else if enforce {
                return Err(Rejection::because(breach.reason(), breach));
            } else {
                shadowed.get_or_insert(Shadowed { reason: breach.reason(), breach: Some(breach) });
                (owed.body, owed.parts) = (false, None);
            }
        }
        Ok(Some(Box::new(owed)))
    }
}

impl Owed {
    /// Whether its head lets `body` be looked through as is owed.
    fn check_kind(&self, body: BodyHead) -> Result<(), Breach> {
        if self.parts.is_some() && body.is_coded() {
            return Err(Breach::BodyKind);
        }
        if self.body { body.check_kind() } else { Ok(()) }
    }
}

/// What a body is read for: a file of data belongs to the counter of its path, and is not.
fn look_at(body: BodyHead, due: Look) -> Look {
    if due.is_data && body.is_file() { Look { counters: false, ..due } } else { due }
}

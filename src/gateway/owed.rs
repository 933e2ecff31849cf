//! Owed: what is left of a caller's rules to hold a request to when it is about to leave (rules 5 and 7 of
//! [`crate::rules`]).
//!
//! 1. A body that rules are about is read whole, up to [`BODY_BYTES`], before a connection is taken; what is refused sends
//!    nothing. A caller that waits to be asked for it (`Expect: 100-continue`) is asked.
//! 2. What was read goes on as it came: the same bytes, with a length or in chunks as before, and the same trailers.
//! 3. The answer of a list of counters has to be filtered ([`super::filtered`]).
//! 4. Where rules are not enforced nothing is refused: what was read goes on, and the rest streams behind it.
//! 5. Reading takes [`TIME`] at most (`body_too_slow`, 408), and no more memory than the budgets of the worker and of the
//!    connection have (`overloaded`, 503).

use std::future::poll_fn;
use std::rc::Rc;
use std::time::Duration;

use tokio::time::timeout;

use super::body::{BodyError, RequestBody};
use super::connection::{Bound, Stalled};
use super::exchange::Exchange;
use super::forward::not_read;
use crate::decide::{Owed, Shadowed};
use crate::metrics::Stall;
use crate::rejection::{Reason, Rejection};
use crate::rules::{BODY_BYTES, Breach};

/// So long a body may take to be read whole (rule 5).
const TIME: Duration = Duration::from_secs(30);

/// Holds a request to what it owes before it leaves.
///
/// # Errors
/// The rule that its body breaks, or what kept it from being read.
pub async fn settle(owed: &Owed, body: &mut RequestBody, exchange: &Rc<Exchange>) -> Result<(), Rejection> {
    if !owed.body {
        return Ok(());
    }
    let read = timeout(TIME, poll_fn(|context| body.poll_ahead(context, BODY_BYTES))).await;
    let whole = match read {
        Ok(Ok(whole)) => whole,
        Ok(Err(BodyError::NoMemory)) | Err(_) if !owed.enforce => return Ok(()),
        Ok(Err(error @ BodyError::NoMemory)) => return Err(Rejection::because(Reason::Overloaded, error)),
        Ok(Err(error)) => return Err(not_read(exchange, error)),
        Err(_) => {
            exchange.connection.note_stall(Stalled { waited_for: Stall::Request, bound: Bound::ReadAhead(TIME) });
            return Err(Reason::BodyTooSlow.into());
        }
    };
    let kept = match owed.kind.filter(|_| !body.ahead().is_empty()) {
        Some(breach) => Err(breach),
        None if whole => owed.reading.check(body.ahead()),
        None => Err(Breach::BodyLength),
    };
    match kept {
        Err(breach) if owed.enforce => Err(Rejection::because(breach.reason(), breach)),
        Err(breach) => {
            exchange.would_refuse(Shadowed { reason: breach.reason(), breach: Some(breach) });
            Ok(())
        }
        Ok(()) => Ok(()),
    }
}

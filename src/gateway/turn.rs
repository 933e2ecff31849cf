//! The turn of a request: it waits for its share of Metrica's quotas ([`crate::quota`]).
//!
//! 1. A request waits after every check, and before it takes a connection. Without a `quota` in the configuration it does not
//!    wait.
//! 2. The wait is limited by `quota.wait` of the caller and by the rest of `timeouts.request`.
//! 3. Bodies that were read ahead keep their memory while their request waits. Waiting requests hold at most half of the
//!    worker's budget; one that would exceed it is refused (`quota_full`, 429).

use std::time::Duration;

use tokio::time::Instant;

use super::exchange::Exchange;
use super::inject::Permit;
use crate::policy::rejection::{QuotaRefusal, Reason, Rejection};
use crate::quota::{self, Class, Counters, Refusal, Request};
use crate::worker::{self, Asked, Turn, Waiting};

/// The bytes that waiting requests of a worker may hold (rule 3).
const MOST_WHILE_WAITING: usize = worker::AHEAD_OF_A_WORKER / 2;

/// Asks for the turn of a request (rule 1), which waits only if no slot is free (rule 2).
///
/// # Errors
/// The refusal of the quota.
pub fn ask(permit: &Permit) -> Result<Asked, Rejection> {
    let generation = permit.generation();
    let Some(numbers) = &generation.quota else { return Ok(Asked::Granted(Turn::unlimited())) };
    let exchange = &permit.exchange;
    let (now, age) = permit.now();
    let rest = generation.timeouts.request.saturating_sub(age);
    let Some(request) =
        permit.token_position().and_then(|token| exchange.quota_request(&Asking { numbers, token, rest }))
    else {
        return Err(Rejection::internal("a request that leaves has an operation, a caller and a token"));
    };
    let asked = generation.turns.ask(request, now.into_std()).map_err(|refusal| refused(&refusal, exchange))?;
    if matches!(asked, Asked::Granted(_)) {
        exchange.waited(Duration::ZERO);
    }
    Ok(asked)
}

/// Waits until the turn of a request comes that holds so much memory for its body.
///
/// # Errors
/// The refusal of the quota.
pub async fn wait(waiting: Waiting, exchange: &Exchange, held: usize) -> Result<Turn, Rejection> {
    let begun = Instant::now();
    let _held = exchange.hold_while_waiting(held).ok_or_else(|| {
        let refusal = Refusal {
            limit: quota::LimitName::Parallel,
            reason: quota::Reason::Full,
            after: quota::After(quota::SECOND),
        };
        refused(&refusal, exchange)
    })?;
    let result = waiting.await;
    exchange.waited(begun.elapsed());
    result.map_err(|refusal| refused(&refusal, exchange))
}

/// Counts a refusal, and returns the rejection that the caller gets.
fn refused(refusal: &Refusal, exchange: &Exchange) -> Rejection {
    exchange.refused_by_quota(refusal.limit.as_str());
    let reason = match refusal.reason {
        quota::Reason::Wait => Reason::QuotaWait,
        quota::Reason::Full => Reason::QuotaFull,
        quota::Reason::Budget => Reason::QuotaBudget,
        quota::Reason::Draining => Reason::QuotaDraining,
        quota::Reason::StoreUnavailable => Reason::QuotaStoreUnavailable,
    };
    let (limit, error_type) = (refusal.limit.as_str(), refusal.error_type());
    let seconds = refusal.after.seconds(exchange.jitter());
    Rejection { quota: Some(QuotaRefusal { limit, error_type, seconds }), ..Rejection::from(reason) }
}

/// A request to the broker.
pub struct Asking<'a> {
    /// The numbers of names.
    pub numbers: &'a worker::QuotaNumbers,
    /// The position of the token in the policy.
    pub token: usize,
    /// The rest of the request's own time.
    pub rest: Duration,
}

/// The memory of a waiting request, given back on drop (rule 3).
pub struct HeldWhileWaiting<'a> {
    exchange: &'a Exchange,
    bytes: usize,
}

impl Drop for HeldWhileWaiting<'_> {
    fn drop(&mut self) {
        self.exchange.worker().waiting_bytes(|held| held.saturating_sub(self.bytes));
    }
}

impl Exchange {
    /// Counts the memory of a request that waits; `None` if waiting requests hold too much (rule 3).
    fn hold_while_waiting(&self, bytes: usize) -> Option<HeldWhileWaiting<'_>> {
        let held = self.worker().waiting_bytes(|held| held + bytes);
        let hold = HeldWhileWaiting { exchange: self, bytes };
        (bytes == 0 || held <= MOST_WHILE_WAITING).then_some(hold)
    }

    /// Records the time that the request waited for its turn; a request that is sent twice waits twice.
    fn waited(&self, time: Duration) {
        self.quota_wait.set(Some(self.quota_wait.get().map_or(time, |before| before + time)));
    }

    fn refused_by_quota(&self, limit: &'static str) {
        self.worker().count(|shard| shard.refused_by_quota(self.caller(), limit));
    }

    /// A number that spreads the times at which refused requests come again.
    pub fn jitter(&self) -> u16 {
        let bytes = self.request_id.as_str().bytes();
        bytes.fold(0x811c, |sum: u16, byte| (sum ^ u16::from(byte)).wrapping_mul(0x0193))
    }

    /// Returns the request to the broker; `None` if the operation or the caller is unknown, which the decision excludes.
    pub fn quota_request(&self, asking: &Asking<'_>) -> Option<Request> {
        let Asking { numbers, token, rest } = *asking;
        let request = self.request.borrow();
        let read = request.as_read()?;
        let (caller, class) = numbers.callers.get(self.caller()?)?;
        Some(Request {
            owner: *numbers.owners.get(token)?,
            caller,
            egress: numbers.egress,
            groups: read.groups,
            class: Class::of(class, read.is_bulk),
            counters: Counters::of(read.subject.counters.as_slice()),
            rest: worker::micros(rest),
        })
    }
}

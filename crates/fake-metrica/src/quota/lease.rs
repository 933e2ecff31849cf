//! The ledger with a clock, shared by all connections, and the slot of a running request.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::charge::Charge;
use super::ledger::{Ledger, Outsider, Ticket};
use super::usage::QuotaUse;
use super::{Quota, Refusal};

/// The end of the year 9999, after which no time can be written.
const END: Duration = Duration::from_secs(253_402_300_799);

/// The quotas of a stand-in.
pub struct Quotas(Mutex<(Ledger, Clock)>);

/// A clock that only moves forward: as time passes, and on request (rule 10).
struct Clock {
    started: Instant,
    at_start: Duration,
    forward: Duration,
}

impl Clock {
    fn now(&self) -> Duration {
        self.at_start.saturating_add(self.started.elapsed()).saturating_add(self.forward).min(END)
    }
}

impl Quotas {
    pub fn new(quota: Quota) -> Arc<Self> {
        let at_start = SystemTime::now().duration_since(UNIX_EPOCH).map_or(Duration::ZERO, |since| since);
        let clock = Clock { started: Instant::now(), at_start, forward: Duration::ZERO };
        Arc::new(Self(Mutex::new((Ledger::new(quota), clock))))
    }

    fn lock(&self) -> MutexGuard<'_, (Ledger, Clock)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Charges a request. The lease of an accepted one holds its slot.
    pub fn take(self: &Arc<Self>, charge: &Charge) -> Result<Option<Lease>, Refusal> {
        let (ledger, clock) = &mut *self.lock();
        let ticket = ledger.take(charge, clock.now()).map_err(|limit| ledger.quota.refusal(limit))?;
        Ok(ticket.map(|ticket| Lease { quotas: Arc::clone(self), ticket: Some(ticket), is_complete: false }))
    }

    pub fn quota(&self) -> Quota {
        self.lock().0.quota.clone()
    }

    /// Changes the limits; what is spent stays spent.
    pub fn set(&self, quota: Quota) {
        self.lock().0.quota = quota;
    }

    /// Forgets everything but the running requests, and sets the clock to the current time.
    pub fn reset(&self, quota: Quota) {
        let (ledger, clock) = &mut *self.lock();
        ledger.reset(quota);
        clock.forward = Duration::ZERO;
    }

    /// Resets the highest counts and the refusals.
    pub fn clear(&self) {
        self.lock().0.clear();
    }

    pub fn outsider(&self, login: &str, outsider: &Outsider) {
        let (ledger, clock) = &mut *self.lock();
        ledger.outsider(&metrica::login::canonical(login), outsider, clock.now());
    }

    /// Moves the clock forward (rule 10).
    pub fn forward(&self, duration: Duration) {
        let clock = &mut self.lock().1;
        clock.forward = clock.forward.saturating_add(duration);
    }

    /// The time on the clock, since 1970-01-01.
    pub fn now(&self) -> Duration {
        self.lock().1.now()
    }

    pub fn in_flight(&self) -> u64 {
        self.lock().0.in_flight()
    }

    pub fn usage(&self) -> QuotaUse {
        let (ledger, clock) = &mut *self.lock();
        let now = clock.now();
        QuotaUse { clock: written(now), ..ledger.usage(now) }
    }
}

/// A time such as `2026-01-31T23:59:58Z`.
pub fn written(time: Duration) -> String {
    humantime::format_rfc3339_seconds(UNIX_EPOCH + time.min(END)).to_string()
}

/// The slot of a running request; dropping it frees the slot.
pub struct Lease {
    quotas: Arc<Quotas>,
    ticket: Option<Ticket>,
    is_complete: bool,
}

impl Lease {
    /// The stand-in has ended the request itself: its client has not left.
    pub fn completed(mut self) -> Self {
        self.is_complete = true;
        self
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let (ledger, clock) = &mut *self.quotas.lock();
        if let Some(ticket) = self.ticket.take() {
            ledger.give_back(ticket, self.is_complete, clock.now());
        }
    }
}

/// The leases of a connection whose responses hyper has, but perhaps not yet the socket (rule 2).
#[derive(Clone, Default)]
pub struct Leaving(Arc<Mutex<Vec<Lease>>>);

impl Leaving {
    /// Keeps a lease until everything is flushed.
    pub fn push(&self, lease: Lease) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(lease.completed());
    }

    fn flushed(&self) {
        let leases = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        drop(leases);
    }
}

/// A stream that frees the leases in `leaving` when everything written to it was flushed.
pub struct Flushing<S> {
    pub stream: S,
    pub leaving: Leaving,
}

impl<S: AsyncRead + Unpin> AsyncRead for Flushing<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Flushing<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(context);
        if let Poll::Ready(Ok(())) = flushed {
            self.leaving.flushed();
        }
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

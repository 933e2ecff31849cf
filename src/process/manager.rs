//! The service manager that started the process: systemd, or another one with its protocol (sd_notify(3)).
//!
//! 1. Without `NOTIFY_SOCKET` nothing is sent. A message that cannot be sent is logged once and has no other effect.
//! 2. The manager is told READY when the workers accept, RELOADING and READY around a reload by SIGHUP, whatever its result
//!    is, and STOPPING when the shutdown begins, together with the time that the shutdown may take.
//! 3. The status line is the result of `/readyz` with the lines of its problems. It is sent when it changes.
//! 4. The watchdog is notified by the main loop, twice per interval, after every worker has replied. A worker or a main loop
//!    that stalls is therefore noticed, and the manager restarts the process.
//! 5. Sockets that the gate opened itself are put into the descriptor store of systemd, from which the next process gets them.
//!    Callers that connect between the two processes wait for the next one and are not refused. Other managers with the
//!    protocol, such as podman, have no store; only systemd sets `INVOCATION_ID`.

use std::cell::{Cell, RefCell};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use sd_notify::NotifyState;
use strict_http::number;
use tokio::time::Instant;

use super::readiness::{Readiness, ReadinessSubject};
use super::workers::Workers;
use crate::config::Shutdown;
use crate::metrics::process::ProcessMeters;
use crate::policy::names::ListenerName;
use crate::server::listen::{BoundSocket, Keeper};
use crate::server::passed::stored_name;

/// The maximum time in which the workers reply before the watchdog is notified.
const REPLY: Duration = Duration::from_secs(5);

/// The time that the end of the process takes beyond the configured one: joining the threads and keeping counts.
const MARGIN: Duration = Duration::from_secs(10);

/// The maximum number of characters of the status line.
const STATUS: usize = 600;

/// The connection to the service manager.
#[derive(Debug, Default)]
pub struct Manager {
    is_there: bool,
    /// Whether it keeps descriptors (rule 5).
    has_store: bool,
    /// The interval in which the manager expects to be notified.
    watchdog: Option<Duration>,
    next: Cell<Option<Instant>>,
    /// The status line that was sent last.
    status: RefCell<String>,
    has_failed: Cell<bool>,
}

impl Manager {
    /// Returns the manager that the environment of the process names.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "the protocol of service managers, not a setting of the gate")]
    pub fn of_environment() -> Self {
        let is_set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let is_there = is_set("NOTIFY_SOCKET");
        let has_store = is_there && is_set("INVOCATION_ID");
        let watchdog = sd_notify::watchdog_enabled().filter(|interval| is_there && !interval.is_zero());
        Self { is_there, has_store, watchdog, ..Self::default() }
    }

    #[cfg(test)]
    pub(super) fn with_watchdog(interval: Duration) -> Self {
        Self { watchdog: Some(interval), ..Self::default() }
    }

    /// Returns who keeps the sockets that this process opens.
    #[must_use]
    pub const fn keeper(&self) -> Keeper {
        if self.has_store { Keeper::Store } else { Keeper::Process }
    }

    /// Puts the socket of a listener that this process opened into the descriptor store, in place of an earlier one, if the
    /// store is its `keeper` (rule 5). All of `sockets` are one.
    pub fn keep(&self, listener: ListenerName, keeper: Keeper, sockets: &[BoundSocket]) {
        let Some(socket) = sockets.first().filter(|_| keeper == Keeper::Store) else { return };
        let name = stored_name(listener.as_str());
        self.forget(&name);
        self.send_with(&[NotifyState::FdStore, NotifyState::FdName(&name)], &[socket.as_fd()]);
    }

    /// Removes the sockets with this name from the descriptor store.
    pub fn forget(&self, name: &str) {
        self.send(&[NotifyState::FdStoreRemove, NotifyState::FdName(name)]);
    }

    /// Reports that the workers accept, or that a reload has ended (rule 2).
    pub fn ready(&self) {
        self.send(&[NotifyState::Ready]);
    }

    /// Reports that a reload begins.
    pub fn reloading(&self) {
        if !self.is_there {
            return;
        }
        match NotifyState::monotonic_usec_now() {
            Ok(now) => self.send(&[NotifyState::Reloading, now]),
            Err(error) => self.failed(&error),
        }
    }

    /// Reports that the shutdown begins, and how long it may take.
    pub fn stopping(&self, shutdown: Shutdown) {
        let whole = shutdown.delay.saturating_add(shutdown.timeout).saturating_add(MARGIN);
        // The message has 32 bits: 71 minutes. A longer shutdown needs TimeoutStopSec.
        let whole = number::saturated(whole.as_micros());
        let status = "stopping: requests in progress are completed";
        self.send(&[NotifyState::Stopping, NotifyState::ExtendTimeoutUsec(whole), NotifyState::Status(status)]);
    }

    /// Sends the status line if it has changed (rule 3).
    pub fn show(&self, readiness: &Readiness, meters: &ProcessMeters) {
        if !self.is_there {
            return;
        }
        let Some((ready, lines)) = readiness.check(meters, &ReadinessSubject::Anyone) else { return };
        let mut status = if ready { "ready" } else { "not ready" }.to_owned();
        for problem in lines.lines().filter_map(|line| line.strip_prefix("[!] ").or_else(|| line.strip_prefix("[-] ")))
        {
            status.push_str("; ");
            status.push_str(problem);
        }
        let status: String = status.chars().take(STATUS).collect();
        if *self.status.borrow() != status {
            self.send(&[NotifyState::Status(&status)]);
            *self.status.borrow_mut() = status;
        }
    }

    /// Whether the manager expects to be notified at an interval.
    #[must_use]
    pub const fn has_watchdog(&self) -> bool {
        self.watchdog.is_some()
    }

    /// Waits until the watchdog is due; the first time, it is due at once.
    pub async fn watchdog_is_due(&self) {
        if let Some(next) = self.next.get() {
            tokio::time::sleep_until(next).await;
        }
    }

    /// Notifies the watchdog if every worker replies in time (rule 4). Returns whether they did.
    pub async fn notify_watchdog(&self, workers: &Workers) -> bool {
        let Some(interval) = self.watchdog else { return false };
        self.next.set(Some(Instant::now() + interval / 2));
        let is_alive = workers.is_alive((interval / 4).min(REPLY)).await;
        if is_alive {
            self.send(&[NotifyState::Watchdog]);
        } else {
            tracing::error!("a worker does not reply; the watchdog of the service manager is not notified");
        }
        is_alive
    }

    fn send(&self, states: &[NotifyState<'_>]) {
        self.send_with(states, &[]);
    }

    fn send_with(&self, states: &[NotifyState<'_>], descriptors: &[BorrowedFd<'_>]) {
        if !self.is_there {
            return;
        }
        let sent = match descriptors {
            [] => sd_notify::notify(states),
            _ => sd_notify::notify_with_fds(states, descriptors),
        };
        if let Err(error) = sent {
            self.failed(&error);
        }
    }

    fn failed(&self, error: &std::io::Error) {
        if !self.has_failed.replace(true) {
            tracing::warn!(%error, "the service manager (NOTIFY_SOCKET) cannot be notified");
        }
    }
}

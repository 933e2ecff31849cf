//! The signals of the process, and its graceful shutdown (rules 2 and 3 of `cli/app.rs`).

use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::Instant;

use crate::config::Shutdown;
use crate::process::manager::Manager;
use crate::process::workers::Workers;

/// The exit code after requests were cut (`EX_UNAVAILABLE` of sysexits(3)).
pub(super) const CUT: u8 = 69;

/// The signals that the process handles.
pub(super) struct Signals {
    pub(super) end: EndSignals,
    pub(super) hangup: Signal,
    /// Signals that are held because they would end the process otherwise.
    _ignored: [Signal; 2],
}

/// The signals that end the process.
pub(super) struct EndSignals {
    terminate: Signal,
    interrupt: Signal,
    quit: Signal,
}

impl Signals {
    pub(super) fn new() -> std::io::Result<Self> {
        let end = EndSignals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            quit: signal(SignalKind::quit())?,
        };
        let ignored = [signal(SignalKind::user_defined1())?, signal(SignalKind::user_defined2())?];
        Ok(Self { end, hangup: signal(SignalKind::hangup())?, _ignored: ignored })
    }
}

impl EndSignals {
    pub(super) async fn recv(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
            _ = self.quit.recv() => {}
        }
    }
}

/// Bounds of the interval at which requests that are likely to be cut are logged; it is one eighth of the whole time.
const NAMES_AT_LEAST: Duration = Duration::from_millis(20);
const NAMES_AT_MOST: Duration = Duration::from_secs(1);

/// The maximum duration of a shutdown, whatever is configured.
const YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// Shuts down gracefully (rule 2). Returns the exit code.
pub(super) async fn end(signals: &mut Signals, shutdown: Shutdown, workers: &Workers, manager: &Manager) -> u8 {
    manager.stopping(shutdown);
    tracing::info!(delay = ?shutdown.delay, timeout = ?shutdown.timeout, "ending");
    let whole = shutdown.delay.saturating_add(shutdown.timeout);
    let now = Instant::now();
    workers.leave(now.checked_add(whole).unwrap_or(now + YEAR));
    let all_ended = async {
        tokio::time::sleep(shutdown.delay).await;
        workers.turns().drain();
        workers.drain();
        let deadline = Instant::now() + shutdown.timeout.min(YEAR);
        while workers.connections() > 0 && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        workers.connections()
    };
    let names = async {
        let mut next = tokio::time::interval((whole / 8).clamp(NAMES_AT_LEAST, NAMES_AT_MOST));
        loop {
            next.tick().await;
            workers.log_connections_at_risk();
        }
    };
    let watched = async {
        loop {
            manager.watchdog_is_due().await;
            manager.notify_watchdog(workers).await;
        }
    };
    let left = tokio::select! {
        left = all_ended => left,
        () = names => 0,
        () = watched, if manager.has_watchdog() => 0,
        () = signals.end.recv() => {
            tracing::warn!("second signal received; exiting immediately");
            workers.connections()
        }
    };
    if left > 0 {
        tracing::warn!(connections = left, "closed connections that were still open");
        return CUT;
    }
    0
}

//! File descriptors: their limit, its division, and shortages.
//!
//! 1. The limit is divided when a configuration is loaded. Descriptors of the process and of the admin listener are
//!    reserved; callers and upstream share the rest, up to `limits.connections` and `upstream.connections`. Callers
//!    that use up their share therefore cannot starve probes, metrics and token files.
//! 2. A shortage can still occur, for example when the limit is lowered at run time or the system has none left. It
//!    is counted by [`DescriptorNeed`].

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Standard streams, signals, runtime, log, inotify, admin listener and files being read; 16 were measured.
const OF_THE_PROCESS: usize = 24;

/// Per worker, in addition to one socket per listener; 4 were measured, and a name look-up needs as many again.
const OF_A_WORKER: usize = 8;

/// The share of the limit (1 in 16) that stays unassigned: connecting to an upstream with several addresses opens two
/// or more sockets at once.
const SPARE: usize = 16;

/// The share of the limit (1 in 8) for the admin listener, at most [`ADMIN`].
const SHARE_OF_ADMIN: usize = 8;

/// The maximum number of concurrent connections of the admin listener; fewer where descriptors are scarce.
pub const ADMIN: usize = 256;

/// The maximum number of excess connections that are sent a refusal at once, in addition to the connections that are
/// served.
pub const TURNED_AWAY: usize = 128;

/// Raises the soft limit to the hard limit. A failure is ignored: the lower limit is then used.
pub fn raise() {
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
}

/// The descriptors to divide.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Descriptors {
    most: usize,
    workers: usize,
}

/// The numbers of concurrent connections that fit the limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectionFit {
    /// Connections of callers.
    pub callers: usize,
    /// Connections to the upstream.
    pub upstream: usize,
}

impl Descriptors {
    /// Returns the limit that this process has after [`raise`], for `workers` workers.
    #[must_use]
    pub fn here(workers: usize) -> Self {
        let most = getrlimit(Resource::Nofile).maximum.and_then(|most| usize::try_from(most).ok());
        Self { most: most.unwrap_or(usize::MAX), workers }
    }

    /// Returns the total number of descriptors.
    #[must_use]
    pub const fn most(self) -> usize {
        self.most
    }

    /// Returns the number of connections reserved for the admin listener.
    #[must_use]
    pub fn admin(self) -> usize {
        (self.most / SHARE_OF_ADMIN).clamp(1, ADMIN)
    }

    /// Returns the connections that fit, if not all of `wanted` do for a gate with `listeners` (rule 1). The upstream gets a
    /// third at most, because a caller connection needs at most one upstream connection at once.
    #[must_use]
    pub fn short(self, wanted: ConnectionFit, listeners: usize) -> Option<ConnectionFit> {
        let own = OF_THE_PROCESS + self.workers * (OF_A_WORKER + listeners);
        let left = self.most.saturating_sub(own + self.admin() + self.most / SPARE);
        let ConnectionFit { callers, upstream } = wanted;
        if callers + callers.min(TURNED_AWAY) + upstream <= left {
            return None;
        }
        let upstream = upstream.min(left / 3).max(1);
        let left = left.saturating_sub(upstream);
        Some(ConnectionFit { callers: callers.min(left.saturating_sub(TURNED_AWAY).max(left / 2)).max(1), upstream })
    }

    /// Logs the lowered limits.
    pub fn log_state(self, ConnectionFit { callers, upstream }: ConnectionFit) {
        tracing::warn!(
            descriptors = self.most,
            "limits.connections" = callers,
            "upstream.connections" = upstream,
            "the hard limit of file descriptors is too low for limits.connections and upstream.connections; the gate reduces both"
        );
    }
}

/// A purpose that needs a descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DescriptorNeed {
    /// A connection of a caller.
    Caller,
    /// A connection to the upstream, or a look-up of its name.
    Upstream,
    /// A connection of the admin listener.
    Admin,
    /// A file that is read at run time.
    File,
}

/// The shortages since the start, by need (rule 2).
static SHORTAGES: [AtomicU64; DescriptorNeed::ALL.len()] = [const { AtomicU64::new(0) }; DescriptorNeed::ALL.len()];

impl DescriptorNeed {
    /// All needs.
    pub const ALL: [Self; 4] = [Self::Caller, Self::Upstream, Self::Admin, Self::File];

    /// Returns the label value.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Caller => "caller",
            Self::Upstream => "upstream",
            Self::Admin => "admin",
            Self::File => "file",
        }
    }

    fn count(self) -> Option<&'static AtomicU64> {
        SHORTAGES.iter().zip(Self::ALL).find(|(_, need)| *need == self).map(|(count, _)| count)
    }

    /// Counts `error` if it is a shortage of descriptors (`EMFILE` or `ENFILE`), and returns whether it is.
    pub fn found_none(self, error: &io::Error) -> bool {
        let is_short = is_shortage(error);
        if is_short && let Some(count) = self.count() {
            count.fetch_add(1, Ordering::Relaxed);
        }
        is_short
    }

    /// Returns the number of shortages since the start.
    #[must_use]
    pub fn shortages(self) -> u64 {
        self.count().map_or(0, |count| count.load(Ordering::Relaxed))
    }
}

/// Whether `error` reports a shortage of descriptors.
#[must_use]
pub fn is_shortage(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::MFILE | Errno::NFILE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rule_1_everything_that_is_used_fits_the_limit() {
        for most in [0, 64, 256, 512, 1024, 4096, 20_000, 1 << 20, usize::MAX] {
            for workers in [1, 2, 64] {
                for (connections, upstream) in [(1, 1), (100, 10_000), (10_000, 1024), (1_000_000, 1_000_000)] {
                    let (descriptors, wanted) =
                        (Descriptors { most, workers }, ConnectionFit { callers: connections, upstream });
                    let fit = descriptors.short(wanted, 1).unwrap_or(wanted);
                    assert!(
                        (1..=connections).contains(&fit.callers) && (1..=upstream).contains(&fit.upstream),
                        "{fit:?}"
                    );
                    let own = 16 + workers * 5 + descriptors.admin();
                    let used = own + fit.callers + fit.callers.min(TURNED_AWAY) + fit.upstream;
                    assert!(
                        used <= most || fit == ConnectionFit { callers: 1, upstream: 1 },
                        "{most} {workers} {fit:?} {used}"
                    );
                }
            }
        }
    }

    #[test]
    fn rule_1_connections_are_reduced_to_the_descriptor_limit() {
        let fit =
            |most, callers, upstream| Descriptors { most, workers: 2 }.short(ConnectionFit { callers, upstream }, 1);
        assert_eq!(fit(20_000, 10_000, 1024), None);
        assert_eq!(fit(4096, 10_000, 1024), Some(ConnectionFit { callers: 2390, upstream: 1024 }));
        assert_eq!(fit(1024, 10_000, 1024), Some(ConnectionFit { callers: 399, upstream: 263 }));
        assert_eq!(fit(1024, 300, 300), None);
        assert_eq!(fit(64, 10_000, 1024), Some(ConnectionFit { callers: 3, upstream: 3 }));
        assert_eq!(fit(32, 10_000, 1024), Some(ConnectionFit { callers: 1, upstream: 1 }));
    }

    #[test]
    fn rule_2_only_a_shortage_is_one() {
        let before = DescriptorNeed::File.shortages();
        for (errno, is_short) in [(Errno::MFILE, true), (Errno::NFILE, true), (Errno::NOENT, false)] {
            assert_eq!(DescriptorNeed::File.found_none(&errno.into()), is_short);
        }
        assert_eq!(DescriptorNeed::File.shortages(), before + 2);
    }
}

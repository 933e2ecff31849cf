//! Descriptors: how many the process may have, who gets them, and who found none.
//!
//! 1. What the kernel allows is divided when a configuration is taken: the gate's own and those of the admin listener are
//!    kept back, and callers and upstream have as much as fits of `limits.connections` and `upstream.connections`. So
//!    callers who take all that they can leave probes, metrics and the files of tokens alone.
//! 2. A shortage all the same, as when the limit is lowered while the process runs or the system has none left, is
//!    counted by what needed one.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::config::Config;

/// Standard streams, signals, runtime, log, inotify, admin listener, and files that are read: 16 were counted.
const OF_THE_PROCESS: usize = 24;

/// Of a worker, beside a socket for each listener: 4 were counted, and a look-up of a name takes as many.
const OF_A_WORKER: usize = 8;

/// One in so many is nobody's: an upstream with several addresses is tried on two or more at once.
const SPARE: usize = 16;

/// The admin listener has one in so many, and no more than [`ADMIN`].
const SHARE_OF_ADMIN: usize = 8;

/// So many connections of the admin listener are open at once, where there are descriptors for them.
pub const ADMIN: usize = 256;

/// So many connections beyond the limit are told so at once, beside those that are served.
pub const TURNED_AWAY: usize = 128;

/// Lets the process have as many as it may. Best effort: with fewer, fewer are used.
pub fn raise() {
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
}

/// What may be divided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Descriptors {
    most: usize,
    workers: usize,
}

/// What fits: how many connections at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fit {
    /// Of callers.
    pub callers: usize,
    /// To the upstream.
    pub upstream: usize,
}

impl Descriptors {
    /// Those that this process may have after [`raise`], for a gate of `workers`.
    #[must_use]
    pub fn here(workers: usize) -> Self {
        let most = getrlimit(Resource::Nofile).maximum.and_then(|most| usize::try_from(most).ok());
        Self { most: most.unwrap_or(usize::MAX), workers }
    }

    /// How many there are.
    #[must_use]
    pub const fn most(self) -> usize {
        self.most
    }

    /// How many connections the admin listener has.
    #[must_use]
    pub fn admin(self) -> usize {
        (self.most / SHARE_OF_ADMIN).clamp(1, ADMIN)
    }

    /// What `config` asks for, where not all of it fits: what does (rule 1). The upstream has a third at most, as no
    /// connection of a caller needs more than one at once.
    #[must_use]
    pub fn short(self, config: &Config) -> Option<Fit> {
        let own = OF_THE_PROCESS + self.workers * (OF_A_WORKER + config.listeners.len());
        let left = self.most.saturating_sub(own + self.admin() + self.most / SPARE);
        let (callers, upstream) = (config.limits.connections, config.upstream.connections);
        if callers + callers.min(TURNED_AWAY) + upstream <= left {
            return None;
        }
        let upstream = upstream.min(left / 3).max(1);
        let left = left.saturating_sub(upstream);
        Some(Fit { callers: callers.min(left.saturating_sub(TURNED_AWAY).max(left / 2)).max(1), upstream })
    }

    /// Makes `config` ask for what fits; what that is, when it is less.
    #[must_use]
    pub fn fit(self, config: &mut Config) -> Option<Fit> {
        let fit = self.short(config)?;
        (config.limits.connections, config.upstream.connections) = (fit.callers, fit.upstream);
        Some(fit)
    }

    /// Logs that no more fits.
    pub fn say(self, Fit { callers, upstream }: Fit) {
        tracing::warn!(
            descriptors = self.most,
            "limits.connections" = callers,
            "upstream.connections" = upstream,
            "the hard limit of descriptors is too low for limits.connections and upstream.connections; what fits is used"
        );
    }
}

/// What needs a descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// A connection of a caller.
    Caller,
    /// A connection to the upstream, or the look-up of its name.
    Upstream,
    /// A connection of the admin listener.
    Admin,
    /// A file that is looked at while the gate runs.
    File,
}

/// Rule 2, by need.
static SHORTAGES: [AtomicU64; Need::ALL.len()] = [const { AtomicU64::new(0) }; Need::ALL.len()];

impl Need {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Caller, Self::Upstream, Self::Admin, Self::File];

    /// Its label value.
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

    /// Whether `error` says that there is no descriptor for this, which is counted.
    #[must_use]
    pub fn found_none(self, error: &io::Error) -> bool {
        let is_short = is_shortage(error);
        if is_short && let Some(count) = self.count() {
            count.fetch_add(1, Ordering::Relaxed);
        }
        is_short
    }

    /// How often there was none.
    #[must_use]
    pub fn shortages(self) -> u64 {
        self.count().map_or(0, |count| count.load(Ordering::Relaxed))
    }
}

/// Whether `error` says that there is no descriptor.
#[must_use]
pub fn is_shortage(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::MFILE | Errno::NFILE))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(connections: usize, upstream: usize) -> Config {
        let text = format!(
            "
listeners: [{{name: app, address: '127.0.0.1:0'}}]
limits: {{connections: {connections}}}
upstream: {{connections: {upstream}}}
tokens: {{t: {{file: /nowhere/t, scopes: [metrika:read]}}}}
callers: [{{id: c, match: {{listener: app}}, scopes: [metrika:read], tokens: [t]}}]
"
        );
        Config::parse(&text, std::path::Path::new("gate.yaml")).unwrap()
    }

    #[test]
    fn rule_1_everything_that_is_used_fits_the_limit() {
        for most in [0, 64, 256, 512, 1024, 4096, 20_000, 1 << 20, usize::MAX] {
            for workers in [1, 2, 64] {
                for (connections, upstream) in [(1, 1), (100, 10_000), (10_000, 1024), (1_000_000, 1_000_000)] {
                    let (descriptors, config) = (Descriptors { most, workers }, config(connections, upstream));
                    let fit = descriptors.short(&config).unwrap_or(Fit { callers: connections, upstream });
                    assert!(
                        (1..=connections).contains(&fit.callers) && (1..=upstream).contains(&fit.upstream),
                        "{fit:?}"
                    );
                    let own = 16 + workers * 5 + descriptors.admin();
                    let used = own + fit.callers + fit.callers.min(TURNED_AWAY) + fit.upstream;
                    assert!(used <= most || fit == Fit { callers: 1, upstream: 1 }, "{most} {workers} {fit:?} {used}");
                }
            }
        }
    }

    #[test]
    fn rule_1_what_fits_is_used() {
        let fit = |most, connections, upstream| Descriptors { most, workers: 2 }.short(&config(connections, upstream));
        assert_eq!(fit(20_000, 10_000, 1024), None);
        assert_eq!(fit(4096, 10_000, 1024), Some(Fit { callers: 2390, upstream: 1024 }));
        assert_eq!(fit(1024, 10_000, 1024), Some(Fit { callers: 399, upstream: 263 }));
        assert_eq!(fit(1024, 300, 300), None);
        assert_eq!(fit(64, 10_000, 1024), Some(Fit { callers: 3, upstream: 3 }));
        assert_eq!(fit(32, 10_000, 1024), Some(Fit { callers: 1, upstream: 1 }));
    }

    #[test]
    fn rule_2_only_a_shortage_is_one() {
        let before = Need::File.shortages();
        for (errno, is_short) in [(Errno::MFILE, true), (Errno::NFILE, true), (Errno::NOENT, false)] {
            assert_eq!(Need::File.found_none(&errno.into()), is_short);
        }
        assert_eq!(Need::File.shortages(), before + 2);
    }
}

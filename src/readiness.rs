//! Readiness: whether callers should come here.
//!
//! 1. Ready means: the listeners are open, and every token of the configuration can be used.
//! 2. It never depends on Metrica: when Metrica is down, its answers say so better than a gate that disappeared.
//! 3. A gate that is on its way out is not ready.

use std::fmt::Write;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::metrics::process::ProcessMeters;
use crate::symbol::TokenAlias;

/// What readiness is made of.
#[derive(Debug, Default)]
pub struct Readiness {
    serving: AtomicBool,
    draining: AtomicBool,
    was_ready: AtomicBool,
}

impl Readiness {
    /// The listeners are open and the workers run.
    pub fn serving(&self) {
        self.serving.store(true, Ordering::Release);
    }

    /// The process is on its way out.
    pub fn draining(&self) {
        self.draining.store(true, Ordering::Release);
    }

    /// Whether it is ready, and a line for each thing that it depends on.
    #[must_use]
    pub fn check(&self, meters: &ProcessMeters) -> (bool, String) {
        let serving = self.serving.load(Ordering::Acquire);
        let draining = self.draining.load(Ordering::Acquire);
        let state = meters.read();
        let missing: Vec<TokenAlias> =
            state.token_states.iter().filter(|(_, token)| !token.loaded).map(|(alias, _)| *alias).collect();
        let mut lines = String::new();
        let mut line = |good: bool, what: &str| {
            let _ = writeln!(lines, "[{}] {what}", if good { '+' } else { '-' });
        };
        line(serving, "listeners are open");
        line(!draining, "not shutting down");
        for (alias, token) in &state.token_states {
            let state = if token.loaded && token.parked { ", which Metrica does not take" } else { "" };
            line(token.loaded, &format!("token {alias}{state}"));
        }
        let ready = serving && !draining && missing.is_empty();
        if ready {
            self.was_ready.store(true, Ordering::Release);
        }
        (ready, lines)
    }

    /// Whether it was ready once.
    #[must_use]
    pub fn was_ready(&self) -> bool {
        self.was_ready.load(Ordering::Acquire)
    }
}

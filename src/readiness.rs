//! Readiness: whether callers should come here.
//!
//! 1. Ready means: the listeners are open, and some caller can be served: a token of it is there. One that lacks a token is
//!    told so by each of its answers; the others go on.
//! 2. Who asks for one caller or listener is told whether all is there that it, or who comes there, can use; the socket of the
//!    listener too.
//! 3. It never depends on Metrica: when Metrica is down, its answers say so better than a gate that disappeared.
//! 4. A gate that is on its way out is not ready.
//! 5. What is wrong and does not count is shown with `!`.
//! 6. A file that cannot be used as it is now is named with its purpose ([`crate::external`]) and the reason, also where what
//!    it said before is still in use.

use std::fmt::Write;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::external::Purpose;
use crate::metrics::process::ProcessMeters;
use crate::token::Standing;

/// Whom it is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Whom {
    /// Whoever comes.
    Anyone,
    /// The caller with this id.
    Caller(String),
    /// Who comes to this listener.
    Listener(String),
}

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

    /// Whether it is ready for `whom`, and a line for each thing that is looked at; `None` where the configuration has no such
    /// caller or listener.
    #[must_use]
    pub fn check(&self, meters: &ProcessMeters, whom: &Whom) -> Option<(bool, String)> {
        let serving = self.serving.load(Ordering::Acquire);
        let draining = self.draining.load(Ordering::Acquire);
        let state = meters.read();
        let (served, lacking) = match whom {
            Whom::Anyone => (state.served.some, None),
            Whom::Caller(name) => {
                let (_, lacking) = state.served.callers.iter().find(|(id, _)| id.as_str() == name)?;
                (lacking.is_empty(), Some(lacking))
            }
            Whom::Listener(wanted) => {
                let (_, lacking) = state.served.listeners.iter().find(|(name, _)| name.as_str() == wanted)?;
                (lacking.is_empty(), Some(lacking))
            }
        };
        let is_asked_for = |name: &str| matches!(whom, Whom::Listener(wanted) if wanted == name);
        let is_open = |purpose: &Purpose| !matches!(purpose, Purpose::Listener(name) if is_asked_for(name.as_str()));
        let ready = serving && !draining && served && state.sockets.keys().all(is_open);
        if ready && *whom == Whom::Anyone {
            self.was_ready.store(true, Ordering::Release);
        }
        let mut lines = String::new();
        let mut line = |mark: char, what: &str| {
            let _ = writeln!(lines, "[{mark}] {what}");
        };
        let needed = |holds: bool| if holds { '+' } else { '-' };
        line(needed(serving), "listeners are open");
        line(needed(!draining), "not shutting down");
        match &state.config_refusal {
            None => line('+', "the configuration is in use"),
            Some(why) => {
                line('!', &format!("the configuration is not in use, an older one is: {}", why.replace('\n', "; ")))
            }
        }
        for (purpose, why) in state.files.iter().chain(&state.sockets) {
            match purpose {
                // These have lines of their own.
                Purpose::Token(_) => {}
                Purpose::Configuration if state.config_refusal.is_some() => {}
                Purpose::Configuration | Purpose::Upstream | Purpose::Identity => {
                    line('!', &format!("{purpose}: {why}"))
                }
                Purpose::Listener(name) => {
                    line(if is_asked_for(name.as_str()) { '-' } else { '!' }, &format!("{purpose}: {why}"))
                }
            }
        }
        for (alias, token) in &state.token_states {
            let said = match token.standing {
                Standing::Parked if token.loaded => ", which Metrica does not take",
                Standing::Outage if token.loaded => ", which Metrica does not take, nor those of other owners",
                Standing::Healthy | Standing::Suspect | Standing::Parked | Standing::Outage => "",
            };
            let counts = !served && lacking.is_none_or(|lacking| lacking.contains(alias));
            let why = state.files.get(&Purpose::Token(*alias));
            let mark = match (token.loaded, why) {
                (true, None) => '+',
                (false, _) if counts => '-',
                // An older one is in use.
                (true, Some(_)) | (false, _) => '!',
            };
            let why = why.map_or_else(String::new, |why| format!(": {why}"));
            line(mark, &format!("token {alias}{said}{why}"));
        }
        Some((ready, lines))
    }

    /// Whether it was ready once.
    #[must_use]
    pub fn was_ready(&self) -> bool {
        self.was_ready.load(Ordering::Acquire)
    }
}

//! Readiness: whether traffic should be sent to this gate.
//!
//! 1. The gate is ready if its listeners are open and it has a token for at least one caller. Requests of a caller without
//!    a token are refused with that reason; the other callers are served.
//! 2. A query for one caller or listener requires all tokens that the caller, or the callers of the listener, can use. A
//!    query for a listener also requires its socket.
//! 3. Readiness never depends on Metrica: while Metrica is down, a response with the reason is more useful than an
//!    unreachable gate.
//! 4. A gate that is shutting down is not ready.
//! 5. Problems that do not affect the result are marked with `!`.
//! 6. A file that cannot be used now is listed with its purpose ([`crate::files`]) and the reason, even while its
//!    previous content is still in use.

use std::fmt::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use crate::files::Purpose;
use crate::metrics::process::{ProcessMeters, TokenState};
use crate::token::Standing;

/// The subject of a readiness query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReadinessSubject {
    /// The gate as a whole.
    Anyone,
    /// The caller with this id.
    Caller(String),
    /// The callers of the listener with this name.
    Listener(String),
}

/// The readiness of the process.
#[derive(Debug, Default)]
pub struct Readiness {
    serving: AtomicBool,
    draining: AtomicBool,
    was_ready: AtomicBool,
}

impl Readiness {
    /// Records that the listeners are open and the workers run.
    pub fn serving(&self) {
        self.serving.store(true, Ordering::Release);
    }

    /// Records that the process is shutting down.
    pub fn draining(&self) {
        self.draining.store(true, Ordering::Release);
    }

    /// Returns whether the gate is ready for `whom`, and one line per check; `None` if the configuration has no such caller
    /// or listener.
    #[must_use]
    pub fn check(&self, meters: &ProcessMeters, whom: &ReadinessSubject) -> Option<(bool, String)> {
        let serving = self.serving.load(Ordering::Acquire);
        let draining = self.draining.load(Ordering::Acquire);
        let state = meters.read();
        let (served, lacking) = match whom {
            ReadinessSubject::Anyone => (state.served.some, None),
            ReadinessSubject::Caller(name) => {
                let (_, lacking) = state.served.callers.iter().find(|(id, _)| id.as_str() == name)?;
                (lacking.is_empty(), Some(lacking))
            }
            ReadinessSubject::Listener(wanted) => {
                let (_, lacking) = state.served.listeners.iter().find(|(name, _)| name.as_str() == wanted)?;
                (lacking.is_empty(), Some(lacking))
            }
        };
        let is_asked_for = |name: &str| matches!(whom, ReadinessSubject::Listener(wanted) if wanted == name);
        let is_open = |purpose: &Purpose| !matches!(purpose, Purpose::Listener(name) if is_asked_for(name.as_str()));
        let ready = serving && !draining && served && state.sockets.keys().all(is_open);
        if ready && *whom == ReadinessSubject::Anyone {
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
            Some(why) => line(
                '!',
                &format!("the configuration was rejected and a previous one is in use: {}", why.replace('\n', "; ")),
            ),
        }
        if let Some(why) = state.key_set.as_ref().and_then(|keys| keys.failure.as_ref()) {
            line('!', &format!("request for the keys of service accounts: {why}"));
        }
        for (purpose, why) in state.files.iter().chain(&state.sockets) {
            match purpose {
                // Tokens have their own lines below.
                Purpose::Token(_) => {}
                Purpose::Configuration if state.config_refusal.is_some() => {}
                Purpose::Configuration
                | Purpose::Upstream
                | Purpose::Identity
                | Purpose::Proxy
                | Purpose::OAuth
                | Purpose::ClientSecret(_)
                | Purpose::RefreshToken(_)
                | Purpose::Record(_)
                | Purpose::Certificate(_)
                | Purpose::CertificateKey(_)
                | Purpose::Authority(_)
                | Purpose::AuthorityKey(_)
                | Purpose::ClientAuthority(_)
                | Purpose::KeySet
                | Purpose::KeyServerToken
                | Purpose::Renewed(_)
                | Purpose::State
                | Purpose::Store
                | Purpose::StorePassword
                | Purpose::Keys => line('!', &format!("{purpose}: {why}")),
                Purpose::Listener(name) => {
                    line(if is_asked_for(name.as_str()) { '-' } else { '!' }, &format!("{purpose}: {why}"))
                }
            }
        }
        for (alias, token) in &state.token_states {
            let counts = !served && lacking.is_none_or(|lacking| lacking.contains(alias));
            let (mark, rest) = of_token(*token, state.files.get(&Purpose::Token(*alias)), counts);
            line(mark, &format!("token {alias}{rest}"));
        }
        Some((ready, lines))
    }

    /// Whether the gate was ready at least once.
    #[must_use]
    pub fn was_ready(&self) -> bool {
        self.was_ready.load(Ordering::Acquire)
    }
}

/// The mark of a token and the rest of its line; `why` its file cannot be used, and whether a missing token `counts`.
fn of_token(token: TokenState, why: Option<&String>, counts: bool) -> (char, String) {
    let said = match token.standing {
        Standing::Suspended if token.loaded => ", which Metrica rejects",
        Standing::Outage if token.loaded => ", which Metrica rejects together with tokens of other owners",
        Standing::Healthy | Standing::Suspect | Standing::Suspended | Standing::Outage => "",
    };
    let worked = token.worked_at.filter(|_| token.loaded).map_or_else(String::new, |at| {
        let at = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(at));
        at.map_or_else(String::new, |at| format!(", worked last at {}", humantime::format_rfc3339_seconds(at)))
    });
    let mark = match (token.loaded, why) {
        (true, None) => '+',
        (false, _) if counts => '-',
        // An older token is in use, or the token does not affect the result.
        (true, Some(_)) | (false, _) => '!',
    };
    (mark, why.map_or_else(|| format!("{said}{worked}"), |why| format!("{said}{worked}: {why}")))
}

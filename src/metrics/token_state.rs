//! The states of tokens.

use std::time::SystemTime;

use super::process::seconds;
use crate::policy::names::TokenAlias;
use crate::token::Standing;

/// The state of one token.
#[derive(Debug, Clone, Copy)]
pub struct TokenState {
    /// Whether the token is loaded.
    pub loaded: bool,
    /// The time when the token in use was read, in seconds since 1970.
    pub loaded_at: u64,
    /// Whether Metrica accepts the token.
    pub standing: Standing,
    /// The expiry in seconds since 1970, if known.
    pub expires: Option<u64>,
    /// The last time at which the token is known to have worked: a request, its login or its renewal; in seconds since 1970.
    pub worked_at: Option<u64>,
    /// Whether `allow_mode` permits its file to be readable by others on a read-only mount.
    pub allow_mode: bool,
    /// The time of its login or renewal, in seconds since 1970, if known.
    pub issued: Option<u64>,
    /// The time since when it is loaded or not and has its standing, in seconds since 1970.
    pub since: u64,
    /// Whether its standby is sent in its place; `None` if it has no standby.
    pub standby_in_use: Option<bool>,
    /// The number of times that its standby took over.
    pub standby_switches: u64,
}

impl TokenState {
    /// Returns the state after the state `before`, if the token was known, at `at` in seconds since 1970; `is_new` if the
    /// token was read just now.
    pub(super) fn after(before: Option<&Self>, now: TokenNow, is_new: bool, at: u64) -> Self {
        let TokenNow { alias: _, loaded, standing, expires, issued, allow_mode, standby_in_use } = now;
        let same = before.filter(|before| !is_new && before.loaded == loaded && before.standing == standing);
        let takes_over =
            standby_in_use == Some(true) && before.is_none_or(|before| before.standby_in_use != Some(true));
        Self {
            loaded,
            loaded_at: if is_new { at } else { before.map_or(0, |before| before.loaded_at) },
            standing,
            expires: expires.map(seconds),
            // Another token has done nothing yet.
            worked_at: before.filter(|_| !is_new).and_then(|before| before.worked_at).max(issued),
            allow_mode,
            issued,
            since: same.map_or(at, |before| before.since),
            standby_in_use,
            standby_switches: before.map_or(0, |before| before.standby_switches) + u64::from(takes_over),
        }
    }

    /// Returns the label value of every state, and whether the token is in that state.
    #[must_use]
    pub fn states(self) -> [(&'static str, bool); 5] {
        let [healthy, suspect, suspended, outage] =
            Standing::ALL.map(|one| (one.as_str(), self.loaded && self.standing == one));
        [healthy, suspect, suspended, outage, ("missing", !self.loaded)]
    }
}

/// The current state of a token, for [`super::process::ProcessMeters::tokens_now`].
#[derive(Debug, Clone, Copy)]
pub struct TokenNow {
    /// The name of the token.
    pub alias: TokenAlias,
    /// Whether the token is loaded; Metrica may still reject it.
    pub loaded: bool,
    /// Whether Metrica accepts the token.
    pub standing: Standing,
    /// The expiry, if known.
    pub expires: Option<SystemTime>,
    /// The time of its login or renewal, in seconds since 1970, if known.
    pub issued: Option<u64>,
    /// Whether `allow_mode` permits its file to be readable by others on a read-only mount.
    pub allow_mode: bool,
    /// Whether its standby is sent in its place; `None` if it has no standby.
    pub standby_in_use: Option<bool>,
}

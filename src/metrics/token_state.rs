//! The states of tokens.

use std::time::SystemTime;

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
}

impl TokenState {
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
}

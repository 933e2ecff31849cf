//! Rules: what a caller may touch within its scopes.

/// The rules of one caller. What is not stated is not limited, but for scripts and secrets, which have to be allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// The only counters, in ascending order; `None` is all.
    pub counters: Option<Box<[u64]>>,
    /// The only logins in `ulogin` and `direct_client_logins`; `None` is all, or none where `counters` are stated.
    pub logins: Option<Box<[Box<str>]>>,
    /// What becomes of a list of all counters where `counters` are stated.
    pub list: List,
    /// Whether it may do what the API cannot undo.
    pub destructive: bool,
    /// Whether an answer may be a script (`callback`, JSONP).
    pub callback: bool,
    /// Whether it may read the tokens of the Measurement Protocol (`field=measurement_tokens`).
    pub measurement_tokens: bool,
    /// Whether its rules and scopes refuse; otherwise what they would refuse is only said and counted.
    pub enforce: bool,
}

/// What becomes of a list of all counters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum List {
    /// It is refused.
    #[default]
    Refuse,
    /// It goes on with the caller's counters only.
    Filter,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            counters: None,
            logins: None,
            list: List::Refuse,
            destructive: true,
            callback: false,
            measurement_tokens: false,
            enforce: true,
        }
    }
}

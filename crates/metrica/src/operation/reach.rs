//! On whose data an operation works.

use super::Verb;

/// On whose data an operation works, and where a request says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// On one counter: this segment of the path, counted from 0 behind the first slash.
    Counter(usize),
    /// On the counters that the query names.
    Reports,
    /// It lists the counters of the account.
    Counters,
    /// On nobody's: a dictionary.
    Nobody,
    /// On the whole account.
    Account,
}

impl Reach {
    /// Whether a segment of a template stands for a counter.
    #[must_use]
    pub fn is_counter(segment: &str) -> bool {
        matches!(segment, "{counter_id}" | "{counterId}")
    }

    /// What a line with this method and path reaches.
    #[must_use]
    pub fn of(verb: Verb, template: &str) -> Self {
        let mut segments = template.split('/').skip(1);
        if let Some(position) = segments.position(Self::is_counter) {
            return Self::Counter(position);
        }
        match template {
            "/management/v1/counters" if verb.is_safe() => Self::Counters,
            // It asks for `counters`.
            "/management/v1/clients" => Self::Reports,
            "/management/v1/messengers" | "/management/v1/social_networks" => Self::Nobody,
            _ if template.starts_with("/stat/") || template.starts_with("/analytics/") => Self::Reports,
            _ => Self::Account,
        }
    }
}

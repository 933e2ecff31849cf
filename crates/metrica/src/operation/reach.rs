//! The data that an operation affects.

use super::Verb;

/// The data that an operation affects, and the part of the request that names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// One counter, named in this segment of the path, counted from 0 after the first slash.
    Counter(usize),
    /// The counters that the query names.
    Reports,
    /// The counters of the account, which it lists.
    Counters,
    /// No data of an account: a dictionary.
    Nobody,
    /// The whole account.
    Account,
}

impl Reach {
    /// Whether a segment of a template is the parameter for a counter.
    #[must_use]
    pub fn is_counter(segment: &str) -> bool {
        matches!(segment, "{counter_id}" | "{counterId}")
    }

    /// Determines the reach of a method and a path template.
    #[must_use]
    pub fn of(verb: Verb, template: &str) -> Self {
        let mut segments = template.split('/').skip(1);
        if let Some(position) = segments.position(Self::is_counter) {
            return Self::Counter(position);
        }
        match template {
            "/management/v1/counters" if verb.is_safe() => Self::Counters,
            // The query parameter `counters` selects them.
            "/management/v1/clients" => Self::Reports,
            "/management/v1/messengers" | "/management/v1/social_networks" => Self::Nobody,
            _ if template.starts_with("/stat/") || template.starts_with("/analytics/") => Self::Reports,
            _ => Self::Account,
        }
    }
}

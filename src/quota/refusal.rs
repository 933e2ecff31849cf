//! A refusal of the broker: which limit, why, and when to come again (rule 10 of the module).

use metrica::error_type::ErrorType;

use super::clock::{Micros, SECOND};
use super::limit::LimitName;

/// The reason of a refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// The request would wait longer than it may, or has.
    Wait,
    /// Too many requests wait already.
    Full,
    /// The caller has spent its own budget.
    Budget,
    /// The gate stops.
    Draining,
    /// The store of the fleet is away, and the gate refuses without it.
    StoreUnavailable,
}

impl Reason {
    /// All reasons.
    pub const ALL: &[Self] = &[Self::Wait, Self::Full, Self::Budget, Self::Draining, Self::StoreUnavailable];

    /// The word in `X-Gate-Error`, metrics and logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Wait => "quota_wait",
            Self::Full => "quota_full",
            Self::Budget => "quota_budget",
            Self::Draining => "quota_draining",
            Self::StoreUnavailable => "quota_store_unavailable",
        }
    }
}

/// The shortest and the longest jitter, as far as a tenth of the time is not between them.
const LEAST_JITTER: Micros = 2 * SECOND;
const MOST_JITTER: Micros = 60 * SECOND;

/// The time after which a request may be repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct After(pub Micros);

impl After {
    /// `Retry-After`: whole seconds, at least one, and up to a tenth of that (2 to 60 seconds) more, by a `jitter` of 0 for
    /// none to 65535 for all of it.
    #[must_use]
    pub fn seconds(self, jitter: u16) -> u64 {
        let spread = (self.0 / 10).clamp(LEAST_JITTER, MOST_JITTER);
        let added = spread.saturating_mul(u64::from(jitter)) / u64::from(u16::MAX);
        self.0.max(1).saturating_add(added).div_ceil(SECOND)
    }
}

/// A refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    /// The limit that refused.
    pub limit: LimitName,
    /// Why.
    pub reason: Reason,
    /// When a repeated request succeeds if no other comes meanwhile.
    pub after: After,
}

impl Refusal {
    /// The status: 429, or 503 while the gate stops or the store is away.
    #[must_use]
    pub const fn status(&self) -> u16 {
        match self.reason {
            Reason::Wait | Reason::Full | Reason::Budget => 429,
            Reason::Draining | Reason::StoreUnavailable => 503,
        }
    }

    /// The type in the body, one that Metrica documents.
    #[must_use]
    pub const fn error_type(&self) -> ErrorType {
        match self.reason {
            Reason::Wait | Reason::Full | Reason::Budget => self.limit.error_type(),
            Reason::Draining | Reason::StoreUnavailable => ErrorType::BackendError,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rule_10_retry_after_is_whole_seconds_and_never_too_short() {
        for (micros, least, most) in [
            (0, 1, 3),
            (1, 1, 3),
            (SECOND, 1, 3),
            (SECOND + 1, 2, 4),
            (300 * SECOND, 300, 330),
            (40_000 * SECOND, 40_000, 40_060),
        ] {
            assert_eq!((After(micros).seconds(0), After(micros).seconds(u16::MAX)), (least, most), "{micros}");
        }
    }

    #[test]
    fn rule_10_each_refusal_has_a_documented_type() {
        let documented = ["by_uid", "by_ip", "by_counter_id"].map(|name| format!("quota_requests_{name}"));
        let others = ["parallel", "delegate", "grants"].map(|name| format!("quota_{name}_requests"));
        for limit in LimitName::ALL {
            let refusal = |reason| Refusal { limit: *limit, reason, after: After(0) };
            let found = refusal(Reason::Wait).error_type().as_str().to_owned();
            assert!(documented.contains(&found) || others.contains(&found), "{found}");
            assert_eq!((refusal(Reason::Wait).status(), refusal(Reason::Draining).status()), (429, 503));
        }
    }
}

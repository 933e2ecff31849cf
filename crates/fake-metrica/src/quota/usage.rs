//! The counts of the quotas, for tests and other judges. They are made whether or not a limit is enforced.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::Serialize;

use super::Limit;

/// A copy of all counts.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct QuotaUse {
    /// The clock of the quotas, in GMT, such as `2026-01-31T23:59:58Z`.
    pub clock: String,
    /// By login, in canonical spelling.
    pub logins: BTreeMap<String, LoginUse>,
    /// By address of the client.
    pub addresses: BTreeMap<IpAddr, AddressUse>,
    /// By counter.
    pub counters: BTreeMap<u64, CounterUse>,
    /// The refused requests, by limit and then by the error type of the response.
    pub refused: BTreeMap<Limit, BTreeMap<String, u64>>,
}

impl QuotaUse {
    /// The requests refused because of a limit.
    #[must_use]
    pub fn refused_by(&self, limit: Limit) -> u64 {
        self.refused.get(&limit).map_or(0, |types| types.values().sum())
    }

    /// The requests refused because of any limit.
    #[must_use]
    pub fn refused_in_all(&self) -> u64 {
        Limit::ALL.into_iter().map(|limit| self.refused_by(limit)).sum()
    }

    /// The counts of a login in canonical spelling; zeros if nobody has used it.
    #[must_use]
    pub fn login(&self, login: &str) -> LoginUse {
        self.logins.get(login).map_or_else(LoginUse::default, Clone::clone)
    }
}

/// The counts of a login.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct LoginUse {
    /// The running requests.
    pub in_parallel: u64,
    /// The most requests that have run at once.
    pub most_in_parallel: u64,
    /// The slots that requests whose client has left still hold.
    pub abandoned: u64,
    /// The slots that outsiders want.
    pub outsider_wants: u64,
    /// The slots that outsiders hold.
    pub outsider_holds: u64,
    /// The requests charged to the current day, including those of outsiders.
    pub day: u64,
    /// The reports charged to the last 5 minutes, including those of outsiders.
    pub reports_5m: u64,
    /// The most requests for reports in any 5 minutes, accepted or refused, without outsiders.
    pub most_reports_5m: u64,
    /// The remaining time of the lock of reports, in milliseconds.
    pub reports_locked_ms: u64,
    /// The delegates added in the current hour.
    pub delegates: u64,
    /// All accepted requests.
    pub accepted: u64,
    /// The refused requests, by limit.
    pub refused: BTreeMap<Limit, u64>,
}

/// The counts of an address.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct AddressUse {
    /// The requests in the last second, accepted or refused.
    pub last_second: u64,
    /// The most requests in any second, accepted or refused.
    pub most_in_a_second: u64,
    /// The most requests to the Logs API in any second, accepted or refused.
    pub most_logs_in_a_second: u64,
}

/// The counts of a counter.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct CounterUse {
    /// The requests charged to the current day, including those of outsiders.
    pub day: u64,
    /// The changes of the current hour that grant access.
    pub grants: u64,
}

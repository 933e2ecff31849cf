//! The keys that the quotas charge a request to.

use std::net::IpAddr;

use metrica::operation::{Operation, QuotaGroup, Shares};

use super::Limit;

/// The keys of a request, and the limits that apply to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Charge {
    /// The address of the client.
    pub address: IpAddr,
    /// The login, in canonical spelling; none without a valid token.
    pub login: Option<String>,
    /// The counters that the request concerns and that the token has access to, each once.
    pub counters: Vec<u64>,
    pub is_logs: bool,
    pub is_report: bool,
    pub is_grant: bool,
    pub is_delegate: bool,
}

impl Charge {
    /// A request of which nothing is known but its operation, if it has one.
    pub fn new(address: IpAddr, operation: Option<&Operation>) -> Self {
        let noun = operation.map_or("", |operation| operation.id.as_str());
        let shares = operation.is_some_and(|operation| matches!(operation.shares, Shares::Named | Shares::Anyone));
        let is_delegate = shares && noun.starts_with("delegate");
        Self {
            address,
            login: None,
            counters: Vec::new(),
            is_logs: operation.is_some_and(|operation| operation.quota == QuotaGroup::Logs),
            is_report: operation.is_some_and(|operation| operation.template.starts_with("/stat/v1/data")),
            is_grant: shares && !is_delegate,
            is_delegate,
        }
    }

    /// Whether a limit applies.
    pub const fn applies(&self, limit: Limit) -> bool {
        let (login, counter) = (self.login.is_some(), !self.counters.is_empty());
        match limit {
            Limit::ByIp => true,
            Limit::LogsByIp => self.is_logs,
            Limit::Parallel | Limit::Day => login,
            Limit::Reports5m => login && self.is_report,
            Limit::CounterDay => counter,
            Limit::Grants => counter && self.is_grant,
            Limit::Delegates => login && self.is_delegate,
        }
    }
}

#[cfg(test)]
mod tests {
    use metrica::operation::Catalogue;

    use super::*;

    #[test]
    fn the_operations_of_the_special_limits() {
        let catalogue = Catalogue::built_in();
        let ids = |select: fn(&Charge) -> bool| {
            let charge = |operation| Charge::new(IpAddr::from([127, 0, 0, 1]), Some(operation));
            let ids = catalogue.operations().iter().filter(|operation| select(&charge(operation)));
            let mut ids: Vec<_> = ids.map(|operation| operation.id.as_str()).collect();
            ids.sort_unstable();
            ids
        };
        assert_eq!(ids(|charge| charge.is_delegate), ["delegates.create", "delegates.replace"]);
        assert_eq!(
            ids(|charge| charge.is_grant),
            ["grant.update", "grant.update_old", "grants.create", "public_grant.create"]
        );
        assert_eq!(ids(|charge| charge.is_logs).len(), 7);
        assert!(ids(|charge| charge.is_report).iter().all(|id| id.starts_with("report.") && !id.contains("google")));
    }
}

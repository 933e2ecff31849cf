//! Usage: requests by caller, operation and group of counters.
//!
//! 1. Every finished exchange is counted in one row, including refused and abandoned ones.
//! 2. Its group is that of the first named counter that belongs to one (`counter_groups`); `other` if none of its
//!    counters does or they are unreadable, and `none` if it names no counter. Counters in bodies do not count.
//! 3. Refusals are 401 and 403, of the gate and of Metrica; quota responses are Metrica's 420 and 429.
//! 4. The number of rows is bounded by the configuration: callers, operations, groups.
//! 5. The requests of each caller are also counted by the token that was or would have been sent.
//! 6. Counting begins with the process and continues over reloads; a row keeps the group that applied to its
//!    requests.

use metrica::operation::OperationId;
use metrica::subject::{Counters, Subject};
use rustc_hash::FxHashMap;
use serde::Serialize;

use super::page::{Families, counter};
use super::{Finished, Refusal, Shard};
use crate::config::CounterGroup;
use crate::policy::names::{CallerId, GroupName, TokenAlias};

/// The group of counters that a request names (rule 2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Group {
    /// No counter is named.
    None,
    /// The named counters belong to no group.
    Other,
    /// A named counter belongs to this group.
    Named(GroupName),
}

impl Group {
    /// Returns the label value. The configuration cannot name a group `none` or `other`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Other => "other",
            Self::Named(name) => name.as_str(),
        }
    }
}

/// The groups of a configuration, by counter.
#[derive(Debug, Default)]
pub struct Groups(FxHashMap<u64, GroupName>);

impl Groups {
    /// Indexes `counter_groups`.
    #[must_use]
    pub fn new(groups: &[CounterGroup]) -> Self {
        let pairs =
            |group: &CounterGroup| group.counters.iter().map(|counter| (*counter, group.name)).collect::<Vec<_>>();
        Self(groups.iter().flat_map(pairs).collect())
    }

    /// Returns the group of a request; `None` is a request whose subject was not read (rule 2).
    #[must_use]
    pub fn of(&self, subject: Option<&Subject>) -> Group {
        let counters = subject.map_or(&Counters::None, |subject| &subject.counters);
        if *counters == Counters::None {
            return Group::None;
        }
        if self.0.is_empty() {
            return Group::Other;
        }
        counters
            .as_slice()
            .iter()
            .find_map(|counter| self.0.get(counter))
            .map_or(Group::Other, |name| Group::Named(*name))
    }
}

/// The totals of a row.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Totals {
    /// Finished exchanges.
    pub requests: u64,
    /// Bytes of request bodies.
    pub request_bytes: u64,
    /// Bytes of response bodies.
    pub response_bytes: u64,
    /// Refusals (rule 3).
    pub refusals: u64,
    /// Quota responses (rule 3).
    pub quota_answers: u64,
}

impl Totals {
    fn add(&mut self, more: &Self) {
        self.requests += more.requests;
        self.request_bytes += more.request_bytes;
        self.response_bytes += more.response_bytes;
        self.refusals += more.refusals;
        self.quota_answers += more.quota_answers;
    }
}

/// The rows of one caller.
#[derive(Debug, Clone, Default)]
pub struct Usage {
    rows: FxHashMap<(Option<OperationId>, Group), Totals>,
    tokens: FxHashMap<Option<TokenAlias>, Totals>,
}

impl Usage {
    /// Records a finished exchange.
    pub(super) fn count(&mut self, finished: &Finished) {
        let is_refused = finished.refusal.is_some() && matches!(finished.code, 401 | 403);
        let is_quota = matches!(finished.refusal, Some(Refusal::Upstream(_))) && matches!(finished.code, 420 | 429);
        let totals = Totals {
            requests: 1,
            request_bytes: finished.request_bytes,
            response_bytes: finished.response_bytes,
            refusals: is_refused.into(),
            quota_answers: is_quota.into(),
        };
        self.rows.entry((finished.operation, finished.group)).or_default().add(&totals);
        self.tokens.entry(finished.token).or_default().add(&totals);
    }

    /// Returns the totals by token; `None` collects the requests without one.
    pub(super) fn by_token(&self) -> impl Iterator<Item = (Option<TokenAlias>, Totals)> {
        self.tokens.iter().map(|(token, totals)| (*token, *totals))
    }

    /// Adds the rows of another worker.
    pub(super) fn add(&mut self, other: &Self) {
        for (key, more) in &other.rows {
            self.rows.entry(*key).or_default().add(more);
        }
        for (token, more) in &other.tokens {
            self.tokens.entry(*token).or_default().add(more);
        }
    }
}

/// A row with the names that are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Row {
    /// The caller; `unknown` if it is not in the configuration.
    pub caller: &'static str,
    /// The operation; `none` if it is not in the catalogue.
    pub operation: &'static str,
    /// The group of counters.
    pub group: &'static str,
    /// The totals.
    #[serde(flatten)]
    pub totals: Totals,
}

/// Returns all rows, sorted by name.
#[must_use]
pub fn rows(shard: &Shard) -> Vec<Row> {
    let of_caller = |(caller, usage): (Option<CallerId>, &Usage)| {
        let caller = caller.map_or("unknown", CallerId::as_str);
        let row = |((operation, group), totals): (&(Option<OperationId>, Group), &Totals)| Row {
            caller,
            operation: operation.map_or("none", OperationId::as_str),
            group: group.as_str(),
            totals: *totals,
        };
        usage.rows.iter().map(row).collect::<Vec<_>>()
    };
    let mut rows: Vec<_> = shard.usage().flat_map(of_caller).collect();
    rows.sort_unstable_by_key(|row| (row.caller, row.operation, row.group));
    rows
}

/// Returns the usage as JSON: the totals of each caller, and every row. `since` is the time at which counting began.
#[must_use]
pub fn page(shard: &Shard, since: &str) -> String {
    #[derive(Serialize)]
    struct OfCaller {
        caller: &'static str,
        #[serde(flatten)]
        totals: Totals,
        tokens: Vec<OfToken>,
    }
    #[derive(Serialize)]
    struct OfToken {
        token: &'static str,
        #[serde(flatten)]
        totals: Totals,
    }
    let of_token = |(token, totals): (&Option<TokenAlias>, &Totals)| OfToken {
        token: token.map_or("none", |token| token.as_str()),
        totals: *totals,
    };
    let tokens = |caller: &str| {
        let usage = shard.usage().find(|(id, _)| id.map_or("unknown", CallerId::as_str) == caller);
        let mut tokens: Vec<_> = usage.into_iter().flat_map(|(_, usage)| usage.tokens.iter().map(of_token)).collect();
        tokens.sort_unstable_by_key(|of| of.token);
        tokens
    };
    let rows = rows(shard);
    let sum = |rows: &[Row]| {
        let mut totals = Totals::default();
        rows.iter().for_each(|row| totals.add(&row.totals));
        totals
    };
    let callers: Vec<_> = (rows.chunk_by(|one, next| one.caller == next.caller))
        .filter_map(|rows| Some((rows.first()?.caller, rows)))
        .map(|(caller, rows)| OfCaller { caller, totals: sum(rows), tokens: tokens(caller) })
        .collect();
    serde_json::json!({ "since": since, "callers": callers, "rows": rows }).to_string()
}

/// Adds the families of usage.
pub(super) fn fill(families: &mut Families, shard: &Shard) {
    for row in rows(shard) {
        let labels = [("caller", row.caller), ("operation", row.operation), ("group", row.group)];
        let totals = row.totals;
        families.usage_requests.push(counter(&labels, totals.requests));
        families.usage_request_bytes.push(counter(&labels, totals.request_bytes));
        families.usage_response_bytes.push(counter(&labels, totals.response_bytes));
        families.usage_refusals.push(counter(&labels, totals.refusals));
        families.usage_quota.push(counter(&labels, totals.quota_answers));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use metrica::cause::Cause;

    use super::*;
    use crate::policy::rejection::Reason;

    fn subject(counters: Counters) -> Subject {
        Subject { counters, ..Subject::default() }
    }

    #[test]
    fn rule_2_the_first_counter_in_a_group_selects_the_group() {
        let group = |name, counters: &[u64]| CounterGroup { name: GroupName::new(name), counters: counters.into() };
        let groups = Groups::new(&[group("shop", &[1, 2]), group("blog", &[3])]);
        for (counters, expected) in [
            (Counters::None, "none"),
            (Counters::One(2), "shop"),
            (Counters::One(4), "other"),
            (Counters::Several([4, 3, 1].into()), "blog"),
            (Counters::Several([4, 5].into()), "other"),
            (Counters::Unreadable, "other"),
        ] {
            assert_eq!(groups.of(Some(&subject(counters.clone()))).as_str(), expected, "{counters:?}");
        }
        assert_eq!(groups.of(None).as_str(), "none");
        let nothing = Groups::default();
        assert_eq!(nothing.of(Some(&subject(Counters::One(1)))), Group::Other);
        assert_eq!(nothing.of(Some(&subject(Counters::None))), Group::None);
    }

    #[test]
    fn rule_3_refusals_are_of_both_and_quota_is_metricas() {
        let counted = |code, refusal| {
            let mut shard = Shard::default();
            shard.finish(&Finished {
                quota_wait: None,
                caller: None,
                operation: None,
                marks: [None; 2],
                token: None,
                verb: None,
                code,
                refusal,
                needed: None,
                would_refuse: None,
                ended: std::time::Instant::now(),
                duration: Duration::ZERO,
                upstream_duration: None,
                request_bytes: 0,
                response_bytes: 0,
                group: Group::None,
            });
            let totals = rows(&shard)[0].totals;
            (totals.requests, totals.refusals, totals.quota_answers)
        };
        let (gate, metrica) = (Some(Refusal::Gate(Reason::ScopeDenied)), Some(Refusal::Upstream(Cause::Other)));
        for (code, refusal, expected) in [
            (200, None, (1, 0, 0)),
            (401, gate, (1, 1, 0)),
            (403, metrica, (1, 1, 0)),
            (404, gate, (1, 0, 0)),
            (420, metrica, (1, 0, 1)),
            (429, metrica, (1, 0, 1)),
            (429, gate, (1, 0, 0)),
            (503, metrica, (1, 0, 0)),
        ] {
            assert_eq!(counted(code, refusal), expected, "{code} {refusal:?}");
        }
    }
}

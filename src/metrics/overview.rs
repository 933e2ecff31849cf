//! The figures of the status page: sums of the same counts that `/metrics` renders.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use metrica::operation::OperationId;
use rustc_hash::FxHashMap;

use super::page::sorted;
use super::{CALLER_GONE, ConnectStep, Histogram, ListenerConnections, Origin, Refusal, Shard, UpstreamError};
use crate::policy::names::{CallerId, ListenerName, TokenAlias};

/// The figures since the start of the process.
#[derive(Debug, Default)]
pub struct Overview {
    /// The callers that sent requests; `None` collects those that match no caller.
    pub callers: BTreeMap<Option<CallerId>, CallerFigures>,
    /// The requests of each token.
    pub token_requests: BTreeMap<TokenAlias, u64>,
    /// The number of counters on which a permission of each token's owner is known.
    pub token_counters: BTreeMap<TokenAlias, usize>,
    /// The connections of each listener.
    pub listeners: BTreeMap<ListenerName, ListenerConnections>,
    /// The connections to the upstream.
    pub pool: PoolFigures,
    /// The durations of the upstream by operation, the most frequent first.
    pub operations: Vec<(OperationId, Histogram)>,
    /// The errors towards the upstream that occurred.
    pub errors: Vec<(UpstreamError, u64)>,
}

/// The figures of one caller.
#[derive(Debug, Default, Clone, Copy)]
pub struct CallerFigures {
    /// Requests in progress.
    pub in_flight: i64,
    /// Finished requests.
    pub requests: u64,
    /// Requests that the gate refused with 401 or 403.
    pub refused_by_gate: u64,
    /// Requests that Metrica refused with 401 or 403.
    pub refused_by_upstream: u64,
    /// The time since the end of the latest request.
    pub last: Option<Duration>,
}

/// The figures of the connections to the upstream.
#[derive(Debug, Default)]
pub struct PoolFigures {
    /// Connections that carry a request.
    pub active: i64,
    /// Open connections without a request.
    pub idle: usize,
    /// Opened connections.
    pub opened: u64,
    /// Requests that got an existing connection.
    pub reused: u64,
    /// The waits of requests for a place.
    pub waits: Histogram,
    /// The durations of each step of opening a connection.
    pub steps: Vec<(ConnectStep, Histogram)>,
    /// The addresses, and the number of connections that were opened to each.
    pub addresses: Vec<(SocketAddr, u64)>,
}

/// The results of finished requests, for one plot.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Results {
    /// Responses of Metrica with a status below 400.
    pub fulfilled: u64,
    /// Responses with 401 or 403.
    pub refused: u64,
    /// Responses with 420 or 429.
    pub quota: u64,
    /// All others.
    pub other: u64,
}

/// The counts at one time, of which the difference to a later time is plotted.
#[derive(Debug, Default, Clone)]
pub struct Sample {
    /// The finished requests.
    pub results: Results,
    /// The responses with 401 or 403.
    pub refusals: FxHashMap<Refusal, u64>,
    /// The durations of the upstream.
    pub upstream: Histogram,
}

impl Results {
    fn count(&mut self, code: u16, origin: Origin, requests: u64) {
        let kind = match (code, origin) {
            (401 | 403, _) => &mut self.refused,
            (420 | 429, _) => &mut self.quota,
            (..=399, Origin::Upstream) => &mut self.fulfilled,
            (_, Origin::Gate | Origin::Upstream) => &mut self.other,
        };
        *kind += requests;
    }

    /// The number of requests.
    #[must_use]
    pub const fn total(self) -> u64 {
        self.fulfilled + self.refused + self.quota + self.other
    }
}

impl Sample {
    /// Returns the counts of `shard`.
    #[must_use]
    pub fn of(shard: &Shard) -> Self {
        let mut sample = Self::default();
        for meters in shard.callers.values() {
            for ((_, _, code, origin), requests) in &meters.requests {
                debug_assert!(*code != CALLER_GONE || *origin == Origin::Gate, "499 is never sent");
                sample.results.count(*code, *origin, *requests);
            }
        }
        for ((_, refusal), count) in shard.refusals.iter().filter(|(_, count)| **count > 0) {
            *sample.refusals.entry(*refusal).or_default() += count;
        }
        shard.upstream_durations.values().for_each(|durations| sample.upstream.add(durations));
        sample
    }

    /// Returns the counts between `earlier` and this sample.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let (now, before) = (self.results, earlier.results);
        let results = Results {
            fulfilled: now.fulfilled.saturating_sub(before.fulfilled),
            refused: now.refused.saturating_sub(before.refused),
            quota: now.quota.saturating_sub(before.quota),
            other: now.other.saturating_sub(before.other),
        };
        let more = |(refusal, count): (&Refusal, &u64)| {
            let before = earlier.refusals.get(refusal).map_or(0, |before| *before);
            (*refusal, count.saturating_sub(before))
        };
        let refusals = self.refusals.iter().map(more).filter(|(_, count)| *count > 0).collect();
        Self { results, refusals, upstream: self.upstream.since(&earlier.upstream) }
    }
}

impl Shard {
    /// Returns the figures of the status page.
    #[must_use]
    pub fn overview(&self) -> Overview {
        let mut overview = Overview::default();
        for (caller, meters) in &self.callers {
            let figures = overview.callers.entry(*caller).or_default();
            figures.in_flight = meters.in_flight;
            figures.requests = meters.requests.values().sum();
            figures.last = meters.last.map(|last| last.elapsed());
            for (token, totals) in meters.usage.by_token() {
                if let Some(token) = token {
                    *overview.token_requests.entry(token).or_default() += totals.requests;
                }
            }
        }
        for (failure, count) in &self.auth_failures {
            let figures = overview.callers.entry(failure.caller).or_default();
            match failure.refusal.origin() {
                Origin::Gate => figures.refused_by_gate += count,
                Origin::Upstream => figures.refused_by_upstream += count,
            }
        }
        overview.token_counters = self.token_counters.iter().map(|(token, counters)| (*token, *counters)).collect();
        overview.listeners = self.connections.iter().map(|(listener, connections)| (*listener, *connections)).collect();
        overview.pool = self.pool.figures();
        overview.operations =
            sorted(&self.upstream_durations).into_iter().map(|(operation, all)| (*operation, all.clone())).collect();
        overview.operations.sort_by_key(|(_, durations)| std::cmp::Reverse(durations.count()));
        let errors = sorted(&self.upstream_errors).into_iter().filter(|(_, count)| **count > 0);
        overview.errors = errors.map(|(kind, count)| (*kind, *count)).collect();
        overview
    }
}

#[cfg(test)]
mod tests {
    use metrica::cause::Cause;

    use super::*;
    use crate::policy::rejection::Reason;

    #[test]
    fn results_are_counted_by_status_and_origin() {
        let mut results = Results::default();
        for (code, origin) in [
            (200, Origin::Upstream),
            (304, Origin::Upstream),
            (401, Origin::Gate),
            (403, Origin::Upstream),
            (429, Origin::Gate),
            (420, Origin::Upstream),
            (500, Origin::Upstream),
            (404, Origin::Gate),
            (CALLER_GONE, Origin::Gate),
        ] {
            results.count(code, origin, 1);
        }
        assert_eq!(results, Results { fulfilled: 2, refused: 2, quota: 2, other: 3 });
        assert_eq!(results.total(), 9);
    }

    #[test]
    fn a_sample_contains_what_happened_since_an_earlier_one() {
        let (gate, upstream) = (Refusal::Gate(Reason::ScopeDenied), Refusal::Upstream(Cause::ScopeMissing));
        let sample = |gate_count, upstream_count| {
            let mut shard = Shard::default();
            shard.refusals.insert((None, gate), gate_count);
            shard.refusals.insert((Some(TokenAlias::new("a")), upstream), upstream_count);
            Sample::of(&shard)
        };
        let since = sample(3, 1).since(&sample(1, 1));
        assert_eq!(since.refusals.into_iter().collect::<Vec<_>>(), [(gate, 2)]);
    }

    #[test]
    fn quantiles_are_estimated_within_their_bucket() {
        let mut durations = Histogram::default();
        assert_eq!(durations.quantile(0.5), None);
        for milliseconds in [3, 3, 3, 200] {
            durations.observe(Duration::from_millis(milliseconds));
        }
        let median = durations.quantile(0.5).unwrap();
        assert!(median > 0.0 && median <= 0.005, "{median}");
        let highest = durations.quantile(0.99).unwrap();
        assert!(highest > 0.1 && highest <= 0.25, "{highest}");
        durations.observe(Duration::from_secs(1000));
        assert_eq!(durations.quantile(1.0), Some(120.0), "beyond the last bound, the bound is known");
        assert_eq!(durations.since(&durations.clone()).count(), 0);
    }
}

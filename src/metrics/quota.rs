//! The families of the quota broker.

use super::Shard;
use super::page::{Families, counter, gauge, histogram};
use crate::policy::names::CallerId;
use crate::quota::{LimitName, LimitRow, QuotaSnapshot};
use strict_http::number;

/// Adds the state of the broker, and the counts of requests that waited or were refused.
pub(super) fn fill(families: &mut Families, shard: &Shard, quota: &QuotaSnapshot) {
    let owners = quota.owners.iter().map(|row| (row.owner, &row.limits));
    let egresses = quota.egresses.iter().map(|(name, limits)| (*name, limits));
    for (owner, limits) in owners.chain(egresses) {
        limits.iter().for_each(|row| limit(families, owner, row));
    }
    for row in &quota.owners {
        for caller in &row.callers {
            let labels = [("owner", row.owner), ("caller", caller.caller)];
            families.quota_waiting.push(gauge(&labels, number::saturated::<i64>(caller.waiting)));
            let labels = [labels.as_slice(), &[("limit", LimitName::Day.as_str())]].concat();
            families.quota_spent.push(counter(&labels, caller.total));
        }
    }
    let mut callers: Vec<_> = quota.owners.iter().flat_map(|row| &row.callers).map(|row| row.caller).collect();
    callers.sort_unstable();
    callers.dedup();
    for caller in callers {
        let id = CallerId::new(caller);
        if let Some(meters) = shard.callers.get(&Some(id)) {
            families.quota_wait.push(histogram(&[("caller", caller)], &meters.quota_wait));
        }
        for limit in LimitName::ALL {
            let count = shard.quota_refused.get(&(Some(id), limit.as_str())).map_or(0, |count| *count);
            families.quota_refused.push(counter(&[("caller", caller), ("limit", limit.as_str())], count));
        }
    }
    for (limit, count) in &quota.observed {
        families.quota_observed.push(counter(&[("limit", limit)], *count));
    }
    for (limit, count) in &quota.learned {
        families.quota_learned.push(counter(&[("limit", limit)], *count));
    }
    families.quota_resent.push(counter(&[], quota.resent));
    if let Some(fleet) = &quota.fleet {
        families.quota_store_up.push(gauge(&[], fleet.is_store_up.into()));
        families.quota_degraded.push(counter(&[], fleet.degraded_seconds));
        families.quota_replicas.push(gauge(&[], fleet.replicas.into()));
        families.quota_leases_lost.push(counter(&[], fleet.leases_lost));
    }
}

fn limit(families: &mut Families, owner: &str, row: &LimitRow) {
    let labels = [("owner", owner), ("limit", row.limit)];
    families.quota_limit.push(gauge(&labels, row.effective.into()));
    families.quota_remaining.push(gauge(&labels, row.remaining.into()));
    if row.limit == LimitName::Parallel.as_str() {
        families.quota_in_use.push(gauge(&[("owner", owner)], row.used.into()));
    }
}

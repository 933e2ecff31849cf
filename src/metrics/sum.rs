//! Sums of counts: of workers, and of the kinds that one count has.

use rustc_hash::FxHashMap;

use super::{CallerMeters, Shard};

impl Shard {
    /// Adds the counts of another shard.
    pub fn add(&mut self, other: &Self) {
        // A field that is not added does not compile.
        let Self {
            since,
            callers,
            upstream_durations,
            auth_failures,
            refusals,
            quota_rejections,
            scope_drift,
            scopes_needed,
            denied,
            would_refuse,
            credentials_dropped,
            upstream_errors,
            caller_stalls,
            floods,
            handshakes,
            client_certificates_refused,
            service_account_tokens_refused,
            tunnels,
            condition_failures,
            likely_cut,
            account_retries,
            quota_refused,
            token_counters,
            other_owners,
            connections,
            pool,
            resent,
            marked,
            loop_lag,
        } = other;
        self.since = self.since.min(*since);
        for (caller, more) in callers {
            let CallerMeters { requests, duration, in_flight, quota_wait, request_bytes, response_bytes, usage, last } =
                more;
            let meters = self.callers.entry(*caller).or_default();
            add_counts(&mut meters.requests, requests);
            meters.duration.add(duration);
            meters.in_flight += *in_flight;
            meters.quota_wait.add(quota_wait);
            meters.request_bytes += *request_bytes;
            meters.response_bytes += *response_bytes;
            meters.usage.add(usage);
            meters.last = meters.last.max(*last);
        }
        for (operation, more) in upstream_durations {
            self.upstream_durations.entry(*operation).or_default().add(more);
        }
        add_counts(&mut self.auth_failures, auth_failures);
        add_counts(&mut self.refusals, refusals);
        add_counts(&mut self.quota_rejections, quota_rejections);
        add_counts(&mut self.scope_drift, scope_drift);
        for (key, needed) in scopes_needed {
            let known = self.scopes_needed.entry(*key).or_default();
            *known = (*known).max(*needed);
        }
        add_counts(&mut self.denied, denied);
        add_counts(&mut self.would_refuse, would_refuse);
        add_counts(&mut self.credentials_dropped, credentials_dropped);
        add_counts(&mut self.upstream_errors, upstream_errors);
        add_counts(&mut self.caller_stalls, caller_stalls);
        self.floods += *floods;
        add_counts(&mut self.handshakes, handshakes);
        add_counts(&mut self.client_certificates_refused, client_certificates_refused);
        add_counts(&mut self.service_account_tokens_refused, service_account_tokens_refused);
        add_counts(&mut self.tunnels, tunnels);
        add_counts(&mut self.condition_failures, condition_failures);
        self.likely_cut += *likely_cut;
        add_counts(&mut self.account_retries, account_retries);
        add_counts(&mut self.quota_refused, quota_refused);
        for (token, counters) in token_counters {
            let known = self.token_counters.entry(*token).or_default();
            *known = (*known).max(*counters);
        }
        for (token, it_is) in other_owners {
            *self.other_owners.entry(*token).or_default() |= it_is;
        }
        for (listener, more) in connections {
            let sum = self.connections.entry(*listener).or_default();
            sum.accepted += more.accepted;
            sum.open += more.open;
        }
        self.pool.add(pool);
        add_counts(&mut self.resent, resent);
        add_counts(&mut self.marked, marked);
        self.loop_lag.add(loop_lag);
    }
}

pub(super) fn add_counts<K: std::hash::Hash + Eq + Copy>(counts: &mut FxHashMap<K, u64>, more: &FxHashMap<K, u64>) {
    for (key, count) in more {
        *counts.entry(*key).or_default() += count;
    }
}

//! The page that Prometheus scrapes. Only this module and the table of families use the metrics library.

use std::collections::HashMap;

use metrica::operation::Verb;
use prometheus::core::Collector;
use prometheus::proto::{self, LabelPair, Metric};
use strict_http::number;

pub use super::families::FAMILIES;
pub(super) use super::families::Families;
use super::process::{Confinement, ConnectionLimit, Outcome, ProcessMeters, Reloads};
use super::{BUCKETS, Histogram, Shard, connections, usage};
use crate::files::descriptors::DescriptorNeed;
use crate::quota::QuotaSnapshot;

/// Renders the page in the text format 0.0.4.
///
/// # Errors
/// A family without metrics or without a name.
pub fn text(shard: &Shard, process: &ProcessMeters, quota: Option<&QuotaSnapshot>) -> prometheus::Result<String> {
    let mut families = Families::default();
    callers(shard, &mut families);
    refusals(shard, &mut families);
    usage::fill(&mut families, shard);
    connections::fill(&mut families, shard);
    of_the_process(process, &mut families);
    if let Some(quota) = quota {
        super::quota::fill(&mut families, shard, quota);
    }
    let mut page = families.into_page();
    page.extend(prometheus::process_collector::ProcessCollector::for_self().collect());
    prometheus::TextEncoder::new().encode_to_string(&page)
}

fn callers(shard: &Shard, families: &mut Families) {
    for (caller, meters) in sorted(&shard.callers) {
        let caller = [("caller", caller.map_or("unknown", |caller| caller.as_str()))];
        for ((operation, verb, code, origin), count) in sorted(&meters.requests) {
            let operation = operation.map_or("none", |operation| operation.as_str());
            let mut code_digits = itoa::Buffer::new();
            let rest = [
                ("operation", operation),
                ("method", verb.map_or("other", Verb::as_str)),
                ("code", code_digits.format(*code)),
                ("origin", origin.as_str()),
            ];
            families.requests.push(counter(&[caller.as_slice(), &rest].concat(), *count));
        }
        families.request_duration.push(histogram(&caller, &meters.duration));
        families.in_flight.push(gauge(&caller, meters.in_flight));
        families.request_bytes.push(counter(&caller, meters.request_bytes));
        families.response_bytes.push(counter(&caller, meters.response_bytes));
    }
    families.likely_cut.push(gauge(&[], number::saturated(shard.likely_cut)));
    for (operation, durations) in sorted(&shard.upstream_durations) {
        families.upstream_duration.push(histogram(&[("operation", operation.as_str())], durations));
    }
}

fn refusals(shard: &Shard, families: &mut Families) {
    for (token, counters) in sorted(&shard.token_counters) {
        let labels = [("token", token.as_str())];
        families.token_counters.push(gauge(&labels, number::saturated::<i64>(*counters)));
    }
    for (token, it_is) in sorted(&shard.other_owners) {
        families.token_of_another.push(gauge(&[("token", token.as_str())], i64::from(*it_is)));
    }
    let caller_name =
        |caller: Option<crate::policy::names::CallerId>| caller.map_or("unknown", |caller| caller.as_str());
    for (failure, count) in sorted(&shard.auth_failures) {
        let mut code_digits = itoa::Buffer::new();
        let labels = [
            ("origin", failure.refusal.origin().as_str()),
            ("caller", caller_name(failure.caller)),
            ("token", failure.token.map_or("none", |token| token.as_str())),
            ("operation", failure.operation.map_or("none", |operation| operation.as_str())),
            ("code", code_digits.format(failure.code)),
            ("reason", failure.refusal.reason()),
        ];
        families.auth_failures.push(counter(&labels, *count));
    }
    for ((token, refusal), count) in sorted(&shard.refusals) {
        let token = token.map_or("none", |token| token.as_str());
        let labels = [("origin", refusal.origin().as_str()), ("token", token), ("reason", refusal.reason())];
        families.refusals.push(counter(&labels, *count));
    }
    for ((token, reason), count) in sorted(&shard.quota_rejections) {
        families.quota_rejections.push(counter(&[("token", token.as_str()), ("reason", reason.as_str())], *count));
    }
    for ((token, operation), count) in sorted(&shard.scope_drift) {
        let operation = operation.map_or("none", |operation| operation.as_str());
        families.scope_drift.push(counter(&[("token", token.as_str()), ("operation", operation)], *count));
    }
    for ((token, scope), needed) in sorted(&shard.scopes_needed) {
        let unused = needed.unwrap_or(shard.since).elapsed().as_secs();
        let labels = [("token", token.as_str()), ("scope", scope.as_str())];
        families.scope_unused.push(gauge(&labels, number::saturated(unused)));
    }
    for ((caller, reason), count) in sorted(&shard.denied) {
        families.denied.push(counter(&[("caller", caller_name(*caller)), ("reason", reason.as_str())], *count));
    }
    for ((caller, operation, reason), count) in sorted(&shard.would_refuse) {
        let operation = operation.map_or("none", |operation| operation.as_str());
        let labels = [("caller", caller_name(*caller)), ("operation", operation), ("reason", reason.as_str())];
        families.would_refuse.push(counter(&labels, *count));
    }
    for ((caller, kind), count) in sorted(&shard.credentials_dropped) {
        let labels = [("caller", caller_name(*caller)), ("kind", kind.as_str())];
        families.credentials_dropped.push(counter(&labels, *count));
    }
    for ((caller, stall), count) in sorted(&shard.caller_stalls) {
        let labels = [("caller", caller_name(*caller)), ("waited_for", stall.as_str())];
        families.caller_stalls.push(counter(&labels, *count));
    }
    for (token, count) in sorted(&shard.account_retries) {
        families.account_retries.push(counter(&[("token", token.as_str())], *count));
    }
    for ((caller, operation, mark), count) in sorted(&shard.marked) {
        let labels = [("caller", caller.as_str()), ("operation", operation.as_str()), ("mark", mark.as_str())];
        families.marked.push(counter(&labels, *count));
    }
    for (reason, count) in sorted(&shard.resent) {
        families.resent.push(counter(&[("reason", reason.as_str())], *count));
    }
    families.loop_lag.push(histogram(&[], &shard.loop_lag));
    families.floods.push(counter(&[], shard.floods));
    for (result, count) in sorted(&shard.handshakes) {
        families.handshakes.push(counter(&[("result", result.as_str())], *count));
    }
    for (fault, count) in sorted(&shard.client_certificates_refused) {
        families.client_certificates_refused.push(counter(&[("reason", fault.as_str())], *count));
    }
    for (fault, count) in sorted(&shard.service_account_tokens_refused) {
        families.service_account_tokens_refused.push(counter(&[("reason", fault.as_str())], *count));
    }
    for (content, count) in sorted(&shard.tunnels) {
        families.tunnels.push(counter(&[("content", content.as_str())], *count));
    }
    for ((listener, condition), count) in sorted(&shard.condition_failures) {
        let labels = [("listener", listener.as_str()), ("condition", condition.key())];
        families.condition_failures.push(counter(&labels, *count));
    }
    for (kind, count) in sorted(&shard.upstream_errors) {
        families.upstream_errors.push(counter(&[("kind", kind.as_str())], *count));
    }
}

fn of_the_process(process: &ProcessMeters, families: &mut Families) {
    let state = process.read();
    for (alias, token) in &state.token_states {
        let labels = [("token", alias.as_str())];
        families.token_loaded.push(gauge(&labels, i64::from(token.loaded)));
        for (name, is_it) in token.states() {
            families.token_state.push(gauge(&[labels[0], ("state", name)], i64::from(is_it)));
        }
        families.token_allow_mode.push(gauge(&labels, i64::from(token.allow_mode)));
        if let Some(in_use) = token.standby_in_use {
            families.standby_in_use.push(gauge(&labels, i64::from(in_use)));
            families.standby_switches.push(counter(&labels, token.standby_switches));
        }
        if let Some(expires) = token.expires {
            families.token_expires.push(gauge(&labels, number::saturated(expires)));
        }
        if let Some(worked_at) = token.worked_at {
            families.token_worked.push(gauge(&labels, number::saturated(worked_at)));
        }
        families.token_loaded_at.push(gauge(&labels, number::saturated(token.loaded_at)));
    }
    for (listener, end) in &state.certificates {
        families.certificate_expires.push(gauge(&[("listener", listener.as_str())], number::saturated(*end)));
    }
    for (listener, end) in &state.authorities {
        families.authority_expires.push(gauge(&[("listener", listener.as_str())], number::saturated(*end)));
    }
    for (key, end) in &state.ca_files {
        families.ca_expires.push(gauge(&[("key", key.as_str())], number::saturated(*end)));
    }
    families.config_hash.push(gauge(&[], number::saturated(state.config_hash)));
    if let Some(keys) = &state.key_set {
        families.service_account_keys.push(gauge(&[], number::saturated(keys.keys)));
        families.service_account_keys_time.push(gauge(&[], number::saturated(keys.at)));
        families.service_account_key_requests = by_outcome(&keys.requests);
    }
    families.token_reloads = by_outcome(&state.tokens);
    families.config_reloads = by_outcome(&state.config);
    families.config_last_successful.push(gauge(&[], i64::from(state.config.last_succeeded)));
    families.config_last_success.push(gauge(&[], number::saturated(state.config.last_success)));
    for limit in ConnectionLimit::ALL {
        let refused = process.connections_refused(limit);
        families.connections_refused.push(counter(&[("limit", limit.as_str())], refused));
    }
    for need in DescriptorNeed::ALL {
        families.descriptor_shortages.push(counter(&[("needed_for", need.as_str())], need.shortages()));
    }
    families.sockets_bound_again.push(counter(&[], process.sockets_bound_again()));
    families.address_only_callers.push(gauge(&[], number::saturated(process.address_only_callers())));
    for (purpose, requests) in process.own_requests_now() {
        families.own_requests.push(counter(&[("purpose", purpose.as_str())], requests));
    }
    let (stalled, stalls) = process.worker_stalls();
    families.workers_stalled.push(gauge(&[], number::saturated(stalled)));
    families.worker_stalls.push(counter(&[], stalls));
    families.log_lines_dropped.push(counter(&[], process.lines_dropped()));
    if let Some(state) = process.confinement() {
        families.sandbox =
            Confinement::ALL.map(|one| gauge(&[("state", one.as_str())], i64::from(one == state))).into();
    }
    families.build.push(gauge(&[("version", env!("CARGO_PKG_VERSION")), ("tls_provider", "aws-lc-rs")], 1));
}

fn by_outcome(reloads: &Reloads) -> Vec<Metric> {
    let count = |outcome| match outcome {
        Outcome::Success => reloads.succeeded,
        Outcome::Failure => reloads.failed,
    };
    Outcome::ALL.map(|outcome| counter(&[("outcome", outcome.as_str())], count(outcome))).into()
}

pub(super) fn sorted<K: Ord, V, S>(map: &HashMap<K, V, S>) -> Vec<(&K, &V)> {
    let mut entries: Vec<_> = map.iter().collect();
    entries.sort_unstable_by_key(|(key, _)| *key);
    entries
}

fn labelled(labels: &[(&str, &str)]) -> Metric {
    let pair = |(name, value): &(&str, &str)| {
        let mut pair = LabelPair::default();
        pair.set_name((*name).to_owned());
        pair.set_value((*value).to_owned());
        pair
    };
    Metric::from_label(labels.iter().map(pair).collect())
}

#[expect(clippy::as_conversions, clippy::cast_precision_loss, reason = "the format has floating-point numbers only")]
pub(super) fn counter(labels: &[(&str, &str)], value: u64) -> Metric {
    let mut metric = labelled(labels);
    let mut counter = proto::Counter::default();
    counter.set_value(value as f64);
    metric.set_counter(counter);
    metric
}

#[expect(clippy::as_conversions, clippy::cast_precision_loss, reason = "the format has floating-point numbers only")]
pub(super) fn gauge(labels: &[(&str, &str)], value: i64) -> Metric {
    let mut metric = labelled(labels);
    let mut gauge = proto::Gauge::default();
    gauge.set_value(value as f64);
    metric.set_gauge(gauge);
    metric
}

pub(super) fn histogram(labels: &[(&str, &str)], durations: &Histogram) -> Metric {
    let mut metric = labelled(labels);
    let mut histogram = proto::Histogram::default();
    let mut total = 0;
    let bucket = |(bound, count): (&f64, &u64)| {
        total += count;
        let mut bucket = proto::Bucket::default();
        bucket.set_upper_bound(*bound);
        bucket.set_cumulative_count(total);
        bucket
    };
    let buckets = BUCKETS.iter().zip(&durations.counts).map(bucket).collect();
    histogram.set_bucket(buckets);
    histogram.set_sample_count(durations.counts.iter().sum());
    histogram.set_sample_sum(durations.sum);
    metric.set_histogram(histogram);
    metric
}

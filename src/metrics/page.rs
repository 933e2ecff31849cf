//! The page that Prometheus scrapes. No other module uses the metrics library.

use std::collections::HashMap;

use metrica::operation::Verb;
use prometheus::core::Collector;
use prometheus::proto::{self, LabelPair, Metric, MetricFamily, MetricType};
use strict_http::number;

use super::process::{Confinement, ConnectionLimit, Outcome, ProcessMeters, Reloads};
use super::{BUCKETS, Histogram, Shard, usage};
use crate::files::descriptors::DescriptorNeed;

macro_rules! families {
    ($($field:ident: $kind:ident, $name:literal, $labels:literal, $help:literal;)*) => {
        /// Name, type, labels and help of every family, in the order of the page.
        pub const FAMILIES: &[(&str, &str, &str, &str)] = &[$(($name, stringify!($kind), $labels, $help)),*];

        #[derive(Default)]
        struct Families { $($field: Vec<Metric>,)* }

        impl Families {
            fn into_page(self) -> Vec<MetricFamily> {
                let mut page = Vec::new();
                $(
                    if !self.$field.is_empty() {
                        let mut family = MetricFamily::default();
                        family.set_name($name.to_owned());
                        family.set_help($help.to_owned());
                        family.set_field_type(MetricType::$kind);
                        family.set_metric(self.$field);
                        page.push(family);
                    }
                )*
                page
            }
        }
    };
}

families! {
    requests: COUNTER, "metrika_gate_requests_total", "caller, operation, method, code, origin",
        "Requests that ended, by the status that was answered and by whose it was (origin upstream: Metrica's, passed on; gate: the gate's own); 499 is a caller that went away before, or one that the gate cut when it ended.";
    request_duration: HISTOGRAM, "metrika_gate_request_duration_seconds", "caller",
        "From the head of a request to the end of its answer.";
    upstream_duration: HISTOGRAM, "metrika_gate_upstream_duration_seconds", "operation",
        "From the start of sending a request to the head of Metrica's answer.";
    in_flight: GAUGE, "metrika_gate_in_flight_requests", "caller",
        "Requests under way.";
    likely_cut: GAUGE, "metrika_gate_requests_likely_cut", "",
        "Requests under way that are likely to be cut when the process ends; 0 until it is told to.";
    auth_failures: COUNTER, "metrika_gate_auth_failures_total", "origin, caller, token, operation, code, reason",
        "Every 401 and 403, of the gate itself (origin gate) and of Metrica (origin upstream), with the reason that X-Gate-Reason says.";
    refusals: COUNTER, "metrika_gate_refusals_total", "origin, token, reason",
        "The same without callers and operations, for alerts: each token and reason is there from the start, at zero; refusals of the gate have the token none.";
    quota_rejections: COUNTER, "metrika_gate_quota_rejections_total", "token, reason",
        "Answers of Metrica with 429 or 420.";
    scope_drift: COUNTER, "metrika_gate_scope_drift_total", "token, operation",
        "Refusals of Metrica for a scope that the token is declared to have: the declaration or the catalogue is wrong.";
    scope_unused: GAUGE, "metrika_gate_token_scope_unused_seconds", "token, scope",
        "Seconds since a request last needed a declared scope of a token, or since the process began where none did: one that nobody needs makes the token too wide.";
    denied: COUNTER, "metrika_gate_denied_total", "caller, reason",
        "Answers of the gate itself, of any status.";
    would_refuse: COUNTER, "metrika_gate_would_refuse_total", "caller, operation, reason",
        "Requests of callers with enforce: false that their scopes or rules would refuse.";
    credentials_dropped: COUNTER, "metrika_gate_credentials_dropped_total", "caller, kind",
        "Credentials that callers sent and that did not leave.";
    upstream_errors: COUNTER, "metrika_gate_upstream_errors_total", "kind",
        "Requests to Metrica that failed below HTTP, broke off, or got an answer that was not passed on as it came.";
    caller_stalls: COUNTER, "metrika_gate_caller_stalls_total", "caller, waited_for",
        "Requests that were given up because their caller sent no more of the request, or took no more of the answer, for timeouts.body_idle.";
    account_retries: COUNTER, "metrika_gate_account_retries_total", "token",
        "Reads that Metrica denied with this token and that were sent once more with a token of another account.";
    token_counters: GAUGE, "metrika_gate_token_counters", "token",
        "Counters on which a permission of the token's owner is known.";
    request_bytes: COUNTER, "metrika_gate_request_bytes_total", "caller",
        "Bytes of request bodies received.";
    response_bytes: COUNTER, "metrika_gate_response_bytes_total", "caller",
        "Bytes of answers' bodies passed on.";
    usage_requests: COUNTER, "metrika_gate_usage_requests_total", "caller, operation, group",
        "Requests that ended, by the group of the counters that they name (counter_groups; other is of no group, none names none).";
    usage_request_bytes: COUNTER, "metrika_gate_usage_request_bytes_total", "caller, operation, group",
        "Bytes of their bodies.";
    usage_response_bytes: COUNTER, "metrika_gate_usage_response_bytes_total", "caller, operation, group",
        "Bytes of the bodies of their answers.";
    usage_refusals: COUNTER, "metrika_gate_usage_refusals_total", "caller, operation, group",
        "Those of them that got 401 or 403, of the gate or of Metrica.";
    usage_quota: COUNTER, "metrika_gate_usage_quota_answers_total", "caller, operation, group",
        "Those of them that got 420 or 429 of Metrica.";
    token_loaded: GAUGE, "metrika_gate_token_loaded", "token",
        "1 when a token was read from its file, 0 when that is missing or was never valid; whether Metrica takes it says metrika_gate_token_state.";
    token_state: GAUGE, "metrika_gate_token_state", "token, state",
        "1 for the state of the token: healthy, suspect (a request was refused as if it were invalid, a probe finds out), suspended (Metrica rejects it in the answer to a probe too), outage (the same, of tokens of several owners at once) or missing.";
    own_requests: COUNTER, "metrika_gate_own_requests_total", "purpose",
        "Requests that the gate sent by itself: token_probe (does Metrica accept the token), follow_up (why was a request refused), identity (who issued the token), counters (which counters its account has).";
    token_allow_mode: GAUGE, "metrika_gate_token_allow_mode", "token",
        "1 when allow_mode lets the token's file, where its mount is read-only, be readable by others and of any owner.";
    token_of_another: GAUGE, "metrika_gate_token_of_another_account", "token",
        "1 when the token was issued by another account than its key owner names, by what Yandex ID (identity) or a counter of the account's own says.";
    token_expires: GAUGE, "metrika_gate_token_expiry_timestamp_seconds", "token",
        "When the token ends, where the configuration says so.";
    token_loaded_at: GAUGE, "metrika_gate_token_loaded_timestamp_seconds", "token",
        "When the token in use was read.";
    token_reloads: COUNTER, "metrika_gate_token_reloads_total", "outcome",
        "Reloads of token files; after a failure the old token stays in use, but a file that is gone takes its token away. The start does not count.";
    config_reloads: COUNTER, "metrika_gate_config_reloads_total", "outcome",
        "Loads of the configuration, of which the start is the first; after a failure the old one stays in use.";
    config_last_successful: GAUGE, "metrika_gate_config_last_reload_successful", "",
        "1 when the last load of the configuration succeeded.";
    config_last_success: GAUGE, "metrika_gate_config_last_reload_success_timestamp_seconds", "",
        "When the configuration in use was loaded.";
    connections_refused: COUNTER, "metrika_gate_connections_refused_total", "limit",
        "Connections of callers beyond limits.connections or limits.connections_per_peer.";
    descriptor_shortages: COUNTER, "metrika_gate_descriptor_shortages_total", "needed_for",
        "How often there was no descriptor for a connection of a caller, to the upstream or of the admin listener, or for a file.";
    sockets_bound_again: COUNTER, "metrika_gate_sockets_bound_again_total", "",
        "How often the file of a unix socket was removed, so that the socket was bound again.";
    address_only_callers: GAUGE, "metrika_gate_address_only_callers", "",
        "Callers that are known by nothing but an address on a network, which is a weak proof.";
    floods: COUNTER, "metrika_gate_floods_total", "",
        "Connections of callers that a flood ended: frames of HTTP/2 that bring nothing, or requests that are given up.";
    workers_stalled: GAUGE, "metrika_gate_workers_stalled", "",
        "Workers that have not come back to their loop for two seconds or more: their connections are not served.";
    worker_stalls: COUNTER, "metrika_gate_worker_stalls_total", "",
        "How often a worker did not come back to its loop for two seconds.";
    log_lines_dropped: COUNTER, "metrika_gate_log_lines_dropped_total", "",
        "Log lines that were not written: whoever reads the log was too slow or is gone, or its disk is full.";
    sandbox: GAUGE, "metrika_gate_sandbox", "state",
        "1 for how far the kernel confines the process to what it needs: full, partial, none, or off by configuration.";
    build: GAUGE, "metrika_gate_build_info", "version, tls_provider",
        "Always 1.";
}

/// Renders the page in the text format 0.0.4.
///
/// # Errors
/// A family without metrics or without a name.
pub fn text(shard: &Shard, process: &ProcessMeters) -> prometheus::Result<String> {
    let mut families = Families::default();
    callers(shard, &mut families);
    refusals(shard, &mut families);
    ledger(shard, &mut families);
    of_the_process(process, &mut families);
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
        families.token_counters.push(gauge(&labels, i64::try_from(*counters).unwrap_or(i64::MAX)));
    }
    for (token, it_is) in sorted(&shard.other_owners) {
        families.token_of_another.push(gauge(&[("token", token.as_str())], i64::from(*it_is)));
    }
    let caller_name = |caller: Option<crate::names::CallerId>| caller.map_or("unknown", |caller| caller.as_str());
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
    families.floods.push(counter(&[], shard.floods));
    for (kind, count) in sorted(&shard.upstream_errors) {
        families.upstream_errors.push(counter(&[("kind", kind.as_str())], *count));
    }
}

fn ledger(shard: &Shard, families: &mut Families) {
    for row in usage::rows(shard) {
        let labels = [("caller", row.caller), ("operation", row.operation), ("group", row.group)];
        let totals = row.totals;
        families.usage_requests.push(counter(&labels, totals.requests));
        families.usage_request_bytes.push(counter(&labels, totals.request_bytes));
        families.usage_response_bytes.push(counter(&labels, totals.response_bytes));
        families.usage_refusals.push(counter(&labels, totals.refusals));
        families.usage_quota.push(counter(&labels, totals.quota_answers));
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
        if let Some(expires) = token.expires {
            families.token_expires.push(gauge(&labels, number::saturated(expires)));
        }
        families.token_loaded_at.push(gauge(&labels, number::saturated(token.loaded_at)));
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

fn sorted<K: Ord, V, S>(map: &HashMap<K, V, S>) -> Vec<(&K, &V)> {
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
fn counter(labels: &[(&str, &str)], value: u64) -> Metric {
    let mut metric = labelled(labels);
    let mut counter = proto::Counter::default();
    counter.set_value(value as f64);
    metric.set_counter(counter);
    metric
}

#[expect(clippy::as_conversions, clippy::cast_precision_loss, reason = "the format has floating-point numbers only")]
fn gauge(labels: &[(&str, &str)], value: i64) -> Metric {
    let mut metric = labelled(labels);
    let mut gauge = proto::Gauge::default();
    gauge.set_value(value as f64);
    metric.set_gauge(gauge);
    metric
}

fn histogram(labels: &[(&str, &str)], durations: &Histogram) -> Metric {
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

//! The page that Prometheus scrapes. No other module uses the metrics library.

use std::collections::HashMap;

use metrica::operation::Verb;
use prometheus::core::Collector;
use prometheus::proto::{self, LabelPair, Metric, MetricFamily, MetricType};
use strict_http::number;

use super::process::{Confinement, ConnectionLimit, Outcome, ProcessMeters, Reloads};
use super::{BUCKETS, Histogram, Shard, usage};
use crate::files::descriptors::DescriptorNeed;
use crate::quota::QuotaSnapshot;

macro_rules! families {
    ($($field:ident: $kind:ident, $name:literal, $labels:literal, $help:literal;)*) => {
        /// Name, type, labels and help of every family, in the order of the page.
        pub const FAMILIES: &[(&str, &str, &str, &str)] = &[$(($name, stringify!($kind), $labels, $help)),*];

        /// The metrics of every family.
        #[derive(Default)]
        pub(super) struct Families { $(pub(super) $field: Vec<Metric>,)* }

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
        "Completed requests, by status and origin (upstream: a response of Metrica; gate: a response of the gate); 499 counts callers that disconnected early or were cut off at shutdown.";
    request_duration: HISTOGRAM, "metrika_gate_request_duration_seconds", "caller",
        "Seconds from the head of a request to the end of its response.";
    upstream_duration: HISTOGRAM, "metrika_gate_upstream_duration_seconds", "operation",
        "Seconds from the start of sending a request to the head of Metrica's response.";
    in_flight: GAUGE, "metrika_gate_in_flight_requests", "caller",
        "Requests in progress.";
    likely_cut: GAUGE, "metrika_gate_requests_likely_cut", "",
        "Requests in progress that shutdown is likely to cut; 0 before a shutdown.";
    auth_failures: COUNTER, "metrika_gate_auth_failures_total", "origin, caller, token, operation, code, reason",
        "Responses with 401 or 403 from the gate (origin gate) and from Metrica (origin upstream), with the reason that X-Gate-Reason reports.";
    refusals: COUNTER, "metrika_gate_refusals_total", "origin, token, reason",
        "Responses with 401 or 403 without callers and operations, for alerts: each token and reason exists from the start, at zero; refusals of the gate have the token none.";
    quota_rejections: COUNTER, "metrika_gate_quota_rejections_total", "token, reason",
        "Responses of Metrica with 429 or 420.";
    scope_drift: COUNTER, "metrika_gate_scope_drift_total", "token, operation",
        "Refusals of Metrica for lack of a scope that the token declares: the declaration or the catalogue is wrong.";
    scope_unused: GAUGE, "metrika_gate_token_scope_unused_seconds", "token, scope",
        "Seconds since a request last needed a declared scope of a token, or since the process started; an unneeded scope gives the token too many rights.";
    denied: COUNTER, "metrika_gate_denied_total", "caller, reason",
        "Responses of the gate itself, with any status.";
    would_refuse: COUNTER, "metrika_gate_would_refuse_total", "caller, operation, reason",
        "Requests of callers with enforce: false that their scopes or rules would refuse.";
    credentials_dropped: COUNTER, "metrika_gate_credentials_dropped_total", "caller, kind",
        "Credentials that callers sent and the gate removed.";
    upstream_errors: COUNTER, "metrika_gate_upstream_errors_total", "kind",
        "Requests to Metrica that failed below HTTP, ended prematurely, or got a response that the gate did not forward unchanged.";
    caller_stalls: COUNTER, "metrika_gate_caller_stalls_total", "caller, waited_for",
        "Aborted requests whose caller did not send more of the request, or receive more of the response, for timeouts.body_idle.";
    account_retries: COUNTER, "metrika_gate_account_retries_total", "token",
        "Reads that Metrica denied with this token and that the gate repeated with a token of another account.";
    token_counters: GAUGE, "metrika_gate_token_counters", "token",
        "Counters on which a permission of the token's owner is known.";
    quota_in_use: GAUGE, "metrika_gate_quota_in_use", "owner",
        "Requests of an account that Metrica processes now, of the parallel requests that it allows.";
    quota_limit: GAUGE, "metrika_gate_quota_limit", "owner, limit",
        "The number that a limit allows now, of an account or, for by_ip and logs_by_ip, of an egress address. It is lower than configured while the gate has learned that less is left.";
    quota_remaining: GAUGE, "metrika_gate_quota_remaining", "owner, limit",
        "The rest of what a limit allows now.";
    quota_waiting: GAUGE, "metrika_gate_quota_waiting", "owner, caller",
        "Requests that wait for a limit of an account.";
    quota_spent: COUNTER, "metrika_gate_quota_spent_total", "owner, caller, limit",
        "Requests of a caller that an account was charged for.";
    quota_wait: HISTOGRAM, "metrika_gate_quota_wait_seconds", "caller",
        "Time that requests waited for their turn; those that did not wait count too.";
    quota_refused: COUNTER, "metrika_gate_quota_refused_total", "caller, limit",
        "Requests that the gate refused because of a limit (429), by the limit.";
    quota_observed: COUNTER, "metrika_gate_quota_observed_total", "limit",
        "Requests that would have waited for a limit with mode: observe.";
    quota_learned: COUNTER, "metrika_gate_quota_learned_total", "limit",
        "Refusals by Metrica (420, 429) from which the gate learned that less is left of a limit than it counted.";
    quota_resent: COUNTER, "metrika_gate_quota_resent_total", "",
        "Requests that Metrica refused because of a quota and that the gate sent again.";
    quota_store_up: GAUGE, "metrika_gate_quota_store_up", "",
        "1 while the store decides in which gates share the quotas, 0 while the gate goes on without it.";
    quota_degraded: COUNTER, "metrika_gate_quota_degraded_seconds_total", "",
        "Seconds in which the gate went on without the store.";
    quota_replicas: GAUGE, "metrika_gate_quota_replicas", "",
        "Gates that share the store, as far as this one has seen.";
    quota_leases_lost: COUNTER, "metrika_gate_quota_leases_lost_total", "",
        "Requests in flight whose slot had become free in the store before they ended.";
    request_bytes: COUNTER, "metrika_gate_request_bytes_total", "caller",
        "Bytes of request bodies received.";
    response_bytes: COUNTER, "metrika_gate_response_bytes_total", "caller",
        "Bytes of response bodies forwarded.";
    usage_requests: COUNTER, "metrika_gate_usage_requests_total", "caller, operation, group",
        "Completed requests, by the group of their counters (counter_groups; other: a counter without a group; none: no counter).";
    usage_request_bytes: COUNTER, "metrika_gate_usage_request_bytes_total", "caller, operation, group",
        "Bytes of request bodies, by group of counters.";
    usage_response_bytes: COUNTER, "metrika_gate_usage_response_bytes_total", "caller, operation, group",
        "Bytes of response bodies, by group of counters.";
    usage_refusals: COUNTER, "metrika_gate_usage_refusals_total", "caller, operation, group",
        "Requests that got 401 or 403 from the gate or from Metrica, by group of counters.";
    usage_quota: COUNTER, "metrika_gate_usage_quota_answers_total", "caller, operation, group",
        "Requests that got 420 or 429 from Metrica, by group of counters.";
    token_loaded: GAUGE, "metrika_gate_token_loaded", "token",
        "1 if a token was loaded from its file, 0 if the file is missing or was never valid; metrika_gate_token_state reports whether Metrica accepts it.";
    token_state: GAUGE, "metrika_gate_token_state", "token, state",
        "1 for the current state of the token: healthy, suspect (a request was refused as if the token were invalid; a probe is due), suspended (Metrica rejects the token in a probe too), outage (as suspended, for tokens of several owners at once) or missing.";
    own_requests: COUNTER, "metrika_gate_own_requests_total", "purpose",
        "Requests that the gate sent on its own: token_probe (does Metrica accept the token), follow_up (why was a request refused), identity (who issued the token), counters (which counters does its account have).";
    token_allow_mode: GAUGE, "metrika_gate_token_allow_mode", "token",
        "1 if allow_mode permits the token's file, on a read-only mount, to be readable by others and to have any owner.";
    token_of_another: GAUGE, "metrika_gate_token_of_another_account", "token",
        "1 if the token was issued by another account than its key owner names, according to Yandex ID (identity) or to a counter that the account owns.";
    token_expires: GAUGE, "metrika_gate_token_expiry_timestamp_seconds", "token",
        "Unix time of the expiry of the token: the one that its login or renewal has shown, otherwise the configured one.";
    token_worked: GAUGE, "metrika_gate_token_last_success_timestamp_seconds", "token",
        "Unix time at which the token is known to have worked last: a request that Metrica accepted, its login or its renewal; absent until then. An unused token dies after a year.";
    token_loaded_at: GAUGE, "metrika_gate_token_loaded_timestamp_seconds", "token",
        "Unix time at which the token in use was loaded.";
    token_reloads: COUNTER, "metrika_gate_token_reloads_total", "outcome",
        "Reloads of token files, without the start. After a failure the old token stays in use, unless its file was removed.";
    certificate_expires: GAUGE, "metrika_gate_certificate_expiry_timestamp_seconds", "listener",
        "Unix time at which the certificate of the listener expires.";
    config_reloads: COUNTER, "metrika_gate_config_reloads_total", "outcome",
        "Loads of the configuration, including the start. After a failure the previous one stays in use.";
    config_last_successful: GAUGE, "metrika_gate_config_last_reload_successful", "",
        "1 if the last load of the configuration succeeded.";
    config_last_success: GAUGE, "metrika_gate_config_last_reload_success_timestamp_seconds", "",
        "Unix time at which the configuration in use was loaded.";
    connections_refused: COUNTER, "metrika_gate_connections_refused_total", "limit",
        "Refused connections of callers beyond limits.connections or limits.connections_per_peer.";
    descriptor_shortages: COUNTER, "metrika_gate_descriptor_shortages_total", "needed_for",
        "Failures for lack of a file descriptor: a connection of a caller, to the upstream or of the admin listener, or a file.";
    sockets_bound_again: COUNTER, "metrika_gate_sockets_bound_again_total", "",
        "Unix sockets that the gate bound again because their file was removed.";
    address_only_callers: GAUGE, "metrika_gate_address_only_callers", "",
        "Callers that are identified only by a network address, which is weak evidence.";
    floods: COUNTER, "metrika_gate_floods_total", "",
        "Connections of callers closed for flooding: HTTP/2 frames without content, or requests that are reset.";
    handshakes: COUNTER, "metrika_gate_tls_handshakes_total", "result",
        "TLS handshakes with callers: new and resumed sessions, failures, and timeouts.";
    client_certificates_refused: COUNTER, "metrika_gate_client_certificates_refused_total", "reason",
        "TLS handshakes that failed because of the client's certificate: missing, expired, not_yet_valid, unknown_authority (no authority in client_ca issued it), purpose (not for client authentication) or invalid.";
    tunnels: COUNTER, "metrika_gate_tunnels_total", "content",
        "Tunnels that callers opened through the forward proxy, with TLS or clear text in them.";
    workers_stalled: GAUGE, "metrika_gate_workers_stalled", "",
        "Workers that have not run their event loop for two seconds or more; they do not serve their connections.";
    worker_stalls: COUNTER, "metrika_gate_worker_stalls_total", "",
        "Times that a worker did not run its event loop for two seconds.";
    log_lines_dropped: COUNTER, "metrika_gate_log_lines_dropped_total", "",
        "Dropped log lines: the reader of the log was too slow or is gone, or its disk is full.";
    sandbox: GAUGE, "metrika_gate_sandbox", "state",
        "1 for the state of the kernel sandbox: full, partial, none, or off by configuration.";
    build: GAUGE, "metrika_gate_build_info", "version, tls_provider",
        "Always 1.";
}

/// Renders the page in the text format 0.0.4.
///
/// # Errors
/// A family without metrics or without a name.
pub fn text(shard: &Shard, process: &ProcessMeters, quota: Option<&QuotaSnapshot>) -> prometheus::Result<String> {
    let mut families = Families::default();
    callers(shard, &mut families);
    refusals(shard, &mut families);
    usage::fill(&mut families, shard);
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
    families.floods.push(counter(&[], shard.floods));
    for (result, count) in sorted(&shard.handshakes) {
        families.handshakes.push(counter(&[("result", result.as_str())], *count));
    }
    for (fault, count) in sorted(&shard.client_certificates_refused) {
        families.client_certificates_refused.push(counter(&[("reason", fault.as_str())], *count));
    }
    for (content, count) in sorted(&shard.tunnels) {
        families.tunnels.push(counter(&[("content", content.as_str())], *count));
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

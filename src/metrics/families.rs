//! The families of metrics: the name, type, labels and help of each. `docs/metrics.md` is generated from this table.

use prometheus::proto::{Metric, MetricFamily, MetricType};

macro_rules! families {
    ($($field:ident: $kind:ident, $name:literal, $labels:literal, $help:literal;)*) => {
        /// Name, type, labels and help of every family, in the order of the page.
        pub const FAMILIES: &[(&str, &str, &str, &str)] = &[$(($name, stringify!($kind), $labels, $help)),*];

        /// The metrics of every family.
        #[derive(Default)]
        pub(super) struct Families { $(pub(super) $field: Vec<Metric>,)* }

        impl Families {
            pub(super) fn into_page(self) -> Vec<MetricFamily> {
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
    marked: COUNTER, "metrika_gate_marked_operations_total", "caller, operation, mark",
        "Requests that Metrica fulfilled (2xx) and whose operation the catalogue marks: destructive (the API cannot undo it), shares (it gives somebody access), or maybe_destructive and maybe_shares (it depends on a parameter or the body).";
    resent: COUNTER, "metrika_gate_resent_total", "reason",
        "Requests that the gate sent to Metrica again: connection (a reused connection failed before Metrica processed the request), account (another account may have access) or quota.";
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
        "Requests that the gate sent on its own: token_probe (does Metrica accept the token), follow_up (why was a request refused), identity (who issued the token), counters (which counters does its account have), service_account_keys (the public keys of service accounts, from service_accounts.jwks_url).";
    token_allow_mode: GAUGE, "metrika_gate_token_allow_mode", "token",
        "1 if allow_mode permits the token's file, on a read-only mount, to be readable by others and to have any owner.";
    token_of_another: GAUGE, "metrika_gate_token_of_another_account", "token",
        "1 if the token was issued by another account than its key owner names, according to Yandex ID (identity) or to a counter that the account owns.";
    standby_in_use: GAUGE, "metrika_gate_token_standby_in_use", "token",
        "1 while the standby of the token is sent in its place; only for tokens with a standby.";
    standby_switches: COUNTER, "metrika_gate_standby_switches_total", "token",
        "Times that the standby of the token took over.";
    token_expires: GAUGE, "metrika_gate_token_expiry_timestamp_seconds", "token",
        "Unix time of the expiry of the token: the one that its login or renewal has shown, otherwise the configured one.";
    token_worked: GAUGE, "metrika_gate_token_last_success_timestamp_seconds", "token",
        "Unix time of the last request with the token that Metrica fulfilled, of its login or of its renewal; absent until then. An unused token dies after a year.";
    token_loaded_at: GAUGE, "metrika_gate_token_loaded_timestamp_seconds", "token",
        "Unix time at which the token in use was loaded.";
    token_reloads: COUNTER, "metrika_gate_token_reloads_total", "outcome",
        "Reloads of token files, without the start. After a failure the old token stays in use, unless its file was removed.";
    certificate_expires: GAUGE, "metrika_gate_certificate_expiry_timestamp_seconds", "listener",
        "Unix time at which the certificate of the listener expires.";
    authority_expires: GAUGE, "metrika_gate_authority_expiry_timestamp_seconds", "listener",
        "Unix time at which the private authority expires with which the gate renews the certificate of the listener.";
    ca_expires: GAUGE, "metrika_gate_ca_expiry_timestamp_seconds", "key",
        "Unix time at which the first certificate expires in the file of authorities that this key of the configuration names: upstream.ca_file, identity.ca_file or listeners[NAME].tls.client_ca.";
    config_hash: GAUGE, "metrika_gate_config_hash", "",
        "The first 48 bits of the SHA-256 of the configuration file in use, as a number: gates with the same file have the same number.";
    config_reloads: COUNTER, "metrika_gate_config_reloads_total", "outcome",
        "Loads of the configuration, including the start. After a failure the previous one stays in use.";
    config_last_successful: GAUGE, "metrika_gate_config_last_reload_successful", "",
        "1 if the last load of the configuration succeeded.";
    config_last_success: GAUGE, "metrika_gate_config_last_reload_success_timestamp_seconds", "",
        "Unix time at which the configuration in use was loaded.";
    connections_open: GAUGE, "metrika_gate_connections_open", "listener",
        "Open connections of callers.";
    connections_accepted: COUNTER, "metrika_gate_connections_accepted_total", "listener",
        "Accepted connections of callers, without those that metrika_gate_connections_refused_total counts.";
    upstream_connections: GAUGE, "metrika_gate_upstream_connections", "state",
        "Connections to Metrica: active (they carry a request) or idle.";
    upstream_opened: COUNTER, "metrika_gate_upstream_connections_opened_total", "",
        "Connections to Metrica that were opened.";
    upstream_reused: COUNTER, "metrika_gate_upstream_connections_reused_total", "",
        "Requests that got an existing connection to Metrica.";
    upstream_waits: HISTOGRAM, "metrika_gate_upstream_pool_wait_seconds", "",
        "Seconds that requests waited because upstream.connections requests were in progress; requests that did not wait are not counted.";
    upstream_connect: HISTOGRAM, "metrika_gate_upstream_connect_seconds", "step",
        "Seconds of each step of opening a connection to Metrica: lookup (of the name), connect (TCP), tunnel (of upstream.proxy) and tls. Failures are in metrika_gate_upstream_errors_total.";
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
    service_account_tokens_refused: COUNTER, "metrika_gate_service_account_tokens_refused_total", "reason",
        "Refused service account tokens of requests: malformed, several, algorithm, unknown_key, signature, issuer, audience, expired, not_yet_valid or subject.";
    service_account_keys: GAUGE, "metrika_gate_service_account_keys", "",
        "Public keys of service account tokens that are in use; 0 until the server of service_accounts.jwks_url has published some.";
    service_account_keys_time: GAUGE, "metrika_gate_service_account_keys_timestamp_seconds", "",
        "Unix time at which jwks_file was written, or the keys were received last; 0 if they were not.";
    service_account_key_requests: COUNTER, "metrika_gate_service_account_key_requests_total", "outcome",
        "Requests for the public keys of service account tokens. After a failure the last keys stay in use.";
    tunnels: COUNTER, "metrika_gate_tunnels_total", "content",
        "Tunnels that callers opened through the forward proxy, with TLS or clear text in them.";
    loop_lag: HISTOGRAM, "metrika_gate_worker_loop_lag_seconds", "",
        "Seconds until a worker handled a command of the process (a scrape, a probe or the watch of stalls): how long its event loop was busy with other work.";
    condition_failures: COUNTER, "metrika_gate_condition_failures_total", "listener, condition",
        "Requests refused with 401 although their key, certificate or service account is that of a caller: another condition of the caller, the one that is named, does not hold.";
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

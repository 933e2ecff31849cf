#!/usr/bin/env python3
"""Writes metrika-gate.json, the dashboard for Grafana (10 or later), from the panels below.

    deploy/grafana/dashboard.py           writes it
    deploy/grafana/dashboard.py --check   fails if it is not up to date

tests/observe/dashboard.py runs the query of every panel on a Prometheus that scrapes a gate under traffic.
"""

import dataclasses
import json
import pathlib
import sys

FILE = pathlib.Path(__file__).with_name("metrika-gate.json")

# Every query selects the gates of the dashboard's variables.
GATES = 'job=~"$job",instance=~"$instance"'


@dataclasses.dataclass(frozen=True)
class Panel:
    """One panel. `queries` are pairs of a query and its legend; in a query, `@` stands for the selected gates."""

    title: str
    text: str
    queries: tuple
    unit: str = "short"
    kind: str = "timeseries"
    width: int = 8
    stacked: bool = False
    # A healthy gate shows nothing else than zero here.
    may_be_zero: bool = False
    # Without a scrape under traffic, there is a value all the same.
    is_constant: bool = False

    def expressions(self):
        return [query.replace("@", GATES) for query, _ in self.queries]


def one(query, legend="{{instance}}"):
    return ((query, legend),)


ROWS = (
    ("Now", (
        Panel("Gates", "Gates that Prometheus scrapes.", one("sum(up{@})", ""), kind="stat", width=4, is_constant=True),
        Panel("Requests a second", "Requests of all callers.", one("sum(rate(metrika_gate_requests_total{@}[$__rate_interval]))", ""), "reqps", "stat", 4),
        Panel("Refused with 401 or 403", "Of the gate and of Metrica, in the last hour.", one("sum(increase(metrika_gate_refusals_total{@}[1h]))", ""), kind="stat", width=4),
        Panel("Tokens that are not healthy", "Suspect, suspended, missing, or part of an outage.",
              one('sum(metrika_gate_token_state{@,state!="healthy"})', ""), kind="stat", width=4, may_be_zero=True, is_constant=True),
        Panel("Soonest expiry of a token", "The time that is left.", one("min(metrika_gate_token_expiry_timestamp_seconds{@}) - time()", ""), "s", "stat", 4, is_constant=True),
        Panel("Configurations", "Different configuration files that the selected gates use.", one("count(count_values(\"value\", metrika_gate_config_hash{@}))", ""),
              kind="stat", width=4, is_constant=True),
    )),
    ("Requests", (
        Panel("Requests by caller", "Requests a second.", one("sum by (caller) (caller:metrika_gate_requests:rate5m{@})", "{{caller}}"), "reqps", stacked=True),
        Panel("Responses by status", "Requests a second, by status and origin.",
              one("sum by (code, origin) (rate(metrika_gate_requests_total{@}[$__rate_interval]))", "{{code}} {{origin}}"), "reqps", stacked=True),
        Panel("Requests in progress", "By caller.", one("sum by (caller) (metrika_gate_in_flight_requests{@})", "{{caller}}"), stacked=True),
        Panel("Duration of requests", "From the head of a request to the end of its response, 95th percentile by caller.",
              one("histogram_quantile(0.95, sum by (le, caller) (rate(metrika_gate_request_duration_seconds_bucket{@}[$__rate_interval])))", "{{caller}}"), "s"),
        Panel("Bytes", "Bodies of requests and responses.",
              (("sum(rate(metrika_gate_request_bytes_total{@}[$__rate_interval]))", "requests"), ("sum(rate(metrika_gate_response_bytes_total{@}[$__rate_interval]))", "responses")), "Bps"),
        Panel("Requests by group of counters", "With counter_groups in the configuration.",
              one("sum by (group) (rate(metrika_gate_usage_requests_total{@}[$__rate_interval]))", "{{group}}"), "reqps", stacked=True),
    )),
    ("401 and 403", (
        Panel("Refusals by the gate", "By reason; docs/rejections.md explains each.",
              one('sum by (reason) (origin_reason:metrika_gate_refusals:rate5m{@,origin="gate"}) > 0', "{{reason}}"), "reqps", width=8, stacked=True),
        Panel("Refusals by Metrica", "By reason; docs/reasons.md explains each.",
              one('sum by (reason) (origin_reason:metrika_gate_refusals:rate5m{@,origin="upstream"}) > 0', "{{reason}}"), "reqps", width=8, stacked=True),
        Panel("Refused share by caller", "Of the caller's requests.", one("max by (caller) (caller:metrika_gate_refused:ratio_rate5m{@})", "{{caller}}"), "percentunit", width=8),
        Panel("Refusals in the last hour", "Who was refused, by whom and why.",
              one("sort_desc(sum by (origin, reason, caller, token, operation) (increase(metrika_gate_auth_failures_total{@}[1h])) > 0)", ""), kind="table", width=16),
        Panel("Refused if it were enforced", "Callers with enforce: false.",
              one("sum by (caller, reason) (rate(metrika_gate_would_refuse_total{@}[$__rate_interval])) > 0", "{{caller}} {{reason}}"), "reqps", width=8),
        Panel("Deleted and granted", "Requests that Metrica fulfilled and that cannot be undone or give somebody access.",
              one("sum by (caller, operation, mark) (increase(metrika_gate_marked_operations_total{@}[1h])) > 0", ""), kind="table", width=16),
        Panel("Credentials of callers that were removed", "By kind.",
              one("sum by (caller, kind) (increase(metrika_gate_credentials_dropped_total{@}[1h])) > 0", "{{caller}} {{kind}}"), width=8),
    )),
    ("Tokens", (
        Panel("State of tokens", "The current state of each token.", one("max by (token, state) (metrika_gate_token_state{@}) == 1", ""), kind="table", width=8, is_constant=True),
        Panel("Time since the last success", "An unused token dies after a year.",
              one("time() - max by (token) (metrika_gate_token_last_success_timestamp_seconds{@})", "{{token}}"), "s", is_constant=True),
        Panel("Standby tokens in use", "1 while the standby of a token is sent in its place.", one("max by (token) (metrika_gate_token_standby_in_use{@})", "{{token}}"),
              may_be_zero=True, is_constant=True),
        Panel("Requests of the gate itself", "Probes of tokens, and questions about refusals and owners.",
              one("sum by (purpose) (increase(metrika_gate_own_requests_total{@}[1h]))", "{{purpose}}"), stacked=True),
        Panel("Refusals by token", "Of Metrica, in the last hour.", one('sum by (token) (increase(metrika_gate_refusals_total{@,origin="upstream"}[1h]))', "{{token}}")),
        Panel("Time to expiry", "Tokens, certificates and authorities.",
              (("min by (token) (metrika_gate_token_expiry_timestamp_seconds{@}) - time()", "token {{token}}"),
               ("min by (listener) (metrika_gate_certificate_expiry_timestamp_seconds{@}) - time()", "certificate of {{listener}}"),
               ("min by (listener) (metrika_gate_authority_expiry_timestamp_seconds{@}) - time()", "authority of {{listener}}"),
               ("min by (key) (metrika_gate_ca_expiry_timestamp_seconds{@}) - time()", "{{key}}")), "s", is_constant=True),
    )),
    ("Quota", (
        Panel("Used part of the limits", "By account or egress address, and limit.",
              one("max by (owner, limit) (owner_limit:metrika_gate_quota_used:ratio{@})", "{{owner}} {{limit}}"), "percentunit", width=8, is_constant=True),
        Panel("Spent by caller", "Requests a second that the account is charged for.",
              one("sum by (owner, caller) (owner_caller:metrika_gate_quota_spent:rate5m{@})", "{{owner}} {{caller}}"), "reqps", stacked=True),
        Panel("Waiting requests", "By account and caller.", one("sum by (owner, caller) (metrika_gate_quota_waiting{@})", "{{owner}} {{caller}}"), stacked=True),
        Panel("Wait for a turn", "95th percentile by caller.", one("max by (caller) (caller:metrika_gate_quota_wait_seconds:p95_5m{@})", "{{caller}}"), "s"),
        Panel("Refused because of a quota", "By the gate (429), by caller and limit.",
              one("sum by (caller, limit) (rate(metrika_gate_quota_refused_total{@}[$__rate_interval])) > 0", "{{caller}} {{limit}}"), "reqps"),
        Panel("Learned from refusals by Metrica", "By limit, and requests that were sent again.",
              (("sum by (limit) (increase(metrika_gate_quota_learned_total{@}[1h])) > 0", "{{limit}}"), ("sum(increase(metrika_gate_quota_resent_total{@}[1h]))", "sent again"))),
    )),
    ("Metrica", (
        Panel("Time to the response", "Median and 95th percentile.",
              (("max(instance:metrika_gate_upstream_duration_seconds:p50_5m{@})", "median"), ("max(instance:metrika_gate_upstream_duration_seconds:p95_5m{@})", "95th percentile")), "s"),
        Panel("Time to the response by operation", "95th percentile.",
              one("max by (operation) (operation:metrika_gate_upstream_duration_seconds:p95_5m{@})", "{{operation}}"), "s"),
        Panel("Failed share", "Responses with 5xx, of Metrica or because it was not reached.", one("max(instance:metrika_gate_failed:ratio_rate5m{@})", ""), "percentunit"),
        Panel("Errors on the way to Metrica", "By kind.", one("sum by (kind) (rate(metrika_gate_upstream_errors_total{@}[$__rate_interval])) > 0", "{{kind}}"), "reqps"),
        Panel("Connections to Metrica", "With a request, and idle.", one("sum by (state) (metrika_gate_upstream_connections{@})", "{{state}}"), stacked=True),
        Panel("Opened and reused connections", "Requests a second that opened a connection or got an existing one.",
              (("sum(rate(metrika_gate_upstream_connections_opened_total{@}[$__rate_interval]))", "opened"),
               ("sum(rate(metrika_gate_upstream_connections_reused_total{@}[$__rate_interval]))", "reused")), "reqps"),
        Panel("Time to open a connection", "Mean of each step.",
              one("sum by (step) (rate(metrika_gate_upstream_connect_seconds_sum{@}[$__rate_interval])) / (sum by (step) (rate(metrika_gate_upstream_connect_seconds_count{@}[$__rate_interval])) > 0)", "{{step}}"), "s"),
        Panel("Requests that were sent again", "By reason.", one("sum by (reason) (increase(metrika_gate_resent_total{@}[1h]))", "{{reason}}"), stacked=True),
        Panel("Waits for a place in the pool", "Requests a second that found upstream.connections requests in progress.",
              one("sum(rate(metrika_gate_upstream_pool_wait_seconds_count{@}[$__rate_interval]))", ""), "reqps"),
    )),
    ("Gate", (
        Panel("Connections of callers", "Open now, by listener.", one("sum by (listener) (metrika_gate_connections_open{@})", "{{listener}}"), stacked=True),
        Panel("Accepted connections", "A second, by listener.", one("sum by (listener) (rate(metrika_gate_connections_accepted_total{@}[$__rate_interval]))", "{{listener}}"), "cps"),
        Panel("Lag of the event loops", "95th percentile and mean.",
              (("histogram_quantile(0.95, sum by (le) (rate(metrika_gate_worker_loop_lag_seconds_bucket{@}[$__rate_interval])))", "95th percentile"),
               ("sum(rate(metrika_gate_worker_loop_lag_seconds_sum{@}[$__rate_interval])) / sum(rate(metrika_gate_worker_loop_lag_seconds_count{@}[$__rate_interval]))", "mean")), "s", is_constant=True),
        Panel("TLS handshakes with callers", "By result.", one("sum by (result) (rate(metrika_gate_tls_handshakes_total{@}[$__rate_interval])) > 0", "{{result}}"), "cps"),
        # The counter has whole seconds, of which a gate in a short test may need none.
        Panel("Processor and memory", "Processor time a second, and resident memory.",
              (("sum by (instance) (rate(process_cpu_seconds_total{@}[$__rate_interval]))", "processor {{instance}}"),), "percentunit",
              may_be_zero=True, is_constant=True),
        Panel("Resident memory", "By gate.", one("process_resident_memory_bytes{@}"), "bytes", is_constant=True),
        Panel("Reloads", "Of the configuration and of tokens, in the last hour.",
              (("sum by (outcome) (increase(metrika_gate_config_reloads_total{@}[1h]))", "configuration, {{outcome}}"),
               ("sum by (outcome) (increase(metrika_gate_token_reloads_total{@}[1h]))", "tokens, {{outcome}}")), may_be_zero=True, is_constant=True),
        Panel("Troubles of the process", "Stalls of workers, dropped log lines, shortages of descriptors and refused connections in the last hour.",
              (("sum(increase(metrika_gate_worker_stalls_total{@}[1h]))", "stalls"), ("sum(increase(metrika_gate_log_lines_dropped_total{@}[1h]))", "dropped log lines"),
               ("sum(increase(metrika_gate_descriptor_shortages_total{@}[1h]))", "shortages of descriptors"),
               ("sum(increase(metrika_gate_connections_refused_total{@}[1h]))", "refused connections")), may_be_zero=True, is_constant=True),
        Panel("Versions", "Of the selected gates.", one("count by (version) (metrika_gate_build_info{@})", ""), kind="table", width=8, is_constant=True),
    )),
)

SOURCE = {"type": "prometheus", "uid": "${datasource}"}


def panels():
    return [panel for _, row in ROWS for panel in row]


def target(panel, position, query, legend):
    at_once = panel.kind in ("table", "stat")
    return {
        "datasource": SOURCE,
        "refId": chr(ord("A") + position),
        "expr": query.replace("@", GATES),
        "legendFormat": legend,
        "instant": at_once,
        "range": not at_once,
        "format": "table" if panel.kind == "table" else "time_series",
    }


def drawn(panel, number, x, y):
    height = 4 if panel.kind == "stat" else 8
    options = {
        "timeseries": {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi", "sort": "desc"}},
        "stat": {"colorMode": "none", "graphMode": "area", "reduceOptions": {"calcs": ["lastNotNull"]}},
        "table": {"showHeader": True, "footer": {"show": False}},
    }[panel.kind]
    custom = {"fillOpacity": 20 if panel.stacked else 0, "showPoints": "never", "stacking": {"mode": "normal" if panel.stacked else "none"}}
    made = {
        "id": number,
        "title": panel.title,
        "description": panel.text,
        "type": panel.kind,
        "datasource": SOURCE,
        "gridPos": {"x": x, "y": y, "w": panel.width, "h": height},
        "fieldConfig": {"defaults": {"unit": panel.unit, **({"custom": custom, "min": 0} if panel.kind == "timeseries" else {})}, "overrides": []},
        "options": options,
        "targets": [target(panel, position, query, legend) for position, (query, legend) in enumerate(panel.queries)],
    }
    if panel.kind == "table":
        made["transformations"] = [{"id": "organize", "options": {"excludeByName": {"Time": True}, "renameByName": {"Value": "count"}}}]
    return made, height


def variable(name, label, query):
    return {
        "name": name, "label": label, "type": "query", "datasource": SOURCE, "query": {"query": query, "refId": name},
        "refresh": 2, "includeAll": True, "multi": True, "allValue": ".*", "current": {"text": "All", "value": "$__all"}, "sort": 1,
    }


def dashboard():
    made, number, y = [], 0, 0
    for title, row in ROWS:
        number += 1
        made.append({"id": number, "type": "row", "title": title, "collapsed": False, "gridPos": {"x": 0, "y": y, "w": 24, "h": 1}, "panels": []})
        x, y, height = 0, y + 1, 0
        for panel in row:
            if x + panel.width > 24:
                x, y = 0, y + height
            number += 1
            one_panel, height = drawn(panel, number, x, y)
            made.append(one_panel)
            x += panel.width
        y += height
    return {
        "uid": "metrika-gate",
        "title": "metrika-gate",
        "description": "An authenticating reverse proxy for the Yandex Metrica API: callers, refusals, tokens, quotas and Metrica itself.",
        "tags": ["metrika-gate"],
        "schemaVersion": 39,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "timezone": "browser",
        "templating": {"list": [
            {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus", "current": {}},
            variable("job", "Job", "label_values(metrika_gate_build_info, job)"),
            variable("instance", "Gate", 'label_values(metrika_gate_build_info{job=~"$job"}, instance)'),
        ]},
        "annotations": {"list": [{
            "name": "Reloads of the configuration", "datasource": SOURCE, "enable": True, "iconColor": "blue",
            "expr": f"changes(metrika_gate_config_last_reload_success_timestamp_seconds{{{GATES}}}[1m]) > 0", "titleFormat": "configuration reloaded",
        }]},
        "panels": made,
    }


def main():
    text = json.dumps(dashboard(), indent=2, ensure_ascii=False) + "\n"
    if sys.argv[1:] == ["--check"]:
        if not FILE.exists() or FILE.read_text() != text:
            print(f"{FILE.name} is not up to date: run deploy/grafana/dashboard.py")
            return 1
        print(f"{len(panels())} panels")
        return 0
    FILE.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())

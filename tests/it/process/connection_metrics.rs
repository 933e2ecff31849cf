//! The metrics of connections, of requests that are sent again, of marked operations and of the configuration in use.

use std::time::Duration;

use crate::harness::{Gate, Signal, TWO_CALLERS, Upstream};

const COUNTERS: &str = "/management/v1/counters";

#[test]
fn connections_of_callers_are_counted_by_listener() {
    let upstream = Upstream::plain();
    let gate = Gate::start(&upstream, TWO_CALLERS);
    for listener in ["app", "crm"] {
        let label = format!("listener=\"{listener}\"");
        assert_eq!(
            gate.metrics(&["connections_open", &label]).len(),
            1,
            "the series of {listener} exists at the start"
        );
        assert_eq!(gate.metrics(&["connections_accepted_total", &label]).len(), 1);
    }
    let held: Vec<_> = (0..3).map(|_| gate.connect("app")).collect();
    gate.until_metric(&["connections_open", "listener=\"app\""], 3.0);
    assert_eq!(gate.metric(&["connections_open", "listener=\"crm\""]), 0.0);
    drop(held);
    gate.until_metric(&["connections_open"], 0.0);
    assert_eq!(gate.metric(&["connections_accepted_total", "listener=\"app\""]), 3.0);
}

#[test]
fn a_connection_beyond_the_limit_is_refused_and_not_accepted() {
    let upstream = Upstream::plain();
    let gate = Gate::start(&upstream, &format!("{TWO_CALLERS}\nlimits: {{connections: 1}}\n"));
    let held = gate.connect("app");
    gate.until_metric(&["connections_open"], 1.0);
    let _beyond = gate.connect("app");
    gate.until_metric(&["connections_refused_total"], 1.0);
    assert_eq!((gate.metric(&["connections_open"]), gate.metric(&["connections_accepted_total"])), (1.0, 1.0));
    drop(held);
}

/// An upstream that holds back its response to `?held` until the signal.
fn holding_upstream() -> (Upstream, Signal) {
    let goes_on = Signal::default();
    let waits = goes_on.clone();
    let upstream = Upstream::run(move |conversation| {
        while let Some(head) = conversation.request_head() {
            if head.contains("?held") {
                waits.wait("the response may go on");
            }
            conversation.answer("200 OK", "application/json", "{}");
        }
    });
    (upstream, goes_on)
}

#[test]
fn the_pool_counts_active_idle_opened_and_reused_connections() {
    let (upstream, goes_on) = holding_upstream();
    let gate = Gate::plan(&upstream, TWO_CALLERS).workers(1).start();
    let open = |state: &str| gate.metric(&["upstream_connections{", &format!("state=\"{state}\"")]);
    assert_eq!((open("active"), open("idle")), (0.0, 0.0));
    let mut caller = gate.connect("app");
    caller.send(format!("GET {COUNTERS}?held HTTP/1.1\r\nHost: localhost\r\n\r\n"));
    gate.until_metric(&["upstream_connections{", "state=\"active\""], 1.0);
    assert_eq!(open("idle"), 0.0);
    goes_on.give();
    assert_eq!(caller.answer().summary(), "200");
    gate.until_metric(&["upstream_connections{", "state=\"idle\""], 1.0);
    assert_eq!(open("active"), 0.0);
    assert_eq!(gate.get("app", COUNTERS).summary(), "200");
    let count = |family: &str| gate.metric(&[family]);
    assert_eq!((count("upstream_connections_opened_total"), count("upstream_connections_reused_total")), (1.0, 1.0));
    for (step, times) in [("lookup", 1.0), ("connect", 1.0), ("tunnel", 0.0), ("tls", 1.0)] {
        let step = format!("step=\"{step}\"");
        assert_eq!(gate.metric(&["upstream_connect_seconds_count", &step]), times, "{step}");
    }
    assert_eq!(count("upstream_pool_wait_seconds_count"), 0.0, "no request had to wait");
}

#[test]
fn the_wait_for_a_place_in_the_pool_is_counted() {
    let (upstream, goes_on) = holding_upstream();
    let config =
        format!("{TWO_CALLERS}\nupstream: {{ca_file: '{{ca}}', connect_to: '{{upstream}}', connections: 1}}\n");
    let gate = Gate::plan(&upstream, &config).workers(1).start();
    let mut first = gate.connect("app");
    first.send(format!("GET {COUNTERS}?held HTTP/1.1\r\nHost: localhost\r\n\r\n"));
    gate.until_metric(&["upstream_connections{", "state=\"active\""], 1.0);
    let mut second = gate.connect("app");
    second.send(format!("GET {COUNTERS} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
    gate.until_metric(&["in_flight_requests"], 2.0);
    std::thread::sleep(Duration::from_millis(50));
    goes_on.give();
    assert_eq!((first.answer().summary(), second.answer().summary()), ("200".into(), "200".into()));
    gate.until_metric(&["upstream_pool_wait_seconds_count"], 1.0);
    assert!(gate.metric(&["upstream_pool_wait_seconds_sum"]) >= 0.05);
}

/// A reload that replaces the pool loses no count.
#[test]
fn the_counts_of_a_replaced_pool_stay() {
    let upstream = Upstream::plain();
    let gate = Gate::plan(&upstream, TWO_CALLERS).workers(1).start();
    gate.get("app", COUNTERS);
    let hash = gate.metric(&["metrika_gate_config_hash"]);
    assert_eq!(hash, expected_hash(&gate.config()));
    gate.replace_config(&gate.config().replace("upstream: {", "upstream: {max_age: 4m, "));
    gate.until_metric(&["config_reloads_total", "success"], 2.0);
    assert_ne!(gate.metric(&["metrika_gate_config_hash"]), hash);
    assert_eq!(gate.metric(&["metrika_gate_config_hash"]), expected_hash(&gate.config()));
    gate.get("app", COUNTERS);
    assert_eq!(gate.metric(&["upstream_connections_opened_total"]), 2.0);
    assert_eq!(gate.metric(&["upstream_connections{", "state=\"active\""]), 0.0);
}

/// The first 48 bits of the SHA-256, as sha256sum prints them.
fn expected_hash(config: &str) -> f64 {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, config.as_bytes());
    digest.as_ref()[..6].iter().fold(0.0, |number, byte| number * 256.0 + f64::from(*byte))
}

#[test]
fn a_request_that_is_sent_again_is_counted_with_its_reason() {
    let upstream = Upstream::run(|conversation| {
        while conversation.request_head().is_some() {
            conversation.answer("200 OK", "application/json", "{}");
            if conversation.number == 0 {
                conversation.request_head();
                return conversation.close();
            }
        }
    });
    let gate = Gate::plan(&upstream, TWO_CALLERS).workers(1).start();
    for reason in ["connection", "account", "quota"] {
        let reason = format!("reason=\"{reason}\"");
        assert_eq!(gate.metrics(&["metrika_gate_resent_total", &reason]).len(), 1, "{reason} exists at the start");
    }
    for _ in 0..2 {
        assert_eq!(gate.get("app", COUNTERS).summary(), "200");
    }
    assert_eq!(gate.metric(&["metrika_gate_resent_total", "reason=\"connection\""]), 1.0);
    assert_eq!(gate.metric(&["metrika_gate_resent_total"]), 1.0);
}

#[test]
fn who_deleted_and_who_granted_is_counted_once_metrica_did_it() {
    let upstream = Upstream::run(|conversation| {
        while let Some(head) = conversation.request_head() {
            conversation.request_body(&head);
            let denied = head.contains("/counter/2");
            let status = if denied { "403 Forbidden" } else { "200 OK" };
            conversation.answer(status, "application/json", "{}");
        }
    });
    let gate = Gate::start(&upstream, TWO_CALLERS);
    let send = |listener: &str, line: &str, body: &str| {
        let length = body.len();
        let json = "Content-Type: application/json\r\n";
        let request = format!("{line} HTTP/1.1\r\nHost: localhost\r\n{json}Content-Length: {length}\r\n\r\n{body}");
        gate.send(listener, request).status
    };
    let grant = "{\"grant\":{\"user_login\":\"a\",\"perm\":\"view\"}}";
    assert_eq!(send("crm", "DELETE /management/v1/counter/1", ""), 200);
    assert_eq!(send("crm", "DELETE /management/v1/counter/2", ""), 403, "Metrica refuses it");
    assert_eq!(send("app", "DELETE /management/v1/counter/1", ""), 403, "the gate refuses it");
    assert_eq!(send("crm", "POST /management/v1/counter/1/grants", grant), 200);
    assert_eq!(send("crm", "GET /management/v1/counter/1", ""), 200);
    gate.until_metric(&["metrika_gate_requests_total"], 5.0);
    let marked: Vec<_> = gate.metrics(&["metrika_gate_marked_operations_total"]);
    insta::assert_snapshot!(marked.join("\n"), @r#"
    metrika_gate_marked_operations_total{caller="crm",operation="counter.delete",mark="destructive"} 1
    metrika_gate_marked_operations_total{caller="crm",operation="grants.create",mark="shares"} 1
    "#);
}

#[test]
fn the_lag_of_the_loops_is_observed_by_each_scrape() {
    let upstream = Upstream::plain();
    let gate = Gate::plan(&upstream, TWO_CALLERS).workers(2).start();
    let first = gate.metric(&["worker_loop_lag_seconds_count"]);
    assert!(first >= 2.0, "{first}");
    assert!(gate.metric(&["worker_loop_lag_seconds_count"]) >= first + 2.0);
}

#[test]
fn the_trace_of_a_request_is_in_its_access_line() {
    let upstream = Upstream::plain();
    let gate = Gate::start(&upstream, TWO_CALLERS);
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let send = |id: &str, parent: &str| {
        let request = format!(
            "GET {COUNTERS} HTTP/1.1\r\nHost: localhost\r\nX-Request-ID: {id}\r\ntraceparent: {parent}\r\n\r\n"
        );
        assert_eq!(gate.send("app", request).summary(), "200");
        gate.until_log(&["\"access\"", id])
    };
    let line = send("one", &format!("00-{trace}-00f067aa0ba902b7-01"));
    let read: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(read["trace_id"], trace);
    assert!(!send("two", "00-\"y0_secret\"-1-01").contains("trace_id"), "nothing else is written to the log");
    assert!(upstream.requests()[0].contains(trace), "Metrica's side gets it too");
}

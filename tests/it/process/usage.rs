//! The ledger of usage: the counts of the real program by caller, operation and group of counters.

use serde_json::{Value, json};

use crate::harness::{Gate, TWO_CALLERS, Upstream};

fn usage(gate: &Gate) -> Value {
    let answer = gate.admin("/usage");
    assert_eq!((answer.status, answer.field("content-type")), (200, Some("application/json")));
    serde_json::from_str(&answer.text()).unwrap()
}

/// The rows, as `caller operation group: requests, bytes up, refusals, quota answers`.
fn rows(page: &Value) -> Vec<String> {
    let row = |row: &Value| {
        let name = |key: &str| row[key].as_str().unwrap().to_owned();
        let [requests, up, refusals, quota] =
            ["requests", "request_bytes", "refusals", "quota_answers"].map(|key| row[key].as_u64().unwrap());
        format!("{} {} {}: {requests}, {up}, {refusals}, {quota}", name("caller"), name("operation"), name("group"))
    };
    page["rows"].as_array().unwrap().iter().map(row).collect()
}

const UPLOAD: &str = "POST /management/v1/counter/3/goals HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 5\r\n\r\n";

#[test]
fn rules_1_to_3_every_exchange_is_in_one_row() {
    let upstream = Upstream::run(|conversation| {
        while let Some(head) = conversation.request_head() {
            conversation.request_body(&head);
            let (status, body) = if head.contains("quota") {
                ("429 Too Many Requests", r#"{"errors":[{"error_type":"quota_requests_by_uid"}]}"#)
            } else if head.contains("denied") {
                ("403 Forbidden", r#"{"errors":[{"error_type":"access_denied"}]}"#)
            } else {
                ("200 OK", "{}")
            };
            conversation.answer(status, "application/json", body);
        }
    });
    let groups = "counter_groups:\n  shop: [1, 2]\n  blog: [3]\n";
    let gate = Gate::start(&upstream, &format!("{TWO_CALLERS}{groups}"));
    for (listener, target, status) in [
        ("app", "/stat/v1/data?ids=9,2", 200),
        ("app", "/stat/v1/data?ids=1&x=denied", 403),
        ("app", "/stat/v1/data?ids=3,1&x=quota", 429),
        ("app", "/stat/v1/data?ids=9", 200),
        ("app", "/stat/v1/data?ids=x", 200),
        ("app", "/management/v1/counters", 200),
        ("app", "/nothing", 404),
        ("crm", "/management/v1/counter/1/goals", 200),
    ] {
        assert_eq!(gate.get(listener, target).status, status, "{target}");
    }
    assert_eq!(gate.send("app", format!("{UPLOAD}12345")).status, 403);
    assert_eq!(gate.send("crm", format!("{UPLOAD}12345")).status, 200);
    gate.until_metric(&["usage_requests_total"], 10.0);
    let page = usage(&gate);
    insta::assert_snapshot!(rows(&page).join("\n"), @r#"
    crm goals.create blog: 1, 5, 0, 0
    crm goals.list shop: 1, 0, 0, 0
    reports counters.list none: 1, 0, 0, 0
    reports goals.create blog: 1, 0, 1, 0
    reports none none: 1, 0, 0, 0
    reports report.table blog: 1, 0, 0, 1
    reports report.table other: 2, 0, 0, 0
    reports report.table shop: 2, 0, 1, 0
    "#);
    let totals = json!({"caller": "crm", "requests": 2, "request_bytes": 5, "response_bytes": 4, "refusals": 0, "quota_answers": 0});
    let mut of_caller = page["callers"][0].clone();
    let of_tokens = of_caller.as_object_mut().unwrap().remove("tokens").unwrap();
    assert_eq!(of_caller, totals);
    let requests = |token: &serde_json::Value| token["requests"].as_u64().unwrap();
    assert_eq!(of_tokens.as_array().unwrap().iter().map(requests).sum::<u64>(), 2, "{of_tokens}");
    assert_eq!(page["callers"][1]["requests"], 8);
    assert!(page["since"].as_str().unwrap().starts_with("20"), "{page}");
    // The metrics show the same.
    assert_eq!(gate.metric(&["usage_refusals_total", "report.table", "group=\"shop\""]), 1.0);
    assert_eq!(gate.metric(&["usage_quota_answers_total", "group=\"blog\""]), 1.0);
    assert_eq!(gate.metric(&["usage_request_bytes_total", "caller=\"crm\"", "goals.create", "group=\"blog\""]), 5.0);
    assert_eq!(gate.metric(&["usage_response_bytes_total", "caller=\"crm\""]), 4.0);
}

#[test]
fn rule_5_counting_goes_on_over_a_reload() {
    let upstream = Upstream::plain();
    let gate = Gate::start(&upstream, TWO_CALLERS);
    assert_eq!(gate.get("app", "/stat/v1/data?ids=1").status, 200);
    gate.until_metric(&["usage_requests_total"], 1.0);
    let since = usage(&gate)["since"].clone();
    gate.replace_config(&format!("{}counter_groups: {{shop: [1]}}\n", gate.config()));
    gate.until_metric(&["config_reloads_total", "success"], 2.0);
    assert_eq!(gate.get("app", "/stat/v1/data?ids=1").status, 200);
    gate.until_metric(&["usage_requests_total"], 2.0);
    let page = usage(&gate);
    assert_eq!(rows(&page), ["reports report.table other: 1, 0, 0, 0", "reports report.table shop: 1, 0, 0, 0"]);
    assert_eq!(page["since"], since);
}

//! What `explain` and `doctor` say of the quotas of a configuration.

use std::io::Write;

use crate::cli::commands::Files;
use crate::cli::doctor::{Practice, READ, caller};
use crate::harness::metrica::{READS, metrica};

const REPORT: &str = "/stat/v1/data?ids=101&metrics=ym:s:visits";

#[test]
fn explain_names_the_limits_of_an_operation_and_the_part_of_the_caller() {
    let files = Files::new();
    files.edit(
        "tokens: [analytics, crm]}",
        "tokens: [analytics, crm], quota: {class: interactive, weight: 2, wait: 5s, per_day: 3000, per_5m: 100, share: 50%}}",
    );
    files
        .edit("tokens:\n", "quota: {limits: {day: {mode: observe}, counter_day: {mode: 'off'}, by_ip: 20}}\ntokens:\n");
    let (code, said) = files.run(&["explain", "GET", REPORT]);
    assert_eq!(code, 0, "{said}");
    insta::assert_snapshot!(said, @"
    request    GET /stat/v1/data
    operation  report.table (/stat/v1/data)
    needs      metrika:read
    kind       quota group report_read, slow or large response
    counters   101
    limits     parallel 3, by_ip 20, reports_5m 190, day 4900 (observe)
    
    caller     reports (listener app)
    has        metrika:read
    decision   allowed, using token analytics
    waits      up to 30s, class normal, weight 1
    
    caller     crm (listener crm)
    has        metrika:read, metrika:write
    decision   allowed, using token analytics
    waits      up to 5s, class interactive, weight 2
    budgets    3000 requests a day, 100 reports in 5 minutes, 50 % of the day
    ");
    let said = files.json(&["explain", "GET", REPORT, "--as", "crm"]).1;
    let day = serde_json::json!({"limit": "day", "of": "owner", "allowed": 4900, "mode": "observe"});
    assert_eq!((said["limits"].as_array().map(Vec::len), &said["limits"][3]), (Some(4), &day));
    let part = serde_json::json!({
        "class": "interactive", "weight": 2, "wait_ms": 5000, "per_day": 3000, "per_5m": 100, "share": 50,
        "budgets": "enforce",
    });
    assert_eq!(said["verdicts"][0]["quota"], part);
    let part = "/management/v1/counter/101/logrequest/1/part/0/download";
    let said = files.run(&["explain", "GET", part, "--as", "crm"]).1;
    assert!(said.contains("limits     parallel 3, by_ip 20, logs_by_ip 9, day 4900 (observe)\n"), "{said}");
    assert!(said.contains("waits      up to 5s, class batch (bulk operation), weight 2\n"), "{said}");
}

#[test]
fn explain_says_nothing_of_quotas_that_are_not_configured() {
    let said = Files::new().json(&["explain", "GET", REPORT]).1;
    assert_eq!((&said["limits"], &said["verdicts"][0]["quota"]), (&serde_json::Value::Null, &serde_json::Value::Null));
}

#[test]
fn the_doctor_notes_that_no_gate_counts_its_requests_and_which_limits_are_enforced() {
    let fake = metrica();
    let practice = Practice::of(&fake, &[("t", READS, READ)], &caller(""));
    let (_, said, _) = practice.run(&["doctor"]);
    assert!(!said.contains("note:"), "{said}");
    assert!(practice.json(&[]).1["limits_enforced"].is_null());
    let mut config = std::fs::OpenOptions::new().append(true).open(practice.file("gate.yaml")).unwrap();
    writeln!(config, "quota: {{mode: observe, limits: {{by_ip: {{mode: enforce}}, parallel: {{mode: enforce}}}}}}")
        .unwrap();
    let (_, said, _) = practice.run(&["doctor"]);
    let note = "\nnote: the doctor is a process of its own, and a running gate does not count its requests; the gate enforces parallel, by_ip\n";
    assert!(said.ends_with(note), "{said}");
    assert_eq!(practice.json(&[]).1["limits_enforced"], serde_json::json!(["parallel", "by_ip"]));
    assert!(practice.run(&["check", "--online"]).1.ends_with(note));
}

#[test]
fn check_notes_callers_that_share_an_account_without_quotas() {
    let files = Files::new();
    let notes = |files: &Files| {
        let said = files.run(&["check"]).1;
        said.lines().filter(|line| line.starts_with("note: ")).map(str::to_owned).collect::<Vec<_>>()
    };
    files.edit("tokens: [analytics, crm]}", "tokens: [crm]}");
    assert_eq!(notes(&files), [""; 0], "accounts of their own");
    files.edit("scopes: [metrika:read]}\n  crm", "scopes: [metrika:read], owner: Shop.A}\n  crm");
    files.edit("scopes: [metrika:write]}\n", "scopes: [metrika:write], owner: shop-a}\n");
    let said = notes(&files);
    assert!(
        said.len() == 1 && said[0].contains("the callers reports, crm share the account of token 'analytics'"),
        "{said:?}"
    );
    files.edit("tokens:\n", "quota: {}\ntokens:\n");
    assert_eq!(notes(&files), [""; 0]);
}

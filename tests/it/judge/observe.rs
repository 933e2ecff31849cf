//! The checks beside the reason: the hint, the advice in the documentation, the alert, and the doctor's line.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::row::{Alert, Doctor, Metric, Row};
use super::run::Run;
use crate::harness::Answer;
use crate::harness::gate::program;

fn file(name: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap()
}

/// Checks the hint for the caller.
pub fn hint(row: &Row, answer: &Answer) -> Result<(), String> {
    let hint = answer.field("x-gate-hint").unwrap_or_default().to_lowercase();
    let absent = row.hint.with.iter().find(|words| !hint.contains(&words.to_lowercase()));
    let untrue = row.hint.without.iter().find(|words| hint.contains(&words.to_lowercase()));
    match (absent, untrue) {
        (None, None) if !hint.is_empty() => Ok(()),
        (Some(absent), _) => Err(format!("hint without '{absent}'")),
        (_, Some(untrue)) => Err(format!("hint with '{untrue}'")),
        (None, None) => Err("no hint".to_owned()),
    }
}

/// Checks the advice for the operator: rows of tables whose first or second cell has the reason.
pub fn advice(row: &Row, reason: &str) -> Result<(), String> {
    let name = format!("`{reason}`");
    let pages = ["docs/reasons.md", "docs/rejections.md", "docs/operations.md", "docs/policy.md"].map(file);
    let is_of_it =
        |line: &&str| line.starts_with('|') && line.split('|').skip(1).take(2).any(|cell| cell.contains(&name));
    let has = |line: &str| line.to_lowercase().contains(&row.advice.to_lowercase());
    let found = pages.iter().flat_map(|page| page.lines()).filter(is_of_it).any(has);
    if found { Ok(()) } else { Err(format!("no advice '{}'", row.advice)) }
}

/// Checks the metric that counts the refusal.
pub fn metric(run: &Run<'_>, reason: &str) -> Result<(), String> {
    let Run { row, cast, gate, .. } = run;
    let (reason, caller) = (&*format!("reason=\"{reason}\""), &*cast.caller(row));
    let counted = |parts: &[&str]| gate.metric(parts) >= 1.0;
    let of_tokens = |family: &str, origin: &str| {
        let mut tokens = row.tokens.iter().map(|token| format!("token=\"{}\"", cast.alias(token.alias)));
        tokens.any(|token| counted(&[family, origin, &token, reason]))
    };
    let (failures, refusals) = ("metrika_gate_auth_failures_total", "metrika_gate_refusals_total");
    let (upstream, own) = ("origin=\"upstream\"", "origin=\"gate\"");
    let denied = || counted(&["metrika_gate_denied_total", caller, reason]);
    let is_counted = || match row.metric {
        Metric::Metrica => counted(&[failures, upstream, caller, reason]) && of_tokens(refusals, upstream),
        Metric::Gate => {
            let none = "token=\"none\"";
            counted(&[failures, own, caller, reason]) && counted(&[refusals, own, none, reason]) && denied()
        }
        Metric::Denied => denied(),
        Metric::Quota => of_tokens("metrika_gate_quota_rejections_total", ""),
    };
    if run.until(Duration::from_secs(3), is_counted) { Ok(()) } else { Err("metric".to_owned()) }
}

/// Checks the alert that reads the metric.
pub fn alert(row: &Row, reason: &str) -> Result<(), String> {
    let origin = if row.metric == Metric::Metrica { "upstream" } else { "gate" };
    let (name, series, labels): (_, _, Vec<(&str, &str)>) = match row.alert {
        Alert::None(why) => return if why.is_empty() { Err("alert: none".to_owned()) } else { Ok(()) },
        Alert::Reads(name) if row.metric == Metric::Quota => {
            (name, "metrika_gate_quota_rejections_total", vec![("reason", reason)])
        }
        Alert::Reads(name) => (name, "metrika_gate_refusals_total", vec![("origin", origin), ("reason", reason)]),
        Alert::State(name, state) => (name, "metrika_gate_token_state", vec![("state", state)]),
        Alert::Loaded(name) => (name, "metrika_gate_token_loaded", Vec::new()),
    };
    let rules = Rules::read();
    let expression = rules.alerts.get(name).ok_or(format!("alert: no {name}"))?;
    let reads = rules.selects(expression, series, &labels);
    if reads { Ok(()) } else { Err(format!("alert: {name} reads no {series} of {reason}")) }
}

/// Many processes at once only wait for each other.
static DOCTOR: Mutex<()> = Mutex::new(());

/// Checks the doctor's line.
pub fn doctor(run: &Run<'_>) -> Result<(), String> {
    let (counter, token, words) = match run.row.doctor {
        Doctor::None(why) => return if why.is_empty() { Err("doctor: none".to_owned()) } else { Ok(()) },
        Doctor::Says(counter, token, words) => (counter, token, words),
    };
    let mut command = program();
    command.args(["doctor", "--counter", run.cast.name(counter), "--config"]).arg(run.gate.file("gate.yaml"));
    for token in run.row.tokens {
        command.args(["--token", &run.cast.alias(token.alias)]);
    }
    let output = {
        let _one_at_a_time = DOCTOR.lock().unwrap_or_else(PoisonError::into_inner);
        command.output().unwrap()
    };
    let said = String::from_utf8(output.stdout).unwrap();
    let alias = format!(" {} ", run.cast.alias(token));
    let words = run.cast.names(words);
    let found = said.lines().any(|line| line.contains(&alias) && line.contains(&words));
    if found { Ok(()) } else { Err(format!("doctor without '{}'", words.replace(char::is_numeric, ""))) }
}

/// The series that `deploy/prometheus/rules.yaml` reads.
#[derive(Default)]
pub struct Rules {
    alerts: BTreeMap<String, String>,
    records: BTreeMap<String, String>,
}

impl Rules {
    /// Reads it.
    pub fn read() -> Self {
        let rules: serde_yaml::Value = serde_yaml::from_str(&file("deploy/prometheus/rules.yaml")).unwrap();
        let mut read = Self::default();
        let groups = rules["groups"].as_sequence().unwrap();
        for rule in groups.iter().flat_map(|group| group["rules"].as_sequence().unwrap()) {
            let expression = rule["expr"].as_str().unwrap().to_owned();
            match (rule["alert"].as_str(), rule["record"].as_str()) {
                (Some(alert), _) => read.alerts.insert(alert.to_owned(), expression),
                (None, record) => read.records.insert(record.unwrap().to_owned(), expression),
            };
        }
        read
    }

    /// Whether an expression selects a series with these labels, itself or by way of a recording rule. The part behind
    /// `unless` is ignored: it only excludes.
    pub fn selects(&self, expression: &str, series: &str, labels: &[(&str, &str)]) -> bool {
        let positive = expression.split("unless").next().unwrap();
        selectors(positive).iter().any(|(name, matchers)| {
            let accepts = matchers.iter().all(|matcher| accepts(matcher, labels));
            let leads = || self.records.get(*name).is_some_and(|record| self.selects(record, series, labels));
            accepts && (*name == series || leads())
        })
    }
}

/// Names in an expression, each with the matchers in the braces behind it.
fn selectors(expression: &str) -> Vec<(&str, Vec<&str>)> {
    let mut found = Vec::new();
    let mut rest = expression;
    let is_part = |letter: char| letter.is_ascii_alphanumeric() || letter == '_' || letter == ':';
    while let Some(start) = rest.find(is_part) {
        let name = &rest[start..];
        let end = name.find(|letter| !is_part(letter)).unwrap_or(name.len());
        let (name, behind) = name.split_at(end);
        let braces = behind.strip_prefix('{').and_then(|inside| inside.split_once('}'));
        let (matchers, behind) = braces.unwrap_or(("", behind));
        found.push((
            name,
            matchers.split("\",").map(|one| one.trim_end_matches('"')).filter(|one| !one.is_empty()).collect(),
        ));
        rest = behind;
    }
    found
}

/// Whether a matcher, as `reason=~"a|b`, accepts the labels that are known.
fn accepts(matcher: &str, labels: &[(&str, &str)]) -> bool {
    let (left, pattern) = matcher.split_once('"').unwrap();
    let name = left.trim().trim_end_matches(['=', '~', '!']);
    let Some((_, value)) = labels.iter().find(|(label, _)| *label == name) else { return true };
    let is_one = pattern.split('|').any(|one| one == *value);
    match &left.trim()[name.len()..] {
        "=" => pattern == *value,
        "!=" => pattern != *value,
        "=~" => is_one,
        "!~" => !is_one,
        other => panic!("a matcher with {other}"),
    }
}

#[test]
fn an_alert_reads_what_its_expression_and_the_rules_behind_it_select() {
    let rules = Rules::read();
    let reads =
        |alert: &str, series: &str, labels: &[(&str, &str)]| rules.selects(&rules.alerts[alert], series, labels);
    let refusals = "metrika_gate_refusals_total";
    let of = |reason| [("origin", "upstream"), ("reason", reason)];
    assert!(reads("MetrikaGateAccessDenied", refusals, &of("counter_not_granted")));
    assert!(!reads("MetrikaGateAccessDenied", refusals, &of("owner_mismatch")));
    assert!(!reads("MetrikaGateAccessDenied", refusals, &[("origin", "gate"), ("reason", "scope_denied")]));
    assert!(reads("MetrikaGateTokenRefused", refusals, &of("owner_mismatch")));
    assert!(!reads("MetrikaGateTokenRefused", refusals, &of("token_invalid")));
    assert!(reads("MetrikaGateTokenDisputed", refusals, &of("token_invalid")));
    assert!(reads("MetrikaGateUnknownCaller", refusals, &[("origin", "gate"), ("reason", "unknown_caller")]));
    assert!(!reads("MetrikaGateCallerRefused", refusals, &[("origin", "gate"), ("reason", "unknown_caller")]));
    let state = |state| [("state", state)];
    assert!(reads("MetrikaGateTokenSuspended", "metrika_gate_token_state", &state("suspended")));
    assert!(!reads("MetrikaGateTokenSuspended", "metrika_gate_token_state", &state("outage")), "that is behind unless");
    let quota = "metrika_gate_quota_rejections_total";
    assert!(reads("MetrikaGateQuotaBursts", quota, &[("reason", "quota_ip")]));
    assert!(!reads("MetrikaGateQuotaExhausted", quota, &[("reason", "quota_ip")]));
}

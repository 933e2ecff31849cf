//! Why Metrica refused: whatever its body looks like, metric, access line and answer have the same word, and the body passes.

use std::fmt::Write as _;

use metrica::cause::Cause;

use crate::harness::files::same_as_file;
use crate::harness::{Answer, Gate, TWO_CALLERS, Upstream};
use crate::response::reflection::gzip;

const COUNTERS: &str = "/management/v1/counters";
const COUNTER: &str = "/management/v1/counter/5";

/// A response of Metrica.
struct Said {
    status: &'static str,
    fields: &'static str,
    body: Vec<u8>,
    /// The request that it answers, and the reason it has.
    path: &'static str,
    reason: &'static str,
}

fn json(status: &'static str, body: &str, path: &'static str, reason: &'static str) -> Said {
    Said { status, fields: "Content-Type: application/json\r\n", body: body.into(), path, reason }
}

fn typed(status: &'static str, error_type: &str, path: &'static str, reason: &'static str) -> Said {
    let code = &status[..3];
    let body = format!(r#"{{"errors":[{{"error_type":"{error_type}","message":"m"}}],"code":{code},"message":"m"}}"#);
    json(status, &body, path, reason)
}

/// Bodies as they were seen, and as they could be.
fn gold() -> Vec<Said> {
    let denied = r#"{"errors":[{"error_type":"access_denied","message":"Access is denied"}],"code":403,"message":"Access is denied"}"#;
    let russian = r#"{"errors":[{"error_type":"quota_parallel_requests_by_uid","message":"Превышена квота на количество параллельных запросов"}],"code":429,"message":"Превышена квота на количество параллельных запросов"}"#;
    let spread = "{ \"message\" : \"Access Denied\",\n  \"code\" : 403,\n  \"errors\" : [ { \"location\":\"x\", \"message\":\"Access Denied\", \"error_type\" : \"access_denied\" } ] }";
    let huge = format!(
        r#"{{"errors":[{{"error_type":"invalid_token","message":"{0}"}}],"code":403,"message":"{0}"}}"#,
        "я".repeat(50_000)
    );
    let late =
        format!(r#"{{"message":"{}","errors":[{{"error_type":"invalid_token"}}],"code":403}}"#, "x".repeat(20_000));
    let page = "<html><head><title>Error 403</title></head><body>HTTP ERROR 403</body></html>";
    let packed = |text: &str, status, reason| Said {
        status,
        fields: "Content-Type: application/json\r\nContent-Encoding: gzip\r\n",
        body: gzip(text.as_bytes()),
        path: COUNTER,
        reason,
    };
    vec![
        json("403 Forbidden", denied, COUNTER, "ambiguous"),
        json("403 Forbidden", spread, COUNTER, "ambiguous"),
        json("403 Forbidden", denied, COUNTERS, "scope_missing"),
        json("403 Forbidden", denied, "/stat/v1/data?ids=5&ulogin=partner", "ambiguous"),
        json("403 Forbidden", denied, "/stat/v1/data?ids=5&ulogin=porg-abc", "ambiguous"),
        json("403 Forbidden", denied, "/stat/v1/data?counters=5", "other"),
        json("403 Forbidden", denied, "/stat/v1/data?metrics=ym:s:visits", "other"),
        typed("403 Forbidden", "counter_in_connect", COUNTER, "counter_in_organization"),
        typed("403 Forbidden", "of_tomorrow", COUNTER, "other"),
        json("429 Too Many Requests", russian, COUNTER, "quota_parallel"),
        packed(russian, "429 Too Many Requests", "quota_parallel"),
        packed(denied, "403 Forbidden", "ambiguous"),
        typed("420 Enhance Your Calm", "quota_requests_by_uid", COUNTER, "quota_uid"),
        typed("429 Too Many Requests", "quota_requests_by_uid", COUNTER, "quota_uid"),
        typed("429 Too Many Requests", "quota_requests_by_ip", COUNTER, "quota_ip"),
        typed("429 Too Many Requests", "quota_requests_by_counter_id", COUNTER, "quota_counter"),
        typed("429 Too Many Requests", "quota_parallel_requests", COUNTER, "quota_parallel"),
        typed("429 Too Many Requests", "quota_delegate_requests", COUNTER, "quota_delegates"),
        typed("429 Too Many Requests", "quota_grants_requests", COUNTER, "quota_grants"),
        typed("429 Too Many Requests", "quota_of_tomorrow", COUNTER, "quota_other"),
        json("429 Too Many Requests", "", COUNTER, "quota_other"),
        json("403 Forbidden", page, COUNTER, "other"),
        json("403 Forbidden", "", COUNTER, "other"),
        json("403 Forbidden", &denied[..60], COUNTER, "ambiguous"),
        json("403 Forbidden", &denied[..20], COUNTER, "other"),
        json("403 Forbidden", &late, COUNTER, "other"),
        json("403 Forbidden", &huge, COUNTER, "token_invalid"),
    ]
}

/// Answers the request for `?case=N`, or behind `&case=N`, with the body of that number.
fn upstream() -> Upstream {
    Upstream::run(|conversation| {
        let said = gold();
        while let Some(head) = conversation.request_head() {
            let number = head.split("case=").nth(1).and_then(|rest| rest.split(' ').next());
            let Some(one) = number.and_then(|digits| said.get(digits.parse::<usize>().ok()?)) else {
                conversation.answer("200 OK", "application/json", "{}");
                continue;
            };
            conversation.write(format!(
                "HTTP/1.1 {}\r\n{}Content-Length: {}\r\n\r\n",
                one.status,
                one.fields,
                one.body.len()
            ));
            conversation.write(&one.body);
        }
    })
}

fn ask(gate: &Gate, number: usize, one: &Said) -> (Answer, String) {
    let separator = if one.path.contains('?') { '&' } else { '?' };
    let path = format!("{}{separator}case={number}", one.path);
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nAccept-Encoding: gzip\r\nX-Request-ID: case-{number}.\r\n\r\n"
    );
    let answer = gate.send("app", request);
    (answer, gate.until_log(&[&format!("case-{number}."), "\"access\""]))
}

#[test]
fn every_refusal_has_one_word_and_its_own_body() {
    let upstream = upstream();
    for (number, one) in gold().iter().enumerate() {
        // A gate of its own: an earlier response would affect the next one.
        let gate = Gate::start(&upstream, &format!("{TWO_CALLERS}\ntoken_health: {{learn: false}}\n"));
        let (answer, line) = ask(&gate, number, one);
        let shown =
            format!("{number}: {} {}", one.status, String::from_utf8_lossy(&one.body[..one.body.len().min(100)]));
        assert_eq!(answer.status.to_string(), one.status[..3], "{shown}");
        assert!(answer.body == one.body, "the body has changed: {shown}");
        assert_eq!(answer.field("x-gate-reason"), Some(one.reason), "{shown}");
        assert!(answer.field("x-gate-hint").is_some_and(|hint| hint.len() > 20), "{shown}");
        assert_eq!(answer.field("x-gate-error"), None, "{shown}");
        let line: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!((&line["origin"], &line["reason"]), (&"upstream".into(), &one.reason.into()), "{shown}");
        let cause = Cause::ALL.iter().find(|cause| cause.as_str() == one.reason).unwrap();
        assert_eq!(line["advice"], cause.advice(), "{shown}");
        let rights = cause.is_of_rights().then(|| ("metrika:read".into(), "metrika:read".into()));
        assert_eq!(line.get("needs").cloned().zip(line.get("declared").cloned()), rights, "{shown}");
        let family = if one.status.starts_with("403") { "auth_failures_total" } else { "quota_rejections_total" };
        let reason = format!("reason=\"{}\"", one.reason);
        gate.until_metric(&[family, &reason, "token=\"analytics\""], 1.0);
        let drift = f64::from(u8::from(one.reason == "scope_missing"));
        assert!((gate.metric(&["scope_drift_total"]) - drift).abs() < 0.5, "{shown}");
    }
}

/// The gate's own refusals have the two fields as well, and the reason is the one of `X-Gate-Error`.
#[test]
fn the_gates_own_refusals_have_a_reason_and_a_hint_too() {
    let gate = Gate::start(&Upstream::plain(), TWO_CALLERS);
    let answer =
        gate.send("app", "POST /management/v1/counters HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(answer.summary(), "403 scope_denied");
    assert_eq!(answer.field("x-gate-reason"), Some("scope_denied"));
    let body: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(answer.field("x-gate-hint"), body["message"].as_str());
    assert_eq!(body["message"], "The operation needs metrika:write; this caller is configured with metrika:read.");
    let line = gate.until_log(&["\"access\"", "\"reason\":\"scope_denied\""]);
    let line: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!((&line["needs"], &line["declared"]), (&"metrika:write".into(), &"metrika:read".into()));
    let unparsed = gate.send("app", "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n");
    assert_eq!(unparsed.field("x-gate-reason"), unparsed.field("x-gate-error"));
    assert!(unparsed.field("x-gate-hint").is_some());
}

/// Probes after a refusal tell a missing scope from a missing grant, for every worker and every method.
#[test]
fn the_reason_of_a_refusal_is_found_by_probes() {
    let denied = r#"{"errors":[{"error_type":"access_denied","message":"m"}],"code":403,"message":"m"}"#;
    let upstream = Upstream::run(move |conversation| {
        while let Some(head) = conversation.request_head() {
            conversation.request_body(&head);
            match head.contains("/counter/6") {
                true if head.starts_with("HEAD") => {
                    conversation.write("HTTP/1.1 403 Forbidden\r\nContent-Length: 90\r\n\r\n");
                }
                true => conversation.answer("403 Forbidden", "application/json", denied),
                false => conversation.answer("200 OK", "application/json", r#"{"rows":0,"counters":[]}"#),
            }
        }
    });
    let gate = Gate::start(&upstream, TWO_CALLERS);
    let reason = |path: &str| gate.get("app", path).field("x-gate-reason").map(str::to_owned);
    assert_eq!(reason("/management/v1/counter/6").as_deref(), Some("ambiguous"));
    assert_eq!(reason(COUNTERS), None);
    // The other worker learns of it too.
    crate::harness::gate::until("every worker knows", || {
        (0..40).all(|_| reason("/management/v1/counter/6").as_deref() == Some("counter_not_granted"))
    });
    let mut caller = gate.connect("app");
    caller.send("HEAD /management/v1/counter/6 HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let head = caller.answer_to_head();
    assert_eq!(head.field("x-gate-reason"), Some("counter_not_granted"));
}

#[test]
fn the_reasons_are_in_the_documentation() {
    let mut page = "# Why Metrica refused

Each 401, 403, 420 and 429 of Metrica has one of these reasons. The reason is in `X-Gate-Reason` of the response, in `reason` of the access
line, and in the metrics `metrika_gate_auth_failures_total` and `metrika_gate_quota_rejections_total`.

- `X-Gate-Hint` of the response begins with the second column. Where rights are concerned, the scopes follow that the operation needs and
  that the token declares. For `ambiguous` and `other`, the hint is another one where the request itself shows the mistake: an unknown
  login, or a report without `ids`.
- The third column is `advice` of the access line, which has these scopes as `needs` and `declared`.
- `quota_uid` means one of two limits, because Metrica's response does. `is_learned` in `/quota` shows which one the gate has inferred
  ([quota](operations.md#quota)).
- Refusals by the gate itself are in [rejections.md](rejections.md).

| reason | what the caller is told | what the operator can do |
|---|---|---|
"
    .to_owned();
    for cause in Cause::ALL {
        writeln!(page, "| `{}` | {} | {} |", cause.as_str(), cause.hint(), cause.advice()).unwrap();
    }
    page.push_str(
        "
## The troubleshooting list

The rows are those of [Yandex' list](https://yandex.com/dev/metrika/en/intro/authorization), and the quotas. A test produces each one against a
gate and against `metrika-gate doctor`. The last column is the finding in `doctor --format json`.

",
    );
    page.push_str(&crate::cli::troubleshooting::table());
    same_as_file("docs/reasons.md", &page);
}

//! The troubleshooting list of Metrica's documentation, row by row: a gate reports the reason in service, and the doctor
//! reports the same on request (<https://yandex.com/dev/metrika/en/intro/authorization>).

use std::fmt::Write as _;

use fake_metrica::Fake;
use metrica::cause::Cause;

use crate::cli::doctor::{Practice, names};
use crate::harness::Gate;
use crate::harness::gate::until;
use crate::harness::metrica::{ALL, EXPENSES, PERSONAL, READS, STRANGER, metrica};

/// A row: the fault, and the expected reports.
struct Row {
    symptom: &'static str,
    /// Knobs of the stand-in.
    knobs: &'static [&'static str],
    secret: &'static str,
    /// The token's keys in the configuration.
    keys: &'static str,
    /// Rules of the caller, of which the doctor learns what to look at.
    rules: &'static str,
    /// Requests before, which are answered.
    before: &'static [&'static str],
    /// The refused request: method and target.
    request: &'static str,
    status: u16,
    reason: Cause,
    /// The doctor's finding; empty where it cannot tell.
    finding: &'static str,
}

const READ: &str = "scopes: [metrika:read], owner: shop-owner";
const WRITE: &str = "scopes: [metrika:read, metrika:write], owner: shop-owner";
const LIST: &str = "GET /management/v1/counters";

const fn row(symptom: &'static str, request: &'static str, reason: Cause, finding: &'static str) -> Row {
    let (knobs, before): (&[&str], &[&str]) = (&[], &[]);
    Row { symptom, knobs, secret: READS, keys: READ, rules: "", before, request, status: 403, reason, finding }
}

fn rows() -> Vec<Row> {
    let quota = |error_type: &'static str, status, reason| Row {
        knobs: Box::leak(Box::new([&*Box::leak(
            format!("fail?error_type={error_type}&status={status}&path=/management&times=9").into_boxed_str(),
        )])),
        status,
        ..row(error_type, LIST, reason, "alive_unknown")
    };
    vec![
        Row {
            knobs: &["fail?error_type=unauthorized&path=/&times=99"],
            secret: "y0_mangled",
            status: 401,
            ..row("401 unauthorized: the header is malformed", LIST, Cause::HeaderMalformed, "token_short")
        },
        Row {
            knobs: &["revoke?token=test-000000000000000000000000reads"],
            ..row("403 invalid_token: expired, revoked, password changed", LIST, Cause::TokenInvalid, "dead")
        },
        Row {
            knobs: &["revoke?token=test-000000000000000000000000reads", "invalid?status=401"],
            status: 401,
            ..row("401 invalid_token", LIST, Cause::TokenInvalid, "dead")
        },
        Row {
            knobs: &["revoke?token=test-000000000000000000000000reads", "invalid?status=403&error_type=access_denied"],
            before: &[LIST],
            ..row(
                "403 access_denied on what worked: expired, password changed",
                LIST,
                Cause::TokenInvalid,
                "issuer_invalid",
            )
        },
        Row {
            knobs: &["fail?error_type=invalid_token&path=/stat&times=99"],
            ..row(
                "403 invalid_token, and the token is accepted elsewhere",
                "GET /stat/v1/data?ids=101&metrics=ym:s:visits",
                Cause::Other,
                "alive",
            )
        },
        Row {
            knobs: &["restricted?name=ym:s:secret"],
            rules: ", counters: [101]",
            ..row(
                "403 on one report only: a restricted metric",
                "GET /stat/v1/data?ids=101&metrics=ym:s:secret",
                Cause::RequestRefused,
                "report 101",
            )
        },
        Row {
            secret: EXPENSES,
            ..row("403 everywhere: the application lacks metrika:read", LIST, Cause::ScopeMissing, "read_missing")
        },
        Row {
            secret: EXPENSES,
            ..row(
                "403 everywhere, also on the owner's own counter",
                "GET /management/v1/counter/101/goals",
                Cause::ScopeMissing,
                "read_missing",
            )
        },
        Row {
            before: &[LIST],
            rules: ", counters: [101, 104], list: filter",
            ..row(
                "403 on one counter only: no grant",
                "GET /stat/v1/data?ids=104&metrics=ym:s:visits",
                Cause::CounterNotGranted,
                "counter_not_granted 104",
            )
        },
        Row {
            secret: STRANGER,
            ..row(
                "403: the token of another account",
                "GET /management/v1/counter/101",
                Cause::OwnerMismatch,
                "owner_other",
            )
        },
        Row {
            secret: ALL,
            keys: WRITE,
            rules: ", counters: [102]",
            ..row(
                "GETs fine, writes 403: only view",
                "POST /management/v1/counter/102/goals",
                Cause::CounterViewOnly,
                "counter_view_only 102",
            )
        },
        Row {
            keys: WRITE,
            rules: ", counters: [101]",
            ..row(
                "GETs fine, writes 403: no metrika:write",
                "POST /management/v1/counter/101/goals",
                Cause::ScopeMissing,
                "write_unproven",
            )
        },
        Row {
            secret: EXPENSES,
            keys: "scopes: [metrika:write], owner: shop-owner",
            before: &["POST /management/v1/counter/101/expense/delete_single"],
            ..row(
                "upload 403, other writes fine: a narrow scope of another kind",
                "POST /management/v1/counter/101/offline_conversions/upload",
                Cause::ScopeMissing,
                "write_unproven",
            )
        },
        Row {
            rules: ", counters: [102]",
            ..row(
                "403 on GET grants: needs more than view",
                "GET /management/v1/counter/102/grants",
                Cause::CounterViewOnly,
                "counter_looks 102",
            )
        },
        Row {
            rules: ", counters: [103]",
            ..row(
                "403 counter_in_connect",
                "GET /management/v1/counter/103",
                Cause::CounterInOrganization,
                "counter_in_connect 103",
            )
        },
        Row {
            secret: PERSONAL,
            keys: "scopes: [metrika:read], owner: porg-shop",
            ..row("403 on a porg- account: issued personally", LIST, Cause::OrganizationTokenRequired, "owner_personal")
        },
        Row {
            rules: ", ulogin: [other-client]",
            ..row(
                "403 with ulogin: not a representative",
                "GET /management/v1/counters?ulogin=other-client",
                Cause::NotRepresentative,
                "not_represented",
            )
        },
        Row {
            knobs: &["fail?error_type=access_denied&path=/stat&times=9"],
            ..row(
                "403 on stat without ids: a malformed call",
                "GET /stat/v1/data?metrics=ym:s:visits",
                Cause::Other,
                "read",
            )
        },
        row(
            "403 on stat for any id: counters= in the place of ids=",
            "GET /stat/v1/data?counters=101&metrics=ym:s:visits",
            Cause::Other,
            "read",
        ),
        quota("quota_requests_by_uid", 429, Cause::QuotaUid),
        quota("quota_requests_by_ip", 429, Cause::QuotaIp),
        quota("quota_requests_by_counter_id", 429, Cause::QuotaCounter),
        quota("quota_parallel_requests", 429, Cause::QuotaParallel),
        quota("quota_parallel_requests_by_uid", 420, Cause::QuotaParallel),
        quota("quota_delegate_requests", 429, Cause::QuotaDelegates),
        quota("quota_grants_requests", 429, Cause::QuotaGrants),
        quota("quota_of_tomorrow", 420, Cause::QuotaOther),
    ]
}

/// The rows as a table of the documentation.
pub fn table() -> String {
    let mut table = "| what Metrica answers, and when | reason | what the caller is told | what the operator can do | what doctor finds |
|---|---|---|---|---|
"
    .to_owned();
    for Row { symptom, reason, finding, .. } in rows() {
        let finding = finding.split(' ').next().unwrap_or_default();
        let (hint, advice) = (reason.hint(), reason.advice());
        writeln!(table, "| {symptom} | `{}` | {hint} | {advice} | `{finding}` |", reason.as_str()).unwrap();
    }
    table
}

fn gate(fake: &Fake, row: &Row) -> Gate {
    let config = format!(
        "
listeners: [{{name: app, address: '127.0.0.1:0'}}]
callers:
  - {{id: reports, match: {{listener: app}}, scopes: [metrika:read, metrika:write], tokens: [t]{}}}
tokens:
  t: {{file: '{{folder}}/t', {}}}
identity: {{url: 'https://login.yandex.ru/info', ca_file: '{{ca}}', connect_to: '{{upstream}}'}}
",
        row.rules, row.keys
    );
    Gate::plan_for(&fake.address().to_string(), fake.ca_pem(), &config).token("t", row.secret).start()
}

fn ask(gate: &Gate, request: &str) -> crate::harness::Answer {
    gate.send("app", format!("{request} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n"))
}

#[track_caller]
fn hold(row: &Row) {
    let Row { symptom, reason, status, .. } = *row;
    let fake = metrica();
    let gate = gate(&fake, row);
    if row.knobs.is_empty() {
        // The owner of a new token is asked in the background.
        until(symptom, || fake.heard().iter().any(|request| request.contains("/info")));
    }
    for request in row.before {
        assert_eq!(ask(&gate, request).status, 200, "{symptom}: {request}");
    }
    row.knobs.iter().for_each(|knob| _ = fake.turn(knob).unwrap());
    // The gate may first have to probe to tell a scope from a grant; and a rejected token is suspended then.
    let mut answer = ask(&gate, row.request);
    until(&format!("{symptom}: {:?} {}", answer.field("x-gate-reason"), answer.text()), || {
        let said = answer.field("x-gate-reason") == Some(reason.as_str());
        if !said {
            answer = ask(&gate, row.request);
        }
        said
    });
    assert_eq!(answer.status, status, "{symptom}");
    if reason != Cause::TokenInvalid {
        let again = ask(&gate, row.request);
        assert_eq!(again.field("x-gate-reason"), Some(reason.as_str()), "{symptom}: and it stays so");
    }
    let hint = answer.field("x-gate-hint").unwrap();
    assert_eq!(hint.starts_with(reason.hint()), reason != Cause::Other, "{symptom}: {hint}");
    assert!(reason != Cause::Other || hint.contains("ids=") || hint.contains("Metrica accepts the token"), "{hint}");
    let family = if status < 420 { "auth_failures_total" } else { "quota_rejections_total" };
    let label = format!("reason=\"{}\"", reason.as_str());
    until(symptom, || gate.metric(&[family, &label, "token=\"t\""]) >= 1.0);
    gate.until_log(&["\"access\"", &format!("\"reason\":\"{}\"", reason.as_str())]);
    drop(gate);

    let callers = format!(
        "{{id: reports, match: {{listener: app}}, scopes: [metrika:read, metrika:write], tokens: [t]{}}}",
        row.rules
    );
    let fake = metrica();
    row.knobs.iter().for_each(|knob| _ = fake.turn(knob).unwrap());
    let practice = Practice::of(&fake, &[("t", row.secret, row.keys)], &callers);
    let (_, said) = practice.json(&[]);
    assert!(names(&said).iter().any(|name| name == row.finding), "{symptom}: {said:#}");
}

#[test]
fn every_row_of_the_list_has_its_reason_and_its_finding() {
    let rows = rows();
    let chunk = rows.len().div_ceil(4);
    std::thread::scope(|scope| {
        for part in rows.chunks(chunk) {
            scope.spawn(|| part.iter().for_each(hold));
        }
    });
    // Every reason but the two for an unknown cause.
    let reasons: std::collections::BTreeSet<_> = rows.iter().map(|row| row.reason).collect();
    let all: std::collections::BTreeSet<_> =
        Cause::ALL.iter().copied().filter(|cause| *cause != Cause::Ambiguous).collect();
    assert_eq!(reasons, all);
}

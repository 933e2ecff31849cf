//! The doctor: for each of Metrica's reasons to refuse, the line that reports it; and only reads are sent.

use crate::cli::doctor::{Practice, READ, caller, names};
use crate::harness::metrica::{ALL, EXPENSES, ORGANISATION, OTHER_APPLICATION, PERSONAL, READS, STRANGER, metrica};

fn writer(rules: &str) -> String {
    caller(rules).replace("scopes: [metrika:read]", "scopes: [metrika:read, metrika:write]")
}

/// One line of the table of 401 and 403: its conditions, and the doctor's finding.
struct Row {
    symptom: &'static str,
    /// Knobs of the stand-in.
    knobs: &'static [&'static str],
    secret: &'static str,
    keys: &'static str,
    caller: String,
    findings: &'static [&'static str],
    code: i32,
}

const READ_WRITE: &str = "scopes: [metrika:read, metrika:write], owner: shop-owner";

/// A row of a token that is declared to read, and of a caller that does.
fn row(symptom: &'static str, secret: &'static str, findings: &'static [&'static str], code: i32) -> Row {
    Row { symptom, knobs: &[], secret, keys: READ, caller: caller(""), findings, code }
}

fn rows_of_tokens() -> Vec<Row> {
    let lasting = |error_type: &str| -> &'static str {
        Box::leak(format!("fail?error_type={error_type}&path=/management&times=99").into_boxed_str())
    };
    vec![
        row(
            "all is well",
            READS,
            &[
                "owner",
                "application",
                "alive",
                "read",
                "counters_seen",
                "counter 101",
                "counter_looks 102",
                "report 101",
            ],
            0,
        ),
        row("401: malformed", "y0_two words", &["file_content"], 78),
        row("401: malformed, with the word of the field", "OAuth y0_token", &["file_content"], 78),
        Row {
            knobs: Box::leak(Box::new([lasting("unauthorized")])),
            ..row("401 although well-formed", READS, &["owner", "application", "disputed"], 1)
        },
        Row {
            knobs: &["revoke?token=test-000000000000000000000000reads"],
            ..row("403 invalid_token", READS, &["dead"], 1)
        },
        Row {
            knobs: &["revoke?token=test-000000000000000000000000reads", "invalid?status=401", "wording?lang=ru"],
            ..row("401 invalid_token, in Russian", READS, &["dead"], 1)
        },
        row(
            "403 everywhere: no metrika:read",
            EXPENSES,
            &["owner", "application", "alive", "read_missing", "counters_not_asked"],
            1,
        ),
        Row {
            knobs: &["wording?error_type=access_denied&message=Access%20Denied"],
            ..row(
                "the same in another spelling",
                EXPENSES,
                &["owner", "application", "alive", "read_missing", "counters_not_asked"],
                1,
            )
        },
        row(
            "403 everywhere: another application",
            OTHER_APPLICATION,
            &[
                "owner",
                "application_other",
                "alive",
                "read",
                "counters_seen",
                "counter 101",
                "counter_looks 102",
                "report 101",
            ],
            1,
        ),
        row(
            "403: the token of another account",
            STRANGER,
            &["owner_other", "application", "alive", "read", "counters_none"],
            1,
        ),
        Row {
            keys: "scopes: [metrika:read], owner: porg-shop",
            ..row(
                "403 on porg-",
                PERSONAL,
                &["owner_personal", "application_seen", "alive", "read_personal", "counters_not_asked"],
                1,
            )
        },
        Row {
            keys: "scopes: [metrika:read], owner: porg-shop",
            ..row(
                "porg-, as it should be",
                ORGANISATION,
                &[
                    "owner",
                    "application_seen",
                    "alive",
                    "read",
                    "counters_seen",
                    "counter 101",
                    "counter_looks 102",
                    "report 101",
                ],
                0,
            )
        },
        Row {
            knobs: Box::leak(Box::new([lasting("quota_requests_by_uid")])),
            ..row("quota", READS, &["owner", "application", "alive_unknown"], 75)
        },
        Row {
            knobs: &["fail?error_type=quota_parallel_requests_by_uid&path=/management&times=1"],
            ..row(
                "quota, for a second",
                READS,
                &[
                    "owner",
                    "application",
                    "alive",
                    "read",
                    "counters_seen",
                    "counter 101",
                    "counter_looks 102",
                    "report 101",
                ],
                0,
            )
        },
        Row {
            knobs: &["fail?error_type=quota_new&status=420&html&path=/management&times=1"],
            ..row(
                "quota, as a page",
                READS,
                &[
                    "owner",
                    "application",
                    "alive",
                    "read",
                    "counters_seen",
                    "counter 101",
                    "counter_looks 102",
                    "report 101",
                ],
                0,
            )
        },
        Row {
            knobs: &["fail?error_type=unauthorized&path=/info&times=99"],
            ..row(
                "Yandex ID refuses what Metrica takes",
                READS,
                &["issuer_invalid", "alive", "read", "counters_seen", "counter 101", "counter_looks 102", "report 101"],
                1,
            )
        },
        Row {
            knobs: &["fail?error_type=backend_error&path=/info&times=99&html"],
            ..row(
                "Yandex ID gives no answer",
                READS,
                &["issuer_unknown", "alive", "read", "counters_seen", "counter 101", "counter_looks 102", "report 101"],
                75,
            )
        },
        Row {
            knobs: &[
                "fail?error_type=backend_error&path=/info&times=99",
                "revoke?token=test-000000000000000000000000reads",
            ],
            ..row("invalid_token, and Yandex ID gives no answer", READS, &["issuer_unknown", "invalid"], 1)
        },
        Row {
            keys: "scopes: [metrika:write]",
            ..row(
                "more rights than declared",
                ALL,
                &[
                    "owner_seen",
                    "application_seen",
                    "alive",
                    "read_undeclared",
                    "write_unproven",
                    "counters_seen",
                    "counter 101",
                    "counter_looks 102",
                    "report 101",
                ],
                0,
            )
        },
        Row {
            keys: "scopes: [metrika:expenses]",
            ..row(
                "upload 403: a narrow scope of another kind",
                EXPENSES,
                &["owner_seen", "application_seen", "alive", "no_read", "write_unproven", "counters_not_asked"],
                0,
            )
        },
        Row {
            keys: "scopes: [metrika:read], expires: 2020-01-01",
            ..row(
                "expired",
                READS,
                &[
                    "expired",
                    "owner_seen",
                    "application_seen",
                    "alive",
                    "read",
                    "counters_seen",
                    "counter 101",
                    "counter_looks 102",
                    "report 101",
                ],
                1,
            )
        },
    ]
}

fn rows_of_counters() -> Vec<Row> {
    vec![
        Row {
            caller: caller(", counters: [104, 101, 101]"),
            ..row(
                "403 on one counter only",
                READS,
                &["owner", "application", "alive", "read", "counter 101", "counter_not_granted 104", "report 101"],
                1,
            )
        },
        Row {
            keys: READ_WRITE,
            caller: writer(", counters: [101, 102]"),
            ..row(
                "GETs fine, writes 403: only view",
                ALL,
                &[
                    "owner",
                    "application_seen",
                    "alive",
                    "read",
                    "write_unproven",
                    "counter 101",
                    "counter_view_only 102",
                    "report 101",
                ],
                1,
            )
        },
        Row {
            caller: caller(", counters: [102]"),
            ..row(
                "403 on its grants: only view",
                READS,
                &["owner", "application", "alive", "read", "counter_looks 102", "report 102"],
                0,
            )
        },
        Row {
            caller: caller(", counters: [44147844]"),
            ..row(
                "a public counter",
                READS,
                &["owner", "application", "alive", "read", "counter_looks 44147844", "report 44147844"],
                0,
            )
        },
        Row {
            caller: caller(", counters: [103]"),
            ..row(
                "403 counter_in_connect",
                READS,
                &["owner", "application", "alive", "read", "counter_in_connect 103"],
                1,
            )
        },
        Row {
            caller: caller(", counters: [101], ulogin: [shop.client, other-client]"),
            ..row(
                "403 with ulogin",
                READS,
                &[
                    "owner",
                    "application",
                    "alive",
                    "read",
                    "counter 101",
                    "report 101",
                    "not_represented",
                    "represents",
                ],
                0,
            )
        },
        Row {
            knobs: &["fail?error_type=backend_error&path=/management/v1/counters&times=99"],
            caller: caller(", counters: [101, 104]"),
            ..row(
                "no list, and a counter that is seen",
                READS,
                &[
                    "owner",
                    "application",
                    "alive_unknown",
                    "counter 101",
                    "counter_not_granted 104",
                    "read",
                    "report 101",
                ],
                1,
            )
        },
        Row {
            knobs: &["fail?error_type=backend_error&path=/management/v1/counters&times=99&html"],
            caller: caller(", counters: [104]"),
            ..row(
                "no list, and the open counter answers",
                READS,
                &["owner", "application", "alive_unknown", "counter_open 104", "read_unknown"],
                1,
            )
        },
        Row {
            knobs: &[
                "fail?error_type=backend_error&path=/management/v1/counters&times=99",
                "public?counter=44147844&off",
            ],
            caller: caller(", counters: [101, 104]"),
            ..row(
                "no list, and the open counter is refused",
                EXPENSES,
                &["owner", "application", "alive_unknown", "counter_unseen 101", "counter_unseen 104", "read_missing"],
                1,
            )
        },
        Row {
            knobs: &["fail?error_type=access_denied&path=/stat&times=99&gzip"],
            caller: caller(", counters: [101]"),
            ..row(
                "403 on reports, packed",
                READS,
                &["owner", "application", "alive", "read", "counter 101", "report_refused 101"],
                1,
            )
        },
        Row {
            knobs: &["fail?error_type=access_denied&path=/management/v1/counter/&times=99&half"],
            caller: caller(", counters: [101]"),
            ..row(
                "403 that ends in the middle, behind its type",
                READS,
                &["owner", "application", "alive", "read", "counter_not_granted 101"],
                1,
            )
        },
        Row {
            knobs: &["fail?error_type=access_denied&path=/management/v1/counter/&times=99&html"],
            caller: caller(", counters: [101]"),
            ..row("403 as a page", READS, &["owner", "application", "alive", "read", "counter_unknown 101"], 75)
        },
        Row {
            knobs: &["fail?error_type=invalid_token&path=/management/v1/counter/&times=99"],
            caller: caller(", counters: [101, 102]"),
            ..row(
                "403 invalid_token on counters only",
                READS,
                &["owner", "application", "alive", "read", "counter_unknown 101", "counters_skipped"],
                75,
            )
        },
        Row {
            knobs: &["fail?error_type=access_denied&path=/management/v1/accounts&times=99"],
            caller: caller(", ulogin: [shop-client]"),
            ..row(
                "403 on the list of accounts",
                READS,
                &[
                    "owner",
                    "application",
                    "alive",
                    "read",
                    "counters_seen",
                    "counter 101",
                    "counter_looks 102",
                    "report 101",
                    "accounts_unknown",
                ],
                75,
            )
        },
        Row {
            caller: caller(", counters: [105]"),
            knobs: &["fail?error_type=not_found&path=/management/v1/counter/105&times=99"],
            ..row("a counter that is gone", READS, &["owner", "application", "alive", "read", "counter_absent 105"], 1)
        },
        Row {
            knobs: &["fail?status=404&error_type=not_found&html&path=/management&times=99"],
            ..row(
                "not Metrica at all",
                READS,
                &["owner", "application", "alive_unknown", "counters_not_asked", "read_unknown"],
                75,
            )
        },
        Row {
            knobs: &["fail?error_type=access_denied&path=/management/v1/counter/&times=99&huge=8000000"],
            caller: caller(", counters: [101]"),
            ..row(
                "403 of eight megabytes",
                READS,
                &["owner", "application", "alive", "read", "counter_unknown 101"],
                75,
            )
        },
    ]
}

/// Rules 1 to 6 of the doctor: the table of 401 and 403, every row that can be seen from outside.
#[test]
fn every_reason_of_a_token_has_its_line() {
    look_at(rows_of_tokens());
}

#[test]
fn every_reason_of_a_counter_has_its_line() {
    look_at(rows_of_counters());
}

fn look_at(rows: Vec<Row>) {
    for row in rows {
        let fake = metrica();
        for knob in row.knobs {
            fake.turn(knob).unwrap();
        }
        let practice = Practice::of(&fake, &[("t", row.secret, row.keys)], &row.caller);
        let (code, said) = practice.json(&[]);
        assert_eq!(names(&said), row.findings, "{}: {said:#}", row.symptom);
        assert_eq!((code, &said["exit_code"]), (row.code, &row.code.into()), "{}", row.symptom);
        let heard = fake.heard();
        assert!(heard.iter().all(|request| request.starts_with("GET ")), "{}: {heard:?}", row.symptom);
        assert_eq!(said["requests"], heard.len(), "{}", row.symptom);
        for finding in said["findings"].as_array().unwrap() {
            let is_well = ["well", "note"].contains(&finding["standing"].as_str().unwrap());
            assert!(is_well || !finding["advice"].as_str().unwrap().is_empty(), "{}: {finding}", row.symptom);
        }
    }
}

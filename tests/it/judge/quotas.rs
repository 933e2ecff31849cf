//! Quotas: each has its name, whatever its status and its language.

use super::row::{Alert, BOTH, Broken, Doctor, Hint, QUOTA, Row, Step};

const LIST: &str = "GET /management/v1/counters";

/// The hint contains these words.
const fn says(with: &'static [&'static str]) -> Hint {
    Hint { with, ..QUOTA.hint }
}

/// Three an hour: a refused caller can wait, and nobody has to be woken.
const RARE: Alert = Alert::None("three an hour is the business of who sends them, and the answer says when it is over");

pub const ROWS: &[Row] = &[
    Row {
        cause: "the day or the five minutes of a login",
        before: &[Step::Break(LIST, Broken::Error(429, "quota_requests_by_uid"))],
        request: LIST,
        reasons: &["quota_uid"],
        hint: says(&["account", "5000"]),
        advice: "5000 requests a day",
        ..QUOTA
    },
    Row {
        cause: "the second of an address",
        before: &[Step::Break(LIST, Broken::Error(429, "quota_requests_by_ip"))],
        request: LIST,
        reasons: &["quota_ip"],
        hint: says(&["address", "second"]),
        advice: "30 in all",
        alert: Alert::Reads("MetrikaGateQuotaBursts"),
        ..QUOTA
    },
    Row {
        cause: "the day of a counter",
        before: &[Step::Break("GET /stat/v1/data", Broken::Error(429, "quota_requests_by_counter_id"))],
        request: "GET /stat/v1/data?ids={own}&metrics=ym:s:visits",
        reasons: &["quota_counter"],
        hint: says(&["counter", "5000"]),
        advice: "5000 requests a day",
        ..QUOTA
    },
    Row {
        cause: "three at once of a login, by the documented name",
        before: &[Step::Break(LIST, Broken::Error(429, "quota_parallel_requests"))],
        request: LIST,
        reasons: &["quota_parallel"],
        hint: says(&["3 requests"]),
        advice: "3 requests in progress",
        alert: Alert::Reads("MetrikaGateQuotaBursts"),
        ..QUOTA
    },
    Row {
        cause: "three at once of a login, by the name that is seen live",
        before: &[Step::Break(LIST, Broken::Error(429, "quota_parallel_requests_by_uid"))],
        request: LIST,
        reasons: &["quota_parallel"],
        hint: says(&["3 requests"]),
        advice: "3 requests in progress",
        alert: Alert::Reads("MetrikaGateQuotaBursts"),
        ..QUOTA
    },
    Row {
        cause: "delegates of an hour",
        tokens: &[BOTH],
        before: &[Step::Break("POST /management/v1/delegates", Broken::Error(429, "quota_delegate_requests"))],
        request: "POST /management/v1/delegates?user_login={other}",
        reasons: &["quota_delegates"],
        hint: says(&["delegates", "hour"]),
        advice: "3 times an hour",
        alert: RARE,
        doctor: Doctor::None("it sends reads only, and only adding is limited"),
        ..QUOTA
    },
    Row {
        cause: "grants of an hour",
        tokens: &[BOTH],
        before: &[Step::Break("POST /management/v1/counter/{own}/grants", Broken::Error(429, "quota_grants_requests"))],
        request: "POST /management/v1/counter/{own}/grants",
        reasons: &["quota_grants"],
        hint: says(&["grant", "hour"]),
        advice: "3 times an hour",
        alert: RARE,
        doctor: Doctor::None("it sends reads only, and only adding is limited"),
        ..QUOTA
    },
    Row {
        cause: "a quota that nobody knows, with the status of the old page",
        before: &[Step::Break(LIST, Broken::Error(420, "quota_of_tomorrow"))],
        request: LIST,
        status: 420,
        reasons: &["quota_other"],
        hint: says(&["quota", "body"]),
        advice: "response body names it",
        ..QUOTA
    },
    Row {
        cause: "a quota without a body that says which",
        before: &[Step::Break(LIST, Broken::Page(429))],
        request: LIST,
        reasons: &["quota_other"],
        hint: says(&["quota"]),
        advice: "response body names it",
        ..QUOTA
    },
];

#[test]
fn quotas_by_name() {
    super::run::judge(ROWS);
}

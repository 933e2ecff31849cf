//! Refusals that are about neither the token nor the grant: the request itself asks for what nobody gets so.

use super::row::{BOTH, Broken, CONTENT, Doctor, REFUSED_BY_CONTENT, ROW, Row, Step};

pub const ROWS: &[Row] = &[
    Row {
        cause: "a restricted dimension on an own counter, whose reports work",
        before: &[Step::Works("GET /stat/v1/data?ids={own}&metrics=ym:s:visits")],
        request: "GET /stat/v1/data?ids={own}&metrics=ym:s:visits&dimensions=ym:s:restricted",
        ..CONTENT
    },
    Row {
        cause: "a restricted metric on an own counter, first thing",
        request: "GET /stat/v1/data/bytime?ids={own}&metrics=ym:s:restricted",
        ..CONTENT
    },
    Row {
        cause: "a restricted dimension on a counter with view, whose reports work",
        before: &[
            Step::Works("GET /management/v1/counter/{view}"),
            Step::Works("GET /stat/v1/data?ids={view}&metrics=ym:s:visits"),
        ],
        request: "GET /stat/v1/data?ids={view}&metrics=ym:s:visits&dimensions=ym:s:restricted",
        ..CONTENT
    },
    Row {
        cause: "a restricted dimension of several counters, all of which the owner has",
        before: &[Step::Works("GET /stat/v1/data?ids={own},{edit},{view}&metrics=ym:s:visits")],
        request: "GET /stat/v1/data?ids={own},{edit},{view}&metrics=ym:s:visits&dimensions=ym:s:restricted",
        ..CONTENT
    },
    Row {
        cause: "a foreign segment of an own counter",
        before: &[Step::Works("GET /management/v1/counter/{own}/apisegment/segments")],
        request: "GET /management/v1/counter/{own}/apisegment/segment/77",
        ..CONTENT
    },
    Row {
        cause: "a change of a foreign segment, where other writes to the counter work",
        tokens: &[BOTH],
        before: &[Step::Works("POST /management/v1/counter/{own}/goals")],
        request: "PUT /management/v1/counter/{own}/apisegment/segment/77",
        ..CONTENT
    },
    Row {
        cause: "what only the owner may do, where other writes to the counter work",
        tokens: &[BOTH],
        before: &[Step::Works("PUT /management/v1/counter/{edit}")],
        request: "DELETE /management/v1/counter/{edit}",
        ..CONTENT
    },
    Row {
        cause: "what only the owner may do, first thing",
        tokens: &[BOTH],
        request: "DELETE /management/v1/counter/{edit}",
        // No read shows whether a token writes; that only owners delete, and that this one may only edit, can be known.
        reasons: &[REFUSED_BY_CONTENT, "ambiguous"],
        ..CONTENT
    },
    Row {
        cause: "one write to the account is refused, where others work",
        tokens: &[BOTH],
        before: &[
            Step::Works("POST /management/v1/labels"),
            Step::Break("POST /management/v1/delegates", Broken::Error(403, "access_denied")),
        ],
        request: "POST /management/v1/delegates?user_login={other}",
        reasons: &[REFUSED_BY_CONTENT, "other"],
        ..CONTENT
    },
    Row {
        cause: "one list of the account is refused, where the list of counters works",
        before: &[
            Step::Works("GET /management/v1/counters"),
            Step::Break("GET /management/v1/labels", Broken::Error(403, "access_denied")),
        ],
        request: "GET /management/v1/labels",
        reasons: &[REFUSED_BY_CONTENT, "other"],
        ..CONTENT
    },
    Row {
        cause: "one list of the account is refused, first thing",
        before: &[Step::Break("GET /management/v1/labels", Broken::Error(403, "access_denied"))],
        request: "GET /management/v1/labels",
        reasons: &[REFUSED_BY_CONTENT, "other"],
        ..CONTENT
    },
    Row {
        cause: "a type of error that nobody knows",
        before: &[Step::Break("GET /management/v1/counter/{own}", Broken::Error(403, "of_tomorrow"))],
        request: "GET /management/v1/counter/{own}",
        reasons: &["other", REFUSED_BY_CONTENT],
        hint: CONTENT.hint,
        advice: "body",
        doctor: Doctor::Says("own", "t", "unknown: the response is 403"),
        ..ROW
    },
];

#[test]
fn neither_token_nor_account() {
    super::run::judge(ROWS);
}

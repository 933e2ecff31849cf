//! The gate's own refusals.

use super::row::{Alert, BOTH, Doctor, Hint, Kind, Metric, OWN, READS, Row, Step, Tok, WRITES};
use super::world::Death;

/// Nothing is sent, and the status is neither 401 nor 403.
const UNAVAILABLE: Row = Row {
    status: 503,
    hint: Hint { with: &["token"], without: &["metrika:", "this caller"] },
    metric: Metric::Denied,
    ..OWN
};

/// The hint contains these words.
const fn says(with: &'static [&'static str]) -> Hint {
    Hint { with, ..OWN.hint }
}

pub const ROWS: &[Row] = &[
    Row {
        cause: "no entry of callers matches",
        caller: "",
        request: "GET /management/v1/counters",
        status: 401,
        reasons: &["unknown_caller"],
        advice: "peer",
        alert: Alert::Reads("MetrikaGateUnknownCaller"),
        ..OWN
    },
    Row {
        cause: "the scopes of the caller do not allow a write",
        caller: "scopes: [metrika:read]",
        request: "POST /management/v1/counter/{own}/goals",
        reasons: &["scope_denied"],
        hint: says(&["caller", "metrika:write"]),
        advice: "explain",
        ..OWN
    },
    Row {
        cause: "no token of the caller is declared to write",
        request: "POST /management/v1/counter/{own}/goals",
        reasons: &["token_scope_missing"],
        hint: says(&["token", "metrika:write"]),
        advice: "give it a token",
        ..OWN
    },
    Row {
        cause: "another counter than those of the caller",
        caller: "scopes: [metrika:read], counters: [{own}]",
        request: "GET /stat/v1/data?ids={own},{view}&metrics=ym:s:visits",
        reasons: &["counter_denied"],
        hint: says(&["ids", "counter"]),
        advice: "list the counter",
        ..OWN
    },
    Row {
        cause: "a report without ids, of a caller with counters",
        caller: "scopes: [metrika:read], counters: [{own}]",
        request: "GET /stat/v1/data?metrics=ym:s:visits",
        reasons: &["counter_denied"],
        hint: says(&["ids"]),
        advice: "list the counter",
        ..OWN
    },
    Row {
        cause: "another login than those of the caller",
        caller: "scopes: [metrika:read], ulogin: ['{client}']",
        request: "GET /management/v1/counters?ulogin={stranger}",
        reasons: &["login_denied"],
        hint: says(&["ulogin"]),
        advice: "list it",
        ..OWN
    },
    Row {
        cause: "no login, where the caller has to name one",
        caller: "scopes: [metrika:read], ulogin: ['{client}']",
        request: "GET /management/v1/counters",
        reasons: &["login_denied"],
        hint: says(&["ulogin"]),
        advice: "name one",
        ..OWN
    },
    Row {
        cause: "the list of counters, of a caller with counters",
        caller: "scopes: [metrika:read], counters: [{own}]",
        request: "GET /management/v1/counters",
        reasons: &["list_denied"],
        hint: says(&["list"]),
        advice: "list: filter",
        ..OWN
    },
    Row {
        cause: "that the API cannot undo",
        tokens: &[BOTH],
        caller: "scopes: [metrika:read, metrika:write], destructive: deny",
        request: "DELETE /management/v1/counter/{own}",
        reasons: &["destructive_denied"],
        hint: says(&["undo"]),
        advice: "by hand",
        ..OWN
    },
    Row {
        cause: "a grant, of a caller that may give none",
        tokens: &[BOTH],
        caller: "scopes: [metrika:read, metrika:write], sharing: deny",
        request: "POST /management/v1/counter/{own}/public_grant",
        reasons: &["sharing_denied"],
        hint: says(&["access"]),
        advice: "by hand",
        ..OWN
    },
    Row {
        cause: "a script in the place of an answer",
        request: "GET /management/v1/counters?callback=show",
        reasons: &["callback_denied"],
        hint: says(&["callback"]),
        advice: "callback: allow",
        ..OWN
    },
    Row {
        cause: "Measurement Protocol token",
        request: "GET /management/v1/counters?field=measurement_tokens",
        reasons: &["secret_denied"],
        hint: says(&["measurement"]),
        advice: "measurement_tokens: allow",
        ..OWN
    },
    Row {
        cause: "a path that the API does not have so",
        request: "PATCH /management/v1/counters",
        reasons: &["method_denied"],
        hint: says(&["method"]),
        advice: "the client",
        ..OWN
    },
    Row {
        cause: "the file of the token is missing",
        tokens: &[Tok { kind: Kind::Missing, ..READS }],
        request: "GET /management/v1/counters",
        reasons: &["token_unavailable"],
        hint: Hint { with: &["token", "file"], ..UNAVAILABLE.hint },
        advice: "file",
        alert: Alert::Loaded("MetrikaGateTokenMissing"),
        doctor: Doctor::Says("own", "t", "write only the token to the file"),
        ..UNAVAILABLE
    },
    Row {
        cause: "the token has ended, and that is known",
        alone: true,
        before: &[Step::Die("t", Death::Revoked), Step::Refused("GET /management/v1/counters", "token_invalid")],
        request: "GET /management/v1/counter/{own}",
        reasons: &["token_suspended"],
        advice: "standby",
        alert: Alert::State("MetrikaGateTokenSuspended", "suspended"),
        doctor: Doctor::Says("own", "t", "expired, revoked, password changed"),
        ..UNAVAILABLE
    },
    Row {
        cause: "the tokens of two accounts end at once",
        alone: true,
        tokens: &[Tok { keys: "owner: '{shop}'", ..READS }, Tok { of: "other", keys: "owner: '{other}'", ..WRITES }],
        before: &[
            Step::Die("t", Death::Revoked),
            Step::Die("w", Death::Revoked),
            Step::Refused("GET /management/v1/counters", "token_invalid"),
            Step::Refused("POST /management/v1/counter/{foreign}/goals", "token_invalid"),
        ],
        request: "GET /management/v1/counters",
        meanwhile: &["token_suspended"],
        reasons: &["outage"],
        advice: "all others at once",
        alert: Alert::State("MetrikaGateTokenOutage", "outage"),
        doctor: Doctor::Says("own", "t", "expired, revoked, password changed"),
        ..UNAVAILABLE
    },
];

#[test]
fn refusals_of_the_gate() {
    super::run::judge(ROWS);
}

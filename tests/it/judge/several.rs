//! Requests for several counters, and in the name of an account that the owner represents.

use super::row::Doctor::{None as Silent, Says};
use super::row::{BOTH, CONTENT, GRANT, Hint, NO_WRITE, READ_SCOPE, READS, ROW, Row, Step, Tok, VIEW, WRITE_SCOPE};

/// The reason why the doctor does not report it.
const OF_OWNER: super::row::Doctor =
    Silent("it looks at what the owner may do, and not at what an account in ulogin may");

/// Lacks metrika:read, which it is declared to have.
const NO_READ: Tok = Tok { has: "expenses", ..READS };

pub const ROWS: &[Row] = &[
    Row {
        cause: "two counters, and the owner has no grant on the second",
        request: "GET /stat/v1/data?ids={own},{none}&metrics=ym:s:visits",
        ..GRANT
    },
    Row {
        cause: "three counters, and the owner has no grant on the first and the third",
        request: "GET /stat/v1/data/comparison?ids={none},{edit},{foreign}&metrics=ym:s:visits",
        ..GRANT
    },
    Row {
        cause: "three counters, all of which were read alone, and the grant on one is taken away",
        before: &[
            Step::Works("GET /stat/v1/data?ids={own}&metrics=ym:s:visits"),
            Step::Works("GET /stat/v1/data?ids={edit}&metrics=ym:s:visits"),
            Step::Works("GET /stat/v1/data?ids={view}&metrics=ym:s:visits"),
            Step::Take("edit", "shop"),
        ],
        request: "GET /stat/v1/data?ids={own},{edit},{view}&metrics=ym:s:visits",
        doctor: Says("edit", "t", "the token's owner has no grant"),
        ..GRANT
    },
    Row {
        cause: "three counters, and the token lacks metrika:read",
        tokens: &[NO_READ],
        request: "GET /stat/v1/data?ids={own},{edit},{view}&metrics=ym:s:visits",
        ..READ_SCOPE
    },
    Row {
        cause: "a public and an own counter, and the token lacks metrika:read",
        tokens: &[NO_READ],
        before: &[Step::Works("GET /stat/v1/data?ids={demo}&metrics=ym:s:visits")],
        request: "GET /stat/v1/data?ids={demo},{own}&metrics=ym:s:visits",
        ..READ_SCOPE
    },
    Row {
        cause: "a represented account has no grant on a counter",
        request: "GET /stat/v1/data?ids={none}&metrics=ym:s:visits&ulogin={client}",
        doctor: OF_OWNER,
        ..GRANT
    },
    Row {
        cause: "a represented account has no grant on a counter that the owner itself owns",
        before: &[Step::Works("GET /management/v1/counter/{own}")],
        request: "GET /stat/v1/data?ids={own}&metrics=ym:s:visits&ulogin={client}",
        doctor: OF_OWNER,
        ..GRANT
    },
    Row {
        cause: "a represented account has no grant on a counter of several",
        request: "GET /stat/v1/data?ids={theirs},{theirview},{own}&metrics=ym:s:visits&ulogin={client}",
        doctor: OF_OWNER,
        ..GRANT
    },
    Row {
        cause: "a represented account may only look at a counter",
        request: "POST /management/v1/counter/{theirview}/goals?ulogin={client}",
        doctor: OF_OWNER,
        ..VIEW
    },
    Row {
        cause: "a represented account may only look at a counter, and the owner could not even do that",
        before: &[
            Step::Refused("GET /management/v1/counter/{theirview}", "counter_not_granted"),
            Step::Works("GET /management/v1/counter/{theirview}?ulogin={client}"),
        ],
        request: "POST /management/v1/counter/{theirview}/goals?ulogin={client}",
        doctor: OF_OWNER,
        ..VIEW
    },
    Row {
        cause: "a represented account owns the counter, and the token lacks metrika:write",
        tokens: &[NO_WRITE],
        request: "POST /management/v1/counter/{theirs}/goals?ulogin={client}",
        ..WRITE_SCOPE
    },
    Row {
        cause: "a represented account owns the counter, the owner may look at it, and the token lacks metrika:write",
        tokens: &[NO_WRITE],
        before: &[
            Step::Grant("theirs", "shop", "view"),
            Step::Works("GET /management/v1/counter/{theirs}"),
            Step::Refused("POST /management/v1/counter/{theirs}/goals", "counter_view_only"),
        ],
        request: "POST /management/v1/counter/{theirs}/goals?ulogin={client}",
        ..WRITE_SCOPE
    },
    Row {
        cause: "a represented account is asked for, and the token lacks metrika:read",
        tokens: &[NO_READ],
        request: "GET /management/v1/counters?ulogin={client}",
        ..READ_SCOPE
    },
    Row {
        cause: "a report of a represented account, and the token lacks metrika:read",
        tokens: &[NO_READ],
        request: "GET /stat/v1/data?ids={theirs}&metrics=ym:s:visits&ulogin={client}",
        ..READ_SCOPE
    },
    Row {
        cause: "a restricted dimension of a represented account, whose reports work",
        before: &[Step::Works("GET /stat/v1/data?ids={theirs}&metrics=ym:s:visits&ulogin={client}")],
        request: "GET /stat/v1/data?ids={theirs}&metrics=ym:s:visits&dimensions=ym:s:restricted&ulogin={client}",
        ..CONTENT
    },
    Row {
        cause: "neither does the owner represent the account nor has it a grant there",
        tokens: &[BOTH],
        request: "POST /management/v1/counter/{none}/goals?ulogin={stranger}",
        reasons: &["not_representative"],
        hint: Hint { with: &["ulogin", "represent"], without: &["metrika:", "lacks a scope", "no access"] },
        advice: "representative",
        doctor: Silent("it looks at the logins under ulogin of the callers, and this one names none"),
        ..ROW
    },
];

#[test]
fn several_counters_and_represented_accounts() {
    super::run::judge(ROWS);
}

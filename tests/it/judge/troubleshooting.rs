//! The troubleshooting list of Metrica's documentation, row by row
//! (<https://yandex.com/dev/metrika/en/intro/authorization>).

use super::row::Doctor::{None as Silent, Says};
use super::row::{
    Alert, BOTH, CONTENT, ENDED, GRANT, Hint, Kind, NO_WRITE, ORGANISATION, OTHER_OWNER, READ_SCOPE, READS,
    REPRESENTATIVE, ROW, Row, SCOPE, Step, Tok, VIEW, WRITE_SCOPE,
};
use super::world::Death;

/// Uploads expenses, and is declared to read.
const EXPENSES: Tok = Tok { has: "expenses", ..READS };

/// A report that names no counter.
const NO_IDS: Row = Row {
    // The body tells the reader nothing more; so a reason without a name is no untrue one.
    reasons: &[super::row::REFUSED_BY_CONTENT, "other"],
    hint: Hint { with: &["ids"], ..CONTENT.hint },
    doctor: Silent("the doctor sees the token and the counter, which are right, and not the request"),
    ..CONTENT
};

pub const ROWS: &[Row] = &[
    Row {
        cause: "the file holds a token that is cut short: 401 unauthorized",
        tokens: &[Tok { kind: Kind::Mangled, ..READS }],
        request: "GET /management/v1/counters",
        status: 401,
        reasons: &["header_malformed"],
        hint: Hint { with: &["token", "operator"], without: &["metrika:", "no access"] },
        advice: "in a form that yandex issues",
        alert: Alert::Reads("MetrikaGateTokenRefused"),
        doctor: Says("own", "t", "shorter than any known token of Yandex"),
        ..ROW
    },
    Row {
        cause: "the token was revoked: 403 invalid_token",
        before: &[Step::Die("t", Death::Revoked)],
        request: "GET /management/v1/counters",
        ..ENDED
    },
    Row {
        cause: "the token has expired: 401 invalid_token",
        before: &[Step::Die("t", Death::Expired)],
        request: "GET /management/v1/counter/{own}",
        status: 401,
        ..ENDED
    },
    Row {
        cause: "the password was changed: 401 unauthorized, of a token that is well-formed",
        before: &[Step::Die("t", Death::Unauthorized)],
        request: "GET /stat/v1/data?ids={own}&metrics=ym:s:visits",
        status: 401,
        ..ENDED
    },
    Row {
        cause: "403 everywhere, the list: the application lacks metrika:read",
        tokens: &[EXPENSES],
        request: "GET /management/v1/counters",
        ..READ_SCOPE
    },
    Row {
        cause: "403 everywhere, the owner's own counter: the application lacks metrika:read",
        tokens: &[EXPENSES],
        request: "GET /management/v1/counter/{own}/goals",
        ..READ_SCOPE
    },
    Row {
        cause: "403 everywhere, a report: the application lacks metrika:read",
        tokens: &[EXPENSES],
        request: "GET /stat/v1/data?ids={own}&metrics=ym:s:visits",
        ..READ_SCOPE
    },
    Row {
        cause: "403 on a report of one counter, and the list works: no grant",
        before: &[Step::Works("GET /management/v1/counters")],
        request: "GET /stat/v1/data?ids={none}&metrics=ym:s:visits",
        ..GRANT
    },
    Row { cause: "403 on one counter, first thing: no grant", request: "GET /management/v1/counter/{none}", ..GRANT },
    Row {
        cause: "403 on a write to one counter, first thing: no grant",
        tokens: &[BOTH],
        request: "POST /management/v1/counter/{none}/goals",
        ..GRANT
    },
    Row {
        cause: "the token is of another account, which Yandex ID says",
        identity: true,
        tokens: &[Tok { of: "stranger", keys: "owner: '{shop}'", ..READS }],
        request: "GET /management/v1/counter/{own}",
        doctor: Says("own", "t", "is configured"),
        ..OTHER_OWNER
    },
    Row {
        cause: "reads pass, a write to an own counter does not: no metrika:write",
        before: &[Step::Works("GET /management/v1/counter/{own}")],
        request: "POST /management/v1/counter/{own}/goals",
        ..WRITE_SCOPE
    },
    Row {
        cause: "reads pass, a write to a counter with edit does not: no metrika:write",
        before: &[Step::Works("GET /stat/v1/data?ids={edit}&metrics=ym:s:visits")],
        request: "PUT /management/v1/counter/{edit}",
        ..WRITE_SCOPE
    },
    Row {
        cause: "reads pass, writes do not: view",
        before: &[Step::Works("GET /management/v1/counter/{view}")],
        request: "POST /management/v1/counter/{view}/goals",
        ..VIEW
    },
    Row {
        cause: "reads pass, writes do not: analyst",
        before: &[Step::Works("GET /stat/v1/data?ids={analyst}&metrics=ym:s:visits")],
        request: "DELETE /management/v1/counter/{analyst}/goal/1",
        doctor: Says("analyst", "t", "but callers may write: Metrica refuses writes"),
        ..VIEW
    },
    Row {
        cause: "a write to a counter with public statistics",
        request: "POST /management/v1/counter/{public}/goals",
        doctor: Says("public", "t", "but callers may write: Metrica refuses writes"),
        ..VIEW
    },
    Row {
        cause: "logs are asked for, which needs metrika:read and no more: the application lacks it",
        tokens: &[EXPENSES],
        request: "POST /management/v1/counter/{own}/logrequests?date1=2026-01-01&date2=2026-01-02&source=visits",
        ..READ_SCOPE
    },
    Row {
        cause: "a label is made, which needs no counter: no metrika:write",
        before: &[Step::Works("GET /management/v1/labels")],
        request: "POST /management/v1/labels",
        ..WRITE_SCOPE
    },
    Row {
        cause: "an upload of conversions is refused, of expenses passes: a narrow scope of another kind",
        tokens: &[Tok { declared: "write", ..EXPENSES }],
        before: &[Step::Works("POST /management/v1/counter/{own}/expense/delete_single")],
        request: "POST /management/v1/counter/{own}/offline_conversions/upload",
        hint: Hint { with: &["metrika:offline_data"], ..SCOPE.hint },
        doctor: Says("own", "t", "declared, but only a write could verify that"),
        ..SCOPE
    },
    Row {
        cause: "an upload of conversions is refused, of a token that reads and uploads expenses",
        tokens: &[Tok { has: "read expenses", ..NO_WRITE }],
        request: "POST /management/v1/counter/{own}/offline_conversions/upload",
        hint: Hint { with: &["metrika:offline_data"], ..SCOPE.hint },
        ..WRITE_SCOPE
    },
    Row {
        cause: "the list of grants is refused to view",
        tokens: &[READS],
        caller: "scopes: [metrika:read]",
        request: "GET /management/v1/counter/{view}/grants",
        doctor: Says("view", "t", "readable, except for its list of grants"),
        ..VIEW
    },
    Row {
        cause: "one grant is refused to view, and reads pass",
        before: &[Step::Works("GET /management/v1/counter/{view}/goals")],
        request: "GET /management/v1/counter/{view}/grant?user_login={other}",
        ..VIEW
    },
    Row {
        cause: "the list of grants is refused without a grant",
        request: "GET /management/v1/counter/{none}/grants",
        ..GRANT
    },
    Row {
        cause: "access to a counter of an organisation: 403 counter_in_connect",
        tokens: &[BOTH],
        request: "POST /management/v1/counter/{org}/grants",
        reasons: &["counter_in_organization"],
        hint: Hint { with: &["organisation", "web interface"], without: &["metrika:", "lacks a scope"] },
        advice: "web interface",
        doctor: Silent("it sends reads only, and only a change of access is refused"),
        ..ROW
    },
    Row {
        cause: "the token was issued personally for an organisation, which Yandex ID says",
        identity: true,
        tokens: &[Tok { of: "ivan", keys: "owner: '{porg}'", ..READS }],
        request: "GET /management/v1/counter/{org}",
        doctor: Says("org", "t", "who issued it as a person"),
        ..ORGANISATION
    },
    Row {
        cause: "ulogin of an organisation, with a token of a person",
        request: "GET /management/v1/counters?ulogin={porg}",
        alert: Alert::Reads("MetrikaGateTokenRefused"),
        doctor: Silent("it looks at the logins under ulogin of the callers, and this one names none"),
        ..ORGANISATION
    },
    Row {
        cause: "ulogin of an account that the owner does not represent",
        caller: "scopes: [metrika:read], ulogin: ['{stranger}'], ulogin_absent: allow",
        request: "GET /management/v1/counters?ulogin={stranger}",
        doctor: Says("own", "t", "the owner does not represent"),
        ..REPRESENTATIVE
    },
    Row {
        cause: "a report names its counter as counters= in the place of ids=",
        before: &[Step::Works("GET /stat/v1/data?ids={own}&metrics=ym:s:visits")],
        request: "GET /stat/v1/data?counters={own}&metrics=ym:s:visits",
        ..NO_IDS
    },
    Row {
        cause: "a report names its counter as counters=, first thing",
        request: "GET /stat/v1/data?counters={own}&metrics=ym:s:visits",
        ..NO_IDS
    },
    Row { cause: "a report without ids", request: "GET /stat/v1/data?metrics=ym:s:visits", ..NO_IDS },
];

#[test]
fn the_list_of_the_documentation() {
    super::run::judge(ROWS);
}

//! Earlier observations of the gate tell one refusal from another; and they may be worth nothing.

use super::row::Doctor::{None as Silent, Says};
use super::row::{
    Alert, BOTH, Broken, ENDED, Hint, READ_SCOPE, READS, REFUSED_BY_CONTENT, ROW, Row, Step, Tok, UNKNOWABLE, WRITES,
};
use super::world::Death;

/// The token ended, a moment after it worked: for ten seconds nothing is suspected, so it is not suspended at once.
const ENDED_NOW: Row = Row { alert: Alert::Reads("MetrikaGateTokenDisputed"), ..ENDED };

/// A dead token whose list of counters is refused like any other request: not even the doctor sees more than that.
const ENDED_SILENTLY: Row = Row {
    doctor: Silent("access_denied to everything is a missing scope to who has not seen the token work"),
    ..ENDED_NOW
};

/// A refusal that reads as if the token were invalid, and the token is well.
const NOT_THE_TOKEN: Row = Row {
    reasons: &["other", REFUSED_BY_CONTENT],
    hint: Hint { with: &["body"], without: &["expired or revoked", "metrika:", "no access", "lacks a scope"] },
    advice: "body",
    doctor: Silent("the token is well, and it says so"),
    ..ROW
};

/// Lacks metrika:read, which it is declared to have.
const NO_READ: Tok = Tok { has: "write", declared: "read write", ..READS };

pub const ROWS: &[Row] = &[
    Row {
        cause: "the list worked a moment ago, the token has expired: 403 access_denied to everything",
        before: &[Step::Works("GET /management/v1/counters"), Step::Die("t", Death::Denied)],
        request: "GET /management/v1/counters",
        ..ENDED_SILENTLY
    },
    Row {
        cause: "a report worked a moment ago, the token has expired: 403 access_denied to everything",
        before: &[
            // A report alone proves nothing: the counter may have been public.
            Step::Works("GET /management/v1/counters"),
            Step::Works("GET /stat/v1/data?ids={own}&metrics=ym:s:visits"),
            Step::Die("t", Death::Denied),
        ],
        request: "GET /stat/v1/data?ids={own}&metrics=ym:s:visits",
        ..ENDED_SILENTLY
    },
    Row {
        cause: "a write worked a moment ago, the token has expired: 403 access_denied to everything",
        tokens: &[BOTH],
        before: &[
            Step::Works("GET /management/v1/counters"),
            Step::Works("POST /management/v1/counter/{own}/goals"),
            Step::Die("t", Death::Denied),
        ],
        request: "POST /management/v1/counter/{own}/goals",
        ..ENDED_SILENTLY
    },
    Row {
        cause: "a report worked a moment ago, the password was changed: only the list says invalid_token",
        before: &[
            Step::Works("GET /stat/v1/data?ids={own}&metrics=ym:s:visits"),
            Step::Die("t", Death::DeniedButForTheList),
        ],
        request: "GET /stat/v1/data?ids={own}&metrics=ym:s:visits",
        ..ENDED_NOW
    },
    Row {
        cause: "a counter was read a moment ago, the password was changed: only the list says invalid_token",
        before: &[Step::Works("GET /management/v1/counter/{own}"), Step::Die("t", Death::DeniedButForTheList)],
        request: "GET /management/v1/counter/{own}",
        ..ENDED_NOW
    },
    Row {
        cause: "a token that only writes did so a moment ago; only the list says invalid_token",
        tokens: &[Tok { alias: "t", ..WRITES }],
        before: &[Step::Works("POST /management/v1/counter/{own}/goals"), Step::Die("t", Death::DeniedButForTheList)],
        request: "POST /management/v1/counter/{own}/goals",
        ..ENDED_NOW
    },
    Row {
        cause: "a token that only writes did so a moment ago; it has expired: 403 access_denied to everything",
        tokens: &[Tok { alias: "t", ..WRITES }],
        before: &[Step::Works("POST /management/v1/counter/{own}/goals"), Step::Die("t", Death::Denied)],
        request: "POST /management/v1/counter/{own}/goals",
        why: "the list is refused to a token that only writes, dead or alive; its grant may have been taken away as well",
        doctor: Says("own", "t", "not checked: this token does not have metrika:read"),
        ..UNKNOWABLE
    },
    Row {
        cause: "a balancer answers 401 for one path, a probe finds the token valid",
        before: &[Step::Break("GET /management/v1/counter/{own}", Broken::Page(401))],
        request: "GET /management/v1/counter/{own}",
        status: 401,
        ..NOT_THE_TOKEN
    },
    Row {
        cause: "a balancer answers 401 for one path, a moment after the token worked",
        before: &[
            Step::Works("GET /management/v1/counters"),
            Step::Break("GET /management/v1/counter/{own}", Broken::Page(401)),
        ],
        request: "GET /management/v1/counter/{own}",
        status: 401,
        ..NOT_THE_TOKEN
    },
    Row {
        cause: "one server says invalid_token for one path, a probe finds the token valid",
        before: &[Step::Break("GET /management/v1/counter/{own}", Broken::Error(403, "invalid_token"))],
        request: "GET /management/v1/counter/{own}",
        ..NOT_THE_TOKEN
    },
    Row {
        cause: "a balancer answers 401 for everything",
        before: &[Step::Break("GET /*", Broken::Page(401))],
        request: "GET /management/v1/counters",
        status: 401,
        // Metrica's web server answers a dead token with such a page too, so nothing is known.
        reasons: &["other", "ambiguous"],
        doctor: Says("own", "t", "unknown: the response is 401"),
        ..NOT_THE_TOKEN
    },
    Row {
        cause: "the token was revoked, and a captive portal answered before",
        before: &[
            Step::Break("GET /management/v1/accounts", Broken::Portal),
            Step::Works("GET /management/v1/accounts"),
            Step::Die("t", Death::Revoked),
        ],
        request: "GET /management/v1/counter/{own}",
        ..ENDED
    },
    Row {
        cause: "a counter is refused, and Metrica answers the gate's questions with 500",
        before: &[Step::Break("GET /management/v1/counter*", Broken::Page(500))],
        request: "GET /stat/v1/data?ids={none}&metrics=ym:s:visits",
        why: "nothing is known of the token, and neither the list of counters nor the counter has an answer",
        doctor: Says("none", "t", "unknown: the response is 500"),
        ..UNKNOWABLE
    },
    Row {
        cause: "a report of the demo counter proves no right: then the list is refused",
        tokens: &[NO_READ],
        before: &[Step::Works("GET /stat/v1/data?ids={demo}&metrics=ym:s:visits")],
        request: "GET /management/v1/counters",
        ..READ_SCOPE
    },
    Row {
        cause: "a report of a public counter proves no right: then the list is refused",
        tokens: &[NO_READ],
        before: &[Step::Works("GET /stat/v1/data?ids={public}&metrics=ym:s:visits")],
        request: "GET /management/v1/counters",
        ..READ_SCOPE
    },
    Row {
        cause: "a report of a public counter proves no right: then an own counter is refused",
        tokens: &[NO_READ],
        before: &[Step::Works("GET /stat/v1/data?ids={public}&metrics=ym:s:visits")],
        request: "GET /stat/v1/data?ids={own}&metrics=ym:s:visits",
        ..READ_SCOPE
    },
    Row {
        cause: "a report of two public counters proves no right: then an own counter is refused",
        tokens: &[NO_READ],
        before: &[Step::Works("GET /stat/v1/data?ids={demo},{public}&metrics=ym:s:visits")],
        request: "GET /management/v1/counter/{own}/goals",
        ..READ_SCOPE
    },
    Row {
        cause: "a report of a public counter proves no right: then it is no longer public",
        tokens: &[NO_READ],
        before: &[Step::Works("GET /stat/v1/data?ids={public}&metrics=ym:s:visits"), Step::Hide("public")],
        request: "GET /stat/v1/data?ids={public}&metrics=ym:s:visits",
        ..READ_SCOPE
    },
];

#[test]
fn earlier_observations_are_used() {
    super::run::judge(ROWS);
}

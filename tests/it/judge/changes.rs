//! Grants and rights that change while the gate runs: the reason follows, at once where an answer shows it, and after SIGHUP
//! or `POST /recheck` where nothing does.

use super::row::Doctor::{None as Silent, Says};
use super::row::{BOTH, Broken, GRANT, NO_WRITE, READS, REPRESENTATIVE, Row, Step, Tok, VIEW, WRITE_SCOPE};

pub const ROWS: &[Row] = &[
    Row {
        cause: "a grant is taken away from a counter that was read",
        before: &[Step::Works("GET /stat/v1/data?ids={view}&metrics=ym:s:visits"), Step::Take("view", "shop")],
        request: "GET /stat/v1/data?ids={view}&metrics=ym:s:visits",
        doctor: Says("view", "t", "the token's owner has no grant"),
        ..GRANT
    },
    Row {
        cause: "a grant is taken away from a counter that was changed",
        tokens: &[BOTH],
        before: &[
            Step::Works("GET /management/v1/counters"),
            Step::Works("POST /management/v1/counter/{edit}/goals"),
            Step::Take("edit", "shop"),
        ],
        request: "POST /management/v1/counter/{edit}/goals",
        doctor: Says("edit", "t", "the token's owner has no grant"),
        ..GRANT
    },
    Row {
        cause: "edit becomes view on a counter that was changed",
        before: &[Step::Works("POST /management/v1/counter/{edit}/goals"), Step::Grant("edit", "shop", "view")],
        request: "POST /management/v1/counter/{edit}/goals",
        doctor: Says("edit", "t", "but callers may write: Metrica refuses writes"),
        ..VIEW
    },
    Row {
        cause: "view becomes edit and view again",
        before: &[
            Step::Refused("POST /management/v1/counter/{view}/goals", "counter_view_only"),
            Step::Grant("view", "shop", "edit"),
            Step::Works("POST /management/v1/counter/{view}/goals"),
            Step::Grant("view", "shop", "view"),
        ],
        request: "POST /management/v1/counter/{view}/goals",
        ..VIEW
    },
    Row {
        cause: "view is granted where there was nothing, and SIGHUP",
        before: &[
            Step::Refused("POST /management/v1/counter/{none}/goals", "counter_not_granted"),
            Step::Grant("none", "shop", "view"),
            Step::Age,
            Step::HangUp,
        ],
        request: "POST /management/v1/counter/{none}/goals",
        meanwhile: &["counter_not_granted"],
        doctor: Says("none", "t", "but callers may write: Metrica refuses writes"),
        ..VIEW
    },
    Row {
        cause: "view is granted where there was nothing, and a read shows it",
        before: &[
            Step::Refused("POST /management/v1/counter/{none}/goals", "counter_not_granted"),
            Step::Grant("none", "shop", "view"),
            Step::Age,
            Step::Works("GET /management/v1/counter/{none}"),
        ],
        request: "POST /management/v1/counter/{none}/goals",
        meanwhile: &["counter_not_granted"],
        doctor: Says("none", "t", "but callers may write: Metrica refuses writes"),
        ..VIEW
    },
    Row {
        cause: "edit is granted where there was nothing, used, and taken away",
        tokens: &[BOTH],
        before: &[
            Step::Refused("GET /stat/v1/data?ids={none}&metrics=ym:s:visits", "counter_not_granted"),
            Step::Grant("none", "shop", "edit"),
            Step::Works("GET /stat/v1/data?ids={none}&metrics=ym:s:visits"),
            Step::Works("POST /management/v1/counter/{none}/goals"),
            Step::Take("none", "shop"),
        ],
        request: "GET /stat/v1/data?ids={none}&metrics=ym:s:visits",
        ..GRANT
    },
    Row {
        cause: "view is taken away, and recheck",
        tokens: &[BOTH],
        before: &[
            Step::Refused("POST /management/v1/counter/{view}/goals", "counter_view_only"),
            Step::Take("view", "shop"),
            Step::Age,
            Step::Recheck,
        ],
        request: "POST /management/v1/counter/{view}/goals",
        meanwhile: &["counter_view_only"],
        doctor: Says("view", "t", "the token's owner has no grant"),
        ..GRANT
    },
    Row {
        cause: "a counter is in no list, and the question about it has no answer",
        before: &[Step::Break("GET /management/v1/counter/{none}", Broken::Page(503))],
        request: "GET /stat/v1/data?ids={none}&metrics=ym:s:visits",
        doctor: Silent("it asks for the counter itself, which has no answer"),
        ..GRANT
    },
    Row {
        cause: "a counter has vanished from the list, the question about it has no answer, and SIGHUP",
        tokens: &[BOTH],
        before: &[
            Step::Refused("POST /management/v1/counter/{view}/goals", "counter_view_only"),
            Step::Take("view", "shop"),
            Step::Break("GET /management/v1/counter/{view}", Broken::Page(503)),
            Step::Age,
            Step::HangUp,
            Step::Works("GET /management/v1/counters"),
        ],
        request: "POST /management/v1/counter/{view}/goals",
        meanwhile: &["counter_view_only"],
        doctor: Silent("it asks for the counter itself, which has no answer"),
        ..GRANT
    },
    Row {
        cause: "a counter is in none of the lists that show only a part",
        before: &[
            Step::Refused("POST /management/v1/counter/{view}/goals", "counter_view_only"),
            Step::Works("GET /management/v1/counters?per_page=1"),
            Step::Works("GET /management/v1/counters?permission=own"),
            Step::Works("GET /management/v1/counters?search_string={own}"),
            Step::Works("GET /management/v1/counters?offset=5"),
            Step::Works("GET /management/v1/counters?ulogin={client}"),
        ],
        request: "POST /management/v1/counter/{view}/goals",
        ..VIEW
    },
    Row {
        cause: "a counter that was public is no longer",
        before: &[
            Step::Works("GET /management/v1/counters"),
            Step::Works("GET /stat/v1/data?ids={public}&metrics=ym:s:visits"),
            Step::Hide("public"),
        ],
        request: "GET /stat/v1/data?ids={public}&metrics=ym:s:visits",
        doctor: Says("public", "t", "the token's owner has no grant"),
        ..GRANT
    },
    Row {
        cause: "the owner no longer represents an account that it was asked for",
        before: &[Step::Works("GET /management/v1/counters?ulogin={client}"), Step::Unrepresent("shop", "client")],
        request: "GET /management/v1/counters?ulogin={client}",
        ..REPRESENTATIVE
    },
    Row {
        cause: "the file of the token holds one that does not write",
        tokens: &[Tok { has: "read write", ..NO_WRITE }],
        before: &[Step::Works("POST /management/v1/counter/{own}/goals"), Step::Replace("t", "read")],
        request: "POST /management/v1/counter/{own}/goals",
        ..WRITE_SCOPE
    },
    Row {
        cause: "the file of the token holds one that does not read",
        tokens: &[Tok { has: "read", ..READS }],
        before: &[Step::Works("GET /management/v1/counters"), Step::Replace("t", "expenses")],
        request: "GET /management/v1/counters",
        ..super::row::READ_SCOPE
    },
];

#[test]
fn grants_and_rights_that_change() {
    super::run::judge(ROWS);
}

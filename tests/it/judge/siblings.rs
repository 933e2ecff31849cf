//! Observed rights belong to the owner: two tokens with one proven owner share what is known of counters. A declared
//! `owner` alone proves nothing.

use super::row::Doctor::{None as Silent, Says};
use super::row::{GRANT, Hint, READS, ROW, Row, SCOPE, Step, Tok, UNKNOWABLE, VIEW, WRITES};

/// A token that reads beside one that writes and does not.
const PAIR: &[Tok] = &[Tok { alias: "r", ..READS }, WRITES];

/// The same, with a configuration that declares one account for both.
const DECLARED: &[Tok] =
    &[Tok { alias: "r", keys: "owner: '{shop}'", ..READS }, Tok { keys: "owner: '{shop}'", ..WRITES }];

/// The doctor's line where it has no other token of the same account to look with.
const UNSEEN: super::row::Doctor = Says("view", "w", "not checked: this token does not have metrika:read");

pub const ROWS: &[Row] = &[
    Row {
        cause: "a token that only writes, on a counter that its owner may look at: the sibling sees it",
        identity: true,
        tokens: PAIR,
        request: "POST /management/v1/counter/{view}/goals",
        doctor: Says("view", "w", "but callers may write: Metrica refuses writes"),
        ..VIEW
    },
    Row {
        cause: "a token that only writes, on a counter that its owner may analyse, which the sibling has read",
        identity: true,
        tokens: PAIR,
        before: &[Step::Works("GET /management/v1/counter/{analyst}")],
        request: "POST /management/v1/counter/{analyst}/goals",
        doctor: Says("analyst", "w", "but callers may write: Metrica refuses writes"),
        ..VIEW
    },
    Row {
        cause: "a token that only writes, on a counter without a grant: the sibling sees none",
        identity: true,
        tokens: PAIR,
        request: "POST /management/v1/counter/{none}/goals",
        doctor: Says("none", "w", "the token's owner has no grant"),
        ..GRANT
    },
    Row {
        cause: "a token that only uploads expenses, on a counter that its owner may look at",
        identity: true,
        tokens: &[PAIR[0], Tok { has: "expenses", declared: "expenses", ..WRITES }],
        request: "POST /management/v1/counter/{view}/expense/upload",
        doctor: Says("view", "w", "but callers may write: Metrica refuses writes"),
        ..VIEW
    },
    Row {
        cause: "a token that only uploads expenses and is declared to write, on an own counter",
        identity: true,
        tokens: &[PAIR[0], Tok { has: "expenses", ..WRITES }],
        request: "POST /management/v1/counter/{own}/goals",
        hint: Hint { with: &["needs metrika:write;"], ..SCOPE.hint },
        doctor: Says("own", "w", "declared, but only a write could verify that"),
        ..SCOPE
    },
    Row {
        cause: "two tokens of one owner, whose own counter has shown it to both",
        tokens: PAIR,
        before: &[Step::Works("GET /management/v1/counter/{own}"), Step::Works("PUT /management/v1/counter/{own}")],
        request: "POST /management/v1/counter/{view}/goals",
        doctor: UNSEEN,
        ..VIEW
    },
    Row {
        cause: "what one of two tokens that both read was told holds for the other",
        identity: true,
        tokens: &[PAIR[0], Tok { has: "read expenses", declared: "read write", ..WRITES }],
        before: &[Step::Works("GET /management/v1/counter/{own}")],
        request: "POST /management/v1/counter/{own}/goals",
        hint: Hint { with: &["needs metrika:write;"], ..SCOPE.hint },
        doctor: Says("own", "w", "declared, but only a write could verify that"),
        ..SCOPE
    },
    Row {
        cause: "the demo counter, with a token that only writes and no sibling",
        tokens: &[WRITES],
        caller: "scopes: [metrika:write]",
        request: "POST /management/v1/counter/{demo}/goals",
        doctor: Says("demo", "w", "not checked: this token does not have metrika:read"),
        ..VIEW
    },
    Row {
        cause: "the demo counter, with a token that only writes and a sibling that reads",
        identity: true,
        tokens: PAIR,
        request: "POST /management/v1/counter/{demo}/goals",
        doctor: Says("demo", "w", "but callers may write: Metrica refuses writes"),
        ..VIEW
    },
    Row {
        cause: "the demo counter, with a token that reads and writes",
        tokens: &[super::row::BOTH],
        request: "POST /management/v1/counter/{demo}/goals",
        doctor: Says("demo", "t", "but callers may write: Metrica refuses writes"),
        ..VIEW
    },
    Row {
        cause: "one owner is declared for both tokens and proven for neither",
        tokens: DECLARED,
        before: &[Step::Works("GET /management/v1/counter/{view}")],
        request: "POST /management/v1/counter/{view}/goals",
        why: "what is declared may be untrue, and nothing shows whose a token is that only writes",
        doctor: Says("view", "w", "but callers may write: Metrica refuses writes"),
        ..UNKNOWABLE
    },
    Row {
        cause: "one owner is declared for both tokens, and one is of another account and lacks metrika:write",
        tokens: &[DECLARED[0], Tok { of: "other", has: "expenses", ..DECLARED[1] }],
        before: &[Step::Works("GET /management/v1/counter/{view}")],
        request: "POST /management/v1/counter/{view}/goals",
        why: "to the gate this is the row above; the other account may even edit the counter",
        doctor: Silent("it takes what is declared for true where it may not ask Yandex ID"),
        ..UNKNOWABLE
    },
    Row {
        cause: "the token that reads is of another account, which owns the counter",
        identity: true,
        tokens: &[Tok { of: "other", ..PAIR[0] }, WRITES],
        before: &[Step::Works("GET /management/v1/counter/{foreign}")],
        request: "POST /management/v1/counter/{foreign}/goals",
        why: "no token of the owner reads, and what another account may do tells nothing",
        doctor: Says("foreign", "w", "not checked: this token does not have metrika:read"),
        ..UNKNOWABLE
    },
    Row {
        cause: "a token that only writes, alone, on a counter that its owner may look at",
        tokens: &[WRITES],
        caller: "scopes: [metrika:write]",
        request: "POST /management/v1/counter/{view}/goals",
        why: "no token of the owner reads, so nothing shows what the owner may do",
        doctor: UNSEEN,
        ..UNKNOWABLE
    },
    Row {
        cause: "a token that only writes and did so elsewhere, alone, on a counter that its owner may look at",
        tokens: &[WRITES],
        caller: "scopes: [metrika:write]",
        before: &[Step::Works("POST /management/v1/counter/{own}/goals")],
        request: "POST /management/v1/counter/{view}/goals",
        why: "it is the grant, and whether one is there that allows to look is not shown to a token that only writes",
        doctor: UNSEEN,
        ..UNKNOWABLE
    },
    Row {
        cause: "two tokens of different accounts, both of which may edit a counter of a third",
        tokens: &[PAIR[0], Tok { of: "stranger", ..WRITES }],
        before: &[
            Step::Grant("edit", "stranger", "edit"),
            Step::Works("GET /management/v1/counter/{edit}"),
            Step::Works("PUT /management/v1/counter/{edit}"),
            Step::Works("GET /management/v1/counter/{view}"),
        ],
        request: "POST /management/v1/counter/{view}/goals",
        why: "owner_login of a counter that is not own says nothing of who asks",
        doctor: UNSEEN,
        ..UNKNOWABLE
    },
    Row {
        cause: "a token that only writes and has lost metrika:write, on a counter that it changed",
        tokens: &[Tok { alias: "t", ..WRITES }],
        caller: "scopes: [metrika:write]",
        before: &[
            Step::Works("POST /management/v1/counter/{own}/goals"),
            Step::Replace("t", "expenses"),
            Step::Refused("POST /management/v1/counter/{own}/goals", "ambiguous"),
            Step::Works("POST /management/v1/counter/{own}/expense/delete_single"),
        ],
        request: "POST /management/v1/counter/{own}/goals",
        reasons: SCOPE.reasons,
        hint: Hint { with: &["needs metrika:write;"], ..SCOPE.hint },
        advice: SCOPE.advice,
        doctor: Says("own", "t", "declared, but only a write could verify that"),
        ..ROW
    },
];

#[test]
fn observations_of_one_token_serve_its_siblings() {
    super::run::judge(ROWS);
}

//! The owner of a token without Yandex ID: the `owner_login` of a counter that the list shows as `own`.

use super::row::Doctor::{None as Silent, Says};
use super::row::{GRANT, Kind, ORGANISATION, OTHER_OWNER, READ_SCOPE, READS, Row, Step, Tok};

/// The reason why the doctor does not report it.
const UNASKED: super::row::Doctor = Silent("it compares with what Yandex ID says, and may not ask it here");

/// Owned by another account than the configured one.
const OTHERS: Tok = Tok { of: "other", keys: "owner: '{shop}'", ..READS };

/// Owned by a person, and configured as owned by an organisation.
const PERSONS: Tok = Tok { of: "ivan", keys: "owner: '{porg}'", ..READS };

/// Owned by the configured account.
const RIGHT: Tok = Tok { keys: "owner: '{shop}'", ..READS };

pub const ROWS: &[Row] = &[
    Row {
        cause: "the token is of another account, which its list of counters has shown",
        tokens: &[OTHERS],
        before: &[Step::Works("GET /management/v1/counters")],
        request: "GET /stat/v1/data?ids={own}&metrics=ym:s:visits",
        doctor: UNASKED,
        ..OTHER_OWNER
    },
    Row {
        cause: "the token is of another account, which an own counter has shown",
        tokens: &[OTHERS],
        before: &[Step::Works("GET /management/v1/counter/{foreign}")],
        request: "GET /management/v1/counter/{own}",
        doctor: UNASKED,
        ..OTHER_OWNER
    },
    Row {
        cause: "the token is of another account, and nobody listed its counters",
        tokens: &[OTHERS],
        request: "GET /management/v1/counter/{own}",
        doctor: UNASKED,
        ..OTHER_OWNER
    },
    Row {
        cause: "the token is of a person and should be of an organisation, which the list of counters has shown",
        tokens: &[PERSONS],
        before: &[Step::Works("GET /management/v1/counters")],
        request: "GET /management/v1/counter/{org}",
        doctor: UNASKED,
        ..ORGANISATION
    },
    Row {
        cause: "the token is of a person and should be of an organisation, and nobody listed its counters",
        tokens: &[PERSONS],
        request: "GET /stat/v1/data?ids={org}&metrics=ym:s:visits",
        doctor: UNASKED,
        ..ORGANISATION
    },
    Row {
        cause: "everything is refused to a personal token of an organisation",
        tokens: &[Tok { kind: Kind::Personal, ..PERSONS }],
        request: "GET /management/v1/counters",
        doctor: UNASKED,
        ..ORGANISATION
    },
    Row {
        cause: "everything is refused to a personal token of an organisation, a counter",
        tokens: &[Tok { kind: Kind::Personal, ..PERSONS }],
        request: "GET /management/v1/counter/{org}/goals",
        doctor: UNASKED,
        ..ORGANISATION
    },
    Row {
        cause: "the token is the organisation's and lacks metrika:read, which Yandex ID tells from a personal one",
        identity: true,
        tokens: &[Tok { of: "porg", has: "write", keys: "owner: '{porg}'", ..READS }],
        request: "GET /management/v1/counters",
        ..READ_SCOPE
    },
    Row {
        cause: "the token is the organisation's, and has no grant on a counter",
        tokens: &[Tok { of: "porg", keys: "owner: '{porg}'", ..READS }],
        before: &[Step::Works("GET /management/v1/counter/{org}")],
        request: "GET /management/v1/counter/{none}",
        ..GRANT
    },
    Row {
        cause: "the owner is right, and another login stands in a counter that it may only edit",
        tokens: &[RIGHT],
        before: &[Step::Works("GET /management/v1/counter/{edit}"), Step::Works("GET /management/v1/counters")],
        request: "GET /management/v1/counter/{none}",
        ..GRANT
    },
    Row {
        cause: "the owner is right, and another login stands in the list of an account that it represents",
        tokens: &[RIGHT],
        before: &[
            Step::Works("GET /management/v1/counters?ulogin={client}"),
            Step::Works("GET /management/v1/counter/{theirs}?ulogin={client}"),
        ],
        request: "GET /management/v1/counter/{none}",
        ..GRANT
    },
    Row {
        cause: "the owner is right, and spelled in another way",
        tokens: &[Tok { keys: "owner: '{Shop}'", ..READS }],
        before: &[Step::Works("GET /management/v1/counters")],
        request: "GET /management/v1/counter/{none}",
        ..GRANT
    },
    Row {
        cause: "the owner is right by Yandex ID, and has no grant on a counter",
        identity: true,
        tokens: &[RIGHT],
        request: "GET /management/v1/counter/{none}",
        doctor: Says("none", "t", "the token's owner has no grant"),
        ..GRANT
    },
];

#[test]
fn the_owner_of_a_token() {
    super::run::judge(ROWS);
}

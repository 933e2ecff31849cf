//! The judge's Metrica where it could be wrong.

use super::cast::Cast;
use super::row::{BOTH, NO_WRITE, READS, ROW, Row, Tok, WRITES};
use super::wire::{Request, Said};
use super::world::{DEMO, Death, World};

/// Tokens of every kind.
const TOKENS: &[Tok] = &[BOTH, Tok { alias: "r", ..NO_WRITE }, WRITES, Tok { alias: "x", of: "other", ..READS }];

struct Asked {
    cast: Cast,
    world: std::sync::Arc<World>,
}

impl Asked {
    fn new() -> Self {
        let cast = Cast::new(1);
        let world = cast.world(&Row { tokens: TOKENS, ..ROW });
        Self { cast, world }
    }

    fn secret(&self, token: &str) -> String {
        self.cast.secret(TOKENS.iter().find(|known| known.alias == token).unwrap(), 0)
    }

    fn ask(&self, token: &str, line: &str) -> Said {
        self.at("api-metrika.yandex.net", token, line)
    }

    fn at(&self, host: &str, token: &str, line: &str) -> Said {
        let (line, secret) = (self.cast.names(line), self.secret(token));
        let head = format!("{line} HTTP/1.1\r\nHost: {host}\r\nAuthorization: OAuth {secret}\r\n\r\n");
        self.world.answer(&Request::of(&head))
    }

    fn statuses<const N: usize>(&self, token: &str, lines: [&str; N]) -> [u16; N] {
        lines.map(|line| self.ask(token, line).status)
    }
}

#[test]
fn a_missing_scope_and_a_missing_grant_are_the_same_bytes() {
    let asked = Asked::new();
    let scope = asked.ask("r", "POST /management/v1/counter/{own}/goals");
    assert_eq!(scope.status, 403);
    for (token, line) in [
        ("t", "POST /management/v1/counter/{view}/goals"),
        ("t", "POST /management/v1/counter/{none}/goals"),
        ("t", "GET /stat/v1/data?ids={own},{none}&metrics=ym:s:visits"),
        ("t", "GET /stat/v1/data?counters={own}&metrics=ym:s:visits"),
        ("t", "GET /management/v1/counter/{view}/grants"),
        ("t", "GET /management/v1/counters?ulogin={stranger}"),
        ("t", "DELETE /management/v1/counter/{edit}"),
        ("w", "GET /management/v1/counters"),
        ("w", "GET /management/v1/counter/{own}"),
        ("t", "POST /management/v1/counter/{demo}/goals"),
    ] {
        assert_eq!(asked.ask(token, line).bytes(), scope.bytes(), "{line}");
    }
}

#[test]
fn each_right_allows_its_own_operations() {
    let asked = Asked::new();
    let lines = |counter: &str| {
        let goals = format!("/management/v1/counter/{{{counter}}}/goals");
        [
            format!("GET /stat/v1/data?ids={{{counter}}}&metrics=ym:s:visits"),
            format!("GET {goals}"),
            format!("POST {goals}"),
            format!("GET /management/v1/counter/{{{counter}}}/grants"),
            format!("DELETE /management/v1/counter/{{{counter}}}"),
        ]
    };
    for (counter, expected) in [
        ("own", [200, 200, 200, 200, 200]),
        ("edit", [200, 200, 200, 200, 403]),
        ("view", [200, 200, 403, 403, 403]),
        ("analyst", [200, 200, 403, 403, 403]),
        ("public", [200, 403, 403, 403, 403]),
        ("none", [403, 403, 403, 403, 403]),
    ] {
        assert_eq!(lines(counter).map(|line| asked.ask("t", &line).status), expected, "{counter}");
    }
    assert!(asked.ask("t", "POST /management/v1/counter/{org}/grants").body.contains("counter_in_connect"));
    assert_eq!(asked.ask("t", "GET /management/v1/counter/9").status, 404);
}

#[test]
fn public_counters_are_shown_regardless_of_scopes() {
    let asked = Asked::new();
    let lines = [
        "GET /stat/v1/data?ids={demo}&metrics=ym:s:visits",
        "GET /stat/v1/data?ids={public},{demo}&metrics=ym:s:visits",
        "GET /stat/v1/data?ids={own}&metrics=ym:s:visits",
        "GET /management/v1/counter/{demo}",
    ];
    assert_eq!(asked.statuses("w", lines), [200, 200, 403, 403]);
    assert_eq!(asked.statuses("t", lines), [200, 200, 200, 200]);
    assert!(asked.ask("t", "GET /management/v1/counter/{demo}").body.contains(r#""permission":"public_stat""#));
}

#[test]
fn narrow_scopes_upload_their_kind_and_write_uploads_all() {
    let asked = Asked::new();
    let secret = asked.secret("w");
    let lines = [
        "POST /management/v1/counter/{own}/expense/upload",
        "POST /management/v1/counter/{own}/offline_conversions/upload",
        "POST /cdp/api/v1/counter/{own}/data/orders/json",
        "POST /management/v1/counter/{own}/user_params/uploadings/upload",
        "POST /management/v1/counter/{own}/goals",
        "POST /management/v1/labels",
    ];
    assert_eq!(asked.statuses("w", lines), [200; 6]);
    let mut state = asked.world.state();
    state.tokens.get_mut(&secret).unwrap().scopes = ["expenses".to_owned()].into();
    drop(state);
    assert_eq!(asked.statuses("w", lines), [200, 403, 403, 403, 403, 403]);
    // The Logs API acts with metrika:read.
    assert_eq!(asked.statuses("r", ["POST /management/v1/counter/{own}/logrequests"]), [200]);
}

#[test]
fn the_list_has_the_granted_counters_with_their_owners() {
    let asked = Asked::new();
    let list = |line: &str| -> serde_json::Value { serde_json::from_str(&asked.ask("t", line).body).unwrap() };
    let whole = list("GET /management/v1/counters");
    let seen: Vec<_> = whole["counters"].as_array().unwrap().iter().map(|one| one["id"].as_u64().unwrap()).collect();
    assert_eq!(seen, ["own", "edit", "view", "analyst", "org"].map(|name| asked.cast.counter(name)));
    assert!(!seen.contains(&DEMO));
    assert_eq!(whole["counters"][0]["owner_login"], "shop-1");
    assert_eq!(
        (&whole["counters"][1]["owner_login"], &whole["counters"][1]["permission"]),
        (&"other-1".into(), &"edit".into())
    );
    let page = list("GET /management/v1/counters?per_page=2&offset=4");
    assert_eq!((&page["rows"], page["counters"].as_array().unwrap().len()), (&5.into(), 2));
    assert_eq!(list("GET /management/v1/counters?permission=own%2Cview")["rows"], 2);
    asked.world.state().counters.get_mut(&seen[2]).unwrap().grants.clear();
    assert_eq!(list("GET /management/v1/counters")["rows"], 4);
}

#[test]
fn ulogin_acts_for_a_represented_account_and_for_no_other() {
    let asked = Asked::new();
    let lines = [
        "GET /management/v1/counter/{theirs}?ulogin={client}",
        "POST /management/v1/counter/{theirs}/goals?ulogin={client}",
        "POST /management/v1/counter/{theirview}/goals?ulogin={client}",
        "GET /management/v1/counter/{own}?ulogin={client}",
        "GET /management/v1/counter/{own}?ulogin={shop}",
        "GET /management/v1/counter/{theirs}",
    ];
    assert_eq!(asked.statuses("t", lines), [200, 200, 403, 403, 200, 403]);
    assert!(asked.ask("t", "GET /management/v1/accounts").body.contains("client-1"));
    assert!(asked.ask("x", "GET /management/v1/accounts").body.contains("[]"));
}

#[test]
fn a_dead_token_is_refused_in_each_of_its_forms() {
    let asked = Asked::new();
    let info = |asked: &Asked| asked.at("login.yandex.ru", "t", "GET /info?format=json");
    assert!(info(&asked).body.contains(r#""login":"shop-1""#));
    let lines = ["GET /management/v1/counters", "GET /stat/v1/data?ids={own}&metrics=ym:s:visits"];
    for (death, list, report) in [
        (Death::Revoked, "403 invalid_token", "403 invalid_token"),
        (Death::Expired, "401 invalid_token", "401 invalid_token"),
        (Death::Unauthorized, "401 unauthorized", "401 unauthorized"),
        (Death::Denied, "403 access_denied", "403 access_denied"),
        (Death::DeniedButForTheList, "403 invalid_token", "403 access_denied"),
    ] {
        asked.world.state().tokens.get_mut(&asked.secret("t")).unwrap().death = Some(death);
        let said = lines.map(|line| {
            let said = asked.ask("t", line);
            let body: serde_json::Value = serde_json::from_str(&said.body).unwrap();
            format!("{} {}", said.status, body["errors"][0]["error_type"].as_str().unwrap())
        });
        assert_eq!(said, [list, report], "{death:?}");
        assert_eq!(info(&asked).status, 401);
    }
}

#[test]
fn restricted_data_is_refused_while_other_data_is_shown() {
    let asked = Asked::new();
    let said = asked.ask("t", "GET /stat/v1/data?ids={own}&metrics=ym:s:visits&dimensions=ym%3As%3Arestricted");
    assert!(said.status == 403 && said.body.contains("4019"), "{said:?}");
    let said = asked.ask("t", "GET /management/v1/counter/{own}/apisegment/segment/77");
    assert!(said.status == 403 && said.body.contains("Сегмент"), "{said:?}");
    assert_eq!(asked.statuses("t", ["GET /management/v1/counter/{own}/apisegment/segment/78"]), [200]);
}

//! The roles that the stand-in plays beside the API itself: who issued a token, organisations, people who represent others,
//! and errors in every form.

use fake_metrica::{
    DEMO_CLIENT_ID, DEMO_COUNTER, DEMO_VIEW_COUNTER, Fake, FakeToken, Permission, Settings, demo_tokens,
};
use metrica::scope::Scope;
use serde_json::{Value, json};

use crate::client::{call, get, send};

const READ: &str = "demo-read-analytics-0001";
const WRITE: &str = "demo-write-crm-0000002";
const OTHER: &str = "demo-read-another-000004";
const PERSONAL: &str = "demo-read-personally-005";

fn fake() -> Fake {
    let reads = |secret: &str, owner: &str, counters| FakeToken {
        secret: secret.to_owned(),
        owner: owner.to_owned(),
        scopes: [Scope::Read].into_iter().collect(),
        counters,
        ..FakeToken::default()
    };
    let personal = reads(PERSONAL, "porg-shop", vec![(7, Permission::Own)]);
    let mut tokens = demo_tokens();
    tokens.push(reads(OTHER, "demo-principal", vec![(7, Permission::Edit)]));
    tokens.push(FakeToken { login: Some("ivan".to_owned()), ..personal });
    Fake::start(Settings { tokens, ..Settings::default() }).unwrap()
}

/// The status and the error type, which is empty where there is no error.
fn of(fake: &Fake, token: &str, method: &str, target: &str) -> (u16, String) {
    let reply = call(fake, token, method, target, "application/json", "{}");
    if reply.status == 200 { (200, String::new()) } else { reply.error() }
}

fn refused(status: u16, error_type: &str) -> (u16, String) {
    (status, error_type.to_owned())
}

#[test]
fn rule_6_the_identity_host_names_the_issuer_of_a_token() {
    let fake = fake();
    let said = get(&fake, WRITE, "/info?format=json").json();
    assert_eq!((&said["login"], &said["client_id"]), (&json!("demo-owner"), &json!(DEMO_CLIENT_ID)));
    let kinds = ["login", "id", "client_id", "psuid"].map(|key| said[key].is_string());
    assert_eq!((kinds, said.as_object().unwrap().len()), ([true; 4], 4));
    assert_eq!(get(&fake, PERSONAL, "/info").json()["login"], "ivan");
    assert_eq!(get(&fake, "", "/info").status, 401);
    assert_eq!(get(&fake, "demo-unknown-000001", "/info").status, 401);
    fake.revoke(WRITE);
    assert_eq!(get(&fake, WRITE, "/info?format=json").status, 401);
    assert_eq!(call(&fake, READ, "POST", "/info", "", "").status, 405);
    let elsewhere = "GET /management/v1/counters HTTP/1.1\r\nHost: login.yandex.ru\r\nConnection: close\r\n";
    assert_eq!(send(&fake, &format!("{elsewhere}Authorization: OAuth {READ}\r\n\r\n")).status, 404);
    assert_eq!(fake.heard()[..2], ["GET /info", "GET /info"]);
    fake.turn(&format!("account?token={READ}&client_id=fedcba98&login=petr")).unwrap();
    let said = get(&fake, READ, "/info").json();
    assert_eq!((&said["login"], &said["client_id"]), (&json!("petr"), &json!("fedcba98")));
}

#[test]
fn rule_7_ulogin_names_an_account_that_is_represented() {
    let fake = fake();
    let report = |ids: u64, login: &str| {
        of(&fake, READ, "GET", &format!("/stat/v1/data?ids={ids}&metrics=ym:s:visits&ulogin={login}"))
    };
    let denied = refused(403, "access_denied");
    assert_eq!(report(DEMO_COUNTER, ""), refused(200, ""));
    assert_eq!(report(DEMO_COUNTER, "demo-owner"), refused(200, ""));
    assert_eq!(report(DEMO_COUNTER, "stranger"), denied);
    assert_eq!((report(7, "demo-principal"), report(7, "")), (refused(200, ""), denied.clone()));
    assert_eq!(report(DEMO_COUNTER, "demo-principal"), denied, "its counters, and not the representative's");
    let listed = get(&fake, READ, "/management/v1/counters?ulogin=demo-principal").json();
    assert_eq!((&listed["rows"], &listed["counters"][0]["id"]), (&json!(1), &json!(7)));
    let accounts = || get(&fake, READ, "/management/v1/accounts").json()["accounts"][0]["user_login"].clone();
    assert_eq!(accounts(), "demo-principal");
    fake.turn(&format!("account?token={READ}&represents=other")).unwrap();
    assert_eq!((accounts(), report(7, "demo-principal")), (json!("other"), denied));
}

#[test]
fn rule_7_a_personal_token_of_an_organisation_is_refused_everything() {
    let fake = fake();
    for target in ["/management/v1/counters", "/management/v1/counter/7", "/stat/v1/data?ids=7&metrics=ym:s:visits"] {
        assert_eq!(of(&fake, PERSONAL, "GET", target), refused(403, "access_denied"), "{target}");
    }
    fake.turn(&format!("account?token={PERSONAL}&login=")).unwrap();
    assert_eq!(of(&fake, PERSONAL, "GET", "/management/v1/counters"), refused(200, ""));
    assert_eq!(get(&fake, PERSONAL, "/info").json()["login"], "porg-shop");
}

#[test]
fn rule_8_a_public_counter_and_one_of_an_organisation() {
    let fake = fake();
    let report = |token: &str| of(&fake, token, "GET", "/stat/v1/data?ids=9&metrics=ym:s:visits");
    assert_eq!(report(READ), refused(403, "access_denied"));
    fake.turn("public?counter=9").unwrap();
    assert_eq!((report(READ), report(WRITE)), (refused(200, ""), refused(200, "")));
    let both = format!("/stat/v1/data?ids=9,{DEMO_COUNTER}&metrics=ym:s:visits");
    assert_eq!(of(&fake, WRITE, "GET", &both), refused(403, "access_denied"), "only one of them is public");
    assert_eq!(get(&fake, READ, "/management/v1/counter/9").json()["counter"]["permission"], "public_stat");
    assert_eq!(get(&fake, READ, "/management/v1/counter/9/my_grant").json()["grant"]["perm"], "public_stat");
    assert_eq!(of(&fake, READ, "GET", "/management/v1/counter/9/goals"), refused(403, "access_denied"));
    fake.turn("public?counter=9&off").unwrap();
    assert_eq!(report(READ), refused(403, "access_denied"));

    let in_connect = refused(403, "counter_in_connect");
    fake.turn(&format!("organisation?counter={DEMO_VIEW_COUNTER}")).unwrap();
    fake.turn(&format!("organisation?counter={DEMO_COUNTER}")).unwrap();
    let view = format!("/management/v1/counter/{DEMO_VIEW_COUNTER}");
    let own = format!("/management/v1/counter/{DEMO_COUNTER}");
    assert_eq!(of(&fake, READ, "GET", &view), refused(200, ""));
    assert_eq!(of(&fake, READ, "GET", &format!("{view}/grants")), in_connect);
    assert_eq!(of(&fake, READ, "GET", &format!("{own}/grants")), refused(200, ""));
    assert_eq!(of(&fake, WRITE, "POST", &format!("{view}/goals")), in_connect);
    assert_eq!(of(&fake, WRITE, "POST", &format!("{own}/filters")), refused(200, ""));
    assert_eq!(of(&fake, WRITE, "POST", &format!("{own}/grants")), in_connect);
    assert_eq!(of(&fake, READ, "GET", "/management/v1/counter/1"), refused(403, "access_denied"));
}

#[test]
fn errors_have_every_form_that_is_known() {
    let fake = fake();
    let ask = |token: &str| get(&fake, token, "/management/v1/counter/1");
    fake.turn("invalid?status=401").unwrap();
    assert_eq!(ask("demo-unknown-000001").error(), refused(401, "invalid_token"));
    fake.turn("wording?lang=ru").unwrap();
    let body: Value = ask(READ).json();
    assert_eq!((&body["message"], &body["errors"][0]["message"]), (&json!("Доступ запрещён"), &body["message"]));
    fake.turn("wording?error_type=access_denied&message=Access%20Denied").unwrap();
    assert_eq!(ask(READ).json()["message"], "Access Denied");
    fake.turn("wording?lang=en&error_type=access_denied").unwrap();
    assert_eq!(ask(READ).json()["message"], "Access is denied");
    let fail = |form: &str| {
        fake.turn(&format!("fail?error_type=access_denied&{form}")).unwrap();
        ask(READ)
    };
    let half = fail("half");
    assert!(half.status == 403 && serde_json::from_slice::<Value>(&half.body).is_err() && half.body.len() > 20);
    let huge = fail("huge=100000");
    assert!(huge.body.len() > 100_000 && huge.error() == refused(403, "access_denied"));
    let packed = fail("gzip");
    assert!(packed.head.contains("content-encoding: gzip\r\n"), "{}", packed.head);
    let mut plain = String::new();
    std::io::Read::read_to_string(&mut flate2::read::GzDecoder::new(&*packed.body), &mut plain).unwrap();
    assert!(plain.contains("\"access_denied\""), "{plain}");
    assert!(fake.turn("fail?error_type=access_denied&huge=0").is_err() && fake.turn("wording?lang=de").is_err());
    fake.turn("reset").unwrap();
    assert_eq!(ask("demo-unknown-000001").error(), refused(403, "invalid_token"));
}

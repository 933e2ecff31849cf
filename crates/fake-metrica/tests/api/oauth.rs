//! The OAuth server: its pages as a browser drives them, and the requests of applications.

use fake_metrica::{DEMO_CLIENT_ID, DEMO_CLIENT_SECRET, Fake, MOST_DEVICES, Settings};
use serde_json::Value;

use crate::client::{Reply, get, send};
use crate::{fake, knob};

fn form(fake: &Fake, path: &str, body: &str) -> Reply {
    with_header(fake, path, "", body)
}

fn with_header(fake: &Fake, path: &str, header: &str, body: &str) -> Reply {
    let length = body.len();
    send(
        fake,
        &format!(
            "POST {path} HTTP/1.1\r\nHost: oauth.yandex.ru\r\nConnection: close\r\n{header}\
             Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {length}\r\n\r\n{body}"
        ),
    )
}

/// The error of a refusal, with its status.
fn error(reply: &Reply) -> (u16, String) {
    (reply.status, reply.json()["error"].as_str().unwrap().to_owned())
}

const CLIENT: &str = "client_id=0123456789abcdef0123456789abcdef&client_secret=test-client-secret-00000000000001";

/// Signs in as `login` and clicks the button; returns the address that the browser is led to.
fn click(fake: &Fake, query: &str, login: &str, decision: &str) -> String {
    let page = get(fake, "", &format!("/authorize?{query}"));
    assert!(page.status == 200 && page.text().contains("id=\"allow\""), "{}", page.text());
    let reply = form(fake, "/authorize", &format!("{query}&login={login}&decision={decision}"));
    assert_eq!(reply.status, 302, "{}", reply.text());
    reply.head.lines().find_map(|line| line.strip_prefix("location: ")).unwrap().to_owned()
}

fn value<'a>(address: &'a str, name: &str) -> &'a str {
    address.split(['?', '&', '#']).find_map(|pair| pair.strip_prefix(&format!("{name}="))).unwrap()
}

fn code(fake: &Fake, more: &str) -> String {
    let query = format!("response_type=code&client_id={DEMO_CLIENT_ID}{more}");
    value(&click(fake, &query, "demo-owner", "allow"), "code").to_owned()
}

fn exchange(fake: &Fake, code: &str, more: &str) -> Reply {
    form(fake, "/token", &format!("grant_type=authorization_code&code={code}&{CLIENT}{more}"))
}

fn access(reply: &Reply) -> String {
    reply.json()["access_token"].as_str().unwrap_or_else(|| panic!("{}", reply.text())).to_owned()
}

#[test]
fn rules_1_and_2_a_person_allows_and_the_code_is_exchanged_once() {
    let fake = fake();
    let code = code(&fake, "&state=a%26b");
    assert_eq!(code.len(), 16);
    let reply = exchange(&fake, &code, "");
    let issued = reply.json();
    assert_eq!(
        (reply.status, &issued["token_type"], &issued["expires_in"]),
        (200, &"bearer".into(), &31_536_000.into())
    );
    assert_eq!(issued.get("scope"), None, "all rights were granted");
    assert!(issued["refresh_token"].as_str().unwrap().contains(':'));
    assert_eq!(get(&fake, &access(&reply), "/management/v1/counters").status, 200);
    let info = get(&fake, &access(&reply), "/info?format=json").json();
    assert_eq!((info["login"].as_str(), info["client_id"].as_str()), (Some("demo-owner"), Some(DEMO_CLIENT_ID)));
    assert_eq!(error(&exchange(&fake, &code, "")), (400, "invalid_grant".to_owned()), "once");
}

#[test]
fn rule_1_the_answer_of_a_page() {
    let fake = fake();
    let query = format!("response_type=token&client_id={DEMO_CLIENT_ID}&state=a%26b");
    let address = click(&fake, &query, "demo-owner", "allow");
    assert!(address.starts_with("/verification_code#access_token=test-") && address.ends_with("&state=a%26b"));
    assert_eq!(get(&fake, value(&address, "access_token"), "/management/v1/counters").status, 200);
    assert_eq!(value(&click(&fake, &query, "demo-owner", "deny"), "error"), "access_denied");
    for wrong in [
        "client_id=0123456789abcdef0123456789abcdef".to_owned(),
        "response_type=code&client_id=ffffffffffffffffffffffffffffffff".to_owned(),
        format!("response_type=code&client_id={DEMO_CLIENT_ID}&redirect_uri=https://evil.test/"),
        format!("response_type=code&client_id={DEMO_CLIENT_ID}&device_id=short"),
        format!("response_type=code&client_id={DEMO_CLIENT_ID}&scope=metrica:read"),
        format!("response_type=code&client_id={DEMO_CLIENT_ID}&code_challenge=abc"),
    ] {
        assert_eq!(get(&fake, "", &format!("/authorize?{wrong}")).status, 400, "{wrong}");
    }
    let stranger = format!("{query}&login=stranger&decision=allow");
    assert_eq!(form(&fake, "/authorize", &stranger).status, 400);
    assert_eq!(get(&fake, "", "/verification_code?code=abc").status, 200);
    assert!(get(&fake, "", &format!("/client/{DEMO_CLIENT_ID}/info")).text().contains("metrika:read"));
    assert_eq!(get(&fake, "", "/client/none/info").status, 404);
    assert_eq!(get(&fake, "", "/token").status, 405);
}

#[test]
fn rule_2_wrong_exchanges() {
    let fake = fake();
    let challenge = "&code_challenge=E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM&code_challenge_method=S256";
    let verifier = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
    let secured = code(&fake, challenge);
    let public = |code: &str, more: &str| {
        form(&fake, "/token", &format!("grant_type=authorization_code&code={code}&client_id={DEMO_CLIENT_ID}{more}"))
    };
    assert_eq!(error(&public(&secured, "")).1, "invalid_grant");
    assert_eq!(error(&public(&secured, "&code_verifier=other")).1, "invalid_grant");
    assert_eq!(public(&secured, &format!("&code_verifier={verifier}")).status, 200, "RFC 7636, appendix B, no secret");
    let device = code(&fake, "&device_id=device-1&device_name=one");
    let wrong = |more: &str| error(&form(&fake, "/token", &format!("grant_type=authorization_code{more}")));
    for (more, status, name) in [
        (format!("&code={device}"), 400, "invalid_request"),
        (format!("&code={device}&client_id=ffffffffffffffffffffffffffffffff"), 401, "invalid_client"),
        (format!("&code={device}&client_id={DEMO_CLIENT_ID}"), 401, "invalid_client"),
        (format!("&code={device}&client_id={DEMO_CLIENT_ID}&client_secret=wrong"), 401, "invalid_client"),
        (format!("&{CLIENT}"), 400, "invalid_request"),
        (format!("&code=1234567&{CLIENT}"), 400, "bad_verification_code"),
        (format!("&code=aaaaaaaaaaaaaaaa&{CLIENT}"), 400, "invalid_grant"),
        (format!("&code={device}&{CLIENT}&device_id=device-2"), 400, "invalid_grant"),
    ] {
        assert_eq!(wrong(&more), (status, name.to_owned()), "{more}");
    }
    let grant = |name: &str| error(&form(&fake, "/token", &format!("{CLIENT}{name}"))).1;
    assert_eq!((grant("&grant_type=password"), grant("")), ("unsupported_grant_type".into(), "invalid_request".into()));
    let basic =
        |header: &str| with_header(&fake, "/token", header, &format!("grant_type=authorization_code&code={device}"));
    assert_eq!(error(&basic("Authorization: Bearer x\r\n")).1, "Basic auth required");
    assert_eq!(error(&basic("Authorization: Basic !\r\n")).1, "Malformed Authorization header");
    knob(&fake, &format!("oauth_block?client_id={DEMO_CLIENT_ID}"));
    assert_eq!(error(&exchange(&fake, &device, "")).1, "unauthorized_client");
    knob(&fake, &format!("oauth_block?client_id={DEMO_CLIENT_ID}&off"));
    fake.forward(std::time::Duration::from_secs(599));
    assert_eq!(exchange(&fake, &device, "&device_id=device-1").status, 200);
    let late = code(&fake, "");
    fake.forward(std::time::Duration::from_secs(601));
    assert_eq!(error(&exchange(&fake, &late, "")).1, "invalid_grant");
}

fn device_code(fake: &Fake) -> Value {
    let reply = form(fake, "/device/code", &format!("client_id={DEMO_CLIENT_ID}&device_id=device-1"));
    assert_eq!(reply.status, 200, "{}", reply.text());
    reply.json()
}

fn poll(fake: &Fake, device: &Value) -> Reply {
    let code = device["device_code"].as_str().unwrap();
    form(fake, "/token", &format!("grant_type=device_code&code={code}&{CLIENT}"))
}

fn enter(fake: &Fake, device: &Value, decision: &str) -> Reply {
    let code = device["user_code"].as_str().unwrap();
    form(fake, "/device", &format!("user_code={code}&login=demo-owner&decision={decision}"))
}

#[test]
fn rule_3_a_device_waits_and_obeys_the_interval() {
    let fake = fake();
    let device = device_code(&fake);
    assert_eq!((&device["interval"], &device["expires_in"]), (&5.into(), &300.into()));
    assert_eq!(error(&poll(&fake, &device)).1, "authorization_pending");
    assert_eq!(error(&poll(&fake, &device)).1, "slow_down");
    assert!(get(&fake, "", "/device").text().contains("user_code"));
    assert_eq!(enter(&fake, &device, "allow").status, 200);
    assert_eq!(enter(&fake, &device, "deny").status, 400, "it is decided");
    fake.forward(std::time::Duration::from_secs(5));
    let reply = poll(&fake, &device);
    assert_eq!(get(&fake, &access(&reply), "/management/v1/counters").status, 200);
    assert_eq!(error(&poll(&fake, &device)).1, "invalid_grant", "replayed");
    let denied = device_code(&fake);
    enter(&fake, &denied, "deny");
    assert_eq!(error(&poll(&fake, &denied)).1, "access_denied");
    let late = device_code(&fake);
    fake.forward(std::time::Duration::from_secs(301));
    assert_eq!(error(&poll(&fake, &late)).1, "expired_token");
    let without = format!("grant_type=device_code&code=x&client_id={DEMO_CLIENT_ID}");
    assert_eq!(error(&form(&fake, "/token", &without)).1, "invalid_client", "a device needs the secret");
    let wrong = form(&fake, "/device/code", &format!("client_id={DEMO_CLIENT_ID}&scope=cloud:read"));
    assert_eq!(error(&wrong).1, "invalid_scope");
}

#[test]
fn rule_4_one_live_token_and_thirty_of_devices() {
    let fake = fake();
    let issue = |more: &str| access(&exchange(&fake, &code(&fake, more), ""));
    assert_eq!(issue(""), issue(""), "the same");
    let first = issue("&device_id=device-00");
    assert_eq!(issue("&device_id=device-00"), first, "the same for the same device");
    for number in 1..MOST_DEVICES {
        issue(&format!("&device_id=device-{number:02}"));
    }
    assert_eq!(get(&fake, &first, "/management/v1/counters").status, 200);
    issue("&device_id=device-30");
    assert_eq!(get(&fake, &first, "/management/v1/counters").status, 403, "the oldest stops working");
}

#[test]
fn rule_5_a_refresh_token_is_used_once() {
    let fake = fake();
    let issued = exchange(&fake, &code(&fake, "&device_id=device-1"), "");
    let refresh = |token: &str, secret: &str| {
        let client = format!("client_id={DEMO_CLIENT_ID}&client_secret={secret}");
        form(&fake, "/token", &format!("grant_type=refresh_token&refresh_token={token}&{client}"))
    };
    let token = |reply: &Reply| reply.json()["refresh_token"].as_str().unwrap().to_owned();
    assert_eq!(error(&refresh(&token(&issued), "wrong")).1, "invalid_client");
    let second = refresh(&token(&issued), DEMO_CLIENT_SECRET);
    assert_eq!(access(&second), access(&issued), "it has long to live");
    assert_eq!(error(&refresh(&token(&issued), DEMO_CLIENT_SECRET)).1, "invalid_grant");
    knob(&fake, "oauth?rotates=1&ends_old=1");
    let third = refresh(&token(&second), DEMO_CLIENT_SECRET);
    assert_ne!(access(&third), access(&second));
    assert_eq!(get(&fake, &access(&second), "/info").status, 401);
    assert_eq!(get(&fake, &access(&third), "/info").status, 200);
}

#[test]
fn rule_6_what_can_be_revoked_and_what_ends_by_itself() {
    let fake = fake();
    let revoke = |token: &str| form(&fake, "/revoke_token", &format!("access_token={token}&{CLIENT}"));
    let plain = access(&exchange(&fake, &code(&fake, ""), ""));
    assert_eq!(error(&revoke(&plain)).1, "unsupported_token_type");
    let device = access(&exchange(&fake, &code(&fake, "&device_id=device-1"), ""));
    assert_eq!(revoke(&device).json()["status"], "ok");
    assert_eq!(get(&fake, &device, "/info").status, 401);
    assert_eq!(error(&revoke(&device)).1, "invalid_grant");
    assert_eq!(knob(&fake, "oauth_end?login=demo-owner")["ended"], 1);
    assert_eq!(get(&fake, &plain, "/info").status, 401);
    let old = access(&exchange(&fake, &code(&fake, ""), ""));
    fake.forward(std::time::Duration::from_secs(366 * 24 * 60 * 60));
    assert_eq!(get(&fake, &old, "/info").status, 401, "it has expired");
}

#[test]
fn rule_7_a_personal_token_of_an_organisation() {
    let mut settings = Settings::default();
    settings.accounts[0].login = "porg-shop".to_owned();
    settings.accounts[0].person = Some("ivan".to_owned());
    for business in [false, true] {
        settings.applications[0].business = business;
        let fake = Fake::start(settings.clone()).unwrap();
        let query = format!("response_type=token&client_id={DEMO_CLIENT_ID}");
        let address = click(&fake, &query, "porg-shop", "allow");
        let token = value(&address, "access_token");
        let login = if business { "porg-shop" } else { "ivan" };
        assert_eq!(get(&fake, token, "/info").json()["login"], login);
        assert_eq!(get(&fake, token, "/management/v1/counters").status, if business { 200 } else { 403 });
    }
}

#[test]
fn fewer_rights_are_named_in_the_answer() {
    let fake = fake();
    let reply = exchange(&fake, &code(&fake, "&scope=metrika:read%20metrika:write"), "");
    assert_eq!(reply.json()["scope"], "metrika:read metrika:write");
}

#[test]
fn the_control_panel_shows_no_secret() {
    let fake = fake();
    let issued = exchange(&fake, &code(&fake, "&device_id=device-1"), "");
    let state = get(&fake, "", "/_fake/state").text();
    assert!(state.contains("device-1") && !state.contains("test-"), "{state}");
    assert!(!state.contains(issued.json()["refresh_token"].as_str().unwrap()));
}

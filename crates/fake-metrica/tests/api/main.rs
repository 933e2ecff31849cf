//! The API as a caller sees it, over a real socket.

#![cfg(test)]

mod client;
mod oauth;
mod objects;
mod quotas;
mod roles;

use fake_metrica::{DEMO_COUNTER, DEMO_VIEW_COUNTER, Fake, Settings, demo_tokens};
use metrica::operation::{Catalogue, Verb};
use serde_json::{Value, json};

use crate::client::{Reply, call, get, post, send};

/// A token that reads.
pub const READ: &str = "demo-read-analytics-0001";
const WRITE: &str = "demo-write-crm-0000002";
const UPLOAD: &str = "demo-upload-offline-003";

/// A stand-in with the tokens of the demo.
pub fn fake() -> Fake {
    Fake::start(Settings::default()).unwrap()
}

/// A path below the counter of the demo.
pub fn counter(rest: &str) -> String {
    format!("/management/v1/counter/{DEMO_COUNTER}{rest}")
}

fn knob(fake: &Fake, knob: &str) -> Value {
    let reply = post(fake, "", &format!("/_fake/{knob}"), "");
    assert_eq!(reply.status, 200, "{knob}: {}", reply.text());
    reply.json()
}

#[test]
fn rule_2_the_order_of_the_refusals() {
    let fake = fake();
    let view = format!("/management/v1/counter/{DEMO_VIEW_COUNTER}");
    let cases = [
        ("", "GET", "/other".to_owned(), 401, "unauthorized"),
        ("demo-unknown-000001", "GET", "/other".to_owned(), 403, "invalid_token"),
        (READ, "GET", "/other".to_owned(), 404, "not_found"),
        (READ, "DELETE", "/management/v1/counters".to_owned(), 405, "method_not_allowed"),
        (READ, "TRACE", "/management/v1/counters".to_owned(), 405, "method_not_allowed"),
        (READ, "POST", counter("/goals"), 403, "access_denied"),
        (WRITE, "GET", counter("/goals"), 403, "access_denied"),
        (UPLOAD, "POST", counter("/goals"), 403, "access_denied"),
        (READ, "GET", "/management/v1/counter/1".to_owned(), 403, "access_denied"),
        (WRITE, "POST", format!("{view}/goals"), 403, "access_denied"),
        (READ, "GET", format!("{view}/grants"), 403, "access_denied"),
        (READ, "GET", "/stat/v1/data?ids=1&metrics=ym:s:visits".to_owned(), 403, "access_denied"),
        (READ, "GET", "/management/v1/counter/x".to_owned(), 400, "invalid_parameter"),
        (READ, "GET", format!("/stat/v1/data?ids={DEMO_COUNTER}"), 400, "missing_parameter"),
        (READ, "GET", "/stat/v1/data?metrics=ym:s:visits".to_owned(), 400, "missing_parameter"),
        (READ, "GET", counter("/goal/1"), 404, "not_found"),
    ];
    let count = u64::try_from(cases.len()).unwrap();
    for (token, method, target, status, error_type) in cases {
        let reply = call(&fake, token, method, &target, "application/json", "{}");
        assert_eq!(reply.error(), (status, error_type.to_owned()), "{method} {target}");
        assert!(reply.head.to_ascii_lowercase().contains("content-type: application/json; charset=utf-8"));
    }
    assert_eq!(fake.requests(), count);
}

#[test]
fn rule_2_a_missing_scope_and_a_missing_grant_look_alike() {
    let fake = fake();
    let scope = post(&fake, READ, &counter("/goals"), "{}");
    let grant = get(&fake, READ, "/management/v1/counter/1");
    assert_eq!(scope.text(), grant.text());
    assert_eq!(
        grant.text(),
        r#"{"errors":[{"error_type":"access_denied","message":"Access is denied"}],"code":403,"message":"Access is denied"}"#
    );
}

#[test]
fn only_one_well_formed_credential_is_accepted() {
    let fake = fake();
    let head = "GET /management/v1/counters HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n";
    for (fields, status) in [
        (format!("Authorization: OAuth {READ}\r\n"), 200),
        (format!("Authorization: Bearer {READ}\r\n"), 401),
        (format!("Authorization: {READ}\r\n"), 401),
        ("Authorization: OAuth \r\n".to_owned(), 401),
        (format!("Authorization: OAuth {READ}\r\nAuthorization: OAuth {READ}\r\n"), 401),
    ] {
        assert_eq!(send(&fake, &format!("{head}{fields}\r\n")).status, status, "{fields}");
    }
}

#[test]
fn a_revoked_token_is_invalid_until_it_is_restored() {
    let fake = fake();
    let status = || get(&fake, READ, "/management/v1/counters").status;
    assert_eq!(status(), 200);
    assert!(fake.revoke(READ) && !fake.revoke("demo-unknown-000001"));
    assert_eq!(get(&fake, READ, "/management/v1/counters").error(), (403, "invalid_token".to_owned()));
    assert!(fake.restore(READ));
    assert_eq!(status(), 200);
    knob(&fake, &format!("revoke?token={READ}"));
    assert_eq!(status(), 403);
    knob(&fake, "reset");
    assert_eq!(status(), 200);
    let state = knob(&fake, "state");
    assert_eq!(state["requests"], 1);
    assert!(!state.to_string().contains("demo-read"), "{state}");
}

#[test]
fn the_state_has_the_knobs_in_force() {
    let fake = fake();
    let knobs = || knob(&fake, "state")["knobs"].clone();
    let at_the_start = knobs();
    for line in
        ["slow?ms=1&path=/stat", "slow?ms=2&path=/management", "slow?ms=3", "fail?error_type=backend_error", "break"]
    {
        knob(&fake, line);
    }
    let slow = serde_json::json!([
        {"path": "/stat", "ms": 1}, {"path": "/management", "ms": 2}, {"path": "", "ms": 3},
    ]);
    assert_eq!(knobs()["slow"], slow);
    assert_eq!(knobs()["fail"]["error_type"], "backend_error");
    assert_eq!(knobs()["break"]["times"], 1);
    knob(&fake, "slow?ms=0&path=/stat");
    assert_eq!(knobs()["slow"].as_array().unwrap().len(), 2);
    knob(&fake, "slow?ms=0");
    assert_eq!(knobs()["slow"], serde_json::json!([]));
    knob(&fake, "quota?parallel=3");
    assert_eq!(knob(&fake, "state")["quota"]["parallel"], 3);
    knob(&fake, "reset");
    assert_eq!(knobs(), at_the_start);
}

/// Keeps the dispatch complete: a new line of the catalogue without an answer here fails.
#[test]
fn every_operation_is_answered() {
    let mut tokens = demo_tokens();
    tokens[0].scopes = metrica::scope::Scope::ALL.into_iter().collect();
    let fake = Fake::start(Settings { tokens, ..Settings::default() }).unwrap();
    for operation in Catalogue::built_in().operations() {
        let path = operation.template.replace("{counter_id}", &DEMO_COUNTER.to_string());
        let path: Vec<_> = path.split('/').map(|part| if part.starts_with('{') { "101" } else { part }).collect();
        let method = if operation.verb == Verb::Head { "GET" } else { operation.verb.as_str() };
        let reply = call(&fake, READ, method, &path.join("/"), "application/json", "a\nb\n");
        if reply.status != 200 {
            let (status, error_type) = reply.error();
            assert!(matches!(status, 400 | 404), "{}: {status} {error_type}", operation.id);
        }
    }
}

#[test]
fn the_logs_life_cycle() {
    let fake = fake();
    let asked = "date1=2024-01-01&date2=2024-01-31&source=visits&fields=ym:s:visitID,ym:s:date,ym:s:startURL";
    let evaluation = get(&fake, READ, &counter(&format!("/logrequests/evaluate?{asked}"))).json();
    assert_eq!(evaluation["log_request_evaluation"]["possible"], true);
    let bad = |query: &str| post(&fake, READ, &counter(&format!("/logrequests?{query}")), "").error();
    assert_eq!(bad("source=visits"), (400, "missing_parameter".to_owned()));
    assert_eq!(bad(&asked.replace("2024-01-31", "2999-01-01")), (400, "invalid_parameter".to_owned()));
    assert_eq!(bad(&asked.replace("visits", "hits")), (400, "invalid_parameter".to_owned()));

    let create = || post(&fake, READ, &counter(&format!("/logrequests?{asked}")), "").json()["log_request"].clone();
    let made = create();
    assert_eq!(made["status"], "created");
    let request = counter(&format!("/logrequest/{}", made["request_id"]));
    let part = |number: u32| get(&fake, READ, &format!("{request}/part/{number}/download"));
    assert_eq!(part(0).json()["message"], "Only log of requests in status 'processed' can be downloaded");
    let status = || get(&fake, READ, &request).json()["log_request"]["status"].clone();
    assert_eq!([status(), status(), status()], ["created", "created", "processed"]);

    knob(&fake, "part_bytes?n=100000");
    assert_eq!(get(&fake, READ, &request).json()["log_request"]["parts"][1]["size"], 100_000);
    let downloaded = part(1);
    assert_eq!((downloaded.status, downloaded.body.len()), (200, 100_000));
    assert!(downloaded.text().starts_with("ym:s:visitID\tym:s:date\tym:s:startURL\n"));
    assert_eq!(part(2).json()["message"], "Incorrect part number");
    let clean = format!("{request}/clean");
    assert_eq!(post(&fake, READ, &clean, "").json()["log_request"]["status"], "cleaned_by_user");
    assert_eq!((post(&fake, READ, &clean, "").status, part(0).status), (400, 400));

    let other = counter(&format!("/logrequest/{}/cancel", create()["request_id"]));
    assert_eq!(post(&fake, READ, &other, "").json()["log_request"]["status"], "canceled");
    assert_eq!(post(&fake, READ, &other, "").status, 400);
}

#[test]
fn uploads_are_counted_and_listed() {
    let fake = fake();
    let target = counter("/offline_conversions/upload?client_id_type=USER_ID&comment=night");
    let file = "UserId,Target,DateTime\n1,paid,1481718166\n2,paid,1481718167\n";
    let body = format!("--b\r\nContent-Disposition: form-data; name=\"file\"\r\n\r\n{file}\r\n--b--\r\n");
    let upload = |body: &str| call(&fake, UPLOAD, "POST", &target, "multipart/form-data; boundary=b", body);
    let shown = upload(&body).json()["uploading"].clone();
    assert_eq!(shown["source_quantity"], 2);
    assert_eq!(shown["size_bytes"], body.len());
    assert_eq!((&shown["status"], &shown["client_id_type"]), (&json!("UPLOADED"), &json!("USER_ID")));
    assert_eq!(upload("").error(), (400, "invalid_uploading".to_owned()));

    let listed = get(&fake, READ, &counter("/offline_conversions/uploadings")).json();
    assert_eq!((&listed["uploadings"][0]["id"], listed["uploadings"].as_array().unwrap().len()), (&shown["id"], 1));
    let one = get(&fake, READ, &counter(&format!("/offline_conversions/uploading/{}", shown["id"]))).json();
    assert_eq!((&one["uploading"]["status"], &one["uploading"]["linked_quantity"]), (&json!("PROCESSED"), &json!(2)));

    let contacts = format!("/cdp/api/v1/counter/{DEMO_COUNTER}/data/contacts/json");
    let sent = call(&fake, UPLOAD, "POST", &contacts, "application/json", r#"{"contacts":[{"uniq_id":"1"},{}]}"#);
    assert_eq!(sent.json()["uploading"]["elements_count"], 2);
}

#[test]
fn reports_have_the_rows_that_are_asked_for() {
    let fake = fake();
    let report = |form: &str, rest: &str| -> Reply {
        let metrics = "metrics=ym:s:visits,ym:s:bounceRate&dimensions=ym:s:browser";
        get(&fake, READ, &format!("/stat/v1/data{form}?ids={DEMO_COUNTER},{DEMO_VIEW_COUNTER}&{metrics}&{rest}"))
    };
    let table = report("", "limit=3&offset=2").json();
    assert_eq!(table["data"].as_array().unwrap().len(), 3);
    assert_eq!(table["data"][0]["dimensions"][0]["name"], "Yandex Browser");
    assert_eq!((&table["total_rows"], &table["query"]["ids"][1]), (&json!(100_000), &json!(DEMO_VIEW_COUNTER)));
    assert_eq!(table, report("", "limit=3&offset=2").json());
    assert_eq!(report("", "limit=100001").error(), (400, "invalid_parameter".to_owned()));
    let text = report(".csv", "limit=100000").text();
    assert!(text.starts_with("\"ym:s:browser\",\"ym:s:visits\",\"ym:s:bounceRate\"\n\"Chrome\","), "{:.200}", text);
    assert_eq!(text.lines().count(), 100_001);
    assert!(report("/comparison", "").json()["data"][0]["metrics"]["b"].is_array());
    assert_eq!(report("/drilldown", "").json()["data"][0]["dimension"]["name"], "Chrome");
    let by_time = report("/bytime", "group=day&date1=2026-01-01&date2=2026-01-03").json();
    assert_eq!(
        (by_time["time_intervals"].as_array().unwrap().len(), &by_time["time_intervals"][2][1]),
        (3, &json!("2026-01-03"))
    );
    assert_eq!(by_time["data"][0]["metrics"][0].as_array().unwrap().len(), 3);
}

#[test]
fn the_control_panel_makes_errors() {
    let fake = fake();
    let counters = || get(&fake, READ, "/management/v1/counters");
    knob(&fake, "fail?error_type=quota_requests_by_uid&times=2");
    assert_eq!(counters().error(), (429, "quota_requests_by_uid".to_owned()));
    assert_eq!(counters().error(), (429, "quota_requests_by_uid".to_owned()));
    assert_eq!(counters().status, 200);
    knob(&fake, "fail?status=420&error_type=quota_new&path=/stat");
    assert_eq!(counters().status, 200);
    assert_eq!(get(&fake, READ, "/stat/v1/data").error(), (420, "quota_new".to_owned()));
    knob(&fake, "fail?error_type=backend_error&html");
    assert!(counters().text().starts_with("<html>"));
    knob(&fake, "break?times=1");
    assert_eq!(counters().status, 0);
    knob(&fake, "break?after=10");
    let broken = counters();
    assert_eq!((broken.status, broken.body.len()), (200, 10));
    knob(&fake, "quota?per_second=1&parallel=3");
    let state = knob(&fake, "quota?per_second=0");
    assert_eq!((&state["by_ip"], &state["parallel"]), (&Value::Null, &json!(3)));
    assert_eq!(counters().status, 200);
    assert_eq!(get(&fake, "", "/_fake/reset").status, 405);
    for knob in get(&fake, "", "/_fake/").json().as_array().unwrap() {
        assert_ne!(post(&fake, "", knob["knob"].as_str().unwrap(), "").status, 404, "{knob}");
    }
    assert_eq!(get(&fake, "", "/_fake/fail?error_type=new").status, 400);
}

#[test]
fn head_and_expect_are_understood() {
    let fake = fake();
    let full = get(&fake, READ, "/management/v1/clients");
    let head = call(&fake, READ, "HEAD", "/management/v1/clients", "application/json", "");
    assert!(head.head.contains(&format!("content-length: {}\r\n", full.body.len())), "{}", head.head);
    assert!(head.body.is_empty());
    let target = counter("/offline_conversions/upload");
    let reply = send(
        &fake,
        &format!(
            "POST {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nAuthorization: OAuth {UPLOAD}\r\n\
             Expect: 100-continue\r\nContent-Length: 4\r\n\r\na\nb\n"
        ),
    );
    assert!(reply.head.starts_with("HTTP/1.1 100 Continue\r\n"), "{}", reply.head);
}

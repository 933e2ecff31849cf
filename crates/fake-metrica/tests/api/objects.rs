//! Counters, goals and other stored objects: they look as the documentation prints them, and sent ones are validated.

use fake_metrica::{DEMO_COUNTER, DEMO_VIEW_COUNTER, Fake, Settings, demo_tokens};
use serde_json::{Value, json};

use crate::client::{call, get, post};
use crate::{READ, counter, fake};

/// A token that reads and writes.
fn writing() -> Fake {
    let mut tokens = demo_tokens();
    tokens[0].scopes = [metrica::scope::Scope::Read, metrica::scope::Scope::Write].into_iter().collect();
    Fake::start(Settings { tokens, ..Settings::default() }).unwrap()
}

/// Every entry counts, an object and each of its fields: so the example of the documentation has 49.
fn entries(value: &Value) -> usize {
    value.as_object().map_or(0, |fields| fields.values().map(|field| 1 + entries(field)).sum())
}

#[test]
fn created_objects_can_be_read_changed_and_deleted() {
    let fake = writing();
    let put = |target: &str, body: &str| call(&fake, READ, "PUT", target, "application/json", body);
    let delete = |target: &str| call(&fake, READ, "DELETE", target, "application/json", "");

    let goal = post(&fake, READ, &counter("/goals"), r#"{"goal":{"name":"Paid","type":"action"}}"#).json();
    let goal = counter(&format!("/goal/{}", goal["goal"]["id"]));
    assert_eq!(put(&goal, r#"{"goal":{"name":"Paid twice"}}"#).json()["goal"]["name"], "Paid twice");
    assert_eq!(get(&fake, READ, &goal).json()["goal"]["type"], "action");
    assert_eq!(get(&fake, READ, &counter("/goals")).json()["goals"].as_array().unwrap().len(), 3);
    assert_eq!(delete(&goal).json(), json!({ "success": true }));
    assert_eq!(get(&fake, READ, &goal).status, 404);
    let marked = "\u{feff}{\"goal\":{\"name\":\"Marked\",\"type\":\"action\"}}";
    assert_eq!(post(&fake, READ, &counter("/goals"), marked).json()["goal"]["name"], "Marked");

    let made = post(&fake, READ, "/management/v1/counters", r#"{"counter":{"name":"Second shop"}}"#).json();
    let made = format!("/management/v1/counter/{}", made["counter"]["id"]);
    assert_eq!(get(&fake, READ, &made).json()["counter"]["permission"], "own");
    let rows = |query: &str| get(&fake, READ, &format!("/management/v1/counters{query}")).json()["rows"].clone();
    assert_eq!((rows(""), rows("?permission=view"), rows("?search_string=Second")), (json!(3), json!(1), json!(1)));
    assert_eq!(delete(&made).status, 200);
    assert_eq!((rows(""), rows("?status=Deleted")), (json!(2), json!(1)));

    let grant = counter("/grant?user_login=analyst");
    assert_eq!(post(&fake, READ, &counter("/grants"), r#"{"grant":{"user_login":"analyst"}}"#).status, 200);
    assert_eq!(put(&grant, r#"{"grant":{"perm":"edit"}}"#).json()["grant"]["perm"], "edit");
    assert_eq!((delete(&grant).status, delete(&grant).status), (200, 404));
    assert_eq!(post(&fake, READ, &counter("/goals"), "{").error(), (400, "invalid_json".to_owned()));
}

#[test]
fn a_label_that_is_no_number_chooses_no_counters() {
    let fake = writing();
    let rows = |query: &str| get(&fake, READ, &format!("/management/v1/counters?{query}")).json()["rows"].clone();
    assert_eq!(post(&fake, READ, &counter("/label/101"), "{}").status, 200);
    assert_eq!(["label_id=101", "label_id=102", "label_id=x,101"].map(rows), [json!(1), json!(0), json!(1)]);
    assert_eq!(["label_id=", "label_id=None", "label_id=-1"].map(rows), [json!(2), json!(2), json!(2)]);
}

#[test]
fn a_counter_has_the_fields_that_the_documentation_prints() {
    let fake = writing();
    let listed = get(&fake, READ, "/management/v1/counters").json();
    let one = get(&fake, READ, &counter("?field=mirrors,counter_flags")).json()["counter"].clone();
    let made = r#"{"counter":{"name":"Third","site2":{"site":"third.example/shop"}}}"#;
    let made = post(&fake, READ, "/management/v1/counters", made).json()["counter"].clone();
    for counter in listed["counters"].as_array().unwrap() {
        assert_eq!(entries(counter), 49, "{counter}");
        for field in counter.as_object().unwrap().keys() {
            assert!(!one[field].is_null() && !made[field].is_null(), "{field}");
        }
    }
    assert!(one["mirrors2"].is_array() && one["counter_flags"].is_object(), "{one}");
    assert_eq!(made["site2"], json!({ "site": "third.example/shop", "domain": "third.example" }));
    assert_eq!((&made["site"], &made["mirrors2"]), (&json!("third.example/shop"), &Value::Null));
    assert!(made["update_time"].as_str().unwrap().ends_with("+03:00"), "{made}");
}

#[test]
fn a_change_of_a_counter_keeps_members_that_it_does_not_name() {
    let fake = writing();
    let body = r#"{"counter":{"code_options":{"informer":{"enabled":1}},"site":"moved.example","id":7}}"#;
    let changed = call(&fake, READ, "PUT", &counter(""), "application/json", body).json()["counter"].clone();
    let options = &changed["code_options"];
    assert_eq!((&options["informer"]["enabled"], &options["informer"]["size"]), (&json!(1), &json!(3)));
    assert_eq!((&options["clickmap"], &changed["id"]), (&json!(1), &json!(DEMO_COUNTER)));
    assert_eq!(changed["site2"], json!({ "site": "moved.example", "domain": "moved.example" }));
}

#[test]
fn a_goal_needs_a_name_and_a_type_that_is_known() {
    let fake = writing();
    let goals = counter("/goals");
    for (body, error_type) in [
        ("", "missing_parameter"),
        ("{}", "missing_parameter"),
        (r#"{"name":"Paid","type":"url"}"#, "missing_parameter"),
        (r#"{"goal":{}}"#, "missing_parameter"),
        (r#"{"goal":{"name":"Paid"}}"#, "missing_parameter"),
        (r#"{"goal":{"name":null,"type":"url"}}"#, "missing_parameter"),
        (r#"{"goal":{"name":"Paid","type":"other"}}"#, "invalid_parameter"),
        (r#"{"goal":{"name":"Paid","type":7}}"#, "invalid_parameter"),
    ] {
        let refused = post(&fake, READ, &goals, body);
        assert_eq!(refused.error(), (400, error_type.to_owned()), "{body}");
        let refused = refused.json();
        assert_eq!((&refused["code"], &refused["message"]), (&json!(400), &refused["errors"][0]["message"]), "{body}");
    }
    assert_eq!(get(&fake, READ, &goals).json()["goals"].as_array().unwrap().len(), 2);
    let goal = |kind: &str| json!({ "goal": { "id": 0, "name": "Paid", "type": kind } }).to_string();
    let made = |kind: &str| post(&fake, READ, &goals, &goal(kind)).json()["goal"].clone();
    for kind in ["url", "number", "step", "action", "messenger", "payment_system", "visit_duration", "chat"] {
        assert_eq!(made(kind)["type"], kind);
    }
    let made = made("messenger ");
    assert_eq!(made["type"], "messenger");
    let one = counter(&format!("/goal/{}", made["id"]));
    let put = |body: &str| call(&fake, READ, "PUT", &one, "application/json", body);
    assert_eq!(put(&goal("other")).error(), (400, "invalid_parameter".to_owned()));
    assert_eq!(put("{}").error(), (400, "missing_parameter".to_owned()));
    assert_eq!(put(&goal(" phone")).json()["goal"]["type"], "phone");
}

#[test]
fn a_parameter_that_is_repeated_keeps_all_its_values() {
    let fake = fake();
    let ids = format!("ids={DEMO_COUNTER}&ids={DEMO_VIEW_COUNTER}");
    let report = get(&fake, READ, &format!("/stat/v1/data?{ids}&metrics=ym:s:visits&metrics=ym:s:users")).json();
    assert_eq!(report["query"]["ids"], json!([DEMO_COUNTER, DEMO_VIEW_COUNTER]));
    assert_eq!(report["query"]["metrics"], json!(["ym:s:visits", "ym:s:users"]));
    let foreign = format!("/stat/v1/data?ids={DEMO_COUNTER}&ids=1&metrics=ym:s:visits");
    assert_eq!(get(&fake, READ, &foreign).error(), (403, "access_denied".to_owned()));
    let shown = get(&fake, READ, &counter("?field=goals&field=labels")).json()["counter"].clone();
    assert!(shown["goals"].is_array() && shown["labels"].is_array(), "{shown}");
    let asked = "date1=2024-01-01&date2=2024-01-31&source=visits&fields=ym:s:visitID&fields=ym:s:date";
    let made = post(&fake, READ, &counter(&format!("/logrequests?{asked}")), "").json();
    assert_eq!(made["log_request"]["fields"], json!(["ym:s:visitID", "ym:s:date"]));
    let old = "start-date=today&end-date=today&metrics=ym:s:visits&metrics=ym:s:users";
    let report = get(&fake, READ, &format!("/analytics/v3/data/ga?{ids}&{old}")).json();
    assert_eq!(report["columnHeaders"].as_array().unwrap().len(), 2);
}

#[test]
fn an_offset_of_0_is_the_first() {
    let fake = fake();
    let report = format!("/stat/v1/data?ids={DEMO_COUNTER}&metrics=ym:s:visits&dimensions=ym:s:browser&limit=2");
    for target in ["/management/v1/counters?per_page=1", &report, &report.replace("/data", "/data.csv")] {
        let rows = |offset: &str| {
            let reply = get(&fake, READ, &format!("{target}&offset={offset}"));
            assert_eq!(reply.status, 200, "{target}: {}", reply.text());
            reply.text().replace(&format!("\"offset\":{offset},"), "")
        };
        assert_eq!(rows("0"), rows("1"), "{target}");
        assert_ne!(rows("0"), rows("2"), "{target}");
    }
    for wrong in ["-1", "first"] {
        let refused = get(&fake, READ, &format!("/management/v1/counters?offset={wrong}"));
        assert_eq!(refused.error(), (400, "invalid_parameter".to_owned()));
    }
}

//! The quotas, over a real socket.

use std::io::{Read as _, Write as _};
use std::time::{Duration, Instant};

use fake_metrica::{
    BadKnob, DEMO_COUNTER, DEMO_VIEW_COUNTER, Fake, FakeToken, Limit, LoginUse, Outsider, Quota, RefusedCount,
    Settings, TypeNames, demo_tokens,
};
use serde_json::{Value, json};

use crate::client::{Stream, get, open, post};
use crate::{READ, counter, fake, knob};

const WRITE: &str = "demo-write-crm-0000002";
const OWNER: &str = "demo-owner";
const COUNTERS: &str = "/management/v1/counters";

fn with(quota: Quota) -> Fake {
    Fake::start(Settings { quota, ..Settings::default() }).unwrap()
}

fn statuses(fake: &Fake, target: &str, count: usize) -> Vec<u16> {
    (0..count).map(|_| get(fake, READ, target).status).collect()
}

fn report(ids: &str) -> String {
    format!("/stat/v1/data?ids={ids}&metrics=ym:s:visits")
}

fn login(fake: &Fake) -> LoginUse {
    fake.quota_use().login(OWNER)
}

/// Waits until a count has a value, which happens after the client has seen what causes it.
fn until(fake: &Fake, expected: u64, count: impl Fn(&LoginUse) -> u64) {
    let start = Instant::now();
    while count(&login(fake)) != expected {
        assert!(start.elapsed() < Duration::from_secs(20), "{:?}", login(fake));
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Sends a request without reading its response.
fn begin(fake: &Fake, target: &str) -> Stream {
    let mut stream = open(fake);
    let head = format!("GET {target} HTTP/1.1\r\nHost: localhost\r\nAuthorization: OAuth {READ}\r\n\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    stream.flush().unwrap();
    stream
}

#[test]
fn nothing_is_enforced_by_default_and_everything_is_counted() {
    let fake = fake();
    fake.turn("slow?ms=300").unwrap();
    let streams: Vec<_> = (0..5).map(|_| begin(&fake, &report("12345678"))).collect();
    until(&fake, 5, |login| login.in_parallel);
    drop(streams);
    until(&fake, 0, |login| login.in_parallel);
    fake.turn("slow?ms=0").unwrap();
    assert_eq!(statuses(&fake, COUNTERS, 3), [200; 3]);
    let usage = fake.quota_use();
    assert_eq!((usage.login(OWNER).most_in_parallel, usage.login(OWNER).day, usage.refused_in_all()), (5, 8, 0));
    assert_eq!(usage.counters[&DEMO_COUNTER].day, 5);
    assert!(usage.addresses.values().all(|address| address.most_in_a_second >= 5));
    assert_eq!(knob(&fake, "quota_use")["logins"][OWNER]["most_in_parallel"], 5);
    assert_eq!(knob(&fake, "quota_use?clear")["logins"][OWNER]["most_in_parallel"], 5);
    assert_eq!((login(&fake).most_in_parallel, login(&fake).day), (0, 8));
}

#[test]
fn rule_2_a_request_holds_its_slot_until_its_last_byte_was_sent() {
    let fake = with(Quota { parallel: Some(1), ..Quota::default() });
    // More than any buffer between the two holds.
    fake.turn("logs?instant&parts=1").unwrap();
    fake.turn("part_bytes?n=20000000").unwrap();
    let query = "date1=2024-01-01&date2=2024-01-31&source=visits&fields=ym:s:visitID";
    let made = post(&fake, READ, &counter(&format!("/logrequests?{query}")), "").json();
    let part = counter(&format!("/logrequest/{}/part/0/download", made["log_request"]["request_id"]));
    until(&fake, 0, |login| login.in_parallel);

    let mut stream = begin(&fake, &part);
    let mut first = [0; 1];
    stream.read_exact(&mut first).unwrap();
    assert_eq!(get(&fake, READ, COUNTERS).error(), (429, "quota_parallel_requests_by_uid".to_owned()));
    assert_eq!(login(&fake).in_parallel, 1);
    let mut bytes = vec![0; 64 * 1024];
    let mut left: usize = 20_000_000;
    while left > 0 {
        left = left.saturating_sub(stream.read(&mut bytes).unwrap());
    }
    until(&fake, 0, |login| login.in_parallel);
    assert_eq!(get(&fake, READ, COUNTERS).status, 200, "the connection is still open");
    assert_eq!((login(&fake).most_in_parallel, fake.quota_use().refused_by(Limit::Parallel)), (1, 1));
}

#[test]
fn rule_2_a_response_that_is_whole_holds_its_slot_while_nobody_reads_it() {
    let fake = fake();
    let target =
        format!("/stat/v1/data.csv?ids={DEMO_COUNTER}&metrics=ym:s:visits&dimensions=ym:s:browser&limit=100000");
    let target = target.replace("dimensions=", &format!("dimensions={}", "ym:s:browser,".repeat(9)));
    let mut stream = begin(&fake, &target);
    let mut first = [0; 1];
    stream.read_exact(&mut first).unwrap();
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(login(&fake).in_parallel, 1);
    // The last byte can be here a moment before the stand-in knows that it was sent, and nothing comes after it.
    stream.sock.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    let (mut bytes, start) = (vec![0; 64 * 1024], Instant::now());
    while login(&fake).in_parallel > 0 {
        let _ = stream.read(&mut bytes);
        assert!(start.elapsed() < Duration::from_secs(60));
    }
}

#[test]
fn rule_2_the_slot_of_a_departed_client_is_occupied_for_a_while() {
    let fake = with(Quota { parallel: Some(1), abandoned: Duration::from_secs(3600), ..Quota::default() });
    assert_eq!(statuses(&fake, COUNTERS, 3), [200; 3], "these were complete");
    fake.turn("slow?ms=60000").unwrap();
    let stream = begin(&fake, COUNTERS);
    until(&fake, 1, |login| login.in_parallel);
    drop(stream);
    until(&fake, 1, |login| login.abandoned);
    fake.turn("slow?ms=0").unwrap();
    assert_eq!(statuses(&fake, COUNTERS, 1), [429]);
    fake.forward(Duration::from_secs(3600));
    assert_eq!(statuses(&fake, COUNTERS, 1), [200]);
    fake.turn("break").unwrap();
    fake.turn("break?after=1&times=1").unwrap();
    let _ = get(&fake, READ, COUNTERS);
    assert_eq!(statuses(&fake, COUNTERS, 1), [200], "it broke the connection itself");
}

#[test]
fn rule_3_the_second_of_an_address_is_full_for_every_token() {
    let fake = with(Quota { by_ip: Some(4), logs_by_ip: Some(2), ..Quota::default() });
    let logs = counter("/logrequests");
    // A whole second of the quotas passes between the groups, however slow the machine is.
    let next = || fake.forward(Duration::from_secs(1));
    let by_ip = (429, "quota_requests_by_ip".to_owned());
    let start = Instant::now();
    let seen = statuses(&fake, &logs, 3);
    let others = [get(&fake, WRITE, COUNTERS).status, get(&fake, "", COUNTERS).status];
    let last = get(&fake, "demo-unknown-000001", COUNTERS);
    if start.elapsed() < Duration::from_secs(1) {
        assert_eq!((seen, others, last.error()), (vec![200, 200, 429], [403, 401], by_ip));
    }
    next();
    assert_eq!(get(&fake, READ, &logs).status, 200);
    let address = fake.quota_use().addresses.into_values().next().unwrap();
    assert!(address.most_in_a_second >= 1 && address.most_logs_in_a_second >= 1, "{address:?}");
}

#[test]
fn rule_4_reports_are_locked_for_five_minutes_and_other_requests_are_not() {
    let fake = with(Quota { reports_5m: Some(2), ..Quota::default() });
    assert_eq!(statuses(&fake, &report("12345678"), 3), [200, 200, 429]);
    assert_eq!(get(&fake, READ, &report("12345678")).error(), (429, "quota_requests_by_uid".to_owned()));
    assert_eq!(statuses(&fake, COUNTERS, 1), [200]);
    assert!((280_000..=300_000).contains(&login(&fake).reports_locked_ms), "{:?}", login(&fake));
    fake.forward(Duration::from_secs(300));
    assert_eq!(statuses(&fake, &report("12345678"), 1), [200]);
    knob(&fake, "quota?reports_5m=1&reports_type=quota_reports&names=documented&status=420");
    assert_eq!(get(&fake, READ, &report("12345678")).error(), (420, "quota_reports".to_owned()));
    assert_eq!(login(&fake).most_reports_5m, 4);
}

#[test]
fn rule_5_the_day_of_a_login_and_of_a_counter_ends_at_midnight() {
    let fake = with(Quota { day: Some(4), counter_day: Some(2), ..Quota::default() });
    knob(&fake, "clock?to=23:00:00");
    assert_eq!(statuses(&fake, &report(&format!("{DEMO_COUNTER},{DEMO_VIEW_COUNTER}")), 1), [200]);
    assert_eq!(statuses(&fake, &report(&DEMO_COUNTER.to_string()), 1), [200]);
    let both = get(&fake, READ, &report(&format!("{DEMO_VIEW_COUNTER},{DEMO_COUNTER}")));
    assert_eq!(both.error(), (429, "quota_requests_by_counter_id".to_owned()));
    assert_eq!(statuses(&fake, &report(&format!("{DEMO_VIEW_COUNTER},{DEMO_VIEW_COUNTER}")), 2), [200, 429]);
    assert_eq!(statuses(&fake, COUNTERS, 2), [200, 429], "refused requests were not charged");
    let counted: Vec<_> = fake.quota_use().counters.values().map(|counter| counter.day).collect();
    assert_eq!((counted, login(&fake).day), (vec![2, 2], 4));
    assert!(knob(&fake, "clock?to=00:00:00")["clock"].as_str().unwrap().contains("T00:00:0"));
    assert_eq!(statuses(&fake, COUNTERS, 1), [200]);
    assert_eq!(login(&fake).day, 1);
}

#[test]
fn rule_6_grants_and_delegates_are_counted_by_the_hour() {
    let mut tokens = demo_tokens();
    tokens[0].scopes = metrica::scope::Scope::ALL.into_iter().collect();
    let quota = Quota { grants: Some(2), delegates: Some(1), ..Quota::default() };
    let fake = Fake::start(Settings { tokens, quota, ..Settings::default() }).unwrap();
    knob(&fake, "clock?to=12:10:00");
    let grant = |login: &str| {
        let body = json!({ "grant": { "user_login": login, "perm": "view" } }).to_string();
        post(&fake, READ, &counter("/grants"), &body)
    };
    assert_eq!([grant("one").status, grant("two").status], [200, 200]);
    assert_eq!(grant("three").error(), (429, "quota_grants_requests".to_owned()));
    let delegate = |login: &str| {
        let body = json!({ "delegate": { "user_login": login } }).to_string();
        post(&fake, READ, "/management/v1/delegates", &body)
    };
    assert_eq!(delegate("one").status, 200);
    assert_eq!(delegate("two").error(), (429, "quota_delegate_requests".to_owned()));
    knob(&fake, "wording?lang=ru");
    assert_eq!(delegate("two").json()["message"], "Превышена квота на количество запросов на добавление представителя");
    knob(&fake, "clock?to=13:00:00");
    assert_eq!([grant("three").status, delegate("two").status], [200, 200]);
    assert_eq!((login(&fake).delegates, fake.quota_use().counters[&DEMO_COUNTER].grants), (1, 1));
}

#[test]
fn rule_7_other_refused_requests_are_charged_to_a_known_login() {
    let fake = fake();
    for (token, target) in [
        (READ, "/management/v1/counter/1"),
        (READ, "/other"),
        (READ, "/management/v1/counter/x"),
        ("demo-unknown-000001", COUNTERS),
        ("", COUNTERS),
        (READ, "/info"),
    ] {
        let _ = get(&fake, token, target);
    }
    fake.turn("fail?error_type=backend_error").unwrap();
    assert_eq!(statuses(&fake, &counter(""), 1), [503]);
    let usage = fake.quota_use();
    assert_eq!((usage.login(OWNER).day, usage.logins.len()), (4, 1));
    assert_eq!(
        usage.counters.into_iter().map(|(id, counter)| (id, counter.day)).collect::<Vec<_>>(),
        [(DEMO_COUNTER, 1)]
    );
}

#[test]
fn a_request_with_ulogin_is_charged_to_the_owner_or_to_the_represented_account() {
    let token = FakeToken { represents: vec!["Shop.Client".to_owned()], ..demo_tokens().remove(0) };
    let fake = Fake::start(Settings { tokens: vec![token], ..Settings::default() }).unwrap();
    let target = |named| format!("{COUNTERS}?ulogin={named}");
    assert_eq!(get(&fake, READ, &target("shop-client")).status, 200);
    knob(&fake, "quota?ulogin=represented");
    assert_eq!(get(&fake, READ, &target("shop-client")).status, 200);
    assert_eq!(get(&fake, READ, &target("somebody")).status, 403);
    let logins: Vec<_> = fake.quota_use().logins.into_iter().map(|(login, counted)| (login, counted.day)).collect();
    assert_eq!(logins, [(OWNER.to_owned(), 2), ("shop-client".to_owned(), 1)]);
}

#[test]
fn rule_8_refused_requests_count_for_the_day_where_it_is_selected() {
    let quota = Quota { reports_5m: Some(1), day: Some(4), refused: RefusedCount::Day, ..Quota::default() };
    let fake = with(quota);
    assert_eq!(statuses(&fake, &report("12345678"), 4), [200, 429, 429, 429]);
    assert_eq!(statuses(&fake, COUNTERS, 1), [429]);
    assert_eq!(login(&fake).day, 5);
}

#[test]
fn rule_9_an_outsider_takes_slots_and_spends() {
    let fake = with(Quota { parallel: Some(2), day: Some(5), ..Quota::default() });
    let lasting = Duration::from_secs(3600);
    fake.outsider("Demo.Owner", &Outsider { slots: Some((2, lasting)), day: 3, ..Outsider::default() });
    assert_eq!(statuses(&fake, COUNTERS, 1), [429]);
    fake.forward(lasting);
    knob(&fake, "clock?to=01:00:00");
    assert_eq!(statuses(&fake, COUNTERS, 1), [200]);
    let state = knob(&fake, "outsider?owner=demo-owner&slots=1&ms=3600000&day=3&counter=7&counter_day=9");
    assert_eq!((&state["outsider_holds"], &state["day"]), (&json!(1), &json!(login(&fake).day)));
    assert_eq!(fake.quota_use().counters[&7].day, 9);
    assert_eq!(statuses(&fake, COUNTERS, 1), [200]);
    assert_eq!(get(&fake, READ, COUNTERS).error(), (429, "quota_requests_by_uid".to_owned()), "the day is spent");
    for (knob, status) in [
        ("outsider?owner=nobody&slots=1", 404),
        ("outsider?slots=1", 400),
        ("outsider?owner=demo-owner&counter_day=1", 400),
    ] {
        assert_eq!(post(&fake, "", &format!("/_fake/{knob}"), "").status, status, "{knob}");
    }
}

#[test]
fn refusals_are_counted_by_limit_and_type() {
    let fake = with(Quota { day: Some(1), ..Quota::default() });
    assert_eq!(statuses(&fake, COUNTERS, 3), [200, 429, 429]);
    let quota = Quota { parallel: Some(0), names: TypeNames::Documented, ..fake.quota() };
    fake.set_quota(quota);
    assert_eq!(get(&fake, READ, COUNTERS).error().1, "quota_parallel_requests");
    let refused = json!({
        "day": { "quota_requests_by_uid": 2 },
        "parallel": { "quota_parallel_requests": 1 },
    });
    assert_eq!(knob(&fake, "quota_use")["refused"], refused);
    assert_eq!(login(&fake).refused, [(Limit::Day, 2), (Limit::Parallel, 1)].into());
    assert!(!knob(&fake, "quota_use").to_string().contains("demo-read"));
}

#[test]
fn knobs_of_the_start_are_turned_again_after_a_reset() {
    let knobs = vec!["quota?day=1".to_owned(), "outsider?owner=demo-owner&day=1".to_owned()];
    let fake = Fake::start(Settings { knobs, ..Settings::default() }).unwrap();
    assert_eq!(statuses(&fake, COUNTERS, 1), [429]);
    knob(&fake, "quota?day=0");
    assert_eq!(statuses(&fake, COUNTERS, 1), [200]);
    knob(&fake, "reset");
    assert_eq!(statuses(&fake, COUNTERS, 1), [429]);
    assert_eq!(fake.quota_use().refused_in_all(), 1);
    for bad in ["quota?paralel=3", "reset", "qouta"] {
        let error = Fake::start(Settings { knobs: vec![bad.to_owned()], ..Settings::default() }).err().unwrap();
        let name = bad.split('?').next().unwrap();
        assert!(error.to_string().starts_with(&format!("{name}: ")), "{error}");
        assert!(error.downcast_ref::<BadKnob>().is_some());
    }
}

#[test]
fn the_state_has_the_quotas_in_force() {
    let fake = with(Quota::documented());
    let state: Value = knob(&fake, "state")["quota"].clone();
    assert_eq!((&state["parallel"], &state["reports_5m"], &state["status"]), (&json!(3), &json!(200), &json!(429)));
}

//! The quota broker in the gate: callers of one account share what Metrica allows, and nobody sees a 429 of Metrica.

use std::time::{Duration, Instant};

use fake_metrica::{Fake, Permission, Quota, Settings};
use metrica::scope::Scope;

use crate::harness::gate::until;
use crate::harness::metrica::token;
use crate::harness::{Answer, Gate};

pub const TOKEN: &str = "y0_canary-of-an-account-with-quota";

pub fn metrica(quota: Quota) -> Fake {
    let token = token(TOKEN, "shop", &[Scope::Read, Scope::Write], &[(101, Permission::Own)]);
    Fake::start(Settings { tokens: vec![token], quota, ..Settings::default() }).unwrap()
}

/// A gate with two callers of one account; `quota` is the key of that name, `greedy` and `polite` those of the callers.
pub fn start(fake: &Fake, quota: &str, greedy: &str, polite: &str) -> Gate {
    let config = config(quota, greedy, polite);
    Gate::plan_for(&fake.address().to_string(), fake.ca_pem(), &config).token("shop", TOKEN).start()
}

/// The configuration of such a gate.
pub fn config(quota: &str, greedy: &str, polite: &str) -> String {
    format!(
        "
listeners:
  - {{name: greedy, address: '127.0.0.1:0'}}
  - {{name: polite, address: '127.0.0.1:0'}}
tokens:
  shop: {{file: '{{folder}}/shop', scopes: [metrika:read, metrika:write], owner: shop}}
callers:
  - {{id: etl, match: {{listener: greedy}}, scopes: [metrika:read, metrika:write], tokens: [shop]{greedy}}}
  - {{id: dash, match: {{listener: polite}}, scopes: [metrika:read, metrika:write], tokens: [shop]{polite}}}
quota: {quota}
"
    )
}

pub fn get(gate: &Gate, listener: &str) -> Answer {
    gate.get(listener, "/management/v1/counter/101/goals")
}

/// Sends `count` requests from each of `threads` callers at once, and returns their statuses.
pub fn flood(gate: &Gate, listener: &str, threads: usize, count: usize) -> Vec<u16> {
    std::thread::scope(|scope| {
        let callers: Vec<_> = (0..threads)
            .map(|_| scope.spawn(|| (0..count).map(|_| get(gate, listener).status).collect::<Vec<_>>()))
            .collect();
        callers.into_iter().flat_map(|caller| caller.join().unwrap()).collect()
    })
}

fn most_in_parallel(fake: &Fake) -> u64 {
    fake.quota_use().login("shop").most_in_parallel
}

fn parallel() -> Quota {
    Quota { parallel: Some(3), ..Quota::default() }
}

#[test]
fn a_greedy_caller_takes_nothing_from_a_polite_one() {
    let fake = metrica(parallel());
    fake.turn("slow?ms=100").unwrap();
    let gate = start(&fake, "{}", "", "");
    let polite = std::thread::scope(|scope| {
        let greedy = scope.spawn(|| flood(&gate, "greedy", 8, 10));
        std::thread::sleep(Duration::from_millis(300));
        let begun = Instant::now();
        let polite = flood(&gate, "polite", 1, 5);
        assert!(begun.elapsed() < Duration::from_secs(4), "it gets its share: {:?}", begun.elapsed());
        assert!(greedy.join().unwrap().iter().all(|status| *status == 200));
        polite
    });
    assert_eq!(polite, [200; 5]);
    assert_eq!((most_in_parallel(&fake), fake.quota_use().refused_by(fake_metrica::Limit::Parallel)), (3, 0));
    assert!(gate.metric(&["quota_wait_seconds_sum", "caller=\"etl\""]) > 1.0);
    assert_eq!(gate.metric(&["quota_in_use", "owner=\"shop\""]), 0.0);
}

/// Without the key, everything is as before.
#[test]
fn without_a_quota_nothing_waits() {
    let fake = metrica(parallel());
    fake.turn("slow?ms=300").unwrap();
    let gate = start(&fake, "{mode: off}", "", "");
    let statuses = flood(&gate, "greedy", 8, 1);
    assert!(statuses.contains(&429) && statuses.contains(&200), "{statuses:?}");
}

#[test]
fn a_request_that_would_wait_too_long_is_refused_at_once_with_an_honest_retry_after() {
    let fake = metrica(parallel());
    fake.turn("slow?ms=2000").unwrap();
    let gate = start(&fake, "{}", "", ", quota: {wait: 200ms}");
    std::thread::scope(|scope| {
        let greedy = scope.spawn(|| flood(&gate, "greedy", 3, 1));
        gate.until_metric(&["quota_in_use", "owner=\"shop\""], 3.0);
        let begun = Instant::now();
        let answer = get(&gate, "polite");
        assert!(begun.elapsed() < Duration::from_millis(1500), "{:?}", begun.elapsed());
        assert_eq!((answer.status, answer.field("x-gate-error")), (429, Some("quota_wait")));
        assert!(answer.text().contains("quota_parallel_requests") && answer.text().contains("parallel"));
        let retry: u64 = answer.field("retry-after").unwrap().parse().unwrap();
        assert!((1..=60).contains(&retry), "{retry}");
        assert_eq!(greedy.join().unwrap(), [200; 3]);
        std::thread::sleep(Duration::from_secs(retry.min(5)));
        assert_eq!(get(&gate, "polite").status, 200);
    });
    assert_eq!(gate.metric(&["quota_refused_total", "caller=\"dash\"", "limit=\"parallel\""]), 1.0);
}

#[test]
fn a_full_queue_refuses() {
    let fake = metrica(parallel());
    fake.turn("slow?ms=1000").unwrap();
    let gate = start(&fake, "{queue: {per_caller: 1}}", "", "");
    let statuses = flood(&gate, "greedy", 8, 1);
    let refused = statuses.iter().filter(|status| **status == 429).count();
    assert_eq!((statuses.len(), refused), (8, 4), "{statuses:?}");
    assert_eq!(get(&gate, "polite").status, 200);
    assert!(gate.log().iter().any(|line| line.contains("quota_full")));
}

#[test]
fn a_caller_has_a_budget_of_its_own() {
    let fake = metrica(Quota::default());
    let gate = start(&fake, "{}", ", quota: {per_day: 2}", "");
    let answers: Vec<_> = (0..3).map(|_| get(&gate, "greedy")).collect();
    let last = answers.last().unwrap();
    assert_eq!(answers.iter().map(|answer| answer.status).collect::<Vec<_>>(), [200, 200, 429]);
    assert_eq!(last.field("x-gate-error"), Some("quota_budget"));
    assert!(last.field("retry-after").unwrap().parse::<u64>().unwrap() >= 1);
    assert_eq!(get(&gate, "polite").status, 200, "others have what is left");
}

/// Another client uses slots: Metrica refuses, the gate learns, and the caller does not notice.
#[test]
fn a_refusal_of_metrica_is_learnt_and_the_request_sent_again() {
    let fake = metrica(parallel());
    fake.turn("slow?ms=100").unwrap();
    fake.turn("outsider?owner=shop&slots=2&ms=3000").unwrap();
    let gate = start(&fake, "{}", "", "");
    let statuses = flood(&gate, "greedy", 3, 4);
    assert!(statuses.iter().all(|status| *status == 200), "{statuses:?}");
    assert!(gate.metric(&["quota_resent_total"]) >= 1.0);
    assert!(gate.metric(&["metrika_gate_resent_total", "reason=\"quota\""]) >= 1.0);
    assert!(gate.metric(&["quota_learned_total", "limit=\"parallel\""]) >= 1.0);
    assert!(fake.quota_use().refused_by(fake_metrica::Limit::Parallel) <= 4);
    let line = gate.log().into_iter().find(|line| line.contains("\"resent\":1"));
    assert!(line.is_some());
}

/// A request that acts is not sent again; its caller gets Metrica's refusal with a Retry-After.
#[test]
fn a_refused_write_passes_with_a_retry_after() {
    let fake = metrica(parallel());
    fake.turn("outsider?owner=shop&slots=3&ms=2000").unwrap();
    let gate = start(&fake, "{}", "", "");
    let answer = gate.send(
        "greedy",
        "POST /management/v1/counter/101/undelete HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n",
    );
    assert_eq!((answer.status, answer.field("x-gate-error")), (429, None));
    assert!(answer.field("retry-after").unwrap().parse::<u64>().unwrap() >= 1);
    assert_eq!(fake.heard().iter().filter(|line| line.contains("undelete")).count(), 1);
}

/// Requests that wait are refused when the gate stops, and are not lost in silence.
#[test]
fn waiting_requests_are_refused_when_the_gate_stops() {
    let fake = metrica(parallel());
    fake.turn("slow?ms=3000").unwrap();
    let gate = start(&fake, "{}", "", "");
    std::thread::scope(|scope| {
        let greedy = scope.spawn(|| flood(&gate, "greedy", 3, 1));
        gate.until_metric(&["quota_in_use", "owner=\"shop\""], 3.0);
        let polite = scope.spawn(|| get(&gate, "polite"));
        until("it waits", || gate.metric(&["quota_waiting", "caller=\"dash\""]) == 1.0);
        let begun = Instant::now();
        gate.signal("TERM");
        let answer = polite.join().unwrap();
        assert_eq!((answer.status, answer.field("x-gate-error")), (503, Some("quota_draining")));
        assert!(begun.elapsed() < Duration::from_millis(2500), "at once: {:?}", begun.elapsed());
        assert_eq!(greedy.join().unwrap(), [200; 3], "requests that were sent end as usual");
    });
}

#[test]
fn a_caller_that_leaves_leaves_the_queue() {
    let fake = metrica(parallel());
    fake.turn("slow?ms=1500").unwrap();
    let gate = start(&fake, "{}", "", "");
    std::thread::scope(|scope| {
        let greedy = scope.spawn(|| flood(&gate, "greedy", 3, 1));
        gate.until_metric(&["quota_in_use", "owner=\"shop\""], 3.0);
        let mut caller = gate.connect("polite");
        caller.send("GET /management/v1/counter/101/goals HTTP/1.1\r\nHost: localhost\r\n\r\n");
        until("it waits", || gate.metric(&["quota_waiting", "caller=\"dash\""]) == 1.0);
        drop(caller);
        until("it left", || gate.metric(&["quota_waiting", "caller=\"dash\""]) == 0.0);
        assert_eq!(greedy.join().unwrap(), [200; 3]);
    });
    assert!(!fake.heard().iter().skip(3).any(|line| line.contains("goals")), "nothing was sent for it");
    gate.until_metric(&["quota_in_use", "owner=\"shop\""], 0.0);
}

#[test]
fn the_state_is_on_the_admin_listener_and_holds_no_secret() {
    let fake = metrica(Quota::default());
    let gate = start(&fake, "{limits: {parallel: 2, day: {limit: 100, mode: observe}}}", "", "");
    assert_eq!(get(&gate, "greedy").status, 200);
    let page = gate.admin("/quota");
    assert_eq!((page.status, page.field("content-type")), (200, Some("application/json")));
    let state: serde_json::Value = serde_json::from_str(&page.text()).unwrap();
    let owner = &state["owners"][0];
    assert_eq!((owner["owner"].as_str(), owner["callers"][0]["caller"].as_str()), (Some("shop"), Some("etl")));
    let limit =
        |name: &str| owner["limits"].as_array().unwrap().iter().find(|one| one["limit"] == name).unwrap().clone();
    assert_eq!((limit("parallel")["allowed"].as_u64(), limit("day")["mode"].as_str()), (Some(2), Some("observe")));
    assert_eq!(limit("day")["used"].as_u64(), Some(1));
    assert!(!page.text().contains("canary"));
}

/// The gate's own requests are charged too, and wait like others.
#[test]
fn own_requests_are_charged() {
    let fake = metrica(parallel());
    let gate = start(&fake, "{}", "", "");
    assert_eq!(gate.get("polite", "/management/v1/counter/999/goals").status, 403);
    until("it asked why", || gate.metric(&["own_requests_total", "purpose=\"follow_up\""]) >= 1.0);
    until("it is charged", || gate.metric(&["quota_spent_total", "caller=\"none\""]) >= 1.0);
}

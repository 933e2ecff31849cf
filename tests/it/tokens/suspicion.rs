//! Suspected tokens: which requests wait, how probes are judged, their intervals, and the triggers of another probe.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::harness::gate::until;
use crate::harness::{Answer, Caller, Gate, TWO_CALLERS, Upstream};

const COUNTERS: &str = "/management/v1/counters";
const COUNTER: &str = "/management/v1/counter/105";
const INVALID: &str = r#"{"errors":[{"error_type":"invalid_token","message":"m"}],"code":403,"message":"m"}"#;
const DENIED: &str = r#"{"errors":[{"error_type":"access_denied","message":"m"}],"code":403,"message":"m"}"#;
const LIST: &str = r#"{"rows":0,"counters":[]}"#;

/// An answer: status line, type, body, and how long it takes.
type Said = (&'static str, &'static str, &'static str, Duration);

const fn json(status: &'static str, body: &'static str) -> Said {
    (status, "application/json", body, Duration::ZERO)
}

const PAGE: Said = ("200 OK", "text/html", "<html>log in to the network</html>", Duration::ZERO);
const BALANCER: Said = ("401 Unauthorized", "text/html", "<html>401</html>", Duration::ZERO);
const REJECTS: Said = json("403 Forbidden", INVALID);
const ACCEPTS: Said = json("200 OK", LIST);

/// The gate's own questions have no id.
fn is_own(head: &str) -> bool {
    !head.to_lowercase().contains("x-request-id")
}

/// A Metrica that answers the gate's own questions with `probe`, and requests of callers for a counter with `counter`.
fn metrica(
    probe: impl Fn(&str) -> Said + Send + Sync + 'static,
    counter: impl Fn() -> Said + Send + Sync + 'static,
) -> Upstream {
    Upstream::run(move |conversation| {
        while let Some(head) = conversation.request_head() {
            let (status, kind, body, pause) = match (is_own(&head), head.contains("/counter/")) {
                (true, _) => probe(&head),
                (false, true) => counter(),
                (false, false) => ACCEPTS,
            };
            std::thread::sleep(pause);
            conversation.answer(status, kind, body);
        }
    })
}

fn start(upstream: &Upstream, more: &str) -> Gate {
    Gate::start(upstream, &format!("{TWO_CALLERS}\n{more}\n"))
}

fn state(gate: &Gate, token: &str) -> String {
    let states = gate.metrics(&["metrika_gate_token_state", &format!("token=\"{token}\"")]);
    let line = states.iter().find(|line| line.ends_with(" 1")).cloned().unwrap_or_default();
    line.split("state=\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap_or_default().to_owned()
}

fn said(answer: &Answer) -> String {
    format!("{} {}", answer.status, answer.field("x-gate-reason").unwrap_or("none"))
}

fn questions(upstream: &Upstream) -> usize {
    upstream.requests().iter().filter(|head| is_own(head)).count()
}

/// A balancer's 401, whatever it contains, is not Metrica's verdict on a token.
#[test]
fn a_balancer_suspends_no_token() {
    let upstream = metrica(|_| BALANCER, || BALANCER);
    let gate = start(&upstream, "");
    assert_eq!(said(&gate.get("app", COUNTER)), "401 other");
    until("it was asked", || questions(&upstream) == 1);
    until("it is suspect", || state(&gate, "analytics") == "suspect");
    for _ in 0..20 {
        assert_eq!(gate.get("app", COUNTERS).status, 200);
        assert_eq!(said(&gate.get("app", COUNTER)), "401 other");
    }
    assert_eq!(
        (state(&gate, "analytics").as_str(), questions(&upstream)),
        ("healthy", 1),
        "its successes are evidence"
    );
}

/// The page of a captive portal accepts no token.
#[test]
fn a_captive_portal_takes_no_token_back() {
    let is_portal = Arc::new(AtomicUsize::new(0));
    let stage = is_portal.clone();
    let probe = move |_: &str| match stage.load(Ordering::SeqCst) {
        0 => REJECTS,
        1 => PAGE,
        _ => ACCEPTS,
    };
    let upstream = metrica(probe, || REJECTS);
    let gate = start(&upstream, "token_health: {probe_after: 200ms, probe_at_most: 200ms}");
    assert_eq!(said(&gate.get("app", COUNTER)), "403 token_invalid");
    assert_eq!(said(&gate.get("app", COUNTERS)), "503 token_suspended");
    is_portal.store(1, Ordering::SeqCst);
    let before = questions(&upstream);
    until("the portal has answered", || questions(&upstream) >= before + 4);
    assert_eq!(state(&gate, "analytics"), "suspended");
    is_portal.store(2, Ordering::SeqCst);
    until("it is taken back", || state(&gate, "analytics") == "healthy");
    assert_eq!(gate.get("app", COUNTERS).status, 200);
}

/// Only the refused request waits for the probe, for a second.
#[test]
fn only_the_refused_request_waits() {
    let slow = ("200 OK", "application/json", LIST, Duration::from_secs(4));
    let upstream = metrica(move |_| slow, || REJECTS);
    let gate = start(&upstream, "");
    let mut refused = gate.connect("app");
    let begun = Instant::now();
    refused.send(format!("GET {COUNTER} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
    until("it is asked about", || questions(&upstream) == 1);
    for _ in 0..10 {
        let others = Instant::now();
        assert_eq!(gate.get("app", COUNTERS).status, 200);
        assert!(others.elapsed() < Duration::from_millis(700), "{:?}", others.elapsed());
    }
    assert_eq!(said(&refused.answer()), "403 token_invalid", "nothing was concluded in a second");
    let waited = begun.elapsed();
    assert!(waited > Duration::from_millis(950) && waited < Duration::from_secs(3), "{waited:?}");
}

/// A token that works before and after a refusal is not invalid, though nothing was asked.
#[test]
fn a_refusal_between_successes_is_disproved_by_them() {
    let upstream = metrica(|_| REJECTS, || REJECTS);
    let gate = start(&upstream, "");
    assert_eq!(gate.get("app", COUNTERS).status, 200);
    assert_eq!(said(&gate.get("app", COUNTER)), "403 token_invalid");
    until("its successes disprove it", || {
        assert_eq!(gate.get("app", COUNTERS).status, 200);
        said(&gate.get("app", COUNTER)) == "403 other"
    });
    assert_eq!((state(&gate, "analytics").as_str(), questions(&upstream)), ("healthy", 0));
}

/// A proof that the token works is believed for ten seconds.
#[test]
fn a_token_that_has_just_worked_is_not_suspected() {
    let upstream = metrica(|_| REJECTS, || REJECTS);
    let gate = start(&upstream, "");
    assert_eq!(gate.get("app", COUNTERS).status, 200);
    for _ in 0..5 {
        assert_eq!(said(&gate.get("app", COUNTER)), "403 token_invalid");
    }
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!((state(&gate, "analytics").as_str(), questions(&upstream)), ("healthy", 0));
}

/// After a long time too, a fix does not have to wait for the next probe.
#[test]
fn sighup_a_write_of_the_file_and_recheck_make_it_look_again() {
    let works = Arc::new(AtomicBool::new(false));
    let now = works.clone();
    let upstream = metrica(move |_| if now.load(Ordering::SeqCst) { ACCEPTS } else { REJECTS }, || REJECTS);
    let config = "token_health: {probe_after: 1h}\nadmin: {address: '127.0.0.1:0', recheck: true}";
    let gates = [start(&upstream, config), start(&upstream, config), start(&upstream, config)];
    for gate in &gates {
        assert_eq!(said(&gate.get("app", COUNTER)), "403 token_invalid");
        let refused = gate.get("app", COUNTERS);
        assert_eq!(said(&refused), "503 token_suspended");
        let left: u64 = refused.field("retry-after").unwrap().parse().unwrap();
        assert!((280..=300).contains(&left), "five minutes at most, whatever is configured: {left}");
    }
    // A write is detected by comparison with the first reading of the file.
    std::thread::sleep(Duration::from_secs(1));
    works.store(true, Ordering::SeqCst);
    let [hangup, rewrite, recheck] = &gates;
    hangup.signal("HUP");
    let file = rewrite.file("analytics");
    let same = std::fs::read(&file).unwrap();
    std::fs::write(&file, same).unwrap();
    assert_eq!(recheck_with(recheck, "Host: localhost\r\n").status, 202);
    for (gate, what) in gates.iter().zip(["SIGHUP", "the same token is written again", "recheck"]) {
        until(what, || gate.get("app", COUNTERS).status == 200);
    }
}

fn recheck_with(gate: &Gate, fields: &str) -> Answer {
    let mut caller = Caller::connect(gate.admin_place());
    caller.send(format!("POST /recheck HTTP/1.1\r\n{fields}Content-Length: 0\r\n\r\n"));
    caller.answer()
}

/// R-21: it is available only if switched on, not to web pages, and once a minute.
#[test]
fn recheck_is_off_unless_it_is_wanted_and_is_for_no_page() {
    let upstream = metrica(|_| ACCEPTS, || ACCEPTS);
    let off = start(&upstream, "");
    let answer = recheck_with(&off, "Host: localhost\r\n");
    assert_eq!((answer.status, answer.field("allow")), (405, Some("GET, HEAD")));
    let on = start(&upstream, "admin: {address: '127.0.0.1:0', recheck: true}");
    for fields in [
        "Host: evil.example\r\n",
        "Host: localhost\r\nOrigin: null\r\n",
        "Host: localhost\r\nSec-Fetch-Site: same-origin\r\n",
    ] {
        assert_eq!(recheck_with(&on, fields).status, 403, "{fields}");
    }
    assert_eq!(recheck_with(&on, "Host: 127.0.0.1:9090\r\n").status, 202);
    let again = recheck_with(&on, "Host: localhost\r\n");
    assert_eq!(again.status, 429);
    assert!(again.field("retry-after").unwrap().parse::<u64>().unwrap() <= 60);
    let post = |path: &str| format!("POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n");
    let mut caller = Caller::connect(on.admin_place());
    caller.send(post("/metrics"));
    assert_eq!(caller.answer().status, 405, "nothing else");
    assert_eq!(on.send("app", post("/recheck")).status, 404, "not where callers are");
    assert_eq!(on.get("app", COUNTERS).status, 200);
}

const OWNERS: &str = "
tokens:
  analytics: {file: '{folder}/analytics', scopes: [metrika:read], owner: shop}
  crm: {file: '{folder}/crm', scopes: [metrika:write], owner: other}";

fn write() -> String {
    "POST /management/v1/counter/1/undelete HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n".to_owned()
}

/// Tokens of two accounts are hardly revoked in the same minute; and when one is accepted again, so are the others.
#[test]
fn tokens_of_two_owners_that_fail_together_are_an_outage() {
    let works = Arc::new(AtomicBool::new(false));
    let now = works.clone();
    let upstream = metrica(move |_| if now.load(Ordering::SeqCst) { ACCEPTS } else { REJECTS }, || REJECTS);
    let gate = start(&upstream, &format!("{OWNERS}\ntoken_health: {{probe_after: 1h}}"));
    assert_eq!(said(&gate.get("app", COUNTER)), "403 token_invalid");
    let suspended = gate.get("app", COUNTERS);
    assert_eq!(said(&suspended), "503 token_suspended", "of one owner, it is that one's");
    let (hint, next) = (suspended.field("x-gate-hint").unwrap(), suspended.field("retry-after").unwrap());
    assert!(hint.contains("It has been suspended since 20"), "{hint}");
    assert!(hint.ends_with(&format!("Z, and the gate probes again in {next} s.")), "{hint}");
    assert!(suspended.text().contains(hint), "{}", suspended.text());
    assert_eq!(said(&gate.send("crm", write())), "403 token_invalid");
    assert_eq!(said(&gate.get("app", COUNTERS)), "503 outage");
    assert_eq!(said(&gate.send("crm", write())), "503 outage");
    assert_eq!((state(&gate, "analytics"), state(&gate, "crm")), ("outage".to_owned(), "outage".to_owned()));
    gate.until_log(&["rejects tokens of several accounts", "\"token\":\"crm\""]);
    std::thread::sleep(Duration::from_secs(1));
    works.store(true, Ordering::SeqCst);
    // This makes the gate probe only one token again.
    let file = gate.file("analytics");
    std::fs::write(&file, std::fs::read(&file).unwrap()).unwrap();
    until("both are accepted", || state(&gate, "analytics") == "healthy" && state(&gate, "crm") == "healthy");
}

/// Two tokens of one account die of one changed password.
#[test]
fn tokens_of_one_owner_that_fail_together_are_no_outage() {
    let upstream = metrica(|_| REJECTS, || REJECTS);
    let gate = start(&upstream, &OWNERS.replace("other", "shop"));
    assert_eq!(said(&gate.get("app", COUNTER)), "403 token_invalid");
    assert_eq!(said(&gate.send("crm", write())), "403 token_invalid");
    assert_eq!(said(&gate.get("app", COUNTERS)), "503 token_suspended");
    assert_eq!((state(&gate, "analytics"), state(&gate, "crm")), ("suspended".to_owned(), "suspended".to_owned()));
}

/// A standby that is dead is known before it is needed.
#[test]
fn a_standby_is_asked_about_while_all_is_well() {
    let upstream = metrica(|head| if head.contains("canaryWRITE") { REJECTS } else { ACCEPTS }, || ACCEPTS);
    let tokens = "
tokens:
  analytics: {file: '{folder}/analytics', scopes: [metrika:read], owner: shop, standby: crm}
  crm: {file: '{folder}/crm', scopes: [metrika:read, metrika:write], owner: shop}
token_health: {probe_after: 300ms}";
    let gate = start(&upstream, tokens);
    until("it is known", || state(&gate, "crm") == "suspended");
    assert_eq!((state(&gate, "analytics"), gate.get("app", COUNTERS).status), ("healthy".to_owned(), 200));
}

/// The gate's own requests are counted, from the start.
#[test]
fn own_requests_are_counted_by_purpose() {
    let probe = |head: &str| if head.contains("/counter/") { json("403 Forbidden", DENIED) } else { ACCEPTS };
    let is_denied = Arc::new(AtomicBool::new(false));
    let denies = is_denied.clone();
    let counter = move || if denies.load(Ordering::SeqCst) { json("403 Forbidden", DENIED) } else { REJECTS };
    let upstream = metrica(probe, counter);
    let gate = start(&upstream, "");
    let own = |purpose: &str| gate.metric(&["own_requests_total", &format!("purpose=\"{purpose}\"")]);
    assert_eq!(gate.metrics(&["own_requests_total"]).len(), 5, "there from the start");
    assert_eq!((own("token_probe"), own("follow_up"), own("identity")), (0.0, 0.0, 0.0));
    assert_eq!(said(&gate.get("app", COUNTER)), "403 other");
    until("the probe is counted", || own("token_probe") >= 1.0);
    is_denied.store(true, Ordering::SeqCst);
    until("it is known", || said(&gate.get("app", COUNTER)) == "403 counter_not_granted");
    gate.until_metric(&["own_requests_total", "purpose=\"follow_up\""], 2.0);
    until("and it stays so", || said(&gate.get("app", COUNTER)) == "403 counter_not_granted");
    assert_eq!((own("token_probe"), own("follow_up")), (1.0, 2.0), "the counter and the list");
}

/// A list of counters that a token was shown before needs no grant: where it is denied, the token is no longer accepted, whatever
/// Metrica calls that.
#[test]
fn a_denial_of_an_earlier_success_is_probed() {
    for (rejects, suspends) in [(REJECTS, true), (json("403 Forbidden", DENIED), true), (ACCEPTS, false)] {
        let is_over = Arc::new(AtomicBool::new(false));
        let over = is_over.clone();
        let upstream = Upstream::run(move |conversation| {
            while let Some(head) = conversation.request_head() {
                let (status, kind, body, _) = match (over.load(Ordering::SeqCst), is_own(&head)) {
                    (false, _) => ACCEPTS,
                    (true, true) => rejects,
                    (true, false) => json("403 Forbidden", DENIED),
                };
                conversation.answer(status, kind, body);
            }
        });
        let gate = start(&upstream, "token_health: {probe_after: 300ms}");
        assert_eq!(gate.get("app", COUNTERS).status, 200);
        is_over.store(true, Ordering::SeqCst);
        // A moment later, and the first one that is refused.
        let expected = if suspends { "403 token_invalid" } else { "403 request_refused" };
        assert_eq!(said(&gate.get("app", COUNTERS)), expected);
        assert_eq!(questions(&upstream), 1);
        if suspends {
            until("a second probe has said so", || said(&gate.get("app", COUNTERS)) == "503 token_suspended");
            is_over.store(false, Ordering::SeqCst);
            until("it is taken back", || gate.get("app", COUNTERS).status == 200);
        } else {
            for _ in 0..20 {
                assert_eq!(said(&gate.get("app", COUNTERS)), expected);
            }
            assert_eq!((state(&gate, "analytics").as_str(), questions(&upstream)), ("healthy", 1), "it is quiet now");
        }
    }
}

/// A report that was answered, and is denied then, is examined before its reason is reported.
#[test]
fn a_denial_of_a_report_that_was_answered_before_is_asked_about() {
    let is_over = Arc::new(AtomicBool::new(false));
    let over = is_over.clone();
    let upstream = Upstream::run(move |conversation| {
        while let Some(head) = conversation.request_head() {
            let (status, kind, body, _) = match (over.load(Ordering::SeqCst), is_own(&head)) {
                (false, _) => ACCEPTS,
                (true, true) => REJECTS,
                (true, false) => json("403 Forbidden", DENIED),
            };
            conversation.answer(status, kind, body);
        }
    });
    let gate = start(&upstream, "token_health: {probe_after: 300ms}");
    let report = "/stat/v1/data?ids=105&metrics=ym:s:visits";
    until("every worker knows", || (0..20).all(|_| gate.get("app", report).status == 200));
    is_over.store(true, Ordering::SeqCst);
    assert_eq!(said(&gate.get("app", report)), "403 token_invalid");
    until("it is suspended", || said(&gate.get("app", report)) == "503 token_suspended");
}

/// A counter that is gone is not there for its owner either.
#[test]
fn a_counter_that_is_gone_is_known() {
    let absent = r#"{"errors":[{"error_type":"not_found","message":"Entity not found"}],"code":404,"message":"m"}"#;
    let probe = move |head: &str| if head.contains("/counter/") { json("404 Not Found", absent) } else { ACCEPTS };
    let upstream = metrica(probe, || json("403 Forbidden", DENIED));
    let gate = start(&upstream, "");
    let report = "POST /management/v1/counter/105/goals HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n";
    until("it is known", || said(&gate.send("crm", report)) == "403 counter_not_granted");
}

/// The reason changes after the owner is given access and the gate is told.
#[test]
fn a_reason_changes_when_its_cause_does() {
    let sees = Arc::new(AtomicBool::new(false));
    let now = sees.clone();
    let view = r#"{"counter":{"permission":"view"}}"#;
    let probe = move |head: &str| match (head.contains("/counter/"), now.load(Ordering::SeqCst)) {
        (false, _) => ACCEPTS,
        (true, false) => json("403 Forbidden", DENIED),
        (true, true) => json("200 OK", view),
    };
    let upstream = metrica(probe, || json("403 Forbidden", DENIED));
    let gate = start(&upstream, "");
    let reason = || said(&gate.send("crm", write()));
    until("it is known", || reason() == "403 counter_not_granted");
    sees.store(true, Ordering::SeqCst);
    let asked = questions(&upstream);
    for _ in 0..20 {
        assert_eq!(reason(), "403 counter_not_granted");
    }
    assert_eq!(questions(&upstream), asked, "not with every refusal");
    std::thread::sleep(Duration::from_secs(10));
    gate.signal("HUP");
    until("it was asked again", || reason() == "403 counter_view_only");
}

/// Nor does such a page prove that a token works, where a caller gets it.
#[test]
fn a_page_proves_nothing() {
    let upstream = Upstream::run(|conversation| {
        while let Some(head) = conversation.request_head() {
            let (status, kind, body, _) = if head.contains("/counter/") || is_own(&head) { REJECTS } else { PAGE };
            conversation.answer(status, kind, body);
        }
    });
    let gate = start(&upstream, "");
    assert_eq!(gate.get("app", COUNTERS).status, 200);
    assert_eq!(said(&gate.get("app", COUNTER)), "403 token_invalid");
    assert_eq!(said(&gate.get("app", COUNTERS)), "503 token_suspended");
}

/// A question that hangs does not keep the next one of its token waiting for minutes.
#[test]
fn a_question_that_hangs_is_given_up() {
    let hangs = ("200 OK", "application/json", "{}", Duration::from_secs(40));
    let is_rejected = Arc::new(AtomicBool::new(false));
    let now = is_rejected.clone();
    let upstream = metrica(
        move |head| if head.contains("/accounts") { hangs } else { REJECTS },
        move || if now.load(Ordering::SeqCst) { REJECTS } else { json("403 Forbidden", DENIED) },
    );
    let gate = start(&upstream, "");
    assert_eq!(said(&gate.get("app", &format!("{COUNTER}?ulogin=partner"))), "403 ambiguous");
    until("it is asked whom the owner represents", || questions(&upstream) == 1);
    is_rejected.store(true, Ordering::SeqCst);
    assert_eq!(said(&gate.get("app", COUNTER)), "403 token_invalid");
    until("the next question has its turn", || state(&gate, "analytics") == "suspended");
}

//! Requests that wait for their turn while the configuration or a token changes: they leave with what holds then, or not at
//! all.

use std::thread::ScopedJoinHandle;

use fake_metrica::{Fake, Permission, Quota, Settings};
use metrica::scope::Scope;

use super::sharing::{TOKEN, config, get};
use crate::harness::gate::until;
use crate::harness::metrica::token;
use crate::harness::{Answer, Gate};

const NEW_TOKEN: &str = "y0_canary-of-an-account-after-a-change";
const OWN: &str = "/management/v1/counter/101/filters";

/// Metrica with two tokens of one account, and slow goals.
fn metrica() -> Fake {
    let token = |secret| token(secret, "shop", &[Scope::Read, Scope::Write], &[(101, Permission::Own)]);
    let quota = Quota { parallel: Some(3), ..Quota::default() };
    let tokens = vec![token(TOKEN), token(NEW_TOKEN)];
    let fake = Fake::start(Settings { tokens, quota, ..Settings::default() }).unwrap();
    fake.turn("slow?ms=2500&path=/management/v1/counter/101/goals").unwrap();
    fake
}

/// A gate where `slow` requests have their turn and one of the caller `dash` waits for its own; `change` is made meanwhile.
/// Returns the answer to the one that waited.
fn while_one_waits(fake: &Fake, slow: usize, polite: &str, change: impl FnOnce(&Gate)) -> (Gate, Answer) {
    let config = config("{}", "", polite);
    let gate = Gate::plan_for(&fake.address().to_string(), fake.ca_pem(), &config).token("shop", TOKEN).start();
    let answer = std::thread::scope(|scope| {
        let greedy: Vec<ScopedJoinHandle<'_, u16>> =
            (0..slow).map(|_| scope.spawn(|| get(&gate, "greedy").status)).collect();
        until("the slow ones are at Metrica", || fake.requests() == u64::try_from(slow).unwrap());
        let waits = scope.spawn(|| gate.get("polite", OWN));
        gate.until_metric(&["quota_waiting", "caller=\"dash\""], 1.0);
        change(&gate);
        assert_eq!(gate.metric(&["quota_waiting", "caller=\"dash\""]), 1.0, "it still waits");
        for greedy in greedy {
            assert_eq!(greedy.join().unwrap(), 200, "what has left has left");
        }
        waits.join().unwrap()
    });
    gate.until_metric(&["quota_in_use", "owner=\"shop\""], 0.0);
    (gate, answer)
}

fn reload(gate: &Gate, from: &str, to: &str) {
    let config = gate.config();
    assert!(config.contains(from), "{config}");
    gate.replace_config(&config.replace(from, to));
    gate.signal("HUP");
    gate.until_log(&["configuration reloaded"]);
}

fn was_sent(fake: &Fake) -> bool {
    fake.heard().iter().any(|line| line.contains(OWN))
}

#[test]
fn a_token_that_was_replaced_is_sent_no_more() {
    let fake = metrica();
    let (gate, answer) = while_one_waits(&fake, 3, "", |gate| {
        // A request with the old one would be refused.
        assert!(fake.revoke(TOKEN));
        gate.replace_token("shop", NEW_TOKEN);
        gate.until_log(&["token reloaded"]);
    });
    assert_eq!(answer.summary(), "200");
    assert!(was_sent(&fake));
    assert_eq!(gate.metric(&["auth_failures_total"]), 0.0);
}

#[test]
fn a_token_that_is_gone_is_not_sent() {
    let fake = metrica();
    let (_gate, answer) = while_one_waits(&fake, 3, "", |gate| {
        std::fs::remove_file(gate.file("shop")).unwrap();
        gate.until_log(&["the token file was removed"]);
    });
    assert_eq!(answer.summary(), "503 token_unavailable");
    assert!(!was_sent(&fake));
}

#[test]
fn what_a_caller_may_no_more_is_refused() {
    const BEFORE: &str = "id: dash, match: {listener: polite}, scopes: [metrika:read, metrika:write]";
    for (to, expected) in [
        ("id: dash, match: {listener: polite}, scopes: [metrika:write]", "403 scope_denied"),
        (
            "id: dash, match: {listener: polite}, counters: [102], scopes: [metrika:read, metrika:write]",
            "403 counter_denied",
        ),
        ("id: dash, match: {source: [192.0.2.7]}, scopes: [metrika:read, metrika:write]", "401 unknown_caller"),
    ] {
        let fake = metrica();
        let (gate, answer) = while_one_waits(&fake, 3, "", |gate| reload(gate, BEFORE, to));
        assert_eq!(answer.summary(), expected);
        assert!(!was_sent(&fake), "{expected}");
        let state: serde_json::Value = serde_json::from_str(&gate.admin("/quota").text()).unwrap();
        let limits = state["owners"][0]["limits"].as_array().unwrap();
        let day = limits.iter().find(|limit| limit["limit"] == "day").unwrap();
        assert_eq!(day["used"].as_u64(), Some(3), "a refused request takes nothing: {expected}");
    }
}

/// A batch caller leaves the last slot to others, so it waits while a request of another caller finds that the token is
/// rejected.
#[test]
fn a_token_that_was_suspended_is_not_sent() {
    let fake = metrica();
    let (_gate, answer) = while_one_waits(&fake, 2, ", quota: {class: batch}", |gate| {
        assert!(fake.revoke(TOKEN));
        assert_eq!(gate.get("greedy", "/management/v1/counters").status, 403);
        gate.until_metric(&["token_state{token=\"shop\",state=\"suspended\"}"], 1.0);
    });
    assert_eq!(answer.summary(), "503 token_suspended");
    assert!(!was_sent(&fake));
}

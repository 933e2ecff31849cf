//! A fleet whose calls, answers and connections are lost, on real stores.

use super::fleet_orders::MOST_TOLD;
use super::fleet_tests::{Fleet, NOON, ask, outcome};
use super::servers::SERVERS;
use super::*;

/// The call that tells of two ends is lost, or only its answer: both are told again, and count once.
#[test]
fn what_a_lost_call_told_is_told_again_and_counts_once() {
    for server in SERVERS {
        for arrives in [false, true] {
            let mut fleet = Fleet::new(server);
            let [unsent, refused] = [0, 1].map(|_| fleet.ask(0, ask(0, 1)).unwrap());
            let now = fleet.now;
            let _ = fleet.brokers[0].finish(unsent, now, outcome(0));
            let _ = fleet.brokers[0].finish(refused, now, outcome(1));
            fleet.lose(0, arrives);
            for _ in 0..2 {
                fleet.call(0);
                let day = format!("{{gate}}:o:shop:day:{}", NOON / 86_400);
                let [day, fewer]: [Option<u32>; 2] = [[day.as_str(), ""], ["{gate}:o:shop:learned", "fewer"]]
                    .map(|[key, field]| fleet.store.ask(&["HGET", key, field]));
                assert_eq!((day, fewer), (Some(1), Some(1)), "the request that was sent, and one slot fewer");
                let stamps: u32 = fleet.store.ask(&["ZCARD", "{gate}:o:shop:reports"]);
                assert_eq!(stamps, 1);
            }
        }
    }
}

/// Workers end requests while a call is under way; its answer is no answer to that.
#[test]
fn what_ends_during_a_call_is_told_by_the_next_one() {
    for server in SERVERS {
        let mut fleet = Fleet::new(server);
        let [unsent, refused] = [0, 1].map(|_| fleet.ask(0, ask(0, 1)).unwrap());
        let now = fleet.now;
        let call = fleet.begin_call(0).unwrap();
        let _ = fleet.brokers[0].finish(unsent, now, outcome(0));
        let _ = fleet.brokers[0].finish(refused, now, outcome(1));
        fleet.end_call(0, &call);
        fleet.call(0);
        let day = format!("{{gate}}:o:shop:day:{}", NOON / 86_400);
        let [day, fewer]: [Option<u32>; 2] = [[day.as_str(), ""], ["{gate}:o:shop:learned", "fewer"]]
            .map(|[key, field]| fleet.store.ask(&["HGET", key, field]));
        assert_eq!((day, fewer), (Some(1), Some(1)), "the request that was sent, and one slot fewer");
    }
}

/// An order that is too old is not told again, and neither are too many.
#[test]
fn what_is_told_again_is_bounded() {
    let mut fleet = Fleet::new(SERVERS[0]);
    let lose = |fleet: &mut Fleet, count: usize| {
        for _ in 0..count {
            // The address has room again.
            fleet.now.at += 90_000;
            let now = fleet.now;
            let wish = fleet.request(0, "one", Groups::CLIENT_READ, 0);
            let Answer::Granted(lease) = fleet.brokers[0].ask(now, wish) else { panic!("the gate uses its part") };
            let _ = fleet.brokers[0].finish(lease, now, outcome(0));
        }
        serde_json::to_value(fleet.brokers[0].call(fleet.now).unwrap()).unwrap()["leave"].as_array().map_or(0, Vec::len)
    };
    fleet.brokers[0].store_is_away(fleet.now);
    assert_eq!(lose(&mut fleet, 2), 2);
    fleet.now.at += 61 * SECOND;
    assert_eq!(lose(&mut fleet, 1), 1);
    assert_eq!(lose(&mut fleet, 600), MOST_TOLD);
}

/// Its slot remains in use for 5 seconds, also if its gate loses its connection meanwhile.
#[test]
fn an_abandoned_request_keeps_its_slot_over_a_lost_connection() {
    for server in SERVERS {
        let mut fleet = Fleet::new(server);
        let [one, two, three] = [0, 1, 2].map(|_| fleet.ask(0, ask(0, 0)).unwrap());
        let now = fleet.now;
        fleet.brokers[0].abandon(one, now);
        fleet.call(0);
        fleet.brokers[0].abandon(two, now);
        fleet.lose(0, false);
        fleet.call(0);
        fleet.pass(500);
        assert!(fleet.ask(1, ask(0, 0)).is_none(), "Metrica may compute two, and one is in flight");
        fleet.pass(5000);
        assert!(fleet.ask(1, ask(0, 0)).is_some() && fleet.ask(1, ask(0, 0)).is_some(), "they have ended");
        assert!(fleet.ask(1, ask(0, 0)).is_none(), "one is in flight");
        fleet.finish(0, three, 7);
    }
}

/// Ends of keys are times of the server's clock, and nothing that is in use ends with a jump of an hour.
#[test]
fn every_key_outlives_a_jump_of_the_clock_by_an_hour() {
    for server in SERVERS {
        let mut fleet = Fleet::new(server);
        for (number, kind) in [(0, 0), (2, 1), (3, 2), (0, 3), (0, 4)] {
            let lease = fleet.ask(0, ask(number, kind)).unwrap();
            fleet.finish(0, lease, if kind == 4 { 1 } else { 7 });
            fleet.pass(1000);
        }
        let keys: Vec<String> = fleet.store.ask(&["KEYS", "*"]);
        assert!(keys.len() > 8, "{keys:?}");
        for key in &keys {
            let left: i64 = fleet.store.ask(&["PTTL", key]);
            assert!(left > 2 * 3_600_000, "{key} ends in {left} ms");
        }
    }
}

/// At 00:00 GMT, gates ask one after another; a short wait is hardly longer.
#[test]
fn gates_do_not_wake_all_at_once() {
    let mut fleet = Fleet::of(10, SERVERS[0], |_| {});
    for (wait, longest) in [(40, 5), (3_600_000, 500)] {
        let now = fleet.now;
        let told = Told { owner: Some("shop".to_owned()), wake: Some(wait), ..Told::default() };
        let wakes = fleet.brokers.iter_mut().map(|broker| {
            // A call leaves the wakes that are not due.
            broker.store_is_away(now);
            broker.reply(&Reply { replicas: 10, ..Reply::default() }, false, now);
            broker.told(&told, now);
            broker.next_call().unwrap() - now.at
        });
        let wakes: std::collections::BTreeSet<_> = wakes.collect();
        assert!(wakes.first() >= Some(&(wait * 1000)) && wakes.last() <= Some(&((wait + longest) * 1000)), "{wakes:?}");
        assert!(wait < 1000 || wakes.len() == 10, "{wakes:?}");
    }
}

//! What the store counts is what was sent, whatever is lost and comes late, on real stores.

use super::fleet_tests::{Fleet, NOON, ask, outcome};
use super::servers::SERVERS;
use super::*;

const TODAY: u64 = NOON / 86_400;

fn count(fleet: &mut Fleet, key: &str, field: &str) -> u32 {
    let count: Option<u32> = match field {
        "zcard" => fleet.store.ask(&["ZCARD", key]),
        "get" => fleet.store.ask(&["GET", key]),
        field => fleet.store.ask(&["HGET", key, field]),
    };
    count.map_or(0, |count| count)
}

/// It has the slot in the store afterwards, since its gate says so, but was never counted there.
#[test]
fn a_request_that_the_gate_granted_by_itself_is_not_taken_off() {
    for server in SERVERS {
        let mut fleet = Fleet::of(2, server, |settings| settings.limits = Limits::default());
        let now = fleet.now;
        fleet.brokers[0].store_is_away(now);
        let wish = fleet.request(0, "one", Groups::REPORT_READ, 1);
        let Answer::Granted(unsent) = fleet.brokers[0].ask(now, wish) else { panic!("the gate uses its part") };
        for _ in 0..2 {
            let lease = fleet.ask(1, ask(0, 1)).unwrap();
            fleet.finish(1, lease, 7);
            fleet.pass(100);
        }
        fleet.pass(6000);
        let [slots, counter] = ["{gate}:o:shop:slots".to_owned(), format!("{{gate}}:c:7:day:{TODAY}")];
        assert_eq!((count(&mut fleet, &slots, "zcard"), count(&mut fleet, &counter, "get")), (1, 2));
        assert_eq!(count(&mut fleet, "{gate}:o:shop:reports", "zcard"), 3, "the gate told of its report");
        let now = fleet.now;
        let _ = fleet.brokers[0].finish(unsent, now, outcome(0));
        fleet.call(0);
        assert_eq!((count(&mut fleet, &slots, "zcard"), count(&mut fleet, &counter, "get")), (0, 2));
        assert_eq!(count(&mut fleet, "{gate}:o:shop:reports", "zcard"), 2);
        assert!(count(&mut fleet, &format!("{{gate}}:o:shop:day:{TODAY}"), "") >= 2);
    }
}

/// The clock of the gate whose call grants is in the next day; that of the gate which gives back is not.
#[test]
fn what_was_counted_is_taken_off_where_it_was_counted() {
    for server in SERVERS {
        let mut fleet = Fleet::new(server);
        // The clocks of the gates are set, which restarts nothing.
        fleet.now.unix += 43_190;
        fleet.pass(1000);
        let before = fleet.now.unix;
        assert_eq!(before / 86_400, TODAY);
        let leases: Vec<_> = (0..3).map(|_| fleet.ask(1, ask(0, 0)).unwrap()).collect();
        let wish = fleet.request(0, "one", Groups::CLIENT_READ, 0);
        let Answer::Wait(ticket) = fleet.brokers[0].ask(fleet.now, wish) else { panic!("no slot is free") };
        fleet.call(0);
        fleet.pass(1000);
        let now = fleet.now;
        for lease in leases {
            let _ = fleet.brokers[1].finish(lease, now, outcome(7));
        }
        fleet.now.unix = (TODAY + 1) * 86_400 + 1;
        let call = fleet.begin_call(1).unwrap();
        fleet.now = now;
        fleet.end_call(1, &call);
        let Taken::Granted(lease) = fleet.brokers[0].take(ticket) else { panic!("the other gate's call grants it") };
        let days = [TODAY, TODAY + 1].map(|day| format!("{{gate}}:o:shop:day:{day}"));
        assert_eq!(days.each_ref().map(|key| count(&mut fleet, key, "c:one")), [3, 1]);
        let _ = fleet.brokers[0].finish(lease, now, outcome(0));
        fleet.call(0);
        assert_eq!(days.each_ref().map(|key| count(&mut fleet, key, "c:one")), [3, 0]);
    }
}

/// A gate gave a call up and went on over a new connection; the server executes the old call afterwards.
#[test]
fn a_call_that_arrives_after_a_later_one_changes_nothing() {
    for server in SERVERS {
        let mut fleet = Fleet::new(server);
        let now = fleet.now;
        fleet.brokers[0].store_is_away(now);
        let late = fleet.begin_call(0).unwrap();
        fleet.call(0);
        fleet.pass(6000);
        let leases: Vec<_> = (0..3).map(|_| fleet.ask(0, ask(0, 0)).unwrap()).collect();
        let _ = fleet.store.call(&late);
        assert!(fleet.ask(1, ask(0, 0)).is_none(), "three are in flight, whatever the old call had");
        leases.into_iter().for_each(|lease| fleet.finish(0, lease, 7));
    }
}

/// Both gates have sent reports and grants; the store loses them, while a gate asks for more.
#[test]
fn an_emptied_store_gets_back_windows_hours_and_counters() {
    for server in SERVERS {
        let mut fleet = Fleet::new(server);
        for (gate, kind) in [(0, 1), (1, 1), (0, 1), (1, 1), (0, 1), (0, 3), (0, 3), (0, 4)] {
            let lease = fleet.ask(gate, ask(0, kind)).unwrap();
            fleet.finish(gate, lease, 7);
            fleet.pass(100);
        }
        // One that was not sent is no report.
        let unsent = fleet.ask(1, ask(0, 1)).unwrap();
        fleet.finish(1, unsent, 0);
        let before = counts(&mut fleet);
        assert_eq!(before, [8, 5, 5, 8, 2, 1]);
        fleet.store.empty();
        fleet.pass(6000);
        // Of a counter, the gate that sent most knows of six.
        let after = [8, 5, 5, 6, 2, 1];
        assert_eq!(counts(&mut fleet), after);
        // It is told again at each loss, and counts once.
        fleet.lose(0, true);
        fleet.pass(6000);
        assert_eq!(counts(&mut fleet), after);
        assert!(fleet.ask(1, ask(0, 1)).is_some(), "the sixth report");
        assert!(fleet.ask(1, ask(0, 1)).is_none(), "six are the limit");
        fleet.pass(300_000);
        assert!(fleet.ask(1, ask(0, 1)).is_some(), "they end when they would have");
        assert_eq!(counts(&mut fleet)[1..3], [1, 1], "also those of a caller without a budget");
    }
}

/// The day, the reports, those of the caller, the day of the counter, its grants, the delegates.
fn counts(fleet: &mut Fleet) -> [u32; 6] {
    let (hour, now) = (NOON / 3600, fleet.now);
    assert_eq!(now.unix / 3600, hour);
    let keys = [
        (format!("{{gate}}:o:shop:day:{TODAY}"), ""),
        ("{gate}:o:shop:reports".to_owned(), "zcard"),
        ("{gate}:o:shop:reports:one".to_owned(), "zcard"),
        (format!("{{gate}}:c:7:day:{TODAY}"), "get"),
        (format!("{{gate}}:c:7:grants:{hour}"), "get"),
        (format!("{{gate}}:o:shop:delegates:{hour}"), "get"),
    ];
    keys.map(|(key, field)| count(fleet, &key, field))
}

/// The other gate has not said yet what it sent.
#[test]
fn an_emptied_store_grants_nothing_before_it_has_the_past_of_every_gate() {
    for server in SERVERS {
        let mut fleet = Fleet::new(server);
        for _ in 0..6 {
            let lease = fleet.ask(0, ask(0, 1)).unwrap();
            fleet.finish(0, lease, 7);
            fleet.pass(100);
        }
        let wish = fleet.request(1, "one", Groups::REPORT_READ, 1);
        let Answer::Wait(ticket) = fleet.brokers[1].ask(fleet.now, wish) else { panic!("the store decides") };
        fleet.store.empty();
        let [unaware, asks] = [0, 1].map(|gate| fleet.begin_call(gate).unwrap());
        let _ = fleet.store.call(&unaware);
        let (reply, _) = fleet.store.call(&asks);
        let now = fleet.now;
        fleet.brokers[1].reply(&reply, false, now);
        fleet.call(1);
        assert!(!matches!(fleet.brokers[1].take(ticket), Taken::Granted(_)), "six are the limit");
    }
}

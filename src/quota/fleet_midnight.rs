//! The first seconds of a day of a fleet, for which all callers wait.

use super::fleet_tests::Fleet;
use super::*;

/// Every caller waits for the new day. Returns how many requests were granted in its first two seconds.
pub(super) fn wake_up(fleet: &mut Fleet, midnight: u64) -> u32 {
    let mut waiting = Vec::new();
    for number in 0..200_usize {
        let request = fleet.request(number % 10, &format!("c{number}"), Groups::CLIENT_READ, 0);
        let Answer::Wait(ticket) = fleet.brokers[number % 10].ask(fleet.now, request) else { panic!("it can wait") };
        waiting.push((number % 10, ticket));
    }
    fleet.settle();
    let (mut waking, mut granted, mut calls) = (Vec::new(), 0, None);
    let start = fleet.now.at + (midnight - fleet.now.unix) * SECOND;
    while fleet.now.at < start + 2 * SECOND {
        let before = fleet.now.at / SECOND;
        fleet.now.at += 10_000;
        fleet.now.unix += fleet.now.at / SECOND - before;
        for gate in 0..10 {
            let _ = fleet.brokers[gate].due(fleet.now);
            if fleet.brokers[gate].next_call().is_some_and(|call| call <= fleet.now.at) {
                if fleet.now.at >= start && granted == 0 {
                    waking.push(gate);
                }
                calls.get_or_insert(fleet.store.calls);
                fleet.call(gate);
            }
        }
        let mut ended = Vec::new();
        waiting.retain(|(gate, ticket)| match fleet.brokers[*gate].take(*ticket) {
            Taken::Waiting => true,
            Taken::Granted(lease) => {
                ended.push((*gate, lease));
                false
            }
            Taken::Refused(_) | Taken::Over => false,
        });
        for (gate, lease) in ended {
            granted += 1;
            fleet.finish(gate, lease, 7);
        }
    }
    // The first gate that asks gets the slots granted for all. Afterwards all wait for the seconds of the address.
    let calls = fleet.store.calls - calls.unwrap();
    println!("{} of 10 gates ask before the first grant; {calls} calls for {granted} requests", waking.len());
    assert!(granted > 0 && waking.len() <= 3 && u64::from(granted) * 10 > calls, "{waking:?} {calls} {granted}");
    for (gate, ticket) in waiting {
        fleet.brokers[gate].cancel(ticket, fleet.now);
    }
    fleet.settle();
    granted
}

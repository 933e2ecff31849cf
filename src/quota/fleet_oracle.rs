//! The broker of one gate is the oracle of the script: random sequences at two gates are decided alike.

use proptest::prelude::*;

use super::fleet_tests::{Ask, CALLERS, Fleet, NOON, ask, groups, outcome, request, settings};
use super::servers::SERVERS;
use super::world::LEASE;
use super::*;

#[derive(Debug, Clone, Copy)]
enum Op {
    Ask(usize, Ask),
    Finish(usize, usize),
    Pass(u64),
}

fn ops() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => (0..2usize, 0..4usize, 0..5usize).prop_map(|(gate, caller, kind)| Op::Ask(gate, ask(caller, kind))),
        5 => (any::<usize>(), 0..9usize).prop_map(|(which, how)| Op::Finish(which, how)),
        4 => (0..400u64).prop_map(Op::Pass),
        1 => (0..40_000u64).prop_map(Op::Pass),
    ]
}

/// Two gates and a store decide as one gate without a store does.
fn decide_alike(server: (&str, &str)) {
    let mut fleet = Fleet::new(server);
    let config = ProptestConfig {
        cases: 40,
        failure_persistence: None,
        rng_seed: proptest::test_runner::RngSeed::Fixed(17),
        ..ProptestConfig::default()
    };
    let fleet = std::cell::RefCell::new(&mut fleet);
    proptest!(config, |(ops in proptest::collection::vec(ops(), 1..150))| {
        let mut fleet = fleet.borrow_mut();
        fleet.store.empty();
        fleet.now = Now { at: 0, unix: NOON };
        for gate in 0..2 {
            fleet.brokers[gate] = Broker::new(&settings(), fleet.now);
            let joined = FleetSettings { me: format!("g{gate}"), lease: LEASE, on_loss: OnLoss::Share, replicas: 2 };
            let now = fleet.now;
            fleet.brokers[gate].join_fleet(Some(joined), now);
        }
        fleet.begin();
        let mut alone = Broker::new(&settings(), fleet.now);
        let mut running = Vec::new();
        for (number, op) in ops.iter().enumerate() {
            match *op {
                Op::Ask(gate, ask) => {
                    let request = request(&alone, CALLERS[ask.caller], groups(ask.kind), ask.kind.min(3));
                    let here = match alone.ask(fleet.now, request) {
                        Answer::Granted(lease) => Some(lease),
                        Answer::Wait(ticket) => {
                            alone.cancel(ticket, fleet.now);
                            None
                        }
                        Answer::Refused(_) => None,
                    };
                    let there = fleet.ask(gate, ask);
                    let granted = (here.is_some(), there.is_some());
                    prop_assert!(granted.0 == granted.1, "operation {number}: alone and in the fleet {granted:?}: {:?}", &ops[..=number]);
                    running.extend(here.zip(there).map(|(here, there)| (here, gate, there)));
                }
                Op::Finish(which, how) if !running.is_empty() => {
                    let (here, gate, there) = running.swap_remove(which % running.len());
                    if how == 6 {
                        alone.abandon(here, fleet.now);
                    } else {
                        let _ = alone.finish(here, fleet.now, outcome(how));
                    }
                    fleet.finish(gate, there, how);
                }
                Op::Finish(..) => {}
                Op::Pass(milliseconds) => {
                    fleet.pass(milliseconds);
                    let _ = alone.due(fleet.now);
                }
            }
        }
    });
}

#[test]
fn a_redis_decides_as_a_gate_alone_does() {
    decide_alike(SERVERS[0]);
}

#[test]
fn a_valkey_decides_as_a_gate_alone_does() {
    decide_alike(SERVERS[1]);
}

//! The broker of one gate is the oracle of the script: random sequences at two gates are decided alike.

use proptest::prelude::*;

use super::fleet_tests::{Ask, CALLERS, Fleet, NOON, ask, groups, outcome, request, settings};
use super::servers::SERVERS;
use super::world::LEASE;
use super::*;

const MIDNIGHT: u64 = NOON + 43_200;

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
    // Many sequences pass midnight, which is a full hour too.
    proptest!(config, |(before in 0..200u64, ops in proptest::collection::vec(ops(), 1..150))| {
        let mut fleet = fleet.borrow_mut();
        fleet.store.empty();
        fleet.now = Now { at: 0, unix: MIDNIGHT - before };
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

/// An operation on requests that wait.
#[derive(Debug, Clone, Copy)]
enum Step {
    Ask(usize),
    End(usize),
    Leave(usize),
    Pass(u64),
}

fn steps() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..2usize).prop_map(Step::Ask),
        4 => any::<usize>().prop_map(Step::End),
        1 => any::<usize>().prop_map(Step::Leave),
        3 => (0..400u64).prop_map(Step::Pass),
    ]
}

/// More of one caller do not wait: then a gate would refuse by its own estimate.
const QUEUE: usize = 12;

/// Requests of one caller that wait at two gates are granted at the same steps as at one gate, in the order of their arrival.
fn queue_alike(server: (&str, &str)) {
    let slots_only = |settings: &mut Settings| {
        *settings = Settings {
            limits: Limits::default().with_modes(Mode::Off).with_mode(LimitName::Parallel, Mode::Enforce),
            ..settings.clone()
        };
    };
    let mut fleet = Fleet::of(2, server, slots_only);
    let mut alone_settings = settings();
    slots_only(&mut alone_settings);
    let config = ProptestConfig {
        cases: 40,
        failure_persistence: None,
        rng_seed: proptest::test_runner::RngSeed::Fixed(17),
        ..ProptestConfig::default()
    };
    let fleet = std::cell::RefCell::new(&mut fleet);
    proptest!(config, |(steps in proptest::collection::vec(steps(), 1..150))| {
        let mut fleet = fleet.borrow_mut();
        let mut alone = Broker::new(&alone_settings, fleet.now);
        let (mut waiting, mut running) = (Vec::new(), Vec::new());
        for step in &steps {
            match *step {
                Step::Ask(gate) if waiting.len() < QUEUE => {
                    // No two at the same time.
                    fleet.pass(1);
                    let wish = request(&alone, "one", groups(0), 0);
                    let here = alone.ask(fleet.now, wish);
                    let wish = request(&fleet.brokers[gate], "one", groups(0), 0);
                    let now = fleet.now;
                    let Answer::Wait(there) = fleet.brokers[gate].ask(now, wish) else { panic!("the store decides") };
                    fleet.settle();
                    match here {
                        Answer::Granted(lease) => {
                            let taken = fleet.brokers[gate].take(there);
                            let Taken::Granted(there) = taken else { panic!("{taken:?} in the fleet, granted alone") };
                            running.push((lease, gate, there));
                        }
                        Answer::Wait(ticket) => waiting.push((ticket, gate, there)),
                        Answer::Refused(refusal) => panic!("{refusal:?}"),
                    }
                }
                Step::End(which) if !running.is_empty() => {
                    let (here, gate, there) = running.swap_remove(which % running.len());
                    let _ = alone.finish(here, fleet.now, Outcome::Done);
                    fleet.finish(gate, there, 7);
                }
                Step::Leave(which) if !waiting.is_empty() => {
                    let (here, gate, there) = waiting.remove(which % waiting.len());
                    let now = fleet.now;
                    alone.cancel(here, now);
                    fleet.brokers[gate].cancel(there, now);
                }
                Step::Ask(_) | Step::End(_) | Step::Leave(_) => {}
                Step::Pass(milliseconds) => {
                    fleet.pass(milliseconds);
                    let _ = alone.due(fleet.now);
                }
            }
            fleet.settle();
            waiting.retain(|(here, gate, there)| match (alone.take(*here), fleet.brokers[*gate].take(*there)) {
                (Taken::Granted(here), Taken::Granted(there)) => {
                    running.push((here, *gate, there));
                    false
                }
                (Taken::Waiting, Taken::Waiting) => true,
                (Taken::Refused(_), Taken::Refused(_)) => false,
                (here, there) => panic!("{here:?} alone, {there:?} in the fleet"),
            });
            let _ = alone.woken().count();
        }
        for (here, gate, there) in running {
            let _ = alone.finish(here, fleet.now, Outcome::Done);
            fleet.finish(gate, there, 7);
        }
        for (_, gate, there) in waiting {
            let now = fleet.now;
            fleet.brokers[gate].cancel(there, now);
        }
        fleet.settle();
        // What nobody took was granted at the end.
        let (now, lease) = (fleet.now, super::world::LEASE);
        for gate in 0..2 {
            fleet.brokers[gate] = Broker::new(&alone_settings, now);
            let joined = FleetSettings { me: format!("g{gate}"), lease, on_loss: OnLoss::Share, replicas: 2 };
            fleet.brokers[gate].join_fleet(Some(joined), now);
        }
        fleet.store.empty();
        fleet.begin();
    });
}

#[test]
fn a_redis_serves_a_queue_as_a_gate_alone_does() {
    queue_alike(SERVERS[0]);
}

#[test]
fn a_valkey_serves_a_queue_as_a_gate_alone_does() {
    queue_alike(SERVERS[1]);
}

//! The broker of one gate is the oracle of the script: random sequences at two gates are decided alike.

use std::cell::RefCell;

use proptest::prelude::*;
use proptest::test_runner::{RngSeed, TestRunner};

use super::fleet_tests::{Ask, CALLERS, Fleet, NOON, ask, groups, outcome, request, settings};
use super::servers::SERVERS;
use super::world::LEASE;
use super::*;
use crate::policy::names::CallerId;

const MIDNIGHT: u64 = NOON + 43_200;

/// Two gates with a store, and one without.
struct Pair {
    fleet: Fleet,
    alone: Broker,
    settings: Settings,
}

impl Pair {
    /// From the start, at this time.
    fn restart(&mut self, unix: u64) {
        let Self { fleet, alone, settings } = self;
        fleet.store.empty();
        fleet.now = Now { at: 0, unix };
        for (gate, broker) in fleet.brokers.iter_mut().enumerate() {
            *broker = Broker::new(settings, fleet.now);
            let joined = FleetSettings { me: format!("g{gate}"), lease: LEASE, on_loss: OnLoss::Share, replicas: 2 };
            broker.join_fleet(Some(joined), fleet.now);
            // A wait ends at the same time as at one gate.
            broker.fleet.as_mut().unwrap().delay = 0;
        }
        fleet.begin();
        *alone = Broker::new(settings, fleet.now);
    }
}

/// Runs random sequences on both. Many of them pass midnight, which is a full hour too.
fn alike<S: Strategy>(
    server: (&str, &str),
    change: fn(&mut Settings),
    operation: S,
    run: impl Fn(&mut Pair, &[S::Value]) -> Result<(), TestCaseError>,
) {
    let mut settings = settings();
    change(&mut settings);
    let fleet = Fleet::of(2, server, change);
    let pair = RefCell::new(Pair { alone: Broker::new(&settings, fleet.now), fleet, settings });
    let config = ProptestConfig {
        cases: 40,
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(17),
        ..ProptestConfig::default()
    };
    let sequences = (0..200u64, proptest::collection::vec(operation, 1..150));
    let result = TestRunner::new(config).run(&sequences, |(before, operations)| {
        let mut pair = pair.borrow_mut();
        pair.restart(MIDNIGHT - before);
        run(&mut pair, &operations)
    });
    if let Err(error) = result {
        panic!("{error}");
    }
}

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
fn decide(pair: &mut Pair, ops: &[Op]) -> Result<(), TestCaseError> {
    let Pair { fleet, alone, .. } = pair;
    let mut running = Vec::new();
    for (number, op) in ops.iter().enumerate() {
        match *op {
            Op::Ask(gate, ask) => {
                let request = request(alone, CALLERS[ask.caller], groups(ask.kind), ask.kind.min(3));
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
                prop_assert!(
                    granted.0 == granted.1,
                    "operation {number}: alone and in the fleet {granted:?}: {:?}",
                    &ops[..=number]
                );
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
    Ok(())
}

#[test]
fn a_redis_decides_as_a_gate_alone_does() {
    alike(SERVERS[0], |_| {}, ops(), decide);
}

#[test]
fn a_valkey_decides_as_a_gate_alone_does() {
    alike(SERVERS[1], |_| {}, ops(), decide);
}

/// Requests that wait at one gate without a store, and at one of two with a store.
struct Queue<'a> {
    pair: &'a mut Pair,
    waiting: Vec<(Ticket, usize, Ticket)>,
    /// When each began, and its leases.
    running: Vec<(Micros, Lease, usize, Lease)>,
    /// The time after which each ends by itself.
    service: Option<Micros>,
}

impl<'a> Queue<'a> {
    fn new(pair: &'a mut Pair, service: Option<Micros>) -> Self {
        Self { pair, waiting: Vec::new(), running: Vec::new(), service }
    }

    fn ask(&mut self, gate: usize, caller: &str, class: Class) {
        // No two at the same time.
        self.pass(1);
        let Pair { fleet, alone, .. } = &mut *self.pair;
        let wish =
            |broker: &Broker| Request { class, rest: 600 * SECOND, ..request(broker, caller, Groups::CLIENT_READ, 0) };
        let (now, here, there) = (fleet.now, wish(alone), wish(&fleet.brokers[gate]));
        let here = alone.ask(now, here);
        let Answer::Wait(there) = fleet.brokers[gate].ask(now, there) else { panic!("the store decides") };
        fleet.settle();
        match here {
            Answer::Granted(lease) => {
                let taken = fleet.brokers[gate].take(there);
                let Taken::Granted(there) = taken else { panic!("{taken:?} in the fleet, granted alone") };
                self.running.push((now.at, lease, gate, there));
            }
            Answer::Wait(ticket) => self.waiting.push((ticket, gate, there)),
            Answer::Refused(refusal) => panic!("{refusal:?}"),
        }
    }

    /// A request in flight ends: it was sent, or not.
    fn end(&mut self, position: usize, how: usize) {
        let (_, here, gate, there) = self.running.remove(position);
        let Pair { fleet, alone, .. } = &mut *self.pair;
        let _ = alone.finish(here, fleet.now, outcome(how));
        fleet.finish(gate, there, how);
        self.compare();
    }

    /// A caller gives up.
    fn leave(&mut self, position: usize) {
        let (here, gate, there) = self.waiting.remove(position);
        let Pair { fleet, alone, .. } = &mut *self.pair;
        let now = fleet.now;
        alone.cancel(here, now);
        fleet.brokers[gate].cancel(there, now);
        self.compare();
    }

    /// Time passes, from one event to the next.
    fn pass(&mut self, milliseconds: u64) {
        let end = self.pair.fleet.now.at + milliseconds * 1000;
        while self.pair.fleet.now.at < end {
            let Pair { fleet, alone, .. } = &mut *self.pair;
            let at = fleet.now.at;
            let ends = self.running.iter().filter_map(|(begun, ..)| Some(begun + self.service?));
            let calls = fleet.brokers.iter().filter_map(Broker::next_call);
            let next = ends.chain(calls).chain(alone.next()).filter(|next| *next > at).min();
            // Gates show that they live.
            let next = next.unwrap_or(end).min(end).min(at + 1_600_000).next_multiple_of(1000);
            fleet.now = Now { at: next, unix: fleet.now.unix + next / SECOND - at / SECOND };
            let _ = alone.due(fleet.now);
            for gate in 0..2 {
                let _ = fleet.brokers[gate].due(fleet.now);
                if next - at == 1_600_000 || fleet.brokers[gate].next_call().is_some_and(|call| call <= next) {
                    fleet.call(gate);
                }
            }
            self.compare();
            let begun_before = self.service.map_or(0, |service| (next + 1).saturating_sub(service));
            while let Some(position) = self.running.iter().position(|(begun, ..)| *begun < begun_before) {
                self.end(position, 7);
            }
        }
    }

    /// Both have granted the same requests.
    fn compare(&mut self) {
        let Self { pair: Pair { fleet, alone, .. }, waiting, running, .. } = self;
        fleet.settle();
        waiting.retain(|(here, gate, there)| match (alone.take(*here), fleet.brokers[*gate].take(*there)) {
            (Taken::Granted(here), Taken::Granted(there)) => {
                running.push((fleet.now.at, here, *gate, there));
                false
            }
            (Taken::Waiting, Taken::Waiting) => true,
            (Taken::Refused(_), Taken::Refused(_)) => false,
            (here, there) => panic!("{here:?} alone, {there:?} in the fleet"),
        });
        let _ = alone.woken().count();
    }
}

/// An operation on requests that wait; the callers are those of [`FLOWS`].
#[derive(Debug, Clone, Copy)]
enum Step {
    Ask(usize, usize),
    End(usize),
    Unsent(usize),
    Leave(usize),
    Pass(u64),
}

fn slots_only(settings: &mut Settings) {
    settings.limits = Limits::default().with_modes(Mode::Off).with_mode(LimitName::Parallel, Mode::Enforce);
}

/// Requests of one caller, which end at any time.
fn steps() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..2usize).prop_map(|gate| Step::Ask(gate, 1)),
        4 => any::<usize>().prop_map(Step::End),
        1 => any::<usize>().prop_map(Step::Leave),
        3 => (0..400u64).prop_map(Step::Pass),
    ]
}

/// More of one caller do not wait: then a gate would refuse by its own estimate.
const QUEUE: usize = 12;

fn take_steps(queue: &mut Queue<'_>, steps: &[Step], most: usize) {
    for step in steps {
        match *step {
            Step::Ask(gate, flow) if queue.waiting.len() < most => queue.ask(gate, FLOWS[flow].0, FLOWS[flow].1),
            Step::End(which) if !queue.running.is_empty() => queue.end(which % queue.running.len(), 7),
            Step::Unsent(which) if !queue.running.is_empty() => queue.end(which % queue.running.len(), 0),
            Step::Leave(which) if !queue.waiting.is_empty() => queue.leave(which % queue.waiting.len()),
            Step::Pass(milliseconds) => queue.pass(milliseconds),
            Step::Ask(..) | Step::End(_) | Step::Unsent(_) | Step::Leave(_) => {}
        }
    }
}

/// Requests of one caller that wait at two gates are granted at the same steps as at one gate, in the order of their arrival.
fn queue_alike(server: (&str, &str)) {
    alike(server, slots_only, steps(), |pair, steps| {
        take_steps(&mut Queue::new(pair, None), steps, QUEUE);
        Ok(())
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

/// Callers, each with its class and its weight.
const FLOWS: [(&str, Class, u32); 6] = [
    ("five", Class::Interactive, 1),
    ("one", Class::Normal, 1),
    ("two", Class::Normal, 3),
    ("three", Class::Normal, 2),
    ("six", Class::Batch, 1),
    ("seven", Class::Batch, 4),
];

/// Requests of several callers, each of which needs the same time, so that every gate measures the same.
fn turns() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0..2usize, 0..FLOWS.len()).prop_map(|(gate, flow)| Step::Ask(gate, flow)),
        1 => any::<usize>().prop_map(Step::Unsent),
        1 => any::<usize>().prop_map(Step::Leave),
        3 => (0..400u64).prop_map(Step::Pass),
    ]
}

/// Several callers at two gates are served in the order of one gate: by weight, class and age.
fn order_alike(server: (&str, &str)) {
    let several = |settings: &mut Settings| {
        slots_only(settings);
        let caller = |(name, _, weight): (&str, Class, u32)| CallerSettings {
            weight,
            wait: 600 * SECOND,
            ..CallerSettings::new(CallerId::new(name))
        };
        settings.callers = FLOWS.map(caller).to_vec();
    };
    alike(server, several, turns(), |pair, steps| {
        // A second is what a gate expects of a caller that it has not measured.
        let mut queue = Queue::new(pair, Some(SECOND));
        take_steps(&mut queue, steps, usize::MAX);
        // Whoever still waits grows old meanwhile; batch gets the last slot a minute after all others.
        for second in 0..150 {
            for gate in (0..2).filter(|_| second < 30) {
                queue.ask(gate, FLOWS[0].0, FLOWS[0].1);
            }
            queue.pass(1000);
        }
        prop_assert!(queue.waiting.is_empty(), "all are served");
        Ok(())
    });
}

#[test]
fn a_redis_serves_several_callers_in_the_order_of_a_gate_alone() {
    order_alike(SERVERS[0]);
}

#[test]
fn a_valkey_serves_several_callers_in_the_order_of_a_gate_alone() {
    order_alike(SERVERS[1]);
}

/// One call frees two slots: the second of a caller at another gate comes after the first of the others.
#[test]
fn a_call_that_frees_several_slots_grants_them_in_turn() {
    for server in SERVERS {
        let mut fleet = Fleet::of(2, server, slots_only);
        let leases: Vec<_> = (0..3).map(|_| fleet.ask(0, ask(2, 0)).unwrap()).collect();
        let tickets = [(0, "one"), (1, "one"), (1, "two")].map(|(gate, caller)| {
            fleet.pass(1);
            let wish = fleet.request(gate, caller, Groups::CLIENT_READ, 0);
            let Answer::Wait(ticket) = fleet.brokers[gate].ask(fleet.now, wish) else { panic!("no slot is free") };
            fleet.settle();
            (gate, ticket)
        });
        let now = fleet.now;
        leases
            .into_iter()
            .take(2)
            .for_each(|lease| assert_eq!(fleet.brokers[0].finish(lease, now, outcome(7)), Next::Over));
        fleet.settle();
        let granted = tickets.map(|(gate, ticket)| matches!(fleet.brokers[gate].take(ticket), Taken::Granted(_)));
        assert_eq!(granted, [true, false, true]);
    }
}

/// One call grants to a class whose turn is far ahead, and then to another: the virtual time of the queue does not go back.
#[test]
fn the_turns_of_one_class_do_not_move_another_back() {
    for server in SERVERS {
        let mut fleet = Fleet::of(2, server, slots_only);
        let leases: Vec<_> = (0..3).map(|_| fleet.ask(0, ask(0, 0)).unwrap()).collect();
        for (gate, caller, class) in [(0, "one", Class::Interactive), (1, "two", Class::Normal)] {
            fleet.pass(1);
            let wish = Request { class, ..fleet.request(gate, caller, Groups::CLIENT_READ, 0) };
            let Answer::Wait(_) = fleet.brokers[gate].ask(fleet.now, wish) else { panic!("no slot is free") };
            fleet.settle();
        }
        let now = fleet.now;
        leases
            .into_iter()
            .take(2)
            .for_each(|lease| assert_eq!(fleet.brokers[0].finish(lease, now, outcome(7)), Next::Over));
        fleet.settle();
        let tags = ["v", "c:two"].map(|field| fleet.store.ask::<u64>(&["HGET", "{gate}:o:shop:tags", field]));
        assert_eq!(tags, [3 * SECOND, 4 * SECOND], "the fourth of the one, and then the other");
    }
}

//! Random interleavings of everything that can happen to the broker.

use metrica::error_type::ErrorType;
use proptest::prelude::*;

use super::*;
use crate::policy::names::CallerId;

const NOON: u64 = 20_000 * 86_400 + 43_200;
const CALLERS: [&str; 4] = ["one", "two", "three", "four"];
const OWNERS: [&str; 2] = ["a", "b"];

#[derive(Debug, Clone, Copy)]
struct Ask {
    owner: usize,
    caller: usize,
    kind: usize,
    class: usize,
    rest: u64,
}

#[derive(Debug, Clone, Copy)]
enum Op {
    Ask(Ask),
    Finish(usize, usize),
    Cancel(usize),
    Abandon(usize),
    Pass(u64),
    Step(i64),
}

fn asks() -> impl Strategy<Value = Ask> {
    (0..2usize, 0..4usize, 0..4usize, 0..3usize, 0..60u64).prop_map(|(owner, caller, kind, class, rest)| Ask {
        owner,
        caller,
        kind,
        class,
        rest,
    })
}

fn ops() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => asks().prop_map(Op::Ask),
        4 => (any::<usize>(), 0..8usize).prop_map(|(which, how)| Op::Finish(which, how)),
        1 => any::<usize>().prop_map(Op::Cancel),
        1 => any::<usize>().prop_map(Op::Abandon),
        3 => (0..5_000u64).prop_map(Op::Pass),
        1 => (0..100_000u64).prop_map(Op::Pass),
        1 => (-50_000..50_000i64).prop_map(Op::Step),
    ]
}

fn settings() -> Settings {
    let mut callers = CALLERS.map(|name| CallerSettings::new(CallerId::new(name)));
    callers[1].weight = 3;
    callers[2].per_5m = Some(4);
    callers[3].share = Some(20);
    Settings {
        limits: Limits::default().with_limit(LimitName::Reports5m, 6).with_limit(LimitName::Day, 60),
        bounds: Bounds { per_caller: 6, per_owner: 12, total: 16 },
        owners: OWNERS.map(OwnerName::new).to_vec(),
        egresses: vec![EgressName::new("default")],
        callers: callers.to_vec(),
        ..Settings::default()
    }
}

/// The broker, and what a gate knows about its own requests.
struct Gate {
    broker: Broker,
    now: Now,
    waiting: Vec<(Ticket, usize, Micros)>,
    running: Vec<(Lease, usize, Micros)>,
    leaving: Vec<(usize, Micros)>,
    /// Whether no request is granted by the short way.
    in_full: bool,
}

impl Gate {
    fn new(settings: &Settings) -> Self {
        let now = Now { at: 0, unix: NOON };
        let (waiting, running, leaving) = (Vec::new(), Vec::new(), Vec::new());
        Self { broker: Broker::new(settings, now), now, waiting, running, leaving, in_full: false }
    }

    fn request(&self, ask: Ask) -> Request {
        let groups =
            [Groups::CLIENT_READ, Groups::REPORT_READ, Groups::LOGS, Groups::GRANTS.with(Groups::CLIENT_WRITE)];
        Request {
            owner: self.broker.owner(OwnerName::new(OWNERS[ask.owner])).unwrap(),
            caller: self.broker.caller(CallerId::new(CALLERS[ask.caller])).unwrap(),
            egress: self.broker.egress(EgressName::new("default")).unwrap(),
            groups: groups[ask.kind],
            class: [Class::Interactive, Class::Normal, Class::Batch][ask.class],
            counters: Counters::of(&[7, 8, 9, 10][..(ask.kind + ask.caller) % 4]),
            rest: ask.rest * SECOND,
        }
    }

    fn ask(&mut self, ask: Ask) -> Option<Refusal> {
        let deadline = self.now.at + ask.rest.min(30) * SECOND;
        let before = self.counts();
        let request = self.request(ask);
        let answer = if self.in_full {
            self.broker.ledger.clock.advance(self.now);
            self.broker.ask_in_full(request)
        } else {
            self.broker.ask(self.now, request)
        };
        match answer {
            Answer::Granted(lease) => self.running.push((lease, ask.owner, self.now.at)),
            Answer::Wait(ticket) => self.waiting.push((ticket, ask.owner, deadline)),
            Answer::Refused(refusal) => {
                assert_eq!(self.counts(), before, "a refusal takes nothing");
                return Some(refusal);
            }
        }
        None
    }

    /// Everything that is used or spent.
    fn counts(&mut self) -> Vec<u64> {
        let snapshot = self.broker.snapshot();
        let limits = snapshot.owners.iter().flat_map(|owner| &owner.limits);
        let limits = limits.chain(snapshot.egresses.iter().flat_map(|(_, limits)| limits));
        let callers = snapshot.owners.iter().flat_map(|owner| &owner.callers).map(|caller| caller.total);
        limits.map(|row| u64::from(row.used)).chain(callers.filter(|total| *total > 0)).collect()
    }

    fn act(&mut self, op: Op) {
        match op {
            Op::Ask(ask) => {
                self.ask(ask);
            }
            Op::Finish(which, how) if !self.running.is_empty() => self.finish(which % self.running.len(), how),
            Op::Cancel(which) if !self.waiting.is_empty() => {
                let (ticket, ..) = self.waiting.swap_remove(which % self.waiting.len());
                self.broker.cancel(ticket, self.now);
                assert_eq!(self.broker.take(ticket), Taken::Over);
            }
            Op::Abandon(which) if !self.running.is_empty() => {
                let (lease, owner, _) = self.running.swap_remove(which % self.running.len());
                self.leaving.push((owner, self.now.at + 5 * SECOND));
                self.broker.abandon(lease, self.now);
            }
            Op::Pass(milliseconds) => self.pass(milliseconds * 1000),
            Op::Step(seconds) => {
                self.now.unix = self.now.unix.saturating_add_signed(seconds);
                self.broker.due(self.now);
            }
            Op::Finish(..) | Op::Cancel(_) | Op::Abandon(_) => {}
        }
        self.wake();
        self.check();
    }

    fn finish(&mut self, which: usize, how: usize) {
        let (lease, owner, _) = self.running.swap_remove(which);
        let quotas = [
            ErrorType::QuotaParallelRequests,
            ErrorType::QuotaRequestsByIp,
            ErrorType::QuotaRequestsByUid,
            ErrorType::QuotaRequestsByCounterId,
        ];
        let outcome = match how {
            0 => Outcome::NotSent,
            1..=4 => Outcome::Refused { error_type: quotas[how - 1], may_repeat: true },
            _ => Outcome::Done,
        };
        if let Next::Again(ticket) = self.broker.finish(lease, self.now, outcome) {
            self.waiting.push((ticket, owner, self.now.at + 30 * SECOND));
        }
    }

    /// Time passes, with every call of `due` that the broker asks for.
    fn pass(&mut self, time: Micros) {
        let until = self.now.at + time;
        while let Some(next) = self.broker.next().filter(|next| *next <= until) {
            self.advance(next.max(self.now.at));
            let then = self.broker.due(self.now);
            assert!(then.is_none_or(|then| then > self.now.at), "due at {then:?}, now {}", self.now.at);
            self.wake();
        }
        self.advance(until);
        self.broker.due(self.now);
    }

    fn advance(&mut self, at: Micros) {
        self.now.unix += at / SECOND - self.now.at / SECOND;
        self.now.at = at;
    }

    fn wake(&mut self) {
        for ticket in self.broker.woken().collect::<Vec<_>>() {
            let position = self.waiting.iter().position(|(waiting, ..)| *waiting == ticket).unwrap();
            let (_, owner, _) = self.waiting.swap_remove(position);
            match self.broker.take(ticket) {
                Taken::Granted(lease) => self.running.push((lease, owner, self.now.at)),
                Taken::Refused(_) => {}
                other @ (Taken::Waiting | Taken::Over) => panic!("a woken ticket is {other:?}"),
            }
        }
    }

    fn check(&mut self) {
        self.leaving.retain(|(_, end)| *end > self.now.at);
        let snapshot = self.broker.snapshot();
        for (number, owner) in snapshot.owners.iter().enumerate() {
            let running = self.running.iter().filter(|(_, owner, _)| *owner == number).count();
            let leaving = self.leaving.iter().filter(|(owner, _)| *owner == number).count();
            let slots = &owner.limits[0];
            assert!(slots.used <= 3, "{} in flight", slots.used);
            assert_eq!(usize::try_from(slots.used).unwrap(), running + leaving, "slots are conserved");
            assert!(owner.limits[1].used <= 6 && owner.limits[2].used <= 60, "{:?}", owner.limits);
        }
        assert_eq!(usize::try_from(snapshot.waiting).unwrap(), self.waiting.len());
        for (ticket, _, deadline) in &self.waiting {
            assert!(*deadline > self.now.at, "{ticket:?} waits beyond its deadline");
        }
    }

    /// Lets every request in flight end after a second, until this time.
    fn serve(&mut self, until: Micros) {
        loop {
            let first = self.running.iter().map(|(_, _, granted)| granted + SECOND).min();
            let Some(next) = first.into_iter().chain(self.broker.next()).min().filter(|next| *next <= until) else {
                break;
            };
            self.pass(next.saturating_sub(self.now.at));
            while let Some(done) = self.running.iter().position(|(_, _, granted)| granted + SECOND <= self.now.at) {
                self.finish(done, 7);
                self.wake();
            }
        }
        self.pass(until.saturating_sub(self.now.at));
        self.wake();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, rng_seed: proptest::test_runner::RngSeed::Fixed(16), ..ProptestConfig::default() })]

    #[test]
    fn slots_are_conserved_and_every_wait_ends(ops in proptest::collection::vec(ops(), 1..120)) {
        let mut gate = Gate::new(&settings());
        ops.into_iter().for_each(|op| gate.act(op));
        // The rest ends: requests in flight one after the other, and those that wait by a grant or their deadline.
        for _ in 0..200 {
            while !gate.running.is_empty() {
                gate.act(Op::Finish(0, 7));
            }
            gate.act(Op::Pass(1000));
        }
        prop_assert_eq!(gate.waiting.len(), 0);
        let used = gate.broker.snapshot().owners.iter().map(|owner| owner.limits[0].used).sum::<u32>();
        prop_assert_eq!(used, 0);
    }

    #[test]
    fn a_request_repeated_after_the_indicated_time_is_served(
        asks in proptest::collection::vec((asks(), 0..800u64), 20..100), skipped in 0..20usize,
    ) {
        let mut gate = Gate::new(&settings());
        let mut refusals = 0;
        for (ask, pause) in asks {
            let (owner, rest) = (0, ask.rest.max(10));
            let ask = Ask { owner, rest, ..ask };
            if let Some(refusal) = gate.ask(ask) {
                refusals += 1;
                if refusals > skipped {
                    gate.serve(gate.now.at + refusal.after.seconds(0) * SECOND);
                    let again = gate.ask(ask);
                    // Those that waited already may spend the rest of the day meanwhile.
                    let is_spent = again.is_some_and(|again| again.limit == LimitName::Day && refusal.limit != LimitName::Day);
                    prop_assert!(again.is_none() || is_spent, "{:?}, and again {:?}", refusal, again);
                    gate.serve(gate.now.at + 31 * SECOND);
                    prop_assert_eq!(gate.waiting.len(), 0);
                    break;
                }
            }
            gate.serve(gate.now.at + pause * 1000);
        }
    }

    #[test]
    fn the_short_way_is_only_shorter(ops in proptest::collection::vec(ops(), 1..120)) {
        let callers = CALLERS.map(|name| CallerSettings::new(CallerId::new(name))).to_vec();
        let settings = Settings { callers, ..settings() };
        let mut short = Gate::new(&settings);
        let mut full = Gate { in_full: true, ..Gate::new(&settings) };
        for op in ops {
            short.act(op);
            full.act(op);
            prop_assert_eq!(format!("{:?}", short.broker), format!("{:?}", full.broker));
        }
    }

    #[test]
    fn a_polite_caller_is_served_soon(greedy in proptest::collection::vec(1..20usize, 1..3), slots in 1..4u32) {
        let limits = Limits::default().with_modes(Mode::Off).with_mode(LimitName::Parallel, Mode::Enforce);
        let callers = CALLERS.map(|name| CallerSettings::new(CallerId::new(name))).to_vec();
        let mut gate = Gate::new(&Settings {
            limits: limits.with_limit(LimitName::Parallel, slots),
            bounds: Bounds::default(),
            callers,
            ..settings()
        });
        let ask = |caller| Ask { owner: 0, caller, kind: 0, class: 1, rest: 60 };
        for (caller, count) in greedy.iter().enumerate() {
            (0..*count).for_each(|_| {
                gate.ask(ask(caller));
            });
        }
        gate.serve(1_500_000);
        let asked = gate.now.at;
        gate.ask(ask(3));
        let polite = gate.waiting.last().map(|(ticket, ..)| *ticket);
        let still = |gate: &Gate| gate.waiting.iter().any(|(ticket, ..)| Some(*ticket) == polite);
        while still(&gate) {
            gate.serve(gate.now.at + SECOND / 2);
            prop_assert!(gate.now.at - asked <= 4 * SECOND, "the greedy ones go on being served");
        }
    }
}

//! A fleet in virtual time, on real stores: the load of one gate on several, with the figures that it has to reach.

use metrica::error_type::ErrorType;

use super::fleet_midnight::wake_up;
use super::servers::{SERVERS, Store};
use super::world::{Client, Event, LEASE, NEVER, Pattern, READS, World, three_clients};
use super::*;
use crate::policy::names::CallerId;

/// As for one gate, and with these figures: the p95 of a burst's requests is within 20 % of that of one gate, over three loads.
#[test]
fn several_gates_share_three_slots_as_one_would() {
    for server in SERVERS {
        let mut alone = None;
        for gates in [1, 3, 5] {
            let dash = [1, 2, 3].map(|seed| shared_as_one(server, gates, seed)).iter().sum::<u64>() / 3;
            println!("{}, {gates} gates: dash takes {dash} ms on average", server.1);
            assert!(dash * 10 <= *alone.get_or_insert(dash) * 12, "dash takes {dash} ms, at one gate {alone:?}");
        }
    }
}

/// The p95 of a burst's requests, in milliseconds.
fn shared_as_one(server: (&str, &str), gates: usize, seed: u64) -> u64 {
    let world = World::fleet(gates, Store::start(server), &three_clients(), &[("etl", 300)], 600, seed).run();
    let (used, cron) = (world.percent_of(3), world.p95("cron", |seen| seen.granted));
    let dash = world.p95("dash", |seen| seen.ended);
    let (sent, calls) = (world.sent.len(), world.store.as_ref().unwrap().calls);
    println!(
        "{}, {gates} gates: {used} % of 3 slots, {} refused by Metrica, cron waits {cron} ms, dash takes {dash} ms (p95), {calls} calls for {sent} requests",
        server.1,
        world.too_many.len()
    );
    assert!(used >= 97, "{used} % of the slots are used");
    assert_eq!(world.too_many.len(), 0, "Metrica refused");
    assert!(cron <= 2 * 1700, "cron waits for {cron} ms");
    assert!(world.seen.iter().all(|seen| seen.refused.is_none()), "nobody is refused");
    dash
}

/// In the middle of the load, the store loses everything: three gates go on with one slot each, beside what is in flight.
#[test]
fn no_client_sees_that_a_store_is_emptied() {
    for server in SERVERS {
        let etl = Client { caller: "etl", service: (800, 6000), pattern: Pattern::Loop(SECOND / 100, NEVER), ..READS };
        let clients: Vec<_> = std::iter::repeat_n(etl, 30).chain([READS]).collect();
        let mut world = World::fleet(3, Store::start(server), &clients, &[("etl", 300)], 120, 1);
        world.at(40 * SECOND, Event::Emptied);
        world.at(80 * SECOND, Event::Emptied);
        let mut world = world.run();
        println!("{}: Metrica refused {} requests", server.1, world.too_many.len());
        assert!(world.too_many.len() <= 10, "Metrica refused at {:?}", world.too_many);
        assert!(world.seen.iter().all(|seen| !seen.passed && seen.refused.is_none()), "no client sees it");
        assert!(world.percent_of(3) >= 85, "{} % of the slots are used", world.percent_of(3));
        let lost: Vec<_> =
            world.brokers.iter_mut().map(|broker| broker.snapshot().fleet.unwrap().leases_lost).collect();
        assert!(lost.iter().sum::<u64>() > 0, "the loss is seen: {lost:?}");
    }
}

/// The first of a caller leaves, and the second takes its place in the store.
#[test]
fn who_waits_behind_a_request_that_leaves_is_served() {
    let mut fleet = Fleet::new(SERVERS[0]);
    let leases: Vec<_> = (0..3).map(|_| fleet.ask(0, ask(0, 0)).unwrap()).collect();
    let waits = |fleet: &mut Fleet| {
        let request = fleet.request(1, "one", Groups::CLIENT_READ, 0);
        let Answer::Wait(ticket) = fleet.brokers[1].ask(fleet.now, request) else { panic!("no slot is free") };
        fleet.call(1);
        ticket
    };
    let (first, second) = (waits(&mut fleet), waits(&mut fleet));
    fleet.brokers[1].cancel(first, fleet.now);
    fleet.call(1);
    // The address has room again.
    fleet.pass(500);
    for lease in leases {
        fleet.finish(0, lease, 7);
    }
    assert!(matches!(fleet.brokers[1].take(second), Taken::Granted(_)));
}

/// Another gate has used the 5 minutes: a request is told so at once, and when to come again.
#[test]
fn a_limit_that_other_gates_have_used_refuses_at_once() {
    let mut fleet = Fleet::new(SERVERS[0]);
    for _ in 0..6 {
        let lease = fleet.ask(0, ask(0, 1)).unwrap();
        fleet.finish(0, lease, 7);
        fleet.pass(1000);
    }
    let request = fleet.request(1, "one", Groups::REPORT_READ, 1);
    let Answer::Wait(ticket) = fleet.brokers[1].ask(fleet.now, request) else { panic!("it is not known here") };
    fleet.settle();
    let Taken::Refused(refusal) = fleet.brokers[1].take(ticket) else { panic!("it waits in vain") };
    assert_eq!((refusal.limit, refusal.reason), (LimitName::Reports5m, Reason::Wait));
    assert!((290..=300).contains(&refusal.after.seconds(0)), "{refusal:?}");
}

/// A gate that never reached its store uses a part of every limit, also of those of counters that it sees for the first time.
#[test]
fn a_gate_without_its_store_has_a_part_of_every_limit() {
    let now = Now { at: 0, unix: NOON };
    let mut broker = Broker::new(&settings(), now);
    let fleet = FleetSettings { me: "g0".to_owned(), lease: LEASE, on_loss: OnLoss::Share, replicas: 3 };
    broker.join_fleet(Some(fleet), now);
    let grants = |broker: &mut Broker, seconds: u64| {
        let now = Now { at: seconds * SECOND, unix: NOON + seconds };
        let request = request(broker, "one", groups(3), 1);
        match broker.ask(now, request) {
            Answer::Granted(lease) => broker.finish(lease, now, Outcome::Done) == Next::Over,
            Answer::Wait(_) | Answer::Refused(_) => false,
        }
    };
    assert_eq!([grants(&mut broker, 1), grants(&mut broker, 2)], [true, false], "one of three grants of the hour");
}

/// The server's clock jumps by an hour, forward and back: no lease ends by that, and none stays.
#[test]
fn a_clock_that_jumps_ends_no_lease_and_keeps_none() {
    for server in SERVERS {
        let mut fleet = Fleet::new(server);
        let leases: Vec<_> = (0..3).map(|_| fleet.ask(0, ask(0, 0)).unwrap()).collect();
        for jump in [3_600_000, -7_200_000, 3_600_000] {
            fleet.skew += jump;
            assert!(fleet.ask(1, ask(0, 0)).is_none(), "three are in flight, whatever the clock shows");
            fleet.pass(2000);
            assert!(fleet.ask(1, ask(0, 0)).is_none());
        }
        for lease in leases {
            fleet.finish(0, lease, 7);
        }
        assert!(fleet.ask(1, ask(0, 0)).is_some(), "the slots are free again");
    }
}

/// 10 gates with 200 callers, over the end of a day: budgets hold, the store is hardly used, and not by all gates at once.
#[test]
fn many_gates_keep_a_budget_over_the_end_of_a_day() {
    for server in SERVERS {
        around_midnight(server, 5400);
    }
}

/// The same from one midnight to the next.
#[test]
#[ignore = "half a million calls: ./test.sh soak"]
fn many_gates_keep_a_budget_for_a_whole_day() {
    for server in SERVERS {
        around_midnight(server, 86_400);
    }
}

/// From so many seconds before midnight, until after it.
fn around_midnight(server: (&str, &str), before: u64) {
    let mut fleet = Fleet::of(10, server, |settings| {
        settings.callers = (0..200)
            .map(|number| CallerSettings {
                per_day: Some(3),
                ..CallerSettings::new(CallerId::new(&format!("c{number}")))
            })
            .collect();
        settings.limits = Limits::default().with_limit(LimitName::Day, 500);
    });
    let (midnight, mut served) = (20_001 * 86_400, [0_u32; 2]);
    fleet.now.unix = midnight - before;
    for day in 0..2 {
        for number in 0..1000_usize {
            let request = fleet.request(number % 10, &format!("c{}", number % 200), Groups::CLIENT_READ, 0);
            if let Some(lease) = fleet.ask_for(number % 10, request) {
                served[day] += 1;
                fleet.finish(number % 10, lease, 7);
            }
            fleet.pass(40);
        }
        while day == 0 && fleet.now.unix < midnight - 10 {
            fleet.pass(60_000.min((midnight - 10 - fleet.now.unix) * 1000));
        }
        if day == 0 {
            served[1] += wake_up(&mut fleet, midnight);
        }
    }
    assert_eq!(served, [500; 2], "the day of the account: 600 were the budgets of all callers");
    let (seconds, calls) =
        (fleet.store.figure("cpu", "used_cpu_user") + fleet.store.figure("cpu", "used_cpu_sys"), fleet.store.calls);
    println!("{calls} calls took {:.0} µs each of the store", seconds * 1e6 / f64::from(u32::try_from(calls).unwrap()));
}

/// One request: owner, caller, kind.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ask {
    pub(super) caller: usize,
    pub(super) kind: usize,
}

pub(super) const fn ask(caller: usize, kind: usize) -> Ask {
    Ask { caller, kind }
}

pub(super) const CALLERS: [&str; 4] = ["one", "two", "three", "four"];
pub(super) const NOON: u64 = 20_000 * 86_400 + 43_200;

pub(super) fn settings() -> Settings {
    let mut callers = CALLERS.map(|name| CallerSettings::new(CallerId::new(name)));
    callers[1].per_day = Some(9);
    callers[2].per_5m = Some(4);
    callers[3].share = Some(20);
    Settings {
        limits: Limits::default().with_limit(LimitName::Reports5m, 6).with_limit(LimitName::Day, 40),
        owners: vec![OwnerName::new("shop")],
        egresses: vec![EgressName::new("default")],
        callers: callers.to_vec(),
        ..Settings::default()
    }
}

pub(super) fn groups(kind: usize) -> Groups {
    [
        Groups::CLIENT_READ,
        Groups::REPORT_READ,
        Groups::LOGS,
        Groups::GRANTS.with(Groups::CLIENT_WRITE),
        Groups::DELEGATES.with(Groups::CLIENT_WRITE),
    ][kind]
}

pub(super) fn request(broker: &Broker, caller: &str, groups: Groups, counters: usize) -> Request {
    Request {
        owner: broker.owner(OwnerName::new("shop")).unwrap(),
        caller: broker.caller(CallerId::new(caller)).unwrap(),
        egress: broker.egress(EgressName::new("default")).unwrap(),
        groups,
        class: Class::Normal,
        counters: Counters::of(&[7, 8, 9][..counters]),
        rest: 60 * SECOND,
    }
}

/// Gates that ask and give up at once, if nothing is granted at once.
pub(super) struct Fleet {
    pub(super) brokers: Vec<Broker>,
    pub(super) store: Store,
    pub(super) now: Now,
    /// What the server's clock is ahead, in milliseconds.
    skew: i64,
}

impl Fleet {
    pub(super) fn new(server: (&str, &str)) -> Self {
        Self::of(2, server, |_| {})
    }

    pub(super) fn of(gates: usize, server: (&str, &str), change: impl Fn(&mut Settings)) -> Self {
        let mut settings = settings();
        change(&mut settings);
        let now = Now { at: 0, unix: NOON };
        let mut brokers: Vec<_> = (0..gates).map(|_| Broker::new(&settings, now)).collect();
        for (gate, broker) in brokers.iter_mut().enumerate() {
            let fleet = FleetSettings { me: format!("g{gate}"), lease: LEASE, on_loss: OnLoss::Share, replicas: 2 };
            broker.join_fleet(Some(fleet), now);
        }
        let mut fleet = Self { brokers, store: Store::start(server), now, skew: 0 };
        fleet.begin();
        fleet
    }

    /// From the start: the store is empty, and its first lease passes.
    pub(super) fn begin(&mut self) {
        (0..self.brokers.len()).for_each(|gate| self.call(gate));
        self.pass(6000);
        assert!(self.brokers.iter_mut().all(|broker| broker.snapshot().fleet.unwrap().is_store_up));
    }

    /// The next call of a gate gets no answer, whether it arrives or not.
    pub(super) fn lose(&mut self, gate: usize, arrives: bool) {
        let mut call = self.brokers[gate].call(self.now).unwrap();
        call.time = Some(NOON * 1000 + self.now.at / 1000);
        if arrives {
            let _ = self.store.call(&call);
        }
        self.brokers[gate].store_is_away(self.now);
    }

    pub(super) fn call(&mut self, gate: usize) {
        if let Some(call) = self.begin_call(gate) {
            self.end_call(gate, &call);
        }
    }

    /// The next call of a gate.
    pub(super) fn begin_call(&mut self, gate: usize) -> Option<Call> {
        let mut call = self.brokers[gate].call(self.now)?;
        call.time = Some((NOON * 1000 + self.now.at / 1000).saturating_add_signed(self.skew));
        Some(call)
    }

    /// The store answers the call of a gate.
    pub(super) fn end_call(&mut self, gate: usize, call: &Call) {
        let (reply, messages) = self.store.call(call);
        self.brokers[gate].reply(&reply, false, self.now);
        for (name, told) in messages {
            let now = self.now;
            for (gate, broker) in self.brokers.iter_mut().enumerate() {
                if name == "all" || name == format!("g{gate}") {
                    broker.told(&told, now);
                }
            }
        }
    }

    /// Gates tell the store what they have to, until none has anything.
    pub(super) fn settle(&mut self) {
        while let Some(gate) = (0..self.brokers.len()).find(|gate| self.brokers[*gate].has_orders()) {
            self.call(gate);
        }
        for broker in &mut self.brokers {
            let _ = broker.woken().count();
        }
    }

    /// Time passes, in steps in which gates show that they live.
    pub(super) fn pass(&mut self, milliseconds: u64) {
        let mut left = milliseconds;
        while left > 0 {
            let step = left.min(1600);
            left -= step;
            let before = self.now.at / SECOND;
            self.now.at += step * 1000;
            self.now.unix += self.now.at / SECOND - before;
            for gate in 0..self.brokers.len() {
                let _ = self.brokers[gate].due(self.now);
                if step == 1600 || self.brokers[gate].has_orders() {
                    self.call(gate);
                }
            }
        }
    }

    pub(super) fn request(&self, gate: usize, caller: &str, groups: Groups, counters: usize) -> Request {
        request(&self.brokers[gate], caller, groups, counters)
    }

    pub(super) fn ask(&mut self, gate: usize, ask: Ask) -> Option<Lease> {
        let request = self.request(gate, CALLERS[ask.caller], groups(ask.kind), ask.kind.min(3));
        self.ask_for(gate, request)
    }

    fn ask_for(&mut self, gate: usize, request: Request) -> Option<Lease> {
        let ticket = match self.brokers[gate].ask(self.now, request) {
            Answer::Wait(ticket) => ticket,
            Answer::Granted(_) => panic!("a gate of a fleet granted something by itself"),
            Answer::Refused(_) => return None,
        };
        self.call(gate);
        let taken = self.brokers[gate].take(ticket);
        let _ = self.brokers[gate].woken().count();
        match taken {
            Taken::Granted(lease) => return Some(lease),
            Taken::Waiting => self.brokers[gate].cancel(ticket, self.now),
            Taken::Refused(_) | Taken::Over => {}
        }
        self.call(gate);
        None
    }

    pub(super) fn finish(&mut self, gate: usize, lease: Lease, how: usize) {
        if how == 6 {
            self.brokers[gate].abandon(lease, self.now);
        } else {
            let _ = self.brokers[gate].finish(lease, self.now, outcome(how));
        }
        self.call(gate);
    }
}

pub(super) fn outcome(how: usize) -> Outcome {
    let quotas = [
        ErrorType::QuotaParallelRequests,
        ErrorType::QuotaRequestsByIp,
        ErrorType::QuotaGrantsRequests,
        ErrorType::QuotaDelegateRequests,
    ];
    match how {
        0 => Outcome::NotSent,
        1..=4 => Outcome::Refused { error_type: quotas[how - 1], may_repeat: false },
        _ => Outcome::Done,
    }
}

//! Virtual time: clients, the broker, and a model of Metrica that counts for itself, the judge.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::time::Duration;

use metrica::error_type::ErrorType;

use super::servers::Store;
use super::*;
use crate::policy::names::CallerId;

/// The pattern of a client.
#[derive(Clone, Copy)]
pub(super) enum Pattern {
    /// One after the other, with a pause; until this time.
    Loop(Micros, Micros),
    /// Bursts of so many, at random with this mean.
    Bursts(u64, f64),
    /// One at each interval, whatever becomes of it.
    Every(Micros),
}

#[derive(Clone, Copy)]
pub(super) struct Client {
    pub(super) owner: u16,
    pub(super) caller: &'static str,
    pub(super) groups: Groups,
    pub(super) class: Class,
    /// The least and the longest time that Metrica needs, in milliseconds.
    pub(super) service: (u64, u64),
    pub(super) pattern: Pattern,
}

pub(super) const NEVER: Micros = Micros::MAX;
pub(super) const READS: Client = Client {
    owner: 0,
    caller: "cron",
    groups: Groups::CLIENT_READ,
    class: Class::Normal,
    service: (400, 3000),
    pattern: Pattern::Loop(2 * SECOND, NEVER),
};

/// A greedy caller with 64 requests at once, of which each takes twice as long; bursts of 5; one after the other.
pub(super) fn three_clients() -> Vec<Client> {
    let etl = Client { caller: "etl", service: (800, 6000), pattern: Pattern::Loop(SECOND / 100, NEVER), ..READS };
    let dash = Client { caller: "dash", pattern: Pattern::Bursts(5, 20.0), ..READS };
    std::iter::repeat_n(etl, 64).chain([dash, READS]).collect()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Event {
    Ask(usize),
    End(usize),
    TooMany(usize),
    Outsider(usize),
    /// A gate shows that it lives.
    Beat(usize),
    /// The store loses everything.
    Emptied,
}

/// The fate of one request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen {
    pub(super) client: usize,
    pub(super) asked: Micros,
    pub(super) granted: Option<Micros>,
    pub(super) ended: Option<Micros>,
    pub(super) refused: Option<(Micros, Refusal)>,
    pub(super) passed: bool,
}

pub(super) struct World {
    /// The brokers of the gates; the clients use them in turn.
    pub(super) brokers: Vec<Broker>,
    pub(super) store: Option<Store>,
    pub(super) now: Micros,
    pub(super) clients: Vec<Client>,
    pub(super) events: BinaryHeap<Reverse<(Micros, u64, Event)>>,
    pub(super) number: u64,
    pub(super) random: fastrand::Rng,
    pub(super) seen: Vec<Seen>,
    pub(super) waiting: BTreeMap<(usize, Ticket), usize>,
    pub(super) running: BTreeMap<usize, Lease>,
    /// Metrica's own count: requests in flight of each owner, slots that somebody else uses, and the times of requests.
    pub(super) in_flight: BTreeMap<u16, usize>,
    pub(super) outsider: usize,
    pub(super) sent: Vec<Micros>,
    pub(super) too_many: Vec<Micros>,
    pub(super) busy: Micros,
    pub(super) end: Micros,
}

/// The length of a lease of the fleet.
pub(super) const LEASE: Micros = 5 * SECOND;

pub(super) const MIDNIGHT: u64 = 20_000 * 86_400;

impl World {
    /// Creates one gate without a store.
    pub(super) fn new(clients: &[Client], waits: &[(&'static str, u64)], end: u64, seed: u64) -> Self {
        Self::build(1, clients, waits, end, seed)
    }

    /// Creates several gates with a store.
    pub(super) fn fleet(
        gates: usize,
        store: Store,
        clients: &[Client],
        waits: &[(&'static str, u64)],
        end: u64,
        seed: u64,
    ) -> Self {
        let mut world = Self::build(gates, clients, waits, end, seed);
        for (gate, broker) in world.brokers.iter_mut().enumerate() {
            let settings = FleetSettings { me: format!("g{gate}"), lease: LEASE, on_loss: OnLoss::Share, replicas: 3 };
            broker.join_fleet(Some(settings), Now { at: 0, unix: MIDNIGHT });
        }
        world.store = Some(store);
        (0..gates).for_each(|gate| {
            world.call(gate, true);
            // Gates do not beat in step.
            let first = world.random.u64(0..LEASE / 3);
            world.at(first, Event::Beat(gate));
        });
        world
    }

    fn build(gates: usize, clients: &[Client], waits: &[(&'static str, u64)], end: u64, seed: u64) -> Self {
        let mut callers: Vec<_> = clients.iter().map(|client| client.caller).collect();
        callers.sort_unstable();
        callers.dedup();
        let wait = |name: &str| waits.iter().find(|(one, _)| *one == name).map_or(30, |(_, wait)| *wait);
        let caller =
            |name: &&str| CallerSettings { wait: wait(name) * SECOND, ..CallerSettings::new(CallerId::new(name)) };
        let settings = Settings {
            owners: (0..16).map(|number| OwnerName::new(&format!("owner{number}"))).collect(),
            egresses: vec![EgressName::new("default")],
            callers: callers.iter().map(caller).collect(),
            ..Settings::default()
        };
        let brokers = (0..gates).map(|_| Broker::new(&settings, Now { at: 0, unix: MIDNIGHT })).collect();
        let mut world = Self {
            brokers,
            store: None,
            now: 0,
            clients: clients.to_vec(),
            events: BinaryHeap::new(),
            number: 0,
            random: fastrand::Rng::with_seed(seed),
            seen: Vec::new(),
            waiting: BTreeMap::new(),
            running: BTreeMap::new(),
            in_flight: BTreeMap::new(),
            outsider: 0,
            sent: Vec::new(),
            too_many: Vec::new(),
            busy: 0,
            end: end * SECOND,
        };
        for client in 0..clients.len() {
            let first = world.random.u64(0..SECOND);
            world.at(first, Event::Ask(client));
        }
        world
    }

    pub(super) fn at(&mut self, time: Micros, event: Event) {
        self.number += 1;
        self.events.push(Reverse((time, self.number, event)));
    }

    pub(super) fn now(&self) -> Now {
        Now { at: self.now, unix: MIDNIGHT + self.now / SECOND }
    }

    pub(super) fn run(mut self) -> Self {
        loop {
            let event = self.events.peek().map(|Reverse((time, ..))| *time);
            let due = self.brokers.iter().flat_map(|broker| [broker.next(), broker.next_call()]).flatten();
            let Some(next) = due.chain(event).min().filter(|next| *next < self.end) else { return self };
            let next = next.max(self.now);
            assert!(event.is_none_or(|event| event >= self.now), "an event in the past");
            self.now = next;
            if event == Some(next) {
                let Reverse((.., event)) = self.events.pop().unwrap();
                self.step(event);
            } else {
                self.due();
            }
            self.wake();
            self.exchange();
        }
    }

    /// Time has passed for every gate.
    fn due(&mut self) {
        let now = self.now();
        for gate in 0..self.brokers.len() {
            let then = self.brokers[gate].due(now);
            assert!(then.is_none_or(|then| then > self.now), "the broker wants to be called at once again");
            if self.brokers[gate].next_call().is_some_and(|wake| wake <= self.now) {
                self.call(gate, false);
            }
        }
    }

    fn wake(&mut self) {
        for gate in 0..self.brokers.len() {
            let woken: Vec<_> = self.brokers[gate].woken().collect();
            for ticket in woken {
                let request = self.waiting.remove(&(gate, ticket)).unwrap();
                match self.brokers[gate].take(ticket) {
                    Taken::Granted(lease) => self.send(request, lease),
                    Taken::Refused(refusal) => self.refuse(request, refusal),
                    other @ (Taken::Waiting | Taken::Over) => panic!("a woken ticket is {other:?}"),
                }
            }
        }
    }

    /// Makes calls until no gate has anything to report.
    fn exchange(&mut self) {
        while let Some(gate) = self.brokers.iter().position(Broker::has_orders) {
            self.call(gate, false);
            self.wake();
        }
    }

    fn call(&mut self, gate: usize, is_new: bool) {
        let now = self.now();
        let (Some(store), Some(mut call)) = (&mut self.store, self.brokers[gate].call(now)) else { return };
        call.time = Some(MIDNIGHT * 1000 + self.now / 1000);
        let (reply, messages) = store.call(&call);
        self.brokers[gate].reply(&reply, is_new, now);
        for (name, told) in messages {
            let now = self.now();
            for (gate, broker) in self.brokers.iter_mut().enumerate() {
                if name == "all" || name == format!("g{gate}") {
                    broker.told(&told, now);
                }
            }
        }
        self.wake();
    }

    /// The gate of a client: they use them in turn.
    pub(super) const fn gate_of(&self, client: usize) -> usize {
        client % self.brokers.len()
    }

    pub(super) fn step(&mut self, event: Event) {
        match event {
            Event::Ask(client) => self.arrive(client),
            Event::Outsider(slots) => self.outsider = slots,
            Event::Beat(gate) => {
                let now = self.now();
                self.brokers[gate].ask_again(now);
                self.call(gate, false);
                self.at(self.now + LEASE / 3, Event::Beat(gate));
            }
            Event::Emptied => self.store.as_mut().unwrap().empty(),
            Event::End(request) => {
                let client = self.seen[request].client;
                *self.in_flight.get_mut(&self.clients[client].owner).unwrap() -= 1;
                self.seen[request].ended = Some(self.now);
                let lease = self.running.remove(&request).unwrap();
                let now = self.now();
                let gate = self.gate_of(client);
                assert_eq!(self.brokers[gate].finish(lease, now, Outcome::Done), Next::Over);
                self.again(client, 0);
            }
            Event::TooMany(request) => {
                let lease = self.running.remove(&request).unwrap();
                let outcome = Outcome::Refused { error_type: ErrorType::QuotaParallelRequestsByUid, may_repeat: true };
                let gate = self.gate_of(self.seen[request].client);
                let now = self.now();
                match self.brokers[gate].finish(lease, now, outcome) {
                    Next::Again(ticket) => {
                        self.waiting.insert((gate, ticket), request);
                    }
                    Next::Over | Next::Pass(_) => {
                        self.seen[request].passed = true;
                        self.again(self.seen[request].client, SECOND);
                    }
                }
            }
        }
    }

    pub(super) fn arrive(&mut self, client: usize) {
        match self.clients[client].pattern {
            Pattern::Loop(_, until) if self.now >= until => {}
            Pattern::Loop(..) => self.ask(client),
            Pattern::Bursts(size, mean) => {
                (0..size).for_each(|_| self.ask(client));
                let pause = Duration::from_secs_f64(-(1.0 - self.random.f64()).ln() * mean);
                self.at(self.now + u64::try_from(pause.as_micros()).unwrap(), Event::Ask(client));
            }
            Pattern::Every(interval) => {
                self.ask(client);
                self.at(self.now + interval, Event::Ask(client));
            }
        }
    }

    pub(super) fn ask(&mut self, client: usize) {
        let Client { owner, caller, groups, class, .. } = self.clients[client];
        let gate = self.gate_of(client);
        let now = self.now();
        let request = Request {
            owner: self.brokers[gate].owner(OwnerName::new(&format!("owner{owner}"))).unwrap(),
            caller: self.brokers[gate].caller(CallerId::new(caller)).unwrap(),
            egress: self.brokers[gate].egress(EgressName::new("default")).unwrap(),
            groups,
            class,
            counters: Counters::of(&[44_147_844]),
            rest: 600 * SECOND,
        };
        let number = self.seen.len();
        self.seen.push(Seen { client, asked: self.now, granted: None, ended: None, refused: None, passed: false });
        match self.brokers[gate].ask(now, request) {
            Answer::Granted(lease) => self.send(number, lease),
            Answer::Wait(ticket) => {
                self.waiting.insert((gate, ticket), number);
            }
            Answer::Refused(refusal) => self.refuse(number, refusal),
        }
    }

    pub(super) fn send(&mut self, request: usize, lease: Lease) {
        let client = self.clients[self.seen[request].client];
        self.seen[request].granted.get_or_insert(self.now);
        self.running.insert(request, lease);
        self.sent.push(self.now);
        let in_flight = self.in_flight.entry(client.owner).or_default();
        if *in_flight + self.outsider >= 3 {
            self.too_many.push(self.now);
            return self.at(self.now + SECOND / 50, Event::TooMany(request));
        }
        *in_flight += 1;
        let time = self.random.u64(client.service.0..=client.service.1) * 1000;
        self.busy += time.min(self.end - self.now);
        self.at(self.now + time, Event::End(request));
    }

    pub(super) fn refuse(&mut self, request: usize, refusal: Refusal) {
        self.seen[request].refused = Some((self.now, refusal));
        let jitter = self.random.u16(..);
        self.again(self.seen[request].client, refusal.after.seconds(jitter) * SECOND);
    }

    /// A client that sends one after the other goes on.
    pub(super) fn again(&mut self, client: usize, later: Micros) {
        if let Pattern::Loop(pause, _) = self.clients[client].pattern {
            self.at(self.now + pause + later, Event::Ask(client));
        }
    }

    pub(super) fn of(&self, caller: &'static str) -> impl Iterator<Item = &Seen> {
        self.seen.iter().filter(move |seen| self.clients[seen.client].caller == caller)
    }

    /// In milliseconds: 95 of 100 are at most this.
    pub(super) fn p95(&self, caller: &'static str, time: impl Fn(&Seen) -> Option<Micros>) -> u64 {
        let mut times: Vec<_> = self.of(caller).filter_map(|seen| Some((time(seen)? - seen.asked) / 1000)).collect();
        times.sort_unstable();
        times[(times.len() - 1) * 95 / 100]
    }

    pub(super) fn percent_of(&self, slots: u64) -> u64 {
        self.busy * 100 / (slots * self.end)
    }

    /// The highest number of requests in any window of this length.
    pub(super) fn most_within(&self, window: Micros) -> usize {
        let mut recent = VecDeque::new();
        let mut most = 0;
        for time in &self.sent {
            recent.push_back(*time);
            while recent.front().is_some_and(|first| first + window <= *time) {
                recent.pop_front();
            }
            most = most.max(recent.len());
        }
        most
    }
}

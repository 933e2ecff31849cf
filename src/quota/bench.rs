//! A broker with owners and callers, for tests of the numbered rules.

use metrica::error_type::ErrorType;

use super::*;
use crate::policy::names::CallerId;

/// Noon, so that a test has twelve hours before the day restarts.
const NOON: u64 = 20_000 * 86_400 + 43_200;

/// A broker with owners `a` and `b`, and callers `one` to `four`.
pub(super) struct Bench {
    pub(super) broker: Broker,
    pub(super) now: Now,
}

pub(super) fn settings() -> Settings {
    Settings {
        owners: ["a", "b"].map(OwnerName::new).to_vec(),
        egresses: vec![EgressName::new("default")],
        callers: ["one", "two", "three", "four"].map(|name| CallerSettings::new(CallerId::new(name))).to_vec(),
        ..Settings::default()
    }
}

impl Bench {
    pub(super) fn new(change: impl FnOnce(&mut Settings)) -> Self {
        let mut settings = settings();
        change(&mut settings);
        let now = Now { at: 0, unix: NOON };
        Self { broker: Broker::new(&settings, now), now }
    }

    pub(super) fn with(limits: Limits) -> Self {
        Self::new(|settings| settings.limits = limits)
    }

    pub(super) fn later(&mut self, milliseconds: u64) {
        let before = self.now.at / SECOND;
        self.now.at += milliseconds * 1000;
        self.now.unix += self.now.at / SECOND - before;
        let _ = self.broker.due(self.now);
    }

    pub(super) fn request(&self, caller: &str) -> Request {
        Request {
            owner: self.broker.owner(OwnerName::new("a")).unwrap(),
            caller: self.broker.caller(CallerId::new(caller)).unwrap(),
            egress: self.broker.egress(EgressName::new("default")).unwrap(),
            groups: Groups::CLIENT_READ,
            class: Class::Normal,
            counters: Counters::of(&[7]),
            rest: 3600 * SECOND,
        }
    }

    pub(super) fn report(&self, caller: &str) -> Request {
        Request { groups: Groups::REPORT_READ, ..self.request(caller) }
    }

    pub(super) fn ask(&mut self, caller: &str) -> Answer {
        self.broker.ask(self.now, self.request(caller))
    }

    pub(super) fn ask_for(&mut self, request: Request) -> Answer {
        self.broker.ask(self.now, request)
    }

    pub(super) fn done(&mut self, lease: Lease) {
        assert_eq!(self.broker.finish(lease, self.now, Outcome::Done), Next::Over);
    }

    pub(super) fn refused(&mut self, lease: Lease, error_type: ErrorType) -> Next {
        self.broker.finish(lease, self.now, Outcome::Refused { error_type, may_repeat: true })
    }

    /// Sends a request to its end at once.
    pub(super) fn spend(&mut self, request: Request) {
        let lease = granted(self.ask_for(request));
        self.done(lease);
    }

    pub(super) fn row(&mut self, limit: LimitName) -> LimitRow {
        let snapshot = self.broker.snapshot();
        let all = snapshot.owners.into_iter().take(1).flat_map(|owner| owner.limits);
        let mut all = all.chain(snapshot.egresses.into_iter().flat_map(|(_, limits)| limits));
        all.find(|row| row.limit == limit.as_str()).unwrap()
    }

    /// The order in which the tickets are granted, with one slot in turn for each.
    pub(super) fn order(&mut self, mut leases: Vec<Lease>, tickets: &[(Ticket, &'static str)]) -> Vec<&'static str> {
        let mut order = Vec::new();
        while order.len() < tickets.len() {
            self.later(1000);
            if !leases.is_empty() {
                let lease = leases.remove(0);
                self.done(lease);
            }
            for ticket in self.broker.woken().collect::<Vec<_>>() {
                leases.push(taken(self.broker.take(ticket)));
                order.push(tickets.iter().find(|(one, _)| *one == ticket).unwrap().1);
            }
        }
        order
    }
}

pub(super) fn granted(answer: Answer) -> Lease {
    let Answer::Granted(lease) = answer else { panic!("{answer:?}") };
    lease
}

pub(super) fn waits(answer: Answer) -> Ticket {
    let Answer::Wait(ticket) = answer else { panic!("{answer:?}") };
    ticket
}

pub(super) fn is_refused(answer: Answer) -> Refusal {
    let Answer::Refused(refusal) = answer else { panic!("{answer:?}") };
    refusal
}

pub(super) fn taken(taken: Taken) -> Lease {
    let Taken::Granted(lease) = taken else { panic!("{taken:?}") };
    lease
}

pub(super) fn only(name: LimitName, limit: u32) -> Limits {
    Limits::default().with_modes(Mode::Off).with_limit(name, limit).with_mode(name, Mode::Enforce)
}

//! What Metrica's refusals teach (rule 9 of the module).

use metrica::error_type::ErrorType;

use super::clock::{Micros, SECOND};
use super::ledger::{Charge, Ledger, count};
use super::limit::{Groups, Limit, LimitName};
use super::meter::{Meter, Room};
use super::refusal::After;

/// `Retry-After` of a refusal that teaches nothing.
const UNKNOWN: Micros = 30 * SECOND;

impl Ledger {
    /// Learns from a refusal by its type. Returns the limit that was met, if the type tells.
    pub(super) fn learn(&mut self, charge: &Charge<'_>, error_type: ErrorType) -> Option<LimitName> {
        self.has_learned = true;
        let is_logs = charge.groups.meets(Groups::LOGS);
        let name = match error_type {
            ErrorType::QuotaParallelRequests | ErrorType::QuotaParallelRequestsByUid => LimitName::Parallel,
            ErrorType::QuotaRequestsByIp if is_logs => LimitName::LogsByIp,
            ErrorType::QuotaRequestsByIp => LimitName::ByIp,
            ErrorType::QuotaRequestsByUid => return Some(self.learn_by_uid(charge)),
            ErrorType::QuotaRequestsByCounterId => LimitName::CounterDay,
            ErrorType::QuotaDelegateRequests => LimitName::Delegates,
            ErrorType::QuotaGrantsRequests => LimitName::Grants,
            ErrorType::InvalidParameter
            | ErrorType::Unauthorized
            | ErrorType::AccessDenied
            | ErrorType::InvalidToken
            | ErrorType::CounterInConnect
            | ErrorType::NotFound
            | ErrorType::QuotaOther
            | ErrorType::BackendError
            | ErrorType::Timeout
            | ErrorType::Other => return None,
        };
        self.named(charge, name, |limit, meter, clock| {
            // A counter is also spent by others: its day is over only if the gate spent most of it.
            let is_certain = limit.name != LimitName::CounterDay || meter.is_high(limit, clock);
            meter.refuse(limit, clock, is_certain);
        });
        count(&mut self.learned, name);
        Some(name)
    }

    /// The type does not tell the 5 minutes from the day: the one of which the gate spent most, else a probing request.
    fn learn_by_uid(&mut self, charge: &Charge<'_>) -> LimitName {
        let mut is_high = |name| {
            let mut high = false;
            self.named(charge, name, |limit, meter, clock| {
                high |= limit.counts(charge.groups) && meter.is_high(limit, clock)
            });
            high
        };
        let is_report = charge.groups.meets(Groups::REPORT_READ);
        let (name, is_certain) = if is_report && is_high(LimitName::Reports5m) {
            (LimitName::Reports5m, true)
        } else if is_high(LimitName::Day) {
            (LimitName::Day, true)
        } else {
            (if is_report { LimitName::Reports5m } else { LimitName::Day }, false)
        };
        self.named(charge, name, |limit, meter, clock| meter.refuse(limit, clock, is_certain));
        count(&mut self.learned, name);
        name
    }

    /// The time after which a request that Metrica refused because of this limit may be repeated. `mean` is the mean time on
    /// a slot.
    pub(super) fn after(&mut self, charge: &Charge<'_>, name: Option<LimitName>, mean: Micros) -> After {
        let Some(name) = name else { return After(UNKNOWN) };
        let mut after = SECOND;
        self.named(charge, name, |limit, meter, clock| {
            after = after.max(match meter.room(limit, clock, 0, 0) {
                Room::At(at) => at.saturating_sub(clock.at()),
                Room::OnRelease => mean,
            });
        });
        After(after)
    }

    /// The time for which a limit is surely used up.
    pub(super) fn full_for(&mut self, charge: &Charge<'_>, name: LimitName) -> Option<Micros> {
        let mut longest = None;
        self.named(charge, name, |limit, meter, clock| longest = longest.max(meter.full_for(limit, clock)));
        longest
    }

    /// The counts of one limit for a request, whatever its mode.
    pub(super) fn named(
        &mut self,
        charge: &Charge<'_>,
        name: LimitName,
        mut act: impl FnMut(&Limit, &mut Meter, &super::clock::Clock),
    ) {
        let Self { clock, limits, owners, egresses, counters, .. } = self;
        let mut all = |limits: &[Limit], meters: &mut [Meter]| {
            for (limit, meter) in limits.iter().zip(meters).filter(|(limit, _)| limit.name == name) {
                act(limit, meter, clock);
            }
        };
        if let Some(meters) = owners.get_mut(charge.owner.index()) {
            all(&limits.owner, meters);
        }
        if let Some(meters) = egresses.get_mut(charge.egress.index()) {
            all(&limits.egress, meters);
        }
        if matches!(name, LimitName::CounterDay | LimitName::Grants) {
            for id in charge.counters.ids() {
                all(&limits.counter, &mut counters.touch(*id, &limits.counter, clock).meters);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::bench::*;
    use super::super::*;
    use super::ErrorType;

    #[test]
    fn rule_9_parallel_one_slot_fewer_and_back_after_quiet() {
        let mut bench = Bench::new(|_| {});
        let leases: Vec<_> = (0..3).map(|_| granted(bench.ask("one"))).collect();
        let mut effective = Vec::new();
        let mut tickets = Vec::new();
        for lease in leases {
            let Next::Again(ticket) = bench.refused(lease, ErrorType::QuotaParallelRequestsByUid) else {
                panic!("a read")
            };
            tickets.push(ticket);
            effective.push(bench.row(LimitName::Parallel).effective);
        }
        assert_eq!(effective, [2, 1, 1], "never none");
        assert_eq!(bench.broker.take(tickets[0]), Taken::Waiting, "with one slot, a refusal pauses");
        bench.later(1000);
        let lease = taken(bench.broker.take(tickets[0]));
        bench.later(10);
        bench.done(lease);
        tickets.iter().for_each(|ticket| bench.broker.cancel(*ticket, bench.now));
        for (time, slots) in [(28_980, 1), (10, 2), (29_990, 2), (10, 3)] {
            bench.later(time);
            assert_eq!(bench.row(LimitName::Parallel).effective, slots, "at {} s", bench.now.at / SECOND);
        }
    }

    #[test]
    fn rule_9_a_slot_that_was_lost_is_not_waited_for() {
        let mut bench = Bench::with(only(LimitName::Parallel, 3));
        let leases: Vec<_> = (0..3).map(|_| granted(bench.ask("one"))).collect();
        let mut leases = leases.into_iter();
        let lease = leases.next().unwrap();
        let outcome = Outcome::Refused { error_type: ErrorType::QuotaParallelRequests, may_repeat: false };
        let _ = bench.broker.finish(lease, bench.now, outcome);
        let ticket = waits(bench.ask_for(Request { rest: 5 * SECOND, ..bench.request("two") }));
        bench.later(1000);
        leases.for_each(|lease| bench.done(lease));
        let _lease = taken(bench.broker.take(ticket));
    }

    #[test]
    fn rule_9_a_refusal_by_address_causes_a_pause_and_a_slower_pace() {
        let mut bench = Bench::with(Limits::default().with_mode(LimitName::Parallel, Mode::Off));
        let mut speeds = Vec::new();
        for _ in 0..5 {
            let (one, two) = (granted(bench.ask("one")), bench.ask("two"));
            let _ = bench.broker.finish(
                one,
                bench.now,
                Outcome::Refused { error_type: ErrorType::QuotaRequestsByIp, may_repeat: false },
            );
            if let Answer::Granted(two) = two {
                let _ = bench.broker.finish(
                    two,
                    bench.now,
                    Outcome::Refused { error_type: ErrorType::QuotaRequestsByIp, may_repeat: false },
                );
            } else if let Answer::Wait(ticket) = two {
                bench.broker.cancel(ticket, bench.now);
            }
            speeds.push(bench.row(LimitName::ByIp).effective);
            let ticket = waits(bench.ask("one"));
            bench.broker.cancel(ticket, bench.now);
            bench.later(1001);
        }
        assert_eq!(speeds, [18, 13, 9, 8, 8], "times 0.7, not below 30 %; refusals in one pause are one");
        bench.later(60_000);
        assert_eq!(bench.row(LimitName::ByIp).effective, 10, "10 % more in a minute");
        bench.later(600_000);
        assert_eq!((bench.row(LimitName::ByIp).effective, bench.row(LimitName::ByIp).is_learned), (27, false));
        let logs = granted(bench.ask_for(Request { groups: Groups::LOGS, ..bench.request("one") }));
        let _ = bench.refused(logs, ErrorType::QuotaRequestsByIp);
        assert_eq!((bench.row(LimitName::ByIp).effective, bench.row(LimitName::LogsByIp).effective), (27, 6));
    }

    #[test]
    fn rule_9_a_refusal_by_login_blocks_the_most_used_limit() {
        let mut bench = Bench::with(Limits::default().with_limit(LimitName::Reports5m, 10));
        (0..8).for_each(|_| {
            bench.later(1000);
            bench.spend(bench.report("one"));
        });
        bench.later(1000);
        let lease = granted(bench.ask_for(bench.report("one")));
        assert_eq!(bench.refused(lease, ErrorType::QuotaRequestsByUid), Next::Pass(After(300 * SECOND)));
        assert_eq!(is_refused(bench.ask_for(bench.report("one"))).limit, LimitName::Reports5m);
        bench.spend(bench.request("one"));

        let mut bench = Bench::with(only(LimitName::Day, 10));
        (0..8).for_each(|_| bench.spend(bench.request("one")));
        let lease = granted(bench.ask("one"));
        assert_eq!(bench.refused(lease, ErrorType::QuotaRequestsByUid), Next::Pass(After(43_200 * SECOND)));
        assert_eq!(is_refused(bench.ask("one")).limit, LimitName::Day);
    }

    #[test]
    fn rule_9_a_refusal_by_login_with_little_usage_is_probed_by_one_request() {
        let mut bench = Bench::new(|settings| {
            settings.callers[1].wait = 0;
            settings.limits = Limits::default().with_mode(LimitName::ByIp, Mode::Off);
        });
        for pause in [30, 60, 120, 240, 480, 960, 960] {
            let lease = granted(bench.ask("two"));
            bench.later(100);
            assert_eq!(bench.refused(lease, ErrorType::QuotaRequestsByUid), Next::Pass(After(pause * SECOND)));
            assert_eq!(is_refused(bench.ask("two")).after, After(pause * SECOND));
            bench.later(pause * 1000);
        }
        let probe = granted(bench.ask("two"));
        assert_eq!(is_refused(bench.ask("two")).limit, LimitName::Day, "one at a time");
        bench.later(100);
        bench.done(probe);
        let _all: Vec<_> = (0..3).map(|_| granted(bench.ask("two"))).collect();
        let report = is_refused(bench.ask_for(bench.report("two")));
        assert_eq!(report.limit, LimitName::Parallel, "reports do not wait either");
    }

    #[test]
    fn rule_9_a_counter_waits_alone() {
        let mut bench = Bench::new(|settings| settings.callers[1].wait = 0);
        let (lease, early) = (granted(bench.ask("two")), granted(bench.ask("two")));
        bench.later(1000);
        assert_eq!(bench.refused(lease, ErrorType::QuotaRequestsByCounterId), Next::Pass(After(30 * SECOND)));
        bench.done(early);
        assert_eq!(is_refused(bench.ask("two")).limit, LimitName::CounterDay, "one that began earlier proves nothing");
        bench.spend(Request { counters: Counters::of(&[8]), ..bench.request("two") });
        assert_eq!(bench.broker.snapshot().counters_learned, 1);
        bench.later(30_000);
        bench.spend(bench.request("two"));
        assert_eq!(bench.broker.snapshot().counters_learned, 0);
    }

    #[test]
    fn rule_9_grants_and_delegates_wait_for_the_hour() {
        for (groups, error_type, limit) in [
            (Groups::GRANTS, ErrorType::QuotaGrantsRequests, LimitName::Grants),
            (Groups::DELEGATES, ErrorType::QuotaDelegateRequests, LimitName::Delegates),
        ] {
            let mut bench = Bench::new(|_| {});
            let request = Request { groups: groups.with(Groups::CLIENT_WRITE), ..bench.request("one") };
            bench.later(600_000);
            let lease = granted(bench.ask_for(request.clone()));
            assert_eq!(bench.refused(lease, error_type), Next::Pass(After(3000 * SECOND)));
            assert_eq!(is_refused(bench.ask_for(request.clone())).limit, limit);
            bench.later(3_000_000);
            (0..3).for_each(|_| {
                bench.later(1000);
                bench.spend(request.clone());
            });
            assert_eq!(is_refused(bench.ask_for(request)).limit, limit, "three in an hour");
        }
    }

    #[test]
    fn rule_9_two_kinds_of_refused_requests_are_repeated() {
        let refuse = |bench: &mut Bench, error_type, may_repeat| {
            let lease = granted(bench.ask("one"));
            bench.broker.finish(lease, bench.now, Outcome::Refused { error_type, may_repeat })
        };
        for (error_type, may_repeat, again) in [
            (ErrorType::QuotaParallelRequests, true, true),
            (ErrorType::QuotaRequestsByIp, true, true),
            (ErrorType::QuotaParallelRequests, false, false),
            (ErrorType::QuotaRequestsByUid, true, false),
            (ErrorType::QuotaRequestsByCounterId, true, false),
            (ErrorType::QuotaOther, true, false),
        ] {
            let next = refuse(&mut Bench::new(|_| {}), error_type, may_repeat);
            assert_eq!(matches!(next, Next::Again(_)), again, "{error_type:?}");
        }
        let observed = Limits::default().with_modes(Mode::Observe);
        let next = refuse(&mut Bench::with(observed), ErrorType::QuotaParallelRequests, true);
        assert!(matches!(next, Next::Pass(_)), "an observed limit does not act");

        let mut bench = Bench::new(|_| {});
        let mut lease = granted(bench.ask("one"));
        for attempt in 1..=3 {
            match bench.refused(lease, ErrorType::QuotaParallelRequests) {
                Next::Again(ticket) if attempt < 3 => {
                    bench.later(2000);
                    lease = taken(bench.broker.take(ticket));
                }
                Next::Pass(_) if attempt == 3 => break,
                Next::Over | Next::Again(_) | Next::Pass(_) => panic!("attempt {attempt}"),
            }
        }
        let mut bench = Bench::new(|_| {});
        let lease = granted(bench.ask_for(Request { rest: SECOND, ..bench.request("one") }));
        bench.later(1000);
        assert!(matches!(bench.refused(lease, ErrorType::QuotaParallelRequests), Next::Pass(_)), "its time is over");
    }
}

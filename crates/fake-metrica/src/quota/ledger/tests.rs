//! The rules of the quotas, one by one, and a property of all together.

use proptest::prelude::*;

use super::super::{Charged, TypeNames};
use super::*;

const LOGIN: &str = "shop";

fn at(seconds: u64) -> Duration {
    Duration::from_secs(20_000 * DAY + seconds)
}

fn plain() -> Charge {
    let address = IpAddr::from([192, 0, 2, 1]);
    Charge { login: Some(LOGIN.to_owned()), counters: vec![101], ..Charge::new(address, None) }
}

fn report(counters: &[u64]) -> Charge {
    Charge { is_report: true, counters: counters.to_vec(), ..plain() }
}

/// Takes and gives back at once.
fn once(ledger: &mut Ledger, charge: &Charge, now: Duration) -> Result<(), Limit> {
    let ticket = ledger.take(charge, now)?;
    if let Some(ticket) = ticket {
        ledger.give_back(ticket, true, now);
    }
    Ok(())
}

/// Returns the number of accepted requests out of a hundred, and the limit that refuses the next one.
fn accepted(ledger: &mut Ledger, charge: &Charge, now: Duration) -> (usize, Option<Limit>) {
    for count in 0..100 {
        if let Err(limit) = once(ledger, charge, now) {
            return (count, Some(limit));
        }
    }
    (100, None)
}

#[test]
fn rule_1_without_limits_everything_is_accepted_and_counted() {
    let mut ledger = Ledger::default();
    let tickets: Vec<_> = (0..7).map(|_| ledger.take(&report(&[101, 102]), at(0)).unwrap().unwrap()).collect();
    let usage = ledger.usage(at(0));
    assert_eq!((usage.login(LOGIN).in_parallel, usage.login(LOGIN).most_in_parallel), (7, 7));
    assert_eq!((usage.login(LOGIN).day, usage.login(LOGIN).reports_5m, usage.login(LOGIN).most_reports_5m), (7, 7, 7));
    assert_eq!((usage.counters[&101].day, usage.counters[&102].day), (7, 7));
    assert_eq!(usage.addresses[&IpAddr::from([192, 0, 2, 1])].most_in_a_second, 7);
    tickets.into_iter().for_each(|ticket| ledger.give_back(ticket, true, at(1)));
    let usage = ledger.usage(at(2));
    assert_eq!((usage.login(LOGIN).in_parallel, usage.login(LOGIN).most_in_parallel), (0, 7));
    assert_eq!(usage.addresses[&IpAddr::from([192, 0, 2, 1])].last_second, 0);
    assert_eq!(ledger.in_flight(), 0);
}

#[test]
fn rule_1_a_refused_request_is_charged_to_no_limit() {
    let mut ledger = Ledger::new(Quota { by_ip: Some(9), day: Some(9), counter_day: Some(2), ..Quota::default() });
    let both = report(&[101, 102]);
    assert_eq!(accepted(&mut ledger, &report(&[102]), at(0)), (2, Some(Limit::CounterDay)));
    let before = ledger.usage(at(0));
    assert_eq!(once(&mut ledger, &both, at(0)), Err(Limit::CounterDay));
    let after = ledger.usage(at(0));
    assert_eq!(before.counters, after.counters);
    assert_eq!(before.login(LOGIN).day, after.login(LOGIN).day);
    assert_eq!(accepted(&mut ledger, &plain(), at(0)), (2, Some(Limit::CounterDay)), "counter 101 was not charged");
}

#[test]
fn rule_2_a_slot_is_free_when_it_is_given_back() {
    let mut ledger = Ledger::new(Quota { parallel: Some(2), ..Quota::default() });
    let first = ledger.take(&plain(), at(0)).unwrap().unwrap();
    let second = ledger.take(&plain(), at(0)).unwrap().unwrap();
    assert_eq!(ledger.take(&plain(), at(900)), Err(Limit::Parallel));
    let other = Charge { login: Some("another".to_owned()), ..plain() };
    assert_eq!(once(&mut ledger, &other, at(900)), Ok(()));
    ledger.give_back(first, true, at(900));
    assert_eq!(once(&mut ledger, &plain(), at(900)), Ok(()));
    ledger.give_back(second, true, at(900));
    let usage = ledger.usage(at(900));
    assert_eq!(usage.login(LOGIN).refused, [(Limit::Parallel, 1)].into());
    assert_eq!(usage.refused[&Limit::Parallel], [("quota_parallel_requests_by_uid".to_owned(), 1)].into());
}

#[test]
fn rule_2_the_slot_of_a_departed_client_stays_occupied() {
    let abandoned = Duration::from_secs(5);
    let mut ledger = Ledger::new(Quota { parallel: Some(1), abandoned, ..Quota::default() });
    let ticket = ledger.take(&plain(), at(0)).unwrap().unwrap();
    ledger.give_back(ticket, false, at(1));
    assert_eq!(ledger.usage(at(5)).login(LOGIN).abandoned, 1);
    assert_eq!(ledger.take(&plain(), at(5)), Err(Limit::Parallel));
    assert_eq!(once(&mut ledger, &plain(), at(6)), Ok(()));
}

#[test]
fn rule_3_the_seconds_of_an_address_slide() {
    let mut ledger = Ledger::new(Quota { by_ip: Some(3), logs_by_ip: Some(1), ..Quota::default() });
    let logs = Charge { is_logs: true, ..plain() };
    assert_eq!(accepted(&mut ledger, &logs, at(0)), (1, Some(Limit::LogsByIp)));
    let half = at(0) + Duration::from_millis(500);
    assert_eq!(accepted(&mut ledger, &plain(), half), (2, Some(Limit::ByIp)));
    assert_eq!(accepted(&mut ledger, &plain(), at(1)), (1, Some(Limit::ByIp)));
    let elsewhere = Charge { address: IpAddr::from([192, 0, 2, 2]), login: None, ..plain() };
    assert_eq!(accepted(&mut ledger, &elsewhere, at(1)), (3, Some(Limit::ByIp)));
    assert_eq!(ledger.usage(at(1)).addresses[&plain().address].most_in_a_second, 5, "two were refused");
}

#[test]
fn rule_4_too_many_reports_lock_them_for_five_minutes() {
    let mut ledger = Ledger::new(Quota { reports_5m: Some(3), ..Quota::default() });
    once(&mut ledger, &report(&[101]), at(0)).unwrap();
    assert_eq!(accepted(&mut ledger, &report(&[101]), at(200)), (2, Some(Limit::Reports5m)));
    // The window has room again at 300, but the lock lasts until 500, and is not prolonged.
    assert_eq!(once(&mut ledger, &report(&[101]), at(499)), Err(Limit::Reports5m));
    assert_eq!(once(&mut ledger, &plain(), at(499)), Ok(()), "other requests are not locked");
    assert_eq!(ledger.usage(at(499)).login(LOGIN).reports_locked_ms, 1000);
    assert_eq!(accepted(&mut ledger, &report(&[101]), at(500)), (3, Some(Limit::Reports5m)));
}

#[test]
fn rule_4_without_too_many_reports_the_five_minutes_slide() {
    let mut ledger = Ledger::new(Quota { reports_5m: Some(2), ..Quota::default() });
    for seconds in [0, 200, 300, 500, 600] {
        assert_eq!(once(&mut ledger, &report(&[101]), at(seconds)), Ok(()), "{seconds}");
    }
    assert_eq!(ledger.usage(at(600)).login(LOGIN).most_reports_5m, 2);
}

#[test]
fn rule_5_a_day_restarts_at_midnight() {
    let mut ledger = Ledger::new(Quota { day: Some(2), ..Quota::default() });
    assert_eq!(accepted(&mut ledger, &plain(), at(DAY - 1)), (2, Some(Limit::Day)));
    assert_eq!(accepted(&mut ledger, &plain(), at(DAY)), (2, Some(Limit::Day)));
    assert_eq!(accepted(&mut ledger, &plain(), at(2 * DAY - 1)), (0, Some(Limit::Day)));
}

#[test]
fn rule_5_each_counter_of_a_report_is_charged() {
    let mut ledger = Ledger::new(Quota { counter_day: Some(3), ..Quota::default() });
    assert_eq!(accepted(&mut ledger, &report(&[101]), at(0)), (3, Some(Limit::CounterDay)));
    assert_eq!(accepted(&mut ledger, &report(&[102, 103]), at(0)), (3, Some(Limit::CounterDay)));
    assert_eq!(once(&mut ledger, &report(&[104, 103]), at(0)), Err(Limit::CounterDay));
    assert_eq!(accepted(&mut ledger, &report(&[104]), at(0)), (3, Some(Limit::CounterDay)));
    let nobody = Charge { login: Some("another".to_owned()), ..report(&[101]) };
    assert_eq!(once(&mut ledger, &nobody, at(0)), Err(Limit::CounterDay), "all logins share a counter");
}

#[test]
fn rule_6_grants_and_delegates_have_an_hour() {
    let mut ledger = Ledger::new(Quota { grants: Some(1), delegates: Some(2), ..Quota::default() });
    let (grant, delegate) = (Charge { is_grant: true, ..plain() }, Charge { is_delegate: true, ..plain() });
    assert_eq!(accepted(&mut ledger, &grant, at(HOUR - 1)), (1, Some(Limit::Grants)));
    assert_eq!(accepted(&mut ledger, &delegate, at(HOUR - 1)), (2, Some(Limit::Delegates)));
    assert_eq!(once(&mut ledger, &Charge { counters: vec![102], ..grant.clone() }, at(HOUR - 1)), Ok(()));
    assert_eq!(accepted(&mut ledger, &grant, at(HOUR)), (1, Some(Limit::Grants)));
    assert_eq!(accepted(&mut ledger, &delegate, at(HOUR)), (2, Some(Limit::Delegates)));
    assert_eq!(accepted(&mut ledger, &plain(), at(HOUR)), (100, None));
}

#[test]
fn rule_8_refused_requests_count_where_it_is_selected() {
    let day = |refused| {
        let quota = Quota { by_ip: Some(1), day: Some(3), reports_5m: Some(9), refused, ..Quota::default() };
        let mut ledger = Ledger::new(quota);
        for _ in 0..5 {
            let _ = once(&mut ledger, &report(&[101]), at(0));
        }
        let usage = ledger.usage(at(0));
        (usage.login(LOGIN).day, usage.counters[&101].day, usage.login(LOGIN).reports_5m, ledger)
    };
    let (login, counter, reports, _) = day(RefusedCount::Nowhere);
    assert_eq!((login, counter, reports), (1, 1, 1));
    let (login, counter, reports, mut ledger) = day(RefusedCount::Day);
    assert_eq!((login, counter, reports), (5, 5, 1));
    assert_eq!(once(&mut ledger, &plain(), at(2)), Err(Limit::Day));
    let (login, counter, reports, mut ledger) = day(RefusedCount::Everywhere);
    assert_eq!((login, counter, reports), (5, 5, 5));
    let late = at(0) + Duration::from_millis(999);
    assert_eq!(once(&mut ledger, &plain(), late), Err(Limit::ByIp));
    assert_eq!(once(&mut ledger, &plain(), at(1)), Err(Limit::ByIp), "the refusal half a second ago counted");
}

#[test]
fn rule_8_a_lock_is_prolonged_where_it_is_selected() {
    let quota = Quota { reports_5m: Some(1), refused: RefusedCount::Everywhere, ..Quota::default() };
    let mut ledger = Ledger::new(quota);
    for seconds in [0, 10, 299, 598] {
        assert_eq!(once(&mut ledger, &report(&[101]), at(seconds)).is_ok(), seconds == 0, "{seconds}");
    }
    assert_eq!(once(&mut ledger, &report(&[101]), at(898)), Ok(()));
}

fn slots(slots: u32, seconds: u64) -> Outsider {
    Outsider { slots: Some((slots, Duration::from_secs(seconds))), ..Outsider::default() }
}

#[test]
fn rule_9_an_outsider_takes_slots_that_are_free_or_become_free() {
    let mut ledger = Ledger::new(Quota { parallel: Some(3), ..Quota::default() });
    let tickets: Vec<_> = (0..2).map(|_| ledger.take(&plain(), at(0)).unwrap().unwrap()).collect();
    ledger.outsider(LOGIN, &slots(2, 60), at(0));
    let held = |ledger: &mut Ledger, now| {
        let login = ledger.usage(now).login(LOGIN);
        (login.in_parallel, login.outsider_wants, login.outsider_holds)
    };
    assert_eq!(held(&mut ledger, at(1)), (2, 2, 1));
    for (ticket, left) in tickets.into_iter().zip([1, 0]) {
        ledger.give_back(ticket, true, at(2));
        assert_eq!(held(&mut ledger, at(2)), (left, 2, 2));
    }
    let third = ledger.take(&plain(), at(59)).unwrap().unwrap();
    assert_eq!(ledger.take(&plain(), at(59)), Err(Limit::Parallel));
    let fourth = ledger.take(&plain(), at(60)).unwrap().unwrap();
    assert_eq!(held(&mut ledger, at(60)), (2, 0, 0));
    [third, fourth].into_iter().for_each(|ticket| ledger.give_back(ticket, true, at(61)));
    ledger.outsider(LOGIN, &slots(3, 60), at(61));
    assert_eq!(ledger.take(&plain(), at(62)), Err(Limit::Parallel));
    ledger.outsider(LOGIN, &slots(0, 60), at(62));
    assert_eq!(once(&mut ledger, &plain(), at(62)), Ok(()));
}

#[test]
fn rule_9_an_outsider_spends() {
    let quota = Quota { day: Some(10), reports_5m: Some(4), counter_day: Some(5), ..Quota::default() };
    let mut ledger = Ledger::new(quota);
    let spends = Outsider { day: 8, reports: 4, counters: vec![(102, 4)], ..Outsider::default() };
    ledger.outsider(LOGIN, &spends, at(0));
    assert_eq!(accepted(&mut ledger, &report(&[102]), at(300)), (1, Some(Limit::CounterDay)));
    assert_eq!(accepted(&mut ledger, &plain(), at(300)), (1, Some(Limit::Day)));
    assert_eq!(accepted(&mut ledger, &plain(), at(DAY)), (5, Some(Limit::CounterDay)));
    ledger.outsider(LOGIN, &Outsider { reports: 5, ..Outsider::default() }, at(DAY));
    assert_eq!(ledger.usage(at(DAY)).login(LOGIN).reports_locked_ms, 300_000, "it has exceeded the limit itself");
}

#[test]
fn a_reset_keeps_the_running_requests() {
    let mut ledger = Ledger::new(Quota { day: Some(1), names: TypeNames::Documented, ..Quota::default() });
    let ticket = ledger.take(&plain(), at(0)).unwrap().unwrap();
    assert_eq!(once(&mut ledger, &plain(), at(0)), Err(Limit::Day));
    ledger.outsider(LOGIN, &slots(1, 60), at(0));
    ledger.reset(Quota { parallel: Some(1), ulogin: Charged::Represented, ..Quota::default() });
    assert_eq!(ledger.take(&plain(), at(0)), Err(Limit::Parallel));
    ledger.give_back(ticket, true, at(0));
    assert_eq!(ledger.usage(at(0)).login(LOGIN).most_in_parallel, 1);
    ledger.clear();
    let usage = ledger.usage(at(0));
    assert_eq!((usage.login(LOGIN).most_in_parallel, usage.refused_in_all()), (0, 0));
    assert_eq!(once(&mut ledger, &plain(), at(0)), Ok(()));
}

#[derive(Debug, Clone)]
enum Step {
    Ask { is_report: bool, counter: u64 },
    End { which: usize, is_complete: bool },
    Wait { milliseconds: u64 },
    Outsider { slots: u32, milliseconds: u64, day: u64 },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        5 => (any::<bool>(), 1..3_u64).prop_map(|(is_report, counter)| Step::Ask { is_report, counter }),
        3 => (0..9_usize, any::<bool>()).prop_map(|(which, is_complete)| Step::End { which, is_complete }),
        2 => prop_oneof![6 => 0..1500_u64, 6 => 0..200_000_u64, 1 => 0..100_000_000_u64]
            .prop_map(|milliseconds| Step::Wait { milliseconds }),
        1 => (0..5_u32, 0..10_000_u64, 0..4_u64)
            .prop_map(|(slots, milliseconds, day)| Step::Outsider { slots, milliseconds, day }),
    ]
}

/// A plain record of accepted requests, to compare with.
#[derive(Default)]
struct Witness {
    accepted: Vec<(Duration, Charge)>,
    outsiders: Vec<(Duration, u64)>,
    locked_until: Duration,
}

impl Witness {
    fn since(&self, start: Duration, select: impl Fn(&Charge) -> bool) -> u64 {
        let counted = self.accepted.iter().filter(|(time, charge)| *time >= start && select(charge)).count();
        u64::try_from(counted).unwrap()
    }

    /// The limits that refuse a request now, but for the slots.
    fn refuses(&self, charge: &Charge, quota: &Quota, now: Duration) -> Vec<Limit> {
        let after = |length: u64| (now + Duration::from_nanos(1)).saturating_sub(Duration::from_secs(length));
        let midnight = Duration::from_secs(now.as_secs() / DAY * DAY);
        let by_outsiders: u64 = self.outsiders.iter().filter(|(time, _)| *time >= midnight).map(|(_, day)| day).sum();
        let used = |limit| match limit {
            Limit::ByIp => self.since(after(1), |_| true),
            Limit::Reports5m if !charge.is_report => 0,
            Limit::Reports5m if self.locked_until > now => u64::MAX,
            Limit::Reports5m => self.since(after(FIVE_MINUTES), |charge| charge.is_report),
            Limit::Day => self.since(midnight, |_| true) + by_outsiders,
            Limit::CounterDay => self.since(midnight, |other| other.counters == charge.counters),
            Limit::LogsByIp | Limit::Parallel | Limit::Grants | Limit::Delegates => 0,
        };
        let is_exceeded = |limit: &Limit| quota.limit(*limit).is_some_and(|allowed| used(*limit) >= u64::from(allowed));
        Limit::ALL.into_iter().filter(is_exceeded).collect()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Never more slots than the limit, and exactly the requests that a plain list of the accepted ones allows.
    #[test]
    fn limits_hold_whatever_happens(steps in proptest::collection::vec(step(), 1..150), parallel in 1..4_u32) {
        let abandoned = Duration::from_secs(2);
        let quota = Quota {
            parallel: Some(parallel), by_ip: Some(4), reports_5m: Some(3), day: Some(25), counter_day: Some(18),
            abandoned, ..Quota::default()
        };
        let (mut ledger, mut witness, mut now) = (Ledger::new(quota.clone()), Witness::default(), at(0));
        let mut held = Vec::new();
        for step in steps {
            match step {
                Step::Ask { is_report, counter } => {
                    let charge = Charge { is_report, counters: vec![counter], ..plain() };
                    let before = ledger.usage(now).login(LOGIN);
                    let in_use = before.in_parallel + before.abandoned + before.outsider_holds;
                    let mut refuses = witness.refuses(&charge, &quota, now);
                    refuses.extend((in_use >= u64::from(parallel)).then_some(Limit::Parallel));
                    match ledger.take(&charge, now) {
                        Ok(ticket) => {
                            prop_assert!(refuses.is_empty(), "{refuses:?}");
                            held.extend(ticket);
                            witness.accepted.push((now, charge));
                        }
                        Err(limit) => {
                            prop_assert!(refuses.contains(&limit), "{limit:?} and not {refuses:?}");
                            if limit == Limit::Reports5m && witness.locked_until <= now {
                                witness.locked_until = now + LOCK;
                            }
                            let after = ledger.usage(now).login(LOGIN);
                            prop_assert_eq!((before.day, before.in_parallel), (after.day, after.in_parallel));
                        }
                    }
                }
                Step::End { which, is_complete } if which < held.len() => {
                    ledger.give_back(held.remove(which), is_complete, now);
                }
                Step::End { .. } => {}
                Step::Wait { milliseconds } => now += Duration::from_millis(milliseconds),
                Step::Outsider { slots, milliseconds, day } => {
                    let slots = Some((slots, Duration::from_millis(milliseconds)));
                    ledger.outsider(LOGIN, &Outsider { slots, day, ..Outsider::default() }, now);
                    witness.outsiders.push((now, day));
                }
            }
            let login = ledger.usage(now).login(LOGIN);
            let in_use = login.in_parallel + login.abandoned + login.outsider_holds;
            prop_assert!(in_use <= u64::from(parallel), "{login:?}");
            prop_assert_eq!(login.in_parallel, u64::try_from(held.len()).unwrap());
        }
        held.into_iter().for_each(|ticket| ledger.give_back(ticket, true, now));
        let login = ledger.usage(now + Duration::from_secs(60)).login(LOGIN);
        prop_assert_eq!((login.in_parallel, login.abandoned, login.outsider_holds), (0, 0, 0), "slots are conserved");
    }
}

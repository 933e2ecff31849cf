//! The numbered rules of the module; rules 9 and 11 are tested in `learning` and `saved`.

use metrica::error_type::ErrorType;

use super::bench::*;
use super::*;

#[test]
fn rule_1_a_request_is_charged_to_all_its_limits_or_to_none() {
    let mut bench = Bench::with(Limits::default().with_limit(LimitName::Reports5m, 2));
    for _ in 0..2 {
        bench.spend(bench.report("one"));
        bench.later(1000);
    }
    let before = bench.broker.snapshot();
    let refusal = is_refused(bench.ask_for(bench.report("one")));
    assert_eq!((refusal.limit, refusal.after), (LimitName::Reports5m, After(298 * SECOND)));
    assert_eq!(bench.broker.snapshot(), before, "the refusal took nothing");
    let _ = granted(bench.ask("one"));
    let after = [LimitName::Parallel, LimitName::Day, LimitName::ByIp].map(|limit| bench.row(limit).used);
    assert_eq!(after, [1, 3, 1], "the other limits have room, and one request took of each");
}

#[test]
fn rule_1_an_observed_limit_counts_and_delays_nobody() {
    let mut bench = Bench::with(Limits::default().with_modes(Mode::Observe));
    let leases: Vec<_> = (0..5).map(|_| granted(bench.ask("one"))).collect();
    assert_eq!((bench.row(LimitName::Parallel).used, bench.row(LimitName::Day).used), (5, 5));
    let observed = bench.broker.snapshot().observed;
    assert!(observed.contains(&("parallel", 2)) && observed.contains(&("day", 0)), "{observed:?}");
    leases.into_iter().for_each(|lease| bench.done(lease));
    let mut off = Bench::with(Limits::default().with_modes(Mode::Off));
    let _leases: Vec<_> = (0..5).map(|_| granted(off.ask("one"))).collect();
    assert_eq!((off.row(LimitName::Day).used, off.row(LimitName::Parallel).used), (0, 5), "slots are always counted");
}

#[test]
fn rule_1_owners_and_counters_have_limits_of_their_own() {
    let mut bench = Bench::with(Limits::default().with_limit(LimitName::CounterDay, 1));
    let _first = granted(bench.ask("one"));
    assert_eq!(is_refused(bench.ask("one")).limit, LimitName::CounterDay);
    let other = Request { counters: Counters::of(&[8, 9, 10, 11]), ..bench.request("one") };
    let _second = granted(bench.ask_for(other));
    let both = Request { counters: Counters::of(&[12, 11]), ..bench.request("one") };
    assert_eq!(is_refused(bench.ask_for(both)).limit, LimitName::CounterDay);
    let mut bench = Bench::with(only(LimitName::Parallel, 1));
    let _first = granted(bench.ask("one"));
    let other = Request { owner: bench.broker.owner(OwnerName::new("b")).unwrap(), ..bench.request("one") };
    let _second = granted(bench.ask_for(other));
    let _third = waits(bench.ask("one"));
}

#[test]
fn rule_2_the_day_restarts_and_a_step_gives_nothing_back() {
    let mut bench = Bench::with(only(LimitName::Day, 2));
    (0..2).for_each(|_| bench.spend(bench.request("one")));
    assert_eq!(is_refused(bench.ask("one")).after, After(43_200 * SECOND));
    assert!(!bench.row(LimitName::Day).is_known, "the count began at noon");
    bench.now.unix += 11 * 3600;
    assert_eq!(is_refused(bench.ask("one")).after, After(3600 * SECOND), "the clock was wrong by hours");
    bench.later(3_600_000);
    bench.spend(bench.request("one"));
    let row = bench.row(LimitName::Day);
    assert_eq!((row.used, row.is_known), (1, true));
}

#[test]
fn rule_3_no_second_has_more_than_the_documented_number() {
    for (limit, documented, groups) in
        [(LimitName::ByIp, 30, Groups::CLIENT_READ), (LimitName::LogsByIp, 10, Groups::LOGS)]
    {
        let mut bench = Bench::with(Limits::default().with_modes(Mode::Off).with_mode(limit, Mode::Enforce));
        let mut sent = Vec::new();
        let mut tickets = Vec::new();
        for _ in 0..3000 {
            bench.later(1);
            match bench.ask_for(Request { groups, ..bench.request("one") }) {
                Answer::Granted(_) => sent.push(bench.now.at),
                Answer::Wait(ticket) => tickets.push(ticket),
                Answer::Refused(refusal) => assert_eq!((refusal.limit, refusal.reason), (limit, Reason::Full)),
            }
            let woken = bench.broker.woken().collect::<Vec<_>>();
            sent.extend(woken.iter().map(|_| bench.now.at));
        }
        let within = |start: &u64| sent.iter().filter(|time| (*start..*start + SECOND).contains(*time)).count();
        let most = sent.iter().map(within).max().unwrap();
        assert!(most <= documented && most + 2 >= documented, "{most} of {documented}");
    }
}

#[test]
fn rule_4_the_queue_is_bounded() {
    let bounds = Bounds { per_caller: 3, per_owner: 5, total: 6 };
    let mut bench = Bench::new(|settings| (settings.bounds, settings.limits) = (bounds, only(LimitName::Parallel, 1)));
    let _running = granted(bench.ask("one"));
    let mut tickets: Vec<_> = (0..3).map(|_| waits(bench.ask("one"))).collect();
    let refusal = is_refused(bench.ask("one"));
    assert_eq!((refusal.reason, refusal.limit), (Reason::Full, LimitName::Parallel));
    tickets.extend((0..2).map(|_| waits(bench.ask("two"))));
    assert_eq!(is_refused(bench.ask("two")).reason, Reason::Full, "of the owner");
    let other = Request { owner: bench.broker.owner(OwnerName::new("b")).unwrap(), ..bench.request("three") };
    let _elsewhere = granted(bench.ask_for(other.clone()));
    tickets.push(waits(bench.ask_for(other.clone())));
    assert_eq!(is_refused(bench.ask_for(other.clone())).reason, Reason::Full, "in all");
    bench.broker.cancel(tickets.remove(0), bench.now);
    let _ticket = waits(bench.ask_for(other));
}

#[test]
fn rule_5_callers_take_turns_by_their_weight_and_seconds() {
    let mut bench = Bench::new(|settings| {
        settings.limits = only(LimitName::Parallel, 1);
        settings.callers[1].weight = 2;
    });
    let lease = granted(bench.ask("three"));
    let mut tickets = Vec::new();
    for caller in ["one", "two"] {
        tickets.extend((0..8).map(|_| (waits(bench.ask(caller)), caller)));
    }
    let order = bench.order(vec![lease], &tickets);
    let first: Vec<_> = order[..9].iter().filter(|caller| **caller == "two").collect();
    assert_eq!(first.len(), 6, "the weight of two is 2: {order:?}");
}

#[test]
fn rule_5_a_repeated_request_keeps_its_position() {
    let mut bench = Bench::with(only(LimitName::Parallel, 3));
    let names = ["1", "2", "3"];
    let leases = names.map(|_| granted(bench.ask("one")));
    let last = waits(bench.ask("one"));
    let again = leases.map(|lease| match bench.refused(lease, ErrorType::QuotaParallelRequests) {
        Next::Again(ticket) => ticket,
        other @ (Next::Over | Next::Pass(_)) => panic!("{other:?}"),
    });
    let tickets: Vec<_> = again.into_iter().zip(names).chain([(last, "last")]).collect();
    assert_eq!(bench.order(Vec::new(), &tickets), ["1", "2", "3", "last"]);
}

#[test]
fn rule_5_a_caller_is_served_first_in_first_out() {
    let mut bench = Bench::with(only(LimitName::Parallel, 1));
    let lease = granted(bench.ask("one"));
    let names = ["1", "2", "3", "4"];
    let tickets: Vec<_> = names.iter().map(|name| (waits(bench.ask("one")), *name)).collect();
    assert_eq!(bench.order(vec![lease], &tickets), names);
}

#[test]
fn rule_5_a_report_that_waits_does_not_hold_up_other_requests() {
    let mut bench = Bench::with(Limits::default().with_limit(LimitName::Reports5m, 1));
    bench.spend(bench.report("one"));
    bench.later(290_000);
    let ticket = waits(bench.ask_for(bench.report("one")));
    bench.spend(bench.request("one"));
    bench.later(10_000);
    let _lease = taken(bench.broker.take(ticket));
}

#[test]
fn rule_5_better_classes_go_first_and_age_makes_equal() {
    let mut bench = Bench::with(only(LimitName::Parallel, 1));
    let with = |bench: &mut Bench, caller, class| waits(bench.ask_for(Request { class, ..bench.request(caller) }));
    let lease = granted(bench.ask("four"));
    let mut tickets = vec![(with(&mut bench, "one", Class::Batch), "batch")];
    tickets.push((with(&mut bench, "two", Class::Normal), "normal"));
    tickets.push((with(&mut bench, "three", Class::Interactive), "interactive"));
    assert_eq!(bench.order(vec![lease], &tickets), ["interactive", "normal", "batch"]);

    let mut bench = Bench::with(only(LimitName::Parallel, 1));
    let lease = granted(bench.ask("four"));
    let mut tickets = vec![(with(&mut bench, "two", Class::Normal), "normal")];
    bench.later(10_000);
    tickets.extend((0..3).map(|_| (with(&mut bench, "three", Class::Interactive), "interactive")));
    assert_eq!(bench.order(vec![lease], &tickets)[0], "normal", "it has waited for 10 seconds");
}

#[test]
fn rule_6_the_last_slot_is_kept_from_batch() {
    let mut bench = Bench::with(only(LimitName::Parallel, 3));
    let batch = Request { class: Class::Batch, ..bench.request("one") };
    bench.spend(bench.request("two"));
    let mut leases: Vec<_> = (0..2).map(|_| granted(bench.ask_for(batch.clone()))).collect();
    let ticket = waits(bench.ask_for(batch.clone()));
    let normal = granted(bench.ask("two"));
    bench.done(normal);
    assert_eq!(bench.broker.take(ticket), Taken::Waiting);
    bench.broker.cancel(ticket, bench.now);
    bench.later(55_000);
    let ticket = waits(bench.ask_for(batch.clone()));
    assert_eq!(bench.broker.next(), Some(60 * SECOND));
    bench.later(5_000);
    leases.push(taken(bench.broker.take(ticket)));
    let mut single = Bench::with(only(LimitName::Parallel, 1));
    single.spend(single.request("two"));
    let _lease = granted(single.ask_for(Request { class: Class::Batch, ..single.request("one") }));
}

#[test]
fn rule_7_a_caller_is_held_to_its_own_numbers() {
    let mut bench = Bench::new(|settings| {
        settings.callers[0].per_day = Some(3);
        settings.callers[1].per_5m = Some(2);
    });
    (0..3).for_each(|_| bench.spend(bench.request("one")));
    let refusal = is_refused(bench.ask("one"));
    assert_eq!(
        (refusal.reason, refusal.limit, refusal.after),
        (Reason::Budget, LimitName::Day, After(43_200 * SECOND))
    );
    bench.later(1000);
    (0..2).for_each(|_| bench.spend(bench.report("two")));
    let refusal = is_refused(bench.ask_for(bench.report("two")));
    assert_eq!(
        (refusal.reason, refusal.limit, refusal.after),
        (Reason::Budget, LimitName::Reports5m, After(300 * SECOND))
    );
    bench.later(1000);
    bench.spend(bench.request("two"));
    bench.later(271_000);
    let ticket = waits(bench.ask_for(bench.report("two")));
    bench.later(28_000);
    let _lease = taken(bench.broker.take(ticket));
    let mut observed = Bench::new(|settings| {
        settings.callers[0].per_day = Some(1);
        settings.budgets = Mode::Observe;
    });
    (0..3).for_each(|_| observed.spend(observed.request("one")));
    assert_eq!(observed.broker.snapshot().budgets_observed, 2);
}

#[test]
fn rule_7_unused_shares_are_lent_until_most_of_the_day_is_spent() {
    let mut bench = Bench::new(|settings| {
        settings.limits = only(LimitName::Day, 100);
        settings.callers[0].share = Some(30);
        settings.callers[1].share = Some(50);
    });
    for _ in 0..80 {
        bench.spend(bench.request("one"));
    }
    let refusal = is_refused(bench.ask("one"));
    assert_eq!((refusal.reason, refusal.limit), (Reason::Budget, LimitName::Day), "it has more than its 30");
    for _ in 0..10 {
        bench.spend(bench.request("two"));
        bench.spend(bench.request("three"));
    }
    assert_eq!(is_refused(bench.ask("two")).reason, Reason::Wait, "the day is over");
    let mut bench = Bench::new(|settings| {
        settings.limits = only(LimitName::Day, 100);
        settings.callers[0].share = Some(30);
    });
    (0..80).for_each(|_| bench.spend(bench.request("two")));
    for caller in ["two", "three"] {
        assert_eq!(is_refused(bench.ask(caller)).reason, Reason::Budget, "70 are not promised, and spent");
    }
    (0..20).for_each(|_| bench.spend(bench.request("one")));
}

#[test]
fn rule_8_a_request_that_would_wait_too_long_is_refused_on_arrival() {
    let mut bench = Bench::with(only(LimitName::Parallel, 1));
    let _running = granted(bench.ask("one"));
    let tickets: Vec<_> = (0..30).map(|_| waits(bench.ask("one"))).collect();
    let refusal = is_refused(bench.ask("one"));
    // 30 requests of a second each and half of the one in flight are longer than 30 seconds; half of that is short enough.
    assert_eq!(refusal, Refusal { limit: LimitName::Parallel, reason: Reason::Wait, after: After(15_500_000) });
    let short = Request { rest: SECOND, ..bench.request("two") };
    let _ticket = waits(bench.ask_for(short));
    let shorter = Request { rest: SECOND / 10, ..bench.request("three") };
    assert_eq!(is_refused(bench.ask_for(shorter)).reason, Reason::Wait);
    bench.later(30_000);
    for ticket in tickets {
        assert!(matches!(bench.broker.take(ticket), Taken::Refused(Refusal { reason: Reason::Wait, .. })));
    }
    assert_eq!(bench.broker.snapshot().waiting, 0);
    assert_eq!(bench.broker.next(), None);
}

#[test]
fn rule_8_a_request_that_leaves_takes_nothing_with_it() {
    let mut bench = Bench::with(Limits::default().with_limit(LimitName::Parallel, 1));
    let lease = granted(bench.ask_for(bench.report("one")));
    let (first, second) = (waits(bench.ask("two")), waits(bench.ask("three")));
    bench.broker.cancel(first, bench.now);
    assert_eq!(bench.broker.take(first), Taken::Over);
    assert_eq!(bench.broker.finish(lease, bench.now, Outcome::NotSent), Next::Over);
    let used = [LimitName::Parallel, LimitName::Day, LimitName::Reports5m].map(|limit| bench.row(limit).used);
    assert_eq!(used, [1, 1, 0], "that of the second, which was granted");
    bench.broker.cancel(second, bench.now);
    assert_eq!([LimitName::Parallel, LimitName::Day].map(|limit| bench.row(limit).used), [0, 0]);
    assert_eq!(bench.broker.woken().count(), 0);
}

#[test]
fn rule_8_a_cancelled_request_keeps_its_slot_for_a_moment() {
    let mut bench = Bench::with(only(LimitName::Parallel, 1));
    let lease = granted(bench.ask("one"));
    let ticket = waits(bench.ask("two"));
    bench.broker.abandon(lease, bench.now);
    assert_eq!(bench.broker.next(), Some(5 * SECOND));
    bench.later(4_999);
    assert_eq!(bench.broker.take(ticket), Taken::Waiting);
    bench.later(1);
    let _lease = taken(bench.broker.take(ticket));
    assert_eq!(bench.row(LimitName::Parallel).used, 1);
}

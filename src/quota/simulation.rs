//! The broker in virtual time: the load of a gate, with the figures that it has to reach.

use super::world::{Client, Event, NEVER, Pattern, READS, Seen, World, three_clients};
use super::*;

fn three_callers(wait: u64, seed: u64) -> World {
    World::new(&three_clients(), &[("etl", wait)], 600, seed).run()
}

#[test]
fn a_greedy_caller_takes_nothing_from_others() {
    for seed in 1..=3 {
        let world = three_callers(300, seed);
        let (used, cron) = (world.percent_of(3), world.p95("cron", |seen| seen.granted));
        let dash = world.p95("dash", |seen| seen.ended);
        println!("seed {seed}: {used} % of 3 slots, cron waits {cron} ms, dash takes {dash} ms (p95)");
        assert!(used >= 97, "{used} % of the slots are used");
        assert_eq!(world.too_many.len(), 0, "Metrica refused");
        assert!(cron <= 2 * 1700, "cron waits for {cron} ms, two of its services are 3400");
        assert!(dash <= 18_300, "the sketch, which counts requests and not seconds, has 18.3 s; dash takes {dash} ms");
        assert!(world.seen.iter().all(|seen| seen.refused.is_none()), "nobody is refused");
    }
}

#[test]
fn requests_that_would_wait_too_long_are_mostly_refused_on_arrival() {
    for seed in 1..=3 {
        let world = three_callers(30, seed);
        assert!(world.percent_of(3) >= 97, "{} % of the slots are used", world.percent_of(3));
        assert_eq!(world.too_many.len(), 0, "Metrica refused");
        let waits =
            world.seen.iter().filter_map(|seen| Some(seen.granted.or(seen.refused.map(|(at, _)| at))? - seen.asked));
        assert!(waits.max().unwrap() <= 30 * SECOND, "nobody waits longer than it may");
        let refused: Vec<_> = world.of("etl").filter_map(|seen| Some(seen.refused?.0 - seen.asked)).collect();
        let late = refused.iter().filter(|waited| **waited > 0).count();
        println!("seed {seed}: {} refused, of which {late} after a wait", refused.len());
        assert!(refused.len() > 50 && late * 4 <= refused.len(), "{late} of {} waited in vain", refused.len());
        assert!(world.of("cron").chain(world.of("dash")).all(|seen| seen.refused.is_none()), "the greedy one only");
    }
}

#[test]
fn batch_leaves_the_last_slot_to_others_while_there_are_any() {
    let bulk = Client {
        caller: "bulk",
        class: Class::Batch,
        service: (20_000, 40_000),
        pattern: Pattern::Loop(SECOND / 100, NEVER),
        ..READS
    };
    let cron = Client { pattern: Pattern::Loop(2 * SECOND, 300 * SECOND), ..READS };
    let clients: Vec<_> = std::iter::repeat_n(bulk, 16).chain([cron]).collect();
    let world = World::new(&clients, &[("bulk", 600)], 600, 1).run();
    let cron = world.p95("cron", |seen| seen.granted);
    let last = world.of("cron").filter_map(|seen| seen.ended).max().unwrap();
    let third = world.of("bulk").filter_map(|seen| seen.granted).filter(|granted| *granted > last).min().unwrap();
    let bulk = world.of("bulk").filter(|seen| seen.ended.is_some()).count();
    println!("cron waits {cron} ms (p95), {bulk} bulk requests, the third slot after {} s", (third - last) / SECOND);
    assert!(cron <= 10, "cron waits for {cron} ms");
    assert!(bulk >= 36, "two slots serve batch, and later three: {bulk}");
    assert!(third - last <= 60 * SECOND);
}

#[test]
fn reports_never_exceed_their_window_and_no_place_is_lost() {
    let reports = |caller| Client {
        caller,
        groups: Groups::REPORT_READ,
        service: (200, 600),
        pattern: Pattern::Every(300 * SECOND / 80),
        ..READS
    };
    let world = World::new(&["one", "two", "three"].map(reports), &[], 720, 1).run();
    assert_eq!(world.too_many.len(), 0, "Metrica refused");
    let most = world.most_within(300 * SECOND);
    assert_eq!(most, 190, "the whole limit is used and not exceeded");
    let within = |time: Micros| world.sent.iter().filter(|sent| **sent <= time && **sent + 300 * SECOND > time).count();
    let mut refused = 0;
    for seen in world.seen.iter().filter(|seen| seen.refused.is_some()) {
        refused += 1;
        let last = (seen.asked + 30 * SECOND).min(world.end - SECOND);
        let places =
            world.sent.iter().map(|sent| sent + 300 * SECOND).filter(|free| (seen.asked..=last).contains(free));
        for free in places.chain([seen.asked]) {
            assert_eq!(within(free), 190, "a place was free at {free} for the request of {}", seen.asked);
        }
    }
    println!("{} reports, {refused} refused, at most {most} in 5 minutes", world.sent.len());
    let served = ["one", "two", "three"].map(|caller| world.of(caller).filter(|seen| seen.granted.is_some()).count());
    assert!(
        served.iter().max().unwrap() - served.iter().min().unwrap() <= 8,
        "the three are treated alike: {served:?}"
    );
}

#[test]
fn an_outsider_that_takes_two_slots_is_found_and_forgotten() {
    for seed in 1..=3 {
        let etl = Client { caller: "etl", service: (800, 6000), pattern: Pattern::Loop(SECOND / 100, NEVER), ..READS };
        let clients: Vec<_> = std::iter::repeat_n(etl, 16).chain([READS]).collect();
        let mut world = World::new(&clients, &[("etl", 300)], 180, seed);
        world.at(60 * SECOND, Event::Outsider(2));
        world.at(120 * SECOND, Event::Outsider(0));
        let mut world = world.run();
        let too_many: Vec<_> = world.too_many.iter().map(|at| at / SECOND).collect();
        println!("seed {seed}: Metrica refused at {too_many:?} s");
        assert!(too_many.len() <= 3, "Metrica refused {too_many:?}");
        assert!(world.seen.iter().all(|seen| !seen.passed && seen.refused.is_none()), "no client sees it");
        let slots = &world.brokers[0].snapshot().owners[0].limits[0];
        assert_eq!((slots.effective, slots.used), (3, 3), "a minute later, three slots are used");
    }
}

#[test]
fn owners_that_share_an_address_take_turns() {
    let quick = |owner| Client { owner, service: (20, 60), pattern: Pattern::Loop(0, NEVER), ..READS };
    let clients: Vec<_> = (0..12).flat_map(|owner| [quick(owner); 4]).collect();
    let world = World::new(&clients, &[], 30, 1).run();
    let most = world.most_within(SECOND);
    assert!(most <= 30, "{most} requests in a second");
    assert!(world.sent.len() >= 27 * 28, "the rate is used: {}", world.sent.len());
    let served: Vec<_> = (0..12)
        .map(|owner| {
            let mine = |seen: &&Seen| world.clients[seen.client].owner == owner && seen.granted.is_some();
            world.seen.iter().filter(mine).count()
        })
        .collect();
    println!("{} requests in 30 s, at most {most} in a second; by owner {served:?}", world.sent.len());
    assert!(served.iter().max().unwrap() - served.iter().min().unwrap() <= 8, "{served:?}");
}

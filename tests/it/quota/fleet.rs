//! Several gates share what Metrica allows through a real store; the stand-in's own count of parallel requests is the judge.

use std::net::TcpListener;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use fake_metrica::{Fake, Quota};
use rcgen::{CertificateParams, KeyPair};

use super::sharing::{TOKEN, config, get, metrica};
use crate::harness::gate::{count, until};
use crate::harness::relay::Relay;
use crate::harness::store::{REDIS, SERVERS, Store};
use crate::harness::upstream::Authority;
use crate::harness::{Answer, Gate};

/// The time that the stand-in needs for a request.
const SERVICE: Duration = Duration::from_millis(100);
const LEASE: Duration = Duration::from_secs(1);

fn fake() -> Fake {
    // It counts and refuses nothing, so that its count is the judge.
    let fake = metrica(Quota::default());
    fake.turn(&format!("slow?ms={}", SERVICE.as_millis())).unwrap();
    fake
}

fn most(fake: &Fake) -> u64 {
    fake.quota_use().login("shop").most_in_parallel
}

fn start(fake: &Fake, port: u16, more: &str) -> Gate {
    start_with(fake, port, more, "")
}

fn start_with(fake: &Fake, port: u16, more: &str, greedy: &str) -> Gate {
    let quota = format!(
        "{{limits: {{by_ip: {{mode: off}}}}, store: {{redis: 'redis://127.0.0.1:{port}', lease: 1s, timeout: 100ms{more}}}}}"
    );
    let config = config(&quota, greedy, "");
    Gate::plan_for(&fake.address().to_string(), fake.ca_pem(), &config).token("shop", TOKEN).start()
}

pub fn is_up(gate: &Gate) -> bool {
    gate.metric(&["quota_store_up"]) == 1.0
}

/// A new store grants nothing for one lease, in which gates tell it what they have in flight.
fn until_up(gates: &[Gate]) {
    until("the store decides for every gate", || gates.iter().all(is_up));
    std::thread::sleep(LEASE);
}

/// The responses that callers got, while several gates were busy.
#[derive(Default)]
struct Seen {
    statuses: Vec<u16>,
    slowest: Duration,
    last: Option<Answer>,
}

/// Keeps every gate busy with so many callers while `act` runs.
fn busy<T>(gates: &[Gate], callers: usize, act: impl FnOnce() -> T) -> (Seen, T) {
    let ends = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let ends = &ends;
        let work = |gate| {
            move || {
                let mut seen = Seen::default();
                while !ends.load(Ordering::SeqCst) {
                    let begun = Instant::now();
                    let answer = get(gate, "greedy");
                    seen.slowest = seen.slowest.max(begun.elapsed());
                    seen.statuses.push(answer.status);
                    seen.last = Some(answer);
                }
                seen
            }
        };
        let threads: Vec<_> =
            gates.iter().flat_map(|gate| (0..callers).map(move |_| gate)).map(|gate| scope.spawn(work(gate))).collect();
        let result = act();
        ends.store(true, Ordering::SeqCst);
        let mut all = Seen::default();
        for thread in threads {
            let seen = thread.join().unwrap();
            all.statuses.extend(seen.statuses);
            all.slowest = all.slowest.max(seen.slowest);
            all.last = seen.last.or(all.last);
        }
        (all, result)
    })
}

pub fn sleep(milliseconds: u64) {
    std::thread::sleep(Duration::from_millis(milliseconds));
}

#[test]
fn three_gates_never_exceed_three_slots_and_use_them() {
    for server in SERVERS {
        let (fake, store) = (fake(), Store::start(server));
        let gates: Vec<_> = (0..3).map(|_| start(&fake, store.port, "")).collect();
        until_up(&gates);
        let before = store.calls();
        let (seen, ()) = busy(&gates, 4, || sleep(4000));
        let (requests, calls) = (seen.statuses.len(), store.calls() - before);
        println!(
            "{}: {requests} requests, {:.2} calls each, slowest {:?}",
            server.1,
            calls / count(requests),
            seen.slowest
        );
        assert!(seen.statuses.iter().all(|status| *status == 200), "{:?}", seen.statuses);
        assert_eq!(most(&fake), 3, "in flight at once");
        assert!(requests >= 80, "{requests} of 120 requests that three slots carry in 4 s");
        assert!(calls <= 2.5 * count(requests), "{calls} calls for {requests} requests");
        assert!(gates.iter().all(|gate| gate.metric(&["quota_replicas"]) == 3.0));
    }
}

#[test]
fn the_slots_of_a_killed_gate_are_free_after_its_lease() {
    SERVERS.into_iter().for_each(slots_of_a_killed_gate);
}

fn slots_of_a_killed_gate(server: (&str, &str)) {
    let (fake, store) = (fake(), Store::start(server));
    fake.turn("slow?ms=10000").unwrap();
    let killed = start(&fake, store.port, "");
    let gate = start(&fake, store.port, "");
    until_up(std::slice::from_ref(&killed));
    until_up(std::slice::from_ref(&gate));
    std::thread::scope(|scope| {
        for _ in 0..3 {
            let place = killed.place("greedy").to_owned();
            scope.spawn(move || {
                let mut caller = crate::harness::Caller::connect(&place);
                caller.send("GET /management/v1/counter/101/goals HTTP/1.1\r\nHost: localhost\r\n\r\n");
                let _ = caller.try_answer(false);
            });
        }
        until("three slots are used", || fake.quota_use().login("shop").in_parallel == 3);
        fake.turn("slow?ms=10").unwrap();
        killed.signal("KILL");
        let begun = Instant::now();
        assert_eq!(get(&gate, "polite").status, 200);
        let waited = begun.elapsed();
        assert!(waited <= LEASE * 2, "{waited:?}");
        assert!(waited >= LEASE / 4, "the leases of the killed gate held for a while: {waited:?}");
    });
}

/// Something happens to a store, of each kind, while three gates are busy: returns the most requests in flight at once.
fn survives(what: &str, act: impl Fn(&mut Store)) -> u64 {
    SERVERS.map(|server| survives_at(server, what, &act)).into_iter().max().unwrap()
}

fn survives_at(server: (&str, &str), what: &str, act: impl Fn(&mut Store)) -> u64 {
    let (fake, mut store) = (fake(), Store::start(server));
    let gates: Vec<_> = (0..3).map(|_| start(&fake, store.port, "")).collect();
    until_up(&gates);
    let (seen, ()) = busy(&gates, 2, || {
        sleep(500);
        act(&mut store);
        until_up(&gates);
        sleep(500);
    });
    let requests = seen.statuses.len();
    println!("{}, {what}: {requests} requests, slowest {:?}, {} at once", server.1, seen.slowest, most(&fake));
    assert!(seen.statuses.iter().all(|status| *status == 200), "{what}: {:?}", seen.statuses);
    // Six callers share three slots, or three gates one each: two services in the queue, and one time-out.
    assert!(seen.slowest <= SERVICE * 4 + Duration::from_millis(1300), "{what}: {:?}", seen.slowest);
    // A gate that has noticed uses its own slot, beside the three of those that have not.
    assert!(most(&fake) <= 5, "{what}: {} at once", most(&fake));
    most(&fake)
}

/// The script compares the server's clock with its last reading, which is in the store: that is moved here. A reading that is an
/// hour old is a clock that jumped forward.
#[test]
fn a_clock_that_jumps_by_an_hour_changes_nothing() {
    let jump = |store: &Store, hours: i64| {
        let key = "{metrika-gate}:clock";
        let redis::Value::BulkString(read) = store.ask(&["HGET", key, "server"]) else { panic!("no clock") };
        let read: i64 = String::from_utf8(read).unwrap().parse().unwrap();
        store.ask(&["HSET", key, "server", &(read - hours * 3_600_000).to_string()]);
    };
    let most = survives("a clock that jumps by an hour, both ways", |store| {
        for hours in [1, -1, -1, 1] {
            jump(store, hours);
            sleep(700);
        }
    });
    assert!(most <= 3, "{most} at once: no lease ended early");
}

#[test]
fn a_store_that_hangs_delays_nobody_for_longer_than_a_time_out() {
    let _ = survives("stopped for 2 s", |store| {
        store.signal("STOP");
        sleep(2000);
        store.signal("CONT");
    });
}

#[test]
fn a_store_that_was_killed_and_comes_back_empty_is_used_again() {
    let _ = survives("restarted empty", |store| {
        store.kill();
        sleep(1500);
        store.restart();
    });
}

#[test]
fn a_store_that_is_emptied_grants_nothing_twice() {
    let _ = survives("emptied", |store| {
        store.ask(&["FLUSHALL"]);
        sleep(300);
    });
}

#[test]
fn a_pause_and_a_lost_script_are_survived() {
    let _ = survives("paused, without its script", |store| {
        store.ask(&["SCRIPT", "FLUSH"]);
        sleep(300);
        store.ask(&["CLIENT", "PAUSE", "1500"]);
        sleep(1500);
    });
}

#[test]
fn a_full_store_is_as_good_as_none() {
    let _ = survives("full", |store| {
        store.ask(&["CONFIG", "SET", "maxmemory", "1"]);
        sleep(1500);
        store.ask(&["CONFIG", "SET", "maxmemory", "0"]);
    });
}

#[test]
fn a_replica_that_is_promoted_takes_over() {
    SERVERS.into_iter().for_each(a_promoted_replica);
}

fn a_promoted_replica(server: (&str, &str)) {
    let (fake, old, new) = (fake(), Store::start(server), Store::start(server));
    new.ask(&["REPLICAOF", "127.0.0.1", &old.port.to_string()]);
    let mut way = Relay::new(([127, 0, 0, 1], old.port).into());
    let address = way.open(([127, 0, 0, 1], 0).into());
    let gates: Vec<_> = (0..3).map(|_| start(&fake, address.port(), "")).collect();
    until_up(&gates);
    let (seen, ()) = busy(&gates, 2, || {
        sleep(500);
        // The old one becomes a replica: it takes no writes. The name leads to the new one a little later.
        new.ask(&["REPLICAOF", "NO", "ONE"]);
        old.ask(&["REPLICAOF", "127.0.0.1", &new.port.to_string()]);
        sleep(1500);
        assert!(!gates.iter().any(is_up), "a replica decides nothing");
        way.kill();
        way = Relay::new(([127, 0, 0, 1], new.port).into());
        way.open(address);
        until_up(&gates);
    });
    assert!(seen.statuses.iter().all(|status| *status == 200), "{:?}", seen.statuses);
    assert!(most(&fake) <= 5, "{} at once", most(&fake));
}

#[test]
fn without_the_store_a_gate_uses_its_part_or_refuses() {
    let fake = fake();
    // Nobody listens there.
    let port = Store::start(REDIS).port;
    let share = [start(&fake, port, "")];
    let (seen, ()) = busy(&share, 4, || sleep(1000));
    assert!(seen.statuses.iter().all(|status| *status == 200), "{:?}", seen.statuses);
    assert_eq!(most(&fake), 1, "one of three parts of three slots");
    assert!(share[0].metric(&["quota_degraded_seconds_total"]) >= 1.0);
    assert_eq!(share[0].metric(&["quota_store_up"]), 0.0);
    let refuses = start(&fake, port, ", on_loss: refuse");
    let answer = get(&refuses, "polite");
    assert_eq!((answer.status, answer.field("x-gate-error")), (503, Some("quota_store_unavailable")));
    assert!(answer.field("retry-after").is_some());
}

#[test]
fn budgets_hold_over_all_gates() {
    SERVERS.into_iter().for_each(budgets_at);
}

fn budgets_at(server: (&str, &str)) {
    let (fake, store) = (fake(), Store::start(server));
    let gates: Vec<_> = (0..3).map(|_| start_with(&fake, store.port, "", ", quota: {per_day: 10}")).collect();
    until_up(&gates);
    let answers: Vec<_> = (0..15).map(|number| get(&gates[number % 3], "greedy")).collect();
    let statuses: Vec<_> = answers.iter().map(|answer| answer.status).collect();
    assert_eq!(statuses, [[200; 10].as_slice(), &[429; 5]].concat());
    assert_eq!(answers.last().unwrap().field("x-gate-error"), Some("quota_budget"));
    assert_eq!(get(&gates[0], "polite").status, 200, "others have what is left");
}

/// The rights of the user of the gates, as docs/quota_store.md has them.
fn documented_rights() -> impl Iterator<Item = &'static str> {
    let text = include_str!("../../../docs/quota_store.md");
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("user gate on >PASSWORD "));
    let rights = lines.next().unwrap();
    assert!(lines.next().is_none(), "the page has one such line");
    rights.split(' ')
}

#[test]
fn the_documented_user_of_the_store_has_every_right_that_gates_need() {
    for server in SERVERS {
        let (fake, store) = (fake(), Store::start(server));
        let command: Vec<_> =
            ["ACL", "SETUSER", "gate", "on", ">of-the-store"].into_iter().chain(documented_rights()).collect();
        store.ask(&command);
        let quota = format!(
            "{{limits: {{by_ip: {{limit: 1000, raised: true}}}}, \
             store: {{redis: 'redis://gate@127.0.0.1:{}', password_file: '{{folder}}/store', lease: 1s}}}}",
            store.port
        );
        let config = config(&quota, ", quota: {share: 90%, per_day: 1000, per_5m: 100}", "");
        let plan = || Gate::plan_for(&fake.address().to_string(), fake.ca_pem(), &config).token("shop", TOKEN);
        let gates = [plan().token("store", "of-the-store").start(), plan().token("store", "of-the-store").start()];
        until_up(&gates);
        let (seen, ()) = busy(&gates, 4, || sleep(1500));
        assert!(seen.statuses.iter().all(|status| *status == 200), "{:?}", seen.statuses);
        assert_eq!(most(&fake), 3, "in flight at once");
        assert!(gates.iter().all(is_up));
        drop(gates);
        let denied = store.ask(&["ACL", "LOG"]);
        assert_eq!(denied, redis::Value::Array(Vec::new()), "{}", server.1);
    }
}

#[test]
fn a_confined_gate_reaches_a_store_by_tls_and_trusts_its_authority_alone() {
    let folder = tempfile::tempdir().unwrap();
    let (authority, key) = (Authority::new("authority of the store"), KeyPair::generate().unwrap());
    let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let certificate = params.signed_by(&key, &authority.issuer).unwrap().pem();
    let [certificate_file, key_file] =
        [("store.crt", certificate), ("store.key", key.serialize_pem())].map(|(name, pem)| {
            let file = folder.path().join(name);
            std::fs::write(&file, pem).unwrap();
            file.display().to_string()
        });
    // The usual port is for the test; Valkey from PyPI has no TLS.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let arguments =
        ["--tls-port", &port.to_string(), "--tls-cert-file", &certificate_file, "--tls-key-file", &key_file];
    let _store = Store::with(REDIS, &[arguments.as_slice(), &["--tls-auth-clients", "no"]].concat());
    let fake = fake();
    let trusting = |authority: &Authority| {
        let quota = format!("{{store: {{redis: 'rediss://localhost:{port}', ca_file: '{{folder}}/store-ca'}}}}");
        let plan = Gate::plan_for(&fake.address().to_string(), fake.ca_pem(), &config(&quota, "", ""));
        plan.token("shop", TOKEN).token("store-ca", &authority.pem).start()
    };
    let gate = trusting(&authority);
    until("the gate reaches the store by TLS", || is_up(&gate));
    assert_eq!(get(&gate, "polite").status, 200);
    let other = trusting(&Authority::new("another authority"));
    until("the gate has tried", || other.metric(&["quota_degraded_seconds_total"]) >= 2.0);
    assert!(!is_up(&other), "it trusts nobody else");
}

#[test]
fn the_store_sees_names_and_numbers_only() {
    let (fake, store) = (fake(), Store::start(REDIS));
    let gates = [start(&fake, store.port, "")];
    until_up(&gates);
    let mut connection = store.connect().unwrap();
    let (_, ()) = busy(&gates, 4, || sleep(500));
    let mut everything = String::new();
    let keys: Vec<String> = redis::cmd("KEYS").arg("*").query(&mut connection).unwrap();
    assert!(!keys.is_empty());
    for key in &keys {
        assert!(key.starts_with("{metrika-gate}:"), "{key}");
        let ttl: i64 = redis::cmd("TTL").arg(key).query(&mut connection).unwrap();
        assert!(ttl > 0 || ttl == -2, "{key} never ends: {ttl}");
        let value: redis::Value = match redis::cmd("TYPE").arg(key).query::<String>(&mut connection).unwrap().as_str() {
            "hash" => redis::cmd("HGETALL").arg(key).query(&mut connection).unwrap(),
            "zset" => redis::cmd("ZRANGE").arg(key).arg(0).arg(-1).query(&mut connection).unwrap(),
            "set" => redis::cmd("SMEMBERS").arg(key).query(&mut connection).unwrap(),
            _ => redis::cmd("GET").arg(key).query(&mut connection).unwrap(),
        };
        everything += &format!("{key} {value:?}\n");
    }
    for secret in [TOKEN, "/management", "goals", "OAuth", "metrika:read"] {
        assert!(!everything.contains(secret), "{everything}");
    }
}

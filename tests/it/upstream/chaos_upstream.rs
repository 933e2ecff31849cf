//! Chaos on the way to Metrica: while it lasts, valid traffic of every kind runs, and loses only what HTTP does not allow
//! to be kept. No write arrives twice, whatever happens.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use crate::harness::gate::until;
use crate::harness::relay::Relay;
use crate::harness::traffic::{self, Kind, Ledger, Traffic, answer_one};
use crate::harness::{Gate, TWO_CALLERS, Upstream};

const CALLERS: usize = 4;

fn any_port(address: impl Into<std::net::IpAddr>) -> SocketAddr {
    SocketAddr::new(address.into(), 0)
}

/// The permitted reasons while Metrica cannot be reached.
const UNREACHED: [&str; 2] = ["502 upstream_closed", "503 upstream_unreachable"];

/// Failed requests had begun before Metrica was back, and failed as they should; and many were sent afterwards.
#[track_caller]
fn only_before(ledger: &Ledger, back: Instant) {
    for entry in ledger.0.iter().filter(|entry| !entry.is_right()) {
        let broken = ["closed", "Connection reset"].iter().any(|how| entry.ended.starts_with(how));
        let cut = entry.kind == Kind::Stream && broken;
        assert!(UNREACHED.contains(&entry.ended.as_str()) || cut, "{entry:?}");
        assert!(entry.begun < back, "it began {:?} after Metrica was back: {entry:?}", entry.begun - back);
    }
    let after = ledger.0.iter().filter(|entry| entry.begun >= back).count();
    assert!(after >= 40, "{after} requests after it was back");
}

/// what fails, fails while Metrica is away; no write arrives twice; and when it is back, everything succeeds at once,
/// on connections that callers kept.
#[test]
fn an_upstream_that_is_killed_and_comes_back() {
    let upstream = traffic::upstream();
    let mut relay = Relay::new(upstream.address());
    let place = relay.open(any_port(Ipv4Addr::LOCALHOST));
    let gate = Gate::plan_for(&place.to_string(), upstream.ca_pem(), TWO_CALLERS).start();
    let running = Traffic::on(gate.place("crm"), CALLERS);
    let mut times = Vec::new();
    for _ in 0..3 {
        let killed = Instant::now();
        relay.kill();
        running.go_on();
        relay.open(place);
        times.push((killed, Instant::now()));
        running.go_on();
        running.go_on();
    }
    let ledger = running.end();
    only_before(&ledger, times[times.len() - 1].1);
    // Between two times that it was away, too.
    for pair in times.windows(2) {
        let between = ledger.0.iter().filter(|entry| entry.begun >= pair[0].1 && entry.begun < pair[1].0);
        let ended = |entry: &&traffic::Entry| entry.over < pair[1].0;
        let failed: Vec<_> = between.filter(ended).filter(|entry| !entry.is_right()).collect();
        assert!(failed.is_empty(), "{failed:?}");
    }
    ledger.assert_writes_once(&upstream);
    assert!(ledger.0.iter().any(|entry| !entry.is_right()), "it was down long enough to be noticed");
}

/// connections are reset or closed while they are idle, all the time. No read is lost; a write arrives at most once.
#[test]
fn an_upstream_that_ends_idle_connections_all_the_time() {
    let upstream = Upstream::run(|conversation| {
        for _ in 0..=conversation.number % 4 {
            if !answer_one(conversation) {
                return;
            }
        }
        if conversation.number % 2 == 0 { conversation.reset() } else { conversation.close() }
    });
    let gate = Gate::start(&upstream, TWO_CALLERS);
    let running = Traffic::on(gate.place("crm"), CALLERS);
    (0..10).for_each(|_| running.go_on());
    let ledger = running.end();
    ledger.assert_writes_once(&upstream);
    for entry in ledger.0.iter().filter(|entry| !entry.is_right()) {
        assert!(entry.kind.writes() && entry.ended == "502 upstream_closed", "{entry:?}");
    }
    let writes = ledger.0.iter().filter(|entry| entry.kind.writes()).count();
    let refused = ledger.0.iter().filter(|entry| !entry.is_right()).count();
    assert!(refused * 5 < writes, "{refused} of {writes} writes met a connection that was just ended");
}

/// The maximum duration of a look-up, on a busy machine too.
const LOOK_UP: Duration = Duration::from_millis(100);

const V4: &str = "127.0.0.1 metrica.test\n";
const V6: &str = "::1 metrica.test\n";

/// A gate that looks up `metrica.test` in `hosts`; `None` where this machine has no IPv6, or no way to have other hosts.
fn by_name(relay: &SocketAddr, upstream: &Upstream, hosts: &str) -> Option<Gate> {
    let place = format!("metrica.test:{}", relay.port());
    TcpListener::bind(any_port(Ipv6Addr::LOCALHOST)).ok()?;
    Some(Gate::plan_for(&place, upstream.ca_pem(), TWO_CALLERS).hosts(hosts)?.start())
}

/// With addresses of one family, or of both with one address dead, the first or the last: nothing is lost.
#[test]
fn an_upstream_with_one_living_address() {
    let both = [V6, V4].concat();
    for (alive, hosts) in [
        (any_port(Ipv4Addr::LOCALHOST), V4),
        (any_port(Ipv6Addr::LOCALHOST), V6),
        (any_port(Ipv4Addr::LOCALHOST), &both),
        (any_port(Ipv6Addr::LOCALHOST), &both),
    ] {
        let upstream = traffic::upstream();
        let mut relay = Relay::new(upstream.address());
        let place = relay.open(alive);
        let Some(gate) = by_name(&place, &upstream, hosts) else { return };
        let running = Traffic::on(gate.place("crm"), CALLERS);
        let ledger = running.end();
        ledger.assert_all_right();
        ledger.assert_writes_once(&upstream);
        assert_eq!(gate.metric(&["upstream_errors_total"]), 0.0, "{alive}");
    }
}

/// The name leads to another address: requests after Metrica's move go there, without a restart and a reload.
#[test]
fn an_upstream_that_moves() {
    let upstream = traffic::upstream();
    let mut relay = Relay::new(upstream.address());
    let mut place = relay.open(any_port(Ipv4Addr::LOCALHOST));
    let Some(gate) = by_name(&place, &upstream, V4) else { return };
    let running = Traffic::on(gate.place("crm"), CALLERS);
    let mut back = Instant::now();
    for (address, hosts) in [(Ipv6Addr::LOCALHOST.into(), V6), (Ipv4Addr::LOCALHOST.into(), V4)] {
        relay.kill();
        place.set_ip(address);
        relay.open(place);
        std::fs::write(gate.file("hosts"), hosts).unwrap();
        // A look-up in progress has read the old file, and requests at that moment share it.
        back = Instant::now() + LOOK_UP;
        running.go_on();
        running.go_on();
    }
    let ledger = running.end();
    only_before(&ledger, back);
    ledger.assert_writes_once(&upstream);
}

/// Metrica is away when the gate starts: it serves as soon as Metrica does.
#[test]
fn an_upstream_that_comes_later() {
    let upstream = traffic::upstream();
    let mut relay = Relay::new(upstream.address());
    let place = relay.open(any_port(Ipv4Addr::LOCALHOST));
    relay.kill();
    let gate = Gate::plan_for(&place.to_string(), upstream.ca_pem(), TWO_CALLERS).start();
    let running = Traffic::on(gate.place("crm"), CALLERS);
    relay.open(place);
    let back = Instant::now();
    let ledger = running.end();
    only_before(&ledger, back);
    ledger.assert_writes_once(&upstream);
    assert!(ledger.0.iter().filter(|entry| !entry.is_right()).all(|entry| entry.ended == UNREACHED[1]));
    until("nothing is under way", || gate.metric(&["in_flight_requests"]) < 0.5);
}

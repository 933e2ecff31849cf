//! The age of connections to the upstream is bounded, however busy they are, and costs no request.

use std::net::{Ipv4Addr, TcpListener};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::harness::dns::Dns;
use crate::harness::gate::until;
use crate::harness::upstream::certificate;
use crate::harness::{Caller, Gate, Signal, TWO_CALLERS, Upstream};
use crate::upstream::http2::{fake, plan, relay};

const GET: &str = "GET /management/v1/counters HTTP/1.1\r\nHost: localhost\r\n\r\n";

fn with_age(upstream: &Upstream, max_age: &str) -> Gate {
    let config =
        format!("{TWO_CALLERS}\nupstream: {{ca_file: '{{ca}}', connect_to: '{{upstream}}', max_age: {max_age}}}\n");
    Gate::plan(upstream, &config).workers(1).start()
}

/// Asks without a pause until there were this many connections; returns the time that it took.
fn busy_until(caller: &mut Caller, wanted: usize, connections: impl Fn() -> usize) -> Duration {
    let start = Instant::now();
    until("another connection is opened", || {
        caller.send(GET);
        assert_eq!(caller.answer().summary(), "200");
        connections() >= wanted
    });
    start.elapsed()
}

#[test]
fn a_busy_connection_is_left_in_time() {
    let upstream = Upstream::plain();
    let gate = with_age(&upstream, "1s");
    let took = busy_until(&mut gate.connect("app"), 4, || upstream.connections());
    assert!(took >= Duration::from_millis(2400), "each is used for four fifths of its age at least: {took:?}");
}

#[test]
fn a_busy_connection_of_http2_is_left_in_time() {
    let fake = fake(true);
    let (place, connections) = relay(fake.address().to_string());
    let gate = plan(&place, fake.ca_pem(), ", max_age: 1s").start();
    let took = busy_until(&mut gate.connect("app"), 4, || connections.load(Ordering::SeqCst));
    assert!(took >= Duration::from_millis(2400), "{took:?}");
}

#[test]
fn a_request_in_progress_on_an_old_connection_completes() {
    let release = Signal::default();
    let released = release.clone();
    let upstream = Upstream::run(move |conversation| {
        while conversation.request_head().is_some() {
            if conversation.number > 0 {
                conversation.answer("200 OK", "application/json", "{}");
                continue;
            }
            conversation.write("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nabc");
            released.wait("the connection is old");
            conversation.write("def");
        }
    });
    let gate = with_age(&upstream, "200ms");
    let mut caller = gate.connect("app");
    let start = Instant::now();
    caller.send(GET);
    assert_eq!(caller.head().unwrap().0, 200);
    until("the connection is old", || start.elapsed() > Duration::from_secs(1));
    release.give();
    gate.until_log(&["\"access\"", "\"response_bytes\":6", "\"outcome\":\"complete\""]);
    assert_eq!(gate.get("app", "/management/v1/counters").text(), "{}");
    assert_eq!(upstream.connections(), 2);
}

const NAME: &str = "api-metrika.yandex.net";
const OLD: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 1);
const NEW: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

/// Two upstreams with the name of Metrica, on one port of two addresses.
fn two_places() -> [Upstream; 2] {
    let (config, ca_pem) = certificate(NAME);
    let first = TcpListener::bind((OLD, 0)).unwrap();
    let second = TcpListener::bind((NEW, first.local_addr().unwrap().port())).unwrap();
    [first, second].map(|listener| {
        Upstream::run_on(listener, config.clone(), ca_pem.clone(), |conversation| {
            while conversation.request_head().is_some() {
                conversation.answer("200 OK", "application/json", "{}");
            }
        })
    })
}

/// Whether a name moves in DNS while connections are never idle, and all requests go where it is soon after.
fn follows(upstream: &str, looked_up: &str) {
    let ([old, new], Some(dns)) = (two_places(), Dns::start(OLD)) else { return };
    let upstream = upstream.replace("{port}", &old.address().port().to_string());
    let config = format!("{TWO_CALLERS}\nupstream: {{ca_file: '{{ca}}', max_age: 1s, {upstream}}}\n");
    let Some(plan) = Gate::plan(&old, &config).resolver(dns.place()) else { return };
    let (gate, stop) = (plan.start(), AtomicBool::new(false));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut caller = gate.connect("app");
                while !stop.load(Ordering::SeqCst) {
                    caller.send(GET);
                    assert_eq!(caller.answer().summary(), "200");
                }
            });
        }
        let requests = || [old.requests().len(), new.requests().len()];
        until("connections are busy", || requests()[0] > 200);
        dns.move_to(NEW);
        // Waits for a look-up and for requests already in progress.
        std::thread::sleep(Duration::from_millis(1500));
        let [at_the_old, at_the_new] = requests();
        std::thread::sleep(Duration::from_millis(1500));
        stop.store(true, Ordering::SeqCst);
        let [old, new] = requests();
        assert_eq!(old - at_the_old, 0, "what is older than max_age is left");
        assert!(at_the_new > 0 && new > at_the_new + 50, "{at_the_new}, {new}");
    });
    assert!(dns.names().iter().all(|name| name == looked_up), "{:?}", dns.names());
}

#[test]
fn a_name_that_moves_is_followed_while_connections_are_busy() {
    follows(&format!("url: 'https://{NAME}:{{port}}'"), NAME);
}

#[test]
fn the_name_of_connect_to_that_moves_is_followed_too() {
    follows("connect_to: 'metrica.test:{port}'", "metrica.test");
}

#[test]
fn an_unknown_name_is_logged_with_a_hint_about_the_hosts_file() {
    let upstream = Upstream::plain();
    let config = format!("{TWO_CALLERS}\nupstream: {{url: 'https://metrica.invalid'}}\n");
    let gate = Gate::start(&upstream, &config);
    let answer = gate.get("app", "/management/v1/counters");
    assert_eq!(answer.summary(), "503 upstream_unreachable");
    let line = gate.until_log(&["request failed", "upstream_unreachable"]);
    // If the resolver does not respond, the timeout comes first.
    let said = "the gate uses the hosts file for upstream.connect_to only";
    assert!(line.contains(said) || line.contains("took longer"), "{line}");
}

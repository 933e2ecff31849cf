//! HTTP/2 to the upstream, where it is asked for and offered.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use fake_metrica::{DEMO_COUNTER, Fake, Permission, Settings};
use metrica::scope::Scope;

use crate::harness::gate::{PATIENCE, Plan, until};
use crate::harness::metrica::token;
use crate::harness::{Caller, Gate, READ_TOKEN, Signal, TWO_CALLERS, Upstream, WRITE_TOKEN};

const GET: &str = "GET /management/v1/counters HTTP/1.1\r\nHost: localhost\r\n\r\n";

pub fn fake(http2: bool) -> Fake {
    let token = |secret, scope| token(secret, "owner", &[scope], &[(DEMO_COUNTER, Permission::Own)]);
    let tokens = vec![token(READ_TOKEN, Scope::Read), token(WRITE_TOKEN, Scope::Write)];
    Fake::start(Settings { tokens, http2, ..Settings::default() }).unwrap()
}

/// Passes bytes on to `to`, and counts connections.
pub fn relay(to: String) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let place = listener.local_addr().unwrap().to_string();
    let count = Arc::new(AtomicUsize::new(0));
    let counts = count.clone();
    std::thread::spawn(move || {
        for near in listener.incoming().map_while(Result::ok) {
            counts.fetch_add(1, Ordering::SeqCst);
            let far = TcpStream::connect(&to).unwrap();
            near.set_nodelay(true).unwrap();
            far.set_nodelay(true).unwrap();
            let pass = |mut from: TcpStream, mut to: TcpStream| {
                std::thread::spawn(move || {
                    let _ = std::io::copy(&mut from, &mut to);
                    let _ = to.shutdown(Shutdown::Write);
                });
            };
            pass(near.try_clone().unwrap(), far.try_clone().unwrap());
            pass(far, near);
        }
    });
    (place, count)
}

/// A gate that asks for HTTP/2, and lets callers turn the stand-in's knobs.
pub fn plan(place: &str, ca_pem: &str, more: &str) -> Plan {
    let config = format!(
        "{TWO_CALLERS}\noperations: [{{method: POST, path: '/_fake/{{knob}}', scope: [metrika:read]}}]\n\
         \nupstream: {{ca_file: '{{ca}}', connect_to: '{{upstream}}', http2: true{more}}}\n"
    );
    Gate::plan_for(place, ca_pem, &config).workers(1)
}

fn knob(gate: &Gate, knob: &str) {
    let answer =
        gate.send("app", format!("POST /_fake/{knob} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n"));
    assert_eq!(answer.summary(), "200", "{knob}: {}", answer.text());
}

#[test]
fn requests_at_once_share_one_connection() {
    let fake = fake(true);
    let (place, connections) = relay(fake.address().to_string());
    let gate = plan(&place, fake.ca_pem(), "").start();
    // Every response waits until all requests have arrived.
    knob(&gate, "slow?ms=500&path=/management/v1/counters");
    let before = fake.requests();
    let mut callers: Vec<_> = (0..50).map(|_| gate.connect("app")).collect();
    callers.iter_mut().for_each(|caller| caller.send(GET));
    gate.until_metric(&["in_flight", "reports"], 50.0);
    for caller in &mut callers {
        let answer = caller.answer();
        assert_eq!(answer.summary(), "200");
        assert!(answer.text().contains(&DEMO_COUNTER.to_string()));
    }
    assert_eq!((fake.requests() - before, connections.load(Ordering::SeqCst)), (50, 1));
}

#[test]
fn a_burst_at_the_start_opens_one_connection() {
    let fake = fake(true);
    let (place, connections) = relay(fake.address().to_string());
    let gate = plan(&place, fake.ca_pem(), "").start();
    let mut callers: Vec<_> = (0..50).map(|_| gate.connect("app")).collect();
    callers.iter_mut().for_each(|caller| caller.send(GET));
    assert!(callers.iter_mut().all(|caller| caller.answer().summary() == "200"));
    assert_eq!((fake.requests(), connections.load(Ordering::SeqCst)), (50, 1));
}

#[test]
fn more_requests_than_streams_open_another_connection() {
    let fake = fake(true);
    let (place, connections) = relay(fake.address().to_string());
    let gate = plan(&place, fake.ca_pem(), "").start();
    knob(&gate, "slow?ms=1000&path=/management/v1/counters");
    let mut callers: Vec<_> = (0..150).map(|_| gate.connect("app")).collect();
    callers.iter_mut().for_each(|caller| caller.send(GET));
    gate.until_metric(&["in_flight", "reports"], 150.0);
    assert!(callers.iter_mut().all(|caller| caller.answer().summary() == "200"));
    assert_eq!(connections.load(Ordering::SeqCst), 2);
}

#[test]
fn an_upstream_that_offers_only_http_1_1_is_spoken_to_in_it() {
    let fake = fake(false);
    let gate = plan(&fake.address().to_string(), fake.ca_pem(), "").start();
    let mut callers: Vec<_> = (0..10).map(|_| gate.connect("app")).collect();
    for _ in 0..2 {
        callers.iter_mut().for_each(|caller| caller.send(GET));
        assert!(callers.iter_mut().all(|caller| caller.answer().summary() == "200"));
    }
    // And one that knows no ALPN at all.
    let upstream = Upstream::plain();
    let gate = plan(&upstream.address().to_string(), upstream.ca_pem(), "").start();
    let mut caller = gate.connect("app");
    for _ in 0..3 {
        caller.send(GET);
        assert_eq!(caller.answer().summary(), "200");
    }
    assert_eq!(upstream.connections(), 1);
    assert!(
        upstream.requests()[0].starts_with("GET /management/v1/counters HTTP/1.1\r\nhost: api-metrika.yandex.net\r\n")
    );
}

#[test]
fn http_2_is_not_used_unless_it_is_asked_for() {
    let fake = fake(true);
    let (place, connections) = relay(fake.address().to_string());
    let gate = Gate::plan_for(&place, fake.ca_pem(), TWO_CALLERS).workers(1).start();
    let mut callers: Vec<_> = (0..5).map(|_| gate.connect("app")).collect();
    callers.iter_mut().for_each(|caller| caller.send(GET));
    assert!(callers.iter_mut().all(|caller| caller.answer().summary() == "200"));
    assert!(connections.load(Ordering::SeqCst) > 1, "HTTP/1.1 has a connection for each request under way");
}

const DOWNLOAD: usize = 256 * 1024 * 1024;

#[test]
fn a_large_download_streams() {
    let fake = fake(true);
    let gate = plan(&fake.address().to_string(), fake.ca_pem(), "").start();
    knob(&gate, &format!("part_bytes?n={DOWNLOAD}"));
    knob(&gate, "logs?instant&parts=1");
    let logs = format!("/management/v1/counter/{DEMO_COUNTER}");
    let asked = "date1=2026-01-01&date2=2026-01-02&fields=ym:s:visitID,ym:s:dateTime&source=visits";
    let created = gate.send(
        "app",
        format!("POST {logs}/logrequests?{asked} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n"),
    );
    assert_eq!(created.summary(), "200", "{}", created.text());
    let created: serde_json::Value = serde_json::from_str(&created.text()).unwrap();
    let id = &created["log_request"]["request_id"];
    gate.get("app", &format!("{logs}/logrequest/{id}"));
    let mut caller = TcpStream::connect(gate.place("app")).unwrap();
    caller.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(
        caller,
        "GET {logs}/logrequest/{id}/part/0/download HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    )
    .unwrap();
    let (mut read, mut buffer, mut last) = (0, vec![0; 1 << 20], 0);
    loop {
        let more = caller.read(&mut buffer).unwrap();
        if more == 0 {
            break;
        }
        (read, last) = (read + more, buffer[more - 1]);
    }
    assert!(read >= DOWNLOAD, "{read} {:?}", String::from_utf8_lossy(&buffer[..200]));
    assert_eq!(last, b'\n');
    assert!(gate.peak_resident_bytes() < 40 * 1024 * 1024, "{}", gate.peak_resident_bytes());
    // A caller that does not read holds up nobody else on the connection.
    let mut idle = gate.connect("app");
    idle.send(format!("GET {logs}/logrequest/{id}/part/0/download HTTP/1.1\r\nHost: localhost\r\n\r\n"));
    assert_eq!(idle.head().unwrap().0, 200);
    assert_eq!(gate.get("app", "/management/v1/counters").summary(), "200");
    drop(idle);
    gate.until_log(&["\"outcome\":\"caller_gone\""]);
    gate.until_metric(&["in_flight", "reports"], 0.0);
    assert_eq!(gate.get("app", "/management/v1/counters").summary(), "200");
}

#[test]
fn a_large_upload_streams() {
    let fake = fake(true);
    let gate = plan(&fake.address().to_string(), fake.ca_pem(), "").start();
    for (framing, expect) in
        [("Content-Length", ""), ("Content-Length", "Expect: 100-continue\r\n"), ("Transfer-Encoding", "")]
    {
        let mut caller = TcpStream::connect(gate.place("crm")).unwrap();
        caller.set_read_timeout(Some(PATIENCE)).unwrap();
        let is_chunked = framing == "Transfer-Encoding";
        let line = "UserId,Target,DateTime\n".repeat(45_000);
        let pieces = 64 * 1024 * 1024 / line.len();
        let value = if is_chunked { "chunked".to_owned() } else { (line.len() * pieces).to_string() };
        let head = format!(
            "POST /management/v1/counter/{DEMO_COUNTER}/offline_conversions/upload HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/csv\r\n{expect}{framing}: {value}\r\n\r\n"
        );
        caller.write_all(head.as_bytes()).unwrap();
        for _ in 0..pieces {
            if is_chunked {
                write!(caller, "{:x}\r\n{line}\r\n", line.len()).unwrap();
            } else {
                caller.write_all(line.as_bytes()).unwrap();
            }
        }
        if is_chunked {
            caller.write_all(b"0\r\n\r\n").unwrap();
        }
        let mut answer = Vec::new();
        let mut buffer = [0; 4096];
        until("an answer", || {
            let more = caller.read(&mut buffer).unwrap_or(0);
            answer.extend_from_slice(&buffer[..more]);
            answer.windows(12).any(|part| part == b"HTTP/1.1 200") || more == 0
        });
        let answer = String::from_utf8_lossy(&answer).into_owned();
        assert!(answer.contains("HTTP/1.1 200 "), "{framing} {expect} {answer}");
    }
    assert!(gate.peak_resident_bytes() < 40 * 1024 * 1024, "{}", gate.peak_resident_bytes());
}

#[test]
fn a_stream_that_is_reset_fails_its_request_and_no_other() {
    let fake = fake(true);
    let (place, connections) = relay(fake.address().to_string());
    let gate = plan(&place, fake.ca_pem(), "").start();
    knob(&gate, "slow?ms=400&path=/management/v1/counters");
    let mut other = gate.connect("app");
    other.send(GET);
    gate.until_metric(&["in_flight", "reports"], 1.0);
    knob(&gate, "break?times=1&path=/management/v1/clients");
    let before = fake.requests();
    assert_eq!(gate.get("app", "/management/v1/clients?counters=1").summary(), "502 upstream_closed");
    assert_eq!(fake.requests() - before, 1, "it was not sent again");
    // In the middle of an answer.
    knob(&gate, "break?times=1&after=5&path=/management/v1/clients");
    let mut caller = gate.connect("app");
    caller.send("GET /management/v1/clients?counters=1 HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let answer = caller.try_answer(false);
    assert!(answer.as_ref().is_err_and(|error| !error.contains("unavailable")), "{answer:?}");
    assert_eq!(other.answer().summary(), "200");
    assert_eq!(gate.get("app", "/management/v1/counters").summary(), "200");
    assert_eq!(connections.load(Ordering::SeqCst), 1);
    gate.until_metric(&["upstream_errors_total", "kind=\"closed\""], 1.0);
    gate.until_metric(&["upstream_errors_total", "kind=\"body_cut\""], 1.0);
}

#[test]
fn a_caller_that_leaves_cancels_its_stream_and_no_other() {
    let fake = fake(true);
    let (place, connections) = relay(fake.address().to_string());
    let gate = plan(&place, fake.ca_pem(), "").start();
    knob(&gate, "slow?ms=700&path=/management/v1/counters");
    let (mut stays, mut leaves) = (gate.connect("app"), gate.connect("crm"));
    stays.send(GET);
    leaves.send(GET);
    gate.until_metric(&["in_flight"], 2.0);
    drop(leaves);
    gate.until_metric(&["requests_total", "caller=\"crm\"", "code=\"499\""], 1.0);
    assert_eq!(stays.answer().summary(), "200");
    assert_eq!(connections.load(Ordering::SeqCst), 1);
}

#[test]
fn a_deadline_ends_its_stream_and_no_other() {
    let fake = fake(true);
    let (place, connections) = relay(fake.address().to_string());
    let gate = plan(&place, fake.ca_pem(), ", timeouts: {response_headers: 300ms}").start();
    knob(&gate, "slow?ms=3000&path=/management/v1/clients");
    assert_eq!(gate.get("app", "/management/v1/clients?counters=1").summary(), "504 upstream_timeout");
    assert_eq!(gate.get("app", "/management/v1/counters").summary(), "200");
    assert_eq!(connections.load(Ordering::SeqCst), 1);
}

#[test]
fn a_connection_that_ends_is_replaced() {
    let fake = fake(true);
    let address = fake.address();
    let ca_pem = fake.ca_pem().to_owned();
    // The relay plays a network that drops a connection that nobody uses.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let place = listener.local_addr().unwrap().to_string();
    let sockets = Arc::new(std::sync::Mutex::new(Vec::new()));
    let opened = sockets.clone();
    std::thread::spawn(move || {
        for near in listener.incoming().map_while(Result::ok) {
            let far = TcpStream::connect(address).unwrap();
            opened.lock().unwrap().push((near.try_clone().unwrap(), far.try_clone().unwrap()));
            let pass = |mut from: TcpStream, mut to: TcpStream| {
                std::thread::spawn(move || std::io::copy(&mut from, &mut to));
            };
            pass(near.try_clone().unwrap(), far.try_clone().unwrap());
            pass(far, near);
        }
    });
    let gate = plan(&place, &ca_pem, "").start();
    let mut caller = gate.connect("crm");
    let ask = |caller: &mut Caller, request: &str| {
        caller.send(request);
        caller.answer().summary()
    };
    assert_eq!(ask(&mut caller, GET), "200");
    for (near, far) in sockets.lock().unwrap().drain(..) {
        let _ = (near.shutdown(Shutdown::Both), far.shutdown(Shutdown::Both));
    }
    // It may take a moment until the gate has seen it; a GET that is lost in it is sent again.
    assert_eq!(ask(&mut caller, GET), "200");
    assert_eq!(ask(&mut caller, GET), "200");
    assert_eq!(sockets.lock().unwrap().len(), 1);
}

#[test]
fn a_connection_that_never_comes_is_waited_for_once_by_all() {
    // It accepts, and never starts TLS.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let place = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || listener.incoming().collect::<Vec<_>>());
    let (_, ca_pem) = crate::harness::upstream::certificate("api-metrika.yandex.net");
    let gate = plan(&place, &ca_pem, ", timeouts: {connect: 1s}").start();
    let start = Instant::now();
    let mut callers: Vec<_> = (0..8).map(|_| gate.connect("app")).collect();
    callers.iter_mut().for_each(|caller| caller.send(GET));
    for caller in &mut callers {
        assert_eq!(caller.answer().summary(), "503 upstream_unreachable");
    }
    let took = start.elapsed();
    // A caller admitted at the last moment may have tried for itself. One after the other, it would be eight.
    assert!(took >= Duration::from_millis(900) && took < Duration::from_secs(4), "it took {took:?}");
    gate.until_metric(&["upstream_errors_total", "kind=\"connect_timeout\""], 8.0);
}

#[test]
fn a_connection_that_is_silently_gone_is_replaced() {
    let fake = fake(true);
    let address = fake.address();
    // The relay plays a network that forgets its first connection: nothing is passed on, nothing is closed.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let place = listener.local_addr().unwrap().to_string();
    let gone = Signal::default();
    let forgets = gone.clone();
    std::thread::spawn(move || {
        for (number, near) in listener.incoming().map_while(Result::ok).enumerate() {
            let far = TcpStream::connect(address).unwrap();
            let pass = |mut from: TcpStream, mut to: TcpStream| {
                let forgets = forgets.clone();
                std::thread::spawn(move || {
                    let mut buffer = [0; 16 * 1024];
                    while let Ok(read @ 1..) = from.read(&mut buffer) {
                        let is_forgotten = number == 0 && forgets.is_given();
                        if !is_forgotten && to.write_all(&buffer[..read]).is_err() {
                            return;
                        }
                    }
                });
            };
            pass(near.try_clone().unwrap(), far.try_clone().unwrap());
            pass(far, near);
        }
    });
    let gate = plan(&place, fake.ca_pem(), ", timeouts: {connect: 500ms, response_headers: 15s}").start();
    assert_eq!(gate.get("app", "/management/v1/counters").summary(), "200");
    gone.give();
    // It may have been lost on its way, or been answered: it is not sent again.
    assert_eq!(gate.get("app", "/management/v1/counters").summary(), "502 upstream_closed");
    assert_eq!(gate.get("app", "/management/v1/counters").summary(), "200");
}

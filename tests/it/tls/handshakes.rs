//! TLS towards callers: the same requests and limits as in clear text, and a remedy for each wrong turn.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned, SupportedProtocolVersion};

use crate::harness::gate::{PATIENCE, until};
use crate::harness::h2::{Fate, H2, HEADERS, WHOLE, get};
use crate::harness::over::{client, server_name, settings};
use crate::harness::{Caller, Gate, Upstream};

const TLS: &str = "
listeners:
  - {name: app, address: '127.0.0.1:0', http2: true, tls: {authority: '{folder}/ca'}}
  - {name: one, address: '127.0.0.1:0', tls: {authority: '{folder}/ca'}}
  - {name: sock, unix: {path: '{folder}/gate.sock', mode: '0600'}, tls: {authority: '{folder}/ca'}}
  - {name: plain, address: '127.0.0.1:0'}
callers: [{id: reports, scopes: [metrika:read], tokens: [analytics], match: {source: [127.0.0.0/8]}}, {id: local, match: {listener: sock}, scopes: [metrika:read], tokens: [analytics]}]
";

const GET: &str = "GET /management/v1/counters HTTP/1.1\r\nHost: localhost\r\n\r\n";

fn tcp(gate: &Gate, listener: &str) -> TcpStream {
    let socket = TcpStream::connect(gate.place(listener)).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

/// A caller over TLS, to the name in its handshake.
fn caller(gate: &Gate, listener: &str, name: &str) -> Caller {
    Caller::on(client(&gate.file("ca"), &[], name, tcp(gate, listener)))
}

fn of_version(gate: &Gate, version: &'static SupportedProtocolVersion) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    let pem = std::fs::read(gate.file("ca/ca.pem")).unwrap();
    roots.add(rustls::pki_types::pem::PemObject::from_pem_slice(&pem).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let settings = ClientConfig::builder_with_provider(provider).with_protocol_versions(&[version]).unwrap();
    Arc::new(settings.with_root_certificates(roots).with_no_client_auth())
}

fn handshakes(gate: &Gate, result: &str) -> f64 {
    gate.metric(&["tls_handshakes_total", &format!("\"{result}\"")])
}

#[test]
fn requests_are_served_over_tls_like_in_clear_text() {
    let upstream = Upstream::plain();
    let gate = Gate::start(&upstream, TLS);
    for name in ["localhost", "127.0.0.1", "api-metrika.yandex.net", "api-metrica.yandex.com"] {
        let mut caller = caller(&gate, "app", name);
        for _ in 0..3 {
            let host = if name.starts_with('1') { "localhost" } else { name };
            caller.send(GET.replace("localhost", host));
            assert_eq!(caller.answer().summary(), "200", "{name}");
        }
    }
    assert_eq!(upstream.requests().len(), 12);
    assert!(handshakes(&gate, "full") >= 4.0);
    let socket = UnixStream::connect(gate.place("sock")).unwrap();
    let session = ClientConnection::new(settings(&gate.file("ca"), &[]), server_name("localhost")).unwrap();
    let mut local = Caller::on(StreamOwned::new(session, socket));
    local.send(GET);
    assert_eq!(local.answer().summary(), "200");
    gate.until_log(&["\"listening\"", "https://127.0.0.1:"]);
}

#[test]
fn http2_is_negotiated_where_the_listener_enables_it() {
    let upstream = Upstream::plain();
    let gate = Gate::start(&upstream, TLS);
    let mut two = H2::on(client(&gate.file("ca"), &["h2", "http/1.1"], "localhost", tcp(&gate, "app")));
    two.frame(HEADERS, WHOLE, 1, get());
    assert_eq!(two.fate(1), Fate::Answered(200));
    let mut one = Caller::on(client(&gate.file("ca"), &["h2", "http/1.1"], "localhost", tcp(&gate, "one")));
    one.send(GET);
    assert_eq!(one.answer().summary(), "200");
    let mut none = client(&gate.file("ca"), &["h2"], "localhost", tcp(&gate, "one"));
    let said = none.write_all(GET.as_bytes()).and_then(|()| none.read(&mut [0])).unwrap_err().to_string();
    assert!(said.contains("NoApplicationProtocol"), "{said}");
    gate.until_log(&["TLS handshake failed", "set http2: true"]);
}

#[test]
fn sessions_are_resumed_in_both_versions() {
    let upstream = Upstream::plain();
    let gate = Gate::plan(&upstream, TLS).workers(2).start();
    for (version, resumed) in [(&rustls::version::TLS12, 1.0), (&rustls::version::TLS13, 2.0)] {
        let settings = of_version(&gate, version);
        for _ in 0..2 {
            let session = ClientConnection::new(settings.clone(), server_name("localhost")).unwrap();
            let mut caller = Caller::on(StreamOwned::new(session, tcp(&gate, "app")));
            caller.send(GET);
            assert_eq!(caller.answer().summary(), "200");
        }
        gate.until_metric(&["tls_handshakes_total", "resumed"], resumed);
    }
}

#[test]
fn clear_text_on_a_tls_listener_gets_the_remedy() {
    let upstream = Upstream::plain();
    let gate = Gate::start(&upstream, TLS);
    for listener in ["app", "one", "sock"] {
        let answer = gate.send(listener, GET);
        assert_eq!(answer.summary(), "400 malformed_request");
        assert!(answer.text().contains("use https://"), "{}", answer.text());
    }
    gate.until_log(&["request failed", "plain_text", "expects TLS"]);
    gate.until_metric(&["denied_total", "malformed_request"], 3.0);
}

#[test]
fn tls_on_a_clear_text_listener_is_logged_with_the_remedy() {
    let upstream = Upstream::plain();
    let gate = Gate::start(&upstream, TLS);
    let mut session = client(&gate.file("ca"), &[], "localhost", tcp(&gate, "plain"));
    assert!(session.write_all(GET.as_bytes()).and_then(|()| session.read(&mut [0])).is_err());
    gate.until_log(&["request failed", "tls_handshake", "use http://"]);
}

#[test]
fn a_client_that_does_not_trust_the_authority_is_logged_with_the_remedy() {
    let upstream = Upstream::plain();
    let gate = Gate::start(&upstream, TLS);
    let other = tempfile::tempdir().unwrap();
    crate::harness::over::authority_at(other.path(), std::time::SystemTime::now());
    let mut session = client(other.path(), &[], "localhost", tcp(&gate, "app"));
    assert!(session.write_all(GET.as_bytes()).is_err());
    let line = gate.until_log(&["TLS handshake failed", "ca bundle"]);
    assert!(line.contains("\"listener\":\"app\""), "{line}");
    gate.until_metric(&["tls_handshakes_total", "failed"], 1.0);
}

/// A request for another name than that of the handshake could be meant for another server.
#[test]
fn the_host_is_the_name_of_the_handshake() {
    let upstream = Upstream::plain();
    let gate = Gate::start(&upstream, TLS);
    for (name, host, expected) in [
        ("localhost", "localhost:8443", "200"),
        ("localhost", "LOCALHOST.", "200"),
        ("localhost", "127.0.0.1", "421 misdirected"),
        ("localhost", "api-metrika.yandex.net", "421 misdirected"),
        ("api-metrika.yandex.net", "api-metrika.yandex.ru", "421 misdirected"),
        ("api-metrika.yandex.net", "evil.example", "403 host_denied"),
        ("127.0.0.1", "api-metrika.yandex.net", "200"),
    ] {
        let mut caller = caller(&gate, "app", name);
        caller.send(GET.replace("localhost", host));
        assert_eq!(caller.answer().summary(), expected, "{name} {host}");
    }
    let mut two = H2::on(client(&gate.file("ca"), &["h2"], "api-metrika.yandex.net", tcp(&gate, "app")));
    two.frame(HEADERS, WHOLE, 1, get());
    assert_eq!(two.fate(1), Fate::Answered(421), "its authority is localhost");
}

#[test]
fn handshakes_have_a_timeout_and_count_as_connections() {
    let upstream = Upstream::plain();
    let limits = "limits: {connections: 4}\ntimeouts: {request_headers: 1500ms}\n";
    let gate = Gate::plan(&upstream, &format!("{TLS}{limits}")).workers(1).start();
    let start = Instant::now();
    let mut half_open: Vec<_> = (0..4).map(|_| tcp(&gate, "app")).collect();
    half_open[1].write_all(&[0x16]).unwrap();
    half_open[2].write_all(&[0x16, 3, 1, 2]).unwrap();
    half_open[3].write_all(&[0x16, 3, 1, 2, 0, 1, 0]).unwrap();
    let mut refused = tcp(&gate, "app");
    let mut said = Vec::new();
    refused.read_to_end(&mut said).unwrap();
    assert_eq!(said, [0x15, 3, 3, 0, 2, 2, 80], "a TLS alert");
    for socket in &mut half_open {
        assert!(matches!(socket.read(&mut [0; 64]), Ok(_) | Err(_)));
    }
    assert!(start.elapsed() >= Duration::from_millis(1400) && start.elapsed() < PATIENCE);
    gate.until_metric(&["tls_handshakes_total", "timeout"], 4.0);
    let mut caller = caller(&gate, "app", "localhost");
    caller.send(GET);
    assert_eq!(caller.answer().summary(), "200", "their places are free");
}

#[test]
fn a_flood_of_half_open_handshakes_leaves_others_served() {
    let upstream = Upstream::plain();
    let gate =
        Gate::plan(&upstream, &format!("{TLS}limits: {{connections: 500}}\ntimeouts: {{request_headers: 1s}}\n"))
            .start();
    let mut held: Vec<_> = (0..300).map(|_| tcp(&gate, "app")).collect();
    for (number, socket) in held.iter_mut().enumerate() {
        socket.write_all(&[0x16, 3, 1, 2, 0, 1, 0, 1][..1 + number % 8]).unwrap();
    }
    let mut caller = caller(&gate, "app", "localhost");
    for _ in 0..10 {
        caller.send(GET);
        assert_eq!(caller.answer().summary(), "200");
    }
    gate.until_metric(&["tls_handshakes_total", "timeout"], 300.0);
}

/// TLS holds bytes that the socket does not accept, and the caller is blamed for them all the same.
#[test]
fn a_caller_that_does_not_read_is_cut_over_tls_too() {
    let upstream = Upstream::run(|conversation| {
        while conversation.request_head().is_some() {
            conversation.answer("200 OK", "application/json", &"x".repeat(16 * 1024 * 1024));
        }
    });
    let gate = Gate::plan(&upstream, &format!("{TLS}timeouts: {{body_idle: 1s}}\n")).workers(1).start();
    for protocols in [&["http/1.1"][..], &["h2"]] {
        let mut session = client(&gate.file("ca"), protocols, "localhost", tcp(&gate, "app"));
        if protocols == ["h2"] {
            let mut two = H2::on(session);
            two.frame(HEADERS, WHOLE, 1, get());
            // The windows allow more than the socket accepts.
            two.frame(crate::harness::h2::WINDOW_UPDATE, 0, 0, (1_u32 << 30).to_be_bytes());
            two.frame(crate::harness::h2::WINDOW_UPDATE, 0, 1, (1_u32 << 30).to_be_bytes());
            until("it is cut", || gate.metric(&["caller_stalls_total", "answer"]) > 1.0);
        } else {
            session.write_all(GET.as_bytes()).unwrap();
            until("it is cut", || gate.metric(&["caller_stalls_total", "answer"]) > 0.0);
        }
    }
}

#[test]
fn an_early_end_of_a_connection_is_no_error() {
    let upstream = Upstream::plain();
    let mut gate = Gate::plan(&upstream, TLS).workers(1).start();
    drop(tcp(&gate, "app"));
    let mut session = client(&gate.file("ca"), &[], "localhost", tcp(&gate, "app"));
    session.write_all(GET.as_bytes()).unwrap();
    let mut answer = [0; 4096];
    let _ = session.read(&mut answer).unwrap();
    // Without an alert.
    session.sock.shutdown(std::net::Shutdown::Write).unwrap();
    let mut rest = Vec::new();
    let _ = session.sock.read_to_end(&mut rest);
    let idle = tcp(&gate, "app");
    gate.signal("TERM");
    assert_eq!(gate.wait().code(), Some(0), "a handshake that has not begun does not delay the end");
    drop(idle);
    assert!(!gate.log().iter().any(|line| line.contains("\"level\":\"WARN\"") || line.contains("\"ERROR\"")));
}

/// The end of the connection ends such a response: without an alert, a client knows that something is missing.
#[test]
fn an_answer_that_breaks_off_does_not_look_whole_over_tls() {
    let upstream = Upstream::run(|conversation| {
        conversation.request_head();
        conversation.write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n");
        conversation.close();
    });
    let gate = Gate::start(&upstream, TLS);
    let mut session = client(&gate.file("ca"), &[], "localhost", tcp(&gate, "app"));
    session.write_all(GET.replace("HTTP/1.1", "HTTP/1.0").as_bytes()).unwrap();
    let mut read = Vec::new();
    let end = session.read_to_end(&mut read);
    let text = String::from_utf8_lossy(&read);
    assert!(end.is_err() || text.contains(" 502 "), "{end:?} {text}");
    gate.until_log(&["\"access\"", "\"outcome\":\"upstream_cut\""]);
}

/// The names of Metrica lead to the gate, for its callers and, where DNS was changed, for itself.
#[test]
fn a_gate_that_leads_to_itself_finds_out() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let upstream = Upstream::plain();
    let config = TLS.replacen("address: '127.0.0.1:0'", &format!("address: '{free}'"), 1);
    for trusted in ["{folder}/ca/ca.pem", "{ca}"] {
        let loops = format!("{config}upstream: {{ca_file: '{trusted}', connect_to: '{free}'}}\n");
        let gate = Gate::start(&upstream, &loops);
        gate.until_log(&["the upstream leads to a listener of this gate", "upstream.connect_to", &free.to_string()]);
        assert_eq!(gate.get("plain", "/management/v1/counters").summary(), "508 loop_detected");
        gate.until_log(&["request failed", "the upstream is a listener of this gate", "set upstream.connect_to"]);
    }
    assert!(upstream.requests().is_empty());
    let elsewhere = Gate::start(&upstream, TLS);
    assert_eq!(elsewhere.get("plain", "/management/v1/counters").summary(), "200");
    assert!(!elsewhere.log().iter().any(|line| line.contains("leads to a listener")));
}

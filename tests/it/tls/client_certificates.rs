//! Certificates of clients: which are accepted, how a refusal is reported, and how long an accepted one holds.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use rcgen::ExtendedKeyUsagePurpose;
use rustls::ClientConfig;
use rustls::version::{TLS12, TLS13};

use crate::cli::commands::outcome;
use crate::harness::client_certificates::{Authority, Issued, Wanted, session, settings};
use crate::harness::gate::{PATIENCE, Plan, program, until};
use crate::harness::h2::{Fate, H2, HEADERS, WHOLE, get};
use crate::harness::over::connect;
use crate::harness::{Caller, Gate, Upstream};

/// The listener `must` requires a certificate, `may` asks for one.
const CLIENTS: &str = "
listeners:
  - {name: must, address: '127.0.0.1:0', http2: true, tls: {authority: '{folder}/ca', client_ca: '{folder}/clients.pem'}}
  - {name: may, address: '127.0.0.1:0', tls: {authority: '{folder}/ca', client_ca: '{folder}/clients.pem', client_auth: optional}}
callers: [{id: reports, scopes: [metrika:read], tokens: [analytics], match: {source: [127.0.0.0/8]}}]
";

const GET: &str = "GET /management/v1/counters HTTP/1.1\r\nHost: localhost\r\n\r\n";
const BOTH: [&rustls::SupportedProtocolVersion; 2] = [&TLS12, &TLS13];
const SECOND: Duration = Duration::from_secs(1);

fn tcp(gate: &Gate, listener: &str) -> TcpStream {
    let socket = TcpStream::connect(gate.place(listener)).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

fn trusting(upstream: &Upstream, config: &str, authorities: &[&Authority]) -> Plan {
    let plan = Gate::plan(upstream, config);
    std::fs::write(plan.folder().join("clients.pem"), bundle(authorities)).unwrap();
    plan
}

fn bundle(authorities: &[&Authority]) -> String {
    authorities.iter().map(|authority| authority.pem.as_str()).collect()
}

fn config_of(gate: &Gate, issued: Option<&Issued>) -> Arc<ClientConfig> {
    settings(&gate.file("ca"), issued, &[], &BOTH)
}

fn caller(gate: &Gate, listener: &str, issued: Option<&Issued>) -> Caller {
    Caller::on(session(&config_of(gate, issued), "localhost", tcp(gate, listener)))
}

/// The result of one request: its summary, or `None` if the gate ended the handshake.
fn asked(gate: &Gate, listener: &str, settings: &Arc<ClientConfig>) -> Option<String> {
    let mut caller = Caller::on(session(settings, "localhost", tcp(gate, listener)));
    if !caller.try_send(GET) {
        return None;
    }
    caller.try_answer(false).ok().map(|answer| answer.summary())
}

fn refused(gate: &Gate, reason: &str) -> f64 {
    gate.metric(&["client_certificates_refused_total", &format!("\"{reason}\"")])
}

/// The caller that the next request is counted for.
fn who(gate: &Gate, caller: &mut Caller) -> String {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let id = format!("certificate-{}.", NEXT.fetch_add(1, Ordering::Relaxed));
    caller.send(GET.replace("\r\n\r\n", &format!("\r\nX-Request-ID: {id}\r\n\r\n")));
    caller.answer();
    let line: serde_json::Value = serde_json::from_str(&gate.until_log(&[&id, "\"access\""])).unwrap();
    line["caller"].as_str().unwrap().to_owned()
}

#[test]
fn only_valid_certificates_of_a_trusted_authority_are_accepted() {
    let upstream = Upstream::plain();
    let (trusted, other) = (Authority::new("trusted"), Authority::new("other"));
    let gate = trusting(&upstream, CLIENTS, &[&trusted]).start();
    let now = SystemTime::now();
    let server = Wanted { purpose: ExtendedKeyUsagePurpose::ServerAuth, ..Wanted::default() };
    let past = Wanted { until: now - SECOND, ..Wanted::default() };
    let future = Wanted { from: now + 60 * SECOND, ..Wanted::default() };
    // Another authority with the same name.
    let forged = Authority::new("trusted").issue("etl", &Wanted::default());
    let cases = [
        (trusted.issue("etl", &Wanted::default()), ""),
        (trusted.intermediate("below").issue("etl", &Wanted::default()), ""),
        (other.issue("etl", &Wanted::default()), "unknown_authority"),
        (forged, "unknown_authority"),
        (trusted.issue("etl", &past), "expired"),
        (trusted.issue("etl", &future), "not_yet_valid"),
        (trusted.issue("etl", &server), "purpose"),
    ];
    for version in BOTH {
        for listener in ["must", "may"] {
            for (issued, reason) in &cases {
                let before = refused(&gate, reason);
                let settings = settings(&gate.file("ca"), Some(issued), &[], &[version]);
                let expected = reason.is_empty().then(|| "200".to_owned());
                assert_eq!(asked(&gate, listener, &settings), expected, "{listener} {reason} {version:?}");
                if !reason.is_empty() {
                    until("it is counted", || refused(&gate, reason) > before);
                }
            }
        }
        let none = settings(&gate.file("ca"), None, &[], &[version]);
        let before = refused(&gate, "missing");
        assert_eq!(asked(&gate, "must", &none), None);
        until("it is counted", || refused(&gate, "missing") > before);
        assert_eq!(asked(&gate, "may", &none).as_deref(), Some("200"));
    }
    assert!(upstream.requests().iter().all(|head| !head.contains("etl")));
}

#[test]
fn a_refused_certificate_is_logged_with_its_subject_and_the_remedy() {
    let upstream = Upstream::plain();
    let (trusted, other) = (Authority::new("trusted"), Authority::new("other-ca"));
    let gate = trusting(&upstream, CLIENTS, &[&trusted]).start();
    let wanted = Wanted { names: &["etl.example"], ..Wanted::default() };
    let stranger = other.issue("a \"stranger\"\nwith a line", &wanted);
    assert_eq!(asked(&gate, "must", &config_of(&gate, Some(&stranger))), None);
    let line = gate.until_log(&["TLS handshake failed", "no authority in client_ca", "add the authority"]);
    let line: serde_json::Value = serde_json::from_str(&line).unwrap();
    let named = |field: &str| line[field].as_str().unwrap().to_owned();
    assert!(named("subject").contains("stranger") && !named("subject").contains('\n'), "{line}");
    assert!(named("issuer").contains("other-ca") && named("peer") == "127.0.0.1", "{line}");
    assert!(!line.to_string().contains("etl.example"), "nothing but the subject: {line}");
    assert_eq!(asked(&gate, "must", &config_of(&gate, None)), None);
    gate.until_log(&["TLS handshake failed", "sent no certificate", "client_auth: optional"]);
    // The client is told by its alert.
    let mut told = session(&config_of(&gate, Some(&stranger)), "localhost", tcp(&gate, "must"));
    let said = told.write_all(GET.as_bytes()).and_then(|()| told.read(&mut [0])).unwrap_err().to_string();
    assert!(said.contains("UnknownCA"), "{said}");
}

/// A certificate that expires in a few seconds, after its connections were opened.
fn short_lived(authority: &Authority) -> (Issued, SystemTime) {
    // Certificates count whole seconds.
    let until = SystemTime::now() + 4 * SECOND;
    (authority.issue("etl", &Wanted { until, ..Wanted::default() }), until)
}

#[test]
fn an_expired_certificate_ends_its_connections_at_the_next_request() {
    let upstream = Upstream::plain();
    let trusted = Authority::new("trusted");
    let gate = trusting(&upstream, CLIENTS, &[&trusted]).workers(1).start();
    let (issued, end) = short_lived(&trusted);
    let over = |protocols: &[&str]| settings(&gate.file("ca"), Some(&issued), protocols, &BOTH);
    let mut one = Caller::on(session(&over(&["http/1.1"]), "localhost", tcp(&gate, "must")));
    let mut optional = Caller::on(session(&over(&["http/1.1"]), "localhost", tcp(&gate, "may")));
    let mut two = H2::on(session(&over(&["h2"]), "localhost", tcp(&gate, "must")));
    let resumable = over(&[]);
    assert_eq!(asked(&gate, "must", &resumable).as_deref(), Some("200"));
    one.send(GET);
    optional.send(GET);
    two.frame(HEADERS, WHOLE, 1, get());
    assert_eq!((one.answer().status, optional.answer().status, two.fate(1)), (200, 200, Fate::Answered(200)));
    until("it has expired", || SystemTime::now() > end + SECOND);
    for caller in [&mut one, &mut optional] {
        caller.send(GET);
        let answer = caller.answer();
        assert_eq!(answer.summary(), "401 certificate_expired");
        assert_eq!(answer.field("connection"), Some("close"));
        assert!(caller.is_closed());
    }
    two.frame(HEADERS, WHOLE, 3, get());
    assert_eq!(two.fate(3), Fate::Answered(401));
    assert_eq!(two.ends(), Some(0), "the connection ends without an error");
    // A session that began in time is no way around it.
    assert_eq!(asked(&gate, "must", &resumable).as_deref(), Some("401 certificate_expired"));
    gate.until_metric(&["tls_handshakes_total", "resumed"], 1.0);
    gate.until_metric(&["denied_total", "unknown", "certificate_expired"], 4.0);
    assert_eq!(upstream.requests().len(), 4);
}

#[test]
fn a_removed_authority_ends_its_connections_and_sessions() {
    let upstream = Upstream::plain();
    let (one, other) = (Authority::new("one"), Authority::new("other"));
    let gate = trusting(&upstream, CLIENTS, &[&one, &other]).workers(1).start();
    let wanted = Wanted::default();
    let (removed, kept) = (one.issue("removed", &wanted), other.issue("kept", &wanted));
    let (mut of_removed, mut of_kept) = (caller(&gate, "must", Some(&removed)), caller(&gate, "must", Some(&kept)));
    for caller in [&mut of_removed, &mut of_kept] {
        caller.send(GET);
        assert_eq!(caller.answer().summary(), "200");
    }
    let resumable: Vec<_> = [&TLS12, &TLS13]
        .map(|version| [&removed, &kept].map(|issued| settings(&gate.file("ca"), Some(issued), &[], &[version])))
        .concat();
    for settings in &resumable {
        for _ in 0..2 {
            assert_eq!(asked(&gate, "must", settings).as_deref(), Some("200"));
        }
    }
    gate.until_metric(&["tls_handshakes_total", "resumed"], 4.0);
    std::fs::write(gate.file("clients.pem.new"), bundle(&[&other])).unwrap();
    std::fs::rename(gate.file("clients.pem.new"), gate.file("clients.pem")).unwrap();
    gate.until_log(&["configuration reloaded"]);
    of_kept.send(GET);
    assert_eq!(of_kept.answer().summary(), "200", "its authority is still trusted");
    of_removed.send(GET);
    assert_eq!(of_removed.answer().summary(), "401 certificate_rejected");
    assert!(of_removed.is_closed());
    for (settings, expected) in resumable.iter().zip([None, Some("200"), None, Some("200")]) {
        assert_eq!(asked(&gate, "must", settings).as_deref(), expected);
    }
    gate.until_metric(&["tls_handshakes_total", "resumed"], 4.0);
    gate.until_metric(&["client_certificates_refused_total", "unknown_authority"], 2.0);
}

/// The certificate is checked when the request leaves, and not only when it arrives.
#[test]
fn a_request_that_waits_is_refused_when_its_authority_is_removed() {
    let upstream = Upstream::plain();
    let (one, other) = (Authority::new("one"), Authority::new("other"));
    let config = CLIENTS.replace(
        "scopes: [metrika:read], tokens: [analytics]",
        "scopes: [metrika:read, metrika:write], tokens: [analytics, crm], counters: [1]",
    );
    let gate = trusting(&upstream, &config, &[&one, &other]).workers(1).start();
    let wanted = Wanted::default();
    let mut callers = [&one, &other].map(|authority| caller(&gate, "must", Some(&authority.issue("etl", &wanted))));
    for caller in &mut callers {
        caller.send(
            "POST /management/v1/counter/1/goals HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
             Content-Length: 17\r\n\r\n{\"counter_id\": 1",
        );
    }
    gate.until_metric(&["in_flight_requests", "caller=\"reports\""], 2.0);
    std::fs::write(gate.file("clients.pem"), bundle(&[&other])).unwrap();
    gate.until_log(&["configuration reloaded"]);
    let results = callers.each_mut().map(|caller| {
        caller.send("}");
        caller.answer().summary()
    });
    assert_eq!(results, ["401 certificate_rejected", "200"]);
    assert_eq!(upstream.requests().len(), 1);
}

#[test]
fn a_connection_without_a_certificate_ends_when_one_is_required() {
    let upstream = Upstream::plain();
    let trusted = Authority::new("trusted");
    let gate = trusting(&upstream, CLIENTS, &[&trusted]).workers(1).start();
    let issued = trusted.issue("etl", &Wanted::default());
    let (mut without, mut with) = (caller(&gate, "may", None), caller(&gate, "may", Some(&issued)));
    for caller in [&mut without, &mut with] {
        caller.send(GET);
        assert_eq!(caller.answer().summary(), "200");
    }
    gate.replace_config(&gate.config().replace("client_auth: optional", "client_auth: required"));
    gate.until_log(&["configuration reloaded"]);
    with.send(GET);
    assert_eq!(with.answer().summary(), "200");
    without.send(GET);
    assert_eq!(without.answer().summary(), "401 certificate_required");
    assert!(without.is_closed());
}

#[test]
fn a_proxy_that_requires_a_certificate_serves_nothing_in_clear_text() {
    let upstream = Upstream::plain();
    let trusted = Authority::new("trusted");
    let config = CLIENTS.replace("name: must,", "name: must, proxy: true,");
    let gate = trusting(&upstream, &config, &[&trusted]).start();
    let host = "api-metrika.yandex.net";
    let get = GET.replace("localhost", host);
    let issued = trusted.issue("etl", &Wanted::default());
    let tunnel = |port: &str| {
        let mut socket = tcp(&gate, "must");
        connect(&mut socket, &format!("{host}:{port}"));
        socket
    };
    let mut with = Caller::on(session(&config_of(&gate, Some(&issued)), host, tunnel("443")));
    with.send(&get);
    assert_eq!(with.answer().summary(), "200");
    let mut without = session(&config_of(&gate, None), host, tunnel("443"));
    assert!(without.write_all(get.as_bytes()).and_then(|()| without.read(&mut [0])).is_err());
    for mut clear in [Caller::on(tunnel("80")), Caller::on(tcp(&gate, "must"))] {
        clear.send(&get);
        assert_eq!(clear.answer().summary(), "401 certificate_required");
        assert!(clear.is_closed());
    }
    assert_eq!(upstream.requests().len(), 1);
}

/// `etl` and `host` are known by a name of their certificate, `night` by a name and another address, the rest by the address.
const NAMED: &str = "
listeners:
  - {name: must, address: '127.0.0.1:0', http2: true, tls: {authority: '{folder}/ca', client_ca: '{folder}/clients.pem'}}
  - {name: may, address: '127.0.0.1:0', tls: {authority: '{folder}/ca', client_ca: '{folder}/clients.pem', client_auth: optional}}
  - {name: proxy, address: '127.0.0.1:0', proxy: true, tls: {authority: '{folder}/ca', client_ca: '{folder}/clients.pem'}}
callers:
  - {id: etl, scopes: [metrika:read], tokens: [analytics], match: {san: ['spiffe://prod/ns/shop/sa/etl', 'spiffe://prod/etl']}}
  - {id: host, scopes: [metrika:read], tokens: [analytics], match: {san: ['dns:etl.example']}}
  - {id: night, scopes: [metrika:read], tokens: [analytics], match: {san: ['spiffe://prod/night'], source: [192.0.2.7]}}
  - {id: rest, scopes: [metrika:read], tokens: [analytics], match: {listener: may}}
";

#[test]
fn a_name_of_a_certificate_identifies_its_caller() {
    let upstream = Upstream::plain();
    let (trusted, other) = (Authority::new("trusted"), Authority::new("other"));
    let gate = trusting(&upstream, NAMED, &[&trusted]).start();
    let of = |uris: &[&str], names: &[&str]| trusted.issue("etl.example", &Wanted { uris, names, ..Wanted::default() });
    let cases = [
        (of(&["spiffe://prod/ns/shop/sa/etl"], &[]), "etl"),
        (of(&["spiffe://prod/etl"], &["other.example"]), "etl"),
        (of(&[], &["other.example", "ETL.Example"]), "host"),
        (of(&["https://prod/etl"], &["etl.example"]), "host"),
        // The first caller of the configuration.
        (of(&["spiffe://prod/etl"], &["etl.example"]), "etl"),
        (of(&["spiffe://prod/ns/shop/sa/et"], &[]), "unknown"),
        (of(&["spiffe://prod/ns/shop/sa/etl/a"], &[]), "unknown"),
        (of(&["spiffe://other/ns/shop/sa/etl"], &[]), "unknown"),
        (of(&[], &["*.example", "a.etl.example", "spiffe://prod/etl"]), "unknown"),
        (of(&["dns:etl.example"], &[]), "unknown"),
        // Of two IDs, none is certain.
        (of(&["spiffe://prod/etl", "spiffe://prod/other"], &[]), "unknown"),
        // Its common name is no name.
        (of(&[], &[]), "unknown"),
        (of(&["spiffe://prod/night"], &[]), "unknown"),
    ];
    for (issued, expected) in &cases {
        let of_listener = |listener: &str| who(&gate, &mut caller(&gate, listener, Some(issued)));
        assert_eq!(of_listener("must"), *expected);
        let expected = if *expected == "unknown" { "rest" } else { expected };
        assert_eq!(of_listener("may"), expected, "a certificate does not exclude other callers");
    }
    assert_eq!(who(&gate, &mut caller(&gate, "may", None)), "rest");
    let (etl, night) = (&cases[0].0, &cases[12].0);
    let refused = |issued: &Issued| asked(&gate, "must", &config_of(&gate, Some(issued)));
    assert_eq!(refused(night).as_deref(), Some("401 unknown_caller"), "the name is right, the address is not");
    let forged = other.issue("etl", &Wanted { uris: &["spiffe://prod/etl"], ..Wanted::default() });
    assert_eq!(refused(&forged), None);
    let mut two =
        H2::on(session(&settings(&gate.file("ca"), Some(etl), &["h2"], &BOTH), "localhost", tcp(&gate, "must")));
    two.frame(HEADERS, WHOLE, 1, get());
    assert_eq!(two.fate(1), Fate::Answered(200));
    let host = "api-metrika.yandex.net";
    for (issued, expected) in [(etl, "200"), (night, "401 unknown_caller")] {
        let mut socket = tcp(&gate, "proxy");
        connect(&mut socket, &format!("{host}:443"));
        let mut tunnel = Caller::on(session(&config_of(&gate, Some(issued)), host, socket));
        tunnel.send(GET.replace("localhost", host));
        assert_eq!(tunnel.answer().summary(), expected);
    }
}

#[test]
fn a_resumed_session_keeps_its_name_and_no_other() {
    let upstream = Upstream::plain();
    let trusted = Authority::new("trusted");
    let gate = trusting(&upstream, NAMED, &[&trusted]).workers(1).start();
    let issued = |uri: &str| trusted.issue("a", &Wanted { uris: &[uri], ..Wanted::default() });
    let (etl, other) = (issued("spiffe://prod/etl"), issued("spiffe://prod/other"));
    for (number, version) in [(1.0, &TLS12), (2.0, &TLS13)] {
        let of = |issued| settings(&gate.file("ca"), issued, &[], &[version]);
        let (of_etl, of_other, of_nobody) = (of(Some(&etl)), of(Some(&other)), of(None));
        let named = |settings| who(&gate, &mut Caller::on(session(settings, "localhost", tcp(&gate, "may"))));
        for (settings, expected) in [(&of_etl, "etl"), (&of_other, "rest"), (&of_nobody, "rest")] {
            assert_eq!([named(settings), named(settings)], [expected, expected]);
        }
        gate.until_metric(&["tls_handshakes_total", "resumed"], 3.0 * number);
    }
    // On a listener that asks for no certificate any more, the one of an open connection proves nothing.
    let mut open = caller(&gate, "may", Some(&etl));
    assert_eq!(who(&gate, &mut open), "etl");
    let clients = format!(", client_ca: '{}', client_auth: optional", gate.file("clients.pem").display());
    gate.replace_config(&gate.config().replacen(&clients, "", 1));
    gate.until_log(&["configuration reloaded"]);
    open.send(GET);
    assert_eq!(open.answer().summary(), "401 certificate_rejected");
}

#[test]
fn mistakes_of_client_ca_are_named() {
    let upstream = Upstream::plain();
    let trusted = Authority::new("trusted");
    let plan = trusting(&upstream, CLIENTS, &[&trusted]);
    let file = plan.file();
    let good = std::fs::read_to_string(&file).unwrap();
    let clients = plan.folder().join("clients.pem");
    let check = |config: &str| {
        std::fs::write(&file, config).unwrap();
        let (code, out, error) = outcome(program().args(["check", "--config"]).arg(&file));
        (code, format!("{out}{error}"))
    };
    assert_eq!(check(&good).0, 0);
    let without = good.replacen(&format!(", client_ca: '{}'", clients.display()), "", 2);
    for (config, expected) in [
        (without, "needs 'client_ca'"),
        (good.replace("client_auth: optional", "client_auth: none"), "required or optional"),
        (good.replace("clients.pem'}", "none.pem'}"), "none.pem"),
    ] {
        let (code, said) = check(&config);
        assert!(code == 78 && said.contains(expected) && said.contains(".tls.client_"), "{said}");
    }
    let san = good.replace("match: {source: [127.0.0.0/8]}", "match: {san: ['spiffe://prod/etl'], listener: plain}");
    let san =
        san.replace("listeners:\n", "listeners:\n  - {name: plain, address: '127.0.0.1:0', tls: {authority: 'ca'}}\n");
    let (code, said) =
        check(&san.replace("authority: 'ca'", &format!("authority: '{}'", plan.folder().join("ca").display())));
    assert!(code == 78 && said.contains("listener 'plain' lacks tls.client_ca"), "{said}");
    std::fs::write(&clients, format!("{}-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n", trusted.pem))
        .unwrap();
    let (code, said) = check(&good);
    assert!(code == 78 && said.contains("certificate 2 of the file cannot be used"), "{said}");
}

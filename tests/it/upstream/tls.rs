//! TLS towards the upstream: an unverified server receives not a byte of a request.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, Issuer, KeyPair, date_time_ymd};
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use crate::harness::upstream::{Authority, certificate, server_config};
use crate::harness::{Answer, Conversation, Gate, Signal, TWO_CALLERS, Upstream};

const NAME: &str = "api-metrika.yandex.net";
const COUNTERS: &str = "/management/v1/counters";

fn answers(conversation: &mut Conversation) {
    while let Some(head) = conversation.request_head() {
        conversation.request_body(&head);
        conversation.answer("200 OK", "application/json", "{}");
    }
}

/// The caller's response, when the gate trusts `trusted` and the upstream presents `config`. The upstream saw nothing.
fn refused(config: ServerConfig, trusted: &str) -> (Answer, String) {
    let upstream = Upstream::run_with(config, trusted.to_owned(), answers);
    let gate = Gate::start(&upstream, TWO_CALLERS);
    let answer = gate.get("app", COUNTERS);
    assert_eq!(upstream.connections(), 1, "it was tried once");
    assert!(upstream.requests().is_empty(), "{:?}", upstream.requests());
    gate.until_metric(&["upstream_errors_total", "kind=\"tls\""], 1.0);
    let line = gate.until_log(&["request failed", "upstream_tls"]);
    (answer, line)
}

#[test]
fn a_certificate_that_is_right_is_accepted() {
    let authority = Authority::new("authority");
    let plain = authority.signs(NAME, |_| {});
    let for_servers =
        authority.signs(NAME, |params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth]);
    let by_wildcard = authority.signs("*.yandex.net", |_| {});
    for config in [plain, for_servers, by_wildcard] {
        let upstream = Upstream::run_with(config, authority.pem.clone(), answers);
        assert_eq!(Gate::start(&upstream, TWO_CALLERS).get("app", COUNTERS).summary(), "200");
    }
}

#[test]
fn a_certificate_that_is_wrong_gets_nothing() {
    let (authority, other) = (Authority::new("authority"), Authority::new("authority"));
    let self_signed = {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![NAME.to_owned()]).unwrap();
        server_config(params.self_signed(&key).unwrap().der().to_vec(), &key)
    };
    let cases = [
        ("wrong name", authority.signs("api-metrika.yandex.ru", |_| {})),
        ("name only as a part", authority.signs("net", |_| {})),
        ("wildcard too high", authority.signs("*.net", |_| {})),
        ("address", authority.signs("127.0.0.1", |_| {})),
        (
            "name only as common name",
            authority.signs("other.example", |params| params.distinguished_name.push(DnType::CommonName, NAME)),
        ),
        ("expired", authority.signs(NAME, |params| params.not_after = date_time_ymd(2020, 1, 1))),
        ("not yet valid", authority.signs(NAME, |params| params.not_before = date_time_ymd(2090, 1, 1))),
        ("another authority", other.signs(NAME, |_| {})),
        ("self-signed", self_signed),
        (
            "for clients only",
            authority.signs(NAME, |params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth]),
        ),
    ];
    for (case, config) in cases {
        let (answer, line) = refused(config, &authority.pem);
        assert_eq!(answer.summary(), "502 upstream_tls", "{case}");
        assert_eq!(answer.field("retry-after"), None, "{case}");
        assert!(line.contains("certificate"), "{case}: the log says why: {line}");
    }
}

#[test]
fn a_leaf_that_signs_is_no_authority() {
    let authority = Authority::new("authority");
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(vec![NAME.to_owned()]).unwrap();
    let leaf_certificate = leaf.signed_by(&key, &authority.issuer).unwrap();
    let issuer = Issuer::new(leaf, key);
    let below_key = KeyPair::generate().unwrap();
    let below = CertificateParams::new(vec![NAME.to_owned()]).unwrap().signed_by(&below_key, &issuer).unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(below_key.serialize_der()));
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![below.der().clone(), leaf_certificate.der().clone()], key)
        .unwrap();
    assert_eq!(refused(config, &authority.pem).0.summary(), "502 upstream_tls");
}

#[test]
fn an_upstream_without_a_common_protocol_gets_nothing() {
    let (mut config, ca_pem) = certificate(NAME);
    // It negotiates another protocol than HTTP.
    config.alpn_protocols = vec![b"imap".to_vec()];
    assert_eq!(refused(config, &ca_pem).0.summary(), "502 upstream_tls");
}

#[test]
fn an_upstream_that_knows_only_an_old_tls_gets_nothing() {
    let (_, ca_pem) = certificate(NAME);
    let (place, seen) = raw(|socket| {
        read_some(socket);
        // A fatal alert, protocol_version (RFC 8446, section 6), as a server of TLS 1.1 sends it.
        socket.write_all(&[21, 3, 2, 0, 2, 2, 70]).unwrap();
        read_some(socket)
    });
    let gate = Gate::plan_for(&place, &ca_pem, TWO_CALLERS).start();
    assert_eq!(gate.get("app", COUNTERS).summary(), "502 upstream_tls");
    no_request_in(&seen);
}

#[test]
fn a_certificate_that_becomes_right_works_without_a_restart() {
    #[derive(Debug)]
    struct Switched {
        before: Arc<CertifiedKey>,
        after: Arc<CertifiedKey>,
        now: Signal,
    }
    impl ResolvesServerCert for Switched {
        fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
            Some(if self.now.is_given() { self.after.clone() } else { self.before.clone() })
        }
    }
    let authority = Authority::new("authority");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let certified = |name: &str| {
        let key = KeyPair::generate().unwrap();
        let leaf = CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, &authority.issuer).unwrap();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        Arc::new(CertifiedKey::new(vec![leaf.der().clone()], provider.key_provider.load_private_key(key).unwrap()))
    };
    let now = Signal::default();
    let switched = Switched { before: certified("other.example"), after: certified(NAME), now: now.clone() };
    let config = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(switched));
    let upstream = Upstream::run_with(config, authority.pem.clone(), answers);
    let gate = Gate::start(&upstream, TWO_CALLERS);
    let mut caller = gate.connect("app");
    let mut ask = || {
        caller.send(format!("GET {COUNTERS} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
        caller.answer().summary()
    };
    assert_eq!([ask(), ask()], ["502 upstream_tls", "502 upstream_tls"]);
    now.give();
    assert_eq!([ask(), ask()], ["200", "200"]);
    assert_eq!(upstream.connections(), 3);
}

/// A server that does as it likes with each socket; what `serve` returned for each.
fn raw(serve: impl Fn(&mut std::net::TcpStream) -> Vec<u8> + Send + 'static) -> (String, Arc<Mutex<Vec<u8>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let place = listener.local_addr().unwrap().to_string();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let sees = seen.clone();
    std::thread::spawn(move || {
        for mut socket in listener.incoming().map_while(Result::ok) {
            socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            let read = serve(&mut socket);
            sees.lock().unwrap().extend(read);
        }
    });
    (place, seen)
}

fn read_some(socket: &mut std::net::TcpStream) -> Vec<u8> {
    let mut buffer = vec![0; 16 * 1024];
    let read = socket.read(&mut buffer).unwrap_or(0);
    buffer.truncate(read);
    buffer
}

fn no_request_in(seen: &Mutex<Vec<u8>>) {
    let seen = seen.lock().unwrap();
    let holds = |word: &[u8]| seen.windows(word.len()).any(|part| part == word);
    assert!(!holds(b"GET ") && !holds(b"OAuth") && !holds(b"management"));
}

#[test]
fn an_upstream_without_tls_gets_no_request() {
    let (_, ca_pem) = certificate(NAME);
    let (place, seen) = raw(|socket| {
        let hello = read_some(socket);
        socket.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n").unwrap();
        [hello, read_some(socket)].concat()
    });
    let gate = Gate::plan_for(&place, &ca_pem, TWO_CALLERS).start();
    assert_eq!(gate.get("app", COUNTERS).summary(), "502 upstream_tls");
    no_request_in(&seen);
}

#[test]
fn an_upstream_that_closes_in_the_handshake_is_unreachable() {
    let (_, ca_pem) = certificate(NAME);
    let (place, seen) = raw(read_some);
    let gate = Gate::plan_for(&place, &ca_pem, TWO_CALLERS).start();
    let answer = gate.get("app", COUNTERS);
    assert_eq!(answer.summary(), "503 upstream_unreachable");
    no_request_in(&seen);
}

#[test]
fn an_upstream_that_does_not_listen_is_unreachable_until_it_does() {
    let (config, ca_pem) = certificate(NAME);
    drop(config);
    // A port that was just free; nobody else uses it on this loopback in that moment.
    let place = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let gate = Gate::plan_for(&place, &ca_pem, TWO_CALLERS).start();
    let start = Instant::now();
    let answer = gate.get("app", COUNTERS);
    assert_eq!((answer.summary().as_str(), answer.field("retry-after")), ("503 upstream_unreachable", Some("5")));
    assert!(start.elapsed() < Duration::from_secs(2), "at once");
    gate.until_metric(&["upstream_errors_total", "kind=\"connect\""], 1.0);
    assert!(gate.admin("/readyz").status == 200, "the gate's readiness is its own");
}

#[test]
fn an_upstream_that_never_shakes_hands_takes_no_longer_than_connect() {
    let (_, ca_pem) = certificate(NAME);
    let ended = Signal::default();
    let noticed = ended.clone();
    let (place, seen) = raw(move |socket| {
        let mut all = Vec::new();
        loop {
            let more = read_some(socket);
            if more.is_empty() {
                noticed.give();
                return all;
            }
            all.extend(more);
        }
    });
    let config = TWO_CALLERS.to_owned()
        + "\nupstream: {ca_file: '{ca}', connect_to: '{upstream}', timeouts: {connect: 300ms}}\n";
    let gate = Gate::plan_for(&place, &ca_pem, &config).start();
    let start = Instant::now();
    let answer = gate.get("app", COUNTERS);
    assert_eq!(answer.summary(), "503 upstream_unreachable");
    let waited = start.elapsed();
    assert!((Duration::from_millis(290)..Duration::from_secs(5)).contains(&waited), "{waited:?}");
    ended.wait("the connection is given up");
    no_request_in(&seen);
    gate.until_metric(&["upstream_errors_total", "kind=\"connect_timeout\""], 1.0);
}

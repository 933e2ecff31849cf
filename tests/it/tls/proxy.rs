//! The forward proxy: it serves Metrica's names and nothing else, and connects to nothing that a client names.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

use strict_http::host::METRICA;

use crate::harness::gate::PATIENCE;
use crate::harness::h2::{Fate, H2, HEADERS, WHOLE, get};
use crate::harness::over::{client, connect};
use crate::harness::{Answer, Caller, Gate, READ_TOKEN, Upstream};

const PROXY: &str = "
listeners: [{name: app, address: '127.0.0.1:0', proxy: true, http2: true, tls: {authority: '{folder}/ca'}}]
callers: [{id: reports, match: {listener: app}, scopes: [metrika:read], tokens: [analytics]}]
";

const HOST: &str = "api-metrika.yandex.net";

fn tcp(gate: &Gate) -> TcpStream {
    let socket = TcpStream::connect(gate.place("app")).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

fn get_from(host: &str) -> String {
    format!("GET /management/v1/counters HTTP/1.1\r\nHost: {host}\r\n\r\n")
}

fn tunnel(gate: &Gate, target: &str) -> TcpStream {
    let mut socket = tcp(gate);
    connect(&mut socket, target);
    socket
}

fn asked(gate: &Gate, request: &str) -> Answer {
    gate.send("app", request)
}

#[test]
fn a_tunnel_on_443_ends_in_tls_here_for_each_name_of_metrica() {
    let upstream = Upstream::plain();
    let gate = Gate::start(&upstream, PROXY);
    for host in METRICA {
        let mut caller =
            Caller::on(client(&gate.file("ca"), &["http/1.1"], host, tunnel(&gate, &format!("{host}:443"))));
        for _ in 0..2 {
            caller.send(get_from(host));
            assert_eq!(caller.answer().summary(), "200", "{host}");
        }
    }
    let requests = upstream.requests();
    assert!(
        requests.iter().all(|head| head.contains(READ_TOKEN) && head.contains(&format!("host: {HOST}"))),
        "{requests:?}"
    );
    gate.until_metric(&["tunnels_total", "\"tls\""], 5.0);
    let mut two = H2::on(client(&gate.file("ca"), &["h2"], HOST, tunnel(&gate, "api-metrika.yandex.net:443")));
    two.frame(HEADERS, WHOLE, 1, get());
    assert_eq!(two.fate(1), Fate::Answered(421), "its authority is localhost");
}

#[test]
fn a_tunnel_on_80_has_clear_text() {
    let upstream = Upstream::plain();
    let gate = Gate::start(&upstream, PROXY);
    let mut caller = Caller::on(tunnel(&gate, "api-metrika.yandex.net:80"));
    for host in [HOST, "api-metrika.yandex.net:80"] {
        caller.send(get_from(host));
        assert_eq!(caller.answer().summary(), "200");
    }
    gate.until_metric(&["tunnels_total", "clear_text"], 1.0);
    assert_eq!(upstream.requests().len(), 2);
}

/// Python sends CONNECT in HTTP/1.0 without Host; others send it without a port, with credentials, or in other spellings.
#[test]
fn connect_is_accepted_as_clients_send_it() {
    let upstream = Upstream::plain();
    let gate = Gate::start(&upstream, PROXY);
    for head in [
        "CONNECT api-metrika.yandex.net:443 HTTP/1.0\r\n\r\n",
        "CONNECT api-metrika.yandex.net:443 HTTP/1.1\r\n\r\n",
        "CONNECT api-metrika.yandex.net:443 HTTP/1.1\r\nHost: api-metrika.yandex.net\r\n\r\n",
        "CONNECT api-metrika.yandex.net:443 HTTP/1.1\r\nHost: api-metrika.yandex.net:80\r\n\r\n",
        "CONNECT API-Metrika.Yandex.NET.:443 HTTP/1.1\r\nHost: api-metrika.yandex.net:443\r\n\r\n",
        "CONNECT api-metrika.yandex.net:443 HTTP/1.1\r\nHost: api-metrika.yandex.net:443\r\nProxy-Authorization: Basic eDp5\r\nProxy-Connection: keep-alive\r\nUser-Agent: a\r\nContent-Length: 0\r\n\r\n",
    ] {
        for pieces in [1, 7, head.len()] {
            let mut socket = tcp(&gate);
            socket.set_nodelay(true).unwrap();
            for piece in head.as_bytes().chunks(head.len().div_ceil(pieces)) {
                socket.write_all(piece).unwrap();
            }
            let mut answer = [0; 39];
            socket.read_exact(&mut answer).unwrap();
            assert_eq!(&answer, b"HTTP/1.1 200 Connection established\r\n\r\n");
            let mut caller = Caller::on(client(&gate.file("ca"), &[], HOST, socket));
            caller.send(get_from(HOST));
            assert_eq!(caller.answer().summary(), "200", "{head}");
        }
    }
    let sent = upstream.requests().concat().to_ascii_lowercase();
    assert!(!sent.contains("proxy-") && !sent.contains("edp5"), "{sent}");
}

/// A client need not wait for the response before it begins the handshake.
#[test]
fn bytes_behind_connect_belong_to_the_tunnel() {
    let upstream = Upstream::plain();
    let gate = Gate::start(&upstream, PROXY);
    let mut caller = Caller::on(tcp(&gate));
    caller.send(format!("CONNECT api-metrika.yandex.net:80 HTTP/1.1\r\n\r\n{}", get_from(HOST)));
    let (status, fields) = caller.head().unwrap();
    assert!(status == 200 && fields.is_empty(), "{status} {fields:?}");
    assert_eq!(caller.answer().summary(), "200");
    caller.send(get_from(HOST));
    assert_eq!(caller.answer().summary(), "200");
    // A ClientHello in the same piece.
    let session = rustls::ClientConnection::new(
        crate::harness::over::settings(&gate.file("ca"), &[]),
        crate::harness::over::server_name(HOST),
    );
    let (mut session, mut early) = (session.unwrap(), b"CONNECT api-metrika.yandex.net:443 HTTP/1.1\r\n\r\n".to_vec());
    session.write_tls(&mut early).unwrap();
    let mut socket = tcp(&gate);
    socket.write_all(&early).unwrap();
    let mut established = [0; 39];
    socket.read_exact(&mut established).unwrap();
    let mut caller = Caller::on(rustls::StreamOwned::new(session, socket));
    caller.send(get_from(HOST));
    assert_eq!(caller.answer().summary(), "200");
}

#[test]
fn absolute_targets_of_metrica_are_served() {
    let upstream = Upstream::plain();
    let gate = Gate::start(&upstream, PROXY);
    for (target, host) in [
        ("http://api-metrika.yandex.net/management/v1/counters", HOST),
        ("http://api-metrika.yandex.net:80/management/v1/counters", HOST),
        ("http://api-metrika.yandex.net/management/v1/counters", "api-metrika.yandex.net:80"),
        ("http://API-METRIKA.yandex.net/management/v1/counters", HOST),
        ("https://api-metrika.yandex.net/management/v1/counters", "api-metrika.yandex.net:443"),
        ("http://api-metrica.yandex.com/management/v1/counters", "api-metrica.yandex.com"),
        ("/management/v1/counters", "localhost"),
    ] {
        let answer =
            asked(&gate, &format!("GET {target} HTTP/1.1\r\nHost: {host}\r\nProxy-Authorization: Basic eDp5\r\n\r\n"));
        assert_eq!(answer.summary(), "200", "{target} {host}");
    }
    for head in upstream.requests() {
        assert!(
            head.starts_with("GET /management/v1/counters HTTP/1.1\r\n") && head.contains(&format!("host: {HOST}")),
            "{head}"
        );
        assert!(!head.to_ascii_lowercase().contains("proxy-authorization"), "{head}");
    }
}

/// Nothing that a client writes makes the gate connect to somewhere else.
#[test]
fn everything_else_is_refused_with_the_purpose_of_the_proxy() {
    let upstream = Upstream::plain();
    let gate = Gate::start(&upstream, PROXY);
    let victim = TcpListener::bind("127.0.0.1:0").unwrap();
    victim.set_nonblocking(true).unwrap();
    let port = victim.local_addr().unwrap().port();
    let targets = [
        format!("127.0.0.1:{port}"),
        format!("localhost:{port}"),
        format!("[::1]:{port}"),
        format!("api-metrika.yandex.net:{port}"),
        "example.com:443".to_owned(),
        "127.0.0.1:443".to_owned(),
        "[::ffff:127.0.0.1]:443".to_owned(),
        "yandex.net:443".to_owned(),
        "api-metrika.yandex.net.evil.example:443".to_owned(),
        "mc.yandex.ru:443".to_owned(),
    ];
    for target in &targets {
        let answer = asked(&gate, &format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n"));
        assert_eq!(answer.summary(), "403 destination_denied", "{target}");
        assert!(
            answer.text().contains("serves only the Metrica API") && answer.text().contains("NO_PROXY"),
            "{}",
            answer.text()
        );
        assert_eq!(answer.field("proxy-authenticate"), None);
        let url = format!("GET http://{target}/ HTTP/1.1\r\nHost: {target}\r\n\r\n");
        assert_eq!(asked(&gate, &url).summary(), "403 destination_denied", "{target}");
    }
    gate.until_log(&["request failed", "destination_denied", "does not serve 'mc.yandex.ru:443'"]);
    for target in [
        "api-metrika.yandex.net",
        "user@api-metrika.yandex.net:443",
        "api-metrika.yandex.net:443@evil.example:443",
        "http://api-metrika.yandex.net:443",
        "api-metrika.yandex.net:0443",
        "api-metrika.yandex.net:65979",
        "api%2dmetrika.yandex.net:443",
        "api-metrika.yandex.net:443/",
        "/",
        "*",
        ":443",
    ] {
        let answer = asked(&gate, &format!("CONNECT {target} HTTP/1.1\r\n\r\n"));
        assert!(matches!(answer.status, 400 | 403), "{target}: {}", answer.summary());
    }
    assert!(victim.accept().is_err() && upstream.requests().is_empty());
}

#[test]
fn host_sni_and_authority_agree_in_a_tunnel() {
    let upstream = Upstream::plain();
    let gate = Gate::start(&upstream, PROXY);
    for (name, host, expected) in [
        (HOST, HOST, "200"),
        (HOST, "api-metrika.yandex.net:443", "200"),
        (HOST, "api-metrika.yandex.ru", "421 misdirected"),
        (HOST, "localhost", "421 misdirected"),
        (HOST, "evil.example", "403 host_denied"),
        ("api-metrika.yandex.ru", "api-metrika.yandex.ru", "421 misdirected"),
        ("api-metrika.yandex.ru", HOST, "421 misdirected"),
        ("127.0.0.1", HOST, "200"),
    ] {
        let mut caller = Caller::on(client(&gate.file("ca"), &[], name, tunnel(&gate, "api-metrika.yandex.net:443")));
        caller.send(get_from(host));
        assert_eq!(caller.answer().summary(), expected, "{name} {host}");
    }
    gate.until_log(&["request failed", "misdirected", "another host"]);
    // A handshake for another name than that of the tunnel: every request is refused, in HTTP/2 too.
    let before = gate.metric(&["denied_total", "misdirected"]);
    let socket = tunnel(&gate, "api-metrika.yandex.net:443");
    let mut two = H2::on(client(&gate.file("ca"), &["h2"], "localhost", socket));
    two.frame(HEADERS, WHOLE, 1, get());
    assert_eq!(two.fate(1), Fate::Answered(421), "its authority is that of the handshake");
    gate.until_metric(&["denied_total", "misdirected"], before + 1.0);
    gate.until_log(&["request failed", "misdirected", "opened for 'api-metrika.yandex.net'"]);
    let mut caller = Caller::on(tunnel(&gate, "api-metrika.yandex.net:80"));
    caller.send(get_from("api-metrika.yandex.ru"));
    assert_eq!(caller.answer().summary(), "421 misdirected");
    // No tunnel in a tunnel, and no other target.
    for (request, expected) in [
        (
            "CONNECT api-metrika.yandex.net:443 HTTP/1.1\r\nHost: api-metrika.yandex.net:443\r\n\r\n",
            "405 method_not_allowed",
        ),
        ("GET http://evil.example/ HTTP/1.1\r\nHost: evil.example\r\n\r\n", "403 destination_denied"),
        (
            "GET http://api-metrika.yandex.net/management/v1/counters HTTP/1.1\r\nHost: api-metrika.yandex.net\r\n\r\n",
            "200",
        ),
    ] {
        let mut caller = Caller::on(tunnel(&gate, "api-metrika.yandex.net:80"));
        caller.send(request);
        assert_eq!(caller.answer().summary(), expected, "{request}");
    }
}

#[test]
fn wrong_turns_at_a_proxy_get_a_remedy() {
    let upstream = Upstream::plain();
    let gate = Gate::start(&upstream, PROXY);
    // Clear text where the tunnel has TLS.
    let mut caller = Caller::on(tunnel(&gate, "api-metrika.yandex.net:443"));
    caller.send(get_from(HOST));
    let answer = caller.answer();
    assert!(answer.summary() == "400 malformed_request" && answer.text().contains("https://"), "{}", answer.text());
    // The proxy's URL begins with https.
    let mut session = client(&gate.file("ca"), &[], "localhost", tcp(&gate));
    assert!(session.write_all(b"CONNECT").and_then(|()| session.read(&mut [0])).is_err());
    gate.until_log(&["request failed", "tls_handshake", "of its proxy"]);
    for (head, kind) in [
        ("CONNECT api-metrika.yandex.net:443 HTTP/1.1\n\n", "bare_line_feed"),
        ("CONNECT api-metrika.yandex.net HTTP/1.1\r\n\r\n", "connect_target"),
        ("CONNECT api-metrika.yandex.net:443 HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc", "connect_with_body"),
        ("CONNECT api-metrika.yandex.net:443 HTTP/1.1\r\nHost: evil.example\r\n\r\n", "host_unlike_target"),
    ] {
        assert_eq!(asked(&gate, head).status, 400, "{head}");
        gate.until_log(&["request failed", kind]);
    }
    let mut two = H2::on(tcp(&gate));
    two.frame(HEADERS, WHOLE, 1, get());
    assert_eq!(two.fate(1), Fate::Answered(200), "the listener itself speaks HTTP/2 too");
}

/// Whatever host the client names, it learns that the listener is no proxy.
#[test]
fn connect_where_there_is_no_proxy_gets_a_remedy() {
    let upstream = Upstream::plain();
    let gate =
        Gate::start(&upstream, &PROXY.replace(", proxy: true, http2: true, tls: {authority: '{folder}/ca'}", ""));
    for request in [
        "CONNECT api-metrika.yandex.net:443 HTTP/1.1\r\nHost: api-metrika.yandex.net:443\r\n\r\n",
        "CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:443\r\n\r\n",
        "CONNECT example.com:443 HTTP/1.1\r\n\r\n",
        "CONNECT api-metrika.yandex.net:443 HTTP/1.0\r\n\r\n",
    ] {
        let answer = asked(&gate, request);
        assert_eq!(answer.summary(), "405 method_not_allowed", "{request}");
        assert!(answer.text().contains("set proxy: true for the listener"), "{}", answer.text());
        assert_eq!(answer.field("allow"), Some("GET, HEAD, POST, PUT, PATCH, DELETE"), "{request}");
    }
    gate.until_log(&["request failed", "\"connect\"", "proxy: true"]);
    gate.until_metric(&["denied_total", "method_not_allowed"], 4.0);
}

/// A connection to the proxy that sends nothing, or half a request, has begun no handshake.
#[test]
fn an_idle_connection_to_a_proxy_is_no_handshake() {
    let upstream = Upstream::plain();
    let gate = Gate::plan(&upstream, &format!("{PROXY}timeouts: {{request_headers: 1s}}\n")).workers(1).start();
    let (mut silent, mut half, mut open) = (tcp(&gate), tcp(&gate), tunnel(&gate, "api-metrika.yandex.net:443"));
    half.write_all(b"CONNECT api-metrika").unwrap();
    for socket in [&mut silent, &mut half, &mut open] {
        assert!(matches!(socket.read(&mut [0; 64]), Ok(0) | Err(_)), "it is closed");
    }
    gate.until_metric(&["tls_handshakes_total", "timeout"], 1.0);
    gate.until_metric(&["connections_open", "app"], 0.0);
    assert_eq!(gate.metric(&["tls_handshakes_total", "timeout"]), 1.0, "that of the tunnel");
}

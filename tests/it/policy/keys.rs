//! Keys: a request that offers one is a request of the caller that has it, wherever the key is, and of nobody else.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use metrika_gate::policy::caller::KeyHash;
use metrika_gate::policy::key::of_random;

use crate::harness::gate::PATIENCE;
use crate::harness::h2::{Fate, H2, HEADERS, WHOLE, block, request};
use crate::harness::over::client;
use crate::harness::{Caller, Gate, Upstream};

const PATH: &str = "/management/v1/counters";
const METRICA: &str = "api-metrika.yandex.net";

/// A key made of one digit; the tests' keys are no secrets.
fn key(digit: u8) -> String {
    of_random(&[digit; 43]).unwrap().to_string()
}

fn hash(digit: u8) -> String {
    KeyHash::of(key(digit).as_bytes()).to_string()
}

/// `near` has the connections of `app`, `etl` two keys, `crm` a key on the listener `other`, `proxied` a key on the proxy.
fn config() -> String {
    let [etl, next, crm, proxied] = [1, 2, 3, 4].map(hash);
    let rights = "scopes: [metrika:read], tokens: [analytics]";
    format!(
        "
listeners:
  - {{name: app, address: '127.0.0.1:0', http2: true}}
  - {{name: other, address: '127.0.0.1:0'}}
  - {{name: proxy, address: '127.0.0.1:0', proxy: true, http2: true, tls: {{authority: '{{folder}}/ca'}}}}
callers:
  - {{id: near, match: {{listener: app}}, {rights}}}
  - {{id: etl, match: {{key_sha256: ['{etl}', '{next}']}}, {rights}}}
  - {{id: crm, match: {{listener: other, key_sha256: ['{crm}']}}, {rights}}}
  - {{id: proxied, match: {{listener: proxy, key_sha256: ['{proxied}']}}, {rights}}}
"
    )
}

/// A number for each request, so that its log line is found.
fn next_id() -> String {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    format!("key-{}.", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// The caller in the log line of a request.
fn caller_of(gate: &Gate, id: &str) -> String {
    let line: serde_json::Value = serde_json::from_str(&gate.until_log(&[id, "\"outcome\""])).unwrap();
    line["caller"].as_str().unwrap().to_owned()
}

/// Sends a request with these fields, and returns its outcome and its caller.
fn asked(gate: &Gate, connection: &mut Caller, target: &str, fields: &str) -> (String, String) {
    let (id, host) = (next_id(), if target.starts_with("http:") { METRICA } else { "localhost" });
    connection.send(format!("GET {target} HTTP/1.1\r\nHost: {host}\r\nX-Request-ID: {id}\r\n{fields}\r\n"));
    let summary = connection.answer().summary();
    (summary, caller_of(gate, &id))
}

fn outcome(summary: &str, caller: &str) -> (String, String) {
    (summary.to_owned(), caller.to_owned())
}

fn basic(user: &str, password: &str) -> String {
    format!("Authorization: Basic {}\r\n", BASE64_STANDARD.encode(format!("{user}:{password}")))
}

/// R-8: the key names the caller in every place where clients put a token, and stays here.
#[test]
fn a_key_names_its_caller_in_every_shape() {
    let upstream = Upstream::plain();
    let gate = Gate::start(&upstream, &config());
    for number in [1, 2] {
        let key = key(number);
        for (target, fields) in [
            (PATH.to_owned(), format!("Authorization: OAuth {key}\r\n")),
            (PATH.to_owned(), format!("Authorization: Bearer {key}\r\n")),
            (PATH.to_owned(), format!("Authorization: {key}\r\n")),
            (PATH.to_owned(), basic("etl", &key)),
            (PATH.to_owned(), basic(&key, "")),
            (PATH.to_owned(), format!("Proxy-Authorization: Bearer {key}\r\n")),
            (PATH.to_owned(), format!("Authorization: OAuth y0_dummy\r\nAuthorization: OAuth {key}\r\n")),
            (format!("{PATH}?oauth_token={key}&field=goals"), String::new()),
            (format!("{PATH}?access_token={key}"), "Authorization: OAuth y0_dummy\r\n".to_owned()),
        ] {
            let found = asked(&gate, &mut gate.connect("app"), &target, &fields);
            assert_eq!(found, outcome("200", "etl"), "{target} {fields}");
        }
    }
    let sent = upstream.requests().concat();
    let encoded = BASE64_STANDARD.encode(format!("{}:", key(1)));
    for trace in ["mgk_", "oauth_token", "access_token", &encoded[..20], "proxy-authorization"] {
        assert!(!sent.contains(trace), "{trace}");
    }
    assert!(sent.contains("field=goals"), "the rest of the query leaves");
    // Only the dummies are credentials that were dropped.
    gate.until_metric(&["credentials_dropped_total", "caller=\"etl\"", "kind=\"authorization\""], 4.0);
    assert_eq!(gate.metrics(&["credentials_dropped_total", "query"]), Vec::<String>::new());
}

/// R-8: without a key the connection decides; any other credential is none.
#[test]
fn a_request_without_a_key_has_the_caller_of_its_connection() {
    let upstream = Upstream::plain();
    let gate = Gate::start(&upstream, &config());
    for fields in ["", "Authorization: OAuth y0_dummy\r\nX-Api-Key: dummy\r\n", "Authorization: Basic eA==\r\n"] {
        assert_eq!(asked(&gate, &mut gate.connect("app"), PATH, fields), outcome("200", "near"), "{fields}");
        let other = asked(&gate, &mut gate.connect("other"), PATH, fields);
        assert_eq!(other, outcome("401 unknown_caller", "unknown"), "{fields}");
    }
    assert_eq!(gate.metrics(&["condition_failures_total"]), Vec::<String>::new(), "nothing named a caller");
    // A key where none is read would leave the gate.
    let (one, encoded, twice) = (key(1), key(1).replace('m', "%6D"), key(1).replace('_', "%255f"));
    for (path, fields) in [
        (PATH.to_owned(), format!("X-Api-Key: {one}\r\n")),
        (format!("{PATH}?token={one}"), String::new()),
        (format!("{PATH}?token={encoded}"), String::new()),
        (format!("{PATH}?a=%20{one}"), format!("Authorization: OAuth {one}\r\n")),
        (format!("{PATH}?oauth_token={one}&b={twice}"), String::new()),
        (format!("/management/v1/{one}"), String::new()),
        (format!("/management/v1/{encoded}"), String::new()),
        (PATH.to_owned(), format!("User-Agent: {encoded}\r\n")),
    ] {
        let refused = asked(&gate, &mut gate.connect("app"), &path, &fields);
        assert_eq!(refused, outcome("401 key_unknown", "unknown"), "{path} {fields}");
    }
    // Nor is it the id of its request, which is logged and returned.
    for id in [&one, &encoded] {
        let head = format!("GET {PATH} HTTP/1.1\r\nHost: localhost\r\nX-Request-ID: {id}\r\n\r\n");
        let refused = gate.send("app", head);
        assert_eq!(refused.summary(), "401 key_unknown");
        assert!(!format!("{:?}", refused.fields).contains(id), "{refused:?}");
    }
    gate.until_metric(&["denied_total", "key_unknown"], 10.0);
    let all = upstream.requests().concat() + &gate.log().concat();
    assert!(!["mgk_", &encoded, &twice].iter().any(|key| all.contains(*key)), "{all}");
}

/// R-8: a key that is offered and invalid is refused; the caller of the connection does not take the request.
#[test]
fn an_unknown_or_mistyped_key_is_refused() {
    let upstream = Upstream::plain();
    let gate = Gate::start(&upstream, &config());
    let mistyped = key(1).replace("mgk_1", "mgk_2");
    for wrong in [key(9), mistyped, key(1)[..52].to_owned(), "mgk_".to_owned()] {
        for (target, fields) in [
            (PATH.to_owned(), format!("Authorization: OAuth {wrong}\r\n")),
            (PATH.to_owned(), basic("etl", &wrong)),
            (PATH.to_owned(), format!("Authorization: y0_dummy\r\nProxy-Authorization: Bearer {wrong}\r\n")),
            (format!("{PATH}?oauth_token={wrong}"), "Authorization: OAuth y0_dummy\r\n".to_owned()),
        ] {
            let found = asked(&gate, &mut gate.connect("app"), &target, &fields);
            assert_eq!(found, outcome("401 key_unknown", "unknown"), "{wrong} {fields}");
        }
    }
    assert_eq!(upstream.connections(), 0, "nothing was sent upstream");
    gate.until_metric(&["denied_total", "key_unknown"], 16.0);
    gate.until_log(&["no caller has the key with the SHA-256", &hash(9)[..8]]);
    gate.until_log(&["checksum of the key is wrong"]);
    let log = gate.log().concat();
    assert!(!["mgk_1", "mgk_2", "mgk_9"].iter().any(|key| log.contains(key)), "no key is logged");
}

/// R-8, R-20: all conditions of the caller that a key names must hold; the one that does not is counted and logged.
#[test]
fn a_key_with_another_condition_that_fails_is_refused() {
    let upstream = Upstream::plain();
    let gate = Gate::start(&upstream, &config());
    let of_crm = format!("Authorization: OAuth {}\r\n", key(3));
    assert_eq!(asked(&gate, &mut gate.connect("other"), PATH, &of_crm), outcome("200", "crm"));
    let id = next_id();
    let refused =
        gate.send("app", format!("GET {PATH} HTTP/1.1\r\nHost: localhost\r\nX-Request-ID: {id}\r\n{of_crm}\r\n"));
    assert_eq!(refused.summary(), "401 unknown_caller");
    let told = format!("{:?} {}", refused.fields, refused.text());
    assert!(!told.contains("crm") && !told.contains(&hash(3)[..8]) && !told.contains("other"), "{told}");
    assert_eq!(caller_of(&gate, &id), "unknown");
    gate.until_metric(&["condition_failures_total", "listener=\"app\"", "condition=\"listener\""], 1.0);
    let line = gate.until_log(&[&id, "names caller 'crm', but its condition listener does not hold"]);
    assert!(!line.contains("mgk_") && !line.contains(&hash(3)[..8]), "{line}");
}

/// R-8.
#[test]
fn two_different_keys_are_refused_wherever_they_are() {
    let upstream = Upstream::plain();
    let gate = Gate::start(&upstream, &config());
    let [one, two] = [1, 2].map(key);
    for (target, fields) in [
        (PATH.to_owned(), format!("Authorization: {one}\r\nAuthorization: {two}\r\n")),
        (PATH.to_owned(), format!("Authorization: OAuth {one}\r\nProxy-Authorization: {two}\r\n")),
        (PATH.to_owned(), basic(&one, &two)),
        (format!("{PATH}?oauth_token={one}"), format!("Authorization: OAuth {two}\r\n")),
        (format!("{PATH}?oauth_token={one}&access_token={two}"), String::new()),
    ] {
        let found = asked(&gate, &mut gate.connect("app"), &target, &fields);
        assert_eq!(found, outcome("401 keys_differ", "unknown"), "{target} {fields}");
    }
    let twice = format!("Authorization: OAuth {one}\r\nProxy-Authorization: {one}\r\n");
    assert_eq!(asked(&gate, &mut gate.connect("app"), PATH, &twice), outcome("200", "etl"));
}

#[test]
fn each_request_of_a_connection_has_its_own_key() {
    let upstream = Upstream::plain();
    let gate = Gate::start(&upstream, &config());
    let mut connection = gate.connect("app");
    let of_etl = format!("Authorization: OAuth {}\r\n", key(1));
    let unknown = format!("Authorization: OAuth {}\r\n", key(9));
    for _ in 0..2 {
        assert_eq!(asked(&gate, &mut connection, PATH, &of_etl), outcome("200", "etl"));
        assert_eq!(asked(&gate, &mut connection, PATH, ""), outcome("200", "near"));
        assert_eq!(asked(&gate, &mut connection, PATH, &unknown), outcome("401 key_unknown", "unknown"));
    }
}

/// R-8: over HTTP/2 keys are those of streams.
#[test]
fn each_stream_of_http2_has_its_own_key() {
    let upstream = Upstream::plain();
    let gate = Gate::start(&upstream, &config());
    let mut two = H2::connect(gate.place("app"));
    let mut stream = 1;
    let mut ask = |path: &str, fields: &[(&str, &str)]| {
        let id = next_id();
        let all = request("GET", path).into_iter().chain([("x-request-id", id.as_str())]).chain(fields.iter().copied());
        two.frame(HEADERS, WHOLE, stream, block(all));
        let fate = two.fate(stream);
        stream += 2;
        (fate, caller_of(&gate, &id))
    };
    let [etl, next, crm, unknown] = [1, 2, 3, 9].map(|digit| format!("OAuth {}", key(digit)));
    let of = |status, caller: &str| (Fate::Answered(status), caller.to_owned());
    assert_eq!(ask(PATH, &[("authorization", &etl)]), of(200, "etl"));
    assert_eq!(ask(PATH, &[]), of(200, "near"));
    assert_eq!(ask(&format!("{PATH}?oauth_token={}", key(1)), &[]), of(200, "etl"));
    assert_eq!(ask(PATH, &[("authorization", &unknown)]), of(401, "unknown"));
    assert_eq!(ask(PATH, &[("authorization", &crm)]), of(401, "unknown"));
    assert_eq!(ask(PATH, &[("authorization", &etl), ("authorization", &next)]), of(401, "unknown"));
    gate.until_metric(&["condition_failures_total", "listener=\"app\"", "condition=\"listener\""], 1.0);
    assert!(!upstream.requests().concat().contains("mgk_"));
}

/// Opens a tunnel with these fields in the CONNECT request; `Err` is the response that refuses it.
fn tunnel(gate: &Gate, port: u16, fields: &str) -> Result<TcpStream, String> {
    let mut socket = TcpStream::connect(gate.place("proxy")).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.write_all(format!("CONNECT {METRICA}:{port} HTTP/1.1\r\n{fields}\r\n").as_bytes()).unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        assert_eq!(socket.read(&mut byte).unwrap(), 1, "{:?}", String::from_utf8_lossy(&head));
        head.extend(byte);
    }
    let head = String::from_utf8(head).unwrap();
    if head.starts_with("HTTP/1.1 200 ") { Ok(socket) } else { Err(head) }
}

/// R-8: a key on CONNECT holds for every request in the tunnel, and for no other connection.
#[test]
fn a_key_of_connect_holds_for_its_tunnel() {
    let upstream = Upstream::plain();
    let gate = Gate::start(&upstream, &config());
    let fields = format!("Proxy-Authorization: Basic {}\r\n", BASE64_STANDARD.encode(format!("etl:{}", key(4))));
    let get = |id: &str, fields: &str| {
        format!("GET {PATH} HTTP/1.1\r\nHost: {METRICA}\r\nX-Request-ID: {id}\r\n{fields}\r\n")
    };
    let in_tls = tunnel(&gate, 443, &fields).unwrap();
    let mut connections = [
        Caller::on(tunnel(&gate, 80, &fields).unwrap()),
        Caller::on(client(&gate.file("ca"), &["http/1.1"], METRICA, in_tls)),
    ];
    let [same, other, unknown] = [4, 1, 9].map(|digit| format!("Authorization: OAuth {}\r\n", key(digit)));
    for connection in &mut connections {
        for (fields, expected) in [
            ("", outcome("200", "proxied")),
            ("Authorization: OAuth y0_dummy\r\n", outcome("200", "proxied")),
            (same.as_str(), outcome("200", "proxied")),
            (other.as_str(), outcome("401 keys_differ", "unknown")),
            (unknown.as_str(), outcome("401 keys_differ", "unknown")),
            ("", outcome("200", "proxied")),
        ] {
            let id = next_id();
            connection.send(get(&id, fields));
            assert_eq!((connection.answer().summary(), caller_of(&gate, &id)), expected, "{fields}");
        }
    }
    let in_h2 = client(&gate.file("ca"), &["h2"], METRICA, tunnel(&gate, 443, &fields).unwrap());
    let mut two = H2::on(in_h2);
    let head = [(":method", "GET"), (":scheme", "https"), (":path", PATH), (":authority", METRICA)];
    two.frame(HEADERS, WHOLE, 1, block(head));
    assert_eq!(two.fate(1), Fate::Answered(200));
    let mut without = Caller::on(tunnel(&gate, 80, "").unwrap());
    let id = next_id();
    without.send(get(&id, ""));
    assert_eq!((without.answer().summary(), caller_of(&gate, &id)), outcome("401 unknown_caller", "unknown"));
    let id = next_id();
    without.send(get(&id, &same));
    assert_eq!((without.answer().summary(), caller_of(&gate, &id)), outcome("200", "proxied"));
    assert!(!upstream.requests().concat().contains("mgk_"));
}

/// R-8: an invalid key on CONNECT opens no tunnel.
#[test]
fn an_invalid_key_of_connect_opens_no_tunnel() {
    let upstream = Upstream::plain();
    let gate = Gate::start(&upstream, &config());
    for (fields, reason) in [
        (format!("Proxy-Authorization: Bearer {}\r\n", key(9)), "key_unknown"),
        (format!("Proxy-Authorization: {}\r\n", &key(4)[..50]), "key_unknown"),
        (format!("Authorization: OAuth {}\r\n", key(9)), "key_unknown"),
        (format!("Proxy-Authorization: {}\r\nProxy-Authorization: {}\r\n", key(4), key(1)), "keys_differ"),
    ] {
        let refused = tunnel(&gate, 443, &fields).unwrap_err();
        assert!(refused.starts_with("HTTP/1.1 401 ") && refused.contains(&format!("x-gate-error: {reason}\r\n")));
    }
    assert!(tunnel(&gate, 443, "Proxy-Authorization: Basic eDp5\r\n").is_ok(), "another credential is no proof");
    gate.until_metric(&["denied_total", "caller=\"unknown\"", "key_unknown"], 3.0);
    assert!(!gate.log().concat().contains("mgk_4"), "no key is logged");
}

/// A refusal in a tunnel, before its first request, is counted for the caller of the tunnel.
#[test]
fn a_refusal_in_a_tunnel_is_counted_for_its_caller() {
    let upstream = Upstream::plain();
    let near = "callers:\n  - {id: anyone, match: {listener: proxy}, scopes: [metrika:read], tokens: [analytics]}\n";
    let gate = Gate::start(&upstream, &config().replace("callers:\n", near));
    let fields = format!("Proxy-Authorization: Bearer {}\r\n", key(4));
    for (fields, caller) in [(fields.as_str(), "proxied"), ("", "anyone")] {
        let counted = |reason: &str| {
            gate.until_metric(&["denied_total", &format!("caller=\"{caller}\""), reason], 1.0);
        };
        let connect = format!("CONNECT evil.example:443 HTTP/1.1\r\n{fields}\r\n");
        assert_eq!(gate.send("proxy", connect).summary(), "403 destination_denied");
        counted("destination_denied");
        let in_tls = tunnel(&gate, 443, fields).unwrap();
        let mut caller = Caller::on(client(&gate.file("ca"), &[], "api-metrika.yandex.ru", in_tls));
        assert_eq!(caller.answer().summary(), "421 misdirected");
        counted("misdirected");
        let mut caller = Caller::on(tunnel(&gate, 443, fields).unwrap());
        caller.send(format!("GET {PATH} HTTP/1.1\r\n"));
        assert_eq!(caller.answer().summary(), "400 malformed_request");
        counted("malformed_request");
    }
    // An invalid key is nobody's, although the address is somebody's.
    assert!(tunnel(&gate, 443, &format!("Proxy-Authorization: Bearer {}\r\n", key(9))).is_err());
    gate.until_metric(&["denied_total", "caller=\"unknown\"", "key_unknown"], 1.0);
    // A key as the target is nobody's to read.
    let connect = format!("CONNECT {}.example:443 HTTP/1.1\r\n\r\n", key(4));
    assert!(matches!(gate.send("proxy", connect).status, 400 | 403));
    assert!(!gate.log().concat().contains("mgk_"), "no key is logged");
}

/// A plain request through the proxy has the key of that request alone.
#[test]
fn a_plain_proxied_request_has_its_own_key() {
    let upstream = Upstream::plain();
    let gate = Gate::start(&upstream, &config());
    let target = format!("http://{METRICA}{PATH}");
    let mut connection = gate.connect("proxy");
    let proxied = format!("Proxy-Authorization: Bearer {}\r\n", key(4));
    assert_eq!(asked(&gate, &mut connection, &target, &proxied), outcome("200", "proxied"));
    assert_eq!(asked(&gate, &mut connection, &target, ""), outcome("401 unknown_caller", "unknown"));
}

const IN_A_FILE: &str = "
listeners:
  - {name: app, address: '127.0.0.1:0', http2: true}
  - {name: proxy, address: '127.0.0.1:0', proxy: true, tls: {authority: '{folder}/ca'}}
callers: [{id: etl, match: {key_sha256: []}, scopes: [metrika:read, metrika:write], tokens: [analytics, crm], counters: [1]}]
keys_file: '{folder}/keys'
";

fn replace_keys(gate: &Gate, content: &str) {
    std::fs::write(gate.file("keys.new"), content).unwrap();
    std::fs::rename(gate.file("keys.new"), gate.file("keys")).unwrap();
}

/// A key is taken away from connections and tunnels that are open; a file with a mistake changes nothing.
#[test]
fn the_file_of_keys_is_read_again_without_a_restart() {
    let upstream = Upstream::plain();
    let plan = Gate::plan(&upstream, IN_A_FILE);
    std::fs::write(plan.folder().join("keys"), format!("etl {}\n", hash(1))).unwrap();
    let gate = plan.start();
    let target = "/management/v1/counter/1";
    let [old, new] = [1, 2].map(|digit| format!("Authorization: OAuth {}\r\n", key(digit)));
    let mut open = gate.connect("app");
    let proxied = format!("Proxy-Authorization: Bearer {}\r\n", key(1));
    let mut in_tunnel = Caller::on(tunnel(&gate, 80, &proxied).unwrap());
    let through = format!("GET {target} HTTP/1.1\r\nHost: {METRICA}\r\n\r\n");
    assert_eq!(asked(&gate, &mut open, target, &old), outcome("200", "etl"));
    assert_eq!(asked(&gate, &mut open, target, &new), outcome("401 key_unknown", "unknown"));
    in_tunnel.send(&through);
    assert_eq!(in_tunnel.answer().summary(), "200");

    replace_keys(&gate, &format!("# both, while the client changes\netl {}\netl {}\n", hash(1), hash(2)));
    gate.until_metric(&["config_reloads_total", "success"], 2.0);
    assert_eq!(asked(&gate, &mut open, target, &old), outcome("200", "etl"));
    assert_eq!(asked(&gate, &mut open, target, &new), outcome("200", "etl"));

    replace_keys(&gate, &format!("etl {}\nnobody {}\n", hash(2), hash(1)));
    gate.until_log(&["the configuration was not reloaded", "line 2 of ", "there is no caller 'nobody'"]);
    assert_eq!(asked(&gate, &mut open, target, &old), outcome("200", "etl"));

    replace_keys(&gate, &format!("etl {}\n", hash(2)));
    gate.until_metric(&["config_reloads_total", "success"], 3.0);
    assert_eq!(asked(&gate, &mut open, target, &old), outcome("401 key_unknown", "unknown"));
    assert_eq!(asked(&gate, &mut open, target, &new), outcome("200", "etl"));
    in_tunnel.send(&through);
    assert_eq!(in_tunnel.answer().summary(), "401 key_unknown");
}

/// The only key of a caller is taken away by removing its hash: nobody is that caller then, with or without a key.
#[test]
fn the_last_key_of_a_caller_can_be_taken_away() {
    let upstream = Upstream::plain();
    let gate = Gate::start(
        &upstream,
        &format!(
            "\nlisteners: [{{name: app, address: '127.0.0.1:0'}}]\ncallers: [{{id: etl, match: {{listener: app, key_sha256: \
             ['{}']}}, scopes: [metrika:read], tokens: [analytics]}}]\n",
            hash(1)
        ),
    );
    let stolen = format!("Authorization: OAuth {}\r\n", key(1));
    let mut open = gate.connect("app");
    assert_eq!(asked(&gate, &mut open, PATH, &stolen), outcome("200", "etl"));
    gate.replace_config(&gate.config().replace(&format!("'{}'", hash(1)), ""));
    gate.until_metric(&["config_reloads_total", "success"], 2.0);
    assert_eq!(asked(&gate, &mut open, PATH, &stolen), outcome("401 key_unknown", "unknown"));
    assert_eq!(asked(&gate, &mut open, PATH, ""), outcome("401 unknown_caller", "unknown"));
}

/// Promise 3: a request that waits while its key is taken away sends nothing.
#[test]
fn a_key_that_is_taken_away_meanwhile_sends_nothing() {
    let upstream = Upstream::plain();
    let plan = Gate::plan(&upstream, IN_A_FILE);
    std::fs::write(plan.folder().join("keys"), format!("etl {}\n", hash(1))).unwrap();
    let gate = plan.start();
    let goal = br#"{"goal":{"name":"a","type":"url"}}"#;
    let head = format!(
        "POST /management/v1/counter/1/goals HTTP/1.1\r\nHost: localhost\r\nAuthorization: OAuth {}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        key(1),
        goal.len()
    );
    let mut waits = gate.connect("app");
    waits.send(&head);
    waits.send(&goal[..5]);
    gate.until_metric(&["in_flight_requests", "caller=\"etl\""], 1.0);
    replace_keys(&gate, &format!("etl {}\n", hash(2)));
    gate.until_metric(&["config_reloads_total", "success"], 2.0);
    waits.send(&goal[5..]);
    assert_eq!(waits.answer().summary(), "401 key_unknown");
    assert_eq!(upstream.requests().len(), 0, "nothing was sent upstream");
}

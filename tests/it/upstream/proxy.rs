//! The way out through a proxy: end-to-end TLS in its tunnel, and every way in which it can refuse one.

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use metrika_gate::policy::rejection::Reason;

use super::http2::{fake, plan};
use crate::harness::dns::Dns;
use crate::harness::gate::{Plan, program, until};
use crate::harness::{Caller, Gate, Proxy, READ_TOKEN, TWO_CALLERS, Upstream};
use crate::policy::rejections::assert_is;

const COUNTERS: &str = "/management/v1/counters";
const TARGET: &str = "api-metrika.yandex.net:443";
const ESTABLISHED: &str = "HTTP/1.1 200 Connection established\r\n\r\n";

/// A gate with a proxy at `place` and these further keys of `upstream`.
fn through(place: &str, ca_pem: &str, more: &str) -> Plan {
    let upstream = format!("\nupstream: {{ca_file: '{{ca}}', proxy: 'http://{place}'{more}}}\n");
    Gate::plan_for("unused", ca_pem, &format!("{TWO_CALLERS}{upstream}"))
}

fn with(proxy: &Proxy, upstream: &Upstream, more: &str) -> Gate {
    through(&proxy.address().to_string(), upstream.ca_pem(), more).workers(1).start()
}

/// Has the gate meet a proxy that opens no tunnel; the line of the log about it.
#[track_caller]
fn refused(gate: &Gate, expected: &str, kind: &str, cause: &str) -> String {
    let answer = gate.get("app", COUNTERS);
    assert_is(&answer, expected);
    gate.until_metric(&["upstream_errors_total", &format!("kind=\"{kind}\"")], 1.0);
    assert_eq!(gate.metric(&["upstream_errors_total"]), 1.0, "{:?}", gate.metrics(&["upstream_errors_total"]));
    assert_eq!(gate.metric(&["requests_total", "origin=\"upstream\""]), 0.0, "it is no response of Metrica");
    let reason = expected.split(' ').next_back().unwrap();
    let line = gate.until_log(&["request failed", reason]);
    assert!(line.contains(cause), "{cause}: {line}");
    line
}

#[test]
fn requests_reach_metrica_in_the_tunnel_and_the_proxy_sees_only_its_name() {
    let upstream = Upstream::plain();
    let proxy = Proxy::to(upstream.address());
    let gate = with(&proxy, &upstream, "");
    for _ in 0..3 {
        assert_eq!(gate.get("app", COUNTERS).summary(), "200");
    }
    assert_eq!(proxy.heads(), [format!("CONNECT {TARGET} HTTP/1.1\r\nHost: {TARGET}\r\n\r\n")], "and it is kept alive");
    let requests = upstream.requests();
    assert_eq!(requests.len(), 3);
    assert!(
        requests.iter().all(|head| head.contains(READ_TOKEN)
            && head.to_ascii_lowercase().contains("\r\nhost: api-metrika.yandex.net\r\n"))
    );
    let started: serde_json::Value = serde_json::from_str(&gate.until_log(&["\"started\""])).unwrap();
    assert_eq!(started["proxy"], proxy.address().to_string());
}

#[test]
fn http2_is_negotiated_in_the_tunnel() {
    let fake = fake(true);
    let proxy = Proxy::to(fake.address());
    let place = format!("{}', proxy: 'http://{}", fake.address(), proxy.address());
    let gate = plan(&place, fake.ca_pem(), "").start();
    let mut caller = Caller::connect(gate.place("app"));
    for _ in 0..5 {
        caller.send(format!("GET {COUNTERS} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
        assert_eq!(caller.answer().summary(), "200");
    }
    let authority = fake.address().to_string();
    assert_eq!(
        proxy.heads(),
        [format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n")],
        "connect_to is the target"
    );
}

#[test]
fn a_certificate_that_is_wrong_gets_nothing_in_a_tunnel_either() {
    let (upstream, other) = (Upstream::plain(), Upstream::plain());
    // A proxy that intercepts TLS presents a certificate of its own.
    let proxy = Proxy::to(upstream.address());
    let gate = with(&proxy, &other, "");
    let answer = gate.get("app", COUNTERS);
    assert_eq!(answer.summary(), "502 upstream_tls");
    assert!(upstream.requests().is_empty());
    let line = gate.until_log(&["request failed", "upstream_tls"]);
    assert!(line.contains(&format!("TLS with {TARGET} through the proxy {} failed", proxy.address())), "{line}");
}

#[test]
fn every_refusal_of_the_proxy_is_its_own_and_never_one_of_metrica() {
    let upstream = Upstream::plain();
    let body = "Content-Type: application/json\r\nContent-Length: 80\r\n\r\n{\"errors\":[{\"error_type\":\"access_denied\",\"message\":\"of the proxy\"}],\"code\":403}  ";
    let long = format!("HTTP/1.1 200 OK\r\nA: {}\r\n", "x".repeat(20_000));
    let interim = "HTTP/1.1 100 Continue\r\n\r\n".repeat(900);
    let early = format!("{ESTABLISHED}HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{{}}");
    let cases = [
        (
            format!("HTTP/1.1 403 Forbidden\r\n{body}"),
            "502 proxy_denied",
            "proxy_denied",
            "refused the tunnel with status 403",
        ),
        (
            format!("HTTP/1.1 401 Unauthorized\r\n{body}"),
            "502 proxy_credentials",
            "proxy_credentials",
            "requires credentials with status 401",
        ),
        ("HTTP/1.1 302 Found\r\nLocation: http://h/\r\n\r\n".into(), "502 proxy_denied", "proxy_denied", "status 302"),
        ("HTTP/1.0 400 Bad\r\n\r\n".into(), "502 proxy_denied", "proxy_denied", "status 400"),
        (
            format!("HTTP/1.1 502 Bad Gateway\r\n{body}"),
            "503 proxy_failed",
            "proxy_failed",
            "could not open the tunnel: status 502",
        ),
        ("HTTP/1.1 503 Unavailable\r\n\r\n".into(), "503 proxy_failed", "proxy_failed", "status 503"),
        ("HTTP/1.1 429 Too Many\r\n\r\n".into(), "503 proxy_failed", "proxy_failed", "status 429"),
        (
            "HTTP/1.1 407 Proxy\r\nProxy-Authenticate: Negotiate, basic realm=\"a\"\r\n\r\n".into(),
            "502 proxy_credentials",
            "proxy_credentials",
            "requires credentials with status 407",
        ),
        (
            "HTTP/1.1 407 Proxy\r\nProxy-Authenticate: NTLM\r\n\r\n".into(),
            "502 proxy_credentials",
            "proxy_credentials",
            "requires credentials with status 407, and does not offer Basic",
        ),
        ("SSH-2.0-OpenSSH\r\n\r\n".into(), "502 proxy_protocol", "proxy_protocol", "is not valid HTTP"),
        ("HTTP/2.0 200 OK\r\n\r\n".into(), "502 proxy_protocol", "proxy_protocol", "is not valid HTTP"),
        ("HTTP/1.1 101 Switching Protocols\r\n\r\n".into(), "502 proxy_protocol", "proxy_protocol", "another protocol"),
        (long, "502 proxy_protocol", "proxy_protocol", "is too long"),
        (interim, "502 proxy_protocol", "proxy_protocol", "is too long"),
        (early, "502 proxy_protocol", "proxy_protocol", "unexpected bytes"),
    ];
    for (said, expected, kind, cause) in cases {
        let shown = said[..said.len().min(40)].to_owned();
        let proxy = Proxy::says(said);
        let gate = with(&proxy, &upstream, "");
        let line = refused(&gate, expected, kind, cause);
        assert!(
            line.contains(&format!("no tunnel to {TARGET} through the proxy {}", proxy.address())),
            "{shown}: {line}"
        );
        assert!(!line.contains("of the proxy\""), "{shown}: {line}");
    }
    assert_eq!(upstream.connections(), 0);
}

#[test]
fn a_proxy_that_closes_or_is_silent_or_is_not_there_has_its_own_reason() {
    let upstream = Upstream::plain();
    let closing = Proxy::run(|_| {});
    refused(
        &with(&closing, &upstream, ""),
        "502 proxy_protocol",
        "proxy_closed",
        "closed the connection before it responded",
    );
    let halfway = Proxy::run(|mut asked| asked.write("HTTP/1.1 200 OK\r\n"));
    refused(&with(&halfway, &upstream, ""), "502 proxy_protocol", "proxy_protocol", "ends within its head");
    for begun in ["", "HTTP/1.1 200 Connection established\r\nA: b\r\n", "HTTP/1.1 100 Continue\r\n\r\n"] {
        let silent = Proxy::says(begun);
        let gate = with(&silent, &upstream, ", timeouts: {connect: 300ms}");
        let began = Instant::now();
        refused(&gate, "503 proxy_failed", "proxy_timeout", "did not respond to CONNECT within 300ms");
        assert!(began.elapsed() < Duration::from_secs(5));
    }
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let gate = through(&closed, upstream.ca_pem(), "").start();
    refused(&gate, "503 proxy_unreachable", "proxy_connect", "connecting to it failed");
    let gate = through("nothing.invalid:3128", upstream.ca_pem(), "").start();
    refused(&gate, "503 proxy_unreachable", "proxy_resolve", "its name nothing.invalid cannot be resolved");
    assert_eq!(upstream.connections(), 0);
}

#[test]
fn a_proxy_that_accepts_no_connection_is_unreachable() {
    let upstream = Upstream::plain();
    // A full queue of a listener: the kernel answers no further connection.
    let listener = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    listener.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
    listener.listen(0).unwrap();
    let place = listener.local_addr().unwrap().as_socket().unwrap();
    let connect = || std::net::TcpStream::connect_timeout(&place, Duration::from_millis(100)).ok();
    let _held: Vec<_> = std::iter::from_fn(connect).take(8).collect();
    let gate = through(&place.to_string(), upstream.ca_pem(), ", timeouts: {connect: 300ms}").start();
    refused(&gate, "503 proxy_unreachable", "proxy_connect_timeout", "connecting to it took longer than 300ms");
}

#[test]
fn a_tunnel_that_breaks_is_no_refusal_of_the_proxy() {
    let upstream = Upstream::plain();
    let proxy = Proxy::run(|mut asked| asked.write(ESTABLISHED));
    let gate = with(&proxy, &upstream, "");
    assert_eq!(gate.get("app", COUNTERS).summary(), "503 upstream_unreachable");
    gate.until_metric(&["upstream_errors_total", "kind=\"connect\""], 1.0);
}

#[test]
fn any_2xx_in_any_pieces_opens_the_tunnel() {
    let upstream = Upstream::plain();
    let to = upstream.address();
    for answer in [
        "HTTP/1.1 200 OK\r\n\r\n",
        "HTTP/1.0 200 Connection established\r\nProxy-Agent: a\r\n\r\n",
        "HTTP/1.1 200 \r\nContent-Length: 50\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 204 No Content\r\n\r\n",
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
    ] {
        let proxy = Proxy::run(move |mut asked| {
            let (last, bytes) = (answer.len() - 1, answer.as_bytes());
            for byte in &bytes[..last] {
                asked.write([*byte]);
                std::thread::sleep(Duration::from_millis(1));
            }
            asked.tunnel(&answer[last..], to);
        });
        assert_eq!(with(&proxy, &upstream, "").get("app", COUNTERS).summary(), "200", "{answer}");
    }
}

#[test]
fn the_proxy_resolves_the_name_of_metrica_and_the_gate_only_that_of_the_proxy() {
    let upstream = Upstream::plain();
    let proxy = Proxy::to(upstream.address());
    let Some(dns) = Dns::start(Ipv4Addr::LOCALHOST) else { return };
    let port = proxy.address().port();
    for (place, expected) in [("127.0.0.1", 0), ("egress.example", 1)] {
        let plan = through(&format!("{place}:{port}"), upstream.ca_pem(), "");
        let Some(plan) = plan.resolver(dns.place()) else { return };
        let gate = plan.start();
        assert_eq!(gate.get("app", COUNTERS).summary(), "200");
        let names = dns.names();
        assert!(names.iter().all(|name| name.starts_with("egress.example")), "{names:?}");
        assert_eq!(usize::from(!names.is_empty()), expected, "{names:?}");
    }
}

#[test]
fn the_name_of_the_proxy_may_be_in_the_hosts_file() {
    let upstream = Upstream::plain();
    let proxy = Proxy::to(upstream.address());
    let plan = through(&format!("egress.invalid:{}", proxy.address().port()), upstream.ca_pem(), "");
    let Some(plan) = plan.hosts("127.0.0.1 egress.invalid\n") else { return };
    assert_eq!(plan.start().get("app", COUNTERS).summary(), "200");
}

#[test]
fn a_proxy_that_comes_back_is_used_without_a_restart() {
    let upstream = Upstream::plain();
    let to = upstream.address();
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let gate = through(&free.to_string(), upstream.ca_pem(), "").start();
    assert_is(&gate.get("app", COUNTERS), "503 proxy_unreachable");
    let _proxy = Proxy::run_on(TcpListener::bind(free).unwrap(), move |asked| asked.tunnel(ESTABLISHED, to));
    assert_eq!(gate.get("app", COUNTERS).summary(), "200");
}

#[test]
fn proxy_variables_have_no_effect_and_are_logged_without_their_values() {
    let upstream = Upstream::plain();
    let unused = Proxy::says("HTTP/1.1 403 Forbidden\r\n\r\n");
    let value = format!("http://user:hunter2hunter2@{}", unused.address());
    let set = |plan: Plan| {
        ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"]
            .iter()
            .fold(plan, |plan, name| plan.environment(name, &value))
    };
    let gate = set(Gate::plan(&upstream, TWO_CALLERS)).environment("ALL_PROXY", "").start();
    assert_eq!(gate.get("app", COUNTERS).summary(), "200");
    for name in ["HTTPS_PROXY", "https_proxy", "all_proxy"] {
        gate.until_log(&["\"WARN\"", "has no effect; set upstream.proxy", &format!("\"{name}\"")]);
    }
    let proxy = Proxy::to(upstream.address());
    let configured = set(through(&proxy.address().to_string(), upstream.ca_pem(), "")).start();
    assert_eq!(configured.get("app", COUNTERS).summary(), "200");
    configured.until_log(&["\"INFO\"", "has no effect; upstream.proxy is used", "HTTPS_PROXY"]);
    let all = [gate.log(), configured.log()].concat().join("\n");
    assert!(!all.contains("hunter2"), "{all}");
    assert!(unused.heads().is_empty());
}

#[test]
fn probes_of_tokens_go_through_the_proxy_too() {
    let invalid = r#"{"errors":[{"error_type":"invalid_token","message":"m"}],"code":403,"message":"m"}"#;
    let upstream = Upstream::run(move |conversation| {
        while conversation.request_head().is_some() {
            conversation.answer("403 Forbidden", "application/json", invalid);
        }
    });
    let proxy = Proxy::to(upstream.address());
    let gate = with(&proxy, &upstream, "");
    assert_eq!(gate.get("app", COUNTERS).summary(), "403");
    gate.until_metric(&["token_state", "state=\"suspended\""], 1.0);
    assert!(gate.metric(&["own_requests_total"]) > 0.0);
    assert_eq!(upstream.connections(), proxy.heads().len(), "nothing went past the proxy");
}

#[test]
fn yandex_id_is_asked_through_the_proxy_too() {
    let fake = fake(false);
    let proxy = Proxy::to(fake.address());
    let config = format!(
        "{TWO_CALLERS}
upstream: {{ca_file: '{{ca}}', proxy: 'http://{}'}}
identity: {{url: 'https://login.yandex.ru/info', ca_file: '{{ca}}'}}
",
        proxy.address()
    );
    let gate = Gate::plan_for("unused", fake.ca_pem(), &config).start();
    until("it is asked", || proxy.heads().iter().any(|head| head.starts_with("CONNECT login.yandex.ru:443 ")));
    gate.until_log(&["\"started\""]);
    assert_eq!(gate.get("app", COUNTERS).summary(), "200");
}

#[test]
fn doctor_names_the_proxy_and_a_remedy() {
    let upstream = Upstream::plain();
    let doctor = |proxy: &str| {
        let plan = through(proxy, upstream.ca_pem(), ", timeouts: {connect: 300ms}");
        let output = program().args(["doctor", "--token", "analytics", "--config"]).arg(plan.file()).output().unwrap();
        std::io::stderr().write_all(&output.stderr).unwrap();
        (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap())
    };
    let open = Proxy::to(upstream.address());
    let (_, said) = doctor(&open.address().to_string());
    assert!(said.contains(&format!("{} opens tunnels to {TARGET}", open.address())), "{said}");
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let answering = |answer: &'static str| Proxy::says(answer).address().to_string();
    for (place, code, sign, said, mend) in [
        (
            answering("HTTP/1.1 403 No\r\n\r\n"),
            1,
            "[-]",
            "with status 403",
            "allow CONNECT to api-metrika.yandex.net:443",
        ),
        (
            answering("HTTP/1.1 407 No\r\nProxy-Authenticate: Basic realm=\"a\"\r\n\r\n"),
            1,
            "[-]",
            "requires credentials with status 407",
            "upstream.proxy_auth_file",
        ),
        (
            answering("HTTP/1.1 407 No\r\nProxy-Authenticate: NTLM\r\n\r\n"),
            1,
            "[-]",
            "does not offer Basic",
            "enable Basic in the proxy",
        ),
        (answering("220 smtp\r\n\r\n"), 1, "[-]", "is not valid HTTP", "an HTTP proxy that accepts CONNECT"),
        (closed, 1, "[-]", "connecting to it failed", "start the proxy"),
        (answering("HTTP/1.1 503 No\r\n\r\n"), 75, "[?]", "status 503", "can resolve and reach"),
        (answering(""), 75, "[?]", "did not respond to CONNECT", "is an HTTP proxy"),
        ("nothing.invalid:1".into(), 75, "[?]", "cannot be resolved", "correct the host of upstream.proxy"),
    ] {
        let (found, out) = doctor(&place);
        let line = out.lines().find(|line| line.contains(" proxy ")).unwrap_or_else(|| panic!("{place}: {out}"));
        assert!(line.starts_with(sign) && line.contains(said) && line.contains(mend), "{line}");
        assert_eq!(found, code, "{out}");
    }
}

#[test]
fn each_reason_of_a_proxy_is_for_unsent_requests() {
    let of_proxies = Reason::ALL.iter().filter(|reason| reason.as_str().starts_with("proxy_"));
    let statuses: Vec<_> = of_proxies.map(|reason| reason.answer().status.as_u16()).collect();
    assert_eq!(statuses.len(), 5);
    assert!(
        statuses.iter().all(|status| [502, 503].contains(status)),
        "never 403, which is Metrica's word: {statuses:?}"
    );
}

//! The configuration of the way out: mistakes with their place and remedy, and the file of the credentials.

use std::os::unix::fs::PermissionsExt;

use crate::harness::files::write_private;
use crate::harness::gate::{Plan, program, until};
use crate::harness::{Gate, Proxy, TWO_CALLERS, Upstream};

const COUNTERS: &str = "/management/v1/counters";
const PASSWORD: &str = "canaryPROXYcanary0123456789";
/// `gate:canaryPROXYcanary0123456789` in base64.
const ENCODED: &str = "Z2F0ZTpjYW5hcnlQUk9YWWNhbmFyeTAxMjM0NTY3ODk=";
const OTHER: &str = "canaryOTHERcanary0123456789";

fn planned(upstream: &Upstream, keys: &str) -> Plan {
    let config = format!("{TWO_CALLERS}\nupstream: {{ca_file: '{{ca}}', {keys}}}\n");
    let plan = Gate::plan(upstream, &config);
    std::fs::create_dir(plan.folder().join("proxy")).unwrap();
    write_private(&plan.folder().join("proxy/auth"), &format!("gate:{PASSWORD}\n"));
    plan
}

fn with_auth(proxy: &Proxy, upstream: &Upstream) -> Plan {
    planned(upstream, &format!("proxy: 'http://{}', proxy_auth_file: '{{folder}}/proxy/auth'", proxy.address()))
}

/// A proxy that demands credentials.
fn strict(upstream: &Upstream) -> Proxy {
    let to = upstream.address();
    Proxy::run(move |mut asked| {
        if asked.head.contains("\r\nProxy-Authorization: Basic ") {
            asked.tunnel("HTTP/1.1 200 OK\r\n\r\n", to);
        } else {
            asked.write("HTTP/1.1 407 Proxy\r\nProxy-Authenticate: Basic realm=\"a\"\r\nContent-Length: 0\r\n\r\n");
        }
    })
}

#[test]
fn credentials_go_to_the_proxy_and_nowhere_else() {
    let upstream = Upstream::plain();
    let proxy = strict(&upstream);
    let gate = with_auth(&proxy, &upstream).start();
    assert_eq!(gate.get("app", COUNTERS).summary(), "200");
    assert!(
        proxy.heads()[0].ends_with(&format!("\r\nProxy-Authorization: Basic {ENCODED}\r\n\r\n")),
        "{:?}",
        proxy.heads()
    );
    let sent = upstream.requests().concat().to_ascii_lowercase();
    assert!(!sent.contains("proxy-") && !sent.contains(&ENCODED.to_ascii_lowercase()), "{sent}");
}

#[test]
fn a_new_password_is_used_without_a_restart_and_a_bad_file_changes_nothing() {
    let upstream = Upstream::plain();
    let proxy = strict(&upstream);
    let gate = with_auth(&proxy, &upstream).start();
    assert_eq!(gate.get("app", COUNTERS).summary(), "200");
    std::fs::write(gate.file("proxy/auth"), "no password").unwrap();
    gate.until_log(&[
        "the configuration was not reloaded",
        "upstream.proxy_auth_file",
        "contains user:password on one line",
    ]);
    assert_eq!(gate.get("app", COUNTERS).summary(), "200");
    write_private(&gate.file("proxy/auth.new"), &format!("gate:{OTHER}"));
    std::fs::rename(gate.file("proxy/auth.new"), gate.file("proxy/auth")).unwrap();
    gate.until_log(&["configuration reloaded"]);
    until("a tunnel with the new password", || {
        assert_eq!(gate.get("app", COUNTERS).summary(), "200");
        proxy.heads().last().is_some_and(|head| !head.contains(ENCODED))
    });
}

#[test]
fn rejected_credentials_differ_from_missing_ones() {
    let upstream = Upstream::plain();
    let proxy = Proxy::says("HTTP/1.1 407 Proxy\r\nProxy-Authenticate: Basic realm=\"a\"\r\n\r\n");
    let gate = with_auth(&proxy, &upstream).start();
    assert_eq!(gate.get("app", COUNTERS).summary(), "502 proxy_credentials");
    gate.until_log(&["request failed", "rejected the credentials with status 407"]);
}

#[test]
fn mistakes_have_their_place_and_a_remedy_and_show_no_password() {
    let upstream = Upstream::plain();
    for (keys, place, remedy) in [
        ("proxy: 'https://proxy:3128'", "upstream.proxy:", "TLS to the proxy itself is not supported"),
        ("proxy: 'socks5://proxy:1080'", "upstream.proxy:", "not SOCKS"),
        ("proxy: 'http://user:hunter2@proxy:3128'", "upstream.proxy:", "set proxy_auth_file to its path"),
        ("proxy: 'https://user:hunter2@proxy:3128/'", "upstream.proxy:", "set proxy_auth_file to its path"),
        ("proxy: 'user:hunter2@proxy'", "upstream.proxy:", "set proxy_auth_file to its path"),
        ("proxy: 'http://proxy:3128/path'", "upstream.proxy:", "without a path"),
        ("proxy: 'http://proxy'", "upstream.proxy:", "the port is missing"),
        ("proxy: 3128", "upstream.proxy:", "as in http://proxy:3128"),
        ("proxy_auth_file: '{folder}/proxy/auth'", "upstream.proxy_auth_file:", "add proxy: \"http://host:port\""),
        ("proxy: 'http://proxy:1', proxy_auth_file: '/none'", "upstream.proxy_auth_file:", "No such file"),
        ("proxy: 'http://proxy:1', proxy_auth_file: {path: '/none'}", "upstream.proxy_auth_file.path:", "unknown key"),
        ("proxy: 'http://proxy:1', proxy_auth_file: {}", "upstream.proxy_auth_file:", "the key 'file' is missing"),
        (
            "proxy: 'http://proxy:1', proxy_auth_file: {file: '{folder}/proxy/auth', allow_mode: '0666'}",
            "allow_mode:",
            "octal",
        ),
        ("proxy: 'http://proxy:1', proxy_auth_file: '{folder}/ca.pem'", "upstream.proxy_auth_file:", "chmod 0600"),
    ] {
        let (code, said) = planned(&upstream, keys).fails();
        assert_eq!(code, 78, "{keys}: {said}");
        let line = said.lines().find(|line| line.contains(place)).unwrap_or_else(|| panic!("{keys}: {said}"));
        assert!(line.contains("gate.yaml:") && line.contains(remedy), "{keys}: {line}");
        assert!(!said.contains("hunter2"), "{said}");
    }
}

#[test]
fn a_file_on_a_writable_mount_must_be_private_and_the_remedy_is_named() {
    let upstream = Upstream::plain();
    let plan = planned(
        &upstream,
        "proxy: 'http://proxy:1', proxy_auth_file: {file: '{folder}/proxy/auth', allow_mode: '0444'}",
    );
    let file = plan.folder().join("proxy/auth");
    let check = || {
        let output = program().args(["check", "--config"]).arg(plan.file()).output().unwrap();
        (output.status.code().unwrap(), String::from_utf8([output.stdout, output.stderr].concat()).unwrap())
    };
    assert_eq!(check().0, 0, "{}", check().1);
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
    let (code, said) = check();
    assert_eq!(code, 78, "{said}");
    assert!(said.contains("upstream.proxy_auth_file.file") && said.contains("chmod 0600"), "{said}");
}

#[test]
fn a_port_of_another_proxy_needs_a_restart() {
    let upstream = Upstream::plain();
    let (first, second) = (Proxy::to(upstream.address()), Proxy::to(upstream.address()));
    let gate = planned(&upstream, &format!("proxy: 'http://{}'", first.address())).start();
    if !gate.log().iter().any(|line| line.contains("sandbox") && line.contains("full")) {
        return;
    }
    gate.replace_config(&gate.config().replace(&first.address().to_string(), &second.address().to_string()));
    let line = gate.until_log(&["the configuration was not reloaded"]);
    assert!(line.contains(&second.address().port().to_string()) && line.contains("restart the gate"), "{line}");
}

#[test]
fn nothing_shows_the_credentials() {
    let upstream = Upstream::plain();
    // A proxy that sends back what it was sent.
    let proxy = Proxy::run(|mut asked| {
        let head = asked.head.replace("CONNECT", "HTTP/1.1 403");
        asked.write(format!("HTTP/1.1 403 {ENCODED}\r\nX: gate:{PASSWORD}\r\nContent-Length: 500\r\n\r\n{head}"));
    });
    let plan = with_auth(&proxy, &upstream).argument("--log-level").argument("trace");
    let mut gate = plan.start();
    let output = |command: &str| {
        let output = program().args([command, "--config"]).arg(gate.file("gate.yaml")).output().unwrap();
        String::from_utf8([output.stdout, output.stderr].concat()).unwrap()
    };
    let mut seen = vec![output("check"), output("doctor")];
    let answer = gate.get("app", COUNTERS);
    assert_eq!(answer.summary(), "502 proxy_denied");
    seen.push(format!("{:?} {}", answer.fields, answer.text()));
    std::fs::write(gate.file("proxy/auth"), format!("{PASSWORD}\n{PASSWORD}")).unwrap();
    gate.until_log(&["the configuration was not reloaded"]);
    seen.push(output("check"));
    seen.extend(["/metrics", "/readyz?verbose", "/"].map(|page| gate.admin(page).text()));
    gate.signal("TERM");
    gate.wait();
    seen.push(gate.log().join("\n"));
    assert!(proxy.heads().concat().contains(ENCODED), "they were sent");
    for text in seen {
        for part in [PASSWORD, ENCODED, "canaryPROXY", "Y2FuYXJ5UFJPWFk", "jYW5hcnlQUk9YW"] {
            assert!(!text.contains(part), "{part}: {text}");
        }
    }
}

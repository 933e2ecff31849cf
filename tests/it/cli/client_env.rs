//! `client-env`: the texts have the addresses and paths of the configuration. `tests/clients/attach.py` runs them.

use std::fmt::Write as _;

use crate::cli::commands::outcome;
use crate::harness::files::same_as_file;
use crate::harness::gate::program;

/// A configuration with these listeners.
fn listeners(listeners: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let config = format!(
        "listeners: [{listeners}]
tokens: {{t: {{file: /nowhere/t, scopes: [metrika:read]}}}}
callers: [{{id: a, scopes: [metrika:read], tokens: [t], match: {{listener: app}}}}]
"
    );
    std::fs::write(folder.path().join("gate.yaml"), config).unwrap();
    folder
}

fn run(folder: &tempfile::TempDir, arguments: &[&str]) -> (i32, String) {
    let mut command = program();
    command.arg("client-env").args(arguments).arg("--config").arg(folder.path().join("gate.yaml"));
    let (code, out, error) = outcome(&mut command);
    (code, format!("{out}{error}"))
}

/// A listener with TLS and a proxy have texts of their own, with the file of the authority that `ca init` made.
#[test]
fn a_text_trusts_the_authority_of_the_listener() {
    let folder = tempfile::tempdir().unwrap();
    let authority = folder.path().join("authority");
    let (code, said, error) = outcome(program().args(["ca", "init"]).arg(&authority));
    assert_eq!(code, 0, "{said}{error}");
    let tls = format!("tls: {{authority: '{}'}}", authority.display());
    let config = format!(
        "listeners: [{{name: app, address: '127.0.0.1:8443', {tls}}}, {{name: egress, address: '127.0.0.1:3128', proxy: true, {tls}}}]
tokens: {{t: {{file: /nowhere/t, scopes: [metrika:read]}}}}
callers: [{{id: a, scopes: [metrika:read], tokens: [t], match: {{listener: app}}}}]
"
    );
    std::fs::write(folder.path().join("gate.yaml"), config).unwrap();
    let ca = authority.join("ca.pem").display().to_string();
    let (code, said) = run(&folder, &["curl", "--listener", "app"]);
    assert!(code == 0 && said.contains(&format!("CURL_CA_BUNDLE='{ca}'")) && !said.contains("proxy"), "{said}");
    let (code, said) = run(&folder, &["curl", "--listener", "egress"]);
    assert!(code == 0 && said.contains("https_proxy='http://127.0.0.1:3128'") && said.contains(&ca), "{said}");
}

#[test]
fn a_text_has_the_address_of_the_listener() {
    let folder = listeners("{name: app, address: '127.0.0.1:8080'}");
    let (code, said) = run(&folder, &["curl"]);
    assert_eq!(code, 0, "{said}");
    insta::assert_snapshot!(said.replace(env!("CARGO_PKG_VERSION"), "VERSION"), @"
    # curl, through listener 'app' of metrika-gate
    # The tests of metrika-gate VERSION ran this text.
    curl -sS 'http://127.0.0.1:8080/management/v1/counters'
    ");
    let (_, said) = run(&folder, &["php"]);
    insta::assert_snapshot!(said.replace(env!("CARGO_PKG_VERSION"), "VERSION"), @r"
    <?php
    // php, through listener 'app' of metrika-gate
    // The tests of metrika-gate VERSION ran this text.
    $curl = curl_init('http://127.0.0.1:8080/management/v1/counters');
    curl_setopt_array($curl, [CURLOPT_RETURNTRANSFER => true, CURLOPT_FAILONERROR => true, CURLOPT_TIMEOUT => 150]);
    echo curl_exec($curl);
    // nixsolutions/yandex-php-library: $client->setServiceScheme('http'); $client->setServiceDomain('127.0.0.1:8080');
    ");
    let (_, said) = run(&folder, &["r"]);
    assert!(said.contains("have not run this text."), "{said}");
    let (_, said) = run(&folder, &["n8n"]);
    assert!(said.lines().all(|line| line.starts_with("# ")), "a note is a comment: {said}");
}

#[test]
fn every_client_has_a_text_for_a_socket_and_an_address() {
    let folder = listeners("{name: app, address: '127.0.0.1:8080'}, {name: local, unix: {path: /run/gate/app.sock}}");
    let (code, said) = run(&folder, &["unknown"]);
    assert_eq!(code, 2, "{said}");
    let clients = said.split("possible values: ").nth(1).unwrap().split(']').next().unwrap();
    let clients: Vec<_> = clients.split(',').map(str::trim).collect();
    assert!(clients.len() == 19 && clients.contains(&"logs_api_integration"), "{clients:?}");
    for client in clients {
        for listener in ["app", "local"] {
            let (code, said) = run(&folder, &[client, "--listener", listener]);
            assert_eq!(code, 0, "{said}");
            let place = if listener == "app" { "127.0.0.1:8080" } else { "/run/gate/app.sock" };
            assert!(said.contains(place) || said.contains("cannot connect to a unix socket"), "{said}");
            assert!(!said.contains("{base}") && !said.contains("{socket}"), "{said}");
        }
    }
}

#[test]
fn the_address_is_one_that_callers_can_use() {
    for (listener, expected) in [
        ("address: '0.0.0.0:80', allow_remote: true, hosts: [gate.internal, other]", "http://gate.internal:80/"),
        ("address: '0.0.0.0:80', allow_remote: true", "http://127.0.0.1:80/"),
        ("address: '[::]:80', allow_remote: true", "http://[::1]:80/"),
        ("address: '[::1]:80'", "http://[::1]:80/"),
        ("address: '127.0.0.1:0'", "http://127.0.0.1:PORT/"),
    ] {
        let folder = listeners(&format!("{{name: app, {listener}}}"));
        let config = std::fs::read_to_string(folder.path().join("gate.yaml")).unwrap();
        let config = config.replace("{listener: app}", "{listener: app, source: [10.0.0.0/8]}");
        std::fs::write(folder.path().join("gate.yaml"), config).unwrap();
        let (code, said) = run(&folder, &["curl"]);
        assert!(code == 0 && said.contains(expected), "{listener}: {said}");
        assert_eq!(said.contains("Replace PORT"), expected.contains("PORT"), "{said}");
    }
}

#[test]
fn the_header_field_that_a_listener_requires_is_named() {
    let folder = listeners("{name: app, address: '127.0.0.1:80', require_header: 'X-Gate: 1'}");
    let (_, said) = run(&folder, &["fetch"]);
    assert!(said.contains("// Add the header field x-gate: 1 to every request"), "{said}");
}

#[test]
fn a_listener_has_to_be_chosen_and_a_path_must_not_need_quoting() {
    let folder = listeners("{name: app, address: '127.0.0.1:80'}, {name: crm, address: '127.0.0.1:81'}");
    let (code, said) = run(&folder, &["curl"]);
    assert!(code == 2 && said.contains("choose one with --listener: app, crm"), "{said}");
    let (code, said) = run(&folder, &["curl", "--listener", "none"]);
    assert!(code == 2 && said.contains("unknown listener 'none'; the configured listeners are app, crm"), "{said}");
    for path in ["/run/a b.sock", "/run/a\\\"b.sock", "/run/a'b.sock", "/run/$a.sock", "/run/a`b.sock"] {
        let folder = listeners(&format!("{{name: app, unix: {{path: \"{path}\"}}}}"));
        let (code, said) = run(&folder, &["curl"]);
        assert!(code == 2 && said.contains("would need quoting"), "{path}: {said}");
    }
}

#[test]
fn the_page_about_clients_has_them_all() {
    let texts = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/src/cli/client_texts.txt")).unwrap();
    let heads = texts.lines().filter_map(|line| line.strip_prefix("=== "));
    let heads: Vec<Vec<_>> = heads.map(|head| head.split(' ').collect()).collect();
    let said = |client: &str, mode: &str| {
        let head = heads.iter().find(|head| (head[0], head[1]) == (client, mode)).unwrap();
        match (head[2], head[3]) {
            (_, "run") => "program, run",
            ("note", _) if mode == "socket" => "not possible",
            ("note", _) => "note",
            ("sh", _) => "commands, not run",
            _ => "program, not run",
        }
    };
    let mut page = "# Clients

`metrika-gate client-env CLIENT --config gate.yaml` prints how a client connects to the gate, with the addresses and paths of the
configuration. `--listener NAME` chooses the listener, if there are several. The output can be saved and run: everything that is no
code is a comment.

```console
$ metrika-gate client-env httpx --config gate.yaml --listener app > counters.py && python3 counters.py
```

Callers send no token. A client that insists on one can send any text: the gate drops and counts it.

- **Variables of proxies.** `HTTP_PROXY` makes most clients send requests to the gate through that proxy. Add the host of the gate to
  `NO_PROXY`.
- **Time-outs.** Metrica works on a report for up to two minutes. The texts for httpx, requests, urllib and PHP set 150 seconds; the
  other clients have a longer time-out by default, or none.
- **Addresses.** For a listener on all interfaces, the text has the first name of `hosts`, or else loopback.

*run*: `tests/clients/attach.py` (`./test.sh clients`) runs the printed text through a gate. *not run*: written from the documentation
and the source of the client.

This page is written from `src/cli/client_texts.txt` by a test; `UPDATE=1 cargo test --test it` regenerates it.

| client | listener with an address | listener with a unix socket |
|---|---|---|
"
    .to_owned();
    for client in heads.iter().filter(|head| head[1] == "base").map(|head| head[0]) {
        writeln!(page, "| `{client}` | {} | {} |", said(client, "base"), said(client, "socket")).unwrap();
    }
    same_as_file("docs/clients.md", &page);
}

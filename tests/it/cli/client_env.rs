//! `client-env`: the texts have the addresses and paths of the configuration. `tests/clients/run.py` runs them.

use crate::cli::commands::outcome;
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
    std::fs::write(folder.path().join("gate.yaml"), &config).unwrap();
    let ca = authority.join("ca.pem").display().to_string();
    let (code, said) = run(&folder, &["curl", "--listener", "app"]);
    assert!(code == 0 && said.contains(&format!("CURL_CA_BUNDLE='{ca}'")) && !said.contains("proxy"), "{said}");
    assert!(
        said.contains("# A client with a setting for it can take the base URL https://127.0.0.1:8443 instead."),
        "{said}"
    );
    assert!(!said.contains("mgk_"), "{said}");
    let key = format!("key_sha256: ['{}']", "a".repeat(64));
    std::fs::write(folder.path().join("gate.yaml"), config.replace("match: {", &format!("match: {{{key}, "))).unwrap();
    let (code, said) = run(&folder, &["curl", "--listener", "app"]);
    assert!(code == 0 && said.contains("# A caller with a key sends the key in place of a token"), "{said}");
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
    assert!(clients.len() == 31 && clients.contains(&"logs_api_integration"), "{clients:?}");
    for client in clients {
        for listener in ["app", "local"] {
            let (code, said) = run(&folder, &[client, "--listener", listener]);
            assert_eq!(code, 0, "{said}");
            let place = if listener == "app" { "127.0.0.1:8080" } else { "/run/gate/app.sock" };
            let note = said.contains("unix socket") || said.contains("has a fixed address");
            assert!(said.contains(place) || note, "{said}");
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

/// `tests/clients/run.py` writes the page from what it ran; a text that changes since then is missing on it.
#[test]
fn the_page_about_clients_has_each_text() {
    let read = |path: &str| std::fs::read_to_string(format!("{}/{path}", env!("CARGO_MANIFEST_DIR"))).unwrap();
    let (texts, page) = (read("src/cli/client_texts.txt"), read("docs/clients.md"));
    let mut count = 0;
    for text in texts.split("=== ").skip(1) {
        let (head, body) = text.split_once('\n').unwrap();
        let mut body = body.trim_end().to_owned();
        for (name, value) in [
            ("{base}", "http://127.0.0.1:8080"),
            ("{authority}", "127.0.0.1:8080"),
            ("{socket}", "/run/metrika-gate/app.sock"),
            ("{ca}", "/etc/metrika-gate/ca/ca.pem"),
            ("{proxy}", "http://127.0.0.1:3128"),
            ("{host}", "127.0.0.1"),
            ("{port}", "3128"),
        ] {
            body = body.replace(name, value);
        }
        if !head.contains(" note ") {
            count += 1;
            assert!(
                page.contains(&format!("\n{body}\n")),
                "{head} is not in docs/clients.md; UPDATE=1 ./test.sh clients"
            );
        }
    }
    assert!(count > 80, "{count}");
}

//! Files and ports outside: each row of the one table is watched, allowed by the sandbox, checked, and shown by readiness.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use metrika_gate::config::Config;
use metrika_gate::files::{External, ExternalFile, Purpose, Read};
use metrika_gate::process::sandbox::Needs;

use crate::cli::commands::outcome;
use crate::harness::files::write_private;
use crate::harness::gate::{Plan, program, until};
use crate::harness::{Gate, READ_TOKEN, Upstream};

/// A file of each purpose, each in a folder of its own.
const EVERYTHING: &str = "
listeners:
  - {name: app, address: '127.0.0.1:0'}
  - {name: local, unix: {path: '{folder}/of-listener/local.sock'}}
  - {name: tls, address: '127.0.0.1:0', tls: {authority: '{folder}/ca', renew: true, client_ca: '{folder}/of-clients/ca.pem'}}
upstream: {ca_file: '{folder}/of-upstream/ca.pem', proxy: 'http://127.0.0.1:8443', proxy_auth_file: '{folder}/of-proxy/auth'}
identity: {url: 'https://login.yandex.ru/info', ca_file: '{folder}/of-identity/ca.pem', connect_to: '127.0.0.1:8444'}
oauth: {ca_file: '{folder}/of-oauth/ca.pem', connect_to: '127.0.0.1:8445'}
tokens:
  analytics:
    file: '{folder}/of-token/analytics'
    scopes: [metrika:read]
    client_secret_file: '{folder}/of-secret/secret'
    refresh_file: '{folder}/of-refresh/refresh'
callers: [{id: reports, match: {listener: app}, scopes: [metrika:read], tokens: [analytics]}]
quota:
  store: {redis: 'rediss://gate@localhost', ca_file: '{folder}/of-store/ca.pem', password_file: '{folder}/of-store-password/password'}
state_dir: '{folder}/of-state'
keys_file: '{folder}/of-keys/keys'
service_accounts:
  {jwks_url: 'https://localhost/keys', connect_to: '127.0.0.1:8446', ca_file: '{folder}/of-server/ca.pem', bearer_file: '{folder}/of-bearer/token', issuer: a, audience: b}
";

/// The compiler reports a new purpose here; it gets a number, and so is looked for below.
fn number(purpose: Purpose) -> usize {
    match purpose {
        Purpose::Configuration => 0,
        Purpose::Upstream => 1,
        Purpose::Identity => 2,
        Purpose::Token(_) => 3,
        Purpose::Listener(_) => 4,
        Purpose::State => 5,
        Purpose::Store => 6,
        Purpose::StorePassword => 7,
        Purpose::Proxy => 8,
        Purpose::OAuth => 9,
        Purpose::ClientSecret(_) => 10,
        Purpose::RefreshToken(_) => 11,
        Purpose::Certificate(_) => 12,
        Purpose::CertificateKey(_) => 13,
        Purpose::Authority(_) => 14,
        Purpose::AuthorityKey(_) => 15,
        Purpose::Renewed(_) => 16,
        Purpose::ClientAuthority(_) => 17,
        Purpose::Keys => 18,
        Purpose::KeySet => 19,
        Purpose::KeyServerToken => 20,
        Purpose::Record(_) => 21,
    }
}
const NUMBERS: std::ops::Range<usize> = 0..22;

fn plan(upstream: &Upstream) -> Plan {
    let plan = Gate::plan(upstream, EVERYTHING);
    let at = |name: &str| plan.folder().join(name);
    let folders = [
        "listener",
        "upstream",
        "clients",
        "server",
        "bearer",
        "identity",
        "proxy",
        "oauth",
        "token",
        "secret",
        "refresh",
        "state",
        "store",
        "store-password",
        "keys",
    ];
    for folder in folders {
        std::fs::create_dir(at(&format!("of-{folder}"))).unwrap();
    }
    std::fs::write(at("of-oauth/ca.pem"), upstream.ca_pem()).unwrap();
    write_private(&at("of-secret/secret"), "a-secret");
    write_private(&at("of-refresh/refresh"), "1:a:b");
    std::fs::write(at("of-upstream/ca.pem"), upstream.ca_pem()).unwrap();
    std::fs::write(at("of-identity/ca.pem"), upstream.ca_pem()).unwrap();
    std::fs::write(at("of-clients/ca.pem"), upstream.ca_pem()).unwrap();
    std::fs::write(at("of-server/ca.pem"), upstream.ca_pem()).unwrap();
    write_private(&at("of-bearer/token"), "a-bearer");
    std::fs::write(at("of-store/ca.pem"), upstream.ca_pem()).unwrap();
    write_private(&at("of-token/analytics"), READ_TOKEN);
    std::fs::write(at("of-token/analytics.json"), "{}").unwrap();
    write_private(&at("of-store-password/password"), "a-password");
    write_private(&at("of-proxy/auth"), "user:password");
    std::fs::write(at("of-keys/keys"), "# no key yet\n").unwrap();
    plan
}

fn table(plan: &Plan) -> External {
    let file = plan.file();
    let config = Config::parse(&std::fs::read_to_string(&file).unwrap(), &file).unwrap();
    let external = External::of(&config, Some(&file));
    let of_files = external.files.iter().map(|file| file.purpose);
    let of_ports = external.ports.iter().map(|port| port.purpose);
    let numbers: BTreeSet<_> = of_files.chain(of_ports).map(number).collect();
    assert_eq!(numbers, NUMBERS.collect(), "each purpose has a file or a port here");
    external
}

fn set(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

/// Makes the file, or the folder where it is created, writable by everyone during `act`.
fn while_everyone_can_write(file: &ExternalFile, act: impl FnOnce()) {
    let changed = match file.purpose.read() {
        Read::Never | Read::Before => file.path.parent().unwrap(),
        Read::First | Read::WithIt | Read::Alone | Read::ByCommands => &file.path,
    };
    let before = changed.metadata().unwrap().permissions().mode();
    set(changed, before | 0o066);
    act();
    set(changed, before);
}

#[test]
fn every_file_and_port_is_watched_and_within_the_sandbox() {
    let upstream = Upstream::plain();
    let plan = plan(&upstream);
    let external = table(&plan);
    let (watched, needs) = (external.watched(), Needs::of(&external));
    for file in &external.files {
        let folder = file.path.parent().unwrap().canonicalize().unwrap();
        let seen = [&watched, &needs.read, &needs.remove, &needs.write].map(|folders| folders.contains(&folder));
        // Files of different purposes can be in one folder.
        let together = external.files.iter().filter(|other| other.path.parent() == file.path.parent());
        let expected = together.fold([false; 4], |expected, other| {
            let more = match other.purpose.read() {
                Read::First | Read::WithIt | Read::Alone => [true, true, false, false],
                Read::Never => [false, false, true, false],
                Read::Before => [false, false, false, true],
                // A process that serves has no access to what only commands read.
                Read::ByCommands => [false; 4],
            };
            [0, 1, 2, 3].map(|at| expected[at] || more[at])
        });
        assert_eq!(seen, expected, "{}", file.purpose);
    }
    assert_eq!(
        external.ports.iter().map(|port| port.port).collect::<Vec<_>>(),
        [8443, 6379, 8446],
        "the proxy leads to Metrica and Yandex ID"
    );
    assert!(external.ports.iter().all(|port| needs.connect.contains(&port.port)));
}

#[test]
fn check_names_every_file_that_others_can_change() {
    let upstream = Upstream::plain();
    let plan = plan(&upstream);
    let check = || outcome(program().args(["check", "--config"]).arg(plan.file()));
    let external = table(&plan);
    let (code, out, error) = check();
    assert_eq!(code, 0, "{out}{error}");
    for file in &external.files {
        while_everyone_can_write(file, || {
            let (code, out, error) = check();
            let said = format!("{out}{error}");
            // A file that is read with the configuration is a mistake of the configuration.
            let with_it = file.purpose.read() == Read::WithIt || matches!(file.purpose, Purpose::Renewed(_));
            assert_eq!(code, if with_it { 78 } else { 77 }, "{}: {said}", file.purpose);
            assert!(said.contains(&file.purpose.key()), "{}: {said}", file.purpose);
            assert!(said.contains("chmod") && said.contains("mode "), "{}: {said}", file.purpose);
        });
    }
}

#[test]
fn readiness_names_every_file_that_cannot_be_used_and_why() {
    let upstream = Upstream::plain();
    let plan = plan(&upstream);
    let external = table(&plan);
    let gate = plan.start();
    let lines = |purpose: Purpose| {
        let page = gate.admin("/readyz?verbose").text();
        let about = page
            .lines()
            .filter(|line| line.split_once("] ").is_some_and(|(_, said)| said.starts_with(&format!("{purpose}: "))));
        about.map(str::to_owned).collect::<Vec<_>>()
    };
    for file in external.files.iter().filter(|file| file.purpose.read() != Read::ByCommands) {
        let purpose = file.purpose;
        let path = file.path.display().to_string();
        assert!(lines(purpose).is_empty(), "{:?}", lines(purpose));
        if purpose.read() == Read::Never {
            // An existing file in its place is left alone, so that it cannot be created again.
            std::fs::write(file.path.with_extension("other"), "").unwrap();
            std::fs::rename(file.path.with_extension("other"), &file.path).unwrap();
        } else if matches!(purpose, Purpose::State | Purpose::Renewed(_)) {
            set(file.path.parent().unwrap(), 0o777);
        } else {
            set(&file.path, 0o666);
        }
        let is_named = || lines(purpose).iter().any(|line| line.starts_with("[!]") && line.contains(&path));
        let is_why = || {
            gate.admin("/readyz?verbose").text().contains("the configuration was rejected and a previous one is in use")
        };
        until(&format!("{purpose} is named"), || is_named() || purpose == Purpose::Configuration && is_why());
        assert_eq!(gate.admin("/readyz").status, 200, "{purpose}: what was read before is in use");
        if let Purpose::Listener(name) = purpose {
            assert_eq!(gate.admin(&format!("/readyz?listener={name}")).status, 503, "new callers cannot connect there");
            std::fs::remove_file(&file.path).unwrap();
        } else if matches!(purpose, Purpose::State | Purpose::Renewed(_)) {
            set(file.path.parent().unwrap(), 0o700);
        } else {
            set(&file.path, 0o600);
        }
        // Nobody listens at the port of the server of keys.
        let is_other = |line: &str| line.starts_with("[!]") && !line.starts_with("[!] request for the keys");
        let is_well = || !gate.admin("/readyz?verbose").text().lines().any(is_other);
        until(&format!("{purpose} is right again"), is_well);
    }
    assert_eq!(gate.admin("/readyz?listener=local").status, 200);
}

//! Certificates of listeners: their files, their mistakes, their reload, and the authority that issues them.

use std::io::Write;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use crate::cli::commands::outcome;
use crate::harness::files::write_private;
use crate::harness::gate::{PATIENCE, program, until};
use crate::harness::over::{authority_at, client};
use crate::harness::{Caller, Gate, Upstream};
use metrika_gate::config::certificates::{Authority, LEAF_DAYS, Leaf, NewKey};
use metrika_gate::files::writing::lock_folder;

const TLS: &str = "
listeners: [{name: app, address: '127.0.0.1:0', tls: {authority: '{folder}/ca'}}]
callers: [{id: reports, match: {listener: app}, scopes: [metrika:read], tokens: [analytics]}]
";

const GET: &str = "GET /management/v1/counters HTTP/1.1\r\nHost: localhost\r\n\r\n";
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

fn mode(path: &Path) -> u32 {
    path.metadata().unwrap().permissions().mode() & 0o777
}

fn ca(arguments: &[&str]) -> (i32, String, String) {
    outcome(program().arg("ca").args(arguments))
}

/// The certificate that the listener presents.
fn served(gate: &Gate) -> Vec<u8> {
    let mut session = client(&gate.file("ca"), &[], "localhost", TcpStream::connect(gate.place("app")).unwrap());
    session.write_all(b"").unwrap();
    session.conn.complete_io(&mut session.sock).unwrap();
    session.conn.peer_certificates().unwrap()[0].to_vec()
}

#[test]
fn an_authority_is_created_in_an_empty_folder_only() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path().join("ca");
    let named = at.to_str().unwrap();
    let (code, out, error) = ca(&["init", named, "--name", "Gate.Example", "--address", "10.1.2.3"]);
    assert_eq!(code, 0, "{error}");
    assert!(out.contains("7 names") && out.contains(&format!("tls: {{authority: {named}}}")), "{out}");
    assert_eq!(
        ["ca.pem", "ca.key", "leaf.pem", "leaf.key"].map(|name| mode(&at.join(name))),
        [0o644, 0o600, 0o644, 0o600]
    );
    let before = std::fs::read(at.join("ca.key")).unwrap();
    let (code, _, error) = ca(&["init", named]);
    assert_eq!(code, 1);
    assert!(error.contains("is not empty"), "{error}");
    assert_eq!(std::fs::read(at.join("ca.key")).unwrap(), before);
    let empty = folder.path().join("empty");
    std::fs::create_dir(&empty).unwrap();
    let (code, out, _) = ca(&["init", empty.to_str().unwrap(), "--name", "gate.shop.ru,shop.ru"]);
    assert!(code == 0 && out.contains("signs every name below shop.ru, too"), "{out}");
    for (argument, value) in [
        ("--name", "10.1.2.3"),
        ("--name", "com"),
        ("--name", "co.uk"),
        ("--name", "a_b"),
        ("--name", "a:443"),
        ("--name", ""),
        ("--address", "gate"),
    ] {
        assert_eq!(ca(&["init", named, argument, value]).0, 2, "{argument} {value}");
    }
}

/// Another implementation than the gate's accepts the certificates, and enforces the constraints.
#[test]
fn openssl_accepts_the_certificates_and_no_others() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    let named = at("ca");
    assert_eq!(ca(&["init", &named, "--name", "gate.example", "--address", "10.1.2.3"]).0, 0);
    let openssl = |arguments: &[&str]| outcome(std::process::Command::new("openssl").args(arguments));
    let verify = |leaf: &str, more: &[&str]| {
        let authority = at("ca/ca.pem");
        let verify = ["verify", "-x509_strict", "-purpose", "sslserver", "-CAfile", &authority];
        let arguments = [&verify[..], more, &[leaf]].concat();
        openssl(&arguments)
    };
    for more in [
        &["-verify_hostname", "api-metrika.yandex.net"],
        &["-verify_hostname", "gate.example"],
        &["-verify_ip", "10.1.2.3"],
    ] {
        let (code, out, error) = verify(&at("ca/leaf.pem"), more);
        assert_eq!(code, 0, "{more:?} {out}{error}");
    }
    assert_ne!(verify(&at("ca/leaf.pem"), &["-verify_hostname", "yandex.net"]).0, 0);
    // A thief of the key signs names that the authority does not permit.
    for (number, names) in [
        "DNS:yandex.ru",
        "IP:10.1.2.4",
        "email:root@yandex.ru",
        "URI:https://yandex.ru/",
        "DNS:localhost,DNS:mail.yandex.ru",
    ]
    .into_iter()
    .enumerate()
    {
        let (key, request, leaf) = (at("thief.key"), at("thief.csr"), at(&format!("thief{number}.pem")));
        let extension = format!("subjectAltName={names}");
        let made = openssl(&[
            "req",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-keyout",
            &key,
            "-subj",
            "/CN=x",
            "-addext",
            &extension,
            "-out",
            &request,
        ]);
        assert_eq!(made.0, 0, "{made:?}");
        let signed = openssl(&[
            "x509",
            "-req",
            "-in",
            &request,
            "-CA",
            &at("ca/ca.pem"),
            "-CAkey",
            &at("ca/ca.key"),
            "-copy_extensions",
            "copy",
            "-days",
            "1",
            "-out",
            &leaf,
        ]);
        assert_eq!(signed.0, 0, "{signed:?}");
        let (code, out, error) = verify(&leaf, &[]);
        assert!(code != 0 && format!("{out}{error}").contains("permitted subtree violation"), "{names}: {out}{error}");
    }
}

#[test]
fn an_issued_certificate_replaces_the_old_one_and_keeps_its_permissions() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path().join("ca");
    let named = at.to_str().unwrap();
    assert_eq!(ca(&["init", named]).0, 0);
    let read = |name: &str| std::fs::read_to_string(at.join(name)).unwrap();
    let before = [read("leaf.pem"), read("leaf.key"), read("ca.pem"), read("ca.key")];
    std::fs::set_permissions(at.join("leaf.key"), std::fs::Permissions::from_mode(0o640)).unwrap();
    let (code, out, error) = ca(&["issue", named, "--days", "10"]);
    assert_eq!(code, 0, "{error}");
    assert!(out.contains("valid for 10 days"), "{out}");
    assert!(read("leaf.pem") != before[0] && read("leaf.key") != before[1], "a new key");
    assert_eq!([read("ca.pem"), read("ca.key")], before[2..]);
    assert_eq!((mode(&at.join("leaf.key")), mode(&at.join("leaf.pem"))), (0o640, 0o644));
    std::fs::set_permissions(at.join("ca.key"), std::fs::Permissions::from_mode(0o644)).unwrap();
    let (code, _, error) = ca(&["issue", named]);
    assert!(code == 77 && error.contains("can be read by others") && error.contains("chmod 0600"), "{code} {error}");
}

#[test]
fn a_bundle_is_the_authority_alone_or_with_the_roots_of_the_system() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path().join("ca");
    let named = at.to_str().unwrap();
    assert_eq!(ca(&["init", named]).0, 0);
    let own = std::fs::read_to_string(at.join("ca.pem")).unwrap();
    assert_eq!(ca(&["bundle", named]), (0, own.clone(), String::new()));
    let (code, out, error) = ca(&["bundle", named, "--with-system"]);
    if code == 1 {
        assert!(error.contains("no roots"), "{error}");
        return;
    }
    assert!(out.starts_with(&own) && out.contains("later changes of the system"), "{error}");
    assert!(out.matches("BEGIN CERTIFICATE").count() > 10 && error.contains("repeat the command"), "{error}");
}

#[test]
fn mistakes_of_tls_have_a_place_and_a_remedy() {
    let upstream = Upstream::plain();
    let plan = Gate::plan(&upstream, TLS);
    let folder = plan.folder().to_owned();
    let whole = std::fs::read_to_string(plan.file()).unwrap();
    let now = SystemTime::now();
    authority_at(&folder.join("other"), now);
    std::fs::copy(folder.join("other/leaf.key"), folder.join("open.key")).unwrap();
    std::fs::set_permissions(folder.join("open.key"), std::fs::Permissions::from_mode(0o644)).unwrap();
    std::fs::write(folder.join("empty.pem"), "").unwrap();
    write_private(&folder.join("none.key"), "");
    authority_at(&folder.join("open"), now);
    std::fs::set_permissions(folder.join("open/ca.key"), std::fs::Permissions::from_mode(0o640 | 0o004)).unwrap();
    let at = folder.display();
    for (tls, expected) in [
        (
            "tls: {authority: '@/ca', certificate: '@/ca/leaf.pem', key: '@/ca/leaf.key'}",
            "has both 'authority' and a certificate of its own; remove one",
        ),
        ("tls: {certificate: '@/ca/leaf.pem'}", "has only one of 'certificate' and 'key'; add the other"),
        ("tls: {key: '@/ca/leaf.key'}", "has only one of 'certificate' and 'key'; add the other"),
        ("tls: {}", "metrika-gate ca init"),
        (
            "tls: {certificate: '@/ca/leaf.pem', key: '@/other/leaf.key'}",
            "the key does not fit the certificate; replace both files together (`metrika-gate ca issue`",
        ),
        (
            "tls: {certificate: '@/ca/leaf.pem', key: '@/open.key'}",
            "can be read by others or changed by its group; chmod 0600",
        ),
        ("tls: {certificate: '@/empty.pem', key: '@/ca/leaf.key'}", "a file with certificates in PEM form"),
        ("tls: {certificate: '@/ca/leaf.pem', key: '@/none.key'}", "an unencrypted private key"),
        ("tls: {authority: '@/none'}", "none/leaf.pem"),
        ("tls: {authority: '@/open', renew: true}", "open/ca.key: it has mode 0644 and can be read by others"),
        ("tls: {certificate: '@/ca/leaf.pem', key: '@/ca/leaf.key', renew: true}", "needs 'authority'"),
        ("tls: {authority: '@/ca', sni: x}", "unknown key"),
        ("proxy: true", "add tls: {authority: DIR}"),
    ] {
        let tls = tls.replace('@', &at.to_string());
        let text = whole.replace(&format!("tls: {{authority: '{at}/ca'}}"), &tls);
        assert_ne!(text, whole);
        let file = folder.join("wrong.yaml");
        std::fs::write(&file, text).unwrap();
        let (code, out, error) = outcome(program().args(["check", "--config"]).arg(&file));
        assert_eq!(code, 78, "{tls}: {out}{error}");
        let line = out.lines().find(|line| line.contains(expected)).unwrap_or_else(|| panic!("{tls}: {out}"));
        assert!(line.contains("wrong.yaml:2:") && line.contains("listeners[0]"), "{line}");
    }
    let unix = "
listeners: [{name: app, unix: {path: '@/s'}, proxy: true, tls: {authority: '@/ca'}}]
tokens: {analytics: {file: '@/analytics', scopes: [metrika:read]}}
callers: [{id: reports, match: {listener: app}, scopes: [metrika:read], tokens: [analytics]}]
";
    std::fs::write(folder.join("unix.yaml"), unix.replace('@', &at.to_string())).unwrap();
    let (code, out, _) = outcome(program().args(["check", "--config"]).arg(folder.join("unix.yaml")));
    assert!(code == 78 && out.contains("needs 'address'"), "{out}");
}

#[test]
fn a_new_certificate_is_used_without_a_restart_and_a_wrong_one_is_not() {
    let upstream = Upstream::plain();
    let gate = Gate::start(&upstream, TLS);
    let first = served(&gate);
    let mut open =
        Caller::on(client(&gate.file("ca"), &[], "localhost", TcpStream::connect(gate.place("app")).unwrap()));
    open.send(GET);
    assert_eq!(open.answer().summary(), "200");
    let issued = ca(&["issue", gate.file("ca").to_str().unwrap()]);
    assert_eq!(issued.0, 0, "{issued:?}");
    until("the new one is served", || served(&gate) != first);
    let second = served(&gate);
    open.send(GET);
    assert_eq!(open.answer().summary(), "200", "an open connection continues");
    // Half a replacement: the certificate of another key.
    let other = tempfile::tempdir().unwrap();
    authority_at(other.path(), SystemTime::now());
    let right = std::fs::read(gate.file("ca/leaf.pem")).unwrap();
    std::fs::copy(other.path().join("leaf.pem"), gate.file("ca/leaf.pem")).unwrap();
    gate.until_log(&["the configuration was not reloaded", "the key does not fit the certificate"]);
    assert_eq!(served(&gate), second);
    assert!(gate.admin("/readyz?verbose").text().contains("the key does not fit"));
    std::fs::write(gate.file("ca/leaf.pem"), right).unwrap();
    until("it is right again", || !gate.admin("/readyz?verbose").text().contains("[!]"));
    assert_eq!(served(&gate), second);
    let end = gate.metric(&["certificate_expiry_timestamp_seconds", "app"]);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs_f64();
    assert!((89.0..91.0).contains(&((end - now) / DAY.as_secs_f64())), "{end}");
}

#[test]
fn a_running_gate_renews_its_certificate_and_keeps_the_key() {
    let upstream = Upstream::plain();
    let renewing = TLS.replace("'{folder}/ca'", "'{folder}/ca', renew: true");
    let now = SystemTime::now();
    for (issued, cause) in [
        (now - 70 * DAY, "it expires soon"),
        (now - 100 * DAY, "the certificate expired at"),
        (now + 10 * DAY, "the certificate is not valid before"),
    ] {
        let plan = Gate::plan(&upstream, &renewing);
        let folder = plan.folder().join("ca");
        issued_at(&folder, issued);
        let key = std::fs::read(folder.join("leaf.key")).unwrap();
        let before = std::fs::read(folder.join("leaf.pem")).unwrap();
        let gate = plan.start();
        gate.until_log(&["the certificate was renewed", cause]);
        let end = || gate.metric(&["certificate_expiry_timestamp_seconds", "app"]);
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs_f64();
        until("the new one is in use", || {
            (now + (80 * DAY).as_secs_f64()..now + (91 * DAY).as_secs_f64()).contains(&end())
        });
        let served = served(&gate);
        assert_ne!(std::fs::read(folder.join("leaf.pem")).unwrap(), before);
        assert_eq!(std::fs::read(folder.join("leaf.key")).unwrap(), key);
        std::thread::sleep(Duration::from_secs(2));
        assert_eq!(self::served(&gate), served, "once");
        let renewed = gate.log().iter().filter(|line| line.contains("the certificate was renewed")).count();
        assert_eq!(renewed, 1);
    }
}

#[test]
fn a_certificate_that_nobody_renews_is_reported_once() {
    let upstream = Upstream::plain();
    let plan = Gate::plan(&upstream, TLS);
    let folder = plan.folder().join("ca");
    std::fs::remove_dir_all(&folder).unwrap();
    authority_at(&folder, SystemTime::now() - 80 * DAY);
    let gate = plan.start();
    let line = gate.until_log(&["the certificate needs attention", "it expires soon"]);
    assert!(line.contains("metrika-gate ca issue") && line.contains("\"listener\":\"app\""), "{line}");
    gate.signal("HUP");
    gate.until_log(&["configuration reloaded"]);
    let said = gate.log().iter().filter(|line| line.contains("needs attention")).count();
    assert_eq!(said, 1);
    assert!(TcpStream::connect(gate.place("app")).unwrap().set_read_timeout(Some(PATIENCE)).is_ok());
}

/// Clients report such a certificate clearly; a gate that does not start, or that takes no other change, is worse.
#[test]
fn a_certificate_that_is_not_valid_now_is_served_and_reported() {
    let upstream = Upstream::plain();
    for (early, cause) in [(true, "is not valid before"), (false, "the certificate expired at")] {
        let plan = Gate::plan(&upstream, TLS);
        let folder = plan.folder().join("ca");
        std::fs::remove_dir_all(&folder).unwrap();
        let now = SystemTime::now();
        authority_at(&folder, if early { now + 10 * DAY } else { now - 100 * DAY });
        let (code, out, error) = outcome(program().args(["check", "--config"]).arg(plan.file()));
        let line = out.lines().find(|line| line.contains(cause)).unwrap_or_else(|| panic!("{out}{error}"));
        assert!(code == 0 && line.starts_with("warning: ") && line.contains("metrika-gate ca issue"), "{code} {line}");
        let gate = plan.start();
        let line = gate.until_log(&["the certificate needs attention", cause]);
        assert!(line.contains("\"ERROR\"") && line.contains("metrika-gate ca issue"), "{line}");
        let end = gate.metric(&["certificate_expiry_timestamp_seconds", "app"]);
        assert_eq!(end < now.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs_f64(), !early);
        gate.replace_config(&gate.config().replace("id: reports", "id: renamed"));
        gate.until_log(&["configuration reloaded"]);
        assert!(gate.admin("/readyz?verbose").text().contains("ok"));
        assert_eq!(ca(&["issue", folder.to_str().unwrap()]).0, 0);
        until("the new one is in use", || gate.metric(&["certificate_expiry_timestamp_seconds", "app"]) != end);
        served(&gate);
    }
}

/// Another certificate for the key of the gate, issued at `at`, takes the place of the one in use.
fn issued_at(folder: &Path, at: SystemTime) {
    let read = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap();
    let authority = Authority::read(read("ca.pem").as_bytes(), &read("ca.key"), SystemTime::now()).unwrap();
    let leaf = authority.issue(&NewKey::read(&read("leaf.key")).unwrap(), LEAF_DAYS, at).unwrap();
    std::fs::write(folder.join("leaf.next"), leaf).unwrap();
    std::fs::rename(folder.join("leaf.next"), folder.join("leaf.pem")).unwrap();
}

#[test]
fn a_reload_keeps_a_valid_certificate_in_place_of_one_that_is_not_valid_now() {
    let upstream = Upstream::plain();
    for (early, said) in [(true, "is not valid before"), (false, "the certificate expired at")] {
        let gate = Gate::start(&upstream, TLS);
        let (folder, first, now) = (gate.file("ca"), served(&gate), SystemTime::now());
        issued_at(&folder, if early { now + 10 * DAY } else { now - 100 * DAY });
        let line = gate.until_log(&[
            "the certificate needs attention",
            "the previous one, which is valid, stays in use",
            said,
        ]);
        assert!(line.contains("\"ERROR\"") && line.contains("metrika-gate ca issue"), "{line}");
        assert_eq!(served(&gate), first);
        let reported = || {
            gate.admin("/readyz?verbose").text().contains("[!] certificate of listener app: clients would refuse it")
        };
        until("readiness says so", reported);
        let last_succeeded = || gate.metric(&["config_last_reload_successful"]) > 0.5;
        assert!(!last_succeeded());
        // Another change of the configuration is applied, and changes nothing about it.
        gate.replace_config(&gate.config().replace("id: reports", "id: renamed"));
        gate.until_log(&["configuration reloaded"]);
        assert_eq!(served(&gate), first);
        assert!(reported() && !last_succeeded());
        gate.signal("HUP");
        until("it is read again", || {
            gate.log().iter().filter(|line| line.contains("configuration reloaded")).count() > 1
        });
        assert_eq!(served(&gate), first);
        let lines = gate.log().iter().filter(|line| line.contains("needs attention")).count();
        assert_eq!(lines, 1, "once");
        assert_eq!(ca(&["issue", folder.to_str().unwrap()]).0, 0);
        until("the new one is in use", || served(&gate) != first);
        until("all is well", || last_succeeded() && !gate.admin("/readyz?verbose").text().contains("[!]"));
    }
}

/// Its validity begins, or that of the one in use ends.
#[test]
fn a_withheld_certificate_is_used_when_its_time_comes() {
    let upstream = Upstream::plain();
    for begins in [true, false] {
        let plan = Gate::plan(&upstream, TLS);
        let folder = plan.folder().join("ca");
        let (now, hour, soon) = (SystemTime::now(), DAY / 24, Duration::from_secs(8));
        if !begins {
            issued_at(&folder, now - 90 * DAY + soon);
        }
        let gate = plan.start();
        let end = || gate.metric(&["certificate_expiry_timestamp_seconds", "app"]);
        let first = end();
        // Certificates begin an hour early.
        issued_at(&folder, if begins { now + hour + soon } else { now + 10 * DAY });
        gate.until_log(&["the certificate needs attention", "stays in use"]);
        assert!((end() - first).abs() < 0.5);
        gate.until_log(&["the certificate of the file is in use now"]);
        until("its end is published", || end() > first + 0.5);
        if begins {
            served(&gate);
        }
        until("all is well", || !gate.admin("/readyz?verbose").text().contains("[!]"));
    }
}

#[test]
fn a_key_of_the_authority_that_the_gate_does_not_need_is_reported() {
    let upstream = Upstream::plain();
    let plan = Gate::plan(&upstream, TLS);
    let file = plan.file();
    let check = || outcome(program().args(["check", "--config"]).arg(&file)).1;
    let key = plan.folder().join("ca/ca.key");
    let said = check();
    let line = said.lines().find(|line| line.contains("ca/ca.key")).unwrap_or_else(|| panic!("{said}"));
    assert!(line.starts_with("warning: ") && line.contains("set renew: true"), "{line}");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replace("/ca'}", "/ca', renew: true}")).unwrap();
    let said = check();
    assert!(said.contains("is valid") && !said.contains("ca.key"), "the gate needs it: {said}");
    std::fs::write(&file, text).unwrap();
    std::fs::rename(&key, plan.folder().join("elsewhere.key")).unwrap();
    assert!(!check().contains("ca.key"), "it is not beside the certificate");
}

/// A key without its certificate: the gate serves the old pair, and `ca issue` makes a new one.
#[test]
fn half_an_issued_pair_is_never_served_and_the_next_issue_repairs_it() {
    let upstream = Upstream::plain();
    let gate = Gate::start(&upstream, TLS);
    let (folder, first) = (gate.file("ca"), served(&gate));
    let other = tempfile::tempdir().unwrap();
    authority_at(other.path(), SystemTime::now());
    std::fs::copy(other.path().join("leaf.key"), folder.join("leaf.key")).unwrap();
    let line = gate.until_log(&["the configuration was not reloaded", "the key does not fit the certificate"]);
    assert!(line.contains("metrika-gate ca issue"), "{line}");
    assert_eq!(served(&gate), first);
    // A full disk, for example: nothing is replaced.
    let pair = || ["leaf.pem", "leaf.key"].map(|name| std::fs::read(folder.join(name)).unwrap());
    let before = pair();
    std::fs::create_dir(folder.join("leaf.pem.new")).unwrap();
    let (code, _, error) = ca(&["issue", folder.to_str().unwrap()]);
    assert!(code != 0 && error.contains("cannot replace") && error.contains("leaf.pem"), "{error}");
    assert_eq!(pair(), before);
    std::fs::remove_dir(folder.join("leaf.pem.new")).unwrap();
    assert_eq!(ca(&["issue", folder.to_str().unwrap()]).0, 0);
    until("the new pair is served", || served(&gate) != first);
}

/// The state after the end of `ca issue` between its two renames: the new key is in its place, its certificate beside it.
fn interrupt_issue(folder: &Path) {
    let at = |name: &str| folder.join(name);
    std::fs::copy(at("leaf.pem"), at("leaf.before")).unwrap();
    assert_eq!(ca(&["issue", folder.to_str().unwrap()]).0, 0);
    std::fs::copy(at("leaf.pem"), at("leaf.pem.new")).unwrap();
    std::fs::rename(at("leaf.before"), at("leaf.pem")).unwrap();
}

#[test]
fn an_interrupted_issue_is_completed_by_its_readers() {
    let upstream = Upstream::plain();
    for renews in [false, true] {
        let plan =
            Gate::plan(&upstream, &if renews { TLS.replace("/ca'", "/ca', renew: true") } else { TLS.to_owned() });
        let folder = plan.folder().join("ca");
        interrupt_issue(&folder);
        // A gate starts with it, and does not serve the old certificate with the new key.
        let (code, out, error) = outcome(program().args(["check", "--config"]).arg(plan.file()));
        assert_eq!(
            (code, out.contains("which an interrupted `metrika-gate ca issue` left")),
            (0, !renews),
            "{out}{error}"
        );
        let gate = plan.start();
        if renews {
            gate.until_log(&["the certificate was renewed", "the replacement of the certificate was interrupted"]);
        } else {
            gate.until_log(&["the certificate needs attention", "run the command again"]);
            let first = served(&gate);
            // A running one takes it.
            interrupt_issue(&folder);
            until("the new pair is served", || served(&gate) != first);
            let second = served(&gate);
            assert_eq!(ca(&["issue", folder.to_str().unwrap()]).0, 0);
            until("a whole pair is served", || served(&gate) != second);
        }
        until("the files fit", || {
            !outcome(program().args(["check", "--config"]).arg(gate.file("gate.yaml"))).1.contains("interrupted")
        });
        assert!(!folder.join("leaf.pem.new").exists());
        // One of another key is not taken.
        let other = tempfile::tempdir().unwrap();
        authority_at(other.path(), SystemTime::now());
        let before = served(&gate);
        std::fs::copy(other.path().join("leaf.pem"), folder.join("leaf.pem.new")).unwrap();
        interrupt_key(&folder);
        gate.until_log(&["the configuration was not reloaded", "the key does not fit the certificate"]);
        assert_eq!(served(&gate), before);
    }
}

/// Replaces the key alone.
fn interrupt_key(folder: &Path) {
    let other = tempfile::tempdir().unwrap();
    authority_at(other.path(), SystemTime::now());
    std::fs::copy(other.path().join("leaf.key"), folder.join("leaf.key")).unwrap();
}

#[test]
fn an_issue_that_fails_after_its_first_rename_says_what_holds() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join("ca").join(name);
    let named = at("").display().to_string();
    assert_eq!(ca(&["init", &named]).0, 0);
    let before = std::fs::read(at("leaf.key")).unwrap();
    std::fs::remove_file(at("leaf.pem")).unwrap();
    std::fs::create_dir(at("leaf.pem")).unwrap();
    let (code, _, error) = ca(&["issue", &named]);
    assert!(code == 1 && error.contains("leaf.pem.new") && error.contains("run the command again"), "{code} {error}");
    assert_ne!(std::fs::read(at("leaf.key")).unwrap(), before);
    let read = |name: &str| std::fs::read(at(name)).unwrap();
    assert!(Leaf::read(&read("leaf.pem.new"), &read("leaf.key")).is_ok());
    std::fs::remove_dir(at("leaf.pem")).unwrap();
    assert_eq!(ca(&["issue", &named]).0, 0);
    assert!(Leaf::read(&read("leaf.pem"), &read("leaf.key")).is_ok());
}

#[test]
fn one_process_issues_at_a_time() {
    let upstream = Upstream::plain();
    let plan = Gate::plan(&upstream, &TLS.replace("/ca'", "/ca', renew: true"));
    let folder = plan.folder().join("ca");
    issued_at(&folder, SystemTime::now() - 70 * DAY);
    let before = std::fs::read(folder.join("leaf.pem")).unwrap();
    let lock = lock_folder(&folder).unwrap();
    let (code, _, error) = ca(&["issue", folder.to_str().unwrap()]);
    assert!(code == 75 && error.contains("renew: true; run the command again"), "{code} {error}");
    let gate = plan.start();
    // More than one look.
    std::thread::sleep(Duration::from_secs(11));
    assert!(!gate.log().iter().any(|line| line.contains("renewed")));
    assert_eq!(std::fs::read(folder.join("leaf.pem")).unwrap(), before);
    drop(lock);
    gate.until_log(&["the certificate was renewed"]);
    assert_eq!(ca(&["issue", folder.to_str().unwrap()]).0, 0, "the gate holds the lock no longer than it writes");
}

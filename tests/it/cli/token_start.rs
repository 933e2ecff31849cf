//! From an empty folder to the first report, and the layouts of other programs that write tokens.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::time::{Duration, Instant};

use super::token::{Dialog, Life, RENEWED};
use crate::harness::Gate;
use crate::harness::files::write_private;
use crate::harness::gate::{program, until};

/// The whole way, by each flow, with the configuration that `init` writes.
#[test]
fn the_first_report_comes_after_init_login_check_and_run() {
    for flow in ["device", "code", "implicit"] {
        let since = Instant::now();
        let life = Life::new(RENEWED);
        let (at, place) = (life.folder.path().display().to_string(), life.fake.address());
        let there = format!("ca_file: '{at}/ca.pem', connect_to: '{place}'");
        let file = life.file("first.yaml");
        let init = program().args(["init", "--out"]).arg(&file).output().unwrap();
        assert!(init.status.success(), "{init:?}");
        std::fs::create_dir(life.file("tokens")).unwrap();
        let written = std::fs::read_to_string(&file).unwrap();
        let edited = written
            .replace("127.0.0.1:8080", "127.0.0.1:0")
            .replace("/var/run/secrets/metrika/analytics", &format!("{at}/tokens/analytics"))
            .replace("# owner: shop-metrika", "owner: demo-owner")
            .replace("# client_id:", "client_id:");
        let edited = format!(
            "{edited}\nadmin: {{address: '127.0.0.1:0'}}\nupstream: {{{there}}}\noauth: {{{there}}}\n\
             identity: {{url: 'https://login.yandex.ru/info', {there}}}\n"
        );
        std::fs::write(&file, &edited).unwrap();
        let mut login = program();
        login.args(["token", "login", "analytics", "--flow", flow, "--config"]).arg(&file);
        login.arg("--client-secret-file").arg(life.file("secret"));
        let mut dialog = Dialog::start(login);
        let shown = dialog.until("  ").trim().to_owned();
        let end = if flow == "device" {
            life.enter(&shown, "demo-owner", "allow");
            dialog.end("")
        } else {
            let result = life.click(&shown, "demo-owner", "allow");
            dialog.end(&format!("{result}\n"))
        };
        assert_eq!(end.code, 0, "{flow}: {end:?}");
        let check = program().args(["check", "--config"]).arg(&file).output().unwrap();
        assert!(check.status.success(), "{check:?}");
        let gate = Gate::plan_for(&place.to_string(), life.fake.ca_pem(), &format!("\n{edited}")).start();
        let report = gate.get("app", "/stat/v1/data?ids=12345678&metrics=ym:s:visits");
        assert!(report.status == 200 && report.text().contains("\"totals\""), "{flow}: {}", report.text());
        assert!(since.elapsed() < Duration::from_secs(60), "{flow} took {:?}", since.elapsed());
    }
}

/// Writes a token as a volume of Kubernetes: links into a folder that `..data` names, which is switched at once.
fn volume(folder: &Path, name: &str, version: u32, secret: &str, mode: u32) {
    let own = folder.join(format!("..{version}"));
    std::fs::create_dir_all(&own).unwrap();
    write_private(&own.join(name), secret);
    std::fs::set_permissions(own.join(name), std::fs::Permissions::from_mode(mode)).unwrap();
    symlink(format!("..{version}"), folder.join("..data_tmp")).unwrap();
    std::fs::rename(folder.join("..data_tmp"), folder.join("..data")).unwrap();
    if !folder.join(name).is_symlink() {
        symlink(format!("..data/{name}"), folder.join(name)).unwrap();
    }
}

/// Writes a token beside its place and renames it.
fn renamed(folder: &Path, name: &str, secret: &str, mode: u32) {
    let beside = folder.join(format!(".{name}.tmp"));
    write_private(&beside, secret);
    std::fs::set_permissions(&beside, std::fs::Permissions::from_mode(mode)).unwrap();
    std::fs::rename(&beside, folder.join(name)).unwrap();
}

#[test]
fn a_token_that_another_program_writes_is_used_in_every_layout() {
    let life = Life::new(RENEWED);
    assert_eq!(life.log_in().code, 0);
    let first = life.read("crm");
    life.fake.turn("oauth?rotates=1").unwrap();
    assert_eq!(life.run(&["refresh"], "").code, 0);
    let second = life.read("crm");
    let folder = tempfile::tempdir().unwrap();
    let write = |version: u32, secret: &str| {
        for (name, mode) in [("external_secrets", 0o440), ("secrets_store", 0o440)] {
            std::fs::create_dir_all(folder.path().join(name)).unwrap();
            volume(&folder.path().join(name), "token", version, secret, mode);
        }
        for (name, mode) in [("vault", 0o600), ("sops", 0o600), ("credential", 0o400)] {
            std::fs::create_dir_all(folder.path().join(name)).unwrap();
            renamed(&folder.path().join(name), "token", secret, mode);
        }
    };
    write(1, &first);
    let names = ["external_secrets", "secrets_store", "vault", "sops", "credential"];
    let at = folder.path().display();
    let (mut listeners, mut tokens, mut callers) = (String::new(), String::new(), String::new());
    for name in names {
        listeners += &format!("  - {{name: {name}, address: '127.0.0.1:0'}}\n");
        tokens += &format!("  {name}: {{file: '{at}/{name}/token', scopes: [metrika:read]}}\n");
        callers +=
            &format!("  - {{id: {name}, match: {{listener: {name}}}, scopes: [metrika:read], tokens: [{name}]}}\n");
    }
    let config = format!("\nlisteners:\n{listeners}tokens:\n{tokens}callers:\n{callers}");
    let gate = Gate::plan_for(&life.fake.address().to_string(), life.fake.ca_pem(), &config).start();
    for name in names {
        assert_eq!(gate.get(name, "/management/v1/counters").status, 200, "{name}");
    }
    life.fake.revoke(&first);
    write(2, &second);
    for name in names {
        until(name, || gate.get(name, "/management/v1/counters").status == 200);
    }
}

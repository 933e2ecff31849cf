//! A command that is killed leaves a working token; every error of the OAuth server has its words; no secret is shown.

use std::process::{Command, Stdio};

use fake_metrica::DEMO_CLIENT_SECRET;

use super::token::{Dialog, End, Life, RENEWED};
use crate::secrets::canary::assert_hides;

/// The calls by which a command changes files.
const CALLS: [&str; 4] = ["write", "fsync", "rename", "unlink"];

/// The same command, killed at the beginning of its `nth` such call.
fn killed_at(command: &Command, call: &str, nth: usize) -> Command {
    let mut traced = Command::new("strace");
    traced.args(["-f", "-qq", "-o", "/dev/null", "-e"]).arg(format!("trace={call}"));
    traced.arg("-e").arg(format!("inject={call}:signal=KILL:when={nth}")).arg(command.get_program());
    traced.args(command.get_args());
    traced
}

/// Whether this system lets a test trace a process.
fn can_trace() -> bool {
    let traced = Command::new("strace").args(["-qq", "-o", "/dev/null", "true"]).stderr(Stdio::null()).status();
    traced.is_ok_and(|status| status.success())
}

/// Runs `command` killed at every call in turn, until it ends by itself; `recover` follows every kill.
fn kill_everywhere(run: impl Fn(&str, usize) -> End, recover: impl Fn(&End)) -> usize {
    let mut kills = 0;
    for call in CALLS {
        for nth in 1.. {
            let end = run(call, nth);
            recover(&end);
            if end.code >= 0 && end.code != 137 {
                break;
            }
            kills += 1;
        }
    }
    kills
}

#[test]
fn a_renewal_that_is_killed_anywhere_leaves_a_working_token() {
    if !can_trace() {
        return;
    }
    let life = Life::new(RENEWED);
    assert_eq!(life.log_in().code, 0);
    life.fake.turn("oauth?rotates=1").unwrap();
    let run = |call: &str, nth: usize| Dialog::start(killed_at(&life.command(&["refresh"]), call, nth)).end("");
    let kills = kill_everywhere(run, |end| {
        assert!(life.works(), "{end:?}");
        let is_durable = life.file("crm.refresh.pending").exists();
        let again = life.run(&["refresh"], "");
        // Before the pair is durable, a kill loses the response: the access token works, and the refresh token is used.
        let is_lost = !is_durable && again.code == 1 && again.error.contains("is dead");
        assert!(again.code == 0 || is_lost, "{end:?} {again:?}");
        if is_lost {
            assert_eq!(life.log_in().code, 0);
        }
        assert!(life.works() && !life.file("crm.refresh.pending").exists());
    });
    assert!(kills >= 15, "{kills}");
}

#[test]
fn a_login_that_is_killed_anywhere_leaves_a_working_token() {
    if !can_trace() {
        return;
    }
    let life = Life::new(RENEWED);
    assert_eq!(life.log_in().code, 0);
    let run = |call: &str, nth: usize| {
        let mut dialog = Dialog::start(killed_at(&life.command(&["login", "crm", "--flow", "code"]), call, nth));
        let Some(address) = dialog.address() else { return dialog.end("") };
        let result = life.click(&address, "demo-owner", "allow");
        dialog.end(&format!("{result}\n"))
    };
    let kills = kill_everywhere(run, |end| {
        assert!(life.works(), "{end:?}");
        if life.file("crm.refresh.pending").exists() {
            let again = life.run(&["login", "crm"], "");
            assert!(again.code == 0 && again.error.contains("not proven yet"), "{end:?} {again:?}");
            assert_eq!(life.run(&["refresh"], "").code, 0, "{end:?}");
        } else if life.run(&["refresh"], "").code != 0 {
            // The response was lost before it was durable, and with it the refresh token that replaced the old one.
            assert_eq!(life.log_in().code, 0);
        }
        assert!(life.works() && !life.file("crm.refresh.pending").exists());
    });
    assert!(kills >= 15, "{kills}");
}

/// Errors of the OAuth server, with words of the answer and of the remedy for a code, a device and a renewal.
const ERRORS: [(&str, &str, &str); 12] = [
    ("access_denied", "access was denied", "click Allow"),
    ("bad_verification_code", "malformed", "paste the new code once"),
    ("invalid_client", "secret is missing or wrong", "compare client_id and client_secret_file"),
    ("invalid_grant", "", ""),
    ("invalid_request", "does not understand the request", "oauth.url"),
    ("invalid_scope", "lacks a right", "invalidates all its tokens"),
    ("unauthorized_client", "blocked or not yet approved", "state of the application"),
    ("unsupported_grant_type", "does not offer this flow", "--flow"),
    ("unsupported_token_type", "not bound to a device", "data-access"),
    ("Basic auth required", "client's credentials", "oauth.url"),
    ("Malformed Authorization header", "client's credentials", "oauth.url"),
    ("expired_token", "time for entering the code is over", "in time"),
];

#[test]
fn every_error_has_its_words_in_every_flow() {
    let life = Life::new(RENEWED);
    assert_eq!(life.log_in().code, 0);
    let before = life.read("crm");
    let check = |flow: &str, path: &str, name: &str, end: &End| {
        let (words, remedy) = ERRORS.iter().find(|row| row.0 == name).map(|row| (row.1, row.2)).unwrap();
        assert!(
            end.code == 1 && end.error.contains(words) && end.error.contains(remedy),
            "{flow} {path} {name}: {end:?}"
        );
        assert!(end.error.contains(name) && !end.error.contains("set on the control panel"), "{flow} {name}: {end:?}");
    };
    for (name, ..) in ERRORS {
        let fail = |path: &str| life.fake.turn(&format!("oauth_fail?path={path}&error={name}")).unwrap();
        let (dialog, address) = life.ask(&["login", "crm", "--flow", "code"]);
        let result = life.click(&address, "demo-owner", "allow");
        fail("/token");
        check("code", "/token", name, &dialog.end(&format!("{result}\n")));
        fail("/token");
        check("refresh", "/token", name, &life.run(&["refresh"], ""));
        fail("/revoke_token");
        check("revoke", "/revoke_token", name, &life.run(&["revoke", "crm"], ""));
        fail("/device/code");
        check("device", "/device/code", name, &life.run(&["login", "crm"], ""));
        let (dialog, _code) = life.ask(&["login", "crm", "--flow", "device"]);
        fail("/token");
        check("device", "/token", name, &dialog.end(""));
        let (dialog, _address) = life.ask(&["login", "crm", "--flow", "implicit"]);
        let end = dialog.end(&format!("https://oauth.yandex.ru/verification_code#error={}\n", name.replace(' ', "+")));
        assert_eq!(end.code, 1, "{name}: {end:?}");
    }
    assert!(life.read("crm") == before && life.works(), "nothing has changed");
    for name in ["server_error", "temporarily_unavailable", "slow_down"] {
        life.fake.turn(&format!("oauth_fail?path=/token&error={name}")).unwrap();
        let end = life.run(&["refresh"], "");
        assert!(end.code == 75 && end.error.contains("retry in a few minutes"), "{name}: {end:?}");
    }
    life.fake.turn("fail?error_type=backend_error&html=1&path=/token&times=1").unwrap();
    let end = life.run(&["refresh"], "");
    assert!(end.code == 75 && end.error.contains("no proxy responds in its place"), "{end:?}");
    life.fake.turn("break?path=/token&times=1").unwrap();
    let end = life.run(&["refresh"], "");
    assert!(end.code == 75 && end.error.contains("ended prematurely"), "{end:?}");
    assert_eq!(life.run(&["refresh"], "").code, 0);
}

#[test]
fn a_device_that_is_told_to_slow_down_waits_longer() {
    let life = Life::new(RENEWED);
    let (dialog, code) = life.ask(&["login", "crm"]);
    life.fake.turn("oauth_fail?path=/token&error=slow_down").unwrap();
    let since = std::time::Instant::now();
    life.enter(&code, "demo-owner", "allow");
    assert_eq!(dialog.end("").code, 0);
    assert!(since.elapsed() > std::time::Duration::from_millis(5500), "one second and five more");
}

#[test]
fn a_device_code_expires() {
    let life = Life::new(RENEWED);
    life.fake.turn("oauth?device_lifetime=2s").unwrap();
    // The server is lost meanwhile, so the gate itself has to know the end.
    life.fake.turn("break?path=/token&times=1000000").unwrap();
    let end = life.run(&["login", "crm"], "");
    assert!(end.code == 1 && end.error.contains("time for entering the code is over"), "{end:?}");
}

#[test]
fn no_command_shows_a_secret() {
    let life = Life::new(RENEWED);
    let mut shown = vec![life.log_in(), life.run(&["refresh"], ""), life.run(&["status"], "")];
    let (access, refresh) = (life.read("crm"), life.read("crm.refresh"));
    shown.push(
        life.run(&["import", "crm"], &format!("{{\"access_token\": \"{access}\", \"refresh_token\": \"{refresh}\"}}")),
    );
    shown.push(life.run(&["import", "crm"], &format!("{refresh}\n")));
    std::fs::write(life.file("crm.refresh"), format!("{refresh} {refresh}")).unwrap();
    shown.push(life.run(&["refresh"], ""));
    std::fs::write(life.file("secret"), format!("{DEMO_CLIENT_SECRET} {DEMO_CLIENT_SECRET}")).unwrap();
    shown.push(life.run(&["revoke", "crm"], ""));
    std::fs::write(life.file("crm"), format!("{access} {access}")).unwrap();
    shown.push(life.run(&["status"], ""));
    for end in &shown {
        let all = format!("{}{}", end.out, end.error);
        for secret in [access.as_str(), refresh.as_str(), DEMO_CLIENT_SECRET] {
            assert_hides("a command", &all, secret);
        }
    }
    assert!(shown.iter().skip(4).all(|end| end.code != 0), "{shown:?}");
    // Beside the two files of secrets, none is on the disk.
    for name in ["crm.json", "gate.yaml"] {
        assert_hides(name, &life.read(name), &access);
        assert_hides(name, &life.read(name), &refresh);
    }
}

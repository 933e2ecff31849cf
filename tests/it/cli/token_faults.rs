//! A command that is killed leaves a working token; every error of the OAuth server has its words; no secret is shown.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::os::fd::OwnedFd;
use std::process::{Child, ChildStderr, Command, Stdio};

use fake_metrica::DEMO_CLIENT_SECRET;
use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, tcgetattr};

use super::token::{Dialog, End, Life, RENEWED};
use crate::harness::upstream::{Authority, certificate};
use crate::harness::{Conversation, Upstream};
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

/// `./test.sh` installs strace, and leaves these tests out where it cannot trace.
fn assert_can_trace() {
    let traced = Command::new("strace").args(["-qq", "-o", "/dev/null", "true"]).stderr(Stdio::null()).status();
    assert!(
        traced.is_ok_and(|status| status.success()),
        "install strace, and let it trace (ptrace); or leave this test out"
    );
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
    assert_can_trace();
    let life = Life::new(RENEWED);
    assert_eq!(life.log_in().code, 0);
    life.fake.turn("oauth?rotates=1").unwrap();
    let run = |call: &str, nth: usize| Dialog::start(killed_at(&life.command(&["refresh"]), call, nth)).end("");
    let kills = kill_everywhere(run, |end| {
        assert!(life.works(), "{end:?}");
        let is_durable = life.file("crm.refresh.pending").exists();
        let again = life.run(&["refresh"], "");
        // Before the pair is durable, a kill loses the response: the access token works, and the refresh token is used.
        let is_lost = !is_durable && again.code == 1 && again.error.contains("does not accept the refresh token");
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
    assert_can_trace();
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

/// The answer of an OAuth server, which refuses everything, with the clock of 2020.
fn refuse_in_2020(conversation: &mut Conversation) {
    while let Some(head) = conversation.request_head() {
        conversation.request_body(&head);
        let body = r#"{"error": "invalid_grant"}"#;
        conversation.write(format!(
            "HTTP/1.1 400 Bad Request\r\nDate: Wed, 01 Jan 2020 00:00:00 GMT\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        ));
    }
}

#[test]
fn a_clock_that_is_far_off_has_words_of_its_own() {
    let life = Life::new(RENEWED);
    assert!(!life.log_in().error.contains("clock"));
    let lead_to = |server: &Upstream| {
        std::fs::write(life.file("oauth.pem"), server.ca_pem()).unwrap();
        life.configure(RENEWED);
        let config = life.read("gate.yaml");
        let before = config.lines().find(|line| line.starts_with("oauth: ")).unwrap();
        let (at, place) = (life.folder.path().display(), server.address());
        let after = format!("oauth: {{ca_file: '{at}/oauth.pem', connect_to: '{place}'}}");
        std::fs::write(life.file("gate.yaml"), config.replace(before, &after)).unwrap();
    };
    let (config, ca_pem) = certificate("oauth.yandex.ru");
    let server = Upstream::run_with(config, ca_pem, refuse_in_2020);
    lead_to(&server);
    let words =
        ["the clock of this machine is", "ahead of that of the OAuth server", "2020-01-01T00:00:00Z there", "NTP"];
    let (dialog, address) = life.ask(&["login", "crm", "--flow", "code"]);
    let pasted = dialog.end(&format!("{}\n", life.click(&address, "demo-owner", "allow")));
    for end in [pasted, life.run(&["refresh"], "")] {
        words.iter().for_each(|word| assert!(end.error.contains(word), "{word}: {end:?}"));
        assert_eq!((end.code, end.error.matches("the clock of").count()), (1, 1), "{end:?}");
    }
    // A clock that is off by more than the life of a certificate fails before.
    let authority = Authority::new("own");
    let expired = authority.signs("oauth.yandex.ru", |params| params.not_after = rcgen::date_time_ymd(2020, 1, 1));
    let server = Upstream::run_with(expired, authority.pem.clone(), refuse_in_2020);
    lead_to(&server);
    let end = life.run(&["refresh"], "");
    assert!(end.code == 75 && end.error.contains("compare the clock of this machine"), "{end:?}");
}

/// The modes of a terminal, and a command that asks for a secret on it.
fn asks_on_a_terminal(life: &Life) -> (OwnedFd, File, Child, BufReader<ChildStderr>) {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let name = ptsname(&master, Vec::new()).unwrap().into_string().unwrap();
    let terminal = File::options().read(true).write(true).open(name).unwrap();
    assert!(tcgetattr(&terminal).unwrap().local_modes.contains(LocalModes::ECHO));
    let mut command = life.command(&["import", "crm"]);
    let mut child =
        command.stdin(terminal.try_clone().unwrap()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    let mut prompt = Vec::new();
    assert!(stderr.read_until(b':', &mut prompt).unwrap() > 0);
    assert!(String::from_utf8(prompt).unwrap().contains("(not shown)"));
    let modes = tcgetattr(&terminal).unwrap().local_modes;
    assert!(!modes.contains(LocalModes::ECHO) && !modes.contains(LocalModes::ISIG), "{modes:?}");
    (master, terminal, child, stderr)
}

#[test]
fn a_signal_at_a_hidden_prompt_restores_the_terminal() {
    let life = Life::new(RENEWED);
    let ends = [
        (Some(Signal::TERM), 143),
        (Some(Signal::INT), 130),
        (Some(Signal::HUP), 129),
        (Some(Signal::QUIT), 131),
        (None, 130),
    ];
    for (signal, code) in ends {
        let (master, terminal, mut child, mut stderr) = asks_on_a_terminal(&life);
        match signal {
            Some(signal) => kill_process(Pid::from_child(&child), signal).unwrap(),
            // Ctrl-C.
            None => assert_eq!(rustix::io::write(&master, &[3]).unwrap(), 1),
        }
        assert_eq!(child.wait().unwrap().code(), Some(code), "{signal:?}");
        let modes = tcgetattr(&terminal).unwrap().local_modes;
        assert!(modes.contains(LocalModes::ECHO) && modes.contains(LocalModes::ISIG), "{signal:?}: {modes:?}");
        let mut rest = String::new();
        stderr.read_to_string(&mut rest).unwrap();
        assert!(rest.contains("nothing was changed"), "{signal:?}: {rest}");
    }
    assert!(!life.file("crm").exists());
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

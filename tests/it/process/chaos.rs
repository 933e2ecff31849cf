//! Chaos around the process: while it lasts, valid traffic of every kind runs, and loses nothing.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::harness::files::write_private;
use crate::harness::gate::{Plan, program, until};
use crate::harness::traffic::{self, Traffic};
use crate::harness::{Caller, Gate, READ_TOKEN, TWO_CALLERS, Upstream, WRITE_TOKEN};

const CALLERS: usize = 4;
const NEW_TOKEN: &str = "y0_canaryNEWcanary0123456789abcdefg";

/// A gate under traffic, while `chaos` happens to it: everything is answered rightly, and every write arrives once.
fn loses_nothing(
    config: &str,
    prepare: impl FnOnce(&Plan),
    chaos: impl FnOnce(&Gate, &Traffic, &Upstream),
) -> Upstream {
    let upstream = traffic::upstream();
    let plan = Gate::plan(&upstream, config);
    prepare(&plan);
    let gate = plan.start();
    let running = Traffic::on(gate.place("crm"), CALLERS);
    chaos(&gate, &running, &upstream);
    let ledger = running.end();
    ledger.assert_all_right();
    ledger.assert_writes_once(&upstream);
    assert_eq!(gate.admin("/livez").status, 200);
    gate.until_metric(&["in_flight_requests"], 0.0);
    let denied = gate.metrics(&["denied_total"]);
    let of_traffic: Vec<_> = denied.iter().filter(|line| line.contains("\"crm\"") && !line.ends_with(" 0")).collect();
    assert!(of_traffic.is_empty(), "{of_traffic:?}");
    upstream
}

/// good and bad configurations in turn, faster than they are taken.
#[test]
fn a_storm_of_reloads() {
    loses_nothing(
        TWO_CALLERS,
        |_| {},
        |gate, traffic, _| {
            let good = gate.config();
            let bad = ["callers: [", "", "{}", "listeners: 7"];
            for round in 0..50 {
                match round % 2 {
                    0 => gate.replace_config(&good.replace("id: reports", &format!("id: reports-{round}"))),
                    _ => gate.replace_config(bad[round / 2 % bad.len()]),
                }
                gate.signal("HUP");
                if round % 10 == 0 {
                    traffic.go_on();
                }
            }
            gate.replace_config(&good.replace("id: reports", "id: the-last"));
            until("the last is in use", || gate.caller_of(&mut gate.connect("app")) == "the-last");
            assert!(gate.metric(&["config_reloads_total", "failure"]) > 0.0);
        },
    );
}

///
#[test]
fn a_storm_of_signals() {
    loses_nothing(
        TWO_CALLERS,
        |_| {},
        |gate, traffic, _| {
            for _ in 0..100 {
                gate.signal("HUP");
            }
            traffic.go_on();
            assert!(gate.metric(&["config_reloads_total", "success"]) >= 2.0);
            assert_eq!(gate.metric(&["config_reloads_total", "failure"]), 0.0);
        },
    );
}

/// by renaming, in place, away and back, and one that is no token; every request has a token that was valid.
#[test]
fn a_storm_of_tokens() {
    let upstream = loses_nothing(
        TWO_CALLERS,
        |_| {},
        |gate, traffic, upstream| {
            let secret = |round: usize| format!("y0_canaryROUNDcanary0123456789abc{round:03}");
            for round in 0..40 {
                match round % 4 {
                    0 => gate.replace_token("analytics", &secret(round)),
                    1 => write_private(&gate.file("analytics"), &format!("{}\n", secret(round))),
                    2 => {
                        std::fs::rename(gate.file("analytics"), gate.file("analytics~")).unwrap();
                        traffic.go_on();
                        std::fs::rename(gate.file("analytics~"), gate.file("analytics")).unwrap();
                    }
                    _ => gate.replace_token("analytics", "no token at all\n"),
                }
                traffic.go_on();
            }
            gate.replace_token("analytics", NEW_TOKEN);
            until("the last is in use", || {
                traffic.go_on();
                upstream.requests().iter().rev().take(60).any(|head| head.contains(NEW_TOKEN))
            });
        },
    );
    for head in upstream.requests() {
        let field: Vec<_> = head.lines().filter_map(|line| line.strip_prefix("authorization: OAuth ")).collect();
        let known =
            |token: &str| [READ_TOKEN, WRITE_TOKEN, NEW_TOKEN].contains(&token) || token.starts_with("y0_canaryROUND");
        assert!(field.len() == 1 && known(field[0]), "{head}");
    }
}

/// as the kubelet does it, again and again, with the sandbox around.
#[test]
fn a_storm_of_volumes() {
    let config = format!(
        "{TWO_CALLERS}
tokens:
  analytics: {{file: '{{folder}}/volume/analytics', scopes: [metrika:read]}}
  crm: {{file: '{{folder}}/volume/crm', scopes: [metrika:write]}}
"
    );
    let version = |volume: &Path, number: usize| {
        let name = format!("..{number:03}");
        std::fs::create_dir_all(volume.join(&name)).unwrap();
        for token in ["analytics", "crm"] {
            write_private(&volume.join(&name).join(token), &format!("y0_canary{token}canary0123456789ab{number:03}"));
        }
        symlink(&name, volume.join("..data_tmp")).unwrap();
        std::fs::rename(volume.join("..data_tmp"), volume.join("..data")).unwrap();
    };
    let first = |plan: &Plan| {
        let volume = plan.folder().join("volume");
        std::fs::create_dir(&volume).unwrap();
        version(&volume, 0);
        for token in ["analytics", "crm"] {
            symlink(Path::new("..data").join(token), volume.join(token)).unwrap();
        }
    };
    let upstream = loses_nothing(&config, first, |gate, traffic, _| {
        let volume = gate.file("volume");
        for number in 1..=15 {
            version(&volume, number);
            std::fs::remove_dir_all(volume.join(format!("..{:03}", number - 1))).unwrap();
            traffic.go_on();
        }
        gate.until_metric(&["token_loaded{"], 2.0);
        gate.until_log(&["token reloaded"]);
    });
    // The last version comes into use by itself; traffic has ended, so the log tells.
    assert!(upstream.requests().iter().all(|head| head.matches("OAuth y0_canary").count() == 1));
}

/// A gate that is stopped and goes on, as a debugger or a full machine does it.
#[test]
fn a_pause_of_the_process() {
    loses_nothing(
        TWO_CALLERS,
        |_| {},
        |gate, traffic, _| {
            for pause in [50, 1000] {
                gate.signal("STOP");
                let start = Instant::now();
                until("the pause is over", || start.elapsed() > Duration::from_millis(pause));
                gate.signal("CONT");
                traffic.go_on();
            }
        },
    );
}

/// no descriptor is left for new connections. Existing callers are served; if that needs a new connection to
/// Metrica, their response reports that nothing was sent. Afterwards everybody is served.
#[test]
fn no_descriptors() {
    let upstream = traffic::upstream();
    let gate = Gate::plan(&upstream, TWO_CALLERS).workers(1).start();
    gate.allow_descriptors(64);
    let running = Traffic::on(gate.place("crm"), CALLERS);
    let idle: Vec<_> = (0..100).map(|_| gate.connect("app")).collect();
    gate.until_log(&["accept failed"]);
    running.go_on();
    drop(idle);
    let serves = |listener: &str| {
        let mut caller = gate.connect(listener);
        caller.try_send("GET /management/v1/counters HTTP/1.1\r\nHost: localhost\r\n\r\n")
            && caller.try_answer(false).is_ok_and(|answer| answer.status == 200)
    };
    // The kernel hands connections out in order: one that is served was accepted after the idle ones, which would use
    // descriptors once more.
    until("those that wait in the kernel are accepted", || serves("app"));
    let open = || std::fs::read_dir(format!("/proc/{}/fd", gate.pid())).unwrap().count();
    until("their descriptors are closed", || open() < 64 - CALLERS);
    until("new callers are served", || serves("crm"));
    let back = Instant::now();
    let ledger = running.end();
    let mut failed = ledger.0.iter().filter(|entry| !entry.is_right());
    if let Some(other) = failed.find(|entry| entry.begun >= back || entry.ended != "503 upstream_unreachable") {
        panic!("{other:?}, back at {back:?}");
    }
    assert!(ledger.0.iter().filter(|entry| entry.is_right()).count() > 100);
    ledger.assert_writes_once(&upstream);
}

/// A gate whose log goes to `log`, on unix sockets, whose places need no log to be known.
struct NoResponse {
    child: Child,
    plan: Plan,
}

impl NoResponse {
    fn start(upstream: &Upstream, log: Stdio) -> Self {
        let config = "
listeners: [{name: crm, unix: {path: '{folder}/crm.sock'}}]
callers: [{id: crm, match: {listener: crm}, scopes: [metrika:read, metrika:write], tokens: [analytics, crm]}]
";
        let plan = Gate::plan(upstream, config);
        let mut command = program();
        command.args(["run", "--workers", "2", "--log-level", "trace", "--config"]).arg(plan.file());
        let child = command.stdin(Stdio::null()).stderr(log).spawn().unwrap();
        let gate = Self { child, plan };
        until("it listens", || std::os::unix::net::UnixStream::connect(gate.place()).is_ok());
        gate
    }

    fn place(&self) -> String {
        self.plan.folder().join("crm.sock").display().to_string()
    }

    /// Under traffic for two seconds; then it ends by a signal, in time and cleanly.
    fn loses_nothing(mut self, upstream: &Upstream) {
        let running = Traffic::on(&self.place(), CALLERS);
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(2) {
            running.go_on();
        }
        let ledger = running.end();
        ledger.assert_all_right();
        ledger.assert_writes_once(upstream);
        assert!(ledger.0.len() > 300, "only {} requests: more than a pipe holds of lines is needed", ledger.0.len());
        Command::new("kill").arg(self.child.id().to_string()).status().unwrap();
        let start = Instant::now();
        until("it ends", || self.child.try_wait().unwrap().is_some());
        assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
        assert_eq!(self.child.wait().unwrap().code(), Some(0));
    }
}

impl Drop for NoResponse {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_log_on_a_full_disk() {
    let upstream = traffic::upstream();
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    NoResponse::start(&upstream, full.into()).loses_nothing(&upstream);
}

#[test]
fn a_log_that_nobody_reads() {
    let upstream = traffic::upstream();
    let (reader, writer) = std::io::pipe().unwrap();
    NoResponse::start(&upstream, writer.into()).loses_nothing(&upstream);
    drop(reader);
}

#[test]
fn a_log_whose_reader_is_gone() {
    let upstream = traffic::upstream();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    NoResponse::start(&upstream, writer.into()).loses_nothing(&upstream);
}

/// Callers that disconnect at any point disturb nobody else.
#[test]
fn callers_that_break_off() {
    loses_nothing(
        TWO_CALLERS,
        |_| {},
        |gate, _, _| {
            for cut in [
                "GET /man",
                "POST /management/v1/counters?n=900001 HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n{",
            ] {
                for _ in 0..50 {
                    let mut caller = Caller::connect(gate.place("app"));
                    caller.try_send(cut);
                }
            }
            let mut caller = gate.connect("app");
            caller.send("GET /management/v1/counters HTTP/1.1\r\nHost: localhost\r\n\r\n");
            assert_eq!(caller.answer().status, 200);
        },
    );
}

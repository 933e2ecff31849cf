//! The sandbox in the real program: it is in force, and permitted work goes on. The kernel's refusals, call by call, are
//! held by the tests of `src/sandbox`; that everything works inside of it, by all the other tests here.

use std::os::unix::fs::symlink;

use crate::harness::files::write_private;
use crate::harness::gate::until;
use crate::harness::{Gate, READ_TOKEN, TWO_CALLERS, Upstream};

const NEW_TOKEN: &str = "y0_canaryNEWcanary0123456789abcdefg";
const COUNTERS: &str = "/management/v1/counters";

/// The extent of the kernel's support; `None` without Landlock: nothing can be tested.
fn state(gate: &Gate) -> Option<String> {
    let line: serde_json::Value = serde_json::from_str(&gate.until_log(&["\"message\":\"sandbox\""])).unwrap();
    let state = line["state"].as_str().unwrap().to_owned();
    assert_eq!(gate.metric(&["metrika_gate_sandbox{", &format!("state=\"{state}\"")]), 1.0);
    assert_eq!(gate.metric(&["metrika_gate_sandbox{"]), 1.0, "one state at a time");
    (state != "none").then_some(state)
}

fn last_token(upstream: &Upstream) -> String {
    let head = upstream.requests().pop().unwrap();
    head.lines().find_map(|line| line.strip_prefix("authorization: OAuth ")).unwrap().to_owned()
}

/// A link to another folder is the one way to make the program itself reach for a file that nobody named.
fn reaches_elsewhere(config: &str, reaches: impl FnOnce(&Gate, &Upstream)) {
    let upstream = Upstream::plain();
    let elsewhere = tempfile::tempdir().unwrap();
    write_private(&elsewhere.path().join("token"), NEW_TOKEN);
    let gate = Gate::start(&upstream, config);
    symlink(elsewhere.path().join("token"), gate.file("analytics.new")).unwrap();
    std::fs::rename(gate.file("analytics.new"), gate.file("analytics")).unwrap();
    reaches(&gate, &upstream);
}

#[test]
fn a_file_that_nobody_named_is_not_read() {
    reaches_elsewhere(TWO_CALLERS, |gate, upstream| {
        if state(gate).is_none() {
            return;
        }
        gate.until_log(&[
            "the token was not reloaded",
            "Permission denied",
            "restart the gate",
            "the previous token stays",
        ]);
        assert_eq!(gate.get("app", COUNTERS).summary(), "200");
        assert_eq!(last_token(upstream), READ_TOKEN);
    });
}

#[test]
fn the_sandbox_can_be_switched_off() {
    reaches_elsewhere(&format!("{TWO_CALLERS}\nsandbox: false\n"), |gate, upstream| {
        assert_eq!(state(gate).as_deref(), Some("off"));
        let status = std::fs::read_to_string(format!("/proc/{}/status", gate.pid())).unwrap();
        assert!(status.contains("NoNewPrivs:\t1\n"), "that it has in any case");
        until("the new token is in use", || {
            gate.get("app", COUNTERS);
            last_token(upstream) == NEW_TOKEN
        });
    });
}

/// Every thread of the process, also those that came first.
#[test]
fn every_thread_is_confined() {
    let upstream = Upstream::plain();
    let gate = Gate::start(&upstream, TWO_CALLERS);
    assert_eq!(gate.get("app", COUNTERS).summary(), "200");
    let mut threads = Vec::new();
    for thread in std::fs::read_dir(format!("/proc/{}/task", gate.pid())).unwrap() {
        let folder = thread.unwrap().path();
        let status = std::fs::read_to_string(folder.join("status")).unwrap();
        assert!(status.contains("NoNewPrivs:\t1\n"), "{status}");
        threads.push(std::fs::read_to_string(folder.join("comm")).unwrap().trim().to_owned());
    }
    assert!(["log", "worker-0", "worker-1"].iter().all(|name| threads.iter().any(|it| it == name)), "{threads:?}");
}

/// The program's own order: a thread started before the sandbox would be outside of it.
#[test]
fn no_thread_is_started_before() {
    let app = include_str!("../../../src/cli/app.rs");
    let at = |call: &str| app.find(call).unwrap_or_else(|| panic!("{call} is not in src/cli/app.rs"));
    let entered = at("Sandbox::enter(");
    assert!(entered < at("This starts the first thread."));
    assert!(entered < at("Workers::start("));
    for file in ["reload.rs", "process/sandbox.rs", "upstream.rs", "telemetry.rs", "token/store.rs", "server/listen.rs"]
    {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(file);
        let program = std::fs::read_to_string(path).unwrap();
        let program = program.split("#[cfg(test)]").next().unwrap();
        assert!(!program.contains("thread::spawn") && !program.contains("thread::Builder"), "src/{file}");
    }
}

/// a change that the process can no longer make is refused as a whole, and logged.
#[test]
fn a_reload_that_needs_more_changes_nothing() {
    let upstream = Upstream::plain();
    let elsewhere = tempfile::tempdir().unwrap();
    write_private(&elsewhere.path().join("token"), NEW_TOKEN);
    std::fs::write(elsewhere.path().join("ca.pem"), upstream.ca_pem()).unwrap();
    let gate = Gate::start(&upstream, TWO_CALLERS);
    if state(&gate).is_none() {
        return;
    }
    let good = gate.config();
    let port = upstream.address().port();
    let other = port.checked_add(1).unwrap_or(1024);
    let folder = elsewhere.path().display();
    for (changed, said) in [
        (
            good.replace(
                &format!("{}/analytics", gate.file("").display()).replace("//", "/"),
                &format!("{folder}/token"),
            ),
            "outside of the folders",
        ),
        (
            good.replace(&format!("127.0.0.1:{port}"), &format!("127.0.0.1:{other}")),
            "not a port that the sandbox allows",
        ),
        (
            good.replace(&gate.file("ca.pem").display().to_string(), &format!("{folder}/ca.pem")),
            "folders that it could read at startup",
        ),
        (format!("{good}\nsandbox: false\n"), "sandbox changed; restart the gate to apply it"),
    ] {
        assert_ne!(changed, good, "{said}");
        // A mistake in one key must not bring in another.
        gate.replace_config(&changed.replace("id: reports", "id: renamed"));
        gate.signal("HUP");
        gate.until_log(&["the configuration was not reloaded", said]);
        gate.until_metric(&["config_last_reload_successful"], 0.0);
        let mut caller = gate.connect("app");
        assert_eq!(gate.caller_of(&mut caller), "reports", "{said}");
        assert_eq!(last_token(&upstream), READ_TOKEN, "{said}");
        gate.replace_config(&good);
        gate.until_metric(&["config_last_reload_successful"], 1.0);
    }
    // A change that needs no more is accepted.
    gate.replace_config(&good.replace("id: reports", "id: renamed"));
    gate.until_metric(&["requests_total{", "renamed"], 0.0);
    until("the caller is renamed", || gate.caller_of(&mut gate.connect("app")) == "renamed");
}

/// Names, the socket's file and the metrics of the process are needed after the start.
#[test]
fn resources_needed_after_the_start_are_allowed() {
    let upstream = Upstream::plain();
    let port = upstream.address().port();
    let config = format!(
        "
listeners:
  - {{name: app, unix: {{path: '{{folder}}/app.sock'}}}}
callers:
  - {{id: reports, match: {{listener: app}}, scopes: [metrika:read], tokens: [analytics]}}
upstream: {{ca_file: '{{ca}}', connect_to: 'localhost:{port}'}}
"
    );
    let mut gate = Gate::start(&upstream, &config);
    assert_eq!(gate.get("app", COUNTERS).summary(), "200", "'localhost' was looked up");
    for family in ["process_open_fds", "process_resident_memory_bytes", "process_start_time_seconds", "process_max_fds"]
    {
        assert!(gate.metric(&[family]) > 0.0, "{family}");
    }
    gate.signal("TERM");
    assert!(gate.wait().success());
    assert!(!gate.file("app.sock").exists(), "the socket's file is removed");
}

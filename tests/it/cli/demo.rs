//! The demo: the commands that it prints work when pasted.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};

use crate::harness::Caller;
use crate::harness::gate::{program, until};

struct Demo {
    child: Child,
    steps: Vec<String>,
    log: std::sync::Arc<std::sync::Mutex<String>>,
}

impl Demo {
    fn start() -> Self {
        let mut command = program();
        command.arg("demo").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        for flag in ["--reports", "--crm", "--proxy", "--admin", "--fake"] {
            command.args([flag, "127.0.0.1:0"]);
        }
        let mut child = command.spawn().unwrap();
        let mut steps = Vec::new();
        for line in BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok) {
            let last = line == "Press Ctrl-C to stop.";
            steps.push(line);
            if last {
                break;
            }
        }
        let log = std::sync::Arc::new(std::sync::Mutex::new(String::new()));
        let (lines, stderr) = (log.clone(), child.stderr.take().unwrap());
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                *lines.lock().unwrap() += &format!("{line}\n");
            }
        });
        Self { child, steps, log }
    }

    /// The lines to paste.
    fn lines(&self) -> Vec<&str> {
        self.steps.iter().map(|line| line.trim()).filter(|line| line.starts_with("curl ")).collect()
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("{}\n{}", self.steps.join("\n"), self.log.lock().unwrap());
        }
    }
}

fn paste(line: &str) -> String {
    let output = Command::new("sh").arg("-c").arg(line).stdin(Stdio::null()).output().unwrap();
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
}

#[test]
fn the_five_steps_of_the_demo_work_as_printed() {
    let mut demo = Demo::start();
    let lines = demo.lines();
    assert_eq!(lines.len(), 7, "five steps, the last of three lines");
    if Command::new("curl").arg("--version").stdout(Stdio::null()).status().is_err() {
        println!("curl is not installed; test.sh looks at the demo too");
        return;
    }
    let read = paste(lines[0]);
    let body: serde_json::Value = serde_json::from_str(&read).unwrap_or_else(|error| panic!("{error}: {read}"));
    assert!(body["rows"].as_u64().unwrap() > 0, "{read}");

    let refused = paste(lines[1]);
    assert!(refused.starts_with("HTTP/1.1 403 "), "{refused}");
    assert!(refused.contains("x-gate-error: scope_denied\r\n"), "{refused}");

    let written = paste(lines[2]);
    let body: serde_json::Value = serde_json::from_str(&written).unwrap_or_else(|error| panic!("{error}: {written}"));
    assert_eq!(body["goal"]["name"], "Order", "{written}");
    assert!(body["goal"]["id"].is_u64(), "{written}");

    let unmodified = paste(lines[3]);
    let body: serde_json::Value =
        serde_json::from_str(&unmodified).unwrap_or_else(|error| panic!("{error}: {unmodified}"));
    assert!(body["rows"].as_u64().unwrap() > 0, "{unmodified}");
    until("it went through the proxy", || demo.log.lock().unwrap().contains(" proxied GET counters.list "));

    let revoked = paste(lines[4]);
    assert!(!revoked.contains("rror"), "{revoked}");
    let read = paste(lines[5]);
    let body: serde_json::Value = serde_json::from_str(&read).unwrap_or_else(|error| panic!("{error}: {read}"));
    assert_eq!((&body["code"], &body["errors"][0]["error_type"]), (&403.into(), &"invalid_token".into()), "{read}");
    let counted = paste(lines[6]);
    let counted: Vec<_> = counted.lines().filter(|line| !line.starts_with('#')).collect();
    insta::assert_snapshot!(counted.join("\n"), @r#"
    metrika_gate_auth_failures_total{origin="gate",caller="reports",token="none",operation="goals.create",code="403",reason="scope_denied"} 1
    metrika_gate_auth_failures_total{origin="upstream",caller="reports",token="analytics",operation="counters.list",code="403",reason="token_invalid"} 1
    "#);

    let ended = Command::new("kill").arg("-INT").arg(demo.child.id().to_string()).status().unwrap();
    assert!(ended.success());
    let mut status = None;
    until("the demo ends", || {
        status = demo.child.try_wait().unwrap();
        status.is_some()
    });
    assert_eq!(status.unwrap().code(), Some(0));
    let error = demo.log.lock().unwrap().lines().find(|line| line.contains(" ERROR ")).map(str::to_owned);
    assert_eq!(error, None, "a newcomer would take the demo for broken");
}

/// The token that writes does not read, and its owner may only look at the documentation's counter.
#[test]
fn a_counter_that_may_only_be_looked_at_is_called_that() {
    let demo = Demo::start();
    let crm = demo.lines()[2].split("http://").nth(1).unwrap().split('/').next().unwrap().to_owned();
    let request = "POST /management/v1/counter/44147844/goals HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n";
    let mut seen = Vec::new();
    until("it is known", || {
        let mut caller = Caller::connect(&crm);
        caller.send(request);
        seen.push(caller.answer().field("x-gate-reason").unwrap_or_default().to_owned());
        seen.last().is_some_and(|reason| reason == "counter_view_only")
    });
    assert!(seen.iter().rev().skip(1).all(|before| before == "ambiguous"), "{seen:?}");
}

#[test]
fn no_line_of_the_demo_sends_a_token_to_the_gate() {
    let demo = Demo::start();
    for line in demo.lines().iter().filter(|line| !line.contains("/_fake/")) {
        assert!(!line.to_lowercase().contains("oauth") && !line.contains("token="), "{line}");
    }
}

#[test]
fn the_demo_listens_on_loopback_only() {
    for flag in ["--reports", "--crm", "--proxy", "--admin", "--fake"] {
        let output = program().args(["demo", flag, "0.0.0.0:0"]).stdin(Stdio::null()).output().unwrap();
        assert!(!output.status.success());
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains("the demo listens on loopback only"), "{flag}: {said}");
    }
}

#[test]
fn an_address_in_use_is_69() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let flags = ["--reports", "--crm", "--proxy", "--admin", "--fake"];
    for flag in flags {
        let mut command = program();
        command.arg("demo").stdin(Stdio::null());
        for one in flags {
            command.args([one, if one == flag { &address } else { "127.0.0.1:0" }]);
        }
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(69), "{flag}: {said}");
        let expected = format!("cannot use {address}; choose another with {flag} 127.0.0.1:PORT");
        assert!(said.contains(&expected) && said.matches(&address).count() == 1, "{flag}: {said}");
    }
    let output = program().args(["fake", "--address", &address]).stdin(Stdio::null()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(69), "{said}");
    assert!(said.contains("choose another address with --address") && said.matches(&address).count() == 1, "{said}");
}

#[test]
fn an_invalid_token_of_the_fake_is_wrong_usage() {
    let good = "test-analytics-0001=shop:read:101";
    for (bad, what) in [
        ("test-analytics-0002", "expected the form"),
        ("y0_AgAAAAsecret=shop:read:1", "its secret is not a test secret"),
        ("test-analytics-0002=shop:all:1", "unknown scope 'all'"),
    ] {
        let mut command = program();
        command.args(["fake", "--address", "127.0.0.1:0", "--token", good, "--token", bad]).stdin(Stdio::null());
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(what) && said.contains("number 2") && said.contains(good), "{said}");
        assert!(!said.contains("AgAAAA"), "{said}");
    }
}

#[test]
fn the_folder_of_the_demo_is_removed_at_the_end() {
    let demo = Demo::start();
    let line = demo.lines()[3].to_owned();
    let folder = line.split("--cacert ").nth(1).unwrap().split("/ca.pem").next().unwrap().to_owned();
    assert!(std::path::Path::new(&folder).join("ca.pem").exists());
    let place = demo.lines()[0].split("http://").nth(1).unwrap().split('/').next().unwrap().to_owned();
    let mut caller = Caller::connect(&place);
    caller.send("GET /management/v1/counters HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(caller.answer().summary(), "200");
    Command::new("kill").arg("-TERM").arg(demo.child.id().to_string()).status().unwrap();
    until("the folder is gone", || !std::path::Path::new(&folder).exists());
}

//! The rule that a target breaks: the log and `explain` report the same one, and nothing of the request itself.

use crate::harness::gate::program;
use crate::harness::{Gate, TWO_CALLERS, Upstream};

/// The lines of the log with a cause, when there are this many.
fn causes(gate: &Gate, wanted: usize) -> Vec<String> {
    let find = || -> Vec<serde_json::Value> {
        let lines = gate.log().into_iter().filter(|line| line.contains("\"request failed\""));
        lines.map(|line| serde_json::from_str(&line).unwrap()).collect()
    };
    crate::harness::gate::until("the log says why", || find().len() >= wanted);
    let said = |line: &serde_json::Value| {
        format!("{}: {}", line["reason"].as_str().unwrap_or_default(), line["cause"].as_str().unwrap_or_default())
    };
    find().iter().map(said).collect()
}

/// Targets, and their causes in the gate's log and in `explain`.
const TARGETS: [(&str, &str); 8] = [
    ("/management/v1/nothing/", "the path ends with a slash, at byte 23"),
    ("/management/v1//counters", "the path has an empty segment (two consecutive slashes), at byte 16"),
    ("/stat/v1/data?metrics=secret#", "the query has a character that must be percent-encoded, at byte 29"),
    ("/stat/v1/data?a=%zz", "a percent sign is not followed by two hexadecimal digits, at byte 17"),
    (
        "/stat/v1/data?id=1&id=2",
        "one of ids, id, ulogin, direct_client_logins, metrics, dimensions and fields is repeated, at byte 20",
    ),
    ("/stat/v1/data?_method=PUT", "the query has the parameter _method, at byte 15"),
    (
        "/stat/v1/data?%69ds=1",
        "a parameter name has a percent-encoded letter, digit, underscore, percent sign or control character, at byte 15",
    ),
    (
        "/stat/v1/data?OAuthToken=secret",
        "a parameter name is equivalent or similar to oauth_token or access_token, at byte 15",
    ),
];

#[test]
fn the_rule_that_a_target_breaks_is_in_the_log_and_in_explain() {
    let upstream = Upstream::plain();
    let gate = Gate::start(&upstream, TWO_CALLERS);
    let mut expected = Vec::new();
    for (target, cause) in TARGETS {
        let answer = gate.get("app", target);
        assert_eq!(answer.summary(), "400 bad_target", "{target}");
        assert!(answer.field("x-gate-hint").unwrap().contains(cause), "{target}: {answer:?}");
        assert!(answer.text().contains(cause) && !answer.text().contains("secret"), "{target}: {answer:?}");
        expected.push(format!("bad_target: {cause}"));
        assert_eq!(causes(&gate, expected.len()), expected);
        let explain = |form: &[&str]| {
            let mut command = program();
            command
                .args(["explain", "GET", target, "--as", "reports", "--config"])
                .arg(gate.file("gate.yaml"))
                .args(form);
            let output = command.output().unwrap();
            assert_eq!(output.status.code(), Some(1), "{target}");
            String::from_utf8(output.stdout).unwrap()
        };
        let said = explain(&[]);
        assert!(said.contains(&format!("operation  none: bad_target\nbecause    {cause}\n")), "{said}");
        let said: serde_json::Value = serde_json::from_str(&explain(&["--format", "json"])).unwrap();
        assert_eq!((&said["cause"], &said["verdicts"][0]["reason"]), (&cause.into(), &"bad_target".into()));
    }
    assert_eq!(gate.get("app", "ftp://localhost/secret").summary(), "400 bad_target");
    expected.push("bad_target: the target is a URL with another scheme than http and https, at byte 1".to_owned());
    assert_eq!(causes(&gate, expected.len()), expected);
    assert!(!gate.log().iter().any(|line| line.contains("secret")));
}

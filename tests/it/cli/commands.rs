//! The commands beside `run`: their output and their exit codes.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::harness::files::write_private;
use crate::harness::gate::program;
use crate::harness::{Gate, READ_TOKEN, TWO_CALLERS, Upstream, WRITE_TOKEN};

/// Exit code, stdout and stderr.
pub fn outcome(command: &mut Command) -> (i32, String, String) {
    let output = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
}

/// A folder with a configuration and its tokens.
pub struct Files(pub tempfile::TempDir);

impl Files {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path().display();
        let config = format!(
            "{TWO_CALLERS}tokens:
  analytics: {{file: '{at}/analytics', scopes: [metrika:read]}}
  crm: {{file: '{at}/crm', scopes: [metrika:write]}}
"
        );
        std::fs::write(folder.path().join("gate.yaml"), config).unwrap();
        write_private(&folder.path().join("analytics"), READ_TOKEN);
        write_private(&folder.path().join("crm"), WRITE_TOKEN);
        Self(folder)
    }

    pub fn config(&self) -> PathBuf {
        self.0.path().join("gate.yaml")
    }

    pub fn edit(&self, from: &str, to: &str) {
        let config = std::fs::read_to_string(self.config()).unwrap();
        assert!(config.contains(from), "{from}");
        std::fs::write(self.config(), config.replace(from, to)).unwrap();
    }

    pub fn run(&self, arguments: &[&str]) -> (i32, String) {
        let (code, out, error) = outcome(program().args(arguments).arg("--config").arg(self.config()));
        (code, format!("{out}{error}").replace(&self.0.path().display().to_string(), "FOLDER"))
    }

    pub fn json(&self, arguments: &[&str]) -> (i32, serde_json::Value) {
        let (code, text) = self.run(&[arguments, &["--format", "json"]].concat());
        (code, serde_json::from_str(&text).unwrap())
    }
}

#[test]
fn check_reports_a_valid_configuration() {
    let files = Files::new();
    let (code, said) = files.run(&["check"]);
    assert_eq!(code, 0, "{said}");
    insta::assert_snapshot!(said, @r#"
    note: FOLDER/gate.yaml:9:14 tokens.analytics: the callers reports, crm share the account of token 'analytics'; without 'quota', one of them can use all of its 3 parallel requests and the whole day (docs/quota.md)
    the configuration is valid: 2 listeners, 2 callers, 2 tokens, 127 operations
    "#);
    let (code, said) = files.json(&["check"]);
    assert_eq!((code, &said["valid"], &said["mistakes"]), (0, &true.into(), &serde_json::json!([])));
}

#[test]
fn check_reports_each_mistake() {
    let files = Files::new();
    files.edit("scopes: [metrika:read], tokens: [analytics]", "scopes: [metrika:reed], tokens: [analytic]");
    let (code, said) = files.run(&["check"]);
    assert_eq!(code, 78, "{said}");
    insta::assert_snapshot!(said, @r#"
    error: FOLDER/gate.yaml:6:52 callers[0].scopes[0]: is 'metrika:reed'; expected metrika:read, metrika:write, metrika:expenses, metrika:user_params or metrika:offline_data
    error: FOLDER/gate.yaml:6:76 callers[0].tokens[0]: is 'analytic'; expected the name of a token under 'tokens': analytics, crm
    2 mistakes found
    "#);
    let (code, said) = files.json(&["check"]);
    assert_eq!((code, &said["valid"], said["mistakes"].as_array().unwrap().len()), (78, &false.into(), 2));
}

#[test]
fn check_reads_token_files_unless_a_flag_disables_it() {
    use std::os::unix::fs::PermissionsExt;
    let files = Files::new();
    std::fs::remove_file(files.0.path().join("crm")).unwrap();
    let (code, said) = files.run(&["check"]);
    assert_eq!(code, 78, "{said}");
    let expected = "error: FOLDER/gate.yaml:10:15 tokens.crm.file: FOLDER/crm: the file of token 'crm' is missing";
    assert!(said.contains(expected), "{said}");
    write_private(&files.0.path().join("crm"), "two words");
    let (code, said) = files.run(&["check"]);
    assert_eq!(code, 78, "{said}");
    std::fs::set_permissions(files.0.path().join("analytics"), std::fs::Permissions::from_mode(0o644)).unwrap();
    let (code, said) = files.run(&["check"]);
    assert_eq!(code, 77, "{said}");
    assert!(
        said.contains("chmod 0600 FOLDER/analytics") && said.contains("'crm' contains no token: byte 4 is white space"),
        "{said}"
    );
    assert_eq!(files.json(&["check"]).1["valid"], false);
    // Beside the mistakes of the configuration, too.
    files.edit("callers:", "colors:");
    let (code, said) = files.run(&["check"]);
    assert!(
        code == 78 && said.contains("colors: unknown key") && said.contains("chmod 0600 FOLDER/analytics"),
        "{said}"
    );
    assert!(said.contains("4 mistakes found"), "{said}");
    assert!(!files.run(&["check", "--without-tokens"]).1.contains("FOLDER/analytics"));
    files.edit("colors:", "callers:");
    assert_eq!(files.run(&["check", "--without-tokens"]).0, 0);
    std::fs::remove_file(files.0.path().join("analytics")).unwrap();
    assert_eq!(files.json(&["check", "--without-tokens"]).1["valid"], true);
}

#[test]
fn check_warns_of_probable_mistakes() {
    let files = Files::new();
    files.edit("tokens: [analytics, crm]}", "tokens: [analytics]}");
    let (code, said) = files.run(&["check"]);
    assert_eq!(code, 0, "a warning is no mistake: {said}");
    assert!(
        said.contains(
            "warning: FOLDER/gate.yaml:7:5 callers[1]: caller 'crm' has metrika:write, but none of its tokens does"
        ),
        "{said}"
    );
    assert!(said.contains("warning: FOLDER/gate.yaml:10:8 tokens.crm: no caller uses token 'crm'"), "{said}");
}

#[test]
fn an_unreachable_caller_is_reported() {
    let files = Files::new();
    files.edit("id: crm, match: {listener: crm}", "id: crm, match: {listener: app, source: [127.0.0.0/8]}");
    let said = files.run(&["check"]).1;
    let expected = "'crm' is unreachable: 'reports' precedes it and matches all its connections";
    assert!(said.contains(&format!("warning: FOLDER/gate.yaml:7:5 callers[1]: caller {expected}")), "{said}");
    let said = files.run(&["explain", "GET", "/management/v1/counters", "--as", "crm"]).1;
    assert!(said.contains("unreachable: 'reports' precedes it"), "{said}");
    let said = files.json(&["explain", "GET", "/management/v1/counters", "--as", "crm"]).1;
    assert_eq!(said["verdicts"][0]["never_reached_behind"], "reports");
}

#[test]
fn check_of_a_file_that_is_not_there_is_66() {
    let (code, _, said) = outcome(program().args(["check", "--config", "/nowhere/gate.yaml"]));
    assert_eq!(code, 66, "{said}");
    assert!(said.contains("/nowhere/gate.yaml: cannot read the configuration"), "{said}");
}

#[test]
fn explain_shows_the_token_if_allowed_and_the_response_if_refused() {
    let files = Files::new();
    let (code, said) = files.run(&["explain", "GET", "/management/v1/counters?oauth_token=secret", "--as", "reports"]);
    assert_eq!(code, 0, "{said}");
    insta::assert_snapshot!(said, @r#"
    request    GET /management/v1/counters
    operation  counters.list (/management/v1/counters)
    needs      metrika:read
    kind       quota group client_read
    query      the gate removes its credential before forwarding
    
    caller     reports (listener app)
    has        metrika:read
    decision   allowed, using token analytics
    "#);
    let (code, said) = files.run(&["explain", "POST", "/management/v1/counters"]);
    assert_eq!(code, 1, "{said}");
    insta::assert_snapshot!(said, @r#"
    request    POST /management/v1/counters
    operation  counters.create (/management/v1/counters)
    needs      metrika:write
    kind       quota group client_write, may grant access
    
    caller     reports (listener app)
    has        metrika:read
    decision   refused: 403 scope_denied (The scopes of this caller do not allow this operation.)
    because    the operation needs metrika:write; this caller is configured with metrika:read
    
    caller     crm (listener crm)
    has        metrika:read, metrika:write
    decision   allowed, using token crm
    "#);
}

#[test]
fn explain_knows_every_answer() {
    let files = Files::new();
    files.edit(
        "scopes: [metrika:read, metrika:write], tokens: [analytics, crm]",
        "scopes: [metrika:read], tokens: [crm]",
    );
    for (method, url, caller, reason) in [
        ("GET", "/management/v1/counters", "reports", None),
        ("HEAD", "https://api-metrika.yandex.net/stat/v1/data.csv?ids=1", "reports", None),
        ("POST", "/management/v1/counter/1/logrequests", "reports", None),
        ("GET", "http://localhost:8080/management/v1/counters", "reports", None),
        ("GET", "http://evil.example/management/v1/counters", "reports", Some((403, "host_denied"))),
        ("GET", "http://user@localhost/management/v2/counters", "reports", Some((400, "bad_host"))),
        ("DELETE", "/management/v1/counter/1", "reports", Some((403, "scope_denied"))),
        ("GET", "/management/v1/counters", "crm", Some((403, "token_scope_missing"))),
        ("PUT", "/stat/v1/data", "reports", Some((403, "method_denied"))),
        ("GET", "/management/v2/counters", "reports", Some((404, "unknown_operation"))),
        ("GET", "/management//v1/counters", "reports", Some((400, "bad_target"))),
        ("OPTIONS", "/management/v1/counters", "reports", Some((405, "method_not_allowed"))),
        ("get", "/management/v1/counters", "reports", Some((405, "method_not_allowed"))),
    ] {
        let (code, said) = files.json(&["explain", method, url, "--as", caller]);
        let verdict = &said["verdicts"][0];
        let because = match reason {
            Some((_, "scope_denied")) => {
                Some("the operation needs metrika:write; this caller is configured with metrika:read")
            }
            Some((_, "token_scope_missing")) => {
                Some("the operation needs metrika:read; the tokens of this caller are configured with metrika:write")
            }
            _ => None,
        };
        let expected = serde_json::json!({
            "caller": caller, "never_reached_behind": null, "scopes": ["metrika:read"], "allowed": reason.is_none(),
            "token": reason.is_none().then_some("analytics"),
            "status": reason.map(|(status, _)| status), "reason": reason.map(|(_, reason)| reason),
            "candidates": [], "would_refuse": null, "because": because, "body_is_read": false,
            "list_is_filtered": false, "quota": null, "identity": null,
        });
        assert_eq!(verdict, &expected, "{method} {url}");
        assert_eq!(code, i32::from(reason.is_some()), "{method} {url}");
    }
    let (_, said) = files.json(&["explain", "GET", "/management/v1/counter/1/goals?oauth_token=x", "--as", "reports"]);
    assert_eq!(said["operation"], "goals.list");
    assert_eq!(said["template"], "/management/v1/counter/{counter_id}/goals");
    assert_eq!(said["needs_any_of"], serde_json::json!(["metrika:read"]));
    assert_eq!(said["query_credential_dropped"], true);
}

/// A listener that requires a field refuses requests without it: `explain` reports the same refusal as the gate.
#[test]
fn explain_knows_the_field_that_a_listener_requires() {
    let files = Files::new();
    files.edit("{name: app, ", "{name: app, require_header: 'X-Here: 1', ");
    let ask = |more: &[&str]| {
        let (code, said) =
            files.json(&[&["explain", "GET", "/management/v1/counters", "--as", "reports"], more].concat());
        (code, said["verdicts"][0]["reason"].as_str().map(str::to_owned), said.to_string())
    };
    for more in [&[][..], &["-H", "X-Here: 2"], &["-H", "X-Here: 1", "-H", "X-Here: 1"]] {
        let (code, reason, said) = ask(more);
        assert_eq!((code, reason.as_deref()), (1, Some("header_required")), "{more:?}: {said}");
    }
    let (code, _, said) = ask(&["-H", "X-Here: 1"]);
    assert_eq!(code, 0, "{said}");
    for (field, reason) in [("Origin: null", "browser_denied"), ("Via: 1.1 metrika-gate", "loop_detected")] {
        assert_eq!(ask(&["-H", "X-Here: 1", "-H", field]).1.as_deref(), Some(reason));
    }
    let (code, said) = files.run(&["explain", "GET", "/management/v1/counters", "-H", "nothing"]);
    assert!(code == 2 && said.contains("expected a name, a colon and a value"), "{said}");
}

#[test]
fn explain_fails_where_it_has_no_answer() {
    let files = Files::new();
    let (code, said) = files.run(&["explain", "GET", "/stat/v1/data", "--as", "nobody"]);
    assert_eq!(code, 2, "{said}");
    assert!(said.contains("unknown caller 'nobody'; the configured callers are reports, crm"), "{said}");
    assert_eq!(files.run(&["explain", "GET"]).0, 2, "wrong usage");
    for none in ["stat/v1/data", "", "localhost/stat/v1/data", "ftp://localhost/stat/v1/data", "http:///stat", "?ids=1"]
    {
        let (code, said) = files.run(&["explain", "GET", none]);
        assert!(code == 2 && said.contains("invalid target; expected a path"), "{none}: {said}");
    }
    files.edit("callers:", "colors:");
    assert_eq!(files.run(&["explain", "GET", "/stat/v1/data"]).0, 78);
}

#[test]
fn explain_agrees_with_the_gate() {
    let upstream = Upstream::plain();
    let gate = Gate::start(&upstream, TWO_CALLERS);
    for (method, path) in [
        ("GET", "/management/v1/counters"),
        ("POST", "/management/v1/counters"),
        ("PUT", "/stat/v1/data"),
        ("GET", "/no"),
        ("GET", "/a//b"),
        ("TRACE", "/"),
    ] {
        for caller in ["reports", "crm"] {
            let listener = if caller == "crm" { "crm" } else { "app" };
            let request = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n");
            let answer = gate.send(listener, request);
            let arguments = ["explain", method, path, "--as", caller, "--format", "json", "--config"];
            let (_, out, _) = outcome(program().args(arguments).arg(gate.file("gate.yaml")));
            let said: serde_json::Value = serde_json::from_str(&out).unwrap();
            let verdict = &said["verdicts"][0];
            assert_eq!(verdict["reason"].as_str(), answer.field("x-gate-error"), "{method} {path} as {caller}");
            let status = verdict["status"].as_u64().unwrap_or(200);
            assert_eq!(status, u64::from(answer.status), "{method} {path} as {caller}");
        }
    }
}

#[test]
fn healthcheck_asks_a_gate() {
    let upstream = Upstream::plain();
    let gate = Gate::plan(&upstream, TWO_CALLERS).without("crm").start();
    let url = |path: &str| format!("http://{}{path}", gate.admin_place());
    let (code, said, _) = outcome(program().args(["healthcheck", "--url", &url("/livez")]));
    assert_eq!((code, said.as_str()), (0, "ok\n"));
    let (code, said, _) = outcome(program().args(["healthcheck", "--url", &url("/readyz?caller=crm")]));
    assert_eq!(code, 1);
    assert!(said.contains("[-] token crm"), "{said}");
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (code, _, said) = outcome(program().args(["healthcheck", "--url", &format!("http://{closed}/readyz")]));
    assert_eq!(code, 1);
    assert!(said.contains("does not respond"), "{said}");
    let (code, _, said) = outcome(program().args(["healthcheck", "--url", "https://127.0.0.1/readyz"]));
    assert_eq!(code, 1);
    assert!(said.contains("is not an http:// URL"), "{said}");
}

#[test]
fn healthcheck_has_a_timeout() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/readyz", silent.local_addr().unwrap());
    let (code, _, said) = outcome(program().args(["healthcheck", "--timeout", "100ms", "--url", &url]));
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("does not respond"), "{said}");
}

#[test]
fn the_version_is_printed() {
    let (code, said, _) = outcome(program().arg("-V"));
    assert_eq!((code, said), (0, format!("metrika-gate {}\n", env!("CARGO_PKG_VERSION"))));
}

#[test]
fn wrong_usage_is_2() {
    for arguments in
        [&["--no-such-flag"][..], &["no-such-command"], &["run", "--workers", "0"], &["run", "--log-format", "xml"]]
    {
        assert_eq!(outcome(program().args(arguments)).0, 2, "{arguments:?}");
    }
}

/// The log's own reader would interpret such a word as the name of a module, and log nothing else.
#[test]
fn an_invalid_log_level_is_refused() {
    for level in ["warning", "x=y=z", ""] {
        let flag = format!("--log-level={level}");
        let (code, _, said) = outcome(program().args(["run", &flag]));
        assert_eq!(code, 2, "{level}: {said}");
        assert!(said.contains("--log-level") && said.contains("off, error, warn, info, debug or trace"), "{said}");
        let files = Files::new();
        files.edit("tokens:\n", &format!("log: {{level: '{level}'}}\ntokens:\n"));
        let (code, said) = files.run(&["check"]);
        assert_eq!(code, 78, "{level}: {said}");
        assert!(said.contains(&format!("log.level: is '{level}'; expected a level (off, error,")), "{said}");
    }
}

#[test]
fn every_flag_has_an_equivalent_in_the_environment() {
    let files = Files::new();
    let config = files.config();
    let with = |command: &str| {
        let mut program = program();
        program.arg(command).env("METRIKA_GATE_CONFIG", &config);
        program
    };
    assert_eq!(outcome(&mut with("check")).0, 0);
    let (_, said, _) = outcome(with("check").env("METRIKA_GATE_FORMAT", "json"));
    assert_eq!(serde_json::from_str::<serde_json::Value>(&said).unwrap()["valid"], true);
    std::fs::remove_file(files.0.path().join("crm")).unwrap();
    assert_eq!(outcome(&mut with("check")).0, 78);
    assert_eq!(outcome(with("check").env("METRIKA_GATE_CHECK_WITHOUT_TOKENS", "true")).0, 0);
    let mut explain = with("explain");
    explain.args(["POST", "/management/v1/counters"]).env("METRIKA_GATE_EXPLAIN_AS", "crm");
    assert_eq!(outcome(&mut explain).0, 0);
    // A flag overrides its variable.
    explain.args(["--as", "reports"]);
    assert_eq!(outcome(&mut explain).0, 1);
    for (name, value) in
        [("METRIKA_GATE_WORKERS", "none"), ("METRIKA_GATE_LOG_FORMAT", "xml"), ("METRIKA_GATE_CONFIG", "/nowhere")]
    {
        let expected = if name == "METRIKA_GATE_CONFIG" { 66 } else { 2 };
        assert_eq!(outcome(with("run").env(name, value)).0, expected, "{name}");
    }
    let health = outcome(program().arg("healthcheck").env("METRIKA_GATE_HEALTHCHECK_URL", "https://h/"));
    assert!(health.2.contains("is not an http:// URL"), "{}", health.2);
    for command in ["run", "check", "doctor", "explain", "suggest", "init", "demo", "fake", "healthcheck"] {
        let (code, help, _) = outcome(program().args([command, "--help"]));
        assert_eq!(code, 0);
        let is_flag = |line: &&str| line.starts_with('-') && !line.starts_with("- ") && !line.contains("--help");
        let flags = help.lines().map(str::trim_start).filter(is_flag);
        assert_eq!(flags.count(), help.matches("[env:").count(), "{command}: {help}");
    }
}

#[test]
fn the_environment_starts_a_gate() {
    let upstream = Upstream::plain();
    let plan = Gate::plan(&upstream, TWO_CALLERS);
    let file: &Path = &plan.file();
    // Without a command it is `run`; that it starts is seen by the address that is taken.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let config =
        std::fs::read_to_string(file).unwrap().replacen("127.0.0.1:0", &taken.local_addr().unwrap().to_string(), 1);
    std::fs::write(file, config).unwrap();
    let (code, _, said) = outcome(program().env("METRIKA_GATE_CONFIG", file));
    assert_eq!(code, 69, "{said}");
}

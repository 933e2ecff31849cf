//! The warnings of `check`, and how every command behaves without a configuration or when its output is not read.

use std::path::Path;

use crate::cli::commands::{Files, outcome};
use crate::harness::files::write_private;
use crate::harness::gate::program;
use crate::harness::{Gate, READ_TOKEN, TWO_CALLERS, Upstream};

#[test]
fn check_warns_of_tokens_that_end_and_of_files_with_two_names() {
    let files = Files::new();
    let in_days = |days: u64| {
        let then = std::time::SystemTime::now() + std::time::Duration::from_secs(days * 24 * 60 * 60 + 3600);
        humantime::format_rfc3339_seconds(then).to_string()
    };
    let (soon, late) = (in_days(29), in_days(30));
    let tokens = format!(
        "scopes: [metrika:write]}}
  old: {{file: FOLDER/old, scopes: [metrika:read], expires: 2020-01-01}}
  soon: {{file: FOLDER/soon, scopes: [metrika:read], expires: '{soon}'}}
  late: {{file: FOLDER/late, scopes: [metrika:read], expires: '{late}'}}
  twin: {{file: FOLDER/crm, scopes: [metrika:write], owner: a, standby: link}}
  link: {{file: FOLDER/link, scopes: [metrika:write], owner: a}}
",
    );
    files.edit("scopes: [metrika:write]}\n", &tokens.replace("FOLDER", &files.0.path().display().to_string()));
    files.edit("tokens: [analytics, crm]}", "tokens: [analytics, crm, old, soon, late, twin]}");
    for name in ["old", "soon", "late"] {
        write_private(&files.0.path().join(name), READ_TOKEN);
    }
    std::os::unix::fs::symlink(files.0.path().join("crm"), files.0.path().join("link")).unwrap();
    let (code, said) = files.run(&["check"]);
    assert_eq!(code, 0, "{said}");
    insta::assert_snapshot!(said.replace(&soon, "SOON"), @"
    warning: FOLDER/gate.yaml:11:69 tokens.old.expires: token 'old' expired at 2020-01-01T00:00:00Z, according to 'expires'
    warning: FOLDER/gate.yaml:12:71 tokens.soon.expires: token 'soon' expires in 29 days, at SOON: issue a new token before then
    warning: FOLDER/gate.yaml:14:16 tokens.twin.file: tokens 'crm' and 'twin' have the same file, so they are the same token
    warning: FOLDER/gate.yaml:15:16 tokens.link.file: tokens 'crm' and 'link' have the same file, so they are the same token
    note: FOLDER/gate.yaml:9:14 tokens.analytics: the callers reports, crm share the account of token 'analytics'; without 'quota', one of them can use all of its 3 parallel requests and the whole day (docs/quota.md)
    the configuration is valid: 2 listeners, 2 callers, 7 tokens, 127 operations
    ");
    // With the files elsewhere, only the configuration itself is checked.
    let (code, said) = files.run(&["check", "--without-tokens"]);
    assert!(code == 0 && said.contains("'crm' and 'twin'") && !said.contains("'crm' and 'link'"), "{said}");
}

#[test]
fn check_warns_of_secrets_that_the_running_gate_can_read() {
    let files = Files::new();
    let at = files.0.path().display().to_string();
    let own = tempfile::tempdir().unwrap();
    let keys = format!(
        "scopes: [metrika:write], client_secret_file: {at}/secret, refresh_file: {}/refresh}}\n",
        own.path().display()
    );
    files.edit("scopes: [metrika:write]}\n", &keys);
    let warned = || {
        let (code, said) = files.run(&["check"]);
        assert_eq!(code, 0, "{said}");
        said.lines()
            .filter(|line| line.contains("the running gate does not need"))
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let said = warned();
    assert!(
        said.len() == 1 && said[0].contains("tokens.crm.client_secret_file") && said[0].contains("move the file"),
        "{said:?}"
    );
    files.edit(&format!("client_secret_file: {at}/secret"), "client_secret_file: /etc/metrika-gate/secrets/crm");
    assert_eq!(warned().len(), 1, "/etc is readable as a whole");
    files.edit("client_secret_file: /etc/metrika-gate/secrets/crm, ", "");
    assert_eq!(warned(), [""; 0]);
}

#[test]
fn check_warns_of_a_listener_that_nobody_can_use() {
    let files = Files::new();
    let at = files.0.path().display().to_string();
    let socket = format!(
        "listeners:\n  - {{name: tcp, address: '127.0.0.1:0'}}\n  - {{name: socket, unix: {{path: '{at}/s'}}}}\n"
    );
    files.edit("listeners:\n", &socket);
    files.edit("match: {listener: crm}", "match: {uid: [7]}");
    let (code, said) = files.run(&["check"]);
    assert_eq!(code, 0, "{said}");
    let said: Vec<_> = said.lines().filter(|line| line.contains("no caller can match")).collect();
    insta::assert_snapshot!(said.join("\n"), @"
    warning: FOLDER/gate.yaml:3:5 listeners[0]: no caller can match on listener 'tcp': every request there is refused with 401
    warning: FOLDER/gate.yaml:6:5 listeners[3]: no caller can match on listener 'crm': every request there is refused with 401
    ");
}

/// `head -1` has seen enough, which is no error; a health that nobody reads is.
#[test]
fn a_reader_that_is_gone_is_no_error() {
    let files = Files::new();
    let config = files.config();
    let gone = |arguments: &[&str], config: Option<&Path>| {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = program();
        command.args(arguments).stdout(writer);
        config.map(|config| command.arg("--config").arg(config));
        outcome(&mut command)
    };
    let log = files.0.path().join("log");
    let line =
        r#"{"target":"access","caller":"crm","operation":"counters.list","method":"GET","status":200,"token":"crm"}"#;
    std::fs::write(&log, line).unwrap();
    let log = log.to_str().unwrap();
    for arguments in [
        &["explain", "POST", "/management/v1/counters"][..],
        &["explain", "--from", log],
        &["suggest", "--from", log],
        &["check"],
    ] {
        assert_eq!(gone(arguments, Some(&config)), (0, String::new(), String::new()), "{arguments:?}");
    }
    assert_eq!(gone(&["init"], None), (0, String::new(), String::new()));
    let upstream = Upstream::plain();
    let gate = Gate::start(&upstream, TWO_CALLERS);
    let url = format!("http://{}/livez", gate.admin_place());
    assert_eq!(gone(&["healthcheck", "--url", &url], None).0, 1);
}

#[test]
fn a_missing_configuration_is_reported_with_the_way_to_make_one() {
    let hint = "; use --config FILE for another file, or `metrika-gate init` to print a minimal one\n";
    for arguments in [&["run"][..], &["check"], &["explain", "GET", "/"], &[]] {
        let (code, _, said) = outcome(program().args(arguments));
        assert_eq!(code, 66, "{said}");
        assert!(said.starts_with("metrika-gate: /etc/metrika-gate/gate.yaml: ") && said.ends_with(hint), "{said}");
    }
    let (_, _, said) = outcome(program().args(["check", "--config", "/nowhere/gate.yaml"]));
    assert!(!said.contains("init"), "{said}");
}

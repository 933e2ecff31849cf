//! The surroundings of a command: environment variables, files, a pipe; and the messages that they cause.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::cli::commands::{Files, outcome};
use crate::harness::gate::program;
use crate::harness::{Gate, TWO_CALLERS, Upstream};

#[test]
fn variables_accept_common_boolean_values() {
    let files = Files::new();
    std::fs::remove_file(files.0.path().join("crm")).unwrap();
    let check = |name: &str, value: &str, more: &[&str]| {
        let mut program = program();
        program.arg("check").arg("--config").arg(files.config()).args(more).env(name, value);
        let (code, out, error) = outcome(&mut program);
        (code, out + &error)
    };
    let without = "METRIKA_GATE_CHECK_WITHOUT_TOKENS";
    for (value, code) in [
        ("1", 0),
        ("true", 0),
        ("yes", 0),
        ("On", 0),
        ("0", 78),
        ("false", 78),
        ("no", 78),
        ("off", 78),
        ("", 78),
        ("FALSE", 78),
    ] {
        assert_eq!(check(without, value, &[]).0, code, "{value:?}");
    }
    // A variable that is off conflicts with nothing.
    assert_eq!(check("METRIKA_GATE_CHECK_ONLINE", "0", &["--without-tokens"]).0, 0);
    assert_eq!(check("METRIKA_GATE_CHECK_ONLINE", "", &["--without-tokens"]).0, 0);
    for (name, value, more, expected) in [
        (without, "maybe", &[][..], "invalid value 'maybe' for 'METRIKA_GATE_CHECK_WITHOUT_TOKENS'"),
        ("METRIKA_GATE_FORMAT", "xml", &[], "invalid value 'xml' for 'METRIKA_GATE_FORMAT'"),
        (
            "METRIKA_GATE_CHECK_ONLINE",
            "1",
            &["--without-tokens"],
            "the argument '--without-tokens' cannot be used with 'METRIKA_GATE_CHECK_ONLINE'",
        ),
        // The flag is the wrong one here.
        ("METRIKA_GATE_FORMAT", "json", &["--format", "xml"], "invalid value 'xml' for '--format <FORM>'"),
    ] {
        let (code, said) = check(name, value, more);
        assert!(code == 2 && said.contains(expected), "{name}={value}: {code} {said}");
    }
    // A command ignores invalid values of other commands' variables, and every command ignores empty ones.
    assert_eq!(check("METRIKA_GATE_WORKERS", "none", &["--without-tokens"]).0, 0);
    for name in ["METRIKA_GATE_WORKERS", "METRIKA_GATE_LOG_LEVEL", "METRIKA_GATE_LOG_FORMAT", "METRIKA_GATE_CONFIG"] {
        let (code, _, said) = outcome(program().env(name, ""));
        assert!(code == 66 && said.contains("/etc/metrika-gate/gate.yaml"), "{name}: {code} {said}");
    }
    for arguments in [&[][..], &["check"]] {
        let (code, _, said) = outcome(program().args(arguments).env("METRIKA_GATE_CONFIG", "/nowhere/gate.yaml"));
        assert!(code == 66 && said.ends_with("; METRIKA_GATE_CONFIG sets this path\n"), "{arguments:?}: {said}");
    }
    let (code, _, said) = outcome(program().env("METRIKA_GATE_WORKERS", "none"));
    assert!(code == 2 && said.contains("for 'METRIKA_GATE_WORKERS'"), "{said}");
}

#[test]
fn a_file_in_the_place_of_a_flag_hints_at_it() {
    for arguments in [
        &["run", "gate.yaml"][..],
        &["check", "gate.yaml"],
        &["gate.yaml"],
        &["doctor", "gate.yaml"],
        &["healthcheck", "gate.yaml"],
    ] {
        let (code, _, said) = outcome(program().args(arguments));
        assert!(
            code == 2 && said.contains("to use a configuration, pass '--config gate.yaml'"),
            "{arguments:?}: {said}"
        );
    }
    let (code, _, said) = outcome(program().arg("chekc"));
    assert!(code == 2 && said.contains("'check'") && !said.contains("--config chekc"), "{said}");
}

#[test]
fn healthcheck_finds_the_admin_listener_and_waits_for_it() {
    let upstream = Upstream::plain();
    let gate = Gate::plan(&upstream, TWO_CALLERS).without("analytics").without("crm").start();
    let config = gate.file("copy.yaml");
    let port = gate.admin_place().rsplit(':').next().unwrap().to_owned();
    let write = |text: &str| std::fs::write(&config, text).unwrap();
    let ask = |more: &[&str]| outcome(program().args(["healthcheck", "--config"]).arg(&config).args(more));
    // The rest of the file is not checked, and the address of all interfaces includes loopback.
    write(&format!("admin: {{address: '0.0.0.0:{port}'}}\nmistake: 1\n"));
    let (code, said, _) = ask(&[]);
    assert!(code == 1 && said.contains("[-] token crm"), "{said}");
    let start = Instant::now();
    assert_eq!(ask(&["--wait", "500ms"]).0, 1);
    assert!(start.elapsed() >= Duration::from_millis(300), "{:?}", start.elapsed());
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| ask(&["--wait", "30s"]));
        std::thread::sleep(Duration::from_millis(300));
        gate.replace_token("crm", "y0_canaryWRITEcanary0123456789abcdef");
        assert_eq!(waiting.join().unwrap().0, 0);
    });
    assert!(start.elapsed() < Duration::from_secs(20));
    let here = format!("http://127.0.0.1:{port}/livez");
    assert_eq!(ask(&["--url", &here]).1, "ok\n");
    let (code, _, said) = outcome(program().args(["healthcheck", "--config", "/nowhere/gate.yaml"]));
    assert!(code == 1 && said.contains("/nowhere/gate.yaml") && said.contains("using 127.0.0.1:9090"), "{said}");
    // A running gate keeps its configuration when its file becomes invalid.
    for (text, mode) in [("admin: {address: [", 0o600), ("admin: {address: '127.0.0.1:1'}", 0o606)] {
        write(text);
        std::fs::set_permissions(&config, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
        let (_, _, said) = ask(&["--timeout", "1s"]);
        let why = if mode == 0o600 { "does not configure the admin listener" } else { "is writable by everyone" };
        assert!(said.contains(why) && said.contains("; using 127.0.0.1:9090"), "{said}");
    }
}

/// Runs it with `input` on stdin.
fn piped(command: &mut Command, input: &str) -> (i32, String) {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // A command that does not want its stdin may have ended by now.
    let written = child.stdin.take().unwrap().write_all(input.as_bytes());
    assert!(written.is_ok() || written.is_err_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe));
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    (output.status.code().unwrap(), said)
}

#[test]
fn a_configuration_comes_through_a_pipe() {
    let files = Files::new();
    let config = std::fs::read_to_string(files.config()).unwrap();
    let (code, said) = piped(program().args(["check", "--config", "-"]), &config);
    assert!(code == 0 && said.contains("the configuration is valid"), "{said}");
    let (code, said) = piped(program().args(["check", "--config", "-"]), &config.replace("id: crm", "id: reports"));
    assert!(code == 78 && said.contains("error: <stdin>:7:5 callers[1]: duplicate id 'reports'"), "{said}");
    let explain = ["explain", "GET", "/management/v1/counters", "--as", "reports", "--config", "-"];
    assert_eq!(piped(program().args(explain), &config).0, 0);
    for command in [&["explain", "--from", "-", "--config", "-"], &["suggest", "--from", "-", "--config", "-"]] {
        let (code, said) = piped(program().args(command), &config);
        assert!(code == 1 && said.contains("stdin cannot be both the log and the configuration"), "{said}");
    }
    let (code, said) = piped(program().args(["run", "--config", "-"]), "");
    assert!(code == 66 && said.contains("reads its configuration from a file, not from stdin"), "{said}");
}

#[test]
fn check_for_machines_has_the_place_of_each_thing_in_fields() {
    let files = Files::new();
    let at = files.0.path().display().to_string();
    std::fs::remove_file(files.0.path().join("analytics")).unwrap();
    files.edit("tokens: [analytics, crm]}", "tokens: [analytics]}");
    let (code, said) = files.json(&["check"]);
    let file = "FOLDER/gate.yaml";
    assert_eq!(code, 78);
    assert_eq!(
        said["mistakes"],
        serde_json::json!([{
            "file": file, "line": 9, "column": 21, "key": "tokens.analytics.file",
            "message": "FOLDER/analytics: the file of token 'analytics' is missing; put a token there, or run `metrika-gate token login analytics`",
        }])
    );
    assert_eq!(
        said["warnings"],
        serde_json::json!([
            {
                "file": file, "line": 7, "column": 5, "key": "callers[1]",
                "message": "caller 'crm' has metrika:write, but none of its tokens does",
            },
            { "file": file, "line": 10, "column": 8, "key": "tokens.crm", "message": "no caller uses token 'crm'" },
        ])
    );
    files.edit("callers:", "colors:");
    let said = files.json(&["check"]).1;
    let places: Vec<_> = said["mistakes"].as_array().unwrap().iter().map(|one| (&one["line"], &one["key"])).collect();
    assert_eq!(places.last().unwrap(), &(&9.into(), &"tokens.analytics.file".into()), "{said}");
    assert!(places.contains(&(&5.into(), &"colors".into())), "{said}");
    std::fs::write(files.config(), "a: [").unwrap();
    let said = files.json(&["check"]).1;
    assert_eq!((&said["mistakes"][0]["line"], &said["mistakes"][0]["key"]), (&2.into(), &serde_json::Value::Null));
    assert!(!said.to_string().contains(&at));
}

#[test]
fn check_warns_of_a_scope_that_no_token_of_the_caller_covers() {
    for (caller, token, warned) in [
        ("metrika:write", "metrika:expenses", Some("metrika:write")),
        ("metrika:write", "metrika:read", Some("metrika:write")),
        ("metrika:read", "metrika:write", Some("metrika:read")),
        ("metrika:expenses", "metrika:user_params", Some("metrika:expenses")),
        ("metrika:expenses", "metrika:write", None),
        ("metrika:write", "metrika:write", None),
    ] {
        let files = Files::new();
        files.edit(
            "scopes: [metrika:read, metrika:write], tokens: [analytics, crm]",
            &format!("scopes: [{caller}], tokens: [crm]"),
        );
        files.edit("scopes: [metrika:write]}\n", &format!("scopes: [{token}]}}\n"));
        let said = files.run(&["check"]).1;
        let expected = warned.map(|scope| format!("caller 'crm' has {scope}, but none of its tokens does"));
        assert_eq!(said.contains("none of its tokens does"), expected.is_some(), "{caller} {token}: {said}");
        assert!(said.contains(&expected.unwrap_or_default()), "{caller} {token}: {said}");
    }
}

#[test]
fn a_right_of_another_service_is_reported_with_its_place() {
    let files = Files::new();
    files.edit("scopes: [metrika:write]}\n", "scopes: [metrika:write, passport:business]}\n");
    let (code, said) = files.run(&["check"]);
    assert_eq!(code, 78);
    assert!(
        said.contains("is 'passport:business'; expected metrika:read,")
            && said.contains("to the application at oauth.yandex.ru"),
        "{said}"
    );
}

#[test]
fn a_relative_path_is_reported_with_its_base_folder() {
    let files = Files::new();
    let at = files.0.path().display().to_string();
    files.edit(&format!("'{at}/crm'"), "secrets/crm");
    let there = std::env::temp_dir();
    let check = |config: &Path| {
        let (_, out, error) = outcome(program().arg("check").arg("--config").arg(config).current_dir(&there));
        out + &error
    };
    let relative = format!(" (relative to the working directory {})", there.canonicalize().unwrap().display());
    let said = check(&files.config());
    assert!(said.contains(&format!("secrets/crm{relative}: the file of token 'crm' is missing")), "{said}");
    let said = check(Path::new("nowhere/gate.yaml"));
    assert!(said.contains(&format!("nowhere/gate.yaml{relative}: cannot read the configuration")), "{said}");
    files.edit("tokens:\n", "upstream: {ca_file: none.pem}\ntokens:\n");
    let said = check(&files.config());
    assert!(
        said.contains(&format!("a readable certificate file (No such file or directory (os error 2)){relative}")),
        "{said}"
    );
}

#[test]
fn variables_are_not_expanded_and_the_message_reports_that() {
    for (from, to, expected) in [
        ("'FOLDER/crm'", "'${CRM}'", "expected the path of a file; the gate does not expand variables"),
        (
            "'FOLDER/crm'",
            "$CREDENTIALS_DIRECTORY/crm",
            "expected the path of a file; the gate does not expand variables",
        ),
        ("'FOLDER/crm'", "~/crm", "expected the path of a file; the gate does not expand '~'"),
        (
            "tokens:\n",
            "workers: ${N}\ntokens:\n",
            "expected a number from 1 to 1024; the gate does not expand variables",
        ),
        (
            "tokens:\n",
            "workers: '{{ n }}'\ntokens:\n",
            "expected a number from 1 to 1024; the gate does not expand templates",
        ),
        ("'FOLDER/crm'", "${CRM}", "; the gate does not expand variables"),
        ("scopes: [metrika:write]}\n", "scopes: [metrika:write}\n", "; the '[' at line 10, column "),
    ] {
        let files = Files::new();
        files.edit(&from.replace("FOLDER", &files.0.path().display().to_string()), to);
        let (code, said) = files.run(&["check"]);
        assert!(code == 78 && said.contains(expected), "{to}: {said}");
    }
}

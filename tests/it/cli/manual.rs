//! Manual pages, completions, and the version.

use std::process::{Command, Stdio};

use crate::harness::gate::program;

fn out(arguments: &[&str]) -> String {
    let output = program().args(arguments).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// The names of all commands, with a space between a command and one inside it.
fn commands() -> Vec<String> {
    let of = |arguments: &[&str]| {
        let help = out(&[arguments, &["--help"]].concat());
        let list = help.split_once("Commands:\n").map_or("", |(_, list)| list);
        let lines = list.lines().take_while(|line| !line.is_empty());
        let names = lines.filter_map(|line| line.strip_prefix("  ")?.split(' ').next()).filter(|name| !name.is_empty());
        names.filter(|name| *name != "help").map(str::to_owned).collect::<Vec<_>>()
    };
    let mut all = of(&[]);
    for outer in all.clone() {
        all.extend(of(&[&outer]).iter().map(|inner| format!("{outer} {inner}")));
    }
    assert!(all.len() > 18 && all.iter().any(|name| name == "token login"), "{all:?}");
    all
}

/// `groff` finds macros that are wrong; without it, only the text is checked.
fn formatted(page: &str) -> Option<String> {
    let mut child = Command::new("groff")
        .args(["-man", "-ww", "-Tutf8", "-P-cbou", "-rLL=100n"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .ok()?;
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), page.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(String::from_utf8(output.stdout).unwrap())
}

#[test]
fn there_is_a_page_for_every_command() {
    let folder = tempfile::tempdir().unwrap();
    let said = out(&["man", "--out", folder.path().to_str().unwrap()]);
    let commands = commands();
    assert!(said.starts_with(&format!("wrote {} pages", commands.len() + 1)), "{said}");
    for command in &commands {
        let file = folder.path().join(format!("metrika-gate-{}.1", command.replace(' ', "-")));
        let page = std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        assert!(page.contains(".SH NAME") && page.contains(".SH SYNOPSIS"), "{command}");
        assert_eq!(page, out(&[["man"].as_slice(), &command.split(' ').collect::<Vec<_>>()].concat()), "{command}");
    }
    formatted(&std::fs::read_to_string(folder.path().join("metrika-gate-token-login.1")).unwrap());
}

#[test]
fn the_page_of_the_program_has_what_the_help_has() {
    let page = out(&["man"]);
    for section in ["NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS", "SUBCOMMANDS", "EXAMPLES", "EXIT STATUS", "FILES"] {
        assert!(
            page.contains(&format!(".SH \"{section}\"")) || page.contains(&format!(".SH {section}\n")),
            "{section}: {page}"
        );
    }
    let Some(text) = formatted(&page) else { return };
    assert!(
        text.contains("metrika-gate token login analytics --config gate.yaml  get a token from Yandex\n"),
        "{text}"
    );
    assert!(
        text.contains("  78  invalid configuration or token") || text.contains(" 78  invalid configuration"),
        "{text}"
    );
    assert!(text.contains("/etc/metrika-gate/gate.yaml") && text.contains("METRIKA_GATE_WORKERS"), "{text}");
}

#[test]
fn a_page_of_no_command_is_wrong_usage() {
    let output = program().args(["man", "token", "nothing"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("unknown command 'token nothing'"));
}

#[test]
fn every_shell_completes_every_command() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = out(&["completions", shell]);
        for word in ["client-env", "healthcheck", "login", "log-level"] {
            assert!(script.contains(word), "{shell}: {word}");
        }
        if Command::new(shell).arg("--version").stdout(Stdio::null()).status().is_ok_and(|status| status.success()) {
            let folder = tempfile::tempdir().unwrap();
            let file = folder.path().join("script");
            std::fs::write(&file, &script).unwrap();
            let read = Command::new(shell).arg("-n").arg(&file).output().unwrap();
            assert!(read.status.success(), "{shell}: {read:?}");
        }
    }
}

#[test]
fn the_version_has_the_commit_and_the_features() {
    let lines: Vec<_> = out(&["--version"]).lines().map(str::to_owned).collect();
    assert_eq!(lines[0], format!("metrika-gate {}", env!("CARGO_PKG_VERSION")));
    assert!(lines[1].starts_with("commit    ") && lines[2].contains("systemd-descriptor-store"), "{lines:?}");
    assert_eq!(out(&["-V"]).trim_end(), lines[0]);
}

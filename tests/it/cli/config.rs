//! Failed starts: the exit code tells the kind of mistake, the text tells the valid form, and
//! neither contains a secret.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::harness::files::write_private;
use crate::harness::gate::program;
use crate::harness::{Gate, READ_TOKEN, TWO_CALLERS, Upstream};

const SECRET: &str = "y0_AgAAAAAsecretsecretsecretsecret";

#[test]
fn all_mistakes_are_reported_at_once_and_the_code_is_78() {
    let upstream = Upstream::plain();
    let config = format!(
        "
listeners:
  - {{name: app, address: '0.0.0.0:0'}}
tokens:
  analytics: {{token: {SECRET}, scopes: [metrika:read]}}
  crm: {{file: {SECRET}, scopes: [{SECRET}]}}
  bare: {SECRET}
callers:
  - {{id: reports, match: {{listener: {SECRET}}}, scopes: [metrika:read], tokens: [{SECRET}x]}}
  - {{id: '{SECRET} ', match: {{listener: app, source: ['{SECRET}']}}, scopes: [metrika:read], tokens: [analytics]}}
unknown_operations: {SECRET}
timeouts: {{keep_alive: {SECRET}}}
log: {{level: {SECRET}}}
"
    );
    let (code, said) = Gate::plan(&upstream, &config).fails();
    assert_eq!(code, 78, "{said}");
    for place in [
        "gate.yaml:3:26 listeners[0].address:",
        "gate.yaml:5:14 tokens.analytics: the key 'file' is missing",
        "tokens.analytics.token: unknown key; set 'file' to the path of the token file",
        "tokens.crm.scopes[0]:",
        "tokens.bare: is a string; expected a mapping",
        "callers[0].match.listener:",
        "callers[0].tokens[0]:",
        "callers[1].id:",
        "callers[1].match.source[0]:",
        "unknown_operations:",
        "timeouts.keep_alive:",
        "mistakes in the configuration",
    ] {
        assert!(said.contains(place), "{place} is not in\n{said}");
    }
    assert!(!said.contains("AgAAAAA"), "{said}");
}

#[test]
fn invalid_yaml_is_78_too() {
    let upstream = Upstream::plain();
    for config in ["listeners: [", "a: b: c", "\t", "- 1", "42", "listeners: &a [*a]\n", "tokens: {}\ntokens: {}\n"] {
        let plan = Gate::plan(&upstream, TWO_CALLERS);
        let file = plan.file();
        std::fs::write(&file, config).unwrap();
        let output = program().arg("run").arg("--config").arg(&file).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(78), "{config:?}: {said}");
        assert!(said.contains("gate.yaml"), "{config:?}: {said}");
    }
}

#[test]
fn a_configuration_that_is_not_there_is_66() {
    let folder = tempfile::tempdir().unwrap();
    for file in [folder.path().join("gate.yaml"), folder.path().to_owned()] {
        let output = program().arg("run").arg("--config").arg(&file).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(66), "{said}");
        assert!(said.contains(file.to_str().unwrap()), "{said}");
    }
}

#[test]
fn an_address_in_use_is_69() {
    let upstream = Upstream::plain();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let callers = "callers: [{id: reports, match: {listener: app}, scopes: [metrika:read], tokens: [analytics]}]";
    let listener = format!("\nlisteners: [{{name: app, address: '{address}'}}]\n{callers}\n");
    let (code, said) = Gate::plan(&upstream, &listener).fails();
    assert_eq!(code, 69, "{said}");
    assert!(said.contains("cannot open listener 'app'"), "{said}");
    let admin =
        format!("\nlisteners: [{{name: app, address: '127.0.0.1:0'}}]\n{callers}\nadmin: {{address: '{address}'}}\n");
    let (code, said) = Gate::plan(&upstream, &admin).fails();
    assert_eq!(code, 69, "{said}");
    assert!(said.contains(&format!("the admin listener cannot listen on {address}")), "{said}");
}

#[test]
fn an_address_that_another_gate_has_is_not_shared() {
    let upstream = Upstream::plain();
    let gate = Gate::start(&upstream, TWO_CALLERS);
    let config = TWO_CALLERS.replacen("127.0.0.1:0", gate.place("app"), 1);
    let (code, said) = Gate::plan(&upstream, &config).fails();
    assert_eq!(code, 69, "{said}");
    assert_eq!(gate.get("app", "/management/v1/counters").summary(), "200");
}

#[test]
fn a_token_that_others_can_read_is_77_and_the_fix_is_reported() {
    let upstream = Upstream::plain();
    for mode in [0o644, 0o604, 0o620, 0o610, 0o777] {
        let plan = Gate::plan(&upstream, TWO_CALLERS);
        let file = plan.folder().join("analytics");
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
        let (code, said) = plan.fails();
        assert_eq!(code, 77, "{mode:o}: {said}");
        assert!(said.contains(&format!("chmod 0600 {}", file.display())), "{said}");
        assert!(said.contains(&format!("mode {mode:04o}")), "{said}");
        assert!(!said.contains(READ_TOKEN), "{said}");
    }
    for mode in [0o400, 0o440, 0o600, 0o640] {
        let plan = Gate::plan(&upstream, TWO_CALLERS);
        std::fs::set_permissions(plan.folder().join("analytics"), std::fs::Permissions::from_mode(mode)).unwrap();
        assert_eq!(plan.start().get("app", "/management/v1/counters").summary(), "200", "{mode:o}");
    }
}

#[test]
fn a_world_writable_file_or_folder_is_77_and_the_fix_is_reported() {
    let upstream = Upstream::plain();
    let set = |path: &Path, mode| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    // A user with write access to the folder can replace the configuration or a token.
    for (of_folder, of_file, code, expected) in [
        (0o777, 0o600, 77, "is writable by everyone (mode 777) and not sticky; chmod o-w it"),
        (0o755, 0o606, 77, "the configuration is rejected: it is writable by everyone (mode 606); chmod o-w it"),
    ] {
        let plan = Gate::plan(&upstream, TWO_CALLERS);
        // Its mode stays when it is written again.
        set(&plan.file(), of_file);
        set(plan.folder(), of_folder);
        let failed = plan.fails();
        assert!(failed.0 == code && failed.1.contains(expected), "{of_folder:o} {of_file:o}: {failed:?}");
    }
    let tokens = tempfile::tempdir().unwrap();
    let elsewhere = tokens.path().join("analytics");
    write_private(&elsewhere, READ_TOKEN);
    set(tokens.path(), 0o777);
    let config = format!(
        "{TWO_CALLERS}
tokens:
  analytics: {{file: {elsewhere:?}, scopes: [metrika:read]}}
  crm: {{file: '{{folder}}/crm', scopes: [metrika:write]}}
"
    );
    let (code, said) = Gate::plan(&upstream, &config).fails();
    assert!(code == 77 && said.contains("is writable by everyone (mode 777)"), "{code} {said}");
    set(tokens.path(), 0o1777);
    assert_eq!(Gate::start(&upstream, &config).get("app", "/management/v1/counters").summary(), "200");
}

#[test]
fn a_folder_in_place_of_a_token_file_is_78() {
    let upstream = Upstream::plain();
    let plan = Gate::plan(&upstream, TWO_CALLERS).without("analytics");
    std::fs::create_dir(plan.folder().join("analytics")).unwrap();
    let (code, said) = plan.fails();
    assert!(code == 78 && said.contains("it is not a regular file"), "{code} {said}");
}

///
#[test]
fn an_invalid_token_is_78_and_not_printed() {
    let upstream = Upstream::plain();
    for (content, what) in [
        (String::new(), "is empty"),
        ("\n".to_owned(), "is empty"),
        (format!("{SECRET}\n\n"), "a line break"),
        (format!("{SECRET}\r\nX-Injected: 1"), "a line break"),
        (format!(" {SECRET}"), "white space"),
        (format!("OAuth {SECRET}"), "begins with 'OAuth '"),
        (
            format!(
                "https://oauth.yandex.ru/verification_code#access_token={SECRET}&token_type=bearer&expires_in=31536000\n"
            ),
            "contains a URL; write only the token, which is the part between 'access_token='",
        ),
        (format!("#access_token={SECRET}&token_type=bearer"), "contains a URL"),
        (
            format!("{{\n  \"token_type\": \"bearer\",\n  \"access_token\": \"{SECRET}\"\n}}\n"),
            "contains JSON; write only the token, which is the value of access_token",
        ),
        (format!("{SECRET}\0"), "a control character"),
        (format!("{SECRET}\u{430}"), "not ASCII"),
        (format!("\"{SECRET}\""), "punctuation"),
        (SECRET.repeat(60), "contains more than 1024 bytes"),
        (SECRET.repeat(600), "file"),
        ("demo-token-of-nobody-0000".to_owned(), "is a demo token"),
    ] {
        let (code, said) = Gate::plan(&upstream, TWO_CALLERS).token("analytics", &content).fails();
        assert_eq!(code, 78, "{what}: {said}");
        assert!(said.contains(what) && said.contains("'analytics'"), "{what}: {said}");
        assert!(!said.contains("AgAAAAA") && !said.contains("demo-token-of"), "{what}: {said}");
    }
}

#[test]
fn all_bad_tokens_are_reported_at_once() {
    let upstream = Upstream::plain();
    let (code, said) = Gate::plan(&upstream, TWO_CALLERS).token("analytics", "").token("crm", "two words").fails();
    assert_eq!(code, 78, "{said}");
    assert!(said.contains("'analytics'") && said.contains("'crm'"), "{said}");
}

#[test]
fn a_final_newline_of_a_token_file_is_ignored() {
    let upstream = Upstream::plain();
    let gate = Gate::plan(&upstream, TWO_CALLERS).token("analytics", &format!("{READ_TOKEN}\n")).start();
    assert_eq!(gate.get("app", "/management/v1/counters").summary(), "200");
    assert!(upstream.requests()[0].contains(&format!("authorization: OAuth {READ_TOKEN}\r\n")));
}

#[test]
fn a_short_token_is_accepted_with_a_warning() {
    let upstream = Upstream::plain();
    let gate = Gate::plan(&upstream, TWO_CALLERS).token("analytics", "y0_canarySHORT").start();
    let line = gate.until_log(&["\"WARN\"", "the token is shorter than any", "\"token\":\"analytics\""]);
    assert!(!line.contains("canary"), "{line}");
    assert!(!gate.log().iter().any(|line| line.contains("shorter than any") && line.contains("\"crm\"")));
    assert_eq!(gate.get("app", "/management/v1/counters").summary(), "200");
    assert!(upstream.requests()[0].contains("authorization: OAuth y0_canarySHORT\r\n"));
}

#[test]
fn a_secret_in_place_of_its_file_is_not_repeated() {
    let upstream = Upstream::plain();
    let page = "https://oauth.yandex.ru/verification_code#access_token=y0_AgAAAAAsecret&token_type=bearer";
    for (secret, named) in [
        ("y0_AgAAAAAsecret", "looks like a token itself"),
        ("AQAAAAAAgAAAAAsecret", "looks like a token itself"),
        ("0123456789abcdef0123456789agAAAAA", "looks like a token itself"),
        (page, "looks like a URL"),
    ] {
        let config = format!("{TWO_CALLERS}\ntokens:\n  analytics: {{file: '{secret}', scopes: [metrika:read]}}\n");
        let (code, said) = Gate::plan(&upstream, &config).fails();
        assert_eq!(code, 78, "{said}");
        assert!(said.contains(&format!("this {named}")) && !said.contains("gAAAAA"), "{said}");
    }
}

#[test]
fn a_secret_in_place_of_a_key_is_not_repeated() {
    let upstream = Upstream::plain();
    let config = format!(
        "{TWO_CALLERS}\ntokens:\n  y0_AgAAAAAsecretsecretsecret: {{scopes: []}}\ny0_AgAAAAAtoplevel0123456789: 1\n"
    );
    let (code, said) = Gate::plan(&upstream, &config).fails();
    assert_eq!(code, 78, "{said}");
    assert!(said.contains("tokens.y0_A…") && !said.contains("AgAAAAA"), "{said}");
}

//! Uses of access lines: `suggest` and `explain --from`, on the log of a gate that ran; and `init`.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use metrika_gate::config::Config;
use metrika_gate::policy::rules::List;
use serde_json::{Value, json};

use crate::harness::gate::program;
use crate::harness::{Gate, Upstream};

const CALLERS: &str = "
listeners:
  - {name: app, address: '127.0.0.1:0'}
  - {name: crm, address: '127.0.0.1:0'}
callers:
  - {id: reports, match: {listener: app, source: [127.0.0.0/8]}, scopes: [metrika:read, metrika:write], tokens: [analytics, crm]}
  - {id: crm, match: {listener: crm}, scopes: [metrika:read, metrika:write], tokens: [analytics, crm], callback: allow}
  - {id: idle, match: {source: [127.0.0.2]}, scopes: [metrika:read], tokens: [analytics]}

# how long
timeouts: {keep_alive: 70s}
";

/// A gate that has served, and its log in a file.
struct Served {
    gate: Gate,
    log: PathBuf,
}

impl Served {
    fn new() -> Self {
        let upstream = Upstream::plain();
        let gate = Gate::start(&upstream, CALLERS);
        let mut requests = 0;
        let mut send = |listener: &str, method: &str, target: &str, status: u16| {
            let body = if method == "GET" { "" } else { "Content-Type: application/json\r\nContent-Length: 2\r\n" };
            let rest = if method == "GET" { "" } else { "{}" };
            let request = format!("{method} {target} HTTP/1.1\r\nHost: localhost\r\n{body}\r\n{rest}");
            assert_eq!(gate.send(listener, request).status, status, "{method} {target}");
            requests += 1;
        };
        send("app", "GET", "/stat/v1/data?ids=12,11&metrics=ym:s:visits", 200);
        send("app", "GET", "/stat/v1/data?ids=12&ulogin=shop-x", 200);
        send("app", "GET", "/management/v1/counters", 200);
        send("crm", "GET", "/nothing/here", 404);
        send("crm", "POST", "/management/v1/counter/13/expense/upload", 200);
        send("crm", "DELETE", "/management/v1/counter/13/goal/5", 200);
        send("crm", "POST", "/management/v1/counters", 200);
        gate.until_metric(&["requests_total"], f64::from(requests));
        let log = gate.file("access.log");
        crate::harness::gate::until("the log is whole", || {
            let lines = gate.log();
            std::fs::write(&log, lines.join("\n")).unwrap();
            lines.iter().filter(|line| line.contains("\"target\":\"access\"")).count() == 7
        });
        Self { gate, log }
    }

    /// Exit code, and stdout or else stderr.
    fn run(&self, arguments: &[&str]) -> (i32, String) {
        let output = program().args(arguments).output().unwrap();
        let said = if output.stdout.is_empty() { output.stderr } else { output.stdout };
        (output.status.code().unwrap(), String::from_utf8(said).unwrap())
    }

    fn suggest(&self, config: Option<&Path>) -> String {
        let (log, config) = (self.log.to_str().unwrap(), config.map(|config| config.to_str().unwrap()));
        let with: Vec<_> = config.iter().flat_map(|config| ["--config", config]).collect();
        let (code, said) = self.run(&[&["suggest", "--from", log], &with[..]].concat());
        assert_eq!(code, 0, "{said}");
        said
    }

    fn replay(&self, config: &str, more: &[&str]) -> (i32, String) {
        let file = self.gate.file("other.yaml");
        std::fs::write(&file, config).unwrap();
        let arguments = ["explain", "--from", self.log.to_str().unwrap(), "--config", file.to_str().unwrap()];
        self.run(&[&arguments[..], more].concat())
    }
}

pub fn parse(text: &str) -> Config {
    Config::parse(text, Path::new("gate.yaml")).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

#[test]
fn suggest_narrows_a_configuration_to_the_rights_in_use() {
    let served = Served::new();
    let text = served.suggest(Some(&served.gate.file("gate.yaml")));
    let (before, config) = (parse(&served.gate.config()), parse(&text));
    let [reports, crm, idle] = &config.callers[..] else { panic!("{text}") };
    assert_eq!((reports.id.as_str(), reports.scopes.to_string().as_str()), ("reports", "metrika:read"));
    assert_eq!(reports.conditions, before.callers[0].conditions);
    assert_eq!(reports.tokens, before.callers[0].tokens);
    assert_eq!(reports.rules.counters.as_deref(), Some(&[11, 12][..]));
    assert_eq!(reports.rules.logins.as_deref().map(|logins| logins.join(" ")), Some("shop-x".to_owned()));
    assert_eq!((reports.rules.list, reports.rules.destructive), (List::Filter, false));
    assert_eq!(crm.scopes.to_string(), "metrika:write");
    assert_eq!((&crm.rules.counters, crm.rules.destructive, crm.rules.callback), (&None, true, true));
    assert!(text.contains("# counters omitted: counters.create accesses the whole account"), "{text}");
    assert!(text.contains("# 'idle' is unchanged: none of its lines counted\n"), "{text}");
    let was = &before.callers[2];
    assert_eq!(
        (&idle.conditions, idle.scopes, &idle.tokens, &idle.rules),
        (&was.conditions, was.scopes, &was.tokens, &was.rules)
    );
    assert!(text.contains("\n# how long\ntimeouts: {keep_alive: 70s}\n"), "what else there was stays: {text}");
    assert_eq!((config.timeouts, config.upstream), (before.timeouts, before.upstream));
    // And back: the suggestion allows everything that was allowed.
    let (code, said) = served.replay(&text, &["--format", "json"]);
    let table: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(
        (code, &table["let_through"], &table["let_through_would_be_refused"]),
        (0, &6.into(), &0.into()),
        "{said}"
    );
}

#[test]
fn suggest_makes_a_configuration_where_there_was_none() {
    let served = Served::new();
    let text = served.suggest(None);
    let config = parse(&text);
    assert_eq!(config.callers.iter().map(|caller| caller.id.as_str()).collect::<Vec<_>>(), ["crm", "reports"]);
    assert_eq!(config.callers[0].scopes.to_string(), "metrika:write");
    let tokens: Vec<_> = config.tokens.iter().map(|token| format!("{} {}", token.alias, token.scopes)).collect();
    assert_eq!(tokens, ["analytics metrika:read", "crm metrika:write"]);
    let (code, said) = served.replay(&text, &[]);
    assert_eq!(code, 0, "{said}");
}

#[test]
fn a_log_can_come_through_a_pipe_and_has_to_be_one() {
    let served = Served::new();
    let mut child = program();
    child.args(["suggest", "--from", "-"]).stdin(std::fs::File::open(&served.log).unwrap()).stdout(Stdio::piped());
    assert_eq!(String::from_utf8(child.output().unwrap().stdout).unwrap(), served.suggest(None));
    let none = served.gate.file("gate.yaml");
    let (code, said) = served.run(&["suggest", "--from", none.to_str().unwrap()]);
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("has no access line") && said.contains("log.format: json"), "{said}");
}

#[test]
fn explain_shows_the_decisions_for_a_log() {
    let served = Served::new();
    let narrow = served.gate.config().replace(
        "scopes: [metrika:read, metrika:write], tokens: [analytics, crm]}",
        "scopes: [metrika:read], tokens: [analytics, crm], counters: [12], ulogin: [shop-x]}",
    );
    let narrow = narrow.replace("callback: allow}", "callback: allow, destructive: deny}");
    let narrow = narrow + "operations: [{method: GET, path: /nothing/here, scope: [metrika:read]}]\n";
    let (code, said) = served.replay(&narrow, &[]);
    assert_eq!(code, 1, "something that was let through would be refused: {said}");
    let said = said.replace(&served.log.display().to_string(), "LOG");
    let passed_over = said.lines().find(|line| line.contains("skipped")).unwrap().to_owned();
    assert!(passed_over.starts_with("7 access lines ("), "{said}");
    insta::assert_snapshot!(said.replace(&passed_over, "7 access lines"), @r#"
    caller   operation              allowed      refused  would be
    crm      GET /nothing/here            0            1  sent
    crm      counters.create              1            0  sent
    crm      expenses.upload              1            0  sent
    crm      goal.delete                  1            0  refused: destructive_denied, counters 13
    reports  counters.list                1            0  refused: list_denied
    reports  report.table                 1            0  sent
    reports  report.table                 1            0  refused: counter_denied, counters 11

    7 access lines
    6 were allowed, of which 3 would be refused
    1 were refused, of which 1 would be sent
    Access lines do not contain bodies, callback and field: rules about these are not evaluated.
    "#);
    let (code, said) = served.replay(&narrow, &["--as", "crm", "--format", "json"]);
    let table: Value = serde_json::from_str(&said).unwrap();
    assert_eq!((code, &table["let_through"], &table["refused"]), (1, &3.into(), &1.into()), "{said}");
    let denied = json!({
        "caller": "crm", "operation": "goal.delete", "verdict": "destructive_denied", "would_be_refused": true,
        "was_let_through": 1, "was_refused": 0, "counters": [13], "counters_in_all": 1, "logins": [], "logins_in_all": 0,
    });
    assert!(table["rows"].as_array().unwrap().contains(&denied), "{said}");
    // A rule that is not enforced lets the request through.
    let shadow = narrow.replace("destructive: deny}", "destructive: deny, enforce: false}");
    let (code, said) = served.replay(&shadow, &["--as", "crm"]);
    assert!(code == 0 && said.contains("sent (not enforced): destructive_denied"), "{said}");
}

#[test]
fn explain_asks_for_a_request_or_a_log() {
    for arguments in [&["explain"][..], &["explain", "GET"], &["explain", "GET", "/", "--from", "log"]] {
        assert_eq!(program().args(arguments).output().unwrap().status.code(), Some(2), "{arguments:?}");
    }
}

#[test]
fn init_writes_a_configuration_that_is_right() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("gate.yaml");
    let printed = String::from_utf8(program().arg("init").output().unwrap().stdout).unwrap();
    let config = parse(&printed);
    assert!(config.callers.len() == 1 && !config.callers[0].rules.destructive, "{printed}");
    let write = || program().args(["init", "--out"]).arg(&file).output().unwrap();
    assert_eq!(write().status.code(), Some(0));
    assert_eq!(std::fs::read_to_string(&file).unwrap(), printed);
    let check = program().args(["check", "--without-tokens", "--config"]).arg(&file).output().unwrap();
    assert_eq!(check.status.code(), Some(0), "{check:?}");
    std::fs::write(&file, "mine").unwrap();
    let again = write();
    assert_eq!(again.status.code(), Some(1));
    assert!(String::from_utf8(again.stderr).unwrap().contains("already exists; choose another file, or remove it"));
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "mine");
}

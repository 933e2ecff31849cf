//! What is made of access lines: `suggest` and `explain --from`, on the log of a gate that ran; and `init`.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use metrika_gate::config::Config;
use metrika_gate::rules::List;
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

fn parse(text: &str) -> Config {
    Config::parse(text, Path::new("gate.yaml")).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

#[test]
fn suggest_narrows_a_configuration_to_what_was_used() {
    let served = Served::new();
    let text = served.suggest(Some(&served.gate.file("gate.yaml")));
    let (before, config) = (parse(&served.gate.config()), parse(&text));
    let [reports, crm, idle] = &config.callers[..] else { panic!("{text}") };
    assert_eq!((reports.id.as_str(), reports.scopes.to_string().as_str()), ("reports", "metrika:read"));
    assert_eq!(reports.proofs, before.callers[0].proofs);
    assert_eq!(reports.tokens, before.callers[0].tokens);
    assert_eq!(reports.rules.counters.as_deref(), Some(&[11, 12][..]));
    assert_eq!(reports.rules.logins.as_deref().map(|logins| logins.join(" ")), Some("shop-x".to_owned()));
    assert_eq!((reports.rules.list, reports.rules.destructive), (List::Filter, false));
    assert_eq!(crm.scopes.to_string(), "metrika:write");
    assert_eq!((&crm.rules.counters, crm.rules.destructive, crm.rules.callback), (&None, true, true));
    assert!(text.contains("# no counters: counters.create works on the whole account"), "{text}");
    assert!(text.contains("# 'idle' is kept as it is: no line of it counts\n"), "{text}");
    let was = &before.callers[2];
    assert_eq!(
        (&idle.proofs, idle.scopes, &idle.tokens, &idle.rules),
        (&was.proofs, was.scopes, &was.tokens, &was.rules)
    );
    assert!(text.contains("\n# how long\ntimeouts: {keep_alive: 70s}\n"), "what else there was stays: {text}");
    assert_eq!((config.timeouts, config.upstream), (before.timeouts, before.upstream));
    // And back: under it, everything that was let through would be again.
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
fn explain_says_what_would_become_of_a_log() {
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
    let passed_over = said.lines().find(|line| line.contains("passed over")).unwrap().to_owned();
    assert!(passed_over.starts_with("7 access lines ("), "{said}");
    insta::assert_snapshot!(said.replace(&passed_over, "7 access lines"), @r#"
    caller   operation          let through      refused  would be
    crm      GET /nothing/here            0            1  sent
    crm      counters.create              1            0  sent
    crm      expenses.upload              1            0  sent
    crm      goal.delete                  1            0  refused: destructive_denied, counters 13
    reports  counters.list                1            0  refused: list_denied
    reports  report.table                 1            0  sent
    reports  report.table                 1            0  refused: counter_denied, counters 11

    7 access lines
    6 were let through, of which 3 would be refused
    1 were refused, of which 1 would be sent
    Lines do not tell bodies, callback and field: rules about these are not judged.
    "#);
    let (code, said) = served.replay(&narrow, &["--as", "crm", "--format", "json"]);
    let table: Value = serde_json::from_str(&said).unwrap();
    assert_eq!((code, &table["let_through"], &table["refused"]), (1, &3.into(), &1.into()), "{said}");
    let denied = json!({
        "caller": "crm", "operation": "goal.delete", "verdict": "destructive_denied", "would_be_refused": true,
        "was_let_through": 1, "was_refused": 0, "counters": [13], "counters_in_all": 1, "logins": [], "logins_in_all": 0,
    });
    assert!(table["rows"].as_array().unwrap().contains(&denied), "{said}");
    // What is not enforced is sent.
    let shadow = narrow.replace("destructive: deny}", "destructive: deny, enforce: false}");
    let (code, said) = served.replay(&shadow, &["--as", "crm"]);
    assert!(code == 0 && said.contains("sent, as it is not enforced: destructive_denied"), "{said}");
}

/// A folder with the configuration of a shop that is limited, and a log.
struct Shop(tempfile::TempDir);

const SHOP: &str = "
listeners:
  - {name: shop, address: '127.0.0.1:0'}
  - {name: crm, address: '127.0.0.1:0'}
callers:
  - {id: shop, match: {listener: shop}, scopes: [metrika:read, metrika:write], tokens: [all], counters: [103, 104], ulogin: [a, b], list: filter, destructive: deny}
  - {id: crm, match: {listener: crm}, scopes: [metrika:read], tokens: [all], ulogin: [c], callback: allow, enforce: false}
tokens:
  all: {file: /nowhere/all, scopes: [metrika:read, metrika:write]}
";

/// An access line of one of its callers, which Metrica took.
fn line(caller: &str, method: &str, operation: &str, more: &str) -> String {
    format!(
        r#"{{"target":"access","caller":"{caller}","operation":"{operation}","method":"{method}","status":200,"token":"all","upstream_status":200{more}}}"#
    ) + "\n"
}

/// What has to become of each: as if there had been no rules then, and as if they had been in the shadow.
const BEYOND: [(&str, &str, &str, &str); 5] = [
    ("POST", "goals.create", "counter_denied", r#","counters":[7]"#),
    ("GET", "report.table", "login_denied", r#","counters":[103],"ulogin":"z""#),
    ("DELETE", "goal.delete", "destructive_denied", r#","counters":[103]"#),
    ("GET", "delegates.list", "counter_denied", ""),
    ("GET", "report.table", "counter_denied", r#","counters":[105,103,7,8,9,10,11]"#),
];

impl Shop {
    fn new(config: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("gate.yaml"), config).unwrap();
        Self(folder)
    }

    /// Exit code, stdout and stderr of `command` on a log of these lines.
    fn run(&self, command: &str, lines: &[String], more: &[&str]) -> (i32, String, String) {
        let (log, config) = (self.0.path().join("log"), self.0.path().join("gate.yaml"));
        std::fs::write(&log, lines.concat()).unwrap();
        let mut program = program();
        program.arg(command).arg("--from").arg(log).arg("--config").arg(config).args(more);
        let output = program.output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
    }

    /// What is suggested, and what is said beside it.
    fn suggest(&self, lines: &[String], more: &[&str]) -> (Config, String, String) {
        let (code, text, said) = self.run("suggest", lines, more);
        assert_eq!(code, 0, "{said}");
        (parse(&text), text, said)
    }
}

#[test]
fn suggest_never_widens() {
    let shop = Shop::new(SHOP);
    let good = line("shop", "GET", "report.table", r#","counters":[103],"ulogin":"a""#);
    let lists = line("shop", "GET", "counters.list", "");
    for shadow in [false, true] {
        let beyond = BEYOND.iter().map(|(method, operation, reason, more)| {
            let would = if shadow { format!(r#","would_refuse":"{reason}""#) } else { String::new() };
            line("shop", method, operation, &format!("{more}{would}"))
        });
        let lines: Vec<_> = beyond.chain([good.clone()]).collect();
        let (config, text, said) = shop.suggest(&lines, &[]);
        let rules = &config.callers[0].rules;
        assert_eq!(config.callers[0].scopes.to_string(), "metrika:read", "{text}");
        assert_eq!(rules.counters.as_deref(), Some(&[103][..]), "{text}");
        assert_eq!(rules.logins.as_deref(), Some(&["a".into()][..]), "{text}");
        assert_eq!((rules.list, rules.destructive), (List::Refuse, false), "{text}");
        let why =
            if shadow { "sent only because nothing was enforced" } else { "that this configuration would refuse" };
        let counters = if shadow { "7, 8, 9, 10, 11 and 2 more" } else { "7, 8, 9, 10, 11 and 1 more" };
        for expected in [
            format!("3 lines {why} (counter_denied) do not count: counters {counters}\n"),
            format!("1 line {why} (destructive_denied) does not count: counters 103\n"),
            format!("1 line {why} (login_denied) does not count: logins z\n"),
        ] {
            assert!(text.contains(&format!("  # {expected}")), "{expected}\n{text}");
            assert!(said.contains(&format!("metrika-gate: shop: {expected}")), "{expected}\n{said}");
        }
        assert!(said.contains("--widen has those count"), "{said}");
        // A list that was used stays filtered.
        let (config, text, _) = shop.suggest(&[lines.concat(), lists.clone()], &[]);
        assert_eq!(config.callers[0].rules.list, List::Filter, "{text}");
    }
}

#[test]
fn suggest_says_what_it_widens_when_it_is_told_to() {
    let shop = Shop::new(
        &SHOP.replace("metrika:write], tokens: [all], counters", "metrika:expenses], tokens: [all], counters"),
    );
    let good = line("shop", "GET", "report.table", r#","counters":[103],"ulogin":"a""#);
    let beyond = |index: usize| {
        let (method, operation, _, more) = BEYOND[index];
        line("shop", method, operation, more)
    };
    let (config, text, said) = shop.suggest(&[good.clone(), beyond(0), beyond(1), beyond(2)], &["--widen"]);
    let (rules, scopes) = (&config.callers[0].rules, config.callers[0].scopes.to_string());
    assert_eq!(rules.counters.as_deref(), Some(&[7, 103][..]), "{text}");
    assert_eq!((rules.logins.as_deref().map(|all| all.join(" ")), rules.destructive), (Some("a z".to_owned()), true));
    assert_eq!(scopes, "metrika:read, metrika:write", "{text}");
    insta::assert_snapshot!(said, @"
    metrika-gate: shop: scopes [metrika:read, metrika:expenses] -> [metrika:read, metrika:write], for 1 goal.delete, 1 goals.create
    metrika-gate: shop: counters [103, 104] -> [7, 103], for 1 goals.create
    metrika-gate: shop: ulogin [a, b] -> [a, z], for 1 report.table
    metrika-gate: shop: destructive deny -> allow, for 1 goal.delete
    ");
    let mut suggest = program();
    let (log, config) = (shop.0.path().join("log"), shop.0.path().join("gate.yaml"));
    std::fs::write(&log, [good, beyond(3)].concat()).unwrap();
    suggest.arg("suggest").arg("--from").arg(log).arg("--config").arg(config).env("METRIKA_GATE_SUGGEST_WIDEN", "true");
    let output = suggest.output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("shop: counters [103, 104] -> none, for 1 delegates.list\n"), "{said}");
    assert_eq!(parse(str::from_utf8(&output.stdout).unwrap()).callers[0].rules.counters, None);
}

#[test]
fn what_metrica_did_not_take_and_what_no_right_mends_is_no_need() {
    let shop = Shop::new(&SHOP.replace("scopes: [metrika:read, metrika:write]}", "scopes: [metrika:read]}"));
    let answered = |status: u16, reason: &str| {
        let more = format!(r#","counters":[104],"origin":"upstream","reason":"{reason}""#);
        line("shop", "GET", "report.table", &more).replace("200", &status.to_string())
    };
    let good = line("shop", "GET", "report.table", r#","counters":[103]"#);
    let unwritable = line("shop", "POST", "goals.create", r#","counters":[103]"#);
    let unreadable = line("shop", "GET", "report.table", r#","unreadable_counters":true"#);
    let elsewhere = line("nobody", "GET", "report.table", r#","counters":[1]"#);
    let lacking = line("shop", "GET", "GET /own/path", "");
    let none = [answered(403, "no_grant"), answered(404, ""), unwritable, unreadable, elsewhere, lacking, good.clone()];
    for more in [&[][..], &["--widen"]] {
        let (config, text, said) = shop.suggest(&none, more);
        let caller = &config.callers[0];
        assert_eq!((caller.rules.counters.as_deref(), caller.scopes.len()), (Some(&[103][..]), 1), "{text}");
        for expected in [
            "shop: 1 line answered by Metrica with 403 (no_grant) does not count: counters 104\n",
            "shop: 1 line answered by Metrica with 404 does not count: counters 104\n",
            "shop: 1 line that this configuration would refuse (token_scope_missing) does not count: counters 103\n",
            "shop: 1 line that this configuration would refuse (unknown_operation) does not count\n",
            "nobody: 1 line that this configuration would refuse (unknown_caller) does not count: counters 1\n",
        ] {
            assert!(said.contains(expected), "{expected}\n{said}");
        }
        assert!(!said.contains("--widen"), "it would change nothing: {said}");
        let unreadable = "1 request named a counter in a way that cannot be read, and would be refused\n";
        assert!(
            text.contains(&format!("# {unreadable}")) && said.contains(&format!("shop: {unreadable}")),
            "{text}\n{said}"
        );
    }
    for (status, reason) in [(401, "token_invalid"), (403, "token_invalid"), (420, "quota"), (429, "quota")] {
        let (config, text, _) = shop.suggest(&[answered(status, reason), good.clone()], &[]);
        assert_eq!(config.callers[0].rules.counters.as_deref(), Some(&[103, 104][..]), "{status}: {text}");
    }
}

/// To leave them out would have their listener answer 401, and to leave out `ulogin` would let every login through.
#[test]
fn callers_without_a_need_are_kept_as_they_are() {
    let shop = Shop::new(SHOP);
    let before = parse(SHOP);
    let idle = line("crm", "GET", "counters.list", r#","would_refuse":"list_denied""#);
    let (config, text, said) = shop.suggest(&[idle], &[]);
    for (kept, was) in config.callers.iter().zip(&*before.callers) {
        assert_eq!((&kept.proofs, kept.scopes, &kept.tokens), (&was.proofs, was.scopes, &was.tokens), "{text}");
        assert_eq!((kept.id, &kept.rules), (was.id, &was.rules), "{text}");
        assert!(text.contains(&format!("# '{}' is kept as it is: no line of it counts\n", was.id)), "{text}");
    }
    assert!(said.contains("crm: 1 line sent only because nothing was enforced (list_denied) does not count"), "{said}");
    let (config, text, _) = shop.suggest(&[line("crm", "GET", "counters.list", "")], &[]);
    assert_eq!(config.callers[1].rules.logins.as_deref(), Some(&["c".into()][..]), "{text}");
}

#[test]
fn explain_of_a_log_names_what_would_be_refused() {
    let shop = Shop::new(SHOP);
    let lines: Vec<_> =
        BEYOND.iter().map(|(method, operation, _, more)| line("shop", method, operation, more)).collect();
    let (code, said, _) = shop.run("explain", &lines, &[]);
    assert_eq!(code, 1);
    for expected in [
        "refused: counter_denied, counters 7, 8, 9, 10, 11 and 1 more\n",
        "refused: login_denied, logins z\n",
        "refused: destructive_denied, counters 103\n",
    ] {
        assert!(said.contains(expected), "{expected}\n{said}");
    }
    let (_, said, _) = shop.run("explain", &lines, &["--format", "json"]);
    let table: Value = serde_json::from_str(&said).unwrap();
    let rows = table["rows"].as_array().unwrap();
    let of = |verdict: &str| {
        rows.iter().find(|row| row["operation"] == "report.table" && row["verdict"] == verdict).unwrap()
    };
    assert_eq!(
        (&of("counter_denied")["counters"], &of("counter_denied")["counters_in_all"]),
        (&json!([7, 8, 9, 10, 11]), &json!(6))
    );
    assert_eq!((&of("login_denied")["logins"], &of("login_denied")["logins_in_all"]), (&json!(["z"]), &json!(1)));
    // Who is asked about has to be somebody.
    let (code, out, said) = shop.run("explain", &lines, &["--as", "stranger"]);
    assert_eq!((code, out.as_str()), (2, ""));
    assert!(said.contains("there is no caller 'stranger'; the callers are shop, crm"), "{said}");
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
    assert!(String::from_utf8(again.stderr).unwrap().contains("is there already, and stays as it is"));
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "mine");
}

//! The lines that count for `suggest`, so that it never widens access, and how `explain --from` reports them.

use metrika_gate::config::Config;
use metrika_gate::policy::rules::List;
use serde_json::{Value, json};

use crate::cli::suggest::parse;
use crate::harness::gate::program;

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

/// Requests beyond the rules, each with its outcome, both for a log without rules and for one with rules in the shadow.
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

    /// The suggested configuration, its text, and the messages beside it.
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
            if shadow { "forwarded only because of enforce: false" } else { "that this configuration would refuse" };
        let counters = if shadow { "7, 8, 9, 10, 11 and 2 more" } else { "7, 8, 9, 10, 11 and 1 more" };
        for expected in [
            format!("ignored 3 lines {why} (counter_denied): counters {counters}\n"),
            format!("ignored 1 line {why} (destructive_denied): counters 103\n"),
            format!("ignored 1 line {why} (login_denied): logins z\n"),
        ] {
            assert!(text.contains(&format!("  # {expected}")), "{expected}\n{text}");
            assert!(said.contains(&format!("metrika-gate: shop: {expected}")), "{expected}\n{said}");
        }
        assert!(said.contains("use --widen"), "{said}");
        // A list that was used stays filtered.
        let (config, text, _) = shop.suggest(&[lines.concat(), lists.clone()], &[]);
        assert_eq!(config.callers[0].rules.list, List::Filter, "{text}");
    }
}

#[test]
fn suggest_reports_the_rights_it_widens_with_the_flag() {
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
fn requests_refused_by_metrica_or_not_fixable_by_rights_are_no_need() {
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
            "shop: ignored 1 line refused by Metrica with 403 (no_grant): counters 104\n",
            "shop: ignored 1 line refused by Metrica with 404: counters 104\n",
            "shop: ignored 1 line that this configuration would refuse (token_scope_missing): counters 103\n",
            "shop: ignored 1 line that this configuration would refuse (unknown_operation)\n",
            "nobody: ignored 1 line that this configuration would refuse (unknown_caller): counters 1\n",
        ] {
            assert!(said.contains(expected), "{expected}\n{said}");
        }
        assert!(!said.contains("--widen"), "it would change nothing: {said}");
        let unreadable = "1 request had an unreadable counter, and would be refused\n";
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
        assert_eq!((&kept.conditions, kept.scopes, &kept.tokens), (&was.conditions, was.scopes, &was.tokens), "{text}");
        assert_eq!((kept.id, &kept.rules), (was.id, &was.rules), "{text}");
        assert!(text.contains(&format!("# '{}' is unchanged: none of its lines counted\n", was.id)), "{text}");
    }
    assert!(said.contains("crm: ignored 1 line forwarded only because of enforce: false (list_denied)"), "{said}");
    let (config, text, _) = shop.suggest(&[line("crm", "GET", "counters.list", "")], &[]);
    assert_eq!(config.callers[1].rules.logins.as_deref(), Some(&["c".into()][..]), "{text}");
}

#[test]
fn explain_of_a_log_names_the_requests_that_would_be_refused() {
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
    // The caller asked about must exist.
    let (code, out, said) = shop.run("explain", &lines, &["--as", "stranger"]);
    assert_eq!((code, out.as_str()), (2, ""));
    assert!(said.contains("unknown caller 'stranger'; the configured callers are shop, crm"), "{said}");
}

/// The information of log lines on marks of operations, and on logins that were left out.
#[test]
fn suggest_allows_sharing_only_where_it_was_used() {
    let config = SHOP
        .replace(
            "tokens: [all], counters: [103, 104], ulogin: [a, b], list: filter, destructive: deny",
            "tokens: [all]",
        )
        .replace("ulogin: [c]", "ulogin: [C.x], grantees: [d]")
        .replace(", enforce: false", "");
    let shop = Shop::new(&config);
    let share = line("shop", "POST", "grants.create", r#","counters":[103]"#);
    let make = line("shop", "GET", "measurement_token.generate", r#","counters":[103]"#);
    let delete = line("shop", "POST", "user_params.upload", r#","counters":[103]"#);
    let named = line("crm", "GET", "report.table", r#","counters":[103],"ulogin":"c-X""#);
    let unnamed = line("crm", "GET", "report.table", r#","counters":[103]"#);
    let (config, text, said) = shop.suggest(&[share, delete, named.clone(), unnamed], &[]);
    let [first, second] = &config.callers[..] else { panic!("{text}") };
    assert_eq!(
        (first.rules.sharing, first.rules.destructive),
        (true, true),
        "lines do not tell of destructive: {text}"
    );
    assert!(text.contains("sharing: allow   # for grants.create\n"), "{text}");
    assert!(text.contains("# access lines do not show whether user_params.upload had destructive effects"), "{text}");
    assert_eq!(second.rules.logins.as_deref(), Some(&["c-x".into()][..]), "{text}");
    assert_eq!(second.rules.grantees.as_deref(), Some(&["d".into()][..]), "{text}");
    assert!(!second.rules.sharing && !second.rules.ulogin_absent, "{text}");
    assert!(said.contains("ignored 1 line that this configuration would refuse (login_denied)"), "{said}");
    let (config, text, said) = shop.suggest(&[named, make], &["--widen"]);
    assert_eq!((config.callers[0].rules.measurement_tokens, config.callers[0].rules.sharing), (true, true), "{text}");
    assert!(said.contains("measurement_tokens deny -> allow, for 1 measurement_token.generate"), "{said}");
}

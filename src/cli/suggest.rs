//! `suggest`: the narrowest configuration that would have let through what a log says was let through.
//!
//! 1. What counts is what the gate did not refuse. A caller gets the fewest rights that cover its operations, the counters and
//!    logins that it named, and `destructive: allow` only where it needs that.
//! 2. `counters` are stated only where every request of the caller would be within them: none works on the whole account, names
//!    no counter where one is due, or names one that the line does not tell. Otherwise a comment says what stands against it.
//! 3. With a configuration, everything but `callers` stays as it is, and of these `match`, `tokens` and what lines do not
//!    tell (`callback`, `measurement_tokens`, `enforce`). Without one, addresses and files are to be filled in.
//! 4. What is printed can be loaded.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Args;

use super::lines::{self, Line};
use crate::caller::{Caller, Proofs};
use crate::config::Config;
use crate::operation::{Catalogue, Operation, Reach};
use crate::rules::Rules;
use crate::scope::{Scope, ScopeSet};
use crate::subject::Counters;

#[derive(Debug, Args)]
pub(super) struct SuggestArgs {
    /// Access lines as JSON: a file, or - for stdin
    #[arg(long, value_name = "FILE", env = "METRIKA_GATE_SUGGEST_FROM")]
    from: PathBuf,
    /// The configuration that they were written under, to keep all but the callers' rights; without it, a new one
    #[arg(short, long, value_name = "FILE", env = "METRIKA_GATE_CONFIG")]
    config: Option<PathBuf>,
}

pub(super) fn suggest(args: &SuggestArgs, out: &mut dyn Write) -> anyhow::Result<u8> {
    let from = args.from.display();
    let suggested = match &args.config {
        Some(file) => {
            let bytes = crate::config::bytes(file)?;
            let config = Config::from_bytes(&bytes, file)?;
            let seen = read(&args.from, &config.catalogue)?;
            let text = std::str::from_utf8(&bytes).context("the configuration is not UTF-8")?;
            in_place(text, &callers_of(&config, &seen)?).with_context(|| {
                format!(
                    "'callers' of {} is not a block of its own lines, so that nothing can be put there",
                    file.display()
                )
            })?
        }
        None => anew(&read(&args.from, &Catalogue::built_in())?)?,
    };
    // Rule 4, whatever the lines and the configuration were.
    let file = args.config.as_deref().unwrap_or_else(|| Path::new("gate.yaml"));
    Config::parse(&suggested, file).with_context(|| format!("what {from} says makes no configuration"))?;
    out.write_all(suggested.as_bytes())?;
    Ok(0)
}

/// What the lines of a log say.
#[derive(Default)]
struct Log {
    count: lines::Count,
    callers: BTreeMap<String, Seen>,
    /// By token, what it was used for.
    tokens: BTreeMap<String, BTreeSet<usize>>,
    /// A request was taken by its method alone.
    by_method: bool,
}

/// What a caller did.
#[derive(Default)]
struct Seen {
    let_through: u64,
    refused: u64,
    /// The sets of scopes of which one each is needed, by their index.
    needs: BTreeSet<usize>,
    operations: BTreeSet<String>,
    unknown: BTreeSet<String>,
    tokens: BTreeSet<String>,
    counters: BTreeSet<u64>,
    logins: BTreeSet<String>,
    destructive: BTreeSet<String>,
    lists: bool,
    has_bodies: bool,
    /// What stands against `counters` (rule 2).
    beyond_counters: BTreeSet<String>,
    /// What stands against `ulogin`.
    beyond_logins: BTreeSet<&'static str>,
}

/// What a token is called that lines do not name.
const NO_TOKEN: &str = "metrika";

fn read(from: &Path, catalogue: &Catalogue) -> anyhow::Result<Log> {
    let mut log = Log::default();
    let count = lines::read(from, |line| log.take(line, catalogue))?;
    log.count = count;
    if log.callers.values().all(|seen| seen.let_through == 0) {
        bail!("{} has no request of a caller that was let through", from.display());
    }
    Ok(log)
}

impl Log {
    fn take(&mut self, line: &Line, catalogue: &Catalogue) {
        if line.caller == "unknown" || line.operation == "none" || !is_name(&line.caller) {
            return;
        }
        let seen = self.callers.entry(line.caller.clone()).or_default();
        if line.was_refused() {
            seen.refused += 1;
            return;
        }
        seen.let_through += 1;
        let operation = catalogue.operations().iter().find(|operation| operation.id.as_str() == line.operation);
        let needs = match (operation, line.operation.as_str()) {
            (Some(operation), _) => operation.scopes,
            (None, "unknown") => {
                self.by_method = true;
                let scope = if matches!(line.method.as_str(), "GET" | "HEAD") { Scope::Read } else { Scope::Write };
                [scope].into_iter().collect()
            }
            (None, _) => {
                seen.unknown.insert(line.operation.clone());
                return;
            }
        };
        let token = if is_name(&line.token) { line.token.as_str() } else { NO_TOKEN };
        self.tokens.entry(token.to_owned()).or_default().insert(needs.index());
        seen.tokens.insert(token.to_owned());
        seen.needs.insert(needs.index());
        seen.operations.insert(line.operation.clone());
        seen.take(line, operation);
    }
}

impl Seen {
    fn take(&mut self, line: &Line, operation: Option<&Operation>) {
        let subject = line.subject();
        if operation.is_some_and(|operation| operation.destructive) {
            self.destructive.insert(line.operation.clone());
        }
        self.has_bodies |= !matches!(line.method.as_str(), "GET" | "HEAD");
        let reach = operation.map_or(Reach::Account, |operation| operation.reach);
        let against = match (&subject.counters, reach) {
            _ if line.more_counters => Some("names more counters than a line has room for"),
            (Counters::Unreadable, _) => Some("names counters that cannot be read"),
            (_, Reach::Account) => Some("works on the whole account"),
            (Counters::None, Reach::Reports | Reach::Counter(_)) if subject.clients.is_empty() => {
                Some("names no counter")
            }
            (counters, _) if counters.as_slice().iter().any(|counter| i64::try_from(*counter).is_err()) => {
                Some("names a counter beyond those of a configuration")
            }
            _ => None,
        };
        if let Some(against) = against {
            self.beyond_counters.insert(format!("{} {against}", line.operation));
        }
        self.lists |= reach == Reach::Counters;
        self.counters.extend(subject.counters.as_slice());
        if line.more_logins {
            self.beyond_logins.insert("a line names more logins than it has room for");
        }
        for login in subject.login.iter().chain(&subject.clients) {
            if crate::config::login(login).is_ok() {
                self.logins.insert(login.to_string());
            } else {
                self.beyond_logins.insert("a line names a login that is none");
            }
        }
    }

    /// Its rights (rules 1 and 2), as keys of a caller. What lines do not tell stays as in `known`.
    fn keys(&self, text: &mut String, known: &Rules) -> std::fmt::Result {
        let operations: Vec<_> = self.operations.iter().map(String::as_str).collect();
        writeln!(text, "    # for {}", operations.join(", "))?;
        writeln!(text, "    scopes: {}", quoted(narrowest(&self.needs).iter().map(Scope::as_str)))?;
        let limited = self.beyond_counters.is_empty() && !self.counters.is_empty();
        if limited {
            let counters: Vec<_> = self.counters.iter().map(u64::to_string).collect();
            writeln!(text, "    counters: [{}]", counters.join(", "))?;
            if self.lists {
                writeln!(text, "    list: filter")?;
            }
            if self.has_bodies {
                writeln!(
                    text,
                    "    # lines do not tell which counters bodies named; those have to be among counters, too"
                )?;
            }
        } else if self.counters.is_empty() && self.beyond_counters.is_empty() {
            writeln!(text, "    # no counters: no line names one")?;
        }
        for against in &self.beyond_counters {
            writeln!(text, "    # no counters: {against}")?;
        }
        if self.beyond_logins.is_empty() && !self.logins.is_empty() {
            writeln!(text, "    ulogin: {}", quoted(self.logins.iter().map(String::as_str)))?;
        }
        for against in &self.beyond_logins {
            writeln!(text, "    # no ulogin: {against}")?;
        }
        if self.destructive.is_empty() {
            writeln!(text, "    destructive: deny")?;
        } else {
            let needing: Vec<_> = self.destructive.iter().map(String::as_str).collect();
            writeln!(text, "    destructive: allow   # for {}", needing.join(", "))?;
        }
        if known.callback {
            writeln!(text, "    callback: allow   # as it was: lines do not tell")?;
        }
        if known.measurement_tokens {
            writeln!(text, "    measurement_tokens: allow   # as it was: lines do not tell")?;
        }
        if !known.callback || !known.measurement_tokens {
            writeln!(
                text,
                "    # what else of callback and measurement_tokens is needed, lines do not tell; both are denied"
            )?;
        }
        if !known.enforce {
            writeln!(text, "    enforce: false   # as it was")?;
        }
        Ok(())
    }

    fn said(&self) -> String {
        let Self { let_through, refused, .. } = self;
        format!("from {let_through} lines; {refused} more were refused and do not count")
    }
}

/// The least that covers all of these: first what it allows, then how many words it takes.
fn narrowest(needs: &BTreeSet<usize>) -> ScopeSet {
    let covers = |set: &ScopeSet| needs.iter().all(|index| set.covers(ScopeSet::from_index(*index)));
    let sets = (0..ScopeSet::COUNT).map(ScopeSet::from_index).filter(covers);
    sets.min_by_key(|set| (set.with_implied().len(), set.len())).unwrap_or_default()
}

/// `callers` of a configuration, with the rights that were used (rule 3).
fn callers_of(config: &Config, log: &Log) -> Result<String, std::fmt::Error> {
    let mut text = format!("callers:   # drawn by metrika-gate suggest from {} access lines\n", log.count.access);
    let without = Seen::default();
    for caller in &*config.callers {
        let Caller { id, proofs, tokens, rules, .. } = caller;
        let seen = log.callers.get(id.as_str()).unwrap_or(&without);
        if seen.needs.is_empty() {
            writeln!(text, "  # '{id}' is left out: {}", seen.said())?;
            continue;
        }
        writeln!(text, "  # {}", seen.said())?;
        writeln!(text, "  - id: \"{id}\"")?;
        writeln!(text, "    match: {}", matched(proofs))?;
        writeln!(text, "    tokens: {}", quoted(tokens.iter().map(|token| token.as_str())))?;
        seen.keys(&mut text, rules)?;
        unknown(&mut text, seen)?;
    }
    for (id, seen) in &log.callers {
        if !config.callers.iter().any(|caller| caller.id.as_str() == id) {
            writeln!(text, "  # '{id}' is no caller of this configuration: {}", seen.said())?;
        }
    }
    Ok(text)
}

/// Puts `callers` in the place of the block that `text` has; `None` when it has none.
fn in_place(text: &str, callers: &str) -> Option<String> {
    let all: Vec<&str> = text.split_inclusive('\n').collect();
    let begin = all.iter().position(|line| line.starts_with("callers:"))?;
    let (before, block) = all.split_at(begin);
    let goes_on = |line: &&str| line.starts_with([' ', '\t', '-', '#', '\r', '\n']);
    let length = 1 + block.iter().skip(1).take_while(|line| goes_on(line)).count();
    let (block, after) = block.split_at(length);
    // What stands right before the next key is about that one.
    let is_apart = |line: &&&str| line.starts_with('#') || line.trim().is_empty();
    let kept = block.iter().rev().take_while(is_apart).count();
    let comments = block.get(block.len() - kept..)?;
    Some([&before.concat(), callers, &comments.concat(), &after.concat()].concat())
}

/// A whole configuration (rule 3).
fn anew(log: &Log) -> anyhow::Result<String> {
    let callers: Vec<_> = log.callers.iter().filter(|(_, seen)| !seen.needs.is_empty()).collect();
    if callers.is_empty() {
        bail!("no operation of these lines is in the catalogue; with --config, those of a configuration are known");
    }
    let mut text = format!(
        "# Drawn by metrika-gate suggest from {} access lines. Addresses, match and files are to be filled in.\nlisteners:\n",
        log.count.access
    );
    for (position, (id, _)) in callers.iter().enumerate() {
        // 9090 is the default of the admin listener.
        let port = Some(8080 + position).filter(|port| *port < 9090).unwrap_or(8081 + position);
        writeln!(text, "  - {{name: \"{id}\", address: \"127.0.0.1:{port}\"}}")?;
    }
    writeln!(text, "tokens:")?;
    for (alias, needs) in &log.tokens {
        let scopes = quoted(narrowest(needs).iter().map(Scope::as_str));
        writeln!(text, "  \"{alias}\": {{file: \"/var/run/secrets/metrika/{alias}\", scopes: {scopes}}}")?;
    }
    writeln!(text, "callers:")?;
    for (id, seen) in callers {
        writeln!(text, "  # {}", seen.said())?;
        writeln!(text, "  - id: \"{id}\"\n    match: {{listener: \"{id}\"}}")?;
        writeln!(text, "    tokens: {}", quoted(seen.tokens.iter().map(String::as_str)))?;
        seen.keys(&mut text, &Rules::default())?;
        unknown(&mut text, seen)?;
    }
    if log.by_method {
        writeln!(
            text,
            "unknown_operations: by_method   # requests were let through that are no operation of the catalogue"
        )?;
    }
    Ok(text)
}

fn unknown(text: &mut String, seen: &Seen) -> std::fmt::Result {
    for id in seen.unknown.iter().filter(|id| id.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ')) {
        writeln!(text, "    # not covered, as the catalogue lacks it: {id}")?;
    }
    Ok(())
}

fn matched(proofs: &Proofs) -> String {
    let listener = proofs.listener.map(|listener| format!("listener: \"{listener}\""));
    let list =
        |name: &str, values: Vec<String>| (!values.is_empty()).then(|| format!("{name}: [{}]", values.join(", ")));
    let parts = [
        listener,
        list("source", proofs.sources.iter().map(|network| format!("\"{network}\"")).collect()),
        list("uid", proofs.uids.iter().map(u32::to_string).collect()),
        list("gid", proofs.gids.iter().map(u32::to_string).collect()),
    ];
    format!("{{{}}}", parts.into_iter().flatten().collect::<Vec<_>>().join(", "))
}

/// A list of names, which have no letter that quotes would not hold.
fn quoted<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let quoted: Vec<_> = names.map(|name| format!("\"{name}\"")).collect();
    format!("[{}]", quoted.join(", "))
}

/// Whether a configuration can have such a name: a log is what somebody gave.
fn is_name(text: &str) -> bool {
    crate::config::name_text(text).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEFORE: &str = "listeners: [{name: app, address: '127.0.0.1:1'}]\n";

    #[test]
    fn rule_3_callers_are_put_in_their_place() {
        let new = "callers: new\n";
        for (block, expected) in [
            (
                "callers:\n  - a\n  # of a\n\n# about tokens\ntokens: {}\n",
                "callers: new\n\n# about tokens\ntokens: {}\n",
            ),
            ("callers: [a]\n", new),
            ("callers:   # all\n- a\n- b\ntokens: {}", "callers: new\ntokens: {}"),
            ("callers:\r\n  - a\r\n\r\ntokens: {}\r\n", "callers: new\n\r\ntokens: {}\r\n"),
        ] {
            assert_eq!(in_place(&format!("{BEFORE}{block}"), new).unwrap(), format!("{BEFORE}{expected}"), "{block}");
        }
        assert_eq!(in_place("{callers: [], tokens: {}}", new), None);
        assert_eq!(in_place("  callers: []", new), None);
    }

    #[test]
    fn rule_1_rights_are_the_fewest() {
        let set = |scopes: &[Scope]| scopes.iter().copied().collect::<ScopeSet>().index();
        let needs = |sets: &[&[Scope]]| narrowest(&sets.iter().map(|scopes| set(scopes)).collect());
        let (read, write, expenses) = (Scope::Read, Scope::Write, Scope::Expenses);
        assert_eq!(needs(&[&[read]]).to_string(), "metrika:read");
        assert_eq!(needs(&[&[write, expenses]]).to_string(), "metrika:expenses");
        assert_eq!(needs(&[&[write, expenses], &[write]]).to_string(), "metrika:write");
        assert_eq!(needs(&[&[read], &[write, expenses]]).to_string(), "metrika:read, metrika:expenses");
        assert_eq!(needs(&[&[read, write]]).to_string(), "metrika:read");
    }

    /// An access line of `caller`.
    fn line(caller: &str, method: &str, operation: &str, more: &str) -> String {
        format!(
            r#"{{"target":"access","caller":"{caller}","operation":"{operation}","method":"{method}","status":200,"token":"analytics"{more}}}"#
        ) + "\n"
    }

    fn suggested(lines: &str) -> Config {
        let log = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(log.path(), lines).unwrap();
        let mut out = Vec::new();
        suggest(&SuggestArgs { from: log.path().to_owned(), config: None }, &mut out).unwrap();
        Config::parse(str::from_utf8(&out).unwrap(), Path::new("gate.yaml")).unwrap()
    }

    #[test]
    fn rule_2_counters_are_stated_where_they_bind_nothing_that_was_let_through() {
        let counters = |more: &[(&str, &str, &str)]| {
            let all = [&[("GET", "report.table", r#","counters":[2,1]"#)], more].concat();
            let lines: String =
                all.iter().map(|(method, operation, more)| line("a", method, operation, more)).collect();
            suggested(&lines).callers[0].rules.counters.as_deref().map(<[u64]>::to_vec)
        };
        assert_eq!(counters(&[]), Some(vec![1, 2]));
        assert_eq!(counters(&[("GET", "counters.list", "")]), Some(vec![1, 2]), "a list is filtered");
        assert_eq!(counters(&[("GET", "report.table", r#","direct_client_logins":["x"]"#)]), Some(vec![1, 2]));
        for against in [
            ("GET", "report.table", ""),
            ("GET", "report.table", r#","unreadable_counters":true"#),
            ("GET", "report.table", r#","counters":[1],"more_counters":true"#),
            ("GET", "report.table", r#","counters":[18446744073709551615]"#),
            ("POST", "counters.create", ""),
            ("GET", "unknown", ""),
        ] {
            assert_eq!(counters(&[against]), None, "{against:?}");
        }
    }

    /// Rule 4: names of a log are what somebody wrote into it.
    #[test]
    fn rule_4_what_a_log_says_cannot_break_out() {
        let evil = r#"a\"}]\nadmin: {address: '0.0.0.0:1'}"#;
        let lines = [
            line("a", "GET", "report.table", r#","counters":[1],"ulogin":"x\", y: [z""#),
            line("a", "GET", evil, ""),
            line(evil, "GET", "report.table", ""),
            line("unknown", "GET", "report.table", ""),
            line("b", "GET", "report.table", "").replace("analytics", evil),
        ];
        let config = suggested(&lines.concat());
        assert_eq!(config.callers.iter().map(|caller| caller.id.as_str()).collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(config.tokens.iter().map(|token| token.alias.as_str()).collect::<Vec<_>>(), ["analytics", NO_TOKEN]);
        assert!(config.admin.address.ip().is_loopback() && config.callers[0].rules.logins.is_none());
    }
}

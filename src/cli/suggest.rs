//! `suggest`: the narrowest configuration that allows the requests that count in a log.
//!
//! 1. [`super::needs`] selects the requests that count, [`super::rights`] derives the rights from them.
//! 2. Given a configuration, no right becomes wider unless requested; each widening is then reported on stderr. Lines
//!    that do not count are reported there and in comments.
//! 3. Given a configuration, only `callers` changes. Their `match`, `tokens` and settings that lines do not show
//!    (`callback`, `measurement_tokens`, `grantees`, `enforce`) are kept, and so are callers without a line that
//!    counts. Without a configuration, the user fills in addresses and files.
//! 4. The output is a valid configuration.

use std::fmt::Write as _;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use clap::Args;
use metrica::operation::Catalogue;
use metrica::scope::{Scope, ScopeSet};

use super::needs::{AccessLog, CountingCriteria, SeenRequests};
use super::rights::{Rights, narrowest, operations, quoted};
use crate::config::Config;
use crate::policy::caller::{Caller, Condition, Conditions};

#[derive(Debug, Args)]
pub(super) struct SuggestArgs {
    /// JSON access lines: a file, or - for stdin
    #[arg(long, value_name = "FILE", env = "METRIKA_GATE_SUGGEST_FROM")]
    from: PathBuf,
    /// Narrow the callers' rights in this configuration and keep the rest [default: generate a new configuration]
    #[arg(short, long, value_name = "FILE", env = "METRIKA_GATE_CONFIG")]
    config: Option<PathBuf>,
    /// Also count requests that the configuration would refuse, and requests that were forwarded only because of enforce: false
    #[arg(long, env = "METRIKA_GATE_SUGGEST_WIDEN")]
    widen: bool,
}

/// The output and its messages.
#[derive(Default)]
struct Suggested {
    text: String,
    /// Lines that do not count, by caller.
    not_counted: Vec<String>,
    widened: Vec<String>,
    /// Whether some lines would count with `--widen`.
    could_widen: bool,
}

pub(super) fn suggest(args: &SuggestArgs, out: &mut dyn Write) -> anyhow::Result<u8> {
    let from = args.from.display();
    let mut suggested = match &args.config {
        Some(file) => {
            ensure!(args.from != *file || file.as_os_str() != super::STDIN, super::ONE_STDIN);
            let (file, bytes) = super::read_config(file)?;
            let config = Config::from_bytes(&bytes, file)?;
            let policy = crate::reload::policy(&config);
            let judge =
                CountingCriteria { given: Some((&config, &policy)), catalogue: &config.catalogue, widen: args.widen };
            let mut suggested = callers_of(&config, &judge.read(&args.from)?)?;
            let text = std::str::from_utf8(&bytes).context("the configuration is not UTF-8")?;
            suggested.text = in_place(text, &suggested.text).with_context(|| {
                format!("cannot replace 'callers' of {}: write it as a block on its own lines", file.display())
            })?;
            suggested
        }
        None => {
            let judge = CountingCriteria { given: None, catalogue: &Catalogue::built_in(), widen: args.widen };
            anew(&judge.read(&args.from)?)?
        }
    };
    // Enforces rules 2 and 4, whatever the log and the configuration contain.
    let widened = suggested.widened.join("; ");
    ensure!(args.widen || widened.is_empty(), "the suggestion would add rights, which requires --widen: {widened}");
    let file = args.config.as_deref().unwrap_or_else(|| Path::new("gate.yaml"));
    Config::parse(&suggested.text, file).with_context(|| format!("{from} does not yield a valid configuration"))?;
    if suggested.could_widen && !args.widen {
        suggested
            .not_counted
            .push("use --widen to count lines that were or would be refused for missing rights only".to_owned());
    }
    for explanation in suggested.not_counted.iter().chain(&suggested.widened) {
        // An error is ignored: with stderr closed, nothing can be reported.
        let _ = writeln!(std::io::stderr(), "metrika-gate: {explanation}");
    }
    out.write_all(suggested.text.as_bytes())?;
    Ok(0)
}

/// Writes the rights of a caller as keys, with comments.
fn keys(text: &mut String, seen: &SeenRequests, rights: &Rights, comments: &[String]) -> std::fmt::Result {
    let operations: Vec<_> = seen.operations.iter().map(String::as_str).collect();
    writeln!(text, "    # for {}", operations.join(", "))?;
    rights.keys(text, seen)?;
    for comment in comments {
        writeln!(text, "    # {comment}")?;
    }
    if !rights.rules.callback || !rights.rules.measurement_tokens {
        writeln!(
            text,
            "    # access lines do not show whether callback and measurement_tokens are needed; what is not listed is denied"
        )?;
    }
    for id in seen.unknown.iter().filter(|id| id.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ')) {
        writeln!(text, "    # not covered, because it is not in the catalogue: {id}")?;
    }
    Ok(())
}

impl Suggested {
    /// Reports the lines of a caller that do not count, in comments and for stderr.
    fn write_not_counted(&mut self, id: &str, seen: &SeenRequests, rights: Option<&Rights>) -> std::fmt::Result {
        if seen.unreadable > 0 && rights.is_some_and(|rights| rights.rules.counters.is_some()) {
            let requests = if seen.unreadable == 1 { "request" } else { "requests" };
            let explanation = "had an unreadable counter, and would be refused";
            let explanation = format!("{} {requests} {explanation}", seen.unreadable);
            writeln!(self.text, "  # {explanation}")?;
            self.not_counted.push(format!("{id}: {explanation}"));
        }
        for ((why, reason), (lines, named)) in &seen.not_counted {
            let named = named.to_string();
            let because = if reason.is_empty() { String::new() } else { format!(" ({reason})") };
            let named = if named.is_empty() { named } else { format!(": {named}") };
            let line = if *lines == 1 { "line" } else { "lines" };
            let explanation = format!("ignored {lines} {line} {}{because}{named}", why.explanation());
            writeln!(self.text, "  # {explanation}")?;
            self.not_counted.push(format!("{id}: {explanation}"));
            self.could_widen |= why.can_be_widened(reason);
        }
        Ok(())
    }
}

/// Returns `callers` of a configuration, reduced to the rights that were used (rule 3).
fn callers_of(config: &Config, log: &AccessLog) -> Result<Suggested, std::fmt::Error> {
    let mut all = Suggested::default();
    writeln!(all.text, "callers:   # generated by metrika-gate suggest from {} access lines", log.count.access)?;
    let without = SeenRequests::default();
    for caller in &*config.callers {
        let Caller { id, conditions, tokens, scopes, rules, strict } = caller;
        let seen = log.callers.get(id.as_str()).unwrap_or(&without);
        let known = Rights { scopes: *scopes, rules: rules.clone() };
        let is_kept = seen.counted == 0;
        let (rights, comments) = if is_kept { (known.clone(), Vec::new()) } else { Rights::drawn(seen, &known) };
        if is_kept {
            writeln!(all.text, "  # '{id}' is unchanged: none of its lines counted")?;
        } else {
            writeln!(all.text, "  # from {} lines", seen.counted)?;
        }
        all.write_not_counted(id.as_str(), seen, Some(&rights))?;
        let text = &mut all.text;
        writeln!(text, "  - id: \"{id}\"")?;
        writeln!(text, "    match: {}", matched(conditions))?;
        writeln!(text, "    tokens: {}", quoted(tokens.iter().map(|token| token.as_str())))?;
        if *strict {
            writeln!(text, "    strict: true")?;
        }
        if is_kept {
            known.keys(text, &without)?;
            continue;
        }
        keys(text, seen, &rights, &comments)?;
        all.widened.extend(rights.widened(&known, seen).iter().map(|widened| format!("{id}: {widened}")));
    }
    for (id, seen) in &log.callers {
        if !config.callers.iter().any(|caller| caller.id.as_str() == id) {
            writeln!(all.text, "  # '{id}' is not a caller of this configuration")?;
            all.write_not_counted(id, seen, None)?;
        }
    }
    Ok(all)
}

/// Replaces the block `callers` of `text`; `None` when there is no such block.
fn in_place(text: &str, callers: &str) -> Option<String> {
    let all: Vec<&str> = text.split_inclusive('\n').collect();
    let begin = all.iter().position(|line| line.starts_with("callers:"))?;
    let (before, block) = all.split_at(begin);
    let goes_on = |line: &&str| line.starts_with([' ', '\t', '-', '#', '\r', '\n']);
    let length = 1 + block.iter().skip(1).take_while(|line| goes_on(line)).count();
    let (block, after) = block.split_at(length);
    // A comment right before the next key belongs to that key.
    let is_apart = |line: &&&str| line.starts_with('#') || line.trim().is_empty();
    let kept = block.iter().rev().take_while(is_apart).count();
    let comments = block.get(block.len() - kept..)?;
    Some([&before.concat(), callers, &comments.concat(), &after.concat()].concat())
}

/// Returns a whole new configuration (rule 3).
fn anew(log: &AccessLog) -> anyhow::Result<Suggested> {
    let callers: Vec<_> = log.callers.iter().filter(|(_, seen)| seen.counted > 0).collect();
    if callers.is_empty() {
        bail!(
            "no line can be used: the operations are not in the catalogue (--config adds those of a configuration), Metrica refused them, or they were forwarded only because of enforce: false (--widen counts them)"
        );
    }
    let mut all = Suggested::default();
    let text = &mut all.text;
    writeln!(
        text,
        "# Generated by metrika-gate suggest from {} access lines. Fill in addresses, match and files.\nlisteners:",
        log.count.access
    )?;
    for (position, (id, _)) in callers.iter().enumerate() {
        // 9090 is the default of the admin listener.
        let port = 8080 + position + usize::from(8080 + position >= 9090);
        writeln!(text, "  - {{name: \"{id}\", address: \"127.0.0.1:{port}\"}}")?;
    }
    writeln!(text, "tokens:")?;
    for (alias, needs) in &log.tokens {
        let scopes = quoted(narrowest(needs, ScopeSet::EMPTY).iter().map(Scope::as_str));
        writeln!(text, "  \"{alias}\": {{file: \"/var/run/secrets/metrika/{alias}\", scopes: {scopes}}}")?;
    }
    writeln!(text, "callers:")?;
    for (id, seen) in callers {
        writeln!(all.text, "  # from {} lines", seen.counted)?;
        let (rights, comments) = Rights::drawn(seen, &Rights::least());
        all.write_not_counted(id, seen, Some(&rights))?;
        let text = &mut all.text;
        writeln!(text, "  - id: \"{id}\"\n    match: {{listener: \"{id}\"}}")?;
        writeln!(text, "    tokens: {}", quoted(seen.tokens.iter().map(String::as_str)))?;
        keys(text, seen, &rights, &comments)?;
        let shadows = seen.beyond_given.iter();
        let explanation = |(reason, times)| {
            format!(
                "{id}: includes rights of requests forwarded only because of enforce: false ({reason}), for {}",
                operations(times)
            )
        };
        all.widened.extend(shadows.map(explanation));
    }
    for (id, seen) in log.callers.iter().filter(|(_, seen)| seen.counted == 0) {
        writeln!(all.text, "  # '{id}' is left out: none of its lines counted")?;
        all.write_not_counted(id, seen, None)?;
    }
    if log.by_method {
        writeln!(all.text, "unknown_operations: by_method   # allowed requests used operations outside the catalogue")?;
    }
    Ok(all)
}

/// Returns the conditions as YAML.
fn matched(conditions: &Conditions) -> String {
    let list = |values: Vec<String>| format!("[{}]", values.join(", "));
    let pair = |condition: &Condition| {
        let value = match condition {
            Condition::Listener(name) => format!("\"{name}\""),
            Condition::Source(networks) => list(networks.iter().map(|network| format!("\"{network}\"")).collect()),
            Condition::Uid(ids) | Condition::Gid(ids) => list(ids.iter().map(u32::to_string).collect()),
            Condition::Key(hashes) => list(hashes.iter().map(|hash| format!("\"{hash}\"")).collect()),
            Condition::San(names) => list(names.iter().map(|name| format!("\"{name}\"")).collect()),
            Condition::ServiceAccount(accounts) => list(accounts.iter().map(|name| format!("\"{name}\"")).collect()),
        };
        format!("{}: {value}", condition.kind())
    };
    format!("{{{}}}", conditions.iter().map(pair).collect::<Vec<_>>().join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::needs::NO_TOKEN;

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

    /// Returns an access line of `caller`.
    fn line(caller: &str, method: &str, operation: &str, more: &str) -> String {
        format!(
            r#"{{"target":"access","caller":"{caller}","operation":"{operation}","method":"{method}","status":200,"token":"analytics"{more}}}"#
        ) + "\n"
    }

    fn suggested(lines: &str) -> Config {
        let log = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(log.path(), lines).unwrap();
        let mut out = Vec::new();
        suggest(&SuggestArgs { from: log.path().to_owned(), config: None, widen: false }, &mut out).unwrap();
        Config::parse(str::from_utf8(&out).unwrap(), Path::new("gate.yaml")).unwrap()
    }

    #[test]
    fn counters_are_stated_where_they_bind_nothing_that_was_let_through() {
        let counters = |more: &[(&str, &str, &str)]| {
            let all = [&[("GET", "report.table", r#","counters":[2,1]"#)], more].concat();
            let lines: String =
                all.iter().map(|(method, operation, more)| line("a", method, operation, more)).collect();
            suggested(&lines).callers[0].rules.counters.as_deref().map(<[u64]>::to_vec)
        };
        assert_eq!(counters(&[]), Some(vec![1, 2]));
        assert_eq!(counters(&[("GET", "counters.list", "")]), Some(vec![1, 2]), "a list is filtered");
        assert_eq!(counters(&[("GET", "report.table", r#","direct_client_logins":["x"]"#)]), Some(vec![1, 2]));
        assert_eq!(counters(&[("GET", "report.table", r#","unreadable_counters":true"#)]), Some(vec![1, 2]));
        for against in [
            ("GET", "report.table", ""),
            ("GET", "report.table", r#","counters":[0]"#),
            ("GET", "report.table", r#","counters":[1],"more_counters":true"#),
            ("GET", "report.table", r#","counters":[18446744073709551615]"#),
            ("POST", "counters.create", ""),
            ("GET", "unknown", ""),
        ] {
            assert_eq!(counters(&[against]), None, "{against:?}");
        }
    }

    /// Rule 4: names in a log are untrusted input.
    #[test]
    fn rule_4_text_from_a_log_cannot_inject_configuration() {
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

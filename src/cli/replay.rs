//! `explain --from`: shows how a configuration treats the requests of a log, which may come from another
//! configuration.
//!
//! 1. Each access line is judged by its caller, operation, counters and logins. Details that lines do not show are
//!    not judged: bodies, `callback`, `field`, and counters and logins beyond those that fit a line.
//! 2. A line without an operation is judged by its path if that is complete. Otherwise it is not judged: the gate
//!    refused it before policy.
//! 3. For a caller with `enforce: false`, the refusal is reported and the request counts as sent.
//! 4. Each refusal, enforced or not, is reported with its counters or logins; if a rule about these causes it, only
//!    with those that the rule does not list.
//! 5. The exit code is 1 if a request that was allowed would be refused.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

use http::Method;
use metrica::operation::{Operation, Verb};
use serde::Serialize;
use strict_http::target::Names;

use super::Format;
use super::lines::{self, Line, Named, SHOWN};
use crate::config::{Config, ConfiguredAccounts};
use crate::policy::rejection::Reason;
use crate::policy::rules::{Call, Rules};
use crate::policy::{Denial, Permission, Policy, Wish};

/// The decision on a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum ReplayedDecision {
    Sent,
    /// Sent although a rule would refuse it (rule 3), with the reason.
    SentUnenforced(&'static str),
    /// Not judged (rule 2).
    NotJudged,
    Refused(&'static str),
}

impl ReplayedDecision {
    const fn reason(self) -> &'static str {
        match self {
            Self::Sent => "sent",
            Self::NotJudged => "not judged",
            Self::SentUnenforced(reason) | Self::Refused(reason) => reason,
        }
    }

    const fn is_refused(self) -> bool {
        matches!(self, Self::Refused(_))
    }
}

#[derive(Debug, Clone, Default)]
struct Times {
    let_through: u64,
    refused: u64,
    /// The counters and logins of the refusals (rule 4).
    named: Named,
}

/// The lines of a log, judged by a configuration.
#[derive(Default)]
struct Replay {
    rows: BTreeMap<(String, String, ReplayedDecision), Times>,
}

pub(super) fn replay(
    from: &Path,
    only: Option<&str>,
    config: &Path,
    format: Format,
    out: &mut dyn Write,
) -> anyhow::Result<u8> {
    anyhow::ensure!(from != config || from.as_os_str() != super::STDIN, super::ONE_STDIN);
    let config = super::load_config(config)?;
    if let Some(only) = only
        && !config.callers.iter().any(|caller| caller.id.as_str() == only)
    {
        return super::no_such_caller(&config, only);
    }
    let policy = crate::reload::policy(&config);
    let mut replay = Replay::default();
    let count = lines::read(from, |line| {
        if only.is_none_or(|only| only == line.caller) {
            let (operation, verdict) = verdict(&config, &policy, line);
            let caller = config.callers.iter().find(|caller| caller.id.as_str() == line.caller);
            replay.take(line, operation, verdict, caller.map(|caller| &caller.rules));
        }
    })?;
    let table = replay.table(count);
    match format {
        Format::Human => table.human(out)?,
        Format::Json => writeln!(out, "{}", serde_json::to_string(&table)?)?,
    }
    Ok(u8::from(table.let_through_would_be_refused > 0))
}

/// Returns the decision on a line, and the id of its operation, which the line itself may lack.
fn verdict<'a>(config: &Config, policy: &'a Policy, line: &'a Line) -> (&'a str, ReplayedDecision) {
    match operation(policy, line) {
        Some(Ok(operation)) => (operation.id.as_str(), of_operation(config, policy, line, operation)),
        Some(Err(denial)) => (&line.operation, ReplayedDecision::Refused(denial.reason().as_str())),
        None => (&line.operation, ReplayedDecision::NotJudged),
    }
}

fn of_operation(config: &Config, policy: &Policy, line: &Line, operation: &Operation) -> ReplayedDecision {
    let known = config.callers.iter().enumerate().find(|(_, caller)| caller.id.as_str() == line.caller);
    let Some((position, _)) = known else { return ReplayedDecision::Refused(Reason::UnknownCaller.as_str()) };
    let subject = line.subject();
    let call = Call { operation, path: &operation.template, query: None, names: Names::default(), subject: &subject };
    match policy.permit(position, &call, &ConfiguredAccounts(&config.tokens), Wish::default()) {
        Ok(Permission { shadowed: None, .. }) => ReplayedDecision::Sent,
        Ok(Permission { shadowed: Some(denial), .. }) => ReplayedDecision::SentUnenforced(denial.reason().as_str()),
        Err(denial) => ReplayedDecision::Refused(denial.reason().as_str()),
    }
}

/// Returns the operation of a line in this catalogue, whose id may differ (rule 2).
pub(super) fn operation<'a>(policy: &'a Policy, line: &Line) -> Option<Result<&'a Operation, Denial>> {
    let verb = Method::from_bytes(line.method.as_bytes()).ok().and_then(|method| Verb::of(&method));
    match (line.operation.as_str(), &line.path, verb) {
        ("none", Some(path), Some(verb)) if path.bytes().all(|byte| byte != b'?' && byte.is_ascii_graphic()) => {
            Some(policy.operation(verb, path))
        }
        ("none", ..) => None,
        // A path outside of every catalogue, because the line does not show the actual one.
        ("unknown", _, Some(verb)) => Some(policy.operation(verb, "/")),
        (id, ..) => {
            let known = policy.catalogue.operations().iter().find(|operation| operation.id.as_str() == id);
            Some(known.ok_or(Denial::UnknownOperation))
        }
    }
}

/// The result.
#[derive(Debug, Serialize)]
struct Table {
    lines: u64,
    passed_over: u64,
    let_through: u64,
    let_through_would_be_refused: u64,
    refused: u64,
    refused_would_be_sent: u64,
    rows: Vec<Row>,
}

#[derive(Debug, Serialize)]
struct Row {
    caller: String,
    operation: String,
    verdict: &'static str,
    would_be_refused: bool,
    was_let_through: u64,
    was_refused: u64,
    /// The first counters and logins, and their total numbers (rule 4).
    counters: Vec<u64>,
    counters_in_all: usize,
    logins: Vec<String>,
    logins_in_all: usize,
    /// The same as text.
    #[serde(skip)]
    named: String,
}

impl Replay {
    fn take(&mut self, line: &Line, operation: &str, verdict: ReplayedDecision, rules: Option<&Rules>) {
        let times = self.rows.entry((line.caller.clone(), operation.to_owned(), verdict)).or_default();
        if let ReplayedDecision::Refused(reason) | ReplayedDecision::SentUnenforced(reason) = verdict {
            times.named.add(&line.subject(), reason, rules);
        }
        if line.was_refused() {
            times.refused += 1;
        } else {
            times.let_through += 1;
        }
    }

    fn table(self, count: lines::Count) -> Table {
        let sum = |of: fn(&Times) -> u64, fits: fn(ReplayedDecision) -> bool| {
            self.rows.iter().filter(|((.., verdict), _)| fits(*verdict)).map(|(_, times)| of(times)).sum()
        };
        Table {
            lines: count.access,
            passed_over: count.others,
            let_through: sum(|times| times.let_through, |_| true),
            let_through_would_be_refused: sum(|times| times.let_through, ReplayedDecision::is_refused),
            refused: sum(|times| times.refused, |_| true),
            refused_would_be_sent: sum(
                |times| times.refused,
                |verdict| matches!(verdict, ReplayedDecision::Sent | ReplayedDecision::SentUnenforced(_)),
            ),
            rows: (self.rows.iter())
                .map(|((caller, operation, verdict), times)| Row {
                    caller: caller.clone(),
                    operation: operation.clone(),
                    verdict: verdict.reason(),
                    would_be_refused: verdict.is_refused(),
                    was_let_through: times.let_through,
                    was_refused: times.refused,
                    counters: times.named.counters.iter().copied().take(SHOWN).collect(),
                    counters_in_all: times.named.counters.len(),
                    logins: times.named.logins.iter().take(SHOWN).cloned().collect(),
                    logins_in_all: times.named.logins.len(),
                    named: times.named.to_string(),
                })
                .collect(),
        }
    }
}

impl Table {
    fn human(&self, out: &mut dyn Write) -> std::io::Result<()> {
        let width = |of: fn(&Row) -> &str, head: &str| {
            self.rows.iter().map(|row| of(row).chars().count()).fold(head.len(), usize::max)
        };
        let (caller, operation) = (width(|row| &row.caller, "caller"), width(|row| &row.operation, "operation"));
        writeln!(
            out,
            "{:caller$}  {:operation$}  {:>11}  {:>11}  would be",
            "caller", "operation", "allowed", "refused"
        )?;
        for row in &self.rows {
            let answer = match (row.would_be_refused, row.verdict) {
                (true, reason) => format!("refused: {reason}"),
                (false, verdict @ ("sent" | "not judged")) => verdict.to_owned(),
                (false, reason) => format!("sent (not enforced): {reason}"),
            };
            let separator = if row.named.is_empty() { "" } else { ", " };
            let (through, refused) = (row.was_let_through, row.was_refused);
            writeln!(
                out,
                "{:caller$}  {:operation$}  {through:>11}  {refused:>11}  {answer}{separator}{}",
                row.caller, row.operation, row.named
            )?;
        }
        writeln!(out)?;
        writeln!(out, "{} access lines ({} other lines skipped)", self.lines, self.passed_over)?;
        let (through, now_refused) = (self.let_through, self.let_through_would_be_refused);
        writeln!(out, "{through} were allowed, of which {now_refused} would be refused")?;
        writeln!(out, "{} were refused, of which {} would be sent", self.refused, self.refused_would_be_sent)?;
        writeln!(out, "Access lines do not contain bodies, callback and field: rules about these are not evaluated.")
    }
}

//! `doctor`: tests tokens against Metrica.
//!
//! 1. Progress is written to stderr if that is a terminal.
//! 2. The result is written to stdout: a table for people, or one JSON object.
//! 3. `--assumptions` tests the undocumented behaviour of Metrica that the gate relies on, with one token. Each result is
//!    held, not, or not asked.
//! 4. With `quota` in the configuration, a note states that no gate counts the requests of the doctor, and the enforced limits.
//! 5. The output contains no token, and only those parts of a response that [`crate::doctor`] validated.

use std::io::{IsTerminal, Write};
use std::time::SystemTime;

use clap::Args;
use metrica::scope::Scope;
use serde_json::json;

use super::{ConfigArgs, Format, quota};
use crate::config::{Config, TokenSource};
use crate::doctor::assumptions::{AssumptionResult, Outcome, check};
use crate::doctor::finding::Severity;
use crate::doctor::{Line, Report, Wanted, examine};
use crate::health::question::Question;
use crate::policy::names::TokenAlias;

#[derive(Debug, Args)]
pub(super) struct DoctorArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Check only this token; repeatable, comma-separated in the variable
    #[arg(long = "token", value_name = "ALIAS", env = "METRIKA_GATE_DOCTOR_TOKENS", value_delimiter = ',')]
    tokens: Vec<String>,
    /// Also check this counter; repeatable, comma-separated in the variable
    #[arg(long = "counter", value_name = "ID", env = "METRIKA_GATE_DOCTOR_COUNTERS", value_delimiter = ',')]
    #[arg(value_parser = clap::value_parser!(u64).range(1..))]
    counters: Vec<u64>,
    /// Test the assumptions that Metrica's documentation leaves open, with --token or the first token that has metrika:read
    #[arg(long, env = "METRIKA_GATE_DOCTOR_ASSUMPTIONS", value_parser = clap::builder::BoolishValueParser::new())]
    assumptions: bool,
    /// The output format
    #[arg(long, value_name = "FORM", env = "METRIKA_GATE_FORMAT", default_value = "human")]
    format: Format,
}

pub(super) fn doctor(args: &DoctorArgs, out: &mut dyn Write) -> anyhow::Result<u8> {
    let config = super::load_config(&args.config.config)?;
    let known: Vec<_> = config.tokens.iter().map(|source| source.alias.as_str()).collect();
    if let Some(unknown) = args.tokens.iter().find(|token| !known.contains(&token.as_str())) {
        let known = known.join(", ");
        writeln!(std::io::stderr(), "metrika-gate: unknown token '{unknown}'; the configured tokens are {known}")?;
        return Ok(2);
    }
    if args.assumptions {
        return assumptions(&config, args, out);
    }
    let tokens = args.tokens.iter().map(|alias| TokenAlias::new(alias)).collect();
    let report = examined(&config, &Wanted { tokens, counters: args.counters.clone() })?;
    match args.format {
        Format::Human => human(out, &report, &config)?,
        Format::Json => writeln!(out, "{}", machine(&report, &config))?,
    }
    Ok(report.exit_code())
}

/// Tests the assumptions (rule 3). The exit code is 1 if one does not hold, and 75 if none could be tested.
fn assumptions(config: &Config, args: &DoctorArgs, out: &mut dyn Write) -> anyhow::Result<u8> {
    let is_wanted = |source: &&TokenSource| match args.tokens.as_slice() {
        [] => source.scopes.iter().any(|scope| scope == Scope::Read),
        wanted => wanted.iter().any(|alias| alias == source.alias.as_str()),
    };
    let Some(source) = config.tokens.iter().find(is_wanted) else {
        writeln!(std::io::stderr(), "metrika-gate: no token has metrika:read; choose one with --token")?;
        return Ok(2);
    };
    let token = match crate::token::store::read(source, false) {
        Ok(token) => token,
        Err(error) => {
            writeln!(std::io::stderr(), "metrika-gate: {error}")?;
            return Ok(78);
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let local = tokio::task::LocalSet::new();
    let outcomes = local.block_on(&runtime, check(config, &token))?;
    match args.format {
        Format::Human => {
            for outcome in &outcomes {
                let assumption = outcome.assumed.of();
                let sign = match outcome.verdict {
                    AssumptionResult::Held => "[+]",
                    AssumptionResult::Not => "[-]",
                    AssumptionResult::NotAsked => "[ ]",
                };
                writeln!(out, "{sign} {:<9}  {}: {}", outcome.verdict.as_str(), assumption.says, outcome.seen)?;
                if outcome.verdict == AssumptionResult::Not {
                    writeln!(out, "               if this persists: {}", assumption.otherwise)?;
                }
            }
            writeln!(out, "\ndocs/assumptions.md lists where the gate relies on each")?;
        }
        Format::Json => {
            let one = |outcome: &Outcome| {
                json!({
                    "assumption": outcome.assumed.of().name,
                    "verdict": outcome.verdict.as_str(),
                    "seen": outcome.seen,
                })
            };
            let all: Vec<_> = outcomes.iter().map(one).collect();
            writeln!(out, "{}", json!({ "token": source.alias.as_str(), "assumptions": all }))?;
        }
    }
    let has = |verdict| outcomes.iter().any(|outcome| outcome.verdict == verdict);
    Ok(match (has(AssumptionResult::Not), has(AssumptionResult::Held)) {
        (true, _) => 1,
        (false, true) => 0,
        (false, false) => 75,
    })
}

/// Runs the doctor and shows its progress (rule 1).
pub(super) fn examined(config: &Config, wanted: &Wanted) -> anyhow::Result<Report> {
    let shows = std::io::stderr().is_terminal();
    let mut tell = |alias: TokenAlias, question: Question| {
        if shows {
            // Errors are ignored: a closed stderr only loses the progress.
            let _ = writeln!(std::io::stderr(), "token {alias}: requesting {question}");
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, examine(config, wanted, SystemTime::now(), &mut tell))
}

/// The maximum length of a result that widens its column, in characters.
const WIDEST: usize = 60;

const HEADS: [&str; 4] = ["token", "check", "result", "what to do"];

pub(super) fn human(out: &mut dyn Write, report: &Report, config: &Config) -> anyhow::Result<()> {
    let row = |line: &Line| {
        let finding = &line.finding;
        (sign(finding.severity()), [subject(line).to_owned(), label(line), finding.result(), finding.advice()])
    };
    let heads = ("   ", HEADS.map(str::to_owned));
    let rows: Vec<_> = std::iter::once(heads).chain(report.lines.iter().map(row)).collect();
    let mut widths = [0; HEADS.len()];
    for (_, cells) in &rows {
        for (width, cell) in widths.iter_mut().zip(cells) {
            let length = cell.chars().count();
            *width = (*width).max(if length > WIDEST { 0 } else { length });
        }
    }
    for (sign, cells) in &rows {
        let padded: Vec<_> = cells.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        writeln!(out, "{sign} {}", padded.join("  ").trim_end())?;
    }
    writeln!(out, "\n{}", summary(report))?;
    if let Some(note) = quota::note(config) {
        writeln!(out, "{note}")?;
    }
    Ok(())
}

/// Returns the sign of a standing, in the style of `/readyz?verbose`.
pub(super) const fn sign(severity: Severity) -> &'static str {
    match severity {
        Severity::Well => "[+]",
        Severity::Note => "[ ]",
        Severity::Warning => "[!]",
        Severity::Unknown => "[?]",
        Severity::Wrong => "[-]",
    }
}

/// Returns the name of the token, or of the key of the configuration that the finding is about.
fn subject(line: &Line) -> &'static str {
    line.token.map_or("service_accounts", TokenAlias::as_str)
}

/// Returns the name of the check, with its counter.
fn label(line: &Line) -> String {
    let check = line.finding.check();
    line.counter.map_or_else(|| check.to_owned(), |counter| format!("{check} {counter}"))
}

fn summary(report: &Report) -> String {
    let count = |severity| report.lines.iter().filter(|line| line.finding.severity() == severity).count();
    let (wrong, unknown, warnings) = (count(Severity::Wrong), count(Severity::Unknown), count(Severity::Warning));
    let begin = match report.severity() {
        Severity::Wrong => "problems found",
        Severity::Unknown => "some checks could not run",
        Severity::Well | Severity::Note | Severity::Warning => "no problems found",
    };
    format!(
        "{begin}: {wrong} wrong, {unknown} unknown, {warnings} warning{}; sent {}, reads only",
        if warnings == 1 { "" } else { "s" },
        match report.requests {
            1 => "1 request".to_owned(),
            many => format!("{many} requests"),
        }
    )
}

pub(super) fn machine(report: &Report, config: &Config) -> serde_json::Value {
    let one = |line: &Line| {
        json!({
            "token": line.token.map(TokenAlias::as_str),
            "check": line.finding.check(),
            "counter": line.counter,
            "finding": line.finding.name(),
            "standing": line.finding.severity().as_str(),
            "result": line.finding.result(),
            "advice": line.finding.advice(),
        })
    };
    json!({
        "standing": report.severity().as_str(),
        "exit_code": report.exit_code(),
        "requests": report.requests,
        "limits_enforced": quota::enforced(config),
        "findings": report.lines.iter().map(one).collect::<Vec<_>>(),
    })
}

//! `token status`: the tokens of a configuration and what is known about them.
//!
//! 1. The record beside a token has its age and its expiry; Yandex is asked for the rest, with reads only, unless
//!    `--offline` is given.
//! 2. A token that differs from its record was put there by another program, which is reported.
//! 3. The quota that is left comes from the metrics of the gate that runs with the configuration, if there is one.

use std::io::Write;
use std::time::{Duration, SystemTime};

use clap::Args;
use metrica::scope::{Scope, ScopeSet};
use serde_json::json;

use super::token::{attend, found};
use super::{ConfigArgs, Format, healthcheck, token_proof};
use crate::cli::oauth_keep::Keeper;
use crate::config::{Config, TokenSource};
use crate::doctor::finding::{Finding, Severity};
use crate::doctor::{Report, examine_candidate};
use crate::token::record::{Record, name_of};
use crate::token::{Token, store};

#[derive(Debug, Args)]
pub(super) struct StatusArgs {
    /// The tokens [default: all]
    #[arg(value_name = "ALIAS")]
    aliases: Vec<String>,
    #[command(flatten)]
    config: ConfigArgs,
    /// Ask neither Metrica nor Yandex ID
    #[arg(long, env = "METRIKA_GATE_TOKEN_OFFLINE", value_parser = clap::builder::BoolishValueParser::new())]
    offline: bool,
    /// The output format
    #[arg(long, value_name = "FORM", env = "METRIKA_GATE_FORMAT", default_value = "human")]
    format: Format,
}

/// The state of one token.
struct Row {
    alias: String,
    owner: Option<String>,
    application: Option<String>,
    declared: String,
    proven: Option<String>,
    /// Facts about its rights.
    rights: Vec<String>,
    issued: Option<u64>,
    expires: Option<SystemTime>,
    health: String,
    is_healthy: bool,
    quota_left: Option<String>,
}

/// A token that expires within this number of days should be renewed.
const DUE: u64 = 30;
const DAY: u64 = 24 * 60 * 60;

pub(super) fn status(args: &StatusArgs, out: &mut dyn Write) -> anyhow::Result<u8> {
    let config = super::load_config(&args.config.config)?;
    let sources = if args.aliases.is_empty() {
        config.tokens.clone()
    } else {
        args.aliases.iter().map(|alias| found(&config, alias)).collect::<anyhow::Result<_>>()?
    };
    let metrics = healthcheck::metrics(config.admin.address);
    let mut rows = Vec::new();
    for source in &sources {
        rows.push(row(&config, source, args.offline, metrics.as_deref())?);
    }
    let now = SystemTime::now();
    match args.format {
        Format::Human => human(&rows, now, out)?,
        Format::Json => writeln!(out, "{}", json!({ "tokens": rows.iter().map(machine).collect::<Vec<_>>() }))?,
    }
    Ok(u8::from(rows.iter().any(|row| !row.is_healthy)))
}

fn row(config: &Config, source: &TokenSource, offline: bool, metrics: Option<&str>) -> anyhow::Result<Row> {
    let origin = &source.origin;
    let record = Record::read(source);
    let owner = origin.owner.as_deref().map(str::to_owned);
    let mut row = Row {
        alias: source.alias.to_string(),
        owner: owner.or_else(|| record.as_ref().and_then(|record| record.owner.clone())),
        application: origin.client_id.as_deref().map(str::to_owned),
        declared: source.scopes.to_string(),
        proven: None,
        rights: Vec::new(),
        issued: None,
        expires: origin.expires,
        health: String::new(),
        is_healthy: false,
        quota_left: None,
    };
    match store::read(source, false) {
        Err(error) => row.health = error.to_string(),
        Ok(token) => {
            let is_replaced = record.as_ref().is_some_and(|record| record.token != name_of(&token));
            if let Some(record) = record.as_ref().filter(|_| !is_replaced) {
                row.issued = Some(record.issued);
                row.expires = record.expires().or(row.expires);
                row.application = row.application.or(record.client_id.clone());
            }
            health(config, source, token, offline, &mut row)?;
            row.rights = rights(config, source, record.as_ref().filter(|_| !is_replaced), offline, &row);
            if is_replaced {
                row.health.push_str("; another program has replaced the token since the last login");
            }
        }
    }
    // First: its remedy may be the one of everything else.
    let unfinished = Keeper::of(source).unfinished();
    row.health = unfinished.into_iter().chain([row.health]).collect::<Vec<_>>().join("; ");
    row.quota_left = row.owner.as_deref().and_then(|owner| quota_left(metrics?, owner));
    Ok(row)
}

/// Asks about a token, unless `offline` is set (rule 1).
fn health(config: &Config, source: &TokenSource, token: Token, offline: bool, row: &mut Row) -> anyhow::Result<()> {
    if offline {
        (row.health, row.is_healthy) = ("not asked".to_owned(), true);
        return Ok(());
    }
    let mut config = config.clone();
    config.callers = Vec::new().into();
    let mut tell = |_, _| {};
    let report = attend("interrupted", examine_candidate(&config, source, token, SystemTime::now(), &mut tell))??;
    for line in &report.lines {
        let (owner, application) = token_proof::names(&line.finding);
        row.owner = owner.or(row.owner.take());
        row.application = application.or(row.application.take());
        if matches!(line.finding, Finding::Read | Finding::ReadUndeclared) {
            row.proven = Some("metrika:read".to_owned());
        } else if matches!(line.finding, Finding::NoRead | Finding::ReadMissing { .. }) {
            row.proven = Some("no metrika:read".to_owned());
        }
    }
    (row.health, row.is_healthy) = summary(&report);
    Ok(())
}

/// Returns what the column of proven rights cannot show: only a write proves a right to write, and rights beyond the declared
/// ones are seen only at a login.
fn rights(config: &Config, source: &TokenSource, record: Option<&Record>, offline: bool, row: &Row) -> Vec<String> {
    let writes: ScopeSet = source.scopes.iter().filter(|scope| *scope != Scope::Read).collect();
    let unproven = format!("{writes}: declared, but only a write could prove that");
    let unproven = Some(unproven).filter(|_| !offline && !writes.is_empty());
    let application = row.application.as_deref();
    let (severity, words) = token_proof::excess(config, source, record.and_then(Record::rights), application);
    unproven.into_iter().chain(Some(words).filter(|_| severity != Severity::Well)).collect()
}

/// Returns the worst finding about a token itself.
fn summary(report: &Report) -> (String, bool) {
    let of_token = report.lines.iter().filter(|line| line.counter.is_none());
    let worst = of_token.max_by_key(|line| line.finding.severity());
    match worst.filter(|line| line.finding.severity() > Severity::Warning) {
        Some(line) => {
            let finding = &line.finding;
            (format!("{}: {}; {}", finding.check(), finding.result(), finding.advice()), false)
        }
        None => ("accepted".to_owned(), true),
    }
}

/// Returns the requests that are left today, according to the gate (rule 3).
fn quota_left(metrics: &str, owner: &str) -> Option<String> {
    let is_it = |line: &&str| {
        line.starts_with("metrika_gate_quota_remaining{")
            && line.contains(&format!("owner=\"{owner}\""))
            && line.contains("limit=\"day\"")
    };
    let value = metrics.lines().find(is_it)?.rsplit(' ').next()?;
    Some(format!("{value} today"))
}

/// Returns a duration in whole days, or in hours within a day.
fn days(duration: Duration) -> String {
    let (days, hours) = (duration.as_secs() / DAY, duration.as_secs() / 3600);
    if days > 0 { format!("{days} d") } else { format!("{hours} h") }
}

fn age(row: &Row, now: SystemTime) -> Option<String> {
    let issued = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(row.issued?))?;
    now.duration_since(issued).ok().map(days)
}

fn expiry(row: &Row, now: SystemTime) -> Option<String> {
    Some(match row.expires?.duration_since(now) {
        Ok(left) if left < Duration::from_secs(DUE * DAY) => format!("in {}: renew it", days(left)),
        Ok(left) => format!("in {}", days(left)),
        Err(past) => format!("{} ago", days(past.duration())),
    })
}

const HEADS: [&str; 9] =
    ["token", "owner", "application", "declared", "proven", "age", "expires", "quota left", "health"];

fn human(rows: &[Row], now: SystemTime, out: &mut dyn Write) -> anyhow::Result<()> {
    let cell = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let mut table = vec![HEADS.map(str::to_owned)];
    for row in rows {
        table.push([
            row.alias.clone(),
            cell(row.owner.clone()),
            cell(row.application.clone()),
            row.declared.clone(),
            cell(row.proven.clone()),
            cell(age(row, now)),
            cell(expiry(row, now)),
            cell(row.quota_left.clone()),
            row.health.clone(),
        ]);
    }
    let mut widths = [0; HEADS.len()];
    for cells in &table {
        for (width, cell) in widths.iter_mut().zip(cells) {
            *width = (*width).max(cell.chars().count());
        }
    }
    for cells in &table {
        let padded: Vec<_> = cells.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        writeln!(out, "{}", padded.join("  ").trim_end())?;
    }
    if rows.iter().any(|row| !row.rights.is_empty()) {
        writeln!(out)?;
    }
    for row in rows {
        for words in &row.rights {
            writeln!(out, "{}: {words}", row.alias)?;
        }
    }
    Ok(())
}

fn machine(row: &Row) -> serde_json::Value {
    let expires = row.expires.map(crate::token::record::seconds);
    json!({
        "token": row.alias,
        "owner": row.owner,
        "application": row.application,
        "declared": row.declared,
        "proven": row.proven,
        "rights": row.rights,
        "issued": row.issued,
        "expires": expires,
        "quota_left": row.quota_left,
        "healthy": row.is_healthy,
        "health": row.health,
    })
}

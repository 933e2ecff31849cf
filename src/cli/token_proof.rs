//! The proof of a token that was received, and what becomes of it.
//!
//! 1. The doctor examines the token: owner, application and rights, compared with the configuration. A mistake there, or an
//!    invalid token, keeps the old token in its place.
//! 2. If the proof is not possible now, the token waits in the pending file, and the next command proves it.
//! 3. Only findings and validated names are printed, never the token.

use std::io::Write;
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::token::{Ended, Subject, block_on, ended};
use crate::cli::oauth_keep::{Issued, text_of};
use crate::cli::oauth_paste::Received;
use crate::doctor::finding::{Finding, Severity};
use crate::doctor::{Line, Report, examine_candidate};
use crate::token::Token;
use crate::token::record::{Record, name_of, seconds};

/// The result of a proof.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Right,
    Wrong,
    Unknown,
}

/// The checks whose result decides about a token (rule 1).
const DECIDING: [&str; 5] = ["owner", "application", "alive", "read", "connection"];

/// The checks of which a bad finding may pass, except that Metrica and Yandex ID both reject the token.
const PASSING: [&str; 2] = ["alive", "connection"];

/// Returns the pair that was received, with its record.
pub(super) fn issued(received: Received, client_id: Option<&str>, device_id: Option<String>) -> Issued {
    let now = SystemTime::now();
    let expires = received.expires_in.and_then(|left| now.checked_add(Duration::from_secs(left)));
    let record = Record {
        token: name_of(&received.access),
        issued: seconds(now),
        expires: expires.map(seconds),
        owner: None,
        client_id: client_id.map(str::to_owned),
        device_id,
    };
    Issued { access: received.access, refresh: received.refresh, record }
}

/// Examines a token and prints the findings (rule 1). Adds the proven names to the record.
pub(super) fn prove(subject: &Subject, issued: &mut Issued) -> anyhow::Result<Verdict> {
    let mut config = subject.config.clone();
    // The counters of callers do not decide whether a token is the right one.
    config.callers = Vec::new().into();
    let mut tell = |_, _| {};
    let token = issued.access.clone();
    let examined = examine_candidate(&config, &subject.source, token, SystemTime::now(), &mut tell);
    let report = block_on(examined)??;
    show(&report)?;
    for line in &report.lines {
        let (owner, application) = names(&line.finding);
        issued.record.owner = owner.or(issued.record.owner.take());
        issued.record.client_id = application.or(issued.record.client_id.take());
    }
    Ok(verdict(&report))
}

/// Returns the owner or the application that a finding has proven.
pub(super) fn names(finding: &Finding) -> (Option<String>, Option<String>) {
    let owner = if let Finding::Owner { login } | Finding::OwnerSeen { login } = finding { Some(login) } else { None };
    let application = if let Finding::Application { client_id } | Finding::ApplicationSeen { client_id } = finding {
        Some(client_id)
    } else {
        None
    };
    (owner.map(ToString::to_string), application.map(ToString::to_string))
}

fn verdict(report: &Report) -> Verdict {
    let deciding = report.lines.iter().filter(|line| DECIDING.contains(&line.finding.check()));
    // Only what was found about the token makes it a wrong one. A connection that fails, or a refusal that may pass, does not:
    // the pair that it came with may be the only one that is left.
    let judged = |line: &Line| {
        let (check, severity) = (line.finding.check(), line.finding.severity());
        let passes = PASSING.contains(&check) && line.finding.name() != "dead";
        if severity == Severity::Wrong && passes { Severity::Unknown } else { severity }
    };
    match deciding.map(judged).max() {
        Some(Severity::Well | Severity::Note | Severity::Warning) => Verdict::Right,
        Some(Severity::Wrong) => Verdict::Wrong,
        Some(Severity::Unknown) | None => Verdict::Unknown,
    }
}

/// Prints findings to stderr: stdout is for the result.
fn show(report: &Report) -> std::io::Result<()> {
    let mut stderr = std::io::stderr();
    for line in &report.lines {
        let finding = &line.finding;
        let counter = line.counter.map_or_else(String::new, |counter| format!(" {counter}"));
        let advice = if finding.advice().is_empty() { String::new() } else { format!("; {}", finding.advice()) };
        let sign = super::doctor::sign(finding.severity());
        writeln!(stderr, "{sign} {}{counter}: {}{advice}", finding.check(), finding.result())?;
    }
    let has = |name: &str| report.lines.iter().any(|line| line.finding.name() == name);
    if has("owner_other") {
        writeln!(
            stderr,
            "    the browser was signed in with another account; use a private window, and note that oauth.yandex.ru and oauth.yandex.com keep separate sessions"
        )?;
    }
    Ok(())
}

/// Makes a token durable, proves it and installs it (rules 1 and 2). Returns the exit code.
pub(super) fn settle(subject: &Subject, mut issued: Issued, out: &mut dyn Write) -> anyhow::Result<u8> {
    let (keeper, alias) = (&subject.keeper, subject.source.alias);
    keeper.keep(&issued).map_err(Ended::from)?;
    match prove(subject, &mut issued)? {
        Verdict::Wrong => {
            keeper.discard().map_err(Ended::from)?;
            Err(ended(1, format_args!("token '{alias}': the new token is wrong and was not installed")))
        }
        Verdict::Unknown => Err(ended(
            75,
            format_args!(
                "token '{alias}': the new token could not be proven now, so it was not installed; run `metrika-gate token login {alias}` again to prove it, without another page"
            ),
        )),
        Verdict::Right => {
            let is_same = current(subject).is_some_and(|old| old == issued.access);
            keeper.install(&issued).map_err(Ended::from)?;
            writeln!(out, "token '{alias}' is in {}", crate::files::reading::shown(&subject.source.file))?;
            if is_same {
                writeln!(
                    out,
                    "it is the token that was there before: Yandex keeps one for an application, account and device until it is revoked"
                )?;
            }
            suggest(subject, &issued, out)?;
            Ok(0)
        }
    }
}

/// Finishes the work of an earlier command (rule 2). Returns its exit code, if there was any.
pub(super) fn resume(subject: &Subject, out: &mut dyn Write) -> anyhow::Result<Option<u8>> {
    let Some(issued) = subject.keeper.received().map_err(Ended::from)? else { return Ok(None) };
    let alias = subject.source.alias;
    writeln!(std::io::stderr(), "token '{alias}': an earlier command received a token that is not proven yet")?;
    match settle(subject, issued, out) {
        Ok(code) => Ok(Some(code)),
        // A wrong one is discarded, and the command does its own work.
        Err(error) if error.downcast_ref::<Ended>().is_some_and(|ended| ended.code == 1) => {
            writeln!(std::io::stderr(), "{error}")?;
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Returns the token in its place, if there is one.
pub(super) fn current(subject: &Subject) -> Option<Token> {
    crate::token::store::read(&subject.source, false).ok()
}

/// Prints the keys of the configuration that the proof has shown and that are not set.
fn suggest(subject: &Subject, issued: &Issued, out: &mut dyn Write) -> std::io::Result<()> {
    let (origin, record) = (&subject.source.origin, &issued.record);
    let expires = record.expires().map(|end| humantime::format_rfc3339_seconds(end).to_string());
    let lines = [
        ("owner", record.owner.clone().filter(|_| origin.owner.is_none())),
        ("client_id", record.client_id.clone().filter(|_| origin.client_id.is_none())),
        ("expires", expires.filter(|_| origin.expires.is_some())),
    ];
    let lines: Vec<_> = lines.into_iter().filter_map(|(key, value)| Some((key, value?))).collect();
    if !lines.is_empty() {
        writeln!(out, "\nset in the configuration:\n\ntokens:\n  {}:", subject.source.alias)?;
        for (key, value) in lines {
            writeln!(out, "    {key}: {value}")?;
        }
    }
    if issued.refresh.is_some() && origin.refresh_file.is_none() {
        writeln!(
            out,
            "\nthe refresh token was not kept; set tokens.{}.refresh_file and log in again to renew the token with `token refresh`",
            subject.source.alias
        )?;
    }
    Ok(())
}

/// Writes a token as a Secret of Kubernetes.
pub(super) fn manifest(subject: &Subject, issued: &Issued, name: &str, out: &mut dyn Write) -> anyhow::Result<()> {
    let file = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned());
    let key = file(&subject.source.file).unwrap_or_else(|| subject.source.alias.to_string());
    let record = serde_json::to_string(&issued.record)?;
    writeln!(out, "apiVersion: v1\nkind: Secret\nmetadata:\n  name: {name}\ntype: Opaque\nstringData:")?;
    writeln!(out, "  {key}: \"{}\"", *text_of(&issued.access))?;
    writeln!(out, "  {key}.json: '{record}'")?;
    let refresh = subject.source.origin.refresh_file.as_deref().and_then(file);
    if let (Some(key), Some(refresh)) = (refresh, &issued.refresh) {
        writeln!(out, "  {key}: \"{}\"", refresh.text())?;
    }
    Ok(())
}

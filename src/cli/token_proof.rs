//! The proof of a token that was received, and what becomes of it.
//!
//! 1. The doctor examines the token: owner, application and rights, compared with the configuration. A mistake there, or an
//!    invalid token, keeps the old token in its place.
//! 2. If the proof is not possible now, the token waits in the pending file, and the next command proves it.
//! 3. The rules of the gate for tokens and their files are applied before anything is written.
//! 4. Only findings and validated names are printed, never the token.

use std::io::Write;
use std::time::{Duration, SystemTime};

use metrica::scope::{Scope, ScopeSet};

use super::token::{Ended, Subject, attend, ended};
use crate::cli::oauth_keep::{Issued, NotKept};
use crate::cli::oauth_paste::Received;
use crate::config::{Config, TokenSource};
use crate::doctor::finding::{Finding, Rights, Severity};
use crate::doctor::{Line, Report, examine_candidate};
use crate::token::record::{Record, name_of, seconds};
use crate::token::{Token, store};

/// The result of a proof.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Right,
    Wrong,
    Unknown,
}

/// The place that a token comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// A page of Yandex, or a renewal.
    Page,
    /// A person who has it from elsewhere.
    Elsewhere,
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
        scopes: received.scope.map(|names| names.split(' ').filter(|name| is_scope(name)).map(str::to_owned).collect()),
    };
    Issued { access: received.access, refresh: received.refresh, record }
}

/// Whether this can be the name of a right: the record is printed within quotes, and a person may have pasted it.
fn is_scope(name: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b":_-.".contains(&byte);
    !name.is_empty() && name.bytes().all(is_plain)
}

/// Checks a token that was received by the rules of the gate for token files (rule 3).
pub(super) fn check(subject: &Subject, token: &Token) -> anyhow::Result<()> {
    let source = &subject.source;
    store::check(token, source.alias, &source.file, false).map_err(|error| ended(78, error))?;
    if token.is_short() {
        print(&Finding::Short, None)?;
    }
    Ok(())
}

/// Examines a token and prints the findings (rule 1). Adds the proven names to the record. `interrupted` is the message if a
/// person interrupts it.
pub(super) fn prove(
    subject: &Subject,
    issued: &mut Issued,
    from: Source,
    interrupted: &str,
) -> anyhow::Result<Verdict> {
    let mut config = subject.config.clone();
    // The counters of callers do not decide whether a token is the right one.
    config.callers = Vec::new().into();
    let mut tell = |_, _| {};
    let token = issued.access.clone();
    let examined = examine_candidate(&config, &subject.source, token, SystemTime::now(), &mut tell);
    let report = attend(interrupted, examined)??;
    show(&report, from)?;
    for line in &report.lines {
        let (owner, application) = names(&line.finding);
        issued.record.owner = owner.or(issued.record.owner.take());
        issued.record.client_id = application.or(issued.record.client_id.take());
    }
    let verdict = verdict(&report);
    if verdict == Verdict::Right {
        show_excess(subject, &issued.record)?;
    }
    Ok(verdict)
}

/// Returns the words for the rights that a token has beyond the declared ones, and their severity. Yandex names the granted
/// rights only to a person who grants fewer than the application asks for; no request shows them later. Whether the token
/// reads is a finding of its own.
pub(super) fn excess(
    config: &Config,
    source: &TokenSource,
    granted: Option<ScopeSet>,
    client_id: Option<&str>,
) -> (Severity, String) {
    let Some(granted) = granted else {
        let page = Rights(client_id.map(Into::into), config.oauth_site());
        let words = format!("more rights than declared cannot be seen; compare with the application's rights: {page}");
        return (Severity::Note, words);
    };
    let declared = source.scopes.with_implied();
    let is_more = |scope: &Scope| !declared.contains(*scope) && *scope != Scope::Read;
    let more: ScopeSet = granted.iter().filter(is_more).collect();
    if more.is_empty() {
        return (Severity::Well, "Yandex has granted no more than declared".to_owned());
    }
    let words = format!(
        "the token also has {more}, which is not declared: it has more rights than configured; declare them, or issue the token with an application that has fewer rights"
    );
    (Severity::Warning, words)
}

fn show_excess(subject: &Subject, record: &Record) -> std::io::Result<()> {
    let client_id = record.client_id.as_deref().or(subject.source.origin.client_id.as_deref());
    let (severity, words) = excess(&subject.config, &subject.source, record.rights(), client_id);
    writeln!(std::io::stderr(), "{} rights: {words}", super::doctor::sign(severity))
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
fn show(report: &Report, from: Source) -> std::io::Result<()> {
    for line in &report.lines {
        print(&line.finding, line.counter)?;
    }
    let of_browser = report.lines.iter().find_map(|line| {
        let finding = &line.finding;
        if let Finding::OwnerOther { stated, .. } | Finding::OwnerPersonal { stated, .. } = finding {
            Some(stated)
        } else {
            None
        }
    });
    let Some(stated) = of_browser.filter(|_| from == Source::Page) else { return Ok(()) };
    let words = if metrica::login::is_organisation(stated) {
        format!("on the page, sign in as a member of the organisation, and choose {stated} in the list of accounts")
    } else {
        "the browser was signed in with another account; use a private window, and note that oauth.yandex.ru and oauth.yandex.com keep separate sessions".to_owned()
    };
    writeln!(std::io::stderr(), "    {words}")
}

fn print(finding: &Finding, counter: Option<u64>) -> std::io::Result<()> {
    let counter = counter.map_or_else(String::new, |counter| format!(" {counter}"));
    let (result, advice) = words(finding);
    let advice = if advice.is_empty() { advice } else { format!("; {advice}") };
    let sign = super::doctor::sign(finding.severity());
    writeln!(std::io::stderr(), "{sign} {}{counter}: {result}{advice}", finding.check())
}

/// Returns the result and the advice of a finding. The counters of callers are not part of a proof, and there is no option for
/// them.
fn words(finding: &Finding) -> (String, String) {
    if let Finding::CountersSeen { asked, of } = finding {
        return (format!("checked {asked} of the {of} that the owner can see"), String::new());
    }
    if *finding == Finding::CountersNone {
        return ("the owner can see none".to_owned(), finding.advice());
    }
    if *finding == Finding::CountersNotAsked {
        return ("not checked: the token cannot list any".to_owned(), String::new());
    }
    (finding.result(), finding.advice())
}

/// Makes a token durable, proves it and installs it (rules 1 and 2). Returns the exit code.
pub(super) fn settle(subject: &Subject, mut issued: Issued, from: Source, out: &mut dyn Write) -> anyhow::Result<u8> {
    let (keeper, alias) = (&subject.keeper, subject.source.alias);
    check(subject, &issued.access)?;
    let before = Record::read(&subject.source);
    let of_same = before.as_ref().filter(|before| before.token == issued.record.token);
    if let Some(before) = of_same {
        issued.record.complete(before);
    }
    keeper.keep(&issued).map_err(|why| lost(subject, from, why))?;
    let kept = format!(
        "interrupted; the received token is kept, and `metrika-gate token login {alias}` proves it without another page"
    );
    match prove(subject, &mut issued, from, &kept)? {
        Verdict::Wrong => {
            keeper.discard().map_err(Ended::from)?;
            let page = subject.on_site("https://id.yandex.ru/personal/data-access");
            Err(ended(
                1,
                format_args!(
                    "token '{alias}': the new token is wrong and was not installed; if it works elsewhere, only its owner can end it, at {page}"
                ),
            ))
        }
        Verdict::Unknown => Err(ended(
            75,
            format_args!(
                "token '{alias}': the new token could not be proven now, so it was not installed; run `metrika-gate token login {alias}`, which proves it without another page"
            ),
        )),
        Verdict::Right => {
            let old = current(subject);
            let is_same = old.as_ref() == Some(&issued.access);
            let is_another =
                before.is_some_and(|before| before.token != issued.record.token) || !is_same && old.is_some();
            // A renewal would bring the earlier token back.
            let is_end = issued.refresh.is_none() && is_another && keeper.remove_refresh().map_err(Ended::from)?;
            keeper.install(&issued).map_err(Ended::from)?;
            writeln!(out, "token '{alias}' is in {}", crate::files::reading::shown(&subject.source.file))?;
            if is_same {
                writeln!(
                    out,
                    "it is the token that was there before: Yandex keeps one for an application, account and device until it is revoked"
                )?;
            }
            if is_end {
                writeln!(
                    out,
                    "the refresh token of the token before it is removed; this one came without, so `token refresh` cannot renew it"
                )?;
            }
            suggest(subject, &issued, out)?;
            Ok(0)
        }
    }
}

/// Returns the end of a command whose received token cannot be kept.
fn lost(subject: &Subject, from: Source, why: NotKept) -> anyhow::Error {
    let mut ended = Ended::from(why);
    if from == Source::Page {
        ended.message.push_str(&format!(
            "; the received token was not kept: when the file can be written, run `metrika-gate token login {}`, for which Yandex has the same one",
            subject.source.alias
        ));
    }
    ended.into()
}

/// Finishes the work of an earlier command (rule 2), called `what`. Returns its exit code, if there was any.
pub(super) fn resume(subject: &Subject, what: &str, out: &mut dyn Write) -> anyhow::Result<Option<u8>> {
    let Some(issued) = subject.keeper.received().map_err(Ended::from)? else { return Ok(None) };
    let alias = subject.source.alias;
    writeln!(
        std::io::stderr(),
        "token '{alias}': finishing the interrupted {what}, whose token is not proven yet; no new one is needed"
    )?;
    match settle(subject, issued, Source::Page, out) {
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
    let declared = subject.config.tokens.iter().find(|token| token.alias == subject.source.alias);
    let narrowed = declared.is_some_and(|token| token.scopes != subject.source.scopes);
    let lines = [
        ("scopes", narrowed.then(|| format!("[{}]", listed(subject.source.scopes)))),
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

fn listed(scopes: ScopeSet) -> String {
    scopes.iter().map(Scope::as_str).collect::<Vec<_>>().join(", ")
}

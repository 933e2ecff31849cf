//! `token revoke`: ends a token at Yandex, and removes its files.
//!
//! 1. Only a token that was issued to a device can be revoked by a program. Its owner ends any other, on a page.
//! 2. A token that another program has put in the place of the one that a command wrote is not revoked, unless `--replaced`
//!    is given.
//! 3. The token leaves its place before it ends, and the gate of this configuration is given time to notice, so that it never
//!    sends a dead one. If Yandex refuses the revocation, or no connection is made, the token returns.
//! 4. A token that an earlier command received and did not install, or set aside, is revoked first. Each may have ended
//!    before, which is no error if Metrica rejects it: the command can be repeated. A token that was put in its place since
//!    then stays.
//! 5. A token whose standby Metrica rejects is not revoked, unless `--without-standby` is given: nothing would serve its
//!    callers.

use std::io::Write;
use std::time::{Duration, Instant, SystemTime};

use clap::Args;

use super::oauth_fault::{Fault, OAuthError};
use super::oauth_server::{Client, Server};
use super::token::{Ended, OneArgs, Subject, attend, ended};
use super::{healthcheck, token};
use crate::config::TokenSource;
use crate::doctor::finding::Severity;
use crate::doctor::{Line, examine_candidate};
use crate::token::record::{Record, name_of};
use crate::token::store::{self, TokenFileError};
use crate::token::{Token, TokenAlias};

#[derive(Debug, Args)]
pub(super) struct RevokeArgs {
    #[command(flatten)]
    one: OneArgs,
    /// Revoke the token in the file although another program has put it there
    #[arg(long, env = "METRIKA_GATE_TOKEN_REPLACED", value_parser = clap::builder::BoolishValueParser::new())]
    replaced: bool,
    /// Revoke the token although Metrica rejects its standby, for a token that leaked
    #[arg(long, env = "METRIKA_GATE_TOKEN_WITHOUT_STANDBY", value_parser = clap::builder::BoolishValueParser::new())]
    without_standby: bool,
}

/// The tokens to revoke.
struct Doomed {
    /// The token in its place.
    installed: Option<Token>,
    /// Those of earlier commands (rule 4).
    earlier: Vec<Token>,
    /// The token that is in the place and stays there, if one does.
    stays: Option<Stays>,
}

/// A token that stays in its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stays {
    /// It is the one of the last login, which came after an interrupted revocation.
    OfLogin,
    /// Another program has put it there.
    OfOther,
}

const INTERRUPTED: &str = "interrupted; run the command again to finish the revocation";

pub(super) fn revoke(args: &RevokeArgs, out: &mut dyn Write) -> anyhow::Result<u8> {
    let subject = args.one.subject()?;
    let client = args.one.client(&subject)?;
    let alias = subject.source.alias;
    if client.secret.is_none() {
        let page = subject.on_site("https://id.yandex.ru/personal/data-access");
        return Err(ended(
            2,
            format_args!(
                "a revocation needs the secret of the application; set tokens.{alias}.client_secret_file, or use --client-secret-file FILE; the token's owner can also revoke the access at {page}"
            ),
        ));
    }
    subject.keeper.check().map_err(Ended::from)?;
    let _lock = subject.keeper.lock().map_err(Ended::from)?;
    let doomed = doomed(&subject, args.replaced)?;
    if !args.without_standby && doomed.installed.is_some() {
        check_standby(&subject)?;
    }
    let server = subject.server()?;
    for token in &doomed.earlier {
        end(&subject, &server, &client, token, true)?.map_err(|fault| subject.fault(&fault))?;
    }
    if let Some(token) = &doomed.installed {
        subject.keeper.set_aside().map_err(Ended::from)?;
        until_unused(&subject);
        end_installed(&subject, &server, &client, token, !doomed.earlier.is_empty())?;
    }
    match doomed.stays {
        Some(Stays::OfLogin) => subject.keeper.remove_earlier(),
        Some(Stays::OfOther) | None => subject.keeper.remove(),
    }
    .map_err(Ended::from)?;
    let what = match doomed.stays {
        Some(Stays::OfLogin) => format!("the token that was set aside for '{alias}' is revoked"),
        Some(Stays::OfOther) | None => format!("token '{alias}' is revoked, and its files are removed"),
    };
    writeln!(out, "{what}; {}", consequence(&subject, &doomed))?;
    Ok(0)
}

/// Returns the tokens to revoke (rules 2 and 4).
fn doomed(subject: &Subject, replaced: bool) -> anyhow::Result<Doomed> {
    let alias = subject.source.alias;
    let pending = subject.keeper.received().map_err(Ended::from)?.map(|issued| issued.access);
    let aside = subject.keeper.aside().map_err(|error| ended(78, error))?;
    let installed = match store::read(&subject.source, false) {
        Ok(token) => Some(token),
        Err(TokenFileError::Missing { .. }) if aside.is_some() => None,
        Err(error) => return Err(ended(78, error)),
    };
    let record = Record::read(&subject.source);
    let has_record = |token: &Token| record.as_ref().is_some_and(|record| record.token == name_of(token));
    let stays = installed.as_ref().filter(|_| !replaced).and_then(|token| match &aside {
        // The same token can be issued again until it is revoked.
        Some(aside) if aside == token => None,
        Some(_) if has_record(token) => Some(Stays::OfLogin),
        Some(_) => Some(Stays::OfOther),
        None => (record.is_some() && !has_record(token)).then_some(Stays::OfOther),
    });
    if stays.is_some() && aside.is_none() {
        let file = crate::files::reading::shown(&subject.source.file);
        return Err(ended(
            1,
            format_args!(
                "{file}: another program has replaced token '{alias}' since the last login, so nothing was revoked; to revoke the token of the other program, add --replaced; to end the one of the login, let its owner revoke the access at {}",
                subject.on_site("https://id.yandex.ru/personal/data-access")
            ),
        ));
    }
    // A login that was killed at its end leaves its token in both places.
    let earlier = [pending, aside].into_iter().flatten().filter(|token| Some(token) != installed.as_ref()).collect();
    Ok(Doomed { installed: installed.filter(|_| stays.is_none()), earlier, stays })
}

/// Refuses if Metrica rejects the token of the standby (rule 5).
fn check_standby(subject: &Subject) -> anyhow::Result<()> {
    let Some(standby) = subject.source.origin.standby else { return Ok(()) };
    let source = token::found(&subject.config, standby.as_str())?;
    // Without a token in its file, the last line says so.
    let Ok(token) = store::read(&source, false) else { return Ok(()) };
    if !is_rejected(subject, &source, token)? {
        return Ok(());
    }
    let alias = subject.source.alias;
    Err(ended(
        1,
        format_args!(
            "Metrica rejects the token of the standby '{standby}', so nothing was revoked: without '{alias}', its callers would be refused; run `metrika-gate token login {standby}` first, or add --without-standby if '{alias}' leaked"
        ),
    ))
}

/// Whether Metrica rejects a token.
fn is_rejected(subject: &Subject, source: &TokenSource, token: Token) -> anyhow::Result<bool> {
    let mut tell = |_, _| {};
    let report = attend(INTERRUPTED, examine_candidate(&subject.config, source, token, SystemTime::now(), &mut tell))??;
    let is_wrong = |line: &Line| line.finding.check() == "alive" && line.finding.severity() == Severity::Wrong;
    Ok(report.lines.iter().any(is_wrong))
}

/// Revokes a token. `may_have_ended` is whether it is no error that it has ended before (rule 4).
fn end(
    subject: &Subject,
    server: &Server,
    client: &Client,
    token: &Token,
    may_have_ended: bool,
) -> anyhow::Result<Result<(), Fault>> {
    match attend(INTERRUPTED, server.revoke(client, token))? {
        // Yandex says the same of a token of another application, which has not ended.
        Err(Fault::Refused(_, OAuthError::InvalidGrant))
            if may_have_ended && is_rejected(subject, &subject.source, token.clone())? =>
        {
            Ok(Ok(()))
        }
        revoked => Ok(revoked),
    }
}

/// Revokes the token that was in its place and is set aside (rule 3).
fn end_installed(
    subject: &Subject,
    server: &Server,
    client: &Client,
    token: &Token,
    may_have_ended: bool,
) -> anyhow::Result<()> {
    let error = match end(subject, server, client, token, may_have_ended) {
        Ok(Ok(())) => return Ok(()),
        Ok(Err(fault)) if fault.has_no_effect() => {
            subject.keeper.put_back().map_err(Ended::from)?;
            return Err(subject.fault(&fault).into());
        }
        Ok(Err(fault)) => subject.fault(&fault).into(),
        Err(interrupted) => interrupted,
    };
    // Whether the token has ended is unknown.
    let code = error.downcast_ref::<Ended>().map_or(1, |ended| ended.code);
    let (aside, alias) = (subject.keeper.aside_file().display(), subject.source.alias);
    Err(ended(
        code,
        format_args!(
            "{error}; the token is set aside in {aside}, and the gate does not use it: run `metrika-gate token revoke {alias}` again, or move the file back"
        ),
    ))
}

/// The time in which a running gate notices that a token is gone, and the pause between two questions about it.
const NOTICES: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(100);

/// Waits until the gate that runs with the configuration, if there is one, does not use the token any more (rule 3).
fn until_unused(subject: &Subject) {
    let loaded = format!("metrika_gate_token_loaded{{token=\"{}\"}} 1", subject.source.alias);
    let uses = |metrics: String| metrics.lines().any(|line| line == loaded);
    let start = Instant::now();
    while start.elapsed() < NOTICES && healthcheck::metrics(subject.config.admin.address).is_some_and(uses) {
        std::thread::sleep(PAUSE);
    }
}

/// Returns the words for the requests that used the token.
fn consequence(subject: &Subject, doomed: &Doomed) -> String {
    match doomed.stays {
        Some(Stays::OfLogin) => return "the token of the last login stays in use".to_owned(),
        Some(Stays::OfOther) => {
            let file = crate::files::reading::shown(&subject.source.file);
            return format!("requests use the token that another program has put in {file}");
        }
        None => {}
    }
    let is_usable = |alias: &TokenAlias| {
        let found = token::found(&subject.config, alias.as_str()).ok();
        let standby = found.and_then(|source| store::read(&source, false).ok());
        standby.is_some_and(|standby| !doomed.earlier.iter().chain(&doomed.installed).any(|ended| *ended == standby))
    };
    match subject.source.origin.standby {
        Some(standby) if is_usable(&standby) => format!("requests use the standby '{standby}'"),
        Some(standby) => format!(
            "its standby '{standby}' has no other token, so requests that need one are refused until the next login"
        ),
        None => "requests that need it are refused until the next login".to_owned(),
    }
}

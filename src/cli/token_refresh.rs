//! `token refresh`: renews tokens, for a timer.
//!
//! 1. The new pair is durable before it is used, and the old one stays until the new one is proven.
//! 2. One process renews a token at a time; a second one ends with 75.
//! 3. An access token that stays the same is no error. A dead refresh token needs a new login.
//! 4. A token that another program has put in the place is not renewed: the refresh token would bring the earlier one back.

use std::io::Write;
use std::path::Path;

use clap::Args;

use super::token::{Ended, Subject, UNCHANGED, attend, client_secret, ended, found, secret};
use super::{ConfigArgs, terminal, token_proof};
use crate::cli::oauth_keep::Keeper;
use crate::cli::oauth_secret::RefreshToken;
use crate::cli::oauth_server::{Client, Grant};
use crate::config::Config;
use crate::files::{ExternalFile, Purpose};
use crate::token::record::{Record, name_of};

#[derive(Debug, Args)]
pub(super) struct RefreshArgs {
    /// The tokens [default: all with a `refresh_file`]
    #[arg(value_name = "ALIAS")]
    aliases: Vec<String>,
    #[command(flatten)]
    config: ConfigArgs,
}

pub(super) fn refresh(args: &RefreshArgs, out: &mut dyn Write) -> anyhow::Result<u8> {
    let config = super::load_config(&args.config.config)?;
    let aliases: Vec<String> = if args.aliases.is_empty() {
        let renewed = config.tokens.iter().filter(|source| source.origin.refresh_file.is_some());
        renewed.map(|source| source.alias.to_string()).collect()
    } else {
        args.aliases.clone()
    };
    if aliases.is_empty() {
        return Err(ended(2, "no token has a refresh_file; set tokens.ALIAS.refresh_file, and log in"));
    }
    let mut worst = 0;
    for alias in aliases {
        let code = match one(&config, &alias, out) {
            Ok(code) => code,
            Err(error) => {
                // The other tokens are renewed nevertheless.
                writeln!(std::io::stderr(), "metrika-gate: {error:#}")?;
                error.downcast_ref::<Ended>().map_or(1, |ended| ended.code)
            }
        };
        if code == terminal::INTERRUPTED {
            return Ok(code);
        }
        worst = worst.max(code);
    }
    Ok(worst)
}

fn one(config: &Config, alias: &str, out: &mut dyn Write) -> anyhow::Result<u8> {
    let source = found(config, alias)?;
    let subject = Subject { keeper: Keeper::of(&source), source, config: config.clone() };
    let origin = &subject.source.origin;
    let Some(refresh_file) = &origin.refresh_file else {
        return Err(ended(2, format_args!("token '{alias}' has no refresh_file; set it, and log in")));
    };
    subject.keeper.check().map_err(Ended::from)?;
    let _lock = subject.keeper.lock().map_err(Ended::from)?;
    if let Some(code) = token_proof::resume(&subject, "command", out)? {
        return Ok(code);
    }
    let record = Record::read(&subject.source);
    check_not_replaced(&subject, record.as_ref(), refresh_file)?;
    let of_record = record.as_ref().and_then(|record| record.client_id.clone());
    let Some(id) = origin.client_id.as_deref().map(str::to_owned).or(of_record) else {
        return Err(ended(2, format_args!("token '{alias}' has no application; set tokens.{alias}.client_id")));
    };
    let secret_file = origin.client_secret_file.as_deref();
    let client = Client { id, secret: secret_file.map(|file| client_secret(&subject.source, file)).transpose()? };
    let row = ExternalFile::new(Purpose::RefreshToken(subject.source.alias), refresh_file);
    let token = secret(&row, RefreshToken::parse)?;
    let server = subject.server()?;
    let received = attend(UNCHANGED, server.token(&client, &Grant::Refresh(&token)))?;
    let received = received.map_err(|fault| subject.fault(&fault))?;
    let (device, scopes) = record.map_or((None, None), |record| (record.device_id, record.scopes));
    let mut issued = token_proof::issued(received, Some(&client.id), device);
    // A renewal does not change the rights.
    issued.record.scopes = issued.record.scopes.or(scopes);
    // Some servers keep the refresh token and do not repeat it.
    issued.refresh = issued.refresh.or(Some(token));
    token_proof::settle(&subject, issued, token_proof::Source::Page, out)
}

/// Refuses if another program has replaced the token (rule 4).
fn check_not_replaced(subject: &Subject, record: Option<&Record>, refresh_file: &Path) -> anyhow::Result<()> {
    let (Some(record), Some(token)) = (record, token_proof::current(subject)) else { return Ok(()) };
    if record.token == name_of(&token) {
        return Ok(());
    }
    let (alias, shown) = (subject.source.alias, crate::files::reading::shown);
    Err(ended(
        1,
        format_args!(
            "{}: another program has replaced token '{alias}' since the last login, so it was not renewed; to keep the token of the other program, remove {}; to use tokens of logins again, run `metrika-gate token login {alias}`",
            shown(&subject.source.file),
            shown(refresh_file)
        ),
    ))
}

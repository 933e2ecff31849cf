//! `token revoke`: ends a token at Yandex, and removes its files.
//!
//! 1. Only a token that was issued to a device can be revoked by a program. Its owner ends any other, on a page.
//! 2. A token that an earlier command received and did not install is revoked first. Each of the two may have ended before, the
//!    installed one with the other, which is no error then: the command can be repeated.

use std::io::Write;

use clap::Args;

use super::oauth_fault::{Fault, OAuthError};
use super::token::{Ended, OneArgs, block_on, ended};

#[derive(Debug, Args)]
pub(super) struct RevokeArgs {
    #[command(flatten)]
    one: OneArgs,
}

pub(super) fn revoke(args: &RevokeArgs, out: &mut dyn Write) -> anyhow::Result<u8> {
    let subject = args.one.subject()?;
    let client = args.one.client(&subject)?;
    let alias = subject.source.alias;
    if client.secret.is_none() {
        return Err(ended(
            2,
            format_args!(
                "a revocation needs the secret of the application; set tokens.{alias}.client_secret_file, or use --client-secret-file FILE; the token's owner can also revoke the access at https://id.yandex.ru/personal/data-access"
            ),
        ));
    }
    subject.keeper.check().map_err(Ended::from)?;
    let _lock = subject.keeper.lock().map_err(Ended::from)?;
    let token = crate::token::store::read(&subject.source, false).map_err(|error| ended(78, error))?;
    let pending = subject.keeper.received().map_err(Ended::from)?.map(|issued| issued.access);
    let server = subject.server()?;
    let pending = pending.filter(|pending| *pending != token);
    if let Some(pending) = &pending {
        match block_on(server.revoke(&client, pending))? {
            Err(Fault::Refused(_, OAuthError::InvalidGrant)) => {}
            revoked => revoked.map_err(Ended::from)?,
        }
    }
    match block_on(server.revoke(&client, &token))? {
        Err(Fault::Refused(_, OAuthError::InvalidGrant)) if pending.is_some() => {}
        revoked => revoked.map_err(Ended::from)?,
    }
    subject.keeper.remove().map_err(Ended::from)?;
    writeln!(
        out,
        "token '{alias}' is revoked, and its files are removed; requests that need it are refused until the next login"
    )?;
    Ok(0)
}

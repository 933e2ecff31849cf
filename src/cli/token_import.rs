//! `token import`: a token that somebody has got elsewhere.

use std::io::Write;

use clap::Args;

use super::token::{Ended, OneArgs, ended};
use super::{terminal, token_proof};
use crate::cli::oauth_paste::{self as paste, BadPaste, Pasted};

#[derive(Debug, Args)]
pub(super) struct ImportArgs {
    #[command(flatten)]
    one: OneArgs,
}

pub(super) fn import(args: &ImportArgs, out: &mut dyn Write) -> anyhow::Result<u8> {
    let subject = args.one.subject()?;
    subject.keeper.check().map_err(Ended::from)?;
    let _lock = subject.keeper.lock().map_err(Ended::from)?;
    subject.keeper.check_none_waits().map_err(Ended::from)?;
    let text = terminal::everything("Paste the token, the address of its page, or the JSON response of Yandex")?;
    let read = paste::read(&text, None).map_err(|bad| {
        let end = if bad == BadPaste::Address { ", with the part behind '#'" } else { "" };
        ended(1, format_args!("{bad}{end}"))
    });
    match read? {
        Pasted::Token(received) => {
            let issued = token_proof::issued(*received, args.one.client_id(), None);
            let code = token_proof::settle(&subject, issued, token_proof::Source::Elsewhere, out)?;
            args.one.print_next(out)?;
            Ok(code)
        }
        Pasted::Code(_) => Err(ended(
            1,
            "this is a code and not a token; a code belongs to the login that has printed its address, so paste it there",
        )),
    }
}

//! `key`: makes keys for callers.
//!
//! 1. `key new` prints the key and its SHA-256 to stdout, once. Nothing is stored, and no configuration is read.
//! 2. The key has 256 random bits of the operating system.

use std::io::Write;

use aws_lc_rs::rand;
use clap::{Args, Subcommand};
use zeroize::Zeroizing;

use super::wrong_usage;
use crate::config::name_text;
use crate::policy::caller::KeyHash;
use crate::policy::key::{RANDOM, of_random};

#[derive(Debug, Args)]
pub(super) struct KeyArgs {
    #[command(subcommand)]
    command: KeyCommand,
}

#[derive(Debug, Subcommand)]
enum KeyCommand {
    /// Make a key for a caller; prints the key and its SHA-256, one a line
    New(NewArgs),
}

#[derive(Debug, Args)]
struct NewArgs {
    /// The id of the caller, for the advice on stderr
    caller: String,
}

pub(super) fn key(args: &KeyArgs, out: &mut dyn Write) -> anyhow::Result<u8> {
    let KeyCommand::New(NewArgs { caller }) = &args.command;
    if let Err(expected) = name_text(caller) {
        return wrong_usage(&format!("invalid id of a caller; expected {expected}"));
    }
    let mut random = Zeroizing::new([0; 4 * RANDOM]);
    let key = loop {
        rand::fill(random.as_mut_slice()).map_err(|_| anyhow::anyhow!("the operating system has no random bytes"))?;
        if let Some(key) = of_random(random.as_slice()) {
            break key;
        }
    };
    let hash = KeyHash::of(key.as_bytes());
    writeln!(out, "{}\n{hash}", key.as_str())?;
    out.flush()?;
    writeln!(
        std::io::stderr(),
        "metrika-gate: give the first line to '{caller}', which sends it as its token; it is not shown again.\n\
         metrika-gate: put the second line under key_sha256 of the caller, or into keys_file as: {caller} {hash}"
    )?;
    Ok(0)
}

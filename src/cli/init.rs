//! `init`: writes a minimal configuration.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::Args;

#[derive(Debug, Args)]
pub(super) struct InitArgs {
    /// Write to this file instead of stdout; it must not exist
    #[arg(long, value_name = "FILE", env = "METRIKA_GATE_INIT_OUT")]
    out: Option<PathBuf>,
}

/// The minimal configuration; a test checks that it is valid.
const CONFIGURATION: &str = include_str!("../../config/gate.yaml");

pub(super) fn init(args: &InitArgs, out: &mut dyn Write) -> anyhow::Result<u8> {
    let Some(path) = &args.out else {
        out.write_all(CONFIGURATION.as_bytes())?;
        return Ok(0);
    };
    let name = path.display();
    let mut file = match OpenOptions::new().write(true).create_new(true).open(path) {
        Ok(file) => file,
        // Without its cause, which would select the exit code of an address in use.
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            bail!("{name} already exists; choose another file, or remove it")
        }
        Err(error) => return Err(error).with_context(|| format!("cannot write {name}")),
    };
    file.write_all(CONFIGURATION.as_bytes()).with_context(|| format!("cannot write {name}"))?;
    writeln!(
        out,
        "wrote {name}; next, run: metrika-gate token login analytics --config {name} (or write a token to its file), then metrika-gate check --config {name}"
    )?;
    Ok(0)
}

//! `init`: a configuration to begin with.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::Args;

#[derive(Debug, Args)]
pub(super) struct InitArgs {
    /// Write it to this file, which must not be there yet, in the place of stdout
    #[arg(long, value_name = "FILE", env = "METRIKA_GATE_INIT_OUT")]
    out: Option<PathBuf>,
}

/// The smallest that works; a test holds that it is right.
const CONFIGURATION: &str = include_str!("../../config/gate.yaml");

pub(super) fn init(args: &InitArgs, out: &mut dyn Write) -> anyhow::Result<u8> {
    let Some(path) = &args.out else {
        out.write_all(CONFIGURATION.as_bytes())?;
        return Ok(0);
    };
    let name = path.display();
    let mut file = match OpenOptions::new().write(true).create_new(true).open(path) {
        Ok(file) => file,
        // Not with its cause, whose exit code is that of an address that is taken.
        Err(error) if error.kind() == ErrorKind::AlreadyExists => bail!("{name} is there already, and stays as it is"),
        Err(error) => return Err(error).with_context(|| format!("{name} cannot be written")),
    };
    file.write_all(CONFIGURATION.as_bytes()).with_context(|| format!("{name} cannot be written"))?;
    writeln!(out, "{name} is written; then: metrika-gate check --config {name}")?;
    Ok(0)
}

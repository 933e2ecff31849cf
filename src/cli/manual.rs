//! `man` and `completions`: manual pages and completions of shells, from the definition of the command line.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::{Args, Command};
use clap_complete::Shell;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, roman};

use super::{DEFAULT_CONFIG, wrong_usage};

#[derive(Debug, Args)]
pub(super) struct ManArgs {
    /// Print the page of this command, as in `man token login` [default: the page of the program]
    #[arg(value_name = "COMMAND", conflicts_with = "out")]
    command: Vec<String>,
    /// Write the pages of all commands to this folder, which must exist
    #[arg(long, value_name = "FOLDER", env = "METRIKA_GATE_MAN_OUT")]
    out: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct CompletionsArgs {
    /// The shell
    shell: Shell,
}

pub(super) fn man(args: &ManArgs, program: Command, out: &mut dyn Write) -> anyhow::Result<u8> {
    let mut program = program.disable_help_subcommand(true);
    program.build();
    if let Some(folder) = &args.out {
        let pages = write_all(&program, folder)?;
        writeln!(out, "wrote {pages} pages to {}", folder.display())?;
        return Ok(0);
    }
    let mut command = &program;
    for name in &args.command {
        match command.find_subcommand(name) {
            Some(found) => command = found,
            None => {
                return wrong_usage(&format!(
                    "unknown command '{}'; see `metrika-gate --help`",
                    args.command.join(" ")
                ));
            }
        }
    }
    page(command, out)?;
    Ok(0)
}

/// Writes the page of `command` and of all commands inside it. Returns the number of pages.
fn write_all(command: &Command, folder: &Path) -> anyhow::Result<usize> {
    let file = folder.join(Man::new(command.clone()).get_filename());
    let mut opened = File::create(&file).with_context(|| format!("cannot write {}", file.display()))?;
    page(command, &mut opened).with_context(|| format!("cannot write {}", file.display()))?;
    command.get_subcommands().try_fold(1, |pages, inner| Ok(pages + write_all(inner, folder)?))
}

fn page(command: &Command, out: &mut dyn Write) -> std::io::Result<()> {
    // A page has no date, so that equal sources make equal pages.
    let man =
        Man::new(command.clone()).manual("metrika-gate").source(concat!("metrika-gate ", env!("CARGO_PKG_VERSION")));
    man.render_title(out)?;
    man.render_name_section(out)?;
    man.render_synopsis_section(out)?;
    man.render_description_section(out)?;
    if command.get_arguments().any(|argument| !argument.is_hide_set()) {
        man.render_options_section(out)?;
    }
    if command.has_subcommands() {
        man.render_subcommands_section(out)?;
    }
    let mut roff = Roff::new();
    if let Some(text) = command.get_after_long_help().or_else(|| command.get_after_help()) {
        add_sections(&mut roff, &text.to_string());
    }
    if command.get_arguments().any(|argument| argument.get_id() == "config") {
        add_sections(&mut roff, &format!("Files:\n  {DEFAULT_CONFIG}   the configuration"));
    }
    roff.to_writer(out)
}

/// Adds a section for each unindented line with a colon at its end; the lines below it are shown as they are.
fn add_sections(roff: &mut Roff, text: &str) {
    let mut is_open = false;
    for line in text.lines().filter(|line| !line.is_empty()) {
        match line.strip_suffix(':').filter(|heading| !heading.starts_with(' ')) {
            Some(heading) => {
                if is_open {
                    roff.control("fi", []);
                }
                let heading = heading.to_uppercase();
                roff.control("SH", [if heading == "EXIT CODES" { "EXIT STATUS" } else { &heading }]);
                roff.control("nf", []);
                is_open = true;
            }
            None => {
                roff.text([roman(line.strip_prefix("  ").map_or(line, |line| line))]);
            }
        }
    }
    if is_open {
        roff.control("fi", []);
    }
}

pub(super) fn completions(args: &CompletionsArgs, mut program: Command, out: &mut dyn Write) -> anyhow::Result<u8> {
    // Into memory first: the generator panics when its writer fails.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut program, "metrika-gate", &mut script);
    out.write_all(&script)?;
    Ok(0)
}

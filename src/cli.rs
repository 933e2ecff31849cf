//! The command line. Every flag has an environment variable.

use std::ffi::OsString;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use strict_http::number;

use crate::config::{self, Config, Error, LogFormat};
use crate::reload::Source;
use crate::server::listen::MissingFolder;
use crate::server::passed::UnfitSocket;
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};

mod accounts;
pub mod app;
mod ca;
mod candidates;
mod certificates;
mod check;
mod client_env;
mod client_texts;
mod demo;
mod doctor;
mod environment;
mod explain;
mod fake;
mod files;
mod harden;
mod healthcheck;
mod identity;
mod init;
mod key;
mod lines;
mod manual;
mod needs;
mod oauth;
mod oauth_device;
mod oauth_fault;
mod oauth_keep;
mod oauth_paste;
mod oauth_pkce;
mod oauth_secret;
mod oauth_server;
mod proofs;
mod quota;
mod replay;
mod rights;
mod schema;
mod shutdown;
mod suggest;
mod terminal;
mod token;
mod token_import;
mod token_login;
mod token_print;
mod token_proof;
mod token_refresh;
mod token_revoke;
mod token_status;
mod traits;
mod url;

use app::{App, Options};

const EXAMPLES: &str = "\
Examples:
  metrika-gate demo                                     try the gate without an account
  metrika-gate init --out gate.yaml                     write a minimal configuration
  metrika-gate token login analytics --config gate.yaml  get a token from Yandex
  metrika-gate check --config gate.yaml                 validate the configuration
  metrika-gate doctor --config gate.yaml                check the tokens with Metrica
  metrika-gate explain GET /management/v1/counters --as reports --config gate.yaml
  metrika-gate run --config gate.yaml
  metrika-gate client-env requests --config gate.yaml   print a program that connects to the gate

Exit codes:
  0   success; explain: allowed; healthcheck: healthy
  1   failure at runtime; doctor: a problem was found; explain: refused; healthcheck: unhealthy
  2   invalid usage
  66  cannot read the configuration
  69  the address is in use, or shutdown closed connections that were still open
  75  Metrica or Yandex could not be reached, or another command changes the same token or authority
  77  wrong permissions of a token file, the configuration, one of their folders or the folder of a socket
  78  invalid configuration or token, the folder of a socket does not exist, or a socket of the service manager does not
      fit the configuration";

/// An authenticating reverse proxy for the Yandex Metrica API: callers without credentials, tokens in one place.
#[derive(Debug, Parser)]
#[command(name = "metrika-gate", version, after_help = EXAMPLES, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    run: RunArgs,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve callers (the default without a command)
    Run(RunArgs),
    /// Validate a configuration and its token files
    Check(check::CheckArgs),
    /// Check the tokens with Metrica, using reads only
    Doctor(doctor::DoctorArgs),
    /// Show how the policy treats a request, or every request in a log, without sending anything
    Explain(explain::ExplainArgs),
    /// Generate a configuration with the rights that the requests in a log needed
    Suggest(suggest::SuggestArgs),
    /// Write a minimal configuration
    Init(init::InitArgs),
    /// Print how a client connects to a listener: a program or the variables to set
    ClientEnv(client_env::ClientEnvArgs),
    /// Get, show, renew and revoke tokens at Yandex
    Token(token::TokenArgs),
    /// Make keys by which callers prove who they are
    Key(key::KeyArgs),
    /// Create and use a private certificate authority, for callers that expect Metrica's own names over TLS
    Ca(ca::CaArgs),
    /// Run a stand-in for Metrica, a gate and its admin listener in one process, with five examples to try
    Demo(demo::DemoArgs),
    /// Run a stand-in for the Metrica API over TLS, for tests and demos
    Fake(fake::FakeArgs),
    /// Check whether a running gate is ready
    Healthcheck(healthcheck::HealthcheckArgs),
    /// Print the JSON schema of the configuration, for completion and checks in editors
    Schema,
    /// Print or write the manual pages
    Man(manual::ManArgs),
    /// Print the completions for a shell
    Completions(manual::CompletionsArgs),
}

/// The path of the configuration when none is given.
const DEFAULT_CONFIG: &str = "/etc/metrika-gate/gate.yaml";

/// Where the configuration is.
#[derive(Debug, Clone, Args)]
struct ConfigArgs {
    /// The configuration file
    #[arg(
        short,
        long,
        value_name = "FILE",
        env = "METRIKA_GATE_CONFIG",
        default_value = DEFAULT_CONFIG
    )]
    config: PathBuf,
}

#[derive(Debug, Clone, Args)]
struct RunArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// The number of worker threads [default: one per available CPU]
    #[arg(long, value_name = "N", env = "METRIKA_GATE_WORKERS", value_parser = clap::value_parser!(u16).range(1..=1024))]
    workers: Option<u16>,
    /// The log format; overrides log.format
    #[arg(long, value_name = "FORM", env = "METRIKA_GATE_LOG_FORMAT")]
    log_format: Option<LogFormat>,
    /// The log level, or directives as in `info,metrika_gate=debug`; overrides log.level
    #[arg(long, value_name = "LEVEL", env = "METRIKA_GATE_LOG_LEVEL", value_parser = crate::config::level)]
    log_level: Option<String>,
}

/// How results are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// For people
    Human,
    /// One JSON object
    Json,
}

/// Runs the program and returns its exit code.
#[must_use]
pub fn main() -> u8 {
    let (cli, names_config) = parsed(&std::env::args_os().collect::<Vec<_>>());
    let mut out = Out { stdout: std::io::stdout(), reader_gone: false };
    let ended = match cli.command.unwrap_or(Command::Run(cli.run)) {
        Command::Run(args) => run(args),
        Command::Check(args) => check::check(&args, &mut out),
        Command::Doctor(args) => doctor::doctor(&args, &mut out),
        Command::Explain(args) => explain::explain(&args, &mut out),
        Command::Suggest(args) => suggest::suggest(&args, &mut out),
        Command::Init(args) => init::init(&args, &mut out),
        Command::ClientEnv(args) => client_env::client_env(&args, &mut out),
        Command::Token(args) => token::token(&args, &mut out),
        Command::Key(args) => key::key(&args, &mut out),
        Command::Ca(args) => ca::run(&args, &mut out),
        Command::Demo(args) => demo::run(&args, &mut out),
        Command::Fake(args) => fake::run(&args, &mut out).map(|()| 0),
        Command::Schema => schema::schema(&mut out),
        Command::Man(args) => manual::man(&args, definition(), &mut out),
        Command::Completions(args) => manual::completions(&args, definition(), &mut out),
        // The exit code is the result, even if nobody reads the output.
        Command::Healthcheck(args) => healthcheck::healthcheck(&args, &mut std::io::stdout()),
    };
    match ended {
        Ok(code) => code,
        // The reader has closed the pipe on purpose, as in `explain … | head -1`.
        Err(_) if out.reader_gone => 0,
        Err(error) => {
            let hint = hint(&error, names_config);
            // An error is ignored: with stderr closed, it cannot be reported.
            let _ = writeln!(std::io::stderr(), "metrika-gate: {error:#}{hint}");
            exit_code(&error)
        }
    }
}

/// Returns the definition of the command line.
fn definition() -> clap::Command {
    // clap keeps references to such texts for the lifetime of the process.
    Cli::command().long_version(&*version().leak())
}

/// Returns the output of `--version`. The commit is a variable of the build, so that equal sources make equal programs, also
/// where git is absent.
fn version() -> String {
    let commit = option_env!("METRIKA_GATE_COMMIT").filter(|commit| !commit.is_empty());
    let commit = commit.map_or("unknown (built without METRIKA_GATE_COMMIT)", |commit| commit);
    format!("{}\ncommit    {commit}\nfeatures  {FEATURES}", env!("CARGO_PKG_VERSION"))
}

/// The optional abilities of this program. All are compiled in; the kernel, the service manager or the configuration enable
/// them.
const FEATURES: &str =
    "http2 tls landlock redis-store systemd-notify systemd-watchdog systemd-sockets systemd-descriptor-store";

/// Returns the parsed arguments, and whether an environment variable names the configuration.
fn parsed(arguments: &[OsString]) -> (Cli, bool) {
    let mut program = environment::counted(definition(), arguments);
    let read = program.try_get_matches_from_mut(arguments).and_then(|matches| {
        let cli = Cli::from_arg_matches(&matches).map_err(|error| error.format(&mut program))?;
        Ok((cli, environment::names_config(&matches)))
    });
    read.unwrap_or_else(|error| environment::explained(error, &program, arguments).exit())
}

/// Returns the number of CPUs available to the process, within its affinity and the quota of its container.
fn cpus() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// Returns the path of a configuration that is not read from stdin.
fn named(file: &Path) -> Option<&Path> {
    (file.as_os_str() != STDIN).then_some(file)
}

/// Reads a configuration once, from a file or from stdin (`-`). Returns its name for messages, and its content.
fn read_config(file: &Path) -> Result<(&Path, Vec<u8>), Error> {
    if let Some(file) = named(file) {
        return Ok((file, config::bytes(file)?));
    }
    let name = Path::new("<stdin>");
    let most = number::count(config::document::MAXIMUM_BYTES) + 1;
    let mut bytes = Vec::new();
    let read = std::io::stdin().take(most).read_to_end(&mut bytes);
    let unreadable =
        |error| Error::Unreadable { file: name.to_owned(), message: format!("cannot be read: {error}"), code: None };
    read.map(|_| (name, bytes)).map_err(unreadable)
}

/// Reads and parses a configuration, from a file or from stdin.
fn load_config(file: &Path) -> Result<Config, Error> {
    let (name, bytes) = read_config(file)?;
    Config::from_bytes(&bytes, name)
}

/// The error when both the log and the configuration are `-`.
const ONE_STDIN: &str = "stdin cannot be both the log and the configuration";

/// The name of stdin on the command line.
const STDIN: &str = "-";

/// Stdout, which records that its reader is gone: other pipes and connections can break as well.
struct Out {
    stdout: std::io::Stdout,
    reader_gone: bool,
}

impl Out {
    fn note<T>(&mut self, result: std::io::Result<T>) -> std::io::Result<T> {
        self.reader_gone |= result.as_ref().is_err_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe);
        result
    }
}

impl Write for Out {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let written = self.stdout.write(bytes);
        self.note(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        let flushed = self.stdout.flush();
        self.note(flushed)
    }
}

/// Returns a hint for an error that does not explain itself. `of_variable` is whether an environment variable named
/// the configuration.
fn hint(error: &anyhow::Error, of_variable: bool) -> &'static str {
    let of_config = error.chain().find_map(|cause| cause.downcast_ref::<Error>());
    let Some(Error::Unreadable { file, .. }) = of_config else { return "" };
    if file.as_os_str() == STDIN {
        return "; this command reads its configuration from a file, not from stdin";
    }
    if of_variable {
        return "; METRIKA_GATE_CONFIG sets this path";
    }
    if file.as_os_str() == DEFAULT_CONFIG {
        return "; use --config FILE for another file, or `metrika-gate init` to print a minimal one";
    }
    ""
}

fn run(args: RunArgs) -> anyhow::Result<u8> {
    let (source, config) = Source::load(args.config.config)?;
    let options = Options {
        source: Some(source),
        log_format: args.log_format,
        log_level: args.log_level,
        workers: args.workers.map(usize::from),
        demo: false,
        managed: true,
    };
    Ok(App::start(config, options)?.run())
}

/// Returns the exit code for an error (sysexits(3)).
fn exit_code(error: &anyhow::Error) -> u8 {
    let of_system = error.chain().filter_map(|cause| cause.downcast_ref::<std::io::Error>()).next();
    if of_system.and_then(std::io::Error::get_ref).is_some_and(|inner| inner.is::<MissingFolder>()) {
        return 78;
    }
    if error.chain().any(|cause| cause.is::<UnfitSocket>()) {
        return 78;
    }
    if let Some(ended) = error.downcast_ref::<token::Ended>() {
        return ended.code;
    }
    let is_usage = |cause: &(dyn std::error::Error + 'static)| {
        cause.is::<fake::BadTokenArgument>() || cause.is::<fake_metrica::BadKnob>()
    };
    if error.chain().any(is_usage) {
        return 2;
    }
    match of_system.map(std::io::Error::kind) {
        Some(
            std::io::ErrorKind::AddrInUse | std::io::ErrorKind::AddrNotAvailable | std::io::ErrorKind::AlreadyExists,
        ) => 69,
        Some(std::io::ErrorKind::PermissionDenied) => 77,
        Some(_) | None => crate::reload::exit_code(error),
    }
}

/// Reports an unknown caller.
fn no_such_caller(config: &Config, wanted: &str) -> anyhow::Result<u8> {
    let known: Vec<_> = config.callers.iter().map(|caller| caller.id.as_str()).collect();
    wrong_usage(&format!("unknown caller '{wanted}'; the configured callers are {}", known.join(", ")))
}

/// Reports a usage error with exit code 2, which differs from the code of a refusal.
fn wrong_usage(what: &str) -> anyhow::Result<u8> {
    writeln!(std::io::stderr(), "metrika-gate: {what}")?;
    Ok(2)
}

#[cfg(test)]
mod tests {
    use clap::Command;

    use super::{Cli, CommandFactory};

    #[test]
    fn every_flag_has_an_environment_variable() {
        let program = Cli::command();
        let mut flags = 0;
        let inner = program.get_subcommands().flat_map(Command::get_subcommands);
        for command in std::iter::once(&program).chain(program.get_subcommands()).chain(inner) {
            for flag in command.get_arguments().filter(|argument| argument.get_long().is_some()) {
                if !matches!(flag.get_id().as_str(), "help" | "version") {
                    flags += 1;
                    assert!(flag.get_env().is_some(), "{} --{}", command.get_name(), flag.get_id());
                }
            }
        }
        assert!(flags > 20, "only {flags} flags were looked at");
    }
}

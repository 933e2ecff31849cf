//! Environment variables, and usage errors.
//!
//! 1. An empty variable counts as unset. A variable for a flag without a value is on with 1, true, yes or on, off
//!    with 0, false, no or off, and invalid otherwise.
//! 2. A variable applies only to the command that it belongs to: an invalid one for `run` does not affect
//!    `healthcheck`.
//! 3. A message about an invalid variable names the variable.
//! 4. The proxy variables that other programs read have no effect; a set one is logged at the start, without its value, which
//!    can contain a password.
//! 5. A file given where none is expected gets a hint about how to name a configuration.

use std::ffi::{OsStr, OsString};

use clap::builder::{BoolishValueParser, Resettable};
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command, Error};

/// Returns `program` with the variables that apply (rules 1 and 2).
pub(super) fn counted(program: Command, arguments: &[OsString]) -> Command {
    let is_of_a_subcommand = subcommand(&program, arguments).is_some();
    let own = |arg: Arg| if is_of_a_subcommand { arg.env(Resettable::Reset) } else { counted_one(arg) };
    let inner = |command: Command| command.mut_args(counted_one);
    program.mut_args(own).mut_subcommands(|command| inner(command).mut_subcommands(inner))
}

fn counted_one(arg: Arg) -> Arg {
    let is_switch = matches!(arg.get_action(), ArgAction::SetTrue);
    let value = variable(&arg).map(|(_, value)| value);
    let is_off = |value: &OsStr| {
        let value = value.to_ascii_lowercase();
        is_switch && ["0", "n", "no", "f", "false", "off"].iter().any(|off| value == *off)
    };
    let is_none = value.is_some_and(|value| value.is_empty() || is_off(&value));
    let arg = if is_none { arg.env(Resettable::Reset) } else { arg };
    if is_switch { arg.value_parser(BoolishValueParser::new()) } else { arg }
}

/// Returns the name of a flag's variable, and its value.
#[expect(clippy::disallowed_methods, reason = "the variable of a flag, as clap reads it")]
fn variable(arg: &Arg) -> Option<(&str, OsString)> {
    let name = arg.get_env()?;
    Some((name.to_str()?, std::env::var_os(name)?))
}

/// Returns the subcommand, which is always the first argument, because top-level arguments exclude subcommands; or the
/// subcommand of that, which is always the second one.
fn subcommand<'a>(program: &'a Command, arguments: &[OsString]) -> Option<&'a Command> {
    let command = program.find_subcommand(arguments.get(1)?)?;
    let inner = arguments.get(2).and_then(|argument| command.find_subcommand(argument));
    Some(inner.unwrap_or(command))
}

/// Whether an environment variable names the configuration.
pub(super) fn names_config(matches: &ArgMatches) -> bool {
    let mut matches = matches;
    while let Some((_, of_subcommand)) = matches.subcommand() {
        matches = of_subcommand;
    }
    matches.try_contains_id("config").is_ok_and(|is_there| is_there)
        && matches.value_source("config") == Some(ValueSource::EnvVariable)
}

/// The variables that make other programs use a proxy for https.
const PROXY_VARIABLES: [&str; 4] = ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"];

/// Logs the proxy variables that are set (rule 4). `has_proxy` is whether the configuration has a proxy.
#[expect(clippy::disallowed_methods, reason = "a variable without effect, which the operator is told")]
pub(super) fn log_proxy_variables(has_proxy: bool) {
    let is_set = |variable: &str| std::env::var_os(variable).is_some_and(|value| !value.is_empty());
    for variable in PROXY_VARIABLES.into_iter().filter(|variable| is_set(variable)) {
        if has_proxy {
            tracing::info!(variable, "a proxy variable is set and has no effect; upstream.proxy is used");
        } else {
            tracing::warn!(variable, "a proxy variable is set and has no effect; set upstream.proxy to use a proxy");
        }
    }
}

/// Adds the hints of rules 3 and 5 to `error`.
pub(super) fn explained(mut error: Error, program: &Command, arguments: &[OsString]) -> Error {
    let command = subcommand(program, arguments).unwrap_or(program);
    for kind in [ContextKind::InvalidArg, ContextKind::PriorArg] {
        let renamed = match error.get(kind) {
            Some(ContextValue::String(shown)) => of_variable(command, arguments, shown).map(ContextValue::String),
            Some(ContextValue::Strings(all)) => {
                let named = |shown: &String| of_variable(command, arguments, shown).unwrap_or_else(|| shown.clone());
                Some(ContextValue::Strings(all.iter().map(named).collect()))
            }
            _ => None,
        };
        if let Some(renamed) = renamed {
            error.insert(kind, renamed);
        }
    }
    let is_command = error.kind() == ErrorKind::InvalidSubcommand;
    let given = error.get(if is_command { ContextKind::InvalidSubcommand } else { ContextKind::InvalidArg });
    if let Some(ContextValue::String(given)) = given
        && (is_command || error.kind() == ErrorKind::UnknownArgument)
        && is_file(given)
        && command.get_arguments().any(|arg| arg.get_id() == "config")
    {
        let tip = format!("to use a configuration, pass '--config {given}'");
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip.into()]));
    }
    error
}

/// Returns the variable that set `shown` (a flag as clap prints it), if no argument did.
fn of_variable(command: &Command, arguments: &[OsString], shown: &str) -> Option<String> {
    let flag = shown.split([' ', '=']).next()?;
    let arg = command.get_arguments().find(|arg| arg.get_long().is_some_and(|long| flag == format!("--{long}")))?;
    let short = arg.get_short().map(|short| format!("-{short}"));
    let is_given = |given: &OsString| {
        let given = given.to_string_lossy();
        given == flag
            || given.starts_with(&format!("{flag}="))
            || short.as_ref().is_some_and(|short| given.starts_with(short))
    };
    if arguments.iter().any(is_given) { None } else { variable(arg).map(|(name, _)| name.to_owned()) }
}

fn is_file(given: &str) -> bool {
    !given.starts_with('-') && (given.ends_with(".yaml") || given.ends_with(".yml") || given.contains('/'))
}

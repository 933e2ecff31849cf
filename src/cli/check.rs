//! `check`: validates a configuration and the files that it names.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use clap::Args;
use metrica::scope::ScopeSet;
use strict_http::number;

use super::files::{Files, files};
use super::oauth_keep::Keeper;
use super::{ConfigArgs, Format, accounts, doctor};
use crate::config::document::Step;
use crate::config::{self, Bind, Config, Error, Mistake, TokenSource, Upstream};
use crate::doctor::Wanted;
use crate::files::descriptors::{ConnectionFit, Descriptors};
use crate::files::{External, ExternalFile, Purpose};
use crate::policy::Policy;
use crate::policy::names::TokenAlias;
use crate::process::sandbox::Needs;

#[derive(Debug, Args)]
pub(super) struct CheckArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Skip the token files, for example on another machine
    #[arg(long, env = "METRIKA_GATE_CHECK_WITHOUT_TOKENS")]
    without_tokens: bool,
    /// Also check the tokens with Metrica, as `doctor` does
    #[arg(long, env = "METRIKA_GATE_CHECK_ONLINE", conflicts_with = "without_tokens")]
    online: bool,
    /// The output format
    #[arg(long, value_name = "FORM", env = "METRIKA_GATE_FORMAT", default_value = "human")]
    format: Format,
}

/// The result of the check.
struct Report {
    mistakes: Vec<Mistake>,
    warnings: Vec<Mistake>,
    /// Correct settings with an effect that is easy to overlook.
    notes: Vec<Mistake>,
    summary: String,
    code: u8,
}

/// A [`Report`] before the messages have positions.
struct Found {
    mistakes: Vec<Warning>,
    warnings: Vec<Warning>,
    notes: Vec<Warning>,
    summary: String,
    code: u8,
}

/// The path of a key in the configuration, and a message about it.
pub(super) type Warning = (Vec<Step>, String);

pub(super) fn key(name: &str) -> Step {
    Step::Key(name.to_owned(), 0)
}

pub(super) fn check(args: &CheckArgs, out: &mut dyn Write) -> anyhow::Result<u8> {
    let (file, bytes) = super::read_config(&args.config.config)?;
    let placed = |found| config::places(file, &bytes, found);
    let mut online = None;
    let report = match Config::from_bytes(&bytes, file) {
        Ok(config) => {
            let examined = args.online.then(|| doctor::examined(&config, &Wanted::default())).transpose()?;
            let Found { mistakes, warnings, notes, summary, code } =
                found(&config, super::named(&args.config.config), args.without_tokens);
            let (mistakes, warnings, notes) = (placed(mistakes), placed(warnings), placed(notes));
            online = examined.map(|report| (report, config));
            Report { mistakes, warnings, notes, summary, code }
        }
        Err(error @ (Error::Unreadable { .. } | Error::Permissions { .. })) => return Err(error.into()),
        Err(Error::Invalid(mistakes)) => {
            let named = if args.without_tokens { Vec::new() } else { config::tokens_beside_mistakes(&bytes) };
            let named: Vec<_> = named.iter().map(TokenSource::external).collect();
            let of_files = files(named.iter(), None).mistakes.into_iter().map(|(_, mistake)| mistake).collect();
            let mistakes: Vec<_> = mistakes.into_iter().chain(placed(of_files)).collect();
            let summary = format!("{} found", count(mistakes.len(), "mistake"));
            Report { mistakes, warnings: Vec::new(), notes: Vec::new(), summary, code: 78 }
        }
    };
    match args.format {
        Format::Human => {
            for line in &report.mistakes {
                writeln!(out, "error: {line}")?;
            }
            for line in &report.warnings {
                writeln!(out, "warning: {line}")?;
            }
            for line in &report.notes {
                writeln!(out, "note: {line}")?;
            }
            writeln!(out, "{}", report.summary)?;
            if let Some((online, config)) = &online {
                writeln!(out)?;
                doctor::human(out, online, config)?;
            }
        }
        Format::Json => {
            let value = serde_json::json!({
                "valid": report.code == 0,
                "mistakes": machine(&report.mistakes),
                "warnings": machine(&report.warnings),
                "notes": machine(&report.notes),
                "summary": report.summary,
                "online": online.as_ref().map(|(online, config)| doctor::machine(online, config)),
            });
            writeln!(out, "{value}")?;
        }
    }
    Ok(if report.code == 0 { online.map_or(0, |(online, _)| online.exit_code()) } else { report.code })
}

/// Returns the messages as JSON with separate fields for their position; unknown fields are null.
fn machine(found: &[Mistake]) -> Vec<serde_json::Value> {
    let one = |Mistake { file, position, key, message }: &Mistake| {
        let (file, key) = (file.to_string_lossy(), Some(key).filter(|key| !key.is_empty()));
        let (line, column) = (position.map(|position| position.line), position.map(|position| position.column));
        serde_json::json!({"file": file, "line": line, "column": column, "key": key, "message": message})
    };
    found.iter().map(one).collect()
}

/// Checks `config`, which was read from `file`; `None` for stdin.
fn found(config: &Config, file: Option<&Path>, without_tokens: bool) -> Found {
    let external = External::of(config, file);
    let is_here =
        |file: &&ExternalFile| !without_tokens || !matches!(file.purpose, Purpose::Token(_) | Purpose::Record(_));
    let Files { mistakes, warnings: short, code } = files(external.files.iter().filter(is_here), Some(config));
    let wrong: BTreeSet<_> = mistakes.iter().map(|(purpose, _)| *purpose).collect();
    let policy = crate::reload::policy(config);
    let summary = format!(
        "{}: {}, {}, {}, {}",
        match code {
            0 => "the configuration is valid",
            _ if wrong.iter().any(|purpose| matches!(purpose, Purpose::Token(_))) => {
                "the configuration is valid, but not its token files"
            }
            _ if wrong.iter().all(|purpose| matches!(purpose, Purpose::Listener(_))) => {
                "the configuration is valid, but not the folder of a socket"
            }
            _ => "the configuration is valid, but not its files",
        },
        count(config.listeners.len(), "listener"),
        count(config.callers.len(), "caller"),
        count(config.tokens.len(), "token"),
        count(config.catalogue.operations().len(), "operation"),
    );
    let descriptors = Descriptors::here(config.workers.unwrap_or_else(super::cpus));
    let short = short.into_iter().chain(config.lacks_descriptors(descriptors).map(|fit| shortage(descriptors, fit)));
    let tokens = warnings_of_tokens(config, &external, without_tokens, SystemTime::now());
    let (mut notes, of_logins) = absent_logins(config);
    for (position, caller) in config.callers.iter().enumerate() {
        let of_lists = accounts::note(config, caller);
        notes.extend(of_lists.map(|message| (vec![key("callers"), Step::Index(position)], message)));
    }
    let hosts = crate::files::reading::open(Path::new(HOSTS))
        .and_then(|(file, _)| crate::files::reading::read_from(file, HOSTS_BYTES));
    notes.extend(hosts.ok().and_then(|hosts| unused_host(config, &String::from_utf8_lossy(&hosts))));
    notes.extend(super::quota::shared_accounts(config));
    for source in config.tokens.iter().filter(|_| !without_tokens) {
        let place = || vec![key("tokens"), key(source.alias.as_str())];
        notes.extend(Keeper::of(source).unfinished().into_iter().map(|words| (place(), words)));
    }
    let mistakes = mistakes.into_iter().map(|(_, mistake)| mistake).collect();
    let warnings = warnings(config, &policy).into_iter().chain(of_logins).chain(tokens).chain(short).collect();
    Found { mistakes, warnings, notes, summary, code }
}

/// The hosts file, and the number of bytes that are read from it.
const HOSTS: &str = "/etc/hosts";
const HOSTS_BYTES: usize = 1024 * 1024;

/// Notes that the hosts file lists the name of the upstream, because the gate does not use that file for it.
fn unused_host(config: &Config, hosts: &str) -> Option<Warning> {
    let Upstream { host, connect_to: None, proxy: None, .. } = &config.upstream else { return None };
    let address_in = |line: &str| {
        let line = line.split_once('#').map_or(line, |(line, _)| line);
        let mut words = line.split_ascii_whitespace();
        let address = words.next()?.to_owned();
        words.any(|name| name.eq_ignore_ascii_case(host)).then_some(address)
    };
    let address = hosts.lines().find_map(address_in)?;
    let message = format!(
        "{HOSTS} has {address} for {host}; the gate ignores it, because that entry may lead callers to the gate itself; to connect elsewhere, set connect_to"
    );
    Some((vec![key("upstream")], message))
}

/// Warns that the limit of descriptors on this machine lowers the connection limits.
fn shortage(descriptors: Descriptors, ConnectionFit { callers, upstream }: ConnectionFit) -> Warning {
    let most = descriptors.most();
    let message = format!(
        "the hard limit of file descriptors is {most}, too low for limits.connections and upstream.connections; run would reduce them to {callers} and {upstream}"
    );
    (vec![key("limits"), key("connections")], message)
}

/// Describes the requests without `ulogin` of callers with `ulogin` and without `counters`. Returns notes for refused ones
/// and warnings for allowed ones.
fn absent_logins(config: &Config) -> (Vec<Warning>, Vec<Warning>) {
    let (mut refused, mut let_through) = (Vec::new(), Vec::new());
    for (position, caller) in config.callers.iter().enumerate() {
        let (rules, id) = (&caller.rules, caller.id);
        if rules.logins.is_none() || rules.counters.is_some() {
            continue;
        }
        let (to, said) = if rules.ulogin_absent {
            (&mut let_through, "without ulogin accesses the whole account of the token's owner (ulogin_absent: allow)")
        } else {
            (&mut refused, "without ulogin is refused (ulogin_absent: deny)")
        };
        to.push((vec![key("callers"), Step::Index(position)], format!("caller '{id}': a request {said}")));
    }
    (refused, let_through)
}

/// The number of callers that are checked for a shadow; each check compares a caller with every earlier one.
const SHADOWS_LOOKED_FOR: usize = 5000;

/// Returns warnings about valid settings that are probably unintended.
fn warnings(config: &Config, policy: &Policy) -> Vec<Warning> {
    let mut warnings = Vec::new();
    if config.state_dir.is_some() && config.quota.is_none() {
        let message = "state_dir has no effect without quota, whose counts are kept there".to_owned();
        warnings.push((vec![key("state_dir")], message));
    }
    if let Some(store) = config.store().filter(|store| store.is_open()) {
        let message = format!(
            "the connection to {} has no TLS: others on the way can change what gates tell each other; write rediss://",
            store.host
        );
        warnings.push((vec![key("quota"), key("store"), key("redis")], message));
    }
    let element = |list, index| vec![key(list), Step::Index(index)];
    for (position, caller) in config.callers.iter().enumerate() {
        let tokens = config.tokens.iter().filter(|source| caller.tokens.contains(&source.alias));
        let rights: ScopeSet = tokens.flat_map(|source| source.scopes.with_implied().iter()).collect();
        for scope in caller.scopes.iter() {
            if !rights.contains(scope) {
                let message = format!("caller '{}' has {}, but none of its tokens does", caller.id, scope.as_str());
                warnings.push((element("callers", position), message));
            }
        }
    }
    for (position, caller) in config.callers.iter().enumerate() {
        let of_accounts = accounts::warnings(config, caller).into_iter();
        warnings.extend(of_accounts.map(|message| (element("callers", position), message)));
    }
    warnings.extend(super::identity::warnings(config, SystemTime::now()));
    warnings.extend(super::certificates::warnings(config, SystemTime::now()));
    for (position, caller) in config.callers.iter().enumerate().filter(|(_, caller)| !caller.rules.enforce) {
        let message = format!(
            "caller '{}' has enforce: false: requests that its scopes or rules refuse are forwarded, logged and counted",
            caller.id
        );
        warnings.push((element("callers", position), message));
    }
    for (position, caller) in config.callers.iter().enumerate().take(SHADOWS_LOOKED_FOR) {
        if let Some(earlier) = policy.callers.shadow_of(position) {
            let message = format!(
                "caller '{}' is unreachable: '{}' precedes it and matches all its connections",
                caller.id, earlier.id
            );
            warnings.push((element("callers", position), message));
        }
    }
    for (position, listener) in config.listeners.iter().enumerate() {
        if let Bind::Unix { path, .. } = &listener.bind
            && let Some(folder) = path.parent().filter(|folder| !folder.is_dir())
        {
            let (name, folder) = (listener.name, folder.display());
            let message =
                format!("listener '{name}': the folder {folder} does not exist; without it, run exits with 78");
            warnings.push((element("listeners", position), message));
        }
        if matches!(listener.bind, Bind::Tcp(address) if address.ip().is_unspecified())
            && listener.admission.hosts.is_empty()
        {
            let message = format!(
                "listener '{}' has no hosts: callers on other machines are refused; list the host names that they use",
                listener.name
            );
            warnings.push((element("listeners", position), message));
        }
    }
    for (position, listener) in config.listeners.iter().enumerate() {
        if !config.callers.iter().any(|caller| listener.can_be_of(&caller.conditions)) {
            let message =
                format!("no caller can match on listener '{}': every request there is refused with 401", listener.name);
            warnings.push((element("listeners", position), message));
        }
    }
    warnings
}

/// Returns warnings about settings of tokens that are probably unintended.
fn warnings_of_tokens(config: &Config, external: &External, elsewhere: bool, now: SystemTime) -> Vec<Warning> {
    let mut warnings = Vec::new();
    let mut files: Vec<(PathBuf, TokenAlias)> = Vec::new();
    for source in &config.tokens {
        let alias = source.alias;
        let place = || vec![key("tokens"), key(alias.as_str())];
        let stands_by = config.tokens.iter().any(|other| other.origin.standby == Some(alias));
        if !stands_by && !config.callers.iter().any(|caller| caller.tokens.contains(&alias)) {
            warnings.push((place(), format!("no caller uses token '{alias}'")));
        }
        if let Some(said) = source.origin.expires.and_then(|end| expiry(end, now)) {
            warnings.push(([place(), vec![key("expires")]].concat(), format!("token '{alias}' {said}")));
        }
        // Missing files are compared by their configured paths.
        let found = if elsewhere { None } else { source.file.canonicalize().ok() };
        let file = found.unwrap_or_else(|| source.file.clone());
        match files.iter().find(|(known, _)| *known == file) {
            Some((_, first)) => {
                let message = format!("tokens '{first}' and '{alias}' have the same file, so they are the same token");
                warnings.push(([place(), vec![key("file")]].concat(), message));
            }
            None => files.push((file, alias)),
        }
        if config.sandbox && !elsewhere {
            warnings.extend(secrets_of_commands(external, source));
        }
    }
    warnings
}

/// Returns warnings about secrets that only commands need and that the running gate can read.
fn secrets_of_commands(external: &External, source: &TokenSource) -> Vec<Warning> {
    let needs = Needs::of(external);
    let origin = &source.origin;
    let stated = [("client_secret_file", &origin.client_secret_file), ("refresh_file", &origin.refresh_file)];
    let readable = |(name, path): (&str, &Option<PathBuf>)| {
        let path = path.as_deref().filter(|path| needs.can_read(path))?;
        let message = format!(
            "the running gate does not need {}, and its sandbox lets it read the folder; move the file to a folder of its own: not in /etc, and not in or below the folder of the configuration or of another file that it names",
            path.display()
        );
        Some((vec![key("tokens"), key(source.alias.as_str()), key(name)], message))
    };
    stated.into_iter().filter_map(readable).collect()
}

/// A token that expires within this number of days should be replaced; the same as in `doctor`.
const DUE: u64 = 30;
const DAY: u64 = 24 * 60 * 60;

/// Returns the warning for a token that expires at `end`.
fn expiry(end: SystemTime, now: SystemTime) -> Option<String> {
    let day = humantime::format_rfc3339_seconds(end);
    match end.duration_since(now) {
        Ok(left) if left >= Duration::from_secs(DUE * DAY) => None,
        Ok(left) => {
            let days = number::length(left.as_secs() / DAY);
            let left = if days == 0 { "less than a day".to_owned() } else { count(days, "day") };
            Some(format!("expires in {left}, at {day}: issue a new token before then"))
        }
        Err(_) => Some(format!("expired at {day}, according to 'expires'")),
    }
}

fn count(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hosts_file_that_is_not_used_is_noted() {
        let noted = |upstream: &str, hosts: &str| {
            let text = format!(
                "
listeners: [{{name: app, address: '127.0.0.1:0'}}]
upstream: {{{upstream}}}
tokens: {{t: {{file: /nowhere/t, scopes: [metrika:read]}}}}
callers: [{{id: c, match: {{listener: app}}, scopes: [metrika:read], tokens: [t]}}]
"
            );
            let config = Config::parse(&text, Path::new("gate.yaml")).unwrap();
            unused_host(&config, hosts).map(|(_, said)| said)
        };
        let hosts = "127.0.0.1 localhost\n10.0.0.7\tother Api-Metrika.Yandex.net # 10.0.0.9\n";
        let said = noted("", hosts).unwrap();
        assert!(said.starts_with("/etc/hosts has 10.0.0.7 for api-metrika.yandex.net") && said.contains("connect_to"));
        assert_eq!(noted("connect_to: 'metrica.test:443'", hosts), None);
        assert_eq!(noted("url: 'https://metrica.test'", hosts), None);
        assert_eq!(noted("", "127.0.0.1 localhost # api-metrika.yandex.net\n"), None);
        assert_eq!(noted("url: 'https://10.0.0.7'", hosts), None, "an address is no name of a line");
    }
}

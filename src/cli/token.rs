//! `token`: issues, shows, renews and ends the tokens of a configuration.
//!
//! 1. Secrets come from files or standard input ([`super::terminal`]).
//! 2. A token that is wrong or unproven does not replace the one in its place ([`super::token_proof`]).
//! 3. Core dumps are off while a command holds a secret.
//! 4. Ctrl-C ends a command with a message about what was changed.

use std::fmt;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use zeroize::Zeroizing;

use super::{ConfigArgs, token_import, token_login, token_refresh, token_revoke, token_status};
use crate::cli::oauth_device::Device;
use crate::cli::oauth_fault::Fault;
use crate::cli::oauth_keep::{Keeper, NotKept};
use crate::cli::oauth_secret::{BadSecret, ClientSecret};
use crate::cli::oauth_server::{Client, Server};
use crate::config::{Config, TokenSource};
use crate::files::guard::Refusal;
use crate::files::{ExternalFile, Purpose};
use crate::token::record::Record;

#[derive(Debug, Args)]
pub(super) struct TokenArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Get a token from Yandex and put it where the configuration expects it
    Login(token_login::LoginArgs),
    /// Show owner, application, rights, age, expiry and health of the tokens
    Status(token_status::StatusArgs),
    /// Renew tokens with their refresh tokens, for a timer
    Refresh(token_refresh::RefreshArgs),
    /// Revoke a token that `login` has issued
    Revoke(token_revoke::RevokeArgs),
    /// Take a token from standard input: the token, an address, or the JSON response of Yandex
    Import(token_import::ImportArgs),
}

pub(super) fn token(args: &TokenArgs, out: &mut dyn Write) -> anyhow::Result<u8> {
    super::harden::harden();
    match &args.action {
        Action::Login(args) => token_login::login(args, out),
        Action::Status(args) => token_status::status(args, out),
        Action::Refresh(args) => token_refresh::refresh(args, out),
        Action::Revoke(args) => token_revoke::revoke(args, out),
        Action::Import(args) => token_import::import(args, out),
    }
}

/// The end of a command with an exit code of its own.
#[derive(Debug)]
pub(super) struct Ended {
    pub code: u8,
    pub message: String,
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Ended {}

pub(super) fn ended(code: u8, message: impl fmt::Display) -> anyhow::Error {
    Ended { code, message: message.to_string() }.into()
}

impl From<NotKept> for Ended {
    fn from(error: NotKept) -> Self {
        let code = match &error {
            NotKept::Busy(_) | NotKept::Waiting { .. } => 75,
            NotKept::Pending(_) => 78,
            NotKept::Unwritable { .. } | NotKept::Place { .. } | NotKept::Link(_) => 77,
        };
        Self { code, message: error.to_string() }
    }
}

/// The alias and the configuration of a command.
#[derive(Debug, Args)]
pub(super) struct OneArgs {
    /// The token, as named under `tokens`
    #[arg(value_name = "ALIAS")]
    alias: String,
    #[command(flatten)]
    config: ConfigArgs,
    /// The application that issues the token, instead of `client_id` of the configuration
    #[arg(long, value_name = "ID", env = "METRIKA_GATE_TOKEN_CLIENT_ID")]
    client_id: Option<String>,
    /// The file with the secret of the application, instead of `client_secret_file`; - asks for it
    #[arg(long, value_name = "FILE", env = "METRIKA_GATE_TOKEN_CLIENT_SECRET_FILE")]
    client_secret_file: Option<PathBuf>,
}

/// A token, and everything that a command needs to change it.
pub(super) struct Subject {
    pub config: Config,
    pub source: TokenSource,
    pub keeper: Keeper,
}

impl OneArgs {
    /// Prints what to do after the token is in its place.
    pub(super) fn print_next(&self, out: &mut dyn Write) -> std::io::Result<()> {
        let file = self.config.config.display();
        writeln!(
            out,
            "\nnext, run: metrika-gate check --config {file}; a gate that runs with it uses the token within two seconds"
        )
    }

    pub(super) fn subject(&self) -> anyhow::Result<Subject> {
        let config = super::load_config(&self.config.config)?;
        let source = found(&config, &self.alias)?;
        Ok(Subject { keeper: Keeper::of(&source), source, config })
    }

    /// Returns the application of the command line.
    pub(super) fn client_id(&self) -> Option<&str> {
        self.client_id.as_deref()
    }

    /// Returns the application of a token, with its secret if it is known.
    pub(super) fn client(&self, subject: &Subject) -> anyhow::Result<Client> {
        let origin = &subject.source.origin;
        let Some(id) = self.client_id.as_deref().or(origin.client_id.as_deref()) else {
            let alias = &self.alias;
            return Err(ended(
                2,
                format_args!(
                    "token '{alias}' has no application; set tokens.{alias}.client_id, or use --client-id ID (docs/tokens.md explains how to register one)"
                ),
            ));
        };
        let is_id = (8..=64).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_alphanumeric());
        if !is_id {
            return Err(ended(2, "--client-id is not the id of an application: 32 letters and digits"));
        }
        let file = self.client_secret_file.as_deref().or(origin.client_secret_file.as_deref());
        let secret = file.map(|file| client_secret(&subject.source, file)).transpose()?;
        Ok(Client { id: id.to_owned(), secret })
    }
}

/// Returns the token with an alias.
pub(super) fn found(config: &Config, alias: &str) -> anyhow::Result<TokenSource> {
    let source = config.tokens.iter().find(|source| source.alias.as_str() == alias).cloned();
    source.ok_or_else(|| {
        let known: Vec<_> = config.tokens.iter().map(|source| source.alias.as_str()).collect();
        ended(2, format_args!("unknown token '{alias}'; the configured tokens are {}", known.join(", ")))
    })
}

impl Subject {
    /// Returns the device that the token is issued to.
    pub(super) fn device(&self, client: &Client) -> Device {
        let kept = Record::read(&self.source).and_then(|record| record.device_id);
        Device::of(self.source.alias, &client.id, kept)
    }

    pub(super) fn server(&self) -> anyhow::Result<Server> {
        Server::new(&self.config)
    }

    /// Returns the end of a command because of the OAuth server, with the name of the token in its remedy.
    pub(super) fn fault(&self, fault: &Fault) -> Ended {
        let message = self.on_site(&fault.to_string()).replace("ALIAS", self.source.alias.as_str());
        Ended { code: if fault.is_temporary() { 75 } else { 1 }, message }
    }

    /// Returns a text whose links lead to the site of the login: `.ru` and `.com` keep separate sessions.
    pub(super) fn on_site(&self, text: &str) -> String {
        text.replace("yandex.ru", &format!("yandex.{}", self.config.oauth_site()))
    }
}

/// Reads the secret of an application from its file, or from standard input.
pub(super) fn client_secret(source: &TokenSource, file: &Path) -> anyhow::Result<ClientSecret> {
    if file.as_os_str() == super::STDIN {
        let text = super::terminal::line("client secret")?;
        return ClientSecret::parse(text.as_bytes()).map_err(|bad| ended(78, format_args!("the client secret {bad}")));
    }
    let row = ExternalFile::new(Purpose::ClientSecret(source.alias), file);
    secret(&row, ClientSecret::parse)
}

/// Reads a secret from its file, if the guard of the file accepts it.
pub(super) fn secret<T>(row: &ExternalFile, parse: fn(&[u8]) -> Result<T, BadSecret>) -> anyhow::Result<T> {
    let (path, purpose) = (crate::files::reading::shown(&row.path), row.purpose);
    let opened = row.open().map_err(|refusal| {
        let code = if matches!(refusal, Refusal::Missing(_)) { 78 } else { 77 };
        let remedy = remedy(purpose, &refusal);
        ended(code, format_args!("{path}: the {purpose} cannot be read: {refusal}{remedy}"))
    })?;
    let mut content = Zeroizing::new(Vec::with_capacity(crate::cli::oauth_paste::MOST));
    let most = strict_http::number::count(crate::cli::oauth_paste::MOST);
    opened
        .take(most)
        .read_to_end(&mut content)
        .map_err(|error| ended(77, format_args!("{path}: the {purpose} cannot be read: {error}")))?;
    parse(&content).map_err(|bad| ended(78, format_args!("{path}: the {purpose} {bad}")))
}

/// Returns the remedy for a secret that cannot be read, if the refusal has none itself.
fn remedy(purpose: Purpose, refusal: &Refusal) -> String {
    match (refusal, purpose) {
        (Refusal::Permissions { .. } | Refusal::Writable(_), _) => String::new(),
        (Refusal::Missing(_), Purpose::RefreshToken(alias)) => {
            format!("; run `metrika-gate token login {alias}`, which writes it")
        }
        (Refusal::Missing(_), _) => {
            "; write the secret of the application to it (mode 0600), or use --client-secret-file -, which asks for it"
                .to_owned()
        }
        (Refusal::Unreadable(_), _) => "; run the command as the owner of the file".to_owned(),
    }
}

/// The end of a command that a person interrupted before anything was changed.
pub(super) const UNCHANGED: &str = "interrupted; nothing was changed";

/// Runs requests until they end or a person interrupts them (rule 4); `interrupted` is the message then.
pub(super) fn attend<T>(interrupted: &str, work: impl Future<Output = T>) -> anyhow::Result<T> {
    block_on(async {
        tokio::select! {
            done = work => Ok(done),
            signal = tokio::signal::ctrl_c() => {
                signal?;
                Err(ended(super::terminal::INTERRUPTED, interrupted))
            }
        }
    })?
}

/// Runs requests on a runtime of their own.
fn block_on<T>(work: impl Future<Output = T>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    Ok(tokio::task::LocalSet::new().block_on(&runtime, work))
}

//! Reload: a new configuration or new tokens take the place of the old ones, or nothing changes.
//!
//! 1. Token files are watched by their folders, so the `..data` swap of Kubernetes, an editor's rename and a rewrite are
//!    all seen; every ten seconds they are read in any case.
//! 2. A token that is wrong changes nothing, and is said and counted once. One that is gone for a second is gone.
//! 3. SIGHUP, or a change of its file, reloads the configuration together with the tokens. One that has a mistake
//!    changes nothing; all mistakes are said. Listeners, admin, workers and log need a restart.
//! 4. Requests under way go on with what they began with; no connection is closed.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use notify::event::{AccessKind, AccessMode};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::caller::Callers;
use crate::config::{Config, Error, TokenSource};
use crate::crew::Crew;
use crate::metrics::process::{Outcome, ProcessMeters};
use crate::policy::{Policy, TokenRights};
use crate::symbol::TokenAlias;
use crate::token::Token;
use crate::tokens::{self, TokenFileError};
use crate::upstream::Upstream;
use crate::worker::Generation;

/// How long a file may be gone before its token is: replacing a file can take two steps.
const GONE: Duration = Duration::from_secs(1);

/// How long a wrong file may be wrong before that is said: it may still be being written.
const WRONG: Duration = Duration::from_millis(300);

/// A file that gives no token, for now.
struct Trouble {
    since: Instant,
    said: Option<String>,
}

/// What is in use, and where it came from.
pub struct Reloader {
    file: Option<PathBuf>,
    text: Vec<u8>,
    config: Config,
    tokens: Vec<Option<Token>>,
    generation: Arc<Generation>,
    troubles: BTreeMap<TokenAlias, Trouble>,
    meters: Arc<ProcessMeters>,
    demo: bool,
}

impl Reloader {
    /// Reads the tokens of `config` and makes the first generation.
    ///
    /// # Errors
    /// When a token is there and wrong, or the upstream cannot be prepared.
    pub fn new(file: Option<PathBuf>, config: Config, meters: Arc<ProcessMeters>, demo: bool) -> anyhow::Result<Self> {
        let tokens = read_all(&config.tokens, demo)?;
        let upstream = Arc::new(Upstream::new(config.upstream.clone())?);
        let generation = Arc::new(generation(&config, &tokens, upstream));
        let text = file.as_deref().and_then(|file| std::fs::read(file).ok()).unwrap_or_default();
        let reloader = Self { file, text, config, tokens, generation, troubles: BTreeMap::new(), meters, demo };
        reloader.meters.config_reloaded(Outcome::Success);
        let all: Vec<_> = reloader.config.tokens.iter().map(|source| source.alias).collect();
        reloader.tell_meters(&all);
        for (source, token) in reloader.config.tokens.iter().zip(&reloader.tokens) {
            if token.as_ref().is_some_and(Token::is_short) {
                tracing::warn!(token = source.alias.as_str(), file = %source.file.display(), "the token is shorter than any that Yandex is known to have issued; is the file whole?");
            }
            if token.is_none() {
                tracing::error!(token = source.alias.as_str(), file = %source.file.display(), "the token's file is missing; requests that need it are refused until it is there");
            }
        }
        Ok(reloader)
    }

    /// What is in use.
    #[must_use]
    pub const fn generation(&self) -> &Arc<Generation> {
        &self.generation
    }

    /// Every folder that has to be watched.
    #[must_use]
    pub fn folders(&self) -> BTreeSet<PathBuf> {
        let files = self.config.tokens.iter().map(|source| source.file.as_path()).chain(self.file.as_deref());
        files
            .filter_map(Path::parent)
            .map(|folder| if folder.as_os_str().is_empty() { ".".into() } else { folder.into() })
            .collect()
    }

    /// Looks at every file; what changed is in use when this returns. When to look again, if that should be soon.
    pub async fn look(&mut self, crew: &Crew) -> Option<Duration> {
        let config_changed =
            self.file.as_ref().and_then(|file| std::fs::read(file).ok()).filter(|text| *text != self.text);
        if let Some(text) = config_changed {
            self.text = text;
            self.reload(crew).await;
        }
        self.look_at_tokens(crew).await
    }

    async fn look_at_tokens(&mut self, crew: &Crew) -> Option<Duration> {
        let mut changed = Vec::new();
        let mut again = None;
        for (source, token) in self.config.tokens.iter().zip(&mut self.tokens) {
            match tokens::read(source, self.demo) {
                Ok(new) => {
                    self.troubles.remove(&source.alias);
                    if token.as_ref() != Some(&new) {
                        *token = Some(new);
                        changed.push(source.alias);
                    }
                }
                Err(error) => {
                    let trouble = self.troubles.entry(source.alias);
                    let trouble = trouble.or_insert_with(|| Trouble { since: Instant::now(), said: None });
                    let missing = matches!(error, TokenFileError::Missing { .. });
                    let patience = if missing { GONE } else { WRONG };
                    if trouble.since.elapsed() < patience {
                        again = Some(again.map_or(patience, |soonest: Duration| soonest.min(patience)));
                    } else if missing && token.take().is_some() {
                        tracing::error!(token = source.alias.as_str(), %error, "the token is gone; requests that need it are refused");
                        trouble.said = Some(error.to_string());
                        changed.push(source.alias);
                    } else if !missing && trouble.said.as_deref() != Some(&error.to_string()) {
                        tracing::error!(token = source.alias.as_str(), %error, "the token was not reloaded; the old one stays in use");
                        trouble.said = Some(error.to_string());
                        self.meters.tokens_reloaded(Outcome::Failure);
                    }
                }
            }
        }
        if !changed.is_empty() {
            self.use_tokens(&changed, crew).await;
        }
        again
    }

    async fn use_tokens(&mut self, changed: &[TokenAlias], crew: &Crew) {
        self.generation = Arc::new(Generation {
            policy: self.generation.policy.clone(),
            tokens: self.tokens.clone(),
            upstream: self.generation.upstream.clone(),
            timeouts: self.generation.timeouts,
            limits: self.generation.limits,
            access_log: self.generation.access_log,
        });
        crew.install(&self.generation).await;
        self.tell_meters(changed);
        for alias in changed {
            let usable = self.is_usable(*alias);
            self.meters.tokens_reloaded(if usable { Outcome::Success } else { Outcome::Failure });
            tracing::info!(token = alias.as_str(), usable, "the token was reloaded");
        }
    }

    fn is_usable(&self, alias: TokenAlias) -> bool {
        self.config.tokens.iter().zip(&self.tokens).any(|(source, token)| source.alias == alias && token.is_some())
    }

    fn tell_meters(&self, changed: &[TokenAlias]) {
        let usable = self.config.tokens.iter().zip(&self.tokens).map(|(source, token)| (source.alias, token.is_some()));
        let loaded: Vec<_> = changed.iter().copied().filter(|alias| self.is_usable(*alias)).collect();
        self.meters.tokens_now(&usable.collect::<Vec<_>>(), &loaded);
    }

    /// Reloads the configuration and the tokens (rule 3).
    pub async fn reload(&mut self, crew: &Crew) {
        let Some(file) = self.file.clone() else { return };
        match self.try_reload(&file) {
            Ok(()) => {
                crew.install(&self.generation).await;
                let all: Vec<_> = self.config.tokens.iter().map(|source| source.alias).collect();
                self.tell_meters(&all);
                self.meters.config_reloaded(Outcome::Success);
                tracing::info!(file = %file.display(), callers = self.config.callers.len(), "the configuration was reloaded");
            }
            Err(error) => {
                self.meters.config_reloaded(Outcome::Failure);
                for line in format!("{error:#}").lines() {
                    tracing::error!(file = %file.display(), mistake = line, "the configuration was not reloaded; the old one stays in use");
                }
            }
        }
    }

    fn try_reload(&mut self, file: &Path) -> anyhow::Result<()> {
        let mut config = Config::load(file)?;
        let fixed = [
            ("listeners", config.listeners != self.config.listeners),
            ("admin", config.admin != self.config.admin),
            ("workers", config.workers != self.config.workers),
        ];
        if let Some((key, _)) = fixed.iter().find(|(_, changed)| *changed) {
            anyhow::bail!("{}: {key} changed, which needs a restart", file.display());
        }
        // The access log follows; the form and the level were given to the log at the start.
        config.log = crate::config::Log { access: config.log.access, ..self.config.log.clone() };
        let tokens = read_all(&config.tokens, self.demo)?;
        let upstream = if config.upstream == self.config.upstream {
            self.generation.upstream.clone()
        } else {
            Arc::new(Upstream::new(config.upstream.clone())?)
        };
        self.generation = Arc::new(generation(&config, &tokens, upstream));
        self.text = std::fs::read(file).unwrap_or_default();
        self.troubles.clear();
        self.config = config;
        self.tokens = tokens;
        Ok(())
    }
}

/// Reads all tokens; one that is missing is `None`.
fn read_all(sources: &[TokenSource], demo: bool) -> Result<Vec<Option<Token>>, TokenErrors> {
    let mut tokens = Vec::new();
    let mut errors = Vec::new();
    for source in sources {
        match tokens::read(source, demo) {
            Ok(token) => tokens.push(Some(token)),
            Err(TokenFileError::Missing { .. }) => tokens.push(None),
            Err(error) => errors.push(error),
        }
    }
    if errors.is_empty() { Ok(tokens) } else { Err(TokenErrors(errors)) }
}

/// Token files that are there and wrong, all of them.
#[derive(Debug)]
pub struct TokenErrors(pub Vec<TokenFileError>);

impl std::fmt::Display for TokenErrors {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (position, error) in self.0.iter().enumerate() {
            let separator = if position > 0 { "\n" } else { "" };
            write!(f, "{separator}{error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for TokenErrors {}

impl TokenErrors {
    /// Whether one of them is about permissions.
    #[must_use]
    pub fn is_of_permissions(&self) -> bool {
        self.0
            .iter()
            .any(|error| matches!(error, TokenFileError::Permissions { .. } | TokenFileError::Unreadable { .. }))
    }
}

fn generation(config: &Config, tokens: &[Option<Token>], upstream: Arc<Upstream>) -> Generation {
    Generation {
        policy: Arc::new(policy(config)),
        tokens: tokens.to_vec(),
        upstream,
        timeouts: config.timeouts,
        limits: config.limits,
        access_log: config.log.access,
    }
}

/// The policy that `config` states.
#[must_use]
pub fn policy(config: &Config) -> Policy {
    let listeners: Vec<_> = config.listeners.iter().map(|listener| listener.name).collect();
    let rights = config.tokens.iter().map(|source| TokenRights { alias: source.alias, scopes: source.scopes });
    Policy::new(Callers::new(config.callers.clone(), &listeners), config.catalogue.clone(), rights.collect())
}

/// Sees changes in folders.
pub struct Folders {
    watcher: Option<RecommendedWatcher>,
    watched: BTreeSet<PathBuf>,
    changes: mpsc::UnboundedReceiver<()>,
}

/// Files are read so often in any case.
pub const LOOK: Duration = Duration::from_secs(10);

/// A change is often several; they are taken together.
const TOGETHER: Duration = Duration::from_millis(50);

impl Folders {
    /// Watches nothing yet.
    #[must_use]
    pub fn new() -> Self {
        let (sender, changes) = mpsc::unbounded_channel();
        let watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
            // Reading a file is an event too, and would be one for ever.
            let of_reading = |event: &Event| matches!(event.kind, EventKind::Access(kind) if kind != AccessKind::Close(AccessMode::Write));
            if !event.as_ref().is_ok_and(of_reading) {
                let _ = sender.send(());
            }
        });
        let watcher = watcher
            .inspect_err(|error| tracing::warn!(%error, "folders cannot be watched; files are read every {LOOK:?}"));
        Self { watcher: watcher.ok(), watched: BTreeSet::new(), changes }
    }

    /// Watches `folders` and no others. One that does not exist is tried again at the next call.
    pub fn watch(&mut self, folders: BTreeSet<PathBuf>) {
        let Some(watcher) = &mut self.watcher else { return };
        for folder in self.watched.difference(&folders) {
            // It may be gone.
            let _ = watcher.unwatch(folder);
        }
        let watching = |folder: &PathBuf| {
            self.watched.contains(folder) || watcher.watch(folder, RecursiveMode::NonRecursive).is_ok()
        };
        self.watched = folders.into_iter().filter(watching).collect();
    }

    /// Waits until something changed, and what belongs to it.
    pub async fn changed(&mut self) {
        if self.changes.recv().await.is_none() {
            std::future::pending::<()>().await;
        }
        tokio::time::sleep(TOGETHER).await;
        while self.changes.try_recv().is_ok() {}
    }
}

impl Default for Folders {
    fn default() -> Self {
        Self::new()
    }
}

/// The exit code of a start that failed for `error` (sysexits(3)).
#[must_use]
pub fn exit_code(error: &anyhow::Error) -> u8 {
    if let Some(error) = error.downcast_ref::<Error>() {
        return match error {
            Error::Unreadable { .. } => 66,
            Error::Invalid(_) => 78,
        };
    }
    match error.downcast_ref::<TokenErrors>() {
        Some(errors) if errors.is_of_permissions() => 77,
        Some(_) => 78,
        None => 1,
    }
}

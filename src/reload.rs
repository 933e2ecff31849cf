//! Reload: replaces the configuration or the tokens as a whole, or changes nothing.
//!
//! 1. The folders of token files are watched, so the `..data` swap of Kubernetes, the rename of an editor and a rewrite in
//!    place are all noticed. The files are also read every ten seconds.
//! 2. A new token is used after its file has been unchanged for 300 ms. An invalid file changes nothing; it is logged and
//!    counted once. A token is dropped when its file has been missing for a second (`reload/tokens.rs`).
//! 3. SIGHUP reloads the configuration together with the tokens. A settled change of the configuration file, or of a file
//!    that is read with it, does the same (`reload/source.rs`). An invalid configuration changes nothing: all mistakes are
//!    logged, and it is tried again until it is accepted or changes. Changes of listeners (except `hosts` and
//!    `require_header`), admin, workers and sandbox need a restart and are refused, and so are paths and ports outside of
//!    the [`crate::process::sandbox`]. `log.format` and `log.level` keep their values until a restart.
//! 4. Requests in progress continue with the state that they started with. No connection is closed.
//! 5. The reason why a file is not in use is visible at any time: in the log when it changes, in the gauge of the last
//!    reload, and in `/readyz?verbose`, which names every unusable file.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::config::certificates::{Handshakes, OwnListeners};
use crate::config::{Config, Error, Shutdown, TokenSource};
use crate::files::External;
use crate::files::descriptors::Descriptors;
use crate::metrics::process::{Confinement, Outcome, ProcessMeters, TokenNow};
use crate::policy::names::TokenAlias;
use crate::process::sandbox::Sandbox;
use crate::process::workers::Workers;
use crate::token::Token;
use crate::token::record::Record;
use crate::token::store::TokenErrors;
use crate::upstream::Upstream;
use crate::worker::{Generation, Slot};

mod candidates;
mod configuration;
mod folders;
mod generation;
mod key_set;
mod renewal;
mod served;
mod source;
mod tokens;

pub use folders::Folders;
pub use generation::{Concern, Concerns, policy};
use generation::{changed, generation, handshakes, slots, sockets};
use key_set::PublishedSet;
use renewal::Renewals;
use served::served;
use source::Change;
pub use source::Source;
use tokens::TokenFiles;

/// The interval at which all files are read, even without a notification.
pub const LOOK: Duration = Duration::from_secs(10);

/// The interval while a folder cannot be watched, for example because it does not exist.
pub const LOOK_AT_UNWATCHED: Duration = Duration::from_secs(1);

/// The time that a file may be missing before its token is dropped: replacing a file can take two steps.
const GONE: Duration = Duration::from_secs(1);

/// The configuration and the tokens in use, and their sources.
pub struct Reloader {
    source: Option<Source>,
    config: Config,
    tokens: Vec<Option<Token>>,
    generation: Arc<Generation>,
    files: TokenFiles,
    meters: Arc<ProcessMeters>,
    sandbox: Sandbox,
    descriptors: Option<Descriptors>,
    demo: bool,
    concerns: Concerns,
    /// The last logged reason why the configuration file is not in use.
    refusal: Option<String>,
    renewals: Renewals,
    own: Arc<OwnListeners>,
    published: PublishedSet,
    /// The files that were logged as replaced behind a mount.
    replaced: BTreeSet<PathBuf>,
}

impl Reloader {
    /// Reads the tokens of `config`, which was read from `source`, and creates the first generation.
    ///
    /// # Errors
    /// When a token file exists and is invalid, or TLS to the upstream cannot be set up.
    pub fn new(source: Option<Source>, config: Config, meters: Arc<ProcessMeters>, demo: bool) -> anyhow::Result<Self> {
        let tokens = crate::token::store::read_all(&config.tokens, demo)?;
        let own = Arc::<OwnListeners>::default();
        let upstream = Arc::new(Upstream::beside(config.upstream.clone(), own.clone())?);
        let handshakes = handshakes(&config, None)?;
        own.serve(&handshakes);
        let published = PublishedSet::default();
        let parts = (upstream, handshakes, published.check(config.service_accounts.as_ref(), None));
        let generation = Arc::new(generation(&config, &tokens, parts, None, &Concerns::new()));
        let sandbox = Sandbox::none(Confinement::None);
        let reloader = Self {
            source,
            config,
            tokens,
            generation,
            files: TokenFiles::default(),
            meters,
            sandbox,
            descriptors: None,
            demo,
            concerns: Concerns::new(),
            refusal: None,
            renewals: Renewals::default(),
            own,
            published,
            replaced: BTreeSet::new(),
        };
        reloader.meters.config_reloaded(Outcome::Success);
        reloader.log_key_set();
        reloader.meters.config_in_use(reloader.config.hash);
        let all: Vec<_> = reloader.config.tokens.iter().map(|source| source.alias).collect();
        reloader.update_meters(&all);
        reloader.log_address_only_callers();
        for source in &reloader.config.tokens {
            reloader.log_state(source.alias);
        }
        Ok(reloader)
    }

    /// Sets the sandbox that later configurations have to fit into.
    pub fn keep_to(&mut self, sandbox: Sandbox) {
        self.sandbox = sandbox;
    }

    /// Sets the descriptors to which the connection limits of later configurations are lowered.
    pub const fn fit_to(&mut self, descriptors: Descriptors) {
        self.descriptors = Some(descriptors);
    }

    /// Returns the listeners of this process, whose addresses are set once they are bound.
    #[must_use]
    pub fn own_listeners(&self) -> &OwnListeners {
        &self.own
    }

    /// Returns the generation in use.
    #[must_use]
    pub const fn generation(&self) -> &Arc<Generation> {
        &self.generation
    }

    /// Returns the shutdown settings in use.
    #[must_use]
    pub const fn shutdown(&self) -> Shutdown {
        self.config.shutdown
    }

    fn external(&self) -> External {
        External::of(&self.config, self.source.as_ref().map(Source::file))
    }

    /// Returns every folder to watch.
    #[must_use]
    pub fn folders(&self) -> BTreeSet<PathBuf> {
        self.external().watched()
    }

    /// Checks every file and installs settled changes before it returns. Returns the time until the next check, if it
    /// should be earlier than the regular one.
    pub async fn look(&mut self, workers: &Workers) -> Option<Duration> {
        self.log_mounts();
        self.look_at_certificates(workers).await;
        let now = Instant::now();
        let again = match self.source.as_mut().map_or(Change::None, |source| source.look(now)) {
            Change::None => None,
            Change::Wait(left) => Some(left),
            Change::Take(config) => self.take(*config, now, workers).await,
            Change::TakeOthers(config) => match *config {
                Ok(config) => self.take_others(config, now, workers).await,
                refused @ Err(_) => self.take(refused, now, workers).await,
            },
            Change::Away(error) => {
                let hint = self.sandbox.hint(source::is_denied(&error));
                self.refuse(vec![hint.map_or_else(|| error.to_string(), |hint| format!("{error}; {hint}"))]);
                None
            }
            Change::Back => {
                self.is_right();
                None
            }
        };
        let of_tokens = self.look_at_tokens(workers).await;
        self.log_files();
        again.into_iter().chain(of_tokens).min()
    }

    async fn use_tokens(&mut self, changed: &[TokenAlias], workers: &Workers) {
        self.renew_slots();
        self.update_meters(changed);
        workers.install(&self.generation).await;
        for alias in changed {
            let usable = self.is_usable(*alias);
            if usable {
                self.log_state(*alias);
            }
            self.meters.tokens_reloaded(if usable { Outcome::Success } else { Outcome::Failure });
            if usable {
                tracing::info!(token = alias.as_str(), usable, "token reloaded");
            }
        }
    }

    /// Replaces the generation by one with the current tokens.
    fn renew_slots(&mut self) {
        self.renew_generation(self.generation.handshakes.clone());
    }

    /// Replaces the generation by one with the current tokens and these handshakes.
    fn renew_generation(&mut self, handshakes: Handshakes) {
        let old = &self.generation;
        self.generation = Arc::new(Generation {
            policy: old.policy.clone(),
            admissions: old.admissions.clone(),
            tokens: slots(&self.config, &self.tokens, Some(old), &self.concerns),
            upstream: old.upstream.clone(),
            handshakes,
            service_accounts: old.service_accounts.clone(),
            timeouts: old.timeouts,
            limits: old.limits,
            access_log: old.access_log,
            groups: old.groups.clone(),
            turns: old.turns.clone(),
            quota: old.quota.clone(),
        });
    }

    /// Replaces the set of suspect and suspended tokens. Workers are informed only if a suspension begins, ends or changes.
    pub async fn apply_concerns(&mut self, concerns: Concerns, workers: &Workers) {
        if concerns == self.concerns {
            return;
        }
        let refused = |concerns: &Concerns| {
            let refused = concerns.iter().filter(|(_, concern)| concern.standing.is_refused());
            refused.map(|(alias, concern)| (*alias, *concern)).collect::<Vec<_>>()
        };
        let is_for_workers = refused(&concerns) != refused(&self.concerns);
        self.concerns = concerns;
        self.renew_slots();
        self.update_meters(&[]);
        if is_for_workers {
            workers.install(&self.generation).await;
        }
    }

    /// Returns and clears the tokens whose files were rewritten with the same content.
    pub fn take_rewritten(&mut self) -> BTreeSet<TokenAlias> {
        self.files.take_rewritten()
    }

    /// Returns the configuration in use.
    #[must_use]
    pub const fn config(&self) -> &Config {
        &self.config
    }

    fn is_usable(&self, alias: TokenAlias) -> bool {
        self.config.tokens.iter().zip(&self.tokens).any(|(source, token)| source.alias == alias && token.is_some())
    }

    /// Logs a missing or suspiciously short token after its file was checked.
    fn log_state(&self, alias: TokenAlias) {
        for (source, token) in self.config.tokens.iter().zip(&self.tokens).filter(|(source, _)| source.alias == alias) {
            let file = crate::files::reading::shown(&source.file);
            match token {
                None => {
                    tracing::error!(token = alias.as_str(), %file, "the token file is missing; requests that need the token are refused until it exists");
                }
                Some(token) if token.is_short() => {
                    tracing::warn!(token = alias.as_str(), %file, "the token is shorter than any known token of Yandex; check that the file is complete");
                }
                Some(_) => {}
            }
        }
    }

    fn update_meters(&self, changed: &[TokenAlias]) {
        let now = |((source, slot), token): ((&TokenSource, &Slot), &Option<Token>)| {
            let record = token.as_ref().and_then(|token| Record::of(source, token));
            TokenNow {
                alias: source.alias,
                loaded: slot.token.is_some(),
                standing: slot.standing,
                expires: record.as_ref().and_then(Record::expires).or(source.origin.expires),
                issued: record.map(|record| record.issued),
                allow_mode: source.allow_mode.is_some(),
                standby_in_use: self.standby_in_use(slot),
            }
        };
        let tokens = self.config.tokens.iter().zip(&self.generation.tokens).zip(&self.tokens);
        let tokens: Vec<_> = tokens.map(now).collect();
        let loaded: Vec<_> = changed.iter().copied().filter(|alias| self.is_usable(*alias)).collect();
        self.meters.tokens_now(&tokens, &loaded);
        self.meters.served_now(served(&self.config, &self.generation.tokens));
    }

    /// Whether the standby of a token is sent in its place; `None` if it has no standby.
    fn standby_in_use(&self, slot: &Slot) -> Option<bool> {
        let standby = self.generation.tokens.get(slot.standby?)?;
        Some(slot.can_be_sent().is_err() && standby.can_be_sent().is_ok())
    }

    fn log_address_only_callers(&self) {
        let callers = self.config.address_only_callers();
        self.meters.address_only_callers_now(callers.len());
        if let Some(first) = callers.first() {
            let caller = first.as_str();
            tracing::warn!(
                callers = callers.len(),
                caller,
                "callers are identified only by a network address, which is weak evidence"
            );
        }
    }
}

/// Returns the exit code for a start that failed with `error` (sysexits(3)).
#[must_use]
pub fn exit_code(error: &anyhow::Error) -> u8 {
    if let Some(error) = error.downcast_ref::<Error>() {
        return match error {
            Error::Unreadable { .. } => 66,
            Error::Permissions { .. } => 77,
            Error::Invalid(_) => 78,
        };
    }
    match error.downcast_ref::<TokenErrors>() {
        Some(errors) if errors.is_of_permissions() => 77,
        Some(_) => 78,
        None => 1,
    }
}

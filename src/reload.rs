//! Reload: a new configuration or new tokens take the place of the old ones, or nothing changes.
//!
//! 1. Token files are watched by their folders, so the `..data` swap of Kubernetes, an editor's rename and a rewrite are
//!    all seen; every ten seconds they are read in any case.
//! 2. A token is used when it stayed the same for a moment. One that is wrong changes nothing, and is said and counted
//!    once. One that is gone for a second is gone (`reload/tokens.rs`).
//! 3. SIGHUP, or a change of its file, or of one that is read with it, that stayed the same for a moment
//!    (`reload/source.rs`), reloads the configuration together with the tokens. One that has a mistake changes nothing; all
//!    mistakes are said, and it is tried again until it can be taken, or says something else. Listeners (but for their
//!    `hosts` and `require_header`), admin, workers, sandbox and log need a restart, and so does what the
//!    [`crate::sandbox`] of the start does not reach.
//! 4. Requests under way go on with what they began with; no connection is closed.
//! 5. What is in use, and why it is not what the files say, is told at every moment: by the log when it changes, by the gauge
//!    of the last reload, by `/readyz?verbose`, which names each file that cannot be used.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::config::{Config, Error, Shutdown, TokenSource};
use crate::crew::Crew;
use crate::descriptors::Descriptors;
use crate::external::External;
use crate::metrics::process::{Confinement, Outcome, ProcessMeters, TokenNow};
use crate::sandbox::Sandbox;
use crate::symbol::TokenAlias;
use crate::token::Token;
use crate::tokens::TokenErrors;
use crate::upstream::Upstream;
use crate::worker::{Generation, Slot};

mod candidates;
mod configuration;
mod folders;
mod generation;
mod served;
mod source;
mod tokens;

pub use folders::Folders;
pub use generation::{Concern, Concerns, policy};
use generation::{changed, generation, slots, sockets};
use served::served;
use source::Change;
pub use source::Source;
use tokens::TokenFiles;

/// Files are read so often in any case.
pub const LOOK: Duration = Duration::from_secs(10);

/// Files in folders that cannot be watched, as they do not exist, are looked for so often.
pub const LOOK_AT_UNWATCHED: Duration = Duration::from_secs(1);

/// How long a file may be gone before its token is: replacing a file can take two steps.
const GONE: Duration = Duration::from_secs(1);

/// What is in use, and where it came from.
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
    /// Why the configuration's file is not in use, as it was said last.
    refusal: Option<String>,
    /// Files that were said to be replaced behind a mount.
    replaced: BTreeSet<PathBuf>,
}

impl Reloader {
    /// Reads the tokens of `config`, which `source` said, and makes the first generation.
    ///
    /// # Errors
    /// When a token is there and wrong, or the upstream cannot be prepared.
    pub fn new(source: Option<Source>, config: Config, meters: Arc<ProcessMeters>, demo: bool) -> anyhow::Result<Self> {
        let tokens = crate::tokens::read_all(&config.tokens, demo)?;
        let upstream = Arc::new(Upstream::new(config.upstream.clone())?);
        let generation = Arc::new(generation(&config, &tokens, upstream, None, &Concerns::new()));
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
            replaced: BTreeSet::new(),
        };
        reloader.meters.config_reloaded(Outcome::Success);
        let all: Vec<_> = reloader.config.tokens.iter().map(|source| source.alias).collect();
        reloader.tell_meters(&all);
        reloader.tell_of_address_only_callers();
        for source in &reloader.config.tokens {
            reloader.say_state(source.alias);
        }
        Ok(reloader)
    }

    /// From now on the process can do no more than this.
    pub fn keep_to(&mut self, sandbox: Sandbox) {
        self.sandbox = sandbox;
    }

    /// From now on no configuration asks for more of these than there are.
    pub const fn fit_to(&mut self, descriptors: Descriptors) {
        self.descriptors = Some(descriptors);
    }

    /// What is in use.
    #[must_use]
    pub const fn generation(&self) -> &Arc<Generation> {
        &self.generation
    }

    /// How the process ends, as the configuration in use says.
    #[must_use]
    pub const fn shutdown(&self) -> Shutdown {
        self.config.shutdown
    }

    fn external(&self) -> External {
        External::of(&self.config, self.source.as_ref().map(Source::file))
    }

    /// Every folder that has to be watched.
    #[must_use]
    pub fn folders(&self) -> BTreeSet<PathBuf> {
        self.external().watched()
    }

    /// Looks at every file; what changed is in use when this returns. When to look again, if that should be soon.
    pub async fn look(&mut self, crew: &Crew) -> Option<Duration> {
        self.tell_of_mounts();
        let now = Instant::now();
        let again = match self.source.as_mut().map_or(Change::None, |source| source.look(now)) {
            Change::None => None,
            Change::Wait(left) => Some(left),
            Change::Take(config) => self.take(*config, now, crew).await,
            Change::TakeOthers(config) => match *config {
                Ok(config) if self.is_in_use(&config) => {
                    self.taken();
                    self.is_right();
                    None
                }
                config => self.take(config, now, crew).await,
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
        let of_tokens = self.look_at_tokens(crew).await;
        self.tell_of_files();
        again.into_iter().chain(of_tokens).min()
    }

    async fn use_tokens(&mut self, changed: &[TokenAlias], crew: &Crew) {
        self.renew_slots();
        self.tell_meters(changed);
        crew.install(&self.generation).await;
        for alias in changed {
            let usable = self.is_usable(*alias);
            if usable {
                self.say_state(*alias);
            }
            self.meters.tokens_reloaded(if usable { Outcome::Success } else { Outcome::Failure });
            if usable {
                tracing::info!(token = alias.as_str(), usable, "the token was reloaded");
            }
        }
    }

    /// Makes a generation of the tokens as they are now.
    fn renew_slots(&mut self) {
        let old = &self.generation;
        self.generation = Arc::new(Generation {
            policy: old.policy.clone(),
            admissions: old.admissions.clone(),
            tokens: slots(&self.config, &self.tokens, Some(old), &self.concerns),
            upstream: old.upstream.clone(),
            timeouts: old.timeouts,
            limits: old.limits,
            access_log: old.access_log,
            groups: old.groups.clone(),
        });
    }

    /// Something speaks against these tokens now, and against no others.
    pub async fn heed(&mut self, concerns: Concerns, crew: &Crew) {
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
        self.tell_meters(&[]);
        if is_for_workers {
            crew.install(&self.generation).await;
        }
    }

    /// The tokens whose files were written since this was last asked for, and say the same.
    pub fn take_rewritten(&mut self) -> BTreeSet<TokenAlias> {
        self.files.take_rewritten()
    }

    /// The configuration in use.
    #[must_use]
    pub const fn config(&self) -> &Config {
        &self.config
    }

    fn is_usable(&self, alias: TokenAlias) -> bool {
        self.config.tokens.iter().zip(&self.tokens).any(|(source, token)| source.alias == alias && token.is_some())
    }

    /// Says of a token that was just read, or missed, what an operator should know.
    fn say_state(&self, alias: TokenAlias) {
        for (source, token) in self.config.tokens.iter().zip(&self.tokens).filter(|(source, _)| source.alias == alias) {
            let file = crate::file::shown(&source.file);
            match token {
                None => {
                    tracing::error!(token = alias.as_str(), %file, "the token's file is missing; requests that need it are refused until it is there");
                }
                Some(token) if token.is_short() => {
                    tracing::warn!(token = alias.as_str(), %file, "the token is shorter than any that Yandex is known to have issued; is the file whole?");
                }
                Some(_) => {}
            }
        }
    }

    fn tell_meters(&self, changed: &[TokenAlias]) {
        let now = |(source, slot): (&TokenSource, &Slot)| TokenNow {
            alias: source.alias,
            loaded: slot.token.is_some(),
            standing: slot.standing,
            expires: source.origin.expires,
            allow_mode: source.allow_mode.is_some(),
        };
        let tokens: Vec<_> = self.config.tokens.iter().zip(&self.generation.tokens).map(now).collect();
        let loaded: Vec<_> = changed.iter().copied().filter(|alias| self.is_usable(*alias)).collect();
        self.meters.tokens_now(&tokens, &loaded);
        self.meters.served_now(served(&self.config, &self.generation.tokens));
    }

    fn tell_of_address_only_callers(&self) {
        let callers = self.config.address_only_callers();
        self.meters.address_only_callers_now(callers.len());
        if let Some(first) = callers.first() {
            let caller = first.as_str();
            tracing::warn!(
                callers = callers.len(),
                caller,
                "known by nothing but an address on a network, a weak proof"
            );
        }
    }
}

/// The exit code of a start that failed for `error` (sysexits(3)).
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

//! What a configuration and its tokens become for the workers, and what of it needs a restart.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::time::Instant;

use super::Reloader;
use crate::caller::Callers;
use crate::config::{self, Config, TokenSource};
use crate::decide::admission::Admissions;
use crate::metrics::usage::Groups;
use crate::policy::{Policy, TokenRights};
use crate::symbol::TokenAlias;
use crate::token::{Standing, Token};
use crate::tokens::{self, TokenErrors};
use crate::upstream::Upstream;
use crate::worker::{Generation, Slot};

/// What is known of a token against which something speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Concern {
    /// Of the tokens that were in its file, which.
    pub epoch: u64,
    /// Whether Metrica accepts it.
    pub standing: Standing,
    /// Since when.
    pub since: Instant,
    /// See [`Slot::next_look`].
    pub next_look: Option<Instant>,
}

/// The tokens against which something speaks.
pub type Concerns = BTreeMap<TokenAlias, Concern>;

/// What of listeners was decided when they were opened.
pub fn sockets(listeners: &[config::Listener]) -> Vec<config::Listener> {
    let socket =
        |listener: &config::Listener| config::Listener { admission: config::Admission::default(), ..listener.clone() };
    listeners.iter().map(socket).collect()
}

/// Which listeners need the restart, for the log.
pub fn changed(new: &[config::Listener], old: &[config::Listener]) -> String {
    let (new, old) = (sockets(new), sockets(old));
    let other = new.iter().filter(|one| !old.contains(one)).chain(old.iter().filter(|one| !new.contains(one)));
    let names: BTreeSet<_> = other.map(|listener| listener.name.as_str()).collect();
    if names.is_empty() { " their order".to_owned() } else { format!(" ({})", Vec::from_iter(names).join(", ")) }
}

/// What `config` says, with these tokens.
pub fn generation(
    config: &Config,
    tokens: &[Option<Token>],
    upstream: Arc<Upstream>,
    old: Option<&Generation>,
    concerns: &Concerns,
) -> Generation {
    Generation {
        policy: Arc::new(policy(config)),
        admissions: Arc::new(Admissions::new(config)),
        tokens: slots(config, tokens, old, concerns),
        upstream,
        timeouts: config.timeouts,
        limits: config.limits,
        access_log: config.log.access,
        groups: Arc::new(Groups::new(&config.counter_groups)),
    }
}

/// The next token that is read is this one; none has the number of another, whatever became of it.
static EPOCHS: AtomicU64 = AtomicU64::new(0);

/// The tokens, after those of `old`: one that was in its file before keeps its epoch.
pub fn slots(config: &Config, tokens: &[Option<Token>], old: Option<&Generation>, concerns: &Concerns) -> Vec<Slot> {
    let slot = |(source, token): (&TokenSource, &Option<Token>)| {
        let mut before = old.into_iter().flat_map(|old| &old.tokens);
        let before = before.find(|slot| slot.alias == source.alias);
        let kept = before.filter(|slot| slot.token == *token).map(|slot| slot.epoch);
        let epoch = kept.unwrap_or_else(|| EPOCHS.fetch_add(1, Ordering::Relaxed));
        let standby = source.origin.standby;
        let concern = concerns.get(&source.alias).filter(|concern| concern.epoch == epoch);
        Slot {
            alias: source.alias,
            scopes: source.scopes,
            token: token.clone(),
            epoch,
            standing: concern.map_or(Standing::Healthy, |concern| concern.standing),
            refused_since: concern.filter(|concern| concern.standing.is_refused()).map(|concern| concern.since),
            next_look: concern.and_then(|concern| concern.next_look),
            standby: standby.and_then(|alias| config.tokens.iter().position(|other| other.alias == alias)),
            owner: source.origin.owner.clone(),
        }
    };
    config.tokens.iter().zip(tokens).map(slot).collect()
}

/// The policy that `config` states.
#[must_use]
pub fn policy(config: &Config) -> Policy {
    let listeners: Vec<_> = config.listeners.iter().map(|listener| listener.name).collect();
    let rights = config.tokens.iter().map(|source| TokenRights {
        alias: source.alias,
        scopes: source.scopes,
        is_standby: config.tokens.iter().any(|other| other.origin.standby == Some(source.alias)),
    });
    Policy::new(Callers::new(config.callers.clone(), &listeners), config.catalogue.clone(), rights.collect())
}

impl Reloader {
    /// The tokens for a new configuration: those of files that it had before stay until a look at the file says
    /// otherwise, so that reloading in the middle of a replacement loses nothing; the others are read.
    pub(super) fn tokens_of(&self, config: &Config) -> Result<Vec<Option<Token>>, TokenErrors> {
        let known = |source: &TokenSource| {
            let mut before = self.config.tokens.iter().zip(&self.tokens);
            before
                .find(|(known, _)| known.alias == source.alias && known.file == source.file)
                .map(|(_, token)| token.clone())
        };
        let new: Vec<_> = config.tokens.iter().filter(|source| known(source).is_none()).cloned().collect();
        let mut read = tokens::read_all(&new, self.demo)?.into_iter();
        Ok(config.tokens.iter().map(|source| known(source).unwrap_or_else(|| read.next().flatten())).collect())
    }
}

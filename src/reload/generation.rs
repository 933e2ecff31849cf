//! Builds the generation that workers use from a configuration and its tokens, and finds changes that need a restart.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::time::Instant;

use super::Reloader;
use crate::config::certificates::{HandshakeSettings, Handshakes};
use crate::config::{self, Config, Tls, TokenSource};
use crate::metrics::usage::Groups;
use crate::policy::caller::Callers;
use crate::policy::names::{CallerId, TokenAlias};
use crate::policy::{Policy, TokenRights};
use crate::token::store::{self, TokenErrors};
use crate::token::{Standing, Token};
use crate::upstream::Upstream;
use crate::worker::{AccountCheck, Generation, QuotaNumbers, Slot, Turns};

/// The state of a token that is suspect or suspended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Concern {
    /// The epoch of the token that the state is about.
    pub epoch: u64,
    /// Whether Metrica accepts the token.
    pub standing: Standing,
    /// The time since when the standing holds.
    pub since: Instant,
    /// See [`Slot::next_look`].
    pub next_look: Option<Instant>,
}

/// The suspect and suspended tokens.
pub type Concerns = BTreeMap<TokenAlias, Concern>;

/// Prepares the TLS handshakes of the listeners of `config`.
///
/// # Errors
/// TLS cannot be set up.
pub fn handshakes(config: &Config, old: Option<&Handshakes>) -> anyhow::Result<Handshakes> {
    let listeners = config.listeners.iter();
    let with_tls = listeners.filter_map(|one| {
        let Tls { leaf, clients, .. } = one.tls.as_ref()?;
        Some((one.name, HandshakeSettings { leaf, http2: one.http2, clients: clients.as_ref() }))
    });
    Handshakes::new(with_tls, old)
}

/// Returns the listeners without the settings that a reload can change: admission, and the certificate of TLS unless the
/// gate renews it, which needs rights of the sandbox.
pub fn sockets(listeners: &[config::Listener]) -> Vec<(config::Listener, Option<Option<PathBuf>>)> {
    let socket = |listener: &config::Listener| {
        let without = config::Listener { admission: config::Admission::default(), tls: None, ..listener.clone() };
        (without, listener.tls.as_ref().map(|tls| tls.files.renewed_from.clone()))
    };
    listeners.iter().map(socket).collect()
}

/// Returns a log text with the listeners that need a restart.
pub fn changed(new: &[config::Listener], old: &[config::Listener]) -> String {
    let (new, old) = (sockets(new), sockets(old));
    let other = new.iter().filter(|one| !old.contains(one)).chain(old.iter().filter(|one| !new.contains(one)));
    let names: BTreeSet<_> = other.map(|(listener, _)| listener.name.as_str()).collect();
    if names.is_empty() { " their order".to_owned() } else { format!(" ({})", Vec::from_iter(names).join(", ")) }
}

/// Builds the generation of `config` with `tokens`, which are in its order.
pub fn generation(
    config: &Config,
    tokens: &[Option<Token>],
    (upstream, handshakes, service_accounts): (Arc<Upstream>, Handshakes, Option<AccountCheck>),
    old: Option<&Generation>,
    concerns: &Concerns,
) -> Generation {
    let turns = old.map_or_else(|| Arc::new(Turns::default()), |old| old.turns.clone());
    let quota = quota(config, &turns);
    Generation {
        turns,
        quota,
        policy: Arc::new(policy(config)),
        admissions: Arc::new(config.admissions()),
        tokens: slots(config, tokens, old, concerns),
        upstream,
        handshakes,
        service_accounts,
        timeouts: config.timeouts,
        limits: config.limits,
        access_log: config.log.access,
        groups: Arc::new(Groups::new(&config.counter_groups)),
    }
}

/// Gives the quotas of `config` to the broker, and returns the numbers of their names.
fn quota(config: &Config, turns: &Turns) -> Option<QuotaNumbers> {
    let quota = config.quota.as_ref()?;
    let settings = quota.settings(&config.tokens, &config.caller_quotas);
    if let Some(store) = &quota.store {
        // Before the first request, which is not to meet the whole of a limit.
        turns.of_fleet(|broker, now| {
            if broker.gate().is_none() {
                broker.join_fleet(Some(store.fleet(quota.replicas)), now);
            }
        });
    }
    turns.configure(&settings, |broker| {
        let owners = config.tokens.iter().map(|source| broker.owner(config::quota::owner(source)));
        let callers = config.caller_quotas.iter().map(|(id, quota)| Some((*id, (broker.caller(*id)?, quota.class))));
        Some(QuotaNumbers {
            egress: broker.egress(quota.egress)?,
            owners: owners.collect::<Option<_>>()?,
            callers: callers.collect::<Option<_>>()?,
            own: broker.caller(CallerId::new(config::quota::OWN))?,
        })
    })
}

/// The epoch of the next token that is read. Epochs are never reused.
static EPOCHS: AtomicU64 = AtomicU64::new(0);

/// Builds the slots of `tokens`. A token that is unchanged since `old` keeps its epoch.
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
            counters: source.origin.counters.clone(),
        }
    };
    config.tokens.iter().zip(tokens).map(slot).collect()
}

/// Builds the policy of `config`.
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
    /// Returns the tokens for a new configuration. Tokens of already known files are kept until the file is checked, so
    /// that a reload in the middle of a replacement loses none; the others are read.
    pub(super) fn tokens_of(&self, config: &Config) -> Result<Vec<Option<Token>>, TokenErrors> {
        let known = |source: &TokenSource| {
            let mut before = self.config.tokens.iter().zip(&self.tokens);
            before
                .find(|(known, _)| known.alias == source.alias && known.file == source.file)
                .map(|(_, token)| token.clone())
        };
        let new: Vec<_> = config.tokens.iter().filter(|source| known(source).is_none()).cloned().collect();
        let mut read = store::read_all(&new, self.demo)?.into_iter();
        Ok(config.tokens.iter().map(|source| known(source).unwrap_or_else(|| read.next().flatten())).collect())
    }
}

//! The keys of service account tokens in use: those of a file, or those that a server has published last.
//!
//! 1. Keys from a server are used until others arrive, whatever happens to the server meanwhile, and as long as the
//!    configuration names this server.
//! 2. Equal keys and requirements keep the verifier, and with it what workers remember.

use std::sync::Arc;
use std::time::SystemTime;

use tokio::sync::Notify;

use super::Reloader;
use crate::config::Config;
use crate::config::service_accounts::{KeyServer, KeySource, ServiceAccounts};
use crate::policy::service_account::{KeySet, TokenVerifier};
use crate::process::workers::Workers;
use crate::worker::{AccountCheck, Generation};

/// The keys that a server has published last, and the signal for requesting them again.
#[derive(Debug, Default)]
pub struct PublishedSet {
    last: Option<(KeyServer, KeySet)>,
    wanted: Arc<Notify>,
}

impl PublishedSet {
    /// Returns the verification for these settings; an equal verifier of `old` is kept (rule 2).
    pub fn check(&self, accounts: Option<&ServiceAccounts>, old: Option<&AccountCheck>) -> Option<AccountCheck> {
        let ServiceAccounts { rules, source } = accounts?;
        let keys = match source {
            KeySource::File { file: _, keys } => Some(keys),
            KeySource::Server(server) => self.last.as_ref().filter(|(of, _)| *of == **server).map(|(_, keys)| keys),
        };
        let verifier = keys.map(|keys| TokenVerifier { rules: rules.clone(), keys: keys.clone() });
        let kept = old.and_then(|old| old.verifier.as_ref()).filter(|old| Some(&***old) == verifier.as_ref());
        Some(AccountCheck { verifier: kept.cloned().or_else(|| verifier.map(Arc::new)), wanted: self.wanted.clone() })
    }
}

impl Reloader {
    /// Returns the signal of workers that a token names an unknown key.
    #[must_use]
    pub fn keys_wanted(&self) -> Arc<Notify> {
        self.published.wanted.clone()
    }

    /// Returns the verification of service account tokens for a configuration.
    pub(super) fn account_check(&self, config: &Config) -> Option<AccountCheck> {
        self.published.check(config.service_accounts.as_ref(), self.generation.service_accounts.as_ref())
    }

    /// Uses the keys that a server has published.
    pub async fn use_keys(&mut self, server: KeyServer, keys: KeySet, workers: &Workers) {
        self.published.last = Some((server, keys));
        let check = self.account_check(&self.config);
        let verifier = |check: &Option<AccountCheck>| check.as_ref().and_then(|check| check.verifier.clone());
        let (new, old) = (verifier(&check), verifier(&self.generation.service_accounts));
        let is_same = new.as_ref().map(Arc::as_ptr) == old.as_ref().map(Arc::as_ptr);
        if !is_same {
            let generation = Generation { service_accounts: check, ..(*self.generation).clone() };
            self.generation = Arc::new(generation);
            workers.install(&self.generation).await;
            tracing::info!(keys = new.map_or(0, |new| new.keys.len()), "other keys of service accounts are in use");
        }
    }

    /// Publishes the keys of a file.
    pub(super) fn log_key_set(&self) {
        match self.config.service_accounts.as_ref().map(|accounts| &accounts.source) {
            Some(KeySource::File { file, keys }) => {
                let written = file.metadata().and_then(|found| found.modified());
                self.meters.key_set_now(keys.len(), written.unwrap_or_else(|_| SystemTime::now()));
            }
            Some(KeySource::Server(_)) => self.meters.key_set_expected(),
            None => self.meters.no_key_set(),
        }
    }
}

//! Installing a new configuration, and reporting why one is not in use.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::renewal::Withheld;
use super::{Reloader, changed, generation, handshakes, sockets};
use crate::config::{self, Config, Error, TokenSource};
use crate::files::{self, External, ExternalFile, Purpose};
use crate::metrics::process::Outcome;
use crate::process::sandbox::Needs;
use crate::process::workers::Workers;
use crate::upstream::Upstream;

impl Reloader {
    /// Whether the files that are read with the configuration have the content in use.
    pub(super) fn is_in_use(&self, config: &Config) -> bool {
        let tls = |config: &Config| config.listeners.iter().map(|listener| listener.tls.clone()).collect::<Vec<_>>();
        let conditions =
            |config: &Config| config.callers.iter().map(|caller| caller.conditions.clone()).collect::<Vec<_>>();
        config.upstream == self.config.upstream
            && config.identity == self.config.identity
            && config.service_accounts == self.config.service_accounts
            && tls(config) == tls(&self.config)
            && conditions(config) == conditions(&self.config)
    }

    /// Installs `config`, of which at most files that are read with it have changed. Returns the time until the next try.
    pub(super) async fn take_others(
        &mut self,
        mut config: Config,
        since: Instant,
        workers: &Workers,
    ) -> Option<Duration> {
        let withheld = self.keep_valid(&mut config);
        if !self.is_in_use(&config) {
            return self.take_kept(Ok((config, withheld)), since, workers).await;
        }
        self.taken();
        self.is_right();
        self.withhold(withheld);
        None
    }

    pub(super) fn taken(&mut self) {
        if let Some(source) = &mut self.source {
            source.taken(&self.config);
        }
    }

    /// Clears the reported refusal: the configuration file has the content in use.
    pub(super) fn is_right(&mut self) {
        if self.refusal.take().is_some() {
            let file = self.source.as_ref().map(|source| source.file().display().to_string());
            tracing::info!(file, "the configuration is valid again; applied");
        }
        self.meters.config_refused(None);
    }

    /// Logs and counts why the configuration file is not in use, once for each reason.
    pub(super) fn refuse(&mut self, why: Vec<String>) {
        let all = why.join("\n");
        if self.refusal.as_ref() == Some(&all) {
            return;
        }
        self.meters.config_reloaded(Outcome::Failure);
        self.meters.config_refused(Some(all.clone()));
        let file = self.source.as_ref().map(|source| source.file().display().to_string());
        for mistake in why {
            tracing::error!(file, mistake, "the configuration was not reloaded; the previous one stays in use");
        }
        self.refusal = Some(all);
    }

    /// Logs the files that were replaced behind a mount, so that this process still sees the old ones.
    pub(super) fn log_mounts(&mut self) {
        let files = self.external().files;
        let replaced = files.into_iter().filter(|file| files::was_replaced_behind_a_mount(&file.path));
        let replaced: Vec<ExternalFile> = replaced.collect();
        for ExternalFile { purpose, path, .. } in replaced.iter().filter(|file| !self.replaced.contains(&file.path)) {
            tracing::error!(
                file = %path.display(), %purpose,
                "the file was replaced outside of its mount, so the gate still sees the old one; mount its folder instead of the file (no subPath), and restart"
            );
        }
        self.replaced = replaced.into_iter().map(|file| file.path).collect();
    }

    /// Publishes which files cannot be used now, and why. `process/sockets.rs` reports on created files.
    pub(super) fn log_files(&self) {
        let external = self.external();
        let trouble = |file: &ExternalFile| {
            let of_content = match file.purpose {
                Purpose::Token(alias) => self.files.trouble(alias).map(str::to_owned),
                Purpose::Certificate(name) => self.renewals.trouble(name),
                // Mistakes in their content are reported as the reason why the configuration is not in use.
                Purpose::Configuration
                | Purpose::Upstream
                | Purpose::Identity
                | Purpose::OAuth
                | Purpose::Proxy
                | Purpose::Store
                | Purpose::Keys
                | Purpose::CertificateKey(_)
                | Purpose::Authority(_)
                | Purpose::AuthorityKey(_)
                | Purpose::ClientAuthority(_)
                | Purpose::KeySet => None,
                Purpose::Listener(_) | Purpose::State | Purpose::Renewed(_) => None,
                // They are read for each connection.
                Purpose::StorePassword | Purpose::KeyServerToken => None,
                // Its content is no condition for anything.
                Purpose::Record(_) => None,
                // Only commands read them.
                Purpose::ClientSecret(_) | Purpose::RefreshToken(_) => None,
            };
            Some((file.purpose, file.trouble().or(of_content)?))
        };
        self.meters.files_now(external.read().chain(external.written()).filter_map(trouble).collect());
    }

    /// Reloads the configuration and the tokens now (rule 3).
    pub async fn reload(&mut self, workers: &Workers) {
        let now = Instant::now();
        let Some(source) = &mut self.source else { return };
        let config = source.load_now();
        // A signal is answered even if the reason is the same as before.
        self.refusal = None;
        self.take(config, now, workers).await;
    }

    /// Installs `config`, whose validation began at `since`. Returns the time until the next try if it is refused.
    pub(super) async fn take(
        &mut self,
        config: Result<Config, Error>,
        since: Instant,
        workers: &Workers,
    ) -> Option<Duration> {
        let kept = config.map(|mut config| {
            let withheld = self.keep_valid(&mut config);
            (config, withheld)
        });
        self.take_kept(kept, since, workers).await
    }

    /// Installs a configuration whose certificates in `Withheld` are not used.
    async fn take_kept(
        &mut self,
        config: Result<(Config, Withheld), Error>,
        since: Instant,
        workers: &Workers,
    ) -> Option<Duration> {
        let file = self.source.as_ref()?.file().to_owned();
        let before: Vec<_> = self.config.tokens.iter().map(|source| (source.alias, source.file.clone())).collect();
        let taken = match config {
            Ok((config, withheld)) => self.try_take(config, &file).map(|()| withheld),
            Err(error) => Err(error.into()),
        };
        match taken {
            Ok(withheld) => {
                self.taken();
                workers.install(&self.generation).await;
                let was_read = |source: &&TokenSource| !before.contains(&(source.alias, source.file.clone()));
                let new: Vec<_> = self.config.tokens.iter().filter(was_read).map(|source| source.alias).collect();
                self.update_meters(&new);
                self.log_address_only_callers();
                self.log_key_set();
                for alias in new {
                    self.log_state(alias);
                }
                self.refusal = None;
                self.meters.config_reloaded(Outcome::Success);
                self.meters.config_in_use(self.config.hash);
                self.meters.config_refused(None);
                tracing::info!(file = %file.display(), callers = self.config.callers.len(), "configuration reloaded");
                self.withhold(withheld);
                None
            }
            Err(error) => {
                self.refuse(match error.downcast_ref() {
                    // The messages without the line that counts them.
                    Some(Error::Invalid(mistakes)) => mistakes.iter().map(ToString::to_string).collect(),
                    Some(Error::Unreadable { .. } | Error::Permissions { .. }) | None => {
                        format!("{error:#}").lines().map(str::to_owned).collect()
                    }
                });
                let now = Instant::now();
                self.source.as_mut().map(|source| source.refused(now, now - since))
            }
        }
    }

    fn try_take(&mut self, mut config: Config, file: &Path) -> anyhow::Result<()> {
        let fixed = [
            ("listeners", sockets(&config.listeners) != sockets(&self.config.listeners)),
            ("admin", config.admin != self.config.admin),
            ("workers", config.workers != self.config.workers),
            ("sandbox", config.sandbox != self.config.sandbox),
            ("state_dir", config.state_dir != self.config.state_dir),
            ("quota.store", config.store() != self.config.store()),
        ];
        if let Some((key, _)) = fixed.iter().find(|(_, changed)| *changed) {
            let which =
                if *key == "listeners" { changed(&config.listeners, &self.config.listeners) } else { String::new() };
            anyhow::bail!("{}: {key} changed{which}; restart the gate to apply it", file.display());
        }
        self.sandbox.permits(&Needs::of(&External::of(&config, Some(file))))?;
        let short = self.descriptors.and_then(|descriptors| config.fit(descriptors).map(|fit| (descriptors, fit)));
        // The access log setting can change; the format and the level are fixed at the start.
        let log_stays = (config.log.format, &config.log.level) != (self.config.log.format, &self.config.log.level);
        config.log = config::Log { access: config.log.access, ..self.config.log.clone() };
        let tokens = self.tokens_of(&config)?;
        let upstream = if config.upstream == self.config.upstream {
            self.generation.upstream.clone()
        } else {
            Arc::new(Upstream::beside(config.upstream.clone(), self.own.clone())?)
        };
        let handshakes = handshakes(&config, Some(&self.generation.handshakes))?;
        self.own.serve(&handshakes);
        let accounts = self.account_check(&config);
        let parts = (upstream, handshakes, accounts);
        let new = generation(&config, &tokens, parts, Some(&self.generation), &self.concerns);
        self.generation = Arc::new(new);
        self.config = config;
        self.tokens = tokens;
        // The configuration is accepted from here on.
        if let Some((descriptors, fit)) = short {
            descriptors.log_state(fit);
        }
        if log_stays {
            tracing::warn!(file = %file.display(), "log.format or log.level changed; restart the gate to apply it; other changes are applied");
        }
        Ok(())
    }
}

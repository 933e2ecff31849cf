//! The validity of certificates while the gate runs: their renewal (`tls.renew`), and warnings.
//!
//! 1. With `renew`, a certificate is renewed when less than a third of its usual lifetime is left, also if it has expired or is
//!    not yet valid.
//! 2. It keeps its key, so a single file is replaced, and a reader never sees a certificate with the key of another. The
//!    change of the file then becomes a change of the configuration, like any other; until then it is not renewed again. The gate
//!    and `ca issue` exclude each other by a lock of the folder; whoever comes second finds a certificate that is not due.
//! 3. A failure is logged once for each reason, and tried again.
//! 4. Without `renew`, a certificate that expires soon, has expired or is not yet valid is logged once.
//! 5. A certificate that clients do not accept now never replaces one that they accept. It is withheld: the other changes of the
//!    configuration are applied, and the log, the gauge of the last reload and `/readyz?verbose` say why. It is used when its
//!    validity begins, or when that of the one in use ends. At the start, there is no other, and it is served.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use super::{Reloader, handshakes};
use crate::config::certificates::{Leaf, first_end};
use crate::config::{Config, Tls};
use crate::metrics::process::{CertificateEnds, Outcome};
use crate::policy::names::ListenerName;
use crate::process::workers::Workers;

/// The remaining time of a certificate from which on it expires soon.
const SOON: Duration = Duration::from_secs(14 * 24 * 60 * 60);

/// The time after which a renewed certificate that is not in use is renewed again.
const AGAIN: Duration = Duration::from_secs(24 * 60 * 60);

/// The state after an interrupted `ca issue`.
const HALF: &str = "an interrupted `metrika-gate ca issue` has replaced the key and left the certificate beside its place (.new), where the gate reads it; run the command again";

/// The actions for each listener.
#[derive(Default)]
pub struct Renewals {
    /// The last logged message.
    said: BTreeMap<ListenerName, String>,
    /// The end of the certificate that was renewed last, and when.
    renewed: BTreeMap<ListenerName, (SystemTime, SystemTime)>,
    /// The certificates of the files that are not used (rule 5).
    withheld: Withheld,
}

/// Certificates that clients do not accept, in place of which others stay in use (rule 5).
pub type Withheld = BTreeMap<ListenerName, Leaf>;

impl Renewals {
    /// Renews the certificates of `config` that are due, and logs those that are not renewed.
    fn look(&mut self, config: &Config, now: SystemTime) {
        for (name, tls) in config.listeners.iter().filter_map(|one| Some((one.name, one.tls.as_ref()?))) {
            let withheld = self.withheld.get(&name).cloned();
            let of_file = withheld.as_ref().unwrap_or(&tls.leaf);
            if tls.files.renewed_from.is_some() {
                self.renew(name, tls, of_file, now);
            } else if let Some(why) = self.trouble(name) {
                self.say(name, why, tls);
            } else if of_file.is_staged {
                self.say(name, HALF.to_owned(), tls);
            } else if let Err(untimely) = of_file.check_time(now) {
                self.say(name, untimely.to_string(), tls);
            } else if of_file.not_after.duration_since(now).is_ok_and(|left| left < SOON) {
                let cause = "it expires soon; replace it, or issue another one with `metrika-gate ca issue`";
                self.say(name, cause.to_owned(), tls);
            }
        }
    }

    fn renew(&mut self, name: ListenerName, tls: &Tls, of_file: &Leaf, now: SystemTime) {
        let end = of_file.not_after;
        let is_done = self.renewed.get(&name).is_some_and(|(of, when)| *of == end && now < *when + AGAIN);
        let Some(cause) = of_file.due(now).filter(|_| !is_done) else { return };
        match tls.files.renew(name, now) {
            Ok(true) => {
                self.said.remove(&name);
                self.renewed.insert(name, (end, now));
                tracing::info!(listener = name.as_str(), cause, "the certificate was renewed");
            }
            // Another process issues one.
            Ok(false) => {}
            Err(error) => self.say(name, format!("it was not renewed, which is tried again: {error}"), tls),
        }
    }

    /// Returns why the certificate of the file of a listener is withheld, if it is.
    pub(super) fn trouble(&self, name: ListenerName) -> Option<String> {
        let untimely = self.withheld.get(&name)?.check_time(SystemTime::now()).err()?;
        Some(format!("clients would refuse it, so the previous one, which is valid, stays in use: {untimely}"))
    }

    /// Logs a message that differs from the last one.
    fn say(&mut self, name: ListenerName, cause: String, tls: &Tls) {
        if self.said.get(&name) != Some(&cause) {
            let expires = humantime::format_rfc3339_seconds(tls.leaf.not_after);
            tracing::error!(listener = name.as_str(), %expires, cause, "the certificate needs attention");
            self.said.insert(name, cause);
        }
    }
}

impl Reloader {
    /// Replaces each certificate of `config` that clients do not accept now by the one in use, if they accept that (rule 5).
    /// Returns those that were replaced.
    pub(super) fn keep_valid(&self, config: &mut Config) -> Withheld {
        let now = SystemTime::now();
        let mut withheld = Withheld::new();
        for listener in &mut config.listeners {
            let before = self.config.listeners.iter().find(|before| before.name == listener.name);
            let before = before.and_then(|before| before.tls.as_ref()).filter(|tls| tls.leaf.check_time(now).is_ok());
            if let (Some(tls), Some(before)) = (&mut listener.tls, before)
                && tls.leaf.check_time(now).is_err()
            {
                withheld.insert(listener.name, std::mem::replace(&mut tls.leaf, before.leaf.clone()));
            }
        }
        withheld
    }

    /// Records the certificates that the configuration in use has in its files and does not use. They are a failure of the reload.
    pub(super) fn withhold(&mut self, withheld: Withheld) {
        let Renewals { said, withheld: before, .. } = &mut self.renewals;
        said.retain(|name, _| withheld.contains_key(name) || !before.contains_key(name));
        *before = withheld;
        if !self.renewals.withheld.is_empty() {
            self.meters.config_reloaded(Outcome::Failure);
            self.renewals.look(&self.config, SystemTime::now());
        }
    }

    /// Uses the withheld certificates that clients accept by now, and those in place of ones that they do not accept any more
    /// (rule 5).
    async fn release(&mut self, workers: &Workers, now: SystemTime) {
        let mut released = Vec::new();
        for listener in &mut self.config.listeners {
            let (Some(tls), Some(leaf)) = (&mut listener.tls, self.renewals.withheld.get(&listener.name)) else {
                continue;
            };
            if leaf.check_time(now).is_ok() || tls.leaf.check_time(now).is_err() {
                tls.leaf = leaf.clone();
                released.push(listener.name);
            }
        }
        if released.is_empty() {
            return;
        }
        let handshakes = match handshakes(&self.config, Some(&self.generation.handshakes)) {
            Ok(handshakes) => handshakes,
            Err(error) => return self.refuse(vec![error.to_string()]),
        };
        self.own.serve(&handshakes);
        self.renew_generation(handshakes);
        workers.install(&self.generation).await;
        for name in released {
            self.renewals.withheld.remove(&name);
            tracing::info!(listener = name.as_str(), "the certificate of the file is in use now");
        }
        if self.renewals.withheld.is_empty() && self.refusal.is_none() {
            self.meters.config_reloaded(Outcome::Success);
        }
    }

    /// Renews the certificates that are due, and publishes the validity of all.
    pub(super) async fn look_at_certificates(&mut self, workers: &Workers) {
        let now = SystemTime::now();
        self.release(workers, now).await;
        self.renewals.look(&self.config, now);
        let with_tls = || self.config.listeners.iter().filter_map(|one| Some((one.name, one.tls.as_ref()?)));
        let identity = self.config.identity.as_ref().map(|identity| ("identity.ca_file", &identity.place));
        let servers = [Some(("upstream.ca_file", &self.config.upstream)), identity].into_iter().flatten();
        let of_servers = servers.map(|(key, server)| (key.to_owned(), first_end(&server.extra_roots)));
        let of_clients = with_tls().filter_map(|(name, tls)| {
            let key = format!("listeners[{name}].tls.client_ca");
            Some((key, first_end(&tls.clients.as_ref()?.authorities)))
        });
        self.meters.certificates_now(&CertificateEnds {
            listeners: with_tls().map(|(name, tls)| (name, tls.leaf.not_after)).collect(),
            authorities: with_tls().filter_map(|(name, tls)| Some((name, tls.authority_end?))).collect(),
            ca_files: of_servers.chain(of_clients).filter_map(|(key, end)| Some((key, end?))).collect(),
        });
    }
}

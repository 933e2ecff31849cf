//! The validity of certificates while the gate runs: their renewal (`tls.renew`), and warnings.
//!
//! 1. With `renew`, a certificate is renewed when less than a third of its usual lifetime is left, also if it has expired.
//! 2. It keeps its key, so a single file is replaced, and a reader never sees a certificate with the key of another. The
//!    change of the file then becomes a change of the configuration, like any other; until then it is not renewed again.
//! 3. A failure is logged once for each reason, and tried again.
//! 4. Without `renew`, a certificate that expires soon, or has expired, is logged once; with and without it, one that is not yet
//!    valid.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use super::Reloader;
use crate::config::certificates::{RENEW_BEFORE, Untimely, first_end};
use crate::config::{Config, Tls};
use crate::files::replace_like_before;
use crate::metrics::process::CertificateEnds;
use crate::policy::names::ListenerName;

/// The remaining time of a certificate from which on it expires soon.
const SOON: Duration = Duration::from_secs(14 * 24 * 60 * 60);

/// The time after which a renewed certificate that is not in use is renewed again.
const AGAIN: Duration = Duration::from_secs(24 * 60 * 60);

/// The actions for each listener.
#[derive(Default)]
pub struct Renewals {
    /// The last logged message.
    said: BTreeMap<ListenerName, String>,
    /// The end of the certificate that was renewed last, and when.
    renewed: BTreeMap<ListenerName, (SystemTime, SystemTime)>,
}

impl Renewals {
    /// Renews the certificates of `config` that are due, and logs those that are not renewed.
    fn look(&mut self, config: &Config, now: SystemTime) {
        for (name, tls) in config.listeners.iter().filter_map(|one| Some((one.name, one.tls.as_ref()?))) {
            let left = tls.leaf.not_after.duration_since(now).ok();
            if let Err(early @ Untimely::TooEarly(_)) = tls.leaf.check_time(now) {
                self.say(name, early.to_string(), tls);
            } else if tls.files.renewed_from.is_some() {
                self.renew(name, tls, left, now);
            } else if left.is_none_or(|left| left < SOON) {
                let when = if left.is_some() { "expires soon" } else { "has expired" };
                self.say(
                    name,
                    format!("it {when}; replace it, or issue another one with `metrika-gate ca issue`"),
                    tls,
                );
            }
        }
    }

    fn renew(&mut self, name: ListenerName, tls: &Tls, left: Option<Duration>, now: SystemTime) {
        let end = tls.leaf.not_after;
        let is_done = self.renewed.get(&name).is_some_and(|(of, when)| *of == end && now < *when + AGAIN);
        if is_done || left.is_some_and(|left| left >= RENEW_BEFORE) {
            return;
        }
        match renewed(name, tls, now) {
            Ok(()) => {
                self.said.remove(&name);
                self.renewed.insert(name, (end, now));
                tracing::info!(listener = name.as_str(), "the certificate was renewed");
            }
            Err(error) => self.say(name, format!("it was not renewed, which is tried again: {error}"), tls),
        }
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

/// Writes a new certificate (rule 2).
fn renewed(name: ListenerName, tls: &Tls, now: SystemTime) -> Result<(), String> {
    let Some((file, certificate)) = tls.files.renewed(name, now)? else { return Ok(()) };
    file.check().map_err(|refusal| refusal.to_string())?;
    replace_like_before(&file.path, certificate.as_bytes()).map_err(|error| error.to_string())
}

impl Reloader {
    /// Renews the certificates that are due, and publishes the validity of all.
    pub(super) fn look_at_certificates(&mut self) {
        self.renewals.look(&self.config, SystemTime::now());
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

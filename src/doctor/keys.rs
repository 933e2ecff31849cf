//! Checks of the public keys of service account tokens: those of the file, or those that the server publishes now.

use super::finding::{Days, Finding};
use super::{Doctor, Line};
use crate::config::service_accounts::KeySource;
use crate::files::reading::shown;
use crate::health::published_keys;

impl Doctor<'_> {
    /// Reports the keys, if the configuration has a source of them.
    pub(super) async fn look_at_keys(&mut self) {
        let Some(accounts) = &self.config.service_accounts else { return };
        let finding = match (&accounts.source, accounts.days_of_old_file(self.now)) {
            (KeySource::File { file, keys: _ }, Some(days)) => {
                Finding::KeySetOld { place: shown(file), days: Days(days) }
            }
            (KeySource::File { file, keys }, None) => Finding::KeySet { keys: keys.len(), place: shown(file) },
            (KeySource::Server(server), _) => {
                self.report.requests += 1;
                match published_keys::request(server).await {
                    Ok(keys) => Finding::KeySet { keys: keys.len(), place: server.place.authority.clone() },
                    Err(error) => Finding::KeySetFailed { said: format!("{error:#}") },
                }
            }
        };
        self.report.lines.push(Line { token: None, counter: None, finding });
    }
}

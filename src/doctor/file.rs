//! Checks of the token files, before any request is sent.

use std::time::{Duration, SystemTime};

use metrica::login;

use super::Doctor;
use super::finding::{Days, Finding};
use crate::config::TokenSource;
use crate::token::Token;
use crate::token::store::{self, TokenFileError};

/// A token that expires within this number of days should be replaced.
const DUE: u64 = 30;

impl Doctor<'_> {
    /// Reads the token of `source` and reports the state of its file.
    pub(super) fn token(&mut self, source: &TokenSource) -> Option<Token> {
        match store::read(source, false) {
            Ok(token) => {
                self.secrets.push(token.authorization());
                self.report(source, if token.is_short() { Finding::Short } else { Finding::File });
                Some(token)
            }
            Err(error) => {
                self.report(source, of_file(error));
                None
            }
        }
    }

    /// Reports token files with the same content: two names then stand for one token, whatever else is configured.
    pub(super) fn compare_files(&mut self, held: &[(&TokenSource, Token)]) {
        for (index, (source, token)) in held.iter().enumerate() {
            let mut before = held.iter().take(index);
            let Some((other, _)) = before.find(|(_, other)| token.authorization() == other.authorization()) else {
                continue;
            };
            let alias = other.alias;
            let (own, others) = (&source.origin, &other.origin);
            let owners = own.owner.as_ref().zip(others.owner.as_ref());
            let finding = if let Some((owner, others)) = owners.filter(|(one, two)| !login::is_same(one, two)) {
                Finding::TokenOfTwo { other: alias, owner: owner.clone(), others: others.clone() }
            } else if own.standby == Some(alias) || others.standby == Some(source.alias) {
                Finding::StandbySame { other: alias }
            } else {
                Finding::TokenTwice { other: alias }
            };
            self.report(source, finding);
        }
    }

    pub(super) fn expiry(&mut self, source: &TokenSource, now: SystemTime) {
        let Some(end) = source.origin.expires else { return };
        let days = |duration: Duration| Days(duration.as_secs() / (24 * 60 * 60));
        let finding = match end.duration_since(now).map(days) {
            Ok(days) if days.0 > DUE => Finding::Expires { days },
            Ok(days) => Finding::ExpiresSoon { days },
            Err(past) => Finding::Expired { days: days(past.duration()) },
        };
        self.report(source, finding);
    }
}

/// Returns the finding for an unusable token file.
fn of_file(error: TokenFileError) -> Finding {
    match error {
        TokenFileError::Permissions { file, what, mend, .. } => {
            Finding::FilePermissions { said: format!("{} {what}", crate::files::reading::shown(&file)), mend }
        }
        _ if error.is_denied() => {
            let mend = "give the user of the gate read permission".to_owned();
            Finding::FilePermissions { said: error.to_string(), mend }
        }
        TokenFileError::Missing { .. }
        | TokenFileError::Unreadable { .. }
        | TokenFileError::Bad { .. }
        | TokenFileError::Demo { .. } => Finding::FileContent { said: error.to_string() },
    }
}

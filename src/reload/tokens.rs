//! Checks the token files for new, missing, invalid and rewritten tokens.
//!
//! 1. A new token is used after its file has been unchanged for [`STABLE`] (`reload/candidates.rs`).
//! 2. A file that has been missing for [`GONE`] removes its token. A file that has been invalid for [`WRONG`] is logged and
//!    changes nothing.
//! 3. A file that was rewritten with the token in use is reported, so that an operator who fixed something at Metrica can
//!    rewrite the file to have the token probed again. The installation of a new token does not count as a rewrite.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;

use super::candidates::{Candidates, STABLE};
use super::{GONE, LOOK_AT_UNWATCHED, Reloader};
use crate::config::TokenSource;
use crate::metrics::process::Outcome;
use crate::policy::names::TokenAlias;
use crate::process::workers::Workers;
use crate::token::Token;
use crate::token::store::{self, TokenFileError, Written};

/// The time that a file may be invalid before it is reported, because it may still be being written.
const WRONG: Duration = Duration::from_millis(300);

/// The state of a file that holds no usable token.
struct UnusableToken {
    since: Instant,
    /// Whether the file is missing; otherwise it is invalid.
    missing: bool,
    said: Option<String>,
}

/// The state of the token files.
#[derive(Default)]
pub struct TokenFiles {
    candidates: Candidates,
    troubles: BTreeMap<TokenAlias, UnusableToken>,
    /// The last seen write of each file.
    written: BTreeMap<TokenAlias, Written>,
    /// The tokens whose files were rewritten with the same content (rule 3).
    rewritten: BTreeSet<TokenAlias>,
}

/// The result of a check of one file.
#[derive(Debug)]
enum TokenCheck {
    /// The file holds the token in use.
    Same,
    /// The file holds the token in use, after it was reported as invalid.
    RightAgain,
    /// A new token is in use.
    Taken,
    /// Check again after this time.
    Later(Duration),
    /// The file is missing, and its token was removed.
    Gone(TokenFileError),
    /// The file is invalid, which was not reported yet.
    Wrong(TokenFileError),
    /// The file is missing or invalid, which was already reported.
    Known,
}

impl TokenFiles {
    /// Returns and clears the tokens that [`Self::look`] found rewritten.
    pub fn take_rewritten(&mut self) -> BTreeSet<TokenAlias> {
        std::mem::take(&mut self.rewritten)
    }

    /// Returns the reported reason why the file of a token is unusable.
    pub fn trouble(&self, alias: TokenAlias) -> Option<&str> {
        self.troubles.get(&alias)?.said.as_deref()
    }

    /// Checks the file of `source`. `token` is the token in use and is updated.
    fn look(&mut self, source: &TokenSource, token: &mut Option<Token>, demo: bool, now: Instant) -> TokenCheck {
        // Recorded before the file is read, so that no write is missed.
        let written = store::written(source);
        match store::read(source, demo) {
            Ok(new) => self.look_at_right(source.alias, token, new, written, now),
            // A shortage of descriptors is no property of the file.
            Err(error) if error.is_shortage() => TokenCheck::Later(LOOK_AT_UNWATCHED),
            Err(error) => self.look_at_wrong(source.alias, token, error, now),
        }
    }

    fn look_at_right(
        &mut self,
        alias: TokenAlias,
        token: &mut Option<Token>,
        new: Token,
        written: Option<Written>,
        now: Instant,
    ) -> TokenCheck {
        let was_said = self.troubles.remove(&alias).is_some_and(|trouble| trouble.said.is_some());
        if token.as_ref() != Some(&new) {
            if !self.candidates.settled(alias, &new, now) {
                return TokenCheck::Later(STABLE);
            }
            *token = Some(new);
            written.and_then(|written| self.written.insert(alias, written));
            return TokenCheck::Taken;
        }
        self.candidates.forget(alias);
        let before = written.and_then(|written| self.written.insert(alias, written));
        if before.is_some() && before != written {
            self.rewritten.insert(alias);
        }
        if was_said { TokenCheck::RightAgain } else { TokenCheck::Same }
    }

    /// Handles a missing or invalid file (rule 2).
    fn look_at_wrong(
        &mut self,
        alias: TokenAlias,
        token: &mut Option<Token>,
        error: TokenFileError,
        now: Instant,
    ) -> TokenCheck {
        let missing = matches!(error, TokenFileError::Missing { .. });
        let trouble = self.troubles.entry(alias).or_insert(UnusableToken { since: now, missing, said: None });
        // An invalid file that is replaced in two steps is missing for a moment.
        if trouble.missing != missing {
            (trouble.since, trouble.missing) = (now, missing);
        }
        let patience = if missing { GONE } else { WRONG };
        if now.duration_since(trouble.since) < patience {
            return TokenCheck::Later(patience);
        }
        let said = error.to_string();
        if missing && token.take().is_some() {
            trouble.said = Some(said);
            TokenCheck::Gone(error)
        } else if !missing && trouble.said.as_ref() != Some(&said) {
            trouble.said = Some(said);
            TokenCheck::Wrong(error)
        } else {
            TokenCheck::Known
        }
    }
}

impl Reloader {
    /// Checks the file of every token and installs new ones. Returns the time until the next check, if it should be early.
    pub(super) async fn look_at_tokens(&mut self, workers: &Workers) -> Option<Duration> {
        let (mut changed, mut again) = (Vec::new(), None);
        for index in 0..self.tokens.len() {
            let (Some(source), Some(token)) = (self.config.tokens.get(index), self.tokens.get_mut(index)) else {
                break;
            };
            let alias = source.alias;
            match self.files.look(source, token, self.demo, Instant::now()) {
                TokenCheck::Same | TokenCheck::Known => {}
                TokenCheck::RightAgain => tracing::info!(token = alias.as_str(), "the token file is valid again"),
                TokenCheck::Taken => changed.push(alias),
                TokenCheck::Later(left) => again = Some(again.map_or(left, |again: Duration| again.min(left))),
                TokenCheck::Gone(error) => {
                    tracing::error!(token = alias.as_str(), %error, "the token file was removed; requests that need the token are refused");
                    changed.push(alias);
                }
                TokenCheck::Wrong(error) => {
                    let is_there = token.is_some();
                    self.log_unusable(alias, is_there, &error);
                }
            }
        }
        if !changed.is_empty() {
            self.use_tokens(&changed, workers).await;
        }
        again
    }

    fn log_unusable(&self, alias: TokenAlias, is_there: bool, error: &TokenFileError) {
        let is_refused = || self.concerns.get(&alias).is_some_and(|concern| concern.standing.is_refused());
        let kept = match is_there {
            true if is_refused() => "the previous token stays in use, although Metrica rejects it",
            true => "the previous token stays in use",
            false => "the token stays unavailable",
        };
        let hint = self.sandbox.hint(error.is_denied());
        tracing::error!(token = alias.as_str(), %error, kept, hint, "the token was not reloaded");
        self.meters.tokens_reloaded(Outcome::Failure);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;

    use super::*;

    const OLD: &str = "y0_AgAAAAA-test_old456789";
    const NEW: &str = "y0_AgAAAAA-test_new456789";

    fn write(path: &Path, content: &str) {
        std::fs::write(path, content).unwrap();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
    }

    fn source(file: &Path) -> TokenSource {
        TokenSource {
            alias: TokenAlias::new("t"),
            file: file.to_owned(),
            allow_mode: None,
            scopes: metrica::scope::ScopeSet::EMPTY,
            origin: crate::config::Origin::default(),
        }
    }

    #[test]
    fn rule_3_a_new_token_is_not_reported_again_as_rewritten() {
        let folder = tempfile::tempdir().unwrap();
        let source = source(&folder.path().join("token"));
        write(&source.file, OLD);
        let (mut files, start) = (TokenFiles::default(), Instant::now());
        let mut token = Some(store::read(&source, false).unwrap());
        let mut look = |files: &mut TokenFiles, after| {
            files.look(&source, &mut token, false, start + Duration::from_millis(after))
        };
        assert!(matches!(look(&mut files, 0), TokenCheck::Same));
        write(&source.file, NEW);
        assert!(matches!(look(&mut files, 1000), TokenCheck::Later(STABLE)));
        assert!(matches!(look(&mut files, 2000), TokenCheck::Taken));
        assert!(matches!(look(&mut files, 3000), TokenCheck::Same));
        assert!(files.take_rewritten().is_empty(), "it was read when it was taken");
        std::thread::sleep(Duration::from_millis(20));
        write(&source.file, NEW);
        assert!(matches!(look(&mut files, 4000), TokenCheck::Same));
        assert_eq!(files.take_rewritten(), BTreeSet::from([source.alias]));
        assert!(matches!(look(&mut files, 5000), TokenCheck::Same));
        assert!(files.take_rewritten().is_empty(), "once");
    }

    #[test]
    fn rule_2_a_wrong_file_is_reported_once_and_a_missing_one_ends_the_token() {
        let folder = tempfile::tempdir().unwrap();
        let source = source(&folder.path().join("token"));
        write(&source.file, OLD);
        let (mut files, start) = (TokenFiles::default(), Instant::now());
        let mut token = Some(store::read(&source, false).unwrap());
        let mut look = |files: &mut TokenFiles, after| {
            let look = files.look(&source, &mut token, false, start + Duration::from_millis(after));
            (look, token.is_some())
        };
        write(&source.file, "two words");
        assert!(matches!(look(&mut files, 0), (TokenCheck::Later(WRONG), true)));
        assert!(matches!(look(&mut files, 300), (TokenCheck::Wrong(_), true)));
        assert!(files.trouble(source.alias).unwrap().contains("contains no token"));
        assert!(matches!(look(&mut files, 600), (TokenCheck::Known, true)));
        std::fs::remove_file(&source.file).unwrap();
        assert!(matches!(look(&mut files, 700), (TokenCheck::Later(GONE), true)), "it is missing since now");
        assert!(matches!(look(&mut files, 1700), (TokenCheck::Gone(_), false)));
        assert!(matches!(look(&mut files, 1800), (TokenCheck::Known, false)));
        write(&source.file, OLD);
        assert!(matches!(look(&mut files, 1900), (TokenCheck::Later(STABLE), false)));
        assert_eq!(files.trouble(source.alias), None);
        assert!(matches!(look(&mut files, 2300), (TokenCheck::Taken, true)));
    }

    #[test]
    fn a_wrong_file_that_is_valid_again_is_reported() {
        let folder = tempfile::tempdir().unwrap();
        let source = source(&folder.path().join("token"));
        write(&source.file, OLD);
        let (mut files, start) = (TokenFiles::default(), Instant::now());
        let mut token = Some(store::read(&source, false).unwrap());
        let mut look = |after| files.look(&source, &mut token, false, start + Duration::from_millis(after));
        write(&source.file, "two words");
        assert!(matches!(look(0), TokenCheck::Later(WRONG)));
        write(&source.file, OLD);
        assert!(matches!(look(100), TokenCheck::Same), "nothing was said");
        write(&source.file, "two words");
        assert!(matches!((look(200), look(500)), (TokenCheck::Later(WRONG), TokenCheck::Wrong(_))));
        write(&source.file, OLD);
        assert!(matches!(look(600), TokenCheck::RightAgain));
    }
}

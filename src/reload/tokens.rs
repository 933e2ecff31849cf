//! A look at the files of tokens: which say something new, which are gone or wrong, which were written again.
//!
//! 1. What a file says is used when it has said the same for a moment (`reload/candidates.rs`).
//! 2. A file that is gone for [`GONE`] is gone, and its token with it. One that is wrong for [`WRONG`] is said to be, and changes
//!    nothing.
//! 3. One that was written and says what is in use is told: who mended something at Metrica's side writes it again. That a new
//!    token is taken is no such write.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;

use super::candidates::{Candidates, STABLE};
use super::{GONE, LOOK_AT_UNWATCHED, Reloader};
use crate::config::TokenSource;
use crate::crew::Crew;
use crate::metrics::process::Outcome;
use crate::symbol::TokenAlias;
use crate::token::Token;
use crate::tokens::{self, TokenFileError, Written};

/// How long a wrong file may be wrong before that is said: it may still be being written.
const WRONG: Duration = Duration::from_millis(300);

/// A file that gives no token, for now.
struct Trouble {
    since: Instant,
    /// It is not there; otherwise it is wrong.
    missing: bool,
    said: Option<String>,
}

/// What is known of the files of tokens, beside the tokens.
#[derive(Default)]
pub struct TokenFiles {
    candidates: Candidates,
    troubles: BTreeMap<TokenAlias, Trouble>,
    /// When each was last written, as it was last seen.
    written: BTreeMap<TokenAlias, Written>,
    /// Those that were written since, and say the same (rule 3).
    rewritten: BTreeSet<TokenAlias>,
}

/// What a look at one file came to.
#[derive(Debug)]
enum Look {
    /// It says what is in use.
    Same,
    /// The same, after it was said to be wrong.
    RightAgain,
    /// A new token was taken.
    Taken,
    /// To look again after this time.
    Later(Duration),
    /// It is gone, and the token with it.
    Gone(TokenFileError),
    /// It is wrong, which was not said yet.
    Wrong(TokenFileError),
    /// It is missing or wrong, as was said.
    Known,
}

impl TokenFiles {
    /// Those of which [`Self::look`] found that they were written, since this was last asked for.
    pub fn take_rewritten(&mut self) -> BTreeSet<TokenAlias> {
        std::mem::take(&mut self.rewritten)
    }

    /// Why the file of a token gives none, as it was said.
    pub fn trouble(&self, alias: TokenAlias) -> Option<&str> {
        self.troubles.get(&alias)?.said.as_deref()
    }

    /// Looks at the file of `source`; `token` is what is in use, and becomes what is from now on.
    fn look(&mut self, source: &TokenSource, token: &mut Option<Token>, demo: bool, now: Instant) -> Look {
        // Taken before the file is read, so that no write is missed.
        let written = tokens::written(source);
        match tokens::read(source, demo) {
            Ok(new) => self.look_at_right(source.alias, token, new, written, now),
            // Of its file it says nothing.
            Err(error) if error.is_shortage() => Look::Later(LOOK_AT_UNWATCHED),
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
    ) -> Look {
        let was_said = self.troubles.remove(&alias).is_some_and(|trouble| trouble.said.is_some());
        if token.as_ref() != Some(&new) {
            if !self.candidates.settled(alias, &new, now) {
                return Look::Later(STABLE);
            }
            *token = Some(new);
            written.and_then(|written| self.written.insert(alias, written));
            return Look::Taken;
        }
        self.candidates.forget(alias);
        let before = written.and_then(|written| self.written.insert(alias, written));
        if before.is_some() && before != written {
            self.rewritten.insert(alias);
        }
        if was_said { Look::RightAgain } else { Look::Same }
    }

    /// Rule 2.
    fn look_at_wrong(
        &mut self,
        alias: TokenAlias,
        token: &mut Option<Token>,
        error: TokenFileError,
        now: Instant,
    ) -> Look {
        let missing = matches!(error, TokenFileError::Missing { .. });
        let trouble = self.troubles.entry(alias).or_insert(Trouble { since: now, missing, said: None });
        // A wrong file that is replaced in two steps is missing for a moment.
        if trouble.missing != missing {
            (trouble.since, trouble.missing) = (now, missing);
        }
        let patience = if missing { GONE } else { WRONG };
        if now.duration_since(trouble.since) < patience {
            return Look::Later(patience);
        }
        let said = error.to_string();
        if missing && token.take().is_some() {
            trouble.said = Some(said);
            Look::Gone(error)
        } else if !missing && trouble.said.as_ref() != Some(&said) {
            trouble.said = Some(said);
            Look::Wrong(error)
        } else {
            Look::Known
        }
    }
}

impl Reloader {
    /// Looks at the file of each token, and uses what is new; when to look again, if that should be soon.
    pub(super) async fn look_at_tokens(&mut self, crew: &Crew) -> Option<Duration> {
        let (mut changed, mut again) = (Vec::new(), None);
        for index in 0..self.tokens.len() {
            let (Some(source), Some(token)) = (self.config.tokens.get(index), self.tokens.get_mut(index)) else {
                break;
            };
            let alias = source.alias;
            match self.files.look(source, token, self.demo, Instant::now()) {
                Look::Same | Look::Known => {}
                Look::RightAgain => tracing::info!(token = alias.as_str(), "the token's file is right again"),
                Look::Taken => changed.push(alias),
                Look::Later(left) => again = Some(again.map_or(left, |again: Duration| again.min(left))),
                Look::Gone(error) => {
                    tracing::error!(token = alias.as_str(), %error, "the token is gone; requests that need it are refused");
                    changed.push(alias);
                }
                Look::Wrong(error) => {
                    let is_there = token.is_some();
                    self.say_wrong(alias, is_there, &error);
                }
            }
        }
        if !changed.is_empty() {
            self.use_tokens(&changed, crew).await;
        }
        again
    }

    fn say_wrong(&self, alias: TokenAlias, is_there: bool, error: &TokenFileError) {
        let is_refused = || self.concerns.get(&alias).is_some_and(|concern| concern.standing.is_refused());
        let kept = match is_there {
            true if is_refused() => "the old one stays, which Metrica does not take",
            true => "the old one stays in use",
            false => "it stays unusable",
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
            scopes: crate::scope::ScopeSet::EMPTY,
            origin: crate::config::Origin::default(),
        }
    }

    #[test]
    fn rule_3_a_new_token_that_was_taken_is_not_told_as_written_again() {
        let folder = tempfile::tempdir().unwrap();
        let source = source(&folder.path().join("token"));
        write(&source.file, OLD);
        let (mut files, start) = (TokenFiles::default(), Instant::now());
        let mut token = Some(tokens::read(&source, false).unwrap());
        let mut look = |files: &mut TokenFiles, after| {
            files.look(&source, &mut token, false, start + Duration::from_millis(after))
        };
        assert!(matches!(look(&mut files, 0), Look::Same));
        write(&source.file, NEW);
        assert!(matches!(look(&mut files, 1000), Look::Later(STABLE)));
        assert!(matches!(look(&mut files, 2000), Look::Taken));
        assert!(matches!(look(&mut files, 3000), Look::Same));
        assert!(files.take_rewritten().is_empty(), "it was read when it was taken");
        std::thread::sleep(Duration::from_millis(20));
        write(&source.file, NEW);
        assert!(matches!(look(&mut files, 4000), Look::Same));
        assert_eq!(files.take_rewritten(), BTreeSet::from([source.alias]));
        assert!(matches!(look(&mut files, 5000), Look::Same));
        assert!(files.take_rewritten().is_empty(), "once");
    }

    #[test]
    fn rule_2_what_is_wrong_is_said_once_and_what_is_gone_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let source = source(&folder.path().join("token"));
        write(&source.file, OLD);
        let (mut files, start) = (TokenFiles::default(), Instant::now());
        let mut token = Some(tokens::read(&source, false).unwrap());
        let mut look = |files: &mut TokenFiles, after| {
            let look = files.look(&source, &mut token, false, start + Duration::from_millis(after));
            (look, token.is_some())
        };
        write(&source.file, "two words");
        assert!(matches!(look(&mut files, 0), (Look::Later(WRONG), true)));
        assert!(matches!(look(&mut files, 300), (Look::Wrong(_), true)));
        assert!(files.trouble(source.alias).unwrap().contains("holds no token"));
        assert!(matches!(look(&mut files, 600), (Look::Known, true)));
        std::fs::remove_file(&source.file).unwrap();
        assert!(matches!(look(&mut files, 700), (Look::Later(GONE), true)), "it is missing since now");
        assert!(matches!(look(&mut files, 1700), (Look::Gone(_), false)));
        assert!(matches!(look(&mut files, 1800), (Look::Known, false)));
        write(&source.file, OLD);
        assert!(matches!(look(&mut files, 1900), (Look::Later(STABLE), false)));
        assert_eq!(files.trouble(source.alias), None);
        assert!(matches!(look(&mut files, 2300), (Look::Taken, true)));
    }

    #[test]
    fn a_wrong_file_that_is_right_again_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let source = source(&folder.path().join("token"));
        write(&source.file, OLD);
        let (mut files, start) = (TokenFiles::default(), Instant::now());
        let mut token = Some(tokens::read(&source, false).unwrap());
        let mut look = |after| files.look(&source, &mut token, false, start + Duration::from_millis(after));
        write(&source.file, "two words");
        assert!(matches!(look(0), Look::Later(WRONG)));
        write(&source.file, OLD);
        assert!(matches!(look(100), Look::Same), "nothing was said");
        write(&source.file, "two words");
        assert!(matches!((look(200), look(500)), (Look::Later(WRONG), Look::Wrong(_))));
        write(&source.file, OLD);
        assert!(matches!(look(600), Look::RightAgain));
    }
}

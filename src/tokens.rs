//! Token files: read with suspicion, watched by their folders.
//!
//! 1. A file holds one token and nothing else; see [`crate::token`] for what a token is.
//! 2. Where it is and who may read it says its row of [`crate::external`]; it is a secret ([`crate::file::guard`]).
//! 3. A file that is missing is a token that is missing: what needs it is refused, everything else goes on.
//! 4. A file that is there and wrong changes nothing.

use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use zeroize::Zeroizing;

use crate::config::TokenSource;
use crate::descriptors::Need;
use crate::external::ExternalFile;
use crate::file::guard::Refusal;
use crate::file::shown;
use crate::symbol::TokenAlias;
use crate::token::{BadToken, Token};

/// Why a file gives no token.
#[derive(Debug, thiserror::Error)]
pub enum TokenFileError {
    /// Rule 3.
    #[error("{}: the file of token '{alias}' is missing", shown(file))]
    Missing {
        /// Its name.
        alias: TokenAlias,
        /// Its file.
        file: PathBuf,
    },
    /// It cannot be read.
    #[error("{}: the file of token '{alias}' cannot be read: {source}", shown(file))]
    Unreadable {
        /// Its name.
        alias: TokenAlias,
        /// Its file.
        file: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Rule 2.
    #[error("{}: the file of token '{alias}' {what}; {mend}", shown(file))]
    Permissions {
        /// Its name.
        alias: TokenAlias,
        /// Its file.
        file: PathBuf,
        /// What is wrong.
        what: String,
        /// What mends it.
        mend: String,
    },
    /// Rule 1.
    #[error("{}: the file of token '{alias}' {source}", shown(file))]
    Bad {
        /// Its name.
        alias: TokenAlias,
        /// Its file.
        file: PathBuf,
        /// What is wrong.
        source: BadToken,
    },
    /// A token of the demo where real ones are wanted.
    #[error("{}: token '{alias}' is one of the demo; use a real one, or the command 'demo'", shown(file))]
    Demo {
        /// Its name.
        alias: TokenAlias,
        /// Its file.
        file: PathBuf,
    },
}

impl TokenFileError {
    /// Whether another mode or owner would mend it. What is no regular file is no matter of permissions.
    #[must_use]
    pub fn is_of_permissions(&self) -> bool {
        self.is_denied() || matches!(self, Self::Permissions { .. })
    }

    /// Whether there was no descriptor to open the file with, which is counted.
    #[must_use]
    pub fn is_shortage(&self) -> bool {
        matches!(self, Self::Unreadable { source, .. } if Need::File.found_none(source))
    }

    /// Whether this process may not open the file.
    #[must_use]
    pub fn is_denied(&self) -> bool {
        matches!(self, Self::Unreadable { source, .. } if source.kind() == io::ErrorKind::PermissionDenied)
    }
}

/// Files beyond this are not token files.
const MAXIMUM_BYTES: u64 = 4096;

/// Reads the token of `source`; one of the demo only where `demo` allows it.
///
/// # Errors
/// [`TokenFileError`].
pub fn read(source: &TokenSource, demo: bool) -> Result<Token, TokenFileError> {
    read_from(&ExternalFile::of_token(source), source.alias, demo)
}

/// The same of its row in the table of files.
///
/// # Errors
/// [`TokenFileError`].
pub fn read_from(row: &ExternalFile, alias: TokenAlias, demo: bool) -> Result<Token, TokenFileError> {
    let content = read_guarded(row, alias)?;
    let file = row.path.clone();
    match Token::parse(&content) {
        Ok(token) if token.is_demo() && !demo => Err(TokenFileError::Demo { alias, file }),
        Ok(token) => Ok(token),
        Err(source) => Err(TokenFileError::Bad { alias, file, source }),
    }
}

/// When a file was last written: what changes with every write, also with one of the same content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Written([i64; 3]);

/// When the file of `source` was last written; `None` where that cannot be seen.
#[must_use]
pub fn written(source: &TokenSource) -> Option<Written> {
    let seen = std::fs::metadata(ExternalFile::of_token(source).path).ok()?;
    let inode = i64::from_ne_bytes(seen.ino().to_ne_bytes());
    Some(Written([inode, seen.ctime(), seen.ctime_nsec()]))
}

/// Reads all tokens; one that is missing is `None`.
///
/// # Errors
/// All that are there and wrong.
pub fn read_all(sources: &[TokenSource], demo: bool) -> Result<Vec<Option<Token>>, TokenErrors> {
    let mut tokens = Vec::new();
    let mut errors = Vec::new();
    for source in sources {
        match read(source, demo) {
            Ok(token) => tokens.push(Some(token)),
            Err(TokenFileError::Missing { .. }) => tokens.push(None),
            Err(error) => errors.push(error),
        }
    }
    if errors.is_empty() { Ok(tokens) } else { Err(TokenErrors(errors)) }
}

/// Token files that are there and wrong, all of them.
#[derive(Debug)]
pub struct TokenErrors(pub Vec<TokenFileError>);

impl std::fmt::Display for TokenErrors {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (position, error) in self.0.iter().enumerate() {
            let separator = if position > 0 { "\n" } else { "" };
            write!(f, "{separator}{error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for TokenErrors {}

impl TokenErrors {
    /// Whether one of them is about permissions.
    #[must_use]
    pub fn is_of_permissions(&self) -> bool {
        self.0.iter().any(TokenFileError::is_of_permissions)
    }
}

fn read_guarded(file: &ExternalFile, alias: TokenAlias) -> Result<Zeroizing<Vec<u8>>, TokenFileError> {
    let path = || file.path.clone();
    let opened = file.open().map_err(|refusal| match refusal {
        Refusal::Missing(_) => TokenFileError::Missing { alias, file: path() },
        Refusal::Unreadable(source) | Refusal::Writable(source) => {
            TokenFileError::Unreadable { alias, file: path(), source }
        }
        Refusal::Permissions { what, mend } => TokenFileError::Permissions { alias, file: path(), what, mend },
    })?;
    let mut content = Zeroizing::new(Vec::with_capacity(1024));
    let read = opened.take(MAXIMUM_BYTES).read_to_end(&mut content);
    read.map_err(|source| TokenFileError::Unreadable { alias, file: path(), source })?;
    Ok(content)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::scope::ScopeSet;

    fn written(content: &str, mode: u32) -> (tempfile::TempDir, TokenSource) {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        std::fs::write(&file, content).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
        (
            folder,
            TokenSource {
                alias: TokenAlias::new("t"),
                file,
                allow_mode: None,
                scopes: ScopeSet::EMPTY,
                origin: crate::config::Origin::default(),
            },
        )
    }

    const GOOD: &str = "y0_AgAAAAA-test_0123456789";

    #[test]
    fn rule_2_permissions_are_demanded_and_the_mend_is_said() {
        for mode in [0o600, 0o400, 0o440, 0o640] {
            let (_folder, source) = written(GOOD, mode);
            assert!(read(&source, false).is_ok(), "{mode:o}");
        }
        for mode in [0o644, 0o604, 0o660, 0o666, 0o444] {
            let (_folder, source) = written(GOOD, mode);
            let error = read(&source, false).unwrap_err();
            assert!(matches!(error, TokenFileError::Permissions { .. }), "{mode:o}");
            assert!(error.to_string().contains(&format!("chmod 0600 {}", source.file.display())), "{error}");
        }
    }

    #[test]
    fn rule_3_missing_is_an_answer_of_its_own() {
        let (folder, source) = written(GOOD, 0o600);
        drop(folder);
        assert!(matches!(read(&source, false), Err(TokenFileError::Missing { .. })));
    }

    #[test]
    fn rule_4_wrong_content_is_said_without_the_content() {
        let (_folder, source) = written("y0_secret secret_secret", 0o600);
        let error = read(&source, false).unwrap_err().to_string();
        assert!(error.contains("holds no token: byte 10 is white space") && !error.contains("y0_"), "{error}");
    }

    #[test]
    fn demo_tokens_are_for_the_demo() {
        let (_folder, source) = written("demo-read-analytics-0001", 0o600);
        assert!(matches!(read(&source, false), Err(TokenFileError::Demo { .. })));
        assert!(read(&source, true).is_ok());
    }
}

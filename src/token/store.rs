//! Token files.
//!
//! 1. A file holds one token and nothing else ([`crate::token`]).
//! 2. The path and the permissions come from the row of the file in [`crate::files`]; its guard is the one for secrets
//!    ([`crate::files::guard`]).
//! 3. A missing file is a missing token: requests that need it are refused, all others are served.
//! 4. A file that exists and is invalid changes nothing.

use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::config::TokenSource;
use crate::files::ExternalFile;
use crate::files::descriptors::DescriptorNeed;
use crate::files::guard::Refusal;
use crate::files::reading::shown;
use crate::policy::names::TokenAlias;
use crate::token::{BadToken, Token};

/// The reason why a file holds no usable token.
#[derive(Debug, thiserror::Error)]
pub enum TokenFileError {
    /// The file is missing (rule 3).
    #[error(
        "{}: the file of token '{alias}' is missing; put a token there, or run `metrika-gate token login {alias}`",
        shown(file)
    )]
    Missing {
        /// The name of the token.
        alias: TokenAlias,
        /// The path of the file.
        file: PathBuf,
    },
    /// The file cannot be read.
    #[error("{}: the file of token '{alias}' cannot be read: {source}", shown(file))]
    Unreadable {
        /// The name of the token.
        alias: TokenAlias,
        /// The path of the file.
        file: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The permissions are wrong (rule 2).
    #[error("{}: the file of token '{alias}' {what}; {mend}", shown(file))]
    Permissions {
        /// The name of the token.
        alias: TokenAlias,
        /// The path of the file.
        file: PathBuf,
        /// The problem.
        what: String,
        /// The fix.
        mend: String,
    },
    /// The content is not a token (rule 1).
    #[error("{}: the file of token '{alias}' {source}", shown(file))]
    Bad {
        /// The name of the token.
        alias: TokenAlias,
        /// The path of the file.
        file: PathBuf,
        /// The problem.
        source: BadToken,
    },
    /// The file holds a demo token outside of a demo.
    #[error("{}: token '{alias}' is a demo token; use a real token, or the command 'demo'", shown(file))]
    Demo {
        /// The name of the token.
        alias: TokenAlias,
        /// The path of the file.
        file: PathBuf,
    },
}

impl TokenFileError {
    /// Whether another mode or owner would fix the problem; false for a path that is not a regular file.
    #[must_use]
    pub fn is_of_permissions(&self) -> bool {
        self.is_denied() || matches!(self, Self::Permissions { .. })
    }

    /// Whether the file could not be opened for lack of descriptors. The shortage is counted.
    #[must_use]
    pub fn is_shortage(&self) -> bool {
        matches!(self, Self::Unreadable { source, .. } if DescriptorNeed::File.found_none(source))
    }

    /// Whether this process may not open the file.
    #[must_use]
    pub fn is_denied(&self) -> bool {
        matches!(self, Self::Unreadable { source, .. } if source.kind() == io::ErrorKind::PermissionDenied)
    }
}

/// The maximum number of bytes that are read from a token file.
const MAXIMUM_BYTES: u64 = 4096;

/// Reads the token of `source`. A demo token is accepted only if `demo` is set.
///
/// # Errors
/// [`TokenFileError`].
pub fn read(source: &TokenSource, demo: bool) -> Result<Token, TokenFileError> {
    read_from(&TokenSource::external(source), source.alias, demo)
}

/// Reads a token from its row in the table of files.
///
/// # Errors
/// [`TokenFileError`].
pub fn read_from(row: &ExternalFile, alias: TokenAlias, demo: bool) -> Result<Token, TokenFileError> {
    let content = read_guarded(row, alias)?;
    let bad = |source| TokenFileError::Bad { alias, file: row.path.clone(), source };
    let token = Token::parse(&content).map_err(bad)?;
    check(&token, alias, &row.path, demo).map(|()| token)
}

/// Checks a token that is in the file at `path`, or is about to be written to it. A demo token is accepted only if `demo` is
/// set.
///
/// # Errors
/// [`TokenFileError::Demo`].
pub fn check(token: &Token, alias: TokenAlias, path: &Path, demo: bool) -> Result<(), TokenFileError> {
    if token.is_demo() && !demo { Err(TokenFileError::Demo { alias, file: path.to_owned() }) } else { Ok(()) }
}

/// A stamp of the last write to a file. It changes with every write, even of the same content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Written([i64; 3]);

/// Returns the stamp of the file of `source`; `None` if its metadata cannot be read.
#[must_use]
pub fn written(source: &TokenSource) -> Option<Written> {
    let seen = std::fs::metadata(TokenSource::external(source).path).ok()?;
    let inode = i64::from_ne_bytes(seen.ino().to_ne_bytes());
    Some(Written([inode, seen.ctime(), seen.ctime_nsec()]))
}

/// Reads all tokens. A missing one is `None`.
///
/// # Errors
/// All files that exist and are invalid.
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

/// All token files that exist and are invalid.
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
    /// Whether one of the errors is about permissions.
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

    use metrica::scope::ScopeSet;

    use super::*;

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
    fn rule_2_permissions_are_required_and_the_fix_is_reported() {
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
    fn rule_4_invalid_content_is_reported_without_the_content() {
        let (_folder, source) = written("y0_secret secret_secret", 0o600);
        let error = read(&source, false).unwrap_err().to_string();
        assert!(error.contains("contains no token: byte 10 is white space") && !error.contains("y0_"), "{error}");
    }

    #[test]
    fn demo_tokens_are_for_the_demo() {
        let (_folder, source) = written("demo-read-analytics-0001", 0o600);
        assert!(matches!(read(&source, false), Err(TokenFileError::Demo { .. })));
        assert!(read(&source, true).is_ok());
    }
}

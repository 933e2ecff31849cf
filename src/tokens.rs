//! Token files: read with suspicion, watched by their folders.
//!
//! 1. A file holds one token and nothing else; see [`crate::token`] for what a token is.
//! 2. Nobody but its owner, and a group at most, may read it, and nobody but its owner may write it; the owner is this
//!    process or root. On a read-only mount, `allow_mode` lets group and others do more, and its owner be anyone: secrets
//!    of Docker and Compose are mounted so, and their mode cannot be changed there.
//! 3. A file that is missing is a token that is missing: what needs it is refused, everything else goes on.
//! 4. A file that is there and wrong changes nothing.

use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use zeroize::Zeroizing;

use crate::config::TokenSource;
use crate::descriptors::Need;
use crate::file::{self, shown};
use crate::names::TokenAlias;
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
    let (alias, file) = (source.alias, source.file.clone());
    let content = read_guarded(source)?;
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
    let seen = std::fs::metadata(&source.file).ok()?;
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

fn read_guarded(source: &TokenSource) -> Result<Zeroizing<Vec<u8>>, TokenFileError> {
    let (alias, path) = (source.alias, source.file.as_path());
    let failed = |error: io::Error| {
        let file = path.to_owned();
        if error.kind() == io::ErrorKind::NotFound {
            return TokenFileError::Missing { alias, file };
        }
        let is_mounted = error.kind() == io::ErrorKind::PermissionDenied && file::is_read_only(path);
        let said = is_mounted.then(|| format!("{error}; {}", mend_mount(source, None)));
        let source = said.map_or(error, |said| io::Error::new(io::ErrorKind::PermissionDenied, said));
        TokenFileError::Unreadable { alias, file, source }
    };
    let (opened, metadata) = file::open(path).map_err(failed)?;
    let own = rustix::process::geteuid().as_raw();
    let mount = if file::is_open_read_only(&opened) { Mount::ReadOnly } else { Mount::Writable };
    check_guard(source, metadata.mode() & 0o7777, metadata.uid(), own, mount)?;
    // Its mode is in order: this is about its folder.
    file::check_writers(path, &metadata).map_err(failed)?;
    let mut content = Zeroizing::new(Vec::with_capacity(1024));
    opened.take(MAXIMUM_BYTES).read_to_end(&mut content).map_err(failed)?;
    Ok(content)
}

/// What a file is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mount {
    ReadOnly,
    Writable,
}

/// Rule 2, for the process of user `own`.
fn check_guard(source: &TokenSource, mode: u32, owner: u32, own: u32, mount: Mount) -> Result<(), TokenFileError> {
    let (open_to, is_foreign) = (mode & 0o037, owner != own && owner != 0);
    let allowed = source.allow_mode.filter(|_| mount == Mount::ReadOnly);
    if allowed.map_or(open_to == 0 && !is_foreign, |allowed| open_to & !allowed == 0) {
        return Ok(());
    }
    let (alias, file) = (source.alias, source.file.clone());
    let (mut what, command) = if open_to == 0 {
        (format!("belongs to user {owner}, who could change it"), format!("chown {own} {}", file.display()))
    } else {
        let what = format!("has mode {mode:04o} and can be read by others or changed by its group");
        (what, format!("chmod 0600 {}", file.display()))
    };
    let mend = match (mount, source.allow_mode) {
        (Mount::Writable, None) => command,
        (Mount::Writable, Some(_)) => {
            what.push_str(", and allow_mode counts on a read-only mount alone");
            format!("mount it read-only, or {command}")
        }
        (Mount::ReadOnly, _) => mend_mount(source, Some(mode)),
    };
    Err(TokenFileError::Permissions { alias, file, what, mend })
}

/// What to do about a file whose mode cannot be changed where it is mounted; `mode` is that of one that can be opened.
fn mend_mount(source: &TokenSource, mode: Option<u32>) -> String {
    let alias = source.alias;
    let docker = match mode.map(|mode| mode & 0o777) {
        None => format!(
            "let the gate's user read the file that it is made of, and set tokens.{alias}.allow_mode to its mode"
        ),
        Some(mode) if mode & 0o002 != 0 => "chmod o-w the file that it is made of".to_owned(),
        Some(mode) => format!("set tokens.{alias}.allow_mode: \"{mode:04o}\""),
    };
    format!(
        "it is on a read-only mount, where its mode cannot be changed: for a volume of Kubernetes set defaultMode: 0440 and the \
         pod's fsGroup; for a secret of Docker or Compose {docker}"
    )
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

    #[test]
    fn rule_2_allow_mode_counts_on_a_read_only_mount_alone() {
        let (_folder, mut source) = written(GOOD, 0o444);
        let mut check = |allow_mode, mode, owner, mount| {
            source.allow_mode = allow_mode;
            let checked = check_guard(&source, mode, owner, 7, mount);
            checked.map_err(|error| error.to_string()).err().unwrap_or_default()
        };
        use Mount::{ReadOnly, Writable};
        for (allow_mode, mode, owner) in [
            (None, 0o640, 7),
            (None, 0o440, 0),
            (Some(0o444), 0o444, 0),
            (Some(0o444), 0o644, 8),
            (Some(0o600), 0o600, 8),
            (Some(0o664), 0o664, 8),
        ] {
            assert_eq!(check(allow_mode, mode, owner, ReadOnly), "", "{allow_mode:?} {mode:o} {owner}");
        }
        assert_eq!(check(Some(0o444), 0o600, 7, Writable), "", "what is in order anyway");
        for (allow_mode, mode, owner, mount, expected) in [
            (None, 0o444, 0, ReadOnly, "for a secret of Docker or Compose set tokens.t.allow_mode: \"0444\""),
            (None, 0o600, 8, ReadOnly, "for a secret of Docker or Compose set tokens.t.allow_mode: \"0600\""),
            (Some(0o440), 0o444, 0, ReadOnly, "for a volume of Kubernetes set defaultMode: 0440 and the pod's fsGroup"),
            (Some(0o444), 0o466, 0, ReadOnly, "chmod o-w the file that it is made of"),
            (
                Some(0o444),
                0o444,
                0,
                Writable,
                "allow_mode counts on a read-only mount alone; mount it read-only, or chmod",
            ),
            (
                Some(0o644),
                0o600,
                8,
                Writable,
                "allow_mode counts on a read-only mount alone; mount it read-only, or chown",
            ),
            (None, 0o600, 8, Writable, "belongs to user 8, who could change it; chown 7 "),
        ] {
            let said = check(allow_mode, mode, owner, mount);
            assert!(said.contains(expected), "{allow_mode:?} {mode:o} {owner}: {said}");
        }
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

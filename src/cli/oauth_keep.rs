//! Keeping a token: durable before it is used, and in its place only after it was proven.
//!
//! 1. Everything that was received is first written to one file (`….pending`): beside the refresh token if that is kept,
//!    otherwise beside the token, and then without the refresh token.
//! 2. A proven token is installed: refresh token, record, token; then the pending file is removed. The token is last, so
//!    the gate reads it when everything else is there. A refresh token that belongs to an earlier token is removed before: a
//!    renewal would bring that one back.
//! 3. Every file is written beside its place, synced and renamed. A process that ends at any moment leaves a working token
//!    in its place, the old one or the new one, and the next command finishes its work with the pending file.
//! 4. One process at a time changes a token: it holds a lock (`….lock`).
//! 5. A token that is revoked is first set aside (`….revoking`), so that the gate does not send a dead one, and this file is
//!    removed last: a command that ends at any moment is finished by the same command.
//! 6. Files have mode 0600 and belong to the owner of the file that they replace, or of the folder: a token that root
//!    writes can be read by the gate. A symbolic link is not replaced, because another program maintains it.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::oauth_secret::RefreshToken;
use crate::config::TokenSource;
use crate::files::guard::Refusal;
use crate::files::{ExternalFile, Purpose, reading, writing};
use crate::policy::names::TokenAlias;
use crate::token::record::{Record, beside, path_of};
use crate::token::store::{self, TokenFileError};
use crate::token::{SCHEME, Token};

/// The maximum size of a pending file, in bytes.
const MOST: usize = 64 * 1024;

/// A token with its refresh token and its record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issued {
    /// The token.
    pub access: Token,
    /// The token that renews it.
    pub refresh: Option<RefreshToken>,
    /// The facts about it.
    pub record: Record,
}

/// The files of a token.
#[derive(Debug, Clone)]
pub struct Keeper {
    alias: TokenAlias,
    token: PathBuf,
    refresh: Option<PathBuf>,
    pending: PathBuf,
    lock: PathBuf,
    aside: PathBuf,
}

/// The reason why a token cannot be kept.
#[derive(Debug, thiserror::Error)]
pub enum NotKept {
    /// A file cannot be written.
    #[error("{}: cannot be written: {source}{hint}", path.display())]
    Unwritable {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
        /// The fix.
        hint: String,
    },
    /// The file is a symbolic link (rule 6).
    #[error(
        "{}: is a symbolic link, which another program maintains (a Kubernetes volume, for example); use --print and store the token there",
        .0.display()
    )]
    Link(PathBuf),
    /// The gate would reject the file because of its folder.
    #[error("{}: the gate would reject the file: {why}", path.display())]
    Place {
        /// The file.
        path: PathBuf,
        /// The problem and the fix.
        why: Refusal,
    },
    /// Another process changes the token (rule 4).
    #[error("another command is changing this token now ({} is locked); wait until it has ended", .0.display())]
    Busy(PathBuf),
    /// Another token waits for its proof, and its refresh token may be the only one (rule 1).
    #[error(
        "{}: another token, which an interrupted command received, waits for its proof; run `metrika-gate token login {alias}`, which proves and installs it, or remove the file, and then run the command again",
        path.display()
    )]
    Waiting {
        /// The pending file.
        path: PathBuf,
        /// The token.
        alias: TokenAlias,
    },
    /// The pending file cannot be understood.
    #[error("{}: contains no token that waits for its proof; remove it and log in again", .0.display())]
    Pending(PathBuf),
}

/// The fix for a folder that is mounted read-only.
const READ_ONLY: &str =
    "; the folder is mounted read-only: use --print and store the token where the volume comes from";

impl NotKept {
    fn at(path: &Path) -> impl Fn(io::Error) -> Self {
        move |source| {
            let folder = path.parent().unwrap_or(path).display();
            let kind = source.kind();
            let own = rustix::process::geteuid().as_raw();
            let owner_of = |path: &Path| path.metadata().ok().map(|found| found.uid());
            let foreign = owner_of(path).filter(|owner| *owner != own);
            let is_own_folder = path.parent().and_then(owner_of) == Some(own);
            let hint = if kind == ErrorKind::NotFound {
                format!("; create the folder {folder} with mode 0700")
            } else if let (ErrorKind::PermissionDenied, Some(owner)) = (kind, foreign) {
                format!(
                    "; it belongs to user {owner}, who ran a command before: run the command as that user, or remove it"
                )
            } else if kind == ErrorKind::PermissionDenied && is_own_folder {
                format!("; the mode of {folder} forbids it, or a sandbox: run chmod u+w {folder}")
            } else if kind == ErrorKind::PermissionDenied {
                format!("; run the command as the owner of {folder}")
            } else if kind == ErrorKind::ReadOnlyFilesystem {
                READ_ONLY.to_owned()
            } else {
                String::new()
            };
            Self::Unwritable { path: path.to_owned(), source, hint }
        }
    }
}

/// The lock of a token, which is released on drop (rule 4).
#[derive(Debug)]
pub struct Lock {
    /// Held for its lock.
    _file: File,
}

/// The content of a pending file.
#[derive(Serialize, Deserialize)]
struct Pending {
    access: Zeroizing<String>,
    refresh: Option<Zeroizing<String>>,
    record: Record,
}

impl Keeper {
    /// Returns the files of a token.
    #[must_use]
    pub fn of(source: &TokenSource) -> Self {
        let (token, refresh) = (source.file.clone(), source.origin.refresh_file.clone());
        let place = refresh.as_deref().unwrap_or(&token);
        let (pending, lock, aside) = (beside(place, ".pending"), beside(place, ".lock"), beside(&token, ".revoking"));
        Self { alias: source.alias, token, refresh, pending, lock, aside }
    }

    /// Checks that every file can be written and that the gate accepts its folder, before a person is asked for anything.
    ///
    /// # Errors
    /// [`NotKept`].
    pub fn check(&self) -> Result<(), NotKept> {
        for path in [Some(&self.token), self.refresh.as_ref(), Some(&self.pending)].into_iter().flatten() {
            if path.is_symlink() {
                return Err(NotKept::Link(path.clone()));
            }
            let place = ExternalFile::new(Purpose::Token(self.alias), path).check_place();
            place.map_err(|why| NotKept::Place { path: path.clone(), why })?;
            writing::check(path).map_err(NotKept::at(path))?;
        }
        Ok(())
    }

    /// Takes the lock (rule 4).
    ///
    /// # Errors
    /// [`NotKept`].
    pub fn lock(&self) -> Result<Lock, NotKept> {
        let mut options = OpenOptions::new();
        // A link could lead anywhere, for commands that root runs.
        let flags = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();
        let owner = self.owner(&self.lock);
        options.write(true).create(true).truncate(false).mode(0o600).custom_flags(flags);
        let file = options.open(&self.lock).map_err(NotKept::at(&self.lock))?;
        if let Some((user, group)) = owner {
            std::os::unix::fs::fchown(&file, Some(user), Some(group)).map_err(NotKept::at(&self.lock))?;
        }
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Lock { _file: file }),
            Err(Errno::WOULDBLOCK) => Err(NotKept::Busy(self.lock.clone())),
            Err(error) => Err(NotKept::at(&self.lock)(error.into())),
        }
    }

    /// Makes a received token durable (rule 1).
    ///
    /// # Errors
    /// [`NotKept`].
    pub fn keep(&self, issued: &Issued) -> Result<(), NotKept> {
        let refresh = issued.refresh.as_ref().filter(|_| self.refresh.is_some());
        let pending = Pending {
            access: text_of(&issued.access),
            refresh: refresh.map(|token| Zeroizing::new(token.text().to_owned())),
            record: issued.record.clone(),
        };
        let bytes = serde_json::to_vec(&pending).map(Zeroizing::new);
        let bytes = bytes.map_err(|error| NotKept::at(&self.pending)(error.into()))?;
        self.write(&self.pending, &bytes)
    }

    /// Returns the token that an earlier command has received and not installed.
    ///
    /// # Errors
    /// [`NotKept`].
    pub fn received(&self) -> Result<Option<Issued>, NotKept> {
        // Its guard is the one of a secret: nobody else may have put it there.
        let opened = match ExternalFile::new(Purpose::RefreshToken(self.alias), &self.pending).open() {
            Ok(file) => file,
            Err(Refusal::Missing(_)) => return Ok(None),
            Err(refusal) => return Err(NotKept::at(&self.pending)(refusal.into())),
        };
        let bytes = reading::read_from(opened, MOST).map(Zeroizing::new).map_err(NotKept::at(&self.pending))?;
        let not_one = || NotKept::Pending(self.pending.clone());
        let read: Pending = serde_json::from_slice(&bytes).map_err(|_| not_one())?;
        let access = Token::parse(read.access.as_bytes()).map_err(|_| not_one())?;
        let refresh = read.refresh.map(|text| RefreshToken::parse(text.as_bytes())).transpose();
        Ok(Some(Issued { access, refresh: refresh.map_err(|_| not_one())?, record: read.record }))
    }

    /// Checks that no token of an earlier command waits for its proof.
    ///
    /// # Errors
    /// [`NotKept`].
    pub fn check_none_waits(&self) -> Result<(), NotKept> {
        self.received()?.map_or(Ok(()), |_| Err(NotKept::Waiting { path: self.pending.clone(), alias: self.alias }))
    }

    /// Installs a proven token (rule 2).
    ///
    /// # Errors
    /// [`NotKept`].
    pub fn install(&self, issued: &Issued) -> Result<(), NotKept> {
        if let (Some(path), Some(refresh)) = (&self.refresh, &issued.refresh) {
            self.write(path, refresh.text().as_bytes())?;
        }
        let record = path_of(&self.token);
        let content = issued.record.content().map_err(|error| NotKept::at(&record)(error.into()))?;
        self.write(&record, &content)?;
        self.write(&self.token, text_of(&issued.access).as_bytes())?;
        self.discard()
    }

    /// Removes the refresh token of an earlier token, if there is one, and returns whether there was (rule 2).
    ///
    /// # Errors
    /// [`NotKept`].
    pub fn remove_refresh(&self) -> Result<bool, NotKept> {
        let Some(path) = self.refresh.as_deref().filter(|path| path.exists()) else { return Ok(false) };
        remove(path).map(|()| true)
    }

    /// Removes the pending file.
    ///
    /// # Errors
    /// [`NotKept`].
    pub fn discard(&self) -> Result<(), NotKept> {
        remove(&self.pending)
    }

    /// Returns the files that interrupted commands left, with the command that finishes each.
    #[must_use]
    pub fn unfinished(&self) -> Vec<String> {
        let (pending, aside) = (self.pending.display(), self.aside.display());
        let alias = self.alias;
        let found = [
            (
                &self.pending,
                format!(
                    "{pending} has a received token that is not proven yet; run `metrika-gate token login {alias}`, which proves it without another page"
                ),
            ),
            (
                &self.aside,
                format!(
                    "{aside} has a token whose revocation was interrupted; run `metrika-gate token revoke {alias}` again, which ends it"
                ),
            ),
        ];
        found.into_iter().filter(|(path, _)| path.exists()).map(|(_, words)| words).collect()
    }

    /// Sets the token aside (rule 5).
    ///
    /// # Errors
    /// [`NotKept`].
    pub fn set_aside(&self) -> Result<(), NotKept> {
        writing::rename(&self.token, &self.aside).map_err(NotKept::at(&self.token))
    }

    /// Puts the token that was set aside in its place again. Another one that is there by now stays.
    ///
    /// # Errors
    /// [`NotKept`].
    pub fn put_back(&self) -> Result<(), NotKept> {
        writing::rename_back(&self.aside, &self.token).map_err(NotKept::at(&self.token))
    }

    /// Returns the token that an interrupted command has set aside (rule 5).
    ///
    /// # Errors
    /// [`TokenFileError`].
    pub fn aside(&self) -> Result<Option<Token>, TokenFileError> {
        let row = ExternalFile::new(Purpose::Token(self.alias), &self.aside);
        match store::read_from(&row, self.alias, true) {
            Ok(token) => Ok(Some(token)),
            Err(TokenFileError::Missing { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Returns the file of the token that was set aside.
    #[must_use]
    pub fn aside_file(&self) -> &Path {
        &self.aside
    }

    /// Removes what belongs to a revoked token, which was set aside.
    ///
    /// # Errors
    /// [`NotKept`].
    pub fn remove(&self) -> Result<(), NotKept> {
        self.refresh.as_deref().map_or(Ok(()), remove)?;
        remove(&path_of(&self.token))?;
        self.remove_earlier()
    }

    /// Removes what earlier commands received or set aside; the token in its place stays.
    ///
    /// # Errors
    /// [`NotKept`].
    pub fn remove_earlier(&self) -> Result<(), NotKept> {
        self.discard()?;
        remove(&self.aside)
    }

    fn write(&self, path: &Path, bytes: &[u8]) -> Result<(), NotKept> {
        if path.is_symlink() {
            return Err(NotKept::Link(path.to_owned()));
        }
        writing::replace_as(path, bytes, self.owner(path)).map_err(NotKept::at(path))
    }

    /// The user and the group that get a file which root writes (rule 6: only root can give a file away).
    fn owner(&self, path: &Path) -> Option<(u32, u32)> {
        let is_root = rustix::process::geteuid().is_root();
        let folder = path.parent().unwrap_or(path);
        let owner = [path, self.token.as_path(), folder].into_iter().find_map(|path| path.metadata().ok());
        owner.filter(|_| is_root).map(|found| (found.uid(), found.gid()))
    }
}

fn remove(path: &Path) -> Result<(), NotKept> {
    writing::remove(path).map_err(NotKept::at(path))
}

/// Returns the text of a token, for its file.
#[must_use]
pub fn text_of(token: &Token) -> Zeroizing<String> {
    let field = token.authorization();
    let text = String::from_utf8_lossy(field.as_bytes().strip_prefix(SCHEME.as_bytes()).unwrap_or(field.as_bytes()));
    Zeroizing::new(text.into_owned())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use metrica::scope::ScopeSet;

    use super::*;
    use crate::token::record::name_of;

    fn keeper(refresh: bool) -> (tempfile::TempDir, Keeper) {
        let folder = tempfile::tempdir().unwrap();
        let origin = crate::config::Origin {
            refresh_file: refresh.then(|| folder.path().join("crm.refresh")),
            ..crate::config::Origin::default()
        };
        let file = folder.path().join("crm");
        let (alias, scopes) = (TokenAlias::new("crm"), ScopeSet::EMPTY);
        let keeper = Keeper::of(&TokenSource { alias, file, allow_mode: None, scopes, origin });
        (folder, keeper)
    }

    fn issued() -> Issued {
        let access = Token::parse(b"test-new-0123456789").unwrap();
        let (token, issued) = (name_of(&access), 1);
        let record =
            Record { token, issued, expires: None, owner: None, client_id: None, device_id: None, scopes: None };
        Issued { access, refresh: Some(RefreshToken::parse(b"1:refresh:new").unwrap()), record }
    }

    fn files(folder: &tempfile::TempDir) -> Vec<String> {
        let name = |entry: io::Result<std::fs::DirEntry>| entry.unwrap().file_name().into_string().unwrap();
        let mut names: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(name).collect();
        names.sort();
        names
    }

    #[test]
    fn rules_1_and_2_pending_first_and_then_in_its_place() {
        let (folder, keeper) = keeper(true);
        keeper.check().unwrap();
        assert_eq!(files(&folder), [""; 0], "a check leaves nothing");
        assert_eq!(keeper.received().unwrap(), None);
        keeper.keep(&issued()).unwrap();
        assert_eq!(files(&folder), ["crm.refresh.pending"]);
        assert_eq!(keeper.received().unwrap(), Some(issued()));
        keeper.install(&issued()).unwrap();
        assert_eq!(files(&folder), ["crm", "crm.json", "crm.refresh"]);
        for name in files(&folder) {
            let mode = folder.path().join(&name).metadata().unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{name}");
        }
        assert_eq!(std::fs::read_to_string(folder.path().join("crm")).unwrap(), "test-new-0123456789");
        assert_eq!(std::fs::read_to_string(folder.path().join("crm.refresh")).unwrap(), "1:refresh:new");
    }

    #[test]
    fn rule_5_a_revoked_token_is_set_aside_and_removed_last() {
        let (folder, keeper) = keeper(true);
        let all = ["crm", "crm.json", "crm.refresh"];
        keeper.install(&issued()).unwrap();
        assert_eq!(keeper.aside().unwrap(), None);
        keeper.set_aside().unwrap();
        assert_eq!(files(&folder), ["crm.json", "crm.refresh", "crm.revoking"]);
        assert_eq!(keeper.aside().unwrap(), Some(issued().access));
        assert!(keeper.unfinished().concat().contains("token revoke crm"));
        keeper.put_back().unwrap();
        assert_eq!(files(&folder), all);
        keeper.set_aside().unwrap();
        std::fs::write(folder.path().join("crm"), "another").unwrap();
        assert!(keeper.put_back().is_err(), "the other one stays");
        keeper.remove().unwrap();
        assert_eq!(files(&folder), ["crm"]);
        assert_eq!(std::fs::read_to_string(folder.path().join("crm")).unwrap(), "another");
    }

    #[test]
    fn rule_1_a_refresh_token_that_is_not_kept_is_nowhere() {
        let (folder, keeper) = keeper(false);
        keeper.keep(&issued()).unwrap();
        assert!(!std::fs::read_to_string(folder.path().join("crm.pending")).unwrap().contains("refresh:new"));
        keeper.install(&issued()).unwrap();
        assert_eq!(files(&folder), ["crm", "crm.json"]);
    }

    #[test]
    fn rule_3_a_pending_file_without_a_token_is_named() {
        let (folder, keeper) = keeper(true);
        for content in ["", "{}", "[]", "{\"access\":\"a b\",\"refresh\":null}"] {
            let pending = folder.path().join("crm.refresh.pending");
            std::fs::write(&pending, content).unwrap();
            std::fs::set_permissions(&pending, std::fs::Permissions::from_mode(0o600)).unwrap();
            let said = keeper.received().unwrap_err().to_string();
            assert!(said.contains("crm.refresh.pending: contains no token"), "{said}");
        }
    }

    #[test]
    fn rule_4_one_process_at_a_time() {
        let (_folder, keeper) = keeper(true);
        let lock = keeper.lock().unwrap();
        assert!(matches!(keeper.lock(), Err(NotKept::Busy(_))));
        drop(lock);
        keeper.lock().unwrap();
    }

    #[test]
    fn rule_6_a_link_is_not_replaced_and_a_missing_folder_is_named() {
        let (folder, keeper) = keeper(true);
        std::fs::write(folder.path().join("data"), "kept").unwrap();
        symlink("data", folder.path().join("crm")).unwrap();
        assert!(matches!(keeper.check(), Err(NotKept::Link(_))));
        assert!(matches!(keeper.install(&issued()), Err(NotKept::Link(_))));
        assert_eq!(std::fs::read_to_string(folder.path().join("data")).unwrap(), "kept");
        drop(folder);
        let said = keeper.check().unwrap_err().to_string();
        assert!(said.contains("create the folder") && said.contains("0700"), "{said}");
    }
}

//! Guards: the permissions that a file named by the configuration must have. Every such file is checked here, by the guard
//! in its row of [`crate::files`].
//!
//! 1. A file that decides about trust must not be writable or replaceable by everyone ([`super::reading`], rule 4).
//! 2. A secret may be readable only by its owner and its group, and writable only by its owner, who must be the user of
//!    this process or root. For a process of root, the owner of its folder may own it as well, because commands that root
//!    runs give files to that user. On a read-only mount, `allow_mode` permits more to group and others, and any owner: secrets of
//!    Docker and Compose are mounted like this, and their mode cannot be changed there.
//! 3. For a file that the process creates, the folder is checked: nobody else may replace the file.
//! 4. For a file that the process keeps for the next one, the folder must exist and be writable by this process, and by
//!    nobody else beyond rule 1. The file need not exist; if it does, rule 1 applies to it.

use std::fmt;
use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::Access;

use super::reading::{check_folder, check_writers, is_open_read_only, is_read_only, open};

/// The permissions that a file must have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Guard {
    /// The file decides about trust (rule 1).
    Trusted,
    /// The file holds a secret (rule 2).
    Secret {
        /// The permissions that group and others may have on a read-only mount.
        allow_mode: Option<u32>,
    },
    /// The process creates the file (rule 3).
    Made,
    /// The process keeps the file for the next one (rule 4).
    Kept,
}

/// The reason why a file is rejected.
#[derive(Debug)]
pub enum Refusal {
    /// The file does not exist.
    Missing(io::Error),
    /// The file cannot be read.
    Unreadable(io::Error),
    /// Everyone can write or replace the file (rules 1 and 3).
    Writable(io::Error),
    /// The mode or the owner is wrong (rules 2 and 4).
    Permissions {
        /// The problem.
        what: String,
        /// The fix.
        mend: String,
    },
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(error) | Self::Unreadable(error) | Self::Writable(error) => write!(f, "{error}"),
            Self::Permissions { what, mend } => write!(f, "it {what}; {mend}"),
        }
    }
}

impl From<Refusal> for io::Error {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Missing(error) | Refusal::Unreadable(error) | Refusal::Writable(error) => error,
            Refusal::Permissions { .. } => Self::new(io::ErrorKind::PermissionDenied, refusal.to_string()),
        }
    }
}

impl Guard {
    /// Opens the regular file at `path` if it meets the guard. `key` is the key of the configuration that fixes refer to.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn open(self, path: &Path, key: &str) -> Result<File, Refusal> {
        let (opened, metadata) = open(path).map_err(|error| self.not_opened(path, key, error))?;
        match self {
            Self::Trusted | Self::Kept => {}
            Self::Secret { allow_mode } => {
                let mount = if is_open_read_only(&opened) { Mount::ReadOnly } else { Mount::Writable };
                let folder_owner = path.parent().and_then(|folder| folder.metadata().ok()).map(|found| found.uid());
                let secret = Secret { path, key, allow_mode, mount, folder_owner };
                secret.check(&metadata, rustix::process::geteuid().as_raw())?;
            }
            Self::Made => return check_folder(path).map_err(Refusal::Writable).map(|()| opened),
        }
        // The mode of a secret is already checked; for secrets, this checks the folder.
        check_writers(path, &metadata).map_err(Refusal::Writable)?;
        Ok(opened)
    }

    /// Checks the file at `path` like [`Self::open`]; a file that the process creates need not exist.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn check(self, path: &Path, key: &str) -> Result<(), Refusal> {
        match self {
            Self::Trusted | Self::Secret { .. } => self.open(path, key).map(drop),
            Self::Made => check_folder(path).map_err(Refusal::Writable),
            Self::Kept => {
                check_own_folder(path)?;
                match self.open(path, key) {
                    Err(Refusal::Missing(_)) => check_folder(path).map_err(Refusal::Writable),
                    other => other.map(drop),
                }
            }
        }
    }

    fn not_opened(self, path: &Path, key: &str, error: io::Error) -> Refusal {
        if error.kind() == io::ErrorKind::NotFound {
            return Refusal::Missing(error);
        }
        let is_denied = error.kind() == io::ErrorKind::PermissionDenied;
        if matches!(self, Self::Secret { .. }) && is_denied && is_read_only(path) {
            let said = format!("{error}; {}", propose_mount_fix(key, None));
            return Refusal::Unreadable(io::Error::new(io::ErrorKind::PermissionDenied, said));
        }
        Refusal::Unreadable(error)
    }
}

/// Checks that the folder of `path` exists and that this process can create files in it (rule 4).
fn check_own_folder(path: &Path) -> Result<(), Refusal> {
    let folder = path.parent().unwrap_or(path);
    let found = folder.metadata().map_err(|error| {
        if error.kind() == io::ErrorKind::NotFound {
            return Refusal::Missing(io::Error::new(error.kind(), "its folder does not exist"));
        }
        Refusal::Unreadable(error)
    })?;
    let may_write = rustix::fs::access(folder, Access::WRITE_OK | Access::EXEC_OK).is_ok();
    if found.is_dir() && may_write && !is_read_only(folder) {
        return Ok(());
    }
    let (own, shown) = (rustix::process::geteuid().as_raw(), folder.display());
    Err(Refusal::Permissions {
        what: format!("is in a folder that user {own} cannot write to"),
        mend: format!("mount {shown} writable, or chown {own} {shown} and chmod 0700 it"),
    })
}

/// The kind of mount that a file is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mount {
    ReadOnly,
    Writable,
}

/// A file that rule 2 applies to.
struct Secret<'a> {
    path: &'a Path,
    key: &'a str,
    allow_mode: Option<u32>,
    mount: Mount,
    /// The user who owns the folder of the file.
    folder_owner: Option<u32>,
}

impl Secret<'_> {
    fn check(&self, metadata: &Metadata, own: u32) -> Result<(), Refusal> {
        self.check_mode(metadata.mode() & 0o7777, metadata.uid(), own)
    }

    /// Checks rule 2 for a process of user `own`.
    fn check_mode(&self, mode: u32, owner: u32, own: u32) -> Result<(), Refusal> {
        let is_given = own == 0 && self.folder_owner == Some(owner);
        let (open_to, is_foreign) = (mode & 0o037, owner != own && owner != 0 && !is_given);
        let allowed = self.allow_mode.filter(|_| self.mount == Mount::ReadOnly);
        if allowed.map_or(open_to == 0 && !is_foreign, |allowed| open_to & !allowed == 0) {
            return Ok(());
        }
        let path = self.path.display();
        let (mut what, command) = if open_to == 0 {
            (format!("belongs to user {owner}, who can change it"), format!("chown {own} {path}"))
        } else {
            let what = format!("has mode {mode:04o} and can be read by others or changed by its group");
            (what, format!("chmod 0600 {path}"))
        };
        let mend = match (self.mount, self.allow_mode) {
            (Mount::Writable, None) => command,
            (Mount::Writable, Some(_)) => {
                what.push_str(", and allow_mode applies to read-only mounts only");
                format!("mount it read-only, or {command}")
            }
            (Mount::ReadOnly, _) => propose_mount_fix(self.key, Some(mode)),
        };
        Err(Refusal::Permissions { what, mend })
    }
}

/// Returns the fix for a file on a read-only mount. `mode` is its mode, if the file can be opened.
fn propose_mount_fix(key: &str, mode: Option<u32>) -> String {
    let docker = match mode.map(|mode| mode & 0o777) {
        None => {
            format!("give the gate's user read permission on the source file, and set {key}.allow_mode to its mode")
        }
        Some(mode) if mode & 0o002 != 0 => "chmod o-w the source file".to_owned(),
        Some(mode) => format!("set {key}.allow_mode: \"{mode:04o}\""),
    };
    format!(
        "its mount is read-only, so its mode cannot be changed here: for a Kubernetes volume set defaultMode: 0440 and the pod's fsGroup; for a Docker or Compose secret {docker}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rule_2_allow_mode_counts_on_a_read_only_mount_alone() {
        let path = Path::new("/run/token");
        let check = |allow_mode, mode, owner, mount| {
            let secret = Secret { path, key: "tokens.t", allow_mode, mount, folder_owner: Some(8) };
            let checked = secret.check_mode(mode, owner, 7);
            checked.map_err(|refusal| refusal.to_string()).err().unwrap_or_default()
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
            (None, 0o444, 0, ReadOnly, "for a Docker or Compose secret set tokens.t.allow_mode: \"0444\""),
            (None, 0o600, 8, ReadOnly, "for a Docker or Compose secret set tokens.t.allow_mode: \"0600\""),
            (Some(0o440), 0o444, 0, ReadOnly, "for a Kubernetes volume set defaultMode: 0440 and the pod's fsGroup"),
            (Some(0o444), 0o466, 0, ReadOnly, "chmod o-w the source file"),
            (
                Some(0o444),
                0o444,
                0,
                Writable,
                "allow_mode applies to read-only mounts only; mount it read-only, or chmod",
            ),
            (
                Some(0o644),
                0o600,
                8,
                Writable,
                "allow_mode applies to read-only mounts only; mount it read-only, or chown",
            ),
            (None, 0o600, 8, Writable, "belongs to user 8, who can change it; chown 7 "),
        ] {
            let said = check(allow_mode, mode, owner, mount);
            assert!(said.contains(expected), "{allow_mode:?} {mode:o} {owner}: {said}");
        }
    }

    #[test]
    fn rule_2_root_reads_what_it_gave_to_the_owner_of_the_folder() {
        let check = |folder_owner, owner, own| {
            let path = Path::new("/run/token");
            let secret = Secret { path, key: "tokens.t", allow_mode: None, mount: Mount::Writable, folder_owner };
            secret.check_mode(0o600, owner, own).is_ok()
        };
        assert!(check(Some(8), 8, 0), "the gate's user, in its own folder");
        assert!(!check(Some(0), 8, 0) && !check(Some(9), 8, 0) && !check(None, 8, 0), "somebody else's file");
        assert!(!check(Some(8), 8, 7), "another user is not root");
    }

    #[test]
    fn each_guard_keeps_to_its_own_rule() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, "").unwrap();
        let set = |path: &Path, mode| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
        let secret = Guard::Secret { allow_mode: None };
        let taken = || [Guard::Trusted, secret, Guard::Made].map(|guard| guard.check(&file, "tokens.t").is_ok());
        for (mode, of_folder, expected) in [
            (0o600, 0o755, [true, true, true]),
            (0o644, 0o755, [true, false, true]),
            (0o602, 0o755, [false, false, true]),
            (0o600, 0o777, [false, false, false]),
        ] {
            set(&file, mode);
            set(folder.path(), of_folder);
            assert_eq!(taken(), expected, "{mode:o} in {of_folder:o}");
        }
        std::fs::remove_file(&file).unwrap();
        assert!(matches!(Guard::Trusted.check(&file, ""), Err(Refusal::Missing(_))));
    }
}

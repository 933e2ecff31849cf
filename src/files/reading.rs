//! Bounded reading of files that an operator names, and checks of their folders.
//!
//! 1. Opening does not block: a FIFO without a writer would block the process indefinitely.
//! 2. Only regular files are read: a device may be endless, and reading it may have side effects.
//! 3. Reading is bounded by a limit of the reader.
//! 4. A file that decides about permissions must not be in or below a folder that everyone can write, unless the folder is
//!    sticky like `/tmp`, where nobody can replace the file of another user. The mode does not matter on a read-only
//!    mount, which Kubernetes uses for volumes.

use std::ffi::OsString;
use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, StatVfsMountFlags};
use strict_http::number;

/// Opens the regular file at `path`. The metadata belong to the open file, so they describe what is read.
///
/// # Errors
/// The errors of open(2), and an error for a path that is not a regular file.
pub fn open(path: &Path) -> io::Result<(File, Metadata)> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::open(path, flags, Mode::empty())?);
    let metadata = file.metadata()?;
    if metadata.is_file() { Ok((file, metadata)) } else { Err(io::Error::other("it is not a regular file")) }
}

/// Reads an open file. Reads `most` + 1 bytes at most, so the caller can detect a longer file.
///
/// # Errors
/// The errors of read(2).
pub fn read_from(file: File, most: usize) -> io::Result<Vec<u8>> {
    let most = number::count(most).saturating_add(1);
    let mut bytes = Vec::new();
    file.take(most).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Checks the existing folders of `path` against rule 4, including the folders that symbolic links lead to.
///
/// # Errors
/// [`io::ErrorKind::PermissionDenied`], with the fix.
pub(super) fn check_folder(path: &Path) -> io::Result<()> {
    let mut named = std::path::absolute(path)?;
    // Linux follows the same number of links.
    for _ in 0..40 {
        named.ancestors().skip(1).try_for_each(check_one)?;
        let Ok(leads_to) = named.read_link() else { break };
        named = named.parent().map_or_else(|| leads_to.clone(), |folder| folder.join(&leads_to));
    }
    // A link in the middle of a path, or in the target of another link, can be replaced too.
    super::folders(path).iter().flat_map(|folder| folder.ancestors()).try_for_each(check_one)
}

/// Checks one folder against rule 4.
fn check_one(folder: &Path) -> io::Result<()> {
    let Ok(metadata) = folder.metadata() else { return Ok(()) };
    let mode = metadata.mode() & 0o7777;
    if mode & 0o1002 != 0o002 || is_read_only(folder) {
        return Ok(());
    }
    let folder = folder.display();
    let message = format!("the folder {folder} is writable by everyone (mode {mode:o}) and not sticky; chmod o-w it");
    Err(io::Error::new(io::ErrorKind::PermissionDenied, message))
}

/// Checks the file with `metadata` at `path` against rule 4: neither the file nor its folder may be writable by everyone.
///
/// # Errors
/// The errors of [`check_folder`].
pub(super) fn check_writers(path: &Path, metadata: &Metadata) -> io::Result<()> {
    let mode = metadata.mode() & 0o7777;
    if mode & 0o002 != 0 && !is_read_only(path) {
        let message = format!("it is writable by everyone (mode {mode:o}); chmod o-w it");
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, message));
    }
    // In a sticky folder everyone can create a file that does not exist yet.
    let (owner, own) = (metadata.uid(), rustix::process::geteuid().as_raw());
    if owner != own
        && owner != 0
        && !is_read_only(path)
        && let Some(open) = open_folder(path)
    {
        let open = open.display();
        let message = format!(
            "it belongs to user {owner}, and the folder {open} is writable by everyone, who could have put it there; if the gate runs as user {owner}, run the command as that user; otherwise chown {own} it, or move it out of {open}"
        );
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, message));
    }
    check_folder(path)
}

/// Returns the deepest folder in or below which `path` is, and which everyone can write.
fn open_folder(path: &Path) -> Option<PathBuf> {
    let is_open = |folder: &Path| folder.metadata().is_ok_and(|folder| folder.mode() & 0o002 != 0);
    let found = super::folders(path);
    let open = found.iter().flat_map(|folder| folder.ancestors()).filter(|folder| is_open(folder));
    open.max_by_key(|folder| folder.components().count()).map(Path::to_owned)
}

/// Whether `path` is on a read-only mount.
pub(super) fn is_read_only(path: &Path) -> bool {
    rustix::fs::statvfs(path).is_ok_and(|mount| mount.f_flag.contains(StatVfsMountFlags::RDONLY))
}

/// Whether an open file is on a read-only mount.
pub(super) fn is_open_read_only(file: &File) -> bool {
    rustix::fs::fstatvfs(file).is_ok_and(|mount| mount.f_flag.contains(StatVfsMountFlags::RDONLY))
}

/// Returns the path of a file beside the one at `path`.
#[must_use]
pub fn beside(path: &Path, end: &str) -> PathBuf {
    let mut name: OsString = path.as_os_str().to_owned();
    name.push(end);
    name.into()
}

/// Returns the path of the record of the token at `path`.
#[must_use]
pub fn record_of(path: &Path) -> PathBuf {
    beside(path, ".json")
}

/// Returns a path for a message; a relative one is shown with its base folder.
#[must_use]
pub fn shown(path: &Path) -> String {
    format!("{}{}", path.display(), relative_to(path))
}

/// Returns the base folder of a relative path, as an addition to a message.
#[must_use]
pub fn relative_to(path: &Path) -> String {
    let folder = if path.is_relative() { std::env::current_dir().ok() } else { None };
    folder.map_or_else(String::new, |folder| format!(" (relative to the working directory {})", folder.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_1_and_2_nothing_but_a_file_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let fifo = folder.path().join("fifo");
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        for path in [fifo.as_path(), folder.path(), Path::new("/dev/zero")] {
            let error = open(path).unwrap_err().to_string();
            assert_eq!(error, "it is not a regular file", "{}", path.display());
        }
        assert_eq!(open(&folder.path().join("none")).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn rule_3_no_more_is_read_than_shows_that_there_is_more() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), [b'x'; 100]).unwrap();
        let read = |most| read_from(open(file.path()).unwrap().0, most).unwrap().len();
        assert_eq!((read(10), read(100)), (11, 100));
    }

    #[test]
    fn rule_4_a_world_writable_file_or_folder_is_refused() {
        use std::os::unix::fs::{PermissionsExt, symlink};
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let set = |path: &Path, mode| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
        let check = |name: &str| check_writers(&at(name), &at(name).metadata().unwrap());
        for inner in ["real", "named"] {
            std::fs::create_dir(at(inner)).unwrap();
        }
        std::fs::write(at("real/file"), "").unwrap();
        symlink(at("real/file"), at("named/link")).unwrap();
        assert!(check("named/link").is_ok());
        for (changed, mode, is_right) in [
            ("named", 0o777, false),
            ("named", 0o1777, true),
            ("named", 0o770, true),
            ("real", 0o757, false),
            ("real", 0o1757, true),
            ("real/file", 0o602, false),
            ("real/file", 0o660, true),
            (".", 0o777, false),
            (".", 0o1777, true),
        ] {
            set(&at(changed), mode);
            let checked = check("named/link");
            assert_eq!(checked.is_ok(), is_right, "{changed} {mode:o}: {checked:?}");
            set(&at(changed), 0o755);
        }
        // A link between the first link and the file.
        std::fs::create_dir(at("between")).unwrap();
        symlink("../between/link", at("named/far")).unwrap();
        symlink("../real/file", at("between/link")).unwrap();
        assert!(check("named/far").is_ok());
        set(&at("between"), 0o777);
        assert!(check("named/far").is_err());
        // A link that the target of a link goes through.
        for inner in ["shared", "first"] {
            std::fs::create_dir(at(inner)).unwrap();
        }
        symlink(at("real"), at("shared/current")).unwrap();
        symlink(at("shared/current"), at("first/way")).unwrap();
        assert!(check("first/way/file").is_ok());
        set(&at("shared"), 0o777);
        assert!(check("first/way/file").is_err());
        let open = open_folder(&at("first/way/file"));
        assert_eq!(open.as_deref(), Some(at("shared").as_path()), "the deepest one that is open");
        set(&at("shared"), 0o755);
        let temporary = std::env::temp_dir();
        assert_eq!(open_folder(&at("first/way/file")), Some(temporary), "the folder of temporary files is open");
        // Nobody can write to a missing folder.
        assert!(check_folder(&at("none/file")).is_ok());
        assert!(is_read_only(Path::new("/proc/self/stat")) || !is_read_only(&at("real")));
    }
}

//! Files that an operator names: whatever stands there, reading it ends.
//!
//! 1. Opening does not wait: a FIFO that nobody writes to would hold up the process for ever.
//! 2. What is no regular file is not read: a device may have no end, or do something when it is read.
//! 3. No more is read than the reader says.
//! 4. What decides who may do what stands in no folder that everyone can write, nor below one, unless that is sticky, as
//!    `/tmp`: there nobody can replace the file of another. On a mount that is read-only nobody can, whatever the mode says: so Kubernetes
//!    mounts its volumes.

use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{Mode, OFlags, StatVfsMountFlags};

pub mod guard;

/// Opens the regular file at `path`. What the metadata are of is what is read: the open file, not its name.
///
/// # Errors
/// As open(2), and for what is no regular file.
pub fn open(path: &Path) -> io::Result<(File, Metadata)> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::open(path, flags, Mode::empty())?);
    let metadata = file.metadata()?;
    if metadata.is_file() { Ok((file, metadata)) } else { Err(io::Error::other("it is not a regular file")) }
}

/// Reads an open file; of one beyond `most` bytes no more than shows that it is.
///
/// # Errors
/// As read(2).
pub fn read_from(file: File, most: usize) -> io::Result<Vec<u8>> {
    let most = u64::try_from(most).unwrap_or(u64::MAX).saturating_add(1);
    let mut bytes = Vec::new();
    file.take(most).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Holds the folders of `path` to rule 4, where they are there; of symbolic links, also those that they lead to.
///
/// # Errors
/// [`io::ErrorKind::PermissionDenied`], with what would be right.
fn check_folder(path: &Path) -> io::Result<()> {
    let mut named = std::path::absolute(path)?;
    // As many links as Linux follows.
    for _ in 0..40 {
        named.ancestors().skip(1).try_for_each(check_one)?;
        let Ok(leads_to) = named.read_link() else { break };
        named = named.parent().map_or_else(|| leads_to.clone(), |folder| folder.join(&leads_to));
    }
    path.canonicalize().map_or(Ok(()), |real| real.ancestors().skip(1).try_for_each(check_one))
}

/// The same of one folder.
fn check_one(folder: &Path) -> io::Result<()> {
    let Ok(metadata) = folder.metadata() else { return Ok(()) };
    let mode = metadata.mode() & 0o7777;
    if mode & 0o1002 != 0o002 || is_read_only(folder) {
        return Ok(());
    }
    let folder = folder.display();
    let message =
        format!("the folder {folder} can be written by everyone (mode {mode:o}) and is not sticky; chmod o-w it");
    Err(io::Error::new(io::ErrorKind::PermissionDenied, message))
}

/// Holds a file of these metadata at `path` to rule 4: neither it nor its folder can be written by everyone.
///
/// # Errors
/// As [`check_folder`].
fn check_writers(path: &Path, metadata: &Metadata) -> io::Result<()> {
    let mode = metadata.mode() & 0o7777;
    if mode & 0o002 != 0 && !is_read_only(path) {
        let message = format!("it can be written by everyone (mode {mode:o}); chmod o-w it");
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, message));
    }
    // In a sticky folder everyone can make a file where none is.
    let (owner, own) = (metadata.uid(), rustix::process::geteuid().as_raw());
    if owner != own && owner != 0 && !is_read_only(path) && is_in_an_open_folder(path) {
        let message = format!("it belongs to user {owner}, in a folder that everyone can write; chown {own} it");
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, message));
    }
    check_folder(path)
}

fn is_in_an_open_folder(path: &Path) -> bool {
    let folder = path.parent().and_then(|folder| folder.metadata().ok());
    folder.is_some_and(|folder| folder.mode() & 0o002 != 0)
}

/// Whether nobody can write through the mount that `path` is on.
fn is_read_only(path: &Path) -> bool {
    rustix::fs::statvfs(path).is_ok_and(|mount| mount.f_flag.contains(StatVfsMountFlags::RDONLY))
}

/// The same of an open file.
fn is_open_read_only(file: &File) -> bool {
    rustix::fs::fstatvfs(file).is_ok_and(|mount| mount.f_flag.contains(StatVfsMountFlags::RDONLY))
}

/// A path for a message: a relative one with the folder that it is relative to.
#[must_use]
pub fn shown(path: &Path) -> String {
    format!("{}{}", path.display(), relative_to(path))
}

/// The folder that a relative path is relative to, as an addition to a message.
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
    fn rule_4_what_everyone_can_write_is_refused() {
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
        // A link on the way from one to the other.
        std::fs::create_dir(at("between")).unwrap();
        symlink("../between/link", at("named/far")).unwrap();
        symlink("../real/file", at("between/link")).unwrap();
        assert!(check("named/far").is_ok());
        set(&at("between"), 0o777);
        assert!(check("named/far").is_err());
        // What is not there can be written by nobody.
        assert!(check_folder(&at("none/file")).is_ok());
        assert!(is_read_only(Path::new("/proc/self/stat")) || !is_read_only(&at("real")));
    }
}

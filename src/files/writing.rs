//! Replacing a file as a whole.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;
use rustix::io::Errno;

/// Puts `bytes` in the place of the file at `path`, which only its owner can read. The file is written beside the old one,
/// synced and renamed, so a reader sees either the old content or the new one, also after a crash.
///
/// # Errors
/// The errors of open(2), write(2), fsync(2) and rename(2).
pub(super) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    replace_with(path, bytes, |_| Ok(()))
}

/// Like the replacement of a file of this process, for a file that belongs to the user and group in `owner`.
///
/// # Errors
/// The errors of open(2), fchown(2), write(2), fsync(2) and rename(2).
pub fn replace_as(path: &Path, bytes: &[u8], owner: Option<(u32, u32)>) -> io::Result<()> {
    replace_with(path, bytes, |new| match owner {
        Some((user, group)) => std::os::unix::fs::fchown(new, Some(user), Some(group)),
        None => Ok(()),
    })
}

/// Like replacing a file, but the new file has the mode, the owner and the group of the old one, if there is one.
///
/// # Errors
/// As for replacing, and those of fchmod(2) and fchown(2).
pub fn replace_like_before(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let old = match path.metadata() {
        Ok(old) => old,
        Err(error) if error.kind() == ErrorKind::NotFound => return replace(path, bytes),
        Err(error) => return Err(error),
    };
    replace_with(path, bytes, like(&old))
}

/// The reason why files that belong together were not replaced.
#[derive(Debug, thiserror::Error)]
pub enum NotReplaced {
    /// The old files are unchanged.
    #[error("cannot replace {}", path.display())]
    Unchanged {
        /// The file that could not be replaced.
        path: PathBuf,
        /// The error.
        source: io::Error,
    },
    /// The first file is the new one, and the others lie complete beside their places ([`staged`]).
    #[error("cannot replace {}: the new one is {}", path.display(), staged(path).display())]
    Begun {
        /// The file that could not be replaced.
        path: PathBuf,
        /// The error.
        source: io::Error,
    },
}

/// Like [`replace_like_before`], for files that belong together. Every new file is complete at its [`staged`] path before the
/// first one takes its place, and that rename decides: before it, all old files are in their places; after it, also after the end
/// of the process, each new file is in its place or at its staged path, where a reader of the first one has to look for it.
///
/// # Errors
/// [`NotReplaced`].
pub fn replace_together(files: &[(&Path, &[u8])]) -> Result<(), NotReplaced> {
    for (position, (path, bytes)) in files.iter().enumerate() {
        let written = match path.metadata() {
            Ok(old) => stage(path, bytes, like(&old)),
            Err(error) if error.kind() == ErrorKind::NotFound => stage(path, bytes, |_| Ok(())),
            Err(error) => Err(error),
        };
        written.map_err(|source| unchanged(path, source, files.iter().take(position)))?;
    }
    for (position, (path, _)) in files.iter().enumerate() {
        let renamed = std::fs::rename(staged(path), path);
        renamed.map_err(|source| match position {
            0 => unchanged(path, source, files.iter()),
            _ => NotReplaced::Begun { path: (*path).to_owned(), source },
        })?;
        sync_folder(path).map_err(|source| NotReplaced::Begun { path: (*path).to_owned(), source })?;
    }
    Ok(())
}

/// Removes the new files again.
fn unchanged<'a>(
    path: &Path,
    source: io::Error,
    mut made: impl Iterator<Item = &'a (&'a Path, &'a [u8])>,
) -> NotReplaced {
    let removed = made.try_for_each(|(path, _)| std::fs::remove_file(staged(path)));
    let source = match removed {
        Ok(()) => source,
        Err(error) => io::Error::new(source.kind(), format!("{source}; the new file stays beside it: {error}")),
    };
    NotReplaced::Unchanged { path: path.to_owned(), source }
}

/// Returns the path of the new file while it is written and until it takes its place.
#[must_use]
pub fn staged(path: &Path) -> PathBuf {
    beside(path, NEW)
}

/// The reason why a folder is not locked.
#[derive(Debug, thiserror::Error)]
pub enum NotLocked {
    /// Another process has the lock.
    #[error("another process changes the files in {} now", .0.display())]
    Busy(PathBuf),
    /// The folder cannot be locked.
    #[error("cannot lock {}; put it on a file system with locks (flock)", path.display())]
    Failed {
        /// The folder.
        path: PathBuf,
        /// The error.
        source: io::Error,
    },
}

/// Locks a folder for the process that replaces files in it. The lock leaves no file behind, and processes of different users
/// share it; it ends with the returned value.
///
/// # Errors
/// [`NotLocked`].
pub fn lock_folder(folder: &Path) -> Result<File, NotLocked> {
    let failed = |source| NotLocked::Failed { path: folder.to_owned(), source };
    let opened = File::open(folder).map_err(failed)?;
    match rustix::fs::flock(&opened, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(opened),
        Err(Errno::WOULDBLOCK) => Err(NotLocked::Busy(folder.to_owned())),
        Err(error) => Err(failed(error.into())),
    }
}

/// Gives a new file the mode, the owner and the group of the old one.
fn like(old: &Metadata) -> impl FnOnce(&File) -> io::Result<()> + use<> {
    let (user, group, permissions) = (old.uid(), old.gid(), old.permissions());
    move |new| {
        let made = new.metadata()?;
        if (made.uid(), made.gid()) != (user, group) {
            std::os::unix::fs::fchown(new, Some(user), Some(group))?;
        }
        new.set_permissions(permissions)
    }
}

/// Checks that a file can be put in the place of the one at `path`, and leaves nothing behind.
///
/// # Errors
/// The errors of open(2) and unlink(2).
pub fn check(path: &Path) -> io::Result<()> {
    // Another process may be about to rename the new file, and another may check too.
    let tried = beside(path, ".check");
    drop(create(&tried)?);
    match std::fs::remove_file(tried) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Renames a file within its folder. A crash afterwards does not undo it.
///
/// # Errors
/// The errors of rename(2) and fsync(2).
pub fn rename(from: &Path, to: &Path) -> io::Result<()> {
    std::fs::rename(from, to)?;
    sync_folder(to)
}

/// Gives a file its old name again, if no other file has it by now.
///
/// # Errors
/// The errors of link(2), unlink(2) and fsync(2).
pub fn rename_back(from: &Path, to: &Path) -> io::Result<()> {
    std::fs::hard_link(from, to)?;
    remove(from)
}

/// Removes a file, if there is one. A crash afterwards does not undo it.
///
/// # Errors
/// The errors of unlink(2) and fsync(2).
pub fn remove(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(()) => sync_folder(path),
    }
}

fn sync_folder(path: &Path) -> io::Result<()> {
    // A relative path without a folder has an empty parent.
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or_else(|| Path::new(".")))?.sync_all()
}

/// The suffix of the new file while it is written.
const NEW: &str = ".new";

/// The path of a file beside this one.
fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut beside = path.as_os_str().to_owned();
    beside.push(suffix);
    beside.into()
}

/// Creates the new file.
fn create(beside: &Path) -> io::Result<File> {
    // A process that was killed may have left one, which may be a link by now.
    match std::fs::remove_file(beside) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(beside)
}

fn replace_with(path: &Path, bytes: &[u8], prepare: impl FnOnce(&File) -> io::Result<()>) -> io::Result<()> {
    stage(path, bytes, prepare)?;
    put_in_place(path)
}

/// Writes the new file beside the old one.
fn stage(path: &Path, bytes: &[u8], prepare: impl FnOnce(&File) -> io::Result<()>) -> io::Result<()> {
    let mut file = create(&staged(path))?;
    prepare(&file)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn put_in_place(path: &Path) -> io::Result<()> {
    rename(&staged(path), path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn a_file_is_replaced_as_a_whole_and_is_private() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::write(at("victim"), "untouched").unwrap();
        // What lies beside it is not followed, and what was readable by others is not any more.
        symlink(at("victim"), at("counts.new")).unwrap();
        std::fs::write(at("counts"), "old").unwrap();
        let mut reader = File::open(at("counts")).unwrap();
        replace(&at("counts"), b"new").unwrap();
        assert_eq!(std::fs::read(at("counts")).unwrap(), b"new");
        assert_eq!(at("counts").metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read(at("victim")).unwrap(), b"untouched");
        let mut before = String::new();
        io::Read::read_to_string(&mut reader, &mut before).unwrap();
        assert_eq!(before, "old", "who reads the old one reads it to its end");
        assert!(!at("counts.new").exists());
    }

    /// A command checks before it takes the lock that the writer holds.
    #[test]
    fn a_check_leaves_the_new_file_of_another_process() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::write(at("counts.new"), "staged").unwrap();
        check(&at("counts")).unwrap();
        assert_eq!(std::fs::read(at("counts.new")).unwrap(), b"staged");
        assert_eq!(folder.path().read_dir().unwrap().count(), 1, "nothing is left behind");
    }

    #[test]
    fn files_that_belong_together_are_replaced_together_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let [one, two] = ["one", "two"].map(at);
        let read = |names: [&str; 2]| names.map(|name| std::fs::read_to_string(at(name)).unwrap());
        let replace = || replace_together(&[(&one, b"new"), (&two, b"new")]);
        for path in [&one, &two] {
            std::fs::write(path, "old").unwrap();
        }
        // One cannot be written.
        std::fs::create_dir(at("two.new")).unwrap();
        let NotReplaced::Unchanged { path, .. } = replace().unwrap_err() else { panic!("unchanged") };
        assert_eq!((path, read(["one", "two"])), (two.clone(), ["old", "old"].map(str::to_owned)));
        assert!(!at("one.new").exists(), "nothing is left behind");
        std::fs::remove_dir(at("two.new")).unwrap();
        // The first rename fails.
        std::fs::rename(&one, at("aside")).unwrap();
        std::fs::create_dir(&one).unwrap();
        let NotReplaced::Unchanged { path, .. } = replace().unwrap_err() else { panic!("unchanged") };
        assert_eq!((path, read(["aside", "two"])), (one.clone(), ["old", "old"].map(str::to_owned)));
        assert!(!at("one.new").exists() && !at("two.new").exists(), "nothing is left behind");
        std::fs::remove_dir(&one).unwrap();
        std::fs::rename(at("aside"), &one).unwrap();
        // The second one fails: the new files are complete, and one is beside its place.
        std::fs::remove_file(&two).unwrap();
        std::fs::create_dir(&two).unwrap();
        let NotReplaced::Begun { path, .. } = replace().unwrap_err() else { panic!("begun") };
        assert_eq!((path, read(["one", "two.new"])), (two.clone(), ["new", "new"].map(str::to_owned)));
        std::fs::remove_dir(&two).unwrap();
        replace().unwrap();
        assert_eq!(read(["one", "two"]), ["new", "new"].map(str::to_owned));
        assert!(!at("one.new").exists() && !at("two.new").exists(), "nothing is left behind");
    }

    #[test]
    fn a_folder_has_one_writer_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let held = lock_folder(folder.path()).unwrap();
        assert!(matches!(lock_folder(folder.path()), Err(NotLocked::Busy(path)) if path == folder.path()));
        drop(held);
        drop(lock_folder(folder.path()).unwrap());
        assert!(matches!(lock_folder(&folder.path().join("none")), Err(NotLocked::Failed { .. })));
    }
}

//! Replacing a file as a whole.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

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

/// Like [`replace_like_before`], for files that belong together: every new file is complete before the first one takes its
/// place, so an error leaves all old files, and only the end of the process between two renames leaves a mixture.
///
/// # Errors
/// The path that cannot be replaced, and the errors of [`replace_like_before`].
pub fn replace_together(files: &[(&Path, &[u8])]) -> Result<(), (PathBuf, io::Error)> {
    let in_place = |path: &Path, error| (path.to_owned(), error);
    for (position, (path, bytes)) in files.iter().enumerate() {
        let staged = match path.metadata() {
            Ok(old) => stage(path, bytes, like(&old)),
            Err(error) if error.kind() == ErrorKind::NotFound => stage(path, bytes, |_| Ok(())),
            Err(error) => Err(error),
        };
        if let Err(error) = staged {
            for (path, _) in files.iter().take(position) {
                std::fs::remove_file(beside(path, NEW)).map_err(|error| in_place(path, error))?;
            }
            return Err(in_place(path, error));
        }
    }
    for (path, _) in files {
        put_in_place(path).map_err(|error| in_place(path, error))?;
    }
    Ok(())
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
    let mut file = create(&beside(path, NEW))?;
    prepare(&file)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn put_in_place(path: &Path) -> io::Result<()> {
    rename(&beside(path, NEW), path)
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
        let [one, two] = ["one", "two"].map(|name| folder.path().join(name));
        let read = || [&one, &two].map(|path| std::fs::read_to_string(path).unwrap());
        for path in [&one, &two] {
            std::fs::write(path, "old").unwrap();
        }
        let obstacle = folder.path().join("two.new");
        std::fs::create_dir(&obstacle).unwrap();
        let (path, _) = replace_together(&[(&one, b"new"), (&two, b"new")]).unwrap_err();
        assert_eq!((path, read()), (two.clone(), ["old", "old"].map(str::to_owned)));
        assert!(!folder.path().join("one.new").exists(), "nothing is left behind");
        std::fs::remove_dir(&obstacle).unwrap();
        replace_together(&[(&one, b"new"), (&two, b"new")]).unwrap();
        assert_eq!(read(), ["new", "new"].map(str::to_owned));
    }
}

//! Watches folders for changes.
//!
//! A watch on a file itself is lost when another file is renamed over it, or when the link to it is swapped. Folders are
//! therefore watched, and the files in them are read to find the change.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::Duration;

use notify::event::{AccessKind, AccessMode, ModifyKind};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;

use super::LOOK;

/// The watched folders.
pub struct Folders {
    watcher: Option<RecommendedWatcher>,
    /// The path of each watch by device and inode: two paths to one folder share a watch, which must not be removed twice.
    watched: BTreeMap<(u64, u64), PathBuf>,
    changes: mpsc::UnboundedReceiver<Vec<PathBuf>>,
}

/// The time in which several notifications count as one change.
const TOGETHER: Duration = Duration::from_millis(50);

impl Folders {
    /// Creates a watcher without folders.
    #[must_use]
    pub fn new() -> Self {
        let (token_use, changes) = mpsc::unbounded_channel();
        let watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
            // Reading a file is an event too; reacting to it would never end.
            let of_reading = |event: &Event| matches!(event.kind, EventKind::Access(kind) if kind != AccessKind::Close(AccessMode::Write));
            let went =
                |event: &Event| matches!(event.kind, EventKind::Remove(_) | EventKind::Modify(ModifyKind::Name(_)));
            if !event.as_ref().is_ok_and(of_reading) {
                let _ = token_use.send(event.ok().filter(went).map_or_else(Vec::new, |event| event.paths));
            }
        });
        let watcher =
            watcher.inspect_err(|error| tracing::warn!(%error, "cannot watch folders; checking files every {LOOK:?}"));
        Self { watcher: watcher.ok(), watched: BTreeMap::new(), changes }
    }

    /// Watches exactly `folders`. Returns whether all of them can be watched; a folder that does not exist is tried again
    /// at the next call.
    pub fn watch(&mut self, folders: BTreeSet<PathBuf>) -> bool {
        let Some(watcher) = &mut self.watcher else { return false };
        let (mut all, mut now) = (true, BTreeMap::new());
        for folder in folders {
            match folder.metadata() {
                Ok(found) => drop(now.insert((found.dev(), found.ino()), folder)),
                Err(_) => all = false,
            }
        }
        self.watched.retain(|id, folder| {
            let is_kept = now.contains_key(id);
            if !is_kept {
                // Fails if the folder was removed.
                let _ = watcher.unwatch(folder);
            }
            is_kept
        });
        for (id, folder) in now {
            if let Entry::Vacant(place) = self.watched.entry(id) {
                match watcher.watch(&folder, RecursiveMode::NonRecursive) {
                    Ok(()) => drop(place.insert(folder)),
                    Err(_) => all = false,
                }
            }
        }
        all
    }

    /// Waits for a change and the notifications that belong to it. Returns `None` if folders cannot be watched.
    pub async fn changed(&mut self) -> Option<()> {
        let gone = self.changes.recv().await?;
        self.forget(&gone);
        tokio::time::sleep(TOGETHER).await;
        while let Ok(gone) = self.changes.try_recv() {
            self.forget(&gone);
        }
        Some(())
    }

    /// Removes the watches of removed folders: a new folder can have the inode of the old one.
    fn forget(&mut self, gone: &[PathBuf]) {
        let Some(watcher) = &mut self.watcher else { return };
        self.watched.retain(|_, folder| {
            let is_there = !gone.contains(folder);
            if !is_there {
                let _ = watcher.unwatch(folder);
            }
            is_there
        });
    }
}

impl Default for Folders {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;

    /// Whether something changed in a second.
    async fn sees(folders: &mut Folders) -> bool {
        timeout(Duration::from_secs(1), folders.changed()).await.is_ok_and(|changed| changed.is_some())
    }

    #[test]
    fn a_folder_that_is_made_again_with_the_number_of_the_one_that_is_gone_is_watched_again() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("folder");
        std::fs::create_dir(&folder).unwrap();
        let only = || BTreeSet::from([folder.clone()]);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let mut folders = Folders::new();
            assert!(folders.watch(only()));
            std::fs::write(folder.join("file"), "").unwrap();
            assert!(sees(&mut folders).await);
            std::fs::remove_dir_all(&folder).unwrap();
            std::fs::create_dir(&folder).unwrap();
            // Whether a file system gives the same number again is its own affair.
            let found = folder.metadata().unwrap();
            folders.watched = BTreeMap::from([((found.dev(), found.ino()), folder.clone())]);
            while sees(&mut folders).await {}
            assert!(folders.watch(only()));
            std::fs::write(folder.join("file"), "").unwrap();
            assert!(sees(&mut folders).await);
        });
    }
}

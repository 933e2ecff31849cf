//! Sees changes in folders.
//!
//! A file that is watched itself is seen once and never again, when it is replaced by renaming another over it or by
//! swapping the link that leads to it; so folders are watched, and what changed in them is found by reading.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::Duration;

use notify::event::{AccessKind, AccessMode};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;

use super::LOOK;

/// Sees changes in folders.
pub struct Folders {
    watcher: Option<RecommendedWatcher>,
    /// By path, which folder it was then: one that is removed and made again is another.
    watched: BTreeMap<PathBuf, (u64, u64)>,
    changes: mpsc::UnboundedReceiver<()>,
}

/// A change is often several; they are taken together.
const TOGETHER: Duration = Duration::from_millis(50);

impl Folders {
    /// Watches nothing yet.
    #[must_use]
    pub fn new() -> Self {
        let (sender, changes) = mpsc::unbounded_channel();
        let watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
            // Reading a file is an event too, and would be one for ever.
            let of_reading = |event: &Event| matches!(event.kind, EventKind::Access(kind) if kind != AccessKind::Close(AccessMode::Write));
            if !event.as_ref().is_ok_and(of_reading) {
                let _ = sender.send(());
            }
        });
        let watcher = watcher
            .inspect_err(|error| tracing::warn!(%error, "folders cannot be watched; files are read every {LOOK:?}"));
        Self { watcher: watcher.ok(), watched: BTreeMap::new(), changes }
    }

    /// Watches `folders` and no others; whether all of them can be. One that does not exist is tried again at the next
    /// call.
    pub fn watch(&mut self, folders: BTreeSet<PathBuf>) -> bool {
        let Some(watcher) = &mut self.watcher else { return false };
        let wanted = folders.len();
        let now = folders.into_iter().filter_map(|folder| {
            let found = folder.metadata().ok()?;
            Some((folder, (found.dev(), found.ino())))
        });
        let now: BTreeMap<_, _> = now.collect();
        for folder in self.watched.iter().filter(|(folder, id)| now.get(*folder) != Some(id)).map(|(folder, _)| folder)
        {
            // It may be gone.
            let _ = watcher.unwatch(folder);
        }
        let before = std::mem::take(&mut self.watched);
        let watching = |(folder, id): &(PathBuf, (u64, u64))| {
            before.get(folder) == Some(id) || watcher.watch(folder, RecursiveMode::NonRecursive).is_ok()
        };
        self.watched = now.into_iter().filter(watching).collect();
        self.watched.len() == wanted
    }

    /// Waits until something changed, and what belongs to it.
    pub async fn changed(&mut self) {
        if self.changes.recv().await.is_none() {
            std::future::pending::<()>().await;
        }
        tokio::time::sleep(TOGETHER).await;
        while self.changes.try_recv().is_ok() {}
    }
}

impl Default for Folders {
    fn default() -> Self {
        Self::new()
    }
}

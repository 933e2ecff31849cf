//! Sees changes in folders.
//!
//! A file that is watched itself is seen once and never again, when it is replaced by renaming another over it or by
//! swapping the link that leads to it; so folders are watched, and what changed in them is found by reading.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use notify::event::{AccessKind, AccessMode};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;

use super::LOOK;

/// Sees changes in folders.
pub struct Folders {
    watcher: Option<RecommendedWatcher>,
    watched: BTreeSet<PathBuf>,
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
        Self { watcher: watcher.ok(), watched: BTreeSet::new(), changes }
    }

    /// Watches `folders` and no others. One that does not exist is tried again at the next call.
    pub fn watch(&mut self, folders: BTreeSet<PathBuf>) {
        let Some(watcher) = &mut self.watcher else { return };
        for folder in self.watched.difference(&folders) {
            // It may be gone.
            let _ = watcher.unwatch(folder);
        }
        let watching = |folder: &PathBuf| {
            self.watched.contains(folder) || watcher.watch(folder, RecursiveMode::NonRecursive).is_ok()
        };
        self.watched = folders.into_iter().filter(watching).collect();
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

//! A signal between the threads of a test.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::gate::until;

/// Something that happens once.
#[derive(Debug, Clone, Default)]
pub struct Signal(Arc<AtomicBool>);

impl Signal {
    /// It happened.
    pub fn give(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    /// Whether it happened.
    pub fn is_given(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }

    /// Waits until it happened.
    pub fn wait(&self, what: &str) {
        until(what, || self.is_given());
    }
}

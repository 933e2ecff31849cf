//! Protections of the process that the kernel offers without a sandbox.

use rustix::process::{DumpableBehavior, Resource, Rlimit};

/// Disables core dumps, which could hold tokens, and memory access by other processes of the user; forbids new
/// privileges; raises the limit of descriptors.
pub(super) fn harden() {
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    // Errors are ignored: the gate also runs on a system without these features.
    let _ = rustix::process::setrlimit(Resource::Core, none);
    let _ = rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable);
    let _ = rustix::thread::set_no_new_privs(true);
    crate::files::descriptors::raise();
}

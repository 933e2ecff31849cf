//! The process around the request path: its workers, the sandbox, readiness and the admin listener.

pub mod admin;
pub mod kept_counts;
pub mod manager;
pub mod readiness;
mod recheck;
pub mod sandbox;
mod sockets;
pub mod store;
pub mod workers;

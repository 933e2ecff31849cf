//! The process around the request path: its workers, the sandbox, readiness and the admin listener.

pub mod admin;
mod history;
pub mod kept_counts;
pub mod manager;
mod page_callers;
mod page_parts;
mod page_plots;
mod page_state;
pub mod readiness;
mod recheck;
pub mod sandbox;
mod sockets;
pub mod status_page;
pub mod store;
pub mod workers;

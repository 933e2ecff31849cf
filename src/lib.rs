//! metrika-gate.
pub mod caller;
pub mod config;
pub mod operation;
pub mod policy;
pub mod rejection;
pub mod scope;
pub mod symbol;
pub mod target;
pub mod token;
pub mod verdict;

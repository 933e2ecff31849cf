//! The rows that are known to fail, each with its fault. A row that passes must be removed.
//!
//! A word alone is the reason that is given; `first` and `later` precede one that is given before the right one is
//! known, or after it.

/// The cause of a row, and its fault.
pub const KNOWN: &[(&str, &str)] = &[];

//! The rows that are known to fail, each with what is wrong with it. A row that holds has to be taken out.
//!
//! A word alone is the reason that is given; `first` and `later` stand before one that is given before the right one is
//! known, or after it.

/// What a row says is so, and what is wrong.
pub const KNOWN: &[(&str, &str)] = &[];

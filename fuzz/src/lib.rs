//! What fuzz targets compare the gate with: readers written apart from its own, and a gate to drive.

pub mod answers;
pub mod asked;
pub mod connection;
pub mod driver;
pub mod driver_http2;
pub mod forms;
pub mod frames;
pub mod hpack;
pub mod huffman;
pub mod readings;
pub mod requests;
pub mod script;
pub mod streams;
pub mod upstream;
pub mod variants;

// The instrumentation of a test of this crate needs it.
#[cfg(test)]
use libfuzzer_sys as _;

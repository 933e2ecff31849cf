//! The integration tests: one binary, over real sockets, against the real program.

mod harness;
mod transcript;

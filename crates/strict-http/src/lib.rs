//! Strict HTTP readers: a request that two parties could interpret differently is rejected (RFC 9112, section 11.2).
//!
//! The crate performs no I/O and has no async code: a reader receives the bytes that have arrived and returns their
//! meaning, or the rule that they break.
//!
//! | module | reads |
//! |---|---|
//! | [`request_reader`] | the requests of an HTTP/1.1 connection: where each ends and the next begins |
//! | [`grammar`] | single lines: request line, field line, chunk-size line |
//! | [`target`] | the request target: one spelling, no ambiguity |
//! | [`connect`] | the header of a CONNECT request |
//! | [`host`] | the `Host` field, or the authority of a target |
//! | [`list_field`] | fields whose value is a list |
//! | [`length`] | the framing of a response |
//! | [`chunks`] | a chunked response body |
//! | [`frame`] | HTTP/2 frame headers |
//! | [`flood_guard`] | the frames of an HTTP/2 connection, to detect floods |
//!
//! The readers use [`cut`] and [`number`], whose functions are defined for every position and every number.
//!
//! [`Malformed`] lists the reasons to reject a request; each has a word for logs and a message for the client.

pub mod chunks;
pub mod connect;
pub mod cut;
pub mod flood_guard;
pub mod frame;
pub mod grammar;
pub mod host;
pub mod length;
pub mod list_field;
mod malformed;
pub mod number;
pub mod request_reader;
pub mod target;

pub use malformed::{Class, Malformed};

/// Runs the examples of the README as tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

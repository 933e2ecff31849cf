//! Readers of HTTP that are strict: a request that two parties could understand differently is refused (RFC 9112, section 11.2).
//!
//! The crate has no input or output and no async: a reader takes the bytes that have arrived and returns what they mean, or
//! which rule they break.
//!
//! | module | reads |
//! |---|---|
//! | [`request_reader`] | the requests of an HTTP/1.1 connection: where each ends and the next begins |
//! | [`grammar`] | one line: a request line, a field line, the line of a chunk |
//! | [`target`] | a request target: one spelling, no ambiguity |
//! | [`host`] | `Host`, or the authority of a target |
//! | [`list_field`] | a field whose value is a list |
//! | [`length`] | the framing of a response |
//! | [`chunks`] | a response body in chunks |
//! | [`frame`] | the header of an HTTP/2 frame |
//! | [`flood_guard`] | the frames of an HTTP/2 connection, to account for what they cost |
//!
//! [`Malformed`] is the kind of whatever a request breaks; each has a word for logs and a message for the client.

pub mod chunks;
pub mod flood_guard;
pub mod frame;
pub mod grammar;
pub mod host;
pub mod length;
pub mod list_field;
mod malformed;
pub mod request_reader;
pub mod target;

pub use malformed::{Class, Malformed};

/// The examples of the README are run.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

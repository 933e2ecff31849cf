//! The Yandex Metrica API as values: what can be asked, which scopes that needs, on whose data a request works, and why a
//! request was refused.
//!
//! The crate has no input or output and no async. It is made for gateways, clients and tools that have to reason about
//! requests to <https://api-metrika.yandex.net> before they are sent, or about its refusals afterwards.
//!
//! | module | holds |
//! |---|---|
//! | [`operation`] | the catalogue: method and path of each operation, the scopes that it needs, what it does |
//! | [`scope`] | OAuth scopes, and which covers which |
//! | [`subject`] | the counters and logins that a request names |
//! | [`login`] | logins of Yandex, compared as Yandex compares them |
//! | [`error_type`] | the `error_type` of an error's body |
//! | [`observed_rights`] | what responses have shown of a token and of its owner |
//! | [`cause`] | why a request was refused, from all of these |

pub mod cause;
pub mod error_type;
mod interned;
pub mod login;
pub mod observed_rights;
pub mod operation;
pub mod scope;
pub mod subject;

pub use interned::Symbol;

/// The examples of the README are run.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

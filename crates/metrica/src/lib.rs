//! The Yandex Metrica API as values: its operations, the scopes that they need, the data that a request affects, and the
//! reasons for which the API refuses a request.
//!
//! The crate performs no I/O and has no async code. It is meant for gateways, clients and tools that reason about requests
//! to <https://api-metrika.yandex.net> before they send them, or about its refusals afterwards.
//!
//! | module | contents |
//! |---|---|
//! | [`operation`] | the catalogue: method and path of each operation, the scopes that it needs, its effects |
//! | [`scope`] | OAuth scopes, and which covers which |
//! | [`subject`] | the counters and logins that a request names |
//! | [`login`] | Yandex logins, compared as Yandex compares them |
//! | [`error_type`] | the `error_type` in the body of an error |
//! | [`response`] | the counters and accounts that a response shows |
//! | [`counter_list`] | the counters of an account, with its permission on each |
//! | [`observed_rights`] | the rights of a token and of its owner that responses have shown |
//! | [`cause`] | the cause of a refusal, derived from all of these |

pub mod cause;
pub mod counter_list;
pub mod error_type;
mod interned;
pub mod login;
pub mod observed_rights;
pub mod operation;
pub mod response;
pub mod scope;
pub mod subject;

pub use interned::Symbol;

/// Runs the examples of the README as tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

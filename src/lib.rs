//! metrika-gate: an authenticating reverse proxy for the Yandex Metrica API.
//!
//! Internal services send it requests without a credential; it recognises the caller, checks that the caller's scopes
//! allow the operation, adds `Authorization: OAuth <token>`, forwards over TLS, streams the answer back, and records
//! every 401 and 403 with its reason.
//!
//! # The tour
//! The house has three floors, and a floor only looks down (`tests/it/architecture.rs`):
//!
//! 1. **Vocabulary**: plain values and pure decisions. [`caller`] who is calling, [`operation`] what is being asked,
//!    [`scope`] and [`policy`] whether and with which [`token`], [`decide`] all of that in one decision, [`target`] what may be a request's target at all,
//!    [`subject`] on whose data it works and by which [`rules`], [`host`] by which name the gate is called, [`mod@line`] how HTTP/1.1 is written, [`verdict`]
//!    what Metrica's refusal says, [`diagnosis`] why it refused, by what [`knowledge`] there is, [`rejection`] every answer of the gate itself. [`symbol`]s are their names.
//! 2. **The data path**: the vocabulary put in order. [`gateway`] is the whole way of a request on one screen;
//!    [`upstream`] has the connections to Metrica, [`probe`] asks on its own, [`worker`] what one thread has for itself, [`metrics`] what is
//!    counted, [`telemetry`] what is logged.
//! 3. **The process** around it. [`config`] reads what operators write, [`tokens`] and [`reload`] what changes,
//!    [`external`] is the table of all that is named outside, [`mod@file`] reads it, [`descriptors`] divides what the kernel allows, [`server`] accepts, [`crew`] has the threads, [`health`] parks what Metrica does not take, [`admin`] and [`readiness`] answer probes, [`sandbox`] keeps the
//!    process to what it needs, [`app`] starts and ends it all, [`cli`] is the command line. [`doctor`] asks Metrica what a token
//!    can. [`fake`] is a Metrica to
//!    test against, and [`demo`] shows everything at once.

pub mod app;
pub mod cli;
pub mod config;
pub mod doctor;
pub mod files;
pub mod gateway;
pub mod health;
pub mod metrics;
pub mod names;
pub mod policy;
pub mod probe;
pub mod process;
pub mod reload;
pub mod server;
pub mod telemetry;
pub mod token;
pub mod upstream;
pub mod worker;

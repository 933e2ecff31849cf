//! metrika-gate: an authenticating reverse proxy for the Yandex Metrica API.
//!
//! Internal services send requests without a credential. The gate identifies the caller, checks that the caller's
//! scopes allow the operation, adds `Authorization: OAuth <token>`, forwards the request over TLS, streams the
//! response back, and records every 401 and 403 with its reason.
//!
//! # Modules
//! The modules form three layers. The first one uses only itself, and the data path does not use the modules that run
//! the process; `tests/it/architecture.rs` checks both.
//!
//! 1. **Decisions**: plain values and pure functions. [`policy`] decides whether a caller may send a request, and
//!    with which token. [`names`] holds the names of the configuration, [`mod@token`] a token's secret. The crates
//!    `metrica` (operations, scopes, errors and subjects of the Metrica API) and `strict-http` (HTTP grammar and
//!    framing) belong to this layer.
//! 2. **Data path**: [`gateway`] shows the whole path of a request in one file. [`upstream`] holds the connections to
//!    Metrica, [`probe`] sends the gate's own questions, [`worker`] is the state of one thread, [`metrics`] counts
//!    and [`telemetry`] logs.
//! 3. **Process**: [`config`] reads the configuration, [`tokens`] and [`reload`] follow changes of files.
//!    [`external`] lists every file and port that a configuration names, [`mod@file`] reads files. [`server`] accepts
//!    connections, [`crew`] runs the worker threads, [`health`] suspends tokens that Metrica rejects. [`admin`] and
//!    [`readiness`] answer probes. [`descriptors`] divides the file descriptors, [`sandbox`] confines the process.
//!    [`app`] starts and ends the process, [`cli`] is the command line, [`doctor`] tests tokens against Metrica. The
//!    crate `fake-metrica` is a stand-in for Metrica.

pub mod app;
pub mod body;
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
pub mod response;
pub mod server;
pub mod telemetry;
pub mod token;
pub mod upstream;
pub mod worker;

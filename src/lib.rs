//! metrika-gate: an authenticating reverse proxy for the Yandex Metrica API.
//!
//! Internal services send requests without a credential. The gate identifies the caller, checks that the caller's
//! scopes allow the operation, adds `Authorization: OAuth <token>`, forwards the request over TLS, streams the
//! response back, and records every 401 and 403 with its reason.
//!
//! # Modules
//! The modules form layers, and a module uses only those of its own layer or below; `tests/it/project/architecture.rs` has one row for
//! each.
//!
//! 1. **Values**: plain values and pure functions. [`policy`] decides whether a caller may send a request, and with which
//!    token. [`policy`] decides, [`files`] is the table of everything that it names outside
//!    itself, [`config`] reads it, [`mod@token`] reads a token's secret, [`quota`] shares
//!    the limits of Metrica between callers, [`config::certificates`] reads, makes and serves the certificates of listeners. The crates `metrica` (operations, scopes, subjects
//!    and errors of the Metrica API) and `strict-http` (strict readers of HTTP) lie below.
//! 2. **Request path**: [`server`] accepts connections, [`gateway`] shows the whole path of a request in one file,
//!    [`response`] that of its response, [`body`] streams the body of a request, and [`upstream`] holds the connections to
//!    Metrica. [`worker`] is the state of one thread, [`metrics`] counts and [`telemetry`] logs.
//! 3. **Process**: [`process`] runs the workers, the sandbox, readiness and the admin listener; [`reload`] follows changes of
//!    files; [`health`] suspends tokens that Metrica rejects, and sends the gate's own requests.
//! 4. **Commands**: [`cli`] is the command line, and starts and ends the process; [`doctor`] tests tokens against Metrica.
//!    The crate `fake-metrica` is a stand-in for Metrica.

pub mod body;
pub mod cli;
pub mod config;
pub mod doctor;
pub mod files;
pub mod gateway;
pub mod health;
pub mod metrics;
pub mod policy;
pub mod process;
pub mod quota;
pub mod reload;
pub mod response;
pub mod server;
pub mod telemetry;
pub mod token;
pub mod upstream;
pub mod worker;

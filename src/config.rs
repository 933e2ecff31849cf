//! Configuration: what is written and what is meant are two things.
//!
//! A file is read as a [`document`], walked with every mistake collected, and becomes a [`Config`], after which nothing
//! needs validating and nothing is optional that has a default. `config/reference.yaml` shows every key.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue};
use metrica::operation::Catalogue;
use metrica::scope::ScopeSet;
use rustls_pki_types::CertificateDer;

use crate::names::{GroupName, ListenerName, TokenAlias};
use crate::policy::caller::Caller;

mod admission;
pub mod document;
mod error;
mod external;
mod health;
mod level;
mod policy;
mod process;
mod reader;
mod rules;
mod source;
mod upstream;
mod values;

pub use error::{Error, Mistake, places};
pub use health::Origin;
pub use level::level;
pub use policy::tokens_beside_mistakes;
pub use process::admin_beside_mistakes;
use reader::{At, Findings};
pub use rules::login;
pub use source::bytes;
pub use values::name_text;
use values::{duration, name, names, timeout};

pub use crate::policy::admission::Limits;

/// Everything that the configuration says.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where callers connect.
    pub listeners: Vec<Listener>,
    /// Where operators and Prometheus connect.
    pub admin: Admin,
    /// The Metrica API.
    pub upstream: Upstream,
    /// The tokens and their files.
    pub tokens: Vec<TokenSource>,
    /// Who may do what, in order.
    pub callers: Arc<[Caller]>,
    /// What can be asked.
    pub catalogue: Catalogue,
    /// Counters that are counted together.
    pub counter_groups: Vec<CounterGroup>,
    /// Who issued a token, where that may be asked.
    pub identity: Option<Identity>,
    /// How the health of tokens is looked after.
    pub token_health: TokenHealth,
    /// Towards callers.
    pub timeouts: CallerTimeouts,
    /// What one caller, or all, may take.
    pub limits: Limits,
    /// How the process ends.
    pub shutdown: Shutdown,
    /// What is logged, and how.
    pub log: Log,
    /// Confine the process to what it needs.
    pub sandbox: bool,
    /// How many workers; `None` is one for each CPU that the process may use.
    pub workers: Option<usize>,
}

/// A place where callers connect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// Its name, which callers can require.
    pub name: ListenerName,
    /// Where.
    pub bind: Bind,
    /// HTTP/2 with prior knowledge, beside HTTP/1.1.
    pub http2: bool,
    /// Who may reach it at all.
    pub admission: Admission,
}

/// What a listener lets in, beside what it always does; it can change without a restart.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Admission {
    /// More hosts that it is called by: names and addresses.
    pub hosts: Vec<Box<str>>,
    /// A field that every request has, with its value.
    pub required: Option<(HeaderName, HeaderValue)>,
}

/// An address to listen on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Bind {
    /// TCP.
    Tcp(SocketAddr),
    /// A unix socket, created with `mode`.
    Unix {
        /// Its path.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
}

impl fmt::Display for Bind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix { path, .. } => path.display().fmt(f),
        }
    }
}

/// The admin listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Admin {
    /// Where.
    pub address: SocketAddr,
    /// Whether `POST /recheck` is answered.
    pub recheck: bool,
}

/// The one place that requests go to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upstream {
    /// The host of the URL: looked up, verified in the certificate, sent as SNI.
    pub host: String,
    /// The port of the URL.
    pub port: u16,
    /// `Host`: the host, and the port where it is not 443.
    pub authority: String,
    /// Certificates to trust beside the system's.
    pub extra_roots: Vec<CertificateDer<'static>>,
    /// The file that they were read from.
    pub ca_file: Option<PathBuf>,
    /// Dial this host and port; the name in the certificate stays `host`.
    pub connect_to: Option<(String, u16)>,
    /// Addresses of which family.
    pub address_family: AddressFamily,
    /// Offer HTTP/2, and use it where it is taken.
    pub http2: bool,
    /// At most so many requests at once to the upstream, over all workers.
    pub connections: usize,
    /// A connection takes no new request when it is older.
    pub max_age: Duration,
    /// How long each step may take.
    pub timeouts: UpstreamTimeouts,
}

/// Which addresses of the upstream are dialled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AddressFamily {
    /// Both.
    #[default]
    Any,
    /// IPv4 only.
    Ipv4,
    /// IPv6 only.
    Ipv6,
}

/// How long the upstream may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UpstreamTimeouts {
    /// To look up, connect and agree on TLS.
    pub connect: Duration,
    /// From the last byte of the request to the head of the answer.
    pub response_headers: Duration,
    /// Between two pieces of a body.
    pub body_idle: Duration,
    /// An unused connection is kept so long.
    pub keep_alive: Duration,
}

/// A token and where it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenSource {
    /// What logs and metrics call it.
    pub alias: TokenAlias,
    /// The file that holds it and nothing else.
    pub file: PathBuf,
    /// On a read-only mount, what its file may let its group and others do, whoever owns it.
    pub allow_mode: Option<u32>,
    /// What it was issued for.
    pub scopes: ScopeSet,
    /// What else is known of it.
    pub origin: Origin,
}

/// Counters that are counted together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CounterGroup {
    /// Its name in metrics.
    pub name: GroupName,
    /// In ascending order.
    pub counters: Box<[u64]>,
}

/// Where it can be asked who issued a token (<https://yandex.com/dev/id/doc/en/user-information>).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The host, and how it is connected to.
    pub place: Upstream,
    /// The path.
    pub path: String,
}

/// How the health of tokens is looked after.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenHealth {
    /// A token that Metrica rejects is asked about again after this, and then after twice the time, and so on.
    pub probe_after: Duration,
    /// But not after more than this: five minutes at most.
    pub probe_at_most: Duration,
    /// Ask Metrica what a token's owner may do with a counter that was refused.
    pub learn: bool,
}

/// How long a caller may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CallerTimeouts {
    /// From its first byte (on a new connection, from the connect) to the end of a request's header.
    pub request_headers: Duration,
    /// Between two pieces of a body, in either direction.
    pub body_idle: Duration,
    /// An unused connection is kept so long.
    pub keep_alive: Duration,
    /// From the first byte of a request's header to the last byte of its answer.
    pub request: Duration,
}

/// How the process ends after SIGTERM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shutdown {
    /// Still accepting so long, while not ready.
    pub delay: Duration,
    /// Requests under way have so long to finish.
    pub timeout: Duration,
}

/// Logging.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// JSON or human.
    pub format: LogFormat,
    /// A level, or directives as in `info,metrika_gate=debug`.
    pub level: String,
    /// One line for every request.
    pub access: bool,
}

/// The form of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum LogFormat {
    /// Human on a terminal, JSON elsewhere.
    #[default]
    Auto,
    /// One JSON object a line.
    Json,
    /// For people.
    Human,
}

impl Config {
    /// Reads the configuration in `file`.
    ///
    /// # Errors
    /// [`Error::Unreadable`] when the file cannot be read, [`Error::Invalid`] with all mistakes in it.
    pub fn load(file: &Path) -> Result<Self, Error> {
        Self::from_bytes(&bytes(file)?, file)
    }

    /// Reads a configuration from `bytes`; `file` is its name in messages.
    ///
    /// # Errors
    /// [`Error::Invalid`] with all mistakes in it.
    pub fn from_bytes(bytes: &[u8], file: &Path) -> Result<Self, Error> {
        let text = std::str::from_utf8(bytes).map_err(|error| {
            let message = format!("is not UTF-8 from byte {} on", error.valid_up_to() + 1);
            Error::Invalid(vec![Mistake { file: file.to_owned(), position: None, key: String::new(), message }])
        })?;
        Self::parse(text, file)
    }

    /// Reads a configuration from `text`; `file` is its name in messages.
    ///
    /// # Errors
    /// [`Error::Invalid`] with all mistakes in it.
    pub fn parse(text: &str, file: &Path) -> Result<Self, Error> {
        let text = document::without_mark(text);
        let document = document::parse(text).map_err(|(position, message)| {
            Error::Invalid(vec![Mistake { file: file.to_owned(), position, key: String::new(), message }])
        })?;
        let mut findings = Findings::default();
        let config = read(&At::root(&document), &mut findings);
        let mistakes = error::mistakes(file, text, findings.into_vec());
        match config {
            Some(config) if mistakes.is_empty() => Ok(config),
            Some(_) | None => Err(Error::Invalid(mistakes)),
        }
    }
}

const KEYS: [&str; 16] = [
    "listeners",
    "admin",
    "upstream",
    "tokens",
    "callers",
    "operations",
    "unknown_operations",
    "counter_groups",
    "identity",
    "token_health",
    "timeouts",
    "limits",
    "shutdown",
    "log",
    "sandbox",
    "workers",
];

fn read(root: &At<'_>, findings: &mut Findings) -> Option<Config> {
    let table = root.table(findings, &KEYS)?;
    let admin = process::admin(table.optional("admin").as_ref(), findings);
    let listeners = table.required(findings, "listeners").and_then(|at| process::listeners(&at, admin, findings));
    let upstream = upstream::upstream(table.optional("upstream").as_ref(), findings);
    let tokens = table.required(findings, "tokens").and_then(|at| policy::tokens(&at, findings));
    let known = policy::Known {
        listener_names: names(&table, "listeners"),
        listeners: listeners.as_deref().unwrap_or_default(),
        token_names: names(&table, "tokens"),
    };
    let callers = table.required(findings, "callers").and_then(|at| policy::callers(&at, &known, findings));
    let catalogue = policy::catalogue(&table, findings);
    let groups = table.optional("counter_groups").map_or(Some(Vec::new()), |at| rules::counter_groups(&at, findings));
    let identity = health::identity(table.optional("identity").as_ref(), upstream.as_ref(), findings);
    let token_health = health::token_health(table.optional("token_health").as_ref(), findings);
    let timeouts = process::caller_timeouts(table.optional("timeouts").as_ref(), findings);
    let limits = process::limits(table.optional("limits").as_ref(), findings);
    let shutdown = process::shutdown(table.optional("shutdown").as_ref(), findings);
    let log = process::log(table.optional("log").as_ref(), findings);
    let sandbox = table.optional("sandbox").map_or(Some(true), |at| at.bool(findings));
    let workers = table.optional("workers").map(|at| at.integer(findings, 1..=1024));
    Some(Config {
        listeners: listeners?.into_iter().map(|read| read.listener).collect(),
        admin: admin?,
        upstream: upstream?,
        tokens: tokens?,
        callers: callers?.into(),
        catalogue,
        counter_groups: groups?,
        identity: identity?,
        token_health: token_health?,
        timeouts: timeouts?,
        limits: limits?,
        shutdown: shutdown?,
        log: log?,
        sandbox: sandbox?,
        workers: workers.flatten().and_then(|workers| usize::try_from(workers).ok()),
    })
}

#[cfg(test)]
mod tests;

//! Configuration: from the text of a file to checked values.
//!
//! A file is parsed into a [`document`] and read with every mistake collected. The resulting [`Config`] needs no
//! further validation, and has a value for everything that has a default. `config/reference.yaml` lists every key.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue};
use metrica::operation::Catalogue;
use metrica::scope::ScopeSet;

use crate::policy::caller::Caller;
use crate::policy::names::{CallerId, GroupName, ListenerName, TokenAlias};

mod accounts;
mod admission;
mod authority;
pub mod certificates;
mod client_auth;
mod constraints;
pub mod document;
mod error;
mod external;
mod handshakes;
mod health;
mod keys;
mod leaf;
mod level;
mod policy;
mod process;
mod proofs;
mod proxy;
pub mod quota;
mod reader;
mod rules;
pub mod schema;
pub mod service_accounts;
mod source;
pub mod store;
pub mod tls;
mod upstream;
mod values;

pub use accounts::{ConfiguredAccounts, TokenCounters};
pub use error::{Error, Mistake, places};
pub use health::{Identity, Origin, TokenHealth};
pub use level::level;
pub use policy::tokens_beside_mistakes;
pub use process::{Log, LogFormat, admin_beside_mistakes};
pub use proxy::{BasicCredentials, Proxy, ProxyAuth};
pub use quota::{CallerQuota, Quota};
use reader::{At, Findings};
pub use rules::login;
pub use source::bytes;
pub use tls::Tls;
pub use upstream::{AddressFamily, Upstream, UpstreamTimeouts};
pub use values::name_text;
use values::{duration, hash, name, names, timeout};

pub use crate::policy::admission::Limits;

/// A complete configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// The first 48 bits of the SHA-256 of the text.
    pub hash: u64,
    /// The listeners for callers.
    pub listeners: Vec<Listener>,
    /// The listener for operators and Prometheus.
    pub admin: Admin,
    /// The Metrica API.
    pub upstream: Upstream,
    /// The tokens and their files.
    pub tokens: Vec<TokenSource>,
    /// The callers and their rights, in the order of the file.
    pub callers: Arc<[Caller]>,
    /// The file with hashes of keys of callers, if configured.
    pub keys_file: Option<PathBuf>,
    /// The known operations.
    pub catalogue: Catalogue,
    /// Groups of counters for metrics.
    pub counter_groups: Vec<CounterGroup>,
    /// The quotas of Metrica, and how callers share them, if configured.
    pub quota: Option<Quota>,
    /// The part of each caller in the quotas.
    pub caller_quotas: Vec<(CallerId, CallerQuota)>,
    /// The folder where counts are kept for the next process, if configured.
    pub state_dir: Option<PathBuf>,
    /// The verification of service account tokens, if configured.
    pub service_accounts: Option<service_accounts::ServiceAccounts>,
    /// The service that identifies the owner of a token, if configured.
    pub identity: Option<Identity>,
    /// The OAuth server, for the commands that issue tokens.
    pub oauth: Upstream,
    /// The checks of tokens.
    pub token_health: TokenHealth,
    /// Timeouts towards callers.
    pub timeouts: CallerTimeouts,
    /// Limits of a request, of one caller, and of all callers.
    pub limits: Limits,
    /// The end of the process.
    pub shutdown: Shutdown,
    /// The content and form of the log.
    pub log: Log,
    /// Whether the process is confined to what it needs.
    pub sandbox: bool,
    /// The number of workers; `None` means one per CPU available to the process.
    pub workers: Option<usize>,
}

/// A listener for callers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// The name, which conditions of callers can refer to.
    pub name: ListenerName,
    /// The address.
    pub bind: Bind,
    /// Whether HTTP/2 with prior knowledge is enabled in addition to HTTP/1.1.
    pub http2: bool,
    /// The certificate, if it speaks TLS, or ends the TLS of tunnels.
    pub tls: Option<Tls>,
    /// Whether it is a forward proxy.
    pub proxy: bool,
    /// The requests that it admits.
    pub admission: Admission,
}

/// The configured additions to a listener's built-in admission rules; they can change without a restart.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Admission {
    /// Additional hosts that requests may name: names and addresses.
    pub hosts: Vec<Box<str>>,
    /// A header field, with its value, that every request must have.
    pub required: Option<(HeaderName, HeaderValue)>,
}

/// An address to listen on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Bind {
    /// TCP.
    Tcp(SocketAddr),
    /// A unix socket, created with `mode`.
    Unix {
        /// The path.
        path: PathBuf,
        /// The permissions.
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
    /// The address.
    pub address: SocketAddr,
    /// Whether `POST /recheck` is enabled.
    pub recheck: bool,
    /// Whether the status page is enabled.
    pub page: bool,
}

/// A token and its file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenSource {
    /// The name in logs and metrics.
    pub alias: TokenAlias,
    /// The file, which holds nothing but the token.
    pub file: PathBuf,
    /// The permissions of group and others that are tolerated for the file on a read-only mount, whoever owns it.
    pub allow_mode: Option<u32>,
    /// The scopes that the token was issued for.
    pub scopes: ScopeSet,
    /// The owner, application and lifetime, and the standby.
    pub origin: Origin,
}

/// A group of counters that metrics report together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CounterGroup {
    /// The name in metrics.
    pub name: GroupName,
    /// The counters, in ascending order.
    pub counters: Box<[u64]>,
}

/// Timeouts towards callers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CallerTimeouts {
    /// For a request's header: from its first byte (on a new connection, from the connect) to its end.
    pub request_headers: Duration,
    /// Between two pieces of a body, in either direction.
    pub body_idle: Duration,
    /// The time for which an idle connection is kept.
    pub keep_alive: Duration,
    /// From the first byte of a request's header to the last byte of the response.
    pub request: Duration,
}

/// The end of the process after SIGTERM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shutdown {
    /// The time for which listeners still accept while readiness fails.
    pub delay: Duration,
    /// The time in which open requests can complete.
    pub timeout: Duration,
}

impl Config {
    /// Reads the configuration in `file`.
    ///
    /// # Errors
    /// [`Error::Invalid`] with all mistakes in it; the others when the file cannot be used.
    pub fn load(file: &Path) -> Result<Self, Error> {
        Self::from_bytes(&bytes(file)?, file)
    }

    /// Reads a configuration from `bytes`; `file` names it in messages.
    ///
    /// # Errors
    /// [`Error::Invalid`] with all mistakes.
    pub fn from_bytes(bytes: &[u8], file: &Path) -> Result<Self, Error> {
        let text = std::str::from_utf8(bytes).map_err(|error| {
            let message = format!("is not UTF-8 from byte {} on", error.valid_up_to() + 1);
            Error::Invalid(vec![Mistake { file: file.to_owned(), position: None, key: String::new(), message }])
        })?;
        Self::parse(text, file)
    }

    /// Reads a configuration from `text`; `file` names it in messages.
    ///
    /// # Errors
    /// [`Error::Invalid`] with all mistakes.
    pub fn parse(text: &str, file: &Path) -> Result<Self, Error> {
        let hash = hash(text);
        let text = document::without_mark(text);
        let document = document::parse(text).map_err(|(position, message)| {
            Error::Invalid(vec![Mistake { file: file.to_owned(), position, key: String::new(), message }])
        })?;
        let mut findings = Findings::default();
        let config = read(&At::root(&document), &mut findings);
        let mistakes = error::mistakes(file, text, findings.into_vec());
        match config {
            Some(config) if mistakes.is_empty() => Ok(Self { hash, ..config }),
            Some(_) | None => Err(Error::Invalid(mistakes)),
        }
    }
}

const KEYS: [&str; 21] = [
    "listeners",
    "admin",
    "upstream",
    "tokens",
    "callers",
    "keys_file",
    "service_accounts",
    "operations",
    "unknown_operations",
    "counter_groups",
    "quota",
    "state_dir",
    "identity",
    "oauth",
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
    let known = policy::KnownNames {
        listener_names: names(&table, "listeners"),
        listeners: listeners.as_deref().unwrap_or_default(),
        token_names: names(&table, "tokens"),
        has_service_accounts: table.optional("service_accounts").is_some(),
    };
    let mut callers = table.required(findings, "callers").and_then(|at| policy::callers(&at, &known, findings));
    let keys_file = keys::keys_file(&table, callers.as_mut(), findings);
    let catalogue = policy::catalogue(&table, findings);
    let groups = table.optional("counter_groups").map_or(Some(Vec::new()), |at| rules::counter_groups(&at, findings));
    let quota = quota::quota(table.optional("quota").as_ref(), findings);
    let caller_quotas = table.optional("callers").map_or(Some(Vec::new()), |at| {
        let read = quota::callers(&at, findings);
        if let (Some(read), Some(quota)) = (&read, &quota) {
            quota::check(read, quota.as_ref(), &at, findings);
        }
        read
    });
    let state_dir = table.optional("state_dir").map(|at| at.text(findings, process::folder));
    let service_accounts = service_accounts::read(&table, upstream.as_ref(), findings);
    let identity = health::identity(table.optional("identity").as_ref(), upstream.as_ref(), findings);
    let oauth = health::oauth(table.optional("oauth").as_ref(), upstream.as_ref(), findings);
    let token_health = health::token_health(table.optional("token_health").as_ref(), findings);
    let timeouts = process::caller_timeouts(table.optional("timeouts").as_ref(), findings);
    let limits = process::limits(table.optional("limits").as_ref(), findings);
    let shutdown = process::shutdown(table.optional("shutdown").as_ref(), findings);
    let log = process::log(table.optional("log").as_ref(), findings);
    let sandbox = table.optional("sandbox").map_or(Some(true), |at| at.bool(findings));
    let workers = table.optional("workers").map(|at| at.integer(findings, 1..=1024));
    Some(Config {
        hash: 0,
        listeners: listeners?.into_iter().map(|read| read.listener).collect(),
        admin: admin?,
        upstream: upstream?,
        tokens: tokens?,
        callers: callers?.into(),
        keys_file,
        catalogue,
        counter_groups: groups?,
        quota: quota?,
        caller_quotas: caller_quotas?,
        state_dir: state_dir.map_or(Some(None), |read| read.map(Some))?,
        service_accounts: service_accounts?,
        identity: identity?,
        oauth: oauth?,
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
mod quota_tests;
#[cfg(test)]
mod tests;

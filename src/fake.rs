//! A stand-in for the Metrica API, to test and to demonstrate against: `metrika-gate fake`, and the double that this
//! repository's own tests call.
//!
//! 1. It speaks TLS only, with a certificate made at start; callers trust [`Fake::ca_pem`]. HTTP/1.1 and HTTP/2 by ALPN.
//! 2. Who calls comes first: no `Authorization: OAuth …` is 401 `unauthorized`, an unknown or revoked token 403
//!    `invalid_token`; then the path (404, 405); then the scope and the counter, both 403 `access_denied` with the same
//!    body, because the API does not tell them apart; then the parameters (400).
//! 3. What is created can be read back, changed and deleted, and is gone when the process ends. Reports are made of
//!    formulas: the same question always has the same answer.
//! 4. Bodies that can be large, log parts down and uploads up, are streamed: memory does not grow with them.
//! 5. Everything below `/_fake/` is the control panel, without a token; `GET /_fake/` lists its knobs.
//! 6. `/info` is another host of Yandex, which says who issued a token and to which application
//!    (<https://yandex.com/dev/id/doc/en/user-information>): 401 where the token is not valid.
//! 7. `ulogin` names an account that the token's owner represents, and then its counters count; any other is 403
//!    `access_denied`. An account of an organisation (`porg-`) whose token was issued by a person is refused everything.
//! 8. A counter that is public can be looked at with any valid token; of one that belongs to an organisation, what is
//!    refused is 403 `counter_in_connect`, and so is every change of its grants.
//! 9. What is printed is what the documentation's quick start prints: a counter has all its 49 fields, a moment has the
//!    offset of Moscow. A new goal needs a `name` and a `type` that is known; otherwise it is 400.
//! 10. A report that names its counters in `counters` and not in `ids`, and one with a metric or dimension that is restricted, is 403
//!     `access_denied` for everybody.
//! 11. `owner_login` of a counter that is an account's own is that account's login.
//!
//! What the documentation leaves open is decided for the caller: any subset of the other objects' fields is accepted, an
//! `offset` of 0 is the first, a list may be one parameter or many, and a `.csv` suffix makes CSV of reports only.

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;

use anyhow::Context as _;
use tokio::sync::oneshot;

use crate::scope::{Scope, ScopeSet};

mod access;
mod answer;
mod certificate;
#[cfg(test)]
mod client;
mod collections;
pub mod command;
mod control;
mod counters;
mod day;
mod exchange;
mod google_form;
mod identity;
mod kinds;
mod knobs;
mod log_requests;
mod measures;
#[cfg(test)]
mod objects;
mod part;
mod query;
mod quota;
mod refusal;
mod reports;
#[cfg(test)]
mod roles;
mod server;
mod tally;
#[cfg(test)]
mod tests;
mod uploads;
mod world;

/// The counter that the demo tokens' owner owns.
pub const DEMO_COUNTER: u64 = 12_345_678;

/// The application of tokens of which nothing else is said.
pub const DEMO_CLIENT_ID: &str = "0123456789abcdef0123456789abcdef";

/// The documentation's demo counter, which the demo tokens' owner may only look at.
pub const DEMO_VIEW_COUNTER: u64 = 44_147_844;

/// How a stand-in starts.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where it listens; port 0 takes a free one.
    pub address: SocketAddr,
    /// The tokens it knows.
    pub tokens: Vec<FakeToken>,
    /// Offers HTTP/2 by ALPN beside HTTP/1.1.
    pub http2: bool,
    /// The names and addresses in its certificate.
    pub names: Vec<String>,
}

impl Default for Settings {
    fn default() -> Self {
        let names = [
            "api-metrika.yandex.net",
            "api-metrika.yandex.ru",
            "api-metrica.yandex.net",
            "login.yandex.ru",
            "localhost",
        ];
        Self {
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            tokens: demo_tokens(),
            http2: true,
            names: names.into_iter().chain(["127.0.0.1", "::1"]).map(str::to_owned).collect(),
        }
    }
}

/// A token that the stand-in takes for valid.
#[derive(Clone)]
pub struct FakeToken {
    /// What callers send after `OAuth`.
    pub secret: String,
    /// The login of the account that issued it.
    pub owner: String,
    /// The rights of the application it was issued to.
    pub scopes: ScopeSet,
    /// The counters its owner has a grant on.
    pub counters: Vec<(u64, Permission)>,
    /// The application it was issued to.
    pub client_id: String,
    /// The login that `/info` says, where that is not the owner's: a person who works for an organisation and issued the
    /// token personally (rule 7).
    pub login: Option<String>,
    /// The accounts that its owner represents.
    pub represents: Vec<String>,
}

impl Default for FakeToken {
    fn default() -> Self {
        Self {
            secret: String::new(),
            owner: "demo-owner".to_owned(),
            scopes: ScopeSet::EMPTY,
            counters: Vec::new(),
            client_id: DEMO_CLIENT_ID.to_owned(),
            login: None,
            represents: vec!["demo-principal".to_owned()],
        }
    }
}

impl std::fmt::Debug for FakeToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "FakeToken(redacted, {}, {})", self.owner, self.scopes)
    }
}

/// What an account may do with a counter; each level has the ones before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Permission {
    /// Nothing of its own: what everybody may who looks at a counter with public statistics.
    Public,
    /// Read its statistics and parameters.
    View,
    /// Change it.
    Edit,
    /// It is the account's own.
    Own,
}

impl Permission {
    /// The API's word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Public => "public_stat",
            Self::View => "view",
            Self::Edit => "edit",
            Self::Own => "own",
        }
    }
}

/// Three tokens of one account, as three applications would hold them: one reads, one writes, one uploads offline data.
#[must_use]
pub fn demo_tokens() -> Vec<FakeToken> {
    [
        ("demo-read-analytics-0001", Scope::Read),
        ("demo-write-crm-0000002", Scope::Write),
        ("demo-upload-offline-003", Scope::OfflineData),
    ]
    .into_iter()
    .map(|(secret, scope)| FakeToken {
        secret: secret.to_owned(),
        scopes: [scope].into_iter().collect(),
        counters: vec![(DEMO_COUNTER, Permission::Own), (DEMO_VIEW_COUNTER, Permission::View)],
        ..FakeToken::default()
    })
    .collect()
}

/// A running stand-in, on a thread of its own; it ends when this is dropped.
pub struct Fake {
    address: SocketAddr,
    ca_pem: String,
    shared: Arc<world::Shared>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Fake {
    /// Listens, and answers from then on.
    ///
    /// # Errors
    /// When the certificate cannot be made, the address not be bound or the thread not be started.
    pub fn start(settings: Settings) -> anyhow::Result<Self> {
        let certificate = certificate::make(&settings.names, settings.http2)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let listener = listen(&runtime, settings.address)
            .with_context(|| format!("the stand-in cannot listen on {}", settings.address))?;
        let address = listener.local_addr().context("cannot read the address that was bound")?;
        let shared = Arc::new(world::Shared::new(settings.tokens));
        let (stop, stopped) = oneshot::channel();
        let served = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("fake-metrica".to_owned()).spawn(move || {
            runtime.block_on(server::serve(listener, certificate.tls, served, stopped));
        })?;
        Ok(Self { address, ca_pem: certificate.ca_pem, shared, stop: Some(stop), thread: Some(thread) })
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// The certificate of the authority that signed the server's, for callers to trust.
    #[must_use]
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// Makes a token invalid, as its owner can at any moment. False when there is no such token.
    pub fn revoke(&self, secret: &str) -> bool {
        self.shared.world().keyring.set_revoked(secret, true)
    }

    /// Makes a revoked token valid again. False when there is no such token.
    pub fn restore(&self, secret: &str) -> bool {
        self.shared.world().keyring.set_revoked(secret, false)
    }

    /// How many requests to the API have arrived so far, whatever became of them. The control panel does not count.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.shared.world().requests
    }

    /// The last requests to the API, and to `/info`, as `GET /management/v1/counters`: no query, which could be a secret.
    #[must_use]
    pub fn heard(&self) -> Vec<String> {
        self.shared.world().heard.iter().cloned().collect()
    }

    /// Turns a knob of the control panel, as `organisation?counter=12345678`; what it answers.
    ///
    /// # Errors
    /// When there is no such knob, or what is said of it makes no sense.
    pub fn turn(&self, knob: &str) -> anyhow::Result<serde_json::Value> {
        control::turn(&self.shared, knob).map_err(|refusal| anyhow::anyhow!("{knob}: {}", refusal.message))
    }

    /// Blocks until the server ends.
    ///
    /// # Errors
    /// When its thread ended by a panic.
    pub fn wait(mut self) -> anyhow::Result<()> {
        let Some(thread) = self.thread.take() else { return Ok(()) };
        thread.join().map_err(|_| anyhow::anyhow!("the thread of the stand-in panicked"))
    }
}

/// Without awaiting, so that a stand-in can be started within a runtime, too.
fn listen(runtime: &tokio::runtime::Runtime, address: SocketAddr) -> std::io::Result<tokio::net::TcpListener> {
    let listener = std::net::TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    let _entered = runtime.enter();
    tokio::net::TcpListener::from_std(listener)
}

impl Drop for Fake {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            // The other end is gone when the thread is: then there is nothing to stop.
            let _ = stop.send(());
        }
        if let Some(thread) = self.thread.take() {
            // A panic over there was already reported by its hook.
            let _ = thread.join();
        }
    }
}

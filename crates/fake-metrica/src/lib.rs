//! A stand-in for the Metrica API, for tests and demonstrations: `metrika-gate fake`, and the double used by the tests of
//! this repository.
//!
//! 1. The server speaks TLS only, with a certificate generated at start; clients trust [`Fake::ca_pem`]. ALPN selects
//!    HTTP/1.1 or HTTP/2.
//! 2. Checks run in this order. Authentication: without `Authorization: OAuth …` the response is 401 `unauthorized`, with an
//!    unknown or revoked token 403 `invalid_token`. The path: 404 or 405. The scope and the counter: both 403
//!    `access_denied` with the same body, because the API does not distinguish them. The parameters: 400.
//! 3. Created objects can be read, changed and deleted, and are lost when the process ends. Reports are computed from
//!    formulas: the same query always has the same response.
//! 4. Large bodies, log parts and uploads, are streamed: memory use does not depend on their size.
//! 5. Paths below `/_fake/` are the control panel, which needs no token; `GET /_fake/` lists its knobs.
//! 6. `/info` belongs to another host of Yandex; it returns the account that issued a token and the application it was
//!    issued to (<https://yandex.com/dev/id/doc/en/user-information>), or 401 if the token is invalid.
//! 7. `ulogin` names an account that the token's owner represents, and selects that account's counters; any other login is
//!    403 `access_denied`. For an account of an organisation (`porg-`) whose token was issued by a person, every request is
//!    refused.
//! 8. A public counter can be read with any valid token. Refusals that concern a counter of an organisation are 403
//!    `counter_in_connect`, and so is every change of its grants.
//! 9. Responses match those of the documentation's quick start: a counter has all its 49 fields, and times have the offset
//!    of Moscow. A new goal needs a `name` and a known `type`; otherwise the response is 400.
//! 10. A report that names its counters in `counters` in the place of `ids`, or a restricted metric or dimension, is 403
//!     `access_denied` for every account.
//! 11. The `owner_login` of a counter that is an account's own is the login of that account.
//! 12. Yandex OAuth, another host too, issues tokens that the API accepts (`src/oauth.rs` has its rules).
//! 13. Quotas are checked before everything else, and only if they are configured; requests are counted in any case
//!     (`src/quota.rs` has their rules).
//!
//! Undocumented cases are decided in favour of the client: any subset of an object's fields is accepted, an `offset` of 0
//! means the first, a list may be one parameter or several, and the `.csv` suffix produces CSV for reports only.

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;

use anyhow::Context as _;
use metrica::scope::{Scope, ScopeSet};
use tokio::sync::oneshot;

mod access;
mod answer;
mod certificate;
mod collections;
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
mod oauth;
mod part;
mod query;
mod quota;
mod refusal;
mod reports;
mod server;
mod tally;
mod uploads;
mod world;

pub use control::help as control_help;
pub use oauth::{Account, Application, MOST_DEVICES};
pub use quota::ledger::Outsider;
pub use quota::usage::{AddressUse, CounterUse, LoginUse, QuotaUse};
pub use quota::{Charged, Limit, Quota, RefusedCount, TypeNames};

/// A counter owned by the owner of the demo tokens.
pub const DEMO_COUNTER: u64 = 12_345_678;

/// The default application of tokens.
pub const DEMO_CLIENT_ID: &str = "0123456789abcdef0123456789abcdef";

/// The secret of that application.
pub const DEMO_CLIENT_SECRET: &str = "test-client-secret-00000000000001";

/// The demo counter of the documentation; the owner of the demo tokens has view access only.
pub const DEMO_VIEW_COUNTER: u64 = 44_147_844;

/// The configuration of a stand-in.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The address to listen on; port 0 selects a free port.
    pub address: SocketAddr,
    /// The tokens that are accepted.
    pub tokens: Vec<FakeToken>,
    /// Whether ALPN offers HTTP/2 in addition to HTTP/1.1.
    pub http2: bool,
    /// The names and addresses of the certificate.
    pub names: Vec<String>,
    /// The applications that the OAuth server knows.
    pub applications: Vec<Application>,
    /// The accounts that can sign in there.
    pub accounts: Vec<Account>,
    /// The quotas that are enforced from the start.
    pub quota: Quota,
    /// Knobs of the control panel that are turned at the start, and again after a reset, written as for [`Fake::turn`].
    pub knobs: Vec<String>,
}

impl Default for Settings {
    fn default() -> Self {
        let names = [
            "api-metrika.yandex.net",
            "api-metrika.yandex.ru",
            "api-metrica.yandex.net",
            "login.yandex.ru",
            "oauth.yandex.ru",
            "oauth.yandex.com",
            "localhost",
        ];
        Self {
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            tokens: demo_tokens(),
            applications: demo_applications(),
            accounts: demo_accounts(),
            http2: true,
            names: names.into_iter().chain(["127.0.0.1", "::1"]).map(str::to_owned).collect(),
            quota: Quota::default(),
            knobs: Vec::new(),
        }
    }
}

/// A knob that cannot be turned at the start.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{knob}: {message}")]
pub struct BadKnob {
    /// The name of the knob, without its parameters, which can be secrets.
    pub knob: String,
    /// The reason.
    pub message: String,
}

/// A token that the stand-in accepts.
#[derive(Clone)]
pub struct FakeToken {
    /// The secret that clients send after `OAuth`.
    pub secret: String,
    /// The login of the account that issued it.
    pub owner: String,
    /// The scopes of the application it was issued to.
    pub scopes: ScopeSet,
    /// The counters that its owner has access to.
    pub counters: Vec<(u64, Permission)>,
    /// The application it was issued to.
    pub client_id: String,
    /// The login that `/info` returns, if it is not the owner's: a person who works for an organisation and issued the token
    /// personally (rule 7).
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

/// The access level of an account to a counter; each level includes the ones before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Permission {
    /// No grant: the access that everybody has to a counter with public statistics.
    Public,
    /// Read statistics and parameters.
    View,
    /// Change the counter.
    Edit,
    /// Own the counter.
    Own,
}

impl Permission {
    /// The name that the API uses.
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

/// Returns three tokens of one account, as three applications would hold them: to read, to write, to upload offline data.
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

/// Returns the application of the demo tokens, with all scopes.
#[must_use]
pub fn demo_applications() -> Vec<Application> {
    vec![Application {
        client_id: DEMO_CLIENT_ID.to_owned(),
        secret: DEMO_CLIENT_SECRET.to_owned(),
        scopes: Scope::ALL.into_iter().collect(),
        business: false,
        redirects: Vec::new(),
        is_blocked: false,
    }]
}

/// Returns the owner of the demo tokens, and an account without counters.
#[must_use]
pub fn demo_accounts() -> Vec<Account> {
    let counters = vec![(DEMO_COUNTER, Permission::Own), (DEMO_VIEW_COUNTER, Permission::View)];
    [("demo-owner", counters), ("demo-other", Vec::new())]
        .into_iter()
        .map(|(login, counters)| Account { login: login.to_owned(), counters, person: None })
        .collect()
}

/// A running stand-in, on its own thread; dropping it stops the server.
pub struct Fake {
    address: SocketAddr,
    ca_pem: String,
    shared: Arc<world::Shared>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Fake {
    /// Starts a server, which accepts requests when this returns.
    ///
    /// # Errors
    /// If the certificate cannot be generated, the address cannot be bound or the thread cannot be started; or a
    /// [`BadKnob`].
    pub fn start(settings: Settings) -> anyhow::Result<Self> {
        let (names, http2, address) = (settings.names.clone(), settings.http2, settings.address);
        let shared = Arc::new(world::Shared::new(settings));
        shared.turn_knobs()?;
        let certificate = certificate::make(&names, http2)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let listener = listen(&runtime, address).with_context(|| format!("the stand-in cannot listen on {address}"))?;
        let address = listener.local_addr().context("cannot read the bound address")?;
        let (stop, stopped) = oneshot::channel();
        let served = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("fake-metrica".to_owned()).spawn(move || {
            runtime.block_on(server::serve(listener, certificate.tls, served, stopped));
        })?;
        Ok(Self { address, ca_pem: certificate.ca_pem, shared, stop: Some(stop), thread: Some(thread) })
    }

    /// The address on which it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// The certificate of the authority that signed the server's certificate, in PEM, for clients to trust.
    #[must_use]
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// Makes a token invalid, as its owner can at any moment. Returns false if there is no such token.
    pub fn revoke(&self, secret: &str) -> bool {
        self.shared.world().keyring.set_revoked(secret, true)
    }

    /// Makes a revoked token valid again. Returns false if there is no such token.
    pub fn restore(&self, secret: &str) -> bool {
        self.shared.world().keyring.set_revoked(secret, false)
    }

    /// The number of requests to the API so far, accepted or refused. The control panel does not count.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.shared.world().requests
    }

    /// The most recent requests, in the form `GET /management/v1/counters`, without queries, which can contain secrets.
    #[must_use]
    pub fn heard(&self) -> Vec<String> {
        self.shared.world().heard.iter().cloned().collect()
    }

    /// The quotas in force.
    #[must_use]
    pub fn quota(&self) -> Quota {
        self.shared.quotas.quota()
    }

    /// Changes the quotas in force; what is spent stays spent.
    pub fn set_quota(&self, quota: Quota) {
        self.shared.quotas.set(quota);
    }

    /// The counts of the quotas, which are made whether or not they are enforced.
    #[must_use]
    pub fn quota_use(&self) -> QuotaUse {
        self.shared.quotas.usage()
    }

    /// Resets the maxima and the refusals of [`Self::quota_use`]; counts of days remain.
    pub fn clear_quota_use(&self) {
        self.shared.quotas.clear();
    }

    /// Lets somebody else use a login (rule 9 of `src/quota.rs`).
    pub fn outsider(&self, login: &str, outsider: &Outsider) {
        self.shared.quotas.outsider(login, outsider);
    }

    /// Moves the clock of the quotas forward, so that a day, an hour or a lock is over.
    pub fn forward(&self, duration: std::time::Duration) {
        self.shared.quotas.forward(duration);
    }

    /// Turns a knob of the control panel, written as `organisation?counter=12345678`, and returns its response.
    ///
    /// # Errors
    /// If there is no such knob, or if its parameters are invalid.
    pub fn turn(&self, knob: &str) -> anyhow::Result<serde_json::Value> {
        control::turn(&self.shared, knob).map_err(|refusal| anyhow::anyhow!("{knob}: {}", refusal.message))
    }

    /// Blocks until the server ends.
    ///
    /// # Errors
    /// If its thread panicked.
    pub fn wait(mut self) -> anyhow::Result<()> {
        let Some(thread) = self.thread.take() else { return Ok(()) };
        thread.join().map_err(|_| anyhow::anyhow!("the thread of the stand-in panicked"))
    }
}

/// Binds without awaiting, so that a stand-in can also be started inside a runtime.
fn listen(runtime: &tokio::runtime::Runtime, address: SocketAddr) -> std::io::Result<tokio::net::TcpListener> {
    let listener = std::net::TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    let _entered = runtime.enter();
    tokio::net::TcpListener::from_std(listener)
}

impl Drop for Fake {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            // The receiver is gone if the thread has ended; there is nothing to stop then.
            let _ = stop.send(());
        }
        if let Some(thread) = self.thread.take() {
            // The panic hook has already reported a panic of the thread.
            let _ = thread.join();
        }
    }
}

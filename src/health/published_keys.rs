//! The public keys of service account tokens, from the server of `service_accounts.jwks_url`.
//!
//! 1. They are requested at the start, every [`REFRESH`], and when a token names an unknown key; at most once in [`PAUSE`].
//! 2. A failed request changes nothing: the last keys stay in use, and the request is repeated after [`PAUSE`], then after longer
//!    and longer times up to [`REFRESH`].
//! 3. The token of `bearer_file` is read for each request, because Kubernetes replaces it. It is sent to that server alone, over
//!    TLS, and not in a redirect: none is followed.
//! 4. A failure is logged once for each cause, and shown by readiness.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Context;
use http::{HeaderValue, StatusCode};
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout};
use zeroize::Zeroizing;

use super::probe::{NoResponse, Place};
use crate::config::service_accounts::{KEY_SET_BYTES, KeyServer};
use crate::files::{ExternalFile, reading};
use crate::metrics::process::{ProcessMeters, Purpose};
use crate::policy::service_account::KeySet;
use crate::upstream::Upstream;

/// The time between two requests (rule 1).
pub const REFRESH: Duration = Duration::from_secs(600);

/// The shortest time between two requests (rule 1).
pub const PAUSE: Duration = Duration::from_secs(10);

/// The time for one request: the connection, TLS and the response.
const LONGEST: Duration = Duration::from_secs(15);

/// The maximum size of the token for the server, in bytes.
const BEARER_BYTES: usize = 16 * 1024;

/// Keys that a server has published.
pub type Published = (KeyServer, KeySet);

/// The requests for keys.
pub struct PublishedKeys {
    current: Option<(KeyServer, JoinHandle<()>)>,
    sender: mpsc::UnboundedSender<Published>,
    received: mpsc::UnboundedReceiver<Published>,
    wanted: Arc<Notify>,
    meters: Arc<ProcessMeters>,
}

impl PublishedKeys {
    /// Prepares the requests; `wanted` is notified when a token names an unknown key.
    #[must_use]
    pub fn new(wanted: Arc<Notify>, meters: Arc<ProcessMeters>) -> Self {
        let (sender, received) = mpsc::unbounded_channel();
        Self { current: None, sender, received, wanted, meters }
    }

    /// Follows the server of the configuration. Call it on a single-threaded runtime.
    pub fn follow(&mut self, server: Option<&KeyServer>) {
        if self.current.as_ref().map(|(current, _)| current) == server {
            return;
        }
        if let Some((_, task)) = self.current.take() {
            task.abort();
        }
        let Some(server) = server else { return };
        let requests = Requests {
            server: server.clone(),
            sender: self.sender.clone(),
            wanted: self.wanted.clone(),
            meters: self.meters.clone(),
            failure: None,
        };
        self.current = Some((server.clone(), tokio::task::spawn_local(requests.run())));
    }

    /// Waits for keys; `None` never happens, because this holds a sender.
    pub async fn next(&mut self) -> Option<Published> {
        self.received.recv().await
    }
}

impl Drop for PublishedKeys {
    fn drop(&mut self) {
        if let Some((_, task)) = &self.current {
            task.abort();
        }
    }
}

/// The requests to one server.
struct Requests {
    server: KeyServer,
    sender: mpsc::UnboundedSender<Published>,
    wanted: Arc<Notify>,
    meters: Arc<ProcessMeters>,
    /// The last logged failure.
    failure: Option<String>,
}

impl Requests {
    async fn run(mut self) {
        let mut failures = 0;
        loop {
            let began = Instant::now();
            self.meters.own_requests(Purpose::ServiceAccountKeys, 1);
            let answer = timeout(LONGEST, self.keys()).await;
            match answer.unwrap_or_else(|_| Err(anyhow::anyhow!("no response within {LONGEST:?}"))) {
                Ok(keys) => {
                    failures = 0;
                    self.succeeded(keys);
                }
                Err(error) => {
                    failures += 1;
                    self.failed(format!("{error:#}"));
                }
            }
            let wait = match failures {
                0 => REFRESH,
                // Twice as long after each failure (rule 2).
                _ => PAUSE.saturating_mul(1_u32 << (failures - 1).min(6)).min(REFRESH),
            };
            // Rule 1.
            sleep_until(began + PAUSE).await;
            tokio::select! {
                () = sleep_until(began + wait) => {}
                () = self.wanted.notified() => {}
            }
        }
    }

    fn succeeded(&mut self, keys: KeySet) {
        self.meters.key_set_now(keys.len(), SystemTime::now());
        self.meters.key_set_requested(None);
        if self.failure.take().is_some() {
            tracing::info!(server = self.server.place.authority, "the keys of service accounts were received again");
        }
        // The receiver is gone when the process ends.
        let _ = self.sender.send((self.server.clone(), keys));
    }

    fn failed(&mut self, cause: String) {
        self.meters.key_set_requested(Some(cause.clone()));
        if self.failure.as_ref() != Some(&cause) {
            tracing::error!(
                server = self.server.place.authority,
                cause,
                "the keys of service accounts were not received; the last ones stay in use, and the request is repeated"
            );
            self.failure = Some(cause);
        }
    }

    async fn keys(&self) -> anyhow::Result<KeySet> {
        let KeyServer { place, path, bearer: _ } = &self.server;
        let authorization = self.server.bearer_row().map(|row| bearer(&row)).transpose()?;
        let place = Place::new(Arc::new(Upstream::new(place.clone())?));
        let answer = place.get(authorization, path).await.map_err(cause)?;
        anyhow::ensure!(
            answer.status == StatusCode::OK,
            "the server responded {}{}",
            answer.status,
            hint(answer.status)
        );
        anyhow::ensure!(answer.body.len() <= KEY_SET_BYTES, "the key set exceeds {KEY_SET_BYTES} bytes");
        KeySet::parse(&answer.body).map_err(|error| anyhow::anyhow!("the server did not return {error}"))
    }
}

/// Returns the cause of a missing response, with all that it wraps.
fn cause(missing: NoResponse) -> anyhow::Error {
    match missing {
        NoResponse::Dial(cause) | NoResponse::Broken(cause) => cause,
        NoResponse::NoTurn | NoResponse::Timeout | NoResponse::TooLong => missing.into(),
    }
}

/// Returns the remedy for a status.
fn hint(status: StatusCode) -> &'static str {
    match status {
        StatusCode::UNAUTHORIZED => "; set service_accounts.bearer_file to a token of the gate's own service account",
        StatusCode::FORBIDDEN => {
            "; bind the cluster role system:service-account-issuer-discovery to the gate's service account"
        }
        _ => "",
    }
}

/// Reads the token for the server (rule 3).
fn bearer(file: &ExternalFile) -> anyhow::Result<HeaderValue> {
    let path = reading::shown(&file.path);
    let opened = file.open().map_err(|refusal| anyhow::anyhow!("{path}: {refusal}"))?;
    let read = Zeroizing::new(reading::read_from(opened, BEARER_BYTES).with_context(|| format!("cannot read {path}"))?);
    anyhow::ensure!(read.len() <= BEARER_BYTES, "{path} exceeds {BEARER_BYTES} bytes");
    let value = Zeroizing::new([b"Bearer ", read.trim_ascii_end()].concat());
    let mut value = HeaderValue::from_bytes(&value).map_err(|_| anyhow::anyhow!("{path} holds no token"))?;
    value.set_sensitive(true);
    Ok(value)
}

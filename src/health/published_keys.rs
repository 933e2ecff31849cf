//! The public keys of service account tokens, from the server of `service_accounts.jwks_url`.
//!
//! 1. They are requested at the start, every [`REFRESH`], and when a token names an unknown key, for that at most once in
//!    [`PAUSE`].
//! 2. A failed request changes nothing: the last keys stay in use, and the request is repeated a second after its end, then
//!    after longer and longer times up to [`REFRESH`].
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

/// The shortest time between the end of a request and one for an unknown key (rule 1).
pub const PAUSE: Duration = Duration::from_secs(10);

/// The time after the first failure (rule 2).
const AGAIN: Duration = Duration::from_secs(1);

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

/// Requests keys, again and again (rules 1 and 2). `request` returns whether it has succeeded.
async fn repeat(wanted: &Notify, mut request: impl AsyncFnMut() -> bool) {
    let mut failures = 0_u32;
    loop {
        failures = if request().await { 0 } else { failures.saturating_add(1) };
        // From the end: a server that hangs is not asked again at once.
        let ended = Instant::now();
        let wait = match failures {
            0 => REFRESH,
            // Twice as long after each failure.
            _ => AGAIN.saturating_mul(1_u32 << (failures - 1).min(10)).min(REFRESH),
        };
        let is_wanted = async {
            sleep_until(ended + PAUSE).await;
            wanted.notified().await;
        };
        tokio::select! {
            () = sleep_until(ended + wait) => {}
            () = is_wanted => {}
        }
    }
}

/// Requests the keys once. Call it on a single-threaded runtime.
///
/// # Errors
/// The reason why there are none, without any text of the response.
pub async fn request(server: &KeyServer) -> anyhow::Result<KeySet> {
    let missing = |_| Err(anyhow::anyhow!("no response within {LONGEST:?}"));
    timeout(LONGEST, request_without_limit(server)).await.unwrap_or_else(missing)
}

async fn request_without_limit(server: &KeyServer) -> anyhow::Result<KeySet> {
    let KeyServer { place, path, bearer: _ } = server;
    let authorization = server.bearer_row().map(|row| bearer(&row)).transpose()?;
    let place = Place::new(Arc::new(Upstream::new(place.clone())?));
    let answer = place.get(authorization, path).await.map_err(cause)?;
    anyhow::ensure!(answer.status == StatusCode::OK, "the server responded {}{}", answer.status, hint(answer.status));
    anyhow::ensure!(answer.body.len() <= KEY_SET_BYTES, "the key set exceeds {KEY_SET_BYTES} bytes");
    KeySet::parse(&answer.body).map_err(|error| anyhow::anyhow!("the server did not return {error}"))
}

impl Requests {
    async fn run(mut self) {
        let wanted = self.wanted.clone();
        repeat(&wanted, async || self.request().await).await;
    }

    /// Requests the keys once. Returns whether that has succeeded.
    async fn request(&mut self) -> bool {
        self.meters.own_requests(Purpose::ServiceAccountKeys, 1);
        match request(&self.server).await {
            Ok(keys) => {
                self.succeeded(keys);
                true
            }
            Err(error) => {
                self.failed(format!("{error:#}"));
                false
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

#[cfg(test)]
mod tests {
    use super::*;

    /// The times of requests within an hour, in seconds; a request fails unless `succeeds` is true for its number.
    async fn times(wanted: &Notify, succeeds: impl Fn(usize) -> bool) -> Vec<u64> {
        times_of(wanted, Duration::ZERO, succeeds).await
    }

    /// The same for requests that take so long.
    async fn times_of(wanted: &Notify, takes: Duration, succeeds: impl Fn(usize) -> bool) -> Vec<u64> {
        let (begun, mut seen) = (Instant::now(), Vec::new());
        let request = async || {
            seen.push(begun.elapsed().as_secs());
            tokio::time::sleep(takes).await;
            succeeds(seen.len() - 1)
        };
        assert!(timeout(Duration::from_secs(3599), repeat(wanted, request)).await.is_err());
        seen
    }

    #[tokio::test(start_paused = true)]
    async fn rule_1_keys_are_requested_every_ten_minutes() {
        assert_eq!(times(&Notify::new(), |_| true).await, [0, 600, 1200, 1800, 2400, 3000]);
    }

    #[tokio::test(start_paused = true)]
    async fn rule_1_unknown_keys_cause_one_request_in_ten_seconds() {
        let wanted = Notify::new();
        let tokens = async {
            // Ten tokens a second, for 25 seconds, and one later.
            for _ in 0..250 {
                tokio::time::sleep(Duration::from_millis(100)).await;
                wanted.notify_one();
            }
            tokio::time::sleep(Duration::from_secs(75)).await;
            wanted.notify_one();
        };
        let ((), seen) = tokio::join!(tokens, times(&wanted, |_| true));
        assert_eq!(seen, [0, 10, 20, 30, 100, 700, 1300, 1900, 2500, 3100]);
        // Nor more often while requests fail.
        let tokens = async {
            for _ in 0..700 {
                wanted.notify_one();
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        let ((), seen) = tokio::join!(tokens, times(&wanted, |_| false));
        assert_eq!(seen[..11], [0, 1, 3, 7, 15, 25, 35, 45, 55, 65, 75]);
    }

    #[tokio::test(start_paused = true)]
    async fn rule_2_a_failed_request_is_repeated_later_and_later() {
        let wanted = Notify::new();
        assert_eq!(
            times(&wanted, |_| false).await,
            [0, 1, 3, 7, 15, 31, 63, 127, 255, 511, 1023, 1623, 2223, 2823, 3423]
        );
        // A success begins anew.
        assert_eq!(times(&wanted, |number| number == 4).await[..8], [0, 1, 3, 7, 15, 615, 616, 618]);
    }

    #[tokio::test(start_paused = true)]
    async fn rule_2_a_server_that_hangs_gets_the_same_pauses() {
        let wanted = Notify::new();
        assert_eq!(times_of(&wanted, LONGEST, |_| false).await[..6], [0, 16, 33, 52, 75, 106]);
        let tokens = async {
            for _ in 0..1200 {
                wanted.notify_one();
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        let ((), seen) = tokio::join!(tokens, times_of(&wanted, LONGEST, |_| false));
        assert_eq!(seen[..6], [0, 16, 33, 52, 75, 100]);
    }
}

//! The connection to the store of a fleet ([`crate::quota`]).
//!
//! 1. There is one connection, with one call at a time: what comes meanwhile goes with the next call.
//! 2. A call that is not answered within `timeout` is made once more; after a second one within 10 seconds, and after any error,
//!    the connection is closed.
//!    From the first of these on, the gate goes on without the store, so no request waits for a store that does not answer. A
//!    closed connection is opened again after a second, with jitter, and its name is resolved again: it may lead to a
//!    replica that was promoted. What the store tells in between is bounded: a message beyond that is lost, which costs a request
//!    a second.
//! 3. The password and the certificate authorities are read whenever a connection is opened, so they can change.
//! 4. When the process ends, everything is given back.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, ConnectionInfo, IntoConnectionInfo, ProtocolVersion, PushInfo,
    PushKind, RedisConnectionInfo, Script, TlsCertificates, Value,
};
use tokio::sync::Notify;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::task::JoinHandle;
use zeroize::Zeroizing;

use crate::config::store::Store;
use crate::files::{ExternalFile, Purpose, reading};
use crate::quota::{Broker, Call, Reply, SCRIPT, Told};
use crate::worker::Turns;

/// The time for opening a connection. No request waits for it.
const OPENING: Duration = Duration::from_secs(1);
/// The mean time between two attempts (rule 2).
const RETRY: Duration = Duration::from_secs(1);
/// Two time-outs within this time close the connection (rule 2).
const TOGETHER: Duration = Duration::from_secs(10);
/// Waiting requests are entered again after this time: a lost message costs no more.
const AGAIN: Duration = Duration::from_secs(1);
/// The maximum number of messages of the store that wait to be read.
const MOST_MESSAGES: usize = 1024;
/// The maximum size of the password and of the file with certificate authorities, in bytes.
const MOST_PASSWORD: usize = 4096;
const MOST_AUTHORITIES: usize = 4 * 1024 * 1024;

/// The task that speaks with the store.
#[derive(Debug)]
pub struct StoreTask {
    stop: Arc<Notify>,
    task: JoinHandle<()>,
}

impl StoreTask {
    /// Starts the task of a gate that belongs to a fleet ([`Broker::join_fleet`]).
    #[must_use]
    pub fn start(store: &Store, turns: Arc<Turns>) -> Option<Self> {
        let me = turns.of_fleet(|broker, _| broker.gate().map(str::to_owned))?;
        let stop = Arc::new(Notify::new());
        let fleet = Fleet { store: store.clone(), me, turns, stop: stop.clone() };
        Some(Self { stop, task: tokio::task::spawn_local(fleet.run()) })
    }

    /// Gives everything back and ends the task (rule 4).
    pub async fn end(self) {
        self.stop.notify_one();
        // The last call has its time; after that, leases end by themselves.
        if tokio::time::timeout(OPENING, self.task).await.is_err() {
            tracing::warn!("the quota store did not take the last call; what this gate held is free after one lease");
        }
    }
}

struct Fleet {
    store: Store,
    me: String,
    turns: Arc<Turns>,
    stop: Arc<Notify>,
}

/// An open connection.
struct Link {
    connection: MultiplexedConnection,
    pushes: Receiver<PushInfo>,
    script: Script,
    key: String,
    timeout: Duration,
}

/// Why a connection is closed.
enum End {
    /// The process ends.
    Stopped,
    Failed(anyhow::Error),
}

impl Fleet {
    async fn run(self) {
        let mut was_told: Option<String> = None;
        loop {
            let opened = match tokio::time::timeout(OPENING, self.open()).await {
                Ok(opened) => opened,
                Err(_) => Err(anyhow::anyhow!("no connection within {OPENING:?}")),
            };
            let end = match opened {
                Ok(link) => self.serve(link, &mut was_told).await,
                Err(error) => End::Failed(error),
            };
            self.turns.of_fleet(Broker::store_is_away);
            let End::Failed(error) = end else { return };
            let why = format!("{error:#}");
            // One line for each cause, not for each attempt.
            if was_told.as_ref() != Some(&why) {
                tracing::warn!(
                    store = self.place(),
                    error = why,
                    on_loss = ?self.store.on_loss,
                    "no connection to the quota store; the gate continues without it"
                );
                was_told = Some(why);
            }
            let pause = RETRY.mul_f64(0.8 + 0.4 * fastrand::f64());
            if tokio::time::timeout(pause, self.stop.notified()).await.is_ok() {
                return;
            }
        }
    }

    fn place(&self) -> String {
        format!("{}:{}", self.store.host, self.store.port)
    }

    /// Opens a connection and subscribes to what the store tells this gate.
    async fn open(&self) -> anyhow::Result<Link> {
        let client = self.client()?;
        let (sender, pushes) = channel(MOST_MESSAGES);
        // Its own deadline is longer than ours: a call that we give up is not answered by the answer of an earlier one.
        let settings = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(OPENING))
            .set_response_timeout(Some(OPENING))
            .set_push_sender(move |push| deliver(&sender, push));
        let mut connection = client.get_multiplexed_async_connection_with_config(&settings).await?;
        let key = format!("{{{}}}", self.store.prefix);
        for name in [self.me.as_str(), "all"] {
            connection.subscribe(format!("{key}:to:{name}")).await.context("cannot subscribe")?;
        }
        Ok(Link { connection, pushes, script: Script::new(SCRIPT), key, timeout: self.store.timeout })
    }

    /// The client, with the secrets as they are now (rule 3).
    fn client(&self) -> anyhow::Result<Client> {
        let Store { host, port, tls, database, user, .. } = &self.store;
        let mut settings = RedisConnectionInfo::default()
            .set_db(*database)
            .set_protocol(ProtocolVersion::RESP3)
            .set_skip_set_lib_name();
        if let Some(user) = user {
            settings = settings.set_username(user);
        }
        if let Some(file) = &self.store.password_file {
            let file = ExternalFile::secret(Purpose::StorePassword, file, None);
            let password = read(&file, MOST_PASSWORD)?;
            let text = std::str::from_utf8(&password).context("the password of the quota store is no text")?;
            settings = settings.set_password(text.trim_end_matches(['\r', '\n']));
        }
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let address = if *tls {
            ConnectionAddr::TcpTls { host, port: *port, insecure: false, tls_params: None }
        } else {
            ConnectionAddr::Tcp(host, *port)
        };
        let info: ConnectionInfo = address.into_connection_info()?.set_redis_settings(settings);
        let authorities = match &self.store.ca_file {
            Some(file) => Some(read(&ExternalFile::new(Purpose::Store, file), MOST_AUTHORITIES)?.to_vec()),
            None => None,
        };
        Ok(if *tls {
            Client::build_with_tls(info, TlsCertificates { client_tls: None, root_cert: authorities })?
        } else {
            Client::open(info)?
        })
    }

    /// Makes calls until one fails, or the process ends.
    async fn serve(&self, mut link: Link, was_told: &mut Option<String>) -> End {
        let mut is_new = true;
        let mut failed: Option<Instant> = None;
        let mut again = Instant::now() + AGAIN;
        loop {
            let Some(call) = self.turns.of_fleet(Broker::call) else { return End::Stopped };
            match link.call(&call).await {
                Ok(reply) => {
                    self.turns.of_fleet(|broker, now| broker.reply(&reply, is_new, now));
                    if is_new {
                        *was_told = None;
                        tracing::info!(store = self.place(), gates = reply.replicas, "connected to the quota store");
                    }
                    is_new = false;
                }
                Err(error) => {
                    self.turns.of_fleet(Broker::store_is_away);
                    let before = failed.replace(Instant::now());
                    let is_second = before.is_some_and(|before| before.elapsed() < TOGETHER);
                    if is_second || !error.is::<tokio::time::error::Elapsed>() {
                        return End::Failed(error);
                    }
                    continue;
                }
            }
            if self.wait(&mut link, &mut again).await {
                self.part(&mut link).await;
                return End::Stopped;
            }
        }
    }

    /// Waits until a call is due. Returns whether the process ends.
    async fn wait(&self, link: &mut Link, again: &mut Instant) -> bool {
        let beat = Instant::now() + self.store.lease / 3;
        loop {
            if *again <= Instant::now() {
                // Whatever else the next call is for.
                *again = Instant::now() + AGAIN;
                self.turns.of_fleet(Broker::ask_again);
            }
            let due = self.turns.next_store_call().map_or(beat, |next| next.min(beat));
            let until =
                if self.turns.of_fleet(|broker, _| broker.is_waiting_for_store()) { due.min(*again) } else { due };
            tokio::select! {
                () = self.stop.notified() => return true,
                // What it stands for may have gone with the call before.
                () = self.turns.orders() => if self.turns.of_fleet(|broker, _| broker.has_orders()) { return false },
                () = tokio::time::sleep_until(until.into()) => {
                    if until < *again || until >= beat {
                        return false;
                    }
                }
                push = link.pushes.recv() => {
                    // A connection that was closed fails with the next call.
                    let Some(push) = push else { return false };
                    if push.kind == PushKind::Disconnection {
                        return false;
                    }
                    if let Some(told) = told(&push) {
                        self.turns.of_fleet(|broker, now| broker.told(&told, now));
                    }
                }
            }
        }
    }

    /// The last call (rule 4).
    async fn part(&self, link: &mut Link) {
        if let Some(call) = self.turns.of_fleet(Broker::last_call)
            && let Err(error) = link.call(&call).await
        {
            tracing::warn!(%error, "the quota store did not take the last call; what this gate held is free after one lease");
        }
    }
}

impl Link {
    async fn call(&mut self, call: &Call) -> anyhow::Result<Reply> {
        let text = serde_json::to_string(call)?;
        let mut invocation = self.script.key(&self.key);
        invocation.arg(text);
        let reply: String = tokio::time::timeout(self.timeout, invocation.invoke_async(&mut self.connection)).await??;
        serde_json::from_str(&reply).context("the quota store returned what its script does not return")
    }
}

/// The connection has ended.
struct Ended;

/// Hands over a message, unless too many wait.
fn deliver(sender: &Sender<PushInfo>, push: PushInfo) -> Result<(), Ended> {
    match sender.try_send(push) {
        Ok(()) => Ok(()),
        Err(TrySendError::Full(_)) => {
            tracing::debug!("a message of the quota store was dropped, because {MOST_MESSAGES} others wait");
            Ok(())
        }
        Err(TrySendError::Closed(_)) => Err(Ended),
    }
}

/// The message in a push of the store.
fn told(push: &PushInfo) -> Option<Told> {
    let (PushKind::Message, [_, Value::BulkString(message)]) = (&push.kind, &push.data[..]) else { return None };
    match serde_json::from_slice(message) {
        Ok(told) => Some(told),
        Err(error) => {
            tracing::warn!(%error, "the quota store sent a message that no gate sends; it is ignored");
            None
        }
    }
}

fn read(file: &ExternalFile, most: usize) -> anyhow::Result<Zeroizing<Vec<u8>>> {
    let path = reading::shown(&file.path);
    let opened = file.open().map_err(|refusal| anyhow::anyhow!("{}: {path}: {refusal}", file.purpose))?;
    let bytes = Zeroizing::new(reading::read_from(opened, most).with_context(|| format!("cannot read {path}"))?);
    anyhow::ensure!(bytes.len() <= most, "{path} has more than {most} bytes");
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_that_nobody_reads_are_bounded() {
        let (sender, mut pushes) = channel(MOST_MESSAGES);
        let push = || PushInfo { kind: PushKind::Message, data: Vec::new() };
        for _ in 0..MOST_MESSAGES + 10 {
            assert!(deliver(&sender, push()).is_ok());
        }
        let mut waiting = 0;
        while pushes.try_recv().is_ok() {
            waiting += 1;
        }
        assert_eq!(waiting, MOST_MESSAGES);
        drop(pushes);
        assert!(deliver(&sender, push()).is_err(), "the connection ends");
    }
}

//! The key `quota.store`: the Redis or Valkey in which gates share the quotas.

use std::path::PathBuf;
use std::time::Duration;

use super::reader::{At, Findings};
use super::timeout;
use super::upstream::{certificates_of, host_and_optional_port};
use crate::files::Purpose;
use crate::quota::{FleetSettings, OnLoss};

/// The default port of Redis and Valkey.
const PORT: u16 = 6379;
/// The default prefix of all keys.
const PREFIX: &str = "metrika-gate";
/// The gates that a gate assumes before it has seen any: with three, each may use one slot.
const ASSUMED: u32 = 3;

/// The store, and how the gate uses it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Store {
    /// The host, without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
    /// Whether connections use TLS.
    pub tls: bool,
    /// The number of the database.
    pub database: i64,
    /// The user of the store's access list.
    pub user: Option<String>,
    /// The file with the password.
    pub password_file: Option<PathBuf>,
    /// The file with certificate authorities that replace the built-in public ones.
    pub ca_file: Option<PathBuf>,
    /// The prefix of all keys, without the braces of the hash tag.
    pub prefix: String,
    /// The time after which the slot of a gate that died is free.
    pub lease: Duration,
    /// The time within which the store answers.
    pub timeout: Duration,
    /// What the gate does without the store.
    pub on_loss: OnLoss,
}

impl Store {
    /// Returns the settings of the broker for a gate, which gets a name of its own, of so many gates as far as is known.
    #[must_use]
    pub fn fleet(&self, replicas: u32) -> FleetSettings {
        let me = format!("{:016x}", fastrand::u64(..));
        let lease = strict_http::number::saturated(self.lease.as_micros());
        FleetSettings { me, lease, on_loss: self.on_loss, replicas: replicas.max(ASSUMED) }
    }

    /// Whether others on the way can read and change what is said to the store.
    #[must_use]
    pub fn is_open(&self) -> bool {
        let is_near = matches!(self.host.as_str(), "localhost" | "::1") || self.host.starts_with("127.");
        !self.tls && !is_near
    }
}

/// Reads `quota.store`.
pub fn store(at: &At<'_>, findings: &mut Findings) -> Option<Store> {
    let keys = ["redis", "password_file", "ca_file", "prefix", "lease", "timeout", "on_loss"];
    let table = at.table(findings, &keys)?;
    let url = table.required(findings, "redis").and_then(|at| at.text(findings, url));
    let password_file = table.optional("password_file").map(|at| at.text(findings, |text| Ok(PathBuf::from(text))));
    let ca_file = table.optional("ca_file").map(|at| {
        if url.as_ref().is_some_and(|url| !url.tls) {
            at.wrong(findings, "has no effect without TLS; write rediss:// in quota.store.redis");
        }
        certificates_of(&at, Purpose::Store, findings).1
    });
    let prefix = table.optional("prefix").map_or(Some(PREFIX), |at| at.text(findings, prefix));
    let lease = timeout(Some(&table), "lease", Duration::from_secs(5), findings);
    let answers = timeout(Some(&table), "timeout", Duration::from_millis(100), findings);
    if let (Some(lease), Some(answers)) = (lease, answers) {
        if !(Duration::from_secs(1)..=Duration::from_secs(60)).contains(&lease) {
            table.optional("lease").iter().for_each(|at| at.wrong(findings, "must be from 1s to 60s"));
        }
        if answers.saturating_mul(6) > lease {
            let place = table.optional("timeout").or_else(|| table.optional("lease"));
            place.iter().for_each(|at| {
                at.wrong(
                    findings,
                    "timeout must be at most a sixth of lease, so that a lease outlives two calls that fail",
                )
            });
        }
    }
    let on_loss = table.optional("on_loss").map_or(Some(OnLoss::Share), |at| {
        at.text(findings, |text| match text {
            "share" => Ok(OnLoss::Share),
            "refuse" => Ok(OnLoss::Refuse),
            _ => Err("share or refuse".to_owned()),
        })
    });
    let Url { host, port, tls, database, user } = url?;
    Some(Store {
        host,
        port,
        tls,
        database,
        user,
        password_file: password_file.map_or(Some(None), |read| read.map(Some))?,
        ca_file: ca_file.flatten(),
        prefix: prefix?.to_owned(),
        lease: lease?,
        timeout: answers?,
        on_loss: on_loss?,
    })
}

struct Url {
    host: String,
    port: u16,
    tls: bool,
    database: i64,
    user: Option<String>,
}

fn url(text: &str) -> Result<Url, String> {
    let expected = "redis:// or rediss:// (TLS), an optional user, a host, and optionally a port and a database, as in rediss://gate@redis.internal:6379/0";
    let wrong = || expected.to_owned();
    let (tls, rest) = match text.split_once("://").ok_or_else(wrong)? {
        ("redis", rest) => (false, rest),
        ("rediss", rest) => (true, rest),
        _ => return Err(wrong()),
    };
    let (user, rest) = match rest.rsplit_once('@') {
        Some((user, _)) if user.contains(':') => {
            return Err("a URL without a password; put the password into the file quota.store.password_file".to_owned());
        }
        Some((user, rest)) => (Some(user), rest),
        None => (None, rest),
    };
    if user.is_some_and(|user| user.is_empty() || !user.bytes().all(|byte| byte.is_ascii_graphic())) {
        return Err(wrong());
    }
    let (authority, database) = match rest.split_once('/') {
        Some((authority, "")) => (authority, 0),
        Some((authority, number)) => (authority, number.parse::<u16>().map_err(|_| wrong())?),
        None => (rest, 0),
    };
    let (host, port) = host_and_optional_port(authority).ok_or_else(wrong)?;
    Ok(Url {
        host: host.to_owned(),
        port: port.map_or(PORT, |port| port),
        tls,
        database: database.into(),
        user: user.map(str::to_owned),
    })
}

fn prefix(text: &str) -> Result<&str, String> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let is_valid = (1..=64).contains(&text.len()) && text.bytes().all(fits);
    is_valid.then_some(text).ok_or_else(|| "1 to 64 letters, digits, '-', '_' and '.'".to_owned())
}

//! The keys `identity`, `oauth` and `token_health`, and the keys of a token about its origin.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use super::accounts::{self, TokenCounters};
use super::reader::{At, Findings, Table};
use super::upstream::{HTTPS, certificates_of, host_and_optional_port};
use super::{TokenSource, Upstream, policy, rules, timeout};
use crate::files::Purpose;
use crate::policy::names::TokenAlias;

/// The keys of a token that are read here.
pub const TOKEN_KEYS: [&str; 7] =
    ["owner", "client_id", "client_secret_file", "refresh_file", "expires", "standby", "counters"];

/// Details of a token in addition to its file and scopes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Origin {
    /// The login of the account that issued the token.
    pub owner: Option<Box<str>>,
    /// The application that the token was issued to.
    pub client_id: Option<Box<str>>,
    /// The file with the secret of the application, which only commands read.
    pub client_secret_file: Option<PathBuf>,
    /// The file with the token that renews this one, which only commands read and write.
    pub refresh_file: Option<PathBuf>,
    /// The end of its validity, if known.
    pub expires: Option<SystemTime>,
    /// The token to use while this one is unusable.
    pub standby: Option<TokenAlias>,
    /// The counters of the account.
    pub counters: TokenCounters,
}

/// The service that identifies the owner of a token (<https://yandex.com/dev/id/doc/en/user-information>).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The server, and how to connect to it.
    pub place: Upstream,
    /// The path.
    pub path: String,
}

/// The checks of tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenHealth {
    /// The time after which a rejected token is probed again; it doubles with each further rejection.
    pub probe_after: Duration,
    /// The upper bound of that time, five minutes at most.
    pub probe_at_most: Duration,
    /// Whether Metrica is asked for the rights of a token's owner on a counter that was refused.
    pub learn: bool,
}

/// Reads the origin of the token `own`; `names` are the names of all tokens.
pub fn origin(table: &Table<'_>, own: &str, names: &[&str], findings: &mut Findings) -> Option<Origin> {
    let owner = table.optional("owner").map(|at| at.text(findings, rules::login));
    let client_id = table.optional("client_id").map(|at| at.text(findings, client_id));
    let mut path = |key| table.optional(key).map(|at| at.text(findings, policy::file));
    let (client_secret_file, refresh_file) = (path("client_secret_file"), path("refresh_file"));
    let expires = table.optional("expires").map(|at| at.text(findings, day));
    let standby = table.optional("standby").map(|at| {
        at.text(findings, |text| {
            if names.contains(&text) && text != own {
                Ok(TokenAlias::new(text))
            } else {
                Err("the name of another token under 'tokens'".to_owned())
            }
        })
    });
    let counters = accounts::counters(table, findings);
    Some(Origin {
        counters: counters?,
        owner: owner.map_or(Some(None), |read| read.map(Some))?,
        client_id: client_id.map_or(Some(None), |read| read.map(Some))?,
        client_secret_file: client_secret_file.map_or(Some(None), |read| read.map(Some))?,
        refresh_file: refresh_file.map_or(Some(None), |read| read.map(Some))?,
        expires: expires.map_or(Some(None), |read| read.map(Some))?,
        standby: standby.map_or(Some(None), |read| read.map(Some))?,
    })
}

fn client_id(text: &str) -> Result<Box<str>, String> {
    let fits = (8..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric());
    fits.then(|| text.into())
        .ok_or_else(|| "the id of an application at oauth.yandex.ru: 32 letters and digits".to_owned())
}

/// Reads a moment, or a day, which means its beginning in UTC.
fn day(text: &str) -> Result<SystemTime, String> {
    let whole = if text.len() == 10 { format!("{text}T00:00:00Z") } else { text.to_owned() };
    humantime::parse_rfc3339(&whole)
        .map_err(|_| "a day as in 2027-03-31, or a moment as in 2027-03-31T12:00:00Z".to_owned())
}

/// Checks that a standby has the owner and at least the scopes of its token, and no standby of its own.
pub fn check_standbys(tokens: &[TokenSource], at: &At<'_>, findings: &mut Findings) {
    let ignored = &mut Findings::default();
    let Some(table) = at.any_table(ignored) else { return };
    for (alias, at) in table.entries_at() {
        let find = |wanted: &str| tokens.iter().find(|source| source.alias.as_str() == wanted);
        let Some(token) = find(alias) else { continue };
        let Some(standby) = token.origin.standby.and_then(|standby| find(standby.as_str())) else { continue };
        let Some(at) = at.any_table(ignored).and_then(|table| table.optional("standby")) else { continue };
        if token.origin.owner.is_none() || token.origin.owner != standby.origin.owner {
            at.wrong(findings, "has no effect: set the same 'owner' for both tokens, because a standby must belong to the same account");
        }
        if token.scopes.iter().any(|scope| !standby.scopes.covers([scope].into_iter().collect())) {
            at.wrong(findings, "lacks a scope: a standby must have all scopes of its token");
        }
        if standby.origin.standby.is_some() {
            at.wrong(findings, "has a standby itself; standbys cannot be chained");
        }
    }
}

/// The upper bound of both probe intervals, whatever the configuration sets.
const LONGEST_WAIT: Duration = Duration::from_secs(300);

/// Reads `token_health`.
pub fn token_health(at: Option<&At<'_>>, findings: &mut Findings) -> Option<TokenHealth> {
    let table = match at {
        Some(at) => Some(at.table(findings, &["probe_after", "probe_at_most", "learn"])?),
        None => None,
    };
    let table = table.as_ref();
    let mut wait = |key, default| timeout(table, key, default, findings).map(|wait| wait.min(LONGEST_WAIT));
    let (probe_after, probe_at_most) =
        (wait("probe_after", Duration::from_secs(30)), wait("probe_at_most", LONGEST_WAIT));
    let learn = table.and_then(|table| table.optional("learn")).map_or(Some(true), |at| at.bool(findings));
    Some(TokenHealth { probe_after: probe_after?, probe_at_most: probe_at_most?, learn: learn? })
}

/// Reads `identity`; its connections use the settings of the upstream.
pub fn identity(at: Option<&At<'_>>, upstream: Option<&Upstream>, findings: &mut Findings) -> Option<Option<Identity>> {
    let Some(at) = at else { return Some(None) };
    let table = at.table(findings, &["url", "ca_file", "connect_to"])?;
    let (host, port, path) = table.required(findings, "url")?.text(findings, url)?;
    let place = beside(upstream?, host, port, Some((&table, Purpose::Identity)), findings);
    Some(Some(Identity { place, path }))
}

/// The host of the OAuth server, if `oauth` names no other.
const OAUTH: &str = "oauth.yandex.ru";

/// Reads `oauth`; its connections use the settings of the upstream.
pub fn oauth(at: Option<&At<'_>>, upstream: Option<&Upstream>, findings: &mut Findings) -> Option<Upstream> {
    let Some(at) = at else { return Some(beside(upstream?, OAUTH.to_owned(), HTTPS, None, findings)) };
    let table = at.table(findings, &["url", "ca_file", "connect_to"])?;
    let (host, port) = match table.optional("url") {
        Some(at) => at.text(findings, |text| {
            let wrong = || format!("an https URL without a path, as in https://{OAUTH}");
            let (host, port, path) = url(&format!("{}/", text.trim_end_matches('/'))).map_err(|_| wrong())?;
            if path == "/" { Ok((host, port)) } else { Err(wrong()) }
        })?,
        None => (OAUTH.to_owned(), HTTPS),
    };
    Some(beside(upstream?, host, port, Some((&table, Purpose::OAuth)), findings))
}

impl super::Config {
    /// Returns the domain of the Yandex site that the OAuth server belongs to: its pages share the session of the login.
    #[must_use]
    pub fn oauth_site(&self) -> &'static str {
        if self.oauth.host.ends_with(".com") { "com" } else { "ru" }
    }
}

/// Returns another host that is connected to with the settings of the upstream, and with the keys of `table`.
pub fn beside(
    upstream: &Upstream,
    host: String,
    port: u16,
    table: Option<(&Table<'_>, Purpose)>,
    findings: &mut Findings,
) -> Upstream {
    let mut place = upstream.clone();
    place.authority = if port == HTTPS { host.clone() } else { format!("{host}:{port}") };
    (place.host, place.port, place.http2, place.connections) = (host, port, false, 1);
    (place.extra_roots, place.ca_file, place.connect_to) = (Vec::new(), None, None);
    let Some((table, purpose)) = table else { return place };
    if let Some(at) = table.optional("ca_file") {
        (place.extra_roots, place.ca_file) = certificates_of(&at, purpose, findings);
    }
    place.connect_to = table.optional("connect_to").and_then(|at| at.text(findings, super::upstream::host_and_port));
    place
}

/// Reads an https URL with a path: the host, the port and the path.
pub fn url(text: &str) -> Result<(String, u16, String), String> {
    let wrong = || "an https URL with a path, as in https://login.yandex.ru/info".to_owned();
    let rest = text.strip_prefix("https://").ok_or_else(wrong)?;
    let (authority, path) = rest.split_at(rest.find('/').ok_or_else(wrong)?);
    let (host, port) = host_and_optional_port(authority).ok_or_else(wrong)?;
    let fits = path.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/-_.".contains(&byte));
    fits.then(|| (host.to_ascii_lowercase(), port.unwrap_or(HTTPS), path.to_owned())).ok_or_else(wrong)
}

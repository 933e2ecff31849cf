//! The key `service_accounts`: how the tokens of Kubernetes service accounts are verified.
//!
//! 1. The public keys come from a file (`jwks_file`), which is read with the configuration, or from a server (`jwks_url`).
//! 2. With `ca_file`, only its authorities are trusted for that server. Proxies are not used for it.
//! 3. Issuer and audience are required. A token for another audience must not be accepted, because its recipient could use it here.

use std::fmt::Display;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use super::health::{beside, url};
use super::reader::{At, Findings, Table};
use super::values::allow_mode;
use super::{Upstream, policy};
use crate::files::{ExternalFile, Purpose, reading};
use crate::policy::service_account::{Algorithm, KeySet, TokenRules};

/// The verification of service account tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceAccounts {
    /// The requirements for tokens.
    pub rules: TokenRules,
    /// The source of the public keys.
    pub source: KeySource,
}

/// The source of the public keys of service account tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySource {
    /// A file.
    File {
        /// The path.
        file: PathBuf,
        /// The content.
        keys: KeySet,
    },
    /// A server.
    Server(Box<KeyServer>),
}

/// A server that publishes the keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyServer {
    /// The server, and how to connect to it.
    pub place: Upstream,
    /// The path.
    pub path: String,
    /// The file with the token that the gate sends to the server, and the permissions of group and others that are tolerated
    /// for it on a read-only mount.
    pub bearer: Option<(PathBuf, Option<u32>)>,
}

impl ServiceAccounts {
    /// Returns the server of the keys, if there is one.
    #[must_use]
    pub const fn server(&self) -> Option<&KeyServer> {
        match &self.source {
            KeySource::File { .. } => None,
            KeySource::Server(server) => Some(server),
        }
    }

    /// Returns the age of the file with the keys in days, if it is so old that the cluster may have rotated its keys.
    #[must_use]
    pub fn days_of_old_file(&self, now: SystemTime) -> Option<u64> {
        let KeySource::File { file, keys: _ } = &self.source else { return None };
        let written = file.metadata().and_then(|found| found.modified()).ok()?;
        let days = now.duration_since(written).ok()?.as_secs() / (24 * 60 * 60);
        (days >= OLD).then_some(days)
    }

    /// Returns the rows of the files.
    pub fn external(&self) -> impl Iterator<Item = ExternalFile> {
        let (file, server) = match &self.source {
            KeySource::File { file, keys: _ } => (Some(ExternalFile::new(Purpose::KeySet, file)), None),
            KeySource::Server(server) => (None, Some(server)),
        };
        let authorities = server.and_then(|server| server.place.ca_file.as_deref());
        let authorities = authorities.map(|path| ExternalFile::new(Purpose::KeySet, path));
        let bearer = server.and_then(|server| server.bearer_row());
        file.into_iter().chain(authorities).chain(bearer)
    }
}

impl KeyServer {
    /// Returns the row of the file with the token for the server.
    #[must_use]
    pub fn bearer_row(&self) -> Option<ExternalFile> {
        let (path, allow_mode) = self.bearer.as_ref()?;
        Some(ExternalFile::secret(Purpose::KeyServerToken, path, *allow_mode))
    }
}

/// The number of days after which a file with keys is old. Clusters of cloud providers rotate their keys every few weeks.
const OLD: u64 = 30;

/// The time for a response of the server.
const PATIENCE: Duration = Duration::from_secs(10);

/// The maximum size of a key set in bytes.
pub const KEY_SET_BYTES: usize = 256 * 1024;

const KEYS: [&str; 9] =
    ["jwks_file", "jwks_url", "ca_file", "connect_to", "bearer_file", "allow_mode", "issuer", "audience", "algorithms"];

/// The keys that concern a server only.
const OF_SERVER: [&str; 4] = ["ca_file", "connect_to", "bearer_file", "allow_mode"];

/// Reads `service_accounts`.
pub fn read(root: &Table<'_>, upstream: Option<&Upstream>, findings: &mut Findings) -> Option<Option<ServiceAccounts>> {
    let Some(at) = root.optional("service_accounts") else { return Some(None) };
    let table = at.table(findings, &KEYS)?;
    let mut required = |key: &str, example: &str| {
        let read = |text: &str| if text.is_empty() { Err(example.to_owned()) } else { Ok(Box::<str>::from(text)) };
        table.required(findings, key)?.text(findings, read)
    };
    let issuer = required("issuer", "the issuer of the tokens, as in https://kubernetes.default.svc.cluster.local");
    let audience = required("audience", "the audience of the tokens, as in metrika-gate");
    let algorithms = table.optional("algorithms").map_or_else(
        || Some([Algorithm::RS256].into()),
        |at| {
            let elements = at.filled_list(findings)?;
            let read: Vec<_> = elements.iter().map(|at| at.text(findings, algorithm)).collect();
            read.into_iter().collect::<Option<Box<[Algorithm]>>>().filter(|read| !read.is_empty())
        },
    );
    let source = source(&table, upstream, findings);
    let rules = TokenRules { issuer: issuer?, audience: audience?, algorithms: algorithms? };
    Some(Some(ServiceAccounts { rules, source: source? }))
}

fn algorithm(name: &str) -> Result<Algorithm, String> {
    Algorithm::parse(name).ok_or_else(|| Algorithm::ALL.map(Algorithm::as_str).join(", "))
}

fn source(table: &Table<'_>, upstream: Option<&Upstream>, findings: &mut Findings) -> Option<KeySource> {
    match (table.optional("jwks_file"), table.optional("jwks_url")) {
        (Some(at), None) => {
            for key in OF_SERVER {
                let at = table.optional(key);
                at.iter().for_each(|at| at.wrong(findings, "has no effect without 'jwks_url'; remove it"));
            }
            let (file, keys) = at.text(findings, |text| {
                let file = PathBuf::from(text);
                Ok((file.clone(), key_set(&ExternalFile::new(Purpose::KeySet, &file))?))
            })?;
            Some(KeySource::File { file, keys })
        }
        (None, Some(at)) => Some(KeySource::Server(Box::new(server(&at, table, upstream, findings)?))),
        (None, None) => {
            table.wrong(findings, "has neither 'jwks_file' nor 'jwks_url'; name the file with the public keys, or the server that publishes them");
            None
        }
        (Some(_), Some(at)) => {
            at.wrong(findings, "has no effect beside 'jwks_file'; remove one of them");
            None
        }
    }
}

/// Reads a key set from a file.
fn key_set(file: &ExternalFile) -> Result<KeySet, String> {
    let path = reading::shown(&file.path);
    let expected = |error: &dyn Display| format!("a readable file with a key set ({path}: {error})");
    let opened = file.open().map_err(|refusal| expected(&refusal))?;
    let bytes = reading::read_from(opened, KEY_SET_BYTES).map_err(|error| expected(&error))?;
    if bytes.len() > KEY_SET_BYTES {
        return Err("a file with a key set of at most 256KiB".to_owned());
    }
    KeySet::parse(&bytes).map_err(|error| error.to_string())
}

fn server(at: &At<'_>, table: &Table<'_>, upstream: Option<&Upstream>, findings: &mut Findings) -> Option<KeyServer> {
    let example = || "an https URL with a path, as in https://kubernetes.default.svc/openid/v1/jwks".to_owned();
    let read = at.text(findings, |text| url(text).map_err(|_| example()));
    let allow_mode = allow_mode(table, findings);
    let bearer = table.optional("bearer_file").map(|at| at.text(findings, policy::file));
    let (host, port, path) = read?;
    let mut place = beside(upstream?, host, port, Some((table, Purpose::KeySet)), findings);
    // Rule 2.
    (place.proxy, place.system_roots) = (None, place.ca_file.is_none());
    place.timeouts.response_headers = PATIENCE;
    let bearer = bearer.map_or(Some(None), |read| read.map(Some))?;
    let allow_mode = allow_mode?;
    Some(KeyServer { place, path, bearer: bearer.map(|file| (file, allow_mode)) })
}

//! The keys `tls` and `proxy` of a listener.
//!
//! 1. The certificate and its key are read with the configuration: a change of a file is a change of the configuration, and
//!    files that do not fit change nothing.
//! 2. The authorities in `client_ca` are read in the same way.
//! 3. A certificate that has expired or is not yet valid is no mistake: it is reported ([`Leaf::check_time`]), and does not hold
//!    up the start or other changes. A running gate does not use it in place of a valid one (`reload/renewal.rs`).
//! 4. A key and its certificate are replaced in two steps, of which the first decides ([`crate::files::replace_together`]). Where the
//!    second was interrupted, the certificate is read beside its place. Certificate and key are paired by the public key alone.

use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use zeroize::Zeroizing;

use super::Bind;
use super::process::folder;
use super::reader::{At, Findings, Table};
use super::upstream::certificates_of;
use super::values::allow_mode;
use crate::config::certificates::{Authority, ClientAuth, ClientTrust, LEAF_DAYS, Leaf, LeafError, NewKey};
use crate::files::writing::{NotLocked, lock_folder, staged};
use crate::files::{ExternalFile, Purpose, replace_like_before};
use crate::policy::names::ListenerName;

/// TLS of a listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// The certificate and its key.
    pub files: TlsFiles,
    /// The content of the files.
    pub leaf: Leaf,
    /// The certificates that clients present, if the listener asks for them.
    pub clients: Option<ClientAuth>,
    /// The end of the authority, if the gate renews the certificate.
    pub authority_end: Option<SystemTime>,
}

/// The files of a listener's certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate, and those between it and its authority.
    pub certificate: PathBuf,
    /// The key of the certificate.
    pub key: PathBuf,
    /// The permissions of group and others that are tolerated for the key on a read-only mount.
    pub allow_mode: Option<u32>,
    /// The folder of the authority with which the gate renews the certificate, if it does.
    pub renewed_from: Option<PathBuf>,
}

/// The file names in the folder of an authority.
pub mod names {
    /// The certificate of the authority.
    pub const AUTHORITY: &str = "ca.pem";
    /// The key of the authority.
    pub const AUTHORITY_KEY: &str = "ca.key";
    /// The certificate of the gate.
    pub const LEAF: &str = "leaf.pem";
    /// The key of the gate's certificate.
    pub const LEAF_KEY: &str = "leaf.key";
}

/// The maximum size of a certificate chain, and of a key, in bytes.
const CHAIN_BYTES: usize = 256 * 1024;

const KEYS: [&str; 7] = ["certificate", "key", "authority", "allow_mode", "renew", "client_ca", "client_auth"];

impl Tls {
    /// Returns the rows of the files of `listener`.
    #[must_use]
    pub fn external(&self, listener: ListenerName) -> Vec<ExternalFile> {
        let mut files = self.files.external(listener);
        let clients = self.clients.as_ref();
        files.extend(clients.map(|clients| ExternalFile::new(Purpose::ClientAuthority(listener), &clients.file)));
        files
    }
}

impl TlsFiles {
    fn external(&self, listener: ListenerName) -> Vec<ExternalFile> {
        let mut files = self.pair(listener).to_vec();
        if let Some(folder) = &self.renewed_from {
            files.extend(authority_files(folder, listener));
            files.push(ExternalFile::new(Purpose::Renewed(listener), &self.certificate));
        }
        files
    }

    /// Returns the rows of the certificate and its key.
    fn pair(&self, listener: ListenerName) -> [ExternalFile; 2] {
        [
            ExternalFile::new(Purpose::Certificate(listener), &self.certificate),
            ExternalFile::secret(Purpose::CertificateKey(listener), &self.key, self.allow_mode),
        ]
    }

    /// Issues another certificate for the same key, valid from `now`, and puts it in its place. Returns whether it did: not if
    /// the gate does not renew it, another process is issuing one, or has issued one that is not due.
    ///
    /// # Errors
    /// A file cannot be used, or the authority cannot issue a certificate.
    pub fn renew(&self, listener: ListenerName, now: SystemTime) -> Result<bool, String> {
        let Some(folder) = &self.renewed_from else { return Ok(false) };
        // The key stays the same from here on.
        let _lock = match lock_folder(folder) {
            Ok(lock) => lock,
            Err(NotLocked::Busy(_)) => return Ok(false),
            Err(error @ NotLocked::Failed { .. }) => return Err(format!("{:#}", anyhow::Error::new(error))),
        };
        let [certificate, key] = self.pair(listener);
        let key = Zeroizing::new(read(&key)?);
        // A certificate that cannot be read is replaced, too.
        if let Ok(in_place) = read(&certificate)
            && Leaf::read(&in_place, &key).is_ok_and(|leaf| leaf.due(now).is_none())
        {
            return Ok(false);
        }
        let key = std::str::from_utf8(&key).map_err(|error| refusal(&self.key, &error))?;
        let key = NewKey::read(key).map_err(|error| refusal(&self.key, &error))?;
        let issued = authority(folder, listener, now)?.issue(&key, LEAF_DAYS, now);
        let issued = issued.map_err(|error| error.to_string())?;
        let file = ExternalFile::new(Purpose::Renewed(listener), &self.certificate);
        file.check().map_err(|refusal| refusal.to_string())?;
        replace_like_before(&file.path, issued.as_bytes()).map_err(|error| error.to_string())?;
        Ok(true)
    }
}

/// Returns the rows of the certificate and the key of the authority in `folder`.
fn authority_files(folder: &Path, listener: ListenerName) -> [ExternalFile; 2] {
    [
        ExternalFile::new(Purpose::Authority(listener), &folder.join(names::AUTHORITY)),
        ExternalFile::new(Purpose::AuthorityKey(listener), &folder.join(names::AUTHORITY_KEY)),
    ]
}

/// Reads the authority in `folder`.
fn authority(folder: &Path, listener: ListenerName, now: SystemTime) -> Result<Authority, String> {
    let [certificate, key] = authority_files(folder, listener);
    let (certificate, bytes) = (read(&certificate)?, Zeroizing::new(read(&key)?));
    let text = std::str::from_utf8(&bytes).map_err(|error| refusal(&key.path, &error))?;
    Authority::read(&certificate, text, now).map_err(|error| refusal(folder, &error))
}

/// Reads `tls` of the listener with this name; a listener without a valid name is read for its mistakes.
pub fn tls(table: &Table<'_>, listener: Option<ListenerName>, findings: &mut Findings) -> Option<Option<Tls>> {
    let Some(at) = table.optional("tls") else { return Some(None) };
    let keys = at.table(findings, &KEYS)?;
    let allow_mode = allow_mode(&keys, findings);
    let path = |key: &str, findings: &mut Findings| keys.optional(key).map(|at| (at.text(findings, file), at));
    let (certificate, key) = (path("certificate", findings), path("key", findings));
    let renews = keys.flag("renew", findings);
    let clients = client_auth(&keys, listener, findings);
    let of_authority = keys.optional("authority").map(|at| (at.text(findings, folder), at));
    let mut renewed_from = None;
    let (certificate, key) = match (certificate, key, of_authority) {
        (None, None, Some((authority, at))) => {
            let authority = authority?;
            renewed_from = renews.then(|| authority.clone());
            ((authority.join(names::LEAF), at.clone()), (authority.join(names::LEAF_KEY), at))
        }
        (Some((certificate, at)), Some((key, of_key)), None) => ((certificate?, at), (key?, of_key)),
        (None, None, None) => {
            at.wrong(findings, "has neither 'authority' nor 'certificate' and 'key'; create an authority with `metrika-gate ca init`, or name a certificate");
            return None;
        }
        (Some(_), None, None) | (None, Some(_), None) => {
            at.wrong(findings, "has only one of 'certificate' and 'key'; add the other");
            return None;
        }
        (Some(_), _, Some(_)) | (_, Some(_), Some(_)) => {
            at.wrong(findings, "has both 'authority' and a certificate of its own; remove one");
            return None;
        }
    };
    if let (true, None, Some(at)) = (renews, &renewed_from, keys.optional("renew")) {
        at.wrong(findings, "needs 'authority': the gate renews only certificates of an authority that it has the key of; remove the key");
    }
    let listener = listener?;
    let files = TlsFiles { certificate: certificate.0, key: key.0, allow_mode: allow_mode?, renewed_from };
    let of_authority = files.renewed_from.as_ref().map(|folder| authority(folder, listener, SystemTime::now()));
    let authority_end = match of_authority {
        Some(Ok(authority)) => Some(authority.not_after()),
        Some(Err(error)) => {
            key.1.wrong(findings, error);
            None
        }
        None => None,
    };
    let leaf = leaf(&files, listener, (&certificate.1, &key.1), findings)?;
    Some(Some(Tls { files, leaf, clients: clients?, authority_end }))
}

/// Reads `client_ca` and `client_auth`.
fn client_auth(
    keys: &Table<'_>,
    listener: Option<ListenerName>,
    findings: &mut Findings,
) -> Option<Option<ClientAuth>> {
    let is_required = keys.optional("client_auth").map(|at| {
        let read = at.text(findings, |text| match text {
            "required" => Ok(true),
            "optional" => Ok(false),
            _ => Err("required or optional".to_owned()),
        });
        (read, at)
    });
    let Some(at) = keys.optional("client_ca") else {
        if let Some((_, at)) = is_required {
            at.wrong(
                findings,
                "needs 'client_ca': the file with the authorities whose certificates clients may present",
            );
            return None;
        }
        return Some(None);
    };
    let is_required = is_required.map_or(Some(true), |(read, _)| read);
    let (authorities, file) = certificates_of(&at, Purpose::ClientAuthority(listener?), findings);
    let clients = ClientAuth { file: file?, authorities, is_required: is_required? };
    // Its mistake is found already.
    if clients.authorities.is_empty() {
        return None;
    }
    match ClientTrust::new(&clients) {
        Ok(_) => Some(Some(clients)),
        Err(error) => {
            at.wrong(findings, refusal(&clients.file, &error));
            None
        }
    }
}

/// Reads `proxy`.
pub fn proxy(table: &Table<'_>, bind: Option<&Bind>, findings: &mut Findings) -> bool {
    let Some(at) = table.optional("proxy") else { return false };
    let is_proxy = table.flag("proxy", findings);
    if is_proxy && table.optional("tls").is_none() {
        at.wrong(findings, "needs 'tls': the certificate for the connections that callers open through the proxy; add tls: {authority: DIR}");
    }
    if is_proxy && matches!(bind, Some(Bind::Unix { .. })) {
        at.wrong(findings, "needs 'address': clients reach proxies over TCP only");
    }
    is_proxy
}

fn file(text: &str) -> Result<PathBuf, String> {
    folder(text).map_err(|_| "the path of a file".to_owned())
}

/// Reads the files (rule 1); the places are those of the keys that name them.
fn leaf(
    files: &TlsFiles,
    listener: ListenerName,
    (of_certificate, of_key): (&At<'_>, &At<'_>),
    findings: &mut Findings,
) -> Option<Leaf> {
    let [certificate, key] = files.pair(listener);
    let mut content = |file, at: &At<'_>| read(file).map_err(|error| at.wrong(findings, error)).ok();
    let (chain, key) = (content(&certificate, of_certificate), content(&key, of_key).map(Zeroizing::new));
    let (chain, key) = (chain?, key?);
    let read = match Leaf::read(&chain, &key) {
        Err(LeafError::Mismatch) => second_step(&certificate, &key).ok_or(LeafError::Mismatch),
        read => read,
    };
    let refused = |error: LeafError| {
        let (at, file) = match error {
            LeafError::NoKey | LeafError::Mismatch | LeafError::Unsupported(_) => (of_key, &files.key),
            LeafError::NoCertificate | LeafError::Unreadable => (of_certificate, &files.certificate),
        };
        at.wrong(findings, refusal(file, &error));
    };
    read.map_err(refused).ok()
}

/// Reads the certificate that fits `key` while its replacement is between its two steps (rule 4).
fn second_step(certificate: &ExternalFile, key: &[u8]) -> Option<Leaf> {
    let read_at = |file: &ExternalFile| Leaf::read(&read(file).ok()?, key).ok();
    let staged = ExternalFile::new(certificate.purpose, &staged(&certificate.path));
    // It may be in its place by now.
    read_at(&staged).map(Leaf::staged).or_else(|| read_at(certificate))
}

fn refusal(file: &Path, error: &dyn Display) -> String {
    format!("cannot use {}: {error}", crate::files::reading::shown(file))
}

/// Reads a file that its guard accepts.
fn read(file: &ExternalFile) -> Result<Vec<u8>, String> {
    let opened = file.open().map_err(|refused| refusal(&file.path, &refused))?;
    let read = crate::files::reading::read_from(opened, CHAIN_BYTES).map_err(|error| refusal(&file.path, &error))?;
    if read.len() > CHAIN_BYTES { Err(refusal(&file.path, &"it exceeds 256KiB")) } else { Ok(read) }
}

//! Files: the table of the files and ports that a configuration names.
//!
//! 1. All code that reads, watches, confines, checks or shows these files and ports takes them from [`External::of`]. A
//!    new file or port is one line there. A new [`Purpose`] also needs an arm in each match on it: its guard, its key in
//!    the configuration, and the time when it is read.
//! 2. A file is watched through every folder that determines what its path leads to: the folder of the file, and the
//!    folder of each symbolic link in any component of the path ([`folders`]).
//! 3. Changes of a file are detected by its metadata ([`Seen`]). A file that was written just now can change again
//!    without a difference in its metadata, so it counts as unknown.

use std::collections::{BTreeSet, VecDeque};
use std::ffi::OsString;
use std::fmt;
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, SystemTime};

use guard::{Guard, Refusal};

use crate::policy::names::{ListenerName, TokenAlias};

pub mod descriptors;
pub mod guard;
pub mod reading;
mod trouble;
pub mod writing;

pub use writing::{replace_like_before, replace_together};

/// The purpose of a file or port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Purpose {
    /// The configuration file.
    Configuration,
    /// Connections to the upstream; as a file, the certificate authorities that they trust.
    Upstream,
    /// Connections to `identity`; as a file, the certificate authorities that they trust.
    Identity,
    /// Connections to the proxy, through which all others go; as a file, the credentials for it.
    Proxy,
    /// Connections to the OAuth server; as a file, the certificate authorities that they trust.
    OAuth,
    /// The token with this name.
    Token(TokenAlias),
    /// The record beside the token with this name, which has no secret.
    Record(TokenAlias),
    /// The secret of the application of the token with this name.
    ClientSecret(TokenAlias),
    /// The token that renews the token with this name.
    RefreshToken(TokenAlias),
    /// The unix socket of the listener with this name.
    Listener(ListenerName),
    /// The certificate of the listener with this name.
    Certificate(ListenerName),
    /// The key of the certificate of the listener with this name.
    CertificateKey(ListenerName),
    /// The certificate of the authority that renews the certificate of the listener with this name.
    Authority(ListenerName),
    /// The key of that authority.
    AuthorityKey(ListenerName),
    /// The certificate of the listener with this name, which the process renews.
    Renewed(ListenerName),
    /// The authorities for certificates of the clients of the listener with this name.
    ClientAuthority(ListenerName),
    /// The public keys of service account tokens; for a server that publishes them, also the authorities that it is verified by.
    KeySet,
    /// The token that the gate sends to this server.
    KeyServerToken,
    /// The counts that are kept for the next process.
    State,
    /// Connections to the store of the quotas; as a file, the certificate authorities that they trust.
    Store,
    /// The password for that store.
    StorePassword,
    /// Hashes of the keys of callers.
    Keys,
}

impl fmt::Display for Purpose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Configuration => f.write_str("the configuration"),
            Self::Upstream => f.write_str("upstream"),
            Self::Identity => f.write_str("identity"),
            Self::Proxy => f.write_str("proxy"),
            Self::OAuth => f.write_str("oauth"),
            Self::Token(alias) => write!(f, "token {alias}"),
            Self::Record(alias) => write!(f, "record of token {alias}"),
            Self::ClientSecret(alias) => write!(f, "client secret of token {alias}"),
            Self::RefreshToken(alias) => write!(f, "refresh token of token {alias}"),
            Self::Listener(name) => write!(f, "listener {name}"),
            Self::Certificate(name) => write!(f, "certificate of listener {name}"),
            Self::CertificateKey(name) => write!(f, "key of listener {name}"),
            Self::Authority(name) => write!(f, "authority of listener {name}"),
            Self::AuthorityKey(name) => write!(f, "key of the authority of listener {name}"),
            Self::Renewed(name) => write!(f, "renewed certificate of listener {name}"),
            Self::ClientAuthority(name) => write!(f, "authorities for clients of listener {name}"),
            Self::KeySet => f.write_str("keys of service accounts"),
            Self::KeyServerToken => f.write_str("token for the server of the keys of service accounts"),
            Self::State => f.write_str("state"),
            Self::Store => f.write_str("quota store"),
            Self::StorePassword => f.write_str("password of the quota store"),
            Self::Keys => f.write_str("keys of callers"),
        }
    }
}

/// The time when a file is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Read {
    /// At the start: the file is the configuration.
    First,
    /// Together with the configuration, and only then: a change of the file is a change of the configuration.
    WithIt,
    /// On its own, whenever it changes.
    Alone,
    /// Never: the process creates it.
    Never,
    /// At the start, after which the process writes it.
    Before,
    /// By commands only: a process that serves never reads it.
    ByCommands,
}

impl Purpose {
    /// Returns the time when files of this purpose are read.
    #[must_use]
    pub const fn read(self) -> Read {
        match self {
            Self::Configuration => Read::First,
            Self::Upstream
            | Self::Identity
            | Self::OAuth
            | Self::Proxy
            | Self::Store
            | Self::Keys
            | Self::Certificate(_)
            | Self::CertificateKey(_)
            | Self::Authority(_)
            | Self::AuthorityKey(_)
            | Self::ClientAuthority(_)
            | Self::KeySet => Read::WithIt,
            Self::Token(_) | Self::Record(_) | Self::StorePassword | Self::KeyServerToken => Read::Alone,
            Self::ClientSecret(_) | Self::RefreshToken(_) => Read::ByCommands,
            Self::Listener(_) => Read::Never,
            Self::State | Self::Renewed(_) => Read::Before,
        }
    }

    /// Returns the guard for files of this purpose. `allow_mode` is the setting of a secret in the configuration.
    const fn guard(self, allow_mode: Option<u32>) -> Guard {
        match self {
            Self::Configuration
            | Self::Upstream
            | Self::Identity
            | Self::OAuth
            | Self::Store
            | Self::Keys
            | Self::Certificate(_)
            | Self::Authority(_)
            | Self::ClientAuthority(_)
            | Self::KeySet
            | Self::Record(_) => Guard::Trusted,
            Self::Token(_)
            | Self::ClientSecret(_)
            | Self::RefreshToken(_)
            | Self::Proxy
            | Self::StorePassword
            | Self::KeyServerToken
            | Self::CertificateKey(_)
            | Self::AuthorityKey(_) => Guard::Secret { allow_mode },
            Self::Listener(_) => Guard::Made,
            Self::State | Self::Renewed(_) => Guard::Kept,
        }
    }

    /// Returns the key of the configuration that names the file or port.
    #[must_use]
    pub fn key(self) -> String {
        match self {
            Self::Configuration => String::new(),
            Self::Upstream => "upstream".to_owned(),
            Self::Identity => "identity".to_owned(),
            Self::Proxy => "upstream.proxy_auth_file".to_owned(),
            Self::OAuth => "oauth".to_owned(),
            Self::Token(alias) | Self::Record(alias) | Self::ClientSecret(alias) | Self::RefreshToken(alias) => {
                format!("tokens.{alias}")
            }
            Self::Listener(_) => "listeners".to_owned(),
            Self::Certificate(_)
            | Self::CertificateKey(_)
            | Self::Authority(_)
            | Self::AuthorityKey(_)
            | Self::Renewed(_)
            | Self::ClientAuthority(_) => "tls".to_owned(),
            Self::KeySet | Self::KeyServerToken => "service_accounts".to_owned(),
            Self::State => "state_dir".to_owned(),
            Self::Store | Self::StorePassword => "quota.store".to_owned(),
            Self::Keys => "keys_file".to_owned(),
        }
    }
}

/// A file that the process reads or creates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExternalFile {
    /// The purpose.
    pub purpose: Purpose,
    /// The path.
    pub path: PathBuf,
    /// The permissions that the file must have.
    pub guard: Guard,
}

impl ExternalFile {
    /// Returns the row for the file at `path`.
    #[must_use]
    pub fn new(purpose: Purpose, path: &Path) -> Self {
        Self { purpose, path: path.to_owned(), guard: purpose.guard(None) }
    }

    /// Returns the row for the secret at `path`. `allow_mode` lists the permissions that group and others may have on a
    /// read-only mount.
    #[must_use]
    pub fn secret(purpose: Purpose, path: &Path, allow_mode: Option<u32>) -> Self {
        Self { purpose, path: path.to_owned(), guard: purpose.guard(allow_mode) }
    }

    /// Opens the file if its guard accepts it.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn open(&self) -> Result<File, Refusal> {
        self.guard.open(&self.path, &self.purpose.key())
    }

    /// Checks the folders of a secret that is about to be written, by the rule that its guard applies to them later.
    ///
    /// # Errors
    /// [`Refusal::Writable`].
    pub fn check_place(&self) -> Result<(), Refusal> {
        reading::check_folder(&self.path).map_err(Refusal::Writable)
    }

    /// Puts `bytes` in the place of the file, if its guard accepts that.
    ///
    /// # Errors
    /// [`Refusal`], or the errors of writing.
    pub fn replace(&self, bytes: &[u8]) -> std::io::Result<()> {
        self.check()?;
        writing::replace(&self.path, bytes)
    }

    /// Checks the file against its guard.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn check(&self) -> Result<(), Refusal> {
        self.guard.check(&self.path, &self.purpose.key())
    }
}

/// A port that the process connects to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExternalPort {
    /// The purpose.
    pub purpose: Purpose,
    /// The port number.
    pub port: u16,
}

/// The files and ports that a configuration names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct External {
    /// The files that the process reads or creates.
    pub files: Vec<ExternalFile>,
    /// The ports that the process connects to.
    pub ports: Vec<ExternalPort>,
}

impl External {
    /// Returns the files that the process reads while it runs.
    pub fn read(&self) -> impl Iterator<Item = &ExternalFile> {
        let is_read = |read| !matches!(read, Read::Never | Read::Before | Read::ByCommands);
        self.files.iter().filter(move |file| is_read(file.purpose.read()))
    }

    /// Returns the files that the process writes.
    pub fn written(&self) -> impl Iterator<Item = &ExternalFile> {
        self.files.iter().filter(|file| file.purpose.read() == Read::Before)
    }

    /// Returns the files that the process creates.
    pub fn made(&self) -> impl Iterator<Item = &ExternalFile> {
        self.files.iter().filter(|file| file.purpose.read() == Read::Never)
    }

    /// Returns the files that are read only together with the configuration, so that a change of one is a change of it.
    pub fn read_with_it(&self) -> impl Iterator<Item = &ExternalFile> {
        self.files.iter().filter(|file| file.purpose.read() == Read::WithIt)
    }

    /// Returns the folders to watch (rule 2).
    #[must_use]
    pub fn watched(&self) -> BTreeSet<PathBuf> {
        self.read().flat_map(|file| folders(&file.path)).collect()
    }
}

/// The number of symbolic links that the kernel follows (path_resolution(7)).
const LINKS: usize = 40;

/// Returns the folders that determine what `path` leads to (rule 2), without symbolic links in them. A folder that does
/// not exist is returned under its expected path.
#[must_use]
pub fn folders(path: &Path) -> BTreeSet<PathBuf> {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let mut left: VecDeque<OsString> = names(&absolute).collect();
    let (mut at, mut found, mut links) = (PathBuf::from("/"), BTreeSet::new(), 0);
    while let Some(name) = left.pop_front() {
        if name == ".." {
            at.pop();
            continue;
        }
        let next = at.join(&name);
        let target = next.read_link().ok().filter(|_| links < LINKS);
        if target.is_some() || left.is_empty() {
            found.insert(at.clone());
        }
        let Some(target) = target else {
            at = next;
            continue;
        };
        links += 1;
        if target.is_absolute() {
            at = PathBuf::from("/");
        }
        for name in names(&target).collect::<Vec<_>>().into_iter().rev() {
            left.push_front(name);
        }
    }
    found
}

fn names(path: &Path) -> impl Iterator<Item = OsString> {
    path.components().filter_map(|component| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    })
}

/// The state of a path according to its metadata.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// No file, or no access to its metadata.
    Nothing,
    /// A file: device, inode, length, mode, owner, and time of the last change in nanoseconds since 1970.
    File(u64, u64, u64, u32, u32, i128),
    /// A file that may change again without a difference in its metadata (rule 3).
    Unknown,
}

/// The time after a write in which another one may not change the metadata: clocks of file systems are coarse.
pub const COARSE: Duration = Duration::from_millis(100);

impl Seen {
    /// Returns the current state of `path`.
    #[must_use]
    pub fn at(path: &Path) -> Self {
        let Ok(found) = path.metadata() else { return Self::Nothing };
        if age(path).is_some_and(|age| age < COARSE) {
            return Self::Unknown;
        }
        Self::File(found.dev(), found.ino(), found.len(), found.mode(), found.uid(), changed(&found))
    }
}

/// Returns the time since the last change of the file at `path`; `None` if there is no file, or if its time is in the
/// future.
#[must_use]
pub fn age(path: &Path) -> Option<Duration> {
    let changed = u128::try_from(changed(&path.metadata().ok()?)).ok()?;
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).ok()?;
    let age = now.as_nanos().checked_sub(changed)?;
    u64::try_from(age).ok().map(Duration::from_nanos)
}

fn changed(found: &std::fs::Metadata) -> i128 {
    i128::from(found.ctime()) * 1_000_000_000 + i128::from(found.ctime_nsec())
}

/// Whether the file at `path` was unlinked. This is the case for a file that was mounted on its own and then replaced in
/// its original folder.
#[must_use]
pub fn was_replaced_behind_a_mount(path: &Path) -> bool {
    path.metadata().is_ok_and(|found| found.is_file() && found.nlink() == 0)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn rule_2_every_folder_that_decides_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().canonicalize().unwrap().join(name);
        for inner in ["real/deep", "links", "other"] {
            std::fs::create_dir_all(at(inner)).unwrap();
        }
        std::fs::write(at("real/deep/file"), "").unwrap();
        symlink(at("real"), at("links/real")).unwrap();
        symlink("../links/real/deep/file", at("other/file")).unwrap();
        let found = |path: &str| {
            let found = folders(&at(path));
            found.iter().map(|folder| folder.strip_prefix(at("")).unwrap().display().to_string()).collect::<Vec<_>>()
        };
        assert_eq!(found("real/deep/file"), ["real/deep"]);
        assert_eq!(found("links/real/deep/file"), ["links", "real/deep"]);
        assert_eq!(found("other/file"), ["links", "other", "real/deep"]);
        assert_eq!(found("other/../links/real/deep/none"), ["links", "real/deep"]);
        assert_eq!(found("none/deep/file"), ["none/deep"]);
        symlink("loop", at("other/loop")).unwrap();
        assert_eq!(found("other/loop"), ["other"], "it ends");
    }

    #[test]
    fn rule_3_a_file_written_just_now_has_an_unknown_state() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert_eq!(Seen::at(file.path()), Seen::Unknown);
        std::thread::sleep(COARSE + Duration::from_millis(20));
        let seen = Seen::at(file.path());
        assert!(matches!(seen, Seen::File(..)) && seen == Seen::at(file.path()));
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o640);
        std::fs::set_permissions(file.path(), mode).unwrap();
        assert_ne!(Seen::at(file.path()), seen);
        assert_eq!(Seen::at(Path::new("/none")), Seen::Nothing);
    }

    #[test]
    fn a_file_without_a_name_is_detected() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(!was_replaced_behind_a_mount(file.path()));
        let (open, path) = file.into_parts();
        let open_as = PathBuf::from(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&open)));
        drop(path);
        assert!(was_replaced_behind_a_mount(&open_as));
        assert!(!was_replaced_behind_a_mount(Path::new("/proc/self")));
    }
}

//! External: everything that a configuration names outside itself, in one table.
//!
//! 1. Who follows, watches, confines, judges or shows files and ports takes them from [`External::of`]: there a new one is one
//!    line, and one of a new [`Purpose`] is what the matches on it ask for: who may do what with it, where the configuration
//!    names it, when it is read.
//! 2. A file is watched by the folders that decide what stands at its path: the one that it is in, and that of each symbolic
//!    link on the way, in whatever component of the path ([`folders`]).
//! 3. Whether a file has changed is seen from its metadata ([`Seen`]). What was written just now can change once more
//!    without a trace, so it counts as unknown.

use std::collections::{BTreeSet, VecDeque};
use std::ffi::OsString;
use std::fmt;
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::config::{Bind, Config, TokenSource, Upstream};
use crate::descriptors::is_shortage;
use crate::file::guard::{Guard, Refusal};
use crate::symbol::{ListenerName, TokenAlias};

/// What a file or port is there for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Purpose {
    /// The configuration itself.
    Configuration,
    /// Connections to the upstream; of files, whose certificates they trust.
    Upstream,
    /// The same of `identity`.
    Identity,
    /// The token of this name.
    Token(TokenAlias),
    /// The unix socket of this listener.
    Listener(ListenerName),
}

impl fmt::Display for Purpose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Configuration => f.write_str("the configuration"),
            Self::Upstream => f.write_str("upstream"),
            Self::Identity => f.write_str("identity"),
            Self::Token(alias) => write!(f, "token {alias}"),
            Self::Listener(name) => write!(f, "listener {name}"),
        }
    }
}

/// When a file is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Read {
    /// It is the configuration.
    First,
    /// With the configuration, and only then: a change of it is a change of the configuration.
    WithIt,
    /// By itself, whenever it changes.
    Alone,
    /// Never: it is made.
    Never,
}

impl Purpose {
    /// When files of it are read.
    #[must_use]
    pub const fn read(self) -> Read {
        match self {
            Self::Configuration => Read::First,
            Self::Upstream | Self::Identity => Read::WithIt,
            Self::Token(_) => Read::Alone,
            Self::Listener(_) => Read::Never,
        }
    }

    /// Who may do what with files of it, where the configuration lets `allow_mode` be done.
    const fn guard(self, allow_mode: Option<u32>) -> Guard {
        match self {
            Self::Configuration | Self::Upstream | Self::Identity => Guard::Trusted,
            Self::Token(_) => Guard::Secret { allow_mode },
            Self::Listener(_) => Guard::Made,
        }
    }

    /// The key of the configuration under which it is named.
    #[must_use]
    pub fn key(self) -> String {
        match self {
            Self::Configuration => String::new(),
            Self::Upstream => "upstream".to_owned(),
            Self::Identity => "identity".to_owned(),
            Self::Token(alias) => format!("tokens.{alias}"),
            Self::Listener(_) => "listeners".to_owned(),
        }
    }
}

/// A file that is read or made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExternalFile {
    /// What for.
    pub purpose: Purpose,
    /// Where.
    pub path: PathBuf,
    /// Who may do what with it.
    pub guard: Guard,
}

impl ExternalFile {
    /// The file at `path` for `purpose`.
    #[must_use]
    pub fn new(purpose: Purpose, path: &Path) -> Self {
        Self { purpose, path: path.to_owned(), guard: purpose.guard(None) }
    }

    /// That of a token.
    #[must_use]
    pub fn of_token(source: &TokenSource) -> Self {
        let purpose = Purpose::Token(source.alias);
        Self { purpose, path: source.file.clone(), guard: purpose.guard(source.allow_mode) }
    }

    /// Opens it, if it is as it should be.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn open(&self) -> Result<File, Refusal> {
        self.guard.open(&self.path, &self.purpose.key())
    }

    /// Whether it is as it should be.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn check(&self) -> Result<(), Refusal> {
        self.guard.check(&self.path, &self.purpose.key())
    }

    /// Why it cannot be used as it stands there now, for people. A want of descriptors is nothing of the file's.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        let path = crate::file::shown(&self.path);
        match self.check() {
            Ok(()) if was_replaced_behind_a_mount(&self.path) => {
                Some(format!("{path} was replaced where it was mounted from, which is not seen here"))
            }
            Ok(()) => None,
            Err(Refusal::Missing(_)) => Some(format!("{path} is missing")),
            Err(Refusal::Unreadable(error)) if is_shortage(&error) => None,
            Err(Refusal::Unreadable(error)) => Some(format!("{path} cannot be read: {error}")),
            Err(Refusal::Writable(error)) => Some(format!("{path} is not taken: {error}")),
            Err(Refusal::Permissions { what, mend }) => Some(format!("{path} {what}; {mend}")),
        }
    }
}

/// A port that is connected to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExternalPort {
    /// What for.
    pub purpose: Purpose,
    /// Its number.
    pub port: u16,
}

/// Everything that a configuration names outside itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct External {
    /// Files that are read or made.
    pub files: Vec<ExternalFile>,
    /// Ports that are connected to.
    pub ports: Vec<ExternalPort>,
}

impl External {
    /// Of `config`, which was read from `file`.
    #[must_use]
    pub fn of(config: &Config, file: Option<&Path>) -> Self {
        let identity = config.identity.as_ref().map(|identity| &identity.place);
        let named = |purpose, path: Option<&Path>| path.map(|path| ExternalFile::new(purpose, path));
        let mut files: Vec<_> = [
            named(Purpose::Configuration, file),
            named(Purpose::Upstream, config.upstream.ca_file.as_deref()),
            named(Purpose::Identity, identity.and_then(|place| place.ca_file.as_deref())),
        ]
        .into_iter()
        .flatten()
        .collect();
        files.extend(config.tokens.iter().map(ExternalFile::of_token));
        files.extend(config.listeners.iter().filter_map(|listener| match &listener.bind {
            Bind::Unix { path, .. } => named(Purpose::Listener(listener.name), Some(path)),
            Bind::Tcp(_) => None,
        }));
        let port = |place: &Upstream| place.connect_to.as_ref().map_or(place.port, |(_, port)| *port);
        let connected = |purpose, place: &Upstream| ExternalPort { purpose, port: port(place) };
        let ports = [
            Some(connected(Purpose::Upstream, &config.upstream)),
            identity.map(|place| connected(Purpose::Identity, place)),
        ];
        Self { files, ports: ports.into_iter().flatten().collect() }
    }

    /// The files that are read.
    pub fn read(&self) -> impl Iterator<Item = &ExternalFile> {
        self.files.iter().filter(|file| file.purpose.read() != Read::Never)
    }

    /// The files that are made.
    pub fn made(&self) -> impl Iterator<Item = &ExternalFile> {
        self.files.iter().filter(|file| file.purpose.read() == Read::Never)
    }

    /// The files that are read with the configuration, and only then: a change of one is a change of it.
    pub fn read_with_it(&self) -> impl Iterator<Item = &ExternalFile> {
        self.files.iter().filter(|file| file.purpose.read() == Read::WithIt)
    }

    /// The folders of the files that are read, to be watched (rule 2).
    #[must_use]
    pub fn watched(&self) -> BTreeSet<PathBuf> {
        self.read().flat_map(|file| folders(&file.path)).collect()
    }
}

/// As many links as the kernel follows (path_resolution(7)).
const LINKS: usize = 40;

/// The folders that decide what stands at `path` (rule 2), without links in them. One that does not exist is named as far as
/// it would be there.
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

/// What stands at a path, as far as its metadata tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// Nothing, or nothing that can be seen.
    Nothing,
    /// A file: its device, number, length, mode, owner, and when it changed last, in nanoseconds since 1970.
    File(u64, u64, u64, u32, u32, i128),
    /// One that may change once more without a trace (rule 3).
    Unknown,
}

/// For so long what was written may change without a trace: clocks of file systems are coarse.
pub const COARSE: Duration = Duration::from_millis(100);

impl Seen {
    /// Now, at `path`.
    #[must_use]
    pub fn at(path: &Path) -> Self {
        let Ok(found) = path.metadata() else { return Self::Nothing };
        if age(path).is_some_and(|age| age < COARSE) {
            return Self::Unknown;
        }
        Self::File(found.dev(), found.ino(), found.len(), found.mode(), found.uid(), changed(&found))
    }
}

/// How long ago the file at `path` changed last; `None` where nothing is, or where the clocks do not agree.
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

/// Whether the file at `path` has no name any more: it was mounted by itself, and another took its name where it came from.
#[must_use]
pub fn was_replaced_behind_a_mount(path: &Path) -> bool {
    path.metadata().is_ok_and(|found| found.is_file() && found.nlink() == 0)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn rule_1_the_table_has_everything_that_a_configuration_names() {
        let text = "
listeners: [{name: app, unix: {path: /run/gate/app.sock}}, {name: tcp, address: '127.0.0.1:0'}]
upstream: {connect_to: 'localhost:8443'}
identity: {url: 'https://login.yandex.ru/info'}
tokens: {one: {file: a/one, scopes: [metrika:read]}, two: {file: /b/two, scopes: [metrika:read]}}
callers: [{id: a, scopes: [metrika:read], tokens: [one], match: {listener: app, uid: [7]}}]
";
        let config = Config::parse(text, Path::new("gate.yaml")).unwrap();
        let external = External::of(&config, Some(Path::new("gate.yaml")));
        let files: Vec<_> =
            external.files.iter().map(|file| format!("{}: {}", file.purpose, file.path.display())).collect();
        assert_eq!(
            files,
            [
                "the configuration: gate.yaml",
                "token one: a/one",
                "token two: /b/two",
                "listener app: /run/gate/app.sock"
            ]
        );
        let ports: Vec<_> = external.ports.iter().map(|port| format!("{}: {}", port.purpose, port.port)).collect();
        assert_eq!(ports, ["upstream: 8443", "identity: 443"]);
        assert_eq!(external.read_with_it().count(), 0);
        assert!(
            external.watched().contains(Path::new("/b"))
                && external.watched().contains(&std::env::current_dir().unwrap())
        );
    }

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
    fn rule_3_what_was_written_just_now_is_unknown() {
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
    fn a_file_without_a_name_is_told() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(!was_replaced_behind_a_mount(file.path()));
        let (open, path) = file.into_parts();
        let open_as = PathBuf::from(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&open)));
        drop(path);
        assert!(was_replaced_behind_a_mount(&open_as));
        assert!(!was_replaced_behind_a_mount(Path::new("/proc/self")));
    }
}

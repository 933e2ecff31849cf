//! Sandbox: a process that serves can reach only what its work needs (Landlock, as far as the kernel supports it).
//!
//! 1. Files: the process can read the folders of files that the configuration names, and the system files for name
//!    look-ups and process metrics. It can remove files and create sockets in the folders of unix sockets, and read,
//!    create, change and remove files in `state_dir` and in the folders of authorities with `renew: true`. It can not
//!    open, create or change any other file, and it can execute none.
//! 2. Network: TCP connections are limited to the ports of the upstream, of `identity` and of DNS; no listener can be
//!    added. Sockets that the service manager passed are open already.
//! 3. Other processes: no signals to them, and no connections to their abstract unix sockets.
//! 4. The sandbox applies to the thread that enters it and to threads started later, so it is entered before the
//!    first one is started. It cannot be left.
//! 5. Features that the kernel lacks are left out; the achieved level is logged.
//! 6. A new configuration that needs more than the start allowed is rejected as a whole.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, AccessNet, LandlockStatus, NetPort, RestrictionStatus, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetError, RulesetStatus, Scope, path_beneath_rules,
};

use crate::files::External;
use crate::metrics::process::Confinement;

/// The newest Landlock version that the rules were reviewed for.
const KNOWN: ABI = ABI::V7;

/// System paths that the resolver and its modules, random numbers and the process metrics read. `/etc` is allowed as
/// a whole: its files are replaced by renaming, and a rule for a single file does not follow a rename.
const OF_THE_SYSTEM: [&str; 15] = [
    "/etc",
    "/lib",
    "/lib64",
    "/usr/lib",
    "/usr/lib64",
    "/usr/local/lib",
    "/run/systemd/resolve",
    "/run/resolvconf",
    "/run/NetworkManager",
    "/dev/null",
    "/dev/urandom",
    "/proc/self",
    "/proc/stat",
    "/proc/sys/vm/overcommit_memory",
    "/sys/devices/system/cpu",
];

/// The configuration of the resolver, which is often a symbolic link.
const RESOLVER: &str = "/etc/resolv.conf";

/// The port of DNS over TCP, used for responses that exceed a datagram.
const DNS: u16 = 53;

/// The access that a configuration needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Needs {
    /// Folders to read, with symbolic links resolved.
    pub read: BTreeSet<PathBuf>,
    /// Folders in which sockets are removed and created.
    pub remove: BTreeSet<PathBuf>,
    /// Folders in which files are read, created, changed and removed.
    pub write: BTreeSet<PathBuf>,
    /// TCP ports to connect to.
    pub connect: BTreeSet<u16>,
}

impl Needs {
    /// Whether a process with this access can read the file at `path`.
    #[must_use]
    pub fn can_read(&self, path: &Path) -> bool {
        let own = self.read.iter().chain(&self.write).map(PathBuf::as_path);
        let allowed: Vec<_> = own.chain(OF_THE_SYSTEM.map(Path::new)).collect();
        crate::files::folders(path).iter().any(|folder| allowed.iter().any(|allowed| folder.starts_with(allowed)))
    }

    /// Returns the access that `external` needs.
    #[must_use]
    pub fn of(external: &External) -> Self {
        Self {
            read: external.read().flat_map(|file| folders(&file.path)).collect(),
            remove: external.made().flat_map(|file| folders(&file.path)).collect(),
            write: external.written().flat_map(|file| folders(&file.path)).collect(),
            connect: external.ports.iter().map(|port| port.port).chain([DNS]).collect(),
        }
    }
}

/// The number of symbolic links that the kernel follows (path_resolution(7)).
const LINKS: usize = 40;

/// Returns the folder of `file` and, where `file` is a symbolic link, the folder of every step to its target. A
/// folder that does not exist yet is represented by its nearest existing ancestor.
fn folders(file: &Path) -> BTreeSet<PathBuf> {
    let mut step = std::path::absolute(file).unwrap_or_else(|_| file.to_owned());
    let mut found = BTreeSet::new();
    for _ in 0..LINKS {
        found.extend(step.ancestors().skip(1).find_map(|folder| folder.canonicalize().ok()));
        let Ok(target) = step.read_link() else { break };
        step.pop();
        step.push(target);
    }
    found
}

/// The access that the process has left.
#[derive(Debug, Clone)]
pub struct Sandbox {
    confinement: Confinement,
    /// The allowed folders; `None` where file access is not restricted.
    files: Option<BTreeSet<PathBuf>>,
    ports: Option<BTreeSet<u16>>,
}

/// A part of the configuration that the sandbox does not allow (rule 6).
#[derive(Debug, thiserror::Error)]
pub enum OutsideSandbox {
    /// A file outside of the allowed folders.
    #[error("{} is outside of the folders that the sandbox allows; restart the gate", .0.display())]
    File(PathBuf),
    /// A port that is not allowed.
    #[error("port {0} of the upstream is not a port that the sandbox allows; restart the gate")]
    Port(u16),
}

impl Sandbox {
    /// Returns a sandbox that restricts nothing.
    #[must_use]
    pub const fn none(confinement: Confinement) -> Self {
        Self { confinement, files: None, ports: None }
    }

    /// Confines this thread, and the threads that it starts later, to `needs`.
    #[must_use]
    pub fn enter(needs: &Needs) -> Self {
        let status = match restrict(needs) {
            Ok(status) => status,
            Err(error) => {
                tracing::warn!(%error, "the kernel rejected the sandbox; continuing without it");
                return Self::none(Confinement::None);
            }
        };
        let abi = match status.landlock {
            LandlockStatus::Available { effective_abi, .. } => effective_abi,
            LandlockStatus::NotEnabled | LandlockStatus::NotImplemented => ABI::Unsupported,
        };
        let confinement = match status.ruleset {
            RulesetStatus::FullyEnforced => Confinement::Full,
            RulesetStatus::PartiallyEnforced => Confinement::Partial,
            RulesetStatus::NotEnforced => return Self::none(Confinement::None),
        };
        let ports = (abi >= ABI::V4).then(|| needs.connect.clone());
        Self { confinement, files: Some(needs.read.clone()), ports }
    }

    /// Returns the achieved level of confinement.
    #[must_use]
    pub const fn confinement(&self) -> Confinement {
        self.confinement
    }

    /// Returns a hint for a file that cannot be opened although its permissions allow it.
    #[must_use]
    pub fn hint(&self, denied: bool) -> Option<&'static str> {
        let outside =
            "the sandbox allows only folders that existed at startup; restart the gate to read a new or recreated one";
        (denied && self.files.is_some()).then_some(outside)
    }

    /// Logs the state of the sandbox (rule 5).
    pub fn log_state(&self) {
        let state = self.confinement.as_str();
        let reads = self.files.as_ref().map(|folders| joined(folders.iter().map(|folder| folder.display())));
        let connects = self.ports.as_ref().map(|ports| joined(ports.iter()));
        tracing::info!(state, reads, connects, "sandbox");
    }

    /// Checks `needs` against the access that the start allowed (rule 6).
    ///
    /// # Errors
    /// [`OutsideSandbox`], for the first folder or port that is not allowed.
    pub fn permits(&self, needs: &Needs) -> Result<(), OutsideSandbox> {
        if let Some(allowed) = &self.files {
            let outside = needs.read.iter().find(|folder| !allowed.iter().any(|allowed| folder.starts_with(allowed)));
            outside.map_or(Ok(()), |folder| Err(OutsideSandbox::File(folder.clone())))?;
        }
        if let Some(allowed) = &self.ports {
            needs.connect.difference(allowed).next().map_or(Ok(()), |port| Err(OutsideSandbox::Port(*port)))?;
        }
        Ok(())
    }
}

fn joined(parts: impl Iterator<Item = impl std::fmt::Display>) -> String {
    parts.map(|part| part.to_string()).collect::<Vec<_>>().join(", ")
}

fn restrict(needs: &Needs) -> Result<RestrictionStatus, RulesetError> {
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    let write = read | AccessFs::WriteFile | AccessFs::MakeReg | AccessFs::RemoveFile;
    let resolver = folders(Path::new(RESOLVER));
    let ports = needs.connect.iter().map(|port| Ok::<_, RulesetError>(NetPort::new(*port, AccessNet::ConnectTcp)));
    Ruleset::default()
        .handle_access(AccessFs::from_all(KNOWN))?
        .handle_access(AccessNet::from_all(KNOWN))?
        .scope(Scope::from_all(KNOWN))?
        .create()?
        .add_rules(path_beneath_rules(OF_THE_SYSTEM, read))?
        .add_rules(path_beneath_rules(resolver, read))?
        .add_rules(path_beneath_rules(&needs.read, read))?
        .add_rules(path_beneath_rules(&needs.remove, AccessFs::RemoveFile | AccessFs::MakeSock))?
        .add_rules(path_beneath_rules(&needs.write, write))?
        .add_rules(ports)?
        .restrict_self()
}

#[cfg(test)]
mod tests;

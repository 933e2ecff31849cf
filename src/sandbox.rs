//! The sandbox: once it serves, the process reaches only what its work needs (Landlock, as far as the kernel has it).
//!
//! 1. Files: what stands in the folders of what the configuration names, and what looking up names and counting the
//!    process need, can be read; in the folders of unix sockets, files can be removed and sockets made. Nothing else is
//!    opened, made or changed, and nothing is executed.
//! 2. Network: TCP connections go to the ports of the upstream and of `identity`, and to that of DNS; no listener is added.
//! 3. Neighbours: no signal to another process, no abstract unix socket of another.
//! 4. It holds for the thread that enters it and for those started later, so it is entered before the first is; there
//!    is no way out.
//! 5. What the kernel lacks is left out, and how far it went is said.
//! 6. A configuration that needs more than was allowed at the start is refused as a whole.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, AccessNet, LandlockStatus, NetPort, RestrictionStatus, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetError, RulesetStatus, Scope, path_beneath_rules,
};

use crate::external::External;
use crate::metrics::process::Confinement;

/// The rules were weighed for what this one knows; a later one needs another look.
const KNOWN: ABI = ABI::V7;

/// What the resolver, its modules, random numbers and the metrics of the process read. The whole of `/etc`: its files
/// are replaced by renaming, and a rule for the file alone would not follow.
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

/// Where the resolver's configuration is, which is often a link.
const RESOLVER: &str = "/etc/resolv.conf";

/// The port of DNS, for answers that do not fit a datagram.
const DNS: u16 = 53;

/// What a configuration needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Needs {
    /// Folders to read in, as they are without links.
    pub read: BTreeSet<PathBuf>,
    /// Folders to remove sockets in, and to make them again.
    pub remove: BTreeSet<PathBuf>,
    /// Ports to connect to.
    pub connect: BTreeSet<u16>,
}

impl Needs {
    /// What reaching `external` needs.
    #[must_use]
    pub fn of(external: &External) -> Self {
        Self {
            read: external.read().flat_map(|file| folders(&file.path)).collect(),
            remove: external.made().flat_map(|file| folders(&file.path)).collect(),
            connect: external.ports.iter().map(|port| port.port).chain([DNS]).collect(),
        }
    }
}

/// As many links as the kernel follows (path_resolution(7)).
const LINKS: usize = 40;

/// The folders of `file`: that of its name, and where it is a link, of every step to what it leads to. Of a folder that
/// does not exist yet, the nearest above it that does.
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

/// What the process may still do.
#[derive(Debug, Clone)]
pub struct Sandbox {
    confinement: Confinement,
    /// What is allowed, where anything is refused.
    files: Option<BTreeSet<PathBuf>>,
    ports: Option<BTreeSet<u16>>,
}

/// Rule 6: what a configuration names, and why it cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum Outside {
    /// A file in another folder.
    #[error("{} is outside of the folders that the process may read since its start, which needs a restart", .0.display())]
    File(PathBuf),
    /// Another port.
    #[error("port {0} of the upstream is none that the process may connect to since its start, which needs a restart")]
    Port(u16),
}

impl Sandbox {
    /// The process may do what its user may.
    #[must_use]
    pub const fn none(confinement: Confinement) -> Self {
        Self { confinement, files: None, ports: None }
    }

    /// Confines this thread, and those that it starts from now on, to `needs`.
    #[must_use]
    pub fn enter(needs: &Needs) -> Self {
        let status = match restrict(needs) {
            Ok(status) => status,
            Err(error) => {
                tracing::warn!(%error, "the sandbox was not taken by the kernel");
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

    /// How far it went.
    #[must_use]
    pub const fn confinement(&self) -> Confinement {
        self.confinement
    }

    /// What may be behind a file that cannot be opened, when its permissions are right.
    #[must_use]
    pub fn hint(&self, denied: bool) -> Option<&'static str> {
        let outside = "only folders of the start can be read; one that is new, also one made again, needs a restart";
        (denied && self.files.is_some()).then_some(outside)
    }

    /// Rule 5, in one line.
    pub fn say(&self) {
        let state = self.confinement.as_str();
        let reads = self.files.as_ref().map(|folders| joined(folders.iter().map(|folder| folder.display())));
        let connects = self.ports.as_ref().map(|ports| joined(ports.iter()));
        tracing::info!(state, reads, connects, "sandbox");
    }

    /// Rule 6.
    ///
    /// # Errors
    /// [`Outside`], for the first that is.
    pub fn permits(&self, needs: &Needs) -> Result<(), Outside> {
        if let Some(allowed) = &self.files {
            let outside = needs.read.iter().find(|folder| !allowed.iter().any(|allowed| folder.starts_with(allowed)));
            outside.map_or(Ok(()), |folder| Err(Outside::File(folder.clone())))?;
        }
        if let Some(allowed) = &self.ports {
            needs.connect.difference(allowed).next().map_or(Ok(()), |port| Err(Outside::Port(*port)))?;
        }
        Ok(())
    }
}

fn joined(parts: impl Iterator<Item = impl std::fmt::Display>) -> String {
    parts.map(|part| part.to_string()).collect::<Vec<_>>().join(", ")
}

fn restrict(needs: &Needs) -> Result<RestrictionStatus, RulesetError> {
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
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
        .add_rules(ports)?
        .restrict_self()
}

#[cfg(test)]
mod tests;

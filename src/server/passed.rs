//! Sockets that the service manager passes at the start (`LISTEN_FDS`, sd_listen_fds(3)).
//!
//! 1. A socket of a socket unit serves the listener that has its name (`FileDescriptorName=`). It must listen on the
//!    address or path of the listener, because the rules about addresses (`allow_remote`, `hosts`, `Host`) are checked with
//!    those; the file of a unix socket must not permit more than `mode`.
//! 2. A socket of a unit that no listener uses is an error: callers would connect to it without a response.
//! 3. A socket that an earlier process put into the descriptor store has the name of its listener after `stored/`. It serves
//!    the listener of that name, or another one with its address or path, because a listener can be renamed. One that fits no
//!    listener is closed and its file removed, before any listener is opened, because its address may overlap.
//! 4. All workers share a passed socket. The kernel resets the pending connections of a socket that ends with the process;
//!    those of a shared one wait for the next process.

use std::fmt;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use listenfd::ListenFd;
use socket2::SockRef;

use super::listen::{Bound, BoundSocket, Keeper};
use crate::config::{Bind, Listener};

/// The beginning of the names of sockets in the descriptor store. No name of a listener, and so no name of a unit's
/// socket, contains a slash.
const STORED: &str = "stored/";

/// Returns the name of a listener's socket in the descriptor store.
#[must_use]
pub fn stored_name(listener: &str) -> String {
    format!("{STORED}{listener}")
}

/// A passed socket that the configuration does not fit; neither a retry nor a restart helps.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct UnfitSocket(String);

/// The passed sockets that no listener has taken yet.
#[derive(Debug, Default)]
pub struct PassedSockets {
    sockets: Vec<(String, BoundSocket)>,
}

impl PassedSockets {
    /// Takes the sockets that the environment of the process announces. Reads the environment, so it must be called before
    /// any thread is started.
    ///
    /// # Errors
    /// When the announcement is malformed, or a descriptor is not a listening stream socket.
    pub fn take() -> anyhow::Result<Self> {
        let names: Vec<_> = sd_notify::listen_fds_with_names()
            .map_err(|error| UnfitSocket(format!("LISTEN_FDS, LISTEN_PID or LISTEN_FDNAMES is malformed: {error}")))?
            .map(|(_, name)| name)
            .collect();
        let mut taken = if names.is_empty() { ListenFd::empty() } else { ListenFd::from_env() };
        let mut sockets = Vec::new();
        for (index, name) in names.into_iter().enumerate() {
            let socket = listening(&mut taken, index).ok_or_else(|| {
                UnfitSocket(format!(
                    "the service manager passed '{name}', which is not a listening stream socket; use ListenStream= and Accept=no"
                ))
            })?;
            sockets.push((name, socket));
        }
        Ok(Self { sockets })
    }

    /// Checks that one of `listeners` uses each socket of a unit (rule 2).
    ///
    /// # Errors
    /// [`UnfitSocket`].
    pub fn check(&self, listeners: &[Listener]) -> Result<(), UnfitSocket> {
        let mut known: Vec<_> = listeners.iter().map(|listener| listener.name.as_str()).collect();
        let names = known.join(", ");
        for (name, _) in self.sockets.iter().filter(|(name, _)| !name.starts_with(STORED)) {
            let Some(position) = known.iter().position(|known| known == name) else {
                return Err(UnfitSocket(format!(
                    "the service manager passed a socket with the name '{name}' that no listener uses; write one socket unit per listener, with one ListenStream=, and the name of the listener as FileDescriptorName= ({names})"
                )));
            };
            known.swap_remove(position);
        }
        Ok(())
    }

    /// Distributes the sockets to `listeners`, with a copy for each of `workers` (rules 1 and 3).
    ///
    /// # Errors
    /// [`UnfitSocket`] when a socket unit contradicts the configuration, or when a socket cannot be used.
    pub fn distribute(mut self, listeners: &[Listener], workers: usize) -> anyhow::Result<Distribution> {
        let of_units = listeners.iter().map(|listener| self.of_unit(listener, workers));
        let mut all: Vec<Option<Taken>> = of_units.collect::<anyhow::Result<_>>()?;
        let mut stale = Vec::new();
        // Those of the same name first: the configuration can leave the choice of a port to the system.
        for is_own in [true, false] {
            for (listener, taken) in listeners.iter().zip(&mut all).filter(|(_, taken)| taken.is_none()) {
                let name = stored_name(listener.name.as_str());
                let fits = |(stored, socket): &(String, BoundSocket)| {
                    stored.starts_with(STORED) && (*stored == name) == is_own && fits(socket, &listener.bind, is_own)
                };
                let Some(position) = self.sockets.iter().position(fits) else { continue };
                let (stored, socket) = self.sockets.swap_remove(position);
                stale.extend((!is_own).then_some(stored));
                let bound = Bound::passed(listener, &socket, workers, Keeper::Store)?;
                *taken = Some(Taken { bound, is_stored: is_own });
            }
        }
        for (name, socket) in self.sockets {
            let now = listeners.iter().find(|listener| stored_name(listener.name.as_str()) == name);
            let cause = now.and_then(|listener| misfit(&socket, &listener.bind).or_else(|| other_file(&listener.bind)));
            tracing::info!(socket = name, cause, "a stored socket that no listener uses is closed");
            remove_file(&socket, listeners.iter().zip(&all));
            stale.push(name);
        }
        for (listener, taken) in listeners.iter().zip(&mut all) {
            if let Some(taken) = taken.as_mut().filter(|_| stale.contains(&stored_name(listener.name.as_str()))) {
                taken.is_stored = false;
            }
        }
        Ok(Distribution { listeners: all, stale })
    }

    /// Returns `listener` on the socket of its unit, if there is one.
    fn of_unit(&mut self, listener: &Listener, workers: usize) -> anyhow::Result<Option<Taken>> {
        let Some(position) = self.sockets.iter().position(|(name, _)| name == listener.name.as_str()) else {
            return Ok(None);
        };
        let (name, socket) = self.sockets.swap_remove(position);
        if let Some(misfit) = misfit(&socket, &listener.bind) {
            return Err(UnfitSocket(format!(
                "the socket of the service manager for listener '{name}' {misfit}; write the same address in ListenStream= and the mode in SocketMode= of the socket unit"
            ))
            .into());
        }
        Ok(Some(Taken { bound: Bound::passed(listener, &socket, workers, Keeper::Unit)?, is_stored: false }))
    }
}

/// A listener on a passed socket.
#[derive(Debug)]
pub struct Taken {
    /// The listener.
    pub bound: Bound,
    /// Whether the descriptor store has its socket, under the name of the listener.
    pub is_stored: bool,
}

/// The passed sockets, by listener.
#[derive(Debug)]
pub struct Distribution {
    /// The listeners in the order of the configuration; `None` for one that has to be opened.
    pub listeners: Vec<Option<Taken>>,
    /// The names in the descriptor store under which it has sockets without a listener, or of a listener of another name.
    pub stale: Vec<String>,
}

/// Removes the file of a stored socket, to which nobody would accept connections, unless a listener on a passed socket has
/// its path.
fn remove_file<'a>(socket: &BoundSocket, listeners: impl Iterator<Item = (&'a Listener, &'a Option<Taken>)>) {
    let BoundSocket::Unix(socket) = socket else { return };
    let Some(address) = socket.local_addr().ok() else { return };
    let Some(path) = address.as_pathname() else { return };
    let mut taken = listeners.filter(|(_, taken)| taken.is_some()).map(|(listener, _)| &listener.bind);
    if taken.any(|bind| matches!(bind, Bind::Unix { path: used, .. } if used == path)) {
        return;
    }
    if let Err(error) = std::fs::remove_file(path)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(path = %path.display(), %error, "the file of a stored socket cannot be removed");
    }
}

fn listening(taken: &mut ListenFd, index: usize) -> Option<BoundSocket> {
    let tcp = taken.take_tcp_listener(index).ok().flatten();
    let socket = match tcp {
        Some(socket) => BoundSocket::Tcp(socket),
        None => BoundSocket::Unix(taken.take_unix_listener(index).ok().flatten()?),
    };
    let is_listening = match &socket {
        BoundSocket::Tcp(socket) => SockRef::from(socket).is_listener(),
        BoundSocket::Unix(socket) => SockRef::from(socket).is_listener(),
    };
    is_listening.is_ok_and(|listens| listens).then_some(socket)
}

/// Whether a stored socket can serve a listener. One of another name cannot where the system chooses the port.
fn fits(socket: &BoundSocket, bind: &Bind, is_own: bool) -> bool {
    let is_chosen = matches!(bind, Bind::Tcp(address) if address.port() == 0);
    (is_own || !is_chosen) && misfit(socket, bind).is_none() && other_file(bind).is_none()
}

/// Returns how `socket` contradicts `bind`, for the end of a sentence about the socket (rule 1).
fn misfit(socket: &BoundSocket, bind: &Bind) -> Option<String> {
    let elsewhere = |there: &dyn fmt::Display| Some(format!("listens on {there}, but the configuration has {bind}"));
    match (socket, bind) {
        (BoundSocket::Tcp(socket), Bind::Tcp(address)) => match socket.local_addr() {
            Ok(local) if local.ip() == address.ip() && [0, local.port()].contains(&address.port()) => None,
            Ok(local) => elsewhere(&local),
            Err(error) => Some(format!("has no address: {error}")),
        },
        (BoundSocket::Unix(socket), Bind::Unix { path, mode }) => match socket.local_addr() {
            Ok(local) if local.as_pathname() == Some(path.as_path()) => wide(path, *mode),
            Ok(local) => elsewhere(&local.as_pathname().unwrap_or(Path::new("a path without a name")).display()),
            Err(error) => Some(format!("has no path: {error}")),
        },
        (BoundSocket::Unix(_), Bind::Tcp(_)) => elsewhere(&"a unix socket"),
        (BoundSocket::Tcp(_), Bind::Unix { .. }) => elsewhere(&"a TCP address"),
    }
}

/// Returns how the file of a unix socket permits more than `mode` does (rule 1).
fn wide(path: &Path, mode: u32) -> Option<String> {
    let found = mode_of(path)?;
    (found & !mode != 0)
        .then(|| format!("permits more than the configuration: its mode is {found:04o}, and not {mode:04o}"))
}

/// Returns how the file of a stored unix socket differs from the one that the gate would create (rule 3).
fn other_file(bind: &Bind) -> Option<String> {
    let Bind::Unix { path, mode } = bind else { return None };
    let Ok(found) = path.symlink_metadata() else { return Some("has no file".to_owned()) };
    if !found.file_type().is_socket() || found.uid() != rustix::process::geteuid().as_raw() {
        return Some("has lost its path to another file".to_owned());
    }
    let found = found.mode() & 0o777;
    (found != *mode).then(|| format!("has the mode {found:04o}"))
}

fn mode_of(path: &Path) -> Option<u32> {
    path.symlink_metadata().ok().map(|found| found.mode() & 0o777)
}

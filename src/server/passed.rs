//! Sockets that the service manager passes at the start (`LISTEN_FDS`, sd_listen_fds(3)).
//!
//! 1. A socket of a socket unit serves the listener that has its name (`FileDescriptorName=`). It must listen on the
//!    address or path of the listener, because the rules about addresses (`allow_remote`, `hosts`, `Host`) are checked with
//!    those; the file of a unix socket must not permit more than `mode`.
//! 2. A socket of a unit that no listener uses is an error: callers would connect to it without a response.
//! 3. A socket that an earlier process put into the descriptor store has the name of its listener after [`STORED`]. One that
//!    does not fit the configuration any more is closed, its file is removed, and the listener is opened in the usual way.
//! 4. All workers share a passed socket. The kernel resets the pending connections of a socket that ends with the process;
//!    those of a shared one wait for the next process.

use std::fmt;
use std::io;
use std::os::unix::fs::MetadataExt;
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
    /// The names in the store of sockets that do not fit.
    unfit: Vec<String>,
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
        Ok(Self { sockets, unfit: Vec::new() })
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

    /// Returns `listener` on the socket that was passed for it, with a copy for each of `workers`; `None` if there is none
    /// that fits.
    ///
    /// # Errors
    /// [`UnfitSocket`] when a socket unit contradicts the configuration (rule 1), or when the socket cannot be used.
    pub fn bound(&mut self, listener: &Listener, workers: usize) -> anyhow::Result<Option<Bound>> {
        if let Some(socket) = self.named(listener.name.as_str()) {
            match misfit(&socket, &listener.bind) {
                None => return Ok(Some(Bound::passed(listener, &socket, workers, Keeper::Unit)?)),
                Some(misfit) => {
                    let remedy =
                        "write the same address in ListenStream= and the mode in SocketMode= of the socket unit";
                    return Err(UnfitSocket(format!("the socket of the service manager {misfit}; {remedy}")).into());
                }
            }
        }
        let name = stored_name(listener.name.as_str());
        while let Some(socket) = self.named(&name) {
            let misfit = misfit(&socket, &listener.bind).or_else(|| other_mode(&listener.bind));
            let Some(misfit) = misfit else {
                return Ok(Some(Bound::passed(listener, &socket, workers, Keeper::Store)?));
            };
            tracing::info!(
                listener = listener.name.as_str(),
                "the stored socket {misfit}; the listener is opened again"
            );
            self.discard(name.clone(), &socket);
        }
        Ok(None)
    }

    /// Records that the stored socket `name` does not fit. Its file is removed: nobody accepts what connects to it.
    fn discard(&mut self, name: String, socket: &BoundSocket) {
        if let BoundSocket::Unix(socket) = socket
            && let Ok(address) = socket.local_addr()
            && let Some(path) = address.as_pathname()
            && let Err(error) = std::fs::remove_file(path)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(path = %path.display(), %error, "the file of a stored socket cannot be removed");
        }
        if !self.unfit.contains(&name) {
            self.unfit.push(name);
        }
    }

    fn named(&mut self, wanted: &str) -> Option<BoundSocket> {
        let position = self.sockets.iter().position(|(name, _)| name == wanted)?;
        Some(self.sockets.swap_remove(position).1)
    }

    /// Returns the names in the descriptor store of the sockets that no listener has taken, and closes these sockets.
    #[must_use]
    pub fn left(mut self) -> Vec<String> {
        for (name, socket) in std::mem::take(&mut self.sockets) {
            self.discard(name, &socket);
        }
        self.unfit
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
fn other_mode(bind: &Bind) -> Option<String> {
    let Bind::Unix { path, mode } = bind else { return None };
    match mode_of(path) {
        Some(found) if found == *mode => None,
        Some(found) => Some(format!("has the mode {found:04o}")),
        None => Some("has no file".to_owned()),
    }
}

fn mode_of(path: &Path) -> Option<u32> {
    path.symlink_metadata().ok().map(|found| found.mode() & 0o777)
}

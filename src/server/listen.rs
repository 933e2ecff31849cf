//! Opens listeners: one socket per worker for TCP (`SO_REUSEPORT`), one shared by all workers for unix and for sockets that
//! the service manager keeps over a restart (`server/passed.rs`).
//!
//! 1. An address in use by another process is rejected, even where `SO_REUSEPORT` would share it.
//! 2. A unix socket is created with its permissions, which are not changed afterwards. A stale one is replaced only
//!    if it is a socket, is owned by this user, and nobody answers on it.
//! 3. A unix socket whose file was removed, for example by a cleanup job, is bound again at its path. Connections
//!    pending on the old socket are served.
//! 4. Its folder must not be writable by everyone, unless it is sticky, like `/tmp`: everyone can create files there
//!    but not remove those of others, so nobody can replace the gate's socket.

use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::task::{Context, Poll, ready};

use socket2::{Domain, Socket as RawSocket, Type};

use super::socket::Socket;
use crate::config::{Bind, Listener};
use crate::files::{ExternalFile, Purpose};
use crate::policy::caller::Peer;
use crate::policy::names::ListenerName;

/// The accept backlog. The kernel limits it to `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// The name of a listener, and the protocols of its connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kind {
    /// The name.
    pub name: ListenerName,
    /// Whether HTTP/2 is enabled.
    pub http2: bool,
    /// Whether it has a certificate.
    pub tls: bool,
    /// Whether it is a forward proxy, which expects clear text outside of tunnels.
    pub proxy: bool,
    /// Whether its socket outlives the process, so that connections that are not accepted wait for the next process.
    pub is_kept: bool,
}

impl Kind {
    /// Returns the kind of a configured listener.
    #[must_use]
    pub const fn of(listener: &Listener, keeper: Keeper) -> Self {
        Self {
            name: listener.name,
            http2: listener.http2,
            tls: listener.tls.is_some(),
            proxy: listener.proxy,
            is_kept: matches!(keeper, Keeper::Unit | Keeper::Store),
        }
    }

    /// Whether a connection begins with its first request.
    #[must_use]
    pub const fn is_plain(self) -> bool {
        !self.tls && !self.proxy
    }
}

/// An open listener, with a socket for each worker.
#[derive(Debug)]
pub struct Bound {
    /// The name and the protocols.
    pub kind: Kind,
    /// The address, with the port that was chosen, or the path.
    pub place: String,
    /// The address, with the port that was chosen, of a TCP listener.
    pub address: Option<SocketAddr>,
    /// The sockets, one per worker.
    pub sockets: Vec<BoundSocket>,
    /// Who keeps the socket open.
    pub keeper: Keeper,
    /// The file of a unix socket that this process created or that it found in the descriptor store.
    file: Option<SocketFile>,
}

/// Who keeps a listening socket open while no gate runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keeper {
    /// Nobody: it ends with the process.
    Process,
    /// A socket unit of the service manager.
    Unit,
    /// The descriptor store of the service manager.
    Store,
}

/// The file of a unix socket, which is removed at the end unless the descriptor store keeps the socket.
#[derive(Debug)]
struct SocketFile {
    /// The row in the table of files.
    row: ExternalFile,
    /// The permissions.
    mode: u32,
    /// The device and inode at creation: another file may take the path.
    id: Cell<Option<(u64, u64)>>,
}

impl SocketFile {
    fn now(path: &Path) -> io::Result<(u64, u64)> {
        path.symlink_metadata().map(|found| (found.dev(), found.ino()))
    }

    fn of(row: ExternalFile, mode: u32) -> Self {
        let id = Cell::new(Self::now(&row.path).ok());
        Self { row, mode, id }
    }

    fn is_own(&self) -> bool {
        Self::now(&self.row.path).ok() == self.id.get()
    }
}

/// A listening socket that is not yet registered with a runtime.
#[derive(Debug)]
pub enum BoundSocket {
    /// TCP.
    Tcp(std::net::TcpListener),
    /// Unix.
    Unix(std::os::unix::net::UnixListener),
}

/// A listening socket that is registered with a runtime.
#[derive(Debug)]
pub enum Accepting {
    /// TCP.
    Tcp(tokio::net::TcpListener),
    /// Unix.
    Unix(tokio::net::UnixListener),
}

/// The folder of a unix socket does not exist; retrying does not help.
#[derive(Debug, thiserror::Error)]
#[error("the folder {} does not exist; create it", .0.display())]
pub struct MissingFolder(PathBuf);

/// Opens `listener` for `workers`. With the descriptor store as `keeper`, all workers share one socket.
///
/// # Errors
/// When the address is in use or not permitted.
pub fn bind(listener: &Listener, workers: usize, keeper: Keeper) -> io::Result<Bound> {
    match &listener.bind {
        Bind::Tcp(address) => {
            let sockets = match keeper {
                Keeper::Process => bind_tcp(*address, workers)?,
                Keeper::Unit | Keeper::Store => clones(&BoundSocket::Tcp(open_tcp(*address, false)?.into()), workers)?,
            };
            Bound::new(listener, sockets, keeper, None)
        }
        Bind::Unix { path, mode } => {
            let row = ExternalFile::new(Purpose::Listener(listener.name), path);
            let sockets = bind_unix(&row, *mode, workers)?;
            Bound::new(listener, sockets, keeper, Some(SocketFile::of(row, *mode)))
        }
    }
}

fn bind_tcp(address: SocketAddr, workers: usize) -> io::Result<Vec<BoundSocket>> {
    // Rule 1. The test socket is closed before the actual ones are opened.
    drop(open_tcp(address, false)?);
    let first = open_tcp(address, workers > 1)?;
    let address = first.local_addr()?.as_socket().unwrap_or(address);
    let mut sockets = vec![BoundSocket::Tcp(first.into())];
    while sockets.len() < workers {
        sockets.push(BoundSocket::Tcp(open_tcp(address, true)?.into()));
    }
    Ok(sockets)
}

fn clones(socket: &BoundSocket, workers: usize) -> io::Result<Vec<BoundSocket>> {
    (0..workers).map(|_| socket.try_clone()).collect()
}

fn open_tcp(address: SocketAddr, shared: bool) -> io::Result<RawSocket> {
    let socket = RawSocket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shared)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket)
}

fn bind_unix(row: &ExternalFile, mode: u32, workers: usize) -> io::Result<Vec<BoundSocket>> {
    let path = row.path.as_path();
    if let Some(folder) = path.parent().filter(|folder| !folder.is_dir()) {
        return Err(io::Error::new(io::ErrorKind::NotFound, MissingFolder(folder.to_owned())));
    }
    remove_stale(path)?;
    row.check()?;
    // Rule 2. The umask is per process, but no other thread creates files now.
    let before = rustix::process::umask(rustix::fs::Mode::from_bits_truncate(!mode & 0o777));
    let bound = std::os::unix::net::UnixListener::bind(path);
    rustix::process::umask(before);
    let bound = bound?;
    bound.set_nonblocking(true)?;
    // Without a socket, the file would look as if it were bound.
    clones(&BoundSocket::Unix(bound), workers).inspect_err(|_| drop(std::fs::remove_file(path)))
}

fn remove_stale(path: &Path) -> io::Result<()> {
    let Ok(found) = path.symlink_metadata() else { return Ok(()) };
    let ours = found.file_type().is_socket() && found.uid() == rustix::process::geteuid().as_raw();
    if !ours {
        return Err(io::Error::new(
            io::ErrorKind::AlreadyExists,
            "the path exists and is not a socket of this user; remove it or choose another path",
        ));
    }
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        return Err(io::Error::new(io::ErrorKind::AddrInUse, "another process listens on this socket"));
    }
    std::fs::remove_file(path)
}

impl Bound {
    fn new(
        listener: &Listener,
        sockets: Vec<BoundSocket>,
        keeper: Keeper,
        file: Option<SocketFile>,
    ) -> io::Result<Self> {
        let kind = Kind::of(listener, keeper);
        let scheme = if kind.tls && !kind.proxy { "https" } else { "http" };
        let (place, address) = match (&listener.bind, sockets.first()) {
            (Bind::Unix { path, .. }, _) => (format!("unix:{}", path.display()), None),
            (Bind::Tcp(_), Some(BoundSocket::Tcp(socket))) => {
                let address = socket.local_addr()?;
                (format!("{scheme}://{address}"), Some(address))
            }
            (Bind::Tcp(address), Some(BoundSocket::Unix(_)) | None) => (format!("{scheme}://{address}"), None),
        };
        Ok(Self { kind, place, address, sockets, keeper, file })
    }

    /// Returns `listener` on a socket that the service manager passed, shared by `workers`. The file of a unix socket
    /// belongs to the socket unit, or to the gate if the socket comes from the descriptor store.
    ///
    /// # Errors
    /// When the process has no descriptors left.
    pub fn passed(listener: &Listener, socket: &BoundSocket, workers: usize, keeper: Keeper) -> io::Result<Self> {
        socket.set_nonblocking()?;
        let file = match (&listener.bind, keeper) {
            (Bind::Unix { path, mode }, Keeper::Store) => {
                Some(SocketFile::of(ExternalFile::new(Purpose::Listener(listener.name), path), *mode))
            }
            (Bind::Unix { .. }, Keeper::Unit | Keeper::Process) | (Bind::Tcp(_), _) => None,
        };
        Self::new(listener, clones(socket, workers)?, keeper, file)
    }

    /// Returns new sockets for `workers`, if the file was removed (rule 3).
    ///
    /// # Errors
    /// When the socket cannot be bound again.
    pub fn bind_again(&self, workers: usize) -> io::Result<Option<Vec<BoundSocket>>> {
        let Some(file) = &self.file else { return Ok(None) };
        match SocketFile::now(&file.row.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let sockets = bind_unix(&file.row, file.mode, workers)?;
                file.id.set(SocketFile::now(&file.row.path).ok());
                Ok(Some(sockets))
            }
            // The folder cannot be inspected now.
            Err(_) => Ok(None),
            Ok(_) if file.is_own() => Ok(None),
            Ok(_) => Err(io::Error::new(io::ErrorKind::AlreadyExists, "another file has its name now; remove it")),
        }
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        let is_kept = self.keeper != Keeper::Process;
        if let Some(file) = self.file.as_ref().filter(|file| !is_kept && file.is_own()) {
            // The file may have been removed already.
            let _ = std::fs::remove_file(&file.row.path);
        }
    }
}

impl BoundSocket {
    fn try_clone(&self) -> io::Result<Self> {
        Ok(match self {
            Self::Tcp(socket) => Self::Tcp(socket.try_clone()?),
            Self::Unix(socket) => Self::Unix(socket.try_clone()?),
        })
    }

    fn set_nonblocking(&self) -> io::Result<()> {
        match self {
            Self::Tcp(socket) => socket.set_nonblocking(true),
            Self::Unix(socket) => socket.set_nonblocking(true),
        }
    }

    /// Registers the socket with the current runtime.
    ///
    /// # Errors
    /// When the runtime cannot register it.
    pub fn accepting(self) -> io::Result<Accepting> {
        Ok(match self {
            Self::Tcp(socket) => Accepting::Tcp(tokio::net::TcpListener::from_std(socket)?),
            Self::Unix(socket) => Accepting::Unix(tokio::net::UnixListener::from_std(socket)?),
        })
    }
}

impl AsFd for BoundSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(socket) => socket.as_fd(),
            Self::Unix(socket) => socket.as_fd(),
        }
    }
}

impl Accepting {
    /// Accepts the next connection, and returns it with its peer.
    ///
    /// # Errors
    /// Those of accept(2), and peers whose credentials cannot be read.
    pub async fn accept(&self) -> io::Result<(Socket, Peer)> {
        poll_fn(|context| self.poll_accept(context)).await
    }

    /// Accepts a connection if one is pending.
    pub async fn accept_now(&self) -> Option<io::Result<(Socket, Peer)>> {
        poll_fn(|context| match self.poll_accept(context) {
            Poll::Ready(accepted) => Poll::Ready(Some(accepted)),
            Poll::Pending => Poll::Ready(None),
        })
        .await
    }

    fn poll_accept(&self, context: &mut Context<'_>) -> Poll<io::Result<(Socket, Peer)>> {
        Poll::Ready(match self {
            Self::Tcp(listener) => {
                let (socket, address) = ready!(listener.poll_accept(context))?;
                // Responses are written whole; waiting for more data would only delay them.
                let _ = socket.set_nodelay(true);
                Ok((Socket::Tcp(socket), Peer::Address(address.ip())))
            }
            Self::Unix(listener) => {
                let (socket, _) = ready!(listener.poll_accept(context))?;
                let credentials = socket.peer_cred().map_err(|_| io::ErrorKind::ConnectionAborted)?;
                let peer = Peer::Process { uid: credentials.uid(), gid: credentials.gid() };
                Ok((Socket::Unix(socket), peer))
            }
        })
    }
}

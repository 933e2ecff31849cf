//! Opens listeners: one socket a worker for TCP (`SO_REUSEPORT`), one shared by all for unix.
//!
//! 1. An address that another process listens on is refused, also where `SO_REUSEPORT` would share it.
//! 2. A unix socket is made with its permissions, not given them afterwards. A stale one is replaced only when it is a
//!    socket, ours, and nobody answers on it.
//! 3. One whose file was removed, as those do who clean up, is bound again at its place; who waits on the old one is served.
//! 4. Its folder cannot be written by everyone, unless it is sticky, as `/tmp`: there everyone can make files, but nobody
//!    can remove those of others, so nobody puts a socket in the place of the gate's.

use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::task::{Context, Poll, ready};

use socket2::{Domain, Socket as RawSocket, Type};

use super::caller_io::Socket;
use crate::caller::Peer;
use crate::config::{Bind, Listener};
use crate::external::{ExternalFile, Purpose};
use crate::symbol::ListenerName;

/// Connections that may wait for accept. The kernel cuts it to `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// A listener that is open, with a socket for each worker.
#[derive(Debug)]
pub struct Bound {
    /// Its name.
    pub name: ListenerName,
    /// Whether HTTP/2 is spoken there too.
    pub http2: bool,
    /// Where it is, with the port that was chosen.
    pub place: String,
    /// By worker.
    pub sockets: Vec<BoundSocket>,
    /// Of a unix socket.
    file: Option<SocketFile>,
}

/// The file of a unix socket, which is removed at the end.
#[derive(Debug)]
struct SocketFile {
    /// Of the table of files.
    row: ExternalFile,
    /// Its permissions.
    mode: u32,
    /// The device and number that it was made with: another file may take its name.
    id: Cell<Option<(u64, u64)>>,
}

impl SocketFile {
    fn now(path: &Path) -> io::Result<(u64, u64)> {
        path.symlink_metadata().map(|found| (found.dev(), found.ino()))
    }

    fn is_own(&self) -> bool {
        Self::now(&self.row.path).ok() == self.id.get()
    }
}

/// A socket that listens, not yet part of a runtime.
#[derive(Debug)]
pub enum BoundSocket {
    /// TCP.
    Tcp(std::net::TcpListener),
    /// Unix.
    Unix(std::os::unix::net::UnixListener),
}

/// A socket that accepts in a runtime.
#[derive(Debug)]
pub enum Accepting {
    /// TCP.
    Tcp(tokio::net::TcpListener),
    /// Unix.
    Unix(tokio::net::UnixListener),
}

/// The folder of a unix socket is not there, which trying again does not mend.
#[derive(Debug, thiserror::Error)]
#[error("the folder {} does not exist; make it first", .0.display())]
pub struct MissingFolder(PathBuf);

/// Opens `listener` for `workers`.
///
/// # Errors
/// When the address is taken, or may not be used.
pub fn bind(listener: &Listener, workers: usize) -> io::Result<Bound> {
    match &listener.bind {
        Bind::Tcp(address) => {
            let (address, sockets) = bind_tcp(*address, workers)?;
            let (name, http2) = (listener.name, listener.http2);
            Ok(Bound { name, http2, place: format!("http://{address}"), sockets, file: None })
        }
        Bind::Unix { path, mode } => {
            let row = ExternalFile::new(Purpose::Listener(listener.name), path);
            let sockets = bind_unix(&row, *mode, workers)?;
            Ok(Bound {
                name: listener.name,
                http2: listener.http2,
                place: format!("unix:{}", path.display()),
                sockets,
                file: Some(SocketFile { row, mode: *mode, id: Cell::new(SocketFile::now(path).ok()) }),
            })
        }
    }
}

fn bind_tcp(address: SocketAddr, workers: usize) -> io::Result<(SocketAddr, Vec<BoundSocket>)> {
    // Rule 1. The probe is closed before the real ones are opened.
    drop(open_tcp(address, false)?);
    let first = open_tcp(address, workers > 1)?;
    let address = first.local_addr()?.as_socket().unwrap_or(address);
    let mut sockets = vec![BoundSocket::Tcp(first.into())];
    while sockets.len() < workers {
        sockets.push(BoundSocket::Tcp(open_tcp(address, true)?.into()));
    }
    Ok((address, sockets))
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
    // Rule 2. No other thread makes a file meanwhile.
    let before = rustix::process::umask(rustix::fs::Mode::from_bits_truncate(!mode & 0o777));
    let bound = std::os::unix::net::UnixListener::bind(path);
    rustix::process::umask(before);
    let bound = bound?;
    bound.set_nonblocking(true)?;
    let clones = (0..workers).map(|_| bound.try_clone().map(BoundSocket::Unix));
    // A file without a socket would look as if it were bound.
    clones.collect::<io::Result<_>>().inspect_err(|_| drop(std::fs::remove_file(path)))
}

fn remove_stale(path: &Path) -> io::Result<()> {
    let Ok(found) = path.symlink_metadata() else { return Ok(()) };
    let ours = found.file_type().is_socket() && found.uid() == rustix::process::geteuid().as_raw();
    if !ours {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, "something else than a socket of ours has this name"));
    }
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        return Err(io::Error::new(io::ErrorKind::AddrInUse, "another process listens there"));
    }
    std::fs::remove_file(path)
}

impl Bound {
    /// Rule 3: sockets for so many `workers`, where the file was removed.
    ///
    /// # Errors
    /// When it cannot be bound again.
    pub fn bind_again(&self, workers: usize) -> io::Result<Option<Vec<BoundSocket>>> {
        let Some(file) = &self.file else { return Ok(None) };
        match SocketFile::now(&file.row.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let sockets = bind_unix(&file.row, file.mode, workers)?;
                file.id.set(SocketFile::now(&file.row.path).ok());
                Ok(Some(sockets))
            }
            // Its folder cannot be looked into now.
            Err(_) => Ok(None),
            Ok(_) if file.is_own() => Ok(None),
            Ok(_) => Err(io::Error::new(io::ErrorKind::AlreadyExists, "another file has its name now; remove that")),
        }
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        if let Some(file) = self.file.as_ref().filter(|file| file.is_own()) {
            // It may be gone already, which is as good.
            let _ = std::fs::remove_file(&file.row.path);
        }
    }
}

impl BoundSocket {
    /// Makes it a part of the runtime that this is called in.
    ///
    /// # Errors
    /// When the runtime cannot watch it.
    pub fn accepting(self) -> io::Result<Accepting> {
        Ok(match self {
            Self::Tcp(socket) => Accepting::Tcp(tokio::net::TcpListener::from_std(socket)?),
            Self::Unix(socket) => Accepting::Unix(tokio::net::UnixListener::from_std(socket)?),
        })
    }
}

impl Accepting {
    /// The next connection, and who is at its other end.
    ///
    /// # Errors
    /// As accept(2); a peer whose credentials cannot be read is an error too.
    pub async fn accept(&self) -> io::Result<(Socket, Peer)> {
        poll_fn(|context| self.poll_accept(context)).await
    }

    /// The same, if it is there already.
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
                // Answers are written whole; waiting for more to send only delays them.
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

//! The bytes of a caller's connection, on their way to and from hyper.
//!
//! 1. What the connection is doing is seen here: the first byte of a header, a write that the caller does not take.
//! 2. hyper answers what it cannot parse by itself, without a body. Such an answer is recognised, as no exchange is
//!    under way then, and the gate's own takes its place.
//! 3. Interim responses go out between hyper's writes.

use std::cell::RefCell;
use std::io;
use std::os::fd::AsFd;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use crate::gateway::connection::Connection;
use crate::gateway::refuse_unparsed;
use crate::rejection::Reason;
use crate::worker::Worker;

/// A caller's socket.
#[derive(Debug)]
pub enum Socket {
    /// TCP.
    Tcp(TcpStream),
    /// Unix.
    Unix(UnixStream),
}

/// A caller's socket under hyper.
pub struct CallerIo {
    socket: Rc<RefCell<Socket>>,
    connection: Rc<Connection>,
    worker: Rc<Worker>,
    own_answer: Option<OwnAnswer>,
}

struct OwnAnswer {
    bytes: Vec<u8>,
    written: usize,
}

impl CallerIo {
    /// The socket of `connection`.
    pub fn new(socket: Socket, connection: Rc<Connection>, worker: Rc<Worker>) -> Self {
        let socket = Rc::new(RefCell::new(socket));
        Self { socket, connection, worker, own_answer: None }
    }

    /// The socket, for interim responses.
    pub fn socket(&self) -> Rc<RefCell<Socket>> {
        self.socket.clone()
    }

    /// Rule 2: whether what hyper writes now is an answer of its own, and which.
    fn see_own_answer(&mut self, bytes: &[u8]) {
        if !self.connection.may_be_answering() && self.own_answer.is_none() && !bytes.is_empty() {
            let reason = match bytes.get(9..12) {
                Some(b"431") => Reason::HeadersTooLarge,
                Some(b"414") => Reason::TargetTooLong,
                Some(_) | None => Reason::MalformedRequest,
            };
            let bytes = refuse_unparsed(&self.worker, &self.connection, reason);
            self.own_answer = Some(OwnAnswer { bytes, written: 0 });
        }
    }

    fn poll_write_any(
        &mut self,
        context: &mut Context<'_>,
        first: &[u8],
        write: impl FnOnce(Pin<&mut Socket>, &mut Context<'_>) -> Poll<io::Result<usize>>,
        total: usize,
    ) -> Poll<io::Result<usize>> {
        self.see_own_answer(first);
        let socket = &mut *self.socket.borrow_mut();
        ready!(socket.poll_rest(&self.connection, context))?;
        let polled = match &mut self.own_answer {
            Some(own) => own.poll_write(socket, context).map_ok(|()| total),
            None => write(Pin::new(socket), context),
        };
        self.connection.block_write(polled.is_pending());
        polled
    }
}

impl OwnAnswer {
    fn poll_write(&mut self, socket: &mut Socket, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(rest) = self.bytes.get(self.written..).filter(|rest| !rest.is_empty()) {
            let written = ready!(Pin::new(&mut *socket).poll_write(context, rest))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.written += written;
        }
        Poll::Ready(Ok(()))
    }
}

impl Socket {
    /// Writes an answer, then reads what is left of the request, so that closing does not take the answer back.
    ///
    /// # Errors
    /// When the caller is gone.
    pub async fn say_and_close(&mut self, answer: &[u8]) -> io::Result<()> {
        self.write_all(answer).await?;
        self.shutdown().await?;
        let mut rest = [0; 4096];
        while self.read(&mut rest).await? > 0 {}
        Ok(())
    }

    /// Lets the end of the connection be a reset: an answer without a length, as HTTP/1.0 has it, would look whole
    /// otherwise. A unix socket knows no reset.
    pub fn break_off(&self) {
        if let Self::Tcp(socket) = self {
            // Where it fails, the connection has ended already.
            let _ = socket2::SockRef::from(socket).set_linger(Some(Duration::ZERO));
        }
    }

    /// Whether the caller sends no more: it has closed the connection, or its half of it. What it sent before may still
    /// be unread, so reading would not tell.
    #[must_use]
    pub fn is_closed_by_caller(&self) -> bool {
        let socket = match self {
            Self::Tcp(socket) => socket.as_fd(),
            Self::Unix(socket) => socket.as_fd(),
        };
        let mut polled = [PollFd::new(&socket, PollFlags::RDHUP)];
        rustix::event::poll(&mut polled, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).is_ok_and(|ready| ready > 0)
    }

    /// Writes interim responses that arrived since (rule 3).
    pub fn deliver_interim(&mut self, connection: &Connection, context: &mut Context<'_>) {
        let arrived = connection.interim.take();
        if arrived.is_empty() {
            return;
        }
        connection.interim_rest.borrow_mut().extend_from_slice(&arrived);
        // An error shows again at hyper's next write.
        let _ = self.poll_rest(connection, context);
    }

    fn poll_rest(&mut self, connection: &Connection, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut rest = connection.interim_rest.borrow_mut();
        while !rest.is_empty() {
            let written = ready!(Pin::new(&mut *self).poll_write(context, &rest))?;
            rest.drain(..written);
        }
        Poll::Ready(Ok(()))
    }
}

/// Whether an accept error says that one connection went away, and not that accepting fails (accept(2)).
#[must_use]
pub fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionRefused
    )
}

impl AsyncRead for CallerIo {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut *self.socket.borrow_mut()).poll_read(context, buffer);
        if buffer.filled().len() > before {
            self.connection.received();
        }
        polled
    }
}

impl AsyncWrite for CallerIo {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.get_mut().poll_write_any(context, bytes, |socket, context| socket.poll_write(context, bytes), bytes.len())
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let first = pieces.iter().find(|piece| !piece.is_empty()).map_or(&[][..], |piece| piece);
        let total = pieces.iter().map(|piece| piece.len()).sum();
        let write = |socket: Pin<&mut Socket>, context: &mut Context<'_>| socket.poll_write_vectored(context, pieces);
        self.get_mut().poll_write_any(context, first, write, total)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        // hyper flushes when its buffer is empty, so what it writes next is new.
        self.connection.flushed();
        Pin::new(&mut *self.socket.borrow_mut()).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.socket.borrow_mut()).poll_shutdown(context)
    }
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(socket) => Pin::new(socket).poll_read(context, buffer),
            Self::Unix(socket) => Pin::new(socket).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(socket) => Pin::new(socket).poll_write(context, bytes),
            Self::Unix(socket) => Pin::new(socket).poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(socket) => Pin::new(socket).poll_write_vectored(context, pieces),
            Self::Unix(socket) => Pin::new(socket).poll_write_vectored(context, pieces),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(socket) => Pin::new(socket).poll_flush(context),
            Self::Unix(socket) => Pin::new(socket).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(socket) => Pin::new(socket).poll_shutdown(context),
            Self::Unix(socket) => Pin::new(socket).poll_shutdown(context),
        }
    }
}

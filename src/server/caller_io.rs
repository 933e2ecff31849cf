//! The bytes of a caller's connection, on their way to and from hyper.
//!
//! 1. What the connection is doing is seen here: the first byte of a header, a write that the caller does not take.
//! 2. Bytes that are no HTTP to the letter ([`strict_http::request_reader`]) do not reach hyper, which is told that nothing more comes:
//!    for a body at once, so that it fails; for a header when everything before it is answered and written. The refusal
//!    is the server's to write then.
//! 3. A request line with something raw in its query is kept back until it is whole, and reaches hyper percent-encoded.
//! 4. Interim responses go out between hyper's writes.

use std::cell::RefCell;
use std::io;
use std::os::fd::AsFd;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};
use strict_http::Malformed;
use strict_http::request_reader::{Bounds, Fault, Framing, Stop};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use super::http2::Begun;
use crate::gateway::connection::Connection;

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
    begun: Begun,
    connection: Rc<Connection>,
    framing: Framing,
    /// What arrived and was not looked at (rule 3).
    kept: Vec<u8>,
    /// It begins with a request line that is not whole.
    is_cut: bool,
    fault: Option<Fault>,
    /// Who reads, while a fault waits for the answers before it.
    reader: Option<Waker>,
}

impl CallerIo {
    /// The socket of `connection`, of which the first bytes were read, with headers within `bounds`.
    pub fn new((socket, begun): (Socket, Begun), connection: Rc<Connection>, bounds: Bounds) -> Self {
        let socket = Rc::new(RefCell::new(socket));
        let (framing, kept) = (Framing::new(bounds), Vec::new());
        Self { socket, begun, connection, framing, kept, is_cut: false, fault: None, reader: None }
    }

    /// The socket, for interim responses.
    pub fn socket(&self) -> Rc<RefCell<Socket>> {
        self.socket.clone()
    }

    /// Rule 2: nothing more comes, as far as hyper knows.
    fn poll_end(&mut self, fault: Fault, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if fault.in_body {
            self.connection.break_body(fault.kind);
        } else if self.connection.is_answering() {
            self.reader = Some(context.waker().clone());
            return Poll::Pending;
        } else {
            self.connection.refuse(fault.kind);
        }
        Poll::Ready(Ok(()))
    }

    /// The next bytes of the caller, looked at or not.
    fn poll_arrived(&mut self, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if !self.kept.is_empty() && !self.is_cut {
            let now = self.kept.len().min(buffer.remaining());
            buffer.put_slice(self.kept.get(..now).unwrap_or_default());
            self.kept.drain(..now);
            return Poll::Ready(Ok(()));
        }
        if !self.begun.give(buffer) {
            ready!(Pin::new(&mut *self.socket.borrow_mut()).poll_read(context, buffer))?;
        }
        Poll::Ready(Ok(()))
    }

    /// Rule 3, of a request line that what is kept begins with, behind so many bytes that are `sound`.
    ///
    /// # Errors
    /// It is too long, or what stands raw in it may not: it is not looked at once more, or it would be kept again.
    fn encode(&mut self, sound: usize) -> Result<(), Fault> {
        let fault = |kind| Fault { sound, kind, in_body: false };
        if self.is_cut {
            let is_too_long = self.framing.is_too_long(self.kept.len());
            return if is_too_long { Err(fault(Malformed::TargetTooLong)) } else { Ok(()) };
        }
        let broken = self.framing.encode(&mut self.kept).map_err(fault)?;
        self.connection.note_encoded(self.framing.requests(), broken);
        Ok(())
    }

    /// Looks at what has arrived in `buffer` behind `before`; whether hyper has something to read.
    fn look_at(&mut self, buffer: &mut ReadBuf<'_>, before: usize) -> Result<bool, Fault> {
        let arrived = buffer.filled().get(before..).unwrap_or_default();
        if self.is_cut {
            self.is_cut = !arrived.contains(&b'\n');
            self.kept.extend_from_slice(arrived);
            buffer.set_filled(before);
            return self.encode(0).map(|()| false);
        }
        match self.framing.look_at(arrived) {
            Ok(()) => Ok(true),
            Err(Stop::Fault(fault)) => Err(fault),
            Err(Stop::Raw { sound }) => {
                self.kept.splice(..0, arrived.get(sound..).unwrap_or_default().iter().copied());
                self.is_cut = !self.kept.contains(&b'\n');
                buffer.set_filled(before + sound);
                self.encode(sound).map(|()| sound > 0)
            }
        }
    }

    fn poll_write_any(
        &mut self,
        context: &mut Context<'_>,
        write: impl FnOnce(Pin<&mut Socket>, &mut Context<'_>) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        let socket = &mut *self.socket.borrow_mut();
        ready!(socket.poll_rest(&self.connection, context))?;
        let polled = write(Pin::new(socket), context);
        self.connection.block_write(polled.is_pending());
        polled
    }
}

impl Socket {
    /// Says the last words and that they are the last, then reads on until the caller closes, but for so long in all and
    /// so many bytes: to close with something unread is a reset, which can take from a caller what it has not read yet
    /// (RFC 9112, section 9.6).
    pub async fn say_and_close(mut self, last_words: &[u8], patience: Duration, bytes: u64) {
        let said = async {
            self.write_all(last_words).await?;
            self.shutdown().await?;
            tokio::io::copy(&mut self.take(bytes), &mut tokio::io::sink()).await
        };
        // A caller that goes on sending after that has had its time, and one that is gone needs none.
        let _ = tokio::time::timeout(patience, said).await;
    }

    /// Lets the end of the connection be a reset, which also takes away what was sent and not read yet. A unix socket
    /// knows no reset.
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

    /// Writes interim responses that arrived since (rule 4).
    pub fn deliver_interim(&mut self, connection: &Connection, context: &mut Context<'_>) {
        let arrived = connection.interim.take();
        if arrived.is_empty() {
            return;
        }
        connection.interim.rest.borrow_mut().extend_from_slice(&arrived);
        // An error shows again at hyper's next write.
        let _ = self.poll_rest(connection, context);
    }

    /// What it does not take, the caller lets the gate wait with.
    fn poll_rest(&mut self, connection: &Connection, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut rest = connection.interim.rest.borrow_mut();
        while !rest.is_empty() {
            let polled = Pin::new(&mut *self).poll_write(context, &rest);
            connection.block_write(polled.is_pending());
            rest.drain(..ready!(polled)?);
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
        let this = self.get_mut();
        if let Some(fault) = this.fault {
            return this.poll_end(fault, context);
        }
        let before = buffer.filled().len();
        loop {
            ready!(this.poll_arrived(context, buffer))?;
            if buffer.filled().len() == before {
                return Poll::Ready(Ok(()));
            }
            this.connection.received();
            match this.look_at(buffer, before) {
                Ok(true) => return Poll::Ready(Ok(())),
                Ok(false) => {}
                Err(fault) => {
                    this.fault = Some(fault);
                    buffer.set_filled(before + fault.sound);
                    return if fault.sound > 0 { Poll::Ready(Ok(())) } else { this.poll_end(fault, context) };
                }
            }
        }
    }
}

impl AsyncWrite for CallerIo {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.get_mut().poll_write_any(context, |socket, context| socket.poll_write(context, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().poll_write_any(context, |socket, context| socket.poll_write_vectored(context, pieces))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(Pin::new(&mut *this.socket.borrow_mut()).poll_flush(context))?;
        // hyper flushes when its buffer is empty, so what it writes next is new.
        this.connection.flushed();
        if let Some(reader) = this.reader.take() {
            reader.wake();
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        // hyper thinks that the caller is done; it is owed a refusal.
        if self.connection.refused().is_some() {
            return Poll::Ready(Ok(()));
        }
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

//! The socket of a caller, with TLS on it or without.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::net::RecvFlags;
use strict_http::cut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, Interest, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::server::TlsStream;

use crate::gateway::connection::Connection;

/// A caller's socket.
#[derive(Debug)]
pub enum Socket {
    /// TCP.
    Tcp(TcpStream),
    /// Unix.
    Unix(UnixStream),
    /// TLS on one of the others.
    Tls(Box<TlsStream<Self>>),
    /// One of the others, of which some bytes were read ahead.
    Behind(Box<Behind>),
}

/// A socket, and the bytes that were read from it ahead.
#[derive(Debug)]
pub struct Behind {
    ahead: Vec<u8>,
    given: usize,
    socket: Socket,
}

impl Socket {
    /// Writes `last_words`, half-closes, then reads until the caller closes, for at most `patience` and `bytes`.
    /// Closing with unread input would reset the connection, which can discard data that the caller has not read yet
    /// (RFC 9112, section 9.6).
    pub async fn write_and_close(mut self, last_words: &[u8], patience: Duration, bytes: u64) {
        let said = async {
            self.write_all(last_words).await?;
            self.shutdown().await?;
            tokio::io::copy(&mut self.take(bytes), &mut tokio::io::sink()).await
        };
        // A caller that still sends has had its time, and a disconnected one needs none.
        let _ = tokio::time::timeout(patience, said).await;
    }

    /// Makes closing the connection a reset, which also discards sent data that was not read yet. Unix sockets have
    /// no reset.
    pub fn break_off(&self) {
        match self {
            Self::Tcp(socket) => {
                // On an error, the connection has ended already.
                let _ = socket2::SockRef::from(socket).set_linger(Some(Duration::ZERO));
            }
            Self::Unix(_) => {}
            Self::Tls(stream) => stream.get_ref().0.break_off(),
            Self::Behind(behind) => behind.socket.break_off(),
        }
    }

    fn descriptor(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(socket) => socket.as_fd(),
            Self::Unix(socket) => socket.as_fd(),
            Self::Tls(stream) => stream.get_ref().0.descriptor(),
            Self::Behind(behind) => behind.socket.descriptor(),
        }
    }

    /// Returns the socket behind bytes that were read from it ahead.
    #[must_use]
    pub fn behind(self, ahead: Vec<u8>) -> Self {
        if ahead.is_empty() { self } else { Self::Behind(Box::new(Behind { ahead, given: 0, socket: self })) }
    }

    /// Whether the bytes are encrypted here.
    #[must_use]
    pub const fn is_tls(&self) -> bool {
        matches!(self, Self::Tls(_))
    }

    /// Returns the next byte without reading it, once it has arrived; `None` at the end of the input.
    ///
    /// # Errors
    /// Those of recv(2).
    pub async fn first_byte(&self) -> io::Result<Option<u8>> {
        let mut byte = [0];
        let peeked = match self {
            Self::Tcp(socket) => socket.peek(&mut byte).await?,
            Self::Unix(socket) => loop {
                socket.readable().await?;
                let peeked = socket.try_io(Interest::READABLE, || {
                    Ok(rustix::net::recv(socket, &mut byte, RecvFlags::PEEK).map(|(_, read)| read)?)
                });
                match peeked {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    peeked => break peeked?,
                }
            },
            // They are not empty before the first read.
            Self::Behind(behind) => return Ok(behind.ahead.get(behind.given).copied()),
            // The bytes of a session that has begun are not looked at.
            Self::Tls(_) => return Err(io::ErrorKind::Unsupported.into()),
        };
        let [byte] = byte;
        Ok((peeked > 0).then_some(byte))
    }

    /// Whether the caller has closed the connection or its sending half. Reading would not show it, because earlier
    /// input may be unread.
    #[must_use]
    pub fn is_closed_by_caller(&self) -> bool {
        let socket = self.descriptor();
        let mut polled = [PollFd::new(&socket, PollFlags::RDHUP)];
        rustix::event::poll(&mut polled, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).is_ok_and(|ready| ready > 0)
    }

    /// Writes the interim responses that have arrived since the last call (rule 4).
    pub fn deliver_interim(&mut self, connection: &Connection, context: &mut Context<'_>) {
        let arrived = connection.interim.take();
        if arrived.is_empty() {
            return;
        }
        connection.interim.rest.borrow_mut().extend_from_slice(&arrived);
        // An error recurs at hyper's next write.
        let _ = self.poll_rest(connection, context);
    }

    /// Writes pending interim bytes. A caller that does not read them is waited for like any blocked write.
    pub(super) fn poll_rest(&mut self, connection: &Connection, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut rest = connection.interim.rest.borrow_mut();
        while !rest.is_empty() {
            let polled = Pin::new(&mut *self).poll_write(context, &rest);
            connection.block_write(polled.is_pending());
            rest.drain(..ready!(polled)?);
        }
        Poll::Ready(Ok(()))
    }
}

/// Whether an accept error concerns a single connection rather than the listener (accept(2)).
#[must_use]
pub fn concerns_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionRefused
    )
}

impl Behind {
    /// Reads the bytes that were read ahead, then those of the socket.
    fn poll_read(&mut self, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let (_, left) = cut::at_most(&self.ahead, self.given);
        if left.is_empty() {
            // Freed with the first read behind them.
            (self.ahead, self.given) = (Vec::new(), 0);
            return Pin::new(&mut self.socket).poll_read(context, buffer);
        }
        let (now, _) = cut::at_most(left, buffer.remaining());
        buffer.put_slice(now);
        self.given += now.len();
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(socket) => Pin::new(socket).poll_read(context, buffer),
            Self::Unix(socket) => Pin::new(socket).poll_read(context, buffer),
            Self::Tls(stream) => {
                let polled = Pin::new(stream).poll_read(context, buffer);
                // Many clients close without an alert. HTTP has its own lengths, which show if something is missing.
                polled.map(|read| match read {
                    Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(()),
                    read => read,
                })
            }
            Self::Behind(behind) => behind.poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(socket) => Pin::new(socket).poll_write(context, bytes),
            Self::Unix(socket) => Pin::new(socket).poll_write(context, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Behind(behind) => Pin::new(&mut behind.socket).poll_write(context, bytes),
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
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(context, pieces),
            Self::Behind(behind) => Pin::new(&mut behind.socket).poll_write_vectored(context, pieces),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(socket) => Pin::new(socket).poll_flush(context),
            Self::Unix(socket) => Pin::new(socket).poll_flush(context),
            Self::Tls(stream) => Pin::new(stream).poll_flush(context),
            Self::Behind(behind) => Pin::new(&mut behind.socket).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(socket) => Pin::new(socket).poll_shutdown(context),
            Self::Unix(socket) => Pin::new(socket).poll_shutdown(context),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Behind(behind) => Pin::new(&mut behind.socket).poll_shutdown(context),
        }
    }
}

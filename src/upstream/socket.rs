//! The socket under TLS towards the upstream.
//!
//! 1. One piece is written with `send`, which the kernel is done with sooner than with `writev`; TLS gives one at a time
//!    unless much is written.
//! 2. TLS reads 4 KiB at a time. Where such a read is filled, more is on its way: then as much as there is, up to
//!    [`AHEAD`], is read at once, and handed on from here. What that takes is given back when a read finds less.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// So much is read at once of a large body: two records of TLS.
const AHEAD: usize = 32 * 1024;

/// See the module.
#[derive(Debug)]
pub struct Socket {
    tcp: TcpStream,
    /// What was read ahead, from `taken` to `filled`.
    ahead: Box<[u8]>,
    taken: usize,
    filled: usize,
    /// The last read was filled.
    is_large: bool,
}

impl Socket {
    /// Around a connected socket.
    #[must_use]
    pub fn new(tcp: TcpStream) -> Self {
        Self { tcp, ahead: Box::default(), taken: 0, filled: 0, is_large: false }
    }

    /// Whether nothing has arrived, as far as is known without reading. Who asks is woken when something does.
    pub fn is_quiet(&self, context: &mut Context<'_>) -> bool {
        self.taken == self.filled && self.tcp.poll_read_ready(context).is_pending()
    }

    /// Hands on what was read ahead; whether there was something.
    fn hand_on(&mut self, buffer: &mut ReadBuf<'_>) -> bool {
        let waiting = self.ahead.get(self.taken..self.filled).unwrap_or_default();
        let now = waiting.get(..waiting.len().min(buffer.remaining())).unwrap_or_default();
        buffer.put_slice(now);
        self.taken += now.len();
        !now.is_empty()
    }
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.hand_on(buffer) {
            return Poll::Ready(Ok(()));
        }
        if !this.is_large {
            let room = buffer.remaining();
            ready!(Pin::new(&mut this.tcp).poll_read(context, buffer))?;
            this.is_large = buffer.remaining() == 0 && room > 0;
            return Poll::Ready(Ok(()));
        }
        if this.ahead.is_empty() {
            this.ahead = vec![0; AHEAD].into();
        }
        let mut ahead = ReadBuf::new(&mut this.ahead);
        ready!(Pin::new(&mut this.tcp).poll_read(context, &mut ahead))?;
        (this.taken, this.filled) = (0, ahead.filled().len());
        this.hand_on(buffer);
        if this.filled < AHEAD / 8 {
            this.is_large = false;
            if this.taken == this.filled {
                this.ahead = Box::default();
                (this.taken, this.filled) = (0, 0);
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().tcp).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let tcp = Pin::new(&mut self.get_mut().tcp);
        match pieces {
            [piece] => tcp.poll_write(context, piece),
            _ => tcp.poll_write_vectored(context, pieces),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().tcp).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().tcp).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// A socket, and the other end of its connection.
    async fn pair() -> (Socket, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let socket = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (Socket::new(socket), listener.accept().await.unwrap().0)
    }

    #[tokio::test]
    async fn rule_2_bytes_come_in_their_order_and_the_room_is_given_back() {
        let (mut socket, mut other) = pair().await;
        let sent: Vec<u8> = (0..333_333_u32).flat_map(u32::to_le_bytes).collect();
        let copy = sent.clone();
        let writer = tokio::spawn(async move {
            other.write_all(&copy).await.unwrap();
            other
        });
        let (mut received, mut piece, mut was_ahead) = (Vec::new(), [0; 4096], false);
        while received.len() < sent.len() {
            let read = socket.read(&mut piece).await.unwrap();
            received.extend_from_slice(&piece[..read]);
            was_ahead |= !socket.ahead.is_empty();
        }
        assert!(received == sent && was_ahead);
        let mut other = writer.await.unwrap();
        for small in 0..3 {
            other.write_all(&[small; 10]).await.unwrap();
            assert_eq!(socket.read(&mut piece).await.unwrap(), 10);
        }
        assert!(socket.ahead.is_empty() && !socket.is_large);
        drop(other);
        assert_eq!(socket.read(&mut piece).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn rule_1_nothing_is_lost_in_writing() {
        let (mut socket, mut other) = pair().await;
        assert_eq!(socket.write_vectored(&[IoSlice::new(b"one")]).await.unwrap(), 3);
        assert_eq!(socket.write_vectored(&[IoSlice::new(b"two"), IoSlice::new(b"three")]).await.unwrap(), 8);
        drop(socket);
        let mut received = Vec::new();
        other.read_to_end(&mut received).await.unwrap();
        assert_eq!(received, b"onetwothree");
    }
}

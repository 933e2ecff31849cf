//! The bytes of an HTTP/1.1 connection: the unwritten part of the request, and the received part of the response.

use std::io::{self, Cursor, IoSlice};
use std::mem::take;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker, ready};

use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderValue, StatusCode};
use strict_http::number;
use tokio::io::{AsyncReadExt, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use super::broken::{Broken, HEAD_BYTES};
use super::listener::Listener;
use super::request::{Framing, Outgoing, write_head};
use super::response_head::{self, KnownNames, ResponseHead};

/// The bytes of an HTTP/1.1 connection.
pub struct Wire {
    /// The connection; `None` once closed.
    pub stream: Option<TlsStream<TcpStream>>,
    /// The target of the next read, behind any incomplete head.
    pub buffer: BytesMut,
    /// The bytes read and not yet consumed, except those in `buffer`.
    pub arrived: Bytes,
    /// The number of bytes read since the request began.
    pub read: u64,
    /// The serialized part of the request; the position is the number of bytes written.
    pub out: Cursor<Vec<u8>>,
    /// Whether neither side announced the end of the connection.
    pub keep_alive: bool,
    /// Whether the request is not yet completely written.
    pub uploading: bool,
    /// Whether the response is not yet completely read.
    pub answering: bool,
    /// The failure of the request's body.
    pub fault: Option<Broken>,
    /// The task to wake on a failure of the body.
    pub reader: Option<Waker>,
    /// The names of fields in the heads so far.
    names: KnownNames,
}

/// The size of one read of a head or a small body.
pub const READ: usize = 8 * 1024;
/// The size of one read of a large body: two TLS records.
pub const LARGE_READ: usize = 32 * 1024;
/// The maximum length of a small body.
pub const SMALL: u64 = 8 * 1024;

impl Wire {
    /// The bytes of a new connection.
    #[must_use]
    pub fn new(stream: TlsStream<TcpStream>) -> Self {
        Self {
            stream: Some(stream),
            buffer: BytesMut::new(),
            arrived: Bytes::new(),
            read: 0,
            out: Cursor::default(),
            keep_alive: true,
            uploading: false,
            answering: false,
            fault: None,
            reader: None,
            names: KnownNames::default(),
        }
    }

    /// Begins a request by serializing its head.
    pub fn begin<B>(&mut self, request: &Outgoing<B>, host: &HeaderValue, framing: Framing) {
        clear(&mut self.out);
        self.read = 0;
        self.answering = true;
        self.uploading = true;
        write_head(self.out.get_mut(), request, host, framing);
    }

    /// Reads once. Returns the number of bytes, 0 at the end. The bytes are appended to `buffer`, behind those that had
    /// arrived.
    pub fn poll_read(&mut self, context: &mut Context<'_>, size: usize) -> Poll<Result<usize, Broken>> {
        let Some(stream) = &mut self.stream else { return Poll::Ready(Ok(0)) };
        if !self.arrived.is_empty() {
            // An incomplete line: rare and short.
            let begun = take(&mut self.arrived);
            self.buffer = BytesMut::with_capacity(begun.len() + size);
            self.buffer.extend_from_slice(&begun);
        }
        self.buffer.reserve(size);
        let read = ready!(pin!(stream.read_buf(&mut self.buffer)).poll(context)).map_err(Broken::Io)?;
        self.read += number::count(read);
        Poll::Ready(Ok(read))
    }

    /// Writes the serialized bytes, `piece` and `end`.
    pub fn poll_write(
        &mut self,
        context: &mut Context<'_>,
        piece: &mut Bytes,
        end: &mut &[u8],
    ) -> Poll<io::Result<()>> {
        let Some(stream) = &mut self.stream else { return Poll::Ready(Err(io::ErrorKind::NotConnected.into())) };
        let mut stream = Pin::new(stream);
        loop {
            let out = self.out.chunk();
            let pieces = [IoSlice::new(out), IoSlice::new(piece), IoSlice::new(end)];
            if pieces.iter().all(|piece| piece.is_empty()) {
                clear(&mut self.out);
                return stream.poll_flush(context);
            }
            let mut left = ready!(stream.as_mut().poll_write_vectored(context, &pieces))?;
            if left == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            let of_out = left.min(out.len());
            self.out.advance(of_out);
            left -= of_out;
            let of_piece = left.min(piece.len());
            piece.advance(of_piece);
            end.advance((left - of_piece).min(end.len()));
        }
    }

    /// Reads the head of the response. `listener` receives the interim responses before it.
    pub fn poll_head(
        &mut self,
        context: &mut Context<'_>,
        listener: &impl Listener,
    ) -> Poll<Result<ResponseHead, Broken>> {
        loop {
            if let Some(fault) = self.take_fault(context) {
                return Poll::Ready(Err(fault));
            }
            if !self.buffer.is_empty() {
                let bytes = self.buffer.split().freeze();
                match response_head::read(&bytes, &mut self.names, |name| listener.wants(name)).map_err(Broken::Head)? {
                    Some(head) if is_interim(head.status) => {
                        listener.heard(head.status, &head.fields);
                        self.buffer = BytesMut::from(bytes.slice(head.bytes..));
                        continue;
                    }
                    Some(head) => {
                        self.arrived = bytes.slice(head.bytes..);
                        return Poll::Ready(Ok(head));
                    }
                    None => {
                        // Dropped first: as the only handle, `bytes` converts without a copy.
                        self.buffer = BytesMut::new();
                        self.buffer = BytesMut::from(bytes);
                    }
                }
            }
            if self.read > HEAD_BYTES {
                return Poll::Ready(Err(Broken::HeadTooLarge));
            }
            if ready!(self.poll_read(context, READ))? == 0 {
                return Poll::Ready(Err(Broken::Closed));
            }
        }
    }

    /// Takes the failure of the request's body. The task is woken when one occurs.
    pub fn take_fault(&mut self, context: &Context<'_>) -> Option<Broken> {
        if self.uploading && !self.reader.as_ref().is_some_and(|reader| reader.will_wake(context.waker())) {
            self.reader = Some(context.waker().clone());
        }
        self.fault.take()
    }
}

fn clear(out: &mut Cursor<Vec<u8>>) {
    out.get_mut().clear();
    out.set_position(0);
}

fn is_interim(status: StatusCode) -> bool {
    status.is_informational() && status != StatusCode::SWITCHING_PROTOCOLS
}

//! The bytes of a caller's connection, on their way to and from hyper.
//!
//! 1. The state of the connection is observed here: the first byte of a header, and writes that the caller does not
//!    read.
//! 2. Malformed HTTP ([`strict_http::request_reader`]) does not reach hyper, which sees an end of input instead: for
//!    a body at once, so that it fails; for a header after all earlier responses are written. The server then writes
//!    the refusal.
//! 3. A request line with raw bytes in its query is buffered until it is complete, and reaches hyper percent-encoded.
//! 4. Interim responses are written between hyper's writes.
//! 5. It outlives hyper: bytes that were read and checked while there was none are given to the next one.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use strict_http::request_reader::{Bounds, Fault, Framing, Stop};
use strict_http::{Malformed, cut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::begun::Begun;
use super::socket::Socket;
use crate::gateway::connection::Connection;

/// A caller's socket as hyper uses it.
pub struct CallerIo {
    socket: Rc<RefCell<Socket>>,
    begun: Begun,
    connection: Rc<Connection>,
    framing: Framing,
    /// Checked bytes that hyper reads first (rule 5).
    ahead: Vec<u8>,
    /// Bytes that arrived and were not checked yet (rule 3).
    kept: Vec<u8>,
    /// Whether `kept` begins with an incomplete request line.
    is_cut: bool,
    fault: Option<Fault>,
    /// The reading task, while a fault waits for earlier responses.
    reader: Option<Waker>,
}

impl CallerIo {
    /// Wraps the socket of `connection`, whose first bytes are in `begun`, for headers within `bounds`.
    pub fn new((socket, begun): (Socket, Begun), connection: Rc<Connection>, bounds: Bounds) -> Self {
        let socket = Rc::new(RefCell::new(socket));
        let (framing, ahead, kept) = (Framing::new(bounds), Vec::new(), Vec::new());
        Self { socket, begun, connection, framing, ahead, kept, is_cut: false, fault: None, reader: None }
    }

    /// Returns the socket, for interim responses.
    pub fn socket(&self) -> Rc<RefCell<Socket>> {
        self.socket.clone()
    }

    /// Puts checked bytes before all that is read next (rule 5).
    pub fn put_ahead(&mut self, bytes: &[u8]) {
        self.ahead.extend_from_slice(bytes);
    }

    /// Gives the bytes that were read before hyper was there. They are freed at once.
    fn give_ahead(&mut self, buffer: &mut ReadBuf<'_>) {
        let (now, later) = cut::at_most(&self.ahead, buffer.remaining());
        buffer.put_slice(now);
        self.ahead = later.to_vec();
    }

    /// Signals the end of input to hyper (rule 2).
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

    /// Reads the caller's next bytes; checked bytes that were kept come first.
    fn poll_arrived(&mut self, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if !self.kept.is_empty() && !self.is_cut {
            let (now, _) = cut::at_most(&self.kept, buffer.remaining());
            buffer.put_slice(now);
            let now = now.len();
            self.kept.drain(..now);
            return Poll::Ready(Ok(()));
        }
        if !self.begun.give(buffer) {
            ready!(Pin::new(&mut *self.socket.borrow_mut()).poll_read(context, buffer))?;
        }
        Poll::Ready(Ok(()))
    }

    /// Encodes the request line at the beginning of `kept`, which follows `sound` bytes (rule 3). The result is not
    /// checked again, because it would be kept again.
    ///
    /// # Errors
    /// When the line is too long, or contains raw bytes that are not allowed.
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

    /// Checks the bytes in `buffer` after position `before`. Returns whether hyper has something to read.
    fn look_at(&mut self, buffer: &mut ReadBuf<'_>, before: usize) -> Result<bool, Fault> {
        let (_, arrived) = cut::at_most(buffer.filled(), before);
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
                self.kept.splice(..0, cut::at_most(arrived, sound).1.iter().copied());
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

impl AsyncRead for CallerIo {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.ahead.is_empty() {
            this.give_ahead(buffer);
            return Poll::Ready(Ok(()));
        }
        if let Some(fault) = this.fault {
            return this.poll_end(fault, context);
        }
        let before = buffer.filled().len();
        loop {
            let Poll::Ready(arrived) = this.poll_arrived(context, buffer) else {
                let is_between = !this.is_cut && this.framing.is_between_requests();
                this.connection.wait_for_bytes(is_between.then(|| this.framing.requests()));
                return Poll::Pending;
            };
            arrived?;
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
        {
            let socket = &mut *this.socket.borrow_mut();
            let flushed = Pin::new(&mut *socket).poll_flush(context);
            // TLS holds bytes that the socket does not accept.
            if socket.is_tls() {
                this.connection.block_write(flushed.is_pending());
            }
            ready!(flushed)?;
        }
        // hyper flushes when its buffer is empty, so its next write starts something new.
        this.connection.flushed();
        if let Some(reader) = this.reader.take() {
            reader.wake();
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        // hyper considers the caller done, but a refusal is still to be written.
        if self.connection.refused().is_some() {
            return Poll::Ready(Ok(()));
        }
        // hyper ends the connection, and no other one follows.
        self.connection.wait_for_bytes(None);
        Pin::new(&mut *self.socket.borrow_mut()).poll_shutdown(context)
    }
}

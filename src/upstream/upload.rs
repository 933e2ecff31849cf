//! Uploads the body of a request while its response is read (rules 2 and 3 of [`super::http1`]).

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame};

use super::broken::Broken;
use super::request::Framing;
use super::wire::Wire;

/// The upload of a body.
pub struct Upload<B> {
    wire: Rc<RefCell<Wire>>,
    body: B,
    framing: Framing,
    /// The piece that is being written, and `end`, the bytes after it.
    piece: Bytes,
    end: &'static [u8],
    /// Whether the whole body has been written to the buffer.
    over: bool,
}

impl<B> Future for Upload<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        match ready!(this.poll_end(context)) {
            Ok(()) => this.wire.borrow_mut().uploading = false,
            Err(Broken::Io(error)) => tracing::debug!(%error, "the upstream does not accept more of a request body"),
            Err(fault) => {
                let mut wire = this.wire.borrow_mut();
                wire.fault = Some(fault);
                if let Some(reader) = wire.reader.take() {
                    reader.wake();
                }
            }
        }
        Poll::Ready(())
    }
}

impl<B> Upload<B> {
    /// Uploads the body of a request whose head was written to `wire`, with this framing.
    #[must_use]
    pub const fn new(wire: Rc<RefCell<Wire>>, body: B, framing: Framing) -> Self {
        Self { wire, body, framing, piece: Bytes::new(), end: b"", over: false }
    }
}

impl<B> Upload<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    fn poll_end(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        loop {
            if self.over || !self.piece.is_empty() || !self.end.is_empty() {
                ready!(self.poll_write(context))?;
            }
            if self.over {
                return Poll::Ready(Ok(()));
            }
            let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) else {
                // Flushes meanwhile: the upstream may have to ask for the rest.
                ready!(self.poll_write(context))?;
                return Poll::Pending;
            };
            let mut wire = self.wire.borrow_mut();
            let out = wire.out.get_mut();
            let wrong = |error| Broken::RequestBody(Box::new(error));
            match frame.transpose().map_err(|error| Broken::RequestBody(error.into()))?.map(Frame::into_data) {
                Some(Ok(piece)) => {
                    self.end = self.framing.around(&piece, out).map_err(wrong)?;
                    self.piece = piece;
                }
                rest => {
                    let trailers = rest.and_then(Result::err).and_then(|frame| frame.into_trailers().ok());
                    self.framing.end(trailers.as_ref(), out).map_err(wrong)?;
                    self.over = true;
                }
            }
        }
    }

    fn poll_write(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        self.wire.borrow_mut().poll_write(context, &mut self.piece, &mut self.end).map_err(Broken::Io)
    }
}

//! A connection of HTTP/1.1 to the upstream, driven by the request that is on it.
//!
//! 1. A request without a body has no task, no channel and no lock of its own: its head is written and its answer read
//!    by whoever waits for them. `docs/decisions/0018` says what that saves.
//! 2. A body goes up in a task beside that, so that an answer may come before its end, and neither waits for the other.
//! 3. What fails while a body goes up does not hide an answer that is there: the answer counts. Only a body that fails
//!    by itself ends everything, as nothing behind it could be understood.
//! 4. The connection can carry another request when the answer and the request have come to their end, nothing has
//!    arrived behind the answer, and neither side said `close`. Whatever arrives while it is idle ends it. Nor can it when
//!    the answer came before the request was written: who answers so may never read the rest.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::mem::take;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use tokio::io::{AsyncReadExt, AsyncWrite};
use tokio::task::AbortHandle;
use tokio_rustls::client::TlsStream;

use super::answer::{self, Head, Rest};
use super::broken::{Broken, HEAD_BYTES, Unanswered};
use super::request::{Framing, write_head};
use super::socket::Socket;

/// Who waits for an answer.
pub trait Listener {
    /// Whether a field of this name, in any case, is of use. Those that frame the answer are kept in any case.
    fn wants(&self, name: &[u8]) -> bool;
    /// An interim response came.
    fn heard(&self, status: StatusCode, fields: &HeaderMap);
}

/// See the module.
pub struct Http1 {
    wire: Rc<RefCell<Wire>>,
    upload: Option<AbortHandle>,
}

/// The bytes of a connection.
struct Wire {
    /// `None` when it is closed.
    stream: Option<TlsStream<Socket>>,
    /// Where the next read goes, behind what is not a whole head.
    buffer: BytesMut,
    /// What was read and is not taken yet, beside that.
    arrived: Bytes,
    /// How much was read since the request began.
    read: u64,
    /// What of the request is in bytes, and how much of that was written.
    out: Vec<u8>,
    written: usize,
    keep_alive: bool,
    uploading: bool,
    answering: bool,
    /// How the request's body failed, and who is to know.
    fault: Option<Broken>,
    reader: Option<Waker>,
}

/// One read takes so much of a head, or of a small body.
const READ: usize = 8 * 1024;
/// And so much of a large one: two records of TLS.
const LARGE_READ: usize = 32 * 1024;
/// So much is a small body, at most.
const SMALL: u64 = 8 * 1024;

impl Http1 {
    /// On a new connection.
    #[must_use]
    pub fn new(stream: TlsStream<Socket>) -> Self {
        let wire = Wire {
            stream: Some(stream),
            buffer: BytesMut::new(),
            arrived: Bytes::new(),
            read: 0,
            out: Vec::new(),
            written: 0,
            keep_alive: true,
            uploading: false,
            answering: false,
            fault: None,
            reader: None,
        };
        Self { wire: Rc::new(RefCell::new(wire)), upload: None }
    }

    /// Whether it can carry another request, as far as is known without looking (rule 4).
    #[must_use]
    pub fn is_free(&self) -> bool {
        let wire = self.wire.borrow();
        wire.keep_alive && !wire.uploading && !wire.answering && wire.arrived.is_empty() && wire.buffer.is_empty()
    }

    /// Whether nothing has arrived and it has not ended since it was free. Who asks is woken when that changes.
    pub fn is_quiet(&self, context: &mut Context<'_>) -> bool {
        let mut wire = self.wire.borrow_mut();
        let Some(stream) = &wire.stream else { return false };
        let (socket, tls) = stream.get_ref();
        // What came may be TLS's own: only reading tells.
        tls.wants_read() && socket.is_quiet(context) || wire.poll_read(context, READ).is_pending()
    }

    /// Whether nothing has come since the request began.
    #[must_use]
    pub fn nothing_was_read(&self) -> bool {
        self.wire.borrow().read == 0
    }

    /// Sends a request; its answer.
    ///
    /// # Errors
    /// [`Unanswered`], with the request where it has no body.
    pub async fn send<B>(
        &mut self,
        request: Request<B>,
        listener: &impl Listener,
    ) -> Result<Response<Answer>, Unanswered<B>>
    where
        B: Body<Data = Bytes> + Unpin + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let to_head = request.method() == Method::HEAD;
        let framing = Framing::of(request.body());
        self.wire.borrow_mut().begin(&request, framing);
        let request = if request.body().is_end_stream() {
            Some(request)
        } else {
            let upload = Upload {
                wire: self.wire.clone(),
                body: request.into_body(),
                framing,
                piece: Bytes::new(),
                end: b"",
                over: false,
            };
            self.upload = Some(tokio::task::spawn_local(upload).abort_handle());
            None
        };
        let wire = &self.wire;
        let mut writes = request.is_some();
        let answered = poll_fn(|context| {
            let wire = &mut *wire.borrow_mut();
            if writes {
                // A write that fails does not hide an answer that is there; reading will tell.
                writes = wire.poll_write(context, &mut Bytes::new(), &mut &b""[..]).is_pending();
                wire.uploading = writes;
            }
            wire.poll_head(context, listener)
        });
        match answered.await {
            Ok(head) => Ok(self.answer(head, to_head)),
            Err(error) => Err(Unanswered { error, request, written: true }),
        }
    }

    fn answer(&self, head: Head, to_head: bool) -> Response<Answer> {
        let rest = head.rest(to_head);
        let mut wire = self.wire.borrow_mut();
        let early = wire.uploading;
        wire.keep_alive = head.keep_alive && !early && head.status != StatusCode::SWITCHING_PROTOCOLS;
        wire.answering = !matches!(rest, Rest::Length(0));
        let mut response = Response::new(Answer { wire: self.wire.clone(), rest });
        *response.status_mut() = head.status;
        *response.headers_mut() = head.fields;
        response
    }
}

impl Drop for Http1 {
    fn drop(&mut self) {
        if let Some(upload) = &self.upload {
            upload.abort();
        }
        if let Some(mut stream) = self.wire.borrow_mut().stream.take() {
            // So that the upstream sees that nothing was cut off (RFC 8446, section 6.1); it may also fail, or wait.
            let _ = Pin::new(&mut stream).poll_shutdown(&mut Context::from_waker(Waker::noop()));
        }
    }
}

impl Wire {
    fn begin<B>(&mut self, request: &Request<B>, framing: Framing) {
        self.out.clear();
        self.written = 0;
        self.read = 0;
        self.answering = true;
        self.uploading = true;
        write_head(&mut self.out, request, framing);
    }

    /// Reads once; how much, 0 at the end. What was read is in `buffer`, behind what had arrived before.
    fn poll_read(&mut self, context: &mut Context<'_>, size: usize) -> Poll<Result<usize, Broken>> {
        let Some(stream) = &mut self.stream else { return Poll::Ready(Ok(0)) };
        if !self.arrived.is_empty() {
            // A line that has not arrived as a whole: few do that, and none is long.
            let begun = take(&mut self.arrived);
            self.buffer = BytesMut::with_capacity(begun.len() + size);
            self.buffer.extend_from_slice(&begun);
        }
        self.buffer.reserve(size);
        let read = ready!(pin!(stream.read_buf(&mut self.buffer)).poll(context)).map_err(Broken::Io)?;
        self.read += u64::try_from(read).unwrap_or(0);
        Poll::Ready(Ok(read))
    }

    /// Writes everything that is in bytes, and `piece`, and what stands behind it.
    fn poll_write(&mut self, context: &mut Context<'_>, piece: &mut Bytes, end: &mut &[u8]) -> Poll<io::Result<()>> {
        let Some(stream) = &mut self.stream else { return Poll::Ready(Err(io::ErrorKind::NotConnected.into())) };
        let mut stream = Pin::new(stream);
        loop {
            let out = self.out.get(self.written..).unwrap_or_default();
            let pieces = [IoSlice::new(out), IoSlice::new(piece), IoSlice::new(end)];
            if pieces.iter().all(|piece| piece.is_empty()) {
                self.out.clear();
                self.written = 0;
                return stream.poll_flush(context);
            }
            let mut left = ready!(stream.as_mut().poll_write_vectored(context, &pieces))?;
            if left == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            let of_out = left.min(out.len());
            self.written += of_out;
            left -= of_out;
            let of_piece = left.min(piece.len());
            piece.advance(of_piece);
            end.advance((left - of_piece).min(end.len()));
        }
    }

    /// The head of the answer. Interim responses before it go to `listener`.
    fn poll_head(&mut self, context: &mut Context<'_>, listener: &impl Listener) -> Poll<Result<Head, Broken>> {
        loop {
            if let Some(fault) = self.take_fault(context) {
                return Poll::Ready(Err(fault));
            }
            if !self.buffer.is_empty() {
                let bytes = self.buffer.split().freeze();
                match answer::read(&bytes, |name| listener.wants(name)).map_err(Broken::Head)? {
                    Some(head) if is_interim(head.status) => {
                        listener.heard(head.status, &head.fields);
                        self.buffer = BytesMut::from(bytes.get(head.bytes..).unwrap_or_default());
                        continue;
                    }
                    Some(head) => {
                        self.arrived = bytes.slice(head.bytes..);
                        return Poll::Ready(Ok(head));
                    }
                    None => {
                        // Nobody else has it now, so it is not copied.
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

    /// How the request's body failed; who asks is woken when it does.
    fn take_fault(&mut self, context: &Context<'_>) -> Option<Broken> {
        if self.uploading && !self.reader.as_ref().is_some_and(|reader| reader.will_wake(context.waker())) {
            self.reader = Some(context.waker().clone());
        }
        self.fault.take()
    }
}

fn is_interim(status: StatusCode) -> bool {
    status.is_informational() && status != StatusCode::SWITCHING_PROTOCOLS
}

/// The body of an answer.
pub struct Answer {
    wire: Rc<RefCell<Wire>>,
    rest: Rest,
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let Self { wire, rest } = self.get_mut();
        let wire = &mut *wire.borrow_mut();
        loop {
            if let Some(fault) = wire.take_fault(context) {
                return Poll::Ready(Some(Err(fault)));
            }
            let next = rest.next(&mut wire.arrived)?;
            wire.answering = !rest.is_over();
            if next.is_some() || !wire.answering {
                return Poll::Ready(next.map(Ok));
            }
            let is_small = matches!(rest, Rest::Length(left) if *left <= SMALL);
            if ready!(wire.poll_read(context, if is_small { READ } else { LARGE_READ }))? == 0 {
                wire.keep_alive = false;
                rest.close().ok_or(Broken::Closed)?;
            }
            wire.arrived = wire.buffer.split().freeze();
        }
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_over()
    }

    fn size_hint(&self) -> SizeHint {
        match &self.rest {
            Rest::Length(left) => SizeHint::with_exact(*left),
            Rest::Chunks(_) | Rest::UntilClose { .. } => SizeHint::default(),
        }
    }
}

/// A body on its way up (rules 2 and 3).
struct Upload<B> {
    wire: Rc<RefCell<Wire>>,
    body: B,
    framing: Framing,
    /// What is being written, and what stands behind it.
    piece: Bytes,
    end: &'static [u8],
    /// All of it is.
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
            Err(Broken::Io(error)) => tracing::debug!(%error, "the upstream takes no more of a request's body"),
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
                // What is there goes on meanwhile: the upstream may have to ask for the rest.
                ready!(self.poll_write(context))?;
                return Poll::Pending;
            };
            let out = &mut self.wire.borrow_mut().out;
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

//! An HTTP/1.1 connection to the upstream, driven by the request that is on it.
//!
//! 1. A request without a body needs no task, channel or lock of its own: the waiting task writes its head and reads its
//!    response. `docs/decisions/0018` lists the savings.
//! 2. A separate task uploads a body, so a response may arrive before the upload ends, and neither waits for the other.
//! 3. A failure of the upload does not hide a response that has arrived. Only a failure of the body itself ends the
//!    exchange, because the upstream could not parse later bytes.
//! 4. The connection can carry another request when request and response are complete, no bytes follow the response, and
//!    neither side sent `close`. Bytes that arrive while it is idle end it. A response that precedes the end of the request
//!    also ends it: such an upstream may never read the rest.

use std::cell::RefCell;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use http::{HeaderValue, Method, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use tokio::io::AsyncWrite;
use tokio::net::TcpStream;
use tokio::task::AbortHandle;
use tokio::time::Instant;
use tokio_rustls::client::TlsStream;

use super::broken::{Broken, Unanswered};
use super::listener::Listener;
use super::request::{Framing, Outgoing};
use super::response_head::{Remaining, ResponseHead};
use super::upload::Upload;
use super::wire::{LARGE_READ, READ, SMALL, Wire};

/// An HTTP/1.1 connection; see the module.
pub struct Http1 {
    /// When the connection stops accepting requests.
    pub until: Instant,
    wire: Rc<RefCell<Wire>>,
    upload: Option<AbortHandle>,
}

impl Http1 {
    /// A new connection, which accepts requests until `until`.
    #[must_use]
    pub fn new(stream: TlsStream<TcpStream>, until: Instant) -> Self {
        Self { until, wire: Rc::new(RefCell::new(Wire::new(stream))), upload: None }
    }

    /// Whether the connection can carry another request, without polling it (rule 4).
    #[must_use]
    pub fn is_free(&self) -> bool {
        let wire = self.wire.borrow();
        wire.keep_alive && !wire.uploading && !wire.answering && wire.arrived.is_empty() && wire.buffer.is_empty()
    }

    /// Whether the connection is open and no bytes have arrived since it was free. The task is woken when that changes.
    pub fn is_quiet(&self, context: &mut Context<'_>) -> bool {
        let mut wire = self.wire.borrow_mut();
        let Some(stream) = &wire.stream else { return false };
        let (socket, tls) = stream.get_ref();
        // The bytes may belong to TLS itself; only a read tells.
        tls.wants_read() && socket.poll_read_ready(context).is_pending() || wire.poll_read(context, READ).is_pending()
    }

    /// Whether no bytes have arrived since the request began.
    #[must_use]
    pub fn nothing_was_read(&self) -> bool {
        self.wire.borrow().read == 0
    }

    /// Sends a request to `host`, and returns the response, with the request if it has no body.
    ///
    /// # Errors
    /// [`Unanswered`], with the request if it has no body.
    pub async fn send<B>(
        &mut self,
        request: Box<Outgoing<B>>,
        host: &HeaderValue,
        listener: &impl Listener,
    ) -> Result<(Response<Http1Body>, Option<Box<Outgoing<B>>>), Unanswered<B>>
    where
        B: Body<Data = Bytes> + Unpin + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let to_head = request.method == Method::HEAD;
        let framing = Framing::of(&request.body);
        self.wire.borrow_mut().begin(&request, host, framing);
        let request = if request.body.is_end_stream() {
            Some(request)
        } else {
            let upload = Upload::new(self.wire.clone(), request.body, framing);
            self.upload = Some(tokio::task::spawn_local(upload).abort_handle());
            None
        };
        let wire = &self.wire;
        let mut writes = request.is_some();
        let answered = poll_fn(|context| {
            let wire = &mut *wire.borrow_mut();
            if writes {
                // A failed write does not hide a response that has arrived; the read decides.
                writes = wire.poll_write(context, &mut Bytes::new(), &mut &b""[..]).is_pending();
                wire.uploading = writes;
            }
            wire.poll_head(context, listener)
        });
        match answered.await {
            Ok(head) => Ok((self.answer(head, to_head), request)),
            Err(error) => Err(Unanswered { error, request, written: true }),
        }
    }

    fn answer(&self, head: ResponseHead, to_head: bool) -> Response<Http1Body> {
        let rest = head.rest(to_head);
        let mut wire = self.wire.borrow_mut();
        let early = wire.uploading;
        wire.keep_alive = head.keep_alive && !early && head.status != StatusCode::SWITCHING_PROTOCOLS;
        wire.answering = !rest.is_over();
        let mut response = Response::new(Http1Body { wire: self.wire.clone(), rest });
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
            // Sends close_notify, so the upstream can detect truncation (RFC 8446, section 6.1); the attempt may fail or
            // block.
            let _ = Pin::new(&mut stream).poll_shutdown(&mut Context::from_waker(Waker::noop()));
        }
    }
}

/// The body of a response.
pub struct Http1Body {
    wire: Rc<RefCell<Wire>>,
    rest: Remaining,
}

impl Body for Http1Body {
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
            let is_small = matches!(rest, Remaining::Length(left) if *left <= SMALL);
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
            Remaining::Length(left) => SizeHint::with_exact(*left),
            Remaining::Chunks(_) | Remaining::UntilClose { .. } => SizeHint::default(),
        }
    }
}

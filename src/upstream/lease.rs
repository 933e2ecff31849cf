//! The use of a connection for one request.

use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;

use bytes::Bytes;
use http::Response;
use http_body::Body;
use hyper::client::conn::http2;
use tokio::time::{Instant, timeout};

use super::Upstream;
use super::broken::{Broken, Unanswered};
use super::dial::DialError;
use super::listener::Listener;
use super::pool::{CarriedToken, Permit, Pool};
use super::received::Received;
use super::request::Outgoing;
use super::sender::Sender;

/// The proof that a request may be sent now, by the quotas of its token's owner. Only the turns of requests make it.
pub trait Pass {}

/// The use of a connection for one request.
pub struct Lease<B: 'static> {
    sender: Sender<B>,
    carried: CarriedToken,
    reused: bool,
    // Released when the lease ends.
    permit: Permit<B>,
}

impl<B: Body<Data = Bytes> + Unpin + 'static> Pool<B>
where
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    /// Returns a connection for one request with the token `carried`: an existing one, unless `fresh` requires one that was
    /// opened since this call began, for this request or another.
    ///
    /// # Errors
    /// [`DialError`] if no connection is available.
    pub async fn lease(self: &Rc<Self>, carried: CarriedToken, fresh: bool) -> Result<Lease<B>, DialError> {
        let after = fresh.then(Instant::now);
        let mut permit = self.permit().await?;
        let mut known = self.take_shared(carried, after);
        if known.is_none() && !fresh {
            known = self.take_idle(carried);
        }
        let (sender, reused) = match known {
            Some(sender) => (sender, true),
            // Boxed, so the dialling states do not enlarge every request's future.
            None => Box::pin(self.open(carried, after)).await?,
        };
        permit.got(&sender, reused);
        Ok(Lease { sender, carried, reused, permit })
    }
}

impl<B: Body<Data = Bytes> + Unpin + 'static> Lease<B>
where
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    /// The upstream of the connection.
    #[must_use]
    pub fn upstream(&self) -> &Arc<Upstream> {
        self.permit.pool().upstream()
    }

    /// Whether the connection has carried a request before.
    #[must_use]
    pub const fn is_reused(&self) -> bool {
        self.reused
    }

    /// Whether it is an HTTP/2 connection.
    #[must_use]
    pub const fn is_http2(&self) -> bool {
        matches!(self.sender, Sender::Http2 { .. })
    }

    /// Whether the upstream sent no bytes since the lease began; false on a shared connection, where that is unknown.
    #[must_use]
    pub fn nothing_was_read(&self) -> bool {
        match &self.sender {
            Sender::Http1(connection) => connection.nothing_was_read(),
            Sender::Http2 { .. } => false,
        }
    }

    /// Waits until the connection accepts the request; false if it closed instead.
    pub async fn ready(&mut self) -> bool {
        let limit = self.permit.pool().upstream().settings.timeouts.connect;
        match &mut self.sender {
            Sender::Http1(connection) => poll_fn(|context| Poll::Ready(connection.is_quiet(context))).await,
            Sender::Http2 { sender, .. } => timeout(limit, sender.ready()).await.is_ok_and(|ready| ready.is_ok()),
        }
    }

    /// Sends the request, and returns the response head; on HTTP/1.1 with the request, if it has no body. Interim responses
    /// on HTTP/2 are not reported. `pass` is the proof that the request may be sent now.
    ///
    /// # Errors
    /// [`Unanswered`], with the request if it may be sent again.
    pub async fn send(
        &mut self,
        request: Box<Outgoing<B>>,
        listener: &impl Listener,
        _: &impl Pass,
    ) -> Result<(Response<Received>, Option<Box<Outgoing<B>>>), Unanswered<B>> {
        let upstream = self.permit.pool().upstream();
        match &mut self.sender {
            Sender::Http1(connection) => {
                let answer = connection.send(request, &upstream.host, listener).await;
                answer.map(|(answer, request)| (answer.map(Received::Http1), request))
            }
            Sender::Http2 { sender, .. } => Ok((send_http2(sender, request, upstream).await?, None)),
        }
    }

    /// Stops further requests on this shared connection, whose upstream refuses them.
    pub fn retire(&self) {
        if let Sender::Http2 { active, .. } = &self.sender {
            self.permit.pool().retire(active);
        }
    }

    /// Ends the lease after the response is complete; `clean` if the request is complete too (rule 6 of [`super::pool`]).
    pub fn finish(self, clean: bool) {
        let Self { sender, carried, permit, .. } = self;
        if let Sender::Http1(connection) = sender
            && clean
        {
            permit.pool().keep(carried, connection);
        }
    }
}

async fn send_http2<B: Body<Data = Bytes> + Unpin + 'static>(
    sender: &mut http2::SendRequest<B>,
    request: Box<Outgoing<B>>,
    upstream: &Upstream,
) -> Result<Response<Received>, Unanswered<B>>
where
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let (method, target) = (request.method.clone(), request.target.clone());
    let request = request
        .into_http2(upstream.scheme.clone(), upstream.authority.clone())
        .map_err(|error| Unanswered { written: false, request: None, error: Broken::Form(error) })?;
    let answer = sender.try_send_request(request).await.map_err(|mut failed| {
        let request = failed.take_message().map(|request| {
            let (head, body) = request.into_parts();
            Box::new(Outgoing { method, target, fields: head.headers, body })
        });
        Unanswered { written: request.is_none(), request, error: Broken::Http2(failed.into_error()) }
    });
    answer.map(|answer| answer.map(Received::Http2))
}

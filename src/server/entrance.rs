//! The beginning of a connection to a listener that speaks TLS or is a forward proxy, until its first request can be read.
//!
//! 1. Where TLS is expected, the first byte decides: one that does not begin a handshake gets a response in clear text that
//!    names the remedy.
//! 2. On a forward proxy, the first bytes decide: a CONNECT request opens a tunnel to one of Metrica's names, which ends here
//!    ([`crate::policy::proxy`]); any other request is served as it is. The gate never connects to a target.
//! 3. The name of a tunnel, and the name in a TLS handshake (SNI), is that of every request on the connection
//!    ([`crate::policy::admission`], rule 8). If they differ, the connection is refused; in HTTP/2, where a refusal
//!    belongs to a request, each request is.
//! 4. All of this together has the timeout of a request's header, and the connection counts from its accept. A draining
//!    worker waits for it as for an idle connection. Only a handshake that was due counts as one that exceeded the timeout.
//! 5. A failed handshake is counted, and logged with its remedy. One that the client ends without an alert, like that of a
//!    port scan, is only counted.
//! 6. A key in the `Proxy-Authorization` of a CONNECT request holds for every request in the tunnel. One that is invalid or
//!    unknown is refused at once (`key_unknown`, 401). A refusal here is counted for the caller of the key and certificate.

use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::sync::Arc;

use rustls::{HandshakeKind, ServerConnection};
use strict_http::Malformed;
use strict_http::connect::{ConnectReader, Target, is_connect};
use strict_http::request_reader::Bounds;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use zeroize::Zeroizing;

use super::begun::Begun;
use super::handshake_error::remedy;
use super::listen::Kind;
use super::socket::Socket;
use super::{LAST_CALL, LINGER, http2, serve};
use crate::config::Limits;
use crate::config::certificates::{
    ClientCertificate, ClientCertificateFault, ClientTrust, OneHandshake, RefusedCertificate,
};
use crate::gateway::connection::Connection;
use crate::gateway::refuse_early;
use crate::gateway::transport::{OpenedFor, Transport};
use crate::metrics::{Handshake, TunnelContent};
use crate::policy::caller::Evidence;
use crate::policy::offered::{Offered, has_key};
use crate::policy::proxy::{self, Tunnel};
use crate::policy::rejection::{Reason, Rejection};
use crate::worker::Worker;

/// A connection whose first request can be read.
struct Opened {
    socket: Socket,
    protocol: Protocol,
    /// The names that it was opened for.
    names: OpenedFor,
    client: Client,
}

/// The protocol of the requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Protocol {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2.
    Http2,
    /// The first bytes decide.
    Open,
}

/// The end of a connection before its first request.
enum Closed {
    /// The client gets a response, over TLS if the handshake has ended.
    Refused(Socket, Rejection, Box<Client>),
    /// Nothing can be sent.
    Silent,
}

impl From<io::Error> for Closed {
    /// The client has disconnected.
    fn from(_: io::Error) -> Self {
        Self::Silent
    }
}

/// The proofs of a client before its first request.
#[derive(Default)]
struct Client {
    certificate: Option<ClientCertificate>,
    /// The key of its tunnel.
    key: Offered,
}

/// A CONNECT request.
struct Connect {
    target: Target,
    credentials: Vec<Zeroizing<Vec<u8>>>,
    /// The bytes behind its header.
    rest: Vec<u8>,
}

/// The entrance of one connection.
struct Entrance {
    worker: Rc<Worker>,
    kind: Kind,
    evidence: Evidence,
    limits: Limits,
    /// Whether a TLS handshake is due.
    in_handshake: Cell<bool>,
}

/// Serves a connection from its first byte.
pub async fn enter(worker: Rc<Worker>, kind: Kind, evidence: Evidence, socket: Socket, limits: Limits) {
    let peer = evidence.peer;
    let patience = worker.snapshot().generation.timeouts.request_headers;
    let entrance = Entrance { worker, kind, evidence, limits, in_handshake: Cell::new(false) };
    let last_call = async {
        entrance.worker.until_draining().await;
        sleep(LAST_CALL).await;
    };
    // Rule 4.
    let opened = tokio::select! {
        biased;
        opened = timeout(patience, entrance.open(socket)) => opened,
        () = last_call => return,
    };
    match opened {
        Ok(Ok(opened)) => entrance.serve(opened).await,
        Ok(Err(Closed::Silent)) => {}
        Ok(Err(Closed::Refused(socket, rejection, client))) => {
            let (worker, (evidence, transport)) = entrance.begin([None, None], *client);
            let connection = Rc::new(Connection::on(transport, evidence));
            let answer = refuse_early(&worker, &connection, rejection);
            socket.write_and_close(&answer, LINGER, u64::MAX).await;
        }
        Err(_) => {
            tracing::debug!(listener = kind.name.as_str(), %peer, "the caller exceeded a timeout; closing its connection");
            if entrance.in_handshake.get() {
                entrance.worker.count(|shard| shard.handshake(Handshake::Late));
            }
        }
    }
}

impl Entrance {
    /// Returns the evidence and the state of the connection, for its requests.
    fn begin(self, opened_for: OpenedFor, client: Client) -> (Rc<Worker>, (Evidence, Rc<Transport>)) {
        let Client { certificate, key } = client;
        let names = certificate.as_ref().map(|certificate| certificate.names.clone());
        let evidence = Evidence { names, ..self.evidence };
        (self.worker, (evidence, Rc::new(Transport::opened_as(opened_for, certificate, key))))
    }

    async fn serve(self, Opened { mut socket, protocol, names, client }: Opened) {
        let (limits, http2) = (self.limits, self.kind.http2);
        let (worker, (evidence, transport)) = self.begin(names, client);
        let begun = match protocol {
            Protocol::Open if http2 => http2::begin(&worker, &mut socket).await,
            Protocol::Open | Protocol::Http1 | Protocol::Http2 => Begun::default(),
        };
        if protocol == Protocol::Http2 || begun.is_preface() {
            http2::serve(worker, (evidence, transport), (socket, begun), limits).await;
        } else {
            let connection = Rc::new(Connection::on(transport, evidence));
            serve(worker, connection, (socket, begun), limits).await;
        }
    }

    async fn open(&self, mut socket: Socket) -> Result<Opened, Closed> {
        if !self.kind.proxy {
            return self.handshake(socket, None, Offered::default()).await;
        }
        let begun = first_bytes(&mut socket).await?;
        if is_connect(&begun) != Some(true) {
            let (socket, protocol) = (socket.behind(begun), Protocol::Open);
            return Ok(Opened { socket, protocol, names: [None, None], client: Client::default() });
        }
        let Connect { target, credentials, rest } = match self.connect(&mut socket, begun).await? {
            Ok(read) => read,
            Err(kind) => return Err(Closed::Refused(socket, kind.into(), Box::default())),
        };
        // Rule 6.
        let key = match self.key(&credentials) {
            Ok(key) => key,
            Err(rejection) => return Err(Closed::Refused(socket, rejection, Box::default())),
        };
        let client = Client { certificate: None, key };
        let Tunnel { host, tls } = match proxy::tunnel(&target) {
            Ok(tunnel) => tunnel,
            Err(reason) => return Err(Closed::Refused(socket, denied(reason, &target), Box::new(client))),
        };
        let content = if tls { TunnelContent::Tls } else { TunnelContent::ClearText };
        self.worker.count(|shard| shard.tunnel(content));
        socket.write_all(ESTABLISHED).await?;
        socket.flush().await?;
        let socket = socket.behind(rest);
        if tls {
            return self.handshake(socket, Some(host), key).await;
        }
        Ok(Opened { socket, protocol: Protocol::Open, names: [Some(host.into()), None], client })
    }

    /// Returns the key that a CONNECT request offers.
    fn key(&self, credentials: &[Zeroizing<Vec<u8>>]) -> Result<Offered, Rejection> {
        let key = credentials.iter().try_fold(Offered::default(), |offered, value| offered.and_field(value))?;
        let snapshot = self.worker.snapshot();
        key.key()
            .map_or(Ok(()), |hash| snapshot.generation.policy.callers.check_key(&hash))
            .map_err(Rejection::from)?;
        Ok(key)
    }

    /// Reads a CONNECT request.
    async fn connect(&self, socket: &mut Socket, mut begun: Vec<u8>) -> io::Result<Result<Connect, Malformed>> {
        let Limits { header_bytes, header_fields, .. } = self.limits;
        let mut reader = ConnectReader::new(Bounds { header_bytes, header_fields });
        loop {
            match reader.look_at(&begun) {
                Ok(Some((target, used))) => {
                    let credentials = reader.take_credentials().into_iter().map(Zeroizing::new).collect();
                    return Ok(Ok(Connect { target, credentials, rest: begun.split_off(used) }));
                }
                Ok(None) => {}
                Err(kind) => return Ok(Err(kind)),
            }
            begun.clear();
            if socket.read_buf(&mut begun).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// Performs a TLS handshake, in a tunnel to `tunnel` if there is one.
    async fn handshake(&self, socket: Socket, tunnel: Option<&'static str>, key: Offered) -> Result<Opened, Closed> {
        self.in_handshake.set(true);
        match socket.first_byte().await? {
            None => return Err(Closed::Silent),
            Some(HANDSHAKE) => {}
            Some(_) => {
                let client = Box::new(Client { certificate: None, key });
                return Err(Closed::Refused(socket, Malformed::PlainText.into(), client));
            }
        }
        let Ok(Some(OneHandshake { settings, clients })) =
            self.worker.snapshot().generation.handshakes.of(self.kind.name)
        else {
            let broken = Rejection::internal("a listener with TLS has settings of handshakes");
            return Err(Closed::Refused(socket, broken, Box::new(Client { certificate: None, key })));
        };
        let refused = || clients.as_ref().and_then(|(_, observed)| observed.refused());
        let accepted = TlsAcceptor::from(settings).accept(socket).await;
        let stream = accepted.map_err(|error| self.failed(&error, refused()))?;
        let (_, session) = stream.get_ref();
        let certificate = certificate(session, clients.map(|(trust, _)| trust)).map_err(|fault| {
            self.worker.count(|shard| shard.client_certificate_refused(fault));
            Closed::Silent
        })?;
        let (kind, named) = (session.handshake_kind(), session.server_name().map(Box::<str>::from));
        let protocol = if session.alpn_protocol() == Some(b"h2") { Protocol::Http2 } else { Protocol::Http1 };
        self.worker.count(|shard| shard.handshake(Handshake::of(kind)));
        let socket = Socket::Tls(Box::new(stream));
        let client = Client { certificate, key };
        // Rule 3. The same name once suffices.
        let another = named.filter(|named| tunnel.is_none_or(|tunnel| !tunnel.eq_ignore_ascii_case(named)));
        if tunnel.is_some() && another.is_some() && protocol == Protocol::Http1 {
            return Err(Closed::Refused(socket, Reason::Misdirected.into(), Box::new(client)));
        }
        Ok(Opened { socket, protocol, names: [tunnel.map(Box::from), another], client })
    }

    /// Counts and logs a failed handshake (rule 5).
    fn failed(&self, error: &io::Error, refused: Option<RefusedCertificate>) -> Closed {
        self.worker.count(|shard| shard.handshake(Handshake::Failed));
        let (listener, peer) = (self.kind.name.as_str(), self.evidence.peer);
        let cause = error.get_ref().and_then(|inner| inner.downcast_ref());
        if let Some(fault) = cause.and_then(ClientCertificateFault::of) {
            self.worker.count(|shard| shard.client_certificate_refused(fault));
            let (subject, issuer) = refused.map(|refused| (refused.subject, refused.issuer)).unzip();
            let remedy = fault.remedy();
            tracing::warn!(listener, %peer, subject, issuer, error = %fault, remedy, "TLS handshake failed");
            return Closed::Silent;
        }
        match cause {
            Some(cause) => {
                let remedy = remedy(cause);
                tracing::warn!(listener, %peer, %error, remedy, "TLS handshake failed");
            }
            None => tracing::debug!(listener, %peer, %error, "the client ended the TLS handshake"),
        }
        Closed::Silent
    }
}

/// Returns the certificate that a client presented in a handshake with these authorities. In a resumed session, it was
/// verified at another time.
fn certificate(
    session: &ServerConnection,
    trust: Option<Arc<ClientTrust>>,
) -> Result<Option<ClientCertificate>, ClientCertificateFault> {
    let (Some(chain), Some(trust)) = (session.peer_certificates(), trust) else { return Ok(None) };
    let is_resumed = session.handshake_kind() == Some(HandshakeKind::Resumed);
    ClientCertificate::new(chain, (!is_resumed).then_some(trust)).map(Some)
}

/// The type of the first TLS record of a client (RFC 8446, section 5.1).
const HANDSHAKE: u8 = 0x16;

/// The response that opens a tunnel. It has no fields, because a tunnel has no length (RFC 9110, section 9.3.6).
const ESTABLISHED: &[u8] = b"HTTP/1.1 200 Connection established\r\n\r\n";

/// Reads until the first bytes show whether they begin a CONNECT request.
async fn first_bytes(socket: &mut Socket) -> io::Result<Vec<u8>> {
    let mut begun = Vec::new();
    while is_connect(&begun).is_none() {
        if socket.read_buf(&mut begun).await? == 0 {
            break;
        }
    }
    Ok(begun)
}

/// The maximum number of bytes of a target in the log.
const SHOWN: usize = 100;

/// The refusal of a CONNECT request. The log names the target, so that an operator knows what the client wants.
fn denied(reason: Reason, target: &Target) -> Rejection {
    let authority = target.authority();
    // A client can have put its key there.
    let authority = if has_key(authority) { b"..." } else { authority };
    let shown = authority.get(..SHOWN).unwrap_or(authority).escape_ascii();
    Rejection::because(reason, anyhow::anyhow!("the proxy does not serve '{shown}'"))
}

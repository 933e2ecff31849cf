//! Opens one connection: resolves the name, connects, opens the tunnel of a proxy, and performs the TLS handshake.
//!
//! 1. Every connection resolves the name, so address changes are followed; connections opened at once share a look-up
//!    ([`super::lookup`]).
//! 2. The name of the URL is resolved as an absolute name (with a final dot), so neither the hosts file of a pod that maps
//!    Metrica's names to the gate nor a search list can direct the gate to itself. The name of `connect_to` is resolved as
//!    written: it may be a cluster name or in the hosts file.
//!    With `upstream.proxy`, only the name of the proxy is resolved, also as written; the proxy resolves the other one.
//! 3. Addresses are tried in the resolver's order with alternating families, each a quarter of a second after the previous
//!    one, or at once if that failed (RFC 8305).

use std::cell::Cell;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::Upstream;
use super::lookup::LookUps;
use super::own::{self, IsThisGate};
use super::tunnel::{Refused, Tunnel, authority};
use crate::config::AddressFamily;
use crate::files::descriptors::DescriptorNeed;
use crate::metrics::{ConnectStep, UpstreamError};

/// The reason of a failed dial. No part of a request was sent.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// The name was not found.
    #[error("looking up {name} failed{hint}")]
    Resolve {
        /// The name.
        name: String,
        /// A hint about sources that the look-up does not use, or empty.
        hint: &'static str,
        /// The cause, which requests that share the look-up share too.
        source: Arc<io::Error>,
    },
    /// No address accepted the connection.
    #[error("connecting to {place} failed")]
    Connect {
        /// Host and port.
        place: String,
        /// The cause.
        source: io::Error,
    },
    /// The proxy opened no tunnel.
    #[error("no tunnel to {target} through the proxy {proxy}")]
    Proxy {
        /// The host and port of the proxy.
        proxy: String,
        /// The host and port that the tunnel leads to.
        target: String,
        /// The cause.
        source: Refused,
    },
    /// The dial took longer than `upstream.timeouts.connect`.
    #[error("connecting took longer than {0:?}")]
    Timeout(Duration),
    /// The certificate was rejected, or TLS failed otherwise.
    #[error("TLS with {place} failed")]
    Tls {
        /// Host and port.
        place: String,
        /// The cause.
        source: io::Error,
    },
    /// The maximum number of requests is under way, and no place became free in time.
    #[error("no connection became free in {0:?}")]
    Saturated(Duration),
}

impl DialError {
    /// The metric label of the error.
    #[must_use]
    pub const fn kind(&self) -> UpstreamError {
        match self {
            Self::Resolve { .. } => UpstreamError::Resolve,
            Self::Connect { .. } => UpstreamError::Connect,
            Self::Proxy { source, .. } => source.kind(),
            Self::Timeout(_) => UpstreamError::ConnectTimeout,
            Self::Tls { .. } => UpstreamError::Tls,
            Self::Saturated(_) => UpstreamError::Saturated,
        }
    }
}

/// A new connection.
#[derive(Debug)]
pub struct Dialled {
    /// The connection.
    pub stream: TlsStream<TcpStream>,
    /// Whether HTTP/2 was negotiated.
    pub http2: bool,
    /// The address that was connected to: that of the proxy, if there is one.
    pub address: SocketAddr,
    /// The duration of each step.
    pub steps: Vec<(ConnectStep, Duration)>,
}

/// Opens a connection to `upstream`; simultaneous dials share a look-up of `look_ups`.
///
/// # Errors
/// Any [`DialError`] except the last kind.
pub async fn dial(upstream: &Upstream, look_ups: &LookUps) -> Result<Dialled, DialError> {
    let limit = upstream.settings.timeouts.connect;
    let step = Cell::new(Step::Connect);
    let dialling = tokio::time::timeout(limit, dial_without_limit(upstream, look_ups, &step));
    dialling.await.unwrap_or_else(|_| Err(too_late(upstream, step.get(), limit)))
}

/// The step of a dial that is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Connect,
    Tunnel,
    Tls,
}

/// Returns the error of a dial that `step` took too long for.
fn too_late(upstream: &Upstream, step: Step, limit: Duration) -> DialError {
    match (&upstream.tunnel, step) {
        (Some(tunnel), Step::Connect) => refused(tunnel, Refused::ConnectTimeout(limit)),
        (Some(tunnel), Step::Tunnel) => refused(tunnel, Refused::Timeout(limit)),
        (Some(_), Step::Tls) | (None, _) => DialError::Timeout(limit),
    }
}

/// Returns the error for a tunnel that was not opened.
fn refused(tunnel: &Tunnel, source: Refused) -> DialError {
    DialError::Proxy { proxy: tunnel.proxy.clone(), target: tunnel.target.clone(), source }
}

async fn dial_without_limit(upstream: &Upstream, look_ups: &LookUps, step: &Cell<Step>) -> Result<Dialled, DialError> {
    let mut steps = Steps::new();
    let addresses = resolve(upstream, look_ups).await?;
    steps.end(ConnectStep::Lookup);
    let failed = |source| match &upstream.tunnel {
        Some(tunnel) => refused(tunnel, Refused::Connect(source)),
        None => DialError::Connect { place: place(upstream), source },
    };
    let mut socket = connect(addresses).await.map_err(failed)?;
    socket.set_nodelay(true).map_err(failed)?;
    steps.end(ConnectStep::Connect);
    if let Some(tunnel) = &upstream.tunnel {
        step.set(Step::Tunnel);
        tunnel.open(&mut socket).await.map_err(|source| refused(tunnel, source))?;
        steps.end(ConnectStep::Tunnel);
    }
    step.set(Step::Tls);
    let name: ServerName<'static> = upstream.server_name.clone();
    let peer = socket.peer_addr().map_err(failed)?;
    let stream = TlsConnector::from(upstream.tls.clone()).connect(name, socket).await;
    let stream = stream.map_err(|error| own::explained(&upstream.own, peer, error));
    let stream =
        stream.and_then(|stream| own::check(&upstream.own, stream.get_ref().1.peer_certificates()).map(|()| stream));
    let stream = stream.map_err(|error| handshake_failed(error, place(upstream)))?;
    let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    steps.end(ConnectStep::Tls);
    Ok(Dialled { stream, http2, address: peer, steps: steps.ended })
}

/// The durations of the steps of a dial.
struct Steps {
    began: Instant,
    ended: Vec<(ConnectStep, Duration)>,
}

impl Steps {
    /// Begins the first step.
    fn new() -> Self {
        Self { began: Instant::now(), ended: Vec::with_capacity(ConnectStep::ALL.len()) }
    }

    /// Ends a step, and begins the next one.
    fn end(&mut self, step: ConnectStep) {
        let now = Instant::now();
        self.ended.push((step, now - self.began));
        self.began = now;
    }
}

/// Classifies a failed handshake: TLS rejected it, or the connection below failed.
fn handshake_failed(source: io::Error, place: String) -> DialError {
    if IsThisGate::caused(&source) || source.get_ref().is_some_and(|inner| inner.is::<rustls::Error>()) {
        DialError::Tls { place, source }
    } else {
        DialError::Connect { place, source }
    }
}

/// The host and port that TLS is spoken with, for messages.
pub fn place(upstream: &Upstream) -> String {
    let settings = &upstream.settings;
    if let Some(tunnel) = &upstream.tunnel {
        return format!("{} through the proxy {}", tunnel.target, tunnel.proxy);
    }
    match &settings.connect_to {
        Some((host, port)) => authority(host, *port),
        None => authority(&settings.host, settings.port),
    }
}

/// The host and port that a connection is opened to, and whether the host is resolved as an absolute name (rule 2).
pub fn dialled_place(settings: &crate::config::Upstream) -> (&str, u16, bool) {
    match (&settings.proxy, &settings.connect_to) {
        (Some(proxy), _) => (&proxy.host, proxy.port, false),
        (None, Some((host, port))) => (host, *port, false),
        (None, None) => (&settings.host, settings.port, settings.host.contains('.') && !settings.host.ends_with('.')),
    }
}

/// Returns the addresses of `upstream`.
///
/// # Errors
/// [`DialError::Resolve`].
pub async fn addresses(upstream: &Upstream) -> Result<Vec<SocketAddr>, DialError> {
    resolve(upstream, &LookUps::default()).await
}

async fn resolve(upstream: &Upstream, look_ups: &LookUps) -> Result<Vec<SocketAddr>, DialError> {
    let settings = &upstream.settings;
    let (host, port, absolute) = dialled_place(settings);
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(address, port)]);
    }
    let name = if absolute { format!("{host}.") } else { host.to_owned() };
    let hint = if absolute { " (the gate uses the hosts file for upstream.connect_to only)" } else { "" };
    let failed = |source| match &upstream.tunnel {
        Some(tunnel) => refused(tunnel, Refused::Resolve { name: name.clone(), source }),
        None => DialError::Resolve { name: name.clone(), hint, source },
    };
    let look_up = || {
        let name = name.clone();
        async move { tokio::net::lookup_host((name.as_str(), port)).await.map(Iterator::collect) }
    };
    let found = look_ups.find(look_up).await.map_err(|error| {
        DescriptorNeed::Upstream.found_none(&error);
        failed(error)
    })?;
    let wanted = |address: &SocketAddr| match settings.address_family {
        AddressFamily::Any => true,
        AddressFamily::Ipv4 => address.is_ipv4(),
        AddressFamily::Ipv6 => address.is_ipv6(),
    };
    let addresses = alternating(found.into_iter().filter(wanted).collect());
    if addresses.is_empty() {
        let none = io::Error::new(io::ErrorKind::NotFound, "the name has no address of the configured family");
        return Err(failed(Arc::new(none)));
    }
    Ok(addresses)
}

/// The addresses with alternating families, beginning with that of the first address.
fn alternating(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let first_is_v6 = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let (first, second): (Vec<_>, Vec<_>) = addresses.into_iter().partition(|address| address.is_ipv6() == first_is_v6);
    let (mut first, mut second) = (first.into_iter(), second.into_iter());
    let mut ordered = Vec::new();
    loop {
        let pair = [first.next(), second.next()];
        if pair == [None, None] {
            return ordered;
        }
        ordered.extend(pair.into_iter().flatten());
    }
}

/// The delay before the next address is tried in parallel (RFC 8305, section 5: 250 ms).
const STAGGER: Duration = Duration::from_millis(250);

async fn connect(addresses: Vec<SocketAddr>) -> io::Result<TcpStream> {
    let mut waiting = addresses.into_iter();
    let mut attempts = JoinSet::new();
    let mut last_error = io::Error::new(io::ErrorKind::NotFound, "no address to try");
    loop {
        if let Some(address) = waiting.next() {
            attempts.spawn_local(TcpStream::connect(address));
        }
        tokio::select! {
            joined = attempts.join_next() => match joined {
                None => return Err(last_error),
                Some(Ok(Ok(socket))) => return Ok(socket),
                Some(Ok(Err(error))) => {
                    DescriptorNeed::Upstream.found_none(&error);
                    last_error = error;
                }
                Some(Err(panicked)) => last_error = io::Error::other(panicked),
            },
            () = tokio::time::sleep(STAGGER), if waiting.len() > 0 => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_take_turns() {
        let list = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<SocketAddr>>();
        let resolved = list(&["[::1]:1", "[::2]:1", "[::3]:1", "1.1.1.1:1"]);
        assert_eq!(alternating(resolved), list(&["[::1]:1", "1.1.1.1:1", "[::2]:1", "[::3]:1"]));
    }
}

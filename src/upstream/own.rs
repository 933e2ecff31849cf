//! Detection of loops: the name of the upstream leads to a listener of this gate.
//!
//! 1. A server that presents a certificate of this gate is this gate, or has its key. No request is sent to it.
//! 2. A server whose certificate is refused is this gate if its address is that of a listener. Its certificate is not known
//!    then, because only trusted ones are.
//! 3. The addresses of the upstream are compared with the listeners at the start, too ([`look_for_loop`]). This does not see a
//!    port that is mapped to another one.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use rustls::Error;
use rustls::pki_types::CertificateDer;

use super::Upstream;
use super::dial::addresses;
use crate::config::certificates::OwnListeners;

/// The upstream is this gate.
#[derive(Debug, thiserror::Error)]
#[error(
    "the upstream is a listener of this gate: its name, or connect_to, leads here, for example because DNS has the gate's address for Metrica's name; set upstream.connect_to to an address of Metrica"
)]
pub struct IsThisGate;

impl IsThisGate {
    /// Whether a failed handshake has this cause.
    #[must_use]
    pub fn caused(error: &io::Error) -> bool {
        error.get_ref().is_some_and(|inner| inner.is::<Self>())
    }
}

/// Returns the error for a handshake that failed with the server at `peer` (rule 2).
pub fn explained(own: &OwnListeners, peer: SocketAddr, error: io::Error) -> io::Error {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
    let is_refused = matches!(inner, Some(Error::InvalidCertificate(_)));
    if is_refused && is_here(own, peer) { io::Error::other(IsThisGate) } else { error }
}

/// Checks the certificate of a server (rule 1).
///
/// # Errors
/// [`IsThisGate`].
pub fn check(own: &OwnListeners, chain: Option<&[CertificateDer<'_>]>) -> io::Result<()> {
    let is_own = chain.and_then(<[_]>::first).is_some_and(|certificate| own.present(certificate));
    if is_own { Err(io::Error::other(IsThisGate)) } else { Ok(()) }
}

/// Returns the first address of the upstream that is one of a listener with TLS (rule 3).
async fn leads_here(upstream: &Upstream) -> Option<SocketAddr> {
    if upstream.own.addresses().is_empty() {
        return None;
    }
    let found = addresses(upstream).await.ok()?;
    found.into_iter().find(|address| is_here(&upstream.own, *address))
}

/// Logs whether the upstream leads to a listener of this gate (rule 3).
pub async fn look_for_loop(upstream: Arc<Upstream>) {
    if let Some(address) = leads_here(&upstream).await {
        tracing::error!(upstream = %upstream.settings.authority, %address, "the upstream leads to a listener of this gate; set upstream.connect_to to an address of Metrica");
    }
}

/// Whether an address is one of a listener. A listener on all addresses has every address of this machine.
fn is_here(own: &OwnListeners, address: SocketAddr) -> bool {
    own.addresses().iter().any(|listener| {
        let all = listener.ip().is_unspecified() && is_of_this_machine(address);
        listener.port() == address.port() && (all || listener.ip().to_canonical() == address.ip().to_canonical())
    })
}

/// Whether an address is one of this machine: only such an address can be bound.
fn is_of_this_machine(address: SocketAddr) -> bool {
    std::net::UdpSocket::bind((address.ip(), 0)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rule_2_only_a_refused_certificate_at_a_listener_is_this_gate() {
        let own = OwnListeners::default();
        own.listen_on(vec!["127.0.0.1:8443".parse().unwrap(), "0.0.0.0:9443".parse().unwrap()]);
        let refused = || io::Error::other(Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer));
        let is = |peer: &str, error| IsThisGate::caused(&explained(&own, peer.parse().unwrap(), error));
        assert!(is("127.0.0.1:8443", refused()) && is("[::ffff:127.0.0.1]:8443", refused()));
        assert!(is("127.0.0.1:9443", refused()), "it is an address of this machine");
        for (peer, error) in [
            ("127.0.0.1:443", refused()),
            ("127.0.0.2:8443", refused()),
            ("192.0.2.1:9443", refused()),
            ("127.0.0.1:8443", io::ErrorKind::ConnectionReset.into()),
            ("127.0.0.1:8443", io::Error::other(Error::DecryptError)),
        ] {
            assert!(!is(peer, error), "{peer}");
        }
    }
}

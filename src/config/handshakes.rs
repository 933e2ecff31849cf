//! The settings of handshakes, for each listener that speaks TLS.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs::{Ticketer, default_provider};
use rustls::pki_types::CertificateDer;
use rustls::server::{NoServerSessionStorage, ProducesTickets, ResolvesServerCert};
use rustls::sign::SingleCertAndKey;

use super::leaf::Leaf;
use crate::policy::names::ListenerName;

/// The listeners of this process that speak TLS: their certificates and addresses.
#[derive(Debug, Default)]
pub struct OwnListeners {
    certificates: Mutex<Vec<CertificateDer<'static>>>,
    addresses: OnceLock<Vec<SocketAddr>>,
}

impl OwnListeners {
    /// Replaces the certificates.
    pub fn serve(&self, handshakes: &Handshakes) {
        *self.certificates.lock().unwrap_or_else(PoisonError::into_inner) = handshakes.certificates();
    }

    /// Sets the addresses, once for the lifetime of the process.
    pub fn listen_on(&self, addresses: Vec<SocketAddr>) {
        self.addresses.get_or_init(|| addresses);
    }

    /// Whether a listener presents the certificate.
    #[must_use]
    pub fn present(&self, certificate: &CertificateDer<'_>) -> bool {
        self.certificates.lock().unwrap_or_else(PoisonError::into_inner).iter().any(|own| own == certificate)
    }

    /// Returns the addresses.
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        self.addresses.get().map_or(&[], Vec::as_slice)
    }
}

/// The settings of handshakes, by listener.
#[derive(Default, Clone)]
pub struct Handshakes(BTreeMap<ListenerName, Handshake>);

#[derive(Clone)]
struct Handshake {
    leaf: Leaf,
    tickets: Arc<dyn ProducesTickets>,
    settings: Arc<ServerConfig>,
}

impl fmt::Debug for Handshakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl Handshakes {
    /// Prepares the settings of listeners with these certificates; the flag enables HTTP/2. A listener with the same
    /// certificate as in `old` keeps its settings, and every other listener keeps its tickets.
    ///
    /// # Errors
    /// TLS cannot be set up.
    pub fn new<'a>(
        listeners: impl IntoIterator<Item = (ListenerName, &'a Leaf, bool)>,
        old: Option<&Self>,
    ) -> Result<Self, rustls::Error> {
        let mut all = BTreeMap::new();
        for (name, leaf, http2) in listeners {
            let before = old.and_then(|old| old.0.get(&name));
            let handshake = match before {
                Some(before) if before.leaf == *leaf => before.clone(),
                Some(before) => Handshake::new(leaf, http2, before.tickets.clone())?,
                None => Handshake::new(leaf, http2, Ticketer::new()?)?,
            };
            all.insert(name, handshake);
        }
        Ok(Self(all))
    }

    /// Returns the settings of a listener; `None` if it does not speak TLS.
    #[must_use]
    pub fn of(&self, listener: ListenerName) -> Option<Arc<ServerConfig>> {
        self.0.get(&listener).map(|handshake| handshake.settings.clone())
    }

    /// Returns the certificates of all listeners.
    fn certificates(&self) -> Vec<CertificateDer<'static>> {
        self.0.values().filter_map(|handshake| handshake.leaf.certified().cert.first()).cloned().collect()
    }
}

impl Handshake {
    fn new(leaf: &Leaf, http2: bool, tickets: Arc<dyn ProducesTickets>) -> Result<Self, rustls::Error> {
        let certificate: Arc<dyn ResolvesServerCert> = Arc::new(SingleCertAndKey::from(leaf.certified().clone()));
        let mut settings = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(certificate);
        settings.alpn_protocols = vec![b"http/1.1".to_vec()];
        if http2 {
            settings.alpn_protocols.insert(0, b"h2".to_vec());
        }
        settings.ticketer = tickets.clone();
        // Tickets resume sessions of both versions, without memory for each session.
        settings.session_storage = Arc::new(NoServerSessionStorage {});
        Ok(Self { leaf: leaf.clone(), tickets, settings: Arc::new(settings) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaf() -> Leaf {
        let made = rcgen::generate_simple_self_signed(vec!["a".to_owned()]).unwrap();
        Leaf::read(made.cert.pem().as_bytes(), made.signing_key.serialize_pem().as_bytes()).unwrap()
    }

    #[test]
    fn rule_4_tickets_outlive_a_certificate() {
        let (name, other) = (ListenerName::new("tls"), ListenerName::new("other"));
        let (first, second) = (leaf(), leaf());
        let before = Handshakes::new([(name, &first, true), (other, &first, false)], None).unwrap();
        let same = Handshakes::new([(name, &first, true)], Some(&before)).unwrap();
        assert!(Arc::ptr_eq(&before.of(name).unwrap(), &same.of(name).unwrap()));
        let after = Handshakes::new([(name, &second, true)], Some(&before)).unwrap();
        let (old, new) = (before.of(name).unwrap(), after.of(name).unwrap());
        assert!(!Arc::ptr_eq(&old, &new) && after.of(other).is_none());
        let ticket = old.ticketer.encrypt(b"session").unwrap();
        assert_eq!(new.ticketer.decrypt(&ticket).as_deref(), Some(b"session".as_slice()));
        assert_eq!(before.of(other).unwrap().ticketer.decrypt(&ticket), None, "each listener has its own keys");
        let own = OwnListeners::default();
        own.serve(&after);
        assert!(own.present(&second.certified().cert[0]) && !own.present(&first.certified().cert[0]));
    }

    #[test]
    fn rule_3_http2_is_offered_where_the_listener_enables_it() {
        let (name, leaf) = (ListenerName::new("tls"), leaf());
        let offered =
            |http2| Handshakes::new([(name, &leaf, http2)], None).unwrap().of(name).unwrap().alpn_protocols.clone();
        assert_eq!(offered(false), [b"http/1.1".to_vec()]);
        assert_eq!(offered(true), [b"h2".to_vec(), b"http/1.1".to_vec()]);
    }
}

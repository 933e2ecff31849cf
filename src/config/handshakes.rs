//! The settings of handshakes, for each listener that speaks TLS.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs::{Ticketer, default_provider};
use rustls::pki_types::CertificateDer;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, ProducesTickets, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::SingleCertAndKey;

use super::client_auth::{ClientAuth, ClientTrust, Observed};
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
    http2: bool,
    tickets: Arc<dyn ProducesTickets>,
    /// The settings of a listener that asks for no certificate.
    settings: Arc<ServerConfig>,
    /// The authorities for certificates of clients, if the listener asks for them.
    clients: Option<Arc<ClientTrust>>,
}

/// TLS of a listener, as its handshakes need it.
#[derive(Debug, Clone, Copy)]
pub struct HandshakeSettings<'a> {
    /// The certificate of the listener.
    pub leaf: &'a Leaf,
    /// Whether HTTP/2 is offered.
    pub http2: bool,
    /// The authorities for certificates of clients, if the listener asks for them.
    pub clients: Option<&'a ClientAuth>,
}

/// The settings of one handshake.
pub struct OneHandshake {
    /// The settings.
    pub settings: Arc<ServerConfig>,
    /// The authorities for certificates of clients, and the verifier of this handshake.
    pub clients: Option<(Arc<ClientTrust>, Arc<Observed>)>,
}

impl fmt::Debug for Handshakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl Handshakes {
    /// Prepares the settings of listeners. A listener with the same settings as in `old` keeps them. Every other listener
    /// keeps its tickets, unless the authorities for certificates of clients have changed.
    ///
    /// # Errors
    /// TLS cannot be set up.
    pub fn new<'a>(
        listeners: impl IntoIterator<Item = (ListenerName, HandshakeSettings<'a>)>,
        old: Option<&Self>,
    ) -> anyhow::Result<Self> {
        let mut all = BTreeMap::new();
        for (name, settings) in listeners {
            let before = old.and_then(|old| old.0.get(&name));
            let same_clients = before.filter(|before| before.trusts() == settings.clients);
            let handshake = match same_clients {
                Some(before) if before.leaf == *settings.leaf => before.clone(),
                Some(before) => Handshake::new(settings, before.tickets.clone(), before.clients.clone())?,
                None => {
                    let clients = settings.clients.map(ClientTrust::new).transpose().map_err(anyhow::Error::msg)?;
                    Handshake::new(settings, Ticketer::new()?, clients.map(Arc::new))?
                }
            };
            all.insert(name, handshake);
        }
        Ok(Self(all))
    }

    /// Returns the settings of the next handshake of a listener; `None` if it does not speak TLS.
    ///
    /// # Errors
    /// TLS cannot be set up.
    pub fn of(&self, listener: ListenerName) -> Result<Option<OneHandshake>, rustls::Error> {
        let Some(handshake) = self.0.get(&listener) else { return Ok(None) };
        Ok(Some(match &handshake.clients {
            None => OneHandshake { settings: handshake.settings.clone(), clients: None },
            Some(clients) => {
                let observed = clients.observed();
                let settings = handshake.settings_with(Some(observed.clone()))?;
                OneHandshake { settings: Arc::new(settings), clients: Some((clients.clone(), observed)) }
            }
        }))
    }

    /// Returns the authorities for certificates of a listener's clients, if it asks for certificates.
    #[must_use]
    pub fn clients(&self, listener: ListenerName) -> Option<&Arc<ClientTrust>> {
        self.0.get(&listener)?.clients.as_ref()
    }

    /// Returns the certificates of all listeners.
    fn certificates(&self) -> Vec<CertificateDer<'static>> {
        self.0.values().filter_map(|handshake| handshake.leaf.certified().cert.first()).cloned().collect()
    }
}

impl Handshake {
    fn new(
        HandshakeSettings { leaf, http2, clients: _ }: HandshakeSettings<'_>,
        tickets: Arc<dyn ProducesTickets>,
        clients: Option<Arc<ClientTrust>>,
    ) -> Result<Self, rustls::Error> {
        let settings = settings(leaf, http2, tickets.clone(), None)?;
        Ok(Self { leaf: leaf.clone(), http2, tickets, settings: Arc::new(settings), clients })
    }

    /// Returns the configuration of the authorities for certificates of clients.
    fn trusts(&self) -> Option<&ClientAuth> {
        self.clients.as_ref().map(|clients| &clients.auth)
    }

    fn settings_with(&self, verifier: Option<Arc<Observed>>) -> Result<ServerConfig, rustls::Error> {
        settings(&self.leaf, self.http2, self.tickets.clone(), verifier)
    }
}

/// Builds the settings; without a verifier, no certificate of a client is asked for.
fn settings(
    leaf: &Leaf,
    http2: bool,
    tickets: Arc<dyn ProducesTickets>,
    verifier: Option<Arc<Observed>>,
) -> Result<ServerConfig, rustls::Error> {
    let certificate: Arc<dyn ResolvesServerCert> = Arc::new(SingleCertAndKey::from(leaf.certified().clone()));
    let verifier: Arc<dyn ClientCertVerifier> = match verifier {
        Some(verifier) => verifier,
        None => WebPkiClientVerifier::no_client_auth(),
    };
    let mut settings = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(certificate);
    settings.alpn_protocols = vec![b"http/1.1".to_vec()];
    if http2 {
        settings.alpn_protocols.insert(0, b"h2".to_vec());
    }
    settings.ticketer = tickets;
    // Tickets resume sessions of both versions, without memory for each session.
    settings.session_storage = Arc::new(NoServerSessionStorage {});
    Ok(settings)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaf() -> Leaf {
        let made = rcgen::generate_simple_self_signed(vec!["a".to_owned()]).unwrap();
        Leaf::read(made.cert.pem().as_bytes(), made.signing_key.serialize_pem().as_bytes()).unwrap()
    }

    type Listed<'a> = (ListenerName, &'a Leaf, Option<&'a ClientAuth>);

    fn handshakes<'a>(listeners: &[Listed<'a>], old: Option<&Handshakes>) -> Handshakes {
        let settings =
            |(name, leaf, clients): &Listed<'a>| (*name, HandshakeSettings { leaf, http2: true, clients: *clients });
        Handshakes::new(listeners.iter().map(settings), old).unwrap()
    }

    fn settings_of(handshakes: &Handshakes, name: ListenerName) -> Arc<ServerConfig> {
        handshakes.of(name).unwrap().unwrap().settings
    }

    #[test]
    fn rule_4_tickets_outlive_a_certificate() {
        let (name, other) = (ListenerName::new("tls"), ListenerName::new("other"));
        let (first, second) = (leaf(), leaf());
        let before = handshakes(&[(name, &first, None), (other, &first, None)], None);
        let same = handshakes(&[(name, &first, None)], Some(&before));
        assert!(Arc::ptr_eq(&settings_of(&before, name), &settings_of(&same, name)));
        let after = handshakes(&[(name, &second, None)], Some(&before));
        let (old, new) = (settings_of(&before, name), settings_of(&after, name));
        assert!(!Arc::ptr_eq(&old, &new) && after.of(other).unwrap().is_none());
        let ticket = old.ticketer.encrypt(b"session").unwrap();
        assert_eq!(new.ticketer.decrypt(&ticket).as_deref(), Some(b"session".as_slice()));
        assert_eq!(settings_of(&before, other).ticketer.decrypt(&ticket), None, "each listener has its own keys");
        let own = OwnListeners::default();
        own.serve(&after);
        assert!(own.present(&second.certified().cert[0]) && !own.present(&first.certified().cert[0]));
    }

    #[test]
    fn rule_4_tickets_do_not_outlive_the_trust_in_clients() {
        let (name, leaf) = (ListenerName::new("tls"), leaf());
        let trusts = |authority: &Leaf, is_required| ClientAuth {
            file: "clients.pem".into(),
            authorities: vec![authority.certified().cert[0].clone()],
            is_required,
        };
        let (one, optional, other) = (trusts(&leaf, true), trusts(&leaf, false), trusts(&self::leaf(), true));
        let all = [None, Some(&one), Some(&optional), Some(&other)];
        for (position, before) in all.into_iter().enumerate() {
            let old = handshakes(&[(name, &leaf, before)], None);
            let ticket = settings_of(&old, name).ticketer.encrypt(b"session").unwrap();
            for (again, after) in all.into_iter().enumerate() {
                let new = handshakes(&[(name, &leaf, after)], Some(&old));
                let resumes = settings_of(&new, name).ticketer.decrypt(&ticket).is_some();
                assert_eq!(resumes, position == again, "{before:?} {after:?}");
            }
        }
    }

    #[test]
    fn rule_3_http2_is_offered_where_the_listener_enables_it() {
        let (name, leaf) = (ListenerName::new("tls"), leaf());
        let offered = |http2| {
            let settings = HandshakeSettings { leaf: &leaf, http2, clients: None };
            settings_of(&Handshakes::new([(name, settings)], None).unwrap(), name).alpn_protocols.clone()
        };
        assert_eq!(offered(false), [b"http/1.1".to_vec()]);
        assert_eq!(offered(true), [b"h2".to_vec(), b"http/1.1".to_vec()]);
    }
}

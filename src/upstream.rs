//! Upstream: the single host that requests go to, and the connections to it.
//!
//! 1. The configured name is dialled, sent as SNI, verified in the certificate and sent as `Host`, whatever a request
//!    contains; `connect_to` changes only the address that is dialled. `proxy` changes only the way there: TLS runs end to
//!    end inside its tunnel. Proxy variables of the environment have no effect.
//! 2. TLS is version 1.2 or 1.3, and the certificate is always verified against the system's roots (those of Mozilla if the
//!    system has none) and the configured ones. A listener of the gate itself is no upstream (`upstream/own.rs`).
//! 3. Each worker has connections of its own; threads share only immutable state.

use std::sync::{Arc, OnceLock};

use http::HeaderValue;
use http::uri::{Authority, Scheme};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};

use crate::config;
use crate::config::certificates::OwnListeners;

pub mod broken;
pub mod dial;
pub mod http1;
mod lease;
mod listener;
pub mod lookup;
pub mod own;
pub mod pool;
pub mod received;
pub mod request;
pub mod response_head;
mod sender;
pub mod tunnel;
mod upload;
pub mod watchdog;
mod wire;

pub use lease::{Lease, Pass};
pub use listener::Listener;
pub use pool::{CarriedToken, Pool};
pub use request::Outgoing;
use tunnel::Tunnel;
pub use watchdog::{Watchdog, Watchdogs};

/// The upstream host and its TLS configuration, prepared once and shared by the workers.
pub struct Upstream {
    /// The configuration.
    pub settings: config::Upstream,
    /// The value of `Host`.
    pub host: HeaderValue,
    /// The authority of HTTP/2 requests.
    pub authority: Authority,
    /// The scheme of HTTP/2 requests.
    pub scheme: Scheme,
    server_name: ServerName<'static>,
    tls: Arc<ClientConfig>,
    /// The request to the proxy, if there is one.
    pub tunnel: Option<Tunnel>,
    /// The number and origin of the trusted certificates, for the log line at startup.
    pub roots: String,
    /// The listeners of this process, which are no upstream.
    own: Arc<OwnListeners>,
}

impl std::fmt::Debug for Upstream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Upstream").field("authority", &self.settings.authority).finish_non_exhaustive()
    }
}

impl Upstream {
    /// Prepares the upstream of `settings`.
    ///
    /// # Errors
    /// No certificate can be trusted, or TLS cannot be set up.
    pub fn new(settings: config::Upstream) -> anyhow::Result<Self> {
        Self::beside(settings, Arc::default())
    }

    /// Prepares the upstream of `settings` for a process with the listeners `own`.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn beside(settings: config::Upstream, own: Arc<OwnListeners>) -> anyhow::Result<Self> {
        let (store, roots) = trusted_roots(&settings)?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(store)
            .with_no_client_auth();
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        if settings.http2 {
            tls.alpn_protocols.insert(0, b"h2".to_vec());
        }
        Ok(Self {
            host: HeaderValue::from_str(&settings.authority)?,
            authority: settings.authority.parse()?,
            scheme: Scheme::HTTPS,
            server_name: ServerName::try_from(settings.host.clone())?,
            tls: Arc::new(tls),
            roots,
            tunnel: Tunnel::of(&settings),
            own,
            settings,
        })
    }
}

fn trusted_roots(settings: &config::Upstream) -> anyhow::Result<(RootCertStore, String)> {
    let mut store = RootCertStore::empty();
    // Loaded once: a confined process cannot read them again.
    static SYSTEM: OnceLock<Vec<CertificateDer<'static>>> = OnceLock::new();
    let system = SYSTEM.get_or_init(|| rustls_native_certs::load_native_certs().certs);
    let trusted = system.iter().filter(|_| settings.system_roots);
    let (added, _) = store.add_parsable_certificates(trusted.cloned());
    let mut said = format!("{added} from the system");
    if added == 0 && settings.system_roots {
        store.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
        said = format!("{} built in, because the system has none", store.len());
    }
    for certificate in &settings.extra_roots {
        store.add(certificate.clone())?;
    }
    if !settings.extra_roots.is_empty() {
        said.push_str(&format!(", {} from ca_file", settings.extra_roots.len()));
    }
    Ok((store, said))
}

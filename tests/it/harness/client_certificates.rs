//! Authorities that issue certificates to clients, and TLS clients that present them.

use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::string::Ia5String;
use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned, SupportedProtocolVersion};

use super::over::server_name;

/// An authority.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// The certificates between its root and itself.
    chain: Vec<CertificateDer<'static>>,
    /// The certificate of its root.
    pub pem: String,
}

/// A certificate to issue.
pub struct Wanted<'a> {
    pub uris: &'a [&'a str],
    pub names: &'a [&'a str],
    pub purpose: ExtendedKeyUsagePurpose,
    pub from: SystemTime,
    pub until: SystemTime,
}

/// A certificate with its key.
#[derive(Clone)]
pub struct Issued {
    chain: Vec<CertificateDer<'static>>,
    key: Arc<Vec<u8>>,
}

const HOUR: Duration = Duration::from_secs(3600);

impl Default for Wanted<'_> {
    fn default() -> Self {
        let now = SystemTime::now();
        let purpose = ExtendedKeyUsagePurpose::ClientAuth;
        Self { uris: &[], names: &[], purpose, from: now - HOUR, until: now + HOUR }
    }
}

fn params(name: &str, is_ca: bool) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    if is_ca {
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    }
    params
}

impl Authority {
    /// Creates a root with this name.
    pub fn new(name: &str) -> Self {
        let (key, params) = (KeyPair::generate().unwrap(), params(name, true));
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), chain: Vec::new(), pem }
    }

    /// Creates an authority that this one has certified.
    pub fn intermediate(&self, name: &str) -> Self {
        let (key, params) = (KeyPair::generate().unwrap(), params(name, true));
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let chain = vec![certificate.der().clone()];
        Self { issuer: Issuer::new(params, key), chain, pem: self.pem.clone() }
    }

    /// Issues a certificate to `client`, by which its subject is called.
    pub fn issue(&self, client: &str, wanted: &Wanted<'_>) -> Issued {
        let (key, mut params) = (KeyPair::generate().unwrap(), params(client, false));
        let ia5 = |text: &&str| Ia5String::try_from(*text).unwrap();
        params.subject_alt_names = wanted.uris.iter().map(ia5).map(SanType::URI).collect();
        params.subject_alt_names.extend(wanted.names.iter().map(ia5).map(SanType::DnsName));
        params.extended_key_usages = vec![wanted.purpose.clone()];
        (params.not_before, params.not_after) = (wanted.from.into(), wanted.until.into());
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let chain = std::iter::once(certificate.der().clone()).chain(self.chain.iter().cloned()).collect();
        Issued { chain, key: Arc::new(key.serialize_der()) }
    }
}

/// The settings of a TLS client that trusts the authority in `folder` and presents a certificate, if it has one.
pub fn settings(
    folder: &Path,
    issued: Option<&Issued>,
    protocols: &[&str],
    versions: &[&'static SupportedProtocolVersion],
) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(folder.join("ca.pem")).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let settings = ClientConfig::builder_with_provider(provider).with_protocol_versions(versions).unwrap();
    let settings = settings.with_root_certificates(roots);
    let mut settings = match issued {
        None => settings.with_no_client_auth(),
        Some(issued) => {
            let key = PrivateKeyDer::try_from(issued.key.to_vec()).unwrap();
            settings.with_client_auth_cert(issued.chain.clone(), key).unwrap()
        }
    };
    settings.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
    Arc::new(settings)
}

/// A session with these settings.
pub fn session(
    settings: &Arc<ClientConfig>,
    name: &str,
    socket: TcpStream,
) -> StreamOwned<ClientConnection, TcpStream> {
    StreamOwned::new(ClientConnection::new(settings.clone(), server_name(name)).unwrap(), socket)
}

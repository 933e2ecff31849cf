//! Certificates of clients: the authorities that a listener trusts for them, and the check of each certificate.
//!
//! 1. A certificate is accepted if one of the authorities of `client_ca` issued it, directly or over the intermediate
//!    certificates that the client sends, for client authentication or without a purpose, and all of them are valid now.
//! 2. An accepted certificate holds for its connection until it expires. It is verified again when `client_ca` or
//!    `client_auth` has changed, and after [`AGAIN`], because an intermediate certificate can expire earlier.
//! 3. A resumed session is checked like an open connection: its certificate is verified again at the first request.
//! 4. With `client_auth: required`, a connection without a certificate is not accepted.
//! 5. The names of an accepted certificate are the DNS names and the SPIFFE ID among its alternative names. A certificate with several
//!    URIs has no SPIFFE ID (X.509-SVID, section 2). Wildcards and the common name are no names.

use std::cell::RefCell;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore, SignatureScheme};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;

use super::leaf::time_of;
use crate::policy::caller::SubjectName;

/// The time after which an accepted certificate is verified again (rule 2).
pub const AGAIN: Duration = Duration::from_secs(60);

/// The keys `client_ca` and `client_auth` of a listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientAuth {
    /// The file with the authorities.
    pub file: PathBuf,
    /// The content of the file.
    pub authorities: Vec<CertificateDer<'static>>,
    /// Whether a connection without a certificate is refused.
    pub is_required: bool,
}

/// The reason why the certificate of a client is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ClientCertificateFault {
    /// The client has sent no certificate.
    Missing,
    /// Its validity has ended.
    Expired,
    /// Its validity has not begun.
    NotYetValid,
    /// No trusted authority issued it.
    UnknownAuthority,
    /// It was not issued for client authentication.
    Purpose,
    /// Another reason, for example a wrong signature.
    Invalid,
}

impl ClientCertificateFault {
    /// All reasons.
    pub const ALL: [Self; 6] =
        [Self::Missing, Self::Expired, Self::NotYetValid, Self::UnknownAuthority, Self::Purpose, Self::Invalid];

    /// Returns the label value.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Expired => "expired",
            Self::NotYetValid => "not_yet_valid",
            Self::UnknownAuthority => "unknown_authority",
            Self::Purpose => "purpose",
            Self::Invalid => "invalid",
        }
    }

    /// Returns the reason of a failed handshake, if it is the client's certificate.
    #[must_use]
    pub fn of(error: &Error) -> Option<Self> {
        if *error == Error::NoCertificatesPresented {
            return Some(Self::Missing);
        }
        let Error::InvalidCertificate(error) = error else { return None };
        Some(if matches!(error, CertificateError::Expired | CertificateError::ExpiredContext { .. }) {
            Self::Expired
        } else if matches!(error, CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. }) {
            Self::NotYetValid
        } else if matches!(error, CertificateError::UnknownIssuer | CertificateError::BadSignature) {
            // The signature is that of another authority with the same name.
            Self::UnknownAuthority
        } else if matches!(error, CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. }) {
            Self::Purpose
        } else {
            Self::Invalid
        })
    }

    /// Returns the remedy, for the log.
    #[must_use]
    pub const fn remedy(self) -> &'static str {
        match self {
            Self::Missing => {
                "configure the client with a certificate and its key, or set client_auth: optional for the listener"
            }
            Self::Expired => {
                "issue another certificate for the client; if it is renewed already, restart the client, and compare the clocks"
            }
            Self::NotYetValid => "compare the clocks of the client's authority and of this machine",
            Self::UnknownAuthority => {
                "add the authority that issued the certificate to the file client_ca of the listener, or have the client send the intermediate certificates too"
            }
            Self::Purpose => "issue the certificate for client authentication (extended key usage clientAuth)",
            Self::Invalid => {
                "issue another certificate for the client; this one is damaged or of a kind that TLS does not use"
            }
        }
    }
}

impl fmt::Display for ClientCertificateFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Missing => "the client sent no certificate",
            Self::Expired => "the client's certificate has expired",
            Self::NotYetValid => "the client's certificate is not valid yet",
            Self::UnknownAuthority => "no authority in client_ca issued the client's certificate",
            Self::Purpose => "the client's certificate is not for client authentication",
            Self::Invalid => "the client's certificate is invalid",
        })
    }
}

/// The authorities of a listener, ready for handshakes.
#[derive(Clone)]
pub struct ClientTrust {
    /// The configuration.
    pub auth: ClientAuth,
    verifier: Arc<dyn ClientCertVerifier>,
}

impl fmt::Debug for ClientTrust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientTrust").field("auth", &self.auth).finish_non_exhaustive()
    }
}

impl ClientTrust {
    /// Prepares the authorities.
    ///
    /// # Errors
    /// A certificate is no authority that TLS can use; the message names its position in the file.
    pub fn new(auth: &ClientAuth) -> Result<Self, String> {
        let mut roots = RootCertStore::empty();
        for (position, authority) in auth.authorities.iter().enumerate() {
            let named = |error| format!("certificate {} of the file cannot be used: {error}", position + 1);
            roots.add(authority.clone()).map_err(named)?;
        }
        let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::new(default_provider()));
        let builder = if auth.is_required { builder } else { builder.allow_unauthenticated() };
        let verifier = builder.build().map_err(|error| error.to_string())?;
        Ok(Self { auth: auth.clone(), verifier })
    }

    /// Returns a verifier for one handshake.
    pub(super) fn observed(&self) -> Arc<Observed> {
        Arc::new(Observed { verifier: self.verifier.clone(), refused: Mutex::default() })
    }

    /// Checks the certificate of an open connection, if it has one (rules 2 to 4).
    ///
    /// # Errors
    /// The certificate is not accepted any more.
    pub fn check(
        self: &Arc<Self>,
        certificate: Option<&ClientCertificate>,
        now: SystemTime,
    ) -> Result<(), ClientCertificateFault> {
        let Some(certificate) = certificate else {
            return if self.auth.is_required { Err(ClientCertificateFault::Missing) } else { Ok(()) };
        };
        if now > certificate.not_after {
            return Err(ClientCertificateFault::Expired);
        }
        if certificate.is_verified_by(self) {
            return Ok(());
        }
        self.verify(&certificate.chain, now)?;
        certificate.verified_by(self);
        Ok(())
    }

    fn verify(&self, chain: &[CertificateDer<'_>], now: SystemTime) -> Result<(), ClientCertificateFault> {
        let (first, others) = chain.split_first().ok_or(ClientCertificateFault::Missing)?;
        let now = now.duration_since(SystemTime::UNIX_EPOCH).map_err(|_| ClientCertificateFault::NotYetValid)?;
        let verified = self.verifier.verify_client_cert(first, others, UnixTime::since_unix_epoch(now));
        verified
            .map(drop)
            .map_err(|error| ClientCertificateFault::of(&error).unwrap_or(ClientCertificateFault::Invalid))
    }
}

/// The certificate of a client, and the state of its verification.
#[derive(Debug)]
pub struct ClientCertificate {
    chain: Box<[CertificateDer<'static>]>,
    /// The end of its validity.
    pub not_after: SystemTime,
    /// The names of its subject that callers can be known by (rule 5).
    pub names: Arc<[SubjectName]>,
    /// The authorities that verified it last, and when.
    verified: RefCell<Option<(Arc<ClientTrust>, Instant)>>,
}

impl ClientCertificate {
    /// Reads the certificate of a completed handshake, in which `verified_by` accepted it; `None` for a resumed session,
    /// in which nothing was verified (rule 3).
    ///
    /// # Errors
    /// [`ClientCertificateFault::Invalid`].
    pub fn new(
        chain: &[CertificateDer<'static>],
        verified_by: Option<Arc<ClientTrust>>,
    ) -> Result<Self, ClientCertificateFault> {
        let read = chain.first().and_then(|first| x509_parser::parse_x509_certificate(first).ok());
        let (_, first) = read.ok_or(ClientCertificateFault::Invalid)?;
        let not_after = time_of(first.validity().not_after.timestamp());
        let verified = RefCell::new(verified_by.map(|by| (by, Instant::now())));
        Ok(Self { chain: chain.into(), not_after, names: names(&first), verified })
    }

    fn is_verified_by(&self, trust: &Arc<ClientTrust>) -> bool {
        let is_new = |at: &Instant| at.elapsed() < AGAIN;
        self.verified.borrow().as_ref().is_some_and(|(by, at)| Arc::ptr_eq(by, trust) && is_new(at))
    }

    fn verified_by(&self, trust: &Arc<ClientTrust>) {
        self.verified.replace(Some((trust.clone(), Instant::now())));
    }
}

/// Returns the names of a certificate (rule 5).
fn names(certificate: &X509Certificate<'_>) -> Arc<[SubjectName]> {
    let extension = certificate.subject_alternative_name().ok().flatten();
    let all = extension.map_or(&[][..], |extension| extension.value.general_names.as_slice());
    let uris: Vec<_> =
        all.iter().filter_map(|name| if let GeneralName::URI(uri) = name { Some(*uri) } else { None }).collect();
    let id = if let [id] = uris[..] { SubjectName::uri(id) } else { None };
    let host =
        |name: &GeneralName<'_>| if let GeneralName::DNSName(host) = name { SubjectName::dns(host) } else { None };
    id.into_iter().chain(all.iter().filter_map(host)).collect()
}

/// The subject and the issuer of a refused certificate, for the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusedCertificate {
    /// The subject.
    pub subject: String,
    /// The issuer.
    pub issuer: String,
}

/// The maximum number of characters of a name in the log.
const SHOWN: usize = 200;

impl RefusedCertificate {
    fn of(certificate: &CertificateDer<'_>) -> Option<Self> {
        let (_, read) = x509_parser::parse_x509_certificate(certificate).ok()?;
        let shown = |name: &x509_parser::x509::X509Name<'_>| {
            name.to_string().chars().flat_map(char::escape_debug).take(SHOWN).collect::<String>()
        };
        Some(Self { subject: shown(read.subject()), issuer: shown(read.issuer()) })
    }
}

/// The verifier of one handshake, which remembers the certificate that it refused.
#[derive(Debug)]
pub struct Observed {
    verifier: Arc<dyn ClientCertVerifier>,
    refused: Mutex<Option<RefusedCertificate>>,
}

impl Observed {
    /// Returns the refused certificate.
    #[must_use]
    pub fn refused(&self) -> Option<RefusedCertificate> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl ClientCertVerifier for Observed {
    fn offer_client_auth(&self) -> bool {
        self.verifier.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.verifier.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.verifier.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.verifier.verify_client_cert(end_entity, intermediates, now).inspect_err(|_| {
            *self.refused.lock().unwrap_or_else(PoisonError::into_inner) = RefusedCertificate::of(end_entity);
        })
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

    use super::*;

    /// An authority, and the certificate of a client that it issued.
    fn issued(name: &str, is_required: bool) -> (Arc<ClientTrust>, CertificateDer<'static>) {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let authorities = vec![params.self_signed(&key).unwrap().der().clone()];
        let issuer = Issuer::new(params, key);
        let own = KeyPair::generate().unwrap();
        let client = CertificateParams::default().signed_by(&own, &issuer).unwrap().der().clone();
        let trust = ClientTrust::new(&ClientAuth { file: "c".into(), authorities, is_required }).unwrap();
        (Arc::new(trust), client)
    }

    #[test]
    fn rules_2_and_3_a_certificate_is_verified_again_by_other_authorities_and_in_a_resumed_session() {
        let ((trust, client), (other, _)) = (issued("one", true), issued("other", true));
        let now = SystemTime::now();
        for verified_by in [Some(other.clone()), None] {
            let certificate = ClientCertificate::new(std::slice::from_ref(&client), verified_by).unwrap();
            assert_eq!(trust.check(Some(&certificate), now), Ok(()));
            assert!(certificate.is_verified_by(&trust));
            assert_eq!(other.check(Some(&certificate), now), Err(ClientCertificateFault::UnknownAuthority));
            assert_eq!(trust.check(Some(&certificate), now), Ok(()));
            let end = certificate.not_after;
            assert_eq!(trust.check(Some(&certificate), end), Ok(()));
            assert_eq!(
                trust.check(Some(&certificate), end + Duration::from_secs(1)),
                Err(ClientCertificateFault::Expired)
            );
        }
        let resumed = ClientCertificate::new(&[client], None).unwrap();
        assert_eq!(other.check(Some(&resumed), now), Err(ClientCertificateFault::UnknownAuthority));
        assert_eq!(trust.check(Some(&resumed), SystemTime::UNIX_EPOCH), Err(ClientCertificateFault::NotYetValid));
    }

    #[test]
    fn rule_4_a_connection_may_have_no_certificate_where_none_is_required() {
        let now = SystemTime::now();
        assert_eq!(issued("one", false).0.check(None, now), Ok(()));
        assert_eq!(issued("one", true).0.check(None, now), Err(ClientCertificateFault::Missing));
        assert!(matches!(ClientCertificate::new(&[], None), Err(ClientCertificateFault::Invalid)));
    }

    #[test]
    fn rule_5_names_are_host_names_and_one_spiffe_id() {
        let named = |uris: &[&str], hosts: &[&str]| {
            let ia5 = |text: &&str| rcgen::string::Ia5String::try_from(*text).unwrap();
            let mut params = CertificateParams::default();
            params.distinguished_name.push(DnType::CommonName, "common.example");
            params.subject_alt_names = uris.iter().map(ia5).map(rcgen::SanType::URI).collect();
            params.subject_alt_names.extend(hosts.iter().map(ia5).map(rcgen::SanType::DnsName));
            let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().clone();
            let names = ClientCertificate::new(&[certificate], None).unwrap().names;
            names.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(named(&["spiffe://a/b"], &["A.example", "b"]), ["spiffe://a/b", "dns:a.example", "dns:b"]);
        assert_eq!(named(&["spiffe://a/b", "https://a"], &["a"]), ["dns:a"]);
        assert!(named(&["https://a"], &["*.example", "spiffe://a/b"]).is_empty() && named(&[], &[]).is_empty());
    }

    #[test]
    fn names_in_the_log_are_short_and_printable() {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, format!("a\n{}", "b".repeat(1000)));
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        let shown = RefusedCertificate::of(certificate.der()).unwrap();
        assert!(shown.subject.contains("a\\nb") && shown.subject.chars().count() == SHOWN, "{shown:?}");
        assert_eq!(RefusedCertificate::of(&CertificateDer::from(vec![1])), None);
    }
}

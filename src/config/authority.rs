//! A private certificate authority, and the certificates that it issues.
//!
//! 1. Its certificate is limited to servers, to one level (it signs no other authority) and to its names
//!    ([`super::constraints`]). Whoever steals its key can pose as Metrica to those that trust it, and as nobody else.
//! 2. A certificate that it issues has all names that its constraints permit, so the names are given once, at its creation.
//! 3. Keys are ECDSA on P-256. Certificates begin an hour early, because clocks differ.
//! 4. A renewed certificate can keep its key: then one file is replaced, and certificate and key always fit.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SanType, SerialNumber,
};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use strict_http::host::METRICA;
use x509_parser::prelude::X509Certificate;
use zeroize::Zeroizing;

use super::constraints::{NAME_CONSTRAINTS, encoded, permitted};

/// The lifetime of the authority, and that of a certificate in days.
const AUTHORITY_DAYS: u32 = 3650;
/// The default lifetime of a certificate in days.
pub const LEAF_DAYS: u32 = 90;

/// The remaining time of a certificate at which it is renewed.
pub const RENEW_BEFORE: Duration = Duration::from_secs(30 * 24 * 60 * 60);

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const CLOCKS: Duration = Duration::from_secs(60 * 60);

/// An authority with its key.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    names: Vec<String>,
    addresses: Vec<IpAddr>,
    not_after: SystemTime,
}

/// A new key in PEM form.
pub struct NewKey(KeyPair);

/// The reason why an authority cannot issue certificates.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// The certificate or the key cannot be read.
    #[error("{0} is invalid: {1}")]
    Invalid(&'static str, String),
    /// The certificate is not one of an authority that `ca init` made.
    #[error("the certificate has no name constraints; create the authority with `metrika-gate ca init`")]
    Unconstrained,
    /// The key belongs to another certificate.
    #[error("the key of the authority does not fit its certificate")]
    Mismatch,
    /// The authority has expired.
    #[error("the authority has expired; create another one with `metrika-gate ca init`, and give it to the callers")]
    Expired,
    /// A certificate cannot be made.
    #[error("cannot make a certificate: {0}")]
    Failed(#[from] rcgen::Error),
}

impl NewKey {
    /// Generates a key.
    ///
    /// # Errors
    /// The system has no random numbers.
    pub fn generate() -> Result<Self, AuthorityError> {
        Ok(Self(KeyPair::generate()?))
    }

    /// Reads a key in PEM form.
    ///
    /// # Errors
    /// [`AuthorityError::Invalid`].
    pub fn read(pem: &str) -> Result<Self, AuthorityError> {
        KeyPair::from_pem(pem).map(Self).map_err(|error| AuthorityError::Invalid("the key", error.to_string()))
    }

    /// Returns the key in PEM form.
    #[must_use]
    pub fn pem(&self) -> Zeroizing<String> {
        Zeroizing::new(self.0.serialize_pem())
    }
}

impl Authority {
    /// Creates an authority for Metrica's names, `localhost`, `names` and `addresses`. Returns it with its certificate and
    /// its key in PEM form.
    ///
    /// # Errors
    /// [`AuthorityError::Failed`].
    pub fn create(
        names: &[String],
        addresses: &[IpAddr],
        now: SystemTime,
    ) -> Result<(Self, String, Zeroizing<String>), AuthorityError> {
        let known = METRICA.into_iter().chain(["localhost"]).map(str::to_owned);
        let mut all: Vec<String> = Vec::new();
        for name in known.chain(names.iter().map(|name| name.to_ascii_lowercase())) {
            if !all.contains(&name) {
                all.push(name);
            }
        }
        let key = NewKey::generate()?;
        let mut params = CertificateParams::default();
        params.distinguished_name = named(&format!("metrika-gate CA {}", hex(&random::<4>()?)));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let mut constraints = CustomExtension::from_oid_content(&NAME_CONSTRAINTS, encoded(&all, addresses));
        constraints.set_criticality(true);
        params.custom_extensions = vec![constraints];
        let not_after = set_validity(&mut params, now, DAY * AUTHORITY_DAYS)?;
        let pem = params.self_signed(&key.0)?.pem();
        let key_pem = key.pem();
        let issuer = Issuer::new(params, key.0);
        Ok((Self { issuer, names: all, addresses: addresses.to_vec(), not_after }, pem, key_pem))
    }

    /// The end of its validity.
    #[must_use]
    pub const fn not_after(&self) -> SystemTime {
        self.not_after
    }

    /// Reads an authority: its certificate and its key in PEM form.
    ///
    /// # Errors
    /// [`AuthorityError`].
    pub fn read(certificate: &[u8], key: &str, now: SystemTime) -> Result<Self, AuthorityError> {
        let invalid = |error: &dyn std::fmt::Display| {
            AuthorityError::Invalid("the certificate of the authority", error.to_string())
        };
        let der = CertificateDer::from_pem_slice(certificate).map_err(|error| invalid(&error))?;
        let (_, read) = x509_parser::parse_x509_certificate(&der).map_err(|error| invalid(&error))?;
        let constraints =
            read.name_constraints().map_err(|error| invalid(&error))?.ok_or(AuthorityError::Unconstrained)?;
        let (names, mut addresses) = permitted(constraints.value);
        addresses.retain(|address| !address.is_loopback());
        let key = NewKey::read(key)?;
        if !is_of(&read, &key.0) {
            return Err(AuthorityError::Mismatch);
        }
        let not_after =
            u64::try_from(read.validity().not_after.timestamp()).map_or(Duration::ZERO, Duration::from_secs);
        let not_after = SystemTime::UNIX_EPOCH.checked_add(not_after).ok_or(AuthorityError::Expired)?;
        if now > not_after {
            return Err(AuthorityError::Expired);
        }
        let issuer = Issuer::from_ca_cert_der(&der, key.0)?;
        Ok(Self { issuer, names, addresses, not_after })
    }

    /// Issues a certificate for `key`, valid for `days` (rule 2). Returns it in PEM form.
    ///
    /// # Errors
    /// [`AuthorityError::Failed`].
    pub fn issue(&self, key: &NewKey, days: u32, now: SystemTime) -> Result<String, AuthorityError> {
        let mut params = CertificateParams::new(self.names.clone())?;
        let loopback = [IpAddr::from(Ipv4Addr::LOCALHOST), IpAddr::from(Ipv6Addr::LOCALHOST)];
        params.subject_alt_names.extend(loopback.iter().chain(&self.addresses).copied().map(SanType::IpAddress));
        params.distinguished_name = named("metrika-gate");
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        let left = self.not_after.duration_since(now).map_err(|_| AuthorityError::Expired)?;
        set_validity(&mut params, now, left.min(DAY * days))?;
        Ok(params.signed_by(&key.0, &self.issuer)?.pem())
    }

    /// Returns the names that its certificates have.
    #[must_use]
    pub fn names(&self) -> &[String] {
        &self.names
    }
}

/// Whether the public key of a certificate is that of `key`.
fn is_of(certificate: &X509Certificate<'_>, key: &KeyPair) -> bool {
    certificate.public_key().subject_public_key.data.as_ref() == key.public_key_raw()
}

fn named(common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    name
}

/// Sets the validity (rule 3), and a serial number of its own: a renewed certificate keeps its key, and clients refuse a
/// serial number that they have seen with another certificate. Returns the end of the validity.
fn set_validity(
    params: &mut CertificateParams,
    now: SystemTime,
    lifetime: Duration,
) -> Result<SystemTime, AuthorityError> {
    let end = now + lifetime;
    params.not_before = (now - CLOCKS).into();
    params.not_after = end.into();
    let mut serial = random::<16>()?;
    // Positive, and of full length (RFC 5280, section 4.1.2.2).
    if let Some(first) = serial.first_mut() {
        *first = *first & 0x7f | 0x40;
    }
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    Ok(end)
}

fn random<const N: usize>() -> Result<[u8; N], AuthorityError> {
    let mut bytes = [0; N];
    default_provider().secure_random.fill(&mut bytes).map_err(|_| rcgen::Error::RingUnspecified)?;
    Ok(bytes)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use rustls::RootCertStore;
    use rustls::client::WebPkiServerVerifier;
    use rustls::client::danger::ServerCertVerifier;
    use rustls::pki_types::{ServerName, UnixTime};

    use super::*;
    use crate::config::certificates::Leaf;

    fn verifies(authority: &str, leaf: &str, name: &str) -> Result<(), String> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(authority.as_bytes()).unwrap()).unwrap();
        let provider = std::sync::Arc::new(default_provider());
        let verifier = WebPkiServerVerifier::builder_with_provider(roots.into(), provider).build().unwrap();
        let leaf = CertificateDer::from_pem_slice(leaf.as_bytes()).unwrap();
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let verified = verifier.verify_server_cert(&leaf, &[], &name, &[], UnixTime::now());
        verified.map(drop).map_err(|error| error.to_string())
    }

    fn made() -> (Authority, String, Zeroizing<String>) {
        Authority::create(&["Gate.Example".to_owned()], &["10.1.2.3".parse().unwrap()], SystemTime::now()).unwrap()
    }

    #[test]
    fn rule_2_a_certificate_has_all_names_of_its_authority() {
        let (authority, pem, key) = made();
        let read = Authority::read(pem.as_bytes(), &key, SystemTime::now()).unwrap();
        assert_eq!(read.names(), authority.names());
        for authority in [authority, read] {
            let leaf = authority.issue(&NewKey::generate().unwrap(), LEAF_DAYS, SystemTime::now()).unwrap();
            for name in METRICA.into_iter().chain(["localhost", "gate.example", "127.0.0.1", "::1", "10.1.2.3"]) {
                assert_eq!(verifies(&pem, &leaf, name), Ok(()), "{name}");
            }
            assert!(verifies(&pem, &leaf, "yandex.net").is_err());
        }
    }

    #[test]
    fn rule_1_a_stolen_key_serves_for_no_other_name() {
        let (authority, pem, _) = made();
        for (name, address) in [("yandex.ru", None), ("gate.example.org", None), ("localhost", Some("10.1.2.4"))] {
            let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
            params.subject_alt_names.extend(address.map(|address| SanType::IpAddress(address.parse().unwrap())));
            let key = KeyPair::generate().unwrap();
            let leaf = params.signed_by(&key, &authority.issuer).unwrap().pem();
            let said = verifies(&pem, &leaf, name).unwrap_err();
            assert!(said.contains("NameConstraintViolation") || said.contains("name constraint"), "{name}: {said}");
        }
        let der = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
        let (_, read) = x509_parser::parse_x509_certificate(&der).unwrap();
        assert_eq!(read.basic_constraints().unwrap().unwrap().value.path_len_constraint, Some(0));
        let usage = read.extended_key_usage().unwrap().unwrap().value;
        assert!(
            usage.server_auth && !usage.client_auth && !usage.email_protection && !usage.any && !usage.code_signing
        );
        assert!(read.name_constraints().unwrap().unwrap().critical);
    }

    #[test]
    fn rule_4_a_renewed_certificate_keeps_its_key_and_has_another_serial_number() {
        let (authority, ..) = made();
        let key = NewKey::generate().unwrap();
        let serial = |days| {
            let pem = authority.issue(&key, days, SystemTime::now()).unwrap();
            assert!(Leaf::read(pem.as_bytes(), key.pem().as_bytes()).is_ok());
            let der = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
            x509_parser::parse_x509_certificate(&der).unwrap().1.raw_serial_as_string()
        };
        assert_ne!(serial(1), serial(1));
    }

    #[test]
    fn rule_3_a_certificate_does_not_outlive_its_authority() {
        let start = SystemTime::now();
        let (authority, pem, key) = Authority::create(&[], &[], start).unwrap();
        let near_end = start + DAY * (AUTHORITY_DAYS - 1);
        let leaf_key = NewKey::generate().unwrap();
        let leaf = authority.issue(&leaf_key, LEAF_DAYS, near_end).unwrap();
        let leaf = Leaf::read(leaf.as_bytes(), leaf_key.pem().as_bytes()).unwrap();
        assert!(leaf.not_after <= start + DAY * AUTHORITY_DAYS && leaf.not_before < near_end);
        let ended = start + DAY * (AUTHORITY_DAYS + 1);
        assert!(matches!(authority.issue(&leaf_key, 1, ended), Err(AuthorityError::Expired)));
        assert!(matches!(Authority::read(pem.as_bytes(), &key, ended), Err(AuthorityError::Expired)));
    }

    #[test]
    fn another_key_or_certificate_is_refused() {
        let (_, pem, key) = made();
        let (_, other, _) = made();
        let now = SystemTime::now();
        assert!(matches!(Authority::read(other.as_bytes(), &key, now), Err(AuthorityError::Mismatch)));
        assert!(matches!(Authority::read(b"", &key, now), Err(AuthorityError::Invalid(..))));
        assert!(matches!(Authority::read(pem.as_bytes(), "", now), Err(AuthorityError::Invalid(..))));
        let plain = rcgen::generate_simple_self_signed(vec!["a".to_owned()]).unwrap();
        let (plain, key) = (plain.cert.pem(), plain.signing_key.serialize_pem());
        assert!(matches!(Authority::read(plain.as_bytes(), &key, now), Err(AuthorityError::Unconstrained)));
    }
}

//! The certificate of a listener, with its key.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use super::authority::RENEW_BEFORE;

/// A certificate that can be served: its chain, its key and its validity.
#[derive(Clone)]
pub struct Leaf {
    key: Arc<CertifiedKey>,
    /// The beginning of its validity.
    pub not_before: SystemTime,
    /// The end of its validity.
    pub not_after: SystemTime,
    /// Whether the certificate lies beside its place, because its replacement was interrupted.
    pub is_staged: bool,
}

/// The reason why a certificate cannot be served.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LeafError {
    /// The certificate file holds no certificates.
    #[error("a file with certificates in PEM form, that of the listener first")]
    NoCertificate,
    /// The key file holds no key.
    #[error("a file with an unencrypted private key in PEM form")]
    NoKey,
    /// The first certificate cannot be read.
    #[error("the first certificate in the file is not valid X.509")]
    Unreadable,
    /// The key belongs to another certificate.
    #[error(
        "the key does not fit the certificate; replace both files together (`metrika-gate ca issue` for those of an authority)"
    )]
    Mismatch,
    /// TLS does not support the key.
    #[error(
        "the key is of a kind that TLS does not use ({0}); use ECDSA (P-256 or P-384), Ed25519 or RSA of 2048 bits or more"
    )]
    Unsupported(String),
}

/// The reason why clients do not accept a certificate now. It is served if there is no valid one: without it, nobody could
/// connect, and other changes of the configuration would wait for it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Untimely {
    /// The validity has not begun.
    #[error(
        "the certificate is not valid before {0}; check the clock of this machine, or issue another one with `metrika-gate ca issue`"
    )]
    TooEarly(String),
    /// The validity has ended.
    #[error("the certificate expired at {0}; replace it, or issue another one with `metrika-gate ca issue`")]
    Expired(String),
}

impl Leaf {
    /// Reads a certificate chain and its key, both in PEM form.
    ///
    /// # Errors
    /// [`LeafError`], except for the validity, which [`Self::check_time`] checks.
    pub fn read(chain: &[u8], key: &[u8]) -> Result<Self, LeafError> {
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(chain).collect();
        let chain = chain.map_err(|_| LeafError::NoCertificate)?;
        let first = chain.first().ok_or(LeafError::NoCertificate)?;
        let (_, read) = x509_parser::parse_x509_certificate(first).map_err(|_| LeafError::Unreadable)?;
        let time = |time: x509_parser::time::ASN1Time| time_of(time.timestamp());
        let (not_before, not_after) = (time(read.validity().not_before), time(read.validity().not_after));
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| LeafError::NoKey)?;
        let key = CertifiedKey::from_der(chain.clone(), key, &default_provider()).map_err(|error| {
            if matches!(error, rustls::Error::InconsistentKeys(_)) {
                LeafError::Mismatch
            } else {
                LeafError::Unsupported(error.to_string())
            }
        })?;
        Ok(Self { key: Arc::new(key), not_before, not_after, is_staged: false })
    }

    /// Marks a certificate that was read beside its place.
    #[must_use]
    pub fn staged(self) -> Self {
        Self { is_staged: true, ..self }
    }

    /// Checks that the certificate is valid at `now`.
    ///
    /// # Errors
    /// [`Untimely`].
    pub fn check_time(&self, now: SystemTime) -> Result<(), Untimely> {
        let shown = |time| humantime::format_rfc3339_seconds(time).to_string();
        if now < self.not_before {
            Err(Untimely::TooEarly(shown(self.not_before)))
        } else if now > self.not_after {
            Err(Untimely::Expired(shown(self.not_after)))
        } else {
            Ok(())
        }
    }

    /// Returns why the certificate has to be renewed at `now`, if it has to.
    #[must_use]
    pub fn due(&self, now: SystemTime) -> Option<String> {
        if self.is_staged {
            return Some("the replacement of the certificate was interrupted".to_owned());
        }
        let is_soon = self.not_after.duration_since(now).is_ok_and(|left| left < RENEW_BEFORE);
        let untimely = self.check_time(now).err().map(|untimely| untimely.to_string());
        untimely.or_else(|| is_soon.then(|| "it expires soon".to_owned()))
    }

    /// Returns the chain and the key.
    #[must_use]
    pub const fn certified(&self) -> &Arc<CertifiedKey> {
        &self.key
    }
}

/// Returns the first end of validity among `certificates`; those that cannot be read do not count.
#[must_use]
pub fn first_end(certificates: &[CertificateDer<'_>]) -> Option<SystemTime> {
    let end = |certificate: &CertificateDer<'_>| {
        let (_, read) = x509_parser::parse_x509_certificate(certificate).ok()?;
        Some(time_of(read.validity().not_after.timestamp()))
    };
    certificates.iter().filter_map(end).min()
}

/// Returns a time in seconds since 1970; times before that are outside of every validity.
pub(super) fn time_of(seconds: i64) -> SystemTime {
    let since = u64::try_from(seconds).map_or(Duration::ZERO, Duration::from_secs);
    SystemTime::UNIX_EPOCH.checked_add(since).unwrap_or(SystemTime::UNIX_EPOCH)
}

/// A certificate contains its public key, so the private key adds nothing to the comparison.
impl PartialEq for Leaf {
    fn eq(&self, other: &Self) -> bool {
        self.key.cert == other.key.cert && self.is_staged == other.is_staged
    }
}

impl Eq for Leaf {}

impl fmt::Debug for Leaf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Leaf").field("not_after", &self.not_after).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (String, String) {
        let made = rcgen::generate_simple_self_signed(vec!["a".to_owned()]).unwrap();
        (made.cert.pem(), made.signing_key.serialize_pem())
    }

    #[test]
    fn rule_1_a_leaf_is_a_chain_with_the_key_that_fits() {
        let ((one, key), (other, foreign)) = (pair(), pair());
        let read = |chain: &str, key: &str| Leaf::read(chain.as_bytes(), key.as_bytes());
        assert_eq!(read(&one, &key).unwrap(), read(&one, &key).unwrap());
        assert_ne!(read(&one, &key).unwrap(), read(&other, &foreign).unwrap());
        assert!(read(&format!("{one}{other}"), &key).is_ok(), "a chain");
        assert_eq!(read(&format!("{other}{one}"), &key).unwrap_err(), LeafError::Mismatch);
        assert_eq!(read(&one, &foreign).unwrap_err(), LeafError::Mismatch);
        assert_eq!(read("", &key).unwrap_err(), LeafError::NoCertificate);
        assert_eq!(read(&key, &key).unwrap_err(), LeafError::NoCertificate);
        assert_eq!(read(&one, &one).unwrap_err(), LeafError::NoKey);
        let empty = "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n";
        assert_eq!(read(empty, &key).unwrap_err(), LeafError::Unreadable);
        assert!(!format!("{:?}", read(&one, &key).unwrap()).contains("key"), "no key is shown");
    }

    #[test]
    fn a_leaf_is_valid_from_its_first_to_its_last_second() {
        let (chain, key) = pair();
        let leaf = Leaf::read(chain.as_bytes(), key.as_bytes()).unwrap();
        let second = Duration::from_secs(1);
        assert_eq!(leaf.check_time(leaf.not_before), Ok(()));
        assert_eq!(leaf.check_time(leaf.not_after), Ok(()));
        assert!(matches!(leaf.check_time(leaf.not_before - second), Err(Untimely::TooEarly(_))));
        assert!(matches!(leaf.check_time(leaf.not_after + second), Err(Untimely::Expired(_))));
        assert_eq!(time_of(-1), SystemTime::UNIX_EPOCH);
    }
}

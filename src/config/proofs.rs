//! The values of the conditions on proofs: `key_sha256`, `san` and `service_account`.

use crate::policy::caller::{KeyHash, ServiceAccount, SubjectName};
use crate::policy::key::PREFIX;

/// Reads the hash of a key.
pub fn key_hash(text: &str) -> Result<KeyHash, String> {
    KeyHash::parse(text).ok_or_else(|| {
        let mistaken = if text.contains(PREFIX) { "; this looks like a key itself" } else { "" };
        format!("the SHA-256 of a key, 64 lower-case hexadecimal digits{mistaken}")
    })
}

/// Reads a name of a certificate.
pub fn subject_name(text: &str) -> Result<SubjectName, String> {
    SubjectName::parse(text).ok_or_else(|| {
        "a name of a certificate, as in spiffe://example.org/etl or dns:etl.example.org; wildcards are not supported"
            .to_owned()
    })
}

/// Reads a service account.
pub fn service_account(text: &str) -> Result<ServiceAccount, String> {
    ServiceAccount::parse(text).ok_or_else(|| "a service account, as in metrika/etl (namespace/name)".to_owned())
}

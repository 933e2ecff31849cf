//! The values of the conditions on proofs: `key_sha256`, `san` and `service_account`.

use super::policy::KnownNames;
use super::process::ReadListener;
use super::reader::{At, Findings};
use crate::policy::caller::{ConditionKind, Conditions, KeyHash, ServiceAccount, SubjectName};
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

/// Checks that requests can prove what the conditions ask for.
pub fn check_proofs(at: &At<'_>, conditions: &Conditions, known: &KnownNames<'_>, findings: &mut Findings) {
    if conditions.state(ConditionKind::ServiceAccount) && !known.has_service_accounts {
        at.wrong(
            findings,
            "never matches: service_account needs 'service_accounts', which defines how tokens are verified; add it",
        );
    }
    let stated = conditions.listener();
    let mut possible = known.listeners.iter().filter(|read| stated.is_none_or(|stated| stated == read.listener.name));
    // An invalid listener has a mistake of its own, which has to be fixed first.
    let all_are_valid = known.listeners.len() == known.listener_names.len();
    let asks = |read: &ReadListener| read.listener.tls.as_ref().is_some_and(|tls| tls.clients.is_some());
    if conditions.state(ConditionKind::San) && all_are_valid && !possible.any(asks) {
        let which = stated.map_or_else(|| "no listener has".to_owned(), |name| format!("listener '{name}' lacks"));
        at.wrong(
            findings,
            format!("never matches: san needs a client certificate, and {which} tls.client_ca; name the authorities of clients there"),
        );
    }
}

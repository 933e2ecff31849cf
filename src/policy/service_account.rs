//! Service accounts: verifies the token by which a pod proves its Kubernetes service account.
//!
//! 1. A token is a signed JWT in compact form (RFC 7515, RFC 7519) of at most [`LONGEST`] bytes.
//! 2. The configuration fixes the algorithms; none of them is symmetric, and a token cannot choose another one. Its `kid` names
//!    the key, which must be of that algorithm's kind.
//! 3. No claim is read before the signature is verified.
//! 4. `iss`, `aud`, `exp` and `sub` are required. `exp` and `nbf` are compared with a tolerance of [`LEEWAY`].
//! 5. The subject is `system:serviceaccount:namespace:name`. If the token has the claim `kubernetes.io`, it names the same
//!    account.
//! 6. A verified token holds until it expires, and while its key is in the set.

use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::Validation;
use jsonwebtoken::errors::ErrorKind;
use serde::Deserialize;

pub use super::key_set::{Algorithm, KeySet, KeySetError};
use super::key_set::{Key, KeyIdentity};
use super::proof::ServiceAccount;

/// The maximum length of a token in bytes. Kubernetes issues tokens of about 1 KiB.
pub const LONGEST: usize = 16 * 1024;

/// The tolerance for the clocks of the issuer and of this machine.
pub const LEEWAY: Duration = Duration::from_secs(60);

/// The requirements for tokens, from the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenRules {
    /// The required `iss`.
    pub issuer: Box<str>,
    /// The value that `aud` must contain.
    pub audience: Box<str>,
    /// The accepted algorithms.
    pub algorithms: Box<[Algorithm]>,
}

/// The reason why a token is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
pub enum TokenFault {
    /// It is no JWT, or one that no verifier may accept.
    #[error("the service account token is no JWT in compact form")]
    Malformed,
    /// The request has several.
    #[error("the request has several service account tokens")]
    Several,
    /// Its algorithm is not configured.
    #[error("the algorithm of the service account token is not among service_accounts.algorithms")]
    Algorithm,
    /// Its key is not in the key set.
    #[error("the key (kid) of the service account token is not in the key set")]
    UnknownKey,
    /// Its signature is wrong.
    #[error("the signature of the service account token is wrong")]
    Signature,
    /// Another issuer.
    #[error("the issuer (iss) of the service account token is not service_accounts.issuer")]
    Issuer,
    /// Another audience.
    #[error("the audience (aud) of the service account token does not contain service_accounts.audience")]
    Audience,
    /// It has expired.
    #[error("the service account token has expired")]
    Expired,
    /// It is not valid yet.
    #[error("the service account token is not valid yet; compare the clocks")]
    NotYetValid,
    /// It names no service account.
    #[error("the subject (sub) of the service account token is no service account")]
    Subject,
}

impl TokenFault {
    /// All reasons.
    pub const ALL: [Self; 10] = [
        Self::Malformed,
        Self::Several,
        Self::Algorithm,
        Self::UnknownKey,
        Self::Signature,
        Self::Issuer,
        Self::Audience,
        Self::Expired,
        Self::NotYetValid,
        Self::Subject,
    ];

    /// Returns the label value.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Several => "several",
            Self::Algorithm => "algorithm",
            Self::UnknownKey => "unknown_key",
            Self::Signature => "signature",
            Self::Issuer => "issuer",
            Self::Audience => "audience",
            Self::Expired => "expired",
            Self::NotYetValid => "not_yet_valid",
            Self::Subject => "subject",
        }
    }
}

/// A service account whose token was verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedAccount {
    /// The account.
    pub account: ServiceAccount,
    /// `exp`, in seconds since 1970.
    expires: u64,
    key: KeyIdentity,
}

/// The fields of a header that a verifier reads (RFC 7515, section 4).
#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    crit: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct Claims {
    iss: Option<String>,
    aud: Option<Audience>,
    exp: Option<f64>,
    nbf: Option<f64>,
    sub: Option<String>,
    #[serde(rename = "kubernetes.io")]
    kubernetes: Option<KubernetesClaim>,
}

/// One value or several (RFC 7519, section 4.1.3).
#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Several(Vec<String>),
}

/// The claim `kubernetes.io`.
#[derive(Deserialize)]
struct KubernetesClaim {
    namespace: Option<String>,
    serviceaccount: Option<KubernetesName>,
}

#[derive(Deserialize)]
struct KubernetesName {
    name: Option<String>,
}

/// Verifies tokens with the keys and requirements of now.
#[derive(Debug, PartialEq, Eq)]
pub struct TokenVerifier {
    /// The requirements.
    pub rules: TokenRules,
    /// The keys.
    pub keys: KeySet,
}

/// Whether `text` has the form of a JWT: three segments, the first of which begins a JSON object. No token of Metrica and no
/// key has it.
#[must_use]
pub fn has_jwt_form(text: &[u8]) -> bool {
    let Some((header, rest)) = split_at_dot(text) else { return false };
    let is_segment = |segment: &[u8]| segment.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(byte));
    let begins_object =
        header.get(..4).and_then(|four| URL_SAFE_NO_PAD.decode(four).ok()).is_some_and(|bytes| bytes.starts_with(b"{"));
    let two = split_at_dot(rest)
        .filter(|(claims, signature)| !claims.is_empty() && is_segment(claims) && is_segment(signature));
    begins_object && is_segment(header) && two.is_some()
}

fn split_at_dot(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = text.iter().position(|byte| *byte == b'.')?;
    Some((text.get(..at)?, text.get(at + 1..)?))
}

/// Returns whole seconds since 1970; a time before that is 0.
fn seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

impl TokenVerifier {
    /// Verifies a token.
    ///
    /// # Errors
    /// [`TokenFault`].
    pub fn verify(&self, token: &[u8], now: SystemTime) -> Result<VerifiedAccount, TokenFault> {
        // Rule 1.
        if token.len() > LONGEST || !has_jwt_form(token) {
            return Err(TokenFault::Malformed);
        }
        let header = split_at_dot(token).and_then(|(header, _)| URL_SAFE_NO_PAD.decode(header).ok());
        let header = header.and_then(|header| serde_json::from_slice::<Header>(&header).ok());
        let Header { alg, kid, crit } = header.ok_or(TokenFault::Malformed)?;
        // An extension that a verifier does not know makes a token invalid (RFC 7515, section 4.1.11).
        if crit.is_some() {
            return Err(TokenFault::Malformed);
        }
        // Rule 2.
        let algorithm =
            self.rules.algorithms.iter().find(|known| known.as_str() == alg).ok_or(TokenFault::Algorithm)?;
        let kid = kid.ok_or(TokenFault::UnknownKey)?;
        let key = self.keys.find(&kid, *algorithm).ok_or(TokenFault::UnknownKey)?;
        // Rule 3.
        let claims = verified_claims(token, key, *algorithm)?;
        let expires = self.check_claims(&claims, now)?;
        Ok(VerifiedAccount { account: account(&claims)?, expires, key: key.identity })
    }

    /// Checks the claims (rule 4). Returns `exp`.
    fn check_claims(&self, claims: &Claims, now: SystemTime) -> Result<u64, TokenFault> {
        if claims.iss.as_deref() != Some(&*self.rules.issuer) {
            return Err(TokenFault::Issuer);
        }
        let is_ours = |audience: &String| **audience == *self.rules.audience;
        let fits = match &claims.aud {
            None => false,
            Some(Audience::One(one)) => is_ours(one),
            Some(Audience::Several(several)) => several.iter().any(is_ours),
        };
        if !fits {
            return Err(TokenFault::Audience);
        }
        let expires = claims.exp.and_then(whole).ok_or(TokenFault::Expired)?;
        if is_over(expires, now) {
            return Err(TokenFault::Expired);
        }
        let begins = claims.nbf.map(|nbf| whole(nbf).ok_or(TokenFault::NotYetValid)).transpose()?;
        if begins.is_some_and(|begins| begins > seconds(now) + LEEWAY.as_secs()) {
            return Err(TokenFault::NotYetValid);
        }
        Ok(expires)
    }

    /// Checks a token that was verified earlier, maybe with other keys (rule 6).
    ///
    /// # Errors
    /// `Expired` or `UnknownKey`.
    pub fn check_again(&self, verified: &VerifiedAccount, now: SystemTime) -> Result<(), TokenFault> {
        if is_over(verified.expires, now) {
            return Err(TokenFault::Expired);
        }
        if self.keys.has(verified.key) { Ok(()) } else { Err(TokenFault::UnknownKey) }
    }
}

/// Whether a token with this `exp` has expired.
fn is_over(expires: u64, now: SystemTime) -> bool {
    seconds(now) >= expires.saturating_add(LEEWAY.as_secs())
}

/// Verifies the signature and returns the claims.
fn verified_claims(token: &[u8], key: &Key, algorithm: Algorithm) -> Result<Claims, TokenFault> {
    let mut validation = Validation::new(algorithm.of_library());
    validation.required_spec_claims.clear();
    // The claims are checked here, with the time that is given.
    (validation.validate_exp, validation.validate_nbf, validation.validate_aud) = (false, false, false);
    match jsonwebtoken::decode::<Claims>(token, &key.key, &validation) {
        Ok(decoded) => Ok(decoded.claims),
        Err(error) if matches!(error.kind(), ErrorKind::InvalidSignature) => Err(TokenFault::Signature),
        Err(_) => Err(TokenFault::Malformed),
    }
}

/// Returns a NumericDate (RFC 7519, section 2) in whole seconds.
#[expect(
    clippy::as_conversions,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the range is checked"
)]
fn whole(date: f64) -> Option<u64> {
    (date.is_finite() && (0.0..=253_402_300_799.0).contains(&date)).then(|| date.floor() as u64)
}

/// Returns the account that the claims name (rule 5).
fn account(claims: &Claims) -> Result<ServiceAccount, TokenFault> {
    let subject = claims.sub.as_deref().and_then(|subject| subject.strip_prefix("system:serviceaccount:"));
    let (namespace, name) = subject.and_then(|subject| subject.split_once(':')).ok_or(TokenFault::Subject)?;
    if let Some(claim) = &claims.kubernetes {
        let same_namespace = claim.namespace.as_deref().is_none_or(|stated| stated == namespace);
        let stated = claim.serviceaccount.as_ref().and_then(|account| account.name.as_deref());
        if !same_namespace || stated.is_some_and(|stated| stated != name) {
            return Err(TokenFault::Subject);
        }
    }
    ServiceAccount::parse(&format!("{namespace}/{name}")).ok_or(TokenFault::Subject)
}

/// Tests, and tokens for those of other modules.
#[cfg(test)]
pub mod tests;

//! Yandex OAuth: the commands `token …` issue, renew and end tokens with it.
//!
//! 1. Only commands use this module. A process that serves never reads a refresh token or the secret of an application,
//!    and its sandbox allows no connection to the OAuth server.
//! 2. Secrets have types and alphabets of their own ([`super::oauth_secret`]), are never shown, and are wiped when dropped.
//! 3. Requests are POSTs of a form over verified TLS. The report of an error comes from a closed table ([`super::oauth_fault`]): no
//!    text of a response is repeated, because it can contain a secret.
//! 4. A token that was received is durable before anything is done with it, and replaces the old one only after it was
//!    proven ([`super::oauth_keep`]).
//! 5. Every login for a token uses the same device id, so that the token belongs to this gate alone and can be revoked.
//! 6. An authorization code is bound to this process by PKCE (RFC 7636, S256) and `state`.

use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// The number of random bytes of a `state` and of a verifier.
const RANDOM: usize = 32;

/// Returns 43 random characters of base64url.
///
/// # Errors
/// When the system has no random numbers.
pub fn random() -> anyhow::Result<String> {
    let mut bytes = [0; RANDOM];
    SystemRandom::new().fill(&mut bytes).map_err(|_| anyhow::anyhow!("the system has no random numbers"))?;
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}

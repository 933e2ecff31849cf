//! Service account tokens of requests: their verification, and the memory of verified ones.
//!
//! 1. A token that was verified is remembered by its SHA-256, so that the next request with it costs a hash and no verification
//!    of a signature. It is compared with the time of each request.
//! 2. Only verified tokens are remembered, at most [`REMEMBERED`] of each worker.
//! 3. Other keys or requirements begin with an empty memory.

use std::sync::Arc;
use std::time::SystemTime;

use aws_lc_rs::digest::{SHA256, digest};
use rustc_hash::FxHashMap;
use tokio::sync::Notify;

use super::Worker;
use crate::policy::service_account::{TokenFault, TokenVerifier, VerifiedAccount};

/// The maximum number of remembered tokens; when one half is full, the older half is dropped.
const REMEMBERED: usize = 1024;

/// The verification of service account tokens, as the configuration wants it.
#[derive(Debug, Clone)]
pub struct AccountCheck {
    /// The verifier; `None` until the server of the keys has answered.
    pub verifier: Option<Arc<TokenVerifier>>,
    /// Notified when a token names an unknown key.
    pub wanted: Arc<Notify>,
}

/// The SHA-256 of a token.
type Hash = [u8; 32];

/// The verified tokens of a worker.
#[derive(Debug, Default)]
pub struct VerifiedTokens {
    verifier: Option<Arc<TokenVerifier>>,
    recent: FxHashMap<Hash, VerifiedAccount>,
    older: FxHashMap<Hash, VerifiedAccount>,
}

impl VerifiedTokens {
    /// Verifies a token, or recognises it.
    ///
    /// # Errors
    /// [`TokenFault`].
    pub fn verify(
        &mut self,
        verifier: &Arc<TokenVerifier>,
        token: &[u8],
        now: SystemTime,
    ) -> Result<VerifiedAccount, TokenFault> {
        // Rule 3.
        if !self.verifier.as_ref().is_some_and(|known| Arc::ptr_eq(known, verifier)) {
            *self = Self { verifier: Some(verifier.clone()), ..Self::default() };
        }
        let mut hash = Hash::default();
        hash.iter_mut().zip(digest(&SHA256, token).as_ref()).for_each(|(own, byte)| *own = *byte);
        if let Some(known) = self.recent.get(&hash) {
            return verifier.check_again(known, now).map(|()| known.clone());
        }
        let verified = match self.older.remove(&hash) {
            Some(known) => verifier.check_again(&known, now).map(|()| known)?,
            None => verifier.verify(token, now)?,
        };
        if self.recent.len() >= REMEMBERED / 2 {
            self.older = std::mem::take(&mut self.recent);
        }
        self.recent.insert(hash, verified.clone());
        Ok(verified)
    }
}

impl Worker {
    /// Verifies a service account token, or recognises it.
    ///
    /// # Errors
    /// [`TokenFault`].
    pub fn verify_token(
        &self,
        verifier: &Arc<TokenVerifier>,
        token: &[u8],
        now: SystemTime,
    ) -> Result<VerifiedAccount, TokenFault> {
        self.verified_tokens.borrow_mut().verify(verifier, token, now)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::policy::service_account::tests::{header, jwk_of, now, rsa_key, signed, verifier, with};

    #[test]
    fn rules_1_to_3_verified_tokens_are_remembered_until_they_expire_or_the_keys_change() {
        let key = rsa_key();
        let first = Arc::new(verifier(&[jwk_of(&key, "one")]));
        let token = |number: u64| signed(&key, &header(), &with("jti", serde_json::json!(number.to_string())));
        let mut memory = VerifiedTokens::default();
        let (good, later) = (token(0), now() + Duration::from_secs(3600 + 60));
        assert_eq!(memory.verify(&first, good.as_bytes(), now()).unwrap().account.to_string(), "shop/etl");
        assert_eq!(memory.recent.len(), 1);
        assert!(memory.verify(&first, good.as_bytes(), now()).is_ok());
        assert_eq!(memory.verify(&first, good.as_bytes(), later), Err(TokenFault::Expired));
        let changed = format!("{good}A");
        assert!(memory.verify(&first, changed.as_bytes(), now()).is_err() && memory.recent.len() == 1);
        // What follows needs no signatures: any token that is remembered is recognised.
        let known = memory.verify(&first, good.as_bytes(), now()).unwrap();
        let hash_of = |token: &str| {
            let mut hash = Hash::default();
            hash.copy_from_slice(digest(&SHA256, token.as_bytes()).as_ref());
            hash
        };
        for number in 1..=3 * REMEMBERED {
            let _ = memory.older.insert(hash_of(&number.to_string()), known.clone());
            assert!(memory.verify(&first, number.to_string().as_bytes(), now()).is_ok());
            assert!(memory.recent.len() + memory.older.len() <= REMEMBERED, "{number}");
        }
        assert!(memory.verify(&first, good.as_bytes(), now()).is_ok(), "it is verified again");
        let other = Arc::new(verifier(&[jwk_of(&rsa_key(), "one")]));
        assert_eq!(memory.verify(&other, good.as_bytes(), now()), Err(TokenFault::Signature));
        assert!(memory.recent.is_empty() && memory.older.is_empty());
    }
}

//! Proofs of callers: refused ones, and the state of the public keys of service account tokens.

use std::time::SystemTime;

use super::Shard;
use super::process::{Outcome, ProcessMeters, Reloads, seconds};
use crate::config::certificates::ClientCertificateFault;
use crate::policy::service_account::TokenFault;

/// The public keys of service account tokens.
#[derive(Debug, Default, Clone)]
pub struct KeySetState {
    /// The number of keys in use.
    pub keys: usize,
    /// The time when they were written or received, in seconds since 1970.
    pub at: u64,
    /// The requests for keys.
    pub requests: Reloads,
    /// The reason why the last request failed, if it did.
    pub failure: Option<String>,
}

impl ProcessMeters {
    /// Sets the keys in use: their number, and when they were written or received.
    pub fn key_set_now(&self, keys: usize, at: SystemTime) {
        let mut state = self.lock();
        let key_set = state.key_set.get_or_insert_with(KeySetState::default);
        (key_set.keys, key_set.at) = (keys, seconds(at));
    }

    /// Records that keys come from a server; those that came before stay in use.
    pub fn key_set_expected(&self) {
        self.lock().key_set.get_or_insert_with(KeySetState::default);
    }

    /// Records that service account tokens are not verified.
    pub fn no_key_set(&self) {
        self.lock().key_set = None;
    }

    /// Records the result of a request for keys; a failure has a reason.
    pub fn key_set_requested(&self, failure: Option<String>) {
        let mut state = self.lock();
        let key_set = state.key_set.get_or_insert_with(KeySetState::default);
        key_set.requests.note(if failure.is_none() { Outcome::Success } else { Outcome::Failure });
        key_set.failure = failure;
    }
}

impl Shard {
    /// Records a handshake that failed because of the client's certificate.
    pub fn client_certificate_refused(&mut self, fault: ClientCertificateFault) {
        *self.client_certificates_refused.entry(fault).or_default() += 1;
    }

    /// Records a refused service account token.
    pub fn service_account_token_refused(&mut self, fault: TokenFault) {
        *self.service_account_tokens_refused.entry(fault).or_default() += 1;
    }
}

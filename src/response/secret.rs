//! The secret that must not reach the caller, and the search for it, in whole or in pieces (`redaction`).

use http::{HeaderMap, HeaderName, HeaderValue};
use memchr::{memchr_iter, memmem};
use strict_http::cut;
use zeroize::Zeroizing;

use crate::token::SCHEME;

/// The secret that must not reach the caller: the token in the `Authorization` that was sent. Not printable.
#[derive(Clone)]
pub struct Secret(HeaderValue);

/// The length up to which a plain search is faster than preparing a searcher; few fields are longer.
const SHORT: usize = 256;

impl Secret {
    /// Returns the token of this `Authorization`; `None` if it contains none, because then nothing could be found.
    #[must_use]
    pub fn of(authorization: &HeaderValue) -> Option<Self> {
        let token = authorization.as_bytes().strip_prefix(SCHEME.as_bytes())?;
        (!token.is_empty()).then(|| Self(authorization.clone()))
    }

    pub(super) fn token(&self) -> &[u8] {
        let whole = self.0.as_bytes();
        whole.get(SCHEME.len()..).unwrap_or(whole)
    }

    /// Returns its position in `bytes`.
    pub(super) fn find(&self, bytes: &[u8]) -> Option<usize> {
        let token = self.token();
        let first = *token.first()?;
        // A shorter field cannot hold the token, and most are shorter.
        let last = bytes.len().checked_sub(token.len())?;
        if bytes.len() > SHORT {
            return memmem::find(bytes, token);
        }
        memchr_iter(first, bytes.get(..=last)?).find(|at| bytes.get(*at..).is_some_and(|rest| rest.starts_with(token)))
    }

    /// Removes every field that contains the token; returns whether there was one.
    pub fn take_from(&self, fields: &mut HeaderMap) -> bool {
        let holds =
            |(name, value): (&HeaderName, &HeaderValue)| self.find(value.as_bytes()).is_some().then(|| name.clone());
        let found: Vec<HeaderName> = fields.iter().filter_map(holds).collect();
        for name in &found {
            fields.remove(name);
        }
        !found.is_empty()
    }

    /// Returns the number of bytes at the end of `bytes` that are a proper prefix of the token.
    pub(super) fn begun_in(&self, bytes: &[u8]) -> usize {
        let token = self.token();
        let Some((first, rest)) = token.split_first() else { return 0 };
        let end = cut::last(bytes, rest.len());
        // The first match is the longest.
        let fits = |at: &usize| end.get(*at..).is_some_and(|tail| token.starts_with(tail));
        memchr_iter(*first, end).find(fits).map_or(0, |at| end.len() - at)
    }

    /// Returns its first `begun` bytes, and the bytes of `piece` that can complete it.
    pub(super) fn joined(&self, begun: usize, piece: &[u8]) -> Zeroizing<Vec<u8>> {
        let token = self.token();
        let ((held, _), (more, _)) = (cut::at_most(token, begun), cut::at_most(piece, token.len().saturating_sub(1)));
        Zeroizing::new([held, more].concat())
    }
}

/// Detects the token in bytes that arrive in pieces.
#[derive(Debug, Default, Clone, Copy)]
pub struct Watch {
    begun: usize,
}

impl Watch {
    /// Whether `piece` contains the token, or completes it.
    pub fn sees(&mut self, secret: &Secret, piece: &[u8]) -> bool {
        if self.begun > 0 {
            let joined = secret.joined(self.begun, piece);
            if secret.find(&joined).is_some() {
                return true;
            }
            if piece.len() + 1 < secret.token().len() {
                self.begun = secret.begun_in(&joined);
                return false;
            }
        }
        self.begun = secret.begun_in(piece);
        secret.find(piece).is_some()
    }

    /// Returns the number of bytes at the end so far that could begin the token.
    #[must_use]
    pub const fn begun(&self) -> usize {
        self.begun
    }
}

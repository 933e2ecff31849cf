//! What must not come back, and how it is found: as it is, whole or in pieces (`redaction`).

use http::{HeaderMap, HeaderName, HeaderValue};
use memchr::{memchr_iter, memmem};
use zeroize::Zeroizing;

use crate::token::SCHEME;

/// What must not come back: the token in the `Authorization` that went out. Not printable.
#[derive(Clone)]
pub struct Secret(HeaderValue);

/// In so little, to prepare a search takes longer than to search: fields are seldom longer.
const SHORT: usize = 256;

impl Secret {
    /// The token of this `Authorization`, if it holds one: without it nothing could be found.
    #[must_use]
    pub fn of(authorization: &HeaderValue) -> Option<Self> {
        let token = authorization.as_bytes().strip_prefix(SCHEME.as_bytes())?;
        (!token.is_empty()).then(|| Self(authorization.clone()))
    }

    pub(super) fn token(&self) -> &[u8] {
        let whole = self.0.as_bytes();
        whole.get(SCHEME.len()..).unwrap_or(whole)
    }

    /// Where it begins in `bytes`.
    pub(super) fn find(&self, bytes: &[u8]) -> Option<usize> {
        let token = self.token();
        let first = *token.first()?;
        // What is shorter cannot hold it, and most fields are.
        let last = bytes.len().checked_sub(token.len())?;
        if bytes.len() > SHORT {
            return memmem::find(bytes, token);
        }
        memchr_iter(first, bytes.get(..=last)?).find(|at| bytes.get(*at..).is_some_and(|rest| rest.starts_with(token)))
    }

    /// Takes away every field that holds it; whether there was one.
    pub fn take_from(&self, fields: &mut HeaderMap) -> bool {
        let holds =
            |(name, value): (&HeaderName, &HeaderValue)| self.find(value.as_bytes()).is_some().then(|| name.clone());
        let found: Vec<HeaderName> = fields.iter().filter_map(holds).collect();
        for name in &found {
            fields.remove(name);
        }
        !found.is_empty()
    }

    /// How many bytes at the end of `bytes` are its beginning, but not the whole of it.
    pub(super) fn begun_in(&self, bytes: &[u8]) -> usize {
        let token = self.token();
        let Some((first, rest)) = token.split_first() else { return 0 };
        let end = bytes.get(bytes.len().saturating_sub(rest.len())..).unwrap_or_default();
        // The first that fits is the longest.
        let fits = |at: &usize| end.get(*at..).is_some_and(|tail| token.starts_with(tail));
        memchr_iter(*first, end).find(fits).map_or(0, |at| end.len() - at)
    }

    /// Its first `begun` bytes, and the bytes of `piece` that can complete it.
    pub(super) fn joined(&self, begun: usize, piece: &[u8]) -> Zeroizing<Vec<u8>> {
        let token = self.token();
        let more = piece.get(..piece.len().min(token.len().saturating_sub(1))).unwrap_or_default();
        Zeroizing::new([token.get(..begun).unwrap_or_default(), more].concat())
    }
}

/// Sees the token in bytes that come in pieces.
#[derive(Debug, Default, Clone, Copy)]
pub struct Watch {
    begun: usize,
}

impl Watch {
    /// Whether `piece` holds the token, or completes it.
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

    /// How many bytes at the end so far could be the token's beginning.
    #[must_use]
    pub const fn begun(&self) -> usize {
        self.begun
    }
}

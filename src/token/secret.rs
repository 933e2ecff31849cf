//! The secret that must not reach the caller, and the search for it, in whole or in pieces.

use std::rc::Rc;

use http::{HeaderMap, HeaderName, HeaderValue};
use memchr::{memchr_iter, memmem};
use strict_http::cut;
use zeroize::Zeroizing;

use super::SCHEME;

/// The secret that must not reach the caller: the token in the `Authorization` that is sent. Not printable. It is prepared once
/// for each token; a copy is a reference.
#[derive(Clone)]
pub struct Secret(Rc<Prepared>);

struct Prepared {
    authorization: HeaderValue,
    /// The position of the token's rarest byte, and that byte.
    rarest: (usize, u8),
}

/// A search that met the rarest byte in vain so often goes on with a general one, whose cost does not depend on the text.
const IN_VAIN: usize = 64;

impl Secret {
    /// Returns the token of this `Authorization`; `None` if it contains none, because then nothing could be found.
    #[must_use]
    pub fn of(authorization: &HeaderValue) -> Option<Self> {
        let token = authorization.as_bytes().strip_prefix(SCHEME.as_bytes())?;
        let rarest = token.iter().copied().enumerate().min_by_key(|(_, byte)| frequency(*byte))?;
        Some(Self(Rc::new(Prepared { authorization: authorization.clone(), rarest })))
    }

    /// Returns the bytes to look for.
    #[must_use]
    pub fn token(&self) -> &[u8] {
        let whole = self.0.authorization.as_bytes();
        whole.get(SCHEME.len()..).unwrap_or(whole)
    }

    /// Returns its position in `bytes`.
    ///
    /// Looks for the rarest byte alone, because to prepare a search for the whole token takes more instructions than to search
    /// 2 KB: 4,100 for such a body, and 250 without the preparation. A prepared one would hold another copy of the token, which
    /// nobody wipes.
    #[must_use]
    pub fn find(&self, bytes: &[u8]) -> Option<usize> {
        let token = self.token();
        let (position, byte) = self.0.rarest;
        // A shorter text cannot hold the token, and most fields are shorter.
        let last = bytes.len().checked_sub(token.len())?;
        let met = memchr_iter(byte, bytes.get(position..=position + last)?);
        for (times, at) in met.enumerate() {
            let rest = bytes.get(at..)?;
            if rest.starts_with(token) {
                return Some(at);
            }
            if times == IN_VAIN {
                return memmem::find(rest, token).map(|further| at + further);
            }
        }
        None
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
    #[must_use]
    pub fn begun_in(&self, bytes: &[u8]) -> usize {
        let token = self.token();
        let Some((first, rest)) = token.split_first() else { return 0 };
        let end = cut::last(bytes, rest.len());
        // The first match is the longest.
        let fits = |at: &usize| end.get(*at..).is_some_and(|tail| token.starts_with(tail));
        memchr_iter(*first, end).find(fits).map_or(0, |at| end.len() - at)
    }

    /// Returns its first `begun` bytes, and the bytes of `piece` that can complete it.
    #[must_use]
    pub fn joined(&self, begun: usize, piece: &[u8]) -> Zeroizing<Vec<u8>> {
        let token = self.token();
        let ((held, _), (more, _)) = (cut::at_most(token, begun), cut::at_most(piece, token.len().saturating_sub(1)));
        Zeroizing::new([held, more].concat())
    }
}

/// How often a byte occurs in fields and bodies, roughly.
const fn frequency(byte: u8) -> u8 {
    match byte {
        b'Q' | b'X' | b'Z' | b'J' | b'K' | b'V' | b'W' | b'Y' => 0,
        b'A'..=b'Z' => 1,
        b'q' | b'x' | b'z' | b'j' => 2,
        b'a'..=b'z' => 3,
        _ => 4,
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn secret(token: &str) -> Secret {
        Secret::of(&HeaderValue::try_from(format!("{SCHEME}{token}")).unwrap()).unwrap()
    }

    #[test]
    fn the_rarest_byte_is_looked_for() {
        assert_eq!(secret("y0_AgAAAABdRk7vQAm2").0.rarest, (15, b'Q'));
        assert!(Secret::of(&HeaderValue::from_static("OAuth ")).is_none());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        /// Long texts of few letters: the rarest byte is met more often than [`IN_VAIN`].
        #[test]
        fn the_first_place_is_found(token in "[abX]{1,9}", text in "[ab]{0,9}|[abX]{0,400}|X{60,70}[abX]{0,20}") {
            prop_assert_eq!(secret(&token).find(text.as_bytes()), text.find(&token));
        }
    }
}

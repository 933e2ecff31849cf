//! Candidates: new content that must stay unchanged for a while before it is used.
//!
//! A reader can see one half of a file that is rewritten in place, and half a token may look like a complete one.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::policy::names::TokenAlias;
use crate::token::Token;

/// The time that a new token must stay unchanged before it is used.
pub const STABLE: Duration = Duration::from_millis(300);

/// Content that is not used yet, and the time since when it is unchanged.
#[derive(Debug, Clone)]
pub struct Candidate<T>(Option<(T, Instant)>);

impl<T> Default for Candidate<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T: Clone + PartialEq> Candidate<T> {
    /// Returns the time that is left until `seen` has been unchanged for `stable`.
    pub fn left(&mut self, seen: &T, stable: Duration, now: Instant) -> Duration {
        let since = match &self.0 {
            Some((candidate, since)) if candidate == seen => *since,
            Some(_) | None => {
                self.0 = Some((seen.clone(), now));
                now
            }
        };
        stable.saturating_sub(now.duration_since(since))
    }
}

/// New tokens that are not used yet.
#[derive(Default)]
pub struct Candidates(BTreeMap<TokenAlias, Candidate<Token>>);

impl Candidates {
    /// Whether `token` has been unchanged for [`STABLE`]. A settled candidate is removed.
    pub fn settled(&mut self, alias: TokenAlias, token: &Token, now: Instant) -> bool {
        let settled = self.0.entry(alias).or_default().left(token, STABLE, now).is_zero();
        if settled {
            self.forget(alias);
        }
        settled
    }

    /// Removes the candidate, because the file holds the token in use.
    pub fn forget(&mut self, alias: TokenAlias) {
        self.0.remove(&alias);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_a_token_is_not_used_while_it_grows() {
        let alias = TokenAlias::new("t");
        let token = |text: &str| Token::parse(text.as_bytes()).unwrap();
        let (start, step) = (Instant::now(), Duration::from_millis(180));
        let mut candidates = Candidates::default();
        for (position, half) in ["y0_a", "y0_ab", "y0_abc", "y0_abcd"].into_iter().enumerate() {
            let now = start + step * u32::try_from(position).unwrap();
            assert!(!candidates.settled(alias, &token(half), now), "{half}");
        }
        let whole = token("y0_abcd");
        assert!(!candidates.settled(alias, &whole, start + step * 4));
        assert!(candidates.settled(alias, &whole, start + step * 5));
    }
}

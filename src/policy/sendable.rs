//! The tokens that can be sent in the place of a chosen one: itself, and its standby.

use crate::policy::rejection::Reason;

/// The tokens that can be used, in order of preference. There is at least one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidates {
    first: u16,
    /// The position of the second, if there is one.
    second: Option<u16>,
}

impl Candidates {
    /// Returns the candidates of each token. `can_be_sent` states for each token whether it can be used, or why not, and
    /// `standby` returns the position of a token's standby.
    #[must_use]
    pub fn of(
        can_be_sent: &[Result<(), Reason>],
        standby: impl Fn(usize) -> Option<usize>,
    ) -> Vec<Result<Self, Reason>> {
        let can = |position: usize| can_be_sent.get(position).is_some_and(Result::is_ok);
        let one = |(position, own): (usize, &Result<(), Reason>)| {
            let standby = standby(position).filter(|standby| can(*standby));
            let (first, second) = match (own, standby) {
                (Ok(()), standby) => (position, standby),
                (Err(_), Some(standby)) => (standby, None),
                (Err(reason), None) => return Err(*reason),
            };
            let first = u16::try_from(first).map_err(|_| Reason::TokenUnavailable)?;
            let second = second.map(u16::try_from).transpose().map_err(|_| Reason::TokenUnavailable)?;
            Ok(Self { first, second })
        };
        can_be_sent.iter().enumerate().map(one).collect()
    }

    /// The position of the first token.
    #[must_use]
    pub fn first(self) -> usize {
        self.first.into()
    }

    /// The positions of all tokens, in order of preference.
    pub fn iter(self) -> impl Iterator<Item = usize> {
        [Some(self.first), self.second].into_iter().flatten().map(usize::from)
    }
}

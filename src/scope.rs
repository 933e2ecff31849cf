//! Scopes: what a caller may do, what an operation needs, what a token can.
//!
//! 1. An operation names the scopes of which any one is enough.
//! 2. `metrika:write` covers the three narrow scopes `metrika:expenses`, `metrika:user_params` and
//!    `metrika:offline_data`; each of those is a part of what write may do.
//! 3. `metrika:write` never covers `metrika:read`: the API's documentation nowhere says that it does.
//!
//! Source: <https://yandex.com/dev/metrika/en/intro/authorization>, access types.

use std::fmt;
use std::str::FromStr;

/// One right that Yandex grants to an application.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// `metrika:read`: statistics, and the parameters of counters.
    Read,
    /// `metrika:write`: create counters, change their parameters, upload data.
    Write,
    /// `metrika:expenses`: upload expenses.
    Expenses,
    /// `metrika:user_params`: upload user parameters.
    UserParams,
    /// `metrika:offline_data`: upload CRM data, offline conversions, calls and chats.
    OfflineData,
}

impl Scope {
    /// Every scope, in the order of the documentation.
    pub const ALL: [Self; 5] = [Self::Read, Self::Write, Self::Expenses, Self::UserParams, Self::OfflineData];

    /// The name Yandex gives it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "metrika:read",
            Self::Write => "metrika:write",
            Self::Expenses => "metrika:expenses",
            Self::UserParams => "metrika:user_params",
            Self::OfflineData => "metrika:offline_data",
        }
    }

    const fn bit(self) -> u8 {
        match self {
            Self::Read => 1,
            Self::Write => 1 << 1,
            Self::Expenses => 1 << 2,
            Self::UserParams => 1 << 3,
            Self::OfflineData => 1 << 4,
        }
    }
}

impl FromStr for Scope {
    type Err = UnknownScope;

    fn from_str(text: &str) -> Result<Self, UnknownScope> {
        Self::ALL.into_iter().find(|scope| scope.as_str() == text).ok_or(UnknownScope)
    }
}

/// Not the name of a scope.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "not a scope; the scopes are metrika:read, metrika:write, metrika:expenses, metrika:user_params, metrika:offline_data"
)]
pub struct UnknownScope;

/// An operation needs any one of some scopes, and whoever it was asked for has none of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the operation needs {}; {holder} {held}", .needed.any_of())]
pub struct Lacking {
    /// Whose scopes they are.
    pub holder: Holder,
    /// Any one of these is enough.
    pub needed: ScopeSet,
    /// What the holder has.
    pub held: ScopeSet,
}

/// Who has scopes, by the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holder {
    /// A caller.
    Caller,
    /// All tokens of a caller together.
    Tokens,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Caller => "the configuration gives this caller",
            Self::Tokens => "the tokens of this caller are declared to have",
        })
    }
}

/// A set of scopes.
#[derive(Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct ScopeSet(u8);

impl ScopeSet {
    /// How many different sets there are.
    pub const COUNT: usize = 1 << Scope::ALL.len();

    /// The set without a member.
    pub const EMPTY: Self = Self(0);

    /// Whether a holder of `self` may do what needs any one of `needed` (rules 1 to 3).
    #[must_use]
    pub const fn covers(self, needed: Self) -> bool {
        self.with_implied().0 & needed.0 != 0
    }

    /// `self` and what its members imply (rule 2).
    #[must_use]
    pub const fn with_implied(self) -> Self {
        let narrow = Scope::Expenses.bit() | Scope::UserParams.bit() | Scope::OfflineData.bit();
        if self.0 & Scope::Write.bit() == 0 { self } else { Self(self.0 | narrow) }
    }

    /// Whether `scope` itself is in the set.
    #[must_use]
    pub const fn contains(self, scope: Scope) -> bool {
        self.0 & scope.bit() != 0
    }

    /// Whether every member of `others` is in the set.
    #[must_use]
    pub const fn contains_all(self, others: Self) -> bool {
        self.0 & others.0 == others.0
    }

    /// The number of scopes in the set.
    #[must_use]
    pub const fn len(self) -> u32 {
        self.0.count_ones()
    }

    /// Whether nothing is in the set.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// A number below [`Self::COUNT`] that stands for this set.
    #[must_use]
    pub fn index(self) -> usize {
        usize::from(self.0)
    }

    /// One bit of 32 that stands for this set.
    #[must_use]
    pub const fn bit(self) -> u32 {
        1 << self.0
    }

    /// The set of [`Self::index`] `index`; bits beyond the scopes are dropped.
    #[must_use]
    pub fn from_index(index: usize) -> Self {
        Scope::ALL.into_iter().filter(|scope| index & usize::from(scope.bit()) != 0).collect()
    }

    /// The members as alternatives: "metrika:write or metrika:expenses".
    #[must_use]
    pub fn any_of(self) -> String {
        self.to_string().replace(", ", " or ")
    }

    /// The members, in the order of [`Scope::ALL`].
    pub fn iter(self) -> impl Iterator<Item = Scope> {
        Scope::ALL.into_iter().filter(move |scope| self.0 & scope.bit() != 0)
    }
}

impl FromIterator<Scope> for ScopeSet {
    fn from_iter<I: IntoIterator<Item = Scope>>(scopes: I) -> Self {
        Self(scopes.into_iter().fold(0, |bits, scope| bits | scope.bit()))
    }
}

impl fmt::Display for ScopeSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, scope) in self.iter().enumerate() {
            if position > 0 {
                f.write_str(", ")?;
            }
            f.write_str(scope.as_str())?;
        }
        Ok(())
    }
}

impl fmt::Debug for ScopeSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{{{self}}}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(scopes: &[Scope]) -> ScopeSet {
        scopes.iter().copied().collect()
    }

    #[test]
    fn any_one_of_the_needed_scopes_is_enough() {
        assert!(set(&[Scope::Expenses]).covers(set(&[Scope::Expenses, Scope::Write])));
        assert!(!set(&[Scope::UserParams]).covers(set(&[Scope::Expenses, Scope::Write])));
        assert!(!ScopeSet::EMPTY.covers(set(&[Scope::Read])));
    }

    #[test]
    fn write_covers_the_three_narrow_scopes() {
        for narrow in [Scope::Expenses, Scope::UserParams, Scope::OfflineData] {
            assert!(set(&[Scope::Write]).covers(set(&[narrow])), "{narrow:?}");
            assert!(!set(&[narrow]).covers(set(&[Scope::Write])), "{narrow:?}");
        }
    }

    #[test]
    fn write_never_covers_read() {
        assert!(!set(&[Scope::Write]).covers(set(&[Scope::Read])));
    }

    #[test]
    fn every_set_has_its_own_index() {
        for index in 0..ScopeSet::COUNT {
            assert_eq!(ScopeSet::from_index(index).index(), index);
        }
    }
}

//! OAuth scopes: those that a caller has, an operation needs, or a token carries.
//!
//! 1. An operation lists scopes, any one of which is enough.
//! 2. `metrika:write` covers the three narrow scopes `metrika:expenses`, `metrika:user_params` and
//!    `metrika:offline_data`; each of those is a subset of write.
//! 3. `metrika:write` does not cover `metrika:read`, because the API documentation does not state that it does.
//!
//! Source: <https://yandex.com/dev/metrika/en/intro/authorization>, access types.

use std::fmt;
use std::str::FromStr;

/// A right that Yandex grants to an application.
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

    /// The name in OAuth.
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

/// The text is not the name of a scope.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "not a scope; the scopes are metrika:read, metrika:write, metrika:expenses, metrika:user_params, metrika:offline_data"
)]
pub struct UnknownScope;

/// The holder has none of the scopes that an operation accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lacking {
    /// The holder.
    pub holder: Holder,
    /// The accepted scopes: any one of them is enough.
    pub needed: ScopeSet,
    /// The scopes that the holder has.
    pub held: ScopeSet,
}

impl fmt::Display for Lacking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the operation needs {}; {} {}", AnyOf(self.needed), self.holder, self.held)
    }
}

/// A holder of scopes, according to the configuration.
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
            Self::Caller => "this caller is configured with",
            Self::Tokens => "the tokens of this caller are configured with",
        })
    }
}

/// A set of scopes.
#[derive(Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct ScopeSet(u8);

impl ScopeSet {
    /// The number of different sets.
    pub const COUNT: usize = 1 << Scope::ALL.len();

    /// The empty set.
    pub const EMPTY: Self = Self(0);

    /// Whether a holder of `self` has at least one of the scopes `needed` (rules 1 to 3).
    #[must_use]
    pub const fn covers(self, needed: Self) -> bool {
        self.with_implied().0 & needed.0 != 0
    }

    /// The set together with the scopes that its members cover (rule 2).
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

    /// Whether the set is empty.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// A number below [`Self::COUNT`] that identifies this set.
    #[must_use]
    pub fn index(self) -> usize {
        usize::from(self.0)
    }

    /// One of 32 bits that identifies this set.
    #[must_use]
    pub const fn bit(self) -> u32 {
        1 << self.0
    }

    /// The set whose [`Self::index`] is `index`; bits beyond the scopes are ignored.
    #[must_use]
    pub fn from_index(index: usize) -> Self {
        Scope::ALL.into_iter().filter(|scope| index & usize::from(scope.bit()) != 0).collect()
    }

    fn joined(self, between: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, scope) in self.iter().enumerate() {
            if position > 0 {
                f.write_str(between)?;
            }
            f.write_str(scope.as_str())?;
        }
        Ok(())
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
        self.joined(", ", f)
    }
}

/// A set of scopes as alternatives: "metrika:write or metrika:expenses".
#[derive(Debug, Clone, Copy)]
pub struct AnyOf(pub ScopeSet);

impl fmt::Display for AnyOf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.joined(" or ", f)
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

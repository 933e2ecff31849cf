//! Standing: what is known of whether Metrica accepts a token.

/// The state of a token that was read from its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Standing {
    /// Nothing speaks against it.
    #[default]
    Healthy,
    /// An answer reads as if Metrica rejected it; a probe finds out. It is used meanwhile.
    Suspect,
    /// Metrica rejected it in the answer to a probe too: nothing is sent with it.
    Parked,
    /// The same, and tokens of other owners were rejected at the same time.
    Outage,
}

impl Standing {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Healthy, Self::Suspect, Self::Parked, Self::Outage];

    /// Its label value.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Healthy => "usable",
            Self::Suspect => "suspect",
            Self::Parked => "parked",
            Self::Outage => "outage",
        }
    }

    /// Whether nothing is sent with such a token.
    #[must_use]
    pub const fn is_refused(self) -> bool {
        match self {
            Self::Healthy | Self::Suspect => false,
            Self::Parked | Self::Outage => true,
        }
    }
}

/// What is concluded about a token, from a probe or from what is known already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Conclusion {
    /// Metrica accepts it.
    Accepted,
    /// Metrica rejects it.
    Rejected,
    /// Nothing can be concluded.
    Unknown,
}

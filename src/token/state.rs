//! Standing: whether Metrica accepts a token, as far as the gate knows.

/// The state of a loaded token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Standing {
    /// No response rejected the token.
    #[default]
    Healthy,
    /// A response suggests that Metrica rejects the token. It stays in use until a probe decides.
    Suspect,
    /// Suspended: Metrica rejected the token in a probe too. The token is not sent.
    Suspended,
    /// Suspended, while tokens of other owners were rejected at the same time.
    Outage,
}

impl Standing {
    /// All standings.
    pub const ALL: [Self; 4] = [Self::Healthy, Self::Suspect, Self::Suspended, Self::Outage];

    /// Returns the label value.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Suspect => "suspect",
            Self::Suspended => "suspended",
            Self::Outage => "outage",
        }
    }

    /// Whether the token is suspended, so that it is not sent.
    #[must_use]
    pub const fn is_refused(self) -> bool {
        match self {
            Self::Healthy | Self::Suspect => false,
            Self::Suspended | Self::Outage => true,
        }
    }
}

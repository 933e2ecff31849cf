//! The permission of an account on a counter, and the access that an operation needs.

/// The permission of an account on a counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Permission {
    /// No access (rule 3).
    Nothing,
    /// View access, because the counter is public (rule 3).
    Public,
    /// At least view access (rule 2).
    Seen,
    /// Exactly view access (rule 3).
    View,
    /// At least edit access (rule 2).
    Changed,
    /// Exactly edit access (rule 3).
    Edit,
    /// Ownership: everything is allowed (rule 3).
    Own,
}

/// The access that an operation needs on its counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Any access.
    View,
    /// Edit access.
    Edit,
    /// Ownership.
    Own,
}

impl Permission {
    /// Whether the permission includes an access; `None` if that is unknown, because more may be allowed than was seen.
    #[must_use]
    pub const fn allows(self, needed: Access) -> Option<bool> {
        match (self, needed) {
            (Self::Nothing, _) => Some(false),
            (_, Access::View) | (Self::Changed | Self::Edit, Access::Edit) | (Self::Own, _) => Some(true),
            (Self::Seen, Access::Edit | Access::Own) | (Self::Changed, Access::Own) => None,
            (Self::Public | Self::View, Access::Edit | Access::Own) | (Self::Edit, Access::Own) => Some(false),
        }
    }

    /// The permission that a word of the API denotes.
    #[must_use]
    pub fn of(word: &str) -> Option<Self> {
        Some(match word {
            "own" => Self::Own,
            "edit" => Self::Edit,
            "view" | "analyst" | "analyst_access_filter" => Self::View,
            "public_stat" => Self::Public,
            _ => return None,
        })
    }
}

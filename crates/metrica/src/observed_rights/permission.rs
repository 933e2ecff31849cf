//! The permission of an account on a counter, and the access that an operation needs.

use std::hash::Hash;

use rustc_hash::FxHashMap;

use super::LARGEST;

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
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
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

    /// Whether Metrica told the permission, rather than that a success shows a part of it.
    #[must_use]
    pub const fn is_exact(self) -> bool {
        !matches!(self, Self::Seen | Self::Changed)
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

/// Records a permission. Returns whether it is news.
pub(super) fn learn_permission<K: Eq + Hash>(known: &mut FxHashMap<K, Permission>, key: K, new: Permission) -> bool {
    let room = known.len() < LARGEST;
    match known.get_mut(&key) {
        Some(known) if stays(*known, new) => false,
        Some(known) => {
            *known = new;
            true
        }
        None if room => {
            known.insert(key, new);
            true
        }
        None => false,
    }
}

/// Whether a `known` permission stays: a success adds nothing to one that was told exactly, or to a known edit access.
pub(super) fn stays(known: Permission, new: Permission) -> bool {
    match new {
        Permission::Seen => known != Permission::Nothing,
        Permission::Changed => known >= Permission::Changed,
        Permission::Nothing | Permission::Public | Permission::View | Permission::Edit | Permission::Own => {
            known == new
        }
    }
}

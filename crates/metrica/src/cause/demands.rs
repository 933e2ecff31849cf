//! The demands of operations on the permission of an account.

use crate::observed_rights::Access;
use crate::operation::OperationId;
use crate::scope::{Scope, ScopeSet};

/// The permission that an operation needs on its counter, beyond its scopes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Demands {
    /// The usual permission for its scopes.
    #[default]
    Usual,
    /// Edit access, although the operation is a read: of grants.
    Change,
    /// Ownership.
    Ownership,
}

impl Demands {
    /// The demands of an operation.
    #[must_use]
    pub fn of(operation: OperationId) -> Self {
        match operation.as_str() {
            "grants.list" | "grant.get" => Self::Change,
            "counter.delete" | "counter.undelete" => Self::Ownership,
            _ => Self::Usual,
        }
    }

    /// The access to its counter that an operation needs whose scopes are `needs`.
    #[must_use]
    pub fn access(self, needs: ScopeSet) -> Access {
        match self {
            Self::Ownership => Access::Own,
            Self::Change => Access::Edit,
            Self::Usual if needs.contains(Scope::Read) => Access::View,
            Self::Usual => Access::Edit,
        }
    }
}

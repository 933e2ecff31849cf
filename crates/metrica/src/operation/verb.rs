//! The HTTP methods of operations.

use http::Method;

/// The methods of operations. Other methods are rejected before policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verb {
    /// GET
    Get,
    /// HEAD
    Head,
    /// POST
    Post,
    /// PUT
    Put,
    /// PATCH
    Patch,
    /// DELETE
    Delete,
}

impl Verb {
    /// All verbs, in the order of `Allow`.
    pub const ALL: [Self; 6] = [Self::Get, Self::Head, Self::Post, Self::Put, Self::Patch, Self::Delete];

    /// Returns the verb of a method, or `None` if no operation has it. Methods are case-sensitive (RFC 9110, section 9.1).
    #[must_use]
    pub fn of(method: &Method) -> Option<Self> {
        Self::ALL.into_iter().find(|verb| verb.as_str() == method.as_str())
    }

    /// The method name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
        }
    }

    /// Whether the method is safe (RFC 9110, section 9.2.1), so that a request can be repeated without harm.
    #[must_use]
    pub const fn is_safe(self) -> bool {
        matches!(self, Self::Get | Self::Head)
    }

    /// The verb used to look up the operation (rule 3 of [`super`]).
    pub(super) const fn operation(self) -> Self {
        match self {
            Self::Head => Self::Get,
            Self::Get | Self::Post | Self::Put | Self::Patch | Self::Delete => self,
        }
    }

    pub(super) const fn slot(self) -> usize {
        match self {
            Self::Get | Self::Head => 0,
            Self::Post => 1,
            Self::Put => 2,
            Self::Patch => 3,
            Self::Delete => 4,
        }
    }
}

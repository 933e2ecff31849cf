//! The methods of operations.

use http::Method;

/// The methods that operations have. Everything else is refused before policy.
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
    /// All of them, as `Allow` lists them.
    pub const ALL: [Self; 6] = [Self::Get, Self::Head, Self::Post, Self::Put, Self::Patch, Self::Delete];

    /// The verb of a request's method, if operations have it. Methods are case-sensitive (RFC 9110, section 9.1).
    #[must_use]
    pub fn of(method: &Method) -> Option<Self> {
        Self::ALL.into_iter().find(|verb| verb.as_str() == method.as_str())
    }

    /// Its name on the wire.
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

    /// Whether it only reads (RFC 9110, section 9.2.1), so that sending it twice harms nothing.
    #[must_use]
    pub const fn is_safe(self) -> bool {
        matches!(self, Self::Get | Self::Head)
    }

    /// The verb whose operation this is (rule 3 of [`super`]).
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

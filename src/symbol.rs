//! Names that live as long as the process: interned once, compared and hashed as a number.
//!
//! Callers, tokens, operations and listeners are named by configuration and by the catalogue, never by a request, so
//! the set of names is bounded by what operators write, and a name may be kept for ever. A symbol is `Copy`, equal
//! exactly when the text is equal, also across reloads: counters of a caller go on when the configuration changes.

use std::collections::HashMap;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::{LazyLock, Mutex, PoisonError};

/// An interned name.
#[derive(Clone, Copy)]
pub struct Symbol {
    index: u32,
    text: &'static str,
}

static NAMES: LazyLock<Mutex<HashMap<&'static str, Symbol>>> = LazyLock::new(Mutex::default);

impl Symbol {
    /// The symbol of `text`. Takes a lock: for configuration time, never for a request.
    #[must_use]
    pub fn new(text: &str) -> Self {
        let mut names = NAMES.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = names.get(text) {
            return *known;
        }
        let text: &'static str = Box::leak(text.into());
        let symbol = Self { index: u32::try_from(names.len()).unwrap_or(u32::MAX), text };
        names.insert(text, symbol);
        symbol
    }

    /// The name itself.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        self.text
    }
}

impl PartialEq for Symbol {
    fn eq(&self, other: &Self) -> bool {
        self.index == other.index
    }
}

impl Eq for Symbol {}

impl Hash for Symbol {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.index.hash(state);
    }
}

impl PartialOrd for Symbol {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Symbol {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.text.cmp(other.text)
    }
}

impl fmt::Debug for Symbol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.text, f)
    }
}

impl fmt::Display for Symbol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.text)
    }
}

/// Makes a named kind of symbol, so that a caller can never stand where a token is meant.
macro_rules! symbol_kind {
    ($(#[doc = $doc:literal] $name:ident;)*) => {$(
        #[doc = $doc]
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Symbol);

        impl $name {
            /// Interns `text`. For configuration time.
            #[must_use]
            pub fn new(text: &str) -> Self {
                Self(Symbol::new(text))
            }

            /// The name itself.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                self.0.as_str()
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
    )*};
}

symbol_kind! {
    /// The `id` of a caller in the configuration.
    CallerId;
    /// The name of a token in the configuration: what logs and metrics say in place of the token.
    TokenAlias;
    /// The id of an operation in the catalogue or the configuration.
    OperationId;
    /// The name of a listener in the configuration.
    ListenerName;
    /// The name of a group of counters in the configuration.
    GroupName;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_text_is_the_same_symbol() {
        assert_eq!(CallerId::new("reports"), CallerId::new(&String::from("reports")));
        assert_ne!(CallerId::new("reports"), CallerId::new("crm"));
        assert_eq!(CallerId::new("reports").as_str(), "reports");
    }
}

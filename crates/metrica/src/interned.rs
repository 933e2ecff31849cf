//! Interned names: they live as long as the process, and are compared and hashed as numbers.
//!
//! Names come only from a configuration and the catalogue, never from a request. Operators therefore bound their number,
//! and a name can be kept until the process ends. A symbol is `Copy`; two symbols are equal exactly if their texts are.

use std::collections::HashMap;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::{LazyLock, Mutex, PoisonError};

/// An interned name.
#[derive(Clone, Copy)]
pub struct Symbol {
    index: usize,
    text: &'static str,
}

static NAMES: LazyLock<Mutex<HashMap<&'static str, Symbol>>> = LazyLock::new(Mutex::default);

impl Symbol {
    /// Returns the symbol of `text`. Takes a lock: meant for configuration time, not for requests.
    #[must_use]
    pub fn new(text: &str) -> Self {
        let mut names = NAMES.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = names.get(text) {
            return *known;
        }
        let text: &'static str = Box::leak(text.into());
        let symbol = Self { index: names.len(), text };
        names.insert(text, symbol);
        symbol
    }

    /// The text of the name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        self.text
    }

    /// The number of the name: names are numbered from 0, those of all kinds together.
    #[must_use]
    pub const fn number(self) -> usize {
        self.index
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

/// Defines types of interned names, so that a name of one kind cannot be used as a name of another kind.
#[macro_export]
macro_rules! interned_names {
    ($(#[doc = $doc:literal] $name:ident;)*) => {$(
        #[doc = $doc]
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name($crate::Symbol);

        impl $name {
            /// Interns `text`. Takes a lock: meant for configuration time.
            #[must_use]
            pub fn new(text: &str) -> Self {
                Self($crate::Symbol::new(text))
            }

            /// The text of the name.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                self.0.as_str()
            }

            /// The number of the name: names are numbered from 0, those of all kinds together.
            #[must_use]
            pub const fn number(self) -> usize {
                self.0.number()
            }
        }

        impl ::std::fmt::Debug for $name {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                ::std::fmt::Debug::fmt(&self.0, f)
            }
        }

        impl ::std::fmt::Display for $name {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                ::std::fmt::Display::fmt(&self.0, f)
            }
        }
    )*};
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_text_is_the_same_symbol() {
        assert_eq!(Symbol::new("reports"), Symbol::new(&String::from("reports")));
        assert_ne!(Symbol::new("reports"), Symbol::new("crm"));
        assert_eq!(Symbol::new("reports").as_str(), "reports");
    }
}

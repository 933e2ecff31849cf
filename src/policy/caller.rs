//! Callers, identified by the evidence of the connection, never by the contents of a request.
//!
//! 1. A caller has one or more conditions: the listener, the source network, the peer's uid, the peer's gid. All conditions
//!    must hold; a condition with several values holds for any one of them.
//! 2. Callers are tried in the order of the configuration; the first match is the caller.
//! 3. Without a match, the request is refused (`unknown_caller`, 401).
//! 4. A peer on a unix socket has no source address, a peer on TCP no uid and gid: such a condition does not hold there.
//! 5. An IPv4 address is the same whether it arrives as IPv4 or as IPv4-mapped IPv6.
//!
//! Identification costs one hash lookup per prefix length in the configuration, independent of the number of callers,
//! because each table stores only the first caller of a key.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use metrica::scope::ScopeSet;
use rustc_hash::FxHashMap;

use super::caller_table::Table;
pub use super::condition::{Condition, ConditionKind, Conditions, Repeated, are_everyone};
pub use crate::policy::names::{CallerId, ListenerName, TokenAlias};
use crate::policy::rules::Rules;

/// A caller of the configuration.
#[derive(Debug, Clone)]
pub struct Caller {
    /// The name in logs and metrics.
    pub id: CallerId,
    /// The conditions on its connections.
    pub conditions: Conditions,
    /// The scopes that it has.
    pub scopes: ScopeSet,
    /// The tokens it may use, in the order of the configuration.
    pub tokens: Vec<TokenAlias>,
    /// The limits within its scopes.
    pub rules: Rules,
    /// Whether requests are refused if they would be sent in another form than received.
    pub strict: bool,
}

/// The evidence of a connection. Code that reads it names every field, so that the compiler reports the places that a new
/// field affects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Evidence {
    /// The listener that accepted the connection.
    pub listener: ListenerName,
    /// The peer of the connection.
    pub peer: Peer,
}

/// The peer of a connection, as the kernel reports it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// The address of a TCP peer.
    Address(IpAddr),
    /// The process that connected to a unix socket (`SO_PEERCRED`, read once at accept).
    Process {
        /// The effective user.
        uid: u32,
        /// The effective group.
        gid: u32,
    },
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.to_canonical().fmt(f),
            Self::Process { uid, gid } => write!(f, "uid {uid} gid {gid}"),
        }
    }
}

/// The callers of a configuration, indexed for identification.
#[derive(Debug, Default)]
pub struct Callers {
    callers: Arc<[Caller]>,
    of_listener: FxHashMap<ListenerName, Table>,
}

impl Callers {
    /// Indexes `callers`, in their order, for connections of `listeners`.
    #[must_use]
    pub fn new(callers: impl Into<Arc<[Caller]>>, listeners: &[ListenerName]) -> Self {
        let callers = callers.into();
        let of_listener = listeners.iter().map(|listener| (*listener, Table::new(*listener, &callers))).collect();
        Self { callers, of_listener }
    }

    /// Returns the first earlier caller that matches all connections of the one at `position`, if there is one.
    #[must_use]
    pub fn shadow_of(&self, position: usize) -> Option<&Caller> {
        let later = self.get(position)?;
        self.callers.iter().take(position).find(|earlier| earlier.conditions.cover(&later.conditions))
    }

    /// Returns the position of the first caller whose conditions hold (rules 2 and 3).
    #[must_use]
    pub fn identify(&self, evidence: Evidence) -> Option<usize> {
        let Evidence { listener, peer } = &evidence;
        let found = self.of_listener.get(listener)?.find(*peer);
        debug_assert!(
            found.and_then(|position| self.get(position)).is_none_or(|caller| caller.conditions.hold(evidence)),
            "the tables found a caller whose conditions do not match {evidence:?}"
        );
        found
    }

    /// Returns the caller at a position.
    #[must_use]
    pub fn get(&self, position: usize) -> Option<&Caller> {
        self.callers.get(position)
    }

    /// The listeners of the configuration, in no order.
    pub fn listeners(&self) -> impl Iterator<Item = ListenerName> {
        self.of_listener.keys().copied()
    }

    /// All callers, in the order of the configuration.
    #[must_use]
    pub fn all(&self) -> &[Caller] {
        &self.callers
    }
}

#[cfg(test)]
mod tests;

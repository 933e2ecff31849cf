//! Callers: who is calling? The evidence of the connection decides, never what a request says.
//!
//! 1. A caller states one or more conditions: the listener, the source network, the peer's uid, the peer's gid. Every
//!    condition that is stated must hold; of several values of one condition, any one.
//! 2. Callers are tried in the order of the configuration; the first that matches is the caller.
//! 3. When none matches, the request is refused (`unknown_caller`, 401).
//! 4. A peer on a unix socket has no source, a peer on TCP no uid and gid: such a condition does not hold there.
//! 5. An IPv4 address is the same whether it arrives as IPv4 or as IPv4-mapped IPv6.
//!
//! Finding the caller costs one hash look-up for every prefix length that the configuration uses, however many callers
//! there are: each table remembers only the first caller of a key.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use metrica::scope::ScopeSet;
use rustc_hash::FxHashMap;

use super::caller_table::Table;
pub use super::condition::{Condition, ConditionKind, Conditions, Repeated, are_everyone};
pub use crate::names::{CallerId, ListenerName, TokenAlias};
use crate::policy::rules::Rules;

/// A caller of the configuration.
#[derive(Debug, Clone)]
pub struct Caller {
    /// Its name in logs and metrics.
    pub id: CallerId,
    /// What must hold of a connection for it to be this caller's.
    pub conditions: Conditions,
    /// What it may do.
    pub scopes: ScopeSet,
    /// The tokens it may use, in the order of the configuration.
    pub tokens: Vec<TokenAlias>,
    /// What it may touch within its scopes.
    pub rules: Rules,
    /// Whether it is refused where what would be sent has another form than what it asks.
    pub strict: bool,
}

/// The evidence of a connection. Code that reads it names every field, so that the compiler shows what a new field
/// concerns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Evidence {
    /// The listener that accepted it.
    pub listener: ListenerName,
    /// The other end.
    pub peer: Peer,
}

/// The other end of a connection, as the kernel knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// A TCP peer.
    Address(IpAddr),
    /// The process that connected to a unix socket (`SO_PEERCRED`, read once at accept).
    Process {
        /// Its effective user.
        uid: u32,
        /// Its effective group.
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

/// The callers of a configuration, ready to be found.
#[derive(Debug, Default)]
pub struct Callers {
    callers: Arc<[Caller]>,
    of_listener: FxHashMap<ListenerName, Table>,
}

impl Callers {
    /// Prepares `callers`, in their order, for connections of `listeners`.
    #[must_use]
    pub fn new(callers: impl Into<Arc<[Caller]>>, listeners: &[ListenerName]) -> Self {
        let callers = callers.into();
        let of_listener = listeners.iter().map(|listener| (*listener, Table::new(*listener, &callers))).collect();
        Self { callers, of_listener }
    }

    /// The caller before the one at `position` that takes all its connections, if there is one.
    #[must_use]
    pub fn shadow_of(&self, position: usize) -> Option<&Caller> {
        let later = self.get(position)?;
        self.callers.iter().take(position).find(|earlier| earlier.conditions.cover(&later.conditions))
    }

    /// The position of the first caller whose conditions hold (rules 2 and 3).
    #[must_use]
    pub fn identify(&self, evidence: Evidence) -> Option<usize> {
        let Evidence { listener, peer } = &evidence;
        let found = self.of_listener.get(listener)?.find(*peer);
        debug_assert!(
            found.and_then(|position| self.get(position)).is_none_or(|caller| caller.conditions.hold(evidence)),
            "the tables found a caller whose conditions do not hold for {evidence:?}"
        );
        found
    }

    /// The caller at a position.
    #[must_use]
    pub fn get(&self, position: usize) -> Option<&Caller> {
        self.callers.get(position)
    }

    /// Every caller, in the order of the configuration.
    #[must_use]
    pub fn all(&self) -> &[Caller] {
        &self.callers
    }
}

#[cfg(test)]
mod tests;

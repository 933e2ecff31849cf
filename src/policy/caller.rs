//! Callers, identified by the evidence of the connection and by verified proofs, never by other contents of a request.
//!
//! 1. A caller has one or more conditions: the listener, the source network, the peer's uid, the peer's gid, a key, a name of
//!    the client's certificate, a service account. All conditions must hold; a condition with several values holds for any
//!    one of them.
//! 2. Callers are tried in the order of the configuration; the first match is the caller.
//! 3. Without a match, the request is refused (`unknown_caller`, 401).
//! 4. A peer on a unix socket has no source address, a peer on TCP no uid and gid: such a condition does not hold there.
//! 5. An IPv4 address is the same whether it arrives as IPv4 or as IPv4-mapped IPv6.
//!
//! 6. A key or service account that a request offers names its caller: a caller that does not state it is not considered. A
//!    key that no caller has is refused (`key_unknown`, 401).
//!
//! Identification costs one hash lookup per prefix length in the configuration, or per offered proof and name of a
//! certificate, independent of the number of callers and of values: a table stores only the first caller of an address, and
//! the callers that share a proof, whose other conditions are checked one by one.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use metrica::scope::ScopeSet;
use rustc_hash::FxHashMap;

use super::caller_table::{ProofTable, Table};
pub use super::condition::{Condition, ConditionKind, Conditions, Repeated, are_everyone};
pub use super::proof::{KeyHash, Proofs, ServiceAccount, SubjectName};
pub use crate::policy::names::{CallerId, ListenerName, TokenAlias};
use crate::policy::rules::Rules;

/// A caller of the configuration.
#[derive(Debug, Clone)]
pub struct Caller {
    /// The name in logs and metrics.
    pub id: CallerId,
    /// The conditions on its connections and proofs.
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
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evidence {
    /// The listener that accepted the connection.
    pub listener: ListenerName,
    /// The peer of the connection.
    pub peer: Peer,
    /// The names of the client's certificate, if it has sent one; the certificate has been verified.
    pub names: Option<Arc<[SubjectName]>>,
}

impl Evidence {
    /// The evidence of a connection without a client certificate.
    #[must_use]
    pub const fn new(listener: ListenerName, peer: Peer) -> Self {
        Self { listener, peer, names: None }
    }
}

/// The reason why a request has no caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoCaller {
    /// No caller matches.
    #[error("no caller matches")]
    Unknown,
    /// No caller has the offered key.
    #[error("no caller has the key with the SHA-256 {}...", .0.short())]
    UnknownKey(KeyHash),
    /// A key, certificate or service account names this caller, whose condition of this kind does not hold.
    #[error("a proof names caller '{caller}', but its condition {condition} does not hold")]
    Failed {
        /// The first caller that meets the most conditions, in the order of the kinds.
        caller: CallerId,
        /// The kind.
        condition: ConditionKind,
    },
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
    of_proof: ProofTable,
}

impl Callers {
    /// Indexes `callers`, in their order, for connections of `listeners`.
    #[must_use]
    pub fn new(callers: impl Into<Arc<[Caller]>>, listeners: &[ListenerName]) -> Self {
        let callers = callers.into();
        let of_listener = listeners.iter().map(|listener| (*listener, Table::new(*listener, &callers))).collect();
        let of_proof = ProofTable::new(&callers);
        Self { callers, of_listener, of_proof }
    }

    /// Returns the first earlier caller that matches all connections of the one at `position`, if there is one.
    #[must_use]
    pub fn shadow_of(&self, position: usize) -> Option<&Caller> {
        let later = self.get(position)?;
        self.callers.iter().take(position).find(|earlier| earlier.conditions.cover(&later.conditions))
    }

    /// Returns the position of the first caller whose conditions hold.
    ///
    /// # Errors
    /// The reason why there is none (rules 3 and 6).
    pub fn identify(&self, evidence: &Evidence, proofs: &Proofs) -> Result<usize, NoCaller> {
        let Evidence { listener, peer, names } = evidence;
        let of_listener = self.of_listener.get(listener).ok_or(NoCaller::Unknown)?;
        let found = match (proofs, names) {
            (Proofs { key: Some(key), service_account: _ }, _) => {
                let named = self.of_proof.of_key(key).ok_or(NoCaller::UnknownKey(*key))?;
                self.first_of(named.iter().copied(), ConditionKind::Key, evidence, proofs)
            }
            (Proofs { key: None, service_account: Some(account) }, _) => {
                let named = self.of_proof.of_service_account(account).iter().copied();
                self.first_of(named, ConditionKind::ServiceAccount, evidence, proofs)
            }
            (Proofs { key: None, service_account: None }, None) => of_listener.find(*peer).ok_or(NoCaller::Unknown),
            (Proofs { key: None, service_account: None }, Some(names)) => {
                let named = names.iter().flat_map(|name| self.of_proof.of_name(name)).copied();
                let by_name = self.first_of(named, ConditionKind::San, evidence, proofs);
                let by_peer = of_listener.find(*peer);
                by_name.ok().into_iter().chain(by_peer).min().map_or(by_name, Ok)
            }
        };
        debug_assert!(
            found
                .ok()
                .and_then(|position| self.get(position))
                .is_none_or(|caller| caller.conditions.hold(evidence, proofs)),
            "the tables found a caller whose conditions do not match {evidence:?} {proofs:?}"
        );
        found
    }

    /// Checks that a caller has this key.
    ///
    /// # Errors
    /// [`NoCaller::UnknownKey`].
    pub fn check_key(&self, key: &KeyHash) -> Result<(), NoCaller> {
        self.of_proof.of_key(key).map(drop).ok_or(NoCaller::UnknownKey(*key))
    }

    /// Returns the first of the callers at these positions whose conditions hold; those of the kind `known` do.
    fn first_of(
        &self,
        positions: impl Iterator<Item = usize>,
        known: ConditionKind,
        evidence: &Evidence,
        proofs: &Proofs,
    ) -> Result<usize, NoCaller> {
        let (mut first, mut failed) = (None::<usize>, None::<(ConditionKind, usize, CallerId)>);
        for position in positions {
            let Some(Caller { id, conditions, .. }) = self.get(position) else { continue };
            match conditions.first_failing(evidence, proofs, Some(known)) {
                None => first = Some(first.map_or(position, |first| first.min(position))),
                Some(kind) => {
                    let is_nearer = |(other, before, _): (ConditionKind, usize, CallerId)| {
                        kind > other || kind == other && position < before
                    };
                    if failed.is_none_or(is_nearer) {
                        failed = Some((kind, position, *id));
                    }
                }
            }
        }
        let nobody =
            || failed.map_or(NoCaller::Unknown, |(condition, _, caller)| NoCaller::Failed { caller, condition });
        first.ok_or_else(nobody)
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

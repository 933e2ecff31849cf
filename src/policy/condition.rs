//! Conditions on connections and on proofs, by which the configuration identifies callers.
//!
//! The kinds are a closed enum, and every match names every kind: a new kind does not compile until the matcher, the
//! tables, the configuration reader and the commands handle it. Only an empty list of conditions matches every connection.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv6Net};
use rustc_hash::FxHashSet;

use super::caller::{Evidence, Peer};
use super::proof::{KeyHash, Proofs, ServiceAccount, SubjectName};
use crate::policy::names::ListenerName;

/// A condition on a connection or on a proof. Any one of its values satisfies it; without values, nothing does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// The listener that accepted the connection.
    Listener(ListenerName),
    /// The networks that may contain the peer's address.
    Source(Box<[IpNet]>),
    /// The users that may run the peer process.
    Uid(Box<[u32]>),
    /// The groups that may run the peer process.
    Gid(Box<[u32]>),
    /// The keys that a request may offer.
    Key(Box<[KeyHash]>),
    /// The names that the verified certificate of the client may have.
    San(Box<[SubjectName]>),
    /// The service accounts that a request may prove.
    ServiceAccount(Box<[ServiceAccount]>),
}

macro_rules! kinds {
    ($($kind:ident = $key:literal;)*) => {
        /// The kinds of conditions, in display order.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum ConditionKind {
            $(#[doc = concat!("[`Condition::", stringify!($kind), "`].")] $kind,)*
        }

        impl ConditionKind {
            const COUNT: usize = [$(Self::$kind),*].len();

            /// Every kind.
            pub const ALL: [Self; Self::COUNT] = [$(Self::$kind),*];

            /// The key under `match`.
            #[must_use]
            pub const fn key(self) -> &'static str {
                match self { $(Self::$kind => $key,)* }
            }
        }
    };
}

kinds! {
    Listener = "listener";
    Source = "source";
    Uid = "uid";
    Gid = "gid";
    Key = "key_sha256";
    San = "san";
    ServiceAccount = "service_account";
}

impl fmt::Display for ConditionKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.key())
    }
}

impl Condition {
    /// The kind of the condition.
    #[must_use]
    pub const fn kind(&self) -> ConditionKind {
        match self {
            Self::Listener(_) => ConditionKind::Listener,
            Self::Source(_) => ConditionKind::Source,
            Self::Uid(_) => ConditionKind::Uid,
            Self::Gid(_) => ConditionKind::Gid,
            Self::Key(_) => ConditionKind::Key,
            Self::San(_) => ConditionKind::San,
            Self::ServiceAccount(_) => ConditionKind::ServiceAccount,
        }
    }

    /// Whether a request on a connection satisfies the condition (rules 4 and 5).
    fn holds(&self, evidence: &Evidence, proofs: &Proofs) -> bool {
        let Evidence { listener, peer, names } = evidence;
        let Proofs { key, service_account } = proofs;
        match self {
            Self::Listener(stated) => stated == listener,
            Self::Source(networks) => match peer {
                Peer::Address(address) => networks.iter().any(|network| contains(*network, *address)),
                Peer::Process { uid: _, gid: _ } => false,
            },
            Self::Uid(uids) => match peer {
                Peer::Address(_) => false,
                Peer::Process { uid, gid: _ } => uids.contains(uid),
            },
            Self::Gid(gids) => match peer {
                Peer::Address(_) => false,
                Peer::Process { uid: _, gid } => gids.contains(gid),
            },
            Self::Key(hashes) => key.is_some_and(|key| hashes.contains(&key)),
            Self::San(stated) => names.iter().flat_map(|names| names.iter()).any(|name| stated.contains(name)),
            Self::ServiceAccount(stated) => service_account.as_ref().is_some_and(|account| stated.contains(account)),
        }
    }

    /// Whether every connection that satisfies `other` satisfies this too. Different kinds never cover each other.
    fn covers(&self, other: &Self) -> bool {
        let inside = |own: &[IpNet], other: &[IpNet]| {
            let own = merged(own);
            other.iter().all(|network| {
                own.iter().any(|wider| as_ipv6(*network).is_some_and(|network| wider.contains(&network)))
            })
        };
        match (self, other) {
            (Self::Listener(own), Self::Listener(other)) => own == other,
            (Self::Source(own), Self::Source(other)) => inside(own, other),
            (Self::Uid(own), Self::Uid(other)) | (Self::Gid(own), Self::Gid(other)) => {
                other.iter().all(|id| own.contains(id))
            }
            (Self::Key(own), Self::Key(other)) => other.iter().all(|hash| own.contains(hash)),
            (Self::San(own), Self::San(other)) => other.iter().all(|name| own.contains(name)),
            (Self::ServiceAccount(own), Self::ServiceAccount(other)) => {
                other.iter().all(|account| own.contains(account))
            }
            (
                Self::Listener(_)
                | Self::Source(_)
                | Self::Uid(_)
                | Self::Gid(_)
                | Self::Key(_)
                | Self::San(_)
                | Self::ServiceAccount(_),
                _,
            ) => false,
        }
    }
}

/// Whether `network` contains `address`, in either address family (rule 5).
fn contains(network: IpNet, address: IpAddr) -> bool {
    match (network, address.to_canonical()) {
        (IpNet::V4(network), IpAddr::V4(address)) => network.contains(&address),
        (IpNet::V4(_), IpAddr::V6(_)) => false,
        (IpNet::V6(network), IpAddr::V4(address)) => network.contains(&address.to_ipv6_mapped()),
        (IpNet::V6(network), IpAddr::V6(address)) => network.contains(&address),
    }
}

/// Converts an IPv4 network to the network of its mapped addresses. `None`, for a prefix that is too long, contains nothing.
fn as_ipv6(network: IpNet) -> Option<Ipv6Net> {
    match network {
        IpNet::V4(network) => {
            let (address, prefix) = (network.addr().to_ipv6_mapped(), MAPPED + network.prefix_len());
            Ipv6Net::new(address, prefix).ok()
        }
        IpNet::V6(network) => Some(network),
    }
}

/// The prefix length of the network of mapped addresses (RFC 4291, section 2.5.5.2).
const MAPPED: u8 = 96;

/// The smallest list of networks with the same addresses.
fn merged(networks: &[IpNet]) -> Vec<Ipv6Net> {
    Ipv6Net::aggregate(&networks.iter().filter_map(|network| as_ipv6(*network)).collect())
}

/// Whether these networks together contain every IPv4 address, or every global IPv6 address (RFC 4291, section 2.4), and
/// therefore do not restrict the peer.
#[must_use]
pub fn are_everyone(networks: &[IpNet]) -> bool {
    let ipv4 = Ipv6Net::new(Ipv4Addr::UNSPECIFIED.to_ipv6_mapped(), MAPPED);
    let global = Ipv6Net::new(Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0), 3);
    let merged = merged(networks);
    [ipv4, global].into_iter().flatten().any(|all| merged.iter().any(|network| network.contains(&all)))
}

/// The conditions of a caller: at most one of each kind, in the order of the kinds. All of them must hold (rule 1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conditions(Vec<Condition>);

/// Two conditions have the same kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("states {0} twice")]
pub struct Repeated(pub ConditionKind);

impl Conditions {
    /// No conditions: every connection satisfies them.
    pub const ANYONE: Self = Self(Vec::new());

    /// Sorts the conditions, which may be in any order.
    ///
    /// # Errors
    /// [`Repeated`] if two have the same kind.
    pub fn new(list: impl IntoIterator<Item = Condition>) -> Result<Self, Repeated> {
        let mut list: Vec<_> = list.into_iter().collect();
        list.sort_by_key(Condition::kind);
        let kinds = list.iter().map(Condition::kind);
        match kinds.clone().zip(kinds.skip(1)).find(|(one, next)| one == next) {
            Some((kind, _)) => Err(Repeated(kind)),
            None => Ok(Self(list)),
        }
    }

    /// Iterates over the conditions.
    pub fn iter(&self) -> std::slice::Iter<'_, Condition> {
        self.0.iter()
    }

    /// Whether there are no conditions.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The listener of the conditions, if they name one.
    #[must_use]
    pub fn listener(&self) -> Option<ListenerName> {
        self.iter().find_map(|condition| match condition {
            Condition::Listener(stated) => Some(*stated),
            Condition::Source(_)
            | Condition::Uid(_)
            | Condition::Gid(_)
            | Condition::Key(_)
            | Condition::San(_)
            | Condition::ServiceAccount(_) => None,
        })
    }

    /// Returns the keys of the conditions, if they state some; the list can be empty.
    #[must_use]
    pub fn keys(&self) -> Option<&[KeyHash]> {
        self.iter().find_map(|condition| match condition {
            Condition::Key(hashes) => Some(&**hashes),
            Condition::Listener(_)
            | Condition::Source(_)
            | Condition::Uid(_)
            | Condition::Gid(_)
            | Condition::San(_)
            | Condition::ServiceAccount(_) => None,
        })
    }

    /// Adds keys to the condition on keys. Without that condition it does nothing.
    pub fn add_keys(&mut self, more: impl IntoIterator<Item = KeyHash>) {
        let Some(Condition::Key(hashes)) = self.0.iter_mut().find(|own| own.kind() == ConditionKind::Key) else {
            return;
        };
        let known: FxHashSet<_> = hashes.iter().copied().collect();
        let mut all = hashes.to_vec();
        all.extend(more.into_iter().filter(|hash| !known.contains(hash)));
        *hashes = all.into();
    }

    /// Whether all conditions but those on keys are equal.
    #[must_use]
    pub fn equal_but_for_keys(&self, other: &Self) -> bool {
        let is_other = |condition: &&Condition| condition.kind() != ConditionKind::Key;
        self.iter().filter(is_other).eq(other.iter().filter(is_other))
    }

    /// Whether there is a condition of this kind.
    #[must_use]
    pub fn state(&self, kind: ConditionKind) -> bool {
        self.iter().any(|condition| condition.kind() == kind)
    }

    /// Whether a request on a connection satisfies all conditions, and these state every proof that it offers (rule 6). The
    /// tables of [`Callers`](super::caller::Callers) find callers faster.
    #[must_use]
    pub fn hold(&self, evidence: &Evidence, proofs: &Proofs) -> bool {
        self.first_failing(evidence, proofs, None).is_none()
    }

    /// Returns the first kind, in their order, that keeps a request from satisfying these conditions: one that does not hold,
    /// or a proof that is offered and not stated. The condition of the kind `known` is known to hold.
    #[must_use]
    pub fn first_failing(
        &self,
        evidence: &Evidence,
        proofs: &Proofs,
        known: Option<ConditionKind>,
    ) -> Option<ConditionKind> {
        let fails = |condition: &&Condition| Some(condition.kind()) != known && !condition.holds(evidence, proofs);
        let failing = self.iter().find(fails).map(Condition::kind);
        failing.or_else(|| offered(proofs).into_iter().flatten().find(|kind| !self.state(*kind)))
    }

    /// Whether every request that satisfies `other` satisfies these too. After them in the configuration, `other` is never
    /// reached. A request that satisfies `other` can offer the proofs that `other` states, so these have to state them.
    #[must_use]
    pub fn cover(&self, other: &Self) -> bool {
        let state_proofs_of = |other: &Self| PROOFS.into_iter().all(|kind| self.state(kind) || !other.state(kind));
        self.iter().all(|own| other.iter().any(|other| own.covers(other))) && state_proofs_of(other)
    }
}

/// The kinds that a request proves by itself.
const PROOFS: [ConditionKind; 2] = [ConditionKind::Key, ConditionKind::ServiceAccount];

/// Returns the kinds of the proofs that a request offers.
fn offered(proofs: &Proofs) -> [Option<ConditionKind>; 2] {
    let Proofs { key, service_account } = proofs;
    let [of_key, of_account] = PROOFS;
    [key.as_ref().map(|_| of_key), service_account.as_ref().map(|_| of_account)]
}

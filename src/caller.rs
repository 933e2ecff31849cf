//! Callers: who is calling? Decided from what the connection itself proves, never from what a request says.
//!
//! 1. A caller states one or more proofs: the listener, the source network, the peer's uid, the peer's gid. Every proof
//!    that is stated must hold; of several values of one proof, any one.
//! 2. Callers are tried in the order of the configuration; the first that matches is the caller.
//! 3. When none matches, the request is refused (`unknown_caller`, 401).
//! 4. A peer on a unix socket has no source, a peer on TCP no uid and gid: such a proof does not hold there.
//! 5. An IPv4 address is the same whether it arrives as IPv4 or as IPv4-mapped IPv6.
//!
//! Finding the caller costs one hash look-up for every prefix length that the configuration uses, however many callers
//! there are: each table remembers only the first caller of a key.

use std::fmt;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use rustc_hash::FxHashMap;

use crate::rules::Rules;
use crate::scope::ScopeSet;
pub use crate::symbol::{CallerId, ListenerName, TokenAlias};

/// A caller of the configuration.
#[derive(Debug, Clone)]
pub struct Caller {
    /// Its name in logs and metrics.
    pub id: CallerId,
    /// What proves that it is this caller.
    pub proofs: Proofs,
    /// What it may do.
    pub scopes: ScopeSet,
    /// The tokens it may use, in the order of the configuration.
    pub tokens: Vec<TokenAlias>,
    /// What it may touch within its scopes.
    pub rules: Rules,
}

/// What must hold for a connection to be a caller's (rule 1). An empty list is a proof that is not stated.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Proofs {
    /// The listener that accepted the connection.
    pub listener: Option<ListenerName>,
    /// Networks that the peer's address may be in.
    pub sources: Vec<IpNet>,
    /// Users that the peer process may run as.
    pub uids: Vec<u32>,
    /// Groups that the peer process may run as.
    pub gids: Vec<u32>,
}

impl Proofs {
    /// Whether every connection that `other` fits, fits this too: behind it in the configuration, `other` is never
    /// reached.
    #[must_use]
    pub fn cover(&self, other: &Self) -> bool {
        let all_of = |own: &[u32], other: &[u32]| {
            own.is_empty() || (!other.is_empty() && other.iter().all(|id| own.contains(id)))
        };
        let inside = |network: &IpNet| self.sources.iter().any(|wider| wider.contains(network));
        let sources = self.sources.is_empty() || (!other.sources.is_empty() && other.sources.iter().all(inside));
        let listener = self.listener.is_none() || self.listener == other.listener;
        listener && sources && all_of(&self.uids, &other.uids) && all_of(&self.gids, &other.gids)
    }

    /// Whether more is stated than the listener.
    #[must_use]
    pub const fn state_more_than_the_listener(&self) -> bool {
        !(self.sources.is_empty() && self.uids.is_empty() && self.gids.is_empty())
    }
}

/// What a connection proves about its peer.
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

/// The callers that a listener can have. Values are positions in the configuration.
#[derive(Debug, Default)]
struct Table {
    anyone: Option<usize>,
    networks: Vec<(u8, FxHashMap<u128, usize>)>,
    users: FxHashMap<u32, usize>,
    groups: FxHashMap<u32, usize>,
    users_in_groups: FxHashMap<(u32, u32), usize>,
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
        self.callers.iter().take(position).find(|earlier| earlier.proofs.cover(&later.proofs))
    }

    /// The position of the first caller that `evidence` proves (rules 2 and 3).
    #[must_use]
    pub fn identify(&self, evidence: Evidence) -> Option<usize> {
        self.of_listener.get(&evidence.listener)?.find(evidence.peer)
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

impl Table {
    fn new(listener: ListenerName, callers: &[Caller]) -> Self {
        let mut table = Self::default();
        for (position, Caller { proofs, .. }) in callers.iter().enumerate() {
            if proofs.listener.is_some_and(|stated| stated != listener) {
                continue;
            }
            table.add(position, proofs);
        }
        table
    }

    fn add(&mut self, position: usize, proofs: &Proofs) {
        let Proofs { sources, uids, gids, .. } = proofs;
        match (sources.is_empty(), uids.is_empty(), gids.is_empty()) {
            (true, true, true) => self.anyone = self.anyone.or(Some(position)),
            (false, true, true) => sources.iter().for_each(|network| self.add_network(position, *network)),
            (true, false, true) => keep_first(&mut self.users, uids.iter().copied(), position),
            (true, true, false) => keep_first(&mut self.groups, gids.iter().copied(), position),
            (true, false, false) => {
                let pairs = uids.iter().flat_map(|uid| gids.iter().map(move |gid| (*uid, *gid)));
                keep_first(&mut self.users_in_groups, pairs, position);
            }
            // A source and a uid never hold together (rule 4).
            (false, false, _) | (false, _, false) => {}
        }
    }

    fn add_network(&mut self, position: usize, network: IpNet) {
        let length = of_128_bits(network);
        let index = self.networks.iter().position(|(known, _)| *known == length).unwrap_or_else(|| {
            self.networks.push((length, FxHashMap::default()));
            self.networks.len() - 1
        });
        if let Some((_, addresses)) = self.networks.get_mut(index) {
            keep_first(addresses, [masked(network.addr(), length)], position);
        }
    }

    fn find(&self, peer: Peer) -> Option<usize> {
        let proven = match peer {
            Peer::Address(address) => {
                let found = |(length, addresses): &(u8, FxHashMap<u128, usize>)| {
                    addresses.get(&masked(address, *length)).copied()
                };
                self.networks.iter().filter_map(found).min()
            }
            Peer::Process { uid, gid } => {
                let found = [self.users.get(&uid), self.groups.get(&gid), self.users_in_groups.get(&(uid, gid))];
                found.into_iter().flatten().copied().min()
            }
        };
        proven.into_iter().chain(self.anyone).min()
    }
}

fn keep_first<K: Eq + Hash>(table: &mut FxHashMap<K, usize>, keys: impl IntoIterator<Item = K>, position: usize) {
    for key in keys {
        table.entry(key).or_insert(position);
    }
}

/// The prefix length of a network in the 128 bits that both families share (rule 5).
fn of_128_bits(network: IpNet) -> u8 {
    match network {
        IpNet::V4(network) => network.prefix_len() + 96,
        IpNet::V6(network) => network.prefix_len(),
    }
}

/// What the first `length` of the 128 bits say. A number, as the hash of an [`IpAddr`] takes neighbours for one.
fn masked(address: IpAddr, length: u8) -> u128 {
    let bits = match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().to_bits(),
        IpAddr::V6(address) => address.to_bits(),
    };
    let mask = u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0);
    bits & mask
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(id: &str, proofs: Proofs) -> Caller {
        Caller { id: CallerId::new(id), proofs, scopes: ScopeSet::EMPTY, tokens: Vec::new(), rules: Rules::default() }
    }

    fn on(listener: &str) -> Proofs {
        Proofs { listener: Some(ListenerName::new(listener)), ..Proofs::default() }
    }

    fn from(sources: &[&str]) -> Proofs {
        Proofs { sources: sources.iter().map(|source| source.parse().unwrap()).collect(), ..Proofs::default() }
    }

    fn who(callers: &Callers, listener: &str, peer: Peer) -> &'static str {
        let evidence = Evidence { listener: ListenerName::new(listener), peer };
        callers.identify(evidence).and_then(|position| callers.get(position)).map_or("-", |caller| caller.id.as_str())
    }

    fn address(text: &str) -> Peer {
        Peer::Address(text.parse().unwrap())
    }

    fn callers(list: Vec<Caller>) -> Callers {
        Callers::new(list, &["app", "crm"].map(ListenerName::new))
    }

    #[test]
    fn rule_1_every_stated_proof_must_hold() {
        let callers = callers(vec![
            caller("both", Proofs { sources: from(&["10.0.0.0/8", "192.168.7.7/32"]).sources, ..on("app") }),
            caller("process", Proofs { uids: vec![7], gids: vec![8, 9], ..on("crm") }),
        ]);
        assert_eq!(who(&callers, "app", address("10.1.2.3")), "both");
        assert_eq!(who(&callers, "app", address("192.168.7.7")), "both");
        assert_eq!(who(&callers, "app", address("192.168.7.8")), "-");
        assert_eq!(who(&callers, "crm", address("10.1.2.3")), "-");
        assert_eq!(who(&callers, "crm", Peer::Process { uid: 7, gid: 9 }), "process");
        assert_eq!(who(&callers, "crm", Peer::Process { uid: 7, gid: 7 }), "-");
        assert_eq!(who(&callers, "crm", Peer::Process { uid: 8, gid: 8 }), "-");
    }

    #[test]
    fn rule_2_the_first_match_wins() {
        let callers = callers(vec![
            caller("host", from(&["10.0.0.1/32"])),
            caller("wide", from(&["10.0.0.0/8"])),
            caller("narrow", from(&["10.0.0.0/24"])),
            caller("rest", on("app")),
            caller("late", from(&["0.0.0.0/0"])),
        ]);
        assert_eq!(who(&callers, "app", address("10.0.0.1")), "host");
        assert_eq!(who(&callers, "app", address("10.0.0.2")), "wide");
        assert_eq!(who(&callers, "app", address("11.0.0.2")), "rest");
        assert_eq!(who(&callers, "crm", address("11.0.0.2")), "late");
    }

    #[test]
    fn rule_2_what_is_never_reached_is_known() {
        let both = Proofs { sources: from(&["10.1.0.0/16"]).sources, ..on("app") };
        for (earlier, later, expected) in [
            (on("app"), both.clone(), true),
            (from(&["10.0.0.0/8"]), both.clone(), true),
            (both.clone(), on("app"), false),
            (on("crm"), both.clone(), false),
            (from(&["10.1.0.0/24"]), both.clone(), false),
            (Proofs { uids: vec![1, 2], ..on("crm") }, Proofs { uids: vec![2], ..on("crm") }, true),
            (Proofs { uids: vec![1], ..on("crm") }, Proofs { gids: vec![1], ..on("crm") }, false),
        ] {
            assert_eq!(earlier.cover(&later), expected, "{earlier:?} {later:?}");
        }
    }

    #[test]
    fn rule_3_no_match_is_nobody() {
        let callers = callers(vec![caller("host", from(&["10.0.0.1/32"]))]);
        assert_eq!(who(&callers, "app", address("10.0.0.2")), "-");
        assert_eq!(who(&callers, "elsewhere", address("10.0.0.1")), "-");
    }

    #[test]
    fn rule_4_proofs_of_the_other_kind_of_socket_do_not_hold() {
        let callers = callers(vec![
            caller("user", Proofs { uids: vec![0], ..Proofs::default() }),
            caller("group", Proofs { gids: vec![5], ..Proofs::default() }),
            caller("network", from(&["0.0.0.0/0", "::/0"])),
            caller("never", Proofs { uids: vec![1], ..from(&["::/0"]) }),
        ]);
        assert_eq!(who(&callers, "app", address("1.2.3.4")), "network");
        assert_eq!(who(&callers, "app", Peer::Process { uid: 0, gid: 0 }), "user");
        assert_eq!(who(&callers, "app", Peer::Process { uid: 1, gid: 5 }), "group");
        assert_eq!(who(&callers, "app", Peer::Process { uid: 1, gid: 1 }), "-");
    }

    #[test]
    fn rule_5_mapped_addresses_are_ipv4() {
        let callers = callers(vec![caller("four", from(&["10.0.0.0/8"])), caller("six", from(&["2001:db8::/32"]))]);
        assert_eq!(who(&callers, "app", address("::ffff:10.9.9.9")), "four");
        assert_eq!(who(&callers, "app", address("2001:db8::7")), "six");
        assert_eq!(who(&callers, "app", address("2001:db9::7")), "-");
    }

    #[test]
    fn ten_thousand_callers_are_one_look_up() {
        let many = (0..10_000_u32)
            .map(|n| caller(&format!("c{n}"), from(&[&format!("10.{}.{}.{}/32", n >> 16, (n >> 8) & 255, n & 255)])));
        let callers = callers(many.collect());
        let table = callers.of_listener.get(&ListenerName::new("app")).unwrap();
        assert_eq!(table.networks.len(), 1, "one prefix length, one probe");
        assert_eq!(who(&callers, "app", address("10.0.39.15")), "c9999");
    }
}

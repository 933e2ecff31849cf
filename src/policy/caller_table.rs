//! The table of a listener, which maps the evidence of a connection to the first caller whose conditions hold.
//!
//! A caller is stored under keys made of all its conditions. A caller with a condition that no key contains is not stored,
//! and matches no connection. A caller that states a proof is stored in [`ProofTable`] alone.

use std::hash::Hash;
use std::net::IpAddr;

use ipnet::IpNet;
use rustc_hash::FxHashMap;

use super::caller::{Caller, Condition, Conditions, KeyHash, Peer, ServiceAccount, SubjectName};
use crate::policy::names::ListenerName;

/// The callers of a listener. Values are positions in the configuration.
#[derive(Debug, Default)]
pub(super) struct Table {
    anyone: Option<usize>,
    pub(super) networks: Vec<(u8, FxHashMap<u128, usize>)>,
    users: FxHashMap<u32, usize>,
    groups: FxHashMap<u32, usize>,
    users_in_groups: FxHashMap<(u32, u32), usize>,
}

/// The keys of a caller in a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Keys<'a> {
    Anyone,
    Networks(&'a [IpNet]),
    Users(&'a [u32]),
    Groups(&'a [u32]),
    UsersInGroups { uids: &'a [u32], gids: &'a [u32] },
}

impl<'a> Keys<'a> {
    /// Returns the keys in the table of `listener`, or `None` if none of its connections can satisfy all conditions.
    fn of(conditions: &'a Conditions, listener: ListenerName) -> Option<Self> {
        let narrow = |keys: Self, condition| keys.narrowed(condition, listener);
        let keys = conditions.iter().try_fold(Self::Anyone, narrow)?;
        let of_listener = usize::from(conditions.listener().is_some());
        keys.made_of(conditions.iter().len() - of_listener)
    }

    /// Adds a condition to the keys. The listener is not part of a key, because each listener has its own table.
    fn narrowed(self, condition: &'a Condition, listener: ListenerName) -> Option<Self> {
        match (condition, self) {
            (Condition::Listener(stated), keys) => (*stated == listener).then_some(keys),
            (Condition::Source(networks), Self::Anyone) => Some(Self::Networks(networks)),
            (Condition::Uid(uids), Self::Anyone) => Some(Self::Users(uids)),
            (Condition::Gid(gids), Self::Anyone) => Some(Self::Groups(gids)),
            (Condition::Uid(uids), Self::Groups(gids)) => Some(Self::UsersInGroups { uids, gids }),
            (Condition::Gid(gids), Self::Users(uids)) => Some(Self::UsersInGroups { uids, gids }),
            // A source and a process never hold together (rule 4).
            (Condition::Source(_), Self::Users(_) | Self::Groups(_) | Self::UsersInGroups { .. })
            | (Condition::Uid(_) | Condition::Gid(_), Self::Networks(_)) => None,
            // Their values are in the table of proofs.
            (Condition::Key(_) | Condition::San(_) | Condition::ServiceAccount(_), _) => None,
            // Each kind occurs at most once.
            (Condition::Source(_), Self::Networks(_))
            | (Condition::Uid(_), Self::Users(_) | Self::UsersInGroups { .. })
            | (Condition::Gid(_), Self::Groups(_) | Self::UsersInGroups { .. }) => None,
        }
    }

    /// Returns the keys if they contain this many conditions: a lost condition would admit strangers.
    fn made_of(self, conditions: usize) -> Option<Self> {
        let own = match self {
            Self::Anyone => 0,
            Self::Networks(_) | Self::Users(_) | Self::Groups(_) => 1,
            Self::UsersInGroups { uids: _, gids: _ } => 2,
        };
        (own == conditions).then_some(self)
    }
}

impl Table {
    pub(super) fn new(listener: ListenerName, callers: &[Caller]) -> Self {
        let mut table = Self::default();
        for (position, caller) in callers.iter().enumerate() {
            if let Some(keys) = Keys::of(&caller.conditions, listener) {
                table.add(position, keys);
            }
        }
        table
    }

    fn add(&mut self, position: usize, keys: Keys<'_>) {
        match keys {
            Keys::Anyone => self.anyone = self.anyone.or(Some(position)),
            Keys::Networks(networks) => networks.iter().for_each(|network| self.add_network(position, *network)),
            Keys::Users(uids) => keep_first(&mut self.users, uids.iter().copied(), position),
            Keys::Groups(gids) => keep_first(&mut self.groups, gids.iter().copied(), position),
            Keys::UsersInGroups { uids, gids } => {
                let pairs = uids.iter().flat_map(|uid| gids.iter().map(move |gid| (*uid, *gid)));
                keep_first(&mut self.users_in_groups, pairs, position);
            }
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

    /// Returns the position of the first matching caller.
    pub(super) fn find(&self, peer: Peer) -> Option<usize> {
        let known = match peer {
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
        known.into_iter().chain(self.anyone).min()
    }
}

/// The callers that state a proof, by each of its values. Values are positions in the configuration, in ascending order.
#[derive(Debug, Default)]
pub(super) struct ProofTable {
    keys: FxHashMap<KeyHash, Vec<usize>>,
    names: FxHashMap<SubjectName, Vec<usize>>,
    service_accounts: FxHashMap<ServiceAccount, Vec<usize>>,
}

impl ProofTable {
    pub(super) fn new(callers: &[Caller]) -> Self {
        let mut table = Self::default();
        for (position, caller) in callers.iter().enumerate() {
            for condition in caller.conditions.iter() {
                match condition {
                    Condition::Key(hashes) => keep_all(&mut table.keys, hashes, position),
                    Condition::San(names) => keep_all(&mut table.names, names, position),
                    Condition::ServiceAccount(accounts) => keep_all(&mut table.service_accounts, accounts, position),
                    Condition::Listener(_) | Condition::Source(_) | Condition::Uid(_) | Condition::Gid(_) => {}
                }
            }
        }
        table
    }

    /// Returns the callers with a key; `None` if nobody has it.
    pub(super) fn of_key(&self, hash: &KeyHash) -> Option<&[usize]> {
        self.keys.get(hash).map(Vec::as_slice)
    }

    /// Returns the callers that state a name of a certificate.
    pub(super) fn of_name(&self, name: &SubjectName) -> &[usize] {
        self.names.get(name).map_or(&[], Vec::as_slice)
    }

    /// Returns the callers that state a service account.
    pub(super) fn of_service_account(&self, account: &ServiceAccount) -> &[usize] {
        self.service_accounts.get(account).map_or(&[], Vec::as_slice)
    }
}

fn keep_all<K: Clone + Eq + Hash>(table: &mut FxHashMap<K, Vec<usize>>, keys: &[K], position: usize) {
    for key in keys {
        table.entry(key.clone()).or_default().push(position);
    }
}

fn keep_first<K: Eq + Hash>(table: &mut FxHashMap<K, usize>, keys: impl IntoIterator<Item = K>, position: usize) {
    for key in keys {
        table.entry(key).or_insert(position);
    }
}

/// The prefix length of a network in the 128 bits that both address families share (rule 5).
fn of_128_bits(network: IpNet) -> u8 {
    match network {
        IpNet::V4(network) => network.prefix_len() + 96,
        IpNet::V6(network) => network.prefix_len(),
    }
}

/// The first `length` bits of the address, as a number, because the hash of an [`IpAddr`] is the same for neighbours.
fn masked(address: IpAddr, length: u8) -> u128 {
    let bits = match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().to_bits(),
        IpAddr::V6(address) => address.to_bits(),
    };
    let mask = u128::MAX.unbounded_shl(128 - u32::from(length));
    bits & mask
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_that_is_in_no_key_matches_nobody() {
        let (users, both) = (Keys::Users(&[7]), Keys::UsersInGroups { uids: &[7], gids: &[8] });
        assert_eq!([0, 1].map(|conditions| Keys::Anyone.made_of(conditions)), [Some(Keys::Anyone), None]);
        assert_eq!([0, 1, 2].map(|conditions| users.made_of(conditions)), [None, Some(users), None]);
        assert_eq!([1, 2, 3].map(|conditions| both.made_of(conditions)), [None, Some(both), None]);
    }
}

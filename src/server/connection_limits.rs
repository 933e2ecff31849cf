//! Connection limits: the number of open connections, in total and per peer.
//!
//! 1. All workers share one count, which changes once per connection and never per request.
//! 2. A peer is an IPv4 address, an IPv6 network of 64 bits (a single host can use all of it), or a user on a unix
//!    socket.
//! 3. A place is released when its connection ends, for whatever reason; a peer without connections has no entry.

use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustc_hash::FxHashMap;

use crate::config::Limits;
use crate::files::descriptors::TURNED_AWAY;
use crate::metrics::process::ConnectionLimit;
use crate::policy::caller::Peer;

/// The counts that all workers share (rule 1).
#[derive(Debug, Default)]
pub struct Connections {
    open: Arc<AtomicUsize>,
    turned_away: Arc<AtomicUsize>,
    peers: Arc<Peers>,
}

#[derive(Debug, Default)]
struct Peers(Mutex<FxHashMap<CountedPeer, usize>>);

/// A peer as it is counted (rule 2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum CountedPeer {
    /// The bits of an IPv4-mapped address, or of an IPv6 network.
    Network(u128),
    User(u32),
}

impl CountedPeer {
    fn of(peer: Peer) -> Self {
        match peer {
            Peer::Address(address) => match address.to_canonical() {
                IpAddr::V4(address) => Self::Network(address.to_ipv6_mapped().to_bits()),
                IpAddr::V6(address) => Self::Network(address.to_bits() & (u128::MAX << 64)),
            },
            Peer::Process { uid, .. } => Self::User(uid),
        }
    }
}

impl Connections {
    /// Returns the number of open connections.
    #[must_use]
    pub fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// Reserves a place for a connection of `peer`.
    ///
    /// # Errors
    /// The limit that is reached.
    pub fn take(&self, peer: Peer, limits: &Limits) -> Result<ConnectionPlace, ConnectionLimit> {
        let one = CountedPlace::take(&self.open, limits.connections).ok_or(ConnectionLimit::All)?;
        let peer = self.peers.take(CountedPeer::of(peer), limits.connections_per_peer).ok_or(ConnectionLimit::Peer)?;
        Ok(ConnectionPlace { _one: one, _peer: peer })
    }

    /// Reserves a place for sending a refusal on an excess connection; without one, the connection is closed
    /// silently.
    #[must_use]
    pub fn take_rejection_place(&self, limits: &Limits) -> Option<CountedPlace> {
        CountedPlace::take(&self.turned_away, limits.connections.min(TURNED_AWAY))
    }
}

/// The place of one connection, released when dropped.
#[derive(Debug)]
pub struct ConnectionPlace {
    _one: CountedPlace,
    _peer: CountedForPeer,
}

/// One unit of a shared count, released when dropped.
#[derive(Debug)]
pub struct CountedPlace(Arc<AtomicUsize>);

impl CountedPlace {
    fn take(connection_limits: &Arc<AtomicUsize>, limit: usize) -> Option<Self> {
        let place = Self(connection_limits.clone());
        (connection_limits.fetch_add(1, Ordering::Relaxed) < limit).then_some(place)
    }
}

impl Drop for CountedPlace {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[derive(Debug)]
struct CountedForPeer {
    peers: Arc<Peers>,
    peer: CountedPeer,
}

impl Peers {
    fn lock(&self) -> MutexGuard<'_, FxHashMap<CountedPeer, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(self: &Arc<Self>, peer: CountedPeer, limit: usize) -> Option<CountedForPeer> {
        let mut peers = self.lock();
        let open = peers.get(&peer).map_or(0, |open| *open);
        if open >= limit {
            return None;
        }
        peers.insert(peer, open + 1);
        Some(CountedForPeer { peers: self.clone(), peer })
    }
}

impl Drop for CountedForPeer {
    fn drop(&mut self) {
        let mut peers = self.peers.lock();
        match peers.get_mut(&self.peer) {
            Some(open) if *open > 1 => *open -= 1,
            Some(_) | None => drop(peers.remove(&self.peer)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits =
        Limits { header_bytes: 0, target_bytes: 0, header_fields: 0, connections: 5, connections_per_peer: 2 };

    fn address(text: &str) -> Peer {
        Peer::Address(text.parse().unwrap())
    }

    #[test]
    fn rule_2_addresses_and_users_are_grouped_by_peer() {
        for (one, other, same) in [
            (address("10.0.0.1"), address("::ffff:10.0.0.1"), true),
            (address("10.0.0.1"), address("10.0.0.2"), false),
            (address("2001:db8::1"), address("2001:db8::ffff:1:2:3"), true),
            (address("2001:db8::1"), address("2001:db8:0:1::1"), false),
            (address("::1"), address("127.0.0.1"), false),
            (Peer::Process { uid: 7, gid: 1 }, Peer::Process { uid: 7, gid: 2 }, true),
            (Peer::Process { uid: 7, gid: 1 }, Peer::Process { uid: 8, gid: 1 }, false),
        ] {
            assert_eq!(CountedPeer::of(one) == CountedPeer::of(other), same, "{one:?} {other:?}");
        }
    }

    #[test]
    fn rule_3_places_are_given_back_and_forgotten() {
        let connections = Connections::default();
        let (one, other) = (address("10.0.0.1"), address("10.0.0.2"));
        let mut taken: Vec<_> = [one, one, other, other].map(|peer| connections.take(peer, &LIMITS).unwrap()).into();
        assert_eq!(connections.take(one, &LIMITS).unwrap_err(), ConnectionLimit::Peer);
        assert_eq!(connections.open(), 4, "who is refused keeps no place");
        taken.push(connections.take(address("10.0.0.3"), &LIMITS).unwrap());
        assert_eq!(connections.take(address("10.0.0.4"), &LIMITS).unwrap_err(), ConnectionLimit::All);
        drop(taken.remove(0));
        taken.push(connections.take(one, &LIMITS).unwrap());
        drop(taken);
        assert_eq!((connections.open(), connections.peers.lock().len()), (0, 0));
    }
}

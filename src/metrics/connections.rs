//! Connections: those of callers, by listener, and those to the upstream.
//!
//! 1. All pools of a worker count in the same [`PoolMeters`], so a reload that replaces the pool loses no count.
//! 2. A series exists from the start for each listener and each step.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::time::Duration;

use rustc_hash::FxHashMap;

use super::families::Families;
use super::overview::PoolFigures;
use super::page::{counter, gauge, histogram, sorted};
use super::{Histogram, Shard};
use crate::policy::names::ListenerName;

/// The connections of callers to one listener.
#[derive(Debug, Clone, Copy, Default)]
pub struct ListenerConnections {
    /// The number of connections that were accepted within the limits.
    pub accepted: u64,
    /// The number of open connections.
    pub open: i64,
}

/// A step of opening a connection to the upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ConnectStep {
    /// Resolving the name.
    Lookup,
    /// The TCP connection.
    Connect,
    /// The tunnel of a proxy.
    Tunnel,
    /// The TLS handshake.
    Tls,
}

impl ConnectStep {
    /// All steps, in their order.
    pub const ALL: [Self; 4] = [Self::Lookup, Self::Connect, Self::Tunnel, Self::Tls];

    /// Returns the label value.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Lookup => "lookup",
            Self::Connect => "connect",
            Self::Tunnel => "tunnel",
            Self::Tls => "tls",
        }
    }
}

/// The number of upstream addresses that a worker remembers.
const ADDRESSES: usize = 32;

/// The counts of a worker's connections to the upstream.
#[derive(Debug, Clone, Default)]
pub struct PoolCounts {
    /// The number of opened connections.
    opened: u64,
    /// The number of requests that got an existing connection.
    reused: u64,
    /// The number of connections that carry a request now.
    active: i64,
    /// The number of open connections without a request.
    idle: usize,
    /// The waits of requests while all places were in use.
    waits: Histogram,
    /// The duration of each step of opening a connection.
    steps: FxHashMap<ConnectStep, Histogram>,
    /// The number of connections opened to each address, for the first [`ADDRESSES`] addresses.
    addresses: FxHashMap<SocketAddr, u64>,
}

impl PoolCounts {
    /// Sets the connections that are idle, and the shared ones that carry a request.
    pub(super) fn set_open(&mut self, idle: usize, shared: usize) {
        self.idle = idle;
        self.active += strict_http::number::saturated::<i64>(shared);
    }

    /// Adds the counts of another worker.
    pub(super) fn add(&mut self, other: &Self) {
        let Self { opened, reused, active, idle, waits, steps, addresses } = other;
        self.opened += *opened;
        self.reused += *reused;
        self.active += *active;
        self.idle += *idle;
        self.waits.add(waits);
        for (step, more) in steps {
            self.steps.entry(*step).or_default().add(more);
        }
        for (address, more) in addresses {
            *self.addresses.entry(*address).or_default() += more;
        }
    }

    /// Creates the series that exist from the start.
    pub(super) fn prepare(&mut self) {
        for step in ConnectStep::ALL {
            self.steps.entry(step).or_default();
        }
    }
}

impl PoolCounts {
    /// Returns the figures of the status page.
    pub(super) fn figures(&self) -> PoolFigures {
        let Self { opened, reused, active, idle, waits, steps, addresses } = self;
        PoolFigures {
            active: *active,
            idle: *idle,
            opened: *opened,
            reused: *reused,
            waits: waits.clone(),
            steps: sorted(steps).into_iter().map(|(step, durations)| (*step, durations.clone())).collect(),
            addresses: sorted(addresses).into_iter().map(|(address, opened)| (*address, *opened)).collect(),
        }
    }
}

/// The counts of a worker's connections to the upstream, for its pools.
#[derive(Debug, Default)]
pub struct PoolMeters(RefCell<PoolCounts>);

impl PoolMeters {
    /// Records a request that got an existing connection.
    pub fn reused(&self) {
        self.0.borrow_mut().reused += 1;
    }

    /// Records that a connection for one request at a time begins to carry one.
    pub fn begins(&self) {
        self.0.borrow_mut().active += 1;
    }

    /// Records that such a connection carries no request any more.
    pub fn ends(&self) {
        self.0.borrow_mut().active -= 1;
    }

    /// Records the wait of a request for a place, whether it got one or not.
    pub fn waited(&self, wait: Duration) {
        self.0.borrow_mut().waits.observe(wait);
    }

    /// Records an opened connection: the address of its other end, and the duration of each step.
    pub fn opened(&self, address: SocketAddr, steps: impl IntoIterator<Item = (ConnectStep, Duration)>) {
        let mut counts = self.0.borrow_mut();
        counts.opened += 1;
        for (step, duration) in steps {
            counts.steps.entry(step).or_default().observe(duration);
        }
        if counts.addresses.len() < ADDRESSES || counts.addresses.contains_key(&address) {
            *counts.addresses.entry(address).or_default() += 1;
        }
    }

    /// Returns a copy of the counts.
    #[must_use]
    pub fn counts(&self) -> PoolCounts {
        self.0.borrow().clone()
    }
}

/// Adds the families of connections.
pub(super) fn fill(families: &mut Families, shard: &Shard) {
    for (listener, connections) in sorted(&shard.connections) {
        let labels = [("listener", listener.as_str())];
        families.connections_open.push(gauge(&labels, connections.open));
        families.connections_accepted.push(counter(&labels, connections.accepted));
    }
    let pool = &shard.pool;
    for (state, connections) in [("active", pool.active), ("idle", strict_http::number::saturated(pool.idle))] {
        families.upstream_connections.push(gauge(&[("state", state)], connections));
    }
    families.upstream_opened.push(counter(&[], pool.opened));
    families.upstream_reused.push(counter(&[], pool.reused));
    families.upstream_waits.push(histogram(&[], &pool.waits));
    for (step, durations) in sorted(&pool.steps) {
        families.upstream_connect.push(histogram(&[("step", step.as_str())], durations));
    }
}

impl Shard {
    /// Records an accepted connection of a caller.
    pub fn connection_opened(&mut self, listener: ListenerName) {
        let connections = self.connections.entry(listener).or_default();
        connections.accepted += 1;
        connections.open += 1;
    }

    /// Records the end of a connection of a caller.
    pub fn connection_closed(&mut self, listener: ListenerName) {
        self.connections.entry(listener).or_default().open -= 1;
    }

    /// Sets the counts of connections to the upstream: those of `meters`, `idle` connections, and `shared` connections that
    /// carry requests.
    pub fn set_pool(&mut self, meters: &PoolMeters, idle: usize, shared: usize) {
        self.pool = meters.counts();
        self.pool.set_open(idle, shared);
    }
}

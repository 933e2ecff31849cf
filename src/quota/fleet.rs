//! Gates that share the limits through a store (rule 12 of the module).
//!
//! 1. While the store answers, it grants: the broker enters the first waiting request of each caller, class and kind, and what
//!    the store grants is sent. Everything else, such as deadlines, bounds and the order of a caller's own requests, remains
//!    here.
//! 2. While it does not, the gate uses its part of what is left: the limits divided by the number of gates seen last, at least
//!    one of each, and of the day what was not spent; or it refuses. The whole limit is never used.
//! 3. The ids of leases are chosen here, so that a question whose answer is lost can be asked again, and a request in flight
//!    or abandoned can be told to a store that lost it.

use std::collections::VecDeque;

use super::Broker;
use super::call::Item;
use super::clock::{Micros, Now, SECOND};
use super::entry::EntryKey;
use super::fleet_orders::{Told, delay_of};
use super::fleet_restore::Report;
use super::limit::{LimitName, Limits};
use super::line::Line;
use super::refusal::{After, Reason, Refusal};
use super::setup::Owner;
use super::snapshot::FleetRow;

pub(super) const MILLISECOND: Micros = 1000;
/// Gates that are no longer seen count for this long.
const FORGOTTEN: Micros = 3600 * SECOND;

/// The behaviour of a gate without the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum OnLoss {
    /// It uses its part of each limit.
    #[default]
    Share,
    /// It refuses.
    Refuse,
}

/// How a gate belongs to a fleet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FleetSettings {
    /// The name of the gate: new with each process.
    pub me: String,
    /// The length of a lease.
    pub lease: Micros,
    /// Its behaviour without the store.
    pub on_loss: OnLoss,
    /// The number of gates that it assumes before it has seen any.
    pub replicas: u32,
}

#[derive(Debug)]
pub(super) struct Fleet {
    pub(super) settings: FleetSettings,
    /// The calls so far.
    pub(super) calls: u64,
    /// Whether the store decides now.
    pub(super) is_connected: bool,
    /// Whether it ever did.
    pub(super) was_connected: bool,
    /// The next call says what is in flight, and nothing else is.
    pub(super) introduces: bool,
    /// The store answers, and decides from this time on: until then, every gate tells it what is in flight.
    pub(super) learning_until: Option<Micros>,
    /// The gates that were seen last.
    pub(super) replicas: u32,
    /// When so many were seen last.
    pub(super) seen_at: Micros,
    /// The limits of the whole fleet.
    pub(super) whole: Limits,
    /// Requests to enter, and whether they were entered before.
    pub(super) enter: Vec<(EntryKey, bool)>,
    pub(super) done: Vec<Item>,
    /// The orders that the store has to know, in the order of their age ([`super::fleet_orders`]).
    pub(super) told: VecDeque<Told>,
    /// Requests that were abandoned, and the time until which their slots are in use.
    pub(super) abandoned: VecDeque<(String, Owner, Micros)>,
    /// The reports of the last 5 minutes that this gate sent ([`super::fleet_restore`]).
    pub(super) reports: VecDeque<Report>,
    /// Owners to look at, and when.
    pub(super) wakes: Vec<(Owner, Micros)>,
    /// Since when the store does not decide.
    pub(super) away_since: Option<Micros>,
    /// The delay of this gate at the end of a wait.
    pub(super) delay: Micros,
    /// The time without the store, up to then.
    pub(super) degraded: Micros,
    /// Requests in flight whose lease had ended in the store.
    pub(super) lost: u64,
}

impl Fleet {
    pub(super) fn has_orders(&self) -> bool {
        let Self { enter, done, told, introduces, .. } = self;
        *introduces || !(enter.is_empty() && done.is_empty() && told.is_empty())
    }

    /// Forgets what the first call after a loss tells in another way: it says what is in flight, and enters every head again.
    fn forget_orders(&mut self) {
        self.enter.clear();
        self.done.clear();
        self.wakes.clear();
    }

    pub(super) fn wake_at(&mut self, owner: Owner, at: Micros) {
        match self.wakes.iter_mut().find(|(one, _)| *one == owner) {
            // The earlier one comes first, and asks for the later one again.
            Some((_, wake)) => *wake = (*wake).min(at),
            None => self.wakes.push((owner, at)),
        }
    }

    /// So many gates are there. Fewer than before count only after an hour: some may have lost the store, and use their part.
    pub(super) fn saw(&mut self, replicas: u32, at: Micros) {
        if replicas >= self.replicas || at.saturating_sub(self.seen_at) >= FORGOTTEN {
            (self.replicas, self.seen_at) = (replicas, at);
        }
    }

    pub(super) fn id(&self, key: EntryKey, attempt: u8) -> String {
        format!("{}.{}.{attempt}", self.settings.me, key.text())
    }

    /// The key and the attempt in an id of this gate.
    pub(super) fn key(&self, id: &str) -> Option<(EntryKey, u8)> {
        let (key, attempt) = id.strip_prefix(&self.settings.me)?.strip_prefix('.')?.rsplit_once('.')?;
        Some((EntryKey::of_text(key)?, attempt.parse().ok()?))
    }
}

impl Broker {
    /// Makes the gate part of a fleet, which it has not reached yet; or alone again.
    pub fn join_fleet(&mut self, settings: Option<FleetSettings>, now: Now) {
        self.ledger.clock.advance(now);
        let whole = self.whole_limits();
        self.fleet = settings.map(|settings| {
            Box::new(Fleet {
                replicas: settings.replicas.max(1),
                seen_at: now.at,
                delay: delay_of(&settings.me),
                settings,
                calls: 0,
                is_connected: false,
                was_connected: false,
                introduces: true,
                learning_until: None,
                whole,
                enter: Vec::new(),
                done: Vec::new(),
                told: VecDeque::new(),
                abandoned: VecDeque::new(),
                reports: VecDeque::new(),
                wakes: Vec::new(),
                away_since: Some(now.at),
                degraded: 0,
                lost: 0,
            })
        });
        self.apply_limits();
    }

    /// The name of this gate, if it belongs to a fleet.
    #[must_use]
    pub fn gate(&self) -> Option<&str> {
        self.fleet.as_deref().map(|fleet| fleet.settings.me.as_str())
    }

    /// Whether the store decides now.
    pub(super) fn store_decides(&self) -> bool {
        self.fleet.as_ref().is_some_and(|fleet| fleet.is_connected)
    }

    /// Whether a request is refused because the store is away.
    pub(super) fn refuses_without_store(&self) -> bool {
        let refuses = |fleet: &Fleet| !fleet.is_connected && fleet.settings.on_loss == OnLoss::Refuse;
        self.fleet.as_deref().is_some_and(refuses)
    }

    /// Whether there is something to tell the store.
    #[must_use]
    pub fn has_orders(&self) -> bool {
        self.fleet.as_deref().is_some_and(|fleet| fleet.is_connected && fleet.has_orders())
    }

    fn whole_limits(&self) -> Limits {
        self.fleet.as_ref().map_or_else(|| self.ledger.limits.clone(), |fleet| fleet.whole.clone())
    }

    /// New limits of the configuration.
    pub(super) fn set_limits(&mut self, limits: Limits) {
        match &mut self.fleet {
            Some(fleet) => fleet.whole = limits,
            None => self.ledger.limits = limits,
        }
        self.apply_limits();
    }

    /// The whole limits, or this gate's part of them (rule 2).
    pub(super) fn apply_limits(&mut self) {
        let Some(fleet) = &self.fleet else { return };
        let replicas = if fleet.is_connected { 1 } else { fleet.replicas };
        self.ledger.limits = fleet.whole.clone().with_part_of(replicas);
        self.ledger.cap(replicas, &mut self.callers, &mut self.lines);
    }

    /// The store does not answer: the gate goes on alone (rule 2).
    pub fn store_is_away(&mut self, now: Now) {
        self.ledger.clock.advance(now);
        let Some(fleet) = &mut self.fleet else { return };
        fleet.learning_until = None;
        if !std::mem::replace(&mut fleet.is_connected, false) {
            return;
        }
        fleet.forget_orders();
        fleet.away_since = Some(self.ledger.clock.at());
        let refuses = fleet.settings.on_loss == OnLoss::Refuse;
        self.apply_limits();
        if refuses {
            let waiting: Vec<_> = self.lines.iter().flat_map(Line::waiting_entries).collect();
            waiting.into_iter().for_each(|index| self.refuse(index, AWAY));
        }
        self.look_at_all();
    }

    /// The store answered, on a connection that is new or not. It decides from now on; after a loss, from one lease later: until
    /// then, every gate tells it what is in flight.
    pub(super) fn follow_store(&mut self, learning: u64, is_new: bool) {
        let at = self.ledger.clock.at();
        let is_busy = self.entries.running().next().is_some();
        let Some(fleet) = &mut self.fleet else { return };
        let learned = at.saturating_add(learning.saturating_mul(MILLISECOND).min(fleet.settings.lease));
        if let Some(until) = fleet.learning_until {
            fleet.learning_until = Some(until.max(learned));
        } else if fleet.is_connected {
            if learning > 0 {
                (0..).zip(&self.lines).for_each(|(number, _)| fleet.wake_at(Owner(number), learned));
            }
        } else if (is_busy || fleet.was_connected) && (is_new || learning > 0) {
            fleet.learning_until = Some(at.saturating_add(fleet.settings.lease).max(learned));
        } else {
            self.store_decides_from_now();
        }
    }

    /// What is due for the fleet.
    pub(super) fn fleet_is_due(&mut self) {
        let until = self.fleet.as_deref().and_then(|fleet| fleet.learning_until);
        if until.is_some_and(|until| until <= self.ledger.clock.at()) {
            self.store_decides_from_now();
        }
    }

    pub(super) fn fleet_next(&self) -> Option<Micros> {
        self.fleet.as_deref().and_then(|fleet| fleet.learning_until)
    }

    fn store_decides_from_now(&mut self) {
        let Some(fleet) = &mut self.fleet else { return };
        fleet.learning_until = None;
        (fleet.was_connected, fleet.introduces) = (true, true);
        if let Some(since) = fleet.away_since.take() {
            fleet.degraded = fleet.degraded.saturating_add(self.ledger.clock.at().saturating_sub(since));
        }
        if std::mem::replace(&mut fleet.is_connected, true) {
            return;
        }
        fleet.forget_orders();
        self.forget_entered();
        self.apply_limits();
        self.look_at_all();
    }

    /// The store knows nothing of what it was asked for.
    pub(super) fn forget_entered(&mut self) {
        for index in self.lines.iter().flat_map(Line::waiting_entries) {
            if let Some(entry) = self.entries.get_mut(index) {
                entry.is_entered = false;
            }
        }
    }

    /// Enters the first waiting request of each caller, class and kind (rule 1).
    pub(super) fn enter_heads(&mut self, owner: Owner) {
        let Self { fleet: Some(fleet), lines, entries, .. } = self else { return };
        let Some(line) = lines.get(owner.index()) else { return };
        let mut heads = Vec::new();
        for flow in line.queues() {
            heads.clear();
            for index in &flow.waiting {
                let Some(entry) = entries.get_mut(*index) else { continue };
                let kind = (entry.class, entry.groups, entry.counters.clone());
                if heads.contains(&kind) {
                    continue;
                }
                heads.push(kind);
                if !std::mem::replace(&mut entry.is_entered, true) {
                    fleet.enter.extend(entries.key(*index).map(|key| (key, false)));
                }
            }
        }
    }

    /// The state of the fleet, for people.
    pub(super) fn fleet_row(&self) -> Option<FleetRow> {
        let fleet = self.fleet.as_deref()?;
        let since = fleet.away_since.map_or(0, |since| self.ledger.clock.at().saturating_sub(since));
        Some(FleetRow {
            is_store_up: fleet.is_connected,
            replicas: fleet.replicas,
            degraded_seconds: fleet.degraded.saturating_add(since) / SECOND,
            leases_lost: fleet.lost,
        })
    }
}

/// The refusal of a gate that refuses without the store.
pub(super) const AWAY: Refusal =
    Refusal { limit: LimitName::Parallel, reason: Reason::StoreUnavailable, after: After(SECOND) };

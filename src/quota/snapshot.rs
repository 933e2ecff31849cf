//! What the admin listener and the metrics show: names and numbers only (rule 11 of the module).

use serde::Serialize;

use super::Broker;
use super::clock::Clock;
use super::limit::{Key, Limit, LimitName, Mode};
use super::meter::Meter;

/// The state of the broker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct QuotaSnapshot {
    /// Each owner.
    pub owners: Vec<OwnerRow>,
    /// Each egress: its name and its limits.
    pub egresses: Vec<(&'static str, Vec<LimitRow>)>,
    /// The number of waiting requests.
    pub waiting: u32,
    /// The number of counters with counts.
    pub counters: usize,
    /// The number of counters that wait because Metrica refused a request.
    pub counters_learned: usize,
    /// The number of counters whose counts were forgotten.
    pub counters_forgotten: u64,
    /// Requests that were sent once more.
    pub resent: u64,
    /// Refusals by Metrica from which something was learned, by limit.
    pub learned: Vec<(&'static str, u64)>,
    /// Requests that an observed limit would have made wait, by limit.
    pub observed: Vec<(&'static str, u64)>,
    /// Requests that an observed budget would have refused.
    pub budgets_observed: u64,
    /// Whether the gate stops.
    pub is_draining: bool,
    /// The gates that share the limits, if there is a store for them.
    pub fleet: Option<FleetRow>,
}

/// The fleet, as one gate sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FleetRow {
    /// Whether the store decides now.
    pub is_store_up: bool,
    /// The gates that were seen last, this one included.
    pub replicas: u32,
    /// The seconds since the start in which the store did not decide.
    pub degraded_seconds: u64,
    /// Requests in flight whose lease had ended in the store.
    pub leases_lost: u64,
}

/// One owner.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct OwnerRow {
    /// Its name.
    pub owner: &'static str,
    /// Its limits.
    pub limits: Vec<LimitRow>,
    /// The number of waiting requests.
    pub waiting: u32,
    /// The mean time on a slot, in milliseconds.
    pub mean_milliseconds: u64,
    /// Its callers, as far as they sent requests.
    pub callers: Vec<CallerRow>,
}

/// One limit of an owner or of an egress.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LimitRow {
    /// Its name.
    pub limit: &'static str,
    /// Its effect.
    pub mode: &'static str,
    /// The number that the configuration allows.
    pub allowed: u32,
    /// The number that is allowed now.
    pub effective: u32,
    /// The number that is used.
    pub used: u32,
    /// The rest.
    pub remaining: u32,
    /// Whether the number that is allowed now was learned from a refusal.
    pub is_learned: bool,
    /// Whether the count began with its period. If not, more may have been used before the start.
    pub is_known: bool,
}

/// One caller of an owner.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CallerRow {
    /// Its name.
    pub caller: &'static str,
    /// Its waiting requests.
    pub waiting: usize,
    /// Its requests in flight.
    pub in_flight: u32,
    /// Its requests of today.
    pub spent_today: u32,
    /// Its reports of the last 5 minutes, if it has a budget of them.
    pub spent_5m: usize,
    /// Its requests since the start.
    pub total: u64,
    /// Its mean time on a slot, in milliseconds.
    pub mean_milliseconds: u64,
}

impl Mode {
    /// The name used in the configuration.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Enforce => "enforce",
            Self::Observe => "observe",
            Self::Off => "off",
        }
    }
}

impl LimitRow {
    fn of(limit: &Limit, meter: &mut Meter, clock: &Clock) -> Self {
        let used = meter.used(limit, clock);
        let (effective, is_learned) = meter.effective(limit, clock);
        let is_known = match meter {
            Meter::Calendar(count) => count.is_known,
            Meter::Slots(_) | Meter::Rate(_) | Meter::Window(_) => true,
        };
        Self {
            limit: limit.name.as_str(),
            mode: limit.mode.as_str(),
            allowed: limit.limit,
            effective,
            used,
            remaining: effective.saturating_sub(used),
            is_learned,
            is_known,
        }
    }

    fn all(limits: &[Limit], meters: &mut [Meter], clock: &Clock) -> Vec<Self> {
        limits.iter().zip(meters).map(|(limit, meter)| Self::of(limit, meter, clock)).collect()
    }
}

impl Broker {
    /// The state of now: of the time of the last call.
    #[must_use]
    pub fn snapshot(&mut self) -> QuotaSnapshot {
        let fleet = self.fleet_row();
        let Self { names, ledger, lines, callers, .. } = self;
        let mut owners = Vec::new();
        for ((name, line), meters) in names.owners.names.iter().zip(lines).zip(&mut ledger.owners) {
            let (clock, at) = (&ledger.clock, ledger.clock.at());
            let row = |flow: &mut super::line::Flow| {
                Some(CallerRow {
                    caller: names.callers.names.get(flow.caller.index())?.as_str(),
                    waiting: flow.waiting.len(),
                    in_flight: flow.in_flight,
                    spent_today: flow.spent_today(clock),
                    spent_5m: flow.recent(at),
                    total: flow.total,
                    mean_milliseconds: flow.mean / 1000,
                })
            };
            owners.push(OwnerRow {
                owner: name.as_str(),
                limits: LimitRow::all(&ledger.limits.owner, meters, clock),
                waiting: line.waiting,
                mean_milliseconds: line.mean / 1000,
                callers: line.flows().filter_map(row).collect(),
            });
        }
        let egresses = names.egresses.names.iter().zip(&mut ledger.egresses);
        let named =
            |counts: [u64; LimitName::ALL.len()]| LimitName::ALL.iter().map(|name| name.as_str()).zip(counts).collect();
        QuotaSnapshot {
            owners,
            egresses: egresses
                .map(|(name, meters)| (name.as_str(), LimitRow::all(&ledger.limits.egress, meters, &ledger.clock)))
                .collect(),
            waiting: self.waiting,
            counters: ledger.counters.len(),
            counters_learned: ledger.counters.learned(&ledger.limits.counter, &ledger.clock),
            counters_forgotten: ledger.counters.forgotten,
            resent: self.resent,
            learned: named(ledger.learned),
            observed: named(ledger.observed),
            budgets_observed: callers.observed,
            is_draining: self.is_draining,
            fleet,
        }
    }

    /// The limits that apply to a request of these kinds: for `explain` and `doctor`.
    pub fn limits(&self, groups: super::Groups) -> impl Iterator<Item = (&'static str, Key, Mode)> {
        let applies = self.ledger.limits.all().filter(move |limit| limit.applies.meets(groups));
        applies.map(|limit| (limit.name.as_str(), limit.key, limit.mode))
    }
}

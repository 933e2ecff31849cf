//! The counts of the quotas, as a pure model: the time is an argument, and nothing is read or sent.
//!
//! Times are durations since 1970-01-01. The rules are those of [`super`].

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::time::Duration;

use super::charge::Charge;
use super::usage::{AddressUse, CounterUse, LoginUse, QuotaUse};
use super::window::{Peak, Period, Window};
use super::{Limit, Quota, RefusedCount};
use strict_http::number;

const DAY: u64 = 24 * 60 * 60;
const HOUR: u64 = 60 * 60;
const FIVE_MINUTES: u64 = 5 * 60;

/// The lock after too many reports (rule 4).
const LOCK: Duration = Duration::from_secs(FIVE_MINUTES);

/// The limits and everything counted.
#[derive(Debug, Default)]
pub struct Ledger {
    pub quota: Quota,
    logins: HashMap<String, Login>,
    addresses: HashMap<IpAddr, Address>,
    counters: HashMap<u64, Counter>,
    refused: BTreeMap<Limit, BTreeMap<String, u64>>,
}

/// A slot that a request holds; it is given back with [`Ledger::give_back`].
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub struct Ticket {
    login: String,
}

/// The part of the limits that an outsider takes (rule 9).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Outsider {
    /// The slots it wants from now on, and how long; none frees those of the earlier one.
    pub slots: Option<(u32, Duration)>,
    /// The requests it spends of the day.
    pub day: u64,
    /// The reports it spends of the last 5 minutes.
    pub reports: u64,
    /// The requests it spends of the day of a counter.
    pub counters: Vec<(u64, u64)>,
}

#[derive(Debug, Default)]
struct Login {
    running: u64,
    most: u64,
    /// The ends of slots that are held although their client has left.
    abandoned: Vec<Duration>,
    wanted: u64,
    held: u64,
    until: Duration,
    reports: Window<FIVE_MINUTES>,
    locked_until: Duration,
    seen_reports: Peak<FIVE_MINUTES>,
    day: Period<DAY>,
    delegates: Period<HOUR>,
    accepted: u64,
    refused: BTreeMap<Limit, u64>,
}

#[derive(Debug, Default)]
struct Address {
    all: Window<1>,
    logs: Window<1>,
    seen: Peak<1>,
    seen_logs: Peak<1>,
}

#[derive(Debug, Default)]
struct Counter {
    day: Period<DAY>,
    grants: Period<HOUR>,
}

impl Login {
    /// Ends what is over at `now`, and lets the outsider take what is free (rule 9).
    fn settle(&mut self, parallel: Option<u32>, now: Duration) {
        self.abandoned.retain(|end| *end > now);
        if self.until <= now {
            (self.wanted, self.held) = (0, 0);
        }
        let free = parallel.map_or(u64::MAX, |parallel| u64::from(parallel).saturating_sub(self.in_use()));
        self.held += free.min(self.wanted.saturating_sub(self.held));
    }

    fn in_use(&self) -> u64 {
        self.running + number::saturated::<u64>(self.abandoned.len()) + self.held
    }
}

impl Ledger {
    pub fn new(quota: Quota) -> Self {
        Self { quota, ..Self::default() }
    }

    /// Charges a request to all limits or to none (rule 1). An accepted request of a login holds a slot.
    pub fn take(&mut self, charge: &Charge, now: Duration) -> Result<Option<Ticket>, Limit> {
        self.see(charge, now);
        let exceeded = Limit::ALL.into_iter().find(|limit| self.is_exceeded(*limit, charge, now));
        if let Some(limit) = exceeded {
            self.refuse(limit, charge, now);
            return Err(limit);
        }
        for limit in Limit::ALL {
            self.spend(limit, charge, now);
        }
        let Some(name) = charge.login.clone() else { return Ok(None) };
        let login = self.logins.entry(name.clone()).or_default();
        login.running += 1;
        login.most = login.most.max(login.running);
        login.accepted += 1;
        Ok(Some(Ticket { login: name }))
    }

    /// Frees the slot of a request. If its client has left, the slot stays taken for the configured time (rule 2).
    pub fn give_back(&mut self, ticket: Ticket, is_complete: bool, now: Duration) {
        let login = self.logins.entry(ticket.login).or_default();
        login.running = login.running.saturating_sub(1);
        if !is_complete && !self.quota.abandoned.is_zero() {
            login.abandoned.push(now.saturating_add(self.quota.abandoned));
        }
        login.settle(self.quota.parallel, now);
    }

    /// Lets an outsider spend from the limits of a login (rule 9).
    pub fn outsider(&mut self, name: &str, outsider: &Outsider, now: Duration) {
        let login = self.logins.entry(name.to_owned()).or_default();
        if let Some((slots, lasting)) = outsider.slots {
            (login.wanted, login.until) = (u64::from(slots), now.saturating_add(lasting));
            login.held = login.held.min(login.wanted);
        }
        login.day.add(now, outsider.day);
        login.reports.add(now, outsider.reports);
        if self.quota.reports_5m.is_some_and(|limit| login.reports.count(now) > u64::from(limit)) {
            login.locked_until = now + LOCK;
        }
        login.settle(self.quota.parallel, now);
        for (counter, requests) in &outsider.counters {
            self.counters.entry(*counter).or_default().day.add(now, *requests);
        }
    }

    /// Forgets everything but the requests that are running, and sets the limits.
    pub fn reset(&mut self, quota: Quota) {
        let running = self.logins.drain().filter(|(_, login)| login.running > 0);
        let kept = |login: Login| Login { running: login.running, most: login.running, ..Login::default() };
        let logins = running.map(|(name, login)| (name, kept(login))).collect();
        *self = Self { logins, ..Self::new(quota) };
    }

    /// Resets the highest counts and the refusals; what is spent stays spent.
    pub fn clear(&mut self) {
        for login in self.logins.values_mut() {
            (login.most, login.accepted) = (login.running, 0);
            login.seen_reports = Peak::default();
            login.refused.clear();
        }
        for address in self.addresses.values_mut() {
            (address.seen, address.seen_logs) = (Peak::default(), Peak::default());
        }
        self.refused.clear();
    }

    /// The number of running requests.
    pub fn in_flight(&self) -> u64 {
        self.logins.values().map(|login| login.running).sum()
    }

    /// A copy of all counts, but for the clock.
    pub fn usage(&mut self, now: Duration) -> QuotaUse {
        let parallel = self.quota.parallel;
        let login = |login: &mut Login| {
            login.settle(parallel, now);
            LoginUse {
                in_parallel: login.running,
                most_in_parallel: login.most,
                abandoned: number::saturated::<u64>(login.abandoned.len()),
                outsider_wants: login.wanted,
                outsider_holds: login.held,
                day: login.day.count(now),
                reports_5m: login.reports.count(now),
                most_reports_5m: login.seen_reports.most,
                reports_locked_ms: number::saturated::<u64>(login.locked_until.saturating_sub(now).as_millis()),
                delegates: login.delegates.count(now),
                accepted: login.accepted,
                refused: login.refused.clone(),
            }
        };
        let address = |address: &mut Address| AddressUse {
            last_second: address.seen.count(now),
            most_in_a_second: address.seen.most,
            most_logs_in_a_second: address.seen_logs.most,
        };
        let counter =
            |counter: &mut Counter| CounterUse { day: counter.day.count(now), grants: counter.grants.count(now) };
        QuotaUse {
            clock: String::new(),
            logins: self.logins.iter_mut().map(|(name, entry)| (name.clone(), login(entry))).collect(),
            addresses: self.addresses.iter_mut().map(|(key, entry)| (*key, address(entry))).collect(),
            counters: self.counters.iter_mut().map(|(key, entry)| (*key, counter(entry))).collect(),
            refused: self.refused.clone(),
        }
    }

    /// Counts a request that has arrived, accepted or not, and brings its login up to `now`.
    fn see(&mut self, charge: &Charge, now: Duration) {
        let address = self.addresses.entry(charge.address).or_default();
        address.seen.add(now);
        if charge.is_logs {
            address.seen_logs.add(now);
        }
        if let Some(name) = &charge.login {
            let login = self.logins.entry(name.clone()).or_default();
            if charge.is_report {
                login.seen_reports.add(now);
            }
            login.settle(self.quota.parallel, now);
        }
    }

    fn is_exceeded(&mut self, limit: Limit, charge: &Charge, now: Duration) -> bool {
        let Some(allowed) = self.quota.limit(limit).filter(|_| charge.applies(limit)) else { return false };
        let login = charge.login.as_deref().and_then(|name| self.logins.get_mut(name));
        let address = self.addresses.get_mut(&charge.address);
        let used = match limit {
            Limit::ByIp => address.map(|address| address.all.count(now)),
            Limit::LogsByIp => address.map(|address| address.logs.count(now)),
            Limit::Parallel => login.map(|login| login.in_use()),
            Limit::Reports5m => login.map(|login| match login.locked_until > now {
                true => u64::MAX,
                false => login.reports.count(now),
            }),
            Limit::Day => login.map(|login| login.day.count(now)),
            Limit::CounterDay => self.most(charge, |counter| counter.day.count(now)),
            Limit::Grants => self.most(charge, |counter| counter.grants.count(now)),
            Limit::Delegates => login.map(|login| login.delegates.count(now)),
        };
        used.map_or(0, |used| used) >= u64::from(allowed)
    }

    /// The highest count of the counters of a request.
    fn most(&mut self, charge: &Charge, count: impl Fn(&mut Counter) -> u64) -> Option<u64> {
        charge.counters.iter().filter_map(|counter| self.counters.get_mut(counter).map(&count)).max()
    }

    fn each(&mut self, charge: &Charge, add: impl Fn(&mut Counter)) {
        charge.counters.iter().for_each(|counter| add(self.counters.entry(*counter).or_default()));
    }

    /// Charges a request to one limit, if it applies.
    fn spend(&mut self, limit: Limit, charge: &Charge, now: Duration) {
        if !charge.applies(limit) {
            return;
        }
        let address = self.addresses.entry(charge.address).or_default();
        let login = charge.login.as_deref().and_then(|name| self.logins.get_mut(name));
        match (limit, login) {
            (Limit::ByIp, _) => address.all.add(now, 1),
            (Limit::LogsByIp, _) => address.logs.add(now, 1),
            (Limit::Reports5m, Some(login)) => login.reports.add(now, 1),
            (Limit::Day, Some(login)) => login.day.add(now, 1),
            (Limit::Delegates, Some(login)) => login.delegates.add(now, 1),
            (Limit::CounterDay, _) => self.each(charge, |counter| counter.day.add(now, 1)),
            (Limit::Grants, _) => self.each(charge, |counter| counter.grants.add(now, 1)),
            // The slot of an accepted request is counted by its ticket.
            (Limit::Parallel, _) | (Limit::Reports5m | Limit::Day | Limit::Delegates, None) => {}
        }
    }

    /// Counts a refusal, and charges it to the selected limits (rule 8).
    fn refuse(&mut self, limit: Limit, charge: &Charge, now: Duration) {
        let error_type = self.quota.refusal(limit).error_type.into_owned();
        *self.refused.entry(limit).or_default().entry(error_type).or_default() += 1;
        let counted: &[Limit] = match self.quota.refused {
            RefusedCount::Nowhere => &[],
            RefusedCount::Day => &[Limit::Day, Limit::CounterDay],
            RefusedCount::Everywhere => &Limit::ALL,
        };
        for counted in counted {
            self.spend(*counted, charge, now);
        }
        let Some(login) = charge.login.as_deref().and_then(|name| self.logins.get_mut(name)) else { return };
        *login.refused.entry(limit).or_default() += 1;
        let is_new = login.locked_until <= now || self.quota.refused == RefusedCount::Everywhere;
        if limit == Limit::Reports5m && is_new {
            login.locked_until = now + LOCK;
        }
    }
}

#[cfg(test)]
mod tests;

//! What a gate asks the store of its fleet.

use super::Broker;
use super::budget::Callers;
use super::call::{Abandoned, Call, CallLimit, Held, Item};
use super::clock::{Micros, Now, SECOND};
use super::entry::{Entry, State};
use super::fleet::MILLISECOND;
use super::fleet_orders::Order;
use super::limit::Mode;
use super::line::{Line, step};

/// A request that the store has not granted is entered again after this time: a lost message costs no more.
const AGAIN: Micros = SECOND;

impl Broker {
    /// The next call of the store, if the gate belongs to a fleet.
    pub fn call(&mut self, now: Now) -> Option<Call> {
        self.ledger.clock.advance(now);
        let at = self.ledger.clock.at();
        let Self { names, ledger, lines, callers, entries, fleet: Some(fleet), .. } = self else { return None };
        fleet.calls = fleet.calls.saturating_add(1);
        let introduces = std::mem::replace(&mut fleet.introduces, false) || !fleet.is_connected;
        // Also while the others are waited for: the store grants nothing before it has the past of every gate.
        let (restore, counters) = if introduces {
            let spent = fleet.spent(names, ledger, lines);
            (spent, ledger.counters.known_spent(&ledger.limits.counter, &ledger.clock))
        } else {
            Default::default()
        };
        let names_of = (&*names, &lines[..], &*callers);
        let mut call = Call {
            me: fleet.settings.me.clone(),
            number: fleet.calls,
            lease: fleet.settings.lease / MILLISECOND,
            gates: if fleet.was_connected { fleet.replicas } else { 0 },
            day: ledger.clock.day_index(),
            hour: ledger.clock.hour_index(),
            day_ends: ledger.clock.end(false).saturating_sub(at) / MILLISECOND,
            hour_ends: ledger.clock.end(true).saturating_sub(at) / MILLISECOND,
            budgets: of_mode(callers.mode),
            shares: callers.shares,
            restore,
            counters,
            // What it asked for before is forgotten.
            hello: introduces.then(|| names.owners.names.iter().map(|name| name.as_str()).collect()),
            ..Call::default()
        };
        for limit in fleet.whole.all() {
            let known = CallLimit { n: limit.limit, documented: limit.documented, mode: of_mode(limit.mode) };
            call.limits.insert(limit.name.as_str(), known);
        }
        for (index, entry) in entries.running() {
            let Some(id) = entries.key(index).map(|key| fleet.id(key, entry.attempts)) else { continue };
            let Some(owner) = names.owners.names.get(entry.owner.index()).map(|name| name.as_str()) else { continue };
            match call.hold.iter_mut().find(|held| held.o == owner) {
                Some(held) => held.ids.push(id),
                None => call.hold.push(Held { o: owner, ids: vec![id] }),
            }
        }
        fleet.forget_old(at);
        for told in &mut fleet.told {
            told.is_sent = true;
            let mut item = told.item.clone();
            item.full = item.full.map(|full| full.saturating_sub(at.saturating_sub(told.since) / MILLISECOND));
            match told.what {
                Order::Leave => call.leave.push(item),
                Order::Learn => call.learn.push(item),
            }
        }
        for (id, owner, end) in fleet.abandoned.iter().filter(|_| introduces) {
            let Some(owner) = names.owners.names.get(owner.index()) else { continue };
            let ms = end.saturating_sub(at) / MILLISECOND;
            call.abandoned.push(Abandoned { o: owner.as_str(), id: id.clone(), ms });
        }
        if !fleet.is_connected {
            return Some(call);
        }
        call.done.append(&mut fleet.done);
        for (key, _) in std::mem::take(&mut fleet.enter) {
            let Some(entry) = entries.find(key).filter(|entry| entry.state == State::Waiting) else { continue };
            let id = fleet.id(key, entry.attempts.saturating_add(1));
            let Some(mut item) = item(names_of, entry, id, at) else { continue };
            if let Some(settings) = callers.settings.get(entry.caller.index()).filter(|_| callers.mode == Mode::Enforce)
            {
                (item.d, item.f, item.h) = (settings.per_day, settings.per_5m, settings.share);
            }
            call.ask.push(item);
        }
        for (owner, _) in fleet.wakes.extract_if(.., |(_, wake)| *wake <= at) {
            call.look.extend(names.owners.names.get(owner.index()).map(|name| name.as_str()));
        }
        Some(call)
    }

    /// The last call: everything is given back.
    pub fn last_call(&mut self, now: Now) -> Option<Call> {
        let mut call = self.call(now).filter(|_| self.store_decides())?;
        (call.stops, call.hold) = (true, Vec::new());
        Some(call)
    }

    /// The time of the next [call](Self::call), unless an order comes before.
    #[must_use]
    pub fn next_call(&self) -> Option<Micros> {
        let fleet = self.fleet.as_deref().filter(|fleet| fleet.is_connected)?;
        fleet.wakes.iter().map(|(_, wake)| *wake).min()
    }

    /// Whether requests wait that the store was asked for.
    #[must_use]
    pub fn is_waiting_for_store(&self) -> bool {
        self.store_decides() && self.waiting > 0
    }

    /// Enters every head again that the store has not granted for a second: the message may be lost.
    pub fn ask_again(&mut self, now: Now) {
        self.ledger.clock.advance(now);
        let at = self.ledger.clock.at();
        let Self { fleet: Some(fleet), lines, entries, .. } = self else { return };
        for index in lines.iter().flat_map(Line::waiting_entries) {
            let Some(key) = entries.key(index) else { continue };
            let Some(entry) = entries.get(index).filter(|entry| entry.is_entered) else { continue };
            if at.saturating_sub(entry.since) >= AGAIN && !fleet.enter.iter().any(|(entered, _)| *entered == key) {
                fleet.enter.push((key, true));
            }
        }
    }
}

const fn of_mode(mode: Mode) -> u8 {
    match mode {
        Mode::Off => 0,
        Mode::Observe => 1,
        Mode::Enforce => 2,
    }
}

type Context<'a> = (&'a super::setup::Names, &'a [Line], &'a Callers);

/// A request as the script sees it. `None` for a name that is not of this configuration, which does not occur.
pub(super) fn item((names, lines, callers): Context<'_>, entry: &Entry, id: String, at: Micros) -> Option<Item> {
    let line = lines.get(entry.owner.index())?;
    let mean = line.known(entry.caller).map_or(line.mean, |flow| flow.mean);
    Some(Item {
        id,
        o: names.owners.names.get(entry.owner.index())?.as_str(),
        e: names.egresses.names.get(entry.egress.index())?.as_str(),
        c: names.callers.names.get(entry.caller.index())?.as_str(),
        k: entry.class.rank(),
        g: entry.groups.bits(),
        n: entry.counters.ids().iter().map(u64::to_string).collect(),
        s: step(mean, callers.weight(entry.caller)),
        w: at.saturating_sub(entry.since) / MILLISECOND,
        ..Item::default()
    })
}

//! What a gate tells the store of its fleet.
//!
//! 1. What is given back or was learned is told until the store has answered a call that had it, also after a loss: for
//!    [`TOLD_FOR`], and [`MOST_TOLD`] orders at most. The script recognizes what it was told before.
//! 2. An abandoned request keeps its slot for a moment: its gate tells a store that it reaches again.
//! 3. A wait for a point in time ends at each gate a little later than at the others, so that the gates do not ask all at once
//!    at 00:00 GMT.

use super::Broker;
use super::call::Item;
use super::clock::{Micros, SECOND};
use super::entry::{Entry, EntryKey};
use super::fleet::{Fleet, MILLISECOND};
use super::fleet_call::item;
use super::limit::LimitName;

/// An order that the store has not answered is told again for this long.
pub(super) const TOLD_FOR: Micros = 60 * SECOND;
/// The maximum number of orders that are told again, and of abandoned requests that are.
pub(super) const MOST_TOLD: usize = 512;
/// The end of a wait differs between gates by less than this, and by no more than one in this many parts of the wait.
const SPREAD: Micros = SECOND / 2;
const PARTS: Micros = 8;

/// An order that is told until the store has answered.
#[derive(Debug)]
pub(super) struct Told {
    pub(super) since: Micros,
    /// Whether a call that is not answered yet has it; one that is added meanwhile waits for the next call.
    pub(super) is_sent: bool,
    pub(super) what: Order,
    pub(super) item: Item,
}

/// The kinds of such orders.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// A request no longer waits, or was not sent.
    Leave,
    /// Metrica refused a request.
    Learn,
}

impl Fleet {
    /// Adds an order, within the bounds (rule 1).
    pub(super) fn tell(&mut self, what: Order, item: Item, at: Micros) {
        self.told.push_back(Told { since: at, is_sent: false, what, item });
        self.forget_old(at);
    }

    /// Forgets orders and abandoned requests that are too old or too many.
    pub(super) fn forget_old(&mut self, at: Micros) {
        let Self { told, abandoned, is_connected, .. } = self;
        // A store that answers is told all.
        let most = if *is_connected { usize::MAX } else { MOST_TOLD };
        while told.len() > most || told.front().is_some_and(|first| at.saturating_sub(first.since) > TOLD_FOR) {
            told.pop_front();
        }
        // They end in the order in which they were abandoned.
        while abandoned.len() > MOST_TOLD || abandoned.front().is_some_and(|(_, _, end)| *end <= at) {
            abandoned.pop_front();
        }
    }

    /// Delays a wait by this gate's part of the spread (rule 3).
    pub(super) fn spread(&self, after: Micros) -> Micros {
        after.saturating_add(self.delay.min(after / PARTS))
    }
}

impl Broker {
    /// A waiting request is no longer entered.
    pub(super) fn withdraw(&mut self, entry: &Entry, key: EntryKey) {
        let Some(fleet) = &mut self.fleet else { return };
        let position = fleet.enter.iter().position(|(entered, _)| *entered == key);
        let is_known = position.is_none_or(|position| fleet.enter.swap_remove(position).1);
        if is_known && entry.is_entered && fleet.is_connected {
            let id = fleet.id(key, entry.attempts.saturating_add(1));
            self.tell_left(entry, id);
        }
    }

    /// A request was withdrawn or not sent. The store alone knows whether it has counted it, and in which hour: it takes off what
    /// it has, and nothing for a request that this gate granted by itself.
    fn tell_left(&mut self, entry: &Entry, id: String) {
        let Self { fleet: Some(fleet), ledger, names, lines, callers, .. } = self else { return };
        let Some(item) = item((&*names, &lines[..], &*callers), entry, id, ledger.clock.at()) else { return };
        fleet.tell(Order::Leave, item, ledger.clock.at());
    }

    /// A request in flight has ended.
    pub(super) fn tell_end(&mut self, entry: &Entry, key: EntryKey, how: End) {
        let Some(fleet) = self.fleet.as_deref_mut() else { return };
        let id = fleet.id(key, entry.attempts);
        if how == End::NotSent {
            fleet.note_unsent(key, entry.attempts);
            self.tell_left(entry, id);
            return;
        }
        let at = self.ledger.clock.at();
        if let End::Later(end) = how {
            fleet.abandoned.push_back((id.clone(), entry.owner, end));
            fleet.forget_old(at);
        }
        if !fleet.is_connected {
            return;
        }
        let names = (&self.names, &self.lines[..], &self.callers);
        let Some(mut item) = item(names, entry, id, at) else { return };
        match how {
            End::Done => item.fine = Some(at.saturating_sub(entry.started) / MILLISECOND),
            End::Later(end) => item.later = Some(end.saturating_sub(at) / MILLISECOND),
            End::Refused | End::NotSent => {}
        }
        fleet.done.push(item);
    }

    /// Metrica refused a request because of `limit`.
    pub(super) fn tell_learned(&mut self, entry: &Entry, key: EntryKey, limit: LimitName) {
        let after = self.ledger.full_for(&entry.charge(), limit);
        let Some(fleet) = self.fleet.as_deref_mut() else { return };
        let (id, at) = (fleet.id(key, entry.attempts), self.ledger.clock.at());
        let names = (&self.names, &self.lines[..], &self.callers);
        let Some(mut item) = item(names, entry, id, at) else { return };
        item.limit = Some(limit.as_str());
        item.full = after.map(|after| after / MILLISECOND);
        fleet.tell(Order::Learn, item, at);
    }
}

/// The delay of the gate with this name: any number will do that differs between gates (FNV-1a, of which the last letter of a
/// name changes the low bits alone).
pub(super) fn delay_of(name: &str) -> Micros {
    let hash = name
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    hash % SPREAD
}

/// The end of a request in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Done,
    Refused,
    NotSent,
    /// Its slot remains in use until this time.
    Later(Micros),
}

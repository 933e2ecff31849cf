//! The requests that the broker knows: a slab whose numbers are never confused (rule 8 of the module).

use super::clock::Micros;
use super::counters::Counters;
use super::ledger::{Charge, Epochs};
use super::limit::{Groups, LimitName};
use super::refusal::Refusal;
use super::setup::{Caller, Class, Egress, Owner};

/// A place of the slab.
pub(super) type Index = u32;

/// The key of a request: a place and the number of its use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct EntryKey {
    pub(super) index: Index,
    generation: u32,
}

impl EntryKey {
    /// As text, for the store of a fleet.
    pub(super) fn text(self) -> String {
        format!("{}.{}", self.index, self.generation)
    }

    pub(super) fn of_text(text: &str) -> Option<Self> {
        let (index, generation) = text.split_once('.')?;
        Some(Self { index: index.parse().ok()?, generation: generation.parse().ok()? })
    }
}

/// A request that waits. Give it back with [`cancel`](super::Broker::cancel) if its caller leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ticket(pub(super) EntryKey);

/// A request that may be sent, and holds a slot. It has to come back: by [`finish`](super::Broker::finish) or
/// [`abandon`](super::Broker::abandon).
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub struct Lease(pub(super) EntryKey);

/// The state of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Free,
    Waiting,
    /// Granted, and its caller does not know yet.
    Granted,
    Running,
    Refused(Refusal),
}

/// One request.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    generation: u32,
    pub(super) state: State,
    pub(super) owner: Owner,
    pub(super) caller: Caller,
    pub(super) egress: Egress,
    pub(super) groups: Groups,
    pub(super) class: Class,
    pub(super) counters: Counters,
    /// The time of arrival.
    pub(super) since: Micros,
    pub(super) deadline: Micros,
    /// The time at which it was granted.
    pub(super) started: Micros,
    pub(super) epochs: Epochs,
    /// The number of times that it was sent.
    pub(super) attempts: u8,
    /// The number of its arrival.
    pub(super) order: u64,
    /// The limit that it waits for.
    pub(super) waits_for: LimitName,
    /// Whether the store of the fleet was asked for it.
    pub(super) is_entered: bool,
}

impl Entry {
    /// Notes that it may be sent, and by when its charge counts.
    #[inline]
    pub(super) const fn begin(&mut self, state: State, at: Micros, epochs: Epochs) {
        self.state = state;
        self.is_entered = false;
        self.started = at;
        self.epochs = epochs;
        self.attempts = self.attempts.saturating_add(1);
    }

    pub(super) const fn charge(&self) -> Charge<'_> {
        Charge { owner: self.owner, egress: self.egress, groups: self.groups, counters: &self.counters }
    }
}

/// All requests.
#[derive(Debug, Default)]
pub(super) struct Entries {
    slab: Vec<Entry>,
    free: Vec<Index>,
    arrivals: u64,
}

impl Entries {
    /// Adds a request. `None` if there are 4 billion.
    #[inline]
    pub(super) fn add(&mut self, mut entry: Entry) -> Option<EntryKey> {
        entry.order = self.arrivals;
        self.arrivals = self.arrivals.saturating_add(1);
        if let Some(index) = self.free.pop() {
            let place = self.slab.get_mut(usize::try_from(index).ok()?)?;
            entry.generation = place.generation.wrapping_add(1);
            let key = EntryKey { index, generation: entry.generation };
            *place = entry;
            return Some(key);
        }
        let index = Index::try_from(self.slab.len()).ok()?;
        let key = EntryKey { index, generation: entry.generation };
        self.slab.push(entry);
        Some(key)
    }

    /// Whether the place of a request that is over can be used again.
    pub(super) const fn has_place(&self) -> bool {
        !self.free.is_empty()
    }

    /// Adds a request that may be sent at once, in such a place.
    #[inline(always)]
    pub(super) fn reuse(&mut self, new: NewEntry, epochs: Epochs) -> Option<EntryKey> {
        let Self { slab, free, arrivals } = self;
        let index = free.pop()?;
        let place = slab.get_mut(usize::try_from(index).ok()?)?;
        let (generation, order) = (place.generation.wrapping_add(1), *arrivals);
        *arrivals = arrivals.saturating_add(1);
        let started = new.since;
        *place = Entry { generation, order, state: State::Running, started, epochs, attempts: 1, ..Entry::from(new) };
        Some(EntryKey { index, generation })
    }

    pub(super) fn get(&self, index: Index) -> Option<&Entry> {
        self.slab.get(usize::try_from(index).ok()?)
    }

    pub(super) fn get_mut(&mut self, index: Index) -> Option<&mut Entry> {
        self.slab.get_mut(usize::try_from(index).ok()?)
    }

    /// The requests in flight.
    pub(super) fn running(&self) -> impl Iterator<Item = (Index, &Entry)> {
        let numbered = (0..).zip(&self.slab);
        numbered.filter(|(_, entry)| matches!(entry.state, State::Running | State::Granted))
    }

    /// The request with this key, unless it is over.
    pub(super) fn find(&self, key: EntryKey) -> Option<&Entry> {
        self.get(key.index).filter(|entry| entry.generation == key.generation && entry.state != State::Free)
    }

    pub(super) fn find_mut(&mut self, key: EntryKey) -> Option<&mut Entry> {
        let entry = self.get_mut(key.index)?;
        (entry.generation == key.generation && entry.state != State::Free).then_some(entry)
    }

    pub(super) fn key(&self, index: Index) -> Option<EntryKey> {
        self.get(index).map(|entry| EntryKey { index, generation: entry.generation })
    }

    /// Ends a request.
    pub(super) fn remove(&mut self, key: EntryKey) {
        self.end(key);
    }

    /// Ends a request, and returns what is known of it; `None` if it is over.
    #[inline(always)]
    pub(super) fn end(&mut self, key: EntryKey) -> Option<Ended> {
        let entry = self.slab.get_mut(usize::try_from(key.index).ok()?)?;
        if entry.generation != key.generation || entry.state == State::Free {
            return None;
        }
        entry.state = State::Free;
        entry.counters = Counters::NONE;
        self.free.push(key.index);
        let Entry { owner, caller, groups, class, started, .. } = *entry;
        Some(Ended { owner, caller, groups, class, started })
    }
}

/// What is known of a request that has ended.
pub(super) struct Ended {
    pub(super) owner: Owner,
    pub(super) caller: Caller,
    pub(super) groups: Groups,
    pub(super) class: Class,
    pub(super) started: Micros,
}

/// A request before it has a place.
pub(super) struct NewEntry {
    pub(super) owner: Owner,
    pub(super) caller: Caller,
    pub(super) egress: Egress,
    pub(super) groups: Groups,
    pub(super) class: Class,
    pub(super) counters: Counters,
    pub(super) since: Micros,
    pub(super) deadline: Micros,
}

impl From<NewEntry> for Entry {
    #[inline]
    fn from(new: NewEntry) -> Self {
        let NewEntry { owner, caller, egress, groups, class, counters, since, deadline } = new;
        Self {
            generation: 0,
            state: State::Waiting,
            owner,
            caller,
            egress,
            groups,
            class,
            counters,
            since,
            deadline,
            started: 0,
            epochs: Epochs::default(),
            attempts: 0,
            order: 0,
            waits_for: LimitName::Parallel,
            is_entered: false,
        }
    }
}

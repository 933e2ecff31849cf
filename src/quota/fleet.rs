//! Gates that share the limits through a store (rule 12 of the module).
//!
//! 1. While the store answers, it grants: the broker enters the first waiting request of each caller, class and kind, and what
//!    the store grants is sent. Everything else, such as deadlines, bounds and the order of a caller's own requests, remains
//!    here.
//! 2. While it does not, the gate uses its part of what is left: the limits divided by the number of gates seen last, at least
//!    one of each, and of the day what was not spent; or it refuses. The whole limit is never used.
//! 3. The ids of leases are chosen here, so that a question whose answer is lost can be asked again, and a request in flight
//!    can be told to a store that lost it.

use super::Broker;
use super::budget::Callers;
use super::call::{Call, CallLimit, Granted, Held, Item, OverBudget, Reply, Told};
use super::clock::{Clock, Micros, Now, SECOND};
use super::entry::{Entry, EntryKey, State};
use super::ledger::Ledger;
use super::limit::{Limit, LimitName, Limits, Mode, Shape};
use super::line::{Line, step};
use super::meter::Meter;
use super::refusal::{After, Reason, Refusal};
use super::setup::Owner;
use super::snapshot::FleetRow;

/// A request that the store has not granted is entered again after this time: a lost message costs no more.
const AGAIN: Micros = SECOND;
const MILLISECOND: Micros = 1000;

/// What a gate does without the store.
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
    /// What it does without the store.
    pub on_loss: OnLoss,
    /// The number of gates that it assumes before it has seen any.
    pub replicas: u32,
}

#[derive(Debug)]
pub(super) struct Fleet {
    settings: FleetSettings,
    /// Whether the store decides now.
    pub(super) is_connected: bool,
    /// Whether it ever did.
    was_connected: bool,
    /// The store that answered last.
    born: Option<u64>,
    /// The next call says what is in flight, and nothing else is.
    introduces: bool,
    /// The store answers, and decides from this time on: until then, every gate tells it what is in flight.
    learning_until: Option<Micros>,
    /// The gates that were seen last.
    replicas: u32,
    /// The limits of the whole fleet.
    whole: Limits,
    /// Requests to enter, and whether they were entered before.
    enter: Vec<(EntryKey, bool)>,
    leave: Vec<(String, Entry)>,
    done: Vec<Item>,
    learn: Vec<Item>,
    /// Owners to look at, and when.
    wakes: Vec<(Owner, Micros)>,
    /// Since when the store does not decide.
    away_since: Option<Micros>,
    /// The time without the store, up to then.
    degraded: Micros,
    /// Requests in flight whose lease had ended in the store.
    lost: u64,
}

impl Fleet {
    const fn has_orders(&self) -> bool {
        let Self { enter, leave, done, learn, .. } = self;
        !(enter.is_empty() && leave.is_empty() && done.is_empty() && learn.is_empty())
    }

    fn forget_orders(&mut self) {
        self.enter.clear();
        self.leave.clear();
        self.done.clear();
        self.learn.clear();
        self.wakes.clear();
    }

    fn wake_at(&mut self, owner: Owner, at: Micros) {
        match self.wakes.iter_mut().find(|(one, _)| *one == owner) {
            Some((_, wake)) => *wake = at,
            None => self.wakes.push((owner, at)),
        }
    }

    fn id(&self, key: EntryKey, attempt: u8) -> String {
        format!("{}.{}.{attempt}", self.settings.me, key.text())
    }

    /// The key and the attempt in an id of this gate.
    fn key(&self, id: &str) -> Option<(EntryKey, u8)> {
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
                settings,
                is_connected: false,
                was_connected: false,
                born: None,
                introduces: true,
                learning_until: None,
                whole,
                enter: Vec::new(),
                leave: Vec::new(),
                done: Vec::new(),
                learn: Vec::new(),
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
    fn apply_limits(&mut self) {
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

    /// The store answered, on a connection that is new or not. It decides from now on, or after one lease, in which every gate
    /// tells it what is in flight: after a loss, and where the store lost everything.
    fn follow_store(&mut self, learning: u64, is_new: bool, is_emptied: bool) {
        let at = self.ledger.clock.at();
        let is_busy = self.entries.running().next().is_some();
        let Some(fleet) = &mut self.fleet else { return };
        let learning = learning.saturating_mul(MILLISECOND);
        let needs_time = is_busy || fleet.was_connected;
        let until = match fleet.learning_until {
            Some(until) => until.max(at.saturating_add(learning)),
            None if fleet.is_connected && (learning == 0 || !is_busy && !is_emptied) => {
                // Nothing is granted meanwhile, and there is nothing to tell.
                if learning > 0 {
                    (0..)
                        .zip(&self.lines)
                        .for_each(|(number, _)| fleet.wake_at(Owner(number), at.saturating_add(learning)));
                }
                return;
            }
            None if needs_time && (is_new || learning > 0) => at.saturating_add(fleet.settings.lease.max(learning)),
            None => return self.store_decides_from_now(),
        };
        if fleet.is_connected {
            self.store_is_away(Now::default());
        }
        if let Some(fleet) = &mut self.fleet {
            fleet.learning_until = Some(until);
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
        for index in self.lines.iter().flat_map(Line::waiting_entries).collect::<Vec<_>>() {
            if let Some(entry) = self.entries.get_mut(index) {
                entry.is_entered = false;
            }
        }
        self.apply_limits();
        self.look_at_all();
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
                let kind = (entry.class, entry.groups);
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

    /// A waiting request is no longer entered.
    pub(super) fn withdraw(&mut self, entry: &Entry, key: EntryKey) {
        let Some(fleet) = &mut self.fleet else { return };
        let position = fleet.enter.iter().position(|(entered, _)| *entered == key);
        let is_known = position.is_none_or(|position| fleet.enter.swap_remove(position).1);
        if is_known && entry.is_entered && fleet.is_connected {
            let id = fleet.id(key, entry.attempts.saturating_add(1));
            fleet.leave.push((id, entry.clone()));
        }
    }

    /// A request in flight has ended; `later` is the time for which its slot remains in use.
    pub(super) fn tell_end(&mut self, entry: &Entry, key: EntryKey, how: End) {
        let Some(fleet) = self.fleet.as_deref_mut().filter(|fleet| fleet.is_connected) else { return };
        let id = fleet.id(key, entry.attempts);
        if how == End::NotSent {
            fleet.leave.push((id, entry.clone()));
            return;
        }
        let at = self.ledger.clock.at();
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
        let Some(fleet) = self.fleet.as_deref_mut().filter(|fleet| fleet.is_connected) else { return };
        let id = fleet.id(key, entry.attempts);
        let names = (&self.names, &self.lines[..], &self.callers);
        let Some(mut item) = item(names, entry, id, self.ledger.clock.at()) else { return };
        item.limit = Some(limit.as_str());
        item.full = after.map(|after| after / MILLISECOND);
        fleet.learn.push(item);
    }

    /// The next call of the store, if the gate belongs to a fleet.
    pub fn call(&mut self, now: Now) -> Option<Call> {
        self.ledger.clock.advance(now);
        let at = self.ledger.clock.at();
        let Self { names, ledger, lines, callers, entries, fleet: Some(fleet), .. } = self else { return None };
        let names_of = (&*names, &lines[..], &*callers);
        let introduces = std::mem::replace(&mut fleet.introduces, false) || !fleet.is_connected;
        let mut call = Call {
            me: fleet.settings.me.clone(),
            lease: fleet.settings.lease / MILLISECOND,
            day: ledger.clock.day_index(),
            hour: ledger.clock.hour_index(),
            day_ends: ledger.clock.end(false).saturating_sub(at) / MILLISECOND,
            hour_ends: ledger.clock.end(true).saturating_sub(at) / MILLISECOND,
            budgets: of_mode(callers.mode),
            shares: callers.shares,
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
        if !fleet.is_connected {
            return Some(call);
        }
        let epochs = ledger.epochs();
        for (id, entry) in fleet.leave.drain(..) {
            let Some(mut item) = item(names_of, &entry, id, at) else { continue };
            let is_today = entry.epochs.day == epochs.day || entry.started == 0;
            let is_now = entry.epochs.hour == epochs.hour || entry.started == 0;
            item.day = Some(call.day.saturating_sub(u64::from(!is_today)));
            item.hour = Some(call.hour.saturating_sub(u64::from(!is_now)));
            call.leave.push(item);
        }
        call.done.append(&mut fleet.done);
        call.learn.append(&mut fleet.learn);
        for (key, _) in std::mem::take(&mut fleet.enter) {
            let Some(entry) = entries.find(key).filter(|entry| entry.state == State::Waiting) else { continue };
            let id = fleet.id(key, entry.attempts.saturating_add(1));
            let Some(mut item) = item(names_of, entry, id, at) else { continue };
            if let Some(settings) = callers.settings.get(entry.caller.index()).filter(|_| callers.mode == Mode::Enforce)
            {
                (item.d, item.f, item.h) = (settings.per_day, settings.per_5m, settings.share);
            }
            item.fd = ledger.spent_today(entry.owner);
            let line = lines.get(entry.owner.index());
            item.fc = line.and_then(|line| line.known(entry.caller)).map(|flow| flow.spent_today(&ledger.clock));
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

    /// What the store returned, on a connection that is new or not.
    pub fn reply(&mut self, reply: &Reply, is_new: bool, now: Now) {
        self.ledger.clock.advance(now);
        let Some(fleet) = &mut self.fleet else { return };
        fleet.replicas = reply.replicas.max(1);
        if fleet.is_connected {
            fleet.lost = fleet.lost.saturating_add(reply.lost);
        }
        let is_emptied = fleet.born.replace(reply.born).is_some_and(|born| born != reply.born);
        self.follow_store(reply.learning, is_new, is_emptied);
        for granted in &reply.granted {
            self.store_granted(granted);
        }
        for refused in &reply.refused {
            self.store_refused(refused);
        }
        for seen in &reply.owners {
            let Some(owner) = self.names.owners.find(|name| name.as_str() == seen.owner).map(Owner) else { continue };
            if let Some(line) = self.lines.get_mut(owner.index()) {
                (line.others, line.used_by_all) = (seen.others, seen.used);
            }
            self.ledger.raise_today(owner, seen.day);
            if let Some(wake) = seen.wake {
                self.wake_at(owner, wake);
            }
        }
    }

    /// A message of the store.
    pub fn told(&mut self, told: &Told, now: Now) {
        self.ledger.clock.advance(now);
        if let Some(granted) = &told.granted {
            self.store_granted(granted);
        }
        if let Some(refused) = &told.refused {
            self.store_refused(refused);
        }
        let owner =
            told.owner.as_deref().and_then(|owner| self.names.owners.find(|name| name.as_str() == owner)).map(Owner);
        if let (Some(owner), Some(wake)) = (owner, told.wake) {
            self.wake_at(owner, wake);
        }
    }

    fn wake_at(&mut self, owner: Owner, after: u64) {
        let at = self.ledger.clock.at().saturating_add(after.saturating_mul(MILLISECOND));
        if let Some(fleet) = &mut self.fleet {
            fleet.wake_at(owner, at);
        }
    }

    /// The store granted a request. One that is over by now was or will be withdrawn.
    fn store_granted(&mut self, granted: &Granted) {
        let Some((key, entry)) = self.entered(&granted.id) else { return };
        if let Some(known) = self.entries.get_mut(key.index) {
            known.is_entered = false;
        }
        self.take_out(&entry, key.index);
        // The store has counted it, and perhaps told so before.
        let (day, mine) = self.spent(&entry);
        self.grant(key.index, State::Granted);
        self.set_spent(&entry, day.max(granted.day), mine.max(granted.mine));
        self.wake(key.index);
        self.look(entry.owner);
    }

    /// What is spent of the day, by the owner and by the caller of a request.
    fn spent(&mut self, entry: &Entry) -> (u32, u32) {
        let Self { ledger, lines, .. } = self;
        let flow = lines.get_mut(entry.owner.index()).and_then(|line| line.flow(entry.caller));
        let mine = flow.map_or(0, |flow| flow.spent_today(&ledger.clock));
        (ledger.spent_today(entry.owner).map_or(0, |day| day), mine)
    }

    fn set_spent(&mut self, entry: &Entry, day: u32, mine: u32) {
        let Self { ledger, lines, .. } = self;
        ledger.day(entry.owner, |limit, meter, clock| meter.set_spent(limit, clock, day));
        if let Some(flow) = lines.get_mut(entry.owner.index()).and_then(|line| line.flow(entry.caller)) {
            flow.set_spent(mine, &ledger.clock);
        }
    }

    fn store_refused(&mut self, refused: &OverBudget) {
        let Some((key, _)) = self.entered(&refused.id) else { return };
        let Some(limit) = LimitName::ALL.iter().copied().find(|limit| limit.as_str() == refused.limit) else { return };
        if let Some(known) = self.entries.get_mut(key.index) {
            known.is_entered = false;
        }
        let after = After(refused.ms.saturating_mul(MILLISECOND).max(SECOND));
        self.refuse(key.index, Refusal { limit, reason: Reason::Budget, after });
    }

    /// The waiting request with this id, while the store decides.
    fn entered(&self, id: &str) -> Option<(EntryKey, Entry)> {
        let fleet = self.fleet.as_deref().filter(|fleet| fleet.is_connected)?;
        let (key, attempt) = fleet.key(id)?;
        let entry = self.entries.find(key)?;
        let is_meant = entry.state == State::Waiting && entry.attempts.saturating_add(1) == attempt;
        is_meant.then(|| (key, entry.clone()))
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

/// The end of a request in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Done,
    Refused,
    NotSent,
    /// Its slot remains in use until this time.
    Later(Micros),
}

/// The refusal of a gate that refuses without the store.
pub(super) const AWAY: Refusal =
    Refusal { limit: LimitName::Parallel, reason: Reason::StoreUnavailable, after: After(SECOND) };

const fn of_mode(mode: Mode) -> u8 {
    match mode {
        Mode::Off => 0,
        Mode::Observe => 1,
        Mode::Enforce => 2,
    }
}

type Context<'a> = (&'a super::setup::Names, &'a [Line], &'a Callers);

/// A request as the script sees it. `None` for a name that is not of this configuration, which does not occur.
fn item((names, lines, callers): Context<'_>, entry: &Entry, id: String, at: Micros) -> Option<Item> {
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

impl Limits {
    /// The part of one of `replicas` gates: of slots, rates and windows, at least one. Days and hours are divided by what is
    /// left of them ([`Ledger::cap`]).
    fn with_part_of(mut self, replicas: u32) -> Self {
        if replicas > 1 {
            for limit in self.all_mut() {
                if matches!(limit.shape, Shape::Slots | Shape::PerSecond | Shape::Window(_)) {
                    limit.divide(replicas);
                }
            }
        }
        self
    }
}

impl Ledger {
    /// Lets this gate use its part of what is left of each day and hour; with one replica, all of it.
    fn cap(&mut self, replicas: u32, callers: &mut Callers, lines: &mut [Line]) {
        let Self { clock, limits, owners, counters, .. } = self;
        let counters =
            counters.all().map(|counter| &mut counter.meters).flat_map(|meters| meters.iter_mut().zip(&limits.counter));
        for (meter, limit) in owners.iter_mut().flat_map(|meters| meters.iter_mut().zip(&limits.owner)).chain(counters)
        {
            meter.cap(limit, clock, replicas);
        }
        callers.divisor = replicas.max(1);
        for flow in lines.iter_mut().flat_map(Line::flows) {
            flow.base = flow.spent_today(clock);
        }
    }

    /// What is spent of an owner's day, as far as the gate knows.
    fn spent_today(&mut self, owner: Owner) -> Option<u32> {
        let mut spent = None;
        self.day(owner, |limit, meter, clock| spent = Some(meter.used(limit, clock)));
        spent
    }

    fn day(&mut self, owner: Owner, act: impl FnOnce(&Limit, &mut Meter, &Clock)) {
        let Some(meters) = self.owners.get_mut(owner.index()) else { return };
        let mut pairs = meters.iter_mut().zip(&self.limits.owner);
        if let Some((meter, limit)) = pairs.find(|(_, limit)| limit.name == LimitName::Day) {
            act(limit, meter, &self.clock);
        }
    }

    /// Raises what is spent of an owner's day to what the store knows.
    fn raise_today(&mut self, owner: Owner, spent: u32) {
        self.day(owner, |limit, meter, clock| {
            let known = meter.used(limit, clock);
            meter.set_spent(limit, clock, known.max(spent));
        });
    }
}

//! The broker: what callers ask, and what they get.

use metrica::error_type::ErrorType;
use strict_http::number;

use super::answer::{Answer, Next, Outcome, Request, Taken};
use super::budget::{Callers, judge};
use super::clock::{Micros, Now, SECOND};
use super::entry::{Ended, Entries, Entry, EntryKey, Lease, NewEntry, State, Ticket};
use super::fleet::{AWAY, Fleet};
use super::fleet_orders::End;
use super::ledger::{Charge, Epochs, Ledger};
use super::limit::{LimitName, Mode};
use super::line::Line;
use super::refusal::{After, Reason, Refusal};
use super::setup::{Bounds, CallerSettings, Class, Names, Settings};

/// Metrica may compute a cancelled request for this long.
const CANCELLED: Micros = 5 * SECOND;
/// A request is sent at most so many times.
const ATTEMPTS: u8 = 3;

/// The broker of every limit; see the module.
#[derive(Debug)]
pub struct Broker {
    pub(super) names: Names,
    pub(super) bounds: Bounds,
    pub(super) callers: Callers,
    pub(super) ledger: Ledger,
    /// Indexed by owner.
    pub(super) lines: Vec<Line>,
    /// Whether requests wait for a second of this egress; indexed by egress.
    pub(super) contended: Vec<bool>,
    pub(super) entries: Entries,
    /// The number of waiting requests.
    pub(super) waiting: u32,
    /// The owner whose turn is next where owners take turns.
    pub(super) cursor: usize,
    pub(super) is_draining: bool,
    pub(super) woken: Vec<Ticket>,
    /// Requests that were sent once more.
    pub(super) resent: u64,
    /// The gates with which the limits are shared.
    pub(super) fleet: Option<Box<Fleet>>,
    /// The day and the hour of the last call of [`due`](Self::due).
    seen: Epochs,
}

impl Broker {
    /// A broker that has counted nothing yet.
    #[must_use]
    pub fn new(settings: &Settings, now: Now) -> Self {
        let mut broker = Self {
            names: Names::default(),
            bounds: settings.bounds,
            callers: Callers::default(),
            ledger: Ledger::new(settings.limits.clone(), now),
            lines: Vec::new(),
            contended: Vec::new(),
            entries: Entries::default(),
            waiting: 0,
            cursor: 0,
            is_draining: false,
            woken: Vec::new(),
            resent: 0,
            fleet: None,
            seen: Epochs::default(),
        };
        broker.configure(settings, now);
        broker
    }

    /// A request asks for its turn.
    pub fn ask(&mut self, now: Now, mut request: Request) -> Answer {
        self.ledger.clock.advance(now);
        if self.is_draining {
            return Answer::Refused(DRAINING);
        }
        if self.fleet.is_some() && self.refuses_without_store() {
            return Answer::Refused(AWAY);
        }
        match self.grant_free(&mut request) {
            Some(lease) => Answer::Granted(lease),
            None => self.ask_in_full(request),
        }
    }

    /// Grants the usual request: nobody waits, no budget counts, and every limit surely has room. What this grants,
    /// [`ask_in_full`](Self::ask_in_full) would grant too.
    #[inline(always)]
    fn grant_free(&mut self, request: &mut Request) -> Option<Lease> {
        let Self { ledger, lines, entries, callers, contended, fleet, .. } = self;
        let Request { owner, caller, egress, groups, class, ref mut counters, rest } = *request;
        let line = lines.get_mut(owner.index())?;
        let is_contended = *contended.get(egress.index())?;
        let &CallerSettings { weight, wait, .. } = callers.settings.get(caller.index())?;
        let is_alone = fleet.as_ref().is_none_or(|fleet| !fleet.is_connected);
        if line.waiting > 0 || is_contended || callers.has_budgets || class == Class::Batch || !is_alone {
            return None;
        }
        if !entries.has_place() || !ledger.take_free(&Charge { owner, egress, groups, counters }) {
            return None;
        }
        let at = ledger.clock.at();
        line.begin(caller, class, weight, None, &ledger.clock);
        let (deadline, counters) = (at.saturating_add(wait.min(rest)), std::mem::take(counters));
        let new = NewEntry { owner, caller, egress, groups, class, counters, since: at, deadline };
        let key = entries.reuse(new, ledger.epochs())?;
        if let (Some(fleet), Some(entry)) = (fleet, entries.find(key)) {
            fleet.note_granted(key, entry);
        }
        Some(Lease(key))
    }

    pub(super) fn ask_in_full(&mut self, request: Request) -> Answer {
        let at = self.ledger.clock.at();
        let allowed = self.callers.wait(request.caller).min(request.rest);
        let Request { owner, caller, egress, groups, class, counters, .. } = request;
        let deadline = at.saturating_add(allowed);
        let entry = Entry::from(NewEntry { owner, caller, egress, groups, class, counters, since: at, deadline });
        let stored = self.store_decides();
        let Some(line) = self.lines.get_mut(owner.index()) else { return Answer::Refused(DRAINING) };
        let nobody_waits =
            line.waiting == 0 && !stored && !self.contended.get(egress.index()).is_some_and(|flag| *flag);
        match judge(&entry, line, &mut self.ledger, &self.callers) {
            None if nobody_waits => self.grant_at_once(entry),
            Some(block) if block.is_certain() && block.until() > Some(deadline) => {
                Answer::Refused(self.refusal_of(&block))
            }
            _ => self.join(entry, allowed),
        }
    }

    fn grant_at_once(&mut self, entry: Entry) -> Answer {
        let Some(key) = self.entries.add(entry) else { return Answer::Refused(DRAINING) };
        self.grant(key.index, State::Running);
        Answer::Granted(Lease(key))
    }

    /// A request joins the line, unless that is too long.
    fn join(&mut self, entry: Entry, allowed: Micros) -> Answer {
        let (owner, caller, deadline) = (entry.owner, entry.caller, entry.deadline);
        let line = self.lines.get(owner.index());
        let of_owner = line.map_or(0, |line| line.waiting);
        let of_caller = line.and_then(|line| line.known(caller)).map_or(0, |flow| flow.waiting.len());
        let of_caller = number::saturated::<u32>(of_caller);
        let Bounds { per_caller, per_owner, total } = self.bounds;
        if of_caller >= per_caller || of_owner >= per_owner || self.waiting >= total {
            return Answer::Refused(self.expect(&entry, None).refusal(Reason::Full, allowed));
        }
        let Some(key) = self.entries.add(entry.clone()) else { return Answer::Refused(DRAINING) };
        if let Some(line) = self.lines.get_mut(owner.index()) {
            line.enqueue(caller, key.index, &self.entries);
            self.waiting = self.waiting.saturating_add(1);
        }
        self.look(owner);
        match self.take_key(key) {
            Taken::Granted(lease) => Answer::Granted(lease),
            Taken::Refused(refusal) => Answer::Refused(refusal),
            Taken::Over => Answer::Refused(DRAINING),
            Taken::Waiting => {
                let expected = self.expect(&entry, Some(key.index));
                if self.ledger.clock.at().saturating_add(expected.wait) <= deadline {
                    return Answer::Wait(Ticket(key));
                }
                self.leave(&entry, key.index);
                self.entries.remove(key);
                Answer::Refused(expected.refusal(Reason::Wait, allowed))
            }
        }
    }

    /// The state of a ticket; one that is granted or refused is over with this.
    pub fn take(&mut self, ticket: Ticket) -> Taken {
        self.take_key(ticket.0)
    }

    fn take_key(&mut self, key: EntryKey) -> Taken {
        let Some(entry) = self.entries.find_mut(key) else { return Taken::Over };
        let taken = match entry.state {
            State::Waiting => return Taken::Waiting,
            State::Free | State::Running => return Taken::Over,
            State::Granted => {
                entry.state = State::Running;
                Taken::Granted(Lease(key))
            }
            State::Refused(refusal) => {
                self.entries.remove(key);
                Taken::Refused(refusal)
            }
        };
        if let Some(position) = self.woken.iter().position(|woken| woken.0 == key) {
            self.woken.swap_remove(position);
        }
        taken
    }

    /// A request that waits, or was granted and did not learn it, is given up.
    pub fn cancel(&mut self, ticket: Ticket, now: Now) {
        self.ledger.clock.advance(now);
        let Some(entry) = self.entries.find(ticket.0).cloned() else { return };
        match entry.state {
            State::Waiting => {
                self.leave(&entry, ticket.0.index);
                self.entries.remove(ticket.0);
                // The next of its caller is entered in the store.
                if self.store_decides() {
                    self.look(entry.owner);
                }
            }
            State::Granted => {
                let _ = self.finish(Lease(ticket.0), now, Outcome::NotSent);
            }
            State::Refused(_) => self.entries.remove(ticket.0),
            State::Free | State::Running => {}
        }
        self.woken.retain(|woken| *woken != ticket);
    }

    /// A request that was sent is given up before its response has ended: Metrica may still compute it, so its slot remains
    /// in use for a moment.
    pub fn abandon(&mut self, lease: Lease, now: Now) {
        self.ledger.clock.advance(now);
        let Some(entry) = self.entries.find(lease.0).cloned() else { return };
        let end = self.ledger.clock.at().saturating_add(CANCELLED);
        self.tell_end(&entry, lease.0, End::Later(end));
        self.release(&entry, Some(end), Some(end.saturating_sub(entry.started)));
        self.entries.remove(lease.0);
        self.look(entry.owner);
    }

    /// A request that was granted has ended.
    pub fn finish(&mut self, lease: Lease, now: Now, outcome: Outcome) -> Next {
        if outcome == Outcome::Done {
            self.done(lease, now);
            return Next::Over;
        }
        self.ledger.clock.advance(now);
        let Lease(key) = lease;
        let Some(entry) = self.entries.find(key).cloned() else { return Next::Over };
        let next = match outcome {
            Outcome::Done => Next::Over,
            Outcome::NotSent => {
                self.ledger.give_back(&entry.charge(), entry.started, entry.epochs);
                let weight = self.callers.weight(entry.caller);
                if let Some(line) = self.lines.get_mut(entry.owner.index()) {
                    line.give_back(entry.caller, weight, Some((entry.started, entry.epochs.day)));
                }
                self.release(&entry, None, None);
                self.tell_end(&entry, key, End::NotSent);
                Next::Over
            }
            Outcome::Refused { error_type, may_repeat } => self.refused(&entry, key, error_type, may_repeat),
        };
        if !matches!(next, Next::Again(_)) {
            self.entries.remove(key);
        }
        self.look(entry.owner);
        next
    }

    /// Metrica responded: the usual end of a request, which copies and allocates nothing.
    #[inline(always)]
    pub fn done(&mut self, lease: Lease, now: Now) {
        self.ledger.clock.advance(now);
        let Lease(key) = lease;
        if self.store_decides()
            && let Some(entry) = self.entries.find(key).cloned()
        {
            self.tell_end(&entry, key, End::Done);
        }
        // Before anything was learned, no request can end a pause.
        let ends_a_pause = self.ledger.has_learned
            && self.entries.find(key).is_some_and(|entry| self.ledger.fine(&entry.charge(), entry.started));
        let Some(Ended { owner, caller, groups, class, started }) = self.entries.end(key) else { return };
        let at = self.ledger.clock.at();
        self.ledger.release(owner, groups, None);
        if let Some(line) = self.lines.get_mut(owner.index()) {
            line.end(caller, class, Some(at.saturating_sub(started)), at);
        }
        // Other owners may wait for the same counter.
        if ends_a_pause {
            self.look_at_all();
        } else {
            self.look(owner);
        }
    }

    fn release(&mut self, entry: &Entry, later: Option<Micros>, measured: Option<Micros>) {
        self.ledger.release(entry.owner, entry.groups, later);
        if let Some(line) = self.lines.get_mut(entry.owner.index()) {
            line.end(entry.caller, entry.class, measured, self.ledger.clock.at());
        }
    }

    /// Metrica refused a request: learns from it, and decides whether it is sent once more.
    fn refused(&mut self, entry: &Entry, key: EntryKey, error_type: ErrorType, may_repeat: bool) -> Next {
        let charge = entry.charge();
        let learned = self.ledger.learn(&charge, error_type);
        self.release(entry, None, None);
        self.tell_end(entry, key, End::Refused);
        if let Some(learned) = learned {
            self.tell_learned(entry, key, learned);
        }
        let weight = self.callers.weight(entry.caller);
        let may_send = !self.is_draining && !self.refuses_without_store();
        let Some(line) = self.lines.get_mut(entry.owner.index()) else { return Next::Over };
        // It took no time on a slot.
        line.give_back(entry.caller, weight, None);
        let after = self.ledger.after(&charge, learned, line.mean);
        let delays = matches!(learned, Some(LimitName::Parallel | LimitName::ByIp | LimitName::LogsByIp));
        let at = self.ledger.clock.at();
        let mut limits = self.ledger.limits.all().filter(|limit| Some(limit.name) == learned);
        let is_enforced = limits.any(|limit| limit.mode == Mode::Enforce);
        let can_repeat = may_repeat && delays && is_enforced && entry.attempts < ATTEMPTS && may_send;
        if !can_repeat || at >= entry.deadline {
            return Next::Pass(after);
        }
        if let Some(again) = self.entries.find_mut(key) {
            again.state = State::Waiting;
        }
        line.enqueue(entry.caller, key.index, &self.entries);
        self.waiting = self.waiting.saturating_add(1);
        self.resent = self.resent.saturating_add(1);
        Next::Again(Ticket(key))
    }

    /// Time passes: grants and refuses what is due. Returns the time of the next call, if one is needed.
    pub fn due(&mut self, now: Now) -> Option<Micros> {
        self.ledger.clock.advance(now);
        self.fleet_is_due();
        // A day or an hour that restarts ends what was learned about it.
        let epochs = self.ledger.epochs();
        if epochs != self.seen || self.next().is_some_and(|next| next <= self.ledger.clock.at()) {
            self.seen = epochs;
            self.look_at_all();
        }
        self.next()
    }

    /// The time at which [`due`](Self::due) has to be called, if any. Every other call can change it.
    #[must_use]
    pub fn next(&self) -> Option<Micros> {
        self.lines.iter().filter_map(|line| line.next).chain(self.fleet_next()).min()
    }

    /// Whether nobody waits and nobody is to be woken: then [`woken`](Self::woken) and [`next`](Self::next) have nothing.
    #[must_use]
    pub const fn is_quiet(&self) -> bool {
        self.waiting == 0 && self.woken.is_empty() && self.fleet.is_none()
    }

    /// The tickets that were granted or refused since the last call; each is to be [taken](Self::take).
    pub fn woken(&mut self) -> impl Iterator<Item = Ticket> + '_ {
        self.woken.drain(..)
    }

    /// The gate stops: every waiting request is refused, and each that comes. Requests in flight end as usual.
    pub fn drain(&mut self, now: Now) {
        self.ledger.clock.advance(now);
        self.is_draining = true;
        let waiting: Vec<_> = self.lines.iter().flat_map(Line::waiting_entries).collect();
        for index in waiting {
            self.refuse(index, DRAINING);
        }
        self.lines.iter_mut().for_each(|line| line.next = None);
    }
}

const DRAINING: Refusal = Refusal { limit: LimitName::Parallel, reason: Reason::Draining, after: After(SECOND) };

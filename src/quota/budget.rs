//! Budgets of callers (rule 7 of the module), and the judgement of one request.

use super::clock::Micros;
use super::entry::Entry;
use super::ledger::{Block, Ledger, later};
use super::limit::{Groups, Limit, LimitName, Mode};
use super::line::Line;
use super::meter::Room;
use super::setup::{Caller, CallerSettings, Class};

/// What is unspent is lent until this percentage of the day is spent.
const LENT: u64 = 80;

/// The callers of the configuration.
#[derive(Debug)]
pub(super) struct Callers {
    /// Indexed by caller.
    pub(super) settings: Vec<CallerSettings>,
    pub(super) mode: Mode,
    /// Whether any caller has a budget.
    pub(super) has_budgets: bool,
    /// Of what is left of a budget, this gate uses one part of so many.
    pub(super) divisor: u32,
    /// The sum of all shares, in percent.
    pub(super) shares: u32,
    /// Requests that an observed budget would have refused.
    pub(super) observed: u64,
}

impl Default for Callers {
    fn default() -> Self {
        let (settings, mode) = (Vec::new(), Mode::default());
        Self { settings, mode, has_budgets: false, divisor: 1, shares: 0, observed: 0 }
    }
}

impl Callers {
    pub(super) fn weight(&self, caller: Caller) -> u32 {
        self.settings.get(caller.index()).map_or(1, |settings| settings.weight)
    }

    pub(super) fn wait(&self, caller: Caller) -> Micros {
        self.settings.get(caller.index()).map_or(0, |settings| settings.wait)
    }

    /// The budget of reports in 5 minutes, if it counts this request.
    pub(super) fn per_5m(&self, caller: Caller, groups: Groups) -> Option<u32> {
        let per_5m = self.settings.get(caller.index())?.per_5m?;
        (groups.meets(Groups::REPORT_READ) && self.mode != Mode::Off).then_some((per_5m / self.divisor).max(1))
    }

    /// The budget that refuses a request, if any.
    fn blocked(&self, entry: &Entry, line: &mut Line, ledger: &mut Ledger) -> Option<Block> {
        let settings = self.settings.get(entry.caller.index())?;
        if settings.per_day.is_none() && settings.per_5m.is_none() && self.shares == 0 {
            return None;
        }
        let block = |limit, at| Block { limit, room: Room::At(at), is_budget: true };
        let mut found = None;
        if let Some(most) = self.per_5m(entry.caller, entry.groups) {
            let room = line.flow(entry.caller)?.recent_room(most, ledger.clock.at());
            found = (room > ledger.clock.at()).then(|| block(LimitName::Reports5m, room));
        }
        let known = line.known(entry.caller).map(|flow| (flow.spent_today(&ledger.clock), flow.base));
        let (spent, base) = known.map_or((0, 0), |known| known);
        // A day that restarts begins below the base.
        let base = if self.divisor > 1 && base <= spent { base } else { 0 };
        let own = |most: u32| base.saturating_add(most.saturating_sub(base).div_ceil(self.divisor));
        let is_spent = settings.per_day.is_some_and(|most| spent >= own(most))
            || self.shares > 0 && self.is_beyond_its_share(settings, spent, line, ledger, entry);
        let day = is_spent.then(|| block(LimitName::Day, ledger.clock.end(false)));
        later(found, day)
    }

    /// Whether most of the day is spent, and this caller has spent its own part of it.
    fn is_beyond_its_share(
        &self,
        settings: &CallerSettings,
        spent: u32,
        line: &Line,
        ledger: &mut Ledger,
        entry: &Entry,
    ) -> bool {
        let (mut limit, mut of_all) = (0, 0);
        ledger.named(&entry.charge(), LimitName::Day, |day: &Limit, meter, clock| {
            (limit, of_all) = (u64::from(day.limit), u64::from(meter.used(day, clock)));
        });
        if limit == 0 || of_all * 100 < limit * LENT {
            return false;
        }
        if let Some(share) = settings.share {
            return u64::from(spent) * 100 >= limit * u64::from(share);
        }
        // Callers without a share have in common what is not promised to others.
        let sharing = self.settings.iter().zip(0u16..).filter(|(one, _)| one.share.is_some());
        let promised: u64 = sharing
            .filter_map(|(_, number)| line.known(Caller(number)))
            .map(|flow| u64::from(flow.spent_today(&ledger.clock)))
            .sum();
        of_all.saturating_sub(promised) * 100 >= limit * u64::from(100u32.saturating_sub(self.shares))
    }
}

/// The number of slots that a request has to leave free: one, if it is batch and others were served lately. An owner with one
/// slot keeps none, as batch would never be served.
pub(super) fn reserve(class: Class, line: &Line, ledger: &mut Ledger, entry: &Entry) -> u32 {
    let is_kept = class == Class::Batch && ledger.clock.at() < line.kept_until() && ledger.slots(entry.owner) > 1;
    u32::from(is_kept)
}

/// The limit or budget that makes a request wait now, if any. Takes nothing.
pub(super) fn judge(entry: &Entry, line: &mut Line, ledger: &mut Ledger, callers: &Callers) -> Option<Block> {
    let reserve = reserve(entry.class, line, ledger, entry);
    let block = ledger.blocked(&entry.charge(), reserve);
    match callers.mode {
        Mode::Enforce if callers.has_budgets => later(callers.blocked(entry, line, ledger), block),
        Mode::Enforce | Mode::Observe | Mode::Off => block,
    }
}

/// Counts a request that an observed budget would have refused.
pub(super) fn observe(entry: &Entry, line: &mut Line, ledger: &mut Ledger, callers: &mut Callers) {
    if callers.mode == Mode::Observe && callers.blocked(entry, line, ledger).is_some() {
        callers.observed = callers.observed.saturating_add(1);
    }
}

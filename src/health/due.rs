//! Sends the questions that are due.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use metrica::login;
use tokio::time::Instant;

use super::ask::{self, About, Asker, Finds};
use super::lists::Account;
use super::probe::Place;
use super::{Health, TrackedToken, counters};
use crate::config::TokenCounters;
use crate::metrics::process::ProcessMeters;
use crate::policy::names::TokenAlias;
use crate::quota::{Class, Counters, Groups, Micros, Request, SECOND};
use crate::token::Token;
use crate::worker::{Generation, Slot, Suspicion, TokenUse};

impl Health {
    /// Determines with which tokens counters are listed (rule 8): for each account one that can be asked, and the same as
    /// before if possible.
    fn follow_lists(&mut self, now: Instant) {
        let mut wanted: BTreeMap<Account, (TokenUse, Vec<TokenAlias>)> = BTreeMap::new();
        let wants = |slot: &&Slot| slot.counters == TokenCounters::Auto && slot.token.is_some();
        for slot in self.generation.tokens.iter().filter(wants) {
            let asker = self.asking_token(slot.token_use());
            if !self.owners.may_read(asker) {
                continue;
            }
            let owner = self.owners.owner(slot.alias).map(login::canonical);
            let account = owner.map_or(Account::Token(asker.alias), Account::Owner);
            let before = self.lists.asker(&account).map(|before| before.alias);
            let rank = |asker: TokenUse| {
                let is_refused =
                    self.tracked_tokens.get(&asker.alias).is_none_or(|tracked| tracked.standing.is_refused());
                (is_refused, Some(asker.alias) != before)
            };
            let (best, of) = wanted.entry(account).or_insert_with(|| (asker, Vec::new()));
            if rank(asker) < rank(*best) {
                *best = asker;
            }
            of.push(slot.alias);
        }
        self.lists.follow(wanted, now);
    }

    /// Sends every question that is due (rule 6).
    pub(super) fn ask_what_is_due(&mut self) {
        let now = Instant::now();
        self.follow_lists(now);
        for slot in &self.generation.tokens {
            let (Some(token), Some(tracked)) = (&slot.token, self.tracked_tokens.get_mut(&slot.alias)) else {
                continue;
            };
            if tracked.is_busy || tracked.epoch != slot.epoch {
                continue;
            }
            let about = self.owners.about(slot.token_use(), slot.owner.as_deref());
            let asker = |place: &Place| asker(place, token, (slot.token_use(), about), &self.meters, &self.finds);
            let metrica = counted(&self.metrica, &self.generation, slot.alias);
            if tracked.machine.due().is_some_and(|due| due <= now) {
                tracked.is_busy = true;
                tracked.machine.asks(now);
                ask::whether_valid(asker(&metrica));
            } else if let Some((place, path)) = &self.identity
                && tracked.introduction.is_some_and(|due| due <= now)
            {
                (tracked.is_busy, tracked.introduction) = (true, None);
                let secrets = self.generation.tokens.iter().filter_map(|slot| slot.token.clone()).collect();
                ask::owner(asker(place), path, secrets);
            } else if !tracked.standing.is_refused() && self.lists.due(slot.alias).is_some_and(|due| due <= now) {
                let Some((offset, begins)) = self.lists.begin(slot.alias, now) else { continue };
                tracked.is_busy = true;
                self.begun.extend(begins.then(|| slot.token_use()));
                counters::page(asker(&metrica), offset);
            }
        }
        self.ask_what_is_open();
    }

    /// Sends the next open follow-up question (rule 4).
    fn ask_what_is_open(&mut self) {
        let tracked_tokens = &self.tracked_tokens;
        let is_free = |tracked: &TrackedToken| !tracked.is_busy && !tracked.standing.is_refused();
        let may_ask = |token_use: TokenUse| tracked_tokens.get(&token_use.alias).is_some_and(is_free);
        let Some((token_use, suspicion)) = self.follow_ups.next(Instant::now(), may_ask) else { return };
        // The scopes that it is declared to have may have changed since.
        let is_same = |slot: &&Slot| slot.alias == token_use.alias && slot.epoch == token_use.epoch;
        let slot = self.generation.tokens.iter().find(is_same);
        let token = slot.and_then(|slot| slot.token.as_ref());
        let (Some(token), Some(tracked)) = (token, self.tracked_tokens.get_mut(&token_use.alias)) else {
            self.follow_ups.answered();
            return;
        };
        tracked.is_busy = true;
        let mut about = self.owners.about(token_use, slot.and_then(|slot| slot.owner.as_deref()));
        about.owner_is_open &= self.identity.is_none();
        let metrica = counted(&self.metrica, &self.generation, token_use.alias);
        let asker = asker(&metrica, token, (token_use, about), &self.meters, &self.finds);
        match suspicion {
            Suspicion::Counters(login, counters) => ask::permissions(asker, login, counters),
            Suspicion::Logins => ask::logins(asker),
            Suspicion::Reads => ask::reads(asker),
        }
    }
}

fn asker(
    place: &Place,
    token: &Token,
    (token_use, about): (TokenUse, About),
    meters: &Arc<ProcessMeters>,
    finds: &Finds,
) -> Asker {
    Asker {
        place: place.clone(),
        token: token.clone(),
        token_use,
        about,
        meters: meters.clone(),
        finds: finds.clone(),
        requests: Rc::default(),
    }
}

/// Returns the place, with the turns that the quota of a token's owner demands.
fn counted(place: &Place, generation: &Generation, alias: TokenAlias) -> Place {
    let position = generation.tokens.iter().position(|slot| slot.alias == alias);
    let request = position.and_then(|position| {
        let numbers = generation.quota.as_ref()?;
        Some(Request {
            owner: *numbers.owners.get(position)?,
            caller: numbers.own,
            egress: numbers.egress,
            groups: Groups::CLIENT_READ,
            class: Class::Interactive,
            counters: Counters::default(),
            rest: LONGEST_TURN,
        })
    });
    request.map_or_else(|| place.clone(), |request| place.counted(generation.turns.clone(), request))
}

/// The longest time that the gate's own request waits for its turn.
const LONGEST_TURN: Micros = 10 * SECOND;

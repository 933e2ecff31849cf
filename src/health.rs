//! Token health: probes tokens, suspends those that Metrica rejects, and learns what they may do.
//!
//! 1. The [`machine`] of a token decides whether the token is used. A token is suspended when Metrica rejects it in a probe
//!    too: its callers are refused, or its standby is used.
//! 2. Tokens of several owners that are rejected at the same time are an outage (`health/outage.rs`). When Metrica accepts
//!    one of them again, the others are probed at once; each remains part of the outage until its own probe is answered.
//! 3. A refused caller receives the conclusion once the workers know it, so its next request is decided with it.
//! 4. With `learn`, the gate sends requests that can tell the reason of a refusal ([`follow_ups`]), never with a suspended
//!    token.
//! 5. With `identity`, the gate asks who owns each new token until it gets a response. Facts that one token shows about its
//!    owner hold for all tokens of that owner (`health/owners.rs`).
//! 6. At most one question per token is under way (`health/ask.rs`); the validity probe comes first.
//! 7. Metrica refusing a counter never suspends a token.
//! 8. With `counters: auto`, the gate lists the counters of a token's owner (`health/lists.rs`), with another token of the
//!    owner if this one cannot read. No request waits for the list. A report makes the gate read the lists again of the
//!    tokens that share a caller with the reporting one, and of no others.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use metrica::cause::Conclusion;
use metrica::observed_rights::Fact;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until};

use crate::config::{self, Config, TokenHealth};
use crate::metrics::process::ProcessMeters;
use crate::policy::names::TokenAlias;
use crate::process::workers::Workers;
use crate::reload::{Concern, Concerns};
use crate::token::Standing;
use crate::upstream::Upstream;
use crate::worker::{Generation, Report, Slot, Suspicion, TokenUse};

mod ask;
mod counters;
mod due;
pub mod follow_ups;
pub mod identity;
mod judge;
mod learn;
mod lists;
pub mod machine;
mod outage;
mod owners;
pub mod probe;
pub mod published_keys;
pub mod question;

use ask::{Finding, Finds};
use follow_ups::FollowUps;
use lists::{Again, Lists};
use machine::{Event, Machine, Reaction};
use owners::Owners;
use probe::Place;

/// The time between two attempts to learn the owner of a token.
const INTRODUCTION: Duration = Duration::from_secs(60);

/// The maximum number of requests that wait for the conclusion about a token; others get the diagnosis of their response
/// alone.
const MOST_WAITING: usize = 1000;

/// The health state of one token.
struct TrackedToken {
    epoch: u64,
    machine: Machine,
    standing: Standing,
    /// A question is under way (rule 6).
    is_busy: bool,
    /// The requests that wait for the conclusion of a probe.
    waiting: Vec<oneshot::Sender<Conclusion>>,
    /// Rule 5: when to ask for the owner; `None` while the question is under way or once it is answered.
    introduction: Option<Instant>,
}

/// Tracks the health of all tokens; see the module.
pub struct Health {
    reports: mpsc::UnboundedReceiver<Report>,
    found: mpsc::UnboundedReceiver<(TokenUse, Finding)>,
    finds: Finds,
    settings: TokenHealth,
    metrica: Place,
    identity: Option<(Place, Arc<str>)>,
    identity_settings: Option<config::Identity>,
    generation: Arc<Generation>,
    tracked_tokens: BTreeMap<TokenAlias, TrackedToken>,
    follow_ups: FollowUps,
    owners: Owners,
    lists: Lists,
    /// The tokens with which lists were begun, until the workers are told.
    begun: Vec<TokenUse>,
    /// The tokens that share a caller with each token, itself included.
    sharing: BTreeMap<TokenAlias, BTreeSet<TokenAlias>>,
    /// Conclusions to deliver to waiting requests (rule 3).
    concluded: Vec<(oneshot::Sender<Conclusion>, Conclusion)>,
    meters: Arc<ProcessMeters>,
}

impl Health {
    /// Tracks the tokens of `generation`, from the `reports` of the workers.
    ///
    /// # Errors
    /// When `identity` cannot be prepared.
    pub fn new(
        config: &Config,
        generation: Arc<Generation>,
        reports: mpsc::UnboundedReceiver<Report>,
        meters: Arc<ProcessMeters>,
    ) -> anyhow::Result<Self> {
        let (finds, found) = mpsc::unbounded_channel();
        Ok(Self {
            reports,
            found,
            finds,
            settings: config.token_health,
            metrica: Place::new(generation.upstream.clone()),
            identity: identity(config)?,
            identity_settings: config.identity.clone(),
            generation,
            tracked_tokens: BTreeMap::new(),
            follow_ups: FollowUps::default(),
            owners: Owners::default(),
            lists: Lists::default(),
            begun: Vec::new(),
            sharing: BTreeMap::new(),
            concluded: Vec::new(),
            meters,
        })
    }

    /// Adopts a new configuration and generation. Call it on a single-threaded runtime.
    pub fn follow(&mut self, config: &Config, generation: &Arc<Generation>) {
        self.settings = config.token_health;
        if !Arc::ptr_eq(&self.generation.upstream, &generation.upstream) {
            self.metrica = Place::new(generation.upstream.clone());
        }
        if self.identity_settings != config.identity {
            self.identity_settings.clone_from(&config.identity);
            match identity(config) {
                Ok(identity) => self.identity = identity,
                Err(error) => tracing::error!(error = format!("{error:#}"), "identity is not configured"),
            }
        }
        self.generation = generation.clone();
        self.sharing = learn::sharing(generation);
        let is_there = |alias: TokenAlias, epoch: u64| {
            let mut slots = generation.tokens.iter();
            slots.any(|slot| slot.alias == alias && slot.epoch == epoch && slot.token.is_some())
        };
        self.tracked_tokens.retain(|alias, tracked| is_there(*alias, tracked.epoch));
        self.follow_ups.keep(is_there);
        let held = generation.tokens.iter().filter(|slot| slot.token.is_some());
        self.owners.follow(held.map(Slot::token_use));
        let now = Instant::now();
        for slot in generation.tokens.iter().filter(|slot| slot.token.is_some()) {
            let tracked = self.tracked_tokens.entry(slot.alias).or_insert_with(|| TrackedToken {
                epoch: slot.epoch,
                machine: Machine::new(now, self.settings),
                standing: Standing::Healthy,
                is_busy: false,
                waiting: Vec::new(),
                introduction: Some(now),
            });
            let position = generation.tokens.iter().position(|other| other.alias == slot.alias);
            let stands_by = generation.tokens.iter().any(|other| other.standby.is_some() && other.standby == position);
            tracked.machine.on(Event::StandsBy(stands_by), now, self.settings);
        }
        self.ask_what_is_due();
    }

    /// Probes these tokens, or all of them, again, and lists counters again: what is known may be out of date.
    pub fn look_again(&mut self, of: Option<&BTreeSet<TokenAlias>>) {
        let now = Instant::now();
        self.lists.ask_again(Again::Changed, now, |_| true);
        for (alias, tracked) in &mut self.tracked_tokens {
            if of.is_none_or(|of| of.contains(alias)) {
                tracked.machine.on(Event::LookAgain, now, self.settings);
                if let Some(slot) = self.generation.tokens.iter().find(|slot| slot.alias == *alias) {
                    self.follow_ups.look_again(slot.token_use(), now);
                }
            }
        }
        self.ask_what_is_due();
    }

    /// Waits for a report, a finding or a due question, and handles it. Returns whether [`Self::concerns`] may have
    /// changed.
    pub async fn next_event(&mut self, workers: &Workers) -> bool {
        for (waiting, conclusion) in self.concluded.drain(..) {
            // A closed receiver needs no conclusion.
            let _ = waiting.send(conclusion);
        }
        for token_use in std::mem::take(&mut self.begun) {
            self.learn(token_use, vec![Fact::ListBegins], workers);
        }
        let next = self.next_question();
        tokio::select! {
            Some(report) = self.reports.recv() => self.take(report, workers),
            Some((token_use, finding)) = self.found.recv() => self.take_finding(token_use, finding, workers),
            () = until(next), if next.is_some() => {}
        }
        self.ask_what_is_due();
        self.judge()
    }

    fn next_question(&self) -> Option<Instant> {
        let introduces = self.identity.is_some();
        let idle = self.tracked_tokens.iter().filter(|(_, tracked)| !tracked.is_busy);
        let due = |(alias, tracked): (&TokenAlias, &TrackedToken)| {
            let introduction = tracked.introduction.filter(|_| introduces);
            let list = self.lists.due(*alias).filter(|_| !tracked.standing.is_refused());
            tracked.machine.due().into_iter().chain(introduction).chain(list).min()
        };
        idle.filter_map(due).min()
    }

    /// The tokens that are not healthy.
    #[must_use]
    pub fn concerns(&self) -> Concerns {
        let concerned = self.tracked_tokens.iter().filter(|(_, tracked)| tracked.standing != Standing::Healthy);
        let concern = |(alias, tracked): (&TokenAlias, &TrackedToken)| {
            let TrackedToken { epoch, standing, ref machine, .. } = *tracked;
            (
                *alias,
                Concern {
                    epoch,
                    standing,
                    since: machine.since(),
                    next_look: machine.due().filter(|_| standing.is_refused()),
                },
            )
        };
        concerned.map(concern).collect()
    }

    fn take(&mut self, report: Report, workers: &Workers) {
        let (token_use, now) = (report.token_use(), Instant::now());
        // A late response to a replaced token does not concern the current one.
        let Some(tracked) =
            self.tracked_tokens.get_mut(&token_use.alias).filter(|tracked| tracked.epoch == token_use.epoch)
        else {
            return;
        };
        match report {
            Report::Accepted(_) => drop(tracked.machine.on(Event::Succeeded, now, self.settings)),
            Report::Fulfilled(_) => self.meters.token_worked(token_use.alias),
            Report::Refused(_, waiting) => self.conclude(token_use.alias, Event::Refused, waiting),
            Report::Doubted(_, waiting) => {
                if self.settings.learn {
                    self.conclude(token_use.alias, Event::Doubted, waiting);
                }
            }
            Report::Learnt(_, fact) => {
                let counter = if let Fact::Permission(counter, _) = fact { Some(counter) } else { None };
                if self.is_known_to_workers(&fact) {
                    self.learn(token_use, vec![fact], workers);
                }
                if let Some(counter) = counter {
                    self.follow_ups.take_again(self.asking_token(token_use), counter, now);
                }
            }
            Report::AccessChanged(_) => self.list_again(Again::Changed, token_use, now),
            Report::Contradicted(_) => self.list_again(Again::Contradicted, token_use, now),
            Report::Shown(_, counter) => self.follow_ups.is_old(self.asking_token(token_use), counter),
            Report::Denied(_, suspicion) => {
                let is_healthy = !tracked.standing.is_refused();
                if let Suspicion::Counters(None, counters) = &suspicion {
                    self.list_again(Again::Denied, token_use, now);
                    self.ask_those_that_lacked(token_use, counters, now);
                }
                if self.settings.learn && is_healthy {
                    self.suspicion(token_use, suspicion, now);
                }
            }
        }
    }

    /// Handles a refusal that makes a token suspect. The waiting request gets the conclusion now, or when a probe is
    /// answered.
    fn conclude(&mut self, alias: TokenAlias, event: Event, waiting: oneshot::Sender<Conclusion>) {
        let Some(tracked) = self.tracked_tokens.get_mut(&alias) else { return };
        match tracked.machine.on(event, Instant::now(), self.settings) {
            Some(Reaction::Now(conclusion)) => self.concluded.push((waiting, conclusion)),
            Some(Reaction::Wait) | None => {
                if tracked.waiting.len() >= MOST_WAITING {
                    tracked.waiting.retain(|waiting| !waiting.is_closed());
                }
                tracked.waiting.push(waiting);
                tracked.waiting.truncate(MOST_WAITING);
            }
        }
    }

    fn take_finding(&mut self, token_use: TokenUse, finding: Finding, workers: &Workers) {
        let suspicion = if matches!(finding, Finding::Answered(_)) { self.follow_ups.answered() } else { None };
        let Some(tracked) =
            self.tracked_tokens.get_mut(&token_use.alias).filter(|tracked| tracked.epoch == token_use.epoch)
        else {
            return;
        };
        tracked.is_busy = false;
        match finding {
            Finding::Concluded(conclusion, found) => {
                tracked.machine.on(Event::Probed(conclusion), Instant::now(), self.settings);
                if conclusion == Conclusion::Accepted {
                    self.meters.token_worked(token_use.alias);
                }
                self.concluded.extend(tracked.waiting.drain(..).map(|waiting| (waiting, conclusion)));
                // Rule 2.
                if conclusion == Conclusion::Accepted && tracked.standing == Standing::Outage {
                    self.probe_outage_again();
                } else if conclusion == Conclusion::Rejected && tracked.standing == Standing::Outage {
                    tracked.standing = Standing::Suspended;
                }
                self.take_found(token_use, found, workers);
            }
            Finding::Answered(found) => {
                self.follow_ups.charge(token_use.alias, found.requests.saturating_sub(1), Instant::now());
                if found.doubts_token {
                    tracked.machine.on(Event::Doubted, Instant::now(), self.settings);
                }
                self.take_found(token_use, found, workers);
                // The token lacks read access; another token of its owner may have it.
                let is_of_owner = |(asked, suspicion): &(TokenUse, Suspicion)| {
                    *suspicion != Suspicion::Reads && self.asking_token(*asked) != *asked
                };
                if let Some((asked, suspicion)) = suspicion.filter(is_of_owner) {
                    self.follow_ups.take(self.asking_token(asked), suspicion, Instant::now());
                }
            }
            Finding::Page(page, found, requests) => {
                if found.doubts_token {
                    tracked.machine.on(Event::Doubted, Instant::now(), self.settings);
                }
                self.take_found(token_use, found, workers);
                let read = self.lists.page(token_use.alias, page, requests, Instant::now());
                if let Some(read) = read {
                    let changed = self.take_list(token_use, read, workers);
                    self.lists.finish(token_use.alias, changed, Instant::now());
                }
            }
            Finding::Owner(Some(login)) => self.learn(token_use, vec![Fact::Owner(login)], workers),
            Finding::Owner(None) => tracked.introduction = Some(Instant::now() + INTRODUCTION),
        }
    }

    fn probe_outage_again(&mut self) {
        let now = Instant::now();
        for tracked in self.tracked_tokens.values_mut().filter(|tracked| tracked.standing == Standing::Outage) {
            tracked.machine.on(Event::LookAgain, now, self.settings);
        }
    }
}

/// Waits until a question is due, if one is.
async fn until(next: Option<Instant>) {
    if let Some(next) = next {
        sleep_until(next).await;
    }
}

fn identity(config: &Config) -> anyhow::Result<Option<(Place, Arc<str>)>> {
    let Some(identity) = &config.identity else { return Ok(None) };
    let place = Place::new(Arc::new(Upstream::new(identity.place.clone())?));
    Ok(Some((place, identity.path.as_str().into())))
}

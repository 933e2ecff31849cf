//! Health: what becomes of a token that Metrica does not take, and what is asked about tokens.
//!
//! 1. A token that an answer shows to be invalid is parked: nothing is sent with it any more. Its callers are refused at
//!    once, or their requests go with its standby.
//! 2. A question with it, the list of counters, finds out whether it is taken again: after `token_health.probe_after`, and
//!    after each answer that it is not, after twice the time, up to `probe_at_most`. An answer that shows it to be known ends
//!    it, whatever that refuses; so does another token in its file. No answer at all leaves the time as it is.
//! 3. Where only the status said so (a 401 whose body does not say `invalid_token`), or a question found it valid not long ago,
//!    it is asked about before it is parked, and used until then. Each time that it is valid after all, such answers are
//!    believed less: nothing is asked again for `probe_after`, then twice as long. So no caller who finds an answer that looks
//!    so can take the token from the others.
//! 4. With `learn`, what could tell the reason of a refusal is asked ([`doubts`]).
//! 5. Where `identity` is configured, a token that is new is asked whose it is, until there is an answer.
//! 6. A refusal of a counter never parks a token.

use std::collections::BTreeMap;
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use crate::config::{self, Config, TokenHealth};
use crate::crew::Crew;
use crate::knowledge::Fact;
use crate::probe::Place;
use crate::reload::Parked;
use crate::scope::{Scope, ScopeSet};
use crate::symbol::TokenAlias;
use crate::token::Token;
use crate::upstream::Upstream;
use crate::worker::{Generation, Report, Sender};

mod ask;
pub mod doubts;
pub mod machine;
pub mod outage;

use ask::{Finding, Finds};
use doubts::Doubts;

/// Between two tries to learn whose a token is.
const INTRODUCTION: Duration = Duration::from_secs(60);

/// A token that is not, or may not be, taken.
#[derive(Debug, Clone, Copy)]
struct Invalid {
    epoch: u64,
    /// Nothing is sent with it.
    is_parked: bool,
    /// How long the next wait is.
    wait: Duration,
    /// When it is asked about; `None` while it is.
    next: Option<Instant>,
}

/// A token that a question found valid (rule 3).
#[derive(Debug, Clone, Copy)]
struct Trusted {
    epoch: u64,
    /// An answer alone does not park it until then.
    until: Instant,
    /// No answer is looked into until then.
    calm_until: Instant,
    /// And then for how long.
    calm: Duration,
}

/// See the module.
pub struct Health {
    reports: mpsc::UnboundedReceiver<Report>,
    found: mpsc::UnboundedReceiver<(Sender, Finding)>,
    finds: Finds,
    settings: TokenHealth,
    metrica: Place,
    identity: Option<(Place, Arc<str>)>,
    identity_settings: Option<config::Identity>,
    generation: Arc<Generation>,
    invalid: BTreeMap<TokenAlias, Invalid>,
    trusted: BTreeMap<TokenAlias, Trusted>,
    doubts: Doubts,
    /// Rule 5: which token was asked, and when it is again.
    introduced: BTreeMap<TokenAlias, (u64, Option<Instant>)>,
}

impl Health {
    /// Looks after the tokens of `generation`, of which `reports` tell.
    ///
    /// # Errors
    /// When `identity` cannot be prepared.
    pub fn new(
        config: &Config,
        generation: Arc<Generation>,
        reports: mpsc::UnboundedReceiver<Report>,
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
            invalid: BTreeMap::new(),
            trusted: BTreeMap::new(),
            doubts: Doubts::default(),
            introduced: BTreeMap::new(),
        })
    }

    /// What is in use now. Belongs on a runtime of one thread.
    pub fn follow(&mut self, config: &Config, generation: &Arc<Generation>) {
        self.settings = config.token_health;
        if !Arc::ptr_eq(&self.generation.upstream, &generation.upstream) {
            self.metrica = Place::new(generation.upstream.clone());
        }
        if self.identity_settings != config.identity {
            self.identity_settings.clone_from(&config.identity);
            match identity(config) {
                Ok(identity) => self.identity = identity,
                Err(error) => tracing::error!(error = format!("{error:#}"), "identity is not asked"),
            }
        }
        self.generation = generation.clone();
        let is_there = |alias: &TokenAlias, epoch: u64| {
            let mut slots = generation.tokens.iter();
            slots.any(|slot| slot.alias == *alias && slot.epoch == epoch && slot.token.is_some())
        };
        self.invalid.retain(|alias, invalid| is_there(alias, invalid.epoch));
        self.trusted.retain(|alias, trusted| is_there(alias, trusted.epoch));
        self.introduced.retain(|alias, (epoch, _)| is_there(alias, *epoch));
        self.introduce();
    }

    /// Waits for something to be heard or to be asked, and does it. Whether [`Self::parked`] may have changed.
    pub async fn attend(&mut self, crew: &Crew) -> bool {
        let of_tokens = self.invalid.values().filter_map(|invalid| invalid.next);
        let next = of_tokens.chain(self.introduced.values().filter_map(|(_, next)| *next)).min();
        let due = async {
            match next {
                Some(next) => sleep_until(next).await,
                None => pending().await,
            }
        };
        tokio::select! {
            Some(report) = self.reports.recv() => self.take(report, crew),
            Some((sender, finding)) = self.found.recv() => self.take_finding(sender, finding, crew),
            () = due => {
                self.probe_what_is_due();
                self.introduce();
                false
            }
        }
    }

    /// The tokens that are parked.
    #[must_use]
    pub fn parked(&self) -> Parked {
        let parked = self.invalid.iter().filter(|(_, invalid)| invalid.is_parked);
        parked.map(|(alias, invalid)| (*alias, invalid.epoch)).collect()
    }

    fn take(&mut self, report: Report, crew: &Crew) -> bool {
        let (Report::Learnt(sender, _) | Report::Invalid { sender, .. } | Report::Denied(sender, _)) = &report;
        // A late answer to a token that was in the file before says nothing of the one that is.
        let Some(token) = self.token(*sender).cloned() else { return false };
        match report {
            Report::Learnt(sender, fact) => self.learn(sender, &fact, crew),
            Report::Invalid { sender, is_certain } => return self.doubt(sender, is_certain),
            Report::Denied(sender, doubt) => {
                if self.settings.learn {
                    self.doubts.take(sender, doubt, &token, &self.metrica, &self.finds);
                }
            }
        }
        false
    }

    fn take_finding(&mut self, sender: Sender, finding: Finding, crew: &Crew) -> bool {
        if matches!(finding, Finding::Answered(_)) {
            self.doubts.next(&self.metrica, &self.finds);
        }
        if self.token(sender).is_none() {
            return false;
        }
        match finding {
            Finding::Answered(facts) => facts.iter().for_each(|fact| self.learn(sender, fact, crew)),
            Finding::Owner(Some(login)) => {
                self.compare(sender, &login);
                self.learn(sender, &Fact::Owner(login), crew);
            }
            Finding::Owner(None) => {
                self.introduced.insert(sender.alias, (sender.epoch, Some(Instant::now() + INTRODUCTION)));
            }
            Finding::Valid => return self.trust(sender),
            Finding::Invalid => return self.is_invalid(sender),
            Finding::Unknown => self.is_unknown(sender),
        }
        false
    }

    fn learn(&mut self, sender: Sender, fact: &Fact, crew: &Crew) {
        let read: ScopeSet = [Scope::Read].into_iter().collect();
        if *fact == Fact::Proven(read) {
            self.doubts.reads(sender);
        }
        crew.learn(sender, fact);
    }

    /// The token of a sender, while it is the one in use.
    fn token(&self, sender: Sender) -> Option<&Token> {
        let mut slots = self.generation.tokens.iter();
        slots.find(|slot| slot.alias == sender.alias && slot.epoch == sender.epoch)?.token.as_ref()
    }

    /// Rules 1 and 3.
    fn doubt(&mut self, sender: Sender, is_certain: bool) -> bool {
        let Sender { alias, epoch, .. } = sender;
        let now = Instant::now();
        let trusted = self.trusted.get(&alias).filter(|trusted| trusted.epoch == epoch);
        let is_known = self.invalid.get(&alias).is_some_and(|invalid| invalid.epoch == epoch);
        if is_known || trusted.is_some_and(|trusted| now < trusted.calm_until) {
            return false;
        }
        let is_parked = is_certain && trusted.is_none_or(|trusted| now >= trusted.until);
        let wait = self.settings.probe_after;
        let next = Some(if is_parked { now + wait } else { now });
        self.invalid.insert(alias, Invalid { epoch, is_parked, wait, next });
        if is_parked {
            self.say_parked(alias);
        }
        is_parked
    }

    fn say_parked(&self, alias: TokenAlias) {
        let standby = self.standby_of(alias).map_or("none", TokenAlias::as_str);
        tracing::error!(
            token = alias.as_str(),
            standby,
            "Metrica takes the token for invalid: nothing is sent with it until its file changes or Metrica takes it again"
        );
    }

    /// The token that takes over, if it can be used itself.
    fn standby_of(&self, alias: TokenAlias) -> Option<TokenAlias> {
        let own = self.generation.tokens.iter().find(|slot| slot.alias == alias)?;
        let standby = self.generation.tokens.get(own.standby?)?;
        let is_ready = standby.token.is_some() && !self.invalid.contains_key(&standby.alias);
        is_ready.then_some(standby.alias)
    }

    /// Rule 2.
    fn probe_what_is_due(&mut self) {
        let now = Instant::now();
        for (alias, invalid) in &mut self.invalid {
            if invalid.next.is_none_or(|next| next > now) {
                continue;
            }
            invalid.next = None;
            let slot = self.generation.tokens.iter().find(|slot| slot.alias == *alias && slot.epoch == invalid.epoch);
            if let Some(slot) = slot
                && let Some(token) = &slot.token
            {
                ask::whether_valid(self.metrica.clone(), token.clone(), slot.sender(), self.finds.clone());
            }
        }
    }

    /// A question found it valid.
    fn trust(&mut self, sender: Sender) -> bool {
        let Sender { alias, epoch, .. } = sender;
        let Some(invalid) = self.invalid.get(&alias).filter(|invalid| invalid.epoch == epoch).copied() else {
            return false;
        };
        self.invalid.remove(&alias);
        let (now, most) = (Instant::now(), self.settings.probe_at_most);
        let before = self.trusted.get(&alias).filter(|trusted| trusted.epoch == epoch && now < trusted.until);
        let calm = before.map_or(self.settings.probe_after, |before| (before.calm * 2).min(most));
        // One that comes back may go again: only a false alarm is a reason not to listen.
        let calm_until = if invalid.is_parked { now } else { now + calm };
        self.trusted.insert(alias, Trusted { epoch, until: now + most.max(calm * 2), calm_until, calm });
        if invalid.is_parked {
            tracing::info!(token = alias.as_str(), "Metrica takes the token again");
        }
        invalid.is_parked
    }

    /// A question found it invalid: parked from now on at the latest.
    fn is_invalid(&mut self, sender: Sender) -> bool {
        let (most, known) = (self.settings.probe_at_most, self.invalid.get_mut(&sender.alias));
        let Some(invalid) = known.filter(|invalid| invalid.epoch == sender.epoch) else { return false };
        let was_parked = std::mem::replace(&mut invalid.is_parked, true);
        if was_parked {
            invalid.wait = (invalid.wait * 2).min(most);
        }
        invalid.next = Some(Instant::now() + invalid.wait);
        if !was_parked {
            self.say_parked(sender.alias);
        }
        !was_parked
    }

    /// There was no answer: one that is parked is asked about again, one that is not was perhaps never invalid.
    fn is_unknown(&mut self, sender: Sender) {
        let wait = self.settings.probe_after;
        match self.invalid.get_mut(&sender.alias).filter(|invalid| invalid.epoch == sender.epoch) {
            Some(invalid) if invalid.is_parked => invalid.next = Some(Instant::now() + wait),
            Some(_) => _ = self.invalid.remove(&sender.alias),
            None => {}
        }
    }

    /// Rule 5.
    fn introduce(&mut self) {
        let Some((place, path)) = &self.identity else { return };
        let now = Instant::now();
        for slot in &self.generation.tokens {
            let Some(token) = &slot.token else { continue };
            let known = self.introduced.get(&slot.alias).filter(|(epoch, _)| *epoch == slot.epoch);
            if known.is_none_or(|(_, next)| next.is_some_and(|next| next <= now)) {
                self.introduced.insert(slot.alias, (slot.epoch, None));
                let secrets = self.generation.tokens.iter().filter_map(|slot| slot.token.clone()).collect();
                ask::owner(place.clone(), path, token.clone(), secrets, slot.sender(), self.finds.clone());
            }
        }
    }

    /// Says it when a token is another's.
    fn compare(&self, sender: Sender, actual: &str) {
        let slot = self.generation.tokens.iter().find(|slot| slot.alias == sender.alias);
        if let Some(expected) = slot.and_then(|slot| slot.owner.as_deref())
            && !crate::login::is_same(expected, actual)
        {
            tracing::error!(
                token = sender.alias.as_str(),
                expected,
                actual,
                "the token was issued by another account than the configuration names as its owner"
            );
        }
    }
}

fn identity(config: &Config) -> anyhow::Result<Option<(Place, Arc<str>)>> {
    let Some(identity) = &config.identity else { return Ok(None) };
    let place = Place::new(Arc::new(Upstream::new(identity.place.clone())?));
    Ok(Some((place, identity.path.as_str().into())))
}

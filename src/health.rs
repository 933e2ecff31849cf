//! Health: what becomes of a token that Metrica does not take, and what is asked about tokens.
//!
//! 1. A token that an answer shows to be invalid is parked: nothing is sent with it any more. Its callers are refused at
//!    once, or their requests go with its standby.
//! 2. A question with it, the list of counters, finds out whether it is taken again: after `token_health.probe_after`, and
//!    then after twice the time, up to `probe_at_most`. An answer that is no refusal of the token ends it; so does another
//!    token in its file.
//! 3. Where only the status said so (a 401 without a known `error_type`), the first question is asked at once. So it is for as
//!    long as `probe_at_most` after a question has found the token valid, and a status alone parks it no more in that time: no
//!    caller who finds an answer that looks so can take the token from the others.
//! 4. With `learn`, a counter that was refused is asked about once an hour, at most [`QUESTIONS_AN_HOUR`] in all.
//! 5. Where `identity` is configured, a token that is new is asked whose it is.
//! 6. A refusal of a counter never parks a token.

use std::collections::BTreeMap;
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use rustc_hash::FxHashMap;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use crate::config::{self, Config, TokenHealth};
use crate::crew::Crew;
use crate::knowledge::Fact;
use crate::probe::Place;
use crate::reload::Parked;
use crate::symbol::TokenAlias;
use crate::token::Token;
use crate::upstream::Upstream;
use crate::worker::{Generation, Report, Sender};

mod ask;

use ask::Finding;

/// Rule 4.
pub const QUESTIONS_AN_HOUR: usize = 60;

const HOUR: Duration = Duration::from_secs(3600);

/// A token that is parked.
#[derive(Debug, Clone, Copy)]
struct Invalid {
    epoch: u64,
    /// How long the next wait is.
    wait: Duration,
    /// When it is asked about; `None` while it is.
    next: Option<Instant>,
}

/// What is heard: of the workers, or of a question of its own.
enum Heard {
    Report(Report),
    Found(Sender, Finding),
}

/// See the module.
pub struct Health {
    reports: mpsc::UnboundedReceiver<Report>,
    found: mpsc::UnboundedReceiver<(Sender, Finding)>,
    finds: mpsc::UnboundedSender<(Sender, Finding)>,
    settings: TokenHealth,
    metrica: Place,
    identity: Option<(Place, Arc<str>)>,
    identity_settings: Option<config::Identity>,
    generation: Arc<Generation>,
    invalid: BTreeMap<TokenAlias, Invalid>,
    /// Rule 3: until when a question that found it valid counts.
    trusted: BTreeMap<TokenAlias, (u64, Instant)>,
    asked: FxHashMap<(TokenAlias, u64, u64), Instant>,
    introduced: BTreeMap<TokenAlias, u64>,
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
            asked: FxHashMap::default(),
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
        self.invalid.retain(|alias, invalid| {
            self.generation
                .tokens
                .iter()
                .any(|slot| slot.alias == *alias && slot.epoch == invalid.epoch && slot.token.is_some())
        });
        self.introduce();
    }

    /// Waits for something to be heard or to be asked, and does it. Whether [`Self::parked`] may have changed.
    pub async fn attend(&mut self, crew: &Crew) -> bool {
        let next = self.invalid.values().filter_map(|invalid| invalid.next).min();
        let due = async {
            match next {
                Some(next) => sleep_until(next).await,
                None => pending().await,
            }
        };
        let heard = tokio::select! {
            Some(report) = self.reports.recv() => Heard::Report(report),
            Some((sender, finding)) = self.found.recv() => Heard::Found(sender, finding),
            () = due => {
                self.probe_what_is_due();
                return false;
            }
        };
        match heard {
            Heard::Report(Report::Learnt(sender, fact)) => crew.learn(sender, &fact),
            Heard::Report(Report::Invalid { sender, is_certain }) => return self.doubt(sender, is_certain),
            Heard::Report(Report::Refused(sender, counter)) => self.wonder(sender, counter),
            Heard::Found(sender, Finding::Fact(fact)) => {
                self.compare(sender, &fact);
                crew.learn(sender, &fact);
            }
            Heard::Found(sender, Finding::Valid) => return self.trust(sender),
            Heard::Found(sender, Finding::Invalid | Finding::Nothing) => self.wait_longer(sender),
        }
        false
    }

    /// The tokens that are parked.
    #[must_use]
    pub fn parked(&self) -> Parked {
        self.invalid.iter().map(|(alias, invalid)| (*alias, invalid.epoch)).collect()
    }

    /// The token of a sender, while it is the one in use.
    fn token(&self, sender: Sender) -> Option<&Token> {
        let mut slots = self.generation.tokens.iter();
        slots.find(|slot| slot.alias == sender.alias && slot.epoch == sender.epoch)?.token.as_ref()
    }

    /// Rules 1 and 3.
    fn doubt(&mut self, sender: Sender, is_certain: bool) -> bool {
        let Sender { alias, epoch, .. } = sender;
        let is_trusted = self.trusted.get(&alias).is_some_and(|(of, until)| *of == epoch && Instant::now() < *until);
        let known = self.invalid.get(&alias).is_some_and(|invalid| invalid.epoch == epoch);
        if self.token(sender).is_none() || known || (is_trusted && !is_certain) {
            return false;
        }
        let wait = self.settings.probe_after;
        let next = Some(Instant::now() + if is_certain && !is_trusted { wait } else { Duration::ZERO });
        self.invalid.insert(alias, Invalid { epoch, wait, next });
        tracing::error!(
            token = alias.as_str(),
            "Metrica takes the token for invalid: nothing is sent with it until its file changes or Metrica takes it again"
        );
        true
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

    /// The question found it valid.
    fn trust(&mut self, sender: Sender) -> bool {
        if self.invalid.get(&sender.alias).is_none_or(|invalid| invalid.epoch != sender.epoch) {
            return false;
        }
        self.invalid.remove(&sender.alias);
        self.trusted.insert(sender.alias, (sender.epoch, Instant::now() + self.settings.probe_at_most));
        tracing::info!(token = sender.alias.as_str(), "Metrica takes the token again");
        true
    }

    fn wait_longer(&mut self, sender: Sender) {
        let most = self.settings.probe_at_most;
        if let Some(invalid) = self.invalid.get_mut(&sender.alias).filter(|invalid| invalid.epoch == sender.epoch) {
            invalid.next = Some(Instant::now() + invalid.wait);
            invalid.wait = (invalid.wait * 2).min(most);
        }
    }

    /// Rule 4.
    fn wonder(&mut self, sender: Sender, counter: u64) {
        let now = Instant::now();
        self.asked.retain(|_, asked| now.duration_since(*asked) < HOUR);
        let question = (sender.alias, sender.epoch, counter);
        if !self.settings.learn || self.asked.len() >= QUESTIONS_AN_HOUR || self.asked.contains_key(&question) {
            return;
        }
        let Some(token) = self.token(sender).cloned() else { return };
        self.asked.insert(question, now);
        ask::permission(self.metrica.clone(), token, sender, counter, self.finds.clone());
    }

    /// Rule 5.
    fn introduce(&mut self) {
        let Some((place, path)) = &self.identity else { return };
        for slot in &self.generation.tokens {
            let Some(token) = &slot.token else { continue };
            if self.introduced.insert(slot.alias, slot.epoch) != Some(slot.epoch) {
                ask::owner(place.clone(), path, token.clone(), slot.sender(), self.finds.clone());
            }
        }
    }

    /// Says it when a token is another's.
    fn compare(&self, sender: Sender, fact: &Fact) {
        let Fact::Owner(actual) = fact else { return };
        let slot = self.generation.tokens.iter().find(|slot| slot.alias == sender.alias);
        if let Some(expected) = slot.and_then(|slot| slot.owner.as_deref())
            && !crate::login::is_same(expected, actual)
        {
            tracing::error!(
                token = sender.alias.as_str(),
                expected,
                actual = &**actual,
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

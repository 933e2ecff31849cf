//! What is learnt of tokens and of their owners, and who is told.

use metrica::observed_rights::Fact;
use tokio::time::Instant;

use super::Health;
use super::ask::Found;
use crate::health::identity::has_part_of;
use crate::process::workers::Crew;
use crate::token::Token;
use crate::worker::{Doubt, Sender};

impl Health {
    /// The token with which to ask what another was refused.
    pub(super) fn eyes(&self, sender: Sender) -> Sender {
        let is_free = |alias| self.patients.get(&alias).is_some_and(|patient| !patient.standing.is_refused());
        self.owners.eyes(sender, is_free)
    }

    /// A refusal leaves this open: it is asked with a token that can see it.
    pub(super) fn doubt(&mut self, sender: Sender, doubt: Doubt, now: Instant) {
        let eyes = if doubt == Doubt::Reads { sender } else { self.eyes(sender) };
        // With `identity`, whose they are is asked elsewhere.
        if eyes == sender && doubt != Doubt::Reads && self.identity.is_none() {
            for stranger in self.owners.strangers(sender) {
                self.doubts.take(stranger, Doubt::Reads, now);
            }
        }
        self.doubts.take(eyes, doubt, now);
    }

    /// Whether a response can be believed to say this: whose a token is, Yandex ID says where it is asked, and a login that has a part
    /// of a token in it is none.
    pub(super) fn is_said(&self, fact: &Fact) -> bool {
        let Fact::Owner(login) = fact else { return true };
        let tokens = self.generation.tokens.iter().filter_map(|slot| slot.token.as_ref());
        let secrets: Vec<_> = tokens.map(Token::authorization).collect();
        self.identity.is_none() && !has_part_of(login, &secrets)
    }

    /// Takes what a question found.
    pub(super) fn take_found(&mut self, sender: Sender, found: Found, crew: &Crew) {
        if found.is_listed {
            self.owners.was_listed(sender);
        }
        let facts: Vec<_> = found.facts.into_iter().filter(|fact| self.is_said(fact)).collect();
        if !facts.is_empty() {
            self.learn(sender, facts, crew);
        }
    }

    /// Tells the workers what was learnt with a token, of it and of its owner.
    pub(super) fn learn(&mut self, sender: Sender, facts: Vec<Fact>, crew: &Crew) {
        let before = self.owners.owner(sender.alias).map(Box::from);
        for news in self.owners.learn(sender, facts) {
            news.of.into_iter().for_each(|of| crew.learn(of, &news.facts));
        }
        if let Some(owner) = self.owners.owner(sender.alias).filter(|owner| before.as_deref() != Some(*owner)) {
            self.compare(sender, owner);
        }
    }

    /// Says it when a token is another's.
    fn compare(&self, sender: Sender, actual: &str) {
        let slot = self.generation.tokens.iter().find(|slot| slot.alias == sender.alias);
        if let Some(expected) = slot.and_then(|slot| slot.owner.as_deref())
            && !metrica::login::is_same(expected, actual)
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

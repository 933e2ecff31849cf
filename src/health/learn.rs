//! Records the facts learnt about tokens and their owners, and passes them to the workers.

use metrica::observed_rights::Fact;
use tokio::time::Instant;

use super::Health;
use super::ask::Found;
use crate::health::identity::has_part_of;
use crate::process::workers::Crew;
use crate::token::Token;
use crate::worker::{Doubt, Sender};

impl Health {
    /// The token that asks the questions that another token's refusal raises.
    pub(super) fn eyes(&self, sender: Sender) -> Sender {
        let is_free = |alias| self.patients.get(&alias).is_some_and(|patient| !patient.standing.is_refused());
        self.owners.eyes(sender, is_free)
    }

    /// Queues the question that a refusal leaves open, with a token that can see the result.
    pub(super) fn doubt(&mut self, sender: Sender, doubt: Doubt, now: Instant) {
        let eyes = if doubt == Doubt::Reads { sender } else { self.eyes(sender) };
        // With `identity`, the owner is learnt elsewhere.
        if eyes == sender && doubt != Doubt::Reads && self.identity.is_none() {
            for stranger in self.owners.strangers(sender) {
                self.doubts.take(stranger, Doubt::Reads, now);
            }
        }
        self.doubts.take(eyes, doubt, now);
    }

    /// Whether a fact of a response is credible. With `identity` only Yandex ID names owners, and a login that contains
    /// part of a token is invalid.
    pub(super) fn is_said(&self, fact: &Fact) -> bool {
        let Fact::Owner(login) = fact else { return true };
        let tokens = self.generation.tokens.iter().filter_map(|slot| slot.token.as_ref());
        let secrets: Vec<_> = tokens.map(Token::authorization).collect();
        self.identity.is_none() && !has_part_of(login, &secrets)
    }

    /// Records the result of a question.
    pub(super) fn take_found(&mut self, sender: Sender, found: Found, crew: &Crew) {
        if found.is_listed {
            self.owners.was_listed(sender);
        }
        let facts: Vec<_> = found.facts.into_iter().filter(|fact| self.is_said(fact)).collect();
        if !facts.is_empty() {
            self.learn(sender, facts, crew);
        }
    }

    /// Tells the workers the facts learnt with a token, about it and about its owner.
    pub(super) fn learn(&mut self, sender: Sender, facts: Vec<Fact>, crew: &Crew) {
        let before = self.owners.owner(sender.alias).map(Box::from);
        for news in self.owners.learn(sender, facts) {
            news.of.into_iter().for_each(|of| crew.learn(of, &news.facts));
        }
        if let Some(owner) = self.owners.owner(sender.alias).filter(|owner| before.as_deref() != Some(*owner)) {
            self.compare(sender, owner);
        }
    }

    /// Logs an error if the token belongs to another account than configured.
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

//! Records the facts learnt about tokens and their owners, and passes them to the workers.

use metrica::observed_rights::Fact;
use tokio::time::Instant;

use super::Health;
use super::ask::Found;
use crate::health::identity::has_part_of;
use crate::process::workers::Workers;
use crate::token::Token;
use crate::worker::{Suspicion, TokenUse};

impl Health {
    /// The token that asks the questions that another token's refusal raises.
    pub(super) fn asking_token(&self, token_use: TokenUse) -> TokenUse {
        let is_free = |alias| self.tracked_tokens.get(&alias).is_some_and(|tracked| !tracked.standing.is_refused());
        self.owners.asking_token(token_use, is_free)
    }

    /// Queues the question that a refusal leaves open, with a token that can see the result.
    pub(super) fn suspicion(&mut self, token_use: TokenUse, suspicion: Suspicion, now: Instant) {
        let asking_token = if suspicion == Suspicion::Reads { token_use } else { self.asking_token(token_use) };
        // With `identity`, the owner is learnt elsewhere.
        if asking_token == token_use && suspicion != Suspicion::Reads && self.identity.is_none() {
            for stranger in self.owners.strangers(token_use) {
                self.follow_ups.take(stranger, Suspicion::Reads, now);
            }
        }
        self.follow_ups.take(asking_token, suspicion, now);
    }

    /// Whether a fact of a response is credible. With `identity` only Yandex ID names owners, and a login that contains
    /// part of a token is invalid.
    pub(super) fn is_known_to_workers(&self, fact: &Fact) -> bool {
        let Fact::Owner(login) = fact else { return true };
        let tokens = self.generation.tokens.iter().filter_map(|slot| slot.token.as_ref());
        let secrets: Vec<_> = tokens.map(Token::authorization).collect();
        self.identity.is_none() && !has_part_of(login, &secrets)
    }

    /// Records a list of counters. Returns whether it differs from the one before.
    pub(super) fn take_list(&mut self, token_use: TokenUse, found: Found, workers: &Workers) -> bool {
        let is_list = |fact: &&Fact| matches!(fact, Fact::List(_));
        let changed = found.facts.iter().find(is_list).is_some_and(|list| !self.owners.knows(token_use, list));
        self.take_found(token_use, found, workers);
        changed
    }

    /// Records the result of a question.
    pub(super) fn take_found(&mut self, token_use: TokenUse, found: Found, workers: &Workers) {
        if found.is_listed {
            self.owners.was_listed(token_use);
        }
        let facts: Vec<_> = found.facts.into_iter().filter(|fact| self.is_known_to_workers(fact)).collect();
        if !facts.is_empty() {
            self.learn(token_use, facts, workers);
        }
    }

    /// Tells the workers the facts learnt with a token, about it and about its owner.
    pub(super) fn learn(&mut self, token_use: TokenUse, facts: Vec<Fact>, workers: &Workers) {
        let before = self.owners.owner(token_use.alias).map(Box::from);
        for news in self.owners.learn(token_use, facts) {
            news.of.into_iter().for_each(|of| workers.learn(of, &news.facts));
        }
        if let Some(owner) = self.owners.owner(token_use.alias).filter(|owner| before.as_deref() != Some(*owner)) {
            self.compare(token_use, owner);
        }
    }

    /// Logs an error if the token belongs to another account than configured.
    fn compare(&self, token_use: TokenUse, actual: &str) {
        let slot = self.generation.tokens.iter().find(|slot| slot.alias == token_use.alias);
        if let Some(expected) = slot.and_then(|slot| slot.owner.as_deref())
            && !metrica::login::is_same(expected, actual)
        {
            tracing::error!(
                token = token_use.alias.as_str(),
                expected,
                actual,
                "the token was issued by another account than its configured owner"
            );
        }
    }
}

//! Records the facts learnt about tokens and their owners, and passes them to the workers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use metrica::counter_list::CounterList;
use metrica::observed_rights::Fact;
use tokio::time::Instant;

use super::Health;
use super::ask::{Found, read};
use super::lists::Again;
use crate::health::identity::has_part_of;
use crate::policy::names::TokenAlias;
use crate::process::workers::Workers;
use crate::token::Token;
use crate::worker::{Generation, Suspicion, TokenUse};

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

    /// Records a list of counters, and the owner that it shows. Returns whether the list differs from the one before.
    pub(super) fn take_list(
        &mut self,
        token_use: TokenUse,
        (owner, list): (Option<Box<str>>, CounterList),
        workers: &Workers,
    ) -> bool {
        let list = Fact::List(Arc::new(list));
        let changed = !self.owners.knows(token_use, &list);
        let mut found = Found::default();
        found.facts.extend(owner.map(Fact::Owner));
        found.facts.extend([Fact::Proven(read()), list]);
        self.take_found(token_use, found, workers);
        changed
    }

    /// Makes the gate read the lists again of the tokens that share a caller with this one.
    pub(super) fn list_again(&mut self, why: Again, token_use: TokenUse, now: Instant) {
        let sharing = self.sharing.get(&token_use.alias);
        self.lists.ask_again(why, now, |alias| sharing.is_some_and(|sharing| sharing.contains(&alias)));
    }

    /// Asks again about counters that other tokens of the same callers were once denied: they may have been granted since.
    pub(super) fn ask_those_that_lacked(&mut self, token_use: TokenUse, counters: &Arc<[u64]>, now: Instant) {
        if !self.settings.learn {
            return;
        }
        let sharing = self.sharing.get(&token_use.alias).into_iter().flatten();
        let others = sharing.filter(|alias| **alias != token_use.alias);
        let others = others.filter_map(|alias| self.owners.token_that_lacked(*alias, counters));
        let others: Vec<_> = others.collect();
        for other in others {
            let is_free = self.tracked_tokens.get(&other.alias).is_some_and(|tracked| !tracked.standing.is_refused());
            if is_free {
                self.suspicion(other, Suspicion::Counters(None, counters.clone()), now);
            }
        }
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

/// The tokens that share a caller with each token. A standby shares those of the token that it replaces.
pub(super) fn sharing(generation: &Generation) -> BTreeMap<TokenAlias, BTreeSet<TokenAlias>> {
    let mut sharing: BTreeMap<TokenAlias, BTreeSet<TokenAlias>> = BTreeMap::new();
    let mut seen = BTreeSet::new();
    for caller in generation.policy.callers.all() {
        if !seen.insert(&caller.tokens) {
            continue;
        }
        let slot = |alias: &TokenAlias| generation.tokens.iter().find(|slot| slot.alias == *alias);
        let standby = |alias: &TokenAlias| Some(generation.tokens.get(slot(alias)?.standby?)?.alias);
        let tokens: Vec<_> = caller.tokens.iter().flat_map(|alias| [Some(*alias), standby(alias)]).flatten().collect();
        for alias in &tokens {
            sharing.entry(*alias).or_default().extend(tokens.iter().copied());
        }
    }
    sharing
}

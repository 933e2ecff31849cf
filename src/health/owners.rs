//! Owners: the facts that one token shows about its owner hold for every token of that owner.
//!
//! 1. Yandex ID (`identity`) proves the owner of a token or, without it, `owner_login` of a counter that Metrica shows
//!    with the permission `own`. The configured owner proves nothing and joins no tokens.
//! 2. Facts about an owner go to all its tokens at once. A token proven to be of an owner exchanges facts with it; the
//!    token's own facts are applied last, because they are newer. A contradiction that one token meets thus corrects the
//!    facts of all.
//! 3. A new token in the same file has no owner until that is proven. The facts about an owner last while one of its tokens
//!    does.
//! 4. Questions that a token cannot answer about its owner are asked with another token of that owner that can read. If
//!    none is proven, each token that can read and has no proven owner is asked for its list once.

use std::collections::BTreeMap;
use std::sync::Arc;

use metrica::login;
use metrica::observed_rights::{Fact, Knowledge, Permission};
use metrica::scope::{Scope, ScopeSet};

use super::ask::About;
use crate::policy::names::TokenAlias;
use crate::worker::TokenUse;

/// Facts for the workers, and the tokens they concern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FactUpdate {
    /// The tokens.
    pub of: Vec<TokenUse>,
    /// The facts.
    pub facts: Arc<[Fact]>,
}

/// The facts about one token.
struct TokenFacts {
    token_use: TokenUse,
    knowledge: Knowledge,
    /// Whether the list of own counters was requested.
    was_listed: bool,
}

/// The facts about all tokens, joined by owner; see the module.
#[derive(Default)]
pub struct Owners {
    tokens: BTreeMap<TokenAlias, TokenFacts>,
}

fn read() -> ScopeSet {
    [Scope::Read].into_iter().collect()
}

impl TokenFacts {
    fn reads(&self) -> Option<bool> {
        if self.knowledge.has_proven(read()) {
            return Some(true);
        }
        self.knowledge.lacks(read()).then_some(false)
    }

    fn is_declared_to_read(&self) -> bool {
        self.token_use.scopes.contains(Scope::Read)
    }

    fn is_of(&self, owner: &str) -> bool {
        self.knowledge.owner().is_some_and(|own| login::is_same(own, owner))
    }
}

impl Owners {
    /// Adopts the tokens that are now in use (rule 3).
    pub fn follow(&mut self, senders: impl Iterator<Item = TokenUse> + Clone) {
        self.tokens.retain(|alias, known| {
            senders.clone().any(|token_use| token_use.alias == *alias && token_use.epoch == known.token_use.epoch)
        });
        for token_use in senders {
            let new = || TokenFacts { token_use, knowledge: Knowledge::default(), was_listed: false };
            self.tokens.entry(token_use.alias).or_insert_with(new).token_use = token_use;
        }
    }

    /// Records that the list of own counters was requested with a token.
    pub fn was_listed(&mut self, token_use: TokenUse) {
        self.known_mut(token_use).into_iter().for_each(|known| known.was_listed = true);
    }

    /// Records facts learnt with a token. Returns the news for the workers.
    pub fn learn(&mut self, token_use: TokenUse, facts: Vec<Fact>) -> Vec<FactUpdate> {
        let Some(known) = self.known_mut(token_use) else { return Vec::new() };
        let before = known.knowledge.owner().map(login::canonical);
        facts.iter().for_each(|fact| _ = known.knowledge.learn(fact));
        let after = known.knowledge.owner().map(login::canonical);
        let of_owner: Arc<[Fact]> = facts.iter().filter(|fact| fact.is_of_owner()).cloned().collect();
        let mut news = vec![FactUpdate { of: vec![token_use], facts: facts.into() }];
        if let Some(owner) = after {
            if before.as_ref() == Some(&owner) {
                news.extend(self.tell(&owner, Some(token_use.alias), of_owner));
            } else {
                news.extend(self.join(token_use.alias, &owner));
            }
        }
        news
    }

    /// Exchanges facts between a token and its newly proven owner (rule 2).
    fn join(&mut self, alias: TokenAlias, owner: &str) -> Vec<FactUpdate> {
        let mut siblings = self.tokens.values().filter(|known| known.token_use.alias != alias && known.is_of(owner));
        // All siblings know the same facts.
        let Some(of_siblings) = siblings.next().map(|sibling| sibling.knowledge.of_owner()) else { return Vec::new() };
        let own = self.tokens.get(&alias).map(|known| known.knowledge.of_owner());
        let facts = [Some(of_siblings), own].into_iter().flatten();
        facts.filter_map(|facts| self.tell(owner, None, facts.into())).collect()
    }

    /// Tells the tokens of an owner, except one.
    fn tell(&mut self, owner: &str, but: Option<TokenAlias>, facts: Arc<[Fact]>) -> Option<FactUpdate> {
        let told = self.tokens.values_mut().filter(|known| Some(known.token_use.alias) != but && known.is_of(owner));
        let tell = |known: &mut TokenFacts| {
            facts.iter().for_each(|fact| _ = known.knowledge.learn(fact));
            known.token_use
        };
        let of: Vec<_> = told.map(tell).collect();
        (!of.is_empty() && !facts.is_empty()).then_some(FactUpdate { of, facts })
    }

    fn known(&self, token_use: TokenUse) -> Option<&TokenFacts> {
        self.tokens.get(&token_use.alias).filter(|known| known.token_use.epoch == token_use.epoch)
    }

    fn known_mut(&mut self, token_use: TokenUse) -> Option<&mut TokenFacts> {
        self.tokens.get_mut(&token_use.alias).filter(|known| known.token_use.epoch == token_use.epoch)
    }

    /// The proven owner of a token.
    #[must_use]
    pub fn owner(&self, alias: TokenAlias) -> Option<&str> {
        self.tokens.get(&alias)?.knowledge.owner()
    }

    /// Whether a fact about a token, or its owner, is known.
    #[must_use]
    pub fn knows(&self, token_use: TokenUse, fact: &Fact) -> bool {
        self.known(token_use).is_some_and(|known| !known.knowledge.clone().learn(fact))
    }

    /// The token, if its owner was once denied one of these counters, or they were not there.
    #[must_use]
    pub fn token_that_lacked(&self, alias: TokenAlias, counters: &[u64]) -> Option<TokenUse> {
        let known = self.tokens.get(&alias)?;
        let lacked = |counter: &u64| known.knowledge.permission(None, *counter) == Some(Permission::Nothing);
        counters.iter().any(lacked).then_some(known.token_use)
    }

    /// Whether a token is known or declared to read.
    #[must_use]
    pub fn may_read(&self, token_use: TokenUse) -> bool {
        self.known(token_use).is_some_and(|known| known.reads().unwrap_or(known.is_declared_to_read()))
    }

    /// The facts about a token before a question; `expected` is the configured owner.
    #[must_use]
    pub fn about(&self, token_use: TokenUse, expected: Option<&str>) -> About {
        let Some(known) = self.known(token_use) else { return About::default() };
        let is_open = known.knowledge.owner().is_none();
        About {
            reads: known.reads(),
            owner_is_open: is_open && !known.was_listed,
            is_for_organisation: is_open && expected.is_some_and(login::is_organisation),
        }
    }

    /// The tokens that may belong to the same owner and can read, for a token that has no sibling that can (rule 4).
    #[must_use]
    pub fn strangers(&self, token_use: TokenUse) -> Vec<TokenUse> {
        let is_blind = |own: &&TokenFacts| own.knowledge.owner().is_some() && own.reads() != Some(true);
        let Some(own) = self.known(token_use).filter(is_blind) else { return Vec::new() };
        let may_be_one = |known: &&TokenFacts| {
            known.knowledge.owner().is_none()
                && !known.was_listed
                && known.reads().unwrap_or(known.is_declared_to_read())
        };
        let others = self.tokens.values().filter(|known| known.token_use != own.token_use).filter(may_be_one);
        others.map(|known| known.token_use).collect()
    }

    /// The token with which to ask about a refusal of another, among those that `can_ask` allows (rule 4).
    #[must_use]
    pub fn asking_token(&self, token_use: TokenUse, can_ask: impl Fn(TokenAlias) -> bool) -> TokenUse {
        let Some(own) = self.known(token_use) else { return token_use };
        let may_read = |known: &TokenFacts| known.reads().unwrap_or(known.is_declared_to_read());
        let Some(owner) = own.knowledge.owner().filter(|_| !may_read(own)) else { return token_use };
        let others = self.tokens.values().filter(|known| known.is_of(owner) && can_ask(known.token_use.alias));
        let best = others.filter(|known| may_read(known)).max_by_key(|known| known.reads() == Some(true));
        best.map_or(token_use, |known| known.token_use)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token_use(alias: &str, scopes: &[Scope], epoch: u64) -> TokenUse {
        TokenUse { alias: TokenAlias::new(alias), scopes: scopes.iter().copied().collect(), epoch }
    }

    /// A token that reads, one that writes, and one that reads for another owner.
    fn three() -> ([TokenUse; 3], Owners) {
        let senders = [
            token_use("reads", &[Scope::Read], 1),
            token_use("writes", &[Scope::Write], 2),
            token_use("stranger", &[Scope::Read], 3),
        ];
        let mut owners = Owners::default();
        owners.follow(senders.iter().copied());
        (senders, owners)
    }

    fn owner(login: &str) -> Vec<Fact> {
        vec![Fact::Owner(login.into())]
    }

    /// All facts about counter 5 that a token is told.
    fn told(news: &[FactUpdate], of: TokenUse) -> Vec<&Fact> {
        let facts = news.iter().filter(|news| news.of.contains(&of)).flat_map(|news| &*news.facts);
        facts.filter(|fact| fact.is_of_owner()).collect()
    }

    fn permission(owners: &Owners, of: TokenUse) -> Option<Permission> {
        owners.known(of)?.knowledge.permission(None, 5)
    }

    const VIEW: Fact = Fact::Permission(5, Permission::View);

    #[test]
    fn rule_1_only_proof_joins() {
        let ([reads, writes, stranger], mut owners) = three();
        owners.learn(reads, owner("shop"));
        let news = owners.learn(reads, vec![VIEW, Fact::Proven(read())]);
        assert_eq!((told(&news, reads), told(&news, writes).len()), (vec![&VIEW], 0));
        assert_eq!(owners.asking_token(writes, |_| true), writes, "whatever is declared");
        owners.learn(stranger, owner("somebody"));
        assert_eq!(permission(&owners, stranger), None);
        let news = owners.learn(writes, owner("Shop"));
        assert_eq!((told(&news, writes), permission(&owners, writes)), (vec![&VIEW], Some(Permission::View)));
        assert!(!owners.known(writes).unwrap().knowledge.has_proven(read()), "scopes are the token's");
    }

    #[test]
    fn rule_2_a_fact_of_one_token_is_shared_by_all_tokens_of_its_owner() {
        let ([reads, writes, stranger], mut owners) = three();
        for of in [reads, writes] {
            owners.learn(of, owner("shop"));
        }
        owners.learn(stranger, owner("somebody"));
        let facts = [
            Fact::Permission(5, Permission::Edit),
            Fact::Permission(5, Permission::Nothing),
            Fact::Represents("partner".into()),
            Fact::Logins(Box::default()),
            Fact::PermissionOf("partner".into(), 5, Permission::View),
        ];
        for fact in &facts {
            let news = owners.learn(writes, vec![fact.clone()]);
            assert_eq!((told(&news, reads), told(&news, writes)), (vec![fact], vec![fact]));
            assert!(told(&news, stranger).is_empty());
        }
        assert_eq!(permission(&owners, reads), Some(Permission::Nothing));
        let lacks = owners.learn(writes, vec![Fact::Lacks(read())]);
        assert_eq!(lacks.len(), 1, "and nobody else is told");
    }

    #[test]
    fn rule_2_the_token_that_joins_knows_it_better() {
        let ([reads, writes, _], mut owners) = three();
        owners.learn(writes, owner("shop"));
        owners.learn(writes, vec![Fact::Permission(5, Permission::Edit), Fact::Permission(6, Permission::Edit)]);
        owners.learn(reads, vec![VIEW]);
        let news = owners.learn(reads, owner("shop"));
        assert_eq!(told(&news, writes).last(), Some(&&VIEW));
        assert_eq!(
            (permission(&owners, reads), permission(&owners, writes)),
            (Some(Permission::View), Some(Permission::View))
        );
        assert_eq!(owners.known(reads).unwrap().knowledge.permission(None, 6), Some(Permission::Edit));
    }

    #[test]
    fn rule_3_another_token_in_the_file_begins_without() {
        let ([reads, writes, stranger], mut owners) = three();
        for of in [reads, writes] {
            owners.learn(of, owner("shop"));
        }
        owners.learn(reads, vec![VIEW]);
        let new = token_use("writes", &[Scope::Write], 9);
        owners.follow([reads, new, stranger].into_iter());
        assert_eq!((permission(&owners, new), owners.owner(new.alias)), (None, None));
        assert!(owners.learn(writes, owner("shop")).is_empty(), "it is gone");
        assert_eq!(owners.owner(new.alias), None);
        owners.learn(new, owner("shop"));
        assert_eq!(permission(&owners, new), Some(Permission::View));
    }

    #[test]
    fn rule_4_reading_tokens_without_an_owner_are_listed_once() {
        let ([reads, writes, stranger], mut owners) = three();
        assert!(owners.strangers(writes).is_empty(), "it is nobody's itself");
        owners.learn(writes, owner("shop"));
        assert_eq!(owners.strangers(writes), [reads, stranger]);
        owners.learn(stranger, owner("somebody"));
        owners.was_listed(reads);
        assert!(owners.strangers(writes).is_empty());
        owners.learn(stranger, vec![Fact::Proven(read())]);
        assert!(owners.strangers(stranger).is_empty(), "it sees by itself");
    }

    #[test]
    fn rule_4_a_token_that_reads_is_asked() {
        let ([reads, writes, _], mut owners) = three();
        for of in [reads, writes] {
            owners.learn(of, owner("shop"));
        }
        assert_eq!((owners.asking_token(writes, |_| true), owners.asking_token(reads, |_| true)), (reads, reads));
        assert_eq!(owners.asking_token(writes, |alias| alias != reads.alias), writes, "it cannot be used now");
        owners.learn(reads, vec![Fact::Lacks(read())]);
        assert_eq!(owners.asking_token(writes, |_| true), writes);
        owners.learn(writes, vec![Fact::Proven(read())]);
        assert_eq!(
            (owners.asking_token(reads, |_| true), owners.asking_token(writes, |_| true)),
            (writes, writes),
            "whatever is declared"
        );
        let about = owners.about(reads, Some("porg-shop"));
        assert_eq!(about, About { reads: Some(false), owner_is_open: false, is_for_organisation: false });
    }
}

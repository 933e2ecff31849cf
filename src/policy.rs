//! Policy: decides whether a caller may send a request, and with which token. Only this module creates a [`Grant`].
//!
//! 1. The operation must be known (`unknown_operation`, 404), and its path must support the method (`method_denied`, 403).
//! 2. The caller's scopes must cover the operation (`scope_denied`, 403).
//! 3. The request must comply with the caller's rules ([`crate::policy::rules`]).
//! 4. The token is one of the caller's that covers the operation (`token_scope_missing`, 403): by [`choice`] one whose owner may
//!    do it, and of one account the narrowest, which allows the fewest other operations; among equals the first listed.
//! 5. If the caller has `enforce: false`, a request that rule 2 or 3 would refuse is allowed and the refusal is reported.

use metrica::operation::{Catalogue, Lookup, Operation, OperationId, Verb};
use metrica::scope::{Holder, Lacking, ScopeSet};
use metrica::subject::Subject;

use crate::policy::caller::{Caller, Callers};
use crate::policy::choice::{Accounts, Candidate, Chosen, Fit, NoAccounts, SeveralAccounts};
use crate::policy::names::{CallerId, TokenAlias};
use crate::policy::rejection::Reason;
use crate::policy::rules::{Breach, Call, Duties};

pub mod admission;
mod body_head;
mod body_policy;
mod breach;
pub mod caller;
mod caller_table;
pub mod choice;
mod condition;
pub mod decide;
mod grantees;
mod http2_request;
pub mod key;
pub mod key_set;
pub mod names;
pub mod offered;
mod parts;
pub mod proof;
pub mod proxy;
mod reading;
pub mod rejection;
pub mod rules;
mod sendable;
pub mod service_account;
mod setting;
pub mod via;

/// A token of the configuration, without its secret.
#[derive(Debug, Clone)]
pub struct TokenRights {
    /// The name of the token.
    pub alias: TokenAlias,
    /// The declared scopes; Yandex has no way to query them.
    pub scopes: ScopeSet,
    /// Whether it is the standby of another token, whose scopes it must have.
    pub is_standby: bool,
}

/// The configuration that decisions depend on.
#[derive(Debug)]
pub struct Policy {
    /// The callers.
    pub callers: Callers,
    /// The operations.
    pub catalogue: Catalogue,
    tokens: Vec<TokenRights>,
    /// By caller: the candidates for each set of needed scopes, the narrowest first.
    candidates: Vec<[Box<[Candidate]>; ScopeSet::COUNT]>,
}

/// The permission to send one request: the caller, the operation and the token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grant {
    caller: CallerId,
    operation: OperationId,
    token: TokenAlias,
    token_position: u16,
}

/// The reason why there is no grant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Denial {
    /// The operation is not known (rule 1).
    UnknownOperation,
    /// The path does not support the method (rule 1).
    MethodDenied,
    /// The caller's scopes do not cover the operation (rule 2).
    ScopeDenied(OperationId, Lacking),
    /// The request breaks a rule of the caller (rule 3).
    Rule(OperationId, Breach),
    /// No token of the caller covers the operation (rule 4).
    TokenScopeMissing(OperationId, Lacking),
    /// The request chooses a token that is not a candidate ([`choice`], rule 4).
    BadAccount(OperationId),
    /// The request names counters of several accounts ([`choice`], rule 5).
    SeveralAccounts(OperationId),
}

impl Denial {
    /// The reason returned to the caller.
    #[must_use]
    pub const fn reason(self) -> Reason {
        match self {
            Self::UnknownOperation => Reason::UnknownOperation,
            Self::MethodDenied => Reason::MethodDenied,
            Self::ScopeDenied(..) => Reason::ScopeDenied,
            Self::Rule(_, breach) => breach.reason(),
            Self::TokenScopeMissing(..) => Reason::TokenScopeMissing,
            Self::BadAccount(_) => Reason::BadAccount,
            Self::SeveralAccounts(_) => Reason::SeveralAccounts,
        }
    }

    /// The requested operation, if it is known.
    #[must_use]
    pub const fn operation(self) -> Option<OperationId> {
        match self {
            Self::UnknownOperation | Self::MethodDenied => None,
            Self::ScopeDenied(operation, _)
            | Self::Rule(operation, _)
            | Self::TokenScopeMissing(operation, _)
            | Self::BadAccount(operation)
            | Self::SeveralAccounts(operation) => Some(operation),
        }
    }

    /// The broken rule of the caller, if that is the reason.
    #[must_use]
    pub const fn breach(self) -> Option<Breach> {
        match self {
            Self::Rule(_, breach) => Some(breach),
            Self::UnknownOperation
            | Self::MethodDenied
            | Self::ScopeDenied(..)
            | Self::TokenScopeMissing(..)
            | Self::BadAccount(_)
            | Self::SeveralAccounts(_) => None,
        }
    }

    /// The needed and the held scopes, if missing scopes are the reason.
    #[must_use]
    pub const fn lacking(self) -> Option<Lacking> {
        match self {
            Self::ScopeDenied(_, lacking) | Self::TokenScopeMissing(_, lacking) => Some(lacking),
            Self::UnknownOperation
            | Self::MethodDenied
            | Self::Rule(..)
            | Self::BadAccount(_)
            | Self::SeveralAccounts(_) => None,
        }
    }
}

/// The wishes of a request for the choice of a token.
#[derive(Debug, Clone, Copy, Default)]
pub struct Wish<'a> {
    /// The name of the token that the request chooses ([`choice`], rule 4).
    pub account: Option<&'a [u8]>,
    /// The token with which Metrica denied the request: one of another account is chosen.
    pub tried: Option<TokenAlias>,
}

/// A grant and its conditions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Permission {
    /// The grant.
    pub grant: Grant,
    /// The position of the token to try next if Metrica denies access with the one of the grant ([`choice`]).
    pub next: Option<u16>,
    /// Whether the token is one of several that cover the operation, so that knowledge decides.
    pub is_choice: bool,
    /// The duties that the caller's rules impose on the request.
    pub duties: Duties,
    /// The refusal that would apply if rules were enforced (rule 5).
    pub shadowed: Option<Denial>,
}

impl Grant {
    /// The operation.
    #[must_use]
    pub const fn operation(self) -> OperationId {
        self.operation
    }

    /// The caller.
    #[must_use]
    pub const fn caller(self) -> CallerId {
        self.caller
    }

    /// The token.
    #[must_use]
    pub const fn token(self) -> TokenAlias {
        self.token
    }

    /// The position of the token in [`Policy::tokens`].
    #[must_use]
    pub fn token_position(self) -> usize {
        self.token_position.into()
    }
}

impl Policy {
    /// Precomputes the choice of tokens. Tokens that a caller names but `tokens` lacks are ignored.
    #[must_use]
    pub fn new(callers: Callers, catalogue: Catalogue, tokens: Vec<TokenRights>) -> Self {
        let candidates = callers.all().iter().map(|caller| candidates(caller, &tokens)).collect();
        Self { callers, catalogue, tokens, candidates }
    }

    /// The tokens, in the order of [`Grant::token_position`].
    #[must_use]
    pub fn tokens(&self) -> &[TokenRights] {
        &self.tokens
    }

    /// Looks up the requested operation (rule 1).
    ///
    /// # Errors
    /// [`Denial::UnknownOperation`] and [`Denial::MethodDenied`].
    pub fn operation(&self, verb: Verb, path: &str) -> Result<&Operation, Denial> {
        match self.catalogue.find(verb, path) {
            Lookup::Known(operation) => Ok(operation),
            Lookup::OtherMethod => Err(Denial::MethodDenied),
            Lookup::Unknown => Err(Denial::UnknownOperation),
        }
    }

    /// Whether the catalogue has this path.
    #[must_use]
    pub fn knows(&self, path: &str) -> bool {
        self.catalogue.knows(path)
    }

    /// Decides whether the caller at `position` may send `call`, with which token and which duties (rules 2 to 5), given
    /// the knowledge of `accounts`.
    ///
    /// # Errors
    /// Every [`Denial`] but those of rule 1.
    pub fn permit(
        &self,
        position: usize,
        call: &Call<'_>,
        accounts: &dyn Accounts,
        wish: Wish<'_>,
    ) -> Result<Permission, Denial> {
        let operation = call.operation;
        let caller = self.callers.get(position).ok_or_else(|| scope_denied(operation, ScopeSet::EMPTY))?;
        let within = if caller.scopes.covers(operation.scopes) {
            caller.rules.check(call).map_err(|breach| Denial::Rule(operation.id, breach))
        } else {
            Err(scope_denied(operation, caller.scopes))
        };
        let (duties, mut shadowed) = match within {
            Err(denial) if caller.rules.enforce => return Err(denial),
            Err(denial) => (Duties::default(), Some(denial)),
            Ok(duties) => (Duties { list: duties.list && caller.rules.enforce, ..duties }, None),
        };
        let all = self.candidates(position, caller, operation)?;
        let request = choice::Request::new(operation, call.subject, accounts);
        let wished = self.wished(&request, all, wish)?;
        let candidates = wished.as_deref().unwrap_or(all);
        let chosen = if candidates.len() < 2 {
            request.choose(candidates)
        } else {
            let ranking = request.rank(candidates);
            match ranking.split() {
                Some(_) if caller.rules.enforce => return Err(Denial::SeveralAccounts(operation.id)),
                Some(_) => shadowed = shadowed.or(Some(Denial::SeveralAccounts(operation.id))),
                None => {}
            }
            ranking.choose()
        };
        let Chosen { first, next } = chosen.ok_or_else(|| self.uncovered(caller, operation))?;
        Ok(Permission {
            grant: self.grant(caller, operation, first)?,
            next,
            is_choice: all.len() > 1,
            duties,
            shadowed,
        })
    }

    /// Returns the `candidates` that `wish` leaves; `None` if it leaves all.
    fn wished(
        &self,
        request: &choice::Request<'_>,
        candidates: &[Candidate],
        wish: Wish<'_>,
    ) -> Result<Option<Vec<Candidate>>, Denial> {
        if let Some(wanted) = wish.account {
            let wanted = self.wanted(candidates, wanted).ok_or(Denial::BadAccount(request.operation_id()))?;
            return Ok(Some(vec![wanted]));
        }
        let tried = wish.tried.and_then(|tried| self.tokens.iter().position(|token| token.alias == tried));
        Ok(tried.and_then(|tried| u16::try_from(tried).ok()).map(|tried| request.others(candidates, tried)))
    }

    /// The tokens that the caller at `position` can use for `call`, the preferred one first, and what is known of each.
    #[must_use]
    pub fn preference(
        &self,
        position: usize,
        call: &Call<'_>,
        accounts: &dyn Accounts,
        wish: Wish<'_>,
    ) -> Vec<(&TokenRights, Fit)> {
        let Some(caller) = self.callers.get(position) else { return Vec::new() };
        let Ok(all) = self.candidates(position, caller, call.operation) else { return Vec::new() };
        let request = choice::Request::new(call.operation, call.subject, accounts);
        let Ok(wished) = self.wished(&request, all, wish) else { return Vec::new() };
        let token = |(one, fit): (Candidate, Fit)| Some((self.tokens.get(usize::from(one.position))?, fit));
        request.rank(wished.as_deref().unwrap_or(all)).order().filter_map(token).collect()
    }

    /// Returns the token to which each counter of `call` belongs ([`choice`], rule 5).
    #[must_use]
    pub fn several_accounts(
        &self,
        position: usize,
        call: &Call<'_>,
        accounts: &dyn Accounts,
    ) -> Option<SeveralAccounts> {
        let candidates = self.candidates(position, self.callers.get(position)?, call.operation).ok()?;
        let split = choice::Request::new(call.operation, call.subject, accounts).rank(candidates).split()?;
        Some(SeveralAccounts::new(&split, &self.tokens))
    }

    /// The candidate that a request chooses by its name ([`choice`], rule 4).
    fn wanted(&self, candidates: &[Candidate], wanted: &[u8]) -> Option<Candidate> {
        let is_wanted = |candidate: &&Candidate| {
            let token = self.tokens.get(usize::from(candidate.position));
            token.is_some_and(|token| token.alias.as_str().as_bytes() == wanted)
        };
        candidates.iter().find(is_wanted).copied()
    }

    /// Decides whether the scopes of the caller at `position` and of its tokens allow `operation`, and with which token
    /// (rules 2 and 4), independent of what a request names.
    ///
    /// # Errors
    /// [`Denial::ScopeDenied`] and [`Denial::TokenScopeMissing`]; the former also when there is no such caller.
    pub fn authorize(&self, position: usize, operation: &Operation) -> Result<Grant, Denial> {
        let caller = self.callers.get(position).ok_or_else(|| scope_denied(operation, ScopeSet::EMPTY))?;
        if !caller.scopes.covers(operation.scopes) {
            return Err(scope_denied(operation, caller.scopes));
        }
        let candidates = self.candidates(position, caller, operation)?;
        let subject = Subject::default();
        let chosen = choice::Request::new(operation, &subject, &NoAccounts).choose(candidates);
        self.grant(caller, operation, chosen.ok_or_else(|| self.uncovered(caller, operation))?.first)
    }

    /// The candidates for `operation` (rule 4), of which there is at least one.
    fn candidates(&self, position: usize, caller: &Caller, operation: &Operation) -> Result<&[Candidate], Denial> {
        let candidates = self.candidates.get(position).and_then(|sets| sets.get(operation.scopes.index()));
        let candidates = candidates.filter(|candidates| !candidates.is_empty());
        candidates.map(|candidates| &**candidates).ok_or_else(|| self.uncovered(caller, operation))
    }

    fn grant(&self, caller: &Caller, operation: &Operation, token_position: u16) -> Result<Grant, Denial> {
        let token = self.tokens.get(usize::from(token_position)).ok_or_else(|| self.uncovered(caller, operation))?;
        Ok(Grant { caller: caller.id, operation: operation.id, token: token.alias, token_position })
    }

    #[cold]
    fn uncovered(&self, caller: &Caller, operation: &Operation) -> Denial {
        Denial::TokenScopeMissing(operation.id, self.lacked_by_tokens(caller, operation))
    }

    #[cold]
    fn lacked_by_tokens(&self, caller: &Caller, operation: &Operation) -> Lacking {
        let own = self.tokens.iter().filter(|token| caller.tokens.contains(&token.alias));
        let held = own.flat_map(|token| token.scopes.iter()).collect();
        Lacking { holder: Holder::Tokens, needed: operation.scopes, held }
    }
}

/// The denial of rule 2, for a caller with the scopes `held`.
const fn scope_denied(operation: &Operation, held: ScopeSet) -> Denial {
    Denial::ScopeDenied(operation.id, Lacking { holder: Holder::Caller, needed: operation.scopes, held })
}

/// The tokens of `caller` that cover each set of needed scopes (rule 4), the narrowest first.
fn candidates(caller: &Caller, tokens: &[TokenRights]) -> [Box<[Candidate]>; ScopeSet::COUNT] {
    let mut own: Vec<(Candidate, ScopeSet)> = (caller.tokens.iter().zip(0..))
        .filter_map(|(alias, listed)| {
            let position = tokens.iter().position(|token| token.alias == *alias)?;
            let candidate = Candidate { position: u16::try_from(position).ok()?, listed };
            Some((candidate, tokens.get(position)?.scopes))
        })
        .collect();
    // A stable sort keeps equals in the order of the caller's list.
    own.sort_by_key(|(_, scopes)| scopes.with_implied().len());
    std::array::from_fn(|index| {
        let needed = ScopeSet::from_index(index);
        own.iter().filter(|(_, scopes)| scopes.covers(needed)).map(|(candidate, _)| *candidate).collect()
    })
}

#[cfg(test)]
mod tests {
    use metrica::scope::Scope;

    use super::*;
    use crate::policy::caller::Conditions;
    use crate::policy::names::ListenerName;
    use crate::policy::rules::{List, Rules};

    fn scopes(list: &[Scope]) -> ScopeSet {
        list.iter().copied().collect()
    }

    fn policy(callers: &[(&str, &[Scope], &[&str])], tokens: &[(&str, &[Scope])]) -> Policy {
        let callers = callers.iter().map(|(id, scope_list, tokens)| Caller {
            id: CallerId::new(id),
            conditions: Conditions::ANYONE,
            scopes: scopes(scope_list),
            tokens: tokens.iter().map(|alias| TokenAlias::new(alias)).collect(),
            rules: crate::policy::rules::Rules::default(),
            strict: false,
        });
        let tokens = tokens
            .iter()
            .map(|(alias, list)| TokenRights { alias: TokenAlias::new(alias), scopes: scopes(list), is_standby: false })
            .collect();
        Policy::new(
            Callers::new(callers.collect::<Vec<_>>(), &[ListenerName::new("app")]),
            Catalogue::built_in(),
            tokens,
        )
    }

    fn verdict(policy: &Policy, caller: usize, verb: Verb, path: &str) -> String {
        match policy.operation(verb, path).and_then(|operation| policy.authorize(caller, operation)) {
            Ok(grant) => grant.token().to_string(),
            Err(denial) => format!("{}: {:?}", denial.reason().as_str(), denial.operation()),
        }
    }

    #[test]
    fn rule_1_the_operation_must_be_known() {
        let policy = policy(&[("a", &[Scope::Read], &["t"])], &[("t", &[Scope::Read])]);
        assert_eq!(verdict(&policy, 0, Verb::Get, "/other"), "unknown_operation: None");
        assert_eq!(verdict(&policy, 0, Verb::Patch, "/management/v1/counters"), "method_denied: None");
    }

    #[test]
    fn rule_2_the_scopes_must_cover_it() {
        let policy = policy(&[("a", &[Scope::Read], &["t"])], &[("t", &[Scope::Read, Scope::Write])]);
        assert_eq!(verdict(&policy, 0, Verb::Get, "/management/v1/counters"), "t");
        assert_eq!(
            verdict(&policy, 0, Verb::Post, "/management/v1/counters"),
            "scope_denied: Some(\"counters.create\")"
        );
        assert_eq!(verdict(&policy, 9, Verb::Get, "/management/v1/counters"), "scope_denied: Some(\"counters.list\")");
    }

    /// Decides a request of a caller with these rules.
    fn decided(rules: Rules, scope: Scope, verb: Verb, target: &str) -> Result<Permission, Denial> {
        let mut caller = policy(&[("a", &[scope], &["t"])], &[]).callers.get(0).unwrap().clone();
        caller.rules = rules;
        let tokens =
            vec![TokenRights { alias: TokenAlias::new("t"), scopes: scopes(&[Scope::Read]), is_standby: false }];
        let callers = Callers::new(vec![caller], &[ListenerName::new("app")]);
        let policy = Policy::new(callers, Catalogue::built_in(), tokens);
        let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
        let names = strict_http::target::check(path, query, 1000).unwrap();
        let operation = policy.operation(verb, path)?;
        let subject = Subject::of(operation, path, query, names);
        policy.permit(0, &Call { operation, path, query, names, subject: &subject }, &NoAccounts, Wish::default())
    }

    #[test]
    fn rule_3_the_request_must_be_within_the_rules() {
        let rules = Rules { counters: Some([1].into()), ..Rules::default() };
        let list = OperationId::new("goals.list");
        let goals = |counter: u64, scope| {
            decided(rules.clone(), scope, Verb::Get, &format!("/management/v1/counter/{counter}/goals"))
        };
        assert!(
            goals(1, Scope::Read)
                .is_ok_and(|permission| permission.shadowed.is_none() && permission.duties.body.counters)
        );
        assert_eq!(goals(2, Scope::Read), Err(Denial::Rule(list, Breach::Counter(2, "the path"))));
        let needed = scopes(&[Scope::Read]);
        let lacking = Lacking { holder: Holder::Caller, needed, held: scopes(&[Scope::Write]) };
        assert_eq!(goals(2, Scope::Write), Err(Denial::ScopeDenied(list, lacking)), "scopes come first");
    }

    #[test]
    fn rule_5_in_shadow_mode_scopes_and_rules_only_report_refusals() {
        let rules = Rules { counters: Some([1].into()), list: List::Filter, enforce: false, ..Rules::default() };
        let decided = |scope, verb, target| decided(rules.clone(), scope, verb, target);
        let refused = |scope, target| decided(scope, Verb::Get, target).unwrap().shadowed.unwrap().reason();
        assert_eq!(refused(Scope::Read, "/management/v1/counter/2/goals"), Reason::CounterDenied);
        assert_eq!(refused(Scope::Expenses, "/management/v1/counter/1/goals"), Reason::ScopeDenied);
        let list = decided(Scope::Read, Verb::Get, "/management/v1/counters").unwrap();
        assert_eq!((list.duties.list, list.shadowed), (false, None), "the list goes on as it is");
        // No token covers the operation, so none can be used.
        let write = decided(Scope::Read, Verb::Delete, "/management/v1/counter/1");
        let (needed, held) = (scopes(&[Scope::Write]), scopes(&[Scope::Read]));
        let lacking = Lacking { holder: Holder::Tokens, needed, held };
        assert_eq!(write, Err(Denial::TokenScopeMissing(OperationId::new("counter.delete"), lacking)));
    }

    #[test]
    fn rule_4_of_tokens_without_a_known_owner_the_first_listed_is_used() {
        let everything = &[Scope::Read, Scope::Write][..];
        let policy = policy(
            &[
                ("a", everything, &["offline", "read", "write", "both"]),
                ("wide", everything, &["both", "read"]),
                ("b", everything, &["read"]),
                ("c", everything, &["read2", "read"]),
            ],
            &[
                ("read", &[Scope::Read]),
                ("read2", &[Scope::Read]),
                ("write", &[Scope::Write]),
                ("both", everything),
                ("offline", &[Scope::OfflineData]),
            ],
        );
        let upload = "/management/v1/counter/1/offline_conversions/upload";
        assert_eq!(verdict(&policy, 0, Verb::Get, "/management/v1/counters"), "read");
        assert_eq!(verdict(&policy, 0, Verb::Post, "/management/v1/counters"), "write");
        assert_eq!(verdict(&policy, 0, Verb::Post, upload), "offline");
        assert_eq!(verdict(&policy, 0, Verb::Post, "/management/v1/counter/1/expense/upload"), "write");
        assert_eq!(
            verdict(&policy, 2, Verb::Post, "/management/v1/counters"),
            "token_scope_missing: Some(\"counters.create\")"
        );
        assert_eq!(verdict(&policy, 1, Verb::Get, "/management/v1/counters"), "both");
        assert_eq!(verdict(&policy, 3, Verb::Get, "/management/v1/counters"), "read2");
    }
}

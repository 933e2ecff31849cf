//! Policy: may this caller do this, and with which token? A [`Grant`] is made here and nowhere else.
//!
//! 1. The operation must be known (`unknown_operation`, 404), and its path must have the method (`method_denied`, 403).
//! 2. The caller's scopes must cover the operation (`scope_denied`, 403).
//! 3. The request must be within the caller's rules ([`crate::rules`]).
//! 4. Of the caller's tokens, the narrowest that covers the operation is used: the one that can do the fewest other
//!    things; of equal ones, the first in the configuration. When none covers it, the request is refused
//!    (`token_scope_missing`, 403).
//! 5. Where the caller has `enforce: false`, rules 2 and 3 only say what they would refuse.

use crate::caller::{Caller, Callers};
use crate::operation::{Catalogue, Lookup, Operation, OperationId, Verb};
use crate::rejection::Reason;
use crate::rules::{Breach, Call, Duties};
use crate::scope::{Holder, Lacking, ScopeSet};
use crate::symbol::{CallerId, TokenAlias};

/// A token of the configuration, without the secret.
#[derive(Debug, Clone)]
pub struct TokenRights {
    /// Its name.
    pub alias: TokenAlias,
    /// What it was issued for, as declared: Yandex has no way to ask.
    pub scopes: ScopeSet,
    /// It stands by another, whose scopes it has to have.
    pub is_standby: bool,
}

/// Everything that decides.
#[derive(Debug)]
pub struct Policy {
    /// Who there is.
    pub callers: Callers,
    /// What can be asked.
    pub catalogue: Catalogue,
    tokens: Vec<TokenRights>,
    /// By caller: for each set of needed scopes, the position of the token to use.
    choices: Vec<[Option<u16>; ScopeSet::COUNT]>,
}

/// The permission to send one request: for this caller, this operation, with this token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grant {
    caller: CallerId,
    operation: OperationId,
    token: TokenAlias,
    token_position: u16,
}

/// Why there is no grant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Denial {
    /// Rule 1.
    UnknownOperation,
    /// Rule 1.
    MethodDenied,
    /// Rule 2.
    ScopeDenied(OperationId, Lacking),
    /// Rule 3.
    Rule(OperationId, Breach),
    /// Rule 4.
    TokenScopeMissing(OperationId, Lacking),
}

impl Denial {
    /// What the caller is told.
    #[must_use]
    pub const fn reason(self) -> Reason {
        match self {
            Self::UnknownOperation => Reason::UnknownOperation,
            Self::MethodDenied => Reason::MethodDenied,
            Self::ScopeDenied(..) => Reason::ScopeDenied,
            Self::Rule(_, breach) => breach.reason(),
            Self::TokenScopeMissing(..) => Reason::TokenScopeMissing,
        }
    }

    /// What was asked, where that is known.
    #[must_use]
    pub const fn operation(self) -> Option<OperationId> {
        match self {
            Self::UnknownOperation | Self::MethodDenied => None,
            Self::ScopeDenied(operation, _) | Self::Rule(operation, _) | Self::TokenScopeMissing(operation, _) => {
                Some(operation)
            }
        }
    }

    /// Which rule of the caller is broken, where it is one of those.
    #[must_use]
    pub const fn breach(self) -> Option<Breach> {
        match self {
            Self::Rule(_, breach) => Some(breach),
            Self::UnknownOperation | Self::MethodDenied | Self::ScopeDenied(..) | Self::TokenScopeMissing(..) => None,
        }
    }

    /// Which scopes are needed and which are there, where they are what lacks.
    #[must_use]
    pub const fn lacking(self) -> Option<Lacking> {
        match self {
            Self::ScopeDenied(_, lacking) | Self::TokenScopeMissing(_, lacking) => Some(lacking),
            Self::UnknownOperation | Self::MethodDenied | Self::Rule(..) => None,
        }
    }
}

/// A grant, and on what terms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Permission {
    /// The grant.
    pub grant: Grant,
    /// What is still owed to the caller's rules.
    pub duties: Duties,
    /// What would refuse the request if it were enforced (rule 5).
    pub shadowed: Option<Denial>,
}

impl Grant {
    /// What.
    #[must_use]
    pub const fn operation(self) -> OperationId {
        self.operation
    }

    /// For whom.
    #[must_use]
    pub const fn caller(self) -> CallerId {
        self.caller
    }

    /// With which token.
    #[must_use]
    pub const fn token(self) -> TokenAlias {
        self.token
    }

    /// The position of that token among [`Policy::tokens`].
    #[must_use]
    pub fn token_position(self) -> usize {
        self.token_position.into()
    }
}

impl Policy {
    /// Prepares the answers. Tokens that a caller names and `tokens` lacks are as if it did not name them.
    #[must_use]
    pub fn new(callers: Callers, catalogue: Catalogue, tokens: Vec<TokenRights>) -> Self {
        let choices = callers.all().iter().map(|caller| choices(caller, &tokens)).collect();
        Self { callers, catalogue, tokens, choices }
    }

    /// The tokens, in the order that [`Grant::token_position`] counts.
    #[must_use]
    pub fn tokens(&self) -> &[TokenRights] {
        &self.tokens
    }

    /// The operation that is asked for (rule 1).
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

    /// Whether a line of the catalogue has this path.
    #[must_use]
    pub fn knows(&self, path: &str) -> bool {
        self.catalogue.knows(path)
    }

    /// Whether the caller at `position` may send `call`, with what, and what it owes then (rules 2 to 5).
    ///
    /// # Errors
    /// [`Denial::ScopeDenied`], [`Denial::Rule`] and [`Denial::TokenScopeMissing`].
    pub fn permit(&self, position: usize, call: &Call<'_>) -> Result<Permission, Denial> {
        let operation = call.operation;
        let caller = self.callers.get(position).ok_or_else(|| scope_denied(operation, ScopeSet::EMPTY))?;
        let within = if caller.scopes.covers(operation.scopes) {
            caller.rules.check(call).map_err(|breach| Denial::Rule(operation.id, breach))
        } else {
            Err(scope_denied(operation, caller.scopes))
        };
        let (duties, shadowed) = match within {
            Err(denial) if caller.rules.enforce => return Err(denial),
            Err(denial) => (Duties::default(), Some(denial)),
            Ok(duties) => (Duties { list: duties.list && caller.rules.enforce, ..duties }, None),
        };
        Ok(Permission { grant: self.grant(position, caller, operation)?, duties, shadowed })
    }

    /// Whether the scopes of the caller at `position` and of its tokens let it do `operation`, and with what (rules 2 and
    /// 4): what holds whatever a request names.
    ///
    /// # Errors
    /// [`Denial::ScopeDenied`] and [`Denial::TokenScopeMissing`]; the former also when there is no such caller.
    pub fn authorize(&self, position: usize, operation: &Operation) -> Result<Grant, Denial> {
        let caller = self.callers.get(position).ok_or_else(|| scope_denied(operation, ScopeSet::EMPTY))?;
        if !caller.scopes.covers(operation.scopes) {
            return Err(scope_denied(operation, caller.scopes));
        }
        self.grant(position, caller, operation)
    }

    /// Rule 4.
    fn grant(&self, position: usize, caller: &Caller, operation: &Operation) -> Result<Grant, Denial> {
        let choice = self.choices.get(position).and_then(|choices| choices.get(operation.scopes.index()).copied());
        let missing = || Denial::TokenScopeMissing(operation.id, self.lacked_by_tokens(caller, operation));
        let token_position = choice.flatten().ok_or_else(missing)?;
        let token = self.tokens.get(usize::from(token_position)).ok_or_else(missing)?;
        Ok(Grant { caller: caller.id, operation: operation.id, token: token.alias, token_position })
    }

    #[cold]
    fn lacked_by_tokens(&self, caller: &Caller, operation: &Operation) -> Lacking {
        let own = self.tokens.iter().filter(|token| caller.tokens.contains(&token.alias));
        let held = own.flat_map(|token| token.scopes.iter()).collect();
        Lacking { holder: Holder::Tokens, needed: operation.scopes, held }
    }
}

/// Rule 2, for a caller that has the scopes `held`.
const fn scope_denied(operation: &Operation, held: ScopeSet) -> Denial {
    Denial::ScopeDenied(operation.id, Lacking { holder: Holder::Caller, needed: operation.scopes, held })
}

/// For every set of needed scopes, the token that `caller` uses (rule 4).
fn choices(caller: &Caller, tokens: &[TokenRights]) -> [Option<u16>; ScopeSet::COUNT] {
    let own: Vec<(u16, ScopeSet)> = (caller.tokens.iter())
        .filter_map(|alias| {
            let position = tokens.iter().position(|token| token.alias == *alias)?;
            Some((u16::try_from(position).ok()?, tokens.get(position)?.scopes))
        })
        .collect();
    std::array::from_fn(|index| {
        let needed = ScopeSet::from_index(index);
        let covering = own.iter().filter(|(_, scopes)| scopes.covers(needed));
        // min_by_key keeps the first of equals.
        covering.min_by_key(|(_, scopes)| scopes.with_implied().len()).map(|(position, _)| *position)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::caller::Conditions;
    use crate::rules::{List, Rules};
    use crate::scope::Scope;
    use crate::symbol::ListenerName;

    fn scopes(list: &[Scope]) -> ScopeSet {
        list.iter().copied().collect()
    }

    fn policy(callers: &[(&str, &[Scope], &[&str])], tokens: &[(&str, &[Scope])]) -> Policy {
        let callers = callers.iter().map(|(id, scope_list, tokens)| Caller {
            id: CallerId::new(id),
            conditions: Conditions::ANYONE,
            scopes: scopes(scope_list),
            tokens: tokens.iter().map(|alias| TokenAlias::new(alias)).collect(),
            rules: crate::rules::Rules::default(),
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

    /// What becomes of a request of one caller with these rules.
    fn decided(rules: Rules, scope: Scope, verb: Verb, target: &str) -> Result<Permission, Denial> {
        let mut caller = policy(&[("a", &[scope], &["t"])], &[]).callers.get(0).unwrap().clone();
        caller.rules = rules;
        let tokens =
            vec![TokenRights { alias: TokenAlias::new("t"), scopes: scopes(&[Scope::Read]), is_standby: false }];
        let callers = Callers::new(vec![caller], &[ListenerName::new("app")]);
        let policy = Policy::new(callers, Catalogue::built_in(), tokens);
        let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
        let names = crate::target::check(path, query, 1000).unwrap();
        let operation = policy.operation(verb, path)?;
        let subject = crate::subject::Subject::of(operation, path, query, names);
        policy.permit(0, &Call { operation, path, query, names, subject: &subject })
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
    fn rule_5_in_the_shadow_scopes_and_rules_only_say_what_they_would_refuse() {
        let rules = Rules { counters: Some([1].into()), list: List::Filter, enforce: false, ..Rules::default() };
        let decided = |scope, verb, target| decided(rules.clone(), scope, verb, target);
        let refused = |scope, target| decided(scope, Verb::Get, target).unwrap().shadowed.unwrap().reason();
        assert_eq!(refused(Scope::Read, "/management/v1/counter/2/goals"), Reason::CounterDenied);
        assert_eq!(refused(Scope::Expenses, "/management/v1/counter/1/goals"), Reason::ScopeDenied);
        let list = decided(Scope::Read, Verb::Get, "/management/v1/counters").unwrap();
        assert_eq!((list.duties.list, list.shadowed), (false, None), "the list goes on as it is");
        // No token covers it, so that there is nothing to send it with.
        let write = decided(Scope::Read, Verb::Delete, "/management/v1/counter/1");
        let (needed, held) = (scopes(&[Scope::Write]), scopes(&[Scope::Read]));
        let lacking = Lacking { holder: Holder::Tokens, needed, held };
        assert_eq!(write, Err(Denial::TokenScopeMissing(OperationId::new("counter.delete"), lacking)));
    }

    #[test]
    fn rule_4_the_narrowest_token_is_used() {
        let everything = &[Scope::Read, Scope::Write][..];
        let policy = policy(
            &[
                ("a", everything, &["both", "write", "read", "offline"]),
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
            verdict(&policy, 1, Verb::Post, "/management/v1/counters"),
            "token_scope_missing: Some(\"counters.create\")"
        );
        assert_eq!(verdict(&policy, 2, Verb::Get, "/management/v1/counters"), "read2");
    }
}

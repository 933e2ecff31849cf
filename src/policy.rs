//! Policy: may this caller do this, and with which token? A [`Grant`] is made here and nowhere else.
//!
//! 1. The operation must be known (`unknown_operation`, 404), and its path must have the method (`method_denied`, 403).
//! 2. The caller's scopes must cover the operation (`scope_denied`, 403).
//! 3. Of the caller's tokens, the narrowest that covers the operation is used: the one that can do the fewest other
//!    things; of equal ones, the first in the configuration. When none covers it, the request is refused
//!    (`token_scope_missing`, 403).

use crate::caller::{Caller, Callers};
use crate::operation::{Catalogue, Lookup, Operation, OperationId, Verb};
use crate::scope::ScopeSet;
use crate::symbol::{CallerId, TokenAlias};

/// A token of the configuration, without the secret.
#[derive(Debug, Clone)]
pub struct TokenRights {
    /// Its name.
    pub alias: TokenAlias,
    /// What it was issued for, as declared: Yandex has no way to ask.
    pub scopes: ScopeSet,
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
    ScopeDenied(OperationId),
    /// Rule 3.
    TokenScopeMissing(OperationId),
}

impl Grant {
    /// What.
    #[must_use]
    pub const fn operation(self) -> OperationId {
        self.operation
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

    /// Whether the caller at `position` may do `operation`, and with what (rules 2 and 3).
    ///
    /// # Errors
    /// [`Denial::ScopeDenied`] and [`Denial::TokenScopeMissing`]; the former also when there is no such caller.
    pub fn authorize(&self, position: usize, operation: &Operation) -> Result<Grant, Denial> {
        let denied = Denial::ScopeDenied(operation.id);
        let caller = self.callers.get(position).ok_or(denied)?;
        if !caller.scopes.covers(operation.scopes) {
            return Err(denied);
        }
        let choice = self.choices.get(position).and_then(|choices| choices.get(operation.scopes.index()).copied());
        let token_position = choice.flatten().ok_or(Denial::TokenScopeMissing(operation.id))?;
        let token = self.tokens.get(usize::from(token_position)).ok_or(Denial::TokenScopeMissing(operation.id))?;
        Ok(Grant { caller: caller.id, operation: operation.id, token: token.alias, token_position })
    }
}

/// For every set of needed scopes, the token that `caller` uses (rule 3).
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
    use crate::caller::Proofs;
    use crate::scope::Scope;
    use crate::symbol::ListenerName;

    fn scopes(list: &[Scope]) -> ScopeSet {
        list.iter().copied().collect()
    }

    fn policy(callers: &[(&str, &[Scope], &[&str])], tokens: &[(&str, &[Scope])]) -> Policy {
        let callers = callers.iter().map(|(id, scope_list, tokens)| Caller {
            id: CallerId::new(id),
            proofs: Proofs::default(),
            scopes: scopes(scope_list),
            tokens: tokens.iter().map(|alias| TokenAlias::new(alias)).collect(),
            rules: crate::rules::Rules::default(),
        });
        let tokens = tokens
            .iter()
            .map(|(alias, list)| TokenRights { alias: TokenAlias::new(alias), scopes: scopes(list) })
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
            Err(denial) => format!("{denial:?}"),
        }
    }

    #[test]
    fn rule_1_the_operation_must_be_known() {
        let policy = policy(&[("a", &[Scope::Read], &["t"])], &[("t", &[Scope::Read])]);
        assert_eq!(verdict(&policy, 0, Verb::Get, "/other"), "UnknownOperation");
        assert_eq!(verdict(&policy, 0, Verb::Patch, "/management/v1/counters"), "MethodDenied");
    }

    #[test]
    fn rule_2_the_scopes_must_cover_it() {
        let policy = policy(&[("a", &[Scope::Read], &["t"])], &[("t", &[Scope::Read, Scope::Write])]);
        assert_eq!(verdict(&policy, 0, Verb::Get, "/management/v1/counters"), "t");
        assert_eq!(verdict(&policy, 0, Verb::Post, "/management/v1/counters"), "ScopeDenied(\"counters.create\")");
        assert_eq!(verdict(&policy, 9, Verb::Get, "/management/v1/counters"), "ScopeDenied(\"counters.list\")");
    }

    #[test]
    fn rule_3_the_narrowest_token_is_used() {
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
            "TokenScopeMissing(\"counters.create\")"
        );
        assert_eq!(verdict(&policy, 2, Verb::Get, "/management/v1/counters"), "read2");
    }
}

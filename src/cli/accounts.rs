//! What `check` says about callers with several tokens.

use metrica::login;
use metrica::scope::{Scope, ScopeSet};

use crate::config::{Config, TokenSource};
use crate::policy::caller::Caller;
use crate::policy::names::TokenAlias;
use crate::policy::rules::List;

/// Returns warnings about tokens of a caller that are probably not used as intended.
pub(super) fn warnings(config: &Config, caller: &Caller) -> Vec<String> {
    let own = own(config, caller);
    let never = |(unused, used): (TokenAlias, TokenAlias)| {
        format!(
            "caller '{}' never uses token '{unused}': '{used}' is of the same account, has the same scopes and is listed before it",
            caller.id
        )
    };
    let wide = wide(&own).map(|(used, narrow)| {
        format!(
            "caller '{}' uses token '{used}', which it lists first, although '{narrow}' is narrower: \
             if both are of one account, name it in 'owner' of both, or list the narrower first",
            caller.id
        )
    });
    unused(&own).into_iter().map(never).chain(wide).collect()
}

/// Returns a note about the list of counters of a caller with several accounts.
pub(super) fn note(config: &Config, caller: &Caller) -> Option<String> {
    let read: ScopeSet = [Scope::Read].into_iter().collect();
    let own = own(config, caller);
    let mut reading = own.iter().filter(|source| source.scopes.covers(read));
    let first = reading.next()?;
    let is_filtered = caller.rules.counters.is_some() && caller.rules.list == List::Filter;
    let has_others = reading.any(|other| !is_of_one_account(first, other));
    (is_filtered && has_others).then(|| {
        format!(
            "caller '{}': a filtered list has the counters of the account of its first token, '{}', unless the request names \
             another in X-Gate-Account",
            caller.id, first.alias
        )
    })
}

/// The tokens of a caller, in its order.
fn own<'a>(config: &'a Config, caller: &Caller) -> Vec<&'a TokenSource> {
    let source = |alias: &TokenAlias| config.tokens.iter().find(|source| source.alias == *alias);
    caller.tokens.iter().filter_map(source).collect()
}

fn is_of_one_account(one: &TokenSource, other: &TokenSource) -> bool {
    let owners = one.origin.owner.as_deref().zip(other.origin.owner.as_deref());
    owners.is_some_and(|(one, other)| login::is_same(one, other))
}

/// Returns the tokens that are never chosen, each with the one that is chosen in its place.
fn unused(own: &[&TokenSource]) -> Vec<(TokenAlias, TokenAlias)> {
    let is_same = |one: &TokenSource, other: &TokenSource| {
        is_of_one_account(one, other) && one.scopes == other.scopes && one.origin.counters == other.origin.counters
    };
    let before = |(place, token): (usize, &&TokenSource)| {
        let earlier = own.iter().take(place).find(|earlier| is_same(earlier, token))?;
        Some((token.alias, earlier.alias))
    };
    own.iter().enumerate().filter_map(before).collect()
}

/// Returns a token that is used because it is listed first, and a narrower one that may be of the same account.
fn wide(own: &[&TokenSource]) -> Option<(TokenAlias, TokenAlias)> {
    let width = |source: &TokenSource| source.scopes.with_implied().len();
    let of_scope = |scope: Scope| {
        let needed: ScopeSet = [scope].into_iter().collect();
        let covering: Vec<_> = own.iter().filter(|source| source.scopes.covers(needed)).collect();
        let first = covering.first()?;
        let is_open = |other: &TokenSource| first.origin.owner.is_none() || other.origin.owner.is_none();
        let narrow = covering.iter().find(|other| width(other) < width(first) && is_open(other))?;
        Some((first.alias, narrow.alias))
    };
    let all: ScopeSet = own.iter().flat_map(|source| source.scopes.with_implied().iter()).collect();
    all.iter().find_map(of_scope)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// What is said of a caller with these tokens, each with its keys.
    fn said(tokens: &[(&str, &str)], rules: &str) -> (Vec<String>, Option<String>) {
        let table: Vec<_> =
            tokens.iter().map(|(name, keys)| format!("{name}: {{file: /nowhere/{name}, {keys}}}")).collect();
        let names: Vec<_> = tokens.iter().map(|(name, _)| *name).collect();
        let text = format!(
            "
listeners: [{{name: app, address: '127.0.0.1:0'}}]
tokens: {{{}}}
callers: [{{id: c, match: {{listener: app}}, scopes: [metrika:read, metrika:write], tokens: [{}]{rules}}}]
",
            table.join(", "),
            names.join(", ")
        );
        let config = Config::parse(&text, Path::new("gate.yaml")).unwrap();
        (warnings(&config, &config.callers[0]), note(&config, &config.callers[0]))
    }

    const READ: &str = "scopes: [metrika:read]";
    const BOTH: &str = "scopes: [metrika:read, metrika:write]";

    #[test]
    fn a_token_that_is_never_used_has_the_same_account_scopes_and_counters() {
        let one = |keys: &str| format!("{READ}, {keys}");
        let count = |a: &str, b: &str| said(&[("a", &one(a)), ("b", &one(b))], "").0.len();
        assert_eq!(count("owner: shop.x", "owner: Shop-X"), 1, "logins compare as Yandex compares them");
        assert_eq!(count("owner: shop, counters: [1]", "owner: shop, counters: [2]"), 0);
        assert_eq!(count("owner: shop", "owner: other"), 0);
    }

    #[test]
    fn a_wide_token_that_is_listed_first_is_told_if_owners_are_not() {
        let (warnings, _) = said(&[("wide", BOTH), ("narrow", READ)], "");
        assert!(warnings[0].contains("uses token 'wide', which it lists first, although 'narrow' is narrower"));
        assert!(said(&[("narrow", READ), ("wide", BOTH)], "").0.is_empty());
        let (wide, narrow) = (format!("{BOTH}, owner: shop"), format!("{READ}, owner: shop"));
        assert!(said(&[("wide", &wide), ("narrow", &narrow)], "").0.is_empty(), "the narrowest of one account is used");
    }

    #[test]
    fn a_filtered_list_of_several_accounts_is_of_the_first() {
        let filter = ", counters: [1], list: filter";
        let (one, two) = (format!("{READ}, owner: one"), format!("{READ}, owner: two"));
        let (_, note) = said(&[("a", &one), ("b", &two)], filter);
        assert!(note.unwrap().contains("first token, 'a'"));
        assert_eq!(said(&[("a", &one), ("b", &two)], "").1, None);
        assert_eq!(said(&[("a", &one), ("b", &one)], filter).1, None);
    }
}

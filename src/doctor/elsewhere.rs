//! Counters of callers with several accounts: a counter that one of their tokens serves needs no access by the others.

use std::collections::HashSet;

use metrica::scope::ScopeSet;

use super::Line;
use super::finding::Finding;
use crate::config::{Config, TokenSource};
use crate::policy::caller::Caller;
use crate::policy::names::TokenAlias;

/// Replaces the finding that a token's owner has no access to a counter, or cannot show it, where another token of each of its callers serves that
/// counter with the same scopes.
pub(super) fn settle(lines: &mut [Line], config: &Config) {
    let served: HashSet<(TokenAlias, u64)> = lines
        .iter()
        .filter(|line| serves(&line.finding))
        .filter_map(|line| Some((line.token?, line.counter?)))
        .collect();
    for line in lines.iter_mut().filter(|line| lacks(&line.finding)) {
        let Some(counter) = line.counter else { continue };
        let Some(token) = config.tokens.iter().find(|source| Some(source.alias) == line.token) else { continue };
        let users = config.callers.iter().filter(|caller| names(caller, token, counter));
        let others: Option<Vec<_>> = users.map(|caller| other(caller, token, counter, config, &served)).collect();
        if let Some(other) = others.and_then(|others| others.first().copied()) {
            line.finding = Finding::CounterElsewhere { other };
        }
    }
}

/// Whether a caller can use the token for the counter.
fn names(caller: &Caller, token: &TokenSource, counter: u64) -> bool {
    let is_its = caller.rules.counters.as_ref().is_none_or(|counters| counters.contains(&counter));
    is_its && caller.tokens.contains(&token.alias)
}

/// The token of the caller that serves the counter in place of `token`.
fn other(
    caller: &Caller,
    token: &TokenSource,
    counter: u64,
    config: &Config,
    served: &HashSet<(TokenAlias, u64)>,
) -> Option<TokenAlias> {
    let used = caller.scopes.with_implied();
    let needed: Vec<ScopeSet> = (token.scopes.with_implied().iter().filter(|scope| used.contains(*scope)))
        .map(|scope| [scope].into_iter().collect())
        .collect();
    let replaces = |source: &&TokenSource| {
        caller.tokens.contains(&source.alias)
            && served.contains(&(source.alias, counter))
            && needed.iter().all(|scope| source.scopes.covers(*scope))
    };
    config.tokens.iter().find(replaces).map(|source| source.alias)
}

const fn serves(finding: &Finding) -> bool {
    matches!(finding, Finding::Counter { .. } | Finding::CounterLooks { .. })
}

const fn lacks(finding: &Finding) -> bool {
    matches!(
        finding,
        Finding::CounterNotGranted { .. }
            | Finding::CounterViewOnly { .. }
            | Finding::CounterOfOrganisation
            | Finding::CounterUnseen
    )
}

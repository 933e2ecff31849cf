//! The key `counters` of a token: the counters of its owner, for the choice among a caller's tokens.

use std::sync::Arc;

use metrica::counter_list::CounterList;
use metrica::login;
use metrica::observed_rights::{Access, Permission};
use metrica::scope::Scope;

use super::reader::{At, Findings, Table};
use super::{TokenSource, rules};
use crate::policy::choice::Accounts;

/// The counters of a token's owner, as the configuration knows them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum TokenCounters {
    /// Only responses show them.
    #[default]
    Unknown,
    /// Exactly these, with every permission.
    Listed(Arc<CounterList>),
    /// The gate asks Metrica for them.
    Auto,
}

impl TokenCounters {
    /// The configured list.
    #[must_use]
    pub fn listed(&self) -> Option<&CounterList> {
        match self {
            Self::Listed(list) => Some(list),
            Self::Unknown | Self::Auto => None,
        }
    }
}

/// The knowledge about accounts that is in the configuration alone.
#[derive(Debug, Clone, Copy)]
pub struct ConfiguredAccounts<'a>(pub &'a [TokenSource]);

impl Accounts for ConfiguredAccounts<'_> {
    fn access(&self, position: usize, counter: u64, _: Access) -> Option<bool> {
        Some(self.0.get(position)?.origin.counters.listed()?.get(counter).is_some())
    }

    fn represents(&self, _: usize, _: &str) -> Option<bool> {
        None
    }

    fn owner(&self, position: usize, then: &mut dyn FnMut(&str)) {
        self.0.get(position).and_then(|source| source.origin.owner.as_deref()).into_iter().for_each(then);
    }
}

/// Reads the key of a token.
pub fn counters(table: &Table<'_>, findings: &mut Findings) -> Option<TokenCounters> {
    let Some(at) = table.optional("counters") else { return Some(TokenCounters::Unknown) };
    if at.is_word("auto") {
        return Some(TokenCounters::Auto);
    }
    let counters = rules::counters(&at, findings)?;
    let rows = counters.iter().map(|counter| (*counter, Permission::Own)).collect();
    Some(TokenCounters::Listed(Arc::new(CounterList::new(rows, true))))
}

/// Checks that a token with `counters: auto` can read, or has a sibling that can.
pub fn check_readers(tokens: &[TokenSource], at: &At<'_>, findings: &mut Findings) {
    let ignored = &mut Findings::default();
    let Some(table) = at.any_table(ignored) else { return };
    for (alias, at) in table.entries_at() {
        let Some(token) = tokens.iter().find(|source| source.alias.as_str() == alias) else { continue };
        let reads = |source: &TokenSource| source.scopes.contains(Scope::Read);
        let is_sibling = |other: &TokenSource| {
            let owners = token.origin.owner.as_deref().zip(other.origin.owner.as_deref());
            owners.is_some_and(|(own, other)| login::is_same(own, other))
        };
        if token.origin.counters != TokenCounters::Auto || reads(token) {
            continue;
        }
        let Some(at) = at.any_table(ignored).and_then(|table| table.optional("counters")) else { continue };
        if !tokens.iter().any(|other| reads(other) && is_sibling(other)) {
            at.wrong(
                findings,
                "needs a token of the same account that can read: give this one metrika:read, or name its account in 'owner' \
                 here and at a token with metrika:read, or list the counters",
            );
        }
    }
}

//! Served: which callers have the tokens that they use, for readiness.
//!
//! 1. A caller lacks a token whose file is missing, unless its standby is available.
//! 2. A listener lacks the tokens that the callers with possible connections there lack.
//! 3. The gate as a whole serves if some caller has a token, or if there are no callers.

use std::collections::BTreeSet;

use crate::config::{Config, TokenSource};
use crate::metrics::process::Served;
use crate::policy::names::TokenAlias;
use crate::worker::Slot;

/// Determines the missing tokens of the callers and listeners of `config`. `slots` are in the order of its tokens.
pub fn served(config: &Config, slots: &[Slot]) -> Served {
    let usable: Vec<_> = config.tokens.iter().zip(slots).filter(|(_, slot)| slot.token.is_some()).collect();
    let is_there = |alias: TokenAlias| usable.iter().any(|(source, _)| source.alias == alias);
    let is_lacking = |source: &&TokenSource| !is_there(source.alias) && !source.origin.standby.is_some_and(is_there);
    let lacking: BTreeSet<_> = config.tokens.iter().filter(is_lacking).map(|source| source.alias).collect();
    let mut served = Served { some: config.callers.is_empty(), ..Served::default() };
    for caller in config.callers.iter() {
        let lacks: Vec<_> = caller.tokens.iter().copied().filter(|alias| lacking.contains(alias)).collect();
        served.some |= lacks.len() < caller.tokens.len();
        for listener in config.listeners.iter().filter(|listener| listener.can_be_of(&caller.conditions)) {
            let of_listener = served.listeners.entry(listener.name).or_default();
            of_listener.extend(lacks.iter().copied());
        }
        served.callers.insert(caller.id, lacks.into_iter().collect());
    }
    for listener in &config.listeners {
        served.listeners.entry(listener.name).or_default();
    }
    served
}

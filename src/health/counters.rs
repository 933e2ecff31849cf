//! The question that lists the counters of an account (`counters: auto`).

use std::sync::Arc;

use metrica::counter_list::{CounterList, MOST_LISTED};
use metrica::observed_rights::{Fact, Permission};
use metrica::response::listed_in;

use super::ask::{Asker, Finding, Found, read};
use crate::health::question::{Question, Reply};
use crate::metrics::process::Purpose;

/// The number of counters that one request lists.
const PAGE: usize = 1000;

/// Asks for all counters on which the owner of a token has a permission, page by page, up to [`MOST_LISTED`].
pub fn list(asker: Asker) {
    asker.clone().find(async move {
        let mut found = Found::default();
        let mut rows: Vec<(u64, Permission)> = Vec::new();
        let mut is_complete = false;
        while !is_complete && rows.len() <= MOST_LISTED {
            // `offset` counts from 1.
            let target = format!("/management/v1/counters?per_page={PAGE}&offset={}", rows.len() + 1);
            let reply = asker.ask_for(&target, Purpose::Counters).await;
            let Reply::Yes(body) = asker.heard(Question::List, reply) else {
                return Finding::Listed(None, asker.requests.get());
            };
            let Some(listed) = listed_in(&body) else { return Finding::Listed(None, asker.requests.get()) };
            is_complete = listed.counters.len() < PAGE;
            for shown in listed.counters {
                rows.extend(Permission::of(&shown.permission).map(|permission| (shown.id, permission)));
                found
                    .facts
                    .extend(shown.owner().filter(|_| found.facts.is_empty()).map(|owner| Fact::Owner(owner.into())));
            }
        }
        found.facts.push(Fact::Proven(read()));
        found.facts.push(Fact::List(Arc::new(CounterList::new(rows, is_complete))));
        Finding::Listed(Some(found), asker.requests.get())
    });
}

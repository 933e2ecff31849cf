//! The list of the counters of an account (`counters: auto`), page by page.
//!
//! 1. A page is a question of its own, so that other questions with the token are asked between two pages.
//! 2. The place of the next page is the number of elements received, with those that cannot be read.
//! 3. The list ends with a page that adds no counter, with the number of counters that Metrica says there are, or after
//!    [`MOST_PAGES`].
//! 4. The list is complete only if it has as many different counters with a known permission as Metrica says there are. So it
//!    is not complete if an element could not be read, or if counters were added or removed between two pages.

use metrica::counter_list::{CounterList, MOST_LISTED};
use metrica::observed_rights::Permission;
use metrica::response::{Listed, listed_in};
use rustc_hash::FxHashMap;

use super::ask::{Asker, Finding, Found};
use crate::health::question::{Question, Reply};
use crate::metrics::process::Purpose;

/// The number of counters that one request lists.
const PAGE: usize = 1000;

/// The maximum number of pages of a list.
pub const MOST_PAGES: usize = MOST_LISTED / PAGE + 1;

/// The pages of a list that were read so far.
#[derive(Debug, Default)]
pub struct Pages {
    counters: FxHashMap<u64, Option<Permission>>,
    /// The number of elements, with those that cannot be read.
    received: usize,
    pages: usize,
    /// The number of counters that the last page says there are.
    rows: Option<usize>,
    owner: Option<Box<str>>,
}

impl Pages {
    /// The place of the next page; `offset` counts from 1.
    #[must_use]
    pub const fn offset(&self) -> usize {
        self.received + 1
    }

    /// The number of pages.
    #[must_use]
    pub const fn count(&self) -> usize {
        self.pages
    }

    /// Adds a page. Returns whether it is the last one (rule 3).
    pub fn add(&mut self, page: Listed) -> bool {
        let before = self.counters.len();
        (self.received, self.pages, self.rows) = (self.received + page.received, self.pages + 1, page.rows);
        for shown in page.counters.into_iter().filter(|shown| shown.id != 0) {
            self.owner = self.owner.take().or_else(|| shown.owner().map(Box::from));
            self.counters.insert(shown.id, Permission::of(&shown.permission));
        }
        let is_all = page.rows.map_or(page.received < PAGE, |rows| self.received >= rows);
        is_all || self.counters.len() == before || self.pages >= MOST_PAGES
    }

    /// The owner of the account, if a counter shows it, and the list.
    #[must_use]
    pub fn into_list(self) -> (Option<Box<str>>, CounterList) {
        let all = self.counters.len();
        let known = self.counters.into_iter().filter_map(|(counter, permission)| Some((counter, permission?)));
        let known: Vec<_> = known.collect();
        let is_complete = known.len() == all && self.rows == Some(all);
        (self.owner, CounterList::new(known, is_complete))
    }
}

/// Asks for the page that begins at `offset`.
pub fn page(asker: Asker, offset: usize) {
    asker.clone().find(async move {
        let target = format!("/management/v1/counters?per_page={PAGE}&offset={offset}");
        let reply = asker.ask_for(&target, Purpose::Counters).await;
        let reply = asker.heard(Question::List, reply);
        let mut found = Found::default();
        let page = if let Reply::Yes(body) = &reply { listed_in(body) } else { None };
        if page.is_none() {
            found.take_list(&reply, asker.about);
        }
        Finding::Page(page, found, asker.requests.get())
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A page with these elements, as JSON, of a list that says it has `rows` counters.
    fn listed(elements: &[String], rows: usize) -> Listed {
        listed_in(format!(r#"{{"rows":{rows},"counters":[{}]}}"#, elements.join(",")).as_bytes()).unwrap()
    }

    fn elements(from: u64, to: u64, word: &str) -> Vec<String> {
        (from..=to).map(|id| format!(r#"{{"id":{id},"permission":"{word}","owner_login":"shop"}}"#)).collect()
    }

    fn complete(pages: Pages) -> (usize, bool) {
        let (_, list) = pages.into_list();
        (list.len(), list.is_complete())
    }

    #[test]
    fn rule_2_elements_that_cannot_be_read_count_for_the_place() {
        let mut pages = Pages::default();
        assert!(!pages.add(listed(&elements(1, 1000, "a_new_word"), 1500)));
        assert_eq!(pages.offset(), 1001);
        assert!(pages.add(listed(&elements(1001, 1500, "own"), 1500)));
        assert_eq!(complete(pages), (500, false), "some permissions are unknown");
        let mut pages = Pages::default();
        let mut odd = elements(1, 999, "own");
        odd.push(r#"{"id":"x"}"#.to_owned());
        assert!(!pages.add(listed(&odd, 1200)));
        assert_eq!(pages.offset(), 1001);
        assert!(pages.add(listed(&elements(1001, 1200, "own"), 1200)));
        assert_eq!(complete(pages), (1199, false), "one could not be read");
    }

    #[test]
    fn rule_3_a_list_ends() {
        let mut pages = Pages::default();
        assert!(!pages.add(listed(&elements(1, 100, "view"), 250)), "Metrica may send shorter pages");
        assert!(!pages.add(listed(&elements(101, 200, "view"), 250)));
        assert!(pages.add(listed(&elements(201, 250, "view"), 250)));
        assert_eq!(complete(pages), (250, true));
        let mut pages = Pages::default();
        assert!(!pages.add(listed(&elements(1, 1000, "view"), 5000)));
        assert!(pages.add(listed(&elements(1, 1000, "view"), 5000)), "it adds no counter");
        let mut pages = Pages::default();
        let ends =
            (0..).position(|page| pages.add(listed(&elements(page * 10 + 1, page * 10 + 10, "view"), 9_999_999)));
        assert_eq!(ends.map(|index| index + 1), Some(MOST_PAGES));
        let mut pages = Pages::default();
        assert!(pages.add(listed(&[], 0)));
        assert_eq!(complete(pages), (0, true), "an account without counters");
    }

    #[test]
    fn rule_4_a_list_that_changes_between_two_pages_is_not_complete() {
        let mut pages = Pages::default();
        pages.add(listed(&elements(1, 1000, "view"), 1500));
        // One of the first page was deleted, so the one at the place of the second was never shown.
        assert!(!pages.add(listed(&elements(1002, 1500, "view"), 1500)));
        assert!(pages.add(listed(&[], 1499)));
        let (owner, list) = pages.into_list();
        assert_eq!((owner, list.len(), list.is_complete()), (None, 1499, true));
        let mut pages = Pages::default();
        pages.add(listed(&elements(1, 1000, "own"), 1501));
        assert!(pages.add(listed(&elements(1000, 1500, "own"), 1501)), "one was added before them");
        let (owner, list) = pages.into_list();
        assert_eq!((owner.as_deref(), list.len(), list.is_complete()), (Some("shop"), 1500, false));
    }
}

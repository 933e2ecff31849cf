//! Subject: the data that a request affects, read from the bytes that are sent upstream.
//!
//! 1. A counter is a decimal number without sign, spaces or leading zeros, from 1 to 2^64 - 1. It is read from the path if
//!    the operation has one there, and from `ids`, `id` and the parameters that could name counters, separated by commas.
//! 2. Any other value in such a place is unreadable: policy never guesses.
//! 3. A login is read from `ulogin`, and several, separated by commas, from `direct_client_logins`. Values are
//!    percent-decoded once, and `+` is a space.

use strict_http::cut;
use strict_http::target::{Names, name_of, plain};

use crate::operation::{Operation, Reach};

pub mod json;

/// The counters that a request names.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Counters {
    /// None.
    #[default]
    None,
    /// Exactly one.
    One(u64),
    /// Two or more, which may be equal.
    Several(Box<[u64]>),
    /// A value in the place of a counter is not a number (rule 2).
    Unreadable,
}

impl Counters {
    /// The counters as a slice; empty if they are unreadable.
    #[must_use]
    pub const fn as_slice(&self) -> &[u64] {
        match self {
            Self::None | Self::Unreadable => &[],
            Self::One(counter) => std::slice::from_ref(counter),
            Self::Several(counters) => counters,
        }
    }
}

/// Collects counters. The list is allocated from the second on, because most requests name one.
#[derive(Default)]
struct Found {
    first: Option<u64>,
    list: Vec<u64>,
    unreadable: bool,
}

impl Found {
    fn add(&mut self, counter: Option<u64>) {
        match (counter, self.first) {
            (None, _) => self.unreadable = true,
            (Some(counter), None) => self.first = Some(counter),
            (Some(counter), Some(first)) => {
                if self.list.is_empty() {
                    self.list.push(first);
                }
                self.list.push(counter);
            }
        }
    }
}

impl From<Found> for Counters {
    fn from(found: Found) -> Self {
        match found {
            Found { unreadable: true, .. } => Self::Unreadable,
            Found { first: None, .. } => Self::None,
            Found { first: Some(one), list, .. } if list.is_empty() => Self::One(one),
            Found { list, .. } => Self::Several(list.into()),
        }
    }
}

/// The data that a request affects.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Subject {
    /// The counters that the request names.
    pub counters: Counters,
    /// `ulogin`: the account on whose behalf the request is made; without it, the token's owner.
    pub login: Option<Box<str>>,
    /// `direct_client_logins`: clients of Direct.
    pub clients: Box<[Box<str>]>,
    /// A report names counters in another parameter than `ids` or `id`, which Metrica takes no notice of there.
    pub misnamed: bool,
}

impl Subject {
    /// Reads the subject of a request for `operation`, whose checked target contains `names`.
    #[must_use]
    pub fn of(operation: &Operation, path: &str, query: Option<&str>, names: Names) -> Self {
        let (mut subject, mut found) = (Self::default(), Found::default());
        if let Reach::Counter(position) = operation.reach {
            found.add(operation.segment(path, position).and_then(|segment| counter(segment.as_bytes())));
        }
        let telling = Names::IDS | Names::ID | Names::ULOGIN | Names::DIRECT_CLIENT_LOGINS | Names::COUNTER;
        if names.has(telling) {
            subject.misnamed = names.has(Names::COUNTER) && !names.has(Names::IDS | Names::ID) && is_report(operation);
            let prefix = if operation.template.starts_with("/analytics/") { "ga:" } else { "" };
            query.into_iter().for_each(|query| subject.read_query(query, prefix, &mut found));
        }
        subject.counters = found.into();
        subject
    }

    fn read_query(&mut self, query: &str, prefix: &str, found: &mut Found) {
        for pair in cut::parts(query.as_bytes(), b'&') {
            let name = name_of(pair);
            let value = cut::at_most(pair, name.len() + 1).1;
            let names = Names::of(name);
            if names.has(Names::IDS | Names::ID | Names::COUNTER) {
                // Fast path: most values are digits and commas, unencoded.
                let encoded = memchr::memchr(b'%', value).map(|_| plain(value));
                for element in cut::parts(encoded.as_deref().unwrap_or(value), b',') {
                    found.add(counter(element.strip_prefix(prefix.as_bytes()).unwrap_or(element)));
                }
            } else if names.has(Names::ULOGIN) {
                self.login = Some(text(value).into());
            } else if names.has(Names::DIRECT_CLIENT_LOGINS) {
                self.clients = text(value).split(',').map(Into::into).collect();
            }
        }
    }
}

/// Whether the operation is a report; the list of clients takes `counters`.
fn is_report(operation: &Operation) -> bool {
    operation.reach == Reach::Reports && !operation.template.starts_with("/management/")
}

/// Parses a counter (rule 1).
#[must_use]
pub fn counter(text: &[u8]) -> Option<u64> {
    let is_decimal = text.first().is_some_and(|first| *first != b'0');
    text.iter()
        .filter(|_| is_decimal)
        .try_fold(0_u64, |number, byte| {
            let digit = byte.checked_sub(b'0').filter(|digit| *digit < 10)?;
            number.checked_mul(10)?.checked_add(digit.into())
        })
        .filter(|_| is_decimal)
}

/// Decodes a value of the query (rule 3).
#[must_use]
pub fn text(value: &[u8]) -> String {
    let spaced: Vec<u8> = value.iter().map(|byte| if *byte == b'+' { b' ' } else { *byte }).collect();
    String::from_utf8_lossy(&plain(&spaced)).into_owned()
}

#[cfg(test)]
mod tests {
    use strict_http::target;

    use super::*;
    use crate::operation::{Catalogue, Lookup, Verb};

    fn subject(verb: Verb, target: &str) -> Subject {
        let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
        let names = target::check(path, query, 10_000).unwrap();
        let catalogue = Catalogue::built_in();
        let Lookup::Known(operation) = catalogue.find(verb, path) else { panic!("{target} is no operation") };
        Subject::of(operation, path, query, names)
    }

    #[test]
    fn rule_1_counters_are_read_from_every_place() {
        for (target, expected) in [
            ("/management/v1/counter/12", &[12][..]),
            ("/management/v1/counter/12.json", &[12]),
            ("/management/v1/counter/12/goals.json?ids=13", &[12, 13]),
            ("/export/v1/cloud/counter/12", &[12]),
            ("/stat/v1/data?ids=1", &[1]),
            ("/stat/v1/data?metrics=ym:s:visits&ids=1,2%2C3", &[1, 2, 3]),
            ("/stat/v1/data?id=18446744073709551615", &[u64::MAX]),
            ("/analytics/v3/data/ga?ids=ga:7,ga%3A8", &[7, 8]),
            ("/management/v1/counters", &[]),
            ("/management/v1/clients?counters=4,5", &[4, 5]),
            ("/management/v1/clients?counters=4&counter_id=5&counters=4", &[4, 5, 4]),
        ] {
            assert_eq!(subject(Verb::Get, target).counters.as_slice(), expected, "{target}");
        }
    }

    #[test]
    fn rule_2_a_counter_that_is_not_a_number_is_unreadable() {
        for value in
            ["", "1,", "+1", "01", "1%20", "1;2", "0x1", "%2531", "ga:1", "18446744073709551616", "1.0", "%EF%BC%91"]
        {
            let target = format!("/stat/v1/data?ids=12,{value}");
            assert_eq!(subject(Verb::Get, &target).counters, Counters::Unreadable, "{value}");
        }
        for path in ["/management/v1/counter/a", "/management/v1/counter/012", "/management/v1/counter/1.json/goals"] {
            assert_eq!(subject(Verb::Get, path).counters, Counters::Unreadable, "{path}");
        }
    }

    #[test]
    fn a_report_that_names_its_counters_elsewhere_is_known() {
        let is_misnamed = |target| subject(Verb::Get, target).misnamed;
        assert!(is_misnamed("/stat/v1/data?counters=5") && is_misnamed("/stat/v1/data?counter_id=5&metrics=m"));
        assert!(!is_misnamed("/stat/v1/data?ids=5&counters=5") && !is_misnamed("/stat/v1/data?id=5&counter=5"));
        assert!(!is_misnamed("/stat/v1/data?metrics=m") && !is_misnamed("/management/v1/clients?counters=5"));
    }

    #[test]
    fn as_many_as_a_target_can_hold_are_read_in_one_go() {
        let many: Vec<u64> = (1..=900).collect();
        let list: Vec<_> = many.iter().map(ToString::to_string).collect();
        let read = subject(Verb::Get, &format!("/stat/v1/data?ids={}", list.join(",")));
        assert_eq!(read.counters.as_slice(), &many[..]);
        let pairs: Vec<_> = many.iter().map(|counter| format!("counter={counter}")).collect();
        let pairs = pairs.join("&");
        let read = Subject::of(&clients(), "/management/v1/clients", Some(&pairs), Names::COUNTER);
        assert_eq!(read.counters.as_slice(), &many[..]);
    }

    fn clients() -> Operation {
        let catalogue = Catalogue::built_in();
        let Lookup::Known(operation) = catalogue.find(Verb::Get, "/management/v1/clients") else { panic!("it is one") };
        operation.clone()
    }

    #[test]
    fn rule_3_logins_are_read() {
        let read = subject(Verb::Get, "/stat/v1/data?ids=1&ulogin=a%2Db+c&direct_client_logins=x,y%2Cz");
        assert_eq!(read.login.as_deref(), Some("a-b c"));
        assert_eq!(read.clients.iter().map(|login| &**login).collect::<Vec<_>>(), ["x", "y", "z"]);
    }
}

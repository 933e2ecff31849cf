//! Queries with raw characters: the server percent-encodes them for hyper, and the gateway judges them as they arrived.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;

use strict_http::target::Broken;

/// The requests of an HTTP/1.1 connection that arrived with raw characters in the query.
#[derive(Debug, Default)]
pub struct RawQueries {
    /// The number of requests that hyper handed over.
    requests: Cell<u64>,
    /// The affected requests: the number, counted from 0, and the broken rule.
    encoded: RefCell<VecDeque<(u64, Broken)>>,
}

impl RawQueries {
    /// Records that the request with this number arrived with raw characters in its query; hyper receives the encoded
    /// form.
    pub fn note(&self, request: u64, broken: Broken) {
        self.encoded.borrow_mut().push_back((request, broken));
    }

    /// The number of requests that hyper handed over.
    pub const fn requests(&self) -> u64 {
        self.requests.get()
    }

    /// Advances to the next request; returns the rule that the raw characters in its query broke. hyper hands over
    /// requests in order.
    pub fn next_request(&self) -> Option<Broken> {
        let request = self.requests.get();
        self.requests.set(request + 1);
        let mut encoded = self.encoded.borrow_mut();
        let (_, broken) = encoded.front().copied().filter(|(number, _)| *number == request)?;
        encoded.pop_front();
        Some(broken)
    }
}

#[cfg(test)]
mod tests {
    use strict_http::target::Rule;

    use super::*;

    #[test]
    fn each_request_has_its_own() {
        let (queries, broken) = (RawQueries::default(), Broken { rule: Rule::ALL[0], at: 0 });
        queries.note(1, broken);
        let judged: Vec<_> = (0..3).map(|_| queries.next_request()).collect();
        assert_eq!(judged, [None, Some(broken), None]);
    }
}

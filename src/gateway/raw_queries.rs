//! Queries that came raw: the server percent-encodes them for hyper, and the gateway judges them as they came.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;

use strict_http::target::Broken;

/// The requests of a connection of HTTP/1.1 that came with something raw in their query.
#[derive(Debug, Default)]
pub struct RawQueries {
    /// How many requests went on.
    requests: Cell<u64>,
    /// By their number, counted from 0, with what that broke.
    encoded: RefCell<VecDeque<(u64, Broken)>>,
}

impl RawQueries {
    /// The request with this number came with something raw in its query, which reaches hyper encoded.
    pub fn note(&self, request: u64, broken: Broken) {
        self.encoded.borrow_mut().push_back((request, broken));
    }

    /// The next request begins; what the raw characters in its query broke. hyper hands over the requests in their order.
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

//! Optional quotas: parallel requests per account, and requests per second per IP address.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::refusal::ErrorType;

const WINDOW: Duration = Duration::from_secs(1);

/// The limits, 0 for none, and the current usage.
#[derive(Default)]
pub struct Quota {
    pub parallel: usize,
    pub per_second: usize,
    running: HashMap<String, Arc<()>>,
    arrivals: HashMap<IpAddr, VecDeque<Instant>>,
}

/// A request counted as running; dropping it ends the count.
pub struct InFlight(#[expect(dead_code, reason = "the number of its clones is what is counted")] Arc<()>);

impl Quota {
    /// Counts a request from an address. Refused requests do not count: the limit lifts when the last second had fewer.
    pub fn arrive(&mut self, peer: IpAddr, now: Instant) -> Result<(), ErrorType> {
        if self.per_second == 0 {
            return Ok(());
        }
        let arrivals = self.arrivals.entry(peer).or_default();
        while arrivals.front().is_some_and(|earlier| now.duration_since(*earlier) >= WINDOW) {
            arrivals.pop_front();
        }
        if arrivals.len() >= self.per_second {
            return Err(ErrorType::QuotaByAddress);
        }
        arrivals.push_back(now);
        Ok(())
    }

    /// Counts a running request of an account.
    pub fn enter(&mut self, owner: &str) -> Result<InFlight, ErrorType> {
        let running = self.running.entry(owner.to_owned()).or_default();
        if self.parallel > 0 && Arc::strong_count(running) > self.parallel {
            return Err(ErrorType::QuotaParallelByUser);
        }
        Ok(InFlight(Arc::clone(running)))
    }

    /// The number of running requests.
    pub fn in_flight(&self) -> usize {
        self.running.values().map(|running| Arc::strong_count(running) - 1).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parallel_requests_are_those_that_still_hold_their_place() {
        let mut quota = Quota { parallel: 2, ..Quota::default() };
        let first = quota.enter("demo-owner").unwrap();
        let _second = quota.enter("demo-owner").unwrap();
        assert_eq!(quota.enter("demo-owner").err(), Some(ErrorType::QuotaParallelByUser));
        assert!(quota.enter("another").is_ok());
        drop(first);
        assert!(quota.enter("demo-owner").is_ok());
        assert_eq!(quota.in_flight(), 1);
    }

    #[test]
    fn the_window_of_an_address_slides() {
        let mut quota = Quota { per_second: 2, ..Quota::default() };
        let (peer, start) = (IpAddr::from([127, 0, 0, 1]), Instant::now());
        assert_eq!(quota.arrive(peer, start), Ok(()));
        assert_eq!(quota.arrive(peer, start + WINDOW / 2), Ok(()));
        assert_eq!(quota.arrive(peer, start + WINDOW / 2), Err(ErrorType::QuotaByAddress));
        assert_eq!(quota.arrive(peer, start + WINDOW), Ok(()));
    }
}

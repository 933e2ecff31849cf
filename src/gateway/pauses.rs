//! The pauses between the requests of a connection: when its caller is idle, and for how long that will last.
//!
//! 1. A caller is idle after the last byte of a response was written, with no byte of another request read.
//! 2. Its first pause is expected to be long, and a later one to be as long as the one before.

use std::cell::Cell;
use std::time::Duration;

use tokio::time::Instant;

/// A pause from which on a caller counts as one that sends seldom.
pub const LONG: Duration = Duration::from_secs(5);

/// When a connection gives back what only requests need.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parking {
    /// At once: the pause is expected to be long.
    Now,
    /// At this time, if no request comes before.
    At(Instant),
}

/// What is known of the pauses of a connection.
#[derive(Debug, Default)]
pub struct Pauses {
    /// The number of requests that were read, while the reader waits for the first byte of the next one.
    read: Cell<Option<u64>>,
    /// Whether the last pause was short.
    was_short: Cell<bool>,
}

impl Pauses {
    /// Records that no byte is there to be read; `read`: the number of requests so far, between two of them.
    pub fn wait(&self, read: Option<u64>) {
        self.read.set(read);
    }

    /// Records that bytes arrived.
    pub fn interrupt(&self) {
        self.read.set(None);
    }

    /// Records the end of a pause.
    pub fn end(&self, since: Instant, now: Instant) {
        self.was_short.set(now.duration_since(since) < LONG);
    }

    /// Returns when a connection that is idle `since` is parked, if no byte beyond `requests` was read.
    pub fn parking(&self, since: Instant, requests: u64) -> Option<Parking> {
        let is_idle = self.read.get() == Some(requests);
        is_idle.then(|| if self.was_short.get() { Parking::At(since + LONG) } else { Parking::Now })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn rule_1_a_caller_is_idle_with_no_byte_of_another_request() {
        let (pauses, now) = (Pauses::default(), Instant::now());
        assert_eq!(pauses.parking(now, 0), None, "nothing was read yet");
        pauses.wait(Some(1));
        assert_eq!(pauses.parking(now, 1), Some(Parking::Now));
        assert_eq!(pauses.parking(now, 0), None, "hyper has a request that it has not handed over");
        pauses.interrupt();
        assert_eq!(pauses.parking(now, 1), None, "it has bytes");
        pauses.wait(None);
        assert_eq!(pauses.parking(now, 1), None, "the beginning of a request is there");
    }

    #[tokio::test(start_paused = true)]
    async fn rule_2_a_pause_is_expected_to_be_as_long_as_the_last_one() {
        let (pauses, now) = (Pauses::default(), Instant::now());
        pauses.wait(Some(1));
        pauses.end(now, now + LONG - Duration::from_millis(1));
        assert_eq!(pauses.parking(now, 1), Some(Parking::At(now + LONG)));
        pauses.end(now, now + LONG);
        assert_eq!(pauses.parking(now, 1), Some(Parking::Now));
    }
}

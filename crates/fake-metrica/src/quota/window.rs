//! The counters of the quotas: one that slides with the time, and one that restarts with each period.

use std::collections::VecDeque;
use std::time::Duration;

/// Counts what happened in the last `SECONDS`.
#[derive(Debug, Default)]
pub struct Window<const SECONDS: u64> {
    entries: VecDeque<(Duration, u64)>,
    total: u64,
}

impl<const SECONDS: u64> Window<SECONDS> {
    const LENGTH: Duration = Duration::from_secs(SECONDS);

    /// The count at `now`, without what happened `SECONDS` ago or earlier.
    pub fn count(&mut self, now: Duration) -> u64 {
        while let Some((_, count)) = self.entries.front().filter(|(time, _)| *time + Self::LENGTH <= now) {
            self.total -= count;
            self.entries.pop_front();
        }
        self.total
    }

    pub fn add(&mut self, now: Duration, count: u64) {
        let count = self.count(now).saturating_add(count) - self.total;
        match self.entries.back_mut() {
            // Time that goes backwards does not disturb the order.
            Some((last, sum)) if *last >= now => *sum += count,
            _ => self.entries.push_back((now, count)),
        }
        self.total += count;
    }
}

/// A window, and the highest count that it has had.
#[derive(Debug, Default)]
pub struct Peak<const SECONDS: u64> {
    window: Window<SECONDS>,
    pub most: u64,
}

impl<const SECONDS: u64> Peak<SECONDS> {
    pub fn add(&mut self, now: Duration) {
        self.window.add(now, 1);
        self.most = self.most.max(self.window.count(now));
    }

    pub fn count(&mut self, now: Duration) -> u64 {
        self.window.count(now)
    }
}

/// Counts what happened since a multiple of `SECONDS` since 1970-01-01: a day or an hour, in GMT.
#[derive(Debug, Default)]
pub struct Period<const SECONDS: u64> {
    index: u64,
    total: u64,
}

impl<const SECONDS: u64> Period<SECONDS> {
    pub fn count(&mut self, now: Duration) -> u64 {
        let index = now.as_secs() / SECONDS;
        if index > self.index {
            (self.index, self.total) = (index, 0);
        }
        self.total
    }

    pub fn add(&mut self, now: Duration, count: u64) {
        self.total = self.count(now).saturating_add(count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    #[test]
    fn a_window_slides() {
        let mut window = Window::<1>::default();
        window.add(at(0), 1);
        window.add(at(500), 2);
        assert_eq!([window.count(at(999)), window.count(at(1000)), window.count(at(1500))], [3, 2, 0]);
        window.add(at(1600), u64::MAX);
        window.add(at(1600), u64::MAX);
        assert_eq!([window.count(at(1600)), window.count(at(2600))], [u64::MAX, 0]);
    }

    #[test]
    fn a_peak_remembers_the_highest_count() {
        let mut peak = Peak::<1>::default();
        for time in [0, 100, 200, 5000] {
            peak.add(at(time));
        }
        assert_eq!((peak.most, peak.count(at(5000)), peak.count(at(9000))), (3, 1, 0));
    }

    #[test]
    fn a_period_restarts_at_its_boundary() {
        let mut hour = Period::<3600>::default();
        hour.add(at(3_599_000), 2);
        assert_eq!([hour.count(at(3_599_999)), hour.count(at(3_600_000))], [2, 0]);
        hour.add(at(3_600_000), 1);
        assert_eq!(hour.count(at(0)), 1, "time that goes backwards gives nothing back");
    }
}

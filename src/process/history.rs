//! The counts of the last hour, for the plots of the status page.
//!
//! 1. The process takes a sample of the counts of all workers once a minute and keeps sixty of them. Requests do nothing
//!    for it.
//! 2. A column of a plot is the difference between two samples; the last column is the minute that is in progress.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::metrics::overview::Sample;
use crate::process::workers::Workers;

/// The number of columns of a plot.
pub const COLUMNS: usize = 60;

/// The time between two samples.
const INTERVAL: Duration = Duration::from_secs(60);

/// The samples of the last hour, at first that of the start of the process.
#[derive(Debug)]
pub struct History(Mutex<VecDeque<Sample>>);

impl Default for History {
    fn default() -> Self {
        Self(Mutex::new(VecDeque::from([Sample::default()])))
    }
}

impl History {
    fn lock(&self) -> MutexGuard<'_, VecDeque<Sample>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, sample: Sample) {
        let mut samples = self.lock();
        samples.push_back(sample);
        if samples.len() > COLUMNS {
            samples.pop_front();
        }
    }

    /// Takes samples until dropped.
    pub async fn run(self: Arc<Self>, workers: Arc<Workers>) {
        let mut next = tokio::time::interval_at(tokio::time::Instant::now() + INTERVAL, INTERVAL);
        next.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            next.tick().await;
            self.take(Sample::of(&workers.counts().await));
        }
    }

    /// Returns the counts of each of the last [`COLUMNS`] minutes, the earliest first, where `now` are the counts of now.
    /// There are fewer in the first hour.
    #[must_use]
    pub fn minutes(&self, now: &Sample) -> Vec<Sample> {
        let samples = self.lock();
        let later = samples.iter().skip(1).chain([now]);
        samples.iter().zip(later).map(|(before, after)| after.since(before)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::overview::Results;

    fn sample(fulfilled: u64) -> Sample {
        Sample { results: Results { fulfilled, ..Results::default() }, ..Sample::default() }
    }

    fn columns(history: &History, now: u64) -> Vec<u64> {
        history.minutes(&sample(now)).iter().map(|minute| minute.results.fulfilled).collect()
    }

    #[test]
    fn rule_2_a_column_is_the_difference_of_two_samples() {
        let history = History::default();
        assert_eq!(columns(&history, 5), [5]);
        history.take(sample(7));
        assert_eq!(columns(&history, 7), [7, 0]);
        history.take(sample(10));
        assert_eq!(columns(&history, 11), [7, 3, 1]);
    }

    #[test]
    fn rule_1_an_hour_is_kept() {
        let history = History::default();
        for minute in 1..=500 {
            history.take(sample(minute * 2));
            assert!(columns(&history, minute * 2).len() <= COLUMNS);
        }
        let columns = columns(&history, 1001);
        assert_eq!((columns.len(), columns.last()), (COLUMNS, Some(&1)));
        assert_eq!(columns.iter().filter(|count| **count == 2).count(), COLUMNS - 1, "{columns:?}");
    }
}

//! Histograms of durations, without a lock.

use std::time::Duration;

/// Upper bounds of the duration histograms, in seconds: reports of Metrica take from milliseconds to two minutes.
pub const BUCKETS: [f64; 14] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0];

/// A histogram of durations.
#[derive(Debug, Clone, Default)]
pub struct Histogram {
    /// Counts by bucket, not cumulative; the last bucket has no upper bound.
    pub(super) counts: [u64; BUCKETS.len() + 1],
    pub(super) sum: f64,
}

impl Histogram {
    pub(super) fn observe(&mut self, duration: Duration) {
        let seconds = duration.as_secs_f64();
        let bucket = BUCKETS.iter().position(|bound| seconds <= *bound).unwrap_or(BUCKETS.len());
        if let Some(count) = self.counts.get_mut(bucket) {
            *count += 1;
        }
        self.sum += seconds;
    }

    /// Adds the observations of another histogram.
    pub fn add(&mut self, other: &Self) {
        self.counts.iter_mut().zip(&other.counts).for_each(|(count, more)| *count += more);
        self.sum += other.sum;
    }
    /// The number of observations.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The mean in seconds; `None` without observations.
    #[must_use]
    #[expect(clippy::as_conversions, clippy::cast_precision_loss, reason = "a mean needs no more than 53 bits")]
    pub fn mean(&self) -> Option<f64> {
        let count = self.count();
        (count > 0).then(|| self.sum / count as f64)
    }

    /// Estimates a quantile in seconds, as Prometheus does: linear within its bucket, and the last bound beyond it. `None`
    /// without observations.
    #[must_use]
    #[expect(clippy::as_conversions, clippy::cast_precision_loss, reason = "an estimate needs no more than 53 bits")]
    pub fn quantile(&self, quantile: f64) -> Option<f64> {
        let rank = quantile * self.count() as f64;
        let (mut below, mut lower) = (0.0, 0.0);
        for (count, upper) in self.counts.iter().zip(BUCKETS) {
            let within = *count as f64;
            if *count > 0 && below + within >= rank {
                return Some(lower + (upper - lower) * (rank - below) / within);
            }
            below += within;
            lower = upper;
        }
        (self.count() > 0).then_some(lower)
    }

    /// Returns the observations between `earlier` and this histogram.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let mut more = self.clone();
        more.counts.iter_mut().zip(earlier.counts).for_each(|(count, before)| *count = count.saturating_sub(before));
        more.sum = (self.sum - earlier.sum).max(0.0);
        more
    }
}

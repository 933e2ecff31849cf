//! The time of the broker: an argument, never read here (rule 2 of the module).

/// Microseconds.
pub type Micros = u64;

/// One second.
pub const SECOND: Micros = 1_000_000;

const DAY: u64 = 86_400;
const HOUR: u64 = 3_600;
/// The wall clock may differ by so much from the monotonic one between two looks before it counts as stepped.
const TOLERATED: u64 = 5;
/// A forward step of the wall clock by so much restarts days and hours.
const FAR: u64 = 12 * HOUR;

/// The present: both clocks, read by the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Now {
    /// The monotonic clock, since any fixed moment.
    pub at: Micros,
    /// The wall clock, in seconds since 1970.
    pub unix: u64,
}

/// A calendar period and its restarts.
#[derive(Debug, Clone, Copy, Default)]
struct Period {
    index: u64,
    /// Changes with each restart; counts of another epoch are over.
    epoch: u32,
}

impl Period {
    fn advance(&mut self, index: u64, step: Step) {
        let restarts = match step {
            Step::None => index > self.index,
            Step::Small => false,
            Step::Far => index != self.index,
        };
        if restarts {
            self.epoch = self.epoch.wrapping_add(1);
        }
        if restarts || !matches!(step, Step::None) {
            self.index = index;
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    None,
    /// Backward, or forward by less than [`FAR`].
    Small,
    Far,
}

/// Both clocks of the broker. The monotonic one never goes back.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Clock {
    now: Now,
    day: Period,
    hour: Period,
}

impl Clock {
    pub(super) fn new(now: Now) -> Self {
        let period = |length| Period { index: now.unix / length, epoch: 1 };
        Self { now, day: period(DAY), hour: period(HOUR) }
    }

    /// Moves on. A `now` that another thread read earlier changes nothing.
    pub(super) fn advance(&mut self, now: Now) {
        if now.at < self.now.at {
            return;
        }
        // Nearly always: within the same second.
        if now.unix == self.now.unix && now.at - self.now.at < TOLERATED * SECOND {
            self.now.at = now.at;
            return;
        }
        let expected = self.now.unix.saturating_add((now.at - self.now.at) / SECOND);
        let step = if now.unix.abs_diff(expected) <= TOLERATED {
            Step::None
        } else if now.unix >= expected.saturating_add(FAR) {
            Step::Far
        } else {
            Step::Small
        };
        self.now = now;
        self.hour.advance(now.unix / HOUR, step);
        self.day.advance(now.unix / DAY, step);
    }

    pub(super) const fn at(&self) -> Micros {
        self.now.at
    }

    pub(super) const fn day_index(&self) -> u64 {
        self.day.index
    }

    pub(super) const fn hour_index(&self) -> u64 {
        self.hour.index
    }

    /// The epoch of the day, or of the hour.
    pub(super) const fn epoch(&self, by_hour: bool) -> u32 {
        if by_hour { self.hour.epoch } else { self.day.epoch }
    }

    /// The end of the day, or of the hour.
    pub(super) const fn end(&self, by_hour: bool) -> Micros {
        let length = if by_hour { HOUR } else { DAY };
        self.now.at.saturating_add((length - self.now.unix % length) * SECOND)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn epochs(looks: &[(u64, u64)]) -> Vec<u32> {
        let mut clock = Clock::new(Now { at: 0, unix: 2 * DAY - 100 });
        let mut found = Vec::new();
        for (seconds, unix) in looks {
            clock.advance(Now { at: seconds * SECOND, unix: 2 * DAY - 100 + unix });
            found.push(clock.epoch(false));
        }
        found
    }

    #[test]
    fn rule_2_a_day_restarts_at_midnight_of_gmt() {
        assert_eq!(epochs(&[(99, 99), (100, 100), (101, 101), (100 + DAY, 100 + DAY)]), [1, 2, 2, 3]);
        let clock = Clock::new(Now { at: 7, unix: 2 * DAY - 100 });
        assert_eq!((clock.end(false), clock.end(true)), (7 + 100 * SECOND, 7 + 100 * SECOND));
    }

    #[test]
    fn rule_2_a_step_of_the_clock_gives_nothing_back() {
        assert_eq!(epochs(&[(1, 3601), (2, 3602)]), [1, 1], "an hour forward, over midnight");
        assert_eq!(epochs(&[(1, 3601), (2, 2), (100, 100)]), [1, 1, 2], "and back: midnight still comes once");
        assert_eq!(epochs(&[(100, 100), (101, 0), (102, 102)]), [2, 2, 2], "back over midnight and forward");
        assert_eq!(epochs(&[(100, 100), (101, 98), (103, 103)]), [2, 2, 2], "within the tolerance");
        assert_eq!(epochs(&[(1, 10 * DAY)]), [2], "a clock that was not set, or a machine that slept");
    }

    #[test]
    fn rule_2_an_older_time_changes_nothing() {
        assert_eq!(epochs(&[(100, 100), (50, 50), (101, 101)]), [2, 2, 2]);
    }
}

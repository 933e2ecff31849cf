//! Dates in the format of the API, and the current time.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const SECONDS: u64 = 24 * 60 * 60;

/// The offset of Moscow from UTC.
const MOSCOW: Duration = Duration::from_secs(3 * 60 * 60);

/// A day, as a number of days since 1970-01-01.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Day(u64);

impl Day {
    /// The current day in UTC.
    pub fn today() -> Self {
        Self::of(SystemTime::now())
    }

    fn of(time: SystemTime) -> Self {
        // A clock before 1970 shows the first day.
        Self(time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()) / SECONDS)
    }

    /// Parses a date such as `2026-01-31`.
    pub fn parse(text: &str) -> Option<Self> {
        humantime::parse_rfc3339(&format!("{text}T00:00:00Z")).ok().map(Self::of)
    }

    /// Parses a date, or one of the words that reports accept: `today`, `yesterday`, `6daysAgo`.
    pub fn resolve(text: &str) -> Option<Self> {
        match text {
            "today" => Some(Self::today()),
            "yesterday" => Some(Self::today().before(1)),
            _ => match text.strip_suffix("daysAgo") {
                Some(days) => days.parse().ok().map(|days| Self::today().before(days)),
                None => Self::parse(text),
            },
        }
    }

    pub const fn before(self, days: u64) -> Self {
        Self(self.0.saturating_sub(days))
    }

    pub const fn after(self, days: u64) -> Self {
        Self(self.0.saturating_add(days))
    }

    /// The number of days from `other` to `self`; 0 if `self` is earlier.
    pub const fn since(self, other: Self) -> u64 {
        self.0.saturating_sub(other.0)
    }
}

impl fmt::Display for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The format ends at the year 9999; later days result only from meaningless parameters.
        let time = UNIX_EPOCH + Duration::from_secs(self.0.min(2_932_896) * SECONDS);
        let text = humantime::format_rfc3339_seconds(time).to_string();
        f.write_str(text.split_once('T').map_or(&*text, |(day, _)| day))
    }
}

/// The current time in the format of `create_time`: in Moscow's time zone, whatever the counter's.
pub fn now() -> String {
    moscow(SystemTime::now())
}

fn moscow(time: SystemTime) -> String {
    let text = humantime::format_rfc3339_seconds(time + MOSCOW).to_string();
    format!("{}+03:00", text.trim_end_matches('Z'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_read_and_written() {
        let day = Day::parse("2024-02-28").unwrap();
        assert_eq!(day.after(2).to_string(), "2024-03-01");
        assert_eq!(day.after(2).since(day), 2);
        assert_eq!(Day::resolve("3daysAgo"), Some(Day::today().before(3)));
        for text in ["", "2024-2-28", "2024-02-30", "28.02.2024", "tomorrow", "daysAgo", "2024-02-28T00:00:00Z"] {
            assert_eq!(Day::resolve(text), None, "{text}");
        }
    }

    #[test]
    fn moments_have_the_offset_of_moscow() {
        let moment = humantime::parse_rfc3339("2022-03-31T22:59:52Z").unwrap();
        assert_eq!(moscow(moment), "2022-04-01T01:59:52+03:00");
    }
}

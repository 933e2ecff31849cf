//! The time of a line, as text.

use std::io::Write;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use strict_http::number;

/// The length of a time: `2026-12-01T10:11:12.345Z`.
const TIME: usize = 24;

/// The time of the latest line as text. Within a second only its milliseconds are written, because a date takes 800
/// instructions.
#[derive(Debug, Default)]
pub struct WrittenTime {
    second: Option<u64>,
    text: [u8; TIME],
}

impl WrittenTime {
    /// Returns `now` as text.
    pub fn at(&mut self, now: SystemTime) -> &[u8] {
        let since = now.duration_since(UNIX_EPOCH).map_or(Duration::ZERO, |since| since);
        if self.second != Some(since.as_secs()) {
            self.second = Some(since.as_secs());
            // Writing to memory cannot fail, and a year has four digits until 9999.
            let _ = write!(self.text.as_mut_slice(), "{}", humantime::format_rfc3339_millis(UNIX_EPOCH + since));
        }
        let mut rest = since.subsec_millis();
        if let Some(digits) = self.text.get_mut(TIME - 4..TIME - 1) {
            for digit in digits.iter_mut().rev() {
                *digit = last_digit(rest);
                rest /= 10;
            }
        }
        &self.text
    }
}

/// The last decimal digit of a number.
pub fn last_digit(number: impl Into<u64>) -> u8 {
    b"0123456789".get(number::length(number.into() % 10)).map_or(b'?', |digit| *digit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_that_of_now() {
        let mut time = WrittenTime::default();
        for millis in [0, 1, 999, 1_000, 1_010, 1_234_567_890_123, 1_234_567_890_045, 1_234_567_891_005] {
            let now = UNIX_EPOCH + Duration::from_millis(millis);
            let expected = humantime::format_rfc3339_millis(now).to_string();
            assert_eq!(String::from_utf8_lossy(time.at(now)), expected, "{millis}");
        }
    }
}

//! Conversions of numbers that are defined for every value.
//!
//! `try_from(..).unwrap_or(0)` turns a number that does not fit into a wrong one. These conversions lose nothing, or name
//! what they do with a number that is too large.

/// Converts a length to a count.
#[expect(clippy::as_conversions, reason = "lossless: the assertion holds on every platform that compiles")]
#[must_use]
pub const fn count(length: usize) -> u64 {
    const { assert!(usize::BITS <= u64::BITS) };
    length as u64
}

/// Converts a count to a length. A count beyond the address space becomes the longest length, which no slice has.
#[must_use]
pub fn length(count: u64) -> usize {
    saturated(count)
}

/// A type with a largest number.
pub trait Largest {
    /// The largest number.
    const LARGEST: Self;
}

macro_rules! largest {
    ($($number:ty)*) => { $(impl Largest for $number { const LARGEST: Self = Self::MAX; })* };
}

largest! { u32 u64 usize i64 }

/// Converts a number that is not negative; one that is too large becomes the largest of its new type.
pub fn saturated<To: Largest>(number: impl TryInto<To>) -> To {
    number.try_into().unwrap_or(To::LARGEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_and_lengths_are_the_same_numbers() {
        for length in [0, 1, usize::MAX] {
            assert_eq!(super::length(count(length)), length);
        }
    }

    #[test]
    fn a_number_that_is_too_large_becomes_the_largest() {
        assert_eq!((saturated::<u32>(7_u64), saturated::<u32>(1_u64 << 32)), (7, u32::MAX));
        assert_eq!(saturated::<i64>(u64::MAX), i64::MAX);
    }
}

//! Cuts of byte slices that are defined for every position.
//!
//! `slice.get(a..b)` with an empty slice for a position outside hides a wrong position as missing bytes. The functions here
//! have no such case: a cut beyond the end is the whole slice, and a separator is found and cut in one step.

/// Splits `bytes` after at most `most` bytes.
#[must_use]
pub const fn at_most(bytes: &[u8], most: usize) -> (&[u8], &[u8]) {
    match bytes.split_at_checked(most) {
        Some(parts) => parts,
        None => (bytes, &[]),
    }
}

/// Returns the last `most` bytes, or all of them.
#[must_use]
pub const fn last(bytes: &[u8], most: usize) -> &[u8] {
    at_most(bytes, bytes.len().saturating_sub(most)).1
}

/// Splits `bytes` at the first `separator`, which belongs to neither part; `None` without one.
#[must_use]
pub fn once(bytes: &[u8], separator: u8) -> Option<(&[u8], &[u8])> {
    let (before, rest) = bytes.split_at_checked(memchr::memchr(separator, bytes)?)?;
    let (_, behind) = rest.split_first()?;
    Some((before, behind))
}

/// Returns the bytes before the first `separator` and behind it; without one, all bytes and none.
#[must_use]
pub fn around(bytes: &[u8], separator: u8) -> (&[u8], &[u8]) {
    once(bytes, separator).unwrap_or((bytes, &[]))
}

/// Returns the bytes before the first `separator`, or all of them.
#[must_use]
pub fn before(bytes: &[u8], separator: u8) -> &[u8] {
    around(bytes, separator).0
}

/// Returns the parts of `bytes` between the separators, as `split` does, and reads many bytes at once.
pub fn parts(bytes: &[u8], separator: u8) -> impl Iterator<Item = &[u8]> {
    let mut begin = 0;
    let ends = memchr::memchr_iter(separator, bytes).chain([bytes.len()]);
    ends.filter_map(move |end| {
        let part = bytes.get(begin..end);
        begin = end + 1;
        part
    })
}

/// Splits `bytes` after the first line feed, or at the end.
#[must_use]
pub fn line(bytes: &[u8]) -> (&[u8], &[u8]) {
    memchr::memchr(b'\n', bytes).map_or((bytes, &[]), |at| at_most(bytes, at + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_beyond_the_end_is_everything() {
        for (most, expected) in [(0, ("", "abc")), (2, ("ab", "c")), (3, ("abc", "")), (9, ("abc", ""))] {
            assert_eq!(at_most(b"abc", most), (expected.0.as_bytes(), expected.1.as_bytes()), "{most}");
        }
    }

    #[test]
    fn parts_are_those_of_split() {
        for text in ["", "&", "a", "a&b", "&a&&b&", "a=1&b=2&c"] {
            let expected: Vec<_> = text.as_bytes().split(|byte| *byte == b'&').collect();
            assert_eq!(parts(text.as_bytes(), b'&').collect::<Vec<_>>(), expected, "{text}");
        }
    }

    #[test]
    fn the_end_of_a_short_slice_is_all_of_it() {
        assert_eq!(
            (last(b"abc", 2), last(b"abc", 3), last(b"abc", 9), last(b"abc", 0)),
            (&b"bc"[..], &b"abc"[..], &b"abc"[..], &b""[..])
        );
    }

    #[test]
    fn a_separator_belongs_to_neither_part() {
        for (text, expected) in
            [("a=b=c", Some(("a", "b=c"))), ("=", Some(("", ""))), ("a=", Some(("a", ""))), ("a", None)]
        {
            let expected = expected.map(|(before, behind): (&str, &str)| (before.as_bytes(), behind.as_bytes()));
            assert_eq!(once(text.as_bytes(), b'='), expected, "{text}");
            assert_eq!(before(text.as_bytes(), b'='), expected.map_or(text.as_bytes(), |parts| parts.0), "{text}");
        }
    }

    #[test]
    fn a_line_has_its_end() {
        for (text, expected) in [("a\r\nb", ("a\r\n", "b")), ("a\n", ("a\n", "")), ("a\r", ("a\r", ""))] {
            assert_eq!(line(text.as_bytes()), (expected.0.as_bytes(), expected.1.as_bytes()), "{text:?}");
        }
    }
}

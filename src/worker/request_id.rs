//! The id of a request: visible ASCII, so it is valid in header fields and log lines without escaping.

use bytes::Bytes;
use http::HeaderValue;

use crate::policy::offered::has_key;

/// The id of a request, 1 to 128 visible ASCII characters.
#[derive(Debug, Clone)]
pub struct RequestId(HeaderValue);

impl RequestId {
    /// The id that a request carries, if it is valid. A key is none: ids are logged, and sent to Metrica.
    #[must_use]
    pub fn brought(value: &HeaderValue) -> Option<Self> {
        let fits = (1..=128).contains(&value.len())
            && value.as_bytes().iter().all(u8::is_ascii_graphic)
            && !has_key(value.as_bytes());
        fits.then(|| Self(value.clone()))
    }

    /// The id as a field value.
    #[must_use]
    pub const fn value(&self) -> &HeaderValue {
        &self.0
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        let text = self.0.to_str();
        debug_assert!(text.is_ok(), "an id is visible ASCII");
        text.unwrap_or("none")
    }
}

/// A new id for a request that brought none: 128 random bits in hexadecimal.
#[must_use]
pub fn new_request_id() -> RequestId {
    let random = fastrand::u128(..).to_be_bytes();
    let digit = |nibble: u8| if nibble < 10 { b'0' + nibble } else { b'a' - 10 + nibble };
    let mut text = [0; 32];
    for (digits, byte) in text.chunks_exact_mut(2).zip(random) {
        digits.copy_from_slice(&[digit(byte >> 4), digit(byte & 15)]);
    }
    // A vector would be a second allocation when the id is copied.
    let value = HeaderValue::from_maybe_shared(Bytes::from_owner(text));
    debug_assert!(value.is_ok(), "digits make a field");
    RequestId(value.unwrap_or(HeaderValue::from_static("none")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_visible_ascii_is_accepted() {
        let long = "x".repeat(129);
        for (value, is_taken) in
            [("a", true), ("~!", true), ("", false), ("a b", false), ("\u{e9}", false), (&long, false)]
        {
            let brought = RequestId::brought(&HeaderValue::from_bytes(value.as_bytes()).unwrap());
            assert_eq!(brought.map(|id| id.as_str().to_owned()), is_taken.then(|| value.to_owned()));
        }
    }

    #[test]
    fn a_new_one_has_128_bits() {
        let (one, other) = (new_request_id(), new_request_id());
        assert_eq!((one.as_str().len(), one.as_str() == other.as_str()), (32, false));
    }
}

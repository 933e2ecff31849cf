//! Tokens: validated when read, never shown, wiped when dropped.
//!
//! 1. A trailing newline (LF or CRLF) and a leading byte order mark are trimmed, because editors add them. Nothing else is
//!    trimmed.
//! 2. The rest must be 1 to 1024 characters of `A-Z a-z 0-9 _ - .`. This covers the tokens that Yandex issues
//!    (hexadecimal, `AQAA…`, `y0_…`) and excludes everything that could end a header field or start another one. A token
//!    that is shorter than any known token of Yandex is accepted with a warning.
//! 3. The `Debug` form of a token shows `redacted`. A token has no `Display`.
//! 4. The memory of a token is overwritten when its last holder is dropped.

use std::fmt;

use bytes::Bytes;
use http::HeaderValue;
pub use state::Standing;
use zeroize::Zeroizing;

pub use crate::policy::names::TokenAlias;

pub mod record;
pub mod secret;
mod state;
pub mod store;

/// The maximum length of a token, in bytes; the longest known real ones have 58.
pub const LONGEST: usize = 1024;

/// The length of the shortest known real tokens, in bytes.
pub const SHORTEST_SEEN: usize = 32;

/// The text before the token in `Authorization`.
pub const SCHEME: &str = "OAuth ";

/// The prefix of the tokens of `demo` and `fake`; `run` rejects them.
pub const DEMO_PREFIX: &str = "demo-";

/// The prefix of test tokens for `fake`; `run` accepts them.
pub const TEST_PREFIX: &str = "test-";

/// A valid token (rules 1 and 2).
#[derive(Clone, PartialEq, Eq)]
pub struct Token(Zeroizing<Box<[u8]>>);

/// The reason why the content of a token file is not a token. The message contains no part of the content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadToken {
    /// The file is empty or holds only a newline.
    #[error("is empty; write only the token to it")]
    Empty,
    /// The content is longer than [`LONGEST`].
    #[error("contains more than {LONGEST} bytes; a token has fewer")]
    Length,
    /// The content begins with the scheme of the header field.
    #[error("begins with 'OAuth ' or 'Bearer '; write only the token")]
    Word,
    /// The content is the URL of the page on which Yandex shows a token.
    #[error("contains a URL; write only the token, which is the part between 'access_token=' and '&' in that URL")]
    Address,
    /// The content is the JSON response of Yandex OAuth.
    #[error("contains JSON; write only the token, which is the value of access_token, without quotes")]
    Json,
    /// A byte is outside of the alphabet of rule 2.
    #[error(
        "contains no token: byte {position} is {what}; a token has only letters, digits, '_', '-' and '.', and an optional newline at the end"
    )]
    Byte {
        /// The position of the byte, counted from 1.
        position: usize,
        /// The kind of the byte.
        what: &'static str,
    },
}

impl Token {
    /// Parses the content of a token file.
    ///
    /// # Errors
    /// [`BadToken`] if the content violates rule 1 or 2.
    pub fn parse(content: &[u8]) -> Result<Self, BadToken> {
        let content = content.strip_prefix("\u{feff}".as_bytes()).unwrap_or(content);
        let text = content.strip_suffix(b"\n").unwrap_or(content);
        let text = if text.len() < content.len() { text.strip_suffix(b"\r").unwrap_or(text) } else { text };
        if text.is_empty() {
            return Err(BadToken::Empty);
        }
        if let Some(bad) = pasted(text) {
            return Err(bad);
        }
        let fits = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
        if let Some((index, byte)) = text.iter().enumerate().find(|(_, byte)| !fits(byte)) {
            return Err(BadToken::Byte { position: index + 1, what: kind_of(*byte) });
        }
        if text.len() > LONGEST {
            return Err(BadToken::Length);
        }
        Ok(Self(Zeroizing::new(text.into())))
    }

    /// Whether the token is shorter than any known token of Yandex, and no test token.
    #[must_use]
    pub fn is_short(&self) -> bool {
        self.0.len() < SHORTEST_SEEN && !self.is_demo() && !self.0.starts_with(TEST_PREFIX.as_bytes())
    }

    /// Whether the token belongs to `demo` and `fake`.
    #[must_use]
    pub fn is_demo(&self) -> bool {
        self.0.starts_with(DEMO_PREFIX.as_bytes())
    }

    /// Returns `OAuth <token>` as a field value, marked sensitive and wiped when its last copy is dropped.
    #[must_use]
    pub fn authorization(&self) -> HeaderValue {
        let mut text = Zeroizing::new(Vec::with_capacity(SCHEME.len() + self.0.len()));
        text.extend_from_slice(SCHEME.as_bytes());
        text.extend_from_slice(&self.0);
        // The alphabet of rule 2 is a subset of the field-value alphabet, so the fallback is unreachable. It is a value that
        // Metrica refuses.
        let mut value = HeaderValue::from_maybe_shared(Bytes::from_owner(Wiped(text)))
            .unwrap_or_else(|_| HeaderValue::from_static("refused"));
        value.set_sensitive(true);
        value
    }
}

struct Wiped(Zeroizing<Vec<u8>>);

impl AsRef<[u8]> for Wiped {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// Recognises pasted text that contains a token.
fn pasted(text: &[u8]) -> Option<BadToken> {
    let text = text.trim_ascii_start();
    let begins = |word: &[u8]| text.get(..word.len()).is_some_and(|start| start.eq_ignore_ascii_case(word));
    if begins(b"OAuth ") || begins(b"Bearer ") {
        Some(BadToken::Word)
    } else if begins(b"{") {
        Some(BadToken::Json)
    } else if begins(b"https://") || begins(b"http://") || text.windows(13).any(|part| part == b"access_token=") {
        Some(BadToken::Address)
    } else {
        None
    }
}

fn kind_of(byte: u8) -> &'static str {
    match byte {
        b'\n' | b'\r' => "a line break",
        b' ' | b'\t' => "white space",
        0..=0x1f | 0x7f => "a control character",
        0x80.. => "not ASCII",
        _ => "punctuation",
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(redacted)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "y0_AgAAAAA-test_0123456789";

    #[test]
    fn rule_1_a_single_newline_is_trimmed() {
        for content in [GOOD.to_owned(), format!("{GOOD}\n"), format!("{GOOD}\r\n"), format!("\u{feff}{GOOD}\n")] {
            let token = Token::parse(content.as_bytes()).unwrap();
            assert_eq!(token.authorization().as_bytes(), format!("OAuth {GOOD}").as_bytes());
        }
        for content in [format!("{GOOD}\n\n"), format!("{GOOD}\r"), format!(" {GOOD}"), format!("{GOOD} \n")] {
            assert!(matches!(Token::parse(content.as_bytes()), Err(BadToken::Byte { .. })), "{content:?}");
        }
    }

    #[test]
    fn rule_2_alphabet_and_length() {
        assert_eq!(Token::parse(b""), Err(BadToken::Empty));
        assert_eq!(Token::parse(b"\n"), Err(BadToken::Empty));
        assert_eq!(Token::parse(b"OAuth y0_abc"), Err(BadToken::Word));
        assert_eq!(Token::parse(b"bearer y0_abc"), Err(BadToken::Word));
        assert!(Token::parse(b"short").unwrap().is_short());
        assert_eq!(Token::parse(&[b'a'; 1025]), Err(BadToken::Length));
        for byte in (0..=u8::MAX).filter(|byte| !byte.is_ascii_alphanumeric() && !b"_-.".contains(byte)) {
            let mut content = GOOD.as_bytes().to_vec();
            content.insert(4, byte);
            assert!(
                matches!(Token::parse(&content), Err(BadToken::Byte { position: 5, .. })),
                "byte {byte:#x} was taken"
            );
        }
    }

    /// R-16. The allocator writes into freed memory, so the test looks for remains of the secret. It allocates nothing in
    /// between that could reuse the memory.
    #[test]
    fn rule_4_the_memory_is_overwritten() {
        let secret: String = ('a'..='z').cycle().take(LONGEST).collect();
        let memory = std::fs::File::open("/proc/self/mem").unwrap();
        let mut now = vec![0; secret.len()];
        let mut left = |at: usize| {
            std::os::unix::fs::FileExt::read_exact_at(&memory, &mut now, u64::try_from(at).unwrap()).unwrap();
            now.windows(8).filter(|part| secret.as_bytes().windows(8).any(|own| own == *part)).count()
        };
        let token = Token::parse(secret.as_bytes()).unwrap();
        let other = token.clone();
        let (field, places) = (token.authorization(), [&token, &other].map(|token| token.0.as_ptr().addr()));
        let of_field = field.as_bytes().as_ptr().addr() + 6;
        assert!(places.iter().chain([&of_field]).all(|at| left(*at) > 900), "it is there while it is held");
        drop(token);
        assert_eq!(left(places[0]), 0, "the token");
        assert!(left(places[1]) > 900, "another holder's is its own");
        drop(other);
        let copy = field.clone();
        drop(field);
        assert!(left(of_field) > 900, "copies of a field share it");
        drop(copy);
        assert_eq!((left(places[1]), left(of_field)), (0, 0), "all of them");
    }

    #[test]
    fn rule_3_nothing_shows_it() {
        let token = Token::parse(GOOD.as_bytes()).unwrap();
        assert!(!format!("{token:?} {:?}", token.authorization()).contains("AgAAAAA"));
        assert!(token.authorization().is_sensitive());
    }
}

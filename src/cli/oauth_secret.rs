//! The secrets of OAuth that are no access tokens.
//!
//! 1. A trailing newline and a leading byte order mark are trimmed, as in token files.
//! 2. Each kind has its own alphabet. Refresh tokens of Yandex have colons, which access tokens do not have, so one
//!    is never read in the place of the other without notice.
//! 3. `Debug` shows `redacted`; there is no `Display`; the memory is wiped.

use std::fmt;

use zeroize::Zeroizing;

/// The reason why a text is no such secret. It contains no part of the text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadSecret {
    /// Nothing is there.
    #[error("is empty; it must contain only the {0}")]
    Empty(&'static str),
    /// It is too long.
    #[error("contains more than {1} bytes; a {0} has fewer")]
    Length(&'static str, usize),
    /// A byte is not in the alphabet.
    #[error("contains no {0}: byte {1} does not belong to its alphabet; it must contain only the {0}")]
    Byte(&'static str, usize),
}

macro_rules! secrets {
    ($($(#[$doc:meta])* $name:ident $what:literal $most:literal $marks:literal;)*) => {
        $(
            $(#[$doc])*
            #[derive(Clone, PartialEq, Eq)]
            pub struct $name(Zeroizing<String>);

            impl $name {
                /// Reads it.
                ///
                /// # Errors
                /// [`BadSecret`].
                pub fn parse(content: &[u8]) -> Result<Self, BadSecret> {
                    read(content, $what, $most, $marks).map(|text| Self(Zeroizing::new(text)))
                }

                /// Returns the text, for a form or its file.
                #[must_use]
                pub fn text(&self) -> &str {
                    &self.0
                }
            }

            impl fmt::Debug for $name {
                fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                    f.write_str(concat!(stringify!($name), "(redacted)"))
                }
            }
        )*
    };
}

secrets! {
    /// The secret of an application.
    ClientSecret "client secret" 256 b"_-.";
    /// A token that renews an access token.
    RefreshToken "refresh token" 2048 b"_-.:";
    /// A code that a person passes on.
    Code "code" 64 b"_-";
}

fn read(content: &[u8], what: &'static str, most: usize, marks: &[u8]) -> Result<String, BadSecret> {
    let content = content.strip_prefix("\u{feff}".as_bytes()).unwrap_or(content);
    let text = content.strip_suffix(b"\n").unwrap_or(content);
    let text = text.strip_suffix(b"\r").unwrap_or(text);
    if text.is_empty() {
        return Err(BadSecret::Empty(what));
    }
    if text.len() > most {
        return Err(BadSecret::Length(what, most));
    }
    let fits = |byte: &u8| byte.is_ascii_alphanumeric() || marks.contains(byte);
    if let Some(position) = text.iter().position(|byte| !fits(byte)) {
        return Err(BadSecret::Byte(what, position + 1));
    }
    String::from_utf8(text.to_vec()).map_err(|error| BadSecret::Byte(what, error.utf8_error().valid_up_to() + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rule_1_what_editors_add_is_trimmed() {
        for content in ["abc", "abc\n", "abc\r\n", "\u{feff}abc\n"] {
            assert_eq!(ClientSecret::parse(content.as_bytes()).unwrap().text(), "abc");
        }
        assert_eq!(ClientSecret::parse(b"abc\n\n"), Err(BadSecret::Byte("client secret", 4)));
    }

    #[test]
    fn rule_2_each_has_its_alphabet() {
        let refresh = "1:GN686QVt0mmakDd9:A4pYuW9LGk0_UnlrMIWklkAuJkUWbq27loFekJVmSYrdfzdePBy7:A-2dHOmBxiXgajnD-kYOwQ";
        assert!(RefreshToken::parse(refresh.as_bytes()).is_ok());
        assert_eq!(ClientSecret::parse(refresh.as_bytes()), Err(BadSecret::Byte("client secret", 2)));
        assert!(crate::token::Token::parse(refresh.as_bytes()).is_err());
        assert_eq!(Code::parse(b""), Err(BadSecret::Empty("code")));
        assert_eq!(Code::parse(&[b'a'; 65]), Err(BadSecret::Length("code", 64)));
        assert_eq!(Code::parse(b"abc def"), Err(BadSecret::Byte("code", 4)));
    }

    #[test]
    fn rule_3_nothing_shows_them() {
        let secret = RefreshToken::parse(b"1:abcdef").unwrap();
        assert_eq!(format!("{secret:?}"), "RefreshToken(redacted)");
        assert!(!RefreshToken::parse(b"1:abcdef ghi").unwrap_err().to_string().contains("abc"));
    }
}

//! What a token file holds becomes one field value that nothing can be added to, or is refused (R-5).
#![no_main]

use libfuzzer_sys::fuzz_target;
use metrika_gate::token::Token;

fuzz_target!(|content: &[u8]| {
    match Token::parse(content) {
        Ok(token) => {
            let value = token.authorization();
            let secret = value.as_bytes().strip_prefix(b"OAuth ").expect("a scheme");
            assert!(!secret.is_empty() && secret.iter().all(u8::is_ascii_graphic));
            assert!(value.is_sensitive());
            let trimmed = content.strip_suffix(b"\n").map_or(content, |line| line.strip_suffix(b"\r").unwrap_or(line));
            assert_eq!(secret, trimmed, "nothing is repaired but one line end");
            let secret = std::str::from_utf8(secret).expect("ASCII");
            let shown = format!("{token:?} {value:?}");
            let is_word = "Token(redacted) Sensitive".contains(secret);
            assert!(secret.len() < 8 || is_word || !shown.contains(secret), "it is not shown");
        }
        Err(error) => {
            let words = content.split(|byte| !byte.is_ascii_alphanumeric()).filter(|word| word.len() >= 16);
            let said = error.to_string();
            for word in words.map(String::from_utf8_lossy) {
                assert!(!said.contains(word.as_ref()), "a mistake does not show what it is in");
            }
        }
    }
});

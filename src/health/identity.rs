//! Parses the response of Yandex ID that names the issuer of a token. The content is untrusted and may be unfit for a
//! terminal.
//!
//! 1. The login is valid ([`metrica::login`]), and the application id has 8 to 64 letters or digits. Anything else is
//!    rejected.
//! 2. A response that contains part of a token is rejected too: an intermediary may echo the request.

use http::HeaderValue;
use metrica::login;
use serde::Deserialize;

use crate::token::SCHEME;

/// An account, and the application to which the account issued a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issuer {
    /// The login of the account.
    pub login: Box<str>,
    /// The id of the application.
    pub client_id: Box<str>,
}

/// The number of consecutive bytes shared with a token that count as part of it.
const PART: usize = 12;

/// Parses a response, which must not contain part of `secrets` (values of `Authorization`).
#[must_use]
pub fn read(body: &[u8], secrets: &[HeaderValue]) -> Option<Issuer> {
    #[derive(Deserialize)]
    struct Answer {
        login: Box<str>,
        client_id: Box<str>,
    }
    let Answer { login, client_id } = serde_json::from_slice(body).ok()?;
    let is_application =
        (8..=64).contains(&client_id.len()) && client_id.bytes().all(|byte| byte.is_ascii_alphanumeric());
    let leaks = has_part_of(&login, secrets) || has_part_of(&client_id, secrets);
    (login::is_one(&login) && is_application && !leaks).then_some(Issuer { login, client_id })
}

/// Whether a text contains part of a token of `secrets` (values of `Authorization`).
#[must_use]
pub fn has_part_of(text: &str, secrets: &[HeaderValue]) -> bool {
    secrets.iter().any(|secret| {
        let token = secret.as_bytes();
        let token = token.strip_prefix(SCHEME.as_bytes()).unwrap_or(token);
        let length = PART.min(token.len());
        length > 0 && text.as_bytes().windows(length).any(|part| token.windows(length).any(|own| own == part))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const APPLICATION: &str = "0123456789abcdef0123456789abcdef";

    fn issuer_of(login: &str, client_id: &str) -> Option<Issuer> {
        let token = crate::token::Token::parse(b"y0_AgAAAAA-test_0123456789").unwrap();
        let body = serde_json::json!({ "login": login, "id": "1", "client_id": client_id, "psuid": "1.AA.b" });
        read(body.to_string().as_bytes(), &[token.authorization()])
    }

    #[test]
    fn a_secret_without_a_scheme_is_a_secret_as_a_whole() {
        let secret = |text| [HeaderValue::from_static(text)];
        assert!(has_part_of("it is abc", &secret("abc")) && has_part_of("it is abc", &secret("OAuth abc")));
        assert!(!has_part_of("it is OAuth", &secret("OAuth abc")) && !has_part_of("abc", &secret("OAuth ")));
    }

    #[test]
    fn rule_1_the_alphabet_and_the_length() {
        let issuer = issuer_of("porg-shop@example.ru", APPLICATION).unwrap();
        assert_eq!((&*issuer.login, &*issuer.client_id), ("porg-shop@example.ru", APPLICATION));
        for login in ["", "two words", "\u{1b}[31m", "line\nbreak", "логин", "<b>", &"a".repeat(129)] {
            assert_eq!(issuer_of(login, APPLICATION), None, "{login}");
        }
        for client_id in ["", "short", "with-a-hyphen", &"a".repeat(65)] {
            assert_eq!(issuer_of("shop", client_id), None, "{client_id}");
        }
        for body in [&b""[..], b"<html>", b"{}", br#"{"login":"shop"}"#, b"null", b"\xff"] {
            assert_eq!(read(body, &[]), None, "{body:?}");
        }
    }

    #[test]
    fn rule_2_a_response_with_a_part_of_a_token_is_rejected() {
        for login in ["y0_AgAAAAA-test_0123456789", "x.AgAAAAA-test_", "test_0123456789"] {
            assert_eq!(issuer_of(login, APPLICATION), None, "{login}");
        }
        assert!(issuer_of("test-shop", "0123456789").is_some());
        assert!(read(br#"{"login":"shop","client_id":"abcdefgh"}"#, &[HeaderValue::from_static("OAuth ")]).is_some());
    }
}

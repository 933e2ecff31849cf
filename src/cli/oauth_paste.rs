//! What a person pastes: a code, a token, the address of a page, or the JSON response of the OAuth server.
//!
//! 1. White space around the text is trimmed. The token is read from `#access_token=`, the code from `code=`.
//! 2. An address with another `state` than the one of this process is rejected: somebody else made its request.
//! 3. A mistake is described without the pasted text.

use serde::Deserialize;
use zeroize::Zeroizing;

use super::oauth_fault::{OAuthError, Step};
use super::oauth_secret::{Code, RefreshToken};
use crate::token::{BadToken, Token};

/// The maximum length of a pasted text, in bytes.
pub const MOST: usize = 16 * 1024;

/// An access token, and what came with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    /// The token.
    pub access: Token,
    /// The time for which it is valid, in seconds.
    pub expires_in: Option<u64>,
    /// The token that renews it.
    pub refresh: Option<RefreshToken>,
    /// The granted scopes, if they are fewer than the requested ones.
    pub scope: Option<String>,
}

/// A pasted text that was understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pasted {
    /// A code.
    Code(Code),
    /// A token.
    Token(Box<Received>),
}

/// The reason why a pasted text was not understood (rule 3).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadPaste {
    /// Nothing was pasted.
    #[error("nothing was pasted")]
    Empty,
    /// It is too long.
    #[error("the pasted text has more than {MOST} bytes")]
    Length,
    /// The same text twice.
    #[error("the text was pasted twice; paste it once")]
    Twice,
    /// The address has neither a code nor a token.
    #[error(
        "the address contains no code and no token; copy the whole address of the page that Yandex shows after you click Allow"
    )]
    Address,
    /// The address belongs to another request (rule 2).
    #[error(
        "the address belongs to another login (its state differs); open the address printed above, and paste its result"
    )]
    State,
    /// Yandex reports an error in the address.
    #[error("{0}")]
    Refused(String),
    /// The JSON has no token.
    #[error("the JSON has no access_token; paste the whole response of the OAuth server")]
    Json,
    /// The JSON is an error of the OAuth server.
    #[error("the JSON is the error '{}' of the OAuth server, and no token; get a new response", .0.as_str())]
    JsonError(OAuthError),
    /// A code or token with wrong characters.
    #[error("the pasted text is neither a code, nor a token, nor an address: {0}")]
    Text(String),
}

impl From<BadToken> for BadPaste {
    fn from(bad: BadToken) -> Self {
        Self::Text(bad.to_string())
    }
}

/// The response of the OAuth server with a token.
#[derive(Deserialize)]
struct Answer {
    access_token: Zeroizing<String>,
    expires_in: Option<u64>,
    refresh_token: Option<Zeroizing<String>>,
    scope: Option<String>,
}

/// Reads the response of the OAuth server with a token.
#[must_use]
pub fn response(body: &[u8]) -> Option<Received> {
    let answer: Answer = serde_json::from_slice(body).ok()?;
    let refresh = match answer.refresh_token {
        Some(text) => Some(RefreshToken::parse(text.as_bytes()).ok()?),
        None => None,
    };
    let access = Token::parse(answer.access_token.as_bytes()).ok()?;
    Some(Received { access, expires_in: answer.expires_in, refresh, scope: answer.scope })
}

/// Returns the error that a response of the OAuth server reports.
fn refusal(text: &str) -> Option<OAuthError> {
    #[derive(Deserialize)]
    struct Refusal {
        error: Zeroizing<String>,
    }
    serde_json::from_str(text).ok().map(|refusal: Refusal| OAuthError::named(&refusal.error))
}

/// Reads a pasted text. `state` is that of this process, if it made the address.
///
/// # Errors
/// [`BadPaste`].
pub fn read(text: &str, state: Option<&str>) -> Result<Pasted, BadPaste> {
    if text.len() > MOST {
        return Err(BadPaste::Length);
    }
    let text = text.trim_start_matches('\u{feff}').trim();
    if text.is_empty() {
        return Err(BadPaste::Empty);
    }
    if is_twice(text) {
        return Err(BadPaste::Twice);
    }
    if text.starts_with('{') {
        let found = response(text.as_bytes()).map(|received| Pasted::Token(received.into()));
        return found.ok_or_else(|| refusal(text).map_or(BadPaste::Json, BadPaste::JsonError));
    }
    if text.contains("://") || text.contains('=') {
        return address(text, state);
    }
    let field = text.get(.."authorization:".len()).filter(|name| name.eq_ignore_ascii_case("authorization:"));
    let text = field.map_or(text, |name| text.trim_start_matches(name).trim_start());
    let text = ["OAuth ", "Bearer "].iter().find_map(|scheme| text.strip_prefix(scheme)).unwrap_or(text);
    if text.len() < SHORTEST_TOKEN {
        return Code::parse(text.as_bytes()).map(Pasted::Code).map_err(|bad| BadPaste::Text(bad.to_string()));
    }
    let access = Token::parse(text.as_bytes())?;
    Ok(Pasted::Token(Received { access, expires_in: None, refresh: None, scope: None }.into()))
}

/// The length of the shortest text that is read as a token; codes have 16 characters, or 7 digits in older answers.
const SHORTEST_TOKEN: usize = 20;

/// The length of the shortest code.
const SHORTEST_CODE: usize = 7;

/// Whether a text is the same code, address or token twice, with or without white space between.
fn is_twice(text: &str) -> bool {
    let halves = text.split_at_checked(text.len() / 2).into_iter();
    let mut ways = halves.chain(text.split_once(|c: char| c.is_ascii_whitespace()));
    ways.any(|(first, second)| first.len() >= SHORTEST_CODE && first == second.trim_start())
}

/// Reads an address, or the part of one that has parameters.
fn address(text: &str, state: Option<&str>) -> Result<Pasted, BadPaste> {
    let value = |name: &str| {
        let pairs = text.split(['?', '#', '&']).filter_map(|pair| pair.split_once('='));
        pairs.filter(|(found, _)| *found == name).map(|(_, value)| value).next()
    };
    if let Some(error) = value("error") {
        let error = OAuthError::named(error);
        return Err(BadPaste::Refused(format!("{}; {}", error.message(Step::Page), error.remedy(Step::Page))));
    }
    if let (Some(own), Some(other)) = (state, value("state"))
        && own != other
    {
        return Err(BadPaste::State);
    }
    if let Some(token) = value("access_token") {
        let access = Token::parse(token.as_bytes())?;
        let expires_in = value("expires_in").and_then(|text| text.parse().ok());
        return Ok(Pasted::Token(Received { access, expires_in, refresh: None, scope: None }.into()));
    }
    let code = value("code").ok_or(BadPaste::Address)?;
    Code::parse(code.as_bytes()).map(Pasted::Code).map_err(|bad| BadPaste::Text(bad.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "y0_AgAAAAA-test_0123456789";

    fn token(text: &str) -> Option<Received> {
        match read(text, Some("mine")) {
            Ok(Pasted::Token(received)) => Some(*received),
            Ok(Pasted::Code(_)) | Err(_) => None,
        }
    }

    #[test]
    fn rule_1_everything_that_a_person_can_copy() {
        let code = Pasted::Code(Code::parse(b"abcdefgh12345678").unwrap());
        for text in [
            "abcdefgh12345678",
            "  abcdefgh12345678\r\n",
            "https://oauth.yandex.ru/verification_code?code=abcdefgh12345678&state=mine",
            "/verification_code?code=abcdefgh12345678",
            "code=abcdefgh12345678",
        ] {
            assert_eq!(read(text, Some("mine")), Ok(code.clone()), "{text}");
        }
        let address = format!(
            "https://oauth.yandex.ru/verification_code#access_token={TOKEN}&token_type=bearer&expires_in=31536000"
        );
        let json = format!(
            "{{\"access_token\": \"{TOKEN}\", \"expires_in\": 9, \"refresh_token\": \"1:a:b\", \"scope\": \"metrika:read\"}}"
        );
        for (text, expires_in) in [
            (address.as_str(), Some(31_536_000)),
            (&format!("#access_token={TOKEN}&state=mine"), None),
            (TOKEN, None),
            (&format!("OAuth {TOKEN}\n"), None),
            (&json, Some(9)),
        ] {
            let read = token(text).unwrap_or_else(|| panic!("{text}"));
            assert_eq!((read.access, read.expires_in), (Token::parse(TOKEN.as_bytes()).unwrap(), expires_in), "{text}");
        }
        let read = token(&json).unwrap();
        assert_eq!((read.refresh.unwrap().text(), read.scope.as_deref()), ("1:a:b", Some("metrika:read")));
    }

    #[test]
    fn rule_2_an_address_of_another_request_is_rejected() {
        for text in
            ["https://h/?code=abcdefgh12345678&state=other", "https://h/#access_token=y0_AgAAAAA-test_01&state="]
        {
            assert_eq!(read(text, Some("mine")), Err(BadPaste::State), "{text}");
        }
        assert!(read("https://h/?code=abcdefgh12345678&state=other", None).is_ok());
    }

    #[test]
    fn rule_3_mistakes_are_described_without_the_text() {
        let twice = "abcdefgh12345678abcdefgh12345678";
        for (text, expected) in [
            ("", "nothing was pasted"),
            (" \n", "nothing was pasted"),
            (twice, "pasted twice"),
            ("abcdefgh12345678 abcdefgh12345678", "pasted twice"),
            ("https://oauth.yandex.ru/authorize?response_type=token&client_id=abc", "no code and no token"),
            ("https://h/#access_token=a&state=mihttps://h/#access_token=a&state=mi", "pasted twice"),
            ("https://h/#access_token=secret https://h/#access_token=secret", "pasted twice"),
            ("https://h/#error=access_denied&state=mine", "denied"),
            ("https://h/?error=somethingsecret", "unknown error"),
            ("{\"error\": \"secret\"}", "an unknown error"),
            ("{\"error\": \"invalid_grant\", \"error_description\": \"x\"}", "the error 'invalid_grant'"),
            ("{\"access_token\": \"se cret\"}", "no access_token"),
            ("secret code with spaces", "neither a code"),
            ("se\u{e9}cret", "neither a code"),
        ] {
            let said = read(text, Some("mine")).unwrap_err().to_string();
            assert!(said.contains(expected) && !said.contains("secret"), "{text:?}: {said}");
        }
        assert_eq!(read(&"a".repeat(MOST + 1), None), Err(BadPaste::Length));
    }
}

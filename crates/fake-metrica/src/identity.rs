//! The issuer of a token, as the other host returns it (rule 6 of the stand-in).

use http::request::Parts;
use http::{Method, header};
use serde_json::json;

use super::FakeToken;
use super::access::Keyring;
use super::answer::Answer;
use super::refusal::{ErrorType, Refusal};

/// The path on that host.
pub const PATH: &str = "/info";

/// Answers for any valid token, whatever its scopes.
pub fn answer(keyring: &Keyring, head: &Parts) -> Answer {
    if !matches!(head.method, Method::GET | Method::HEAD) {
        return Answer::from(&Refusal::from(ErrorType::MethodNotAllowed));
    }
    if head.uri.path() != PATH {
        return Answer::from(&Refusal::from(ErrorType::NotFound));
    }
    match keyring.token(&head.headers) {
        Ok(token) => Answer::json(&said(token), false),
        // The body of this response is undocumented.
        Err(_) => Answer::from(&Refusal::from(ErrorType::Unauthorized)),
    }
}

fn said(token: &FakeToken) -> serde_json::Value {
    let login = token.login.as_deref().unwrap_or(&token.owner);
    let id = number(login);
    json!({
        "login": login,
        "id": id.to_string(),
        "client_id": token.client_id,
        "psuid": format!("1.AA{:x}.{:x}", id, number(&token.client_id)),
    })
}

/// A stable number for a text (FNV-1a), in the range of account numbers.
fn number(text: &str) -> u64 {
    let hash = text
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    hash % 2_000_000_000
}

/// Whether a request is for the other host, by its path, which the API does not have, or by its host name.
pub fn is_asked(head: &Parts) -> bool {
    let named = head.headers.get(header::HOST).and_then(|host| host.to_str().ok()).or_else(|| head.uri.host());
    head.uri.path() == PATH || named.is_some_and(|host| host.starts_with("login.yandex."))
}

//! Yandex OAuth, as another host of Yandex serves it: the pages on which a person allows an application access, and the
//! requests of the application.
//!
//! Sources: <https://yandex.com/dev/id/doc/en/>, and what clients have seen where its pages contradict each other.
//!
//! 1. `/authorize` shows the accounts and a button to allow access and one to deny it. The answer is a code or a token,
//!    sent to the redirect URI of the application; without one of its own, to `/verification_code`.
//! 2. A code has 16 characters, lives ten minutes, serves one application and is exchanged once. With a
//!    `code_challenge`, the exchange needs the verifier, and no secret.
//! 3. `/device/code` and `/device` are the same for a program without a browser. Requests before the end of the interval
//!    are `slow_down`.
//! 4. Without a `device_id` there is one live token for an application and an account: a new grant returns it again. With
//!    one, there is one for each device, and at most [`MOST_DEVICES`]; the oldest stops working.
//! 5. A refresh token is used once. A refreshed access token is the same while more than half of its lifetime is left.
//! 6. `/revoke_token` accepts tokens of devices only. All other tokens end when the person, or the owner of the
//!    application, ends them (the knob `oauth_end`).
//! 7. A token without `passport:business` that a person who works for an organisation allows is personal.
//! 8. Errors have the documented names: `{"error": …, "error_description": …}`, status 400, and 401 where a client fails
//!    to authenticate. Errors of pages are pages.

use std::time::Duration;

use http::request::Parts;
use http::{Method, header};

use super::access::Keyring;
use super::answer::Answer;
use super::query::Query;
use super::refusal::{ErrorType, Refusal};

mod authority;
mod device;
mod exchange;
mod page;

pub use authority::{Account, Application, Authority, MOST_DEVICES};

/// The maximum size of a form, in bytes.
pub const FORM_BYTES: usize = 64 * 1024;

/// Whether a request is for this host, by its path, which the API does not have, or by its host name.
pub fn is_asked(head: &Parts) -> bool {
    let named = head.headers.get(header::HOST).and_then(|host| host.to_str().ok()).or_else(|| head.uri.host());
    let paths = ["/authorize", "/token", "/device", "/device/code", "/revoke_token", "/verification_code"];
    let path = head.uri.path();
    paths.contains(&path) || path.starts_with("/client/") || named.is_some_and(|host| host.starts_with("oauth.yandex."))
}

/// An error of the OAuth server (rule 8).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OAuthError {
    name: &'static str,
    description: &'static str,
}

/// Every name of an error, for the knob that makes the next response one.
const NAMES: [&str; 16] = [
    "authorization_pending",
    "slow_down",
    "expired_token",
    "access_denied",
    "bad_verification_code",
    "invalid_client",
    "invalid_grant",
    "invalid_request",
    "invalid_scope",
    "unauthorized_client",
    "unsupported_grant_type",
    "unsupported_token_type",
    "Basic auth required",
    "Malformed Authorization header",
    "server_error",
    "temporarily_unavailable",
];

const fn error(name: &'static str, description: &'static str) -> OAuthError {
    OAuthError { name, description }
}

impl From<OAuthError> for Answer {
    fn from(error: OAuthError) -> Self {
        let body = serde_json::json!({ "error": error.name, "error_description": error.description });
        let is_client = error.name == "invalid_client";
        Self::json(&body, false).with_status(if is_client { 401 } else { 400 })
    }
}

/// Answers a request whose form has been read.
pub fn answer(authority: &mut Authority, keyring: &mut Keyring, head: &Parts, form: &[u8], now: Duration) -> Answer {
    authority.sweep(keyring, now);
    let query = Query::parse(head.uri.query());
    let form = Query::parse(std::str::from_utf8(form).ok());
    let is_read = matches!(head.method, Method::GET | Method::HEAD);
    let failed = |error: OAuthError| Answer::from(error);
    if let Some(error) = authority.failure(head.uri.path()) {
        return failed(error);
    }
    let page = |error: OAuthError| page::failed(error.name, error.description);
    match (head.uri.path(), is_read) {
        ("/authorize", true) => authority.ask(&query).unwrap_or_else(page),
        ("/authorize", false) => authority.decide(keyring, &form, now).unwrap_or_else(page),
        ("/device", true) => page::device(authority),
        ("/device", false) => authority.enter(keyring, &form, now).unwrap_or_else(page),
        ("/verification_code", true) => page::code(&query),
        ("/token", false) => authority.token(keyring, &head.headers, &form, now).unwrap_or_else(failed),
        ("/device/code", false) => authority.device_code(&form, now).unwrap_or_else(failed),
        ("/revoke_token", false) => authority.revoke(keyring, &head.headers, &form).unwrap_or_else(failed),
        ("/token" | "/device/code" | "/revoke_token" | "/verification_code", _) => {
            Answer::from(&Refusal::from(ErrorType::MethodNotAllowed))
        }
        (path, _) => {
            let id = path.strip_prefix("/client/").and_then(|rest| rest.strip_suffix("/info"));
            let application = id.and_then(|id| authority.application(id));
            application.map_or_else(|| Answer::from(&Refusal::from(ErrorType::NotFound)), page::application)
        }
    }
}

//! Service account tokens of requests: where they are read, and their verification.
//!
//! 1. With `service_accounts` in the configuration, `X-Gate-Service-Account` has the token; so has `Authorization: Bearer`, if
//!    its value has the form of a JWT. Any other credential is no proof.
//! 2. Several different tokens are refused, and so is one that is invalid. A request with one never falls to a caller that is
//!    known otherwise.
//! 3. While there are no keys, tokens cannot be verified: 503 `service_account_keys`.
//! 4. A token with an unknown key makes the gate ask for keys again ([`crate::worker::AccountCheck`]).
//! 5. After a wait, the token is compared with the time and the keys of now.

use std::time::SystemTime;

use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName, HeaderValue};

use super::exchange::Exchange;
use crate::policy::rejection::{Reason, Rejection};
use crate::policy::service_account::{TokenFault, VerifiedAccount, has_jwt_form};
use crate::worker::{AccountCheck, Snapshot};

/// The field with the token. It is not forwarded.
pub const SERVICE_ACCOUNT: HeaderName = HeaderName::from_static("x-gate-service-account");

/// The scheme of a token in `Authorization`.
const BEARER: &[u8] = b"bearer ";

/// Returns a token in the value of `Authorization` (rule 1).
#[must_use]
pub fn bearer(value: &HeaderValue) -> Option<&[u8]> {
    let (scheme, token) = value.as_bytes().trim_ascii().split_at_checked(BEARER.len())?;
    let token = token.trim_ascii();
    (scheme.eq_ignore_ascii_case(BEARER) && has_jwt_form(token)).then_some(token)
}

/// Returns the token that a request offers (rules 1 and 2).
fn offered(fields: &HeaderMap) -> Result<Option<&[u8]>, TokenFault> {
    let mut own = fields.get_all(&SERVICE_ACCOUNT).iter().map(HeaderValue::as_bytes);
    let first = own.next();
    if own.next().is_some() {
        return Err(TokenFault::Several);
    }
    let mut all = first.into_iter().chain(fields.get_all(AUTHORIZATION).iter().filter_map(bearer));
    let token = all.next();
    if all.any(|other| Some(other) != token) { Err(TokenFault::Several) } else { Ok(token) }
}

/// Returns the verified account of a request, if it offers a token.
///
/// # Errors
/// The refusal of the token.
pub fn verified(
    fields: &HeaderMap,
    exchange: &Exchange,
    snapshot: &Snapshot,
) -> Result<Option<VerifiedAccount>, Rejection> {
    let Some(check) = &snapshot.generation.service_accounts else { return Ok(None) };
    let Some(token) = offered(fields).map_err(|fault| refused(fault, exchange, check))? else { return Ok(None) };
    let Some(verifier) = &check.verifier else { return Err(Reason::ServiceAccountKeys.into()) };
    let verified = exchange.worker().verify_token(verifier, token, SystemTime::now());
    verified.map(Some).map_err(|fault| refused(fault, exchange, check))
}

/// Checks an account again that was verified when the request arrived (rule 5).
///
/// # Errors
/// The refusal of the token.
pub fn check_again(verified: &VerifiedAccount, exchange: &Exchange, snapshot: &Snapshot) -> Result<(), Rejection> {
    let check = snapshot.generation.service_accounts.as_ref();
    let Some(check) = check else { return Err(Reason::ServiceAccountKeys.into()) };
    let Some(verifier) = &check.verifier else { return Err(Reason::ServiceAccountKeys.into()) };
    verifier.check_again(verified, SystemTime::now()).map_err(|fault| refused(fault, exchange, check))
}

/// Counts a refused token and returns the refusal.
fn refused(fault: TokenFault, exchange: &Exchange, check: &AccountCheck) -> Rejection {
    exchange.worker().count(|shard| shard.service_account_token_refused(fault));
    let reason = match fault {
        TokenFault::UnknownKey => {
            check.wanted.notify_one();
            Reason::ServiceAccountKey
        }
        TokenFault::Expired => Reason::ServiceAccountExpired,
        TokenFault::Audience => Reason::ServiceAccountAudience,
        TokenFault::Malformed
        | TokenFault::Several
        | TokenFault::Algorithm
        | TokenFault::Signature
        | TokenFault::Issuer
        | TokenFault::NotYetValid
        | TokenFault::Subject => Reason::ServiceAccountInvalid,
    };
    Rejection::because(reason, fault)
}

//! Questions, and the interpretation of their responses.
//!
//! 1. The error type decides, then the status, never a message. Only Metrica's own JSON shows that a token is invalid: a
//!    401 without it can come from an intermediary.
//! 2. A quota refusal is inconclusive: the question is repeated once after [`PAUSE`], when the one-second window has
//!    passed.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use metrica::error_type::ErrorType;
use metrica::observed_rights::DEMO_COUNTERS;

use super::probe::{NoResponse, Place};
use crate::token::Token;
use crate::upstream::dial::DialError;

/// The pause between a quota refusal and the second attempt.
pub const PAUSE: Duration = Duration::from_millis(1100);

/// The demo counter of the documentation, which everybody may read.
pub const OPEN_COUNTER: u64 = DEMO_COUNTERS[0];

/// A question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Question {
    /// The account that issued the token, and the application.
    Issuer,
    /// The counters of the token's owner. The first of them names the owner.
    List,
    /// The permission of the owner on one counter.
    Counter(u64),
    /// A report of one counter.
    Report(u64),
    /// The accounts that the owner represents.
    Accounts,
}

impl Question {
    /// Path and query. The path of [`Question::Issuer`], which goes to another host, is configured.
    #[must_use]
    pub fn target(self, issuer: &str) -> String {
        match self {
            Self::Issuer => format!("{issuer}?format=json"),
            Self::List => "/management/v1/counters?permission=own&per_page=1".to_owned(),
            Self::Counter(counter) => format!("/management/v1/counter/{counter}"),
            Self::Report(counter) => format!("/stat/v1/data?ids={counter}&metrics=ym:s:visits&limit=1"),
            Self::Accounts => "/management/v1/accounts".to_owned(),
        }
    }
}

impl fmt::Display for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Issuer => f.write_str("its issuer"),
            Self::List => f.write_str("the list of counters"),
            Self::Counter(counter) => write!(f, "the permission for counter {counter}"),
            Self::Report(counter) => write!(f, "a report on counter {counter}"),
            Self::Accounts => f.write_str("the accounts that its owner represents"),
        }
    }
}

/// The meaning of a response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// Success (200), with this body.
    Yes(Bytes),
    /// The right or the scope is missing; Metrica does not tell which.
    Denied,
    /// The token is invalid.
    Invalid,
    /// The counter belongs to an organisation.
    Organisation,
    /// The object does not exist.
    Absent,
    /// The response is inconclusive.
    Unclear(Obstacle),
}

impl Reply {
    /// The obstacle that an unexpected reply amounts to.
    #[must_use]
    pub fn unexpected(self) -> Obstacle {
        match self {
            Self::Yes(_) => Obstacle::Unreadable,
            Self::Denied => Obstacle::Refused(ErrorType::AccessDenied),
            Self::Invalid => Obstacle::Refused(ErrorType::InvalidToken),
            Self::Organisation => Obstacle::Refused(ErrorType::CounterInConnect),
            Self::Absent => Obstacle::Refused(ErrorType::NotFound),
            Self::Unclear(why) => why,
        }
    }
}

/// The reason of an inconclusive reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Obstacle {
    /// A quota was exceeded twice.
    Quota(ErrorType),
    /// A refusal unrelated to the question.
    Refused(ErrorType),
    /// Any other response.
    Answer(StatusCode, ErrorType),
    /// The content is not what was requested.
    Unreadable,
    /// The connection failed, for this reason.
    Connection(String),
    /// The response broke off.
    Broken,
    /// The time limit of `upstream.timeouts` passed.
    Timeout,
}

impl Obstacle {
    /// Whether another question to the same host would fail the same way.
    #[must_use]
    pub const fn stays(&self) -> bool {
        matches!(self, Self::Quota(_) | Self::Connection(_) | Self::Timeout | Self::Refused(ErrorType::InvalidToken))
    }
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Quota(error_type) => write!(f, "a quota is exceeded ({})", error_type.as_str()),
            Self::Refused(error_type) => write!(f, "refused ({})", error_type.as_str()),
            Self::Answer(status, ErrorType::Other) => {
                write!(f, "the response is {}, with an unknown reason", status.as_u16())
            }
            Self::Answer(status, error_type) => {
                write!(f, "the response is {} {}", status.as_u16(), error_type.as_str())
            }
            Self::Unreadable => f.write_str("the response does not match the request"),
            Self::Connection(why) => write!(f, "no connection: {why}"),
            Self::Broken => f.write_str("the response ended prematurely, or is not HTTP"),
            Self::Timeout => f.write_str("no response in time"),
        }
    }
}

/// Asks, once more after a quota refusal (rule 2). Returns the reply and the number of requests.
pub async fn ask(place: &Place, token: &Token, target: &str) -> (Reply, usize) {
    let first = ask_once(place, token, target).await;
    if !matches!(first, Reply::Unclear(Obstacle::Quota(_))) {
        return (first, 1);
    }
    tokio::time::sleep(PAUSE).await;
    (ask_once(place, token, target).await, 2)
}

/// Asks once.
pub async fn ask_once(place: &Place, token: &Token, target: &str) -> Reply {
    match place.ask(token, target).await {
        Ok(heard) => reply(heard.status, heard.body),
        Err(unheard) => Reply::Unclear(obstacle(unheard)),
    }
}

/// Returns the obstacle that a missing response amounts to.
#[must_use]
pub fn obstacle(unheard: NoResponse) -> Obstacle {
    match unheard {
        // Nothing was sent yet, so the error cannot contain the token.
        NoResponse::Dial(error) => Obstacle::Connection(dial(&error)),
        NoResponse::Timeout | NoResponse::NoTurn => Obstacle::Timeout,
        NoResponse::Broken(_) | NoResponse::TooLong => Obstacle::Broken,
    }
}

/// A chain of causes without its repetitions.
fn dial(error: &anyhow::Error) -> String {
    match error.downcast_ref::<DialError>() {
        Some(DialError::Tls { place, source }) => format!("TLS with {place} failed: {source}"),
        Some(DialError::Connect { place, source }) => format!("connecting to {place} failed: {source}"),
        Some(DialError::Resolve { name, hint, source }) => format!("looking up {name} failed{hint}: {source}"),
        Some(DialError::Proxy { source, .. }) => {
            let cause = std::error::Error::source(source).map_or_else(String::new, |cause| format!(": {cause}"));
            format!("{error}: {source}{cause}")
        }
        Some(DialError::Timeout(_) | DialError::Saturated(_)) | None => error.to_string(),
    }
}

/// Interprets a response (rule 1).
#[must_use]
pub fn reply(status: StatusCode, body: Bytes) -> Reply {
    if status == StatusCode::OK {
        return Reply::Yes(body);
    }
    let error_type = ErrorType::in_body(&body);
    match (error_type, status.as_u16()) {
        (ErrorType::InvalidToken | ErrorType::Unauthorized, _) => Reply::Invalid,
        (ErrorType::AccessDenied, _) => Reply::Denied,
        (ErrorType::CounterInConnect, _) => Reply::Organisation,
        (ErrorType::NotFound, _) => Reply::Absent,
        (of_quota, _) if of_quota.as_str().starts_with("quota_") => Reply::Unclear(Obstacle::Quota(of_quota)),
        (_, 420 | 429) => Reply::Unclear(Obstacle::Quota(error_type)),
        (ErrorType::Other, 404) => Reply::Absent,
        _ => Reply::Unclear(Obstacle::Answer(status, error_type)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(status: u16, body: &'static str) -> Reply {
        reply(StatusCode::from_u16(status).unwrap(), Bytes::from_static(body.as_bytes()))
    }

    #[test]
    fn rule_1_the_type_decides_and_then_the_status() {
        let denied = r#"{"errors":[{"error_type":"access_denied","message":"Доступ запрещён"}]}"#;
        let invalid = r#"{"errors":[{"error_type":"invalid_token"}]}"#;
        for status in [401, 403, 400] {
            assert_eq!((of(status, denied), of(status, invalid)), (Reply::Denied, Reply::Invalid), "{status}");
        }
        assert_eq!(of(401, r#"{"errors":[{"error_type":"unauthorized"}]}"#), Reply::Invalid);
        let unclear =
            |status, error_type| Reply::Unclear(Obstacle::Answer(StatusCode::from_u16(status).unwrap(), error_type));
        for (status, body) in [(403, "<html>"), (401, "<html>"), (401, r#"{"error":"unauthorized"}"#)] {
            assert_eq!(of(status, body), unclear(status, ErrorType::Other), "something in between answers so");
        }
        assert_eq!(of(503, r#"{"errors":[{"error_type":"backend_error"}]}"#), unclear(503, ErrorType::BackendError));
        assert_eq!(of(302, ""), unclear(302, ErrorType::Other));
    }

    #[test]
    fn rule_2_a_quota_is_no_answer() {
        for (status, body) in [(429, "<html>"), (420, ""), (403, r#"{"errors":[{"error_type":"quota_new"}]}"#)] {
            assert!(matches!(of(status, body), Reply::Unclear(Obstacle::Quota(_))), "{status}");
        }
    }
}

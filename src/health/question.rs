//! Questions, and what an answer to one comes to.
//!
//! 1. The type of an error decides, then the status; a message never does. That a token is invalid, only Metrica's own JSON
//!    says: a 401 without it can be of something in between.
//! 2. A quota is no answer: the same is asked once more after [`PAUSE`], when the window of a second has passed.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use metrica::error_type::ErrorType;
use metrica::observed_rights::DEMO_COUNTERS;

use super::probe::{Place, Unheard};
use crate::token::Token;
use crate::upstream::dial::DialError;

/// Between a quota's refusal and the second try.
pub const PAUSE: Duration = Duration::from_millis(1100);

/// The counter that the documentation shows, and that anyone may look at.
pub const OPEN_COUNTER: u64 = DEMO_COUNTERS[0];

/// A question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Question {
    /// Who issued the token, and for which application?
    Issuer,
    /// Which counters does its owner own? The first of them says who that is.
    List,
    /// What may its owner do with one of them?
    Counter(u64),
    /// Can it read a report of one?
    Report(u64),
    /// Whom does its owner represent?
    Accounts,
}

impl Question {
    /// Path and query; that of [`Question::Issuer`], which goes to another host, is configured.
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
            Self::Issuer => f.write_str("who issued it"),
            Self::List => f.write_str("the list of counters"),
            Self::Counter(counter) => write!(f, "the permission on counter {counter}"),
            Self::Report(counter) => write!(f, "a report of counter {counter}"),
            Self::Accounts => f.write_str("the accounts that it represents"),
        }
    }
}

/// What an answer comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// 200, with this body.
    Yes(Bytes),
    /// No right, or no scope: Metrica does not say which.
    Denied,
    /// The token is not valid.
    Invalid,
    /// The counter belongs to an organisation.
    Organisation,
    /// There is no such object.
    Absent,
    /// Nothing can be concluded.
    Unclear(Obstacle),
}

impl Reply {
    /// What it is where it was not expected.
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

/// Why nothing can be concluded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Obstacle {
    /// A quota was exceeded, twice.
    Quota(ErrorType),
    /// A refusal that says nothing about the question.
    Refused(ErrorType),
    /// Another answer.
    Answer(StatusCode, ErrorType),
    /// Something else than was asked for.
    Unreadable,
    /// No connection, and why.
    Connection(String),
    /// There was one, and no whole answer.
    Broken,
    /// It took longer than `upstream.timeouts` say.
    Timeout,
}

impl Obstacle {
    /// Whether another question to the same host would meet it too.
    #[must_use]
    pub const fn stays(&self) -> bool {
        matches!(self, Self::Quota(_) | Self::Connection(_) | Self::Timeout | Self::Refused(ErrorType::InvalidToken))
    }
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Quota(error_type) => write!(f, "a quota is exceeded ({})", error_type.as_str()),
            Self::Refused(error_type) => write!(f, "it is refused ({})", error_type.as_str()),
            Self::Answer(status, ErrorType::Other) => {
                write!(f, "the answer is {}, with no reason that is known", status.as_u16())
            }
            Self::Answer(status, error_type) => write!(f, "the answer is {} {}", status.as_u16(), error_type.as_str()),
            Self::Unreadable => f.write_str("the answer is not one to the question"),
            Self::Connection(why) => write!(f, "no connection: {why}"),
            Self::Broken => f.write_str("the answer broke off, or is none"),
            Self::Timeout => f.write_str("no answer in time"),
        }
    }
}

/// Asks once, and after a quota's refusal once more (rule 2); how many requests it took.
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
        Err(unheard) => Reply::Unclear(match unheard {
            // Nothing was sent yet, so nothing of the token can be in it.
            Unheard::Dial(error) => Obstacle::Connection(dial(&error)),
            Unheard::Timeout => Obstacle::Timeout,
            Unheard::Broken(_) | Unheard::TooLong => Obstacle::Broken,
        }),
    }
}

/// A chain of causes without the repetitions that they have.
fn dial(error: &anyhow::Error) -> String {
    match error.downcast_ref::<DialError>() {
        Some(DialError::Tls { place, source }) => format!("TLS with {place} failed: {source}"),
        Some(DialError::Connect { place, source }) => format!("connecting to {place} failed: {source}"),
        Some(DialError::Resolve { name, hint, source }) => format!("looking up {name} failed{hint}: {source}"),
        Some(DialError::Timeout(_) | DialError::Saturated(_)) | None => error.to_string(),
    }
}

/// What an answer comes to (rule 1).
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

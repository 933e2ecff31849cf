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
use metrica::login;
use metrica::observed_rights::DEMO_COUNTERS;
use serde::Deserialize;

use super::{Place, Unheard};
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

/// A counter as the API shows it to the owner of a token.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Shown {
    /// Its number; zero where the answer does not say it.
    #[serde(default)]
    pub id: u64,
    /// The API's word for what the owner of the token may do with it.
    pub permission: String,
    /// Who owns it.
    owner_login: Option<String>,
}

impl Shown {
    /// The login of the token's owner, where the counter is its own.
    #[must_use]
    pub fn owner(&self) -> Option<&str> {
        self.owner_login.as_deref().filter(|login| self.permission == "own" && login::is_one(login))
    }
}

/// The counter that an answer shows.
#[must_use]
pub fn counter_in(body: &[u8]) -> Option<Shown> {
    #[derive(Deserialize)]
    struct Answer {
        counter: Shown,
    }
    serde_json::from_slice(body).ok().map(|Answer { counter }| counter)
}

/// The API's word for what the owner of a token may do with the counter that an answer shows.
#[must_use]
pub fn permission_in(body: &[u8]) -> Option<String> {
    counter_in(body).map(|counter| counter.permission)
}

/// A list of counters, or a page of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Those that it shows.
    pub counters: Vec<Shown>,
    /// It has no more than these.
    pub is_whole: bool,
}

/// The counters in a list; nothing where it is none.
#[must_use]
pub fn listed_in(body: &[u8]) -> Option<Listed> {
    #[derive(Deserialize)]
    struct Answer {
        rows: Option<usize>,
        counters: Vec<serde_json::Value>,
    }
    let Answer { rows, counters } = serde_json::from_slice(body).ok()?;
    let is_whole = rows.is_some_and(|rows| rows <= counters.len());
    let counters = counters.into_iter().filter_map(|counter| serde_json::from_value(counter).ok()).collect();
    Some(Listed { counters, is_whole })
}

/// The logins in a list of accounts.
#[must_use]
pub fn accounts_in(body: &[u8]) -> Option<Vec<String>> {
    #[derive(Deserialize)]
    struct Answer {
        accounts: Vec<Account>,
    }
    #[derive(Deserialize)]
    struct Account {
        user_login: String,
    }
    let answer: Answer = serde_json::from_slice(body).ok()?;
    Some(answer.accounts.into_iter().map(|account| account.user_login).collect())
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
    fn who_owns_a_counter_is_told_by_one_that_is_its_own() {
        let owner = |permission: &str, login: &str| {
            let one = format!(r#"{{"id":5,"permission":"{permission}","owner_login":"{login}"}}"#);
            let listed = listed_in(format!(r#"{{"rows":1,"counters":[{one}]}}"#).as_bytes()).unwrap();
            let shown = counter_in(format!(r#"{{"counter":{one}}}"#).as_bytes()).unwrap();
            assert_eq!((&listed.counters[..], listed.is_whole, shown.id), (&[shown.clone()][..], true, 5));
            shown.owner().map(str::to_owned)
        };
        assert_eq!(owner("own", "shop").as_deref(), Some("shop"));
        assert_eq!((owner("edit", "shop"), owner("view", "shop"), owner("own", "two words")), (None, None, None));
        assert_eq!((listed_in(b"{}"), listed_in(b"<html>"), counter_in(b"{}")), (None, None, None));
        let is_whole = |body: &str| listed_in(body.as_bytes()).unwrap().is_whole;
        assert!(is_whole(r#"{"rows":0,"counters":[]}"#) && !is_whole(r#"{"rows":1,"counters":[]}"#));
        assert!(!is_whole(r#"{"counters":[]}"#), "it does not say so");
        let half = br#"{"counters":[{"id":1},{"permission":"view"}]}"#;
        assert_eq!(listed_in(half).map(|list| list.counters.len()), Some(1));
    }

    #[test]
    fn rule_2_a_quota_is_no_answer() {
        for (status, body) in [(429, "<html>"), (420, ""), (403, r#"{"errors":[{"error_type":"quota_new"}]}"#)] {
            assert!(matches!(of(status, body), Reply::Unclear(Obstacle::Quota(_))), "{status}");
        }
    }
}

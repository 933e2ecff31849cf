//! The questions, each as a task of its own that says what it found.

use std::sync::Arc;

use http::StatusCode;
use serde::Deserialize;
use tokio::sync::mpsc::UnboundedSender;

use crate::knowledge::{Fact, Permission};
use crate::probe::{Heard, Place};
use crate::token::Token;
use crate::verdict::ErrorType;
use crate::worker::Sender;

/// What a question found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// The token is taken.
    Valid,
    /// It is not.
    Invalid,
    /// Something else of it.
    Fact(Fact),
    /// Nothing: no answer, or one that says nothing.
    Nothing,
}

type Finds = UnboundedSender<(Sender, Finding)>;

/// Whether Metrica takes a token.
pub fn whether_valid(place: Place, token: Token, sender: Sender, finds: Finds) {
    ask(place, token, sender, finds, "/management/v1/counters?per_page=1".to_owned(), |heard| {
        let invalid = || ErrorType::in_body(&heard.body) == ErrorType::InvalidToken;
        match heard.status {
            StatusCode::UNAUTHORIZED => Finding::Invalid,
            StatusCode::FORBIDDEN if invalid() => Finding::Invalid,
            // The token is known, whatever it may: an unknown one is refused before.
            status if status.is_success() || status == StatusCode::FORBIDDEN => Finding::Valid,
            _ => Finding::Nothing,
        }
    });
}

/// What the owner of a token may do with a counter.
pub fn permission(place: Place, token: Token, sender: Sender, counter: u64, finds: Finds) {
    let target = format!("/management/v1/counter/{counter}");
    ask(place, token, sender, finds, target, move |heard| {
        let of = |permission| Finding::Fact(Fact::Permission(counter, permission));
        match heard.status {
            StatusCode::OK => permission_in(&heard.body).map_or(Finding::Nothing, of),
            StatusCode::FORBIDDEN if ErrorType::in_body(&heard.body) == ErrorType::AccessDenied => {
                of(Permission::Nothing)
            }
            _ => Finding::Nothing,
        }
    });
}

/// Who issued a token.
pub fn owner(place: Place, path: Arc<str>, token: Token, sender: Sender, finds: Finds) {
    ask(place, token, sender, finds, format!("{path}?format=json"), |heard| {
        let login = (heard.status == StatusCode::OK).then(|| login_in(&heard.body)).flatten();
        login.map_or(Finding::Nothing, |login| Finding::Fact(Fact::Owner(login)))
    });
}

fn ask(
    place: Place,
    token: Token,
    sender: Sender,
    finds: Finds,
    target: String,
    read: impl FnOnce(Heard) -> Finding + 'static,
) {
    tokio::task::spawn_local(async move {
        let finding = match place.ask(&token, &target).await {
            Ok(heard) => read(heard),
            Err(error) => {
                tracing::debug!(token = sender.alias.as_str(), %error, "a question about the token has no answer");
                Finding::Nothing
            }
        };
        // Nobody listens at the end of the process.
        let _ = finds.send((sender, finding));
    });
}

fn permission_in(body: &[u8]) -> Option<Permission> {
    #[derive(Deserialize)]
    struct Answer {
        counter: Counter,
    }
    #[derive(Deserialize)]
    struct Counter {
        permission: String,
    }
    Permission::of(&serde_json::from_slice::<Answer>(body).ok()?.counter.permission)
}

/// A login is shown in logs, so it is taken only when it looks like one.
fn login_in(body: &[u8]) -> Option<Box<str>> {
    #[derive(Deserialize)]
    struct Info {
        login: Box<str>,
    }
    let login = serde_json::from_slice::<Info>(body).ok()?.login;
    crate::config::login(&login).ok()
}

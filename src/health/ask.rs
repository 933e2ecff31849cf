//! The questions, each as a task of its own that says what it found.

use tokio::sync::mpsc::UnboundedSender;

use crate::knowledge::{Fact, Permission};
use crate::probe::question::{self, Question, Reply, permission_in};
use crate::probe::{Place, identity};
use crate::token::Token;
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
    ask(place, token, sender, finds, Question::List.target(""), |reply, _| match reply {
        Reply::Invalid => Finding::Invalid,
        // The token is known, whatever it may: an unknown one is refused before.
        Reply::Yes(_) | Reply::Denied | Reply::Organisation => Finding::Valid,
        Reply::Absent | Reply::Unclear(_) => Finding::Nothing,
    });
}

/// What the owner of a token may do with a counter.
pub fn permission(place: Place, token: Token, sender: Sender, counter: u64, finds: Finds) {
    ask(place, token, sender, finds, Question::Counter(counter).target(""), move |reply, _| {
        let permission = match reply {
            Reply::Yes(body) => permission_in(&body).and_then(|word| Permission::of(&word)),
            Reply::Denied => Some(Permission::Nothing),
            Reply::Invalid | Reply::Organisation | Reply::Absent | Reply::Unclear(_) => None,
        };
        permission.map_or(Finding::Nothing, |permission| Finding::Fact(Fact::Permission(counter, permission)))
    });
}

/// Who issued a token.
pub fn owner(place: Place, path: &str, token: Token, sender: Sender, finds: Finds) {
    ask(place, token, sender, finds, Question::Issuer.target(path), |reply, token| match reply {
        Reply::Yes(body) => identity::read(&body, &[token.authorization()])
            .map_or(Finding::Nothing, |issuer| Finding::Fact(Fact::Owner(issuer.login))),
        Reply::Denied | Reply::Invalid | Reply::Organisation | Reply::Absent | Reply::Unclear(_) => Finding::Nothing,
    });
}

fn ask(
    place: Place,
    token: Token,
    sender: Sender,
    finds: Finds,
    target: String,
    read: impl FnOnce(Reply, &Token) -> Finding + 'static,
) {
    tokio::task::spawn_local(async move {
        let (reply, _) = question::ask(&place, &token, &target).await;
        if let Reply::Unclear(why) = &reply {
            tracing::debug!(token = sender.alias.as_str(), %why, "a question about the token has no answer");
        }
        // Nobody listens at the end of the process.
        let _ = finds.send((sender, read(reply, &token)));
    });
}

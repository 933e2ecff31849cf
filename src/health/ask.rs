//! The questions, each as a task of its own that says what it found.

use tokio::sync::mpsc::UnboundedSender;

use crate::knowledge::{Fact, MOST_LOGINS, Permission};
use crate::login;
use crate::probe::question::{self, Obstacle, Question, Reply, accounts_in, permission_in};
use crate::probe::{Place, identity};
use crate::scope::{Scope, ScopeSet};
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
    /// Whether it is could not be told.
    Unknown,
    /// Who issued it, if that was said.
    Owner(Option<Box<str>>),
    /// What a doubt came to; nothing, when there is no answer.
    Answered(Vec<Fact>),
}

/// Where findings are said.
pub type Finds = UnboundedSender<(Sender, Finding)>;

/// Whether Metrica takes a token.
pub fn whether_valid(place: Place, token: Token, sender: Sender, finds: Finds) {
    find(sender, finds, async move {
        match ask(&place, &token, sender, Question::List).await {
            Reply::Invalid => Finding::Invalid,
            // The token is known, whatever it may: an unknown one is refused before, and has no quota of its own.
            Reply::Yes(_) | Reply::Denied | Reply::Organisation => Finding::Valid,
            Reply::Unclear(Obstacle::Quota(
                ErrorType::QuotaRequestsByUid
                | ErrorType::QuotaParallelRequests
                | ErrorType::QuotaParallelRequestsByUid,
            )) => Finding::Valid,
            Reply::Absent | Reply::Unclear(_) => Finding::Unknown,
        }
    });
}

/// What the owner of a token may do with a counter; `reads`: the token was seen to read.
pub fn permission(place: Place, token: Token, sender: Sender, counter: u64, reads: bool, finds: Finds) {
    find(sender, finds, async move {
        let read: ScopeSet = [Scope::Read].into_iter().collect();
        let mut facts = Vec::new();
        if !reads {
            match ask(&place, &token, sender, Question::List).await {
                Reply::Yes(_) => facts.push(Fact::Proven(read)),
                Reply::Denied => return Finding::Answered(vec![Fact::Lacks(read)]),
                Reply::Invalid | Reply::Organisation | Reply::Absent | Reply::Unclear(_) => {
                    return Finding::Answered(facts);
                }
            }
        }
        let permission = match ask(&place, &token, sender, Question::Counter(counter)).await {
            Reply::Yes(body) => permission_in(&body).and_then(|word| Permission::of(&word)),
            Reply::Denied => Some(Permission::Nothing),
            Reply::Invalid | Reply::Organisation | Reply::Absent | Reply::Unclear(_) => None,
        };
        facts.extend(permission.map(|permission| Fact::Permission(counter, permission)));
        Finding::Answered(facts)
    });
}

/// Whom the owner of a token represents.
pub fn logins(place: Place, token: Token, sender: Sender, finds: Finds) {
    find(sender, finds, async move {
        let reply = ask(&place, &token, sender, Question::Accounts).await;
        let Reply::Yes(body) = reply else { return Finding::Answered(Vec::new()) };
        let Some(accounts) = accounts_in(&body) else { return Finding::Answered(Vec::new()) };
        let is_all = accounts.len() <= MOST_LOGINS;
        let known = accounts.into_iter().filter(|account| login::is_one(account)).take(MOST_LOGINS);
        let facts = known.map(|account| Fact::Represents(account.into()));
        Finding::Answered(facts.chain(is_all.then_some(Fact::AllLogins)).collect())
    });
}

/// Who issued a token; nothing of `secrets` may be in the answer.
pub fn owner(place: Place, path: &str, token: Token, secrets: Vec<Token>, sender: Sender, finds: Finds) {
    let target = Question::Issuer.target(path);
    find(sender, finds, async move {
        let (reply, _) = question::ask(&place, &token, &target).await;
        let secrets: Vec<_> = secrets.iter().map(Token::authorization).collect();
        let Reply::Yes(body) = reply else { return Finding::Owner(None) };
        Finding::Owner(identity::read(&body, &secrets).map(|issuer| issuer.login))
    });
}

async fn ask(place: &Place, token: &Token, sender: Sender, question: Question) -> Reply {
    let (reply, _) = question::ask(place, token, &question.target("")).await;
    if let Reply::Unclear(why) = &reply {
        tracing::debug!(token = sender.alias.as_str(), %why, "a question about the token has no answer");
    }
    reply
}

fn find(sender: Sender, finds: Finds, finding: impl Future<Output = Finding> + 'static) {
    tokio::task::spawn_local(async move {
        let finding = finding.await;
        // Nobody listens at the end of the process.
        let _ = finds.send((sender, finding));
    });
}

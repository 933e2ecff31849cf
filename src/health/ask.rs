//! The questions, each as a task of its own that says what it found. Every request that the gate sends by itself is made here.
//!
//! 1. Of one token, one question is under way at a time ([`super::Health`] holds it); a question is one request, or two where
//!    the first decides whether the second is of use.
//! 2. How often the same is asked, who asks for it bounds: [`super::machine`], [`super::doubts`], `INTRODUCTION`.
//! 3. Nothing of a caller is in one. Each request is counted by its purpose.
//! 4. A question has [`LONGEST`] in all, as others wait behind it: no report is asked for, so nothing takes minutes.
//! 5. Only what is Metrica's own JSON is an answer: a page that something in between answers with is none, whatever its status.

use std::sync::Arc;
use std::time::Duration;

use metrica::error_type::ErrorType;
use metrica::login;
use metrica::observed_rights::{Fact, MOST_LOGINS, Permission};
use metrica::scope::{Scope, ScopeSet};
use tokio::sync::mpsc::UnboundedSender;
use tokio::time::timeout;

use crate::metrics::process::{ProcessMeters, Purpose};
use crate::probe::question::{self, Obstacle, Question, Reply, accounts_in, is_list, permission_in};
use crate::probe::{Place, identity};
use crate::token::{Conclusion, Token};
use crate::worker::Sender;

/// Rule 4.
const LONGEST: Duration = Duration::from_secs(10);

/// What a question found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// Whether Metrica accepts the token.
    Concluded(Conclusion),
    /// Who issued it, if that was said.
    Owner(Option<Box<str>>),
    /// What a doubt came to; nothing, when there is no answer.
    Answered(Vec<Fact>),
}

/// Where findings are said.
pub type Finds = UnboundedSender<(Sender, Finding)>;

/// Who asks, with one token.
#[derive(Clone)]
pub struct Asker {
    /// Who is asked.
    pub place: Place,
    /// With what.
    pub token: Token,
    /// Which token that is.
    pub sender: Sender,
    /// Where it is counted.
    pub meters: Arc<ProcessMeters>,
    /// Where it is said.
    pub finds: Finds,
}

/// Whether Metrica accepts the token.
pub fn whether_valid(asker: Asker) {
    asker.clone().find(async move {
        let reply = asker.ask_once(Question::List, Purpose::TokenProbe).await;
        Finding::Concluded(match reply {
            Reply::Invalid => Conclusion::Rejected,
            // The token is known, whatever it may: an unknown one is refused before, and has no quota of its own.
            Reply::Yes(_) | Reply::Denied | Reply::Organisation => Conclusion::Accepted,
            Reply::Unclear(Obstacle::Quota(
                ErrorType::QuotaRequestsByUid
                | ErrorType::QuotaParallelRequests
                | ErrorType::QuotaParallelRequestsByUid,
            )) => Conclusion::Accepted,
            Reply::Absent | Reply::Unclear(_) => Conclusion::Unknown,
        })
    });
}

/// What the owner of a token may do with a counter; `reads`: the token was seen to read.
pub fn permission(asker: Asker, counter: u64, reads: bool) {
    asker.clone().find(async move {
        let read: ScopeSet = [Scope::Read].into_iter().collect();
        let mut facts = Vec::new();
        if !reads {
            match asker.ask(Question::List).await {
                Reply::Yes(_) => facts.push(Fact::Proven(read)),
                Reply::Denied => return Finding::Answered(vec![Fact::Lacks(read)]),
                Reply::Invalid | Reply::Organisation | Reply::Absent | Reply::Unclear(_) => {
                    return Finding::Answered(facts);
                }
            }
        }
        let permission = match asker.ask(Question::Counter(counter)).await {
            Reply::Yes(body) => permission_in(&body).and_then(|word| Permission::of(&word)),
            Reply::Denied => Some(Permission::Nothing),
            Reply::Invalid | Reply::Organisation | Reply::Absent | Reply::Unclear(_) => None,
        };
        facts.extend(permission.map(|permission| Fact::Permission(counter, permission)));
        Finding::Answered(facts)
    });
}

/// Whom the owner of a token represents.
pub fn logins(asker: Asker) {
    asker.clone().find(async move {
        let reply = asker.ask(Question::Accounts).await;
        let Reply::Yes(body) = reply else { return Finding::Answered(Vec::new()) };
        let Some(accounts) = accounts_in(&body) else { return Finding::Answered(Vec::new()) };
        let is_all = accounts.len() <= MOST_LOGINS;
        let known = accounts.into_iter().filter(|account| login::is_one(account)).take(MOST_LOGINS);
        let facts = known.map(|account| Fact::Represents(account.into()));
        Finding::Answered(facts.chain(is_all.then_some(Fact::AllLogins)).collect())
    });
}

/// Who issued a token; nothing of `secrets` may be in the answer.
pub fn owner(asker: Asker, path: &str, secrets: Vec<Token>) {
    let target = Question::Issuer.target(path);
    asker.clone().find(async move {
        let reply = asker.ask_for(&target, Purpose::Identity).await;
        let secrets: Vec<_> = secrets.iter().map(Token::authorization).collect();
        let Reply::Yes(body) = reply else { return Finding::Owner(None) };
        Finding::Owner(identity::read(&body, &secrets).map(|issuer| issuer.login))
    });
}

impl Asker {
    /// Asks what a refusal leaves open; after a quota's refusal once more.
    async fn ask(&self, question: Question) -> Reply {
        let reply = self.ask_for(&question.target(""), Purpose::FollowUp).await;
        self.heard(question, reply)
    }

    async fn ask_for(&self, target: &str, purpose: Purpose) -> Reply {
        let asked = timeout(LONGEST, question::ask(&self.place, &self.token, target)).await;
        let (reply, requests) = asked.unwrap_or((Reply::Unclear(Obstacle::Timeout), 1));
        self.count(purpose, requests);
        reply
    }

    async fn ask_once(&self, question: Question, purpose: Purpose) -> Reply {
        let target = question.target("");
        let asked = timeout(LONGEST, question::ask_once(&self.place, &self.token, &target)).await;
        self.count(purpose, 1);
        self.heard(question, asked.unwrap_or(Reply::Unclear(Obstacle::Timeout)))
    }

    fn count(&self, purpose: Purpose, requests: usize) {
        self.meters.own_requests(purpose, u64::try_from(requests).unwrap_or(u64::MAX));
    }

    /// Rule 5.
    fn heard(&self, question: Question, reply: Reply) -> Reply {
        let is_foreign = matches!(&reply, Reply::Yes(body) if question == Question::List && !is_list(body));
        let reply = if is_foreign { Reply::Unclear(Obstacle::Unreadable) } else { reply };
        if let Reply::Unclear(why) = &reply {
            tracing::debug!(token = self.sender.alias.as_str(), %why, "a question about the token has no answer");
        }
        reply
    }

    fn find(self, finding: impl Future<Output = Finding> + 'static) {
        tokio::task::spawn_local(async move {
            let finding = finding.await;
            // Nobody listens at the end of the process.
            let _ = self.finds.send((self.sender, finding));
        });
    }
}

//! The questions, each run as a task that reports its finding. All requests that the gate originates are made here.
//!
//! 1. At most one question per token is under way ([`super::Health`] enforces it). A question is one request, plus one or
//!    two more when the first is refused: a refused counter is conclusive only for a token that can read.
//! 2. The requester bounds how often a question repeats: [`super::machine`], [`super::follow_ups`], `INTRODUCTION`.
//! 3. A question contains no caller data except counter numbers and a login that the owner represents. Each request is
//!    counted by its purpose.
//! 4. A request takes at most [`LONGEST`], because others wait behind it. The only report requested is one row of the
//!    documentation's counter.
//! 5. Only JSON of Metrica itself counts as a response; a page of an intermediary does not, whatever its status.
//! 6. A token that was shown a list of counters and is refused one later is no longer accepted: its rights were fixed when
//!    it was issued, and the list needs no grant.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use metrica::cause::Conclusion;
use metrica::error_type::ErrorType;
use metrica::login;
use metrica::observed_rights::{Fact, MOST_LOGINS, Permission};
use metrica::response::{Listed, Shown, accounts_in, counter_in, listed_in};
use metrica::scope::{Scope, ScopeSet};
use strict_http::number;
use tokio::sync::mpsc::UnboundedSender;
use tokio::time::timeout;

use crate::health::question::{self, OPEN_COUNTER, Obstacle, Question, Reply};
use crate::health::{identity, probe::Place};
use crate::metrics::process::{ProcessMeters, Purpose};
use crate::token::Token;
use crate::worker::TokenUse;

/// The maximum duration of a request (rule 4).
const LONGEST: Duration = Duration::from_secs(10);

/// The finding of a question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// Whether Metrica accepts the token, and the facts that the response showed.
    Concluded(Conclusion, Found),
    /// The login of the account that issued the token, if the response contained it.
    Owner(Option<Box<str>>),
    /// The result of a follow-up question; empty when there is no response.
    Answered(Found),
    /// A page of the counters of the account, unless it could not be read; what its refusal shows; and the number of
    /// requests.
    Page(Option<Listed>, Found, usize),
}

/// The result of a follow-up question.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Found {
    /// The learnt facts.
    pub facts: Vec<Fact>,
    /// Whether the list of the owner's own counters was requested.
    pub is_listed: bool,
    /// The number of requests that it took.
    pub requests: usize,
    /// Whether a list was returned.
    reads: bool,
    /// Whether Metrica refused the question as it refuses a token that it no longer accepts.
    pub doubts_token: bool,
}

/// The channel that receives findings.
pub type Finds = UnboundedSender<(TokenUse, Finding)>;

/// The facts known about a token before a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct About {
    /// Whether the token can read; `None` if unknown.
    pub reads: Option<bool>,
    /// Whether the owner of the token can still be learnt.
    pub owner_is_open: bool,
    /// Whether the configured owner is an organisation.
    pub is_for_organisation: bool,
}

/// A token and the means to ask questions with it.
#[derive(Clone)]
pub struct Asker {
    /// The host to ask.
    pub place: Place,
    /// The token to send.
    pub token: Token,
    /// The identity of the token.
    pub token_use: TokenUse,
    /// The facts known about the token.
    pub about: About,
    /// The counters of requests.
    pub meters: Arc<ProcessMeters>,
    /// The channel for the finding.
    pub finds: Finds,
    /// The number of requests sent for this question, which all copies share.
    pub requests: Rc<Cell<usize>>,
}

/// Asks whether Metrica accepts the token.
pub fn whether_valid(asker: Asker) {
    asker.clone().find(async move {
        let reply = asker.ask_once(Question::List, Purpose::TokenProbe).await;
        let mut found = Found::default();
        found.take_list(&reply, asker.about);
        let conclusion = match reply {
            Reply::Invalid => Conclusion::Rejected,
            // Rights are fixed when a token is issued, and the list needs no grant.
            Reply::Denied if found.doubts_token => Conclusion::Rejected,
            // Metrica knows the token, whatever its rights: it refuses an unknown token earlier, and that one has no quota
            // of its own.
            Reply::Yes(_) | Reply::Denied | Reply::Organisation => Conclusion::Accepted,
            Reply::Unclear(Obstacle::Quota(
                ErrorType::QuotaRequestsByUid
                | ErrorType::QuotaParallelRequests
                | ErrorType::QuotaParallelRequestsByUid,
            )) => Conclusion::Accepted,
            Reply::Absent | Reply::Unclear(_) => Conclusion::Unknown,
        };
        Finding::Concluded(conclusion, found)
    });
}

/// Asks what the owner of a token, or a `login` that it represents, may do with counters. With several counters, the listed
/// ones are known at once and the first missing one is asked about by itself. With none, the question is about the login
/// alone.
pub fn permissions(asker: Asker, login: Option<Arc<str>>, counters: Arc<[u64]>) {
    asker.clone().find(async move {
        let mut found = Found::default();
        let login = login.as_deref();
        let counter = match *counters {
            // A token without read access sees no counter.
            _ if asker.about.reads == Some(false) => None,
            [] => None,
            [one] => Some(one),
            ref several => asker.first_unlisted(login, several, &mut found).await.map(|(counter, _)| counter),
        };
        let is_denied = match counter {
            Some(counter) => asker.look_at_counter(login, counter, &mut found).await,
            None => false,
        };
        let is_open = !found.reads && (is_denied || asker.about.reads != Some(true));
        match login {
            _ if found.doubts_token => {}
            Some(login) if is_open || counter.is_none() && !found.reads => {
                asker.look_at_login(login, &mut found).await;
            }
            None if (is_open || asker.about.owner_is_open) && !found.is_listed => asker.look_at_list(&mut found).await,
            Some(_) | None => {}
        }
        if let Some(counter) = counter.filter(|_| is_denied && found.reads) {
            found.facts.push(permission(login, counter, Permission::Nothing));
        }
        Finding::Answered(found)
    });
}

/// Asks which logins the owner of a token represents.
pub fn logins(asker: Asker) {
    asker.clone().find(async move {
        let mut found = Found::default();
        match asker.ask(Question::Accounts, &Question::Accounts.target("")).await {
            Reply::Yes(body) => {
                if let Some(accounts) = accounts_in(&body) {
                    found.facts.push(Fact::Proven(read()));
                    found.facts.extend(represented(&accounts));
                }
            }
            Reply::Denied => asker.look_at_list(&mut found).await,
            Reply::Invalid => found.doubts_token = true,
            Reply::Organisation | Reply::Absent | Reply::Unclear(_) => {}
        }
        Finding::Answered(found)
    });
}

/// The facts of a list of accounts: the complete list of represented logins, or its first [`MOST_LOGINS`].
fn represented(accounts: &[String]) -> Vec<Fact> {
    let logins = accounts.iter().filter(|account| login::is_one(account)).map(|account| account.as_str().into());
    if accounts.len() <= MOST_LOGINS {
        return vec![Fact::Logins(logins.collect())];
    }
    logins.take(MOST_LOGINS).map(Fact::Represents).collect()
}

/// Asks whether a token can read.
pub fn reads(asker: Asker) {
    asker.clone().find(async move {
        let mut found = Found::default();
        asker.look_at_list(&mut found).await;
        Finding::Answered(found)
    });
}

fn named(separator: &str, login: Option<&str>) -> String {
    login.map_or_else(String::new, |login| format!("{separator}ulogin={login}"))
}

fn permission(login: Option<&str>, counter: u64, permission: Permission) -> Fact {
    match login {
        None => Fact::Permission(counter, permission),
        Some(login) => Fact::PermissionOf(login.into(), counter, permission),
    }
}

pub(super) fn read() -> ScopeSet {
    [Scope::Read].into_iter().collect()
}

impl Found {
    /// Records a counter as shown to the owner, or on behalf of a `login`.
    fn take(&mut self, login: Option<&str>, counter: u64, shown: Option<Shown>) {
        let Some(shown) = shown else { return };
        self.facts.extend(Permission::of(&shown.permission).map(|known| permission(login, counter, known)));
        // With a `login`, the owner of the counter is that login, not the token's owner.
        self.facts.extend(shown.owner().filter(|_| login.is_none()).map(|owner| Fact::Owner(owner.into())));
    }

    /// Records the list of the owner's counters, which needs no grant.
    pub(super) fn take_list(&mut self, reply: &Reply, about: About) {
        self.is_listed |= matches!(reply, Reply::Yes(_) | Reply::Denied);
        match reply {
            Reply::Yes(body) => {
                self.reads = true;
                self.facts.push(Fact::Proven(read()));
                let own = listed_in(body).and_then(|listed| listed.counters.into_iter().next());
                own.into_iter().for_each(|own| self.take(None, own.id, Some(own)));
            }
            Reply::Denied if about.reads == Some(true) => self.doubts_token = true,
            Reply::Denied => self.facts.push(Fact::Lacks(read())),
            Reply::Invalid => self.doubts_token = true,
            Reply::Organisation | Reply::Absent | Reply::Unclear(_) => {}
        }
    }
}

/// Asks who issued a token; a response that contains part of any of `secrets` is discarded.
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
    /// Requests the list of counters. If it is refused to a token that should be an organisation's, also requests a report
    /// that everybody may read, which is refused to a personal token.
    async fn look_at_list(&self, found: &mut Found) {
        let reply = self.ask(Question::List, &Question::List.target("")).await;
        found.take_list(&reply, self.about);
        if reply == Reply::Denied && self.about.is_for_organisation && !found.doubts_token {
            let open = Question::Report(OPEN_COUNTER);
            if self.ask(open, &open.target("")).await == Reply::Denied {
                found.facts.push(Fact::Excluded);
            }
        }
    }

    /// Requests a list on behalf of a login. If it is refused and the owner's own list is not, the owner does not represent
    /// the login.
    async fn look_at_login(&self, login: &str, found: &mut Found) {
        let target = format!("/management/v1/counters?per_page=1&ulogin={login}");
        match self.ask(Question::List, &target).await {
            Reply::Yes(_) => {
                found.reads = true;
                found.facts.push(Fact::Proven(read()));
            }
            Reply::Denied => {
                self.look_at_list(found).await;
                if std::mem::take(&mut found.reads) {
                    found.facts.push(Fact::NotRepresented(login.into()));
                }
            }
            Reply::Invalid => found.doubts_token = true,
            Reply::Organisation | Reply::Absent | Reply::Unclear(_) => {}
        }
    }

    /// Requests one counter or, if the response is unclear, a list of it. Returns whether access is denied.
    async fn look_at_counter(&self, login: Option<&str>, counter: u64, found: &mut Found) -> bool {
        let target = Question::Counter(counter).target("") + &named("?", login);
        match self.ask(Question::Counter(counter), &target).await {
            Reply::Yes(body) => found.take(login, counter, counter_in(&body)),
            Reply::Denied => return true,
            // The counter no longer exists.
            Reply::Absent => found.facts.push(permission(login, counter, Permission::Nothing)),
            Reply::Invalid => found.doubts_token = true,
            Reply::Organisation => {}
            Reply::Unclear(_) => {
                if let Some((_, true)) = self.first_unlisted(login, &[counter], found).await {
                    found.facts.push(permission(login, counter, Permission::Nothing));
                }
            }
        }
        false
    }

    /// Requests a list of these counters. Returns the first missing one, and whether the list is complete.
    async fn first_unlisted(&self, login: Option<&str>, counters: &[u64], found: &mut Found) -> Option<(u64, bool)> {
        let numbers: Vec<_> = counters.iter().map(ToString::to_string).collect();
        let target =
            format!("/management/v1/counters?per_page=1000&counter_ids={}", numbers.join(",")) + &named("&", login);
        match self.ask(Question::List, &target).await {
            Reply::Yes(body) => {
                let listed = listed_in(&body)?;
                found.reads = true;
                found.facts.push(Fact::Proven(read()));
                let is_asked = |shown: &Shown| counters.contains(&shown.id);
                let shown: Vec<_> = listed.counters.into_iter().filter(is_asked).collect();
                let missing = counters.iter().copied().find(|counter| shown.iter().all(|shown| shown.id != *counter));
                shown.into_iter().for_each(|shown| found.take(login, shown.id, Some(shown)));
                missing.map(|counter| (counter, listed.is_whole))
            }
            // On behalf of a login, the token need not be the reason of the refusal.
            Reply::Denied if login.is_some() => None,
            reply @ (Reply::Denied | Reply::Invalid | Reply::Organisation | Reply::Absent | Reply::Unclear(_)) => {
                found.take_list(&reply, self.about);
                None
            }
        }
    }

    /// Sends a follow-up request, once more if a quota refuses the first.
    async fn ask(&self, question: Question, target: &str) -> Reply {
        let reply = self.ask_for(target, Purpose::FollowUp).await;
        self.heard(question, reply)
    }

    pub(super) async fn ask_for(&self, target: &str, purpose: Purpose) -> Reply {
        let asked = timeout(LONGEST, question::ask(&self.place, &self.token, target)).await;
        let Ok((reply, requests)) = asked else {
            self.count(purpose, 1);
            return Reply::Unclear(Obstacle::Timeout);
        };
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
        self.requests.set(self.requests.get() + requests);
        self.meters.own_requests(purpose, number::count(requests));
    }

    /// Replaces foreign responses by `Unclear` (rule 5), and logs unclear ones.
    pub(super) fn heard(&self, question: Question, reply: Reply) -> Reply {
        let is_foreign = matches!(&reply, Reply::Yes(body) if question == Question::List && listed_in(body).is_none());
        let reply = if is_foreign { Reply::Unclear(Obstacle::Unreadable) } else { reply };
        if let Reply::Unclear(why) = &reply {
            tracing::debug!(token = self.token_use.alias.as_str(), %why, "a probe of the token got no valid response");
        }
        reply
    }

    pub(super) fn find(self, finding: impl Future<Output = Finding> + 'static) {
        tokio::task::spawn_local(async move {
            let mut finding = finding.await;
            if let Finding::Answered(found) = &mut finding {
                found.requests = self.requests.get();
            }
            // The receiver is gone when the process ends.
            let _ = self.finds.send((self.token_use, finding));
        });
    }
}

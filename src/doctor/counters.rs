//! Examines the access of a token and of its owner to counters (rules 3 to 6 of the doctor).

use metrica::login::is_same;
use metrica::response::{accounts_in, permission_in};
use metrica::scope::Scope;

use super::finding::{AskedThrough, Finding, Level};
use super::{Doctor, ExaminedToken};
use crate::config::TokenSource;
use crate::health::question::{OPEN_COUNTER, Obstacle, Question, Reply};

impl Doctor<'_> {
    /// Examines the counters, the report and the accounts of one token.
    pub(super) async fn look_at_counters(&mut self, examined_tokens: &mut [ExaminedToken<'_>], index: usize) {
        let Some(examined) = examined_tokens.get(index) else { return };
        let source = examined.source;
        let was_known = examined.reads.is_some();
        let is_blocked = examined.is_blocked;
        let asking_token = asking_token(examined_tokens, index);
        let (mut counters, mut all) = self.counters_of(source);
        let is_named = !counters.is_empty();
        if let Some(seeing) =
            asking_token.and_then(|asking_token| examined_tokens.get(asking_token)).filter(|_| !is_named)
        {
            (counters, all) = (seeing.sees.clone(), seeing.sees.len());
            let none = if seeing.reads == Some(true) { Finding::CountersNone } else { Finding::CountersNotAsked };
            let of_list = Finding::CountersSeen { asked: all, of: seeing.sees_in_all };
            if !is_blocked {
                self.report(source, if counters.is_empty() { none } else { of_list });
            }
        } else if !is_named {
            self.report(source, Finding::CountersNotAsked);
        }
        let mut seen = None;
        for (position, counter) in counters.iter().enumerate() {
            let Some(asking_token) = asking_token else {
                self.report_counter(source, *counter, Finding::CounterUnseen);
                continue;
            };
            let Some(seeing) = examined_tokens.get_mut(asking_token).filter(|seeing| !seeing.is_blocked) else {
                self.report(source, Finding::CountersSkipped { skipped: counters.len() - position });
                break;
            };
            let reply = self.permission(seeing, *counter).await;
            let seen_with = AskedThrough((asking_token != index).then_some(seeing.source.alias));
            let mut finding = self.judge(seeing, *counter, reply, seen_with, source).await;
            if let Finding::CounterViewOnly { level, seen } = finding
                && !is_named
            {
                finding = Finding::CounterSeenViewOnly { level, seen };
            }
            if seen.is_none() && is_seen(&finding) {
                seen = Some(*counter);
            }
            self.report_counter(source, *counter, finding);
        }
        if all > counters.len() {
            self.report(source, Finding::CountersCut { asked: counters.len(), of: all });
        }
        let Some(examined) = examined_tokens.get_mut(index).filter(|examined| !examined.is_blocked) else { return };
        if !was_known {
            self.report_reads(examined);
        }
        if examined.reads == Some(true) {
            self.look_at_report(examined, seen).await;
            self.look_at_accounts(examined).await;
        }
    }

    /// Asks for a counter, at most once with each token.
    async fn permission(&mut self, examined: &mut ExaminedToken<'_>, counter: u64) -> Reply {
        let alias = examined.source.alias;
        if let Some(known) = self.replies.get(&(alias, counter)) {
            return known.clone();
        }
        let reply = self.ask(alias, &examined.token, Question::Counter(counter)).await;
        examined.is_blocked |= reply.clone().unexpected().stays();
        self.replies.insert((alias, counter), reply.clone());
        reply
    }

    /// Returns the finding for the token of `source` from a reply about a counter that `examined` received.
    async fn judge(
        &mut self,
        examined: &mut ExaminedToken<'_>,
        counter: u64,
        reply: Reply,
        seen: AskedThrough,
        source: &TokenSource,
    ) -> Finding {
        match reply {
            Reply::Yes(ref body) => match permission_in(body).map(|word| Level::of(&word)) {
                Some(level) => {
                    if level != Level::Public {
                        examined.reads = Some(true);
                    }
                    match (level.writes(), self.callers_write(source, counter)) {
                        (true, _) => Finding::Counter { level, seen },
                        (false, true) => Finding::CounterViewOnly { level, seen },
                        (false, false) => Finding::CounterLooks { level, seen },
                    }
                }
                None => Finding::CounterUnknown { why: Obstacle::Unreadable },
            },
            Reply::Denied => self.scope_or_grant(examined, seen).await,
            Reply::Organisation => Finding::CounterOfOrganisation,
            Reply::Absent => Finding::CounterAbsent,
            Reply::Invalid | Reply::Unclear(_) => Finding::CounterUnknown { why: reply.unexpected() },
        }
    }

    /// Determines whether the scope or the grant is missing for a refused counter (rule 3).
    async fn scope_or_grant(&mut self, examined: &mut ExaminedToken<'_>, seen: AskedThrough) -> Finding {
        if examined.reads == Some(true) {
            return Finding::CounterNotGranted { seen };
        }
        if examined.reads.is_none() && !examined.asked_open {
            examined.asked_open = true;
            let open = self.ask(examined.source.alias, &examined.token, Question::Report(OPEN_COUNTER)).await;
            examined.reads = (open == Reply::Denied).then_some(false);
        }
        if examined.reads == Some(false) { Finding::CounterUnseen } else { Finding::CounterOpen }
    }

    /// Whether a caller may change a counter with the token of `source`.
    fn callers_write(&self, source: &TokenSource, counter: u64) -> bool {
        self.config.callers.iter().filter(|caller| caller.tokens.contains(&source.alias)).any(|caller| {
            let is_its = caller.rules.counters.as_ref().is_none_or(|counters| counters.contains(&counter));
            let mut writes = caller.scopes.with_implied().iter().filter(|scope| *scope != Scope::Read);
            is_its && writes.any(|scope| source.scopes.covers([scope].into_iter().collect()))
        })
    }

    async fn look_at_report(&mut self, examined: &mut ExaminedToken<'_>, counter: Option<u64>) {
        let Some(counter) = counter else { return };
        let reply = self.ask(examined.source.alias, &examined.token, Question::Report(counter)).await;
        let finding = match reply {
            Reply::Yes(_) => Finding::Report,
            Reply::Denied | Reply::Organisation => Finding::ReportRefused,
            Reply::Invalid | Reply::Absent | Reply::Unclear(_) => Finding::ReportUnknown { why: reply.unexpected() },
        };
        if let Finding::ReportUnknown { why } = &finding {
            examined.is_blocked |= why.stays();
        }
        self.report_counter(examined.source, counter, finding);
    }

    /// Compares the logins that callers may name with the accounts that the owner represents.
    async fn look_at_accounts(&mut self, examined: &ExaminedToken<'_>) {
        let users = self.config.callers.iter().filter(|caller| caller.tokens.contains(&examined.source.alias));
        let mut logins: Vec<Box<str>> =
            users.filter_map(|caller| caller.rules.logins.as_deref()).flatten().cloned().collect();
        logins.sort_unstable();
        logins.dedup();
        if logins.is_empty() || examined.is_blocked {
            return;
        }
        let reply = self.ask(examined.source.alias, &examined.token, Question::Accounts).await;
        if let Reply::Yes(body) = &reply
            && let Some(accounts) = accounts_in(body)
        {
            for login in logins {
                let is_there = accounts.iter().any(|account| is_same(account, &login));
                let finding = if is_there { Finding::Represents { login } } else { Finding::NotRepresented { login } };
                self.report(examined.source, finding);
            }
            return;
        }
        let why = reply.unexpected();
        self.report(examined.source, Finding::AccountsUnknown { why });
    }
}

const fn is_seen(finding: &Finding) -> bool {
    matches!(
        finding,
        Finding::Counter { .. }
            | Finding::CounterLooks { .. }
            | Finding::CounterViewOnly { .. }
            | Finding::CounterSeenViewOnly { .. }
    )
}

/// Returns the index of the token with which the counters of token `index` are asked for (rule 4).
fn asking_token(examined_tokens: &[ExaminedToken<'_>], index: usize) -> Option<usize> {
    let examined = examined_tokens.get(index)?;
    if examined.reads != Some(false) {
        return Some(index);
    }
    let is_one = |other: &ExaminedToken<'_>| other.reads == Some(true) && is_of_one_account(examined, other);
    examined_tokens.iter().position(is_one)
}

fn is_of_one_account(one: &ExaminedToken<'_>, other: &ExaminedToken<'_>) -> bool {
    // The issuer that Yandex ID reports takes precedence over the configured owner.
    let login = |examined: &ExaminedToken<'_>| {
        let seen = examined.issuer.as_ref().map(|issuer| &issuer.login);
        seen.or(examined.source.origin.owner.as_ref()).cloned()
    };
    login(one).zip(login(other)).is_some_and(|(one, other)| is_same(&one, &other))
}

//! Examines the access of a token and of its owner to counters (rules 3 to 6 of the doctor).

use metrica::login::is_same;
use metrica::response::{accounts_in, permission_in};
use metrica::scope::Scope;

use super::finding::{Finding, Level, SeenWith};
use super::{Doctor, Patient};
use crate::config::TokenSource;
use crate::health::question::{OPEN_COUNTER, Obstacle, Question, Reply};

impl Doctor<'_> {
    /// Examines the counters, the report and the accounts of one token.
    pub(super) async fn look_at_counters(&mut self, patients: &mut [Patient<'_>], index: usize) {
        let Some(patient) = patients.get(index) else { return };
        let source = patient.source;
        let was_known = patient.reads.is_some();
        let is_blocked = patient.is_blocked;
        let eyes = eyes(patients, index);
        let (mut counters, mut all) = self.counters_of(source);
        let is_named = !counters.is_empty();
        if let Some(seeing) = eyes.and_then(|eyes| patients.get(eyes)).filter(|_| !is_named) {
            (counters, all) = (seeing.sees.clone(), seeing.sees.len());
            let none = if seeing.reads == Some(true) { Finding::CountersNone } else { Finding::CountersNotAsked };
            let of_list = Finding::CountersSeen { asked: all, of: seeing.sees_in_all };
            if !is_blocked {
                self.say(source, if counters.is_empty() { none } else { of_list });
            }
        } else if !is_named {
            self.say(source, Finding::CountersNotAsked);
        }
        let mut seen = None;
        for (position, counter) in counters.iter().enumerate() {
            let Some(eyes) = eyes else {
                self.say_of(source, *counter, Finding::CounterUnseen);
                continue;
            };
            let Some(seeing) = patients.get_mut(eyes).filter(|seeing| !seeing.is_blocked) else {
                self.say(source, Finding::CountersSkipped { skipped: counters.len() - position });
                break;
            };
            let reply = self.permission(seeing, *counter).await;
            let seen_with = SeenWith((eyes != index).then_some(seeing.source.alias));
            let mut finding = self.judge(seeing, *counter, reply, seen_with, source).await;
            if let Finding::CounterViewOnly { level, seen } = finding
                && !is_named
            {
                finding = Finding::CounterSeenViewOnly { level, seen };
            }
            if seen.is_none() && is_seen(&finding) {
                seen = Some(*counter);
            }
            self.say_of(source, *counter, finding);
        }
        if all > counters.len() {
            self.say(source, Finding::CountersCut { asked: counters.len(), of: all });
        }
        let Some(patient) = patients.get_mut(index).filter(|patient| !patient.is_blocked) else { return };
        if !was_known {
            self.say_reads(patient);
        }
        if patient.reads == Some(true) {
            self.look_at_report(patient, seen).await;
            self.look_at_accounts(patient).await;
        }
    }

    /// Asks for a counter, at most once with each token.
    async fn permission(&mut self, patient: &mut Patient<'_>, counter: u64) -> Reply {
        let alias = patient.source.alias;
        if let Some(known) = self.replies.get(&(alias, counter)) {
            return known.clone();
        }
        let reply = self.ask(alias, &patient.token, Question::Counter(counter)).await;
        patient.is_blocked |= reply.clone().unexpected().stays();
        self.replies.insert((alias, counter), reply.clone());
        reply
    }

    /// Returns the finding for the token of `source` from a reply about a counter that `patient` received.
    async fn judge(
        &mut self,
        patient: &mut Patient<'_>,
        counter: u64,
        reply: Reply,
        seen: SeenWith,
        source: &TokenSource,
    ) -> Finding {
        match reply {
            Reply::Yes(ref body) => match permission_in(body).map(|word| Level::of(&word)) {
                Some(level) => {
                    if level != Level::Public {
                        patient.reads = Some(true);
                    }
                    match (level.writes(), self.callers_write(source, counter)) {
                        (true, _) => Finding::Counter { level, seen },
                        (false, true) => Finding::CounterViewOnly { level, seen },
                        (false, false) => Finding::CounterLooks { level, seen },
                    }
                }
                None => Finding::CounterUnknown { why: Obstacle::Unreadable },
            },
            Reply::Denied => self.scope_or_grant(patient, seen).await,
            Reply::Organisation => Finding::CounterOfOrganisation,
            Reply::Absent => Finding::CounterAbsent,
            Reply::Invalid | Reply::Unclear(_) => Finding::CounterUnknown { why: reply.unexpected() },
        }
    }

    /// Determines whether the scope or the grant is missing for a refused counter (rule 3).
    async fn scope_or_grant(&mut self, patient: &mut Patient<'_>, seen: SeenWith) -> Finding {
        if patient.reads == Some(true) {
            return Finding::CounterNotGranted { seen };
        }
        if patient.reads.is_none() && !patient.asked_open {
            patient.asked_open = true;
            let open = self.ask(patient.source.alias, &patient.token, Question::Report(OPEN_COUNTER)).await;
            patient.reads = (open == Reply::Denied).then_some(false);
        }
        if patient.reads == Some(false) { Finding::CounterUnseen } else { Finding::CounterOpen }
    }

    /// Whether a caller may change a counter with the token of `source`.
    fn callers_write(&self, source: &TokenSource, counter: u64) -> bool {
        self.config.callers.iter().filter(|caller| caller.tokens.contains(&source.alias)).any(|caller| {
            let is_its = caller.rules.counters.as_ref().is_none_or(|counters| counters.contains(&counter));
            let mut writes = caller.scopes.with_implied().iter().filter(|scope| *scope != Scope::Read);
            is_its && writes.any(|scope| source.scopes.covers([scope].into_iter().collect()))
        })
    }

    async fn look_at_report(&mut self, patient: &mut Patient<'_>, counter: Option<u64>) {
        let Some(counter) = counter else { return };
        let reply = self.ask(patient.source.alias, &patient.token, Question::Report(counter)).await;
        let finding = match reply {
            Reply::Yes(_) => Finding::Report,
            Reply::Denied | Reply::Organisation => Finding::ReportRefused,
            Reply::Invalid | Reply::Absent | Reply::Unclear(_) => Finding::ReportUnknown { why: reply.unexpected() },
        };
        if let Finding::ReportUnknown { why } = &finding {
            patient.is_blocked |= why.stays();
        }
        self.say_of(patient.source, counter, finding);
    }

    /// Compares the logins that callers may name with the accounts that the owner represents.
    async fn look_at_accounts(&mut self, patient: &Patient<'_>) {
        let users = self.config.callers.iter().filter(|caller| caller.tokens.contains(&patient.source.alias));
        let mut logins: Vec<Box<str>> =
            users.filter_map(|caller| caller.rules.logins.as_deref()).flatten().cloned().collect();
        logins.sort_unstable();
        logins.dedup();
        if logins.is_empty() || patient.is_blocked {
            return;
        }
        let reply = self.ask(patient.source.alias, &patient.token, Question::Accounts).await;
        if let Reply::Yes(body) = &reply
            && let Some(accounts) = accounts_in(body)
        {
            for login in logins {
                let is_there = accounts.iter().any(|account| is_same(account, &login));
                let finding = if is_there { Finding::Represents { login } } else { Finding::NotRepresented { login } };
                self.say(patient.source, finding);
            }
            return;
        }
        let why = reply.unexpected();
        self.say(patient.source, Finding::AccountsUnknown { why });
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
fn eyes(patients: &[Patient<'_>], index: usize) -> Option<usize> {
    let patient = patients.get(index)?;
    if patient.reads != Some(false) {
        return Some(index);
    }
    let is_one = |other: &Patient<'_>| other.reads == Some(true) && is_of_one_account(patient, other);
    patients.iter().position(is_one)
}

fn is_of_one_account(one: &Patient<'_>, other: &Patient<'_>) -> bool {
    // The issuer that Yandex ID reports takes precedence over the configured owner.
    let login = |patient: &Patient<'_>| {
        let seen = patient.issuer.as_ref().map(|issuer| &issuer.login);
        seen.or(patient.source.origin.owner.as_ref()).cloned()
    };
    login(one).zip(login(other)).is_some_and(|(one, other)| is_same(&one, &other))
}

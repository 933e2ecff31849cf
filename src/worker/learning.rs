//! Learns from responses, reports to the other workers, and diagnoses refusals.

use std::cell::{Cell, RefCell};
use std::cmp::Ordering;
use std::sync::Arc;
use std::time::Duration;

use metrica::cause::Conclusion;
use metrica::cause::{Case, Cause, Demands, Diagnosis};
use metrica::counter_list::CounterList;
use metrica::error_type::ErrorType;
use metrica::login;
use metrica::observed_rights::{Fact, Knowledge, Permission};
use metrica::operation::{OperationId, Reach, Verb};
use metrica::scope::ScopeSet;
use metrica::subject::{Counters, Subject};
use rustc_hash::FxHashMap;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::accounts::access;
use super::{Slot, TokenUse};
use crate::policy::names::TokenAlias;

/// A report of a worker to the process.
#[derive(Debug)]
pub enum Report {
    /// The worker learnt a fact about a token.
    Learnt(TokenUse, Fact),
    /// A response reads as if Metrica rejected the token; its recipient awaits the conclusion.
    Refused(TokenUse, oneshot::Sender<Conclusion>),
    /// A response proves that Metrica accepts the token: reported at most once per `TELL`.
    Accepted(TokenUse),
    /// Metrica fulfilled a request with the token, which proves nothing if the data may be public: reported at most once
    /// per `TELL`.
    Fulfilled(TokenUse),
    /// Metrica denied an operation that succeeded before; the recipient of the response awaits whether Metrica still
    /// accepts the token.
    Doubted(TokenUse, oneshot::Sender<Conclusion>),
    /// Metrica denied access, and a question could tell the reason.
    Denied(TokenUse, Suspicion),
    /// A caller changed who has access to counters.
    AccessChanged(TokenUse),
    /// A denial contradicts what was known of the owner's access to a counter.
    Contradicted(TokenUse),
    /// A response showed a caller the owner's permission on a counter that the owner is known to have no edit access to:
    /// reported at most once per `TELL`.
    Shown(TokenUse, u64),
}

impl Report {
    /// The token of the report.
    #[must_use]
    pub const fn token_use(&self) -> TokenUse {
        match self {
            Self::Learnt(token_use, _)
            | Self::Refused(token_use, _)
            | Self::Doubted(token_use, _)
            | Self::Accepted(token_use)
            | Self::Fulfilled(token_use)
            | Self::AccessChanged(token_use)
            | Self::Contradicted(token_use)
            | Self::Denied(token_use, _)
            | Self::Shown(token_use, _) => *token_use,
        }
    }
}

/// The minimum time between two reports of a worker that a token is accepted.
pub const TELL: Duration = Duration::from_secs(1);

/// The maximum number of counters in a question, which is the maximum of a report.
const MOST_ASKED: usize = 500;

/// The subject of a follow-up question.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Suspicion {
    /// The permissions of the owner, or of a login that it represents, on these counters; without counters, whether the
    /// owner represents the login.
    Counters(Option<Arc<str>>, Arc<[u64]>),
    /// The logins that the owner represents.
    Logins,
    /// Whether the token can read.
    Reads,
}

/// A refusal by Metrica, as far as the response shows it.
#[derive(Debug, Clone, Copy)]
pub struct Refused<'a> {
    /// The token of the request.
    pub token_use: TokenUse,
    /// The status.
    pub status: u16,
    /// The error type in the body.
    pub error_type: ErrorType,
    /// The method of the request.
    pub verb: Option<Verb>,
    /// The operation of the request.
    pub operation: OperationId,
    /// The scopes that allow the operation; any one of them is enough.
    pub needs: ScopeSet,
    /// The data that the operation can reach.
    pub reach: Reach,
    /// The counters and the login of the request.
    pub subject: &'a Subject,
}

/// The reason of a refusal and, if it makes the token suspect, the later conclusion about the token.
pub type Diagnosed = (Diagnosis, Option<oneshot::Receiver<Conclusion>>);

/// The facts that one worker knows about one token.
#[derive(Default)]
struct WorkerFacts {
    knowledge: Knowledge,
    /// When the worker last reported that Metrica accepts the token.
    told: Option<Instant>,
    /// When the worker last reported that Metrica fulfilled a request.
    fulfilled: Option<Instant>,
    /// When the worker last reported a shown counter.
    shown: Option<Instant>,
    /// When the worker last reported counters of several accounts.
    split: Option<Instant>,
}

/// The facts that one worker knows about all tokens.
pub struct Learning {
    known: RefCell<FxHashMap<TokenAlias, (u64, WorkerFacts)>>,
    reports: mpsc::UnboundedSender<Report>,
    /// The number of changes of the facts.
    revision: Cell<u64>,
}

/// Whether a report that is sent at most once per [`TELL`] can be sent at `now`.
fn is_time(last: Option<Instant>, now: Instant) -> bool {
    last.is_none_or(|last| now >= last + TELL)
}

impl Learning {
    /// Knows no facts, and sends to `reports`.
    #[must_use]
    pub fn new(reports: mpsc::UnboundedSender<Report>) -> Self {
        Self { known: RefCell::default(), reports, revision: Cell::default() }
    }

    /// A number that changes with the facts.
    #[must_use]
    pub const fn revision(&self) -> u64 {
        self.revision.get()
    }

    /// Records whether facts have changed.
    fn changed(&self, is_changed: bool) -> bool {
        self.revision.update(|revision| revision + u64::from(is_changed));
        is_changed
    }

    /// Calls `use_it` with the facts about a token, which are empty for a token that was replaced since.
    fn with<T>(&self, token_use: TokenUse, use_it: impl FnOnce(&mut WorkerFacts) -> T) -> T {
        let mut known = self.known.borrow_mut();
        let (epoch, known) = known.entry(token_use.alias).or_insert_with(|| (token_use.epoch, WorkerFacts::default()));
        match token_use.epoch.cmp(epoch) {
            Ordering::Less => use_it(&mut WorkerFacts::default()),
            Ordering::Equal => use_it(known),
            Ordering::Greater => {
                (*epoch, *known) = (token_use.epoch, WorkerFacts::default());
                use_it(known)
            }
        }
    }

    /// Calls `then` with the facts about a token.
    pub fn knowledge<T>(&self, token_use: TokenUse, then: impl FnOnce(&Knowledge) -> T) -> T {
        self.with(token_use, |known| then(&known.knowledge))
    }

    fn send_report(&self, report: Report) {
        // The receiver is gone when the process ends.
        let _ = self.reports.send(report);
    }

    /// Records facts that another worker or a question learnt.
    pub fn take(&self, token_use: TokenUse, facts: &[Fact]) {
        let news = |known: &mut WorkerFacts| facts.iter().filter(|fact| known.knowledge.learn(fact)).count();
        self.changed(self.with(token_use, news) > 0);
    }

    /// For each token, whether it is known to belong to another account than configured.
    pub fn other_owners(&self, slots: &[Slot]) -> Vec<(TokenAlias, bool)> {
        let known = self.known.borrow();
        let is_of_another = |slot: &Slot| {
            let known = known.get(&slot.alias).filter(|(epoch, _)| *epoch == slot.epoch);
            let seen = known.and_then(|(_, known)| known.knowledge.owner());
            slot.owner.as_deref().zip(seen).is_some_and(|(configured, seen)| !login::is_same(configured, seen))
        };
        slots.iter().map(|slot| (slot.alias, is_of_another(slot))).collect()
    }

    /// Records that Metrica fulfilled a request at `now`.
    pub fn succeeded(&self, token_use: TokenUse, needs: ScopeSet, reach: Reach, subject: &Subject, now: Instant) {
        let (news, tells, counts, shown) = self.with(token_use, |known| {
            let news = known.knowledge.learn_from_success(needs, reach, subject);
            let tells = is_time(known.told, now) && known.knowledge.is_proof_of_the_token(needs, reach, subject);
            if tells {
                known.told = Some(now);
            }
            let counts = is_time(known.fulfilled, now);
            if counts {
                known.fulfilled = Some(now);
            }
            let shown = known.knowledge.restricted(reach, subject).filter(|_| is_time(known.shown, now));
            if shown.is_some() {
                known.shown = Some(now);
            }
            (news, tells, counts, shown)
        });
        self.changed(!news.is_empty());
        for fact in news {
            self.send_report(Report::Learnt(token_use, fact));
        }
        if tells {
            self.send_report(Report::Accepted(token_use));
        }
        if counts {
            self.send_report(Report::Fulfilled(token_use));
        }
        if let Some(counter) = shown {
            self.send_report(Report::Shown(token_use, counter));
        }
    }

    /// Records that access to counters changed.
    pub fn access_changed(&self, token_use: TokenUse) {
        self.send_report(Report::AccessChanged(token_use));
    }

    /// Records a counter that a response shows to the owner of a token.
    pub fn counter_was_shown(&self, token_use: TokenUse, counter: u64, permission: Permission) {
        let fact = Fact::Permission(counter, permission);
        if self.changed(self.with(token_use, |known| known.knowledge.learn(&fact))) {
            self.send_report(Report::Learnt(token_use, fact));
        }
    }

    /// Records that a request was refused because the owner of a token is known to lack these counters, among others.
    pub fn split(&self, token_use: TokenUse, counters: &[u64], now: Instant) {
        let is_due = self.with(token_use, |known| {
            let is_due = is_time(known.split, now);
            known.split = known.split.filter(|_| !is_due).or(Some(now));
            is_due
        });
        if is_due {
            let counters = counters.iter().take(MOST_ASKED).copied().collect();
            self.send_report(Report::Denied(token_use, Suspicion::Counters(None, counters)));
        }
    }

    /// The number of counters on which a permission of each token's owner is known.
    pub fn known_counters(&self, slots: &[Slot]) -> Vec<(TokenAlias, usize)> {
        let learnt = |slot: &Slot| self.knowledge(slot.token_use(), Knowledge::known_counters);
        let listed = |slot: &Slot| slot.counters.listed().map_or(0, CounterList::len);
        slots.iter().map(|slot| (slot.alias, learnt(slot).max(listed(slot)))).collect()
    }

    /// Whether the owner of a token is unknown.
    pub fn lacks_the_owner(&self, token_use: TokenUse) -> bool {
        self.with(token_use, |known| known.knowledge.owner().is_none())
    }

    /// Reports that a response showed the owner of a token; the process decides whether to believe it.
    pub fn owner_was_shown(&self, token_use: TokenUse, login: Box<str>) {
        self.send_report(Report::Learnt(token_use, Fact::Owner(login)));
    }

    /// Diagnoses a refusal. If it makes the token suspect, the conclusion follows on the channel.
    pub fn refused(&self, slots: &[Slot], refused: &Refused<'_>) -> Diagnosed {
        let Refused { token_use, status, error_type, operation, reach, subject, .. } = *refused;
        let slot = slots.iter().find(|slot| slot.alias == token_use.alias);
        let diagnosis = self.with(token_use, |known| {
            Case {
                status,
                error_type,
                is_silent: refused.verb == Some(Verb::Head),
                needs: refused.needs,
                reach,
                demands: Demands::of(operation),
                subject,
                well_formed: slot.and_then(|slot| slot.token.as_ref()).is_none_or(|token| !token.is_short()),
                expected_owner: slot.and_then(|slot| slot.owner.as_deref()),
                knowledge: &known.knowledge,
            }
            .diagnose()
        });
        let diagnosis = slot.map_or(diagnosis, |slot| diagnosis.with_rights(refused.needs, slot.scopes));
        let is_denied = error_type == ErrorType::AccessDenied;
        let doubts_token = is_denied && diagnosis.doubts_token();
        let conclusion = (diagnosis.reads_as_invalid() || doubts_token).then(|| {
            let (concluded, awaited) = oneshot::channel();
            let report = if doubts_token { Report::Doubted } else { Report::Refused };
            self.send_report(report(token_use, concluded));
            awaited
        });
        // A response to a HEAD has no body that could contain a type.
        let is_denied =
            is_denied || status == 403 && error_type == ErrorType::Other && refused.verb == Some(Verb::Head);
        if is_denied || error_type == ErrorType::CounterInConnect {
            self.contradict(refused, reach, slot);
        }
        if is_denied {
            self.denied(refused, reach, diagnosis.cause);
        }
        (diagnosis, conclusion)
    }

    /// Records that a denial contradicts what is known of its counter, whatever the cause is taken for: with a proven scope
    /// and a known access, a counter that moved looks like a request that is refused.
    fn contradict(&self, refused: &Refused<'_>, reach: Reach, slot: Option<&Slot>) {
        let Refused { token_use, subject, needs, operation, .. } = *refused;
        let is_of_counter = matches!(reach, Reach::Counter(_) | Reach::Reports) && subject.login.is_none();
        let (true, Counters::One(counter)) = (is_of_counter, &subject.counters) else { return };
        let needed = Demands::of(operation).access(needs);
        let is_contradicted = self.with(token_use, |WorkerFacts { knowledge, .. }| {
            let known = match slot {
                Some(slot) => access(slot, knowledge, *counter, needed),
                None => knowledge.access(*counter, needed),
            };
            known == Some(true) && knowledge.contradict(*counter, needed)
        });
        if self.changed(is_contradicted) {
            self.send_report(Report::Contradicted(token_use));
        }
    }

    /// Learns from a denial of access, and reports the question that could tell its reason.
    fn denied(&self, refused: &Refused<'_>, reach: Reach, cause: Cause) {
        let Refused { token_use, subject, needs, .. } = *refused;
        let denied = |suspicion| self.send_report(Report::Denied(token_use, suspicion));
        if let (Cause::ScopeMissing, None, Reach::Counters) = (cause, &subject.login, reach) {
            let lacks = Fact::Lacks(needs);
            if self.changed(self.with(token_use, |known| known.knowledge.learn(&lacks))) {
                self.send_report(Report::Learnt(token_use, lacks));
            }
            return;
        }
        let spelled = |login: &str| self.with(token_use, |known| known.knowledge.represented(login).map(Arc::from));
        let represented = subject.login.as_deref().map(spelled);
        if represented.is_some() {
            denied(Suspicion::Logins);
        }
        let is_of_counters = matches!(reach, Reach::Counter(_) | Reach::Reports) && !subject.misnamed;
        let counters = if is_of_counters { subject.counters.as_slice() } else { &[] };
        match represented {
            Some(None) => {}
            None if counters.is_empty() => {
                if cause == Cause::Ambiguous {
                    denied(Suspicion::Reads);
                }
            }
            login => {
                let counters = counters.iter().take(MOST_ASKED).copied().collect();
                denied(Suspicion::Counters(login.flatten(), counters));
            }
        }
    }
}

#[cfg(test)]
mod tests;

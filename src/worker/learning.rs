//! What a worker learns from answers, what it tells the others, and what it makes of a refusal.

use std::cell::RefCell;
use std::cmp::Ordering;
use std::sync::Arc;
use std::time::Duration;

use metrica::cause::Conclusion;
use metrica::cause::{Case, Cause, Demands, Diagnosis};
use metrica::error_type::ErrorType;
use metrica::login;
use metrica::observed_rights::{Fact, Knowledge};
use metrica::operation::{OperationId, Reach, Verb};
use metrica::scope::ScopeSet;
use metrica::subject::Subject;
use rustc_hash::FxHashMap;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::{Generation, Sender, Slot};
use crate::names::TokenAlias;

/// What a worker tells the process.
#[derive(Debug)]
pub enum Report {
    /// It learnt something of a token.
    Learnt(Sender, Fact),
    /// An answer reads as if Metrica rejected the token; who got it wants to know what is concluded.
    Refused(Sender, oneshot::Sender<Conclusion>),
    /// An answer proves that Metrica accepts the token: told at most once in `TELL`.
    Accepted(Sender),
    /// Metrica denied what the token did before; who got the answer wants to know whether Metrica still accepts the token.
    Doubted(Sender, oneshot::Sender<Conclusion>),
    /// Metrica denied access, and a question could tell why.
    Denied(Sender, Doubt),
    /// An answer went to a caller that shows what the owner may do with a counter, of which it is known that the owner may not
    /// change it: told at most once in `TELL`.
    Shown(Sender, u64),
}

impl Report {
    /// Which token it is about.
    #[must_use]
    pub const fn sender(&self) -> Sender {
        match self {
            Self::Learnt(sender, _)
            | Self::Refused(sender, _)
            | Self::Doubted(sender, _)
            | Self::Accepted(sender)
            | Self::Denied(sender, _)
            | Self::Shown(sender, _) => *sender,
        }
    }
}

/// Between two reports of a worker that a token is accepted.
pub const TELL: Duration = Duration::from_secs(1);

/// A question is about so many counters at most: a report has no more.
const MOST_ASKED: usize = 500;

/// What a question could be about.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Doubt {
    /// What the owner may do with these counters, or a login that it represents; without counters, whether it represents it.
    Counters(Option<Arc<str>>, Arc<[u64]>),
    /// Whom the owner represents.
    Logins,
    /// Whether the token reads.
    Reads,
}

/// A refusal of Metrica, as far as the answer tells.
#[derive(Debug, Clone, Copy)]
pub struct Refused<'a> {
    /// With which token it was asked for.
    pub sender: Sender,
    /// The status.
    pub status: u16,
    /// What the body says.
    pub error_type: ErrorType,
    /// How it was asked for.
    pub verb: Option<Verb>,
    /// What for.
    pub operation: OperationId,
    /// Any one of these was needed.
    pub needs: ScopeSet,
    /// Whose data the operation can reach.
    pub reach: Reach,
    /// On whose data.
    pub subject: &'a Subject,
}

/// Why Metrica refused, and what is concluded about the token later, where it is in doubt.
pub type Diagnosed = (Diagnosis, Option<oneshot::Receiver<Conclusion>>);

/// What one worker knows of one token.
#[derive(Default)]
struct Known {
    knowledge: Knowledge,
    /// When it last told that Metrica accepts it.
    told: Option<Instant>,
    /// When it last told of a counter that was shown.
    shown: Option<Instant>,
}

/// What one worker knows of tokens.
pub struct Learning {
    known: RefCell<FxHashMap<TokenAlias, (u64, Known)>>,
    reports: mpsc::UnboundedSender<Report>,
}

impl Learning {
    /// One that tells `reports`.
    #[must_use]
    pub fn new(reports: mpsc::UnboundedSender<Report>) -> Self {
        Self { known: RefCell::default(), reports }
    }

    /// Uses what is known of a token; of one that was in the file before the one that is known, nothing is.
    fn with<T>(&self, sender: Sender, use_it: impl FnOnce(&mut Known) -> T) -> T {
        let mut known = self.known.borrow_mut();
        let (epoch, known) = known.entry(sender.alias).or_insert_with(|| (sender.epoch, Known::default()));
        match sender.epoch.cmp(epoch) {
            Ordering::Less => use_it(&mut Known::default()),
            Ordering::Equal => use_it(known),
            Ordering::Greater => {
                (*epoch, *known) = (sender.epoch, Known::default());
                use_it(known)
            }
        }
    }

    fn tell(&self, report: Report) {
        // Nobody listens at the end of the process.
        let _ = self.reports.send(report);
    }

    /// Another worker, or a question, learnt these.
    pub fn take(&self, sender: Sender, facts: &[Fact]) {
        self.with(sender, |known| facts.iter().for_each(|fact| _ = known.knowledge.learn(fact)));
    }

    /// Of each token, whether it is known to be of another account than is configured.
    pub fn other_owners(&self, slots: &[Slot]) -> Vec<(TokenAlias, bool)> {
        let known = self.known.borrow();
        let is_of_another = |slot: &Slot| {
            let known = known.get(&slot.alias).filter(|(epoch, _)| *epoch == slot.epoch);
            let seen = known.and_then(|(_, known)| known.knowledge.owner());
            slot.owner.as_deref().zip(seen).is_some_and(|(configured, seen)| !login::is_same(configured, seen))
        };
        slots.iter().map(|slot| (slot.alias, is_of_another(slot))).collect()
    }

    /// Metrica did what was asked, at this time.
    pub fn succeeded(&self, sender: Sender, needs: ScopeSet, reach: Reach, subject: &Subject, now: Instant) {
        let is_time = |last: Option<Instant>| last.is_none_or(|last| now >= last + TELL);
        let (news, tells, shown) = self.with(sender, |known| {
            let news = known.knowledge.learn_from_success(needs, reach, subject);
            let tells = is_time(known.told) && known.knowledge.is_proof_of_the_token(needs, reach, subject);
            if tells {
                known.told = Some(now);
            }
            let shown = known.knowledge.restricted(reach, subject).filter(|_| is_time(known.shown));
            if shown.is_some() {
                known.shown = Some(now);
            }
            (news, tells, shown)
        });
        for fact in news {
            self.tell(Report::Learnt(sender, fact));
        }
        if tells {
            self.tell(Report::Accepted(sender));
        }
        if let Some(counter) = shown {
            self.tell(Report::Shown(sender, counter));
        }
    }

    /// Whether it is not known whose a token is.
    pub fn lacks_the_owner(&self, sender: Sender) -> bool {
        self.with(sender, |known| known.knowledge.owner().is_none())
    }

    /// An answer showed whose a token is: it is believed when the process says so.
    pub fn owner_was_shown(&self, sender: Sender, login: Box<str>) {
        self.tell(Report::Learnt(sender, Fact::Owner(login)));
    }

    /// Metrica refused; why. Where the token is in doubt, what is concluded about it comes later.
    pub fn refused(&self, generation: &Generation, refused: &Refused<'_>) -> Diagnosed {
        let Refused { sender, status, error_type, operation, reach, subject, .. } = *refused;
        let slot = generation.tokens.iter().find(|slot| slot.alias == sender.alias);
        let diagnosis = self.with(sender, |known| {
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
            self.tell(report(sender, concluded));
            awaited
        });
        if is_denied {
            self.denied(refused, reach, diagnosis.cause);
        }
        (diagnosis, conclusion)
    }

    /// Access was denied: what it shows, and what could tell why.
    fn denied(&self, refused: &Refused<'_>, reach: Reach, cause: Cause) {
        let Refused { sender, subject, needs, .. } = *refused;
        let denied = |doubt| self.tell(Report::Denied(sender, doubt));
        if let (Cause::ScopeMissing, None, Reach::Counters) = (cause, &subject.login, reach) {
            let lacks = Fact::Lacks(needs);
            if self.with(sender, |known| known.knowledge.learn(&lacks)) {
                self.tell(Report::Learnt(sender, lacks));
            }
            return;
        }
        let spelled = |login: &str| self.with(sender, |known| known.knowledge.represented(login).map(Arc::from));
        let represented = subject.login.as_deref().map(spelled);
        if represented.is_some() {
            denied(Doubt::Logins);
        }
        let is_of_counters = matches!(reach, Reach::Counter(_) | Reach::Reports) && !subject.misnamed;
        let counters = if is_of_counters { subject.counters.as_slice() } else { &[] };
        match represented {
            Some(None) => {}
            None if counters.is_empty() => {
                if cause == Cause::Ambiguous {
                    denied(Doubt::Reads);
                }
            }
            login => {
                let counters = counters.iter().take(MOST_ASKED).copied().collect();
                denied(Doubt::Counters(login.flatten(), counters));
            }
        }
    }
}

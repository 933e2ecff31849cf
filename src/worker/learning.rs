//! What a worker learns from answers, what it tells the others, and what it makes of a refusal.

use std::cell::RefCell;
use std::cmp::Ordering;

use rustc_hash::FxHashMap;
use tokio::sync::mpsc;

use super::{Generation, Sender, Slot};
use crate::diagnosis::{Case, Cause, Diagnosis};
use crate::knowledge::{Fact, Knowledge};
use crate::login;
use crate::operation::{OperationId, Reach, Verb};
use crate::scope::ScopeSet;
use crate::subject::{Counters, Subject};
use crate::symbol::TokenAlias;
use crate::verdict::ErrorType;

/// What a worker tells the process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Report {
    /// It learnt something of a token.
    Learnt(Sender, Fact),
    /// Metrica takes a token for invalid.
    Invalid {
        /// Which.
        sender: Sender,
        /// The body says so, and not only the status.
        is_certain: bool,
    },
    /// Metrica denied access, and a question could tell why.
    Denied(Sender, Doubt),
}

/// What a question could be about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Doubt {
    /// What the owner may do with this counter.
    Counter(u64),
    /// Whom the owner represents.
    Logins,
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
    /// On whose data.
    pub subject: &'a Subject,
}

/// What one worker knows of tokens.
pub struct Learning {
    known: RefCell<FxHashMap<TokenAlias, (u64, Knowledge)>>,
    reports: mpsc::UnboundedSender<Report>,
}

impl Learning {
    /// One that tells `reports`.
    #[must_use]
    pub fn new(reports: mpsc::UnboundedSender<Report>) -> Self {
        Self { known: RefCell::default(), reports }
    }

    /// Uses what is known of a token; of one that was in the file before the one that is known, nothing is.
    fn with<T>(&self, sender: Sender, use_it: impl FnOnce(&mut Knowledge) -> T) -> T {
        let mut known = self.known.borrow_mut();
        let (epoch, knowledge) = known.entry(sender.alias).or_insert_with(|| (sender.epoch, Knowledge::default()));
        match sender.epoch.cmp(epoch) {
            Ordering::Less => use_it(&mut Knowledge::default()),
            Ordering::Equal => use_it(knowledge),
            Ordering::Greater => {
                (*epoch, *knowledge) = (sender.epoch, Knowledge::default());
                use_it(knowledge)
            }
        }
    }

    fn tell(&self, report: Report) {
        // Nobody listens at the end of the process.
        let _ = self.reports.send(report);
    }

    /// Another worker, or a question, learnt `fact`.
    pub fn take(&self, sender: Sender, fact: &Fact) {
        self.with(sender, |knowledge| knowledge.learn(fact));
    }

    /// Of each token, whether it is known to be of another account than is configured.
    pub fn other_owners(&self, slots: &[Slot]) -> Vec<(TokenAlias, bool)> {
        let known = self.known.borrow();
        let is_of_another = |slot: &Slot| {
            let knowledge = known.get(&slot.alias).filter(|(epoch, _)| *epoch == slot.epoch);
            let seen = knowledge.and_then(|(_, knowledge)| knowledge.owner());
            slot.owner.as_deref().zip(seen).is_some_and(|(configured, seen)| !login::is_same(configured, seen))
        };
        slots.iter().map(|slot| (slot.alias, is_of_another(slot))).collect()
    }

    /// Metrica did what was asked.
    pub fn succeeded(&self, sender: Sender, needs: ScopeSet, reach: Reach, subject: &Subject) {
        for fact in self.with(sender, |knowledge| knowledge.learn_from_success(needs, reach, subject)) {
            self.tell(Report::Learnt(sender, fact));
        }
    }

    /// Metrica refused; why.
    pub fn refused(&self, generation: &Generation, refused: &Refused<'_>) -> Diagnosis {
        let Refused { sender, status, error_type, operation, subject, .. } = *refused;
        let slot = generation.tokens.iter().find(|slot| slot.alias == sender.alias);
        let operations = generation.policy.catalogue.operations();
        let line = operations.iter().find(|line| line.id == operation);
        let reach = line.map_or(Reach::Account, |line| line.reach);
        let diagnosis = self.with(sender, |knowledge| {
            Case {
                status,
                error_type,
                is_silent: refused.verb == Some(Verb::Head),
                needs: refused.needs,
                reach,
                guarded: matches!(operation.as_str(), "grants.list" | "grant.get"),
                subject,
                well_formed: slot.and_then(|slot| slot.token.as_ref()).is_none_or(|token| !token.is_short()),
                expected_owner: slot.and_then(|slot| slot.owner.as_deref()),
                knowledge,
            }
            .diagnose()
        });
        let denied = error_type == ErrorType::AccessDenied;
        match (diagnosis.cause, &subject.login, &subject.counters) {
            (Cause::TokenInvalid, ..) => {
                self.tell(Report::Invalid { sender, is_certain: error_type == ErrorType::InvalidToken });
            }
            (Cause::ScopeMissing, None, Counters::None) if denied && reach == Reach::Counters => {
                let lacks = Fact::Lacks(refused.needs);
                if self.with(sender, |knowledge| knowledge.learn(&lacks)) {
                    self.tell(Report::Learnt(sender, lacks));
                }
            }
            (_, Some(_), _) if denied => self.tell(Report::Denied(sender, Doubt::Logins)),
            (_, None, Counters::One(counter)) if denied => {
                self.tell(Report::Denied(sender, Doubt::Counter(*counter)));
            }
            (_, Some(_) | None, _) => {}
        }
        diagnosis
    }
}

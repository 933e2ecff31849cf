//! Computes the standing of each token from its machine and the other tokens.

use std::collections::BTreeSet;

use super::machine::State;
use super::{Health, TrackedToken, outage};
use crate::policy::names::TokenAlias;
use crate::token::Standing;
use crate::worker::Slot;

impl Health {
    /// Computes the standing of each token (rules 1 and 2), and logs the changes. Returns whether any changed.
    pub(super) fn judge(&mut self) -> bool {
        let slots = &self.generation.tokens;
        let declared = |alias: TokenAlias| slots.iter().find(|slot| slot.alias == alias)?.owner.as_deref();
        let is_rejected = |tracked: &TrackedToken| tracked.machine.state() == State::Rejected;
        let rejected: Vec<_> = self.tracked_tokens.iter().filter(|(_, tracked)| is_rejected(tracked)).collect();
        let known = rejected.iter().map(|(alias, tracked)| outage::Rejected {
            owner: self.owners.owner(**alias).or_else(|| declared(**alias)),
            since: tracked.machine.since(),
        });
        let parts = outage::parts(&known.collect::<Vec<_>>());
        let outage: BTreeSet<_> =
            rejected.iter().zip(parts).filter(|(_, is_part)| *is_part).map(|((alias, _), _)| **alias).collect();
        let before = self.generation.tokens.iter().map(|slot| (slot.alias, slot.standing, slot.next_look));
        let before: Vec<_> = before.collect();
        for (alias, tracked) in &mut self.tracked_tokens {
            let was = tracked.standing;
            tracked.standing = match tracked.machine.state() {
                State::Healthy => Standing::Healthy,
                State::Suspect => Standing::Suspect,
                State::Rejected if was == Standing::Outage || outage.contains(alias) => Standing::Outage,
                State::Rejected => Standing::Suspended,
            };
        }
        let mut is_changed = false;
        for (alias, standing, next_look) in before {
            let Some(tracked) = self.tracked_tokens.get(&alias) else { continue };
            if tracked.standing != standing {
                self.log_change(alias, standing, tracked.standing);
            }
            let next = tracked.machine.due().filter(|_| tracked.standing.is_refused());
            is_changed |= tracked.standing != standing || next != next_look;
        }
        is_changed
    }

    fn log_change(&self, alias: TokenAlias, before: Standing, now: Standing) {
        let token = alias.as_str();
        match (before, now) {
            (_, Standing::Suspended) => {
                let standby = self.standby_of(alias).map_or("none", TokenAlias::as_str);
                tracing::error!(
                    token,
                    standby,
                    "Metrica rejected the token as invalid; it is suspended until its file changes or a probe succeeds"
                );
            }
            (_, Standing::Outage) => tracing::error!(
                token,
                "Metrica rejects tokens of several accounts at once (a fault at Yandex, or an edited application that issued all of them); the token is suspended until a probe succeeds"
            ),
            (_, Standing::Suspect) => {
                tracing::warn!(
                    token,
                    "Metrica refused a request as if the token were invalid; the gate probes the token, which stays in use"
                );
            }
            (Standing::Suspended | Standing::Outage, Standing::Healthy) => {
                tracing::info!(token, "Metrica accepts the token again; it is in use");
            }
            (Standing::Suspect | Standing::Healthy, Standing::Healthy) => {
                tracing::info!(token, "Metrica accepts the token")
            }
        }
    }

    /// The standby of a token, if it can be used itself.
    fn standby_of(&self, alias: TokenAlias) -> Option<TokenAlias> {
        let own = self.generation.tokens.iter().find(|slot| slot.alias == alias)?;
        let standby: &Slot = self.generation.tokens.get(own.standby?)?;
        let tracked = self.tracked_tokens.get(&standby.alias)?;
        (!tracked.standing.is_refused()).then_some(standby.alias)
    }
}

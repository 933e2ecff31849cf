//! Doubts: what could tell why Metrica denied access, and is asked.
//!
//! 1. One question is under way at a time, however many refusals there are: Metrica allows three requests at once for a login,
//!    and callers need them.
//! 2. The same is asked once an hour, and at most [`QUESTIONS_AN_HOUR`] things of one token.
//! 3. What the owner may do with a counter shows only to a token that reads. So where that is not known yet, the list of
//!    counters is asked for first; when it is refused, the scope lacks, and the counter is not asked about.

use std::collections::VecDeque;
use std::time::Duration;

use rustc_hash::{FxHashMap, FxHashSet};
use tokio::time::Instant;

use super::ask::{self, Finds};
use crate::probe::Place;
use crate::symbol::TokenAlias;
use crate::token::Token;
use crate::worker::{Doubt, Sender};

/// Rule 2.
pub const QUESTIONS_AN_HOUR: usize = 60;

const HOUR: Duration = Duration::from_secs(3600);

/// See the module.
#[derive(Default)]
pub struct Doubts {
    asked: FxHashMap<(TokenAlias, u64, Doubt), Instant>,
    waiting: VecDeque<(Sender, Doubt, Token)>,
    is_busy: bool,
    /// Tokens that were seen to read.
    reading: FxHashSet<(TokenAlias, u64)>,
}

impl Doubts {
    /// A refusal leaves this open.
    pub fn take(&mut self, sender: Sender, doubt: Doubt, token: &Token, place: &Place, finds: &Finds) {
        let now = Instant::now();
        self.asked.retain(|_, asked| now.duration_since(*asked) < HOUR);
        let question = (sender.alias, sender.epoch, doubt);
        let of_token = self.asked.keys().filter(|(alias, ..)| *alias == sender.alias).count();
        if of_token >= QUESTIONS_AN_HOUR || self.asked.contains_key(&question) {
            return;
        }
        self.asked.insert(question, now);
        self.waiting.push_back((sender, doubt, token.clone()));
        if !self.is_busy {
            self.next(place, finds);
        }
    }

    /// The question that was under way is answered: the next one.
    pub fn next(&mut self, place: &Place, finds: &Finds) {
        let waiting = self.waiting.pop_front();
        self.is_busy = waiting.is_some();
        let Some((sender, doubt, token)) = waiting else { return };
        match doubt {
            Doubt::Counter(counter) => {
                let reads = self.reading.contains(&(sender.alias, sender.epoch));
                ask::permission(place.clone(), token, sender, counter, reads, finds.clone());
            }
            Doubt::Logins => ask::logins(place.clone(), token, sender, finds.clone()),
        }
    }

    /// A token was seen to read (rule 3).
    pub fn reads(&mut self, sender: Sender) {
        self.reading.insert((sender.alias, sender.epoch));
    }
}

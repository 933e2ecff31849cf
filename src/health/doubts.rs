//! Doubts: what could tell why Metrica denied access, and is asked.
//!
//! 1. One question is under way at a time, however many refusals there are: Metrica allows three requests at once for a login,
//!    and callers need them.
//! 2. A refusal asks what it leaves open again after [`AGAIN`]: whoever follows a hint sees the reason change within a minute.
//!    What may be out of date (SIGHUP, a write of the token's file, `/recheck`, an answer that contradicts what is known or
//!    shows it) is asked again sooner, but not within [`machine::TRUST`](super::machine::TRUST).
//! 3. At most [`QUESTIONS_AN_HOUR`] of one token, and [`QUESTIONS_A_DAY`]: a caller that is refused all day does not spend the
//!    5000 requests of the owner.
//! 4. What the owner may do with a counter shows only to a token that reads. So where that is not known yet, the list of
//!    counters is asked for first; when it is refused, the scope lacks, and the counter is not asked about.

use std::collections::VecDeque;
use std::time::Duration;

use rustc_hash::{FxHashMap, FxHashSet};
use tokio::time::Instant;

use super::machine::TRUST;
use crate::names::TokenAlias;
use crate::worker::{Doubt, Sender};

/// Rule 2.
pub const AGAIN: Duration = Duration::from_secs(50);

/// Rule 3.
pub const QUESTIONS_AN_HOUR: usize = 60;

/// Rule 3.
pub const QUESTIONS_A_DAY: usize = 500;

/// So many questions of one token are asked again because somebody wants a new look.
const AT_ONCE: usize = 5;

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// See the module.
#[derive(Default)]
pub struct Doubts {
    /// When each was last asked, and whether that may be out of date.
    asked: FxHashMap<(TokenAlias, u64, Doubt), Asked>,
    /// Rule 3: when questions were asked, the oldest first.
    spent: FxHashMap<TokenAlias, VecDeque<Instant>>,
    waiting: VecDeque<(Sender, Doubt)>,
    is_busy: bool,
    /// Tokens that were seen to read.
    reading: FxHashSet<(TokenAlias, u64)>,
}

#[derive(Clone, Copy)]
struct Asked {
    at: Instant,
    is_old: bool,
}

impl Doubts {
    /// A refusal leaves this open.
    pub fn take(&mut self, sender: Sender, doubt: Doubt, now: Instant) {
        self.asked.retain(|_, asked| now.duration_since(asked.at) < HOUR);
        let question = (sender.alias, sender.epoch, doubt);
        let least = |asked: &Asked| if asked.is_old { TRUST } else { AGAIN };
        let is_fresh = self.asked.get(&question).is_some_and(|asked| now < asked.at + least(asked));
        if is_fresh || self.waiting.contains(&(sender, doubt)) || !self.spend(sender.alias, now) {
            return;
        }
        self.asked.insert(question, Asked { at: now, is_old: false });
        self.waiting.push_back((sender, doubt));
    }

    /// An answer shows what may be out of date: if that was asked about, the next refusal asks again.
    pub fn is_old(&mut self, sender: Sender, doubt: Doubt) {
        if let Some(asked) = self.asked.get_mut(&(sender.alias, sender.epoch, doubt)) {
            asked.is_old = true;
        }
    }

    /// An answer contradicts what is known: if that was asked about, it is asked again.
    pub fn take_again(&mut self, sender: Sender, doubt: Doubt, now: Instant) {
        self.is_old(sender, doubt);
        if self.asked.contains_key(&(sender.alias, sender.epoch, doubt)) {
            self.take(sender, doubt, now);
        }
    }

    /// What is known of a token may be out of date: what was asked last is asked again, and the rest when it is refused.
    pub fn look_again(&mut self, sender: Sender, now: Instant) {
        let of_token = |(alias, epoch, _): &(TokenAlias, u64, Doubt)| *alias == sender.alias && *epoch == sender.epoch;
        self.asked.iter_mut().filter(|(key, _)| of_token(key)).for_each(|(_, asked)| asked.is_old = true);
        let mut known: Vec<_> = self.asked.iter().filter(|(key, _)| of_token(key)).collect();
        known.sort_unstable_by_key(|(_, asked)| std::cmp::Reverse(asked.at));
        let doubts: Vec<_> = known.into_iter().take(AT_ONCE).map(|((.., doubt), _)| *doubt).collect();
        doubts.into_iter().for_each(|doubt| self.take(sender, doubt, now));
    }

    /// The next question that can be asked now, where `may_ask` says of which tokens; and whether its token reads.
    pub fn next(&mut self, may_ask: impl Fn(Sender) -> bool) -> Option<(Sender, Doubt, bool)> {
        if self.is_busy {
            return None;
        }
        let position = self.waiting.iter().position(|(sender, _)| may_ask(*sender))?;
        let (sender, doubt) = self.waiting.remove(position)?;
        self.is_busy = true;
        Some((sender, doubt, self.reading.contains(&(sender.alias, sender.epoch))))
    }

    /// The question that was under way is answered.
    pub const fn answered(&mut self) {
        self.is_busy = false;
    }

    /// Nothing is asked any more of tokens that are not there.
    pub fn keep(&mut self, is_there: impl Fn(TokenAlias, u64) -> bool) {
        self.waiting.retain(|(sender, _)| is_there(sender.alias, sender.epoch));
        self.asked.retain(|(alias, epoch, _), _| is_there(*alias, *epoch));
        self.reading.retain(|(alias, epoch)| is_there(*alias, *epoch));
    }

    /// A token was seen to read (rule 4).
    pub fn reads(&mut self, sender: Sender) {
        self.reading.insert((sender.alias, sender.epoch));
    }

    /// Rule 3: whether one more may be asked.
    fn spend(&mut self, alias: TokenAlias, now: Instant) -> bool {
        let spent = self.spent.entry(alias).or_default();
        while spent.front().is_some_and(|oldest| now.duration_since(*oldest) >= DAY) {
            spent.pop_front();
        }
        let of_an_hour = spent.iter().rev().take_while(|asked| now.duration_since(**asked) < HOUR).count();
        let may = of_an_hour < QUESTIONS_AN_HOUR && spent.len() < QUESTIONS_A_DAY;
        if may {
            spent.push_back(now);
        }
        may
    }
}

#[cfg(test)]
mod tests {
    use metrica::scope::ScopeSet;

    use super::*;

    fn sender() -> Sender {
        Sender { alias: TokenAlias::new("t"), scopes: ScopeSet::EMPTY, epoch: 1 }
    }

    /// Asks of `doubts` as if every question were answered at once; how many are asked now.
    fn asked(doubts: &mut Doubts) -> usize {
        std::iter::from_fn(|| {
            let next = doubts.next(|_| true);
            doubts.answered();
            next
        })
        .count()
    }

    #[test]
    fn rule_1_one_at_a_time_and_none_with_a_token_that_is_busy() {
        let (mut doubts, now) = (Doubts::default(), Instant::now());
        doubts.take(sender(), Doubt::Counter(1), now);
        doubts.take(sender(), Doubt::Logins, now);
        assert_eq!(doubts.next(|_| false), None);
        assert_eq!(doubts.next(|_| true), Some((sender(), Doubt::Counter(1), false)));
        assert_eq!(doubts.next(|_| true), None, "one is under way");
        doubts.answered();
        doubts.reads(sender());
        assert_eq!(doubts.next(|_| true), Some((sender(), Doubt::Logins, true)));
    }

    #[test]
    fn rule_2_the_same_is_asked_again_within_a_minute() {
        let (mut doubts, start) = (Doubts::default(), Instant::now());
        let mut take = |seconds: u64, is_old: bool| {
            if is_old {
                doubts.is_old(sender(), Doubt::Counter(1));
            }
            doubts.take(sender(), Doubt::Counter(1), start + Duration::from_secs(seconds));
            asked(&mut doubts)
        };
        assert_eq!((take(0, false), take(49, false), take(50, false)), (1, 0, 1));
        assert_eq!((take(59, true), take(60, false), take(61, false)), (0, 1, 0), "it may be out of date");
        doubts.take_again(sender(), Doubt::Counter(2), start + Duration::from_secs(70));
        assert_eq!(asked(&mut doubts), 0, "nobody was refused there");
        doubts.take_again(sender(), Doubt::Counter(1), start + Duration::from_secs(70));
        assert_eq!(asked(&mut doubts), 1);
        doubts.look_again(sender(), start + Duration::from_secs(80));
        assert_eq!(asked(&mut doubts), 1, "somebody wants to know");
    }

    #[test]
    fn rule_3_a_caller_that_is_refused_all_day_does_not_spend_the_quota() {
        let (mut doubts, start) = (Doubts::default(), Instant::now());
        let mut of_hour = |hour: u64| -> usize {
            let one = |second| {
                doubts.take(sender(), Doubt::Counter(second % 7), start + Duration::from_secs(hour * 3600 + second));
                asked(&mut doubts)
            };
            (0..3600).map(one).sum()
        };
        assert_eq!(of_hour(0), QUESTIONS_AN_HOUR);
        let day = QUESTIONS_AN_HOUR + (1..24).map(&mut of_hour).sum::<usize>();
        assert_eq!(day, QUESTIONS_A_DAY);
        assert_eq!(of_hour(24), QUESTIONS_AN_HOUR);
    }
}

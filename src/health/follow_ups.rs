//! Follow-up questions that can tell why Metrica denied access.
//!
//! 1. At most one question is under way, however many refusals there are: Metrica allows three parallel requests per login,
//!    and callers need them.
//! 2. A refusal repeats its question after [`AGAIN`], so a caller that follows a hint sees the new reason within a minute.
//!    Facts that may be out of date (after SIGHUP, a write of the token's file, `/recheck`, or a response that contradicts
//!    or shows them) are asked about sooner, but not within [`machine::TRUST`](super::machine::TRUST).
//! 3. A token begins no question after [`REQUESTS_AN_HOUR`] or [`REQUESTS_A_DAY`] requests, so a caller that is refused all
//!    day does not use up the owner's 5000. The first request of a question counts when it begins, the others when it has ended.

use std::collections::VecDeque;
use std::time::Duration;

use rustc_hash::FxHashMap;
use tokio::time::Instant;

use super::machine::TRUST;
use crate::policy::names::TokenAlias;
use crate::worker::{Suspicion, TokenUse};

/// The time after which a question repeats (rule 2).
pub const AGAIN: Duration = Duration::from_secs(50);

/// The number of requests per token and hour after which no question begins (rule 3).
pub const REQUESTS_AN_HOUR: usize = 60;

/// The number of requests per token and day after which no question begins (rule 3).
pub const REQUESTS_A_DAY: usize = 500;

/// The maximum number of questions per token that [`FollowUps::look_again`] repeats at once.
const AT_ONCE: usize = 5;

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// The follow-up questions of all tokens; see the module.
#[derive(Default)]
pub struct FollowUps {
    /// When each question was last asked, and whether its result may be out of date.
    asked: FxHashMap<(TokenAlias, u64, Suspicion), Asked>,
    /// When requests were sent, the oldest first (rule 3).
    spent: FxHashMap<TokenAlias, VecDeque<Instant>>,
    waiting: VecDeque<(TokenUse, Suspicion)>,
    under_way: Option<(TokenUse, Suspicion)>,
}

#[derive(Clone, Copy)]
struct Asked {
    at: Instant,
    is_old: bool,
}

impl FollowUps {
    /// Queues the question that a refusal leaves open.
    pub fn take(&mut self, token_use: TokenUse, suspicion: Suspicion, now: Instant) {
        self.asked.retain(|_, asked| now.duration_since(asked.at) < HOUR);
        let question = (token_use.alias, token_use.epoch, suspicion);
        let least = |asked: &Asked| if asked.is_old { TRUST } else { AGAIN };
        let is_fresh = self.asked.get(&question).is_some_and(|asked| now < asked.at + least(asked));
        let is_waiting = self.waiting.iter().any(|(other, suspicion)| *other == token_use && *suspicion == question.2);
        let waiting = self.waiting.iter().filter(|(other, _)| other.alias == token_use.alias).count();
        if is_fresh || is_waiting || waiting >= REQUESTS_AN_HOUR || !self.can_afford(token_use.alias, now) {
            return;
        }
        self.waiting.push_back((token_use, question.2.clone()));
        self.asked.insert(question, Asked { at: now, is_old: false });
    }

    /// Marks questions about a counter as out of date, so the next refusal repeats them.
    pub fn is_old(&mut self, token_use: TokenUse, counter: u64) {
        self.about(token_use, counter).for_each(|(_, asked)| asked.is_old = true);
    }

    /// Repeats the questions about a counter: a response contradicts the known facts.
    pub fn take_again(&mut self, token_use: TokenUse, counter: u64, now: Instant) {
        self.is_old(token_use, counter);
        let follow_ups: Vec<_> = self.about(token_use, counter).map(|(suspicion, _)| suspicion.clone()).collect();
        follow_ups.into_iter().for_each(|suspicion| self.take(token_use, suspicion, now));
    }

    /// The questions asked about a counter of the owner.
    fn about(&mut self, token_use: TokenUse, counter: u64) -> impl Iterator<Item = (&Suspicion, &mut Asked)> {
        let is_it = move |suspicion: &Suspicion| matches!(suspicion, Suspicion::Counters(None, counters) if counters.contains(&counter));
        let of_token = self
            .asked
            .iter_mut()
            .filter(move |((alias, epoch, _), _)| (*alias, *epoch) == (token_use.alias, token_use.epoch));
        of_token.filter(move |((.., suspicion), _)| is_it(suspicion)).map(|((.., suspicion), asked)| (suspicion, asked))
    }

    /// Marks all questions of a token as out of date: the latest are repeated now, the others on the next refusal.
    pub fn look_again(&mut self, token_use: TokenUse, now: Instant) {
        let of_token =
            |(alias, epoch, _): &(TokenAlias, u64, Suspicion)| *alias == token_use.alias && *epoch == token_use.epoch;
        self.asked.iter_mut().filter(|(key, _)| of_token(key)).for_each(|(_, asked)| asked.is_old = true);
        let mut known: Vec<_> = self.asked.iter().filter(|(key, _)| of_token(key)).collect();
        known.sort_unstable_by_key(|(_, asked)| std::cmp::Reverse(asked.at));
        let follow_ups: Vec<_> =
            known.into_iter().take(AT_ONCE).map(|((.., suspicion), _)| suspicion.clone()).collect();
        follow_ups.into_iter().for_each(|suspicion| self.take(token_use, suspicion, now));
    }

    /// The next question that can be asked now, with a token that `may_ask` allows. Questions that the budget does not allow
    /// any more are dropped (rule 3).
    pub fn next(&mut self, now: Instant, may_ask: impl Fn(TokenUse) -> bool) -> Option<(TokenUse, Suspicion)> {
        while self.under_way.is_none() {
            let position = self.waiting.iter().position(|(token_use, _)| may_ask(*token_use))?;
            let (token_use, suspicion) = self.waiting.remove(position)?;
            if self.can_afford(token_use.alias, now) {
                self.charge(token_use.alias, 1, now);
                self.under_way = Some((token_use, suspicion.clone()));
                return Some((token_use, suspicion));
            }
        }
        None
    }

    /// Ends the question under way, and returns it.
    pub const fn answered(&mut self) -> Option<(TokenUse, Suspicion)> {
        self.under_way.take()
    }

    /// Drops the questions of tokens that are gone.
    pub fn keep(&mut self, is_there: impl Fn(TokenAlias, u64) -> bool) {
        self.waiting.retain(|(token_use, _)| is_there(token_use.alias, token_use.epoch));
        self.asked.retain(|(alias, epoch, _), _| is_there(*alias, *epoch));
    }

    /// Charges a token for requests (rule 3).
    pub fn charge(&mut self, alias: TokenAlias, requests: usize, now: Instant) {
        self.spent.entry(alias).or_default().extend(std::iter::repeat_n(now, requests));
    }

    /// Whether the budget allows one more question (rule 3).
    fn can_afford(&mut self, alias: TokenAlias, now: Instant) -> bool {
        let spent = self.spent.entry(alias).or_default();
        while spent.front().is_some_and(|oldest| now.duration_since(*oldest) >= DAY) {
            spent.pop_front();
        }
        let of_an_hour = spent.iter().rev().take_while(|asked| now.duration_since(**asked) < HOUR).count();
        of_an_hour < REQUESTS_AN_HOUR && spent.len() < REQUESTS_A_DAY
    }
}

#[cfg(test)]
mod tests {
    use metrica::scope::ScopeSet;

    use super::*;

    fn counter(counter: u64) -> Suspicion {
        Suspicion::Counters(None, [counter].into())
    }

    fn token_use() -> TokenUse {
        TokenUse { alias: TokenAlias::new("t"), scopes: ScopeSet::EMPTY, epoch: 1 }
    }

    /// Asks all questions of `follow_ups` as if each were answered at once. Returns their number.
    fn asked(follow_ups: &mut FollowUps, now: Instant) -> usize {
        std::iter::from_fn(|| {
            follow_ups.next(now, |_| true)?;
            follow_ups.answered()
        })
        .count()
    }

    #[test]
    fn rule_1_follow_ups_run_one_at_a_time_and_not_with_a_busy_token() {
        let (mut follow_ups, now) = (FollowUps::default(), Instant::now());
        follow_ups.take(token_use(), counter(1), now);
        follow_ups.take(token_use(), Suspicion::Logins, now);
        assert_eq!(follow_ups.next(now, |_| false), None);
        assert_eq!(follow_ups.next(now, |_| true), Some((token_use(), counter(1))));
        assert_eq!(follow_ups.next(now, |_| true), None, "one is under way");
        assert_eq!(follow_ups.answered(), Some((token_use(), counter(1))));
        assert_eq!(follow_ups.next(now, |_| true), Some((token_use(), Suspicion::Logins)));
    }

    #[test]
    fn rule_2_the_same_is_asked_again_within_a_minute() {
        let (mut follow_ups, start) = (FollowUps::default(), Instant::now());
        let mut take = |seconds: u64, is_old: bool| {
            if is_old {
                follow_ups.is_old(token_use(), 1);
            }
            let now = start + Duration::from_secs(seconds);
            follow_ups.take(token_use(), counter(1), now);
            asked(&mut follow_ups, now)
        };
        assert_eq!((take(0, false), take(49, false), take(50, false)), (1, 0, 1));
        assert_eq!((take(59, true), take(60, false), take(61, false)), (0, 1, 0), "it may be out of date");
        let now = start + Duration::from_secs(70);
        follow_ups.take_again(token_use(), 2, now);
        assert_eq!(asked(&mut follow_ups, now), 0, "nobody was refused there");
        follow_ups.take_again(token_use(), 1, now);
        assert_eq!(asked(&mut follow_ups, now), 1);
        let now = start + Duration::from_secs(80);
        follow_ups.look_again(token_use(), now);
        assert_eq!(asked(&mut follow_ups, now), 1, "somebody wants to know");
    }

    #[test]
    fn rule_3_a_caller_that_is_refused_all_day_does_not_spend_the_quota() {
        let (mut follow_ups, start) = (FollowUps::default(), Instant::now());
        let mut of_hour = |hour: u64| -> usize {
            let one = |second| {
                let now = start + Duration::from_secs(hour * 3600 + second);
                follow_ups.take(token_use(), counter(second % 7), now);
                asked(&mut follow_ups, now)
            };
            (0..3600).map(one).sum()
        };
        assert_eq!(of_hour(0), REQUESTS_AN_HOUR);
        let day = REQUESTS_AN_HOUR + (1..24).map(&mut of_hour).sum::<usize>();
        assert_eq!(day, REQUESTS_A_DAY);
        assert_eq!(of_hour(24), REQUESTS_AN_HOUR);
    }

    #[test]
    fn rule_3_every_request_of_a_question_counts() {
        let (mut follow_ups, start) = (FollowUps::default(), Instant::now());
        let mut questions = 0;
        for second in 0..3600 {
            let now = start + Duration::from_secs(second);
            follow_ups.take(token_use(), counter(second % 7), now);
            for _ in 0..asked(&mut follow_ups, now) {
                questions += 1;
                follow_ups.charge(token_use().alias, 4, now);
            }
        }
        assert_eq!(questions * 5, REQUESTS_AN_HOUR);
    }
}

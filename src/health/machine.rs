//! The health of one token as a state machine: state, event and time give the next state and the action. It has no clock
//! and no network access.
//!
//! ```text
//!             refused                     rejected
//!  HEALTHY ------------> SUSPECT -------------------------> REJECTED
//!     ^      ask at once    |  ask again: unknown,             |  ask again: rejected, unknown
//!     |                     |  or it succeeded meanwhile       |
//!     +---------------------+                                  |
//!     |   accepted, or a success                               |
//!     +--------------------------------------------------------+
//!                      accepted
//! ```
//!
//! 1. A refused request makes a healthy token suspect, and a probe is sent at once. Only a probe makes the token rejected,
//!    and only a probe restores it.
//! 2. For [`TRUST`] after a proven success, a refusal does not make the token suspect. Each time a probe disproves a
//!    suspicion, the wait before the next investigation doubles, up to `probe_at_most`: requests that are refused while
//!    probes are accepted do not use up the owner's quota.
//! 3. A success since the probe was sent outweighs its rejection; the probe is repeated.
//! 4. Two probes are at least [`TRUST`] apart (`probe_after` if shorter). A rejected token is probed after `probe_after`,
//!    then after twice the time, up to `probe_at_most`; so is a suspect one while probes are inconclusive.
//! 5. [`Event::LookAgain`] (SIGHUP, a write of the token's file, `/recheck`) restarts these waits with a probe at once; so
//!    does a success of a rejected token.
//! 6. A healthy standby is probed every three times `probe_at_most`, unless it succeeded meanwhile.
//! 7. A denial of an operation that succeeded before ([`Event::Doubted`]) does not make a token suspect: a probe is sent at
//!    once, however recent the last success is. Each time the probe does not reject the token, the wait before the next
//!    denial is investigated doubles, as in rule 2. A rejection makes the token suspect, and the next probe decides.
//! 8. A refusal within the ten seconds of rule 2 is not investigated. If a success follows it, Metrica accepts the token
//!    and refuses only some requests this way.

use std::time::Duration;

use metrica::cause::Conclusion;
use tokio::time::Instant;

use crate::config::TokenHealth;

/// The time that a success is trusted (rule 2), and the minimum time between two probes (rule 4).
pub const TRUST: Duration = Duration::from_secs(10);

/// The interval of standby probes, as a multiple of `probe_at_most` (rule 6).
const ROUND: u32 = 3;

/// The state of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// No evidence against the token.
    Healthy,
    /// A refusal or a probe suggests that the token is invalid; the next probe decides.
    Suspect,
    /// A probe rejected the token.
    Rejected,
}

/// An event that concerns a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// The response to a request reads as if Metrica rejected the token.
    Refused,
    /// The response to a request denies an operation that succeeded before.
    Doubted,
    /// The response to a request proves that Metrica accepts the token.
    Succeeded,
    /// The probe under way ended.
    Probed(Conclusion),
    /// The known state may be out of date.
    LookAgain,
    /// The token became a standby of another token, or ceased to be one.
    StandsBy(bool),
}

/// The reply to [`Event::Refused`] and [`Event::Doubted`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reaction {
    /// A probe is under way or about to be sent; its conclusion is the reply.
    Wait,
    /// The conclusion without a probe.
    Now(Conclusion),
}

/// The health of one token.
#[derive(Debug, Clone, Copy)]
pub struct Machine {
    state: State,
    /// When the token entered its state.
    since: Instant,
    /// The wait after the next probe.
    wait: Duration,
    /// Whether a probe is under way.
    asking: bool,
    /// When the last probe was sent.
    asked: Option<Instant>,
    /// When the next probe is due.
    due: Option<Instant>,
    /// When the last proven success was.
    proven: Option<Instant>,
    /// Rule 2: when the back-off of refusals ends, and its duration.
    calm: Option<(Instant, Duration)>,
    /// Rule 7: the same for denials.
    quiet: Option<(Instant, Duration)>,
    /// Whether the probe that is due or under way investigates a denial.
    is_doubted: bool,
    /// Whether a probe rejected a healthy token, so that the next one decides.
    was_rejected: bool,
    /// Rule 8: the first refusal that was not investigated.
    refused: Option<Instant>,
    stands_by: bool,
}

impl Machine {
    /// The machine of a new token.
    #[must_use]
    pub const fn new(now: Instant, settings: TokenHealth) -> Self {
        Self {
            state: State::Healthy,
            since: now,
            wait: settings.probe_after,
            asking: false,
            asked: None,
            due: None,
            proven: None,
            calm: None,
            quiet: None,
            is_doubted: false,
            was_rejected: false,
            refused: None,
            stands_by: false,
        }
    }

    /// The state of the token.
    #[must_use]
    pub const fn state(&self) -> State {
        self.state
    }

    /// When the token entered its state.
    #[must_use]
    pub const fn since(&self) -> Instant {
        self.since
    }

    /// When the next probe is due; `None` while one is under way.
    #[must_use]
    pub const fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Records that the due probe is sent.
    pub const fn asks(&mut self, now: Instant) {
        (self.asking, self.asked, self.due) = (true, Some(now), None);
    }

    /// Handles an event.
    pub fn on(&mut self, event: Event, now: Instant, settings: TokenHealth) -> Option<Reaction> {
        match event {
            Event::Refused => return Some(self.refused(now, settings)),
            Event::Doubted => return Some(self.doubted(now, settings)),
            Event::Succeeded => self.succeeded(now, settings),
            Event::Probed(conclusion) => self.probed(conclusion, now, settings),
            Event::LookAgain => self.look_again(now, settings),
            Event::StandsBy(stands_by) => self.stand_by(stands_by, now),
        }
        None
    }

    fn refused(&mut self, now: Instant, settings: TokenHealth) -> Reaction {
        match self.state {
            State::Rejected => Reaction::Now(Conclusion::Rejected),
            State::Suspect if self.asking || self.due.is_some_and(|due| due <= now) => Reaction::Wait,
            State::Suspect => Reaction::Now(self.before_the_next_probe()),
            State::Healthy if self.calm.is_some_and(|(until, _)| now < until) => Reaction::Now(Conclusion::Accepted),
            State::Healthy if self.proven.is_some_and(|proven| now < proven + TRUST) => self.trusted(now, settings),
            State::Healthy => {
                self.enter(State::Suspect, now);
                self.is_doubted = false;
                self.wait = settings.probe_after;
                if self.asking {
                    return Reaction::Wait;
                }
                let due = self.soonest(now, settings);
                self.due = Some(due);
                if due <= now { Reaction::Wait } else { Reaction::Now(Conclusion::Unknown) }
            }
        }
    }

    /// Replies to a refusal soon after a success (rule 8).
    fn trusted(&mut self, now: Instant, settings: TokenHealth) -> Reaction {
        let most = settings.probe_at_most.max(TRUST);
        let refused = *self.refused.insert(self.refused.filter(|refused| now < *refused + most).unwrap_or(now));
        let is_accepted = self.proven.is_some_and(|proven| proven > refused);
        Reaction::Now(if is_accepted { Conclusion::Accepted } else { Conclusion::Unknown })
    }

    /// Handles a denial (rule 7).
    fn doubted(&mut self, now: Instant, settings: TokenHealth) -> Reaction {
        let is_calm = |calm: Option<(Instant, Duration)>| calm.is_some_and(|(until, _)| now < until);
        match self.state {
            State::Rejected => Reaction::Now(Conclusion::Rejected),
            State::Suspect if self.asking || self.due.is_some_and(|due| due <= now) => Reaction::Wait,
            State::Suspect => Reaction::Now(self.before_the_next_probe()),
            State::Healthy if is_calm(self.calm) || is_calm(self.quiet) => Reaction::Now(Conclusion::Accepted),
            State::Healthy => {
                self.is_doubted = true;
                if self.asking {
                    return Reaction::Wait;
                }
                let soonest = self.soonest(now, settings);
                let due = self.due.map_or(soonest, |due| due.min(soonest));
                self.due = Some(due);
                if due <= now { Reaction::Wait } else { Reaction::Now(Conclusion::Unknown) }
            }
        }
    }

    /// The conclusion about a suspect token while no probe is under way.
    const fn before_the_next_probe(&self) -> Conclusion {
        if self.was_rejected { Conclusion::Rejected } else { Conclusion::Unknown }
    }

    fn succeeded(&mut self, now: Instant, settings: TokenHealth) {
        self.proven = Some(now);
        match self.state {
            State::Healthy => self.next_round(now, settings),
            State::Suspect if self.asking => {}
            State::Suspect => {
                self.enter(State::Healthy, now);
                self.due = None;
                self.next_round(now, settings);
            }
            State::Rejected => self.look_again(now, settings),
        }
    }

    fn probed(&mut self, conclusion: Conclusion, now: Instant, settings: TokenHealth) {
        self.asking = false;
        let asked = self.asked.unwrap_or(now);
        let succeeded_since = self.proven.is_some_and(|proven| proven >= asked);
        if std::mem::take(&mut self.is_doubted) && conclusion != Conclusion::Rejected {
            self.quiet = Some(longer(self.quiet, now, settings));
        }
        match (conclusion, self.state) {
            (Conclusion::Accepted, before) => {
                if before == State::Suspect {
                    self.disproved(now, settings);
                }
                self.proven = Some(now);
                self.wait = settings.probe_after;
                self.enter(State::Healthy, now);
                self.due = None;
                self.next_round(now, settings);
            }
            (Conclusion::Rejected, State::Healthy) => {
                // No request was refused as with an invalid token, so one odd response is not enough here either.
                self.enter(State::Suspect, now);
                self.was_rejected = true;
                self.wait = settings.probe_after;
                self.due = Some(self.soonest(now, settings));
            }
            (Conclusion::Rejected, State::Suspect) if succeeded_since => self.due = Some(self.soonest(now, settings)),
            (Conclusion::Rejected, State::Suspect) => {
                self.enter(State::Rejected, now);
                (self.calm, self.quiet, self.wait) = (None, None, settings.probe_after);
                self.wait_on(now, settings);
            }
            (Conclusion::Unknown, State::Healthy) => self.next_round(now, settings),
            (Conclusion::Unknown, State::Suspect) if succeeded_since => {
                self.enter(State::Healthy, now);
                self.next_round(now, settings);
            }
            (Conclusion::Rejected | Conclusion::Unknown, State::Rejected) | (Conclusion::Unknown, State::Suspect) => {
                self.wait_on(now, settings);
            }
        }
    }

    /// Restarts the waits (rule 5).
    fn look_again(&mut self, now: Instant, settings: TokenHealth) {
        self.wait = settings.probe_after;
        if self.state != State::Healthy && !self.asking {
            let soonest = self.soonest(now, settings);
            self.due = Some(self.due.map_or(soonest, |due| due.min(soonest)));
        }
    }

    fn stand_by(&mut self, stands_by: bool, now: Instant) {
        let before = std::mem::replace(&mut self.stands_by, stands_by);
        if self.state == State::Healthy && !self.asking && before != stands_by {
            self.due = stands_by.then_some(now);
        }
    }

    fn enter(&mut self, state: State, now: Instant) {
        if self.state != state {
            (self.state, self.since, self.was_rejected) = (state, now, false);
        }
    }

    /// Starts or extends the back-off after a disproved suspicion (rule 2).
    fn disproved(&mut self, now: Instant, settings: TokenHealth) {
        self.calm = Some(longer(self.calm, now, settings));
    }

    /// The earliest time of the next probe (rule 4).
    fn soonest(&self, now: Instant, settings: TokenHealth) -> Instant {
        let least = TRUST.min(settings.probe_after);
        self.asked.map_or(now, |asked| now.max(asked + least))
    }

    /// Sets the wait after a probe (rule 4).
    fn wait_on(&mut self, now: Instant, settings: TokenHealth) {
        self.due = Some(now + self.wait);
        self.wait = (self.wait * 2).min(settings.probe_at_most.max(settings.probe_after));
    }

    /// Schedules the next probe of a standby (rule 6).
    fn next_round(&mut self, now: Instant, settings: TokenHealth) {
        if self.stands_by && !self.asking {
            self.due = Some(now + settings.probe_at_most * ROUND);
        }
    }
}

/// Rules 2 and 7: the end and the duration of the back-off that follows `before`.
fn longer(before: Option<(Instant, Duration)>, now: Instant, settings: TokenHealth) -> (Instant, Duration) {
    let most = settings.probe_at_most.max(TRUST);
    let before = before.filter(|(until, _)| now < *until + most);
    let calm = before.map_or(TRUST, |(_, calm)| (calm * 2).min(most));
    (now + calm, calm)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const fn settings() -> TokenHealth {
        let (probe_after, probe_at_most) = (Duration::from_secs(30), Duration::from_secs(300));
        TokenHealth { probe_after, probe_at_most, learn: true }
    }

    /// A machine with a clock, which sends the probes that are due.
    struct World {
        machine: Machine,
        now: Instant,
        asked: Vec<Instant>,
    }

    impl World {
        fn new() -> Self {
            let now = Instant::now();
            Self { machine: Machine::new(now, settings()), now, asked: Vec::new() }
        }

        fn on(&mut self, event: Event) -> Option<Reaction> {
            let reply = self.machine.on(event, self.now, settings());
            self.ask_if_due();
            reply
        }

        fn ask_if_due(&mut self) {
            if self.machine.due().is_some_and(|due| due <= self.now) {
                self.machine.asks(self.now);
                self.asked.push(self.now);
            }
        }

        fn pass(&mut self, seconds: u64) {
            let until = self.now + Duration::from_secs(seconds);
            if let Some(due) = self.machine.due().filter(|due| *due <= until) {
                self.now = self.now.max(due);
                self.ask_if_due();
            }
            self.now = until;
        }

        fn probed(&mut self, conclusion: Conclusion) -> State {
            assert!(self.machine.asking, "a probe is under way");
            self.on(Event::Probed(conclusion));
            self.machine.state()
        }

        /// Waits for the next probe. Returns the seconds.
        fn wait(&mut self) -> u64 {
            let due = self.machine.due().expect("a probe is to come");
            let wait = due.saturating_duration_since(self.now);
            self.pass(wait.as_secs());
            wait.as_secs()
        }
    }

    #[test]
    fn rule_1_only_a_probe_makes_it_rejected_and_takes_it_back() {
        let mut world = World::new();
        assert_eq!(world.on(Event::Refused), Some(Reaction::Wait));
        assert_eq!((world.machine.state(), world.asked.len()), (State::Suspect, 1), "it is asked about at once");
        assert_eq!(world.on(Event::Refused), Some(Reaction::Wait), "one more waits for the same probe");
        assert_eq!(world.probed(Conclusion::Rejected), State::Rejected);
        assert_eq!(world.on(Event::Refused), Some(Reaction::Now(Conclusion::Rejected)));
        world.on(Event::Succeeded);
        assert_eq!(world.machine.state(), State::Rejected, "a late answer does not take it back");
        world.wait();
        assert_eq!(world.probed(Conclusion::Accepted), State::Healthy);
    }

    #[test]
    fn rule_2_a_success_is_trusted_for_ten_seconds_and_false_alarms_count_for_less() {
        let mut world = World::new();
        world.on(Event::Succeeded);
        world.pass(9);
        assert_eq!(world.on(Event::Refused), Some(Reaction::Now(Conclusion::Unknown)));
        assert_eq!((world.machine.state(), world.asked.len()), (State::Healthy, 0));
        world.pass(1);
        let mut calm = Vec::new();
        assert_eq!(world.on(Event::Refused), Some(Reaction::Wait));
        for _ in 0..7 {
            assert_eq!(world.probed(Conclusion::Accepted), State::Healthy);
            let start = world.now;
            while world.on(Event::Refused) == Some(Reaction::Now(Conclusion::Accepted)) {
                world.pass(1);
            }
            calm.push((world.now - start).as_secs());
        }
        assert_eq!(calm, [10, 20, 40, 80, 160, 300, 300]);
    }

    #[test]
    fn rule_7_a_denial_of_an_earlier_success_is_probed_however_recent_it_is() {
        let mut world = World::new();
        world.on(Event::Succeeded);
        assert_eq!(world.on(Event::Doubted), Some(Reaction::Wait));
        assert_eq!((world.machine.state(), world.asked.len()), (State::Healthy, 1), "it stays in use");
        let mut quiet = Vec::new();
        for _ in 0..7 {
            assert_eq!(world.probed(Conclusion::Accepted), State::Healthy);
            let start = world.now;
            while world.on(Event::Doubted) == Some(Reaction::Now(Conclusion::Accepted)) {
                world.pass(1);
            }
            quiet.push((world.now - start).as_secs());
        }
        assert_eq!(quiet, [10, 20, 40, 80, 160, 300, 300]);
        world.probed(Conclusion::Unknown);
        assert_eq!(world.on(Event::Doubted), Some(Reaction::Now(Conclusion::Accepted)), "nor without a conclusion");
        world.pass(10);
        assert_eq!(world.on(Event::Refused), Some(Reaction::Wait), "a refusal like an invalid token's is looked into");
    }

    #[test]
    fn rule_7_two_rejections_end_a_token_that_was_only_denied() {
        let mut world = World::new();
        world.on(Event::Doubted);
        assert_eq!(world.probed(Conclusion::Rejected), State::Suspect);
        for event in [Event::Doubted, Event::Refused] {
            assert_eq!(world.on(event), Some(Reaction::Now(Conclusion::Rejected)), "that much is known");
        }
        assert_eq!(world.wait(), 10);
        assert_eq!(world.probed(Conclusion::Rejected), State::Rejected);
        assert_eq!(world.on(Event::Doubted), Some(Reaction::Now(Conclusion::Rejected)));
        world.wait();
        assert_eq!(world.probed(Conclusion::Accepted), State::Healthy);
        world.pass(10);
        assert_eq!(world.on(Event::Doubted), Some(Reaction::Wait), "it begins anew");
    }

    #[test]
    fn rule_8_a_success_after_a_refusal_disproves_it() {
        let mut world = World::new();
        world.on(Event::Succeeded);
        world.pass(1);
        for _ in 0..3 {
            assert_eq!(world.on(Event::Refused), Some(Reaction::Now(Conclusion::Unknown)), "it may have just died");
        }
        world.pass(1);
        world.on(Event::Succeeded);
        for _ in 0..9 {
            assert_eq!(world.on(Event::Refused), Some(Reaction::Now(Conclusion::Accepted)));
            world.pass(1);
        }
        world.pass(1);
        assert_eq!(world.on(Event::Refused), Some(Reaction::Wait), "and then it is asked about");
        world.probed(Conclusion::Rejected);
        assert_eq!(world.machine.state(), State::Rejected);
    }

    #[test]
    fn rule_3_a_success_since_the_probe_outweighs_it() {
        let mut world = World::new();
        world.on(Event::Refused);
        world.pass(1);
        world.on(Event::Succeeded);
        assert_eq!(world.probed(Conclusion::Rejected), State::Suspect, "one of two servers has lost its database");
        assert_eq!(world.wait(), 9);
        assert_eq!(world.probed(Conclusion::Rejected), State::Rejected);
    }

    #[test]
    fn rules_4_and_5_waits_grow_to_five_minutes_and_begin_again() {
        let mut world = World::new();
        world.on(Event::Refused);
        let waits = |world: &mut World, conclusion| {
            let one = |_| {
                world.probed(conclusion);
                world.wait()
            };
            (0..6).map(one).collect::<Vec<_>>()
        };
        assert_eq!(waits(&mut world, Conclusion::Rejected), [30, 60, 120, 240, 300, 300]);
        world.probed(Conclusion::Rejected);
        world.on(Event::LookAgain);
        assert_eq!(world.wait(), 10, "not sooner after the last one");
        assert_eq!(waits(&mut world, Conclusion::Rejected), [30, 60, 120, 240, 300, 300]);
        world.probed(Conclusion::Unknown);
        world.pass(100);
        let asked = world.asked.len();
        world.on(Event::LookAgain);
        assert_eq!(world.asked.len(), asked + 1, "at once");
        let mut suspect = World::new();
        suspect.on(Event::Refused);
        assert_eq!(waits(&mut suspect, Conclusion::Unknown), [30, 60, 120, 240, 300, 300]);
        assert_eq!(suspect.machine.state(), State::Suspect);
    }

    #[test]
    fn rule_6_a_standby_is_asked_about_while_it_is_healthy() {
        let mut world = World::new();
        world.on(Event::StandsBy(true));
        assert_eq!((world.asked.len(), world.probed(Conclusion::Accepted)), (1, State::Healthy));
        world.on(Event::StandsBy(true));
        world.pass(800);
        world.on(Event::Succeeded);
        assert_eq!(world.wait(), 900, "it succeeded meanwhile");
        assert_eq!(world.probed(Conclusion::Rejected), State::Suspect);
        assert_eq!(world.wait(), 10);
        assert_eq!(world.probed(Conclusion::Rejected), State::Rejected);
        world.on(Event::StandsBy(false));
        world.wait();
        world.probed(Conclusion::Accepted);
        assert_eq!(world.machine.due(), None);
    }

    /// An event of the simulated world.
    #[derive(Debug, Clone, Copy)]
    enum SimulatedEvent {
        Refused,
        Doubted,
        Succeeded,
        LookAgain,
        Dies,
        Lives,
        /// The current probe gets a truthful response.
        Answered,
        /// The current probe gets no response.
        Unanswered,
        /// A server gives a wrong response.
        Odd,
    }

    fn happenings() -> impl Strategy<Value = Vec<(SimulatedEvent, u64)>> {
        let one = prop_oneof![
            6 => Just(SimulatedEvent::Refused),
            2 => Just(SimulatedEvent::Doubted),
            3 => Just(SimulatedEvent::Succeeded),
            1 => Just(SimulatedEvent::LookAgain),
            1 => Just(SimulatedEvent::Dies),
            1 => Just(SimulatedEvent::Lives),
            8 => Just(SimulatedEvent::Answered),
            2 => Just(SimulatedEvent::Unanswered),
            1 => Just(SimulatedEvent::Odd),
        ];
        let seconds = prop_oneof![3 => 0..3_u64, 2 => 3..40_u64, 1 => 40..700_u64];
        proptest::collection::vec((one, seconds), 1..150)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(500))]

        /// A healthy token is never refused longer than one probe takes; a dead one is never probed more often than the
        /// budget allows.
        #[test]
        fn any_sequence_of_answers_and_clocks(happenings in happenings()) {
            let (mut world, mut lives) = (World::new(), true);
            let mut last = Conclusion::Unknown;
            // Consecutive probes without an event that restarts the waits.
            let mut undisturbed: Vec<Instant> = Vec::new();
            for (happening, seconds) in happenings {
                let before = (world.machine, world.now, world.asked.len());
                match happening {
                    SimulatedEvent::Refused => {
                        let (machine, now, _) = before;
                        _ = world.on(Event::Refused);
                        let is_trusted = machine.proven.is_some_and(|proven| now < proven + TRUST);
                        if machine.state == State::Healthy && is_trusted {
                            prop_assert_eq!(world.machine.state, State::Healthy, "within ten seconds of a success");
                        }
                    }
                    SimulatedEvent::Doubted => {
                        _ = world.on(Event::Doubted);
                        prop_assert_eq!(world.machine.state, before.0.state, "only a probe changes it");
                    }
                    SimulatedEvent::Succeeded if lives => {
                        world.on(Event::Succeeded);
                        undisturbed.clear();
                    }
                    SimulatedEvent::Succeeded => {}
                    SimulatedEvent::LookAgain => {
                        world.on(Event::LookAgain);
                        undisturbed.clear();
                    }
                    SimulatedEvent::Dies => lives = false,
                    SimulatedEvent::Lives => lives = true,
                    SimulatedEvent::Answered | SimulatedEvent::Unanswered | SimulatedEvent::Odd if !world.machine.asking => {}
                    SimulatedEvent::Unanswered => _ = world.probed(Conclusion::Unknown),
                    SimulatedEvent::Answered | SimulatedEvent::Odd => {
                        let is_odd = matches!(happening, SimulatedEvent::Odd);
                        last = if lives == is_odd { Conclusion::Rejected } else { Conclusion::Accepted };
                        let state = world.probed(last);
                        prop_assert!(last == Conclusion::Rejected || state == State::Healthy, "one probe ends it");
                    }
                }
                let machine = world.machine;
                if machine.state == State::Rejected {
                    prop_assert_eq!(last, Conclusion::Rejected, "a probe said so");
                }
                if machine.state != State::Healthy && !machine.asking {
                    let due = machine.due;
                    prop_assert!(due.is_some_and(|due| due <= world.now + settings().probe_at_most), "never for ever");
                }
                world.pass(seconds);
                undisturbed.extend(world.asked.get(before.2..).into_iter().flatten());
                if machine.state != State::Rejected {
                    undisturbed.clear();
                }
                for (index, pair) in undisturbed.windows(2).enumerate().skip(1) {
                    let least = (30 << (index - 1).min(4)).min(300);
                    prop_assert!((pair[1] - pair[0]).as_secs() >= least, "{:?} is less than {}", pair, least);
                }
            }
            for pair in world.asked.windows(2) {
                prop_assert!(pair[1] - pair[0] >= TRUST);
            }
        }

        /// A dead token that is used is always detected.
        #[test]
        fn a_dead_token_that_is_used_is_found_out(happenings in happenings()) {
            let mut world = World::new();
            for (happening, seconds) in happenings {
                if matches!(happening, SimulatedEvent::Refused) {
                    world.on(Event::Refused);
                } else if matches!(happening, SimulatedEvent::Succeeded) {
                    world.on(Event::Succeeded);
                } else if world.machine.asking {
                    world.probed(Conclusion::Accepted);
                }
                world.pass(seconds);
            }
            for _ in 0..320 {
                world.on(Event::Refused);
                if world.machine.asking {
                    world.probed(Conclusion::Rejected);
                }
                world.pass(1);
            }
            prop_assert_eq!(world.machine.state(), State::Rejected);
        }
    }
}

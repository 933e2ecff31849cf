//! Deadlines that move without touching a timer.
//!
//! A deadline moves with every piece of a body, and resetting a timer each time costs more than the piece. A watchdog
//! leaves its timer in place when the deadline moves away, and checks the deadline when the timer fires: one wheel entry
//! for many requests. Workers keep idle watchdogs for the next request.

use std::cell::RefCell;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

/// A deadline that can move.
#[derive(Debug)]
pub struct Watchdog {
    timer: Pin<Box<Sleep>>,
}

impl Watchdog {
    /// A watchdog that is first woken at `deadline`.
    #[must_use]
    pub fn new(deadline: Instant) -> Self {
        Self { timer: Box::pin(sleep_until(deadline)) }
    }

    /// Ready when `deadline` has passed. Otherwise the task is woken at the deadline, or before it if the deadline moved
    /// away since the last call.
    pub fn poll_passed(&mut self, context: &mut Context<'_>, deadline: Instant) -> Poll<()> {
        if deadline < self.timer.deadline() {
            self.timer.as_mut().reset(deadline);
        }
        while self.timer.as_mut().poll(context).is_ready() {
            if Instant::now() >= deadline {
                return Poll::Ready(());
            }
            self.timer.as_mut().reset(deadline);
        }
        Poll::Pending
    }
}

/// The idle watchdogs of a worker.
#[derive(Debug, Default)]
pub struct Watchdogs {
    idle: RefCell<Vec<Watchdog>>,
}

/// The maximum number of idle watchdogs. More requests than this wait at once in a worker only for moments.
const MOST_IDLE: usize = 256;

impl Watchdogs {
    /// Takes an idle watchdog, or creates one that fires after `within`.
    #[must_use]
    pub fn take(&self, within: Duration) -> Watchdog {
        let idle = self.idle.borrow_mut().pop();
        idle.unwrap_or_else(|| Watchdog::new(Instant::now() + within))
    }

    /// Keeps a watchdog for the next request.
    pub fn give_back(&self, watchdog: Watchdog) {
        let mut idle = self.idle.borrow_mut();
        if idle.len() < MOST_IDLE {
            idle.push(watchdog);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_deadline_that_moves_away_is_waited_for() {
        let start = Instant::now();
        let mut watchdog = Watchdog::new(start + Duration::from_secs(1));
        poll_fn(|context| watchdog.poll_passed(context, start + Duration::from_secs(5))).await;
        assert_eq!(start.elapsed().as_secs(), 5);
    }

    #[tokio::test(start_paused = true)]
    async fn a_deadline_that_comes_nearer_is_kept() {
        let start = Instant::now();
        let mut watchdog = Watchdog::new(start + Duration::from_secs(100));
        poll_fn(|context| watchdog.poll_passed(context, start + Duration::from_secs(2))).await;
        assert_eq!(start.elapsed().as_secs(), 2);
    }
}

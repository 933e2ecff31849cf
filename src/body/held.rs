//! Bodies that wait until the upstream asks for them with 100 (Continue).

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::time::{Sleep, sleep};

/// The maximum time that a body waits to be requested before it is sent anyway: the upstream may not support `Expect`, and
/// a client must not wait indefinitely (RFC 9110, section 10.1.1).
const PATIENCE: Duration = Duration::from_secs(1);

/// Holds a body back until the upstream asks for it with 100 (Continue).
pub struct Held {
    asked: ContinueSignal,
    patience: Pin<Box<Sleep>>,
}

/// The upstream's decision about a body that is held back.
#[derive(Clone, Default)]
pub struct ContinueSignal(Rc<RefCell<(Option<ContinueDecision>, Option<Waker>)>>);

/// A decision of the upstream about a body that is held back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContinueDecision {
    /// The upstream asked for the body.
    Wanted,
    /// The upstream responds without it. The body keeps waiting: ending it now would end the connection and the response.
    NotWanted,
    /// The response is complete.
    Over,
}

impl Held {
    /// Holds a body until `asked` has a decision.
    #[must_use]
    pub fn new(asked: ContinueSignal) -> Self {
        Self { asked, patience: Box::pin(sleep(PATIENCE)) }
    }

    /// Ready when the upstream has decided, or has been silent for too long.
    pub fn poll_decision(&mut self, context: &mut Context<'_>) -> Poll<ContinueDecision> {
        let said = {
            let mut state = self.asked.0.borrow_mut();
            state.1 = Some(context.waker().clone());
            state.0
        };
        match said {
            Some(ContinueDecision::NotWanted) => Poll::Pending,
            Some(said) => Poll::Ready(said),
            None => self.patience.as_mut().poll(context).map(|()| ContinueDecision::Wanted),
        }
    }
}

impl ContinueSignal {
    /// Records a decision of the upstream. A request for the body is final.
    pub fn decide(&self, say: ContinueDecision) {
        let mut state = self.0.borrow_mut();
        if state.0 != Some(ContinueDecision::Wanted) {
            state.0 = Some(say);
        }
        if let Some(waker) = state.1.take() {
            waker.wake();
        }
    }
}

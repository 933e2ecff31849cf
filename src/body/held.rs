//! Bodies that wait until the upstream asks for them with 100 (Continue).

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::time::{Sleep, sleep};

/// How long a body waits to be asked for, before it is sent unasked: an upstream need not know of `Expect`, and a
/// client must not wait for ever (RFC 9110, section 10.1.1).
const PATIENCE: Duration = Duration::from_secs(1);

/// Holds a body back until the upstream asks for it with 100 (Continue).
pub struct Held {
    asked: UpstreamSay,
    patience: Pin<Box<Sleep>>,
}

/// The upstream's say on a body that is held back.
#[derive(Clone, Default)]
pub struct UpstreamSay(Rc<RefCell<(Option<Say>, Option<Waker>)>>);

/// What the upstream said of a body that is held back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Say {
    /// It asked for it.
    Wanted,
    /// It answers without it. The body still waits: to end it now would end the connection, and the answer with it.
    NotWanted,
    /// Its answer is over.
    Over,
}

impl Held {
    /// Held until `asked` says something.
    #[must_use]
    pub fn new(asked: UpstreamSay) -> Self {
        Self { asked, patience: Box::pin(sleep(PATIENCE)) }
    }

    /// Ready when the upstream has said something, or nothing for too long.
    pub fn poll_say(&mut self, context: &mut Context<'_>) -> Poll<Say> {
        let said = {
            let mut state = self.asked.0.borrow_mut();
            state.1 = Some(context.waker().clone());
            state.0
        };
        match said {
            Some(Say::NotWanted) => Poll::Pending,
            Some(said) => Poll::Ready(said),
            None => self.patience.as_mut().poll(context).map(|()| Say::Wanted),
        }
    }
}

impl UpstreamSay {
    /// The upstream said something. What it asked for, it cannot refuse any more.
    pub fn decide(&self, say: Say) {
        let mut state = self.0.borrow_mut();
        if state.0 != Some(Say::Wanted) {
            state.0 = Some(say);
        }
        if let Some(waker) = state.1.take() {
            waker.wake();
        }
    }
}

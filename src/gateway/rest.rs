//! The rest of a refused request: its body, which nobody wants, on HTTP/1.1.
//!
//! 1. What is there or comes at once is read and thrown away, up to [`MOST`]: a small write that may not be done costs its
//!    caller no connection.
//! 2. If that was not the end, the answer says `Connection: close`, as nothing can follow it (RFC 9112, section 9.6).
//! 3. A body that waits to be asked for (`Expect: 100-continue`) is not asked for, so rule 2 holds.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::Body;
use hyper::body::Incoming;

use super::exchange::Exchange;
use crate::policy::rejection::Rejection;

/// So much of it is read.
const MOST: usize = 64 * 1024;

/// hyper reads the body when it is asked for it, and passes it on at its next turn; what came with the header, or right
/// behind it, is there after so many.
const TURNS: u8 = 3;

/// A refusal, and the body that is read before it is said.
pub struct Rest {
    rejection: Rejection,
    body: Incoming,
    left: usize,
    turns: u8,
}

impl Rest {
    /// Of a request that is refused for this.
    pub const fn new(rejection: Rejection, body: Incoming) -> Self {
        Self { rejection, body, left: MOST, turns: TURNS }
    }

    /// The refusal.
    pub fn into_rejection(self) -> Rejection {
        self.rejection
    }

    /// Ready when it is time to say the refusal.
    pub fn poll_end(&mut self, exchange: &Exchange, context: &mut Context<'_>) -> Poll<()> {
        loop {
            match Pin::new(&mut self.body).poll_frame(context) {
                Poll::Ready(None) => {
                    exchange.request_completed();
                    break;
                }
                Poll::Ready(Some(Err(_))) => break,
                Poll::Ready(Some(Ok(frame))) => {
                    let length = frame.data_ref().map_or(0, Bytes::len);
                    if length > self.left {
                        break;
                    }
                    self.left -= length;
                }
                Poll::Pending if self.turns == 0 => break,
                Poll::Pending => {
                    self.turns -= 1;
                    context.waker().wake_by_ref();
                    return Poll::Pending;
                }
            }
        }
        Poll::Ready(())
    }
}

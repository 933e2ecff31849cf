//! The rest of a refused request on HTTP/1.1: its unwanted body.
//!
//! 1. Body bytes that have arrived or arrive at once are read and discarded, up to [`MOST`]: a small refused write does
//!    not cost the caller its connection.
//! 2. If the body has not ended then, the response contains `Connection: close`, because no request can follow (RFC 9112,
//!    section 9.6).
//! 3. A body that waits for permission (`Expect: 100-continue`) is not requested, so rule 2 holds.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::Body;
use hyper::body::Incoming;

use super::exchange::Exchange;
use crate::policy::rejection::Rejection;

/// The maximum number of body bytes that are read.
const MOST: usize = 64 * 1024;

/// The number of turns to wait. hyper reads the body on demand and passes it on at its next turn; bytes that arrived with
/// the header, or right after it, are available after this many turns.
const TURNS: u8 = 3;

/// A refusal, and the body that is drained before the response is sent.
pub struct Drain {
    rejection: Rejection,
    body: Incoming,
    left: usize,
    turns: u8,
}

impl Drain {
    /// Creates the state for a request that is refused with `rejection`.
    pub const fn new(rejection: Rejection, body: Incoming) -> Self {
        Self { rejection, body, left: MOST, turns: TURNS }
    }

    /// Returns the refusal.
    pub fn into_rejection(self) -> Rejection {
        self.rejection
    }

    /// Drains the body; ready when the refusal can be sent.
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

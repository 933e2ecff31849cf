//! Ahead: what is read of a request's body before it goes on, and what looks through the rest as it goes by.

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::Frame;

use super::budget::Charge;
use super::exchange::Exchange;
use crate::policy::decide::Shadowed;
use crate::policy::rules::{Breach, Parts};

/// What of a body was read before it goes on. In one piece: as many as its caller made of it could take much more memory.
pub struct Ahead {
    charge: Charge,
    /// The bytes.
    pub data: BytesMut,
    /// The frame behind them, which came and for which there was no room: it goes on as it is.
    pub unfit: Option<Bytes>,
    /// What stood behind them.
    pub trailers: Option<HeaderMap>,
    /// That was all.
    pub over: bool,
}

/// The first step of the memory for a body, which doubles from there.
const FIRST_STEP: usize = 4 * 1024;

impl Ahead {
    /// Nothing yet.
    pub fn new(exchange: &Exchange) -> Self {
        let charge = Charge::new(exchange.worker().ahead.clone(), exchange.connection.transport.clone());
        Self { charge, data: BytesMut::new(), unfit: None, trailers: None, over: false }
    }

    /// Whether there is memory for so many more bytes, or for all that are `expected`: so of many bodies at once the first are
    /// read whole, and not all of them in part.
    pub fn make_room(&mut self, more: usize, expected: usize) -> bool {
        let (needed, has) = ((self.data.len() + more).max(expected), self.charge.bytes());
        if needed <= has {
            return true;
        }
        let wanted = needed.max(has * 2).max(FIRST_STEP);
        let grown = self.charge.grow_to(wanted) || self.charge.grow_to(needed);
        if grown {
            self.data.reserve(self.charge.bytes() - self.data.len());
        }
        grown
    }

    /// Takes `data` in, where there is memory for it; whether there is. It is kept in any case.
    pub fn take(&mut self, data: Bytes) -> bool {
        let fits = self.make_room(data.len(), 0);
        if fits {
            self.data.extend_from_slice(&data);
        } else {
            self.unfit = Some(data);
        }
        fits
    }

    /// How much was read.
    pub fn len(&self) -> usize {
        self.data.len() + self.unfit.as_ref().map_or(0, Bytes::len)
    }

    /// The next frame of it.
    pub fn next(&mut self) -> Option<Frame<Bytes>> {
        if !self.data.is_empty() {
            return Some(Frame::data(self.data.split().freeze()));
        }
        if let Some(unfit) = self.unfit.take() {
            return Some(Frame::data(unfit));
        }
        self.trailers.take().map(Frame::trailers)
    }

    /// Whether all of it has gone on.
    pub fn has_gone(&self) -> bool {
        self.data.is_empty() && self.unfit.is_none() && self.trailers.is_none()
    }
}

/// What looks through the parts of a body.
pub struct Watch {
    parts: Parts,
    enforce: bool,
}

impl Watch {
    /// Looks through the whole of a body with `parts`; what breaks a rule is refused, or only said.
    pub const fn new(parts: Parts, enforce: bool) -> Self {
        Self { parts, enforce }
    }

    /// Looks through the next piece; whether there is more to look for.
    pub fn feed(&mut self, piece: &[u8], exchange: &Exchange) -> Result<bool, Breach> {
        match self.parts.feed(piece) {
            Ok(()) => Ok(true),
            Err(breach) if self.enforce => Err(breach),
            Err(breach) => {
                exchange.would_refuse(Shadowed { reason: breach.reason(), breach: Some(breach) });
                Ok(false)
            }
        }
    }
}

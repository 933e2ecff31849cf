//! The part of a request's body that is read before it is forwarded, and the check of the rest as it passes.

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::Frame;

use super::RequestProgress;
use super::budget::Charge;
use crate::policy::decide::Shadowed;
use crate::policy::rules::{Breach, Parts};

/// The bytes of a body that were read ahead, in one piece: the caller's own small pieces could take much more memory.
pub struct Ahead {
    charge: Charge,
    /// The bytes.
    pub data: BytesMut,
    /// A received frame that exceeds the budget; it is forwarded behind `data` unchanged.
    pub unfit: Option<Bytes>,
    /// The trailers behind the bytes.
    pub trailers: Option<HeaderMap>,
    /// Whether the body is complete.
    pub over: bool,
}

/// The initial memory for a body, which doubles from there.
const FIRST_STEP: usize = 4 * 1024;

impl Ahead {
    /// An empty buffer, charged to `charge`.
    pub fn new(charge: Charge) -> Self {
        Self { charge, data: BytesMut::new(), unfit: None, trailers: None, over: false }
    }

    /// Reserves memory for `more` bytes, or for all that are `expected`. Returns whether there is enough. Reserving the
    /// expected length lets the first of many parallel bodies complete, rather than none.
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

    /// Appends `data` if there is memory for it, and returns whether there is. Otherwise keeps it in `unfit`.
    pub fn take(&mut self, data: Bytes) -> bool {
        let fits = self.make_room(data.len(), 0);
        if fits {
            self.data.extend_from_slice(&data);
        } else {
            self.unfit = Some(data);
        }
        fits
    }

    /// The memory that the buffer is charged with.
    pub const fn charged(&self) -> usize {
        self.charge.bytes()
    }

    /// The number of bytes held.
    pub fn len(&self) -> usize {
        self.data.len() + self.unfit.as_ref().map_or(0, Bytes::len)
    }

    /// The next frame to forward.
    pub fn next(&mut self) -> Option<Frame<Bytes>> {
        if !self.data.is_empty() {
            return Some(Frame::data(self.data.split().freeze()));
        }
        if let Some(unfit) = self.unfit.take() {
            return Some(Frame::data(unfit));
        }
        self.trailers.take().map(Frame::trailers)
    }

    /// Whether everything has been forwarded.
    pub fn has_gone(&self) -> bool {
        self.data.is_empty() && self.unfit.is_none() && self.trailers.is_none()
    }
}

/// Checks the parts of a body as it passes.
pub struct Watch {
    parts: Parts,
    enforce: bool,
}

impl Watch {
    /// A check with `parts` of a whole body; a broken rule is an error or, unless `enforce`, only reported.
    pub const fn new(parts: Parts, enforce: bool) -> Self {
        Self { parts, enforce }
    }

    /// Checks the next piece. Returns whether to check further pieces.
    pub fn feed(&mut self, piece: &[u8], progress: &dyn RequestProgress) -> Result<bool, Breach> {
        match self.parts.feed(piece) {
            Ok(()) => Ok(true),
            Err(breach) if self.enforce => Err(breach),
            Err(breach) => {
                progress.would_refuse(Shadowed { reason: breach.reason(), breach: Some(breach) });
                Ok(false)
            }
        }
    }
}

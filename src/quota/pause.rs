//! The pause after a refusal by Metrica (rule 9 of the module).

use super::clock::Micros;

/// A pause that doubles with each refusal. When it is over, one request is sent; the next follows after another pause,
/// unless that one was not refused.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Pause {
    length: Micros,
    pub(super) until: Micros,
    refused: Micros,
}

impl Pause {
    /// None.
    pub(super) const NONE: Self = Self { length: 0, until: 0, refused: 0 };

    pub(super) const fn is_on(&self) -> bool {
        self.length > 0
    }

    pub(super) fn refuse(&mut self, at: Micros, first: Micros, longest: Micros) {
        // Requests that were in flight together are one refusal.
        if self.length == 0 || at >= self.refused.saturating_add(self.length) {
            self.length = self.length.saturating_mul(2).clamp(first, longest);
        }
        self.refused = at;
        self.until = at.saturating_add(self.length);
    }

    /// A request begins.
    pub(super) const fn begin(&mut self, at: Micros) {
        if self.length > 0 {
            self.until = at.saturating_add(self.length);
        }
    }

    /// A request that began at `started` was not refused. Returns whether that ends the pause.
    pub(super) const fn fine(&mut self, started: Micros) -> bool {
        let ends = self.length > 0 && started > self.refused;
        if ends {
            *self = Self::NONE;
        }
        ends
    }
}

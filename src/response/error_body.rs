//! The body of an error, looked at while it passes.
//!
//! 1. A bounded copy of its first bytes is kept.
//! 2. One that is compressed with gzip is read as what it holds; one in another coding has no reason but `other`.

use std::io::Read;

use metrica::error_type::{ErrorType, LOOKED_AT};

use super::coding::Coding;

/// A bounded copy of a body that may say why Metrica refused.
#[derive(Debug)]
pub struct ErrorBody {
    coding: Coding,
    copy: Vec<u8>,
}

impl ErrorBody {
    /// Of a body in this coding.
    #[must_use]
    pub const fn new(coding: Coding) -> Self {
        Self { coding, copy: Vec::new() }
    }

    /// A piece of the body passes.
    pub fn look_at(&mut self, piece: &[u8]) {
        let room = LOOKED_AT.saturating_sub(self.copy.len());
        self.copy.extend_from_slice(piece.get(..room.min(piece.len())).unwrap_or_default());
    }

    /// The type that the body has.
    #[must_use]
    pub fn error_type(&self) -> ErrorType {
        error_type(self.coding, &self.copy)
    }
}

/// The type that an error's body in this coding has (rule 2).
fn error_type(coding: Coding, body: &[u8]) -> ErrorType {
    match coding {
        Coding::Plain => ErrorType::in_body(body),
        Coding::Gzip => {
            let mut plain = Vec::new();
            let limit = u64::try_from(LOOKED_AT).unwrap_or(0);
            // One that is cut is read as far as it goes, which is then not JSON.
            let _ = flate2::read::GzDecoder::new(body).take(limit).read_to_end(&mut plain);
            ErrorType::in_body(&plain)
        }
        Coding::Other => ErrorType::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rule_2_gzip_is_read() {
        let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        std::io::Write::write_all(&mut packer, br#"{"errors":[{"error_type":"quota_parallel_requests"}]}"#).unwrap();
        let packed = packer.finish().unwrap();
        assert_eq!(error_type(Coding::Gzip, &packed), ErrorType::QuotaParallelRequests);
        assert_eq!(error_type(Coding::Gzip, &packed[..packed.len() / 2]), ErrorType::Other);
        assert_eq!(error_type(Coding::Other, &packed), ErrorType::Other);
    }

    #[test]
    fn rule_1_the_copy_is_bounded() {
        let mut refusal = ErrorBody::new(Coding::Plain);
        refusal.look_at(&[b' '; LOOKED_AT - 10]);
        refusal.look_at(&[b' '; 20]);
        assert_eq!(refusal.copy.len(), LOOKED_AT);
    }
}

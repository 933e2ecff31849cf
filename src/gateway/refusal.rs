//! The body of a refusal, looked at while it passes.
//!
//! 1. A bounded copy of its first bytes is kept; the body itself is not changed.
//! 2. One that is compressed with gzip is read as what it holds; one in another coding has no reason but `other`.

use std::io::Read;

use http::HeaderValue;

use crate::verdict::{ErrorType, LOOKED_AT};

/// A bounded copy of a body that may say why Metrica refused.
#[derive(Debug)]
pub struct Refusal {
    coding: Coding,
    copy: Vec<u8>,
}

impl Refusal {
    /// Of an answer with this `Content-Encoding`.
    #[must_use]
    pub fn new(coding: Option<&HeaderValue>) -> Self {
        Self { coding: Coding::of(coding), copy: Vec::new() }
    }

    /// A piece of the body passes.
    pub fn look_at(&mut self, piece: &[u8]) {
        let room = LOOKED_AT.saturating_sub(self.copy.len());
        self.copy.extend_from_slice(piece.get(..room.min(piece.len())).unwrap_or_default());
    }

    /// What the body said.
    #[must_use]
    pub fn error_type(&self) -> ErrorType {
        self.coding.error_type(&self.copy)
    }
}

/// How a body is packed (`Content-Encoding`, RFC 9110, section 8.4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Coding {
    /// Not at all.
    None,
    /// gzip.
    Gzip,
    /// In a way that is not read here.
    Other,
}

impl Coding {
    /// The coding that a field says.
    fn of(field: Option<&HeaderValue>) -> Self {
        let Some(field) = field else { return Self::None };
        let name = field.as_bytes().trim_ascii();
        let is = |known: &[&[u8]]| known.iter().any(|known| known.eq_ignore_ascii_case(name));
        if is(&[b"identity", b""]) {
            Self::None
        } else if is(&[b"gzip", b"x-gzip"]) {
            Self::Gzip
        } else {
            Self::Other
        }
    }

    /// The type that a refusal's body says, packed in this way (rule 2).
    fn error_type(self, body: &[u8]) -> ErrorType {
        match self {
            Self::None => ErrorType::in_body(body),
            Self::Gzip => {
                let mut plain = Vec::new();
                let limit = u64::try_from(LOOKED_AT).unwrap_or(0);
                // One that is cut is read as far as it goes, which is then not JSON.
                let _ = flate2::read::GzDecoder::new(body).take(limit).read_to_end(&mut plain);
                ErrorType::in_body(&plain)
            }
            Self::Other => ErrorType::Other,
        }
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
        assert_eq!(Coding::Gzip.error_type(&packed), ErrorType::QuotaParallelRequests);
        assert_eq!(Coding::Gzip.error_type(&packed[..packed.len() / 2]), ErrorType::Other);
        assert_eq!(Coding::of(Some(&HeaderValue::from_static("GZIP"))), Coding::Gzip);
        assert_eq!(Coding::of(Some(&HeaderValue::from_static("br"))), Coding::Other);
        assert_eq!(Coding::of(None), Coding::None);
    }

    #[test]
    fn rule_1_the_copy_is_bounded() {
        let mut refusal = Refusal::new(None);
        refusal.look_at(&[b' '; LOOKED_AT - 10]);
        refusal.look_at(&[b' '; 20]);
        assert_eq!(refusal.copy.len(), LOOKED_AT);
    }
}

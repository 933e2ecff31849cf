//! A copy of the body of an error, or of a changed counter, made while the body passes.
//!
//! 1. The copy is a bounded prefix of the body.
//! 2. A gzip body is decompressed before it is read; a body in another coding has no reason but `other`.
//! 3. A counter is read only if it is complete.

use std::borrow::Cow;
use std::io::Read;

use metrica::error_type::{ErrorType, LOOKED_AT};
use metrica::response::{Shown, counter_in};
use strict_http::{cut, number};

use super::coding::Coding;

/// A bounded copy of a body that may contain the reason of a refusal, or the owner of the token.
#[derive(Debug)]
pub struct ErrorBody {
    coding: Coding,
    copy: Vec<u8>,
}

impl ErrorBody {
    /// Creates an empty copy of a body in this coding.
    #[must_use]
    pub const fn new(coding: Coding) -> Self {
        Self { coding, copy: Vec::new() }
    }

    /// Appends a piece of the body, up to the bound.
    pub fn look_at(&mut self, piece: &[u8]) {
        let room = LOOKED_AT.saturating_sub(self.copy.len());
        self.copy.extend_from_slice(cut::at_most(piece, room).0);
    }

    /// Returns the error type in the body.
    #[must_use]
    pub fn error_type(&self) -> ErrorType {
        ErrorType::in_body(&plain(self.coding, &self.copy))
    }

    /// Returns the counter in the body.
    #[must_use]
    pub fn counter(&self) -> Option<Shown> {
        counter_in(&plain(self.coding, &self.copy))
    }
}

/// Decodes a body in this coding (rule 2).
fn plain(coding: Coding, body: &[u8]) -> Cow<'_, [u8]> {
    match coding {
        Coding::Plain => Cow::Borrowed(body),
        Coding::Gzip => {
            let mut plain = Vec::new();
            let limit = number::count(LOOKED_AT);
            // A truncated body is decoded as far as it goes; the result is then not JSON.
            let _ = flate2::read::GzDecoder::new(body).take(limit).read_to_end(&mut plain);
            Cow::Owned(plain)
        }
        Coding::Other => Cow::Borrowed(&[]),
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
        let error_type = |coding, body: &[u8]| ErrorBody { coding, copy: body.to_vec() }.error_type();
        assert_eq!(error_type(Coding::Gzip, &packed), ErrorType::QuotaParallelRequests);
        assert_eq!(error_type(Coding::Gzip, &packed[..packed.len() / 2]), ErrorType::Other);
        assert_eq!(error_type(Coding::Other, &packed), ErrorType::Other);
    }

    #[test]
    fn rule_3_a_counter_with_permission_own_names_the_owner_of_the_token() {
        let own = r#"{"counter":{"id":5,"owner_login":"shop","permission":"own"}}"#;
        let owner = |body: &str| {
            ErrorBody { coding: Coding::Plain, copy: body.as_bytes().to_vec() }.counter()?.owner().map(Box::<str>::from)
        };
        assert_eq!(owner(own).as_deref(), Some("shop"));
        assert_eq!((owner(&own.replace("\"own", "\"edit")), owner(&own[..own.len() - 1])), (None, None));
    }

    #[test]
    fn rule_1_the_copy_is_bounded() {
        let mut refusal = ErrorBody::new(Coding::Plain);
        refusal.look_at(&[b' '; LOOKED_AT - 10]);
        refusal.look_at(&[b' '; 20]);
        assert_eq!(refusal.copy.len(), LOOKED_AT);
    }
}

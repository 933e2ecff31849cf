//! The search for the token in a body of any coding.

use bytes::Bytes;

use super::coding::Coding;
use super::compressed::{Compressed, Step};
use super::redaction::{RedactedPiece, Redactor};
use crate::token::secret::Secret;

/// The search through one body.
pub enum Scan {
    /// An uncompressed body: the token is overwritten. Holds the searched bytes that are to be passed on.
    Plain(Redactor, RedactedPiece),
    /// A gzip body: the token ends it. Boxed because it is large, and few bodies are compressed.
    Compressed(Box<Compressed>),
}

impl Scan {
    /// Creates the search for the response to a request with this token; `body`: the coding of its body, if it has one.
    pub fn new(body: Option<Coding>, secret: &Secret) -> Self {
        match body {
            Some(Coding::Gzip) => Self::Compressed(Box::new(Compressed::new(secret.clone()))),
            Some(Coding::Plain | Coding::Other) | None => {
                Self::Plain(Redactor::new(secret.clone()), RedactedPiece::default())
            }
        }
    }

    /// Adds a piece, after [`Step::NeedInput`]; `last`: it is the last. Returns whether it contained the token, which was
    /// overwritten. `seen` is called with the bytes to be passed on.
    pub fn push(&mut self, piece: Bytes, last: bool, mut seen: impl FnMut(&[u8])) -> bool {
        match self {
            Self::Plain(scrubber, scrubbed) => {
                *scrubbed = scrubber.scrub(piece, last);
                seen(&scrubbed.before);
                seen(&scrubbed.piece);
                scrubbed.hit
            }
            Self::Compressed(compressed) => {
                seen(&piece);
                compressed.push(piece);
                if last {
                    compressed.finish();
                }
                false
            }
        }
    }

    /// Marks the end of the body. `seen` is called with the bytes to be passed on.
    pub fn finish(&mut self, mut seen: impl FnMut(&[u8])) {
        match self {
            Self::Plain(scrubber, scrubbed) => {
                scrubbed.before = scrubber.finish();
                seen(&scrubbed.before);
            }
            Self::Compressed(compressed) => compressed.finish(),
        }
    }

    /// Runs the search until its next result.
    pub fn step(&mut self) -> Step {
        match self {
            Self::Plain(_, scrubbed) => {
                let next = [&mut scrubbed.before, &mut scrubbed.piece].into_iter().find(|piece| !piece.is_empty());
                next.map_or(Step::NeedInput, |piece| Step::Piece(std::mem::take(piece)))
            }
            Self::Compressed(compressed) => compressed.step(),
        }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn the_observed_bytes_are_the_forwarded_bytes() {
        let secret = Secret::of(&HeaderValue::from_static("OAuth secretsecret")).unwrap();
        let mut scan = Scan::new(Some(Coding::Plain), &secret);
        let (mut seen, mut out, mut hits) = (Vec::new(), Vec::new(), 0);
        let mut drain = |scan: &mut Scan| {
            while let Step::Piece(piece) = scan.step() {
                out.extend_from_slice(&piece);
            }
        };
        for piece in ["a secret", "secret and a secretsec"] {
            hits += usize::from(scan.push(Bytes::from(piece), false, |bytes| seen.extend_from_slice(bytes)));
            drain(&mut scan);
        }
        scan.finish(|bytes| seen.extend_from_slice(bytes));
        drain(&mut scan);
        assert_eq!(String::from_utf8(out.clone()).unwrap(), "a ************ and a secretsec");
        assert_eq!((seen, hits), (out, 1));
    }
}

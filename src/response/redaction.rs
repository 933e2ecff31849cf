//! Step 3, redaction: the token of a request does not reach its caller, in any part of the response. The step
//! drops fields; the body is searched as it passes ([`super::scan`]).
//!
//! 1. A field, a trailer or a field of an interim response that contains it is dropped.
//! 2. In an uncompressed body it is overwritten with `*`, byte for byte, so that no length changes.
//! 3. Bytes at the end of a piece that could begin it are held back until the next piece or the end decides. Nothing else
//!    waits, and held bytes are only counted: they are the token's own.
//! 4. A piece without it is passed on as it is, not copied.
//!
//! The search is for the literal token: percent-encoding and JSON leave its letters unchanged. A token that the upstream
//! transformed (base64, another case) is not found. `docs/decisions/0008` has the alternatives.

use super::ResponseProgress;
use super::fields::Listed;
use super::framing::Framed;
use crate::metrics::UpstreamError;
use crate::token::secret::Secret;
use bytes::{Bytes, BytesMut};
use strict_http::cut;

/// A head without the token.
pub struct Redacted(Framed);

impl Redacted {
    /// Returns the head for the next step.
    pub(super) fn into_inner(self) -> Framed {
        self.0
    }
}

/// Runs the step for the response to a request that was sent with `secret`.
pub fn redact(listed: Listed, secret: &Secret, progress: &dyn ResponseProgress) -> Redacted {
    let mut framed = listed.into_inner();
    if secret.take_from(framed.fields_mut()) {
        progress.upstream_error(UpstreamError::Reflected);
    }
    Redacted(framed)
}

/// Overwrites the token in a body (rules 2 to 4).
pub struct Redactor {
    secret: Secret,
    held: usize,
}

/// The result of a piece.
#[derive(Debug, Default)]
pub struct RedactedPiece {
    /// The bytes held back before that are now decided; often empty.
    pub before: Bytes,
    /// The part of the piece itself that is passed on.
    pub piece: Bytes,
    /// Whether the token was found.
    pub hit: bool,
}

impl Redactor {
    /// Creates the state for the response to a request with this token.
    #[must_use]
    pub const fn new(secret: Secret) -> Self {
        Self { secret, held: 0 }
    }

    /// Processes the next piece; nothing is held back after the `last`.
    pub fn scrub(&mut self, piece: Bytes, last: bool) -> RedactedPiece {
        let (mut overwritten, mut searched, mut across) = (Vec::new(), 0, None);
        let mut begun = None;
        if self.held > 0 {
            let joined = self.secret.joined(self.held, &piece);
            across = self.secret.find(&joined);
            if let Some(start) = across {
                searched = self.secret.token().len().saturating_sub(self.held - start);
                overwritten.push(0..searched);
            } else if piece.len() + 1 < self.secret.token().len() {
                begun = Some(self.secret.begun_in(&joined));
            }
        }
        while let Some(at) = piece.get(searched..).and_then(|rest| self.secret.find(rest)) {
            let start = searched + at;
            searched = start + self.secret.token().len();
            overwritten.push(start..searched);
        }
        let begun = match begun {
            _ if last => 0,
            Some(begun) => begun,
            None => self.secret.begun_in(cut::at_most(&piece, searched).1),
        };
        // The newly held bytes can include bytes that were held back before.
        let out = self.held + piece.len() - begun;
        let before = self.beginning(out.min(self.held), across);
        let mut piece = piece;
        piece.truncate(out.saturating_sub(self.held));
        self.held = begun;
        let hit = !overwritten.is_empty();
        RedactedPiece { before, piece: if hit { overwrite(piece, &overwritten) } else { piece }, hit }
    }

    /// Ends the body; returns the bytes that were held back.
    pub fn finish(&mut self) -> Bytes {
        self.scrub(Bytes::new(), true).before
    }

    /// Returns the first `length` of the held bytes, overwritten from `start` on.
    fn beginning(&self, length: usize, start: Option<usize>) -> Bytes {
        if length == 0 {
            return Bytes::new();
        }
        let mut bytes = BytesMut::from(cut::at_most(self.secret.token(), length).0);
        if let Some(rest) = start.and_then(|start| bytes.get_mut(start..)) {
            rest.fill(b'*');
        }
        bytes.freeze()
    }
}

fn overwrite(piece: Bytes, ranges: &[std::ops::Range<usize>]) -> Bytes {
    let mut bytes = BytesMut::from(piece);
    for range in ranges {
        if let Some(found) = bytes.get_mut(range.clone()) {
            found.fill(b'*');
        }
    }
    bytes.freeze()
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderName, HeaderValue};
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::response::fields::keep_listed;
    use crate::response::framing::tests::framed;
    use crate::response::progress::tests::RecordedProgress;
    use crate::token::SCHEME;
    use crate::token::secret::Watch;

    #[test]
    fn rule_1_the_step_drops_fields_and_tells_it_once() {
        let told = RecordedProgress::default();
        let fields = [("etag", "\"secretsecret\""), ("vary", "secretsecret"), ("age", "1")];
        let head = redact(keep_listed(framed(200, &fields)), &secret("secretsecret"), &told).into_inner();
        assert_eq!(head.fields().keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["age"]);
        let _ = redact(keep_listed(framed(200, &[("age", "1")])), &secret("secretsecret"), &told);
        assert_eq!(*told.errors.borrow(), [UpstreamError::Reflected]);
    }

    fn secret(token: &str) -> Secret {
        Secret::of(&HeaderValue::try_from(format!("{SCHEME}{token}")).unwrap()).unwrap()
    }

    fn contains(bytes: &[u8], token: &str) -> bool {
        bytes.windows(token.len()).any(|window| window == token.as_bytes())
    }

    /// Returns the whole body with every token overwritten.
    fn expected(body: &[u8], token: &str) -> Vec<u8> {
        let (mut bytes, mut at) = (body.to_vec(), 0);
        while at + token.len() <= bytes.len() {
            if bytes[at..].starts_with(token.as_bytes()) {
                bytes[at..at + token.len()].fill(b'*');
                at += token.len();
            } else {
                at += 1;
            }
        }
        bytes
    }

    /// Returns the output for a body in pieces. The last piece may or may not be marked as last.
    fn scrubbed(token: &str, pieces: &[&[u8]], last_is_known: bool) -> (Vec<u8>, bool) {
        let mut scrubber = Redactor::new(secret(token));
        let (mut out, mut hit) = (Vec::new(), false);
        for (index, piece) in pieces.iter().enumerate() {
            let last = last_is_known && index + 1 == pieces.len();
            let scrubbed = scrubber.scrub(Bytes::copy_from_slice(piece), last);
            out.extend_from_slice(&scrubbed.before);
            out.extend_from_slice(&scrubbed.piece);
            hit |= scrubbed.hit;
            assert!(!contains(&out, token));
            assert!(scrubber.held < token.len());
        }
        out.extend_from_slice(&scrubber.finish());
        (out, hit)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4_000))]

        /// any token, any body, any splitting. Few letters, so that beginnings and ends overlap.
        #[test]
        fn rules_2_and_3_nothing_of_it_comes_out_and_nothing_else_changes(
            token in "[ab]{1,6}|[a-c._-]{1,12}",
            body in vec(prop_oneof!["[ab]{0,9}".prop_map(String::into_bytes), vec(any::<u8>(), 0..4)], 0..12),
            at in vec(0_usize..8, 0..60),
            last_is_known: bool,
        ) {
            let mut body: Vec<u8> = body.concat();
            let middle = body.len() / 2;
            body.splice(middle..middle, token.bytes());
            let (mut rest, mut pieces) = (body.as_slice(), Vec::new());
            for length in at {
                let (piece, more) = rest.split_at(length.min(rest.len()));
                pieces.push(piece);
                rest = more;
            }
            pieces.push(rest);
            let (out, hit) = scrubbed(&token, &pieces, last_is_known);
            prop_assert_eq!(out, expected(&body, &token));
            prop_assert!(hit);
            let mut watch = Watch::default();
            prop_assert!(pieces.iter().any(|piece| watch.sees(&secret(&token), piece)));
        }
    }

    #[test]
    fn rule_1_fields_that_hold_it_go() {
        let mut fields = HeaderMap::new();
        for (name, value) in [("etag", "\"a\""), ("etag", "\"secretsecret\""), ("age", "1"), ("vary", "xsecretsecretx")]
        {
            fields.append(name, HeaderValue::from_static(value));
        }
        assert!(secret("secretsecret").take_from(&mut fields));
        assert_eq!(fields.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["age"]);
        assert!(!secret("secretsecret").take_from(&mut fields));
    }

    #[test]
    fn rule_3_only_a_beginning_waits() {
        let mut scrubber = Redactor::new(secret("secret"));
        let first = scrubber.scrub(Bytes::from_static(b"abc sec"), false);
        assert_eq!((&first.before[..], &first.piece[..]), (&b""[..], &b"abc "[..]));
        let second = scrubber.scrub(Bytes::from_static(b"ond"), false);
        assert_eq!((&second.before[..], &second.piece[..], second.hit), (&b"sec"[..], &b"ond"[..], false));
    }

    #[test]
    fn rule_4_a_piece_without_it_is_not_copied() {
        let body = Bytes::from(vec![b'x'; 100_000]);
        let out = Redactor::new(secret("y0_secret")).scrub(body.clone(), false);
        assert_eq!(out.piece.as_ptr(), body.as_ptr());
    }
}

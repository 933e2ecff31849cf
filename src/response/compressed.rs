//! Bodies that are compressed with gzip: decompressed beside the stream, to detect the token in them.
//!
//! 1. A piece is passed on once its whole content was searched and no end of it could begin the token; otherwise it waits
//!    for the next piece. No usable part of the token leaves.
//! 2. The token cannot be overwritten here, so a response that contains it ends before the piece that completes it.
//! 3. A body that is not gzip, or has bytes after the gzip data, cannot be searched and ends too. Several members are one
//!    body (RFC 1952, section 2.2). A body that breaks off is passed on: all of it was searched.
//! 4. The compressed bytes are searched as well: gzip stores names and comments in the clear.
//! 5. Memory is constant, and so is the work between two turns of the runtime, whatever the size of the decompressed
//!    data.

use std::collections::VecDeque;

use bytes::Bytes;
use flate2::{Decompress, FlushDecompress, Status};
use zeroize::Zeroizing;

use crate::token::secret::{Secret, Watch};

/// The number of bytes that are decompressed at once.
const WINDOW: usize = 16 * 1024;

/// The number of such windows before the task yields.
const TURN: usize = 32;

/// The maximum number of bytes that are held back for a possible beginning of the token. A few compressed bytes can hold
/// many.
const MOST_HELD: usize = 256 * 1024;

/// The base-2 logarithm of gzip's window.
const WINDOW_BITS: u8 = 15;

/// A body that is being searched.
pub struct Compressed {
    secret: Secret,
    inflater: Decompress,
    plain: Zeroizing<Vec<u8>>,
    in_plain: Watch,
    in_compressed: Watch,
    /// Whether no member is open, so that the body may end here.
    between: bool,
    /// The pieces, in order; all but the last were searched.
    pieces: VecDeque<Bytes>,
    /// The total number of their bytes.
    waiting: usize,
    /// The number of bytes of the last piece that were decompressed, and the size of the result.
    consumed: usize,
    inflated: usize,
    /// Whether all pieces were searched.
    seen: bool,
    /// The number of pieces at the front that may be passed on.
    free: usize,
    last: bool,
}

/// The result of a step.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// This piece is passed on.
    Piece(Bytes),
    /// The next piece is needed.
    NeedInput,
    /// More work is left for another turn of the runtime.
    Yield,
    /// The body contains the token.
    Found,
    /// The body cannot be searched.
    Unreadable,
}

impl Compressed {
    /// Creates the state for the response to a request with this token.
    #[must_use]
    pub fn new(secret: Secret) -> Self {
        Self {
            secret,
            inflater: Decompress::new_gzip(WINDOW_BITS),
            plain: Zeroizing::new(vec![0; WINDOW]),
            in_plain: Watch::default(),
            in_compressed: Watch::default(),
            between: true,
            pieces: VecDeque::new(),
            waiting: 0,
            consumed: 0,
            inflated: 0,
            seen: true,
            free: 0,
            last: false,
        }
    }

    /// Adds a piece, after the one before was searched ([`Step::NeedInput`]).
    pub fn push(&mut self, piece: Bytes) {
        if !piece.is_empty() {
            self.waiting += piece.len();
            self.pieces.push_back(piece);
            (self.consumed, self.inflated, self.seen) = (0, 0, false);
        }
    }

    /// Marks the end of the body.
    pub const fn finish(&mut self) {
        self.last = true;
    }

    /// Runs the search until its next result.
    pub fn step(&mut self) -> Step {
        if let Some(piece) = self.pieces.back().filter(|_| !self.seen).cloned() {
            if self.consumed == 0 && self.in_compressed.sees(&self.secret, &piece) {
                return Step::Found;
            }
            if let Some(end) = self.look_through(&piece) {
                return end;
            }
            self.seen = true;
            self.free = self.pieces.len() - self.held(&piece);
            if self.free == 0 && self.waiting > MOST_HELD && self.pieces.len() > 1 {
                return Step::Unreadable;
            }
        }
        if self.free == 0 && !self.last {
            return Step::NeedInput;
        }
        self.free = self.free.saturating_sub(1);
        let Some(piece) = self.pieces.pop_front() else { return Step::NeedInput };
        self.waiting -= piece.len();
        Step::Piece(piece)
    }

    /// Returns the number of pieces to hold back after `piece`, the last, was searched: those that contain a possible
    /// beginning of the token.
    fn held(&self, piece: &[u8]) -> usize {
        let (plain, compressed) = (self.in_plain.begun(), self.in_compressed.begun());
        match (plain, compressed) {
            (0, 0) => 0,
            _ if plain <= self.inflated && compressed <= piece.len() => 1,
            _ => self.pieces.len(),
        }
    }

    /// Searches the rest of `piece`; `None` when all of it was searched.
    fn look_through(&mut self, piece: &[u8]) -> Option<Step> {
        for _ in 0..TURN {
            let Some(rest) = piece.get(self.consumed..) else { return Some(Step::Unreadable) };
            if rest.is_empty() && self.between {
                return None;
            }
            let (read, written) = (self.inflater.total_in(), self.inflater.total_out());
            let Ok(status) = self.inflater.decompress(rest, &mut self.plain, FlushDecompress::None) else {
                return Some(Step::Unreadable);
            };
            let length = |now: u64, before: u64| usize::try_from(now - before).ok();
            let lengths = (length(self.inflater.total_in(), read), length(self.inflater.total_out(), written));
            let (Some(read), Some(written)) = lengths else { return Some(Step::Unreadable) };
            self.consumed += read;
            self.inflated += written;
            self.between = false;
            // Unsearched bytes are not passed on.
            let Some(plain) = self.plain.get(..written) else { return Some(Step::Unreadable) };
            if self.in_plain.sees(&self.secret, plain) {
                return Some(Step::Found);
            }
            if status == Status::StreamEnd {
                self.inflater = Decompress::new_gzip(WINDOW_BITS);
                self.between = true;
            } else if written < WINDOW && (self.consumed == piece.len() || read == 0) {
                // All input was read, and all output was written.
                return (self.consumed < piece.len()).then_some(Step::Unreadable);
            }
        }
        Some(Step::Yield)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;
    use http::HeaderValue;

    use super::*;

    const TOKEN: &str = "y0_AgAAAAA-test_0123456789";

    fn gzip(bytes: &[u8], level: Compression) -> Vec<u8> {
        let mut packer = GzEncoder::new(Vec::new(), level);
        packer.write_all(bytes).unwrap();
        packer.finish().unwrap()
    }

    /// Returns the bytes of a body in pieces that are passed on, and the final step.
    fn through(pieces: &[&[u8]]) -> (Vec<u8>, Step) {
        let secret = Secret::of(&HeaderValue::try_from(format!("OAuth {TOKEN}")).unwrap()).unwrap();
        let (mut packed, mut out) = (Compressed::new(secret), Vec::new());
        let mut drain = |packed: &mut Compressed| loop {
            match packed.step() {
                Step::Piece(piece) => out.extend_from_slice(&piece),
                Step::Yield => {}
                end @ (Step::NeedInput | Step::Found | Step::Unreadable) => return end,
            }
        };
        for piece in pieces {
            packed.push(Bytes::copy_from_slice(piece));
            let end = drain(&mut packed);
            if end != Step::NeedInput {
                return (out, end);
            }
        }
        packed.finish();
        let end = drain(&mut packed);
        (out, end)
    }

    /// Decompresses as much as possible of truncated bytes.
    fn unpacked(bytes: &[u8]) -> Vec<u8> {
        let mut plain = Vec::new();
        let _ = std::io::Read::read_to_end(&mut flate2::read::MultiGzDecoder::new(bytes), &mut plain);
        plain
    }

    /// Returns the piece sizes to test a body with.
    fn sizes(whole: &[u8]) -> Vec<usize> {
        [1, 7, 1000, 200_000, whole.len()].into_iter().filter(|size| whole.len() / size < 3_000).collect()
    }

    fn bodies_without() -> Vec<Vec<u8>> {
        let noise: Vec<u8> = (0..200_000_u32).map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect();
        let begins: Vec<u8> = TOKEN.as_bytes()[..20].repeat(500);
        let ends = b"ends with y0_Ag".to_vec();
        // Each piece of the repetition can begin the token, and no two of them together.
        vec![vec![], b"{}".to_vec(), vec![b' '; 1_000_000], vec![b'y'; 2_000_000], noise, begins, ends]
    }

    #[test]
    fn rule_3_a_body_without_the_token_passes_unchanged() {
        for body in bodies_without() {
            for level in [Compression::none(), Compression::default()] {
                let member = gzip(&body, level);
                for whole in [member.clone(), [&member[..], &member[..], &gzip(b"x", level)].concat()] {
                    for size in sizes(&whole) {
                        let pieces: Vec<_> = whole.chunks(size).collect();
                        let (out, end) = through(&pieces);
                        assert!(out == whole && end == Step::NeedInput, "{} {size} {end:?}", body.len());
                    }
                    let half = &whole[..whole.len() / 2];
                    assert_eq!(through(&[half]), (half.to_vec(), Step::NeedInput));
                }
            }
        }
    }

    /// no byte of the piece that completes the token passes, and no usable part of the token before.
    #[test]
    fn rules_1_and_2_the_token_ends_it() {
        for before in bodies_without() {
            let body = [&before[..], TOKEN.as_bytes(), b" and more"].concat();
            for level in [Compression::none(), Compression::default()] {
                let second = [gzip(b"a first member, y0_", level), gzip(&body, level)].concat();
                let first_and_before = [b"a first member, y0_", &before[..]].concat();
                for (whole, harmless) in [(gzip(&body, level), &before), (second, &first_and_before)] {
                    for size in sizes(&whole) {
                        let pieces: Vec<_> = whole.chunks(size).collect();
                        let (out, end) = through(&pieces);
                        assert_eq!(end, Step::Found, "{size}");
                        assert!(harmless.starts_with(&unpacked(&out)), "{size}");
                    }
                }
            }
        }
    }

    #[test]
    fn rule_2_across_members() {
        let (first, second) = TOKEN.split_at(9);
        let whole =
            [gzip(first.as_bytes(), Compression::default()), gzip(second.as_bytes(), Compression::none())].concat();
        assert_eq!(through(&[&whole]).1, Step::Found);
        assert_eq!(through(&whole.chunks(1).collect::<Vec<_>>()).1, Step::Found);
    }

    #[test]
    fn rule_3_invalid_gzip_is_unreadable() {
        let good = gzip(b"good", Compression::default());
        let mut wrong_sum = good.clone();
        let at = wrong_sum.len() - 6;
        wrong_sum[at] ^= 1;
        for bad in
            [b"not gzip at all".to_vec(), [&good[..], b"behind it"].concat(), [&good[..], &[0; 9]].concat(), wrong_sum]
        {
            for size in [1, bad.len()] {
                assert_eq!(through(&bad.chunks(size).collect::<Vec<_>>()).1, Step::Unreadable, "{bad:?}");
            }
        }
    }

    #[test]
    fn rule_4_the_name_of_the_file_is_seen() {
        let mut packer = flate2::GzBuilder::new().filename(TOKEN).write(Vec::new(), Compression::default());
        packer.write_all(b"nothing").unwrap();
        let whole = packer.finish().unwrap();
        for size in [1, 5, whole.len()] {
            let (out, end) = through(&whole.chunks(size).collect::<Vec<_>>());
            assert_eq!(end, Step::Found);
            assert!(out.len() <= 10, "only what stands before the name");
        }
    }

    #[test]
    fn rule_5_input_without_output_is_held_back_up_to_a_bound() {
        let begun = [b"\x1f\x8b\x08\0\0\0\0\0\0\xff".as_slice(), b"\0\x01\0\xfe\xffy"].concat();
        let empty: &[u8] = b"\0\0\0\xff\xff";
        let pieces: Vec<&[u8]> = std::iter::once(&begun[..]).chain(std::iter::repeat_n(empty, 60_000)).collect();
        let (out, end) = through(&pieces);
        assert_eq!((out.len(), end), (0, Step::Unreadable));
    }

    #[test]
    fn rule_5_a_turn_has_an_end() {
        let secret = Secret::of(&HeaderValue::try_from(format!("OAuth {TOKEN}")).unwrap()).unwrap();
        let mut packed = Compressed::new(secret);
        packed.push(gzip(&vec![0; 100 * TURN * WINDOW], Compression::default()).into());
        let turns = std::iter::repeat_with(|| packed.step()).take_while(|step| *step == Step::Yield).count();
        assert!((99..=101).contains(&turns), "{turns}");
    }
}

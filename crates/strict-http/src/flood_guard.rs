//! Flood guard: accounts for the frames of an HTTP/2 connection and ends a connection that floods.
//!
//! hyper does the parsing; this module reads only frame headers as they arrive (RFC 9113, section 4.1) and changes nothing.
//!
//! 1. The first frame from the client must be SETTINGS (RFC 9113, section 3.4).
//! 2. Each connection has a budget (section 10.5). Frames without useful content cost 1 each, SETTINGS cost 10, and a
//!    request costs 10 until its response has ended; a request reset by either side is not refunded. The budget grows with
//!    time and with data, and each DATA frame of a response adds enough for the window updates that it causes. A connection
//!    that exceeds its budget is a flood.
//! 3. Header blocks are read in turns of 16 KiB, so that their decoded size is checked before more is read. A larger block
//!    takes a turn of its own.
//! 4. Unfinished input is identified, so that it can be timed: the preface, a header block, any frame except DATA.
//! 5. Responses in progress are tracked with the time of their last frame, which shows when a client stops reading.

use std::time::Instant;

use crate::frame::{ACK, END_HEADERS, END_STREAM, Frame, HEADER, PREFACE, go_away, kind};
use crate::{cut, number};

/// The reason to end a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The first frame was not SETTINGS (rule 1).
    NoSettings,
    /// The budget was exceeded (rule 2).
    Flood,
    /// A header block exceeds the limit of its reader, which reports it with [`Account::fail`].
    LargeBlock,
}

/// `ENHANCE_YOUR_CALM` (RFC 9113, section 7).
const ENHANCE_YOUR_CALM: u32 = 11;

impl Fault {
    /// The name used in logs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::NoSettings => "no_settings",
            Self::Flood => "flood",
            Self::LargeBlock => "header_block_too_large",
        }
    }

    /// The error code for the GOAWAY frame (RFC 9113, section 7).
    #[must_use]
    pub const fn code(self) -> u32 {
        match self {
            Self::NoSettings => 1,
            Self::Flood | Self::LargeBlock => ENHANCE_YOUR_CALM,
        }
    }
}

/// Finds frame headers in bytes that arrive in pieces of any size.
#[derive(Debug, Default)]
struct Splitter {
    header: [u8; HEADER],
    have: usize,
    /// Payload bytes that have not arrived yet.
    left: usize,
    /// The frame whose payload is being read.
    current: Option<Frame>,
}

impl Splitter {
    /// Returns the next complete frame header and advances `bytes` past it. Payload is skipped.
    fn next(&mut self, bytes: &mut &[u8]) -> Option<Frame> {
        loop {
            let (passed, rest) = cut::at_most(bytes, self.left);
            *bytes = rest;
            self.left -= passed.len();
            let (byte, rest) = bytes.split_first()?;
            *bytes = rest;
            *self.header.get_mut(self.have)? = *byte;
            self.have += 1;
            if self.have == HEADER {
                self.have = 0;
                let frame = Frame::read(self.header);
                self.left = frame.length;
                self.current = Some(frame);
                return Some(frame);
            }
        }
    }

    const fn is_between_frames(&self) -> bool {
        self.have == 0 && self.left == 0
    }

    /// Whether a frame header, or a frame other than DATA, is incomplete.
    fn is_in_the_middle(&self) -> bool {
        let is_data = self.left > 0 && self.current.is_some_and(|frame| frame.kind == kind::DATA);
        !self.is_between_frames() && !is_data
    }
}

/// The budget of a connection (rule 2).
#[derive(Debug)]
struct Budget {
    left: u32,
    earned_until: Instant,
}

/// The initial and maximum budget: 100 requests at once plus a burst.
const MOST: u32 = 4000;
/// Budget earned per second: far more than any client's keep-alive needs, or 45 requests that are reset.
const A_SECOND: u32 = 500;
/// The cost of a request, refunded when its response ends.
const A_REQUEST: u32 = 10;
/// The cost of SETTINGS, which can change the window of every stream.
const SETTINGS: u32 = 10;
/// Budget earned per DATA frame of a response: some clients update both the stream's and the connection's window for each.
const A_PIECE: u32 = 4;
/// Bytes of data, in either direction, that earn 1.
const BYTES: usize = 1024;

/// The budget that `length` bytes of data earn.
fn earned(length: usize) -> u32 {
    number::saturated(length / BYTES)
}

impl Budget {
    fn earn(&mut self, amount: u32) {
        self.left = self.left.saturating_add(amount).min(MOST);
    }

    /// Pays `amount`. Earned time is added only when the balance is too low, so the clock is rarely needed.
    fn pay(&mut self, amount: u32, now: Instant) -> Result<(), Fault> {
        if self.left < amount {
            let since = now.saturating_duration_since(self.earned_until).as_millis();
            let earned = number::saturated::<u32>(since).saturating_mul(A_SECOND) / 1000;
            if earned > 0 {
                self.earned_until = now;
                self.earn(earned);
            }
        }
        self.left = self.left.checked_sub(amount).ok_or(Fault::Flood)?;
        Ok(())
    }
}

/// A response whose header has been sent and whose end has not.
#[derive(Debug)]
struct OpenResponse {
    stream: u32,
    last_frame: Instant,
}

/// The frame accounting of one connection.
#[derive(Debug)]
pub struct Account {
    from_caller: Splitter,
    to_caller: Splitter,
    budget: Budget,
    /// The number of frames received from the client.
    frames: u64,
    /// The number of the first frame of a header block that has not ended.
    open_block: Option<u64>,
    last_stream: u32,
    /// Bytes of header blocks read in this turn.
    turn: usize,
    answers: Vec<OpenResponse>,
    fault: Option<Fault>,
    /// hyper detected a flood and sent GOAWAY.
    hyper_says_flood: bool,
    /// The part of a GOAWAY payload that has been sent.
    farewell: Vec<u8>,
}

/// Bytes per turn (rule 3), compressed; decoded and in memory they can take a hundred times as much.
const TURN: usize = 16 * 1024;

impl Account {
    /// Creates the account of a connection that begins at `now` with the preface.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self {
            from_caller: Splitter { left: PREFACE.len(), ..Splitter::default() },
            to_caller: Splitter::default(),
            budget: Budget { left: MOST, earned_until: now },
            frames: 0,
            open_block: None,
            last_stream: 0,
            turn: 0,
            answers: Vec::new(),
            fault: None,
            hyper_says_flood: false,
            farewell: Vec::new(),
        }
    }

    /// Accounts for bytes received from the client.
    ///
    /// # Errors
    /// The reason to end the connection; these bytes must not be processed.
    pub fn received(&mut self, mut bytes: &[u8], now: Instant) -> Result<(), Fault> {
        while let Some(frame) = self.from_caller.next(&mut bytes) {
            if let Err(fault) = self.take(frame, now) {
                self.fault = Some(fault);
                return Err(fault);
            }
        }
        Ok(())
    }

    fn take(&mut self, frame: Frame, now: Instant) -> Result<(), Fault> {
        self.frames += 1;
        if self.frames == 1 && (frame.kind != kind::SETTINGS || frame.has(ACK)) {
            return Err(Fault::NoSettings);
        }
        if frame.is_of_a_block() {
            self.turn = self.turn.saturating_add(frame.length);
            self.open_block = if frame.has(END_HEADERS) { None } else { self.open_block.or(Some(self.frames)) };
        }
        let cost = match frame.kind {
            kind::DATA if frame.length > 0 => {
                self.budget.earn(earned(frame.length));
                0
            }
            kind::HEADERS if frame.stream > self.last_stream => {
                self.last_stream = frame.stream;
                A_REQUEST
            }
            kind::RST_STREAM => {
                self.forget(frame.stream);
                1
            }
            kind::SETTINGS => SETTINGS,
            _ => 1,
        };
        self.budget.pay(cost, now)
    }

    /// Accounts for bytes sent to the client.
    pub fn sent(&mut self, mut bytes: &[u8], now: Instant) {
        loop {
            self.see_farewell(&mut bytes);
            let Some(frame) = self.to_caller.next(&mut bytes) else { return };
            match frame.kind {
                kind::DATA => {
                    self.budget.earn(A_PIECE + earned(frame.length));
                    match self.answers.iter_mut().find(|answer| answer.stream == frame.stream) {
                        Some(answer) if !frame.has(END_STREAM) => answer.last_frame = now,
                        Some(_) => self.end(frame.stream),
                        None => {}
                    }
                }
                kind::HEADERS if frame.has(END_STREAM) => self.end(frame.stream),
                kind::HEADERS => self.answers.push(OpenResponse { stream: frame.stream, last_frame: now }),
                kind::RST_STREAM => self.forget(frame.stream),
                _ => {}
            }
        }
    }

    /// Records the payload of a GOAWAY frame, because hyper may have detected a flood.
    fn see_farewell(&mut self, bytes: &mut &[u8]) {
        let is_one = self.to_caller.current.is_some_and(|frame| frame.kind == kind::GOAWAY);
        if !is_one || self.to_caller.left == 0 {
            return;
        }
        let (taken, rest) = cut::at_most(bytes, self.to_caller.left);
        self.farewell.extend_from_slice(taken);
        *bytes = rest;
        self.to_caller.left -= taken.len();
        if self.to_caller.left == 0 {
            // The code stands behind the number of the last stream (RFC 9113, section 6.8).
            let code = self.farewell.get(4..).and_then(<[u8]>::first_chunk).copied().map(u32::from_be_bytes);
            self.hyper_says_flood |= code == Some(ENHANCE_YOUR_CALM);
            self.farewell.clear();
        }
    }

    fn end(&mut self, stream: u32) {
        self.forget(stream);
        self.budget.earn(A_REQUEST);
    }

    fn forget(&mut self, stream: u32) {
        self.answers.retain(|answer| answer.stream != stream);
    }

    /// Begins a turn (rule 3).
    pub const fn begin_turn(&mut self) {
        self.turn = 0;
    }

    /// Whether nothing more should be read in this turn.
    #[must_use]
    pub const fn turn_is_over(&self) -> bool {
        self.turn >= TURN
    }

    /// Identifies the unfinished input (rule 4): the number stays the same while the same input is unfinished.
    #[must_use]
    pub fn unfinished(&self) -> Option<u64> {
        let is_begun = self.frames == 0 || self.from_caller.is_in_the_middle();
        self.open_block.or(is_begun.then_some(self.frames))
    }

    /// Counts the responses in progress whose last frame was sent before `cut_off` (rule 5).
    #[must_use]
    pub fn answers_quiet_since(&self, cut_off: Instant) -> usize {
        self.answers.iter().filter(|answer| answer.last_frame < cut_off).count()
    }

    /// The number of responses in progress.
    #[must_use]
    pub const fn answers(&self) -> usize {
        self.answers.len()
    }

    /// Records a fault that was found elsewhere.
    pub const fn fail(&mut self, fault: Fault) {
        self.fault = Some(fault);
    }

    /// The rule that the client broke.
    #[must_use]
    pub const fn fault(&self) -> Option<Fault> {
        self.fault
    }

    /// Whether the connection ends because of a flood, detected here or by hyper.
    #[must_use]
    pub const fn is_flooded(&self) -> bool {
        self.hyper_says_flood || matches!(self.fault, Some(Fault::Flood))
    }

    /// Returns a GOAWAY frame with `code`, or `None` in the middle of another frame, where it cannot be sent.
    #[must_use]
    pub fn farewell(&self, code: u32) -> Option<Vec<u8>> {
        self.to_caller.is_between_frames().then(|| go_away(self.last_stream, code).to_vec())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
    }

    /// Returns an account after the preface and SETTINGS.
    fn begun(now: Instant) -> Account {
        let mut account = Account::new(now);
        account.received(&[PREFACE, &frame(kind::SETTINGS, 0, 0, &[])[..]].concat(), now).unwrap();
        account
    }

    /// Counts how many times `bytes` are accepted.
    fn taken(account: &mut Account, now: Instant, bytes: &[u8]) -> usize {
        (0..20_000).take_while(|_| account.received(bytes, now).is_ok()).count()
    }

    #[test]
    fn rule_1_settings_come_first() {
        let now = Instant::now();
        for first in [frame(6, 0, 0, &[0; 8]), frame(kind::SETTINGS, ACK, 0, &[]), frame(kind::HEADERS, 5, 1, &[])] {
            let mut account = Account::new(now);
            assert_eq!(account.received(PREFACE, now), Ok(()));
            assert_eq!(account.received(&first, now), Err(Fault::NoSettings));
            assert_eq!((account.fault(), account.is_flooded()), (Some(Fault::NoSettings), false));
        }
    }

    #[test]
    fn headers_are_found_in_any_pieces() {
        let bytes = [frame(0, 0, 1, b"abc"), frame(9, 4, 0x8000_0003, &[]), frame(1, 1, 5, &[0; 300])].concat();
        for size in 1..bytes.len() {
            let mut splitter = Splitter::default();
            let mut found = Vec::new();
            for mut piece in bytes.chunks(size) {
                while let Some(frame) = splitter.next(&mut piece) {
                    found.push((frame.kind, frame.flags, frame.stream, frame.length));
                }
                assert!(piece.is_empty());
            }
            assert_eq!(found, [(0, 0, 1, 3), (9, 4, 3, 0), (1, 1, 5, 300)], "{size}");
            assert!(splitter.is_between_frames());
        }
    }

    #[test]
    fn rule_2_frames_without_content_are_charged() {
        let now = Instant::now();
        let empty = u64::from(MOST - SETTINGS);
        for (kind, payload, cost) in
            [(6, 8, 1), (2, 5, 1), (8, 4, 1), (3, 4, 1), (0, 0, 1), (9, 10, 1), (0xee, 0, 1), (kind::SETTINGS, 0, 10)]
        {
            let mut account = begun(now);
            let sent = taken(&mut account, now, &frame(kind, 0, 1, &vec![0; payload]));
            assert_eq!(sent, usize::try_from(empty / cost).unwrap(), "{kind}");
            assert!(account.is_flooded());
        }
        // Time refills the budget up to its maximum.
        let mut account = begun(now);
        let ping = frame(6, 0, 0, &[0; 8]);
        taken(&mut account, now, &ping);
        let later = now + Duration::from_secs(2);
        assert_eq!(taken(&mut account, later, &ping), 1000);
        assert_eq!(taken(&mut account, later + Duration::from_secs(3600), &ping), usize::try_from(MOST).unwrap());
    }

    #[test]
    fn rule_2_a_request_stays_paid_for_until_its_answer_has_ended() {
        let now = Instant::now();
        let ask = |n: u32| frame(kind::HEADERS, 5, 2 * n + 1, &[0x82]);
        let mut account = begun(now);
        let given_up = (0..10_000).take_while(|n| account.received(&ask(*n), now).is_ok()).count();
        assert_eq!(given_up, usize::try_from((MOST - SETTINGS) / A_REQUEST).unwrap());
        let mut account = begun(now);
        for n in 0..10_000 {
            account.received(&ask(n), now).unwrap();
            account.sent(&frame(kind::HEADERS, 4, 2 * n + 1, &[0x88]), now);
            account.sent(&frame(kind::DATA, 1, 2 * n + 1, b"{}"), now);
        }
    }

    #[test]
    fn rule_2_a_download_pays_for_its_window_updates() {
        let now = Instant::now();
        let mut account = begun(now);
        let update = frame(8, 0, 1, &[0, 0, 1, 0]);
        account.sent(&frame(kind::HEADERS, 4, 1, &[0x88]), now);
        for _ in 0..10_000 {
            account.sent(&frame(kind::DATA, 0, 1, &[0; 100]), now);
            account.received(&[update.clone(), update.clone(), update.clone()].concat(), now).unwrap();
        }
    }

    #[test]
    fn rule_3_header_blocks_are_taken_in_turns() {
        let now = Instant::now();
        let mut account = begun(now);
        account.received(&frame(kind::DATA, 0, 1, &[0; 16_384]), now).unwrap();
        account.received(&frame(kind::HEADERS, 4, 1, &[0; 10_000]), now).unwrap();
        assert!(!account.turn_is_over());
        account.received(&frame(kind::CONTINUATION, 4, 1, &[0; 10_000]), now).unwrap();
        assert!(account.turn_is_over());
        account.begin_turn();
        assert!(!account.turn_is_over());
    }

    #[test]
    fn rule_4_unfinished_frames_and_header_blocks_are_detected() {
        let now = Instant::now();
        let mut account = Account::new(now);
        assert_eq!(account.unfinished(), Some(0), "SETTINGS are awaited");
        let mut account_after = |bytes: &[u8]| {
            account.received(bytes, now).unwrap();
            account.unfinished()
        };
        assert_eq!(account_after(PREFACE), Some(0));
        assert_eq!(account_after(&frame(kind::SETTINGS, 0, 0, &[])), None);
        assert_eq!(account_after(&[0, 0]), Some(1), "the half of a header");
        assert_eq!(account_after(&[8, 6, 0, 0, 0, 0, 0]), Some(2));
        assert_eq!(account_after(&[0; 8]), None);
        assert_eq!(account_after(&frame(kind::HEADERS, 1, 1, &[0x82])), Some(3), "a header block that goes on");
        assert_eq!(account_after(&frame(kind::CONTINUATION, 0, 1, &[0x82])), Some(3), "and on");
        assert_eq!(account_after(&frame(kind::CONTINUATION, 4, 1, &[0x82])), None);
        let data = frame(kind::DATA, 0, 1, &[0; 100]);
        assert_eq!(account_after(&data[..50]), None, "a body has a time of its own");
        assert_eq!(account_after(&data[50..]), None);
    }

    #[test]
    fn rule_5_answers_under_way() {
        let now = Instant::now();
        let mut account = begun(now);
        for stream in [1, 3, 5, 7] {
            account.sent(&frame(kind::HEADERS, 4, stream, &[0x88]), now);
        }
        account.sent(&frame(kind::HEADERS, 5, 9, &[0x88]), now);
        assert_eq!(account.answers(), 4);
        let later = now + Duration::from_secs(1);
        account.sent(&frame(kind::DATA, 0, 1, b"x"), later);
        account.sent(&frame(kind::DATA, END_STREAM, 3, b"x"), later);
        account.sent(&frame(kind::RST_STREAM, 0, 5, &[0; 4]), later);
        assert_eq!((account.answers(), account.answers_quiet_since(later)), (2, 1));
        account.received(&frame(kind::RST_STREAM, 0, 7, &[0; 4]), later).unwrap();
        assert_eq!((account.answers(), account.answers_quiet_since(later)), (1, 0));
    }

    #[test]
    fn a_goaway_is_not_written_inside_another_frame() {
        let now = Instant::now();
        let mut account = begun(now);
        account.received(&frame(kind::HEADERS, 5, 7, &[0x82]), now).unwrap();
        let farewell = account.farewell(Fault::Flood.code()).unwrap();
        assert_eq!(farewell, frame(kind::GOAWAY, 0, 0, &[0, 0, 0, 7, 0, 0, 0, 11]));
        account.sent(&[0, 0, 2, 0, 0, 0, 0, 0, 7, b'{'], now);
        assert_eq!(account.farewell(0), None);
        account.sent(b"}", now);
        assert!(account.farewell(0).is_some());
        // A GOAWAY from hyper that reports a flood counts as a flood.
        for byte in frame(kind::GOAWAY, 0, 0, &[0, 0, 0, 7, 0, 0, 0, 0, b'?']) {
            account.sent(&[byte], now);
        }
        assert!(!account.is_flooded());
        for byte in frame(kind::GOAWAY, 0, 0, &[0, 0, 0, 7, 0, 0, 0, 11, b'!']) {
            account.sent(&[byte], now);
        }
        assert!(account.is_flooded());
    }
}

//! The gate of `driver.rs`, with a caller who speaks HTTP/2, and held to the same sentence: for each stream that the caller
//! opens one answer at most, of a request that the upstream saw once; and where nothing stands against it, one.
//!
//! That there is one is held only where the whole exchange took less time than the gate has patience for anything: then time
//! has changed nothing.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::answers::Answer;
use crate::asked::{self, Asked, Place, Sent};
use crate::connection::{Act, Acts, Socket};
use crate::driver::{self, Gate, LATE, Listener, has_id, holds_a_token, is_for, is_of_http2};
use crate::frames::{self, frame};
use crate::hpack::write_literal;
use crate::requests::Request;
use crate::script::Script;
use crate::streams::Received;
use crate::upstream::usual_answer;

/// Of the second byte of an input: how it ends, over what it comes, and how it does not begin.
const ENDS: u8 = 7;
const TCP: u8 = 0x20;
const WITHOUT_SETTINGS: u8 = 0x40;
const WITHOUT_PREFACE: u8 = 0x80;

/// How an input ends.
const RESETS: u8 = 4;
const LEAVES_OPEN: u8 = 5;
const SAYS_FAREWELL: u8 = 6;
const GOES_AWAY: u8 = 7;

/// In so short a time no patience of the gate is over.
const SOON: Duration = Duration::from_millis(15);

/// The path of the request that each input ends with.
const LAST: &[u8] = b"/management/v1/counters?last=1";

/// The gate, and what callers before asked without an answer, the latest first: it may come late.
pub struct GateHttp2 {
    gate: Gate,
    late: Mutex<Vec<Asked>>,
}

/// A caller's connection.
struct Caller<'a> {
    gate: &'a Gate,
    acts: &'a Acts,
    socket: Socket,
    seed: u8,
    bytes: Vec<u8>,
    sent: Sent,
    heard: Vec<u8>,
    received: Received,
    /// The gate has ended the connection.
    over: bool,
}

impl GateHttp2 {
    /// Starts it; see [`Gate::start`].
    pub fn start() -> Self {
        Self { gate: Gate::start(), late: Mutex::default() }
    }

    /// Does what an input says, and holds the sentence.
    pub fn hold(&self, input: &[u8]) {
        let [seed, how, script @ ..] = input else { return };
        let mut before = Vec::new();
        if how & WITHOUT_PREFACE == 0 {
            before.extend_from_slice(frames::PREFACE);
            if how & WITHOUT_SETTINGS == 0 {
                before.extend(frame(frames::SETTINGS, 0, 0, b""));
            }
        }
        let script = Script::read(&before, script);
        let listener = Listener { http2: true, tcp: how & TCP != 0 };
        let all = script.acts.bytes();
        if !all.starts_with(frames::PREFACE) {
            self.gate.hold(listener, *seed, script.acts, script.answer.as_deref());
            return;
        }
        if !self.gate.begin(&all, script.answer.as_deref()) {
            return;
        }
        let began = Instant::now();
        let mut caller = Caller::connect(&self.gate, listener, &script.acts, *seed);
        let last = caller.act(how & ENDS);
        let soon = began.elapsed() < SOON && how & ENDS != GOES_AWAY && !script.acts.are_rude();
        let Caller { socket, bytes, sent, heard, received, .. } = caller;
        drop(socket);
        if script.acts.are_rude() {
            self.gate.serve_another(driver::UPSTREAM, &script.acts);
        }
        // Where the preface took too long, it was the beginning of a bad request of HTTP/1.1.
        if heard.starts_with(b"HTTP/") {
            assert!(!soon, "HTTP/1.1 behind a preface: {:?}", String::from_utf8_lossy(&heard));
            self.gate.check(&bytes, &heard, script.answer.as_deref());
            return;
        }
        self.check(&sent, &received, &heard, &script, last.filter(|_| soon), soon);
    }

    fn check(&self, sent: &Sent, received: &Received, heard: &[u8], script: &Script, last: Option<u32>, soon: bool) {
        let bodies = received.streams.values().filter_map(|known| known.answer.as_ref()).map(|answer| &answer.body[..]);
        for text in bodies.chain([heard, &received.said]) {
            assert!(!holds_a_token(text), "a token reached the caller: {:?}", String::from_utf8_lossy(text));
        }
        received.check_lengths(sent);
        self.check_upstream(sent, received, script);
        if !sent.calm || !soon {
            return;
        }
        assert!(received.farewell.is_none_or(|(_, code)| code == 0), "it ended for nothing: {:?}", received.farewell);
        for (stream, asked) in sent.streams.iter().filter(|(_, asked)| asked.ended && asked.is_plain()) {
            let known = received.streams.get(stream);
            let answer = known.and_then(|known| known.answer.as_ref());
            // What the upstream cuts off ends with a reset.
            let cut = script.answer.is_some() && known.is_some_and(|known| known.reset.is_some());
            assert!(cut || answer.is_some_and(|answer| answer.whole), "no answer to {asked:?}: {known:?}");
            let usual = script.answer.is_some() || last != Some(*stream) || answer.is_some_and(|one| one.status == 200);
            assert!(usual, "the last request is not answered: {answer:?}");
        }
    }

    /// What the upstream saw is what was asked, each once.
    fn check_upstream(&self, sent: &Sent, received: &Received, script: &Script) {
        let mut state = self.gate.upstream.state();
        assert!(state.wrong.is_none(), "the upstream received no request: {:?}", state.wrong);
        // In their places; those of callers of HTTP/1.1 before are not for here.
        let all: Vec<Option<Request>> =
            state.requests.iter_mut().map(|request| request.take_if(|request| is_of_http2(request))).collect();
        drop(state);
        let mut seen: Vec<Option<&Request>> = all.iter().map(Option::as_ref).collect();
        let mut answered = BTreeSet::new();
        for (stream, known) in &received.streams {
            let Some(answer) = &known.answer else { continue };
            let asked = &sent.streams[stream];
            if answer.field("x-request-id").is_none() {
                assert!(answer.status == 431 && asked.size() > 16 * 1024, "without an id: {answer:?}");
                continue;
            }
            let is_its_own = |request: &Request| is_of(asked, request) && has_id(request, answer);
            if answer.is_refusal() {
                assert!((400..600).contains(&answer.status), "{answer:?}");
                let names_itself = asked.fields.iter().any(|(name, _)| name == b"x-request-id");
                let may = matches!(answer.status, 502..=504) || names_itself;
                assert!(may || !all.iter().flatten().any(is_its_own), "it was refused and sent: {asked:?} {answer:?}");
                continue;
            }
            let usual = |position| script.answer.is_some() || asked.is_head() || is_usual(answer, position);
            let own =
                seen.iter().enumerate().position(|(position, one)| one.is_some_and(is_its_own) && usual(position));
            let own = own.unwrap_or_else(|| panic!("not the upstream's: {answer:?} to {asked:?}; it saw {seen:?}"));
            hold_request(asked, seen[own].take().expect("it is there"), Some(answer));
            answered.insert(*stream);
        }
        // What had no answer may have arrived nevertheless, that of callers before too; and be sent again.
        let mut late = self.late.lock().unwrap_or_else(PoisonError::into_inner);
        let open = sent.streams.iter().filter(|(stream, _)| !answered.contains(stream));
        late.splice(0..0, open.map(|(_, asked)| asked.clone()));
        late.truncate(LATE);
        for request in seen.into_iter().flatten() {
            let is_it = |asked: &&Asked| is_of(asked, request);
            let may_be = |asked: &Asked| is_of(asked, request) && !asked.is_malformed() && is_whole(asked, request);
            let own = late.iter().position(may_be).map(|position| late.remove(position));
            let again = script.answer.as_ref().is_some_and(Vec::is_empty);
            let again = sent.streams.values().find(|asked| again && asked.body.is_empty() && is_it(asked));
            let asked = own.or_else(|| again.cloned()).or_else(|| late.iter().find(is_it).cloned());
            hold_request(&asked.unwrap_or_else(|| panic!("nobody asked for {request:?}, but {sent:?}")), request, None);
        }
    }
}

/// Whether the upstream may have received `request` for `asked`.
fn is_of(asked: &Asked, request: &Request) -> bool {
    is_for(&as_received(asked, request), request)
}

/// Whether it is what the upstream answers to the request at this position, or its beginning.
fn is_usual(answer: &Answer, position: usize) -> bool {
    let usual = usual_answer(position).into_bytes();
    if answer.whole { answer.body == usual } else { usual.starts_with(&answer.body) }
}

/// What was asked, as far as a request with the length of `request` can show it.
fn as_received(asked: &Asked, request: &Request) -> Request {
    let said = request.fields.iter().any(|(name, _)| name == "content-length");
    asked.request(said.then_some(request.body.len()))
}

/// Whether the caller had sent the whole of what the upstream takes for one.
fn is_whole(asked: &Asked, request: &Request) -> bool {
    asked.ended || request.fields.iter().any(|(name, _)| name == "content-length")
}

fn hold_request(asked: &Asked, request: &Request, answer: Option<&Answer>) {
    assert!(is_whole(asked, request), "it looks whole and is not: {request:?}");
    assert!(!asked.is_malformed(), "malformed, and sent: {asked:?} as {request:?}");
    driver::is_the_same(&as_received(asked, request), request, answer);
}

impl<'a> Caller<'a> {
    fn connect(gate: &'a Gate, listener: Listener, acts: &'a Acts, seed: u8) -> Self {
        let (sent, received) = (asked::read(b""), Received::default());
        let socket = gate.connect(listener);
        Self { gate, acts, socket, seed, bytes: Vec::new(), sent, heard: Vec::new(), received, over: false }
    }

    /// Does everything, to the end of the connection; the stream of the last request, where there was one.
    fn act(&mut self, how: u8) -> Option<u32> {
        for act in &self.acts.0 {
            match act {
                Act::Send(bytes) => self.send(bytes),
                Act::Wait => self.wait(false),
                Act::Hold => self.gate.serve_another(driver::BY_ITSELF, self.acts),
                Act::Stall => std::thread::sleep(driver::STALL),
                Act::Listen => self.listen(),
                Act::Finish => {
                    self.read_to_end();
                    return None;
                }
                Act::Reset => {
                    self.socket.break_off();
                    return None;
                }
                Act::Leave => return None,
            }
        }
        let last = self.finish(how);
        self.read_to_end();
        last
    }

    fn send(&mut self, bytes: &[u8]) {
        self.socket.send(self.seed, bytes);
        self.bytes.extend_from_slice(bytes);
        self.sent = asked::read(&self.bytes);
    }

    /// Reads once.
    fn hear(&mut self) {
        let mut buffer = [0; 16 * 1024];
        match self.socket.receive(&mut buffer) {
            Some(read) => self.take(&buffer[..read]),
            None => self.gate.fail("the gate neither answers nor ends the connection", self.acts),
        }
    }

    /// Reads once, if there is something soon.
    fn listen(&mut self) {
        let mut buffer = [0; 16 * 1024];
        if let Some(read) = self.socket.listen(&mut buffer).filter(|_| !self.over) {
            self.take(&buffer[..read]);
        }
    }

    fn take(&mut self, bytes: &[u8]) {
        self.over = bytes.is_empty();
        self.heard.extend_from_slice(bytes);
        self.received.feed(bytes, &self.sent);
    }

    /// Waits until what was asked is answered; `all`: or given up.
    fn wait(&mut self, all: bool) {
        loop {
            let received = &self.received;
            let is_over = |stream| received.streams.get(stream).is_some_and(|known| known.is_over());
            let awaited = |asked: &Asked| (asked.ended || all) && !asked.given_up;
            if self.over || self.sent.streams.iter().all(|(stream, asked)| !awaited(asked) || is_over(stream)) {
                return;
            }
            self.hear();
        }
    }

    /// Brings what is open to an end, and asks for one thing more; its stream, where it can have one.
    fn finish(&mut self, how: u8) -> Option<u32> {
        if how == GOES_AWAY {
            return None;
        }
        if how != LEAVES_OPEN {
            self.end_what_is_open(how == RESETS);
        }
        if how == SAYS_FAREWELL {
            self.send(&frame(frames::GOAWAY, 0, 0, &[0; 8]));
        }
        let latest = self.sent.streams.last_key_value().map_or(0, |(stream, _)| *stream);
        let last = (latest < frames::LAST_STREAM - 2).then_some((latest + 1) | 1);
        if let Some(last) = last {
            let mut block = Vec::new();
            for (name, value) in
                [(":method", "GET".as_bytes()), (":scheme", b"http"), (":path", LAST), (":authority", b"localhost")]
            {
                write_literal(&mut block, name.as_bytes(), value, false);
            }
            self.send(&frame(frames::HEADERS, frames::END_STREAM | frames::END_HEADERS, last, &block));
        }
        self.wait(how == LEAVES_OPEN);
        last
    }

    fn end_what_is_open(&mut self, resets: bool) {
        for _ in 0..2 {
            match self.sent.place {
                Place::Frame(lacks) if lacks <= frames::MOST => self.send(&vec![0; lacks]),
                Place::Frame(_) | Place::Block(_) | Place::Between | Place::Over => break,
            }
        }
        if let Place::Block(stream) = self.sent.place {
            self.send(&frame(frames::CONTINUATION, frames::END_HEADERS, stream, b""));
        }
        let open = self.sent.streams.iter().filter(|(_, asked)| !asked.ended && !asked.given_up);
        let end = |stream: &u32| match resets {
            true => frame(frames::RST_STREAM, 0, *stream, &[0, 0, 0, 8]),
            false => frame(frames::DATA, frames::END_STREAM, *stream, b""),
        };
        let ends: Vec<u8> = open.flat_map(|(stream, _)| end(stream)).collect();
        self.send(&ends);
    }

    /// Sends no more, and reads until the gate sends no more.
    fn read_to_end(&mut self) {
        self.socket.finish();
        while !self.over {
            self.hear();
        }
    }
}

//! Valid traffic of every kind, to run while something goes wrong, and a ledger of requests, responses and arrivals.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use super::gate::until;
use super::{Caller, Conversation, Upstream};

/// The kinds of requests, sent in turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Get,
    Head,
    /// A write with a body of a length.
    Post,
    /// A write with a body in chunks.
    Upload,
    /// A read whose answer comes in pieces.
    Stream,
}

const KINDS: [Kind; 5] = [Kind::Get, Kind::Post, Kind::Stream, Kind::Head, Kind::Upload];

impl Kind {
    /// Whether it must not arrive twice.
    pub fn writes(self) -> bool {
        matches!(self, Self::Post | Self::Upload)
    }
}

/// One request.
#[derive(Debug, Clone)]
pub struct Entry {
    pub id: usize,
    pub kind: Kind,
    pub begun: Instant,
    pub over: Instant,
    /// `200`, another status with its reason, or how the connection failed.
    pub ended: String,
}

impl Entry {
    pub fn is_right(&self) -> bool {
        self.ended == "200"
    }
}

/// Callers that ask without a pause.
pub struct Traffic {
    stop: Arc<AtomicBool>,
    ended: Arc<AtomicUsize>,
    threads: Vec<std::thread::JoinHandle<Vec<Entry>>>,
}

/// Everything that was sent.
pub struct Ledger(pub Vec<Entry>);

/// The bytes of a body of this length, different for each request.
fn bytes(id: usize, length: usize) -> Vec<u8> {
    (0..length).map(|at| b"0123456789abcdefghijklmnopqrstuvwxyz"[(at + id) % 36]).collect()
}

const POST_BYTES: usize = 3_000;
const UPLOAD_BYTES: usize = 20_000;
const STREAM_BYTES: usize = 40_000;

/// The number of the request that a head belongs to.
pub fn id_of(head: &str) -> Option<usize> {
    head.split("?n=").nth(1)?.split(|letter: char| !letter.is_ascii_digit()).next()?.parse().ok()
}

/// Answers one request as the callers expect it; whether there was one.
pub fn answer_one(conversation: &mut Conversation) -> bool {
    answer_one_or_hold(conversation, "no request has this").is_some()
}

/// The same, but a request for `held` is not answered; whether it was one, `None` without a request.
pub fn answer_one_or_hold(conversation: &mut Conversation, held: &str) -> Option<bool> {
    let head = conversation.request_head()?;
    if head.contains(held) {
        return Some(true);
    }
    let body = conversation.request_body(&head);
    let id = id_of(&head).unwrap_or(0);
    if head.contains("/stat/") {
        conversation.write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
        for piece in bytes(id, STREAM_BYTES).chunks(STREAM_BYTES / 4) {
            conversation.write([format!("{:x}\r\n", piece.len()).as_bytes(), piece, b"\r\n"].concat());
        }
        conversation.write("0\r\n\r\n");
    } else if head.starts_with("HEAD ") {
        conversation.write("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n");
    } else {
        let whole = [0, POST_BYTES, UPLOAD_BYTES].iter().any(|length| body == bytes(id, *length));
        conversation.answer("200 OK", "application/json", &format!("{{\"n\":{id},\"whole\":{whole}}}"));
    }
    Some(false)
}

/// An upstream for this traffic.
pub fn upstream() -> Upstream {
    Upstream::run(|conversation| while answer_one(conversation) {})
}

fn request(kind: Kind, id: usize) -> Vec<u8> {
    let head =
        |line: &str, fields: &str| format!("{line}?n={id} HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n").into_bytes();
    match kind {
        Kind::Get => head("GET /management/v1/counters", ""),
        Kind::Head => head("HEAD /management/v1/counters", ""),
        Kind::Stream => head("GET /stat/v1/data", ""),
        Kind::Post => {
            let fields = format!("Content-Type: application/json\r\nContent-Length: {POST_BYTES}\r\n");
            [head("POST /management/v1/counters", &fields), bytes(id, POST_BYTES)].concat()
        }
        Kind::Upload => {
            let mut all =
                head("POST /management/v1/counters", "Content-Type: text/csv\r\nTransfer-Encoding: chunked\r\n");
            for piece in bytes(id, UPLOAD_BYTES).chunks(6_000) {
                all.extend([format!("{:x}\r\n", piece.len()).as_bytes(), piece, b"\r\n"].concat());
            }
            [all, b"0\r\n\r\n".to_vec()].concat()
        }
    }
}

/// Sends one request; how it ended, and whether the connection can be used again.
fn ask(caller: &mut Caller, kind: Kind, id: usize) -> (String, bool) {
    if !caller.try_send(request(kind, id)) {
        return ("the connection was cut in the request".to_owned(), false);
    }
    match caller.try_answer(kind == Kind::Head) {
        Err(error) => (error, false),
        Ok(answer) => {
            let right = match kind {
                Kind::Head => answer.body.is_empty(),
                Kind::Stream => answer.body == bytes(id, STREAM_BYTES),
                Kind::Get | Kind::Post | Kind::Upload => answer.text() == format!("{{\"n\":{id},\"whole\":true}}"),
            };
            let summary = answer.summary();
            // An answer that came before the request was read whole may be the last of its connection.
            let early = kind.writes() && summary != "200";
            let kept = answer.field("connection") != Some("close") && !early;
            (if summary == "200" && !right { "200 with another body".to_owned() } else { summary }, kept)
        }
    }
}

impl Traffic {
    /// This number of callers of `place`, each on a connection that it keeps as long as it can.
    pub fn on(place: &str, callers: usize) -> Self {
        let (stop, ended) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let one = |number: usize| {
            let (stop, ended, place) = (stop.clone(), ended.clone(), place.to_owned());
            std::thread::spawn(move || {
                let mut entries = Vec::new();
                let mut caller = Caller::connect(&place);
                for turn in 0.. {
                    if stop.load(Ordering::SeqCst) {
                        break;
                    }
                    let (id, kind) = (turn * callers + number, KINDS[(turn + number) % KINDS.len()]);
                    let begun = Instant::now();
                    let (how, kept) = ask(&mut caller, kind, id);
                    entries.push(Entry { id, kind, begun, over: Instant::now(), ended: how });
                    ended.fetch_add(1, Ordering::SeqCst);
                    if !kept {
                        caller = Caller::connect(&place);
                    }
                }
                entries
            })
        };
        let threads = (0..callers).map(one).collect();
        let traffic = Self { stop, ended, threads };
        traffic.go_on();
        traffic
    }

    /// Waits until some more requests ended.
    pub fn go_on(&self) {
        let enough = self.ended.load(Ordering::SeqCst) + 60;
        until("requests end", || self.ended.load(Ordering::SeqCst) >= enough);
    }

    /// Ends it, after some more.
    pub fn end(self) -> Ledger {
        self.go_on();
        self.stop.store(true, Ordering::SeqCst);
        Ledger(self.threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect())
    }
}

impl Ledger {
    /// Every request was answered, and with its own answer.
    #[track_caller]
    pub fn assert_all_right(&self) {
        let wrong: Vec<_> = self.0.iter().filter(|entry| !entry.is_right()).collect();
        assert!(wrong.is_empty(), "{} of {} failed: {:#?}", wrong.len(), self.0.len(), &wrong[..wrong.len().min(5)]);
    }

    /// Asserts the rules of every ledger: a write arrived at most once, an answered one exactly once, and one that the gate
    /// reported as not sent never.
    #[track_caller]
    pub fn assert_writes_once(&self, upstream: &Upstream) {
        let mut arrived: HashMap<usize, usize> = HashMap::new();
        for id in upstream.requests().iter().filter_map(|head| id_of(head)) {
            *arrived.entry(id).or_default() += 1;
        }
        for entry in self.0.iter().filter(|entry| entry.kind.writes()) {
            let times = arrived.get(&entry.id).copied().unwrap_or(0);
            let allowed = match entry.ended.as_str() {
                "200" => 1..=1,
                "503 upstream_unreachable" | "503 token_unavailable" | "503 overloaded" => 0..=0,
                _ => 0..=1,
            };
            assert!(allowed.contains(&times), "it arrived {times} times: {entry:?}");
        }
        assert!(self.0.iter().any(|entry| entry.kind.writes() && entry.is_right()), "there were writes");
    }
}

//! A whole gate in this process, with a caller and an upstream: sends bytes, and holds the gate to one sentence.
//!
//! Whatever a caller or an upstream sends, the upstream sees exactly one request for each accepted request, with exactly one
//! Authorization, the one that policy chose; the caller sees exactly one well-framed answer; and no secret is anywhere
//! else.
//!
//! A caller who ends its connection before the answer may see a part of it or nothing, and what it asked may arrive or not.
//! All else holds, and whatever a caller did, the next one is answered: the gate has one worker, so a connection that stops
//! it stops everything.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use metrika_gate::cli::app::{App, Options};
use metrika_gate::config::Config;

use crate::answers::{self, Answer};
use crate::connection::{Act, Acts, PATIENCE, Place, Socket};
use crate::forms::asked_for;
use crate::frames::PREFACE;
use crate::requests::{self, Request};
use crate::upstream::Upstream;

const READ: &str = "fuzz-token-that-may-read-0123456789";
const WRITE: &str = "fuzz-token-that-may-write-987654321";

/// Ends a connection, whatever came before, unless it is the middle of something.
const LAST: &[u8] = b"\r\n\r\nGET /last HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";

/// So many requests that nobody waited for may still come.
pub(crate) const LATE: usize = 1000;

/// Longer than every patience of the gate with a caller.
pub(crate) const STALL: Duration = Duration::from_millis(50);

/// What the gate answers by itself, and what goes to the upstream.
pub(crate) const BY_ITSELF: &str = "/witness";
pub(crate) const UPSTREAM: &str = "/management/v1/counters";

/// A listener of the gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listener {
    /// It speaks HTTP/2 too.
    pub http2: bool,
    pub tcp: bool,
}

impl Listener {
    /// The one that two bits say.
    pub fn of(bits: u8) -> Self {
        Self { http2: bits & 2 != 0, tcp: bits & 1 != 0 }
    }

    fn position(self) -> usize {
        usize::from(self.http2) * 2 + usize::from(self.tcp)
    }
}

/// A gate that runs.
pub struct Gate {
    places: [Place; 4],
    pub(crate) upstream: Upstream,
    /// What callers of HTTP/1.1 before asked and the upstream had not seen when they left, the latest first.
    late: Mutex<Vec<Request>>,
    /// What the upstream received and may receive once more, the latest first. The gate sends a GET again whose connection
    /// ended before a byte of the answer, and the upstream may see that when the next caller is here.
    again: Mutex<Vec<Request>>,
}

impl Gate {
    /// Starts it; it runs for as long as the process. A panic of any of its threads ends the process.
    pub fn start() -> Self {
        let says = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            says(panic);
            std::process::abort();
        }));
        let upstream = Upstream::start();
        let folder = tempfile::Builder::new().prefix("metrika-gate-fuzz-").tempdir().expect("a folder").keep();
        let write = |name: &str, content: &str| {
            let file = folder.join(name);
            let mut options = std::fs::OpenOptions::new();
            let mut opened = options.write(true).create_new(true).mode(0o600).open(&file).expect("a new file");
            opened.write_all(content.as_bytes()).expect("room on the disk");
            file
        };
        let (read, crm, ca) = (write("read", READ), write("write", WRITE), write("ca.pem", &upstream.ca_pem));
        let may = "scopes: [metrika:read, metrika:expenses], tokens: [read, write]";
        let (app, either) = (folder.join("app.sock"), folder.join("either.sock"));
        // The upstream always answers or closes: only on a busy machine does it take long, and then a request that the gate
        // has given up would be taken for one of the next input.
        let text = format!(
            "
listeners:
  - {{name: app, unix: {{path: {app:?}, mode: \"0600\"}}}}
  - {{name: app-tcp, address: '127.0.0.1:0'}}
  - {{name: either, unix: {{path: {either:?}, mode: \"0600\"}}, http2: true}}
  - {{name: either-tcp, address: '127.0.0.1:0', http2: true}}
admin: {{address: '127.0.0.1:0'}}
upstream:
  url: https://api-metrika.yandex.net
  ca_file: {ca:?}
  connect_to: '{}'
  timeouts: {{connect: 2s, response_headers: 2s, body_idle: 50ms, keep_alive: 60s}}
tokens:
  read: {{file: {read:?}, scopes: [metrika:read]}}
  write: {{file: {crm:?}, scopes: [metrika:expenses]}}
callers:
  - {{id: app, match: {{listener: app}}, {may}}}
  - {{id: app-tcp, match: {{listener: app-tcp}}, {may}}}
  - {{id: either, match: {{listener: either}}, {may}}}
  - {{id: either-tcp, match: {{listener: either-tcp}}, {may}}}
timeouts: {{request_headers: 30ms, body_idle: 30ms, keep_alive: 30ms}}
limits: {{header_bytes: 16KiB, target_bytes: 4KiB}}
log: {{access: false, level: error}}
",
            upstream.address
        );
        let config = Config::parse(&text, &folder.join("gate.yaml")).unwrap_or_else(|error| panic!("{error}"));
        let options = Options { workers: Some(1), ..Options::default() };
        // A thread of its own enters the sandbox: in it libFuzzer could neither read its corpus nor keep a finding.
        let starts = move || {
            let app = App::start(config, options).expect("the gate starts");
            let places = app.places().map(|(_, place)| Place::of(place)).collect::<Vec<_>>();
            std::mem::forget(app);
            places
        };
        let places = std::thread::spawn(starts).join().expect("the gate runs");
        std::fs::read_dir(".").expect("libFuzzer can read");
        Self {
            places: places.try_into().expect("four listeners"),
            upstream,
            late: Mutex::default(),
            again: Mutex::default(),
        }
    }

    /// A connection of a caller.
    pub(crate) fn connect(&self, listener: Listener) -> Socket {
        Socket::connect(&self.places[listener.position()])
    }

    /// Does what a caller of HTTP/1.1 does, with `answer` as the upstream's first answer where there is one, and holds the
    /// sentence.
    pub fn hold(&self, listener: Listener, seed: u8, mut acts: Acts, answer: Option<&[u8]>) {
        acts.send(LAST);
        let sent = acts.bytes();
        // HTTP/2 is not spoken here.
        if listener.http2 && sent.starts_with(PREFACE) || !self.begin(&sent, answer) {
            return;
        }
        let received = self.exchange(listener, seed, &acts);
        if acts.are_rude() {
            self.serve_another(UPSTREAM, &acts);
        }
        self.check(&sent, &received, answer);
    }

    /// Begins to hold the sentence; no when one of them knows a token.
    pub(crate) fn begin(&self, bytes: &[u8], answer: Option<&[u8]>) -> bool {
        let mut state = self.upstream.state();
        state.requests.retain(Option::is_some);
        state.next = answer.map(<[u8]>::to_vec);
        // The fuzzer learns the tokens from comparisons; a caller does not know them, and the upstream only from requests.
        !holds_a_token(bytes) && !answer.is_some_and(holds_a_token)
    }

    /// Everything that the caller receives.
    fn exchange(&self, listener: Listener, seed: u8, acts: &Acts) -> Vec<u8> {
        let mut socket = self.connect(listener);
        let mut received = Vec::new();
        let mut buffer = [0; 16 * 1024];
        for act in &acts.0 {
            match act {
                Act::Send(bytes) => socket.send(seed, bytes),
                Act::Wait => {}
                Act::Hold => self.serve_another(BY_ITSELF, acts),
                Act::Stall => std::thread::sleep(STALL),
                Act::Listen => {
                    let read = socket.listen(&mut buffer).unwrap_or(0);
                    received.extend_from_slice(&buffer[..read]);
                }
                Act::Finish => socket.finish(),
                Act::Reset => {
                    socket.break_off();
                    return received;
                }
                Act::Leave => return received,
            }
        }
        loop {
            match socket.receive(&mut buffer) {
                Some(0) => return received,
                Some(read) => received.extend_from_slice(&buffer[..read]),
                None => self.fail("the gate does not end the connection", acts),
            }
        }
    }

    /// Asks for something on another connection, and gets an answer.
    pub(crate) fn serve_another(&self, path: &str, acts: &Acts) {
        if path == UPSTREAM {
            self.upstream.state().next = None;
        }
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        let began = Instant::now();
        let received = loop {
            let received = self.ask(request.as_bytes());
            let says_nothing = received.as_ref().is_some_and(Vec::is_empty);
            // On a busy machine a connection can end before anything was sent on it: the gate lost patience.
            if !says_nothing || began.elapsed() > PATIENCE {
                break received.unwrap_or_default();
            }
            // Its request may have gone on, or go on yet.
            let asked = requests::read(request.as_bytes()).requests;
            self.late.lock().unwrap_or_else(PoisonError::into_inner).splice(0..0, asked);
        };
        let answers = answers::read(&received, |_| false);
        let [answer] = &answers[..] else {
            let instead = if received.is_empty() { "no answer" } else { &*String::from_utf8_lossy(&received) };
            panic!(
                "the gate does not serve any more: {instead} to a plain request on another connection in {} s, after a \
                 caller who did {:?}",
                PATIENCE.as_secs(),
                acts.0
            );
        };
        assert!(answer.whole && answer.field("x-request-id").is_some(), "{answer:?}");
        // It may have been sent again.
        let mut state = self.upstream.state();
        for request in &mut state.requests {
            drop(request.take_if(|request| has_id(request, answer)));
        }
    }

    /// Everything that is received for `sent` until the connection ends; `None` when it does not end.
    fn ask(&self, sent: &[u8]) -> Option<Vec<u8>> {
        let mut socket = self.connect(Listener::of(0));
        socket.send(0, sent);
        let mut received = Vec::new();
        let mut buffer = [0; 16 * 1024];
        loop {
            match socket.receive(&mut buffer)? {
                0 => return Some(received),
                read => received.extend_from_slice(&buffer[..read]),
            }
        }
    }

    /// What the gate did wrong, or that it does nothing any more.
    pub(crate) fn fail(&self, what: &str, acts: &Acts) -> ! {
        self.serve_another(BY_ITSELF, acts);
        panic!("{what} of a caller who did {:?}, and serves others", acts.0);
    }

    /// Holds the sentence for what a caller of HTTP/1.1 sent and received.
    pub(crate) fn check(&self, sent: &[u8], received: &[u8], answer: Option<&[u8]>) {
        assert!(!holds_a_token(received), "a token reached the caller: {:?}", String::from_utf8_lossy(received));
        let expected = requests::read(sent);
        let to_head = |position: usize| expected.requests.get(position).is_some_and(|request| request.method == "HEAD");
        let answers = answers::read(received, to_head);
        let mut state = self.upstream.state();
        assert!(state.wrong.is_none(), "the upstream received no request: {:?}", state.wrong);
        // Of a caller before who did not wait for its answers, one of HTTP/2 may come late.
        let of_http1 = |request: &mut Request| !is_of_http2(request);
        let seen: Vec<Request> = state.requests.iter_mut().filter_map(|request| request.take_if(of_http1)).collect();
        drop(state);
        let mut seen: Vec<&Request> = seen.iter().collect();
        let mut again = self.again.lock().unwrap_or_else(PoisonError::into_inner);
        again.truncate(LATE);
        // The upstream ends one connection without a byte.
        let cut_off = answer.is_some_and(<[u8]>::is_empty);
        let mut note = |received: &Request| {
            if cut_off && received.method == "GET" {
                again.insert(0, received.clone());
            }
        };
        let mut unseen = expected.requests.iter().skip(answers.len()).collect::<Vec<_>>();
        for (position, answer) in answers.iter().enumerate() {
            let Some(request) = expected.requests.get(position) else {
                assert!(answer.is_refusal() && position + 1 == answers.len(), "an answer to no request: {answer:?}");
                continue;
            };
            assert!(answer.field("x-request-id").is_some(), "{answer:?}");
            let own = seen.iter().position(|next| has_id(next, answer) && is_for(request, next));
            if answer.is_refusal() {
                assert!((400..600).contains(&answer.status));
                // What the upstream answers badly, it has seen; what it was too slow for, perhaps, or later.
                let names_itself = request.fields.iter().any(|(name, _)| name == "x-request-id");
                match own {
                    Some(own) if matches!(answer.status, 502 | 504) => note(seen.remove(own)),
                    Some(own) => assert!(names_itself, "it was refused and sent: {:?} {answer:?}", seen[own]),
                    None if matches!(answer.status, 502 | 504) => unseen.push(request),
                    None => {}
                }
                continue;
            }
            let own = own.or_else(|| seen.iter().position(|next| has_id(next, answer)));
            let own = own.unwrap_or_else(|| panic!("an answer that the upstream did not give: {answer:?}; {seen:?}"));
            let received = seen.remove(own);
            is_the_same(request, received, Some(answer));
            note(received);
        }
        // The first without an answer may have been cut with it, and be seen now or later; so of callers before.
        let mut late = self.late.lock().unwrap_or_else(PoisonError::into_inner);
        late.splice(0..0, unseen.into_iter().cloned());
        late.truncate(LATE);
        for request in seen {
            let own = late.iter().position(|asked| is_for(asked, request)).map(|position| late.remove(position));
            let is_the_first = own.is_some();
            let own = own.or_else(|| {
                let same = |known: &Request| is_for(known, request) && id(known) == id(request);
                again.iter().position(same).map(|position| again.remove(position))
            });
            if is_the_first && request.method == "GET" {
                again.insert(0, request.clone());
            }
            let own = own.unwrap_or_else(|| panic!("nobody asked for {request:?}, but {:?}", expected.requests));
            is_the_same(&own, request, None);
        }
    }
}

/// Whether a token is in `bytes`.
pub(crate) fn holds_a_token(bytes: &[u8]) -> bool {
    [READ, WRITE].iter().any(|secret| contains(bytes, secret))
}

fn contains(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

/// Whether its caller spoke HTTP/2.
pub(crate) fn is_of_http2(request: &Request) -> bool {
    request.fields.iter().any(|(name, value)| name == "via" && value.starts_with(b"2"))
}

/// Whether the upstream may have received `received` for what was asked.
pub(crate) fn is_for(asked: &Request, received: &Request) -> bool {
    asked.method == received.method
        && asked.body == received.body
        && asked_for(&asked.target) == asked_for(&received.target)
}

/// Whether the upstream received it under the id that the answer has.
pub(crate) fn has_id(request: &Request, answer: &Answer) -> bool {
    id(request) == Some(answer.field("x-request-id").unwrap_or_default().as_bytes())
}

/// The id under which the upstream received it.
fn id(request: &Request) -> Option<&[u8]> {
    request.fields.iter().find(|(name, _)| name == "x-request-id").map(|(_, value)| value.as_slice())
}

/// The upstream received what the caller asked for, with the token that policy chooses and no other credential.
pub(crate) fn is_the_same(asked: &Request, received: &Request, answer: Option<&Answer>) {
    let is_upload =
        received.method == "POST" && received.target.split('?').next().is_some_and(|path| path.contains("/expense/"));
    let token = if is_upload { WRITE } else { READ };
    let values = |name: &str| {
        received.fields.iter().filter(|(known, _)| known == name).map(|(_, value)| value.as_slice()).collect::<Vec<_>>()
    };
    assert_eq!(values("authorization"), [format!("OAuth {token}").as_bytes()], "{asked:?} {answer:?}");
    assert_eq!(values("host"), [b"api-metrika.yandex.net"]);
    assert_eq!(received.method, asked.method);
    assert_eq!(received.body, asked.body);
    let (path, query) = asked_for(&asked.target);
    assert_eq!(asked_for(&received.target), (path.clone(), query.clone()));
    // An empty query may go on as that.
    let sent = if query.is_empty() { received.target.trim_end_matches('?') } else { &received.target };
    let canonical = if query.is_empty() { path } else { format!("{path}?{query}") };
    assert_eq!(sent, canonical, "{asked:?}");
    for name in ["cookie", "proxy-authorization", "forwarded", "x-forwarded-for", "upgrade", "x-api-key"] {
        assert!(values(name).is_empty(), "{name} went up: {received:?}");
    }
}

//! A whole gate in this process, with a caller and an upstream: sends bytes, and holds the gate to one sentence.
//!
//! Whatever a caller or an upstream sends, the upstream sees exactly one request for each accepted request, with exactly one
//! Authorization, the one that policy chose; the caller sees exactly one well-framed answer; and no secret is anywhere
//! else.

use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use metrika_gate::app::{App, Options};
use metrika_gate::config::Config;

use crate::answers::{self, Answer};
use crate::requests::{self, Request};
use crate::upstream::Upstream;

const READ: &str = "fuzz-token-that-may-read-0123456789";
const WRITE: &str = "fuzz-token-that-may-write-987654321";

/// Ends a connection, whatever came before, unless it is the middle of something.
const LAST: &[u8] = b"\r\n\r\nGET /last HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";

/// So many requests that nobody waited for may still come.
pub(crate) const LATE: usize = 1000;

/// A gate that runs.
pub struct Gate {
    /// Where it speaks HTTP/1.1 only.
    socket: PathBuf,
    /// Where it speaks HTTP/2 too.
    pub(crate) either: PathBuf,
    pub(crate) upstream: Upstream,
    /// What callers of HTTP/1.1 before asked and the upstream had not seen when they left, the latest first.
    late: Mutex<Vec<Request>>,
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
        let (socket, either) = (folder.join("gate.sock"), folder.join("either.sock"));
        // The upstream always answers or closes: only on a busy machine does it take long, and then a request that the gate
        // has given up would be taken for one of the next input.
        let text = format!(
            "
listeners:
  - {{name: app, unix: {{path: {socket:?}, mode: \"0600\"}}}}
  - {{name: either, unix: {{path: {either:?}, mode: \"0600\"}}, http2: true}}
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
  - {{id: fuzzer, match: {{listener: app}}, scopes: [metrika:read, metrika:expenses], tokens: [read, write]}}
  - {{id: either, match: {{listener: either}}, scopes: [metrika:read, metrika:expenses], tokens: [read, write]}}
timeouts: {{request_headers: 60ms, body_idle: 60ms, keep_alive: 60ms}}
limits: {{header_bytes: 16KiB, target_bytes: 4KiB}}
log: {{access: false, level: error}}
",
            upstream.address
        );
        let config = Config::parse(&text, &folder.join("gate.yaml")).unwrap_or_else(|error| panic!("{error}"));
        let options = Options { workers: Some(1), ..Options::default() };
        // A thread of its own enters the sandbox: in it libFuzzer could neither read its corpus nor keep a finding.
        let starts = move || std::mem::forget(App::start(config, options).expect("the gate starts"));
        std::thread::spawn(starts).join().expect("the gate runs");
        std::fs::read_dir(".").expect("libFuzzer can read");
        Self { socket, either, upstream, late: Mutex::default() }
    }

    /// Sends `bytes` in pieces, with `answer` as the upstream's first answer where there is one, and holds the sentence.
    pub fn hold(&self, seed: u8, bytes: &[u8], answer: Option<&[u8]>) {
        self.hold_on(&self.socket, seed, bytes, answer);
    }

    /// Begins to hold the sentence; no when one of them knows a token.
    pub(crate) fn begin(&self, bytes: &[u8], answer: Option<&[u8]>) -> bool {
        let mut state = self.upstream.state();
        state.requests.clear();
        state.next = answer.map(<[u8]>::to_vec);
        // The fuzzer learns the tokens from comparisons; a caller does not know them, and the upstream only from requests.
        !holds_a_token(bytes) && !answer.is_some_and(holds_a_token)
    }

    /// The same, for a listener that may speak HTTP/2 too and is to speak HTTP/1.1.
    pub(crate) fn hold_on(&self, socket: &Path, seed: u8, bytes: &[u8], answer: Option<&[u8]>) {
        if !self.begin(bytes, answer) {
            return;
        }
        let sent = [bytes, LAST].concat();
        let received = exchange(socket, seed, &sent);
        assert!(!holds_a_token(&received), "a token reached the caller: {:?}", String::from_utf8_lossy(&received));
        let expected = requests::read(&sent);
        let to_head = |position: usize| expected.requests.get(position).is_some_and(|request| request.method == "HEAD");
        let answers = answers::read(&received, to_head);
        let state = self.upstream.state();
        assert!(state.wrong.is_none(), "the upstream received no request: {:?}", state.wrong);
        // Of a caller before who did not wait for its answers, one of HTTP/2 may come late.
        let mut seen: Vec<&Request> = state.requests.iter().filter(|request| !is_of_http2(request)).collect();
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
                    Some(own) if matches!(answer.status, 502 | 504) => _ = seen.remove(own),
                    Some(own) => assert!(names_itself, "it was refused and sent: {:?} {answer:?}", seen[own]),
                    None if matches!(answer.status, 502 | 504) => unseen.push(request),
                    None => {}
                }
                continue;
            }
            let own = own.or_else(|| seen.iter().position(|next| has_id(next, answer)));
            let own = own.unwrap_or_else(|| panic!("an answer that the upstream did not give: {answer:?}; {seen:?}"));
            is_the_same(request, seen.remove(own), Some(answer));
        }
        // The first without an answer may have been cut with it, and be seen now or later; so of callers before.
        let mut late = self.late.lock().unwrap_or_else(PoisonError::into_inner);
        late.splice(0..0, unseen.into_iter().cloned());
        late.truncate(LATE);
        for request in seen {
            let own = late.iter().position(|asked| is_for(asked, request)).map(|position| late.remove(position));
            // What a connection ended for before a byte of the answer is sent again, where that is safe.
            let may_be_again = answer.is_some_and(<[u8]>::is_empty) && request.method == "GET";
            let again = || expected.requests.iter().find(|asked| may_be_again && is_for(asked, request)).cloned();
            let own = own.or_else(again);
            let own = own.unwrap_or_else(|| panic!("nobody asked for {request:?}, but {:?}", expected.requests));
            is_the_same(&own, request, None);
        }
    }
}

/// A connection of a caller who waits for ten seconds.
pub(crate) fn connect(socket: &Path) -> UnixStream {
    let socket = UnixStream::connect(socket).expect("the gate accepts");
    let limit = Some(Duration::from_secs(10));
    socket.set_read_timeout(limit).and_then(|()| socket.set_write_timeout(limit)).expect("a limit");
    socket
}

/// Sends in pieces, until it is not taken any more.
pub(crate) fn send(socket: &mut UnixStream, seed: u8, bytes: &[u8]) {
    let step = if seed == 0 { bytes.len() } else { usize::from(seed) * usize::from(seed) };
    for piece in bytes.chunks(step.max(bytes.len() / 1000).max(1)) {
        if socket.write_all(piece).is_err() {
            break;
        }
        if seed > 200 {
            std::thread::yield_now();
        }
    }
}

fn exchange(socket: &Path, seed: u8, sent: &[u8]) -> Vec<u8> {
    let mut socket = connect(socket);
    send(&mut socket, seed, sent);
    let mut received = Vec::new();
    match socket.read_to_end(&mut received) {
        Ok(_) => received,
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => received,
        Err(error) => panic!("the gate does not end the connection: {error}"),
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
    let id = answer.field("x-request-id").unwrap_or_default();
    request.fields.iter().any(|(name, value)| name == "x-request-id" && value == id.as_bytes())
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
    assert_eq!(asked_for(&received.target), asked_for(&asked.target));
    for name in ["cookie", "proxy-authorization", "forwarded", "x-forwarded-for", "upgrade", "x-api-key"] {
        assert!(values(name).is_empty(), "{name} went up: {received:?}");
    }
}

/// The path of a target, and the pairs of its query that are no credential.
fn asked_for(target: &str) -> (String, String) {
    let origin_form = match target.split_once("://") {
        Some((scheme, behind)) if !scheme.contains('/') => behind.find(['/', '?']).map_or("/", |at| &behind[at..]),
        Some(_) | None => target,
    };
    let (path, query) = origin_form.split_once('?').unwrap_or((origin_form, ""));
    let pairs = query.split('&').filter(|pair| {
        let name = pair.split('=').next().unwrap_or_default();
        name != "oauth_token" && name != "access_token"
    });
    (path.to_owned(), pairs.collect::<Vec<_>>().join("&"))
}

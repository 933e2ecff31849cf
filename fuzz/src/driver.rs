//! A whole gate in this process, with a caller and an upstream: sends bytes, and holds the gate to one sentence.
//!
//! Whatever a caller or an upstream sends, the upstream sees exactly one request for each accepted request, with exactly one
//! Authorization, the one that policy chose; the caller sees exactly one well-framed answer; and no secret is anywhere
//! else.

use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
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

/// A gate that runs.
pub struct Gate {
    socket: PathBuf,
    upstream: Upstream,
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
        let socket = folder.join("gate.sock");
        let text = format!(
            "
listeners: [{{name: app, unix: {{path: {socket:?}, mode: \"0600\"}}}}]
admin: {{address: '127.0.0.1:0'}}
upstream:
  url: https://api-metrika.yandex.net
  ca_file: {ca:?}
  connect_to: '{}'
  timeouts: {{connect: 2s, response_headers: 100ms, body_idle: 100ms, keep_alive: 60s}}
tokens:
  read: {{file: {read:?}, scopes: [metrika:read]}}
  write: {{file: {crm:?}, scopes: [metrika:expenses]}}
callers: [{{id: fuzzer, match: {{listener: app}}, scopes: [metrika:read, metrika:expenses], tokens: [read, write]}}]
timeouts: {{request_headers: 60ms, body_idle: 60ms, keep_alive: 60ms}}
limits: {{header_bytes: 16KiB, target_bytes: 4KiB}}
log: {{access: false, level: error}}
",
            upstream.address
        );
        let config = Config::parse(&text, &folder.join("gate.yaml")).unwrap_or_else(|error| panic!("{error}"));
        let options = Options { workers: Some(1), ..Options::default() };
        std::mem::forget(App::start(config, options).expect("the gate starts"));
        Self { socket, upstream }
    }

    /// Sends `bytes` in pieces, with `answer` as the upstream's first answer where there is one, and holds the sentence.
    pub fn hold(&self, seed: u8, bytes: &[u8], answer: Option<&[u8]>) {
        // The fuzzer learns the tokens from comparisons; a caller does not know them.
        if [READ, WRITE].iter().any(|secret| contains(bytes, secret)) {
            return;
        }
        {
            let mut state = self.upstream.state();
            state.requests.clear();
            state.next = answer.map(with_tokens);
        }
        let sent = [bytes, LAST].concat();
        let received = self.exchange(seed, &sent);
        for secret in [READ, WRITE] {
            assert!(
                !contains(&received, secret),
                "a token reached the caller: {:?}",
                String::from_utf8_lossy(&received)
            );
        }
        let expected = requests::read(&sent);
        let to_head = |position: usize| expected.requests.get(position).is_some_and(|request| request.method == "HEAD");
        let answers = answers::read(&received, to_head);
        let state = self.upstream.state();
        assert!(state.wrong.is_none(), "the upstream received no request: {:?}", state.wrong);
        let mut seen = state.requests.iter();
        for (position, answer) in answers.iter().enumerate() {
            let Some(request) = expected.requests.get(position) else {
                assert!(answer.is_refusal() && position + 1 == answers.len(), "an answer to no request: {answer:?}");
                continue;
            };
            assert!(answer.field("x-request-id").is_some(), "{answer:?}");
            if answer.is_refusal() {
                assert!((400..600).contains(&answer.status));
                // What the upstream answers badly, it has seen; what it was too slow for, perhaps.
                let same = |next: &&Request| next.method == request.method && request.target.contains(&next.target);
                if matches!(answer.status, 502 | 504) && seen.as_slice().first().is_some_and(|next| same(&next)) {
                    seen.next();
                }
                continue;
            }
            let upstream =
                seen.next().unwrap_or_else(|| panic!("an answer that the upstream did not give: {answer:?}"));
            is_the_same(request, upstream, answer);
        }
        // The last one may have been cut with its answer.
        assert!(seen.len() <= 1, "{} requests that nobody sent: {seen:?}", seen.len());
    }

    fn exchange(&self, seed: u8, sent: &[u8]) -> Vec<u8> {
        let mut socket = UnixStream::connect(&self.socket).expect("the gate accepts");
        let limit = Some(Duration::from_secs(10));
        socket.set_read_timeout(limit).and_then(|()| socket.set_write_timeout(limit)).expect("a limit");
        let step = if seed == 0 { sent.len() } else { usize::from(seed) * usize::from(seed) };
        for piece in sent.chunks(step.max(1)) {
            if socket.write_all(piece).is_err() {
                break;
            }
            if seed > 200 {
                std::thread::yield_now();
            }
        }
        let mut received = Vec::new();
        match socket.read_to_end(&mut received) {
            Ok(_) => received,
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => received,
            Err(error) => panic!("the gate does not end the connection: {error}"),
        }
    }
}

fn contains(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

/// `%R` and `%W` stand for the tokens.
fn with_tokens(answer: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = answer;
    while let Some((first, behind)) = rest.split_first() {
        match rest {
            [b'%', b'R', ..] => out.extend_from_slice(READ.as_bytes()),
            [b'%', b'W', ..] => out.extend_from_slice(WRITE.as_bytes()),
            _ => {
                out.push(*first);
                rest = behind;
                continue;
            }
        }
        rest = &rest[2..];
    }
    out
}

/// The upstream received what the caller asked for, with the token that policy chooses and no other credential.
fn is_the_same(asked: &Request, received: &Request, answer: &Answer) {
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
    let path = |target: &str| target.split('?').next().unwrap_or_default().to_owned();
    let origin_form = match asked.target.split_once("://") {
        Some((scheme, behind)) if !scheme.contains('/') => {
            behind.find(['/', '?']).map_or_else(|| "/".to_owned(), |at| behind[at..].to_owned())
        }
        Some(_) | None => asked.target.clone(),
    };
    assert_eq!(path(&received.target), path(&origin_form));
    let pairs = |target: &str| {
        let query = target.split_once('?').map(|(_, query)| query.to_owned()).unwrap_or_default();
        let pairs = query.split('&').filter(|pair| {
            let name = pair.split('=').next().unwrap_or_default();
            name != "oauth_token" && name != "access_token"
        });
        pairs.map(str::to_owned).collect::<Vec<_>>().join("&")
    };
    assert_eq!(pairs(&received.target), pairs(&origin_form));
    for name in ["cookie", "proxy-authorization", "forwarded", "x-forwarded-for", "upgrade", "x-api-key"] {
        assert!(values(name).is_empty(), "{name} went up: {received:?}");
    }
}

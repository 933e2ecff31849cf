//! A Metrica that keeps every request to the letter, and answers as it is told to.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::requests::{self, Request};

/// What it received and is to answer.
#[derive(Debug, Default)]
pub struct State {
    /// Whole requests, in the order of their ends; `None` for one that was accounted for.
    pub requests: Vec<Option<Request>>,
    /// In the place of an answer to the next request; then the connection ends.
    pub next: Option<Vec<u8>>,
    /// What came was no request to the letter.
    pub wrong: Option<String>,
}

/// An upstream that runs for as long as the process.
#[derive(Debug, Clone)]
pub struct Upstream {
    pub address: SocketAddr,
    pub ca_pem: String,
    state: Arc<Mutex<State>>,
}

impl Upstream {
    /// Starts it.
    pub fn start() -> Self {
        let (config, ca_pem) = certificate();
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address");
        let state: Arc<Mutex<State>> = Arc::default();
        let shared = state.clone();
        let config = Arc::new(config);
        std::thread::spawn(move || {
            for socket in listener.incoming().map_while(Result::ok) {
                let tls = ServerConnection::new(config.clone()).expect("TLS");
                let state = shared.clone();
                std::thread::spawn(move || serve(StreamOwned::new(tls, socket), &state));
            }
        });
        Self { address, ca_pem, state }
    }

    /// What it received and is to answer.
    pub fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

/// What it answers to the request at this position, unless it is told to answer something else.
pub fn usual_answer(position: usize) -> String {
    format!("{{\"request\":{position}}}")
}

/// `%R` stands for the token of the request.
fn with_token(answer: &[u8], request: &Request) -> Vec<u8> {
    let authorization = request.fields.iter().find(|(name, _)| name == "authorization");
    let token = authorization.and_then(|(_, value)| value.strip_prefix(b"OAuth ")).unwrap_or_default();
    let mut out = Vec::new();
    let mut rest = answer;
    while let Some((first, behind)) = rest.split_first() {
        if let Some(behind) = rest.strip_prefix(b"%R") {
            out.extend_from_slice(token);
            rest = behind;
        } else {
            out.push(*first);
            rest = behind;
        }
    }
    out
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn serve(mut stream: StreamOwned<ServerConnection, TcpStream>, state: &Mutex<State>) {
    let _ = stream.sock.set_nodelay(true);
    let _ = stream.sock.set_read_timeout(Some(Duration::from_secs(60)));
    let mut unread = Vec::new();
    let mut asked = false;
    loop {
        let mut buffer = [0; 16 * 1024];
        match stream.read(&mut buffer) {
            Ok(0) => return,
            Ok(read) => unread.extend_from_slice(&buffer[..read]),
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(_) => return,
        }
        let read = requests::read(&unread);
        if read.broken {
            lock(state).wrong = Some(String::from_utf8_lossy(&unread).into_owned());
            return;
        }
        // The gate sends one request after the other.
        let [request] = &read.requests[..] else {
            let waits =
                unread.ends_with(b"\r\n\r\n") && String::from_utf8_lossy(&unread).contains("\nexpect: 100-continue\r");
            if waits && !std::mem::replace(&mut asked, true) {
                let _ = stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").and_then(|()| stream.flush());
            }
            continue;
        };
        asked = false;
        let is_head = request.method == "HEAD";
        let (number, next) = {
            let mut state = lock(state);
            state.requests.push(Some(request.clone()));
            (state.requests.len() - 1, state.next.take())
        };
        if let Some(next) = next {
            let _ = stream.write_all(&with_token(&next, request)).and_then(|()| stream.flush());
            stream.conn.send_close_notify();
            let _ = stream.flush();
            return;
        }
        unread.clear();
        let body = usual_answer(number);
        let head = format!("Content-Type: application/json\r\nContent-Length: {}", body.len());
        let answer = format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n{}", if is_head { "" } else { &body });
        if stream.write_all(answer.as_bytes()).and_then(|()| stream.flush()).is_err() {
            return;
        }
    }
}

fn certificate() -> (ServerConfig, String) {
    let ca_key = KeyPair::generate().expect("a key");
    let mut ca = CertificateParams::new(Vec::new()).expect("no names");
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let ca_pem = ca.self_signed(&ca_key).expect("a certificate").pem();
    let issuer = Issuer::new(ca, ca_key);
    let key = KeyPair::generate().expect("a key");
    let own = CertificateParams::new(vec!["api-metrika.yandex.net".to_owned()]).expect("a name");
    let own = own.signed_by(&key, &issuer).expect("a certificate");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().expect("TLS");
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let config = config.with_no_client_auth().with_single_cert(vec![own.der().clone()], key).expect("a pair");
    (config, ca_pem)
}

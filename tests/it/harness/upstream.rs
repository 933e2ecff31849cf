//! An upstream that records the exact bytes it receives and answers exactly the bytes it is told to.
//!
//! Each test gives it a function that is run for every connection, on a thread of its own, so it can do everything that
//! HTTP allows and everything that it does not.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::caller::uninterrupted;
use super::gate::PATIENCE;

/// An upstream that runs.
pub struct Upstream {
    address: SocketAddr,
    ca_pem: String,
    requests: Arc<Mutex<Vec<String>>>,
    connections: Arc<AtomicUsize>,
}

/// A connection of the gate, with TLS taken off.
pub struct Conversation {
    stream: StreamOwned<ServerConnection, TcpStream>,
    unread: Vec<u8>,
    requests: Arc<Mutex<Vec<String>>>,
    /// The number of the connection, from 0.
    pub number: usize,
}

impl Upstream {
    /// Answers every request with 200 and `{}`.
    pub fn plain() -> Self {
        Self::run(|conversation| {
            while let Some(head) = conversation.request_head() {
                conversation.request_body(&head);
                conversation.answer("200 OK", "application/json", "{}");
            }
        })
    }

    /// Answers every request, and returns the lines of the chunked bodies, with their trailers.
    pub fn of_chunked_bodies() -> (Self, Arc<Mutex<Vec<String>>>) {
        let lines: Arc<Mutex<Vec<String>>> = Arc::default();
        let kept = lines.clone();
        let upstream = Self::run(move |conversation| {
            while conversation.request_head().is_some() {
                loop {
                    let line = conversation.line();
                    if line.is_empty() {
                        break;
                    }
                    kept.lock().unwrap().push(line);
                }
                conversation.answer("200 OK", "application/json", "{}");
            }
        });
        (upstream, lines)
    }

    /// Runs `serve` for every connection.
    pub fn run(serve: impl Fn(&mut Conversation) + Send + Sync + 'static) -> Self {
        let (config, ca_pem) = certificate("api-metrika.yandex.net");
        Self::run_with(config, ca_pem, serve)
    }

    /// Runs `serve` for every connection, on TLS with `config`.
    pub fn run_with(
        config: ServerConfig,
        ca_pem: String,
        serve: impl Fn(&mut Conversation) + Send + Sync + 'static,
    ) -> Self {
        Self::run_on(TcpListener::bind("127.0.0.1:0").unwrap(), config, ca_pem, serve)
    }

    /// The same at a place of the test's choice.
    pub fn run_on(
        listener: TcpListener,
        config: ServerConfig,
        ca_pem: String,
        serve: impl Fn(&mut Conversation) + Send + Sync + 'static,
    ) -> Self {
        let address = listener.local_addr().unwrap();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let connections = Arc::new(AtomicUsize::new(0));
        let (config, serve) = (Arc::new(config), Arc::new(serve));
        let upstream = Self { address, ca_pem, requests: requests.clone(), connections: connections.clone() };
        std::thread::spawn(move || {
            for socket in listener.incoming().map_while(Result::ok) {
                let number = connections.fetch_add(1, Ordering::SeqCst);
                socket.set_read_timeout(Some(PATIENCE)).unwrap();
                socket.set_nodelay(true).unwrap();
                let tls = ServerConnection::new(config.clone()).unwrap();
                let (serve, requests) = (serve.clone(), requests.clone());
                std::thread::spawn(move || {
                    let stream = StreamOwned::new(tls, socket);
                    serve(&mut Conversation { stream, unread: Vec::new(), requests, number });
                });
            }
        });
        upstream
    }

    /// The address that it listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The certificate that signed its own.
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// The head of every request that it received, byte for byte.
    pub fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }

    /// The number of connections that it accepted.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

impl Conversation {
    /// Reads the head of the next request, and records it; `None` when the gate closed the connection.
    pub fn request_head(&mut self) -> Option<String> {
        let end = loop {
            if let Some(at) = self.unread.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
            if self.more() == 0 {
                return None;
            }
        };
        let head: Vec<u8> = self.unread.drain(..end).collect();
        let head = String::from_utf8_lossy(&head).into_owned();
        self.requests.lock().unwrap().push(head.clone());
        Some(head)
    }

    /// The name that the gate asked for in TLS (SNI).
    pub fn server_name(&self) -> Option<String> {
        self.stream.conn.server_name().map(str::to_owned)
    }

    /// Reads the body that a head announces; its bytes without the chunks' framing are returned.
    pub fn request_body(&mut self, head: &str) -> Vec<u8> {
        let lower = head.to_ascii_lowercase();
        if lower.contains("transfer-encoding: chunked") {
            let mut body = Vec::new();
            loop {
                let line = self.line();
                let size = usize::from_str_radix(line.split(';').next().unwrap().trim(), 16).unwrap();
                if size == 0 {
                    while !self.line().is_empty() {}
                    return body;
                }
                body.extend(self.exactly(size));
                self.exactly(2);
            }
        }
        let length = lower.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
        self.exactly(length.unwrap_or(0))
    }

    /// Reads up to and without the next line break.
    pub fn line(&mut self) -> String {
        self.try_line().expect("closed in a line")
    }

    /// The same; `None` when the gate closed the connection before.
    pub fn try_line(&mut self) -> Option<String> {
        loop {
            if let Some(at) = self.unread.windows(2).position(|two| two == b"\r\n") {
                let line: Vec<u8> = self.unread.drain(..at + 2).collect();
                return Some(String::from_utf8_lossy(&line[..at]).into_owned());
            }
            if self.more() == 0 {
                return None;
            }
        }
    }

    /// Reads this number of bytes.
    pub fn exactly(&mut self, length: usize) -> Vec<u8> {
        while self.unread.len() < length {
            assert!(self.more() > 0, "closed in a body");
        }
        self.unread.drain(..length).collect()
    }

    /// Reads the nine bytes before the next frame of HTTP/2; `None` when the gate closed the connection.
    pub fn frame_head(&mut self) -> Option<Vec<u8>> {
        while self.unread.len() < 9 {
            if self.more() == 0 {
                return None;
            }
        }
        Some(self.unread.drain(..9).collect())
    }

    /// Reads a frame of HTTP/2: its type, flags, stream (four bytes) and payload; `None` when the gate closed.
    pub fn frame(&mut self) -> Option<(u8, u8, [u8; 4], Vec<u8>)> {
        let head = self.frame_head()?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let payload = self.exactly(usize::try_from(length).unwrap());
        Some((head[3], head[4], [head[5], head[6], head[7], head[8]], payload))
    }

    /// Writes a whole answer with a length.
    pub fn answer(&mut self, status: &str, content_type: &str, body: &str) {
        self.write(format!(
            "HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        ));
    }

    /// Writes bytes as they are; whether the gate took them.
    pub fn write(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.stream.write_all(bytes.as_ref()).and_then(|()| self.stream.flush()).is_ok()
    }

    /// Whether the gate closes the connection, without sending more.
    pub fn is_closed(&mut self) -> bool {
        self.unread.is_empty() && self.more() == 0
    }

    /// Reads some bytes; `None` when the gate closed the connection.
    pub fn some(&mut self) -> Option<Vec<u8>> {
        if self.unread.is_empty() && self.more() == 0 {
            return None;
        }
        Some(std::mem::take(&mut self.unread))
    }

    /// Reads some bytes and forgets them; 0 when the gate closed the connection.
    pub fn discard(&mut self) -> usize {
        self.some().map_or(0, |some| some.len())
    }

    /// Closes the connection as TLS wants it closed.
    pub fn close(&mut self) {
        self.stream.conn.send_close_notify();
        let _ = self.stream.flush();
        let _ = self.stream.sock.shutdown(std::net::Shutdown::Write);
    }

    /// Breaks the connection off: it is reset when this conversation ends.
    pub fn reset(&mut self) {
        socket2::SockRef::from(&self.stream.sock).set_linger(Some(std::time::Duration::ZERO)).unwrap();
    }

    fn more(&mut self) -> usize {
        let mut buffer = [0; 64 * 1024];
        let read = uninterrupted(|| self.stream.read(&mut buffer)).unwrap_or(0);
        self.unread.extend_from_slice(&buffer[..read]);
        read
    }
}

/// Somebody who signs certificates.
pub struct Authority {
    /// Its own certificate.
    pub pem: String,
    /// The key that it signs with.
    pub issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// A certificate authority of this name.
    pub fn new(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let pem = params.self_signed(&key).unwrap().pem();
        Self { pem, issuer: Issuer::new(params, key) }
    }

    /// TLS with a certificate for `name` that `change` made something else of.
    pub fn signs(&self, name: &str, change: impl FnOnce(&mut CertificateParams)) -> ServerConfig {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        change(&mut params);
        server_config(params.signed_by(&key, &self.issuer).unwrap().der().to_vec(), &key)
    }
}

/// TLS with a certificate for `name`, and the certificate that signed it.
pub fn certificate(name: &str) -> (ServerConfig, String) {
    let authority = Authority::new("authority");
    (authority.signs(name, |_| {}), authority.pem)
}

/// TLS 1.2 and 1.3 with one certificate.
pub fn server_config(certificate: Vec<u8>, key: &KeyPair) -> ServerConfig {
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    builder.with_no_client_auth().with_single_cert(vec![certificate.into()], key).unwrap()
}
